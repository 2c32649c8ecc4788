"""A worker finds whoever leads, and never goes back to a leader of the past."""

from __future__ import annotations

from pathlib import Path

import pytest

from cronflowd.worker import agent as agents
from cronflowd.worker.ways import Ways
from tests.lib.fake_daemon import FakeDaemon, Visitor, fake_daemon
from tests.lib.waiting import until
from tests.lib.working_agent import working

A, B, C = ("a", 1), ("b", 2), ("c", 3)


def test_each_is_tried_once_and_then_there_is_time_to_wait() -> None:
    """A thousand workers of a cluster that is down must not dial without a pause."""
    ways = Ways((A, B, C))
    tried = [ways.at]
    while ways.go_on():
        tried.append(ways.at)
    assert (tried, ways.at) == ([A, B, C], A)


def test_whoever_is_said_to_lead_comes_first() -> None:
    """Also one that is in no list: nodes come and go."""
    ways = Ways((A, B))
    ways.hear("c:3")
    assert (ways.go_on(), ways.at) == (True, C)
    ways.hear("a:1")  # which was tried, and said c
    assert (ways.go_on(), ways.at) == (True, B)
    assert (ways.go_on(), ways.at) == (False, A)


@pytest.mark.parametrize("said", ["none", "unix:/x", "here", "a:99999"])
def test_what_is_no_address_leads_nowhere(said: str) -> None:
    """`none` while nobody leads; a file of another machine's never."""
    ways = Ways((A, B))
    ways.hear(said)
    assert (ways.go_on(), ways.at) == (True, B)


def test_an_epoch_of_the_past_is_refused() -> None:
    """It is a leader that was frozen, and does not know that another leads."""
    ways = Ways((A, B))
    assert ways.welcome(7)
    assert ways.welcome(7)
    assert not ways.welcome(6)
    assert ways.welcome(9)
    assert ways.welcome(0), "a daemon that is alone has none"


def test_whoever_has_gone_is_asked_last_and_soon_left_alone() -> None:
    """A leader that is frozen takes connections and says nothing, while another one waits for workers."""
    ways = Ways((A, B, C))
    ways.welcome(7)
    assert (ways.go_on(had_link=True), ways.at, ways.patience_s(10.0)) == (False, B, 2.0)
    ways.hear("a:1")  # B has not seen yet that A is away
    assert (ways.go_on(), ways.at, ways.patience_s(10.0)) == (True, A, 0.5)
    assert (ways.go_on(), ways.at) == (True, C)
    assert (ways.go_on(), ways.at) == (False, B)
    assert [ways.at for _ in range(2) if ways.go_on()] == [C, A]
    assert ways.patience_s(10.0) == 1.0, "it may be slow, and well"
    for _ in range(6):
        ways.go_on()
    assert (ways.at, ways.patience_s(10.0)) == (A, 2.0)
    ways.welcome(7)
    assert (ways.go_on(), ways.at, ways.patience_s(10.0)) == (True, B, 2.0)


def test_the_only_address_is_dialled_again() -> None:
    """There is nobody else to ask."""
    ways = Ways((A,))
    ways.welcome(0)
    assert (ways.go_on(had_link=True), ways.at, ways.patience_s(10.0)) == (False, A, 10.0)


async def greet(daemon: FakeDaemon, answer: str) -> Visitor:
    visitor = await daemon.knock()
    await visitor.say(answer)
    return visitor


async def test_a_worker_goes_where_it_is_told(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And at once: jobs wait for it."""
    monkeypatch.setattr(agents, "FIRST_DELAY_S", 60.0)
    async with fake_daemon() as standby, fake_daemon() as leader, working(standby, spool_dir) as agent:
        visitor = await greet(standby, "ERR not-leader {}:{}".format(*leader.address))
        await visitor.close()
        visitor = await greet(leader, "OK w1 heartbeat=10 epoch=5")
        await until(lambda: agent.link)
        assert agent.ways.epoch == 5


async def test_a_worker_leaves_a_leader_of_the_past(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What that one would order may have been ordered by another since."""
    monkeypatch.setattr(agents, "FIRST_DELAY_S", 0.0)
    async with fake_daemon() as old, fake_daemon() as new:
        addresses = (new.address, old.address)
        async with working(old, spool_dir, connect=addresses) as agent:
            visitor = await greet(new, "OK w1 heartbeat=10 epoch=9")
            await until(lambda: agent.link)
            await visitor.close()
            visitor = await greet(old, "OK w1 heartbeat=10 epoch=8")
            await until(lambda: not agent.link)
            with pytest.raises(EOFError):
                await visitor.line()
