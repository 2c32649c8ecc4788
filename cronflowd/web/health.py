"""Whether this process, and the daemon behind it, are there: for load balancers and service managers."""

from __future__ import annotations

from typing import Any

from litestar import MediaType, Response, get
from litestar.datastructures import State

from .line import Daemon, Unreachable


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
