"""TLS on real sockets: everything that holds for a connection holds for one whose bytes are sealed."""

from __future__ import annotations

import gc
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from weakref import ref

import pytest
import trio
import trio.testing

from cronflowd.host.tls import client_context, make_certificates, server_tls
from cronflowd.net import tls
from cronflowd.net.listeners import Connection
from cronflowd.net.outbox import Gate, Outbox
from cronflowd.net.poller import Inlet
from tests.lib.waiting import PATIENCE_S


class Peer:
    """A client's end, whose sealed bytes the tests have in their hands."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.sock = trio.socket.from_stdlib_socket(sock)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.sealer = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    def seal(self, data: bytes) -> bytes:
        if data:
            self.sealer.write(data)
        return self._outgoing.read()

    async def send(self, data: bytes) -> None:
        sealed = memoryview(self.seal(data))
        while sealed:
            sealed = sealed[await self.sock.send(sealed) :]

    async def receive(self) -> bytes:
        """The next bytes; none at the end, of which both the library and the socket must have told."""
        while True:
            try:
                return self.sealer.read(3000)
            except ssl.SSLWantReadError:
                data = await self.sock.recv(3000)
                assert data, "the socket ended, and TLS had not"
                self._incoming.write(data)
            except ssl.SSLZeroReturnError:
                return b""

    async def shake_hands(self) -> None:
        while True:
            try:
                self.sealer.do_handshake()
            except ssl.SSLWantReadError:
                await self.send(b"")
                self._incoming.write(await self.sock.recv(3000))
            else:
                return  # our last word is still to be sent

    def end(self) -> bytes:
        """What says the end in TLS."""
        with suppress(ssl.SSLWantReadError):
            self.sealer.unwrap()
        return self._outgoing.read()


class Ends:
    """Both ends of connections."""

    def __init__(self, directory: Path) -> None:
        make_certificates(directory, ["localhost"], datetime.now(UTC))
        self.server = server_tls(directory / "localhost.pem", directory / "localhost.key", None).context
        self.client = client_context(directory / "ca.pem", None, None)

    @asynccontextmanager
    async def joined(self, first: bytes = b"") -> AsyncIterator[tuple[Connection, Peer]]:
        """`first` comes with the client's last word of the handshake."""
        here, there = socket.socketpair()
        there.setblocking(False)
        for each in (here, there):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # small, so that sending has to wait
        peer, ours = Peer(there, self.client), list[Connection | None]()

        async def greet() -> None:
            ours.append(await tls.greet(Connection(here), self.server))

        with there:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(greet)
                await peer.shake_hands()
                await peer.send(first)
            assert ours[0]
            try:
                yield ours[0], peer
            finally:
                ours[0].close()


@pytest.fixture
def ends(tmp_path: Path) -> Ends:
    return Ends(tmp_path)


async def _all(connection: Connection) -> bytes:
    found = b""
    while data := await connection.receive_some():
        found += data
    return found


async def test_what_is_sent_arrives_whatever_the_sizes(ends: Ends) -> None:
    """A record holds 16 KiB, a socket here 4, and neither may show."""
    texts = [b"%d " % size * size for size in (1, 7, 5_000, 20_000)]
    async with ends.joined() as (ours, peer), trio.open_nursery() as nursery:

        async def send() -> None:
            for text in texts:
                await peer.send(text)
            peer.sock.shutdown(socket.SHUT_WR)

        nursery.start_soon(send)
        assert await _all(ours) == b"".join(texts)


@pytest.mark.parametrize("size", [1, 16_384, 65_536, 1_000_000])
async def test_an_outbox_gets_rid_of_all_it_owes(ends: Ends, size: int) -> None:
    """What the library has sealed and the socket has not taken is still owed."""
    async with ends.joined() as (ours, peer), trio.open_nursery() as nursery:
        outbox = Outbox(ours, Gate(), 4 * size + 1)
        nursery.start_soon(outbox.run)
        outbox.put(b"x" * size, 0)
        outbox.put(b"y" * size, 0)
        outbox.finish()
        found = bytearray()
        while data := await peer.receive():
            found += data
        assert found == b"x" * size + b"y" * size
        assert outbox.sent_bytes == 2 * size
        assert outbox.pending_bytes == 0


