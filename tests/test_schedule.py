"""Schedules: the right instants in every zone, and a refusal that says why."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cronflowd import zones
from cronflowd.errors import Refusal
from cronflowd.schedule import parse_schedule, reload_zones, split_schedule
from cronflowd.zones import parse_zone
from tests import cron_oracle

PROBES = int(os.environ.get("CRONFLOWD_PROBES", "2000"))
SEED = int(os.environ.get("CRONFLOWD_SEED", "20261121"))

ANCHOR_AT = datetime(2026, 1, 1, tzinfo=UTC)

# A zone and a day of UTC within which, or near which, its clock changes, and how.
CHANGES = [
    ("Europe/Paris", "2026-03-29"),
    ("Europe/Paris", "2026-10-25"),
    ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"),
    ("Australia/Lord_Howe", "2026-04-04"),  # half an hour back
    ("Australia/Lord_Howe", "2026-10-03"),  # half an hour forward
    ("Pacific/Apia", "2011-12-30"),  # a whole day that never was
    ("Pacific/Kwajalein", "1993-08-21"),  # another
    ("Pacific/Kwajalein", "1969-09-30"),  # 23 hours twice
    ("Asia/Tehran", "2022-03-21"),  # at midnight
    ("Asia/Tehran", "2022-09-21"),
    ("Africa/Casablanca", "2026-02-15"),  # for Ramadan
    ("Africa/Casablanca", "2026-03-22"),
    ("America/Santiago", "2026-04-05"),
    ("America/Santiago", "2026-09-06"),
    ("Africa/Cairo", "2026-04-23"),
    ("Africa/Cairo", "2026-10-29"),
    ("America/Sao_Paulo", "2018-11-04"),
    ("America/Sao_Paulo", "2018-02-18"),
    ("Asia/Beirut", "2026-03-28"),
    ("America/Havana", "2026-11-01"),
    ("Antarctica/Troll", "2026-03-29"),  # two hours
    ("Antarctica/Troll", "2026-10-25"),
    ("Antarctica/Casey", "2009-10-17"),  # three hours forward
    ("Antarctica/Casey", "2010-03-04"),  # three hours back
    ("Antarctica/Casey", "2020-10-03"),  # three hours at one minute past midnight
    ("Pacific/Chatham", "2026-04-04"),  # at 03:45
    ("Pacific/Chatham", "2026-09-26"),  # at 02:45
    ("Asia/Kathmandu", "1985-12-31"),  # a quarter of an hour
    ("Asia/Pyongyang", "2015-08-14"),
    ("Asia/Pyongyang", "2018-05-04"),
    ("America/Caracas", "2007-12-09"),
    ("America/St_Johns", "2006-04-02"),  # at 00:01
    ("America/St_Johns", "2006-10-29"),
    ("Europe/Dublin", "2026-10-25"),
    ("America/Nuuk", "2024-03-31"),
    ("Europe/Volgograd", "2020-12-26"),
    ("Asia/Gaza", "2021-03-26"),
    ("UTC", "2026-03-29"),
    ("Asia/Kolkata", "2026-12-31"),
]
NIGHT_BEFORE, NIGHT_AFTER = timedelta(hours=30), timedelta(hours=54)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def window(day: str) -> tuple[datetime, datetime]:
    return at(day) - NIGHT_BEFORE, at(day) + NIGHT_AFTER


def refusal_of(text: str) -> str:
    with pytest.raises(Refusal) as caught:
        parse_schedule(text, "UTC")
    assert caught.value.code == "bad-schedule"
    return caught.value.message


# --- against the model of cron's loop ---------------------------------------------------


def random_field(rng: random.Random, low: int, high: int, names: list[str], likely: list[int]) -> str:
    """A field's text; hours and days near the clock change are likelier than others."""

    def number() -> int:
        return rng.choice(likely) if rng.random() < 0.6 else rng.randint(low, high)

    def word(n: int) -> str:
        name = names[n] if n < len(names) else ""
        return rng.choice([name, name.upper(), name.title()]) if name and rng.random() < 0.3 else str(n)

    def item() -> str:
        kind = rng.random()
        if kind < 0.45:
            return word(number())
        if kind < 0.6:
            return rng.choice(["*", f"*/{rng.randint(1, high)}", f"*/{rng.randint(1, 5)}"])
        first, last = sorted((number(), rng.randint(low, high)))
        if rng.random() < 0.15:
            last = first
        step = f"/{rng.randint(1, 9)}" if rng.random() < 0.4 else ""
        return f"{word(first)}-{word(last)}{step}"

    return "*" if rng.random() < 0.25 else ",".join(item() for _ in range(rng.choice([1, 1, 1, 1, 2, 3])))


