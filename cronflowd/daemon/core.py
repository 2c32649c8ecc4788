"""The loop: takes an order, asks the engine, journals, applies, and lets messages go.

`submit` is the only way in, for clients, workers and what is due alike, and it never
awaits: decide, append, apply happen in one piece, so nobody sees half a decision. What
is to be sent is queued together with the journal's sequence number it depends on, and
the gate lets it leave when that number is on disk.

One task, the heart (`run`), decides what is due. Connections submit what they have read and
wake it; its next beat decides what has become due meanwhile, gives each worker's lines to its
writer, and starts one commit for all that was appended since the last one.

A journal that cannot take a decision (disk full) refuses before anything is applied: the
client gets the refusal, and what is due stays due and is tried again. A fact that was
appended and cannot be applied is the end at once: it is never committed.
"""

from __future__ import annotations

import gc
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import count, islice
from threading import get_ident
from time import perf_counter
from typing import Any, Protocol

import trio

from ..base.errors import Exit, Fatal, Refusal
from ..engine import facts as f
from ..engine.engine import Engine
from ..engine.once import Asked
from ..engine.orders import BulkSlice, NoticeStep, UnsendRuns
from ..engine.rules import Decision, Limits
from ..engine.runs import held_run, unwanted, was_taken_since
from ..engine.state import State
from ..host import resources
from ..host.clock import STEP_S, Clock
from ..host.config import Settings
from ..journal.journal import FileJournal
from ..net.outbox import Gate
from ..net.poller import Poller, here
from ..net.rivals import Rivals
from ..net.workers import Link, order_in
from .access import Admission

log = logging.getLogger("cronflowd.core")

STEPS_PER_BEAT = 500  # decisions about what is due, before connections get their turn again
LOOK_EVERY = 16  # beats, between two looks for garbage
BEAT_S = 0.005  # the same in time; what is asserted is the number
PASSES_FOR_OTHERS = 20  # between two slices: in each a hundred of those who watch are told what there is
SLICES_AHEAD = 2  # of large changes that are on their way to the disk: replies wait behind them
RETRY_S = 1.0  # what the journal refused is tried again so much later
NO_ROOM = ("disk-full", "busy")
MAX_DROPPED = 1000  # runs whose output was dropped, before those that have ended are looked for
MAX_REFUSED = 1000  # that are known to have been told of
MAX_BESIDE = 1000  # runs of one worker that are its own no more: what a HELLO can name is without end
ASIDE_S = 10.0  # and what a rule refused
IN_A_ROW = 3  # refusals of the journal, after which it is not asked again before that


class Feed(Protocol):
    """Somebody who wants to know what happens, as it happens."""

    def see(self, fact: f.Fact, at: datetime, seq: int) -> None: ...


