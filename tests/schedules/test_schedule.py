"""Schedules: the right instants in every zone, whatever kind they are of."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest

from cronflowd.base.errors import Refusal
from cronflowd.engine.orders import LoadTasks
from cronflowd.schedules import schedule
from cronflowd.schedules.schedule import parse_schedule, reload_zones, split_schedule
from cronflowd.schedules.zones import Zone
from cronflowd.tasks.task import parse_record
from tests.lib.engine_driver import Driver
from tests.lib.rows import first_rows

ANCHOR_AT = datetime(2026, 1, 1, tzinfo=UTC)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# --- around clock changes -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "expression", "start", "rows"),
    [
        (  # fixed, jumped over: right after the jump
            "Europe/Paris", "30 2 * * *", "2026-03-28T12:00",
            ["2026-03-29T03:00:00+02:00 moved", "2026-03-30T02:30:00+02:00 "],
        ),
        (  # two moments in one gap, and the one at its end
            "Europe/Paris", "0,30 2,3 * * *", "2026-03-28T12:00",
            ["2026-03-29T03:00:00+02:00 moved", "2026-03-29T03:00:00+02:00 moved",
             "2026-03-29T03:00:00+02:00 ", "2026-03-29T03:30:00+02:00 "],
        ),
        (  # wildcard: the gap does not exist
            "Europe/Paris", "*/30 2 * * *", "2026-03-28T12:00",
            ["2026-03-30T02:00:00+02:00 ", "2026-03-30T02:30:00+02:00 "],
        ),
        (  # fixed, repeated: the first time only
            "Europe/Paris", "30 2 * * *", "2026-10-24T12:00",
            ["2026-10-25T02:30:00+02:00 repeated-hour", "2026-10-26T02:30:00+01:00 "],
        ),
        (  # wildcard: both
            "Europe/Paris", "30 * * * *", "2026-10-25T00:00",
            ["2026-10-25T02:30:00+02:00 repeated-hour", "2026-10-25T02:30:00+01:00 repeated-hour",
             "2026-10-25T03:30:00+01:00 "],
        ),
        (  # half an hour back: 01:30 to 02:00 twice
            "Australia/Lord_Howe", "45 1 * * *", "2026-04-03T20:00",
            ["2026-04-05T01:45:00+11:00 repeated-hour", "2026-04-06T01:45:00+10:30 "],
        ),
        (  # a day that never was: too long a leap to follow
            "Pacific/Apia", "0 12 * * *", "2011-12-29T12:00",
            ["2011-12-29T12:00:00-10:00 ", "2011-12-30T12:00:00-10:00 skipped", "2011-12-31T12:00:00+14:00 "],
        ),
        (  # midnight itself jumped over: daily tasks still run that day
            "America/Sao_Paulo", "@daily", "2018-11-03T12:00",
            ["2018-11-04T01:00:00-02:00 moved", "2018-11-05T00:00:00-02:00 "],
        ),
        (  # three hours, exactly
            "Antarctica/Casey", "30 2 * * *", "2009-10-16T20:00",
            ["2009-10-18T05:00:00+11:00 moved", "2009-10-19T02:30:00+11:00 "],
        ),
        (  # beyond three hours back: a new day, and fixed tasks run in it again
            "Pacific/Kwajalein", "0 12 * * *", "1969-09-29T12:00",
            ["1969-09-30T12:00:00+11:00 repeated-hour", "1969-09-30T12:00:00-12:00 repeated-hour"],
        ),
    ],
)  # fmt: skip
def test_the_hard_moments(zone: str, expression: str, start: str, rows: list[str]) -> None:
    """Written out by hand, so that model and schedule cannot err together."""
    shown = first_rows(parse_schedule(expression, zone), at(start), len(rows), ANCHOR_AT)
    assert rows == [f"{local} {remark}" for local, _, remark in shown]
    assert all(datetime.fromisoformat(local) == utc for local, utc, remark in shown if remark != "skipped")


def test_moments_that_a_leap_brings_to_one_instant_are_each_a_fire() -> None:
    """cron runs 02:00, 02:30 and 03:00 all at 03:00: one instant to walk over, three runs to count."""
    schedule = parse_schedule("0,30 2,3 * * *", "Europe/Paris")
    before, leap, later = at("2026-03-28T12:00"), at("2026-03-29T01:00"), at("2026-03-29T01:30")
    assert leap == schedule.next_after(before, ANCHOR_AT)
    assert later == schedule.next_after(leap, ANCHOR_AT)
    assert leap == schedule.latest(before, leap, ANCHOR_AT)
    assert schedule.count(before, leap, ANCHOR_AT) == 3
    assert schedule.count(leap, later, ANCHOR_AT) == 1
    assert schedule.times_at(leap, ANCHOR_AT) == 3
    assert schedule.times_at(later, ANCHOR_AT) == 1
    assert [leap, leap, leap, later] == [utc for _, utc, _ in first_rows(schedule, before, 4, ANCHOR_AT)]


@pytest.mark.parametrize("text", ["@reboot", "@every 90s", "@at 2026-03-29T01:00:00.250Z", "every 2 hours"])
def test_only_fields_have_two_moments_at_one_instant(text: str) -> None:
    """Intervals are even whatever the clock does, and one moment is one."""
    assert parse_schedule(text, "Europe/Paris").times_at(at("2026-03-29T01:00"), ANCHOR_AT) == 1


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("every 3 days at 2:30", 1),
        ("every 30 minutes between 2:00 and 3:00 on sundays", 1),  # as a wildcard
        ("every 3 days at 3:30", 1),  # not due then; but who asks has something that is
    ],
)
def test_words_that_are_laid_over_the_zone_follow_it_too(text: str, times: int) -> None:
    """Days in words are cron's days, leaps included; a wildcard sees no gap."""
    anchor = at("2026-03-25T12:00")
    schedule = parse_schedule(text, "Europe/Paris")
    assert schedule.times_at(at("2026-03-29T01:00"), anchor) == times


