"""The tables of tasks, runs and workers, and what finds their rows quickly: names, lanes, heaps.

Everything but the three tables themselves is derived, and may be pruned at any time: an entry
of a heap that its row no longer agrees with is dropped when it comes to the top, and a heap that
is mostly such entries is made anew from the table.

Runs that wait for a worker stand in *lanes*. A lane is what a worker can be asked for: one value
of on= and one kind of work; a run of `custom:backup` stands in two, since some workers do all of
`custom` and some only that handler. Within a lane the run that has waited longest is first, with
the handicap of its priority. `ready` holds the lanes whose first run could leave now: a lane comes
in when a run joins it that some free worker would take, or when a worker that would take its first
run becomes free. So neither the number of lanes nor that of workers that are busy is ever walked.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from heapq import heapify, heappop, heappush, heapreplace

from ..base.walks import Numbered
from ..tasks.task import Run, Task, Told, Worker
from .unfinished import Unfinished

# A run that waits counts as younger by this much: an old low one passes a new high one.
HANDICAP = {"high": timedelta(0), "medium": timedelta(seconds=60), "low": timedelta(seconds=300)}

MAX_STALE = 1000  # entries of a heap that are passed over in one go

# At one moment high ones are decided first, so that what is placed at once is placed in order.
RANK = {"high": 0, "medium": 1, "low": 2}
MIN_GRACE_S = 1.0  # even grace=0 allows for the daemon's own latency
FEW = 64  # a heap that is shorter is never worth tidying

Lane = tuple[str, str]  # on=, work
Place = tuple[datetime, int]  # in a lane: when the run began to wait, with its handicap; its number


class Tables(Unfinished):
    """Tasks, runs that have not ended, workers; and what beats are expected."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: Numbered[Task] = Numbered()
        self.runs: dict[int, Run] = {}  # not ended
        self.workers: dict[str, Worker] = {}
        self.paused_all, self.paused_until_at, self.paused_why = False, _NO_TIME, ""
        self.told: dict[tuple[str, str], Told] = {}  # by whom it is about (as in NoticeGiven) and event
        self.notices: set[int] = set()  # tasks that the daemon made to tell somebody something
        # Indexes.
        self.names: dict[str, int] = {}
        self.dependents: dict[str, set[int]] = {}  # by the name that stands in their after=
        self.to_judge: dict[int, None] = {}  # tasks whose dependencies, or runs, may let them go on
        self.due: list[tuple[datetime, int, int]] = []  # with the rank of its priority
        # What the clock was set forward over, by how much: moments up to then start nothing.
        self.jumped_upto_at, self.jumped_by_s = _NO_TIME, 0.0
        self.lanes: dict[str, dict[str, list[tuple[datetime, int, int]]]] = {}  # by on=, by work: heaps
        self.ready: list[tuple[datetime, int, Lane]] = []
        self.ready_as: dict[Lane, Place] = {}  # the one entry of each lane in `ready` that counts
        self.waits: list[tuple[datetime, int, int]] = []  # when a run that no worker took is missed
        self.unread: dict[int, None] = {}  # tasks whose records cannot be read
        self.untold: dict[int, None] = {}  # those among them of which that has not been said
        self.unread_runs: dict[int, None] = {}  # runs that may have to end because theirs cannot be
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
        if task.spec.unread:
            self.unread[task.id] = self.untold[task.id] = None

    def take_out(self, task: Task) -> None:
        """The opposite: by id alone it can still be found."""
        while self.due and self.is_stale(self.due[-1][0], self.due[-1][2]):
            self.due.pop()  # so that those of very many tasks need not be passed over when their time comes
        self.notices.discard(task.id)
        if task.spec.unread:
            del self.unread[task.id]
            self.untold.pop(task.id, None)
        if self.names.get(task.name) == task.id:  # UNDO may have let another one take it a moment ago
            del self.names[task.name]
        for name in task.spec.options.after:
            self.dependents[name].discard(task.id)
            if not self.dependents[name]:
                del self.dependents[name]

    def set_due(self, task: Task, due_at: datetime | None, decided: int = 0) -> None:
        """When a task is due next, and how many of the moments at that instant have been decided."""
        task.due_at, task.decided = due_at, decided
        self.note_due(task)
        if due_at is not None:
            heappush(self.due, (due_at, RANK[task.spec.options.prio], task.id))
            if len(self.due) > FEW + 2 * len(self.tasks):
                self.due = [
                    (each.due_at, RANK[each.spec.options.prio], each.id)
                    for each in self.tasks.values()
                    if each.due_at is not None
                ]
                heapify(self.due)

    def end_jump(self) -> None:
        """A moment is new, however old its time: no jump of the clock went over it, unless one still does."""
        if self.jumped_upto_at is not None:
            first = self.next_task_due()
            if first is None or first[0] > self.jumped_upto_at:
                self.jumped_upto_at = None

    # --- runs ---

    def enqueue(self, run: Run) -> None:
        """Lets a run wait for its time, then for a worker."""
        if run.spec.unread:
            self.unread_runs[run.id] = None
        if run.delayed_until_at is not None:
            heappush(self.delayed, (run.delayed_until_at, run.id))
        else:
            self._enqueue(run)

    def _enqueue(self, run: Run) -> None:
        if len(self.waits) > FEW + 2 * len(self.runs):
            self._tidy_waits()
        heappush(self.waits, (wait_ends(run), run.id, run.attempt))
        place, on, work = _place(run), run.on, run.spec.work
        kind = work.partition(":")[0]
        self._stand(run, place, (on, work))
        if kind != work:
            self._stand(run, place, (on, kind))

    def _stand(self, run: Run, place: Place, lane: Lane) -> None:
        works = self.lanes.setdefault(lane[0], {})
        heap = works.setdefault(lane[1], [])
        if len(heap) > FEW + 2 * len(self.runs):
            heap[:] = [entry for entry in heap if self._stands(entry)]
            heapify(heap)
        heappush(heap, (*place, run.attempt))
        if self.first_in(lane) == place and any(
            accepts(worker, lane[1], lane[0]) for worker in self.free.values()
        ):
            self._make_ready(lane, place)

    def _make_ready(self, lane: Lane, place: Place) -> None:
        if self.ready_as.get(lane) != place:
            self.ready_as[lane] = place
            heappush(self.ready, (*place, lane))

    def _stands(self, entry: tuple[datetime, int, int]) -> bool:
        """Whether an entry of a lane still counts; it stays there when its run was sent or cancelled."""
        since_at, run_id, attempt = entry
        run = self.runs.get(run_id)
        return (
            run is not None
            and run.state == "queued"
            and run.attempt == attempt
            and _place(run) == (since_at, run_id)
        )

    def first_in(self, lane: Lane) -> Place | None:
        """The place of the run that has waited longest in a lane; empty lanes are dropped."""
        on, work = lane
        works = self.lanes.get(on, {})
        heap = works.get(work)
        if heap is None:
            return None
        while heap:
            if self._stands(heap[0]):
                return heap[0][:2]
            heappop(heap)
        del works[work]
        if not works:
            del self.lanes[on]
        return None

    def next_ready(self) -> tuple[Run, Lane] | None:
        """Of all runs that some free worker would take, the one that goes first; its lane stays ready."""
        while self.ready:
            since_at, run_id, lane = self.ready[0]
            if self.ready_as.get(lane) == (since_at, run_id):
                first = self.first_in(lane)
                if first == (since_at, run_id):
                    return self.runs[run_id], lane
                if first is not None:
                    self.ready_as[lane] = first
                    heapreplace(self.ready, (*first, lane))
                    continue
                del self.ready_as[lane]
            heappop(self.ready)
        return None

    def put_off(self, lane: Lane) -> None:
        """Nobody who is free takes the first of this lane: until a worker that would becomes free."""
        del self.ready_as[lane]

    def waiting(self) -> Iterator[Run]:
        """All runs that wait for a worker, in no order."""
        return (run for run in self.runs.values() if is_waiting(run))

    def next_missed(self) -> tuple[datetime, int] | None:
        """The earliest end of the grace of a run that waits for a worker."""
        while self.waits:
            ends_at, run_id, attempt = self.waits[0]
            run = self.runs.get(run_id)
            if run and run.attempt == attempt and is_waiting(run) and wait_ends(run) == ends_at:
                return ends_at, run_id
            heappop(self.waits)
        return None

    def _tidy_waits(self) -> None:
        self.waits = [(wait_ends(run), run.id, run.attempt) for run in self.waiting()]
        heapify(self.waits)

    def next_task_due(self) -> tuple[datetime, int] | None:
        """The earliest moment of any task, first of the highest priority; or one that is none any more.

        That one is earlier than all the others, and comes where many were passed over already: ask again.
        """
        for _ in range(MAX_STALE):
            if not self.due or not self.is_stale(self.due[0][0], self.due[0][2]):
                break
            heappop(self.due)
        return (self.due[0][0], self.due[0][2]) if self.due else None

    def is_stale(self, due_at: datetime, task_id: int) -> bool:
        """Whether that is no longer the moment of the task."""
        task = self.tasks.get(task_id)
        return task is None or task.due_at != due_at

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

    def watch_time(self, run: Run) -> None:
        """A run that a worker has got must end within its timeout=."""
        if (ends_at := _time_ends(run)) is None:
            return
        heappush(self.timeouts, (ends_at, run.id, run.attempt))
        if len(self.timeouts) > FEW + 2 * len(self.runs):
            self.timeouts = [
                (at, each.id, each.attempt)
                for each in self.runs.values()
                if (at := _time_ends(each)) is not None and not each.stopping
            ]
            heapify(self.timeouts)

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
        if len(self.leases) > FEW + 2 * len(self.runs):
            self.leases = [
                (each.lease_until_at, each.id)
                for each in self.runs.values()
                if each.lease_until_at is not None
            ]
            heapify(self.leases)

    def recount(self, worker: Worker) -> None:
        """Whether a worker would take a run may be otherwise now."""
        if worker.free <= 0:
            self.free.pop(worker.name, None)
        elif self.free.get(worker.name) is not worker:
            self.free[worker.name] = worker
            self._offer(worker)

    def offer_anew(self, worker: Worker) -> None:
        """The same, and what it can do or is called may be otherwise too."""
        self.free.pop(worker.name, None)
        self.recount(worker)

    def _offer(self, worker: Worker) -> None:
        """It has become free: the lanes it would take a run from are ready."""
        for on in ("any", worker.name, *(f"label:{key}={value}" for key, value in worker.labels.items())):
            if works := self.lanes.get(on):
                for work in works.keys() & worker.can:
                    if first := self.first_in((on, work)):
                        self._make_ready((on, work), first)

    def step_waits(self, by: timedelta) -> None:
        """The clock was set: what waits has waited as long as before."""
        # The same added to each leaves a heap a heap.
        self.delayed = [(until_at + by, run_id) for until_at, run_id in self.delayed]
        self.leases = [(until_at + by, run_id) for until_at, run_id in self.leases]
        self.timeouts = [(at + by, run_id, attempt) for at, run_id, attempt in self.timeouts]
        self.waits = [(at + by, run_id, attempt) for at, run_id, attempt in self.waits]
        for works in self.lanes.values():
            for heap in works.values():
                heap[:] = [(at + by, run_id, attempt) for at, run_id, attempt in heap]
        self.ready = [(at + by, run_id, lane) for at, run_id, lane in self.ready]
        self.ready_as = {lane: (at + by, run_id) for lane, (at, run_id) in self.ready_as.items()}


def accepts(worker: Worker, work: str, on: str) -> bool:
    """Whether a worker can do this work and is one of those asked for by on=."""
    # Who can do `custom` has all handlers, who can do `custom:NAME` has that one.
    if work not in worker.can and work.partition(":")[0] not in worker.can:
        return False
    if on == "any":
        return True
    if on.startswith("label:"):
        key, _, value = on[6:].partition("=")
        return worker.labels.get(key) == value
    return worker.name == on


def is_waiting(run: Run) -> bool:
    """Whether it waits for a worker, and for nothing else."""
    return run.state == "queued" and run.delayed_until_at is None and not (run.parked or run.awaits)


def wait_ends(run: Run) -> datetime:
    """When a run that no worker took is missed."""
    return run.queued_at + timedelta(seconds=max(run.spec.options.grace_s, MIN_GRACE_S))


def _place(run: Run) -> Place:
    return run.queued_at + HANDICAP[run.spec.options.prio], run.id


def _time_ends(run: Run) -> datetime | None:
    timeout_s = run.spec.options.timeout_s
    return None if timeout_s is None or run.sent_at is None else run.sent_at + timedelta(seconds=timeout_s)


_NO_TIME: datetime | None = None
