"""Which worker takes which run: pure choice, no state of its own.

The order of a lane: a run waits as if it had come later by the handicap of its priority,
so a low one is passed only by runs that were queued less than five minutes after it,
and never starves. Among workers that may take a run the one with the most free slots
wins, then the first by name, so the same state always gives the same answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from ..base.text import format_time
from ..tasks.task import Run, TaskSpec, Worker
from .dependencies import standing
from .lanes import accepts
from .state import State


def choose(state: State) -> tuple[Run, Worker] | None:
    """The next run to send and where to; None while nothing can be placed."""
    while found := state.lanes.next_ready():
        run, (on, work) = found
        if worker := best_worker(work, on, state.lanes.free.values()):
            return run, worker
        state.lanes.put_off((on, work))
    return None


def best_worker(work: str, on: str, free: Iterable[Worker]) -> Worker | None:
    """Among workers with a free slot, the one for a run of this work and on=."""
    candidates = [worker for worker in free if accepts(worker, work, on)]
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    return min(candidates, key=lambda worker: (-worker.free, worker.name))


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
    if run.state == "delayed" and run.delayed_until_at:
        why = "jitter" if run.attempt == 1 else "retry"
        return f"{format_time(run.delayed_until_at)} ({why}=)"
    able = [worker for worker in state.workers.values() if accepts(worker, run.spec.work, run.on)]
    if not able:
        where = "" if run.on == "any" else f" and is on={run.on}"
        return f"a worker that can do {run.spec.work}{where} (none is known)"
    if not any(worker.connected for worker in able):
        return f"worker {able[-1].name}, which is away" if len(able) == 1 else "a worker; all are away"
    if not any(worker.takes_runs for worker in able):
        return "a worker that is not draining"
    return "a free slot"
