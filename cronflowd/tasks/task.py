"""The nouns: what a task is, what a run is, what a worker is, and how a task is written down.

A `TaskSpec` is a definition and never changes; SET makes a new one. A `Task` is the
engine's table row about it, a `Run` one execution, made of one or more attempts.

Life of a run (MOVES has every legal move; `attempt` counts up on the way back):

    parked -> awaiting -> delayed -> queued -> sent -> running -> ok | failed | timeout | lost | cancelled
                             ^         ^         |
                             |         +---------+  its order never left
                             +---- failed | timeout | lost, with another attempt to follow

Each of the first four may be the one it begins in, and may end as cancelled, missed or skipped.
What a worker has may be `stopping` before it ends. Clients see less: see `Run.shown`.
"""

from __future__ import annotations

import json
import re
from collections.abc import MutableSequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import msgspec
import orjson
from attrs import evolve, field, frozen

from ..base.errors import Refusal, naming
from ..base.names import check_name, id_of_name
from ..base.nearest import meant
from ..base.text import escape, format_time
from ..schedules.schedule import Schedule, make_unreadable, parse_schedule, settle_schedule
from ..schedules.timetable import Moments, make_moments
from ..schedules.words import named_zone
from ..schedules.zones import EPOCH, load_zone, parse_time
from .kinds import INSIDE, WHOSE, check_command, check_options, check_request, refuse_duplicates
from .options import DEFAULTS, ELSEWHERE, RULES, Options, format_options, set_options
from .reasons import Reason, reason

# Command and all options of any length together; bounds tasks.db's lines and RUN lines.
MAX_TEXT_BYTES = 65_536
MAX_PARKED_RUNS = 1000  # per task with overlap=queue

ENDED = frozenset({"ok", "failed", "timeout", "cancelled", "lost", "skipped", "missed"})
UNDER_WAY = ("queued", "sent", "running")  # those of a run that has not ended, as clients see it
WAITING = frozenset({"parked", "awaiting", "delayed", "queued"})
HELD = frozenset({"sent", "running", "stopping"})  # a worker has it
BY_HAND = frozenset({"manual", "flow"})  # whatever its schedule and its bounds say, and not counted by count=
_UNUSED, _RAN = {"cancelled", "missed", "skipped"}, {"ok", "failed", "timeout", "cancelled", "lost"}
# Every move a run may make, asserted by `Run.move`.
MOVES = {
    "new": WAITING | {"sent"},
    "parked": {"awaiting", "delayed", "queued"} | _UNUSED,  # overlap=: an earlier run of its task is to end
    "awaiting": {"delayed", "queued"} | _UNUSED,  # after=: its task's dependencies are to end
    "delayed": {"queued"} | _UNUSED,  # jitter=, or a retry: its time is to come
    "queued": {"sent"} | _UNUSED,  # a worker is to take it
    "sent": {"running", "stopping", "queued"} | _RAN,
    "running": {"stopping"} | _RAN,
    "stopping": _RAN,  # a KILL is on its way
    **{end: {"delayed"} for end in ("failed", "timeout", "lost")},
}


# --- tasks ------------------------------------------------------------------------------


@frozen
class Pause:
    """That a task is paused, as a file of tasks tells it beside the definition."""

    until_at: datetime | None = None
    why: str = ""
    is_on: bool = True  # False: it is said that there is none

    def is_over(self, at: datetime) -> bool:
        return self.until_at is not None and self.until_at <= at

    @property
    def record(self) -> dict[str, str]:
        """The inverse of `_take_pause`."""
        if not self.is_on:
            return {"paused": "no"}
        until = {"paused-until": format_time(self.until_at)} if self.until_at else {}
        return {"paused": "yes"} | until | ({"paused-why": self.why} if self.why else {})


