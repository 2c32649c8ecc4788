"""The model and the schedules, held against what Debian's cron did itself.

record_debian_cron.py tells how the recording was made. Whatever differs from it stands in
DIFFERENCES, run by run, with the reason; anything else that differs is a failure, and so is a
difference that is no longer there.
"""

from __future__ import annotations

import io
import json
import struct
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import attrs
import pytest

from cronflowd.schedules.schedule import Schedule, parse_schedule
from cronflowd.schedules.zones import Zone
from tests.lib import cron_oracle
from tests.lib.rows import first_rows

RECORDING = json.loads((Path(__file__).parents[1] / "data" / "debian_cron_recording.json").read_text())
MINUTE = timedelta(minutes=1)
MANY = 300  # more rows than any expression of the recording has
MACROS = {  # the model reads fields only
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
}

Runs = Counter[datetime]  # per UTC minute


class Difference(NamedTuple):
    """Why ours is another answer than Debian's, and where: how many more runs (or fewer) at which time."""

    reason: str
    runs: dict[str, dict[str, int]]


THREE_HOURS = """\
Contract §5: jumps up to 3 h fire what they jumped over. cron.c means the same, but compares the \
difference between two ticks, which is the leap and a minute, with 180 minutes: at three hours forward, \
exactly, it no longer follows. Backwards its three hours are three hours, and there is no difference."""
SMALL_LEAP = """\
Contract §5: a task whose minute or hour begins with * follows real time. cron takes a leap of less than \
five minutes for a late awakening and runs such tasks, too, for the minutes passed over. Only a clock set \
by hand leaps so little; the last zone that did was before 1970."""
SAME_MINUTE = """\
Contract §5: such a task follows real time, so a minute that comes twice runs twice. cron waits for the \
minute to change, and set back by one minute, between two ticks, it does not see that anything happened."""
PACING = """\
Contract §5: right after the jump. cron sleeps ten seconds between the jobs that a leap passed over, \
unless a job's end wakes it; here every job takes longer. Six such sleeps use up the minute, the rest comes \
in the next ones, and so does what is due in them itself. Once five minutes or less are left to catch up, \
cron takes them for a late awakening: "* 2 * * *" runs for 02:59, which never was, and "*/10 * * * *" a \
second time for 03:00."""

CASEY, SET, PARIS = "2009-10-18T05:00+11:00", "2026-06-03T13:31+03:00", "2026-03-29T03:0{}+02:00"
DIFFERENCES = {
    "Antarctica/Casey 2009-10-17": Difference(
        THREE_HOURS,
        {
            "30 2 * * *": {CASEY: 1},
            "0 2 * * *": {CASEY: 1},
            "0 3 * * *": {CASEY: 1},
            "5-5 2-2 * * *": {CASEY: 1},
            "15 1-4 * * *": {CASEY: 3},
            "0,30 2,3 * * *": {CASEY: 4},
            "0-59/20 0-5 * * *": {CASEY: 9},
            "30,*/50 2 * * *": {CASEY: 3},
            "17 2 29 * sun": {CASEY: 1},
        },
    ),
    "clock set +180 min": Difference(
        THREE_HOURS,
        {
            "0 11 * * *": {SET: 1},
            "15 11 * * *": {SET: 1},
            "32 10 * * *": {SET: 1},
            "0-59/4 10 * * *": {SET: 7},
            "10 9-15 * * *": {SET: 3},
        },
    ),
    "clock set +2 min": Difference(SMALL_LEAP, {"*/2 10 * * *": {"2026-06-03T10:33+00:02": -1}}),
    "clock set +4 min": Difference(SMALL_LEAP, {"*/2 10 * * *": {"2026-06-03T10:35+00:04": -2}}),
    "clock set -1 min": Difference(SAME_MINUTE, {"*/2 10 * * *": {"2026-06-03T10:30-00:01": 1}}),
    "a crowded gap": Difference(
        PACING,
        {
            "0-59/6 2 * * *": {PARIS.format(0): 5, PARIS.format(1): -5},
            "57-59 2 * * *": {PARIS.format(0): 3, PARIS.format(1): -1, PARIS.format(2): -2},
            "1 3 * * *": {PARIS.format(1): 1, PARIS.format(2): -1},
            "* 2 * * *": {PARIS.format(2): -1},
            "*/10 * * * *": {PARIS.format(2): -1},
        },
    ),
}


class Scenario(NamedTuple):
    """What was recorded, and the zone in which it is asked for here."""

    name: str
    tz: str
    begin: datetime
    end: datetime
    zone: ZoneInfo
    runs: dict[str, list[datetime]]


def read_scenario(data: dict[str, object]) -> Scenario:
    name, tz, sets, fires = (data[key] for key in ("name", "tz", "sets", "fires"))
    assert isinstance(name, str)
    assert isinstance(tz, str)
    assert isinstance(sets, list)
    assert isinstance(fires, dict)
    begin, end = (datetime.fromisoformat(str(data[key])) for key in ("begin", "end"))
    zone = leaping_zone(name, sets) if sets else ZoneInfo(tz)
    runs = {
        expression: [datetime.fromisoformat(word) for word in words.split()]
        for expression, words in fires.items()
    }
    return Scenario(name, tz, begin, end, zone, runs)


