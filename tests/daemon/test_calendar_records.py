"""What files of dates say becomes records: each start and each node decides by the same days."""

from __future__ import annotations

import os
from datetime import date, timedelta
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import pytest
import trio

from cronflowd.base.errors import Refusal
from cronflowd.daemon.core import Core
from cronflowd.daemon.files import Files
from cronflowd.engine.definitions import finish
from cronflowd.engine.encoding import decode
from cronflowd.engine.orders import AddTask, StartDaemon
from cronflowd.engine.rules import Limits
from cronflowd.engine.state import State
from cronflowd.host import calendar_files
from cronflowd.journal.records import unseal
from cronflowd.tasks.task import read_record
from tests.lib.harness import START, HandClock
from tests.lib.memory_journal import MemoryJournal

NAME = "file:closed.txt"
DAY = date(2030, 12, 25)
RECORD = {"schedule": "0 9 * * *", "command": "x", "jobName": "a", "skip": NAME}


class Machine:
    """A daemon's files on one machine, started on a journal."""

    def __init__(self, data: Path, journal: MemoryJournal, *, epoch: int | None = None) -> None:
        state = State("UTC")
        for seq, at, fact in journal.replay():
            state.apply(fact, at, seq)
        data.mkdir(exist_ok=True)
        self.data, self.state, self.journal = data, state, journal
        self.core = Core(state, journal, cast(Any, HandClock(START)), Limits())
        self.files = Files(self.core, data)
        if epoch is not None:
            self.files.memory, self.core.epoch = data / "saved", epoch

    def start(self) -> None:
        """As one that decides does."""
        finish(self.files.find_calendars())
        self.core.submit(StartDaemon("1", "UTC"))
        self.core.journal.flush()

    def write(self, *days: date, hours: int = 0) -> None:
        """A file that was edited so long after START."""
        path = self.data / "closed.txt"
        path.write_text("".join(f"{day} # {self.data.name}\n" for day in days))
        at = (START + timedelta(hours=hours)).timestamp()
        os.utime(path, (at, at))

    def look(self) -> str | None:
        self.files.look_at_calendars()
        self.core.journal.flush()
        return self.state.calendars.day_off([NAME], DAY)


async def _leader(data: Path) -> Machine:
    machine = Machine(data, MemoryJournal())
    machine.start()
    machine.write(DAY)
    await machine.files.learn([NAME])
    machine.core.submit(AddTask(read_record(RECORD, "UTC")))
    machine.core.journal.flush()
    return machine


@pytest.fixture
def leader(tmp_path: Path) -> Machine:
    """It has read its file, and a task names it."""
    return trio.run(_leader, tmp_path / "a")


def again(machine: Machine, **about: Any) -> Machine:
    """Another process on the same journal, maybe on another machine."""
    return Machine(about.pop("data", machine.data), MemoryJournal(machine.journal.lines), **about)


def facts(machine: Machine) -> list[str]:
    return [type(decode(unseal(line[:-1]))[2]).__name__ for line in machine.journal.lines]


def test_an_edit_is_a_record_and_nothing_else_is(leader: Machine) -> None:
    """Each look would write a megabyte, else."""
    assert leader.look() == f"{NAME} (a)"
    leader.write(DAY, hours=1)  # touched, and the same
    assert leader.look() == f"{NAME} (a)"
    assert facts(leader).count("CalendarRead") == 1
    leader.write(date(2030, 12, 31), hours=2)
    assert leader.look() is None
    assert facts(leader).count("CalendarRead") == 2
    assert again(leader).state.calendars.known.keys() == {NAME}


