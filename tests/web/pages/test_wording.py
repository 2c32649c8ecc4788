"""What people read: durations, moments, and the one sentence on top."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from cronflowd.web.pages import wording

NOW = datetime(2030, 1, 2, 8, 30, tzinfo=UTC)
PARIS = ZoneInfo("Europe/Paris")


def _row(state: str, **more: Any) -> dict[str, Any]:
    return {"state": state, "why": None, "exit": None} | more


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "–"),
        (0.04, "0 s"),
        (4.25, "4.2 s"),
        (59.6, "1 min"),
        (192, "3 min 12 s"),
        (86400 * 2 + 60, "2 d"),
    ],
)
def test_a_duration_is_told_in_two_units_that_stand_beside_each_other(
    seconds: float | None, said: str
) -> None:
    """`2 d 1 min` says more than anybody wants, and `172860 s` nothing."""
    assert said == wording.duration(seconds)


@pytest.mark.parametrize(
    ("at", "said"),
    [
        ("2030-01-02T01:30:00Z", "02:30"),
        ("2030-01-01T22:30:00Z", "yesterday 23:30"),
        ("2030-01-01T23:30:00Z", "00:30"),
        ("2030-01-03T01:30:00Z", "tomorrow 02:30"),
        ("2030-01-06T01:30:00Z", "Sun 02:30"),
        ("2029-12-29T01:30:00Z", "Sat 29 Dec 2029 02:30"),
        ("2030-01-02T08:29:07Z", "09:29:07"),
        ("2030-01-02T07:29:07Z", "08:29"),
    ],
)
def test_a_moment_is_told_by_the_clock_where_the_daemon_is(at: str, said: str) -> None:
    """Days begin there at midnight, whatever UTC says; seconds tell apart what was just now."""
    found = wording.parse_time(at)
    assert found
    assert said == wording.clock(found, NOW, PARIS)


@pytest.mark.parametrize(
    ("at", "said"),
    [
        ("2030-01-03T00:00:00Z", "Thu 09:00"),  # tomorrow there and here
        ("2030-01-02T16:00:00Z", "Thu 01:00"),  # there it is tomorrow already
        ("2030-01-02T09:00:00Z", "Wed 18:00"),
        ("2030-01-01T00:00:00Z", "Tue 1 Jan 09:00"),
    ],
)
def test_of_another_zone_the_day_has_its_name(at: str, said: str) -> None:
    """`tomorrow 09:00 +0900` was the day after tomorrow for whoever read it in the evening in Paris."""
    found = wording.parse_time(at)
    assert found
    assert said == wording.clock(found, NOW, ZoneInfo("Asia/Tokyo"), is_here=False)


def test_last_night_begins_at_six_in_the_evening_before_in_the_daemons_zone() -> None:
    """Also on the days when the clock is changed, where a day has not 24 hours."""
    assert datetime(2030, 1, 1, 17, tzinfo=UTC) == wording.evening_before(NOW, PARIS)
    spring = datetime(2030, 3, 31, 10, tzinfo=UTC)
    assert datetime(2030, 3, 30, 17, tzinfo=UTC) == wording.evening_before(spring, PARIS)
    assert spring - wording.evening_before(spring, PARIS) == timedelta(hours=17)


@pytest.mark.parametrize(
    ("states", "ran", "wrong", "late", "said"),
    [
        ("", 214, 0, 0, ("good", "All 214 runs went well")),
        ("", 1, 0, 0, ("good", "The one run went well")),
        ("failed failed missed", 3, 4, 0, ("bad", "2 jobs failed, 1 was missed")),
        ("lost timeout", 3, 2, 1, ("bad", "1 job ran out of time, 1 was lost, 1 is silent")),
        ("", 3, 0, 2, ("bad", "2 heartbeats are silent")),
        ("missed missed", 0, 2, 0, ("bad", "2 jobs were missed")),
        ("", 0, 0, 0, ("quiet", "Nothing has run")),
        ("", 214, 1, 0, ("quiet", "214 runs went well, 1 did not")),
        ("", 0, 1, 0, ("quiet", "Nothing went well")),
    ],
)
def test_one_sentence_tells_whether_the_night_went_well(
    states: str, ran: int, wrong: int, late: int, said: tuple[str, str]
) -> None:
    """It is all that somebody reads who has five seconds."""
    assert said == wording.verdict([_row(state) for state in states.split()], ran, wrong, 0, late, 9)


def test_without_any_job_the_sentence_does_not_praise() -> None:
    """All of nothing went well, too; but the next step is to add one."""
    assert wording.verdict([], 0, 0, 0, 0, 0) == ("quiet", "Nothing is scheduled yet")


def test_the_cause_is_what_is_known_and_the_exit_where_that_says_more() -> None:
    """A signal is told in words already."""
    assert wording.cause(_row("failed", why="no space left", exit=3)) == "no space left (exit 3)"
    assert (
        wording.cause(_row("failed", why="killed by signal 9 (KILL)", exit=137))
        == "killed by signal 9 (KILL)"
    )
    assert wording.cause(_row("failed", exit=3)) == "exit 3, and it wrote no reason"
    assert wording.cause(_row("ok", exit=0)) == ""
    assert wording.cause(_row("cancelled", exit=143)) == ""


def test_what_cannot_be_seen_is_written_out() -> None:
    """A name must not look like another, nor turn the line behind it round."""
    assert wording.visible("a\u202eb\x00\u200b\x1b[31m\tc\n") == "a\\u202eb\\u0000\\u200b\\u001b[31m\tc\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("no", None),
        (None, None),
        ("yes", {"until": None, "why": ""}),
        ("yes: a: b", {"until": None, "why": "a: b"}),
        ("yes until 2030-01-02T10:00:00Z: disk", {"until": "2030-01-02T10:00:00Z", "why": "disk"}),
        ("yes, like all until 2030-01-02T10:00:00Z", None),
    ],
)
def test_a_pause_is_read_as_the_daemon_words_it(text: str | None, found: dict[str, Any] | None) -> None:
    """Only a task's own pause is its own to end; one that holds for all is told on top of every page."""
    assert found == wording.pause_of(text)
