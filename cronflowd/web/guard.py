"""What every request passes before anybody handles it, and every answer after: plain ASGI.

A name in `Host` that is none of ours is refused, since a page of another site can make a browser
believe that its own name is our address (DNS rebinding). Bodies are bounded while they come.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from ..host.secrets import is_loopback

MAX_BODY_BYTES = 1024 * 1024
_HOST = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]+))(?::[0-9]{1,5})?")

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        " font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
HSTS = "max-age=31536000"


class TooLong(Exception):  # what it is about is the body
    """More came than a body may hold."""


class Guard:
    """Wraps the application."""

    def __init__(self, app: ASGIApp, names: Iterable[str], addresses: Iterable[str], is_tls: bool) -> None:
        self._app = app
        self._names = {name.lower() for name in (*names, *addresses, "localhost")}
        self._headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
        if is_tls:
            self._headers.append((b"strict-transport-security", HSTS.encode()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind: str = scope["type"]
        if kind == "lifespan":
            return
        if not self._is_ours(_header(scope, b"host")):
            why = "the name in Host is none of this server's; --http-name tells it more"
            await self._refuse(kind, send, 421, why)
            return
        left = MAX_BODY_BYTES
        length = _header(scope, b"content-length")
        if length.isdecimal() and int(length) > left:
            await self._refuse(kind, send, 413, f"a body has at most {MAX_BODY_BYTES} bytes")
            return
        has_begun = False

        async def receive_bounded() -> Any:
            nonlocal left
            message = await receive()
            if message["type"] == "http.request":
                left -= len(message.get("body", b""))
                if left < 0:
                    raise TooLong
            return message

        async def send_guarded(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                known = {name.lower() for name, _ in message["headers"]}
                more = [(name, value) for name, value in self._headers if name not in known]
                message["headers"] = [*message["headers"], *more]
            await send(message)

        try:
            await self._app(scope, receive_bounded, send_guarded)
        except TooLong:
            if not has_begun:
                await self._refuse(kind, send, 413, f"a body has at most {MAX_BODY_BYTES} bytes")

    def _is_ours(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        if not match:
            return False
        name = (match[1] or match[2]).lower()
        return name in self._names or bool(match[1]) or is_loopback(name) or _is_address(name)

    async def _refuse(self, kind: str, send: Send, status: int, why: str) -> None:
        if kind == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": why})
            return
        code = {413: "too-long", 421: "denied"}[status]
        body = f'{{"success":false,"error":{{"code":"{code}","message":"{why}"}}}}'.encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        headers += [*self._headers, (b"connection", b"close")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name), "")


def _is_address(name: str) -> bool:
    """A bare address: no name server answers for it, so it cannot be made to mean us."""
    return bool(re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3}){3}", name))
