"""The account of all fires once more, from the facts alone, for `cronflowd check`.

It shares nothing with the tables of `State`: what both say must be the same, or one of
them is wrong, or the journal tells what cannot have happened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from attrs import define

from ..engine import facts as f
from ..engine.state import State

MAX_FAULTS = 20  # more would say nothing new


@define
class Open:
    """A run that has not ended."""

    due_at: Any
    sent: int = 0  # its last attempt that was given to a worker


class Audit:
    """Sees every fact in order, before it is applied."""

    def __init__(self) -> None:
        self.due = 0
        self.ends: Counter[str] = Counter()
        self.open: dict[int, Open] = {}
        self.faults: list[str] = []
        self._last_run = 0

    def see(self, fact: f.Fact) -> None:
        """One more fact."""
        if (look := _LOOKS.get(type(fact))) is not None:
            look(self, fact)

    def compare(self, state: State) -> list[str]:
        """All that is wrong, in words; `state` is what the same facts have made."""
        account = state.ledger.account(state.runs.values())
        if account.trouble:
            self._find(f"the ledger is {account.trouble}")
        self._same("fires due", account.due, self.due)
        for name, number in account.ends.items():
            self._same(f"fires {name}", number, self.ends[name])
            self._same(f"fires {name} in all", state.totals.get(name, 0), self.ends[name])
        self._same("runs not ended", len(state.runs), len(self.open))
        return self.faults

    def _same(self, what: str, told: int, counted: int) -> None:
        if told != counted:
            self._find(f"{what}: the state says {told}, the records say {counted}")

    def _find(self, fault: str) -> None:
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(fault)

    # --- facts ---

    def _passed(self, fact: f.FiresPassed) -> None:
        self.due += fact.count
        self.ends[fact.state] += fact.count

    def _queued(self, fact: f.RunQueued) -> None:
        if fact.run <= self._last_run:
            self._find(f"run {fact.run} was queued twice")
        self._last_run = max(self._last_run, fact.run)
        self.due += 1
        self.open[fact.run] = Open(fact.due_at, int(bool(fact.worker)))

    def _sent(self, fact: f.RunSent) -> None:
        run = self.open.get(fact.run)
        if run is None:
            self._find(f"run {fact.run} was sent and had ended, or never begun")
        elif fact.attempt <= run.sent:
            self._find(f"attempt {fact.attempt} of run {fact.run} was sent twice")
        else:
            run.sent = fact.attempt

    def _ended(self, fact: f.RunEnded) -> None:
        run = self.open.get(fact.run)
        if run is None:
            self._find(f"run {fact.run} ended and had ended before, or never begun")
        elif run.due_at != fact.due_at:
            self._find(f"run {fact.run} ended as that of another moment")
        if fact.final:
            self.ends[fact.state] += 1
            self.open.pop(fact.run, None)

    def _state_carried(self, fact: f.StateCarried) -> None:
        self._last_run = fact.next_run - 1
        self.ends.update(fact.totals)
        self.due += sum(fact.totals.values())

    def _run_carried(self, fact: f.RunCarried) -> None:
        self.due += 1
        self.open[fact.run] = Open(fact.due_at, fact.attempt - (fact.state == "queued"))


_LOOKS: dict[type[f.Fact], Callable[[Audit, Any], None]] = {
    f.FiresPassed: Audit._passed,
    f.RunQueued: Audit._queued,
    f.RunSent: Audit._sent,
    f.RunEnded: Audit._ended,
    f.StateCarried: Audit._state_carried,
    f.RunCarried: Audit._run_carried,
}
