"""How the journal is read back: the newest checkpoint, then every whole decision after it.

Reading changes nothing on the disk. What stands after the last whole decision is told as
a `Tail`; the journal, or `cronflowd check`, sets it aside. Anything valid after something
invalid is no tail: that is Fatal (65), because to go on would drop what was acknowledged.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from attrs import frozen

from ..engine.facts import Fact
from ..engine.state import State
from ..host.disk import of_file, plain
from .files import check_restored, list_checkpoints, list_history, list_segments, segment_path
from .records import Corrupt, Reader, find_valid_after, read_line, read_newest, seal, seq_of, unknown

Record = tuple[int, datetime, Fact]
MAX_REST_BYTES = 1024 * 1024 * 1024  # that are looked through behind what is no record
_GONE = "it was there, and is gone, with all records after %d: put it back"
log = logging.getLogger(__name__)


def apply(state: State, fact: Fact, at: datetime, seq: int) -> None:
    """Makes a record true that another process wrote; Fatal (70) where that cannot be here."""
    try:
        state.apply(fact, at, seq)
    except Exception as error:
        log.exception("record %d cannot be applied", seq)
        raise unknown(seq, error) from error


@frozen
class Segment:
    """One file of the journal that takes no more records."""

    path: Path
    first: int
    last: int
    size: int


@frozen
class Tail:
    """Bytes at the journal's end that are no whole decision."""

    path: Path
    offset: int
    damage: str  # in words
    junk: tuple[Path, ...] = ()  # later files in which nothing is valid


class Replay:
    """Iterate over it once; then the attributes tell what was found.

    With `leave_out_newest` it reads what no daemon will ever touch again, while one runs:
    all that stands before the first record of the newest file.
    """

    def __init__(self, directory: Path, leave_out_newest: bool = False) -> None:
        self.directory = directory
        self.leave_out_newest = leave_out_newest
        self.problem = ""  # of a checkpoint that could not be used
        self.last = 0  # the number of the last record of a whole decision
        self.chain = 0  # its CRC
        self.closed: list[Segment] = []  # all files but the open one, oldest first
        self.open: Path | None = None  # the file to go on in, None = a new one
        self.open_first = 1  # its first record
        self.size = 0  # its valid bytes
        self.tail: Tail | None = None
        self._known = 0  # a record that has been there, or is the first of a segment that has

    def __iter__(self) -> Iterator[Record]:
        check_restored(self.directory.parent)
        yield from self._read_checkpoint()
        self._known = 0 if self.leave_out_newest else read_newest(self.directory)
        segments = list_segments(self.directory)
        if not segments and (self.last or list_history(self.directory)):
            path = segment_path(self.directory, self.last + 1)
            raise Corrupt(path, 0, f"the records after {self.last} are missing")
        newest = segments.pop() if self.leave_out_newest and segments else None
        limit = newest[0] if newest else sys.maxsize
        for index, (first, path) in enumerate(segments):
            later = [path for _, path in segments[index + 1 :]]
            until = segments[index + 1][0] if later else limit
            if until <= self.last + 1:
                self._close(path, first, until - 1)  # the checkpoint holds it
                continue
            for record in self._read_segment(first, path, later):
                # The next file is made shortly before this one is done with; what still comes is not synced.
                if record[0] >= limit:
                    break
                self.last = record[0]
                yield record
            if self.tail and limit == sys.maxsize:
                return
        if newest:
            self._check_newest(*newest)
        elif (first := self._known) > max(self.last, segments[-1][0] if segments else 0):
            raise Corrupt(segment_path(self.directory, first), 0, _GONE % self.last)

    def _check_newest(self, first: int, path: Path) -> None:
        header = Reader(path).header
        if header is None or self.last != first - 1:
            raise Corrupt(path, 0, f"it does not go on from record {self.last}")
        self.chain = header.chain

    def _close(self, path: Path, first: int, last: int) -> None:
        self.closed.append(Segment(path, first, last, path.stat().st_size))

    def _read_checkpoint(self) -> Iterator[Record]:
        for _, path in reversed(list_checkpoints(self.directory)):
            lines: list[bytes] = []
            reader, problem = check_checkpoint(path, lines)
            if reader.header and not problem:
                yield from read_checkpoint(reader, lines)
                self.last, self.chain = reader.header.seq, reader.header.chain
                return
            self.problem = f"{path}: {problem}"
            log.warning("%s; an older checkpoint must do", self.problem)

    def _read_segment(self, first: int, path: Path, later: list[Path]) -> Iterator[Record]:
        reader = Reader(path)
        if reader.header is None:
            self._end(reader, 0, first, later)
            return
        self._check_joint(reader, first)
        if self.open:
            self._close(self.open, self.open_first, first - 1)
        seq, decision = first - 1, list[Record]()
        self.open, self.open_first, self.size, chain = path, first, reader.offset, reader.chain
        for line in reader:
            seq += 1
            at, fact, more = _decode(line, reader, seq)
            decision.append((seq, at, fact))
            if more:
                continue
            self.size, chain = reader.offset, reader.chain
            if seq > self.last:
                yield from decision
            decision.clear()
        self.chain = chain
        if reader.damage or decision:
            self._end(reader, self.size, first + 1, later)

    def _check_joint(self, reader: Reader, first: int) -> None:
        """A file goes on exactly where the one before it ended."""
        assert reader.header
        if reader.header.seq != first:
            raise Corrupt(reader.path, 0, f"its first line says {reader.header.seq}")
        if first > self.last + 1:
            why = f" ({self.problem})" if self.problem else ""
            missing = f"the records {self.last + 1} to {first - 1} before it are missing"
            raise Corrupt(reader.path, 0, missing + why)
        if self.open and first <= self.last:
            why = f"it begins with record {first}, and the file before it goes up to record {self.last}"
            raise Corrupt(reader.path, 0, why)
        if first == self.last + 1 and reader.header.chain != self.chain:
            raise Corrupt(reader.path, 0, "it does not go on from where the file before it ends")

    def _end(self, reader: Reader, whole: int, lost: int, later: list[Path]) -> None:
        """The journal ends in this file: makes sure of it, and says what is left over.

        Of a file that begins with the record `lost`, or a later one, nothing is there any more.
        """
        damage = reader.damage or "a decision without its end"
        chain = reader.chain if reader.header else self.chain
        found = find_valid_after(_rest(reader, damage), reader.offset, chain)
        if found is not None:
            why = f"{damage}, but valid records follow at byte {reader.offset + found}"
            raise Corrupt(reader.path, reader.offset, why)
        for path in later:
            other = Reader(path)
            if other.header or find_valid_after(_rest(other, other.damage), 0, 0) is not None:
                why = f"{damage}, but valid records follow in {path.name}"
                raise Corrupt(reader.path, reader.offset, why)
        if self._known >= lost:
            name = segment_path(self.directory, self._known).name
            why = f"it went on, here or in {name}; put back the file with all records after {self.last}"
            raise Corrupt(reader.path, reader.offset, f"{damage}; {why}")
        self.tail = Tail(reader.path, whole, damage, tuple(later))


