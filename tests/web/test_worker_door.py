"""Workers by WebSocket: lines are carried both ways, whole and within bounds, and ends are passed on."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from litestar import Litestar
from litestar.datastructures import State
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.extensions import PerMessageDeflate

from cronflowd.host.config import WebSettings
from cronflowd.host.setting import WebAddress
from cronflowd.net.lines import MAX_LINE_BYTES
from cronflowd.net.listeners import open_listeners
from cronflowd.web import bounds, worker_door
from cronflowd.web.guard import Guard
from cronflowd.web.serve import House
from cronflowd.worker.websocket import WebSocketStream
from tests.lib.fake_daemon import FakeDaemon, fake_daemon
from tests.lib.waiting import PATIENCE_S, until
from tests.lib.working_agent import working

AT = WebAddress("127.0.0.1", 80, "/agents/ws", False)


class Place:
    """A daemon that does what a test says, and the HTTP door before it."""

    def __init__(self, daemon: FakeDaemon, house: House, port: int) -> None:
        self.daemon, self.house, self.port = daemon, house, port
        self.authority: ssl.SSLContext | None = None
        self.streams: list[trio.abc.Stream] = []

    @property
    def guests(self) -> int:
        """How many connections of HTTP there are."""
        return self.house._door.open["tcp"]

    async def tcp(self) -> trio.abc.Stream:
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        self.streams.append(stream)
        if not self.authority:
            return stream
        return trio.SSLStream(stream, self.authority, server_hostname="127.0.0.1", https_compatible=True)

    async def worker(self) -> WebSocketStream:
        """As `cronflowd worker` comes in."""
        stream = WebSocketStream(await self.tcp())
        await stream.open(AT)
        return stream

    async def peer(self, **more: Any) -> Peer:
        """As anybody may come in."""
        peer = Peer(await self.tcp())
        peer.socket_answer = await peer.open(**more)
        return peer


class Peer:
    """A client that says what a test wants said."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.socket = WSConnection(ConnectionType.CLIENT)
        self.socket_answer: Event | None = None

    async def open(self, **more: Any) -> Event:
        await self.say(Request(host="127.0.0.1", target="/agents/ws", **more))
        return await self.hear()

    async def say(self, *events: Event) -> None:
        await self.stream.send_all(b"".join(map(self.socket.send, events)))

    async def hear(self) -> Event:
        """The next thing that is said."""
        with trio.fail_after(PATIENCE_S):
            while not (found := next(self.socket.events(), None)):
                self.socket.receive_data(bytes(await self.stream.receive_some(65_536)) or None)
        return found


@asynccontextmanager
async def placed(tmp_path: Path, is_sealed: bool = False) -> AsyncIterator[Place]:
    trusting, settings = None, WebSettings(data=tmp_path)
    if is_sealed:
        authority, trusting = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
        issued = authority.issue_cert("127.0.0.1")
        key.touch(mode=0o600)
        issued.private_key_pem.write_to_path(str(key))
        issued.cert_chain_pems[0].write_to_path(str(cert))
        authority.configure_trust(trusting)
        settings = WebSettings(data=tmp_path, tls_cert=cert, tls_key=key)
    async with fake_daemon(tmp_path / "workers.sock") as daemon, trio.open_nursery() as nursery:
        handlers = Litestar([worker_door.agents], state=State({"settings": settings}), openapi_config=None)
        app = Guard(handlers, settings, ())
        house = House(app, settings)
        (listener,) = open_listeners([("127.0.0.1", 0)])
        nursery.start_soon(house.serve, [listener])
        place = Place(daemon, house, listener.sock.getsockname()[1])
        place.authority = trusting
        try:
            yield place
        finally:
            for each in place.streams:
                await trio.aclose_forcefully(each)
        with trio.fail_after(PATIENCE_S):
            await house.end()
            await house.ended.wait()
        nursery.cancel_scope.cancel()


async def test_lines_go_both_ways_and_the_daemon_is_told_first_for_whom(tmp_path: Path) -> None:
    """Over its unix socket the daemon trusts whoever comes; a worker from elsewhere has to show a token."""
    async with placed(tmp_path) as place:
        worker = await place.worker()
        await worker.send_all(b"HELLO name=w1\nBEAT\n")
        visitor = await place.daemon.knock()
        assert visitor.hello.startswith("FROM 127.0.0.1:")
        assert int(visitor.hello.rpartition(":")[2]) > 1024
        assert [await visitor.line() for _ in range(1)] == ["HELLO name=w1"]
        await visitor.say("OK w1", "RUN 1 1 :" + "é" * 300_000)
        got = b""
        while got.count(b"\n") < 2:
            got += await worker.receive_some()
        assert got.decode() == "OK w1\nRUN 1 1 :" + "é" * 300_000 + "\n"
        await worker.send_all(f"OUT 1 1 {'x' * 65_000}\n".encode())
        assert await visitor.expect("OUT") == "OUT 1 1 " + "x" * 65_000


