"""The loop's promises at its edges: what is refused, what insists, what is full, what is broken."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, ClassVar, cast

import pytest
import trio
import trio.testing

from cronflowd.ask import commands
from cronflowd.base.errors import Exit, Fatal, Refusal
from cronflowd.daemon.core import ASIDE_S, RETRY_S, STEPS_PER_BEAT, Core
from cronflowd.engine import facts as f
from cronflowd.engine import orders as o
from cronflowd.engine.rules import Decision, Limits
from cronflowd.engine.state import State
from cronflowd.journal.journal import MemoryJournal
from cronflowd.net import poller, workers
from cronflowd.net.listeners import Connection
from cronflowd.net.workers import MAX_OWED_BYTES, SLICE_LINES, Link, serve_worker
from cronflowd.tasks.reasons import in_words
from tests.lib.engine_driver import START
from tests.lib.harness import HandClock, Wire
from tests.lib.steps import counted_steps


class PickyJournal(MemoryJournal):
    """Refuses decisions that hold one of these facts."""

    refused: ClassVar[tuple[type[f.Fact], ...]] = ()

    def append(self, facts: Sequence[f.Fact], at: datetime) -> int:
        if any(isinstance(fact, self.refused) for fact in facts):
            raise Refusal("disk-full", "no space left")
        return super().append(facts, at)


def make_core(journal: MemoryJournal | None = None) -> Core:
    core = Core(State("UTC"), journal or PickyJournal(), HandClock(START), Limits())
    core.journal.notify = core.committed
    core.submit(o.StartDaemon("1", "UTC"))
    return core


class Reader:
    """A worker's connection that takes whatever it is given."""

    owes_much = False

    def send(self, line: str) -> None:
        """It reads everything at once."""

    def flush(self, seq: int) -> None:
        """And owes nothing."""


class Listener:
    """Hears all that happens."""

    def __init__(self, told: list[f.Fact]) -> None:
        self.told = told

    def see(self, fact: f.Fact, at: datetime, seq: int) -> None:
        self.told.append(fact)


def line(core: Core, text: str) -> Any:
    return core.submit(commands.parse(text, commands.Context(core.now(), "UTC")))


# --- what cannot be applied -----------------------------------------------------------------------


