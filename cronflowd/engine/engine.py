"""The scheduler's mind: what is due, who runs it, what became of it.

Rules for this file. No clock, socket or file: time comes in as `now`. `decide` looks and
never touches: it answers an order with a `Decision`, that is the facts to journal, the
client's reply and the messages for workers. `State.apply` makes the facts true. Refusals
are raised before any fact exists. `next_step` names the next thing that is due inside,
until None, so one decision is always one small step; `next_due` says when to ask again.

The order outside is: decide, append, apply, commit, send; nothing is awaited before the
commit has been asked for, and nothing leaves before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from ..base.errors import Refusal
from ..base.replies import Reply
from ..base.text import escape, format_option, format_time
from ..tasks.options import DEFAULTS
from ..tasks.reasons import Reason, in_words, reason
from ..tasks.task import Run, TaskSpec
from . import expectations, notices
from . import facts as f
from . import orders as o
from .definitions import DEFINE, Limits, saved_fact
from .dependencies import next_judgement
from .fires import (
    NO_WORKER,
    Decision,
    admit,
    after_end,
    come,
    draw,
    ended,
    ended_waiting,
    fire_now,
    next_unread,
    out_of_bounds,
    overlap,
    remark,
    reopened,
    stop,
    targets_of,
)
from .placement import choose
from .slices import SLICES, Slices
from .state import BIG_STEP_S, OLDEST_TIME, State
from .undo import sign
from .unfinished import Again

MAX_SLEW_S = 1.0  # a clock that is behind the journal by more was set back
MAX_RERUNS = 10  # of a run with lost=rerun, beyond retry=
LONGEST_RERUN_S = 300.0  # between two of them; the first comes at once, then 1 s, 2 s, 4 s, …
FIRES_AHEAD = 200  # moments that are decided before the first of them is placed
MAX_TAIL = 100  # lines of a LOG that are searched for a late report before it is told again


class Engine(Slices):
    """Decides. Its only state is `State`, which it reads."""

    def __init__(self, state: State, limits: Limits | None = None) -> None:
        super().__init__(state, limits)
        self.apply = state.apply
        self._fired = 0  # tasks whose moment was decided since runs were last placed

    def decide(self, order: Any, now: datetime, who: str | None = None) -> Decision:
        """What `order` leads to at `now`, if `who` gives it. Raises Refusal, and then nothing happened."""
        self.check_free(order)
        decision = _DECIDE[type(order)](self, order, now)
        sign(self.state, order, decision, who)
        if decision.facts:
            decision.facts += notices.tell(self.state, self.limits, decision.facts, now)
        return decision

    # --- runs, as clients see them ---

    def _run(self, order: o.RunTask, now: datetime) -> Decision:
        task = self._find(order.ref)
        if task.spec.unread:
            what = f'"{task.name}" never runs: {in_words(task.spec.unread.reason)}'
            raise Refusal("bad-line", f"{what}; SET mends it")
        found = overlap(self.state, task)
        if not isinstance(found, tuple):
            raise Refusal("busy", f"{in_words(found)} (overlap={task.spec.options.overlap})")
        parked, before, messages = found
        if not (targets := targets_of(self.state, task.spec, now)):
            raise Refusal("busy", in_words(NO_WORKER))
        first, args = self.state.next_run, order.args or None
        before += [
            f.RunQueued(run, task.id, now, "manual", None, args, parked, target=target)
            for run, target in enumerate(targets, first)
        ]
        more = {"runs": [first + n for n in range(len(targets))]} if task.spec.options.on == "all" else {}
        return Decision(before, Reply(str(first), {"run": first} | more), messages)

    def _cancel(self, order: o.CancelRun, now: datetime) -> Decision:
        run = self.state.runs.get(order.run)
        if run is None:
            known = order.run < self.state.next_run
            raise Refusal(
                "not-found", f"run {order.run} has ended already" if known else f"no run {order.run}"
            )
        facts, messages = stop(run, "cancelled", reason("cancelled"))
        reply = Reply(f"{run.id} cancelled", {"run": run.id, "cancelled": True})
        return Decision(facts + after_end(self.state, run, facts), reply, messages)

    # --- placing ---

    def _place(self, order: o.PlaceRun, now: datetime) -> Decision:
        run = self.state.runs[order.run]
        sent = f.RunSent(run.id, run.attempt, order.worker)
        return Decision([sent], None, [(order.worker, self._run_line(run))])

    def _run_line(self, run: Run) -> str:
        # Every order passes here. What is not known for sure is not done at all, least of all by a shell.
        if run.spec.unread:
            raise AssertionError(f"run {run.id} of a record that cannot be read was to be sent")
        # Most of the line is the same at every run of a task, and is kept with the task.
        task = self.state.tasks.get(run.task_id)
        head = task.run_head if task and task.spec is run.spec else ""
        if not head:
            head = _run_head(run.task_id, run.spec)
            if task and task.spec is run.spec:
                task.run_head = head
        due = format_time(run.due_at)
        fire = f"{run.task_id}/{due}"
        if run.nth > 1:
            fire += f"#{run.nth}"  # a clock change brought several moments to this one
        if run.target:
            fire += f"@{run.target}"
        if run.by in ("manual", "after"):
            fire += f"/{run.id}"  # no moment names them: two may come in one millisecond, and are two fires
        args = ""
        for key, value in run.args.items() if run.args else ():
            args += f" {format_option(f'arg.{key}', value)}"
        return f"RUN {run.id} {run.attempt} due={due} fire={fire}{args} {head} :{run.spec.command}"

    def _release(self, order: o.ReleaseRun, now: datetime) -> Decision:
        return Decision([f.RunReleased(order.run)])

    def _admit(self, order: o.AdmitRun, now: datetime) -> Decision:
        return Decision(admit(self.state, self.state.runs[order.run]))

    def _break(self, order: o.BreakRun, now: datetime) -> Decision:
        run = self.state.runs[order.run]
        facts = ended_waiting(run, "skipped", order.why)
        return Decision(facts + after_end(self.state, run, facts) + reopened(self.state, run, now))

    def _expire(self, order: o.ExpireRun, now: datetime) -> Decision:
        run = self.state.runs[order.run]
        facts = ended_waiting(run, "missed", reason("unplaced"))
        return Decision(facts + after_end(self.state, run, facts) + reopened(self.state, run, now))

    def _lose(self, order: o.LoseRun, now: datetime) -> Decision:
        """The lease ended: the worker is gone, or never said what became of a KILL."""
        run = self.state.runs[order.run]
        state = run.stopping or "lost"
        why = reason("gone", worker=run.worker) if state == "lost" else reason("unanswered")
        return Decision(self._end(run, state, None, why, now))

    def _time_out(self, order: o.TimeoutRun, now: datetime) -> Decision:
        run = self.state.runs[order.run]
        why = reason("timeout", limit_s=run.spec.options.timeout_s)
        facts, messages = stop(run, "timeout", why)
        return Decision(facts, None, messages)

    def _end(self, run: Run, state: str, exit_code: int | None, why: Reason, now: datetime) -> list[f.Fact]:
        """The facts that end an attempt: for good, or with another one to follow."""
        options = run.spec.options
        delay_s = None
        tries = run.attempt - run.unsent
        again = not run.spec.unread and state in ("failed", "timeout", "lost")
        if again:
            delay_s = options.retry.delay_s(tries, draw(f"{run.id} {run.attempt} {run.spec.name}"))
        if again and delay_s is None and state == "lost" and options.lost == "rerun":
            delay_s = _rerun_delay_s(tries - options.retry.times)
        end = ended(run, state, exit_code, why, final=delay_s is None)
        # Before the end: what comes after it would be late.
        told: list[f.Fact] = [remark(run, in_words(why))] if why else []
        if delay_s is None:
            return [*told, end, *after_end(self.state, run, [end])]
        again_at = now + timedelta(seconds=delay_s)
        words = f"attempt {run.attempt} ended: {state}{'' if exit_code is None else f', exit {exit_code}'}"
        follows = f"{words}; attempt {run.attempt + 1} follows at {format_time(again_at)}"
        return [*told, end, remark(run, follows), f.RunRetried(run.id, run.attempt + 1, again_at)]

    # --- workers ---

    def _join(self, order: o.JoinWorker, now: datetime) -> Decision:
        lease_until_at = now + timedelta(seconds=self.limits.lease_s)
        running = [[run, attempt] for run, attempt in order.running]
        joined = f.WorkerJoined(
            order.name, order.slots, order.labels, sorted(order.can), order.address, running, lease_until_at,
            order.instance or None, order.connection or None,
        )  # fmt: skip
        kills = [
            (order.name, f"KILL {run} {attempt}")
            for run, attempt in order.running
            if self._unwanted(run, attempt)
        ]
        return Decision([joined, *self._never_taken(order, now)], None, kills)

    def _never_taken(self, order: o.JoinWorker, now: datetime) -> list[f.Fact]:
        """The ends of orders that a worker would name if it had ever got them."""
        worker = self.state.workers.get(order.name)
        if worker is None or not order.holds_all:
            return []
        named = set(order.running)
        held = (self.state.runs[run] for run in sorted(worker.runs))
        # One with another memory than the one it was sent to cannot know.
        held = (run for run in held if run.instance == order.instance)
        unknown = [run for run in held if run.state == "sent" and (run.id, run.attempt) not in named]
        return [fact for run in unknown for fact in self._unsent(run, now)]

    def _unsent(self, run: Run, now: datetime) -> list[f.Fact]:
        """A run whose order nobody got: it waits again, or ends as it was to end meanwhile."""
        if run.stopping:
            return self._end(run, run.stopping, None, reason("unreached", worker=run.worker), now)
        told = remark(run, f"attempt {run.attempt} never reached worker {run.worker}; it is queued again")
        return [told, f.RunUnsent(run.id, run.attempt)]

    def _unsend(self, worker: str, runs: Iterable[tuple[int, int]], now: datetime) -> list[f.Fact]:
        held = (self._held(worker, run, attempt) for run, attempt in runs)
        return [fact for run in held if run and run.state == "sent" for fact in self._unsent(run, now)]

    def _unsend_runs(self, order: o.UnsendRuns, now: datetime) -> Decision:
        return Decision(self._unsend(order.worker, order.runs, now))

    def _unwanted(self, run_id: int, attempt: int) -> bool:
        """Whether work that a worker still does must stop: cancelled, or done again elsewhere."""
        run = self.state.runs.get(run_id)
        if run is not None:
            return run.attempt != attempt or bool(run.stopping)
        rows = self.state.outcomes.get(run_id, [])
        return any(row.attempt == attempt and row.state in ("cancelled", "timeout") for row in rows)

    def _drop(self, order: o.DropWorker, now: datetime) -> Decision:
        facts = self._unsend(order.name, order.unsent, now)
        worker = self.state.workers.get(order.name)
        # It may be here again: this order may have waited for the disk while it came back.
        if worker and worker.connected and worker.connection == order.connection:
            until_at = now + timedelta(seconds=self.limits.lease_s)
            facts.append(f.WorkerLeft(order.name, order.why, until_at))
        return Decision(facts)

    def _dismiss(self, order: o.DismissWorker, now: datetime) -> Decision:
        return Decision([f.WorkerLeaving(order.name)])

    def _drain(self, order: o.DrainWorker, now: datetime) -> Decision:
        worker = self.state.workers.get(order.name)
        if worker is None:
            raise Refusal("not-found", f'no worker "{escape(order.name[:80])}"')
        word = "draining" if order.draining else "ready"
        facts: list[f.Fact] = (
            [f.WorkerDrained(order.name, order.draining)] if worker.draining != order.draining else []
        )
        return Decision(facts, Reply(f"{order.name} {word}", {"worker": order.name, "state": word}))

    def _started(self, order: o.ReportStarted, now: datetime) -> Decision:
        run = self._held(order.worker, order.run, order.attempt)
        return Decision([f.RunStarted(order.run, order.attempt)] if run and run.state == "sent" else [])

    def _output(self, order: o.ReportOutput, now: datetime) -> Decision:
        run = self.state.runs.get(order.run)
        if run is None or run.worker != order.worker or run.state == "queued":
            return Decision()  # of a run that is over for us; its DONE will be told as late
        lines: list[list[Any]] = []
        limit, omitted = self.limits.output_bytes, 0
        room, is_told = limit - run.output_bytes, run.output_bytes > limit
        for fd, text in order.lines:
            if len(text) <= room:
                lines.append([fd, text])
                room -= len(text)
                continue
            if not is_told:
                lines.append([0, f"more output is not kept: {limit} bytes are the limit"])
            is_told = True
            omitted += len(text) + 1
            room = 0
        return Decision([f.OutputReceived(run.id, run.attempt, lines, omitted or None)])

    def _done(self, order: o.ReportEnded, now: datetime) -> Decision:
        ack = [(order.worker, f"ACK {order.run} {order.attempt}")]
        run = self._held(order.worker, order.run, order.attempt)
        if run is None:
            return Decision(self._late(order), None, ack)
        state = run.stopping or _said_state(order)
        return Decision(self._end(run, state, order.exit, order.details.get("why", ""), now), None, ack)

    def _held(self, worker: str, run_id: int, attempt: int) -> Run | None:
        run = self.state.runs.get(run_id)
        held = run and run.state in ("sent", "running") and run.attempt == attempt and run.worker == worker
        return run if held else None

    def _late(self, order: o.ReportEnded) -> list[f.Fact]:
        """A report that comes too late to count is told in the run's LOG, once."""
        if not 0 < order.run < self.state.next_run:
            return []
        rows = self.state.outcomes.get(order.run, [])
        if any(
            row.worker == order.worker and row.attempt == order.attempt and row.exit is not None
            for row in rows
        ):
            return []  # the same report again: only its ACK was lost
        what = f"attempt {order.attempt} ended with exit {order.exit}"
        text = f"late report from {order.worker}: {what}; it does not count"
        told = self.state.outputs.get(order.run)
        if told and (0, text) in told.lines[-MAX_TAIL:]:
            return []  # and the same late report again
        return [f.OutputReceived(order.run, order.attempt, [[0, text]])]

    # --- the daemon ---

    def _start(self, order: o.StartDaemon, now: datetime) -> Decision:
        state = self.state
        back_s = (state.told_at - now).total_seconds()
        # Set back while no daemon ran; by how much more than this, nobody knows.
        facts: list[f.Fact] = [f.ClockStepped(-back_s)] if back_s > MAX_SLEW_S else []
        if state.unfinished.bulk and not state.unfinished.bulk.is_decided:
            facts.append(f.BulkEnded("dropped"))
        facts.append(f.DaemonStarted(order.version, order.tz, now + timedelta(seconds=self.limits.lease_s)))
        moved = bool(state.tz) and state.tz != order.tz
        # One that shows a time before this program was written has not been set yet: see OLDEST_TIME.
        if back_s > BIG_STEP_S and now >= OLDEST_TIME:
            facts += self.reschedule(now)
        elif moved:
            facts += self.reschedule(self._undecided_from(now), zoneless=True)
        # Without a moment: one that could not be read at the last start, and can be now.
        facts += self._look_again(
            Again(self._undecided_from(now), False),
            [task for task in state.tasks.values() if task.due_at is None],
        )
        facts += expectations.rescheduled(state, now) if moved else ()
        messages: list[tuple[str, str]] = []
        first_run = state.next_run
        for task in state.tasks.values():
            if task.spec.schedule.kind != "reboot" or task.is_used_up or out_of_bounds(task.spec, now):
                continue
            fired = fire_now(state, task, "reboot", now, first_run=first_run)
            facts += fired.facts
            messages += fired.messages
            first_run += sum(isinstance(fact, f.RunQueued) for fact in fired.facts)
        return Decision(facts, None, messages)

    def _step(self, order: o.NoticeStep, now: datetime) -> Decision:
        # What it was set forward over is decided as it comes due; see `come`.
        again = self.reschedule(now) if order.by_s < -BIG_STEP_S else []
        return Decision([f.ClockStepped(order.by_s), *again])

    def _reschedule_all(self, order: o.RescheduleTasks, now: datetime) -> Decision:
        again = self.reschedule(self._undecided_from(now))
        return Decision(again + list(expectations.rescheduled(self.state, now)))

    def _record_save(self, order: o.RecordSave, now: datetime) -> Decision:
        return Decision([saved_fact(order)], Reply(f"{order.tasks} saved", {"saved": order.tasks}))

    def _record_checkpoint(self, order: o.RecordCheckpoint, now: datetime) -> Decision:
        return Decision([f.CheckpointWritten(order.file, order.upto, order.size, order.crc)])

    def _tell_unread(self, order: o.TellUnread, now: datetime) -> Decision:
        task = self.state.tasks[order.task]
        assert task.spec.unread
        return Decision([f.RecordUnread(task.id, task.name, task.spec.unread.why)])

    # --- what comes due inside ---

    def next_step(self, now: datetime) -> Any | None:
        """The next order that is due by itself, or None until `next_due`.

        What ends goes before what begins: a run that is lost or missed by now does not
        stand in the way of the next one. What is due goes before what can be placed, so that
        priorities and overlap= see all of a moment; but of very many that are due at once the
        first are on their way while the last are still to be decided.
        """
        state = self.state
        if (state.unread_runs or state.untold) and (unread := next_unread(state)):
            return unread
        if (run := state.leases.next_due(now)) is not None:
            return o.LoseRun(run)
        if (run := state.timeouts.next_due(now)) is not None:
            return o.TimeoutRun(run)
        if (run := state.missed.next_due(now)) is not None:
            return o.ExpireRun(run)
        if state.beats.late.heap and (silent := expectations.next_step(state, now)):
            return silent
        if (run := state.delayed.next_due(now)) is not None:
            return o.ReleaseRun(run)
        if self._fired < FIRES_AHEAD or not state.lanes.ready:
            if (due := state.next_task_due()) and due[0] <= now:
                self._fired += 1
                return self._when_due(*due)
            if state.to_judge and (judged := next_judgement(state)):
                return judged
        if state.lanes.ready and (placed := choose(state)):
            return o.PlaceRun(placed[0].id, placed[1].name)
        is_more_due, self._fired = self._fired >= FIRES_AHEAD, 0
        return self.next_step(now) if is_more_due else None

    def _when_due(self, due_at: datetime, task_id: int) -> Any:
        state = self.state
        if state.is_stale(due_at, task_id):
            return o.PassOver()
        if state.unfinished.again is not None and state.unfinished.again.waits(state.tasks[task_id]):
            return o.RescheduleTask(task_id)
        return o.FireTask(task_id)

    def next_due(self) -> datetime | None:
        """When `next_step` has something again, if nothing else happens; None = never."""
        state = self.state
        times = [
            first[0]
            for first in (
                state.next_task_due(),
                state.leases.first(),
                state.timeouts.first(),
                state.delayed.first(),
                state.missed.first(),
            )
            if first
        ]
        if late_at := expectations.next_due(state):
            times.append(late_at)
        return min(times, default=None)


