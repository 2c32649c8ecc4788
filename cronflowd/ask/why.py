"""WHY: the chain of causes of one moment, in words.

Either something is known of it (runs that have not ended, outcomes in memory or in the
journal), and is told in order, with what it hangs on; or nothing is, and then the task's
definition is asked whether it was due at all, and by which field it was not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import chain
from typing import NamedTuple

from ..base.replies import Row
from ..base.text import format_time
from ..base.walks import in_slices
from ..engine.fires import cause_of, day_off, out_of_bounds, why_paused
from ..engine.flow_runs import FlowRun
from ..engine.hearing import heard_by
from ..engine.placement import why_waiting
from ..engine.state import State
from ..engine.tables import WELL
from ..schedules.describe import describe
from ..schedules.rules import DAY_NAMES, MONTH_NAMES, format_ordinal
from ..schedules.schedule import MACROS, At, Cron, Every
from ..schedules.timetable import TICK, Timetable
from ..schedules.zones import FIRST_S, to_instant, to_seconds, why_unscheduled
from ..tasks.reasons import code_of, in_words, runs_in
from ..tasks.task import Outcome, Run, Task
from .kept import about

MAX_CAUSES = 5  # runs of other tasks that one answer follows


class Found(NamedTuple):
    """What is known of a moment: runs of that moment, and outcomes, in the order in which they came."""

    runs: list[Run]
    outcomes: list[Outcome]


def concerns(at: datetime, wanted: Callable[[Outcome], bool]) -> Callable[[Outcome], bool]:
    """Whether an outcome is about this moment, and is `wanted` besides."""

    def is_about(outcome: Outcome) -> bool:
        # In this order, since `wanted` has to see all there are.
        return wanted(outcome) and (outcome.first_due_at or outcome.due_at) <= at <= outcome.due_at

    return is_about


def runs_of(state: State, ref: str) -> Iterator[Run | None]:
    """The runs of a task that have not ended; then those of tasks that are gone."""
    is_about, task = about(state, ref), state.find(ref)
    gone = (list(runs) for runs in reversed(list(state.orphans.values())))
    for number in in_slices(chain(list(task.runs) if task else (), chain.from_iterable(gone))):
        if number is None:
            yield None
        elif (run := state.runs.get(number)) and is_about(run.task_id, run.spec.name):
            yield run


def explain_found(
    state: State, task: Task | None, at: datetime, found: Found, remarks: Iterable[str], other: Found
) -> tuple[list[Row], str]:
    """(rows, disposition or `pending`) for a moment that something is known of.

    `remarks` are the daemon's own lines in the runs' LOG; `other` holds the runs of other
    tasks that are to blame.
    """
    whose = (found.outcomes or found.runs)[0].task_id
    rows: list[Row] = [(at, _how_it_came(task if task and task.id == whose else None, at, found))]
    rows += [(outcome.ended_at, _tell_outcome(outcome)) for outcome in found.outcomes]
    disposition = found.outcomes[-1].state if found.outcomes else "pending"
    if task and task.spec.options.on == "all":  # well, if all that ran did; else as one of those that did not
        ends = {outcome.run: outcome.state for outcome in found.outcomes}  # the last attempt of each
        disposition = min(ends.values(), key=lambda end: (end == "skipped", end == WELL), default=disposition)
    told = {in_words(outcome.why) for outcome in found.outcomes}
    rows += [(None, remark) for remark in remarks if remark not in told]
    rows += [(outcome.ended_at, f"{outcome.name}: {_tell_outcome(outcome)}") for outcome in other.outcomes]
    rows += [(None, f"{run.spec.name}: {_tell_run(state, run)}") for run in other.runs]
    if found.runs:
        begun = ((state.shown(run.started_at or run.sent_at), run) for run in found.runs)
        rows += [(at, _tell_run(state, run)) for at, run in begun]
        disposition = "pending"
    return rows, disposition


def blamed_runs(outcomes: Iterable[Outcome]) -> list[int]:
    """The runs that the reasons of skipped moments name."""
    numbers = [number for outcome in outcomes for number in runs_in(outcome.why)]
    own = {outcome.run for outcome in outcomes}
    return [number for number in dict.fromkeys(numbers) if number not in own][:MAX_CAUSES]


def _how_it_came(task: Task | None, at: datetime, found: Found) -> str:
    causes = [cause_of(run) for run in found.runs] + [outcome.cause for outcome in found.outcomes]
    told = dict.fromkeys(in_words(cause) for cause in causes if cause)
    is_asked = all(code_of(cause) == "asked" for cause in causes)
    return "; ".join((_what_it_is(task, at, found, is_asked), *told))


def _what_it_is(task: Task | None, at: datetime, found: Found, is_asked: bool) -> str:
    if task is None:
        name = (found.outcomes or found.runs)[0]
        return f"a moment of {name.name if isinstance(name, Outcome) else name.spec.name}, which is gone now"
    by = found.runs[0].by if found.runs else ""
    has_run = any(outcome.run for outcome in found.outcomes)
    if not by and is_asked and task.spec.schedule.kind != "at":
        by = "manual"
    if not by and has_run and task.spec.schedule.kind in ("cron", "every") and not _is_moment(task, at):
        by = "manual"
    flow = max([run.flow for run in found.runs] + [outcome.flow for outcome in found.outcomes])
    if flow and (is_asked or by == "flow" or task.spec.options.after):
        return f"{task.name} had its turn in flow run {flow}"
    return {
        "manual": f"{task.name} was started by hand (RUN)",
        "reboot": f"{task.name} starts with the daemon (@reboot)",
        "after": f"{task.name} fires when all that it waits for has ended (@after)",
    }.get(by, f"a moment of {task.name}: {_means(task)}")


def _means(task: Task) -> str:
    return describe(task.spec.schedule, task.spec.options.start_at is not None)


def _is_moment(task: Task, at: datetime) -> bool:
    return at > to_instant(FIRST_S) and task.spec.moments.next_after(at - TICK, task.anchor_at) == at


def tell_waiting(state: State, task: Task, now: datetime) -> Iterator[Row]:
    """What a task waits for now: its turn in a run of its flow, and each of its dependencies."""
    if flow := turn_to_come(state, task):
        held = f"has come, but it is {in_words(why_paused(state, task, now))}"
        yield (
            None,
            f"its turn in flow run {flow.number} {held if task.id in state.flows.held else 'is to come'}",
        )
    yield from _tell_dependencies(state, task, flow)


def _tell_dependencies(state: State, task: Task, flow: FlowRun | None = None) -> Iterator[Row]:
    """One row for each; of those in a run of a flow, how far they are there."""
    if task.is_used_up:
        yield None, f"count={task.spec.options.count} is used up: nothing starts any more"
    for name in task.spec.options.after:
        dependency = state.find(name)
        member = flow.members.get(dependency.id) if flow and dependency else None
        heard = heard_by(state, task).get(name)
        text = "has ended well" if heard == WELL else in_words(heard) or "has not ended since the last fire"
        runs = [state.runs[run] for run in dependency.runs] if dependency else []
        yield None, f"it waits for {name}: {f'{member.state} there' if member else text}"
        yield from ((None, f"{name}: {_tell_run(state, run)}") for run in runs)


def turn_to_come(state: State, task: Task) -> FlowRun | None:
    """The run of its flow in which this task has not had its turn yet."""
    flow = state.flows.active.get(state.flows.of.get(task.id, 0))
    return flow if flow and not flow.stopping and flow.members[task.id].state == "waiting" else None


def _tell_outcome(outcome: Outcome) -> str:
    if outcome.run is None:
        count = "" if outcome.count == 1 else f"{outcome.count} moments, the last of them then, were "
        return f"{count}{outcome.state}: {in_words(outcome.why)}"
    words = [f"run {outcome.run}, attempt {outcome.attempt}, ended: {outcome.state}"]
    if outcome.exit is not None:
        words.append(f"exit {outcome.exit}")
    if outcome.worker:
        words.append(f"on worker {outcome.worker}")
    if outcome.started_at:
        words.append(f"started {format_time(outcome.started_at)}")
    return ", ".join(words) + (f" ({in_words(outcome.why)})" if outcome.why else "")


def _tell_run(state: State, run: Run) -> str:
    head = f"run {run.id}, attempt {run.attempt}, "
    if run.shown == "queued":
        return f"{head}is queued and waits for {why_waiting(run, state)}"
    stopping = f"; it was told to stop ({run.ends_as})" if run.ends_as else ""
    lost_at = state.shown(run.lease_until_at)
    lease = f"; it is lost at {format_time(lost_at)}" if lost_at else ""
    return f"{head}is {run.shown} on worker {run.worker}{stopping}{lease}"


# --- nothing is known ---------------------------------------------------------------------------


def explain_unknown(state: State, task: Task, at: datetime, now: datetime) -> tuple[list[Row], str]:
    """(rows, `pending` or `not-due`) for a moment that nothing was written down about."""
    rows = list(_why_not_due(task, at))
    if rows:
        rows += _nearest(task, to_instant(to_seconds(at)))
        return [(None, text) for text in rows], "not-due"
    due: Row = (at, f"a moment of {task.name}: {_means(task)}")
    if at > now:
        return [due, *_what_will_be(state, task, at)], "pending"
    if at <= task.anchor_at:
        return [due, (task.anchor_at, "the task was added only then")], "not-due"
    why = "nothing is written down about it: the task was defined otherwise then, or keep= has let it go"
    return [due, (None, why)], "not-due"


def explain_never(state: State, task: Task, now: datetime) -> tuple[list[Row], str]:
    """(rows, `pending` or `not-due`) for a task that nothing has ever come of."""
    rows: list[Row] = [(task.anchor_at, f"{task.name} was added; it has not been due since")]
    if task.spec.unread:
        return [*rows, (None, in_words(task.spec.unread.reason))], "not-due"
    next_text = "its next moment" if task.due_at else f"no moment is to come: {_means(task)}"
    rows += [(task.due_at, next_text), *_if_paused(state, task, task.due_at or now)]
    return [*rows, *tell_waiting(state, task, now)], "pending" if turn_to_come(state, task) else "not-due"


def _if_paused(state: State, task: Task, at: datetime) -> Iterator[Row]:
    if state.is_paused(task, at):
        yield None, "but it will be skipped, if the pause is not lifted before"


def _what_will_be(state: State, task: Task, at: datetime) -> Iterator[Row]:
    yield None, "it is still to come"
    if task.spec.unread:
        why = in_words(task.spec.unread.reason)
        yield None, f"but it will be skipped, if SET does not mend it before: {why}"
    yield from ((None, f"but {text}") for _, text in _tell_dependencies(state, task))
    if why := in_words(day_off(state, task.spec, at)):
        yield None, f"but it will be skipped: {why}"
    yield from _if_paused(state, task, at)


def _why_not_due(task: Task, at: datetime) -> Iterator[str]:
    """Why the definition of today does not name this instant; nothing if it does."""
    schedule, moments = task.spec.schedule, task.spec.moments
    if _is_moment(task, at):
        return
    if task.spec.unread:
        yield in_words(task.spec.unread.reason)
        return
    bound = out_of_bounds(task.spec, at)
    if bound:
        yield f"it is {in_words(bound)}"
    if schedule.kind in ("reboot", "after", "on", "unreadable"):
        yield f"no clock starts it: {_means(task)}"
        return
    if why := why_unscheduled(at):
        yield f"it {why}"
        return
    if isinstance(moments, Timetable) and moments.shift:
        yield f"spread= moves every moment by {moments.shift}; without it:"
        at -= moments.shift
    if isinstance(schedule, Every | At):
        yield f"it is due {_means(task)}"
        return
    cron = schedule.as_cron(task.anchor_at)
    if cron:
        yield from _by_fields(cron, at, bool(bound))
    if schedule.rule:
        yield f"it is due {_means(task)}"


def _by_fields(cron: Cron, at: datetime, is_told: bool) -> Iterator[str]:
    """What each field says of it; if none is against it, the clock is, unless something else `is_told`."""
    seconds = to_seconds(at)
    local = at.astimezone(cron.zone.info)
    there = f"{local:%H:%M:%S} on {DAY_NAMES[(local.weekday() + 1) % 7]}, {local:%Y-%m-%d}, in {cron.tz}"
    yield f"that is {there}"
    missed = cron.fields.misses(seconds + cron.zone.offset(seconds))
    words = dict(zip(_FIELDS, MACROS.get(cron.text, cron.text).split(), strict=False))
    for name in missed:
        yield _tell_field(name, words if cron.rule is None else {}, local)
    if at.microsecond:
        yield "a moment is a whole second"
    elif not (missed or is_told):
        yield "the fields name it, and yet it is not due: the clock changes there, see NEXT"


_FIELDS = ("minute", "hour", "day-of-month", "month", "day-of-week", "second")


def _tell_field(name: str, words: dict[str, str], local: datetime) -> str:
    value = {
        "second": str(local.second),
        "minute": str(local.minute),
        "hour": str(local.hour),
        "month": MONTH_NAMES[local.month - 1],
        "day": f"{DAY_NAMES[(local.weekday() + 1) % 7]} the {format_ordinal(local.day)}",
        "time": f"{local:%H:%M:%S}",
    }[name]
    if name == "day" and words:
        both = f'day-of-month field "{words["day-of-month"]}", day-of-week field "{words["day-of-week"]}"'
        return f"{both}: not {value}"
    return f'{name} field "{words[name]}": not {value}' if name in words else f"{name}: not {value}"


def _nearest(task: Task, at: datetime) -> Iterator[str]:
    moments, anchor = task.spec.moments, task.anchor_at
    before = moments.latest(task.anchor_at, at, anchor) if at > task.anchor_at else None
    after = moments.next_after(at, anchor)
    if before:
        yield f"the moment before it: {format_time(before)}"
    if after:
        yield f"the moment after it: {format_time(after)}"
