"""What the loop and its workers promise each other: orders that leave, reports that come, who is let go."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from attrs import evolve

from cronflowd.daemon.answers import Answers
from cronflowd.daemon.core import Core
from cronflowd.engine import facts as f
from cronflowd.engine import orders as o
from cronflowd.net import poller, workers
from cronflowd.net.clients import serve_client
from cronflowd.net.listeners import Connection
from cronflowd.net.workers import FEW_LINES, MAX_OWED_BYTES, SLICE_LINES, serve_worker
from cronflowd.tasks.reasons import in_words
from tests.lib.core_driver import Connect, PickyJournal, line, make_core, until_quiet
from tests.lib.engine_driver import START
from tests.lib.harness import Wire
from tests.lib.steps import counted_steps


class Listener:
    """Hears all that happens."""

    def __init__(self, told: list[f.Fact]) -> None:
        self.told = told

    def see(self, fact: f.Fact, at: datetime, seq: int) -> None:
        self.told.append(fact)


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


async def test_a_worker_that_was_cut_is_told_of_as_that(
    core: Core, connect: Connect, autojump_clock: trio.testing.MockClock
) -> None:
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


class Carried(Pieces):
    """A connection that another program of this machine has made, over the unix socket or TCP."""

    def __init__(self, kind: str) -> None:
        super().__init__("unix:pid=1,uid=0" if kind == "unix" else "127.0.0.1:9")
        self.kind = kind  # type: ignore[misc]  # of this one alone
        self.counted: list[str] = []

    def count_as(self, peer: str) -> None:
        self.counted.append(peer)
        self.kind, self.peer = "tcp", peer  # type: ignore[misc]


@pytest.mark.parametrize("kind", ["unix", "tcp"])
@pytest.mark.parametrize(
    ("address", "is_asked"),
    [
        ("192.0.2.7:1", True), ("[2001:db8::1]:1", True), ("0.0.0.0:0", True),
        ("127.0.0.1:5", False), ("[::1]:5", False),
    ],
)  # fmt: skip
async def test_whoever_is_carried_from_another_machine_shows_a_token(
    core: Core, connect: Connect, kind: str, address: str, is_asked: bool
) -> None:
    """A daemon that listens on this machine alone asks for none; through the HTTP door the world comes in."""
    wire = Carried(kind)
    connect(wire)
    wire.say(f"FROM {address}")
    wire.say("HELLO name=a")
    await until_quiet()
    [told] = wire.take_lines()
    assert told.startswith("ERR auth-required HELLO needs token=" if is_asked else "OK a ")
    assert wire.counted == [address] * (kind == "unix"), "anybody can say it over TCP, and would name others"


async def test_whoever_is_carried_needs_the_token_that_tcp_needs(core: Core, connect: Connect) -> None:
    """The local worker comes in by its socket without any; nobody else is let in by the same way."""
    core.tokens = (b"s3cret",)
    for first, code in ("HELLO name=a", "OK"), ("FROM 127.0.0.1:1", "ERR auth-required"):
        wire = Carried("unix")
        connect(wire)
        wire.say(first)
        wire.say("HELLO name=b" if first.startswith("FROM") else "BEAT")
        await until_quiet()
        assert wire.take_lines()[0].startswith(f"{code} ")


async def test_a_daemon_that_lets_anybody_in_lets_in_whoever_is_carried(core: Core, connect: Connect) -> None:
    """--insecure is said by its owner, and means the same by every way."""
    core.settings = evolve(core.settings, insecure=True)
    wire = Carried("unix")
    connect(wire)
    wire.say("FROM 192.0.2.7:1")
    wire.say("HELLO name=a")
    await until_quiet()
    assert wire.take_lines()[0].startswith("OK a ")
    assert core.links["a"].address == "192.0.2.7:1"


@pytest.mark.parametrize(("token", "code"), [("s3cret", "OK"), ("guess", "ERR too-long")])
async def test_who_is_carried_and_known_may_say_a_long_hello(
    core: Core, connect: Connect, token: str, code: str
) -> None:
    """Its beginning may have come with the line before; it is as well known by it."""
    core.tokens = (b"s3cret",)
    wire = Wire("unix:pid=1,uid=0")
    wire.kind, wire.count_as = "unix", lambda _: None  # type: ignore[misc, attr-defined]
    connect(wire)
    hello = f"HELLO name=a token={token} running=" + ",".join(f"{run}:1" for run in range(1, 1000))
    wire.say(f"FROM 192.0.2.7:1\n{hello}")
    await until_quiet()
    [told] = wire.take_lines()
    assert told.startswith(f"{code} ")


async def test_whoever_is_carried_cannot_say_where_from(core: Core, connect: Connect) -> None:
    """The HTTP door has said it already; what its guest says after that is no second FROM."""
    wire = Carried("unix")
    connect(wire)
    for said in ("FROM 192.0.2.7:1", "FROM 127.0.0.1:1", "HELLO name=a"):
        wire.say(said)
    await until_quiet()
    assert wire.take_lines() == ['ERR syntax the first line must be HELLO name=… slots=…, not "FROM"']
    assert core.links == {}


@pytest.mark.parametrize(
    "address", ["uid=0", "", "192.0.2.7", "192.0.2.7:1,uid=0", "unix:pid=1,uid=0", "x:1"]
)
async def test_from_takes_nothing_but_an_address(core: Core, connect: Connect, address: str) -> None:
    """What is no address could look like this machine's owner."""
    wire = Carried("unix")
    connect(wire)
    wire.say(f"FROM {address}")
    wire.say("HELLO name=a")
    await until_quiet()
    assert wire.take_lines()[0].startswith("ERR syntax FROM takes an address and port")
    assert wire.counted == []


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


