"""The journal made short: the state as one file, and of the past only what is kept.

`main` runs as a child process beside the daemon, on files that no daemon touches any
more, and only ever adds files; each takes effect by one rename. Once the daemon has
journaled that the checkpoint stands, `remove_superseded` deletes what it replaces. A
crash between any two steps leaves a directory that starts with the same state.

History is a row of files, each for a range of record numbers. What is new becomes a file
of its own, merged with those before it that are not much longer, so that each record is
copied a handful of times in its life. A file is at most an eighth of what all history
may take, and beyond that the oldest files go whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import cache
from itertools import pairwise, product
from pathlib import Path

from attrs import Factory, define

from ..base.errors import Exit, Fatal, Refusal
from ..engine.encoding import encode
from ..engine.state import State
from ..host.disk import lock_directory, remove_leftovers, write_atomically
from ..host.logs import last_words
from ..schedules.zones import EPOCH
from ..tasks.options import KEEP, Common, Keep
from . import apart, files
from .history import deed_in, size_of_output, sources
from .index import make_all, remove_orphans
from .records import HEAD, SEAL_BYTES, Corrupt, Header, Reader, seal, seq_of
from .replay import Replay, checkpoint_end

HISTORY_BYTES = 1024 * 1024 * 1024
PIECES = 8  # all history is at least so many files, once it is as long as it may be
MAX_PIECE_BYTES = 64 * 1024 * 1024  # bounds this process's memory, too
DEEDS_FOR = timedelta(days=90)  # who did what is kept so long,
DEEDS_SHARE = 8  # in at most such a part of all history
SIFT_AGAIN_AFTER = timedelta(days=1)
_NICE = 10
# Depends on the order in which encoding.encode writes: the line's beginning tells all we need.
_KEPT_KIND = re.compile(
    rb'\{"seq":([0-9]+),"at":"([^"]*)","fact":"(RunEnded|OutputReceived|FiresPassed)",'
    rb'(?:"more":true,)?"(?:run|task)":([0-9]+),'
)
_ENDED, _OUTPUT, _PASSED = b"RunEnded", b"OutputReceived", b"FiresPassed"
_LATE = b'[0,{"code":"late-report",'  # which no output of a job looks like: its quotes are escaped
_DUE = re.compile(rb'"due_at":"([^"]*)"')
_TASK = re.compile(rb'"task":([0-9]+),')


def main(data: Path, history_bytes: int = HISTORY_BYTES, keep: Keep = KEEP) -> int:
    """Compacts all closed segments; prints what the daemon must journal as one line of JSON. Raises Fatal."""
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    directory = files.journal_dir(data).absolute()
    # One at a time: that of a daemon which was killed may still be running.
    lock = lock_directory(directory, files.COMPACTING_NAME)
    try:
        # By no name: another journal may take its place, as by a restore when the daemon is no more.
        with contextlib.chdir(directory):
            # Of one that was killed, as where memory is short: each try would leave another.
            remove_leftovers(Path(), [None, os.getpid(), os.getppid()])
            told = compact(Path(), history_bytes, keep)
    except Corrupt as error:
        raise type(error)(directory / error.path, error.offset, error.what) from error
    except Refusal as refusal:
        raise Fatal(Exit.IO, f"{directory}: {refusal.message}") from refusal
    except OSError as error:
        raise Fatal(Exit.IO, f"{directory / (error.filename or '')}: {error.strerror}") from error
    finally:
        lock.close()
    with contextlib.suppress(BrokenPipeError):  # the daemon was killed: the next one finds the files
        os.write(1, json.dumps(told).encode())
    return Exit.OK


def compact(directory: Path, history_bytes: int, keep: Keep = KEEP) -> dict[str, str | int]:
    """Writes history files, then the checkpoint; the latter makes the former's sources superfluous."""
    replay, state = Replay(directory, leave_out_newest=True), State(recent_runs=0, common=Common(keep=keep))
    for seq, at, fact in replay:
        state.apply(fact, at, seq)
    if not replay.last:
        raise Fatal(Exit.TRY_AGAIN, f"{directory}: no closed segment yet")
    write_history(directory, Sieve(state, history_bytes, state.told_at), replay.last)
    path = files.checkpoint_path(directory, replay.last)
    size, crc = write_atomically(path, checkpoint_lines(state, replay.last, replay.chain, state.told_at))
    make_all(directory)
    return {"file": path.name, "upto": replay.last, "size": size, "crc": crc}


