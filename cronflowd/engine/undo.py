"""Who changed what, and taking it back: HISTORY, UNDO, GET REF @rev.

Who gave an order is written into its facts (`Rule.sign`), and the log that comes of it is in
changelog.py. UNDO walks back through the log to how the tasks were,
then decides what of today has to change for that, in one piece or not at all. It is itself
a change, so that it can be undone.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from datetime import datetime
from itertools import chain
from typing import Any

from attrs import Factory, define

from ..base.errors import Refusal
from ..base.replies import Reply, Row
from ..base.text import shorten
from ..base.walks import Numbered, Parted
from ..tasks.task import Task, TaskSpec, read_today
from . import facts as f
from . import orders as o
from .changelog import ALL, Change, Step, Was, standing, whole
from .definitions import AT_ONCE, are_long, finish, leave_task, overdue, reload
from .rules import MAX_WHAT, Decision, Limits, Rule, Rules
from .state import State

# --- the past -----------------------------------------------------------------------------


@define
class Then:
    """A task as it shall be again."""

    was: Was
    spec: TaskSpec
    rev: int
    is_here: bool  # it was when this was found out; if it is gone by then, it has left by itself


class Past:
    """The tasks as they were before some changes, as far as these touched them."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.tasks: Numbered[Was | None] = Numbered()  # None = there was no such task
        self.templates: dict[str, dict[str, str] | None] = {}  # None = there was none
        self.all: Was | None = None  # what PAUSE all had set; None = not touched
        self.revs: Numbered[int] = Numbered()  # the last one each task had, which may be gone
        self.gone: set[int] = set()  # one-offs that left by themselves before their change was undone

    def take_back(self, change: Change) -> Generator[None, None, None]:
        """One change further into the past."""
        for step in reversed(change.steps):
            yield
            if step.kind == "template":
                assert step.was
                self.templates[step.was.record["template"]] = step.was.record["words"]
            elif step.id == ALL:
                self.all = step.was
            else:
                self._take_back(step)

    def _take_back(self, step: Step) -> None:
        if step.id not in self.tasks:
            task = self._state.tasks.get(step.id)
            self.tasks[step.id] = whole(task) if task else None
        self.revs[step.id] = max(self.revs.get(step.id) or 0, step.rev)
        here = self.tasks[step.id]
        if here is None and step.was and step.kind != "removed":
            self.gone.add(step.id)
        else:
            self.tasks[step.id] = step.before(here)


# --- taking it back -------------------------------------------------------------------------


PARTS = ("leaves", "renamed", "others", "pauses")  # in this order; renamed before those who wait for them


@define
class Undoing:
    """What UNDO comes to."""

    changes: list[Change]
    past: Past
    then: Numbered[Then | None] = Factory(Numbered)
    over: list[Row] = Factory(list)  # what stays as it is, in words

    def size_of(self, task_id: int) -> int:
        """How much is to be said of a task."""
        each = self.then.get(task_id)
        return each.spec.size if each else 0


def _undo(state: State, order: o.UndoChanges, now: datetime, limits: Limits) -> Decision:
    plan: Undoing = order.plan or finish(plan_undo(state, order.count, now, limits))
    rows: list[Row] = [(change.number, change.told) for change in plan.changes]
    rows += [(None, f"task {task_id} has run and is gone") for task_id in sorted(plan.past.gone)]
    rows += plan.over
    count = len(plan.changes)
    reply = Reply(f"{count} undone", {"undone": count}, ("change", "what"), rows)
    if len(plan.then) > AT_ONCE or are_long(_others(state, plan)):
        facts: list[f.Fact] = [f.BulkDecided("undo", [change.number for change in plan.changes])]
    else:
        facts = _facts(state, plan, now)
    templates = plan.past.templates.items()
    facts += [f.TemplateSet(name, words) for name, words in templates if words != state.templates.get(name)]
    if count == 1 and (first := next((fact for fact in facts if isinstance(fact, f.Asked)), None)):
        first.undone = shorten(plan.changes[0].told, MAX_WHAT)
    return Decision(facts, reply)


