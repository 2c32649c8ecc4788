"""One task waits for all connections: what a request costs, counted in switches of tasks."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from math import inf

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from cronflowd.net import clients, poller
from cronflowd.net.listeners import Connection
from cronflowd.net.poller import Inlet, Knock
from tests.lib.calls import counting
from tests.lib.client_peer import FakeCore, Peer, connected
from tests.lib.steps import counted_steps
from tests.lib.waiting import until

PEERS = 20


@pytest.fixture
def clock() -> MockClock:
    """Time that leaps as soon as everybody waits."""
    return MockClock(autojump_threshold=0)


@asynccontextmanager
async def sessions(core: FakeCore) -> AsyncIterator[list[Peer]]:
    """Peers that have said HELLO and read the answer; then everybody waits."""
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(connected(core)) for _ in range(PEERS)]
        for peer in peers:
            await peer.send(b"HELLO\n")
            await peer.read(b"OK cronflowd\n")
        await trio.testing.wait_all_tasks_blocked()
        yield peers


async def test_a_request_costs_no_switch_of_tasks(clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has come at one time is executed in one turn of one task, however many have sent it."""
    monkeypatch.setattr(poller, "ROUND_S", 60.0)  # or a slow machine would interrupt a round
    monkeypatch.setattr(clients, "SLICE_S", 60.0)
    core = FakeCore(ready=({"PING": "PONG"}, {}))
    async with sessions(core) as peers:
        with counted_steps() as steps:
            for seq in range(0, 10 * PEERS, PEERS):
                for peer in peers:
                    peer.sock.send(b"ADD 1\nECHO x\n")
                await trio.testing.wait_all_tasks_blocked()
                core.gate.open(core.last_seq)
                told = {peer.sock.recv(1000) for peer in peers}
                assert told == {b"OK %d\nOK x\n" % (seq + 1 + number) for number in range(PEERS)}
            for peer in peers:
                peer.sock.send(b"PING\nPING\n")
            await trio.testing.wait_all_tasks_blocked()
            assert {peer.sock.recv(1000) for peer in peers} == {b"PONG\nPONG\n"}
        assert (steps["run"], steps["serve"], steps["write"]) == (11, 0, 0)
    assert "PING" not in core.handled, "its answer stood ready"


