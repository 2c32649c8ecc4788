"""What a job's life costs, counted in calls: no machine and no neighbour can change that figure.

Time would tell more and hold less: a bound in microseconds is either loose or flickers. The
calls of our own functions and of the interpreter's are what grew before, a few at each change.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cronflowd.daemon.answers import Answers
from cronflowd.daemon.core import Core
from cronflowd.engine.orders import JoinWorker, StartDaemon
from cronflowd.engine.rules import Limits
from cronflowd.engine.state import State
from cronflowd.net.clients import Session
from cronflowd.net.lines import LineReader
from cronflowd.net.workers import Batch
from tests.lib.calls import calls_of
from tests.lib.harness import START, HandClock
from tests.lib.memory_journal import MemoryJournal

ROUNDS = 50


class Bench:
    """A core with a journal in memory and one worker whose connection is a list."""

    def __init__(self) -> None:
        self.clock = HandClock(START)
        self.journal = MemoryJournal()
        self.core = Core(State("UTC"), self.journal, cast(Any, self.clock), Limits())
        self.sent: list[str] = []
        link: Any = SimpleNamespace(
            name="w1",
            send=self.sent.append,
            number=1,
            last_seen_at=START,
            beside=(),
        )
        self.core.links["w1"] = link
        self.core.submit(StartDaemon("1", "UTC"))
        self.core.submit(JoinWorker("w1", 1000, {}, ("shell", "sleep"), "here", ()))
        self.answers = Answers(self.core, Path("/dev/null/nowhere"))
        self.session = Session(1, "here", "unix")
        self.batch = Batch(self.core, link, LineReader())

    def say(self, line: str) -> None:
        self.answers.handle(line, self.session, self.clock.now())

    def place(self) -> None:
        """Beats until everything that is due has been sent."""
        while len(self.sent) < ROUNDS:  # a beat takes what the clock allows it
            self.core.beat()
        assert all(line.startswith("RUN ") for line in self.sent)

    def end_all(self) -> None:
        """The worker's reports of what it was sent."""
        self.batch.now = self.clock.now()
        for line in list(self.sent):
            _, run, attempt, _ = line.split(" ", 3)
            self.batch.take(f"STARTED {run} {attempt}")
            self.batch.take(f"DONE {run} {attempt} 0")
        self.batch.close()
        self.sent.clear()


def _add() -> float:
    bench = Bench()
    bench.say("ADD name=first 0 9 * * * true")
    return calls_of(lambda: [bench.say(f"ADD name=t{n} 0 9 * * * true") for n in range(ROUNDS)]) / ROUNDS


def _add_new() -> float:
    """The same, each at another time of the day: schedules are parsed, and their first moment is found."""
    bench = Bench()
    for n in range(ROUNDS):
        bench.say(f"ADD name=first{n} {n} 8 1 2 * true")  # the words are known, though not together
    return calls_of(lambda: [bench.say(f"ADD name=t{n} {n} 9 1 2 * true") for n in range(ROUNDS)]) / ROUNDS


def _fire() -> float:
    """RunQueued of a task that is due each minute, and its order."""
    bench = Bench()
    for number in range(ROUNDS):
        bench.say(f"ADD name=t{number} * * * * * true")
    bench.clock.move(START + timedelta(minutes=1))
    bench.place()
    bench.end_all()
    bench.clock.move(START + timedelta(minutes=2))
    return calls_of(bench.place) / ROUNDS


def _life() -> float:
    """RUN, its order, STARTED and DONE."""
    bench = Bench()
    bench.say("ADD name=noop overlap=allow 0 0 1 1 * true")

    def live() -> None:
        for _ in range(ROUNDS):
            bench.say("RUN noop")
        bench.place()
        bench.end_all()

    live()
    return calls_of(live) / ROUNDS


@pytest.mark.parametrize(
    ("what", "at_most"),
    [(_add, 100), (_add_new, 138), (_fire, 58), (_life, 110)],
    ids=["ADD", "ADD of a new schedule", "fire", "life"],
)
def test_calls_stay_few(what: Callable[[], float], at_most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a microsecond here and there is how the price of a job doubled before anybody saw it."""
    monkeypatch.setattr("cronflowd.daemon.core.BEAT_S", 60.0)  # or a slow machine would count more beats
    assert what() <= at_most
