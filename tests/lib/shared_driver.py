"""Nodes on a model of etcd, for the tests of what a cluster shares."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from cronflowd.journal.replay import Record
from cronflowd.journal.shared import Shared
from cronflowd.journal.shared_journal import SharedJournal
from tests.lib.fake_etcd import FakeEtcd

_claims = count()


class Leading(SharedJournal):
    """The journal of a node that leads as soon as it knows what was."""

    def __init__(self, data: Path, etcd: FakeEtcd, **options: Any) -> None:
        super().__init__(data, shared=Shared(etcd, sleep=lambda _: None), **options)
        self.etcd = etcd
        self.lease = int(etcd.call("lease/grant", {"TTL": "3"})["ID"])

    def replay(self) -> Iterator[Record]:
        yield from super().replay()
        self.lead(begin(self._shared, self.lease))

    def close(self) -> None:
        super().close()
        if self.lease in self.etcd.leases:
            self.etcd.let_go(self.lease)


def begin(shared: Shared, lease: int) -> int:
    epoch = shared.claim(lease, b"node %d" % next(_claims))
    assert epoch
    return epoch