def random_days(rng: random.Random, day: datetime) -> str:
    """Day of month, month and day of week."""
    near = [(day + timedelta(days=n)).day for n in (-1, 0, 0, 0, 1)]
    weekdays = [(day + timedelta(days=n)).isoweekday() % 7 for n in (-1, 0, 0, 0, 1)]
    month = rng.choice(["*", "*", str(day.month), f"*/{rng.randint(1, 4)}", "JAN-dec", f"1-{day.month}"])
    shape = rng.random()
    if shape < 0.3:
        return f"* {month} *"
    if shape < 0.4:
        dom = rng.choice(["L", "l", f"{rng.choice(near)}W", f"L,{rng.choice(near)}", "1W,15w,31W"])
        return f"{dom} {month} *"
    if shape < 0.5:
        d = rng.choice(weekdays)
        n = (day.day - 1) // 7 + 1
        return f"* {month} " + rng.choice(
            [f"{d}#{n}", f"{d}L", f"{cron_oracle.WEEKDAYS[d]}l", f"{d}#1,{d}#{n}"]
        )
    dom = random_field(rng, 1, 31, [], near)
    dow = random_field(rng, 0, 7, cron_oracle.WEEKDAYS, weekdays)
    return f"{dom} {month} {dow}"


def random_expression(rng: random.Random, day: datetime) -> str:
    minute = random_field(rng, 0, 59, [], [0, 1, 15, 30, 45, 59])
    hour = random_field(rng, 0, 23, [], [0, 1, 2, 3, 4, 23])
    return f"{minute} {hour} {random_days(rng, day)}"


def check_probe(expression: str, zone: str, day: str, rng: random.Random, tick_s: int = 60) -> int:
    """Holds one expression against the model from a random start; returns how many fires were compared."""
    begin, end = window(day)
    try:
        schedule = parse_schedule(expression, zone)
    except Refusal as refusal:
        # Only what can never come is refused; the model must agree for as long as it looks.
        assert "never comes" in refusal.message
        assert [] == cron_oracle.fires(expression, zone, begin, end, tick_s)
        return 0
    start = begin + timedelta(hours=6, seconds=rng.randrange(60 * 3600))
    if rng.random() < 0.3:
        start = start.replace(minute=0, second=0)
    model = [fire for fire in cron_oracle.fires(expression, zone, begin, end, tick_s) if fire.utc > start]
    instants = sorted({fire.utc for fire in model if fire.remark != "skipped"})
    close_at = end - timedelta(seconds=tick_s)

    walked, now = [], start
    for _ in range(min(len(instants), 300)):
        found = schedule.next_after(now, ANCHOR_AT)
        assert found is not None and found > now
        walked.append(found)
        now = found
    assert instants[:300] == walked
    if len(instants) <= 300:
        beyond = schedule.next_after(now, ANCHOR_AT)
        assert beyond is None or beyond > close_at

    assert len(instants) == schedule.count(start, close_at, ANCHOR_AT)
    assert (instants[-1] if instants else None) == schedule.latest(start, close_at, ANCHOR_AT)
    shown = model[:60]
    assert shown == schedule.preview(start, len(shown), ANCHOR_AT)

    for _ in range(3):
        fresh = start + (close_at - start) * rng.random()
        index = bisect_right(instants, fresh)
        if index < len(instants):
            assert instants[index] == schedule.next_after(fresh, ANCHOR_AT)
            assert len(instants) - index == schedule.count(fresh, close_at, ANCHOR_AT)
        before = instants[index - 1] if index else None
        assert before == schedule.latest(start, fresh, ANCHOR_AT)
        assert index == schedule.count(start, fresh, ANCHOR_AT)
    return len(instants)


