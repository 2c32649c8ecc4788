"""What becomes of a due moment, and how runs end: the rules that several orders share.

Pure functions of the state, as everything that decides. A moment starts a run unless the
task is paused or cannot be read (skipped), the moment is later than catchup= and grace= allow (missed), or
overlap= says no to another run (skipped). After downtime all moments that were due
meanwhile are judged in one step, whatever their number.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from ..base.errors import Refusal
from ..base.replies import Reply
from ..base.text import format_option, format_time
from ..schedules.timetable import TICK, share_of
from ..schedules.zones import SECOND
from ..tasks.options import masked
from ..tasks.reasons import Reason, reason, shortened
from ..tasks.task import MAX_PARKED_RUNS, WAITING, Run, Task, TaskSpec
from . import facts as f
from . import orders as o
from .alarms import MAX_STALE
from .dependencies import flow_behind, standing, to_replace
from .notices import MAX_UNDER_WAY, tell
from .placement import MAX_PLACED_CHARS, Room, all_targets, send_at_once
from .rules import Decision, Limits, Message, Rule, Rules
from .state import State
from .tables import ENDED_AT_ONCE, MIN_GRACE_S, counts, of_one_fire, wait_ends

ON_TIME_S = 60.0  # catchup=skip: later than this is not "at its moment" any more
DAY = timedelta(days=1)
FIRED_TOGETHER = 20  # tasks in one decision, of those that are due at one moment
MAX_LISTENERS = 10_000  # of one event, so that an EMIT stays a short record
MAX_NAMING = 50_000  # tasks that name it, used up ones too: all are looked at
DRAWS = 2**32
NO_WORKER = reason("no-worker")
JUMPED_OVER = reason("jumped-over")

# What overlap= says of one more run: why not; or, where that is empty, whether it has to wait, what
# comes before it, and messages.
Overlap = tuple[Reason, bool, list[f.Fact], list[Message]]


def come(state: State, task: Task, now: datetime, first_run: int = 0) -> Decision:
    """A task is due: it fires, unless the clock was set forward over its moments."""
    upto_at = state.jumped_upto_at
    if upto_at and task.due_at and task.due_at <= upto_at:
        return Decision(jump(state, task, min(now, upto_at), state.jumped_by_s))
    return fire(state, task, now, first_run)


def fires_alone(state: State, task: Task) -> bool:
    """Whether what becomes of its fire may change what becomes of those that are due with it.

    One that wants secrets waits for its place, where nobody passes it.
    """
    options = task.spec.options
    return options.on == "all" or bool(options.wants) or task.spec.name in state.dependents


def _fire_tasks(state: State, order: o.FireTasks, now: datetime, limits: Limits) -> Decision:
    decision, first_run, size = Decision(), state.next_run, 0
    room = Room(state.lanes)
    for task_id in order.tasks:
        task = state.tasks[task_id]
        fired = come(state, task, now, first_run)
        send_at_once(state, task, fired, now, room)
        if task.spec.name in state.dependents:
            _begin_flow(state, task, fired.facts, None, now)
        decision.facts += fired.facts
        decision.messages += fired.messages
        last: Any = fired.facts[-1]
        if last.__class__ is f.RunQueued:
            first_run += 1
        size += len(fired.messages[-1][1]) if fired.messages else 0
        # It may be due at this very instant again: a clock change brought several moments to it.
        if size > MAX_PLACED_CHARS or getattr(last, "next_due_at", None) == task.due_at:
            break
        if (task.spec.options.notify.targets or limits.notify) and _is_told(state, limits, fired.facts, now):
            break
    return decision


def _is_told(state: State, limits: Limits, facts: Sequence[f.Fact], now: datetime) -> bool:
    """Whether a notification waits for a worker from then on, and what is less urgent must not pass it."""
    if len(state.notices) >= MAX_UNDER_WAY:
        return False  # after a night without the daemon; all are only counted then
    return any(isinstance(fact, f.RunQueued) for fact in tell(state, limits, facts, now))


def _begin_flow(
    state: State, task: Task, facts: list[f.Fact], args: dict[str, str] | None, now: datetime
) -> None:
    """Where one task starts all others that hang together with it, its moments begin runs of that flow."""
    queued = [fact for fact in facts if isinstance(fact, f.RunQueued)]
    if task.spec.options.after or not queued or not (members := flow_behind(state, task, now)):
        return
    number = state.flows.next_number
    facts.insert(0, f.FlowStarted(number, task.id, task.name, members, args, who=""))
    for each in queued:
        each.flow = number
        facts.append(flow_remark(each.run, number))
    for fact in facts:
        if isinstance(fact, f.RunEnded) and fact.state == "skipped":  # the others were replaced
            fact.flow = number


def fire(state: State, task: Task, now: datetime, first_run: int) -> Decision:
    """One due moment; or, after downtime, all that were due meanwhile, in one step."""
    assert task.due_at is not None
    first, newest, moments, anchor = task.due_at, task.due_at, task.spec.moments, task.anchor_at
    following = moments.next_after(first, anchor)
    if following is not None and following <= now:
        if task.spec.options.catchup == "all":
            cutoff = now - timedelta(seconds=max(task.spec.options.grace_s, MIN_GRACE_S))
            if first < cutoff and (last := moments.latest(first, cutoff - TICK, anchor)):
                return Decision(pass_range(state, task, first, last, "missed", reason("grace")))
        else:
            newest = moments.latest(first, now, anchor) or first
    may_be_held = task.paused or state.paused_all or task.spec.unread
    if may_be_held and (why := _why_held(state, task, newest)):
        return Decision(pass_range(state, task, first, newest, "skipped", why))
    facts: list[f.Fact] = []
    chosen = _newest_working(state, task, newest, now) if task.spec.options.skip else newest
    if chosen != first:
        last = moments.latest(first, chosen - SECOND, anchor) or first
        facts += pass_range(state, task, first, last, "missed", JUMPED_OVER)
    if chosen == newest:
        following = following if newest == first else None
        decision = _start_newest(state, task, newest, now, following, first_run)
    elif (decided := _decided(task, chosen)) + 1 < moments.times_at(chosen, anchor):
        decision = _start(state, task, chosen, "schedule", now, chosen, decided, first_run)
    else:
        begin = moments.next_after(chosen, anchor) or newest
        facts += pass_range(state, task, begin, newest, "missed", JUMPED_OVER)  # days off, all of them
        following = moments.next_after(newest, anchor)
        decision = _start(state, task, chosen, "schedule", now, following, decided, first_run)
    decision.facts[:0] = facts
    return decision


def _newest_working(state: State, task: Task, newest: datetime, now: datetime) -> datetime:
    """The newest moment on a working day, if it is not too late for it; else the newest of all."""
    spec, moments, anchor = task.spec, task.spec.moments, task.anchor_at
    assert task.due_at is not None
    oldest = max(task.due_at, now - timedelta(seconds=_patience_s(task)))
    at: datetime | None = newest
    while at is not None and at >= oldest:
        if not day_off(state, spec, at):
            return at
        zone = spec.schedule.zone
        at = moments.latest(task.due_at - TICK, zone.begin(zone.day(at)) - TICK, anchor)
    return newest


def _patience_s(task: Task) -> float:
    """How late a moment may still start something."""
    options = task.spec.options
    return ON_TIME_S if options.catchup == "skip" else max(options.grace_s, MIN_GRACE_S)


def jump(state: State, task: Task, now: datetime, by_s: float) -> list[f.Fact]:
    """What the clock was set forward over when that is too far to catch up: none of it starts anything."""
    assert task.due_at is not None
    newest = task.spec.moments.latest(task.due_at, now, task.anchor_at) or task.due_at
    if why := _why_held(state, task, newest):
        return pass_range(state, task, task.due_at, newest, "skipped", why)
    return pass_range(state, task, task.due_at, newest, "missed", reason("clock-set", by_s=round(by_s)))


def _why_held(state: State, task: Task, at: datetime) -> Reason:
    """Why no moment starts anything, whatever else is so; empty if it may."""
    return task.spec.unread.reason if task.spec.unread else why_paused(state, task, at)


def why_paused(state: State, task: Task, at: datetime) -> Reason:
    """The pause that is on then, with what was said of it; empty if there is none."""
    if not state.is_paused(task, at):
        return ""
    return reason("paused", text=task.paused_why or state.paused_why or None)


def _start_newest(
    state: State, task: Task, due_at: datetime, now: datetime, following: datetime | None, first_run: int
) -> Decision:
    decided = _decided(task, due_at)
    after = _after(task, due_at, decided, following)
    late_s = (now - due_at).total_seconds()
    if task.spec.options.skip and (why := day_off(state, task.spec, due_at)):
        return Decision(_passed_one(task, "skipped", due_at, why, after))
    if late_s > MIN_GRACE_S and late_s > _patience_s(task):
        why = reason("late", late_s=round(late_s), catchup=task.spec.options.catchup)
        return Decision(_passed_one(task, "missed", due_at, why, after))
    return _start(state, task, due_at, "schedule", now, after, decided, first_run)


def _start(
    state: State,
    task: Task,
    due_at: datetime,
    by: str,
    now: datetime,
    following: datetime | None = None,
    decided: int = 0,
    first_run: int = 0,
) -> Decision:
    """A fire that nothing but overlap= and its dependencies can hold any more."""
    settles = by == "after"  # or it would fire again for the same ends
    first_run = first_run or state.next_run
    targets, kept, (why, parked, before, messages) = let_in(state, task, first_run, now)
    if why:
        return Decision(_passed_one(task, "skipped", due_at, why, following, settles))
    options = task.spec.options
    waits, broken = standing(state, task) if options.after and not parked else ([], "")
    if broken:
        return Decision(_passed_one(task, "skipped", due_at, broken, following, True))
    if not targets:
        return Decision(_passed_one(task, "missed", due_at, NO_WORKER, following, settles))
    if 0 < options.count <= task.fired + 1:
        following = None
    ends: list[f.Fact] = []  # behind all of them, or they would not be of one fire
    for run, target in enumerate(targets, first_run):
        not_before_at = delay(task, due_at, f"{decided}{target}", now) if options.jitter_s else None
        queued = f.RunQueued(run, task.id, due_at, by, following, None, parked, not_before_at)
        if target in kept:
            queued.parked, queued.not_before_at = True, None
            held = Run(run, task.id, task.spec, due_at=due_at, queued_at=now, by=by)
            ends += ended_waiting(held, "skipped", kept[target])
        queued.nth, queued.awaits, queued.target = decided + 1, bool(waits), target
        before.append(queued)
    return Decision(before + ends, None, messages)


def let_in(
    state: State, task: Task, first_run: int, now: datetime
) -> tuple[Sequence[str], dict[str, Reason], Overlap]:
    """Whom a run is for; on which of those overlap= lets none in, and why; what it says of the others.

    With on=all and overlap=skip one that is away, or slow, does not keep the task from all others.
    """
    said = overlap(state, task, first_run, now)
    # As `targets_of` has them, without a call: each fire comes by here.
    targets = all_targets(state, task.spec, now) if task.spec.options.on == "all" else ANY
    if not said[0]:
        return targets, {}, said
    kept = _busy(state, task, targets, said[0], now)
    if len(kept) < len(targets):
        said = "", *said[1:]
    return targets, kept, said


def _busy(state: State, task: Task, targets: Sequence[str], why: Reason, now: datetime) -> dict[str, Reason]:
    options, runs = task.spec.options, list(_in_the_way(state, task, now))
    is_each_alone = options.on == "all" and not options.after and all(run.target for run in runs)
    if not is_each_alone or (options.overlap or state.common.overlap) != "skip":
        return dict.fromkeys(targets, why)
    first = {run.target: reason("overlap", run=run.id, state=run.shown) for run in reversed(runs)}
    return {target: first[target] for target in targets if target in first}


def next_unread(state: State) -> Any | None:
    """What follows from records that cannot be read, as the next order: their runs end, and they are told."""
    while state.unread_runs:
        run_id = next(iter(state.unread_runs))
        run = state.runs.get(run_id)
        if run and run.spec.unread and run.state in WAITING:
            return o.BreakRun(run_id, run.spec.unread.reason)
        del state.unread_runs[run_id]
    return o.TellUnread(next(iter(state.untold))) if state.untold else None


def next_orphan(state: State) -> Any | None:
    """What still waits of a task that is gone, as the next order."""
    task_id, looked_at = next(iter(state.to_end.items()))
    if why := state.leaving.get(task_id):
        runs = state.orphans[task_id]
        begin = bisect_right(runs, looked_at)  # they stand in the order of their numbers
        for run in [runs[at] for at in range(begin, min(begin + MAX_STALE, len(runs)))]:
            if state.runs[run].state in WAITING:
                return o.EndRun(run, reason(why))
            state.to_end[task_id] = run
        if begin + MAX_STALE < len(runs):
            return o.PassOver()
    del state.to_end[task_id]
    return o.PassOver()


ANY = ("",)


def targets_of(state: State, spec: TaskSpec, now: datetime) -> Sequence[str]:
    """The workers that a fire is for, one run each; an empty one stands for any that on= allows."""
    return all_targets(state, spec, now) if spec.options.on == "all" else ANY


def fire_now(
    state: State, task: Task, by: str, now: datetime, broken: Reason = "", first_run: int = 0
) -> Decision:
    """What no clock starts (@after, @on, @reboot) fires now; `broken` is a dependency's failure."""
    if why := why_unfit(state, task, now, broken):
        return Decision(_passed_one(task, "skipped", now, why, None, by == "after"))
    return _start(state, task, now, by, now, first_run=first_run)


