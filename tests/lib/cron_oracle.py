"""Debian's cron loop, tick by tick, to hold schedule.py against. It shares no code with it.

`ticks` replays what the main loop of cron(8) does at every wall minute around a clock
change: it keeps a virtual time, compares it with the wall clock, and decides which kinds
of entries are looked up and for which minutes. `fires` asks, for each of these minutes,
whether an expression matches, by walking its text every time. Slow, and plain enough to
be read beside cron.c.

One deliberate difference: cron.c follows forward leaps of up to 179 minutes, since it
compares the difference between two ticks, leap included, with 180. Here as in
protocol.md a leap of three hours, either way, is still followed.

test_cron_recording.py holds all this against a recording of the program itself, and lists what
else differs: leaps of a few minutes, which zones no longer make, and a gap so full of jobs
that cron is still busy with it a minute later.
"""

from __future__ import annotations

import calendar
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from functools import cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

MONTHS = ["", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]


class Fire(NamedTuple):
    """A moment of an expression and what became of it."""

    local: str
    utc: datetime
    remark: str


class Tick(NamedTuple):
    """What the loop looks up at one wall minute."""

    utc: datetime
    wall: datetime  # naive
    local: str  # with its offset
    wild: bool  # whether entries that begin with * are looked up for this wall time
    fixed: list[datetime]  # for which wall times the others are looked up
    lost: list[datetime]  # wall times that a long leap passed over
    twice: bool  # whether this wall time is there twice
    old_offset: timedelta


@cache
def ticks(zone_name: str, begin: datetime, end: datetime, tick_s: int = 60) -> list[Tick]:
    """Every tick of [begin, end); the loop is taken to run undisturbed before that."""
    zone, step = ZoneInfo(zone_name), timedelta(seconds=tick_s)
    result: list[Tick] = []
    utc, virtual, old_offset = begin, None, timedelta(0)
    while utc < end:
        local = utc.astimezone(zone)
        wall, offset = local.replace(tzinfo=None), local.utcoffset()
        assert offset is not None
        virtual = wall - step if virtual is None else virtual
        difference = wall - virtual
        wild, fixed, lost = True, [wall], []
        if difference == step:
            virtual = wall
        elif step < difference <= timedelta(hours=3) + step:
            fixed = list(_between(virtual + step, wall + step, step))
            virtual = wall
        elif -timedelta(hours=3) < difference <= timedelta(0):
            fixed = []
        else:
            lost = list(_between(virtual + step, wall, step))
            virtual = wall
        result.append(Tick(utc, wall, local.isoformat(), wild, fixed, lost, False, old_offset))
        utc, old_offset = utc + step, offset
    seen = Counter(tick.wall for tick in result)
    return [tick._replace(twice=seen[tick.wall] > 1) for tick in result]


def _between(begin: datetime, end: datetime, step: timedelta) -> Iterator[datetime]:
    while begin < end:
        yield begin
        begin += step


def fires(expression: str, zone_name: str, begin: datetime, end: datetime, tick_s: int = 60) -> list[Fire]:
    """All moments of an expression in [begin, end), in order, those that are lost too."""
    words = expression.lower().split()
    wildcard = words[0][0] == "*" or words[1][0] == "*"
    match = Matcher(words)
    result = []
    for tick in ticks(zone_name, begin, end, tick_s):
        if wildcard:
            due = [tick.wall] if tick.wild and match(tick.wall) else []
        else:
            due = [wall for wall in tick.fixed if match(wall)]
            for wall in tick.lost:
                if match(wall):
                    local = wall.isoformat() + _offset_text(tick.old_offset)
                    result.append(Fire(local, tick.utc, "skipped"))
        for wall in due:
            remark = "moved" if wall != tick.wall else "repeated-hour" if tick.twice else ""
            result.append(Fire(tick.local, tick.utc, remark))
    return result


def _offset_text(offset: timedelta) -> str:
    return datetime(2000, 1, 1, tzinfo=timezone(offset)).isoformat()[19:]


class Matcher:
    """Whether a wall time matches, field by field, from the text."""

    def __init__(self, words: list[str]) -> None:
        self.minute, self.hour, self.dom, self.month, self.dow = words[:5]
        self.second = words[5] if len(words) == 6 else "0"
        self.minutes = {n for n in range(60) if in_list(self.minute, n, 0, 59, [])}
        self.hours = {n for n in range(24) if in_list(self.hour, n, 0, 23, [])}
        self.seconds = {n for n in range(60) if in_list(self.second, n, 0, 59, [])}
        self.days: dict[tuple[int, int, int], bool] = {}

    def __call__(self, wall: datetime) -> bool:
        if wall.minute not in self.minutes or wall.hour not in self.hours or wall.second not in self.seconds:
            return False
        key = (wall.year, wall.month, wall.day)
        if key not in self.days:
            self.days[key] = self.day_matches(*key)
        return self.days[key]

    def day_matches(self, year: int, month: int, day: int) -> bool:
        if not in_list(self.month, month, 1, 12, MONTHS):
            return False
        length = calendar.monthrange(year, month)[1]
        weekday = (calendar.weekday(year, month, day) + 1) % 7
        dom = any(dom_item(item, day, length, year, month) for item in self.dom.split(","))
        dow = any(dow_item(item, weekday, day, length) for item in self.dow.split(","))
        if self.dom[0] == "*" or self.dow[0] == "*":
            return dom and dow
        return dom or dow


def dom_item(item: str, day: int, length: int, year: int, month: int) -> bool:
    """`L`, `nW` or a plain item."""
    if item == "l":
        return day == length
    if item.endswith("w"):
        wanted = int(item[:-1])
        workdays = [d for d in range(1, length + 1) if calendar.weekday(year, month, d) < 5]
        return wanted <= length and day == min(workdays, key=lambda d: abs(d - wanted))
    return in_list(item, day, 1, 31, [])


def dow_item(item: str, weekday: int, day: int, length: int) -> bool:
    """`d#n`, `dL` or a plain item; Sunday is asked for as 0 and as 7."""
    names = [weekday, 7] if weekday == 0 else [weekday]
    if "#" in item:
        name, _, n = item.partition("#")
        return (day - 1) // 7 + 1 == int(n) and any(in_list(name, x, 0, 7, WEEKDAYS) for x in names)
    if item.endswith("l"):
        return day + 7 > length and any(in_list(item[:-1], x, 0, 7, WEEKDAYS) for x in names)
    return any(in_list(item, x, 0, 7, WEEKDAYS) for x in names)


def in_list(text: str, value: int, low: int, high: int, names: list[str]) -> bool:
    """Whether a number is in a list of items, each `*`, `a`, `a-b`, `*/n` or `a-b/n`."""
    for item in text.split(","):
        span, _, step = item.partition("/")
        if span == "*":
            first, last = low, high
        elif "-" in span:
            first, last = (_value(word, names) for word in span.split("-"))
        else:
            first = last = _value(span, names)
        if first <= value <= last and (value - first) % int(step or 1) == 0:
            return True
    return False


def _value(word: str, names: list[str]) -> int:
    return names.index(word) if word in names else int(word)
