"""The process of the HTTP door: how the daemon starts its own, and who comes when all places are taken."""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
import trio

from cronflowd.host.config import WebSettings
from cronflowd.net.listeners import open_listeners
from cronflowd.web import serve
from tests.lib.waiting import PATIENCE_S, until


def test_the_daemons_own_door_reads_no_token_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """CRONFLOWD_TOKEN_FILE=<(...) is a file of the daemon's alone: the door would never begin."""
    found: list[partial[int]] = []
    monkeypatch.setattr(serve, "gc", SimpleNamespace(freeze=lambda: None, set_threshold=lambda _: None))
    monkeypatch.setattr(serve.trio, "run", lambda main: found.append(main) or 0)
    niceness = os.nice(0)
    monkeypatch.setattr(os, "nice", lambda _: niceness)
    leash, ours = os.pipe()
    try:
        os.write(ours, b"word of-all-nodes\n")
        settings = WebSettings(http=(), leash=leash, token_file=tmp_path / "none", data=tmp_path)
        assert serve.run(settings) == 0
    finally:
        os.close(leash)
        os.close(ours)
    assert found[0].args[2:] == ((b"word",), b"of-all-nodes")


def test_who_finds_no_place_reads_json_and_when_to_come_again() -> None:
    """Clients read all answers alike: of a bare text they would say that no HTTP door is there."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(serve._farewell("all 2 HTTP connections are taken"))
        answer = http.client.HTTPResponse(theirs)
        answer.begin()
        told = "all 2 HTTP connections are taken; try again later"
        assert (answer.status, answer.getheader("Retry-After"), answer.will_close) == (503, "5", True)
        assert orjson.loads(answer.read()) == {
            "success": False,
            "error": {"code": "too-many", "message": told},
        }


@asynccontextmanager
async def open_house() -> AsyncIterator[tuple[serve.House, Callable[[], Awaitable[trio.SocketStream]]]]:
    """One whose application says one letter; and who calls there."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
        await send({"type": "http.response.body", "body": b"x"})

    (listener,) = listeners = open_listeners((("127.0.0.1", 0),))
    house = serve.House(app, WebSettings())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.serve, listeners)
        yield house, partial(trio.open_tcp_stream, *listener.sock.getsockname()[:2])
        nursery.cancel_scope.cancel()


async def heard(stream: trio.SocketStream) -> bytes:
    told = b""
    with trio.fail_after(PATIENCE_S), suppress(trio.BrokenResourceError):
        async for part in stream:
            told += part
    return told


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\nConnection: close\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    ],
)
async def test_no_connection_goes_over_to_http_2(said: bytes) -> None:
    """A proxy that lets WebSockets through lets this through, and tells of nobody in it who he is."""
    async with open_house() as (_, call), await call() as stream:
        await stream.send_all(said)
        told = await heard(stream)
    # What follows PRI is no HTTP/1.1, which may be seen before there is an answer.
    assert told.partition(b"\r\n")[0] in (b"HTTP/1.1 200 ", *([b""] if said.startswith(b"PRI") else []))


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\nHo"])
@pytest.mark.parametrize("waits", [True, False])
async def test_who_has_gone_holds_no_place(said: bytes, waits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request of curl's held one for a minute: 250 in that time, and its machine was turned away."""
    monkeypatch.setattr(serve, "KEEP_ALIVE_S", 1000 * PATIENCE_S)
    async with open_house() as (house, call):
        stream = await call()
        await stream.send_all(said)
        if waits and said.endswith(b"\r\n\r\n"):
            await stream.receive_some()
        await until(lambda: house._door.open["tcp"])
        await stream.aclose()
        await until(lambda: not house._door.open["tcp"])