async def test_a_worker_shows_life_before_a_proxy_takes_it_for_dead(tmp_path: Path) -> None:
    """A daemon may be content to hear of it once an hour; what stands between ends a silent minute."""
    async with placed(tmp_path) as place:
        at = WebAddress("127.0.0.1", place.port, "/agents/ws", False)
        async with working(place.daemon, tmp_path / "spool", connect=(at,)) as agent:
            visitor = await place.daemon.knock()
            await visitor.expect("HELLO name=w1")
            await visitor.say("OK w1 heartbeat=3600 lease=7200")
            await until(lambda: agent.link)
            assert agent.terms.heartbeat_s == 30
            await visitor.say("RUN 1 1 type=echo :hi")
            assert (await visitor.until_done(1))[-1] == "DONE 1 1 0"


async def test_the_daemon_s_end_is_the_worker_s_and_half_a_line_is_not_passed_on(tmp_path: Path) -> None:
    """It reads the last word, comes back as after any link that was cut, and takes no half of an order."""
    async with placed(tmp_path) as place:
        worker = await place.worker()
        visitor = await place.daemon.knock()
        await visitor.stream.send_all(b"ERR denied the token is not the right one\nRUN 1 1 :rm -r /tmp/x")
        await visitor.close()
        assert await worker.receive_some() == b"ERR denied the token is not the right one\n"
        assert await worker.receive_some() == b""
        await worker.aclose()
        await until(lambda: not place.guests)


@pytest.mark.parametrize("is_said", [True, False])
async def test_the_worker_s_end_is_told_to_the_daemon_after_its_last_line(
    tmp_path: Path, is_said: bool
) -> None:
    """What it said before it left counts; its runs have their lease from now on."""
    async with placed(tmp_path) as place:
        peer = await place.peer()
        visitor = await place.daemon.knock()
        await peer.say(TextMessage(data="DONE 1 1 0"), TextMessage(data="DONE 2 1", message_finished=False))
        if is_said:
            await peer.say(CloseConnection(code=1000))
        else:
            await peer.stream.aclose()
        await visitor.closed()
        assert visitor.lines == ["DONE 1 1 0"]
        await until(lambda: not place.guests)


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (BytesMessage(data=b"DONE 1 1 0"), 1003),
        (TextMessage(data="BEAT\nDONE 1 1 0"), 1007),
        (TextMessage(data="é" * (MAX_LINE_BYTES // 2 + 1)), 1009),
        (TextMessage(data="x" * 200_000), 1009),
    ],
)
async def test_what_is_no_line_ends_the_connection_and_reaches_nobody(
    tmp_path: Path, event: Event, code: int
) -> None:
    """The daemon would be told two things, or a cut one."""
    async with placed(tmp_path) as place:
        peer = await place.peer()
        visitor = await place.daemon.knock()
        await peer.say(event)
        told = await peer.hear()
        assert isinstance(told, CloseConnection)
        assert told.code == code
        await peer.say(told.response())
        await visitor.closed()
        assert visitor.lines == []
        await until(lambda: not place.guests)


@pytest.mark.parametrize("is_sealed", [False, True])
async def test_a_worker_that_takes_nothing_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_sealed: bool
) -> None:
    """The server would wait for it for ever, and so would the end of the process."""
    monkeypatch.setattr(bounds, "STALLED_S", 0.3)
    async with placed(tmp_path, is_sealed) as place:
        peer = await place.peer()
        visitor = await place.daemon.knock()
        with suppress(trio.BrokenResourceError), trio.fail_after(PATIENCE_S):
            while True:
                await visitor.say("RUN 1 1 :" + "x" * 60_000)
        await until(lambda: not place.guests)
        with suppress(trio.BrokenResourceError), trio.fail_after(PATIENCE_S):
            while await peer.stream.receive_some(1 << 20):
                pass


async def test_a_daemon_that_takes_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker hears it, keeps what it has, and comes back; what waits here is bounded meanwhile."""
    monkeypatch.setattr(worker_door, "STALLED_S", 0.3)
    async with placed(tmp_path) as place:
        worker = await place.worker()
        await place.daemon.knock()
        sent = 0
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:

                async def receive() -> None:
                    assert not await worker.receive_some()
                    nursery.cancel_scope.cancel()

                nursery.start_soon(receive)
                with suppress(trio.BrokenResourceError):  # where that one has not had its turn yet
                    while True:
                        await worker.send_all(b"OUT 1 1 " + b"x" * 60_000 + b"\n")
                        sent += 60_000
        assert sent < 30_000_000
        await worker.aclose()
        await until(lambda: not place.guests)


@pytest.mark.parametrize("patience_s", [1.0, 0.0])
async def test_who_goes_on_talking_after_the_end_holds_no_place(
    tmp_path: Path, patience_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody reads what he says any more, and that must not leave the server waiting for a reader."""
    monkeypatch.setattr("cronflowd.web.worker_door.PARTING_S", patience_s)
    async with placed(tmp_path) as place:
        peer = await place.peer()
        visitor = await place.daemon.knock()
        flood = b"".join(peer.socket.send(TextMessage(data="BEAT")) for _ in range(20_000))
        async with trio.open_nursery() as nursery:

            async def talk() -> None:
                with suppress(trio.BrokenResourceError):
                    while True:
                        await peer.stream.send_all(flood)

            nursery.start_soon(talk)
            await visitor.expect("BEAT")
            await visitor.close()
            await until(lambda: not place.guests)


