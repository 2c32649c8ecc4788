"""Schedules in words that are understood, and what they mean; test_english_refused.py has the others."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cronflowd.base.errors import Refusal
from cronflowd.schedules.describe import describe, format_cron
from cronflowd.schedules.english import parse_phrase
from cronflowd.schedules.rules import LAST, Interval, OnDays, Rule, cron_lines, explain, explain_anchor
from cronflowd.schedules.schedule import MACROS, Schedule, parse_schedule
from cronflowd.schedules.words import named_zone
from cronflowd.schedules.zones import DAY_S
from tests.lib.rows import first_rows

ADDED_AT = datetime(2026, 11, 21, 6, 13, 17, tzinfo=UTC)  # a Saturday
CHANGES = [
    ("Europe/Paris", datetime(2026, 3, 29, tzinfo=UTC)),
    ("Europe/Paris", datetime(2026, 10, 25, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 11, 1, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 4, 4, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 10, 3, tzinfo=UTC)),
    ("Africa/Cairo", datetime(2026, 4, 23, tzinfo=UTC)),  # at midnight
    ("America/Nuuk", datetime(2025, 3, 29, tzinfo=UTC)),  # to midnight
    ("Pacific/Apia", datetime(2011, 12, 30, tzinfo=UTC)),  # a day that never was
]


def fires(
    schedule: Schedule, begin: datetime, end: datetime, added_at: datetime = ADDED_AT
) -> list[datetime]:
    """All due moments in (begin, end], reached by walking."""
    found, at = [], begin
    while (after := schedule.next_after(at, added_at)) and after <= end:
        found.append(after)
        at = after
    return found


def local_fires(text: str, n: int, tz: str = "Europe/Paris", added_at: datetime = ADDED_AT) -> list[str]:
    rows = first_rows(parse_schedule(text, tz), added_at, n, added_at)
    return [f"{at.astimezone(parse_schedule(text, tz).zone.info):%a %m-%d %H:%M:%S}" for _, at, _ in rows]


# --- what is understood ---------------------------------------------------------------------------

PHRASES = [
    ("every 5 minutes", "every 5 minutes", ["*/5 * * * *"]),
    ("every 30 seconds", "every 30 seconds", ["* * * * * */30"]),
    ("hourly", "every hour", ["0 * * * *"]),
    ("daily at 3 AM", "every day at 3:00", ["0 3 * * *"]),
    ("every day at 18:30", "every day at 18:30", ["30 18 * * *"]),
    ("weekly on monday", "every monday at 0:00", ["0 0 * * 1"]),
    ("every weekday at 9:00", "every weekday at 9:00", ["0 9 * * 1-5"]),
    ("every monday and thursday at noon", "every monday and thursday at 12:00", ["0 12 * * 1,4"]),
    ("first monday of every month at 8:30", "on the first monday of every month at 8:30", ["30 8 * * 1#1"]),
    ("last day of the month at 23:00", "on the last day of every month at 23:00", ["0 23 L * *"]),
    ("monthly on the 15th", "on the 15th of every month at 0:00", ["0 0 15 * *"]),
    ("every 2 weeks on friday", "every 2 weeks on friday at 0:00", []),
    (
        "every 15 minutes between 9:00 and 17:00 on weekdays",
        "every 15 minutes between 9:00 and 17:00 on weekdays",
        ["*/15 9-16 * * 1-5", "0 17 * * 1-5"],
    ),
    ("yearly on december 24 at 6 PM", "every year on the 24th of december at 18:00", ["0 18 24 12 *"]),
    ("twice a day", "every day at 0:00 and 12:00", ["0 0,12 * * *"]),
    ("every hour at :30", "every hour between 0:30 and 23:30", ["30 * * * *"]),
    ("every 2 hours at :15", "every 2 hours between 0:15 and 22:15", ["15 */2 * * *"]),
    ("every hour at :15 and :45 on weekdays",
    "every 30 minutes between 0:15 and 23:45 on weekdays", ["15,45 * * * 1-5"]),
    ("last weekday of the month at 18:00", "on the last weekday of every month at 18:00", ["0 18 LW * *"]),
    ("first working day of each month at 9:00",
    "on the first weekday of every month at 9:00", ["0 9 1W * *"]),
    ("yearly on the last weekday of june", "every year on the last weekday of june at 0:00", ["0 0 LW 6 *"]),
    # cron cannot say these evenly, or at all
    ("every 45 minutes", "every 45 minutes", []),
    ("every 90 seconds", "every 90 seconds", []),
    ("every 2 hours", "every 2 hours", []),
    ("every 120 minutes", "every 2 hours", []),
    ("every 25 hours", "every 25 hours", []),
    ("every other day at 7:30 PM", "every 2 days at 19:30", []),
    ("every 3 days", "every 3 days at 0:00", []),
    ("every other friday at 9:00", "every 2 weeks on friday at 9:00", []),
    ("every 3 weeks on sunday, monday at 9:00", "every 3 weeks on monday and sunday at 9:00", []),
    # in other words
    ("EVERY  5\tMinute", "every 5 minutes", ["*/5 * * * *"]),
    ("every minute", "every minute", ["* * * * *"]),
    ("every second", "every second", ["* * * * * *"]),
    ("every hour", "every hour", ["0 * * * *"]),
    ("every 60 secs", "every minute", ["* * * * *"]),
    ("every five mins", "every 5 minutes", ["*/5 * * * *"]),
    ("4 times an hour", "every 15 minutes", ["*/15 * * * *"]),
    ("once a day at midnight", "every day at 0:00", ["0 0 * * *"]),
    ("daily", "every day at 0:00", ["0 0 * * *"]),
    ("each day at 12 AM", "every day at 0:00", ["0 0 * * *"]),
    ("daily at 12 pm", "every day at 12:00", ["0 12 * * *"]),
    ("daily at 12:05 am", "every day at 0:05", ["5 0 * * *"]),
    ("daily at 9", "every day at 9:00", ["0 9 * * *"]),
    ("daily at 23:59:30", "every day at 23:59:30", ["59 23 * * * 30"]),
    ("at 8am every day", "every day at 8:00", ["0 8 * * *"]),
    ("every day at 9:00, 12:00, and 17:30", "every day at 9:00, 12:00 and 17:30",
     ["0 9,12 * * *", "30 17 * * *"]),
    ("daily at 9 AM and 17:00", "every day at 9:00 and 17:00", ["0 9,17 * * *"]),
    ("twice a day at 9:15 and 17:15", "every day at 9:15 and 17:15", ["15 9,17 * * *"]),
    ("weekdays at 9", "every weekday at 9:00", ["0 9 * * 1-5"]),
    ("mondays, wednesdays and fridays at 9am", "every monday, wednesday and friday at 9:00",
     ["0 9 * * 1,3,5"]),
    ("weekly on weekends at noon", "every saturday and sunday at 12:00", ["0 12 * * 0,6"]),
    ("every friday to monday at 10:00", "every monday, friday, saturday and sunday at 10:00",
     ["0 10 * * 0-1,5-6"]),
    ("every MON-FRI at 6:00", "every weekday at 6:00", ["0 6 * * 1-5"]),
    ("every week on tues", "every tuesday at 0:00", ["0 0 * * 2"]),
    ("on the 1st and the 15th of every month at noon", "on the 1st and 15th of every month at 12:00",
     ["0 12 1,15 * *"]),
    ("every month on the last friday at 5 PM", "on the last friday of every month at 17:00",
     ["0 17 * * 5L"]),
    ("1st and 3rd tuesday of the month", "on the first and third tuesday of every month at 0:00",
     ["0 0 * * 2#1,2#3"]),
    ("every last day of the month", "on the last day of every month at 0:00", ["0 0 L * *"]),
    ("the first of every month", "on the 1st of every month at 0:00", ["0 0 1 * *"]),
    ("annually on 1 january", "every year on the 1st of january at 0:00", ["0 0 1 1 *"]),
    ("every december 24th", "every year on the 24th of december at 0:00", ["0 0 24 12 *"]),
    ("yearly on the 24th of dec", "every year on the 24th of december at 0:00", ["0 0 24 12 *"]),
    ("yearly on the 1st of january, april, july and october",
     "every year on the 1st of january, april, july and october at 0:00", ["0 0 1 1,4,7,10 *"]),
    ("yearly on the last day of february", "every year on the last day of february at 0:00", ["0 0 L 2 *"]),
    ("every monday in june and july at 9:00", "every monday in june and july at 9:00", ["0 9 * 6-7 1"]),
    ("every day of december", "every day in december at 0:00", ["0 0 * 12 *"]),
    ("every 10 minutes from 22:00 to 23:30 on saturdays",
     "every 10 minutes between 22:00 and 23:30 on saturday",
     ["*/10 22 * * 6", "0,10,20,30 23 * * 6"]),
    ("every hour between 9 AM and 5 PM", "every hour between 9:00 and 17:00", ["0 9-17 * * *"]),
    ("every 20 minutes between 0:00 and 23:40 in may", "every 20 minutes in may", ["*/20 * * 5 *"]),
    ("every 7 hours between 0:00 and 23:00", "every 7 hours between 0:00 and 21:00", ["0 0,7,14,21 * * *"]),
    ("every 45 minutes between 9:00 and noon", "every 45 minutes between 9:00 and 12:00", []),
    ("every 3 hours on weekends", "every 3 hours on saturday and sunday", ["0 */3 * * 0,6"]),
    # what has a list of days, or says every, is no single moment
    ("every weekend at 10:00", "every saturday and sunday at 10:00", ["0 10 * * 0,6"]),
    ("every weekend", "every saturday and sunday at 0:00", ["0 0 * * 0,6"]),
    ("every weekend day at 10:00", "every saturday and sunday at 10:00", ["0 10 * * 0,6"]),
    ("every other weekend at 9:00", "every 2 weeks on saturday and sunday at 9:00", []),
    ("on the 1st and 15th at 6:00", "on the 1st and 15th of every month at 6:00", ["0 6 1,15 * *"]),
    ("1st and 15th at 6am", "on the 1st and 15th of every month at 6:00", ["0 6 1,15 * *"]),
    ("every 1st, 15th and last day at 18:00", "on the 1st, 15th and last day of every month at 18:00",
     ["0 18 1,15,L * *"]),
    ("on the 1st through 7th at 6:00", "on the 1st, 2nd, 3rd, 4th, 5th, 6th and 7th of every month at 6:00",
     ["0 6 1,2,3,4,5,6,7 * *"]),
    ("from the 1st to the 3rd of the month", "on the 1st, 2nd and 3rd of every month at 0:00",
     ["0 0 1,2,3 * *"]),
    ("every 15th at 6:00", "on the 15th of every month at 6:00", ["0 6 15 * *"]),
    ("every 24th of december at 8:00", "every year on the 24th of december at 8:00", ["0 8 24 12 *"]),
    ("every last day at 18:00", "on the last day of every month at 18:00", ["0 18 L * *"]),
    ("sat and sun at 10", "every saturday and sunday at 10:00", ["0 10 * * 0,6"]),
    ("Mon,Tue 10:00", "every monday and tuesday at 10:00", ["0 10 * * 1-2"]),
    ("mon..fri 9:00", "every weekday at 9:00", ["0 9 * * 1-5"]),
    ("weekly monday 9:00", "every monday at 9:00", ["0 9 * * 1"]),
    ("daily mon-fri at 9:00", "every weekday at 9:00", ["0 9 * * 1-5"]),
    ("twice a day on weekdays", "every weekday at 0:00 and 12:00", ["0 0,12 * * 1-5"]),
    ("every hour from monday to friday", "every hour on weekdays", ["0 * * * 1-5"]),
    ("every day from june to august at 8:00", "every day in june, july and august at 8:00",
     ["0 8 * 6-8 *"]),
    ("every monday in november to january", "every monday in january, november and december at 0:00",
     ["0 0 * 1,11-12 1"]),
    ("every second tuesday of the month at 3am", "on the second tuesday of every month at 3:00",
     ["0 3 * * 2#2"]),
    # the clock, and the hour, as people write them
    ("every day at 8 o'clock", "every day at 8:00", ["0 8 * * *"]),
    ("everyday @ 5p", "every day at 17:00", ["0 17 * * *"]),
    ("daily at 9h30", "every day at 9:30", ["30 9 * * *"]),
    ("daily at 9h", "every day at 9:00", ["0 9 * * *"]),
    ("daily at 0630", "every day at 6:30", ["30 6 * * *"]),
    ("every day at 5 p.m.", "every day at 17:00", ["0 17 * * *"]),
    ("every day at 2 in the morning", "every day at 2:00", ["0 2 * * *"]),
    ("every day at 5:15 in the afternoon", "every day at 17:15", ["15 17 * * *"]),
    ("daily at 9 at night", "every day at 21:00", ["0 21 * * *"]),
    ("minutely", "every minute", ["* * * * *"]),
    ("once every 5 minutes", "every 5 minutes", ["*/5 * * * *"]),
    ("every 2h30m", "every 150 minutes", []),
    ("every 3d at 6:00", "every 3 days at 6:00", []),
    ("at 9:00 on every tues & thurs", "every tuesday and thursday at 9:00", ["0 9 * * 2,4"]),
    ("at 15 past the hour", "every hour between 0:15 and 23:15", ["15 * * * *"]),
    ("half past every hour", "every hour between 0:30 and 23:30", ["30 * * * *"]),
    ("quarter to the hour", "every hour between 0:45 and 23:45", ["45 * * * *"]),
    ("every hour at 0, 15, 30 and 45", "every 15 minutes between 0:00 and 23:45", ["*/15 * * * *"]),
    ("Every weekday at 5 PM.", "every weekday at 17:00", ["0 17 * * 1-5"]),
    ("every 30 minutes on the 15th of every month", "every 30 minutes on the 15th of every month",
     ["*/30 * 15 * *"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "english", "cron"), PHRASES)
def test_a_phrase_means_what_its_english_and_its_cron_form_say(
    text: str, english: str, cron: list[str]
) -> None:
    """People check what they typed against both."""
    rule = parse_phrase(text).rule
    assert (english, cron) == (explain(rule), list(cron_lines(rule)))
    assert rule == parse_phrase(english).rule


@pytest.mark.parametrize("text", [text for text, _, cron in PHRASES if cron])
def test_a_phrase_fires_as_its_cron_form_does(text: str) -> None:
    """The cron forms are made apart from the schedule itself, so each is a check of the other."""
    schedule = parse_schedule(text, "Europe/Paris")
    lines = [parse_schedule(line, "Europe/Paris") for line in cron_lines(parse_phrase(text).rule)]
    begin = datetime(2026, 3, 28, 20, 0, tzinfo=UTC)
    span = {"sec": timedelta(hours=7), "min": timedelta(days=20), "hour": timedelta(days=20)}
    end = begin + next((span[unit] for unit in span if unit in text), timedelta(days=800))
    wanted = sorted(fire for line in lines for fire in fires(line, begin, end))
    assert wanted == fires(schedule, begin, end)
    assert len(wanted) == schedule.count(begin, end, ADDED_AT)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("every 5 minutes", ["Sat 11-21 07:15:00", "Sat 11-21 07:20:00"]),
        ("every 45 minutes", ["Sat 11-21 07:30:00", "Sat 11-21 08:15:00"]),
        ("every 90 seconds", ["Sat 11-21 07:13:30", "Sat 11-21 07:15:00"]),
        ("every 2 hours", ["Sat 11-21 08:00:00", "Sat 11-21 10:00:00"]),
        ("every 7 hours", ["Sat 11-21 14:00:00", "Sat 11-21 21:00:00", "Sun 11-22 04:00:00"]),
        ("every 2 weeks on friday", ["Fri 11-27 00:00:00", "Fri 12-11 00:00:00", "Fri 12-25 00:00:00"]),
        ("every 2 weeks on saturday at 7:00", ["Sat 11-28 07:00:00", "Sat 12-12 07:00:00"]),  # 7:13 now
        ("every 2 weeks on saturday at 8:00", ["Sat 11-21 08:00:00", "Sat 12-05 08:00:00"]),
        ("every 2 weeks on monday and sunday at 8:00",
         ["Sun 11-22 08:00:00", "Mon 11-30 08:00:00", "Sun 12-06 08:00:00", "Mon 12-14 08:00:00"]),
        ("every 3 days at 7:00", ["Sun 11-22 07:00:00", "Wed 11-25 07:00:00"]),
        ("every 3 days at 8:00", ["Sat 11-21 08:00:00", "Tue 11-24 08:00:00"]),
        ("every 2 days at 7:00 and 8:00", ["Sat 11-21 08:00:00", "Mon 11-23 07:00:00", "Mon 11-23 08:00:00"]),
        ("every 8 hours between 1:00 and 17:00 on sundays", ["Sun 11-22 01:00:00", "Sun 11-22 09:00:00",
                                                              "Sun 11-22 17:00:00", "Sun 11-29 01:00:00"]),
    ],
)  # fmt: skip
def test_what_counts_begins_at_its_anchor(text: str, wanted: list[str]) -> None:
    """The docstring of english.py states the anchors; these are for a task added on Saturday 07:13:17."""
    assert wanted == local_fires(text, len(wanted))


@pytest.mark.parametrize(("zone", "day"), CHANGES)
@pytest.mark.parametrize(
    "text", ["every 20 minutes", "every 45 minutes", "hourly", "every 2 hours", "every 7 minutes"]
)
def test_intervals_are_even_through_every_clock_change(text: str, zone: str, day: datetime) -> None:
    """Every 45 minutes is 45 minutes apart always, also where the clock changes by half an hour."""
    schedule = parse_schedule(text, zone)
    added_at = day - timedelta(days=1, hours=3)
    found = fires(schedule, added_at, day + timedelta(days=2), added_at)
    assert len({after - before for before, after in pairwise(found)}) == 1
    local = added_at.astimezone(schedule.zone.info)
    midnight = added_at - timedelta(hours=local.hour, minutes=local.minute)
    assert not any((fire - midnight) % (found[1] - found[0]) for fire in found)


def test_an_interval_does_not_stop_where_the_clock_was_wrong_when_it_was_added() -> None:
    """A task added in 2036 by mistake goes on when the clock is set right."""
    schedule = parse_schedule("every 45 minutes", "Europe/Paris")
    wrong = ADDED_AT + timedelta(days=3653)
    found = schedule.next_after(ADDED_AT, wrong)
    assert found and found - ADDED_AT <= timedelta(minutes=45)


# --- days that come round -------------------------------------------------------------------------


@pytest.mark.parametrize(("zone", "day"), CHANGES)
def test_days_that_come_round_are_a_part_of_all_such_days(zone: str, day: datetime) -> None:
    """Each second Sunday is found by leaving out Sundays, the clock's changes included."""
    for text, plain, unit in [
        ("every 2 weeks on sunday at {}", "{1} {0} * * 0", 14),
        ("every 3 days at {}", "{1} {0} * * *", 3),
    ]:
        for hour, minute in [(2, 30), (0, 30), (23, 30), (1, 15), (3, 0)]:
            added_at = day - timedelta(days=20, hours=5)
            end = day + timedelta(days=60)
            all_days = parse_schedule(plain.format(hour, minute), zone)
            wanted = []
            first = None
            for row in first_rows(all_days, added_at, 90, added_at):
                local = datetime.fromisoformat(row[0]).replace(tzinfo=None)
                # What is moved is told at the leap's end, maybe a day later.
                if row[2] in ("moved", "skipped"):
                    continue
                days = (local.date() - datetime(1970, 1, 5).date()).days
                first = days if first is None else first
                if (days - first) % unit == 0 and row[1] <= end:
                    wanted.append(row[1])
            schedule = parse_schedule(text.format(f"{hour}:{minute:02}"), zone)
            found = fires(schedule, added_at, end, added_at)
            moved = {row[1] for row in first_rows(all_days, added_at, 90, added_at) if row[2] == "moved"}
            assert [fire for fire in found if fire not in moved] == wanted
            assert found == sorted(set(found))
            assert len(found) == schedule.count(added_at, end, added_at)
            assert schedule.latest(added_at, end, added_at) == found[-1]


