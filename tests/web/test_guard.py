"""What every request passes: names, lengths, headers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from cronflowd.host.config import WebSettings
from cronflowd.web.guard import MAX_BODY_BYTES, MAX_KNOWN, NOBODY, Guard, Limits, client_of


async def answered(
    host: str,
    body: bytes = b"",
    length: int | None = None,
    kind: str = "http",
    method: str = "GET",
    said: dict[str, str] | None = None,
    **told: Any,
) -> list[dict[str, Any]]:
    """What leaves for one request whose application reads the body whole, and says how long it was."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        size, more = 0, True
        while more and kind == "http":
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"referrer-policy", b"x")]})
        await send({"type": "http.response.body", "body": b"%d" % size})

    guard = Guard(app, WebSettings(http_name=("cron.example.net",), **told), ["192.0.2.1"])
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
    headers += [(name.encode(), value.encode()) for name, value in (said or {}).items()]
    scope: Any = {"type": kind, "method": method, "headers": headers, "client": ("198.51.100.7", 9)}
    await guard(scope, receive, send)  # type: ignore[arg-type]
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


async def test_a_web_socket_by_another_name_is_refused() -> None:
    """It could speak as a worker. And a worker's log tells the status, which was 403 whatever was wrong."""
    start, body = await answered("evil.example", kind="websocket")
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 421)
    assert body["type"] == "websocket.http.response.body" and b"--http-name" in body["body"]


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


@pytest.mark.parametrize(
    ("kind", "fields", "status"),
    [
        ("application/x-www-form-urlencoded", 1000, 200),
        ("application/x-www-form-urlencoded", 1002, 413),
        ("Application/X-WWW-Form-Urlencoded; charset=utf-8", 400_000, 413),
        ("application/json", 400_000, 200),
    ],
)
async def test_a_form_of_very_many_fields_is_not_read(kind: str, fields: int, status: int) -> None:
    """Each costs far more than its bytes: two such forms kept everybody else waiting for a second."""
    sent = await answered("localhost", b"&".join([b"a"] * fields), method="POST", said={"content-type": kind})
    assert sent[0]["status"] == status


async def test_headers_forbid_what_no_page_of_ours_needs() -> None:
    """A handler's own go before; HSTS only where it can be kept."""
    plain, sealed = await answered("localhost"), await answered("localhost", tls_cert=Path("x"))
    policy = header(plain, b"content-security-policy") or b""
    assert b"unsafe" not in policy
    assert b"frame-ancestors 'none'" in policy
    assert header(plain, b"referrer-policy") == b"x"
    assert header(plain, b"cache-control") == b"no-store"
    assert header(plain, b"strict-transport-security") is None
    assert header(sealed, b"strict-transport-security")


# --- pages of other sites -----------------------------------------------------------------------

OURS = "http://localhost:3000"


