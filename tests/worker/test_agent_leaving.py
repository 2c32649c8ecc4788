"""How a worker goes: told to, as a local one without its daemon, by a signal, or killed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from cronflowd.base.errors import Exit, Fatal
from cronflowd.host.config import WorkerSettings
from cronflowd.worker import agent as agents
from cronflowd.worker import program
from cronflowd.worker.executors import processes
from cronflowd.worker.executors.processes import kill_left
from cronflowd.worker.spool import Spool
from tests.lib.fake_daemon import FakeDaemon, fake_daemon
from tests.lib.job_processes import is_alive, wait_for
from tests.lib.waiting import PATIENCE_S, until
from tests.lib.working_agent import SLEEPER, gone, working

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


async def test_output_that_broke_off_is_left_to_the_successor_too(spool_dir: Path, tmp_path: Path) -> None:
    """It was sent, and nobody says that it came: a daemon that is killed takes it along."""
    gate = tmp_path / "gate"
    async with fake_daemon() as daemon, working(daemon, spool_dir) as agent:
        visitor = await daemon.worker()
        await visitor.say(f"RUN 7 1 type=shell :echo one; {wait_for(gate)}; printf 'two\\n\\303'")
        await visitor.expect("OUT 7 1 one")
        gate.touch()
        await visitor.expect("DONE 7 1 0")
        await daemon.close()
        await until(lambda: agent.link is None)
        agent.leave()
        await gone(agent)
    async with fake_daemon() as daemon, working(daemon, spool_dir) as agent:
        daemon.answer = "OK w1 heartbeat=10 had=7:1:4"
        for _ in range(2):  # and that link breaks as well
            visitor = await daemon.worker()
            assert await visitor.until_done(7) == ["OUT 7 1 two", "OUT 7 1 \\udcc3\\", "DONE 7 1 0"]
            await visitor.close()
            await until(lambda: agent.link is None)


async def test_one_that_goes_takes_nothing_along_that_is_just_being_sent(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last job ended while its next daemon answered: the writer had taken it, and never sent it."""
    async with fake_daemon() as daemon, working(daemon, spool_dir) as agent:
        gather = agent.gather

        def gather_and_go() -> str:
            if agent.reports:
                gather()
                agent.gone.set()
            return ""

        visitor = await daemon.worker()
        await until(lambda: agent.link is not None)
        monkeypatch.setattr(agent, "gather", gather_and_go)
        await visitor.say("RUN 7 1 type=shell :echo two")
        await gone(agent)
    assert "OUT 7 1 two\n" in (spool_dir / "reports").read_text()


async def test_a_job_that_ends_without_a_link_has_its_output_in_the_spool(
    spool_dir: Path, tmp_path: Path
) -> None:
    """A kill of the worker before there is one again must not cost it."""
    gate = tmp_path / "gate"
    async with fake_daemon() as daemon, working(daemon, spool_dir) as agent:
        visitor = await daemon.worker()
        await visitor.say(f"RUN 7 1 type=shell :echo one; {wait_for(gate)}; echo two")
        await visitor.expect("OUT 7 1 one")
        await daemon.close()
        await until(lambda: agent.link is None)
        gate.touch()
        await until(lambda: "7 1" in agent.reports)
        written = (spool_dir / "reports").read_text()
    assert written.endswith("RUN 7 1\nOWED 7 1 0 8\nOUT 7 1 one\nOUT 7 1 two\nDONE 7 1 0\n")


async def test_what_had_no_way_to_the_daemon_yet_is_in_the_spool_when_the_link_is_lost(
    spool_dir: Path,
) -> None:
    """The job had ended before, so that nothing of it was written; and the daemon may stay away for long."""
    async with fake_daemon() as daemon, working(daemon, spool_dir) as agent:
        visitor = await daemon.worker()
        await visitor.say("RUN 7 1 type=shell :echo one")
        await visitor.expect("DONE 7 1 0")
        await daemon.close()
        await until(lambda: agent.link is None)
        await until(lambda: not agent.reports.is_linked)
        written = (spool_dir / "reports").read_text()
    assert written.endswith("\nOWED 7 1 0 4\nOUT 7 1 one\nDONE 7 1 0\n")


