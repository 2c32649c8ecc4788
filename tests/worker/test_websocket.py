"""The worker's end of a WebSocket, against a peer that says exactly what a test wants said."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import lockstep_stream_pair, memory_stream_pair
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)

from cronflowd.base.errors import Exit, Fatal
from cronflowd.host.config import WorkerSettings
from cronflowd.host.setting import WebAddress
from cronflowd.net.lines import LineReader
from cronflowd.worker import websocket, welcome
from cronflowd.worker.websocket import WebSocketStream
from tests.lib.waiting import PATIENCE_S, until

ADDRESS = WebAddress("cron.example", 3000, "/agents/ws", False)


class Peer:
    """The other end: it says events, and keeps those that come."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.socket = WSConnection(ConnectionType.SERVER)
        self.heard: list[Event] = []
        self.request = Request(host="", target="")

    async def say(self, *events: Event) -> None:
        await self.stream.send_all(b"".join(map(self.socket.send, events)))

    async def hear(self, kind: type[Event]) -> None:
        """Reads on until the last thing heard is of this kind."""
        with trio.fail_after(PATIENCE_S):
            while not (self.heard and isinstance(self.heard[-1], kind)):
                self.socket.receive_data(bytes(await self.stream.receive_some(65_536)) or None)
                self.heard += self.socket.events()

    async def accept(self) -> None:
        await self.hear(Request)
        request = self.heard.pop()
        assert isinstance(request, Request)
        self.request = request
        await self.say(AcceptConnection())

    def texts(self) -> list[str]:
        return [each.data for each in self.heard if isinstance(each, TextMessage)]


Pair = tuple[trio.abc.Stream, trio.abc.Stream]


@asynccontextmanager
async def connected(
    make: Callable[[], Pair] = memory_stream_pair, answer: Callable[[Peer], Awaitable[None]] = Peer.accept
) -> AsyncIterator[tuple[WebSocketStream, Peer]]:
    """A WebSocket that has shaken hands, and its peer."""
    ours, theirs = make()
    worker, peer = WebSocketStream(ours), Peer(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer, peer)
        await worker.open(ADDRESS)
    yield worker, peer
    await theirs.aclose()
    await worker.aclose()


async def test_each_line_is_one_text_message() -> None:
    """What is between can be written in any language that has WebSockets, without cutting lines itself."""
    async with connected() as (worker, peer):
        await worker.send_all("HELLO name=w1\nBEAT\nOUT 1 1 é\n".encode())
        await peer.hear(TextMessage)
        assert peer.heard == [TextMessage(data=each) for each in ("HELLO name=w1", "BEAT", "OUT 1 1 é")]
        await peer.say(TextMessage(data="OK w1"), TextMessage(data="RUN 1 1 :echo é"))
        assert await worker.receive_some() == "OK w1\nRUN 1 1 :echo é\n".encode()
    assert (peer.request.host, peer.request.target) == ("cron.example:3000", "/agents/ws")


async def test_thousands_of_lines_are_made_messages_in_turns() -> None:
    """All at once took a tenth of a second, and four times as long for twice as many."""
    async with connected() as (worker, peer):
        sizes = list[int]()
        put = worker._put

        def count(event: Event) -> None:
            put(event)
            sizes.append(len(worker._owed))

        worker._put = count  # type: ignore[method-assign]
        await worker.send_all(b"OUT 1 1 x\n" * 5000)
        came = 0
        while came < 5000:
            await peer.hear(TextMessage)
            assert set(peer.texts()) == {"OUT 1 1 x"}
            came += len(peer.heard)
            peer.heard.clear()
    assert max(sizes) <= websocket.LINES_A_TURN * 20


async def test_a_message_of_many_pieces_is_one_line_and_is_held_nowhere() -> None:
    """A message has no bound of its own; what reads lines has one, and skips what is longer."""
    async with connected() as (worker, peer):
        reader = LineReader(100)
        pieces = [TextMessage(data="x" * 60, message_finished=number == 9) for number in range(10)]
        got = b""
        for piece in (*pieces, TextMessage(data="")):
            await peer.say(piece)
            got = await worker.receive_some()
            assert len(got) <= 61
            reader.feed(got)
        await peer.say(TextMessage(data="RUN", message_finished=False), TextMessage(data=" 1"))
        reader.feed(await worker.receive_some())
        assert list(map(str, reader.take()))[1:] == ["", "RUN 1"]


