"""What a schedule means, in English: nothing may be said that is not exactly so."""

from __future__ import annotations

import os
import random
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cronflowd.base.errors import Refusal
from cronflowd.schedules.describe import describe, describe_anchor, describe_changes, format_cron
from cronflowd.schedules.english import parse_phrase
from cronflowd.schedules.rules import Interval, OnDays, Rule, explain
from cronflowd.schedules.schedule import Schedule, make_unreadable, parse_schedule
from tests.schedules.test_english import PERIODS, calendars
from tests.schedules.test_schedule_oracle import CHANGES, at, random_days, random_expression, window

EXAMPLES = int(os.environ.get("CRONFLOWD_EXAMPLES", "600"))
SEED = int(os.environ.get("CRONFLOWD_SEED", "20261121"))
ADDED_AT = datetime(2026, 11, 21, 6, 13, 17, tzinfo=UTC)

TABLE = [
    ("* * * * *", "every minute"),
    ("*/5 * * * *", "every 5 minutes between 0:00 and 23:55"),
    ("*/7 * * * *", "at every 7th minute from 0 to 56 of every hour"),
    ("0 * * * *", "every hour between 0:00 and 23:00"),
    ("30 * * * *", "every hour between 0:30 and 23:30"),
    ("*/15 9-16 * * 1-5", "every 15 minutes between 9:00 and 16:45 on weekdays"),
    ("*/15 * * * 1-5", "every 15 minutes on weekdays"),
    ("0-59/15 9-17 * * *", "at every 15th minute from 9:00 to 17:45 every day"),
    ("0-59/5 9-17 * * *", "at every 5th minute from 9:00 to 17:55 every day"),
    ("5,10,20 1,3 * * *", "every day at 1:05, 1:10, 1:20, 3:05, 3:10 and 3:20"),
    ("7,9 */2 * * *", "at minutes 7 and 9 of every 2nd hour from 0 to 22 every day"),
    ("0 9 * * *", "every day at 9:00"),
    ("0 9,17 * * mon-fri", "every weekday at 9:00 and 17:00"),
    ("0 0 * * 0", "every sunday at 0:00"),
    ("0 0 1 * *", "on the 1st of every month at 0:00"),
    ("0 0 1 1 *", "every year on the 1st of january at 0:00"),
    ("0 0 29 2 *", "at 0:00 on the 29th of february, where there is such a day"),
    ("0 0 31 * *", "at 0:00 on the 31st of every month, where there is such a day"),
    ("0 12 13 * fri", "at 12:00 on the 13th of every month, and on every friday"),
    (
        "0 12 */2 * mon",
        "at 12:00 on those of every 2nd day from the 1st to the 31st of every month that are a monday",
    ),
    (
        "0 12 13 * */2",
        "at 12:00 on those of the 13th of every month that are a tuesday, thursday, saturday or sunday",
    ),
    (
        "0 12 */2 6 mon,fri",
        "at 12:00 on those of every 2nd day from the 1st to the 31st of june that are a monday or friday",
    ),
    ("0 12 * * fri#2", "on the second friday of every month at 12:00"),
    ("0 12 * * fri#5", "at 12:00 on the fifth friday of every month, where there is such a day"),
    ("0 12 * * fri#2,fril", "on the second and last friday of every month at 12:00"),
    (
        "0 12 * * mon,fri#2,sunl",
        "at 12:00 on every monday, and on the last sunday and the second friday of every month",
    ),
    ("0 12 L * *", "on the last day of every month at 12:00"),
    ("0 12 L,15 * *", "on the 15th and last day of every month at 12:00"),
    ("0 12 15W * *", "at 12:00 on the weekday nearest to the 15th of every month"),
    (
        "0 9 31W,L 1 *",
        "at 9:00 on the weekday nearest to the 31st and the last day of january",
    ),
    ("0 9 31W * *", "at 9:00 on the weekday nearest to the 31st of every month, where there is such a day"),
    ("*/10 * 15W * *", "every 10 minutes on the weekday nearest to the 15th of every month"),
    ("0 12 1-15 * *", "at 12:00 on the 1st to the 15th of every month"),
    ("0 12 */2 * *", "at 12:00 on every 2nd day from the 1st to the 31st of every month"),
    (
        "0 12 1-3,30 * *",
        "at 12:00 on the 1st to the 3rd and the 30th of every month, where there is such a day",
    ),
    (
        "0 9 1,3,5,7,9,20 5 fri",
        "at 9:00 on every 2nd day from the 1st to the 9th and the 20th of may, and on every friday in may",
    ),
    ("* * * * * */30", "every 30 seconds"),
    ("* * * * * 7", "every minute between 0:00:07 and 23:59:07"),
    ("0 0 * * * 30", "every day at 0:00:30"),
    (
        "*/7 9,17 * * * 15,45",
        "at seconds 15 and 45 of every 7th minute from 0 to 56 of hours 9 and 17 every day",
    ),
    ("0 9 * 6 *", "every day in june at 9:00"),
    ("*/5 * * 6 *", "every 5 minutes in june"),
    ("*/7 * * 6 *", "at every 7th minute from 0 to 56 of every hour in june"),
    ("*/60 9 * * *", "at minute 0 of hour 9 every day"),
    ("0 */2 * * *", "every 2 hours between 0:00 and 22:00"),
    ("0 0-23/2 * * *", "at every 2nd hour from 0:00 to 22:00 every day"),
    ("0 0 1-31 * mon", "every day at 0:00"),
    ("@hourly", "every hour between 0:00 and 23:00"),
    ("@daily", "every day at 0:00"),
    ("@weekly", "every sunday at 0:00"),
    ("@monthly", "on the 1st of every month at 0:00"),
    ("@yearly", "every year on the 1st of january at 0:00"),
    ("@reboot", "each time the daemon starts"),
    ("@every 90s", "every 90 seconds, counted from when the task was added"),
    ("@every 1d", "every 24 hours, counted from when the task was added"),
    ("@at 2030-12-24T18:00:00Z", "once, at 2030-12-24T18:00:00Z"),
    ("every 2 weeks on friday", "every 2 weeks on friday at 0:00"),
    ("every 45 minutes", "every 45 minutes"),
    ("every 15 minutes between 0:00 and 23:45", "every 15 minutes between 0:00 and 23:45"),
    (
        "0 0 31 2 mon",
        "at 0:00 on the 31st of february, where there is such a day, and on every monday in february",
    ),
    ("1-59/2 * * * *", "every 2 minutes between 0:01 and 23:59"),
    ("0,1,2,10,20,30,40,50 * * * *", "at minutes 0 to 2 and every 10th minute from 10 to 50 of every hour"),
    ("* 9 * * *", "every minute between 9:00 and 9:59"),
    ("*/20 0-23 * * *", "every 20 minutes between 0:00 and 23:40"),
    ("59 23 31 12 5", "at 23:59 on the 31st of december, and on every friday in december"),
    ("*/10 9-17 * * mon-fri 30", "every 10 minutes between 9:00:30 and 17:50:30 on weekdays"),
    ("0 9 1-31 * *", "every day at 9:00"),
    ("0 9 29-31 * *", "at 9:00 on the 29th to the 31st of every month"),
    ("0 9 1-7 * mon", "at 9:00 on the 1st to the 7th of every month, and on every monday"),
    ("0 9 */100,1-7 * mon", "at 9:00 on those of the 1st to the 7th of every month that are a monday"),
    (
        "0 0 1,15 jan-jun *",
        "every year on the 1st and 15th of january, february, march, april, may and june at 0:00",
    ),
    ("0 22 * * 1,3,5", "every monday, wednesday and friday at 22:00"),
    ("0-29 4 * * *", "at every minute from 4:00 to 4:29 every day"),
    ("*/5 0-23 13 * 5", "every 5 minutes on the 13th of every month, and on every friday"),
    ("0 0 1 */3 *", "every year on the 1st of january, april, july and october at 0:00"),
    ("0 4 15W 1-3 *", "at 4:00 on the weekday nearest to the 15th of january, february and march"),
    ("5 4 * * sun", "every sunday at 4:05"),
    ("15 14 1 * *", "on the 1st of every month at 14:15"),
    (
        "0 0,12 1 */2 *",
        "every year on the 1st of january, march, may, july, september and november at 0:00 and 12:00",
    ),
]


