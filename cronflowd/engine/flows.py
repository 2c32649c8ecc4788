"""FLOW: the tasks that hang together by after=, started, retried from what failed, and cancelled as one.

A run that somebody asks for runs each task once, whatever their schedules say, as RUN does: first those that
wait for none, every other one when all that it waits for have ended well in this run. What overlap= lets
not in, or whose dependency ended otherwise, is skipped; what is paused waits until it is not. A moment of
its own that waits for the same dependencies is taken for its turn.

Where one task alone starts all the others (each of which is @after), its moments begin runs of the flow, too
(`fires`), unless one of them is paused then: what has a day off is skipped in these, as it would be without.

One run of a flow at a time: no task is a member of two that are under way. Whatever may let a member go on
puts it into `Flows.todo`; what follows is an order of its own, one small step each.
"""

from __future__ import annotations

from collections.abc import Generator
from datetime import datetime
from typing import Any

from ..base.errors import Refusal
from ..base.replies import Reply
from ..base.text import escape
from ..tasks.reasons import Reason, in_words, reason
from ..tasks.task import Run, Task
from . import facts as f
from . import orders as o
from .definitions import find_task, finish
from .dependencies import hang_together
from .fires import NO_WORKER, after_end, delay, flow_remark, left_out, let_in, stop, why_unfit
from .flow_runs import FlowRun
from .ledger import NEVER
from .rules import Decision, Limits, Rule, Rules
from .state import State
from .tables import of_one_fire

MAX_FLOW = 10_000  # tasks, so that the record of its start stays a short one
SOME = 100  # members that come to be judged together
MAX_JUDGED = 100  # members of which nothing follows, before the others have their turn


def check_in_flow(state: State, ref: str) -> Task:
    """The task, if it hangs together with another one. Raises Refusal."""
    task = find_task(state, ref)
    if not (task.spec.options.after or task.name in state.dependents):
        alone = f'"{task.name}" is in no flow: it waits for nothing (after=), and nothing waits for it'
        raise Refusal("not-found", alone)
    return task


def members_of(state: State, ref: str) -> Generator[None, None, list[int]]:
    """The tasks of a flow, by any of them, in small steps."""
    return sorted((yield from hang_together(state, check_in_flow(state, ref))))


def plan_flow(state: State, ref: str, now: datetime) -> Generator[None, None, list[int]]:
    """The tasks of a flow that is to run; Refusal if it cannot begin now."""
    members = yield from members_of(state, ref)
    if len(members) > MAX_FLOW:
        raise Refusal("limit", f"{len(members)} tasks hang together there; a flow has at most {MAX_FLOW}")
    for task_id in members:
        yield
        _check_no_other(state, task_id)
        task = state.tasks.get(task_id)
        is_first = task and not task.spec.options.after
        if task and is_first and (why := let_in(state, task, state.next_run, now)[2][0]):
            raise Refusal("busy", f"{task.name}: {in_words(why)}")
    return members


def _check_no_other(state: State, task_id: int) -> None:
    if other := state.flows.of.get(task_id):
        raise Refusal("busy", f"flow run {other} of these tasks is under way; one at a time")


def _start_flow(state: State, order: o.StartFlow, now: datetime, limits: Limits) -> Decision:
    members = order.plan if order.plan is not None else finish(plan_flow(state, order.ref, now))
    roots = (task for each in members if (task := state.tasks.get(each)) and not task.spec.options.after)
    root = next(roots, None) or find_task(state, order.ref)
    number = state.flows.next_number
    reply = Reply(f"{number} tasks={len(members)}", {"flow": number, "tasks": len(members)})
    return Decision([f.FlowStarted(number, root.id, root.name, members, order.args or None)], reply)


def find_flow_run(state: State, ref: str, number: int | None = None) -> FlowRun:
    """A run of a flow: by its number (`#7`), or of the flow that has this task, by default the newest.

    Raises Refusal.
    """
    flows = state.flows
    if ref.startswith("#"):
        number = int(ref[1:])
        task_id = None
    else:
        task_id = find_task(state, ref).id
    if number is None:
        found = next((flow for flow in flows.newest_first() if task_id in flow.members), None)
    else:
        found = flows.find(number)
    if found is None or (task_id is not None and task_id not in found.members):
        what = f"no flow run {number}" if number else "no flow run"
        raise Refusal(
            "not-found", f"{what} of {escape(ref[:80])} is known" if task_id else f"{what} is known"
        )
    return found


def _retry_flow(state: State, order: o.RetryFlow, now: datetime, limits: Limits) -> Decision:
    flow = find_flow_run(state, order.ref, order.number)
    if flow.stopping and not flow.state:
        raise Refusal("busy", f"flow run {flow.number} is being cancelled")
    states = ("ok", "running") if flow.state else ("ok", "running", "waiting")
    bad = [each for each, member in flow.members.items() if member.state not in states]
    if not (again := [each for each in bad if each in state.tasks]):
        raise Refusal("busy", f"flow run {flow.number}: nothing of it that is still there has failed")
    for task_id in flow.members if flow.state else ():
        _check_no_other(state, task_id)
    reply = Reply(f"{flow.number} tasks={len(again)}", {"flow": flow.number, "tasks": len(again)})
    return Decision([f.FlowRetried(flow.number, again)], reply)


def _stop_flow(state: State, order: o.StopFlow, now: datetime, limits: Limits) -> Decision:
    flow = find_flow_run(state, order.ref, order.number)
    if flow.state:
        raise Refusal("not-found", f"flow run {flow.number} has ended already")
    if flow.stopping:
        raise Refusal("busy", f"flow run {flow.number} is being cancelled already")
    reply = Reply(f"{flow.number} cancelled", {"flow": flow.number, "cancelled": True})
    return Decision([f.FlowStopping(flow.number)], reply)


