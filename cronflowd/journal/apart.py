"""Long output beside the journal of a node: what of it does not go through etcd.

Of an attempt the first `--output-copied` bytes stand in its records, on every node. Of what comes then
a record tells only how much it is, its CRC and which node took it (`apart`); the lines themselves stand
in DATA/journal/output/RUN of that node and of those that have fetched them: a line for each such
record, its number and the lines as JSON. The record vouches for them: what is in such a file and was
never journaled, or was cut short, counts for nothing, so that copying is nothing but appending.

Blocking functions, for a thread.
"""

from __future__ import annotations

import logging
import os
import zlib
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock

import orjson
from msgspec.structs import replace

from ..base.errors import Exit, Fatal
from ..base.output import Line, is_whole, size_of, text_of
from ..base.text import to_bytes
from ..engine.facts import OutputReceived
from ..host.disk import NO_SPACE, of_file, plain, read_small, sync_directory
from ..tasks.reasons import code_of

FOLDER = "output"
MAX_RUN_BYTES = 1024 * 1024 * 1024  # of a run's file
MAX_PIECE_BYTES = 16 * 1024 * 1024  # that another node is given at once; no line of a file is longer

log = logging.getLogger(__name__)


def path_of(directory: Path, run: int) -> Path:
    return directory / FOLDER / str(run)


def sizes(directory: Path) -> dict[int, int]:
    """How long each run's file is."""
    found = dict[int, int]()
    with suppress(FileNotFoundError), os.scandir(directory / FOLDER) as files:
        for each in files:
            with suppress(FileNotFoundError):  # a compaction may remove it meanwhile; the others are there
                if each.name.isdecimal():
                    found[int(each.name)] = each.stat().st_size
    return found


def read(directory: Path, run: int) -> dict[tuple[bytes, int], bytes]:
    """The lines of a run's file, by the number that they begin with and their CRC."""
    with suppress(FileNotFoundError):
        lines = read_small(path_of(directory, run), MAX_RUN_BYTES).split(b"\n")
        return {(line.partition(b" ")[0], zlib.crc32(line)): line for line in lines}
    return {}


def find(known: dict[tuple[bytes, int], bytes], seq: int, fact: OutputReceived) -> list[Line] | None:
    """What a record has apart, where it is there."""
    assert fact.apart
    line = known.get((b"%d" % seq, fact.apart[1]))
    return _lines_in(line) if line else None


def _lines_in(line: bytes) -> list[Line]:
    return [tuple(each) for each in orjson.loads(line.partition(b" ")[2])]


def join(
    directory: Path, run: int, records: list[tuple[int, OutputReceived]]
) -> tuple[list[Line], Counter[str]]:
    """All lines of a run, and how many bytes are not here, by the node that took and has them."""
    known = read(directory, run) if any(fact.apart for _, fact in records) else {}
    lines, lacking = list[Line](), Counter[str]()
    for seq, fact in records:
        lines += map(tuple, fact.lines)
        for why in [line[1] for line in fact.lines if not line[0] and code_of(line[1]) == "output-unwritten"]:
            lacking[why["node"]] -= why["number"]  # they are nowhere, and that is told
        if fact.apart:
            more = find(known, seq, fact)
            lines += more or ()
            lacking[fact.apart[2]] += fact.apart[0] if more is None else 0
    return lines, +lacking


def piece(directory: Path, run: int, offset: int) -> bytes:
    """Whole lines of a run's file from a byte on; none where there are no more."""
    path = path_of(directory, run)
    with suppress(FileNotFoundError), of_file(path), open(path, "rb", opener=plain) as file:
        file.seek(offset)
        data = file.read(MAX_PIECE_BYTES)
        return data[: data.rfind(b"\n") + 1]
    return b""