def _said_state(order: o.ReportEnded) -> str:
    """How a run ended, as its worker tells it."""
    if order.details.get("lost"):
        return "lost"  # the worker was killed while it ran, and knows only that it began
    if order.details.get("timeout"):
        return "timeout"
    return "ok" if order.exit == 0 else "failed"


def _rerun_delay_s(tries: int) -> float | None:
    """How long lost=rerun waits after so many tries beyond those of retry=; None = it gives up."""
    # A job that takes its worker down with it would otherwise do so for ever.
    if tries > MAX_RERUNS:
        return None
    return 0.0 if tries <= 1 else min(2.0 ** (tries - 2), LONGEST_RERUN_S)


def _run_head(task_id: int, spec: TaskSpec) -> str:
    options = spec.options
    words = [f"type={options.type}", f"task={task_id}", f"name={spec.name}"]
    if options.timeout_s is not None:
        # Not `g`: a shell cannot count with 1.2e+06.
        words.append("timeout=" + f"{options.timeout_s:.3f}".rstrip("0").rstrip("."))
    if options.cwd:
        words.append(format_option("cwd", options.cwd))
    words += [format_option(f"env.{name}", value) for name, value in options.env]
    words += [format_option(f"header.{name}", value) for name, value in options.headers]
    for key in ("payload", "body", "expect", "secret"):
        if (value := getattr(options, key)) != getattr(DEFAULTS, key):
            words.append(format_option(key, value))
    return " ".join(words)


