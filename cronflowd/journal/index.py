"""Where in a file stands what is about one run, task, worker or end: nobody reads a gigabyte for a row.

For all that a record may be looked for by there is one number: a hash of it, and the byte at which the
record's line begins. Sorted, they stand in a file beside each file of the journal that grows no more, and
in memory for the one that does. Two things may have one hash, so whoever asks looks at what he is given.

All of it follows from the files: what is missing, or belongs to a file that was replaced, is made anew.
The files are read and never mapped: where a disk fails, a read says so, and a map ends the process.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import re
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, groupby, islice
from pathlib import Path
from threading import Lock

from attrs import define, frozen

from ..base.errors import Refusal
from ..host.disk import of_file, plain, write_atomically
from .files import list_history, list_segments
from .records import SEAL_BYTES, seq_of

SUFFIX = ".index"
_MAGIC = 0x33786564_6E69_6663  # of numbers as this machine writes them
_HEAD = 3  # numbers before the sorted ones: that, and of which file they are: its bytes, its last CRC
_NUMBER_BYTES = 8
_BLOCK_NUMBERS = 512  # read at once
_OFFSET_BITS = 40  # of each number; the rest is the hash
_OFFSET = 2**_OFFSET_BITS - 1
_BLOCK_BYTES = 1024 * 1024
_LINE_BYTES = 4096  # more than most lines are long
_SEQ_BYTES = 32
READ_TOGETHER = 16  # lines
MAX_HELD = 256  # files whose numbers are in memory, where the disk does not take them
MERGED_TOGETHER = 64 * 1024  # numbers of the file that grows: so many are sorted in a millisecond or two
# These depend on the order in which encoding.encode writes.
_BEGIN = rb'\{"seq":[0-9]+,"at":"[^"]*","fact":'
_RUN = re.compile(
    _BEGIN + rb'"(?:RunEnded|OutputReceived)",(?:"more":true,)?"run":([0-9]+),"attempt":[0-9]+,'
    rb'(?:"task":([0-9]+),"name":"([^"]*)","state":"([a-z]+)")?'
)
_PASSED = re.compile(
    _BEGIN + rb'"FiresPassed",(?:"more":true,)?"task":([0-9]+),"name":"([^"]*)","state":"([a-z]+)"'
)
_WORKER = re.compile(rb'"worker":"([^"]*)"')
_FLOW = re.compile(rb'"flow":([0-9]+)')
_DEED = re.compile(rb'"who":"|"fact":"(?:SignedIn|Refused|WorkerJoined)"')
_APART, _APART_BYTES = b',"apart":[', 200  # it stands last in a record, and is no longer


def key(what: str, value: object) -> int:
    """The hash of what a record may be looked for by: `run`, `task`, `name`, `state`, `worker` or `flow`."""
    return _hash(what.encode(), str(value).encode())


def _hash(what: bytes, value: bytes) -> int:
    return zlib.crc32(b"%b %b" % (what, value)) >> _OFFSET_BITS - 32


DEED = _hash(b"deed", b"")  # of every record that AUDIT tells
APART = _hash(b"apart", b"")  # of every one that has output beside the journal


def keys_of(line: bytes) -> Iterator[int]:
    """All that a record may be looked for by."""
    if is_deed(line):
        yield DEED
    if match := _RUN.match(line):
        yield _hash(b"run", match[1])
        task, name, state = match.groups()[1:]
    elif match := _PASSED.match(line):
        task, name, state = match.groups()
    else:
        return
    if not task:  # what a run wrote
        if _APART in line[-_APART_BYTES:]:
            yield APART
        return
    yield _hash(b"task", task)
    yield _hash(b"name", name)
    yield _hash(b"state", state)
    if worker := _WORKER.search(line, match.end()):
        yield _hash(b"worker", worker[1])
    if flow := _FLOW.search(line, match.end()):
        yield _hash(b"flow", flow[1])


def is_deed(line: bytes) -> bool:
    """Whether a record may concern AUDIT."""
    return bool(_DEED.search(line))


@define
class _Beside:
    """The sorted numbers in an index, as they are looked at while it is open."""

    count: int
    at: int = -1  # its descriptor
    _block: int = -1  # which of its numbers were read last,
    _numbers: Sequence[int] = ()  # and they

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> int:
        block, place = divmod(number, _BLOCK_NUMBERS)
        if block != self._block:  # its neighbours are looked at next
            offset = (_HEAD + block * _BLOCK_NUMBERS) * _NUMBER_BYTES
            self._numbers = array("Q", os.pread(self.at, _BLOCK_NUMBERS * _NUMBER_BYTES, offset))
            self._block = block
        return self._numbers[place]


Numbers = Sequence[int] | _Beside


@frozen
class Sealed:
    """A file that grows no more: which, and what is in it."""

    mark: tuple[int, int, int]  # inode, bytes, when it was written
    beside: Path  # its index
    count: int  # of numbers
    held: Sequence[int] | None  # they, where they do not stand beside it

    def numbers(self) -> Numbers:
        return _Beside(self.count) if self.held is None else self.held


class Index:
    """Finds lines in the journal's files; for several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._path: Path | None = None  # of the file that grows,
        self._upto = 0  # how many of its bytes were looked at,
        self._runs: list[Sequence[int]] = []  # and what was found there, in sorted runs, each of later lines
        self._sealed: dict[Path, Sealed] = {}  # those that grow no more, as they were found
        self._look_at = MAX_HELD  # when so many are known, those that are gone are forgotten

    def lines(
        self, path: Path, keys: Sequence[int], first: int, before: int, grows: bool
    ) -> Iterator[tuple[int, bytes]]:
        """Those of a file about any of these things, newest first; records `first` to `before`."""
        known = None if grows else self._of(path)
        inode = known.mark[0] if known else path.stat().st_ino
        numbers = known.numbers() if known else None
        offsets: Iterator[int] | None = None
        while True:
            # All is closed before anybody is given a line: a thousand of these may be under way at one time.
            with ExitStack() as opened:
                if known and isinstance(numbers, _Beside):
                    numbers.at = opened.enter_context(open(known.beside, "rb", 0, opener=plain)).fileno()
                if offsets is None and numbers and not any(_span(numbers, each) for each in keys):
                    return
                at = opened.enter_context(open(path, "rb", 0, opener=plain)).fileno()
                if os.fstat(at).st_ino != inode:
                    raise FileNotFoundError(path)  # it was replaced just now; who is told so looks again
                if offsets is None:
                    runs = self._grown(path, at, before) if numbers is None else [numbers]
                    found = [_offsets(runs, each, first, before, at) for each in keys]
                    offsets = (offset for offset, _ in groupby(heapq.merge(*found, reverse=True)))
                lines = [_line_at(at, offset) for offset in islice(offsets, READ_TOGETHER)]
            if not lines:
                return
            for line in lines:
                if first <= (seq := _seq_of(line)) < before:
                    yield seq, line

    def _of(self, path: Path) -> Sealed:
        """Of a file that grows no more: looked at once, as long as it is the same."""
        stat = path.stat()
        mark = stat.st_ino, stat.st_size, stat.st_mtime_ns
        known = self._sealed.get(path)
        if known is None or known.mark != mark or not (known.held is not None or known.beside.exists()):
            beside = path.with_suffix(SUFFIX)
            with open(path, "rb", 0, opener=plain) as file:
                known = Sealed(mark, beside, *_of_file(beside, file.fileno()))
            with self._lock:
                self._sealed[path] = known
                self._forget_some()
        return known

    def _forget_some(self) -> None:
        if len(self._sealed) > self._look_at:
            self._sealed = {path: it for path, it in self._sealed.items() if path.exists()}
            self._look_at = 2 * len(self._sealed) + MAX_HELD
        held = [path for path, it in self._sealed.items() if it.held is not None]
        for path in held[:-MAX_HELD]:
            del self._sealed[path]

    def _grown(self, path: Path, at: int, before: int) -> Sequence[Sequence[int]]:
        """Of the file that is being written: only what is surely written, for the rest may be again."""
        with self._lock:
            if path != self._path:
                self._path, self._upto, self._runs = path, 0, []
            found: list[int] = []
            for offset, line in _lines(at, self._upto):
                with contextlib.suppress(ValueError):
                    if seq_of(line) >= before:
                        break
                    found += [each << _OFFSET_BITS | offset for each in keys_of(line)]
                self._upto = offset + len(line) + 1
            if found:
                runs = list(self._runs)  # others are reading the old ones
                while runs and len(runs[-1]) < 2 * len(found) <= MERGED_TOGETHER:
                    found += runs.pop()
                self._runs = [*runs, array("Q", sorted(found))]
            return self._runs


