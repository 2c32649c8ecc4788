"""Nodes of a cluster on a model of etcd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from cronflowd.daemon import cluster
from cronflowd.engine import facts as f
from cronflowd.host.config import Settings
from cronflowd.journal.journal import FileJournal
from cronflowd.journal.shared_journal import SharedJournal
from tests.lib.fake_etcd import FakeEtcd
from tests.lib.open_journal import NOW


class Etcd(FakeEtcd):
    """As a node asks for one."""

    def _maintenance_status(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"version": "3.5.9"}

    def close(self) -> None: ...


def node_on(data: Path, lines: int = 1) -> tuple[cluster.Node, SharedJournal]:
    """A node whose directory has a journal of its own."""
    journal = FileJournal(data)
    list(journal.replay())
    for _ in range(lines):
        journal.append([f.TaskResumed(None)], NOW)
    journal.close()
    node = cluster.Node(Settings(data=data, tz="UTC", etcd=(("127.0.0.1", 1),), node="a"))
    copy = SharedJournal(data, shared=node.committing)
    assert len(list(copy.replay())) == lines
    return node, copy


def told_by(etcd: FakeEtcd, key: bytes) -> Any:
    return orjson.loads(etcd.entries[key].value)
