"""What has happened: the only things the journal holds and the only things that change state.

A fact is past tense and complete in itself: applying all of them in order to nothing
gives the present. Facts are values; nobody changes one that was decided. Their classes are
their JSON form as well (see encoding.py).

To change a fact's form: add a field with a default, so that old journals still read; or
a new fact, keeping the old one's case in `state.apply`. Never rename or reuse. Then raise
FACTS_VERSION and add a journal to tests/data/, as tests/lib/write_journal.py writes it with the change
in it. Those that stand there stay: a test reads them for ever.

And say in SINCE what is new, options of tasks too: while a node of a cluster would not understand it, an
order that needs it is refused, and of a fact that nobody asked for the new fields are left out. So a new fact
that nobody asks for must not be decided before FACTS_VERSION + 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from ..tasks.reasons import Reason
from ..tasks.task import Failure, RunRow, Standing, TaskSpec, WorkerRow

FACTS_VERSION = 3
# What came after form 2: `Fact`, `Fact.field`, or `option=` of a task; and the form.
SINCE = {"DaemonStarted.zones": 3, "StateCarried.zones": 3}

# A fact that was just decided carries the task itself. The record is made when it is written, and
# read when it is read back: a dict stands there then, which is what the decoder knows of.
if TYPE_CHECKING:
    Definition = TaskSpec | dict[str, Any]
else:
    Definition = dict[str, Any]


class Fact(
    msgspec.Struct, tag_field="fact", tag=True, omit_defaults=True, forbid_unknown_fields=True, gc=False
):
    """Base of all facts. `urgent` says how the journal may treat it when the disk is full."""

    urgent: ClassVar[bool] = True  # may use the reserve; False = asked for by a client, can be refused

    def is_urgent(self) -> bool:
        """Whether this one may be written when only the reserve is left."""
        return self.urgent


class Signed(Fact, kw_only=True):
    """Base of the facts that somebody may have asked for: they say who, and most of them can be refused."""

    urgent: ClassVar[bool] = False
    who: str | None = None  # the connection's name or address; None = the daemon itself


class Asked(Signed, kw_only=True):
    """Base of the facts about tasks, which are mostly what somebody asked for.

    All facts of one order bear the number of the same change; what UNDO does not take back has none.
    """

    change: int | None = None
    what: str | None = None  # with the first fact of a change: the order, as HISTORY tells it
    verb: str | None = None  # with that: which order it was, `SET` or `UNDO`
    undone: str | None = None  # with that: the one change that an UNDO took back, as HISTORY tells that


# --- tasks ---


class TaskAdded(Asked):
    """A task exists from now on."""

    id: int
    record: Definition  # as in tasks.db
    anchor_at: datetime
    due_at: datetime | None
    notice: bool = False  # True = it tells of something that comes in the same decision

    def is_urgent(self) -> bool:
        return bool(self.notice)


class TaskChanged(Asked):
    """A task has a new definition."""

    id: int
    rev: int
    record: Definition
    due_at: datetime | None


class TaskRescheduled(Fact):
    """A task's next moment is another, its definition the same (zone data, a clock set back)."""

    id: int
    due_at: datetime | None


class RescheduleBegun(Fact):
    """All tasks are to be looked at again: what comes next after `from_at` may be another moment now."""

    from_at: datetime
    zoneless: bool = False  # True = only those without a zone of their own
    upto: int | None = None  # in a checkpoint: the tasks up to this id are done,
    done: list[int] | None = None  # and these


class RescheduleStepped(Fact):
    """All those up to this id have been looked at; None = all."""

    upto: int | None


class TaskRemoved(Asked):
    """A task is gone; its history stays."""

    urgent: ClassVar[bool] = True
    id: int
    why: str  # `removed`, `cleared`, `loaded`, `undone`, `done`


class TaskRestored(Asked):
    """A task that was removed is back, as it was then; due from now on."""

    id: int
    rev: int
    record: Definition
    anchor_at: datetime
    due_at: datetime | None
    paused: bool = False
    paused_until_at: datetime | None = None
    paused_why: str = ""
    counts: dict[str, int] | None = None
    fired: int = 0
    heard: dict[str, Reason] = msgspec.field(default_factory=dict)
    failure: Failure | None = None  # how its last fire had ended
    last_state: str = ""
    last_ended_at: datetime | None = None


class TemplateSet(Asked):
    """Options that tasks to come may be made from have a name; or, without words, it is free again."""

    name: str
    words: dict[str, str] | None = None


class TaskPaused(Asked):
    """No new fires start. `id` None = all tasks there are, and those still to come."""

    id: int | None
    until_at: datetime | None
    why: str


