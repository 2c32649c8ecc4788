"""Orders about tasks themselves: ADD, SET, REMOVE, CLEAR, LOAD, PAUSE and RESUME.

The part of the engine that people edit with. The rules of engine.py hold here too: look and
never touch; refuse before any fact exists.
"""

from __future__ import annotations

from collections.abc import Container, Generator, Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from itertools import chain, islice
from typing import Any, TypeVar

from attrs import evolve
from msgspec import structs

from ..base.errors import Refusal, about_record
from ..base.names import check_name, id_of_name
from ..base.replies import NOTE_COLUMNS, Reply, Row
from ..base.text import escape, format_option, format_time
from ..base.walks import Numbered, Parted, Steps
from ..schedules.schedule import settle_schedule
from ..schedules.words import named_zone
from ..schedules.zones import FIRST_S, to_instant
from ..tasks.options import check_given, masked, set_options
from ..tasks.reasons import Reason, in_words, reason
from ..tasks.task import (
    WAITING,
    Task,
    TaskSpec,
    make_spec,
    parse_record,
    read_record,
    read_today,
)
from . import facts as f
from . import orders as o
from .changelog import ids_of_others, without_done
from .dependencies import (
    check_circles,
    check_leaving,
    find_circle,
    refuse_circle,
    settle_after,
    those_who_wait,
)
from .fires import NO_WORKER, come, ended_waiting, pass_range, start_now, targets_of
from .notices import notes
from .placement import send_at_once
from .rules import Decision, Limits, Rule, Rules, check_limit
from .state import State
from .tables import ENDED_AT_ONCE

AT_ONCE = 200  # tasks that are dealt with in one decision; more in slices
AT_ONCE_CHARS = 1 << 20  # of what their records say; the same
MAX_TEMPLATES = 1000
MAX_CHOSEN_ID = 10**15  # so that the numbers behind it, one by one, stay below 2**53 for ever
MAX_WAY = 20_000  # steps of looking for a circle, two a task; about as many milliseconds as thousands

T = TypeVar("T")
Entry = tuple[int | None, TaskSpec]


def _add(state: State, order: o.AddTask, now: datetime, limits: Limits) -> Decision:
    if order.replace:
        return _replace(state, order, now, limits)
    check_limit(state.tasks, limits.tasks, "tasks")
    task_id = _new_id(state, order.task_id, order.spec.name)
    pause = order.spec.pause
    spec = order.spec.bare if pause else order.spec
    spec = _settled(state, _named(read_today(spec, state.default_tz), task_id))
    anchor_at = _anchor(now)
    due_at = now if order.now else spec.moments.next_after(now, anchor_at)
    if due_at is None:
        _check_some_moment(spec, due_at)
    added = _added(task_id, spec.name, due_at, notes(state, spec))
    decision = Decision([f.TaskAdded(task_id, spec, anchor_at, due_at)], added)
    if pause and pause.is_on:
        decision.facts.append(f.TaskPaused(task_id, pause.until_at, pause.why))
    if order.now:
        if not targets_of(state, spec, now):
            raise Refusal("busy", in_words(NO_WORKER))
        task = Task(task_id, spec, anchor_at)
        decision.facts += start_now(state, task, now).facts
        send_at_once(state, task, decision, now)
    return decision


def _replace(state: State, order: o.AddTask, now: datetime, limits: Limits) -> Decision:
    """ADD replace=yes: the task of that name becomes this one; if there is none, there is one from now on."""
    task, spec = _to_replace(state, order), read_today(order.spec.bare, state.default_tz)
    spec = _settled(state, spec, spec.name)
    if task and spec.options.owner is None:  # whoever replaces it does not become its owner
        spec = evolve(spec, options=evolve(spec.options, owner=task.spec.options.owner))
    if task is None:
        decision, rev, change = _add(state, structs.replace(order, replace=False), now, limits), 1, "added"
    elif spec.record == task.spec.record:
        reply = _added(task.id, task.name, task.due_at, notes(state, spec))
        decision, rev, change = Decision([], reply), task.rev, "unchanged"
    else:
        decision, rev, change = _changed(state, task, spec, now), task.rev + 1, "replaced"
        due_at = next(fact.due_at for fact in decision.facts if isinstance(fact, f.TaskChanged))
        decision.reply = _added(task.id, task.name, due_at, notes(state, spec))
    decision.told.text += f" rev={rev} {change}"
    decision.told.values |= {"rev": rev, "change": change}
    return decision