def test_what_was_appended_and_cannot_be_applied_is_the_end_before_it_is_committed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Committed, it would make every later start fail; served on, it would be half true."""
    journal = PickyJournal()
    core = make_core(journal)
    line(core, "ADD * * * * * good")
    core.beat()
    before = journal.lines
    monkeypatch.setattr(State, "set_due", lambda *_: 1 / 0)
    with pytest.raises(Fatal) as found:
        line(core, "ADD * * * * * bad")
    assert found.value.status == Exit.BUG
    core.journal.flush()
    assert journal.lines == before
    with pytest.raises(Fatal):
        core.submit(o.JoinWorker("a", 1, {}, ("shell",), "here", ()))
    again = State("UTC")
    for seq, at, fact in MemoryJournal(journal.lines).replay():
        monkeypatch.undo()
        again.apply(fact, at, seq)
    assert [task.spec.command for task in again.tasks.values()] == ["good"]


# --- what insists, what is due --------------------------------------------------------------------


def test_what_insists_and_is_refused_does_not_keep_what_is_due() -> None:
    """A worker's end that finds no space on the disk must not stop everybody's schedules."""
    core = make_core()
    core.submit(o.JoinWorker("a", 1, {}, ("shell",), "here", ()))
    line(core, "ADD name=t 0 13 * * * x")
    PickyJournal.refused = (f.WorkerLeft,)
    try:
        core.insist(o.DropWorker("a", "cut"))
        core.beat()
        assert core.state.workers["a"].connected
        core.clock.move(START.replace(hour=13))  # type: ignore[attr-defined]
        core.beat()
        assert [run.task_id for run in core.state.runs.values()] == [1]
    finally:
        PickyJournal.refused = ()
    core.beat()
    assert not core.state.workers["a"].connected


def test_what_insists_and_is_refused_for_ever_holds_up_no_other_order() -> None:
    """One record that the journal will never take must not keep a worker connected that has gone."""
    core = make_core()
    for name in ("a", "b"):
        core.submit(o.JoinWorker(name, 1, {}, ("shell",), "here", ()))
    PickyJournal.refused = (f.WorkerLeaving,)
    try:
        core.insist(o.DismissWorker("a"))
        core.insist(o.DropWorker("b", "cut"))
        core.beat()
        assert not core.state.workers["b"].connected
    finally:
        PickyJournal.refused = ()
    core.beat()
    assert core.state.workers["a"].leaving


class Strict(PickyJournal):
    """Takes nothing that is about these runs, tasks and expectations."""

    code = "too-long"
    about: ClassVar[tuple[object, ...]] = ()

    def append(self, facts: Sequence[f.Fact], at: datetime) -> int:
        for fact in facts:
            for name in ("run", "task", "name"):
                if (name, getattr(fact, name, None)) in self.about:
                    raise Refusal(self.code, "it is told so by this test")
        return super().append(facts, at)


def hour(core: Core, hours: float) -> None:
    """It is so late now."""
    core.clock.move(START + timedelta(hours=hours))  # type: ignore[attr-defined]
    for _ in range(10):
        core.beat()


def fired(state: State) -> object:
    return {run.task_id for run in state.runs.values()}


def ended(state: State) -> object:
    return {1, 2} - {run.id for run in state.runs.values() if run.state != "stopping"}


WAITING = [
    "ADD name=x @every 5h x", "ADD name=y @every 5h y", "ADD after=x @every 1h a", "ADD after=y @every 1h b",
    1.0, "RUN x", "RUN y",
]  # fmt: skip
# How two come to be due of which one is refused, what it is about, and when; then who has got through.
DUE: dict[str, tuple[list[Any], tuple[str, object], float, Callable[[State], object]]] = {
    "FireTask": (["ADD @every 1h a", "ADD @every 1h b"], ("task", 1), 1, fired),
    "PlaceRuns": (
        ["ADD prio=high @every 1d a", "ADD @every 1d b", "DRAIN w", "RUN 1", "RUN 2", "UNDRAIN w"],
        ("run", 1), 0, lambda s: {r.id for r in s.runs.values() if r.worker},
    ),
    "ReleaseRun": (
        ["ADD retry=fixed:1:1h @every 1d a", "ADD retry=fixed:1:1h @every 1d b", "RUN 1", "RUN 2",
         o.ReportEnded("w", 1, 1, 1, {}), o.ReportEnded("w", 2, 1, 1, {})],
        ("run", 1), 1, lambda s: {r.id for r in s.runs.values() if r.state != "delayed"},
    ),
    "ExpireRun": (
        ["ADD on=x grace=30m @every 1d a", "ADD on=x grace=30m @every 1d b", "RUN 1", "RUN 2"],
        ("run", 1), 1, ended,
    ),
    "TimeoutRun": (
        ["ADD timeout=30m @every 1d a", "ADD timeout=30m @every 1d b", "RUN 1", "RUN 2"],
        ("run", 1), 1, ended,
    ),
    "LoseRun": (
        ["ADD @every 1d a", "ADD @every 1d b", "RUN 1", "RUN 2", o.DropWorker("w", "cut", 1)],
        ("run", 1), 1, ended,
    ),
    "FireOn": (
        ["ADD @on e a", "ADD @on e b", "EMIT e"], ("task", 1), 0, fired
    ),
    "FireAfter": (
        ["ADD name=x @every 1d x", "ADD name=y @every 1d y", "ADD after=x @after a", "ADD after=y @after b",
         "RUN x", "RUN y", o.ReportEnded("w", 1, 1, 0, {}), o.ReportEnded("w", 2, 1, 0, {})],
        ("task", 3), 0, fired,
    ),
    "BreakRun": (
        [*WAITING, o.ReportEnded("w", 3, 1, 1, {}), o.ReportEnded("w", 4, 1, 1, {})],
        ("run", 1), 1, ended,
    ),
    "AdmitRun": (
        [*WAITING, o.ReportEnded("w", 3, 1, 0, {}), o.ReportEnded("w", 4, 1, 0, {})],
        ("run", 1), 1, lambda s: {r.id for r in s.runs.values() if r.worker and r.id < 3},
    ),
    "MissBeat": (
        ["EXPECT a every=10m grace=0s", "EXPECT b every=10m grace=0s"],
        ("name", "a"), 1, lambda s: {each.name for each in s.beats.expected.values() if each.state == "late"},
    ),
    "TellUnread": (
        [f.TaskAdded(1, {"jobName": "a", "schedule": "x", "command": "a"}, START, None),
         f.TaskAdded(2, {"jobName": "b", "schedule": "x", "command": "b"}, START, None)],
        ("name", "a"), 0, lambda s: {t.id for t in s.tasks.values() if t.failure},
    ),
}  # fmt: skip


@pytest.mark.parametrize("code", ["too-long", "disk-full"])
@pytest.mark.parametrize("kind", DUE)
def test_what_is_due_and_refused_stops_nobody_and_is_tried_again(
    kind: str, code: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One task whose record the journal does not take stood in front of everything that came due after it."""
    lines, about, hours, through = DUE[kind]
    monkeypatch.setattr(Strict, "code", code)
    core = make_core(Strict())
    core.links["w"] = cast(Link, Reader())
    core.submit(o.JoinWorker("w", 9, {}, ("shell",), "here", (), connection=1))
    every = {"a", "b"} if kind == "MissBeat" else {3, 4} if kind == "FireAfter" else {1, 2}
    refused = "a" if kind == "MissBeat" else min(cast(set[int], every))
    seen: list[str] = []
    decide = core.engine.decide
    monkeypatch.setattr(
        core.engine,
        "decide",
        lambda order, *rest: (seen.append(type(order).__name__), decide(order, *rest))[1],
    )
    for step in lines:
        if isinstance(step, float):
            hour(core, step)
        elif isinstance(step, f.Fact):
            core.state.apply(step, START)
        elif isinstance(step, str):
            line(core, step)
        else:
            core.submit(step)
    monkeypatch.setattr(Strict, "about", (about,))
    hour(core, hours)
    assert (kind in seen, through(core.state)) == (True, every - {refused})
    assert core._armed is not None
    assert core._armed <= core.now() + timedelta(seconds=ASIDE_S)
    assert caplog.text.count("cannot be decided") == 1
    monkeypatch.setattr(Strict, "about", ())
    hour(core, hours + 0.01)
    assert through(core.state) == every


