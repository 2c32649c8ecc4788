"""Figures about fires that have ended, put together from rows of RUNS.

What is seen comes newest first. A fire is a run, whatever its attempts: it counts when it has
ended for good, with the last attempt's end and duration and the first one's lateness.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from math import ceil
from typing import Any

from attrs import Factory, define

from ..engine.ledger import DISPOSITIONS
from ..schedules.zones import Zone
from ..tasks.task import Outcome

COLUMNS = (
    "period", "fires", *DISPOSITIONS, "success",
    "duration-p50", "duration-p95", "duration-max", "late-p50", "late-p95", "late-max",
)  # fmt: skip
_JUDGED = ("ok", "failed", "timeout", "lost")  # success is the share of `ok` in these


@define
class Period:
    """One row."""

    fires: Counter[str] = Factory(Counter)
    durations: list[float] = Factory(list)
    lates: list[float] = Factory(list)

    def row(self, period: Any) -> tuple[Any, ...]:
        ends = (self.fires[state] for state in DISPOSITIONS)
        spreads = (*_spread(self.durations), *_spread(self.lates))
        return (period, self.fires.total(), *ends, success_of(self.fires), *spreads)


def success_of(fires: Mapping[str, int]) -> float | None:
    """Their share of success; None if there is nothing to judge by."""
    judged = sum(fires[state] for state in _JUDGED)
    return round(fires["ok"] / judged, 4) if judged else None


class Stats:
    """Counts by period (`day`, `hour`, or empty: all in one), as the zone has them, of the due moment."""

    def __init__(self, by: str, going_on: Collection[int], zone: Zone) -> None:
        self.since_at: datetime | None = None  # the oldest due moment seen
        self._by = by
        self._zone = zone
        self._going_on = going_on  # runs that have not ended; their attempts do not count yet
        self._later: set[int] = set()  # runs of which a later attempt was seen
        self._periods: dict[datetime, Period] = {} if by else {_ALL: Period()}

    def see(self, outcome: Outcome) -> None:
        """One more row."""
        run, attempt = outcome.run, outcome.attempt
        if run in self._going_on:
            return
        self.since_at = min(outcome.due_at, self.since_at or outcome.due_at)
        period = self._periods.setdefault(self._period(outcome.due_at), Period())
        if run is None or run not in self._later:
            period.fires[outcome.state] += outcome.count
            if outcome.started_at is not None:
                period.durations.append((outcome.ended_at - outcome.started_at).total_seconds())
        if run is not None and attempt != 1:
            self._later.add(run)
        elif outcome.started_at is not None:
            period.lates.append((outcome.started_at - outcome.due_at).total_seconds())

    def _period(self, at: datetime) -> datetime:
        if not self._by:
            return _ALL
        if self._by == "day":
            return datetime.combine(self._zone.day(at), time(), UTC)
        # An hour of a zone begins where its clock shows none of its minutes.
        local = at.astimezone(self._zone.info)
        return at - timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)

    def rows(self) -> Iterable[tuple[Any, ...]]:
        """Oldest first."""
        for begin, period in sorted(self._periods.items()):
            yield period.row({"hour": begin, "day": begin.date().isoformat()}.get(self._by, "all"))


_ALL = datetime.min.replace(tzinfo=UTC)


def percentile(ordered: Sequence[float], percent: int) -> float:
    """By nearest rank: the least value that so many percent of all are not above."""
    return ordered[max(0, ceil(percent * len(ordered) / 100) - 1)]


def _spread(seconds: list[float]) -> tuple[float | None, ...]:
    """Median, 95th percentile and maximum, to the millisecond."""
    if not seconds:
        return None, None, None
    seconds.sort()
    return tuple(round(percentile(seconds, percent), 3) for percent in (50, 95, 100))
