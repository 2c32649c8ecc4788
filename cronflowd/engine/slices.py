"""Orders that concern very many tasks, carried out in slices with everybody else's turns in between.

One fact says what is to become true of all of them; `next_slice` then names a few tasks at a
time, until it is (`unfinished` says what is under way). What comes due meanwhile is decided
before: a task whose moment comes is looked at first, however far the slices have got.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial
from itertools import chain, islice
from typing import Any

import orjson
from msgspec import structs

from ..base.walks import Steps
from ..tasks.task import Task, read_record
from . import facts as f
from . import orders as o
from .changelog import ALL
from .definitions import AT_ONCE, define_task, leave_task, loaded, loaded_words, replaced
from .many import ENDS, take
from .rules import Decision, Limits, Message, Rule, Rules
from .state import State
from .undo import PARTS, Undoing, has_part, plan_back, take_part
from .unfinished import Again, Bulk

SLICE = 50  # tasks; beside a thousand who watch, twice as many were a step of 15 ms
SLICE_CHARS = 1 << 18  # of what their records say
LOOKED_AT = 1000  # tasks of which nothing is to be done, before the others have their turn
WORKED_OUT = 200  # small steps of finding out again what UNDO comes to, the same


class Slices:
    """How far this process has got with what concerns very many tasks."""

    def __init__(self) -> None:
        self.planning = ""  # a LOAD or UNDO that is being worked out: what it goes by must stay
        self.undoing: Undoing | None = None  # what UNDO comes to; made again after a restart
        # Of what, after how many, the next one.
        self._waiting: tuple[Any, int, Any] = (None, 0, None)
        self._pieces: tuple[Any, Iterator[Any]] = (None, iter(()))  # of what, its slices

    def next(self, state: State, now: datetime) -> Any | None:
        """The next small part of what is under way, or PassOver; a part comes again until it was taken."""
        bulk = state.unfinished.bulk
        what = state.unfinished.again or (bulk if bulk and bulk.is_decided else None)
        if what is None:
            return None
        if self._waiting[0] is not what or self._waiting[1] != state.unfinished.slices:
            piece = self._next_piece(state, what, now)
            if isinstance(piece, o.PassOver):
                return piece
            self._waiting = what, state.unfinished.slices, piece
        return self._waiting[2]

    def try_singly(self, piece: o.BulkSlice) -> Sequence[int]:
        """What will never be taken is tried task by task; a single one is left out, and told."""
        what, taken, _ = self._waiting
        if len(piece.tasks) == 1:
            self._waiting = what, taken, structs.replace(piece, tasks=(), left_out=1)
            return piece.tasks
        self._waiting = (None, 0, None)
        first = piece.done and piece.done - len(piece.tasks) + 1
        each = [
            structs.replace(piece, tasks=(task_id,), done=first and first + place)
            for place, task_id in enumerate(piece.tasks)
        ]
        self._pieces = what, chain(each, self._pieces[1])
        return ()

    def _next_piece(self, state: State, what: Again | Bulk, now: datetime) -> Any:
        if self._pieces[0] is not what:
            self._pieces = what, self._cut(state, what, now)
        if (piece := next(self._pieces[1], None)) is not None:
            return piece if piece.tasks else o.PassOver()
        if self.undoing:
            past = self.undoing.past
            state.changes.leftovers += [past.tasks, past.revs, self.undoing.then]
        self.undoing, self._pieces = None, (None, iter(()))
        return o.RescheduleSlice([], None) if isinstance(what, Again) else o.Note(f.BulkEnded("done"))

    def _cut(self, state: State, what: Again | Bulk, now: datetime) -> Iterator[Any]:
        if isinstance(what, Again):
            return _moments(state, what)
        return self._undo_pieces(state, what, now) if what.kind == "undo" else _changes(state, what)

    def _undo_pieces(self, state: State, bulk: Bulk, now: datetime) -> Generator[o.BulkSlice, None, None]:
        if self.undoing is None:  # a restart came between
            undoes = set(bulk.undoes)
            changes = [change for change in reversed(state.changes.changes) if change.number in undoes]
            self.undoing = yield from _in_turns(plan_back(state, changes, now))
        plan = self.undoing
        for part in PARTS:
            wanted = filter_in_turns(chain([ALL], plan.then), partial(has_part, state, plan, part))
            yield from (o.BulkSlice(part, some, plan=plan) for some in _in_slices(wanted, plan.size_of))


def _in_turns(steps: Generator[None, None, Undoing]) -> Generator[o.BulkSlice, None, Undoing]:
    """What is worked out in small steps; an empty slice, that is, the others' turn, now and then."""
    plan = Steps(steps)
    for taken, _ in enumerate(plan, 1):
        if taken % WORKED_OUT == 0:
            yield o.BulkSlice("", ())
    return plan.value


