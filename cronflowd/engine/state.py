"""What facts do: the only thing that changes what is true, live and after a restart alike.

Rules for this file. `State.apply` is the only way in. It touches and never refuses, because during
replay there is nobody to refuse to. It reads no clock: a fact brings its time.
A new fact needs three things: a class in facts.py, a function and its row here, a row in
tests/engine/test_state.py. `carry` tells the whole state as facts again; a checkpoint is that.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Iterator
from datetime import UTC, datetime, timedelta

import msgspec

from ..base.output import size_of
from ..tasks.reasons import passed_on, reason, shortened
from ..tasks.targets import OPPOSITE
from ..tasks.task import BY_HAND, ENDED, Failure, Outcome, Run, Task, Worker
from . import access, carried, once
from . import facts as f
from .beats import FAR_S
from .carried import whole_task
from .changelog import Applier, noted
from .hearing import catch_up, how_ended, rename_heard, tell_dependents, tell_of_end
from .ledger import judge, outcome_of
from .tables import ENDED_AT_ONCE, WELL, Output, Tables, counts, of_one_fire, receiver, with_run

# A clock that shows an earlier time has not been set yet, as on a machine without a battery that has
# just started. Nothing is scheduled by it anew, and what it is set forward over was downtime.
OLDEST_TIME = datetime(2026, 1, 1, tzinfo=UTC)
STOP_LEASE = timedelta(seconds=60)  # a KILL that is not answered by then: the run is ended without its worker
BIG_STEP_S = 3 * 3600.0  # a clock set by more: take the new time, and catch nothing up (as Debian's cron)
MAX_OUTPUT_IN_MEMORY = 16 * 1024 * 1024  # characters of all runs; older output is read from the journal
MAX_WORKERS_AWAY = 1000
MAX_UNHEARD = 1000
NOBODYS = "\n"  # no worker's memory is named so: none can know that it never got what a backup calls sent
MAX_AHEAD = 10_000_000  # numbers of runs that are passed over because a worker holds one of them


# --- tasks ---


def _task_added(state: Tables, fact: f.TaskAdded, at: datetime, seq: int) -> None:
    task = Task(fact.id, state.read(fact.record), fact.anchor_at, is_notice=fact.notice)
    if fact.id < state.next_task:
        _take_back_runs(state, task)
    state.unfinished.note_before(fact.id, None)
    state.put(task)
    if fact.id >= state.next_task:
        state.next_task = fact.id + 1
    if state.jumped_upto_at is not None:
        state.end_jump(fact.due_at)
    state.set_due(task, fact.due_at)


def _take_back_runs(state: Tables, task: Task) -> None:
    """A task is brought back that was removed while it ran: what still runs is its own again."""
    state.leaving.pop(task.id, None)
    task.runs = state.orphans.pop(task.id, ())
    task.held = sum(state.runs[run].worker is not None for run in task.runs)


def _task_restored(state: Tables, fact: f.TaskRestored, at: datetime, seq: int) -> None:
    task = whole_task(state, fact)
    task.changed_at = at
    _take_back_runs(state, task)
    state.unfinished.note_before(fact.id, None)
    state.put(task)
    state.end_jump(fact.due_at)
    state.set_due(task, fact.due_at)


def _task_changed(state: Tables, fact: f.TaskChanged, at: datetime, seq: int) -> None:
    task = state.tasks[fact.id]
    state.take_out(task)
    state.unfinished.note_before(fact.id, task.as_saved)
    old, task.spec, task.rev, task.run_head = task.spec, state.read(fact.record), fact.rev, ""
    task.changed_at = at
    if task.spec.options.count != old.options.count:
        task.fired = 0
    decided = task.decided if fact.due_at == task.due_at else 0
    same = (task.spec.schedule.text, task.spec.schedule.tz) == (old.schedule.text, old.schedule.tz)
    waits = [again for again in state.unfinished.each_again() if same and again.waits(task)]
    state.flows.judge(fact.id)
    if task.heard:
        for name, task_id in state.unfinished.former.items():
            rename_heard(state, task, name, state.tasks[task_id].name)
        task.heard = {name: heard for name, heard in task.heard.items() if name in task.spec.options.after}
    if task.name != old.name and old.name in state.dependents:
        # They still say the old name; their own facts follow.
        if state.unfinished.bulk and state.unfinished.bulk.is_decided and task.name not in state.names:
            state.go_by_both(old.name, task)
        else:
            for dependent in state.dependents[old.name]:
                rename_heard(state, state.tasks[dependent], old.name, task.name)
    state.put(task)
    state.end_jump(fact.due_at)
    state.set_due(task, fact.due_at, decided)
    for again in waits:
        again.done.pop(task.id, None)


def _bulk_ended(state: Tables, fact: f.BulkEnded, at: datetime, seq: int) -> None:
    for name in list(state.unfinished.former):
        state.go_by_one(name)
    state.unfinished.bulk_ended(fact)


def _task_removed(state: Tables, fact: f.TaskRemoved, at: datetime, seq: int) -> None:
    task = state.tasks[fact.id]
    state.unfinished.note_before(fact.id, None if task.is_notice else task.as_saved)
    for name in [name for name, task_id in state.unfinished.former.items() if task_id == fact.id]:
        state.go_by_one(name)
    if fact.why == "done":
        state.unfinished.note_done(task)
    del state.tasks[fact.id]
    state.take_out(task)
    while state.answer_event(fact.id):
        pass
    if fact.id in state.flows.of:
        state.flows.leave(fact.id)
    if task.runs:
        state.orphans[fact.id] = task.runs
    if len(task.runs) > ENDED_AT_ONCE:
        state.leave(fact.id, fact.why)
    state.forget_told(f"task:{fact.id}")


def _template_set(state: Tables, fact: f.TemplateSet, at: datetime, seq: int) -> None:
    if fact.words is None:
        state.templates.pop(fact.name, None)
    else:
        state.templates[fact.name] = fact.words


def _task_paused(state: Tables, fact: f.TaskPaused, at: datetime, seq: int) -> None:
    if fact.id is None:
        state.paused_all, state.paused_until_at, state.paused_why = True, fact.until_at, fact.why
        state.beats.give_grace(fact.until_at or at)
    else:
        task = state.tasks[fact.id]
        state.unfinished.note_before(fact.id, task.as_saved)
        task.paused, task.paused_until_at, task.paused_why = True, fact.until_at, fact.why
        state.paused[fact.id] = None
    state.flows.judge(fact.id)


def _task_resumed(state: Tables, fact: f.TaskResumed, at: datetime, seq: int) -> None:
    if fact.id is not None:
        _lift(state, fact.id)
        return
    state.paused_all, state.paused_until_at, state.paused_why = False, None, ""
    state.beats.give_grace(at)
    for task_id in list(state.paused) if not fact.own_stay else ():
        _lift(state, task_id)
    state.flows.judge(None)


def _lift(state: Tables, task_id: int) -> None:
    task = state.tasks[task_id]
    state.unfinished.note_before(task_id, task.as_saved)
    state.paused.pop(task_id, None)
    task.paused, task.paused_until_at, task.paused_why = False, None, ""
    state.flows.judge(task_id)


def _bulk_staged(state: Tables, fact: f.BulkStaged, at: datetime, seq: int) -> None:
    state.next_task = max(state.next_task, fact.next_task or 0)
    state.unfinished.bulk_staged(fact)


# --- fires and runs ---


def _fires_passed(state: Tables, fact: f.FiresPassed, at: datetime, seq: int) -> None:
    state.decided_upto_at = max(at, state.decided_upto_at)
    outcome = outcome_of(fact, at, seq)
    state.remember(outcome, True)
    _total(state, fact.state, fact.count)
    state.ledger.count_due(fact.last_due_at, at, fact.count)
    state.ledger.count_end(fact.state, fact.last_due_at, at, fact.count)
    if task := state.tasks.get(fact.task):
        _count(task, outcome)
        if fact.emitted:
            state.answer_event(fact.task)
        elif not fact.flow:
            again = fact.next_due_at == fact.last_due_at
            state.set_due(task, fact.next_due_at, task.decided + 1 if again else 0)
        if fact.settles:
            task.heard = None
    how = passed_on(fact.state, fact.why)
    if fact.flow:
        state.flows.passed(fact, how)
    tell_dependents(state, fact.name, how, fact.flow)


def _run_queued(state: Tables, fact: f.RunQueued, at: datetime, seq: int) -> None:
    state.ledger.count_due(fact.due_at, at)
    task = state.tasks[fact.task]
    run = Run(
        fact.run, fact.task, task.spec, due_at=fact.due_at, queued_at=at - state.set_by, by=fact.by,
        args=fact.args,
    )  # fmt: skip
    run.nth, run.target, run.who = fact.nth, fact.target, fact.who
    run.fire = _fire_of(state, task, run) if fact.target and task.runs else run.id
    if fact.not_before_at is not None:
        run.delayed_until_at = run.queued_at = fact.not_before_at - state.set_by
    state.put_run(run)
    if fact.run >= state.next_run:
        state.next_run = fact.run + 1
    task.runs = with_run(task.runs, fact.run) if task.runs else [fact.run]
    if fact.by not in BY_HAND and task.spec.options.count and run.fire == run.id:
        task.fired += 1  # with on=all, once a fire
    if fact.by == "schedule":
        if at > state.decided_upto_at:
            state.decided_upto_at = at
        again = fact.next_due_at == fact.due_at
        state.set_due(task, fact.next_due_at, run.nth if again else 0)
    if fact.emitted:
        state.answer_event(fact.task)
    if fact.flow:
        state.flows.run_came(run, fact.flow)
    if fact.awaits:
        run.move("awaiting")
        state.to_judge[task.id] = None
        return
    # What the clock starts waits for its dependencies when its turn comes; @after has had them.
    if task.heard and (fact.by == "after" or not (fact.parked or fact.by in BY_HAND)):
        task.heard = None
    if fact.worker:
        _send(state, run, task, fact.worker, at)
    elif fact.parked:
        state.park(run, task)
    else:
        state.enqueue(run)


def _fire_of(state: Tables, task: Task, run: Run) -> int:
    """With on=all, runs of one fire are queued together, in the order of their workers' names."""
    assert task.runs
    before = state.runs[task.runs[-1]]
    is_more = (before.due_at, before.by, before.id + 1) == (run.due_at, run.by, run.id)
    return before.fire if is_more and before.target < run.target else run.id


