"""A standby's doors: what comes in there is carried to whoever leads, byte for byte, and back.

The standby reads nothing of it but the first bytes, to know whether they are meant for itself
(LOCAL). Each end of input is carried on as such, so that a netcat comes back to its prompt as it does
at the leader's own door. On the way all is sealed, after a line that says for whom it is (sealed.py): a
unix socket here counts as one there, and TLS is spoken with whoever comes by the node that he dialled.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

from ..host.setting import Address
from ..net.listeners import Connection
from .sealed import (
    DIAL_S,
    PROOF,
    READ_BYTES,
    WELCOME_BYTES,
    WELCOME_S,
    Sealed,
    Who,
    be_welcomed,
    introduce,
    send,
)

LINGER_S = 12.0  # after the leader's end; it reads on for 10 s itself


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
            opened.append(await _dial(leader, secret, introduce(secret, kind, connection.peer)))
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


async def _dial(leader: Address, secret: bytes, said: bytes) -> tuple[trio.SocketStream, Sealed]:
    with trio.fail_after(DIAL_S):
        there = await trio.open_tcp_stream(*leader)
    try:
        with trio.fail_after(WELCOME_S):
            await there.send_all(said)
            welcome = b""
            while len(welcome) < WELCOME_BYTES:
                if not (more := await there.receive_some(WELCOME_BYTES - len(welcome))):
                    raise OSError("it left")
                welcome += more
            sealed = be_welcomed(secret, said, welcome)
            await there.send_all(sealed.seal(PROOF))
    except BaseException:
        with trio.CancelScope(shield=True):
            await there.aclose()
        raise
    return there, sealed


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
