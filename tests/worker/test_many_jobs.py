"""Ten thousand jobs on one worker: what concerns all of them is done in turns, with others between.

Done in one go it took as long as there are jobs: no heartbeat left, and the daemon gave the worker up.
"""

from __future__ import annotations

import gc
import os
import resource
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Self, cast

import pytest
import trio

from cronflowd.worker import agent as agents
from cronflowd.worker import program
from cronflowd.worker.executors import processes
from cronflowd.worker.executors.builtin import ENDED_A_TURN, SLEEP, Sleepers
from cronflowd.worker.executors.job import Ended, Executor, Job, Order, as_task
from cronflowd.worker.executors.output import Output
from cronflowd.worker.executors.processes import EVENTS_A_TURN, Process
from tests.lib.fake_daemon import fake_daemon
from tests.lib.waiting import until
from tests.lib.working_agent import SLEEPER, working

MANY = 1000


async def most_in_a_turn(done: Callable[[], int], upto: int) -> int:
    """By how many that number grew between two turns of another task."""
    seen = [0]
    while seen[-1] < upto:
        seen.append(done())
        await trio.lowlevel.checkpoint()
    return max(now - before for before, now in pairwise(seen))


async def test_a_look_at_all_processes_is_taken_in_turns_and_its_askers_go_on_in_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many ask, it is one look; and each that goes on has a process to signal."""
    looked, asked, told = list[int](), list[int](), list[int]()

    def everyone() -> Iterator[Process]:
        for pid in range(10**6, 10**6 + MANY):
            looked.append(pid)
            yield Process(pid, os.getpid(), pid, pid)

    monkeypatch.setattr(processes, "_processes", everyone)
    monkeypatch.setattr(processes, "_marks", lambda pid: asked.append(pid) or ())
    watch, child = processes.Watch(), cast("processes.Child", SimpleNamespace(pid=10**6))

    async def ask() -> None:
        told.append(len(await watch.members(child)))

    most = dict[str, int]()

    async def count(name: str, done: list[int]) -> None:
        most[name] = await most_in_a_turn(lambda: len(done), MANY)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count, "looked", looked)
        nursery.start_soon(count, "asked", asked)
        nursery.start_soon(count, "told", told)
        for _ in range(MANY):
            nursery.start_soon(ask)
    watch._events.close()
    assert (len(looked), len(asked), told) == (MANY, MANY, [0] * MANY)
    assert max(most.values()) <= 2 * EVENTS_A_TURN


async def test_those_that_have_ended_are_passed_over_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands that were just killed were all looked at in one go: nobody has taken leave of them yet."""
    looked = list[str]()

    class Entry:
        name = "1"

        def __truediv__(self, name: str) -> Self:
            return self

        def read_bytes(self) -> bytes:
            looked.append(self.name)
            return b"1 (gone) Z 1 1 1"

    monkeypatch.setattr(Path, "glob", lambda *_: iter([Entry()] * MANY))
    most = list[int]()

    async def count() -> None:
        most.append(await most_in_a_turn(lambda: len(looked), MANY))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        nursery.start_soon(processes._members)
    assert most[0] <= 2 * EVENTS_A_TURN


