"""Changes of very many tasks through random lives: whatever comes between two slices, all of it or nothing.

A daemon is killed and started again, from the journal or from a checkpoint, in this zone or another; the disk
refuses and takes its time, tasks fire, runs end, clients leave. What the tasks have to be is known from the
moment at which a change is decided.
"""

from __future__ import annotations

import os
import random
from datetime import timedelta
from typing import Any

import orjson
import pytest
import trio
from trio._core import _run as scheduler

from cronflowd.ask import commands
from cronflowd.base import walks
from cronflowd.base.errors import Refusal
from cronflowd.daemon.bulk import LargeChanges
from cronflowd.daemon.core import Core
from cronflowd.engine import encoding
from cronflowd.engine import facts as f
from cronflowd.engine import orders as o
from cronflowd.engine.rules import Limits
from cronflowd.engine.state import State
from cronflowd.tasks.task import read_record
from tests.lib.engine_driver import START, snapshot
from tests.lib.harness import HandClock
from tests.lib.memory_journal import MemoryJournal
from tests.lib.waiting import PATIENCE_S

NAMES = [f"n{number}" for number in range(1, 9)]
SCHEDULES = ["* * * * *", "*/2 * * * *", "@every 90s", "0 13 * * *", "@on e"]
GLOBS = ["name=*", "name=n[1-5]", "tag=t"]
SETTINGS = ["timeout=90s", 'schedule="*/2 * * * *"', "count=2", "after=", "tags=t", "overlap=queue"]
SMALL = {  # so that everything is very many
    **dict.fromkeys([f"engine.{name}.AT_ONCE" for name in ("definitions", "slices", "undo")], 1),
    "daemon.bulk.AT_ONCE": 1, "daemon.bulk.STAGED_TOGETHER": 2, "daemon.bulk.MAX_AHEAD": 1,
    "daemon.turns.SLICE_S": -1.0, "daemon.turns.FREED_TOGETHER": 1,
    "engine.slices.SLICE": 2, "engine.slices.LOOKED_AT": 2, "engine.slices.WORKED_OUT": 2,
    "engine.unfinished.STAGED_TOGETHER": 2, "engine.changelog.LET_GO": 1, "engine.hearing.TOLD_AT_ONCE": 1,
    "engine.carried.TOGETHER_BITS": 1, "base.walks.SLICE_BITS": 1, "base.walks.SLICE": 2,
}  # fmt: skip

View = dict[int, tuple[dict[str, Any], tuple[Any, ...]]]  # definitions and pauses, by id


class Killed(Exception):
    """The process is no more."""


class SlowJournal(MemoryJournal):
    """A disk that takes its time, and nothing while it is `full`."""

    is_slow = False

    def flush(self) -> None:
        if not self.is_slow:
            self.arrive()

    def arrive(self) -> None:
        super().flush()


def view_of(state: State) -> View:
    tasks = state.own_tasks()
    return {task.id: (task.spec.record, (task.paused, task.paused_why)) for task in tasks}


