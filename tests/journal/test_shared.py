"""What nodes share through etcd holds whatever is lost, late or said twice, and whoever believes to lead."""

from __future__ import annotations

import os
import re
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cronflowd.base.errors import Exit, Fatal, Refusal
from cronflowd.engine import facts as f
from cronflowd.engine.state import State
from cronflowd.host.config import Settings
from cronflowd.journal import leave, shared_journal
from cronflowd.journal.compaction import checkpoint_lines
from cronflowd.journal.etcd import Lease, Unreachable, revoke
from cronflowd.journal.records import seal
from cronflowd.journal.replay import Replay
from cronflowd.journal.shared import (
    MAX_RECORDS,
    MAX_VALUE_BYTES,
    Deposed,
    Shared,
    created_at,
    put,
    seq_in,
    split,
)
from cronflowd.journal.shared_journal import MARK, SharedJournal, check_alone, clear_unfinished, install
from tests.lib.fake_etcd import FakeEtcd
from tests.lib.open_journal import NOW, Committed
from tests.lib.shared_driver import Leading
from tests.lib.waiting import PATIENCE_S

ROOT = Path(__file__).parents[2]

LEASE_S = 3


def lines_of(first: int, count: int, *, more: bool = False, pad: str = "") -> list[bytes]:
    """Sealed lines; with `more`, of one decision."""
    lines, chain = [], 0
    for seq in range(first, first + count):
        mark = b'"more":true,' if more and seq < first + count - 1 else b""
        body = b'{"seq":%d,"at":"2026-11-21T10:00:00Z","fact":"TaskResumed",%b"x":"%b"' % (
            seq,
            mark,
            pad.encode(),
        )
        line, chain = seal(body, chain)
        lines.append(line)
    return lines


def fetch_all(shared: Shared) -> list[bytes]:
    found: list[bytes] = []
    while lines := [line for value in shared.fetch(len(found) + 1) for line in value]:
        found += lines
    return found


class Node:
    """A process that may lead, on the model's clock."""

    def __init__(self, etcd: FakeEtcd, name: str) -> None:
        self.etcd, self.name, self.claims = etcd, name, 0
        self.shared = Shared(etcd, sleep=self._sleep)
        self.begin_anew()

    def begin_anew(self) -> None:
        """As a process does that has forgotten all it knew."""
        self.epoch, self.last = 0, 0
        self.claims += 1
        self.lease = Lease(self.etcd, LEASE_S, lambda why: None, lambda: self.etcd.now)

    def _sleep(self, seconds: float) -> None:
        self.etcd.pass_time(seconds)
        if not self.lease.is_certain:
            raise Deposed("its thread ended with the process")

    @property
    def leads(self) -> bool:
        return bool(self.epoch) and self.lease.is_certain

    def claim(self) -> None:
        if not self.lease.id:
            self.lease.grant()
        self.epoch = self.shared.claim(self.lease.id, f"{self.name} {self.claims}".encode()) or 0
        if self.epoch:
            self.last = len(fetch_all(self.shared))


# --- transactions ---------------------------------------------------------------------------------


def test_the_epoch_grows_with_every_leader(tmp_path: Path) -> None:
    """A worker follows the highest it was told, and a number that came twice would mean two leaders."""
    etcd, epochs = FakeEtcd(), []
    for name in "abcab":
        node = Node(etcd, name)
        node.claim()
        epochs.append(node.epoch)
        etcd.pass_time(LEASE_S + 1)
    assert sorted(set(epochs)) == epochs


def test_whoever_leads_is_not_waited_for_any_more() -> None:
    """It may end at once: all others would wait until what named it has ended, longer than for a lease."""
    etcd = FakeEtcd()
    one, other = Node(etcd, "a"), Node(etcd, "b")
    one.claim()
    one.shared.transact([], [put(one.shared.heir_key, b"b")])
    other.claim()
    assert one.shared.get(one.shared.heir_key), "it does not lead yet"
    etcd.let_go(one.lease.id)
    other.claim()
    assert (bool(other.epoch), one.shared.get(one.shared.heir_key)) == (True, None)


