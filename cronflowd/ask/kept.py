"""What of the past each task's `keep=` still lets be seen.

The files are made short by the same rule when they are compacted (journal/compaction.py), which may be
much later. Of a task that was given `keep=`, whoever reads sees no more than that at once, also after a SET;
the default is nothing that anybody asked for, and what is there beyond it may be seen.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from functools import cache

from ..base.errors import Refusal
from ..engine.state import State
from ..tasks.options import KEEP
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
        self._state, self._now = state, now
        self._keep = cache(state.keep_of)
        self._going_on = frozenset(state.runs)
        self._rows: Counter[tuple[int, bool]] = Counter()  # seen, by task and whether it ran
        self._sizes = sizes or (lambda _: 0)  # of outputs that memory does not hold, by run
        self._written: Counter[int] = Counter()  # by runs seen, by task
        self._runs: dict[int, bool] = {}
        self.outputs: set[int] = set()  # the runs whose LOG is kept

    def __call__(self, outcome: Outcome) -> bool:
        run, task_id = outcome.run, outcome.task_id
        if run in self._going_on or not self.is_limited(task_id):
            return True
        if run is not None and (found := self._runs.get(run)) is not None:
            return found  # an earlier attempt of it
        keep = self._keep(task_id)
        self._rows[task_id, run is None] += 1
        is_kept = self._rows[task_id, run is None] <= keep.runs
        is_kept = is_kept and (self._now - outcome.ended_at).total_seconds() <= keep.age_s
        if run is not None:
            self._runs[run] = is_kept
            output = self._state.outputs.get(run)
            self._written[task_id] += self._sizes(run) or (output.size if output else 0)
            if is_kept and self._written[task_id] <= keep.output_bytes:
                self.outputs.add(run)
        return is_kept

    def is_limited(self, task_id: int) -> bool:
        """Whether anything of this task may be hidden."""
        return self._keep(task_id) != KEEP
