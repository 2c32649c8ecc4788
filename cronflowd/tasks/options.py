"""The options of a task: what each is called, how its value is read and written, what it defaults to.

The table `RULES` is the only place that knows them: ADD, SET, GET, LOAD and tasks.db all go
through it. To add an option: a field in `Options`, a row in `RULES`, a row in protocol.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from attrs import Factory, evolve, frozen

from ..base.errors import Refusal
from ..base.names import check_tag, check_worker_name, parse_label
from ..base.text import escape, format_time
from ..schedules.calendars import parse_calendar_names
from ..schedules.english import parse_moment
from ..schedules.zones import (
    EPOCH,
    FIRST_S,
    LAST_S,
    SECOND,
    format_duration,
    parse_duration,
    parse_time,
    parse_zone,
)
from .kinds import CONTROL, TYPES, check_header_name, parse_expect, parse_payload, parse_secret, parse_stdin
from .targets import UNSAID, Notify, parse_notify

MAX_TAGS = 32
MAX_DEPENDENCIES = 100
MAX_SPREAD_S = 366 * 86_400


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
    if seconds > MAX_SPREAD_S:
        raise Refusal("bad-option", f"longer than {format_duration(MAX_SPREAD_S)}")
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
    stdin: str = ""  # what the job reads, in base64
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
    notify: Notify = UNSAID


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
    "stdin": Rule("stdin", parse_stdin),
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
    "notify": Rule("notify", parse_notify, lambda notify: str(notify.text)),
}
# Names of variables and headers that hold what not everybody should read; GIT_AUTHOR_NAME is none.
_SECRET = re.compile("PASS|PWD|SECRET|TOKEN|KEY|AUTH(?!OR(?!I))|COOKIE|CREDENTIAL", re.IGNORECASE)
MASK = "***"


def set_options(
    options: Options, words: dict[str, str], default_tz: str = "UTC", now: datetime | None = None
) -> Options:
    """`options` with the `key=value` words applied; an empty value means the default.

    Local times are of the zone in `tz=`, else of `default_tz`; those in words count from
    `now`, and are refused without one. Raises Refusal (`bad-option`) naming the key.
    """
    if not words:
        return options
    changes: dict[str, Any] = {}
    zone = words.get("tz", options.tz) or default_tz
    env, headers = dict(options.env), {name.lower(): (name, value) for name, value in options.headers}
    for key, text in words.items():
        _check_text(key, text)
        if key.startswith("env."):
            _set_env(env, key[4:], text)
        elif key.startswith("header."):
            _set_header(headers, key[7:], text)
        elif key in RULES:
            rule = RULES[key]
            changes[rule.field] = _parse_option(key, rule, text, zone, now)
        else:
            hint = " (a task's name is name= here)" if key == "jobName" else ""
            raise Refusal("bad-option", f'there is no option "{escape(key)}"{hint}')
    for field_name, pairs in (("env", env), ("headers", dict(headers.values()))):
        if pairs != dict(getattr(options, field_name)):
            changes[field_name] = tuple(sorted(pairs.items()))
    # Most tasks have no options of their own and share one object.
    return evolve(options, **changes) if changes else options


def _parse_option(key: str, rule: Rule, text: str, zone: str, now: datetime | None) -> Any:
    if not text:
        return getattr(DEFAULTS, rule.field)
    try:
        if rule.parse is None:
            return _whole_second(parse_moment(text, zone, now) if now else parse_time(text, zone, EPOCH))
        return rule.parse(text)
    except Refusal as refusal:
        raise Refusal(refusal.code, f"{key}=: {refusal.message}") from None


def _whole_second(at: datetime) -> datetime:
    """A bound counts in whole seconds, as moments do; what lies between two of them is the later one."""
    if not FIRST_S < (at - EPOCH) // SECOND < LAST_S:
        raise Refusal("bad-option", f"{format_time(at)} is not in the years that are scheduled, 1900 to 9989")
    return EPOCH - (EPOCH - at) // SECOND * SECOND


def _set_env(env: dict[str, str], name: str, text: str) -> None:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise Refusal("bad-option", f'env.{escape(name)}: "{escape(name)}" is not a variable name')
    env[name] = text


def _set_header(headers: dict[str, tuple[str, str]], name: str, text: str) -> None:
    """By the name in lower case: no two may differ in case alone."""
    check_header_name(name)
    headers.pop(name.lower(), None)
    if text.strip():
        headers[name.lower()] = name, text


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


def is_secret(key: str) -> bool:
    """Whether an option's value is shown to nobody: secret=, and variables and headers that are called so."""
    kind, dot, name = key.partition(".")
    return key == "secret" or bool(dot and kind in ("env", "header") and _SECRET.search(name))


def masked(key: str, text: str) -> str:
    """A value for those who ask: a secret is told to be there, and not what it is."""
    return MASK if text and is_secret(key) else text


def refuse_masks(words: dict[str, str]) -> None:
    """What was copied from an answer must not take the place of the secret that it hides."""
    for key, text in words.items():
        if text == MASK and is_secret(key):
            why = "stands for a value that is not shown; leave it out, and it stays as it is"
            raise Refusal("bad-option", f"{escape(key)}=: {MASK} {why}")
