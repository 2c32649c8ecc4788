"""Workers come and go, and with them what they hold."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from ..base.errors import Refusal
from ..base.replies import Reply
from ..base.text import escape
from ..tasks.task import Run
from . import facts as f
from . import orders as o
from .rules import Decision, Limits, Rule, Rules
from .runs import held_run, unsent
from .state import State


def _join(state: State, order: o.JoinWorker, now: datetime, limits: Limits) -> Decision:
    lease_until_at = now + timedelta(seconds=limits.lease_s)
    running = [[run, attempt] for run, attempt in order.running]
    joined = f.WorkerJoined(
        order.name, order.slots, order.labels, sorted(order.can), order.address, running, lease_until_at,
        order.instance, order.connection,
    )  # fmt: skip
    kills = [
        (order.name, f"KILL {run} {attempt}")
        for run, attempt in order.running
        if _unwanted(state, run, attempt)
    ]
    return Decision([joined, *_never_taken(state, order, now)], None, kills)


def _never_taken(state: State, order: o.JoinWorker, now: datetime) -> list[f.Fact]:
    """The ends of orders that a worker would name if it had ever got them."""
    worker = state.workers.get(order.name)
    if worker is None or not order.holds_all:
        return []
    named = set(order.running)
    held = (state.runs[run] for run in sorted(worker.runs))
    # One with another memory than the one it was sent to cannot know.
    held = (run for run in held if run.instance == order.instance)
    unknown = [run for run in held if run.shown == "sent" and (run.id, run.attempt) not in named]
    return _all_unsent(state, unknown, now)


def _unwanted(state: State, run_id: int, attempt: int) -> bool:
    """Whether work that a worker still does must stop: cancelled, or done again elsewhere."""
    run = state.runs.get(run_id)
    if run is not None:
        return run.attempt != attempt or run.state == "stopping"
    rows = state.outcomes.get(run_id, [])
    return any(row.attempt == attempt and row.state in ("cancelled", "timeout") for row in rows)


def _drop(state: State, order: o.DropWorker, now: datetime, limits: Limits) -> Decision:
    facts = _unsend(state, order.name, order.unsent, now)
    worker = state.workers.get(order.name)
    # It may be here again: this order may have waited for the disk while it came back.
    if worker and worker.connected and worker.connection == order.connection:
        until_at = now + timedelta(seconds=limits.lease_s)
        facts.append(f.WorkerLeft(order.name, order.why, until_at))
    return Decision(facts)


def _dismiss(state: State, order: o.DismissWorker, now: datetime, limits: Limits) -> Decision:
    worker = state.workers[order.name]
    return Decision([f.WorkerLeaving(order.name)] if worker.connection == order.connection else [])


def _drain(state: State, order: o.DrainWorker, now: datetime, limits: Limits) -> Decision:
    worker = state.workers.get(order.name)
    if worker is None:
        raise Refusal("not-found", f'no worker "{escape(order.name[:80])}"')
    word = "draining" if order.draining else "ready"
    facts: list[f.Fact] = (
        [f.WorkerDrained(order.name, order.draining)] if worker.draining != order.draining else []
    )
    return Decision(facts, Reply(f"{order.name} {word}", {"worker": order.name, "state": word}))


def _unsend(state: State, worker: str, runs: Iterable[tuple[int, int]], now: datetime) -> list[f.Fact]:
    held = (held_run(state, worker, run, attempt) for run, attempt in runs)
    return _all_unsent(state, [run for run in held if run and run.shown == "sent"], now)


def _all_unsent(state: State, runs: Iterable[Run], now: datetime) -> list[f.Fact]:
    runs = list(runs)
    facts = [fact for run in runs for fact in unsent(state, run, now)]
    ended = {fact.run for fact in facts if isinstance(fact, f.RunEnded) and fact.final}
    for task in [task for each in {run.task_id for run in runs} if (task := state.tasks.get(each))]:
        # Each of them leaves a one-off to the others, which end with it.
        if task.spec.schedule.kind == "at" and task.due_at is None and 1 < len(task.runs):
            facts += [f.TaskRemoved(task.id, "done")] if ended.issuperset(task.runs) else []
    return facts


def _unsend_runs(state: State, order: o.UnsendRuns, now: datetime, limits: Limits) -> Decision:
    return Decision(_unsend(state, order.worker, order.runs, now))


WORKERS: Rules = {
    o.JoinWorker: Rule(_join),
    o.DropWorker: Rule(_drop),
    o.UnsendRuns: Rule(_unsend_runs),
    o.DismissWorker: Rule(_dismiss),
    o.DrainWorker: Rule(_drain, "DRAIN"),
}
