"""after=: which tasks wait for which, and what has come of it since a task's last fire.

A task keeps, by name, how each dependency ended last (`Task.heard`), and forgets all of it
when it fires. With a schedule, a moment that comes too early makes a run that waits; with
`@after` there are no moments, and it fires whenever all have ended. A dependency that ended
otherwise than well, and has nothing under way that could still mend it, ends the wait: the
fire is skipped, and is itself such an end for those who wait for it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Container, Generator, Iterable
from datetime import datetime
from typing import Any, NoReturn

from attrs import evolve

from ..base.errors import Refusal
from ..base.text import escape
from ..base.walks import SLICE, Parted
from ..tasks.reasons import Reason, reason
from ..tasks.task import Run, Task, TaskSpec
from . import orders as o
from .alarms import MAX_STALE
from .hearing import heard_by, tell_some
from .state import State
from .tables import ENDED_AT_ONCE, WELL

MAX_BEHIND = 200  # tasks of a flow that begins with a moment of its first one
MAX_JUDGED = 1000  # tasks from which nothing follows, before the others have their turn


def standing(state: State, task: Task) -> tuple[list[str], Reason]:
    """(the dependencies that are still waited for, why one of the others will not do)."""
    waits: list[str] = []
    broken: Reason = ""
    every = heard_by(state, task) if state.news else task.heard or {}
    for name in task.spec.options.after:
        heard = every.get(name)
        if heard == WELL:
            continue
        dependency = state.find(name)
        if heard is None or (dependency and dependency.runs):
            waits.append(name)
        else:
            broken = broken or reason("dependency", name=name, heard=heard)
    return waits, broken


def next_judgement(state: State) -> Any | None:
    """What follows from dependencies that have ended, as the next order; None when all is judged."""
    if state.news and tell_some(state):
        return o.PassOver()
    for _ in range(MAX_JUDGED):
        if not state.to_judge:
            return None
        task_id = next(iter(state.to_judge))
        if (task := state.tasks.get(task_id)) and (order := _judge(state, task)):
            return order
        del state.to_judge[task_id]
    return o.PassOver()


def _judge(state: State, task: Task) -> Any | None:
    if task.id in state.replaced and (older := _older(state, task)):
        if any(run.state != "stopping" for run in older):
            return o.ReplaceRuns(task.id)
        state.replaced_upto[task.id] = older[-1].id
        return o.PassOver()
    waits, broken = standing(state, task)
    for run_id in task.runs:
        if state.runs[run_id].state == "awaiting":
            # The first is the oldest; the others wait for the next round.
            return o.BreakRun(run_id, broken) if broken else None if waits else o.AdmitRun(run_id)
    if task.spec.schedule.kind == "after" and task.spec.options.after and not waits and not task.is_used_up:
        return o.FireAfter(task.id, broken)
    return None


def to_replace(state: State, task: Task) -> list[Run]:
    """Some of those that a newer run of a task replaces, and that were not told to end yet."""
    return [run for run in _older(state, task) if run.state != "stopping"][:ENDED_AT_ONCE]


def _older(state: State, task: Task) -> list[Run]:
    """Some of those that a newer run replaces, behind those that all were told to end."""
    newer, runs = state.replaced[task.id], task.runs
    begin = bisect_right(runs, state.replaced_upto.get(task.id, 0))  # in the order of their numbers
    some = [runs[at] for at in range(begin, min(begin + MAX_STALE, len(runs)))]
    return [state.runs[run] for run in some if run < newer]


# --- flows ---------------------------------------------------------------------------------------


def hang_together(state: State, task: Task) -> Generator[None, None, dict[int, None]]:
    """All tasks that hang together with this one, itself among them, in small steps."""
    found, todo, looked_at = {task.id: None}, [task.id], 0
    while todo:
        here = state.tasks.get(todo.pop())
        near: list[int | None] = [None]  # it was looked at itself
        if here:
            near += [state.names.get(name) for name in here.spec.options.after]
            near += state.dependents.get(here.name, ())
        for other in near:
            looked_at += 1
            if looked_at % SLICE == 0:
                yield
            if other is not None and other not in found:
                found[other] = None
                todo.append(other)
    return found


def flow_behind(state: State, root: Task, now: datetime) -> list[int] | None:
    """All that hangs together with this task, if it alone starts the others, and none is paused; or None."""
    found, todo = {root.id: None}, [root]
    while todo:
        here = todo.pop()
        for name in here.spec.options.after:
            if (other := state.names.get(name)) not in found:
                found[other or 0] = None
                if other is None or state.tasks[other].spec.schedule.kind != "after":
                    return None
                todo.append(state.tasks[other])
        for other in state.dependents.get(here.name, ()):
            if other not in found:
                found[other] = None
                if state.tasks[other].spec.schedule.kind != "after" or len(found) > MAX_BEHIND:
                    return None
                todo.append(state.tasks[other])
    if any(each in state.flows.of or state.is_paused(state.tasks[each], now) for each in found):
        return None
    return sorted(found)


# --- what may be waited for ---------------------------------------------------------------------


def settle_after(spec: TaskSpec, find: Callable[[str], TaskSpec | None]) -> TaskSpec:
    """A definition with its after= as names; Refusal for what is not there, or can happen only once."""
    names = []
    for ref in spec.options.after:
        if (found := find(ref)) is None:
            raise Refusal("not-found", f'after=: no task "{escape(ref[:80])}"', "after")
        if found.schedule.kind == "at":
            why = "runs once and is gone then; nothing can wait for it"
            raise Refusal("bad-option", f'after=: "{found.name}" {why}', "after")
        names.append(found.name)
    if tuple(names) == spec.options.after:
        return spec
    return evolve(spec, options=evolve(spec.options, after=tuple(dict.fromkeys(names))))


def those_who_wait(state: State, tasks: Collection[int]) -> str:
    """For a refusal."""
    first, more = state.tasks[min(tasks)].name, len(tasks) - 1  # the oldest: to compare names takes longer
    return f'"{first}" and {more} more wait' if more else f'"{first}" waits'


def check_leaving(
    state: State, task: Task, force: bool, leaving: Container[int | None]
) -> Generator[None, None, None]:
    """Refuses that a task leaves for which others wait that stay, or that nothing else would start."""
    waiting: list[int] = []
    for task_id in list(state.dependents.get(task.name, ())):  # a copy: one of them may end, and leave
        yield
        if (other := state.tasks.get(task_id)) is None or task_id in leaving:
            continue
        waiting.append(task_id)
        names = other.spec.options.after if force and other.spec.schedule.kind == "after" else ()
        if names and all(state.names.get(name) in leaving for name in names):
            raise Refusal("busy", f'nothing else would ever start "{other.name}" (@after); remove it first')
    if waiting and not force:
        raise Refusal(
            "busy", f"{those_who_wait(state, waiting)} for it (after=); force=yes has them wait no longer"
        )


def check_circles(names: Iterable[str], after: Callable[[str], Iterable[str]]) -> Generator[None, None, None]:
    """Refusal (`cycle`), in small steps, naming the first tasks found that would wait for each other."""
    if circle := (yield from find_circle(names, after)):
        refuse_circle(circle)


def refuse_circle(circle: list[str]) -> NoReturn:
    raise Refusal("cycle", f"after=: these would wait for each other: {' -> '.join(circle)}", "after")


def find_circle(
    names: Iterable[str], after: Callable[[str], Iterable[str]]
) -> Generator[None, None, list[str]]:
    """The first one found, beginning and ending with the same name, in small steps; or an empty list."""
    done = Parted[str, None]()
    for name in names:
        way = {} if name in done else {name: iter(after(name))}  # in order: from `name` to where we are
        while way:
            yield
            here = next(reversed(way))
            there = next(way[here], None)
            if there is None:
                done[here] = None
                way.popitem()
            elif there in way:
                return [*list(way)[list(way).index(there) :], there]
            elif there not in done:
                way[there] = iter(after(there))
    return []
