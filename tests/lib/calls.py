"""How many functions are called meanwhile: a figure that no machine and no neighbour can change.

Python's collector is kept out of it: what it finds to finalize was left by whoever came before.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

OURS = ("call",)
ALL = ("call", "c_call")


@contextmanager
def counting(events: tuple[str, ...] = ALL) -> Iterator[list[int]]:
    """Its one number grows with each call of this thread: of Python's functions, and of built-in ones."""
    calls = [0]

    def count(frame: FrameType, event: str, arg: object) -> None:
        calls[0] += event in events

    was_collecting = gc.isenabled()
    gc.disable()
    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(None)
        if was_collecting:
            gc.enable()


def calls_of(work: Callable[[], object], events: tuple[str, ...] = ALL) -> int:
    with counting(events) as calls:
        work()
        sys.setprofile(None)
    return calls[0]
