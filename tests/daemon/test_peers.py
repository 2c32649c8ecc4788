"""What nodes ask each other: output is copied, an ACK waits until one has it; strangers are told nothing."""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest
import trio

from cronflowd.daemon import peers, sealed
from cronflowd.daemon.peers import Copies, Peer, Peers
from cronflowd.daemon.sealed import WELCOME_BYTES, introduce, meet
from cronflowd.engine import facts as f
from cronflowd.engine.facts import FACTS_VERSION
from cronflowd.engine.orders import TellUnwritten
from cronflowd.host.setting import Address
from cronflowd.journal import apart, gaps, history
from cronflowd.journal.apart import Apart
from cronflowd.journal.files import journal_dir, list_checkpoints
from cronflowd.journal.gaps import Lacks
from cronflowd.journal.journal import FileJournal
from cronflowd.journal.records import Reader
from cronflowd.journal.shared_journal import install
from cronflowd.net.clients import Session
from cronflowd.net.listeners import Connection, Door, open_listeners
from tests.lib.harness import START, a_world
from tests.lib.journal_driver import Life, restarted, told
from tests.lib.waiting import PATIENCE_S, until

SECRET = b"the cluster's"
LONG = [[1, "beginning"], [1, "y" * 100_000], [2, "end"]]


class Leader:
    """The node that took the output of run 7, and its door."""

    def __init__(self, data: Path) -> None:
        self.data, self.sent, self.woken = data, list[tuple[str, str]](), 0
        self.apart = Apart(journal_dir(data), "a", 10)
        self.core: Any = SimpleNamespace(
            send=lambda *line: self.sent.append(line), wake=lambda: None, holds=None
        )
        journal_dir(data).mkdir(parents=True, exist_ok=True)
        self.lacks = Lacks(data)
        self.journal: Any = SimpleNamespace(
            apart=self.apart, directory=journal_dir(data), form=FACTS_VERSION - 1
        )
        self.peers = Peers(self.core, self.journal, self.lacks)
        self.address: Address = ("", 0)

    def write(self, run: int = 7, seq: int = 1) -> None:
        self.apart.take(f.OutputReceived(run, 1, LONG), seq, 0)
        self.apart.write(seq)

    def acknowledge(self, run: int = 7) -> bool:
        """Whether the ACK waits."""
        assert self.core.holds
        return bool(self.core.holds("w1", f"ACK {run} 1"))


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is slow because the machine is busy is no stranger for that."""
    monkeypatch.setattr(sealed, "INTRODUCED_WITHIN_S", PATIENCE_S)


@asynccontextmanager
async def a_leader(data: Path) -> AsyncIterator[Leader]:
    leader = Leader(data)

    async def refuse(connection: Connection) -> None:
        raise AssertionError("a client was served")

    door = Door(refuse, 10)
    door.greet = partial(meet, secret=SECRET, greet=None, serve=leader.peers.serve)
    (listener,) = open_listeners([("127.0.0.1", 0)])
    leader.address = listener.sock.getsockname()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(door.serve, [listener])
        nursery.start_soon(leader.peers.run)
        yield leader
        nursery.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def _nobody_is_taken_for_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is."""
    monkeypatch.setattr(peers, "AWAKE_S", 600.0)


async def test_an_ack_waits_until_another_node_has_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker forgets what it has an ACK for; from then on one disk alone must not hold it."""
    monkeypatch.setattr(peers, "COPIED_S", 600.0)
    async with a_leader(tmp_path / "a") as leader, trio.open_nursery() as nursery:
        leader.write()
        copies = Copies(Lacks(tmp_path / "b"), "b")
        nursery.start_soon(copies.run, lambda: leader.address, SECRET)
        await until(lambda: leader.peers._standbys)
        assert leader.peers.uncopied() > 100_000
        assert leader.acknowledge()
        assert leader.acknowledge(8) is False, "what wrote nothing long need not wait"
        copies.want(7)
        await until(lambda: leader.sent)
        assert leader.sent == [("w1", "ACK 7 1")]
        assert apart.read(journal_dir(tmp_path / "b"), 7) == apart.read(journal_dir(tmp_path / "a"), 7)
        leader.write(seq=2)  # of its next attempt
        copies.want(7)
        await until(lambda: not leader.peers.uncopied())
        assert apart.read(journal_dir(tmp_path / "b"), 7) == apart.read(journal_dir(tmp_path / "a"), 7)
        assert not leader.acknowledge()
        nursery.cancel_scope.cancel()


async def test_an_ack_waits_for_nobody_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leader that is alone goes on at once, and one whose standby stands still goes on, too."""
    monkeypatch.setattr(peers, "COPIED_S", 0.01)
    async with a_leader(tmp_path / "a") as leader:
        leader.write()
        assert not leader.acknowledge()
        standby = await trio.to_thread.run_sync(Peer, leader.address, SECRET, "b")
        await trio.to_thread.run_sync(standby.ask, "BEAT")
        leader.write()
        assert leader.acknowledge()
        await leader.peers.copied()
        await until(lambda: leader.sent)
        leader.write()
        monkeypatch.setattr(peers, "COPIED_S", 600.0)
        assert leader.acknowledge()
        standby.close()
        await until(lambda: len(leader.sent) == 2)


