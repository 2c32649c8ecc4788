"""The worker program against a daemon of the test's own making."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from cronflowd.base.errors import Exit, Fatal
from cronflowd.host.clock import wall_now
from cronflowd.host.config import Address, WorkerSettings
from cronflowd.net.lines import MAX_LINE_BYTES
from cronflowd.worker import agent as agents
from cronflowd.worker.agent import Agent, parse_terms
from cronflowd.worker.executors import custom
from cronflowd.worker.executors.job import Ended, Executor, Job
from cronflowd.worker.spool import Spool
from tests.lib.fake_daemon import FakeDaemon, fake_daemon
from tests.lib.waiting import PATIENCE_S, until

SLEEPER = "type=sleep :3600"


@pytest.fixture
def spool_dir(tmp_path: Path) -> Path:
    return tmp_path / "spool"


class WatchedAgent(Agent):
    """An agent that tells when it has gone."""

    finished: trio.Event

    async def run(self) -> None:
        self.finished = trio.Event()
        await super().run()
        self.finished.set()


@asynccontextmanager
async def working(daemon: FakeDaemon, spool_dir: Path, **settings: Any) -> AsyncIterator[WatchedAgent]:
    """An agent that works while the block runs, in this process."""
    values: dict[str, Any] = {"name": "w1", "spool": spool_dir, **settings}
    if "connect" not in values:
        values["connect"] = daemon.address
    spool = Spool(spool_dir)
    agent = WatchedAgent(WorkerSettings(**values), spool, os.getppid())
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(agent.run)
            yield agent
            nursery.cancel_scope.cancel()
    finally:
        spool.close()


def wait_for(gate: Path) -> str:
    """A command that ends when the test makes the file."""
    return f"until [ -e {gate} ]; do sleep 0.01; done"


async def gone(agent: WatchedAgent) -> None:
    with trio.fail_after(PATIENCE_S):
        await agent.finished.wait()


# --- HELLO ----------------------------------------------------------------------------


async def test_hello_tells_what_the_worker_is_and_can(spool_dir: Path, tmp_path: Path) -> None:
    """Placement knows nothing else about it."""
    token = tmp_path / "token"
    token.write_text("s3cret-s3cret\n")
    token.chmod(0o600)
    more = {"slots": 3, "label": (("arch", "arm"), ("site", "kitchen")), "token_file": token}
    async with fake_daemon() as daemon, working(daemon, spool_dir, **more):
        visitor = await daemon.worker()
    assert visitor.hello == (
        "HELLO name=w1 slots=3 token=s3cret-s3cret can=shell,script,echo,sleep,calculate,http,webhook"
        ",shell+stdin,script+stdin labels=arch=arm,site=kitchen held=all"
        f" instance={visitor.hello.rpartition('=')[2]}"
    )


async def test_hello_names_the_handlers_after_the_secret_and_all_that_is_held(
    spool_dir: Path, tmp_path: Path
) -> None:
    """A daemon reads 1,024 bytes of a stranger; and a run that is not named would be started once more."""
    (tmp_path / "token").write_text("s3cret-s3cret\n")
    (tmp_path / "token").chmod(0o600)
    handlers = tmp_path / "handlers"
    handlers.mkdir(mode=0o755)
    for number in range(custom.MAX_HANDLERS + 1):
        (handlers / f"{number:04d}{'x' * 60}.py").touch()
    settings = WorkerSettings(name="w" * 64, handlers=handlers, token_file=tmp_path / "token")
    agent = Agent(settings, Spool(spool_dir), os.getppid())
    agent.reports = {f"{number} 1": "" for number in range(10**8, 10**8 + 9000)}
    hello = agent.hello()
    assert hello.index("token=s3cret-s3cret") < 1000
    assert hello.count("custom:") == custom.MAX_HANDLERS
    assert "custom," not in hello
    first, *more, nothing = hello.split("\n")
    assert all(len(line) < MAX_LINE_BYTES for line in (first, *more))
    assert nothing == ""
    assert f" more={len(more)} " in first
    assert all(line.startswith("HELD ") for line in more)
    named = first.partition("running=")[2].split(",") + ",".join(line[5:] for line in more).split(",")
    assert named == [key.replace(" ", ":") for key in agent.reports]


async def test_the_token_is_never_logged(
    spool_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Logs are read by more people than secrets are."""
    token = tmp_path / "token"
    token.write_text("s3cret-s3cret")
    token.chmod(0o600)
    caplog.set_level(logging.DEBUG)
    async with fake_daemon() as daemon, working(daemon, spool_dir, token_file=token) as agent:
        await (await daemon.knock()).say("ERR busy come back")
        await (await daemon.worker()).close()
        await (await daemon.knock()).say("ERR denied the token is not the right one")
        await gone(agent)
    assert "come back" in caplog.text
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("code", ["denied", "auth-required"])
async def test_a_worker_that_may_not_come_in_ends_with_77(spool_dir: Path, code: str) -> None:
    """To knock again would not make the token right; systemd shows the failed unit."""
    async with fake_daemon() as daemon, working(daemon, spool_dir) as agent:
        await (await daemon.knock()).say(f"ERR {code} no")
        await gone(agent)
    assert agent.fatal is not None
    assert agent.fatal.status == Exit.REFUSED
    assert f"{code} no" in agent.fatal.message


