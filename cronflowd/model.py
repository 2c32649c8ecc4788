"""The nouns: what a task is, what a run is, what a worker is, and how a task is written down.

A `TaskSpec` is a definition and never changes; SET makes a new one. A `Task` is the
engine's table row about it, a `Run` one execution, made of one or more attempts. The
option table in here is the only place that knows the options: ADD, SET, GET, LOAD and
tasks.db all go through it. To add an option: a field in `Options`, a row in `RULES`,
a row in protocol.md.

Life of a run (legal moves only; `attempt` counts up on the way back to queued):

    queued -> sent -> running -> ok | failed | timeout | cancelled | lost
       ^        |         |         (retry= or lost=rerun leads back to queued)
       +--------+---------+
    queued -> cancelled | missed | skipped (a dependency failed)
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import orjson
from attrs import Factory, define, evolve, field, frozen

from .calendars import parse_calendar_names
from .english import parse_moment
from .errors import Refusal
from .kinds import (
    CONTROL,
    TYPES,
    WHOSE,
    check_command,
    check_header_name,
    check_options,
    check_request,
    parse_expect,
    parse_payload,
    parse_secret,
)
from .names import check_name, check_tag, check_worker_name, id_of_name, parse_label
from .schedule import Schedule, Unreadable, parse_schedule
from .timetable import Moments, make_moments
from .wire import escape, format_time
from .words import named_zone
from .zones import EPOCH, format_duration, parse_duration, parse_time, parse_zone

# Command and all options of any length together; bounds tasks.db's lines and RUN lines.
MAX_TEXT_BYTES = 65_536
MAX_TAGS = 32
MAX_DEPENDENCIES = 100
MAX_PARKED_RUNS = 1000  # per task with overlap=queue

ENDED = frozenset({"ok", "failed", "timeout", "cancelled", "lost", "skipped", "missed"})
# Moves a run may make; the engine asserts them in apply.
MOVES = {
    "queued": {"sent", "cancelled", "missed", "skipped"},
    "sent": {"running", "ok", "failed", "timeout", "cancelled", "lost"},
    "running": {"ok", "failed", "timeout", "cancelled", "lost"},
}


# --- option values --------------------------------------------------------------------


@frozen
class Retry:
    """After a failed attempt: how long to wait for the next one, and when to give up."""

    text: str
    times: int  # attempts after the first
    first_s: float
    factor: float
    cap_s: float
    jitter: float = 0.0  # by how much of itself a delay may be longer or shorter, 0 to 1

    def delay_s(self, attempt: int, drawn: float = 0.5) -> float | None:
        """Seconds to wait after the `attempt`-th attempt (from 1) has failed; None = no more.

        `drawn` is the jitter's random number, from 0 to 1.
        """
        if attempt > self.times:
            return None
        # The exponent is bounded because 2.0 ** 2000 raises where the cap would do.
        delay_s = min(self.cap_s, self.first_s * self.factor ** min(attempt - 1, 64))
        return delay_s * (1 + self.jitter * (2 * drawn - 1))


NO_RETRY = Retry("none", 0, 0.0, 1.0, 0.0)
_MAX_RETRIES = 1000
_MAX_DELAY_S = 30 * 86_400.0


def parse_retry(text: str) -> Retry:
    """`none`; `fixed:3:1s`; `exp:5:1s`, doubling; `:x5` another factor, `:300s` a cap, `:~20%` jitter."""
    if text == "none":
        return NO_RETRY
    kind, *words = text.split(":")
    if kind not in ("fixed", "exp") or len(words) < 2:
        raise _refuse_retry(text)
    given: dict[str, float] = {}
    for word in words[2:]:
        field, value = _retry_word(word)
        if field in given or (kind == "fixed" and field != "jitter"):
            raise _refuse_retry(text)
        given[field] = value
    factor = given.get("factor", 1.0 if kind == "fixed" else 2.0)
    cap_s, jitter = given.get("cap_s", _MAX_DELAY_S), given.get("jitter", 0.0)
    return Retry(text, _retries(words[0]), parse_duration(words[1]), factor, cap_s, jitter)


def _retry_word(word: str) -> tuple[str, float]:
    if word.startswith("x"):
        return "factor", _factor(word[1:])
    if match := re.fullmatch(r"~([0-9]{1,3})%", word):
        return "jitter", parse_count(match[1], 0, 100) / 100
    return "cap_s", parse_duration(word)


def _refuse_retry(text: str) -> Refusal:
    form = "none, fixed:N:DELAY or exp:N:DELAY[:xFACTOR][:CAP], with :~JITTER% if you like"
    return Refusal("bad-option", f'"{escape(text)}" is not {form}')


def _retries(text: str) -> int:
    return parse_count(text, 1, _MAX_RETRIES)


def _factor(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3})?", text) or float(text) < 1:
        raise Refusal("bad-option", f'"x{escape(text)}" is not a factor such as x2 or x1.5')
    return float(text)


@frozen
class Keep:
    """How much history a task keeps: whichever bound is met first."""

    text: str
    runs: int
    age_s: float
    output_bytes: int


def parse_keep(text: str) -> Keep:
    """`50,30d,10M`: runs, age and bytes of output, in any order; what is left out keeps its default."""
    runs, age_s, output = 50, 30 * 86_400.0, 10 * 1024 * 1024
    for word in text.split(","):
        if re.fullmatch(r"[0-9]{1,6}", word):
            runs = int(word)
        elif match := re.fullmatch(r"([0-9]{1,6})([KMG])", word):
            output = int(match[1]) * 1024 ** ("KMG".index(match[2]) + 1)
        else:
            age_s = parse_duration(word)
    return Keep(text, runs, age_s, output)


def parse_count(text: str, low: int, high: int) -> int:
    """A whole number within bounds; Refusal (`bad-option`) otherwise."""
    if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
        raise Refusal("bad-option", f'"{escape(text)}" is not a whole number from {low} to {high}')
    return int(text)


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise Refusal("bad-option", f'"{escape(text)}" is not one of {", ".join(words)}')
        return text

    return parse


def _parse_tags(text: str) -> tuple[str, ...]:
    tags = tuple(tag for tag in text.split(",") if tag)
    if len(tags) > MAX_TAGS:
        raise Refusal("bad-option", f"more than {MAX_TAGS} tags")
    for tag in tags:
        check_tag(tag)
    return tags


def _parse_timeout(text: str) -> float | None:
    if text == "none":
        return None
    if (seconds := parse_duration(text)) <= 0:
        raise Refusal("bad-option", "a timeout must be longer than nothing")
    return seconds


def _parse_on(text: str) -> str:
    if text.startswith("label:"):
        parse_label(text.removeprefix("label:"))
    elif text not in ("any", "all"):
        check_worker_name(text)
    return text


def _parse_cwd(text: str) -> str:
    if text and not text.startswith("/"):
        raise Refusal("bad-option", f'"{escape(text)}" is not an absolute path')
    return text


def _parse_after(text: str) -> tuple[str, ...]:
    refs = tuple(dict.fromkeys(ref for ref in text.split(",") if ref))
    if len(refs) > MAX_DEPENDENCIES:
        raise Refusal("bad-option", f"more than {MAX_DEPENDENCIES} tasks")
    return refs


def _parse_spread(text: str) -> int:
    if (seconds := parse_duration(text)) != int(seconds):
        raise Refusal("bad-option", f'"{escape(text)}" is not a number of whole seconds')
    return int(seconds)


def _format_moment(at: datetime | None) -> str:
    return "" if at is None else format_time(at)


def _format_seconds(seconds: float | None) -> str:
    return "none" if seconds is None else format_duration(seconds)


@frozen
class Options:
    """Everything about a task that has a default, parsed."""

    desc: str = ""
    tags: tuple[str, ...] = ()
    tz: str = ""  # IANA zone; empty = the daemon's
    type: str = "shell"
    cwd: str = ""  # absolute; empty = the worker's own
    env: tuple[tuple[str, str], ...] = ()  # sorted by name
    payload: str = ""  # one JSON value, as it was written
    headers: tuple[tuple[str, str], ...] = ()  # sorted by name; no two differ in case alone
    body: str = ""
    expect: str = "200-299"  # statuses that are a success
    secret: str = ""  # signs a webhook
    prio: str = "medium"
    retry: Retry = NO_RETRY
    timeout_s: float | None = None
    overlap: str = "skip"
    catchup: str = "once"
    grace_s: float = 3600.0
    lost: str = "fail"
    on: str = "any"  # `any`, `all`, a worker's name, or label:KEY=VALUE
    keep: Keep = Factory(lambda: parse_keep("50,30d,10M"))
    start_at: datetime | None = None  # no moment before it
    end_at: datetime | None = None  # and none after it
    count: int = 0  # fires in all; 0 = no end
    spread_s: int = 0
    jitter_s: float = 0.0
    skip: tuple[str, ...] = ()  # names of calendars
    after: tuple[str, ...] = ()  # names of tasks that must have ended well


DEFAULTS = Options()


@frozen
class Rule:
    """How one option is read and written."""

    field: str  # of Options
    parse: Callable[[str], Any] | None  # None: a time, which is read in the task's zone
    format: Callable[[Any], str] = str


RULES: dict[str, Rule] = {
    "desc": Rule("desc", str),
    "tags": Rule("tags", _parse_tags, ",".join),
    "tz": Rule("tz", parse_zone),
    "type": Rule("type", _one_of(*TYPES)),
    "cwd": Rule("cwd", _parse_cwd),
    "payload": Rule("payload", parse_payload),
    "body": Rule("body", str),
    "expect": Rule("expect", parse_expect),
    "secret": Rule("secret", parse_secret),
    "prio": Rule("prio", _one_of("medium", "high", "low")),
    "retry": Rule("retry", parse_retry, lambda retry: str(retry.text)),
    "timeout": Rule("timeout_s", _parse_timeout, _format_seconds),
    "overlap": Rule("overlap", _one_of("skip", "queue1", "queue", "allow", "replace")),
    "catchup": Rule("catchup", _one_of("once", "all", "skip")),
    "grace": Rule("grace_s", parse_duration, format_duration),
    "lost": Rule("lost", _one_of("fail", "rerun")),
    "on": Rule("on", _parse_on),
    "keep": Rule("keep", parse_keep, lambda keep: str(keep.text)),
    "start": Rule("start_at", None, _format_moment),
    "end": Rule("end_at", None, _format_moment),
    "count": Rule("count", lambda text: parse_count(text, 0, 999_999_999), lambda count: str(count or "")),
    "spread": Rule("spread_s", _parse_spread, format_duration),
    "jitter": Rule("jitter_s", parse_duration, format_duration),
    "skip": Rule("skip", parse_calendar_names, ",".join),
    "after": Rule("after", _parse_after, ",".join),
}
# Options that later releases bring: refused by name rather than ignored.
LATER = frozenset({"notify"})
HIDDEN = frozenset({"secret"})


def set_options(
    options: Options, words: dict[str, str], default_tz: str = "UTC", now: datetime | None = None
) -> Options:
    """`options` with the `key=value` words applied; an empty value means the default.

    Local times are of the zone in `tz=`, else of `default_tz`; those in words count from
    `now`, and are refused without one. Raises Refusal (`bad-option`) naming the key.
    """
    changes: dict[str, Any] = {}
    zone = words.get("tz", options.tz) or default_tz
    env, headers = dict(options.env), dict(options.headers)
    for key, text in words.items():
        _check_text(key, text)
        if key.startswith("env."):
            _set_env(env, key[4:], text)
        elif key.startswith("header."):
            _set_header(headers, key[7:], text)
        elif key in RULES:
            rule = RULES[key]
            changes[rule.field] = _parse_option(key, rule, text, zone, now)
        elif key in LATER:
            raise Refusal("bad-option", f"{escape(key)}= is not in this release yet")
        else:
            hint = " (a task's name is name= here)" if key == "jobName" else ""
            raise Refusal("bad-option", f'there is no option "{escape(key)}"{hint}')
    for field_name, pairs in (("env", env), ("headers", headers)):
        if pairs != dict(getattr(options, field_name)):
            changes[field_name] = tuple(sorted(pairs.items()))
    # Most tasks have no options of their own and share one object.
    return evolve(options, **changes) if changes else options


def _parse_option(key: str, rule: Rule, text: str, zone: str, now: datetime | None) -> Any:
    if not text:
        return getattr(DEFAULTS, rule.field)
    try:
        if rule.parse is None:
            return parse_moment(text, zone, now) if now else parse_time(text, zone, EPOCH)
        return rule.parse(text)
    except Refusal as refusal:
        raise Refusal(refusal.code, f"{key}=: {refusal.message}") from None


def _set_env(env: dict[str, str], name: str, text: str) -> None:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise Refusal("bad-option", f'env.{escape(name)}: "{escape(name)}" is not a variable name')
    env[name] = text


def _set_header(headers: dict[str, str], name: str, text: str) -> None:
    check_header_name(name)
    for other in [other for other in headers if other.lower() == name.lower()]:
        del headers[other]
    if text.strip():
        headers[name] = text


def _check_text(key: str, text: str) -> None:
    if match := CONTROL.search(text):
        raise Refusal("bad-option", f"{escape(key)}= holds the control character {escape(match[0])}")


def format_options(options: Options, all_of_them: bool = False) -> dict[str, str]:
    """`key: text` for what differs from the default, in the table's order (or for all)."""
    if options is DEFAULTS and not all_of_them:
        return {}
    texts = {
        key: rule.format(getattr(options, rule.field))
        for key, rule in RULES.items()
        if all_of_them or getattr(options, rule.field) != getattr(DEFAULTS, rule.field)
    }
    texts |= {f"env.{name}": value for name, value in options.env}
    return texts | {f"header.{name}": value for name, value in options.headers}