@pytest.mark.parametrize(("text", "english"), TABLE, ids=[text for text, _ in TABLE])
def test_a_schedule_means_what_its_english_says(text: str, english: str) -> None:
    """Whoever wrote it reads back what it will do."""
    assert english == describe(parse_schedule(text, "Europe/Paris"))


# --- exactly so -----------------------------------------------------------------------------------


def random_text(rng: random.Random, day: datetime) -> str:
    """Expressions as people write them, and those that nobody would."""
    if rng.random() < 0.4:
        return random_expression(rng, day)
    minute = rng.choice(["0", "30", "5,35", "*/15", "*/7", "*", "0-59/10", "*/60", "10-40/10"])
    hour = rng.choice(["2", "0,2", "*", "*/2", "0-4", "1-3", "0-23/2", "*/23", "2,*"])
    days = rng.choice(["* * *", "* * 1-5", f"{day.day} * *", "* * sun", f"* * {day.isoweekday()}#5", "1 1 *"])
    second = rng.choice(["", "", "", " 7", " */20", " 0,30"])
    return f"{minute} {hour} {days if rng.random() < 0.6 else random_days(rng, day)}{second}"


def random_schedule(number: int) -> tuple[Schedule, str] | None:
    """A schedule in a zone and the day near which its clock changes; None if it never comes."""
    rng = random.Random(f"{SEED}/{number}")
    zone, day = CHANGES[number % len(CHANGES)]
    with suppress(Refusal):
        return parse_schedule(random_text(rng, at(day)), zone), day
    return None