def _expect(engine: Engine, order: o.SetExpectation, now: datetime) -> Decision:
    return expectations.expect(engine.state, order, now, engine.limits.notify)


def _about_beats(
    decide: Callable[[State, Any, datetime], Decision], engine: Engine, order: Any, now: datetime
) -> Decision:
    return decide(engine.state, order, now)


_DECIDE: dict[type, Callable[[Engine, Any, datetime], Decision]] = {
    **DEFINE,
    **SLICES,
    **{kind: partial(_about_beats, decide) for kind, decide in expectations.DECIDE.items()},
    o.SetExpectation: _expect,
    o.UndoChanges: Engine._undo,
    o.RunTask: Engine._run,
    o.CancelRun: Engine._cancel,
    o.DrainWorker: Engine._drain,
    o.JoinWorker: Engine._join,
    o.DropWorker: Engine._drop,
    o.UnsendRuns: Engine._unsend_runs,
    o.DismissWorker: Engine._dismiss,
    o.ReportStarted: Engine._started,
    o.ReportOutput: Engine._output,
    o.ReportEnded: Engine._done,
    o.StartDaemon: Engine._start,
    o.NoticeStep: Engine._step,
    o.RescheduleTasks: Engine._reschedule_all,
    o.RecordSave: Engine._record_save,
    o.RecordCheckpoint: Engine._record_checkpoint,
    o.FireTask: lambda engine, order, now: come(engine.state, engine.state.tasks[order.task], now),
    o.FireAfter: lambda engine, order, now: fire_now(
        engine.state, engine.state.tasks[order.task], "after", now, order.broken
    ),
    o.AdmitRun: Engine._admit,
    o.BreakRun: Engine._break,
    o.PlaceRun: Engine._place,
    o.TellUnread: Engine._tell_unread,
    o.LoseRun: Engine._lose,
    o.TimeoutRun: Engine._time_out,
    o.ReleaseRun: Engine._release,
    o.ExpireRun: Engine._expire,
}
