"""What leaves a node while it is not sure to lead, and what a standby takes for its own."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest
import trio

from cronflowd.base.errors import Refusal
from cronflowd.base.replies import format_refusal
from cronflowd.daemon.cluster import FencedGate
from cronflowd.daemon.standby import _is_ours
from cronflowd.journal.etcd import Lease
from cronflowd.net.clients import Session, _pieces
from cronflowd.net.listeners import Connection
from cronflowd.net.outbox import Outbox
from tests.lib.access_driver import House, a_house
from tests.lib.fake_etcd import FakeEtcd
from tests.lib.harness import START
from tests.lib.waiting import PATIENCE_S
from tests.net.test_tls import Ends, ends

__all__ = ["ends"]


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

    def last_words(self, data: bytes) -> bytes:
        return data

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


@pytest.mark.parametrize(("said", "is_ours"), [(b"LOCAL", True), (b"LOC", False)])
@pytest.mark.parametrize("is_sealed", [False, True])
async def test_what_ends_amid_its_first_word_is_waited_for_no_longer(
    ends: Ends, said: bytes, is_ours: bool, is_sealed: bool
) -> None:
    """Nobody knew whether LOCAL would follow: without a newline its client hung, and was asked for ever."""
    with trio.fail_after(PATIENCE_S):
        if is_sealed:
            async with ends.joined() as (connection, peer):
                await peer.send(said)
                peer.sock.shutdown(socket.SHUT_WR)
                assert await _is_ours(connection) is is_ours
                assert await connection.receive_some() == said
            return
        here, there = socket.socketpair()
        connection = Connection(here)
        with there:
            there.sendall(said)
            there.shutdown(socket.SHUT_WR)
            assert await _is_ours(connection) is is_ours
            assert await connection.receive_some() == said
        connection.close()


async def told(house: House, session: Session, line: str, as_json: bool = False) -> str:
    """The status line that comes of a line."""
    try:
        reply = await house.ask(session, line)
        return "".join(_pieces(reply, as_json, None)).splitlines()[-1]
    except Refusal as refusal:
        return format_refusal(refusal, as_json)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("LIST count=yes", "OK 1 total=1"), ("RUNS count=yes", "OK 0 total=0"), ("GET a @1", "OK 1"),
        ("GET a @2", "ERR not-found "), ("GET b", "ERR not-found "), ("LOG 7", "ERR not-found "),
        ("HISTORY b", "ERR not-found "),
    ],
)  # fmt: skip
async def test_after_local_each_answer_from_memory_says_how_old_it_may_be(
    tmp_path: Path, line: str, text: str
) -> None:
    """That there is no such task may be what was so before; and totals are told as by the leader."""
    house = await a_house(tmp_path)
    root = house.session("root", "admin")
    await house.ask(root, "ADD name=a @daily x")
    house.answers.node = cast(Any, SimpleNamespace(lag=lambda core: (0.3, 2)))
    plain = await told(house, root, line)
    root.is_local = True
    assert plain.startswith(text)
    assert await told(house, root, line) == f"{plain} stale=0.3 behind=2"
    as_json = orjson.loads(await told(house, root, line, as_json=True))
    assert (as_json["stale"], as_json["behind"], as_json["ok"]) == (0.3, 2, text.startswith("OK"))
    assert "stale" not in await told(house, root, "GET a b")


async def test_a_tasks_file_of_when_it_led_is_no_edit_at_a_standby(tmp_path: Path) -> None:
    """LOCAL STATUS told everybody to LOAD what nobody had touched: only who leads looks into that file."""
    house = House(tmp_path)
    await house.ask(house.session(), "SAVE")
    standby = House(tmp_path, is_bare=True)
    for seq, fact in enumerate(house.carried(), 1):
        standby.state.apply(fact, START, seq)
    assert ("tasks.db", "ok") in (await standby.ask(standby.session(), "STATUS")).rows
    (tmp_path / "tasks.db").write_text('{"schedule": "@daily", "command": "x"}\n')
    assert await standby.answers.files.is_edited(), "it leads now"