def emit(state: State, order: o.EmitEvent, now: datetime, limits: Limits) -> Decision:
    """EMIT: who waits for it fires, in steps of their own; nothing was missed by those who come later."""
    every = state.listeners.get(order.event, ())
    waiting = (task_id for task_id in every if not state.tasks[task_id].is_used_up)
    if len(every) > MAX_NAMING:
        raise Refusal(
            "limit", f"more than {MAX_NAMING} tasks name {order.event}, used up ones too; no more can"
        )
    tasks = sorted(islice(waiting, MAX_LISTENERS + 1))
    if len(tasks) > MAX_LISTENERS:
        raise Refusal("limit", f"more than {MAX_LISTENERS} tasks wait for {order.event}; no more can")
    reply = Reply(f"{len(tasks)}", {"tasks": len(tasks)})
    return Decision([f.EventEmitted(order.event, now, tasks, order.args or None)] if tasks else [], reply)


def _fire_on(state: State, order: o.FireOn, now: datetime, limits: Limits) -> Decision:
    """As it would have been when it was emitted: the daemon may have been killed just then."""
    task, emitted = state.tasks[order.task], state.unanswered[order.task][0]
    if task.is_used_up:
        decision = Decision(_passed_one(task, "skipped", emitted.due_at, reason("used-up"), None))
    else:
        decision = fire_now(state, task, "on", emitted.due_at)
    is_first = True
    for fact in decision.facts:
        if isinstance(fact, f.RunQueued):
            fact.args, fact.who = emitted.args, emitted.who
        if isinstance(fact, f.FiresPassed) or (isinstance(fact, f.RunEnded) and fact.state == "skipped"):
            fact.cause = cause("emitted", emitted.event, emitted.who, emitted.args)
        if isinstance(fact, f.RunQueued | f.FiresPassed):
            fact.emitted, is_first = is_first, False
    if task.spec.name in state.dependents:
        _begin_flow(state, task, decision.facts, emitted.args, now)
    return decision