# --- what comes due inside ---


def next_in_flows(state: State, now: datetime) -> Any | None:
    """What follows in runs of flows, as the next order; None when there is nothing."""
    flows = state.flows
    while flows.held and (task_id := flows.pauses.next_due(now)) is not None:
        flows.judge(task_id)
    for _ in range(MAX_JUDGED):
        if not flows.todo and not flows.freshen(SOME):
            return None
        if not flows.todo:
            continue
        number, task_id = next(iter(flows.todo))
        if (flow := flows.active.get(number)) and (order := _follows(state, flow, task_id, now)):
            return order
        del flows.todo[number, task_id]
    return o.PassOver()


def _follows(state: State, flow: FlowRun, task_id: int, now: datetime) -> Any | None:
    if not task_id:
        return None if flow.open else o.EndFlow(flow.number)
    member = flow.members.get(task_id)
    if member is None:
        return None
    if flow.stopping:
        return o.StopMember(flow.number, task_id) if _running(state, flow, task_id) else None
    task = state.tasks.get(task_id)
    if task is None or member.state != "waiting":
        return None
    is_ready = True
    for name in task.spec.options.after:
        # One that is not of this run, since it came later, is none that is waited for here.
        before = flow.members.get(state.names.get(name) or 0)
        if before is None or before.state == "ok":
            continue
        if before.state not in ("waiting", "running"):
            return o.SkipMember(flow.number, task_id, reason("dependency", name=name, heard=before.heard))
        is_ready = False
    if is_ready and state.is_paused(task, now):
        _hold(state, task)
    elif is_ready:
        return o.StartMember(flow.number, task_id)
    return None


def _hold(state: State, task: Task) -> None:
    """Derived, as `todo` is: a restart finds it again."""
    end_at = state.flows.held[task.id] = state.pause_ends(task)
    if end_at and end_at != NEVER:
        state.flows.pauses.add((end_at, task.id))


def _running(state: State, flow: FlowRun, task_id: int) -> list[Run]:
    """Its runs there that are still to be ended; also of a task that was removed."""
    task = state.tasks.get(task_id)
    numbers = task.runs if task else state.orphans.get(task_id, ())
    runs = [state.runs[number] for number in numbers]
    return [run for run in runs if run.flow == flow.number and run.ends_as != "cancelled"]


def _start_member(state: State, order: o.StartMember, now: datetime, limits: Limits) -> Decision:
    flow, task = state.flows.active[order.flow], state.tasks[order.task]
    waiting = [run for number in task.runs if (run := state.runs[number]).state == "awaiting"]
    if taken := of_one_fire(waiting):
        admitted: list[f.Fact] = [f.RunAdmitted(run.id, flow.number) for run in taken]
        return Decision(admitted + [flow_remark(run.id, flow.number) for run in taken])
    if task.spec.unread:
        return _skip(task, flow, task.spec.unread.reason, now)
    unfit: Reason = ""
    if not flow.is_by_hand:
        unfit = reason("used-up") if task.is_used_up else why_unfit(state, task, now)
    targets, kept, (why, parked, facts, messages) = let_in(state, task, state.next_run, now)
    if why := unfit or why or ("" if targets else NO_WORKER):
        return _skip(task, flow, why, now)
    for number, target in enumerate((each for each in targets if each not in kept), state.next_run):
        queued = f.RunQueued(number, task.id, now, "flow", None, flow.args, parked, target=target)
        queued.flow, queued.who = flow.number, flow.who
        if not flow.is_by_hand:
            queued.by, queued.who = "after", None
            queued.not_before_at = delay(task, now, target, now)
        facts += [queued, flow_remark(number, flow.number)]
    return Decision(facts + left_out(state.next_run, kept), None, messages)


def _skip_member(state: State, order: o.SkipMember, now: datetime, limits: Limits) -> Decision:
    return _skip(state.tasks[order.task], state.flows.active[order.flow], order.why, now)


def _skip(task: Task, flow: FlowRun, why: Reason, now: datetime) -> Decision:
    skipped = f.FiresPassed(task.id, task.name, "skipped", now, now, 1, why, None)
    skipped.flow = flow.number
    return Decision([skipped])


def _stop_member(state: State, order: o.StopMember, now: datetime, limits: Limits) -> Decision:
    flow, decision = state.flows.active[order.flow], Decision()
    for run in _running(state, flow, order.task):
        facts, messages = stop(run, "cancelled", reason("flow-cancelled", flow=flow.number))
        decision.facts += facts + after_end(state, run, facts)
        decision.messages += messages
    for fact in decision.facts:
        if isinstance(fact, f.RunStopping):
            fact.who = flow.stopped_by
    return decision


def _end_flow(state: State, order: o.EndFlow, now: datetime, limits: Limits) -> Decision:
    return Decision([f.FlowEnded(order.flow, state.flows.active[order.flow].outcome)])


FLOWS: Rules = {
    o.StartFlow: Rule(_start_flow, "FLOW"),
    o.RetryFlow: Rule(_retry_flow, "FLOW"),
    o.StopFlow: Rule(_stop_flow, "FLOW"),
    o.StartMember: Rule(_start_member),
    o.SkipMember: Rule(_skip_member),
    o.StopMember: Rule(_stop_member),
    o.EndFlow: Rule(_end_flow),
}