def test_days_that_come_round_are_searched_and_counted_alike_in_both_directions() -> None:
    """A restart asks for the newest missed moment; it must be one that would have been served."""
    rng = random.Random(7)
    schedule = parse_schedule("every 3 weeks on tuesday and saturday at 6:10 and 18:50", "America/New_York")
    begin, end = ADDED_AT - timedelta(days=400), ADDED_AT + timedelta(days=400)
    known = fires(schedule, begin, end)
    assert known == [schedule.latest(begin, fire, ADDED_AT) for fire in known]
    for _ in range(300):
        after, upto = sorted(begin + (end - begin) * rng.random() for _ in range(2))
        inside = [fire for fire in known if after < fire <= upto]
        assert len(inside) == schedule.count(after, upto, ADDED_AT)
        assert (inside[-1] if inside else None) == schedule.latest(after, upto, ADDED_AT)


def test_a_time_between_two_times_follows_real_time() -> None:
    """As */15 does: what the clock repeats is served again, what it leaps over is not there."""
    text = "every 15 minutes between 1:30 and 3:00"
    autumn = datetime(2026, 10, 24, 22, 0, tzinfo=UTC)
    spring = datetime(2026, 3, 28, 22, 0, tzinfo=UTC)
    assert len(local_fires(text, 11, added_at=autumn)) == 11
    assert local_fires(text, 11, added_at=autumn)[-1] == "Sun 10-25 03:00:00"
    assert local_fires(text, 3, added_at=spring)[1:] == ["Sun 03-29 01:45:00", "Sun 03-29 03:00:00"]


