"""Hypercorn within bounds where it has none: whoever takes nothing is cut, what is too long is not kept.

It speaks HTTP/1.1 alone. In HTTP/2 one connection is a hundred places; and a proxy that passes `Upgrade: h2c`
on, as those before WebSockets do, sees nothing of what follows, and tells of none of it for whom it asks.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from typing import Any

import trio
from h11 import Request
from hypercorn import protocol
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol import ws_stream
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.tcp_server import TCPServer
from wsproto.connection import Connection
from wsproto.events import CloseConnection, Message
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import CloseReason

from .guard import Limits

STALLED_S = 20.0  # whoever does not take a piece within this is cut
PIECE_BYTES = 65_536
# Of one WebSocket: pings, and pieces of a message that hold next to nothing.
IDLE_FRAMES, IDLE_FRAMES_A_SECOND, SHORT = 200, 20, 64


class Server(TCPServer):
    """One connection. Theirs sends behind a shield, for ever: neither its application nor we could end."""

    _is_over = False  # nothing more comes

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, Updated) and self._is_over:
            return
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        async with self.send_lock:
            try:
                for start in range(0, len(event.data), PIECE_BYTES):
                    # Not cancelled amid a piece, whose rest would be made of whatever came next.
                    with trio.fail_after(STALLED_S, shield=True):
                        await self.stream.send_all(event.data[start : start + PIECE_BYTES])
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
                await trio.aclose_forcefully(self.stream)
                await self.protocol.handle(Closed())

    async def _read_data(self) -> None:
        await super()._read_data()
        # Theirs keeps what has ended as long as what is silent: who came and went held a place for a minute.
        self._is_over = True
        await self.idle_task.stop()

    async def _close(self) -> None:
        with trio.move_on_after(STALLED_S):  # TLS has a last word, which somebody would have to take
            await super()._close()


class _OnlyHttp11(H11Protocol):
    async def _check_protocol(self, event: Request) -> None:
        """Theirs goes over to HTTP/2 for whoever wants that; nobody has to follow such a wish."""


class _Buffer(ws_stream.WebsocketBuffer):
    """Keeps of a message what shows that it is too long, and no more, for the application to refuse it.

    Theirs keeps all that comes, and when it refuses, nobody is told.
    """

    def extend(self, event: Any) -> None:
        if self.length <= self.max_length:
            with suppress(ws_stream.FrameTooLargeError):
                super().extend(event)


class _Frames(Connection):
    """Ends by frames that hold nothing: thousands come at once, and nobody has a turn amid them."""

    _free = 0

    def __init__(self, *told: Any) -> None:
        super().__init__(*told)
        self._idle = Limits(IDLE_FRAMES_A_SECOND, IDLE_FRAMES)

    def receive_data(self, data: bytes | None) -> None:
        self._free = 2  # the rest of a frame, and a beginning: such a piece may be cut anywhere
        super().receive_data(data)

    def events(self) -> Generator[Any]:
        for event in super().events():
            holds = isinstance(event, Message) and (event.message_finished or len(event.data) >= SHORT)
            self._free -= not holds
            if not holds and self._free < 0 and self._idle.take(""):
                yield CloseConnection(code=CloseReason.POLICY_VIOLATION)
                return
            yield event


class _NoDeflate(PerMessageDeflate):
    """No compression: 64 KiB that come would be 64 MiB before anybody counts them."""

    def accept(self, offer: str) -> bool | str | None:
        return None


def bind_hypercorn() -> None:
    """For this whole process, since there is no setting for any of it."""
    protocol.H11Protocol = _OnlyHttp11  # type: ignore[attr-defined]
    ws_stream.WebsocketBuffer = _Buffer  # type: ignore[misc]
    ws_stream.PerMessageDeflate = _NoDeflate  # type: ignore[attr-defined]
    ws_stream.Connection = _Frames  # type: ignore[attr-defined,assignment]
