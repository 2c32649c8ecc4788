"""A client's end of a conversation, and a core that knows six verbs, on virtual time.

A unix socket pair stands for the TCP connection: it delivers at once, so the clock can leap.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from attrs import define, evolve, field

from cronflowd.base.errors import Fatal, Refusal
from cronflowd.base.replies import Reply
from cronflowd.host.config import Settings
from cronflowd.net.clients import Answering, Session, serve_client
from cronflowd.net.listeners import Connection, Kind
from cronflowd.net.outbox import Gate

DAY_S = 86_400.0
WAITS = Settings(data=Path("/dev/null/nowhere"), tz="UTC")


def about(seconds: float) -> Any:
    return pytest.approx(seconds, abs=0.001)


@define(eq=False)
class FakeCore:
    """PING, ECHO, ROWS, SLOW, and the verbs that change the session."""

    gate: Gate = field(factory=Gate)
    last_seq: int = 0
    handled: list[str] = field(factory=list)
    batches: list[int] = field(factory=list)  # how many lines had been handled at each end
    sessions: list[Session] = field(factory=list)
    left: int = 0
    made_rows: int = 0
    must_authenticate: bool = False
    ready: tuple[dict[str, str], dict[str, str]] = ({}, {})

    def enter(self, session: Session) -> None:
        session.must_authenticate = self.must_authenticate
        self.sessions.append(session)

    def leave(self, session: Session) -> None:
        self.left += 1

    def end_batch(self) -> None:
        self.batches.append(len(self.handled))

    def too_fast(self, session: Session) -> None:
        """Nobody is."""

    def allows_unfinished(self, line: str) -> bool:
        return line.split(" ", 1)[0] in ("PING", "ECHO", "SLOW", "GET")

    def look(self) -> datetime:
        return datetime(2030, 1, 1, tzinfo=UTC)

    def handle(self, line: str, session: Session, now: datetime) -> Reply | Awaitable[Reply]:
        self.handled.append(line)
        verb, _, rest = line.partition(" ")
        if session.is_locked and verb != "AUTH":
            raise Refusal("auth-required", "AUTH first")
        verbs: Any = getattr(self, f"do_{verb.lower()}", None)
        if verb == verb.lower() or verbs is None:
            raise Refusal("unknown-command", f"{verb} is no verb")
        answer: Reply | Awaitable[Reply] = verbs(rest, session)
        return answer

    def do_ping(self, rest: str, session: Session) -> Reply:
        return Reply("", word="PONG")

    def do_echo(self, rest: str, session: Session) -> Reply:
        return Reply(rest, {"text": rest})

    def do_get(self, rest: str, session: Session) -> Reply:
        return Reply(rest)

    def do_add(self, rest: str, session: Session) -> Reply:
        self.last_seq += 1
        return Reply(str(self.last_seq))

    def do_rows(self, rest: str, session: Session) -> Reply:
        return Reply("", columns=("n", "text"), rows=self._rows(int(rest)), count_key="rows")

    def _rows(self, count: int) -> Iterator[tuple[int, str]]:
        for number in range(count):
            self.made_rows += 1
            yield number, "x" * 100
        if count == 13:
            raise RuntimeError("changed while it was read")

    async def do_slow(self, rest: str, session: Session) -> Reply:
        await trio.sleep(float(rest or 1))
        if rest == "3":
            raise Refusal("busy", "too slow")
        return Reply("slow")

    async def do_follow(self, rest: str, session: Session) -> Reply:
        session.is_live = True
        await trio.sleep(float(rest))
        session.outbox.put(b"row\n", self.last_seq)
        session.is_live = False
        return Reply("1")

    def do_bug(self, rest: str, session: Session) -> Reply:
        raise ZeroDivisionError("a bug")

    def do_unread(self, rest: str, session: Session) -> Reply:
        raise OSError(5, "Input/output error", "/data/journal/00000000000000000001.jsonl")

    def do_fatal(self, rest: str, session: Session) -> Reply:
        raise Fatal(74, "the disk is gone")  # type: ignore[arg-type]

    def do_hello(self, rest: str, session: Session) -> Reply:
        session.is_session = True
        return Reply("cronflowd")

    def do_format(self, rest: str, session: Session) -> Reply:
        session.as_json = rest == "json"
        return Reply("")

    def do_auth(self, rest: str, session: Session) -> Reply:
        session.authenticated = session.is_session = True
        return Reply("")

    def do_watch(self, rest: str, session: Session) -> Reply:
        session.is_live = session.is_session = True
        return Reply("watching")

    def do_quit(self, rest: str, session: Session) -> Reply:
        session.closing = True
        return Reply("bye")


class Peer:
    """The client's end of a connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock  # for what is sent at the same time as what others send
        self.stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def read(self, data: bytes) -> None:
        """Reads exactly this."""
        got = b""
        while len(got) < len(data):
            some = await self.stream.receive_some(len(data) - len(got))
            assert some, f"it ended after {got!r}"
            got += some
        assert got == data

    async def read_all(self) -> tuple[bytes, float]:
        """All that comes until the server's end, and when that came."""
        got = b""
        while some := await self.stream.receive_some(65536):
            got += some
        return got, trio.current_time()

    async def ends_after(self, seconds: float) -> None:
        """Nothing more comes, and the server ends its side when so much time has gone."""
        began_at = trio.current_time()
        assert await self.read_all() == (b"", about(began_at + seconds))


@asynccontextmanager
async def connected(core: FakeCore, kind: Kind = "tcp", max_outbox: int = 1 << 20) -> AsyncIterator[Peer]:
    """A client of a server that serves only it; leaving the block waits until the server closed."""
    ours, theirs = socket.socketpair()
    connection = Connection(ours)
    connection.kind = kind
    as_promised: Answering = core  # mypy checks here that the fake is what clients ask for

    async def serve() -> None:
        await serve_client(connection, as_promised, evolve(WAITS, max_outbox=max_outbox))

    peer = Peer(theirs)
    async with trio.open_nursery() as nursery, peer.stream:
        nursery.start_soon(serve)
        yield peer
        await peer.stream.aclose()
