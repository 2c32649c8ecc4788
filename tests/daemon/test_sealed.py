"""Between nodes: who is believed, and what whoever listens, or stands between, can make of it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import NoReturn, cast
from unittest.mock import Mock

import pytest
import trio
import trio.testing

from cronflowd.daemon.sealed import (
    PROOF,
    WELCOME_BYTES,
    Sealed,
    Who,
    be_welcomed,
    begin_of,
    dial,
    introduce,
    meet,
)
from cronflowd.daemon.standby import Unreached, relay
from cronflowd.net.listeners import Connection, Door, open_listeners
from tests.lib.waiting import until

SECRET = b"the cluster's"


def test_a_frame_is_opened_once_in_its_place_by_the_other_side() -> None:
    """What was recorded, turned round or changed on the way means nothing."""

    def both() -> tuple[Sealed, Sealed]:
        return (
            Sealed(SECRET, b"said", b"challenge", is_asking=True),
            Sealed(SECRET, b"said", b"challenge", is_asking=False),
        )

    asking, answering = both()
    frames = [asking.seal(b"one"), asking.seal(b"two")]
    whole = b"".join(frames)
    assert answering.feed(whole[:7]) + answering.feed(whole[7:-1]) == [b"one"]
    assert answering.feed(whole[-1:]) == [b"two"]
    for wrong in (
        lambda ours, theirs: ours.feed(ours.seal(b"one")),
        lambda ours, theirs: theirs.feed(frames[1]),
        lambda ours, theirs: theirs.feed(frames[0] + frames[0]),
        lambda ours, theirs: theirs.feed(frames[0][:-1] + b"x"),
        lambda ours, theirs: Sealed(SECRET, b"said", b"x", is_asking=False).feed(frames[0]),
        lambda ours, theirs: theirs.feed(b"\xff" * 4),
        lambda ours, theirs: theirs.feed(b"\0" * 4),
    ):
        with pytest.raises(OSError, match="does not speak"):
            wrong(*both())


@asynccontextmanager
async def joined() -> AsyncIterator[tuple[Connection, trio.SocketStream]]:
    """A leader's end of a connection, and the other one."""
    here, there = socket.socketpair()
    there.setblocking(False)
    async with trio.SocketStream(trio.socket.from_stdlib_socket(there)) as other:
        connection = Connection(here)
        connection.kind, connection.peer = "tcp", "192.0.2.7:40000"
        try:
            yield connection, other
        finally:
            connection.close()


async def met(connection: Connection) -> Connection | None:
    async def serve(connection: Connection, sealed: Sealed) -> None:
        raise AssertionError("a node was served")

    return await meet(connection, SECRET, None, serve)


async def carried(there: trio.SocketStream, said: bytes) -> tuple[Sealed, bytes]:
    """What a standby does after that line, until both know each other; and what whoever listens hears."""
    await there.send_all(said)
    welcome = b""
    while len(welcome) < WELCOME_BYTES:
        more = await there.receive_some(WELCOME_BYTES - len(welcome))
        if not more:
            raise OSError("it left")
        welcome += more
    sealed = be_welcomed(SECRET, said, welcome)
    heard = sealed.seal(PROOF) + sealed.seal(b"LIST\n")
    await there.send_all(heard)
    return sealed, said + heard


async def test_a_node_says_for_whom_it_speaks() -> None:
    """Its unix socket counts as the leader's own: root there is root here."""
    async with joined() as (connection, there), trio.open_nursery() as nursery:
        found = list[Connection | None]()

        async def take() -> None:
            found.append(await met(connection))

        nursery.start_soon(take)
        sealed, _ = await carried(there, introduce(SECRET, "unix", "unix:pid=9,uid=0"))
        await until(lambda: found)
        (ours,) = found
        assert ours
        assert (ours.kind, ours.peer) == ("unix", "unix:pid=9,uid=0")
        assert await ours.receive_some() == b"LIST\n"
        frame = sealed.seal(b"x" * 50_000) + sealed.seal(b"")
        await there.send_all(frame[:10])
        await there.send_all(frame[10:])
        await there.send_eof()
        received = b""
        while data := await ours.receive_some():
            received += data
        assert received == b"x" * 50_000
        assert ours.send_now(b"OK 0\n") == 5
        ours.shutdown()
        answer = b""
        while data := await there.receive_some():
            answer += data
        assert b"OK 0" not in answer
        assert sealed.feed(answer) == [b"OK 0\n", b""]


