"""Everything that can be ordered, from outside and by what is due inside.

An order is a request and may be refused; only facts change anything. Names are imperatives.
`ref` is a task's id or name as the client wrote it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from ..base.replies import Reply
from ..base.text import format_option
from ..schedules.calendars import Calendar
from ..tasks.reasons import Reason
from ..tasks.task import Task, TaskSpec
from .facts import Fact, TasksSaved


class Order(msgspec.Struct):
    """Base of all orders: values that are made in a fraction of a microsecond."""


class Named(Order):
    """About what has this name."""

    name: str


class OfRun(Order):
    """About a run."""

    run: int


class OfTask(Order):
    """About a task, by its id."""

    task: int


class OfMember(Order):
    """About a task in a run of its flow."""

    flow: int
    task: int


class Reported(Order):
    """What a worker says of an attempt."""

    worker: str
    run: int
    attempt: int


# --- from clients ---


class Pattern(Order):
    """The tasks that tag= and name= choose, as in LIST: both, where both are given."""

    tag: str
    name: str  # a glob
    flow: str = ""  # or any task: all that hang together with it
    plan: Any = None  # which they are and what becomes of them, if that was worked out before
    staged: int = 0  # or so many were staged
    owners: tuple[str | None, ...] = ()  # only of those, if any are named

    def chooser(self) -> Callable[[Task], bool]:
        """Whether a task is one of them."""
        tag, glob, owners = self.tag, self.name, self.owners

        def chooses(task: Task) -> bool:
            options = task.spec.options
            if owners and options.owner not in owners:
                return False
            return (not tag or tag in options.tags) and (not glob or fnmatchcase(task.name, glob))

        return chooses

    def __str__(self) -> str:
        pairs = (("tag", self.tag), ("name", self.name), ("flow", self.flow))
        return " ".join(format_option(key, value) for key, value in pairs if value)


Ref = str | Pattern


class AddTask(Order):
    """ADD, AT and NOW; `task_id` only where a file or a JSON record names one."""

    spec: TaskSpec
    task_id: int | None = None
    now: bool = False  # NOW: due at this moment, once
    replace: bool = False  # the task of that name, if there is one, becomes this


class SetTask(Order):
    """SET: option words, and `schedule`, `command`, `name` among them."""

    ref: Ref
    words: dict[str, str]
    rev: int | None = None  # refused where the task's is another by now


class SetTemplate(Named):
    """TEMPLATE ADD; or, without words, TEMPLATE REMOVE."""

    words: dict[str, str] | None


class RollBack(Order):
    """ROLLBACK: a task is defined again as it was at a revision."""

    ref: str
    rev: int
    record: dict[str, Any]


class RemoveTask(Order):
    ref: Ref
    force: bool = False  # also if others wait for it: they do so no longer
    rev: int | None = None  # refused where the task's is another by now
    plan: Any = None  # the task, if it was worked out before that it may leave


class ClearTasks(Order):
    pass


class LoadTasks(Order):
    """LOAD: these tasks, and no others, from now on."""

    records: list[tuple[int | None, TaskSpec]]
    saved: TasksSaved | None = None  # what the file was, if it was tasks.db
    file: str = ""  # its name, for HISTORY; empty = by the daemon itself, which is no change


class PauseTasks(Order):
    ref: tuple[str, ...] | Pattern | None  # None = all
    until_at: datetime | None
    why: str


class ResumeTasks(Order):
    ref: tuple[str, ...] | Pattern | None


class UndoChanges(Order):
    count: int
    plan: Any = None  # what it comes to, if that was worked out before


class RunTask(Order):
    ref: Ref
    args: dict[str, str]


class StartFlow(Order):
    """FLOW RUN."""

    ref: str  # any task of it
    args: dict[str, str]
    plan: Any = None  # which tasks those are, if that was worked out before


class RetryFlow(Order):
    """What did not end well of a run of a flow runs again; None = of its newest."""

    ref: str
    number: int | None


class StopFlow(Order):
    """FLOW CANCEL."""

    ref: str
    number: int | None


class EmitEvent(Order):
    event: str
    args: dict[str, str]


class CancelRun(OfRun):
    pass


class SetExpectation(Named):
    """EXPECT: `every`, `grace`, `notify`, `desc`, `start` as words; what is left out stays."""

    words: dict[str, str]


class ReceiveBeat(Named):
    is_ok: bool
    text: str


class ForgetExpectation(Named):
    pass


class DrainWorker(Named):
    draining: bool


# --- who may come in ---


class SetAccount(Named):
    """USER ADD, SET and PASSWORD: what is given is so from now on, the rest stays."""

    changes: dict[str, Any]  # fields of AccountSet
    is_new: bool = False
    is_first: bool = False  # only if there is none yet
    reset: str = ""  # the digest of the word that was offered for it, and counts once
    shown: str = ""  # the password that was made, which its reply tells and nothing else


class RemoveAccount(Named):
    pass


class AddToken(Order):
    digest: str = ""
    shown: str = ""  # the token itself, for the reply
    name: str = ""
    role: str = ""
    user: str = ""
    worker: str = ""
    expires_at: datetime | None = None


class RevokeToken(Order):
    token: int


class BeginLogin(Named):
    """SESSION ADD."""

    expires_at: datetime
    family: str = ""
    digest: str = ""
    shown: str = ""  # the token, for the reply
    address: str = ""


class RenewLogin(Order):
    """SESSION RENEW, with the token that counts; it is told as no deed of anybody."""

    login: int
    digest: str
    shown: str
    address: str


class EndLogin(Order):
    token: int  # its id


class OfferReset(Named):
    """USER FORGOT."""

    digest: str
    shown: str
    expires_at: datetime


class PutSecret(Named):
    sealed: str


class RemoveSecret(Named):
    force: bool = False


# --- from workers ---


class JoinWorker(Named):
    slots: int
    labels: dict[str, str]
    can: tuple[str, ...]
    address: str
    running: tuple[tuple[int, int], ...]  # (run, attempt) each
    holds_all: bool = False  # `running` is all it ever took and still owes: of others it knows nothing
    instance: str = ""  # of its memory
    connection: int = 0


class DropWorker(Named):
    """A connection has ended. If it is not the worker's last one, only `unsent` counts."""

    why: Reason
    connection: int = 0
    unsent: tuple[tuple[int, int], ...] = ()  # (run, attempt) of orders that never left


