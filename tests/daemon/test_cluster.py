"""A node's place in its cluster, on a model of etcd: what real ones show only by chance."""

from __future__ import annotations

import errno
import os
import signal
import zlib
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import orjson
import pytest
import trio
import trio.testing
from attrs import evolve

from cronflowd.base.errors import Exit, Fatal, Refusal
from cronflowd.daemon import cluster, roster
from cronflowd.daemon.daemon import Daemon
from cronflowd.daemon.keeper import Keeper
from cronflowd.engine import facts as f
from cronflowd.engine.state import State
from cronflowd.host.config import Settings
from cronflowd.journal import check, leave
from cronflowd.journal.etcd import Lease, Unreachable
from cronflowd.journal.files import checkpoint_path, journal_dir, list_history, list_segments
from cronflowd.journal.gaps import lines_of
from cronflowd.journal.journal import FileJournal
from cronflowd.journal.shared import Deposed, Shared, put
from cronflowd.journal.shared_journal import SharedJournal, read_mark, write_mark
from tests.lib.fake_etcd import FakeEtcd
from tests.lib.open_journal import NOW
from tests.lib.waiting import PATIENCE_S, until


class Etcd(FakeEtcd):
    """As a node asks for one."""

    def _maintenance_status(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"version": "3.5.9"}

    def close(self) -> None: ...


@pytest.fixture
def etcd(monkeypatch: pytest.MonkeyPatch) -> Etcd:
    found = Etcd()
    monkeypatch.setattr(cluster, "make_client", lambda *_: found)
    return found


def node_on(data: Path, lines: int = 1) -> tuple[cluster.Node, SharedJournal]:
    """A node whose directory has a journal of its own."""
    journal = FileJournal(data)
    list(journal.replay())
    for _ in range(lines):
        journal.append([f.TaskResumed(None)], NOW)
    journal.close()
    node = cluster.Node(Settings(data=data, tz="UTC", etcd=(("127.0.0.1", 1),), node="a"))
    copy = SharedJournal(data, shared=node.committing)
    assert len(list(copy.replay())) == lines
    return node, copy


def test_who_began_the_cluster_and_was_not_answered_belongs_to_it(etcd: Etcd, tmp_path: Path) -> None:
    """It would be told that its own tasks are another history, and lay them aside."""
    node, journal = node_on(tmp_path)
    etcd.wrong = ["", "", "", "no answer"]  # its release, the key, the state; the transaction
    with pytest.raises(Unreachable):
        node._belong(State("UTC"), journal)
    assert etcd.wrong == []
    assert read_mark(tmp_path) == {}
    node._belong(State("UTC"), journal)
    told = Shared(etcd).get(node.shared.cluster_key)
    assert told
    assert read_mark(tmp_path)["cluster"].encode() in told.value
    journal.close()


