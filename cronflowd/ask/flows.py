"""FLOW: the tasks that hang together by after=, and how far the runs of such flows have got; DEPS.

Both look while the tasks may change; None where others have their turn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from datetime import datetime
from heapq import heapify, heappop, heappush

from ..base.replies import Reply, Row
from ..base.walks import SLICE, in_order, in_slices, page
from ..engine.definitions import find_task
from ..engine.dependencies import hang_together
from ..engine.flow_runs import FlowRun
from ..engine.flows import check_in_flow, find_flow_run
from ..engine.hearing import heard_by
from ..engine.state import State
from ..tasks.reasons import in_words
from ..tasks.task import Task
from . import questions as q
from .views import map_rows, task_state

FLOW_COLUMNS = ("id", "jobName", "tasks", "flow", "state", "begun", "ended")
TASK_COLUMNS = ("id", "jobName", "state", "after", "last", "ended", "turn", "run")
RUN_COLUMNS = (
    "flow", "id", "jobName", "state", "begun", "ended", "tasks", "ok", "failed", "skipped", "running",
    "waiting", "who",
)  # fmt: skip


def list_flows(state: State) -> Reply:
    """FLOW: every flow there is, by the first of its tasks that waits for none, with its newest run."""

    def rows() -> Iterator[Row | None]:
        seen: set[int] = set()
        newest: dict[int, FlowRun] = {}
        for flow in in_slices(state.flows.newest_first()):
            if flow is None:
                yield None
            else:
                newest.setdefault(flow.root, flow)
        for task in state.tasks.walk():
            if task is None:
                yield None
            elif task.id not in seen and (task.spec.options.after or task.name in state.dependents):
                found = yield from hang_together(state, task)
                seen.update(found)
                if members := [each for each in sorted(found) if each in state.tasks]:
                    yield _flow_row(state, members, newest)

    return Reply.counted(FLOW_COLUMNS, rows())


def _flow_row(state: State, members: list[int], newest: dict[int, FlowRun]) -> Row:
    roots = (each for each in members if not state.tasks[each].spec.options.after)
    root = state.tasks[next(roots, members[0])]
    number = state.flows.of.get(root.id)
    flow = state.flows.active[number] if number else newest.get(root.id)
    about = (flow.number, shown_state(state, flow), flow.begun_at, flow.ended_at) if flow else (None,) * 4
    return root.id, root.name, len(members), *about


def shown_state(state: State, flow: FlowRun) -> str:
    """One word: how it ended, or how it goes on."""
    if flow.state or flow.stopping:
        return flow.state or "stopping"
    return "paused" if state.flows.is_paused(flow) else "running"


def show_flow(state: State, query: q.ShowFlow, now: datetime) -> Reply:
    """FLOW REF: its tasks, each behind those it waits for, and where they stand in its newest run."""
    task, flow = None, None
    if query.ref.startswith("#"):
        flow = find_flow_run(state, query.ref)
    else:
        task = check_in_flow(state, query.ref)
        flow = next((each for each in state.flows.newest_first() if task.id in each.members), None)
    values = {"flow": flow.number if flow else None, "state": shown_state(state, flow) if flow else None}
    reply = Reply("", {}, TASK_COLUMNS)

    def rows() -> Iterator[Row | None]:
        members = (yield from hang_together(state, task)) if task else flow.members if flow else ()
        yield from map_rows(row, _each_behind(state, list(members)))
        reply.text = f"{len(members)} flow={values['flow'] or '-'} state={values['state'] or '-'}"
        reply.values = {"rows": len(members)} | values

    def row(task_id: int) -> Row:
        member, task = flow.members.get(task_id) if flow else None, state.tasks.get(task_id)
        turn = (member.state, member.run or None) if member else (None, None)
        if task is None:
            return task_id, None, None, None, None, None, *turn
        after, word = ",".join(task.spec.options.after), task_state(state, task, now)
        return task.id, task.name, word, after, task.last_state, task.last_ended_at, *turn

    reply.rows = rows()
    return reply


def _each_behind(state: State, members: list[int]) -> Iterator[int | None]:
    """In order: each behind those it waits for, by ids where that leaves a choice; then what is gone."""
    left: dict[int, int] = {}
    for task_id in in_slices(members):
        if task_id is None:
            yield None
        elif task := state.tasks.get(task_id):
            left[task_id] = len(task.spec.options.after)
    ready = [task_id for task_id, number in left.items() if not number]
    heapify(ready)
    done: set[int] = set()
    while ready:
        task_id = heappop(ready)
        done.add(task_id)
        yield task_id
        task = state.tasks.get(task_id)
        for each in in_slices(list(state.dependents.get(task.name, ()))) if task else ():
            if each is None:
                yield None
            elif each in left:
                left[each] -= 1
                if not left[each]:
                    heappush(ready, each)
    yield from (None if each in done else each for each in members)


def list_flow_runs(state: State, query: q.ListFlowRuns) -> Reply:
    """FLOW REF RUNS: the runs of this flow, newest first."""
    task = find_task(state, query.ref)

    def row(flow: FlowRun) -> Row:
        counts = Counter(flow.counts)
        known = [counts.pop(word, 0) for word in ("ok", "skipped", "running", "waiting")]
        return (
            flow.number, flow.root, flow.name, shown_state(state, flow), flow.begun_at, flow.ended_at,
            len(flow.members), known[0], counts.total(), *known[1:], flow.who,
        )  # fmt: skip

    flows = in_slices(state.flows.newest_first())
    found = (flow if flow is None or task.id in flow.members else None for flow in flows)
    return Reply.counted(RUN_COLUMNS, map_rows(row, page(found, query.limit, query.offset)))


# --- DEPS: who waits for whom ---------------------------------------------------------------------


MAX_DRAWN_DEPTH = 60  # below, a number stands for the lines of the drawing
Line = tuple[Task, Task | None, str]  # a task, whom it waits for there, its drawing


def show_dependencies(state: State, query: q.ShowDependencies, now: datetime) -> Reply:
    """DEPS: the trees of who waits for whom, and what each has heard of the one above it."""
    drawn = draw_tree(state, find_task(state, query.ref) if query.ref else None)

    def row(line: Line) -> Row:
        task, above, drawing = line
        heard = above and (in_words(heard_by(state, task).get(above.name)) or None)
        return task.id, drawing, task_state(state, task, now), heard

    return Reply.counted(("id", "tree", "state", "heard"), map_rows(row, drawn))


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
