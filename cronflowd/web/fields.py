"""What may be said of a job in JSON, and the record or the words that the daemon takes for it.

The daemon decides what is right. Here it is only said which field of the request its refusal is about:
`bad-schedule` is about `cronExpression`, if that is what was sent.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import shlex
import unicodedata
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from ..base.errors import Refusal
from ..base.names import NAME
from ..base.nearest import meant
from ..schedules.schedule import comes_once
from ..tasks.kinds import WHOSE, rule_of
from ..tasks.options import MASK
from .bodies import explain
from .job import (
    PAYLOADS,
    PLAIN,
    TEXTS,
    Count,
    Job,
    Millis,
    Priority,
    RetryPolicy,
    ScheduleType,
    Span,
    Status,
    Type,
    as_json,
    duration,
    parts_of,
)

DEFAULT_BACKOFF = "5s:x5"  # of maxRetries by itself: 5 s, 25 s, 125 s
FIXED_DELAY_MS = 1000

Text = str | None | UnsetType
Ref = Annotated[int, Meta(ge=1)] | str


class Wrong(Refusal):
    """A refusal, with the field of the request that it is about, if that is known."""

    def __init__(self, code: str, message: str, field: str | None) -> None:
        super().__init__(code, message)
        self.field = field


class JobBody(Struct, rename="camel", forbid_unknown_fields=True):
    """What may be said of a job. What is left out has its default, or stays as it is.

    null is the default; of what can have none it says nothing.
    """

    name: Text = UNSET
    description: Text = UNSET
    tags: list[str] | UnsetType | None = UNSET
    enabled: bool | UnsetType | None = UNSET
    type: Type | UnsetType | None = UNSET
    schedule_type: ScheduleType | UnsetType | None = UNSET
    cron_expression: Text = UNSET
    schedule: Text = UNSET
    timezone: Text = UNSET
    scheduled_at: Text = UNSET
    payload: dict[str, Any] | UnsetType | None = UNSET
    command: Text = UNSET
    priority: Priority | UnsetType | None = UNSET
    dependencies: list[Ref] | UnsetType | None = UNSET
    retry_policy: RetryPolicy | UnsetType | None = UNSET
    max_retries: Count | UnsetType | None = UNSET
    timeout: Millis | UnsetType | None = UNSET
    overlap: Text = UNSET
    catchup: Text = UNSET
    grace: Millis | UnsetType | None = UNSET
    on_worker: Text = UNSET
    notify: Text = UNSET
    skip: list[str] | UnsetType | None = UNSET
    start_at: Text = UNSET
    end_at: Text = UNSET
    count: Annotated[int, Meta(ge=1)] | UnsetType | None = UNSET
    spread: Span | UnsetType | None = UNSET
    jitter: Span | UnsetType | None = UNSET
    lost: Text = UNSET
    keep: Text = UNSET
    metadata: dict[str, Any] | UnsetType | None = UNSET
    owner: Text = UNSET
    template: Text = UNSET
    status: Status | UnsetType | None = UNSET  # `paused` and `active` pause and resume it, as `enabled` does
    # What a job tells of itself; it may be sent back, and says nothing then.
    id: Ref | UnsetType | None = UNSET
    job_name: Text = UNSET
    rev: Any = UNSET
    state: Any = UNSET
    means: Any = UNSET
    next_run_at: Any = UNSET
    last_run: Any = UNSET
    created_at: Any = UNSET
    updated_at: Any = UNSET
    note: Any = UNSET

    @property
    def wanted(self) -> set[bool]:
        """Whether it is to start runs, by each field that says so."""
        said = (self.enabled, {"active": True, "paused": False}.get(str(self.status)))
        return {each for each in said if isinstance(each, bool)}


# --- from JSON --------------------------------------------------------------------------------------


def to_body(said: Mapping[str, Any]) -> JobBody:
    """What a dictionary says of a job. Raises Wrong."""
    try:
        return msgspec.convert(said, JobBody)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$.")
        raise Wrong("bad-option", *explain(JobBody, text, path.rstrip("`") or None)) from None


class Words(dict[str, Any]):
    """What the daemon is told, by its own names; and which field each was said by."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}

    def say(self, key: str, value: Any, field: str) -> None:
        self[key], self.fields[key] = value, field