class UnsendRuns(Order):
    """Orders that no connection could take."""

    worker: str
    runs: tuple[tuple[int, int], ...]  # (run, attempt) each


class DismissWorker(Named):
    """It said BYE. Over a connection that is not its last one, nothing comes of it."""

    connection: int = 0


class ReportStarted(Reported):
    pass


class ReportOutput(Order):
    worker: str
    run: int
    lines: list[list[Any]]  # as in base/output.py
    dropped: int = 0  # characters that came before these and could not be kept


class ReportEnded(Reported):
    exit: int
    details: dict[str, str]
    began: bool = False  # that it had started was reported with it


class ReportRefused(Reported):
    """A worker does not carry out an order: it is not as it was sent, or against that worker's rules."""

    code: str
    why: str
    holds: bool  # it has that attempt from another order, and goes on with it


# --- from the daemon ---


class Note(Order):
    """This has happened, and only has to be written down."""

    fact: Fact
    reply: Reply | None = None


class StartDaemon(Order):
    version: str
    tz: str
    restored: bool = False  # the directory was made of a backup, and this is its first start
    is_reboot: bool = True  # @reboot fires; False where other nodes were there all the time
    zones: str = ""  # which zone data it has


class NoticeStep(Order):
    by_s: float


class LearnCalendars(Order):
    """So the days off of skip= were read just now; and these are not needed."""

    found: Mapping[str, Calendar]
    dropped: Collection[str] = ()


class RescheduleTasks(Order):
    """Zone data may have changed, so moments to come may be others."""


class RescheduleBeats(Order):
    """The same of some expectations, where there are very many."""

    names: Sequence[str]


# --- one slice of what concerns very many tasks; `Engine.next_slice` gives these ---


class StageTasks(Order):
    """Some tasks, as they will be, are kept for a change of very many that is to be decided."""

    entries: Sequence[tuple[int, TaskSpec | None]]  # None: of a change that needs no definition
    next_task: int | None = None  # with the first: the ids below are taken


class DecideLoad(Order):
    """All are staged, and are the tasks from now on."""

    tasks: int
    saved: TasksSaved | None
    file: str
    done: int = 0  # of the tasks, those that are left out


class DropStaged(Order):
    """The LOAD will not be."""


class BulkSlice(Order):
    """What is done to these tasks is of this kind."""

    kind: str  # of `slices`
    tasks: Sequence[int]
    done: int = 0
    plan: Any = None  # of UNDO
    left_out: int = 0  # tasks that the journal does not take as they would be


class RescheduleSlice(Order):
    """These tasks are looked at again; then all up to the id `upto` are done (None = all)."""

    tasks: Sequence[int]
    upto: int | None


# --- what comes due inside; `Engine.next_step` gives these ---


class PassOver(Order):
    """Nothing: some moments or tasks were looked at of which nothing comes, and there are more."""


class RescheduleTask(OfTask):
    """A moment comes of a task that has yet to be looked at again."""


class FireTasks(Order):
    """They are due; some of the last may be left to the next order."""

    tasks: list[int]


class FireOn(OfTask):
    """An event was emitted that this task waits for."""


class PlaceRuns(Order):
    """They go to these workers; some of the last may be left to the next order."""

    places: list[tuple[int, str]]  # run, worker


class LoseRun(OfRun):
    """Its lease ended."""


class TimeoutRun(OfRun):
    pass


class ReleaseRun(OfRun):
    pass


class AdmitRun(OfRun):
    """The dependencies of its task have ended well."""


class EndRun(OfRun):
    """It waits, and its task is gone."""

    why: Reason


class ReplaceRuns(OfTask):
    """The newest run of a task replaces more than were told to end with it."""


class BreakRun(OfRun):
    """One of them has not."""

    why: Reason


class TellUnread(OfTask):
    """That the record of a task cannot be read has not been said yet."""


class TellUnwritten(OfRun):
    """Output of which a record tells was not written beside it: the disk was full."""

    number: int  # of bytes
    node: str


class FireAfter(OfTask):
    """All dependencies of an @after task have ended; `broken` says why one of them will not do."""

    broken: Reason


class StartMember(OfMember):
    """In a run of its flow, all that this task waits for has ended well."""


class SkipMember(OfMember):
    """Something of that has not."""

    why: Reason


class StopMember(OfMember):
    """Its flow's run was cancelled, and it still runs."""


class EndFlow(Order):
    """Nothing of it runs, waits or can still follow."""

    flow: int


class MissBeat(Named):
    """Nothing was heard in time."""


class ExpireRun(OfRun):
    """No worker took it within its grace."""
