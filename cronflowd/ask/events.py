"""Facts as WATCH shows them: one row an event, in words a person reads.

Described before the fact is applied, while what it takes away can still be named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from typing import Any

from attrs import frozen

from ..base.text import format_time
from ..engine import facts as f
from ..engine.changelog import record_of
from ..engine.state import State
from ..tasks.reasons import in_words

COLUMNS = ("time", "event", "id", "jobName", "run", "attempt", "worker", "detail")


@frozen
class Event:
    """One row of WATCH, and what decides who sees it."""

    kind: str  # `tasks`, `runs` or `workers`
    task_id: int | None
    row: tuple[Any, ...]


def describe(fact: f.Fact, at: datetime, state: State) -> Iterator[Event]:
    """The events a fact is; none for what concerns nobody outside (saves, checkpoints, output)."""
    if isinstance(fact, f.RunEnded) and fact.began:
        run = state.runs[fact.run]
        row = (at, "run-started", fact.task, fact.name, fact.run, fact.attempt, run.worker, None)
        yield Event("runs", fact.task, row)
    if event := _describe(fact, at, state) or _flow(fact, at, state):
        yield event
    if isinstance(fact, f.RunQueued) and fact.worker:
        row = (at, "run-sent", fact.task, state.tasks[fact.task].name, fact.run, 1, fact.worker, None)
        yield Event("runs", fact.task, row)


def _describe(fact: f.Fact, at: datetime, state: State) -> Event | None:
    name = _name_of(type(fact))
    row: tuple[Any, ...]
    match fact:
        case f.TaskAdded() | f.TaskChanged() | f.TaskRestored():
            record = record_of(fact.record)
            return _task(at, name, fact.id, record["jobName"], f"{record['schedule']} {record['command']}")
        case f.TaskRemoved():
            return _task(at, name, fact.id, state.tasks[fact.id].name, fact.why)
        case f.TaskPaused() | f.TaskResumed():
            label = state.tasks[fact.id].name if fact.id is not None else "all"
            return _task(at, name, fact.id, label, getattr(fact, "why", ""))
        case f.RecordUnread():
            return _task(at, name, fact.task, fact.name, fact.why)
        case f.FiresPassed():
            detail = f"{fact.count} from {format_time(fact.first_due_at)}: {in_words(fact.why)}"
            row = (at, f"fire-{fact.state}", fact.task, fact.name, None, None, None, detail)
            return Event("runs", fact.task, row)
        case f.RunQueued():
            row = (at, name, fact.task, state.tasks[fact.task].name, fact.run, 1, None, fact.by)
            return Event("runs", fact.task, row)
        case f.RunAdmitted() | f.RunSent() | f.RunStarted() | f.RunStopping() | f.RunRetried():
            return _run(at, name, fact, state)
        case f.RunEnded():
            detail = fact.state if fact.exit is None else f"{fact.state} exit={fact.exit}"
            row = (at, name, fact.task, fact.name, fact.run, fact.attempt, fact.worker, detail)
            return Event("runs", fact.task, row)
        case f.WorkerJoined() | f.WorkerLeft() | f.WorkerLeaving():
            why = in_words(fact.why) if isinstance(fact, f.WorkerLeft) else None
            row = (at, name, None, None, None, None, fact.name, why)
            return Event("workers", None, row)
        case f.ExpectationSet() | f.ExpectationForgotten() | f.BeatReceived() | f.BeatMissed():
            return _task(at, name, None, fact.name, _about_beat(fact))
        case f.WorkerDrained():
            event = name if fact.draining else "worker-undrained"
            return Event("workers", None, (at, event, None, None, None, None, fact.name, None))
    return None


@cache
def _name_of(kind: type) -> str:
    """`RunQueued` is `run-queued`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", kind.__name__).lower()


def _task(at: datetime, name: str, task_id: int | None, label: str, detail: str) -> Event:
    return Event("tasks", task_id, (at, name, task_id, label, None, None, None, detail))


def _about_beat(fact: f.ExpectationSet | f.ExpectationForgotten | f.BeatReceived | f.BeatMissed) -> str:
    match fact:
        case f.ExpectationSet():
            return f"every {fact.every}"
        case f.BeatReceived():
            return f"{fact.state} {fact.text}".rstrip()
        case f.BeatMissed():
            return f"due {format_time(fact.due_at)}"
    return ""


def _flow(fact: f.Fact, at: datetime, state: State) -> Event | None:
    """What becomes of a run of a flow; it stands under the first task of that."""
    if not isinstance(fact, f.FlowStarted | f.FlowRetried | f.FlowStopping | f.FlowEnded):
        return None
    flow, more = fact if isinstance(fact, f.FlowStarted) else state.flows.find(fact.flow), ""
    assert flow
    if isinstance(fact, f.FlowStarted | f.FlowEnded):
        more = f": {len(fact.tasks)} tasks" if isinstance(fact, f.FlowStarted) else f": {fact.state}"
    detail = f"flow run {fact.flow}{more}"
    return Event(
        "runs", flow.root, (at, _name_of(type(fact)), flow.root, flow.name, None, None, None, detail)
    )


def _run(
    at: datetime,
    name: str,
    fact: f.RunAdmitted | f.RunSent | f.RunStarted | f.RunStopping | f.RunRetried,
    state: State,
) -> Event:
    run = state.runs[fact.run]
    worker = fact.worker if isinstance(fact, f.RunSent) else run.worker
    detail = getattr(fact, "why", None)
    if isinstance(fact, f.RunRetried):
        worker, detail = None, f"not before {format_time(fact.not_before_at)}"
    attempt = fact.attempt if hasattr(fact, "attempt") else run.attempt
    row = (at, name, run.task_id, run.spec.name, run.id, attempt, worker, detail)
    return Event("runs", run.task_id, row)
