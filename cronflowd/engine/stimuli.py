"""Everything that can be asked: orders from outside, orders due inside, and questions.

An order is a request and may be refused; only facts change anything. Questions change
nothing at all. Names are imperatives. `ref` is a task's id or name as the client wrote it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from attrs import field, frozen

from ..tasks.model import TaskSpec

# --- from clients ---


@frozen
class AddTask:
    """ADD, AT and NOW; `task_id` only where a file or a JSON record names one."""

    spec: TaskSpec
    task_id: int | None = None
    now: bool = False  # NOW: due at this moment, once


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

    records: Sequence[tuple[int | None, TaskSpec]]
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
    running: tuple[tuple[int, int], ...]


@frozen
class DropWorker:
    name: str
    why: str


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
    lines: list[list[Any]]  # [fd, text] each


@frozen
class ReportEnded:
    worker: str
    run: int
    attempt: int
    exit: int
    details: dict[str, str]


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


# --- what comes due inside; `Engine.next_step` gives these ---


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
    why: str


@frozen
class FireAfter:
    """All dependencies of an @after task have ended; `broken` says why one of them will not do."""

    task: int
    broken: str


@frozen
class MissBeat:
    """Nothing was heard in time."""

    name: str


@frozen
class ExpireRun:
    """No worker took it within its grace."""

    run: int


# --- questions, and what concerns one connection only ---


@frozen
class Ping:
    pass


@frozen
class ListTasks:
    state: str
    tag: str
    name: str  # a glob
    limit: int | None
    offset: int


@frozen
class GetTask:
    ref: str
    rev: int | None = None  # None = as it is now


@frozen
class ShowHistory:
    ref: str | None  # None = every change, as UNDO counts them
    limit: int | None
    offset: int


@frozen
class ShowStatus:
    pass


@frozen
class ShowClock:
    pass


@frozen
class SaveTasks:
    file: str


@frozen
class LoadFile:
    file: str


@frozen
class ImportLine:
    """A line of a crontab, in the place where it stands there."""

    line: str
    is_system: bool
    is_dry: bool  # only look what would come of it


@frozen
class ExportTasks:
    refs: tuple[str, ...] | None  # None = all


@frozen
class ListRuns:
    ref: str | None
    state: str
    since_at: datetime | None  # of the due moment
    until_at: datetime | None
    limit: int | None
    offset: int


@frozen
class ProveLedger:
    """PROVE: of the fires due in this time, what became of each."""

    since_at: datetime | None
    until_at: datetime | None  # not included


@frozen
class ShowStats:
    ref: str | None
    by: str  # `day`, `hour`, or empty: all in one row
    since_at: datetime | None  # of the due moment
    until_at: datetime | None


@frozen
class ListFailed:
    since_at: datetime | None  # of the end


@frozen
class ShowLog:
    run: int
    follow: bool


@frozen
class AskWhy:
    ref: str
    time: str  # as written, since the task's zone is not known yet; empty: of the newest moment


@frozen
class ShowNext:
    ref: str  # empty: `schedule` is asked about
    schedule: str
    tz: str
    count: int
    from_at: datetime | None


@frozen
class ShowDependencies:
    ref: str | None


@frozen
class DescribeSchedule:
    ref: str  # as for ShowNext
    schedule: str
    tz: str


@frozen
class ShowClockChanges:
    ref: str | None  # None = all
    until_at: datetime


@frozen
class CompareZones:
    """TZDIFF: the zone data in use, and those of another directory."""

    directory: str
    ref: str | None
    until_at: datetime
    count: int  # rows a task


@frozen
class ListExpectations:
    pass


@frozen
class ListWorkers:
    pass


@frozen
class Watch:
    kinds: frozenset[str]  # of `tasks`, `runs`, `workers`
    ref: str | None


@frozen
class Hello:
    name: str


@frozen
class Authenticate:
    token: str = field(repr=False)


@frozen
class SetFormat:
    as_json: bool


@frozen
class Help:
    verb: str


@frozen
class Quit:
    pass
