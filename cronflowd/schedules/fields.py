"""Cron's fields: the grammar that is accepted, and their moments on a calendar without zones.

Everything croniter would accept beyond the grammar of protocol.md is refused before it
gets there; croniter then expands each list of numbers to its set, and its notion of the
next time is not used. Sets are bit masks.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from itertools import pairwise
from typing import NoReturn

import msgspec
from attrs import Factory, frozen
from croniter import croniter

from .rules import DAY_NAMES, LAST, MONTH_NAMES
from .zones import DAY_S, EPOCH_ORDINAL, LAST_YEAR, refuse

# --- the fields as calendar arithmetic --------------------------------------------------

# Of fields that leave nothing out.
ALL_HOURS, ALL_MINUTES = (1 << 24) - 1, (1 << 60) - 1
ALL_DATES, ALL_MONTHS, ALL_WEEKDAYS = (1 << 32) - 2, (1 << 13) - 2, (1 << 7) - 1
_WEEKS = sum(1 << 7 * week for week in range(6))
_MANY_WINDOWS = 49 * 366 // 32  # days that do not come in 48 years never come
_LAST_WINDOW = (date(LAST_YEAR + 1, 1, 1).toordinal() - EPOCH_ORDINAL) // 32 + 1


def low_bit(mask: int) -> int:
    """The number of the lowest bit set."""
    return (mask & -mask).bit_length() - 1


def bits(mask: int) -> tuple[int, ...]:
    """The numbers of all bits set."""
    return tuple(n for n in range(mask.bit_length()) if mask >> n & 1)


@lru_cache(maxsize=4096)
def _month(year: int, month: int) -> tuple[int, int]:
    """The day number of a month's first day, counted from 1970, and how many days it has."""
    first = date(year, month, 1).toordinal()
    after = date(year + month // 12, month % 12 + 1, 1).toordinal()
    return first - EPOCH_ORDINAL, after - first


class Days(msgspec.Struct, frozen=True, eq=False, gc=False):
    """Day of month, month and day of week; bit n stands for day, month or weekday n (0 is Sunday)."""

    dom: int
    months: int
    dow: int
    both: bool  # a day must match dom and dow, because the text of one of them begins with `*`
    last: bool  # L
    near: tuple[int, ...]  # nW, or LAST for LW
    nth: tuple[tuple[int, int], ...]  # d#n as (d, n)
    last_dow: int  # dL
    cycle: tuple[int, int, int] | None = None  # see `in_cycle`

    @property
    def every(self) -> bool:
        own = self.dom, self.months, self.dow, self.both, self.cycle
        return own == (ALL_DATES, ALL_MONTHS, ALL_WEEKDAYS, True, None)

    def dom_days(self, length: int, weekday: int) -> int:
        days = self.dom | (1 << length if self.last else 0)
        for day in (length if n == LAST else n for n in self.near):
            if day <= length:
                days |= 1 << _nearest_weekday(day, length, (weekday + day - 1) % 7)
        return days

    def dow_days(self, length: int, weekday: int) -> int:
        days = (self.dow * _WEEKS >> weekday) << 1
        for dow, n in self.nth:
            days |= 1 << (dow - weekday) % 7 + 7 * n - 6
        if self.last_dow:
            days |= ((self.last_dow * _WEEKS >> weekday) << 1) & (0xFE << length - 7)
        return days


def _nearest_weekday(day: int, length: int, weekday: int) -> int:
    """The Monday to Friday nearest to a day, without leaving its month."""
    if weekday == 6:
        return day - 1 if day > 1 else 3
    if weekday == 0:
        return day + 1 if day < length else day - 2
    return day


def _month_days(days: Days, first: int, length: int, month: int) -> int:
    """The days of one month that match, as bits; the month's first day is bit 0."""
    if not days.months >> month & 1:
        return 0
    weekday = (first + 4) % 7  # 1970 began on a Thursday
    dom, dow = days.dom_days(length, weekday), days.dow_days(length, weekday)
    return ((dom & dow if days.both else dom | dow) >> 1) & ((1 << length) - 1)


@lru_cache(maxsize=16_384)
def _window(days: Days, number: int) -> int:
    """The matching ones of 32 days, as bits; day 32 * number is bit 0.

    To search in windows of one length is quicker than in months, and day 0 is in 1970 for both.
    """
    begin = number * 32
    if days.cycle:
        length, origin, mask = days.cycle
        return sum(1 << n for n in range(32) if mask >> (begin + n - origin) % length & 1)
    when = date.fromordinal(begin + EPOCH_ORDINAL)
    year, month, mask, end = when.year, when.month, 0, begin
    while end < begin + 32:
        first, length = _month(year, month)
        found, end = _month_days(days, first, length, month), first + length
        mask |= found << first - begin if first > begin else found >> begin - first
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)
    return mask & 0xFFFF_FFFF