def to_words(body: JobBody, old: Job | None = None) -> Words:
    """What is said of a job, as option words, and `schedule`, `command` and `jobName` among them.

    `old` is the job as it was, of which only some is changed. Raises Wrong.
    """
    words = Words()
    for field, key, make, _ in PLAIN:
        value = getattr(body, field)
        if value is UNSET or (old and value == getattr(old, field)):
            continue
        if isinstance(value, list) and any(not each or "," in str(each) for each in value):
            raise Wrong("bad-option", "one of them is empty, or several in one", field)
        words.say(key, "" if value is None else make(value), _camel(field))
    if isinstance(body.template, str) and body.template:
        if old:
            raise Wrong("bad-option", "a job is made from one; what it is by now can be changed", "template")
        words.say("from", body.template, "template")
    _say_name(words, body, old)
    _say_retry(words, body, old)
    _say_work(words, body, old)
    _say_schedule(words, body, old)
    return words


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


_NAME = re.compile(rf"(?!task_[0-9])(?![0-9]+$)(?!all$){NAME}", re.IGNORECASE | re.ASCII)


def _say_name(words: Words, body: JobBody, old: Job | None) -> None:
    """A name that can be one is the job's own; any other is its title, and the first one makes its name."""
    if old:
        for field, known in (("id", (old.id, str(old.id), old.job_name)), ("job_name", (old.job_name,))):
            if getattr(body, field) not in (UNSET, None, *known):
                raise Wrong("bad-option", "that is for ever; name can be changed", _camel(field))
    elif body.id not in (UNSET, None):
        if re.fullmatch("[0-9]{1,18}", str(body.id)):
            words.say("id", int(body.id), "id")
        elif not _NAME.fullmatch(str(body.id)):
            raise Wrong("bad-option", "an id is a number, or letters, digits, . _ and -", "id")
    own = body.id if isinstance(body.id, str) and _NAME.fullmatch(body.id) else body.job_name
    if isinstance(own, str) and own and not old:
        words.say("jobName", own, "id" if own == body.id else "jobName")
    if body.name is UNSET or (old and body.name == old.name):
        return
    name = (body.name or "").strip()
    if body.name is not None and not name:
        raise Wrong("bad-option", "a name is not empty", "name")
    # What the daemon knows it by was said once, or made of its first name: others may refer to it so.
    fixed = words.get("jobName") or (old.job_name if old and old.name != old.job_name else "")
    is_name = name == fixed if fixed else bool(_NAME.fullmatch(name))
    words.say("title", "" if is_name else name, "name")
    if not fixed and (is_name or (name and not old)):
        words.say("jobName", name if is_name else slug(name), "name")


def slug(name: str) -> str:
    """A name of the daemon's for one that people gave: letters, digits and hyphens."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    found = re.sub("[^a-z0-9._]+", "-", plain).strip("-.")[:48].strip("-.")
    return found if _NAME.fullmatch(found) else f"job-{found}".strip("-")


def to_orders(words: Words, body: JobBody, key: str | None) -> list[str]:
    """ADD or NOW with each name that the job may have, to be tried in turn. Raises Wrong."""
    verb = "NOW" if words.pop("now", False) else "ADD"
    if len(body.wanted) > 1:
        raise Wrong(
            "bad-option", f"enabled={as_json(body.enabled)} contradicts status={body.status}", "status"
        )
    if False in body.wanted:
        field = "enabled" if body.enabled is False else "status"
        if verb == "NOW":
            raise Wrong("bad-option", "what is to run at once cannot wait", field)
        words.say("paused", True, field)
    return [f"{verb} {as_json(to_record(words) | name)}" for name in _names_of(words, key)]


def to_record(words: Words) -> dict[str, Any]:
    """The same without what says nothing of a new task; an empty variable is one."""
    return {key: value for key, value in words.items() if value != "" or key.startswith("env.")}


def to_options(words: Words) -> dict[str, str]:
    """The same as options of SET."""
    return {"name" if key == "jobName" else key: str(value) for key, value in words.items()}


def _names_of(words: Words, key: str | None) -> list[dict[str, str]]:
    """Of a title two jobs may have the same, and their names differ; the same request makes the same."""
    if "jobName" not in words:
        return [{}]
    first = {"jobName": words["jobName"]}
    if not words.get("title") or words.fields["jobName"] != "name":  # it was said so
        return [first]
    suffix = hashlib.sha256(key.encode()).hexdigest()[:8] if key else secrets.token_hex(4)
    return [first, {"jobName": f"{words['jobName']}-{suffix}"}]


def to_arg(value: Any) -> str:
    """An argument of a run, as the job finds it in its environment."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _say_retry(words: Words, body: JobBody, old: Job | None) -> None:
    policy, most = body.retry_policy, body.max_retries
    if old and policy == old.retry_policy:
        policy = UNSET
    if old and most == old.max_retries:
        most = UNSET
    if policy is UNSET and most is UNSET:
        return
    if policy is UNSET and most and old and old.retry_policy.type != "NONE":
        policy = msgspec.structs.replace(old.retry_policy, max_retries=most)
    if not isinstance(policy, RetryPolicy):
        field = "retryPolicy" if most is UNSET else "maxRetries"
        words.say("retry", _exponential(most) if isinstance(most, int) else "", field)
        return
    said = policy.max_retries
    if isinstance(said, int) and isinstance(most, int) and said != most:
        raise Wrong("bad-option", f"retryPolicy.maxRetries says {said}", "maxRetries")
    times = said if isinstance(said, int) else most if isinstance(most, int) else 3
    if policy.type == "NONE" and (said or most):
        raise Wrong("bad-option", "NONE retries nothing", "retryPolicy.maxRetries" if said else "maxRetries")
    if policy.type == "FIXED":
        _check_fixed(policy)
    words.say("retry", _retry_text(policy, times), "retryPolicy")


