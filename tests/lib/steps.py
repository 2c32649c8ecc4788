"""What trio's scheduler does, counted: a bound on switches of tasks holds on every machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import trio


class Steps(trio.abc.Instrument):
    """How often each task was given its turn, by its name."""

    def __init__(self) -> None:
        self.taken: Counter[str] = Counter()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.taken[task.name.rpartition(".")[2]] += 1


@contextmanager
def counted_steps() -> Iterator[Counter[str]]:
    """Turns that tasks take meanwhile, by the last part of their names."""
    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    yield steps.taken
    trio.lowlevel.remove_instrument(steps)
