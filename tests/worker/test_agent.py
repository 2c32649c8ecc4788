"""The worker program against a daemon of the test's making: orders, output, reports, broken links."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import NoReturn

import pytest
import trio
from attrs import evolve

from cronflowd.host.clock import wall_now
from cronflowd.worker.executors.job import Ended, Executor, Job, Order, as_task
from tests.lib.fake_daemon import fake_daemon
from tests.lib.job_processes import wait_for
from tests.lib.waiting import PATIENCE_S, until
from tests.lib.working_agent import SLEEPER, working

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
        await visitor.expect_all("DONE 8 1 0", "STARTED 7 1")
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
        agent.table["shell"] = Executor(as_task(broken))
        visitor = await daemon.worker()
        await visitor.say("RUN 7 1 type=shell :true", "RUN 8 1 type=sleep :0")
        await visitor.expect("DONE 8 1 0")
        assert "oops" in await visitor.expect("DONE 7 1 126")


# --- the link -------------------------------------------------------------------------


async def test_output_on_its_way_when_the_link_broke_is_sent_again(spool_dir: Path, tmp_path: Path) -> None:
    """As far as the daemon has not got it, and nothing twice; what a BEAT's OK has confirmed is forgotten."""
    gate = tmp_path / "gate"
    job = f"echo one; echo two; echo; {wait_for(gate)}; echo three"
    async with fake_daemon() as daemon, working(daemon, spool_dir):
        visitor = await daemon.worker()
        await visitor.say(f"RUN 7 1 type=shell :{job}", f"RUN 8 1 type=shell :echo x; {wait_for(gate)}")
        while not {"OUT 8 1 x", "OUT 7 1 "}.issubset(visitor.lines):  # which comes first is open
            await visitor.line()
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


@pytest.mark.parametrize(
    ("had", "again"),
    [(" had=7:1:6", []), (" had=7:1:0", ["OUT 7 1 hello"]), ("", ["OUT 7 1 hello"])],
    ids=["all", "nothing", "not known"],
)
async def test_what_ended_at_once_and_broke_off_tells_nothing_twice(
    spool_dir: Path, had: str, again: list[str]
) -> None:
    """The daemon had read what it wrote, and not its end: the line stood in its LOG twice."""
    async with fake_daemon() as daemon, working(daemon, spool_dir) as agent:
        visitor = await daemon.worker()
        await visitor.say("RUN 7 1 type=echo :hello", "RUN 8 1 type=calculate :1 / 0")
        await visitor.until_done(8)
        daemon.answer += had
        await visitor.close()
        visitor = await daemon.worker()
        await visitor.expect_all("DONE 7 1 0", "DONE 8 1 1")
        assert [line for line in visitor.lines if line.startswith("OUT")] == again
        kept = agent.reports["7 1"].splitlines()[-1]
        assert (kept, len(agent.reports)) == ("DONE 7 1 0", 2)


async def test_what_a_run_that_was_given_up_writes_is_told_to_nobody(spool_dir: Path, tmp_path: Path) -> None:
    """OUT names no attempt: its words stood in the LOG as those of the next one, and were counted as its."""
    gate = tmp_path / "gate"
    async with fake_daemon() as daemon, working(daemon, spool_dir) as agent:
        visitor = await daemon.worker()
        await visitor.say(f"RUN 7 1 type=shell :printf one; {wait_for(gate)}; printf two; echo; printf three")
        await visitor.say("RUN 8 1 type=echo :hello", f"RUN 9 1 type=shell :{wait_for(gate)}; echo nine")
        await visitor.expect_all("OUT 7 1 one", "DONE 8 1", "STARTED 9 1")
        daemon.answer += " had=9:1:0"
        await visitor.close()
        visitor = await daemon.worker()
        await visitor.expect("DONE 8 1 0")
        gate.touch()
        await visitor.expect_all("DONE 7 1 0", "DONE 9 1 0")
        assert [line for line in visitor.lines if line.startswith("OUT")] == ["OUT 9 1 nine"]
        assert {key: agent.reports[key] for key in ("7 1", "8 1")} == {
            "7 1": "DONE 7 1 0\n",
            "8 1": "DONE 8 1 0\n",
        }


