"""What a worker does not carry out: orders that are not as they were sent, and those against its rules."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from attrs import evolve

from cronflowd.base.proofs import Check, Handshake, Seal, key_of
from cronflowd.host.clock import steady_now
from cronflowd.host.config import WorkerSettings
from cronflowd.worker.agent import Agent, Link
from cronflowd.worker.executors.job import parse_order
from cronflowd.worker.rules import Rules
from cronflowd.worker.spool import Spool
from tests.lib.calls import calls_of
from tests.lib.fake_daemon import FakeDaemon, Visitor, fake_daemon
from tests.lib.waiting import until
from tests.lib.working_agent import SLEEPER, working

TOKEN = "correct-horse-battery-staple"


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o600)
    return path


async def proved(daemon: FakeDaemon) -> tuple[Visitor, Seal]:
    """The next worker, let in."""
    daemon.tokens = (TOKEN,)
    visitor = await daemon.worker()
    assert visitor.seal
    return visitor, visitor.seal


def altered(line: str) -> str:
    return line.replace(" :", " :x", 1)


# --- orders that are not as they were sent ----------------------------------------------------------


async def test_of_a_thousand_wrong_orders_none_runs_and_each_is_told(spool_dir: Path) -> None:
    """Altered, replayed, old, out of order, or for another: who stands between has nothing carried out."""
    ours = Handshake(key_of(TOKEN.encode()), "w1", "0" * 32, "1" * 32)
    now_s = steady_now()
    seal, its = Seal(ours, now_s - 100), Seal(evolve(ours, worker="w2"), now_s - 100)
    lines: list[str] = []
    for last in range(0, 600, 3):  # of the session, at the worker

        def order(by: Seal, number: int, age_s: float = 0.0) -> str:
            by.count = number - 1
            return by.seal(f"RUN {len(lines) + 1} 1 type=echo :hi", now_s - age_s)

        lines.append(altered(order(seal, last + 1)))
        lines.append(order(its, last + 1))
        lines.append(order(seal, last + 1, 61))
        lines.append(lines[-1])
        lines.append(order(seal, last + 3))
    codes = ["altered", "altered", "expired", "replayed", "out-of-order"] * 200
    agent = Agent(WorkerSettings(name="w1", spool=spool_dir), Spool(spool_dir), os.getppid())
    agent.link = Link(cast(Any, None), 0.0, 0.0, Check(ours, now_s - 100))
    agent.act(lines)
    told = [line.split(" ")[3] for line in agent.outbox]
    assert told == codes
    assert (agent.jobs, [text for text in agent.reports.values() if text.startswith("DONE")]) == ({}, [])
    assert agent.link.is_doubtful


async def test_an_order_that_came_too_late_has_the_clocks_compared_anew(spool_dir: Path) -> None:
    """Two clocks part by a minute in weeks: every order, KILL too, would be refused from then on."""
    ours = Handshake(key_of(TOKEN.encode()), "w1", "0" * 32, "1" * 32)
    now_s = steady_now()
    agent = Agent(WorkerSettings(name="w1", spool=spool_dir), Spool(spool_dir), os.getppid())
    agent.link = Link(cast(Any, None), 0.0, 0.0, Check(ours, now_s - 100))
    agent.act([Seal(ours, now_s - 100).seal("KILL 7 1", now_s - 61)])
    assert [line.split(" ")[3] for line in agent.outbox] == ["expired"]
    assert agent.link.is_doubtful


async def test_what_was_altered_is_refused_until_the_daemon_has_heard_it(
    spool_dir: Path, token_file: Path
) -> None:
    """The link is made anew, for the daemon may have sent more than came; the report outlives it."""
    async with fake_daemon() as daemon, working(daemon, spool_dir, token_file=token_file) as agent:
        visitor, seal = await proved(daemon)
        await visitor.say(altered(seal.seal("RUN 7 1 type=echo :hi", steady_now())))
        refused = await visitor.expect("REFUSED 7 1 altered why=")
        await visitor.closed()
        visitor, seal = await proved(daemon)
        assert " running=7:1" in visitor.hello
        assert await visitor.expect("REFUSED") == refused
        await visitor.say("ACK 7 1", seal.seal("RUN 8 1 type=echo :hi", steady_now()))
        await visitor.expect("DONE 8 1 0")
        await until(lambda: list(agent.reports) == ["8 1"])


async def test_a_replay_changes_nothing_for_the_job_that_runs(spool_dir: Path, token_file: Path) -> None:
    """It would end the run for the daemon, while the job went on."""
    async with fake_daemon() as daemon, working(daemon, spool_dir, token_file=token_file) as agent:
        visitor, seal = await proved(daemon)
        order = seal.seal(f"RUN 7 1 {SLEEPER}", steady_now())
        await visitor.say(order, order)
        assert (await visitor.expect("REFUSED")).startswith("REFUSED 7 1 replayed held=yes ")
        kill = seal.seal("KILL 7 1", steady_now())
        await visitor.say(f"KILL 7 1 {' '.join(order.split(' ')[3:6])}")
        assert (await visitor.expect("REFUSED")).startswith("REFUSED 7 1 altered held=yes ")
        assert "7 1" in agent.jobs
        await visitor.closed()
        visitor, seal = await proved(daemon)
        await visitor.say(kill)  # of the session before
        assert (await visitor.expect("REFUSED")).startswith("REFUSED 7 1 altered held=yes ")
        await visitor.closed()
        visitor, seal = await proved(daemon)
        await visitor.say(seal.seal("KILL 7 1", steady_now()))
        await visitor.expect("DONE 7 1 143")


@pytest.mark.parametrize("answer", ["OK w1", "CHALLENGE 00 00", "ERR busy later"])
async def test_a_daemon_that_does_not_prove_itself_is_told_nothing(
    answer: str, spool_dir: Path, token_file: Path
) -> None:
    """Whoever listens in its place hears a name, and neither the token nor what runs here."""
    async with fake_daemon() as daemon, working(daemon, spool_dir, token_file=token_file, slots=7):
        visitor = Visitor(await daemon.listener.accept())
        hello = await visitor.line()
        await visitor.say(answer, "RUN 7 1 type=echo :hi")
        await visitor.closed()
        assert [word.partition("=")[0] for word in hello.split(" ")] == ["HELLO", "name", "key", "nonce"]
        assert visitor.lines == [hello]
        await visitor.close()


# --- its own rules ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "order", "code"),
    [
        ({}, "type=shell :rm -rf /", ""),
        ({"allow_type": ("echo",)}, "type=echo :hi", ""),
        ({"allow_type": ("echo",)}, ":hi", "type"),
        ({"allow_command": ("backup *", "true")}, ":backup a", ""),
        ({"allow_command": ("backup *", "true")}, ":true", ""),
        ({"allow_command": ("backup *", "true")}, ":truer", "command"),
        ({"allow_command": ("backup *",)}, "type=script :reboot", "command"),
        ({"allow_command": ("b *",)}, "type=script env.BASH_ENV=$(reboot) :b a", "env"),
        ({"allow_command": ("b *",), "allow_env": ("PG*",)}, "env.PGHOST=x env.PGPORT=1 :b a", ""),
        ({"allow_command": ("b *",), "allow_env": ("PG*",)}, "env.PGHOST=x env.LD_PRELOAD=x :b a", "env"),
        ({"allow_type": ("custom", "http")}, "type=custom env.PYTHONPATH=/tmp :greet", "env"),
        ({"allow_type": ("custom", "script")}, "type=custom env.PYTHONPATH=/tmp :greet", ""),
        ({"allow_env": ("A",)}, "env.B= :x", "env"),
        ({}, "env.LD_PRELOAD=x :x", ""),
        ({"users": ("nobody",)}, "user=nobody :x", ""),
        ({"users": ("nobody",)}, "user=root :x", "user"),
        ({"users": ("nobody", "no-such-user")}, "user=no-such-user :x", "user"),
        ({}, "user=root :x", ""),
        ({}, "user=nobody :x", "user"),
    ],
)
def test_a_worker_has_rules_of_its_own(settings: dict[str, Any], order: str, code: str) -> None:
    """The daemon may be somebody else's by now."""
    if os.geteuid() != 0:
        pytest.skip("what root may is tried by root")
    found = Rules(WorkerSettings(**settings)).against(parse_order(f"7 1 {order}"))
    assert (found[0] if found else "") == code