@pytest.mark.parametrize(("slice_s", "most"), [(60.0, SLICE_LINES), (-1.0, 1)])
async def test_reports_that_come_all_at_once_are_taken_a_few_in_a_turn(
    core: Core, connect: Connect, monkeypatch: pytest.MonkeyPatch, slice_s: float, most: int
) -> None:
    """A worker that was away for a night has thousands; everybody else waits for no more than a slice.

    Ends of which many are told take ten times as long as others: then a slice is shorter.
    """
    monkeypatch.setattr(workers, "SLICE_S", slice_s)
    turns = [0]
    monkeypatch.setattr(core, "on_pass", lambda: turns.append(0))
    submit = core.submit

    def count(order: Any, *args: Any, **more: Any) -> Any:
        turns[-1] += isinstance(order, o.ReportEnded)
        return submit(order, *args, **more)

    monkeypatch.setattr(core, "submit", count)
    wire = Wire("192.0.2.9:1")
    connect(wire)
    wire.say("HELLO name=a slots=1\n" + "DONE 7 1 0\n" * (10 * most) + "BYE")
    await until_quiet()
    assert wire.take_lines()[1:] == ["ACK 7 1"] * (10 * most)
    assert core.state.workers["a"].leaving
    assert 0 < max(turns) <= 4 * most  # a beat takes a few turns of the loop


class Eager(Wire):
    """A worker that has done what it is told to at once."""

    def send_now(self, data: bytes | memoryview) -> int:
        orders = [words.split(b" ", 3)[1:3] for words in bytes(data).splitlines() if words[:4] == b"RUN "]
        for run, attempt in orders:
            self.say(f"STARTED {int(run)} {int(attempt)}\nDONE {int(run)} {int(attempt)} 0")
        return len(data)


async def test_whoever_asks_for_runs_does_not_outrun_who_ends_them(
    core: Core, connect: Connect, nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All at once they would wait in line, and each of them would cost a third more."""
    monkeypatch.setattr(workers, "SLICE_S", 60.0)  # or a slow machine would read fewer ends a turn
    many = list[int]()
    core.on_pass = lambda: many.append(len(core.state.runs))
    worker, client = Eager("192.0.2.9:1"), Wire("192.0.2.9:2")
    connect(worker)
    worker.say("HELLO name=a slots=1000")
    line(core, "ADD name=t overlap=allow 0 0 1 1 * x")
    nursery.start_soon(serve_client, client, Answers(core, tmp_path), core.settings)
    client.say("RUN t\n" * 5000 + "QUIT")
    await until_quiet()
    assert len(client.take_lines()) == 5001
    assert sum(core.state.totals.values()) == 5000
    assert 0 < max(many) <= 1000


async def test_moments_that_have_come_go_before_reports(
    core: Core, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a thousand tasks due at once the last started late by all that the first ones had to tell."""
    done: list[Any] = []
    submit = core.submit

    def note(order: Any, *args: Any, **more: Any) -> Any:
        done.append(order)
        return submit(order, *args, **more)

    monkeypatch.setattr("cronflowd.daemon.core.STEPS_PER_BEAT", 2)
    wire = Wire("192.0.2.9:1")
    connect(wire)
    wire.say("HELLO name=a slots=400")
    for number in range(400):
        line(core, f"ADD name=t{number} 1 12 * * * true")
    await until_quiet()
    wire.take_lines()
    monkeypatch.setattr(core, "submit", note)
    core.clock.move(START + timedelta(minutes=1))  # type: ignore[attr-defined]
    wire.say("DONE 7 1 0\n" * 2000)
    await until_quiet()
    fires = [place for place, order in enumerate(done) if isinstance(order, o.FireTasks)]
    assert sum(len(done[place].tasks) for place in fires) == 400
    assert max(b - a for a, b in pairwise([-1, *fires])) <= 4 * FEW_LINES  # a beat takes a few turns
    assert sum(isinstance(order, o.ReportEnded) for order in done) == 2000


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
    monkeypatch.setattr(workers, "SLICE_S", 60.0)  # or what one of them says
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


async def test_a_worker_tells_which_release_it_is(core: Core, connect: Connect) -> None:
    """Whoever updates many machines sees which one was forgotten; one that does not say is none."""
    new, old, long = Wire("192.0.2.9:1"), Wire("192.0.2.9:2"), Wire("192.0.2.9:3")
    for wire, said in (
        (new, "name=new version=0.1.0"),
        (old, "name=old"),
        (long, f"name=l version={'1' * 65}"),
    ):
        connect(wire)
        wire.say(f"HELLO {said}")
    await until_quiet()
    assert {name: link.version for name, link in core.links.items()} == {"new": "0.1.0", "old": ""}
    assert long.take_lines() == ["ERR too-long version= is longer than 64 characters"]


def test_the_goodbye_of_an_older_connection_is_not_the_workers() -> None:
    """Its successor was connected, idle, and given nothing: for ever, as it had not said so."""
    core = make_core()
    for number in (1, 2):
        core.submit(o.JoinWorker("w", 1, {}, ("shell",), "here", (), connection=number))
    core.submit(o.DismissWorker("w", 1))
    assert not core.state.workers["w"].leaving
    core.submit(o.DismissWorker("w", 2))
    assert core.state.workers["w"].leaving