async def test_what_an_ok_has_confirmed_is_not_kept(spool_dir: Path, tmp_path: Path) -> None:
    """A job that writes for days must not fill the worker's memory."""
    async with fake_daemon() as daemon, working(daemon, spool_dir) as agent:
        daemon.answer = "OK w1 heartbeat=0.3"
        visitor = await daemon.worker()
        await visitor.say(f"RUN 7 1 type=shell :echo one; {wait_for(tmp_path / 'gate')}")
        while "OUT 7 1 one" not in visitor.lines:  # to begin a process may take many heartbeats
            if (await visitor.line()).startswith("BEAT"):
                await visitor.say("OK")
        await visitor.expect("BEAT")
        assert agent.reports.sent
        await visitor.say("OK")
        await visitor.expect("BEAT")
        await visitor.say("OK")
        await until(lambda: not agent.reports.sent)


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


async def test_a_fault_with_an_order_ends_its_run_only(spool_dir: Path) -> None:
    """It ended the worker, and with it all its jobs."""

    def fail(order: Order) -> NoReturn:
        raise KeyError("oops")

    async with fake_daemon() as daemon, working(daemon, spool_dir) as agent:
        agent.table["echo"] = evolve(agent.table["echo"], at_once=fail)
        visitor = await daemon.worker()
        await visitor.say("RUN 7 1 type=echo :x", "RUN 8 1 type=shell :true")
        why = "cannot start: a fault of the worker: KeyError('oops')"
        assert await visitor.expect("DONE 7 1") == f'DONE 7 1 126 why="{why}"'
        await visitor.expect("DONE 8 1 0")


async def test_a_worker_beats_and_a_silent_daemon_is_given_up(spool_dir: Path) -> None:
    """A cable that was pulled sends no FIN. And the daemon learns how far off this machine's clock is."""
    async with fake_daemon() as daemon, working(daemon, spool_dir):
        daemon.answer = "OK w1 heartbeat=0.3"
        visitor = await daemon.worker()
        started_at = trio.current_time()
        for _ in range(4):
            word, now, *rtt = (await visitor.line()).split()
            told_at = datetime.fromisoformat(now.removeprefix("now="))
            assert (word, abs(told_at - wall_now()) < timedelta(seconds=PATIENCE_S)) == ("BEAT", True)
            assert all(0 <= float(each.removeprefix("rtt=")) < PATIENCE_S for each in rtt)
            answered_at = trio.current_time()
            await visitor.say("OK")
        assert trio.current_time() - started_at >= 0.9
        await visitor.closed()
        assert trio.current_time() - answered_at >= 0.9
        assert len(visitor.lines[4:]) <= 3
        assert "HELLO" in (await daemon.worker()).hello


async def test_a_beat_says_how_long_the_answer_before_took(spool_dir: Path) -> None:
    """Half of it is how old the worker's time is when the daemon reads it."""
    async with fake_daemon() as daemon, working(daemon, spool_dir):
        daemon.answer = "OK w1 heartbeat=0.5"
        visitor = await daemon.worker()
        while float((await visitor.expect("BEAT")).rpartition("rtt=")[2]) < 0.1:
            await trio.sleep(0.1)
            await visitor.say("OK")


async def test_a_beat_says_nothing_of_an_answer_that_has_not_come(spool_dir: Path) -> None:
    """What it said would be of the BEAT before the last, and tell nothing of how long that one waited."""
    async with fake_daemon() as daemon, working(daemon, spool_dir):
        daemon.answer = "OK w1 heartbeat=0.4"
        visitor = await daemon.worker()
        unanswered = 1
        while " rtt=" in await visitor.line():
            unanswered += 1
        await visitor.say(*["OK"] * unanswered)
        while " rtt=" not in await visitor.line():
            await visitor.say("OK")


async def test_output_alone_does_not_make_the_daemon_look_silent(spool_dir: Path) -> None:
    """Output is not answered, so a job that talks all the time needs beats as well."""
    async with fake_daemon() as daemon, working(daemon, spool_dir):
        daemon.answer = "OK w1 heartbeat=0.8"
        visitor = await daemon.worker()
        await visitor.say("RUN 7 1 type=shell :while echo x; do sleep 0.01; done")
        for _ in range(4):
            await visitor.expect("BEAT")
            await visitor.say("OK")
        await visitor.say("KILL 7 1")
        await visitor.expect("DONE 7 1")