def _to_replace(state: State, order: o.AddTask) -> Task | None:
    name = order.spec.name
    if not name:
        raise Refusal("bad-option", "replace=yes needs name=, which says what task it is about", "replace")
    task = state.find(name)
    if task is None:
        return None
    if order.task_id not in (None, task.id):
        raise Refusal("exists", f'a task named "{name}" exists already, and its id is {task.id}')
    _check_waiting(state, order.spec, name)
    return task


def _check_waiting(state: State, spec: TaskSpec, name: str) -> None:
    """Refuses that a task which others wait for becomes one that runs once."""
    if spec.schedule.kind == "at" and (waiting := state.dependents.get(name)):
        raise Refusal("busy", f"{those_who_wait(state, waiting)} for it, and what runs once is gone then")


def _new_id(state: State, wanted: int | None, name: str) -> int:
    """The id a new task gets; checks that its name and id are free to take."""
    task_id = state.next_task
    if wanted is not None:
        if wanted in state.tasks:
            raise Refusal("exists", f"task {wanted} exists already", "id")
        if wanted < task_id:
            raise Refusal("exists", f"the id {wanted} was used before, and ids are never used again", "id")
        _check_chosen(state, wanted)
        task_id = wanted
    _check_free(state, name, task_id)
    return task_id


def _check_chosen(state: State, wanted: int | None) -> None:
    """Refuses an id so large that those after it could not be told in JSON, nor loaded again."""
    if wanted and wanted >= MAX_CHOSEN_ID and wanted > state.next_task:
        raise Refusal(
            "bad-line", f"the id {wanted} is too large: an id that you choose has at most 15 digits"
        )


def _check_free(state: State, name: str, task_id: int) -> None:
    """Refuses a name for this task that is another's."""
    if (owner := state.names.get(name)) not in (None, task_id):
        raise Refusal("exists", f'a task named "{name}" exists already (id {owner})', "name")
    if name in state.beats.expected:
        raise Refusal("exists", f'"{name}" is the name of an expectation; FORGET removes it', "name")
    if name[:5] == "task_" and (owner := id_of_name(name)) not in (None, task_id):
        raise Refusal("exists", f'the name "{name}" belongs to id {owner} alone', "name")


def _settled(state: State, spec: TaskSpec, old_name: str = "") -> TaskSpec:
    """Its after= as names, checked: all are there, come again and again, and form no circle."""
    if not spec.options.after:
        return spec

    def find(ref: str) -> TaskSpec | None:
        task = state.find(ref)
        return spec if ref in (spec.name, old_name) else task.spec if task else None

    def after(name: str) -> tuple[str, ...]:
        found = find(name)
        return found.options.after if found else ()

    spec = settle_after(spec, find)
    if spec.name in spec.options.after or old_name in state.dependents:
        for steps, _ in enumerate(check_circles([spec.name], after)):
            if steps > MAX_WAY:
                raise Refusal(
                    "limit", "after=: too many tasks stand before this one to look for a circle", "after"
                )
    return spec


def _set(state: State, order: o.SetTask, now: datetime, limits: Limits) -> Decision:
    assert isinstance(order.ref, str)
    task = _find_seen(state, order.ref, order.rev)
    return _defined(state, task, set_spec(state, task, order.words, now), "notify" in order.words, now)


