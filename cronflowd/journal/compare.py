"""`cronflowd check DIR --etcd …`: whether a node's journal and the cluster's tell the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson

from ..base.errors import Exit, Fatal
from ..host.config import Settings
from .etcd import EtcdError, Unreachable, make_client
from .records import Reader, journal_dir, list_segments, seq_of
from .shared import Shared, seq_in
from .shared_journal import read_mark


def compare(data: Path, settings: Settings) -> int:
    """Prints what was found; 65 where they differ. Raises Fatal, 69 without etcd."""
    etcd = make_client(settings)
    shared = Shared(etcd, settings.cluster)
    try:
        entry = shared.get(shared.cluster_key)
        if entry is None or orjson.loads(entry.value)["id"] != read_mark(data).get("cluster"):
            print(f"etcd: {data} is no directory of the cluster {settings.cluster} there")
            return Exit.CORRUPT
        return _compare(data, shared)
    except (Unreachable, EtcdError) as error:
        raise Fatal(Exit.UNREACHABLE, f"etcd: {error}") from error
    finally:
        etcd.close()


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
                print(f"etcd: record {last} is another one there")
                return Exit.CORRUPT
            same += 1
            theirs = next(there, None)
    newest = shared.last()
    if last > newest:
        print(f"etcd: it knows record {newest}, and {data} record {last}: it was restored to an older state")
        return Exit.CORRUPT
    state = shared.snapshot_upto()
    print(f"etcd: the state of record {state}, the records to {newest}; {same} are the same here")
    if newest > last:
        print(f"etcd: {newest - last} are still to come here")
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