def test_a_restart_in_the_repeated_hour_does_not_repeat_a_fixed_task() -> None:
    """The state that Debian's cron keeps in its process is a function of the zone alone here."""
    schedule = parse_schedule("30 2 * * *", "Europe/Paris")
    second_pass = at("2026-10-25T01:10")
    assert at("2026-10-26T01:30") == schedule.next_after(second_pass, ANCHOR_AT)
    assert schedule.latest(at("2026-10-25T01:00"), at("2026-10-25T02:00"), ANCHOR_AT) is None


def test_the_nearest_weekday_stays_in_its_month() -> None:
    """31W of a month that ends on a Sunday is the Friday before it, 1W on a Saturday the Monday after."""
    shown = first_rows(parse_schedule("0 0 1W,31W * *", "UTC"), at("2026-05-30"), 3, ANCHOR_AT)
    assert [at("2026-06-01"), at("2026-07-01"), at("2026-07-31")] == [utc for _, utc, _ in shown]
    assert at("2026-05-29") == parse_schedule("0 0 31W * *", "UTC").next_after(at("2026-05-02"), ANCHOR_AT)
    assert at("2026-08-03") == parse_schedule("0 0 1W * *", "UTC").next_after(at("2026-07-31"), ANCHOR_AT)


# --- the other kinds ------------------------------------------------------------------------


def test_every_is_even_from_its_anchor_for_ever() -> None:
    """A restart, whenever it is, must not shift an interval."""
    schedule = parse_schedule("@every 90s", "UTC")
    anchor = at("2026-01-01T00:00:07")
    assert schedule.kind == "every"
    assert at("2026-01-01T00:01:37") == schedule.next_after(anchor, anchor)
    # A clock that is set back to before the anchor finds the same grid there, not silence.
    assert at("2020-01-01T00:00:07") == schedule.next_after(at("2020-01-01"), anchor)
    assert at("2026-01-01T00:03:07") == schedule.next_after(at("2026-01-01T00:01:37"), anchor)
    far = at("2126-01-01") + timedelta(microseconds=1)
    found = schedule.next_after(far, anchor)
    assert found is not None and (found - anchor) % timedelta(seconds=90) == timedelta(0)
    assert timedelta(0) < found - far <= timedelta(seconds=90)
    assert schedule.count(anchor, anchor + timedelta(seconds=900), anchor) == 10
    assert schedule.count(at("2020-01-01"), at("2020-01-01T00:15:00"), anchor) == 10
    assert anchor + timedelta(seconds=900) == schedule.latest(anchor, anchor + timedelta(seconds=989), anchor)
    assert schedule.latest(anchor, anchor + timedelta(seconds=89), anchor) is None


