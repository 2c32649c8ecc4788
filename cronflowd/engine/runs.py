"""What becomes of runs: asked for, placed, reported on, timed out, lost. And how all of it works together.

Rules for whoever changes this. A run moves by `Run.move` alone, and MOVES (tasks/task.py) has every
move; a new wait is a new state there, not a flag. Whatever a run waits for, name who lets it go on,
also when that never comes. Decide here; make true in `state`; and ask of every fact: what if the
daemon dies right after it?


Fires, runs, attempts
---------------------
A *fire* is a task at one moment. It ends in exactly one disposition. Most fires become a *run*, and a
run is one or more *attempts*, each an order to a worker (`RunSent`). `fires` decides what a moment
becomes, in this order, and the first that applies wins:

    paused, or its record cannot be read     skipped
    a day off (skip=)                        skipped
    later than catchup= and grace= allow     missed
    overlap= lets no other run in            skipped; or it parks; or the others are stopped first
    a dependency has failed                  skipped
    on=all, and no worker is there           missed
    otherwise                                a run

What is skipped or missed here is over (`FiresPassed`). A run goes through up to four waits, always in
this order, and somebody has to let it go on from each:

    state     waits for                         is let go on by
    parked    an earlier run of its task        `_unpark`, when the last of those has ended for good
    awaiting  its task's dependencies (after=)  `dependencies.next_judgement`, order AdmitRun
    delayed   its time: jitter=, or a retry     the alarm `state.delayed`, order ReleaseRun
    queued    a worker with a free slot         `placement.choose`, order PlaceRuns

Then a worker has it: sent, running, perhaps stopping. To clients the four waits are all `queued`.
Where a worker is free and no other run waits for one, a run does not even wait: the `RunQueued` of a
moment, of RUN or of NOW says itself whom it was sent to.
Only the last wait has an end of its own: grace= is counted from when a run began to wait for a worker
(`queued_at`), so parked and delayed runs are not missed while their turn has not come.


Overlap
-------
overlap= looks at the task's own runs (`task.runs`): all that have not ended, whatever they wait for. A
run between two attempts is one of them. So a long series of retries keeps the next fire parked, or
skips it; that is meant, for it is still the same fire being tried. With on=all and `skip` each worker goes by
its own runs: who has one still is skipped, in the same decision in which the others' runs are queued.
`replace` ends those that wait at once and has the workers kill the others; the new one is parked behind
those, and where there are very many it has the rest of them end in steps (`to_replace`), whatever becomes
of itself meanwhile.
When a run ends for good and all that are left are parked, the oldest goes on, with all of its fire
(on=all makes several). A parked run of the clock looks at its dependencies only then.


Events
------
EMIT is one fact that names who waited for it (`EventEmitted`); each of them then fires in a step of its own
(FireOn), after a kill too, and the `RunQueued` or `FiresPassed` that says so is `emitted`, which takes it off
the list. A task that goes first is told as missed with it. Like what RUN starts, such a fire has no moment of
its own: several may share an instant, so its run names it, and `of_one_fire` tells them apart.


Dependencies
------------
A task keeps how each dependency ended last (`heard`), and forgets all of it when it uses it: when a run
is let in, or a fire is skipped on account of it. One good end is good for one fire. Whatever may change a
judgement puts the task into `to_judge`, and every judgement is an order of its own, so a circle of
consequences is many small steps. A dependency that failed but has a run under way is still waited
for: it may yet end well. With on=all, dependents hear of a fire once, when the last of its runs has
ended; one failure among them is the failure of all (`blame`). Where very many wait, they hear of it some at
a time (`hearing`), and nothing is judged before all have.


Retry, and how often
--------------------
An attempt that failed, timed out or was lost is followed by another while retry= has one left:
`RunEnded` that is not final, then `RunRetried`, and the run is delayed. What never reached its worker
is no try: `RunUnsent` counts `unsent` up, which is taken off again wherever tries are counted, but the
attempt has a new number all the same, because a late report of the old one must not count.
lost=rerun goes on where retry= ends, for lost attempts only, and is bounded too.
count= counts fires by their runs: up when a run is queued, once a moment with on=all; down again if
that run is skipped or missed. RUN is not counted. A task that is used up has no next moment; one whose
last fire was given back gets one (`reopened`).


Leases
------
A worker's run has no time limit but timeout=. While the worker is connected it is simply held. When
the connection ends the run has a lease, and when the lease ends the run is lost. A worker that
comes back and names it has it again. Where it does not name it the lease goes on, for the report may
still be under way. Only a worker that says it names all it ever took, with the memory that the order
was sent to (`instance`), can know that it never got it: then the run is queued again at once.
A KILL has a lease as well (STOP_LEASE), or a worker that never answers would hold the slot for ever.
A start of the daemon prolongs each lease, since nobody could renew it meanwhile; once only.


A walk
------
backup has overlap=queue1 and retry=fixed:1:30s, and is due each minute. Worker w has one slot. (These
lines are played by tests/engine/test_walk.py.)

    12:01:00  FireTasks    RunQueued                    1 sent
    12:02:00  FireTasks    RunQueued                    1 sent, 2 parked
    12:02:10  DropWorker   WorkerLeft                   1 sent, 2 parked
    12:02:40  LoseRun      RunEnded, RunRetried         1 delayed, 2 parked
    12:02:50  JoinWorker   WorkerJoined                 1 delayed, 2 parked
    12:03:00  FireTasks    FiresPassed                  1 delayed, 2 parked
    12:03:10  ReleaseRun   RunReleased                  1 queued, 2 parked
    12:03:10  PlaceRuns    RunSent                      1 sent, 2 parked
    12:03:20  ReportEnded  RunEnded                     2 queued
    12:03:20  PlaceRuns    RunSent                      2 sent

At 12:02:40 run 2 stays parked, for run 1 has not ended; so at 12:03:00 the queue of one is full, and
that fire is skipped. Had w come back at 12:02:30 and named run 1, nothing would have happened to it.


Traps
-----
- A report is about an attempt, and may come late, twice, or from a worker that lost the run: see
  `held_run`. It is always acknowledged, or the worker would repeat it for ever.
- Two facts of one decision are applied one after the other: what the second says must be true after
  the first. `RunEnded` unparks and tells dependents; a `TaskRemoved` behind it still finds the task.
- `due_at` is a name, not a time: it stays when the clock is set. Everything measured moves with it.
- A run keeps the definition it was queued with. `task.spec` may be another by now, or unreadable.
- What is due at one moment is decided in order of prio=, and where no slot is free all of it before any
  of it is placed, or priorities would mean nothing; but not of more than FIRES_AHEAD tasks, or the
  first would leave when the last was decided.
- Several that are due at one moment are decided together (`FireTasks`), each by what was true before the
  first of them. Whatever may change what becomes of another is decided alone: see `fires_alone`; and behind
  one of which somebody is told the others have their turn when the notification waits.
- Random things are drawn from names (`draw`), so that deciding again decides the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from attrs import asdict
from msgspec.structs import replace

from ..base.errors import Refusal
from ..base.output import last_lines, size_of
from ..base.replies import NOTE_COLUMNS, Reply
from ..base.text import escape, format_time
from ..tasks.reasons import Reason, code_of, in_words, reason, shortened
from ..tasks.task import HELD, Run, Task
from . import facts as f
from . import orders as o
from .definitions import find_task
from .fires import (
    NO_WORKER,
    admit,
    after_end,
    draw,
    ended,
    ended_waiting,
    left_out,
    let_in,
    remark,
    reopened,
    stop,
)
from .hearing import keeps_failing
from .placement import MAX_PLACED_CHARS, order_line, send_at_once
from .rules import Decision, Limits, Message, Rule, Rules
from .secrets import Unready, hidden, hide_output, let_go
from .state import NOBODYS, State
from .tables import wait_ends

MAX_RERUNS = 10  # of a run with lost=rerun, beyond retry=
LONGEST_RERUN_S = 300.0  # between two of them; the first comes at once, then 1 s, 2 s, 4 s, …
MAX_LAST_WORDS = 5  # lines of standard error, of which the last that is not blank tells why it failed
MAX_REMARK = 4096  # characters that a worker has to say of a run, beside the limit of its output
ALWAYS_ROOM = 10_000  # runs that somebody may ask for however few tasks there may be: one task can have many
MAX_TAIL = 100  # lines of a LOG that are searched for a late report before it is told again


# --- runs, as clients see them ---


def _run(state: State, order: o.RunTask, now: datetime, limits: Limits) -> Decision:
    if len(state.runs) >= ALWAYS_ROOM:
        check_room(state, limits)
    ref: Any = order.ref  # one task's: the others are many.py's
    task = find_task(state, ref)
    decision = ask(state, task, order.args, now, state.next_run)
    send_at_once(state, task, decision, now)
    return decision


def check_room(state: State, limits: Limits) -> None:
    """Refuses runs that somebody asks for where there are as many already as there may be tasks."""
    if len(state.runs) >= (most := max(limits.tasks, ALWAYS_ROOM)):
        raise Refusal("limit", f"{len(state.runs)} runs have not ended; {most} is the limit")


def ask(state: State, task: Task, args: dict[str, str], now: datetime, first: int) -> Decision:
    """A run that somebody asks for, with this number; or, with on=all, several. Raises Refusal."""
    if task.spec.unread:
        what = f'"{task.name}" never runs: {in_words(task.spec.unread.reason)}'
        raise Refusal("bad-line", f"{what}; SET mends it")
    targets, kept, (why, parked, before, messages) = let_in(state, task, first, now)
    mode = task.spec.options.overlap or state.common.overlap
    if why:
        raise Refusal("busy", f"{in_words(why)} (overlap={mode})")
    if not targets:
        raise Refusal("busy", in_words(NO_WORKER))
    if kept:
        targets = [target for target in targets if target not in kept]
    values: dict[str, Any] = {"run": first}
    if task.spec.options.on == "all":
        values["runs"] = list(range(first, first + len(targets)))
    run = first
    for target in targets:
        queued = f.RunQueued(run, task.id, now, "manual", None, args or None, parked)
        queued.target, run = target, run + 1
        before.append(queued)
    reply = Reply(f"{first}", values)
    if kept:
        before += left_out(first, kept)
        rows = [("note", f"not on {name}: {in_words(each)} (overlap={mode})") for name, each in kept.items()]
        reply.columns, reply.rows = NOTE_COLUMNS, rows
    return Decision(before, reply, messages)


def _cancel(state: State, order: o.CancelRun, now: datetime, limits: Limits) -> Decision:
    run = state.runs.get(order.run)
    if run is None:
        known = 0 < order.run < state.next_run
        raise Refusal("not-found", f"run {order.run} has ended already" if known else f"no run {order.run}")
    facts, messages = stop(run, "cancelled", reason("cancelled"))
    reply = Reply(f"{run.id} cancelled", {"run": run.id, "cancelled": True})
    return Decision(facts + after_end(state, run, facts), reply, messages)


# --- placing ---


def _place(state: State, order: o.PlaceRuns, now: datetime, limits: Limits) -> Decision:
    facts: list[f.Fact] = []
    messages: list[Message] = []
    size = 0
    for number, worker in order.places:
        run = state.runs[number]
        sent = f.RunSent(number, run.attempt, worker)
        try:
            line = order_line(state, run, state.tasks.get(run.task_id))
        except Unready as unready:
            if facts:
                break  # its end is a decision of its own
            # It never runs with less than it asks for; and what retry= says of a failure holds.
            run = replace(run, worker=worker, sent_at=now)
            return Decision([sent, *_end(state, run, "failed", None, unready.why, now)])
        facts.append(sent)
        messages.append((worker, line))
        size += len(line)
        if size > MAX_PLACED_CHARS:
            break
    return Decision(facts, None, messages)


def _break(state: State, order: o.BreakRun, now: datetime, limits: Limits) -> Decision:
    return Decision(_unused(state, state.runs[order.run], "skipped", order.why, now))


def _expire(state: State, order: o.ExpireRun, now: datetime, limits: Limits) -> Decision:
    return Decision(_unused(state, state.runs[order.run], "missed", reason("unplaced"), now))


def _unused(state: State, run: Run, how: str, why: Reason, now: datetime) -> list[f.Fact]:
    """The end of a run that nothing came of."""
    facts = ended_waiting(run, how, why)
    return facts + after_end(state, run, facts) + reopened(state, run, now)


def _lose(state: State, order: o.LoseRun, now: datetime, limits: Limits) -> Decision:
    """The lease ended: the worker is gone, or never said what became of a KILL."""
    run = state.runs[order.run]
    how = run.ends_as or "lost"
    why = reason("gone", worker=run.worker) if how == "lost" else reason("unanswered")
    return Decision(_end(state, run, how, None, why, now))


def _time_out(state: State, order: o.TimeoutRun, now: datetime, limits: Limits) -> Decision:
    run = state.runs[order.run]
    why = reason("timeout", limit_s=state.common.timeout_of(run.spec.options))
    facts, messages = stop(run, "timeout", why)
    return Decision(facts, None, messages)


def _end(
    state: State,
    run: Run,
    how: str,
    exit_code: int | None,
    why: Reason,
    now: datetime,
    began: bool = False,
) -> list[f.Fact]:
    """The facts that end an attempt: for good, or with another one to follow."""
    again = not run.spec.unread and how in ("failed", "timeout", "lost")
    delay_s = _delay_s(state, run, how) if again else None
    started_at = state.shown(run.started_at or run.sent_at)
    end = ended(run, how, exit_code, why, delay_s is None, started_at)
    if began:
        end.started_at, end.began = now, True
    # Before the end: what comes after it would be late.
    told: list[f.Fact] = [*let_go(state.access, run)] if run.held else []
    if why and code_of(why) != "stderr" and not (run.ends_as and code_of(why) == "timeout"):
        told.append(remark(run, why))
    if delay_s is None:
        if how == "ok" and run.target and (task := state.tasks.get(run.task_id)):
            return [*told, end, *_failing_still(state, task, run), *after_end(state, run, [end])]
        return [*told, end, *after_end(state, run, [end])]
    again_at = now + timedelta(seconds=delay_s)
    follows = reason("follows", attempt=run.attempt, state=how, exit=exit_code, at=format_time(again_at))
    return [*told, end, remark(run, follows), f.RunRetried(run.id, run.attempt + 1, again_at)]


def _failing_still(state: State, task: Task, run: Run) -> list[f.Fact]:
    """With on=all: what a good end on one worker does not mend, said again, as the end takes it away."""
    if task.failure and keeps_failing(state, task, run):
        return [f.FailureCarried(task.id, **asdict(task.failure))]
    return []


def _delay_s(state: State, run: Run, how: str) -> float | None:
    """How long another attempt waits; None = there is none."""
    options = run.spec.options
    retry, tries = options.retry or state.common.retry, run.attempt - run.unsent
    delay_s = retry.delay_s(tries, draw(f"{run.id} {run.attempt} {run.spec.name}"))
    if delay_s is None and how == "lost" and options.lost == "rerun":
        return _rerun_delay_s(tries - retry.times)
    return delay_s


# --- what workers report ---


def unsent(state: State, run: Run, now: datetime) -> list[f.Fact]:
    """A run whose order nobody got: it waits again, or ends as it was to end, or should have, meanwhile."""
    why = reason("unreached", worker=run.worker)
    if run.state == "stopping":
        return _end(state, run, run.ends_as, None, why, now)
    if wait_ends(run) + state.set_by <= now:
        again = replace(run, attempt=run.attempt + 1, worker=None, sent_at=None)
        return [f.RunUnsent(run.id, run.attempt), *_unused(state, again, "missed", why, now)]
    told = remark(run, reason("unsent", attempt=run.attempt, worker=run.worker))
    return [told, f.RunUnsent(run.id, run.attempt)]


def _started(state: State, order: o.ReportStarted, now: datetime, limits: Limits) -> Decision:
    run = held_run(state, order.worker, order.run, order.attempt)
    return Decision([f.RunStarted(order.run, order.attempt)] if run and run.shown == "sent" else [])


def _output(state: State, order: o.ReportOutput, now: datetime, limits: Limits) -> Decision:
    run = state.runs.get(order.run)
    if run is None or run.worker != order.worker:
        return Decision()  # of a run that is over for us; its DONE will be told as late
    lines: list[list[Any]] = []
    limit, omitted = limits.output_bytes, order.dropped
    if omitted:
        lines.append([0, reason("output-dropped", number=omitted)])
    room, is_told = limit - run.output_bytes, run.output_bytes > limit
    for line in order.lines:
        size = size_of((line,))
        if not (size and (line[0] or _may_remark(state, run.id, limits))):
            continue  # nothing comes, not even the end of a line, and that could come for ever; or too much
        if size <= (room if line[0] else MAX_REMARK):
            lines.append(line)
            room -= size if line[0] else 0
            continue
        if not is_told:
            lines.append([0, reason("output-limit", limit=limit)])
        is_told = True
        omitted += size
        room = 0
    if not (lines or omitted):
        return Decision()
    received = f.OutputReceived(run.id, run.attempt, lines, omitted)
    return Decision([hide_output(state.access, run, received) if run.given else received])


def _may_remark(state: State, run: int, limits: Limits) -> bool:
    """Whether a worker may say more of a run: as much as an attempt may write, of what is in memory."""
    told = state.outputs.get(run)
    return told is None or told.said <= max(limits.output_bytes, MAX_REMARK)


def _unwritten(state: State, order: o.TellUnwritten, now: datetime, limits: Limits) -> Decision:
    run, rows = state.runs.get(order.run), state.outcomes.get(order.run)
    attempt = run.attempt if run else rows[-1].attempt if rows else None
    why = reason("output-unwritten", number=order.number, node=order.node)
    return Decision([f.OutputReceived(order.run, attempt or 1, [[0, why]])])


def _done(state: State, order: o.ReportEnded, now: datetime, limits: Limits) -> Decision:
    ack = [(order.worker, f"ACK {order.run} {order.attempt}")]
    run = held_run(state, order.worker, order.run, order.attempt)
    if run is None:
        may_tell = _may_remark(state, order.run, limits)
        return Decision(_late(state, order) if may_tell else [], None, ack)
    how: str = "ok"
    why: Reason = ""
    exit_code: int | None = order.exit
    if order.exit or order.details or run.ends_as:
        how = run.ends_as or _said_state(order)
        why = _said_why(state, run, how, order)
        if order.details.get("lost"):
            exit_code = None  # nobody knows it
    began = order.began and run.state == "sent"
    return Decision(_end(state, run, how, exit_code, why, now, began), None, ack)


def _refused(state: State, order: o.ReportRefused, now: datetime, limits: Limits) -> Decision:
    ack = [] if order.holds else [(order.worker, f"ACK {order.run} {order.attempt}")]
    run = held_run(state, order.worker, order.run, order.attempt)
    if run is None:
        return Decision([], None, ack)
    text = hidden(state.access, run, order.why) if run.given else order.why
    why = shortened(reason("refused", worker=order.worker, how=order.code, text=text))
    if order.holds:
        return Decision([remark(run, why)] if _may_remark(state, run.id, limits) else [])
    return Decision(_end(state, run, run.ends_as or "failed", None, why, now), None, ack)


def held_run(state: State, worker: str, run_id: int, attempt: int) -> Run | None:
    run = state.runs.get(run_id)
    held = run and run.state in HELD and run.attempt == attempt and run.worker == worker
    return run if held else None


def _late(state: State, order: o.ReportEnded) -> list[f.Fact]:
    """A report that comes too late to count is told in the run's LOG, once."""
    if not 0 < order.run < state.next_run:
        return []
    rows = state.outcomes.get(order.run, [])
    knows_end = not order.details.get("lost")
    if any(
        row.worker == order.worker
        and row.attempt == order.attempt
        and (row.exit is not None if knows_end else code_of(row.why) != "gone")
        for row in rows
    ):
        return []  # the same report again: only its ACK was lost
    how = order.exit if knows_end else "unknown"
    late = reason("late-report", worker=order.worker, attempt=order.attempt, exit=how)
    told = state.outputs.get(order.run)
    if told and (0, late) in told.lines[-MAX_TAIL:]:
        return []  # and the same late report again
    return [f.OutputReceived(order.run, order.attempt, [[0, late]])]


