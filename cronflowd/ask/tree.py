"""DEPS: who waits for whom, drawn while the tasks may change; None where others have their turn."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ..base.walks import SLICE, in_order, in_slices
from ..engine.state import State
from ..tasks.task import Task

MAX_DRAWN_DEPTH = 60  # below, a number stands for the lines of the drawing
Line = tuple[Task, Task | None, str]  # a task, whom it waits for there, its drawing


def draw_tree(state: State, task: Task | None) -> Iterator[Line | None]:
    """All trees, or only what `task` waits for, and what waits for it; each task before its children.

    A task that waits for several others stands below each of them, but its own children only
    the first time. One that leaves meanwhile is passed over, with what is below it.
    """
    seen: set[int] = set()
    if task is None:
        for root in state.tasks.walk():
            if root is None:
                yield None
            elif root.name in state.dependents and not _parents(state, root):
                yield from _draw(state, root, None, seen)
        return
    shown: set[int] = set()
    yield from _relate(state, task, shown)
    roots = yield from in_order(_roots(state, shown))
    for root_id in roots:
        if found := state.tasks.get(root_id):
            yield from _draw(state, found, shown, seen)


def _draw(state: State, root: Task, shown: set[int] | None, seen: set[int]) -> Iterator[Line | None]:
    """One tree, or what is shown of it. The stack has the children still to come, level by level."""
    todo: list[tuple[Task | None, Iterator[int], str]] = [(None, iter(()), "")]
    ahead: list[int | None] = [root.id]  # of each level, the child that is next
    while todo:
        above, children, below = todo[-1]
        here, ahead[-1] = ahead[-1], None
        if here is None:
            todo.pop()
            ahead.pop()
            continue
        ahead[-1] = next(children, None)
        if (task := state.tasks.get(here)) is None:
            continue
        lead, under = ("", "") if above is None else _branch(below, ahead[-1] is None)
        again = here in seen
        seen.add(here)
        below_it = _children(state, task, shown)
        its = filter(None, below_it) if again else (yield from in_order(below_it))
        first = next(its, None)
        yield task, above, f"{lead}{task.name}{' (see above)' if again and first is not None else ''}"
        if not again and first is not None:
            todo.append((task, its, under))
            ahead.append(first)


def _branch(below: str, is_last: bool) -> tuple[str, str]:
    """What stands before a task, and before those below it."""
    depth = len(below) // 3 + 1
    lead = f"[{depth}] " if depth > MAX_DRAWN_DEPTH else below + ("└─ " if is_last else "├─ ")
    return lead, below + ("   " if is_last else "│  ")


def _children(state: State, task: Task, shown: set[int] | None) -> Iterator[int | None]:
    children = list(state.dependents.get(task.name, ()))  # the table may change meanwhile
    return (each if each is None or shown is None or each in shown else None for each in in_slices(children))


def _parents(state: State, task: Task) -> set[int]:
    return {parent.id for name in task.spec.options.after if (parent := state.find(name))}


def _roots(state: State, shown: set[int]) -> Iterator[int | None]:
    for task_id in in_slices(shown):
        task = None if task_id is None else state.tasks.get(task_id)
        yield task_id if task and not _parents(state, task) & shown else None


def _relate(state: State, task: Task, found: set[int]) -> Iterator[None]:
    """Fills in whom a task waits for, and who waits for it, whatever the number of steps between."""
    found.add(task.id)
    looked_at = 0
    for is_down in (True, False):
        todo = [task.id]
        while todo:
            here = state.tasks.get(todo.pop())
            near: Collection[int] = ()
            if here:
                near = state.dependents.get(here.name, ()) if is_down else _parents(state, here)
            for other in (0, *near):
                looked_at += 1
                if looked_at % SLICE == 0:
                    yield None
                if other and other not in found:
                    found.add(other)
                    todo.append(other)