def test_nobody_else_leads_while_a_lease_is_held() -> None:
    """And it is held a little longer than its holder believes."""
    etcd = FakeEtcd()
    one, other = Node(etcd, "a"), Node(etcd, "b")
    one.claim()
    etcd.pass_time(LEASE_S * 0.9)
    assert not one.lease.is_certain
    other.claim()
    assert other.epoch == 0
    etcd.pass_time(LEASE_S * 0.1)
    other.claim()
    assert other.epoch > one.epoch


def test_a_leader_of_the_past_writes_nothing() -> None:
    """Whatever it was stopped in the middle of."""
    etcd = FakeEtcd()
    one, other = Node(etcd, "a"), Node(etcd, "b")
    one.claim()
    etcd.pass_time(LEASE_S + 1)
    with pytest.raises(Deposed):
        one.shared.commit(one.epoch, lines_of(1, 1))
    other.claim()
    with pytest.raises(Deposed, match="another node leads"):
        one.shared.commit(one.epoch, lines_of(1, 1))
    assert fetch_all(other.shared) == []


@pytest.mark.parametrize("fault", ["no answer", "lost", "twice", "busy"])
def test_a_lost_answer_is_found_out(fault: str) -> None:
    """The record was written, once, and whoever wrote it may say so."""
    etcd = FakeEtcd()
    node = Node(etcd, "a")
    node.claim()
    etcd.wrong = [fault]
    node.shared.commit(node.epoch, lines_of(1, 2))
    assert fetch_all(node.shared) == lines_of(1, 2)


def test_a_claim_whose_answer_was_lost_is_ones_own() -> None:
    """Else nobody would lead until the lease ended, again and again."""
    etcd = FakeEtcd()
    node = Node(etcd, "a")
    node.lease.grant()
    etcd.wrong = ["no answer"]
    with pytest.raises(Unreachable):
        node.claim()
    node.claim()
    assert node.epoch


def test_a_request_that_comes_late_changes_nothing() -> None:
    """It may come when another leads, at a number that the other is to write next."""
    etcd = FakeEtcd()
    one, other = Node(etcd, "a"), Node(etcd, "b")
    one.claim()
    etcd.wrong = ["late"]
    etcd.pass_time(LEASE_S * 0.9)
    with pytest.raises(Deposed):
        one.shared.commit(one.epoch, lines_of(1, 1, pad="old"))
    etcd.pass_time(LEASE_S)
    other.claim()
    etcd.arrive()
    other.shared.commit(other.epoch, lines_of(1, 1, pad="new"))
    assert fetch_all(other.shared) == lines_of(1, 1, pad="new")


def test_an_etcd_that_is_full_ends_a_leader() -> None:
    """As a lost quorum does: it would hold its lease, and do nothing."""
    etcd = FakeEtcd()
    node = Node(etcd, "a")
    node.claim()
    etcd.is_full = True
    with pytest.raises(Deposed, match="space"):
        node.shared.commit(node.epoch, lines_of(1, 1))


# --- values ---------------------------------------------------------------------------------------


def test_a_long_batch_is_cut_between_decisions() -> None:
    """A value holds whole decisions: whoever reads it up to there knows something that was true."""
    sevens = (lines_of(at, 7, more=True) for at in range(1, MAX_RECORDS * 2, 7))
    batch = [line for lines in sevens for line in lines]
    pieces = list(split(batch))
    assert [line for piece in pieces for line in piece] == batch
    assert all(len(piece) <= MAX_RECORDS for piece in pieces)
    assert all((seq_in(piece[-1]) % 7, len(pieces)) == (0, 3) for piece in pieces)


def test_a_decision_of_any_size_is_there_whole_or_not_at_all() -> None:
    """No value in etcd is over 1 MiB, and a leader may die between two of them."""
    etcd = FakeEtcd()
    one, other = Node(etcd, "a"), Node(etcd, "b")
    one.claim()
    noise = [os.urandom(400).hex() for _ in range(5_000)]
    decision = [line for seq, pad in enumerate(noise, 1) for line in lines_of(seq, 1, pad=pad)]
    etcd.wrong = ["", "", "late"]  # two of its parts are there
    etcd.pass_time(LEASE_S * 0.9)
    with pytest.raises(Deposed):
        one.shared.commit(one.epoch, decision)
    assert (fetch_all(other.shared), len(etcd.entries) > 1) == ([], True)
    etcd.pass_time(LEASE_S)
    other.claim()
    other.shared.commit(other.epoch, decision)
    assert fetch_all(other.shared) == decision
    assert etcd.largest <= MAX_VALUE_BYTES
    other.shared.truncate(5_000)
    assert [key for key in etcd.entries if b"/p/" in key or b"/r/" in key] == []


