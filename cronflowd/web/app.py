"""The application: every handler, and what they share."""

from __future__ import annotations

from typing import Any

from litestar import Litestar
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.types import LifeSpanScope, Scope

from ..base.errors import Refusal
from ..host.config import WebSettings
from . import envelope, events, executions, health, inspector, jobs, monitoring, older, openapi, workers
from .identity import make_identity
from .line import Daemon, Unreachable

HANDLERS: list[Any] = [
    health.healthz, health.readyz, jobs.JOBS, executions.EXECUTIONS, inspector.INSPECTOR, workers.WORKERS,
    *monitoring.MONITORING, events.EVENTS, *openapi.DOCS, *older.OLDER,
]  # fmt: skip


class App(Litestar):
    """Older clients' paths lead elsewhere, before anything is looked up."""

    async def __call__(self, scope: Scope | LifeSpanScope, receive: Any, send: Any) -> None:
        older.rename(scope)
        await super().__call__(scope, receive, send)


def make_app(settings: WebSettings, daemon: Daemon) -> Litestar:
    """All of it, ready to be served; `daemon` is its only source."""
    return App(
        route_handlers=HANDLERS,
        state=State(
            {
                "daemon": daemon,
                "settings": settings,
                "identity": make_identity(settings),
                "feed": events.Feed(daemon),
            }
        ),
        exception_handlers={
            Refusal: envelope.on_refusal,
            envelope.Refused: envelope.on_refused,
            Unreachable: envelope.on_unreachable,
            HTTPException: envelope.on_http,
            Exception: envelope.on_fault,
        },
        openapi_config=openapi.config(),
        logging_config=None,
    )
