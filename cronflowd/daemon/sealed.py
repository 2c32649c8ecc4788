"""How nodes speak to each other: each connection is sealed with a key that it alone has.

A node dials the leader and says in one line for whom it speaks: for somebody who came in at its own
door, or for itself.

    RELAY tcp|unix|worker|node <who> <random> <HMAC of all before, with the cluster's secret>

The leader answers with random bytes of its own. From there on both send frames, sealed with a key that
is made of the secret and of what both have said; the first one of each shows that it has the secret.
So whoever listens reads that line and no more, and who says it again, to this node or to another, gets
no further. An empty frame is the end: what ends without one was cut off.
"""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from hashlib import sha256
from secrets import token_bytes, token_hex
from typing import Literal

import trio

from ..host import threads
from ..host.setting import Address
from ..journal.apart import MAX_PIECE_BYTES
from ..net.listeners import Connection
from ..net.tls import SealedConnection

Who = Literal["tcp", "unix", "worker", "node"]

CHALLENGE_BYTES, LENGTH_BYTES, TAG_BYTES = 16, 4, 16
PROOF = b"ready"
PROOF_BYTES = LENGTH_BYTES + len(PROOF) + TAG_BYTES
WELCOME_BYTES = CHALLENGE_BYTES + PROOF_BYTES
MAX_FRAME_BYTES = MAX_PIECE_BYTES + 1024
MAX_INTRODUCTION_BYTES = 512
INTRODUCED_WITHIN_S = 0.5  # whoever relays speaks at once
LOOK_AGAIN_S = 0.005, 0.25  # whether more has come: at first, and in the end
READ_BYTES = 65_536
DIAL_S, WELCOME_S = 1.0, 5.0  # one that is frozen is dialled all the same
_INTRODUCTION = re.compile(rb"RELAY (tcp|unix|worker|node) (\S+) [0-9a-f]{32} ([0-9a-f]{64})\n")

log = logging.getLogger("cronflowd.cluster")


