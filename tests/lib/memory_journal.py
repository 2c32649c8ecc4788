"""A journal on no disk, for tests: what it takes is committed as soon as it is flushed."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from threading import Lock

from cronflowd.base.errors import Fatal, Refusal
from cronflowd.base.histograms import Histogram
from cronflowd.engine.encoding import encode_open
from cronflowd.engine.facts import Fact
from cronflowd.journal.journal import COMMITS_S, FileJournal
from cronflowd.journal.records import SEAL_BYTES, read_line
from cronflowd.journal.replay import Record, Segment


class MemoryJournal(FileJournal):
    """`lines` are those that one before it committed."""

    full = False  # a test's word for a disk without space, reserve aside
    open_segment = Segment(Path("memory"), 1, 0, 0)  # that nothing can be read from

    def __init__(self, lines: Sequence[bytes] = ()) -> None:
        self.notify = lambda seq: None
        self.closed, self.set_aside, self.commit_s = [], "", Histogram(*COMMITS_S)
        self.last = self.committed = self.chain = 0
        self._failed: Fatal | None = None
        self._bodies, self._lines = [], list(lines)
        self._lock = Lock()

    @property
    def lines(self) -> list[bytes]:
        """What a crash now would leave."""
        return list(self._lines)

    def replay(self) -> Iterator[Record]:
        for line in self._lines:
            seq, at, fact, _ = read_line(line[:-1], Path("memory"), 0)
            self.last, self.chain = seq, zlib.crc32(line[: -SEAL_BYTES - 1], self.chain)
            yield seq, at, fact
        self.committed = self.last

    def append(self, facts: Sequence[Fact], at: datetime) -> int:
        if self._failed:
            raise self._failed
        if self.full and not all(fact.is_urgent() for fact in facts):
            raise Refusal("disk-full", "no space left in memory; nothing was changed")
        self._bodies += encode_open(self.last, at, facts)
        self.last += len(facts)
        return self.last

    def flush(self) -> None:
        if self._bodies:
            self._seal(first_of_batch=True)
            self.committed = self.last
            self.notify(self.last)

    def close(self) -> None:
        self.flush()