async def test_a_ping_is_answered_while_a_send_waits() -> None:
    """Else a proxy takes a busy worker for dead; and who waits to answer would read nothing meanwhile."""
    async with connected(lockstep_stream_pair) as (worker, peer), trio.open_nursery() as nursery:
        got: list[bytes] = []

        async def receive() -> None:
            while data := await worker.receive_some():
                got.append(data)

        nursery.start_soon(worker.send_all, b"OUT 1 1 x\n")  # nobody takes it yet
        nursery.start_soon(receive)
        await peer.say(Ping(payload=b"1"), TextMessage(data="ACK 1 1"))
        await until(lambda: got == [b"ACK 1 1\n"])
        await peer.hear(Pong)
        assert peer.texts() == ["OUT 1 1 x"]
        assert peer.heard[-1] == Pong(payload=b"1")
        nursery.cancel_scope.cancel()


async def test_what_came_before_a_close_is_read_and_then_the_end() -> None:
    """The daemon's last word says why it has none of us."""
    async with connected() as (worker, peer):
        await peer.say(
            TextMessage(data="ERR denied the token is not the right one"), CloseConnection(code=1001)
        )
        assert await worker.receive_some() == b"ERR denied the token is not the right one\n"
        assert await worker.receive_some() == b""
        with trio.CancelScope() as scope:
            scope.cancel()
            await worker.receive_some()
            pytest.fail("whoever reads on until he is cancelled would do so for ever")
        await worker.aclose()
        await peer.hear(CloseConnection)


async def test_a_worker_that_leaves_says_so() -> None:
    """A proxy forgets the connection at once, and the daemon hears of it."""
    async with connected() as (worker, peer):
        await worker.aclose()
        await peer.hear(CloseConnection)


async def test_a_line_that_was_cut_off_is_not_completed_by_what_comes_after() -> None:
    """Two bytes that are missing of a report would be made of the goodbye: a false report."""
    async with connected(lockstep_stream_pair) as (worker, peer):
        with trio.move_on_after(0.01):
            await worker.send_all(b"DONE 1 1 0\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.aclose)
            assert await peer.stream.receive_some(100)
            assert not await peer.stream.receive_some(100)


@pytest.mark.parametrize("event", [BytesMessage(data=b"RUN 1 1 :x"), Pong(payload=b"")])
async def test_what_is_no_text_is_passed_over(event: Message | Pong) -> None:
    """Nobody sends it; and nothing in it is ever an order."""
    async with connected() as (worker, peer):
        await peer.say(event, TextMessage(data="OK"))
        assert await worker.receive_some() == b"OK\n"


async def test_what_is_no_websocket_ends_the_connection() -> None:
    """It is tried again, as with any connection that ended."""
    async with connected() as (worker, peer):
        await peer.stream.send_all(b"\xff\xff not a frame")
        assert not await worker.receive_some()


@pytest.mark.parametrize(
    ("events", "why"),
    [
        ([RejectConnection(status_code=403)], "HTTP 403"),
        (
            [
                RejectConnection(status_code=503, headers=[(b"content-length", b"9")], has_body=True),
                RejectData(data=b"too many\n"),
            ],
            "HTTP 503 too many",
        ),
    ],
)
async def test_a_refusal_is_told_with_its_reason(events: list[Event], why: str) -> None:
    """Whoever reads the worker's log can see which of the machines between refuses it."""

    async def refuse(peer: Peer) -> None:
        await peer.hear(Request)
        await peer.say(*events)

    with pytest.raises(ExceptionGroup) as caught:
        async with connected(answer=refuse):
            pass
    assert [str(each) for each in caught.value.exceptions] == [why]


async def test_a_server_that_is_none_is_told_of() -> None:
    """As when --connect names the worker port itself: it closes what looks like HTTP."""

    async def leave(peer: Peer) -> None:
        await peer.hear(Request)
        await peer.stream.aclose()

    with pytest.raises(ExceptionGroup) as caught:
        async with connected(answer=leave):
            pass
    assert "no answer" in str(caught.value.exceptions[0])


async def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is for those who need it; everybody else's worker starts without."""
    monkeypatch.delitem(sys.modules, "cronflowd.worker.websocket")
    monkeypatch.setitem(sys.modules, "wsproto", None)
    with pytest.raises(Fatal) as caught:
        await welcome.dial(WorkerSettings(), ADDRESS)
    why = "takes the Python package wsproto: pip install 'cronflowd[web]'"
    assert (caught.value.status, caught.value.message) == (Exit.CONFIG, f"connect: {ADDRESS} {why}")