def _said_state(order: o.ReportEnded) -> str:
    """How a run ended, as its worker tells it."""
    if order.details.get("lost"):
        return "lost"  # the worker was killed while it ran, and knows only that it began
    if order.details.get("timeout"):
        return "timeout"
    return "ok" if order.exit == 0 else "failed"


def _said_why(state: State, run: Run, how: str, order: o.ReportEnded) -> Reason:
    """Why it ended so: as its worker knows, else as its exit code or its own last words tell."""
    details, limit_s = order.details, run.spec.options.timeout_s
    if why := details.get("why"):
        return hidden(state.access, run, why) if run.given else why
    if how == "timeout" and limit_s is not None:
        return reason("timeout", limit_s=limit_s)
    if how != "failed":
        return ""
    if (number := details.get("signal", "")).isdecimal():
        return reason("signal", number=int(number[:3]))
    if output := state.outputs.get(run.id):
        held = let_go(state.access, run) if run.held else []
        lines = [*output.lines, *(line for fact in held for line in fact.lines)]
        for text in reversed(last_lines(lines, (2,), MAX_LAST_WORDS, output.attempt_from)):
            if text.strip():
                return shortened(reason("stderr", text=text.strip()))
    codes = {126: "not-executable", 127: "not-found"}
    return reason(codes[order.exit]) if order.exit in codes else ""


