"""Who changed what, and taking it back: HISTORY, UNDO, GET REF @rev.

`sign` writes into the facts of an order who gave it and which change they are; the log
that comes of it is in changelog.py. UNDO walks back through the log to how the tasks were,
then decides what of today has to change for that, in one piece or not at all. It is itself
a change, so that it can be undone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from attrs import define, evolve

from ..base.errors import Refusal
from ..base.replies import Reply
from ..base.text import format_option, format_time, shorten
from ..tasks.options import masked
from ..tasks.reasons import reason
from ..tasks.task import Task, TaskSpec
from . import facts as f
from . import orders as o
from .changelog import ALL, Change, Step, Was, whole
from .definitions import Definitions
from .fires import Decision
from .state import State

MAX_WHAT = 200  # characters
MAX_WHO = 200
Row = tuple[Any, ...]


# --- who ----------------------------------------------------------------------------------


def sign(state: State, order: Any, decision: Decision, who: str | None) -> None:
    """Says in the facts of a client's order who gave it, and that they are one change."""
    if (found := _WHAT.get(type(order))) is None:
        return
    verb, tell = found
    rest = tell(state, order)
    what = None if rest is None else shorten(f"{verb} {rest}".rstrip(), MAX_WHAT)
    undone = _undone(state, order) if isinstance(order, o.UndoChanges) else None
    who = who and who[:MAX_WHO]
    number = state.changes.next_number if what else None
    for fact in decision.facts:
        if isinstance(fact, f.Asked):
            fact.who, fact.change = who, number
            if what is not None:
                fact.what, fact.verb, fact.undone = what, verb, undone
            what = None  # with the first one only
        elif isinstance(fact, f.RunQueued | f.RunStopping):
            fact.who = who


def _name(state: State, ref: str) -> str:
    task = state.find(ref)
    return task.name if task else ref


def _word(key: str, value: str) -> str:
    return format_option(key, masked(key, value))


def _added(state: State, order: o.AddTask) -> str | None:
    # What runs once is gone before anybody could take it back; CANCEL and REMOVE are for that.
    if order.spec.schedule.kind == "at":
        return None
    return order.spec.name or f"task_{order.task_id or state.next_task}"


def _set(state: State, order: o.SetTask) -> str:
    words = " ".join(_word(key, value) for key, value in order.words.items())
    return f"{_name(state, order.ref)} {words}"


def _removed(state: State, order: o.RemoveTask) -> str | None:
    # A notification is no task of anybody's, and would come back as one.
    task = state.find(order.ref)
    return None if task and task.is_notice else _name(state, order.ref)


def _loaded(state: State, order: o.LoadTasks) -> str | None:
    return f"{order.file} {len(order.records)} tasks" if order.file else None


def _paused(state: State, order: o.PauseTasks) -> str:
    words = [_names(state, order.refs)]
    words += [f"until={format_time(order.until_at)}"] if order.until_at else []
    words += [format_option("why", order.why)] if order.why else []
    return " ".join(words)


def _names(state: State, refs: Iterable[str] | None) -> str:
    return "all" if refs is None else " ".join(_name(state, ref) for ref in refs)


def _taken_back(state: State, order: o.UndoChanges) -> str:
    first, *more = state.changes.newest(order.count)
    return f"{first.number} to {more[-1].number}" if more else f"{first.number}"


def _undone(state: State, order: o.UndoChanges) -> str | None:
    """The change that is taken back, where it is one."""
    first, *more = state.changes.newest(order.count)
    return None if more else shorten(first.told, MAX_WHAT)


# The verb, and what HISTORY tells after it; None: no change that UNDO takes back.
_WHAT: dict[type, tuple[str, Callable[[State, Any], str | None]]] = {
    o.AddTask: ("ADD", _added),
    o.SetTask: ("SET", _set),
    o.RemoveTask: ("REMOVE", _removed),
    o.ClearTasks: ("CLEAR", lambda state, order: f"{state.count_own()} tasks"),
    o.LoadTasks: ("LOAD", _loaded),
    o.PauseTasks: ("PAUSE", _paused),
    o.ResumeTasks: ("RESUME", lambda state, order: _names(state, order.refs)),
    o.UndoChanges: ("UNDO", _taken_back),
    o.RunTask: ("RUN", lambda state, order: None),
    o.CancelRun: ("CANCEL", lambda state, order: None),
}


