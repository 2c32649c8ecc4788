"""What becomes of a due moment, and how runs end: the rules that several orders share.

Pure functions of the state, as everything that decides. A moment starts a run unless the
task is paused (skipped), the moment is later than catchup= and grace= allow (missed), or
overlap= says no to another run (skipped). After downtime all moments that were due
meanwhile are judged in one step, whatever their number.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from attrs import Factory, define

from . import facts as f
from .model import MAX_PARKED_RUNS, Run, Task
from .replies import Reply
from .state import State
from .zones import format_duration

ON_TIME_S = 60.0  # catchup=skip: later than this is not "at its moment" any more
MIN_GRACE_S = 1.0  # even grace=0 allows for the daemon's own latency
JUMPED_OVER = "the daemon was down, or the clock jumped over it"

Message = tuple[str, str]  # worker, line
# What overlap= says of one more run: why not, or (whether it has to wait, facts first, messages).
Overlap = str | tuple[bool | None, list[f.Fact], list[Message]]


@define
class Decision:
    """What an order leads to. Empty facts: nothing changed."""

    facts: list[f.Fact] = Factory(list)
    reply: Reply | None = None
    messages: list[Message] = Factory(list)  # (worker, line)


def fire(state: State, task: Task, now: datetime) -> Decision:
    """One due moment; or, after downtime, all that were due meanwhile, in one step."""
    assert task.due_at is not None
    first, schedule, anchor = task.due_at, task.spec.schedule, task.anchor_at
    options = task.spec.options
    following = schedule.next_after(first, anchor)
    newest, count = first, 1
    if following is not None and following <= now:
        if options.catchup == "all":
            cutoff = now - timedelta(seconds=max(options.grace_s, MIN_GRACE_S))
            if first < cutoff and (last := schedule.latest(first, cutoff, anchor)):
                return _pass_range(task, first, last, "later than its grace")
        else:
            newest = schedule.latest(first, now, anchor) or first
            count = 1 + schedule.count(first, newest, anchor)
            following = schedule.next_after(newest, anchor)
    if state.is_paused(task, newest):
        why = "paused" + (f": {reason}" if (reason := task.paused_why or state.paused_why) else "")
        skipped = passed(task, "skipped", first, newest, count, why, following)
        return Decision(_tidy(task, [skipped], following))
    facts: list[f.Fact] = []
    if count > 1:
        # The one before the newest ends the range; its exact moment is only for display.
        last = _before(task, first, newest)
        facts.append(passed(task, "missed", first, last, count - 1, JUMPED_OVER, newest))
    return _start_newest(state, task, newest, following, now, facts)


def _start_newest(
    state: State, task: Task, due_at: datetime, following: datetime | None, now: datetime, facts: list[f.Fact]
) -> Decision:
    options = task.spec.options
    late_s = (now - due_at).total_seconds()
    if late_s > (ON_TIME_S if options.catchup == "skip" else max(options.grace_s, MIN_GRACE_S)):
        late = format_duration(float(round(late_s)))
        why = f"{late} late, more than catchup={options.catchup} and its grace allow"
        facts.append(passed(task, "missed", due_at, due_at, 1, why, following))
        return Decision(_tidy(task, facts, following))
    found = overlap(state, task)
    if isinstance(found, str):
        facts.append(passed(task, "skipped", due_at, due_at, 1, found, following))
        return Decision(_tidy(task, facts, following))
    parked, before, messages = found
    queued = f.RunQueued(state.next_run, task.id, due_at, "schedule", following, None, parked)
    return Decision([*facts, *before, queued], None, messages)


def _before(task: Task, first: datetime, newest: datetime) -> datetime:
    last = task.spec.schedule.latest(first, newest - timedelta(seconds=1), task.anchor_at)
    return last or first


def _pass_range(task: Task, first: datetime, last: datetime, why: str) -> Decision:
    schedule, anchor = task.spec.schedule, task.anchor_at
    count = 1 + schedule.count(first, last, anchor)
    following = schedule.next_after(last, anchor)
    return Decision([passed(task, "missed", first, last, count, why, following)])


def passed(
    task: Task,
    state: str,
    first: datetime,
    last: datetime,
    count: int,
    why: str,
    following: datetime | None,
) -> f.FiresPassed:
    return f.FiresPassed(task.id, task.name, state, first, last, count, why, following)


def _tidy(task: Task, facts: list[f.Fact], following: datetime | None) -> list[f.Fact]:
    """A one-off whose only moment has passed unused goes away like one that has run."""
    if following is None and task.spec.schedule.kind == "at" and not task.runs:
        facts.append(f.TaskRemoved(task.id, "done"))
    return facts


def overlap(state: State, task: Task) -> Overlap:
    """What overlap= says now: a reason to skip, or (park it?, facts before it, messages)."""
    mode = task.spec.options.overlap
    if not task.runs or mode == "allow":
        return None, [], []
    active = [state.runs[run] for run in task.runs]
    waiting = sum(run.parked for run in active)
    if mode == "skip":
        return f"overlap: run {active[0].id} is still {active[0].state}"
    if mode == "replace":
        facts, messages = _stop_all(active, f"replaced by run {state.next_run}")
        must_wait = any(run.state != "queued" for run in active)
        return must_wait or None, facts, messages
    if waiting >= (1 if mode == "queue1" else MAX_PARKED_RUNS):
        wait = "1 run waits" if waiting == 1 else f"{waiting} runs wait"
        return f"overlap: {wait} already behind run {active[0].id}"
    return True, [], []


def _stop_all(runs: list[Run], why: str) -> tuple[list[f.Fact], list[Message]]:
    facts: list[f.Fact] = []
    messages: list[Message] = []
    for run in runs:
        more, lines = stop(run, "cancelled", why)
        facts += more
        messages += lines
    return facts, messages


def stop(run: Run, state: str, why: str) -> tuple[list[f.Fact], list[Message]]:
    """Ends a run that waits; tells the worker of one that does not."""
    if run.state == "queued":
        return ended_waiting(run, state, why), []
    if run.stopping:
        return [], []
    assert run.worker is not None
    told = remark(run, f"{why}: worker {run.worker} is told to end it")
    stopping = f.RunStopping(run.id, run.attempt, state)
    return [told, stopping], [(run.worker, f"KILL {run.id} {run.attempt}")]


def after_end(state: State, run: Run, facts: list[f.Fact]) -> list[f.Fact]:
    """A one-off leaves when its run has ended for good."""
    ended = any(isinstance(fact, f.RunEnded) and fact.final for fact in facts)
    task = state.tasks.get(run.task_id)
    if not ended or task is None or task.spec.schedule.kind != "at" or task.due_at is not None:
        return []
    return [f.TaskRemoved(task.id, "done")] if task.runs == [run.id] else []


def remark(run: Run, text: str) -> f.OutputReceived:
    """A line of the daemon's own in the run's LOG."""
    return f.OutputReceived(run.id, run.attempt, [[0, text]])


def ended_waiting(run: Run, state: str, why: str) -> list[f.Fact]:
    """The end of a run that no worker has."""
    return [remark(run, why), ended(run, state, why=why)]


def ended(
    run: Run, state: str, exit_code: int | None = None, why: str = "", final: bool = True
) -> f.RunEnded:
    started_at = run.started_at or run.sent_at
    return f.RunEnded(
        run.id, run.attempt, run.task_id, run.spec.name, state, run.due_at, started_at, run.worker,
        exit_code, why or None, final,
    )  # fmt: skip
