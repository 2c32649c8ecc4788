"""All of it at a glance: HEALTH, SUMMARY and NEXT all.

HEALTH walks nothing, since probes ask it every few seconds of a daemon that may have a million tasks;
the others walk all tasks, and give way.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import islice
from typing import Any

from ..base.errors import Refusal
from ..base.replies import Reply
from ..base.text import format_time
from ..base.walks import SLICE
from ..engine.ledger import DISPOSITIONS
from ..engine.state import OLDEST_TIME, State
from ..schedules.schedule import Row as MomentRow
from ..schedules.zones import load_zone
from ..tasks.reasons import in_words
from ..tasks.task import Run, Task
from . import questions as q
from .stats import success_of
from .views import MOMENT_COLUMNS, PAIR_COLUMNS, Row, moments_to_come, task_state

BIG_STEP_S = 60.0
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
    if step_s and step_at and abs(step_s) >= BIG_STEP_S and now - step_at < STEP_TOLD:
        yield "clock", f"it was set by {step_s:+.0f} s at {format_time(step_at)}"


def _waits_longest(state: State) -> Run | None:
    """Of the runs that wait for a worker and nothing else, the one that came first."""
    lanes = state.lanes
    # A list, since empty lanes are dropped while they are looked at.
    every = list(islice(((on, work) for on, works in lanes.heaps.items() for work in works), MAX_LANES))
    firsts = [state.runs[first[1]] for lane in every if (first := lanes.first_in(lane))]
    return min(firsts, key=lambda run: run.queued_at, default=None)


def summarize(state: State, now: datetime) -> Reply:
    """SUMMARY: the tasks by state, the last day's fires by disposition, and what comes next."""
    account = state.ledger.account((), now - DAY, now)

    def rows() -> Iterator[Row | None]:
        states, failed = yield from count_states(state, now)
        yield "tasks", states.total()
        yield from ((f"tasks-{word}", number) for word, number in sorted(states.items()))
        yield "failed-now", failed
        yield "since", account.since_at
        yield from ((f"fires-{name}", account.ends[name]) for name in DISPOSITIONS)
        yield "success", success_of(account.ends)
        for found in _moments_of_all(state, now, None, NEXT_OF_ALL):
            yield None if found is None else ("next", f"{format_time(found[1][1])} {found[0].name}")

    return Reply("", {}, PAIR_COLUMNS, rows(), "rows")


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


def next_of_all(state: State, query: q.ShowNext, now: datetime) -> Reply:
    """NEXT all: the moments of all tasks in order of time."""
    if query.from_at:
        raise Refusal("bad-option", "from= is for one task or schedule; of all, moments are told from now on")
    zone = load_zone(query.tz).info if query.tz else None

    def rows() -> Iterator[Row | None]:
        until_at = None if query.within is None else now + query.within
        for found in _moments_of_all(state, now, until_at, query.count):
            if found is None:
                yield None
                continue
            task, (local, at, remark) = found
            yield at.astimezone(zone).isoformat() if zone else local, at, remark, task.id, task.name

    return Reply("", {}, (*MOMENT_COLUMNS, "id", "jobName"), rows(), "rows")


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
                put(task.id, moments_to_come(state, task, now))
        elif coming:
            at, task_id, row, rows = heappop(coming)
            if until_at and at > until_at:
                return
            if task := state.tasks.get(task_id):
                count -= 1
                yield task, row
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
