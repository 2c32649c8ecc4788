"""Drives an engine without a daemon: what the core does, with a list for a journal."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import structs

from cronflowd.ask import commands
from cronflowd.engine import encoding, facts
from cronflowd.engine.changelog import record_of
from cronflowd.engine.engine import Engine
from cronflowd.engine.orders import StartDaemon
from cronflowd.engine.rules import Decision, Limits
from cronflowd.engine.state import State
from cronflowd.tasks.task import TaskSpec, read_record

START = datetime(2030, 1, 1, 12, 0, 0, tzinfo=UTC)
LIMITS = Limits(lease_s=30.0)
MAX_STEPS = 20_000  # more than any test has due at one moment


def snapshot(state: State) -> list[facts.Fact]:
    """Everything a state holds that must survive, as comparable values."""
    return list(state.carry())


def must_be_same(fact: facts.Fact, again: facts.Fact, default_tz: str) -> None:
    """A fact and what is read back of it: a task's definition is the value here, its record there."""
    if isinstance(spec := getattr(fact, "record", None), TaskSpec):
        assert isinstance(again, facts.TaskAdded | facts.TaskChanged | facts.TaskRestored)
        read = read_record(record_of(again.record), default_tz)
        # Schedules are equal where they are the same object; of those nobody can read, each is its own.
        assert spec == read or (spec.unread and spec.unread == read.unread)
        again = structs.replace(again, record=spec)
    assert fact == again


class Driver:
    """An engine, its journal as a list of encoded lines, and a hand-moved clock."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.now = START
        self.limits = limits
        self.journal: list[bytes] = []
        self._sent_at_once: list[tuple[str, str]] = []  # orders that a client's line led to
        self.take_over(State("UTC"))

    def take_over(self, state: State) -> None:
        """Another process goes on from this state."""
        self.state, self.engine = state, Engine(state, self.limits)

    def do(self, order: Any) -> Decision:
        """Decide, journal, apply; what stands in the journal says the same as what is applied."""
        decision = self.engine.decide(order, self.now)
        for fact in decision.facts:
            line = encoding.encode(len(self.journal) + 1, self.now, fact, False)
            self.journal.append(line)
            seq, at, again, _ = encoding.decode(line)
            assert (seq, at) == (len(self.journal), self.now)
            must_be_same(fact, again, self.state.default_tz)
            self.state.apply(fact, at, seq)
        return decision

    def line(self, text: str) -> Decision:
        """What a client's line does."""
        decision = self.do(
            commands.parse(text, commands.Context(self.now, self.state.default_tz, self.state.templates))
        )
        self._sent_at_once += [message for message in decision.messages if message[1].startswith("RUN ")]
        return decision

    def decisions(self) -> Iterator[tuple[Any, Decision]]:
        """Takes the steps that are due, one after the other: each order, and what it led to."""
        while (step := self.engine.next_step(self.now)) is not None:
            yield step, self.do(step)

    def pump(self) -> list[tuple[str, str]]:
        """Takes all steps that are due; the messages they sent, and the orders since the last time."""
        messages, self._sent_at_once = self._sent_at_once, []
        steps: deque[Any] = deque(maxlen=5)
        count = 0
        while (step := self.engine.next_step(self.now) or self.engine.next_slice(self.now)) is not None:
            messages += self.do(step).messages
            steps.append(step)
            count += 1
            assert count < MAX_STEPS, f"it goes round and round: {list(steps)}"
        return messages

    def wait(self, seconds: float) -> list[tuple[str, str]]:
        """Moves time, stopping at every moment that is due on the way, as the daemon's timer does."""
        messages = self.pump()
        until = self.now + timedelta(seconds=seconds)
        while (due := self.engine.next_due()) is not None and due <= until:
            self.now = max(self.now, due)
            messages += self.pump()
        self.now = until
        return messages + self.pump()

    def replay(self) -> State:
        """The state that the journal alone gives."""
        state = State("UTC")
        for line in self.journal:
            seq, at, fact, _ = encoding.decode(line)
            state.apply(fact, at, seq)
        return state

    def carried(self) -> State:
        """The state that a checkpoint of this moment gives."""
        state = State("UTC")
        for fact in self.state.carry():
            state.apply(encoding.decode(encoding.encode(1, self.now, fact, False))[2], self.now, 1)
        return state

    def restart(self, state: State | None = None) -> None:
        """Kills the daemon and starts another one on the same journal, or on this."""
        self.take_over(state or self.replay())
        self.do(StartDaemon("1", "UTC"))
