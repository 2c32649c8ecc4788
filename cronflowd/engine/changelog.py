"""What was changed last, by whom, and how each task was before: what HISTORY tells and UNDO needs.

A change is what one order did: one or more facts with the same number, each a step here.
A step holds what it replaced, so that walking back from the present gives the tasks as
they were before any change that is still known. The log is bounded; the oldest changes
go first, and the newest stays whatever its size. `noted` sees to it that what a fact is about to replace
is kept here first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Generator, Iterable, Iterator
from datetime import datetime
from itertools import chain
from typing import Any

import msgspec
from msgspec.structs import replace

from ..base.walks import Numbered, Parted, in_slices
from ..schedules.schedule import At
from ..tasks.options import Keep
from ..tasks.task import Outcome, Standing, Task, TaskSpec, read_record
from . import facts as f

MAX_CHANGES = 1000
MAX_STEPS = 100_000  # in all changes; a step holds at most one definition
LET_GO = 1000  # entries that are freed together
FORGET = 10  # changes that are forgotten together, each of at most so many steps
ALL = 0  # the id that stands for PAUSE all and RESUME all
PAUSE = ("paused", "paused_until_at", "paused_why")
DONE = ("ok", "failed", "timeout", "lost")  # ends of a run that may have done all it was for
STEPS = {
    f.TaskAdded: "added",
    f.TaskChanged: "changed",
    f.TaskRemoved: "removed",
    f.TaskRestored: "restored",
    f.TaskPaused: "paused",
    f.TaskResumed: "resumed",
    f.TemplateSet: "template",
}


class Was(Standing, gc=False):
    """A task at one time in the past; or, with the id ALL, what PAUSE all had set, or a template."""

    id: int
    rev: int = 0
    definition: TaskSpec | dict[str, Any] | None = None  # a record after a restart: read when needed
    anchor_at: datetime | None = None

    @property
    def record(self) -> dict[str, Any]:
        """The definition as facts carry it."""
        return record_of(self.definition) if self.definition else {}

    def read(self, default_tz: str) -> TaskSpec:
        """The definition, parsed."""
        if isinstance(self.definition, TaskSpec):
            return self.definition
        return read_record(self.record, default_tz)

    @property
    def has_keep(self) -> bool:
        """Whether it says keep=."""
        if isinstance(self.definition, TaskSpec):
            return self.definition.options.keep is not None
        return "keep" in self.record

    @property
    def name(self) -> str:
        return str(self.record.get("jobName", ""))

    @property
    def size(self) -> int:
        """How much its definition says, at most."""
        definition = self.definition
        return definition.size if isinstance(definition, TaskSpec) else len(str(definition or ""))


class Step(msgspec.Struct, gc=False):
    """One fact of a change."""

    kind: str  # of STEPS
    id: int
    rev: int  # of the task after it
    was: Was | None  # before it; None = there was no such task

    def before(self, here: Was | None) -> Was | None:
        """The task before it, of what it was after it."""
        was = self.was
        if was is None or self.kind == "removed" or here is None:
            return was
        if self.kind == "changed":
            same = here.record.get("count") == was.record.get("count")
            fired = here.fired if same else 0
            return replace(here, rev=was.rev, definition=was.definition, fired=fired)
        return replace(here, **f.named(was, PAUSE))


class Change(msgspec.Struct):
    """What one order changed."""

    number: int
    at: datetime
    who: str | None
    what: str
    verb: str  # which order it was
    undone: str = ""  # the one change that it took back
    steps: list[Step] = msgspec.field(default_factory=list)

    @property
    def told(self) -> str:
        """For HISTORY."""
        return f"{self.what}: {self.undone}" if self.undone else self.what


class ChangeLog:
    """The changes that are still known, oldest first. Filled by `State.apply` alone."""

    def __init__(self) -> None:
        self.changes: deque[Change] = deque()
        self.is_held = False  # nothing is forgotten
        # What is no longer needed: freeing much of it at once would take long.
        self.leftovers: list[Any] = []  # lists of steps, and tables that `let_go` of some of it
        # Tasks that were removed and had a keep= of their own: their history is kept by it still.
        self._keepers: dict[int, Was] = {}
        self._steps = 0

    @property
    def next_number(self) -> int:
        return self.changes[-1].number + 1 if self.changes else 1

    def open(self, number: int, at: datetime, fact: f.Asked | f.ChangeCarried) -> None:
        """A change begins, unless this one has begun."""
        if not self.changes or self.changes[-1].number != number:
            what = fact.what or ""
            verb = fact.verb or what.partition(" ")[0]  # which it is, in journals of before
            self.changes.append(Change(number, at, fact.who, what, verb, fact.undone or ""))

    def add(self, step: Step, is_carried: bool = False) -> None:
        """One more step of the newest change; a checkpoint holds what is known, and no start forgets more."""
        self.changes[-1].steps.append(step)
        self._steps += 1
        if step.kind == "removed" and step.was and step.was.has_keep:
            self._keepers[step.id] = step.was
        if is_carried or self.is_held:
            return
        if len(self.changes) > MAX_CHANGES or self._steps > MAX_STEPS:
            self.trim()

    def trim(self) -> None:
        """Forgets the oldest changes beyond the bounds."""
        known = len(self.changes)
        for left in range(known, max(1, known - FORGET), -1):
            if left <= MAX_CHANGES and self._steps <= MAX_STEPS:
                break
            steps = self.changes.popleft().steps
            self._steps -= len(steps)
            if len(steps) > LET_GO:
                self.leftovers.append(steps)
            else:
                self._forget_keepers(steps)

    def _forget_keepers(self, steps: list[Step]) -> None:
        for step in steps if self._keepers else ():
            if self._keepers.get(step.id) is step.was:
                self._keepers.pop(step.id, None)

    def let_go(self) -> bool:
        """Frees a little of what is no longer needed; whether there is more."""
        if self.leftovers:
            last = self.leftovers[-1]
            if isinstance(last, list):
                self._forget_keepers(last[-LET_GO:])
                del last[-LET_GO:]
            else:
                last.let_go()
            if not last:
                self.leftovers.pop()
        return bool(self.leftovers)

    def forget_parsed(self) -> Generator[None, None, None]:
        """Definitions were read with zone data that is no longer in use; their records stay."""
        for change in list(self.changes):
            for step in change.steps:
                yield
                if step.was and step.was.definition is not None:
                    step.was.definition = step.was.record

    def newest(self, count: int) -> list[Change]:
        """The last `count` changes, newest first."""
        changes = reversed(self.changes)
        return [change for change, _ in zip(changes, range(count), strict=False)]

    def walk(self) -> Iterator[tuple[Change, Step] | None]:
        """What was done, newest first; whatever comes, or is forgotten, meanwhile."""
        for change in reversed(list(self.changes)):
            for step in in_slices(reversed(change.steps)):
                yield None if step is None else (change, step)

    def keep_of(self, task_id: int, default_tz: str) -> Keep | None:
        """The keep= of a task that was removed, if it had one; who reads the past asks in a thread."""
        was = self._keepers.get(task_id)
        return was.read(default_tz).options.keep if was else None

    def carry(self) -> Iterator[f.Fact]:
        """All of it as facts."""
        for change in self.changes:
            yield f.ChangeCarried(
                change.number, change.at, change.who, change.what, change.verb, change.undone or None
            )
            for step in change.steps:
                yield _carried(change.number, step)


def ids_of_others(
    wanted: Numbered[str], changes: ChangeLog, ended: Iterable[Outcome]
) -> Generator[None, None, Numbered[None]]:
    """Ids that names of a file want, and that only others are known to have had.

    What is known are the changes that may be taken back, and the newest runs.
    """
    others = Numbered[None]()
    for known in chain(ended, changes.walk()) if wanted else ():
        yield
        row = known[1].was if isinstance(known, tuple) else known
        task_id = row.task_id if isinstance(row, Outcome) else row.id if row else ALL
        if row and row.name and task_id in wanted:
            if row.name == wanted[task_id]:
                del wanted[task_id]
                others.pop(task_id, None)
            else:
                others[task_id] = None
    yield from wanted.let_all_go()
    return others


def without_done(
    numbered: list[tuple[int, TaskSpec]], here: Container[int], ended: Iterable[Outcome]
) -> Generator[None, None, list[tuple[int, TaskSpec]]]:
    """The tasks of a file, but for those that run once and have: to load it is no order to do that again.

    What is known are the newest runs. One that was cancelled, as by CLEAR, has still to come.
    """
    once = Parted[tuple[str, datetime], str]()  # by name, since not every file tells ids: how it ended last
    for task_id, spec in numbered:
        if isinstance(spec.schedule, At) and task_id not in here:
            once[spec.name, spec.schedule.moment_at] = ""
        yield
    if not once:
        return numbered
    for row in ended:
        if (row.name, row.due_at) in once:
            once[row.name, row.due_at] = row.state
        yield
    kept: list[tuple[int, TaskSpec]] = []
    numbered.reverse()
    while numbered:
        task_id, spec = numbered.pop()
        moment = spec.schedule.moment_at if isinstance(spec.schedule, At) and task_id not in here else None
        if moment is None or once.get((spec.name, moment)) not in DONE:
            kept.append((task_id, spec))
        yield
    yield from once.let_all_go()
    return kept


def record_of(definition: f.Definition) -> dict[str, Any]:
    """A definition as the journal's lines tell it."""
    return definition.record if isinstance(definition, TaskSpec) else definition


