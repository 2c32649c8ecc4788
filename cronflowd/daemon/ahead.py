"""Answers of which nobody knows how long they take: everybody else has his turn meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import perf_counter
from typing import TypeVar

import trio

from ..base.errors import Refusal

MAX_ROWS = 100_000
MAX_S = 60.0  # usually 200,000 tasks take a second or two
SLICE_S = 0.002

T = TypeVar("T")

_ASK_LESS = "name a task, or an earlier until="


async def gather(items: Iterable[T | None], take: Callable[[T], object] | None = None) -> list[T]:
    """All that is there, found in slices with everybody else's turns in between; None is nothing."""
    found: list[T] = []
    began = perf_counter()
    until = began + SLICE_S
    await trio.lowlevel.checkpoint()
    for item in items:
        if item is not None:
            (take or found.append)(item)
        if len(found) > MAX_ROWS:
            raise Refusal("limit", f"more than {MAX_ROWS} rows; {_ASK_LESS}")
        if perf_counter() > until:
            await trio.lowlevel.checkpoint()
            until = perf_counter() + SLICE_S
        if until > began + MAX_S:
            raise Refusal("limit", f"it takes longer than {MAX_S:g} s; {_ASK_LESS}")
    return found
