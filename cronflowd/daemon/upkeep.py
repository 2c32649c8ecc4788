"""What the daemon has done by child processes: running jobs on this machine, HTTP, and compaction.

The daemon itself executes nothing. The local worker is an ordinary worker that dials in
over a unix socket; it is started in a session of its own, so that a daemon that stops or
dies leaves its jobs alone, and it is taken back by the next one. Compaction replays closed
journal files into a checkpoint, in a process of its own so that scheduling never waits.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import attrs
import trio

from ..base.errors import Exit, Refusal
from ..engine.facts import CheckpointWritten
from ..engine.orders import Note
from ..host import config, disk, threads
from ..host.config import HttpDoor, Settings
from ..host.threads import call_in_thread
from ..journal import compaction
from .core import Core

log = logging.getLogger("cronflowd.upkeep")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0  # between starts of a local worker that keeps ending
STEADY_S = 30.0  # one that lived so long is started again at once
# In our environment, and no settings: the children that we had before we began anew.
FORMER_WORKER, FORMER_DOOR = "CRONFLOWD_FORMER_WORKER", "CRONFLOWD_FORMER_DOOR"
FORMER_COMPACTION = "CRONFLOWD_FORMER_COMPACTION"
CANNOT_START = (OSError, subprocess.SubprocessError)  # no process, no memory, no program; and its pipes
SEGMENTS_BEFORE_COMPACTION = 4
COMPACTION_LIMIT_S = 3600.0
FIRST_REST_S, LONGEST_REST_S = 5.0, 1800.0  # before the next compaction, after one that failed


async def keep_local_worker(settings: Settings, door: Path) -> None:
    """Keeps a worker running on this machine until cancelled; leaves it to itself then.

    It has this process's variables and the file's table [worker]; flags say what is ours to say.
    """
    name = settings.node if settings.etcd else "local"
    command = [sys.executable, "-m", "cronflowd", "worker", "--local", str(os.getpid()), "--name", name]
    command += ["--connect", f"unix:{door}", "--slots", str(settings.local_worker)]
    command += ["--spool", str(settings.data / "local-worker")]
    command += ["--config", str(settings.config)] if settings.config else []
    handed = disk.handed(settings.config)

    await _wait_former(os.environ.pop(FORMER_WORKER, ""))  # it works on for us
    await _keep("local worker", lambda: _open(command, handed), FORMER_WORKER)


async def _wait_former(number: str) -> None:
    """Until a child has ended that this process had before it began anew; nobody else waits for it."""
    with suppress(OSError, ValueError):
        child = int(number)
        # Only a child is meant, whose number nobody else can have until it is waited for.
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # noqa: ASYNC222  # it only looks
        descriptor = os.pidfd_open(child)
        try:
            await trio.lowlevel.wait_readable(descriptor)
        finally:
            os.close(descriptor)
        os.waitpid(child, 0)  # noqa: ASYNC222  # it has ended


async def keep_gateway(settings: Settings, sockets: Sequence[socket.socket], token: bytes) -> None:
    """Keeps the HTTP door running until cancelled; it ends with us, since its leash does then.

    The sockets are ours, so whoever comes while it is started again waits, and is served. It shows
    `token` at the control socket, which stands on no disk and in no list of processes; in a cluster the key
    of its sessions follows, behind a blank.
    """
    handed = [each.fileno() for each in sockets]
    command = gateway_command(settings, handed)
    handed += disk.handed(settings.tls_cert) + disk.handed(settings.tls_key)

    async def start() -> trio.Process:
        leash.close()
        theirs, ours = os.pipe()
        leash.callback(os.close, ours)
        try:
            os.write(ours, token + b"\n")
            return await _open([*command, "--leash", str(theirs)], [*handed, theirs])
        finally:
            os.close(theirs)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_wait_former, os.environ.pop(FORMER_DOOR, ""))  # it ends by itself
        with ExitStack() as leash:
            await _keep("HTTP door", start, FORMER_DOOR)


async def _open(command: Sequence[str], handed: Sequence[int]) -> trio.Process:
    """Not by run_process: it would kill the worker, and so its jobs, when the daemon stops."""
    stdin = 0 if 0 in handed else subprocess.DEVNULL  # a file that the child is to read as well
    with threads.wanted():
        return await trio.lowlevel.open_process(
            command, stdin=stdin, stdout=sys.stderr.fileno(), start_new_session=True, pass_fds=handed
        )


def gateway_command(settings: Settings, handed: Sequence[int]) -> list[str]:
    """How the HTTP door is started. What the daemon was told of it, it was told too, wherever that stood."""
    command = [sys.executable, "-m", "cronflowd", "web", "--handed", ",".join(map(str, handed))]
    command += ["--data", str(settings.data), "--control", f"unix:{settings.socket}"]
    shared = {*attrs.fields_dict(HttpDoor), "tls_cert", "tls_key"} - {"http"}
    for row in config.table(Settings):
        value = getattr(settings, row.field)
        if row.field in shared and value != attrs.fields_dict(Settings)[row.field].default:
            for each in value if row.many else (value,):
                command += [row.flag, str(each)] if row.metavar else [row.flag]
    return command


async def _keep(what: str, start: Callable[[], Awaitable[trio.Process]], former: str) -> None:
    """Starts a program again whenever it has ended, until cancelled."""
    pause_s = FIRST_PAUSE_S
    while True:
        began = trio.current_time()
        try:
            process = await start()
            os.environ[former] = str(process.pid)
            how = f"ended with status {await process.wait()}"
        except CANNOT_START as error:
            how = f"cannot be started: {error}"
        if trio.current_time() - began > STEADY_S:
            pause_s = FIRST_PAUSE_S
        log.warning("the %s %s; it is started again in %g s", what, how, pause_s)
        await trio.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


class Compactor:
    """Starts a compaction when enough closed segments have come together."""

    def __init__(self, core: Core, turn: trio.Lock) -> None:
        self._core = core
        self._turn = turn  # of whoever else needs the journal's files
        self._wanted = trio.Event()

    def look(self) -> None:
        """Called after each commit; cheap."""
        if len(self._core.journal.closed) >= SEGMENTS_BEFORE_COMPACTION:
            self._wanted.set()

    async def run(self) -> None:
        """Compacts whenever it is due, until cancelled."""
        await _wait_former(os.environ.pop(FORMER_COMPACTION, ""))  # its files are found by the next one
        while True:
            await self._wanted.wait()
            rest_s = FIRST_REST_S
            while not await self._compact():
                log.warning("compaction is tried again in %g s", rest_s)
                await trio.sleep(rest_s)
                rest_s = min(2 * rest_s, LONGEST_REST_S)
            self._wanted = trio.Event()

    def started(self, value: trio.Process | None = None) -> None:
        """Of a compaction, while it runs: it is its TaskStatus."""
        os.environ[FORMER_COMPACTION] = str(value.pid) if value else ""

    async def _compact(self) -> bool:
        settings = self._core.settings
        kept = [str(settings.data), str(settings.history), settings.keep.text]
        command = [sys.executable, "-m", "cronflowd", "compact", *kept]
        why = f"it took longer than {COMPACTION_LIMIT_S:g} s"
        with trio.move_on_after(COMPACTION_LIMIT_S):
            try:
                with threads.wanted():
                    done = await trio.run_process(
                        command, capture_stdout=True, check=False, start_new_session=True, task_status=self
                    )
                why = f"exit {done.returncode}" if done.returncode else await self._adopt(done.stdout)
                if done.returncode == Exit.TRY_AGAIN:
                    why = "the compaction of a daemon before this one is still running"
                if not why:
                    return True
            except CANNOT_START as error:
                why = f"it cannot be started: {error}"
            finally:
                os.environ.pop(FORMER_COMPACTION, None)
        log.error("the journal could not be compacted, and grows until that works: %s", why)
        return False

    async def _adopt(self, stdout: bytes) -> str:
        """Journals that the checkpoint stands, then lets what it replaces go; else why not."""
        try:
            told = json.loads(stdout)
            fact = CheckpointWritten(told["file"], told["upto"], told["size"], told["crc"])
            # A node's files are its own: what becomes of them is no fact of all nodes.
            if not self._core.settings.etcd:
                self._core.submit(Note(fact))
        except (Refusal, ValueError, KeyError) as error:
            return f"the checkpoint cannot be journaled: {error}"
        await self._core.settled(self._core.last_seq)
        data = self._core.settings.data
        try:
            async with self._turn:
                removed = await call_in_thread(compaction.remove_superseded, data, fact.upto)
        except OSError as error:
            return f"what the checkpoint replaces cannot be removed: {error}"
        self._core.journal.forget_closed(fact.upto)
        log.info("compacted the journal up to record %d; %d files removed", fact.upto, removed)
        return ""
