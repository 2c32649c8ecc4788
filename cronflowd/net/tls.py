"""TLS on an accepted socket: the same Connection, whose bytes are opened and sealed on the way.

The library works on two buffers in memory, so nothing here waits but the handshake. What is sent is
sealed a record at a time, and a record counts as sent when all of it has left: until then nobody can
open any of it, and the outbox offers it again, as it does whatever a socket did not take. So what
counts as not sent was read by nobody, whenever the connection breaks.
"""

from __future__ import annotations

import logging
import ssl
from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress

import trio

from .listeners import RECEIVE_BYTES, Connection

HANDSHAKE_S = 10.0
MAX_READS = 4  # of the socket in one look, before others have their turn
RECORD_BYTES = 16_384  # the most that TLS seals as one
MAX_UNASKED_BYTES = 65_536  # that the library itself wants to say, to a peer that does not read

log = logging.getLogger(__name__)


async def greet(connection: Connection, context: ssl.SSLContext) -> Connection | None:
    """Shakes hands on a connection that was accepted; None, and one line in the log, where that fails."""
    sealed = TlsConnection(connection, context)
    if why := await sealed.shake_hands():
        log.warning(
            "closed a connection of %s that does not speak TLS as it should: %s", connection.peer, why
        )
        return None
    return sealed


class SealedConnection(Connection):
    """A connection whose bytes are sealed: its way out."""

    def __init__(self, plain: Connection) -> None:
        super().__init__(plain._sock)
        self.kind, self.peer = plain.kind, plain.peer  # it may have left since
        self._outgoing = ssl.MemoryBIO()  # sealed, and still to be sent
        self._sealed = 0  # bytes of the record that has not left to its end
        self._left: bytes | memoryview = b""  # of what was sealed, what the socket did not take

    @abstractmethod
    def _seal(self, data: memoryview) -> int:
        """Puts a record of what is given to what goes out; how much of it."""

    @abstractmethod
    def _seal_end(self) -> None:
        """Puts our end there."""

    def _flush(self) -> bool:
        """Gives the socket what was sealed; whether all of it has left."""
        while True:
            self._left = self._left or self._outgoing.read()
            if not self._left:
                return True
            sent = super().send_now(self._left)
            if not sent:
                return False
            self._left = memoryview(self._left)[sent:]

    def send_now(self, data: bytes | memoryview) -> int:
        view, sent = memoryview(data), 0
        try:
            while self._flush():
                sent += self._sealed
                self._sealed = 0
                if sent == len(view):
                    break
                self._sealed = self._seal(view[sent : sent + RECORD_BYTES])
        except OSError:
            if not sent:  # else the next call finds it out, too
                raise
        return sent

    def last_words(self, data: bytes) -> bytes:
        self._seal(memoryview(data))
        self._seal_end()
        return bytes(self._left) + self._outgoing.read()

    def shutdown(self) -> None:
        """Says our end sealed, and then the socket's: the peer knows that nothing was cut off."""
        with suppress(OSError):  # it may have left for good already
            self._seal_end()
            self._flush()
        super().shutdown()


class TlsConnection(SealedConnection):
    """One that speaks TLS."""

    def __init__(self, plain: Connection, context: ssl.SSLContext) -> None:
        super().__init__(plain)
        self._incoming = ssl.MemoryBIO()
        self._sealer = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._peeked = b""  # was opened, and is still to be read
        self._has_ended = False  # nothing more will come, or the way is broken; the next look tells of it
        self._ready: Callable[[], None] = lambda: None  # called where the socket has nothing to tell

    async def shake_hands(self) -> str | None:
        """None when both sides are sure of each other; else why they are not. Waits no longer than it may."""
        with trio.move_on_after(HANDSHAKE_S):
            try:
                while not self._has_shaken():
                    await self._let_out()
                    await trio.lowlevel.wait_readable(self._sock)
                    data = super().receive_now()
                    if data == b"":
                        return "it left before the handshake was done"
                    self._incoming.write(data or b"")
                await self._let_out()
            except OSError as error:
                with suppress(OSError):
                    self._flush()  # the alert that says so
                return _reason(error)
            return None
        return f"no handshake within {HANDSHAKE_S:g} s"

    def _has_shaken(self) -> bool:
        try:
            self._sealer.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    async def _let_out(self) -> None:
        while not self._flush():
            await self.wait_writable()

    def _seal(self, data: memoryview) -> int:
        return self._sealer.write(data)

    def _seal_end(self) -> None:
        with suppress(ssl.SSLError):  # the peer's own end is still to come, or never will
            self._sealer.unwrap()

    # --- what a Connection does ---

    def watch(self, ready: Callable[[], None]) -> None:
        super().watch(ready)
        self._ready = ready
        if self._is_readable:
            trio.lowlevel.current_trio_token().run_sync_soon(ready)

    def close(self) -> None:
        super().close()
        self._ready = lambda: None  # which knows us: a circle would stay

    @property
    def _is_readable(self) -> bool:
        """Whether there is what the socket does not tell of: what came with the handshake, or an end."""
        return self._has_ended or self._incoming.pending > 0 or bool(self._peeked)

    @property
    def has_ended(self) -> bool:
        return self._has_ended

    async def peek(self) -> bytes:
        before, self._peeked = self._peeked, b""
        more = self.receive_now() if before else await self.receive_some()
        self._peeked = before + (more or b"")
        return self._peeked

    def receive_now(self) -> bytes | None:
        """What can be opened of what has arrived; None if nothing can, empty at the end."""
        if self._peeked:
            data, self._peeked = self._peeked, b""
            return data
        pieces: list[bytes] = []
        try:
            self._has_ended = self._open(pieces)
            self._flush()
        except OSError as error:
            if not pieces:  # else that goes first, as from a socket
                raise ConnectionResetError(_reason(error)) from error
            self._has_ended = True
        if self._outgoing.pending > MAX_UNASKED_BYTES:
            raise ConnectionResetError("it asks, and does not read the answers")
        if pieces and self._has_ended:
            trio.lowlevel.current_trio_token().run_sync_soon(self._ready)
        return b"".join(pieces) if pieces or self._has_ended else None

    def _open(self, pieces: list[bytes]) -> bool:
        """Adds what can be opened to the pieces; whether nothing will come any more."""
        reads = 0
        while True:
            try:
                piece = self._sealer.read(RECEIVE_BYTES)
            except ssl.SSLWantReadError:
                # Not while anything that has come could be opened: the socket would not tell of it.
                data = super().receive_now() if reads < MAX_READS else None
                reads += 1
                if not data:
                    # Many end without a word in TLS, and still want their answer; the library, if it knew,
                    # would seal nothing more. Somebody else may have cut them off as well, but then in the
                    # middle of a line, at worst, and by such a one nothing is changed.
                    return data is not None
                self._incoming.write(data)
            except ssl.SSLZeroReturnError:
                return True
            else:
                if not piece:
                    return True
                pieces.append(piece)

    async def receive_some(self) -> bytes:
        """The next bytes, or none at the end of input. Raises OSError when the connection is broken."""
        while True:
            if self._is_readable:
                await trio.lowlevel.checkpoint()
            else:
                await trio.lowlevel.wait_readable(self._sock)
            data = self.receive_now()
            if data is not None:
                return data


def _reason(error: OSError) -> str:
    reason = getattr(error, "reason", None) or error.strerror or error
    return str(reason).lower().replace("_", " ")
