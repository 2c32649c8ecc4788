"""A standby's doors: what comes in there is carried to whoever leads, byte for byte, and back.

The standby reads nothing of it but the first bytes, to know whether they are meant for itself
(LOCAL). Each end of input is carried on as such, so that a netcat comes back to its prompt as it does
at the leader's own door. Who is at the other end is said in one line before all that, sealed with a
secret of the cluster's and good for one connection: a unix socket here counts as one there. What a
node has to ask for itself begins alike (peers.py).
"""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from secrets import token_hex
from typing import Literal

import trio

from ..host.clock import wall_now
from ..host.setting import Address
from ..net.listeners import Connection, Kind

DIAL_S = 1.0
LINGER_S = 12.0  # after the leader's end; it reads on for 10 s itself
MAX_INTRODUCTION_BYTES = 512
INTRODUCED_WITHIN_S = 0.5  # whoever relays speaks at once
VALID_S = 30.0  # so far two nodes' clocks may be apart
READ_BYTES = 65_536
_INTRODUCTION = re.compile(rb"RELAY (tcp|unix|node) (\S+) (\d+)\.[0-9a-f]{16} ([0-9a-f]{64})\n")

log = logging.getLogger(__name__)


class Unreached(Exception):
    """The leader cannot be dialled."""


def introduce(secret: bytes, kind: Kind | Literal["node"], peer: str) -> bytes:
    """The line before all else: for whom we speak."""
    text = f"RELAY {kind} {peer} {int(wall_now().timestamp())}.{token_hex(8)}"
    return f"{text} {hmac.new(secret, text.encode(), sha256).hexdigest()}\n".encode()


Greet = Callable[[Connection], Awaitable[Connection | None]]
Serve = Callable[[Connection, bytes, bytes], Awaitable[None]]


async def meet(
    connection: Connection,
    secret: bytes,
    greet: Greet | None,
    taken: dict[bytes, float],
    serve: Serve | None = None,
) -> Connection | None:
    """Takes an introduction, if there is one, and greets then; None where it is forged, or in `taken`.

    A node that speaks for itself is served here.
    """
    said = await _believe(connection, secret, taken)
    if said is None or said.startswith(b"RELAY node "):
        if said and serve:
            await serve(connection, secret, said)
        return None
    return await greet(connection) if greet and connection.kind == "tcp" else connection


async def _believe(connection: Connection, secret: bytes, taken: dict[bytes, float]) -> bytes | None:
    """The introduction; None where somebody claims to be a node. Nothing else is read."""
    begun, wanted = b"", b"RELAY "
    with trio.move_on_after(INTRODUCED_WITHIN_S):
        while len(begun) < MAX_INTRODUCTION_BYTES and b"\n" not in begun:
            before, begun = begun, await connection.peek()
            if not begun or begun[: len(wanted)] != wanted[: len(begun)]:
                return b""  # somebody else, who speaks for himself
            if begun == before:
                await trio.sleep(0.005)  # the rest of the line is under way
    match = _INTRODUCTION.match(begun)
    if match is None:
        return None if begun.startswith(wanted) else b""
    text = match[0].rpartition(b" ")[0]
    now_s = wall_now().timestamp()
    # It travels in plain text: whoever has heard one must not come in with it, too.
    fresh = abs(int(match[3]) - now_s) <= VALID_S and match[4] not in taken
    if not fresh or not hmac.compare_digest(hmac.new(secret, text, sha256).hexdigest().encode(), match[4]):
        log.warning("closed a connection of %s that claims to come from another node", connection.peer)
        return None
    taken[match[4]] = now_s
    while taken[oldest := next(iter(taken))] < now_s - 2 * VALID_S:
        del taken[oldest]
    connection.drop(len(match[0]))
    connection.kind = "unix" if match[1] == b"unix" else "tcp"
    connection.peer = match[2].decode()
    return match[0]


async def relay(
    connection: Connection, leader: Address, introduction: bytes, is_ours: Callable[[], Awaitable[bool]]
) -> bool:
    """Carries both ways until both ends are said; False where what comes first is meant for us.

    The leader is dialled at once, since it is the one that looks how fast somebody speaks. Raises
    Unreached before anything was read.
    """
    try:
        with trio.fail_after(DIAL_S):
            there = await trio.open_tcp_stream(*leader)
            await there.send_all(introduction)
    except (OSError, trio.TooSlowError, trio.BrokenResourceError) as error:
        raise Unreached(str(error)) from error
    async with there, trio.open_nursery() as nursery:
        nursery.start_soon(_carry_out, there, connection, nursery.cancel_scope)
        with suppress(OSError):
            if await is_ours():
                nursery.cancel_scope.cancel()
                return False
        nursery.start_soon(_carry_in, connection, there, nursery.cancel_scope)
    return True


async def ask_clock(leader: Address, introduction: bytes) -> float | None:
    """By how much our clock is ahead of the leader's; None where it does not tell."""
    answer = b""
    with suppress(OSError, trio.BrokenResourceError, ValueError), trio.move_on_after(DIAL_S):
        async with await trio.open_tcp_stream(*leader) as there:
            sent_at = wall_now()
            await there.send_all(introduction + b"CLOCK\nQUIT\n")
            while b"\n" not in answer and (data := await there.receive_some(READ_BYTES)):
                answer += data
        ours_at = sent_at + (wall_now() - sent_at) / 2
        if answer.startswith(b"now\t"):
            theirs_at = datetime.fromisoformat(answer.split(b"\n")[0].removeprefix(b"now\t").decode())
            return round((ours_at - theirs_at).total_seconds(), 3)
    return None


async def _carry_in(connection: Connection, there: trio.SocketStream, scope: trio.CancelScope) -> None:
    try:
        while data := await connection.receive_some():
            await there.send_all(data)
        await there.send_eof()
    except (OSError, trio.BrokenResourceError):
        scope.cancel()


async def _carry_out(there: trio.SocketStream, connection: Connection, scope: trio.CancelScope) -> None:
    try:
        while data := await there.receive_some(READ_BYTES):
            view = memoryview(data)
            while view:
                if not (sent := connection.send_now(view)):
                    await connection.wait_writable()
                view = view[sent:]
        connection.shutdown()
        scope.deadline = trio.current_time() + LINGER_S
    except (OSError, trio.BrokenResourceError):
        # The leader was cut off in the middle: what was read must not look complete.
        with suppress(OSError):
            connection.abort()
        scope.cancel()