def checkpoint_lines(state: State, upto: int, chain: int, at: datetime) -> Iterator[bytes]:
    """The state told as facts, between a header and a last line that says it is whole."""
    yield Header("checkpoint", upto, chain).line()
    records = 0
    for fact in state.carry():
        line, chain = seal(encode(upto, at, fact, more=True)[:-1], chain)
        yield line
        records += 1
    yield checkpoint_end(upto, records, chain)


def remove_superseded(data: Path, upto: int) -> int:
    """Deletes what the checkpoint `upto` and the history files replace; how many files that were.

    But for its newest segment: who watches and was cut off goes on by records that are whole.
    """
    directory = files.journal_dir(data)
    if not files.checkpoint_path(directory, upto).exists():
        return 0
    segments = files.list_segments(directory)
    gone = [path for number, path in files.list_checkpoints(directory) if number < upto]
    gone += [path for (_, path), (following, _) in pairwise(segments) if following <= upto + 1][:-1]
    gone += files.list_swallowed(directory)
    for path in gone:
        path.unlink(missing_ok=True)
    remove_orphans(directory)
    return len(gone)


# --- which of the past is kept ------------------------------------------------------------------


@define
class Part:
    """The records of one run's ends in a piece of history, or of its output."""

    seqs: list[int] = Factory(list)
    size: int = 0


@define
class Survey:
    """What stands in one piece of history, oldest first. Times are RFC 3339 and compared as texts."""

    begins_at: str = ""
    ended: list[tuple[int, int, str, str]] = Factory(list)  # final ends: run, task, when, due when
    passed: list[tuple[int, int, str, int]] = Factory(list)  # fires that never ran: seq, task, when, bytes
    parts: defaultdict[tuple[int, bytes], Part] = Factory(lambda: defaultdict(Part))  # by run and kind
    deeds: list[tuple[int, str, int]] = Factory(list)  # who did what: seq, when, bytes
    late: list[tuple[int, int, str, int]] = Factory(list)  # reports that came late: seq, run, when, bytes

    def add(self, line: bytes) -> None:
        """One more record, as it stands in the file."""
        match = _KEPT_KIND.match(line)
        if not match:
            if deed := cut_to_deed(line):
                seq, at = HEAD.match(deed).groups()  # type: ignore[union-attr]
                self.deeds.append((int(seq), at.decode(), len(deed)))
            return
        seq, at, kind, number = int(match[1]), match[2].decode(), match[3], int(match[4])
        self.begins_at = self.begins_at or at
        if kind == _PASSED:
            self.passed.append((seq, number, at, len(line)))
            return
        part = self.parts[number, kind]
        part.seqs.append(seq)
        part.size += size_of_output(line) if kind == _OUTPUT else len(line)
        if kind == _OUTPUT and _LATE in line:
            self.late.append((seq, number, at, len(line)))
        is_final = kind == _ENDED and b'"final":true' in line
        if is_final and (task := _TASK.search(line)) and (due := _DUE.search(line)):
            self.ended.append((number, int(task[1]), at, due[1].decode()))


