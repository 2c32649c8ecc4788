"""Runs that wait for a worker, and the workers that are free: who may go next, without a walk.

Runs stand in *lanes*. A lane is what a worker can be asked for: one value of on= and one kind of
work; a run of `custom:backup` stands in two, since some workers do all of `custom` and some only
that handler. Within a lane the run that has waited longest is first, with the handicap of its
priority. `ready` holds the lanes whose first run could leave now: a lane comes in when a run joins
it that some free worker would take, or when a worker that would take its first run becomes free.
So neither the number of lanes nor that of workers that are busy is ever walked.

All of it is derived from the tables of runs and workers, and may be pruned at any time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import partial
from heapq import heapify, heappop, heappush, heapreplace

from ..tasks.task import Run, Worker
from .alarms import FEW, MAX_STALE

# A run that waits counts as younger by this much: an old low one passes a new high one.
HANDICAP = {"high": timedelta(0), "medium": timedelta(seconds=60), "low": timedelta(seconds=300)}

Lane = tuple[str, str]  # on=, work
Place = tuple[datetime, int]  # in a lane: when the run began to wait, with its handicap; its number


class Lanes:
    """The queues, and who takes from them."""

    def __init__(self, runs: dict[int, Run]) -> None:
        self._runs = runs
        self.free: dict[str, Worker] = {}  # workers that would take a run now
        # Those whose connection owes them so much that they are given no more now. It is as live as the
        # connection itself: no fact tells it, and after a restart nobody is connected.
        self.full: set[str] = set()
        self.heaps: dict[str, dict[str, list[tuple[datetime, int, int]]]] = {}  # by on=, by work
        # Lanes, those first that were looked at longest ago.
        self._made: OrderedDict[Lane, None] = OrderedDict()
        self.ready: list[tuple[datetime, int, Lane]] = []
        self.tired: dict[Lane, None] = {}  # whose first is still looked for, behind many that do not count
        self._ready_as: dict[Lane, Place] = {}  # the one entry of each lane in `ready` that counts
        self.leaving: set[int] = set()  # runs that were chosen last, and were sent unless the journal refused
        self.aside: set[int] = set()  # those of them that wait for others to go before them

    def join(self, run: Run) -> None:
        """A run waits for a worker from now on."""
        options, work = run.spec.options, run.spec.work
        place, on = (run.queued_at + HANDICAP[options.prio], run.id), run.target or options.on
        self._stand(run, place, (on, work))
        if ":" in work:
            self._stand(run, place, (on, work.partition(":")[0]))

    def _stand(self, run: Run, place: Place, lane: Lane) -> None:
        works = self.heaps.setdefault(lane[0], {})
        if (heap := works.get(lane[1])) is None:
            heap = works[lane[1]] = []
            self._made[lane] = None
        heappush(heap, (*place, run.attempt))
        is_long = not len(heap) % FEW and len(heap) > FEW + 2 * len(self._runs)
        if is_long and not self._trim(heap):
            heap[:] = [entry for entry in heap if self._stands(entry)]
            heapify(heap)
        if len(self._made) > FEW:
            self._forget_some()
        if self.free and self.first_in(lane) == place:
            self._offer_first(lane, place)

    def _offer_first(self, lane: Lane, place: Place) -> None:
        if any(accepts(worker, lane[1], lane[0]) for worker in self.free_for(lane[0])):
            self._make_ready(lane, place)

    def free_for(self, on: str) -> Iterable[Worker]:
        """The free workers among which are those that on= asks for: one at most, where it is a name."""
        if on == "any" or on.startswith("label:"):
            return self.free.values()
        return (self.free[on],) if on in self.free else ()

    def _trim(self, heap: list[tuple[datetime, int, int]]) -> bool:
        """Takes away some that count no more, where that costs nothing; whether there were any."""
        before = len(heap)
        while heap and before - len(heap) < MAX_STALE and not self._stands(heap[-1]):
            heap.pop()
        while heap and before - len(heap) < MAX_STALE and not self._stands(heap[0]):
            heappop(heap)
        return len(heap) < before

    def go_on(self) -> None:
        """Looks on for the first of a lane."""
        lane, _ = self.tired.popitem()
        if first := self.first_in(lane):
            self._offer_first(lane, first)

    def _forget_some(self) -> None:
        """Lanes that no worker ever asks for are dropped too: two are looked at whenever one may be made."""
        for _ in range(2):
            lane, _ = self._made.popitem(last=False)
            if self.first_in(lane) or lane in self.tired:
                self._made[lane] = None

    def _make_ready(self, lane: Lane, place: Place) -> None:
        if self._ready_as.get(lane) != place:
            self._ready_as[lane] = place
            heappush(self.ready, (*place, lane))

    def _stands(self, entry: tuple[datetime, int, int]) -> bool:
        """Whether an entry of a lane still counts; it stays there when its run was sent or cancelled."""
        _, run_id, attempt = entry
        run = self._runs.get(run_id)
        if run is None or run.state != "queued" or run.attempt != attempt:
            return False
        return run_id not in self.leaving

    def first_in(self, lane: Lane) -> Place | None:
        """The place of the run that has waited longest in a lane; empty lanes are dropped.

        None also while it is behind very many that count no more: then `go_on` finds it.
        """
        on, work = lane
        works = self.heaps.get(on, {})
        heap = works.get(work)
        if heap is None:
            return None
        for _ in range(MAX_STALE):
            if not heap:
                break
            if self._stands(heap[0]):
                return heap[0][:2]
            heappop(heap)
        else:
            self.tired[lane] = None
            return None
        del works[work]
        if not works:
            del self.heaps[on]
        return None

    def next_ready(self) -> tuple[Run, Lane] | None:
        """Of all runs that some free worker would take, the one that goes first; its lane stays ready."""
        while self.ready:
            since_at, run_id, lane = self.ready[0]
            if self._ready_as.get(lane) == (since_at, run_id):
                first = self.first_in(lane)
                if first == (since_at, run_id):
                    return self._runs[run_id], lane
                if first is not None:
                    self._ready_as[lane] = first
                    heapreplace(self.ready, (*first, lane))
                    if self.ready[0][2] is lane:
                        return self._runs[first[1]], lane
                    continue
                del self._ready_as[lane]
            heappop(self.ready)
        return None

    def take_back(self) -> None:
        """Those that were chosen last and still wait do so where they did."""
        if self.leaving:
            leaving, self.leaving = sorted(self.leaving - self.aside), set(self.aside)
            for run_id in leaving:
                if (run := self._runs.get(run_id)) and run.state == "queued":
                    self.join(run)

    def put_off(self, lane: Lane) -> None:
        """Nobody who is free takes the first of this lane: until a worker that would becomes free."""
        del self._ready_as[lane]

    def set_aside(self, run_id: int) -> Callable[[], object]:
        """Lets the others go before one that was chosen; the answer brings it back."""
        self.aside.add(run_id)

        return partial(self.aside.discard, run_id)

    def recount(self, worker: Worker) -> None:
        """Whether a worker would take a run may be otherwise now."""
        if worker.free <= 0 or worker.name in self.full:
            self.free.pop(worker.name, None)
        elif self.free.get(worker.name) is not worker:
            self.free[worker.name] = worker
            self._offer(worker)

    def hold_back(self, worker: Worker, full: bool) -> bool:
        """No more runs for a worker whose connection is full or gone; or some again. Whether that is new."""
        if full == (worker.name in self.full):
            return False
        (self.full.add if full else self.full.discard)(worker.name)
        self.recount(worker)
        return True

    def offer_anew(self, worker: Worker) -> None:
        """It has a new connection, and what it can do or is called may be otherwise too."""
        self.full.discard(worker.name)
        self.free.pop(worker.name, None)
        self.recount(worker)

    def _offer(self, worker: Worker) -> None:
        """It has become free: the lanes it would take a run from are ready."""
        for on in ("any", worker.name, *(f"label:{key}={value}" for key, value in worker.labels.items())):
            if works := self.heaps.get(on):
                for work in works.keys() & worker.can:
                    if first := self.first_in((on, work)):
                        self._make_ready((on, work), first)


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
