"""NEXT all by=hour: the fires to come, hour by hour, and how long they will keep workers busy.

Moments are counted, not walked: a task that runs each second costs as much as one that runs each hour,
and all tasks of one schedule cost as much as one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import accumulate, pairwise
from statistics import median

from ..base.errors import Refusal
from ..base.replies import Reply
from ..base.walks import in_slices
from ..engine.state import State
from ..schedules.schedule import Cron
from ..schedules.timetable import Moments
from ..schedules.zones import to_instant, to_seconds
from ..tasks.task import Task
from . import questions as q
from .views import Row

COLUMNS = ("hour", "fires", "busy-s")
WEEK, LONGEST = timedelta(days=7), timedelta(days=31)
HOUR_S = 3600
Counts = Sequence[int]  # of moments, an hour each


def show_load(state: State, query: q.ShowNext, now: datetime) -> Reply:
    """What is to come from now on; Refusal (`limit`) where that would be too long a time."""
    within = query.within or WEEK
    if query.ref != "all" or query.tz or query.from_at:
        raise Refusal("bad-option", "by=hour is for all tasks, from now on and in UTC; last= says how long")
    if within > LONGEST:
        raise Refusal("limit", f"last=: at most {LONGEST.days} days can be told by the hour")
    begin, end = to_seconds(now), to_seconds(now + within)
    first = begin // HOUR_S
    # An hour ends with the second before the next one begins.
    marks = [begin, *range((first + 1) * HOUR_S - 1, end, HOUR_S), end]

    def rows() -> Iterator[Row | None]:
        usual_s = yield from _usual_s(state)
        hours = [(0, 0.0)] * (len(marks) - 1)
        for found in _counts(state, marks, now, usual_s):
            if found is None:
                yield None
                continue
            counts, tasks, sum_s = found
            hours = [
                (fires + count * tasks, busy_s + count * sum_s)
                for (fires, busy_s), count in zip(hours, counts, strict=True)
            ]
        for number, (fires, busy_s) in enumerate(hours, first):
            yield to_instant(number * HOUR_S), fires, round(busy_s, 3)

    return Reply("", {}, COLUMNS, rows(), "rows")


def _usual_s(state: State) -> Generator[None, None, dict[int, float]]:
    """How long an attempt of each task takes, as far as memory knows: the median."""
    found: dict[int, list[float]] = defaultdict(list)
    for outcome in in_slices(list(state.recent)):
        if outcome is None:
            yield None
        elif outcome.started_at:
            found[outcome.task_id].append((outcome.ended_at - outcome.started_at).total_seconds())
    return {task_id: median(seconds) for task_id, seconds in found.items()}


def _counts(
    state: State, marks: Sequence[int], now: datetime, usual_s: dict[int, float]
) -> Iterator[tuple[Counts, int, float] | None]:
    """The moments of so many tasks alike, and the sum of what they usually take; None: others first."""
    alike: dict[tuple[Moments, datetime], tuple[int, float]] = defaultdict(lambda: (0, 0.0))
    for task in state.tasks.walk():
        if task is None:
            yield None
        elif task.is_notice or task.spec.unread:
            continue
        elif task.paused or state.paused_all or task.spec.options.skip or task.spec.options.count:
            yield _counts_of(state, task, marks), 1, usual_s.get(task.id, 0.0)
            yield None
        else:
            moments = task.spec.moments
            key = moments, now if type(moments) is Cron else task.anchor_at
            tasks, sum_s = alike[key]
            alike[key] = tasks + 1, sum_s + usual_s.get(task.id, 0.0)
    for (moments, anchor_at), (tasks, sum_s) in alike.items():
        yield moments.counts(marks, anchor_at), tasks, sum_s
        yield None


def _counts_of(state: State, task: Task, marks: Sequence[int]) -> Counts:
    """Of a task that does not fire at all its moments."""
    moments, options = task.spec.moments, task.spec.options
    begin = to_seconds(state.paused_upto(task, to_instant(marks[0])))

    def within(begin: int, end: int) -> list[int]:
        return moments.counts([min(max(mark, begin), end) for mark in marks], task.anchor_at)

    counts = within(begin, marks[-1])
    zone = task.spec.schedule.zone
    first, last = (zone.day(to_instant(mark)) for mark in (marks[0], marks[-1]))
    for day in state.calendars.days_off(options.skip, first, last):
        bounds = (to_seconds(zone.begin(each)) - 1 for each in (day, day + timedelta(days=1)))
        off = within(*(max(begin, bound) for bound in bounds))
        counts = [count - less for count, less in zip(counts, off, strict=True)]
    if options.count:
        left = max(0, options.count - task.fired)
        # Behind each hour, how many have been.
        so_far = [0, *accumulate(counts)]
        counts = [min(left, late) - min(left, early) for early, late in pairwise(so_far)]
    return counts