def fires(schedule: Schedule, begin: datetime, end: datetime) -> list[datetime]:
    found, now = [], begin
    while len(found) < 200 and (after := schedule.next_after(now, begin)) and after <= end:
        found.append(after)
        now = after
    return found


def check_english(schedule: Schedule, day: str) -> bool:
    """Holds the fires of the English against the schedule's own; whether english.py reads it at all."""
    english = describe(schedule)
    try:
        rule = parse_phrase(english).rule
    except Refusal:
        return False
    assert english == explain(rule) or rule == parse_phrase(explain(rule)[:256]).rule  # 1st to the 7th
    if len(english) > 256:
        return True
    again = parse_schedule(english, schedule.tz)
    begin, end = window(day)
    assert fires(schedule, begin, end) == fires(again, begin, end), english
    assert describe_changes(schedule) == describe_changes(again) or isinstance(rule, Interval)
    for start in (begin + timedelta(days=n) for n in (0, 40, 150, 400)):
        assert schedule.next_after(start, start) == again.next_after(start, start), english
    return True


def test_english_that_is_read_back_gives_the_very_same_fires_over_clock_changes() -> None:
    """A sentence that someone types back, and that then fires a quarter of an hour off, is a lie."""
    read = 0
    for number in range(EXAMPLES):
        if made := random_schedule(number):
            try:
                read += check_english(*made)
            except AssertionError as error:
                raise AssertionError(
                    f"seed {SEED} number {number}: {made[0].text!r} in {made[0].tz}: {error}"
                ) from None
    assert read > EXAMPLES / 10


@pytest.mark.parametrize(("zone", "day"), CHANGES)
def test_the_english_of_the_table_is_no_other_schedule(zone: str, day: str) -> None:
    """The same for what people really write, at each of the clock changes."""
    for text, _ in TABLE:
        if text[0] != "@":
            check_english(parse_schedule(text, zone), day)


def test_two_texts_with_one_meaning_have_one_sentence_and_two_meanings_have_two() -> None:
    """English that leaves something out would be the same for schedules that are not."""
    said: dict[tuple[str, str], list[datetime]] = {}
    begin = at("2026-01-01")
    for number in range(EXAMPLES):
        text = random_text(random.Random(f"{SEED}/{number}"), at("2026-05-15"))
        with suppress(Refusal):
            schedule = parse_schedule(text, "Europe/Paris")
            found = fires(schedule, begin, at("2027-01-01"))
            told = describe(schedule), describe_changes(schedule)
            assert found == said.setdefault(told, found), text
    assert len(said) > EXAMPLES / 2