async def test_a_refusal_after_a_restart_does_not_end_the_jobs(spool_dir: Path) -> None:
    """Somebody may have changed the token; the jobs can do nothing for it and are reported later."""
    async with fake_daemon() as daemon, working(daemon, spool_dir) as agent:
        visitor = await daemon.worker()
        await visitor.say(f"RUN 7 1 {SLEEPER}")
        await visitor.expect("STARTED 7 1")
        await visitor.close()
        await (await daemon.knock()).say("ERR denied no")
        visitor = await daemon.worker()
        assert "running=7:1" in visitor.hello
        await visitor.say("KILL 7 1")
        await visitor.expect("DONE 7 1 143")
        await visitor.say("ACK 7 1")
        await until(lambda: not agent.reports)
        assert not agent.gone.is_set()


def write_token(path: Path, content: str) -> Path:
    path.write_text(content)
    path.chmod(0o600)
    return path


async def turned_away(daemon: FakeDaemon) -> str:
    """The token that the next visitor offers, in vain."""
    visitor = await daemon.knock()
    await visitor.say("ERR denied no")
    return visitor.hello.partition(" token=")[2].partition(" ")[0]


async def test_each_token_of_the_file_is_offered_before_the_worker_gives_up(
    spool_dir: Path, tmp_path: Path
) -> None:
    """Which of the two the daemon knows by now depends on who was told first."""
    token = write_token(tmp_path / "token", "# soon\nnew\n\nold\n")
    async with fake_daemon() as daemon, working(daemon, spool_dir, token_file=token) as agent:
        assert await turned_away(daemon) == "new"
        visitor = await daemon.worker()
        assert " token=old " in visitor.hello
        await visitor.close()
        write_token(token, "old\nnewer\n")
        assert [await turned_away(daemon), await turned_away(daemon)] == ["old", "newer"]
        await gone(agent)


async def test_what_is_not_acknowledged_keeps_a_refused_worker_trying(
    spool_dir: Path, tmp_path: Path
) -> None:
    """Its job ended with 0 while the token was changed: it would count as lost."""
    token = write_token(tmp_path / "token", "old\n")
    async with fake_daemon() as daemon, working(daemon, spool_dir, token_file=token) as agent:
        visitor = await daemon.worker()
        await visitor.say("RUN 7 1 type=echo :hi")
        await visitor.expect("DONE 7 1 0")
        await visitor.close()
        for _ in range(2):
            visitor = await daemon.knock()
            assert "running=7:1" in visitor.hello
            await visitor.say("ERR denied no")
        write_token(token, "new\n")
        while " token=new " not in (visitor := await daemon.knock()).hello:
            await visitor.say("ERR denied no")
        await visitor.say("OK w1")
        await visitor.expect("DONE 7 1 0")
        assert not agent.gone.is_set()
        await visitor.say("ACK 7 1")
        await visitor.close()
        await (await daemon.knock()).say("ERR denied no")
        await gone(agent)


