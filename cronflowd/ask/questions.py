"""What can be asked: questions change nothing. And what concerns one connection only.

Names are imperatives. `ref` is a task's id or name as the client wrote it.
"""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from typing import Any

import msgspec
from attrs import field, frozen

from ..engine.orders import Pattern

MAX_COUNTED = 10_000  # rows of RUNS behind a page, to tell how many there are


class Question(msgspec.Struct):
    """Base of all but those with a secret, which keep it out of what a traceback says of them."""


class Alone(Question):
    """A question that its verb asks alone."""


class AnswerAlone(Question):
    """LOCAL: this node answers, and carries nothing to another."""


class StepDown(Question):
    node: str  # empty = whichever knows most


class ListTasks(Question):
    states: frozenset[str]  # empty = any
    which: Pattern
    limit: int | None
    offset: int
    owner: str = ""
    type: str = ""
    search: str = ""  # in any case
    sort: str = "id"
    reverse: bool = False
    counts: bool = False  # also how many there are without limit and offset

    @property
    def is_all(self) -> bool:
        """Whether it leaves no task out."""
        which = self.which
        return not (self.states or which.tag or which.name or self.owner or self.type or self.search)


class GetTask(Question):
    ref: str
    rev: int | None = None  # None = as it is now


class FindRevision(Question):
    """ROLLBACK: what stands there becomes the definition again."""

    ref: str
    rev: int


class ShowHistory(Question):
    ref: str | None  # None = every change, as UNDO counts them
    limit: int | None
    offset: int


class SaveTasks(Question):
    file: str


class LoadFile(Question):
    file: str


class BackUp(Question):
    file: str


class ImportLine(Question):
    """A line of a crontab, in the place where it stands there."""

    line: str
    is_system: bool
    is_dry: bool  # only look what would come of it
    is_replace: bool  # a task that has the name already becomes this one


class ExportTasks(Question):
    refs: tuple[str, ...] | None  # None = all


class ListRuns(Question):
    ref: str | None
    states: frozenset[str] = frozenset()  # empty = any
    since_at: datetime | None = None  # of the due moment
    until_at: datetime | None = None
    limit: int | None = None
    offset: int = 0
    worker: str = ""
    exit: int | None = None
    tag: str = ""  # of tasks as they are now
    flow: int | None = None  # the run of a flow
    run: int | None = None
    counts: bool = False  # also how many there are without limit and offset, if there are no more than:

    @property
    def is_for_all(self) -> bool:
        """Whether nothing is left out, but by limit and offset."""
        said = (self.ref, self.states, self.since_at, self.until_at, self.worker, self.tag)
        return not any(said) and self.exit is None and self.flow is None and self.run is None

    @property
    def count_to(self) -> int:
        """How many are met to know how many there are; the last of them says that there are more."""
        end = sys.maxsize if self.limit is None else self.offset + self.limit
        return max(end, MAX_COUNTED) + 1 if self.counts else 0


class ProveLedger(Question):
    """PROVE: of the fires due in this time, what became of each."""

    since_at: datetime | None
    until_at: datetime | None  # not included


class ShowStats(Question):
    ref: str | None
    by: str  # `day`, `hour`, or empty: all in one row
    tz: str  # whose days and hours
    since_at: datetime | None  # of the due moment
    until_at: datetime | None


class ShowMetrics(Question):
    name: str  # how those begin that are asked for


class ListFailed(Question):
    since_at: datetime | None  # of the end


class ShowLog(Question):
    run: int  # 0: the newest of `ref`, or the one so many `back` from it
    follow: bool
    ref: str = ""
    back: int = 0
    fd: int | None = None  # None = all
    tail: int | None = None  # so many rows of the end; None = all


class AskWhy(Question):
    ref: str
    time: str  # as written, since the task's zone is not known yet; empty: of the newest moment


class ShowNext(Question):
    ref: str  # empty: `schedule` is asked about
    schedule: str
    tz: str
    count: int
    from_at: datetime | None
    within: timedelta | None = None  # no moment that is later
    by_hour: bool = False  # only how many


class AskHealth(Question):
    late_s: float  # it is unwell if something has waited longer
    queue: int  # or if more runs wait


class ShowDependencies(Question):
    ref: str | None


class ShowFlow(Question):
    ref: str  # any task of it; or `#7`, one of its runs


class ListFlowRuns(Question):
    ref: str
    limit: int | None
    offset: int


class DescribeSchedule(Question):
    ref: str  # as for ShowNext
    schedule: str
    tz: str


class ShowClockChanges(Question):
    ref: str | None  # None = all
    until_at: datetime


class CompareZones(Question):
    """TZDIFF: the zone data in use, and those of another directory."""

    directory: str
    ref: str | None
    until_at: datetime
    count: int  # rows a task


class Since(Question):
    """A place behind which WATCH goes on: the last column of the row that was read last."""

    seq: int
    part: int  # of the events of this record, so many are known; 0 = all

    @property
    def known(self) -> int:
        """The last record all of whose events are."""
        return self.seq - 1 if self.part else self.seq


class Watch(Question):
    kinds: frozenset[str]  # of events.ALL_KINDS
    ref: str | None
    since: Since | None = None


class Hello(Question):
    name: str


@frozen
class Authenticate:
    """AUTH: a token; or an account's name, and its password."""

    word: str = field(repr=False)
    password: str | None = field(default=None, repr=False)


@frozen
class SetUser:
    """USER ADD and SET, whose password is not a hash yet; None = one is made, where it is new."""

    name: str
    changes: dict[str, Any]
    password: str | None = field(repr=False)
    is_new: bool
    is_first: bool = False


@frozen
class SetPassword:
    name: str = ""  # empty = one's own
    password: str = field(default="", repr=False)  # empty = one is made


@frozen
class Once:
    key: str
    line: str = field(repr=False)


class ActAs(Question):
    """AS; with neither, the gateway is itself again."""

    name: str = ""  # empty = nobody, from an address
    address: str = ""  # empty = the gateway's own
    login: int | None = None  # only as long as that one has not ended
    is_only: bool = False  # from then on it is whom it speaks for, and no gateway


class Forgot(Question):
    """USER FORGOT."""

    word: str  # its name, or its address for mail


@frozen
class Reset:
    """USER RESET."""

    token: str = field(repr=False)
    password: str = field(default="", repr=False)  # empty = one is made


@frozen
class RenewLogin:
    token: str = field(repr=False)


@frozen
class EndLogin:
    token: str = field(repr=False)  # or its id


class ListLogins(Question):
    user: str  # empty = everybody's


class ListUsers(Question):
    name: str = ""  # that one; empty: all


@frozen
class PutSecret:
    name: str
    value: str = field(repr=False)


class Audit(Question):
    since_at: datetime | None
    until_at: datetime | None
    who: str
    verdict: str
    limit: int
    offset: int


class SetFormat(Question):
    as_json: bool
    width: int | None  # of a table; 0: as wide as it is; None: no table


class Help(Question):
    word: str
