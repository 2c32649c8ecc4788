"""What every request passes: names, lengths, headers."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from cronflowd.web.guard import MAX_BODY_BYTES, Guard


async def answered(
    host: str, body: bytes = b"", length: int | None = None, kind: str = "http", is_tls: bool = False
) -> list[dict[str, Any]]:
    """What leaves for one request whose application reads the body whole, and says how long it was."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        size, more = 0, True
        while more and kind == "http":
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"referrer-policy", b"x")]})
        await send({"type": "http.response.body", "body": b"%d" % size})

    guard = Guard(app, ["cron.example.net"], ["192.0.2.1"], is_tls)
    sent: list[dict[str, Any]] = []
    pieces = [body[start : start + 65_536] for start in range(0, len(body), 65_536)] or [b""]

    async def receive() -> Any:
        await trio.lowlevel.checkpoint()
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    async def send(message: Any) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(message)

    headers = [(b"host", host.encode())]
    headers += [(b"content-length", str(length).encode())] if length is not None else []
    await guard({"type": kind, "headers": headers}, receive, send)  # type: ignore[arg-type]
    return sent


def header(sent: list[dict[str, Any]], name: bytes) -> bytes | None:
    return dict(sent[0]["headers"]).get(name)


@pytest.mark.parametrize(
    "host",
    ["localhost:3000", "127.0.0.1:3000", "[::1]:3000", "192.0.2.1", "198.51.100.7:80", "CRON.example.net"],
)
async def test_our_own_names_and_addresses_are_let_in(host: str) -> None:
    """No name server can make an address mean somebody else."""
    assert [each.get("status") for each in await answered(host)] == [200, None]


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "", "a b", "127.0.0.1.evil.example"]
)
async def test_a_name_that_is_none_of_ours_is_refused(host: str) -> None:
    """A page of another site can have its own name point at this machine; a browser would let it read us."""
    sent = await answered(host)
    assert sent[0]["status"] == 421
    assert b"--http-name" in sent[1]["body"]


async def test_a_web_socket_by_another_name_is_closed() -> None:
    """It could speak as a worker."""
    (sent,) = await answered("evil.example", kind="websocket")
    assert (sent["type"], sent["code"]) == ("websocket.close", 1008)


async def test_a_body_may_be_just_so_long() -> None:
    """Not a byte less than what is promised."""
    sent = await answered("localhost", b"x" * MAX_BODY_BYTES, MAX_BODY_BYTES)
    assert (sent[0]["status"], sent[1]["body"]) == (200, b"%d" % MAX_BODY_BYTES)


@pytest.mark.parametrize("length", [None, MAX_BODY_BYTES + 1])
async def test_a_longer_body_is_refused_as_it_comes(length: int | None) -> None:
    """Also one that does not say how long it is."""
    sent = await answered("localhost", b"x" * (MAX_BODY_BYTES + 1), length)
    assert [sent[0]["status"], len(sent)] == [413, 2]
    assert b'"too-long"' in sent[1]["body"]


async def test_headers_forbid_what_no_page_of_ours_needs() -> None:
    """A handler's own go before; HSTS only where it can be kept."""
    plain, sealed = await answered("localhost"), await answered("localhost", is_tls=True)
    policy = header(plain, b"content-security-policy") or b""
    assert b"unsafe" not in policy
    assert b"frame-ancestors 'none'" in policy
    assert header(plain, b"referrer-policy") == b"x"
    assert header(plain, b"strict-transport-security") is None
    assert header(sealed, b"strict-transport-security")