class Core:
    """One engine, one journal, and everybody who is connected to them."""

    tokens: tuple[bytes, ...] = ()  # any of them lets in over TCP; none are asked for if there are none
    asks_tcp = False  # whoever comes over TCP has to say who it is, also where there is no token
    asks_local = False  # whoever comes over the unix socket has to, too
    own_uids = frozenset({0})  # this machine's users who need no account there

    def __init__(
        self,
        state: State,
        journal: FileJournal,
        clock: Clock,
        limits: Limits,
        settings: Settings | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.state = state
        state.tasks.home = _in_this_thread()
        self.engine = Engine(state, limits)
        self.journal = journal
        self.clock = clock
        self.use_gate(Gate(journal.last))
        self.last_seq = journal.last
        self._is_amid = False  # there was more to decide than one beat should
        self._beats = 0
        self._beaten = 0  # up to which records were decided when the heart last beat
        self.admission = Admission(self)
        self.epoch = 0  # in which this node of a cluster leads
        self.certificate_until_at: datetime | None = None  # where TLS is spoken
        self.links: dict[str, Link] = {}
        # Of workers' connections: no two of this process have the same.
        self.numbers: Iterator[int] = count(1)
        self.rivals = Rivals()
        # Characters of output that are still to be told of, by run and attempt of which any were.
        self.dropped: dict[tuple[int, int], int] = {}
        self.feeds: list[Feed] = []
        self.holds: Callable[[str, str], bool] | None = None  # whether a line to a worker is sent later
        self.on_pass: Callable[[], object] = lambda: None  # called once a pass: feeds the watchdog
        self.before_fires: Callable[[], object] = lambda: None  # before moments that have come are decided
        self._touched: list[Link] = []
        self._waiters: list[tuple[int, int, trio.Event]] = []  # a heap by sequence number
        self._insisted: list[Any] = []
        # A heap: when what was refused comes back, and how.
        self._aside: list[tuple[float, int, Callable[[], object]]] = []
        self._refused: set[str] = set()  # what was told to be, until nothing is any more
        self._more = trio.Event()
        self.sliced = trio.Event()  # one more slice of what concerns very many tasks was taken
        self._armed: datetime | None = None
        self._timer = trio.CancelScope()
        self._complained = False
        self._is_stopping = False
        self._parted = trio.Event()
        self._waits_for_disk = False
        self._waits_for_moments = False
        self._has_read_some = False
        self._slices = deque([0] * SLICES_AHEAD, SLICES_AHEAD)  # up to which records the newest ones went
        self._passes = 0  # since the newest of them, in which others were owed something
        self._poller: Poller | None = None
        self._broken: Exception | None = None  # what a beat of the poller's met
        self._mark = (clock.now(), clock.steady_s())  # both clocks at the last look

    def use_gate(self, gate: Gate) -> None:
        """What is sent waits for this one, and the heart sees to it."""
        self.gate, gate.wake = gate, self.wake

    @property
    def limits(self) -> Limits:
        """They may change with HUP."""
        return self.engine.limits

    def output_of(self, worker: str, run: int, attempt: int) -> int | None:
        """Characters of output that are kept of an attempt; None where that worker does not hold it."""
        if held := held_run(self.state, worker, run, attempt):
            return held.output_bytes + self.dropped.get((run, attempt), 0)
        return 0 if was_taken_since(self.state, run, attempt) else None

    def drop_output(self, worker: str, run: int, size: int) -> bool:
        """So much that has come of a run's output could not be kept, and is not wanted again.

        True: it is the first of this attempt.
        """
        if not ((held := self.state.runs.get(run)) and held.worker == worker):
            return False
        if len(self.dropped) >= MAX_DROPPED:
            runs = self.state.runs
            self.dropped = {key: number for key, number in self.dropped.items() if key[0] in runs}
        is_first = (run, held.attempt) not in self.dropped
        self.dropped[run, held.attempt] = size
        return is_first

    def take_dropped(self, worker: str, run: int) -> int:
        """How much that was; it is told now."""
        held = self.state.runs.get(run)
        if held is None or held.worker != worker or not (size := self.dropped.get((run, held.attempt), 0)):
            return 0
        self.dropped[run, held.attempt] = 0
        return size

    def now(self) -> datetime:
        """The wall clock, as the core's one clock reads it."""
        return self.clock.now()

    def submit(
        self, order: Any, who: str | None = None, now: datetime | None = None, once: Asked | None = None
    ) -> Decision:
        """Decides and applies one order; `who` gave it. Raises Refusal, and then nothing has changed.

        `now` is what `look` gave to whoever has several orders.
        """
        if now is None:
            now = self.look()
        if once and (known := self.state.once.find(once, now)):
            return Decision(reply=known)
        decision = self.engine.decide(order, now, who)
        if once and decision.reply:
            decision.facts.append(self.state.once.keep(once, decision.reply, now))
        if facts := decision.facts:
            last = self.journal.append(facts, now)
            seq = self.last_seq
            try:
                for fact in facts:
                    seq += 1
                    if self.feeds:
                        self._show(fact, now, seq)
                    self.state.apply(fact, now, seq)
                assert seq == last
            except Exception as error:
                # Half of it is true now, and nobody may be told of any of it.
                fatal = Fatal(Exit.BUG, f"{type(order).__name__} could not be applied: {error!r}")
                self.journal.abandon(fatal)
                raise fatal from error
            self.last_seq = last
        if decision.warning:
            log.warning("%s", decision.warning)
        for worker, line in decision.messages:
            if self.holds is None or not self.holds(worker, line):
                self.send(worker, line)
        return decision

    def send(self, worker: str, line: str) -> None:
        """Gives a worker's connection a line, and the worker no more runs while that owes it much."""
        link = self.links.get(worker)
        if link is None:
            # It has just gone, or the word that it has waits for the disk.
            self.hold_back(worker)
            if order := order_in(line):
                self.insist(UnsendRuns(worker, (order,)))
            return
        if link.beside and (order := order_in(line)) and order in link.beside:
            # It has an attempt of that name already, and would pass this one over: it takes the next one.
            self.insist(UnsendRuns(worker, (order,)))
            return
        if link.send(line):
            link.is_held_back = True  # until all of it has left
            self.hold_back(worker)

    def hold_back(self, worker: str, full: bool = True) -> None:
        """No more runs for a worker whose connection is full or gone; or, `full` False, some again."""
        full, found = full or self._is_stopping, self.state.workers.get(worker)
        if found and self.state.lanes.hold_back(found, full) and not full:
            self.wake()

    def count_beside(self, worker: str, named: Iterable[tuple[int, int]]) -> set[tuple[int, int]]:
        """What a worker goes on with that is its own no more takes its slots as well; the answer is that."""
        found = self.state.workers[worker]
        own = {(run.id, run.attempt) for run in self.state.held(found)}
        # First those with the number of a run here, as of another daemon or after a restore: see `send`.
        named = sorted(named, key=lambda each: each[0] not in self.state.runs)
        # What is told to end has ended in a moment.
        others = (each for each in named if each not in own and not unwanted(self.state, *each))
        found.beside = set(islice(others, MAX_BESIDE))
        self.state.lanes.recount(found)
        return found.beside

    def end_beside(self, worker: str, run: int, attempt: int) -> None:
        """It has told the end of such a one."""
        found = self.state.workers.get(worker)
        if found and (run, attempt) in found.beside:
            found.beside.remove((run, attempt))
            self.state.lanes.recount(found)

    def _show(self, fact: f.Fact, at: datetime, seq: int) -> None:
        """Tells the feeds; one that fails loses its place, because the fact stands in the journal already."""
        for feed in list(self.feeds):
            try:
                feed.see(fact, at, seq)
            except Exception:
                log.exception("a watcher could not be told")
                self.feeds.remove(feed)

    def insist(self, order: Any) -> None:
        """Submits what cannot be taken back, now or as soon as the journal has room again."""
        self._insisted.append(order)
        self.wake()

    def beat(self) -> None:
        """Decides what is due by now, then starts one commit for all that was decided."""
        self.gate.let_some()
        self._decide_and_commit()
        self._beats += 1
        if self._beats % LOOK_EVERY == 0 and gc.isenabled():
            # By itself it waits for so many more than are freed meanwhile, and then looks at all of them.
            gc.collect(1)

    def _decide_and_commit(self) -> None:
        self._is_amid = self._decide_due()
        if self._is_amid or self.gate.owes_some:
            self.wake()
        self._commit()

    def _commit(self) -> None:
        for link in self._touched:
            link.flush(self.last_seq)
        self._touched.clear()
        self.journal.flush()
        self._beaten = self.last_seq
        if self._is_stopping and not (self.links or self._insisted):
            self._parted.set()

    def touch(self, link: Link) -> None:
        """This link has lines to send at the end of the batch."""
        self._touched.append(link)

    def committed(self, seq: int) -> None:
        """The journal is on disk up to `seq`; called in the trio thread."""
        self.gate.open(seq)
        if self._waits_for_disk or self.gate.owes_some:
            self._waits_for_disk = False
            self._more.set()
        while self._waiters and self._waiters[0][0] <= seq:
            heappop(self._waiters)[2].set()

    async def settled(self, seq: int) -> None:
        """Waits until the journal is on disk up to `seq`."""
        if seq > self.gate.committed:
            event = trio.Event()
            heappush(self._waiters, (seq, id(event), event))
            self.journal.flush()
            await event.wait()

    async def run(self) -> None:
        """Decides what comes due, until cancelled."""
        self._poller = here()
        self._poller.after_round = self._end_round
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_clock)
            nursery.start_soon(self.admission.run)
            while True:
                self._more = trio.Event()
                if self._broken:
                    raise self._broken
                self.beat()
                if not self.engine.is_jumping(self._mark[0]) and self.take_slice():
                    self.wake()
                self.on_pass()
                await self._more.wait()  # the others' turn, also where it was woken meanwhile

    def take_slice(self) -> bool:
        """One small part of what concerns very many tasks; False when nothing is left, or it has to wait."""
        if self.gate.is_crowded and self._passes < PASSES_FOR_OTHERS:
            self._passes += 1
            return False  # the next pass asks again: whoever watches has to see what there is
        if self._slices[0] > self.gate.committed:
            self._waits_for_disk = True  # `committed` goes on
            return False
        now = self.look()
        if (order := self.engine.next_slice(now)) is None:
            # Neither is waited for by anybody, as the moments are that have come.
            self._waits_for_moments = self.is_behind(now)
            is_more = self.state.changes.let_go()  # also where it never comes to an end of what is due
            return not self._waits_for_moments and (self._read_some() or is_more)
        try:
            self.submit(order, now=now)
        except Refusal as refusal:
            if refusal.code == "too-long" and isinstance(order, BulkSlice):
                for task_id in self.engine.slices.try_singly(order):
                    log.error("task %d stays as it was: %s", task_id, refusal)  # noqa: TRY400  # no bug
                return True
            self._complain(refusal)
            again_at = now + timedelta(seconds=RETRY_S)
            self._arm(min(self._armed or again_at, again_at))
            return False
        self._slices.append(self.last_seq)
        self._passes = 0
        gc.freeze()  # what very many tasks are made of is no garbage, and looking at all of it takes long
        self.sliced.set()
        self.sliced = trio.Event()
        return True

    def end_batch(self) -> None:
        """Has the heart beat if anything was decided since it last did: a question changes nothing."""
        if (self._touched or self.last_seq > self._beaten) and not (
            self._poller and self._poller.is_in_round  # whose end is near
        ):
            self._more.set()

    def _end_round(self) -> None:
        """The same for all that one round of connections has decided, without a turn of another task."""
        if self._touched or self.last_seq > self._beaten:
            try:
                # Amid what is due one beat a pass is enough, and the next one has been called.
                self._commit() if self._is_amid else self._decide_and_commit()
            except Exception as error:  # noqa: BLE001 - it ends `run`, which ends the process as it should
                self._broken = error
                self.wake()

    def _read_some(self) -> bool:
        """Reads a few of the tasks that a checkpoint told of, before they are needed; False if all are."""
        if some := self.state.tasks.make_some():
            gc.freeze()
        elif self._has_read_some:
            self.state.moments.clear()
            resources.give_back()  # what they were read from
        self._has_read_some = some
        return some

    def wake(self) -> None:
        """Has the heart beat: something was submitted, or may be due."""
        self._more.set()

    def stop_deciding(self) -> None:
        """Nothing begins any more; orders and reports are still taken."""
        self._is_stopping = True
        for worker in self.state.workers:
            self.hold_back(worker)
        self.wake()

    async def parted(self) -> None:
        """After `stop_deciding`: waits until no worker is connected, and that is on disk."""
        await self._parted.wait()
        await self.settled(self.last_seq)

    def is_behind(self, now: datetime) -> bool:
        """Whether moments have come by now that are still to be decided."""
        due = self.state.due.first()
        return due is not None and due[0] <= now

    def _decide_due(self) -> bool:
        """Takes the steps that are due; True when there are more than one beat should take."""
        # One time for all: a step that was due must not be taken at another time than it was due at.
        now = self.look()
        state = self.state
        while self._aside and self._aside[0][0] <= self._mark[1]:
            heappop(self._aside)[2]()
        if state.to_judge or state.news or state.emitted or self.is_behind(now):
            self.before_fires()
        try:
            # What cannot be taken back goes first, but does not keep what is due from being tried.
            waits = self._take_insisted(now)
            if not (self._is_stopping or self._take_steps(now)):
                return True
        except Refusal as refusal:
            waits = refusal
        if waits:
            self._complain(waits)
            self._arm(now + timedelta(seconds=RETRY_S))
        else:
            self._complained = False
            self._arm(None if self._is_stopping else self._next_look(now))
            if self._waits_for_moments and not self._is_stopping:
                self._waits_for_moments = False  # a round of connections may have decided them, and no beat
                self.wake()
        return False

    def _take_steps(self, now: datetime) -> bool:
        """Takes what is due; False when there is more. Raises Refusal when the journal takes nothing.

        Nothing that is refused may stop the others: it is set aside, and tried again later.
        """
        until, in_a_row = perf_counter() + BEAT_S, 0
        for _ in range(STEPS_PER_BEAT):
            if (step := self.engine.next_step(now)) is None:
                if not self._aside:
                    self._refused.clear()
                return True
            try:
                self.submit(step, now=now)
                in_a_row = 0
            except Refusal as refusal:
                is_full = refusal.code in NO_ROOM
                self._set_aside(step, refusal, RETRY_S if is_full else ASIDE_S)
                in_a_row += is_full
                if in_a_row == IN_A_ROW:
                    raise
            if perf_counter() > until:
                return False
        return False

    def _set_aside(self, step: Any, refusal: Refusal, for_s: float) -> None:
        if (back := self.engine.set_aside(step)) is None:
            return
        if (what := repr(step)) not in self._refused and len(self._refused) < MAX_REFUSED:
            self._refused.add(what)
            log.error("%s cannot be decided, and is tried again every %g s: %s", what, for_s, refusal)
        heappush(self._aside, (self._mark[1] + for_s, id(back), back))

    def _next_look(self, now: datetime) -> datetime | None:
        """When something is due again, or is tried again."""
        times = [due] if (due := self.engine.next_due()) else []
        if self._aside:
            times.append(now + timedelta(seconds=self._aside[0][0] - self._mark[1]))
        return min(times, default=None)

    def _take_insisted(self, now: datetime) -> Refusal | None:
        """Submits what is insisted on, in order; why some of it has to wait, though not what is behind it."""
        orders, self._insisted = self._insisted, []
        waits = None
        for at, order in enumerate(orders):
            try:
                self.submit(order, now=now)
            except Refusal as refusal:
                waits = refusal
                self._insisted.append(order)
                if isinstance(order, NoticeStep):  # by which time the rest is to be decided
                    self._insisted += orders[at + 1 :]
                    raise
        return waits

    def _complain(self, refusal: Refusal) -> None:
        if not self._complained:
            log.error("what is due has to wait: %s", refusal)
        self._complained = True

    def _arm(self, at: datetime | None) -> None:
        if at != self._armed:
            self._armed = at
            self._timer.cancel()

    async def _watch_clock(self) -> None:
        """Sleeps until the next moment; wakes the loop then, and when the clock was set."""
        while True:
            with trio.CancelScope() as self._timer:
                await self.clock.wait_until(self._armed)
                self._armed = None
            if not self._timer.cancelled_caught:
                self._more.set()
                await trio.lowlevel.checkpoint()

    # --- the clock ---

    def look(self) -> datetime:
        """The wall clock, to decide by: once for all that came together.

        If it was set, that is journaled before anything else is decided.
        """
        mark = self._mark
        by_s = self._moved_since(mark)
        # Twice, because the process may have stood still between the readings of the two clocks.
        if abs(by_s) >= STEP_S and abs(by_s := self._moved_since(mark)) >= STEP_S:
            self._notice_step(by_s)
        return self._mark[0]

    def look_anew(self) -> None:
        """What happened up to now was somebody else's to notice, the clock's steps too."""
        self._moved_since(self._mark)
        self._insisted.clear()

    def _moved_since(self, mark: tuple[datetime, float]) -> float:
        """Marks both clocks anew; by how much one was set since then. A suspend moves both alike."""
        self._mark = now, steady_s = self.clock.now(), self.clock.steady_s()
        return (now - mark[0]).total_seconds() - (steady_s - mark[1])

    def _notice_step(self, by_s: float) -> None:
        log.warning("the clock was set by %+.3f s", by_s)
        step = NoticeStep(round(by_s, 3))
        try:
            self.submit(step, now=self._mark[0])
        except Refusal:  # as everything that is due, it has to wait for the journal
            self.insist(step)


def _in_this_thread() -> Callable[[Callable[[], None]], None]:
    """Calls a function in this thread, from whichever one: tables are changed nowhere else."""
    here = get_ident()

    def call(function: Callable[[], None]) -> None:
        function() if get_ident() == here else trio.from_thread.run_sync(function)

    return call
