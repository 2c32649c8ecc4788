"""What concerns very many tasks and is not done yet: the table, built by facts.

A part of `State`, whose rules hold here. What would take long to make true of all tasks in one
go is one fact that says so, and then many small decisions, everybody else's turns between them
(`slices` makes them). A restart goes on where they ended, so the whole comes to be or nothing.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from attrs import Factory, define

from . import facts as f
from .beats import Expectations

if TYPE_CHECKING:
    from ..tasks.task import Task


@define
class Again:
    """The next moments of all tasks are looked for again, as of one moment, in the order of ids."""

    from_at: datetime
    zoneless: bool  # only of those without a zone of their own
    upto: int = 0  # tasks with ids up to this one are done
    done: set[int] = Factory(set)  # and these, whose moments had to be known before their turn

    def waits(self, task: Task) -> bool:
        """Whether a task's moment is still the old one. What had come by then is due, whatever it is now."""
        if task.id <= self.upto or task.id in self.done or (self.zoneless and task.spec.options.tz):
            return False
        return task.spec.schedule.kind in ("cron", "every") and not task.is_used_up and not self.had(task)

    def had(self, task: Task) -> bool:
        """Whether its moment had come by then, so that it fires."""
        return task.due_at is not None and task.due_at <= self.from_at


class Unfinished(Expectations):
    """What is under way."""

    def __init__(self) -> None:
        super().__init__()
        self.again: Again | None = None
        self.slices = 0  # taken by this process: a slice that was refused is known by it, and made again

    def note_due(self, task: Task) -> None:
        """A task's moment has been found anew, by whatever is known now."""
        if self.again and task.id > self.again.upto:
            self.again.done.add(task.id)

    def _reschedule_begun(self, fact: f.RescheduleBegun, at: datetime, seq: int) -> None:
        self.again = Again(fact.from_at, bool(fact.zoneless), fact.upto or 0, set(fact.done or ()))

    def _reschedule_stepped(self, fact: f.RescheduleStepped, at: datetime, seq: int) -> None:
        self.slices += 1
        if fact.upto is None or self.again is None:
            self.again = None
            return
        self.again.upto = fact.upto
        self.again.done = {task_id for task_id in self.again.done if task_id > fact.upto}