@given(st.one_of(PERIODS.map(Interval), calendars()))
def test_a_rule_is_told_as_it_was_before(rule: Rule) -> None:
    """A phrase keeps its own words, and its cron form is told beside them."""
    with suppress(Refusal):  # its English may be too long for a schedule
        schedule = parse_schedule(explain(rule), "UTC")
        assert explain(rule) == describe(schedule)
        for line in format_cron(schedule).split("; "):
            assert not line or describe(parse_schedule(line, "UTC"))


@given(st.text(alphabet="0123456789*/-,#LWlw MonTUEjan@everyatdil", max_size=40))
def test_whatever_is_accepted_can_be_told(text: str) -> None:
    """GET tells it of every task; it must never be the reason for an error."""
    for words in (text, f"{text} * * * *", f"0 0 {text} * *", f"0 0 * * {text}", f"@every {text}"):
        with suppress(Refusal):
            schedule = parse_schedule(words, "Europe/Paris")
            assert describe(schedule).isprintable() and describe_changes(schedule)


# --- what it counts from, and what a clock change does to it ----------------------------------------


def test_what_counts_tells_its_anchor() -> None:
    """Two tasks of the same words may fire at different times; the reader must know why."""
    told = [describe_anchor(parse_schedule(text, "UTC")) for text in (
        "@every 90s", "every 45 minutes", "*/5 * * * *", "@reboot")]  # fmt: skip
    assert [
        "counted from the second at which the task was added",
        "counted from midnight on the day the task was added",
        "",
        "",
    ] == told


FIXED = (
    "a jump of up to 3 hours: what it passes over runs right after it; what comes twice runs the first time"
)
WILDCARD = "it follows real time: what is jumped over does not come, and what comes twice runs twice"
EVEN = "nothing changes: the time between two runs stays the same"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("30 2 * * *", FIXED),
        ("30 2 */2 * *", FIXED),  # the day's star changes nothing
        ("*/30 2 * * *", WILDCARD),
        ("30 * * * *", WILDCARD),
        ("@hourly", WILDCARD),
        ("@daily", FIXED),
        ("daily at 2:30", FIXED),
        ("every 2 weeks on sunday at 2:30", FIXED),
        ("every 15 minutes between 1:00 and 4:00", WILDCARD),
        ("every 15 minutes", EVEN),
        ("@every 1d", EVEN),
        ("@at 2030-01-01T00:00:00Z", "nothing changes"),
        ("@reboot", "nothing changes"),
    ],
)
def test_what_a_clock_change_does_is_told(text: str, told: str) -> None:
    """It is asked before the night when it matters."""
    assert told == describe_changes(parse_schedule(text, "Europe/Paris"))


def test_a_macro_has_a_cron_form_and_fields_are_one_already() -> None:
    """A row that repeats the schedule would tell nothing."""
    told = [format_cron(parse_schedule(text, "UTC")) for text in (
        "@weekly", "0 0 * * 0", "every 15 minutes between 9:00 and 17:00", "@every 1m")]  # fmt: skip
    assert ["0 0 * * 0", "", "*/15 9-16 * * *; 0 17 * * *", ""] == told


def test_a_schedule_that_cannot_be_read_any_more_says_so() -> None:
    """GET of such a task must still answer."""
    schedule = make_unreadable("every blue moon")
    assert "nothing that can be read any more; it is never due" == describe(schedule)
    assert ("", "", "nothing changes") == (
        describe_anchor(schedule),
        format_cron(schedule),
        describe_changes(schedule),
    )


def test_all_of_a_day_between_its_ends_is_no_interval() -> None:
    """Told as `every 15 minutes` it would be read back as one, and not follow the clock."""
    rule = OnDays(range(0, 86_400, 900))
    assert "every 15 minutes between 0:00 and 23:45" == explain(rule)
    assert rule == parse_phrase(explain(rule)).rule
