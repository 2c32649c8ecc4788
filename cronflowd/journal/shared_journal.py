"""The journal of a node: etcd decides what is true, and the files are this node's copy of it.

Whoever leads writes each batch to etcd first, in a transaction that holds for its epoch alone, and
then the same bytes into its own segment; only then is anybody told. What is long of a job's output it
writes before all that, beside the journal (apart.py). Whoever follows takes the lines
that others wrote, one value after the other. Numbers, CRC chain, files, checkpoints and history are
those of a journal without a cluster, so that history, LOG, `check` and a way back need nothing new.
"""

from __future__ import annotations

import itertools
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from ..base.errors import Exit, Fatal, Refusal
from ..engine.encoding import decode, encode_open, leave_out, newest_in
from ..engine.facts import FACTS_VERSION, Fact, OutputReceived
from ..host.disk import make_directory, prepare, read_small, sync_directory, write_atomically
from . import files
from .apart import Apart
from .history import history_end, segments
from .journal import MAX_BUFFERED_BYTES, Batch, FileJournal
from .records import SEAL_BYTES, Header, Reader, unknown, unseal
from .replay import Record, check_checkpoint
from .shared import Shared, seq_in, split

MARK = "cluster"  # of the data directory: which cluster it belongs to
JOINING = "joining"  # names the snapshot that is being put in place
_OLD = ".old.tmp"  # ends the names of what goes with the next start


class SharedJournal(FileJournal):
    """Follows until `lead`."""

    def __init__(self, data: Path, *args: Any, shared: Shared, apart: Apart | None = None, **options: Any):
        super().__init__(data, *args, **options)
        self.apart = apart
        self.had: Callable[[int], int] = lambda run: 0  # how much of a run's attempt is kept so far
        self._shared = shared
        self._epoch = 0  # in which we lead; 0 = another does, or nobody
        self.form = FACTS_VERSION  # that all nodes know, while we lead
        self.etcd_is_full = ""  # how large it is, where only what cannot be put off is taken
        self._synced = threading.Condition(self._lock)

    def lead(self, epoch: int, form: int = FACTS_VERSION) -> None:
        """From now on what is appended counts, in this epoch."""
        self._epoch, self.form = epoch, form

    def append(self, facts: Sequence[Fact], at: datetime) -> int:
        """As on a disk alone; of long output a part may stand beside the journal. Raises Refusal."""
        if not self._epoch:  # a record of this node's own would be another history
            raise Refusal("not-leader", "none (this node does not lead); nothing was changed")
        if self.etcd_is_full and not all(fact.is_urgent() for fact in facts):
            raise Refusal("disk-full", f"etcd has {self.etcd_is_full}; nothing was changed")
        if self.form < FACTS_VERSION:
            for fact in facts:
                if fact.is_urgent():
                    leave_out(fact, self.form)
            form, what = max(map(newest_in, encode_open(0, at, facts)))
            if form > self.form:
                raise Refusal("busy", f"a node is older than {what} (see NODES): bring it up to date first")
        if self.apart is None or OutputReceived not in map(type, facts):
            return super().append(facts, at)
        if self.apart.waiting_bytes > MAX_BUFFERED_BYTES:
            raise Refusal("busy", "the disk and etcd take no more; nothing was changed")
        first = self.last + 1
        told = [
            self.apart.take(fact, seq, self.had(fact.run)) if type(fact) is OutputReceived else fact
            for seq, fact in enumerate(facts, first)
        ]
        try:
            return super().append(told, at)
        except Refusal:
            self.apart.forget(first)
            raise

    def _commit(self, batch: Batch, agreed_s: float = 0.0) -> None:
        if not self._epoch:
            super()._commit(batch)
            with self._lock:
                self._synced.notify_all()
            return
        if self.apart:
            self.apart.write(batch.last)
        offset = batch.offset
        for lines in split(batch.lines):
            asked_s = time.monotonic()
            self._shared.commit(self._epoch, lines)
            part = Batch(lines, offset, seq_in(lines[-1]), _chain_of(lines[-1]))
            super()._commit(part, time.monotonic() - asked_s)
            offset += sum(map(len, lines))

    def take(self, lines: list[bytes]) -> list[Record]:
        """Copies what a leader wrote, and says what it is; returns when it is on the disk.

        Raises Fatal where it does not go on from what stands here.
        """
        if lines and seq_in(lines[0]) <= self.last:
            lines = [line for line in lines if seq_in(line) > self.last]
        records, chain, expected = list[Record](), self.chain, self.last + 1
        for line in lines:
            seq, at, fact, _ = _read(line)
            chain = zlib.crc32(line[: -SEAL_BYTES - 1], chain)
            if seq != expected or chain != _chain_of(line):
                raise Fatal(
                    Exit.CONFIG,
                    f"{self.directory}: record {seq} of the cluster does not go on from record"
                    f" {expected - 1} here: this directory has another history. --rejoin sets it aside",
                )
            records.append((seq, at, fact))
            expected += 1
        if lines:
            with self._lock:
                self._lines += lines
                self._buffered += sum(map(len, lines))
                self.last, self.chain = expected - 1, chain
                self._wake.put(None)
                # One sync for each value, as its leader had: see records.py on what a batch is.
                while self.committed < self.last and not self._failed:
                    self._synced.wait()
        return records


