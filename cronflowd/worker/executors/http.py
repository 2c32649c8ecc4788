"""Jobs of type `http`: one request, whose status says how the job ended.

The client is imported with the first request: most workers never send one.
"""

from __future__ import annotations

from importlib.util import find_spec

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
