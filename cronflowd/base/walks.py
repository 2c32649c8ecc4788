"""Long walks in short slices: what looks at a million rows lets the others have their turn.

The one convention: a None among the items means "nothing yet, others first". Whoever writes a
long reply gives way there, and so does whoever looks for something in turns; everybody else
hands it on. Between two items, None or not, at most SLICE things are looked at, so a filter
that matches nothing is as harmless as one that matches all.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from heapq import merge
from typing import Any, TypeVar

SLICE_BITS = 9
SLICE = 1 << SLICE_BITS

T = TypeVar("T")


class Numbered(dict[int, T]):
    """A table by number that can be walked in order of its numbers while it changes.

    It counts how many numbers each block of SLICE holds, so a walk finds the next ones
    neither by sorting them all nor by trying those that are gone.
    """

    def __init__(self) -> None:
        super().__init__()
        self._blocks: dict[int, int] = {}

    def __setitem__(self, number: int, value: T) -> None:
        if number not in self:
            block = number >> SLICE_BITS
            self._blocks[block] = self._blocks.get(block, 0) + 1
        super().__setitem__(number, value)

    def __delitem__(self, number: int) -> None:
        self.pop(number)

    def pop(self, number: int) -> T:  # type: ignore[override]
        value = super().pop(number)
        block = number >> SLICE_BITS
        self._blocks[block] -= 1
        if not self._blocks[block]:
            del self._blocks[block]
        return value

    def walk(self) -> Iterator[T | None]:
        """What is there from the beginning to the end, and perhaps what comes and goes meanwhile."""
        blocks = sorted(self._blocks)
        for block in blocks:
            if block != blocks[0]:
                yield None
            first = block << SLICE_BITS
            for number in range(first, first + SLICE):
                if (value := self.get(number)) is not None:
                    yield value


def in_slices(items: Iterable[T]) -> Iterator[T | None]:
    """The items, with a None after every SLICE of them."""
    for count, item in enumerate(items, 1):
        yield item
        if count % SLICE == 0:
            yield None


def in_order(
    items: Iterable[T | None], key: Callable[[T], Any] = lambda item: item, reverse: bool = False
) -> Generator[None, None, Iterator[T]]:
    """Sorts what comes in slices: `yield from` gives way between them, and returns the items in order."""
    parts: list[list[T]] = [[]]
    for item in items:
        if item is None:
            yield None
            continue
        parts[-1].append(item)
        if len(parts[-1]) == SLICE:
            parts[-1].sort(key=key, reverse=reverse)
            parts.append([])
            yield None
    parts[-1].sort(key=key, reverse=reverse)
    return merge(*parts, key=key, reverse=reverse)


def page(items: Iterable[T | None], limit: int | None, offset: int) -> Iterator[T | None]:
    """So many items from `offset` on; a None counts for nothing."""
    if limit == 0:
        return
    stop = None if limit is None else offset + limit
    count = 0
    for item in items:
        if item is None:
            yield None
            continue
        count += 1
        if count > offset:
            yield item
        if count == stop:
            return
