"""The only reader of the wall clock, and what sleeps until it shows a given time.

Trio's own clock counts on through a step of the wall clock and stands still while the machine
is suspended, so a schedule cannot be waited for with `trio.sleep`. The kernel's timerfd on
CLOCK_REALTIME keeps both promises: it fires when the wall clock reaches the time, and its
descriptor turns readable at once when somebody sets the clock.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from datetime import datetime, timedelta
from typing import Protocol

import trio

from ..schedules.zones import EPOCH

FOREVER_S = 8_000_000_000  # the year 2223; the kernel's own end is in 2262
POLL_S = 1.0  # where there is no timerfd: how late a step of the clock may be noticed
# More than two readings of two clocks are ever apart, or a clock is slewed in POLL_S; time servers turn
# the clock rather than set it when it is less wrong than 0.128 s.
STEP_S = 0.2

TFD_TIMER_ABSTIME = 1
TFD_TIMER_CANCEL_ON_SET = 2


class Clock(Protocol):
    """What the daemon asks of a clock; one task waits at a time."""

    def now(self) -> datetime:
        """The wall clock's time, UTC, in whole milliseconds."""
        ...

    def steady_s(self) -> float:
        """Seconds since some moment that nobody can set; those in suspend are counted where possible."""
        ...

    async def wait_until(self, at: datetime | None) -> bool:
        """Wait for a time, None for ever; True when the clock was set or the machine had slept."""
        ...

    def close(self) -> None:
        """Let go of what it holds; nobody may be waiting."""
        ...


_STEADY: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def wall_now() -> datetime:
    """The machine's wall clock, UTC, in whole milliseconds."""
    # Truncated, so that it never tells a time that has not come yet.
    return EPOCH + timedelta(milliseconds=time.time_ns() // 1_000_000)


class SystemClock:
    """The machine's clock."""

    def __init__(self) -> None:
        self._timer: Timer | Poller = Timer.open() or Poller()

    def now(self) -> datetime:
        return wall_now()

    def steady_s(self) -> float:
        # Slewed just as the wall clock is, so that the two part only when that one is set.
        return time.clock_gettime(_STEADY)

    async def wait_until(self, at: datetime | None) -> bool:
        return await self._timer.wait_until(_nanoseconds(at))

    def close(self) -> None:
        self._timer.close()


def _nanoseconds(at: datetime | None) -> int:
    """Nanoseconds since 1970, never 0 (which would disarm) and never beyond the kernel's range."""
    if at is None:
        return FOREVER_S * 10**9
    return min(max((at - EPOCH) // timedelta(microseconds=1) * 1000, 1), FOREVER_S * 10**9)


class _Itimerspec(ctypes.Structure):
    """struct itimerspec: the interval, which stays zero, and the moment."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("at_s", ctypes.c_long),
        ("at_ns", ctypes.c_long),
    )


class Timer:
    """One timerfd, armed anew for every wait; while nobody waits it costs nothing."""

    def __init__(self, libc: ctypes.CDLL, fd: int) -> None:
        self._libc = libc
        self._fd = fd

    @classmethod
    def open(cls) -> Timer | None:
        """None where the system has no timerfd."""
        libc = ctypes.CDLL(None, use_errno=True)
        if not hasattr(libc, "timerfd_create"):
            return None
        fd = libc.timerfd_create(time.CLOCK_REALTIME, os.O_CLOEXEC | os.O_NONBLOCK)
        return cls(libc, fd) if fd >= 0 else None

    async def wait_until(self, at_ns: int) -> bool:
        # Both the arming and the reading can be what tells of a step: the kernel remembers
        # one that came between two waits, so none is lost however often a wait is cancelled.
        if not self._arm(at_ns):
            await trio.lowlevel.checkpoint()
            return True
        while True:
            await trio.lowlevel.wait_readable(self._fd)
            try:
                os.read(self._fd, 8)
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno != errno.ECANCELED:
                    raise
                return True
            return False

    def _arm(self, at_ns: int) -> bool:
        """Whether the timer is armed and no step was seen; after a step it must be asked again."""
        moment = _Itimerspec(0, 0, *divmod(at_ns, 10**9))
        flags = TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET
        if self._libc.timerfd_settime(self._fd, flags, ctypes.byref(moment), None) == 0:
            return True
        if ctypes.get_errno() == errno.ECANCELED:
            return False
        raise OSError(ctypes.get_errno(), "timerfd_settime")

    def close(self) -> None:
        os.close(self._fd)


class Poller:
    """Without timerfd: short sleeps, and a look at both clocks after each."""

    def __init__(self) -> None:
        self._offset_s = self._offset()

    @staticmethod
    def _offset() -> float:
        """Wall clock less monotonic clock; it jumps when the former is set or the latter stood still."""
        return time.time() - time.monotonic()

    async def wait_until(self, at_ns: int) -> bool:
        await trio.lowlevel.checkpoint()
        while not self._was_stepped():
            left_s = (at_ns - time.time_ns()) / 10**9
            if left_s <= 0:
                return False
            await trio.sleep(min(left_s, POLL_S))
        return True

    def _was_stepped(self) -> bool:
        # Compared with the last look, not the first: slewing adds up over the days.
        before, self._offset_s = self._offset_s, self._offset()
        return abs(self._offset_s - before) > STEP_S

    def close(self) -> None:
        """Nothing is held."""


class VirtualClock:
    """For tests: wall time that follows trio's clock, so that autojump can make a day pass at once."""

    def __init__(self, start: datetime) -> None:
        self._start = start
        self._origin_s: float | None = None  # trio's time at the first look; None before it
        self._slept_s = 0.0
        self._stepped = trio.Event()

    def now(self) -> datetime:
        # Rounded before it is cut: trio's floats fall short of a whole second by a hair.
        return self._start + timedelta(milliseconds=round(self._elapsed_s() * 1e6) // 1000)

    def _elapsed_s(self) -> float:
        if self._origin_s is None:
            self._origin_s = trio.current_time()
        return trio.current_time() - self._origin_s

    def steady_s(self) -> float:
        return self._elapsed_s() + self._slept_s

    def step(self, seconds: float) -> None:
        """Set the clock, forward or back, as an administrator would."""
        self._start += timedelta(seconds=seconds)
        self._stepped.set()

    def suspend(self, seconds: float) -> None:
        """Let the machine sleep: trio's clock stands still, all others go on."""
        self._slept_s += seconds
        self.step(seconds)

    async def wait_until(self, at: datetime | None) -> bool:
        await trio.lowlevel.checkpoint()
        while not self._stepped.is_set():
            left_s = float("inf") if at is None else (at - self.now()).total_seconds()
            if left_s <= 0:
                return False
            with trio.move_on_after(left_s):
                await self._stepped.wait()
        self._stepped = trio.Event()
        return True

    def close(self) -> None:
        """Nothing is held."""