async def test_a_request_costs_few_calls(clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a lone ADD the way in and out is half the work; two commits answer what came in one round."""
    monkeypatch.setattr(poller, "ROUND_S", 60.0)
    core, rounds = FakeCore(), 10
    async with sessions(core) as peers:
        with counting() as calls:
            for _ in range(rounds):
                for peer in peers:
                    peer.sock.send(b"ADD 1\n")
                await trio.testing.wait_all_tasks_blocked()
                core.gate.open(core.last_seq - PEERS // 2)
                core.gate.open(core.last_seq)
                for peer in peers:
                    peer.sock.recv(1000)
    assert calls[0] / (rounds * PEERS) <= 114


async def test_what_a_round_has_decided_is_seen_to_once_at_its_end_and_before_others_have_a_turn(
    clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit for all that came together, without waiting for one more pass of the loop."""
    monkeypatch.setattr(poller, "ROUND_S", 60.0)
    core, ends = FakeCore(), list[int]()
    async with sessions(core) as peers:
        here = poller.here()
        here.after_round = lambda: ends.append(len(core.handled))
        for round_s in 60.0, 0.0:
            monkeypatch.setattr(poller, "ROUND_S", round_s)
            ends.clear()
            core.handled.clear()
            for peer in peers:
                peer.sock.send(b"ECHO x\n")
            await trio.testing.wait_all_tasks_blocked()
            assert ends == ([PEERS] if round_s else [*range(PEERS + 1)])
            assert not here.is_in_round


@pytest.mark.parametrize(("first", "ends"), [(2, [3]), (1, [1, 2])], ids=["several", "one alone"])
async def test_what_comes_while_several_are_answered_shares_their_commit(
    first: int, ends: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sync costs more than an order, and few of sixteen clients shared one. Who is alone never waits."""
    monkeypatch.setattr(poller, "ROUND_S", 60.0)
    here, seen, pairs = poller.here(), list[int](), [socket.socketpair() for _ in range(first + 1)]
    ours, theirs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    answered: list[int] = []

    def answer(number: int) -> None:
        ours[number].recv(10)
        if not answered:
            theirs[-1].send(b"x")  # somebody asks while the first is being answered
        answered.append(number)

    here.after_round = lambda: seen.append(len(answered))
    for number, each in enumerate(ours):
        here.watch(each.fileno(), lambda number=number: answer(number))
    for each in theirs[:first]:
        each.send(b"x")
    await trio.testing.wait_all_tasks_blocked()
    assert seen == ends
    for each in ours:
        here.unwatch(each.fileno())
    for each in (*ours, *theirs):
        each.close()


async def test_a_thread_has_something_called_in_a_round() -> None:
    """Once for several calls, and also when it calls behind the end of all: its file is no other one then."""
    heard: list[str] = []
    knock = Knock(lambda: heard.append(threading.current_thread().name))
    knock()
    knock()
    await trio.testing.wait_all_tasks_blocked()
    here = [threading.current_thread().name]
    assert heard == here
    await trio.to_thread.run_sync(knock)
    await until(lambda: len(heard) == 2)
    assert heard == 2 * here
    knock()


async def test_a_long_round_leaves_the_others_a_turn(
    clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many connections with a slice each are together no shorter than one with many."""
    core = FakeCore()
    turns: list[int] = []

    async def other() -> None:
        while True:
            turns.append(len(core.handled))
            await trio.lowlevel.checkpoint()

    monkeypatch.setattr(poller, "ROUND_S", 0.0)
    async with sessions(core) as peers, trio.open_nursery() as nursery:
        for peer in peers:
            peer.sock.send(b"ECHO x\n")
        nursery.start_soon(other)
        for peer in peers:
            await peer.read(b"OK x\n")
        nursery.cancel_scope.cancel()
    assert max(after - before for before, after in pairwise(turns)) <= 2


async def test_requests_put_off_the_end_of_a_session_without_waking_its_task(clock: MockClock) -> None:
    """The sleeper asks again when it wakes: once in 300 s, not at each request."""
    async with connected(FakeCore()) as peer:
        await peer.send(b"HELLO\n")
        await peer.read(b"OK cronflowd\n")
        with counted_steps() as steps:
            for _ in range(100):
                await trio.sleep(10)
                peer.sock.send(b"ECHO x\n")
                await trio.testing.wait_all_tasks_blocked()
                assert peer.sock.recv(1000) == b"OK x\n"
        assert steps["serve"] <= 1000 / 300 + 1
        await peer.ends_after(300)


async def test_what_comes_while_the_task_is_at_work_stays_in_the_socket(clock: MockClock) -> None:
    """A client must not fill our memory while an order of its own is slow, nor may the poller spin."""
    core = FakeCore()
    async with sessions(core) as peers:
        peers[0].sock.send(b"SLOW 50\n")
        await trio.testing.wait_all_tasks_blocked()
        with counted_steps() as steps:
            for _ in range(20):
                peers[0].sock.send(b"ECHO x\n")
                await trio.testing.wait_all_tasks_blocked()
        assert steps["run"] == 1
        assert "ECHO x" not in core.handled
        await peers[0].read(b"OK slow\n" + b"OK x\n" * 20)


def a_pair() -> tuple[Connection, socket.socket]:
    ours, theirs = socket.socketpair()
    return Connection(ours), theirs


async def test_what_breaks_in_a_round_ends_its_own_connection_only(clock: MockClock) -> None:
    """An error is raised where it belongs: in the task of the connection it is about."""
    (bad, bad_peer), (good, good_peer) = a_pair(), a_pair()
    took: list[bytes] = []

    def take(data: bytes) -> bool:
        if data == b"bug":
            raise ZeroDivisionError("a bug")
        took.append(data)
        return False

    async with trio.open_nursery() as nursery:
        bad_peer.send(b"bug")
        good_peer.send(b"x")
        nursery.start_soon(Inlet(good, take).wait, lambda: inf)
        with pytest.raises(ZeroDivisionError):
            await Inlet(bad, take).wait(lambda: inf)
    assert took == [b"x"]
    for end in (bad, bad_peer, good, good_peer):
        end.close()


async def test_a_descriptor_that_was_closed_is_not_mistaken_for_the_next_one(clock: MockClock) -> None:
    """The system gives the lowest number that is free; what was said of the old one concerns nobody."""
    for _ in range(3):
        connection, peer = a_pair()
        inlet = Inlet(connection, lambda data: data == b"more")
        with trio.move_on_after(1):  # it stays watched
            peer.send(b"more")
            await inlet.wait(lambda: inf)
        peer.send(b"x")
        assert await inlet.wait(lambda: inf)
        connection.close()
        peer.close()


async def test_input_goes_before_the_time_that_has_come_meanwhile(clock: MockClock) -> None:
    """Whoever has spoken in time is not told that he was silent."""
    connection, peer = a_pair()
    took: list[bytes] = []
    inlet = Inlet(connection, lambda data: bool(took.append(data)))
    peer.send(b"x")
    assert await inlet.wait(lambda: -inf)
    assert took == [b"x"]
    assert not await inlet.wait(lambda: -inf)
    connection.close()
    peer.close()