def test_a_snapshot_is_one_whole_state() -> None:
    """The one before it goes only when the new one counts; that of a leader of the past never does."""
    etcd = FakeEtcd()
    node = Node(etcd, "a")
    node.claim()
    guard = [created_at(node.shared.leader_key, node.epoch)]
    chunks = [os.urandom(300_000) for _ in range(9)]
    assert node.shared.put_snapshot(9, "one", chunks[:4], guard)
    assert node.shared.put_snapshot(12, "two", chunks, guard)
    with pytest.raises(Deposed):
        node.shared.put_snapshot(14, "three", chunks, [created_at(node.shared.leader_key, 1)])
    upto, found = node.shared.get_snapshot()
    assert (upto, b"".join(found)) == (12, b"".join(chunks))
    assert len([key for key in etcd.entries if b"/s/" in key]) == 4
    assert etcd.largest <= MAX_VALUE_BYTES


class Telling(FakeEtcd):
    """Has this befall the next transaction."""

    fault = ""

    def call(self, path: str, body: dict[str, Any], timeout_s: float = 1.0) -> dict[str, Any]:
        if path == "kv/txn" and self.fault:
            self.wrong, self.fault = [self.fault], ""
        return super().call(path, body, timeout_s)


def test_a_snapshot_that_is_told_of_twice_is_there() -> None:
    """The answer to the second was that another was first, and the parts were removed: nobody could join."""
    etcd = Telling()
    shared = Shared(etcd)
    guard, first = [created_at(shared.cluster_key, 0)], [put(shared.cluster_key, b"{}")]
    etcd.fault = "twice"
    assert shared.put_snapshot(9, "one", [b"state"], guard, first)
    upto, found = shared.get_snapshot()
    assert (upto, b"".join(found or ())) == (9, b"state")


def test_a_snapshot_that_is_told_of_late_takes_no_newer_ones_place() -> None:
    """A member of etcd that was frozen goes on with what was asked of it then, when the parts are gone."""
    etcd = Telling()
    node = Node(etcd, "a")
    node.claim()
    shared, guard = node.shared, [created_at(node.shared.leader_key, node.epoch)]
    etcd.fault = "late"
    with pytest.raises(Unreachable):
        shared.put_snapshot(9, "one", [b"old"], guard)
    assert shared.put_snapshot(12, "one", [b"new"], guard)
    etcd.arrive()
    upto, found = shared.get_snapshot()
    assert (upto, b"".join(found or ())) == (12, b"new")


# --- the copy -------------------------------------------------------------------------------------


def write(data: Path, etcd: FakeEtcd, count: int) -> list[Any]:
    """A leader's decisions, and what its journal would replay."""
    journal = Leading(data, etcd)
    found = list(journal.replay())
    journal.notify = told = Committed()
    for number in range(count):
        journal.append([f.OutputReceived(number, 1, [[0, "x"]]), f.RunStarted(number, 1)], NOW)
        journal.flush()
        told.wait(journal.last)
    journal.close()
    return found


def follower(data: Path, etcd: FakeEtcd) -> SharedJournal:
    journal = SharedJournal(data, shared=Shared(etcd))
    list(journal.replay())
    return journal


def bytes_of(data: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((data / "journal").glob("*.jsonl"))]


def test_a_follower_has_the_same_bytes(tmp_path: Path) -> None:
    """Numbers, times and the chain of CRCs: a way back from the cluster is a copy."""
    etcd = FakeEtcd()
    write(tmp_path / "one", etcd, 5)
    journal = follower(tmp_path / "two", etcd)
    for lines in Shared(etcd).fetch(1):
        journal.take(lines)
    assert journal.committed == 10
    journal.close()
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


