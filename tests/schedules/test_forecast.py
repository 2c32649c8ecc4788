"""Seeing ahead, held against the plainest way of doing it: look at every minute, and at both clocks."""

from __future__ import annotations

import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from importlib import resources
from itertools import pairwise, repeat
from pathlib import Path
from time import perf_counter
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest
import trio

from cronflowd.base.errors import Refusal
from cronflowd.daemon import turns as by_turns
from cronflowd.daemon.turns import SLICE_S, gather
from cronflowd.schedules import forecast, zones
from cronflowd.schedules.forecast import Change, ClockChanges, Comparison, Difference, Moment
from cronflowd.schedules.schedule import Schedule, parse_schedule
from cronflowd.schedules.zones import Zone, read_zones
from tests.lib import cron_oracle
from tests.lib.harness import play
from tests.schedules.test_schedule_oracle import ANCHOR_AT, CHANGES, at, random_expression, window

EXAMPLES = int(os.environ.get("CRONFLOWD_EXAMPLES", "300"))
SEED = int(os.environ.get("CRONFLOWD_SEED", "20261121"))
MINUTE = timedelta(minutes=1)


class Told(NamedTuple):
    """A row of DST."""

    change: datetime
    what: str
    old: str
    new: str | None


def told(text: str, zone: str, day: str) -> list[Told]:
    begin, end = window(day)
    changes = ClockChanges(begin, end).of(parse_schedule(text, zone), ANCHOR_AT)
    return [row(change) for change in changes if change]


def row(change: Change) -> Told:
    return Told(change.at, change.what, str(change.old), str(change.new) if change.new else None)


# --- clock changes, minute by minute --------------------------------------------------------------


def model(expression: str, zone: str, day: str) -> Iterator[Told]:
    """What DST must tell: each wall time around a change by the clock as it was, and as it is."""
    words = expression.lower().split()
    match = cron_oracle.Matcher(words)
    wildcard = words[0][0] == "*" or words[1][0] == "*"
    ticks = cron_oracle.ticks(zone, *window(day))
    walls = {tick.utc: tick.wall for tick in ticks}
    seen = Counter(walls.values())
    served = defaultdict(list)
    for tick in ticks:
        for wall in [tick.wall] if wildcard else tick.fixed:
            served[wall].append(tick.utc)
    changes = [
        (new.utc, old.wall - naive(old.utc), new.wall - naive(new.utc))
        for old, new in pairwise(ticks)
        if new.wall - old.wall != MINUTE
    ]
    for change, before, after in changes:
        wall = min(naive(change) + before, naive(change) + after)
        end = max(naive(change) + before, naive(change) + after)
        while wall < end:
            first, second = (wall - offset for offset in (before, after))
            if match(wall) and seen[wall] == 0:
                runs_anyway = wildcard and match(walls[first.replace(tzinfo=UTC)])
                if served[wall]:
                    assert not wildcard
                    there = local(naive(served[wall][0]), after)
                    yield Told(change, "moved", local(first, before), there)
                elif not runs_anyway:
                    yield Told(change, "skipped", local(first, before), None)
            elif match(wall) and seen[wall] == 2:
                if len(served[wall]) == 1:
                    yield Told(change, "once", local(second, after), local(first, before))
                elif not (wildcard and match(second + before)):
                    yield Told(change, "doubled", local(first, before), local(second, after))
            wall += MINUTE


def naive(utc: datetime) -> datetime:
    return utc.replace(tzinfo=None)


def local(utc: datetime, offset: timedelta) -> str:
    return (utc + offset).replace(tzinfo=timezone(offset)).isoformat()


def test_dst_tells_what_a_look_at_every_minute_tells() -> None:
    """What is told must happen, and nothing else may: around every change, for any expression."""
    rng = random.Random(SEED)
    kinds: Counter[str] = Counter()
    for _ in range(EXAMPLES):
        zone, day = rng.choice(CHANGES)
        expression = random_expression(rng, at(day))
        try:
            found = told(expression, zone, day)
        except Refusal:
            continue
        assert found == list(model(expression, zone, day)), (expression, zone, day)
        kinds.update(one.what for one in found)
    print(f"\nDST: {EXAMPLES} expressions, seed {SEED}: {dict(kinds)}")
    assert min(kinds[what] for what in ("moved", "skipped", "once", "doubled")) > 0


PARIS, NEW_YORK, LORD_HOWE = "Europe/Paris", "America/New_York", "Australia/Lord_Howe"


