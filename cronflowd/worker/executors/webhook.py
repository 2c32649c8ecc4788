"""Jobs of type `webhook`: an event as JSON, signed so that the receiver knows who sent it."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from datetime import datetime
from typing import Any

import orjson

from ...base.text import format_time
from ...host.clock import wall_now
from .http import JSON, expect_of, headers_of
from .job import Ended, Job, Order


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
