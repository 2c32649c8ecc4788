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
from typing import Any

from attrs import define

from . import facts as f
from . import stimuli as s
from .errors import Refusal
from .model import Run, Task, TaskSpec, make_spec, parse_record, set_options
from .moments import (
    MIN_GRACE_S,
    Decision,
    after_end,
    day_off,
    delay,
    ended,
    ended_waiting,
    fire,
    overlap,
    passed,
    remark,
    reopened,
    stop,
)
from .names import check_name, id_of_name
from .placement import choose
from .replies import Reply
from .state import Need, State
from .wire import escape, format_option, format_time
from .zones import EPOCH, format_duration

MAX_TAIL = 100  # lines of a LOG that are searched for a late report before it is told again
BIG_STEP_S = 3 * 3600.0  # a clock set back by more: take the new time (contract of Debian's cron)


@define
class Limits:
    """What the engine refuses to grow beyond, and how patient it is."""

    tasks: int = 2_000_000
    lease_s: float = 30.0
    output_bytes: int = 1024 * 1024  # per attempt


class Engine:
    """Decides. Its only state is `State`, which it reads."""

    def __init__(self, state: State, limits: Limits | None = None) -> None:
        self.state = state
        self.limits = limits or Limits()
        self.apply = state.apply

    def decide(self, order: Any, now: datetime) -> Decision:
        """What `order` leads to at `now`. Raises Refusal, and then nothing happened."""
        return _DECIDE[type(order)](self, order, now)

    # --- tasks ---

    def _add(self, order: s.AddTask, now: datetime) -> Decision:
        state = self.state
        if len(state.tasks) >= self.limits.tasks:
            raise Refusal("limit", f"there are {len(state.tasks)} tasks already, which is the limit")
        task_id = self._new_id(order.task_id, order.spec.name)
        spec = self._named(order.spec, task_id)
        due_at = now if order.now else spec.moments.next_after(now, _anchor(now))
        _check_some_moment(spec, due_at)
        facts: list[f.Fact] = [f.TaskAdded(task_id, spec.record, _anchor(now), due_at)]
        if order.now:
            facts.append(f.RunQueued(state.next_run, task_id, now, "schedule"))
        return Decision(facts, _added(task_id, spec.name, due_at))

    def _new_id(self, wanted: int | None, name: str) -> int:
        """The id a new task gets; checks that its name and id are free to take."""
        state = self.state
        owner = id_of_name(name)
        task_id = wanted if wanted is not None else state.next_task
        if wanted is not None and wanted in state.tasks:
            raise Refusal("exists", f"task {wanted} exists already")
        if wanted is not None and wanted < state.next_task:
            raise Refusal("exists", f"the id {wanted} was used before, and ids are never used again")
        if name and name in state.names:
            raise Refusal("exists", f'a task named "{name}" exists already (id {state.names[name]})')
        if owner is not None and owner != task_id:
            raise Refusal("exists", f'the name "{name}" belongs to id {owner} alone')
        return task_id

    def _named(self, spec: TaskSpec, task_id: int) -> TaskSpec:
        if spec.name:
            return spec
        return TaskSpec(f"task_{task_id}", spec.schedule, spec.command, spec.options)

    def _set(self, order: s.SetTask, now: datetime) -> Decision:
        task = self._find(order.ref)
        words = dict(order.words)
        old = task.spec
        if old.unread is not None:
            return self._mend(task, old.unread.record, words, now)
        name = words.pop("name", old.name) or f"task_{task.id}"
        if name != old.name:
            self._check_new_name(task, name)
        command, text = words.pop("command", old.command), words.pop("schedule", old.schedule.text)
        options = set_options(old.options, words, old.schedule.tz, now)
        spec = make_spec(name, text, command, options, self.state.default_tz)
        if _is_same(spec, old):
            # Not looked at again: the only moment of an @at that runs now is over.
            rev = task.rev + 1
            return Decision([f.TaskChanged(task.id, rev, spec.record, task.due_at)], _set_reply(task.id, rev))
        return self._changed(task, spec, now)

    def _mend(self, task: Task, record: dict[str, Any], words: dict[str, str], now: datetime) -> Decision:
        """SET for a task whose record cannot be read: whole again with these words, or still refused."""
        if (name := words.pop("name", task.name)) != task.name:
            self._check_new_name(task, name)
        _, spec = parse_record(record | words | {"jobName": name}, self.state.default_tz)
        return self._changed(task, spec, now)

    def _changed(self, task: Task, spec: TaskSpec, now: datetime) -> Decision:
        due_at = _due_anew(task, spec, now)
        if not _is_used_up(task, spec):
            _check_some_moment(spec, due_at)
        rev = task.rev + 1
        return Decision([f.TaskChanged(task.id, rev, spec.record, due_at)], _set_reply(task.id, rev))

    def _check_new_name(self, task: Task, name: str) -> None:
        check_name(name)
        if name in self.state.names:
            raise Refusal("exists", f'a task named "{name}" exists already (id {self.state.names[name]})')
        if id_of_name(name) not in (None, task.id):
            raise Refusal("exists", f'the name "{name}" belongs to id {id_of_name(name)} alone')

    def _remove(self, order: s.RemoveTask, now: datetime) -> Decision:
        task = self._find(order.ref)
        facts = [*self._cancel_queued(task, "its task was removed"), f.TaskRemoved(task.id, "removed")]
        return Decision(facts, Reply(f"{task.id} removed", {"id": task.id, "removed": True}))

    def _clear(self, order: s.ClearTasks, now: datetime) -> Decision:
        facts: list[f.Fact] = []
        for task in self.state.tasks.values():
            facts += self._cancel_queued(task, "its task was removed by CLEAR")
            facts.append(f.TaskRemoved(task.id, "cleared"))
        count = len(self.state.tasks)
        return Decision(facts, Reply(f"{count} removed", {"removed": count}))

    def _cancel_queued(self, task: Task, why: str) -> list[f.Fact]:
        """Runs that have not been sent end with their task; running ones go on to their end."""
        runs = [self.state.runs[run] for run in task.runs]
        queued = [run for run in runs if run.state == "queued"]
        return [fact for run in queued for fact in ended_waiting(run, "cancelled", why)]

    def _load(self, order: s.LoadTasks, now: datetime) -> Decision:
        state = self.state
        if len(order.records) > self.limits.tasks:
            raise Refusal("limit", f"{len(order.records)} tasks are more than the limit, {self.limits.tasks}")
        kept: list[f.Fact] = []
        staying: set[int] = set()
        used = {task_id for task_id, _ in order.records if task_id is not None}
        next_id = max([state.next_task, *(task_id + 1 for task_id in used)])
        for task_id, spec in order.records:
            old_id = state.names.get(spec.name) if spec.name else None
            if old_id is not None:
                staying.add(old_id)
                kept += self._reload(state.tasks[old_id], spec, now)
                continue
            new_id = task_id if task_id is not None else id_of_name(spec.name) or next_id
            if new_id in state.tasks or new_id in staying:
                new_id = next_id  # that id belongs to a task of another name
            next_id = max(next_id, new_id + 1)
            named = self._named(spec, new_id)
            if id_of_name(named.name) not in (None, new_id):
                raise Refusal(
                    "exists", f'the name "{named.name}" belongs to id {id_of_name(named.name)} alone'
                )
            kept.append(self._loaded(new_id, named, now))
        gone: list[f.Fact] = []
        for task in state.tasks.values():
            if task.id not in staying:
                gone += self._cancel_queued(task, "its task was not in the file loaded")
                gone.append(f.TaskRemoved(task.id, "loaded"))
        count = len(order.records)
        saved = [] if order.saved is None else [_saved(order.saved)]
        return Decision([*gone, *kept, *saved], Reply(f"{count} loaded", {"loaded": count}))

    def _reload(self, task: Task, spec: TaskSpec, now: datetime) -> list[f.Fact]:
        if spec.record == task.spec.record:
            return []
        due_at = task.due_at
        if not _is_same(spec, task.spec):
            due_at = _due_anew(task, spec, now)
        return [f.TaskChanged(task.id, task.rev + 1, spec.record, due_at)]

    def _loaded(self, task_id: int, spec: TaskSpec, now: datetime) -> f.Fact:
        due_at = spec.moments.next_after(now, _anchor(now))
        if due_at is None and spec.schedule.kind == "at":
            # Its moment passed while it stood in the file: due at once, and judged by its grace.
            due_at = spec.moments.next_after(EPOCH, now)
        return f.TaskAdded(task_id, spec.record, _anchor(now), due_at)

    def _pause(self, order: s.PauseTasks, now: datetime) -> Decision:
        if order.until_at is not None and order.until_at <= now:
            raise Refusal("bad-option", f"until={format_time(order.until_at)} is in the past")
        tasks = self._find_all(order.refs)
        ids = [None] if tasks is None else [task.id for task in tasks]
        count = len(self.state.tasks) if tasks is None else len(tasks)
        facts: list[f.Fact] = [f.TaskPaused(task_id, order.until_at, order.why) for task_id in ids]
        return Decision(facts, Reply(f"{count} paused", {"paused": count}))

    def _resume(self, order: s.ResumeTasks, now: datetime) -> Decision:
        tasks = self._find_all(order.refs)
        if tasks is None:
            count = sum(self.state.is_paused(task, now) for task in self.state.tasks.values())
            return Decision([f.TaskResumed(None)], Reply(f"{count} resumed", {"resumed": count}))
        if self.state.is_all_paused(now):
            raise Refusal("busy", "everything is paused; RESUME all lifts that")
        paused = [task for task in tasks if task.paused]
        facts: list[f.Fact] = [f.TaskResumed(task.id) for task in paused]
        return Decision(facts, Reply(f"{len(paused)} resumed", {"resumed": len(paused)}))

    def _find(self, ref: str) -> Task:
        task = self.state.find(ref)
        if task is None:
            raise Refusal("not-found", f'no task "{escape(ref)}"')
        return task

    def _find_all(self, refs: Iterable[str] | None) -> list[Task] | None:
        return None if refs is None else list({id(t): t for t in map(self._find, refs)}.values())

    # --- runs, as clients see them ---

    def _run(self, order: s.RunTask, now: datetime) -> Decision:
        task = self._find(order.ref)
        found = overlap(self.state, task)
        if isinstance(found, str):
            raise Refusal("busy", f"{found} (overlap={task.spec.options.overlap})")
        parked, before, messages = found
        run = self.state.next_run
        queued = f.RunQueued(run, task.id, now, "manual", None, order.args or None, parked)
        return Decision([*before, queued], Reply(str(run), {"run": run}), messages)

    def _cancel(self, order: s.CancelRun, now: datetime) -> Decision:
        run = self.state.runs.get(order.run)
        if run is None:
            known = order.run < self.state.next_run
            raise Refusal(
                "not-found", f"run {order.run} has ended already" if known else f"no run {order.run}"
            )
        facts, messages = stop(run, "cancelled", "cancelled by a client")
        reply = Reply(f"{run.id} cancelled", {"run": run.id, "cancelled": True})
        return Decision(facts + after_end(self.state, run, facts), reply, messages)

    # --- placing ---

    def _place(self, order: s.PlaceRun, now: datetime) -> Decision:
        run = self.state.runs[order.run]
        sent = f.RunSent(run.id, run.attempt, order.worker)
        return Decision([sent], None, [(order.worker, self._run_line(run))])

    def _run_line(self, run: Run) -> str:
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
        if run.by == "manual":
            fire += f"/{run.id}"  # two RUNs may come in one millisecond, and are two fires
        args = "".join(f" {format_option(f'arg.{key}', value)}" for key, value in (run.args or {}).items())
        return f"RUN {run.id} {run.attempt} due={due} fire={fire}{args} {head} :{run.spec.command}"

    def _release(self, order: s.ReleaseRun, now: datetime) -> Decision:
        return Decision([f.RunReleased(order.run)])

    def _expire(self, order: s.ExpireRun, now: datetime) -> Decision:
        run = self.state.runs[order.run]
        facts = ended_waiting(run, "missed", "no worker took it within its grace")
        return Decision(facts + after_end(self.state, run, facts) + reopened(self.state, run, now))

    def _lose(self, order: s.LoseRun, now: datetime) -> Decision:
        """The lease ended: the worker is gone, or never said what became of a KILL."""
        run = self.state.runs[order.run]
        state = run.stopping or "lost"
        why = (
            f"worker {run.worker} did not come back with it"
            if state == "lost"
            else "the worker did not answer"
        )
        return Decision(self._end(run, state, None, why, now))

    def _time_out(self, order: s.TimeoutRun, now: datetime) -> Decision:
        run = self.state.runs[order.run]
        limit = format_duration(run.spec.options.timeout_s or 0.0)
        facts, messages = stop(run, "timeout", f"its timeout of {limit} is over")
        return Decision(facts, None, messages)

    def _end(self, run: Run, state: str, exit_code: int | None, why: str, now: datetime) -> list[f.Fact]:
        """The facts that end an attempt: for good, or with another one to follow."""
        options = run.spec.options
        delay_s = options.retry.delay_s(run.attempt) if state in ("failed", "timeout", "lost") else None
        if delay_s is None and state == "lost" and options.lost == "rerun":
            delay_s = 0.0
        end = ended(run, state, exit_code, why, final=delay_s is None)
        # Before the end: what comes after it would be late.
        told: list[f.Fact] = [remark(run, why)] if why else []
        if delay_s is None:
            return [*told, end, *after_end(self.state, run, [end])]
        again_at = now + timedelta(seconds=delay_s)
        words = f"attempt {run.attempt} ended: {state}{'' if exit_code is None else f', exit {exit_code}'}"
        follows = f"{words}; attempt {run.attempt + 1} follows at {format_time(again_at)}"
        return [*told, end, remark(run, follows), f.RunRetried(run.id, run.attempt + 1, again_at)]

    # --- workers ---

    def _join(self, order: s.JoinWorker, now: datetime) -> Decision:
        lease_until_at = now + timedelta(seconds=self.limits.lease_s)
        running = [[run, attempt] for run, attempt in order.running]
        joined = f.WorkerJoined(
            order.name, order.slots, order.labels, sorted(order.can), order.address, running, lease_until_at
        )
        kills = [
            (order.name, f"KILL {run} {attempt}")
            for run, attempt in order.running
            if self._unwanted(run, attempt)
        ]
        return Decision([joined], None, kills)

    def _unwanted(self, run_id: int, attempt: int) -> bool:
        """Whether work that a worker still does must stop: cancelled, or done again elsewhere."""
        run = self.state.runs.get(run_id)
        if run is not None:
            return run.attempt != attempt or bool(run.stopping)
        rows = self.state.outcomes.get(run_id, [])
        return any(row.attempt == attempt and row.state in ("cancelled", "timeout") for row in rows)

    def _drop(self, order: s.DropWorker, now: datetime) -> Decision:
        return Decision([f.WorkerLeft(order.name, order.why, now + timedelta(seconds=self.limits.lease_s))])

    def _dismiss(self, order: s.DismissWorker, now: datetime) -> Decision:
        return Decision([f.WorkerLeaving(order.name)])

    def _drain(self, order: s.DrainWorker, now: datetime) -> Decision:
        worker = self.state.workers.get(order.name)
        if worker is None:
            raise Refusal("not-found", f'no worker "{escape(order.name)}"')
        word = "draining" if order.draining else "ready"
        facts: list[f.Fact] = (
            [f.WorkerDrained(order.name, order.draining)] if worker.draining != order.draining else []
        )
        return Decision(facts, Reply(f"{order.name} {word}", {"worker": order.name, "state": word}))

    def _started(self, order: s.ReportStarted, now: datetime) -> Decision:
        run = self._held(order.worker, order.run, order.attempt)
        return Decision([f.RunStarted(order.run, order.attempt)] if run and run.state == "sent" else [])

    def _output(self, order: s.ReportOutput, now: datetime) -> Decision:
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

    def _done(self, order: s.ReportEnded, now: datetime) -> Decision:
        ack = [(order.worker, f"ACK {order.run} {order.attempt}")]
        run = self._held(order.worker, order.run, order.attempt)
        if run is None:
            return Decision(self._late(order), None, ack)
        state = run.stopping or (
            "timeout" if order.details.get("timeout") else "ok" if order.exit == 0 else "failed"
        )
        return Decision(self._end(run, state, order.exit, order.details.get("why", ""), now), None, ack)

    def _held(self, worker: str, run_id: int, attempt: int) -> Run | None:
        run = self.state.runs.get(run_id)
        held = run and run.state in ("sent", "running") and run.attempt == attempt and run.worker == worker
        return run if held else None

    def _late(self, order: s.ReportEnded) -> list[f.Fact]:
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

    def _start(self, order: s.StartDaemon, now: datetime) -> Decision:
        state = self.state
        facts: list[f.Fact] = [
            f.DaemonStarted(order.version, order.tz, now + timedelta(seconds=self.limits.lease_s))
        ]
        moved = bool(state.tz) and state.tz != order.tz
        # Without a moment: one that could not be read at the last start, and can be now.
        facts += self._reschedule(
            now, lambda task: task.due_at is None or (moved and not task.spec.options.tz)
        )
        messages: list[tuple[str, str]] = []
        next_run = state.next_run
        for task in state.tasks.values():
            if task.spec.schedule.kind != "reboot" or task.is_used_up or not _is_valid(task.spec, now):
                continue
            off = day_off(state, task.spec, now)
            found = "paused" if state.is_paused(task, now) else off or overlap(state, task)
            if isinstance(found, str):
                facts.append(passed(task, "skipped", now, now, 1, found, None))
                continue
            parked, before, lines = found
            wait = delay(task, now, 0, now)
            facts += [*before, f.RunQueued(next_run, task.id, now, "reboot", None, None, parked, wait)]
            messages += lines
            next_run += 1
        return Decision(facts, None, messages)

    def _step(self, order: s.NoticeStep, now: datetime) -> Decision:
        facts: list[f.Fact] = [f.ClockStepped(order.by_s)]
        if order.by_s < -BIG_STEP_S:
            facts += self._reschedule(now, lambda task: True)
        return Decision(facts)

    def _reschedule_all(self, order: s.RescheduleTasks, now: datetime) -> Decision:
        return Decision(self._reschedule(now, lambda task: True))

    def _reschedule(self, now: datetime, which: Callable[[Task], bool]) -> list[f.Fact]:
        facts: list[f.Fact] = []
        for task in self.state.tasks.values():
            is_pending = task.due_at is not None and task.due_at <= now
            timed = task.spec.schedule.kind in ("cron", "every") and not task.is_used_up
            if is_pending or not timed or not which(task):
                continue
            due_at = task.spec.moments.next_after(now, task.anchor_at)
            if due_at != task.due_at:
                facts.append(f.TaskRescheduled(task.id, due_at))
        return facts

    def _record_save(self, order: s.RecordSave, now: datetime) -> Decision:
        return Decision([_saved(order)], Reply(f"{order.tasks} saved", {"saved": order.tasks}))

    def _record_checkpoint(self, order: s.RecordCheckpoint, now: datetime) -> Decision:
        return Decision([f.CheckpointWritten(order.file, order.upto, order.size, order.crc)])

    # --- what comes due inside ---

    def next_step(self, now: datetime) -> Any | None:
        """The next order that is due by itself, or None until `next_due`.

        What ends goes before what begins: a run that is lost or missed by now does not
        stand in the way of the next one.
        """
        state = self.state
        if (lease := state.next_lease_end()) and lease[0] <= now:
            return s.LoseRun(lease[1])
        if (timeout := state.next_timeout()) and timeout[0] <= now:
            return s.TimeoutRun(timeout[1])
        heads = state.heads() if state.queues else []
        for need, run in heads:
            if _wait_ends(need, run) <= now:
                return s.ExpireRun(run.id)
        if (due := state.next_task_due()) and due[0] <= now:
            return s.FireTask(due[1])
        if (release := state.next_release()) and release[0] <= now:
            return s.ReleaseRun(release[1])
        if heads and (placed := choose(heads, state.free)):
            return s.PlaceRun(placed[0].id, placed[1].name)
        return None

    def next_due(self) -> datetime | None:
        """When `next_step` has something again, if nothing else happens; None = never."""
        state = self.state
        times = [
            first[0]
            for first in (
                state.next_task_due(),
                state.next_lease_end(),
                state.next_timeout(),
                state.next_release(),
            )
            if first
        ]
        times += [_wait_ends(need, run) for need, run in state.heads()]
        return min(times, default=None)


