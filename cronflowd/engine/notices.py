"""What is told to whom: notify=, and how a notification comes to be.

The daemon sends nothing itself. What is to be told becomes an ordinary run, a one-off of type
email, webhook or http, decided together with the fact that it tells of: either both are on
disk or neither is. So a notification is placed on a worker that can do it, retried, and kept in
RUNS and LOG as everything else. It has notify=none, and nothing is told of it.

A task's own notify= goes before the general setting. Each event of each task, expectation or
worker has its limit (`notify-limit`); how many were withheld is told with the next one. What is
told last must not be the opposite of what is so: a change of state is told whatever the limit.
Pure functions, as everything that decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import chain
from typing import Any
from urllib.parse import urlsplit

import orjson
from attrs import evolve, frozen
from msgspec.structs import replace

from ..base.output import last_lines
from ..base.replies import Row
from ..base.text import CONTROL, escape, format_time
from ..tasks.options import DEFAULTS, set_options
from ..tasks.reasons import code_of, in_words, shortened
from ..tasks.targets import AT_EACH_END, BAD, OPPOSITE, UNSAID, Notify, Target, notice_name, parse_notify
from ..tasks.task import Failure, Task, TaskSpec, make_spec, tell_work
from . import facts as f
from .hearing import keeps_failing
from .lanes import accepts
from .ledger import RAN
from .rules import Limits
from .state import State
from .tables import WELL, receiver

MAX_UNDER_WAY = 1000  # notifications that wait or run; beyond, all are withheld and counted
MAX_LINES, MAX_OUTPUT_CHARS = 20, 4096  # of the run's output
MAX_WHY_CHARS = 500
PLAIN = ("shell", "script", "echo", "sleep", "calculate")
CANNOT_BE_READ = "was not started: its definition cannot be read"
OPTIONS = set_options(
    DEFAULTS,
    {
        "prio": "high", "retry": "exp:5:10s:10m", "timeout": "1m", "grace": "1d", "lost": "rerun",
        "notify": "none",
    },
)  # fmt: skip


@frozen
class Notice:
    """Something that happened, before it is known whether anybody wants to hear of it."""

    about: str  # as in f.NoticeGiven
    event: str
    notify: Notify  # its own
    headline: str  # what follows [cronflowd] in a subject
    told: dict[str, Any]  # all that is known, in the order in which it is shown; None is left out
    output: str = ""
    besides: frozenset[str] = frozenset()  # events that are this one said more exactly


def notes(
    state: State, spec: TaskSpec, is_work: bool = True, is_notify: bool = True, is_on: bool = True
) -> list[Row]:
    """What whoever defines a task is told at once: that no connected worker is one for it, or its notify=."""
    rows: list[Row] = []
    if is_work and not _can(state, spec.work):
        rows.append(("note", f"no connected worker can do {tell_work(spec.work)}: its runs wait for one"))
    elif is_on and spec.options.on not in ("any", "all") and not _is_here(state, spec):
        _, label, name = spec.options.on.rpartition("label:")
        whose = f"with the label {name}" if label else f"called {name}"
        work = tell_work(spec.work)
        rows.append(("note", f"no connected worker {whose} can do {work}: its runs wait for one"))
    for name in spec.options.secrets:
        if name not in state.access.secrets:
            text = f"the secret {name} has no value yet: runs that need it fail until SECRET PUT {name}"
            rows.append(("note", text))
    if is_notify and spec.options.notify.targets:
        rows += notify_notes(state, spec.options.notify)
    return rows


def notify_notes(state: State, notify: Notify) -> list[Row]:
    """The same for a notify= alone."""
    kinds = dict.fromkeys(_KINDS[target.form] for target in notify.targets)
    lacking = [kind for kind in kinds if not _can(state, kind)]
    text = "no connected worker can do {}: what notify= tells waits for one"
    return [("note", text.format(kind)) for kind in lacking]


def _can(state: State, work: str) -> bool:
    can = work in PLAIN  # which needs no word before the first worker is here
    for worker in state.workers.values():
        if worker.connected:
            if accepts(worker, work, "any"):
                return True
            can = False
    return can


def _is_here(state: State, spec: TaskSpec) -> bool:
    """Whether a worker that on= asks for is connected, or none is at all: then the first may be one."""
    here = [worker for worker in state.workers.values() if worker.connected]
    return not here or any(accepts(worker, spec.work, spec.options.on) for worker in here)


def tell(state: State, limits: Limits, facts: Sequence[f.Fact], now: datetime) -> list[f.Fact]:
    """The facts that follow from those of a decision because somebody wants to hear of them."""
    found: list[Notice] = []
    failed: list[f.Fact] = []
    for fact in facts:
        if (kind := type(fact)) in LOOK:
            found += LOOK[kind](state, fact, now, limits.notify)
        if (
            state.notices
            and isinstance(fact, f.RunEnded)
            and fact.final
            and fact.state in _EVENTS
            and state.runs[fact.run].by == "notice"
        ):
            failed.append(_failed(state, fact, now, len(failed)))
    if not found:
        return failed
    writer = _Writer(state, limits, facts, now)
    for notice in found:
        targets = notice.notify.targets if notice.notify.text else limits.notify
        wanted = [target for target in targets if notice.event in target.events]
        if wanted := [target for target in wanted if not target.events & notice.besides]:
            writer.add(notice, wanted)
    return failed + writer.facts


def _failed(state: State, fact: f.RunEnded, now: datetime, others: int) -> f.NoticeFailed:
    to = receiver(state.runs[fact.run].spec)
    before, last = state.unheard.get(to), state.notice_failed
    how = in_words(fact.why) or (fact.state if fact.exit is None else f"exit {fact.exit}")
    since_at, why = before.failure.since_at if before else now, shortened(f"to {_shown(to)}: {how}")
    failure = Failure(since_at, fact.run, fact.state, fact.due_at, now, fact.exit, why)
    return f.NoticeFailed(to, fact.task, fact.name, failure, (last.count if last else 0) + others + 1)


def _shown(to: str) -> str:
    """Without what is nobody else's business: the address of a hook is its key."""
    where = to.rpartition(" ")[2]
    url = urlsplit(where)
    return f"{url.scheme}://{url.hostname}/…" if url.hostname else where


