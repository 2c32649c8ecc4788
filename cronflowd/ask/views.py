"""Answers to questions about the present, from `State` alone: nothing here changes anything.

Long answers are generators: a row is made when the socket has room for it.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import chain, islice, takewhile
from typing import Any, TypeVar

from attrs import evolve, frozen

from ..base.errors import Refusal
from ..base.replies import PAIR_COLUMNS, JsonOnly, Reply, Row
from ..base.text import format_option, format_time
from ..base.walks import in_order, in_slices, page
from ..engine.definitions import find_task
from ..engine.facts import NoticeFailed
from ..engine.fires import day_off
from ..engine.hearing import heard_by
from ..engine.lanes import accepts
from ..engine.ledger import RAN
from ..engine.notices import notes
from ..engine.placement import why_waiting
from ..engine.state import State
from ..schedules.describe import describe, describe_anchor, describe_changes, format_cron
from ..schedules.forecast import ClockChanges, Comparison, Moment
from ..schedules.schedule import Row as MomentRow
from ..schedules.schedule import Schedule, parse_schedule, settle_schedule
from ..schedules.timetable import Timetable
from ..schedules.zones import FIRST_S, Zone, load_zone, to_instant
from ..tasks.kinds import TYPES
from ..tasks.options import Common, format_options, masked
from ..tasks.reasons import in_words
from ..tasks.slips import about_seconds, remarks
from ..tasks.task import (
    ENDED,
    HELD,
    RECORD_TEXTS,
    WAITING,
    Failure,
    Outcome,
    Run,
    Task,
    TaskSpec,
    Worker,
    read_record,
)
from . import questions as q
from .kept import Kept, about
from .revisions import find_revision

RUN_COLUMNS = ("run", "id", "jobName", "attempt", "state", "due", "started", "ended", "worker", "exit", "why")
WORKER_COLUMNS = (
    "name", "state", "slots", "busy", "labels", "since", "last-seen", "address", "can", "version",
)  # fmt: skip
CHANGE_COLUMNS = ("id", "jobName", "change", "what", "old", "new")
DIFFERENCE_COLUMNS = ("id", "jobName", "zone", "old", "new", "remark")
MAX_LEFT = 5000  # fires that count= leaves, of which the last one is looked for
MAX_OWN_DIFFERENCES = 1000  # of a task that has less than its schedule
MOMENT_COLUMNS = ("local time with offset", "UTC", "remark")
FAILED_COLUMNS = ("id", "jobName", "run", "state", "due", "ended", "exit", "why", "since")
FEW_MOMENTS = 5  # of NEXT, which are found in one go
T = TypeVar("T")


def task_state(state: State, task: Task, now: datetime) -> str:
    """One word for LIST: the most telling thing about a task."""
    if task.held:
        return "running"
    if task.runs:
        return "queued"
    if task.spec.unread:
        return "unreadable"
    if state.is_paused(task, now):
        return "paused"
    return "scheduled" if task.due_at else "idle"


def tell_total(reply: Reply, total: int, more: bool = False) -> None:
    """Adds to the status line how many rows there are without limit and offset; `more`: at least."""
    reply.text = f"total={total}" + (" more=yes" if more else "")
    reply.values = {"total": total} | ({"more": True} if more else {})


def map_rows(make: Callable[[T], Row], items: Iterable[T | None]) -> Iterator[Row | None]:
    """A row for each item; a None stays one."""
    return (None if item is None else make(item) for item in items)


def get_task(state: State, query: q.GetTask, now: datetime) -> Reply:
    """GET: every field, defaults included."""
    if query.rev is not None:
        return _get_revision(state, query.ref, query.rev)
    task = find_task(state, query.ref)
    spec = task.spec
    rows: list[Row] = [
        ("id", task.id),
        ("jobName", task.name),
        ("schedule", spec.schedule.text),
        ("command", spec.command),
        ("state", task_state(state, task, now)),
        ("next", task.due_at),
        ("rev", task.rev),
        ("added", task.anchor_at),
        ("updated", task.anchor_at if task.rev == 1 else task.changed_at),
        *_definition(spec, state.common),
        *_pause(state, task, now),
        *(
            (f"after-{name}", in_words(heard_by(state, task).get(name)) or "not since the last fire")
            for name in spec.options.after
        ),
        *([("fires-left", max(0, spec.options.count - task.fired))] if spec.options.count else []),
        *([("unreadable", spec.unread.why)] if spec.unread else _note(state, spec)),
        *((f"fires-{name}", number) for name, number in sorted((task.counts or {}).items())),
    ]
    if task.last_ended_at:
        rows += [("last-state", task.last_state), ("last-ended", task.last_ended_at)]
    runs = (state.runs[run] for run in list(task.runs) if run in state.runs)
    run_rows = map_rows(lambda run: (f"run-{run.id}", _run_text(state, run)), in_slices(runs))
    return Reply(str(task.id), {"id": task.id}, PAIR_COLUMNS, chain(rows, _last_run(state, task), run_rows))


def _note(state: State, spec: TaskSpec) -> list[Row]:
    """What ADD would say about it now, in one row."""
    texts = [
        *(text for _, text in notes(state, spec)),
        *remarks(spec.options.type, spec.command, spec.schedule.text),
    ]
    return [("note", "; ".join(texts))] if texts else []


def _get_revision(state: State, ref: str, rev: int) -> Reply:
    """GET REF @rev: the definition as it was, and who made it so."""
    reply = Reply("", {}, PAIR_COLUMNS)

    def rows() -> Iterator[Row | None]:
        task_id, found = yield from find_revision(state, ref, rev)
        reply.text, reply.values = str(task_id), {"id": task_id}
        spec = read_record(found.record or {}, state.default_tz)
        yield from (
            ("id", task_id),
            ("jobName", spec.name),
            ("schedule", spec.schedule.text),
            ("command", spec.command),
            ("rev", found.rev),
            ("changed", found.at),
            ("who", found.who),
            *_definition(spec, state.common),
            *([("unreadable", spec.unread.why)] if spec.unread else []),
        )

    reply.rows = rows()
    return reply


def _definition(spec: TaskSpec, common: Common) -> Iterator[Row]:
    """Every option, without secrets, or what stands in a record that cannot be read; then its schedule."""
    texts = format_options(spec.options, common)
    if spec.unread:
        texts |= {key: str(text) for key, text in spec.unread.record.items() if key not in RECORD_TEXTS}
    yield from ((key, masked(key, text)) for key, text in texts.items())
    yield "zone", spec.schedule.tz
    yield from _in_words(spec.schedule, spec.options.start_at)


def _in_words(schedule: Schedule, start_at: datetime | None = None) -> list[Row]:
    """What a schedule means, what it counts from, and its cron form where that is another."""
    has_start = start_at is not None
    rows = [
        ("means", describe(schedule, has_start)),
        ("counts-from", describe_anchor(schedule, has_start)),
        ("cron", format_cron(schedule)),
    ]
    return [row for row in rows if row[1]]


def _pause(state: State, task: Task, now: datetime) -> Iterator[Row]:
    """In words, and in parts for programs."""
    if not state.is_paused(task, now):
        yield "paused", "no"
        return
    own = task.is_paused(now)
    row: Any = task if own else state  # both say it alike
    until_at, why = row.paused_until_at, row.paused_why
    yield "paused", _pause_words("yes" if own else "yes, like all", until_at, why)
    yield from (row for row in (("paused-until", until_at), ("paused-why", why)) if row[1])


def _pause_words(yes: str, until_at: datetime | None, why: str) -> str:
    return yes + (f" until {format_time(until_at)}" if until_at else "") + (f": {why}" if why else "")


def _last_run(state: State, task: Task) -> Iterator[Row | None]:
    """More about the run that ended last, as long as memory has its row."""
    if not (ended_at := task.last_ended_at):
        return
    # In the order in which they ended, unless the clock was set; GET of each of a hundred looks at few.
    recent = list(state.recent)
    behind = bisect_right(recent, ended_at, key=lambda outcome: outcome.ended_at)
    same = takewhile(lambda outcome: outcome.ended_at == ended_at, reversed(recent[:behind]))
    for outcome in in_slices(same):
        if outcome is None:
            yield None
        elif outcome.task_id == task.id and outcome.run and outcome.state == task.last_state:
            yield "last-run", outcome.run
            yield "last-started", outcome.started_at
            yield "last-exit", outcome.exit
            yield "last-worker", outcome.worker
            return


def _run_text(state: State, run: Run) -> str:
    if run.shown == "queued":
        return f"queued, attempt {run.attempt}, waits for {why_waiting(run, state)}"
    extra = f", told to stop ({run.ends_as})" if run.ends_as else ""
    return f"{run.shown} on {run.worker}, attempt {run.attempt}{extra}"


def outcome_row(outcome: Outcome) -> Row:
    """An ended attempt, or fires that never ran, as RUNS shows it."""
    return (
        outcome.run, outcome.task_id, outcome.name, outcome.attempt, outcome.state, outcome.due_at,
        outcome.started_at, outcome.ended_at, outcome.worker, outcome.exit, JsonOnly(in_words(outcome.why)),
    )  # fmt: skip


def _active_row(state: State, run: Run) -> Row:
    return (
        run.id, run.task_id, run.spec.name, run.attempt, run.shown, run.due_at,
        state.shown(run.started_at), None, run.worker, None, JsonOnly(""),
    )  # fmt: skip


def wanted_outcomes(query: q.ListRuns, state: State, now: datetime) -> Callable[[Outcome], bool]:
    """The filter that RUNS asks for, for memory and journal alike; newest first, and once, as `Kept` is."""
    is_about, kept, matches = about(state, query.ref), Kept(state, now), _matcher(query, state)
    if query.is_for_all:
        return kept

    def wanted(outcome: Outcome) -> bool:
        if not (is_about(outcome.task_id, outcome.name) and kept(outcome)):
            return False
        return matches(outcome.task_id, outcome.state, outcome)

    return wanted


def _matcher(query: q.ListRuns, state: State) -> Callable[[int, str, Run | Outcome], bool]:
    """Whether a row of RUNS, of a task with this id and in this state, has what the options ask for."""

    def matches(task_id: int, word: str, row: Run | Outcome) -> bool:
        if query.tag:
            task = state.tasks.get(task_id)
            if task is None or query.tag not in task.spec.options.tags:
                return False
        return (
            (not query.states or word in query.states)
            and query.run in (None, row.run if isinstance(row, Outcome) else row.id)
            and query.worker in ("", row.worker)
            and query.flow in (None, row.flow)
            and (query.exit is None or (isinstance(row, Outcome) and row.exit == query.exit))
            and not (query.since_at and row.due_at < query.since_at)
            and not (query.until_at and row.due_at > query.until_at)
        )

    return matches


def list_runs(
    state: State,
    query: q.ListRuns,
    older: Iterable[Outcome],
    now: datetime,
    more: Callable[[], bool] = lambda: False,
) -> Reply:
    """RUNS: what is active, then what memory holds, then `older` from the journal; newest first.

    `more` says, when all are told, whether there may be others that were not looked for.
    """
    wanted, is_about = wanted_outcomes(query, state, now), about(state, query.ref)
    matches = _matcher(query, state)
    active = list(state.runs.values())  # in the order in which they came
    recent = _recent(state, query)

    def is_wanted(run: Run) -> bool:
        return is_about(run.task_id, run.spec.name) and matches(run.task_id, run.shown, run)

    def found() -> Iterator[Run | Outcome | None]:
        for run in in_slices(reversed(active)):
            if run is None:
                yield None
            elif run.id in state.runs or run.id not in state.outcomes:
                if is_wanted(run):
                    yield run
            else:  # it has ended since the question was asked
                yield from (end for end in state.outcomes[run.id][-1:] if wanted(end))
        for outcome in in_slices(reversed(recent)):
            if outcome is None or wanted(outcome):
                yield outcome
        yield from in_slices(older)

    def row(each: Any) -> Row:
        return outcome_row(each) if isinstance(each, Outcome) else _active_row(state, each)

    def tell(total: int) -> None:
        if query.counts:
            tell_total(reply, min(total, query.count_to - 1), total == query.count_to or more())

    reply = Reply.counted(RUN_COLUMNS)
    # What is only counted is not made a row.
    reply.rows = map_rows(row, page(found(), query.limit, query.offset, query.count_to, tell))
    return reply


def _recent(state: State, query: q.ListRuns) -> list[Outcome]:
    """Of what has ended and stands in memory, at least all that may be asked for, and what is above that."""
    if query.states and query.states.isdisjoint(ENDED):
        return []
    if query.run is None:
        return list(state.recent)
    rows = state.outcomes.get(query.run, [])
    return [row for row in state.recent if row.task_id == rows[0].task_id] if rows else []


def list_templates(state: State) -> Reply:
    """TEMPLATE LIST: each with its options, without secrets."""
    rows = [
        (name, " ".join(format_option(key, masked(key, value)) for key, value in words.items()))
        for name, words in state.templates.items()
    ]
    return Reply.counted(("name", "options"), rows)


def list_failed(state: State, query: q.ListFailed, now: datetime) -> Reply:
    """FAILED: the tasks whose last fire did not end well, and who was not told, the latest first."""
    unheard = list(state.unheard.values())

    def found() -> Iterator[tuple[Failure, int, str] | None]:
        yield from ((each.failure, each.task, each.name) for each in unheard if is_wanted(each.failure))
        for task in state.tasks.walk():
            if task is None:
                yield None
            elif (bad := task.failure) and is_wanted(bad):
                yield bad, task.id, task.name

    def is_wanted(bad: Failure) -> bool:
        return query.since_at is None or bad.ended_at >= query.since_at

    def rows() -> Iterator[Row | None]:
        latest = yield from in_order(found(), lambda each: (each[0].ended_at, each[1]), reverse=True)
        for bad, task_id, name in latest:
            yield (
                task_id, name, bad.run, bad.state, bad.due_at, bad.ended_at, bad.exit,
                in_words(bad.why), bad.since_at,
            )  # fmt: skip

    return Reply.counted(FAILED_COLUMNS, rows())


def prove(state: State, query: q.ProveLedger, now: datetime) -> Reply:
    """PROVE: what was due, and what became of it; the status line says whether that is the same."""
    # Both sides of the balance are of this one moment, though counting takes its time.
    known, runs = state.ledger.balance((), query.since_at, query.until_at), list(state.runs.values())

    def rows() -> Iterator[Row | None]:
        pending = 0
        for run in in_slices(runs):
            if run is None:
                yield None
            else:
                pending += known.holds(run.due_at)
        balance = evolve(known, pending=pending)
        yield "due", balance.due
        yield "ran", balance.ran
        yield "skipped", balance.ends["skipped"]
        yield "missed", balance.ends["missed"]
        yield "pending", balance.pending
        yield from ((name, balance.ends[name]) for name in RAN)
        bounds = {"since": balance.since_at, "until": balance.until_at}
        yield from ((name, at) for name, at in bounds.items() if at)
        if balance.trouble:
            raise Refusal("internal", balance.trouble)

    return Reply("balanced", {"balanced": True}, PAIR_COLUMNS, rows())


def show_next(state: State, query: q.ShowNext, now: datetime) -> Reply:
    """NEXT: moments to come, with what is special about them."""
    from_at = max(query.from_at or now, to_instant(FIRST_S))
    begin_at = from_at
    if query.schedule:
        rows = _asked_schedule(query, state, now).rows(from_at, now)
    else:
        task = find_task(state, query.ref)
        if query.from_at is None:
            begin_at = state.fires_after(task, now)
        rows = moments_to_come(state, task, begin_at)
        if query.tz:
            zone = load_zone(query.tz).info
            rows = ((at.astimezone(zone).isoformat(), at, remark) for _, at, remark in rows)
    if query.within is not None:
        until_at = from_at + query.within
        rows = takewhile(lambda row: row[1] <= until_at, rows)
    return Reply.counted(MOMENT_COLUMNS, _one_at_a_time(islice(rows, query.count)))


def _one_at_a_time(rows: Iterable[Row]) -> Iterator[Row | None]:
    """Years may lie between two moments, and looking through them takes its time."""
    for count, row in enumerate(rows):
        if count >= FEW_MOMENTS:
            yield None
        yield row


def _asked_schedule(query: q.ShowNext | q.DescribeSchedule, state: State, now: datetime) -> Schedule:
    zone = query.tz or state.default_tz
    schedule = parse_schedule(settle_schedule(query.schedule, zone, now), zone)
    if query.tz and schedule.tz != query.tz:
        raise Refusal("bad-option", f"tz={query.tz} contradicts the schedule, which says {schedule.tz}", "tz")
    return schedule


def describe_schedule(state: State, query: q.DescribeSchedule, now: datetime) -> Reply:
    """DESCRIBE: a schedule in English, and what a clock change does to it."""
    if query.schedule:
        schedule = _asked_schedule(query, state, now)
        next_at, start_at = schedule.next_after(now, now), None
    else:
        task = find_task(state, query.ref)
        schedule, start_at, next_at = task.spec.schedule, task.spec.options.start_at, task.due_at
    rows = [
        *_in_words(schedule, start_at),
        ("clock-changes", describe_changes(schedule)),
        ("zone", schedule.tz),
        ("next", next_at),
        *(("note", text) for text in about_seconds(schedule.text)),
    ]
    return Reply.counted(PAIR_COLUMNS, rows)


def moments_to_come(state: State, task: Task, from_at: datetime) -> Iterator[MomentRow]:
    """A task's moments until count= is used up, told which of them skip= or a pause takes out."""
    spec = task.spec
    if spec.schedule.kind == "unreadable" and task.due_at and task.due_at > from_at:
        yield task.due_at.isoformat(), task.due_at, "skipped-unreadable"  # the last one that is known
    left = spec.options.count - task.fired if spec.options.count else math.inf
    for local, at, remark in spec.moments.rows(from_at, task.anchor_at):
        if left <= 0:
            return
        is_off = remark != "skipped" and day_off(state, spec, at) is not None
        is_paused = state.is_paused(task, at)
        left -= not (is_off or is_paused or remark == "skipped")
        told = "skipped-by-calendar" if is_off else "skipped-unreadable" if spec.unread else remark
        if is_paused and not told.startswith("skipped"):
            told = "paused"  # whatever the clock does then
        yield local, at, told


