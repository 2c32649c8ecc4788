"""The API in front of a daemon in memory, and somebody who may use it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cronflowd.web.app import make_app
from tests.lib.asgi import Browser, InMemory, a_door

API = "/api/v1"


@asynccontextmanager
async def an_api(data: Path, role: str = "admin", **told: Any) -> AsyncIterator[tuple[Browser, InMemory]]:
    """A browser that shows an API token of that role."""
    async with a_door(data, make_app, **told) as (app, daemon):
        yield await somebody(app, daemon, role), daemon


async def somebody(app: Any, daemon: InMemory, role: str) -> Browser:
    token = (await daemon.ask(f"TOKEN ADD name=test-{role} role={role}")).pairs["token"]
    return Browser(app, headers={"authorization": f"Bearer {token}"})
