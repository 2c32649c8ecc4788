"""What can be asked: questions change nothing. And what concerns one connection only.

Names are imperatives. `ref` is a task's id or name as the client wrote it.
"""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from typing import Any

from attrs import field, frozen

from ..engine.orders import Pattern

MAX_COUNTED = 10_000  # rows of RUNS behind a page, to tell how many there are


@frozen
class Alone:
    """A question that its verb asks alone."""


@frozen
class ShowNodes:
    """Who there is, of several daemons that are one."""


@frozen
class AnswerAlone:
    """LOCAL: this node answers, and carries nothing to another."""


@frozen
class StepDown:
    node: str  # empty = whichever knows most


@frozen
class ListTasks:
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


@frozen
class GetTask:
    ref: str
    rev: int | None = None  # None = as it is now


@frozen
class FindRevision:
    """ROLLBACK: what stands there becomes the definition again."""

    ref: str
    rev: int


@frozen
class ShowHistory:
    ref: str | None  # None = every change, as UNDO counts them
    limit: int | None
    offset: int


@frozen
class SaveTasks:
    file: str


@frozen
class LoadFile:
    file: str


@frozen
class BackUp:
    file: str


@frozen
class ImportLine:
    """A line of a crontab, in the place where it stands there."""

    line: str
    is_system: bool
    is_dry: bool  # only look what would come of it
    is_replace: bool  # a task that has the name already becomes this one


@frozen
class ExportTasks:
    refs: tuple[str, ...] | None  # None = all


@frozen
class ListRuns:
    ref: str | None
    states: frozenset[str]  # empty = any
    since_at: datetime | None  # of the due moment
    until_at: datetime | None
    limit: int | None
    offset: int
    worker: str = ""
    exit: int | None = None
    tag: str = ""  # of tasks as they are now
    flow: int | None = None  # the run of a flow
    run: int | None = None
    counts: bool = False  # also how many there are without limit and offset, if there are no more than:

    @property
    def is_for_all(self) -> bool:
        """Whether nothing is left out, but by limit and offset."""
        said = (self.ref, self.states, self.since_at, self.until_at, self.worker, self.exit, self.tag)
        return not any(said) and self.exit is None and self.flow is None and self.run is None

    @property
    def count_to(self) -> int:
        """How many are met to know how many there are; the last of them says that there are more."""
        end = sys.maxsize if self.limit is None else self.offset + self.limit
        return max(end, MAX_COUNTED) + 1 if self.counts else 0


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
class ShowMetrics:
    name: str  # how those begin that are asked for


@frozen
class ListFailed:
    since_at: datetime | None  # of the end


@frozen
class ShowLog:
    run: int  # 0: the newest of `ref`, or the one so many `back` from it
    follow: bool
    ref: str = ""
    back: int = 0
    fd: int | None = None  # None = all
    tail: int | None = None  # so many rows of the end; None = all


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
    within: timedelta | None = None  # no moment that is later
    by_hour: bool = False  # only how many


@frozen
class AskHealth:
    late_s: float  # it is unwell if something has waited longer
    queue: int  # or if more runs wait


@frozen
class ShowDependencies:
    ref: str | None


@frozen
class ListFlows:
    """FLOW alone."""


@frozen
class ShowFlow:
    ref: str  # any task of it; or `#7`, one of its runs


@frozen
class ListFlowRuns:
    ref: str
    limit: int | None
    offset: int


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
class Since:
    """A place behind which WATCH goes on: the last column of the row that was read last."""

    seq: int
    part: int  # of the events of this record, so many are known; 0 = all

    @property
    def known(self) -> int:
        """The last record all of whose events are."""
        return self.seq - 1 if self.part else self.seq


@frozen
class Watch:
    kinds: frozenset[str]  # of `tasks`, `runs`, `workers`
    ref: str | None
    since: Since | None = None


@frozen
class Hello:
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


@frozen
class ActAs:
    """AS; with neither, the gateway is itself again."""

    name: str = ""  # empty = nobody, from an address
    address: str = ""  # empty = the gateway's own
    login: int | None = None  # only as long as that one has not ended


@frozen
class Forgot:
    """USER FORGOT."""

    word: str  # its name, or its address for mail


@frozen
class Reset:
    """USER RESET."""

    token: str = field(repr=False)
    password: str = field(default="", repr=False)  # empty = one is made


@frozen
class AddLogin:
    """SESSION ADD."""

    name: str
    expires_at: datetime


@frozen
class RenewLogin:
    token: str = field(repr=False)


@frozen
class EndLogin:
    token: str = field(repr=False)  # or its id


@frozen
class ListLogins:
    user: str  # empty = everybody's


@frozen
class AddToken:
    name: str
    role: str
    user: str
    worker: str
    expires_at: datetime | None


@frozen
class ListUsers:
    name: str = ""  # that one; empty: all


@frozen
class ListTokens:
    pass


@frozen
class ListSecrets:
    pass


@frozen
class PutSecret:
    name: str
    value: str = field(repr=False)


@frozen
class Audit:
    since_at: datetime | None
    until_at: datetime | None
    who: str
    verdict: str
    limit: int
    offset: int


@frozen
class SetFormat:
    as_json: bool
    width: int | None  # of a table; 0: as wide as it is; None: no table


@frozen
class Help:
    word: str