@pytest.mark.parametrize(
    ("text", "zone", "day", "expected"),
    [
        ("30 2 * * *", PARIS, "2026-03-29", [("moved", "02:30:00+01:00", "03:00:00+02:00")]),
        ("30 2 * * *", PARIS, "2026-10-25", [("once", "02:30:00+01:00", "02:30:00+02:00")]),
        ("30 1 * * *", NEW_YORK, "2026-11-01", [("once", "01:30:00-05:00", "01:30:00-04:00")]),
        ("*/30 2 * * *", PARIS, "2026-03-29",
         [("skipped", "02:00:00+01:00", None), ("skipped", "02:30:00+01:00", None)]),
        ("*/30 1 * * *", NEW_YORK, "2026-11-01",
         [("doubled", "01:00:00-04:00", "01:00:00-05:00"), ("doubled", "01:30:00-04:00", "01:30:00-05:00")]),
        ("0 * * * *", PARIS, "2026-03-29", []),
        ("0 * * * *", PARIS, "2026-10-25", []),
        ("0 * * * *", LORD_HOWE, "2026-10-03", [("skipped", "02:00:00+10:30", None)]),
        ("*/30 * * * *", LORD_HOWE, "2026-10-03", []),
        ("45 * * * *", LORD_HOWE, "2026-04-04", [("doubled", "01:45:00+11:00", "01:45:00+10:30")]),
        ("15 2 * * *", LORD_HOWE, "2026-10-03", [("moved", "02:15:00+10:30", "02:30:00+11:00")]),
        ("0 12 * * *", "Pacific/Apia", "2011-12-30", [("skipped", "12:00:00-10:00", None)]),
        ("0 * * * *", "Pacific/Apia", "2011-12-30", []),
        ("30 1 * * *", "Antarctica/Troll", "2026-03-29", [("moved", "01:30:00+00:00", "03:00:00+02:00")]),
        ("0 0 * * *", "America/Santiago", "2026-09-06", [("moved", "00:00:00-04:00", "01:00:00-03:00")]),
        ("30 2 * * *", "Africa/Casablanca", "2026-02-15", [("once", "02:30:00+00:00", "02:30:00+01:00")]),
        ("15 0 * * *", "Africa/Cairo", "2026-04-23", [("moved", "00:15:00+02:00", "01:00:00+03:00")]),
        ("* * * * *", "UTC", "2026-03-29", []),
        ("daily at 2:30 AM", PARIS, "2026-03-29", [("moved", "02:30:00+01:00", "03:00:00+02:00")]),
        ("every 3 days at 2:30", PARIS, "2026-03-29", [("moved", "02:30:00+01:00", "03:00:00+02:00")]),
        ("every 20 minutes between 2:00 and 2:20", PARIS, "2026-03-29",
         [("skipped", "02:00:00+01:00", None), ("skipped", "02:20:00+01:00", None)]),
        ("every 45 minutes", PARIS, "2026-03-29", []),
        ("@every 45m", PARIS, "2026-03-29", []),
        ('@at "2026-03-29 02:30"', PARIS, "2026-03-29", []),
        ("@reboot", PARIS, "2026-03-29", []),
    ],
)  # fmt: skip
def test_what_a_change_does(
    text: str, zone: str, day: str, expected: list[tuple[str, str, str | None]]
) -> None:
    """The cases that people ask about."""
    found = told(text, zone, day)
    assert [(one.what, one.old[11:], one.new and one.new[11:]) for one in found] == expected


def test_schedules_that_are_asked_about_twice_are_told_twice() -> None:
    """Work is shared between tasks, and no row gets lost by it."""
    begin, end = at("2026-01-01"), at("2028-01-01")
    ahead, schedule = ClockChanges(begin, end), parse_schedule("30 2 * * *", PARIS)
    first, again = ([c for c in ahead.of(schedule, ANCHOR_AT) if c] for _ in range(2))
    assert [change.what for change in first] == ["moved", "once", "moved", "once"]
    assert first == again


# --- other zone data, moment by moment -------------------------------------------------------------

