"""What has ended, wherever it stands: the newest rows in memory and older ones in the journal, as one.

Memory lets old rows go while a thread reads the journal. So what memory holds, and where the
journal has to go on from, are taken at one time, before anything is waited for: each row is
seen once, as of the moment of asking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

import trio

from ..journal import history
from ..tasks.task import Outcome
from .core import Core

MAX_OLD_ROWS = 100_000  # that one question reads from the journal
# More at once would not be quicker, and each holds its rows in memory.
_READERS = trio.CapacityLimiter(2)

T = TypeVar("T")
Wanted = Callable[[Outcome], bool]


class Past:
    """All that had ended when this was made, newest first."""

    def __init__(self, core: Core, data: Path) -> None:
        self._core = core
        self._data = data
        self._before_seq = core.state.history_from_seq
        self.recent = list(reversed(core.state.recent))

    async def older(self, wanted: Wanted, most: int | None) -> list[Outcome]:
        """Of the newest that are wanted, those that memory does not hold; `most` counts all."""

        def read() -> list[Outcome]:
            have = sum(map(wanted, self.recent))  # each has to be asked for, in order
            left = MAX_OLD_ROWS if most is None else min(MAX_OLD_ROWS, most - have)
            return list(self._older(wanted, left))

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
        return await trio.to_thread.run_sync(function, limiter=_READERS)