def unheard(facts: Sequence[f.Fact]) -> str:
    """What the log tells of notifications that did not arrive; empty if there are none."""
    failed = (fact for fact in facts if isinstance(fact, f.NoticeFailed))
    return "; ".join(f"notification {each.name} failed, {in_words(each.failure.why)}" for each in failed)


class _Writer:
    """Numbers tasks and runs on from those of the decision, and keeps to the limit."""

    def __init__(self, state: State, limits: Limits, facts: Sequence[f.Fact], now: datetime) -> None:
        self.facts: list[f.Fact] = []
        self._state, self._limits, self._now = state, limits, now
        self._task = max([state.next_task, *(each.id + 1 for each in facts if isinstance(each, f.TaskAdded))])
        self._run = state.next_run + sum(isinstance(each, f.RunQueued) for each in facts)
        self._told: dict[tuple[str, str], f.NoticeGiven] = {}
        self._under_way = len(state.notices)
        ended = {each.task for each in facts if isinstance(each, f.RunEnded)} - state.tasks.keys()
        ended |= {each.id for each in facts if isinstance(each, f.TaskRemoved)}
        self._gone = {f"task:{task}" for task in ended}

    def add(self, notice: Notice, targets: list[Target]) -> None:
        about, event = notice.about, notice.event
        told = self._find(about, event) or f.NoticeGiven(about, event, self._now, 0, 0)
        if is_withheld := self._is_withheld(notice):
            told = replace(told, withheld=told.withheld + 1, turns=False)
        else:
            more = notice.told | {"host": self._limits.host, "withheld": told.withheld or None}
            for target in targets:
                self._send(evolve(notice, told=more), target)
            told = self._counted(told)
            told = replace(told, given=told.given + 1, withheld=0, turns=True)
        if about in self._gone:
            return  # and nothing is remembered of it
        self._told[about, event] = told
        for other in OPPOSITE.get(event, ()):
            if not is_withheld and (against := self._find(about, other)):
                self._told[about, other] = replace(against, given=0)
        self.facts.append(told)

    def _find(self, about: str, event: str) -> f.NoticeGiven | None:
        return self._told.get((about, event)) or self._state.told.get((about, event))

    def _is_withheld(self, notice: Notice) -> bool:
        if self._under_way >= MAX_UNDER_WAY:
            return True
        if notice.event == "recovery":
            bad = [told for event in BAD if (told := self._find(notice.about, event))]
            if any(told.withheld for told in bad) and not any(told.given for told in bad):
                return True  # well again after what? nobody heard of it
        # What was given before the opposite does not count, or somebody would be left with
        # "is well again" of what is dead for ever.
        told = self._find(notice.about, notice.event)
        return told is not None and self._counted(told).given >= self._limits.notify_limit[0]

    def _counted(self, told: f.NoticeGiven) -> f.NoticeGiven:
        """What counts against the limit now."""
        until_at = told.since_at + timedelta(seconds=self._limits.notify_limit[1])
        is_lately = told.since_at <= self._now < until_at
        # Of which none counts, since its opposite was told, the time begins with the next.
        return told if is_lately and told.given else replace(told, since_at=self._now, given=0)

    def _send(self, notice: Notice, target: Target) -> None:
        kind, command, payload = _FORMS[target.form](notice, target.address)
        # What a run wrote may look like a reference, and must not become one.
        text = orjson.dumps(payload).decode().replace("{{secret:", "{\\u007bsecret:")
        options = evolve(OPTIONS, type=kind, payload=text)
        name = notice_name(self._task)
        if name in self._state.names or name in self._state.beats.expected:
            name = f"task_{self._task}"  # which nobody else can have
        moment = f"@at {format_time(self._now)}"
        spec = make_spec(name, moment, command, options, self._state.default_tz)
        anchor_at = self._now.replace(microsecond=0)
        self.facts.append(f.TaskAdded(self._task, spec, anchor_at, None, notice=True))
        self.facts.append(f.RunQueued(self._run, self._task, self._now, "notice"))
        self._task, self._run, self._under_way = self._task + 1, self._run + 1, self._under_way + 1


