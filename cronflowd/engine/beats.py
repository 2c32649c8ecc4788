"""What is expected to give a sign of life, and when it is late: the table, built by facts.

The rules of `state` hold here: only `apply` comes to these methods, and none of them refuses.
When a beat is due was decided from the schedule and stands in the fact. Here it is only put off,
where nobody could have kept it: after a start of the daemon, the end of PAUSE all, and a big step
of the clock, everything has its grace from then on.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache

from msgspec.structs import replace

from ..base.errors import Refusal
from ..schedules.zones import EPOCH, parse_duration
from . import facts as f
from .alarms import Alarms

FAR_S = 3 * 3600.0  # a clock set forward by more gives all beats their grace anew

FORM = f.ExpectationSet.__struct_fields__


@lru_cache(maxsize=1024)  # of all there are it is asked at each step of the clock, and most say the same
def interval_s(every: str) -> float | None:
    """`1d` as seconds; None for a schedule."""
    try:
        return parse_duration(every)
    except Refusal:
        return None


class Beats:
    """The table, and which of them is late next."""

    def __init__(self) -> None:
        self.expected: dict[str, f.ExpectationCarried] = {}
        self.from_at = EPOCH  # nobody is late before this, and his grace
        self.late = Alarms(self.expected, self.late_at)

    def late_at(self, expected: f.ExpectationCarried) -> datetime | None:
        """When it is called late."""
        if expected.due_at is None:
            return None
        return max(expected.due_at, self.from_at + timedelta(seconds=expected.grace_s))

    def give_grace(self, from_at: datetime) -> None:
        """From then on everybody has his grace, if he has not longer anyhow."""
        self.from_at = from_at
        self.late.find_anew()

    def _put(self, expected: f.ExpectationCarried) -> None:
        self.expected[expected.name] = expected
        self.late.set(expected.name, expected)

    def set(self, fact: f.ExpectationSet, at: datetime) -> None:
        """What is expected: anew, or in another form."""
        old = self.expected.get(fact.name)
        been = f.named(old, ("set_at", "beaten_at", "text")) if old else {"set_at": at}
        self._put(f.ExpectationCarried(**f.named(fact, FORM), **been))

    def receive(self, fact: f.BeatReceived, at: datetime) -> None:
        """The sign of life."""
        expected = self.expected[fact.name]
        expected.state, expected.text = fact.state, fact.text
        expected.beaten_at, expected.due_at = at, fact.due_at
        self._put(expected)

    def miss(self, fact: f.BeatMissed) -> None:
        """Nothing came in time."""
        expected = self.expected[fact.name]
        expected.state, expected.due_at = "late", None

    def take(self, fact: f.ExpectationCarried) -> None:
        """As a checkpoint tells it; the table's own rows change."""
        self._put(replace(fact))

    def step(self, by: timedelta) -> None:
        """The clock was set: intervals stay as long as they are, and what a schedule says stays."""
        for expected in self.expected.values():
            expected.set_at += by
            if expected.beaten_at:
                expected.beaten_at += by
            if expected.due_at and interval_s(expected.every) is not None:
                expected.due_at += by