def _run_admitted(state: Tables, fact: f.RunAdmitted, at: datetime, seq: int) -> None:
    run = state.runs[fact.run]
    if task := state.tasks.get(run.task_id):
        task.heard = None
    if fact.flow:
        state.flows.run_came(run, fact.flow)
    _go_on(state, run, at)


def _go_on(state: Tables, run: Run, at: datetime) -> None:
    """Nothing of its own task holds it any more."""
    at -= state.set_by
    run.queued_at = max(at, run.delayed_until_at or at)
    if run.queued_at == at:
        run.delayed_until_at = None
    state.enqueue(run)


def _run_sent(state: Tables, fact: f.RunSent, at: datetime, seq: int) -> None:
    run = state.runs[fact.run]
    _send(state, run, state.tasks.get(run.task_id), fact.worker, at)


def _send(state: Tables, run: Run, task: Task | None, name: str, at: datetime) -> None:
    run.move("sent")
    run.worker, run.sent_at = name, at - state.set_by
    if task:
        task.held += 1
    if worker := state.workers.get(name):
        run.instance = worker.instance
        worker.runs.add(run.id)
        if worker.beside or len(worker.runs) >= worker.slots:
            state.lanes.recount(worker)
    if run.spec.options.timeout_s or state.common.timeout_s:
        state.timeouts.set(run.id, run)
    if run.spec.options.wants or run.by == "notice":
        run.given = state.access.given(run.spec.wants(run.by), run.given)


