"""IMPORT among tasks that are there already: names that are free, and lines that are not added twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cronflowd.ask import commands
from cronflowd.base.errors import Refusal
from cronflowd.base.replies import Reply
from cronflowd.base.walks import Steps
from cronflowd.daemon import crontab_orders
from cronflowd.daemon.core import Core
from cronflowd.daemon.crontab_orders import Import
from cronflowd.engine import orders as o
from cronflowd.engine.definitions import finish
from cronflowd.engine.rules import Limits
from cronflowd.engine.state import State
from tests.lib.access_driver import House
from tests.lib.engine_driver import START
from tests.lib.harness import HandClock
from tests.lib.memory_journal import MemoryJournal

LINES = 300
A_LINE = 8  # looks at names that a line may take, those of its order among them


class CountedNames(dict[str, int]):
    """A table of names that knows how often it was asked."""

    asked = 0

    def __contains__(self, name: object) -> bool:
        self.asked += 1
        return super().__contains__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.asked += 1
        return super().get(name, default)


@pytest.fixture
def core() -> Core:
    state = State("UTC")
    state.names = CountedNames()
    core = Core(state, MemoryJournal(), HandClock(START), Limits())
    core.journal.notify = core.committed
    core.submit(o.StartDaemon("1", "UTC"))
    return core


def tell(core: Core, crontab: Import, line: str) -> str:
    """What is said to a line; of what is done, its text."""
    question: Any = commands.parse(f"IMPORT {line}", commands.Context(core.now(), "UTC"))
    return finish(crontab.take(core, question)).text


def asked(core: Core) -> int:
    assert isinstance(core.state.names, CountedNames)
    return core.state.names.asked


@pytest.mark.parametrize("how", ["", "--dry-run "])
def test_a_crontab_of_one_program_costs_its_length(
    core: Core, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The daemon stands still meanwhile: with 100,000 such tasks each line was half a second."""
    compared = []
    is_same = crontab_orders._is_same
    monkeypatch.setattr(crontab_orders, "_is_same", lambda *two: compared.append(two) or is_same(*two))
    crontab = Import()
    for number in range(LINES):
        assert f"backup-{number + 1} " in tell(core, crontab, f"{how}@daily backup {number}") or not number
    assert asked(core) <= A_LINE * LINES
    assert not compared


def test_the_first_line_of_another_connection_passes_each_name_once(core: Core) -> None:
    """Whoever comes later knows none of the names; after one walk it does."""
    first, second = Import(), Import()
    for number in range(LINES):
        tell(core, first, f"@daily backup {number}")
    before = asked(core)
    for number in range(LINES):
        with pytest.raises(Refusal, match="it is here already, as"):
            tell(core, second, f"@daily backup {number}")
    assert asked(core) - before <= A_LINE * 2 * LINES


async def test_others_have_their_turn_while_the_first_line_of_a_connection_passes_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 100,000 tasks of one program the first line of each connection kept everybody for 0.3 s."""
    monkeypatch.setattr(crontab_orders, "PASSED_TOGETHER", 50)
    house, first = House(tmp_path), Import()
    house.state.names = CountedNames()
    for number in range(LINES):
        tell(house.core, first, f"@daily backup {number}")
    most, moving = 0, Import()
    question: Any = commands.parse("IMPORT @daily backup x", commands.Context(START, "UTC"))
    steps = Steps(moving.take(house.core, question))
    before = asked(house.core)
    for _ in steps:
        most, before = max(most, asked(house.core) - before), asked(house.core)
    assert steps.value.values["jobName"] == f"backup-{LINES + 1}"
    assert 0 < most <= A_LINE * 50
    session = house.session()
    answer = house.answers.handle("IMPORT @daily backup y", session, START)
    assert not isinstance(answer, Reply)  # but a coroutine, which gives way
    assert (await answer).values["jobName"] == f"backup-{LINES + 2}"
    assert isinstance(house.answers.handle("IMPORT @daily backup z", session, START), Reply)


def test_a_line_is_known_again_among_many_of_its_program(core: Core) -> None:
    """Not only beside the newest one, and also if it came by another way."""
    crontab = Import()
    for number in range(5):
        tell(core, crontab, f"@daily backup {number}")
    with pytest.raises(Refusal, match='it is here already, as "backup-3"'):
        tell(core, crontab, "@daily backup 2")
    core.submit(commands.parse("ADD name=backup-6 @daily backup 5", commands.Context(core.now(), "UTC")))
    with pytest.raises(Refusal, match='it is here already, as "backup-6"'):
        tell(core, crontab, "@daily backup 5")
    assert "backup-7 " in tell(core, crontab, "@hourly backup 2")


def test_names_begin_anew_once_their_tasks_are_gone(core: Core) -> None:
    """A crontab that is imported again after a CLEAR gets the names it had."""
    crontab = Import()
    for number in range(3):
        tell(core, crontab, f"@daily backup {number}")
    for name in ("backup", "backup-2", "backup-3"):
        core.submit(commands.parse(f"REMOVE {name}", commands.Context(core.now(), "UTC")))
    assert " backup " in tell(core, crontab, "@daily backup 2")
    assert " backup-2 " in tell(core, crontab, "@daily backup 1")


def test_the_names_of_few_programs_are_remembered(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crontab of a million programs must not be kept in memory by its connection."""
    monkeypatch.setattr(crontab_orders, "MAX_PROGRAMS", 4)
    crontab = Import()
    for number in range(20):
        tell(core, crontab, f"@daily p{number}")
        assert len(crontab._passed) <= 4
    with pytest.raises(Refusal, match='it is here already, as "p0"'):
        tell(core, crontab, "@daily p0")
