"""A standby's doors: what comes in there is carried to whoever leads, byte for byte, and back.

The standby reads nothing of it but the first bytes, to know whether they are meant for itself
(LOCAL). Each end of input is carried on as such, so that a netcat comes back to its prompt as it does
at the leader's own door. On the way all is sealed, after a line that says for whom it is (sealed.py): a
unix socket here counts as one there, and TLS is spoken with whoever comes by the node that he dialled.

By itself it answers what follows LOCAL, and what needs nobody who leads.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, ClassVar

import trio

from ..ask import commands
from ..base.errors import Refusal
from ..base.replies import Reply, format_refusal
from ..host.config import Settings
from ..host.setting import Address, format_address
from ..net.clients import Session, serve_client
from ..net.listeners import Connection, Door, Listener, share_descriptors
from ..net.outbox import Gate
from .answers import FROM_MEMORY, Answers
from .cluster import Node
from .sealed import READ_BYTES, Greet, Sealed, Who, begin_of, dial, send

LOCAL, RELAY = "LOCAL", "RELAY"
ANYTIME = frozenset("PING HELLO HELP FORMAT QUIT AUTH WHOAMI NODES".split())
FAREWELL_S = 1.0
LINGER_S = 12.0  # after the leader's end; it reads on for 10 s itself
LOOK_S = 1.0  # for a node that has just begun to see who leads

log = logging.getLogger("cronflowd.cluster")


class LocalAnswers:
    """The daemon's answers as this node knows them by itself."""

    ready: ClassVar[tuple[dict[Any, str], dict[Any, str]]] = ({}, {})

    def __init__(self, answers: Answers, node: Node) -> None:
        self._answers = answers
        self._node = node
        self.enter, self.leave, self.too_fast = answers.enter, answers.leave, answers.too_fast
        self.look = answers.core.now
        self.gate = Gate()  # nothing here waits for a commit, nor for a lease
        self.last_seq = 0

    def end_batch(self) -> None:
        pass

    def allows_unfinished(self, line: str) -> bool:
        return line.strip().upper() == LOCAL or self._answers.allows_unfinished(line)

    def handle(self, line: str, session: Session, now: datetime) -> Reply | Awaitable[Reply]:
        """One line, as far as it changes nothing. Raises Refusal."""
        if line.strip().upper() == LOCAL:
            session.is_session = session.is_local = True
            return Reply("standby", {"role": "standby"})
        name = line.split(None, 1)[0].upper()
        if name == RELAY:
            # Of a node that does not know yet: its client is refused, and what follows is not read.
            session.closing = True
        else:
            commands.find_verb(line)
        if name in ANYTIME:
            return self._answers.handle(line, session, now)
        if name not in FROM_MEMORY or not session.is_local:
            leader = self._node.leader
            if session.is_local:
                where = f"{leader.text} leads" if leader else "none leads"
                raise Refusal("not-leader", f"{where}; only who does takes this")
            why = f"{leader.node} at {leader.text} leads, and cannot be reached" if leader else "nobody leads"
            raise Refusal("not-leader", f"none ({why}); nothing was changed")
        return self._answers.handle(line, session, now)