def _moments(state: State, again: Again) -> Iterator[o.RescheduleSlice]:
    """Those that wait, in order; of what comes later the moments are found by what is known then."""
    upto = again.upto
    waiting = filter_in_turns(state.tasks.walk_numbers(upto), lambda number: again.waits(state.tasks[number]))
    for some in _in_slices(waiting):
        upto = some[-1] if some else upto
        yield o.RescheduleSlice(some, upto)


def _changes(state: State, bulk: Bulk) -> Iterator[o.BulkSlice]:
    """What leaves, then what the file says."""

    def leaves(task_id: int) -> bool:
        return task_id in state.tasks and not (task_id in bulk.entries or state.tasks[task_id].is_notice)

    if bulk.kind == "resume" and not bulk.entries:
        paused = filter(None, state.paused.walk_numbers())
        yield from (o.BulkSlice("resume", some) for some in _in_slices(paused))
    elif bulk.kind in ("rename", "remove") and not bulk.done:
        named = _in_slices(_named_else(state, bulk), lambda task_id: state.tasks[task_id].spec.size)
        yield from (o.BulkSlice("named", some) for some in named)
    elif bulk.kind in ("load", "clear") and not bulk.done:
        leave = "loaded" if bulk.kind == "load" else "cleared"
        for ids in (_from_the_last_due(state), state.tasks.walk_numbers()):
            yield from (o.BulkSlice(leave, some) for some in _in_slices(filter_in_turns(ids, leaves)))
    done = bulk.done
    ids = islice(filter(None, bulk.entries.walk_numbers()), done, None)
    for some in _in_slices(ids, lambda task_id: len(bulk.entries[task_id])):
        done += len(some)
        yield o.BulkSlice({"load": "define", "remove": "removed"}.get(bulk.kind, bulk.kind), some, done)


def _named_else(state: State, bulk: Bulk) -> Iterator[int | None]:
    """Those that wait for a task which has another name now, or leaves while they stay."""

    def is_waited_for(task_id: int) -> bool:
        return task_id in state.tasks and state.tasks[task_id].name in state.dependents

    ids = chain(list(state.unfinished.former.values()), bulk.entries.walk_numbers())
    for task_id in filter_in_turns(ids, is_waited_for):
        if task_id is None:
            yield None
        else:
            waiting = list(state.dependents[state.tasks[task_id].name])
            yield from filter_in_turns(waiting, lambda each: each not in bulk.entries)


def _from_the_last_due(state: State) -> Iterator[int]:
    """Tasks in the order in which their moments leave the heap at no cost."""
    stay = 0
    while stay < len(heap := state.due.heap):
        before = len(heap)
        ids = [task_id for *_, task_id in heap[-stay - SLICE : before - stay]]
        yield from dict.fromkeys(ids)
        stay = max(0, stay + len(ids) - (before - len(state.due.heap)))


def filter_in_turns(ids: Iterable[int | None], wanted: Callable[[int], bool]) -> Iterator[int | None]:
    """Those that are wanted; None now and then while there are none, so that others have their turn."""
    passed = 0
    for task_id in ids:
        if task_id is not None and wanted(task_id):
            passed = 0
            yield task_id
        elif (passed := passed + 1) % LOOKED_AT == 0:
            yield None


def _in_slices(
    ids: Iterable[int | None], size_of: Callable[[int], int] = lambda task_id: 0
) -> Iterator[list[int]]:
    """Each id once in a slice: what is done to a task in one decision must not be done to it twice."""
    some, size = dict[int, None](), 0
    for task_id in ids:
        if task_id is not None:
            some[task_id] = None
            size += size_of(task_id)
        if len(some) == SLICE or size > SLICE_CHARS:
            yield list(some)
            some, size = {}, 0
        elif task_id is None:
            yield []
    if some:
        yield list(some)


# --- a change of very many tasks ---


def _stage(state: State, order: o.StageTasks, now: datetime, limits: Limits) -> Decision:
    lines = [
        orjson.dumps(spec.record | (spec.pause.record if spec.pause else {})).decode() if spec else ""
        for _, spec in order.entries
    ]
    return Decision([f.BulkStaged([task_id for task_id, _ in order.entries], lines, order.next_task)])


