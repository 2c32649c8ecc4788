"""Everything that can be ordered, from outside and by what is due inside.

An order is a request and may be refused; only facts change anything. Names are imperatives.
`ref` is a task's id or name as the client wrote it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from attrs import frozen

from ..tasks.reasons import Reason
from ..tasks.task import TaskSpec

# --- from clients ---


@frozen
class AddTask:
    """ADD, AT and NOW; `task_id` only where a file or a JSON record names one."""

    spec: TaskSpec
    task_id: int | None = None
    now: bool = False  # NOW: due at this moment, once
    replace: bool = False  # the task of that name, if there is one, becomes this


@frozen
class SetTask:
    """SET: option words, and `schedule`, `command`, `name` among them."""

    ref: str
    words: dict[str, str]


@frozen
class RemoveTask:
    ref: str
    force: bool = False  # also if others wait for it: they do so no longer


@frozen
class ClearTasks:
    pass


@frozen
class RecordSave:
    """A file of tasks as it is on the disk, or will be in a moment."""

    file: str
    upto: int
    size: int
    crc: int
    tasks: int


@frozen
class LoadTasks:
    """LOAD: these tasks, and no others, from now on."""

    records: list[tuple[int | None, TaskSpec]]
    saved: RecordSave | None = None  # what the file was, if it was tasks.db
    file: str = ""  # its name, for HISTORY; empty = by the daemon itself, which is no change


@frozen
class PauseTasks:
    refs: tuple[str, ...] | None  # None = all
    until_at: datetime | None
    why: str


@frozen
class ResumeTasks:
    refs: tuple[str, ...] | None


@frozen
class UndoChanges:
    count: int
    plan: Any = None  # what it comes to, if that was worked out before


@frozen
class RunTask:
    ref: str
    args: dict[str, str]


@frozen
class CancelRun:
    run: int


@frozen
class SetExpectation:
    """EXPECT: `every`, `grace`, `notify`, `desc`, `start` as words; what is left out stays."""

    name: str
    words: dict[str, str]


@frozen
class ReceiveBeat:
    name: str
    is_ok: bool
    text: str


@frozen
class ForgetExpectation:
    name: str


@frozen
class DrainWorker:
    name: str
    draining: bool


# --- from workers ---


@frozen
class JoinWorker:
    name: str
    slots: int
    labels: dict[str, str]
    can: tuple[str, ...]
    address: str
    running: tuple[tuple[int, int], ...]  # (run, attempt) each
    holds_all: bool = False  # `running` is all it ever took and still owes: of others it knows nothing
    instance: str = ""  # of its memory
    connection: int = 0


@frozen
class DropWorker:
    """A connection has ended. If it is not the worker's last one, only `unsent` counts."""

    name: str
    why: str
    connection: int = 0
    unsent: tuple[tuple[int, int], ...] = ()  # (run, attempt) of orders that never left


@frozen
class UnsendRuns:
    """Orders that no connection could take."""

    worker: str
    runs: tuple[tuple[int, int], ...]  # (run, attempt) each


@frozen
class DismissWorker:
    """It said BYE."""

    name: str


@frozen
class ReportStarted:
    worker: str
    run: int
    attempt: int


@frozen
class ReportOutput:
    worker: str
    run: int
    lines: list[list[Any]]  # as in base/output.py


@frozen
class ReportEnded:
    worker: str
    run: int
    attempt: int
    exit: int
    details: dict[str, str]
    began: bool = False  # that it had started was reported with it


# --- from the daemon ---


@frozen
class StartDaemon:
    version: str
    tz: str


@frozen
class NoticeStep:
    by_s: float


@frozen
class RescheduleTasks:
    """Zone data may have changed, so moments to come may be others."""


@frozen
class RecordCheckpoint:
    file: str
    upto: int
    size: int
    crc: int


# --- one slice of what concerns very many tasks; `Engine.next_slice` gives these ---


@frozen
class StageTasks:
    """Some of a file's tasks, as they will be, are kept for a LOAD that is to be decided."""

    entries: Sequence[tuple[int, TaskSpec]]
    next_task: int | None = None  # with the first: the ids below are taken


@frozen
class DecideLoad:
    """All are staged, and are the tasks from now on."""

    tasks: int
    saved: RecordSave | None
    file: str


@frozen
class DropStaged:
    """The LOAD will not be."""


@frozen
class BulkSlice:
    """What is done to these tasks is of this kind."""

    kind: str  # of `slices`
    tasks: Sequence[int]
    done: int = 0
    plan: Any = None  # of UNDO


@frozen
class EndBulk:
    pass


@frozen
class RescheduleSlice:
    """These tasks are looked at again; then all up to the id `upto` are done (None = all)."""

    tasks: Sequence[int]
    upto: int | None


# --- what comes due inside; `Engine.next_step` gives these ---


@frozen
class PassOver:
    """Nothing: moments that are none any more were passed over, and more of them are there."""


@frozen
class RescheduleTask:
    """A moment comes of a task that has yet to be looked at again."""

    task: int


@frozen
class FireTask:
    task: int


@frozen
class PlaceRun:
    run: int
    worker: str


@frozen
class LoseRun:
    """Its lease ended."""

    run: int


@frozen
class TimeoutRun:
    run: int


@frozen
class ReleaseRun:
    run: int


@frozen
class AdmitRun:
    """The dependencies of its task have ended well."""

    run: int


@frozen
class BreakRun:
    """One of them has not."""

    run: int
    why: Reason


@frozen
class TellUnread:
    """That the record of a task cannot be read has not been said yet."""

    task: int


@frozen
class FireAfter:
    """All dependencies of an @after task have ended; `broken` says why one of them will not do."""

    task: int
    broken: Reason


@frozen
class MissBeat:
    """Nothing was heard in time."""

    name: str


@frozen
class ExpireRun:
    """No worker took it within its grace."""

    run: int