def _check_fixed(policy: RetryPolicy) -> None:
    """What a delay that is always the same says of others may not be otherwise. Raises Wrong."""
    delay = policy.delay_ms if isinstance(policy.delay_ms, int) else FIXED_DELAY_MS
    if isinstance(policy.max_delay_ms, int) and policy.max_delay_ms < delay:
        raise Wrong("bad-option", f"less than the delay, which is {delay}", "retryPolicy.maxDelayMs")
    if policy.factor not in (UNSET, 1):
        raise Wrong("bad-option", "of FIXED, all delays are the same", "retryPolicy.factor")


def _exponential(times: int) -> str:
    return f"exp:{times}:{DEFAULT_BACKOFF}" if times else "none"


def _retry_text(policy: RetryPolicy, times: int) -> str:
    if policy.type == "NONE" or not times:
        return "none"
    delay = policy.delay_ms if isinstance(policy.delay_ms, int) else None
    if policy.type == "FIXED":
        parts = ["fixed", str(times), duration(FIXED_DELAY_MS if delay is None else delay)]
    elif delay is None and policy.factor is UNSET:
        parts = _exponential(times).split(":")
    else:
        parts = ["exp", str(times), duration(5000 if delay is None else delay)]
    if isinstance(policy.factor, int | float) and policy.type == "EXPONENTIAL":
        parts.append(f"x{policy.factor:.3f}".rstrip("0").rstrip("."))
    if isinstance(policy.max_delay_ms, int) and policy.type == "EXPONENTIAL":
        parts.append(duration(policy.max_delay_ms))
    if isinstance(policy.jitter_percent, int):
        parts.append(f"~{policy.jitter_percent}%")
    return ":".join(parts)


# --- what it does -----------------------------------------------------------------------------------

_OF_PAYLOAD = ("payload", "body", *TEXTS)  # options that a payload says


def _say_work(words: Words, body: JobBody, old: Job | None) -> None:
    kind = body.type if isinstance(body.type, str) else old.type if old else "shell"
    is_new_type = old is not None and kind != old.type
    if is_new_type or (not old and isinstance(body.type, str)):
        words.say("type", kind, "type")
    if isinstance(body.command, str) and not (old and body.command == old.command):
        words.say("command", body.command, "command")
    words.fields["payload"] = "payload"  # also where it is missing
    if is_new_type:
        for key in _OF_PAYLOAD:
            words.say(key, "", "type")
        words.fields |= dict.fromkeys(("header.X", "env.X"), "type")
    if isinstance(body.payload, dict) and (is_new_type or old is None or body.payload != old.payload):
        _say_payload(words, kind, body.payload, old)
        if body.payload.get("timeout") is not None:
            _say_timeout(words, body.payload["timeout"], body.timeout)
    if not words.get("command") and (is_new_type or not old):
        field = "command" if kind in ("shell", "echo", "sleep", "calculate") else "payload"
        field = words.fields.get("command", field)
        missing = "" if field == "command" else f"no {PAYLOADS[kind][0]} in payload: "
        raise Wrong("syntax", f"{missing}what is a job of type {kind} to do?", field)