def test_random_expressions_fire_as_crons_loop_fires_them_around_clock_changes() -> None:
    """The one promise of a scheduler: when. The model and the schedule share no code."""
    compared = 0
    for probe in range(PROBES):
        rng = random.Random(f"{SEED}/{probe}")
        zone, day = CHANGES[probe % len(CHANGES)]
        expression = random_expression(rng, at(day))
        try:
            compared += check_probe(expression, zone, day, rng)
        except AssertionError as error:
            raise AssertionError(
                f"seed {SEED} probe {probe}: {expression!r} in {zone} near {day}: {error}"
            ) from None
    print(f"{PROBES} probes, {compared} fires, seed {SEED}: no disagreement")
    assert compared > PROBES


@pytest.mark.parametrize(
    "expression", ["*/5 2 * * * 0,30", "30 2 * * * */20", "0-59/7 0-4 * * * 59", "* * * * * 10"]
)
@pytest.mark.parametrize(
    ("zone", "day"),
    [("Europe/Paris", "2026-03-29"), ("Europe/Paris", "2026-10-25"), ("Australia/Lord_Howe", "2026-04-04")],
)
def test_six_fields_fire_to_the_second_around_clock_changes(expression: str, zone: str, day: str) -> None:
    """Seconds come last and obey the same rules; the model then ticks by ten seconds or less."""
    expression = expression.replace("59", "50") if expression.endswith("59") else expression
    assert check_probe(expression, zone, day, random.Random(expression + day), tick_s=10) >= 0


def test_the_model_knows_its_own_clock_changes() -> None:
    """A window without its clock change would make every probe in it worthless."""
    for zone, day in CHANGES:
        begin, end = window(day)
        ticks = cron_oracle.ticks(zone, begin, end)
        changes = sum(
            a.utc - a.wall.replace(tzinfo=UTC) != b.utc - b.wall.replace(tzinfo=UTC)
            for a, b in pairwise(ticks)
        )
        assert changes == (0 if zone in ("UTC", "Asia/Kolkata") else 1), (zone, day)


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
    """The table of protocol.md, written out by hand, so that model and schedule cannot err together."""
    shown = parse_schedule(expression, zone).preview(at(start), len(rows), ANCHOR_AT)
    assert rows == [f"{local} {remark}" for local, _, remark in shown]
    assert all(datetime.fromisoformat(local) == utc for local, utc, remark in shown if remark != "skipped")


def test_moments_moved_to_one_instant_are_one_fire() -> None:
    """next_after must be strictly increasing, so a task cannot be due twice at one instant."""
    schedule = parse_schedule("0,30 2,3 * * *", "Europe/Paris")
    before, leap = at("2026-03-28T12:00"), at("2026-03-29T01:00")
    assert leap == schedule.next_after(before, ANCHOR_AT)
    assert at("2026-03-29T01:30") == schedule.next_after(leap, ANCHOR_AT)
    assert schedule.count(before, leap, ANCHOR_AT) == 1


def test_a_restart_in_the_repeated_hour_does_not_repeat_a_fixed_task() -> None:
    """The state that Debian's cron keeps in its process is a function of the zone alone here."""
    schedule = parse_schedule("30 2 * * *", "Europe/Paris")
    second_pass = at("2026-10-25T01:10")
    assert at("2026-10-26T01:30") == schedule.next_after(second_pass, ANCHOR_AT)
    assert schedule.latest(at("2026-10-25T01:00"), at("2026-10-25T02:00"), ANCHOR_AT) is None


