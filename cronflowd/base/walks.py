"""Long walks in short slices: what looks at a million rows lets the others have their turn.

The one convention: a None among the items means "nothing yet, others first". Whoever writes a
long reply gives way there, and so does whoever looks for something in turns; everybody else
hands it on. Between two items, None or not, at most SLICE things are looked at, so a filter
that matches nothing is as harmless as one that matches all.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Iterator, MutableMapping, Sequence
from functools import partial
from heapq import merge
from itertools import chain
from typing import Any, Generic, Protocol, TypeVar

SLICE_BITS = 9
SLICE = 1 << SLICE_BITS
PARTS = 64

K = TypeVar("K")
T = TypeVar("T")


class Parted(MutableMapping[K, T]):
    """A table of many small ones: the growing of one with a million rows stands everybody still."""

    _shift, _mask = 0, PARTS - 1  # which bits of a key's hash say in which one it stands

    def __init__(self) -> None:
        self._parts: dict[int, dict[K, T]] = {}
        self._count = 0

    def get(self, key: Any, default: Any = None) -> T | None:  # type: ignore[override]
        # A name that is new is asked for as often as one that is known; an exception would cost more.
        part = self._parts.get(hash(key) >> self._shift & self._mask)
        return part.get(key, default) if part else default  # type: ignore[no-any-return]

    def __contains__(self, key: object) -> bool:
        return key in self._parts.get(hash(key) >> self._shift & self._mask, ())

    def __getitem__(self, key: K) -> T:
        return self._parts[hash(key) >> self._shift & self._mask][key]

    def __setitem__(self, key: K, value: T) -> None:
        number = hash(key) >> self._shift & self._mask
        try:
            part = self._parts[number]
        except KeyError:
            part = self._parts[number] = {}
        if key not in part:
            self._count += 1
        part[key] = value

    def __delitem__(self, key: K) -> None:
        number = hash(key) >> self._shift & self._mask
        part = self._parts[number]
        del part[key]
        self._count -= 1
        if not part:
            del self._parts[number]

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[K]:
        return chain.from_iterable(self._parts.values())

    def values(self) -> Iterator[T]:  # type: ignore[override]
        return chain.from_iterable(part.values() for part in self._parts.values())

    def put_all(self, pairs: Iterable[tuple[K, T]]) -> None:
        """Many at once, none of which is there yet."""
        parts, shift, mask = self._parts, self._shift, self._mask
        for key, value in pairs:
            self._count += 1
            number = hash(key) >> shift & mask
            if number in parts:
                parts[number][key] = value
            else:
                parts[number] = {key: value}

    def let_go(self) -> None:
        """Forgets some: what is large takes long to free."""
        if self._parts:
            self._count -= len(self._parts.popitem()[1])

    def let_all_go(self) -> Iterator[None]:
        """Forgets all of it, in small steps."""
        while self._parts:
            self.let_go()
            yield


class Later(dict[int, T]):
    """A part of a Numbered some of whose rows are still to be made, when one of them is asked for.

    Any thread may ask, but they are made `home`: twice made, what became of a row meanwhile would be lost.
    """

    def __init__(self, made: dict[int, T], table: Numbered[T]) -> None:
        super().__init__(made)
        self.waiting: dict[int, Any] = {}  # of what each will be made: a Source
        self._table = table

    def made(self) -> list[T]:
        """The rows that are made, in order."""
        return [self[key] for key in sorted(super().__iter__())]

    def make(self, source: Source) -> None:
        """Has the rows made that come of it."""
        source.make()
        # Now, not before: a thread that asks meanwhile finds each of them, as it was or as it is.
        self.waiting = {key: other for key, other in self.waiting.items() if other is not source}

    def __missing__(self, key: int) -> T:
        if key in self.waiting:
            self._table.home(partial(self._make_one, key))
        if (row := self.get(key)) is None:
            raise KeyError(key)
        return row

    def _make_one(self, key: int) -> None:
        if (source := self.waiting.get(key)) is not None:  # or it was made since another thread asked
            self.make(source)

    # What is still to be made is there for everybody else.

    def __len__(self) -> int:
        return super().__len__() + len(self.waiting)

    def __contains__(self, key: object) -> bool:
        return key in self.waiting or super().__contains__(key)  # in the order in which it changes

    def __iter__(self) -> Iterator[int]:
        return iter(sorted((*self.waiting, *super().__iter__())))

    def __delitem__(self, key: int) -> None:
        self[key]  # it is made with others that stay
        super().__delitem__(key)

    def values(self) -> list[T]:  # type: ignore[override]
        return [self[key] for key in self]


class Source(Protocol):
    """What rows of a Numbered are made of."""

    def make(self) -> object:
        """Sets these rows."""


class Numbered(Parted[int, T]):
    """A table by number that can be walked in order of its numbers while it changes.

    A part holds SLICE numbers that follow each other, so a walk finds the next ones neither
    by sorting them all nor by trying those that are gone. Every order looks for its task, so
    that is short.
    """

    _shift, _mask = SLICE_BITS, -1

    def __init__(self) -> None:
        super().__init__()
        self._laters: dict[int, Later[T]] = {}  # by part
        self.home: Callable[[Callable[[], None]], object] = _call  # in the thread that changes the table

    def get(self, key: int, default: Any = None) -> T | None:  # type: ignore[override]
        try:
            return self._parts[key >> SLICE_BITS][key]
        except KeyError:
            return default  # type: ignore[no-any-return]

    def __getitem__(self, key: int) -> T:
        return self._parts[key >> SLICE_BITS][key]

    # --- rows that are made when they are needed ---

    def put_later(self, ids: Sequence[int], source: Source) -> None:
        """Rows of one part, which `source` makes when one of them is first asked for."""
        number = ids[0] >> SLICE_BITS
        if (later := self._laters.get(number)) is None:
            later = self._parts[number] = self._laters[number] = Later(self._parts.get(number, {}), self)
        later.waiting.update(dict.fromkeys(ids, source))
        self._count += len(ids)

    def make_some(self) -> bool:
        """Makes some of what is still to be made; False where there is nothing."""
        if self._laters:
            number = next(reversed(self._laters))
            later = self._laters[number]
            if later.waiting:
                later.make(next(iter(later.waiting.values())))
            if not later.waiting:
                del self._laters[number]
            return True
        return False

    @property
    def are_made(self) -> bool:
        """Whether none is still to be made."""
        return not self._laters

    def waits(self, number: int) -> Any | None:
        """What a row will be made of; None where it is made, or there is none. Another thread may ask."""
        part = self._laters.get(number >> SLICE_BITS)
        return part.waiting.get(number) if part is not None else None

    def parts(self) -> Iterator[tuple[dict[int, Any], list[T]]]:
        """In order: what is still to be made of a part, by number, and its rows that are."""
        for number in sorted(self._parts):
            part = self._parts.get(number, {})
            if isinstance(part, Later):
                yield part.waiting, part.made()
            else:
                yield {}, [part[key] for key in sorted(part)]

    def made(self) -> Iterator[T]:
        """The rows that are made, whatever comes and goes meanwhile."""
        return chain.from_iterable(rows for _, rows in self.parts())

    # --- walks ---

    def walk(self) -> Iterator[T | None]:
        """What is there from the beginning to the end, and perhaps what comes and goes meanwhile."""
        return (None if number is None else self.get(number) for number in self.walk_numbers())

    def walk_numbers(self, after: int = -1) -> Iterator[int | None]:
        """The numbers alone of the same; those above `after`."""
        parts = sorted(part for part in self._parts if part >= after >> SLICE_BITS)
        for part in parts:
            if part != parts[0]:
                yield None
            for number in sorted(self._parts.get(part, ())):
                if number > after and number in self:
                    yield number

    def numbers_beside(self, other: Numbered[Any]) -> Iterator[int]:
        """In order, the numbers here and of what left for `other` meanwhile; another thread may ask."""
        for part in sorted({*self._parts, *other._parts}):
            # In this order: what leaves is there before it has left here.
            yield from sorted({*self._parts.get(part, ()), *other._parts.get(part, ())})


def _call(function: Callable[[], None]) -> None:
    function()


class Steps(Generic[T]):
    """What is worked out in small steps, to be walked through; `value` is what has come of it then."""

    value: T

    def __init__(self, steps: Generator[Any, None, T]) -> None:
        self._steps = steps

    def __iter__(self) -> Iterator[Any]:
        self.value = yield from self._steps


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


def page(
    items: Iterable[T | None],
    limit: int | None,
    offset: int,
    count_to: int = 0,
    tell: Callable[[int], object] = lambda count: None,
) -> Iterator[T | None]:
    """So many items from `offset` on; a None counts for nothing. `tell` is given how many were met.

    Those behind the page are met too, without being given out, until there are `count_to`.
    """
    stop = sys.maxsize if limit is None else offset + limit
    last = max(stop if limit != 0 else 0, count_to)
    count = 0
    for item in items if last else ():
        if item is None:
            yield None
            continue
        count += 1
        if offset < count <= stop:
            yield item
        if count == last:
            break
    tell(count)