def _wait_ends(need: Need, run: Run) -> datetime:
    """When a run that no worker took is missed."""
    return run.queued_at + timedelta(seconds=max(need[3], MIN_GRACE_S))


def _anchor(now: datetime) -> datetime:
    return now.replace(microsecond=0)


def _is_same(one: TaskSpec, other: TaskSpec) -> bool:
    """Whether two definitions name the same moments."""
    return _timing(one) == _timing(other)


def _timing(spec: TaskSpec) -> tuple[Any, ...]:
    schedule, options = spec.schedule, spec.options
    shift_of = spec.name if options.spread_s else ""
    bounds = (options.start_at, options.end_at, options.count, options.spread_s, shift_of)
    # Texts, since the cache of parsed schedules has an end.
    return schedule.kind, schedule.text, schedule.tz, bounds


def _due_anew(task: Task, spec: TaskSpec, now: datetime) -> datetime | None:
    """When a task is due that has this definition from now on."""
    return None if _is_used_up(task, spec) else spec.moments.next_after(now, task.anchor_at)


def _is_used_up(task: Task, spec: TaskSpec) -> bool:
    """A new count= begins anew; the same one goes on."""
    return task.is_used_up and spec.options.count == task.spec.options.count


def _is_valid(spec: TaskSpec, now: datetime) -> bool:
    """Whether start= and end= let an @reboot of this moment be."""
    options = spec.options
    begun = options.start_at is None or options.start_at <= now
    return begun and (options.end_at is None or now <= options.end_at)