# --- what is worth telling ------------------------------------------------------------------------

Targets = tuple[Target, ...]  # of the general setting
_EVENTS = {"failed": "failure", "timeout": "failure", "lost": "lost", "missed": "missed"}


def _run_ended(state: State, fact: f.RunEnded, now: datetime, general: Targets) -> Iterable[Notice]:
    task = state.tasks.get(fact.task)
    notify = (task or state.runs[fact.run]).spec.options.notify
    # The usual case, and it must cost nothing.
    return _of_end(state, fact, now, general, task, notify) if general or notify.targets else ()


def _of_end(
    state: State, fact: f.RunEnded, now: datetime, general: Targets, task: Task | None, notify: Notify
) -> Iterator[Notice]:
    if general and fact.state == "lost" and _is_last_lost(state, fact):
        yield _lost_worker(fact)
    event = _EVENTS.get(fact.state)
    if code_of(fact.why) == "unreadable":
        event = "missed"
    if not (fact.final and (notify.targets or (general and not notify.text))):
        return
    events = [event] if event else []
    if not event and fact.state == WELL and task:
        events += (
            ["recovery"] if task.failure and not keeps_failing(state, task, state.runs[fact.run]) else []
        )
        events += ["first"] if WELL not in (task.counts or {}) else []
    for each in events:
        yield _of_run(state, fact, each, now)
    targets = notify.targets if notify.text else general
    for each, states in zip(AT_EACH_END, ((WELL,), RAN), strict=True):
        if fact.state in states and any(each in target.events for target in targets):
            yield evolve(_of_run(state, fact, each, now), besides=frozenset(events))
            events.append(each)


