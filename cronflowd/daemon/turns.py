"""Work that takes long, or of which nobody knows how long: everybody else has his turn meanwhile."""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Iterable
from time import perf_counter
from typing import Any, TypeVar

import trio

from ..base.errors import Refusal
from ..base.walks import Steps

SLICE_S = 0.003  # of working out, before the others have their turn
FREED_TOGETHER = 1000
MAX_ROWS = 100_000  # of an answer
MAX_S = 60.0  # usually 200,000 tasks take a second or two

T = TypeVar("T")

_ASK_LESS = "name a task, or an earlier until="


async def in_turns(steps: Generator[None, None, T]) -> T:
    """What is worked out in small steps, with everybody else's turns in between."""
    walk, until = Steps(steps), perf_counter() + SLICE_S
    for _ in walk:
        if perf_counter() >= until:
            await turn()
            until = perf_counter() + SLICE_S
    return walk.value


async def let_go(items: list[Any]) -> None:
    """Empties a long list."""
    while items:
        del items[-FREED_TOGETHER:]
        await turn()


async def turn() -> None:
    """Everybody else's."""
    # What a million tasks are made of is no garbage, and to look at all of it again and again takes long.
    gc.freeze()
    await trio.lowlevel.checkpoint()


async def gather(items: Iterable[T | None], take: Callable[[T], object] | None = None) -> list[T]:
    """All that is there, as far as that is an answer; None is nothing. Raises Refusal."""
    found: list[T] = []

    def look() -> Generator[None, None, None]:
        for item in items:
            if item is not None:
                (take or found.append)(item)
            if len(found) > MAX_ROWS:
                raise Refusal("limit", f"more than {MAX_ROWS} rows; {_ASK_LESS}")
            yield

    with trio.move_on_after(MAX_S):
        await in_turns(look())
        return found
    raise Refusal("limit", f"it takes longer than {MAX_S:g} s; {_ASK_LESS}")