@frozen
class TaskSpec:
    """A task's definition. `schedule` is shared between all tasks of the same text and zone."""

    name: str  # empty in a draft that has no name yet
    schedule: Schedule
    command: str
    options: Options = DEFAULTS
    unread: Unread | None = None  # set: this release cannot read the record, which is kept as it was
    pause: Pause | None = field(default=None, eq=False)  # on the way from a file, or into one
    # Derived from the above: when it is due; and what a worker must be able to do, that is the type,
    # with its input, or of which handler it is the name; and before that, whom it may run as.
    moments: Moments = field(init=False, eq=False)
    work: str = field(init=False, eq=False)

    @moments.default
    def _moments(self) -> Moments:
        options = self.options
        if options is DEFAULTS:
            return self.schedule
        return make_moments(self.schedule, options.start_at, options.end_at, options.spread_s, self.name)

    @work.default
    def _work(self) -> str:
        options = self.options
        work = options.type
        if options is DEFAULTS:
            return work
        if options.stdin:
            work += "+stdin"
        elif work == "custom":
            work += f":{self.command.strip()}"
        return f"{options.user}@{work}" if options.user else work

    def wants(self, by: str) -> tuple[str, ...]:
        """The secrets that its order holds. What is told to somebody is no definition: its URL alone is."""
        return tuple(INSIDE.findall(self.command)) if by == "notice" else self.options.wants

    @property
    def size(self) -> int:
        """Characters of its texts: of what can make its record long."""
        return (
            len(self.command)
            if self.options is DEFAULTS
            else sum(map(len, _texts(self.command, self.options)))
        )

    @property
    def bare(self) -> TaskSpec:
        """The definition alone."""
        return evolve(self, pause=None) if self.pause else self

    @property
    def record(self) -> dict[str, Any]:
        """The definition as facts carry it; the id is told by the fact around it."""
        if self.unread is not None:
            return dict(self.unread.record)
        record = {"schedule": self.schedule.text, "command": self.command, "jobName": self.name}
        return record if self.options is DEFAULTS else record | format_options(self.options)


def tell_work(work: str) -> str:
    """What a worker must be able to do, for people."""
    user, _, kind = work.rpartition("@")
    return f"{kind} as {user}" if user else kind


@frozen
class Unread:
    """A record that was accepted once, and why it would not be now. Nothing ever runs by it."""

    record: dict[str, Any]
    why: str

    @property
    def reason(self) -> Reason:
        """Why what would start by it does not."""
        return reason("unreadable", text=self.why)


def make_spec(name: str, schedule: str, command: str, options: Options, default_tz: str) -> TaskSpec:
    """A checked definition; raises Refusal naming what is wrong."""
    if name:
        check_name(name)
    check_command(command, options.type)
    _check_size(command, options)
    if options is not DEFAULTS:
        _check_type(options)
    try:
        parsed = parse_schedule(schedule, options.tz or default_tz)
    except Refusal as refusal:
        refusal.option = refusal.option or "schedule"
        raise
    if options.tz and parsed.tz != options.tz:
        raise Refusal("bad-option", f"tz={options.tz} contradicts the schedule, which says {parsed.tz}", "tz")
    _check_bounds(options, parsed)
    return TaskSpec(name, parsed, command, options)


def _check_type(options: Options) -> None:
    given = []
    for key, name in _OF_SOME_TYPES:
        if (value := getattr(options, name)) != getattr(DEFAULTS, name):
            given.append(key[:-1] + value[0][0] if key.endswith(".X") else key)
    check_options(options.type, given)
    check_request(options.type, options.payload, options.body, [name for name, _ in options.headers])


_OF_SOME_TYPES = [(key, {"header.X": "headers", "env.X": "env"}.get(key, key)) for key in WHOSE]


