"""The worker program in the test's own process, for a fake daemon."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from cronflowd.host.config import WorkerSettings
from cronflowd.worker.agent import Agent
from cronflowd.worker.spool import Spool
from tests.lib.fake_daemon import FakeDaemon
from tests.lib.waiting import PATIENCE_S

SLEEPER = "type=sleep :3600"


class WatchedAgent(Agent):
    """An agent that tells when it has gone."""

    finished: trio.Event

    async def run(self) -> None:
        self.finished = trio.Event()
        await super().run()
        self.finished.set()


@asynccontextmanager
async def working(daemon: FakeDaemon, spool_dir: Path, **settings: Any) -> AsyncIterator[WatchedAgent]:
    """An agent that works while the block runs, in this process."""
    values: dict[str, Any] = {"name": "w1", "spool": spool_dir, **settings}
    if "connect" not in values:
        values["connect"] = (daemon.address,)
    spool = Spool(spool_dir)
    agent = WatchedAgent(WorkerSettings(**values), spool, os.getppid())
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(agent.run)
            yield agent
            nursery.cancel_scope.cancel()
    finally:
        spool.close()


async def gone(agent: WatchedAgent) -> None:
    with trio.fail_after(PATIENCE_S):
        await agent.finished.wait()