def _run_unsent(state: Tables, fact: f.RunUnsent, at: datetime, seq: int) -> None:
    run = state.runs[fact.run]
    _take_from_worker(state, run, state.tasks.get(run.task_id))
    run.attempt, run.unsent = fact.attempt + 1, run.unsent + 1
    run.worker = run.sent_at = None
    state.enqueue(run)


def _run_started(state: Tables, fact: f.RunStarted, at: datetime, seq: int) -> None:
    run = state.runs[fact.run]
    if run.state == "sent":  # or a KILL is on its way
        run.move("running")
    run.started_at = at - state.set_by


def _output_received(state: Tables, fact: f.OutputReceived, at: datetime, seq: int) -> None:
    run = state.runs.get(fact.run)
    output = state.outputs.get(fact.run)
    if output is None:
        output = state.outputs[fact.run] = Output(whole=run is not None and not run.has_output)
    size = size_of(fact.lines)
    if fact.apart:  # its last words are not here, and no earlier ones may be taken for them
        output.whole, output.lines, output.attempt_from = False, [], 0
        size += fact.apart[0]
    output.lines += map(tuple, fact.lines)
    output.size += size
    output.said += sum([len(str(line[1])) for line in fact.lines if not line[0]])
    state.output_size += size
    if run:
        run.has_output = True
        if run.attempt == fact.attempt:
            # Remarks are not the job's; and after a gap nothing may follow.
            if (taken := fact.taken) is None:
                taken = size_of(line for line in fact.lines if line[0])
            run.output_bytes += taken + fact.omitted
            run.held = run.held if fact.held is None else fact.held
    while state.output_size > MAX_OUTPUT_IN_MEMORY or len(state.outputs) > state.recent_runs:
        _, evicted = state.outputs.popitem(last=False)
        state.output_size -= evicted.size