# Whose data stand for the next release of whose, and a day near which they begin to differ.
PAIRS = [
    (PARIS, "Europe/London", "2026-03-29"),
    (PARIS, "Africa/Lagos", "2026-03-29"),  # summer time is abolished, at its beginning
    (PARIS, "Africa/Lagos", "2026-10-25"),
    (PARIS, "Africa/Cairo", "2026-04-23"),
    ("Africa/Lagos", PARIS, "2026-03-29"),
    (NEW_YORK, "America/Havana", "2026-03-08"),  # an hour and two hours earlier
    (NEW_YORK, "America/Havana", "2026-11-01"),
    (LORD_HOWE, "Australia/Sydney", "2026-04-04"),
    (LORD_HOWE, "Australia/Sydney", "2026-10-03"),
    ("Pacific/Apia", "Pacific/Pago_Pago", "2011-12-30"),  # a whole day
    ("Asia/Pyongyang", "Asia/Seoul", "2015-08-14"),
    ("Africa/Casablanca", "Africa/Lagos", "2026-02-15"),
    ("Antarctica/Casey", "Australia/Perth", "2010-03-04"),
    ("Antarctica/Troll", "Africa/Abidjan", "2026-03-29"),
    ("Asia/Kathmandu", "Asia/Kolkata", "1985-12-31"),
    ("America/Santiago", "America/Asuncion", "2026-04-05"),
    (PARIS, "Europe/Berlin", "2026-03-29"),  # nothing
]
ALL = 1_000_000


def other(zone: str) -> Zone:
    return Zone(ZoneInfo(zone))


def differences(
    schedule: Schedule, zone: Zone, begin: datetime, end: datetime, most: int = ALL
) -> list[Difference]:
    found = Comparison({schedule.tz: zone}, begin, end, most).of(schedule, ANCHOR_AT)
    return [one for one in found if one]


def instants(schedule: Schedule, begin: datetime, end: datetime) -> set[int]:
    found, now = set(), begin
    while (now := schedule.next_after(now, ANCHOR_AT) or end + MINUTE) <= end:
        found.add(zones.to_seconds(now))
    return found


def is_plain(moment: Moment, zone: Zone) -> bool:
    """Whether nobody could take it for another moment: no leap ends here."""
    return zone.offset(moment.at) == zone.offset(moment.at - 1)


def check_differences(text: str, zone: str, twin: str, begin: datetime, end: datetime) -> int:
    schedule, new_zone = parse_schedule(text, zone), other(twin)
    found = differences(schedule, new_zone, begin, end)
    assert [one.remark for one in found] == [""] * len(found)
    late = end + timedelta(hours=26)
    old, new = (instants(one, begin, late) for one in (schedule, schedule.in_zone(new_zone)))
    gone, come = ([m for one in found if (m := getattr(one, side))] for side in ("old", "new"))
    last = zones.to_seconds(end)
    case = (text, zone, twin, begin)
    # Every instant that only one of the two has is told once, and no other one.
    assert sorted(m.at for m in gone if m.at <= last) == sorted(a for a in old - new if a <= last), case
    assert sorted(m.at for m in come if m.at <= last) == sorted(a for a in new - old if a <= last), case
    # In order; and what stands alone has no counterpart among those that stand alone.
    firsts = [min(m.at for m in (one.old, one.new) if m) for one in found]
    assert firsts == sorted(firsts), case
    alone = [one for one in found if not (one.old and one.new)]
    lone_old = {str(m)[:19] for one in alone if (m := one.old) and is_plain(m, schedule.zone)}
    lone_new = {str(m)[:19] for one in alone if (m := one.new) and is_plain(m, new_zone)}
    if schedule.kind == "cron" and not schedule.rule:
        # A time that comes twice by one of the clocks has one counterpart at most.
        twice = {
            str(m)[:19] for one in found for m in (one.old, one.new) if m and is_twice(m, schedule, new_zone)
        }
        assert not (lone_old & lone_new) - twice, case
    return len(found)


def is_twice(moment: Moment, schedule: Schedule, new_zone: Zone) -> bool:
    wall = moment.at + moment.offset
    return any(
        zone.is_repeated(moment.at, wall)
        for zone in (schedule.zone, new_zone)
        if zone.offset(moment.at) == moment.offset
    )


def test_tzdiff_tells_every_instant_that_only_one_has() -> None:
    """Both sets of data walked in full, from any moment on: what differs is told, and nothing else is."""
    rng = random.Random(SEED)
    count = 0
    for _ in range(EXAMPLES):
        zone, twin, day = rng.choice(PAIRS)
        expression = random_expression(rng, at(day))
        begin = at(day) - timedelta(hours=30) + timedelta(seconds=rng.randrange(40 * 3600))
        try:
            count += check_differences(expression, zone, twin, begin, begin + timedelta(hours=60))
        except Refusal:
            continue
    print(f"\nTZDIFF: {EXAMPLES} expressions, seed {SEED}: {count} rows")
    assert count > EXAMPLES