def make_all(directory: Path) -> None:
    """Those that are missing, of the files that a compaction leaves: what their readers need not do then."""
    segments, history = list_segments(directory)[-2:-1], list_history(directory)
    for path in [path for _, path in segments] + [file.path for file in history]:
        # Else one bad sector of the past would have the journal grow for ever.
        with contextlib.suppress(OSError), open(path, "rb", 0, opener=plain) as file:
            _of_file(path.with_suffix(SUFFIX), file.fileno())


def is_wrong(path: Path) -> bool:
    """Whether the index of a file hides what is in it, or tells of what is not."""
    beside = path.with_suffix(SUFFIX)
    with open(path, "rb", 0, opener=plain) as file:
        head = _head(file.fileno())
        if _count(beside, head) is None:
            return False  # it is made anew before it is used
        with of_file(beside):
            known = beside.read_bytes()
        return known != head + _sorted_numbers(file.fileno()).tobytes()


def remove_orphans(directory: Path) -> None:
    """Those whose files are gone."""
    for path in directory.glob(f"*{SUFFIX}"):
        if not path.with_suffix(".jsonl").exists():
            path.unlink(missing_ok=True)


def _of_file(beside: Path, at: int) -> tuple[int, Sequence[int] | None]:
    """How many numbers a file has that grows no more; and they, where they do not stand beside it."""
    head = _head(at)
    if (count := _count(beside, head)) is not None:
        return count, None
    numbers = _sorted_numbers(at)
    with contextlib.suppress(OSError, Refusal):  # a disk that takes nothing keeps nobody from reading
        write_atomically(beside, [head, numbers.tobytes()])
        return len(numbers), None
    return len(numbers), numbers