def _roll_back(state: State, order: o.RollBack, now: datetime, limits: Limits) -> Decision:
    task, spec = find_task(state, order.ref), read_record(order.record, state.default_tz)
    if spec.unread:
        raise Refusal("bad-line", f"revision {order.rev} cannot be read any more: {spec.unread.why}")
    _check_free(state, spec.name, task.id)
    spec = _settled(state, spec, task.name)
    _check_waiting(state, spec, task.name)
    return _defined(state, task, spec, True, now)


def _defined(state: State, task: Task, spec: TaskSpec, asks_notify: bool, now: datetime) -> Decision:
    """A task has another definition from now on, and those that wait for it know its new name."""
    old, decision = task.spec, _changed(state, task, spec, now)
    if old.unread is not None:
        return decision
    decision.told.columns = NOTE_COLUMNS
    is_work = spec.work != old.work
    is_where = is_work or spec.options.on != old.options.on
    decision.told.rows = notes(state, spec, is_work, asks_notify, is_where)
    if spec.name != old.name:
        waiting = state.dependents.get(old.name, ())
        if len(waiting) > AT_ONCE:
            decision.facts.insert(0, f.BulkDecided("rename"))
        else:
            decision.facts += [replaced(state.tasks[each], {old.name: spec.name}) for each in sorted(waiting)]
    return decision


def set_spec(state: State, task: Task, given: dict[str, str], now: datetime) -> TaskSpec:
    """The definition of a task as these words of SET change it."""
    words, old = dict(given), task.spec
    check_given(words)
    unset = {f"env.{name}" for name in words.pop("unset", "").split(",")}
    name = words.pop("name", old.name) or f"task_{task.id}"
    if name != old.name:
        check_name(name)
        _check_free(state, name, task.id)
    if old.unread is not None:  # whole again with these words, or still refused
        kept = {key: value for key, value in old.unread.record.items() if key not in unset}
        _, spec = parse_record(kept | words | {"jobName": name}, state.default_tz, now)
        return _settled(state, spec, old.name)
    command, text = words.pop("command", old.command), words.pop("schedule", old.schedule.text)
    text = settle_schedule(text, words.get("tz", old.options.tz) or state.default_tz, now)
    zone = old.schedule.tz
    if text != old.schedule.text or "tz" in words:
        zone = named_zone(text) or state.default_tz
    env = tuple(pair for pair in old.options.env if f"env.{pair[0]}" not in unset)
    options = set_options(evolve(old.options, env=env), words, zone, now)
    spec = make_spec(name, text, command, options, state.default_tz)
    spec = _settled(state, spec, old.name)
    _check_waiting(state, spec, old.name)
    return spec


def are_long(specs: Iterable[TaskSpec]) -> bool:
    """Whether the records of so few tasks are too long for one decision even so."""
    return sum([spec.size for spec in specs]) > AT_ONCE_CHARS


def replaced(task: Task, new: Mapping[str, str]) -> f.Fact:
    """A task that waits for others, which have new names, or none any more (empty)."""
    after = tuple(filter(None, (new.get(name, name) for name in task.spec.options.after)))
    definition: f.Definition = evolve(task.spec, options=evolve(task.spec.options, after=after))
    if task.spec.unread:
        definition = task.spec.record | {"after": ",".join(after)}
        if not after:
            del definition["after"]  # as it would be written if it could be read
    return f.TaskChanged(task.id, task.rev + 1, definition, task.due_at)


def _changed(state: State, task: Task, spec: TaskSpec, now: datetime) -> Decision:
    due_at, first = task.due_at, Decision()
    # Otherwise not looked at again: the only moment of an @at that runs now is over.
    if not _is_same(spec, task.spec):
        if _is_overdue(task, now):
            first = _decided_first(state, task, now)
        fired = any(isinstance(fact, f.RunQueued) for fact in first.facts)
        due_at = _due_anew(task, spec, undecided_from(state, now), fired)
        if not _is_used_up(task, spec, fired):
            _check_some_moment(spec, due_at)
    rev = task.rev + 1
    changed = f.TaskChanged(task.id, rev, spec, due_at)
    reply = Reply(f"{task.id} rev={rev}", {"id": task.id, "rev": rev})
    return Decision([*_staying(first.facts), changed], reply, first.messages)


