"""When a task is due: cron fields, @words and moments, in every zone, as Debian's cron fires them.

The rules, and where they come from. Debian's cron (3.0pl1, its main loop) keeps a *running
clock* of wall-clock minutes. When a zone's clock leaps by at most three hours, a task
that names its minute and hour is served by the running clock: what a forward leap passes
over fires at the leap, and what a backward leap repeats is passed over. Such a task is
*fixed*. A task whose minute or hour field begins with `*` is *wildcard* and sees only
the real wall clock: a gap does not exist for it and a repeated hour is an hour like any
other. After a leap of more than three hours the running clock is set, not followed.

So a zone is cut into segments of constant offset (`_Zone`), each owning a range of wall
time and a range of the running clock; the fields are searched as plain calendar
arithmetic that knows no zones (`_Fields`), and `_Cron` lays one over the other. All
arithmetic is on whole seconds since 1970, *local* ones having the offset added. Nothing
here remembers where a walk began, so a restart in the middle of a repeated hour gives
the same answer as a walk through it.

Two readings where Debian and its manual leave room: a leap of exactly three hours counts
as followed, forward too (Debian's own arithmetic ends at 2 h 59 min), and the few leaps
under five minutes before 1970 are no exception for wildcard tasks.

croniter expands each list of numbers to its set. Everything croniter would accept beyond
the grammar of protocol.md is refused before it gets there, and its notion of the next
time is not used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from functools import lru_cache
from itertools import islice, pairwise
from typing import ClassVar, Literal, NamedTuple, NoReturn
from zoneinfo import ZoneInfo

from attrs import Factory, define, frozen
from croniter import croniter  # type: ignore[import-untyped]  # it ships no types

from .errors import Refusal

MAX_SCHEDULE_BYTES = 256
MAX_LEAP_S = 3 * 3600  # clock changes up to this are bridged for fixed tasks
MAX_DURATION_S = 36_500 * 86_400
MAX_CACHED_SCHEDULES = 65_536

Kind = Literal["cron", "every", "at", "reboot"]
Row = tuple[str, datetime, str]  # local time with offset, UTC, remark

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_DAY_S = 86_400
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_LAST_YEAR = 9990
# Instants outside these are taken for the nearer of the two; datetime ends soon after.
_FIRST_S = (datetime(1900, 1, 1, tzinfo=UTC) - _EPOCH) // _SECOND
_LAST_S = (datetime(_LAST_YEAR, 1, 1, tzinfo=UTC) - _EPOCH) // _SECOND
# 29 February falls on a given weekday after at most 40 years; what has no moment in this has none.
_HORIZON_S = 48 * 366 * _DAY_S


def _seconds(at: datetime) -> int:
    """Whole seconds since 1970, rounded down, within the years that are scheduled at all."""
    seconds = (at - _EPOCH) // _SECOND
    return seconds if _FIRST_S <= seconds <= _LAST_S else min(max(seconds, _FIRST_S), _LAST_S)


def _instant(seconds: int) -> datetime:
    return _EPOCH + timedelta(seconds=seconds)


def _refuse(message: str) -> NoReturn:
    raise Refusal("bad-schedule", message)


# --- zones ---------------------------------------------------------------------------


class _Segment(NamedTuple):
    """A stretch of time with one UTC offset; start and end are UTC, the end is outside."""

    start: int
    end: int
    offset: int
    run_from: int  # the running clock's local time that this segment begins to serve
    run_to: int  # and ends before; equal to run_from while a repeated hour is waited out


@define(eq=False)
class _Zone:
    """A zone's segments, found by asking for offsets only, and kept in blocks of 400 days."""

    info: ZoneInfo
    blocks: dict[int, list[_Segment]] = Factory(dict)

    BLOCK_S: ClassVar[int] = 400 * _DAY_S
    MAX_BLOCKS: ClassVar[int] = 512

    def offset(self, seconds: int) -> int:
        """Seconds that local time is ahead of UTC at this instant."""
        at = (_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=self.info)
        # Both carry the same tzinfo, so this subtracts wall times.
        return (self.info.fromutc(at) - at) // _SECOND

    def forward(self, begin: int, until: int) -> Iterator[_Segment]:
        """The segments from the one that holds `begin` to the one that holds `until`."""
        for block in range(begin // self.BLOCK_S, until // self.BLOCK_S + 1):
            for segment in self.blocks.get(block) or self._load(block):
                if segment.start > until:
                    return
                if segment.end > begin:
                    yield segment

    def backward(self, begin: int, until: int) -> Iterator[_Segment]:
        """The same from `begin` back to `until`."""
        for block in range(begin // self.BLOCK_S, until // self.BLOCK_S - 1, -1):
            for segment in reversed(self.blocks.get(block) or self._load(block)):
                if segment.end <= until:
                    return
                if segment.start <= begin:
                    yield segment

    def _load(self, block: int) -> list[_Segment]:
        begin, end = block * self.BLOCK_S, (block + 1) * self.BLOCK_S
        # Whatever the running clock did two days before the block is over when it begins.
        lead = begin - 2 * _DAY_S
        edges = sorted({lead, begin, end, *self._changes(lead, end)})
        clock = lead + self.offset(lead)
        segments = []
        for start, stop in pairwise(edges):
            offset = self.offset(start)
            wall = start + offset
            run_from = clock if abs(wall - clock) <= MAX_LEAP_S else wall
            clock = max(run_from, stop + offset)
            if start >= begin:
                segments.append(_Segment(start, stop, offset, run_from, clock))
        if len(self.blocks) >= self.MAX_BLOCKS:
            self.blocks.clear()
        self.blocks[block] = segments
        return segments

    def _changes(self, begin: int, end: int) -> Iterator[int]:
        """The first second of every new offset. No zone ever changed twice within a day."""
        if self.info.key == "UTC":
            return
        before = self.offset(begin)
        for start in range(begin, end, _DAY_S):
            stop = min(start + _DAY_S, end)
            after = self.offset(stop)
            if after != before:
                yield self._bisect(start, stop, before)
            before = after

    def _bisect(self, low: int, high: int, before: int) -> int:
        while high - low > 1:
            middle = (low + high) // 2
            if self.offset(middle) == before:
                low = middle
            else:
                high = middle
        return high

    def is_repeated(self, seconds: int, local: int) -> bool:
        """Whether this local time comes twice, this instant being one of the two."""
        others = (self.offset(seconds - _DAY_S), self.offset(seconds + _DAY_S))
        return any(local - other != seconds and self.offset(local - other) == other for other in others)

    def resolve(self, local: int) -> int | None:
        """The instant of a local time: the first of two, the leap's end if passed over, None beyond."""
        for segment in self.forward(local - 2 * _DAY_S, local + 2 * _DAY_S):
            if local < segment.run_to:
                return max(segment.start, local - segment.offset) if local >= segment.run_from else None
        return None


@lru_cache(maxsize=1024)
def _zone(name: str) -> _Zone:
    try:
        return _Zone(ZoneInfo(name))
    except (OSError, ValueError, LookupError):  # no such file, a directory, not a zone, not a name
        raise Refusal("bad-option", f'tz "{name[:64]}" is not a zone of the tz database') from None


def check_zone(name: str) -> None:
    """Refuses what is no IANA zone name."""
    _zone(name)


def reload_zones() -> None:
    """Forgets all zone data; schedules parsed before keep what they had, so parse them again."""
    ZoneInfo.clear_cache()
    _zone.cache_clear()
    _parse.cache_clear()


# --- the fields as calendar arithmetic, which knows no zones ----------------------------

_WEEKS = sum(1 << 7 * week for week in range(6))


def _low(mask: int) -> int:
    """The number of the lowest bit set."""
    return (mask & -mask).bit_length() - 1


@lru_cache(maxsize=4096)
def _month(year: int, month: int) -> tuple[int, int]:
    """The day number of a month's first day, counted from 1970, and how many days it has."""
    first = date(year, month, 1).toordinal()
    after = date(year + month // 12, month % 12 + 1, 1).toordinal()
    return first - _EPOCH_ORDINAL, after - first


@frozen(eq=False)
class _Days:
    """Day of month, month and day of week; bit n stands for day, month or weekday n (0 is Sunday)."""

    dom: int
    months: int
    dow: int
    both: bool  # a day must match dom and dow, because the text of one of them begins with `*`
    last: bool  # L
    near: tuple[int, ...]  # nW
    nth: tuple[tuple[int, int], ...]  # d#n as (d, n)
    last_dow: int  # dL

    @property
    def every(self) -> bool:
        return (self.dom, self.months, self.dow, self.both) == (0xFFFF_FFFE, 0x1FFE, 0x7F, True)

    def dom_days(self, length: int, weekday: int) -> int:
        days = self.dom | (1 << length if self.last else 0)
        for day in self.near:
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


@lru_cache(maxsize=16_384)
def _month_days(days: _Days, year: int, month: int) -> int:
    """The days of one month that match, as bits."""
    if not days.months >> month & 1:
        return 0
    first, length = _month(year, month)
    weekday = (first + 4) % 7  # 1970 began on a Thursday
    dom, dow = days.dom_days(length, weekday), days.dow_days(length, weekday)
    return (dom & dow if days.both else dom | dow) & ((2 << length) - 2)


@frozen(eq=False)
class _Fields:
    """What the fields name, as a calendar without zones: next, last and count in local seconds."""

    days: _Days
    hours: int
    minutes: int
    seconds: int
    every_day: bool
    first: int  # earliest and latest second of a matching day
    final: int
    per_day: int

    def next_from(self, local: int) -> int | None:
        """The first moment not before `local`."""
        day, second = divmod(local, _DAY_S)
        found = self._next_day(day)
        if found == day:
            time = self._time_from(second)
            if time is not None:
                return day * _DAY_S + time
            found = self._next_day(day + 1)
        return None if found is None else found * _DAY_S + self.first

    def last_upto(self, local: int) -> int | None:
        """The latest moment not after `local`."""
        day, second = divmod(local, _DAY_S)
        found = self._last_day(day)
        if found == day:
            time = self._time_upto(second)
            if time is not None:
                return day * _DAY_S + time
            found = self._last_day(day - 1)
        return None if found is None else found * _DAY_S + self.final

    def count(self, begin: int, end: int) -> int:
        """How many moments are in [begin, end)."""
        if end <= begin:
            return 0
        first, early = divmod(begin, _DAY_S)
        last, late = divmod(end, _DAY_S)
        total = self._count_days(first, last) * self.per_day
        if self._next_day(first) == first:
            total -= self._count_before(early)
        if late and self._next_day(last) == last:
            total += self._count_before(late)
        return total

    def _next_day(self, day: int) -> int | None:
        if self.every_day:
            return day
        when = date.fromordinal(day + _EPOCH_ORDINAL)
        year, month = when.year, when.month
        mask = _month_days(self.days, year, month) >> when.day
        if mask:
            return day + _low(mask)
        for _ in range(49 * 12):
            year, month = (year, month + 1) if month < 12 else (year + 1, 1)
            if year > _LAST_YEAR:
                return None
            if mask := _month_days(self.days, year, month):
                return _month(year, month)[0] + _low(mask) - 1
        return None

    def _last_day(self, day: int) -> int | None:
        if self.every_day:
            return day
        when = date.fromordinal(day + _EPOCH_ORDINAL)
        year, month = when.year, when.month
        mask = _month_days(self.days, year, month) & ((2 << when.day) - 1)
        for _ in range(49 * 12):
            if mask:
                return _month(year, month)[0] + mask.bit_length() - 2
            year, month = (year, month - 1) if month > 1 else (year - 1, 12)
            mask = _month_days(self.days, year, month)
        return None

    def _count_days(self, begin: int, end: int) -> int:
        if self.every_day:
            return end - begin
        total = 0
        while begin < end:
            when = date.fromordinal(begin + _EPOCH_ORDINAL)
            first, length = _month(when.year, when.month)
            mask = _month_days(self.days, when.year, when.month) >> when.day
            left = min(end, first + length) - begin
            total += (mask & ((1 << left) - 1)).bit_count()
            begin += left
        return total

    def _time_from(self, second: int) -> int | None:
        hour, rest = divmod(second, 3600)
        if self.hours >> hour & 1:
            minute, rest = divmod(rest, 60)
            if self.minutes >> minute & 1 and (mask := self.seconds >> rest):
                return second + _low(mask)
            if mask := self.minutes >> minute + 1:
                return hour * 3600 + (minute + 1 + _low(mask)) * 60 + self.first % 60
        if mask := self.hours >> hour + 1:
            return (hour + 1 + _low(mask)) * 3600 + self.first % 3600
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


# --- schedules ---------------------------------------------------------------------------


@frozen(eq=False)
class Schedule:
    """When a task is due; immutable, and shared by all tasks of the same text and zone.

    `anchor_at` is when the task was added; only `@every` counts from it.
    """

    text: str
    tz: str
    zone: _Zone

    kind: ClassVar[Kind] = "reboot"

    def next_after(self, at: datetime, anchor_at: datetime) -> datetime | None:
        """The first due moment strictly later than `at`; None if there is none."""
        return None

    def latest(self, after: datetime, upto: datetime, anchor_at: datetime) -> datetime | None:
        """The newest due moment in (after, upto]; None if there is none."""
        return None

    def count(self, after: datetime, upto: datetime, anchor_at: datetime) -> int:
        """How many due moments are in (after, upto]; its cost does not grow with their number."""
        return 0

    def preview(self, from_at: datetime, n: int, anchor_at: datetime) -> list[Row]:
        """What comes after `from_at`, for people: at most `n` rows, with a remark where it surprises.

        Two moments that a clock change brings to one instant are two rows here, though one
        for `next_after`; a moment that does not fire at all is a row with the remark `skipped`.
        """
        return list(islice(self._rows(from_at, anchor_at), n))

    def _rows(self, from_at: datetime, anchor_at: datetime) -> Iterator[Row]:
        found = self.next_after(from_at, anchor_at)
        while found:
            yield found.astimezone(self.zone.info).isoformat(), found, ""
            found = self.next_after(found, anchor_at)


class _Reboot(Schedule):
    """`@reboot`: once each time the daemon starts, which only the daemon knows."""


@frozen(eq=False)
class _At(Schedule):
    """`@at TIME`: once."""

    moment_at: datetime

    kind: ClassVar[Kind] = "at"

    def next_after(self, at: datetime, anchor_at: datetime) -> datetime | None:
        return self.moment_at if self.moment_at > at else None

    def latest(self, after: datetime, upto: datetime, anchor_at: datetime) -> datetime | None:
        return self.moment_at if after < self.moment_at <= upto else None

    def count(self, after: datetime, upto: datetime, anchor_at: datetime) -> int:
        return int(after < self.moment_at <= upto)


@frozen(eq=False)
class _Every(Schedule):
    """`@every 90s`: the anchor plus every multiple of the period, but not the anchor itself."""

    period_s: int

    kind: ClassVar[Kind] = "every"

    def next_after(self, at: datetime, anchor_at: datetime) -> datetime | None:
        anchor = _seconds(anchor_at)
        found = anchor + (self._steps(at, anchor) + 1) * self.period_s
        return _instant(found) if found <= _LAST_S else None

    def latest(self, after: datetime, upto: datetime, anchor_at: datetime) -> datetime | None:
        if not self.count(after, upto, anchor_at):
            return None
        anchor = _seconds(anchor_at)
        return _instant(anchor + self._steps(upto, anchor) * self.period_s)

    def count(self, after: datetime, upto: datetime, anchor_at: datetime) -> int:
        anchor = _seconds(anchor_at)
        return max(0, self._steps(upto, anchor) - self._steps(after, anchor))

    def _steps(self, at: datetime, anchor: int) -> int:
        return max(0, (_seconds(at) - anchor) // self.period_s)


@frozen(eq=False)
class _Cron(Schedule):
    """Cron fields laid over a zone."""

    fields: _Fields
    fixed: bool  # neither the minute's nor the hour's text begins with `*`

    kind: ClassVar[Kind] = "cron"

    def next_after(self, at: datetime, anchor_at: datetime) -> datetime | None:
        now = _seconds(at)
        asked = found = None
        for segment in self.zone.forward(now, min(now + _HORIZON_S, _LAST_S)):
            begin, end = self._range(segment)
            if segment.start <= now:
                begin = max(begin, now + segment.offset + 1)
            if asked is None or found is None or not asked <= begin <= found:
                asked, found = begin, self.fields.next_from(begin)
            if found is None:
                return None
            if found < end:
                fire = max(segment.start, found - segment.offset)
                return _instant(fire) if fire <= _LAST_S else None
        return None

    def latest(self, after: datetime, upto: datetime, anchor_at: datetime) -> datetime | None:
        low, high = _seconds(after), _seconds(upto)
        for segment in self.zone.backward(high, max(low, high - _HORIZON_S)):
            begin, end = self._range(segment)
            found = self.fields.last_upto(min(end - 1, high + segment.offset))
            if found is None:
                return None
            if found >= begin:
                fire = max(segment.start, found - segment.offset)
                return _instant(fire) if fire > low else None
        return None

    def count(self, after: datetime, upto: datetime, anchor_at: datetime) -> int:
        low, high = _seconds(after), _seconds(upto)
        total = 0
        for segment in self.zone.forward(low, high):
            begin, end = self._range(segment)
            end = min(end, high + segment.offset + 1)
            edge = max(segment.start, low) + segment.offset + 1
            total += self.fields.count(max(begin, edge), end)
            # All that a leap passed over, and what is due at its very end, is one instant.
            if segment.start > low and begin < min(edge, end):
                found = self.fields.next_from(begin)
                total += found is not None and found < min(edge, end)
        return total

    def _range(self, segment: _Segment) -> tuple[int, int]:
        """The local times that this segment serves, the second one outside."""
        if self.fixed:
            return segment.run_from, segment.run_to
        return segment.start + segment.offset, segment.end + segment.offset

    def _rows(self, from_at: datetime, anchor_at: datetime) -> Iterator[Row]:
        now = seen = _seconds(from_at)
        before: _Segment | None = None
        for segment in self.zone.forward(now, _LAST_S):
            if segment.start > seen + _HORIZON_S:
                return
            begin, end = self._range(segment)
            if before and self.fixed:
                for local in self._moments(before.run_to, begin):
                    yield _format_local(local, before.offset), _instant(segment.start), "skipped"
            if segment.start <= now:
                begin = max(begin, now + segment.offset + 1)
            for local in self._moments(begin, end):
                seen = segment.start
                yield self._row(segment, local)
            before = segment

    def _moments(self, begin: int, end: int) -> Iterator[int]:
        while begin < end and (found := self.fields.next_from(begin)) is not None and found < end:
            yield found
            begin = found + 1

    def _row(self, segment: _Segment, local: int) -> Row:
        fire = local - segment.offset
        if fire < segment.start:
            wall = segment.start + segment.offset
            return _format_local(wall, segment.offset), _instant(segment.start), "moved"
        remark = "repeated-hour" if self.zone.is_repeated(fire, local) else ""
        return _format_local(local, segment.offset), _instant(fire), remark


def _format_local(local: int, offset: int) -> str:
    return _instant(local).replace(tzinfo=timezone(timedelta(seconds=offset))).isoformat()


# --- the grammar ---------------------------------------------------------------------------

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]


@frozen(eq=False)
class _Field:
    """One of the fields: its name in messages, its range, the names its numbers have."""

    name: str
    place: int  # among croniter's fields; seconds expand as minutes do
    low: int
    high: int
    names: dict[str, int] = Factory(dict)


_MINUTE = _Field("minute", 0, 0, 59)
_HOUR = _Field("hour", 1, 0, 23)
_DOM = _Field("day-of-month", 2, 1, 31)
_MONTH = _Field("month", 3, 1, 12, {name: n for n, name in enumerate(_MONTHS, 1)})
_DOW = _Field("day-of-week", 4, 0, 7, {name: n for n, name in enumerate(_WEEKDAYS)})
_SECOND_FIELD = _Field("second", 0, 0, 59)

_ITEM = re.compile(
    r"(?:(?P<star>\*)|(?P<low>[0-9]+|[a-z]{3})(?:-(?P<high>[0-9]+|[a-z]{3}))?)(?:/(?P<step>[0-9]+))?"
)
_NEAR = re.compile(r"([0-9]+)w")
_NTH = re.compile(r"([0-9]+|[a-z]{3})#([0-9]+)")
_LAST_DOW = re.compile(r"([0-9]|[a-z]{3})l")
_BLANKS = re.compile(r"[ \t]+")

_MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


def parse_schedule(text: str, tz: str) -> Schedule:
    """The schedule that a text means in a zone; raises Refusal naming the field and the reason."""
    return _parse(text.strip(" \t"), tz)


@lru_cache(maxsize=MAX_CACHED_SCHEDULES)
def _parse(text: str, tz: str) -> Schedule:
    zone = _zone(tz)
    if len(text.encode(errors="replace")) > MAX_SCHEDULE_BYTES:
        _refuse(f"the schedule is longer than {MAX_SCHEDULE_BYTES} bytes")
    if text.startswith("@"):
        return _parse_word(text, tz, zone)
    if text[:1].isalpha() and "*" not in text:
        _refuse(
            f'"{text}": schedules in words are not understood by this release; write five cron fields,'
            " @hourly @daily @weekly @monthly @yearly, @every 90s or @at TIME"
        )
    return _parse_cron(text, text, tz, zone)


def _parse_word(text: str, tz: str, zone: _Zone) -> Schedule:
    word, *rest = _BLANKS.split(text, maxsplit=1)
    argument = rest[0] if rest else ""
    if word == "@every":
        return _Every(text, tz, zone, _parse_period(argument))
    if word == "@at":
        return _At(text, tz, zone, _parse_moment(argument, tz))
    if argument:
        _refuse(f'"{argument}" after {word}: nothing may follow it')
    if word == "@reboot":
        return _Reboot(text, tz, zone)
    if word in _MACROS:
        return _parse_cron(text, _MACROS[word], tz, zone)
    if word == "@after":
        _refuse("@after (started by dependencies alone) is not in this release")
    _refuse(f'"{word}" is not one of {" ".join(_MACROS)} @reboot @every @at')


def _parse_period(text: str) -> int:
    if not text:
        _refuse("@every needs a duration, as in @every 90s")
    try:
        period_s = parse_duration(text)
    except Refusal as refusal:
        _refuse(f"@every: {refusal.message}")
    if period_s < 1 or period_s != int(period_s):
        _refuse(f'@every "{text}": the period is whole seconds, at least 1s')
    return int(period_s)


def _parse_moment(text: str, tz: str) -> datetime:
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1]
    if not text:
        _refuse("@at needs a time, as in @at 2026-12-24T18:00:00Z")
    return parse_time(text, tz, _EPOCH)


def _parse_cron(text: str, fields: str, tz: str, zone: _Zone) -> Schedule:
    words = _BLANKS.split(fields) if fields else []
    if not 5 <= len(words) <= 6:
        _refuse(
            f'"{text}": {len(words)} fields; a schedule has five (minute, hour, day of month, month,'
            " day of week), or six with seconds last, and never a year"
        )
    minute, hour, dom, month, dow, second = [*words, "0"][:6]
    moments = _fields(
        _expand(_MINUTE, minute),
        _expand(_HOUR, hour),
        _expand(_SECOND_FIELD, second),
        _parse_days(dom, month, dow),
    )
    fixed = minute[0] != "*" and hour[0] != "*"
    return _Cron(text, tz, zone, moments, fixed)


def _fields(minutes: int, hours: int, seconds: int, days: _Days) -> _Fields:
    first = _low(hours) * 3600 + _low(minutes) * 60 + _low(seconds)
    final = (hours.bit_length() - 1) * 3600 + (minutes.bit_length() - 1) * 60 + seconds.bit_length() - 1
    per_day = hours.bit_count() * minutes.bit_count() * seconds.bit_count()
    return _Fields(days, hours, minutes, seconds, days.every, first, final, per_day)


@lru_cache(maxsize=16_384)
def _parse_days(dom: str, month: str, dow: str) -> _Days:
    dom_items, last, near = _take_dom_words(dom, dow)
    dow_items, nth, last_dow = _take_dow_words(dow, dom)
    days = _Days(
        dom=_expand(_DOM, dom, dom_items),
        months=_expand(_MONTH, month),
        dow=_expand(_DOW, dow, dow_items),
        both=dom[0] == "*" or dow[0] == "*",
        last=last,
        near=near,
        nth=nth,
        last_dow=last_dow,
    )
    _refuse_never(days, dom, month)
    return days


def _refuse_never(days: _Days, dom: str, month: str) -> None:
    """A day that none of the months has never comes, unless a weekday may stand in for it."""
    longest = max(length for number, length in enumerate(_LONGEST) if days.months >> number & 1)
    possible = days.dom & ((2 << longest) - 1) or days.last or min(days.near, default=32) <= longest
    if days.both and not possible:
        _refuse_field(_DOM, dom, f'it never comes in month "{month}", which has {longest} days at most')


_LONGEST = (0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def _take_dom_words(dom: str, dow: str) -> tuple[tuple[str, ...], bool, tuple[int, ...]]:
    """Takes `L` and `nW` out of a day-of-month field: (the other items, whether L, the n of nW)."""
    rest, near, last = [], [], False
    for item in dom.lower().split(","):
        if item == "l":
            last = True
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
def _expand(field: _Field, word: str, items: tuple[str, ...] | None = None) -> int:
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
        _refuse_field(field, word, _why_not(item))
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
        _refuse_field(field, word, f'the range "{item}" runs backwards')
    return str(first) if first == last else f"{first}-{last}/{min(step, 99)}"


def _number(field: _Field, word: str, text: str) -> int:
    if text in field.names:
        return field.names[text]
    if not text.isdigit():
        _refuse_field(field, word, f'"{text}" is not a name it knows')
    if not field.low <= int(text) <= field.high:
        _refuse_field(field, word, f"{int(text)} is not in {field.low}-{field.high}")
    return int(text)


def _refuse_field(field: _Field, word: str, reason: str) -> NoReturn:
    _refuse(f'{field.name} field "{word}": {reason}')


def _why_not(item: str) -> str:
    if not item:
        return "beside a comma something is missing"
    if item == "?":
        return '"?" is not cron; write *'
    if item.startswith("r"):
        return f'"{item}" is not cron; random times are not known here'
    return f'"{item}" is not *, a number, a range, or * or a range with a /step'


# --- taking a schedule off a line -----------------------------------------------------------

_Q = r'"(?:[^"\\]|\\["\\])*"'
_QUOTED = re.compile(_Q)
_UNQUOTED = re.compile(
    rf"@every[ \t]+[^ \t]+|@at[ \t]+(?:{_Q}|[^ \t\"]+)|@[^ \t]*|[^ \t@]+(?:[ \t]+[^ \t]+){{4}}"
)


def split_schedule(text: str) -> tuple[str, str]:
    """Cuts a line that begins with a schedule: (the schedule, the command after one blank, verbatim)."""
    if text.startswith('"'):
        match = _QUOTED.match(text)
        if not match:
            raise Refusal(
                "syntax", 'the quoted schedule has no closing quote (inside quotes write \\" and \\\\)'
            )
        schedule = re.sub(r'\\(["\\])', r"\1", match[0][1:-1])
    else:
        match = _UNQUOTED.match(text)
        if text[:1].isalpha():
            _refuse(
                f'"{text[:64]}": a schedule begins with a cron field or @; one in words needs double quotes'
            )
        if not match:
            _refuse(f'"{text[:64]}": five cron fields, an @word or a quoted schedule must come first')
        schedule = match[0]
    if text[match.end() : match.end() + 1] not in (" ", "\t"):
        raise Refusal("syntax", f'no command after the schedule "{schedule[:64]}"')
    command = text[match.end() + 1 :]
    if not command:
        raise Refusal("syntax", f'the command after the schedule "{schedule[:64]}" is empty')
    return schedule, command


# --- times and durations -----------------------------------------------------------------------

_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})?"
)


