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

from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from ..base.errors import Refusal
from ..tasks.reasons import reason
from ..tasks.task import Run
from . import calendars, expectations, notices
from . import facts as f
from . import orders as o
from .accounts import ACCESS
from .alarms import Alarms
from .definitions import DEFINE, undecided_from
from .dependencies import next_judgement
from .fires import FIRED_TOGETHER, FIRES, fire_now, fires_alone, next_orphan, next_unread, out_of_bounds
from .flows import FLOWS, next_in_flows
from .many import MANY, is_planned
from .placement import PLACED_TOGETHER, choose
from .rules import Decision, Limits, Rule, Rules
from .runs import RUNS, WORKERS
from .slices import SLICES, Slices, look_again, reschedule
from .state import BIG_STEP_S, OLDEST_TIME, State
from .undo import UNDO
from .unfinished import Again

MAX_SLEW_S = 1.0  # a clock that is behind the journal by more was set back
FIRES_AHEAD = 200  # moments that are decided before the first of them is placed


# --- the daemon ---


def _start(state: State, order: o.StartDaemon, now: datetime, limits: Limits) -> Decision:
    back_s = (state.told_at - now).total_seconds()
    # Set back while no daemon ran; by how much more than this, nobody knows.
    facts: list[f.Fact] = [f.ClockStepped(-back_s)] if back_s > MAX_SLEW_S else []
    if state.unfinished.bulk and not state.unfinished.bulk.is_decided:
        facts.append(f.BulkEnded("dropped"))
    lease_until_at = now + timedelta(seconds=limits.lease_s)
    here = (worker.name for worker in state.workers.values() if worker.connected)
    facts += [f.WorkerLeft(name, reason("daemon-ended"), lease_until_at) for name in here]
    facts.append(f.DaemonStarted(order.version, order.tz, lease_until_at, order.restored, order.zones))
    # In another zone, or with other zone data than the moments were found by.
    moved, is_renewed = bool(state.tz) and state.tz != order.tz, state.zones != order.zones
    # One that shows a time before this program was written has not been set yet: see OLDEST_TIME.
    if back_s > BIG_STEP_S and now >= OLDEST_TIME:
        facts += reschedule(state, now)
    elif moved or is_renewed:
        facts += reschedule(state, undecided_from(state, now), zoneless=not is_renewed)
    # Without a moment: one that could not be read at the last start, and can be now.
    facts += look_again(
        Again(undecided_from(state, now), False),
        [task for task in state.tasks.made() if task.due_at is None],
    )
    facts += expectations.rescheduled(state, now) if moved or is_renewed else ()
    messages: list[tuple[str, str]] = []
    first_run = state.next_run
    for task in state.tasks.made() if order.is_reboot else ():
        if task.spec.schedule.kind != "reboot" or task.is_used_up or out_of_bounds(task.spec, now):
            continue
        fired = fire_now(state, task, "reboot", now, first_run=first_run)
        facts += fired.facts
        messages += fired.messages
        first_run += sum(isinstance(fact, f.RunQueued) for fact in fired.facts)
    return Decision(facts, None, messages)


def _step(state: State, order: o.NoticeStep, now: datetime, limits: Limits) -> Decision:
    # What it was set forward over is decided as it comes due; see `come`.
    again = reschedule(state, now) if order.by_s < -BIG_STEP_S else []
    return Decision([f.ClockStepped(order.by_s), *again])


def _reschedule_all(state: State, order: o.RescheduleTasks, now: datetime, limits: Limits) -> Decision:
    again = reschedule(state, undecided_from(state, now))
    are_few = len(state.beats.expected) <= expectations.AT_ONCE
    return Decision(again + list(expectations.rescheduled(state, now) if are_few else ()))


def _learn(state: State, order: o.LearnCalendars, now: datetime, limits: Limits) -> Decision:
    facts: list[f.Fact] = [calendars.CalendarDropped(name) for name in order.dropped]
    return Decision([*facts, *calendars.learned(state.calendars, order.found, now)])


