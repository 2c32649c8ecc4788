"""The API in front of a daemon in memory, and somebody who may use it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import copy
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cronflowd.host.config import WebSettings
from cronflowd.web import app
from cronflowd.web.line import Daemon
from tests.lib.asgi import Browser, InMemory, Scripted, a_door

API = "/api/v1"


def make_app(settings: WebSettings, daemon: Daemon) -> Any:
    """As the gateway makes it; only that all tests have the same routes, which know of neither."""
    found = copy(_app())
    found.state = app._state(settings, daemon)
    return found


@cache
def _app() -> Any:
    with TemporaryDirectory() as data:  # the key that is made there is nobody's
        return app.make_app(WebSettings(data=Path(data)), Scripted())


@asynccontextmanager
async def an_api(data: Path, role: str = "admin", **told: Any) -> AsyncIterator[tuple[Browser, InMemory]]:
    """A browser that shows an API token of that role."""
    async with a_door(data, make_app, **told) as (door, daemon):
        yield await somebody(door, daemon, role), daemon


async def somebody(door: Any, daemon: InMemory, role: str) -> Browser:
    token = (await daemon.ask(f"TOKEN ADD name=test-{role} role={role}")).pairs["token"]
    return Browser(door, headers={"authorization": f"Bearer {token}"})