def _check_bounds(options: Options, schedule: Schedule) -> None:
    given = options is not DEFAULTS and [
        key for key in _BOUNDS if getattr(options, RULES[key].field) != getattr(DEFAULTS, RULES[key].field)
    ]
    if given and schedule.kind == "at":
        raise Refusal("bad-option", f"{given[0]}= is for what comes again, not for @at", given[0])
    if options.spread_s and schedule.kind in ("reboot", "after", "on"):
        what = f"spread= is for moments of the clock, not for @{schedule.kind}; jitter= delays a start"
        raise Refusal("bad-option", what, "spread")
    if schedule.kind == "reboot" and options.after:
        raise Refusal(
            "bad-option", "after= is not for @reboot; let it start with @after behind one that is", "after"
        )
    if schedule.kind == "after" and not options.after:
        raise Refusal(
            "bad-schedule", "@after needs after=, the tasks that start it, as in after=a,b @after", "after"
        )
    if options.start_at and options.end_at and options.end_at < options.start_at:
        raise Refusal("bad-option", f"end={format_time(options.end_at)} is before start=", "end")


_BOUNDS = ("start", "end", "count", "spread")


def _check_size(command: str, options: Options) -> None:
    if options is DEFAULTS and len(command) <= MAX_TEXT_BYTES // 4:
        return
    # SET adds variables one line after the other; the whole must still go into one line of a file.
    if sum(len(text.encode()) for text in _texts(command, options)) > MAX_TEXT_BYTES:
        raise Refusal("too-long", f"the command and its options are longer than {MAX_TEXT_BYTES} bytes")


def _texts(command: str, options: Options) -> list[str]:
    """Those of any length."""
    texts = [command, options.title, options.desc, options.cwd, options.payload, options.body]
    texts += [options.secret, options.stdin, options.meta]
    return texts + [text for pair in options.env + options.headers for text in pair]


@frozen
class Failure:
    """A task's last fire that ended badly, with no good one since."""

    since_at: datetime  # when the first of those fires ended
    run: int | None  # None = it never ran
    state: str
    due_at: datetime
    ended_at: datetime
    exit: int | None
    why: Reason


class Standing(msgspec.Struct, kw_only=True, gc=False):
    """How a task is besides its definition: what comes back with one that was removed."""

    paused: bool = False
    paused_until_at: datetime | None = None  # None while paused = until RESUME
    paused_why: str = ""
    counts: dict[str, int] | None = None  # fires by disposition, since it was added
    fired: int = 0  # runs of the schedule since count= was set; not counted without it
    heard: dict[str, Reason] | None = None  # how its dependencies ended since its last fire, by name, if any
    failure: Failure | None = None  # how its last fire ended, if that was not well
    last_state: str = ""  # how its last run ended; empty = none has
    last_ended_at: datetime | None = None


class Task(Standing, gc=False):
    """The engine's row about one task."""

    id: int
    spec: TaskSpec
    anchor_at: datetime  # when it was added, whole seconds; @every counts from here
    rev: int = 1
    due_at: datetime | None = None  # its next moment; None = no more, or not by the clock
    decided: int = 0  # of the moments that fall on due_at; a clock change may bring several to one
    runs: MutableSequence[int] | tuple[()] = ()  # active runs, oldest first; most tasks have none
    held: int = 0  # of them, those that a worker has got
    changed_at: datetime | None = None  # when it became this revision; None = not known, or as it was added
    is_notice: bool = False  # made by the daemon to tell somebody something; see notices.py
    run_head: str = ""  # the part of its RUN line that never changes; derived from spec

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def is_used_up(self) -> bool:
        """Whether count= lets no more fires come."""
        return 0 < self.spec.options.count <= self.fired

    @property
    def as_saved(self) -> TaskSpec:
        """The definition, and its pause, as a file of tasks holds both."""
        if not self.paused:
            return self.spec
        return evolve(self.spec, pause=Pause(self.paused_until_at, self.paused_why))

    def is_paused(self, at: datetime) -> bool:
        """Whether a moment at `at` starts nothing."""
        return self.paused and (self.paused_until_at is None or at < self.paused_until_at)


def task_record(task_id: int, definition: TaskSpec | dict[str, Any]) -> dict[str, str | int]:
    """A task as tasks.db writes it: fixed key order, defaults left out, the id unless the name tells it.

    What was not read yet is there as its record.
    """
    if isinstance(definition, TaskSpec):
        name, pause = definition.name, definition.pause
        record: dict[str, str | int] = definition.record | (pause.record if pause else {})
    else:
        name, record = definition["jobName"], definition
    if id_of_name(name) == task_id:
        return record
    first = {key: record.pop(key) for key in ("schedule", "command", "jobName") if key in record}
    return first | {"id": task_id} | record


