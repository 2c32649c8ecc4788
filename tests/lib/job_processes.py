"""Jobs and their processes: how a test carries one out, has it wait, and sees whether it is still there."""

from __future__ import annotations

from pathlib import Path

import trio

from cronflowd.worker.executors.job import Ended, Executor, Job, Work


async def ending_of(executor: Executor, job: Job) -> Ended:
    """Has it carry out a job, as a worker does."""
    endings, works, is_over = list[Ended](), list[Work](), trio.Event()

    def end(_: Job, ended: Ended) -> None:
        endings.append(ended)
        is_over.set()

    def take_long(_: Job, work: Work) -> None:
        works.append(work)
        is_over.set()

    job.on_ended, job.on_long = end, take_long
    if ended := executor.begin(job):
        return ended
    await is_over.wait()
    return endings[0] if endings else await works[0](job)


def wait_for(gate: Path) -> str:
    """A command that ends when the test makes the file; of a test that failed before, some minutes later."""
    return f"until [ -e {gate} ] || [ $((n += 1)) -gt 9000 ]; do sleep 0.01; done"


def is_alive(pid: int) -> bool:
    """Whether the process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except FileNotFoundError:
        return False
