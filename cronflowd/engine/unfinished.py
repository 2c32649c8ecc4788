"""What concerns very many tasks and is not done yet: the table, built by facts.

The rules of `state` hold here. What would take long to make true of all tasks in one
go is one fact that says so, and then many small decisions, everybody else's turns between them
(`slices` makes them). A restart goes on where they ended, so the whole comes to be or nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING

import orjson
from attrs import Factory, define

from ..base.walks import Numbered
from . import facts as f
from .changelog import ChangeLog

if TYPE_CHECKING:
    from ..tasks.task import Task, TaskSpec

STAGED_TOGETHER = 50  # a record is shorter than a fiftieth of what a line of the journal may be


@define
class Again:
    """The next moments of all tasks are looked for again, as of one moment, in the order of ids."""

    from_at: datetime
    zoneless: bool  # only of those without a zone of their own
    upto: int = 0  # tasks with ids up to this one are done
    done: Numbered[None] = Factory(Numbered)  # and these, whose moments had to be known before their turn
    before: Again | None = None  # was still under way, as of an earlier moment: what waits there waits here

    def waits(self, task: Task) -> bool:
        """Whether a task's moment is still the old one. What had come by then is due, whatever it is now."""
        if task.id <= self.upto or task.id in self.done:
            return False
        if self.before and self.before.waits(task):
            return True
        if self.zoneless and task.spec.options.tz:
            return False
        return task.spec.schedule.kind in ("cron", "every") and not task.is_used_up and not self.had(task)

    def had(self, task: Task) -> bool:
        """Whether its moment had come by then, so that it fires."""
        return task.due_at is not None and task.due_at <= self.from_at

    def next_of(self, task: Task) -> datetime | None:
        """The moment of a task that waits: what the clock has shown since the first of these is due."""
        if self.before and self.before.waits(task):
            return self.before.next_of(task)
        return task.spec.moments.next_after(self.from_at, task.anchor_at)


@define
class Bulk:
    """A change of very many tasks."""

    # `clear`, `load`, `undo`, `resume` of all, `rename` of one that very many wait for; or what is done to
    # those that were staged: `set`, `remove`, `pause`, `resume`, `run`.
    kind: str
    is_decided: bool = False
    done: int = 0  # of the entries
    who: str | None = None
    change: int | None = None
    undoes: list[int] = Factory(list)
    args: dict[str, str] = Factory(dict)
    until_at: datetime | None = None
    refused: int = 0  # tasks that stay as they were, counted for the reply alone
    entries: Numbered[str] = Factory(Numbered)  # what was staged: records as JSON, by id
    gone: dict[int, str] = Factory(dict)  # schedules of what ran once and left before it was decided, by id


class Unfinished:
    """What is under way."""

    def __init__(self, changes: ChangeLog) -> None:
        self._changes = changes
        self.again: Again | None = None
        self.bulk: Bulk | None = None
        # While a file is written of the tasks as they were: the definitions that others replaced since.
        self.before: Numbered[TaskSpec | None] | None = None
        # Names that tasks had before this change, by which they are still waited for.
        self.former: dict[str, int] = {}
        self.still: dict[str, set[int]] = {}  # the tasks that say them
        self.slices = 0  # taken by this process: a slice that was refused is known by it, and made again

    def note_before(self, task_id: int, spec: TaskSpec | None) -> None:
        """Others are about to replace a definition; None = there is none."""
        if self.before is not None:
            self.before.setdefault(task_id, spec)

    def note_due(self, task: Task) -> None:
        """A task's moment has been found anew, by whatever is known now."""
        for again in self.each_again():
            if task.id > again.upto:
                again.done[task.id] = None

    def each_again(self) -> Iterator[Again]:
        """The newest first."""
        again = self.again
        while again:
            yield again
            again = again.before

    def earlier(self, than_at: datetime) -> Again | None:
        """What is under way as of a moment before this one; the rest is as well done as of this one."""
        return next((again for again in self.each_again() if again.from_at < than_at), None)

    def reschedule_begun(self, fact: f.RescheduleBegun) -> None:
        before = self.earlier(fact.from_at)
        self._let_go_of_agains(before)
        self.again = Again(fact.from_at, fact.zoneless, fact.upto or 0, before=before)
        self.again.done.update(dict.fromkeys(fact.done or ()))

    def reschedule_stepped(self, fact: f.RescheduleStepped) -> None:
        self.slices += 1
        if fact.upto is None:
            self._let_go_of_agains(None)
            self.again = None
        for again in self.each_again():
            again.upto = max(again.upto, fact.upto or 0)

    def _let_go_of_agains(self, until: Again | None) -> None:
        for again in self.each_again():
            if again is until:
                break
            self._changes.leftovers.append(again.done)

    # --- a change of very many tasks ---

    def bulk_staged(self, fact: f.BulkStaged) -> None:
        if fact.next_task is not None:
            self.bulk = Bulk("load", gone=self.bulk.gone if self.bulk else {})
        if bulk := self.bulk:
            bulk.entries.update(zip(fact.ids, fact.lines, strict=True))
            for task_id in bulk.gone.keys() & set(fact.ids):
                self._leave_out(bulk, task_id, bulk.gone[task_id])

    def bulk_decided(self, fact: f.BulkDecided) -> None:
        bulk = self.bulk = self.bulk or Bulk(fact.kind)
        bulk.kind, bulk.is_decided, bulk.who, bulk.change = fact.kind, True, fact.who, fact.change
        bulk.undoes, bulk.args, bulk.until_at = fact.undoes or [], fact.args or {}, fact.until_at
        bulk.gone.clear()
        self._changes.is_held = True  # those that are taken back must be known to the end

    def bulk_stepped(self, fact: f.BulkStepped) -> None:
        self.slices += 1
        if self.bulk:
            self.bulk.done = fact.done
            self.bulk.refused += fact.refused

    def bulk_ended(self, fact: f.BulkEnded) -> None:
        self.slices += 1
        if self.bulk:
            self._changes.leftovers.append(self.bulk.entries)
        self.bulk = None
        self._changes.is_held = False
        self._changes.trim()

    def note_done(self, task: Task) -> None:
        """A task that runs once has left: a file that tells of the same moment does not bring it back."""
        if (bulk := self.bulk) and bulk.kind == "load":  # or will be another, which passes over what is gone
            if not bulk.is_decided:
                bulk.gone[task.id] = task.spec.schedule.text
            self._leave_out(bulk, task.id, task.spec.schedule.text)

    def _leave_out(self, bulk: Bulk, task_id: int, schedule: str) -> None:
        line = bulk.entries.get(task_id)
        if line and orjson.loads(line)["schedule"] == schedule:
            bulk.entries[task_id] = ""

    def bulk_carried(self, fact: f.BulkCarried) -> None:
        self.bulk = Bulk(
            fact.kind, fact.decided, fact.done, fact.who, fact.change, fact.undoes, fact.args or {},
            fact.until_at,
        )  # fmt: skip
        self._changes.is_held = fact.decided

    def carry(self) -> Iterator[f.Fact]:
        """It comes before the log of changes, which it holds."""
        if bulk := self.bulk:
            yield f.BulkCarried(
                bulk.kind, bulk.is_decided, bulk.done, bulk.who, bulk.change, bulk.undoes,
                bulk.args or None, bulk.until_at, dict(self.former) or None,
            )  # fmt: skip
            pairs = iter(bulk.entries.items())
            while some := dict(islice(pairs, STAGED_TOGETHER)):
                yield f.BulkStaged(list(some), list(some.values()))
