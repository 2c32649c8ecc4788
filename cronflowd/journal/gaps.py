"""The past that a node does not have: of records, since it joined with a state alone, and of long output.

Segments and history files stand for ranges of record numbers, one after the other. Who joins has none
before its first segment: a gap, which can be seen by the names of its files. It is filled file by file
from its newest end, as history, so that what is still lacking can be seen after any crash, and no
compaction takes the rest for a past without events. Where a node was so far behind that it went on from
a newer state, the gap stands behind what it had.

Who has nothing is given another node's whole state: its newest checkpoint, and the records since. It is what
etcd holds for those who come, where that is too long for etcd. Whoever is given it reads the node's files as
they stood at one moment, whatever becomes of their names meanwhile.

Blocking functions, for a thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from attrs import frozen

from ..base.output import Line
from ..host.disk import plain, prepare
from ..tasks.reasons import reason
from . import history
from .compaction import seal_again
from .files import history_path, journal_dir, list_checkpoints
from .history import segments, sources
from .index import Index, key
from .records import Header, Reader, in_form, seq_of
from .replay import Segment

# --- a whole state, given to a node that has none -------------------------------------------------


PIECE_BYTES = 1024 * 1024
TRIES = 5  # a compaction may remove a file between the look and its opening


@frozen
class Part:
    """A file, as far as it counts, with a header that others can read."""

    file: BinaryIO
    end: int  # in the file
    was: bytes  # its own header,
    head: bytes  # and what stands in that's place

    @property
    def size(self) -> int:
        return self.end - len(self.was) + len(self.head)

    def piece(self, offset: int) -> bytes:
        """So many bytes as go at once, from one on."""
        if offset < len(self.head):
            return self.head[offset:]
        at = self.file.seek(offset - len(self.head) + len(self.was))
        return self.file.read(min(PIECE_BYTES, self.end - at))


def open_whole(directory: Path, written: Segment, form: int) -> tuple[int, list[Part]]:
    """Up to which record the checkpoint goes, 0 = there is none; it, then all segments behind it.

    `form` is that of records which all nodes know.
    """
    for _ in range(TRIES):
        parts: list[Part] = []
        try:
            checkpoints = list_checkpoints(directory)[-1:]
            upto = checkpoints[0][0] if checkpoints else 0
            later = [each.path for each in segments(directory, upto) if each.first <= written.first]
            parts += (open_part(each, written, form) for each in [*(path for _, path in checkpoints), *later])
            return upto, parts
        except FileNotFoundError:
            close(parts)
    raise OSError("its files change all the time")


def open_part(path: Path, written: Segment, form: int) -> Part:
    """One of them."""
    file = open(path, "rb", opener=plain)  # noqa: SIM115  # `close` does
    end, was = written.size if path.name == written.path.name else path.stat().st_size, file.readline()
    return Part(file, end, was, b"".join(in_form(form, [was])))


def close(parts: Iterable[Part]) -> None:
    for part in parts:
        part.file.close()


def lines_of(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The lines of a segment that comes in pieces, without its header."""
    rest, is_header = b"", True
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if not is_header:
                yield line + b"\n"
            is_header = False


# --- the past, fetched from others ----------------------------------------------------------------


FETCHED = "fetched"  # what a file comes in
RATE = 32 * 1024 * 1024  # bytes a second that are read, fetched or looked at: others come first
BREATH_BYTES = 256 * 1024

log = logging.getLogger("cronflowd.cluster")


def gaps(directory: Path) -> list[tuple[int, int]]:
    """From which record to which one no file stands for any, the newest first."""
    found, begun = list[tuple[int, int]](), 0
    for source in reversed(sources(directory)):
        if begun and source.last + 1 < begun:
            found.append((source.last + 1, begun - 1))
        begun = min(source.first, begun or source.first)
    return [*found, (1, begun - 1)] if begun > 1 else found


def remarks(data: Path, run: int, index: Index) -> list[Line]:
    """What the LOG of a run shows that nothing here tells of, where it may stand in a gap."""
    ended = history.outcomes(data, 2**63, lambda row: row.run == run, [key("run", run)], index)
    lacks = gaps(journal_dir(data))
    return [(0, reason("history-apart", last=lacks[0][1]))] if lacks and not any(ended) else []


def open_past(directory: Path, written: Segment, seq: int, form: int) -> tuple[int, int, Part] | None:
    """The file that has this record, if one does, and for which records it stands."""
    for _ in range(TRIES):
        try:
            for source in sources(directory):
                last = min(source.last, written.last)
                if source.first <= seq <= last:
                    return source.first, last, open_part(source.path, written, form)
        except FileNotFoundError:  # compacted since it was listed
            continue
        return None
    raise OSError("its files change all the time")


def fill(directory: Path, first: int, last: int, pieces: Iterable[bytes]) -> None:
    """Makes a file of history of another node's, for these of the records that it stands for."""
    fetched = prepare(directory / FETCHED, pieces)
    try:
        reader = Reader(fetched.made)
        header = Header("history", first, 0, sifted_at=reader.header.sifted_at if reader.header else "")
        lines = (line for line in reader if first <= seq_of(line) <= last)
        made = prepare(history_path(directory, first, last), seal_again(header, lines))
        if reader.damage:
            made.discard()
            raise OSError(f"its file with record {last}, at byte {reader.offset}: {reader.damage}")
        made.publish()
    finally:
        fetched.discard()


class Lacks:
    """What is lacking on this node, in either role."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.runs: set[int] = set()  # of whose output records tell more than stands here, as far as is known
        self.looks = 0  # so often all that there was has been looked at
        self.index = Index()
        self._is_filling = False
        self._owed = 0  # bytes

    def rest(self, size: int) -> None:
        """So much was read: it is others' turn for as long as that may take."""
        self._owed += size
        if self._owed >= BREATH_BYTES:
            time.sleep(self._owed / RATE)
            self._owed = 0

    def look_back(self) -> None:
        """Finds all that is lacking; once in a process's life, in either role."""
        try:
            self.look()
        except OSError as error:
            log.warning("what is lacking of long output is not known: %s", error)

    def look(self, first: int = 1, last: int = 2**62) -> None:
        """Finds the runs, among the records from one to another."""
        for run in history.lacking(self.data, first, last, self.index, self.rest):
            self.check(run)
        self.looks += 1

    def fill(self, first: int, last: int, pieces: Iterable[bytes]) -> None:
        """These records come from another node; of the output that they tell of nothing is here yet."""
        self._is_filling = True
        try:
            fill(journal_dir(self.data), first, last, pieces)
            self.look(first, last)
        finally:
            self._is_filling = False

    def check(self, run: int) -> bool:
        """Whether a run is one of them."""
        lacks = history.lacks(self.data, run, self.index)
        (self.runs.add if lacks else self.runs.discard)(run)
        return lacks

    @property
    def is_none(self) -> bool:
        return not (self.runs or self._is_filling or gaps(journal_dir(self.data)))

    def words(self) -> str:
        filling = self._is_filling  # before the gap is gone
        found = [f"history of records {first} to {last}" for first, last in gaps(journal_dir(self.data))]
        found += [f"output of {len(self.runs)} runs"] if self.runs or filling else []
        return ", ".join(found) or "nothing"
