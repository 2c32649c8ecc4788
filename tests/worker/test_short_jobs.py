"""What a worker pays for a job that does little, and how many it carries out without keeping others waiting.

Nine tenths of all jobs end within a second, and write little. Nearly all of a worker's time is theirs.
"""

from __future__ import annotations

import errno
import gc
import os
import resource
import subprocess
import weakref
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import pytest
import trio

from cronflowd.host.config import WorkerSettings
from cronflowd.worker.executors import make_table, processes
from cronflowd.worker.executors.job import Ended, Executor, Job, Order
from cronflowd.worker.executors.output import Output
from tests.lib.calls import counting
from tests.lib.descriptors import open_descriptors
from tests.lib.fake_daemon import fake_daemon
from tests.lib.job_processes import ending_of, is_alive, wait_for
from tests.lib.out_lines import take_all
from tests.lib.waiting import PATIENCE_S, until
from tests.lib.working_agent import working

SHELL = make_table(WorkerSettings())["shell"]


def make_job(command: str, **options: str) -> Job:
    return Job(Order("7 1", {"type": "shell", **options}, command), Output("7", 1000), grace_s=1000.0)


class Spawned(trio.abc.Instrument):
    """The tasks that were made."""

    def __init__(self) -> None:
        self.names = list[str]()

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self.names.append(task.name)


async def test_a_short_job_costs_no_task(spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To make one, and a scope for its cancelling, took as long as all else that is done for it here."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError

    monkeypatch.setattr(subprocess, "Popen", refuse)
    async with fake_daemon() as daemon, working(daemon, spool_dir):
        visitor = await daemon.worker()
        await visitor.say("RUN 1 1 type=shell :true")
        await visitor.expect("DONE 1 1 0")
        spawned = Spawned()
        trio.lowlevel.add_instrument(spawned)
        await visitor.say(*[f"RUN {run} 1 type=shell :echo {run}" for run in range(2, 42)])
        said = [await visitor.line() for _ in range(3 * 40)]
        trio.lowlevel.remove_instrument(spawned)
        assert sorted(said) == sorted(
            line
            for run in range(2, 42)
            for line in (f"STARTED {run} 1", f"OUT {run} 1 {run}", f"DONE {run} 1 0")
        )
        assert spawned.names == []


async def test_a_short_job_costs_so_many_calls() -> None:
    """From its order to its end, those of trio too; they were 350."""

    async def carry_out() -> None:
        (job := make_job("true")).on_ended = lambda _, ended: endings.append(ended)
        assert SHELL.begin(job) is None
        os.waitid(os.P_PID, *processes._own, os.WEXITED | os.WNOWAIT)  # so that all there is to see is there
        while processes._own:
            await trio.lowlevel.checkpoint()

    endings = list[Ended]()
    await carry_out()
    with counting() as calls:
        for _ in range(10):
            await carry_out()
    assert endings == [Ended(0)] * 11
    assert calls[0] / 10 <= 240


async def test_the_kernel_s_count_of_kills_is_not_read_for_each_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is summed up over all processors whenever somebody reads it."""
    reads = list[int]()
    (events := tmp_path / "memory.events").write_text("oom 0\noom_kill 1\n")
    counts = os.open(events, os.O_RDONLY)
    monkeypatch.setattr(processes, "_memory_events", lambda: reads.append(1) or counts)
    monkeypatch.setattr(processes, "OOM_AGE_S", PATIENCE_S)
    for _ in range(5):
        assert await ending_of(SHELL, make_job("true")) == Ended(0)
    os.close(counts)
    assert len(reads) <= 1


async def test_jobs_that_come_at_once_are_not_all_begun_at_once(spool_dir: Path) -> None:
    """To begin a process takes a millisecond, and a thousand would keep a heartbeat waiting for a second."""
    begun, seen = list[Job](), list[int]()

    def begin(job: Job) -> Ended:
        begun.append(job)
        return Ended(0)

    async def look() -> None:
        while len(begun) < 200:
            seen.append(len(begun))
            await trio.lowlevel.checkpoint()

    async with fake_daemon() as daemon, working(daemon, spool_dir) as agent, trio.open_nursery() as nursery:
        agent.table["shell"] = Executor(begin)
        visitor = await daemon.worker()
        nursery.start_soon(look)
        await visitor.say(*[f"RUN {run} 1 type=shell :true" for run in range(200)])
        await until(lambda: len(begun) == 200)
    assert max(now - before for before, now in pairwise(seen)) <= 32
    assert [job.order.run for job in begun] == list(map(str, range(200)))


async def test_a_fault_with_what_a_job_writes_ends_that_job_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """All jobs' outputs are read by one task, which must not end for one of them."""
    other, job = make_job("sleep 0.1; echo fine"), make_job("echo oops; sleep 1000")

    def fail(fd: int, data: bytes) -> NoReturn:
        raise KeyError("oops")

    monkeypatch.setattr(job.output, "feed", fail)
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ending_of, SHELL, other)
            assert await ending_of(SHELL, job) == Ended(126, why="a fault of the worker: KeyError('oops')")
    other.output.end()
    assert take_all(other.output) == "OUT 7 1 fine\n"