@pytest.mark.parametrize("is_linked", [True, False])
async def test_what_no_disk_takes_keeps_a_worker_from_leaving(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_linked: bool
) -> None:
    """What it still has to tell would be nowhere; and there may be room later, or a daemon."""
    monkeypatch.setattr(agents, "GOODBYE_WAIT_S", 0.01)
    tries = list[Path]()

    def refuse(path: Path, data: bytes) -> int:
        tries.append(path)
        raise OSError(errno.ENOSPC, "No space left on device")

    async with fake_daemon() as daemon, working(daemon, spool_dir, local=True) as agent:
        visitor = await daemon.worker()
        await visitor.say("RUN 7 1 type=shell :echo one")
        await visitor.expect("DONE 7 1 0")
        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_bytes", refuse)
            agent.parent = NOBODY
            if is_linked:
                agent.leave()
            else:
                await daemon.close()
            await until(lambda: agent.is_leaving and len(tries) > 3)
            assert not agent.gone.is_set()
        await gone(agent)
    assert caplog.text.count("staying until") == 1  # else it would look as if it hung
    assert "OUT 7 1 one\nDONE 7 1 0\n" in (spool_dir / "reports").read_text()


async def test_a_worker_whose_spool_was_removed_leaves_all_the_same(spool_dir: Path) -> None:
    """Nobody comes after, and it would be there for ever."""
    async with fake_daemon() as daemon, working(daemon, spool_dir, local=True) as agent:
        visitor = await daemon.worker()
        await visitor.say("RUN 7 1 type=shell :echo one")
        await visitor.expect("DONE 7 1 0")
        shutil.rmtree(spool_dir)
        agent.parent = NOBODY
        await daemon.close()
        await gone(agent)


async def test_a_killed_worker_s_successor_tells_what_is_missing(spool_dir: Path) -> None:
    """With a link, output is written nowhere but to it."""
    spool_dir.mkdir()
    (spool_dir / "reports").write_text("OWED 7 1 0 8\nDONE 7 1 0\nOWED 8 1 0 8\nDONE 8 1 0\n")
    async with fake_daemon() as daemon, working(daemon, spool_dir):
        daemon.answer = "OK w1 heartbeat=10 had=7:1:4,8:1:8"
        visitor = await daemon.worker()
        await visitor.until_done(8)
        await visitor.until_done(7)
        missing = "OUT 7 0 … 4 characters are missing: the worker was killed before it had sent them …"
        assert sorted(visitor.lines) == ["DONE 7 1 0", "DONE 8 1 0", missing]


# --- the local worker -----------------------------------------------------------------

NOBODY = 0  # no process has this number, so the worker sees that its parent has gone


async def test_a_local_worker_with_nothing_to_do_ends_with_its_daemon(tmp_path: Path) -> None:
    """Its daemon is dead, and the next one brings its own."""
    sock, spool_dir = tmp_path / "sock", tmp_path / "spool"
    async with fake_daemon(sock) as daemon, working(daemon, spool_dir, connect=(sock,), local=True) as agent:
        visitor = await daemon.worker()
        await visitor.say("RUN 7 1 type=echo :x")
        await visitor.expect("DONE 7 1 0")
        agent.parent = NOBODY
        await daemon.close()
        await gone(agent)
    assert "DONE 7 1 0" in (tmp_path / "spool" / "reports").read_text()


async def test_a_local_worker_whose_daemon_only_lost_it_goes_on(tmp_path: Path) -> None:
    """At each change of leader that of every node began anew, and its jobs waited for that."""
    sock, spool_dir = tmp_path / "sock", tmp_path / "spool"
    async with fake_daemon(sock) as daemon, working(daemon, spool_dir, connect=(sock,), local=True) as agent:
        for run in (7, 8):
            visitor = await daemon.worker()
            await visitor.say(f"RUN {run} 1 type=echo :x")
            await visitor.expect(f"DONE {run} 1")
            await visitor.say(f"ACK {run} 1")
            await until(lambda: not agent.reports)
            await visitor.close()
        await daemon.worker()
        assert not agent.is_leaving