def _run_stopping(state: Tables, fact: f.RunStopping, at: datetime, seq: int) -> None:
    run = state.runs[fact.run]
    if run.state != "stopping":  # or it is cancelled after its time was up
        run.move("stopping")
    run.ends_as = fact.why
    state.lease(run, at + STOP_LEASE)


def _run_ended(state: Tables, fact: f.RunEnded, at: datetime, seq: int) -> None:
    run = state.runs[fact.run]
    task = state.tasks.get(fact.task)
    run.move(fact.state)
    _take_from_worker(state, run, task)
    outcome = outcome_of(fact, at, seq)
    state.remember(outcome, fact.final)
    if not fact.final:
        return
    del state.runs[fact.run]
    try:
        state.totals[fact.state] += 1
    except KeyError:
        _total(state, fact.state, 1)
    state.ledger.count_end(fact.state, fact.due_at, at)
    if run.flow:
        state.flows.run_ended(run, fact.state, how_ended(fact))
    if task and task.runs:
        task.runs.remove(fact.run)
        if fact.state in ("skipped", "missed") and counts(task, run):
            task.fired = max(0, task.fired - 1)
        # Where one worker was passed over, what becomes of the fire is told by those that run.
        is_passed = run.target and fact.state == "skipped" and _others(state, task, run)
        _count(task, outcome, is_last=not is_passed)
        if state.unheard and task.is_notice and fact.state == WELL:
            state.unheard.pop(receiver(run.spec), None)
        if fact.state == "skipped":
            task.heard = None
        if task.runs or state.replaced:
            _unpark(state, task, at)
        if state.dependents or run.target:
            tell_of_end(state, task, run, fact)
    elif runs := state.orphans.get(fact.task):
        runs.remove(fact.run)
        if not runs:
            del state.orphans[fact.task]
            state.leaving.pop(fact.task, None)
            state.replaced.pop(fact.task, None)
            state.replaced_upto.pop(fact.task, None)


def _run_retried(state: Tables, fact: f.RunRetried, at: datetime, seq: int) -> None:
    run = state.runs[fact.run]
    run.attempt, run.queued_at = fact.attempt, fact.not_before_at - state.set_by
    run.worker = run.sent_at = run.started_at = run.lease_until_at = None
    run.lease_renewed = False
    run.output_bytes, run.delayed_until_at = 0, run.queued_at
    if output := state.outputs.get(fact.run):
        output.attempt_from, output.said = len(output.lines), 0
    run.ends_as = ""  # that was the attempt before; this one may be stopped again
    if run.task_id in state.replaced:
        state.replaced_upto.pop(run.task_id, None)
        state.to_judge[run.task_id] = None
    state.enqueue(run)