def _head(at: int) -> bytes:
    """What the index of a file begins with."""
    size = os.fstat(at).st_size
    end = os.pread(at, SEAL_BYTES, max(0, size - SEAL_BYTES - 1))
    return array("Q", (_MAGIC, size, zlib.crc32(end))).tobytes()


def _sorted_numbers(at: int) -> array[int]:
    """Of a whole file; sorted in pieces, since a million numbers in a list take 50 MB."""
    runs, found = list[Sequence[int]](), list[int]()
    for offset, line in _lines(at, 0):
        found += [each << _OFFSET_BITS | offset for each in keys_of(line)]
        if len(found) >= MERGED_TOGETHER:
            runs.append(array("Q", sorted(found)))
            found = []
    return array("Q", heapq.merge(*runs, sorted(found)))


def _count(beside: Path, head: bytes) -> int | None:
    """How many numbers are written there, if it is of that file."""
    with contextlib.suppress(OSError), open(beside, "rb", 0, opener=plain) as file:
        count, rest = divmod(os.fstat(file.fileno()).st_size, _NUMBER_BYTES)
        if file.read(len(head)) == head and not rest:
            return count - _HEAD
    return None


def _span(numbers: Numbers, wanted: int) -> range:
    """Which of the numbers are of one thing."""
    low, end, step = bisect_left(numbers, wanted << _OFFSET_BITS), (wanted + 1) << _OFFSET_BITS, 1
    while low + step < len(numbers) and numbers[low + step] < end:  # they are few, mostly, and close by
        step *= 2
    return range(low, bisect_left(numbers, end, low + step // 2, min(low + step, len(numbers))))


def _offsets(runs: Sequence[Numbers], wanted: int, first: int, before: int, at: int) -> Iterator[int]:
    """Where the lines about one thing begin, the last first; a file has its lines in the order of theirs."""
    return chain.from_iterable(_offsets_in(each, wanted, first, before, at) for each in reversed(runs))


def _offsets_in(numbers: Numbers, wanted: int, first: int, before: int, at: int) -> Iterator[int]:
    span = _span(numbers, wanted)
    low, high = span.start, span.stop
    with contextlib.suppress(ValueError):  # one was damaged since: so each is looked at
        low, high = (
            bisect_left(numbers, seq, low, high, key=lambda number: _seq_at(at, number))
            for seq in (first, before)
        )
    return (numbers[each] & _OFFSET for each in range(high - 1, low - 1, -1))


def _seq_at(at: int, number: int) -> int:
    return seq_of(os.pread(at, _SEQ_BYTES, number & _OFFSET))


def _seq_of(line: bytes) -> int:
    """0 where the line was damaged since."""
    try:
        return seq_of(line)
    except ValueError:
        return 0


def _line_at(at: int, offset: int) -> bytes:
    data, size = b"", _LINE_BYTES
    while more := os.pread(at, size, offset + len(data)):
        line, newline, _ = more.partition(b"\n")
        data += line
        if newline:
            break
        size = _BLOCK_BYTES
    return data


def _lines(at: int, offset: int) -> Iterator[tuple[int, bytes]]:
    """The whole lines from there on, each with where it begins."""
    rest = b""
    while chunk := os.pread(at, _BLOCK_BYTES, offset + len(rest)):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield offset, line
            offset += len(line) + 1