# --- there and back -------------------------------------------------------------------------------

TIMES = st.lists(st.integers(0, 86_399), min_size=1, max_size=4, unique=True).map(
    lambda each: tuple(sorted(each))
)
PERIODS = st.one_of(st.integers(1, 200_000), st.sampled_from([1, 60, 300, 2700, 3600, 7200, 86_400]))
SOME_MONTHS = st.lists(st.integers(1, 12), max_size=4, unique=True).map(lambda each: tuple(sorted(each)))
SOME_WEEKDAYS = st.lists(st.integers(0, 6), min_size=1, max_size=7, unique=True).map(
    lambda each: tuple(sorted(each))
)
SOME_DATES = st.lists(st.one_of(st.integers(1, 28), st.just(LAST)), min_size=1, max_size=3, unique=True).map(
    lambda each: tuple(sorted(each))
)
SOME_NTH = st.lists(st.sampled_from([1, 2, 3, 4, LAST]), min_size=1, max_size=3, unique=True).map(
    lambda each: tuple(sorted(each))
)


@st.composite
def spans(draw: st.DrawFn) -> range:
    if draw(st.booleans()):
        return range(0, DAY_S, draw(st.sampled_from([n for n in range(30, 43_201) if DAY_S % n == 0])))
    begin = draw(st.integers(0, 80_000))
    step = draw(st.integers(1, min(20_000, 86_399 - begin)))
    return range(begin, begin + step * draw(st.integers(1, (86_399 - begin) // step)) + 1, step)


@st.composite
def calendars(draw: st.DrawFn) -> OnDays:
    times = draw(st.one_of(TIMES, spans()))
    shape = draw(st.sampled_from(["days", "weekdays", "dates", "nth", "near", "cycle"]))
    months = draw(SOME_MONTHS)
    if shape == "cycle":
        weekdays = draw(st.one_of(st.just(()), SOME_WEEKDAYS))
        return OnDays(draw(TIMES), weekdays, every=draw(st.integers(2, 52)))
    if shape == "weekdays":
        return OnDays(times, draw(SOME_WEEKDAYS), months=months)
    if shape == "dates":
        return OnDays(times, dates=draw(SOME_DATES), months=months)
    if shape == "near":
        return OnDays(times, near=draw(st.sampled_from([(1,), (LAST,), (1, LAST)])), months=months)
    if shape == "nth":
        return OnDays(times, (draw(st.integers(0, 6)),), draw(SOME_NTH), months=months)
    return OnDays(times, months=months)


@given(st.one_of(PERIODS.map(Interval), calendars()), st.sampled_from([zone for zone, _ in CHANGES]))
def test_a_rule_and_its_english_read_back_give_the_same_fires(rule: Rule, zone: str) -> None:
    """What GET tells in English is all there is to know; typed again, it is the same schedule."""
    english = explain(rule)
    assert rule == parse_phrase(english).rule
    if len(english) <= 256:
        schedule = parse_schedule(f"{english} in {zone}", "UTC")
        again = parse_schedule(explain(schedule.rule) if schedule.rule else "", zone)
        assert (rule, zone) == (schedule.rule, schedule.tz)
        assert first_rows(schedule, ADDED_AT, 3, ADDED_AT) == first_rows(again, ADDED_AT, 3, ADDED_AT)


@given(calendars())
def test_a_calendars_cron_form_fires_as_it_does(rule: OnDays) -> None:
    """Away from clock changes, over sets of days, months and times that nobody chose by hand."""
    lines = [parse_schedule(line, "UTC") for line in cron_lines(rule)]
    if lines:
        schedule = parse_schedule(explain(rule), "UTC")
        at = ADDED_AT
        for _ in range(5):
            nexts = [found for line in lines if (found := line.next_after(at, ADDED_AT))]
            assert min(nexts, default=None) == schedule.next_after(at, ADDED_AT)
            at = min(nexts, default=at)


WORDS = (
    "every each 2 5 15 90 0 other second minute minutes hours day days week weeks month year monday mondays"
    " fri weekdays weekend first last 1st 15th 31st of the on at in and , - between from to noon midnight"
    " 9:00 17:30 25:00 8 am pm december june daily hourly weekly monthly yearly twice once times a"
    " Europe/Paris tomorrow"
).split()


@given(st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join))
def test_any_words_are_one_rule_or_a_refusal(text: str) -> None:
    """No order of words brings anything down, and whatever is accepted can be told and fires."""
    try:
        schedule = parse_schedule("every " + text, "Europe/Paris")
    except Refusal as refusal:
        assert refusal.code == "bad-schedule"
        return
    assert schedule.rule and parse_phrase(explain(schedule.rule)).rule == schedule.rule
    assert schedule.next_after(ADDED_AT, ADDED_AT)


# --- said in another way ---------------------------------------------------------------------------

# What people type, and how DESCRIBE says it.
SAME = [
    ("hourly", "every hour"),
    ("daily", "every day at 0:00"),
    ("weekly", "every sunday at 0:00"),
    ("monthly", "on the 1st of every month at 0:00"),
    ("Yearly", "every year on the 1st of january at 0:00"),
    ("annually", "every year on the 1st of january at 0:00"),
    ("midnight", "every day at 0:00"),
    ("every half hour", "every 30 minutes"),
    ("every half an hour", "every 30 minutes"),
    ("every quarter hour", "every 15 minutes"),
    ("every quarter of an hour", "every 15 minutes"),
    ("every fifteen minutes", "every 15 minutes"),
    ("every 5m", "every 5 minutes"),
    ("hourly at :15", "every hour between 0:15 and 23:15"),
    ("every hour at 30 minutes past", "every hour between 0:30 and 23:30"),
    ("every hour on the half hour", "every hour between 0:30 and 23:30"),
    ("last business day of the month", "on the last weekday of every month at 0:00"),
    ("every business day at 9:00", "every weekday at 9:00"),
    ("on weekends at 10:00", "every saturday and sunday at 10:00"),
    ("monday to friday at 9:00", "every weekday at 9:00"),
    ("mon-fri 9am", "every weekday at 9:00"),
    ("every monday 9:00", "every monday at 9:00"),
    ("9:00 every day", "every day at 9:00"),
    ("9am daily", "every day at 9:00"),
    ("3 AM every day", "every day at 3:00"),
    ("daily at 9 p.m.", "every day at 21:00"),
    ("every noon", "every day at 12:00"),
    ("twice daily", "every day at 0:00 and 12:00"),
    ("every night at 2:00", "every day at 2:00"),
    ("nightly at 2:00", "every day at 2:00"),
    ("monthly on day 22", "on the 22nd of every month at 0:00"),
    ("last day of month at 23:59", "on the last day of every month at 23:59"),
    ("every other day", "every 2 days at 0:00"),
]


@pytest.mark.parametrize(("text", "said"), SAME)
def test_what_people_type_is_another_way_to_say_it(text: str, said: str) -> None:
    """The very same rule; and alone, a word says what @nick says."""
    schedule = parse_schedule(text, "UTC")
    assert schedule.rule == parse_schedule(said, "UTC").rule
    assert describe(schedule) == said
    if f"@{text.lower()}" in MACROS:
        assert format_cron(schedule) == MACROS[f"@{text.lower()}"]


def test_the_last_weekday_of_a_month_is_its_last_monday_to_friday() -> None:
    """Wages are due on it; and the first one is looked for from the other end."""
    days = [date(2030, 1, 1) + timedelta(days=n) for n in range(3 * 365)]
    for text, place in (("last weekday of the month", -1), ("first weekday of the month", 0)):
        months: dict[tuple[int, int], list[date]] = {}
        for day in days:
            if day.weekday() < 5:
                months.setdefault((day.year, day.month), []).append(day)
        found = fires(
            parse_schedule(text, "UTC"), datetime(2029, 12, 31, tzinfo=UTC), datetime(2032, 12, 1, tzinfo=UTC)
        )
        expected = [each[place] for each in months.values()]
        assert [at.date() for at in found] == expected[: len(found)]
        assert len(found) >= 35


# --- zones -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        ("every weekday at 9:00 in Europe/Paris", "Europe/Paris"),
        ("every weekday at 9:00, in europe/paris", "Europe/Paris"),
        ("every 5 minutes IN AMERICA/NEW_YORK", "America/New_York"),
        ("every monday in june in America/Argentina/Buenos_Aires", "America/Argentina/Buenos_Aires"),
        ("hourly in utc", "UTC"),
        ("daily at 9:00", None),
        ("0 9 * * *", None),
        ("@daily", None),
    ],
)
def test_a_phrase_may_end_with_its_zone(text: str, zone: str | None) -> None:
    """It goes before the zone that tasks have otherwise, so a caller can see where tz= disagrees."""
    assert (zone, zone or "Asia/Tokyo") == (named_zone(text), parse_schedule(text, "Asia/Tokyo").tz)


@pytest.mark.parametrize("zone", ["Europe/Paris", "in Europe/Paris", ", Europe/Paris", "(Europe/Paris)"])
def test_a_zone_may_stand_at_the_end(zone: str) -> None:
    """With a word before it or without; it is no word of any phrase."""
    schedule = parse_schedule(f"daily at 9:00 {zone}", "UTC")
    assert schedule.tz == "Europe/Paris"
    assert parse_schedule("daily at 9:00 UTC", "Asia/Tokyo").tz == "UTC"


def test_the_anchor_is_told() -> None:
    """GET states what an interval counts from; a calendar counts from nothing."""
    told = [explain_anchor(parse_phrase(text).rule) for text in (
        "every 45 minutes", "every 2 weeks on friday", "every 3 days", "daily")]  # fmt: skip
    assert [
        "counted from midnight on the day the task was added",
        "counted from the week (Monday to Sunday) of the first such moment after the task was added",
        "counted from the day of the first such moment after the task was added",
        "",
    ] == told