def _run_released(state: Tables, fact: f.RunReleased, at: datetime, seq: int) -> None:
    run = state.runs[fact.run]
    run.delayed_until_at = None
    state.enqueue(run)


def _unpark(state: Tables, task: Task, at: datetime) -> None:
    """Lets what waited for this run to end go on: the next run of its task, or several of one moment."""
    if task.id in state.replaced and not (task.runs and task.runs[0] < state.replaced[task.id]):
        del state.replaced[task.id]
        state.replaced_upto.pop(task.id, None)
    for number in task.runs:
        if state.runs[number].state != "parked":
            return
    for run in of_one_fire([state.runs[number] for number in task.runs]):
        if run.spec.options.after and run.by not in ("manual", "after", "flow"):
            run.move("awaiting")
            state.to_judge[task.id] = None
        else:
            _go_on(state, run, at)


def _take_from_worker(state: Tables, run: Run, task: Task | None) -> None:
    run.lease_until_at, run.lease_renewed = None, False
    if run.worker is None:
        return
    if task:
        task.held -= 1
    worker = state.workers.get(run.worker)
    if worker and run.id in worker.runs:
        worker.runs.remove(run.id)
        if run.worker not in state.lanes.free:
            state.lanes.recount(worker)


def _total(state: Tables, end: str, number: int) -> None:
    assert end in ENDED, end
    state.totals[end] = state.totals.get(end, 0) + number


def _record_unread(state: Tables, fact: f.RecordUnread, at: datetime, seq: int) -> None:
    """That it cannot run is a failing like others: it lasts until a run ends well."""
    state.untold.pop(fact.task, None)
    task = state.tasks[fact.task]
    since_at = task.failure.since_at if task.failure else at
    why = shortened(reason("unreadable", text=fact.why))
    task.failure = Failure(since_at, None, "unreadable", task.due_at or at, at, None, why)


# --- workers ---


def _worker_joined(state: Tables, fact: f.WorkerJoined, at: datetime, seq: int) -> None:
    old = state.workers.pop(fact.name, None)
    told = f.named(fact, ("name", "slots", "labels", "address", "instance", "connection"))
    worker = Worker(can=frozenset(fact.can), since_at=at, **told)
    if old:
        worker.draining, worker.runs = old.draining, old.runs
    state.workers[fact.name] = worker  # to the end: the table's order is "who was heard of last"
    named = {(run, attempt) for run, attempt in fact.running}
    for run in state.held(worker):
        if run.state == "stopping":
            continue
        if (run.id, run.attempt) in named:
            run.lease_until_at, run.lease_renewed = None, False
        elif run.lease_until_at is None:
            state.lease(run, fact.lease_until_at)
    # One from after the backup that this daemon was made of: its number must not be given to another.
    held = (run for run, _ in named if run < state.next_run + MAX_AHEAD)
    state.next_run = max(state.next_run, max(held, default=0) + 1)
    state.lanes.offer_anew(worker)
    _forget_workers(state)


def _away(state: Tables, worker: Worker, at: datetime, lease_until_at: datetime) -> None:
    worker.connected, worker.since_at, worker.beside = False, at, set()
    for run in state.held(worker):
        if run.lease_until_at is None:
            state.lease(run, lease_until_at)
    state.lanes.recount(worker)


def _worker_leaving(state: Tables, fact: f.WorkerLeaving, at: datetime, seq: int) -> None:
    state.workers[fact.name].leaving = True
    state.lanes.recount(state.workers[fact.name])


def _worker_drained(state: Tables, fact: f.WorkerDrained, at: datetime, seq: int) -> None:
    state.workers[fact.name].draining = fact.draining
    state.lanes.recount(state.workers[fact.name])


def _forget_workers(state: Tables) -> None:
    away = [w.name for w in state.workers.values() if not (w.connected or w.runs or w.draining)]
    for name in away[: max(0, len(away) - MAX_WORKERS_AWAY)]:
        del state.workers[name]
        state.forget_told(f"worker:{name}")


