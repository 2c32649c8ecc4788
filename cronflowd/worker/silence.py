"""The watcher is watched: a worker that hears nothing of its daemon for long runs a command.

The command belongs to the machine's owner (--silent-hook) and says it by a way of its own, for
whoever would have told of it is the one that is silent. It is run once when the silence has
lasted --silent-after, and once more, with CRONFLOW_BACK=1, when the daemon is heard again.
"""

from __future__ import annotations

import logging
import os
import subprocess
from datetime import timedelta

import trio

from ..base.text import format_time
from ..host import threads
from ..host.clock import wall_now

log = logging.getLogger(__name__)

HOOK_TIME_S = 300.0  # a hook that takes longer is ended


class Silence:
    """How long the daemon has said nothing; a worker counts from its own start."""

    def __init__(self, after_s: float, hook: str | None, server: str) -> None:
        self._after_s = after_s
        self._hook = hook
        self._server = server
        self._heard_s = trio.current_time()
        self._heard = trio.Event()

    def end(self) -> None:
        """The daemon has just been heard."""
        self._heard_s = trio.current_time()
        self._heard.set()

    async def watch(self) -> None:
        """Runs the hook when it is time to, until cancelled."""
        if self._hook is None:
            return
        while True:
            # An event would wake it at every line.
            while (until := self._heard_s + self._after_s) > trio.current_time():  # noqa: ASYNC110
                await trio.sleep_until(until)
            self._heard = trio.Event()
            since = format_time(wall_now() - timedelta(seconds=trio.current_time() - self._heard_s))
            log.error("%s: not heard since %s", self._server, since)
            await self._run({"CRONFLOW_SILENT_SINCE": since})
            await self._heard.wait()
            log.warning("%s: heard again", self._server)
            await self._run({"CRONFLOW_SILENT_SINCE": since, "CRONFLOW_BACK": "1"})

    async def _run(self, told: dict[str, str]) -> None:
        """One hook after the other; what it writes is the worker's own output."""
        assert self._hook is not None
        command = ["/bin/sh", "-c", self._hook]
        env = os.environ | {"CRONFLOW_SERVER": self._server} | told
        try:
            with trio.move_on_after(HOOK_TIME_S) as scope:
                with threads.wanted():
                    done = await trio.run_process(
                        command, stdin=subprocess.DEVNULL, check=False, env=env, start_new_session=True
                    )
                if done.returncode:
                    log.warning("--silent-hook ended with %d", done.returncode)
        except OSError as error:
            log.warning("--silent-hook: %s", error.strerror)
        else:
            if scope.cancelled_caught:
                log.warning("--silent-hook was ended after %g s", HOOK_TIME_S)