def _rerun_delay_s(tries: int) -> float | None:
    """How long lost=rerun waits after so many tries beyond those of retry=; None = it gives up."""
    # A job that takes its worker down with it would otherwise do so for ever.
    if tries > MAX_RERUNS:
        return None
    return 0.0 if tries <= 1 else min(2.0 ** (tries - 2), LONGEST_RERUN_S)


RUNS: Rules = {
    o.RunTask: Rule(_run, "RUN"),
    o.CancelRun: Rule(_cancel, "CANCEL"),
    o.PlaceRuns: Rule(_place),
    o.ReleaseRun: Rule(lambda state, order, now, limits: Decision([f.RunReleased(order.run)])),
    o.AdmitRun: Rule(lambda state, order, now, limits: Decision(admit(state, state.runs[order.run]))),
    o.BreakRun: Rule(_break),
    o.ExpireRun: Rule(_expire),
    o.LoseRun: Rule(_lose),
    o.TimeoutRun: Rule(_time_out),
    o.ReportStarted: Rule(_started),
    o.ReportOutput: Rule(_output),
    o.TellUnwritten: Rule(_unwritten),
    o.ReportEnded: Rule(_done),
    o.ReportRefused: Rule(_refused),
}


# --- workers come and go, and with them what they hold --------------------------------------------