def _of_run(state: State, fact: f.RunEnded, event: str, now: datetime) -> Notice:
    task = state.tasks.get(fact.task)
    spec = task.spec if task else state.runs[fact.run].spec
    told = {
        "event": event,
        "task": fact.task,
        "jobName": fact.name,
        "state": fact.state,
        "run": fact.run,
        "attempt": fact.attempt,
        "due": format_time(fact.due_at),
        "started": fact.started_at and format_time(fact.started_at),
        "ended": format_time(now),
        "exit": fact.exit,
        "worker": fact.worker,
        "why": _clean(in_words(fact.why))[:MAX_WHY_CHARS] or None,
        "since": format_time(task.failure.since_at) if task and task.failure else None,
    }
    headline = f"{fact.name} {_headline(fact, event)}"
    return Notice(f"task:{fact.task}", event, spec.options.notify, headline, told, _output(state, fact.run))


def _headline(fact: f.RunEnded, event: str) -> str:
    if fact.state == "skipped":
        return CANNOT_BE_READ
    if event == "done":
        event = {WELL: "success", "cancelled": "cancelled"}.get(fact.state) or _EVENTS[fact.state]
    if event == "failure":
        if fact.state == "timeout":
            return "timed out"
        how = in_words(fact.why) if code_of(fact.why) == "signal" else f"exit {fact.exit}"
        return "failed" if fact.exit is None else f"failed ({how})"
    return {
        "recovery": "is well again",
        "first": "succeeded for the first time",
        "success": "succeeded",
        "cancelled": "was cancelled",
        "lost": f"is lost with worker {fact.worker}",
        "missed": "was missed",
    }[event]


def _is_last_lost(state: State, fact: f.RunEnded) -> bool:
    """Whether its worker is lost with it: a worker that held several runs is told of once."""
    worker = state.workers.get(fact.worker or "")
    others = (state.runs[run] for run in worker.runs if run != fact.run) if worker else ()
    return worker is not None and all(other.state == "stopping" for other in others)


def _lost_worker(fact: f.RunEnded) -> Notice:
    told = {
        "event": "worker",
        "worker": fact.worker,
        "task": fact.task,
        "jobName": fact.name,
        "run": fact.run,
        "why": _clean(in_words(fact.why))[:MAX_WHY_CHARS] or None,
    }
    return Notice(f"worker:{fact.worker}", "worker", UNSAID, f"worker {fact.worker} is lost", told)


def _fires_passed(state: State, fact: f.FiresPassed, now: datetime, general: Targets) -> Iterator[Notice]:
    is_unread = code_of(fact.why) == "unreadable"
    if not (fact.state == "missed" or is_unread) or (task := state.tasks.get(fact.task)) is None:
        return
    told = {
        "state": fact.state,
        "due": format_time(fact.first_due_at),
        "until": format_time(fact.last_due_at) if fact.count > 1 else None,
        "count": fact.count,
    }
    words = f"was missed{'' if fact.count == 1 else f' {fact.count} times'}"
    yield _missed(task, CANNOT_BE_READ if is_unread else words, told, in_words(fact.why))


def _record_unread(state: State, fact: f.RecordUnread, now: datetime, general: Targets) -> Iterator[Notice]:
    task = state.tasks[fact.task]
    told = {"state": "unreadable", "due": task.due_at and format_time(task.due_at)}
    yield _missed(task, CANNOT_BE_READ, told, fact.why)


def _missed(task: Task, words: str, told: dict[str, Any], why: str) -> Notice:
    told = {"event": "missed", "task": task.id, "jobName": task.name} | told
    told["why"] = _clean(why)[:MAX_WHY_CHARS]
    return Notice(f"task:{task.id}", "missed", task.spec.options.notify, f"{task.name} {words}", told)