def test_an_edit_is_read_once_while_the_journal_takes_nothing(
    leader: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each order that is refused has its pass, and 20,000 dates would be read in each of them."""
    reads = Mock(side_effect=calendar_files.parse_dates)
    monkeypatch.setattr(calendar_files, "parse_dates", reads)
    with monkeypatch.context() as refusing:
        refusing.setattr(
            leader.journal, "append", Mock(side_effect=Refusal("busy", "the disk takes no more"))
        )
        leader.write(date(2030, 12, 31), hours=1)
        for _ in range(5):
            assert leader.look() == f"{NAME} (a)", "what is not journaled decides nothing"
        leader.write(date(2030, 12, 30), date(2030, 12, 31), hours=2)
        assert leader.look() == f"{NAME} (a)"
        assert reads.call_count == 2
    assert leader.look() is None
    assert (reads.call_count, facts(leader).count("CalendarRead")) == (2, 2)
    assert again(leader).state.calendars.known[NAME].names.keys() == {date(2030, 12, 30), date(2030, 12, 31)}


def test_a_start_reads_files_that_changed_meanwhile(leader: Machine) -> None:
    """Whenever they say they were written: a file may be put back from a backup."""
    same = again(leader)
    same.start()
    assert facts(same).count("CalendarRead") == 1
    leader.write(hours=-1)
    changed = again(leader)
    changed.start()
    assert changed.look() is None


def test_a_calendar_that_no_task_names_any_more_is_forgotten(leader: Machine) -> None:
    """Else every checkpoint would hold all that there ever were."""
    for each in list(leader.state.tasks):
        leader.state.tasks.pop(each)
    finish(leader.files.find_calendars())
    assert facts(leader)[-1] != "CalendarDropped", "it is on no disk yet"
    leader.core.journal.flush()
    assert facts(leader)[-1] == "CalendarDropped"
    assert not again(leader).state.calendars.known


def test_what_cannot_be_journaled_is_read_when_it_can(leader: Machine) -> None:
    """A full disk must not make a day off out of what nobody will know after a start."""
    leader.write(date(2030, 12, 31), hours=1)
    take, leader.journal.append = leader.journal.append, refuse  # type: ignore[method-assign]
    assert leader.look() == f"{NAME} (a)"
    leader.journal.append = take  # type: ignore[method-assign]
    assert leader.look() is None


def refuse(*_: Any) -> int:
    raise Refusal("disk-full", "nothing fits")


def test_a_node_decides_by_what_the_leader_read(leader: Machine, tmp_path: Path) -> None:
    """Its own file may be a copy of last year's: due moments must not be others after a takeover."""
    standby = again(leader, data=tmp_path / "b", epoch=0)
    standby.write(hours=-1)
    assert standby.look() == f"{NAME} (a)"
    standby.core.epoch = 2
    standby.start()
    assert standby.look() == f"{NAME} (a)"
    assert not standby.state.calendars.troubles
    standby.write(DAY, hours=1)  # now somebody edits this one
    assert standby.look() == f"{NAME} (b)"


def test_a_new_leader_takes_a_file_that_is_newer_and_tells_of_one_that_is_not_there(
    leader: Machine, tmp_path: Path
) -> None:
    """Whoever edited it on the machine that leads now meant it."""
    newer = again(leader, data=tmp_path / "b", epoch=2)
    newer.write(DAY, hours=1)
    newer.start()
    assert newer.look() == f"{NAME} (b)"
    without = again(leader, data=tmp_path / "c", epoch=2)
    without.start()
    assert without.look() == f"{NAME} (a)"
    assert "there is no closed.txt" in without.state.calendars.troubles[NAME]


def test_a_task_that_names_an_older_file_changes_nothing(leader: Machine, tmp_path: Path) -> None:
    """ADD on the machine that leads now would bring last year's days back, for all tasks that name them."""
    other = again(leader, data=tmp_path / "b", epoch=2)
    other.write(hours=-1)
    assert other.look() == f"{NAME} (a)", "it leads, and somebody said LOCAL before it has begun"
    other.start()
    trio.run(other.files.learn, [NAME])
    assert other.look() == f"{NAME} (a)"


def test_a_file_that_was_away_and_is_back_is_no_trouble_any_more(leader: Machine) -> None:
    """It is the same, so nobody reads it; STATUS would tell of it to the end of the process."""
    path = leader.data / "closed.txt"
    path.rename(leader.data / "away")
    assert leader.look() == f"{NAME} (a)"
    assert NAME in leader.state.calendars.troubles
    (leader.data / "away").rename(path)
    assert leader.look() == f"{NAME} (a)"
    assert not leader.state.calendars.troubles


def test_what_is_added_while_all_tasks_are_looked_through_is_kept(leader: Machine) -> None:
    """Of a million tasks that takes seconds; the new task would run on its days off."""
    looking = leader.files.find_calendars()
    next(looking)
    (leader.data / "new.txt").write_text(f"{DAY}\n")
    trio.run(leader.files.learn, ["file:new.txt"])
    finish(looking)
    assert leader.state.calendars.day_off(["file:new.txt"], DAY)


def test_public_holidays_are_known_where_another_leads(leader: Machine, tmp_path: Path) -> None:
    """LOCAL NEXT of a standby leaves out the same days; the package is on its machine, too."""
    pytest.importorskip("holidays")
    trio.run(leader.files.learn, ["holidays:FR"])
    leader.core.journal.flush()
    standby = again(leader, data=tmp_path / "b", epoch=0)
    standby.look()
    assert standby.state.calendars.day_off(["holidays:FR"], DAY)