@pytest.mark.parametrize("block_s", [1800, 5400, 86_400])
@pytest.mark.parametrize(
    ("zone", "day"),
    [("Europe/Paris", "2026-10-25"), ("Antarctica/Casey", "2010-03-04"), ("Pacific/Apia", "2011-12-30")],
)
def test_it_does_not_matter_where_the_blocks_are_cut(
    zone: str, day: str, block_s: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A zone is loaded in blocks; a cut inside a repeated hour must not make it forget the first pass."""
    monkeypatch.setattr(zones.Zone, "BLOCK_S", block_s)
    reload_zones()
    for expression in ("30 2 * * *", "15 0-5 * * *", "*/20 * * * *", "0,59 1,23 * * *"):
        assert check_probe(expression, zone, day, random.Random(expression)) > 0
    reload_zones()


def test_random_days_are_the_models_days_through_whole_years() -> None:
    """Month ends, leap days and the fifth Monday are far from most clock changes."""
    for probe in range(max(200, PROBES // 10)):
        rng = random.Random(f"{SEED}/days/{probe}")
        first = at(f"{rng.randint(1970, 2100)}-01-01") + timedelta(days=rng.randrange(365))
        expression = "0 0 " + random_days(rng, first)
        try:
            schedule = parse_schedule(expression, "UTC")
        except Refusal:
            continue
        match = cron_oracle.Matcher(expression.lower().split())
        days = [day for n in range(1, 400) if match((day := first + timedelta(days=n)).replace(tzinfo=None))]
        last = first + timedelta(days=400, seconds=-1)
        told = f"seed {SEED} days {probe}: {expression!r} from {first}"
        assert days == [row[1] for row in schedule.preview(first, len(days), ANCHOR_AT)], told
        assert len(days) == schedule.count(first, last, ANCHOR_AT), told
        assert (days[-1] if days else None) == schedule.latest(first, last, ANCHOR_AT), told


def test_the_nearest_weekday_stays_in_its_month() -> None:
    """31W of a month that ends on a Sunday is the Friday before it, 1W on a Saturday the Monday after."""
    shown = parse_schedule("0 0 1W,31W * *", "UTC").preview(at("2026-05-30"), 3, ANCHOR_AT)
    assert [at("2026-06-01"), at("2026-07-01"), at("2026-07-31")] == [utc for _, utc, _ in shown]
    assert at("2026-05-29") == parse_schedule("0 0 31W * *", "UTC").next_after(at("2026-05-02"), ANCHOR_AT)
    assert at("2026-08-03") == parse_schedule("0 0 1W * *", "UTC").next_after(at("2026-07-31"), ANCHOR_AT)


# --- what is accepted, and what refused ---------------------------------------------------

# What `crontab -n` of Debian's cron 3.0pl1-162 says, and what we say. Where they differ, Debian
# skips characters it did not understand, or never looks whether a date exists.
VERDICTS = [
    ("* * * * *", True, True),
    ("*/90 * * * *", True, True),
    ("*/0 * * * *", False, False),
    ("5-5 * * * *", True, True),
    ("22-2 * * * *", True, False),
    ("*5 * * * *", True, False),
    ("5/15 * * * *", False, False),
    ("60 * * * *", False, False),
    ("* * * * 8", False, False),
    ("* * * * 7", True, True),
    ("* * 0 * *", False, False),
    ("* * 32 * *", False, False),
    ("0 0 30 2 *", True, False),
    ("* * * * mon-fri", True, True),
    ("* * * * Mon,wed", True, True),
    ("* * * * fri-sun", True, False),
    ("* * * * sun-mon", True, True),
    ("* * * * mon-7", True, True),
    ("* * * * monday", False, False),
    ("* * * JAN-mar *", True, True),
    ("* * * 13 *", False, False),
    ("* * L * *", False, True),
    ("* * * * 5L", False, True),
    ("* * * * 1#2", True, True),
    ("* * 15W * *", False, True),
    ("? * * * *", False, False),
    ("*,5 * * * *", True, True),
    ("5, * * * *", False, False),
    ("1,,2 * * * *", False, False),
    ("1- * * * *", False, False),
    ("-5 * * * *", False, False),
    ("1-5/ * * * *", False, False),
    ("1-5/0 * * * *", False, False),
    ("1-5/100 * * * *", True, True),
    ("1-3-5 * * * *", True, False),
    ("1-5/2/3 * * * *", True, False),
    ("005 * * * *", True, True),
    ("*-5 * * * *", True, False),
    ("5.5 * * * *", True, False),
    ("*/2,*/3 * * * *", True, True),
    ("1~5 * * * *", True, False),
    ("* * mon * *", False, False),
    ("@daily", True, True),
    ("@midnight", True, True),
    ("@annually", True, True),
    ("@Daily", False, False),
    ("@fortnightly", False, False),
    ("@every 90s", False, True),
    ("R * * * *", False, False),
]


def accepts(text: str) -> bool:
    try:
        parse_schedule(text, "Europe/Paris")
    except Refusal:
        return False
    return True


@pytest.mark.parametrize(("text", "debian", "ours"), VERDICTS)
def test_accept_and_refuse_verdicts(text: str, debian: bool, ours: bool) -> None:
    """Stricter than Debian only where Debian guesses; wider only by the words of protocol.md."""
    assert ours == accepts(text)


def crontab_says(directory: Path, text: str) -> bool:
    file = directory / "crontab"
    file.write_text(f"{text} true\n")
    return subprocess.run(["crontab", "-n", str(file)], capture_output=True, check=False).returncode == 0


def test_the_debian_verdicts_are_those_of_the_crontab_installed_here(tmp_path: Path) -> None:
    """The table above is only worth something if it says what Debian's crontab says."""
    if not shutil.which("crontab") or not crontab_says(tmp_path, "* * * * *"):
        pytest.skip("no Debian crontab here")
    assert {text: debian for text, debian, _ in VERDICTS} == {
        text: crontab_says(tmp_path, text) for text, _, _ in VERDICTS
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("61 * * * *", 'minute field "61": 61 is not in 0-59'),
        ("0 1,24 * * *", 'hour field "1,24": 24 is not in 0-23'),
        ("0 0 0 * *", 'day-of-month field "0": 0 is not in 1-31'),
        ("0 0 1 13 *", 'month field "13": 13 is not in 1-12'),
        ("0 0 * * 8", 'day-of-week field "8": 8 is not in 0-7'),
        ("0 0 * * * 60", 'second field "60": 60 is not in 0-59'),
        ("? 0 1 * *", 'minute field "?": "?" is not cron; write *'),
        ("0 22-2 * * *", 'hour field "22-2": the range "22-2" runs backwards'),
        ("5/15 * * * *", 'minute field "5/15": a step needs * or a range before it, as in 5-59/15'),
        ("0 0 30 2 *", 'day-of-month field "30": it never comes in month "2", which has 29 days at most'),
        ("0 0 31 4,6 *", 'day-of-month field "31": it never comes in month "4,6", which has 30 days at most'),
        ("0 0 30W 2 *", 'day-of-month field "30W": it never comes in month "2", which has 29 days at most'),
        ("0 0 30 2 */2", 'day-of-month field "30": it never comes in month "2", which has 29 days at most'),
        ("* * L * 1", 'day-of-month field "L": L and W need * as day of week, not "1"'),
        ("* * 1 * 1#2", 'day-of-week field "1#2": # and L need * as day of month, not "1"'),
        ("* * */2 * 5L", 'day-of-week field "5L": # and L need * as day of month, not "*/2"'),
        ("* * * * 1#6", 'day-of-week field "1#6": 6 in "1#6" is not in 1-5'),
        ("x" * 257, "the schedule is longer than 256 bytes"),
    ],
)
def test_a_refusal_names_the_field_the_word_and_the_reason(text: str, message: str) -> None:
    """Whoever typed the line must see what to mend without a manual."""
    assert message == refusal_of(text)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "0 fields"),
        ("* * * *", "4 fields"),
        ("0 0 1 1 * 0 2026", "never a year"),
        ("0\u00a00 * * * *", "minute field"),
        ("\u0665 * * * *", "minute field"),  # an Arabic five is a digit to Python
        ("* * * * L", "day-of-week field"),
        ("0 0 L, * *", "beside a comma"),
        ("0 0 * * ,5L", "beside a comma"),
        ("biweekly", "twice a week or every 2 weeks"),
        ("in 10 minutes", "it counts from now"),
        ("@after", "not in this release"),
        ("@every", "@every needs a duration"),
        ("@every 0s", "at least 1s"),
        ("@every 250ms", "whole seconds"),
        ("@every 1h 30m", "duration"),
        ("@every fast", "duration"),
        ("@daily 5", "nothing may follow"),
        ("@at", "@at needs a time"),
        ("@at tomorrow", "write 2026-12-24T18:00:00Z"),
        ("@at 2026-02-30T00:00:00Z", "day"),
    ],
)  # fmt: skip
def test_other_refusals_say_what_is_wrong(text: str, part: str) -> None:
    """Words that this release does not have are told apart from mistakes."""
    assert part in refusal_of(text)


