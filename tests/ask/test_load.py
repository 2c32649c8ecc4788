"""NEXT all by=hour: what is counted is what NEXT all tells moment by moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from cronflowd.ask import commands, overview, views
from cronflowd.ask import questions as q
from cronflowd.base.errors import Refusal
from cronflowd.engine import facts as f
from cronflowd.schedules import fields
from cronflowd.schedules.calendars import Calendar
from cronflowd.schedules.zones import to_seconds
from tests.lib.engine_driver import Driver
from tests.lib.harness import play

SCHEDULES = [
    "* * * * *", "*/7 * * * *", "0 * * * *", "30 2 * * *", "15 1-3 * * *", "*/20 */2 1-7 * 0", "0 0 L * *",
    "5,35 0,23 * * 1-5", '"every 45 minutes"', "@every 47m", "@every 3h", '"every 2 days at 2:15"', "@daily",
    '"every 2 weeks on sunday"', '"10,40 30 1,2,3 * * *"', "@after", "@reboot",
]  # fmt: skip
ZONES = ["UTC", "Europe/Paris", "Australia/Lord_Howe", "Asia/Kolkata", "America/St_Johns", "Pacific/Apia"]
# Around clock changes of some of them, and where there is none; not at the full hour.
WHEN = ["2030-03-29T11:17:03", "2030-10-26T23:59:59", "2030-04-05T12:00:00", "2030-06-10T00:00:01"]


def told(driver: Driver, within: timedelta) -> dict[int, int]:
    """Fires by hour, of NEXT all."""
    query = q.ShowNext("all", "", "", 10**9, None, within)
    is_paused = driver.state.is_paused
    rows = overview.next_of_all(driver.state, query, driver.now).rows
    found = [
        row[1]
        for row in rows
        if row and not row[2].startswith("skipped") and not is_paused(driver.state.tasks[row[3]], row[1])
    ]
    return Counter(to_seconds(at) // 3600 for at in found)


def counted(driver: Driver, within: timedelta) -> dict[int, int]:
    query = q.ShowNext("all", "", "", 5, None, within, by_hour=True)
    rows = [row for row in overview.show_load(driver.state, query, driver.now).rows if row]
    begin, end = to_seconds(driver.now) // 3600, to_seconds(driver.now + within) // 3600
    assert [to_seconds(row[0]) // 3600 for row in rows] == list(range(begin, end + 1))
    return {to_seconds(row[0]) // 3600: row[1] for row in rows if row[1]}


def set_out(dice: Random, when: str) -> Driver:
    driver = Driver()
    driver.now = datetime.fromisoformat(when).replace(tzinfo=ZoneInfo("UTC"))
    days = [driver.now.date() + timedelta(days=dice.randrange(-1, 6)) for _ in range(3)]
    driver.state.calendars.known["file:off"] = Calendar(dict.fromkeys(days, "off"))
    return driver


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("seed", range(2))
def test_the_fires_of_each_hour_are_the_moments_that_next_tells(when: str, seed: int) -> None:
    """A map of load that is an hour off after a clock change has people move the wrong jobs."""
    dice, driver = Random(f"{seed} {when}"), set_out(Random(seed), when)

    def later() -> str:
        return (driver.now + timedelta(seconds=dice.randrange(4 * 86_400))).isoformat()[:19] + "Z"

    for number in range(25):
        options = [
            f"start={later()}" * (dice.random() < 0.2), f"end={later()}" * (dice.random() < 0.1),
            f"spread={dice.choice(['59s', '40m', '30h'])}" * (dice.random() < 0.2),
            "skip=file:off" * (dice.random() < 0.2),
            f"count={dice.randrange(1, 99)}" * (dice.random() < 0.2),
        ]  # fmt: skip
        words = " ".join(filter(None, options))
        schedule = dice.choice(SCHEDULES if number else SCHEDULES[:9])
        words += " after=t0" * (schedule == "@after")
        try:
            driver.line(f"ADD name=t{number} tz={dice.choice(ZONES)} {words} {schedule} x")
        except Refusal:  # an end before the start, or nothing left between them
            continue
        if dice.random() < 0.2:
            until = f" until={later()}" if dice.random() < 0.7 else ""
            driver.line(f"PAUSE t{number}{until}")
    if seed == 1:
        driver.state.apply(f.TaskPaused(None, driver.now + timedelta(hours=30), ""), driver.now)
    within = timedelta(days=3, seconds=dice.randrange(7200))
    found = counted(driver, within)
    assert found == told(driver, within)
    assert len(found) > 40


def test_moments_that_a_pause_takes_out_use_up_no_count() -> None:
    """Two fires are still to come, and come later than they would have."""
    driver = Driver()
    driver.line("ADD name=a count=2 tz=Europe/Paris 30 2 * * * x")
    driver.line("PAUSE a until=2030-01-03T12:00:00Z")

    def remarks() -> list[tuple[Any, str]]:
        rows = views.show_next(driver.state, q.ShowNext("a", "", "", 9, None), driver.now).rows
        return [(row[1].day, row[2]) for row in rows if row]

    def changes() -> int:
        query = q.ShowClockChanges("a", driver.now + timedelta(days=365))
        return len([row for row in views.clock_changes(driver.state, query, driver.now) if row])

    assert remarks() == [(2, "paused"), (3, "paused"), (4, ""), (5, "")]
    driver.line("PAUSE a until=2030-03-30T12:00:00Z")
    assert changes() == 1  # on the 31st
    driver.line("RESUME a")
    assert changes() == 0
    driver.line("PAUSE a")
    assert (remarks(), changes()) == ([(day, "paused") for day in range(2, 11)], 2)


def counting(asked: Counter[str], name: str) -> Callable[..., Any]:
    real = getattr(fields.Fields, name)

    def count(*args: Any) -> Any:
        asked[name] += 1
        return real(*args)

    return count


def test_a_week_of_ten_thousand_tasks_is_counted_without_walking_their_moments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sixteen million moments would stand everybody still for minutes."""
    driver = Driver()
    for number in range(100):
        driver.line(f"ADD name=t{number} {'* * * * * x' if number % 2 else f'{number % 60} 3 * * * x'}")
    asked = Counter[str]()
    for name in ("next_from", "count", "counts", "_next_day"):

        def counting(
            *args: object, _name: str = name, _real: object = getattr(fields.Fields, name)
        ) -> object:
            asked[_name] += 1
            return _real(*args)  # type: ignore[operator]

        monkeypatch.setattr(fields.Fields, name, counting)
    assert sum(counted(driver, timedelta(days=7)).values()) == 50 * 7 * 1440 + 50 * 7
    # A day of each schedule; those alike are one.
    assert asked["next_from"] == asked["count"] == 0
    assert asked["counts"] <= 51
    assert asked["_next_day"] <= 51 * 9