def test_a_copy_that_ends_inside_a_value_goes_on_from_there(tmp_path: Path) -> None:
    """Power went while it was written: what is missing stands in etcd below a smaller number.

    Whoever overlooked it would lead without records that were acknowledged, and write its own beside them.
    """
    etcd = FakeEtcd()
    journal = Leading(tmp_path / "one", etcd)
    list(journal.replay())
    for number in range(5):
        journal.append([f.OutputReceived(number, 1, [[0, "x"]]), f.RunStarted(number, 1)], NOW)
    journal.close()  # one batch, and one value
    assert len(Shared(etcd).fetch(1)) == 1
    whole = bytes_of(tmp_path / "one")
    (path,) = (tmp_path / "one/journal").glob("*.jsonl")
    path.write_bytes(b"".join(whole[0].splitlines(keepends=True)[:5]))  # the header, two decisions
    behind, shared = follower(tmp_path / "one", etcd), Shared(etcd)
    assert behind.last == 4
    taken = [record for lines in shared.fetch(5) for record in behind.take(lines)]
    behind.close()
    assert ([seq for seq, *_ in taken], shared.fetch(11)) == ([5, 6, 7, 8, 9, 10], [])
    assert bytes_of(tmp_path / "one") == whole


def test_whoever_has_all_asks_once_for_what_is_new(tmp_path: Path) -> None:
    """A standby asks at every change there is."""
    etcd = FakeEtcd()
    write(tmp_path, etcd, 3)
    shared = Shared(etcd)
    assert [shared.fetch(1), shared.fetch(7), shared.fetch(7)][1:] == [[], []]
    etcd.asked.clear()
    assert shared.fetch(7) == []
    assert len(etcd.asked) == 1


def test_a_follower_decides_nothing(tmp_path: Path) -> None:
    """Not even who came in, or what the clock did: it would be a record that nobody else has."""
    journal = follower(tmp_path, FakeEtcd())
    with pytest.raises(Refusal, match="not-leader"):
        journal.append([f.TaskResumed(None)], NOW)
    journal.close()
    again = follower(tmp_path, FakeEtcd())
    assert again.last == 0
    again.close()


def test_another_history_is_refused(tmp_path: Path) -> None:
    """Two daemons' tasks cannot be one set by accident."""
    etcd = FakeEtcd()
    write(tmp_path / "one", etcd, 5)
    write(tmp_path / "two", FakeEtcd(), 2)
    with (tmp_path / "two/journal" / f"{1:020d}.jsonl").open("rb") as file:
        assert file.readline()
    journal = follower(tmp_path / "two", etcd)
    journal.chain ^= 1  # as if other records had led here
    with pytest.raises(Fatal, match="another history") as refused:
        journal.take(Shared(etcd).fetch(5)[0])
    assert refused.value.status == 78
    journal.close()


@pytest.mark.parametrize("mark", [None, b"", b"3"], ids=["a directory", "nothing", "no object"])
def test_what_is_no_mark_of_a_cluster_is_told_in_one_line(tmp_path: Path, mark: bytes | None) -> None:
    """Whoever kept something of his own under that name read a traceback."""
    path = tmp_path / "cluster"
    path.mkdir() if mark is None else path.write_bytes(mark)
    with pytest.raises(Fatal, match=f"^{path}: "):
        check_alone(tmp_path)


def test_the_cluster_to_try_is_in_no_single_daemons_way() -> None:
    """`make run` after `make cluster`: both in ./var, where `cluster` is a file."""
    script = (ROOT / "contrib" / "cluster.sh").read_text()
    (where,) = re.findall(r"^var=\$\{1:-var/(\S+)\}", script, re.MULTILINE)
    assert where not in (MARK, "journal")


def test_an_empty_directory_begins_with_a_snapshot(tmp_path: Path) -> None:
    """Records before it are not in etcd any more."""
    write(tmp_path / "one", FakeEtcd(), 5)
    replay = Replay(tmp_path / "one/journal")
    assert len(list(replay)) == 10
    whole = list(checkpoint_lines(State("UTC"), 10, replay.chain, NOW))
    install(tmp_path / "two", 10, whole)
    journal = follower(tmp_path / "two", FakeEtcd())
    assert (journal.last, journal.chain) == (10, replay.chain)
    journal.close()


