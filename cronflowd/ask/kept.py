"""What of the past each task's `keep=` still lets be seen.

The files are made short by the same rule when they are compacted (journal/compaction.py), which may be
much later. Of a task that was given `keep=`, whoever reads sees no more than that at once, also after a SET;
the default is nothing that anybody asked for, and what is there beyond it may be seen.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache, partial

from ..base.errors import Refusal
from ..engine.state import State
from ..schedules.zones import EPOCH
from ..tasks.options import KEEP, Keep
from ..tasks.task import Outcome


def about(state: State, ref: str | None) -> Callable[[int, str], bool]:
    """Whether the run of a task with this id and name is one that REF means; None: all are.

    History outlives its task. So a name means the task that has it and, of those that are gone, what bore
    it; an id that was never given is none.
    """
    if ref is None:
        return lambda task_id, name: True
    task = state.find(ref)
    if not re.fullmatch("[0-9]+", ref):
        here, known = state.tasks, task.id if task else 0
        return lambda task_id, name: task_id == known or (name == ref and not (known and task_id in here))
    if len(ref) < 20 and 0 < (number := int(ref)) < state.next_task:
        return lambda task_id, name: task_id == number
    raise Refusal("not-found", f'no task "{ref[:40]}"')


class Kept:
    """Whether a row still counts as kept. Must be asked newest first, of every row of a task."""

    def __init__(self, state: State, now: datetime, sizes: Callable[[int], int] | None = None) -> None:
        self._state = state
        self._limit = cache(partial(_find_limit, state, now))
        self._going_on = frozenset(state.runs)
        self._rows: Counter[tuple[int, bool]] = Counter()  # seen, by task and whether it ran
        self._runs: dict[int, bool] = {}
        # For LOG alone:
        self._sizes = sizes  # what a run has written that memory does not hold
        self._written: Counter[int] = Counter()  # by the runs seen, by task
        self.outputs: set[int] = set()  # the runs whose output is kept

    def __call__(self, outcome: Outcome) -> bool:
        run, task_id = outcome.run, outcome.task_id
        if run in self._going_on or (limit := self._limit(task_id)) is None:
            return True
        if run is not None and (found := self._runs.get(run)) is not None:
            return found  # an earlier attempt of it
        keep, since_at = limit
        row = task_id, run is not None
        self._rows[row] += 1
        is_kept = self._rows[row] <= keep.runs and (since_at is None or outcome.ended_at >= since_at)
        if run is not None:
            self._runs[run] = is_kept
            if self._sizes:
                output = self._state.outputs.get(run)
                self._written[task_id] += self._sizes(run) or (output.size if output else 0)
                if is_kept and self._written[task_id] <= keep.output_bytes:
                    self.outputs.add(run)
        return is_kept

    def is_limited(self, task_id: int) -> bool:
        """Whether anything of this task may be hidden."""
        return self._limit(task_id) is not None


def _find_limit(state: State, now: datetime, task_id: int) -> tuple[Keep, datetime | None] | None:
    """A task's keep= and how far back that reaches; None where it has none."""
    keep = state.keep_of(task_id)
    if keep == KEEP:
        return None
    is_finite = keep.age_s < (now - EPOCH).total_seconds()
    return keep, now - timedelta(seconds=keep.age_s) if is_finite else None