def _decide_load(state: State, order: o.DecideLoad, now: datetime, limits: Limits) -> Decision:
    facts: list[f.Fact] = [f.BulkDecided("load")]
    return Decision([*facts, order.saved] if order.saved else facts, loaded(order.tasks, order.done))


def _drop_staged(state: State, order: o.DropStaged, now: datetime, limits: Limits) -> Decision:
    bulk = state.unfinished.bulk
    return Decision([f.BulkEnded("dropped")] if bulk and not bulk.is_decided else [])


def _bulk_slice(state: State, order: o.BulkSlice, now: datetime, limits: Limits) -> Decision:
    bulk, facts, messages = state.unfinished.bulk, list[f.Fact](), list[Message]()
    refused = order.left_out
    assert bulk
    if order.kind in ENDS:
        lines = ((task_id, bulk.entries.get(task_id)) for task_id in order.tasks)
        entries = [
            (task_id, read_record(orjson.loads(line), state.default_tz) if line else None)
            for task_id, line in lines
        ]
        taken = take(state, order.kind, entries, bulk.args, bulk.until_at, bulk.entries, now)
        facts, messages = taken.facts, taken.messages
        refused += len(list(taken.reply.rows)) if taken.reply else 0
    for task_id in order.tasks if order.kind not in ENDS else ():
        if order.plan and has_part(state, order.plan, order.kind, task_id):  # it may have left by itself
            facts += take_part(state, order.plan, order.kind, task_id, now)
        elif order.plan:
            continue
        elif order.kind == "named":
            facts += _named_anew(state, bulk, task_id)
        elif order.kind == "define":
            if line := bulk.entries[task_id]:
                spec = read_record(orjson.loads(line), state.default_tz)
                facts += define_task(state, task_id, spec, now)
        elif task := state.tasks.get(task_id):
            facts += leave_task(state, task, order.kind, now)
    for fact in facts:
        if isinstance(fact, f.Asked):
            fact.who, fact.change = bulk.who, bulk.change
        elif isinstance(fact, f.RunQueued | f.RunStopping):
            fact.who = bulk.who
    return Decision([*facts, f.BulkStepped(order.done, refused)], None, messages)


def _named_anew(state: State, bulk: Bulk, task_id: int) -> list[f.Fact]:
    """A task that waits for others says their new names, and waits for none that leaves."""
    new: dict[str, str] = {}
    task = state.tasks.get(task_id)
    for name in task.spec.options.after if task else ():
        here = state.find(name)
        if here and (here.id in bulk.entries or here.name != name):
            new[name] = "" if here.id in bulk.entries else here.name
    return [replaced(task, new)] if task and new else []


# --- moments that may be others now ---


def reschedule(state: State, from_at: datetime, zoneless: bool = False) -> list[f.Fact]:
    """Has the moments after `from_at` found anew: at once, or in slices from now on."""
    if (old := state.unfinished.again) and not old.zoneless:
        zoneless = False
    if len(state.tasks) > AT_ONCE:
        return [f.RescheduleBegun(from_at, zoneless)]
    again = Again(from_at, zoneless, before=state.unfinished.earlier(from_at))
    facts = look_again(again, state.tasks.values())
    return [*facts, f.RescheduleStepped(None)] if old else facts


def look_again(again: Again, tasks: Iterable[Task]) -> list[f.Fact]:
    facts: list[f.Fact] = []
    for task in tasks:
        if again.waits(task) and (due_at := again.next_of(task)) != task.due_at:
            facts.append(f.TaskRescheduled(task.id, due_at))
    return facts


def _reschedule_slice(state: State, order: o.RescheduleSlice, now: datetime, limits: Limits) -> Decision:
    assert state.unfinished.again
    tasks = [task for task_id in order.tasks if (task := state.tasks.get(task_id))]
    return Decision([*look_again(state.unfinished.again, tasks), f.RescheduleStepped(order.upto)])


def _reschedule_task(state: State, order: o.RescheduleTask, now: datetime, limits: Limits) -> Decision:
    task, again = state.tasks[order.task], state.unfinished.again
    assert again
    return Decision([f.TaskRescheduled(task.id, again.next_of(task))])


SLICES: Rules = {
    o.RescheduleSlice: Rule(_reschedule_slice),
    o.RescheduleTask: Rule(_reschedule_task),
    o.PassOver: Rule(lambda state, order, now, limits: Decision()),
    o.StageTasks: Rule(_stage),
    o.DecideLoad: Rule(_decide_load, "LOAD", lambda state, order: loaded_words(order.file, order.tasks)),
    o.DropStaged: Rule(_drop_staged),
    o.BulkSlice: Rule(_bulk_slice),
}