def _others(state: State, plan: Undoing) -> Iterator[TaskSpec]:
    """The definitions that tasks do not have now."""
    for task_id, each in plan.then.items():
        task = state.tasks.get(task_id)
        if each and not (task and task.spec is each.spec):
            yield each.spec


def plan_undo(state: State, count: int, now: datetime, limits: Limits) -> Generator[None, None, Undoing]:
    """What UNDO would come to, in small steps; Refusal for what cannot be."""
    changes = state.changes.newest(count)
    if len(changes) < count:
        known = f"only {len(changes)} changes are known" if changes else "there is nothing to undo"
        raise Refusal("not-found", known)
    plan = yield from plan_back(state, changes, now)
    yield from _check_room(state, plan.then, limits)
    yield from _check_names(state, plan.then)
    yield from _check_dependencies(state, plan.then)
    return plan


def plan_back(state: State, changes: list[Change], now: datetime) -> Generator[None, None, Undoing]:
    """The tasks as they were before these changes."""
    plan = Undoing(changes, Past(state))
    for change in changes:
        yield from plan.past.take_back(change)
    yield from _then(state, plan, now)
    return plan


def _then(state: State, plan: Undoing, now: datetime) -> Generator[None, None, None]:
    """The tasks that were touched, read again; one-offs whose moment has passed stay as they are."""
    past, then = plan.past, plan.then
    for task_id, was in past.tasks.items():
        yield
        task = state.tasks.get(task_id)
        then[task_id] = None
        if was is None:
            continue
        spec = was.read(state.default_tz)
        if _is_over(spec, task, now):
            over = f'"{spec.name}" stays as it is: its moment, {spec.schedule.text}, is over'
            plan.over.append((None, over))
            then[task_id] = Then(whole(task), task.spec, task.rev, True) if task else None
            continue
        is_here = task is not None and task.anchor_at == was.anchor_at
        then[task_id] = Then(was, spec, max(past.revs[task_id], task.rev if task else 0) + 1, is_here)


def _check_room(state: State, then: Numbered[Then | None], limits: Limits) -> Generator[None, None, None]:
    tasks = state.tasks
    count = len(tasks)
    for task_id, each in then.items():
        count += (each is not None) - (task_id in tasks)
        yield
    if count > limits.tasks:
        raise Refusal("limit", f"there would be {count} tasks; the limit is {limits.tasks}")


def _facts(state: State, plan: Undoing, now: datetime) -> list[f.Fact]:
    """What has to become true; those that leave first, since others may get their names."""
    return [
        fact
        for part in PARTS
        for task_id in (ALL, *plan.then)
        if has_part(state, plan, part, task_id)
        for fact in take_part(state, plan, part, task_id, now)
    ]


def has_part(state: State, plan: Undoing, part: str, task_id: int) -> bool:
    """Whether something of this kind has to be done to this task."""
    if task_id == ALL:
        return part == "pauses" and plan.past.all is not None
    task, each = state.tasks.get(task_id), plan.then[task_id]
    # One id may have had two lives: LOAD of a file gives a task that was removed its id again.
    is_same = bool(task and each and task.anchor_at == each.was.anchor_at)
    if part == "leaves":
        return task is not None and not is_same
    if each is None or task is None or not is_same:
        return each is not None and part == "others" and not (task is None and each.is_here)
    if part == "pauses":
        return bool(_pause_of(task, each.was))
    return each.spec is not task.spec and (part == "renamed") == (task.name != each.spec.name)


def take_part(state: State, plan: Undoing, part: str, task_id: int, now: datetime) -> list[f.Fact]:
    """The facts that do it; once it is done there are none."""
    if task_id == ALL:
        here = state.paused_all, state.paused_until_at, state.paused_why
        return _pause(None, here, plan.past.all) if plan.past.all else []
    task, each = state.tasks.get(task_id), plan.then[task_id]
    if part == "leaves":
        assert task
        if each:  # which has the same id, and the runs
            return [*overdue(state, task, now), f.TaskRemoved(task_id, "undone")]
        return leave_task(state, task, "undone", now)
    assert each
    spec = read_today(each.spec, state.default_tz)
    if task is None or task.anchor_at != each.was.anchor_at:
        return [_restored(each, spec, now)]
    return _pause_of(task, each.was) if part == "pauses" else reload(state, task, spec, now)