def test_a_join_that_is_done_stays_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If power brought its mark back, the next start would take away what was written since."""
    write(tmp_path / "one", FakeEtcd(), 5)
    replay = Replay(tmp_path / "one/journal")
    assert len(list(replay)) == 10
    synced = list[tuple[Path, bool]]()
    data = tmp_path / "two"
    monkeypatch.setattr(
        shared_journal, "sync_directory",
        lambda path: synced.append((path, (data / shared_journal.JOINING).exists())), raising=False,
    )  # fmt: skip
    install(data, 10, list(checkpoint_lines(State("UTC"), 10, replay.chain, NOW)))
    assert synced == [(data / "journal", True), (data, False)], "what its mark stands for is there first"


def test_a_join_that_was_cut_short_begins_anew(tmp_path: Path) -> None:
    """Half of it would be a journal with a hole."""

    def chunks() -> Any:
        yield b"half of"
        raise Unreachable("etcd is gone")

    with pytest.raises(Unreachable):
        install(tmp_path, 10, chunks())
    clear_unfinished(tmp_path)
    again = follower(tmp_path, FakeEtcd())
    assert again.last == 0
    again.close()


def test_a_join_on_a_full_disk_is_no_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 70 or 73 its unit is not started again, and stays down when there is room."""
    monkeypatch.setattr(
        shared_journal, "prepare", Mock(side_effect=Refusal("disk-full", "no space left for it"))
    )
    with pytest.raises(Fatal, match="no space left for it") as caught:
        install(tmp_path, 10, [])
    assert caught.value.status == Exit.IO


def test_who_lacks_a_state_that_is_too_long_for_etcd_does_not_leave(tmp_path: Path) -> None:
    """The directory would go on as a single daemon without its tasks."""
    shared = Shared(FakeEtcd())
    shared.leave_snapshot(7, [])
    with pytest.raises(Fatal, match="lacks the state of record 7") as caught:
        leave._fetch(Settings(data=tmp_path), shared, Mock())
    assert caught.value.status == Exit.CONFIG


# --- all of it, in any order ----------------------------------------------------------------------

NODES = st.integers(0, 2)
FAULTS = st.lists(st.sampled_from(["", "", "lost", "no answer", "twice", "late"]), max_size=4)


