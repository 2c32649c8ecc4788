"""The options of a task: what each is called, how its value is read and written, what it defaults to.

The table `RULES` is the only place that knows them: ADD, SET, GET, LOAD and tasks.db all go
through it. To add an option: a field in `Options`, a row in `RULES`, a row in protocol.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache, partial
from typing import Any

from attrs import evolve, frozen

from ..base.errors import Refusal
from ..base.names import check_form, check_user_name, check_worker_name, parse_label
from ..base.nearest import meant, one_of
from ..base.text import CONTROL, escape, format_time
from ..schedules.calendars import parse_calendar_names
from ..schedules.english import parse_moment
from ..schedules.zones import (
    EPOCH,
    SECOND,
    format_duration,
    parse_duration,
    parse_time,
    parse_zone,
    why_unscheduled,
)
from . import kinds
from .targets import UNSAID, Notify, parse_notify

MAX_TAGS = 32
MAX_DEPENDENCIES = 100
MAX_SPREAD_S = 366 * 86_400  # and of jitter=


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
NO_TIMEOUT_S = 0.0
_MAX_DELAY_S = 30 * 86_400.0


def parse_retry(text: str) -> Retry:
    """`none`; `fixed:3:1s`; `exp:5:1s`, doubling; `:x5` another factor, `:300s` a cap, `:~20%` jitter.

    Raises Refusal.
    """
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
    first_s, jitter = parse_duration(words[1]), given.get("jitter", 0.0)
    cap_s = given.get("cap_s", _MAX_DELAY_S)
    if max(first_s, cap_s) > _MAX_DELAY_S:
        raise Refusal("bad-option", f'"{escape(text)}": a delay is at most {format_duration(_MAX_DELAY_S)}')
    if first_s > cap_s:
        raise Refusal("bad-option", f'"{escape(text)}": the cap is shorter than the first delay')
    return Retry(text, parse_count(words[0], 1, _MAX_RETRIES), first_s, factor, cap_s, jitter)


def _retry_word(word: str) -> tuple[str, float]:
    if word.startswith("x"):
        return "factor", _factor(word[1:])
    if match := re.fullmatch(r"~([0-9]{1,3})%", word):
        return "jitter", parse_count(match[1], 0, 100) / 100
    return "cap_s", parse_duration(word)


def _refuse_retry(text: str) -> Refusal:
    form = "none, fixed:N:DELAY or exp:N:DELAY[:xFACTOR][:CAP], with :~JITTER% if you like"
    hint = ""
    if text.casefold() in ("0", "no", "off", "never", "false"):
        hint = "; did you mean none?"
    elif match := re.fullmatch("(?:(fixed|exp):)?([1-9][0-9]?)(?::([0-9]{1,6}(?:ms|s|m|h)?))?", text):
        hint = f"; did you mean {match[1] or 'fixed'}:{match[2]}:{match[3] or '10s'}?"
    return Refusal("bad-option", f'"{escape(text[:80])}" is not {form}{hint}')


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


KEEP = Keep("50,30d,10M", 50, 30 * 86_400.0, 10 << 20)  # what its text says


def parse_keep(text: str) -> Keep:
    """`50,30d,10M`: runs, age and bytes of output, in any order; what is left out keeps its default.

    Raises Refusal.
    """
    found: dict[str, float] = {}
    for word in text.split(","):
        if match := re.fullmatch(r"([0-9]{1,9})|([0-9]{1,6})([KMG])", word):
            kind = "output" if match[3] else "runs"
            value = int(match[1] or match[2]) * 1024.0 ** " KMG".index(match[3] or " ")
        elif re.fullmatch(r"[0-9]{1,12}(?:ms|[smhd]).*", word):
            kind, value = "age", parse_duration(word)
        else:
            form = "a number of runs, an age such as 30d, or a size of output such as 10M"
            raise Refusal("bad-option", f'"{escape(word[:40])}" is not {form}')
        if kind in found or (not value and kind != "output"):
            twice = {"runs": "a number of runs", "age": "an age", "output": "a size"}[kind] + " is said twice"
            why = twice if kind in found else "of nothing, nothing is kept"
            raise Refusal("bad-option", f'"{escape(word[:40])}": {why}')
        found[kind] = value
    runs, output_bytes = found.get("runs", KEEP.runs), found.get("output", KEEP.output_bytes)
    return Keep(text, int(runs), found.get("age", KEEP.age_s), int(output_bytes))


def parse_count(text: str, low: int, high: int) -> int:
    """A whole number within bounds; Refusal (`bad-option`) otherwise."""
    if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
        raise Refusal("bad-option", f'"{escape(text)}" is not a whole number from {low} to {high}')
    return int(text)


def _parse_tags(text: str) -> tuple[str, ...]:
    tags = text.split(",")
    if len(tags) > MAX_TAGS:
        raise Refusal("bad-option", f"more than {MAX_TAGS} tags")
    return tuple([check_form(tag, "tag") for tag in tags])


def parse_timeout(text: str) -> float:
    """`none`, or a duration; Refusal for none at all."""
    if text == "none":
        return NO_TIMEOUT_S
    if (seconds := parse_duration(text)) <= 0:
        raise Refusal("bad-option", "a timeout must be longer than nothing")
    return seconds


def _parse_on(text: str) -> str:
    if text.startswith("label:"):
        parse_label(text.removeprefix("label:"))
    elif "=" in text:
        raise Refusal(
            "bad-option",
            f'"{escape(text[:80])}" is no worker; did you mean label:{escape(text.rpartition(":")[2][:80])}?',
        )
    elif text not in ("any", "all"):
        check_worker_name(text)
    return text


def _parse_cwd(text: str) -> str:
    if text and not text.startswith("/"):
        raise Refusal("bad-option", f'"{escape(text)}" is not an absolute path')
    return text


def _parse_after(text: str) -> tuple[str, ...]:
    refs = tuple(dict.fromkeys(text.split(",")))
    if "" in refs:
        raise Refusal("bad-option", "beside a comma a task is missing")
    if len(refs) > MAX_DEPENDENCIES:
        raise Refusal("bad-option", f"more than {MAX_DEPENDENCIES} tasks")
    return refs


def _parse_spread(text: str) -> int:
    if (seconds := parse_duration(text)) != int(seconds):
        raise Refusal("bad-option", f'"{escape(text)}" is not a number of whole seconds')
    return int(_parse_jitter(text))


def _parse_jitter(text: str) -> float:
    if (seconds := parse_duration(text)) > MAX_SPREAD_S:
        raise Refusal("bad-option", f"longer than {format_duration(MAX_SPREAD_S)}")
    return seconds


def _format_moment(at: datetime | None) -> str:
    return "" if at is None else format_time(at)


@frozen
class Options:
    """Everything about a task that has a default, parsed."""

    title: str = ""  # what people call it, where that can be no name
    desc: str = ""
    tags: tuple[str, ...] = ()
    tz: str = ""  # IANA zone; empty = the daemon's
    type: str = "shell"
    stdin: str = ""  # what the job reads, in base64
    cwd: str = ""  # absolute; empty = the worker's own, or the user's home
    user: str = ""  # whom it runs as; empty = as the worker does
    env: tuple[tuple[str, str], ...] = ()  # sorted by name
    payload: str = ""  # one JSON value, as it was written
    headers: tuple[tuple[str, str], ...] = ()  # sorted by name; no two differ in case alone
    body: str = ""
    expect: str = "200-299"  # statuses that are a success
    secret: str = ""  # signs a webhook
    prio: str = "medium"
    retry: Retry | None = None  # None, here and below: what the daemon's settings say; see `Common`
    timeout_s: float | None = None
    overlap: str | None = None
    catchup: str = "once"
    grace_s: float = 3600.0
    lost: str = "fail"
    on: str = "any"  # `any`, `all`, a worker's name, or label:KEY=VALUE
    keep: Keep | None = None
    start_at: datetime | None = None  # no moment before it
    end_at: datetime | None = None  # and none after it
    count: int = 0  # fires in all; 0 = no end
    spread_s: int = 0
    jitter_s: float = 0.0
    skip: tuple[str, ...] = ()  # names of calendars
    after: tuple[str, ...] = ()  # names of tasks that must have ended well
    notify: Notify = UNSAID
    meta: str = ""  # one JSON object that means nothing here, as it was written
    owner: str | None = None  # whose it is; None = nobody had to say who he is
    wants: tuple[str, ...] = ()  # secrets that its runs need, sorted; derived from the rest
    secrets: tuple[str, ...] = ()  # and those that stand in notify= besides


DEFAULTS = Options()


@frozen
class Common:
    """What holds for tasks that say nothing of it: settings of the daemon, which no record carries.

    They are looked up whenever something is decided by them, so those of today hold for every task.
    """

    retry: Retry = NO_RETRY
    timeout_s: float = NO_TIMEOUT_S
    overlap: str = "skip"
    keep: Keep = KEEP
    owner: str = ""  # the user that the daemon runs as

    def timeout_of(self, options: Options) -> float:
        """The other three are true when they are said, and `options.retry or common.retry` will do."""
        return self.timeout_s if options.timeout_s is None else options.timeout_s


COMMON = Common()


@frozen
class Rule:
    """How one option is read and written, and how people are told of it."""

    field: str  # of Options
    parse: Callable[[str], Any] | None  # None: a time, which is read in the task's zone
    format: Callable[[Any], str] = str
    form: str = "TEXT"
    what: str = ""
    also: str = ""  # what others call it

    @property
    def words(self) -> list[str]:
        """Of one made by `_choice`, those that it takes."""
        return self.form.split("|")


def _choice(field: str, what: str, also: str, words: Mapping[str, str]) -> Rule:
    """An option that takes some words alone; with each, what others call the same."""
    return Rule(field, lambda text: one_of(text, words, words), str, "|".join(words), what, also)


_TYPES_ALSO = {
    "shell": "sh bash command cmd", "script": "exec argv process", "http": "https url get post request",
    "webhook": "hook", "email": "mail smtp", "custom": "handler python function", "echo": "print",
    "sleep": "wait", "calculate": "math calc",
}  # fmt: skip
RULES: dict[str, Rule] = {
    "title": Rule("title", str, what="what people call it, where name= cannot say it", also="caption"),
    "desc": Rule("desc", str, what="what it is for", also="description comment note"),
    "tags": Rule(
        "tags", _parse_tags, ",".join, "a,b", "words by which LIST finds it", "tag label labels group groups"
    ),
    "tz": Rule(
        "tz", parse_zone, form="Europe/Paris", what="its zone; the daemon's without",
        also="timezone time_zone zone cron_tz location",
    ),
    "type": _choice(
        "type", "what the command is; HELP TYPE tells of one", "kind executor",
        {kind: _TYPES_ALSO[kind] for kind in kinds.TYPES},
    ),
    "stdin": Rule(
        "stdin", kinds.parse_stdin, form="BASE64", what="what the job reads on standard input", also="input"
    ),
    "cwd": Rule(
        "cwd", _parse_cwd, form="/DIR",
        what="where the job starts; without, the home of user=, or the worker's directory",
        also="dir directory workdir working_dir working_directory chdir home path",
    ),
    "user": Rule(
        "user", check_user_name, form="NAME", what="whom it runs as, with that user's groups and home",
        also="run_as runas as uid become sudo username login",
    ),
    "payload": Rule(
        "payload", kinds.parse_payload, form="{JSON}", what="its data", also="data json args params"
    ),
    "body": Rule("body", str, what="a request's body, as text"),
    "expect": Rule(
        "expect", kinds.parse_expect, form="200-299,404", what="statuses that are a success",
        also="status statuses expected",
    ),
    "secret": Rule(
        "secret", kinds.parse_secret, what="signs a webhook; logs in for an email",
        also="token signature hmac",
    ),
    "prio": _choice(
        "prio", "who goes first when slots are short", "priority importance nice",
        {
            "high": "urgent critical highest top", "medium": "normal default mid",
            "low": "lowest idle background",
        },
    ),
    "retry": Rule(
        "retry", parse_retry, lambda retry: str(retry.text), "none|fixed:3:10s|exp:5:1s[:x3][:300s][:~20%]",
        "attempts after one that failed, and how far apart",
        "retries max_retries retrypolicy attempts max_attempts backoff retry_delay restart",
    ),
    "timeout": Rule(
        "timeout_s", parse_timeout, lambda seconds: format_duration(seconds) if seconds else "none",
        "none|30s", "then the attempt is killed",
        "max_runtime deadline ttl time_limit limit kill_after max_duration",
    ),
    "overlap": _choice(
        "overlap", "its moment comes while it is still running",
        "concurrency concurrency_policy concurrencypolicy max_instances parallel singleton lock"
        " max_concurrency max_running max_parallel exclusive",
        {
            "skip": "forbid no none never deny singleton false", "queue1": "buffer_one latest",
            "queue": "wait buffer buffer_all serial", "allow": "yes parallel concurrent always true",
            "replace": "cancel kill restart",
        },
    ),
    "catchup": _choice(
        "catchup", "moments that were missed while the daemon was down",
        "catch_up misfire coalesce backfill persistent anacron",
        {
            "once": "latest last one yes true newest", "all": "every always",
            "skip": "no none never false",
        },
    ),
    "grace": Rule(
        "grace_s", parse_duration, format_duration, "1h", "how late a moment may still start; at least 1s",
        "misfire_grace_time max_late startingdeadlineseconds",
    ),
    "lost": _choice(
        "lost", "the worker of a started run is gone", "on_lost crash",
        {"fail": "failed no none never", "rerun": "retry restart yes run"},
    ),
    "on": Rule(
        "on", _parse_on, form="any|all|WORKER|label:KEY=VALUE", what="which workers may run it",
        also="worker workers onworker agentid host hosts node nodes target queue server agent where",
    ),
    "keep": Rule(
        "keep", parse_keep, lambda keep: str(keep.text), "50,30d,10M", "history: runs, age, output",
        "retention history keep_history log_retention",
    ),
    "start": Rule(
        "start_at", None, _format_moment, "TIME", "no moment before it",
        "begin from since after_date start_at start_date not_before valid_from",
    ),
    "end": Rule(
        "end_at", None, _format_moment, "TIME", "no moment after it",
        "until stop expires expire expiry end_at end_date not_after valid_until before",
    ),
    "count": Rule(
        "count", lambda text: parse_count(text, 1, 999_999_999), lambda count: str(count or ""), "N",
        "so many fires, then no more; without end if left out", "max_runs repeat times max_count total",
    ),
    "spread": Rule(
        "spread_s", _parse_spread, format_duration, "1h", "moments later by a share that the name decides",
        "splay stagger offset hash shift",
    ),
    "jitter": Rule(
        "jitter_s", _parse_jitter, format_duration, "30s", "each start later by a random part of it",
        "random random_delay randomizeddelaysec delay random_sleep",
    ),
    "skip": Rule(
        "skip", parse_calendar_names, ",".join, "holidays:FR,file:NAME", "calendars of days off",
        "holidays holiday calendar calendars exclude except blackout",
    ),
    "after": Rule(
        "after", _parse_after, ",".join, "a,b", "tasks that must have ended well first",
        "depends depends_on dependencies deps requires needs parent parents upstream wait_for",
    ),
    "notify": Rule(
        "notify", parse_notify, lambda notify: str(notify.text), "none|[EVENT+EVENT:]mailto:…|https://…|slack+https://…",
        "who is told when it fails, recovers, is missed or lost",
        "mail mailto email alert alerts on_failure on_error notification notifications webhook slack",
    ),
    "meta": Rule(
        "meta", kinds.parse_meta, form="{JSON}", what="what programs keep with it; it means nothing here",
        also="metadata annotations extra custom_data",
    ),
    "owner": Rule(
        "owner", partial(check_form, what="account name"), lambda owner: owner or "", "ACCOUNT",
        "whose it is; who added it", "account",
    ),
}  # fmt: skip
# What is no option of the table, although it is often taken for one, and where it is said.
ELSEWHERE = {
    "jobName": "a task's name is name= here",
    **dict.fromkeys(
        ("schedule", "cron", "cronExpression"), "the schedule stands by itself after the options"
    ),
    **dict.fromkeys(("command", "cmd"), "the command stands by itself after the schedule"),
    "paused": "ADD paused=yes; for a task that is there, PAUSE and RESUME",
    **dict.fromkeys(("state", "enabled", "disabled"), "ADD paused=yes, or later PAUSE and RESUME"),
    **dict.fromkeys(
        ("replace", "upsert", "overwrite", "force"), "ADD replace=yes replaces the task of that name"
    ),
    "env": "write env.NAME=VALUE",
    "unset": "SET takes variables away with it",
    **dict.fromkeys(("header", "headers"), "write header.NAME=VALUE"),
    **dict.fromkeys(("environment", "vars", "envs", "variables"), "write env.NAME=VALUE"),
    **dict.fromkeys(
        ("stdout", "stderr", "log", "logfile", "output"),
        "LOG keeps what it writes; for a file, end with > FILE",
    ),
    "shell": "commands are /bin/sh's; for another, write bash -c '…'",
    **dict.fromkeys(("memory", "mem", "cpu", "ulimit"), "limits are the worker's, or ulimit in the command"),
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
    is_about_secrets = bool(options.secrets)
    for key, text in words.items():
        if match := CONTROL.search(text):
            raise Refusal("bad-option", f"{escape(key)}= holds the control character {escape(match[0])}", key)
        is_about_secrets |= "secret:" in text
        if key.startswith("env."):
            check_variable(key[4:], escape(key))
            env[key[4:]] = text
        elif key.startswith("header."):
            _set_header(headers, key[7:], text)
        elif key in RULES:
            rule = RULES[key]
            changes[rule.field] = _parse_option(key, rule, text, zone, now)
        else:
            raise Refusal("bad-option", no_option(key), key)
    for field_name, pairs in (("env", env), ("headers", dict(headers.values()))):
        if pairs != dict(getattr(options, field_name)):
            changes[field_name] = tuple(sorted(pairs.items()))
    if is_about_secrets:
        new = evolve(options, **changes)
        texts = [text for _, text in referring(new)]
        changes["wants"] = kinds.names_in(texts)
        changes["secrets"] = kinds.names_in([*texts, new.notify.text])
    # Most tasks have no options of their own and share one object.
    return evolve(options, **changes) if changes else options


def referring(options: Options) -> list[tuple[str, str]]:
    """The values that may name a secret, by key."""
    texts = [(f"env.{name}", text) for name, text in options.env]
    texts += [(f"header.{name}", text) for name, text in options.headers]
    return texts + [(key, getattr(options, key)) for key in kinds.TAKES]


def no_option(key: str) -> str:
    """What to say of an option that there is not: where it is said, or what it is called here."""
    if re.fullmatch("[A-Z_][A-Z0-9_]*", key):
        hint = f"; a variable of the job is env.{key}="
        if key.lower() in ("name", *RULES):
            hint = f"; did you mean {key.lower()}=?{hint[1:]}"
    elif key in ELSEWHERE:
        hint = f"; {ELSEWHERE[key]}"
    else:
        also = {f"{word}=": rule.also for word, rule in RULES.items()}
        also |= {"name=": "jobname job_name task id"}
        hint = meant(key.replace("-", "_"), {each[:-1]: each for each in also}, also)
    return f'there is no option "{escape(key[:80])}"{hint}'


def _parse_option(key: str, rule: Rule, text: str, zone: str, now: datetime | None) -> Any:
    if not text:
        return getattr(DEFAULTS, rule.field)
    try:
        if rule.parse is None:
            return _whole_second(parse_moment(text, zone, now) if now else parse_time(text, zone, EPOCH))
        return rule.parse(text)
    except Refusal as refusal:
        raise Refusal(refusal.code, f"{key}=: {refusal.message}", key) from None


def _whole_second(at: datetime) -> datetime:
    """A bound counts in whole seconds, as moments do; what lies between two of them is the later one."""
    if why := why_unscheduled(at):
        raise Refusal("bad-option", f"{format_time(at)} {why}")
    return EPOCH - (EPOCH - at) // SECOND * SECOND


def check_variable(name: str, where: str) -> None:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        why = f'{where}: "{escape(name)}" is not a variable name'
        raise Refusal("bad-option", why, where.rstrip("="))


def _set_header(headers: dict[str, tuple[str, str]], name: str, text: str) -> None:
    """By the name in lower case: no two may differ in case alone."""
    kinds.check_header_name(name)
    headers.pop(name.lower(), None)
    if text.strip():
        headers[name.lower()] = name, text


def format_options(options: Options, common: Common | None = None) -> dict[str, str]:
    """`key: text` for what differs from the default, in the table's order; all there are, with `common`."""
    if options is DEFAULTS and not common:
        return {}
    texts = {
        key: format_option_of(options, key, common or COMMON)
        for key, rule in RULES.items()
        if common or getattr(options, rule.field) != getattr(DEFAULTS, rule.field)
    }
    texts |= {f"env.{name}": value for name, value in options.env}
    return texts | {f"header.{name}": value for name, value in options.headers}