# --- seeing ahead; None among the rows: a good moment to let others have a turn ---


def clock_changes(state: State, query: q.ShowClockChanges, now: datetime) -> Iterator[Row | None]:
    """DST: what the next clock changes move, take away, or would double."""
    ahead = ClockChanges(now, query.until_at)
    for task in _asked_tasks(state, query.ref):
        share = yield from _Share.of(state, task, now, query.until_at)
        for change in ahead.of(task.spec.schedule, share.anchor_at):
            # Where it runs, if it does: a local time that is not there is before or after nothing.
            where = change and (change.new if change.what in ("moved", "once") else change.old)
            if change and where and share.holds(where):
                old, new = share.tell(change.old), share.tell(change.new)
                yield task.id, task.name, change.at, change.what, old, new
        yield None


@frozen
class _Share:
    """The part of a schedule that is a task's own, for a walk over the schedule."""

    state: State
    spec: TaskSpec
    anchor_at: datetime
    begin: datetime  # of the schedule's moments; itself outside
    end: datetime
    shift: int  # spread= in seconds

    @classmethod
    def of(cls, state: State, task: Task, begin: datetime, end: datetime) -> Generator[None, None, _Share]:
        """What a task has in (begin, end]."""
        moments, begin = task.spec.moments, state.fires_after(task, begin)
        end = yield from _last_counted(state, task, begin, end)
        if isinstance(moments, Timetable):
            shift = round(moments.shift.total_seconds())
            return cls(state, task.spec, moments.anchor(task.anchor_at), *moments.clip(begin, end), shift)
        return cls(state, task.spec, task.anchor_at, begin, end, 0)

    def holds(self, moment: Moment) -> bool:
        """Whether the task runs then, days off aside."""
        is_within = self.begin < to_instant(moment.at) <= self.end
        return is_within and day_off(self.state, self.spec, to_instant(moment.at + self.shift)) is None

    def tell(self, moment: Moment | None) -> str | None:
        return str(moment._replace(at=moment.at + self.shift)) if moment else None


