"""Who is to lead next, and how a leader and a node end and begin, on a model of etcd."""

from __future__ import annotations

import errno
import os
import signal
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import orjson
import pytest
import trio
import trio.testing

from cronflowd.base.errors import Exit, Fatal, Refusal
from cronflowd.daemon import cluster, roster
from cronflowd.daemon.daemon import Daemon
from cronflowd.daemon.keeper import Keeper
from cronflowd.engine.state import State
from cronflowd.host.config import Settings
from cronflowd.journal.etcd import Lease, Unreachable
from cronflowd.journal.shared import Shared, put
from tests.lib.fake_etcd import FakeEtcd
from tests.lib.nodes import Etcd, node_on, told_by
from tests.lib.open_journal import NOW
from tests.lib.waiting import PATIENCE_S, until


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