@pytest.mark.parametrize(
    "said",
    [introduce(b"another secret", "unix", "unix:pid=9,uid=0"),
     introduce(SECRET, "tcp", "192.0.2.8:1").replace(b"tcp", b"unix"),
     introduce(SECRET, "worker", "unix:pid=9,uid=0"),
     b"RELAY unix unix:pid=9,uid=0 1 00\n", b"RELAY " + b"x" * 600],
    ids=["another secret", "another kind", "another door", "no secret", "too long"],
)  # fmt: skip
async def test_whoever_only_says_so_is_not_believed(said: bytes) -> None:
    """Anybody can dial the port."""
    async with joined() as (connection, there), trio.open_nursery() as nursery:

        async def say() -> None:
            with suppress(OSError, trio.BrokenResourceError):
                await carried(there, said)

        nursery.start_soon(say)
        assert await met(connection) is None
        connection.close()


@pytest.mark.parametrize("kind", ["unix", "worker", "node"])
async def test_what_was_overheard_lets_nobody_in(kind: Who) -> None:
    """Neither here nor at another node of the cluster, which may lead a second later: his is root's."""
    served, found = list[Sealed](), list[Connection | None]()

    async def serve(connection: Connection, sealed: Sealed) -> None:
        served.append(sealed)

    async def take(connection: Connection) -> None:
        found.append(await meet(connection, SECRET, None, None if kind == "worker" else serve))

    async with joined() as (connection, there), trio.open_nursery() as nursery:
        nursery.start_soon(take, connection)
        _, heard = await carried(there, introduce(SECRET, kind, "unix:pid=9,uid=0"))
        await until(lambda: found)
    assert found[0] or served
    async with joined() as (connection, there):
        await there.send_all(heard)
        await take(connection)
    assert found[1] is None
    assert len(served) <= 1


async def test_who_only_looks_like_a_leader_is_told_nothing() -> None:
    """Whoever has the port of a node that is away, or what stands between, reads no order and no token."""
    said = introduce(SECRET, "unix", "unix:pid=9,uid=0")
    for secret, heard in ((b"another secret", said), (SECRET, b"what another node said")):
        welcome = b"c" * 16 + Sealed(secret, heard, b"c" * 16, is_asking=False).seal(PROOF)
        with pytest.raises(OSError, match="does not speak as a node"):
            be_welcomed(SECRET, said, welcome)


@pytest.mark.parametrize("said", [b"PING\n", b"R", b"RELAX\n", b"\x16\x03\x01", b""])
async def test_everybody_else_speaks_for_himself(said: bytes) -> None:
    """Nothing of what he says is taken away."""
    async with joined() as (connection, there):
        await there.send_all(said)
        await there.send_eof()
        found = await met(connection)
        assert found is connection
        assert found.kind == "tcp"
        assert await found.receive_some() == said


async def test_who_breaks_it_off_at_once_is_no_bug() -> None:
    """Each look whether the port is open would leave a traceback in the log."""
    async with joined() as (connection, _):
        connection.drop = connection.peek = Mock(side_effect=ConnectionResetError)  # type: ignore[method-assign]
        assert await met(connection) is connection


# --- both ends ------------------------------------------------------------------------------------


class Tap:
    """Stands between two nodes, and listens."""

    def __init__(self, leader: tuple[str, int]) -> None:
        self.leader, self.address, self.heard = leader, ("", 0), b""

    async def carry(self, here: trio.SocketStream) -> None:
        async with await trio.open_tcp_stream(*self.leader) as there, trio.open_nursery() as nursery:
            nursery.start_soon(self._copy, here, there)
            nursery.start_soon(self._copy, there, here)

    async def _copy(self, source: trio.SocketStream, target: trio.SocketStream) -> None:
        async for data in source:
            self.heard += data
            await target.send_all(data)
        await target.send_eof()


