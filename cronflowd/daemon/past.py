"""What has ended, wherever it stands: the newest rows in memory and older ones in the journal, as one.

Memory lets old rows go while a thread reads the journal. So what memory holds, and where the
journal has to go on from, are taken at one time, before anything is waited for: each row is
seen once, as of the moment of asking.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

import trio

from ..ask.kept import Kept
from ..ask.questions import ListRuns
from ..engine.state import State
from ..journal import history
from ..journal.index import Index, key
from ..tasks.options import KEEP
from ..tasks.task import ENDED, Outcome
from .core import Core

MAX_OLD_ROWS = 100_000  # that one question reads from the journal
MAX_PASSED = 2_000  # rows of the journal that are looked at behind a page, to tell how many there are
MAX_SET_BACK = timedelta(days=1)  # a clock; RUNS since= looks no further back behind that moment
# More at once would not be quicker, and each holds its rows in memory.
READERS = trio.CapacityLimiter(2)

T = TypeVar("T")
Wanted = Callable[[Outcome], bool]


class Past:
    """All that had ended when this was made, newest first; with `about`, at least all that this asks for."""

    def __init__(self, core: Core, data: Path, index: Index, about: ListRuns | None = None) -> None:
        self._core = core
        self._data = data
        self._index = index
        self._about = about
        self._keys = _keys_of(core.state, about) if about else []
        self._before_seq = core.state.history_from_seq
        self.recent = list(reversed(core.state.recent))
        self.looked = 0  # at so many rows of the journal
        self.was_cut = False  # not all that is older was looked at

    async def older(self, wanted: Wanted, query: ListRuns) -> list[Outcome]:
        """Of the newest that are wanted, those that memory does not hold."""
        end = MAX_OLD_ROWS if query.limit is None else query.offset + query.limit

        def read() -> list[Outcome]:
            have = sum(map(wanted, self.recent))  # each has to be asked for, in order
            left = min(MAX_OLD_ROWS, max(end, query.count_to) - have)
            return list(self._counted(self._in_order(wanted), left, end - have, query.since_at))

        return await self._read(read)

    def _counted(self, wanted: Wanted, most: int, page: int, since_at: datetime | None) -> Iterator[Outcome]:
        """So many, as far as they are found behind those of the page at no great cost."""
        met = looked = 0
        for outcome in self._older(lambda _: True, sys.maxsize) if most > 0 else ():
            if since_at and outcome.ended_at < since_at - MAX_SET_BACK:
                return  # nothing ends before it is due, unless the clock is set back meanwhile
            if wanted(outcome):
                yield outcome
                met += 1
            if met < page:
                looked = self.looked
            if met == most or self.looked - looked > MAX_PASSED:
                self.was_cut = True
                return

    def _in_order(self, wanted: Wanted) -> Wanted:
        """What a filter says that has to see all rows of a task, though not all of them are looked at.

        It is asked of the other rows of a task, too, as soon as one of them is met: of each newer one before.
        """
        if not self._keys or (self._about and self._about.ref is not None):
            return wanted
        state = self._core.state
        rows: dict[int, Iterator[Outcome]] = {}

        def ask(outcome: Outcome) -> bool:
            task = outcome.task_id
            if state.keep_of(task) == KEEP:
                return wanted(outcome)
            if task not in rows:
                rows[task] = self._found(lambda row: row.task_id == task, [key("task", task)])
            for row in rows[task]:
                is_wanted = wanted(row)
                if row.seq == outcome.seq:
                    return is_wanted
            return False

        return ask

    async def of_run(self, run: int, wanted: Wanted) -> list[Outcome]:
        """All rows of a run that memory does not hold."""

        def read() -> list[Outcome]:
            found = list(self._older(lambda row: row.run == run, MAX_OLD_ROWS))
            if not found or self._core.state.keep_of(found[0].task_id) == KEEP:
                return list(filter(wanted, found))
            # How far back it is kept is known when all of its task that came after it was looked at.
            for row in self.recent:
                if row.task_id == found[0].task_id:
                    wanted(row)
            return list(filter(self._in_order(wanted), found))

        return await self._read(read)

    async def keeps_output(self, run: int) -> bool:
        """Whether the output of a run that has ended is still shown: no further back than `keep=` says."""
        state, before_seq = self._core.state, self._core.last_seq + 1
        kept = Kept(state, self._core.now(), history.Sizes(self._data, before_seq, self._index))

        def read() -> bool:
            recent = (row for row in self.recent if row.run == run)
            end = next(chain(recent, self._found(lambda row: row.run == run, [key("run", run)])), None)
            if end is None or not kept.is_limited(task := end.task_id):
                return True
            rows = chain(self.recent, self._found(lambda row: True, [key("task", task)]))
            for row in (row for row in rows if row.task_id == task):
                kept(row)
                if row.run == run:
                    break
            return run in kept.outputs

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
        return islice(self._found(wanted, self._keys), most) if most > 0 else iter(())

    def _found(self, wanted: Wanted, keys: Sequence[int]) -> Iterator[Outcome]:
        """Of the journal's rows those that are wanted; with keys, others are not even read."""

        def is_wanted(outcome: Outcome) -> bool:
            self.looked += 1
            return wanted(outcome)

        if not self._before_seq:
            return iter(())
        return history.outcomes(self._data, self._before_seq, is_wanted, keys, self._index)

    async def _read(self, function: Callable[[], T]) -> T:
        # A row may have left memory before its record is on the disk, which is where it is looked for.
        await self._core.settled(self._before_seq - 1)
        return await trio.to_thread.run_sync(function, limiter=READERS)


def _keys_of(state: State, asked: ListRuns) -> list[int]:
    """By what the rows that are asked for are found in files; none: they are nearly all rows, or unknown."""
    if asked.run is not None:
        return [key("run", asked.run)]
    if (ref := asked.ref) is not None:
        task = state.find(ref)
        return [key("task", task.id if task else ref.lstrip("0")), key("name", ref)]
    if asked.flow is not None:
        return [key("flow", asked.flow)]
    if asked.worker:
        return [key("worker", asked.worker)]
    return [] if "ok" in asked.states else [key("state", state) for state in asked.states & ENDED]