def leaping_zone(name: str, sets: list[dict[str, str | int]]) -> ZoneInfo:
    """A zone that leaps, at the next full minute, where the clock was set: to a schedule it is the same."""
    leaps, offsets = [], [0]
    for one in sets:
        at = datetime.fromisoformat(str(one["at"]))
        leaps.append(int((at.replace(second=0) + MINUTE).timestamp()))
        offsets.append(offsets[-1] + int(one["by_min"]) * 60)
    n = len(leaps)
    header = b"TZif" + bytes(16) + struct.pack(">6l", 0, 0, 0, n, n + 1, 4)
    types = b"".join(struct.pack(">lbb", offset, 0, 0) for offset in offsets)
    data = header + struct.pack(f">{n}l", *leaps) + bytes(range(1, n + 1)) + types + b"SET\0"
    return ZoneInfo.from_file(io.BytesIO(data), key=name)


SCENARIOS = [read_scenario(data) for data in RECORDING["scenarios"]]
each_scenario = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)


def minutes(times: list[datetime]) -> Runs:
    return Counter(at.astimezone(UTC).replace(second=0) for at in times)


def expected(scenario: Scenario, expression: str) -> Runs:
    """What Debian's cron did, but for the differences."""
    runs = minutes(scenario.runs[expression])
    if scenario.name in DIFFERENCES:
        for at, more in DIFFERENCES[scenario.name].runs.get(expression, {}).items():
            runs[datetime.fromisoformat(at).astimezone(UTC)] += more
    assert all(n >= 0 for n in runs.values())
    return +runs


def check_zone_data(scenario: Scenario) -> None:
    """Governments change their minds: a recorded local time may not be this machine's any more."""
    for times in scenario.runs.values():
        for at in times:
            if at.astimezone(scenario.zone).utcoffset() != at.utcoffset():
                pytest.skip(f"recorded with tzdata {RECORDING['tzdata']}, which had {at.isoformat()}")


def schedule_of(scenario: Scenario, expression: str) -> Schedule:
    return attrs.evolve(parse_schedule(expression, scenario.tz), zone=Zone(scenario.zone))


@each_scenario
def test_the_model_is_debians_cron(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model was written from reading cron.c; this is the program."""
    check_zone_data(scenario)
    monkeypatch.setattr(cron_oracle, "ZoneInfo", lambda name: scenario.zone)
    for expression in scenario.runs:
        fields = MACROS.get(expression, expression)
        fires = cron_oracle.fires(fields, scenario.name, scenario.begin, scenario.end)
        # Where it begins, cron has just started, and does not run what is due that very minute.
        model = [fire.utc for fire in fires if fire.remark != "skipped" and fire.utc > scenario.begin]
        assert expected(scenario, expression) == minutes(model), expression


@each_scenario
def test_schedules_fire_as_debians_cron_does(scenario: Scenario) -> None:
    """Contract §5, without a model between."""
    check_zone_data(scenario)
    begin, end = scenario.begin, scenario.end
    for expression in scenario.runs:
        wanted = expected(scenario, expression)
        schedule = schedule_of(scenario, expression)
        rows = takewhile(lambda row: row[1] < end, first_rows(schedule, begin, MANY, begin))
        assert wanted == minutes([utc for _, utc, remark in rows if remark != "skipped"]), expression

        walked, now = [], begin
        while (found := schedule.next_after(now, begin)) and found < end:
            walked.append(found)
            now = found
        assert sorted(wanted) == walked, expression
        assert wanted == {found: schedule.times_at(found, begin) for found in walked}, expression
        last = end - timedelta(seconds=1)
        assert wanted.total() == schedule.count(begin, last, begin), expression
        assert (walked[-1] if walked else None) == schedule.latest(begin, last, begin), expression


def test_every_difference_is_of_the_recording() -> None:
    """One that names no recorded expression would excuse nothing, unseen."""
    recorded = {scenario.name: scenario.runs for scenario in SCENARIOS}
    for name, difference in DIFFERENCES.items():
        assert set(difference.runs) <= set(recorded[name])
        assert difference.reason.startswith("Contract §5")


def test_the_recording_is_whole() -> None:
    """A cron that refused its crontab would have run nothing, and agreed with nothing."""
    runs = [times for scenario in SCENARIOS for times in scenario.runs.values()]
    assert len(SCENARIOS) == len({scenario.name for scenario in SCENARIOS}) >= 35
    assert sum(map(len, runs)) > 5000
    assert max(map(len, runs)) < MANY
    assert all(any(scenario.runs.values()) for scenario in SCENARIOS)
    assert RECORDING["cron"].startswith("3.0pl1")
    differing = sum(
        sum(map(abs, at.values())) for difference in DIFFERENCES.values() for at in difference.runs.values()
    )
    print(f"{len(runs)} expressions, {sum(map(len, runs))} runs, {differing} differences")