def _join(state: State, order: o.JoinWorker, now: datetime, limits: Limits) -> Decision:
    lease_until_at = now + timedelta(seconds=limits.lease_s)
    running = [[run, attempt] for run, attempt in order.running]
    joined = f.WorkerJoined(
        order.name, order.slots, order.labels, sorted(order.can), order.address, running, lease_until_at,
        order.instance, order.connection,
    )  # fmt: skip
    kills = [
        (order.name, f"KILL {run} {attempt}")
        for run, attempt in order.running
        if unwanted(state, run, attempt)
    ]
    return Decision([joined, *_taken_since(state, order), *_never_taken(state, order, now)], None, kills)


def _taken_since(state: State, order: o.JoinWorker) -> list[f.Fact]:
    return [
        f.RunSent(run, attempt, order.name)
        for run, attempt in dict.fromkeys(order.running)
        if was_taken_since(state, run, attempt)
    ]


def was_taken_since(state: State, run_id: int, attempt: int) -> bool:
    """Whether what a worker names waits here as in the backup that this daemon was made of.

    It was sent to that worker after the backup, and is its own from now on.
    """
    run = state.runs.get(run_id)
    return bool(run and run.attempt == attempt and run.state == "queued" and run.instance == NOBODYS)


def _never_taken(state: State, order: o.JoinWorker, now: datetime) -> list[f.Fact]:
    """The ends of orders that a worker would name if it had ever got them."""
    worker = state.workers.get(order.name)
    if worker is None or not order.holds_all:
        return []
    named = set(order.running)
    held = (state.runs[run] for run in sorted(worker.runs))
    # One with another memory than the one it was sent to cannot know.
    held = (run for run in held if run.instance == order.instance)
    unknown = [run for run in held if run.shown == "sent" and (run.id, run.attempt) not in named]
    return _all_unsent(state, unknown, now)


