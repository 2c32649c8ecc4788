"""The journal's line and the journal's files, as bytes: how they are sealed and how they are read.

A line is one JSON object whose last member is its CRC:

    {"seq":7,"at":"2026-11-21T10:05:00Z","fact":"RunStarted","run":41,"attempt":1,"crc":"5f3a01bc"}

The CRC-32 is over the bytes before `,"crc"`, and goes on from the CRC of the line before:
it vouches for the line, its place, and everything that stands before it. A file begins
with a header that names the first sequence number and the CRC it goes on from, so that
it can be verified alone once older files are gone. The header is not part of the chain.

The first line of each batch that was synced as one carries `"batch":true`. After a power
cut the pages of the last batch may be on the disk in any subset, so a hole in it, though
valid lines follow, is an unfinished write; a hole before it is a broken disk.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

import orjson
from attrs import define, evolve, frozen

from ..base.errors import Exit, Fatal
from ..engine.encoding import decode
from ..engine.facts import FACTS_VERSION, Fact
from ..host.disk import Disk, of_file, plain, sync_directory, write_all
from .files import NEWEST_NAME

MAX_RECORD_BYTES = 16 * 1024 * 1024
SEAL_BYTES = 18  # of `,"crc":"5f3a01bc"}`
_READ_BYTES = 1024 * 1024
_SECTOR_BYTES = 512
_SEAL = b',"crc":"%08x"}'
_START = b'{"seq":'
_SEALED = re.compile(rb',"crc":"([0-9a-f]{8})"\}\n')
BATCH_MARK = b',"batch":true'
_BATCH = BATCH_MARK + b',"crc":"'
_ZEROS = re.compile(rb"\x00+")
_EIGHT_HEX = re.compile(rb"[0-9a-f]{8}")
HEAD = re.compile(rb'\{"seq":([0-9]+),"at":"([^"]*)"')  # of every record
_SEQ = re.compile(rb'\{"seq":([0-9]{1,19}),')


class Corrupt(Fatal):
    """The refusal to start, naming the place and the way out."""

    way_out = "See `cronflowd check {data}`, and --fix to mend it"

    def __init__(self, path: Path, offset: int, what: str) -> None:
        way_out = self.way_out.format(data=path.parent.parent)
        super().__init__(Exit.CORRUPT, f"{path}: at byte {offset}: {what}. {way_out}")
        self.path = path
        self.offset = offset
        self.what = what


NEWER = (
    "If a newer cronflowd wrote it, bring this one up to date (in a cluster the standbys first, one by one,"
    " then STEPDOWN); else please report it"
)


class NotUnderstood(Corrupt):
    """A record that is as it was written and still makes no sense: no disk did that."""

    way_out = NEWER


def unknown(seq: int, error: Exception) -> Fatal:
    """The end of a daemon that can make nothing of a whole record, read or applied: it must never lead."""
    return Fatal(Exit.BUG, f"record {seq} cannot be understood: {str(error) or repr(error)}. {NEWER}")


def seal(body: bytes, chain: int) -> tuple[bytes, int]:
    """A whole line from an object without its closing brace, and the CRC the next one goes on from."""
    crc = zlib.crc32(body, chain)
    return b'%b,"crc":"%08x"}\n' % (body, crc), crc


def seq_of(line: bytes) -> int:
    """The sequence number, without parsing the rest."""
    match = _SEQ.match(line)
    if not match:
        raise ValueError("the line does not begin with a sequence number")
    return int(match[1])


# --- headers ------------------------------------------------------------------------------


KINDS = "segment", "checkpoint", "history", "newest"


@frozen
class Header:
    """A file's first line."""

    kind: str  # one of KINDS
    seq: int  # of the first record that may follow; of a checkpoint, the last that it holds
    # The CRC the first record goes on from; of a checkpoint, the journal's at that place; of `newest`,
    # which file on the disk it is.
    chain: int
    version: int = FACTS_VERSION
    # Of history alone:
    sifted_at: str = ""  # when what need not be kept was last left out, RFC 3339

    def line(self) -> bytes:
        body = b'{"seq":%d,"%b":1,"version":%d,"chain":"%08x"' % (
            self.seq, self.kind.encode(), self.version, self.chain,
        )  # fmt: skip
        if self.kind == "history":
            body += b',"sifted_at":"%b"' % self.sifted_at.encode()
        return seal(body, self.chain)[0]


