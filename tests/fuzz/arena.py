"""Plays a script against a whole daemon in this process, and judges what came of it.

What must hold whatever was said: no bug is reported or logged, nothing is raised, the journal
alone gives the same state, every fire is accounted for, nobody does what its role may not do, a
worker ends only what it was given, and no line takes more than so many calls.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from argon2 import PasswordHasher

from cronflowd.base.replies import Reply
from cronflowd.daemon import core as core_module
from cronflowd.engine import access_facts as a
from cronflowd.engine import facts as f
from cronflowd.engine import orders as o
from cronflowd.host import secrets as passwords
from cronflowd.net import workers
from cronflowd.net.clients import Session
from tests.fuzz.scripts import ROLES, WORKERS, Step, format_step
from tests.lib.calls import counting
from tests.lib.harness import Wire, World, run_here

FILE_TOKEN = "file-token"
SETTINGS = {"token": FILE_TOKEN, "ask": "yes", "tasks": "200", "output": "20000"}
MAX_CALLS = 60_000  # of functions, ours and the interpreter's, for one line
CALLS_A_BYTE = 40
MAX_CPU_S = 2.0  # a thousand times what any line takes; an expression that backtracks is one call

# What is journaled for whoever only looks.
SEEN = (a.SignedIn, a.Refused)
OF_ADMINS = (a.AccountRemoved, a.TokenAdded, a.TokenRevoked, a.SecretPut, a.SecretRemoved)
OF_OPERATORS = (f.TemplateSet, f.WorkerDrained, f.ExpectationSet, f.ExpectationForgotten, f.TasksSaved)
ROLE_OF = {"nobody": "stranger", "w1": "worker", "w2": "worker"}


class Bugs(logging.Handler):
    """Keeps what the log tells of bugs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info or "bug" in record.getMessage():
            self.found.append(logging.Formatter().format(record))


class LocalWire(Wire):
    """A connection on the unix socket."""

    kind = "unix"