def show_options(options: Options, all_of_them: bool = False) -> dict[str, str]:
    """The same for those who ask: a secret is told to be there, and not what it is."""
    texts = format_options(options, all_of_them)
    return texts | {key: "***" for key in HIDDEN if texts.get(key)}


# --- tasks ------------------------------------------------------------------------------


@frozen
class TaskSpec:
    """A task's definition. `schedule` is shared between all tasks of the same text and zone."""

    name: str  # empty in a draft that has no name yet
    schedule: Schedule
    command: str
    options: Options = DEFAULTS
    unread: Unread | None = None  # set: this release cannot read the record, which is kept as it was
    moments: Moments = field(init=False, eq=False)  # when it is due; derived from the above

    @moments.default
    def _moments(self) -> Moments:
        options = self.options
        return make_moments(self.schedule, options.start_at, options.end_at, options.spread_s, self.name)

    @property
    def work(self) -> str:
        """What a worker must be able to do: the type, and of which handler it is the name too."""
        return f"custom:{self.command}" if self.options.type == "custom" else self.options.type

    @property
    def record(self) -> dict[str, Any]:
        """The definition as facts carry it; the id is told by the fact around it."""
        if self.unread is not None:
            return dict(self.unread.record)
        record = {"schedule": self.schedule.text, "command": self.command, "jobName": self.name}
        return record | format_options(self.options)