# --- what is told to whom ---


def _expectation_forgotten(state: Tables, fact: f.ExpectationForgotten, at: datetime, seq: int) -> None:
    del state.beats.expected[fact.name]
    state.forget_told(f"expectation:{fact.name}")


def _notice_failed(state: Tables, fact: f.NoticeFailed, at: datetime, seq: int) -> None:
    state.notice_failed = fact
    state.unheard.pop(fact.to, None)
    if not fact.over:
        state.unheard[fact.to] = fact
    if len(state.unheard) > MAX_UNHEARD:
        del state.unheard[next(iter(state.unheard))]


def _notice_given(state: Tables, fact: f.NoticeGiven, at: datetime, seq: int) -> None:
    state.told[fact.about, fact.event] = msgspec.structs.replace(fact, turns=False)
    for event in OPPOSITE.get(fact.event, ()) if fact.turns else ():
        if told := state.told.get((fact.about, event)):
            state.told[fact.about, event] = msgspec.structs.replace(told, given=0)


# --- the daemon ---


def _daemon_started(state: Tables, fact: f.DaemonStarted, at: datetime, seq: int) -> None:
    state.tz, state.zones, state.started_at = fact.tz, fact.zones, at
    state.untold = OrderedDict(state.unread)
    state.beats.give_grace(_beats_from(state, at))
    for worker in state.workers.values():
        if worker.connected:
            _away(state, worker, at, fact.lease_until_at)
    for run in state.runs.values():
        if fact.restored:
            run.instance = NOBODYS
        # The clock stood still while no daemon ran: nobody loses a lease he could not renew. Once
        # only, or many starts would keep the slot of a run that nobody has taken for ever.
        if run.lease_until_at is not None and not run.lease_renewed:
            state.lease(run, max(run.lease_until_at + state.set_by, fact.lease_until_at))
            run.lease_renewed = True


def _beats_from(state: Tables, at: datetime) -> datetime:
    paused_until_at = state.paused_until_at if state.paused_all else None
    return max(at, paused_until_at) if paused_until_at else at


def _clock_stepped(state: Tables, fact: f.ClockStepped, at: datetime, seq: int) -> None:
    """Durations stay what they are: what was to last 30 s lasts 30 s, whatever the clock shows then."""
    state.last_step_s, state.last_step_at = fact.by_s, at
    if fact.by_s < -BIG_STEP_S:
        state.decided_upto_at, state.jumped_upto_at = at, None
    elif fact.by_s > BIG_STEP_S and at - timedelta(seconds=fact.by_s) >= OLDEST_TIME:
        state.jumped_upto_at, state.jumped_by_s = at, fact.by_s
    by = timedelta(seconds=fact.by_s)
    state.set_by += by
    state.beats.step(by)
    if fact.by_s > FAR_S:
        state.beats.give_grace(_beats_from(state, at))
    else:
        state.beats.give_grace(_beats_from(state, state.beats.from_at + by))


def _others(state: Tables, task: Task, run: Run) -> bool:
    """Whether others of its fire have not ended."""
    return any(state.runs[other].fire == run.fire for other in task.runs)


def _count(task: Task, outcome: Outcome, is_last: bool = False) -> None:
    """One more fire of a task has ended, or several have passed."""
    if (counts := task.counts) is None:
        counts = task.counts = {}
    try:
        counts[outcome.state] += outcome.count
    except KeyError:
        counts[outcome.state] = outcome.count
    if task.failure or outcome.state != WELL:
        task.failure = judge(task.failure, outcome)
    if is_last:
        task.last_state, task.last_ended_at = outcome.state, outcome.ended_at


# --- the door ---