def _read(line: bytes) -> tuple[int, datetime, Fact, bool]:
    """Raises Fatal (70) for what only a newer release understands: it must never lead."""
    try:
        return decode(unseal(line[:-1]))
    except ValueError as error:
        raise unknown(seq_in(line), error) from error


def _chain_of(line: bytes) -> int:
    return int(line[-11:-3], 16)


def install(
    data: Path, upto: int, chunks: Iterable[bytes], lines: Iterable[bytes] = (), last: int = 0
) -> None:
    """Makes a directory begin with the whole state up to a record, 0 = none, and the records that follow.

    Its next start goes on from there. What it had before, up to the record `last`, becomes history.
    Raises Fatal.
    """
    directory = files.journal_dir(data)
    make_directory(directory)
    joining = data / JOINING
    old, covered = files.list_segments(directory), history_end(directory)
    try:
        write_atomically(joining, [b"%d %d\n" % (upto, covered)])
        (directory / files.NEWEST_NAME).unlink(missing_ok=True)  # the new ones may begin earlier
        chain = _put_checkpoint(directory, upto, chunks, joining) if upto else 0
        header = Header("segment", upto + 1, chain).line()
        kept = {each.path: each for each in segments(directory, covered)}
        write_atomically(files.segment_path(directory, upto + 1), itertools.chain([header], lines))
    except Refusal as refusal:
        raise Fatal(Exit.IO, refusal.message) from None
    for _, path in old:  # a segment stands for all records up to the next one, and here some are missing
        each = kept.get(path)
        if each and each.first <= last:
            path.rename(files.history_path(directory, each.first, min(each.last, last)))
        else:
            path.rename(path.with_name(f".{path.name}{_OLD}"))
    sync_directory(directory)
    joining.unlink()
    sync_directory(data)


def _put_checkpoint(directory: Path, upto: int, chunks: Iterable[bytes], joining: Path) -> int:
    """The CRC that records go on from."""
    checkpoint = prepare(files.checkpoint_path(directory, upto), chunks)
    reader, problem = check_checkpoint(checkpoint.made)
    if problem or not reader.header or reader.header.seq != upto:
        checkpoint.discard()
        joining.unlink()
        raise Fatal(Exit.CORRUPT, f"the cluster's snapshot of record {upto} is damaged: {problem}")
    checkpoint.publish()
    return reader.header.chain


def clear_unfinished(data: Path) -> None:
    """Takes back what `install` did not get to its end with."""
    joining, directory = data / JOINING, files.journal_dir(data)
    if joining.exists():
        upto, covered, *_ = *map(int, read_small(joining).split()), 0, 0  # older releases wrote the first
        files.checkpoint_path(directory, upto).unlink(missing_ok=True)
        files.segment_path(directory, upto + 1).unlink(missing_ok=True)
        # What was history before stays that, also where it was made so by another join.
        made = [file.path for file in files.list_history(directory) if file.first > covered]
        for path in [*directory.glob(f".*{_OLD}"), *made]:
            header = Reader(path).header
            if header and header.kind == "segment":
                path.rename(files.segment_path(directory, header.seq))
        joining.unlink()


# --- whose it is --------------------------------------------------------------------------------


def read_mark(data: Path) -> dict[str, str]:
    """Which cluster a data directory belongs to; empty where it belongs to none. Raises Fatal."""
    try:
        return dict(orjson.loads(read_small(data / MARK)))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError) as error:
        raise Fatal(Exit.CORRUPT, f"{data / MARK}: {error}") from error
    except OSError as error:
        raise Fatal(Exit.IO, f"{data / MARK}: {error.strerror}") from error


def write_mark(data: Path, mark: dict[str, str]) -> None:
    write_atomically(data / MARK, [orjson.dumps(mark) + b"\n"])


def check_alone(data: Path) -> None:
    """A directory of a cluster is no single daemon's. Raises Fatal (78)."""
    if mark := read_mark(data):
        raise Fatal(
            Exit.CONFIG,
            f"{data} belongs to the cluster {mark.get('name')}: it starts with --etcd,"
            " or after `cronflowd cluster leave`",
        )