def format_option_of(options: Options, key: str, common: Common = COMMON) -> str:
    """One option as text, also where nothing is said of it."""
    rule = RULES[key]
    value = getattr(options, rule.field)
    return rule.format(getattr(common, rule.field, None) if value is None else value)


@lru_cache(maxsize=1024)
def is_secret(key: str) -> bool:
    """Whether an option's value is shown to nobody: secret=, and variables and headers that are called so."""
    kind, dot, name = key.partition(".")
    return key == "secret" or bool(dot and kind in ("env", "header") and _SECRET.search(name))


def masked(key: str, text: str) -> str:
    """A value for those who ask: a secret is told to be there, and not what it is."""
    return MASK if text and is_secret(key) and not kinds.names_in([text]) else text


def check_given(words: dict[str, str]) -> None:
    """What only whoever writes a definition can do wrong. Raises Refusal (`bad-option`).

    What was copied from an answer must not take the place of the secret that it hides.
    """
    for key, text in words.items():
        if text.__class__ is not str or "secret:" in text:
            kinds.check_reference(key, str(text))
        check_unmasked(key, text)


def check_unmasked(key: str, text: object) -> None:
    """Refuses what an answer has in the place of a secret."""
    if text == MASK and is_secret(key):
        why = "stands for a value that is not shown; leave it out, and it stays as it is"
        raise Refusal("bad-option", f"{escape(key)}=: {MASK} {why}", key)