async def test_a_token_file_that_is_empty_for_a_moment_ends_no_worker(
    spool_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An editor or `echo >` empties the file before it writes it; 78 is for good under systemd."""
    token = write_token(tmp_path / "token", "old\n")
    async with fake_daemon() as daemon, working(daemon, spool_dir, token_file=token) as agent:
        visitor = await daemon.worker()
        write_token(token, "")
        await visitor.close()
        await until(lambda: "the token is empty" in caplog.text)
        write_token(token, "new\n")
        hello = ""
        while not hello:
            with contextlib.suppress(EOFError):  # of tries before
                hello = (await daemon.knock()).hello
        assert (" token=new " in hello, agent.fatal) == (True, None)


async def test_where_its_name_is_taken_a_worker_without_runs_comes_back_later_each_time(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can do nothing about it; with a run it has to be heard before the lease of that ends."""
    waited: list[float] = []
    monkeypatch.setattr(agents.random, "uniform", lambda low, high: waited.append(high) or 0.0)
    async with fake_daemon() as daemon, working(daemon, spool_dir):
        for _ in range(10):
            await (await daemon.knock()).say("ERR busy another worker has that name")
        daemon.answer += " lease=3"
        visitor = await daemon.worker()
        assert [round(each, 1) for each in waited] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 20, 20, 20]
        await visitor.say(f"RUN 7 1 {SLEEPER}")
        await visitor.expect("STARTED 7 1")
        await visitor.close()
        await (await daemon.knock()).say("ERR busy another worker has that name")
        await (await daemon.knock()).say("ERR busy another worker has that name")
        await daemon.knock()
        assert waited[-2:] == [1.0, 1.0]


@pytest.mark.parametrize("answer", ["ERR busy later", "WELCOME", "", None])
async def test_any_other_answer_is_a_reason_to_try_again(spool_dir: Path, answer: str | None) -> None:
    """The daemon may be starting, or something else may listen there for a moment."""
    async with fake_daemon() as daemon, working(daemon, spool_dir):
        visitor = await daemon.knock()
        if answer is not None:
            await visitor.say(answer)
        await visitor.close()
        await daemon.worker()