def _decided_first(state: State, task: Task, now: datetime) -> Decision:
    """A moment that came before a change starts by the definition it came by; several are missed."""
    moments, due_at = task.spec.moments, task.due_at
    assert due_at is not None
    following = moments.next_after(due_at, task.anchor_at)
    is_one = (following is None or following > now) and moments.times_at(due_at, task.anchor_at) == 1
    return come(state, task, now) if is_one else Decision(overdue(state, task, now))


def overdue(state: State, task: Task, now: datetime) -> list[f.Fact]:
    """Moments that have come and were not decided yet end here: the task will not have them any more."""
    if task.due_at is None or not _is_overdue(task, now):
        return []
    newest = task.spec.moments.latest(task.due_at, now, task.anchor_at) or task.due_at
    return _staying(pass_range(state, task, task.due_at, newest, "missed", reason("changed")))


def undecided_from(state: State, now: datetime) -> datetime:
    """From when on moments are new; those that a clock set back shows again have been decided."""
    return max(now, state.decided_upto_at)


def _template(state: State, order: o.SetTemplate, now: datetime, limits: Limits) -> Decision:
    """Tasks that were made from it have its words as their own, so none is touched."""
    old = state.templates.get(order.name)
    if old is None and order.words is None:
        raise Refusal("not-found", f'no template "{escape(order.name[:80])}"')
    if old is None:
        check_limit(state.templates, MAX_TEMPLATES, "templates")
    done = "removed" if order.words is None else "added" if old is None else "replaced"
    if order.words == old:
        done = "unchanged"
    reply = Reply(f"{order.name} {done}", {"template": order.name, "change": done})
    return Decision([f.TemplateSet(order.name, order.words)] if order.words != old else [], reply)


def _remove(state: State, order: o.RemoveTask, now: datetime, limits: Limits) -> Decision:
    task: Task = order.plan or finish(plan_remove(state, order))
    reply = Reply(f"{task.id} removed", {"id": task.id, "removed": True})
    return Decision(removed(state, [task], {task.id}, now), reply)


def plan_remove(state: State, order: o.RemoveTask) -> Generator[None, None, Task]:
    """The task that leaves, in small steps; or Refusal."""
    assert isinstance(order.ref, str)
    task = _find_seen(state, order.ref, order.rev)
    yield from check_leaving(state, task, order.force, {task.id})
    return task


def removed(state: State, tasks: Iterable[Task], leaving: Container[int], now: datetime) -> list[f.Fact]:
    """Tasks go, and those that stay wait for them no longer."""
    tasks = list(tasks)
    gone = dict.fromkeys((task.name for task in tasks), "")
    all_waiting = (each for name in gone for each in state.dependents.get(name, ()) if each not in leaving)
    waiting = set(islice(all_waiting, AT_ONCE + 1))
    if len(waiting) > AT_ONCE:
        ids = [task.id for task in tasks]
        return [f.BulkStaged(ids, [""] * len(ids), state.next_task), f.BulkDecided("remove")]
    facts = [replaced(state.tasks[task_id], gone) for task_id in sorted(waiting)]
    return facts + [fact for task in tasks for fact in leave_task(state, task, "removed", now)]


def _clear(state: State, order: o.ClearTasks, now: datetime, limits: Limits) -> Decision:
    count = state.count_own()
    reply = Reply(f"{count} removed", {"removed": count})
    if count > AT_ONCE:
        return Decision([f.BulkDecided("clear")], reply)
    facts = [fact for task in state.own_tasks() for fact in leave_task(state, task, "cleared", now)]
    return Decision(facts, reply)


