"""The tables as the facts that a checkpoint holds, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any

import msgspec
from attrs import fields, frozen

from .. import __version__
from ..base.errors import Refusal
from ..schedules.zones import EPOCH, load_zone
from ..tasks.task import Failure, Run, RunRow, Task, Worker, WorkerRow
from . import calendars
from . import facts as f
from .changelog import read_step, standing
from .encoding import decode_rows, encode_row, encode_rows
from .hearing import heard_by
from .tables import RANK, Tables, with_run

MAX_MOMENTS = 65_536  # that are held to be those of other tasks, too
TOGETHER_BITS = 7  # of ids: so many tasks are read in one go
MAX_ROW_BYTES = 64 * 1024  # so that they fit into a line of the journal

_STATE = (
    "next_task", "next_run", "paused_all", "paused_until_at", "paused_why", "tz", "zones", "last_step_s",
    "last_step_at", "jumped_upto_at",
)  # fmt: skip
_MEASURED = ("queued_at", "delayed_until_at", "sent_at", "started_at", "lease_until_at")
_RUN = [name for name in RunRow.__struct_fields__ if name not in _MEASURED]


def _task(state: Tables, task: Task) -> f.TaskCarried:
    heard = {"heard": heard_by(state, task) or None} if state.news and task.spec.options.after else {}
    return f.TaskCarried(
        task.id, task.rev, task.spec.record, task.anchor_at, task.due_at, decided=task.decided,
        notice=task.is_notice, changed_at=task.changed_at, **(standing(task) | heard),
    )  # fmt: skip


def _tasks(state: Tables) -> Iterator[f.Fact]:
    for waiting, tasks in state.tasks.parts():
        sources = {task_id >> TOGETHER_BITS: source for task_id, source in waiting.items()}
        groups: dict[int, list[Task]] = {number: [] for number in sources}
        for task in tasks:
            groups.setdefault(task.id >> TOGETHER_BITS, []).append(task)
        for number, group in sorted(groups.items()):
            source = sources.get(number)
            if source and not any(map(_can_wait, group)):
                yield source.fact
                yield from (_task(state, task) for task in group)
            else:
                # Where more can wait than did: of the same tasks the same is told, always.
                ids = sorted({task.id for task in group}.union(source.fact.ids if source else ()))
                yield from _together(state, [state.tasks[task_id] for task_id in ids])


def _together(state: Tables, tasks: list[Task]) -> Iterator[f.Fact]:
    """Of tasks that stand together, those that can wait for their moment as one fact, then all others."""
    rows = {
        task.id: row
        for task in tasks
        if _can_wait(task) and len(row := encode_row(_task(state, task))) <= MAX_ROW_BYTES
    }
    if waiting := [task for task in tasks if task.id in rows]:
        yield f.TasksCarried(
            __version__,
            sorted({task.spec.schedule.tz for task in waiting}),
            list(rows),
            [task.name for task in waiting],
            min(map(_entry, waiting)),
            encode_rows(rows.values()),
        )
    yield from (_task(state, task) for task in tasks if task.id not in rows)


def _can_wait(task: Task) -> bool:
    """Whether nobody asks for a task before its moment: what no other table and no start looks for."""
    options, schedule = task.spec.options, task.spec.schedule
    return (
        task.due_at is not None
        and schedule.kind in ("cron", "every", "at")
        and not (
            task.spec.unread
            or task.paused
            or task.is_notice
            or task.runs
            or options.after
            or options.skip
            or options.secrets
        )
    )


def _entry(task: Task) -> tuple[datetime, int, int]:
    assert task.due_at
    return task.due_at, RANK[task.spec.options.prio], task.id


def _run(state: Tables, run: Run) -> f.RunCarried:
    measured: Any = {name: state.shown(at) for name, at in f.named(run, _MEASURED).items()}
    return f.RunCarried(
        run=run.id, task=run.task_id, record=run.spec.record, state=run.shown, stopping=run.ends_as,
        parked=run.state == "parked", awaits=run.state == "awaiting", renewed=run.lease_renewed,
        given=list(map(list, run.given)) or None,
        **f.named(run, _RUN), **measured,
    )  # fmt: skip


def carry(state: Tables) -> Iterator[f.Fact]:
    """The whole state as facts; applied to an empty State they give this one again."""
    yield f.StateCarried(
        saved=list(state.saved), totals=dict(state.totals), leaving=dict(state.leaving),
        replaced=dict(state.replaced),
        beats_from_at=state.beats.from_at, decided_upto_at=state.decided_upto_at,
        jumped_by_s=state.jumped_by_s if state.jumped_upto_at else None, next_flow=state.flows.next_number,
        next_token=state.access.next_token, next_login=state.access.next_login, **f.named(state, _STATE),
    )  # fmt: skip
    yield from state.access.carry()
    yield from state.once.carry()
    yield from (f.TemplateSet(name, words) for name, words in state.templates.items())
    yield from calendars.carry(state)
    yield f.LedgerCarried(state.ledger.carry())
    yield from _tasks(state)
    for worker in state.workers.values():
        yield f.WorkerCarried(sorted(worker.can), **f.named(worker, WorkerRow.__struct_fields__))
    yield from map(msgspec.structs.replace, state.beats.expected.values())
    yield from state.told.values()
    yield from state.unheard.values()
    if (last := state.notice_failed) and last.to not in state.unheard:
        yield msgspec.structs.replace(last, over=True)
    yield from state.flows.carry()
    for run_id in sorted(state.runs):
        yield _run(state, state.runs[run_id])
    yield from (msgspec.structs.replace(emitted, tasks=list(emitted.tasks)) for emitted in state.emitted)
    yield from state.unfinished.carry()
    yield from state.changes.carry()
    for again in reversed(list(state.unfinished.each_again())):
        done = sorted(task_id for task_id in again.done if task_id > again.upto) or None
        yield f.RescheduleBegun(again.from_at, again.zoneless, again.upto or None, done)


# --- back ---


def whole_task(state: Tables, fact: f.TaskCarried | f.TaskRestored) -> Task:
    changed_at = None if isinstance(fact, f.TaskRestored) else fact.changed_at
    return Task(
        fact.id, state.read(fact.record), fact.anchor_at, fact.rev, changed_at=changed_at, **standing(fact)
    )


def _state_carried(state: Tables, fact: f.StateCarried, at: datetime, seq: int) -> None:
    for name, value in f.named(fact, _STATE).items():
        setattr(state, name, value)
    state.totals = dict(fact.totals)
    state.keep_saved(fact.saved)
    state.beats.give_grace(fact.beats_from_at or state.beats.from_at)
    state.decided_upto_at = fact.decided_upto_at or at
    state.jumped_by_s = fact.jumped_by_s or 0.0
    state.access.next_token, state.access.next_login = fact.next_token, fact.next_login
    state.replaced.update(fact.replaced)
    state.to_judge.update(dict.fromkeys(fact.replaced))
    for task_id, why in fact.leaving.items():
        state.leave(task_id, why)
    state.flows.next_number = fact.next_flow
    state.history_from_seq = seq


def _failure_carried(state: Tables, fact: f.FailureCarried, at: datetime, seq: int) -> None:
    state.tasks[fact.task].failure = Failure(**f.named(fact, [each.name for each in fields(Failure)]))


def _task_carried(state: Tables, fact: f.TaskCarried, at: datetime, seq: int) -> None:
    task = whole_task(state, fact)
    task.is_notice = fact.notice
    state.put(task)
    state.set_due(task, fact.due_at, fact.decided)


def _tasks_carried(state: Tables, fact: f.TasksCarried, at: datetime, seq: int) -> None:
    if _can_be_read(fact):
        state.tasks.put_later(fact.ids, _Waiting(state, fact))
        state.names.put_all(zip(fact.names, fact.ids, strict=True))
        state.due.add(fact.first)
    else:
        for row in decode_rows(fact):
            _task_carried(state, row, at, seq)


def _can_be_read(fact: f.TasksCarried) -> bool:
    """Whether what could be read when this was written can be now: the same rules, and no zone is gone."""
    with suppress(Refusal):
        for name in fact.zones:
            load_zone(name)
        return fact.version == __version__
    return False


@frozen(eq=False)
class _Waiting:
    """Tasks that are made when they are needed. By name and by moment they are found meanwhile."""

    state: Tables
    fact: f.TasksCarried

    def records(self) -> dict[int, dict[str, Any]]:
        return {row.id: row.record for row in decode_rows(self.fact)}

    def make(self) -> None:
        state, fact, entries = self.state, self.fact, list[tuple[datetime, int, int]]()
        texts, anchor_at = dict[str, str](), EPOCH
        for row, task_id, name in zip(decode_rows(fact), fact.ids, fact.names, strict=True):
            # Very many tasks are made of the objects that other tables, or others of them, have already.
            record = row.record
            row.id, record["jobName"] = task_id, name
            record["command"] = texts.setdefault(record["command"], record["command"])
            row.anchor_at = anchor_at = anchor_at if row.anchor_at == anchor_at else row.anchor_at
            if (at := row.due_at) and (at in state.moments or len(state.moments) < MAX_MOMENTS):
                row.due_at = state.moments.setdefault(at, at)
            task = whole_task(state, row)
            task.due_at, task.decided = row.due_at, row.decided
            state.tasks[task_id] = task
            entries.append(_entry(task))
            if task.spec.unread:  # the rules have changed under the same version: better told now than never
                state.put(task)
        entries.remove(fact.first)
        state.due.add_all(entries)


def _run_carried(state: Tables, fact: f.RunCarried, at: datetime, seq: int) -> None:
    task = state.tasks.get(fact.task)
    measured: Any = {name: at and at - state.set_by for name, at in f.named(fact, _MEASURED).items()}
    run = Run(
        fact.run, fact.task, state.read(fact.record), ends_as=fact.stopping, lease_renewed=fact.renewed,
        given=tuple((name, sealed) for name, sealed in fact.given or ()),
        has_output=True,  # perhaps; what it was is in the journal, not in a checkpoint
        **f.named(fact, _RUN), **measured,
    )  # fmt: skip
    state.put_run(run)
    state.flows.run_carried(run)
    run.fire = run.fire or run.id
    if task:
        task.runs = with_run(task.runs, run.id)  # in order, as they are carried
        task.held += fact.worker is not None
    else:
        state.orphans[fact.task] = with_run(state.orphans.get(fact.task, ()), run.id)
    if fact.state != "queued":
        run.state = "stopping" if fact.stopping else fact.state
        _index_held(state, run)
    elif fact.parked or fact.awaits:
        run.move("parked" if fact.parked else "awaiting")
        if task:
            state.to_judge[task.id] = None
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
    state.workers[fact.name] = Worker(can=frozenset(fact.can), **f.named(fact, WorkerRow.__struct_fields__))


def _bulk_carried(state: Tables, fact: f.BulkCarried, at: datetime, seq: int) -> None:
    state.unfinished.bulk_carried(fact)
    for name, task_id in (fact.former or {}).items():
        state.go_by_both(name, state.tasks[task_id])


APPLY: dict[type[f.Fact], Callable[[Tables, Any, datetime, int], None]] = {
    **calendars.APPLY,
    f.StateCarried: _state_carried,
    f.LedgerCarried: lambda state, fact, at, seq: state.ledger.take(fact.rows),
    f.TaskCarried: _task_carried,
    f.TasksCarried: _tasks_carried,
    f.FailureCarried: _failure_carried,
    f.RunCarried: _run_carried,
    f.ExpectationCarried: lambda state, fact, at, seq: state.beats.take(fact),
    f.WorkerCarried: _worker_carried,
    f.BulkCarried: _bulk_carried,
    f.ChangeCarried: lambda state, fact, at, seq: state.changes.open(fact.change, fact.made_at, fact),
    f.StepCarried: lambda state, fact, at, seq: state.changes.add(read_step(fact), True),
}