async def test_an_unreachable_daemon_is_told_of_once_and_tried_for_ever(
    spool_dir: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A night without a daemon must not fill the disk with the same line."""
    monkeypatch.setattr(agents, "FIRST_DELAY_S", 0.001)
    monkeypatch.setattr(agents, "MAX_DELAY_S", 0.001)
    tries = 0
    dial = agents._dial

    async def counting(address: Address | Path) -> trio.abc.Stream:
        nonlocal tries
        tries += 1
        return await dial(address)

    monkeypatch.setattr(agents, "_dial", counting)
    async with fake_daemon() as daemon:
        address = daemon.address
        await daemon.close()
        async with working(daemon, spool_dir, connect=address):
            await until(lambda: tries > 5)
    assert [record.getMessage() for record in caplog.records] == [
        f"127.0.0.1:{address[1]}: cannot connect: Connection refused; trying again until it works"
    ]


def test_the_terms_are_read_whatever_else_stands_there() -> None:
    """A newer daemon may say more, and a broken one must not stop the worker's heart."""
    assert parse_terms("w1 heartbeat=2.5 lease=40 output=100 grace=3 new=thing") == agents.Terms(
        2.5, 40, 100, 3
    )
    assert parse_terms("w1 heartbeat=0 output=nan grace=-1 output") == agents.Terms()


# --- orders and reports ---------------------------------------------------------------


async def test_a_batch_of_orders_is_answered_in_one_send(spool_dir: Path) -> None:
    """A wake-up costs more than a job; this is where the speed comes from."""
    async with fake_daemon() as daemon, working(daemon, spool_dir) as agent:
        visitor = await daemon.worker()
        await visitor.say(*[f"RUN {run} 1 type=echo :hi" for run in range(1, 301)])
        for run in range(1, 301):
            assert await visitor.line() == f"OUT {run} 1 hi"
            assert await visitor.line() == f"DONE {run} 1 0"
        assert visitor.reads <= 3
        assert len(agent.reports) == 300
        await visitor.say(*[f"ACK {run} 1" for run in range(1, 301)])
        await until(lambda: not agent.reports)
        left = (spool_dir / "reports").read_text().splitlines()
        assert [line.partition(" ")[0] for line in left] == ["WORKER"]


async def test_a_job_is_started_heard_and_done_in_this_order(spool_dir: Path) -> None:
    """DONE after the last line of output: the daemon closes the run's log with it."""
    async with fake_daemon() as daemon, working(daemon, spool_dir):
        visitor = await daemon.worker()
        await visitor.say("RUN 7 1 type=shell :echo a; echo b; exit 3")
        assert await visitor.until_done(7) == ["STARTED 7 1", "OUT 7 1 a", "OUT 7 1 b", "DONE 7 1 3"]


async def test_output_is_heard_while_the_job_runs(spool_dir: Path) -> None:
    """`LOG 7 follow` is for watching."""
    async with fake_daemon() as daemon, working(daemon, spool_dir):
        visitor = await daemon.worker()
        await visitor.say("RUN 7 1 type=shell :echo a; sleep 60")
        await visitor.expect("OUT 7 1 a")
        await visitor.say("KILL 7 1")
        await visitor.expect("DONE 7 1 143 signal=15")


async def test_the_daemon_says_how_much_output_is_kept(spool_dir: Path) -> None:
    """What was left out is told in the log and counted in DONE."""
    async with fake_daemon() as daemon, working(daemon, spool_dir):
        daemon.answer = "OK w1 heartbeat=10 output=20"
        visitor = await daemon.worker()
        await visitor.say("RUN 7 1 type=shell :seq 1 100")
        lines = await visitor.until_done(7)
    assert lines == [
        "STARTED 7 1",
        *[f"OUT 7 1 {number}" for number in range(1, 6)],
        "OUT 7 0 … 272 bytes omitted …",
        *[f"OUT 7 1 {number}" for number in (98, 99, 100)],
        "DONE 7 1 0 omitted=272",
    ]


@pytest.mark.parametrize(
    ("order", "why"),
    [
        ("RUN 7 1 type=fax :+49 30 1234", "runs no fax jobs"),
        ("RUN 7 1 type=email :a@example.org", "runs no email jobs"),
        ("RUN 7 1 type=shell timeout=soon :true", "timeout="),
        ("RUN 7 1 type=shell", "before the command"),
    ],
)
async def test_an_order_that_cannot_be_carried_out_is_reported_so(
    spool_dir: Path, order: str, why: str
) -> None:
    """The daemon waits for an end, and the person for a reason."""
    async with fake_daemon() as daemon, working(daemon, spool_dir):
        visitor = await daemon.worker()
        await visitor.say(order)
        line = await visitor.expect("DONE 7 1 126")
    assert why in line


async def test_lines_that_mean_nothing_are_passed_over(spool_dir: Path) -> None:
    """A later daemon may say things that this worker does not know."""
    async with fake_daemon() as daemon, working(daemon, spool_dir):
        visitor = await daemon.worker()
        await visitor.say("", "TICK 5", "RUN", "RUN x", "KILL 9 9", "KILL", "ACK 9 9", "ERR syntax what?")
        await visitor.stream.send_all(b"\xff\xfe\n")
        await visitor.say("RUN 7 1 type=echo :still here")
        assert await visitor.line() == "OUT 7 1 still here"


async def test_an_order_given_twice_is_carried_out_once(spool_dir: Path) -> None:
    """Both while it runs and while its report waits."""
    async with fake_daemon() as daemon, working(daemon, spool_dir) as agent:
        visitor = await daemon.worker()
        await visitor.say(f"RUN 7 1 {SLEEPER}", f"RUN 7 1 {SLEEPER}", "RUN 8 1 type=echo :x")
        await visitor.expect("DONE 8 1 0")
        await visitor.say("RUN 8 1 type=echo :x", "KILL 7 1")
        await visitor.expect("DONE 7 1 143")
        assert visitor.lines.count("STARTED 7 1") == 1
        assert visitor.lines.count("DONE 8 1 0") == 1
        assert set(agent.reports) == {"7 1", "8 1"}


async def test_a_kill_for_what_has_ended_is_answered_with_its_end(spool_dir: Path) -> None:
    """They crossed on the wire."""
    async with fake_daemon() as daemon, working(daemon, spool_dir):
        visitor = await daemon.worker()
        await visitor.say("RUN 7 1 type=shell :exit 3")
        await visitor.expect("DONE 7 1 3")
        await visitor.say("KILL 7 1")
        await visitor.expect("DONE 7 1 3")


async def test_a_kill_right_behind_its_order_starts_nothing(spool_dir: Path, tmp_path: Path) -> None:
    """Cancelled before it began means that it never began."""
    async with fake_daemon() as daemon, working(daemon, spool_dir):
        visitor = await daemon.worker()
        await visitor.say(f"RUN 7 1 type=shell :touch {tmp_path}/touched", "KILL 7 1")
        assert "before it started" in await visitor.expect("DONE 7 1 143")
    assert not (tmp_path / "touched").exists()


async def test_an_executor_with_a_fault_costs_its_job_only(spool_dir: Path) -> None:
    """One bad job must not take the others with it."""

    async def broken(job: Job) -> Ended:
        raise KeyError("oops")

    async with fake_daemon() as daemon, working(daemon, spool_dir) as agent:
        agent.table["shell"] = Executor(broken)
        visitor = await daemon.worker()
        await visitor.say("RUN 7 1 type=shell :true", "RUN 8 1 type=sleep :0")
        await visitor.expect("DONE 8 1 0")
        assert "oops" in await visitor.expect("DONE 7 1 126")


# --- the link -------------------------------------------------------------------------


async def test_output_on_its_way_when_the_link_broke_is_sent_again(spool_dir: Path, tmp_path: Path) -> None:
    """As far as the daemon has not got it, and nothing twice; what a BEAT's OK has confirmed is forgotten."""
    gate = tmp_path / "gate"
    job = f"echo one; echo two; echo; {wait_for(gate)}; echo three"
    async with fake_daemon() as daemon, working(daemon, spool_dir) as agent:
        visitor = await daemon.worker()
        await visitor.say(f"RUN 7 1 type=shell :{job}", f"RUN 8 1 type=shell :echo x; {wait_for(gate)}")
        await visitor.expect("OUT 8 1 x")
        await until(lambda: agent.sent["7 1"].taken)
        daemon.answer = "OK w1 heartbeat=10 had=7:1:4,8:1:2"
        await visitor.close()
        visitor = await daemon.worker()
        await visitor.expect("OUT 7 1 two")
        assert await visitor.line() == "OUT 7 1 "
        gate.touch()
        await visitor.until_done(7)
    assert [line for line in visitor.lines if line.startswith("OUT 8")] == []
    assert [line for line in visitor.lines if line.startswith("OUT 7")] == [
        "OUT 7 1 two",
        "OUT 7 1 ",
        "OUT 7 1 three",
    ]


async def test_what_an_ok_has_confirmed_is_not_kept(spool_dir: Path, tmp_path: Path) -> None:
    """A job that writes for days must not fill the worker's memory."""
    async with fake_daemon() as daemon, working(daemon, spool_dir) as agent:
        daemon.answer = "OK w1 heartbeat=0.05"
        visitor = await daemon.worker()
        await visitor.say(f"RUN 7 1 type=shell :echo one; {wait_for(tmp_path / 'gate')}")
        await visitor.expect("OUT 7 1 one")
        await visitor.expect("BEAT")
        assert agent.sent
        await visitor.say("OK")
        await visitor.expect("BEAT")
        await visitor.say("OK")
        await until(lambda: not agent.sent)


async def test_a_cut_link_ends_no_job_and_loses_no_report(spool_dir: Path, tmp_path: Path) -> None:
    """What ended meanwhile is named, and reported over the next link until it is acknowledged."""
    gate = tmp_path / "gate"
    async with fake_daemon() as daemon, working(daemon, spool_dir) as agent:
        visitor = await daemon.worker()
        await visitor.say(f"RUN 7 1 {SLEEPER}", f"RUN 8 1 type=shell :{wait_for(gate)}; exit 4")
        await visitor.expect("STARTED 8 1")
        await visitor.close()
        await until(lambda: agent.link is None)
        gate.touch()
        await until(lambda: "8 1" in agent.reports)
        for _ in range(2):
            visitor = await daemon.worker()
            assert visitor.hello.endswith(" running=7:1,8:1")
            await visitor.expect("DONE 8 1 4")
            assert "STARTED 7 1" in visitor.lines
            await visitor.close()
        visitor = await daemon.worker()
        await visitor.say("ACK 8 1", "KILL 7 1")
        await visitor.expect("DONE 7 1 143")
        assert set(agent.reports) == {"7 1"}


async def test_output_written_while_cut_off_is_heard_afterwards(spool_dir: Path, tmp_path: Path) -> None:
    """Within the bound, and still before DONE."""
    gate = tmp_path / "gate"
    async with fake_daemon() as daemon, working(daemon, spool_dir) as agent:
        visitor = await daemon.worker()
        await visitor.say(
            f"RUN 7 1 type=shell :{wait_for(gate)}; echo said while cut off; sleep 0.01; seq 1 1000"
        )
        await visitor.expect("STARTED 7 1")
        await visitor.close()
        await until(lambda: agent.link is None)
        gate.touch()
        await until(lambda: "7 1" in agent.reports)
        visitor = await daemon.worker()
        lines = await visitor.until_done(7)
    assert lines == ["OUT 7 1 said while cut off", *[f"OUT 7 1 {n}" for n in range(1, 1001)], "DONE 7 1 0"]


async def test_a_daemon_that_reads_nothing_costs_no_memory(spool_dir: Path) -> None:
    """The link is there, but nothing moves; the job writes on and on."""
    async with fake_daemon() as daemon, working(daemon, spool_dir) as agent:
        visitor = await daemon.worker()
        await visitor.say("RUN 7 1 type=shell :yes 'a line of usual length' | head -c 50000000")
        await until(lambda: "7 1" in agent.reports)
        lines = await visitor.until_done(7)
        assert sum(len(line) - len("OUT 7 1 ") + 1 for line in lines) < 2 * 1024 * 1024


async def test_a_worker_beats_and_a_silent_daemon_is_given_up(spool_dir: Path) -> None:
    """A cable that was pulled sends no FIN. And the daemon learns how far off this machine's clock is."""
    async with fake_daemon() as daemon, working(daemon, spool_dir):
        daemon.answer = "OK w1 heartbeat=0.05"
        visitor = await daemon.worker()
        started_at = trio.current_time()
        for _ in range(4):
            word, now, rtt = (await visitor.line()).split()
            told_at = datetime.fromisoformat(now.removeprefix("now="))
            assert (word, abs(told_at - wall_now()) < timedelta(seconds=PATIENCE_S)) == ("BEAT", True)
            assert 0 <= float(rtt.removeprefix("rtt=")) < PATIENCE_S
            await visitor.say("OK")
        assert trio.current_time() - started_at >= 0.15
        await visitor.closed()
        assert 2 <= len(visitor.lines[4:]) <= 3
        assert "HELLO" in (await daemon.worker()).hello


async def test_a_beat_says_how_long_the_answer_before_took(spool_dir: Path) -> None:
    """Half of it is how old the worker's time is when the daemon reads it."""
    async with fake_daemon() as daemon, working(daemon, spool_dir):
        daemon.answer = "OK w1 heartbeat=0.2"
        visitor = await daemon.worker()
        while float((await visitor.expect("BEAT")).rpartition("rtt=")[2]) < 0.1:
            await trio.sleep(0.1)
            await visitor.say("OK")


async def test_output_alone_does_not_make_the_daemon_look_silent(spool_dir: Path) -> None:
    """Output is not answered, so a job that talks all the time needs beats as well."""
    async with fake_daemon() as daemon, working(daemon, spool_dir):
        daemon.answer = "OK w1 heartbeat=0.1"
        visitor = await daemon.worker()
        await visitor.say("RUN 7 1 type=shell :while echo x; do sleep 0.01; done")
        for _ in range(4):
            await visitor.expect("BEAT")
            await visitor.say("OK")
        await visitor.say("KILL 7 1")
        await visitor.expect("DONE 7 1")


# --- leaving --------------------------------------------------------------------------


async def test_told_to_leave_it_finishes_what_it_has(spool_dir: Path, tmp_path: Path) -> None:
    """A restart of a machine's worker must not cost the jobs."""
    gate = tmp_path / "gate"
    async with fake_daemon() as daemon, working(daemon, spool_dir) as agent:
        visitor = await daemon.worker()
        await visitor.say(f"RUN 7 1 type=shell :{wait_for(gate)}")
        await visitor.expect("STARTED 7 1")
        agent.leave()
        await visitor.expect("BYE")
        await visitor.expect("BEAT")
        await visitor.say("OK")
        gate.touch()
        await visitor.expect("DONE 7 1 0")
        assert not agent.gone.is_set()
        await visitor.say("ACK 7 1")
        await gone(agent)


async def test_an_order_that_crossed_the_goodbye_is_carried_out(spool_dir: Path) -> None:
    """The daemon has it written down as sent; left undone it would count as lost."""
    async with fake_daemon() as daemon, working(daemon, spool_dir) as agent:
        visitor = await daemon.worker()
        await until(lambda: agent.link is not None)
        agent.leave()
        await visitor.expect("BEAT")
        assert not agent.gone.is_set()
        await visitor.say("RUN 7 1 type=shell :true", "OK")
        await visitor.expect("DONE 7 1 0")
        await visitor.say("ACK 7 1")
        await gone(agent)


async def test_told_twice_it_ends_its_jobs(spool_dir: Path) -> None:
    """The person at the keyboard means it; the runs are still reported."""
    async with fake_daemon() as daemon, working(daemon, spool_dir) as agent:
        visitor = await daemon.worker()
        await visitor.say("RUN 7 1 type=shell :trap '' TERM; echo ready; while :; do sleep 0.01; done")
        await visitor.expect("OUT 7 1 ready")
        agent.leave()
        agent.leave()
        await visitor.expect("DONE 7 1 137 signal=9")
        await visitor.say("OK", "ACK 7 1")
        await gone(agent)


async def test_without_a_daemon_it_leaves_its_reports_to_its_successor(
    spool_dir: Path, tmp_path: Path
) -> None:
    """With the output that nobody has heard yet."""
    gate = tmp_path / "gate"
    async with fake_daemon() as daemon, working(daemon, spool_dir) as agent:
        visitor = await daemon.worker()
        await visitor.say(f"RUN 7 1 type=shell :{wait_for(gate)}; echo said to nobody; exit 5")
        await visitor.expect("STARTED 7 1")
        await visitor.say("RUN 8 1 type=echo :never heard")
        await visitor.expect("DONE 8 1")
        await daemon.close()
        await until(lambda: agent.link is None)
        agent.leave()
        gate.touch()
        await gone(agent)
    async with fake_daemon() as daemon, working(daemon, spool_dir) as agent:
        visitor = await daemon.worker()
        assert visitor.hello.endswith(" running=8:1,7:1")
        assert await visitor.until_done(8) == ["OUT 8 1 never heard", "DONE 8 1 0"]
        assert await visitor.until_done(7) == ["OUT 7 1 said to nobody", "DONE 7 1 5"]
        await visitor.say("ACK 7 1", "ACK 8 1")
        await until(lambda: not agent.reports)


# --- the local worker -----------------------------------------------------------------


async def test_a_local_worker_with_nothing_to_do_ends_with_its_daemon(tmp_path: Path) -> None:
    """Its daemon is dead, and the next one brings its own."""
    sock, spool_dir = tmp_path / "sock", tmp_path / "spool"
    async with fake_daemon(sock) as daemon, working(daemon, spool_dir, connect=sock, local=True) as agent:
        visitor = await daemon.worker()
        await visitor.say("RUN 7 1 type=echo :x")
        await visitor.expect("DONE 7 1 0")
        await visitor.close()
        await gone(agent)
    assert "DONE 7 1 0" in (tmp_path / "spool" / "reports").read_text()


async def test_an_orphaned_local_worker_works_for_the_next_daemon_until_it_is_idle(tmp_path: Path) -> None:
    """A job of eight hours must not keep all others off this machine after the daemon was restarted."""
    sock, spool_dir = tmp_path / "sock", tmp_path / "spool"
    nobody = 0  # no process has this number, so the worker sees that its parent has gone
    async with fake_daemon(sock) as daemon, working(daemon, spool_dir, connect=sock, local=True) as agent:
        visitor = await daemon.worker()
        await visitor.say(f"RUN 7 1 {SLEEPER}")
        await visitor.expect("STARTED 7 1")
        agent.parent = nobody
        await visitor.close()
        visitor = await daemon.worker()
        assert visitor.hello.endswith("running=7:1")
        await visitor.say("RUN 8 1 type=shell :exit 3")
        await visitor.expect("DONE 8 1 3")
        await visitor.say("ACK 8 1", "KILL 7 1")
        await visitor.expect("DONE 7 1 143")
        await visitor.expect("BYE")
        await visitor.expect("BEAT")
        await visitor.say("OK", "ACK 7 1")
        await gone(agent)


async def test_a_local_worker_waits_for_its_predecessor_and_leaves_when_it_is_not_needed(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers on one spool would report the same runs; one whose parent is gone waits for nothing."""
    monkeypatch.setattr(agents, "LOCK_POLL_S", 0.01)
    settings = WorkerSettings(local=True, spool=spool_dir)
    older = Spool(spool_dir)
    assert await agents.wait_spool(settings, parent=0) is None
    got: list[Spool | None] = []

    async def wait() -> None:
        got.append(await agents.wait_spool(settings, parent=os.getppid()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked(0.005)
        assert not got
        older.close()
        await until(lambda: bool(got))
    assert got[0] is not None
    got[0].close()


async def test_any_other_worker_finds_a_used_spool_an_error(spool_dir: Path) -> None:
    """75 and the directory's name: two workers were given one place by mistake."""
    older = Spool(spool_dir)
    with pytest.raises(Fatal) as raised:
        await agents.wait_spool(WorkerSettings(spool=spool_dir), parent=os.getppid())
    assert raised.value.status == Exit.TRY_AGAIN
    assert str(spool_dir) in raised.value.message
    assert str(os.getpid()) in raised.value.message
    older.close()


# --- as a process ---------------------------------------------------------------------

PROGRAM = """
import sys
from pathlib import Path
from cronflowd.worker.agent import run
from cronflowd.host.config import WorkerSettings
sys.exit(run(WorkerSettings(connect=("127.0.0.1", int(sys.argv[1])), name="w1", spool=Path(sys.argv[2]))))
"""


@asynccontextmanager
async def worker_process(daemon: FakeDaemon, spool_dir: Path) -> AsyncIterator[trio.Process]:
    """The program itself; killed at the end of the block if it is still there."""
    command = [sys.executable, "-c", PROGRAM, str(daemon.address[1]), str(spool_dir)]
    process = await trio.lowlevel.open_process(command, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.real
async def test_after_kill_9_it_reports_what_had_ended_and_what_it_knows_no_end_of(spool_dir: Path) -> None:
    """Whatever had begun is named: of what is not named the daemon may conclude that it never began."""
    async with fake_daemon() as daemon:
        async with worker_process(daemon, spool_dir) as process:
            visitor = await daemon.worker()
            await visitor.say("RUN 7 1 type=shell :exit 3", f"RUN 8 1 {SLEEPER}", "RUN 9 1 type=echo :x")
            await visitor.expect("DONE 7 1 3")
            assert "STARTED 8 1" in visitor.lines
            assert "DONE 9 1 0" in visitor.lines
            await visitor.say("ACK 9 1", "RUN 10 1 type=sleep :0")
            await visitor.expect("DONE 10 1 0")
            process.send_signal(signal.SIGKILL)
            await process.wait()
        async with worker_process(daemon, spool_dir):
            visitor = await daemon.worker()
            assert visitor.hello.endswith(" running=7:1,10:1,8:1")
            assert [await visitor.line(), await visitor.line()] == ["DONE 7 1 3", "DONE 10 1 0"]
            told = "its worker was killed while it ran; what it wrote last may be missing"
    assert await visitor.line() == f'DONE 8 1 126 lost=yes why="{told}"'


@pytest.mark.real
async def test_a_process_that_fled_its_session_twice_is_found_and_killed(spool_dir: Path) -> None:
    """setsid leaves the group, a second fork leaves the tree; the name in its environment stays."""
    stubborn = 'sh -c "trap : TERM; echo \\$\\$; while :; do sleep 0.01; done"'
    flee = f"setsid sh -c '{stubborn} & exit' & wait; sleep 60"
    async with fake_daemon() as daemon:
        daemon.answer = "OK w1 heartbeat=10 grace=0.1"
        async with worker_process(daemon, spool_dir):
            visitor = await daemon.worker()
            await visitor.say(f"RUN 7 1 type=shell :{flee}", "RUN 8 1 type=shell :setsid sleep 60 & echo $!")
            fled = int((await visitor.expect("OUT 7 1 ")).split()[3])
            other = await visitor.expect("DONE 8 1 0")
            bystander = next(int(line.split()[3]) for line in visitor.lines if line.startswith("OUT 8 1 "))
            assert other
            assert is_alive(fled)
            await visitor.say("KILL 7 1")
            await visitor.expect("DONE 7 1 143")
            assert not is_alive(fled)
            assert is_alive(bystander)
            os.kill(bystander, signal.SIGKILL)


@pytest.mark.real
async def test_adopted_processes_are_reaped_and_jobs_keep_their_exit_codes(
    spool_dir: Path,
) -> None:
    """A worker that lives for months must not fill the process table."""
    async with fake_daemon() as daemon, worker_process(daemon, spool_dir) as process:
        visitor = await daemon.worker()
        orphan = "sh -c 'sleep 0.2 & echo $!'"
        await visitor.say(*[f"RUN {run} 1 type=shell :{orphan}; exit {run}" for run in range(1, 9)])
        for run in range(1, 9):
            visitor._next = 0
            await visitor.expect(f"DONE {run} 1 {run}")
        orphans = [int(line.split()[3]) for line in visitor.lines if line.startswith("OUT ")]
        assert len(orphans) == 8
        await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in orphans))
        assert process.returncode is None


@pytest.mark.real
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_makes_it_leave_with_exit_code_0(spool_dir: Path, number: signal.Signals) -> None:
    """As systemd and a person at the keyboard do it."""
    async with fake_daemon() as daemon, worker_process(daemon, spool_dir) as process:
        visitor = await daemon.worker()
        await visitor.say("RUN 7 1 type=shell :sleep 0.1; exit 3")
        await visitor.expect("STARTED 7 1")
        process.send_signal(number)
        await visitor.expect("BYE")
        await visitor.say("OK")
        await visitor.expect("DONE 7 1 3")
        await visitor.say("ACK 7 1")
        with trio.fail_after(PATIENCE_S):
            assert await process.wait() == 0