class Lives(RuleBasedStateMachine):
    """Three nodes that claim, commit, stand still, renew and forget, on a network that does its worst.

    What holds is cluster.md's first promise: at most one node may answer at any moment, and whatever was
    answered stands in the record for ever, at its number, once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.etcd = FakeEtcd()
        self.nodes = [Node(self.etcd, name) for name in "abc"]
        self.epochs: list[int] = []
        self.answered: dict[int, bytes] = {}
        self.written = 0

    def _one(self, number: int, leading: bool) -> Node | None:
        """One of those that believe to lead, or of the others: no step for nothing."""
        found = [node for node in self.nodes if bool(node.epoch) == leading]
        return found[number % len(found)] if found else None

    @rule(number=NODES, faults=FAULTS)
    def claim(self, number: int, faults: list[str]) -> None:
        if (node := self._one(number, leading=False)) is None:
            return
        if not node.lease.is_certain:
            node.begin_anew()
        self.etcd.wrong = faults
        with suppress(Unreachable):
            node.claim()
        self.etcd.wrong = []
        if node.epoch:
            assert node.epoch > max(self.epochs, default=0)
            self.epochs.append(node.epoch)

    @rule(number=NODES, count=st.integers(1, 3), faults=FAULTS)
    def commit(self, number: int, count: int, faults: list[str]) -> None:
        """Also by one that has slept, and does not know yet what time it is."""
        if (node := self._one(number, leading=True)) is None:
            return
        self.written += 1
        lines = lines_of(node.last + 1, count, pad=f"{node.name}{self.written}")
        self.etcd.wrong = faults
        try:
            node.shared.commit(node.epoch, lines)
        except Deposed:
            node.begin_anew()
            return
        finally:
            self.etcd.wrong = []
        node.last += count
        if node.lease.is_certain:  # the gate
            for line in lines:
                assert self.answered.setdefault(seq_in(line), line) == line

    @rule(number=NODES, faults=FAULTS)
    def renew(self, number: int, faults: list[str]) -> None:
        node = self._one(number, leading=True)
        if node is None or not node.lease.is_certain:
            return
        self.etcd.wrong = faults
        with suppress(Unreachable):
            if not node.lease.renew():
                node.begin_anew()
        self.etcd.wrong = []

    @rule(tenths=st.sampled_from([1, 5, 13, 29, 31, 40]))
    def wait(self, tenths: int) -> None:
        self.etcd.pass_time(tenths / 10)

    @rule()
    def arrive(self) -> None:
        """What was under way, the last first."""
        self.etcd.arrive()

    @rule(number=NODES, politely=st.booleans())
    def leave(self, number: int, politely: bool) -> None:
        if node := self._one(number, leading=True):
            if politely:
                revoke(self.etcd, node.lease.id)
            node.begin_anew()

    @invariant()
    def at_most_one_may_answer(self) -> None:
        assert sum(node.leads for node in self.nodes) <= 1

    def teardown(self) -> None:
        self.etcd.wrong = []
        self.etcd.arrive()
        found = fetch_all(self.nodes[0].shared)
        assert [seq_in(line) for line in found] == list(range(1, len(found) + 1))
        assert self.answered.items() <= {seq_in(line): line for line in found}.items()


STEPS = 50
EXAMPLES = 20_000 if os.environ.get("CRONFLOWD_LONG") else 200
TestLives = Lives.TestCase
TestLives.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck)
)


# --- the lease's thread ---------------------------------------------------------------------------


KEPT_S = 0.3


class Passing(FakeEtcd):
    """Its time is all there is, and passes while a renewal is asked for: the machine may stand still."""

    def call(self, path: str, body: dict[str, Any], timeout_s: float = 1.0) -> dict[str, Any]:
        if path == "lease/keepalive":
            self.pass_time(KEPT_S / 6)
        return super().call(path, body, timeout_s)


def kept(etcd: Passing) -> tuple[Lease, list[str], threading.Event]:
    """A lease that is renewed by its thread."""
    told, lost = list[str](), threading.Event()
    lease = Lease(etcd, KEPT_S, lambda why: (told.append(why), lost.set()), lambda: etcd.now)
    lease.grant()
    lease.keep()
    return lease, told, lost


def test_a_lease_is_renewed_while_etcd_answers() -> None:
    """For longer than its length."""
    etcd = Passing()
    lease, told, lost = kept(etcd)
    while etcd.asked.count("lease/keepalive") < 12 and not lost.wait(0.01):  # two lengths
        pass
    assert (lease.is_certain, told) == (True, [])
    lease.end()
    assert not lease.is_certain


def test_a_renewal_that_nobody_answered_is_asked_for_again_at_once() -> None:
    """etcd elects a leader for as long as half a lease: what comes late then comes too late."""

    class Electing(FakeEtcd):
        def call(self, path: str, body: dict[str, Any], timeout_s: float = 1.0) -> dict[str, Any]:
            if path == "lease/keepalive" and self.asked.count(path) in (1, 2):
                self.asked.append(path)
                raise Unreachable("no leader")
            return super().call(path, body, timeout_s)

    class Waits(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout)
            return len(pauses) > 6

    pauses = list[float | None]()
    lease = Lease(Electing(), 3, lambda why: None, lambda: 0.0)
    lease._ended = Waits()
    lease.grant()
    lease._keep()
    assert pauses == [0.25, 0.25, 0.05, 0.05, 0.25, 0.25, 0.25]


def test_a_renewal_that_is_answered_after_the_end_makes_nothing_certain() -> None:
    """Another may lead from then on."""

    class Slow(FakeEtcd):
        def call(self, path: str, body: dict[str, Any], timeout_s: float = 1.0) -> dict[str, Any]:
            if path == "lease/keepalive":
                lease.end()
            return super().call(path, body, timeout_s)

    lease = Lease(Slow(), 3, lambda why: None, lambda: 0.0)
    lease.grant()
    assert lease.is_certain
    assert lease.renew()
    assert not lease.is_certain


@pytest.mark.parametrize(
    ("renewal", "why"),
    [({"ID": "1"}, "etcd let it end"), (Unreachable("gone"), "gone"), (ValueError("odd"), "odd")],
)
def test_a_lost_lease_is_told_of_once(renewal: Any, why: str) -> None:
    """Before it has ended at etcd; and whatever the answer is made of."""

    class Odd(Passing):
        def call(self, path: str, body: dict[str, Any], timeout_s: float = 1.0) -> dict[str, Any]:
            answer = super().call(path, body, timeout_s)
            if path != "lease/keepalive":
                return answer
            if isinstance(renewal, Exception):
                raise renewal
            return dict(renewal)

    lease, told, lost = kept(Odd())
    assert lost.wait(PATIENCE_S)
    assert not lease.is_certain
    (said,) = told
    assert why in said
