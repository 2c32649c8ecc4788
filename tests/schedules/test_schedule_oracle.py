"""Schedules against the model of cron's loop (cron_oracle.py): random expressions around clock changes."""

from __future__ import annotations

import os
import random
from bisect import bisect_right
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from cronflowd.base.errors import Refusal
from cronflowd.schedules import zones
from cronflowd.schedules.schedule import parse_schedule, reload_zones
from tests.lib import cron_oracle
from tests.lib.rows import first_rows

PROBES = int(os.environ.get("CRONFLOWD_PROBES", "1000"))
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


# --- around clock changes ---------------------------------------------------------------


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
    moments = [fire.utc for fire in model if fire.remark != "skipped"]
    times, instants = Counter(moments), sorted(set(moments))
    close_at = end - timedelta(seconds=tick_s)

    walked, now = [], start
    for _ in range(min(len(instants), 300)):
        found = schedule.next_after(now, ANCHOR_AT)
        assert found is not None and found > now
        walked.append(found)
        now = found
    assert instants[:300] == walked
    assert [times[found] for found in walked] == [schedule.times_at(found, ANCHOR_AT) for found in walked]
    if len(instants) <= 300:
        beyond = schedule.next_after(now, ANCHOR_AT)
        assert beyond is None or beyond > close_at

    assert len(moments) == schedule.count(start, close_at, ANCHOR_AT)
    assert (instants[-1] if instants else None) == schedule.latest(start, close_at, ANCHOR_AT)
    shown = model[:60]
    assert shown == first_rows(schedule, start, len(shown), ANCHOR_AT)

    for _ in range(3):
        fresh = start + (close_at - start) * rng.random()
        index = bisect_right(instants, fresh)
        if index < len(instants):
            assert instants[index] == schedule.next_after(fresh, ANCHOR_AT)
        before = instants[index - 1] if index else None
        assert before == schedule.latest(start, fresh, ANCHOR_AT)
        passed = bisect_right(moments, fresh)
        assert passed == schedule.count(start, fresh, ANCHOR_AT)
        assert len(moments) - passed == schedule.count(fresh, close_at, ANCHOR_AT)
    return len(moments)


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
        assert days == [row[1] for row in first_rows(schedule, first, len(days), ANCHOR_AT)], told
        assert len(days) == schedule.count(first, last, ANCHOR_AT), told
        assert (days[-1] if days else None) == schedule.latest(first, last, ANCHOR_AT), told