def _last_counted(
    state: State, task: Task, begin: datetime, end: datetime
) -> Generator[None, None, datetime]:
    """The moment that uses up count=, or `end` if that is earlier, or too far to look for."""
    left = task.spec.options.count - task.fired
    if not task.spec.options.count or left > MAX_LEFT:
        return end
    at = state.paused_upto(task, begin)
    while left > 0 and at < end:
        found = task.spec.moments.next_after(at, task.anchor_at)
        if found is None or found > end:
            return end
        left -= day_off(state, task.spec, found) is None
        at = found
        yield None
    return min(at, end)


def zones_asked(state: State, query: q.CompareZones) -> Iterator[str | None]:
    """The zones that TZDIFF needs from the other directory."""
    for task in _asked_tasks(state, query.ref):
        yield task.spec.schedule.tz if task.spec.schedule.is_zoned else None


def zone_differences(
    state: State, query: q.CompareZones, others: Mapping[str, Zone | None], now: datetime
) -> Iterator[Row | None]:
    """TZDIFF: what is due at another instant by the other directory's zone data."""
    shared = Comparison(others, now, query.until_at, query.count)
    for task in _asked_tasks(state, query.ref):
        share = yield from _Share.of(state, task, now, query.until_at)
        is_whole = share.spec.moments is share.spec.schedule and not share.spec.options.skip
        # What falls out below must not use up the rows that were asked for.
        own = Comparison(others, share.begin, share.end, MAX_OWN_DIFFERENCES)
        is_whole &= (share.begin, share.end) == (now, query.until_at)
        comparison = shared if is_whole else own
        told = 0
        for found in comparison.of(task.spec.schedule, share.anchor_at) if share.begin < share.end else ():
            moment = found and (found.old or found.new)
            if not found or (moment and not found.remark and not share.holds(moment)):
                continue
            told += 1
            remark = "more" if told == query.count and comparison is own else found.remark
            yield (
                task.id,
                task.name,
                task.spec.schedule.tz,
                share.tell(found.old),
                share.tell(found.new),
                remark,
            )
            if told == query.count:
                break
        yield None