@pytest.mark.parametrize("says_so", [True, False])
async def test_who_ends_his_input_still_gets_his_answer(ends: Ends, says_so: bool) -> None:
    """`echo PING | ncat --ssl` ends the connection's half without a word in TLS; others say it."""
    async with ends.joined() as (ours, peer):
        await peer.send(b"PING\n")
        if says_so:
            await peer.sock.send(peer.end())
        peer.sock.shutdown(socket.SHUT_WR)
        assert await _all(ours) == b"PING\n"
        assert ours.send_now(b"PONG\n") == 5
        assert await peer.receive() == b"PONG\n"


async def test_what_comes_with_the_handshake_is_not_forgotten(ends: Ends) -> None:
    """A client's first line may come with its last word; the socket has nothing more to tell then."""
    async with ends.joined(b"a\n") as (ours, _):
        with trio.fail_after(PATIENCE_S):
            assert await ours.receive_some() == b"a\n"
        assert ours.receive_now() is None


async def test_the_poller_is_told_of_what_came_with_the_handshake(ends: Ends) -> None:
    """It waits for sockets, and this one has given all it had."""
    async with ends.joined(b"a\n") as (ours, peer):
        taken: list[bytes | None] = []
        rung = trio.Event()

        def ready() -> None:
            taken.append(ours.receive_now())
            rung.set()

        ours.watch(ready)
        with trio.fail_after(PATIENCE_S):
            await rung.wait()
            rung = trio.Event()
            await peer.send(b"b\n")
            await rung.wait()
        assert taken == [b"a\n", b"b\n"]