def test_a_rule_that_a_worker_does_not_have_costs_no_order_anything() -> None:
    """Thousands of orders a second pass here, each with some ten words."""
    rules = Rules(WorkerSettings())
    orders = [
        parse_order(f"7 1 {words}:x") for words in ("", "task=1 name=a due=now fire=1 env.A=1 env.B=2 ")
    ]
    few, many = (calls_of(partial(rules.against, order)) for order in orders)
    assert few == many


def test_who_is_not_root_runs_as_himself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """He could not become anybody else, whatever he was told."""
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    assert Rules(WorkerSettings(users=("nobody", "root"))).users == ("daemon",)


async def test_what_is_against_a_rule_is_refused_and_not_begun(spool_dir: Path) -> None:
    """And HELLO does not offer it in the first place."""
    rules: dict[str, Any] = {"allow_type": ("shell",), "allow_command": ("true",)}
    async with fake_daemon() as daemon, working(daemon, spool_dir, **rules) as agent:
        visitor = await daemon.worker()
        assert " can=shell,shell+stdin " in visitor.hello
        await visitor.say("RUN 7 1 type=echo :true", "RUN 8 1 :touch x", "RUN 9 1 :true")
        assert (await visitor.expect("REFUSED")).startswith("REFUSED 7 1 type why=")
        assert (await visitor.expect("REFUSED")).startswith("REFUSED 8 1 command why=")
        await visitor.expect("DONE 9 1 0")
        assert list(agent.reports) == ["7 1", "8 1", "9 1"]
        await visitor.say("ACK 7 1", "ACK 8 1", "ACK 9 1")
        await until(lambda: not agent.reports)
