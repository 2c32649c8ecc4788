"""What is true now: the tables that facts build, live and after a restart alike.

Rules for this file. `apply` is the only thing that changes a table; it touches and never
refuses, because during replay there is nobody to refuse to. It reads no clock: a fact
brings its time.
A new fact needs three things: a class in facts.py, a case here, a row in
tests/engine/test_state.py. `carry` tells the whole state as facts again; a checkpoint is that.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime, timedelta
from heapq import heappush
from typing import Any

import attrs

from ..schedules.calendars import Calendars
from ..schedules.zones import EPOCH
from ..tasks.reasons import Reason, passed_on, reason, shortened
from ..tasks.targets import EVENTS, OPPOSITE
from ..tasks.task import ENDED, MOVES, Failure, Outcome, Run, Task, TaskSpec, Told, Worker, read_record
from . import beats, carried
from . import facts as f
from .beats import FAR_S
from .changelog import ALL, STEPS, Step, Was, defined, pause_of, read_step, whole
from .ledger import Ledger, judge
from .tables import Tables

# A clock that shows an earlier time has not been set yet, as on a machine without a battery that has
# just started. Nothing is scheduled by it anew, and what it is set forward over was downtime.
OLDEST_TIME = datetime(2026, 1, 1, tzinfo=UTC)
STOP_LEASE = timedelta(seconds=60)  # a KILL that is not answered by then: the run is ended without its worker
BIG_STEP_S = 3 * 3600.0  # a clock set by more: take the new time, and catch nothing up (as Debian's cron)
MAX_OUTPUT_IN_MEMORY = (
    16 * 1024 * 1024
)  # characters, all runs together; older output is read from the journal
MAX_WORKERS_AWAY = 1000
SAVES_KEPT = 2  # the file on disk is one of the last two saves, whenever the power went
WELL = "ok"  # heard of a dependency that ended well; of any other, the reason


class Output:
    """What a run wrote. Not `whole` = memory lost the beginning; the journal has all of it."""

    __slots__ = ("lines", "size", "whole")

    def __init__(self, whole: bool) -> None:
        self.lines: list[tuple[int, str]] = []
        self.size = 0
        self.whole = whole


class State(Tables):
    """All that is true. Read freely; change only through `apply`."""

    def __init__(self, default_tz: str = "UTC", recent_runs: int = 10_000) -> None:
        super().__init__()
        self.default_tz = default_tz
        self.calendars = Calendars()  # what today's files and packages say; facts tell what came of it
        self.next_task, self.next_run = 1, 1
        self.saved: deque[f.TasksSaved] = deque(maxlen=SAVES_KEPT)
        self.totals: dict[str, int] = {}  # fires by disposition, all tasks that ever were
        self.ledger = Ledger()  # the same, and how many were due, by time
        self.tz = ""  # of the daemon that wrote last
        self.started_at: datetime | None = None
        self.last_step_s: float | None = None
        self.last_step_at = _NO_TIME
        self.told_at = EPOCH  # of the newest fact: what the clock, as far as it was set since, showed last
        # Every moment up to here has been decided, also while the clock, set back, shows less again.
        self.decided_upto_at = EPOCH
        # History in memory: the newest outcomes, and the output of runs.
        self.recent_runs = recent_runs
        self.recent: deque[Outcome] = deque()
        self.outcomes: dict[int, list[Outcome]] = {}
        self.outputs: OrderedDict[int, Output] = OrderedDict()
        self.output_size = 0
        self.history_from_seq = 0  # outcomes of records before this one are not in memory

    def apply(self, fact: f.Fact, at: datetime, seq: int = 0) -> None:
        """Makes `fact`, which happened at `at`, true."""
        self.told_at = at
        _APPLY[type(fact)](self, fact, at, seq)

    # --- tasks ---

    def _note(self, fact: f.Asked, at: datetime) -> None:
        """Keeps what a change is about to replace."""
        if fact.change is None:
            return
        self.changes.open(fact.change, at, fact)
        for step in self._steps(fact):
            self.changes.add(step)

    def _steps(self, fact: Any) -> Iterator[Step]:
        if isinstance(fact, f.BulkDecided):
            return
        kind, task = STEPS[fact.__class__], self.tasks.get(fact.id)
        if isinstance(fact, f.TaskAdded | f.TaskRestored):
            yield Step(kind, fact.id, getattr(fact, "rev", 1), None)
        elif isinstance(fact, f.TaskPaused | f.TaskResumed) and task is None:
            was = Was(ALL, 0, None, None, self.paused_all, self.paused_until_at, self.paused_why)
            yield Step(kind, ALL, 0, was)
            if isinstance(fact, f.TaskResumed) and not fact.own_stay:
                lifted = [each for each in self.tasks.values() if each.paused]
                yield from (Step(kind, each.id, each.rev, pause_of(each)) for each in lifted)
        elif task is not None:
            take = {"changed": defined, "removed": whole}.get(kind, pause_of)
            yield Step(kind, task.id, getattr(fact, "rev", task.rev), take(task))

    def _task_added(self, fact: f.TaskAdded, at: datetime, seq: int) -> None:
        task = Task(fact.id, self._spec(fact.record), fact.anchor_at, is_notice=bool(fact.notice))
        if fact.id < self.next_task:
            self._take_back_runs(task)
        self.put(task)
        self.next_task = max(self.next_task, fact.id + 1)
        self.end_jump()
        self.set_due(task, fact.due_at)

    def _take_back_runs(self, task: Task) -> None:
        """A task is brought back that was removed while it ran: what still runs is its own again."""
        task.runs = sorted(run.id for run in self.runs.values() if run.task_id == task.id)

    def _task_restored(self, fact: f.TaskRestored, at: datetime, seq: int) -> None:
        task = self._whole(fact)
        # Copied, because the log still holds what it was made from.
        task.counts, task.failure = dict(fact.counts) if fact.counts else None, fact.failure
        if self.runs:
            self._take_back_runs(task)
        self.put(task)
        self.end_jump()
        self.set_due(task, fact.due_at)

    def _whole(self, fact: f.TaskCarried | f.TaskRestored) -> Task:
        task = Task(fact.id, self._spec(fact.record), fact.anchor_at, fact.rev)
        task.paused, task.paused_until_at = bool(fact.paused), fact.paused_until_at
        task.paused_why, task.fired = fact.paused_why or "", fact.fired or 0
        # Copies: a fact is a value, and nobody changes one after making it.
        task.counts, task.heard = dict(fact.counts or {}) or None, dict(fact.heard or {})
        return task

    def _spec(self, definition: f.Definition) -> TaskSpec:
        if isinstance(definition, TaskSpec):
            return definition
        return read_record(definition, self.default_tz)

    def _task_changed(self, fact: f.TaskChanged, at: datetime, seq: int) -> None:
        task = self.tasks[fact.id]
        self.take_out(task)
        if self.before is not None:
            self.before.setdefault(fact.id, task.spec)
        old, task.spec, task.rev, task.run_head = task.spec, self._spec(fact.record), fact.rev, ""
        if task.spec.options.count != old.options.count:
            task.fired = 0
        decided = task.decided if fact.due_at == task.due_at else 0
        same = (task.spec.schedule.text, task.spec.schedule.tz) == (old.schedule.text, old.schedule.tz)
        waits = same and self.again is not None and self.again.waits(task)
        task.heard = {name: heard for name, heard in task.heard.items() if name in task.spec.options.after}
        if task.name != old.name:
            # They still say the old name; their own facts follow.
            for dependent in self.dependents.get(old.name, ()):
                self._rename_heard(self.tasks[dependent], old.name, task.name)
        self.put(task)
        self.end_jump()
        self.set_due(task, fact.due_at, decided)
        if waits and self.again:
            self.again.done.discard(task.id)

    def _rename_heard(self, dependent: Task, old: str, new: str) -> None:
        if old in dependent.heard:
            how = dependent.heard.pop(old)
            # Two names that change places: rather nothing than what the other one did.
            if dependent.heard.pop(new, None) is None:
                dependent.heard[new] = how

    def _task_rescheduled(self, fact: f.TaskRescheduled, at: datetime, seq: int) -> None:
        self.set_due(self.tasks[fact.id], fact.due_at)

    def _task_removed(self, fact: f.TaskRemoved, at: datetime, seq: int) -> None:
        task = self.tasks.pop(fact.id)
        self.take_out(task)
        self._forget_told(f"task:{fact.id}")

    def _task_paused(self, fact: f.TaskPaused, at: datetime, seq: int) -> None:
        if fact.id is None:
            self.paused_all, self.paused_until_at, self.paused_why = True, fact.until_at, fact.why
            self.give_grace(fact.until_at or at)
        else:
            task = self.tasks[fact.id]
            task.paused, task.paused_until_at, task.paused_why = True, fact.until_at, fact.why

    def _task_resumed(self, fact: f.TaskResumed, at: datetime, seq: int) -> None:
        if fact.id is not None:
            self._lift(self.tasks[fact.id])
            return
        self.paused_all, self.paused_until_at, self.paused_why = False, None, ""
        self.give_grace(at)
        for task in self.tasks.values() if not fact.own_stay else ():
            self._lift(task)

    def _lift(self, task: Task) -> None:
        task.paused, task.paused_until_at, task.paused_why = False, None, ""

    # --- fires and runs ---

    def _fires_passed(self, fact: f.FiresPassed, at: datetime, seq: int) -> None:
        self.decided_upto_at = max(at, self.decided_upto_at)
        outcome = f.outcome_of(fact, at, seq)
        self._remember(outcome)
        self._total(fact.state, fact.count)
        self.ledger.count_due(fact.last_due_at, at, fact.count)
        self.ledger.count_end(fact.state, fact.last_due_at, at, fact.count)
        if task := self.tasks.get(fact.task):
            _count(task, outcome)
            again = fact.next_due_at == fact.last_due_at
            self.set_due(task, fact.next_due_at, task.decided + 1 if again else 0)
            if fact.settles:
                task.heard.clear()
        self._tell_dependents(fact.name, passed_on(fact.state, fact.why))

    def _run_queued(self, fact: f.RunQueued, at: datetime, seq: int) -> None:
        self.ledger.count_due(fact.due_at, at)
        task = self.tasks[fact.task]
        run = Run(fact.run, fact.task, task.spec, fact.due_at, at, fact.by, fact.args)
        run.parked, run.nth, run.target = bool(fact.parked), fact.nth or 1, fact.target or ""
        if fact.not_before_at is not None:
            run.delayed_until_at = run.queued_at = fact.not_before_at
        self._put_run(run)
        self.next_run = max(self.next_run, fact.run + 1)
        task.runs.append(fact.run)
        is_first = len(task.runs) < 2 or self.runs[task.runs[-2]].due_at != fact.due_at or not fact.target
        if fact.by != "manual" and task.spec.options.count and is_first:
            task.fired += 1  # with on=all, once a moment
        if fact.by == "schedule":
            self.decided_upto_at = max(at, self.decided_upto_at)
            again = fact.next_due_at == fact.due_at
            self.set_due(task, fact.next_due_at, run.nth if again else 0)
        run.awaits = bool(fact.awaits)
        if run.awaits:
            self.to_judge[task.id] = None
            return
        # What the clock starts waits for its dependencies when its turn comes; @after has had them.
        if fact.by == "after" or not (run.parked or fact.by == "manual"):
            task.heard.clear()
        if not run.parked:
            self.enqueue(run)

    def _put_run(self, run: Run) -> None:
        self.runs[run.id] = run
        if run.spec.unread:
            self.unread_runs[run.id] = None

    def _run_admitted(self, fact: f.RunAdmitted, at: datetime, seq: int) -> None:
        run = self.runs[fact.run]
        run.awaits = False
        if task := self.tasks.get(run.task_id):
            task.heard.clear()
        self._go_on(run, at)

    def _go_on(self, run: Run, at: datetime) -> None:
        """Nothing of its own task holds it any more."""
        run.queued_at = max(at, run.delayed_until_at or at)
        if run.queued_at == at:
            run.delayed_until_at = None
        self.enqueue(run)

    def _tell_dependents(self, name: str, how: Reason) -> None:
        """A run of a task has ended for good, or a moment of it has passed."""
        for task_id in self.dependents.get(name, ()):
            self.tasks[task_id].heard[name] = how
            self.to_judge[task_id] = None

    def _run_sent(self, fact: f.RunSent, at: datetime, seq: int) -> None:
        run = self.runs[fact.run]
        self._move(run, "sent")
        run.worker, run.sent_at = fact.worker, at
        if worker := self.workers.get(fact.worker):
            run.instance = worker.instance
            worker.runs.add(run.id)
            self.recount(worker)
        self.watch_time(run)

    def _run_unsent(self, fact: f.RunUnsent, at: datetime, seq: int) -> None:
        run = self.runs[fact.run]
        self._move(run, "queued")
        self._take_from_worker(run)
        run.attempt, run.unsent = fact.attempt + 1, run.unsent + 1
        run.worker = run.sent_at = None
        self.enqueue(run)

    def _run_started(self, fact: f.RunStarted, at: datetime, seq: int) -> None:
        run = self.runs[fact.run]
        self._move(run, "running")
        run.started_at = at

    def _output_received(self, fact: f.OutputReceived, at: datetime, seq: int) -> None:
        run = self.runs.get(fact.run)
        output = self.outputs.get(fact.run)
        if output is None:
            output = self.outputs[fact.run] = Output(whole=run is not None and not run.has_output)
        size = sum([len(text) for _, text in fact.lines])
        output.lines += [(fd, text) for fd, text in fact.lines]
        output.size += size
        self.output_size += size
        if run:
            run.has_output = True
            if run.attempt == fact.attempt:
                run.output_bytes += size + (fact.omitted or 0)  # so that nothing follows a gap
        while self.output_size > MAX_OUTPUT_IN_MEMORY or len(self.outputs) > self.recent_runs:
            _, evicted = self.outputs.popitem(last=False)
            self.output_size -= evicted.size

    def _run_stopping(self, fact: f.RunStopping, at: datetime, seq: int) -> None:
        run = self.runs[fact.run]
        run.stopping = fact.why
        self.lease(run, at + STOP_LEASE)

    def _run_ended(self, fact: f.RunEnded, at: datetime, seq: int) -> None:
        run = self.runs[fact.run]
        self._move(run, fact.state)
        self._take_from_worker(run)
        outcome = f.outcome_of(fact, at, seq)
        self._remember(outcome)
        if not fact.final:
            return
        del self.runs[fact.run]
        self._total(fact.state, 1)
        self.ledger.count_end(fact.state, fact.due_at, at)
        if task := self.tasks.get(fact.task):
            task.runs.remove(fact.run)
            if fact.state in ("skipped", "missed") and counts(task, run):
                task.fired = max(0, task.fired - 1)
            _count(task, outcome)
            if fact.state == "skipped":
                task.heard.clear()
            self._unpark(task, at)
            self._tell_of_end(task, run, _how_ended(fact))

    def _tell_of_end(self, task: Task, run: Run, how: Reason) -> None:
        """With on=all, dependents hear of a fire when its last run has ended, and of its first failure."""
        how = run.blame or how
        runs = [self.runs[other] for other in task.runs] if run.target else []
        others = [other for other in runs if other.due_at == run.due_at]
        if not others:
            self._tell_dependents(task.name, how)
        elif how != WELL:
            for other in others:
                other.blame = how

    def _run_retried(self, fact: f.RunRetried, at: datetime, seq: int) -> None:
        run = self.runs[fact.run]
        run.attempt, run.state, run.queued_at = fact.attempt, "queued", fact.not_before_at
        run.worker = run.sent_at = run.started_at = run.lease_until_at = None
        run.lease_renewed = False
        run.output_bytes, run.delayed_until_at = 0, fact.not_before_at
        run.stopping = ""  # that was the attempt before; this one may be stopped again
        heappush(self.delayed, (fact.not_before_at, run.id))

    def _run_released(self, fact: f.RunReleased, at: datetime, seq: int) -> None:
        run = self.runs[fact.run]
        run.delayed_until_at = None
        self._enqueue(run)

    def _move(self, run: Run, state: str) -> None:
        assert state in MOVES[run.state], (run.id, run.state, state)
        run.state = state

    def _unpark(self, task: Task, at: datetime) -> None:
        """Lets what waited for this run to end go on: the next run of its task, or several of one moment."""
        if not task.runs or not all(self.runs[run].parked for run in task.runs):
            return
        first = self.runs[task.runs[0]]
        for run in [self.runs[run] for run in task.runs]:
            if run.due_at != first.due_at:
                return
            run.parked = False
            if run.spec.options.after and run.by not in ("manual", "after"):
                run.awaits = True
                self.to_judge[task.id] = None
            else:
                self._go_on(run, at)

    def _take_from_worker(self, run: Run) -> None:
        run.lease_until_at, run.lease_renewed = None, False
        worker = self.workers.get(run.worker) if run.worker else None
        if worker and run.id in worker.runs:
            worker.runs.remove(run.id)
            self.recount(worker)

    def _total(self, state: str, number: int) -> None:
        assert state in ENDED, state
        self.totals[state] = self.totals.get(state, 0) + number

    def _remember(self, outcome: Outcome) -> None:
        self.recent.append(outcome)
        if outcome.run is not None:
            self.outcomes.setdefault(outcome.run, []).append(outcome)
        while len(self.recent) > self.recent_runs:
            old = self.recent.popleft()
            self.history_from_seq = old.seq + 1
            if old.run is not None:
                self._forget(old, old.run)

    def _forget(self, old: Outcome, run: int) -> None:
        rows = self.outcomes[run]
        rows.remove(old)
        if not rows:
            del self.outcomes[run]

    def _record_unread(self, fact: f.RecordUnread, at: datetime, seq: int) -> None:
        """That it cannot run is a failing like others: it lasts until a run ends well."""
        self.untold.pop(fact.task, None)
        task = self.tasks[fact.task]
        since_at = task.failure.since_at if task.failure else at
        why = shortened(reason("unreadable", text=fact.why))
        task.failure = Failure(since_at, None, "unreadable", task.due_at or at, at, None, why)

    # --- workers ---

    def _worker_joined(self, fact: f.WorkerJoined, at: datetime, seq: int) -> None:
        worker = self.workers.pop(fact.name, None) or carried.new_worker(fact, at)
        worker.slots, worker.labels, worker.can = fact.slots, fact.labels, frozenset(fact.can)
        worker.address, worker.since_at, worker.connected, worker.leaving = fact.address, at, True, False
        worker.instance, worker.connection, worker.is_full = fact.instance or "", fact.connection or 0, False
        self.workers[fact.name] = worker  # to the end: the table's order is "who was heard of last"
        named = {(run, attempt) for run, attempt in fact.running}
        for run in self._held(worker):
            if run.stopping:
                continue
            if (run.id, run.attempt) in named:
                run.lease_until_at, run.lease_renewed = None, False
            elif run.lease_until_at is None:
                self.lease(run, fact.lease_until_at)
        self.offer_anew(worker)
        self._forget_workers()

    def _worker_left(self, fact: f.WorkerLeft, at: datetime, seq: int) -> None:
        self._away(self.workers[fact.name], at, fact.lease_until_at)

    def _away(self, worker: Worker, at: datetime, lease_until_at: datetime) -> None:
        worker.connected, worker.since_at = False, at
        for run in self._held(worker):
            if run.lease_until_at is None:
                self.lease(run, lease_until_at)
        self.recount(worker)

    def _worker_leaving(self, fact: f.WorkerLeaving, at: datetime, seq: int) -> None:
        self.workers[fact.name].leaving = True
        self.recount(self.workers[fact.name])

    def _worker_drained(self, fact: f.WorkerDrained, at: datetime, seq: int) -> None:
        self.workers[fact.name].draining = fact.draining
        self.recount(self.workers[fact.name])

    def _held(self, worker: Worker) -> list[Run]:
        return [self.runs[run] for run in sorted(worker.runs)]

    def _forget_workers(self) -> None:
        away = [w.name for w in self.workers.values() if not (w.connected or w.runs or w.draining)]
        for name in away[: max(0, len(away) - MAX_WORKERS_AWAY)]:
            del self.workers[name]
            self._forget_told(f"worker:{name}")

    # --- what is told to whom ---

    def _notice_given(self, fact: f.NoticeGiven, at: datetime, seq: int) -> None:
        self.told[fact.about, fact.event] = Told(fact.since_at, fact.given, fact.withheld)
        for event in OPPOSITE.get(fact.event, ()) if fact.turns else ():
            if told := self.told.get((fact.about, event)):
                self.told[fact.about, event] = attrs.evolve(told, given=0)

    def _expectation_forgotten(self, fact: f.ExpectationForgotten, at: datetime, seq: int) -> None:
        super()._expectation_forgotten(fact, at, seq)
        self._forget_told(f"expectation:{fact.name}")

    def _forget_told(self, about: str) -> None:
        if self.told:
            for event in EVENTS:
                self.told.pop((about, event), None)

    # --- the daemon ---

    def _daemon_started(self, fact: f.DaemonStarted, at: datetime, seq: int) -> None:
        self.tz, self.started_at = fact.tz, at
        self.untold = dict(self.unread)
        self.give_grace(self._beats_from(at))
        for worker in self.workers.values():
            if worker.connected:
                self._away(worker, at, fact.lease_until_at)
        for run in self.runs.values():
            # The clock stood still while no daemon ran: nobody loses a lease he could not renew. Once
            # only, or many starts would keep the slot of a run that nobody has taken for ever.
            if run.lease_until_at is not None and not run.lease_renewed:
                self.lease(run, max(run.lease_until_at, fact.lease_until_at))
                run.lease_renewed = True

    def _beats_from(self, at: datetime) -> datetime:
        paused_until_at = self.paused_until_at if self.paused_all else None
        return max(at, paused_until_at) if paused_until_at else at

    def _clock_stepped(self, fact: f.ClockStepped, at: datetime, seq: int) -> None:
        """Durations stay what they are: what was to last 30 s lasts 30 s, whatever the clock shows then."""
        self.last_step_s, self.last_step_at = fact.by_s, at
        if fact.by_s < -BIG_STEP_S:
            self.decided_upto_at, self.jumped_upto_at = at, None
        elif fact.by_s > BIG_STEP_S and at - timedelta(seconds=fact.by_s) >= OLDEST_TIME:
            self.jumped_upto_at, self.jumped_by_s = at, fact.by_s
        by = timedelta(seconds=fact.by_s)
        for run in self.runs.values():
            for name in _MEASURED:
                if (moment_at := getattr(run, name)) is not None:
                    setattr(run, name, moment_at + by)
        self._step_beats(by)
        if fact.by_s > FAR_S:
            self.give_grace(self._beats_from(at))
        else:
            self.give_grace(self._beats_from(self.beats_from_at + by))
        self.step_waits(by)

    def _tasks_saved(self, fact: f.TasksSaved, at: datetime, seq: int) -> None:
        self.saved.append(fact)

    def _checkpoint_written(self, fact: f.CheckpointWritten, at: datetime, seq: int) -> None:
        pass

    # --- checkpoints ---

    def carry(self) -> Iterator[f.Fact]:
        """The whole state as facts; applied to an empty State they give this one again."""
        yield f.StateCarried(
            self.next_task, self.next_run, self.paused_all, self.paused_until_at, self.paused_why, self.tz,
            list(self.saved), dict(self.totals),
            self.last_step_s, self.last_step_at, self.beats_from_at, self.decided_upto_at,
            self.jumped_upto_at, self.jumped_by_s if self.jumped_upto_at else None,
        )  # fmt: skip
        yield f.LedgerCarried(self.ledger.carry())
        for task in self.tasks.values():
            yield from carried.of_task(task)
        yield from map(carried.of_worker, self.workers.values())
        yield from map(beats.carried, self.expected.values())
        for (about, event), told in self.told.items():
            yield f.NoticeGiven(about, event, told.since_at, told.given, told.withheld)
        for run_id in sorted(self.runs):
            yield carried.of_run(self.runs[run_id])
        yield from self.carry_bulk()
        yield from self.changes.carry()
        if again := self.again:
            done = sorted(again.done) or None
            yield f.RescheduleBegun(again.from_at, again.zoneless or None, again.upto or None, done)

    def _state_carried(self, fact: f.StateCarried, at: datetime, seq: int) -> None:
        self.next_task, self.next_run, self.tz = fact.next_task, fact.next_run, fact.tz
        self.paused_all, self.paused_until_at = fact.paused_all, fact.paused_until_at
        self.paused_why, self.totals = fact.paused_why, dict(fact.totals)
        self.saved.extend(fact.saved)
        self.last_step_s, self.last_step_at = fact.last_step_s, fact.last_step_at
        self.give_grace(fact.beats_from_at or self.beats_from_at)
        self.decided_upto_at = fact.decided_upto_at or at
        self.jumped_upto_at, self.jumped_by_s = fact.jumped_upto_at, fact.jumped_by_s or 0.0
        self.history_from_seq = seq
        self.ledger.take_totals(fact.totals, at)

    def _ledger_carried(self, fact: f.LedgerCarried, at: datetime, seq: int) -> None:
        self.ledger.take(fact.rows)

    def _failure_carried(self, fact: f.FailureCarried, at: datetime, seq: int) -> None:
        self.tasks[fact.task].failure = Failure(
            fact.since_at, fact.run, fact.state, fact.due_at, fact.ended_at, fact.exit, fact.why
        )

    def _task_carried(self, fact: f.TaskCarried, at: datetime, seq: int) -> None:
        task = self._whole(fact)
        task.is_notice = bool(fact.notice)
        self.put(task)
        self.set_due(task, fact.due_at, fact.decided or 0)

    def _worker_carried(self, fact: f.WorkerCarried, at: datetime, seq: int) -> None:
        self.workers[fact.name] = carried.take_worker(fact)

    def _run_carried(self, fact: f.RunCarried, at: datetime, seq: int) -> None:
        task = self.tasks.get(fact.task)
        run = carried.take_run(fact, self._spec(fact.record))
        self._put_run(run)
        self.ledger.take_run(run, at)
        if task:
            task.runs.append(run.id)
            task.runs.sort()
        if run.state != "queued":
            self._index_held(run)
        elif not (run.parked or run.awaits):
            self.enqueue(run)

    def _index_held(self, run: Run) -> None:
        assert run.worker is not None
        assert run.sent_at is not None
        if worker := self.workers.get(run.worker):
            worker.runs.add(run.id)
        if run.lease_until_at is not None:
            heappush(self.leases, (run.lease_until_at, run.id))
        self.watch_time(run)

    def _change_carried(self, fact: f.ChangeCarried, at: datetime, seq: int) -> None:
        self.changes.open(fact.change, fact.made_at, fact)

    def _step_carried(self, fact: f.StepCarried, at: datetime, seq: int) -> None:
        self.changes.add(read_step(fact))

    def _is_of_today(self, run: Run) -> bool:
        """Whether its task is there, and was not changed since it was queued."""
        task = self.tasks.get(run.task_id)
        return task is not None and task.spec is run.spec

    def parse_again(self) -> Generator[None, None, None]:
        """Reads every definition with today's zone data; facts hold texts, so no fact is needed for that."""
        for task in list(self.tasks.values()):
            yield
            if self.tasks.get(task.id) is not task:
                continue
            old, new = task.spec, self._spec(task.spec.record)
            if old.unread or new.unread:
                self.take_out(task)
                task.spec = new
                self.put(task)  # with all that may be read of it now, or no longer
            task.spec, task.run_head = new, ""
            for run in [self.runs[number] for number in task.runs]:
                if run.spec is old:
                    run.spec = new
                    self._put_run(run)
        for run in list(self.runs.values()):
            yield
            if run.id in self.runs and not self._is_of_today(run):
                run.spec = self._spec(run.spec.record)
                self._put_run(run)
        yield from self.changes.forget_parsed()