def _asked_tasks(state: State, ref: str | None) -> Iterator[Task]:
    """One task, or all in order of ids; those that go while others have their turn are passed over."""
    if ref is not None:
        yield find_task(state, ref)
        return
    yield from filter(None, state.tasks.walk())


def list_workers(
    state: State, seen: Callable[[str], tuple[datetime | None, str]], is_contested: Callable[[str], bool]
) -> Reply:
    """WORKERS, connected ones first; `seen` tells of one when it was last heard, and its release."""
    workers = sorted(state.workers.values(), key=lambda worker: (not worker.connected, worker.name))
    rows = [
        (
            worker.name,
            "contested" if worker.state == "ready" and is_contested(worker.name) else worker.state,
            worker.slots, worker.busy,
            ",".join(f"{key}={value}" for key, value in sorted(worker.labels.items())),
            worker.since_at, seen(worker.name)[0] or worker.since_at, worker.address,
            ",".join(_told_can(worker)), seen(worker.name)[1] or None,
        )
        for worker in workers
    ]  # fmt: skip
    return Reply.counted(WORKER_COLUMNS, rows)


def _told_can(worker: Worker) -> Iterator[str]:
    """What it can do, and then as whom besides: not each with each."""
    yield from sorted(work for work in worker.can if "@" not in work)
    yield from sorted({f"user:{work.partition('@')[0]}" for work in worker.can if "@" in work})


