"""Orders that concern very many tasks, carried out in slices with everybody else's turns in between.

One fact says what is to become true of all of them; `next_slice` then names a few tasks at a
time, until it is (`unfinished` says what is under way). What comes due meanwhile is decided
before: a task whose moment comes is looked at first, however far the slices have got.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import partial
from itertools import chain
from typing import Any

import orjson

from ..base.errors import Refusal
from ..tasks.task import Task, read_record
from . import facts as f
from . import orders as o
from .changelog import ALL
from .definitions import AT_ONCE, Limits, finish, loaded, saved_fact
from .fires import Decision
from .state import State
from .undo import PARTS, Changes
from .unfinished import Again, Bulk

SLICE = 100  # tasks
LOOKED_AT = 5000  # tasks of which nothing is to be done, before the others have their turn


class Slices(Changes):
    """Decides what every task is concerned by."""

    def __init__(self, state: State, limits: Limits | None = None) -> None:
        super().__init__(state, limits)
        self.planning = ""  # a LOAD or UNDO that is being worked out: what it goes by must stay
        self._waiting: tuple[Any, int, Any] = (
            None,
            0,
            None,
        )  # of what, after how many, the next one
        self._ids: tuple[Any, list[int]] = (None, [])  # of what, the tasks that it concerns
        self._pieces: tuple[Any, Iterator[Any]] = (None, iter(()))  # of what, its slices

    def next_slice(self, now: datetime) -> Any | None:
        """The next small part of what is under way; the same again until it was taken."""
        bulk = self.state.unfinished.bulk
        what = self.state.unfinished.again or (bulk if bulk and bulk.is_decided else None)
        if what is None:
            return None
        if self._waiting[0] is not what or self._waiting[1] != self.state.unfinished.slices:
            slice_ = self._next_reschedule(what) if isinstance(what, Again) else self._next_piece(what, now)
            self._waiting = what, self.state.unfinished.slices, slice_
        return self._waiting[2]

    def check_free(self, order: Any) -> None:
        """Refuses what would change tasks while very many are being changed."""
        bulk = self.state.unfinished.bulk
        if (what := self.planning or (bulk and bulk.kind.upper())) and type(order) in _NOT_MEANWHILE:
            raise Refusal("busy", f"{what} of very many tasks is under way; try again when it is done")

    # --- a change of very many tasks ---

    def _stage(self, order: o.StageTasks, now: datetime) -> Decision:
        lines = [orjson.dumps(spec.record).decode() for _, spec in order.entries]
        return Decision([f.BulkStaged([task_id for task_id, _ in order.entries], lines, order.next_task)])

    def _decide_load(self, order: o.DecideLoad, now: datetime) -> Decision:
        saved = [saved_fact(order.saved)] if order.saved else []
        return Decision([f.BulkDecided("load"), *saved], loaded(order.tasks))

    def _drop_staged(self, order: o.DropStaged, now: datetime) -> Decision:
        bulk = self.state.unfinished.bulk
        return Decision([f.BulkEnded("dropped")] if bulk and not bulk.is_decided else [])

    def _next_piece(self, bulk: Bulk, now: datetime) -> Any:
        if self._pieces[0] is not bulk:
            self._pieces = bulk, self._undo_pieces(bulk, now) if bulk.kind == "undo" else self._cut(bulk)
        if (piece := next(self._pieces[1], None)) is not None:
            return piece
        if self.undoing:
            self.state.changes.leftovers += [
                self.undoing.past.tasks,
                self.undoing.past.revs,
                self.undoing.then,
            ]
        self.undoing, self._pieces = None, (None, iter(()))
        return o.EndBulk()

    def _cut(self, bulk: Bulk) -> Iterator[o.BulkSlice]:
        """What leaves, then what the file says."""

        def leaves(task_id: int) -> bool:
            return task_id in self.state.tasks and not (
                task_id in bulk.entries or self.state.tasks[task_id].is_notice
            )

        if not bulk.done:
            leave = "loaded" if bulk.kind == "load" else "cleared"
            yield from _in_slices(leave, filter_in_turns(self._from_the_last_due(), leaves))
            yield from _in_slices(leave, filter_in_turns(list(self.state.tasks), leaves))
        ids = list(bulk.entries)
        for at in range(bulk.done, len(ids), SLICE):
            yield o.BulkSlice("define", ids[at : at + SLICE], min(at + SLICE, len(ids)))

    def _from_the_last_due(self) -> Iterator[int]:
        """Tasks in the order in which their moments leave the heap at no cost."""
        stay = 0
        while stay < len(self.state.due):
            before = len(self.state.due)
            ids = [task_id for *_, task_id in self.state.due[-stay - SLICE : before - stay]]
            yield from dict.fromkeys(ids)
            stay = max(0, stay + len(ids) - (before - len(self.state.due)))

    def _undo_pieces(self, bulk: Bulk, now: datetime) -> Iterator[o.BulkSlice]:
        if self.undoing is None:  # a restart came between
            changes = [
                change for change in reversed(self.state.changes.changes) if change.number in bulk.undoes
            ]
            self.undoing = finish(self.plan_back(changes, now))
        plan = self.undoing
        for part in PARTS:
            has = partial(self.has_part, plan, part)
            yield from _in_slices(part, filter_in_turns(chain([ALL], plan.then), has))

    def _bulk_slice(self, order: o.BulkSlice, now: datetime) -> Decision:
        state, facts = self.state, list[f.Fact]()
        bulk = state.unfinished.bulk
        assert bulk
        for task_id in order.tasks:
            if order.kind in PARTS:
                assert self.undoing
                facts += self.take_part(self.undoing, order.kind, task_id, now)
            elif order.kind == "define":
                spec = read_record(orjson.loads(bulk.entries[task_id]), state.default_tz)
                facts += self._define(task_id, spec, now)
            elif task := state.tasks.get(task_id):
                facts += self._leave(task, order.kind, now)
        for fact in facts:
            if isinstance(fact, f.Asked):
                fact.who, fact.change = bulk.who, bulk.change
        return Decision([*facts, f.BulkStepped(order.done)])

    def _end_bulk(self, order: o.EndBulk, now: datetime) -> Decision:
        return Decision([f.BulkEnded("done")])

    # --- moments that may be others now ---

    def reschedule(self, from_at: datetime, zoneless: bool = False) -> list[f.Fact]:
        """Has the moments after `from_at` found anew: at once, or in slices from now on."""
        state = self.state
        if (old := state.unfinished.again) and not old.zoneless:
            zoneless = False
        if len(state.tasks) > AT_ONCE:
            return [f.RescheduleBegun(from_at, zoneless or None)]
        again = Again(from_at, zoneless)
        facts = self._look_again(again, state.tasks.values())
        return [*facts, f.RescheduleStepped(None)] if old else facts

    def _look_again(self, again: Again, tasks: Iterable[Task]) -> list[f.Fact]:
        facts: list[f.Fact] = []
        for task in tasks:
            if again.waits(task):
                due_at = task.spec.moments.next_after(again.from_at, task.anchor_at)
                if due_at != task.due_at:
                    facts.append(f.TaskRescheduled(task.id, due_at))
        return facts

    def _next_reschedule(self, again: Again) -> o.RescheduleSlice:
        if self._ids[0] is not again:
            self._ids = again, sorted(self.state.tasks)  # what comes later is found by what is known then
        ids = self._ids[1]
        at = bisect_right(ids, again.upto)
        some = ids[at : at + SLICE]
        if at + SLICE < len(ids):
            return o.RescheduleSlice(some, some[-1])
        self._ids = None, []
        return o.RescheduleSlice(some, None)

    def _reschedule_slice(self, order: o.RescheduleSlice, now: datetime) -> Decision:
        state = self.state
        assert state.unfinished.again
        tasks = [task for task_id in order.tasks if (task := state.tasks.get(task_id))]
        return Decision([*self._look_again(state.unfinished.again, tasks), f.RescheduleStepped(order.upto)])

    def _reschedule_task(self, order: o.RescheduleTask, now: datetime) -> Decision:
        task, again = self.state.tasks[order.task], self.state.unfinished.again
        assert again
        return Decision(
            [f.TaskRescheduled(task.id, task.spec.moments.next_after(again.from_at, task.anchor_at))]
        )


def filter_in_turns(ids: Iterable[int], wanted: Callable[[int], bool]) -> Iterator[int | None]:
    """Those that are wanted; None now and then while there are none, so that others have their turn."""
    passed = 0
    for task_id in ids:
        if wanted(task_id):
            passed = 0
            yield task_id
        elif (passed := passed + 1) % LOOKED_AT == 0:
            yield None


def _in_slices(kind: str, ids: Iterable[int | None]) -> Iterator[o.BulkSlice]:
    some: list[int] = []
    for task_id in ids:
        if task_id is not None:
            some.append(task_id)
        if len(some) == SLICE or task_id is None:
            yield o.BulkSlice(kind, some)
            some = []
    if some:
        yield o.BulkSlice(kind, some)


_NOT_MEANWHILE = (
    o.AddTask, o.SetTask, o.RemoveTask, o.ClearTasks, o.LoadTasks, o.UndoChanges, o.PauseTasks, o.ResumeTasks,
    o.SetExpectation,
)  # fmt: skip
SLICES: dict[type, Callable[[Any, Any, datetime], Decision]] = {
    o.RescheduleSlice: Slices._reschedule_slice,
    o.RescheduleTask: Slices._reschedule_task,
    o.PassOver: lambda engine, order, now: Decision(),
    o.StageTasks: Slices._stage,
    o.DecideLoad: Slices._decide_load,
    o.DropStaged: Slices._drop_staged,
    o.BulkSlice: Slices._bulk_slice,
    o.EndBulk: Slices._end_bulk,
}
