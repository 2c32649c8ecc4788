"""Seeing ahead: what the next clock changes do to a schedule, and what other zone data would do.

Both are walks over the zone's segments, as those of schedule.py; nothing is ever due because of
what is found here. They may be asked about all tasks at once, so they share what they can:
`ClockChanges` and `Comparison` do each zone once and each schedule once. A `None` among what
they yield means nothing but that some work was done, and others may have their turn.

Real time is *disturbed* for a wildcard task where the instants at which it runs are others
than if the clock had not been changed. An hourly task that sees 1, 3, 4 o'clock in spring runs
every hour as ever, and there is nothing to tell; one that runs `*/5 2 * * *` loses its runs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from attrs import define, evolve, field, frozen

from .fields import ALL_HOURS, ALL_MINUTES, Fields
from .schedule import Schedule
from .zones import LAST_S, Segment, Zone, to_instant, to_seconds

MAX_EXAMINED = 20_000  # moments of one schedule that are compared, before the rest is left open
PAUSE_EVERY = 200  # moments
LONGEST_SHIFT_S = 26 * 3600  # no two clocks ever showed times further apart

What = Literal["moved", "skipped", "once", "doubled"]
Leap = tuple[Segment, Segment]  # what is before the clock change, and what is after


class Moment(NamedTuple):
    """An instant, in seconds since 1970, and the offset with which it is told."""

    at: int
    offset: int

    def __str__(self) -> str:
        zone = timezone(timedelta(seconds=self.offset))
        return to_instant(self.at).astimezone(zone).isoformat()


# --- clock changes ------------------------------------------------------------------------------


@frozen
class Change:
    """A moment that a clock change moves, takes away, or brings a second time."""

    at: datetime  # when the clock changes
    what: What
    old: Moment  # as it would be by the clock; for `once`, the second pass that does not count
    new: Moment | None  # where it runs; for `doubled`, where it runs again


@define
class ClockChanges:
    """What the clock changes in (from_at, until_at] do, for one schedule after the other."""

    from_at: datetime
    until_at: datetime
    _leaps: dict[Zone, list[Leap]] = field(factory=dict, init=False)
    _known: dict[Any, tuple[Change, ...]] = field(factory=dict, init=False)

    def of(self, schedule: Schedule, anchor_at: datetime) -> Iterator[Change | None]:
        """In order of time; nothing for what does not follow a clock."""
        cron = schedule.as_cron(anchor_at)
        if cron is None or not (leaps := self._leaps_of(cron.zone)):
            return
        if (known := self._known.get(cron)) is not None:
            yield from known
            return
        found = []
        for before, after in leaps:
            for change in _changes(cron.fields, cron.fixed, before, after):
                found.append(change)
                yield change
            yield None
        self._known[cron] = tuple(found)

    def _leaps_of(self, zone: Zone) -> list[Leap]:
        leaps = self._leaps.get(zone)
        if leaps is None:
            segments = zone.forward(to_seconds(self.from_at), to_seconds(self.until_at))
            leaps = [pair for pair in pairwise(segments) if pair[0].offset != pair[1].offset]
            self._leaps[zone] = leaps
        return leaps


def _changes(fields: Fields, fixed: bool, before: Segment, after: Segment) -> Iterator[Change]:
    what, low, high = _concerned(fixed, before, after)
    at = to_instant(after.start)
    for local in _told(fields, fixed, low, high):
        first, second = (Moment(local - side.offset, side.offset) for side in (before, after))
        moved = {"moved": Moment(after.start, after.offset), "skipped": None, "doubled": second}
        old, new = (second, first) if what == "once" else (first, moved[what])
        yield Change(at, what, old, new)


def _concerned(fixed: bool, before: Segment, after: Segment) -> tuple[What, int, int]:
    """The local times that a clock change takes away or repeats, and what becomes of moments there."""
    wall = after.start + after.offset
    # A fixed task knows a time by the running clock, which a long leap sets.
    clock = before.run[1] if fixed else after.start + before.offset
    if fixed and after.run[0] < wall:
        return "moved", after.run[0], wall
    if fixed and after.run[0] > wall:
        return "once", wall, after.run[0]
    return ("skipped", clock, wall) if clock < wall else ("doubled", wall, clock)


def _told(fields: Fields, fixed: bool, low: int, high: int) -> Iterator[int]:
    """The moments in [low, high), for a wildcard task only those where real time is disturbed."""
    shift = high - low
    if not fixed and _repeats(fields, shift):
        return
    while (found := fields.next_from(low)) is not None and found < high:
        # The same instant by the other of the two clocks.
        if fixed or fields.next_from(found + shift) != found + shift:
            yield found
        low = found + 1


def _repeats(fields: Fields, shift: int) -> bool:
    """Whether the moments are the same ones when all are shifted; False may only mean: not known."""
    if not fields.every_day or fields.hours != ALL_HOURS or shift % 60:
        return False
    turned = fields.minutes << shift // 60 % 60
    return (turned | turned >> 60) & ALL_MINUTES == fields.minutes


# --- other zone data ----------------------------------------------------------------------------


@frozen
class Difference:
    """A moment that other zone data put elsewhere. Neither old nor new: the search ended here."""

    old: Moment | None
    new: Moment | None
    remark: str = ""  # `more`: not the last one; `no-zone`


class Piece(NamedTuple):
    """A stretch of time in which each of the two clocks has one offset; the end is outside."""

    start: int
    end: int
    old: Segment
    new: Segment


@frozen
class _Pair:
    """Two sets of data about one zone, side by side."""

    pieces: list[Piece]  # without a gap
    differing: list[Piece]  # those of them in which a task may be due at other instants
    window_s: int  # the clocks never differ by more


# An instant at which only one of the two is due: instant, its local time by the schedule, whether
# it is the old data's. None: PAUSE_EVERY moments were the same in both.
Step = tuple[int, int, bool] | None
Find = Callable[[int], tuple[int, int]]  # the first moment not before an instant: (instant, local time)


@define
class Comparison:
    """What is due at other instants in (from_at, until_at] by other zone data, `most` a schedule."""

    others: Mapping[str, Zone | None]  # by the name of the zone; None: the other data do not have it
    from_at: datetime
    until_at: datetime
    most: int
    _pairs: dict[Zone, _Pair] = field(factory=dict, init=False)
    _known: dict[Any, tuple[Difference, ...]] = field(factory=dict, init=False)

    def of(self, schedule: Schedule, anchor_at: datetime) -> Iterator[Difference | None]:
        """In order of time. A zone that the other data were not asked for is passed over."""
        if not schedule.is_zoned or schedule.tz not in self.others:
            return
        cron = schedule.as_cron(anchor_at)
        if (known := self._known.get(cron)) is not None:
            yield from known
            return
        found = []
        for difference in self._compare(schedule, anchor_at):
            if difference is None:
                yield None
                continue
            found.append(difference)
            if len(found) > self.most:
                found[-2:] = [evolve(found[-2], remark="more")]
                break
        yield from found
        if cron:
            self._known[cron] = tuple(found)

    def _compare(self, schedule: Schedule, anchor_at: datetime) -> Iterator[Difference | None]:
        old, new = schedule.zone, self.others[schedule.tz]
        if new is None:
            first_at = schedule.next_after(self.from_at, anchor_at)
            if first_at and first_at <= self.until_at:
                yield Difference(_moment(to_seconds(first_at), old), None, "no-zone")
            return
        pair = self._pair(old, new)
        for found in _match(_steps(schedule, anchor_at, new, pair), pair.window_s):
            if found is None:
                yield None
            elif found == (None, None):
                yield Difference(None, None, "more")
            elif min(at for at in found if at is not None) <= to_seconds(self.until_at):
                yield Difference(_moment(found[0], old), _moment(found[1], new))
            else:
                return

    def _pair(self, old: Zone, new: Zone) -> _Pair:
        pair = self._pairs.get(old)
        if pair is None:
            # A moment at the end may have its counterpart after it.
            begin, end = to_seconds(self.from_at) + 1, to_seconds(self.until_at) + LONGEST_SHIFT_S
            pieces = list(_cut(old, new, begin, min(end, LAST_S)))
            window_s = max((abs(piece.old.offset - piece.new.offset) for piece in pieces), default=0)
            pair = _Pair(pieces, [part for piece in pieces if (part := _differing(piece))], window_s)
            self._pairs[old] = pair
        return pair


def _moment(at: int | None, zone: Zone) -> Moment | None:
    return None if at is None else Moment(at, zone.offset(at))


def _cut(old: Zone, new: Zone, begin: int, end: int) -> Iterator[Piece]:
    olds, news = old.forward(begin, end), new.forward(begin, end)
    first, second = next(olds), next(news)
    while begin < end:
        stop = min(first.end, second.end, end)
        yield Piece(begin, stop, first, second)
        if stop == first.end:
            first = next(olds, first)
        if stop == second.end:
            second = next(news, second)
        begin = stop


def _differing(piece: Piece) -> Piece | None:
    """The part of a piece in which the two may fire differently."""
    if piece.old.offset != piece.new.offset:
        return piece
    # The clocks show the same, but one of the two may just have leapt, or still wait.
    behind = piece.start + piece.old.offset
    first, second = (_running(segment, piece.start) for segment in (piece.old, piece.new))
    if first == second:
        return None
    return piece._replace(end=min(piece.end, piece.start + max(first, second, behind + 1) - behind))


def _running(segment: Segment, at: int) -> int:
    """What the running clock shows just before it serves this instant."""
    return segment.run[0] if at == segment.start else max(segment.run[0], at + segment.offset)


def _steps(schedule: Schedule, anchor_at: datetime, new: Zone, pair: _Pair) -> Iterator[Step]:
    """The instants, in order, at which a schedule is due by one of two sets of data alone."""
    anchor = to_seconds(anchor_at)
    # What counts from a day counts from another day, or from another midnight, if this differs.
    is_same_anchor = schedule.zone.offset(anchor) == new.offset(anchor)
    cron = schedule.as_cron(anchor_at)
    if is_same_anchor and (cron is None or not pair.differing):
        return
    other = schedule.in_zone(new)
    if cron is None:
        begin, end = pair.pieces[0].start, pair.pieces[-1].end
        yield from _merge(_find_even(schedule, anchor_at), _find_even(other, anchor_at), begin, end)
        return
    twin = other.as_cron(anchor_at)
    assert twin
    is_same = is_same_anchor or twin.fields is cron.fields
    for piece in pair.differing if is_same else pair.pieces:
        shift = piece.old.offset - piece.new.offset
        if is_same and not cron.fixed and (not shift or _repeats(cron.fields, shift)):
            continue
        finds = (_find(cron.fields, cron.fixed, piece.old), _find(twin.fields, cron.fixed, piece.new))
        unit = _unit(cron.fields, shift) if is_same else 1
        yield from _merge(*finds, piece.start, piece.end, unit)


def _unit(fields: Fields, shift: int) -> int:
    """Seconds of local time, an hour or a minute, in which two clocks this far apart see the same moments.

    Only if they see any there at all: each hour of a day that fields name has the same minutes.
    """
    if not fields.hours:  # times of their own
        return 1
    return 3600 if shift % 3600 == 0 else 60 if shift % 60 == 0 else 1


def _find(fields: Fields, fixed: bool, segment: Segment) -> Find:
    def find(at: int) -> tuple[int, int]:
        begin = _running(segment, at) if fixed else at + segment.offset
        local = fields.next_from(begin)
        return (LAST_S, 0) if local is None else (max(at, local - segment.offset), local)

    return find


def _find_even(schedule: Schedule, anchor_at: datetime) -> Find:
    def find(at: int) -> tuple[int, int]:
        found_at = schedule.next_after(to_instant(at - 1), anchor_at)
        if found_at is None:
            return LAST_S, 0
        found = to_seconds(found_at)
        return found, found + schedule.zone.offset(found)

    return find


def _merge(old: Find, new: Find, begin: int, end: int, unit: int = 1) -> Iterator[Step]:
    """What only one of the two has in [begin, end)."""
    at, examined = begin, 0
    while True:
        (first, local), (second, other) = old(at), new(at)
        if min(first, second) >= end:
            return
        if first != second:
            yield (first, local, True) if first < second else (second, other, False)
            at = min(first, second) + 1
        elif first > begin:
            at = first - local % unit + unit
        else:  # a leap may end here, so the local time may be one that was passed over
            at = first + 1
        examined += 1
        if examined % PAUSE_EVERY == 0:
            yield None


def _match(steps: Iterator[Step], window_s: int) -> Iterator[tuple[int | None, int | None] | None]:
    """(old, new): what one has and the other has not, in one pair if it is the same local time.

    (None, None) is the end of a search that became too long; what may still have found its
    counterpart is left out then.
    """
    waiting: deque[_Row] = deque()
    by_local: dict[tuple[bool, int], _Row] = {}  # those that have one side only
    pauses = 0
    for step in steps:
        if step is None:
            pauses += 1
            yield None
            if pauses * PAUSE_EVERY >= MAX_EXAMINED:
                yield None, None
                return
            continue
        at, local, is_old = step
        while waiting and (waiting[0].is_full or waiting[0].first + window_s < at):
            yield waiting.popleft().pair
        row = by_local.pop((not is_old, local), None)
        if row is None or row.first + window_s < at:
            row = by_local[is_old, local] = _Row(at)
            waiting.append(row)
        row.put(at, is_old)
    yield from (row.pair for row in waiting)


@define
class _Row:
    """What is known of one local time."""

    first: int
    old: int | None = None
    new: int | None = None

    @property
    def is_full(self) -> bool:
        return self.old is not None and self.new is not None

    @property
    def pair(self) -> tuple[int | None, int | None]:
        return self.old, self.new

    def put(self, at: int, is_old: bool) -> None:
        if is_old:
            self.old = at
        else:
            self.new = at
