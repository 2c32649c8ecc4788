"""`cronflowd cluster leave`: a node's directory becomes a single daemon's again, and the cluster ends.

All nodes are stopped. The command leads for a moment, so that nobody else can; it fetches what the
directory lacks, closes the cluster, and takes the cluster's mark off the directory.

`cronflowd check DIR --etcd …` (`compare`) tells whether a node's journal and the cluster's tell the same.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

import orjson

from ..base.errors import Exit, Fatal
from ..host.config import Settings
from ..host.disk import lock_directory
from ..host.logs import tell
from .etcd import EtcdError, Lease, Unreachable, make_client, revoke
from .files import journal_dir, list_segments
from .gaps import gaps
from .records import Reader, seq_of
from .shared import Shared, created_at, put, seq_in
from .shared_journal import MARK, SharedJournal, clear_unfinished, install, read_mark

LEASE_S = 20.0


def leave(settings: Settings) -> int:
    """Prints `OK <seq>`: the last record. Raises Fatal: 75 while anybody leads, 69 without etcd."""
    if not settings.etcd:
        raise Fatal(Exit.USAGE, "cluster leave needs --etcd")
    with closing(lock_directory(settings.data)), _cluster_of(settings.data, settings) as (shared, told):
        if not told:
            why = f"{settings.data} is no directory of the cluster {settings.cluster} there"
            raise Fatal(Exit.CONFIG, why)
        last = _end(settings, shared, told)
    for begins, ends in gaps(journal_dir(settings.data)):
        lacking = f"the history of records {begins} to {ends} is on other nodes only"
        print(f"cronflowd: {lacking}", file=sys.stderr)
    tell(f"OK {last}")
    return Exit.OK


@contextmanager
def _cluster_of(data: Path, settings: Settings) -> Iterator[tuple[Shared, dict[str, Any]]]:
    """What etcd tells of the cluster, and that itself; empty where the directory is none of it.

    Raises Fatal, 69 where etcd does not answer, whatever it is asked.
    """
    with closing(make_client(settings)) as etcd:
        shared = Shared(etcd, settings.cluster)
        try:
            entry = shared.get(shared.cluster_key)
            told = orjson.loads(entry.value) if entry else {}
            yield shared, told if told and told["id"] == read_mark(data).get("cluster") else {}
        except (Unreachable, EtcdError) as error:
            raise Fatal(Exit.UNREACHABLE, f"etcd: {error}") from error


def _end(settings: Settings, shared: Shared, told: dict[str, Any]) -> int:
    lease = Lease(shared.etcd, LEASE_S, lambda why: None)
    lease.grant()
    try:
        who = {"node": "leave", "control": "none:0", "workers": "none:0", "token": token_hex(8)}
        epoch = shared.claim(lease.id, orjson.dumps(who))
        if epoch is None:
            why = f"a node of the cluster {settings.cluster} leads: stop all of them first"
            raise Fatal(Exit.TRY_AGAIN, why)
        last = _fetch(settings, shared, lease)
        # Only while this lease holds: nobody else can have led in between.
        closed = orjson.dumps(told | {"closed": True})
        guard = [created_at(shared.leader_key, epoch)]
        if not shared.transact(guard, [put(shared.cluster_key, closed)]).done:
            raise Fatal(Exit.TRY_AGAIN, "it took too long; nothing was changed")
        (settings.data / MARK).unlink()
        return last
    finally:
        revoke(shared.etcd, lease.id)


def _fetch(settings: Settings, shared: Shared, lease: Lease) -> int:
    """What the directory lacks; the number of its last record then."""
    data, renewed_s = settings.data, time.monotonic()
    clear_unfinished(data)
    while True:
        journal = SharedJournal(data, settings.segment, shared=shared)
        for _ in journal.replay():
            pass
        try:
            while values := shared.fetch(journal.last + 1):
                if seq_in(values[0][0]) > journal.last + 1:
                    break
                for lines in values:
                    journal.take(lines)
                if time.monotonic() - renewed_s > LEASE_S / 4:
                    lease.renew()
                    renewed_s = time.monotonic()
            upto = shared.snapshot_upto()
            if upto <= journal.last:
                if values:
                    raise Fatal(Exit.CORRUPT, f"etcd lacks the records from {journal.last + 1} on")
                return journal.last
        finally:
            journal.close()
        upto, chunks = shared.get_snapshot()
        if chunks is None:
            why = f"{data} lacks the state of record {upto}, which is too long for etcd"
            raise Fatal(Exit.CONFIG, f"{why}: leave on the machine of a node that has it")
        install(data, upto, chunks, last=journal.last)


# --- whether a node and the cluster tell the same -------------------------------------------------


def compare(data: Path, settings: Settings) -> int:
    """Prints what was found; 65 where they differ. Raises Fatal, 69 without etcd."""
    with _cluster_of(data, settings) as (shared, told):
        if told:
            return _compare(data, shared)
    tell(f"etcd: {data} is no directory of the cluster {settings.cluster} there")
    return Exit.CORRUPT


def _compare(data: Path, shared: Shared) -> int:
    there = _lines(shared)
    theirs = next(there, None)
    first, last, same = seq_in(theirs) if theirs else 0, 0, 0
    for ours in _lines_of(data, first):
        last = seq_of(ours)
        while theirs and seq_in(theirs) < last:
            theirs = next(there, None)
        if theirs is None:
            break
        if seq_in(theirs) == last:
            if theirs[:-1] != ours:
                tell(f"etcd: record {last} is another one there")
                return Exit.CORRUPT
            same += 1
            theirs = next(there, None)
    newest = shared.last()
    if last > newest:
        tell(f"etcd: it knows record {newest}, and {data} record {last}: it was restored to an older state")
        return Exit.CORRUPT
    state = shared.snapshot_upto()
    tell(f"etcd: the state of record {state}, the records to {newest}; {same} are the same here")
    if newest > last:
        tell(f"etcd: {newest - last} are still to come here")
    return Exit.OK


def _lines(shared: Shared) -> Iterator[bytes]:
    first = 1
    while values := shared.fetch(first):
        for lines in values:
            yield from lines
        first = seq_in(values[-1][-1]) + 1


def _lines_of(data: Path, first: int) -> Iterator[bytes]:
    segments = list_segments(journal_dir(data))
    for (_, path), (following, _) in zip(segments, [*segments[1:], (1 << 62, None)], strict=True):
        if following > first:
            yield from (line for line in Reader(path) if seq_of(line) >= first)