def parse_header(line: bytes) -> Header | None:
    """None for anything that is not one, or not whole."""
    try:
        record = orjson.loads(line)
        kind = next(kind for kind in KINDS if kind in record)
        sifted_at = record.get("sifted_at", "")
        header = Header(kind, record["seq"], int(record["chain"], 16), record["version"], sifted_at)
        # By its seal: older releases wrote more into it.
        return header if seal(line[:-SEAL_BYTES], header.chain)[0] == line + b"\n" else None
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
        return None


def read_newest(directory: Path) -> int:
    """The first number of a segment that has been there for certain, or a later record's that has; 0 = none.

    A journal whose newest file is gone ends like any other. So the file `newest` names it, before
    anybody is told of a record in it; it may be behind, or missing, and says then so much less. In a
    copy it says nothing: while a daemon runs, its segments may have been copied before it was.
    """
    try:
        with open(path := directory / NEWEST_NAME, "rb", opener=plain) as file, of_file(path):
            header, which = parse_header(file.readline(4096)[:-1]), _which(file.fileno())
    except FileNotFoundError:
        return 0
    return header.seq if header and (header.kind, header.chain) == ("newest", which) else 0


def _which(fd: int) -> int:
    return os.fstat(fd).st_ino & 0xFFFF_FFFF


def write_newest(directory: Path, first: int, disk: Disk) -> None:
    """In place: what loses a name, as of a new segment, does not lose this."""
    path = directory / NEWEST_NAME
    is_new = not path.exists()
    with of_file(path):
        fd = disk.open(path, os.O_WRONLY | os.O_CREAT)
        try:
            write_all(disk, fd, Header("newest", first, _which(fd)).line(), 0)
            disk.fsync(fd)
        finally:
            os.close(fd)
    if is_new:
        sync_directory(directory, disk)