async def test_an_orphaned_local_worker_works_for_the_next_daemon_until_it_is_idle(tmp_path: Path) -> None:
    """A job of eight hours must not keep all others off this machine after the daemon was restarted."""
    sock, spool_dir = tmp_path / "sock", tmp_path / "spool"
    async with fake_daemon(sock) as daemon, working(daemon, spool_dir, connect=(sock,), local=True) as agent:
        visitor = await daemon.worker()
        await visitor.say(f"RUN 7 1 {SLEEPER}")
        await visitor.expect("STARTED 7 1")
        agent.parent = NOBODY
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
    monkeypatch.setattr(program, "LOCK_POLL_S", 0.01)
    settings = WorkerSettings(local=True, spool=spool_dir)
    older = Spool(spool_dir)
    assert await program.wait_spool(settings, parent=0) is None
    got: list[Spool | None] = []

    async def wait() -> None:
        got.append(await program.wait_spool(settings, parent=os.getppid()))

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
        await program.wait_spool(WorkerSettings(spool=spool_dir), parent=os.getppid())
    assert raised.value.status == Exit.TRY_AGAIN
    assert str(spool_dir) in raised.value.message
    assert str(os.getpid()) in raised.value.message
    older.close()


# --- as a process ---------------------------------------------------------------------

PROGRAM = """
import sys
from pathlib import Path
from cronflowd.worker.program import run
from cronflowd.host.config import WorkerSettings
sys.exit(run(WorkerSettings(connect=(("127.0.0.1", int(sys.argv[1])),), name="w1", spool=Path(sys.argv[2]))))
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


@pytest.mark.real
async def test_after_kill_9_it_reports_what_had_ended_and_what_it_knows_no_end_of(spool_dir: Path) -> None:
    """Whatever had begun is named: of what is not named the daemon may conclude that it never began."""
    async with fake_daemon() as daemon:
        async with worker_process(daemon, spool_dir) as process:
            visitor = await daemon.worker()
            await visitor.say("RUN 7 1 type=shell :exit 3", f"RUN 8 1 {SLEEPER}", "RUN 9 1 type=echo :x")
            await visitor.expect_all("DONE 7 1 3", "STARTED 8 1", "DONE 9 1 0")
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
async def test_what_a_killed_worker_left_is_killed_before_it_can_be_begun_again(spool_dir: Path) -> None:
    """With retry= or lost=rerun there would be two of it, and nobody could end or report on the first."""
    async with fake_daemon() as daemon:
        async with worker_process(daemon, spool_dir) as process:
            visitor = await daemon.worker()
            stay = "sleep 1000 & env -i sleep 1000 & setsid sleep 1000 & echo $$ $!; wait"
            await visitor.say(f"RUN 7 1 type=shell :{stay}", "RUN 8 1 type=shell :sleep 1000 & echo $!")
            begun, told, _ = await visitor.expect_all("OUT 7 1", "OUT 8 1 ", "DONE 8 1")
            pids, ended = list(map(int, begun.split()[3:])), int(told.split()[3])
            await visitor.say("ACK 8 1", "RUN 9 1 type=echo :x")
            await visitor.expect("DONE 9 1")
            process.send_signal(signal.SIGKILL)
            await process.wait()
        assert all(map(is_alive, (*pids, ended)))
        async with worker_process(daemon, spool_dir):
            visitor = await daemon.worker()
            done = await visitor.expect("DONE 7 1 126 lost=yes")
            assert "its processes that were still running have been killed" in done
            assert not any(map(is_alive, pids))
            assert is_alive(ended)  # of a run that had ended, as was told then
    os.kill(ended, signal.SIGKILL)


@pytest.mark.real
async def test_a_service_that_began_something_for_a_killed_worker_s_job_goes_on(spool_dir: Path) -> None:
    """As `at` and build servers do, with the environment of whoever asks: they serve others, too."""
    async with fake_daemon() as daemon:
        async with worker_process(daemon, spool_dir) as process:
            visitor = await daemon.worker()
            await visitor.say("RUN 7 1 type=shell :echo $CRONFLOW_WORKER; sleep 1000")
            worker = (await visitor.expect("OUT 7 1")).split()[3]
            names = f"CRONFLOW_RUN_ID=7 CRONFLOW_ATTEMPT=1 CRONFLOW_WORKER={worker}"
            begin = f"env {names} sleep 1000 & echo $!; sleep 1000 & echo $!"
            # One was started by nobody's job, and of one by another job the session's leader has ended.
            theirs = [
                _begun_in_session(f"{begin}; exec >&-; wait", {}),
                _begun_in_session(begin, {"CRONFLOW_RUN_ID": "6", "CRONFLOW_ATTEMPT": "1"}),
            ]
            process.send_signal(signal.SIGKILL)
            await process.wait()
        async with worker_process(daemon, spool_dir):
            visitor = await daemon.worker()
            await visitor.expect("DONE 7 1 126 lost=yes")
    alive = [list(map(is_alive, pids)) for pids in theirs]
    for pid in (pid for pids in theirs for pid in pids):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert alive == 2 * [[False, True]]


@pytest.mark.real
async def test_a_worker_on_a_copy_of_a_spool_kills_nothing_of_the_first_one_s(spool_dir: Path) -> None:
    """Whoever tries out a copy of a data directory where it was made would end all jobs there."""
    async with fake_daemon() as daemon, worker_process(daemon, spool_dir):
        visitor = await daemon.worker()
        await visitor.say("RUN 7 1 type=shell :echo $$; exec sleep 1000")
        pid = int((await visitor.expect("OUT 7 1")).split()[3])
        copy = spool_dir.with_name("copy")
        shutil.copytree(spool_dir, copy)
        async with worker_process(daemon, copy):
            other = await daemon.worker()
            await other.expect("DONE 7 1 126 lost=yes")
        assert is_alive(pid)
        await visitor.say("KILL 7 1")
        await visitor.expect("DONE 7 1 143")


async def test_a_worker_does_not_kill_who_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job may have started the daemon anew, which has the job's environment then."""
    mark = f"of-this-test-{os.getpid()}"
    marks = {"CRONFLOW_RUN_ID": "7", "CRONFLOW_ATTEMPT": "1", "CRONFLOW_WORKER": mark}
    command = ["sh", "-c", "echo; sleep 1000; :"]
    with subprocess.Popen(command, env=marks, stdout=-1, start_new_session=True) as process:
        try:
            assert process.stdout
            process.stdout.readline()  # before its first word its environment cannot be read for certain
            with monkeypatch.context() as patch:
                patch.setattr(os, "getppid", lambda: process.pid)
                assert await kill_left(mark, ["7 1"]) == set()
            assert await kill_left(mark, ["7 1"]) == {"7 1"}
            assert process.wait() == -signal.SIGKILL
        finally:
            process.kill()


