"""When which row has its moment: leases, timeouts, retries, beats.

A heap beside a table. An entry counts while its row still says that moment, and is dropped when it
comes to the top otherwise; so a row may change its mind at no cost, and a heap that is mostly
such entries is made anew from the table.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

FEW = 64  # a heap that is shorter is never worth tidying

Key = TypeVar("Key", int, str)
Row = TypeVar("Row")


class Alarms(Generic[Key, Row]):
    """The moments of the rows of one table; `moment` tells that of a row, None = it has none."""

    def __init__(self, rows: dict[Key, Row], moment: Callable[[Row], datetime | None]) -> None:
        self._rows: dict[Key, Row] = rows
        self._moment = moment
        self.heap: list[tuple[datetime, Key]] = []

    def set(self, key: Key, row: Row) -> None:
        """A row's moment may be another from now on."""
        if (at := self._moment(row)) is not None:
            heappush(self.heap, (at, key))
            if len(self.heap) > FEW + 2 * len(self._rows):
                self.find_anew()

    def find_anew(self) -> None:
        """All moments may be others."""
        pairs = ((self._moment(row), key) for key, row in self._rows.items())
        self.heap = [(at, key) for at, key in pairs if at is not None]
        heapify(self.heap)

    def first(self) -> tuple[datetime, Key] | None:
        """The earliest moment, and whose it is."""
        while self.heap:
            at, key = self.heap[0]
            row = self._rows.get(key)
            if row is not None and self._moment(row) == at:
                return self.heap[0]
            heappop(self.heap)
        return None

    def step(self, by: timedelta) -> None:
        """The clock was set, and every row has moved with it."""
        # The same added to each leaves a heap a heap.
        self.heap = [(at + by, key) for at, key in self.heap]