def test_a_state_that_is_too_long_for_etcd_stands_on_nodes(
    etcd: Etcd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made short once, not every second; and etcd forgets nothing that one disk alone has."""
    node, journal = node_on(tmp_path)
    node._belong(State("UTC"), journal)
    node.epoch = node.shared.claim(int(etcd.call("lease/grant", {"TTL": "3"})["ID"]), b"{}") or 0
    etcd.call("kv/put", put(node.shared.node_key("a"), b'{"node":"a","seq":9}')["request_put"])
    checkpoint_path(journal_dir(tmp_path), 7).write_bytes(os.urandom(5000))
    monkeypatch.setattr("cronflowd.journal.shared.MAX_SNAPSHOT_BYTES", 1000)
    node.shared._put_record(node.epoch, 2, zlib.compress(b'{"seq":2,'))
    kept, keeper = sorted(etcd.entries), Keeper(node, journal)
    etcd.asked.clear()
    keeper.shorten()
    keeper.shorten()
    assert (sorted(etcd.entries), "kv/put" in etcd.asked) == (kept, False)
    etcd.call("kv/put", put(node.shared.node_key("b"), b'{"node":"b","seq":8}')["request_put"])
    keeper.shorten()
    assert (node.shared.get_snapshot(), node.shared.fetch(1)) == ((7, None), [])
    monkeypatch.setattr("cronflowd.journal.shared.MAX_SNAPSHOT_BYTES", 100_000)
    checkpoint_path(journal_dir(tmp_path), 8).write_bytes(os.urandom(500))
    keeper.shorten()
    upto, chunks = node.shared.get_snapshot()
    assert (upto, chunks is None) == (8, False)
    journal.close()


async def test_who_looks_after_etcd_outlives_a_compaction_and_begins_anew_when_another_leads(
    etcd: Etcd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a look at the checkpoints and the opening of one it may go: that must not end the leader."""
    node, journal = node_on(tmp_path)
    node._belong(State("UTC"), journal)
    monkeypatch.setattr("cronflowd.daemon.keeper.LOOK_S", 0.0)
    monkeypatch.setattr(node, "tell", Mock())
    monkeypatch.setattr(node, "begin_anew", Mock(side_effect=EOFError))
    keeper = Keeper(node, journal)
    gone = FileNotFoundError("checkpoint")
    monkeypatch.setattr(keeper, "shorten", Mock(side_effect=[gone, Deposed("another node leads")]))
    monkeypatch.setattr(keeper, "_look_for_room", Mock())
    with pytest.raises(EOFError):
        await keeper.run()
    journal.close()


class GivesState:
    """The leader as another node sees it, whose files are these."""

    def __init__(self, data: Path) -> None:
        self.data, self.asked = data, list[tuple[Any, ...]]()

    def __call__(self, *about: Any) -> GivesState:
        self.asked.append(about)
        return self

    def state(self) -> tuple[int, Iterator[bytes], Iterator[bytes]]:
        (_, path), *_ = list_segments(journal_dir(self.data))
        return 0, iter(()), lines_of(iter([path.read_bytes()]))

    def close(self) -> None: ...


def test_a_journal_that_is_too_long_for_etcd_becomes_a_cluster_all_the_same(
    etcd: Etcd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever joins an empty directory to it is given the state by the node that leads, once one does."""
    monkeypatch.setattr("cronflowd.journal.shared.MAX_SNAPSHOT_BYTES", 10)
    node, journal = node_on(tmp_path / "a", 3)
    node._belong(State("UTC"), journal)
    assert node.shared.get_snapshot() == (3, None)
    gives = GivesState(tmp_path / "a")
    monkeypatch.setattr(cluster, "Peer", gives)
    settings = Settings(data=tmp_path / "b", tz="UTC", etcd=(("127.0.0.1", 1),), node="b")
    settings.data.mkdir()
    other = cluster.Node(settings)
    empty = SharedJournal(settings.data, shared=other.committing)
    assert (list(empty.replay()), gives.asked) == ([], [])
    with pytest.raises(Unreachable, match="too long for etcd, and no node leads"):
        other._fetch_state(empty)
    empty.close()
    for _, path in list_segments(journal_dir(settings.data)):
        path.unlink()
    leads = {"node": "a", "control": "192.0.2.1:5050", "workers": "192.0.2.1:5051"}
    etcd.call("kv/put", put(node.shared.leader_key, orjson.dumps(leads))["request_put"])
    other = cluster.Node(settings)
    assert [about[0] for about in gives.asked] == [("192.0.2.1", 5050)]
    assert gives.asked[0][1] == node.secret
    copy = SharedJournal(settings.data, shared=other.committing)
    assert (len(list(copy.replay())), copy.chain) == (3, journal.chain)
    other._belong(State("UTC"), copy)
    copy.close()
    journal.close()


def test_a_node_that_is_behind_such_a_state_goes_on_to_it(
    etcd: Etcd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own history stays."""
    node, journal = node_on(tmp_path / "a", 3)
    node._belong(State("UTC"), journal)
    journal.close()
    behind = SharedJournal(tmp_path / "b", shared=node.committing)
    list(behind.replay())
    lines = list(GivesState(tmp_path / "a").state()[2])
    behind.take(lines[:1])
    leads = {"node": "c", "control": "192.0.2.1:5050", "workers": "192.0.2.1:5051"}
    etcd.call("kv/put", put(node.shared.leader_key, orjson.dumps(leads))["request_put"])
    node.shared.leave_snapshot(3, [])
    monkeypatch.setattr(cluster, "Peer", GivesState(tmp_path / "a"))
    node._fetch_state(behind)
    assert (behind.last, behind.chain) == (3, journal.chain)
    behind.close()


async def test_whoever_asks_a_node_without_etcd_does_not_wait(
    etcd: Etcd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each PING, and each worker that looks for the leader, took a second for as long as etcd was away."""
    node, journal = node_on(tmp_path)
    etcd.wrong = ["no answer"] * 1000
    with trio.move_on_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node._join, State("UTC"), journal)
            await node.has_looked.wait()
            nursery.cancel_scope.cancel()
    assert node.has_looked.is_set()
    assert (node.leader, node.has_joined.is_set()) == (None, False)
    journal.close()


async def test_a_node_tells_how_old_its_answers_may_be(
    etcd: Etcd, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Any number between hours and days was shown by one that had not reached etcd yet."""
    node, journal = node_on(tmp_path)
    state = SimpleNamespace(told_at=NOW)
    core = cast(Any, SimpleNamespace(state=state, last_seq=1, now=lambda: NOW + timedelta(seconds=90)))
    assert node.lag(core) == (90.0, 0), "it knows of nothing newer than its own newest record"
    node.followed_at_s, node.known_last = trio.current_time(), 4
    await trio.sleep(2.5)
    assert node.lag(core) == (2.5, 3)
    node.epoch = 7
    assert node.lag(core) == (0.0, 0), "what it decides is all there is"
    journal.close()


def test_the_form_of_records_rises_when_all_nodes_know_it(
    etcd: Etcd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those too that have gone and may come back: what they cannot read they could not lead with."""
    node, journal = node_on(tmp_path)
    node._belong(State("UTC"), journal)
    shared, lease = node.shared, int(etcd.call("lease/grant", {"TTL": "3"})["ID"])
    epoch = shared.claim(lease, b'{"node":"a"}') or 0
    monkeypatch.setattr(roster, "FACTS_VERSION", 3)
    for name, form in (("a", {"form": 3}), ("b", {})):
        roster.remember(shared, {"node": name, **form})
    assert roster.raise_form(shared, epoch, 2) == 2
    roster.remember(shared, {"node": "b", "form": 4})
    assert roster.raise_form(shared, epoch + 1, 2) == 2, "it leads no more"
    assert roster.raise_form(shared, epoch, 2) == 3
    told = orjson.loads(shared.below(shared.cluster_key)[0].value)
    assert (roster.form_of(told), told["tz"]) == (3, "UTC")
    monkeypatch.setattr(roster, "FACTS_VERSION", 2)
    with pytest.raises(Fatal, match="form 3, and this release knows form 2") as caught:
        node.check_cluster(journal.last)
    assert caught.value.status == Exit.BUG
    journal.close()


def test_what_an_older_node_does_not_know_is_refused(
    etcd: Etcd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would end with the first such record, or run such a task as if the option were not there."""
    node, journal = node_on(tmp_path)
    monkeypatch.setattr("cronflowd.journal.shared_journal.FACTS_VERSION", 3)
    news = {"TaskResumed": 3, "TaskPaused.until_at": 3, "title=": 3}
    monkeypatch.setattr(f, "SINCE", news)
    added = f.TaskAdded(1, {"schedule": "0 0 1 1 *", "command": "true"}, NOW, None)
    titled = f.TaskAdded(2, {**added.record, "title": "x"}, NOW, None)
    epoch = node.shared.claim(int(etcd.call("lease/grant", {"TTL": "3"})["ID"]), b"{}") or 0
    journal.lead(epoch, 2)
    paused = f.TaskPaused(1, NOW, "")
    for fact, what in (f.TaskResumed(1), "TaskResumed"), (paused, "TaskPaused.until_at"), (titled, "title="):
        with pytest.raises(Refusal, match=f"busy a node is older than {what} "):
            journal.append([added, fact], NOW)
    assert journal.append([added], NOW) == 2
    journal.lead(epoch, 3)
    assert journal.append([titled, f.TaskResumed(1)], NOW) == 4
    journal.close()


def test_what_nobody_asked_for_goes_on_without_what_is_new(etcd: Etcd, tmp_path: Path) -> None:
    """A leader that told which zone data it has ended every older node; and it cannot refuse to begin."""
    node, journal = node_on(tmp_path)
    epoch = node.shared.claim(int(etcd.call("lease/grant", {"TTL": "3"})["ID"]), b"{}") or 0
    for form, zones in (2, ""), (3, "2026b"):
        journal.lead(epoch, form)
        started = f.DaemonStarted("0.1.0", "UTC", NOW, zones="2026b")
        journal.append([started], NOW)
        assert started.zones == zones, "what is true here is what all are told"
    journal.close()
    told = [b'"zones":"2026b"' in line for lines in node.shared.fetch(2) for line in lines]
    assert told == [False, True]


async def test_a_record_that_cannot_be_applied_ends_a_standby_as_an_older_one(
    etcd: Etcd, tmp_path: Path
) -> None:
    """A newer release may do by known words what is impossible here: this one must not lead after that."""
    node, journal = node_on(tmp_path)
    core = cast(Any, SimpleNamespace(state=State("UTC"), last_seq=1))
    with pytest.raises(Fatal, match=r"record 2 cannot be understood.*bring this one up to date") as caught:
        await node._apply(core, [(2, NOW, f.RunStarted(7, 1))])
    assert (caught.value.status, core.last_seq) == (Exit.BUG, 1)
    journal.close()


def test_a_standby_tells_whether_another_node_has_its_output(
    etcd: Etcd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """STATUS has the same rows on every node: whoever watches one by LOCAL must not find a row missing."""
    node, journal = node_on(tmp_path)
    monkeypatch.setattr(roster, "status_rows", lambda *_: [])
    assert node._status_rows() == [("lacking", "nothing"), ("output-uncopied", None)]
    node.copies._peer = Mock()
    assert node._status_rows()[1:] == [("output-uncopied", 0)]
    node.peers = Mock(uncopied=lambda: 7)
    assert node._status_rows()[1:] == [("output-uncopied", 7)]
    journal.close()


async def test_who_has_begun_anew_lets_go_of_its_lease_at_once(
    etcd: Etcd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No connection of then is left; and a lease that etcd prolonged as it elected kept all waiting."""
    lease = Lease(etcd, 3, print)
    lease.grant()
    monkeypatch.setenv(cluster.AGAIN, str(lease.id))
    node, journal = node_on(tmp_path)
    await until(lambda: lease.id not in etcd.leases)
    assert node.has_seen_leader
    assert cluster.AGAIN not in os.environ
    journal.close()


# --- what a member of etcd that was frozen brings in late -----------------------------------------


def told_by(etcd: FakeEtcd, key: bytes) -> Any:
    return orjson.loads(etcd.entries[key].value)


def test_what_a_node_tells_is_not_undone_by_what_it_told_before(tmp_path: Path, etcd: Etcd) -> None:
    """Where nothing happens it would stand there as behind, and an end with long output would wait for it."""
    node, journal = node_on(tmp_path / "a")
    node._lease_s, node._control, node._workers = 3000.0, "127.0.0.1:1", "127.0.0.1:2"
    node._enter()  # its lease asks etcd as well, but not while this test does
    etcd.wrong = ["late"]
    with pytest.raises(Unreachable):
        node.tell(5, True)
    for fault in "", "twice", "no answer":
        etcd.wrong = [fault]
        with suppress(Unreachable):
            node.tell(6 + len(fault), True)
    node.tell(20, True)
    etcd.arrive()
    assert told_by(etcd, node.shared.node_key("a"))["seq"] == 20
    node.tell(21, True)
    assert told_by(etcd, node.shared.node_key("a"))["seq"] == 21
    node.resign()
    journal.close()


def test_a_zone_that_is_told_late_takes_no_newer_ones_place(tmp_path: Path, etcd: Etcd) -> None:
    """All nodes must have the same, so the next to begin would be refused."""
    node, journal = node_on(tmp_path / "a")
    key = node.shared.cluster_key
    node.shared.transact([], [put(key, orjson.dumps({"id": "x", "tz": "UTC", "node": "a"}))])
    node._offered = "x"
    old = node.check_cluster(0)
    for zone, fault in ("Asia/Tokyo", "late"), ("Europe/Rome", ""):
        node.settings = evolve(node.settings, tz=zone)
        etcd.wrong = ["", fault]
        with suppress(Unreachable):
            node._agree(*node.check_cluster(0))
    etcd.arrive()
    assert told_by(etcd, key)["tz"] == "Europe/Rome"
    with pytest.raises(Unreachable, match="this moment"):
        node._agree(*old)
    journal.close()


def test_orders_are_signed_with_one_key_by_all_nodes(caplog: pytest.LogCaptureFixture) -> None:
    """Each made one of its own, and after a change of leader workers refused every order as forged."""
    told = {"tz": "UTC", "node": "a"}
    ours = {"tz": "UTC", "orders": "key of b"}
    agreed = roster.agreed(told, ours, "b", ["a"])
    assert agreed == told | {"orders": "key of b"}
    assert roster.agreed(agreed, ours, "b", ["a"]) == agreed
    with pytest.raises(Fatal, match=r"node c signs orders with another order.key than a, b: copy") as caught:
        roster.agreed(agreed, {"tz": "UTC", "orders": "key of c"}, "c", ["a", "b"])
    assert caught.value.status == Exit.CONFIG
    assert roster.agreed(agreed, {"tz": "UTC", "orders": ""}, "c", ["a"]) == agreed
    assert "orders of this node are not signed" in caplog.text
    # A new key: all nodes are stopped, and the first to begin has it.
    assert roster.agreed(agreed, {"tz": "UTC", "orders": "new"}, "b", [])["orders"] == "new"


@pytest.mark.parametrize("is_node", [False, True])
async def test_who_takes_over_amid_a_large_change_does_not_finish_it_first(
    tmp_path: Path, is_node: bool
) -> None:
    """Amid CLEAR of 200,000 tasks nobody led for seven seconds more, and nothing ran that was due."""

    async def done(*_: object) -> bool:
        return False

    daemon: Any = Daemon.__new__(Daemon)
    finished: list[None] = []

    async def finish_alone() -> None:
        finished.append(None)

    daemon.settings, daemon.is_new = Settings(data=tmp_path, tz="UTC"), False
    daemon.node = SimpleNamespace(is_cold=False) if is_node else None
    daemon.state = State("UTC")
    daemon.state.decided_upto_at, daemon.state.access = NOW, SimpleNamespace(key_trouble="")
    daemon.core = SimpleNamespace(now=lambda: NOW, submit=Mock(), settled=done, last_seq=1)
    large = SimpleNamespace(finish_alone=finish_alone)
    daemon.answers = SimpleNamespace(
        files=SimpleNamespace(find_calendars=lambda: iter(()), large=large, is_edited=done)
    )
    await daemon._begin()
    assert len(finished) == (not is_node)


# --- who is to lead next --------------------------------------------------------------------------


class Awake(Etcd):
    """With nodes of which only c reads what the leader asks."""

    def call(self, path: str, body: dict[str, Any], timeout_s: float = 1.0) -> dict[str, Any]:
        answer = super().call(path, body, timeout_s)
        shared = Shared(self)
        leader, c = (self.entries.get(key) for key in (shared.leader_key, shared.node_key("c")))
        if leader and c and (asks := orjson.loads(leader.value).get("asks")):
            c.value = orjson.dumps(orjson.loads(c.value) | {"heard": asks})
        return answer


@pytest.mark.parametrize(
    ("others", "best"),
    [
        ({"b": {"seq": 1990, "whole": True}, "c": {"seq": 2000, "whole": False}}, "b"),
        ({"b": {"seq": 990, "whole": True}, "c": {"seq": 2000}}, "c"),
        ({"b": {"seq": 2000, "whole": True, "clock": -3.0}, "c": {"seq": 1000, "clock": 0.1}}, "c"),
        ({"b": {"seq": 2000, "clock": 9.0}}, "b"),
    ],
    ids=["what one has", "unless it is far behind", "one whose clock is right", "the one that there is"],
)
def test_whoever_is_fit_to_lead_is_handed_to(
    others: dict[str, Any], best: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that lacks a part of the past would have to be given it by the others first."""
    monkeypatch.setattr(roster, "awake", lambda *_: others)
    assert roster.heir(Shared(FakeEtcd()), {"node": "a"}, 1, 1, "", 2000) == best


async def test_nobody_leads_where_a_node_has_seen_more_than_etcd_knows(
    etcd: Etcd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """etcd was restored: who had been away knew no better, led, and what was acknowledged since was gone."""
    node, journal = node_on(tmp_path / "a", lines=3)
    node._belong(State("UTC"), journal)
    key = node.shared.cluster_key
    for seq, name in (9, "b"), (8, "c"):
        before = node.shared.get(key)
        assert before
        roster.tell_ahead(node.shared, before, seq, name)
        roster.tell_ahead(node.shared, before, 99, "late")
    with pytest.raises(
        Fatal, match="node b knows record 9, and etcd only record 3: it was restored"
    ) as caught:
        node.check_cluster(3)
    assert caught.value.status == Exit.CORRUPT
    with pytest.raises(Fatal, match=f"{tmp_path}/a knows record 4, and etcd only record 3"):
        node.check_cluster(4)

    monkeypatch.setattr("cronflowd.daemon.keeper.LOOK_S", 0.0)
    monkeypatch.setattr("cronflowd.daemon.keeper.ROOM_S", 0.0)
    monkeypatch.setattr(node, "tell", Mock())
    monkeypatch.setattr(node, "on_fatal", Mock(side_effect=EOFError))
    keeper = Keeper(node, journal)
    monkeypatch.setattr(keeper, "_look_for_room", Mock())
    with pytest.raises(EOFError):  # who leads already
        await keeper.run()

    node.shared._put_record(
        node.shared.claim(int(etcd.call("lease/grant", {"TTL": "3"})["ID"]), b"{}") or 0,
        4,
        zlib.compress(b'{"seq":9,'),
    )
    node.check_cluster(3)  # etcd knows that record again
    journal.close()


async def test_who_lacks_a_part_of_the_past_lets_one_lead_that_has_it(
    etcd: Etcd, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The rest of it came from the leader: it would have been lacking from then on, though a node has it."""
    node, journal = node_on(tmp_path)

    def tell(*, whole: bool) -> None:
        told = orjson.dumps({"node": "b", "whole": whole})
        node.shared.transact([], [put(node.shared.node_key("b"), told)])

    node._leaderless_s = trio.current_time()
    tell(whole=True)
    assert await node._may_lead(journal)
    node.lacks.runs.add(1)
    assert not await node._may_lead(journal)
    tell(whole=False)
    assert await node._may_lead(journal), "nobody has it"
    tell(whole=True)
    heir = node.shared.heir_key
    us = node.shared.node_key("a")
    node.shared.transact([], [put(heir, b"a"), put(us, b'{"node":"a"}')])
    assert await node._may_lead(journal), "it was named"
    node.shared.delete(heir)
    await trio.sleep(node._lease_s)
    assert await node._may_lead(journal), "the other one does not lead"
    journal.close()


async def test_who_was_to_lead_and_is_gone_is_waited_for_no_longer(
    etcd: Etcd, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """It was killed before it led, its lease has ended, and all others waited on."""
    node, journal = node_on(tmp_path)
    node._leaderless_s = trio.current_time()
    heirs = node.shared.node_key("b")
    node.shared.transact([], [put(node.shared.heir_key, b"b"), put(heirs, b'{"node":"b"}')])
    await trio.sleep(2 * node._lease_s)
    assert not await node._may_lead(journal)
    node.shared.delete(heirs)
    assert await node._may_lead(journal)
    journal.close()


async def test_a_node_whose_disk_is_full_answers_the_leader(
    etcd: Etcd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """STEPDOWN waited five seconds for it, and said that no other node was there."""
    monkeypatch.setattr(cluster, "LOOK_S", 0.0)
    node, journal = node_on(tmp_path)
    node._lease_s, node._control, node._workers = 3000.0, "127.0.0.1:1", "127.0.0.1:2"
    node._enter()
    leads = {"node": "b", "control": "127.0.0.1:3", "workers": "127.0.0.1:4", "asks": "awake?"}
    node.shared.transact([], [put(node.shared.leader_key, orjson.dumps(leads))])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node._look_meanwhile, journal)
        await until(lambda: told_by(etcd, node.shared.node_key("a"))["heard"] == "awake?")
        nursery.cancel_scope.cancel()
    node.resign()
    journal.close()


def test_a_node_that_is_frozen_is_not_to_lead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until its lease ended nobody led: it was named, and all others waited for it."""
    monkeypatch.setattr(roster, "ANSWER_S", 0.0)
    etcd, us = Awake(), {"node": "a"}
    shared = Shared(etcd)
    lease = Lease(etcd, 3, print)
    lease.grant()
    epoch = shared.claim(lease.id, b"{}")
    assert epoch

    def heir(wanted: str = "") -> str:
        return roster.heir(shared, us, epoch, lease.id, wanted, 2000)

    with pytest.raises(Refusal, match="no other node is there"):
        heir()
    for name, seq in ("a", 2000), ("b", 2000), ("c", 1999), ("d", 2000):
        shared.transact([], [put(shared.node_key(name), orjson.dumps({"node": name, "seq": seq}))])
    assert (heir(), heir("c")) == ("c", "c")
    with pytest.raises(Refusal, match="node b does not answer"):
        heir("b")
    for nobody in "a", "e":
        with pytest.raises(Refusal, match=f'no node "{nobody}" is there'):
            heir(nobody)
    shared.transact([], [put(shared.node_key("c"), orjson.dumps({"node": "c", "seq": 999}))])
    with pytest.raises(Refusal, match=r"no other node is up to date$"):
        heir()
    full = {"node": "c", "seq": 999, "has_room": False}
    shared.transact([], [put(shared.node_key("c"), orjson.dumps(full))])
    for wanted, why in ("", "no other node is up to date"), ("c", "node c is not up to date"):
        with pytest.raises(Refusal, match=f"{why}: the disk of c is full"):
            heir(wanted)
    shared.delete(shared.node_key("c"))
    with pytest.raises(Refusal, match="node b, d does not answer"):
        heir()
    etcd.pass_time(100)
    with pytest.raises(Unreachable):
        heir()


@pytest.mark.parametrize(("leads", "longest_s"), [(True, 0.45), (False, 6.05)])
async def test_the_end_of_a_leader_does_not_wait_for_workers_that_stand_still(
    autojump_clock: trio.testing.MockClock, leads: bool, longest_s: float
) -> None:
    """The local worker of a frozen standby closes nothing: another led a second later than it could."""
    daemon, gone, cut = Daemon.__new__(Daemon), trio.Event(), list[str]()
    outbox = SimpleNamespace(drained=trio.sleep_forever, finish=lambda: cut.append("finish"))
    link = SimpleNamespace(outbox=outbox, scope=SimpleNamespace(cancel=gone.set))

    async def settled(seq: int) -> None: ...

    made: Any = daemon
    made.node, made.answers = SimpleNamespace(peers=None) if leads else None, SimpleNamespace(doors=[])
    made.core = SimpleNamespace(
        stop_deciding=lambda: None, last_seq=0, settled=settled, parted=gone.wait, links={"w": link}
    )
    begun_s = trio.current_time()
    await daemon._part()
    assert gone.is_set()
    assert cut == ["finish"]
    assert trio.current_time() - begun_s < longest_s


def test_who_leaves_is_told_what_of_the_past_it_does_not_have(
    etcd: Etcd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The cluster ends, and nobody can be asked for it afterwards; what was here before stays."""
    monkeypatch.setattr(leave, "make_client", lambda *_: etcd)
    node, journal = node_on(tmp_path / "a", 30)
    node._belong(State("UTC"), journal)
    journal.close()
    behind = SharedJournal(tmp_path / "b", shared=node.committing)
    list(behind.replay())
    behind.take(list(GivesState(tmp_path / "a").state()[2])[:10])
    behind.close()
    write_mark(tmp_path / "b", read_mark(tmp_path / "a"))
    settings = Settings(data=tmp_path / "b", tz="UTC", etcd=(("127.0.0.1", 1),), node="b")
    assert leave.leave(settings) == Exit.OK
    said = capsys.readouterr()
    assert said.out == "OK 30\n"
    assert said.err == "cronflowd: the history of records 11 to 30 is on other nodes only\n"
    assert [(file.first, file.last) for file in list_history(journal_dir(tmp_path / "b"))] == [(1, 10)]
    assert "history: records 11 to 30 are not here" in check.examine(tmp_path / "b").lines


@pytest.mark.parametrize("is_begun", [True, False])
async def test_a_node_that_is_told_to_end_as_it_wins_ends_in_order(is_begun: bool) -> None:
    """It was killed between its two roles, and others waited for its lease; or by a second TERM, a HUP.

    Where etcd or a full disk keeps it from being ready, it does not wait for that.
    """
    told, begun = list[str](), cast(Any, object.__new__(Daemon))

    async def stand_by(*_: object) -> bool:
        return True

    async def be_killed() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await trio.lowlevel.checkpoint()
        if not is_begun:
            await trio.sleep_forever()

    async def part() -> None:
        for number in signal.SIGTERM, signal.SIGHUP:
            os.kill(os.getpid(), number)
            await trio.lowlevel.checkpoint()
        told.append("parted")

    async def end() -> None:
        told.append("ended")

    begun.settings, begun._http = Settings(local_worker=0), []
    begun.node = SimpleNamespace(is_stopping=False, lacks=SimpleNamespace(look_back=lambda: None))
    begun._listen_for_commits = begun._open_doors = begun._say_ready = lambda: None
    begun._stand_by, begun._begin, begun._work = stand_by, be_killed, trio.sleep_forever
    begun._part, begun._end = part, end
    before = [
        signal.signal(each, lambda number, _: told.append(signal.Signals(number).name))
        for each in (signal.SIGTERM, signal.SIGHUP)
    ]
    try:
        with trio.fail_after(PATIENCE_S):
            assert await begun.serve() == Exit.OK
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGHUP), before, strict=True):
            signal.signal(number, handler)
    assert told == ["parted"] * is_begun + ["ended"]
    assert begun.node.is_stopping


async def test_a_node_whose_last_tasks_file_meets_a_broken_disk_lets_another_lead() -> None:
    """Else the others wait until its lease ends, though all is committed."""
    told: list[str] = []

    async def done(*_: object) -> bool:
        return False

    async def fail(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    ending = SimpleNamespace(
        core=SimpleNamespace(settled=done, last_seq=1),
        state=SimpleNamespace(unfinished=SimpleNamespace(bulk=None)),
        answers=SimpleNamespace(files=SimpleNamespace(is_edited=done, save=fail)),
        settings=SimpleNamespace(data=Path()),
        journal=SimpleNamespace(close=lambda: told.append("closed")),
        node=SimpleNamespace(resign=lambda: told.append("resigned")),
    )
    with pytest.raises(OSError, match="Input/output"):
        await Daemon._end(cast(Daemon, ending))
    assert told == ["closed", "resigned"]