@pytest.mark.parametrize(
    ("text", "twin", "expected"),
    [
        # Counted from midnight, which the other data put an hour later.
        ("every 45 minutes", "Europe/London", True),
        ("every 30 minutes", "Europe/London", False),
        ("every 7 seconds", "Europe/London", True),
        ("every 20 minutes between 2:00 and 4:40", "Europe/London", True),
        ("every 3 days at 2:30", "Europe/London", True),
        ("every 3 days at 2:30", "Pacific/Apia", True),  # the first of the days is another one
        ("every 2 weeks on sunday at 0:30", "Pacific/Apia", True),
        ("first sunday of every month at noon", "Europe/Berlin", False),
        ("30 2 * * * */20", "Africa/Lagos", True),
        ("@daily", "Africa/Lagos", False),
        ("@every 7m", "Pacific/Apia", False),
        ("@reboot", "Pacific/Apia", False),
        ('@at "2026-03-29 02:30"', "Pacific/Apia", False),  # an instant since it was added
    ],
)
def test_other_kinds_are_compared_too(text: str, twin: str, expected: bool) -> None:
    """Phrases have anchors, which other data may move; what no zone moves stays where it is."""
    begin = at("2026-03-28")
    end = begin + (timedelta(hours=3) if "seconds" in text else timedelta(days=1, hours=2))
    if text.startswith("@at"):
        assert differences(parse_schedule(text, PARIS), other(twin), begin, end) == []
    else:
        assert bool(check_differences(text, PARIS, twin, begin, end)) == expected


def test_what_stays_open_is_said() -> None:
    """Neither n= nor the bound on work may look like the end of the differences."""
    begin, end = at("2026-03-28"), at("2027-03-28")
    first, second = differences(parse_schedule("0 9 * * *", PARIS), other("Europe/London"), begin, end, 2)
    assert (str(first.old), str(first.new), first.remark) == (
        "2026-03-28T09:00:00+01:00", "2026-03-28T09:00:00+00:00", "",
    )  # fmt: skip
    assert (str(second.old), str(second.new), second.remark) == (
        "2026-03-29T09:00:00+02:00", "2026-03-29T09:00:00+01:00", "more",
    )  # fmt: skip
    howe = parse_schedule("* * * 1-11 * *", LORD_HOWE)
    assert differences(howe, other("Australia/Sydney"), begin, end) == [Difference(None, None, "more")]


def test_a_search_that_ends_early_tells_nothing_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a row would say that a moment is gone, where it has only moved."""
    case = parse_schedule("* 9 * * *", PARIS), other("Europe/London"), at("2026-03-28"), at("2026-05-28")
    whole = differences(*case)
    monkeypatch.setattr(forecast, "MAX_EXAMINED", 400)
    *rows, last = differences(*case)
    assert rows == whole[: len(rows)]
    assert len(rows) > 100
    assert last == Difference(None, None, "more")


def test_zones_that_stay_the_same_cost_next_to_nothing() -> None:
    """200,000 tasks may be asked about, and new zone data concern few zones."""
    comparison = Comparison({PARIS: other("Europe/Berlin")}, at("2026-03-28"), at("2027-03-28"), 3)
    pieces = comparison._pair(parse_schedule("@daily", PARIS).zone, other("Europe/Berlin"))
    assert pieces.differing == []
    schedule = parse_schedule("* * * * *", PARIS)
    assert list(comparison.of(schedule, ANCHOR_AT)) == []


# --- another directory, and the two verbs ------------------------------------------------------------


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Zone data in which summer time was abolished in Paris and New York was given up."""
    path = tmp_path / "new zoneinfo"
    for name, twin in {PARIS: "Africa/Lagos", "Asia/Tokyo": "Asia/Tokyo"}.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        source = resources.files("tzdata") / "zoneinfo" / twin
        (path / name).write_bytes(source.read_bytes())
    (path / "Europe/Rome").write_text("not a zone")
    (path / "Europe/Oslo").mkdir()
    return path


