"""Sessions of every role on one core without disk or sockets, and what was journaled of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from attrs import define, field

from cronflowd.base.errors import Refusal
from cronflowd.base.replies import Reply, format_status
from cronflowd.daemon.access import Known
from cronflowd.daemon.answers import Answers
from cronflowd.daemon.core import Core
from cronflowd.engine import facts as f
from cronflowd.engine.access import RANK
from cronflowd.engine.orders import JoinWorker, StartDaemon
from cronflowd.engine.rules import Limits
from cronflowd.engine.state import State
from cronflowd.host.vault import Vault
from cronflowd.net.clients import Session
from cronflowd.tasks.options import Common
from tests.lib.harness import OWNER, START, HandClock
from tests.lib.memory_journal import MemoryJournal


@define
class NoOutbox:
    """Of a connection that nobody reads."""

    why_cut: str | None = None
    before_put: Callable[[], None] | None = None

    def cut(self, why: str) -> None:
        self.why_cut = why


def hash_quickly(patch: pytest.MonkeyPatch) -> list[str]:
    """Hashes that take no time; which passwords are compared from now on."""
    compared: list[str] = []

    def compare(hashed: str, offered: str) -> bool:
        compared.append(offered)
        return hashed == f"hash of {offered}"

    patch.setattr("cronflowd.daemon.access.hash_password", lambda password: f"hash of {password}")
    patch.setattr("cronflowd.daemon.access.is_password", compare)
    return compared


@define(slots=False)
class House:
    """A core with a worker, and whoever comes."""

    data: Path
    asks: bool = False
    tokens: tuple[bytes, ...] = ()
    is_bare: bool = False  # nothing has happened yet
    facts: list[f.Fact] = field(factory=list)  # all that were journaled since

    def __attrs_post_init__(self) -> None:
        self.clock = HandClock(START)
        self.journal = MemoryJournal()
        state = State("UTC", common=Common(owner=OWNER))
        state.access.vault = Vault(self.data)
        clock = cast(Any, self.clock)
        self.core = Core(state, self.journal, clock, Limits())
        self.core.asks_tcp, self.core.asks_local, self.core.tokens = self.asks, self.asks, self.tokens
        self.journal.notify = self.core.committed
        if not self.is_bare:
            self.core.submit(StartDaemon("1", "UTC"))
            self.core.submit(JoinWorker("w1", 9, {}, ("shell",), "here", ()))
        self.answers = Answers(self.core, self.data)
        self.core.feeds.append(self)

    def see(self, fact: f.Fact, at: datetime, seq: int) -> None:
        self.facts.append(fact)

    @property
    def state(self) -> State:
        return self.core.state

    def session(self, name: str = "", role: str = "", address: str = "192.0.2.7:40001") -> Session:
        """A connection; of somebody who has shown who it is, where a name is given."""
        outbox = cast(Any, NoOutbox())
        session = Session(outbox, address, "unix" if address.startswith("unix") else "tcp")
        self.answers.enter(session)
        if name:
            session.authenticated = True
            self.core.admission._become(session, Known(name, RANK[role] if role else -1))
        return session

    async def ask(self, session: Session, line: str) -> Reply:
        """What one line is answered; raises Refusal."""
        answer = self.answers.handle(line, session, self.clock.now())
        self.journal.flush()
        if isinstance(answer, Reply):
            return answer
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_beating)
            found: Reply | Refusal
            try:
                found = await cast(Awaitable[Reply], answer)
            except Refusal as refusal:
                found = refusal
            nursery.cancel_scope.cancel()
        if isinstance(found, Refusal):
            raise found
        return found

    async def _keep_beating(self) -> None:
        while True:
            self.core.beat()
            self.core.take_slice()
            await trio.sleep(0.001)

    async def says(self, session: Session, line: str) -> str:
        """`OK …`, or `ERR …`, as it would be read."""
        try:
            reply = await self.ask(session, line)
            rows = sum(row is not None for row in reply.rows) if reply.count_key else 0
            return format_status(reply, as_json=False, rows=rows)
        except Refusal as refusal:
            return f"ERR {refusal.code} {refusal.message}"

    def carried(self) -> list[f.Fact]:
        return list(self.state.carry())


async def a_house(data: Path, **settings: Any) -> House:
    """One with an admin, root, and ann, who is an operator."""
    house = House(data, **settings)
    root = house.session("root", "admin")
    for line in "USER ADD root role=admin password=battery-staple", "USER ADD ann password=correct-horse":
        await house.ask(root, line)
    house.facts.clear()
    return house
