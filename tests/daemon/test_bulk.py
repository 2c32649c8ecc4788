"""Changes of very many tasks in the loop: how far they go ahead of the disk."""

from __future__ import annotations

from cronflowd.ask import commands
from cronflowd.daemon.core import SLICES_AHEAD, Core
from cronflowd.engine import orders as o
from cronflowd.engine.definitions import Limits
from cronflowd.engine.state import State
from cronflowd.journal.journal import MemoryJournal
from tests.lib.engine_driver import START
from tests.lib.harness import HandClock

MANY = 1000


class SlowJournal(MemoryJournal):
    """A disk that takes its time: what was flushed is on it when `arrive` says so."""

    def flush(self) -> None:
        """It is on its way."""

    def arrive(self) -> None:
        super().flush()


def make_core(tasks: int = MANY) -> tuple[Core, SlowJournal]:
    journal = SlowJournal()
    core = Core(State("UTC"), journal, HandClock(START), Limits())
    journal.notify = core.committed
    core.submit(o.StartDaemon("1", "UTC"))
    for number in range(1, tasks + 1):
        added = commands.parse(f"ADD name=n{number} 0 1 * * * true", commands.Context(START, "UTC"))
        core.submit(added)
    journal.arrive()
    return core, journal


def test_slices_are_few_ahead_of_the_disk() -> None:
    """All replies wait for the commits before theirs: 300 slices ahead of the disk were seconds."""
    core, journal = make_core()
    core.submit(o.ClearTasks())
    taken = []
    while core.state.unfinished.bulk:
        before = core.state.unfinished.slices
        while core.take_slice():
            pass
        taken.append(core.state.unfinished.slices - before)
        journal.arrive()
    assert max(taken) == SLICES_AHEAD