class Arena(World):
    """The world of transcripts, where clients are called by their role and say bytes."""

    def __init__(self, data: Path, settings: dict[str, str], nursery: trio.Nursery) -> None:
        super().__init__(data, settings, nursery)
        self.asks = "token" in settings
        self.speaker = ""
        self.held: dict[int, str | None] = {}  # which worker had which run before the step
        self.owned: dict[int, str] = {}
        self.nonces: dict[str, str] = {}  # that a worker said last
        self.names: dict[str, set[str]] = {}  # that a connection may bear, by what it has said
        self.calls = 0  # of the most expensive line, less what its length may cost

    # --- its life ---

    async def start(self) -> None:
        is_new = not (self.data / "known").exists()
        self.speaker = ""
        await super().start()
        if is_new:
            self._let_in()
            (self.data / "known").touch()
        self.core.feeds.append(self)
        self._count_calls()

    def _let_in(self) -> None:
        """Accounts and tokens of every role."""
        for name in ROLES:
            password = CHEAP.hash(f"password-{name}")
            self.core.submit(o.SetAccount(name, {"role": name, "password": password}, True))
            digest = hashlib.sha256(f"token-{name}".encode()).hexdigest()
            self.core.submit(o.AddToken(digest, "", name, "", name))
        for name in WORKERS[:-1]:
            digest = hashlib.sha256(f"token-{name}".encode()).hexdigest()
            self.core.submit(o.AddToken(digest, "", name, "worker", "", name))

    def _count_calls(self) -> None:
        handle = self.answers.handle

        def counted(line: str, session: Session, now: datetime) -> Any:
            return self.bounded(line, lambda: handle(line, session, now))

        self.answers.handle = counted  # type: ignore[method-assign]

    def bounded(self, line: str, work: Callable[[], Any]) -> Any:
        """Does what a line asks, and counts what it takes: everybody else waits meanwhile."""
        began_s = time.thread_time()
        with counting() as calls:
            try:
                return work()
            finally:
                sys.setprofile(None)
                self.calls = max(self.calls, calls[0] - CALLS_A_BYTE * len(line))
                spent_s = time.thread_time() - began_s
                assert self.calls <= MAX_CALLS, f"{calls[0]} calls for {line[:200]!r}"
                assert spent_s <= MAX_CPU_S, f"{spent_s:.1f} s for {line[:200]!r}"

    # --- a step ---

    async def do(self, step: Step) -> str:
        """Does it; what it led to, as everybody reads it."""
        self.speaker = ROLE_OF.get(step.who, step.who) if step.kind in "Cw" else ""
        self.held = {run.id: run.worker for run in self.core.state.runs.values()}
        self.owned = {task.id: task.spec.options.owner for task in self.core.state.tasks.values()}
        self.name = step.who
        if step.kind in ("C", "w"):
            self._says_bytes(step)
        elif step.kind == "T":
            await self._time_passes("", f"+{step.who}s")
            trio.lowlevel.current_clock().jump(float(step.who))  # type: ignore[attr-defined]
        elif step.kind == "X":
            for kind in "Cw":
                if wire := self._wires.pop((kind, step.who), None):
                    wire.leave()
        elif step.kind == "D":
            await self.stop()
            self.check_replay()
            await self.start()
        await self.settle()
        said = self._heard()
        await self.settle()  # a challenge was answered
        return said + self._heard()

    def _says_bytes(self, step: Step) -> None:
        is_new = (step.kind, step.who) not in self._wires
        if is_new:
            self.names[step.who] = set()
        self.names[step.who].update(re.findall(r'name="?([\w.-]+)', step.data.decode("latin-1")))
        wire = self._local_wire() if step.who == "somebody" else self._wire(step.kind, step.who)
        if is_new and step.who in ROLES and step.data[:1].isalpha():
            wire.say(f"AUTH token-{step.who}")
        if match := re.search(rb"nonce=([0-9a-f]+)", step.data):
            self.nonces[step.who] = match[1].decode()
        if step.data:
            wire._to_server += step.data
            wire._arrive()

    def _local_wire(self) -> Wire:
        """The end of somebody whom the kernel knows and we do not."""
        if found := self._wires.get(("C", "somebody")):
            return found
        wire = self._wires["C", "somebody"] = LocalWire("unix:pid=1,uid=4711")
        self._connections.start_soon(self._serve_client, wire)
        return wire

    def _prove(self, wire: Wire, name: str, nonce: str) -> None:
        """As a worker does that has the token of this name."""
        key = hashlib.sha256(f"token-{name}".encode()).digest()
        text = f"worker {name} {self.nonces.get(name, '')} {nonce}"
        wire.say(f"PROVE {hmac.digest(key, text.encode(), 'sha256').hex()}")

    def _heard(self) -> str:
        said = ""
        for key, wire in list(self._wires.items()):
            heard = bytes(wire._to_peer).decode("latin-1")
            wire._to_peer.clear()
            if key[0] == "w" and (match := re.match(r"CHALLENGE (\w+) ", heard)):
                self._prove(wire, key[1], match[1])
            said += heard
            if wire.is_over:
                wire.leave()
                del self._wires[key]
        return said

    # --- the judge ---

    def see(self, fact: f.Fact, at: datetime, seq: int) -> None:
        """What was journaled, and by whose doing."""
        who, kind = self.speaker, type(fact)
        told = f"{kind.__name__} by {who}"
        if isinstance(fact, f.RunStarted | f.RunEnded | f.OutputReceived) and who == "worker":
            late = isinstance(fact, f.OutputReceived) and all(line[0] == 0 for line in fact.lines)
            names = {self.name} if self.asks else self.names[self.name]
            assert late or self.held.get(fact.run) in (None, *names), told
        if isinstance(fact, f.WorkerJoined) and self.asks:
            assert fact.name == self.name, told
        if who == "somebody":
            assert kind in SEEN, told
        if not self.asks:
            return
        if who == "stranger":
            assert kind in SEEN, told
        if who == "viewer":
            assert kind in SEEN or (isinstance(fact, a.AccountSet) and fact.name == who), told
        if who == "user":
            assert kind not in OF_ADMINS + OF_OPERATORS, told
            assert not isinstance(fact, a.AccountSet) or fact.name == who, told
            if isinstance(fact, f.TaskChanged | f.TaskRemoved | f.TaskPaused | f.TaskResumed):
                assert fact.id is not None, told
                assert self.owned.get(fact.id, who) == who, told
        if who == "operator":
            assert kind not in OF_ADMINS, told
            assert not isinstance(fact, a.AccountSet) or fact.name == who, told


CHEAP = PasswordHasher(1, 8, 1)


async def _play(script: list[Step], data: Path, patch: Callable[..., None]) -> int:
    settings = SETTINGS if Step("open") not in script[:1] else {"tasks": "200", "output": "20000"}
    bugs, logger = Bugs(), logging.getLogger()
    logger.addHandler(bugs)
    try:
        async with trio.open_nursery() as nursery:
            world = Arena(data, settings, nursery)
            take = workers.Batch.take
            patch(workers.Batch, "take", lambda batch, line: world.bounded(line, lambda: take(batch, line)))
            await world.start()
            for step in script:
                said = await world.do(step)
                assert not bugs.found, bugs.found[0]
                assert "ERR internal a bug" not in said, said
                assert "unbalanced" not in said, said
            world.speaker = ""
            proof = world.answers.handle("PROVE", Session(1, "judge", "unix"), world.clock.now())
            reply = proof if isinstance(proof, Reply) else await proof
            assert reply.text == "balanced", reply
            await world.stop()
            world.check_replay()
        return world.calls
    finally:
        logger.removeHandler(bugs)


def play(script: list[Step], data: Path) -> int:
    """Raises whatever is wrong; the calls of its most expensive line."""
    with pytest.MonkeyPatch.context() as patch:
        # A thread's work would go on unseen while everybody waits; a slow machine would do less in a beat.
        patch.setattr(trio.to_thread, "run_sync", run_here)
        patch.setattr(core_module, "BEAT_S", 60.0)
        patch.setattr(passwords, "_hasher", lambda: CHEAP)
        try:
            return trio.run(_play, script, data, patch.setattr, clock=trio.testing.MockClock())
        except BaseException as error:
            error.add_note("the script:\n" + "\n".join(map(format_step, script)))
            raise
