"""What every request passes before anybody handles it, and every answer after: plain ASGI.

A name in `Host` that is none of ours is refused, since a page of another site can make a browser
believe that its own name is our address (DNS rebinding). What a browser sends for a page of another site
changes nothing, unless that site is one of --cors-origin; and even then no cookie goes with it.
Bodies are bounded while they come.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import orjson
import trio
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from ..host.config import WebSettings
from ..host.secrets import is_loopback
from .envelope import CODES
from .line import origin_of

MAX_BODY_BYTES = 1024 * 1024
MAX_FIELDS = 1000  # of a form, whose reading costs by the field: half a million of them half a second
MORE_BYTES, MORE_S = 4 * 1024 * 1024, 5.0  # of one that is too long, before it is refused
_HOST = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]+))(?::([0-9]{1,5}))?")

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        " font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "cache-control": "no-store",  # what one is shown, the next at the same screen is not
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
HSTS = "max-age=31536000"
NOBODY = ("0.0.0.0", 0)  # noqa: S104  # no address to listen on: one that is nobody's
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
PREFLIGHT = {
    "access-control-allow-methods": "GET, HEAD, POST, PUT, PATCH, DELETE",
    "access-control-allow-headers": "Authorization, Content-Type, If-Match, Idempotency-Key, Last-Event-ID",
    "access-control-max-age": "600",
}
EXPOSED = "ETag, Location, Retry-After, X-Total-Count"  # headers that a page of another origin may read
TOO_LONG = 413
MAX_KNOWN = 10_000  # who was heard of longest ago is forgotten first


class Limits:
    """A bucket for each address, account or mailbox; all of one size."""

    def __init__(self, per_s: float, at_once: float) -> None:
        self._per_s, self._at_once = per_s, at_once
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # by whose: how much, and when

    def take(self, whose: str) -> float:
        """0 where he may, which counts; else the seconds until he may again."""
        now = trio.current_time()
        left, at = self._left.pop(whose, (self._at_once, now))
        left = min(self._at_once, left + max(0.0, now - at) * self._per_s)
        wait_s = 0.0 if left >= 1 else (1 - left) / self._per_s
        self._left[whose] = (left if wait_s else left - 1, now)
        if len(self._left) > MAX_KNOWN:
            self._left.popitem(last=False)
        return wait_s


class TooLong(HTTPException):  # so that the framework answers, amid whose reading it is raised
    """More came than a body may hold."""

    status_code = 413


class Body:
    """What a request brings, as far as it may be long."""

    def __init__(self, receive: Receive, scope: Scope) -> None:
        self._receive = receive
        self._left = MAX_BODY_BYTES
        self._is_form = any(b"form-urlencoded" in value.lower() for _, value in scope["headers"])
        self._fields_left = MAX_FIELDS
        self._is_whole = False

    async def take(self) -> Any:
        """The next message; raises TooLong."""
        message = await self._receive()
        if message["type"] == "http.request":
            content: bytes = message.get("body", b"")
            self._left -= len(content)
            self._fields_left -= self._is_form * content.count(b"&")
            self._is_whole = not message.get("more_body")
            if self._left < 0 or self._fields_left < 0:
                raise TooLong
        return message

    async def read_on(self) -> None:
        """Reads a while longer: whoever is still sending when the connection ends never sees why."""
        with trio.move_on_after(MORE_S):
            while not self._is_whole and self._left > -MORE_BYTES:
                with suppress(TooLong):
                    if (await self.take())["type"] != "http.request":
                        return


class Guard:
    """Wraps the application."""

    def __init__(self, app: ASGIApp, settings: WebSettings, addresses: Iterable[str]) -> None:
        self._app = app
        self._names = {name.lower() for name in (*settings.http_name, *addresses, "localhost")}
        self._own_names = {name.lower() for name in settings.http_name}
        self._own_origins = {_origin(settings.http_url)} if settings.http_url else set()
        self._others = set(map(_origin, settings.cors_origin))
        self._limits = Limits(settings.max_requests, 2 * settings.max_requests)
        self._headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
        if settings.tls_cert:
            self._headers.append((b"strict-transport-security", HSTS.encode()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind: str = scope["type"]
        if kind == "lifespan":
            return
        scope["client"] = client_of(scope)
        headers = list(self._headers)
        came_from = _header(scope, b"origin").lower()
        if came_from in self._others:
            headers += pairs({"access-control-allow-origin": came_from, "vary": "Origin"})
            if scope.get("method") == "OPTIONS" and _header(scope, b"access-control-request-method"):
                await answer(send, 204, [*headers, *pairs(PREFLIGHT)])
                return
            headers += pairs({"access-control-expose-headers": EXPOSED})
        body = Body(receive, scope)
        if refusal := self._why_not(kind, scope, came_from):
            await self._refuse(kind, body, send, headers, *refusal)
            return
        has_begun = False

        async def send_guarded(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                known = {name.lower() for name, _ in message["headers"]}
                more = [(name, value) for name, value in headers if name not in known]
                message["headers"] = [*message["headers"], *more]
            await send(message)

        try:
            await self._app(scope, body.take, send_guarded)
        except TooLong:
            if not has_begun:
                await self._refuse(kind, body, send, headers, TOO_LONG, _TOO_LONG)

    def _why_not(
        self, kind: str, scope: Scope, came_from: str
    ) -> tuple[int, str, float] | tuple[int, str] | None:
        """Status and words where a request goes no further; and when to come again."""
        host = _header(scope, b"host").lower()
        if not self._is_ours(host):
            return 421, "the name in Host is none of this server's; --http-name tells it more"
        is_order = kind == "websocket" or scope.get("method") not in SAFE
        if is_order and not self._may_order(came_from, host, _header(scope, b"sec-fetch-site")):
            return 403, "pages of another site may change nothing here; --cors-origin tells which may"
        client = scope.get("client")
        if client and (wait_s := self._limits.take(origin_of(client[0]))):
            return 429, "too many requests from your address", wait_s
        length = _header(scope, b"content-length")
        if length.isdecimal() and int(length[:19]) > MAX_BODY_BYTES:
            return TOO_LONG, _TOO_LONG
        return None

    def _is_ours(self, host: str) -> bool:
        name, _ = split_host(host)
        return bool(name) and (name in self._names or ":" in name or is_loopback(name) or _is_address(name))

    def _may_order(self, came_from: str, host: str, site: str) -> bool:
        """Whether it is no page of another site that has a browser ask."""
        where = came_from.partition("://")[2]
        if where == host or came_from in self._own_origins or came_from in self._others:
            return True
        # A form of our own pages says `null`, since they tell nobody where they are.
        if came_from in ("", "null"):
            return site in ("", "same-origin", "none")
        return split_host(where)[0] in self._own_names  # a proxy may have said another Host

    async def _refuse(
        self,
        kind: str,
        body: Body,
        send: Send,
        headers: list[tuple[bytes, bytes]],
        status: int,
        why: str,
        wait_s: float = 0,
    ) -> None:
        more = {"content-type": "application/json", "connection": "close"}
        if wait_s:
            more["retry-after"] = str(math.ceil(wait_s))
        said = orjson.dumps({"success": False, "error": {"code": CODES[status], "message": why}})
        if status == TOO_LONG and kind == "http":
            await body.read_on()
        await answer(send, status, [*headers, *pairs(more)], said, kind)


_TOO_LONG = f"a body has at most {MAX_BODY_BYTES} bytes, and a form {MAX_FIELDS} fields"


async def answer(
    send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes = b"", kind: str = "http"
) -> None:
    """A whole answer; to whoever wants a WebSocket, too, whose log then tells why there is none."""
    name = "websocket.http.response" if kind == "websocket" else "http.response"
    length = pairs({"content-length": str(len(body))}) if status != 204 else []
    start: Any = {"type": f"{name}.start", "status": status, "headers": [*headers, *length]}
    rest: Any = {"type": f"{name}.body", "body": body, "more_body": False}
    await send(start)
    await send(rest)


def pairs(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def _origin(url: str) -> str:
    """Of a page's address, as browsers tell it: without path, and without the port that is usual."""
    scheme, _, rest = url.lower().partition("://")
    return f"{scheme}://{rest.partition('/')[0].removesuffix({'http': ':80', 'https': ':443'}[scheme])}"


def split_host(host: str) -> tuple[str, str]:
    """Name, or address without brackets, and port of `Host`; both empty where it is none."""
    match = _HOST.fullmatch(host.lower())
    return (match[1] or match[2], match[3] or "") if match else ("", "")


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name), "")


def _is_address(name: str) -> bool:
    """A bare address: no name server answers for it, so it cannot be made to mean us."""
    return bool(re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3}){3}", name))


def client_of(scope: Scope) -> tuple[str, int]:
    """Who is at the other end, as far as can be known: a proxy of this machine is asked, nobody else."""
    host, port = scope.get("client") or NOBODY
    # Some proxies add a word to the line that there is, others a line; either way theirs is the last.
    lines = [value for name, value in scope["headers"] if name.lower() == b"x-forwarded-for"]
    if not (lines and is_loopback(host)):
        return host, port
    proxied = lines[-1].decode("latin-1").rpartition(",")[2].strip().strip("[]")
    try:
        # Without a zone, which may hold anything: the daemon is told of it in a line, among other words.
        return str(ipaddress.ip_address(proxied.partition("%")[0])), 0
    except ValueError:
        return NOBODY