async def test_what_a_standby_has_of_another_leaders_is_not_taken_for_what_this_one_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who led before and comes back has lines of the same run that nobody has: its file may be longer."""
    monkeypatch.setattr(peers, "COPIED_S", 600.0)
    here = journal_dir(tmp_path / "b")
    apart.append(here, 7, [b"1 " + b"z" * 500_000])
    async with a_leader(tmp_path / "a") as leader, trio.open_nursery() as nursery:
        copies = Copies(Lacks(tmp_path / "b"), "b")
        nursery.start_soon(copies.run, lambda: leader.address, SECRET)
        await until(lambda: leader.peers._standbys)
        leader.write(seq=2)
        assert leader.acknowledge()
        copies.want(7)
        await until(lambda: leader.sent)
        assert apart.read(here, 7).items() >= apart.read(journal_dir(tmp_path / "a"), 7).items()
        assert leader.peers.uncopied() == 0
        nursery.cancel_scope.cancel()


async def test_of_all_acks_that_wait_one_copy_wakes_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a thousand runs that end at one time each copy would have the leader look a thousand times."""
    monkeypatch.setattr(peers, "COPIED_S", 600.0)
    async with a_leader(tmp_path / "a") as leader:
        standby = await trio.to_thread.run_sync(Peer, leader.address, SECRET, "b")
        await trio.to_thread.run_sync(standby.ask, "BEAT")
        for run in range(100):
            leader.write(run, run + 1)
            assert leader.acknowledge(run)
        await until(lambda: len(leader.peers._waiting) == 100)
        looks = Mock(side_effect=leader.peers._is_uncopied)
        monkeypatch.setattr(leader.peers, "_is_uncopied", looks)
        for run in range(100):
            await trio.to_thread.run_sync(standby.ask, f"HAVE {run}:{leader.apart.ends.get(run)}")
        await until(lambda: len(leader.sent) == 100)
        assert (looks.call_count, leader.peers._waiting) == (100, {})
        standby.close()


async def test_nobody_waits_for_a_standby_that_is_frozen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each ACK came a second late for a minute, and a leader ended so; when it wakes it counts again."""
    monkeypatch.setattr(peers, "COPIED_S", 600.0)
    async with a_leader(tmp_path / "a") as leader:
        standby = await trio.to_thread.run_sync(Peer, leader.address, SECRET, "b")
        await trio.to_thread.run_sync(standby.ask, "BEAT")
        leader.write()
        assert leader.acknowledge()
        monkeypatch.setattr(peers, "AWAKE_S", 0.0)
        assert not leader.acknowledge()
        await leader.peers.copied()
        monkeypatch.setattr(peers, "AWAKE_S", 600.0)
        leader.write()
        assert leader.acknowledge()
        standby.close()


async def test_a_node_that_is_silent_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A standby that is frozen keeps no ACK waiting for ever, and no removed file on the leader's disk."""
    async with a_leader(tmp_path / "a") as leader:
        standby = await trio.to_thread.run_sync(Peer, leader.address, SECRET, "b")
        await trio.to_thread.run_sync(standby.ask, "BEAT")
        assert leader.peers._standbys == 1
        monkeypatch.setattr(peers, "SILENT_S", 0.05)
        with suppress(OSError):  # where this machine is as slow as one that is frozen
            await trio.to_thread.run_sync(standby.ask, "BEAT")
        await until(lambda: leader.peers._standbys == 0)
        standby.close()


