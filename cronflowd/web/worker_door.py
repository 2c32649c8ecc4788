"""Workers behind proxies: the worker port's lines over a WebSocket, one a text message, both ways.

Nothing is read into a line here. Every link is a connection of its own to the daemon's worker port, which
is told first for whom it is (`FROM address`), so that the daemon treats a worker that comes this way as one
from its own address, and asks for a token where that is another machine's. Whole lines only are passed on,
a few at a time: a side that takes nothing is cut (see bounds.py), and when one side ends so does the other.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from attrs import define
from litestar.handlers import asgi
from litestar.types import Receive, Scope, Send

from ..base.errors import Refusal
from ..host.config import WebSettings
from ..host.setting import WORKERS_PATH, format_address
from ..net.lines import MAX_LINE_BYTES, MAX_ORDER_BYTES, LineReader
from .bounds import STALLED_S
from .guard import answer, pairs
from .line import dial

log = logging.getLogger("cronflowd.web.workers")

DIAL_S = 5.0
PARTING_S = 1.0  # to answer our goodbye
READ_BYTES = 65_536

# What a WebSocket ends with, as its RFC names them.
GOING_AWAY, NO_TEXT, NO_LINE, TOO_BIG, OUR_FAULT, TRY_AGAIN = 1001, 1003, 1007, 1009, 1011, 1013


@asgi(WORKERS_PATH, copy_scope=False)
async def agents(scope: Scope, receive: Receive, send: Send) -> None:
    """The handler of `/agents/ws`."""
    settings: WebSettings = scope["litestar_app"].state.settings
    await carry(scope, receive, send, lambda: dial(settings, settings.worker_door))


End = tuple[int, str]  # the code, and why
Dial = Callable[[], Awaitable[trio.abc.Stream]]


async def carry(scope: Any, receive: Any, send: Any, dial_daemon: Dial) -> None:
    """One worker, from its handshake to its end."""
    if scope["type"] != "websocket":
        told = pairs({"content-type": "text/plain", "upgrade": "websocket", "connection": "upgrade"})
        await answer(send, 426, told, b"workers come in here, by WebSocket\n")
        return
    await receive()
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    if (page := headers.get("origin")) and page.partition("://")[2] != headers.get("host"):
        await _refuse(send, 403, "a page of another site is no worker")
        return
    address = format_address(scope["client"])
    try:
        daemon = await _reach(dial_daemon, address)
    except (OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
        log.warning("a worker at %s finds no daemon: %s", address, error)
        await _refuse(send, 503, "the daemon does not answer")
        return
    link = Link(address, receive, send, daemon, scope["state"]["cut"])
    try:
        await send({"type": "websocket.accept"})
        await link.run()
    finally:
        await trio.aclose_forcefully(daemon)
    await link.part()


async def _reach(dial_daemon: Dial, address: str) -> trio.abc.Stream:
    """The daemon's worker port, which knows who is to come."""
    with trio.fail_after(DIAL_S):
        daemon = await dial_daemon()
        try:
            await daemon.send_all(f"FROM {address}\n".encode())
        except BaseException:
            await trio.aclose_forcefully(daemon)
            raise
        return daemon


async def _refuse(send: Any, status: int, why: str) -> None:
    await answer(send, status, pairs({"content-type": "text/plain"}), f"{why}\n".encode(), "websocket")


@define
class Link:
    """A worker and its connection to the daemon."""

    address: str
    receive: Any
    send: Any
    daemon: trio.abc.Stream
    cut: Callable[[], Awaitable[None]]  # ends the worker's connection, whoever waits for it
    end: End = (GOING_AWAY, "the HTTP door ends")
    is_gone: bool = False  # the worker

    async def run(self) -> None:
        """Carries lines until one side ends; `end` says why."""
        async with trio.open_nursery() as nursery:
            for each in self._up, self._down:
                nursery.start_soon(self._until_one_ends, each, nursery.cancel_scope)

    async def _until_one_ends(self, each: Callable[[], Awaitable[End]], scope: trio.CancelScope) -> None:
        try:
            self.end = await each()
        except (trio.BrokenResourceError, OSError):
            self.end = GOING_AWAY, "the connection to the daemon broke"
        scope.cancel()

    async def _up(self) -> End:
        while True:
            message = await self.receive()
            if message["type"] == "websocket.disconnect":
                self.is_gone = True
                return GOING_AWAY, "the worker left"
            text = message.get("text")
            if text is None:
                return NO_TEXT, "lines are text"
            if "\n" in text:
                return NO_LINE, "a message is one line"
            line = text.encode() + b"\n"
            if len(line) > MAX_LINE_BYTES + 1:
                return TOO_BIG, f"a line has at most {MAX_LINE_BYTES} bytes"
            with trio.move_on_after(STALLED_S) as patience:
                await self.daemon.send_all(line)
            if patience.cancelled_caught:
                return TRY_AGAIN, f"the daemon took nothing for {STALLED_S:g} s"

    async def _down(self) -> End:
        reader = LineReader(MAX_ORDER_BYTES)
        while data := await self.daemon.receive_some(READ_BYTES):
            for line in reader.receive(bytes(data)):
                if isinstance(line, Refusal):
                    return OUR_FAULT, "the daemon said what is no line"
                await self.send({"type": "websocket.send", "text": line})
        return GOING_AWAY, "the daemon closed the connection"

    async def part(self) -> None:
        """Says goodbye, and takes what still comes: the server cannot end before somebody has."""
        code, why = self.end
        log.info("the worker at %s is let go: %s", self.address, why)
        with trio.move_on_after(PARTING_S):
            await self.send({"type": "websocket.close", "code": code, "reason": why})
            await self._drain()
        await self.cut()
        await self._drain()  # to the end: what the server has read, it waits for somebody to take

    async def _drain(self) -> None:
        while not self.is_gone:
            self.is_gone = (await self.receive())["type"] == "websocket.disconnect"