class TaskResumed(Asked):
    """The opposite; `id` None lifts every pause."""

    id: int | None
    own_stay: bool = False  # True, with `id` None: not those of single tasks


# --- a change of very many tasks: decided by one fact, and then made true in slices ---


class BulkStaged(Fact):
    """Tasks of a file that is being loaded. They mean nothing until the change is decided."""

    urgent: ClassVar[bool] = False
    ids: list[int]
    lines: list[str]  # the record of each, as JSON
    next_task: int | None = None  # with the first ones: no new task gets an id below


class BulkDecided(Asked):
    """From now on it is to be so, whatever happens; what follows makes it so."""

    kind: str  # as `Bulk` has it
    undoes: list[int] | None = None  # the changes that are taken back, newest first
    args: dict[str, str] | None = None  # of PAUSE: why; of RUN: those of the runs
    until_at: datetime | None = None  # of PAUSE


class BulkStepped(Fact):
    """One slice more has been made true."""

    done: int  # of the tasks that were staged
    refused: int = 0  # of this slice: tasks that stay as they were


class BulkEnded(Fact):
    """All of it is so; or, where it was not decided yet, none of it."""

    why: str  # `done`, `dropped`


class BulkCarried(Fact):
    """In a checkpoint, what is under way; what was staged follows."""

    kind: str
    decided: bool
    done: int
    who: str | None
    change: int | None
    undoes: list[int]
    args: dict[str, str] | None = None
    until_at: datetime | None = None
    former: dict[str, int] | None = None  # names that its tasks had


# --- fires and runs ---


class FiresPassed(Fact):
    """Moments that came due and started nothing, first to last inclusive."""

    task: int
    name: str
    state: str  # `skipped` or `missed`
    first_due_at: datetime
    last_due_at: datetime
    count: int
    why: Reason
    next_due_at: datetime | None
    settles: bool = False  # True = for its dependencies' sake: what was heard of them is used up
    emitted: bool = False  # True = of an event: the oldest that this task has not answered yet
    cause: Reason = ""  # who said EMIT, and how
    flow: int = 0  # it was its turn in that run of its flow; it has no moment then


class RecordUnread(Fact):
    """A task was found, at a start or with other zone data, that cannot be read: it starts nothing."""

    task: int
    name: str
    why: str


class RunQueued(Signed):
    """A fire became a run."""

    run: int
    task: int
    due_at: datetime
    by: str  # `schedule`, `manual`, `reboot`, `after`, `on`, `flow`, `notice`
    next_due_at: datetime | None = None  # the task's next moment; only meaningful by schedule
    args: dict[str, str] | None = None
    parked: bool = False  # True = behind an earlier run of its task
    not_before_at: datetime | None = None  # jitter=: it waits until then
    nth: int = 1  # among the moments that fell on due_at
    awaits: bool = False  # True = its task's dependencies have not all ended yet
    target: str = ""  # on=all: the worker it is for
    emitted: bool = False  # as in FiresPassed; of several runs of one fire, with the first
    worker: str | None = None  # it was sent to at once; on disk before the order leaves, as RunSent
    flow: int = 0  # the run of its flow that it belongs to

    def is_urgent(self) -> bool:
        return self.by != "manual"


class EventEmitted(Signed):
    """Somebody said that something happened; these tasks waited for it, and are to fire in turn."""

    event: str
    due_at: datetime  # of their fires
    tasks: list[int]
    args: dict[str, str] | None = None


class RunAdmitted(Fact):
    """Its task's dependencies have ended well: it waits for nothing but a worker now."""

    run: int
    flow: int = 0  # they did so in that run of its flow, which it belongs to from now on


class RunSent(Fact):
    """The decision to start: on disk before the order leaves."""

    run: int
    attempt: int
    worker: str


class RunUnsent(Fact):
    """The order of this attempt never arrived: it waits again, as its next attempt, for nothing."""

    run: int
    attempt: int


class RunStarted(Fact):
    """The worker says the process is running."""

    run: int
    attempt: int


class OutputReceived(Fact):
    """Lines a run wrote; fd 0 = the daemon's own remarks."""

    run: int
    attempt: int
    lines: list[list[Any]]  # as in base/output.py
    omitted: int = 0  # bytes beyond the limit, not kept
    taken: int | None = None  # characters that the worker sent, where they are not those of `lines`
    held: str | None = None  # sealed: what was sent and waits for more; None = as before
    # More lines, beside the journal: bytes, CRC, which node took them.
    apart: tuple[int, int, str] | None = None

    def is_urgent(self) -> bool:
        return self.apart is None and all(line[0] == 0 for line in self.lines)


