"""A whole daemon without sockets, for transcripts: what clients and workers say and read, line by line.

The core, the answers, both ports' own code and the journal's files are the real ones; only
the connections are in memory, and the clock stands still until it is moved. After each line
the world settles (nobody can go on, everything is on disk), and whatever was sent by then is
the answer. So a transcript has no waits, and the same one always gives the same text.

What a line of a transcript begins with:

    C:  a client sends (`C b:` another client); a connection is opened at its first line
    S:  what it reads, `(closed)` when the server ends it
    w:  worker w1 sends (`w w2:` another worker)
    W:  what it reads
    T:  time passes until this moment, or for so long (`T: +90s`), and what is due happens
    J:  the clock is set to this moment, and nothing between happens
    D:  the daemon is killed and started again, at this moment if one is given
    X:  this client or worker is cut off
    f:  somebody writes this line to a file in the data directory (`f: new.db {…}`)
    F:  what such a file holds; its lines come as `F|`
    O:  settings of the daemon (`O: token=secret tasks=2 ask=yes`), before anything else
    #   a remark
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import pytest
import trio
import trio.testing
from argon2 import PasswordHasher

from cronflowd import __version__
from cronflowd.base.text import split_options
from cronflowd.daemon.answers import Answers
from cronflowd.daemon.core import Core
from cronflowd.engine.definitions import finish
from cronflowd.engine.facts import TASKS_NAME, FiresPassed, RunQueued
from cronflowd.engine.orders import StartDaemon
from cronflowd.engine.rules import Limits
from cronflowd.engine.state import State
from cronflowd.host.config import Settings
from cronflowd.host.vault import Vault
from cronflowd.journal.check import Recount
from cronflowd.journal.journal import FileJournal
from cronflowd.net.clients import serve_client
from cronflowd.net.workers import serve_worker
from cronflowd.schedules.zones import data_version, parse_duration
from cronflowd.tasks.options import Common
from cronflowd.tasks.targets import parse_limit, parse_target

START = datetime(2030, 1, 1, 12, 0, 0, tzinfo=UTC)  # a Tuesday
ZONE = "UTC"
OWNER = "cronflowd"  # the user that the daemon runs as
DATA_AS_SHOWN = "/var/lib/cronflowd"
ZONE_DATA_AS_SHOWN = "2030a /usr/share/zoneinfo"
NEVER_S = 1e6  # the ends that silence brings are tests/net/test_clients.py's subject
MAX_MOVES = 100_000  # a clock that is moved this often by one line is in a loop
INPUT = re.compile(r"(?:([CwTJDXfFO])(?: ([\w.-]+))?:)(?: (.*))?", re.DOTALL)
OUTPUT = re.compile(r"(?:[SW](?: [\w.-]+)?:|F\|)(?: .*)?", re.DOTALL)
_TOLD = {"C": "S", "w": "W"}
_ALONE = {"C": "c", "w": "w1"}  # who is meant when nobody is named


class HandClock:
    """Wall time that stands still until it is moved."""

    def __init__(self, now: datetime) -> None:
        self._now = now
        self._steady_s = 0.0
        self._stepped = False
        self._moved = trio.Event()

    def now(self) -> datetime:
        return self._now

    def steady_s(self) -> float:
        return self._steady_s

    def move(self, to: datetime, *, step: bool = False) -> None:
        if not step:
            self._steady_s += (to - self._now).total_seconds()
        self._now, self._stepped = to, step
        self._moved.set()
        self._moved = trio.Event()

    async def wait_until(self, at: datetime | None) -> bool:
        await trio.lowlevel.checkpoint()
        while not self._stepped:
            if at is not None and self._now >= at:
                return False
            await self._moved.wait()
        self._stepped = False
        return True

    def close(self) -> None:
        """Nothing is held."""


class Wire:
    """One connection in memory: a `listeners.Connection` to the server, two buffers to the transcript."""

    kind: ClassVar[str] = "tcp"
    is_carried = False

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.is_over = False  # the server has closed it
        self._to_server = bytearray()
        self._ended = False  # the peer has left
        self._arrived = trio.Event()
        self._ready: Callable[[], None] | None = None
        self._to_peer = bytearray()

    # --- the peer's side ---

    def say(self, line: str) -> None:
        self._to_server += line.encode() + b"\n"
        self._arrive()

    def leave(self) -> None:
        self._ended = True
        self._arrive()

    def _arrive(self) -> None:
        self._arrived.set()
        trio.lowlevel.current_trio_token().run_sync_soon(self._tell)

    def take_lines(self) -> list[str]:
        """What has come since the last time."""
        text = self._to_peer.decode()
        assert not text or text.endswith("\n"), f"half a line was sent: {text!r}"
        self._to_peer.clear()
        return text.split("\n")[:-1]

    # --- the server's side ---

    def watch(self, ready: Callable[[], None]) -> None:
        self._ready = ready
        trio.lowlevel.current_trio_token().run_sync_soon(self._tell)

    def unwatch(self) -> None:
        self._ready = None

    def _tell(self) -> None:
        if self._ready and (self._to_server or self._ended):
            self._ready()

    def receive_now(self) -> bytes | None:
        if not self._to_server:
            return b"" if self._ended else None
        data = bytes(self._to_server)
        self._to_server.clear()
        self._arrived = trio.Event()
        return data

    async def receive_some(self) -> bytes:
        while (data := self.receive_now()) is None:
            await self._arrived.wait()
        await trio.lowlevel.checkpoint()
        return data

    def send_now(self, data: bytes | memoryview) -> int:
        self._to_peer += data
        return len(data)

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()

    def shutdown(self) -> None:
        self.is_over = True

    def abort(self) -> None:
        self.is_over = True

    def close(self) -> None:
        self.is_over = True

    def rtt_s(self) -> float:
        return 0.0

    def is_gone(self) -> bool:
        return self._ended

    @property
    def has_ended(self) -> bool:
        return self._ended


class World:
    """One data directory, the daemon that serves it, and everybody who is connected."""

    def __init__(self, data: Path, settings: dict[str, str], nursery: trio.Nursery) -> None:
        self.data = data
        self.clock = HandClock(START)
        self._settings = settings
        self._nursery = nursery
        self._wires: dict[tuple[str, str], Wire] = {}  # by ("C", name) and ("w", name)
        self._daemon: trio.CancelScope | None = None

    # --- the daemon ---

    async def start(self) -> None:
        """What cronflowd.daemon does, without doors and signals."""
        journal = FileJournal(self.data)
        state = State(ZONE, int(self._settings.get("recent", 10_000)), Common(owner=OWNER))
        state.access.vault = Vault(self.data)
        records = 0
        for seq, at, fact in journal.replay():
            state.apply(fact, at, seq)
            records += 1
        self.journal = journal
        self.core = Core(state, journal, self.clock, self._limits())
        self.core.tokens = tuple(filter(None, self._settings.get("token", "").encode().split(b",")))
        self.core.asks_tcp = self._settings.get("ask") == "yes"
        self.answers = Answers(self.core, self.data)
        finish(self.answers.files.find_calendars())
        self.core.submit(StartDaemon(__version__, ZONE))
        await self.answers.files.large.finish_alone()
        self._daemon = await self._nursery.start(self._serve)
        if not records and (self.data / TASKS_NAME).exists():
            await self.answers.files.load(self.data / TASKS_NAME)
        self.answers.files.edited = await self.answers.files.is_edited()
        self.core.wake()
        await self.settle()

    def _limits(self) -> Limits:
        limits = Limits()
        limits.tasks = int(self._settings.get("tasks", limits.tasks))
        limits.output_bytes = int(self._settings.get("output", limits.output_bytes))
        if notify := self._settings.get("notify"):
            limits.notify = tuple(map(parse_target, notify.split(",")))
        limits.notify_limit = parse_limit(self._settings.get("notify-limit", "1/1h"))
        return limits

    async def _serve(self, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        token = trio.lowlevel.current_trio_token()
        core = self.core

        def notify(seq: int) -> None:
            with suppress(trio.RunFinishedError):  # a test that failed has left without closing
                token.run_sync_soon(core.committed, seq)

        self.journal.notify = notify
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as self._connections:
                self._connections.start_soon(core.run)
                task_status.started(scope)

    async def stop(self) -> None:
        """The end of the process: connections break, nothing is said."""
        assert self._daemon is not None
        self._daemon.cancel()
        self._wires.clear()
        await trio.testing.wait_all_tasks_blocked()
        self.journal.close()

    def check_replay(self) -> None:
        """Whatever was said: the journal alone gives what was there, and every fire has one ending."""
        again, recount, fires = State(ZONE), Recount(), 0
        journal = FileJournal(self.data)
        for seq, at, fact in journal.replay():
            recount.see(fact)
            again.apply(fact, at, seq)
            fires += fact.count if isinstance(fact, FiresPassed) else isinstance(fact, RunQueued)
        journal.close()
        assert list(self.core.state.carry()) == list(again.carry())
        assert fires == sum(again.totals.values()) + len(again.runs)
        assert recount.compare(again) == []

    async def settle(self) -> None:
        """Waits until nobody can go on and all that was decided is on disk."""
        await trio.testing.wait_all_tasks_blocked()
        while self.core.gate.committed < self.core.last_seq:
            await self.core.settled(self.core.last_seq)
            await trio.testing.wait_all_tasks_blocked()

    # --- what a line does ---

    async def play(self, kind: str, name: str | None, text: str) -> list[str]:
        """Does what one line of a transcript says; returns the lines that everybody reads then."""
        name = name or _ALONE.get(kind, "")
        told = await _PLAY[kind](self, name, text)
        await self.settle()
        return (told or []) + self._told((kind, name))

    def _told(self, speaker: tuple[str, str]) -> list[str]:
        """What everybody has been sent: the one who spoke comes first."""
        lines = []
        for (kind, name), wire in sorted(self._wires.items(), key=lambda item: item[0] != speaker):
            prefix = _TOLD[kind] if name == _ALONE[kind] else f"{_TOLD[kind]} {name}"
            said = wire.take_lines()
            if wire.is_over:
                said.append("(closed)")
                del self._wires[kind, name]
            lines += [f"{prefix}: {self._as_shown(line)}" for line in said]
        return lines

    def _as_shown(self, line: str) -> str:
        """Without what is different on every machine."""
        line = line.replace(str(self.data), DATA_AS_SHOWN)
        return line.replace(data_version(), ZONE_DATA_AS_SHOWN)

    async def _client_says(self, name: str, text: str) -> None:
        self._wire("C", name).say(text)

    async def _worker_says(self, name: str, text: str) -> None:
        self._wire("w", name).say(text)

    def _wire(self, kind: str, name: str) -> Wire:
        wire = self._wires.get((kind, name))
        if wire is None:
            wire = self._wires[kind, name] = Wire(f"192.0.2.7:{40000 + len(self._wires)}")
            serve = self._serve_client if kind == "C" else self._serve_worker
            self._connections.start_soon(serve, wire)
        return wire

    async def _serve_client(self, wire: Any) -> None:
        settings = Settings(data=Path("/dev/null/nowhere"), tz="UTC", **dict.fromkeys(_WAITS, NEVER_S))
        await serve_client(wire, self.answers, settings)

    async def _serve_worker(self, wire: Any) -> None:
        await serve_worker(wire, self.core)
        wire.close()

    async def _time_passes(self, name: str, text: str) -> None:
        until = self._moment(text)
        for _ in range(MAX_MOVES):
            due = self.core.engine.next_due()
            if due is None or due > until:
                break
            self.clock.move(max(due, self.clock.now()))
            await self.settle()
        else:
            raise AssertionError(f"something stays due at {due}")
        self.clock.move(until)

    async def _clock_is_set(self, name: str, text: str) -> None:
        self.clock.move(self._moment(text), step=True)

    def _moment(self, text: str) -> datetime:
        if text.startswith("+"):
            return self.clock.now() + timedelta(seconds=parse_duration(text[1:]))
        return datetime.fromisoformat(text)

    async def _daemon_restarts(self, name: str, text: str) -> None:
        await self.stop()
        if text:
            self.clock.move(self._moment(text))
        await self.start()

    async def _cut(self, name: str, text: str) -> None:
        wire = self._wires.pop(("w", text), None) or self._wires.pop(("C", text), None)
        if wire is not None:  # else the server was quicker
            wire.leave()

    async def _write_file(self, name: str, text: str) -> None:
        file, _, line = text.partition(" ")
        with (self.data / file).open("a", encoding="utf-8") as out:
            out.write(line + "\n")

    async def _show_file(self, name: str, text: str) -> list[str]:
        return [f"F| {line}" for line in (self.data / text).read_text(encoding="utf-8").splitlines()]


_WAITS = (
    "first_byte_wait_s", "end_wait_s", "more_wait_s", "linger_s", "silent_close_s", "session_idle_s",
)  # fmt: skip
_PLAY: dict[str, Callable[[World, str, str], Any]] = {
    "C": World._client_says,
    "w": World._worker_says,
    "T": World._time_passes,
    "J": World._clock_is_set,
    "D": World._daemon_restarts,
    "X": World._cut,
    "f": World._write_file,
    "F": World._show_file,
}


@asynccontextmanager
async def a_world(data: Path, settings: dict[str, str]) -> AsyncIterator[World]:
    """A daemon that serves while the block runs."""
    async with trio.open_nursery() as nursery:
        world = World(data, settings, nursery)
        await world.start()
        yield world
        await world.stop()
        world.check_replay()


async def play_lines(lines: list[str], data: Path) -> list[str]:
    """The transcript with what is really said in place of what it expects.

    What was said on a line is put right after it; remarks and blank lines stay where they are.
    """
    lines = [line for line in lines if not OUTPUT.fullmatch(line)]
    settings: dict[str, str] = {}
    for line in lines:
        if line.startswith("O: "):
            settings |= split_options(line[3:])[0]
    played = []
    async with a_world(data, settings) as world:
        for line in lines:
            played.append(line)
            match = INPUT.fullmatch(line)
            if match and match[1] != "O":
                played += await world.play(match[1], match[2], match[3] or "")
            elif not match and line.strip() and not line.startswith("#"):
                raise AssertionError(f"what is this line of a transcript? {line!r}")
    return played


def play(lines: list[str], data: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """`play_lines` in a trio of its own; the tests call this."""
    # A thread's work would go on unseen while everybody waits, so files are read and written here.
    monkeypatch.setattr(trio.to_thread, "run_sync", run_here)
    # What is different each time, and takes time for its own sake.
    made = count(1)
    for module in "access", "logins":
        monkeypatch.setattr(f"cronflowd.daemon.{module}.new_token", lambda: f"{next(made):064x}")
        monkeypatch.setattr(f"cronflowd.daemon.{module}.make_password", lambda: f"made-{next(made):04d}")
    monkeypatch.setattr("cronflowd.daemon.strangers.FIRST_WAIT_S", 0.0)
    monkeypatch.setattr("cronflowd.host.secrets._hasher", lambda: PasswordHasher(1, 8, 1))
    return trio.run(play_lines, lines, data)


async def run_here(function: Callable[..., Any], *args: Any, **_: Any) -> Any:
    """What a thread would do, at once; put in the place of `trio.to_thread.run_sync`."""
    await trio.lowlevel.checkpoint()
    return function(*args)