def _fire_after(state: State, order: o.FireAfter, now: datetime, limits: Limits) -> Decision:
    return fire_now(state, state.tasks[order.task], "after", now, order.broken)


def start_now(state: State, task: Task, now: datetime) -> Decision:
    """NOW: a fire that somebody asked for, paused or not; `task` need not be in the tables yet."""
    if why := day_off(state, task.spec, now):
        return Decision(_passed_one(task, "skipped", now, why, None))
    return _start(state, task, now, "schedule", now)


def admit(state: State, first: Run) -> list[f.Fact]:
    """Its dependencies have ended well; with on=all that lets all runs of its fire go on."""
    runs = [state.runs[run] for run in state.tasks[first.task_id].runs]
    return [f.RunAdmitted(run.id) for run in of_one_fire(run for run in runs if run.state == "awaiting")]


def why_unfit(state: State, task: Task, now: datetime, broken: Reason = "") -> Reason:
    """Why what no clock starts must not start now; empty if it may."""
    why = _why_held(state, task, now) or day_off(state, task.spec, now) or broken
    return why or out_of_bounds(task.spec, now)


def out_of_bounds(spec: TaskSpec, now: datetime) -> Reason:
    """Why start= and end= let nothing start at this moment; for what the clock does not start."""
    options = spec.options
    if options.start_at is not None and now < options.start_at:
        return reason("before-start", at=format_time(options.start_at))
    if options.end_at is not None and now > options.end_at:
        return reason("after-end", at=format_time(options.end_at))
    return ""


