"""What happens, as it happens: WATCH, and LOG … follow."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import trio

from ..ask import events
from ..base.replies import BLANK, format_row
from ..engine import facts as f
from ..net.clients import Session
from .core import Core

LOG_COLUMNS = ("fd", "text")


class WatchFeed:
    """WATCH: a row an event."""

    def __init__(self, core: Core, session: Session, kinds: frozenset[str], task_id: int | None) -> None:
        self._core = core
        self._session = session
        self._kinds = kinds
        self._task_id = task_id

    def see(self, fact: f.Fact, at: datetime, seq: int) -> None:
        event = events.describe(fact, at, self._core.state)
        if event is None or event.kind not in self._kinds:
            return
        if self._task_id is not None and event.task_id != self._task_id:
            return
        row = format_row(events.COLUMNS, event.row, self._session.as_json)
        self._session.outbox.put(row.encode() + b"\n", seq)


class LogFeed:
    """LOG … follow: the lines of one run until it has ended."""

    def __init__(self, core: Core, session: Session, run: int) -> None:
        self._core = core
        self._session = session
        self._run = run
        self._early: list[tuple[int, str, int]] | None = []  # what came while the past was being read
        self.count = 0
        self.ended = trio.Event()

    def see(self, fact: f.Fact, at: datetime, seq: int) -> None:
        if isinstance(fact, f.OutputReceived) and fact.run == self._run:
            for fd, text in fact.lines:
                self._line(fd, text, seq)
        elif isinstance(fact, f.RunEnded) and fact.run == self._run and fact.final:
            self.ended.set()

    def past(self, lines: Iterable[tuple[int, str]], seq: int) -> None:
        """The lines there were when it began; those that came meanwhile follow."""
        early, self._early = self._early or [], None
        for fd, text in lines:
            self._line(fd, text, seq)
        for fd, text, later in early:
            self._line(fd, text, later)

    def _line(self, fd: int, text: str, seq: int) -> None:
        if self._early is not None:
            self._early.append((fd, text, seq))
            return
        self.count += 1
        row = format_row(LOG_COLUMNS, (fd, text or BLANK), self._session.as_json)
        self._session.outbox.put(row.encode(errors="backslashreplace") + b"\n", seq)