@frozen
class Unread:
    """A record that was accepted once, and why it would not be now."""

    record: dict[str, Any]
    why: str


def make_spec(name: str, schedule: str, command: str, options: Options, default_tz: str) -> TaskSpec:
    """A checked definition; raises Refusal naming what is wrong."""
    if name:
        check_name(name)
    check_command(command, options.type)
    _check_size(command, options)
    _check_type(options)
    parsed = parse_schedule(schedule, options.tz or default_tz)
    if options.tz and parsed.tz != options.tz:
        raise Refusal("bad-option", f"tz={options.tz} contradicts the schedule, which says {parsed.tz}")
    _check_bounds(options, parsed)
    return TaskSpec(name, parsed, command, options)


def _check_type(options: Options) -> None:
    if options is DEFAULTS:
        return
    check_options(
        options.type,
        [key for key, name in _OF_SOME_TYPES if getattr(options, name) != getattr(DEFAULTS, name)],
    )
    check_request(options.type, options.payload, options.body, [name for name, _ in options.headers])


_OF_SOME_TYPES = [(key, {"header.X": "headers", "env.X": "env"}.get(key, key)) for key in WHOSE]


def _check_bounds(options: Options, schedule: Schedule) -> None:
    given = [
        key for key in _BOUNDS if getattr(options, RULES[key].field) != getattr(DEFAULTS, RULES[key].field)
    ]
    if given and schedule.kind == "at":
        raise Refusal("bad-option", f"{given[0]}= is for what comes again, not for @at")
    if options.spread_s and schedule.kind in ("reboot", "after"):
        what = f"spread= is for moments of the clock, not for @{schedule.kind}; jitter= delays a start"
        raise Refusal("bad-option", what)
    if schedule.kind == "reboot" and options.after:
        raise Refusal("bad-option", "after= is not for @reboot; let it start with @after behind one that is")
    if schedule.kind == "after" and not options.after:
        raise Refusal("bad-schedule", "@after needs after=, the tasks that start it, as in after=a,b @after")
    if options.start_at and options.end_at and options.end_at < options.start_at:
        raise Refusal("bad-option", f"end={format_time(options.end_at)} is before start=")


