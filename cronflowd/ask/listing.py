"""LIST: which tasks, in which order, and how many there are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

from ..base.replies import Reply, Row
from ..base.walks import in_order, in_slices, page
from ..engine.state import State
from ..schedules.zones import EPOCH
from ..tasks.task import Task
from . import questions as q
from .views import map_rows, task_state, tell_total

SEARCHED = 65_536  # characters of commands, before others have their turn
LIST_COLUMNS = ("id", "jobName", "state", "next", "schedule", "command", "last", "ended", "paused")


def list_tasks(state: State, query: q.ListTasks, now: datetime) -> Reply:
    """LIST: in order of ids; notifications under way only where they are asked for by name."""
    is_chosen, hides_notices = query.which.chooser(), not query.which.name.startswith("notify")

    def wanted(task: Task) -> bool:
        if (hides_notices and task.is_notice) or not is_chosen(task):
            return False
        options = task.spec.options
        if query.owner and query.owner != (options.owner or state.common.owner):
            return False
        if query.type not in ("", options.type) or (query.search and query.search not in text_of(task)):
            return False
        if "paused" in query.states and state.is_paused(task, now):  # also one that runs besides
            return True
        return not query.states or task_state(state, task, now) in query.states

    def text_of(task: Task) -> str:
        options = task.spec.options
        texts = task.name, options.title, options.desc, task.spec.command, *options.tags
        return "\n".join(texts).casefold()

    def row(task: Task) -> Row:
        word, spec = task_state(state, task, now), task.spec
        paused = "paused" if state.is_paused(task, now) else None
        last = task.last_state, task.last_ended_at, paused
        return task.id, task.name, word, task.due_at, spec.schedule.text, spec.command, *last

    reply = Reply.counted(LIST_COLUMNS)

    def rows() -> Iterator[Row | None]:
        every = _by_size(state.tasks.walk()) if query.search else state.tasks.walk()
        tasks: Iterable[Task | None] = (task for task in every if task is None or wanted(task))
        if query.sort != "id" or query.reverse:
            tasks = in_slices((yield from in_order(tasks, _order(state, query, now), query.reverse)))
        count_to = sys.maxsize if query.counts and not query.is_all else 0
        yield from map_rows(row, page(tasks, query.limit, query.offset, count_to, tell))

    def tell(total: int) -> None:
        if query.counts:
            tell_total(reply, state.count_own() if query.is_all else total)

    reply.rows = rows()
    return reply


def _by_size(tasks: Iterable[Task | None]) -> Iterator[Task | None]:
    """The same tasks, and a None where there is much to search in some of them."""
    size = 0
    for task in tasks:
        yield task
        size += len(task.spec.command) if task else 0
        if size > SEARCHED:
            yield None
            size = 0


def _order(state: State, query: q.ListTasks, now: datetime) -> Callable[[Task], Any]:
    """What LIST is sorted by; what has no such time comes last, whichever way round."""

    def by_time(at: datetime | None) -> tuple[bool, datetime]:
        return (at is None) is not query.reverse, at or EPOCH

    by: dict[str, Callable[[Task], Any]] = {
        "id": lambda task: task.id,
        "name": lambda task: (task.name.casefold(), task.name),
        "next": lambda task: by_time(task.due_at),
        "state": lambda task: task_state(state, task, now),
        "last": lambda task: by_time(task.last_ended_at),
    }
    return by[query.sort]