def _tell_unread(state: State, order: o.TellUnread, now: datetime, limits: Limits) -> Decision:
    task = state.tasks[order.task]
    assert task.spec.unread
    return Decision([f.RecordUnread(task.id, task.name, task.spec.unread.why)])


_RULES: Rules = {
    **DEFINE,
    **UNDO,
    **SLICES,
    **FIRES,
    **RUNS,
    **FLOWS,
    **MANY,
    **WORKERS,
    **expectations.EXPECT,
    **ACCESS,
    o.StartDaemon: Rule(_start),
    o.NoticeStep: Rule(_step),
    o.RescheduleTasks: Rule(_reschedule_all),
    o.LearnCalendars: Rule(_learn),
    o.Note: Rule(lambda state, order, now, limits: Decision([order.fact], order.reply)),
    o.TellUnread: Rule(_tell_unread),
}


def verb_of(order: Any) -> str:
    """What a client says for it."""
    return _RULES[type(order)].verb


class Engine:
    """Decides. Its only state is `State`, which it reads, and how far it has got with large changes."""

    def __init__(self, state: State, limits: Limits | None = None) -> None:
        self.state = state
        self.limits = limits or Limits()
        self.slices = Slices()
        self._alone = 0  # so many orders that could be of several are to be of one each
        self._events_aside = set[int]()  # tasks that cannot fire now for what was emitted
        self._fired = 0  # tasks whose moment was decided since runs were last placed
        # What ends goes before what begins.
        self._alarms: tuple[tuple[Alarms[int, Run], Callable[[int], Any]], ...] = (
            (state.leases, o.LoseRun),
            (state.timeouts, o.TimeoutRun),
            (state.missed, o.ExpireRun),
            (state.delayed, o.ReleaseRun),
        )

    def decide(self, order: Any, now: datetime, who: str | None = None) -> Decision:
        """What `order` leads to at `now`, if `who` gives it. Raises Refusal, and then nothing happened."""
        rule = _RULES[type(order)]
        is_busy = self.state.unfinished.bulk or self.slices.planning
        if is_busy and rule.is_exclusive and not is_planned(order):
            self.check_free()
        decision = rule.decide(self.state, order, now, self.limits)
        if rule.verb:
            rule.sign(self.state, order, decision.facts, who)
        for fact in decision.facts:
            if type(fact) in notices.LOOK:
                told = notices.tell(self.state, self.limits, decision.facts, now)
                if told:
                    decision.facts += told
                    decision.warning = notices.unheard(told)
                break
        return decision

    def check_free(self) -> None:
        """Refuses what would change tasks while very many are being changed."""
        bulk = self.state.unfinished.bulk
        if what := self.slices.planning or (bulk and bulk.kind.upper()):
            raise Refusal("busy", f"{what} of very many tasks is under way; try again when it is done")

    def next_slice(self, now: datetime) -> Any | None:
        """The next small part of what concerns very many tasks; the same again until it was taken."""
        return self.slices.next(self.state, now)

    def is_jumping(self, now: datetime) -> bool:
        """Whether moments that the clock was set forward over have yet to be decided: new ones come later."""
        upto_at, due = self.state.jumped_upto_at, self.state.due
        return upto_at is not None and bool((first := due.first()) and first[0] <= min(now, upto_at))

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
        if state.to_end:
            return next_orphan(state)
        measured = now - state.set_by
        for alarms, order in self._alarms:
            may_be = (alarms.heap and alarms.heap[0][0] <= measured) or alarms.old
            if may_be and (run := alarms.next_due(measured)) is not None:
                return order(run)
        if state.beats.late.heap and (silent := expectations.next_step(state, now)):
            return silent
        if self._fired < FIRES_AHEAD or not state.lanes.ready:
            if (due := state.due.first()) and due[0] <= now:
                return self._when_due(due)
            if state.emitted and (task_id := self._next_on()):
                self._fired += 1
                return o.FireOn(task_id)
            flows = state.flows
            if (flows.todo or flows.fresh or flows.held) and (follows := next_in_flows(state, now)):
                self._fired += 1
                return follows
            if (state.to_judge or state.news) and (judged := next_judgement(state)):
                return judged
        lanes = state.lanes
        if (lanes.ready or lanes.leaving or lanes.tired) and (placing := self._next_places()):
            return placing
        is_more_due, self._fired = self._fired >= FIRES_AHEAD, 0
        return self.next_step(now) if is_more_due else None

    def _next_places(self) -> Any | None:
        """Where the next runs go; several in one decision, unless one of those before was refused."""
        if self.state.lanes.tired:
            self.state.lanes.go_on()
            return o.PassOver()
        together, self._alone = 1 if self._alone else PLACED_TOGETHER, max(0, self._alone - 1)
        places = choose(self.state, together)
        return o.PlaceRuns(places) if places else None

    def _next_on(self) -> int | None:
        """The next task to fire for an event."""
        if not self._events_aside:
            return self.state.emitted[0].tasks[0]
        every = (task_id for emitted in self.state.emitted for task_id in emitted.tasks)
        return next((task_id for task_id in every if task_id not in self._events_aside), None)

    def set_aside(self, order: Any) -> Callable[[], object] | None:
        """Lets all others go before what `next_step` gave; the answer brings it back. None: parts do."""
        state = self.state
        match order:
            case o.FireOn(task=task_id):
                self._events_aside.add(task_id)
                return partial(self._events_aside.discard, task_id)
            case o.PlaceRuns(places=[(run_id, _)]):
                return state.lanes.set_aside(run_id)
            case o.PlaceRuns(places=several) | o.FireTasks(tasks=[_, _, *_] as several):
                self._alone = len(several)  # the next ones are decided one by one: some can be
                return None
            case o.TellUnread(task=task_id):
                del state.untold[task_id]
                return lambda: task_id in state.unread and state.untold.setdefault(task_id)
            case o.BreakRun(run=run_id) if run_id in state.unread_runs:
                return _first_aside(state.unread_runs)
            case o.EndRun():
                return _first_aside(state.to_end)
            case o.AdmitRun() | o.BreakRun() | o.FireAfter() | o.ReplaceRuns():
                return _first_aside(state.to_judge)
            case o.StartMember() | o.SkipMember() | o.StopMember() | o.EndFlow():
                return _first_aside(state.flows.todo)
        alarms: Any = {kind: alarms for alarms, kind in self._alarms} | {o.MissBeat: state.beats.late}
        return alarms.get(type(order), state.due).set_aside()  # type: ignore[no-any-return]

    def _when_due(self, first: tuple[Any, ...]) -> Any:
        """What is done about the entry that is first of those that are due."""
        state, task_id = self.state, first[-1]
        task = state.tasks.get(task_id)
        if task is None or task.due_at != first[0]:
            return o.PassOver()
        again = state.unfinished.again
        if again is not None and again.waits(task):
            return o.RescheduleTask(task_id)
        tasks = [task_id]
        if self._alone:
            self._alone -= 1
        elif again is None and state.tasks.are_made and not fires_alone(state, task):
            for other in state.due.beside(first, FIRED_TOGETHER - 1):
                if (task := state.tasks.get(other)) and task.due_at == first[0] and other not in tasks:
                    if fires_alone(state, task):
                        break
                    tasks.append(other)
        self._fired += len(tasks)
        return o.FireTasks(tasks)

    def next_due(self) -> datetime | None:
        """When `next_step` has something again, if nothing else happens; None = never."""
        state = self.state
        times = [first[0] + state.set_by for alarms, _ in self._alarms if (first := alarms.first())]
        if first := state.due.first():
            times.append(first[0])
        if pause := state.flows.pauses.first():
            times.append(pause[0])
        if late_at := expectations.next_due(state):
            times.append(late_at)
        return min(times, default=None)


def _first_aside(queue: OrderedDict[Any, Any]) -> Callable[[], object]:
    return partial(queue.setdefault, *queue.popitem(last=False))
