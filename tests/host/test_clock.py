"""The clock: exact waits, and no step of it is missed."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from cronflowd.host import clock as clock_module
from cronflowd.host.clock import Clock
from tests.lib.descriptors import open_descriptors
from tests.lib.waiting import PATIENCE_S, until

START = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def clock() -> Iterator[Clock]:
    clock = Clock()
    yield clock
    clock.close()


def test_now_is_utc_in_whole_milliseconds_and_never_ahead(clock: Clock) -> None:
    """What was recorded as due at 12:00:00.000 must not be found to be a microsecond early."""
    before = time.time()
    now = clock.now()
    assert (now.tzinfo, now.microsecond % 1000) == (UTC, 0)
    assert before - 0.001 <= now.timestamp() <= time.time()


async def test_a_wait_ends_when_the_wall_clock_shows_the_time(clock: Clock) -> None:
    """Not a moment sooner: a task fired early would find itself not due, and the loop would spin."""
    at = clock.now() + timedelta(milliseconds=60)
    assert await clock.wait_until(at) is False
    assert at <= clock.now() < at + timedelta(seconds=PATIENCE_S)


@pytest.mark.parametrize("at", [START - timedelta(days=9000), datetime(1969, 1, 1, tzinfo=UTC)])
async def test_a_time_that_has_passed_is_not_waited_for(clock: Clock, at: datetime) -> None:
    """Also before 1970, where a timer set to zero would mean never."""
    assert await clock.wait_until(at) is False


@pytest.mark.parametrize("at", [None, datetime.max.replace(tzinfo=UTC)])
async def test_for_ever_is_possible(clock: Clock, at: datetime | None) -> None:
    """An empty table of tasks waits, and so does one whose only task is due in the year 9999."""
    with trio.move_on_after(0.05) as scope:
        await clock.wait_until(at)
    assert scope.cancelled_caught


async def test_a_cancelled_wait_leaves_nothing_behind(clock: Clock) -> None:
    """The loop cancels whenever something earlier becomes due; the old time must not fire later."""
    soon = clock.now() + timedelta(milliseconds=30)
    with trio.move_on_after(0):
        await clock.wait_until(soon)
    with trio.move_on_after(0.1) as scope:
        await clock.wait_until(None)
    assert scope.cancelled_caught
    # And one that ran out while nobody waited does not end the next wait before its time.
    with trio.move_on_after(0):
        await clock.wait_until(clock.now() + timedelta(milliseconds=1))
    time.sleep(0.01)
    at = clock.now() + timedelta(milliseconds=40)
    assert await clock.wait_until(at) is False
    assert clock.now() >= at


async def test_waiting_is_a_checkpoint_even_for_the_past(clock: Clock) -> None:
    """A loop that is always late must still let others run, and be stopped."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await clock.wait_until(START - timedelta(days=9000))
    assert scope.cancelled_caught


# To set the clock would be felt by everything that runs on this machine. So these tests say what the
# kernel says then, as timerfd_create(2) tells it: ECANCELED, from the read or from the next arming.


async def test_a_clock_that_is_set_ends_the_wait(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """All due times must be looked at anew; a task may have become due, or no longer be."""

    def read(fd: int, size: int) -> bytes:
        raise OSError(errno.ECANCELED, "the clock was set")

    monkeypatch.setattr(os, "read", read)
    assert await clock.wait_until(clock.now()) is True


async def test_a_clock_set_between_two_waits_is_noticed(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop is not always waiting, and administrators do not ask when it is."""

    def settime(*_: object) -> int:
        ctypes.set_errno(errno.ECANCELED)
        return -1

    with monkeypatch.context() as context:
        context.setattr(clock, "_libc", SimpleNamespace(timerfd_settime=settime))
        assert await clock.wait_until(None) is True
        with trio.CancelScope() as scope:
            scope.cancel()
            await clock.wait_until(None)
        assert scope.cancelled_caught  # however often that happens, the loop can be stopped
    assert await clock.wait_until(clock.now()) is False  # once is enough


async def test_a_descriptor_that_was_readable_for_nothing_is_waited_for_again(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readable is a hint; only a read that succeeds says that the time has come."""
    real, count = os.read, 0

    def read(fd: int, size: int) -> bytes:
        nonlocal count
        count += 1
        if count == 1:
            raise BlockingIOError
        return real(fd, size)

    monkeypatch.setattr(os, "read", read)
    assert (await clock.wait_until(clock.now()), count) == (False, 2)


async def test_the_kernel_is_asked_to_tell_of_steps(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this flag it would never say the word that the tests above put into its mouth."""
    real, seen = clock._libc, []

    def settime(fd: int, flags: int, *rest: object) -> int:
        seen.append(flags)
        return int(real.timerfd_settime(fd, flags, *rest))

    monkeypatch.setattr(clock, "_libc", SimpleNamespace(timerfd_settime=settime))
    await clock.wait_until(clock.now())
    assert seen == [clock_module.TFD_TIMER_ABSTIME | clock_module.TFD_TIMER_CANCEL_ON_SET]
    # What <sys/timerfd.h> calls them.
    assert (clock_module.TFD_TIMER_ABSTIME, clock_module.TFD_TIMER_CANCEL_ON_SET) == (1 << 0, 1 << 1)


def test_a_timer_that_cannot_be_had_is_an_error() -> None:
    """No descriptor may be left; and nothing would ever be due by the timer -1."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(OSError, match="timerfd_create"):
            Clock()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_what_else_the_kernel_says_is_an_error(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer that cannot be armed must not look like one that is."""

    def settime(*_: object) -> int:
        ctypes.set_errno(errno.EINVAL)
        return -1

    monkeypatch.setattr(clock, "_libc", SimpleNamespace(timerfd_settime=settime))
    with pytest.raises(OSError, match="timerfd_settime"):
        await clock.wait_until(None)


async def test_the_kernel_s_timer_sleeps_in_one_piece(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle daemon wakes up for nothing: no timeout of trio's is set while it waits."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.wait_until, clock.now() + timedelta(hours=1))
        await wait_all_tasks_blocked()
        # The test's own time limit is none of trio's, so nothing at all is due in its loop.
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == float("inf")
        nursery.cancel_scope.cancel()


def test_a_clock_uses_one_descriptor_however_often_it_waits() -> None:
    """Every command that is added re-arms it."""

    async def wait_often() -> None:
        before = open_descriptors()
        for _ in range(50):
            with trio.move_on_after(0):
                await clock.wait_until(None)
        await until(lambda: open_descriptors() <= before)

    clock = Clock()
    trio.run(wait_often)
    clock.close()


def test_a_clock_is_not_inherited_by_jobs(clock: Clock) -> None:
    """Child processes get no descriptor that is none of theirs."""
    assert not os.get_inheritable(clock._fd)


def test_the_machine_s_steady_time_keeps_pace_with_its_wall_clock(clock: Clock) -> None:
    """Seconds are seconds on both, or every look would find a step."""

    def both() -> tuple[datetime, float]:
        """At one moment; the machine may stand still between two readings."""
        while True:
            before_s, now, after_s = clock.steady_s(), clock.now(), clock.steady_s()
            if after_s - before_s < 0.01:
                return now, after_s

    begin_at, begin_s = both()
    time.sleep(0.05)
    end_at, end_s = both()
    wall_s, steady_s = (end_at - begin_at).total_seconds(), end_s - begin_s
    assert steady_s >= 0.05
    assert abs(wall_s - steady_s) < clock_module.STEP_S
