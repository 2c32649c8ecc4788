"""Whether this process, and the daemon behind it, are there, and how: for service managers and Prometheus."""

from __future__ import annotations

from typing import Any

from litestar import MediaType, Response, get
from litestar.datastructures import State

from ..host.secrets import is_loopback
from .identity import AnyRequest, address_of, caller_of, is_proxied
from .line import GATEWAY, Daemon, Unreachable


@get("/healthz", media_type=MediaType.TEXT, sync_to_thread=False, include_in_schema=False)
def healthz() -> str:
    """The process answers."""
    return "ok\n"


@get("/readyz", media_type=MediaType.TEXT, include_in_schema=False)
async def readyz(state: State) -> Response[str]:
    """The daemon answers, and its disk takes what it is told."""
    daemon: Daemon = state.daemon
    try:
        status: dict[str, Any] = (await daemon.ask("STATUS")).pairs
    except Unreachable as error:
        return Response(f"{error}\n", status_code=503, media_type=MediaType.TEXT)
    if status.get("disk") != "ok":
        return Response(f"disk: {status.get('disk')}\n", status_code=503, media_type=MediaType.TEXT)
    return Response("ok\n", media_type=MediaType.TEXT)


@get("/metrics", media_type=MediaType.TEXT, include_in_schema=False)
async def metrics_text(request: AnyRequest, state: State) -> Response[str]:
    """For a Prometheus of this machine, or one that shows a token: names of jobs stand in it."""
    is_near = is_loopback(address_of(request)) and not is_proxied(request)
    is_shown = "authorization" in request.headers
    caller = GATEWAY if is_near and not is_shown else await caller_of(request)
    text = "".join(f"{row['line']}\n" for row in (await state.daemon.ask("METRICS", caller)).rows)
    return Response(text, media_type="text/plain; version=0.0.4")