_BOUNDS = ("start", "end", "count", "spread")


def _check_size(command: str, options: Options) -> None:
    # SET adds variables one line after the other; the whole must still go into one line of a file.
    texts = [command, options.desc, options.cwd, options.payload, options.body, options.secret]
    texts += [text for pair in options.env + options.headers for text in pair]
    if sum(len(text.encode()) for text in texts) > MAX_TEXT_BYTES:
        raise Refusal("too-long", f"the command and its options are longer than {MAX_TEXT_BYTES} bytes")


@define
class Task:
    """The engine's row about one task."""

    id: int
    spec: TaskSpec
    anchor_at: datetime  # when it was added, whole seconds; @every counts from here
    rev: int = 1
    due_at: datetime | None = None  # its next moment; None = no more, or not by the clock
    decided: int = 0  # of the moments that fall on due_at; a clock change may bring several to one
    heard: dict[str, str] = field(factory=dict)  # how its dependencies ended since its last fire, by name
    fired: int = 0  # runs of the schedule since count= was set; not counted without it
    paused: bool = False
    paused_until_at: datetime | None = None  # None while paused = until RESUME
    paused_why: str = ""
    runs: list[int] = field(factory=list)  # active runs, oldest first
    counts: dict[str, int] | None = None  # fires by disposition, since it was added
    run_head: str = ""  # the part of its RUN line that never changes; derived from spec

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def is_used_up(self) -> bool:
        """Whether count= lets no more fires come."""
        return 0 < self.spec.options.count <= self.fired

    def is_paused(self, at: datetime) -> bool:
        """Whether a moment at `at` starts nothing."""
        return self.paused and (self.paused_until_at is None or at < self.paused_until_at)


