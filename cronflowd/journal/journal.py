"""Where facts are kept: append, commit, replay.

`append` numbers and buffers; it waits for nothing and never half succeeds, because space
was set aside before. `flush` seals what was appended since the last one, all in one go, and
wakes the one committer thread, which writes it, syncs it once, and only then says so: those
who wait together share a sync.

Rules for this file. What failed to sync is never told of and never tried again: the page
cache lies after that, so the process ends (74). Only an invalid *tail* is ever cut, and
it is set aside, not deleted. How lines and files look stands in records.py, what those are called
in files.py, how they are read back in replay.py, what the kernel must do in disk.py.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from queue import SimpleQueue
from typing import NoReturn

from attrs import define

from ..base.errors import Exit, Fatal, Refusal
from ..base.histograms import Histogram
from ..engine.encoding import encode_open
from ..engine.facts import Fact
from ..host import disk as d
from ..host.logs import last_words
from .files import clear_leftovers, journal_dir, segment_path
from .records import BATCH_MARK, MAX_RECORD_BYTES, SEAL_BYTES, Header, read_newest, seal, write_newest
from .replay import Record, Replay, Segment, Tail

SEGMENT_BYTES = 16 * 1024 * 1024
RESERVE_BYTES = 4 * 1024 * 1024  # for what must be written even when the disk is full
CHUNK_BYTES = 1024 * 1024  # space is set aside so much at a time
MIN_RESERVE_BYTES = 64 * 1024
MIN_CHUNK_BYTES = 16 * 1024
MAX_BUFFERED_BYTES = 64 * 1024 * 1024  # while so much waits for the disk, nothing more is taken
ALLOCATE_AGAIN_S = 1.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 1.0  # between two tries of a write that finds no space
COMMITS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)  # bounds that are counted
CLOSE_PATIENCE_S = 10.0  # how long the end of the process waits for space

log = logging.getLogger(__name__)

_SEAL_BYTES = SEAL_BYTES + 1  # and the line's end
_MOST_AROUND = _SEAL_BYTES + len(BATCH_MARK)


def exit_at_once(error: Fatal) -> NoReturn:
    # Not sys.exit: this is a thread, and nothing may be written or answered any more.
    last_words(f"cronflowd: {error.message}")
    os._exit(error.status)


class FileJournal:
    """The journal in `data`/journal. The caller has locked the directory."""

    def __init__(
        self,
        data: Path,
        segment_bytes: int = SEGMENT_BYTES,
        *,
        reserve_bytes: int = RESERVE_BYTES,
        notify: Callable[[int], None] = lambda seq: None,
        on_fatal: Callable[[Fatal], object] = exit_at_once,
        disk: d.Disk = d.DISK,
    ) -> None:
        self.directory = journal_dir(data)
        self.segment_bytes = segment_bytes
        self.notify = notify  # told, from any thread, the number up to which all is on disk
        self.on_fatal = on_fatal
        self._disk = disk
        self.closed: list[Segment] = []  # segments that take no more records, oldest first
        self.set_aside = ""  # what start-up had to cut off, in words; empty as a rule
        self.commit_s = Histogram(*COMMITS_S)  # how long it took to have batches on the disk
        self.last = self.committed = 0  # the numbers of the last record appended, and of the last on the disk
        # Records since the last flush. Their facts are still to be made true, and what cannot be
        # applied must not be committed.
        self._bodies: list[bytes] = []
        self._lines: list[bytes] = []  # sealed
        self.chain = 0  # the CRC of the last of them, from which the next one's goes on
        # The buffer and what describes it; the lock is held for microseconds, never over a write.
        self._lock = threading.Lock()
        self._wake = SimpleQueue[None]()  # the committer's: there are lines, or no more will come
        self._buffered = 0  # bytes of _bodies, once they are sealed, and of _lines
        self._unsealed = 0  # of _bodies alone, or a few more
        self._closing = False
        self._failed: Fatal | None = None
        self._thread: threading.Thread | None = None
        # The open segment. _end counts what is being written, but not what is buffered.
        self._fd = -1
        self._first = 1
        self._path = self.directory  # of that segment
        self._opened: os.stat_result | None = None  # what it was when it was opened
        self._end = self._synced_end = 0
        self._committed_chain = 0
        # Space set aside: the file may grow to _allocated without asking the file system.
        self._allocated = 0
        self._reserve = reserve_bytes
        self._chunk = CHUNK_BYTES
        self._full = self._stuck = False  # stuck = a write waits for space
        self._lacks_descriptor = False  # for the next file, and that was told
        self._asked_at = float("-inf")  # when space was last asked for in vain (monotonic)
        d.make_directory(data)
        d.make_directory(self.directory)

    # --- start ---

    def replay(self) -> Iterator[Record]:
        """Everything from the newest checkpoint on; to be read to its end before anything is appended."""
        clear_leftovers(self.directory)
        d.remove_leftovers(self.directory.parent)  # of SAVE
        found = Replay(self.directory)
        yield from found
        self.last = self.committed = found.last
        self.chain = self._committed_chain = found.chain
        self.closed = found.closed
        try:
            if found.tail:
                self.set_aside = set_aside(found.tail, self._disk)
                if self.set_aside:
                    log.warning("%s", self.set_aside)
            self._go_on(found)
        except Refusal as refusal:
            raise Fatal(Exit.CANNOT_CREATE, refusal.message) from refusal
        except OSError as error:
            what = error.filename or self.directory
            raise Fatal(d.exit_of(error), f"{what}: cannot write: {error.strerror}") from error
        self._thread = threading.Thread(target=self._commit_for_ever, name="committer", daemon=True)
        self._thread.start()

    def _go_on(self, found: Replay) -> None:
        if found.open:
            self._fd = self._disk.open(found.open, os.O_RDWR | os.O_APPEND)
            self._end, self._first, self._path = found.size, found.open_first, found.open
        else:
            self._first = self.last + 1
            with d.opened_directory(self.directory, self._disk) as sync:
                self._fd, self._end = self._create_segment(self._first, self.chain, 0, sync)
            self._path = segment_path(self.directory, self._first)
        with d.of_file(self._path):
            free = self._disk.free_bytes(self._fd)
        self._reserve = max(min(self._reserve, free // 16), min(self._reserve, MIN_RESERVE_BYTES))
        self._chunk = max(min(CHUNK_BYTES, free // 64), MIN_CHUNK_BYTES)
        self._allocated = self._synced_end = self._end
        self._find_space(0)
        if read_newest(self.directory) != self._first:
            self._note_newest()

    def _create_segment(
        self, first: int, chain: int, space: int, sync: Callable[[], object]
    ) -> tuple[int, int]:
        """A new file, its header and its name on the disk: (descriptor, size). Leaves nothing if it fails."""
        path = segment_path(self.directory, first)
        made = path.with_name(f".{path.name}.tmp")  # a compaction that looks meanwhile sees whole files only
        header = Header("segment", first, chain).line()
        fd = self._disk.open(made, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        try:
            with d.of_file(path):
                if space:
                    self._disk.allocate(fd, 0, len(header) + space)
                d.write_all(self._disk, fd, header, 0)
                self._disk.fsync(fd)
                self._disk.rename(made, path)
            sync()
        except OSError:
            os.close(fd)
            with contextlib.suppress(FileNotFoundError):
                self._disk.unlink(made)
            if path.exists():
                self._remove_segment(path, sync)
            raise
        return fd, len(header)

    def _note_newest(self) -> None:
        """Has a start know that this file has been there; where the disk is full, an older one must do."""
        try:
            write_newest(self.directory, self._first, self._disk)
        except OSError as error:
            if error.errno not in d.NO_SPACE | d.NO_DESCRIPTOR:
                raise

    def _remove_segment(self, path: Path, sync: Callable[[], object]) -> None:
        # For good, before the older file grows: a start must not find both.
        self._disk.unlink(path)
        with d.or_fatal(f"{path}: cannot be removed", Exit.IO):
            sync()

    # --- append: the event loop's side ---

    @property
    def full(self) -> bool:
        """Whether orders are refused for want of space; asking also looks whether there is some again."""
        if self._full:
            with self._lock, contextlib.suppress(Refusal, Fatal):  # whoever appends will be told
                self._ask_again(0)
        return self._full

    @property
    def open_segment(self) -> Segment:
        """The file that is being written, as far as it is on disk."""
        with self._lock:
            return Segment(self._path, self._first, self.committed, self._synced_end)

    def append(self, facts: Sequence[Fact], at: datetime) -> int:
        """Takes the facts of one decision; the last one's number, or Refusal (`disk-full`, `read-only`)."""
        with self._lock:
            if self._failed:
                raise self._failed
            bodies = encode_open(self.last, at, facts)
            size, count = len(bodies[0]) + _MOST_AROUND, len(bodies)
            if count > 1:
                size += sum(map(len, bodies[1:])) + _SEAL_BYTES * (count - 1)
            if size > MAX_RECORD_BYTES and max(map(len, bodies)) > MAX_RECORD_BYTES - _MOST_AROUND:
                raise Refusal("too-long", f"a record of more than {MAX_RECORD_BYTES} bytes")
            if size > self._allocated - self._end - self._buffered - self._reserve or self._full:
                self._make_room(size, all(fact.is_urgent() for fact in facts))
            self._bodies += bodies
            self._unsealed += size
            self._buffered += size
            self.last += count
            return self.last

    def _make_room(self, size: int, urgent: bool) -> None:
        """Sees to it that `size` more bytes fit; raises Refusal if they do not."""
        # By what waits already: a decision of any size is taken whole where the disk keeps up.
        if self._buffered > MAX_BUFFERED_BYTES:
            raise Refusal(
                "disk-full" if self._full else "busy", "the disk takes no more; nothing was changed"
            )
        if self._ask_again(size):
            return
        # Only what cannot be put off may eat the reserve.
        space = 0 if self._stuck else self._allocated - self._end - self._buffered
        if not urgent or size > space:
            raise Refusal("disk-full", f"no space left on the disk of {self.directory}; nothing was changed")

    def _ask_again(self, size: int) -> bool:
        """Whether there is room for `size` bytes and the reserve; asks the disk, but not all the time."""
        if self._stuck or (self._full and time.monotonic() - self._asked_at < ALLOCATE_AGAIN_S):
            return False
        return self._find_space(size)

    def _find_space(self, size: int) -> bool:
        # Once full, only a whole chunk counts as space again: otherwise the answer would flutter.
        wanted = self._end + self._buffered + self._reserve + size
        found = self._allocate(wanted + self._chunk) or (not self._full and self._allocate(wanted))
        self._note_full(not found)
        return found

    def _allocate(self, upto: int) -> bool:
        if upto <= self._allocated:
            return True
        try:
            # Where this cannot be had, we go on as if it were; then a write may find no space.
            self._disk.allocate(self._fd, self._allocated, upto - self._allocated)
        except OSError as error:
            if error.errno in d.NO_SPACE:
                return False
            d.raise_refusal(error, str(self.directory))
            raise Fatal(Exit.IO, f"{self.directory}: {error.strerror}: no space can be set aside") from error
        self._allocated = upto
        return True

    def _note_full(self, full: bool) -> None:
        if full and not self._full:
            log.error("no space left on the disk of %s: orders are refused", self.directory)
        elif self._full and not full:
            log.warning("there is space again on the disk of %s", self.directory)
        self._full = full
        if full:
            self._asked_at = time.monotonic()

    def flush(self) -> None:
        """Asks that what was appended be committed soon; returns at once."""
        if self._bodies:
            with self._lock:
                self._hand_over()

    def _hand_over(self) -> None:
        if self._bodies:
            if not self._lines:
                self._wake.put(None)
            self._buffered += self._seal(not self._lines) - self._unsealed
            self._unsealed = 0

    def _seal(self, first_of_batch: bool) -> int:
        """Seals what was appended; how many bytes that gives."""
        bodies, self._bodies = self._bodies, []
        if first_of_batch:
            bodies[0] += BATCH_MARK
        chain, lines = self.chain, []
        for body in bodies:
            line, chain = seal(body, chain)
            lines.append(line)
        self.chain = chain
        self._lines += lines
        return sum(map(len, lines))

    def forget_closed(self, upto: int) -> None:
        """Closed segments that end at `upto` or before are no longer there."""
        # In place: the committer adds to the same list meanwhile.
        while self.closed and self.closed[0].last <= upto:
            del self.closed[0]

    def abandon(self, error: Fatal) -> None:
        """Forgets what was appended since the last commit, and takes nothing any more: `error` says why."""
        with self._lock:
            self._failed = error
            self.last -= len(self._bodies)
            self._bodies.clear()

    def close(self) -> None:
        """Commits all there is, and ends."""
        with self._lock:
            self._hand_over()
            self._closing = True
            self._wake.put(None)
        if self._thread:
            self._thread.join()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # --- commit: the thread's side ---

    def _commit_for_ever(self) -> None:
        try:
            while batch := self._next_batch():
                self._commit(batch)
                self._rotate_if_long()
                self._look_ahead()
        except OSError as error:
            reason = error.strerror or str(error)
            self._fail(Fatal(Exit.IO, f"{self.directory}: {reason}: the journal cannot be written"))
        except Fatal as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001  # a daemon without its committer would answer nobody, for ever
            self._fail(Fatal(Exit.BUG, f"the committer stopped: {error!r}"))

    def _fail(self, error: Fatal) -> None:
        self._failed = error
        self.on_fatal(error)

    def _next_batch(self) -> Batch | None:
        """All that is sealed; None when closed and done."""
        while True:
            self._wake.get()  # one for each batch, so that none is left behind
            with self._lock:
                if lines := self._lines:
                    self._lines = []
                    size = self._buffered - self._unsealed
                    self._end, self._buffered = self._end + size, self._unsealed
                    return Batch(lines, self._end - size, self.last - len(self._bodies), self.chain)
                if self._closing:
                    return None

    def _commit(self, batch: Batch, agreed_s: float = 0.0) -> None:
        data, began_s = b"".join(batch.lines), time.monotonic() - agreed_s
        self._write(data, batch.offset)
        self._disk.fdatasync(self._fd)
        # Each call of the system gives the interpreter to the loop, and takes it back.
        opened = self._opened = self._opened or os.fstat(self._fd)
        size = d.size_at(self._fd, self._path, opened)
        if size is None:
            raise OSError(errno.ENOENT, f"{self._path.name} has been removed or moved away")
        if size not in (end := batch.offset + len(data), -1):
            size = os.fstat(self._fd).st_size  # some file systems tell by the name what was so a moment ago
            if size != end:
                self._tell_of_loss(size - len(data), batch.offset)
        self.commit_s.add(time.monotonic() - began_s)
        with self._lock:
            self.committed, self._synced_end = batch.last, end
        self._committed_chain = batch.chain
        self.notify(batch.last)

    def _tell_of_loss(self, size: int, expected: int) -> NoReturn:
        """Somebody has cut the open file short, or appended to it: no start may take that for the end.

        Its length tells, since what we write goes to its end, wherever that is (O_APPEND).
        """
        with contextlib.suppress(OSError):
            write_newest(self.directory, self.committed, self._disk)
        what = f"{self._path}: somebody has changed it: it had {size} bytes, and {expected} were written"
        raise Fatal(Exit.IO, f"{what}; stop whatever does that, and put the whole file back")

    def _write(self, data: bytes, offset: int) -> None:
        """Writes one batch, waiting for space as long as it takes; never leaves half of it."""
        pause_s, waited_s = FIRST_PAUSE_S, 0.0
        while True:
            try:
                d.write_all(self._disk, self._fd, data, offset)
                break
            except OSError as error:
                if error.errno not in d.NO_SPACE or (self._closing and waited_s > CLOSE_PATIENCE_S):
                    raise
            self._give_back(offset)
            time.sleep(pause_s)
            pause_s, waited_s = min(2 * pause_s, LONGEST_PAUSE_S), waited_s + pause_s
        if self._stuck:
            # There is space again: `append` may ask at once.
            self._stuck, self._asked_at = False, float("-inf")

    def _give_back(self, offset: int) -> None:
        """After a write that found no space in spite of everything: nothing half-written stays."""
        with self._lock:
            self._disk.ftruncate(self._fd, offset)
            self._allocated = min(self._allocated, offset)  # the cut gave back what was set aside, too
            self._stuck = True
            self._note_full(True)

    def _look_ahead(self) -> None:
        """Sets the next chunk aside here, so that `append` seldom has to ask the file system."""
        with self._lock:
            start, size = self._allocated, self._chunk
            room = start - self._end - self._buffered - self._reserve
        if self._full or room > size // 2:
            return
        try:
            self._disk.allocate(self._fd, start, size)
        except OSError:
            return  # `append` will find out, and has somebody to tell
        with self._lock:
            self._allocated = max(self._allocated, start + size)

    # --- rotation: the thread's side ---

    def _rotate_if_long(self) -> None:
        """Goes on in a new file once this one is long enough; not while the disk is full."""
        if self._end < self.segment_bytes or self._full:
            return
        with contextlib.ExitStack() as opened:
            self._rotate(opened)

    def _rotate(self, opened: contextlib.ExitStack) -> None:
        first, space = self.committed + 1, self._chunk + self._reserve
        try:
            # For all that is done to names: what has begun must not lack a descriptor then.
            sync = opened.enter_context(d.opened_directory(self.directory, self._disk))
            fd, size = self._create_segment(first, self._committed_chain, space, sync)
        except OSError as error:
            if error.errno in d.NO_SPACE:
                # The open file has space set aside for what was promised; a new one would not have it.
                self._note_full(True)
            elif error.errno not in d.NO_DESCRIPTOR:
                raise
            elif not self._lacks_descriptor:
                self._lacks_descriptor = True
                why = "it goes on, however long, until a descriptor is free for the next file"
                log.error("%s: %s: %s", self._path, error.strerror, why)  # noqa: TRY400  # no bug
            return  # the next batch tries again
        self._lacks_descriptor = False
        old = Segment(self._path, self._first, first - 1, self._end)
        old_fd = self._fd
        with self._lock:
            fits = self._buffered + self._reserve <= space
            if fits:
                self._fd, self._first, self._end, self._allocated = fd, first, size, size + space
                self._synced_end, self._path = size, segment_path(self.directory, first)
                self._opened = None
        if not fits:  # so much came meanwhile; the next batch tries again
            os.close(fd)
            self._remove_segment(segment_path(self.directory, first), sync)
            return
        self._note_newest()
        self.closed.append(old)
        self._disk.ftruncate(old_fd, old.size)
        os.close(old_fd)


