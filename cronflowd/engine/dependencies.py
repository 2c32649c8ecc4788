"""after=: which tasks wait for which, and what has come of it since a task's last fire.

A task keeps, by name, how each dependency ended last (`Task.heard`), and forgets all of it
when it fires. With a schedule, a moment that comes too early makes a run that waits; with
`@after` there are no moments, and it fires whenever all have ended. A dependency that ended
otherwise than well, and has nothing under way that could still mend it, ends the wait: the
fire is skipped, and is itself such an end for those who wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from attrs import evolve

from ..base.errors import Refusal
from ..base.text import escape
from ..tasks.reasons import Reason, reason
from ..tasks.task import Task, TaskSpec
from . import orders as o
from .state import WELL, State


def standing(state: State, task: Task) -> tuple[list[str], Reason]:
    """(the dependencies that are still waited for, why one of the others will not do)."""
    waits: list[str] = []
    broken: Reason = ""
    for name in task.spec.options.after:
        heard = task.heard.get(name)
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
    while state.to_judge:
        task_id = next(iter(state.to_judge))
        if (task := state.tasks.get(task_id)) and (order := _judge(state, task)):
            return order
        del state.to_judge[task_id]
    return None


def _judge(state: State, task: Task) -> Any | None:
    waits, broken = standing(state, task)
    for run_id in task.runs:
        if state.runs[run_id].awaits:
            # The first is the oldest; the others wait for the next round.
            return o.BreakRun(run_id, broken) if broken else None if waits else o.AdmitRun(run_id)
    if task.spec.schedule.kind == "after" and task.spec.options.after and not waits and not task.is_used_up:
        return o.FireAfter(task.id, broken)
    return None


# --- the tree -----------------------------------------------------------------------------------

MAX_DRAWN_DEPTH = 60  # below, a number stands for the lines of the drawing


def draw_tree(state: State, task: Task | None) -> Iterator[tuple[Task, Task | None, str]]:
    """Who waits for whom: (task, whom it waits for there, its drawing), each followed by its children.

    All trees, or only what `task` waits for, and what waits for it. A task that waits for
    several others stands below each of them, but its own children only the first time.
    """
    shown = _related(state, task) if task else {each for each in state.tasks if _has_relations(state, each)}
    roots = sorted(each for each in shown if not _parents(state, each) & shown)
    seen: set[int] = set()
    todo: list[tuple[int, Task | None, str, str]] = [(each, None, "", "") for each in reversed(roots)]
    while todo:
        here, above, lead, below = todo.pop()
        again, task = here in seen, state.tasks[here]
        children = sorted(_children(state, here) & shown)
        yield task, above, f"{lead}{task.name}{' (see above)' if again and children else ''}"
        if again:
            continue
        seen.add(here)
        depth = len(below) // 3 + 1
        for child in reversed(children):
            is_last = child == children[-1]
            branch = "└─ " if is_last else "├─ "
            lead = f"[{depth}] " if depth > MAX_DRAWN_DEPTH else below + branch
            todo.append((child, task, lead, below + ("   " if is_last else "│  ")))


def _has_relations(state: State, task_id: int) -> bool:
    task = state.tasks[task_id]
    return bool(task.spec.options.after) or task.name in state.dependents


def _children(state: State, task_id: int) -> set[int]:
    return state.dependents.get(state.tasks[task_id].name, set())


def _parents(state: State, task_id: int) -> set[int]:
    names = state.tasks[task_id].spec.options.after
    return {parent.id for name in names if (parent := state.find(name))}


def _related(state: State, task: Task) -> set[int]:
    found = {task.id}
    for step in (_children, _parents):
        todo = [task.id]
        while todo:
            new = step(state, todo.pop()) - found
            found |= new
            todo += new
    return found


# --- what may be waited for ---------------------------------------------------------------------


def settle_after(spec: TaskSpec, find: Callable[[str], TaskSpec | None]) -> TaskSpec:
    """A definition with its after= as names; Refusal for what is not there, or can happen only once."""
    names = []
    for ref in spec.options.after:
        if (found := find(ref)) is None:
            raise Refusal("not-found", f'after=: no task "{escape(ref[:80])}"')
        if found.schedule.kind == "at":
            why = "runs once and is gone then; nothing can wait for it"
            raise Refusal("bad-option", f'after=: "{found.name}" {why}')
        names.append(found.name)
    if tuple(names) == spec.options.after:
        return spec
    return evolve(spec, options=evolve(spec.options, after=tuple(dict.fromkeys(names))))


def check_circles(names: Iterable[str], after: Callable[[str], Iterable[str]]) -> None:
    """Raises Refusal (`cycle`) naming the first tasks found that would wait for each other."""
    done: set[str] = set()
    for name in names:
        way = {} if name in done else {name: iter(after(name))}  # in order: from `name` to where we are
        while way:
            here = next(reversed(way))
            there = next(way[here], None)
            if there is None:
                done.add(here)
                del way[here]
            elif there in way:
                circle = [*list(way)[list(way).index(there) :], there]
                raise Refusal("cycle", f"after=: these would wait for each other: {' -> '.join(circle)}")
            elif there not in done:
                way[there] = iter(after(there))
