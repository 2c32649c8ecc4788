"""Tasks that are due at one moment are decided together, and nothing but the number of decisions shows it."""

from __future__ import annotations

import random
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cronflowd.base.errors import Refusal
from cronflowd.engine import orders as o
from cronflowd.engine.alarms import Alarms
from cronflowd.engine.fires import FIRED_TOGETHER
from tests.lib.engine_driver import START, Driver, snapshot

OPTIONS = [
    "", "", "", "prio=high", "prio=low", "overlap=queue1", "overlap=queue", "overlap=allow",
    "overlap=replace", "on=all", "on=w1", "on=label:size=big", "on=nobody", "count=2", "jitter=90s",
    "catchup=all", "catchup=skip", "grace=2m", "retry=fixed:1:30s", "after=t0", "after=t1,t2", "after=t3",
    "type=echo", "spread=2m", "start=2030-01-01T12:03:00Z", "end=2030-01-01T12:04:00Z", "tz=Europe/Paris",
    "notify=mailto:a@x.org", "notify=missed:mailto:a@x.org catchup=skip on=all",
    "notify=done:mailto:a@x.org overlap=replace on=nobody",
]  # fmt: skip
SCHEDULES = ["* * * * *", "*/2 * * * *", "*/5 * * * *", "@at 2030-01-01T12:03:00Z", "@every 2m"]
LINES = ["PAUSE t3", "RESUME t3", "RUN t5", "REMOVE t7 force=yes", "SET t9 prio=high", "CANCEL 4"]


def play(seed: int) -> list[object]:
    """Some minutes in the life of sixty tasks: what was sent, and what is true in the end."""
    dice, driver = random.Random(seed), Driver()
    driver.do(o.JoinWorker("w1", dice.randrange(1, 40), {}, ("shell", "echo", "email"), "here", ()))
    driver.do(o.JoinWorker("w2", dice.randrange(1, 40), {"size": "big"}, ("shell",), "here", ()))
    for number in range(60):
        with suppress(Refusal):  # not every option is for every schedule
            driver.line(f"ADD name=t{number} {dice.choice(OPTIONS)} {dice.choice(SCHEDULES)} x{number}")
    told: list[object] = []
    for _ in range(6):
        driver.now += timedelta(seconds=dice.choice([60, 60, 60, 120, 300]))
        told.append(driver.pump())
        for run in list(driver.state.runs.values()):
            if run.worker and dice.random() < 0.6:
                end = o.ReportEnded(run.worker, run.id, run.attempt, dice.choice([0, 0, 0, 1]), {})
                told.append(driver.do(end).messages)
        with suppress(Refusal):
            driver.line(dice.choice(LINES))
    return [*told, snapshot(driver.state)]


@pytest.mark.parametrize("seed", range(12))
def test_together_or_one_by_one_comes_to_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are numbered, sent and held back alike: who had the last free slot has it still."""
    together = play(seed)
    monkeypatch.setattr("cronflowd.engine.engine.FIRED_TOGETHER", 1)
    assert play(seed) == together


def due(count: int, options: str = "", command: str = "x") -> Driver:
    """So many tasks whose moment has come, and a worker that would take them all."""
    driver = Driver()
    for number in range(count):
        driver.line(f"ADD name=t{number} {options} * * * * * {command}")
    driver.do(o.JoinWorker("a", count, {}, ("shell",), "here", ()))
    driver.now += timedelta(minutes=1)
    return driver


def test_so_many_at_a_time() -> None:
    driver = due(2 * FIRED_TOGETHER + 3)
    sent = [len(decision.messages) for _, decision in driver.decisions()]
    assert sent == [FIRED_TOGETHER, FIRED_TOGETHER, 3]


def test_long_orders_leave_some_for_the_next_decision() -> None:
    """Whether a worker reads what it is owed is looked at between decisions."""
    driver = due(5, command="x" * 30_000)
    assert [len(decision.messages) for _, decision in driver.decisions()] == [3, 2]


def test_whose_fire_others_hear_of_is_decided_alone() -> None:
    """What becomes of one is what another one goes by that is due with it."""
    driver = due(2, "overlap=skip")
    for name in "uv":
        driver.line(f"ADD name={name} after=t1 * * * * * x")
    driver.pump()
    driver.now += timedelta(minutes=1)
    orders = [order for order, _ in driver.decisions()]
    assert [each.tasks for each in orders if isinstance(each, o.FireTasks)] == [[1], [2], [3, 4]]


def test_nobody_passes_one_whose_secrets_are_looked_at_first() -> None:
    """Its order is made in a decision of its own, and the last free slot is its all the same."""
    driver = Driver()
    driver.line("ADD name=a prio=high env.A=secret:none * * * * * a")
    driver.line("ADD name=b prio=low * * * * * b")
    driver.do(o.JoinWorker("w", 1, {}, ("shell",), "here", ()))
    driver.now += timedelta(minutes=1)
    orders = [order for order, _ in driver.decisions()]
    assert orders[:3] == [o.FireTasks([1]), o.FireTasks([2]), o.PlaceRuns([(1, "w")])]


def test_nobody_passes_a_notification_of_what_is_due_with_it() -> None:
    """It is urgent, and goes before what was to be decided behind the moment that it tells of."""
    driver = Driver()
    driver.do(o.JoinWorker("w", 1, {}, ("shell", "email"), "here", ()))
    driver.line("ADD name=a prio=high catchup=skip notify=mailto:a@x.org 30 * * * * a")
    driver.line("ADD name=b prio=low 30 * * * * b")
    driver.now += timedelta(minutes=32)
    assert ["name=notify_3" in line for _, line in driver.pump()] == [True]


moments = st.integers(0, 3).map(lambda number: datetime(2030, 1, 1, 0, number, tzinfo=UTC))


@given(st.lists(st.tuples(moments, st.integers(0, 2), st.integers(1, 40))), st.integers(0, 50))
def test_what_is_beside_the_first_is_what_would_come_next(
    entries: list[tuple[datetime, int, int]], most: int
) -> None:
    """A heap is searched in its order, without taking anything out."""
    alarms = Alarms[int, datetime]({}, lambda at: at)
    alarms.add_all(entries)
    heap, old = list(alarms.heap), sorted(entries)
    if old:
        expected = [key for at, _, key in old[1:] if at == old[0][0]][:most]
        assert alarms.beside(old[0], most) == expected
    assert alarms.heap == heap


def test_a_heap_that_is_moving_over_is_not_searched() -> None:
    """What counts stands in two heaps then."""
    alarms = Alarms({1: START, 2: START}, lambda at: at)
    alarms.heap, alarms.old = [(START, 2)], [(START, 1)]
    first = alarms.first()
    assert first is not None
    assert alarms.beside(first, 9) == []