def in_form(form: int, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """A file whose header names an older form, in which all of it can be read as well."""
    following = iter(chunks)
    line, newline, rest = next(following, b"").partition(b"\n")
    header = parse_header(line)
    yield (evolve(header, version=min(form, header.version)).line() if header else line + newline) + rest
    yield from following


# --- reading ------------------------------------------------------------------------------


@define
class Reader:
    """Gives a file's valid lines, and stops before the first that is not.

    After the iteration `damage` is what stopped it (empty: the end of the file) and
    `offset` where. The header is read by the constructor; a file without one has no lines.
    """

    path: Path
    header: Header | None = None
    offset: int = 0  # the end of what was valid so far
    chain: int = 0  # its CRC
    damage: str = ""

    def __attrs_post_init__(self) -> None:
        with of_file(self.path), open(self.path, "rb", 4096, opener=plain) as file:
            line = file.readline(4096)
        self.header = parse_header(line[:-1]) if line.endswith(b"\n") else None
        if self.header is None:
            self.damage = "no whole header" if line else "empty"
            return
        if self.header.version > FACTS_VERSION:
            why = f"{self.path}: written by a newer cronflowd (form {self.header.version})"
            raise Fatal(Exit.CORRUPT, f"{why}; this one knows form {FACTS_VERSION}: bring it up to date")
        self.offset, self.chain = len(line), self.header.chain

    def __iter__(self) -> Iterator[bytes]:
        """Whole lines without their newline."""
        if self.header is None:
            return
        rest = b""
        with of_file(self.path), open(self.path, "rb", 0, opener=plain) as file:
            file.seek(self.offset)
            while chunk := file.read(_READ_BYTES):
                lines = (rest + chunk).split(b"\n")
                rest = lines.pop()
                for line in lines:
                    chain = zlib.crc32(line[:-SEAL_BYTES], self.chain)
                    if line[-SEAL_BYTES:] != _SEAL % chain:
                        self.damage = _describe(line)
                        return
                    self.offset += len(line) + 1
                    self.chain = chain
                    yield line
                if len(rest) > MAX_RECORD_BYTES:
                    break
        if rest:
            self.damage = "a line without its end"


def _describe(line: bytes) -> str:
    if b"\0" in line:
        return "zeros where a line should be"
    return "a line whose CRC is wrong" if _SEALED.search(line + b"\n") else "a line that is not a record"


def unseal(line: bytes) -> bytes:
    """The record of a valid line without its newline, as it was before it was sealed."""
    return line[:-SEAL_BYTES].removesuffix(BATCH_MARK) + b"}"


def read_line(line: bytes, path: Path, offset: int) -> tuple[int, datetime, Fact, bool]:
    """What a valid line says (see `decode`); Fatal (65) where it was sealed and still makes no sense."""
    try:
        return decode(unseal(line))
    except ValueError as error:
        raise NotUnderstood(path, offset, f"a record that cannot be understood: {error}") from error


# --- what follows damage --------------------------------------------------------------------


def find_valid_after(rest: bytes, offset: int, chain: int) -> int | None:
    """Where in `rest` a valid line stands that an invalid one (at 0) would hide, or None.

    `rest` is a file from `offset`, the end of its valid lines, on; `chain` their CRC. None
    also for the traces of a write that power cut short: nobody was told of those lines.
    """
    found = _first_valid(rest, chain)
    return None if found is None or _is_unfinished_write(rest, offset) else found


def _first_valid(rest: bytes, chain: int) -> int | None:
    previous, chains_before = 0, {chain}
    for start in _line_starts(rest):
        # What the damaged line claims its CRC is, and what it would be if only the claim is damaged.
        stored = _stored_chains(rest, start)
        body = rest[previous : start - SEAL_BYTES - 1]
        mended = {zlib.crc32(body, before) for before in chains_before}
        if _is_valid_at(rest, start, {chain} | stored | mended):  # `chain`: after a damaged header
            return start
        previous, chains_before = start, stored
    return None


def _line_starts(rest: bytes) -> Iterator[int]:
    # A quote inside a JSON string is escaped, so these bytes begin a record and nothing else.
    at = rest.find(_START, 1)
    while at > 0:
        yield at
        at = rest.find(_START, at + 1)


def _stored_chains(rest: bytes, start: int) -> set[int]:
    """The CRC in the line that ends before `start`, with or without the newline between."""
    found = (_EIGHT_HEX.fullmatch(rest, end - 8, end) for end in (start - 3, start - 2) if end >= 8)
    return {int(match[0], 16) for match in found if match}


def _is_valid_at(rest: bytes, start: int, chains: set[int]) -> bool:
    match = _SEALED.search(rest, start)
    if not match:
        return False
    body = rest[start : match.start()]
    return any(b"%08x" % zlib.crc32(body, chain) == match[1] for chain in chains)


def _is_unfinished_write(rest: bytes, offset: int) -> bool:
    """Whether `rest` has holes of whole sectors, all of them in the last batch."""
    holes = [match.span() for match in _ZEROS.finditer(rest)]
    if not holes or not all(_is_lost_sectors(span, offset, len(rest)) for span in holes):
        return False
    first_hole = holes[0][0]
    mark = rest.find(_BATCH, first_hole)
    while mark >= 0:
        # A later batch was begun, so what the hole swallowed had been synced and answered.
        if rest.rfind(_START, 0, mark) > first_hole:
            return False
        mark = rest.find(_BATCH, mark + 1)
    return True


def _is_lost_sectors(span: tuple[int, int], offset: int, size: int) -> bool:
    start, end = span
    # The sector in which the batch begins keeps what older batches wrote there.
    begins = start == 0 or (offset + start) % _SECTOR_BYTES == 0
    return begins and (end == size or (offset + end) % _SECTOR_BYTES == 0)
