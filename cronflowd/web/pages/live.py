"""That something has happened, told to pages that are open: they fetch themselves anew."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import trio
from litestar import get
from litestar.response import ServerSentEvent, ServerSentEventMessage

from .visit import Visit

GATHER_S = 1.0  # what happens within it is one word
QUIET_S = 25.0  # after which a word is said, so that nobody between takes the line for dead


@get("/live", include_in_schema=False)
async def live(visit: Visit) -> ServerSentEvent:
    """`change` whenever there was any, at most once a second."""
    await visit.order("PING")  # a refusal is an answer, and no stream
    return ServerSentEvent(_changes(visit))


async def _changes(visit: Visit) -> AsyncIterator[ServerSentEventMessage]:
    async with visit.daemon.follow("WATCH", visit.caller) as connection:
        yield ServerSentEventMessage(data="-", event="hello")
        await connection.read_row()  # OK watching
        while True:
            with trio.move_on_after(QUIET_S) as waiting:
                await connection.read_row()
            if waiting.cancelled_caught:
                yield ServerSentEventMessage(comment="still here")
                continue
            with trio.move_on_after(GATHER_S):
                while True:
                    await connection.read_row()
            yield ServerSentEventMessage(data="-", event="change")


HANDLERS: list[Any] = [live]
