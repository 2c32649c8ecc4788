"""What a change of tasks is about to replace, kept for UNDO and HISTORY."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from . import facts as f
from .changelog import ALL, STEPS, Step, Was, defined, pause_of, whole
from .tables import Tables

Applier = Callable[[Tables, Any, datetime, int], None]


def noted(change: Applier) -> Applier:
    """Of what a client may have asked for, what it replaces is noted first."""

    def note_first(state: Tables, fact: f.Asked, at: datetime, seq: int) -> None:
        if fact.change is not None:
            state.changes.open(fact.change, at, fact)
            if type(fact) is f.TaskAdded:  # before which there was nothing
                state.changes.add(Step("added", fact.id, 1, None))
            else:
                for step in _steps(state, fact):
                    state.changes.add(step)
        change(state, fact, at, seq)

    return note_first


def _steps(state: Tables, fact: Any) -> Iterator[Step]:
    if isinstance(fact, f.BulkDecided):
        return
    kind = STEPS[fact.__class__]
    if kind == "template":
        words = state.templates.get(fact.name)
        yield Step(kind, ALL, 0, Was(ALL, 0, {"template": fact.name, "words": words}))
        return
    task = None if fact.id is None else state.tasks.get(fact.id)
    if isinstance(fact, f.TaskRestored):
        yield Step(kind, fact.id, fact.rev, None)
    elif isinstance(fact, f.TaskPaused | f.TaskResumed) and task is None:
        until_at, why = state.paused_until_at, state.paused_why
        was = Was(ALL, paused=state.paused_all, paused_until_at=until_at, paused_why=why)
        yield Step(kind, ALL, 0, was)
        if isinstance(fact, f.TaskResumed) and not fact.own_stay:
            lifted = [state.tasks[task_id] for task_id in sorted(state.paused)]  # as a checkpoint tells them
            yield from (Step(kind, each.id, each.rev, pause_of(each)) for each in lifted)
    elif task is not None:
        take = {"changed": defined, "removed": whole}.get(kind, pause_of)
        yield Step(kind, task.id, getattr(fact, "rev", task.rev), take(task))