def test_one_beat_takes_a_bounded_number_of_steps() -> None:
    """Whoever is connected gets a turn, however much is due."""
    core = make_core()
    for number in range(3 * STEPS_PER_BEAT):
        line(core, f"ADD name=t{number} 0 13 * * * x")
    core.clock.move(START.replace(hour=13))  # type: ignore[attr-defined]
    core.beat()
    assert 0 < len(core.state.runs) <= STEPS_PER_BEAT
    while core._decide_due():
        pass
    assert len(core.state.runs) == 3 * STEPS_PER_BEAT


def test_what_is_asked_for_while_the_daemon_stops_waits_for_the_next_one() -> None:
    """Its order would never leave, or begin a run that nobody is here to hear of."""
    core = make_core()
    core.submit(o.JoinWorker("a", 2, {}, ("shell",), "here", ()))
    core.stop_deciding()
    core.hold_back("a", full=False)  # its connection has room again
    assert line(core, "NOW x").messages == []
    assert [run.state for run in core.state.runs.values()] == ["queued"]


def test_what_insists_is_tried_again_while_the_daemon_stops() -> None:
    """Orders that never left are told last of all; untold, their runs would be lost after the next start."""
    core = make_core()
    core.submit(o.JoinWorker("a", 2, {}, ("shell",), "here", ()))
    core.stop_deciding()
    PickyJournal.refused = (f.WorkerLeft,)
    try:
        core.insist(o.DropWorker("a", "cut"))
        core.beat()
    finally:
        PickyJournal.refused = ()
    assert core._armed == START + timedelta(seconds=RETRY_S)
    core.beat()
    assert core._armed is None
    assert not core.state.workers["a"].connected