def list_types(state: State, query: q.Alone, now: datetime) -> Reply:
    """TYPES: those there are, and handlers that workers name, each with the workers here that can do it."""
    here = [worker for _, worker in sorted(state.workers.items()) if worker.connected]
    named = sorted({work for worker in here for work in worker.can if "@" not in work} - set(TYPES))

    def row(kind: str) -> Row:
        names = [worker.name for worker in here if accepts(worker, kind, "any")]
        return kind, len(names), ",".join(names)

    return Reply.counted(("type", "count", "workers"), map_rows(row, in_slices((*TYPES, *named))))


def _notices_failed(last: NoticeFailed | None) -> Iterator[Row]:
    yield "notifications-failed", last.count if last else 0
    if last:
        yield "notifications-failed-last", last.failure.ended_at
        yield "notifications-failed-why", f"{last.name}, {in_words(last.failure.why)}"


def status_rows(state: State, now: datetime) -> Iterator[Row | None]:
    """STATUS, the part that the state knows; the daemon adds its own."""
    next_due, totals = state.due.first(), sorted(state.totals.items())
    yield "tasks", state.count_own()
    queued = running = paused = 0
    is_all = state.is_all_paused(now)
    for run in in_slices(list(state.runs.values())):
        if run is None:
            yield None
        else:
            queued += run.state in WAITING
            running += run.state in HELD
    for task_id in state.paused.walk_numbers():
        if task_id is None:
            yield None
        else:
            paused += state.tasks[task_id].is_paused(now)
    yield from (
        ("queued", queued),
        ("running", running),
        ("workers", sum(worker.connected for worker in state.workers.values())),
        ("slots-free", sum(worker.free for worker in state.lanes.free.values())),
        ("paused", "all" if is_all else paused),
        *([("paused-all", _pause_words("yes", state.paused_until_at, state.paused_why))] if is_all else []),
        *([("unreadable", len(state.unread))] if state.unread else []),
        *_notices_failed(state.notice_failed),
        ("next", next_due[0] if next_due else None),
        *((f"fires-{name}", number) for name, number in totals),
        ("started", state.started_at),
        ("now", now),
    )