async def test_a_worker_that_is_told_twice_to_end_ends_its_jobs_in_turns(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second TERM ended all of them in one go."""
    killed, kill = list[Job](), Job.kill_now
    monkeypatch.setattr(Job, "kill_now", lambda job: killed.append(job) or kill(job))
    async with fake_daemon() as daemon, working(daemon, spool_dir) as agent:
        visitor = await daemon.worker()
        await visitor.say(*[f"RUN {run} 1 {SLEEPER}" for run in range(200)])
        await until(lambda: sum(job.is_started for job in agent.jobs.values()) == 200)
        agent.leave()
        agent.leave()
        assert await most_in_a_turn(lambda: len(killed), 200) <= 2 * agents.BEGUN_A_TURN
        await until(lambda: not agent.jobs)


async def test_jobs_that_end_at_one_moment_are_ended_in_turns(spool_dir: Path) -> None:
    """Each end is a line of the spool: those of ten thousand sleeps were one pass of a tenth of a second."""
    moment = trio.Event()

    async def wait(job: Job) -> Ended:
        job.start()
        await moment.wait()
        return Ended(0)

    async with fake_daemon() as daemon, working(daemon, spool_dir) as agent:
        agent.table["sleep"] = Executor(as_task(wait))
        visitor = await daemon.worker()
        await visitor.say(*[f"RUN {run} 1 {SLEEPER}" for run in range(200)])
        await until(lambda: sum(job.is_started for job in agent.jobs.values()) == 200)
        moment.set()
        assert await most_in_a_turn(lambda: len(agent.reports), 200) <= 2 * agents.BEGUN_A_TURN


@pytest.mark.parametrize("how", ["slept", "timed out", "killed"])
async def test_those_that_sleep_are_woken_in_turns(mock_clock: trio.testing.MockClock, how: str) -> None:
    """A task for each was woken with all others: ten thousand that ended together were one pass of 110 ms."""
    options = {"timeout": "60"} if how == "timed out" else {}
    ends, jobs = list[Ended](), list[Job]()
    for run in range(MANY):
        order = Order(f"{run} 1", {"type": "sleep", **options}, "3600" if options else "60")
        job = Job(order, Output(str(run), 0), 1.0, on_ended=lambda _, ended: ends.append(ended))
        assert SLEEP.begin(job) is None
        jobs.append(job)
    if how == "killed":
        for job in jobs:
            job.kill()
    else:
        mock_clock.jump(60)
    assert await most_in_a_turn(lambda: len(ends), MANY) <= 2 * ENDED_A_TURN
    expected = Ended(0) if how == "slept" else Ended(143, signal=15, timed_out=how == "timed out")
    assert set(ends) == {expected}


async def test_what_was_killed_in_its_sleep_is_forgotten() -> None:
    """Not only when its time comes, which may be in a year."""
    sleepers, ends = Sleepers(), list[Ended]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sleepers.run)
        for run in range(MANY):
            order = Order(f"{run} 1", {"type": "sleep"}, "1e7")
            sleepers.begin(job := Job(order, Output("1", 0), 1.0, on_ended=lambda _, end: ends.append(end)))
            job.kill()
            while len(ends) <= run:
                await trio.lowlevel.checkpoint()
        assert len(sleepers._heap) <= 2 * ENDED_A_TURN
        nursery.cancel_scope.cancel()


async def test_few_jobs_are_begun_in_a_turn_where_each_takes_long(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine to begin a process takes a hundred times as long as on a quiet one."""
    begun = list[Job]()
    monkeypatch.setattr(agents, "BEGUN_S", -1.0)
    async with fake_daemon() as daemon, working(daemon, spool_dir) as agent:
        agent.table["shell"] = Executor(lambda job: begun.append(job) or Ended(0))
        visitor = await daemon.worker()
        await visitor.say(*[f"RUN {run} 1 type=shell :true" for run in range(50)])
        assert await most_in_a_turn(lambda: len(begun), 50) <= 2


async def test_what_the_daemon_says_at_once_is_not_carried_out_at_once(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe holds the cancelling of all of them."""
    sizes = list[int]()
    async with fake_daemon() as daemon, working(daemon, spool_dir) as agent:
        act = agent.act
        monkeypatch.setattr(agent, "act", lambda items: sizes.append(len(items)) or act(items))
        visitor = await daemon.worker()
        await visitor.say(*[f"KILL {run} 1" for run in range(3 * agents.LINES_A_TURN)])
        await until(lambda: sum(sizes) >= 3 * agents.LINES_A_TURN)
    assert max(sizes) <= agents.LINES_A_TURN


async def test_garbage_is_not_looked_for_among_very_many_jobs(spool_dir: Path) -> None:
    """It took an eighth of a second, again with each thousand more, and they hardly leave any."""
    looks = list[int]()
    whole = 2  # the oldest generation, and with it all

    def look(phase: str, found: dict[str, int]) -> None:
        looks.append(found["generation"])

    thresholds = gc.get_threshold()
    gc.freeze()  # as the program does: what it knows then is its jobs
    gc.collect()
    gc.set_threshold(50, 2, *program.GARBAGE[2:])
    gc.callbacks.append(look)
    try:
        async with fake_daemon() as daemon, working(daemon, spool_dir) as agent:
            visitor = await daemon.worker()
            await visitor.say(*[f"RUN {run} 1 {SLEEPER}" for run in range(MANY)])
            await until(lambda: sum(job.is_started for job in agent.jobs.values()) == MANY)
            await visitor.say("OK")
            assert len(looks) > 2 * agents.GARBAGE_LOOKS
            assert whole not in looks
            await visitor.say(*[f"KILL {run} 1" for run in range(MANY)])
            await until(lambda: not agent.jobs)
            await visitor.say("OK")
            await until(lambda: whole in looks)
    finally:
        gc.callbacks.remove(look)
        gc.set_threshold(*thresholds)
        gc.unfreeze()


@pytest.mark.parametrize(("soft", "hard", "given"), [(1024, 1 << 19, 5064), (1 << 16, 1 << 19, 1 << 16)])
def test_there_are_descriptors_for_all_jobs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, soft: int, hard: int, given: int
) -> None:
    """1024 is what a shell gives, and of a thousand jobs two in five ended with 126: too many open files."""
    limits = [soft, hard]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: limits.__setitem__(slice(None), both))
    program._make_room(1000)
    assert (limits, caplog.text) == ([given, hard], "")
    limits[:] = 256, 2000
    program._make_room(1000)
    assert limits == [2000, 2000]
    assert "1000 jobs at a time may need 5064 open files, and there are 2000 at most" in caplog.text
