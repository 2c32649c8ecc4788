"""A node's doors: what leaves while it is not sure to lead, and what a standby makes of a connection."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cronflowd.daemon import relay
from cronflowd.daemon.cluster import FencedGate
from cronflowd.daemon.relay import VALID_S, introduce, meet
from cronflowd.host.clock import wall_now
from cronflowd.journal.lease import Lease
from cronflowd.net.outbox import Outbox
from tests.lib.fake_etcd import FakeEtcd

SECRET = b"the cluster's"


class Sink:
    """A socket that takes all, or nothing."""

    def __init__(self) -> None:
        self.sent, self.takes = b"", True

    def send_now(self, data: bytes | memoryview) -> int:
        self.sent += bytes(data) if self.takes else bytes(data[:3])
        return len(data) if self.takes else 3

    async def wait_writable(self) -> None: ...
    def fileno(self) -> int:
        return -1

    def shutdown(self) -> None: ...
    def abort(self) -> None: ...


@pytest.mark.parametrize("half", [False, True])
def test_nothing_leaves_when_the_lease_is_not_certain(half: bool) -> None:
    """No reply to a read either; nor the rest of one that had begun to leave before the process stopped."""
    etcd, gate, sink, told = FakeEtcd(), FencedGate(7), Sink(), list[str]()
    gate.on_shut = told.append
    gate.lease = Lease(etcd, 3, told.append, lambda: etcd.now)
    gate.lease.grant()
    outbox = Outbox(sink, gate, 1 << 20)
    sink.takes = not half
    outbox.put_now(b"before\n", 7)
    assert sink.sent == (b"bef" if half else b"before\n")
    etcd.pass_time(2.8)
    sink.takes = True
    outbox.put_now(b"after\n", 7)
    outbox.flush()
    assert sink.sent == (b"bef" if half else b"before\n")
    assert told


class Comer:
    """A connection, and what it says first."""

    def __init__(self, said: bytes) -> None:
        self.said, self.kind, self.peer = said, "tcp", "192.0.2.7:40000"

    async def peek(self) -> bytes:
        return self.said

    def drop(self, size: int) -> None:
        self.said = self.said[size:]


async def met(said: bytes, taken: dict[bytes, float] | None = None) -> Comer | None:
    comer = Comer(said)
    found = await meet(comer, SECRET, None, {} if taken is None else taken)  # type: ignore[arg-type]
    return comer if found else None


async def test_a_node_says_for_whom_it_speaks() -> None:
    """Its unix socket counts as the leader's own: root there is root here."""
    comer = await met(introduce(SECRET, "unix", "unix:pid=9,uid=0") + b"LIST\n")
    assert comer
    assert (comer.kind, comer.peer, comer.said) == ("unix", "unix:pid=9,uid=0", b"LIST\n")


@pytest.mark.parametrize(
    "said",
    [introduce(b"another secret", "unix", "unix:pid=9,uid=0"),
     introduce(SECRET, "tcp", "192.0.2.8:1").replace(b"tcp", b"unix"),
     introduce(SECRET, "unix", "unix:pid=9,uid=0").replace(b" 1", b" 2", 1),
     b"RELAY unix unix:pid=9,uid=0 1 00\n", b"RELAY " + b"x" * 600],
    ids=["another secret", "another kind", "another time", "no secret", "too long"],
)  # fmt: skip
async def test_whoever_only_says_so_is_not_believed(said: bytes) -> None:
    """Anybody can dial the port."""
    assert await met(said) is None


async def test_what_was_overheard_lets_nobody_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A standby says it all the time, in plain text: for half a minute anybody could be its root."""
    taken, said = dict[bytes, float](), introduce(SECRET, "unix", "unix:pid=9,uid=0")
    assert await met(said, taken)
    assert await met(said, taken) is None
    assert await met(introduce(SECRET, "unix", "unix:pid=9,uid=0"), taken), "the same process again"
    later = wall_now() + timedelta(seconds=3 * VALID_S)
    monkeypatch.setattr(relay, "wall_now", lambda: later)
    assert await met(introduce(SECRET, "tcp", "192.0.2.8:1"), taken)
    assert len(taken) == 1, "what is too old anyway is not remembered"


@pytest.mark.parametrize("said", [b"PING\n", b"", b"R", b"RELAX\n", b"\x16\x03\x01"])
async def test_everybody_else_speaks_for_himself(said: bytes) -> None:
    """Nothing of what he says is taken away."""
    comer = await met(said)
    assert comer
    assert (comer.kind, comer.said) == ("tcp", said)
