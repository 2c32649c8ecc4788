"""Facts as WATCH shows them: one row an event, in words a person reads.

Described before the fact is applied, while what it takes away can still be named; or, of facts
that were applied long ago, by what stands beside them in the journal.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from attrs import frozen

from ..base.text import format_time
from ..engine import access_facts as af
from ..engine import facts as f
from ..engine.changelog import record_of
from ..engine.state import State
from ..tasks.reasons import in_words

COLUMNS = ("time", "event", "id", "jobName", "run", "attempt", "worker", "detail", "seq")
KINDS = ("tasks", "runs", "workers")  # unless others are asked for
ALL_KINDS = (*KINDS, "accounts")


@frozen
class Event:
    """One row of WATCH but for its last column, and what decides who sees it."""

    kind: str  # one of ALL_KINDS
    task_id: int | None
    row: tuple[Any, ...]


@frozen
class Present:
    """What is so, before the fact is applied: names for what a fact tells by its number alone."""

    state: State

    def task(self, task_id: int) -> str:
        return self.state.tasks[task_id].name

    def run(self, run: int, attempt: int) -> tuple[int | None, str, str | None]:
        """Whose it is (id and name), and which worker has this attempt."""
        found = self.state.runs[run]
        return found.task_id, found.spec.name, found.worker

    def flow(self, number: int) -> tuple[int | None, str]:
        """Its first task."""
        flow = self.state.flows.find(number)
        assert flow
        return flow.root, flow.name


Replaced = Mapping[tuple[int, int | None], str]  # names, by task and the change that may have ended them
Record = tuple[int, datetime, f.Fact]


class Past:
    """The same while these records were written; `state` is later than all of them.

    A run has ended in one of them, or later, or has not: its name is there. A task says its name when it
    is defined, and `replaced` what it was before. A thread may ask.
    """

    def __init__(self, records: Sequence[Record], state: State, replaced: Replaced) -> None:
        self._state = state
        self._names: dict[int, str] = {}  # as far as `see` has come
        self._hints: dict[int, str] = {}
        self._ended: dict[int, f.RunEnded] = {}
        self._workers: dict[tuple[int, int], str | None] = {}
        self._flows: dict[int, tuple[int | None, str]] = {}
        for row in list(state.recent):
            self._hints[row.task_id] = row.name
        for _, _, fact in reversed(records):
            self._learn(fact, replaced)

    def _learn(self, fact: f.Fact, replaced: Replaced) -> None:
        """From the newest to the oldest, so that the oldest name of a task stays."""
        match fact:
            case f.RunEnded():
                self._ended[fact.run] = fact
                self._workers[fact.run, fact.attempt] = fact.worker
                self._hints[fact.task] = fact.name
            case f.RunSent():
                self._workers[fact.run, fact.attempt] = fact.worker
            case f.RunQueued() if fact.worker:
                self._workers[fact.run, 1] = fact.worker
            case f.FlowStarted():
                self._flows[fact.flow] = fact.root, fact.name
            case f.TaskChanged() | f.TaskRemoved() if name := replaced.get((fact.id, fact.change)):
                self._names[fact.id] = name
            case f.TaskAdded() | f.TaskRestored():
                self._names.pop(fact.id, None)
                self._hints[fact.id] = record_of(fact.record)["jobName"]

    def see(self, fact: f.Fact) -> None:
        """It has been told: what comes after it is named as it says."""
        if isinstance(fact, f.TaskAdded | f.TaskChanged | f.TaskRestored):
            self._names[fact.id] = record_of(fact.record)["jobName"]

    def task(self, task_id: int) -> str:
        if name := self._names.get(task_id):
            return name
        task = self._state.tasks.get(task_id)
        return task.name if task else self._hints.get(task_id, "")

    def run(self, run: int, attempt: int) -> tuple[int | None, str, str | None]:
        worker = self._workers.get((run, attempt))
        if ended := self._ended.get(run):
            return ended.task, ended.name, worker
        if found := self._state.runs.get(run):
            return found.task_id, found.spec.name, worker or found.worker
        rows = self._state.outcomes.get(run)
        return (rows[-1].task_id, rows[-1].name, worker or rows[-1].worker) if rows else (None, "", worker)

    def flow(self, number: int) -> tuple[int | None, str]:
        if found := self._flows.get(number):
            return found
        flow = self._state.flows.find(number)
        return (flow.root, flow.name) if flow else (None, "")


Known = Present | Past


def names_replaced(state: State) -> Generator[None, None, Replaced]:
    """The names that tasks had before the changes that are known."""
    found: dict[tuple[int, int | None], str] = {}
    for each in state.changes.walk():
        if each is None:
            yield None
            continue
        change, step = each
        if step.kind in ("changed", "removed") and step.was:
            found[step.id, change.number] = step.was.name
    return found


def of_the_past(
    records: Sequence[Record], state: State, replaced: Replaced
) -> Iterator[tuple[int, list[Event]]]:
    """What these records were: each one's number, and its events."""
    known = Past(records, state, replaced)
    for seq, at, fact in records:
        yield seq, list(describe(fact, at, known))
        known.see(fact)


