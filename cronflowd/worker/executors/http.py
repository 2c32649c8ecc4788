"""Jobs of type `http`, one request whose status says how the job ended, and `webhook`.

A webhook is an event as JSON, signed so that the receiver knows who sent it. The client is imported
with the first request: most workers never send one.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from datetime import datetime
from importlib.util import find_spec
from typing import Any

import orjson

from ...base.text import format_time
from ...host.clock import wall_now
from ...tasks.kinds import split_request
from .job import Ended, Job, Order

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
_BODY_EXPECTED = frozenset({"POST", "PUT", "PATCH"})  # no body is told as one of no bytes


def is_possible() -> bool:
    """Whether the HTTP client is installed: `pip install 'cronflowd[http]'`."""
    return all(find_spec(name) for name in ("httpx2", "httpcore2"))


async def run_http(job: Job, private: bool) -> Ended:
    """The command is `METHOD URL`; `private`: whether private addresses may be reached."""
    from .client import Request, carry_out

    order = job.order
    method, url = split_request(order.command)
    headers, body, kind = headers_of(order), b"" if method in _BODY_EXPECTED else None, ""
    if payload := order.options.get("payload"):
        body, kind = payload.encode(), JSON
    elif text := order.options.get("body"):
        body, kind = text.encode(), TEXT
    if kind and not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("Content-Type", kind))
    request = Request(method, url, headers, body, expect_of(order))
    return await carry_out(job, request, private)


def headers_of(order: Order) -> list[tuple[str, str]]:
    """What header.X= said."""
    return [(key[7:], text) for key, text in order.options.items() if key.startswith("header.")]


def expect_of(order: Order) -> str:
    return order.options.get("expect", "200-299")


async def run_webhook(job: Job, private: bool, now: Callable[[], datetime] = wall_now) -> Ended:
    """The command is the URL; `private`: whether private addresses may be reached."""
    from .client import Request, carry_out

    order, at = job.order, now()
    body = format_body(order, at)
    headers = [*headers_of(order), ("Content-Type", JSON), ("Idempotency-Key", order.options.get("fire", ""))]
    if secret := order.options.get("secret"):
        headers.append(("Cronflow-Signature", sign(secret, at, body)))
    request = Request("POST", order.command.strip(), headers, body, expect_of(order))
    return await carry_out(job, request, private)


def format_body(order: Order, at: datetime) -> bytes:
    """The event. `id` is the same for every attempt, so that it can be known again."""
    options = order.options
    event: dict[str, Any] = {
        "id": options.get("fire", ""),
        "event": "run",
        "time": format_time(at),
        "task": _number(options.get("task", "")),
        "jobName": options.get("name", ""),
        "run": _number(order.run),
        "attempt": _number(order.attempt),
        "due": options.get("due", ""),
    }
    if args := {key[4:]: text for key, text in options.items() if key.startswith("arg.")}:
        event["args"] = args
    # Byte for byte as it was written: to read and write it anew might change its numbers.
    return orjson.dumps(event)[:-1] + b',"data":' + options.get("payload", "{}").encode() + b"}"


def _number(text: str) -> int | str:
    """Daemons count; another one may not, and its text is better than no event."""
    return int(text) if text.isdecimal() else text


def sign(secret: str, at: datetime, body: bytes) -> str:
    """`t=<unix>,v1=<hex HMAC-SHA256 of "<t>.<body>">`: an old event cannot be sent again as a new one."""
    t = int(at.timestamp())
    digest = hmac.new(secret.encode(), b"%d.%b" % (t, body), hashlib.sha256).hexdigest()
    return f"t={t},v1={digest}"
