"""Telnet's negotiation: declined, and taken out of what is said."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from cronflowd.net.telnet import SLICE_BYTES, Telnet
from tests.lib.client_peer import FakeCore, connected


@pytest.fixture
def clock() -> MockClock:
    """Time that leaps as soon as everybody waits."""
    return MockClock(autojump_threshold=0)


GREETING = b"\xff\xfb\x1f\xff\xfd\x03\xff\xfa\x1f\x00\x50\x00\x18\xff\xf0"
DECLINED = b"\xff\xfe\x1f\xff\xfc\x03"


async def test_a_telnet_negotiation_is_declined_and_makes_a_session(clock: MockClock) -> None:
    """Who uses telnet is a person."""
    async with connected(FakeCore()) as peer:
        await peer.send(GREETING + b"PING\r\n")
        await peer.read(DECLINED + b"PONG\n")
        await peer.send(b"PI\xff\xf1NG\r\n")
        await peer.read(b"PONG\n")
        await peer.ends_after(300)


@pytest.mark.parametrize("piece", [1, 2, 3, 100])
def test_negotiation_is_taken_out_however_it_is_cut(piece: int) -> None:
    """And a doubled 0xFF is the byte itself."""
    data = GREETING + b"PING\xff\xf1\r\nA\xff\xffB"
    telnet = Telnet()
    got = [telnet.strip(data[at : at + piece]) for at in range(0, len(data), piece)]
    assert b"".join(kept for kept, _ in got) == b"PING\r\nA\xffB"
    assert b"".join(answer for _, answer in got) == DECLINED


@pytest.mark.parametrize(
    "data", [b"\xff\n", b"\xff\xfe\n", b"\xff\xfeP\x00I\x00\n", b"\xffPING\n", b"\xff\xfb\xff\n"]
)
async def test_bad_bytes_are_not_taken_for_telnet(clock: MockClock, data: bytes) -> None:
    """They are owed an ERR, not a silent swallowing."""
    async with connected(FakeCore()) as peer:
        await peer.send(data + b"PING\n")
        await peer.stream.send_eof()
        got, _ = await peer.read_all()
    assert (got[:12], got[-5:]) == (b"ERR bad-line", b"PONG\n")


def test_a_subnegotiation_without_an_end_is_not_kept() -> None:
    """Nobody needs what it says, and a stranger could send it byte by byte for ever."""
    telnet = Telnet()
    telnet.strip(b"\xff\xfa")
    for piece in (b"x" * 100_000, b"\xff", b"x\xff"):
        assert telnet.strip(piece) == (b"", b"")
        assert len(telnet._rest) <= 1
    assert telnet.strip(b"\xf0PING") == (b"PING", b"")


async def test_a_flood_of_negotiation_is_answered_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """20,000 sequences in one buffer cost 30 ms, before anybody is known and while nobody else had a turn."""
    strips: list[int] = []
    turns: list[int] = []
    real = Telnet.strip

    def count(telnet: Telnet, data: bytes) -> tuple[bytes, bytes]:
        strips.append(len(data))
        return real(telnet, data)

    async def other(task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        while True:
            turns.append(sum(strips))
            await trio.lowlevel.checkpoint()

    monkeypatch.setattr(Telnet, "strip", count)
    async with trio.open_nursery() as nursery, connected(FakeCore()) as peer:
        await nursery.start(other)
        async with trio.open_nursery() as talk:
            talk.start_soon(peer.read, b"\xff\xfc\x03" * 10_000 + b"PONG\n")
            await peer.send(b"\xff\xfd\x03" * 10_000 + b"PING\n")
        nursery.cancel_scope.cancel()
    assert sum(strips) == 30_005
    assert max(after - before for before, after in pairwise(turns)) <= 2 * SLICE_BYTES
