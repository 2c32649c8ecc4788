"""Clocks: exact waits on the real one, and the same promises kept by every kind."""

from __future__ import annotations

import ctypes
import errno
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from cronflowd.host import clock as clock_module
from cronflowd.host.clock import Clock, Poller, SystemClock, Timer, VirtualClock

START = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(params=["timerfd", "polling"])
def system_clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[SystemClock]:
    """The machine's clock, with the kernel's help and without."""
    if request.param == "polling":
        monkeypatch.setattr(Timer, "open", lambda: None)
    clock = SystemClock()
    assert isinstance(clock._timer, Poller if request.param == "polling" else Timer)
    yield clock
    clock.close()


@pytest.fixture
def timer_clock() -> Iterator[SystemClock]:
    clock = SystemClock()
    yield clock
    clock.close()


def test_now_is_utc_in_whole_milliseconds_and_never_ahead(system_clock: SystemClock) -> None:
    """What was recorded as due at 12:00:00.000 must not be found to be a microsecond early."""
    before = time.time()
    now = system_clock.now()
    assert (now.tzinfo, now.microsecond % 1000) == (UTC, 0)
    assert before - 0.001 <= now.timestamp() <= time.time()


async def test_a_wait_ends_when_the_wall_clock_shows_the_time(system_clock: SystemClock) -> None:
    """Not a moment sooner: a task fired early would find itself not due, and the loop would spin."""
    at = system_clock.now() + timedelta(milliseconds=60)
    assert await system_clock.wait_until(at) is False
    assert at <= system_clock.now() < at + timedelta(seconds=5)


@pytest.mark.parametrize("at", [START - timedelta(days=9000), datetime(1969, 1, 1, tzinfo=UTC)])
async def test_a_time_that_has_passed_is_not_waited_for(system_clock: SystemClock, at: datetime) -> None:
    """Also before 1970, where a timer set to zero would mean never."""
    assert await system_clock.wait_until(at) is False


@pytest.mark.parametrize("at", [None, datetime.max.replace(tzinfo=UTC)])
async def test_for_ever_is_possible(system_clock: SystemClock, at: datetime | None) -> None:
    """An empty table of tasks waits, and so does one whose only task is due in the year 9999."""
    with trio.move_on_after(0.05) as scope:
        await system_clock.wait_until(at)
    assert scope.cancelled_caught


async def test_a_cancelled_wait_leaves_nothing_behind(system_clock: SystemClock) -> None:
    """The loop cancels whenever something earlier becomes due; the old time must not fire later."""
    soon = system_clock.now() + timedelta(milliseconds=30)
    with trio.move_on_after(0):
        await system_clock.wait_until(soon)
    with trio.move_on_after(0.1) as scope:
        await system_clock.wait_until(None)
    assert scope.cancelled_caught
    # And one that ran out while nobody waited does not end the next wait before its time.
    with trio.move_on_after(0):
        await system_clock.wait_until(system_clock.now() + timedelta(milliseconds=1))
    time.sleep(0.01)
    at = system_clock.now() + timedelta(milliseconds=40)
    assert await system_clock.wait_until(at) is False
    assert system_clock.now() >= at


async def test_waiting_is_a_checkpoint_even_for_the_past(system_clock: SystemClock) -> None:
    """A loop that is always late must still let others run, and be stopped."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await system_clock.wait_until(START - timedelta(days=9000))
    assert scope.cancelled_caught


# To set the clock would be felt by everything that runs on this machine. So these tests say what the
# kernel says then, as timerfd_create(2) tells it: ECANCELED, from the read or from the next arming.


async def test_a_clock_that_is_set_ends_the_wait(
    timer_clock: SystemClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All due times must be looked at anew; a task may have become due, or no longer be."""

    def read(fd: int, size: int) -> bytes:
        raise OSError(errno.ECANCELED, "the clock was set")

    monkeypatch.setattr(os, "read", read)
    assert await timer_clock.wait_until(timer_clock.now()) is True