class RunStopping(Signed):
    """The worker is told to kill it."""

    urgent: ClassVar[bool] = True
    run: int
    attempt: int
    why: str  # `cancelled` or `timeout`


class RunEnded(Fact):
    """An attempt is over; told whole, so that RUNS can be answered from this line alone."""

    run: int
    attempt: int
    task: int
    name: str
    state: str
    due_at: datetime
    started_at: datetime | None
    worker: str | None
    exit: int | None
    why: Reason | None
    final: bool  # False = another attempt follows
    began: bool = False  # True = that it had started came with this, and has no fact of its own
    cause: Reason = ""  # who said RUN, NOW or EMIT, and how
    flow: int = 0


class RunRetried(Fact):
    """The next attempt waits for its time (`not_before_at`), then for a worker."""

    run: int
    attempt: int
    not_before_at: datetime


class RunReleased(Fact):
    """A retry's wait is over."""

    run: int


class FlowStarted(Signed):
    """All tasks that hang together by after= are to run once, each behind those it waits for.

    `who` is empty where nobody asked for it: a moment of its first task came.
    """

    flow: int
    root: int  # of its tasks, the first that waits for none
    name: str  # of that one
    tasks: list[int]
    args: dict[str, str] | None = None


class FlowRetried(Signed):
    """What did not end well of it has another turn; of what is gone meanwhile nothing is known there."""

    flow: int
    tasks: list[int]


class FlowStopping(Signed):
    """Somebody cancelled it: nothing of it begins any more, and what runs is to be killed."""

    urgent: ClassVar[bool] = True
    flow: int


class FlowEnded(Fact):
    """Nothing of it runs, waits or can still follow."""

    flow: int
    state: str  # `ok`, `failed` or `cancelled`


class FlowCarried(Fact):
    """In a checkpoint, one run of a flow as it was. A row for each task: its id, and what `Member` holds."""

    started: FlowStarted  # without its tasks
    begun_at: datetime
    rows: list[tuple[int, str, int, str, Reason]]
    stopped_by: str | None = None
    state: str = ""
    ended_at: datetime | None = None


# --- workers ---


class WorkerJoined(Fact):
    """A worker said HELLO. The runs it named are its own again."""

    name: str
    slots: int
    labels: dict[str, str]
    can: list[str]
    address: str
    running: list[list[int]]  # [run, attempt] each
    lease_until_at: datetime  # for the runs it held and did not name
    instance: str = ""  # of its memory; another one knows nothing of what was taken before
    connection: int = 0  # which of this daemon's connections it is


class WorkerLeft(Fact):
    """Its connection ended; what it holds stays its own until the lease ends."""

    name: str
    why: Reason
    lease_until_at: datetime


class WorkerLeaving(Fact):
    """It said BYE: no more runs, but it finishes what it has."""

    name: str


class WorkerDrained(Fact):
    """An operator wants no more runs sent to it (or, `draining` False, wants them again)."""

    urgent: ClassVar[bool] = False
    name: str
    draining: bool


# --- expectations, and what is told to whom ---


class ExpectationSet(Fact):
    """Something is expected to give a sign of life again and again; new, or otherwise than before."""

    urgent: ClassVar[bool] = False
    name: str
    every: str  # a duration, counted from the last beat; or a schedule
    grace_s: float
    notify: str  # as notify= says it
    desc: str
    start_at: datetime | None  # nothing is expected before
    state: str  # `new`, `ok`, `late`, `failed`
    due_at: datetime | None  # grace included; None while late, and when no more are to come


class BeatReceived(Fact):
    """The sign came; or word that it went wrong over there."""

    urgent: ClassVar[bool] = False
    name: str
    state: str  # `ok` or `failed`
    text: str
    due_at: datetime | None  # and the next one must have come by then


class BeatMissed(Fact):
    """It did not come in time."""

    name: str
    due_at: datetime


class ExpectationForgotten(Fact):
    """Nothing is expected any more."""

    urgent: ClassVar[bool] = False
    name: str


class NoticeGiven(Fact):
    """What has been told of one event lately, this time included: the limit goes by it."""

    about: str  # `task:ID`, `expectation:NAME`, `worker:NAME`
    event: str
    since_at: datetime  # when counting began
    given: int
    withheld: int  # since the last one that was given
    turns: bool = False  # True = given now, so what says the opposite counts from nothing again


class NoticeFailed(Fact):
    """A notification did not arrive, whatever was tried: somebody does not know what he asked to be told."""

    to: str  # type and command of its run
    task: int
    name: str
    failure: Failure
    count: int  # of all that ever failed, this one included
    over: bool | None = None  # True, in a checkpoint: another one to the same has arrived since