def test_at_is_due_once() -> None:
    """A one-off has one moment, in its own zone, and none after it."""
    for text in ("@at 2026-12-24T17:00:00Z", '@at "2026-12-24 18:00"', "@at 2026-12-24 18:00:00"):
        schedule = parse_schedule(text, "Europe/Paris")
        moment = at("2026-12-24T17:00")
        assert schedule.kind == "at"
        assert moment == schedule.next_after(ANCHOR_AT, ANCHOR_AT)
        assert schedule is parse_schedule(schedule.text, "Europe/Paris")  # so SAVE and LOAD change nothing
        elsewhere = parse_schedule(schedule.text, "Asia/Tokyo")  # as it is kept, with another --tz
        assert moment == elsewhere.next_after(ANCHOR_AT, ANCHOR_AT)
        assert schedule.next_after(moment, ANCHOR_AT) is None
        assert moment == schedule.latest(ANCHOR_AT, moment, ANCHOR_AT)
        assert schedule.count(ANCHOR_AT, moment, ANCHOR_AT) == 1
        assert schedule.count(moment, moment + timedelta(days=1), ANCHOR_AT) == 0
        assert [("2026-12-24T18:00:00+01:00", moment, "")] == first_rows(schedule, ANCHOR_AT, 5, ANCHOR_AT)


def test_reboot_has_no_moment_of_its_own() -> None:
    """Only the daemon knows when it starts."""
    schedule = parse_schedule("@reboot", "UTC")
    assert schedule.kind == "reboot"
    assert schedule.next_after(ANCHOR_AT, ANCHOR_AT) is None
    assert first_rows(schedule, ANCHOR_AT, 5, ANCHOR_AT) == []
    assert schedule.count(ANCHOR_AT, ANCHOR_AT + timedelta(days=9), ANCHOR_AT) == 0


def test_macros_are_their_five_fields() -> None:
    """@weekly is Sunday at midnight, as cron has it."""
    same = {
        "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0",
        "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
    }  # fmt: skip
    for macro, fields in same.items():
        a, b = parse_schedule(macro, "Europe/Paris"), parse_schedule(fields, "Europe/Paris")
        assert a.text == macro
        assert first_rows(a, at("2026-10-24"), 5, ANCHOR_AT) == first_rows(b, at("2026-10-24"), 5, ANCHOR_AT)


def test_rare_days_are_found_and_impossible_ones_end_the_search() -> None:
    """29 February on a Monday is 28 years or more away; a search must neither miss it nor run on."""
    leap_monday = parse_schedule("0 0 * 2 1#5", "Europe/Paris")
    assert at("2044-02-28T23:00") == leap_monday.next_after(ANCHOR_AT, ANCHOR_AT)
    assert at("2016-02-28T23:00") == leap_monday.latest(at("1990-01-01"), ANCHOR_AT, ANCHOR_AT)
    leap_day = parse_schedule("0 0 29 2 *", "UTC")
    assert at("2104-02-29") == leap_day.next_after(at("2096-02-29"), ANCHOR_AT)
    # A wildcard in the hour that is always jumped over: nobody sees that from the fields alone.
    assert parse_schedule("* 2 * 3 0L", "Europe/Paris").next_after(ANCHOR_AT, ANCHOR_AT) is None
    assert parse_schedule("0 0 * * *", "UTC").next_after(datetime.max.replace(tzinfo=UTC), ANCHOR_AT) is None
    assert (
        parse_schedule("0 0 * * *", "UTC").next_after(datetime.min.replace(tzinfo=UTC), ANCHOR_AT) is not None
    )


def _timed(call: Callable[[], object]) -> float:
    begin = time.thread_time()
    call()
    return time.thread_time() - begin


def test_counting_costs_days_not_minutes() -> None:
    """After a year of downtime a million missed fires are a number, at once."""
    schedule = parse_schedule("* * * * *", "Europe/Paris")
    begin, end = at("1990-01-01"), at("2026-01-01")
    assert (end - begin) // timedelta(minutes=1) == schedule.count(begin, end, ANCHOR_AT)
    assert min(_timed(lambda: schedule.count(begin, end, ANCHOR_AT)) for _ in range(5)) < 0.005
    assert schedule.count(end, begin, ANCHOR_AT) == 0


def test_schedules_are_shared_until_zones_are_reloaded() -> None:
    """100,000 tasks of one text cost one parse; HUP must still bring new zone data."""
    first = parse_schedule("1 2 3 4 *", "Europe/Paris")
    assert first is parse_schedule(" 1 2 3 4 * ", "Europe/Paris")
    reload_zones()
    again = parse_schedule("1 2 3 4 *", "Europe/Paris")
    assert first is not again
    assert first.next_after(ANCHOR_AT, ANCHOR_AT) == again.next_after(ANCHOR_AT, ANCHOR_AT)