def read_record(record: dict[str, Any], default_tz: str) -> TaskSpec:
    """A definition from the journal, which is never refused: what cannot be read is kept, and never runs.

    Zones leave the zone data, and rules grow stricter; a task of long ago must not keep
    all others from starting. What of it can be read still counts: when it would be due, and
    whom to tell that it is not; how long a run may take that a worker has already.
    """
    try:
        return parse_record(record, default_tz)[1]
    except Refusal as refusal:
        name, text, command = (str(record.get(key, "")) for key in RECORD_TEXTS)
        options = _readable_options(record, default_tz)
        schedule = make_unreadable(text)
        with suppress(Refusal):
            parsed = parse_schedule(text, options.tz or default_tz)
            # In another zone it would be due at other moments, which are worse than none.
            if options.tz == record.get("tz", "") or not parsed.is_zoned:
                schedule = parsed
        pause, rest = None, dict(record)
        with suppress(Refusal):
            pause = _take_pause(rest)
        return TaskSpec(name, schedule, command, options, Unread(rest, refusal.message), pause)


def read_today(spec: TaskSpec, default_tz: str) -> TaskSpec:
    """The same definition by the zone data of today; it may have been read before they came."""
    try:
        is_todays = load_zone(spec.schedule.tz) is spec.schedule.zone
    except Refusal:
        is_todays = False
    return spec if is_todays else read_record(spec.record, default_tz)


RECORD_TEXTS = ("jobName", "schedule", "command")
MAX_ID = 2**53 - 1  # what every reader of JSON takes for the number that it is


def _readable_options(record: dict[str, Any], default_tz: str) -> Options:
    options = DEFAULTS
    for key, value in record.items():
        if key not in RECORD_TEXTS:
            with suppress(Refusal):
                options = set_options(options, {key: _option_text(key, value)}, default_tz)
    return options


def parse_record(record: object, default_tz: str, now: datetime | None = None) -> tuple[int | None, TaskSpec]:
    """A JSON object of tasks.db or `ADD {…}` as (id or None, definition).

    Without `now`, as for a file that may be read again later, what counts from now is refused.
    Raises Refusal (`bad-line`, or the code of the part that is wrong), naming the key.
    """
    if not isinstance(record, dict):
        raise Refusal("bad-line", "not a JSON object")
    words = dict(record)
    task_id = words.pop("id", None)
    if task_id is not None and (type(task_id) is not int or not 0 < task_id <= MAX_ID):
        shown = escape(str(task_id)[:40])
        raise Refusal("bad-line", f'"id" is not a whole number from 1 to {MAX_ID}: {shown}', "id")
    pause = _take_pause(words) if not words.keys().isdisjoint(PAUSE_KEYS) else None
    # What is missing may be there under a name of its own.
    texts = {key: _option_text(key, value) for key, value in words.items() if key not in RECORD_TEXTS}
    name = _text(words, "jobName", "")
    schedule, command = _text(words, "schedule", None), _text(words, "command", None)
    if now:
        schedule = settle_schedule(schedule, texts.get("tz") or default_tz, now)
    options = set_options(DEFAULTS, texts, named_zone(schedule) or default_tz, now)
    spec = make_spec(name, schedule, command, options, default_tz)
    return task_id, evolve(spec, pause=pause) if pause else spec


PAUSE_KEYS = ("paused", "paused-until", "paused-why")
MAX_WHY_BYTES = 8192  # of a pause; it stands in one line of tasks.db with all that the task says