async def test_a_node_that_comes_later_fetches_what_its_records_tell_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says what it has, so that the leader knows; a leader that restarts is found again."""
    monkeypatch.setattr(peers, "LOOK_S", 0.01)
    copies = Copies(Lacks(tmp_path / "b"), "b")
    copies.want(7)
    apart.merge(journal_dir(tmp_path / "b"), 8, b"1 []\n")
    async with trio.open_nursery() as nursery:
        leads: list[Address] = []
        nursery.start_soon(copies.run, lambda: leads[-1] if leads else None, SECRET)
        async with a_leader(tmp_path / "a") as leader:
            leader.write()
            leads.append(leader.address)
            await until(lambda: leader.peers._have.get(7))
            assert leader.peers._theirs[8] == apart.sizes(journal_dir(tmp_path / "b"))[8]
        async with a_leader(tmp_path / "c") as leader:
            leader.write(9)
            leads.append(leader.address)
            copies.want(9)
            await until(lambda: not leader.peers.uncopied())
        nursery.cancel_scope.cancel()
    assert set(apart.sizes(journal_dir(tmp_path / "b"))) == {7, 8, 9}


async def test_a_leader_is_given_what_only_the_one_before_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes back as a standby; what the leader has taken since is longer. Nobody is given what is gone."""
    monkeypatch.setattr(peers, "LOOK_S", 0.01)
    before = Apart(journal_dir(tmp_path / "b"), "b", 10)
    records = [before.take(f.OutputReceived(7, 1, LONG), 1, 0)]
    before.write(1)
    apart.merge(journal_dir(tmp_path / "b"), 8, b"1 []\n")
    async with a_leader(tmp_path / "a") as leader, trio.open_nursery() as nursery:
        more = [[1, "z" * 200_000]]
        records.append(leader.apart.take(f.OutputReceived(7, 2, more), 2, 0))
        leader.apart.write(2)
        journal = FileJournal(tmp_path / "a")
        list(journal.replay())
        journal.append(records, START)
        journal.close()
        copies = Copies(Lacks(tmp_path / "b"), "b")
        nursery.start_soon(copies.run, lambda: leader.address, SECRET)
        await until(lambda: 8 in leader.peers._theirs)
        await trio.to_thread.run_sync(leader.lacks.look_back)  # a start that led at once has not yet
        await until(lambda: history.output(tmp_path / "a", 7) == [tuple(line) for line in LONG + more])
        await until(lambda: leader.lacks.words() == "nothing")
        copies.want(99)
        await until(lambda: 99 in leader.peers._have)  # all that was to be given has come before
        assert set(apart.sizes(journal_dir(tmp_path / "a"))) == {7}
        nursery.cancel_scope.cancel()


async def test_what_a_leader_cannot_write_is_told_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands nowhere; LOG would send people to the disk of this node for it."""
    monkeypatch.setattr(apart, "append", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
    async with a_leader(tmp_path / "a") as leader:
        leader.core.insist = Mock()
        standby = await trio.to_thread.run_sync(Peer, leader.address, SECRET, "b")
        await trio.to_thread.run_sync(standby.ask, "BEAT")
        leader.write()
        await until(lambda: leader.core.insist.called)
        assert not leader.acknowledge(), "no standby can copy it: each run would wait in vain"
        standby.close()
    (order,) = leader.core.insist.call_args.args
    assert (type(order), order.run, order.number, order.node) == (TellUnwritten, 7, 100_005, "a")


async def test_what_a_leader_is_given_does_not_stand_for_what_it_took(tmp_path: Path) -> None:
    """A standby counts bytes of the leader's file, in which the given ones may stand first."""
    async with a_leader(tmp_path / "a") as leader:
        peer = await trio.to_thread.run_sync(Peer, leader.address, SECRET, "b")
        await trio.to_thread.run_sync(peer.ask, "BEAT")
        leader.apart.take(f.OutputReceived(7, 1, LONG), 2, 0)
        await trio.to_thread.run_sync(peer.ask, "GIVE 7", b"1 " + b"z" * 500_000)
        leader.apart.write(2)
        assert leader.apart.ends == apart.sizes(journal_dir(tmp_path / "a"))
        await trio.to_thread.run_sync(peer.ask, "HAVE 7:500004")
        assert leader.acknowledge()
        peer.close()