def task_record(task_id: int, spec: TaskSpec) -> dict[str, str | int]:
    """A task as tasks.db writes it: fixed key order, defaults left out, the id unless the name tells it."""
    record: dict[str, str | int] = spec.record
    if id_of_name(spec.name) == task_id:
        return record
    first = {key: record.pop(key) for key in ("schedule", "command", "jobName") if key in record}
    return first | {"id": task_id} | record


def read_record(record: dict[str, Any], default_tz: str) -> TaskSpec:
    """A definition from the journal, which is never refused: what cannot be read is kept, and never due.

    Zones leave the zone data, and rules grow stricter; a task of long ago must not keep
    all others from starting.
    """
    try:
        return parse_record(record, default_tz)[1]
    except Refusal as refusal:
        name, text, command = (str(record.get(key, "")) for key in ("jobName", "schedule", "command"))
        return TaskSpec(name, Unreadable.of(text), command, DEFAULTS, Unread(record, refusal.message))


def parse_record(record: object, default_tz: str) -> tuple[int | None, TaskSpec]:
    """A JSON object of tasks.db or `ADD {…}` as (id or None, definition).

    Raises Refusal (`bad-line`, or the code of the part that is wrong), naming the key.
    """
    if not isinstance(record, dict):
        raise Refusal("bad-line", "not a JSON object")
    words = dict(record)
    task_id = words.pop("id", None)
    if task_id is not None and (type(task_id) is not int or not 0 < task_id < 2**53):
        raise Refusal("bad-line", f'"id" is not a whole number above 0: {escape(str(task_id)[:40])}')
    name = _text(words, "jobName", "")
    schedule, command = _text(words, "schedule", None), _text(words, "command", None)
    texts = {key: _option_text(key, value) for key, value in words.items()}
    options = set_options(DEFAULTS, texts, named_zone(schedule) or default_tz)
    return task_id, make_spec(name, schedule, command, options, default_tz)


