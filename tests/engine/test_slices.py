"""What concerns very many tasks is one fact and many small steps, and the whole comes to be or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from cronflowd.engine import orders as o
from cronflowd.engine.slices import SLICE
from tests.lib.engine_driver import Driver, snapshot

MANY = 450


@pytest.fixture
def driver() -> Iterator[Driver]:
    """More tasks than are dealt with at once; whatever became of them, the journal alone gives it again."""
    driver = Driver()
    driver.do(o.StartDaemon("1", "UTC"))
    for number in range(1, MANY + 1):
        driver.line(f"ADD name=n{number} 0 {number % 24} * * * true")
    yield driver
    assert snapshot(driver.state) == snapshot(driver.replay())


def dues(driver: Driver) -> list[object]:
    return [task.due_at for task in driver.state.tasks.values()]


@pytest.mark.parametrize(
    "order",
    [
        o.StartDaemon("1", "Europe/Paris"),
        o.RescheduleTasks(),
        o.NoticeStep(-4 * 3600.0),
        o.NoticeStep(30 * 3600.0),
    ],
    ids=lambda order: type(order).__name__,
)
def test_no_step_is_large_when_all_moments_may_be_others(driver: Driver, order: object) -> None:
    """With 520,000 tasks another zone let no daemon start, and a clock set back let nothing run again."""
    if isinstance(order, o.NoticeStep):
        driver.now += timedelta(seconds=order.by_s)
    sizes = [len(driver.do(order).facts)]
    while (step := driver.engine.next_step(driver.now) or driver.engine.next_slice(driver.now)) is not None:
        sizes.append(len(driver.do(step).facts))
    assert max(sizes) <= SLICE + 1
    assert sizes[0] <= 2
    late = [task for task in driver.state.tasks.values() if task.due_at and task.due_at <= driver.now]
    assert (late, driver.state.again) == ([], None)


def test_a_crash_between_slices_goes_on_where_they_ended(driver: Driver) -> None:
    """What was looked at again is not looked at twice: its moments may have come meanwhile."""
    driver.now -= timedelta(hours=4)
    driver.do(o.NoticeStep(-4 * 3600.0))
    for _ in range(2):
        driver.do(driver.engine.next_slice(driver.now))
    driver.restart()
    assert driver.state.again is not None
    assert driver.state.again.upto == 2 * SLICE
    driver.pump()
    tasks = driver.state.tasks.values()
    assert dues(driver) == [task.spec.moments.next_after(driver.now, driver.now) for task in tasks]


def test_a_refused_slice_is_made_again(driver: Driver) -> None:
    """A full disk is no reason to leave some out."""
    driver.do(o.RescheduleTasks())
    first = driver.engine.next_slice(driver.now)
    assert first is not None
    assert driver.engine.next_slice(driver.now) is first
    driver.do(first)
    assert driver.engine.next_slice(driver.now) is not first
    driver.pump()


def test_a_moment_that_comes_before_its_slice_is_looked_at_first(driver: Driver) -> None:
    """The last of two million tasks must not fire by the old clock, nor twice by the new one."""
    driver.now -= timedelta(hours=4)
    driver.do(o.NoticeStep(-4 * 3600.0))
    task = driver.state.tasks[MANY]
    task_due = task.due_at
    assert task_due is not None
    driver.now = task_due
    orders = []
    while isinstance(step := driver.engine.next_step(driver.now), o.RescheduleTask | o.FireTask):
        orders.append(step)
        driver.do(step)
    fired = [order for order in orders if isinstance(order, o.FireTask)]
    assert len({order.task for order in fired}) == len(fired)
    assert {order.task for order in fired} <= {order.task for order in orders if order not in fired}


def test_a_moment_that_was_set_forward_over_stays_so_only_for_those_it_went_over(driver: Driver) -> None:
    """A one-off of a file, whose time has passed since, was not jumped over and is judged by its grace."""
    driver.now += timedelta(hours=30)
    driver.do(o.NoticeStep(30 * 3600.0))
    assert isinstance(driver.engine.next_step(driver.now), o.FireTask)
    driver.pump()
    assert driver.state.jumped_upto_at == driver.now
    driver.line("ADD name=later @every 1h true")
    assert driver.state.jumped_upto_at is None
    whys = {fact.why for fact in driver.state.recent if fact.state == "missed"}
    assert whys == {"the clock was set forward by 1d6h"}
