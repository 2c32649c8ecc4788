"""The tables as the facts that a checkpoint holds, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from ..tasks.task import Failure, Run, Task, TaskSpec, Worker
from . import beats
from . import facts as f
from .changelog import read_step
from .tables import Tables

_CARRIED = (
    "attempt", "delayed_until_at", "worker", "sent_at", "started_at", "lease_until_at", "output_bytes",
)  # fmt: skip


def of_task(task: Task) -> Iterator[f.Fact]:
    """A task, and how it failed last if that was not mended since."""
    yield f.TaskCarried(
        task.id, task.rev, task.spec.record, task.anchor_at, task.due_at, task.paused or None,
        task.paused_until_at, task.paused_why or None, dict(task.counts or {}) or None, task.decided or None,
        task.fired or None, dict(task.heard) or None, task.is_notice or None,
    )  # fmt: skip
    if (bad := task.failure) is not None:
        yield f.FailureCarried(
            task.id, bad.since_at, bad.run, bad.state, bad.due_at, bad.ended_at, bad.exit, bad.why
        )


def of_worker(worker: Worker) -> f.WorkerCarried:
    """A worker that is, or was, connected."""
    return f.WorkerCarried(
        worker.name, worker.slots, worker.labels, sorted(worker.can), worker.address, worker.since_at,
        worker.draining, worker.connected, worker.leaving, worker.instance or None, worker.connection or None,
    )  # fmt: skip


def new_worker(fact: f.WorkerJoined | f.WorkerCarried, at: datetime) -> Worker:
    """A worker that was not known before."""
    return Worker(fact.name, fact.slots, fact.labels, frozenset(fact.can), fact.address, at)


def of_run(run: Run) -> f.RunCarried:
    """A run that has not ended."""
    return f.RunCarried(
        run.id, run.task_id, run.spec.record, run.due_at, run.queued_at, run.by, run.args,
        run.attempt, run.shown, run.state == "parked", run.delayed_until_at, run.worker, run.sent_at,
        run.started_at, run.lease_until_at, run.ends_as, run.output_bytes, run.nth if run.nth > 1 else None,
        run.state == "awaiting" or None, run.target or None, run.blame or None, run.unsent or None,
        run.lease_renewed or None, run.instance or None,
    )  # fmt: skip


def take_run(fact: f.RunCarried, spec: TaskSpec) -> Run:
    """The inverse of `of_run`; `spec` is the definition that its record tells."""
    run = Run(fact.run, fact.task, spec, fact.due_at, fact.queued_at, fact.by, fact.args)
    for name in _CARRIED:
        setattr(run, name, getattr(fact, name))
    run.nth, run.target, run.ends_as = fact.nth or 1, fact.target or "", fact.stopping
    run.blame, run.unsent, run.lease_renewed = fact.blame or "", fact.unsent or 0, bool(fact.renewed)
    run.instance = fact.instance or ""
    run.has_output = True  # perhaps; what it was is in the journal, not in a checkpoint
    return run


def carry(state: Tables) -> Iterator[f.Fact]:
    """The whole state as facts; applied to an empty State they give this one again."""
    yield f.StateCarried(
        state.next_task, state.next_run, state.paused_all, state.paused_until_at, state.paused_why, state.tz,
        list(state.saved), dict(state.totals),
        state.last_step_s, state.last_step_at, state.beats.from_at, state.decided_upto_at,
        state.jumped_upto_at, state.jumped_by_s if state.jumped_upto_at else None,
    )  # fmt: skip
    yield f.LedgerCarried(state.ledger.carry())
    for task in state.tasks.values():
        yield from of_task(task)
    yield from map(of_worker, state.workers.values())
    yield from map(beats.carried, state.beats.expected.values())
    for (about, event), told in state.told.items():
        yield f.NoticeGiven(about, event, told.since_at, told.given, told.withheld)
    for run_id in sorted(state.runs):
        yield of_run(state.runs[run_id])
    yield from state.unfinished.carry()
    yield from state.changes.carry()
    if again := state.unfinished.again:
        done = sorted(again.done) or None
        yield f.RescheduleBegun(again.from_at, again.zoneless or None, again.upto or None, done)


# --- back ---


def whole_task(state: Tables, fact: f.TaskCarried | f.TaskRestored) -> Task:
    task = Task(fact.id, state.read(fact.record), fact.anchor_at, fact.rev)
    task.paused, task.paused_until_at = bool(fact.paused), fact.paused_until_at
    task.paused_why, task.fired = fact.paused_why or "", fact.fired or 0
    # Copies: a fact is a value, and nobody changes one after making it.
    task.counts, task.heard = dict(fact.counts or {}) or None, dict(fact.heard or {})
    return task


def _state_carried(state: Tables, fact: f.StateCarried, at: datetime, seq: int) -> None:
    state.next_task, state.next_run, state.tz = fact.next_task, fact.next_run, fact.tz
    state.paused_all, state.paused_until_at = fact.paused_all, fact.paused_until_at
    state.paused_why, state.totals = fact.paused_why, dict(fact.totals)
    state.saved.extend(fact.saved)
    state.last_step_s, state.last_step_at = fact.last_step_s, fact.last_step_at
    state.beats.give_grace(fact.beats_from_at or state.beats.from_at)
    state.decided_upto_at = fact.decided_upto_at or at
    state.jumped_upto_at, state.jumped_by_s = fact.jumped_upto_at, fact.jumped_by_s or 0.0
    state.history_from_seq = seq
    state.ledger.take_totals(fact.totals, at)


def _failure_carried(state: Tables, fact: f.FailureCarried, at: datetime, seq: int) -> None:
    state.tasks[fact.task].failure = Failure(
        fact.since_at, fact.run, fact.state, fact.due_at, fact.ended_at, fact.exit, fact.why
    )


def _task_carried(state: Tables, fact: f.TaskCarried, at: datetime, seq: int) -> None:
    task = whole_task(state, fact)
    task.is_notice = bool(fact.notice)
    state.put(task)
    state.set_due(task, fact.due_at, fact.decided or 0)


def _run_carried(state: Tables, fact: f.RunCarried, at: datetime, seq: int) -> None:
    task = state.tasks.get(fact.task)
    run = take_run(fact, state.read(fact.record))
    state.put_run(run)
    state.ledger.take_run(run, at)
    if task:
        task.runs.append(run.id)
        task.runs.sort()
    if fact.state != "queued":
        run.state = "stopping" if fact.stopping else fact.state
        _index_held(state, run)
    elif fact.parked or fact.awaits:
        run.move("parked" if fact.parked else "awaiting")
    else:
        state.enqueue(run)


def _index_held(state: Tables, run: Run) -> None:
    assert run.worker is not None
    assert run.sent_at is not None
    if worker := state.workers.get(run.worker):
        worker.runs.add(run.id)
    state.leases.set(run.id, run)
    state.timeouts.set(run.id, run)


def _worker_carried(state: Tables, fact: f.WorkerCarried, at: datetime, seq: int) -> None:
    worker = state.workers[fact.name] = new_worker(fact, fact.since_at)
    worker.connected, worker.draining, worker.leaving = fact.connected, fact.draining, fact.leaving
    worker.instance, worker.connection = fact.instance or "", fact.connection or 0


APPLY: dict[type[f.Fact], Callable[[Tables, Any, datetime, int], None]] = {
    f.StateCarried: _state_carried,
    f.LedgerCarried: lambda state, fact, at, seq: state.ledger.take(fact.rows),
    f.TaskCarried: _task_carried,
    f.FailureCarried: _failure_carried,
    f.RunCarried: _run_carried,
    f.ExpectationCarried: lambda state, fact, at, seq: state.beats.take(fact),
    f.WorkerCarried: _worker_carried,
    f.BulkCarried: lambda state, fact, at, seq: state.unfinished.bulk_carried(fact),
    f.ChangeCarried: lambda state, fact, at, seq: state.changes.open(fact.change, fact.made_at, fact),
    f.StepCarried: lambda state, fact, at, seq: state.changes.add(read_step(fact)),
}