def _text(words: dict[str, Any], key: str, default: str | None) -> str:
    value = words.pop(key, default)
    if value is None:
        raise Refusal("bad-line", f'the key "{key}" is missing')
    if not isinstance(value, str):
        raise Refusal("bad-line", f'"{key}" is not a text')
    return value


def _option_text(key: str, value: object) -> str:
    if key not in RULES and key not in LATER and not key.startswith(("env.", "header.")):
        hint = ' (a task\'s name is "jobName" here)' if key == "name" else ""
        raise Refusal("bad-line", f'there is no key "{escape(key)}"{hint}')
    if isinstance(value, str):
        return value
    if key == "payload":
        return orjson.dumps(value).decode()
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ",".join(value)
    if type(value) in (int, float):
        return str(value)
    raise Refusal("bad-line", f'"{escape(key)}" is neither a text nor a number')


def parse_json(text: str | bytes, what: str) -> object:
    """One JSON value; Refusal (`bad-line`) with the decoder's reason and place otherwise."""
    line = text.encode() if isinstance(text, str) else text
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise Refusal("bad-line", f"{what} is not valid JSON: {error}") from None
    # The decoder lets the last of two equal keys win; a slip of the hand must not pass so quietly.
    if isinstance(value, dict) and line.count(b'":') + line.count(b'" ') > len(value):
        try:
            json.loads(line, object_pairs_hook=_refuse_duplicates)
        except RecursionError:
            raise Refusal("bad-line", f"{what} is JSON in JSON in JSON, too deep to be a task") from None
    return value


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> None:
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise Refusal("bad-line", f'the key "{escape(key)}" is given twice')


# --- runs and workers ---------------------------------------------------------------------


@define
class Run:
    """One execution of a task that has not ended yet."""

    id: int
    task_id: int
    spec: TaskSpec  # as it was when the run was queued
    due_at: datetime  # when the schedule asked for it; never moves on retry
    queued_at: datetime  # when this attempt began to wait for a worker
    by: str  # `schedule`, `manual`, `reboot`, `after`
    args: dict[str, str] | None = None  # of RUN REF arg.K=V
    target: str = ""  # with on=all: the one worker that this run is for
    nth: int = 1  # among the moments of its task that fell on due_at
    attempt: int = 1
    state: str = "queued"
    parked: bool = False  # waits for an earlier run of its task (overlap=), not for a worker
    awaits: bool = False  # waits for its task's dependencies
    delayed_until_at: datetime | None = None  # jitter=, or a retry's wait
    worker: str | None = None
    sent_at: datetime | None = None
    started_at: datetime | None = None
    lease_until_at: datetime | None = None  # then its worker is taken for gone; None while connected
    stopping: str = ""  # `cancelled` or `timeout` once a KILL is on its way
    output_bytes: int = 0  # journaled so far, of this attempt
    has_output: bool = False  # whether any attempt wrote something

    @property
    def on(self) -> str:
        """Which workers may take it, as on= says it."""
        return self.target or self.spec.options.on


@frozen
class Outcome:
    """One row of RUNS that will not change any more: an attempt's end, or fires that never ran."""

    seq: int  # of the journal record that says so
    run: int | None
    task_id: int
    name: str
    attempt: int | None
    state: str
    due_at: datetime
    started_at: datetime | None
    ended_at: datetime
    worker: str | None
    exit: int | None
    why: str = ""
    count: int = 1  # fires this row stands for
    first_due_at: datetime | None = None  # of them; None = due_at


@define
class Worker:
    """A worker that is, or was, connected."""

    name: str
    slots: int
    labels: dict[str, str]
    can: frozenset[str]
    address: str
    since_at: datetime
    connected: bool = True
    draining: bool = False  # by DRAIN; outlives its connection
    leaving: bool = False  # it said BYE
    runs: set[int] = field(factory=set)

    @property
    def free(self) -> int:
        return self.slots - len(self.runs) if self.takes_runs else 0

    @property
    def takes_runs(self) -> bool:
        return self.connected and not (self.draining or self.leaving)

    @property
    def state(self) -> str:
        if not self.connected:
            return "away"
        return "draining" if self.draining else "leaving" if self.leaving else "ready"
