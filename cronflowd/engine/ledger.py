"""The account of all fires: how many came due, and what became of them, for ever countable.

A fire is counted as due where it is decided (a run is queued, or a moment passes unused), and
once more by its disposition where it ends. The two counts share nothing but the row they stand
in, so a fire that ended twice, or never, shows as a difference: due = all ends + what is pending.

A row holds what was due in one hour, UTC. Old hours are folded into days and old days into
months, so that memory stays bounded; a run that ends late is found in whatever row its moment
is in by then. Rows may overlap (a clock set back unfolds nothing, and hours begin anew beside
a day): `balance` widens what is asked until it cuts no row, so the sums are right all the same.
Many moments that passed in one go count at the last one's.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from math import inf

from attrs import frozen

from ..schedules.zones import EPOCH
from ..tasks.reasons import shortened
from ..tasks.task import Failure, Outcome, Run
from . import facts as f

HOUR_S, DAY_S = 3600, 86_400
HOURS_KEPT_DAYS = 62  # older hours are folded into days
DAYS_KEPT_DAYS = 5 * 366  # older days into months
RAN = ("ok", "failed", "timeout", "cancelled", "lost")  # it ran, or may have
DISPOSITIONS = (*RAN, "skipped", "missed")
_PLACES = {state: place for place, state in enumerate(DISPOSITIONS, 1)}
_BAD = frozenset({"failed", "timeout", "lost", "missed"})
NEVER = datetime.max.replace(tzinfo=UTC)

Span = tuple[int, int]  # seconds since 1970: from the first to before the second
Counts = list[int]  # due, then the dispositions in their order


class Ledger:
    """Counts by the hour of the due moment."""

    def __init__(self) -> None:
        self._rows: dict[Span, Counts] = {}
        self._folded_day = -1  # the day on which rows were folded last
        self._begin_at = self._end_at = NEVER
        self._row: Counts = []  # that of the moments between these two; most are in the hour of the last

    def count_due(self, due_at: datetime, at: datetime, number: int = 1) -> None:
        """So many fires were decided."""
        row = self._row if self._begin_at <= due_at < self._end_at else self._find(due_at, at)
        row[0] += number

    def count_end(self, state: str, due_at: datetime, at: datetime, number: int = 1) -> None:
        """So many fires that were due then have this disposition, for good."""
        row = self._row if self._begin_at <= due_at < self._end_at else self._find(due_at, at)
        row[_PLACES[state]] += number

    def _find(self, due_at: datetime, at: datetime) -> Counts:
        """The row of a moment that is not in the hour of the last one."""
        begin = int(due_at.timestamp()) // HOUR_S * HOUR_S
        span = begin, begin + HOUR_S
        row = self._rows.get(span)
        if row is None:
            day = int(at.timestamp()) // DAY_S
            if day != self._folded_day:
                self._fold(day)
            span = _span(begin, day)
            row = self._rows.setdefault(span, _nothing())
        if span[1] - span[0] == HOUR_S:
            self._begin_at, self._row = EPOCH + timedelta(seconds=begin), row
            self._end_at = self._begin_at + _HOUR
        return row

    def _fold(self, day: int) -> None:
        """Once a day: what is old stands in longer rows from now on."""
        self._folded_day = day
        self._begin_at = self._end_at = NEVER
        for span in list(self._rows):
            length = span[1] - span[0]
            longer = _span(span[0], day) if length in (HOUR_S, DAY_S) else span
            if longer[1] - longer[0] > length:
                _add(self._rows.setdefault(longer, _nothing()), self._rows.pop(span))

    # --- checkpoints ---

    def carry(self) -> list[list[int]]:
        """All rows as numbers: begin and end, then the counts."""
        return [[*span, *row] for span, row in sorted(self._rows.items())]

    def take(self, rows: Iterable[list[int]]) -> None:
        """The opposite."""
        self._begin_at = self._end_at = NEVER
        self._rows = {(begin, end): [*counts] for begin, end, *counts in rows}

    # --- reading ---

    def balance(
        self, runs: Iterable[Run], since_at: datetime | None = None, until_at: datetime | None = None
    ) -> Balance:
        """What was due from `since_at` on and before `until_at`, and what became of it.

        `runs` are those that have not ended. Times are rounded outward to whole rows.
        """
        since = since_at.timestamp() // HOUR_S * HOUR_S if since_at else -inf
        until = -(-until_at.timestamp() // HOUR_S) * HOUR_S if until_at else inf
        sums, size = _nothing(), -1
        spans: list[Span] = []
        while len(spans) > size:
            size = len(spans)
            spans = [span for span in self._rows if span[0] < until and since < span[1]]
            since = min([since, *(begin for begin, _ in spans)]) if since_at else since
            until = max([until, *(end for _, end in spans)]) if until_at else until
        for span in spans:
            _add(sums, self._rows[span])
        pending = sum(since <= run.due_at.timestamp() < until for run in runs)
        ends = dict(zip(DISPOSITIONS, sums[1:], strict=True))
        until_at = until_at and _moment(min(until, _LAST))
        return Balance(sums[0], ends, pending, since_at and _moment(since), until_at)


@frozen
class Balance:
    """All fires of some time, and what became of them."""

    due: int
    ends: dict[str, int]  # by disposition, all seven
    pending: int  # fires that have not ended
    since_at: datetime | None = None  # as really counted; None = from the beginning
    until_at: datetime | None = None  # not included; None = to the end

    @property
    def ran(self) -> int:
        return sum(self.ends[state] for state in RAN)

    def holds(self, due_at: datetime) -> bool:
        """Whether a fire due then is one of them."""
        is_before = self.since_at is not None and due_at < self.since_at
        return not is_before and (self.until_at is None or due_at < self.until_at)

    @property
    def trouble(self) -> str:
        """By how much it does not balance, in words; empty if it does."""
        known = sum(self.ends.values()) + self.pending
        if known == self.due:
            return ""
        what = "not accounted for" if self.due > known else "too many accounted for"
        return f"unbalanced: of {self.due} fires due, {abs(self.due - known)} {what}"


def _span(begin: int, day: int) -> Span:
    """The row that the hour or day beginning then is in, on this day."""
    old = day - begin // DAY_S
    if old <= HOURS_KEPT_DAYS:
        return begin, begin + HOUR_S
    if old <= DAYS_KEPT_DAYS:
        begin = begin // DAY_S * DAY_S
        return begin, begin + DAY_S
    first = _moment(begin).replace(day=1, hour=0)
    following = (first + timedelta(days=31)).replace(day=1)
    return int(first.timestamp()), int(following.timestamp())


_LAST = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())


def _moment(seconds: float) -> datetime:
    return EPOCH + timedelta(seconds=seconds)


def _nothing() -> Counts:
    return [0] * (1 + len(DISPOSITIONS))


def _add(row: Counts, more: Counts) -> None:
    row[:] = [one + other for one, other in zip(row, more, strict=True)]


_HOUR = timedelta(seconds=HOUR_S)


def judge(failure: Failure | None, outcome: Outcome) -> Failure | None:
    """What a task remembers of its failing, after one more fire has ended."""
    if outcome.state == "ok":
        return None
    if outcome.state not in _BAD:
        return failure  # cancelled or skipped: nobody knows whether it would have ended well
    since_at = failure.since_at if failure else outcome.ended_at
    return Failure(
        since_at, outcome.run, outcome.state, outcome.due_at, outcome.ended_at, outcome.exit,
        shortened(outcome.why),
    )  # fmt: skip


def outcome_of(fact: f.RunEnded | f.FiresPassed, at: datetime, seq: int) -> Outcome:
    """The row of RUNS that such a fact is."""
    if isinstance(fact, f.RunEnded):
        return Outcome(
            seq, fact.run, fact.task, fact.name, fact.attempt, fact.state, fact.due_at,
            fact.started_at, at, fact.worker, fact.exit, fact.why or "", fact.cause, flow=fact.flow,
        )  # fmt: skip
    return Outcome(
        seq, None, fact.task, fact.name, None, fact.state, fact.last_due_at, None, at, None, None,
        fact.why, fact.cause, fact.count, fact.first_due_at, fact.flow,
    )  # fmt: skip