def _is_over(spec: TaskSpec, task: Task | None, now: datetime) -> bool:
    """Whether it is a one-off that would never run; one that is as it was is left alone."""
    if spec.schedule.kind != "at" or spec.moments.next_after(now, now) is not None:
        return False
    return task is None or spec.record != task.spec.record


def _restored(then: Then, spec: TaskSpec, now: datetime) -> f.Fact:
    was = then.was
    assert was.anchor_at is not None
    is_used_up = 0 < spec.options.count <= was.fired
    due_at = None if is_used_up else spec.moments.next_after(now, was.anchor_at)
    heard = {name: how for name, how in (was.heard or {}).items() if name in spec.options.after}
    return f.TaskRestored(
        was.id, then.rev, spec, was.anchor_at, due_at, **(standing(was) | {"heard": heard})
    )  # fmt: skip


def _pause(task_id: int | None, here: tuple[Any, ...], was: Was) -> list[f.Fact]:
    then = was.paused, was.paused_until_at, was.paused_why
    if then == here:
        return []
    if was.paused:
        return [f.TaskPaused(task_id, was.paused_until_at, was.paused_why)]
    return [f.TaskResumed(task_id, own_stay=task_id is None)]


def _pause_of(task: Task, was: Was) -> list[f.Fact]:
    return _pause(task.id, (task.paused, task.paused_until_at, task.paused_why), was)


def _check_names(state: State, then: Numbered[Then | None]) -> Generator[None, None, None]:
    """A name that has got another owner since is not taken from him."""
    owners = Parted[str, int]()
    for task_id, each in then.items():
        yield
        if each is None:
            continue
        name = each.spec.name
        owner = state.names.get(name)
        if owner is None or owner in then:
            owner = owners.setdefault(name, task_id)
        if owner != task_id:
            raise Refusal("exists", f'a task named "{name}" is in the way (id {owner})')
        if name in state.beats.expected:
            raise Refusal("exists", f'an expectation named "{name}" is in the way')
    yield from owners.let_all_go()


def _check_dependencies(state: State, then: Numbered[Then | None]) -> Generator[None, None, None]:
    """Whoever is waited for must be there, and come again."""
    specs, waiting = Parted[str, TaskSpec](), Numbered[None]()
    for task_id, each in then.items():
        yield
        if each:
            specs[each.spec.name] = each.spec
        task = state.tasks.get(task_id)
        is_as_good = each and task and each.spec.name == task.name and each.spec.schedule.kind != "at"
        if task and task.name in state.dependents and not is_as_good:
            for other in list(state.dependents[task.name]):  # a copy: one of them may end, and leave
                yield
                if other not in then:
                    waiting[other] = None

    def find(name: str) -> TaskSpec | None:
        task = state.find(name)
        return specs.get(name) or (task.spec if task and task.id not in then else None)

    others = (task.spec for other in waiting if (task := state.tasks.get(other)))
    for spec in chain(specs.values(), others):
        yield
        for name in spec.options.after:
            found = find(name)
            if found is None or found.schedule.kind == "at":
                why = "which would be gone" if found is None else "which would run only once"
                raise Refusal("busy", f'"{spec.name}" waits for "{name}" (after=), {why}')
    for table in (specs, waiting):
        yield from table.let_all_go()


def _taken_back(state: State, order: o.UndoChanges) -> str:
    first, *more = state.changes.newest(order.count)
    return f"{first.number} to {more[-1].number}" if more else f"{first.number}"


UNDO: Rules = {o.UndoChanges: Rule(_undo, "UNDO", _taken_back, is_exclusive=True)}