def unwanted(state: State, run_id: int, attempt: int) -> bool:
    """Whether work that a worker still does must stop: cancelled, or done again elsewhere."""
    run = state.runs.get(run_id)
    if run is not None:  # a later attempt than is known here is another daemon's, or of after a backup
        return attempt < run.attempt or (attempt == run.attempt and run.state == "stopping")
    rows = state.outcomes.get(run_id, [])
    return any(row.attempt == attempt and row.state in ("cancelled", "timeout") for row in rows)


def _drop(state: State, order: o.DropWorker, now: datetime, limits: Limits) -> Decision:
    facts = _unsend(state, order.name, order.unsent, now)
    worker = state.workers.get(order.name)
    # It may be here again: this order may have waited for the disk while it came back.
    if worker and worker.connected and worker.connection == order.connection:
        until_at = now + timedelta(seconds=limits.lease_s)
        facts.append(f.WorkerLeft(order.name, order.why, until_at))
    return Decision(facts)


def _dismiss(state: State, order: o.DismissWorker, now: datetime, limits: Limits) -> Decision:
    worker = state.workers[order.name]
    return Decision([f.WorkerLeaving(order.name)] if worker.connection == order.connection else [])


def _drain(state: State, order: o.DrainWorker, now: datetime, limits: Limits) -> Decision:
    worker = state.workers.get(order.name)
    if worker is None:
        raise Refusal("not-found", f'no worker "{escape(order.name[:80])}"')
    word = "draining" if order.draining else "ready"
    facts: list[f.Fact] = (
        [f.WorkerDrained(order.name, order.draining)] if worker.draining != order.draining else []
    )
    return Decision(facts, Reply(f"{order.name} {word}", {"worker": order.name, "state": word}))


