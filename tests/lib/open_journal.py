"""A real journal on a directory, open and ready, for tests of the journal itself."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cronflowd.base.errors import Fatal
from cronflowd.engine import facts as f
from cronflowd.journal.files import journal_dir, list_segments
from cronflowd.journal.journal import FileJournal
from tests.lib.journal_driver import settle
from tests.lib.waiting import PATIENCE_S

NOW = datetime(2026, 11, 21, 10, tzinfo=UTC)


class Committed:
    """Waits for `notify`, as the daemon does."""

    def __init__(self) -> None:
        self.upto = 0
        self._changed = threading.Condition()

    def __call__(self, seq: int) -> None:
        with self._changed:
            self.upto = seq
            self._changed.notify_all()

    def wait(self, seq: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.upto >= seq, PATIENCE_S), (seq, self.upto)

    def wait_or(self, seq: int, failed: threading.Event) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.upto >= seq or failed.is_set(), PATIENCE_S)


class Open:
    """A file journal that is replayed and ready, and whatever it said."""

    def __init__(self, data: Path, **options: Any) -> None:
        self.committed = Committed()
        self.fatal: list[Fatal] = []
        self.failed = threading.Event()
        self.journal = FileJournal(data, notify=self.committed, on_fatal=self._fail, **options)
        self.replayed = list(self.journal.replay())
        self.committed.upto = self.journal.last

    def _fail(self, error: Fatal) -> None:
        self.fatal.append(error)
        self.failed.set()
        self.committed(self.committed.upto)  # whoever waits looks again

    def commit(self, *decisions: list[f.Fact]) -> int:
        last = self.journal.last
        for facts in decisions:
            last = self.journal.append(facts, NOW)
        self.journal.flush()
        self.committed.wait(last)
        settle(self.journal)
        return last

    def __enter__(self) -> Open:
        return self

    def __exit__(self, *_: object) -> None:
        self.journal.close()


def replay(data: Path) -> list[f.Fact]:
    with Open(data) as opened:
        return [fact for _, _, fact in opened.replayed]


def only_segment(data: Path) -> Path:
    [(_, path)] = list_segments(journal_dir(data))
    return path


def decision(number: int, size: int = 1) -> list[f.Fact]:
    """Facts that no other number has."""
    return [f.OutputReceived(number, part, [[0, f"line {number}.{part} é"]]) for part in range(size)]