@lru_cache(maxsize=4096)
def _day_from(days: Days, day: int) -> int | None:
    """The first matching day from this one on; many ask for the same one, which may be far."""
    number = day >> 5
    if mask := _window(days, number) >> (day & 31):
        return day + low_bit(mask)
    for later in range(number + 1, min(number + _MANY_WINDOWS, _LAST_WINDOW)):
        if mask := _window(days, later):
            return later * 32 + low_bit(mask)
    return None


class Fields(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What the fields name, as a calendar without zones: next, last and count in local seconds."""

    days: Days
    hours: int
    minutes: int
    seconds: int
    every_day: bool
    first: int  # earliest and latest second of a matching day
    final: int
    per_day: int

    def misses(self, local: int) -> tuple[str, ...]:
        """Which parts of a local time they do not name: month, day, hour, minute, second, or time in one."""
        day, second = divmod(local, DAY_S)
        when = date.fromordinal(day + EPOCH_ORDINAL)
        parts = []
        if self._next_day(day) != day:
            parts.append("day" if self.days.months >> when.month & 1 else "month")
        return (*parts, *self._time_misses(second))

    def _time_misses(self, second: int) -> tuple[str, ...]:
        parts = (
            ("hour", self.hours >> second // 3600),
            ("minute", self.minutes >> second // 60 % 60),
            ("second", self.seconds >> second % 60),
        )
        return tuple(name for name, mask in parts if not mask & 1)

    def next_from(self, local: int) -> int | None:
        """The first moment not before `local`."""
        day = local // DAY_S
        found = self._next_day(day)
        if found == day:
            time = self._time_from(local % DAY_S)
            if time is not None:
                return day * DAY_S + time
            found = self._next_day(day + 1)
        return None if found is None else found * DAY_S + self.first

    def last_upto(self, local: int) -> int | None:
        """The latest moment not after `local`."""
        day = local // DAY_S
        found = self._last_day(day)
        if found == day:
            time = self._time_upto(local % DAY_S)
            if time is not None:
                return day * DAY_S + time
            found = self._last_day(day - 1)
        return None if found is None else found * DAY_S + self.final

    def count(self, begin: int, end: int) -> int:
        """How many moments are in [begin, end)."""
        if end <= begin:
            return 0
        first, early = divmod(begin, DAY_S)
        last, late = divmod(end, DAY_S)
        total = self._count_days(first, last) * self.per_day
        if self._next_day(first) == first:
            total -= self._count_before(early)
        if late and self._next_day(last) == last:
            total += self._count_before(late)
        return total

    def counts(self, marks: Sequence[int]) -> list[int]:
        """The same of each stretch between two marks, which ascend: the times of day mostly come again."""
        today, is_on, passed = marks[0] // DAY_S, False, 0
        before: dict[int, int] = {}
        sums: list[int] = []
        for mark in marks:
            day, second = divmod(mark, DAY_S)
            if day != today or not sums:
                passed += (is_on + self._count_days(today + 1, day)) * self.per_day if sums else 0
                today, is_on = day, self._next_day(day) == day
            if is_on and second not in before:
                before[second] = self._count_before(second)
            sums.append(passed + before[second] if is_on else passed)
        return [late - early for early, late in pairwise(sums)]

    def _next_day(self, day: int) -> int | None:
        return day if self.every_day else _day_from(self.days, day)

    def _last_day(self, day: int) -> int | None:
        if self.every_day:
            return day
        number = day >> 5
        mask = _window(self.days, number) & ((2 << (day & 31)) - 1)
        if mask:
            return number * 32 + mask.bit_length() - 1
        for earlier in range(number - 1, number - _MANY_WINDOWS, -1):
            if mask := _window(self.days, earlier):
                return earlier * 32 + mask.bit_length() - 1
        return None

    def _count_days(self, begin: int, end: int) -> int:
        if self.every_day:
            return end - begin
        total = 0
        while begin < end:
            left = min(end, (begin | 31) + 1) - begin
            mask = _window(self.days, begin >> 5) >> (begin & 31)
            total += (mask & ((1 << left) - 1)).bit_count()
            begin += left
        return total

    def _time_from(self, second: int) -> int | None:
        hour = second // 3600
        if self.hours >> hour & 1:
            minute = second // 60 % 60
            if self.minutes >> minute & 1 and (mask := self.seconds >> second % 60):
                return second + low_bit(mask)
            if mask := self.minutes >> minute + 1:
                return hour * 3600 + (minute + 1 + low_bit(mask)) * 60 + self.first % 60
        if mask := self.hours >> hour + 1:
            return (hour + 1 + low_bit(mask)) * 3600 + self.first % 3600
        return None

    def _time_upto(self, second: int) -> int | None:
        hour, rest = divmod(second, 3600)
        if self.hours >> hour & 1:
            minute, rest = divmod(rest, 60)
            if self.minutes >> minute & 1 and (mask := self.seconds & ((2 << rest) - 1)):
                return second - rest + mask.bit_length() - 1
            if mask := self.minutes & ((1 << minute) - 1):
                return hour * 3600 + (mask.bit_length() - 1) * 60 + self.final % 60
        if mask := self.hours & ((1 << hour) - 1):
            return (mask.bit_length() - 1) * 3600 + self.final % 3600
        return None

    def _count_before(self, second: int) -> int:
        hour, rest = divmod(second, 3600)
        per_minute = self.seconds.bit_count()
        total = (self.hours & ((1 << hour) - 1)).bit_count() * self.minutes.bit_count() * per_minute
        if self.hours >> hour & 1:
            minute, rest = divmod(rest, 60)
            total += (self.minutes & ((1 << minute) - 1)).bit_count() * per_minute
            if self.minutes >> minute & 1:
                total += (self.seconds & ((1 << rest) - 1)).bit_count()
        return total


class Times(Fields, frozen=True):
    """Any times of the day: those of fields are always hours times minutes times seconds."""

    times: Sequence[int]  # ascending; a range costs nothing, however long

    def _time_misses(self, second: int) -> tuple[str, ...]:
        return () if self._time_from(second) == second else ("time",)

    def _time_from(self, second: int) -> int | None:
        place = bisect_left(self.times, second)
        return self.times[place] if place < len(self.times) else None

    def _time_upto(self, second: int) -> int | None:
        place = bisect_right(self.times, second)
        return self.times[place - 1] if place else None

    def _count_before(self, second: int) -> int:
        return bisect_left(self.times, second)


def make_times(times: Sequence[int], days: Days) -> Times:
    return Times(days, 0, 0, 0, days.every, times[0], times[-1], len(times), times)


@lru_cache(maxsize=4096)
def in_cycle(days: Days, length: int, origin: int, mask: int) -> Days:
    """Of these days the ones of a round: bit n of `mask` is the nth of `length` days, `origin` begins one."""
    return msgspec.structs.replace(days, cycle=(length, origin, mask))


# --- the grammar ---------------------------------------------------------------------------


@frozen(eq=False)
class _Field:
    """One of the fields: its name in messages, its range, the names its numbers have."""

    name: str
    place: int  # among croniter's fields; seconds expand as minutes do
    low: int
    high: int
    names: dict[str, int] = Factory(dict)


MINUTE = _Field("minute", 0, 0, 59)
HOUR = _Field("hour", 1, 0, 23)
_DOM = _Field("day-of-month", 2, 1, 31)
_MONTH = _Field("month", 3, 1, 12, {name[:3]: n for n, name in enumerate(MONTH_NAMES, 1)})
_DOW = _Field("day-of-week", 4, 0, 7, {name[:3]: n for n, name in enumerate(DAY_NAMES)})
SECOND_FIELD = _Field("second", 0, 0, 59)

_ITEM = re.compile(
    r"(?:(?P<star>\*)|(?P<low>[0-9]+|[a-z]{3})(?:-(?P<high>[0-9]+|[a-z]{3}))?)(?:/(?P<step>[0-9]+))?"
)
_NEAR = re.compile(r"([0-9]+)w")
_NTH = re.compile(r"([0-9]+|[a-z]{3})#([0-9]+)")
_LAST_DOW = re.compile(r"([0-9]|[a-z]{3})l")


def make_fields(minutes: int, hours: int, seconds: int, days: Days) -> Fields:
    return Fields(days, hours, minutes, seconds, days.every, *_times_of_day(minutes, hours, seconds))


@lru_cache(maxsize=4096)
def _times_of_day(minutes: int, hours: int, seconds: int) -> tuple[int, int, int]:
    """The first and the last second that they name in a day, and how many."""
    first = low_bit(hours) * 3600 + low_bit(minutes) * 60 + low_bit(seconds)
    final = (hours.bit_length() - 1) * 3600 + (minutes.bit_length() - 1) * 60 + seconds.bit_length() - 1
    return first, final, hours.bit_count() * minutes.bit_count() * seconds.bit_count()


@lru_cache(maxsize=16_384)
def parse_days(dom: str, month: str, dow: str) -> Days:
    """The three fields that say which days. Raises Refusal."""
    dom_items, last, near = _take_dom_words(dom, dow)
    dow_items, nth, last_dow = _take_dow_words(dow, dom)
    days = Days(
        dom=expand(_DOM, dom, dom_items),
        months=expand(_MONTH, month),
        dow=expand(_DOW, dow, dow_items),
        both=dom[0] == "*" or dow[0] == "*",
        last=last,
        near=near,
        nth=nth,
        last_dow=last_dow,
    )
    _refuse_never(days, dom, month)
    return days


def _refuse_never(days: Days, dom: str, month: str) -> None:
    """A day that none of the months has never comes, unless a weekday may stand in for it."""
    if not days.both or days.last or LAST in days.near or days.dom & _IN_EVERY_MONTH:
        return
    longest = max(length for number, length in enumerate(_LONGEST) if days.months >> number & 1)
    if not days.dom & ((2 << longest) - 1) and min(days.near, default=32) > longest:
        _refuse_field(_DOM, dom, f'it never comes in month "{month}", which has {longest} days at most')


_IN_EVERY_MONTH = 0x1FFF_FFFE  # days 1 to 28
_LONGEST = (0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def _take_dom_words(dom: str, dow: str) -> tuple[tuple[str, ...], bool, tuple[int, ...]]:
    """Takes `L` and `nW` out of a day-of-month field: (the other items, whether L, the n of nW)."""
    rest, near, last = [], [], False
    for item in dom.lower().split(","):
        if item == "l":
            last = True
        elif item == "lw":
            near.append(LAST)
        elif match := _NEAR.fullmatch(item):
            near.append(_number(_DOM, dom, match[1]))
        else:
            rest.append(item)
    if (last or near) and dow != "*":
        _refuse_field(_DOM, dom, f'L and W need * as day of week, not "{dow}"')
    return tuple(rest), last, tuple(near)


def _take_dow_words(dow: str, dom: str) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...], int]:
    """Takes `d#n` and `dL` out of a day-of-week field: (the other items, (d, n) pairs, the d of dL)."""
    rest, nth, last = [], [], 0
    for item in dow.lower().split(","):
        if match := _NTH.fullmatch(item):
            n = int(match[2])
            if not 1 <= n <= 5:
                _refuse_field(_DOW, dow, f'{n} in "{item}" is not in 1-5')
            nth.append((_number(_DOW, dow, match[1]) % 7, n))
        elif match := _LAST_DOW.fullmatch(item):
            last |= 1 << _number(_DOW, dow, match[1]) % 7
        else:
            rest.append(item)
    if (nth or last) and dom != "*":
        _refuse_field(_DOW, dow, f'# and L need * as day of month, not "{dom}"')
    return tuple(rest), tuple(nth), last


@lru_cache(maxsize=16_384)
def expand(field: _Field, word: str, items: tuple[str, ...] | None = None) -> int:
    """A field's set as bits, Sunday as 0; `items` is what L, W and # left of the field's word."""
    if items is None:
        items = tuple(word.lower().split(","))
    if not items:
        return 0
    ranges = [_normal_item(field, word, item) for item in items]
    fields = ["*"] * 5
    fields[field.place] = ",".join(dict.fromkeys(ranges))
    values = croniter.expand(" ".join(fields))[0][field.place]
    if "*" in values:
        values = range(field.low, field.high + 1)
    mask = 0
    for value in values:
        mask |= 1 << (value % 7 if field is _DOW else value)
    return mask


def _normal_item(field: _Field, word: str, item: str) -> str:
    """An item in the spelling that croniter reads as cron does: numbers only, and never `a-a`."""
    match = _ITEM.fullmatch(item)
    if not match:
        _refuse_field(field, word, _why_not(field, item))
    step = int(match["step"] or 1)
    if step == 0:
        _refuse_field(field, word, f'the step in "{item}" is 0')
    if match["star"]:
        first, last = field.low, field.high
    else:
        first = last = _number(field, word, match["low"])
        if match["high"]:
            last = _number(field, word, match["high"])
        elif match["step"]:
            hint = f"{first}-{field.high}/{step}"
            _refuse_field(field, word, f"a step needs * or a range before it, as in {hint}")
    if first > last:
        rest = "" if (field.high, last) == (7, 0) else f",{field.low}-{last}"  # Sunday is 7 as well
        hint = "" if match["step"] else f"; to go round, write {first}-{field.high}{rest}"
        _refuse_field(field, word, f'the range "{item}" runs backwards{hint}')
    return str(first) if first == last else f"{first}-{last}/{min(step, 99)}"


def _number(field: _Field, word: str, text: str) -> int:
    if text in field.names:
        return field.names[text]
    if not text.isdigit():
        _refuse_field(field, word, f'"{text}" is not a name it knows')
    if not field.low <= int(text) <= field.high:
        swapped = {HOUR: "; the minute comes first", _MONTH: "; the day of month comes first"}.get(field, "")
        hint = swapped if field.high + 1 < int(text) < 60 else ""
        _refuse_field(field, word, f"{int(text)} is not in {field.low}-{field.high}{hint}")
    return int(text)


def _refuse_field(field: _Field, word: str, reason: str) -> NoReturn:
    refuse(f'{field.name} field "{word}": {reason}')


def _why_not(field: _Field, item: str) -> str:
    if not item:
        return "beside a comma something is missing"
    if item == "?":
        return '"?" is not cron; write *'
    if re.match(r"r|h(?:$|[(/])|[0-9]*~", item):
        return (
            f'"{item}" is not cron; random times are not known here: write a number, and spread= or jitter='
        )
    if field.name == "minute" and item.startswith("-"):
        return f'"{item}": the - which keeps cronie from logging means nothing here; leave it out'
    alike = [name for name in field.names if item.startswith(name)]
    alike = alike or [name for name in field.names if len(item) > 3 and item[:2] == name[:2]]
    hint = f"; did you mean {alike[0]}?" if alike else ""
    return f'"{item}" is not *, a number, a range, or * or a range with a /step{hint}'