def test_a_worker_that_breaks_down_leaves_no_job_behind() -> None:
    """Nobody could say any more how it ended, or end it."""
    pids = set[int]()

    async def begin() -> None:
        assert SHELL.begin(make_job("sleep 1000")) is None
        pids.update(processes._own)

    trio.run(begin)
    assert len(pids) == 1
    assert not any(map(is_alive, pids))
    assert not processes._own


async def test_what_is_ended_at_once_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All processes of the machine are looked at for it: a thousand looks would keep a heartbeat waiting."""
    looks, environs = list[int](), list[int]()
    processes_of, marks_of = processes._processes, processes._marks
    monkeypatch.setattr(processes, "_processes", lambda: looks.append(1) or processes_of())
    monkeypatch.setattr(processes, "_marks", lambda pid: environs.append(pid) or marks_of(pid))
    jobs = [make_job("trap '' TERM; echo ready; while :; do sleep 60; done") for _ in range(10)]
    async with trio.open_nursery() as nursery:
        for job in jobs:
            nursery.start_soon(ending_of, SHELL, job)
        await until(lambda: all(job.output.is_waiting for job in jobs))
        ours = list(processes._own)
        for job in jobs:
            job.kill()
        await until(lambda: all(job.grace.deadline < float("inf") for job in jobs))
        assert len(looks) == 1
        for job in jobs:
            job.kill_now()
    assert not set(environs).intersection(ours)
    assert not any(map(is_alive, ours))


async def test_a_process_that_cannot_be_watched_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would read what it writes, or see its end; and the descriptors would be gone for good."""
    await ending_of(SHELL, make_job("true"))
    before = open_descriptors()

    def refuse(watch: processes.Watch, child: processes.Child) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(processes.Watch, "open", refuse)
    ended = await ending_of(SHELL, make_job("sleep 1000"))
    why = "it had begun, and was killed since it cannot be watched: No space left on device"
    assert ended == Ended(137, why, signal=9), "and not that it could not be started"
    assert not processes._own
    await until(lambda: open_descriptors() <= before)


async def test_the_last_descriptors_are_enough_for_a_job_that_was_begun(tmp_path: Path) -> None:
    """It was begun with them, and killed for want of one more, though its own ends were needed no more."""
    await ending_of(SHELL, make_job("true"))
    limits, filled = resource.getrlimit(resource.RLIMIT_NOFILE), list[int]()
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 9, limits[1]))
    try:
        with suppress(OSError):
            while True:
                filled.append(os.open(os.devnull, os.O_RDONLY))
        for room in range(5):
            ended = await ending_of(SHELL, make_job(f"echo >> {tmp_path}/begun"))
            assert ended == (
                Ended(0) if room == 4 else Ended(126, "cannot start: /bin/sh: Too many open files")
            )
            os.close(filled.pop())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in filled:
            os.close(fd)
    assert (tmp_path / "begun").read_text() == "\n"


async def test_a_job_is_ended_though_no_process_can_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """With no descriptor left the look failed, and all who wanted one later waited for it for ever."""
    jobs = [make_job("echo ready; sleep 1000") for _ in range(2)]
    endings = list[Ended]()

    async def carry_out(job: Job) -> None:
        endings.append(await ending_of(SHELL, job))

    def refuse() -> NoReturn:
        raise OSError(errno.EMFILE, "Too many open files")

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            for job in jobs:
                nursery.start_soon(carry_out, job)
            await until(lambda: all(job.output.is_waiting for job in jobs))
            with monkeypatch.context() as patch:
                patch.setattr(processes, "_processes", refuse)
                jobs[0].kill()
                await until(lambda: endings)
            jobs[1].kill()
    assert endings == [Ended(143, signal=15)] * 2


@pytest.mark.parametrize("options", ["", "timeout=3600 "])
@pytest.mark.parametrize("rest", ["", "printf ever; "])
async def test_what_a_job_wrote_is_gone_with_its_acknowledgement(
    spool_dir: Path, options: str, rest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held in a circle it stayed until garbage was looked for: a megabyte of each of some hundred jobs.

    And where a line had no end yet, as at the end of most of what is read of a flood, for a second.
    """
    monkeypatch.setattr("cronflowd.worker.agent.UNFINISHED_S", 3600.0)
    gc.disable()
    try:
        async with fake_daemon() as daemon, working(daemon, spool_dir) as agent:
            visitor = await daemon.worker()
            gate = spool_dir / "gate"
            await visitor.say(f"RUN 1 1 type=shell {options}:{rest}echo much; {rest}{wait_for(gate)}")
            await visitor.expect("OUT 1 1")
            job = weakref.ref(agent.jobs["1 1"])
            output = weakref.ref(agent.jobs["1 1"].output)
            gate.touch()
            await visitor.expect("DONE 1 1 0")
            await visitor.say("ACK 1 1", "RUN 2 1 type=shell :true")
            await until(lambda: not job() and not output())
    finally:
        gc.enable()