def _how_ended(fact: f.RunEnded) -> Reason:
    """What dependents hear of a run that has ended for good."""
    if fact.state == "skipped":
        return passed_on(fact.state, fact.why or "", fact.run)
    return WELL if fact.state == "ok" else reason("ended", run=fact.run, state=fact.state)


def counts(task: Task, run: Run) -> bool:
    """Whether a run is one of those that count= counts, unless it is skipped or missed."""
    # One that was queued before count= was set does not: it was not counted then. With on=all a moment
    # counts once, and is not given back.
    return run.by != "manual" and not run.target and 0 < run.spec.options.count == task.spec.options.count


def _count(task: Task, outcome: Outcome) -> None:
    """One more fire of a task has ended, or several have passed."""
    counts = task.counts = task.counts or {}
    counts[outcome.state] = counts.get(outcome.state, 0) + outcome.count
    task.failure = judge(task.failure, outcome)


_NO_TIME: datetime | None = None
# From these something is counted, so a step of the clock moves them; `due_at` is a name and stays.
_MEASURED = ("queued_at", "delayed_until_at", "sent_at", "started_at", "lease_until_at")


Applier = Callable[[State, Any, datetime, int], None]


def _method(kind: type[f.Fact]) -> Applier:
    name = "".join(f"_{char.lower()}" if char.isupper() else char for char in kind.__name__)
    method: Applier = getattr(State, name)
    if not issubclass(kind, f.Asked):
        return method

    def note_first(state: State, fact: Any, at: datetime, seq: int) -> None:
        state._note(fact, at)
        method(state, fact, at, seq)

    return note_first


_APPLY: dict[type[f.Fact], Applier] = {kind: _method(kind) for kind in f.KINDS}
