"""A core on a journal in memory, some of whose facts are refused as a full disk refuses them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, ClassVar

import trio.testing

from cronflowd.ask import commands
from cronflowd.base.errors import Refusal
from cronflowd.daemon.core import Core
from cronflowd.engine import facts as f
from cronflowd.engine import orders as o
from cronflowd.engine.rules import Limits
from cronflowd.engine.state import State
from tests.lib.engine_driver import START
from tests.lib.harness import HandClock, Wire
from tests.lib.memory_journal import MemoryJournal

Connect = Callable[[Wire], None]


class PickyJournal(MemoryJournal):
    """Refuses decisions that hold one of these facts."""

    refused: ClassVar[tuple[type[f.Fact], ...]] = ()

    def append(self, facts: Sequence[f.Fact], at: datetime) -> int:
        if any(isinstance(fact, self.refused) for fact in facts):
            raise Refusal("disk-full", "no space left")
        return super().append(facts, at)


class Reader:
    """A worker's connection that takes whatever it is given."""

    beside = ()

    def send(self, line: str) -> bool:
        """It reads everything at once."""
        return False

    def flush(self, seq: int) -> None:
        """And owes nothing."""


def make_core(journal: MemoryJournal | None = None) -> Core:
    core = Core(State("UTC"), journal or PickyJournal(), HandClock(START), Limits())
    core.journal.notify = core.committed
    core.submit(o.StartDaemon("1", "UTC"))
    return core


def line(core: Core, text: str) -> Any:
    return core.submit(commands.parse(text, commands.Context(core.now(), "UTC")))


async def until_quiet() -> None:
    await trio.testing.wait_all_tasks_blocked()
