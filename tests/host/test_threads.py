"""Threads: what blocks goes there, and a machine that starts none is no bug of ours."""

from __future__ import annotations

import errno
import threading
from typing import NoReturn

import pytest
import trio

from cronflowd.host.threads import call_in_thread


async def test_it_gives_and_raises_what_the_function_does() -> None:
    """As if it had been called here."""
    assert await call_in_thread(pow, 2, 5) == 32
    with pytest.raises(ZeroDivisionError):
        await call_in_thread(divmod, 1, 0)


async def test_a_machine_that_starts_no_thread_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where jobs have used up the processes of their container: it was `a bug`, and a stop was 70."""

    def start(thread: threading.Thread) -> NoReturn:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio._core._thread_cache.THREAD_CACHE, "_idle_workers", {})
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(OSError, match="no thread can be started") as refused:
        await call_in_thread(pow, 2, 5)
    assert refused.value.errno == errno.EAGAIN


async def test_other_errors_of_that_kind_stay_bugs() -> None:
    """They say something else."""

    def fail() -> NoReturn:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        await call_in_thread(fail)