# --- the daemon itself ---


class DaemonStarted(Fact):
    """A new process took over: nobody is connected, and every held run has until the lease ends."""

    version: str
    tz: str
    lease_until_at: datetime
    restored: bool = False  # from a backup: workers may have taken and ended what is only sent here
    zones: str = ""  # which zone data it has: their version, and where they are


class ClockStepped(Fact):
    """The wall clock was set. All that is measured from one moment to a later one moves with it."""

    by_s: float


TASKS_NAME = "tasks.db"  # which SAVE and LOAD mean where they name no file


class TasksSaved(Fact):
    """A file of tasks was written; by size and CRC-32 a later start knows a hand edit."""

    file: str
    upto: int  # the journal's sequence number it holds
    size: int
    file_crc: int
    tasks: int


class CheckpointWritten(Fact):
    """The state up to `upto` stands in a file; older segments are no longer needed to start."""

    file: str
    upto: int
    size: int
    file_crc: int


# --- what a checkpoint is made of: state told as facts ---
# Runs, workers and expectations tell all fields (omit_defaults=False), since this form always did.


class StateCarried(Fact):
    """Counters and what concerns all tasks."""

    next_task: int
    next_run: int
    paused_all: bool
    paused_until_at: datetime | None
    paused_why: str
    tz: str
    saved: list[TasksSaved]  # the last TasksSaved, oldest first
    totals: dict[str, int]
    last_step_s: float | None = None
    last_step_at: datetime | None = None
    beats_from_at: datetime | None = None
    decided_upto_at: datetime | None = None
    jumped_upto_at: datetime | None = None
    jumped_by_s: float | None = None
    leaving: dict[int, str] = msgspec.field(default_factory=dict)  # see `Tables`
    replaced: dict[int, int] = msgspec.field(default_factory=dict)  # the same
    next_flow: int = 1
    next_token: int = 1
    next_login: int = 1
    zones: str = ""


class TaskCarried(Fact, Standing):
    """One task as it was."""

    id: int
    rev: int
    record: dict[str, Any]
    anchor_at: datetime
    due_at: datetime | None
    decided: int = 0
    notice: bool = False
    changed_at: datetime | None = None


class TasksCarried(Fact):
    """Tasks of which nothing need be known before their moment: they are read when they are needed.

    All of them could be read by the release that says so here, with these zones.
    """

    version: str
    zones: list[str]
    ids: list[int]
    names: list[str]
    first: tuple[datetime, int, int]  # the earliest moment of all: when, its rank, whose
    rows: msgspec.Raw  # a list of TaskCarried, in the order of the ids


class LedgerCarried(Fact):
    """The account of all fires. Each row: from, until (seconds since 1970), due, then ends by disposition."""

    rows: list[list[int]]


class FailureCarried(Fact):
    """That a task's last fire did not end well: of before TaskCarried told it, and comes after the task then.

    Behind the good end of a run with on=all, that it did not on another worker.
    """

    task: int
    since_at: datetime
    run: int | None
    state: str
    due_at: datetime
    ended_at: datetime
    exit: int | None
    why: Reason


class RunCarried(Fact, RunRow, omit_defaults=False):
    """One run that had not ended."""

    run: int
    task: int
    record: dict[str, Any]  # the definition it runs
    state: str
    parked: bool
    stopping: str
    awaits: bool = False
    renewed: bool = False
    given: list[list[str]] | None = None


class ExpectationCarried(ExpectationSet, omit_defaults=False):
    """One expectation as it was, and as it stands in the table."""

    set_at: datetime
    beaten_at: datetime | None = None
    text: str = ""  # what the last beat said


class WorkerCarried(Fact, WorkerRow, omit_defaults=False):
    """One worker that was known."""

    can: list[str]


class ChangeCarried(Fact):
    """One change that HISTORY shows and UNDO can take back; its steps follow."""

    change: int
    made_at: datetime
    who: str | None
    what: str
    verb: str | None = None
    undone: str | None = None


class StepCarried(Fact, Standing):
    """One step of a change, and the task as it was before, as far as UNDO needs to know."""

    change: int
    kind: str  # of changelog.STEPS
    id: int  # 0 = all tasks
    rev: int  # of the task after the step
    was_rev: int | None = None
    record: dict[str, Any] | None = None
    anchor_at: datetime | None = None


def named(row: Any, names: Iterable[str]) -> dict[str, Any]:
    """What a row of a table and a fact call the same."""
    return {name: getattr(row, name) for name in names}
