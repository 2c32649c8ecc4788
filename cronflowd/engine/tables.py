"""The tables of tasks, runs and workers, and what finds their rows quickly: names, queues, heaps.

Everything but the three tables themselves is derived, and may be pruned at any time: an entry
of a heap or a queue that its row no longer agrees with is dropped when it comes to the top.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import datetime, timedelta
from heapq import heapify, heappop, heappush

from ..tasks.task import Run, Task, Told, Worker
from .beats import Expectations

# A run that waits counts as younger by this much: an old low one passes a new high one.
HANDICAP = {"high": timedelta(0), "medium": timedelta(seconds=60), "low": timedelta(seconds=300)}


Need = tuple[str, str, str, float]  # work, on, prio, grace: runs of one need wait in one queue


class Tables(Expectations):
    """Tasks, runs that have not ended, workers; and what beats are expected."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: dict[int, Task] = {}
        self.runs: dict[int, Run] = {}  # not ended
        self.workers: dict[str, Worker] = {}
        self.paused_all, self.paused_until_at, self.paused_why = False, _NO_TIME, ""
        self.told: dict[tuple[str, str], Told] = {}  # by whom it is about (as in NoticeGiven) and event
        self.notices: set[int] = set()  # tasks that the daemon made to tell somebody something
        # Indexes.
        self.names: dict[str, int] = {}
        self.dependents: dict[str, set[int]] = {}  # by the name that stands in their after=
        self.to_judge: dict[int, None] = {}  # tasks whose dependencies, or runs, may let them go on
        self.due: list[tuple[datetime, int]] = []
        self.queues: dict[Need, deque[tuple[int, int]]] = {}  # (run, attempt) each
        self.delayed: list[tuple[datetime, int]] = []
        self.leases: list[tuple[datetime, int]] = []
        self.timeouts: list[tuple[datetime, int, int]] = []
        self.free: dict[str, Worker] = {}  # workers that would take a run now

    def find(self, ref: str) -> Task | None:
        """The task whose id or name is `ref`; `task_<n>` finds nothing but n."""
        if ref.isascii() and ref.isdigit() and len(ref) < 20:
            return self.tasks.get(int(ref))
        task_id = self.names.get(ref)
        return self.tasks[task_id] if task_id is not None else None

    def is_paused(self, task: Task, at: datetime) -> bool:
        """Whether a moment of `task` at `at` starts nothing."""
        return self.is_all_paused(at) or task.is_paused(at)

    def is_all_paused(self, at: datetime) -> bool:
        """Whether PAUSE all is in force."""
        return self.paused_all and (self.paused_until_at is None or at < self.paused_until_at)

    # --- tasks ---

    def own_tasks(self) -> Iterator[Task]:
        """The tasks that people made: what LIST, SAVE, LOAD and CLEAR are about."""
        return (task for task in self.tasks.values() if not task.is_notice)

    def count_own(self) -> int:
        return len(self.tasks) - len(self.notices)

    def put(self, task: Task) -> None:
        """A task and its definition, into the tables by name."""
        self.tasks[task.id] = task
        self.names[task.name] = task.id
        if task.is_notice:
            self.notices.add(task.id)
        for name in task.spec.options.after:
            self.dependents.setdefault(name, set()).add(task.id)
        if task.spec.options.after or task.runs:
            self.to_judge[task.id] = None

    def take_out(self, task: Task) -> None:
        """The opposite: by id alone it can still be found."""
        self.notices.discard(task.id)
        if self.names.get(task.name) == task.id:  # UNDO may have let another one take it a moment ago
            del self.names[task.name]
        for name in task.spec.options.after:
            self.dependents[name].discard(task.id)
            if not self.dependents[name]:
                del self.dependents[name]

    def set_due(self, task: Task, due_at: datetime | None, decided: int = 0) -> None:
        """When a task is due next, and how many of the moments at that instant have been decided."""
        task.due_at = due_at = None if task.spec.unread else due_at
        task.decided = decided
        if due_at is not None:
            heappush(self.due, (due_at, task.id))
            if len(self.due) > 64 + 2 * len(self.tasks):
                self.due = [(t.due_at, t.id) for t in self.tasks.values() if t.due_at is not None]
                heapify(self.due)

    # --- runs ---

    def enqueue(self, run: Run) -> None:
        """Lets a run wait for its time, then for a worker."""
        if run.delayed_until_at is not None:
            heappush(self.delayed, (run.delayed_until_at, run.id))
        else:
            self._enqueue(run)

    def _enqueue(self, run: Run) -> None:
        options = run.spec.options
        need = (run.spec.work, run.on, options.prio, options.grace_s)
        queue = self.queues.get(need)
        if queue is None:
            queue = self.queues[need] = deque()
        place = len(queue)
        # Whoever was let go late has waited longer than those who came meanwhile.
        while place and self._is_before(run, queue[place - 1]):
            place -= 1
        queue.insert(place, (run.id, run.attempt))

    def _is_before(self, run: Run, entry: tuple[int, int]) -> bool:
        return self.waits(entry) and run.queued_at < self.runs[entry[0]].queued_at

    def head(self, need: Need) -> Run | None:
        """The run that has waited longest in one queue; empty queues are dropped."""
        queue = self.queues[need]
        while queue:
            if self.waits(queue[0]):
                return self.runs[queue[0][0]]
            queue.popleft()
        del self.queues[need]
        return None

    def waits(self, entry: tuple[int, int]) -> bool:
        """Whether an entry of a queue still counts; it stays there when its run was sent or cancelled."""
        run_id, attempt = entry
        run = self.runs.get(run_id)
        return run is not None and run.state == "queued" and run.attempt == attempt

    def heads(self) -> list[tuple[Need, Run]]:
        """The first of every queue."""
        return [(need, run) for need in list(self.queues) if (run := self.head(need))]

    def next_task_due(self) -> tuple[datetime, int] | None:
        """The earliest moment of any task."""
        while self.due:
            due_at, task_id = self.due[0]
            if (task := self.tasks.get(task_id)) and task.due_at == due_at:
                return self.due[0]
            heappop(self.due)
        return None

    def next_lease_end(self) -> tuple[datetime, int] | None:
        """The earliest end of a lease."""
        while self.leases:
            until_at, run_id = self.leases[0]
            if (run := self.runs.get(run_id)) and run.lease_until_at == until_at:
                return self.leases[0]
            heappop(self.leases)
        return None

    def next_timeout(self) -> tuple[datetime, int] | None:
        """The earliest end of a run's time."""
        while self.timeouts:
            at, run_id, attempt = self.timeouts[0]
            run = self.runs.get(run_id)
            if run and run.attempt == attempt and run.state in ("sent", "running") and not run.stopping:
                return at, run_id
            heappop(self.timeouts)
        return None

    def next_release(self) -> tuple[datetime, int] | None:
        """The earliest retry."""
        while self.delayed:
            at, run_id = self.delayed[0]
            run = self.runs.get(run_id)
            if run and run.delayed_until_at == at and not (run.parked or run.awaits):
                return self.delayed[0]
            heappop(self.delayed)
        return None

    def lease(self, run: Run, until_at: datetime) -> None:
        """From then on its worker is taken for lost."""
        run.lease_until_at = until_at
        heappush(self.leases, (until_at, run.id))

    def recount(self, worker: Worker) -> None:
        """Whether a worker would take a run may be otherwise now."""
        if worker.free > 0:
            self.free[worker.name] = worker
        else:
            self.free.pop(worker.name, None)


_NO_TIME: datetime | None = None