def test_what_a_decision_warns_of_is_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The engine has no log; that nobody could be told of a failure stands in it all the same."""
    core = make_core()
    warned = Decision(warning="notification notify_2 failed")
    monkeypatch.setattr(core.engine, "decide", lambda *_: warned)
    core.submit(o.TellUnread(1))
    assert caplog.messages == ["notification notify_2 failed"]


# --- workers --------------------------------------------------------------------------------------


Connect = Callable[[Wire], None]


@pytest.fixture
def core(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> Core:
    """One whose heart beats, on time that leaps."""
    core = make_core()
    nursery.start_soon(core.run)
    return core


@pytest.fixture
def connect(nursery: trio.Nursery, core: Core) -> Connect:
    """Has a worker served at this end of a wire."""
    return lambda wire: nursery.start_soon(serve_worker, wire, core)


async def until_quiet() -> None:
    await trio.testing.wait_all_tasks_blocked()


class NarrowWire(Wire):
    """A worker whose socket takes so many bytes; its reads make room again."""

    def __init__(self, room: int) -> None:
        super().__init__("192.0.2.9:1")
        self.room = room
        self._room_came = trio.Event()

    def send_now(self, data: bytes | memoryview) -> int:
        taken = bytes(data[: self.room])
        self.room -= len(taken)
        super().send_now(taken)
        return len(taken)

    async def wait_writable(self) -> None:
        while not self.room:
            await self._room_came.wait()

    def abort(self) -> None:
        super().abort()
        self.leave()  # the reader finds an end of input

    def make_room(self, size: int) -> None:
        self.room += size
        self._room_came.set()
        self._room_came = trio.Event()

    def whole_lines(self) -> list[str]:
        lines = self._to_peer.decode().split("\n")
        self._to_peer = bytearray(lines.pop().encode())
        return lines


def reasons_told(core: Core) -> list[Any]:
    """Why workers left, as the engine is told of it from now on."""
    told: list[Any] = []
    insist = core.insist

    def tell(order: Any) -> None:
        told.append(in_words(order.why))
        insist(order)

    core.insist = tell  # type: ignore[method-assign]
    return told


async def reader_of_large_orders(core: Core, connect: Connect, count: int) -> NarrowWire:
    """A worker with room for all of these runs, of which it has taken nearly nothing yet."""
    wire = NarrowWire(1000)
    connect(wire)
    wire.say("HELLO name=a slots=500")
    await until_quiet()
    for _ in range(count):
        line(core, "NOW " + "x" * 50_000)
    core.wake()
    await until_quiet()
    return wire


async def test_a_worker_that_takes_little_is_given_no_more_than_it_takes(
    core: Core, connect: Connect
) -> None:
    """Hundreds of large orders for a worker that reads all the time: none is lost, nobody is cut."""
    wire = await reader_of_large_orders(core, connect, 120)
    assert core.links["a"].outbox.pending_bytes < 2 * MAX_OWED_BYTES
    assert core.state.lanes.free == {}
    got: list[str] = []
    for _ in range(1000):
        wire.make_room(64 * 1024)
        await until_quiet()
        got += [text.split(" ")[1] for text in wire.whole_lines() if text.startswith("RUN ")]
        if len(got) == 120:
            break
    assert sorted(map(int, got)) == list(range(1, 121))
    assert core.state.totals == {}


async def test_a_worker_that_reports_while_it_still_reads_is_given_runs_again(
    core: Core, connect: Connect
) -> None:
    """An ACK that goes out when it owes less must not make us forget that it was held back."""
    wire = await reader_of_large_orders(core, connect, 30)
    assert core.state.lanes.full == {"a"}
    wire.make_room(800_000)
    await until_quiet()
    wire.say("DONE 1 1 0")
    await until_quiet()
    wire.make_room(1 << 30)
    await until_quiet()
    assert core.state.lanes.full == set()
    assert {run.state for run in core.state.runs.values()} == {"sent"}


async def test_orders_that_have_not_left_when_a_link_ends_wait_for_the_next_worker(
    core: Core, connect: Connect
) -> None:
    """Only what left to its last byte may have begun."""
    wire = NarrowWire(1000)
    connect(wire)
    wire.say("HELLO name=a slots=10")
    await until_quiet()
    for _ in range(5):
        line(core, "NOW " + "x" * 400)
    core.wake()
    await until_quiet()
    whole = [int(text.split(" ")[1]) for text in wire.whole_lines() if text.startswith("RUN ")]
    assert 0 < len(whole) < 5
    wire.leave()
    await until_quiet()
    assert {run.id for run in core.state.runs.values() if run.state == "sent"} == set(whole)
    assert {run.attempt for run in core.state.runs.values() if run.state == "queued"} == {2}


async def test_a_worker_that_was_cut_is_told_of_as_that(core: Core, connect: Connect) -> None:
    """Whoever looks for the fault would search the network, when the worker is it."""
    wire = NarrowWire(100)
    connect(wire)
    wire.say("HELLO name=a slots=10")
    await until_quiet()
    told = reasons_told(core)
    line(core, "NOW " + "x" * 400)
    core.wake()
    await trio.sleep(15)
    assert told == ["it took nothing for 10 s"]


@pytest.mark.parametrize(
    ("is_replaced", "why"),
    [(True, "a newer connection of the same name has taken its place"), (False, "the daemon stops")],
)
async def test_a_worker_that_is_let_go_is_told_of_with_the_reason(
    core: Core, connect: Connect, is_replaced: bool, why: str
) -> None:
    """One that does not close when the daemon stops has no second worker of its name."""
    wire = Wire("192.0.2.9:1")
    connect(wire)
    wire.say("HELLO name=a slots=1")
    await until_quiet()
    told = reasons_told(core)
    if is_replaced:
        second = Wire("192.0.2.9:2")
        connect(second)
        second.say("HELLO name=a slots=1")
    else:
        core.links["a"].scope.cancel()
    await until_quiet()
    assert told == [why]


@pytest.mark.parametrize(
    ("said", "facts"),
    [
        ("STARTED 1 1\nDONE 1 1 0", ["RunEnded"]),
        ("STARTED 1 1\nSTARTED 2 1\nDONE 1 1 0", ["RunEnded", "RunStarted"]),
        ("STARTED 1 1\nOUT 1 1 hello\nDONE 1 1 0", ["RunStarted", "OutputReceived", "RunEnded"]),
        ("STARTED 1 1", ["RunStarted"]),
        ("STARTED 1 1\nDONE 1 2 0", ["OutputReceived", "RunStarted"]),
    ],
)
async def test_a_start_that_is_reported_with_its_end_needs_no_fact_of_its_own(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, said: str, facts: list[str]
) -> None:
    """Short jobs are most jobs; but whatever is reported in between has its place after the start."""
    core = make_core()
    nursery.start_soon(core.run)
    wire = Wire("192.0.2.9:1")
    nursery.start_soon(serve_worker, wire, core)
    wire.say("HELLO name=a slots=2")
    await until_quiet()
    line(core, "NOW x")
    line(core, "NOW x")
    told: list[f.Fact] = []
    core.feeds.append(Listener(told))
    wire.say(said)
    await until_quiet()
    assert [type(fact).__name__ for fact in told if not isinstance(fact, f.TaskRemoved)] == facts
    ended = [fact for fact in told if isinstance(fact, f.RunEnded)]
    assert [(fact.state, fact.started_at) for fact in ended] == [("ok", START)] * len(ended)
    nursery.cancel_scope.cancel()


async def test_what_was_answered_before_a_wrong_line_is_said_before_the_refusal(
    core: Core, connect: Connect
) -> None:
    """Whoever writes a worker by hand sees that its HELLO was right, and which line was not."""
    wire = Wire("192.0.2.9:1")
    wire.say("HELLO name=a slots=1\nDONE 7 1 0\nNONSENSE")
    connect(wire)
    await until_quiet()
    assert [text.split(" ")[0] for text in wire.take_lines()] == ["OK", "ACK", "ERR"]


async def test_a_hello_that_the_journal_refuses_leaves_the_older_connection_in_place(
    core: Core, connect: Connect
) -> None:
    """Else the worker would be connected to nobody, and its next run would wait for ever."""
    first, second = Wire("192.0.2.9:1"), Wire("192.0.2.9:2")
    connect(first)
    first.say("HELLO name=a slots=1")
    await until_quiet()
    PickyJournal.refused = (f.WorkerJoined,)
    try:
        connect(second)
        second.say("HELLO name=a slots=1")
        await until_quiet()
    finally:
        PickyJournal.refused = ()
    assert second.take_lines() == ["ERR disk-full no space left"]
    line(core, "NOW x")
    core.wake()
    await until_quiet()
    assert [text.split(" ")[0] for text in first.take_lines()] == ["OK", "RUN"]


async def test_a_run_for_a_worker_whose_end_waits_for_the_disk_goes_to_another_one(
    core: Core, connect: Connect
) -> None:
    """The state still says that it is connected; no order may be given to nobody."""
    first, second = Wire("192.0.2.9:1"), Wire("192.0.2.9:2")
    connect(first)
    first.say("HELLO name=a slots=1")
    await until_quiet()
    PickyJournal.refused = (f.WorkerLeft,)
    try:
        first.leave()
        await until_quiet()
        assert core.state.workers["a"].connected
        connect(second)
        second.say("HELLO name=b slots=1")
        await until_quiet()
        line(core, "NOW x")
        core.wake()
        await until_quiet()
        assert [text.split(" ")[0] for text in second.take_lines()] == ["OK", "RUN"]
    finally:
        PickyJournal.refused = ()


async def test_hello_may_be_followed_by_more_of_what_is_held(core: Core, connect: Connect) -> None:
    """A worker with ten thousand reports to give names them all, or those left out would run twice."""
    first = Wire("192.0.2.9:1")
    connect(first)
    first.say("HELLO name=a slots=3 held=all")
    await until_quiet()
    for _ in range(3):
        line(core, "NOW x")
    core.wake()
    await until_quiet()
    second = Wire("192.0.2.9:2")
    connect(second)
    second.say("HELLO name=a slots=3 held=all more=2 running=1:1")
    second.say("HELD 2:1")
    await until_quiet()
    assert second.take_lines() == []
    second.say("HELD 3:1")
    await until_quiet()
    assert [text.split(" ")[0] for text in second.take_lines()] == ["OK"]
    assert {run.attempt for run in core.state.runs.values()} == {1}


async def test_what_is_held_is_taken_a_line_in_a_turn(core: Core, connect: Connect) -> None:
    """A million runs are a thousand lines: read in one go they would hold everybody up."""
    wire, turns = Wire("192.0.2.9:1"), 0
    connect(wire)
    await until_quiet()
    wire.say("\n".join(["HELLO name=a held=all more=100", *(f"HELD {number}:1" for number in range(1, 101))]))
    while "a" not in core.links:
        await trio.lowlevel.checkpoint()
        turns += 1
    assert turns > 100
    await until_quiet()
    assert wire.take_lines()[0].startswith("OK a ")


class Pieces(Wire):
    """What is said arrives in small pieces."""

    def receive_now(self) -> bytes | None:
        data = bytes(self._to_server[:100])
        if not data:
            return super().receive_now()
        del self._to_server[:100]
        return data


async def test_a_hello_in_small_pieces_is_not_looked_at_again_for_each(
    core: Core, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work for it grows with its length, not with the square of it: a stranger chooses the pieces."""
    looked: list[int] = []
    monkeypatch.setattr(workers, "looks_foreign", lambda first: looked.append(len(first)))
    wire = Pieces("192.0.2.9:1")
    connect(wire)
    hello = "HELLO name=a running=" + ",".join(f"{run}:1" for run in range(1, 8000))
    wire.say(hello)
    await until_quiet()
    assert [text.split(" ")[0] for text in wire.take_lines()] == ["OK"]
    assert sum(looked) < 4 * len(hello)


