"""All of it at a glance: HEALTH, SUMMARY and NEXT all, also by=hour.

HEALTH walks nothing, since probes ask it every few seconds of a daemon that may have a million tasks;
the others walk all tasks, and give way. Hour by hour moments are counted, not walked: a task that runs
each second costs as much as one that runs each hour, and all tasks of one schedule cost as much as one.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import accumulate, islice, pairwise
from statistics import median
from typing import Any

from ..base.errors import Refusal
from ..base.replies import PAIR_COLUMNS, Reply, Row
from ..base.text import format_time
from ..base.walks import SLICE, in_slices
from ..engine.ledger import DISPOSITIONS, NEVER
from ..engine.state import OLDEST_TIME, State
from ..schedules.schedule import Cron
from ..schedules.schedule import Row as MomentRow
from ..schedules.timetable import Moments
from ..schedules.zones import load_zone, to_instant, to_seconds
from ..tasks.reasons import in_words
from ..tasks.task import Run, Task
from . import questions as q
from .stats import success_of
from .views import MOMENT_COLUMNS, moments_to_come, show_next, task_state

TOLD_STEP_S = 60.0  # a clock set by less is no news
STEP_TOLD = timedelta(hours=1)  # so long after the clock was set
MAX_LANES = 1000  # that are looked at for the run that has waited longest
DAY = timedelta(days=1)
NEXT_OF_ALL = 10


def check_health(
    state: State, query: q.AskHealth, now: datetime, is_full: bool, contested: Iterable[str] = ()
) -> Reply:
    """HEALTH: Refusal (`unwell`) with all that is wrong; what is told of each begins with one word."""
    reasons = [f"{name}: {what}" for name, what in _troubles(state, query, now, is_full) if what]
    reasons += [f"workers: two are named {name}, and throw each other off" for name in islice(contested, 3)]
    if reasons:
        raise Refusal("unwell", "; ".join(reasons))
    return Reply("healthy", {"healthy": True})


def _troubles(state: State, query: q.AskHealth, now: datetime, is_full: bool) -> Iterator[tuple[str, str]]:
    yield "disk", "full, changes are refused" if is_full else ""
    longest = _waits_longest(state)
    if longest and not any(worker.connected for worker in state.workers.values()):
        yield "workers", f"none is connected, and run {longest.id} of {longest.spec.name} waits for one"
    late = timedelta(seconds=query.late_s)
    if (due := state.due.earliest()) and now - due[0] > late and not state.is_stale(due[0], due[-1]):
        late_s = (now - due[0]).total_seconds()
        yield "lateness", f"{state.tasks[due[-1]].name} was due {late_s:.0f} s ago, and nothing is decided"
    if longest and (waited := now - state.set_by - longest.queued_at) > late:
        waited_s = waited.total_seconds()
        yield "lateness", f"run {longest.id} of {longest.spec.name} has waited {waited_s:.0f} s for a worker"
    waiting = len(state.runs) - sum(len(worker.runs) for worker in state.workers.values())
    yield "queue", f"{waiting} runs wait" if waiting > query.queue else ""
    if state.unheard:
        last = next(reversed(state.unheard.values()))
        yield "notifications", f"{last.name} did not arrive, {in_words(last.failure.why)}"
    yield "clock", "not set: it shows an earlier time than can be" if now < OLDEST_TIME else ""
    step_s, step_at = state.last_step_s, state.last_step_at
    if step_s and step_at and abs(step_s) >= TOLD_STEP_S and now - step_at < STEP_TOLD:
        yield "clock", f"it was set by {step_s:+.0f} s at {format_time(step_at)}"


def _waits_longest(state: State) -> Run | None:
    """Of the runs that wait for a worker and nothing else, the one that came first."""
    lanes = state.lanes
    # A list, since empty lanes are dropped while they are looked at.
    every = list(islice(((on, work) for on, works in lanes.heaps.items() for work in works), MAX_LANES))
    firsts = [state.runs[first[1]] for lane in every if (first := lanes.first_in(lane))]
    return min(firsts, key=lambda run: run.queued_at, default=None)


def summarize(state: State, query: q.Alone, now: datetime) -> Reply:
    """SUMMARY: the tasks by state, the last day's fires by disposition, and what comes next."""
    balance = state.ledger.balance((), now - DAY, now)

    def rows() -> Iterator[Row | None]:
        states, failed = yield from count_states(state, now)
        yield "tasks", states.total()
        yield from ((f"tasks-{word}", number) for word, number in sorted(states.items()))
        yield "failed-now", failed + len(state.unheard)  # as many as FAILED lists
        yield "since", balance.since_at
        yield from ((f"fires-{name}", balance.ends[name]) for name in DISPOSITIONS)
        yield "success", success_of(balance.ends)
        for found in _moments_of_all(state, now, None, NEXT_OF_ALL):
            yield None if found is None else ("next", f"{format_time(found[1][1])} {found[0].name}")

    return Reply.counted(PAIR_COLUMNS, rows())


def count_states(state: State, now: datetime) -> Generator[None, None, tuple[Counter[str], int]]:
    """How many tasks are in which state, and how many have failed."""
    states, failed = Counter[str](), 0
    for task in state.tasks.walk():
        if task is None:
            yield None
        elif not task.is_notice:
            states[task_state(state, task, now)] += 1
            failed += task.failure is not None
    return states, failed