def _saved(order: s.RecordSave) -> f.TasksSaved:
    return f.TasksSaved(order.file, order.upto, order.size, order.crc, order.tasks)


def _set_reply(task_id: int, rev: int) -> Reply:
    return Reply(f"{task_id} rev={rev}", {"id": task_id, "rev": rev})


def _check_some_moment(spec: TaskSpec, due_at: datetime | None) -> None:
    """Refuses a schedule that will never start anything."""
    if due_at is None and spec.schedule.kind == "at":
        raise Refusal("bad-schedule", f"{spec.schedule.text} is in the past")
    if due_at is not None or spec.schedule.kind == "reboot":
        return
    if spec.options.end_at:
        raise Refusal("bad-schedule", f'"{spec.schedule.text}" does not come before end= any more')
    raise Refusal("bad-schedule", f'"{spec.schedule.text}" never comes in {spec.schedule.tz}')


def _added(task_id: int, name: str, due_at: datetime | None) -> Reply:
    when = format_time(due_at) if due_at else "-"
    return Reply(f"{task_id} {name} next={when}", {"id": task_id, "jobName": name, "next": due_at})


def _run_head(task_id: int, spec: TaskSpec) -> str:
    options = spec.options
    words = [f"type={options.type}", f"task={task_id}", f"name={spec.name}"]
    if options.timeout_s is not None:
        # Not `g`: a shell cannot count with 1.2e+06.
        words.append("timeout=" + f"{options.timeout_s:.3f}".rstrip("0").rstrip("."))
    if options.cwd:
        words.append(format_option("cwd", options.cwd))
    words += [format_option(f"env.{name}", value) for name, value in options.env]
    return " ".join(words)


