"""Journals with a life in them, for the tests of what is made from journals."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cronflowd.engine import facts as f
from cronflowd.engine.state import State
from cronflowd.journal import compaction
from cronflowd.journal.files import journal_dir, list_checkpoints
from cronflowd.journal.journal import FileJournal
from cronflowd.tasks.task import Outcome
from tests.lib.waiting import PATIENCE_S

BEGIN = datetime(2026, 11, 21, 10, tzinfo=UTC)
MUCH = 10**9  # bytes of history: none of what these tests write is too old


class Life:
    """Writes facts as a daemon would, and applies them to a state that remembers everything."""

    def __init__(self, data: Path, segment_bytes: int = 4000) -> None:
        self.data = data
        self.segment_bytes = segment_bytes
        self.now = BEGIN
        self.runs = self.tasks = 0
        self.state = State(recent_runs=10**9)
        self._told = threading.Event()
        self.journal = self._open()

    def _open(self) -> FileJournal:
        journal = FileJournal(self.data, self.segment_bytes, reserve_bytes=0)
        journal.notify = lambda seq: self._told.set()
        for _ in journal.replay():
            pass
        return journal

    def say(self, *facts: f.Fact) -> None:
        """One decision."""
        first = self.journal.last + 1
        self.journal.append(facts, self.now)
        for seq, fact in enumerate(facts, first):
            self.state.apply(fact, self.now, seq)

    def commit(self) -> None:
        while self.journal.committed < self.journal.last:
            self._told.clear()
            self.journal.flush()
            assert self._told.wait(PATIENCE_S)
        settle(self.journal)

    def add_task(self, **options: str) -> int:
        self.tasks += 1
        record: dict[str, Any] = {"schedule": "* * * * *", "command": "x", "jobName": f"task_{self.tasks}"}
        self.say(f.TaskAdded(self.tasks, record | options, self.now, self.now))
        return self.tasks

    def join(self, name: str = "w1") -> None:
        self.say(f.WorkerJoined(name, 1000, {}, ["shell"], "-", [], self.now))

    def start(self, task: int) -> int:
        """A run that is running."""
        self.now += timedelta(seconds=1)
        self.runs += 1
        self.say(f.RunQueued(self.runs, task, self.now, "schedule", self.now + timedelta(seconds=60)))
        self.say(f.RunSent(self.runs, 1, "w1"), f.RunStarted(self.runs, 1))
        return self.runs

    def write(self, run: int, *lines: str) -> None:
        self.say(f.OutputReceived(run, 1, [[1, line] for line in lines]))

    def end(self, run: int, state: str = "ok") -> None:
        self.now += timedelta(seconds=1)
        row = self.state.runs[run]
        task = row.task_id
        self.say(
            f.RunEnded(run, 1, task, f"task_{task}", state, row.due_at, row.started_at, "w1", 0, None, True)
        )

    def run(self, task: int, *lines: str) -> int:
        """A whole one."""
        run = self.start(task)
        if lines:
            self.write(run, *lines)
        self.end(run)
        self.commit()
        return run

    def skip(self, task: int) -> None:
        self.now += timedelta(seconds=1)
        self.say(f.FiresPassed(task, f"task_{task}", "skipped", self.now, self.now, 1, "overlap", self.now))
        self.commit()

    def close(self) -> None:
        self.journal.close()

    def compact(self, history_bytes: int = MUCH) -> int:
        """As the daemon has it done, while it writes on; up to which record."""
        upto = compact(self.data, history_bytes)
        self.journal.forget_closed(upto)
        return upto

    def expected(self) -> list[Outcome]:
        """All outcomes ever, newest first."""
        return list(reversed(self.state.recent))


def settle(journal: FileJournal) -> None:
    """Waits until the committer has done all it had to, a new file after the last commit included."""
    journal._wake.put(None)  # it takes this when there is nothing else to do
    for _ in range(20_000):
        if journal._wake.empty():
            return
        threading.Event().wait(0.001)
    raise AssertionError("the committer does not come to rest")


def told(state: State) -> list[f.Fact]:
    """Everything about a state that lasts."""
    return deepcopy(list(state.carry()))


def restarted(data: Path) -> tuple[State, FileJournal]:
    """What a new process finds; its journal is closed again."""
    state, journal = State(recent_runs=10**9), FileJournal(data)
    for seq, at, fact in journal.replay():
        state.apply(fact, at, seq)
    journal.close()
    return state, journal


def compact(data: Path, history_bytes: int = MUCH) -> int:
    """A whole compaction; up to which record."""
    upto = int(compaction.compact(journal_dir(data), history_bytes)["upto"])
    compaction.remove_superseded(data, upto)
    return upto


def newest_checkpoint(data: Path) -> int:
    return list_checkpoints(journal_dir(data))[-1][0]


def names(paths: Iterable[Path]) -> list[str]:
    return sorted(path.name for path in paths)