@asynccontextmanager
async def tapped() -> AsyncIterator[Tap]:
    """The way to a leader that repeats what it is told, and says who has told it."""

    async def repeat(connection: Connection) -> None:
        said = b""
        while data := await connection.receive_some():
            said += data
        connection.send_now(f"{connection.kind} {connection.peer}: ".encode() + said)
        connection.shutdown()

    async def serve(connection: Connection, sealed: Sealed) -> None: ...

    door = Door(repeat, 10)
    door.greet = partial(meet, secret=SECRET, greet=None, serve=serve)
    (listener,) = open_listeners([("127.0.0.1", 0)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(door.serve, [listener])
        tap = Tap(listener.sock.getsockname())
        (ours,) = await nursery.start(partial(trio.serve_tcp, tap.carry, 0, host="127.0.0.1"))
        tap.address = ours.socket.getsockname()
        yield tap
        nursery.cancel_scope.cancel()


async def not_ours() -> bool:
    return False


@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_who_stands_between_two_nodes_reads_nothing(kind: Who) -> None:
    """Tokens, secrets and their orders were carried readable from a standby to the leader."""
    said = b"AUTH very-secret\n" + b"x" * 50_000
    async with tapped() as tap, joined() as (connection, client), trio.open_nursery() as nursery:
        nursery.start_soon(relay, connection, tap.address, SECRET, kind, not_ours)
        await client.send_all(said)
        await client.send_eof()
        answer = b"".join([data async for data in client])
        assert answer == f"{kind} 192.0.2.7:40000: ".encode() + said
    assert len(tap.heard) > 2 * len(said)
    assert [word for word in (b"AUTH", b"very-secret", b"xxxx") if word in tap.heard] == []


async def test_what_is_for_the_standby_itself_does_not_wait_for_a_leader_that_is_frozen() -> None:
    """LOCAL is what an operator asks then."""

    async def ours() -> bool:
        return True

    with socket.create_server(("127.0.0.1", 0)) as frozen:
        async with joined() as (connection, _):
            assert not await relay(connection, frozen.getsockname(), SECRET, "tcp", ours)


async def test_a_leader_that_does_not_show_that_it_is_one_is_not_reached() -> None:
    """A node that leads no more answers something else: the client is told, and nothing of his is read."""
    async with joined() as (connection, client), trio.open_nursery() as nursery:

        async def refuse(there: trio.SocketStream) -> None:
            await there.receive_some()
            await there.send_all(b"ERR not-leader none (nobody leads); nothing was changed\n")

        (fake,) = await nursery.start(partial(trio.serve_tcp, refuse, 0, host="127.0.0.1"))
        await client.send_all(b"AUTH very-secret\n")
        with pytest.raises(Unreached):
            await relay(connection, fake.socket.getsockname(), SECRET, "unix", not_ours)
        assert await connection.receive_some() == b"AUTH very-secret\n"
        nursery.cancel_scope.cancel()


async def test_who_holds_the_beginning_of_a_word_is_looked_at_less_and_less(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A thousand strangers who said `LOC` and nothing more were looked at two hundred times a second each."""
    looks: list[float] = []

    class Held:
        has_ended = False

        async def peek(self) -> bytes:
            looks.append(trio.current_time())
            return b"LOC"

    with trio.move_on_after(60):
        await begin_of(cast(Connection, Held()), lambda begun: False)
    assert 60 < len(looks) < 300
    assert looks[2] - looks[0] < 0.05, "what is under way is not kept waiting"


async def test_whoever_can_resolve_no_name_for_now_does_not_reach_the_leader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That takes a thread; it is told as a leader that cannot be reached, which is looked for again."""

    async def refuse(*_: object) -> NoReturn:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio, "open_tcp_stream", refuse)
    with pytest.raises(OSError, match="no thread can be started"):
        await dial(("leader", 5050), b"secret", "node", "a")
