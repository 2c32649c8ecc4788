"""The application: every handler, and what they share."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from litestar import Litestar, Request, Router
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.types import Message, Send

from ..host.config import WebSettings
from ..net.lines import MAX_LINE_BYTES
from ..tasks.kinds import refuse_duplicates
from . import auth, envelope, events, health, jobs, lines, monitoring, older, openapi, people, worker_door
from .guard import Limits
from .identity import FORM, make_identity
from .line import Daemon
from .pages.router import PAGES
from .pages.visit import on_error
from .rest import asker_of, handlers_in, known_query
from .sign_in import Postman

HANDLERS: list[Any] = [
    *handlers_in(health, openapi),
    Router("/api/v1/auth", route_handlers=handlers_in(auth)),
    Router(
        "/api/v1",
        route_handlers=handlers_in(jobs, people, monitoring, events, lines),
        dependencies={"asker": Provide(asker_of)},
        guards=[known_query],
    ),
    worker_door.agents,
    *older.OLDER,
    *PAGES,
]


class App(Litestar):
    """Older clients' paths lead elsewhere, before anything is looked up."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            send = _telling_methods(scope["method"], scope["path"], send)
        if scope.get("method") == "HEAD":  # the server, whose own scope stays as it is, leaves the body out
            scope = {**scope, "method": "GET"}
        elif scope.get("method") == "OPTIONS":  # the framework tells those of one of a path's handlers
            scope = {**scope, "method": "NONE"}
        older.rename(scope)
        await super().__call__(scope, receive, send)


def _telling_methods(method: str, path: str, send: Send) -> Send:
    """All that a path may be asked with stands in Allow where it was asked otherwise; OPTIONS asks for it."""
    is_told = False

    async def told(message: Message) -> None:
        nonlocal is_told
        if message["type"] == "http.response.start" and message["status"] == 405:
            others = [pair for pair in message["headers"] if pair[0].lower() != b"allow"]
            said = b", ".join(value for name, value in message["headers"] if name.lower() == b"allow")
            known = {"OPTIONS", *said.decode().split(", "), *older.methods_of(path)}
            known |= {"HEAD"} if "GET" in known else set()
            allow = (b"allow", ", ".join(sorted(known)).encode())
            is_told = method == "OPTIONS"
            message["headers"] = [allow] if is_told else [*others, allow]
            message["status"] = 204 if is_told else 405
        elif is_told:
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await send(message)

    return told


def make_app(settings: WebSettings, daemon: Daemon, key: bytes = b"") -> Litestar:
    """All of it, ready to be served; `daemon` is its only source, `key` that of sessions in a cluster."""
    return App(
        route_handlers=HANDLERS,
        state=_state(settings, daemon, key),
        before_request=check_body,
        exception_handlers={
            HTTPException: on_error,  # in the form that is read: a page for browsers
            Exception: envelope.on_error,
        },
        openapi_config=openapi.config(),
        logging_config=None,
    )


def _state(settings: WebSettings, daemon: Daemon, key: bytes = b"") -> State:
    """What handlers share; nothing of it must outlive this process."""
    return State({
        "daemon": daemon,
        "settings": settings,
        "identity": make_identity(settings, key),
        "feed": events.Feed(daemon),
        "postman": Postman(settings, daemon),
        "sign_ins": Limits(settings.max_sign_ins / 60, settings.max_sign_ins),
        "account_limits": Limits(settings.max_requests, 2 * settings.max_requests),
    })  # fmt: skip


async def check_body(request: Request[Any, Any, Any]) -> None:
    """Raises Refused where a body is not said to be JSON: a page of another site can send any but that.

    Of a page it may be a form, which has a second word beside the cookie.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    has_body = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    is_form = kind == FORM and not request.url.path.startswith(("/api/", older.PREFIX))
    is_json = kind == "application/json" or kind.endswith("+json")
    if has_body and not is_json and not is_form:
        raise envelope.Refused(415, "media-type", "a body is JSON here: Content-Type: application/json")
    if has_body and request.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        raise envelope.Refused(415, "media-type", "a body is sent as it is: without Content-Encoding")
    # A longer one becomes a line that is too long, and whoever sends it may be nobody: it costs no more.
    if has_body and is_json and len(body := await request.body()) <= MAX_LINE_BYTES:
        with suppress(ValueError):  # whoever reads it says why
            json.loads(body, object_pairs_hook=refuse_duplicates("bad-option"))