def _take_pause(words: dict[str, Any]) -> Pause | None:
    """Takes out what a record says of a pause; the reason or the time alone says that there is one."""
    given = str(words.pop("paused", ""))
    word = _PAUSE_WORDS.get(given.lower())
    if word is None:
        raise Refusal("bad-line", f'"paused" is neither yes nor no: {escape(given[:40])}', "paused")
    until, why = (_plain_text(key, words.pop(key, "")) for key in PAUSE_KEYS[1:])
    if word == "no":
        return Pause(is_on=False)
    with naming('"paused-until"', "bad-line", "paused-until"):
        until_at = parse_time(until, "UTC", EPOCH) if until else None
    return Pause(until_at, check_why(why)) if word or until or why else None


_PAUSE_WORDS = {"": "", "yes": "yes", "true": "yes", "1": "yes", "no": "no", "false": "no", "0": "no"}


def check_why(why: str) -> str:
    """Why something is paused, in people's words; raises Refusal where that is too long."""
    if len(why.encode()) > MAX_WHY_BYTES:
        raise Refusal("too-long", f"why a task is paused is said in more than {MAX_WHY_BYTES} bytes")
    return why


def _text(words: dict[str, Any], key: str, default: str | None) -> str:
    value = words.pop(key, default)
    if value is None:
        raise Refusal("bad-line", f'the key "{key}" is missing', key)
    if not isinstance(value, str):
        raise Refusal("bad-line", f'"{key}" is not a text', key)
    return value


def _option_text(key: str, value: object) -> str:
    if key not in RULES and not key.startswith(("env.", "header.")):
        also = {
            "jobName": "name job task",
            "schedule": "cron crontab when cronexpression",
            "command": "cmd run exec shell url",
        }
        also |= {word: rule.also for word, rule in RULES.items()}
        hint = meant(key, list(also), also) or (f"; {ELSEWHERE[key]}" if key in ELSEWHERE else "")
        raise Refusal("bad-line", f'there is no key "{escape(key[:80])}"{hint}', key)
    if isinstance(value, str):
        return value
    if key in ("payload", "meta"):
        return orjson.dumps(value).decode()
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ",".join(value)
    return _plain_text(key, value)


