"""A task's own moments: its schedule between start= and end=, shifted by spread=.

It answers what a Schedule answers. Schedules are shared by all tasks of the same text and
zone; most tasks have none of the three options and use their schedule as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from attrs import frozen

from .schedule import Row, Schedule
from .zones import FIRST_S, LAST_S, to_seconds

TICK = timedelta(milliseconds=1)  # what the clock counts in: start= is included


@frozen(eq=False)
class Timetable:
    """A schedule within bounds, both included, and every moment of it a little later."""

    schedule: Schedule
    start_at: datetime | None
    end_at: datetime | None
    shift: timedelta  # whole seconds

    def next_after(self, at: datetime, anchor_at: datetime) -> datetime | None:
        """The first moment strictly later than `at`; None if there is none."""
        found = self.schedule.next_after(self.clip(at, at)[0], self.anchor(anchor_at))
        due_at = found and found + self.shift
        return None if due_at and self.end_at is not None and due_at > self.end_at else due_at

    def latest(self, after: datetime, upto: datetime, anchor_at: datetime) -> datetime | None:
        """The newest moment in (after, upto]; None if there is none."""
        low, high = self.clip(after, upto)
        found = self.schedule.latest(low, high, self.anchor(anchor_at)) if low < high else None
        return found and found + self.shift

    def count(self, after: datetime, upto: datetime, anchor_at: datetime) -> int:
        """How many moments are in (after, upto]."""
        low, high = self.clip(after, upto)
        return self.schedule.count(low, high, self.anchor(anchor_at)) if low < high else 0

    def counts(self, marks: Sequence[int], anchor_at: datetime) -> list[int]:
        """As a Schedule's."""
        shift = round(self.shift.total_seconds())
        low = FIRST_S if self.start_at is None else to_seconds(self.start_at - TICK)
        high = LAST_S if self.end_at is None else to_seconds(self.end_at)
        within = [min(max(mark, low), high) - shift for mark in marks]
        return self.schedule.counts(within, self.anchor(anchor_at))

    def times_at(self, at: datetime, anchor_at: datetime) -> int:
        """How many moments fall on this one."""
        return self.schedule.times_at(at - self.shift, self.anchor(anchor_at))

    def rows(self, from_at: datetime, anchor_at: datetime) -> Iterator[Row]:
        """As a Schedule's."""
        zone = self.schedule.zone.info
        begin_at, _ = self.clip(from_at, from_at)
        for local, at, remark in self.schedule.rows(begin_at, self.anchor(anchor_at)):
            due_at = at + self.shift
            if self.end_at is not None and due_at > self.end_at:
                return
            is_told = not self.shift or remark == "skipped"  # such a local time is in no zone
            yield local if is_told else due_at.astimezone(zone).isoformat(), due_at, remark

    def clip(self, begin: datetime, end: datetime) -> tuple[datetime, datetime]:
        """The part of (begin, end] in which the schedule's own moments, not shifted, are the task's."""
        low = begin if self.start_at is None else max(begin, self.start_at - TICK)
        high = end if self.end_at is None else min(end, self.end_at)
        return low - self.shift, high - self.shift

    def anchor(self, anchor_at: datetime) -> datetime:
        """What counts from the task's birth counts from start= where that is given."""
        if self.start_at is None:
            return anchor_at
        # Every 2 weeks: the first day after the anchor, and a moment at start= itself is not too late.
        return self.start_at - TICK if self.schedule.kind == "cron" else self.start_at


Moments = Schedule | Timetable


def make_moments(
    schedule: Schedule, start_at: datetime | None, end_at: datetime | None, spread_s: int, name: str
) -> Moments:
    """The moments of a task of this name; the schedule itself where no option concerns them."""
    if start_at is None and end_at is None and not spread_s:
        return schedule
    return Timetable(schedule, start_at, end_at, timedelta(seconds=share_of(name, spread_s)))


def share_of(name: str, spread_s: int) -> int:
    """Which second of the spread a name gets: the same in every release and on every machine."""
    if not spread_s:
        return 0
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % spread_s
