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

import trio

from ..schedules.zones import EPOCH

FOREVER_S = 8_000_000_000  # the year 2223; the kernel's own end is in 2262
# More than two readings of two clocks are ever apart; time servers turn the clock rather than set it
# when it is less wrong than 0.128 s.
STEP_S = 0.2

TFD_TIMER_ABSTIME = 1
TFD_TIMER_CANCEL_ON_SET = 2


def wall_now() -> datetime:
    """The machine's wall clock, UTC, in whole milliseconds."""
    # Truncated, so that it never tells a time that has not come yet.
    return EPOCH + timedelta(milliseconds=time.time_ns() // 1_000_000)


def steady_now() -> float:
    """Seconds since some moment that nobody can set; those in suspend are counted."""
    # Slewed just as the wall clock is, so that the two part only when that one is set.
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class _Itimerspec(ctypes.Structure):
    """struct itimerspec: the interval, which stays zero, and the moment."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("at_s", ctypes.c_long),
        ("at_ns", ctypes.c_long),
    )


class Clock:
    """The machine's clock: one timerfd, armed anew for every wait; while nobody waits it costs nothing."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(time.CLOCK_REALTIME, os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    now = staticmethod(wall_now)
    steady_s = staticmethod(steady_now)

    async def wait_until(self, at: datetime | None) -> bool:
        """Wait for a time, None for ever; True when the clock was set. One task waits at a time."""
        # Both the arming and the reading can be what tells of a step: the kernel remembers
        # one that came between two waits, so none is lost however often a wait is cancelled.
        if not self._arm(_nanoseconds(at)):
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
        """Let go of what it holds; nobody may be waiting."""
        os.close(self._fd)


def _nanoseconds(at: datetime | None) -> int:
    """Nanoseconds since 1970, never 0 (which would disarm) and never beyond the kernel's range."""
    if at is None:
        return FOREVER_S * 10**9
    return min(max((at - EPOCH) // timedelta(microseconds=1) * 1000, 1), FOREVER_S * 10**9)