def standing(row: Any) -> dict[str, Any]:
    """How a task is besides its definition, by name, where that is not as at first; tables are copied."""
    values = [(name, value) for name in Standing.__struct_fields__ if (value := getattr(row, name))]
    return {name: dict(value) if isinstance(value, dict) else value for name, value in values}


def whole(task: Task) -> Was:
    """Everything about a task that leaves."""
    return Was(task.id, task.rev, task.spec, task.anchor_at, **standing(task))


def defined(task: Task) -> Was:
    """What SET replaces."""
    return Was(task.id, task.rev, task.spec, task.anchor_at)


def pause_of(task: Task) -> Was:
    """What PAUSE and RESUME replace."""
    return Was(task.id, task.rev, **f.named(task, PAUSE))


def _carried(number: int, step: Step) -> f.StepCarried:
    was = step.was
    if was is None:
        return f.StepCarried(number, step.kind, step.id, step.rev)
    return f.StepCarried(
        number, step.kind, step.id, step.rev, was.rev, was.record or None, was.anchor_at,
        **standing(was),
    )  # fmt: skip


def read_step(fact: f.StepCarried) -> Step:
    """The inverse."""
    if fact.was_rev is None:
        return Step(fact.kind, fact.id, fact.rev, None)
    was = Was(fact.id, fact.was_rev, fact.record, fact.anchor_at, **standing(fact))
    return Step(fact.kind, fact.id, fact.rev, was)


# --- what a change is about to replace ------------------------------------------------------------


Applier = Callable[[Any, Any, datetime, int], None]


def noted(change: Applier) -> Applier:
    """Of what a client may have asked for, what it replaces is noted first."""

    def note_first(state: Any, fact: f.Asked, at: datetime, seq: int) -> None:
        if fact.change is not None:
            state.changes.open(fact.change, at, fact)
            if type(fact) is f.TaskAdded:  # before which there was nothing
                state.changes.add(Step("added", fact.id, 1, None))
            else:
                for step in _steps(state, fact):
                    state.changes.add(step)
        change(state, fact, at, seq)

    return note_first


def _steps(state: Any, fact: Any) -> Iterator[Step]:
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