class Standby:
    """Both doors while another node leads, or nobody."""

    def __init__(self, node: Node, answers: Answers, settings: Settings, greet: Greet | None) -> None:
        self._node = node
        self._settings = settings
        self._local = LocalAnswers(answers, node)
        self._scope = trio.CancelScope()
        clients = Door(self._serve_client, settings.max_clients, "client connections")
        links = Door(self._serve_worker, settings.max_workers, "worker connections")
        clients.greet = links.greet = greet
        clients.max_per_address = links.max_per_address = settings.max_per_address
        self._doors = clients, links

    async def serve(self, control: list[Listener], workers: list[Listener]) -> None:
        """Until it parts."""
        share_descriptors(*self._doors)
        with self._scope:
            async with trio.open_nursery() as nursery:
                for door, listeners in zip(self._doors, (control, workers), strict=True):
                    nursery.start_soon(door.serve, listeners)

    def part(self, grace_s: float) -> None:
        """Another role begins: nobody comes in here any more, and whoever is in has so long to end."""
        for door in self._doors:
            door.shut()
        self._scope.deadline = trio.current_time() + grace_s

    async def _serve_client(self, connection: Connection) -> None:
        with trio.move_on_after(LOOK_S):
            await self._node.has_looked.wait()
        if leader := self._node.leader:
            try:
                is_ours = partial(_is_ours, connection)
                if await relay(connection, leader.control, self._node.secret, connection.kind, is_ours):
                    return
            except Unreached as error:
                log.debug("the leader %s cannot be reached: %s", leader.text, error)
        await serve_client(connection, self._local, self._settings)

    async def _serve_worker(self, connection: Connection) -> None:
        """A worker of this machine is led to the leader; any other is told where that is."""
        with trio.move_on_after(LOOK_S):
            await self._node.has_looked.wait()
        leader = self._node.leader
        if connection.kind == "unix" and leader:
            try:
                await relay(connection, leader.workers, self._node.secret, "worker", _never)
            except Unreached as error:
                log.debug("the leader %s cannot be reached: %s", leader.text, error)
            else:
                return
        with trio.move_on_after(FAREWELL_S), suppress(OSError):
            await connection.receive_some()
        refusal = Refusal("not-leader", format_address(leader.workers) if leader else "none")
        await connection.part(format_refusal(refusal, as_json=False).encode() + b"\n")


async def _is_ours(connection: Connection) -> bool:
    """Whether LOCAL comes first, or what a node says that takes us for the leader."""
    words = [word.encode() for word in (LOCAL, RELAY)]
    begun = await begin_of(
        connection, lambda begun: not any(word.startswith(begun.upper()) for word in words)
    )
    return begun[: len(LOCAL)].upper() in words and begun[len(LOCAL) :][:1] in (b"", b"\n", b"\r", b" ")


async def _never() -> bool:
    return False


# --- the way to the leader ------------------------------------------------------------------------


class Unreached(Exception):
    """The leader cannot be dialled, or does not answer as one."""


async def relay(
    connection: Connection, leader: Address, secret: bytes, kind: Who, is_ours: Callable[[], Awaitable[bool]]
) -> bool:
    """Carries both ways until both ends are said; False where what comes first is meant for us.

    The leader is dialled at once, since it is the one that looks how fast somebody speaks; what is for us
    does not wait for it. Raises Unreached before anything was read.
    """
    opened, trouble, is_there = list[tuple[trio.SocketStream, Sealed]](), list[str](), trio.Event()

    async def lead(scope: trio.CancelScope) -> None:
        try:
            opened.append(await dial(leader, secret, kind, connection.peer))
        except (OSError, trio.TooSlowError, trio.BrokenResourceError) as error:
            trouble.append(str(error))
            scope.cancel()
        else:
            is_there.set()
            await _carry_out(*opened[0], connection, scope)

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lead, nursery.cancel_scope)
            with suppress(OSError):
                if await is_ours():
                    nursery.cancel_scope.cancel()
                    return False
            await is_there.wait()
            nursery.start_soon(_carry_in, connection, *opened[0], nursery.cancel_scope)
    finally:
        for there, _ in opened:
            await trio.aclose_forcefully(there)
    if trouble:
        raise Unreached(trouble[0])
    return True


async def _carry_in(
    connection: Connection, there: trio.SocketStream, sealed: Sealed, scope: trio.CancelScope
) -> None:
    try:
        while data := await connection.receive_some():
            await there.send_all(sealed.seal(data))
        await there.send_all(sealed.seal(b""))
        await there.send_eof()
    except (OSError, trio.BrokenResourceError):
        scope.cancel()


async def _carry_out(
    there: trio.SocketStream, sealed: Sealed, connection: Connection, scope: trio.CancelScope
) -> None:
    try:
        while more := await there.receive_some(READ_BYTES):
            for data in sealed.feed(more):
                if not data:
                    connection.shutdown()
                    scope.deadline = trio.current_time() + LINGER_S
                    return
                await send(connection, data)
        raise OSError("it was cut off")
    except (OSError, trio.BrokenResourceError):
        # The leader was cut off in the middle: what was read must not look complete.
        with suppress(OSError):
            connection.abort()
        scope.cancel()