_DECIDE: dict[type, Callable[[Engine, Any, datetime], Decision]] = {
    s.AddTask: Engine._add,
    s.SetTask: Engine._set,
    s.RemoveTask: Engine._remove,
    s.ClearTasks: Engine._clear,
    s.LoadTasks: Engine._load,
    s.PauseTasks: Engine._pause,
    s.ResumeTasks: Engine._resume,
    s.RunTask: Engine._run,
    s.CancelRun: Engine._cancel,
    s.DrainWorker: Engine._drain,
    s.JoinWorker: Engine._join,
    s.DropWorker: Engine._drop,
    s.DismissWorker: Engine._dismiss,
    s.ReportStarted: Engine._started,
    s.ReportOutput: Engine._output,
    s.ReportEnded: Engine._done,
    s.StartDaemon: Engine._start,
    s.NoticeStep: Engine._step,
    s.RescheduleTasks: Engine._reschedule_all,
    s.RecordSave: Engine._record_save,
    s.RecordCheckpoint: Engine._record_checkpoint,
    s.FireTask: lambda engine, order, now: fire(engine.state, engine.state.tasks[order.task], now),
    s.PlaceRun: Engine._place,
    s.LoseRun: Engine._lose,
    s.TimeoutRun: Engine._time_out,
    s.ReleaseRun: Engine._release,
    s.ExpireRun: Engine._expire,
}