def describe(fact: f.Fact, at: datetime, known: Known) -> Iterator[Event]:
    """The events a fact is; none for what concerns nobody outside (saves, checkpoints, output)."""
    if isinstance(fact, f.RunEnded) and fact.began:
        yield _of_run(at, "run-started", fact.task, fact.name, fact.run, fact.attempt, fact.worker, None)
    if event := _describe(fact, at, known) or _flow(fact, at, known):
        yield event
    if isinstance(fact, f.RunQueued) and fact.worker:
        yield _of_run(at, "run-sent", fact.task, known.task(fact.task), fact.run, 1, fact.worker, None)


def _describe(fact: f.Fact, at: datetime, known: Known) -> Event | None:
    name = _name_of(type(fact))
    match fact:
        case f.TaskAdded() | f.TaskChanged() | f.TaskRestored():
            record = record_of(fact.record)
            return _task(at, name, fact.id, record["jobName"], f"{record['schedule']} {record['command']}")
        case f.TaskRemoved():
            return _task(at, name, fact.id, known.task(fact.id), fact.why)
        case f.TaskPaused() | f.TaskResumed():
            label = known.task(fact.id) if fact.id is not None else "all"
            return _task(at, name, fact.id, label, getattr(fact, "why", ""))
        case f.RecordUnread():
            return _task(at, name, fact.task, fact.name, fact.why)
        case f.FiresPassed():
            detail = f"{fact.count} from {format_time(fact.first_due_at)}: {in_words(fact.why)}"
            return _of_run(at, f"fire-{fact.state}", fact.task, fact.name, None, None, None, detail)
        case f.RunQueued():
            return _of_run(at, name, fact.task, known.task(fact.task), fact.run, 1, None, fact.by)
        case f.RunAdmitted() | f.RunSent() | f.RunStarted() | f.RunStopping() | f.RunRetried():
            return _run(at, name, fact, known)
        case f.RunEnded():
            detail = fact.state if fact.exit is None else f"{fact.state} exit={fact.exit}"
            return _of_run(at, name, fact.task, fact.name, fact.run, fact.attempt, fact.worker, detail)
        case f.WorkerJoined() | f.WorkerLeft() | f.WorkerLeaving():
            why = in_words(fact.why) if isinstance(fact, f.WorkerLeft) else None
            return Event("workers", None, (at, name, None, None, None, None, fact.name, why))
        case f.ExpectationSet() | f.ExpectationForgotten() | f.BeatReceived() | f.BeatMissed():
            return _task(at, name, None, fact.name, _about_beat(fact))
        case f.WorkerDrained():
            event = name if fact.draining else "worker-undrained"
            return Event("workers", None, (at, event, None, None, None, None, fact.name, None))
    return _of_account(at, name, fact)


def _of_account(at: datetime, name: str, fact: f.Fact) -> Event | None:
    """What may end somebody's right to look."""
    label, detail = None, None
    match fact:
        case af.AccountSet():
            label, detail = fact.name, "disabled" if fact.disabled else fact.role
        case af.AccountRemoved():
            label = fact.name
        case af.TokenRevoked():
            detail = f"token {fact.id}"
        case af.LoginEnded():
            detail = f"session {fact.id}"
        case af.LoginSet() if fact.over:
            name, label, detail = "login-ended", fact.user, f"session {', '.join(map(str, fact.over))}"
        case _:
            return None
    return Event("accounts", None, (at, name, None, label, None, None, None, detail))


@cache
def _name_of(kind: type) -> str:
    """`RunQueued` is `run-queued`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", kind.__name__).lower()


def _of_run(at: datetime, name: str, task_id: int | None, *rest: object) -> Event:
    return Event("runs", task_id, (at, name, task_id, *rest))


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


def _flow(fact: f.Fact, at: datetime, known: Known) -> Event | None:
    """What becomes of a run of a flow; it stands under the first task of that."""
    if not isinstance(fact, f.FlowStarted | f.FlowRetried | f.FlowStopping | f.FlowEnded):
        return None
    more = ""
    root, label = (fact.root, fact.name) if isinstance(fact, f.FlowStarted) else known.flow(fact.flow)
    if isinstance(fact, f.FlowStarted | f.FlowEnded):
        more = f": {len(fact.tasks)} tasks" if isinstance(fact, f.FlowStarted) else f": {fact.state}"
    detail = f"flow run {fact.flow}{more}"
    return _of_run(at, _name_of(type(fact)), root, label, None, None, None, detail)


def _run(
    at: datetime,
    name: str,
    fact: f.RunAdmitted | f.RunSent | f.RunStarted | f.RunStopping | f.RunRetried,
    known: Known,
) -> Event:
    attempt = 1 if isinstance(fact, f.RunAdmitted) else fact.attempt
    task_id, label, worker = known.run(fact.run, attempt)
    detail = getattr(fact, "why", None)
    if isinstance(fact, f.RunSent):
        worker = fact.worker
    elif isinstance(fact, f.RunAdmitted):
        worker = None
    elif isinstance(fact, f.RunRetried):
        worker, detail = None, f"not before {format_time(fact.not_before_at)}"
    return _of_run(at, name, task_id, label, fact.run, attempt, worker, detail)