def test_a_text_is_parsed_once_in_a_zone_however_many_tasks_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is parsed, then each fact is applied: more texts than any cache holds must not double that."""
    texts = [
        f"{n % 60} {n // 60 % 24} {n // 1440 + 1} * *" for n in range(schedule.MAX_RECENT_SCHEDULES + 500)
    ]
    parsed: Counter[tuple[str, str]] = Counter()

    def counting(text: str, fields: str, tz: str, zone: Zone) -> schedule.Schedule:
        parsed[text, tz] += 1
        return parse_cron(text, fields, tz, zone)

    parse_cron = schedule._parse_cron
    reload_zones()
    monkeypatch.setattr(schedule, "_parse_cron", counting)
    records = [
        {"schedule": text, "command": "true", "tz": tz} for text in texts for tz in ("UTC", "Asia/Tokyo")
    ]
    driver = Driver()
    driver.do(LoadTasks([parse_record(record, "UTC") for record in [*records, *records]], None))
    assert len(driver.state.tasks) == 2 * len(records)
    assert len(parsed) == parsed.total() == len(records)


def test_a_text_that_no_task_has_is_forgotten() -> None:
    """Whoever asks NEXT about a million schedules must not fill the memory."""
    before = len(schedule._held)
    for n in range(2 * schedule.MAX_RECENT_SCHEDULES):
        parse_schedule(f"@every {n + 1}s", "UTC")
    assert len(schedule._held) <= before + schedule.MAX_RECENT_SCHEDULES


def test_next_is_quick() -> None:
    """20 us is the aim; the bound leaves room for a slow and busy machine."""
    schedule = parse_schedule("*/10 8-18 * * 1-5", "Europe/Paris")
    starts = [ANCHOR_AT + timedelta(minutes=n * 97) for n in range(2000)]

    def run() -> None:
        for start in starts:
            schedule.next_after(start, ANCHOR_AT)

    assert min(_timed(run) for _ in range(3)) / len(starts) < 100e-6


# --- taking a schedule off a line --------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "schedule", "command"),
    [
        ("* * * * * echo hi", "* * * * *", "echo hi"),
        ("0  5\t* * *  echo  hi ", "0  5\t* * *", " echo  hi "),
        ("* * * * *\techo", "* * * * *", "echo"),
        ("@daily echo @at", "@daily", "echo @at"),
        ("@every 90s date", "@every 90s", "date"),
        ("@at 2026-12-24T18:00:00Z date -u", "@at 2026-12-24T18:00:00Z", "date -u"),
        ('@at "2026-12-24 18:00" date', '@at "2026-12-24 18:00"', "date"),
        ("@after run", "@after", "run"),
        ('"0 9 * * * 30" run', "0 9 * * * 30", "run"),
        ('"daily at 3 AM" run "x"', "daily at 3 AM", 'run "x"'),
        (r'"@at \"2026-12-24 18:00\"" run', '@at "2026-12-24 18:00"', "run"),
    ],
)
def test_a_schedule_is_taken_off_the_line_and_the_command_left_alone(
    line: str, schedule: str, command: str
) -> None:
    """All that follows the one blank is the command, byte for byte."""
    assert (schedule, command) == split_schedule(line)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("* * * * *", "syntax"),
        ("* * * * * ", "syntax"),
        ("@daily", "syntax"),
        ('"* * * * *', "syntax"),
        ('"* * * * *"echo', "syntax"),
        ("", "bad-schedule"),
        ("* * * echo", "bad-schedule"),
        ("every 5 minutes echo hi there", "bad-schedule"),
    ],
)
def test_a_line_without_a_whole_schedule_and_command_is_refused(line: str, code: str) -> None:
    """Half a line must never become a task with half a command."""
    with pytest.raises(Refusal) as caught:
        split_schedule(line)
    assert code == caught.value.code


@pytest.mark.parametrize("text", ["* * * * *", "30 2 * * *", "@every 90s", "every 2 days at 9:00"])
@pytest.mark.parametrize("tz", ["UTC", "Pacific/Apia", "America/New_York"])
def test_what_is_told_ends_where_what_fires_ends(text: str, tz: str) -> None:
    """Asked about the year 9999, it must not tell moments of 9990."""
    schedule, anchor_at = parse_schedule(text, tz), datetime(2026, 1, 1, tzinfo=UTC)
    assert not list(islice(schedule.rows(datetime(9999, 12, 1, tzinfo=UTC), anchor_at), 3))
    begin_at = datetime(9989, 12, 31, 23, 55, tzinfo=UTC)
    told = [at for _, at, _ in islice(schedule.rows(begin_at, anchor_at), 9)]
    assert len(told) == schedule.count(begin_at, datetime(9999, 12, 1, tzinfo=UTC), anchor_at)