def test_a_directory_is_read_zone_by_zone(directory: Path) -> None:
    """What is missing, and what is no zone, is no reason to keep quiet about the others."""
    names = [PARIS, NEW_YORK, "Europe/Rome", "Europe/Oslo", "UTC"]
    found = read_zones(str(directory), names)
    assert [name for name in names if found[name] is None] == names[1:4]
    summer = zones.to_seconds(at("2026-07-01"))
    assert (paris := found[PARIS]) and paris.offset(summer) == 3600
    assert found["UTC"] is zones.load_zone("UTC")


@pytest.mark.parametrize("path", ["", "zoneinfo", "/no/such/directory", "/etc/passwd", "/" + "x" * 999])
def test_what_is_no_directory_is_refused(path: str) -> None:
    """Otherwise every zone would look as if it had been given up."""
    with pytest.raises(Refusal) as caught:
        read_zones(path, [PARIS])
    assert caught.value.code == "bad-option"


def test_tzdiff_tells_which_fires_change(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way, from a directory on the disk to rows."""
    data = tmp_path / "data"
    data.mkdir()
    lines = [
        "T: 2030-03-30T12:00:00Z",
        "C: ADD name=paris tz=Europe/Paris 30 2 * * * x",
        "C: ADD name=summer tz=Europe/Paris 0 9 1 7 * x",
        "C: ADD name=hourly tz=Europe/Paris 0 * * * * x",
        "C: ADD name=york tz=America/New_York @daily x",
        "C: ADD name=seconds tz=America/New_York @every 30s x",
        "C: ADD name=tokyo tz=Asia/Tokyo @daily x",
        "C: ADD name=here @daily x",
        f'C: TZDIFF "{directory}" n=2',
        f'C: TZDIFF "{directory}" summer until=2030-06-01T00:00:00Z',
        f'C: TZDIFF until=2030-03-31T12:00:00Z "{directory}" 1',
        "C: FORMAT json",
        f'C: TZDIFF "{directory}" york',
    ]
    said = play(lines, data, monkeypatch)
    rows = said[said.index(lines[8]) :]
    lost = '"old":"2030-03-31T00:00:00-04:00","new":null,"remark":"no-zone"'
    assert [line[3:] for line in rows if line.startswith("S:")] == [
        "1\tparis\tEurope/Paris\t2030-03-31T03:00:00+02:00\t2030-03-31T02:30:00+01:00\t-",
        "1\tparis\tEurope/Paris\t2030-04-01T02:30:00+02:00\t2030-04-01T02:30:00+01:00\tmore",
        "2\tsummer\tEurope/Paris\t2030-07-01T09:00:00+02:00\t2030-07-01T09:00:00+01:00\t-",
        "4\tyork\tAmerica/New_York\t2030-03-31T00:00:00-04:00\t-\tno-zone",
        "OK 4",
        "OK 0",
        "1\tparis\tEurope/Paris\t2030-03-31T03:00:00+02:00\t2030-03-31T02:30:00+01:00\t-",
        "OK 1",
        '{"ok":true}',
        f'{{"id":4,"jobName":"york","zone":"{NEW_YORK}",{lost}}}',
        '{"ok":true,"rows":1}',
    ]


def test_more_rows_than_one_answer_should_have_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows are all in memory before the first one leaves."""
    monkeypatch.setattr(by_turns, "MAX_ROWS", 3)
    lines = ["C: ADD tz=Europe/Paris 10,20,30 2 * * * x", "C: DST", "C: DST until=2030-09-01T00:00:00Z"]
    said = play(lines, tmp_path, monkeypatch)
    assert said[3] == "S: ERR limit more than 3 rows; name a task, or an earlier until="
    assert said[-1] == "S: OK 3"


async def test_a_question_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client may be long gone, which nobody sees while it is being answered."""
    monkeypatch.setattr(by_turns, "MAX_S", 0.01)
    with pytest.raises(Refusal) as caught:
        await gather(repeat(None))
    assert caught.value.code == "limit"


async def test_others_have_their_turns_meanwhile() -> None:
    """A question about 200,000 tasks takes seconds, in which runs come due and other clients ask."""
    turns = 0

    async def someone_else() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    def slow_rows() -> Iterator[int | None]:
        for number in range(6):
            until = perf_counter() + SLICE_S
            while perf_counter() < until:
                pass
            yield number if number % 2 else None

    async with trio.open_nursery() as nursery:
        nursery.start_soon(someone_else)
        assert await gather(slow_rows()) == [1, 3, 5]
        nursery.cancel_scope.cancel()
    assert turns >= 4  # in which of the first and the last pass it had one is left to chance