async def test_a_node_asks_of_a_hundred_files_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is looked for in the journal; of ten thousand the answer came too late, again and again."""
    for run in range(250):
        apart.append(journal_dir(tmp_path / "b"), run, [b"1 []"])
    looks = Mock(return_value=[])
    async with a_leader(tmp_path / "a") as leader, trio.open_nursery() as nursery:
        monkeypatch.setattr(leader.peers, "_wanted_of", looks)
        copies = Copies(Lacks(tmp_path / "b"), "b")
        nursery.start_soon(copies.run, lambda: leader.address, SECRET)
        await until(lambda: looks.call_count == 3)
        nursery.cancel_scope.cancel()
    assert [len(each.args[0]) for each in looks.call_args_list] == [100, 100, 50]


@pytest.mark.parametrize("secret", [SECRET, b"another"])
async def test_a_stranger_learns_nothing(tmp_path: Path, secret: bytes) -> None:
    """Who only knows what was said before cannot ask, and cannot have an ACK sent."""
    async with a_leader(tmp_path) as leader:
        leader.write()

        def ask() -> bytes:
            with socket.create_connection(leader.address[:2], PATIENCE_S) as sock:
                sock.sendall(introduce(secret, "node", "b/1"))
                said = sock.makefile("rb").read(WELCOME_BYTES)
                sock.sendall(b"\0\0\0\x15" + b"x" * 21)
                return said[WELCOME_BYTES:] + sock.makefile("rb").read()

        try:
            assert await trio.to_thread.run_sync(ask) == b""
        except ConnectionResetError:
            assert secret != SECRET
        await until(lambda: not leader.peers._standbys)


@pytest.mark.parametrize("how", ["compacted", "never compacted", "compacted meanwhile"])
async def test_a_state_goes_over_whole(tmp_path: Path, how: str) -> None:
    """What is too long for etcd is given by the leader: its checkpoint, and each record behind it once."""
    async with a_leader(tmp_path / "a") as leader:
        life = Life(tmp_path / "a", 3000)
        life.join()
        for number in range(30):
            life.run(life.add_task(), f"line {number}")
            if number == 15 and how == "compacted":
                life.compact()
        peer = await trio.to_thread.run_sync(Peer, leader.address, SECRET, "b")

        def fetch() -> int:
            leader.journal.open_segment = life.journal.open_segment
            upto, chunks, lines = peer.state()
            if how == "compacted meanwhile":
                life.compact()
            install(tmp_path / "b", upto, chunks, lines)
            return upto

        assert (await trio.to_thread.run_sync(fetch) > 0) == (how == "compacted")
        assert leader.peers._standbys == 0, "who only reads a state copies no output"
        peer.close()
        life.close()
    for _, path in list_checkpoints(journal_dir(tmp_path / "b")):
        header = Reader(path).header
        assert header, "it says which form of records all nodes know"
        assert header.version == leader.journal.form
    state, journal = restarted(tmp_path / "b")
    assert (told(state), journal.last) == (told(life.state), life.journal.last)


async def _log(data: Path, *questions: str, node: str = "") -> list[list[str]]:
    async with a_world(data, {"recent": "0"}) as world:
        world.answers.past.node = node
        await world.play("w", None, "HELLO name=w1 slots=100")
        await world.play("C", None, "ADD name=a @reboot job")
        await world.play("C", None, "RUN a")
        fact = f.OutputReceived(1, 1, [[1, "one"]], 0, 9, None, (5, 1, "b"))
        core, now = world.core, world.core.now()
        core.last_seq = core.journal.append([fact], now)
        core.state.apply(fact, now, core.last_seq)
        await world.play("w", None, "OUT 1 2 two")
        await world.play("w", None, "DONE 1 1 0")
        session = Session(None, "here", "tcp")
        found = []
        for question in questions:
            reply = await cast(Any, world.answers.handle(question, session, core.now()))
            found.append([f"{fd} {text}" for fd, text, *_ in reply.rows])
        return found


def test_log_ends_with_what_is_not_here(tmp_path: Path) -> None:
    """Whichever part was asked for: a script must not take half of it for the whole."""
    told = "0 5 bytes are on node b only"
    assert trio.run(_log, tmp_path, "LOG 1", "LOG 1 fd=2", "LOG 1 tail=1", "LOG a") == [
        ["1 one", "2 two", told],
        ["2 two", told],
        ["2 two", told],
        ["1 one", "2 two", told],
    ]


def test_a_node_does_not_say_of_itself_that_it_has_what_it_lacks(tmp_path: Path) -> None:
    """Its disk has lost what it took; who reads LOG there is already where it would send him."""
    (rows,) = trio.run(partial(_log, tmp_path, "LOG 1", node="b"))
    assert rows[2:] == ["0 5 bytes are lost: node b, which took them, cannot read them any more"]


def test_log_says_where_the_past_is_not_all_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run of before a node joined it knows nothing, and an empty answer would be a wrong one."""
    monkeypatch.setattr(history, "output", lambda *_: [])
    monkeypatch.setattr(gaps, "gaps", lambda _: [(1, 500)])
    assert trio.run(_log, tmp_path, "LOG 1") == [[]], "it is known, and wrote nothing"
    monkeypatch.setattr(history, "outcomes", lambda *_: iter(()))
    told = "0 what it wrote may be elsewhere: this node lacks the history up to record 500"
    assert trio.run(_log, tmp_path / "b", "LOG 1") == [[told]]
    monkeypatch.setattr(history, "output", lambda *_: [(1, "the beginning")])
    assert trio.run(_log, tmp_path / "c", "LOG 1") == [["1 the beginning", told]], "its end is not here"