@pytest.mark.parametrize(
    "said",
    [
        {"origin": "http://evil.example"}, {"origin": "http://localhost:5173"}, {"origin": "http://192.0.2.1"},
        {"origin": "http://evil.example/localhost:3000"}, {"origin": "null", "sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"origin": "http://x@localhost:3000"},
        {"origin": "https://cron.example.net.evil.example"}, {"origin": "https://front.example.net:8443"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "websocket"])
async def test_a_page_of_another_site_orders_nothing(method: str, said: dict[str, str]) -> None:
    """The browser would send what it knows of us along, and reach what this machine alone can."""
    kind = "websocket" if method == "websocket" else "http"
    sent = await answered("localhost:3000", kind=kind, method=method, said=said)
    assert sent[0]["status"] == 403
    assert header(sent, b"access-control-allow-origin") is None if kind == "http" else True


@pytest.mark.parametrize(
    "said",
    [
        {}, {"origin": OURS}, {"origin": "null"}, {"origin": "null", "sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"}, {"origin": "https://cron.example.net"}, {"origin": "https://a.example"},
        {"origin": "https://Front.example.net", "sec-fetch-site": "cross-site"},
    ],
)  # fmt: skip
async def test_our_own_pages_and_programs_order(said: dict[str, str]) -> None:
    """Behind a proxy too, which may say its own idea of Host."""
    told = {"http_url": "https://A.example:443/cron", "cors_origin": ("https://front.example.net",)}
    sent = await answered("localhost:3000", method="POST", said=said, **told)
    assert sent[0]["status"] == 200


async def test_looking_needs_no_origin_and_gives_none_away() -> None:
    """Without the header that lets it, no page of another site reads the answer."""
    sent = await answered("localhost", said={"origin": "http://evil.example", "sec-fetch-site": "cross-site"})
    assert (sent[0]["status"], header(sent, b"access-control-allow-origin")) == (200, None)


async def test_an_origin_that_was_named_reads_and_orders_without_cookies() -> None:
    """Its pages show a token; what the browser remembers of a person stays out."""
    told = {"cors_origin": ("https://front.example.net",)}
    said = {"origin": "https://front.example.net"}
    asked = said | {"access-control-request-method": "PUT", "access-control-request-headers": "if-match"}
    before = await answered("localhost", method="OPTIONS", said=asked, **told)
    after = await answered("localhost", method="PUT", said=said, **told)
    assert (before[0]["status"], after[0]["status"]) == (204, 200)
    for sent in before, after:
        assert header(sent, b"access-control-allow-origin") == b"https://front.example.net"
        assert header(sent, b"vary") == b"Origin"
        assert header(sent, b"access-control-allow-credentials") is None
    assert b"If-Match" in (header(before, b"access-control-allow-headers") or b"")
    assert b"ETag" in (header(after, b"access-control-expose-headers") or b"")
    refused = await answered("localhost", method="OPTIONS", said=asked)
    assert header(refused, b"access-control-allow-origin") is None


# --- limits -------------------------------------------------------------------------------------


async def test_an_address_asks_so_often_and_no_other_waits_for_it(autojump_clock: object) -> None:
    """A page that asks in a loop must not take what others need; and it is told when to come again."""
    statuses: list[int] = []
    waits: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])
            waits.extend(value for name, value in message["headers"] if name == b"retry-after")

    guard: Any = Guard(app, WebSettings(max_requests=2), [])
    scope = {"type": "http", "method": "GET", "headers": [(b"host", b"localhost")]}
    for address in ("192.0.2.7",) * 5 + ("192.0.2.8", "2001:db8::1") + ("2001:db8::2",) * 4:
        await guard(scope | {"client": (address, 1)}, None, send)
    assert statuses == [200] * 4 + [429] + [200, 200] + [200] * 3 + [429]
    assert waits == [b"1", b"1"]
    await trio.sleep(1)
    for _ in range(3):
        await guard(scope | {"client": ("192.0.2.7", 1)}, None, send)
    assert statuses[-3:] == [200, 200, 429]


async def test_what_is_remembered_of_those_who_ask_is_bounded(autojump_clock: object) -> None:
    """There are more addresses than memory."""
    buckets = Limits(1, 1)
    for number in range(MAX_KNOWN + 100):
        assert buckets.take(str(number)) == 0
    assert len(buckets._left) == MAX_KNOWN
    assert buckets.take(str(number)) == 1


@pytest.mark.parametrize(
    ("client", "forwarded", "expected"),
    [
        (("192.0.2.7", 40_000), "", ("192.0.2.7", 40_000)),
        (("127.0.0.1", 40_000), "198.51.100.1, 192.0.2.7", ("192.0.2.7", 0)),
        (("::1", 40_000), "2001:db8::1", ("2001:db8::1", 0)),
        (("::1", 40_000), "[2001:db8::1]", ("2001:db8::1", 0)),
        (("::1", 40_000), "fe80::1%x root", ("fe80::1", 0)),  # AS would have taken that for an account
        (("192.0.2.7", 40_000), "127.0.0.1", ("192.0.2.7", 40_000)),
        (("127.0.0.1", 40_000), "", ("127.0.0.1", 40_000)),
        (("127.0.0.1", 40_000), "192.0.2.7\n198.51.100.1", ("198.51.100.1", 0)),
        (("127.0.0.1", 40_000), "fe80::1%x admin", ("fe80::1", 0)),
        (("127.0.0.1", 40_000), "unknown", NOBODY),
        (("127.0.0.1", 40_000), "192.0.2.7, ", NOBODY),  # and nobody of this machine
        (None, "", NOBODY),
    ],
)
def test_a_proxy_of_this_machine_says_for_whom_it_asks(
    client: tuple[str, int] | None, forwarded: str, expected: tuple[str, int]
) -> None:
    """The last word of it, or of its last line, is the proxy's own; anybody else's says nothing but lies.

    Else one who guesses passwords through the proxy would make everybody behind it wait.
    """
    headers = [(b"x-forwarded-for", line.encode()) for line in forwarded.splitlines()]
    scope: Any = {"type": "http", "headers": headers, "client": client}
    assert client_of(scope) == expected