def test_refusing_takes_well_under_a_millisecond() -> None:
    """A stream of bad lines must not cost more than a stream of good ones."""
    text = "0 0 " + ",".join(["30"] * 80) + " 2 *"
    refusal_of(text)
    best = min(_timed(lambda: refusal_of(text)) for _ in range(5))
    assert best < 0.001


def _timed(call) -> float:  # type: ignore[no-untyped-def]
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


@given(st.text(alphabet="0123456789*/-,#LWlw?RmonTUEjan @\t\"'.", max_size=40))
def test_any_text_is_a_schedule_or_a_refusal(text: str) -> None:
    """No text may bring down a daemon that reads a hand-edited file."""
    try:
        schedule = parse_schedule(text, "Europe/Paris")
    except Refusal as refusal:
        assert refusal.code == "bad-schedule"
    else:
        found = schedule.next_after(ANCHOR_AT, ANCHOR_AT)
        assert found is None or found > ANCHOR_AT


def test_a_step_or_range_expands_as_cron_expands_it() -> None:
    """croniter does the sets; this holds it to the plain definition, value by value."""
    for low, high, place in [(0, 59, 0), (0, 23, 1), (1, 31, 2), (1, 12, 3), (0, 7, 4)]:
        for first in range(low, high + 1):
            for last in range(first, high + 1, 3):
                for step in (1, 2, 5, 7, 90):
                    words = ["*"] * 5
                    words[place] = f"{first}-{last}/{step}"
                    fields = parse_schedule(" ".join(words), "UTC").fields  # type: ignore[attr-defined]
                    masks = (
                        fields.minutes,
                        fields.hours,
                        fields.days.dom,
                        fields.days.months,
                        fields.days.dow,
                    )
                    wanted = {n % 7 if place == 4 else n for n in range(first, last + 1, step)}
                    assert wanted == {n for n in range(64) if masks[place] >> n & 1}, words


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
        assert schedule.next_after(moment, ANCHOR_AT) is None
        assert moment == schedule.latest(ANCHOR_AT, moment, ANCHOR_AT)
        assert schedule.count(ANCHOR_AT, moment, ANCHOR_AT) == 1
        assert schedule.count(moment, moment + timedelta(days=1), ANCHOR_AT) == 0
        assert [("2026-12-24T18:00:00+01:00", moment, "")] == schedule.preview(ANCHOR_AT, 5, ANCHOR_AT)