def _say_payload(words: Words, kind: str, payload: dict[str, Any], old: Job | None) -> None:
    for field in payload:
        if field not in (*PAYLOADS[kind], "timeout"):
            why = f'a payload of type {kind} has no "{field[:80]}"' + meant(field, PAYLOADS[kind])
            raise Wrong("bad-option", why, f"payload.{field[:80]}")
    given = {field: value for field, value in payload.items() if value is not None}
    command, said = _command_of(kind, given, old), words.get("command")
    if command is not None and said is not None:  # as it is told: the same, perhaps in other words
        if _command_of(kind, parts_of(kind, said), None) != _command_of(kind, parts_of(kind, command), None):
            raise Wrong("bad-option", "command and payload say different things", "command")
    elif command is not None:
        words.say("command", command, f"payload.{PAYLOADS[kind][0]}")
    for key in _OF_PAYLOAD:
        if old and kind == old.type and kind in WHOSE[key] and key != "secret":  # one not said again stays
            words.say(key, "", "payload")
    for field in TEXTS:
        if field in given:
            _say_text(words, field, given, old)
    if old and payload.get("secret", "") is None:
        words.say("secret", "", "payload.secret")
    if words.get("cwd") in (".", "./"):  # where the worker is
        words["cwd"] = ""
    _say_data(words, kind, given)
    _say_pairs(words, "headers", "header.", given, old)
    _say_pairs(words, "env", "env.", given, old)


def _say_timeout(words: Words, of_payload: Any, of_job: int | UnsetType | None) -> None:
    """What takes longer than either is killed; 0 is none."""
    if type(of_payload) is not int or not 0 <= of_payload <= 30 * 86_400_000:
        raise Wrong("bad-option", "not a number of milliseconds", "payload.timeout")
    said = [ms for ms in (of_payload, of_job) if ms]
    words.say("timeout", duration(min(said)) if said else "none", "payload.timeout")


def _say_text(words: Words, field: str, given: Mapping[str, Any], old: Job | None) -> None:
    text = _text(given, field)
    if field == "secret" and not text:
        raise Wrong("bad-option", "an empty secret signs nothing; null is none", "payload.secret")
    if text == MASK and old and old.payload.get(field) == MASK:
        return
    words.say(field, text, f"payload.{field}")


def _text(given: Mapping[str, Any], field: str) -> str:
    value = given[field]
    if type(value) not in (str, int, float):
        raise Wrong("bad-option", "not a text", f"payload.{field}")
    return str(value)


_BESIDE = {"http": "method", "script": "args"}  # what a command holds besides the first field of its payload


def _command_of(kind: str, given: Mapping[str, Any], old: Job | None) -> str | None:
    """What is done, as COMMAND of its type; None where the payload does not say it."""
    main, beside = PAYLOADS[kind][0], _BESIDE.get(kind)
    if main not in given and beside in given:
        if not old or kind != old.type:
            raise Wrong("bad-option", f"no {main} in payload, to which it belongs", f"payload.{beside}")
        given = {main: old.payload[main], **given}
    if main not in given:
        return None
    if kind == "http":
        method = _text(given, "method") if "method" in given else "GET"
        if not method or set(" \t") & {*method}:
            raise Wrong("syntax", f'"{method[:40]}" is no method', "payload.method")
        return f"{method} {_text(given, 'url')}"
    if kind == "email" and isinstance(given["to"], list):
        if not all(isinstance(each, str) for each in given["to"]):
            raise Wrong("bad-option", "not addresses", "payload.to")
        return ", ".join(given["to"])
    if kind == "script" and "args" in given:
        args = given["args"]
        if not isinstance(args, list) or not all(isinstance(each, str | int | float) for each in args):
            raise Wrong("bad-option", "not a list of texts", "payload.args")
        return shlex.join([_text(given, "command"), *map(to_arg, args)])
    return _text(given, main)