@define
class Batch:
    """What is written and synced as one."""

    lines: list[bytes]
    offset: int  # in the open segment
    last: int  # number of the last record
    chain: int  # its CRC


def set_aside(tail: Tail, disk: d.Disk = d.DISK) -> str:
    """Cuts the journal after its last whole decision, and keeps what was cut; says so in words."""
    names = [_move_aside(path, disk) for path in tail.junk]
    names.append(_cut(tail, disk) if tail.offset else _move_aside(tail.path, disk))
    d.sync_directory(tail.path.parent, disk)
    if not (kept := [name for name in names if name]):
        return ""
    return f"{tail.path}: at byte {tail.offset}: {tail.damage}; the rest is set aside in {', '.join(kept)}"


def _cut(tail: Tail, disk: d.Disk) -> str:
    with (
        d.of_file(tail.path),
        open(tail.path, "r+b", 0, opener=lambda _, flags: disk.open(tail.path, flags)) as file,
    ):
        # First what was set aside beyond the end: on a full disk the copy needs that space.
        disk.ftruncate(file.fileno(), os.fstat(file.fileno()).st_size)
        aside = _tail_name(tail.path, tail.offset)
        file.seek(tail.offset)
        d.write_atomically(aside, d.chunks_of(file), disk)
        disk.ftruncate(file.fileno(), tail.offset)
        disk.fsync(file.fileno())
    return aside.name


def _move_aside(path: Path, disk: d.Disk) -> str:
    if path.stat().st_size == 0:
        disk.unlink(path)  # made just before the crash; it holds nothing to keep
        return ""
    aside = _tail_name(path, 0)
    disk.rename(path, aside)
    return aside.name


def _tail_name(path: Path, offset: int) -> Path:
    return d.free_name(path.with_name(f"{path.stem}.tail-{offset}"))
