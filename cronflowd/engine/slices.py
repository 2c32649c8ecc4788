"""Orders that concern very many tasks, carried out in slices with everybody else's turns in between.

One fact says what is to become true of all of them; `next_slice` then names a few tasks at a
time, until it is (`unfinished` says what is under way). What comes due meanwhile is decided
before: a task whose moment comes is looked at first, however far the slices have got.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from ..tasks.task import Task
from . import facts as f
from . import orders as o
from .definitions import Limits
from .fires import Decision
from .state import State
from .undo import Changes
from .unfinished import Again

AT_ONCE = 200  # tasks that are dealt with in one decision; more in slices
SLICE = 100


class Slices(Changes):
    """Decides what every task is concerned by."""

    def __init__(self, state: State, limits: Limits | None = None) -> None:
        super().__init__(state, limits)
        self._waiting: tuple[Any, int, Any] = (
            None,
            0,
            None,
        )  # of what, after how many, the slice to be taken
        self._ids: tuple[Any, list[int]] = (None, [])  # of what, the tasks that it concerns

    def next_slice(self, now: datetime) -> Any | None:
        """The next small part of what is under way; the same again until it was taken."""
        again = self.state.again
        if again is None:
            return None
        if self._waiting[:2] != (again, self.state.slices):
            self._waiting = again, self.state.slices, self._next_reschedule(again)
        return self._waiting[2]

    # --- moments that may be others now ---

    def reschedule(self, from_at: datetime, zoneless: bool = False) -> list[f.Fact]:
        """Has the moments after `from_at` found anew: at once, or in slices from now on."""
        state = self.state
        if (old := state.again) and not old.zoneless:
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
        assert state.again
        tasks = [task for task_id in order.tasks if (task := state.tasks.get(task_id))]
        return Decision([*self._look_again(state.again, tasks), f.RescheduleStepped(order.upto)])

    def _reschedule_task(self, order: o.RescheduleTask, now: datetime) -> Decision:
        task, again = self.state.tasks[order.task], self.state.again
        assert again
        return Decision(
            [f.TaskRescheduled(task.id, task.spec.moments.next_after(again.from_at, task.anchor_at))]
        )


SLICES: dict[type, Callable[[Any, Any, datetime], Decision]] = {
    o.RescheduleSlice: Slices._reschedule_slice,
    o.RescheduleTask: Slices._reschedule_task,
}
