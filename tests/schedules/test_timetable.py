"""start=, end= and spread= over a schedule, held against a plain list of moments."""

from __future__ import annotations

import os
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cronflowd.schedules.schedule import parse_schedule
from cronflowd.schedules.timetable import TICK, Timetable, make_moments, share_of
from cronflowd.schedules.zones import to_seconds
from tests.lib.rows import first_rows

BEGIN = datetime(2030, 3, 29, tzinfo=UTC)  # Paris leaps two days later
SCHEDULES = ["*/7 * * * *", "30 2 * * *", "0,30 2,3 * * *", "@every 47m", "every 50 minutes", "0 9 * * 1-5"]
moments = st.integers(0, 5 * 86_400_000).map(lambda ms: BEGIN + timedelta(milliseconds=ms))


@settings(max_examples=int(os.environ.get("CRONFLOWD_EXAMPLES", "150")), deadline=None)
@given(
    text=st.sampled_from(SCHEDULES),
    start_at=st.none() | moments,
    end_at=st.none() | moments,
    shift_s=st.sampled_from([0, 1, 59, 3600, 90_000]),
    after=moments,
    upto=moments,
)
def test_a_timetable_is_its_schedule_shifted_and_cut(
    text: str,
    start_at: datetime | None,
    end_at: datetime | None,
    shift_s: int,
    after: datetime,
    upto: datetime,
) -> None:
    """Every question has the answer that a list of all moments gives."""
    schedule, shift = parse_schedule(text, "Europe/Paris"), timedelta(seconds=shift_s)
    table = Timetable(schedule, start_at, end_at, shift)
    anchor = BEGIN if start_at is None else start_at if schedule.kind == "every" else start_at - TICK
    listed = []
    at = BEGIN - timedelta(days=3)
    while (found := schedule.next_after(at, anchor)) and found < BEGIN + timedelta(days=8):
        due_at = found + shift
        if (start_at is None or start_at <= due_at) and (end_at is None or due_at <= end_at):
            listed += [due_at] * schedule.times_at(found, anchor)
        at = found
    later = [due_at for due_at in listed if due_at > after]
    within = [due_at for due_at in listed if after < due_at <= upto]
    nearest = table.next_after(after, BEGIN)
    assert nearest == (later[0] if later else nearest if end_at is None else None)
    assert table.latest(after, upto, BEGIN) == (within[-1] if within else None)
    assert table.count(after, upto, BEGIN) == len(within)
    if after < upto:
        begin, end = to_seconds(after), to_seconds(upto)
        marks = [begin, *range(begin + 1800, end, 3600), end]
        counts = [sum(a < to_seconds(at) <= b for at in listed) for a, b in pairwise(marks)]
        assert table.counts(marks, BEGIN) == counts
    shown = [at for _, at, remark in first_rows(table, after, 5, BEGIN) if remark != "skipped"]
    assert shown[: len(later)] == later[:5]
    for due_at in set(later[:3]):
        assert table.times_at(due_at, BEGIN) == later.count(due_at)


def test_without_the_options_a_task_uses_the_schedule_that_it_shares() -> None:
    """A million tasks must not cost a million objects more."""
    schedule = parse_schedule("* * * * *", "UTC")
    assert make_moments(schedule, None, None, 0, "job") is schedule


@pytest.mark.parametrize(
    ("name", "spread_s", "share"), [("backup", 3600, 1880), ("backup", 60, 20), ("", 60, 52), ("x", 0, 0)]
)
def test_a_share_is_the_same_for_ever(name: str, spread_s: int, share: int) -> None:
    """A new release must not move every task in the world by some minutes."""
    assert share_of(name, spread_s) == share


def test_a_thousand_hourly_tasks_do_not_start_together() -> None:
    """That is what spread= is for."""
    schedule = parse_schedule("@hourly", "UTC")
    tables = [make_moments(schedule, None, None, 3600, f"job-{n}") for n in range(1000)]
    due = Counter(table.next_after(BEGIN, BEGIN) for table in tables)
    assert len(due) > 800
    assert max(due.values()) < 6


@pytest.mark.parametrize(
    ("text", "first", "second"),
    [
        ("@every 36h", "2030-04-05T20:00:00Z", "2030-04-07T08:00:00Z"),
        ("every 55 minutes", "2030-04-05T20:10:00Z", "2030-04-05T21:05:00Z"),
        ("every 2 weeks on friday at 8 PM", "2030-04-05T20:00:00Z", "2030-04-19T20:00:00Z"),
        ("every 3 days at 8 PM", "2030-04-05T20:00:00Z", "2030-04-08T20:00:00Z"),
    ],
)
def test_what_is_counted_is_counted_from_the_start(text: str, first: str, second: str) -> None:
    """`start=` names the first of every 36 hours, and the week of every two; it is included."""
    start_at = datetime(2030, 4, 5, 20, tzinfo=UTC)  # a Friday
    table = Timetable(parse_schedule(text, "UTC"), start_at, None, timedelta(0))
    shown = [at for _, at, _ in first_rows(table, BEGIN, 2, BEGIN)]
    assert shown == [datetime.fromisoformat(first), datetime.fromisoformat(second)]


def test_moments_at_one_instant_are_shifted_together() -> None:
    """What the leap brings together, spread= does not take apart."""
    schedule = parse_schedule("0,30 2 * * *", "Europe/Paris")
    table = Timetable(schedule, None, None, timedelta(minutes=7))
    leap_at = datetime(2030, 3, 31, 1, 7, tzinfo=UTC)
    assert table.next_after(leap_at - TICK, BEGIN) == leap_at
    assert table.times_at(leap_at, BEGIN) == 2
    assert table.times_at(leap_at + timedelta(days=1), BEGIN) == 1
