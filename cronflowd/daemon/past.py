"""What has ended, wherever it stands: the newest rows in memory and older ones in the journal, as one.

Memory lets old rows go while a thread reads the journal. So what memory holds, and where the
journal has to go on from, are taken at one time, before anything is waited for: each row is
seen once, as of the moment of asking.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

import trio

from ..ask.questions import ListRuns
from ..journal import history
from ..tasks.options import KEEP
from ..tasks.task import Outcome
from .core import Core

MAX_OLD_ROWS = 100_000  # that one question reads from the journal
MAX_PASSED = 20_000  # rows of the journal that are looked at behind a page, to tell how many there are
MAX_SET_BACK = timedelta(days=1)  # a clock; RUNS since= looks no further back behind that moment
# More at once would not be quicker, and each holds its rows in memory.
READERS = trio.CapacityLimiter(2)

T = TypeVar("T")
Wanted = Callable[[Outcome], bool]


class Past:
    """All that had ended when this was made, newest first."""

    def __init__(self, core: Core, data: Path) -> None:
        self._core = core
        self._data = data
        self._before_seq = core.state.history_from_seq
        self.recent = list(reversed(core.state.recent))
        self.was_cut = False  # not all that is older was looked at

    async def older(self, wanted: Wanted, query: ListRuns) -> list[Outcome]:
        """Of the newest that are wanted, those that memory does not hold."""
        end = MAX_OLD_ROWS if query.limit is None else query.offset + query.limit

        def read() -> list[Outcome]:
            have = sum(map(wanted, self.recent))  # each has to be asked for, in order
            left = min(MAX_OLD_ROWS, max(end, query.count_to) - have)
            return list(self._counted(wanted, left, end - have, query.since_at))

        return await self._read(read)

    def _counted(self, wanted: Wanted, most: int, page: int, since_at: datetime | None) -> Iterator[Outcome]:
        """So many, as far as they are found behind those of the page at no great cost."""
        passed = met = 0
        for outcome in self._older(lambda _: True, sys.maxsize) if most > 0 else ():
            if since_at and outcome.ended_at < since_at - MAX_SET_BACK:
                return  # nothing ends before it is due, unless the clock is set back meanwhile
            if wanted(outcome):
                yield outcome
                met += 1
            if met == most or (passed := passed + (met >= page)) > MAX_PASSED:
                self.was_cut = True
                return

    async def of_run(self, run: int, wanted: Wanted) -> list[Outcome]:
        """All rows of a run that memory does not hold."""

        def read() -> list[Outcome]:
            if not (found := list(history.outcomes(self._data, self._before_seq, lambda _: True, run))):
                return []
            # How far back it is kept is known when all that came after it was looked at.
            is_limited = self._core.state.keep_of(found[0].task_id) != KEEP
            return list(self._older(wanted, MAX_OLD_ROWS)) if is_limited else list(filter(wanted, found))

        return await self._read(read)

    async def newest(self, wanted: Wanted, most: int = MAX_OLD_ROWS) -> list[Outcome]:
        """Of all, the newest that are wanted."""

        def read() -> list[Outcome]:
            found = list(islice(filter(wanted, self.recent), most))
            return found + list(self._older(wanted, most - len(found)))

        return await self._read(read)

    async def each(self, wanted: Wanted, see: Callable[[Outcome], object]) -> None:
        """Has all of them looked at, in a thread."""

        def look() -> None:
            for outcome in chain(filter(wanted, self.recent), self._older(wanted, MAX_OLD_ROWS)):
                see(outcome)

        await self._read(look)

    def _older(self, wanted: Wanted, most: int) -> Iterator[Outcome]:
        if most <= 0 or not self._before_seq:
            return iter(())
        return islice(history.outcomes(self._data, self._before_seq, wanted), most)

    async def _read(self, function: Callable[[], T]) -> T:
        # A row may have left memory before its record is on the disk, which is where it is looked for.
        await self._core.settled(self._before_seq - 1)
        return await trio.to_thread.run_sync(function, limiter=READERS)
