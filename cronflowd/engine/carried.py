"""Rows of the tables as the facts that a checkpoint holds, and back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from ..tasks.task import Run, Task, TaskSpec, Worker
from . import facts as f

_CARRIED = (
    "attempt", "state", "parked", "delayed_until_at", "worker", "sent_at", "started_at", "lease_until_at",
    "stopping", "output_bytes",
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


def take_worker(fact: f.WorkerCarried) -> Worker:
    """The inverse of `of_worker`."""
    worker = new_worker(fact, fact.since_at)
    worker.connected, worker.draining, worker.leaving = fact.connected, fact.draining, fact.leaving
    worker.instance, worker.connection = fact.instance or "", fact.connection or 0
    return worker


def of_run(run: Run) -> f.RunCarried:
    """A run that has not ended."""
    return f.RunCarried(
        run.id, run.task_id, run.spec.record, run.due_at, run.queued_at, run.by, run.args,
        run.attempt, run.state, run.parked, run.delayed_until_at, run.worker, run.sent_at, run.started_at,
        run.lease_until_at, run.stopping, run.output_bytes, run.nth if run.nth > 1 else None,
        run.awaits or None, run.target or None, run.blame or None, run.unsent or None,
        run.lease_renewed or None, run.instance or None,
    )  # fmt: skip


def take_run(fact: f.RunCarried, spec: TaskSpec) -> Run:
    """The inverse of `of_run`; `spec` is the definition that its record tells."""
    run = Run(fact.run, fact.task, spec, fact.due_at, fact.queued_at, fact.by, fact.args)
    for name in _CARRIED:
        setattr(run, name, getattr(fact, name))
    run.nth, run.awaits, run.target = fact.nth or 1, bool(fact.awaits), fact.target or ""
    run.blame, run.unsent, run.lease_renewed = fact.blame or "", fact.unsent or 0, bool(fact.renewed)
    run.instance = fact.instance or ""
    run.has_output = True  # perhaps; what it was is in the journal, not in a checkpoint
    return run