async def test_a_message_without_end_is_not_kept() -> None:
    """Whoever sends it has shown no token yet; it would be all of the memory, once it is long enough."""
    buffer = bounds._Buffer(1000)
    for _ in range(100):
        buffer.extend(TextMessage(data="x" * 600, message_finished=False))
    assert len(buffer.to_message()["text"]) == 1200


def framed(kind: int, data: bytes = b"", is_last: bool = True) -> bytes:
    """A short frame of a client's; 0 goes on with a message, 9 is a ping."""
    return bytes([0x80 * is_last | kind, 0x80 | len(data)]) + bytes(4) + data


@pytest.mark.parametrize(
    "said",
    [
        framed(1, is_last=False) + 10_000 * framed(0, is_last=False),
        framed(1, is_last=False) + 10_000 * framed(0, b"x", is_last=False),
        10_000 * framed(9),
        10_000 * framed(10),
    ],
)
async def test_frames_that_hold_nothing_end_the_connection(said: bytes) -> None:
    """Ten thousand stand in 64 KiB, amid which nobody has a turn: one stranger stopped the whole door."""
    frames = bounds._Frames(ConnectionType.SERVER, [])
    frames.receive_data(said)
    found = list(frames.events())
    assert len(found) < 250
    assert found[-1] == CloseConnection(code=1008)


@pytest.mark.parametrize("cut", [100, 1460, 65_536])
async def test_many_short_lines_are_no_frames_that_hold_nothing(cut: int) -> None:
    """However they are cut on their way, as each piece of TCP is; with a ping now and then."""
    frames, lines = bounds._Frames(ConnectionType.SERVER, []), 0
    said = (100 * framed(1, b"OUT 1 1 " + b"x" * 92) + framed(9)) * 50
    for start in range(0, len(said), cut):
        frames.receive_data(said[start : start + cut])
        found = list(frames.events())
        assert CloseConnection not in map(type, found)
        lines += sum(isinstance(each, TextMessage) and each.message_finished for each in found)
    assert lines == 5000


async def test_nothing_is_unpacked_before_it_is_counted(tmp_path: Path) -> None:
    """Of 64 KiB of zeros, packed, 64 MiB come out at once."""
    async with placed(tmp_path) as place:
        peer = await place.peer(extensions=[PerMessageDeflate()])
        assert isinstance(peer.socket_answer, AcceptConnection)
        assert peer.socket_answer.extensions == []


@pytest.mark.parametrize(
    ("page", "is_refused"),
    [
        ("http://evil.example", True),
        ("null", True),
        ("http://127.0.0.1:9", True),
        ("http://127.0.0.1", False),
    ],
)
async def test_a_page_of_another_site_is_refused(tmp_path: Path, page: str, is_refused: bool) -> None:
    """A browser asks nobody before it opens a WebSocket to this machine."""
    async with placed(tmp_path) as place:
        peer = await place.peer(extra_headers=[(b"origin", page.encode())])
        if is_refused:
            assert isinstance(peer.socket_answer, RejectConnection)
            assert peer.socket_answer.status_code == 403
        else:
            assert isinstance(peer.socket_answer, AcceptConnection)


async def test_without_a_daemon_there_is_no_door(tmp_path: Path) -> None:
    """The worker's log says what is missing, and it comes again."""
    async with placed(tmp_path) as place:
        await place.daemon.close()
        (tmp_path / "workers.sock").unlink()
        with pytest.raises(ConnectionError, match="HTTP 503 the daemon does not answer"):
            await place.worker()
        await until(lambda: not place.guests)


async def test_a_browser_is_told_what_it_is(tmp_path: Path) -> None:
    """Whoever looks whether the address is right sees that it is."""
    async with placed(tmp_path) as place:
        stream = await place.tcp()
        await stream.send_all(b"GET /agents/ws HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
        answer = b""
        while data := await stream.receive_some(65_536):
            answer += data
        assert answer.startswith(b"HTTP/1.1 426 ")
        assert answer.endswith(b"workers come in here, by WebSocket\n")
