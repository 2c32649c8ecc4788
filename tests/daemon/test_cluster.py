"""A node's place in its cluster, on a model of etcd: what real ones show only by chance."""

from __future__ import annotations

import os
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
from cronflowd.daemon.keeper import Keeper
from cronflowd.engine import facts as f
from cronflowd.engine.state import State
from cronflowd.host.config import Settings
from cronflowd.journal import check, leave
from cronflowd.journal.etcd import Lease, Unreachable
from cronflowd.journal.files import checkpoint_path, journal_dir, list_history, list_segments
from cronflowd.journal.gaps import lines_of
from cronflowd.journal.shared import Deposed, Shared, put
from cronflowd.journal.shared_journal import SharedJournal, read_mark, write_mark
from tests.lib.nodes import Etcd, node_on, told_by
from tests.lib.open_journal import NOW
from tests.lib.waiting import PATIENCE_S, until


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