async def test_a_clock_set_between_two_waits_is_noticed(
    timer_clock: SystemClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop is not always waiting, and administrators do not ask when it is."""
    timer = timer_clock._timer
    assert isinstance(timer, Timer)

    def settime(*_: object) -> int:
        ctypes.set_errno(errno.ECANCELED)
        return -1

    with monkeypatch.context() as context:
        context.setattr(timer, "_libc", SimpleNamespace(timerfd_settime=settime))
        assert await timer_clock.wait_until(None) is True
        with trio.CancelScope() as scope:
            scope.cancel()
            await timer_clock.wait_until(None)
        assert scope.cancelled_caught  # however often that happens, the loop can be stopped
    assert await timer_clock.wait_until(timer_clock.now()) is False  # once is enough


async def test_a_descriptor_that_was_readable_for_nothing_is_waited_for_again(
    timer_clock: SystemClock, monkeypatch: pytest.MonkeyPatch
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
    assert (await timer_clock.wait_until(timer_clock.now()), count) == (False, 2)


async def test_the_kernel_is_asked_to_tell_of_steps(
    timer_clock: SystemClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without this flag it would never say the word that the tests above put into its mouth."""
    timer = timer_clock._timer
    assert isinstance(timer, Timer)
    real, seen = timer._libc, []

    def settime(fd: int, flags: int, *rest: object) -> int:
        seen.append(flags)
        return int(real.timerfd_settime(fd, flags, *rest))

    monkeypatch.setattr(timer, "_libc", SimpleNamespace(timerfd_settime=settime))
    await timer_clock.wait_until(timer_clock.now())
    assert seen == [clock_module.TFD_TIMER_ABSTIME | clock_module.TFD_TIMER_CANCEL_ON_SET]
    # What <sys/timerfd.h> calls them.
    assert (clock_module.TFD_TIMER_ABSTIME, clock_module.TFD_TIMER_CANCEL_ON_SET) == (1 << 0, 1 << 1)


async def test_what_else_the_kernel_says_is_an_error(
    timer_clock: SystemClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A timer that cannot be armed must not look like one that is."""

    def settime(*_: object) -> int:
        ctypes.set_errno(errno.EINVAL)
        return -1

    monkeypatch.setattr(timer_clock._timer, "_libc", SimpleNamespace(timerfd_settime=settime))
    with pytest.raises(OSError, match="timerfd_settime"):
        await timer_clock.wait_until(None)


async def test_polling_notices_a_step_and_not_a_slew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time servers turn the clock a little all day long; that is no step, and adds up to none."""
    offset_s = [0.0]
    monkeypatch.setattr(Poller, "_offset", lambda self=None: offset_s[0])
    monkeypatch.setattr(clock_module, "POLL_S", 0.005)
    poller = Poller()
    for _ in range(100):
        offset_s[0] += 0.01
        assert await poller.wait_until(time.time_ns()) is False
    offset_s[0] -= 0.5
    assert await poller.wait_until(time.time_ns() + 10**12) is True
    assert await poller.wait_until(time.time_ns()) is False


async def test_the_kernel_s_timer_sleeps_in_one_piece(
    timer_clock: SystemClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle daemon wakes up for nothing: no timeout of trio's is set while it waits."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timer_clock.wait_until, timer_clock.now() + timedelta(hours=1))
        await wait_all_tasks_blocked()
        # The test's own time limit is none of trio's, so nothing at all is due in its loop.
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == float("inf")
        nursery.cancel_scope.cancel()


def test_a_clock_uses_one_descriptor_however_often_it_waits() -> None:
    """Every command that is added re-arms it."""

    async def wait_often() -> None:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(50):
            with trio.move_on_after(0):
                await clock.wait_until(None)
        assert len(os.listdir("/proc/self/fd")) == before

    clock = SystemClock()
    trio.run(wait_often)
    clock.close()


def test_a_clock_is_not_inherited_by_jobs(timer_clock: SystemClock) -> None:
    """Child processes get no descriptor that is none of theirs."""
    assert isinstance(timer_clock._timer, Timer)
    assert not os.get_inheritable(timer_clock._timer._fd)


# --- the virtual one ----------------------------------------------------------------------------


async def test_a_virtual_day_passes_at_once(autojump_clock: MockClock) -> None:
    """This is what the engine's and the daemon's tests stand on: no waiting, and exact times."""
    clock = VirtualClock(START)
    for minute in range(1, 24 * 60 + 1):
        at = START + timedelta(minutes=minute)
        assert await clock.wait_until(at) is False
        assert clock.now() == at


async def test_a_virtual_time_of_odd_milliseconds_is_reached_exactly(autojump_clock: MockClock) -> None:
    """Trio counts in floats, which fall short of most fractions."""
    clock = VirtualClock(START)
    for number in range(1, 400):
        at = START + timedelta(milliseconds=number * 777)
        assert (await clock.wait_until(at), clock.now()) == (False, at)


@pytest.mark.parametrize("seconds", [3600.0, -3600.0])
async def test_a_virtual_step_ends_the_wait(autojump_clock: MockClock, seconds: float) -> None:
    """Forward or back, and the time is the new one."""
    clock = VirtualClock(START)
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            assert await clock.wait_until(None) is True
            assert clock.now() == START + timedelta(seconds=seconds)

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        clock.step(seconds)


async def test_steady_time_goes_on_through_steps_and_in_suspend(autojump_clock: MockClock) -> None:
    """Held against the wall clock it tells the one from the other."""
    clock = VirtualClock(START)
    assert (clock.now(), clock.steady_s()) == (START, 0.0)
    clock.step(3600)
    assert (clock.now(), clock.steady_s()) == (START + timedelta(seconds=3600), 0.0)
    clock.suspend(60)
    assert (clock.now(), clock.steady_s()) == (START + timedelta(seconds=3660), 60.0)
    await trio.sleep(5)
    assert (clock.now(), clock.steady_s()) == (START + timedelta(seconds=3665), 65.0)


def test_the_machine_s_steady_time_keeps_pace_with_its_wall_clock(system_clock: SystemClock) -> None:
    """Seconds are seconds on both, or every look would find a step."""
    begin_at, begin_s = system_clock.now(), system_clock.steady_s()
    time.sleep(0.05)
    wall_s = (system_clock.now() - begin_at).total_seconds()
    steady_s = system_clock.steady_s() - begin_s
    assert steady_s >= 0.05
    assert abs(wall_s - steady_s) < clock_module.STEP_S


async def test_a_virtual_step_between_two_waits_is_told_once(autojump_clock: MockClock) -> None:
    """As the kernel's timer does."""
    clock = VirtualClock(START)
    clock.step(1)
    assert await clock.wait_until(None) is True
    assert await clock.wait_until(START + timedelta(seconds=5)) is False


@pytest.mark.parametrize("make", [SystemClock, lambda: VirtualClock(START)])
def test_every_clock_keeps_the_same_form(make: Callable[[], Clock]) -> None:
    """The fake has what the real one has, so the daemon cannot lean on more."""
    clock = make()
    assert callable(clock.now)
    assert callable(clock.steady_s)
    assert callable(clock.wait_until)
    clock.close()
