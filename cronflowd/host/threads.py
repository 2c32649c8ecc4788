"""Threads, for what would keep the loop waiting.

A machine that starts no more of them, as a container does whose jobs have used up its processes, is told
like a disk that fails: whoever asked is refused, and everything else goes on.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar, TypeVarTuple, Unpack

import trio

T = TypeVar("T")
Given = TypeVarTuple("Given")
_NO_THREAD = "can't start new thread"  # as Python says it


async def call_in_thread(
    function: Callable[[Unpack[Given]], T],
    *given: *Given,
    limiter: trio.CapacityLimiter | None = None,
    abandon_on_cancel: bool = False,
) -> T:
    """Calls it in a thread; raises what it raises, and OSError where there is none."""
    with wanted():
        return await trio.to_thread.run_sync(
            function, *given, limiter=limiter, abandon_on_cancel=abandon_on_cancel
        )


@contextmanager
def wanted() -> Iterator[None]:
    """OSError where no thread can be started: trio begins processes in them, too."""
    try:
        yield
    except RuntimeError as error:
        if str(error) != _NO_THREAD:
            raise
        why = "no thread can be started (ulimit -u, or a limit of its container)"
        raise OSError(errno.EAGAIN, why) from error
