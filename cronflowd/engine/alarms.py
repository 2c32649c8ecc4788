"""When which row has its moment: leases, timeouts, retries, beats.

A heap beside a table. An entry counts while its row still says that moment, and is dropped when it
comes to the top otherwise; so a row may change its mind at no cost. When most entries are such that
count no more, a new heap is begun, and what counts moves over a few entries at a time: the last one
of a heap may always be taken away. So no step looks at more than some, however many rows there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping
from datetime import datetime
from heapq import heapify, heappop, heappush, heapreplace
from typing import Any, Generic, TypeVar

FEW = 64  # a heap that is shorter is never worth tidying; and how often that is looked at
MAX_STALE = 50  # entries that are passed over in one go; it comes to several in a pass, of 10 us each
MOVED = 4  # entries that move over together

Key = TypeVar("Key", int, str)
Row = TypeVar("Row")


class Alarms(Generic[Key, Row]):
    """The moments of the rows of one table; `moment` tells that of a row, None = it has none."""

    def __init__(self, rows: MutableMapping[Key, Row], moment: Callable[[Row], datetime | None]) -> None:
        self._rows: MutableMapping[Key, Row] = rows
        self._moment = moment
        self.heap: list[tuple[Any, ...]] = []  # the moment, the rank if there is one, the key
        self.old: list[tuple[Any, ...]] = []  # the heap before, as far as it has not moved over
        self.aside: list[tuple[Any, ...]] = []  # what cannot be decided now, and lets the others go before

    def __len__(self) -> int:
        return len(self.heap) + len(self.old)

    def set(self, key: Key, row: Row) -> None:
        """A row's moment may be another from now on."""
        if (at := self._moment(row)) is not None:
            self.add((at, key))

    def add(self, entry: tuple[Any, ...]) -> None:
        """The same, and the moment is known; ranks may stand between it and the key."""
        heap = self.heap
        if heap and heap[0][-1] == entry[-1]:  # it has just had this moment, as whatever comes again
            heapreplace(heap, entry)
        else:
            heappush(heap, entry)
        size = len(heap)
        if not size % FEW and not self.old and size > 2 * len(self._rows) + FEW:
            self.heap, self.old = [], self.heap
        if self.old:
            for entry in self.old[-MOVED:]:
                if self._counts(entry):
                    heappush(self.heap, entry)
            del self.old[-MOVED:]

    def add_all(self, entries: Iterable[tuple[Any, ...]]) -> None:
        """Many at once, while the first is looked for perhaps: nothing moves over."""
        for entry in entries:
            heappush(self.heap, entry)

    def find_anew(self) -> None:
        """All moments may be others."""
        self.heap, self.old, self.aside = [], [], []
        pairs = ((self._moment(row), key) for key, row in self._rows.items())
        self.heap += [(at, key) for at, key in pairs if at is not None]
        heapify(self.heap)

    def _counts(self, entry: tuple[Any, ...]) -> bool:
        row = self._rows.get(entry[-1])
        return row is not None and self._moment(row) == entry[0]

    def first(self) -> tuple[Any, ...] | None:
        """The earliest moment, and whose it is.

        Or one that counts no more, where many such were passed over already: it is earlier than all
        others, so ask again.
        """
        for heap in (self.heap, self.old) if self.old else (self.heap,):
            for _ in range(MAX_STALE):
                if not heap:
                    break
                row = self._rows.get(heap[0][-1])
                if row is not None and self._moment(row) == heap[0][0]:
                    break
                heappop(heap)
        if self.old:
            return min(self.heap[:1] + self.old[:1])
        return self.heap[0] if self.heap else None

    def beside(self, first: tuple[Any, ...], most: int) -> list[Key]:
        """Whose entries have the very moment of the one that `first` gave, in order; nothing is taken out.

        Some of them may count no more. None are found where a new heap is begun.
        """
        heap, at, place, found = self.heap, first[0], 0, list[Key]()
        edge: list[tuple[tuple[Any, ...], int]] = []  # entries whose turn it may be, and where they stand
        size = 0 if self.old else len(heap)
        for _ in range(most):
            behind = 2 * place + 1
            if behind < size and heap[behind][0] == at:
                heappush(edge, (heap[behind], behind))
            behind += 1
            if behind < size and heap[behind][0] == at:
                heappush(edge, (heap[behind], behind))
            if not edge:
                break
            entry, place = heappop(edge)
            found.append(entry[-1])
        return found

    def next_due(self, now: datetime) -> Key | None:
        """Whose moment has come; the earliest of them."""
        first = self.first()
        return first[-1] if first and first[0] <= now and self._counts(first) else None

    def set_aside(self) -> Callable[[], None]:
        """Lets the others go before the one that `first` gave; the answer brings it back."""
        entry = heappop(min(filter(None, (self.heap, self.old))))
        self.aside.append(entry)

        def come_back() -> None:
            if entry in self.aside:  # and not found anew
                self.aside.remove(entry)
                heappush(self.heap, entry)  # which counts no more, perhaps: it takes no other's place

        return come_back

    def earliest(self) -> tuple[Any, ...] | None:
        """The first, or one that was set aside and would be."""
        return min([*filter(None, [self.first()]), *self.aside], default=None)

    def drop_last(self) -> None:
        """Lets entries go that count no more, where that costs nothing."""
        for heap in (self.heap, self.old):
            for _ in range(MAX_STALE):
                if not heap or self._counts(heap[-1]):
                    break
                heap.pop()