def _say_data(words: Words, kind: str, given: Mapping[str, Any]) -> None:
    """payload= and body=."""
    if kind == "http" and "body" in given:
        body = given["body"]
        if isinstance(body, str) and not body.isprintable():
            # JSON on several lines is the same on one; other texts cannot travel so.
            try:
                body = msgspec.json.decode(body)
            except msgspec.DecodeError:
                why = "it is JSON, or a text of one line: an order has no place for more"
                raise Wrong("bad-option", why, "payload.body") from None
        is_text = isinstance(body, str)
        words.say("body" if is_text else "payload", body if is_text else as_json(body), "payload.body")
    if kind in ("webhook", "custom") and "data" in given:
        words.say("payload", as_json(given["data"]), "payload.data")
    if kind == "email" and (mail := {key: given[key] for key in ("subject", "text", "html") if key in given}):
        words.say("payload", as_json(mail), "payload")


def _say_pairs(words: Words, field: str, prefix: str, given: Mapping[str, Any], old: Job | None) -> None:
    before: dict[str, str] = old.payload.get(field, {}) if old else {}
    pairs = given.get(field, {})
    if not isinstance(pairs, dict):
        raise Wrong("bad-option", "not an object", f"payload.{field}")
    pairs = {name: value for name, value in pairs.items() if value is not None}
    if gone := sorted(before.keys() - pairs.keys()):
        if field == "env":
            words.say("unset", ",".join(gone), "payload.env")
        else:
            for name in gone:
                words.say(f"{prefix}{name}", "", f"payload.{field}")
    for name, value in pairs.items():
        if type(value) not in (str, int, float):
            raise Wrong("bad-option", "not a text", f"payload.{field}.{name}")
        if re.search(r'[\s"=]', name) or not name:
            raise Wrong("bad-option", f'"{name[:80]}" is no name', f"payload.{field}")
        if value != MASK or before.get(name) != MASK:
            words.say(f"{prefix}{name}", str(value), f"payload.{field}.{name}")


# --- when -------------------------------------------------------------------------------------------


def _say_schedule(words: Words, body: JobBody, old: Job | None) -> None:
    said = {
        field: text
        for field in ("cron_expression", "schedule", "scheduled_at")
        if isinstance(text := getattr(body, field), str)
    }
    if old:  # what was got and is sent back says nothing
        said = {field: text for field, text in said.items() if text != getattr(old, field)}
    texts = {f"@at {text}" if field == "scheduled_at" else text for field, text in said.items()}
    kind = body.schedule_type or None
    if len(texts) > 1:
        raise Wrong("bad-option", "that is said twice, and not the same", _camel(list(said)[-1]))
    if texts:
        (text,), field = texts, next(iter(said))
        if not said[field].strip():
            raise Wrong("bad-schedule", f"no {_camel(field)}: when is it to run?", _camel(field))
        is_once = comes_once(text)
        if kind == "immediate" or (kind and (kind == "scheduled") != is_once):
            raise Wrong("bad-option", f"{_camel(field)} is not for {kind}", "scheduleType")
        words.say("schedule", text, _camel(field))
    elif kind == "immediate" and not old:
        words.say("now", True, "scheduleType")
    elif not old:
        if kind is None and body.dependencies:
            words.say("schedule", "@after", "dependencies")
            return
        field = "scheduledAt" if kind == "scheduled" else "cronExpression"
        raise Wrong("bad-schedule", f"no {field}: when is it to run?", field)
    elif kind not in (None, old.schedule_type):
        why = (
            "trigger runs it at once" if kind == "immediate" else f"{old.schedule_type} it was; {kind} when?"
        )
        raise Wrong("bad-schedule", why, "scheduleType")


# --- refusals ---------------------------------------------------------------------------------------

_BY_CODE = {"bad-schedule": "schedule", "syntax": "command"}


def about(refusal: Refusal, words: Words) -> Wrong:
    """A refusal of what these words were for, with the field that it is about."""
    keys = [refusal.option, rule_of(refusal.option)]
    keys.append("jobName" if refusal.option == "name" else _BY_CODE.get(refusal.code, ""))
    field = next((words.fields[key] for key in keys if key in words.fields), None)
    return Wrong(refusal.code, refusal.message, field)
