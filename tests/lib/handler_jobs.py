"""Jobs of type custom, as a worker carries them out."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import trio
from attrs import define

from cronflowd.worker.executors import custom
from cronflowd.worker.executors.job import Ended, Job, Order
from cronflowd.worker.executors.output import Output
from cronflowd.worker.executors.shell import worker_environ
from tests.lib.out_lines import take_all, texts_of
from tests.lib.waiting import PATIENCE_S

ROOT = Path(__file__).parents[2]
PATIENT_S = 3 * PATIENCE_S  # a process of Python's own, on a machine that others use as well


def put(directory: Path, name: str, text: str) -> None:
    path = directory / f"{name}.py"
    path.write_text(textwrap.dedent(text))
    path.chmod(0o644)


@define(eq=False)
class HandlerJob(Job):
    """A job of a worker with these handlers."""

    handlers: Path | None = None


def make_job(handlers: Path | None, command: str, data: object = None, /, **options: str) -> HandlerJob:
    if data is not None:
        options["payload"] = data if isinstance(data, str) else json.dumps(data)
    order = Order("7 2", {"type": "custom", **options}, command)
    return HandlerJob(order, Output("7", 1 << 20), grace_s=5.0, handlers=handlers)


async def carry_out(job: HandlerJob) -> Ended:
    with trio.fail_after(PATIENT_S):
        ended = await custom.run_handler(job, job.handlers, worker_environ())
    job.output.end()
    return ended


def said(job: Job) -> list[str]:
    """The output as `fd text`."""
    return texts_of(take_all(job.output))