def _after(task: Task, due_at: datetime, decided: int, following: datetime | None) -> datetime | None:
    """The moment that comes next: this very instant again if a clock change brought several to it."""
    moments, anchor = task.spec.moments, task.anchor_at
    if decided + 1 < moments.times_at(due_at, anchor):
        return due_at
    return following or moments.next_after(due_at, anchor)


def _passed_one(
    task: Task, state: str, due_at: datetime, why: Reason, following: datetime | None, settles: bool = False
) -> list[f.Fact]:
    fact = f.FiresPassed(task.id, task.name, state, due_at, due_at, 1, why, following)
    fact.settles = settles
    return _tidy(task, [fact], following)


def pass_range(
    state: State, task: Task, first: datetime, last: datetime, disposition: str, why: Reason
) -> list[f.Fact]:
    """All moments from first to last start nothing; of missed ones, some would have been skipped."""
    moments, anchor = task.spec.moments, task.anchor_at
    following = moments.next_after(last, anchor)
    facts: list[f.Fact] = []
    if disposition == "missed" and (edge := _last_paused(state, task, first, last)):
        facts.append(_passed_all(task, "skipped", first, edge, why_paused(state, task, edge), following))
        if edge == last:
            return _tidy(task, facts, following)
        first = moments.next_after(edge, anchor) or last
    rest = _passed_all(task, disposition, first, last, why, following)
    off = _moments_off(state, task, first, last) if disposition == "missed" else []
    if count_off := sum(number for *_, number in off):
        days = reason("calendar", name=",".join(task.spec.options.skip))
        span = off[0][0], off[-1][1]
        facts.append(f.FiresPassed(task.id, task.name, "skipped", *span, count_off, days, following))
        rest.count -= count_off
    if rest.count:
        facts.insert(0, rest)
    return _tidy(task, facts, following)