def cancel_queued(state: State, task: Task, why: Reason) -> list[f.Fact]:
    """What has not been sent ends with its task, events too; running ones go on to their end.

    Very many end in steps of their own, once the task is gone.
    """
    runs = [state.runs[run] for run in task.runs] if len(task.runs) <= ENDED_AT_ONCE else []
    queued = [run for run in runs if run.state in WAITING]
    facts = [fact for run in queued for fact in ended_waiting(run, "cancelled", why)]
    for due_at in (emitted.due_at for emitted in state.unanswered.get(task.id, ())):
        about = task.id, task.name, "missed", due_at, due_at, 1, reason("changed"), None
        facts.append(f.FiresPassed(*about, emitted=True))
    return facts


def _load(state: State, order: o.LoadTasks, now: datetime, limits: Limits) -> Decision:
    numbered, _ = finish(plan_load(state, order.records, limits))
    staying = {task_id for task_id, _ in numbered if task_id in state.tasks}
    leaving = [task for task in state.own_tasks() if task.id not in staying]
    facts = [fact for task in leaving for fact in leave_task(state, task, "loaded", now)]
    for task_id, spec in numbered:
        facts += define_task(state, task_id, spec, now)
    if order.saved is not None:
        facts.append(order.saved)
    return Decision(facts, loaded(len(order.records), len(order.records) - len(numbered)))


def plan_load(
    state: State, records: list[Entry], limits: Limits
) -> Generator[None, None, tuple[list[tuple[int, TaskSpec]], int]]:
    """The tasks of a file as they will be, and an id above theirs, in small steps; or Refusal."""
    if len(records) > limits.tasks:
        raise Refusal("limit", f"{len(records)} tasks are more than the limit, {limits.tasks}")
    numbered, next_task = yield from _numbered(state, records)
    numbered = yield from _all_settled(numbered)
    return (yield from without_done(numbered, state.tasks, list(state.recent))), next_task


def leave_task(state: State, task: Task, why: str, now: datetime) -> list[f.Fact]:
    """A task goes that is not in the file, or whose time CLEAR has ended."""
    cancelled = cancel_queued(state, task, reason(why))
    return [*overdue(state, task, now), *cancelled, f.TaskRemoved(task.id, why)]


def define_task(state: State, task_id: int, spec: TaskSpec, now: datetime) -> list[f.Fact]:
    """A task of the file, and whether it is paused, where the file tells; else that stays as it is."""
    old, pause = state.tasks.get(task_id), spec.pause
    spec = read_today(spec.bare, state.default_tz)
    facts = reload(state, old, spec, now) if old else [_loaded(state, task_id, spec, now)]
    if pause and pause.is_on and not (old and old.as_saved.pause == pause):
        return [*facts, f.TaskPaused(task_id, pause.until_at, pause.why)]
    return [*facts, f.TaskResumed(task_id)] if pause and not pause.is_on and old and old.paused else facts


def _numbered(
    state: State, records: list[Entry]
) -> Generator[None, None, tuple[list[tuple[int, TaskSpec]], int]]:
    """The tasks of a file with the ids and names they get; one of a known name keeps its id."""
    numbered: list[tuple[int, TaskSpec]] = []
    staying = Numbered[None]()
    next_id = state.next_task
    wanted = Numbered[str]()
    for task_id, spec in records:
        next_id = max(next_id, (task_id or 0) + 1)
        is_used = task_id is not None and task_id < state.next_task and spec.name not in state.names
        if task_id is not None and is_used and spec.name not in ("", f"task_{task_id}"):
            wanted[task_id] = spec.name
        yield
    others = yield from ids_of_others(wanted, state.changes, list(state.recent))
    for number, (task_id, spec) in enumerate(records, 1):
        yield
        new_id = state.names.get(spec.name) if spec.name else None
        if new_id is None:
            new_id = task_id if task_id is not None else id_of_name(spec.name) or next_id
            if new_id in state.tasks or new_id in staying or new_id in others:
                new_id = next_id  # that id belongs to a task of another name, or did
            next_id = max(next_id, new_id + 1)
        staying[new_id] = None
        named = _named(spec, new_id)
        with about_record(number):
            _check_chosen(state, task_id)
            _check_free(state, named.name, new_id)
        numbered.append((new_id, named))
    yield from chain(staying.let_all_go(), others.let_all_go())
    return numbered, next_id


