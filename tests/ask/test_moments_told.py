"""NEXT and DST when a pause, or a clock that was set back, takes moments out that the clock still shows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from cronflowd.ask import overview, views
from cronflowd.ask import questions as q
from cronflowd.base.replies import Reply
from cronflowd.engine import encoding
from cronflowd.engine import facts as f
from cronflowd.engine import orders as o
from cronflowd.schedules.zones import to_seconds
from tests.lib.engine_driver import Driver

AHEAD = timedelta(hours=4)
NEXT_ALL = q.ShowNext("all", "", "", 10**6, None, AHEAD)


def set_back(start: str = "2030-03-30T22:00:00+00:00") -> Driver:
    """The clock was an hour ahead, is set right, and one more task comes."""
    driver = Driver()
    driver.now = datetime.fromisoformat(start)
    driver.do(o.StartDaemon("1", "UTC"))
    for text in (
        "name=often overlap=allow */10 * * * *",
        "name=alike overlap=allow */10 * * * *",
        "name=few overlap=allow count=12 */10 * * * *",
        "name=spread overlap=allow spread=30m */10 * * * *",
        "name=even overlap=allow @every 25m",
        "name=night overlap=allow tz=Europe/Paris 10,40 2 * * *",
        "name=held overlap=allow */10 * * * *",
    ):
        driver.line(f"ADD grace=9d {text} x")
    driver.wait(3600)
    driver.now -= timedelta(hours=1)
    driver.do(o.NoticeStep(-3600.0))
    driver.line(f"PAUSE held until={driver.now + timedelta(minutes=95):%Y-%m-%dT%H:%M:%SZ}")
    driver.line("ADD grace=9d name=new overlap=allow */10 * * * * x")
    driver.line("ADD grace=9d name=later overlap=allow @every 50m x")
    return driver


def fires(driver: Driver) -> list[tuple[str, datetime]]:
    """What starts a run, or would but for a pause, within the next hours."""
    begin = len(driver.journal)
    driver.wait(AHEAD.total_seconds())
    facts = [fact for fact in facts_since(driver, begin) if isinstance(fact, f.RunQueued)]
    return sorted((driver.state.tasks[fact.task].name, fact.due_at) for fact in facts)


def facts_since(driver: Driver, begin: int) -> Iterator[Any]:
    return (encoding.decode(line)[2] for line in driver.journal[begin:])


def told(reply: Reply) -> list[Any]:
    return [row for row in reply.rows if row]


@pytest.mark.parametrize("start", ["2030-03-30T22:00:00+00:00", "2030-03-31T00:05:00+00:00"])
def test_next_tells_no_moment_that_a_clock_set_back_only_shows_again(start: str) -> None:
    """Who looks up when the backup runs next would wait for one that was made an hour ago."""
    driver = set_back(start)
    tasks = sorted(task.name for task in driver.state.tasks.made())
    every = told(overview.next_of_all(driver.state, NEXT_ALL, driver.now))
    one_by_one = [
        (name, row[1])
        for name in tasks
        for row in told(views.show_next(driver.state, q.ShowNext(name, "", "", 99, None, AHEAD), driver.now))
        if row[2] != "paused"
    ]
    by_hour = told(
        overview.show_load(driver.state, q.ShowNext("all", "", "", 5, None, AHEAD, True), driver.now)
    )
    come = fires(driver)
    assert come == one_by_one
    assert come == sorted((row[4], row[1]) for row in every if row[2] != "paused")
    for hour, number, _ in by_hour:
        assert number == sum(to_seconds(at) // 3600 == to_seconds(hour) // 3600 for _, at in come), hour


def test_dst_tells_no_change_that_a_clock_set_back_only_shows_again() -> None:
    """What the change did to the task is past, whatever the clock shows."""
    driver = set_back("2030-03-31T00:05:00+00:00")
    driver.line("ADD name=tonight overlap=allow tz=Europe/Paris 10,40 2 * * * x")
    query = q.ShowClockChanges(None, driver.now + AHEAD)
    found = [row[1] for row in views.clock_changes(driver.state, query, driver.now) if row]
    assert found == ["tonight", "tonight"]


@pytest.mark.parametrize("day", ["2030-03-31", "2030-10-27"])
def test_a_moment_that_a_pause_takes_out_is_told_as_that_whatever_the_clock_does(day: str) -> None:
    """`moved` says that it fires after the jump; and of all tasks, only the first of them is told."""
    driver = Driver()
    driver.now = datetime.fromisoformat(f"{day}T00:00:00+00:00")
    driver.line("ADD name=night tz=Europe/Paris 10,20,30,40 2 * * * x")
    driver.line("PAUSE night")
    rows = told(views.show_next(driver.state, q.ShowNext("night", "", "", 4, None), driver.now))
    assert [row[2] for row in rows] == ["paused"] * 4
    assert len(told(overview.next_of_all(driver.state, NEXT_ALL, driver.now))) == 1


def test_where_somebody_says_from_when_it_is_told_from_then() -> None:
    """A question about the past is not one about what is to come."""
    driver = set_back()
    rows = told(views.show_next(driver.state, q.ShowNext("often", "", "", 1, driver.now), driver.now))
    assert rows[0][1] == driver.now + timedelta(minutes=10)