def _passed_all(
    task: Task, state: str, first: datetime, last: datetime, why: Reason, following: datetime | None
) -> f.FiresPassed:
    moments, anchor = task.spec.moments, task.anchor_at
    count = moments.times_at(first, anchor) - _decided(task, first) + moments.count(first, last, anchor)
    # One at least came due, though what cannot be read any more does not know of it.
    return f.FiresPassed(task.id, task.name, state, first, last, max(1, count), why, following)


def _decided(task: Task, at: datetime) -> int:
    """How many of the moments at this instant have been decided already."""
    return task.decided if at == task.due_at else 0


def _last_paused(state: State, task: Task, first: datetime, last: datetime) -> datetime | None:
    """The last of these moments that fell into a pause which is over now."""
    own = task.paused_until_at if task.paused else None
    every = state.paused_until_at if state.paused_all else None
    until = max(filter(None, (own, every)), default=None)
    if until is None or first >= until:
        return None
    return task.spec.moments.latest(first - TICK, min(until - TICK, last), task.anchor_at)


def _moments_off(
    state: State, task: Task, first: datetime, last: datetime
) -> list[tuple[datetime, datetime, int]]:
    """The moments from first to last on days off: (first, last, how many) of each day."""
    zone, moments, anchor = task.spec.schedule.zone, task.spec.moments, task.anchor_at
    found = []
    for day in state.calendars.days_off(task.spec.options.skip, zone.day(first), zone.day(last)):
        begin, end = max(zone.begin(day), first) - TICK, min(zone.begin(day + DAY) - TICK, last)
        number = moments.count(begin, end, anchor)
        earliest, latest = moments.next_after(begin, anchor), moments.latest(begin, end, anchor)
        if number and earliest and latest:
            found.append((earliest, latest, number - _decided(task, earliest)))
    return found