class Sieve:
    """Decides piece by piece, newest first, by each task's keep= and the bound on everything."""

    def __init__(self, state: State, history_bytes: int, now: datetime) -> None:
        self.history_bytes = history_bytes
        # The last record's time: the past is as old as the journal says, and a clock may have been set right.
        self.now = now
        self.bytes = 0  # kept so far
        self._keep = cache(state.keep_of)
        self._deed_bytes = 0
        self._state = state
        self._outputs: set[int] = set()  # runs whose output is kept
        self._met: set[int] = set()  # runs whose end was met
        self.gone: set[int] = set()  # runs whose end was met and whose output is not kept
        self._tally: Counter[tuple[int, bytes]] = Counter()  # of each task: runs, bytes of output, fires
        # Runs whose end is kept and whose beginning may stand in an older piece than their end.
        self._long = set(product(state.runs, (_ENDED, _OUTPUT)))

    def choose(self, survey: Survey) -> set[int]:
        """Which records of an older piece than all before are kept."""
        kept, records = self._long & survey.parts.keys(), set[int]()
        for run, task, at, due_at in reversed(survey.ended):
            new = self._choose_run(run, task, at, survey)
            kept |= new
            if due_at[:19] <= survey.begins_at[:19]:  # to the second: fractions may be left out
                self._long |= new
        self.gone.update(run for run, *_ in survey.ended if (run, _OUTPUT) not in kept)
        self._outputs.update(run for run, kind in kept if kind == _OUTPUT)
        for seq, task, at, size in reversed(survey.passed):
            if self._is_kept(task, _PASSED, at) and self._takes(size):
                records.add(seq)
        records.update(seq for key in kept for seq in survey.parts[key].seqs)
        oldest = self._back(DEEDS_FOR)
        self._met.update(run for run, *_ in survey.ended)
        for seq, run, at, size in reversed(survey.late):
            # Its run's end stands in an older piece, and nobody knows yet whether that is kept.
            if at >= oldest and run not in self._met and self._takes(size):
                records.add(seq)
        for seq, at, size in reversed(survey.deeds):
            fits = self._deed_bytes + size <= self.history_bytes // DEEDS_SHARE
            if at >= oldest and fits and self._takes(size):
                self._deed_bytes += size
                records.add(seq)
        return records

    def _choose_run(self, run: int, task: int, at: str, survey: Survey) -> set[tuple[int, bytes]]:
        ends, output = survey.parts[run, _ENDED], survey.parts[run, _OUTPUT]
        if not (self._is_kept(task, _ENDED, at) and self._takes(ends.size)):
            return set()
        self._tally[task, _OUTPUT] += output.size
        fits = self._tally[task, _OUTPUT] <= self._keep(task).output_bytes and self._takes(output.size)
        return {(run, _ENDED), (run, _OUTPUT)} if fits else {(run, _ENDED)}

    def _is_kept(self, task: int, kind: bytes, at: str) -> bool:
        """Counts one more run of a task, or one more row of fires that never ran."""
        keep = self._keep(task)
        self._tally[task, kind] += 1
        age = timedelta(seconds=min(keep.age_s, (self.now - EPOCH).total_seconds()))
        return self._tally[task, kind] <= keep.runs and at >= self._back(age)

    def _back(self, age: timedelta) -> str:
        """So long ago. The texts of its whole second are no less, with a fraction or without."""
        return _format(self.now - min(age, self.now - EPOCH)).removesuffix("Z")

    def is_orphan(self, run: int) -> bool:
        """Whether, all records having been met, none tells of its output: it came when they were gone."""
        return run < self._state.next_run and run not in self._state.runs and run not in self._outputs

    def _takes(self, size: int) -> bool:
        fits = self.bytes + size <= self.history_bytes
        self.bytes += size * fits
        return fits


# --- writing history ------------------------------------------------------------------------------


@define
class Piece:
    """Files that become one."""

    sources: list[files.Source]
    size: int
    last: int

    @property
    def first(self) -> int:
        return self.sources[0].first

    def lines(self) -> Iterator[bytes]:
        """Their valid lines without the headers."""
        for source in self.sources:
            reader = Reader(source.path)
            for line in reader:
                seq = seq_of(line)
                if source.holds(seq) and seq <= self.last:
                    yield line
            if reader.damage and source.is_history:
                _keep_damaged(reader)


def _keep_damaged(reader: Reader) -> None:
    """What could not be read of a file that is about to be replaced stays under another name."""
    aside = reader.path.with_suffix(".damaged")
    last_words(f"{reader.path}: at byte {reader.offset}: {reader.damage}; kept as {aside.name}")
    with contextlib.suppress(OSError):
        aside.hardlink_to(reader.path)