def reload(state: State, task: Task, spec: TaskSpec, now: datetime) -> list[f.Fact]:
    """What makes a task that is there as a file says it; nothing where it is so already."""
    if spec.record == task.spec.record:
        return []
    due_at, facts = task.due_at, list[f.Fact]()
    if not _is_same(spec, task.spec):
        facts = overdue(state, task, now)
        due_at = _due_anew(task, spec, undecided_from(state, now))
    return [*facts, f.TaskChanged(task.id, task.rev + 1, spec, due_at)]


def _loaded(state: State, task_id: int, spec: TaskSpec, now: datetime) -> f.Fact:
    due_at = spec.moments.next_after(now, _anchor(now))
    if due_at is None and spec.schedule.kind == "at":
        # Its moment passed while it stood in the file: due at once, and judged by its grace.
        due_at = spec.moments.next_after(to_instant(FIRST_S), now)
    return f.TaskAdded(task_id, spec, _anchor(now), due_at)


def _pause(state: State, order: o.PauseTasks, now: datetime, limits: Limits) -> Decision:
    check_until(order.until_at, now)
    assert not isinstance(order.ref, o.Pattern)
    tasks = _find_all(state, order.ref)
    ids = [None] if tasks is None else [task.id for task in tasks]
    count = len(state.tasks) if tasks is None else len(tasks)
    facts: list[f.Fact] = [f.TaskPaused(task_id, order.until_at, order.why) for task_id in ids]
    return Decision(facts, Reply(f"{count} paused", {"paused": count}))


def _resume(state: State, order: o.ResumeTasks, now: datetime, limits: Limits) -> Decision:
    assert not isinstance(order.ref, o.Pattern)
    tasks = _find_all(state, order.ref)
    if tasks is None:
        count, facts = len(state.paused), list[f.Fact]()
        if count > AT_ONCE:
            facts = [f.BulkDecided("resume"), f.TaskResumed(None, own_stay=True)]
        else:
            count = sum(state.tasks[each].is_paused(now) for each in state.paused)
            facts = [f.TaskResumed(None)]
        if state.is_all_paused(now):
            count = len(state.tasks)
        return Decision(facts, Reply(f"{count} resumed", {"resumed": count}))
    check_one_resumes(state, now)
    paused = [task for task in tasks if task.is_paused(now)]
    facts = [f.TaskResumed(task.id) for task in paused]
    return Decision(facts, Reply(f"{len(paused)} resumed", {"resumed": len(paused)}))


def find_task(state: State, ref: str) -> Task:
    task = state.find(ref)
    if task is None:
        raise Refusal("not-found", f'no task "{escape(ref[:80])}"')
    return task


def _find_seen(state: State, ref: str, rev: int | None) -> Task:
    """A task that is still as whoever changes it has seen it, if he says so."""
    task = find_task(state, ref)
    if rev not in (None, task.rev):
        raise Refusal(
            "busy", f"{task.name} was changed meanwhile: its revision is {task.rev}, not {rev}", "rev"
        )
    return task


def check_until(until_at: datetime | None, now: datetime) -> None:
    """Refuses a pause that would be over already."""
    if until_at is not None and until_at <= now:
        raise Refusal("bad-option", f"until={format_time(until_at)} is in the past", "until")