def _plain_text(key: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if type(value) in (int, float):
        return str(value)
    raise Refusal("bad-line", f'"{escape(key)}" is neither a text nor a number', key)


def parse_json(text: str | bytes, what: str) -> object:
    """One JSON value; Refusal (`bad-line`) with the decoder's reason and place otherwise."""
    line = text.encode() if isinstance(text, str) else text
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        hint = (
            '; quotes are " there' if re.match(r"[ \t]*\{[ \t]*['“”]", line.decode(errors="replace")) else ""
        )
        raise Refusal("bad-line", f"{what} is not valid JSON: {error}{hint}") from None
    # The decoder lets the last of two equal keys win; a slip of the hand must not pass so quietly.
    is_doubtful = line.count(b'"header.') > 1  # whose names are the same in any case
    if isinstance(value, dict) and (is_doubtful or line.count(b'":') + line.count(b'" ') > len(value)):
        _read_again(line, what, object_pairs_hook=refuse_duplicates("bad-line"))
    # Where a number stands for a text, it is the text that was written: no program's version 1.10 is 1.1.
    if isinstance(value, dict) and float in map(type, value.values()):
        written = _read_again(line, what, parse_float=str, parse_int=str)
        own = ("id", *RECORD_TEXTS)
        value |= {key: written[key] for key, each in value.items() if type(each) is float and key not in own}
    return value


def _read_again(line: bytes, what: str, **hooks: Any) -> Any:
    """With what the faster decoder does not tell."""
    try:
        return json.loads(line, **hooks)
    except RecursionError:
        raise Refusal("bad-line", f"{what} is JSON in JSON in JSON, too deep to be a task") from None


# --- runs and workers ---------------------------------------------------------------------


class RunRow(msgspec.Struct, kw_only=True, gc=False):
    """What a checkpoint tells of a run as it stands in the table."""

    due_at: datetime  # when the schedule asked for it; never moves on retry
    queued_at: datetime  # when this attempt began to wait for a worker
    by: str  # `schedule`, `manual`, `reboot`, `after`, `on`, `flow`, `notice`
    args: dict[str, str] | None = None  # of RUN REF arg.K=V, or of EMIT
    who: str | None = None  # said RUN, NOW or EMIT
    fire: int = 0  # the first run of the fire that this one belongs to; with on=all there are several
    target: str = ""  # with on=all: the one worker that this run is for
    blame: Reason = ""  # with on=all: how another run of the same fire failed
    nth: int = 1  # among the moments of its task that fell on due_at
    attempt: int = 1
    unsent: int = 0  # attempts before this one whose order never left; retry= does not count them
    delayed_until_at: datetime | None = None  # jitter=, or a retry's wait
    worker: str | None = None
    instance: str = ""  # of the worker's memory that its order went to
    sent_at: datetime | None = None
    started_at: datetime | None = None
    lease_until_at: datetime | None = None  # then its worker is taken for gone; None while connected
    output_bytes: int = 0  # journaled so far, of this attempt
    held: str = ""  # sealed: what of its output may be the beginning of a secret that it was given
    flow: int = 0  # the run of its flow that it belongs to


class Run(RunRow, gc=False):
    """One execution of a task that has not ended yet.

    What is measured (`queued_at`, `delayed_until_at`, `sent_at`, `started_at`, `lease_until_at`) is told by a
    clock that was never set; `Tables.shown` is how the clock on the wall has it.
    """

    id: int
    task_id: int
    spec: TaskSpec  # as it was when the run was queued
    state: str = "new"  # of MOVES
    lease_renewed: bool = False  # a start of the daemon has prolonged this lease; the next one will not
    ends_as: str = ""  # while stopping: `cancelled` or `timeout`
    has_output: bool = False  # whether any attempt wrote something
    given: tuple[tuple[str, str], ...] = ()  # (name, sealed) of each secret that its orders held

    @property
    def on(self) -> str:
        """Which workers may take it, as on= says it."""
        return self.target or self.spec.options.on

    @property
    def shown(self) -> str:
        """The state as clients see it: `queued`, `sent` or `running`; WHY tells the rest."""
        if self.state == "stopping":
            return "running" if self.started_at else "sent"
        return "queued" if self.state in WAITING else self.state

    def move(self, state: str) -> None:
        """The next state; only apply says so."""
        assert state in MOVES[self.state], (self.id, self.state, state)
        self.state = state


class Outcome(msgspec.Struct, frozen=True, gc=False):
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
    why: Reason = ""
    cause: Reason = ""  # who asked for it; empty where nobody did
    count: int = 1  # fires this row stands for
    first_due_at: datetime | None = None  # of them; None = due_at
    flow: int = 0  # the run of a flow that it belongs to


class WorkerRow(msgspec.Struct, kw_only=True):
    """What a checkpoint tells of a worker as it stands in the table."""

    name: str
    slots: int
    labels: dict[str, str]
    address: str
    since_at: datetime
    connected: bool = True
    draining: bool = False  # by DRAIN; outlives its connection
    leaving: bool = False  # it said BYE
    instance: str = ""  # of its memory of what it took; empty = it does not say
    connection: int = 0  # the number of the connection that it is, or was, reached by


class Worker(WorkerRow, kw_only=True):
    """A worker that is, or was, connected."""

    can: frozenset[str]
    runs: set[int] = msgspec.field(default_factory=set)
    # (run, attempt): named in its HELLO and its own no more, such as one that was given up. They go on there
    # until it tells their end; no fact, since it names them anew whenever it comes.
    beside: set[tuple[int, int]] = msgspec.field(default_factory=set)

    @property
    def busy(self) -> int:
        return len(self.runs) + len(self.beside)

    @property
    def free(self) -> int:
        if not self.takes_runs:
            return 0
        free = self.slots - len(self.runs)
        return free - len(self.beside) if self.beside else free

    @property
    def takes_runs(self) -> bool:
        return self.connected and not (self.draining or self.leaving)

    @property
    def state(self) -> str:
        if not self.connected:
            return "away"
        return "draining" if self.draining else "leaving" if self.leaving else "ready"