def test_reboot_has_no_moment_of_its_own() -> None:
    """Only the daemon knows when it starts."""
    schedule = parse_schedule("@reboot", "UTC")
    assert schedule.kind == "reboot"
    assert schedule.next_after(ANCHOR_AT, ANCHOR_AT) is None
    assert schedule.preview(ANCHOR_AT, 5, ANCHOR_AT) == []
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
        assert a.preview(at("2026-10-24"), 5, ANCHOR_AT) == b.preview(at("2026-10-24"), 5, ANCHOR_AT)


def test_rare_days_are_found_and_impossible_ones_end_the_search() -> None:
    """29 February on a Monday is 28 years or more away; a search must neither miss it nor run on."""
    leap_monday = parse_schedule("0 0 * 2 1#5", "Europe/Paris")
    assert at("2044-02-28T23:00") == leap_monday.next_after(ANCHOR_AT, ANCHOR_AT)
    assert at("2016-02-28T23:00") == leap_monday.latest(at("1990-01-01"), ANCHOR_AT, ANCHOR_AT)
    # A wildcard in the hour that is always jumped over: nobody sees that from the fields alone.
    assert parse_schedule("* 2 * 3 0L", "Europe/Paris").next_after(ANCHOR_AT, ANCHOR_AT) is None
    assert parse_schedule("0 0 * * *", "UTC").next_after(datetime.max.replace(tzinfo=UTC), ANCHOR_AT) is None
    assert (
        parse_schedule("0 0 * * *", "UTC").next_after(datetime.min.replace(tzinfo=UTC), ANCHOR_AT) is not None
    )


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


def test_next_is_quick() -> None:
    """20 us is the aim; the bound leaves room for a slow and busy machine."""
    schedule = parse_schedule("*/10 8-18 * * 1-5", "Europe/Paris")
    starts = [ANCHOR_AT + timedelta(minutes=n * 97) for n in range(2000)]

    def run() -> None:
        for start in starts:
            schedule.next_after(start, ANCHOR_AT)

    assert min(_timed(run) for _ in range(3)) / len(starts) < 100e-6


def test_unknown_zones_are_refused() -> None:
    """A zone name comes from clients and must never reach out of the zone directory."""
    for name in (
        "Mars/Olympus",
        "",
        "../../etc/passwd",
        "/etc/passwd",
        "Europe",
        "\x00",
        "tzdata.zi",
        "é" * 300,
    ):
        with pytest.raises(Refusal) as caught:
            parse_zone(name)
        assert caught.value.code == "bad-option"
    parse_zone("Europe/Paris")


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