async def test_http_on_the_worker_port_is_known_however_it_arrives(core: Core, connect: Connect) -> None:
    """Any web page can make a browser send lines to a local port."""
    wire = Pieces("192.0.2.9:1")
    connect(wire)
    wire.say(f"POST-LIKE /{'x' * 3000} HTTP/1.1")
    wire.say("HELLO name=a")
    await until_quiet()
    assert (wire.take_lines(), core.links) == ([], {})


@pytest.mark.parametrize(("token", "code"), [("s3cret", "OK"), ("guess", "ERR too-long")])
async def test_who_knows_the_secret_may_say_a_long_hello(
    core: Core, connect: Connect, token: str, code: str
) -> None:
    """A stranger has 1,024 bytes; a worker with many reports needs more, and shows first who it is."""
    core.tokens = (b"old", b"s3cret")
    wire = Pieces("192.0.2.9:1")
    connect(wire)
    wire.say(f"HELLO name=a token={token} running=" + ",".join(f"{run}:1" for run in range(1, 1000)))
    await until_quiet()
    [told] = wire.take_lines()
    assert told.startswith(f"{code} ")


async def test_hello_that_promises_more_than_comes_is_refused(core: Core, connect: Connect) -> None:
    """What was not named would be started once more."""
    wire = Wire("192.0.2.9:1")
    connect(wire)
    wire.say("HELLO name=a held=all more=3")
    wire.say("HELD 1:1")
    wire.leave()
    await until_quiet()
    assert wire.take_lines() == ["ERR syntax HELLO said that 3 HELD lines follow; 1 came"]


