"""The worker port's lines over a WebSocket, one a text message, for workers behind a proxy.

A stream like that of TCP: whole lines go in, and bytes come out. A message is never held as a whole:
what has come of it is passed on, and its end is the line's. Whoever reads bounds the line, as always.
"""

from __future__ import annotations

import logging
from contextlib import suppress

import trio
from wsproto import ConnectionType, WSConnection, events
from wsproto.utilities import ProtocolError

from ..base.text import escape
from ..host.setting import WebAddress

log = logging.getLogger(__name__)

READ_BYTES = 16_384  # to take messages apart, and to make them, takes thousands at once too long
LINES_A_TURN = 200
PARTING_S = 1.0  # for the word that we leave
MAX_REASON = 200  # of what a refusal says


class WebSocketStream(trio.abc.Stream):
    """One WebSocket that somebody has opened: one task sends, another receives."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._socket = WSConnection(ConnectionType.CLIENT)
        self._owed = b""  # bytes that the next send takes with it
        self._turn = trio.Lock()
        self._is_closed = False  # by the other side
        self._is_cut = False  # in the middle of a frame, whose rest would be made of whatever came next

    async def open(self, address: WebAddress) -> None:
        """Shakes hands. Raises OSError where that is refused."""
        self._put(events.Request(host=address.authority, target=address.path))
        await self._send()
        refusal = ""
        while data := bytes(await self._stream.receive_some(READ_BYTES)):
            for event in self._events(data):
                if isinstance(event, events.AcceptConnection):
                    return
                if isinstance(event, events.RejectConnection):
                    refusal = f"HTTP {event.status_code}"
                elif isinstance(event, events.RejectData):
                    said = bytes(event.data)[:MAX_REASON].decode(errors="replace").partition("\n")[0]
                    raise ConnectionError(f"{refusal} {escape(said)}".strip())
        raise ConnectionError(refusal or "no answer to the WebSocket's beginning")

    def _put(self, event: events.Event) -> None:
        try:
            self._owed += self._socket.send(event)
        except ProtocolError as error:
            raise trio.BrokenResourceError("the WebSocket is closed") from error

    def _events(self, data: bytes) -> list[events.Event]:
        try:
            self._socket.receive_data(data)
            return list(self._socket.events())
        except ProtocolError as error:
            raise trio.BrokenResourceError(f"it speaks no WebSocket: {error}") from error

    async def _send(self) -> None:
        """Sends all that is owed, also what others owe meanwhile."""
        async with self._turn:
            while self._owed:
                data, self._owed = self._owed, b""
                self._is_cut = True
                await self._stream.send_all(data)
                self._is_cut = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        lines = bytes(data).removesuffix(b"\n").split(b"\n")
        for first in range(0, len(lines), LINES_A_TURN):
            for line in lines[first : first + LINES_A_TURN]:
                self._put(events.TextMessage(line.decode()))
            await self._send()

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Some of what has come; nothing where the other side has closed."""
        text = ""
        await trio.lowlevel.checkpoint()  # also at the end, where whoever reads on would never be cancelled
        while not (text or self._is_closed) and (data := bytes(await self._stream.receive_some(READ_BYTES))):
            for event in self._events(data):
                if isinstance(event, events.TextMessage):
                    text += event.data + "\n" * event.message_finished
                elif isinstance(event, events.Ping):
                    self._put(event.response())
                elif isinstance(event, events.CloseConnection):
                    log.info("the other side closes with %d %s", event.code, escape(event.reason or ""))
                    self._is_closed = True  # what came before it is still read
            # Whoever is sending takes it along: to wait for that here would be to read nothing meanwhile.
            if self._owed and not self._turn.locked():
                await self._send()
        return text.encode()

    async def aclose(self) -> None:
        try:
            with trio.move_on_after(PARTING_S), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                if not self._is_cut:
                    self._put(events.CloseConnection(code=1000))
                    await self._send()
        finally:
            await self._stream.aclose()