def check_one_resumes(state: State, now: datetime) -> None:
    """Refuses RESUME of some, which starts nothing while everything is paused."""
    if state.is_all_paused(now):
        raise Refusal("busy", "everything is paused; RESUME all lifts that")


def _find_all(state: State, refs: Iterable[str] | None) -> list[Task] | None:
    if refs is None:
        return None
    return list({task.id: task for task in (find_task(state, ref) for ref in refs)}.values())


@lru_cache(maxsize=1)  # what comes together comes at one time
def _anchor(now: datetime) -> datetime:
    return now.replace(microsecond=0)


def _is_same(one: TaskSpec, other: TaskSpec) -> bool:
    """Whether two definitions name the same moments."""
    return _timing(one) == _timing(other)


def _timing(spec: TaskSpec) -> tuple[Any, ...]:
    schedule, options = spec.schedule, spec.options
    shift_of = spec.name if options.spread_s else ""
    bounds = (options.start_at, options.end_at, options.count, options.spread_s, shift_of)
    # Texts, since the cache of parsed schedules has an end.
    return schedule.kind, schedule.text, schedule.tz, bounds


def _is_overdue(task: Task, now: datetime) -> bool:
    """Whether moments have come that were not decided yet."""
    return task.due_at is not None and task.due_at <= now


def _staying(facts: Iterable[f.Fact]) -> list[f.Fact]:
    """Without the end of a one-off: what becomes of the task is decided by whoever asks."""
    return [fact for fact in facts if not isinstance(fact, f.TaskRemoved)]


def _due_anew(task: Task, spec: TaskSpec, now: datetime, fired: bool = False) -> datetime | None:
    """When a task is due that has this definition from now on; `fired`: it fires once more before that."""
    return None if _is_used_up(task, spec, fired) else spec.moments.next_after(now, task.anchor_at)


def _is_used_up(task: Task, spec: TaskSpec, fired: bool = False) -> bool:
    """A new count= begins anew; the same one goes on."""
    count = spec.options.count
    return count == task.spec.options.count and 0 < count <= task.fired + fired


def _named(spec: TaskSpec, task_id: int) -> TaskSpec:
    return spec if spec.name else evolve(spec, name=f"task_{task_id}")


def _all_settled(
    numbered: list[tuple[int, TaskSpec]],
) -> Generator[None, None, list[tuple[int, TaskSpec]]]:
    """The tasks of a file with their after= as names, checked as in one task alone."""
    waiting: list[int] = []
    for place, (_, spec) in enumerate(numbered):
        if spec.options.after:
            waiting.append(place)
        yield
    if not waiting:
        return numbered
    specs = Parted[str, TaskSpec]()
    for task_id, spec in numbered:
        specs[str(task_id)] = spec
        yield
    for _, spec in numbered:
        specs[spec.name] = spec
        yield
    after = Parted[str, tuple[str, ...]]()
    for place in waiting:
        task_id, spec = numbered[place]
        with about_record(place + 1):
            spec = settle_after(spec, specs.get)
        numbered[place] = task_id, spec
        after[spec.name] = spec.options.after
        yield
    if circle := (yield from find_circle(after, lambda name: after.get(name) or ())):
        with about_record(1 + next(place for place in waiting if numbered[place][1].name == circle[0])):
            refuse_circle(circle)
    for table in (specs, after):
        yield from table.let_all_go()
    return numbered


def finish(steps: Generator[None, None, T]) -> T:
    """All steps of a plan in one go."""
    plan = Steps(steps)
    for _ in plan:
        pass
    return plan.value


def loaded(count: int, done: int = 0) -> Reply:
    """So many of a file; `done`: so many of them run once and have, and are left out."""
    text = f"{done} left out: to be run once, and run since the file was written"
    return Reply(f"{count} loaded", {"loaded": count}, NOTE_COLUMNS, [("note", text)] if done else ())