def _unsend(state: State, worker: str, runs: Iterable[tuple[int, int]], now: datetime) -> list[f.Fact]:
    held = (held_run(state, worker, run, attempt) for run, attempt in runs)
    return _all_unsent(state, [run for run in held if run and run.shown == "sent"], now)


def _all_unsent(state: State, runs: Iterable[Run], now: datetime) -> list[f.Fact]:
    runs = list(runs)
    facts = [fact for run in runs for fact in unsent(state, run, now)]
    ended = {fact.run for fact in facts if isinstance(fact, f.RunEnded) and fact.final}
    for task in [task for each in {run.task_id for run in runs} if (task := state.tasks.get(each))]:
        # Each of them leaves a one-off to the others, which end with it.
        if task.spec.schedule.kind == "at" and task.due_at is None and 1 < len(task.runs):
            facts += [f.TaskRemoved(task.id, "done")] if ended.issuperset(task.runs) else []
    return facts


def _unsend_runs(state: State, order: o.UnsendRuns, now: datetime, limits: Limits) -> Decision:
    return Decision(_unsend(state, order.worker, order.runs, now))


WORKERS: Rules = {
    o.JoinWorker: Rule(_join),
    o.DropWorker: Rule(_drop),
    o.UnsendRuns: Rule(_unsend_runs),
    o.DismissWorker: Rule(_dismiss),
    o.DrainWorker: Rule(_drain, "DRAIN"),
}
