"""Which worker takes which run, and what it is told: pure choice, no state of its own.

The order of a lane: a run waits as if it had come later by the handicap of its priority,
so a low one is passed only by runs that were queued less than five minutes after it,
and never starves. Among workers that may take a run the one with the most free slots
wins, then the first by name, so the same state always gives the same answer.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from heapq import heapify, heappop, heapreplace
from typing import Any

from ..base.text import format_option, format_time, format_written
from ..tasks.options import DEFAULTS
from ..tasks.reasons import reason
from ..tasks.task import Run, Task, TaskSpec, Worker, tell_work
from . import facts as f
from .dependencies import standing
from .lanes import Lane, Lanes, accepts
from .rules import Decision
from .secrets import Unready, filled
from .state import State

PLACED_TOGETHER = 50  # in one decision
MAX_PLACED_CHARS = 65_536  # of orders that leave together: then it is looked whether their workers read them
_told: list[tuple[datetime | None, str]] = [(None, "")]  # the last moment that was told, and how
MAX_FILLED_BYTES = 128 * 1024  # of options with secrets: the order is no longer than workers are told


class Room:
    """The slots of the workers that are free, as the runs of one decision take them one after the other.

    Whoever may take a run of one work and on= is looked for once: of 1,000 workers, one by one for
    each run, that would be most of what a run costs.
    """

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._left: dict[str, int] = {}  # slots, by worker
        # By work and on=, a heap: those that may take such a run, who would take the next one first.
        self._orders: dict[Lane, list[tuple[int, str]]] = {}

    def take(self, work: str, on: str) -> Worker | None:
        """Who takes a run of this work and on=, if anybody does."""
        try:
            order = self._orders[on, work]
        except KeyError:
            order = self._orders[on, work] = []
            for worker in self._lanes.free.values() if on == "any" else self._lanes.free_for(on):
                if (on != "any" or work not in worker.can) and not accepts(worker, work, on):
                    continue
                if left := self._left.setdefault(worker.name, worker.free):
                    order.append((-left, worker.name))
            if order[1:]:
                heapify(order)
        while order:
            slots, name = order[0]
            left = self._left[name]
            if takes := left == -slots:  # else it has taken one of another work or on=
                self._left[name] = left = left - 1
            heapreplace(order, (-left, name)) if left else heappop(order)
            if takes:
                return self._lanes.free[name]
        return None


def best_worker(lanes: Lanes, work: str, on: str) -> Worker | None:
    """The same for one run alone."""
    best: Worker | None = None
    for worker in lanes.free.values() if on == "any" else lanes.free_for(on):
        if (on != "any" or work not in worker.can) and not accepts(worker, work, on):
            continue
        if best is None or (-worker.free, worker.name) < (-best.free, best.name):
            best = worker
    return best


def choose(state: State, most: int = PLACED_TOGETHER) -> list[tuple[int, str]]:
    """The next runs to send and where to, as they would be chosen one after the other."""
    lanes = state.lanes
    lanes.take_back()
    places: list[tuple[int, str]] = []
    room = Room(lanes)
    while len(places) < most and (found := lanes.next_ready()):
        run, (on, work) = found
        if worker := room.take(work, on):
            places.append((run.id, worker.name))
            lanes.leaving.add(run.id)
        else:
            lanes.put_off((on, work))
    return places


def send_at_once(
    state: State, task: Task, decision: Decision, now: datetime, room: Room | None = None
) -> None:
    """A run that is being queued goes to a worker that is free; the fact that queues it says to whom.

    Only where no other run waits that some free worker would take: nobody is passed. `room` is there
    where several are queued in one decision.
    """
    queued: Any = decision.facts[-1] if decision.facts else None
    if state.lanes.ready or queued.__class__ is not f.RunQueued:
        return
    # With on=all there are several, of which each has a worker of its own.
    if queued.parked or queued.awaits or queued.not_before_at or queued.target:
        return
    spec = task.spec
    if spec.options.wants:
        return  # whether they can be had is looked at when it is placed
    work, on = spec.work, spec.options.on
    if worker := room.take(work, on) if room else best_worker(state.lanes, work, on):
        queued.worker = worker.name
        line = _order(state, queued.run, 1, task.id, spec, queued, task)
        decision.messages.append((worker.name, line))


def order_line(state: State, run: Run, task: Task | None) -> str:
    """What its worker reads; `task` is its task, if that is still there. Raises Unready."""
    return _order(state, run.id, run.attempt, run.task_id, run.spec, run, task)


def _order(
    state: State,
    run: int,
    attempt: int,
    task_id: int,
    spec: TaskSpec,
    fire: Run | f.RunQueued,
    task: Task | None,
) -> str:
    # Every order passes here. What is not known for sure is not done at all, least of all by a shell.
    if spec.unread:
        raise AssertionError(f"run {run} of a record that cannot be read was to be sent")
    # Most of the line is the same at every run of a task, and is kept with the task.
    head, command = task.run_head if task and task.spec is spec else "", spec.command
    if not head and (spec.options.wants or fire.by == "notice") and (wants := spec.wants(fire.by)):
        # Which stands nowhere but in the order; and the secrets may be others at the next one.
        head, command = _head_with(state, task_id, spec, wants)
    elif not head:
        head = _run_head(task_id, spec, state.common.timeout_of(spec.options))
        if task and task.spec is spec:
            task.run_head = head
    told_at, due = _told[0]
    if told_at is not fire.due_at:  # as it mostly is, where many fire at once
        due = format_time(fire.due_at)
        _told[0] = fire.due_at, due
    moment = f"{task_id}/{due}"
    if fire.nth > 1:
        moment += f"#{fire.nth}"  # a clock change brought several moments to this one
    if fire.target:
        moment += f"@{fire.target}"
    if fire.by in ("manual", "after", "on", "flow"):
        moment += f"/{run}"  # no moment names them: two may come in one millisecond, and are two fires
    args = ""
    for key, value in fire.args.items() if fire.args else ():
        args += f" {format_option(f'arg.{key}', value)}"
    return f"RUN {run} {attempt} due={due} fire={moment}{args} {head} :{command}"


def _head_with(state: State, task_id: int, spec: TaskSpec, wants: tuple[str, ...]) -> tuple[str, str]:
    """The same head and the command, with secrets in them. Raises Unready."""
    spec, values = filled(state.access, spec, wants)
    head = _run_head(task_id, spec, state.common.timeout_of(spec.options), format_written)
    head += "".join([f" {format_written(f'secret.{name}', value)}" for name, value in values])
    if len(head.encode()) > MAX_FILLED_BYTES:
        raise Unready(reason("secret-long", most=MAX_FILLED_BYTES))
    return head, spec.command


def _run_head(
    task_id: int, spec: TaskSpec, timeout_s: float, form: Callable[[str, str], str] = format_option
) -> str:
    options = spec.options
    words = [f"type={options.type}", f"task={task_id}", f"name={spec.name}"]
    if timeout_s:
        # Not `g`: a shell cannot count with 1.2e+06.
        words.append("timeout=" + f"{timeout_s:.3f}".rstrip("0").rstrip("."))
    if options.user:
        words.append(f"user={options.user}")
    if options.cwd:
        words.append(format_option("cwd", options.cwd))
    words += [form(f"env.{name}", value) for name, value in options.env]
    words += [form(f"header.{name}", value) for name, value in options.headers]
    if options.payload:
        words.append(form("payload", options.payload))
    if options.body:
        words.append(form("body", options.body))
    if options.expect != DEFAULTS.expect:
        words.append(form("expect", options.expect))
    if options.secret:
        words.append(form("secret", options.secret))
    if options.stdin:
        words.append(form("stdin", options.stdin))
    return " ".join(words)


def all_targets(state: State, spec: TaskSpec, now: datetime) -> list[str]:
    """With on=all, the workers that a fire is for: those that are here, or were within its grace."""
    oldest = now - timedelta(seconds=spec.options.grace_s)
    return sorted(
        worker.name
        for worker in state.workers.values()
        if accepts(worker, spec.work, "any") and not (worker.draining or worker.leaving)
        if worker.connected or worker.since_at >= oldest
    )


def why_waiting(run: Run, state: State) -> str:
    """For people: what a queued run waits for."""
    if run.state == "parked":
        return "an earlier run of this task to end"
    if run.state == "awaiting" and (task := state.tasks.get(run.task_id)):
        return f"its dependencies: {', '.join(standing(state, task)[0])}"
    if run.state == "delayed" and (until_at := state.shown(run.delayed_until_at)):
        why = "jitter" if run.attempt == 1 else "retry"
        return f"{format_time(until_at)} ({why}=)"
    able = [worker for worker in state.workers.values() if accepts(worker, run.spec.work, run.on)]
    if not able:
        where = "" if run.on == "any" else f" and is on={run.on}"
        return f"a worker that can do {tell_work(run.spec.work)}{where} (none is known)"
    if not any(worker.connected for worker in able):
        return f"worker {able[-1].name}, which is away" if len(able) == 1 else "a worker; all are away"
    if not any(worker.takes_runs for worker in able):
        return "a worker that is not draining"
    return "a free slot"
