"""The worker as a process: what it asks of the system, whom it waits for, and what signals tell it."""

from __future__ import annotations

import gc
import logging
import os
import signal

import trio

from ..base.errors import Exit, Fatal
from ..host.config import WorkerSettings
from ..host.resources import max_descriptors, raise_descriptors
from .agent import Agent
from .executors import custom
from .executors.processes import become_subreaper, keep_reaping, own_descriptors, own_signals
from .spool import Spool

log = logging.getLogger(__name__)

LOCK_POLL_S = 0.2
NEVER = 1 << 30
# What jobs leave is hardly ever a circle, so it is not looked for every thirty jobs; and among what is there
# for long only while jobs are few, after so many looks at what is young. After very many it is in any case.
GARBAGE = 5_000, 5, NEVER
SPARE_DESCRIPTORS = 64
JOB_DESCRIPTORS = 5  # at most: of a handler, its process, its outputs, and both ends of its report


def run(settings: WorkerSettings) -> int:
    """Works until told to leave; returns the exit code. Raises Fatal."""
    custom.check(settings.handlers)
    if settings.order_key and not settings.token_file:
        why = "order_key: it takes token_file, whose proof begins the session that is signed"
        raise Fatal(Exit.CONFIG, why)
    become_subreaper()
    own_descriptors()
    own_signals()
    _make_room(settings.slots)
    gc.freeze()  # the program itself is no garbage
    gc.set_threshold(*GARBAGE)
    return trio.run(_main, settings)


def _make_room(slots: int) -> None:
    """For the descriptors of so many jobs; what finds none left is not begun, and its run fails."""
    raise_descriptors(needed := SPARE_DESCRIPTORS + slots * JOB_DESCRIPTORS)
    if max_descriptors() < needed:
        log.warning(
            "%d jobs at a time may need %d open files, and there are %d at most: raise ulimit -Hn",
            slots,
            needed,
            max_descriptors(),
        )


async def _main(settings: WorkerSettings) -> int:
    # Not the parent that it has now: the daemon may have gone while this process began.
    parent = settings.local or os.getppid()
    spool = await wait_spool(settings, parent)
    if spool is None:
        return Exit.OK
    agent = Agent(settings, spool, parent)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_listen_to_signals, agent)
            nursery.start_soon(keep_reaping)
            await agent.run()
            nursery.cancel_scope.cancel()
    finally:
        spool.close()
    if agent.fatal:
        raise agent.fatal
    return Exit.OK


async def wait_spool(settings: WorkerSettings, parent: int) -> Spool | None:
    """The spool. A local worker waits for its predecessor; None when nobody needs it any more."""
    while True:
        try:
            return Spool(settings.spool)
        except Fatal as fatal:
            if not settings.local or fatal.status != Exit.TRY_AGAIN:
                raise
        if os.getppid() != parent:
            return None
        await trio.sleep(LOCK_POLL_S)


async def _listen_to_signals(agent: Agent) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async for number in signals:
            agent.hurry() if number == signal.SIGHUP else agent.leave()
