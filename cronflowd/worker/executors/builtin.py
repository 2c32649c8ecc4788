"""Jobs that the worker carries out by itself: `echo`, `sleep` and `calculate`.

They start no process, so they show what the daemon alone can do, and they are a way to
try a schedule without touching anything.
"""

from __future__ import annotations

import math
from functools import partial
from heapq import heapify, heappop, heappush

import trio
from attrs import evolve

from ...base.errors import Refusal
from ...tasks.arithmetic import calculate
from .job import NOT_RUNNABLE, Ended, Executor, Job, Order, cannot_start, ended_by_signal

MAX_SLEEP_S = 366 * 86_400.0
ENDED_A_TURN = 16  # jobs; trio would wake as many tasks as there are at once


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


class Sleepers:
    """All jobs that sleep, woken by one task: those that are over at one moment end in turns."""

    def __init__(self) -> None:
        self._jobs: dict[int, tuple[Job, Ended]] = {}  # and how each ends, by a number of its own
        self._heap: list[tuple[float, int]] = []  # when each is over; some are already
        self._count = 0
        self._nap = trio.CancelScope()

    def begin(self, job: Job) -> None:
        job.start()
        seconds, limit_s = float(job.order.command), job.order.timeout_s
        ended = _RESTED if seconds <= limit_s else evolve(ended_by_signal(job), timed_out=True)
        self._count += 1
        job.on_kill = partial(self._kill, self._count)
        self._jobs[self._count] = job, ended
        self._end_at(trio.current_time() + min(seconds, limit_s), self._count)

    def _kill(self, number: int) -> None:
        job, _ = self._jobs[number]
        self._jobs[number] = job, ended_by_signal(job)
        self._end_at(-math.inf, number)

    def _end_at(self, at: float, number: int) -> None:
        if len(self._heap) > 2 * len(self._jobs) + ENDED_A_TURN:
            self._heap = [each for each in self._heap if each[1] in self._jobs]
            heapify(self._heap)
        heappush(self._heap, (at, number))
        if self._heap[0] == (at, number):
            self._nap.cancel()

    async def run(self) -> None:
        while True:
            with trio.CancelScope(deadline=self._heap[0][0] if self._heap else math.inf) as self._nap:
                await trio.sleep_forever()
            for _ in range(ENDED_A_TURN):
                if not self._heap or self._heap[0][0] > trio.current_time():
                    break
                if found := self._jobs.pop(heappop(self._heap)[1], None):
                    job, ended = found
                    job.on_ended(job, ended)


_sleepers_var = trio.lowlevel.RunVar[Sleepers]("sleepers")


def sleep(job: Job) -> None:
    """Waits as many seconds as the command says."""
    try:
        sleepers = _sleepers_var.get()
    except LookupError:
        _sleepers_var.set(sleepers := Sleepers())
        trio.lowlevel.spawn_system_task(sleepers.run)
    sleepers.begin(job)


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
SLEEP = Executor(sleep, at_once=sleep_at_once)
CALCULATE = Executor(lambda job: work_out(job.order), at_once=work_out)