_APPLY: dict[type[f.Fact], Applier] = {
    **carried.APPLY,
    **access.APPLY,
    **once.APPLY,
    f.TaskAdded: noted(_task_added),
    f.TaskChanged: noted(_task_changed),
    f.TaskRescheduled: lambda state, fact, at, seq: state.set_due(state.tasks[fact.id], fact.due_at),
    f.TaskRemoved: noted(_task_removed),
    f.TaskRestored: noted(_task_restored),
    f.TemplateSet: noted(_template_set),
    f.TaskPaused: noted(_task_paused),
    f.TaskResumed: noted(_task_resumed),
    f.RescheduleBegun: lambda state, fact, at, seq: state.unfinished.reschedule_begun(fact),
    f.RescheduleStepped: lambda state, fact, at, seq: state.unfinished.reschedule_stepped(fact),
    f.BulkStaged: _bulk_staged,
    f.BulkDecided: noted(lambda state, fact, at, seq: state.unfinished.bulk_decided(fact)),
    f.BulkStepped: lambda state, fact, at, seq: state.unfinished.bulk_stepped(fact),
    f.BulkEnded: _bulk_ended,
    f.FiresPassed: _fires_passed,
    f.RecordUnread: _record_unread,
    f.RunQueued: _run_queued,
    f.EventEmitted: lambda state, fact, at, seq: state.emit(fact),
    f.RunAdmitted: _run_admitted,
    f.RunSent: _run_sent,
    f.RunUnsent: _run_unsent,
    f.RunStarted: _run_started,
    f.OutputReceived: _output_received,
    f.RunStopping: _run_stopping,
    f.RunEnded: _run_ended,
    f.RunRetried: _run_retried,
    f.RunReleased: _run_released,
    f.FlowStarted: lambda state, fact, at, seq: state.flows.started(fact, at),
    f.FlowRetried: lambda state, fact, at, seq: state.flows.retried(fact),
    f.FlowStopping: lambda state, fact, at, seq: state.flows.was_stopped(fact),
    f.FlowEnded: lambda state, fact, at, seq: state.flows.has_ended(fact, at),
    f.FlowCarried: lambda state, fact, at, seq: state.flows.carried(fact),
    f.WorkerJoined: _worker_joined,
    f.WorkerLeft: lambda state, fact, at, seq: _away(
        state, state.workers[fact.name], at, fact.lease_until_at
    ),
    f.WorkerLeaving: _worker_leaving,
    f.WorkerDrained: _worker_drained,
    f.ExpectationSet: lambda state, fact, at, seq: state.beats.set(fact, at),
    f.BeatReceived: lambda state, fact, at, seq: state.beats.receive(fact, at),
    f.BeatMissed: lambda state, fact, at, seq: state.beats.miss(fact),
    f.ExpectationForgotten: _expectation_forgotten,
    f.NoticeGiven: _notice_given,
    f.NoticeFailed: _notice_failed,
    f.DaemonStarted: _daemon_started,
    f.ClockStepped: _clock_stepped,
    f.TasksSaved: lambda state, fact, at, seq: state.keep_saved([fact]),
    f.CheckpointWritten: lambda state, fact, at, seq: None,
}


class State(Tables):
    """The tables, and the one way in and out of them."""

    def apply(self, fact: f.Fact, at: datetime, seq: int = 0) -> None:
        """Makes `fact`, which happened at `at`, true."""
        self.told_at = at
        if self.news:
            catch_up(self, fact)
        _APPLY[type(fact)](self, fact, at, seq)

    def carry(self) -> Iterator[f.Fact]:
        """The whole state as facts; applied to an empty State they give this one again."""
        return carried.carry(self)

    def parse_again(self) -> Generator[None, None, None]:
        """Reads every definition with today's zone data; facts hold texts, so no fact is needed for that."""
        for task in self.tasks.walk():
            if task is not None:
                self._parse_again(task)
            yield
        for run in list(self.runs.values()):
            yield
            task = self.tasks.get(run.task_id)
            if run.id in self.runs and not (task and task.spec is run.spec):
                is_its = task and task.spec.record == run.spec.record
                run.spec = task.spec if task and is_its else self.read(run.spec.record)
                self.put_run(run)
        yield from self.changes.forget_parsed()

    def _parse_again(self, task: Task) -> None:
        old, new = task.spec, self.read(task.spec.record)
        if old.unread or new.unread:
            self.take_out(task)
            task.spec = new
            self.put(task)  # with all that may be read of it now, or no longer
        task.spec, task.run_head = new, ""
