"""Tasks of a checkpoint are read when they are needed: nothing of what they do may show that."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cronflowd.base.walks import SLICE, Numbered
from cronflowd.daemon.files import Files
from cronflowd.engine import carried, encoding, tables
from cronflowd.engine import facts as f
from cronflowd.engine.carried import TOGETHER_BITS
from cronflowd.engine.orders import StartDaemon
from cronflowd.engine.state import State
from cronflowd.journal.tasks_file import format_tasks
from tests.engine.test_engine import join
from tests.lib.engine_driver import START, Driver, snapshot

TOGETHER = 1 << TOGETHER_BITS
MANY = 3 * TOGETHER


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the definitions that were read."""
    found: list[str] = []
    read_record = tables.read_record

    def read(record: dict[str, Any], default_tz: str) -> Any:
        found.append(str(record["jobName"]))
        return read_record(record, default_tz)

    monkeypatch.setattr(tables, "read_record", read)
    return found


def filled(count: int = MANY) -> Driver:
    """One task a minute, and each tenth at the same one, high ones first."""
    driver = Driver()
    for number in range(count):
        minute, prio = (7, "high") if number % 10 == 0 else (number % 60, "low")
        driver.line(f"ADD name=t{number} prio={prio} {minute} * * * * x{number % 3}")
    return driver


def from_checkpoint(state: State) -> State:
    """What a start finds, by way of the lines of a checkpoint."""
    again = State("UTC")
    for number, fact in enumerate(list(state.carry()), 1):
        again.apply(encoding.decode(encoding.encode(number, state.told_at, fact, False))[2], state.told_at)
    return again


def test_a_start_reads_no_task_and_a_question_reads_few(reads: list[str]) -> None:
    """With a million tasks a start would take half a minute, in which nothing runs."""
    driver = filled()
    reads.clear()
    driver.take_over(from_checkpoint(driver.state))
    driver.do(StartDaemon("1", "UTC"))
    assert (reads, len(driver.state.tasks), driver.state.count_own()) == ([], MANY, MANY)
    first = driver.state.due.first()
    assert len(reads) == TOGETHER - 1  # there is no task 0
    assert first == driver.state.due.first()
    assert driver.state.find("t200") is driver.state.tasks[201]
    assert driver.state.find("nobody") is None
    assert len(reads) == 2 * TOGETHER - 1


def test_all_are_read_in_small_steps_when_there_is_time(reads: list[str]) -> None:
    """Before they are needed: at midnight everything is due at once. Others have their turn in between."""
    state = from_checkpoint(filled().state)
    while state.tasks.make_some():
        before = len(reads)
        state.tasks.make_some()
        assert len(reads) - before <= TOGETHER
    assert len(reads) == len(set(reads)) == MANY


def test_what_is_read_has_its_moment_from_those_that_were_read_before() -> None:
    """A million tasks share some thousand moments; each with one of its own they would take 46 MB more."""
    state = from_checkpoint(filled().state)
    while state.tasks.make_some():
        pass
    moments = [task.due_at for task in state.tasks.values()]
    assert len(moments) == MANY
    assert len(set(map(id, moments))) == len(set(moments)) == len(state.moments) == 54


def test_what_waits_fires_as_all_others_do() -> None:
    """In the order of the moments, and of prio= within one, through groups that are read meanwhile."""
    driver, other = filled(), filled()
    other.take_over(from_checkpoint(other.state))
    for each in (driver, other):
        join(each, slots=MANY)
    for minutes in (5, 3, 60):
        for each in (driver, other):
            each.now += timedelta(minutes=minutes)
        assert (sent := driver.pump())
        assert sent == other.pump()
    assert snapshot(driver.state) == snapshot(other.state)


def test_the_same_tasks_are_told_the_same_whether_they_were_read_or_not() -> None:
    """A checkpoint of a checkpoint; and one in which some have come to wait, or no longer can."""
    driver = filled()
    driver.line("PAUSE t5")
    driver.line("ADD name=late after=t5 0 3 * * * x")
    again = from_checkpoint(driver.state)
    assert snapshot(again) == snapshot(driver.state)
    assert [type(fact) for fact in snapshot(again)].count(f.TaskCarried) == 2
    other = Driver()
    other.take_over(again)
    for each in (driver, other):
        each.line("RESUME t5")
        each.line("REMOVE t6")
        each.line("SET t200 command=y")
    assert snapshot(other.state) == snapshot(driver.state)


