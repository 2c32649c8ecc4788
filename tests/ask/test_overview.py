"""HEALTH, SUMMARY and NEXT all: what they say, and that they stay cheap however much there is."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from cronflowd.ask import commands, overview
from cronflowd.ask import questions as q
from cronflowd.base.errors import Refusal
from cronflowd.base.text import format_time
from cronflowd.engine import facts as f
from tests.ask.test_slices import Counting, many
from tests.lib.engine_driver import START, Driver

HEALTH = q.AskHealth(60.0, 10_000)
HELLO = f.WorkerJoined("w1", 1, {}, ["shell"], "192.0.2.1:1", [], True, "", 1)


def trouble(driver: Driver, query: q.AskHealth = HEALTH, is_full: bool = False) -> str:
    try:
        overview.check_health(driver.state, query, driver.now, is_full)
    except Refusal as refusal:
        assert refusal.code == "unwell"
        return refusal.message
    return ""


def test_a_daemon_of_which_nothing_is_wanted_is_healthy() -> None:
    """No worker is no trouble until something waits for one."""
    driver = Driver()
    driver.line("ADD name=a 0 9 * * * a")
    assert trouble(driver) == ""


def test_a_full_disk_is_told() -> None:
    """Schedules go on from the reserve, so nothing else would show it."""
    assert trouble(Driver(), is_full=True) == "disk: full, changes are refused"


def test_a_run_that_no_worker_can_take_is_told_with_all_that_follows_from_it() -> None:
    """A probe shows one line, and that must be enough to know where to look."""
    driver = Driver()
    driver.line("ADD name=a grace=1h 0 9 * * * a")
    driver.line("RUN a")
    assert trouble(driver) == "workers: none is connected, and run 1 of a waits for one"
    driver.wait(90)
    assert trouble(driver).endswith("; lateness: run 1 of a has waited 90 s for a worker")
    assert trouble(driver, q.AskHealth(120.0, 0)).endswith("; queue: 1 runs wait")
    driver.line("CANCEL 1")
    assert trouble(driver) == ""


def test_a_moment_that_nobody_has_decided_is_told() -> None:
    """That is a scheduler which stands still: the one fault that no task tells by itself."""
    driver = Driver()
    driver.line("ADD name=a 0 9 * * * a")
    due_at = driver.state.tasks[1].due_at
    assert due_at
    driver.now = due_at + timedelta(seconds=61)
    assert trouble(driver) == "lateness: a was due 61 s ago, and nothing is decided"


@pytest.mark.parametrize(("by_s", "is_told"), [(1.5, False), (-3700.0, True), (90.0, True)])
def test_a_clock_that_was_set_is_told_for_an_hour(by_s: float, is_told: bool) -> None:
    """A correction of a second is every day's business; one of minutes moves what is due."""
    driver = Driver()
    driver.state.apply(f.ClockStepped(by_s), driver.now)
    assert trouble(driver) == (
        f"clock: it was set by {by_s:+.0f} s at {format_time(START)}" if is_told else ""
    )
    driver.now += timedelta(hours=1)
    assert trouble(driver) == ""


def test_a_clock_that_was_never_set_is_told() -> None:
    """Before 2026 no cronflowd was there."""
    driver = Driver()
    driver.now = START.replace(year=1970)
    assert trouble(driver).startswith("clock: not set")


def test_health_looks_at_no_task_and_at_no_run_of_many() -> None:
    """A probe asks every few seconds; a walk over a million rows each time would be the illness."""
    driver = many()
    table = driver.state.tasks
    assert isinstance(table, Counting)
    before = table.looks

    class Unwalked(dict[int, Any]):
        def __iter__(self) -> Any:
            raise AssertionError("all runs were walked")

        values = items = __iter__

    driver.state.runs = Unwalked()
    assert trouble(driver) == ""
    assert table.looks - before <= 2


@pytest.mark.parametrize("line", ["SUMMARY", "NEXT all n=3", "NEXT all last=1h"])
def test_what_walks_all_tasks_gives_way(line: str) -> None:
    """At most a slice is looked at between two rows."""
    driver = many()
    table = driver.state.tasks
    assert isinstance(table, Counting)
    verb, rest = commands.find_verb(line)
    question = verb.parse(rest, commands.Context(driver.now, "UTC"))
    last = most = 0
    assert not isinstance(verb.answer, str)
    reply = verb.answer(driver.state, question, driver.now)
    for _ in reply.rows:
        most, last = max(most, table.looks - last), table.looks
    assert 0 < most <= 600


def test_the_moments_of_all_come_in_order_of_time_and_no_task_is_forgotten() -> None:
    """The moments of each task alone, put together and sorted, are the same."""
    driver = Driver()
    schedules = ["* * * * *", "*/7 * * * *", '"every 90 seconds"', "30 12 * * *", "0 13 * * *", "@reboot"]
    for schedule in schedules * 3:
        driver.line(f"ADD {schedule} true")

    def ask(line: str) -> list[Any]:
        question = commands.parse(line, commands.Context(driver.now, "UTC"))
        return [row for row in overview.next_of_all(driver.state, question, driver.now).rows if row]

    until_at = driver.now + timedelta(hours=1)
    rows = ask("NEXT all last=1h")
    found = [(row[1], row[3]) for row in rows]
    one_by_one = []
    for task in driver.state.tasks.values():
        for _, at, _ in task.spec.moments.rows(driver.now, task.anchor_at):
            if at > until_at:
                break
            one_by_one.append((at, task.id))
    assert found == sorted(one_by_one)
    assert [(row[1], row[3]) for row in ask("NEXT all n=11")] == found[:11]


def test_a_task_that_is_paused_hides_no_other() -> None:
    """Of one that comes each minute a hundred moments were told, and none of a daily one."""
    driver = Driver()
    for line in (
        "ADD name=off * * * * * x", "ADD name=soon * * * * * x", "ADD name=daily 0 0 * * * x", "PAUSE off",
        'PAUSE soon until="in 2 hours"',
    ):  # fmt: skip
        driver.line(line)
    question = commands.parse("NEXT all n=4", commands.Context(driver.now, "UTC"))
    rows = [row for row in overview.next_of_all(driver.state, question, driver.now).rows if row]
    told = [(row[4], row[2], (row[1] - driver.now) // timedelta(minutes=1)) for row in rows]
    assert told == [("off", "paused", 1), ("soon", "paused", 1), ("soon", "", 120), ("soon", "", 121)]
    driver.line("PAUSE all")
    rows = [row for row in overview.next_of_all(driver.state, question, driver.now).rows if row]
    assert [row[4] for row in rows] == ["off", "soon", "daily"]