async def test_no_look_reads_without_end(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends faster than we open would have the loop for itself."""
    async with ends.joined() as (ours, peer):
        reads = 0

        def endless(self: Connection) -> bytes:
            nonlocal reads
            reads += 1
            return peer.seal(b"z" * 1000)

        monkeypatch.setattr(Connection, "receive_now", endless)
        assert ours.receive_now() == b"z" * 1000 * tls.MAX_READS
        assert reads == tls.MAX_READS


@pytest.mark.parametrize("first", [b"PING\n", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b""])
async def test_what_is_no_tls_is_closed_with_one_line(
    ends: Ends, first: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody who forgot to say --tls finds out why, in the daemon's log at least."""
    here, there = socket.socketpair()
    with here, there:
        there.sendall(first)
        there.shutdown(socket.SHUT_WR)
        assert await tls.greet(Connection(here), ends.server) is None
    (record,) = caplog.records
    assert "does not speak TLS as it should" in record.getMessage()


async def test_a_handshake_is_waited_for_no_longer_than_ten_seconds(
    ends: Ends, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A silent stranger holds a place until then."""
    here, there = socket.socketpair()
    with here, there:
        assert await tls.greet(Connection(here), ends.server) is None
    assert trio.current_time() == pytest.approx(tls.HANDSHAKE_S)
    assert "no handshake within 10 s" in caplog.text


async def test_bytes_that_were_tampered_with_break_the_connection(ends: Ends) -> None:
    """That is what it is for."""
    async with ends.joined() as (ours, peer):
        sealed = bytearray(peer.seal(b"REMOVE backup\n"))
        sealed[-1] ^= 1
        await peer.sock.send(sealed)
        with pytest.raises(ConnectionResetError):
            await ours.receive_some()


async def test_what_left_is_counted_as_the_peer_can_read_it(ends: Ends) -> None:
    """An order that counts as not sent goes to another worker, so it must not have been carried out."""
    async with ends.joined() as (ours, peer):
        data, counted, read = memoryview(b"x" * 200_000), 0, 0
        for _ in range(100):
            counted += ours.send_now(data[counted:])
            with suppress(ssl.SSLWantReadError, BlockingIOError):
                peer._incoming.write(peer.sock._sock.recv(3000))  # type: ignore[attr-defined]
                read += len(peer.sealer.read(65_536))
            assert read <= counted
        assert read > 50_000


async def test_what_came_before_a_reset_is_taken(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends an order and leaves at once resets the connection; without TLS the order counts."""
    async with ends.joined() as (ours, peer):
        came: list[bytes] = [peer.seal(b"RUN nightly\n")]

        def reset(self: Connection) -> bytes:
            if came:
                return came.pop()
            raise ConnectionResetError

        monkeypatch.setattr(Connection, "receive_now", reset)
        assert ours.receive_now() == b"RUN nightly\n"
        with pytest.raises(ConnectionResetError):
            ours.receive_now()


async def test_nothing_is_left_unread_by_who_only_sends(ends: Ends) -> None:
    """To close with something unread resets the connection, and what was on its way is lost."""
    async with ends.joined() as (ours, peer):
        await peer.send(b"RUN nightly\n")
        assert await ours.receive_some() == b"RUN nightly\n"
        with pytest.raises(BlockingIOError):
            peer.sock._sock.recv(1)


async def test_who_has_left_when_he_is_told_why_is_no_bug(
    ends: Ends, caplog: pytest.LogCaptureFixture
) -> None:
    """Scanners do so all day, and each would have written its traceback into the log."""
    here, there = socket.socketpair()
    with here:
        there.sendall(b"\x16\x03\x01\x00\x05hello")
        there.close()
        assert await tls.greet(Connection(here), ends.server) is None
    (record,) = caplog.records
    assert "does not speak TLS as it should" in record.getMessage()


async def test_what_the_library_says_by_itself_does_not_pile_up(ends: Ends) -> None:
    """A peer may ask for answers that it never reads (KeyUpdate), before it is known to anybody."""
    async with ends.joined() as (ours, _):
        assert isinstance(ours, tls.TlsConnection)
        while ours.send_now(b"x" * 10_000):
            pass
        with pytest.raises(ConnectionResetError):
            for _ in range(100):
                ours._outgoing.write(b"y" * 1000)
                ours.receive_now()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_what_crosses_our_end_is_still_taken(ends: Ends, version: ssl.TLSVersion) -> None:
    """Silence was taken for the end of a conversation, and then the next order came after all."""
    ends.client.maximum_version = version
    async with ends.joined() as (ours, peer):
        ours.shutdown()
        await peer.send(b"ADD @daily x\n")
        with trio.fail_after(PATIENCE_S):
            assert await ours.receive_some() == b"ADD @daily x\n"
            await peer.send(b"ADD @daily y\n")
            peer.sock.shutdown(socket.SHUT_WR)
            assert await _all(ours) == b"ADD @daily y\n"


@pytest.mark.parametrize("by", ["task", "poller"])
async def test_an_end_that_is_said_in_tls_alone_is_heard(ends: Ends, by: str) -> None:
    """Whoever waits for our end before he leaves sends nothing more, and a session would wait for minutes."""
    async with ends.joined() as (ours, peer):
        await peer.sock.send(peer.seal(b"PING\n") + peer.end())
        with trio.fail_after(PATIENCE_S):
            if by == "task":
                assert await _all(ours) == b"PING\n"
                return
            taken: list[bytes] = []

            def take(data: bytes) -> bool:
                taken.append(data)
                return bool(data)

            assert await Inlet(ours, take).wait(lambda: inf)
            assert taken == [b"PING\n", b""]


async def test_a_connection_that_is_closed_leaves_nothing(ends: Ends) -> None:
    """What is there for long is never looked through for circles: 26 KiB stayed of each worker that left."""
    gc.disable()
    try:
        async with ends.joined() as (ours, _):
            inlet = Inlet(ours, bool)
            ours.watch(inlet._arrived)
            left = ref(ours)
        del ours, inlet
        assert left() is None
    finally:
        gc.enable()
