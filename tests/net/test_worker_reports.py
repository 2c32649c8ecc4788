"""What becomes of a worker's lines that cannot be kept."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from cronflowd.base.errors import Refusal
from cronflowd.daemon.core import Core
from cronflowd.engine import facts as f
from cronflowd.engine import orders as o
from cronflowd.engine.rules import Limits
from cronflowd.engine.state import State
from cronflowd.net.lines import LineReader
from cronflowd.net.workers import Batch
from cronflowd.tasks.reasons import in_words
from cronflowd.worker.executors.output import Output
from tests.lib.core_driver import Reader
from tests.lib.harness import HandClock
from tests.lib.memory_journal import MemoryJournal
from tests.lib.out_lines import take_all


class FullDisk(MemoryJournal):
    """Has no room for output, while it is full; remarks and ends may use the reserve."""

    is_full = True

    def append(self, facts: Sequence[f.Fact], at: datetime) -> int:
        if self.is_full and not all(fact.is_urgent() for fact in facts):
            raise Refusal("disk-full", "no room")
        return super().append(facts, at)


class Life(Reader):
    """Two runs on a worker, whose lines come in batches."""

    name = "w1"
    beside = ()
    last_seen_at = datetime(2030, 1, 1, tzinfo=UTC)

    def __init__(self) -> None:
        self.disk = FullDisk()
        self.core = Core(State("UTC"), self.disk, HandClock(self.last_seen_at), Limits())
        self.disk.notify = self.core.committed
        self.disk.is_full = False
        link: Any = self
        self.core.links["w1"] = link
        self.core.submit(o.JoinWorker("w1", 2, {}, ("shell",), "here", ()))
        for _ in range(2):
            record = {"schedule": "@daily", "command": "x", "jobName": f"t{self.core.state.next_task}"}
            added = f.TaskAdded(self.core.state.next_task, record, self.last_seen_at, None)
            self.core.state.apply(added, self.last_seen_at)
            self.core.submit(o.RunTask(record["jobName"], {}))

    def hear(self, *lines: str) -> None:
        link: Any = self
        batch = Batch(self.core, link, LineReader())
        for line in lines:
            batch.take(line)
        batch.close()

    def log(self, run: int) -> list[Any]:
        return [in_words(text) for _, text, *_ in self.core.state.outputs[run].lines]


TOLD = "{} characters of its output were not kept: the disk was full"


def test_output_that_no_disk_had_room_for_is_told_with_the_run_s_end() -> None:
    """A LOG that looks whole and is not would be believed."""
    life = Life()
    life.disk.is_full = True
    life.hear("OUT 1 1 four", "OUT 2 1 x", "OUT 1 2 \\udcff\\", "DONE 1 1 0")
    assert life.log(1) == [TOLD.format(5), TOLD.format(1)]
    assert life.core.dropped == {(2, 1): 0}


def test_output_that_no_disk_had_room_for_is_told_where_it_is_missing() -> None:
    """Between the lines that were kept, not at the end."""
    life = Life()
    life.hear("OUT 1 1 first")
    life.disk.is_full = True
    life.hear("OUT 1 1 second")
    life.disk.is_full = False
    life.hear("OUT 1 1 third")
    assert life.log(1) == ["first", TOLD.format(7), "third"]
    life.hear("DONE 1 1 0")
    assert life.core.dropped == {}


def test_that_output_is_dropped_is_told_before_anybody_can_be_killed() -> None:
    """The daemon was killed, or another one led, before the run ended: its LOG looked whole."""
    life = Life()
    life.disk.is_full = True
    life.hear("OUT 1 1 four")
    assert life.log(1) == [TOLD.format(5)]
    life.hear(*["OUT 1 1 and more"] * 50)
    assert life.log(1) == [TOLD.format(5)], "what is set aside for remarks is not used up by one run"
    assert life.core.output_of("w1", 1, 1) == 5 + 50 * 9
    life.hear("DONE 1 1 0")
    assert life.log(1) == [TOLD.format(5), TOLD.format(50 * 9)]


def test_what_was_dropped_has_come_all_the_same_and_doubles_nothing_after_a_broken_link() -> None:
    """The worker sends again from where `had=` says: one that left this out had the rows behind it twice."""
    life = Life()
    output = Output("1", 1000)
    for text, is_full in (("not kept\n", True), ("kept\n", False), ("not kept either\n", True)):
        life.disk.is_full = is_full
        output.feed(1, text.encode())
        life.hear(*take_all(output).splitlines())
        if text == "not kept\n":
            output.confirm(output.taken)
    output.resume(life.core.output_of("w1", 1, 1))
    assert take_all(output) == ""


def test_what_a_daemon_had_no_room_for_and_forgot_when_it_was_killed_doubles_nothing() -> None:
    """It said that it had come, and the next one knows nothing of it."""
    output = Output("1", 1000)
    output.feed(1, b"not kept\n")
    take_all(output)
    output.confirm(output.taken)
    output.resume(0)
    output.feed(1, b"kept\n")
    take_all(output)
    output.resume(len("kept\n"))
    assert take_all(output) == ""