def _check_some_moment(spec: TaskSpec, due_at: datetime | None) -> None:
    """Refuses a schedule that will never start anything."""
    if due_at is None and spec.schedule.kind == "at":
        raise Refusal("bad-schedule", f"{spec.schedule.text} is in the past")
    if due_at is not None or spec.schedule.kind in ("reboot", "after", "on"):
        return
    if spec.options.end_at:
        raise Refusal("bad-schedule", f'"{spec.schedule.text}" does not come before end= any more')
    raise Refusal("bad-schedule", f'"{spec.schedule.text}" never comes in {spec.schedule.tz}')


def _added(task_id: int, name: str, due_at: datetime | None, rows: list[Row]) -> Reply:
    values = {"id": task_id, "jobName": name, "next": due_at}
    when = format_time(due_at) if due_at else "-"
    return Reply(f"{task_id} {name} next={when}", values, NOTE_COLUMNS, rows)


# --- how HISTORY tells it ---


def _name(state: State, ref: o.Ref) -> str:
    task = state.find(ref) if isinstance(ref, str) else None
    return task.name if task else str(ref)


def _word(key: str, value: str) -> str:
    return format_option(key, masked(key, value))


def _words_of_add(state: State, order: o.AddTask) -> str | None:
    # What runs once is gone before anybody could take it back; CANCEL and REMOVE are for that.
    is_new = not (order.replace and order.spec.name in state.names)
    if order.spec.schedule.kind == "at" and is_new:
        return None
    return "replace=yes " * order.replace + (order.spec.name or f"task_{order.task_id or state.next_task}")


def _words_of_set(state: State, order: o.SetTask) -> str:
    words = " ".join(_word(key, value) for key, value in order.words.items())
    return f"{_name(state, order.ref)} {words}"


def _words_of_template(state: State, order: o.SetTemplate) -> str:
    if order.words is None:
        return f"REMOVE {order.name}"
    return " ".join(["ADD", order.name, *(_word(key, value) for key, value in order.words.items())])


def _words_of_remove(state: State, order: o.RemoveTask) -> str | None:
    # A notification is no task of anybody's, and would come back as one.
    task = state.find(order.ref) if isinstance(order.ref, str) else None
    return None if task and task.is_notice else _name(state, order.ref)


def loaded_words(file: str, count: int) -> str | None:
    return f"{file} {count} tasks" if file else None


def _words_of_pause(state: State, order: o.PauseTasks) -> str:
    words = [_names_of(state, order.ref)]
    words += [f"until={format_time(order.until_at)}"] if order.until_at else []
    words += [format_option("why", order.why)] if order.why else []
    return " ".join(words)


def _names_of(state: State, refs: tuple[str, ...] | o.Pattern | None) -> str:
    if refs is None or isinstance(refs, o.Pattern):
        return str(refs or "all")
    return " ".join(_name(state, ref) for ref in refs)


# None of them while very many tasks are being changed.
DEFINE: Rules = {
    kind: evolve(rule, is_exclusive=True)
    for kind, rule in {
        o.AddTask: Rule(_add, "ADD", _words_of_add),
        o.SetTask: Rule(_set, "SET", _words_of_set),
        o.RollBack: Rule(
            _roll_back, "ROLLBACK", lambda state, order: f"{_name(state, order.ref)} {order.rev}"
        ),
        o.SetTemplate: Rule(_template, "TEMPLATE", _words_of_template),
        o.RemoveTask: Rule(_remove, "REMOVE", _words_of_remove),
        o.ClearTasks: Rule(_clear, "CLEAR", lambda state, order: f"{state.count_own()} tasks"),
        o.LoadTasks: Rule(_load, "LOAD", lambda state, order: loaded_words(order.file, len(order.records))),
        o.PauseTasks: Rule(_pause, "PAUSE", _words_of_pause),
        o.ResumeTasks: Rule(_resume, "RESUME", lambda state, order: _names_of(state, order.ref)),
    }.items()
}