def _begun_in_session(script: str, environ: dict[str, str]) -> list[int]:
    """The two numbers of processes that a script in a session of its own says."""
    process = subprocess.Popen(
        ["sh", "-c", script], env={"PATH": os.environ["PATH"]} | environ, stdout=-1, start_new_session=True
    )
    assert process.stdout
    with process.stdout as told:
        pids = [int(told.readline()) for _ in range(2)]
    process.returncode = 0  # nobody waits for it
    return pids


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
            told = await visitor.expect_all("OUT 7 1 ", "OUT 8 1 ", "DONE 8 1 0")
            fled, bystander = (int(line.split()[3]) for line in told[:2])
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
        told = await visitor.expect_all(
            *[f"{word} {run} 1 " for run in range(1, 9) for word in ("OUT", "DONE")]
        )
        orphans = [int(line.split()[3]) for line in told[::2]]
        assert [line.split()[3] for line in told[1::2]] == [str(run) for run in range(1, 9)]
        await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in orphans))
        assert process.returncode is None


@pytest.mark.real
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_makes_it_leave_with_exit_code_0(
    spool_dir: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """As systemd and a person at the keyboard do it."""
    gate = tmp_path / "gate"
    async with fake_daemon() as daemon, worker_process(daemon, spool_dir) as process:
        visitor = await daemon.worker()
        await visitor.say(f"RUN 7 1 type=shell :{wait_for(gate)}; exit 3")
        await visitor.expect("STARTED 7 1")
        process.send_signal(number)
        await visitor.expect("BYE")
        await visitor.say("OK")
        gate.touch()
        await visitor.expect("DONE 7 1 3")
        await visitor.say("ACK 7 1")
        with trio.fail_after(PATIENCE_S):
            assert await process.wait() == 0


async def test_nobody_hears_of_a_child_that_ends_for_a_while_after_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each job's end woke the worker for a look that it takes once a second, whoever ends meanwhile."""
    looked = []
    monkeypatch.setattr(processes, "reap_adopted", lambda: looked.append(is_heard()) is None)

    def is_heard() -> bool:
        return signal.getsignal(signal.SIGCHLD) != signal.SIG_DFL

    async with trio.open_nursery() as nursery:
        nursery.start_soon(processes.keep_reaping)
        await until(is_heard)
        signal.raise_signal(signal.SIGCHLD)
        await until(lambda: not is_heard())
        nursery.cancel_scope.cancel()
    assert looked == [False, True]  # what ended before somebody listened is found, too