class Sealed:
    """One side of a connection between nodes: each frame is read once, in order, by the other side alone."""

    def __init__(self, secret: bytes, said: bytes, challenge: bytes, *, is_asking: bool) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # some MiB that a single daemon saves

        self._cipher = AESGCM(hmac.new(secret, said + challenge, sha256).digest())
        self._ours, self._theirs = (b"?", b"!") if is_asking else (b"!", b"?")
        self._sent = self._read = 0
        self._received = bytearray()

    def seal(self, data: bytes | memoryview) -> bytes:
        self._sent += 1
        sealed: bytes = self._cipher.encrypt(self._ours + self._sent.to_bytes(11, "big"), data, None)
        return len(sealed).to_bytes(LENGTH_BYTES, "big") + sealed

    def feed(self, data: bytes) -> list[bytes]:
        """What the frames hold that are whole now. Raises OSError for what the other side did not seal."""
        received, found = self._received, list[bytes]()
        received += data
        while len(received) >= LENGTH_BYTES:
            length = int.from_bytes(received[:LENGTH_BYTES], "big")
            if not TAG_BYTES <= length <= MAX_FRAME_BYTES:
                raise OSError("it does not speak as a node does")
            if len(received) < (end := LENGTH_BYTES + length):
                break
            found.append(self._open(bytes(received[LENGTH_BYTES:end])))
            del received[:end]
        return found

    def _open(self, sealed: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag

        self._read += 1
        try:
            opened: bytes = self._cipher.decrypt(self._theirs + self._read.to_bytes(11, "big"), sealed, None)
        except InvalidTag as error:
            raise OSError("it does not speak as a node of this cluster") from error
        return opened

    def check(self, proof: bytes) -> None:
        """Raises OSError where that is not the other side's first frame."""
        if self.feed(proof) != [PROOF]:
            raise OSError("it does not speak as a node does")


def introduce(secret: bytes, kind: Who, who: str) -> bytes:
    """The line before all else: for whom we speak."""
    text = f"RELAY {kind} {who} {token_hex(16)}"
    return f"{text} {_sign(secret, text.encode())}\n".encode()


def _sign(secret: bytes, text: bytes) -> str:
    return hmac.new(secret, text, sha256).hexdigest()


def be_welcomed(secret: bytes, said: bytes, welcome: bytes) -> Sealed:
    """Whoever asks and was answered so; its PROOF is still to be sent. Raises OSError: that is no leader."""
    sealed = Sealed(secret, said, welcome[:CHALLENGE_BYTES], is_asking=True)
    sealed.check(welcome[CHALLENGE_BYTES:])
    return sealed


async def dial(leader: Address, secret: bytes, kind: Who, who: str) -> tuple[trio.SocketStream, Sealed]:
    """A connection to the leader, for somebody. Raises OSError, TooSlowError and BrokenResourceError."""
    said = introduce(secret, kind, who)
    with trio.fail_after(DIAL_S), threads.wanted():  # for a host's name
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


# --- who answers ----------------------------------------------------------------------------------

Greet = Callable[[Connection], Awaitable[Connection | None]]
Serve = Callable[[Connection, Sealed], Awaitable[None]]


class NodeConnection(SealedConnection):
    """One that another node carries here: it is whose that node says."""

    is_carried = True

    def __init__(self, plain: Connection, sealed: Sealed) -> None:
        super().__init__(plain)
        self._sealer = sealed
        self._has_ended = False

    def receive_now(self) -> bytes | None:
        """What can be opened of what has arrived; None if nothing can, empty at the end."""
        data = super().receive_now()
        if data is None or self._has_ended:
            return data and b""
        if not data:
            raise ConnectionResetError("it was cut off")
        frames = self._sealer.feed(data)
        self._has_ended = b"" in frames  # the socket's own end follows, and is told of behind these
        return b"".join(frames) if frames else None

    def _seal(self, data: memoryview) -> int:
        self._outgoing.write(self._sealer.seal(data))
        return len(data)

    def _seal_end(self) -> None:
        self._outgoing.write(self._sealer.seal(b""))


async def meet(
    connection: Connection, secret: bytes, greet: Greet | None, serve: Serve | None = None
) -> Connection | None:
    """Takes an introduction, if there is one, and else greets; None where it is forged.

    A node that speaks for itself is served here. Without `serve` this is the workers' door.
    """
    said = await _first_line(connection)
    if said is None:
        return await greet(connection) if greet and connection.kind == "tcp" else connection
    match = _INTRODUCTION.fullmatch(said)
    sealed = match and await _welcome(connection, secret, said, match)
    if not match or not sealed or (match[1] == b"worker") != (serve is None):
        log.warning("closed a connection of %s that claims to come from another node", connection.peer)
        return None
    connection.kind, connection.peer = "tcp" if match[1] == b"tcp" else "unix", match[2].decode()
    if serve and match[1] == b"node":
        await serve(connection, sealed)
        return None
    return NodeConnection(connection, sealed)


async def _first_line(connection: Connection) -> bytes | None:
    """What somebody says who claims to be a node; None of anybody else, of whom nothing is read."""
    wanted = b"RELAY "

    def is_told(begun: bytes) -> bool:
        is_other = begun[: len(wanted)] != wanted[: len(begun)]
        return is_other or b"\n" in begun or len(begun) >= MAX_INTRODUCTION_BYTES

    with trio.move_on_after(INTRODUCED_WITHIN_S), suppress(OSError):  # who has broken it off is nobody's node
        begun = await begin_of(connection, is_told)
        if begun.startswith(wanted):
            line = begun[: begun.find(b"\n") + 1]
            connection.drop(len(line))
            return line
    return None


async def _welcome(
    connection: Connection, secret: bytes, said: bytes, match: re.Match[bytes]
) -> Sealed | None:
    """Has whoever said that show that he has the secret, and shows it; None where he has not."""
    if not hmac.compare_digest(_sign(secret, said.rpartition(b" ")[0]).encode(), match[3]):
        return None
    challenge = token_bytes(CHALLENGE_BYTES)
    sealed = Sealed(secret, said, challenge, is_asking=False)
    with trio.move_on_after(WELCOME_S), suppress(OSError):
        await send(connection, challenge + sealed.seal(PROOF))
        proof = await begin_of(connection, lambda begun: len(begun) >= PROOF_BYTES)
        connection.drop(len(proof[:PROOF_BYTES]))
        sealed.check(proof[:PROOF_BYTES])
        return sealed
    return None


async def begin_of(connection: Connection, is_enough: Callable[[bytes], bool]) -> bytes:
    """What comes first, as soon as that is enough, or nothing will come; it stays to be read."""
    begun, pause_s = b"", LOOK_AGAIN_S[0]
    while True:
        is_all = connection.has_ended
        before, begun = begun, await connection.peek()
        if not begun or is_all or is_enough(begun):
            return begun
        if begun == before:  # the rest is under way, or a person types; or a thousand hold such a beginning
            await trio.sleep(pause_s)
            pause_s = min(2 * pause_s, LOOK_AGAIN_S[1])


async def send(connection: Connection, data: bytes) -> None:
    view = memoryview(data)
    while view:
        if not (sent := connection.send_now(view)):
            await connection.wait_writable()
        view = view[sent:]