def day_off(state: State, spec: TaskSpec, at: datetime) -> Reason | None:
    """Why nothing runs on the day that this instant is in, in the task's zone; None if something does."""
    if not spec.options.skip:
        return None
    calendar = state.calendars.day_off(spec.options.skip, spec.schedule.zone.day(at))
    return calendar and reason("calendar", name=calendar)


def delay(task: Task, due_at: datetime, which: str, now: datetime) -> datetime:
    """When a fire with jitter= may start: drawn from its name, so that deciding again decides the same."""
    jitter_s = task.spec.options.jitter_s
    drawn = draw(f"{task.id} {task.name} {due_at.isoformat()} {which}")
    return now + timedelta(milliseconds=round(jitter_s * 1000 * drawn))


def draw(what: str) -> float:
    """A number from 0 to 1 that is random between things, and always the same for one of them."""
    return share_of(what, DRAWS) / DRAWS


def reopened(state: State, run: Run, now: datetime) -> list[f.Fact]:
    """With count=, a fire that no worker took leaves its place to another one."""
    task = state.tasks.get(run.task_id)
    if task is None or not (task.is_used_up and counts(task, run)):
        return []
    begin = max(now, state.decided_upto_at)  # a clock set back shows what was decided once again
    return [f.TaskRescheduled(task.id, task.spec.moments.next_after(begin, task.anchor_at))]


def _tidy(task: Task, facts: list[f.Fact], following: datetime | None) -> list[f.Fact]:
    """A one-off whose only moment has passed unused goes away like one that has run."""
    if following is None and task.spec.schedule.kind == "at" and not task.runs:
        facts.append(f.TaskRemoved(task.id, "done"))
    return facts


def _in_the_way(state: State, task: Task, now: datetime) -> Iterator[Run]:
    """Its runs, but for those that no worker took in time: a start fires @reboot before they end."""
    measured = now - state.set_by
    runs = map(state.runs.__getitem__, task.runs)
    return (run for run in runs if run.state != "queued" or wait_ends(run) > measured)


def overlap(state: State, task: Task, run: int, now: datetime) -> Overlap:
    """What overlap= says of a run with this number."""
    mode = task.spec.options.overlap or state.common.overlap
    if not task.runs or mode == "allow":
        return "", False, [], []
    if mode == "skip":
        first = next(_in_the_way(state, task, now), None)
        return reason("overlap", run=first.id, state=first.shown) if first else "", False, [], []
    if mode == "replace":
        # Of very many the others end in steps of their own, for which the new one waits, too.
        active = [state.runs[run] for run in islice(task.runs, ENDED_AT_ONCE)]
        facts, messages = _stop_all(active, reason("replaced", run=run))
        must_wait = len(task.runs) > ENDED_AT_ONCE or any(run.state not in WAITING for run in active)
        return "", must_wait, facts, messages
    active = [state.runs[run] for run in task.runs]
    waiting = sum(run.state == "parked" for run in active)
    if waiting >= (1 if mode == "queue1" else MAX_PARKED_RUNS):
        return reason("overlap-full", waiting=waiting, run=active[0].id), False, [], []
    return "", True, [], []


def _stop_all(runs: list[Run], why: Reason) -> tuple[list[f.Fact], list[Message]]:
    facts: list[f.Fact] = []
    messages: list[Message] = []
    for run in runs:
        if run.state == "stopping":
            continue
        more, lines = stop(run, "cancelled", why)
        facts += more
        messages += lines
    return facts, messages


