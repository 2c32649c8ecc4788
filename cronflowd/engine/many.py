"""PAUSE, RESUME, RUN, REMOVE and SET of all tasks that tag= and name= choose: one change, or none.

What is to become of them is worked out first, in small steps, and refused as a whole. A few are then
changed in one decision; very many are staged and changed in slices.
"""

from __future__ import annotations

from collections.abc import Container, Generator, Iterable
from datetime import datetime
from typing import Any

from attrs import evolve
from msgspec import structs

from ..base.errors import Refusal, naming
from ..base.replies import NOTE_COLUMNS, Reply, Row
from ..base.walks import Numbered
from ..tasks.task import Task, TaskSpec
from . import facts as f
from . import orders as o
from .accounts import check_reach
from .definitions import (
    DEFINE,
    check_one_resumes,
    check_until,
    finish,
    reload,
    removed,
    set_spec,
)
from .dependencies import check_leaving
from .flows import members_of
from .rules import Decision, Limits, Rule, Rules
from .runs import RUNS, ask, check_room
from .state import State

Plan = list[tuple[int, TaskSpec | None]]  # ids, with the new definition where there is one
_KINDS: dict[type, str] = {
    o.SetTask: "set",
    o.RemoveTask: "remove",
    o.PauseTasks: "pause",
    o.ResumeTasks: "resume",
    o.RunTask: "run",
}
MAY_BE_LARGE = frozenset({*_KINDS, o.RollBack, o.UndoChanges, o.ClearTasks, o.StartFlow})
ENDS = {"set": "changed", "remove": "removed", "pause": "paused", "resume": "resumed", "run": "started"}


def kind_of(order: Any) -> str:
    """The verb, in lower case."""
    return _KINDS[type(order)]


def pattern_of(order: Any) -> o.Pattern | None:
    """What an order names its tasks by, unless it names them one by one."""
    kind = order.__class__
    return order.ref if kind in _KINDS and order.ref.__class__ is o.Pattern else None


def is_planned(order: Any) -> bool:
    """Whether it was worked out while nobody else could change tasks."""
    pattern = pattern_of(order)
    return pattern is not None and (pattern.plan is not None or pattern.staged > 0)


def plan_many(state: State, order: Any, now: datetime) -> Generator[None, None, Plan]:
    """Which tasks are changed, and what they become, in small steps; or Refusal."""
    pattern, kind = pattern_of(order), kind_of(order)
    assert pattern
    if kind == "pause":
        check_until(order.until_at, now)
    elif kind == "resume":
        check_one_resumes(state, now)
    found = yield from _chosen(state, pattern)
    if not found:
        raise Refusal("not-found", f"no task has {pattern}")
    plan: Plan = []
    for task in found.values():
        yield
        with naming(task.name):
            if pattern.owners:
                yield from check_reach(state, order, task, str(pattern.owners[0]), found)
            spec = set_spec(state, task, order.words, now) if kind == "set" else None
            if kind == "remove":
                yield from check_leaving(state, task, order.force, found)
        if (kind != "resume" or task.is_paused(now)) and not (spec and spec.record == task.spec.record):
            plan.append((task.id, spec))
    yield from found.let_all_go()
    return plan


def _chosen(state: State, pattern: o.Pattern) -> Generator[None, None, Numbered[Task]]:
    found, chooses = Numbered[Task](), pattern.chooser()
    tasks: Iterable[Task | None] = state.tasks.walk()
    if pattern.flow:
        members = yield from members_of(state, pattern.flow)
        tasks = map(state.tasks.get, members)
    for task in tasks:
        yield
        if task and not task.is_notice and chooses(task):
            found[task.id] = task
    return found


def take(
    state: State,
    kind: str,
    plan: Iterable[tuple[int, TaskSpec | None]],
    args: dict[str, str],
    until_at: datetime | None,
    all_chosen: Container[int],
    now: datetime,
) -> Decision:
    """What is done to some of those that were chosen, as far as they are still there."""
    here = [(task, spec) for task_id, spec in plan if (task := state.tasks.get(task_id))]
    if kind == "remove":
        return Decision(removed(state, [task for task, _ in here], all_chosen, now))
    decision, first, notes = Decision(), state.next_run, list[Row]()
    for task, spec in here:
        if kind == "set":
            assert spec
            decision.facts += reload(state, task, spec, now)
        elif kind == "pause":
            decision.facts.append(f.TaskPaused(task.id, until_at, args.get("why", "")))
        elif kind == "resume":
            decision.facts += [f.TaskResumed(task.id)] if task.paused else []
        else:
            try:
                asked = ask(state, task, args, now, first)
            except Refusal as refusal:  # overlap= lets no other run in, or no worker is there for it
                notes.append(("note", f"{task.name}: {refusal.message}"))
                continue
            first += sum(isinstance(fact, f.RunQueued) for fact in asked.facts)
            decision.facts += asked.facts
            decision.messages += asked.messages
    decision.reply = Reply("", columns=NOTE_COLUMNS, rows=notes) if notes else None
    return decision


def _change(state: State, order: Any, now: datetime, limits: Limits) -> Decision:
    pattern, kind = pattern_of(order), kind_of(order)
    assert pattern
    args = order.args if kind == "run" else {"why": order.why} if kind == "pause" else {}
    until_at = order.until_at if kind == "pause" else None
    if kind == "run":
        check_room(state, limits)
    if pattern.staged:
        decided = f.BulkDecided(kind, args=args or None, until_at=until_at)
        return Decision([decided], reply_of(kind, pattern.staged))
    plan: Plan = pattern.plan if pattern.plan is not None else finish(plan_many(state, order, now))
    decision = take(state, kind, plan, args, until_at, {task_id for task_id, _ in plan}, now)
    notes = [*decision.reply.rows] if decision.reply else []
    decision.reply = structs.replace(reply_of(kind, len(plan) - len(notes)), columns=NOTE_COLUMNS, rows=notes)
    return decision


def reply_of(kind: str, count: int) -> Reply:
    return Reply(f"{count} {ENDS[kind]}", {ENDS[kind]: count})


def _or_many(rule: Rule) -> Rule:
    def decide(state: State, order: Any, now: datetime, limits: Limits) -> Decision:
        is_many = order.ref.__class__ is o.Pattern
        return _change(state, order, now, limits) if is_many else rule.decide(state, order, now, limits)

    return evolve(rule, decide=decide)


MANY: Rules = {kind: _or_many({**DEFINE, **RUNS}[kind]) for kind in _KINDS}