@pytest.mark.parametrize(("version", "read"), [("9.9", MANY), (carried.__version__, 0)])
def test_another_release_reads_them_at_once(version: str, read: int, reads: list[str]) -> None:
    """Its rules may be stricter, and what it cannot read must be told at the start."""
    state = State("UTC")
    facts = snapshot(filled().state)
    reads.clear()
    for fact in facts:
        if isinstance(fact, f.TasksCarried):
            fact.version = version
        state.apply(fact, START, 1)
    assert len(reads) == read
    assert len(state.tasks) == MANY


def test_one_that_cannot_be_read_after_all_is_told_when_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rules were changed, and the version was not."""
    state = from_checkpoint(filled(TOGETHER).state)
    monkeypatch.setattr(carried, "whole_task", _made_unreadable(carried.whole_task))
    assert state.find("t3")
    assert list(state.untold) == list(state.unread) == [4]


def _made_unreadable(whole_task: Any) -> Any:
    def make(state: Any, row: f.TaskCarried) -> Any:
        return whole_task(state, row if row.id != 4 else _strange(row))

    return make


def _strange(row: f.TaskCarried) -> f.TaskCarried:
    row.record["strange"] = "x"
    return row


def test_tasks_come_and_go_beside_those_that_wait() -> None:
    """A part of the table holds both; none is forgotten and none stays."""
    state = from_checkpoint(filled(10).state)
    driver = Driver()
    driver.take_over(state)
    driver.line("ADD name=new @hourly x")
    assert 3 in state.tasks
    assert (len(state.tasks), sorted(state.tasks), list(state.tasks.walk_numbers())) == (
        11, list(range(1, 12)), list(range(1, 12)),
    )  # fmt: skip
    assert state.tasks.waits(3)
    driver.line("REMOVE t2")
    assert not state.tasks.waits(4)
    assert (len(state.tasks), [task.id for task in state.tasks.values()]) == (10, [1, 2, *range(4, 12)])


async def test_a_file_of_tasks_is_written_of_what_waits(reads: list[str], tmp_path: Path) -> None:
    """At each graceful stop, too: to read a million tasks for that would take longer than it may."""
    driver = filled(SLICE + 5)
    driver.line("PAUSE t5 why=x")
    expected = b"".join(format_tasks((task.id, task.as_saved) for task in driver.state.tasks.values()))
    state = from_checkpoint(driver.state)
    reads.clear()
    files = Files(SimpleNamespace(state=state, now=lambda: START), tmp_path)  # type: ignore[arg-type]
    prepared, count = await files._prepare(tmp_path / "a.db", Numbered())
    prepared.publish()
    assert (tmp_path / "a.db").read_bytes() == expected
    assert (count, reads) == (SLICE + 5, [])


def test_every_table_by_which_tasks_are_found_is_whole_after_a_start() -> None:
    """A task that such a table misses is not found by it, and cannot even be removed."""
    driver = Driver()
    for line in (
        "ADD name=plain @daily x",
        "ADD name=root env.PASSWORD=secret:db @daily x",
        'ADD name=hook type=webhook payload={"key":"{{secret:hook}}"} @daily https://h.example/x',
        "ADD name=behind after=root @daily x",
        "ADD name=listener @on deploy x",
        "ADD name=still @daily x",
        "PAUSE still",
    ):
        driver.line(line)
    state = from_checkpoint(driver.state)
    while state.tasks.make_some():
        pass
    for name in ("dependents", "listeners", "wanted", "unread", "notices"):
        assert getattr(state, name) == getattr(driver.state, name), name
    assert [*state.paused] == [*driver.state.paused]
    driver.take_over(from_checkpoint(driver.state))
    driver.line("SET root command=y")
    driver.line("REMOVE hook")
    assert driver.state.wanted == {"db": {2}}