def append(directory: Path, run: int, lines: Iterable[bytes]) -> int:
    """Adds lines to a run's file, for good; how many bytes that is."""
    path = path_of(directory, run)
    is_new = not path.exists()
    if is_new and not path.parent.exists():
        path.parent.mkdir(mode=0o700, parents=True)
        sync_directory(directory)
    # A newline goes first, too: what stands there may have been cut short.
    data = memoryview(b"".join([b"\n%b\n" % line for line in lines]))
    size = len(data)
    fd = plain(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        while data:
            data = data[os.write(fd, data) :]
        _sync(fd, path)
    finally:
        os.close(fd)
    if is_new:
        sync_directory(path.parent)
    return size


def _sync(fd: int, path: Path) -> None:
    # Never tried again: whoever reads the file then is told that it is there, and the disk need not have it.
    try:
        os.fdatasync(fd)
    except OSError as error:
        raise Fatal(Exit.IO, f"{path}: {error.strerror}: it cannot be synced") from error


def merge(directory: Path, run: int, data: bytes) -> int:
    """Adds what another node's file has and ours has not; how many bytes that is."""
    known = set(read(directory, run).values())
    new = [line for line in data.split(b"\n") if line and line not in known]
    return append(directory, run, new) if new else 0


def remove(directory: Path, runs: Iterable[int]) -> None:
    """The output of these is not kept any more."""
    if (directory / FOLDER).exists():
        for run in runs:
            path_of(directory, run).unlink(missing_ok=True)


class Apart:
    """What a leader takes out of its records, and its committer writes before they are."""

    def __init__(self, directory: Path, node: str, copied: int) -> None:
        self._directory, self._node, self._copied = directory, node, copied
        self._lock = Lock()  # for microseconds: what is looked at first must be what is taken then
        self._waiting: deque[tuple[int, int, bytes]] = deque()  # record, run, line
        self._taken = self._written = 0  # bytes ever; each is one thread's
        self.ends: dict[int, int] = {}  # by run: how long its file is, with what waits; of those that go on
        # The committer's: of a run so many bytes were not written, of which a record tells.
        self.on_dropped: Callable[[int, int, str], object] = lambda run, size, node: None

    @property
    def waiting_bytes(self) -> int:
        """So much waits for the committer."""
        return self._taken - self._written

    def take(self, fact: OutputReceived, seq: int, had: int) -> OutputReceived:
        """The fact as its record tells it, where the attempt had so much before."""
        room, begin = self._copied - had, 0
        for begin, line in enumerate(fact.lines):  # noqa: B007  (where it ends is what is looked for)
            room -= size_of((line,)) if line[0] else 0
            if room < 0 and line[0]:
                break
        else:
            return fact
        beside = fact.lines[begin:]
        told = b"%d %b" % (seq, orjson.dumps(beside))
        self._waiting.append((seq, fact.run, told))
        self._taken += len(told)
        if fact.run not in self.ends:
            path = path_of(self._directory, fact.run)
            self.ends[fact.run] = path.stat().st_size if path.exists() else 0
        self.ends[fact.run] += len(told) + 2
        taken = size_of([each for each in fact.lines if each[0]]) if fact.taken is None else fact.taken
        apart = (_bytes_of(beside), zlib.crc32(told), self._node)
        return replace(fact, lines=fact.lines[:begin], taken=taken, apart=apart)

    def forget(self, seq: int) -> None:
        """The records from this one on were refused."""
        with self._lock:
            while self._waiting and self._waiting[-1][0] >= seq:
                _, run, line = self._waiting.pop()
                self._taken -= len(line)
                self.ends[run] -= len(line) + 2

    def write(self, upto: int) -> None:
        """The committer's: what records up to this one have apart."""
        by_run = defaultdict[int, list[bytes]](list)
        with self._lock:
            while self._waiting and self._waiting[0][0] <= upto:
                _, run, line = self._waiting.popleft()
                self._written += len(line)
                by_run[run].append(line)
        for run, lines in by_run.items():
            try:
                append(self._directory, run, lines)
            except OSError as error:
                if error.errno not in NO_SPACE:
                    raise
                log.error("output of run %d is dropped: %s", run, error.strerror)  # noqa: TRY400
                written = set(read(self._directory, run).values())
                dropped = [_lines_in(line) for line in lines if line not in written]
                self.on_dropped(run, sum(map(_bytes_of, dropped)), self._node)


def _bytes_of(lines: Sequence[Line]) -> int:
    return sum([len(to_bytes(text_of(line))) + is_whole(line) for line in lines if line[0]])