def _replace_runs(state: State, order: o.ReplaceRuns, now: datetime, limits: Limits) -> Decision:
    task = state.tasks[order.task]
    facts, messages = _stop_all(to_replace(state, task), reason("replaced", run=state.replaced[task.id]))
    return Decision(facts, None, messages)


def stop(run: Run, state: str, why: Reason) -> tuple[list[f.Fact], list[Message]]:
    """Ends a run that waits; tells the worker of one that does not."""
    if run.state in WAITING:
        return ended_waiting(run, state, why), []
    if run.ends_as in (state, "cancelled"):
        return [], []
    assert run.worker is not None
    told = remark(run, reason("told-to-end", why=why, worker=run.worker))
    stopping = f.RunStopping(run.id, run.attempt, state)
    # A worker that was told of a timeout knows. It ends as this now, or another attempt would follow.
    kill = [(run.worker, f"KILL {run.id} {run.attempt}")] if run.state != "stopping" else []
    return [told, stopping], kill


def after_end(state: State, run: Run, facts: list[f.Fact]) -> list[f.Fact]:
    """A one-off leaves when its run has ended for good."""
    task = state.tasks.get(run.task_id)
    if task is None or task.spec.schedule.kind != "at" or task.due_at is not None:
        return []
    if not any(isinstance(fact, f.RunEnded) and fact.final for fact in facts):
        return []
    return [f.TaskRemoved(task.id, "done")] if len(task.runs) == 1 else []


def remark(run: Run, why: Reason) -> f.OutputReceived:
    """A line of the daemon's own in the run's LOG."""
    return f.OutputReceived(run.id, run.attempt, [[0, why]])


def left_out(run: int, kept: dict[str, Reason]) -> list[f.Fact]:
    """Where what somebody asked for does not run, in the LOG of the first that does; behind RunQueued."""
    lines = [[0, reason("not-on", worker=name, why=why)] for name, why in kept.items()]
    return [f.OutputReceived(run, 1, lines)] if lines else []


def flow_remark(run: int, flow: int) -> f.OutputReceived:
    """That a run belongs to the run of a flow, in its LOG; behind RunQueued."""
    return f.OutputReceived(run, 1, [[0, reason("flow", flow=flow)]])


def ended_waiting(run: Run, state: str, why: Reason) -> list[f.Fact]:
    """The end of a run that no worker has."""
    return [remark(run, why), ended(run, state, why=why)]


def ended(
    run: Run,
    state: str,
    exit_code: int | None = None,
    why: Reason = "",
    final: bool = True,
    started_at: datetime | None = None,
) -> f.RunEnded:
    # Of most there is little to tell, and each life ends here.
    plain: Reason = {"code": "asked", "who": run.who} if run.who else ""
    return f.RunEnded(
        run.id, run.attempt, run.task_id, run.spec.name, state, run.due_at, started_at, run.worker,
        exit_code, why or None, final, flow=run.flow,
        cause=cause_of(run) if run.args or run.by == "on" else plain,
    )  # fmt: skip


def cause_of(run: Run) -> Reason:
    """Empty where it was the clock, or what it waited for."""
    if not (run.who or run.args or run.by == "on"):
        return ""
    event = run.spec.schedule.event if run.by == "on" else ""
    return cause("emitted" if event else "asked", event, run.who, run.args)


def cause(code: str, event: str, who: str | None, args: dict[str, str] | None) -> Reason:
    """Who asked for a run, and with which arguments: for WHY, without secrets."""
    words = " ".join(format_option(name, masked(f"env.{name}", text)) for name, text in (args or {}).items())
    return shortened(reason(code, event=event or None, who=who, args=words or None))


def _end_run(state: State, order: o.EndRun, now: datetime, limits: Limits) -> Decision:
    return Decision(ended_waiting(state.runs[order.run], "cancelled", order.why))


FIRES: Rules = {
    o.EmitEvent: Rule(emit, "EMIT"),
    o.FireOn: Rule(_fire_on),
    o.FireTasks: Rule(_fire_tasks),
    o.FireAfter: Rule(_fire_after),
    o.EndRun: Rule(_end_run),
    o.ReplaceRuns: Rule(_replace_runs),
}