def _rest(reader: Reader, damage: str) -> bytes:
    """What follows the damage."""
    with of_file(reader.path), open(reader.path, "rb", opener=plain) as file:
        if file.seek(0, os.SEEK_END) > reader.offset + MAX_REST_BYTES:
            raise Corrupt(reader.path, reader.offset, f"{damage}, and more follows than a crash leaves")
        file.seek(reader.offset)
        return file.read()


def _decode(line: bytes, reader: Reader, expected: int) -> tuple[datetime, Fact, bool]:
    offset = reader.offset - len(line) - 1
    seq, at, fact, more = read_line(line, reader.path, offset)
    if seq != expected:
        raise Corrupt(reader.path, offset, f"record {seq} stands where {expected} should")
    return at, fact, more


# --- checkpoints ------------------------------------------------------------------------------


def checkpoint_end(upto: int, records: int, chain: int) -> bytes:
    """The last line; a checkpoint without it is not whole."""
    return seal(b'{"seq":%d,"end":%d' % (upto, records), chain)[0]


def check_checkpoint(path: Path, kept: list[bytes] | None = None) -> tuple[Reader, str]:
    """Its reader, and what is wrong with it; empty = it can be used. Its lines are `kept` on the way."""
    reader, ended = Reader(path), False
    for records, line in enumerate(reader):
        if ended:
            return reader, "records after its last line"
        ended = line.startswith(b'{"seq":%d,"end":%d,' % (seq_of(line), records))
        if kept is not None:
            kept.append(line)
    if reader.damage:
        return reader, f"at byte {reader.offset}: {reader.damage}"
    return reader, "" if ended else "its last line is missing"


def read_checkpoint(reader: Reader, lines: list[bytes]) -> Iterator[Record]:
    """The state as facts, with the number of the record that comes next; frees the lines on the way."""
    offset = reader.offset - sum(map(len, lines)) - len(lines)
    lines.pop()
    lines.reverse()
    while lines:
        line = lines.pop()
        seq, at, fact, _ = read_line(line, reader.path, offset)
        offset += len(line) + 1
        yield seq + 1, at, fact