def next_moments(state: State, query: q.ShowNext, now: datetime) -> Reply:
    """NEXT."""
    show = show_load if query.by_hour else next_of_all if query.ref == "all" else show_next
    return show(state, query, now)


def next_of_all(state: State, query: q.ShowNext, now: datetime) -> Reply:
    """NEXT all: the moments of all tasks in order of time."""
    if query.from_at:
        raise Refusal(
            "bad-option", "from= is for one task or schedule; of all, moments are told from now on", "from"
        )
    zone = load_zone(query.tz).info if query.tz else None

    def rows() -> Iterator[Row | None]:
        until_at = None if query.within is None else now + query.within
        for found in _moments_of_all(state, now, until_at, query.count):
            if found is None:
                yield None
                continue
            task, (local, at, remark) = found
            yield at.astimezone(zone).isoformat() if zone else local, at, remark, task.id, task.name

    return Reply.counted((*MOMENT_COLUMNS, "id", "jobName"), rows())


_NEVER = NEVER - timedelta.resolution  # begins what only RESUME brings back


def _moments_of_all(
    state: State, now: datetime, until_at: datetime | None, count: int
) -> Iterator[tuple[Task, MomentRow] | None]:
    waiting = deque((yield from _soonest(state, until_at, count)))
    coming: list[tuple[datetime, int, MomentRow, Iterator[MomentRow]]] = []  # a heap of next moments

    def put(task_id: int, rows: Iterator[MomentRow]) -> None:
        if row := next((row for row in rows if row[2] != "skipped"), None):
            heappush(coming, (row[1], task_id, row, rows))

    while count:
        yield None
        if waiting and (not coming or waiting[0][0] <= coming[0][0]):
            task = state.tasks.get(waiting.popleft()[1])
            if task:
                put(task.id, moments_to_come(state, task, state.fires_after(task, now)))
        elif coming:
            at, task_id, row, rows = heappop(coming)
            if until_at and at > until_at:
                return
            if task := state.tasks.get(task_id):
                count -= 1
                yield task, row
                if row[2] == "paused":  # told once: all that it takes out would hide what others do
                    begin_at = state.paused_upto(task, at)
                    rows = moments_to_come(state, task, begin_at) if begin_at < _NEVER else iter(())
                put(task_id, rows)
        else:
            return


def _soonest(
    state: State, until_at: datetime | None, count: int
) -> Generator[None, None, list[tuple[datetime, int]]]:
    """So many tasks that are due before all others: no moment of another one can be among as many."""
    found: list[tuple[Any, int]] = []
    for task in state.tasks.walk():
        if task is None:
            yield None
        elif task.due_at and not task.is_notice and not (until_at and task.due_at > until_at):
            found.append((task.due_at, task.id))
            if len(found) > 2 * count + SLICE:
                found.sort()
                del found[count:]
    return sorted(found)[:count]


# --- fires to come, hour by hour ------------------------------------------------------------------


LOAD_COLUMNS = ("hour", "fires", "busy-s")
WEEK, LONGEST = timedelta(days=7), timedelta(days=31)
_HOUR_S = 3600
Counts = Sequence[int]  # of moments, an hour each


def show_load(state: State, query: q.ShowNext, now: datetime) -> Reply:
    """What is to come from now on; Refusal (`limit`) where that would be too long a time."""
    within = query.within or WEEK
    if query.ref != "all" or query.tz or query.from_at:
        raise Refusal(
            "bad-option", "by=hour is for all tasks, from now on and in UTC; last= says how long", "by"
        )
    if within > LONGEST:
        raise Refusal("limit", f"last=: at most {LONGEST.days} days can be told by the hour", "last")
    begin, end = to_seconds(now), to_seconds(now + within)
    first = begin // _HOUR_S
    # An hour ends with the second before the next one begins.
    marks = [begin, *range((first + 1) * _HOUR_S - 1, end, _HOUR_S), end]

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
            yield to_instant(number * _HOUR_S), fires, round(busy_s, 3)

    return Reply.counted(LOAD_COLUMNS, rows())


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
    alike: dict[tuple[Moments, datetime, int], tuple[int, float]] = defaultdict(lambda: (0, 0.0))
    for task in state.tasks.walk():
        if task is None:
            yield None
        elif task.is_notice or task.spec.unread:
            continue
        elif task.paused or state.paused_all or task.spec.options.skip or task.spec.options.count:
            yield _counts_of(state, task, marks, now), 1, usual_s.get(task.id, 0.0)
            yield None
        else:
            moments = task.spec.moments
            begin = to_seconds(state.fires_after(task, now))
            key = moments, now if type(moments) is Cron else task.anchor_at, begin
            tasks, sum_s = alike[key]
            alike[key] = tasks + 1, sum_s + usual_s.get(task.id, 0.0)
    for (moments, anchor_at, begin), (tasks, sum_s) in alike.items():
        yield moments.counts([max(mark, begin) for mark in marks], anchor_at), tasks, sum_s
        yield None


def _counts_of(state: State, task: Task, marks: Sequence[int], now: datetime) -> Counts:
    """Of a task that does not fire at all its moments."""
    moments, options = task.spec.moments, task.spec.options
    begin = to_seconds(state.paused_upto(task, state.fires_after(task, now)))

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