def _beat_missed(state: State, fact: f.BeatMissed, now: datetime, general: Targets) -> Iterator[Notice]:
    told = {"state": "late", "due": format_time(fact.due_at)}
    yield _of_beat(state, fact.name, "absent", "is silent", told)


def _beat_received(state: State, fact: f.BeatReceived, now: datetime, general: Targets) -> Iterator[Notice]:
    before = state.beats.expected[fact.name].state
    told = {"state": fact.state, "text": _clean(fact.text) or None}
    if fact.state != WELL:
        yield _of_beat(state, fact.name, "failure", "says that it failed", told)
    elif before in ("late", "failed"):
        yield _of_beat(state, fact.name, "recovery", "is well again", told)
    elif before == "new":
        yield _of_beat(state, fact.name, "first", "was heard for the first time", told)


def _of_beat(state: State, name: str, event: str, words: str, told: dict[str, Any]) -> Notice:
    expected = state.beats.expected[name]
    last = {
        "last": expected.beaten_at and format_time(expected.beaten_at),
        "last_text": _clean(expected.text) or None if event == "absent" else None,
        "desc": expected.desc or None,
    }
    told = {"event": event, "expectation": name} | told | last
    notify = parse_notify(expected.notify) if expected.notify else UNSAID
    return Notice(f"expectation:{name}", event, notify, f"{name} {words}", told)


LOOK: dict[type[f.Fact], Callable[[State, Any, datetime, Targets], Iterable[Notice]]] = {
    f.RunEnded: _run_ended,
    f.FiresPassed: _fires_passed,
    f.RecordUnread: _record_unread,
    f.BeatMissed: _beat_missed,
    f.BeatReceived: _beat_received,
}


# --- how it looks -----------------------------------------------------------------------------------


def _clean(text: str) -> str:
    """Without the control characters that no mail may hold."""
    return CONTROL.sub(lambda match: escape(match[0]), text)


def _output(state: State, run: int) -> str:
    """The end of what a run wrote, as far as memory has it."""
    if (found := state.outputs.get(run)) is None:
        return ""
    text = "\n".join(map(_clean, last_lines(found.lines, (1, 2), MAX_LINES)))
    return text[-MAX_OUTPUT_CHARS:]


Form = tuple[str, str, dict[str, Any]]  # type, command, payload


def _rows(notice: Notice) -> Iterator[str]:
    for key, value in notice.told.items():
        if value is not None:
            yield f"{key:<12} {value}{' more of these, which were not told' if key == 'withheld' else ''}"


def _mail(notice: Notice, address: str) -> Form:
    parts = chain(
        (notice.headline, ""), _rows(notice), ("", "Its last lines:", notice.output) * bool(notice.output)
    )
    return "email", address, {"subject": f"[cronflowd] {notice.headline}", "text": "\n".join(parts) + "\n"}


def _webhook(notice: Notice, url: str) -> Form:
    told = {key: value for key, value in notice.told.items() if value is not None}
    return "webhook", url, told | {"headline": notice.headline, "output": notice.output}


def _slack(notice: Notice, url: str) -> Form:
    rows = "\n".join(_rows(notice))
    text = f"*[cronflowd] {_slack_text(notice.headline)}*\n```{_slack_text(rows)}```"
    if notice.output:
        text += f"\n```{_slack_text(notice.output)}```"
    return "http", f"POST {url}", {"text": text}


def _slack_text(text: str) -> str:
    # Slack takes these three for its own marks, and three ` for the end of what is shown as it is.
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("```", "'''")


_KINDS = {"mail": "email", "webhook": "webhook", "slack": "http"}  # of these forms
_FORMS: dict[str, Callable[[Notice, str], Form]] = {"mail": _mail, "webhook": _webhook, "slack": _slack}