def write_history(directory: Path, sieve: Sieve, upto: int) -> None:
    """Brings history up to the record `upto`, newest first; older files are touched only where it pays."""
    outputs = apart.sizes(directory)  # before the records that tell of them are looked for
    pieces = plan(directory, sieve, upto)
    _write_pieces(directory, sieve, pieces)
    if all(changes for _, changes in pieces):  # each record was met
        apart.remove(directory, filter(sieve.is_orphan, outputs))


def _write_pieces(directory: Path, sieve: Sieve, pieces: list[tuple[Piece, bool]]) -> None:
    for number, (piece, changes) in enumerate(pieces):
        if changes:
            _sift(directory, piece, sieve)
        elif sieve.bytes + piece.size <= sieve.history_bytes:
            sieve.bytes += piece.size
        else:
            for old, _ in pieces[number:] if apart.sizes(directory) else ():
                sieve.gone.update(run for run, *_ in _survey(old).ended)
            _remove_gone(directory, sieve)
            # One empty file in the place of this and all that is older.
            write_atomically(
                files.history_path(directory, 1, piece.last),
                [Header("history", 1, 0, sifted_at=_format(sieve.now)).line()],
            )
            return


def _remove_gone(directory: Path, sieve: Sieve) -> None:
    """Before the records: after a crash these are met again, and nothing else tells of the files."""
    apart.remove(directory, sieve.gone)
    sieve.gone.clear()


def plan(directory: Path, sieve: Sieve, upto: int) -> list[tuple[Piece, bool]]:
    """The files that history is to be made of, newest first, and whether each has to be written.

    What is older than a gap stays as it is: runs that began there may have their ends in what is missing.
    """
    found = [source for source in sources(directory) if source.first <= upto]
    known_from = upto + 1  # and from there on no record is missing
    for source in reversed(found):
        if source.last + 1 < known_from:
            break
        known_from = min(known_from, source.first)
    limit = min(MAX_PIECE_BYTES, sieve.history_bytes // PIECES)
    stale_before = _format(sieve.now - SIFT_AGAIN_AFTER)
    stale = any(
        source.is_history and source.first >= known_from and _sifted_at(source) < stale_before
        for source in found
    )
    pieces: list[tuple[Piece, bool]] = []
    merging = True
    for source in reversed(found):
        size = source.path.stat().st_size
        newest = pieces[-1][0] if pieces else None
        if source.is_history:
            merging = merging and newest is not None and size <= 2 * newest.size
        is_next = newest is not None and source.last + 1 == newest.first
        if newest and merging and is_next and newest.size + size <= limit:
            newest.sources.insert(0, source)
            newest.size += size
        else:
            merging = merging and not source.is_history
            changes = not source.is_history or (stale and source.first >= known_from)
            pieces.append((Piece([source], size, min(source.last, upto)), changes))
    return pieces


def _sifted_at(source: files.Source) -> str:
    header = Reader(source.path).header
    return header.sifted_at if header else ""


def _format(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _survey(piece: Piece) -> Survey:
    survey = Survey()
    for line in piece.lines():
        survey.add(line)
    return survey


def _sift(directory: Path, piece: Piece, sieve: Sieve) -> None:
    """Reads a piece twice: to decide, and to copy."""
    survey = _survey(piece)
    kept = sieve.choose(survey)
    _remove_gone(directory, sieve)
    header = Header("history", piece.first, 0, sifted_at=_format(sieve.now))
    path = files.history_path(directory, piece.first, piece.last)
    lines = (_short(line) for line in piece.lines() if seq_of(line) in kept)
    write_atomically(path, seal_again(header, lines))


def cut_to_deed(line: bytes) -> bytes | None:
    """Of a record that is not kept whole, who did what: a task's definition may be long."""
    if (found := deed_in(line)) is None:
        return None
    at, deed = found
    return seal(encode(seq_of(line), at, deed, more=False)[:-1], 0)[0][:-1]


def _short(line: bytes) -> bytes:
    return line if _KEPT_KIND.match(line) else cut_to_deed(line) or line


def seal_again(header: Header, lines: Iterator[bytes]) -> Iterator[bytes]:
    """The same records in a chain of their own, for what stood between them is gone."""
    yield header.line()
    chain = header.chain
    for line in lines:
        sealed, chain = seal(line[:-SEAL_BYTES], chain)
        yield sealed
