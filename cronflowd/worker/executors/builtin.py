"""Jobs that the worker carries out by itself: `echo`, `sleep` and `calculate`.

They start no process, so they show what the daemon alone can do, and they are a way to
try a schedule without touching anything.
"""

from __future__ import annotations

import trio

from ...base.errors import Refusal
from ...tasks.arithmetic import calculate
from .job import NOT_RUNNABLE, Ended, Executor, Job, Order, as_task, cannot_start, ended_by_signal

MAX_SLEEP_S = 366 * 86_400.0


def echo(order: Order) -> Ended:
    """The command is the output."""
    return Ended(0, said=order.command)


def sleep_at_once(order: Order) -> Ended | None:
    """Only `sleep 0`, and what is no number, is over at once."""
    seconds = parse_seconds(order.command)
    if seconds is None:
        return cannot_start(NOT_RUNNABLE, f'"{order.command}" is no number of seconds')
    return None if seconds > 0 else _RESTED


_RESTED = Ended(0)


async def sleep(job: Job) -> Ended:
    """Waits as many seconds as the command says."""
    job.start()
    with job.life:
        await trio.sleep(float(job.order.command))
        return _RESTED
    return ended_by_signal(job)


def work_out(order: Order) -> Ended:
    """The result is the output."""
    try:
        return Ended(0, said=calculate(order.command))
    except Refusal as refusal:
        # What cannot be read never began; what has no result has failed like any other job.
        if refusal.code == "syntax":
            return cannot_start(NOT_RUNNABLE, refusal.message)
        return Ended(1, why=refusal.message)


def parse_seconds(text: str) -> float | None:
    """A number of seconds within bounds, or None."""
    try:
        seconds = float(text)
    except ValueError:
        return None
    # Written so that a NaN falls out too.
    return seconds if 0 <= seconds <= MAX_SLEEP_S else None


ECHO = Executor(lambda job: echo(job.order), at_once=echo)
SLEEP = Executor(as_task(sleep), at_once=sleep_at_once)
CALCULATE = Executor(lambda job: work_out(job.order), at_once=work_out)