# --- the past -----------------------------------------------------------------------------


@define
class Then:
    """A task as it shall be again."""

    was: Was
    spec: TaskSpec
    rev: int


class Past:
    """The tasks as they were before some changes, as far as these touched them."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.tasks: dict[int, Was | None] = {}  # None = there was no such task
        self.all: Was | None = None  # what PAUSE all had set; None = not touched
        self.revs: dict[int, int] = {}  # the last one each task had, which may be gone
        self.gone: set[int] = set()  # one-offs that left by themselves before their change was undone

    def take_back(self, change: Change) -> None:
        """One step further into the past."""
        for step in reversed(change.steps):
            if step.id == ALL:
                self.all = step.was
                continue
            self._take_back(step, self._at(step))

    def _at(self, step: Step) -> Was | None:
        if step.id not in self.tasks:
            task = self._state.tasks.get(step.id)
            self.tasks[step.id] = whole(task) if task else None
        self.revs[step.id] = max(self.revs.get(step.id, 0), step.rev)
        return self.tasks[step.id]

    def _take_back(self, step: Step, here: Was | None) -> None:
        was = step.was
        if was is None:
            self.tasks[step.id] = None
        elif step.kind == "removed":
            self.tasks[step.id] = was
        elif here is None:
            self.gone.add(step.id)
        elif step.kind == "changed":
            same = here.record.get("count") == was.record.get("count")
            self.tasks[step.id] = evolve(here, definition=was.definition, fired=here.fired if same else 0)
        else:
            self.tasks[step.id] = evolve(
                here, paused=was.paused, paused_until_at=was.paused_until_at, paused_why=was.paused_why
            )


# --- taking it back -------------------------------------------------------------------------


class Changes(Definitions):
    """Decides what UNDO does."""

    def _undo(self, order: o.UndoChanges, now: datetime) -> Decision:
        changes = self.state.changes.newest(order.count)
        if len(changes) < order.count:
            known = f"only {len(changes)} changes are known" if changes else "there is nothing to undo"
            raise Refusal("not-found", known)
        past = Past(self.state)
        for change in changes:
            past.take_back(change)
        rows: list[Row] = [(change.number, change.told) for change in changes]
        rows += [(None, f"task {task_id} has run and is gone") for task_id in sorted(past.gone)]
        then = self._then(past, now, rows)
        self._check_room(then)
        _check_names(self.state, then)
        _check_dependencies(self.state, then)
        values = {"undone": len(changes)}
        return Decision(
            self._facts(past, then, now), Reply(f"{len(changes)} undone", values, ("change", "what"), rows)
        )

    def _then(self, past: Past, now: datetime, rows: list[Row]) -> dict[int, Then | None]:
        """The tasks that were touched, read again; one-offs whose moment has passed stay as they are."""
        then: dict[int, Then | None] = {}
        for task_id, was in past.tasks.items():
            task = self.state.tasks.get(task_id)
            then[task_id] = None
            if was is None:
                continue
            spec = was.read(self.state.default_tz)
            if _is_over(spec, task, now):
                rows.append(
                    (None, f'"{spec.name}" stays as it is: its moment, {spec.schedule.text}, is over')
                )
                then[task_id] = Then(whole(task), task.spec, task.rev) if task else None
                continue
            then[task_id] = Then(was, spec, max(past.revs[task_id], task.rev if task else 0) + 1)
        return then

    def _check_room(self, then: dict[int, Then | None]) -> None:
        tasks = self.state.tasks
        count = len(tasks) + sum((each is not None) - (task_id in tasks) for task_id, each in then.items())
        if count > self.limits.tasks:
            raise Refusal("limit", f"there would be {count} tasks; the limit is {self.limits.tasks}")

    def _facts(self, past: Past, then: dict[int, Then | None], now: datetime) -> list[f.Fact]:
        """What has to become true; those that leave first, since others may get their names."""
        tasks = self.state.tasks
        leave: list[f.Fact] = []
        renamed: list[f.Fact] = []  # before those who wait for them, who keep what they heard
        others: list[f.Fact] = []
        pauses = _pause_all(self.state, past.all) if past.all else []
        for task_id, each in then.items():
            task = tasks.get(task_id)
            # One id may have had two lives: LOAD of a file gives a task that was removed its id again.
            if task and each and task.anchor_at == each.was.anchor_at:
                same_name = each.spec.name == task.name
                (others if same_name else renamed).extend(self._reload(task, each.spec, now))
                pauses += _pause(task, each.was)
                continue
            if task:
                leave += [] if each else self._cancel_queued(task, reason("undone"))
                leave.append(f.TaskRemoved(task_id, "undone"))
            if each:
                others.append(_restored(each, now))
        return leave + renamed + others + pauses


def _is_over(spec: TaskSpec, task: Task | None, now: datetime) -> bool:
    """Whether it is a one-off that would never run; one that is as it was is left alone."""
    if spec.schedule.kind != "at" or spec.moments.next_after(now, now) is not None:
        return False
    return task is None or spec.record != task.spec.record


def _restored(then: Then, now: datetime) -> f.Fact:
    was, spec = then.was, then.spec
    assert was.anchor_at is not None
    is_used_up = 0 < spec.options.count <= was.fired
    due_at = None if is_used_up else spec.moments.next_after(now, was.anchor_at)
    heard = {name: how for name, how in was.heard.items() if name in spec.options.after}
    return f.TaskRestored(
        was.id, then.rev, spec, was.anchor_at, due_at, was.paused or None, was.paused_until_at,
        was.paused_why or None, was.counts, was.fired or None, heard or None,
    )  # fmt: skip


def _pause(task: Task, was: Was) -> list[f.Fact]:
    then = (was.paused, was.paused_until_at, was.paused_why)
    if then == (task.paused, task.paused_until_at, task.paused_why):
        return []
    return [
        f.TaskPaused(task.id, was.paused_until_at, was.paused_why) if was.paused else f.TaskResumed(task.id)
    ]


def _pause_all(state: State, was: Was) -> list[f.Fact]:
    then = (was.paused, was.paused_until_at, was.paused_why)
    if then == (state.paused_all, state.paused_until_at, state.paused_why):
        return []
    if was.paused:
        return [f.TaskPaused(None, was.paused_until_at, was.paused_why)]
    return [f.TaskResumed(None, own_stay=True)]


def _check_names(state: State, then: dict[int, Then | None]) -> None:
    """A name that has got another owner since is not taken from him."""
    owners: dict[str, int] = {}
    for task_id, each in then.items():
        if each is None:
            continue
        name = each.spec.name
        owner = state.names.get(name)
        if owner is None or owner in then:
            owner = owners.setdefault(name, task_id)
        if owner != task_id:
            raise Refusal("exists", f'a task named "{name}" is in the way (id {owner})')
        if name in state.expected:
            raise Refusal("exists", f'an expectation named "{name}" is in the way')


def _check_dependencies(state: State, then: dict[int, Then | None]) -> None:
    """Whoever is waited for must be there, and come again."""
    specs = {each.spec.name: each.spec for each in then.values() if each}
    old_names = {task.name for task_id in then if (task := state.tasks.get(task_id))}
    waiting = {other for name in old_names for other in state.dependents.get(name, ())} - then.keys()

    def find(name: str) -> TaskSpec | None:
        task = state.find(name)
        return specs.get(name) or (task.spec if task and task.id not in then else None)

    for spec in [*specs.values(), *(state.tasks[other].spec for other in waiting)]:
        for name in spec.options.after:
            found = find(name)
            if found is None or found.schedule.kind == "at":
                why = "which would be gone" if found is None else "which would run only once"
                raise Refusal("busy", f'"{spec.name}" waits for "{name}" (after=), {why}')