def test_what_keeps_workers_busy_is_told_by_what_it_usually_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The median: one run that hung for a day says nothing about the others."""
    lines = [
        "w: HELLO name=w1 slots=9",
        "C: ADD name=a overlap=allow 30 * * * * a",
        "C: ADD name=b 40 * * * * b",
    ]
    for run, seconds in enumerate((10, 20, 3000), 1):
        lines += ["C: RUN a", f"T: +{seconds}s", f"w: DONE {run} 1 0"]
    said = play([*lines, "C: NEXT all by=hour last=2h"], tmp_path, monkeypatch)
    assert said[-4:] == [
        "S: 2030-01-01T12:00:00Z\t0\t0.0", "S: 2030-01-01T13:00:00Z\t2\t20.0",
        "S: 2030-01-01T14:00:00Z\t2\t20.0", "S: OK 3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("NEXT a by=hour", "for all tasks"), ("NEXT all by=hour tz=Europe/Paris", "in UTC"),
        ("NEXT all by=hour last=32d", "at most 31 days"), ("NEXT all by=hour n=3", "n= is for moments"),
        ("NEXT all by=day", '"day" is not one of hour'), ("NEXT all by=hour from=tomorrow", "from now on"),
    ],
)  # fmt: skip
def test_what_by_hour_does_not_go_with_is_refused(line: str, why: str) -> None:
    """An option that is passed over without a word would be believed."""
    driver = Driver()
    with pytest.raises(Refusal, match=why):
        query = commands.parse(line, commands.Context(driver.now, "UTC"))
        overview.show_load(driver.state, query, driver.now)
