"""A job as JSON tells it: its fields, which options of the daemon's they are, and how they are read from GET.

What names cannot say stands in `title=`: "Send Weekly Report" is the name that people give, and
`send-weekly-report` the one by which the daemon knows the job.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from ..base.errors import Refusal
from ..schedules.zones import parse_duration
from ..tasks.options import COMMON, format_options, parse_retry
from ..tasks.options import DEFAULTS as NO_OPTIONS
from .line import Row

MAX_RETRIES = 1000

Type = Literal["shell", "script", "http", "webhook", "email", "custom", "echo", "sleep", "calculate"]
Status = Literal["active", "paused", "idle", "completed", "unreadable"]
ScheduleType = Literal["immediate", "scheduled", "recurring"]
Priority = Literal["HIGH", "MEDIUM", "LOW"]
Count = Annotated[int, Meta(ge=0, le=MAX_RETRIES)]
Span = Annotated[int, Meta(ge=0, le=366 * 86_400_000)]
Millis = Annotated[int, Meta(ge=0, le=30 * 86_400_000)]


class RetryPolicy(Struct, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """After a failed attempt. EXPONENTIAL multiplies the delay by `factor` each time, up to `maxDelayMs`."""

    type: Literal["FIXED", "EXPONENTIAL", "NONE"]
    max_retries: Count | UnsetType = UNSET
    delay_ms: Millis | UnsetType = UNSET
    max_delay_ms: Millis | UnsetType = UNSET
    factor: Annotated[float, Meta(ge=1, le=999)] | UnsetType = UNSET
    jitter_percent: Annotated[int, Meta(ge=0, le=100)] | UnsetType = UNSET


class LastRun(Struct, rename="camel"):
    """How and when its last run ended."""

    status: str
    ended_at: str | None


class Job(Struct, rename="camel"):
    """A job, every field."""

    id: int
    job_name: str
    name: str
    description: str | None
    tags: list[str]
    enabled: bool
    status: Status
    state: str
    type: str
    schedule_type: ScheduleType
    schedule: str
    cron_expression: str | None
    scheduled_at: str | None
    timezone: str
    means: str | None
    payload: dict[str, Any]
    command: str
    priority: Priority
    dependencies: list[str]
    retry_policy: RetryPolicy
    max_retries: int
    timeout: int | None
    overlap: str
    catchup: str
    grace: int
    on_worker: str
    notify: str | None
    skip: list[str]
    start_at: str | None
    end_at: str | None
    count: int | None
    spread: int
    jitter: int
    lost: str
    keep: str
    metadata: dict[str, Any]
    owner: str | None
    rev: int
    next_run_at: str | None
    last_run: LastRun | None
    created_at: str | None
    updated_at: str | None
    note: str | None


# --- fields and options ------------------------------------------------------------------------------


def duration(ms: int) -> str:
    return f"{ms}ms" if ms % 1000 else f"{ms // 1000}s"


def _ms(text: str) -> int:
    """A duration as milliseconds; 0 for what is none, as it may stand in a record that cannot be read."""
    with suppress(Refusal):
        return round(parse_duration(text) * 1000)
    return 0


def _split(text: str) -> list[str]:
    return text.split(",") if text else []


def _or_none(text: str) -> str | None:
    return text or None


def as_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


# Fields that are one option each: its name, what makes the option's text, and what reads that again.
PLAIN: tuple[tuple[str, str, Any, Any], ...] = (
    ("description", "desc", str, _or_none),
    ("tags", "tags", ",".join, _split),
    ("timezone", "tz", str, str),
    ("priority", "prio", str.lower, str.upper),
    ("dependencies", "after", lambda refs: ",".join(map(str, refs)), _split),
    ("timeout", "timeout", lambda ms: duration(ms) if ms else "none", lambda text: _ms(text) or None),
    ("overlap", "overlap", str, str),
    ("catchup", "catchup", str, str),
    ("grace", "grace", duration, _ms),
    ("on_worker", "on", str, str),
    ("notify", "notify", str, _or_none),
    ("skip", "skip", ",".join, _split),
    ("start_at", "start", str, _or_none),
    ("end_at", "end", str, _or_none),
    ("count", "count", str, lambda text: int(text) if text.isdecimal() else None),
    ("spread", "spread", duration, _ms),
    ("jitter", "jitter", duration, _ms),
    ("lost", "lost", str, str),
    ("keep", "keep", str, str),
    (
        "metadata",
        "meta",
        lambda value: as_json(value) if value else "",
        lambda text: _decoded(text or "{}", {}),
    ),
    ("owner", "owner", str, _or_none),
)
DEFAULTS = format_options(NO_OPTIONS, COMMON)  # as GET tells them


# The fields of each type's payload; `timeout` may stand in all of them.
PAYLOADS: dict[str, tuple[str, ...]] = {
    "shell": ("command", "cwd", "env", "stdin", "user"),
    "script": ("command", "args", "cwd", "env", "stdin", "user"),
    "http": ("url", "method", "headers", "body", "expect"),
    "webhook": ("url", "data", "secret", "headers", "expect"),
    "email": ("to", "subject", "text", "html", "secret"),
    "custom": ("handler", "data", "cwd", "env", "user"),
    "echo": ("command", "cwd", "env"), "sleep": ("command", "cwd", "env"), "calculate": ("command",),
}  # fmt: skip
TEXTS = ("expect", "secret", "stdin", "user", "cwd")  # options that are fields of the same name


# --- to JSON ----------------------------------------------------------------------------------------


def to_job(rows: Iterable[Row]) -> Job:
    """A job, of the rows of GET."""
    pairs: dict[str, Any] = {row["key"]: row["value"] for row in rows}
    texts = DEFAULTS | {key: "" if value is None else str(value) for key, value in pairs.items()}
    plain: dict[str, Any] = {field: read(texts[key]) for field, key, _, read in PLAIN}
    schedule, is_paused = texts["schedule"], texts.get("paused", "no") != "no"
    is_once = schedule.startswith("@at ")
    retry = _retry_of(texts["retry"])
    last = texts.get("last-state")
    return Job(
        id=pairs["id"],
        job_name=texts["jobName"],
        name=texts["title"] or texts["jobName"],
        enabled=not is_paused,
        status=_status(texts, is_paused),
        state=texts.get("state") or "ended",
        type=texts["type"],
        schedule_type=_schedule_type(schedule, texts.get("added", "")),
        schedule=schedule,
        cron_expression=None if is_once else schedule,
        scheduled_at=schedule.removeprefix("@at ") if is_once else None,
        means=texts.get("means") or None,
        payload=_payload_of(texts),
        command=texts["command"],
        retry_policy=retry,
        max_retries=retry.max_retries if isinstance(retry.max_retries, int) else 0,
        rev=pairs["rev"],
        next_run_at=texts.get("next") or None,
        last_run=LastRun(last, pairs.get("last-ended")) if last else None,
        created_at=texts.get("added") or texts.get("changed") or None,
        updated_at=texts.get("updated") or texts.get("changed") or None,
        note=texts.get("note") or None,
        **plain | {"timezone": texts.get("zone") or texts["tz"]},
    )


def to_ended_job(run: Row, words: Mapping[str, Any]) -> Job:
    """What was to run once and has: the daemon keeps its run alone; `words` is what was said of it."""
    told = {"command": "", "rev": 1, **words, "id": run["id"], "jobName": run["jobName"]}
    told |= {"schedule": f"@at {run['due']}", "last-state": run["state"], "last-ended": run["ended"]}
    return to_job({"key": key, "value": value} for key, value in told.items())


def _schedule_type(schedule: str, added: str) -> Literal["immediate", "scheduled", "recurring"]:
    """What was to run at once has the moment at which it was added, which is told to the second."""
    if not schedule.startswith("@at "):
        return "recurring"
    return "immediate" if added and schedule[4:23] == added[:19] else "scheduled"


def _status(texts: Mapping[str, str], is_paused: bool) -> Any:
    state = texts.get("state", "")
    if state in ("", "unreadable"):
        return state or "completed"
    return "paused" if is_paused or state == "paused" else "idle" if state == "idle" else "active"


def _retry_of(text: str) -> RetryPolicy:
    try:
        times = parse_retry(text).times
    except Refusal:  # of a record that cannot be read
        times = 0
    if not times:
        return RetryPolicy("NONE", 0)
    kind, _, *parts = text.split(":")
    policy = RetryPolicy("FIXED" if kind == "fixed" else "EXPONENTIAL", times, _ms(parts[0]))
    for part in parts[1:]:
        if part.startswith("x"):
            policy.factor = float(part[1:])
        elif part.startswith("~"):
            policy.jitter_percent = int(part[1:-1])
        else:
            policy.max_delay_ms = _ms(part)
    return policy


def parts_of(kind: str, command: str) -> dict[str, Any]:
    """What stands in a command, by the fields of its type."""
    found: dict[str, Any] = {PAYLOADS.get(kind, ("command",))[0]: command}
    if kind == "http":
        method, _, url = command.strip().partition(" ")
        found = {"url": url.strip(), "method": method}
    elif kind == "script":
        try:
            program, *args = shlex.split(command)
            found = {"command": program, "args": args}
        except ValueError:
            pass
    elif kind == "email":
        addresses = [each.strip() for each in command.split(",")]
        found = {"to": addresses if addresses[1:] else addresses[0]}
    return found


def _payload_of(texts: Mapping[str, str]) -> dict[str, Any]:
    """What a job does, by the fields of its type."""
    kind = texts["type"]
    fields, found = PAYLOADS.get(kind, ("command",)), parts_of(kind, texts["command"])
    for field, prefix in (("headers", "header."), ("env", "env.")):
        pairs = {key.removeprefix(prefix): text for key, text in texts.items() if key.startswith(prefix)}
        if pairs:
            found[field] = pairs
    found |= _data_of(kind, texts)
    own = (key for key in TEXTS if key in fields)
    return found | {key: texts[key] for key in own if texts[key] != DEFAULTS[key]}


def _decoded(text: str, otherwise: Any) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return otherwise


def _data_of(kind: str, texts: Mapping[str, str]) -> dict[str, Any]:
    data = texts["payload"]
    if not data:
        return {"body": texts["body"]} if kind == "http" and texts["body"] else {}
    value = _decoded(data, data)  # a secret may take its place
    if kind == "email":
        return value if isinstance(value, dict) else {"text": value}
    return {"body" if kind == "http" else "data": value}
