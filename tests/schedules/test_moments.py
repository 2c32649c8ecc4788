"""Single moments in words: `in 10 minutes`, `tomorrow at 8 AM`, counted from now."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cronflowd.base.errors import Refusal
from cronflowd.schedules.english import parse_moment, parse_moment_phrase
from cronflowd.schedules.schedule import parse_schedule, settle_schedule
from tests.schedules.test_english import ADDED_AT


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("in 10 minutes", "2026-11-21T06:23:18+00:00"),
        ("in 1 hour and 30 minutes", "2026-11-21T07:43:18+00:00"),
        ("In An Hour", "2026-11-21T07:13:18+00:00"),
        ("in 90 secs", "2026-11-21T06:14:48+00:00"),
        ("in 2 days", "2026-11-23T06:13:18+00:00"),
        ("in 1 week at 8 AM", "2026-11-28T07:00:00+00:00"),
        ("tomorrow at 8 AM", "2026-11-22T07:00:00+00:00"),
        ("tomorrow at noon in America/New_York", "2026-11-22T17:00:00+00:00"),
        ("today at 18:30", "2026-11-21T17:30:00+00:00"),
        ("2026-12-24 18:00", "2026-12-24T17:00:00+00:00"),
    ],
)
def test_a_moment_in_words_counts_from_now(text: str, wanted: str) -> None:
    """Not before that time has passed: half a second is rounded up."""
    now = ADDED_AT + timedelta(seconds=0.5)
    assert wanted == parse_moment(text, "Europe/Paris", now).isoformat()


def test_days_ahead_are_the_calendars_and_hours_are_real() -> None:
    """The night before the clock goes back has 25 hours; tomorrow at noon is at noon."""
    now = datetime(2026, 10, 24, 10, 0, tzinfo=UTC)
    hours = [
        parse_moment(text, "Europe/Paris", now) - now
        for text in ("in 24 hours", "in 1 day", "tomorrow at noon")
    ]
    assert [timedelta(hours=24), timedelta(hours=25), timedelta(hours=25)] == hours


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("tomorrow", "tomorrow"), ("tomorrow at", "at"), ("tomorrow at 8 and 9", "and"), ("in 10", "10"),
        ("in minutes", "minutes"), ("in other minutes", "other"), ("in 2 months", "months"), ("in", "in"),
        ("in 1 day and 2 hours", "hours"), ("in 10 minutes at 9:00", "at"), ("in 0 minutes", "0"),
        ("every 5 minutes", "every"), ("soon", "soon"), ("in 40000 days", "days"), ("now", "now"),
        ("in 10 minutes and then", "and"),
    ],
)  # fmt: skip
def test_a_moment_that_is_not_one_is_refused_by_name(text: str, word: str) -> None:
    """AT starts something once; it must be sure when."""
    with pytest.raises(Refusal) as caught:
        parse_moment(text, "Europe/Paris", ADDED_AT)
    assert caught.value.message.startswith(f'"{word}": ')


def test_a_time_that_is_no_phrase_is_left_to_others() -> None:
    """None says: not in words."""
    assert parse_moment_phrase("2026-12-24 18:00", "UTC", ADDED_AT) is None


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("in 10 minutes", "@at 2026-11-21T06:23:17Z"),
        ("tomorrow at 8 AM in Europe/Paris", "@at 2026-11-22T07:00:00Z"),
        ('@at "tomorrow at 8 AM"', "@at 2026-11-22T08:00:00Z"),
        ('@at "2026-12-24 18:00"', '@at "2026-12-24 18:00"'),
        ("@at", "@at"),
        ("every 5 minutes", "every 5 minutes"),
        ("* * * * *", "* * * * *"),
        ("", ""),
    ],
)
def test_what_counts_from_now_is_kept_as_its_instant(text: str, kept: str) -> None:
    """A saved set of tasks that is loaded next year must not run it again ten minutes later."""
    assert kept == settle_schedule(text, "UTC", ADDED_AT)


@given(st.text(max_size=30))
def test_any_text_is_a_moment_or_a_refusal(text: str) -> None:
    """AT reads what people type."""
    for words in (text, "in " + text, "tomorrow at " + text):
        with suppress(Refusal):
            assert parse_moment(words, "Europe/Paris", ADDED_AT) >= ADDED_AT - timedelta(days=1)


def test_what_was_asked_last_is_remembered_for_that_instant_and_that_schedule_alone() -> None:
    """Of thousands that are due at one moment, a mix-up would have the wrong ones fire next."""
    at, anchor_at = datetime(2030, 1, 1, 12, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)
    hourly, daily = parse_schedule("0 * * * *", "UTC"), parse_schedule("0 13 * * *", "Asia/Tokyo")
    asked = [(schedule, at + timedelta(hours=n)) for n in (0, 0, 1, 0) for schedule in (hourly, daily)]
    hours = [
        (each.next_after(when, anchor_at) or at).astimezone(UTC).strftime("%d %H") for each, when in asked
    ]
    assert hours == ["01 13", "02 04", "01 13", "02 04", "01 14", "02 04", "01 13", "02 04"]