class Life:
    """Several processes on one journal, and what their tasks have to be."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.clock: Any = HandClock(START)
        self.lines: list[bytes] = []
        self.views: list[tuple[int, View]] = [(0, {})]  # from which record on
        self.before: dict[int, View] = {}  # by change
        self.clients: list[trio.CancelScope] = []  # who say something, or said it
        self.undecided: list[tuple[Any, ...]] = []

    def run(self) -> None:
        for is_last in [False] * self.dice.randint(1, 4) + [True]:
            scheduler._r = random.Random(self.dice.random())
            try:
                trio.run(self._live, is_last)
            except* Killed:
                self.lines = self.journal.lines

    async def _live(self, is_last: bool) -> None:
        core = self._start()
        with trio.fail_after(PATIENCE_S):
            await LargeChanges(core).finish_alone()
        self.journal.is_slow = True
        assert core.state.unfinished.bulk is None
        assert view_of(core.state) == self.views[-1][1]
        async with trio.open_nursery() as nursery:
            for _ in range(self.dice.randint(40, 250)):
                self._happen(core, nursery)
                await trio.lowlevel.checkpoint()
            if not is_last:
                raise Killed
            self.journal.full = False
            with trio.fail_after(PATIENCE_S):
                await self._rest(core, nursery)
        again = State(core.state.default_tz)
        self.journal.arrive()
        for seq, at, fact in MemoryJournal(self.journal.lines).replay():
            again.apply(fact, at, seq)
        assert snapshot(again) == snapshot(core.state)
        assert core.state.ledger.balance(core.state.runs.values()).trouble == ""

    def _start(self) -> Core:
        tz = self.dice.choice(["UTC", "UTC", "Asia/Kolkata"])
        self.journal, state = SlowJournal(self.lines), State(tz)
        for seq, at, fact in self.journal.replay():
            state.apply(fact, at, seq)
        if self.dice.random() < 0.5:
            carried, last = State(tz), self.journal.last
            for fact in state.carry():
                line = encoding.encode(last, state.told_at, fact, False)
                carried.apply(encoding.decode(line)[2], state.told_at, last)
            state = carried
        while self.views[-1][0] > self.journal.last:  # it never was
            self.views.pop()
        core = self.core = Core(state, self.journal, self.clock, Limits())
        self.journal.notify = core.committed
        self.submit, core.submit = core.submit, self._submit  # type: ignore[method-assign]
        core.feeds.append(self)
        core.submit(o.StartDaemon("1", tz, zones=self.dice.choice(["a", "b"])))
        self.journal.arrive()
        return core

    def see(self, fact: f.Fact, at: Any, seq: int) -> None:
        """No moment that has come is taken away undecided."""
        if isinstance(fact, f.TaskRemoved | f.TaskChanged):
            task = self.core.state.tasks[fact.id]
            is_due = task.due_at is not None and task.due_at <= at
            if is_due and getattr(fact, "due_at", None) != task.due_at:
                self.undecided.append((task.name, task.due_at, fact))

    # --- what happens ---

    def _happen(self, core: Core, nursery: trio.Nursery) -> None:
        match self.dice.choices(
            ["beat", "slice", "disk", "time", "full", "client", "leave"], [9, 9, 8, 5, 1, 4, 1]
        ):
            case ["beat"]:
                core.beat()
            case ["slice"]:
                core.take_slice()
            case ["disk"]:
                self.journal.arrive()
            case ["time"]:
                self.clock.move(core.now() + timedelta(seconds=self.dice.choice([0.5, 31, 61, 700])))
                if self.dice.random() < 0.7:
                    core.beat()
            case ["full"]:
                self.journal.full = not self.journal.full
            case ["client"]:
                nursery.start_soon(self._say, core)
            case ["leave"] if self.clients:
                self.dice.choice(self.clients).cancel()

    async def _rest(self, core: Core, nursery: trio.Nursery) -> None:
        unfinished, passes = core.state.unfinished, 0
        while nursery.child_tasks or unfinished.bulk or unfinished.again or core._insisted or core._aside:
            passes += 1
            if passes % 100 == 0:
                self.clock.move(core.now() + timedelta(seconds=1))
            core.beat()
            core.take_slice()
            self.journal.arrive()
            await trio.lowlevel.checkpoint()

    async def _say(self, core: Core) -> None:
        changes = LargeChanges(core)
        with trio.CancelScope() as scope:
            self.clients.append(scope)
            try:
                order = self._order(core)
                if isinstance(order, o.LoadTasks):
                    await changes.done(await changes.load(order, "me"), "me")
                elif changes.is_large(order):
                    await changes.change(order, "me")
                else:
                    core.submit(order, "me")
            except Refusal as refusal:
                assert refusal.code != "internal"

    def _order(self, core: Core) -> Any:
        pick, name = self.dice.choice, self.dice.choice(NAMES)
        line = pick(
            [
                "LOAD", "LOAD", "CLEAR", "UNDO", "UNDO", "UNDO 2", "UNDO 4",
                f"SET {pick(GLOBS)} {pick(SETTINGS)}",
                f"PAUSE {pick(GLOBS)} why=tea", f"RESUME {pick(GLOBS)}", "RESUME all", f"RUN {pick(GLOBS)}",
                f"REMOVE {pick(GLOBS)} force=yes", f"REMOVE {name} force=yes",
                f"SET {name} name={pick(NAMES)}",
                f"ADD name={name} after={pick(NAMES)} @after x", f"ADD name={name} {pick(SCHEDULES)} x",
                "EMIT e",
            ]
        )  # fmt: skip
        if line != "LOAD":
            return commands.parse(line, commands.Context(core.now(), core.state.default_tz))
        names, records = self.dice.sample(NAMES, self.dice.choice([0, 4, 8])), list[Any]()
        for each in names:
            record = {
                "schedule": pick(SCHEDULES),
                "command": pick("xyz"),
                "jobName": each,
                "tags": pick("tu"),
            }
            if records and self.dice.random() < 0.4:
                record["after"] = names[0]
            records.append((None, read_record(record, core.state.default_tz)))
        return o.LoadTasks(records, file="x.db")

    # --- what the tasks have to be ---

    def _submit(self, order: Any, *about: Any, **more: Any) -> Any:
        changes = self.core.state.changes
        was, before, number = self.decided(), view_of(self.core.state), changes.next_number
        undone = changes.newest(order.count) if isinstance(order, o.UndoChanges) else []
        decision = self.submit(order, *about, **more)
        assert not self.undecided
        bulk, now = self.decided(), view_of(self.core.state)
        if changes.next_number != number:
            self.before[number] = before
        if undone:
            now = self.before[undone[-1].number]
        elif bulk and not was:
            now = self._wanted(order, bulk, before, now)
        if undone or not was:
            self.views.append((self.core.last_seq, now))
        if not bulk:
            assert view_of(self.core.state) == self.views[-1][1]
        return decision

    def decided(self) -> Any:
        bulk = self.core.state.unfinished.bulk
        return bulk if bulk and bulk.is_decided else None

    def _wanted(self, order: Any, bulk: Any, before: View, now: View) -> View:
        """What becomes of the tasks by what was staged."""
        tz = self.core.state.default_tz
        lines = ((each, line) for each, line in bulk.entries.items() if line)
        staged = {each: read_record(orjson.loads(line), tz) for each, line in lines}
        pauses = {each: pause for each, (_, pause) in before.items()}
        match order:
            case o.DecideLoad():
                return {each: (spec.record, pauses.get(each, (False, ""))) for each, spec in staged.items()}
            case o.ClearTasks():
                return {}
            case o.SetTask() if bulk.kind == "rename":
                [old] = {row[0]["jobName"] for each, row in before.items() if row != now[each]}
                [new] = {row[0]["jobName"] for each, row in now.items() if row != before[each]}
                return {each: (_waiting(record, {old: new}), pause) for each, (record, pause) in now.items()}
            case o.SetTask():
                return {
                    each: (staged[each].record if each in staged else row[0], row[1])
                    for each, row in before.items()
                }
            case o.RemoveTask():
                gone = {before[each][0]["jobName"]: "" for each in bulk.entries}
                stay = ((each, row) for each, row in before.items() if each not in bulk.entries)
                return {each: (_waiting(record, gone), pause) for each, (record, pause) in stay}
            case o.PauseTasks():
                return {
                    each: (row[0], (True, "tea") if each in bulk.entries else row[1])
                    for each, row in before.items()
                }
            case o.ResumeTasks():
                every = bulk.entries or before
                return {
                    each: (row[0], (False, "") if each in every else row[1]) for each, row in before.items()
                }
        assert isinstance(order, o.RunTask)
        return before


def _waiting(record: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """A record whose task waits for others by these names, or not any more."""
    after = [
        new for name in filter(None, record.get("after", "").split(",")) if (new := names.get(name, name))
    ]
    rest = {key: value for key, value in record.items() if key != "after" or after}
    return rest | ({"after": ",".join(after)} if after else {})


@pytest.mark.parametrize("seed", range(int(os.environ.get("CRONFLOWD_LIVES", "25"))))
def test_a_change_of_very_many_is_whole_or_nothing_whatever_comes_between(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Half of one would be jobs that silently run no longer, or for ever `busy`."""
    for name, value in SMALL.items():
        monkeypatch.setattr(f"cronflowd.{name}", value)
    monkeypatch.setattr(walks.Numbered, "_shift", 1)
    Life(seed).run()
