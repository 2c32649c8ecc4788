"""Who changed what, as it is told: HISTORY, HISTORY REF, GET REF @rev."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from datetime import datetime
from typing import Any

from attrs import define

from ..base.errors import Refusal
from ..base.replies import Reply, Row
from ..base.text import escape, format_time, shorten
from ..base.walks import page
from ..engine.changelog import Change, Step, Was, whole
from ..engine.state import State
from ..tasks.options import DEFAULTS, MASK, RULES, format_option_of, masked
from . import questions as q

MAX_VALUE = 200  # characters of each side of a difference
LOG_COLUMNS = ("change", "time", "who", "what")
REVISION_COLUMNS = ("rev", "time", "who", "change")


def show_history(state: State, query: q.ShowHistory, now: datetime) -> Reply:
    """HISTORY: of one task, or of everything, newest first."""
    if query.ref is None:
        columns, rows = LOG_COLUMNS, _all(state)
    else:
        columns, rows = REVISION_COLUMNS, _of_one(state, query.ref)
    return Reply.counted(columns, page(rows, query.limit, query.offset))


def _all(state: State) -> Iterator[Row | None]:
    for change in reversed(list(state.changes.changes)):
        yield change.number, change.at, change.who, change.told


def _of_one(state: State, ref: str) -> Iterator[Row | None]:
    task_id = yield from _find_id(state, ref)
    for each in revisions(state, task_id):
        yield None if each is None else (each.rev, each.at, each.who, each.change)


def _find_id(state: State, ref: str) -> Generator[None, None, int]:
    """The id of a task that is, or of one that was."""
    if task := state.find(ref):
        return task.id
    if ref.isascii() and ref.isdigit():
        if len(ref) < 20 and 0 < int(ref) < state.next_task:
            return int(ref)
    else:
        for found in state.changes.walk():
            if found is None:
                yield None
            elif found[1].kind == "removed" and found[1].was and found[1].was.name == ref:
                return found[1].id
    raise Refusal("not-found", f'no task "{escape(ref[:40])}", now or among the changes that are known')


@define
class Revision:
    """A row of HISTORY REF."""

    rev: int
    at: datetime | None  # None = longer ago than the log goes back
    who: str | None
    change: str
    record: dict[str, Any] | None  # the definition, where this made it


def revisions(state: State, task_id: int) -> Iterator[Revision | None]:
    """All that is known of one task, newest first; a large change is looked through in slices."""
    task = state.tasks.get(task_id)
    here = whole(task) if task else None  # after the step that is looked at
    steps = []
    for found in state.changes.walk():
        if found is None:
            yield None
        elif found[1].id == task_id:
            steps.append(found)
    for index, (change, step) in enumerate(steps):
        words, record = _step_words(change, step, here, steps[index + 1 :]), None
        if step.kind in ("added", "changed", "restored") and here is not None:
            record = here.record
        yield Revision(step.rev, change.at, change.who, words, record)
        here = step.before(here)
    if here is not None:
        is_first = here.rev == 1
        words = "added" if is_first else "as far back as is known"
        yield Revision(here.rev, here.anchor_at if is_first else None, None, words, here.record)


def _step_words(change: Change, step: Step, here: Was | None, older: list[tuple[Change, Step]]) -> str:
    if step.kind == "changed" and step.was and here:
        words = _differences(step.was.record, here.record)
        return f"{words} (by {change.what})" if change.verb in ("UNDO", "LOAD", "ROLLBACK") else words
    if step.kind == "paused" and here:
        until = f" until {format_time(here.paused_until_at)}" if here.paused_until_at else ""
        return f"paused{until}" + (f": {here.paused_why}" if here.paused_why else "")
    verb = {"added": "ADD", "removed": "REMOVE", "resumed": "RESUME"}.get(step.kind)
    words = step.kind if change.verb == verb else f"{step.kind} by {change.what}"
    removed = next((old.was for _, old in older if old.kind == "removed"), None)
    if step.kind == "restored" and removed and here and removed.record != here.record:
        words += f"; {_differences(removed.record, here.record)}"
    return words


def _differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    keys = [key for key in [*new, *(key for key in old if key not in new)] if old.get(key) != new.get(key)]
    return "; ".join(_difference(key, old.get(key), new.get(key)) for key in keys) or "nothing changed"


def _difference(key: str, old: object, new: object) -> str:
    if any(text is not None and masked(key, str(text)) == MASK for text in (old, new)):
        return f"{key}: another one"
    texts = [shorten(_default(key) if text is None else str(text), MAX_VALUE) or "-" for text in (old, new)]
    return f"{key}: {texts[0]} -> {texts[1]}"


def _default(key: str) -> str:
    return format_option_of(DEFAULTS, key) if key in RULES else ""


def find_revision(state: State, ref: str, rev: int) -> Generator[None, None, tuple[int, Revision]]:
    """GET REF @rev: the task's id and what is known of that revision. Raises Refusal."""
    task_id = yield from _find_id(state, ref)
    known = []
    for each in revisions(state, task_id):
        if each is None:
            yield None
        elif each.record is not None:
            known.append(each)
            if each.rev == rev:
                return task_id, each
    # LOAD may have given an id a second life, with revisions from 1 on again.
    numbers = ", ".join(str(number) for number in sorted({each.rev for each in known})[-20:])
    raise Refusal("not-found", f"revision {rev} is not known; these are: {numbers or 'none'}")