async def test_who_is_cut_off_amid_his_first_words_is_no_bug(
    core: Core, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that was killed then would have left its traceback in our log."""

    def broken() -> bytes:
        raise ConnectionResetError

    wire = Wire("192.0.2.9:1")
    connect(wire)
    wire.say("HELLO name=a held=all more=3")
    await until_quiet()
    monkeypatch.setattr(wire, "receive_now", broken)
    wire.leave()
    await until_quiet()
    assert wire.take_lines() == ["ERR syntax HELLO said that 3 HELD lines follow; 0 came"]


async def test_reports_that_come_all_at_once_are_taken_a_few_in_a_turn(
    core: Core, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that was away for a night has thousands; everybody else waits for no more than a slice."""
    turns = [0]
    monkeypatch.setattr(core, "on_pass", lambda: turns.append(0))
    submit = core.submit

    def count(order: Any, *args: Any, **more: Any) -> Any:
        turns[-1] += isinstance(order, o.ReportEnded)
        return submit(order, *args, **more)

    monkeypatch.setattr(core, "submit", count)
    wire = Wire("192.0.2.9:1")
    connect(wire)
    wire.say("HELLO name=a slots=1\n" + "DONE 7 1 0\n" * 5000 + "BYE")
    await until_quiet()
    assert wire.take_lines()[1:] == ["ACK 7 1"] * 5000
    assert core.state.workers["a"].leaving
    assert 0 < max(turns) <= 4 * SLICE_LINES  # a beat takes a few turns of the loop


async def test_a_worker_that_does_not_read_its_answers_is_not_read_either(
    core: Core, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that repeats its reports for ever would fill our memory until it is cut."""
    monkeypatch.setattr(workers, "MAX_OWED_BYTES", 50_000)
    wire = NarrowWire(1000)
    connect(wire)
    wire.say("HELLO name=a slots=1\n" + "DONE 7 1 0\n" * 20_000)
    await until_quiet()
    assert 50_000 < core.links["a"].outbox.pending_bytes < 60_000


# --- reports, over sockets ------------------------------------------------------------------------


@asynccontextmanager
async def workers_over_sockets(
    core: Core, connect: Connect, count: int
) -> AsyncIterator[list[socket.socket]]:
    """Their ends of as many connections; each has joined."""
    pairs = [socket.socketpair() for _ in range(count)]
    peers = [theirs for _, theirs in pairs]
    connections = [Connection(ours) for ours, _ in pairs]
    for number, (connection, peer) in enumerate(zip(connections, peers, strict=True)):
        connect(connection)
        peer.send(b"HELLO name=w%d slots=10\n" % number)
    await until_quiet()
    for number, peer in enumerate(peers):
        assert peer.recv(1000).startswith(b"OK w%d " % number)
    yield peers
    for peer in peers:
        peer.close()
    await until_quiet()
    for connection in connections:
        connection.close()


async def test_reports_cost_no_switch_of_tasks_and_share_a_commit(
    core: Core, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many workers report at one time: one turn of one task, and one commit."""
    monkeypatch.setattr(poller, "ROUND_S", 60.0)  # or a slow machine would interrupt a round
    async with workers_over_sockets(core, connect, 10) as peers:
        for _ in range(100):
            line(core, "NOW x")
        core.wake()
        await until_quiet()
        commits: list[int] = []
        core.journal.notify = lambda seq: commits.append(seq) or core.committed(seq)
        orders = [[word.split()[1:3] for word in peer.recv(10_000).decode().splitlines()] for peer in peers]
        assert sum(map(len, orders)) == 100
        with counted_steps() as steps:
            for peer, held in zip(peers, orders, strict=True):
                peer.send("".join(f"DONE {run} {attempt} 0\n" for run, attempt in held).encode())
            await until_quiet()
        assert (steps["serve_worker"], len(commits), len(core.state.runs)) == (0, 1, 0)
        for peer, held in zip(peers, orders, strict=True):
            assert peer.recv(10_000).count(b"ACK") == len(held)


async def test_a_connection_that_was_replaced_is_not_listened_to_any_more(
    core: Core, connect: Connect
) -> None:
    """What it says would be taken for the word of the one that has its name now."""
    async with workers_over_sockets(core, connect, 1) as (peer,):
        told: list[f.Fact] = []
        core.feeds.append(Listener(told))
        peer.send(b"BYE\n")
        core.links["w0"].scope.cancel()
        await until_quiet()
        assert [type(fact) for fact in told] == [f.WorkerLeft]