def parse_time(text: str, tz: str, now: datetime) -> datetime:
    """The instant meant by RFC 3339, or by a local date and time in `tz`; past ones too.

    `now` is what phrases ("in 10 minutes") will count from. A local time that comes twice
    is the first of the two; one that the clock leaps over is the leap's end.
    """
    match = _TIME.fullmatch(text)
    if not match:
        _refuse(f'time "{text[:64]}": write 2026-12-24T18:00:00Z, or "2026-12-24 18:00" for local time')
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    micro, zone = int((match[7] or "0").ljust(6, "0")[:6]), match[8]
    try:
        wall = datetime(year, month, day, hour, minute, second, micro, UTC)
        if zone:
            return wall - _parse_offset(zone)
    except (ValueError, OverflowError) as error:
        _refuse(f'time "{text}": {error}')
    seconds = _zone(tz).resolve((wall - _EPOCH) // _SECOND)
    if seconds is None:
        _refuse(f'time "{text}": there is no such time in {tz}')
    return _instant(seconds) + timedelta(microseconds=micro)


def _parse_offset(text: str) -> timedelta:
    if text in "Zz":
        return timedelta(0)
    hours, minutes = int(text[1:3]), int(text[4:6])
    if hours > 23 or minutes > 59:
        raise ValueError(f"{text} is not an offset")
    return timedelta(hours=hours, minutes=minutes) * (-1 if text[0] == "-" else 1)


_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))
_DURATION = re.compile("".join(rf"(?:([0-9]{{1,12}}){unit}(?![a-z]))?" for unit, _ in _UNITS))
_BARE_SECONDS = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,6})?")


def parse_duration(text: str) -> float:
    """Seconds: `30s` `5m` `1h` `2d` `250ms`, larger units first (`1h30m`), or a bare number."""
    if _BARE_SECONDS.fullmatch(text):
        seconds = float(text)
    elif text and (match := _DURATION.fullmatch(text)):
        seconds = sum(int(n or 0) * ms for n, (_, ms) in zip(match.groups(), _UNITS, strict=True)) / 1000
    else:
        raise Refusal("bad-option", f'duration "{text[:64]}": write 30s, 5m, 1h30m, 2d, 250ms, or seconds')
    if seconds > MAX_DURATION_S:
        raise Refusal("bad-option", f'duration "{text[:64]}" is longer than {MAX_DURATION_S // 86_400}d')
    return seconds


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads as these seconds, to the millisecond."""
    left = round(seconds * 1000)
    words = []
    for unit, size in _UNITS:
        n, left = divmod(left, size)
        if n:
            words.append(f"{n}{unit}")
    return "".join(words) or "0s"
