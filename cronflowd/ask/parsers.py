"""What each verb makes of the words behind it: an order for the engine, or a question.

They know the grammar and nothing else: none finds a task or changes anything, so a line
that is refused has had no effect. The table of the verbs is commands.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from attrs import evolve

from ..base.errors import Refusal
from ..base.names import check_name, check_worker_name
from ..base.nearest import meant
from ..base.text import escape, format_time, split_options
from ..engine import orders as o
from ..schedules.english import parse_moment
from ..schedules.schedule import parse_event, settle_schedule, split_schedule
from ..schedules.words import ADVERBS, named_zone
from ..tasks.kinds import PROGRAMS, TYPES
from ..tasks.options import (
    DEFAULTS,
    ELSEWHERE,
    RULES,
    check_given,
    check_variable,
    no_option,
    parse_count,
    set_options,
)
from ..tasks.slips import SUSPECT, check_command_word, check_no_schedule, check_phrase_rest
from ..tasks.task import (
    ENDED,
    PAUSE_KEYS,
    UNDER_WAY,
    Pause,
    TaskSpec,
    check_why,
    make_spec,
    parse_json,
    parse_record,
)
from . import events
from . import grammar as g
from . import questions as q
from .grammar import Context, Parser, WrongWords

MAX_NEXT = 1000
LATE_S, MAX_WAITING = 60.0, 10_000  # from where on HEALTH is unwell
MAX_UNDONE = 100
MAX_KEY = 128  # characters of ONCE
MAX_BEAT_TEXT = 500  # characters kept of what a BEAT says
TASK_STATES = ("scheduled", "running", "queued", "paused", "idle", "unreadable")
_STATES_ALSO = {
    "ok": "success succeeded successful done completed complete finished passed 0",
    "failed": "failure error errored fail failing bad 1", "running": "active started executing",
    "queued": "waiting pending", "cancelled": "canceled killed aborted stopped", "lost": "unknown vanished",
    "timeout": "timedout timed_out", "missed": "misfired late", "skipped": "skip", "sent": "dispatched",
    "scheduled": "enabled active on ready", "paused": "disabled suspended off", "idle": "inactive ended",
    "unreadable": "broken invalid",
}  # fmt: skip
RUN_STATES = (*UNDER_WAY, *sorted(ENDED))


# --- tasks ----------------------------------------------------------------------------------


def add(text: str, context: Context) -> o.AddTask:
    text = text.lstrip(" \t")
    if text[:1] == "{":
        record = _record(text, context)
        is_replace = _flag(record, "replace")
        task_id, spec = parse_record(record, context.default_tz, context.now)
        return _adding(spec, is_replace, task_id=task_id)
    options, rest = split_options(text, True)
    if "from" in options:
        options = _from_template(options, context)
    has_flags = "replace" in options or "paused" in options
    flags = (_flag(options, "replace"), _flag(options, "paused")) if has_flags else ()
    for key in ("schedule", "command"):
        if key in options:
            raise Refusal("bad-option", no_option(key), key)
    if not rest:
        options.pop("name", None)
        set_options(DEFAULTS, options, context.default_tz, context.now)  # an option that is wrong goes first
        raise WrongWords("no schedule")
    try:
        schedule, command = split_schedule(rest)
    except Refusal as refusal:
        for key in options:  # one that is none may be why: cron=@daily
            if key not in ("name", *RULES) and not key.startswith(("env.", "header.")):
                raise Refusal("bad-option", no_option(key), key) from None
        raise Refusal(refusal.code, refusal.message + _meant_option(options, rest), refusal.option) from None
    if SUSPECT.match(command) and options.get("type", "shell") in PROGRAMS:
        if rest[0] != '"':
            check_command_word(schedule, command)
        elif schedule[:1].isalpha():
            check_phrase_rest(schedule, command)
    schedule = settle_schedule(schedule, options.get("tz") or context.default_tz, context.now)
    zone = named_zone(schedule) or context.default_tz
    spec = _spec(schedule, options, command, zone, context)
    return _adding(spec, *flags) if flags else o.AddTask(spec)


def _record(text: str, context: Context) -> dict[str, Any]:
    """A task as JSON, with what a template says of it."""
    record: Any = parse_json(text, "the task")  # an object, since it begins with a brace
    check_given(record)
    return _from_template(record, context)


def _from_template(words: dict[str, Any], context: Context) -> dict[str, Any]:
    """What is said beside from= wins."""
    if "from" not in words:
        return words
    name = str(words["from"])
    if (found := context.templates.get(name)) is None:
        why = f'from=: no template "{escape(name[:80])}"{meant(name, [*context.templates])}'
        raise Refusal("not-found", why, "from")
    return found | {key: value for key, value in words.items() if key != "from"}


def template(text: str, context: Context) -> o.SetTemplate | q.Alone:
    word, rest = g.cut_word(text)
    words, options = g.split_any(rest)
    if word.upper() == "LIST" and not (words or options):
        return q.Alone()
    if word.upper() == "REMOVE" and not options:
        return o.SetTemplate(g.one_word(words, "template"), None)
    if word.upper() != "ADD" or not options:
        raise WrongWords("a template is added with a name and options, listed, or removed")
    check_name(name := g.one_word(words, "template"))
    for key in ("name", "from", "replace", "paused", *ELSEWHERE):
        if key in options:
            raise Refusal(
                "bad-option", f"{key}= is said with each ADD; a template holds what several share", key
            )
    check_given(options)
    set_options(DEFAULTS, options, context.default_tz, context.now)  # for its refusals
    return o.SetTemplate(name, options)


def _flag(words: dict[str, Any], name: str) -> bool:
    """Takes a word out that is no part of the definition."""
    if name not in words:
        return False
    text = str(words.pop(name)).lower()
    word = g.choice({name: text}, name, ("yes", "no", "true", "false"), yes="1 on", no="0 off")
    return word in ("yes", "true")


def _adding(
    spec: TaskSpec, is_replace: bool, is_paused: bool = False, task_id: int | None = None
) -> o.AddTask:
    spec = evolve(spec, pause=Pause()) if is_paused else spec
    if is_replace and spec.pause and spec.pause.is_on:
        raise Refusal(
            "bad-option", "paused= is for a task that is new; beside replace=yes, say PAUSE", "paused"
        )
    return o.AddTask(spec, task_id, replace=is_replace)


def _meant_option(options: dict[str, str], rest: str) -> str:
    """What to say of a schedule that is none, where it may be the rest of an option."""
    word = re.split("[ \t=]", rest)[0]
    if word.startswith("-") or word in RULES or word == "name":
        return f"; options are written {word.strip('-') or 'name'}=VALUE, without blanks"
    if (
        options
        and word[:1].isalpha()
        and word.lower() not in ("every", "each", "hourly", "midnight", *ADVERBS)
    ):
        key, value = options.popitem()
        whole = f'{key}="{escape(value)} {escape(word)}"'
        return f"; if it belongs to {key}=, its value stands in quotes: {whole}"
    return ""


def at(text: str, context: Context) -> o.AddTask:
    time, rest = g.time_word(text)
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", time) and (clock := re.match(r"[0-9]{1,2}:[0-9:]+", rest)):
        raise WrongWords(f'a time with a blank stands in double quotes, as in AT "{time} {clock[0]}" COMMAND')
    if time.lower() == "now":
        raise WrongWords("what is to run at once is NOW [key=value …] COMMAND")
    if re.match("[A-Za-z.]+=", time):
        raise WrongWords("the time comes first, and options behind it")
    if time[:1].isalpha() and '"' not in text[: len(time)]:
        raise WrongWords('a time in words stands in double quotes, as in AT "tomorrow at 8 AM" COMMAND')
    options, command = _once(rest, context)
    zone, named = g.zone(options, context), named_zone(time)
    if named and options.get("tz") and named != zone:
        raise Refusal("bad-option", f"tz={zone} contradicts the time, which says {named}", "tz")
    return o.AddTask(_one_off(parse_moment(time, zone, context.now), options, command, context))


def now(text: str, context: Context) -> o.AddTask:
    return o.AddTask(_one_off(context.now, *_once(text, context), context), now=True)


def _once(text: str, context: Context) -> tuple[dict[str, Any], str | None]:
    """Options and command of what runs once; of the record of a task without a schedule: it, and None."""
    text = text.lstrip(" \t")
    if not re.match(r'\{[ \t]*"', text):  # a shell's group has a blank there, and no quote behind it
        options, command = split_options(text, True)
        return _from_template(options, context), command
    words = _record(text, context)
    for key in ("schedule", "id", "replace", *PAUSE_KEYS):
        if key in words:
            raise Refusal("bad-option", f'"{key}" means nothing for what runs once', key)
    return words, None


def _one_off(moment_at: datetime, options: dict[str, Any], command: str | None, context: Context) -> TaskSpec:
    schedule = f"@at {format_time(moment_at)}"
    if command is None:
        return parse_record({"schedule": schedule} | options, context.default_tz, context.now)[1]
    if options.get("type", "shell") in PROGRAMS:
        check_no_schedule(command)
    return _spec(schedule, options, command, context.default_tz, context)


def _spec(schedule: str, options: dict[str, str], command: str, zone: str, context: Context) -> TaskSpec:
    name = options.pop("name", "")
    parsed = DEFAULTS
    if options:
        check_given(options)
        parsed = set_options(DEFAULTS, options, zone, context.now)
    return make_spec(name, schedule, command, parsed, context.default_tz)


def get(text: str, context: Context) -> q.GetTask:
    words, rev = g.split_words(text)[0], None
    if len(words) == 2 and (match := re.fullmatch(r"@([0-9]{1,9})", words[1])):
        rev, words = int(match[1]), words[:1]
    return q.GetTask(g.one_word(words, "task"), rev)


def roll_back(text: str, context: Context) -> q.FindRevision:
    words, _ = g.split_words(text)
    if len(words) != 2:
        raise WrongWords("one task and a revision are wanted")
    return q.FindRevision(words[0], parse_count(words[1].removeprefix("@"), 1, g.MAX_LIMIT))


def set_task(text: str, context: Context) -> o.SetTask:
    words, options = g.split_any(text)
    if words[2:] and words[1] in RULES:
        raise WrongWords(f"options are written {words[1]}=VALUE, without blanks")
    ref = g.ref(words, options)
    if not options:
        raise WrongWords("nothing to set")
    for key in {"cron", "cmd", "id"} & options.keys():
        hint = {"cron": "schedule= is", "cmd": "command= is", "id": "a task keeps its number; name= is"}[key]
        raise Refusal("bad-option", f"there is no option {key}=; {hint} what SET takes", key)
    rev = _rev(ref, options)
    if not options:
        raise WrongWords("nothing to set")
    for name in options.get("unset", "A").split(","):
        check_variable(name, "unset=")
    return o.SetTask(ref, options, rev)


def _rev(ref: o.Ref, options: dict[str, str]) -> int | None:
    """rev=, which is taken out: the revision that whoever changes a task has seen."""
    if "rev" in options and not isinstance(ref, str):
        raise Refusal("bad-option", "rev= is of one task; tag= and name= choose some", "rev")
    rev = g.count(options, "rev", 1, g.MAX_LIMIT)
    options.pop("rev", None)
    return rev


def remove(text: str, context: Context) -> o.RemoveTask:
    words, options = g.split_words(text, "force", "rev", "tag", "name")
    ref = _target(words, options)
    return o.RemoveTask(ref, g.is_yes(options, "force"), _rev(ref, options))


def clear(text: str, context: Context) -> o.ClearTasks:
    if text.strip().lower() not in ("", "all"):
        raise WrongWords(f'"{escape(text.strip()[:40])}" is not `all`; REMOVE takes one task')
    return o.ClearTasks()


def pause(text: str, context: Context) -> o.PauseTasks:
    words, options = g.split_words(text, "until", "why", "tag", "name", "flow")
    if _TASK_FIRST.match(text) and any(match[1] for match in _VALUE_AND_WORD.finditer(text)):
        raise WrongWords("what follows the tasks are options")
    if len(words) > 1 and re.fullmatch("[0-9]+(?:s|m|min|h|d|days?)", words[-1]):
        raise WrongWords(f'"{words[-1][:40]}" is hardly a task')
    return _paused(_targets(words, options), options, context)


def _paused(
    refs: tuple[str, ...] | o.Pattern | None, options: dict[str, str], context: Context
) -> o.PauseTasks:
    return o.PauseTasks(refs, g.moment(options, "until", context), check_why(options.get("why", "")))


# `PAUSE x why=disk is full`: the rest of a text must not be taken for tasks.
_TASK_FIRST = re.compile(r"[ \t]*[^ \t=]+[ \t]")
_VALUE_AND_WORD = re.compile(
    r'"(?:[^"\\]|\\.)*+"|(?<![^ \t])(?:why|until)=[^ \t"]+[ \t]+([^ \t=]+(?:[ \t]|$))'
)


def resume(text: str, context: Context) -> o.ResumeTasks:
    return o.ResumeTasks(_targets(*g.split_words(text, "tag", "name", "flow")))


def _target(words: list[str], options: dict[str, str]) -> o.Ref:
    """As `g.ref`, where tag= and name= can be nothing else."""
    found = g.ref(words, options)
    if "tag" in options or "name" in options:
        raise WrongWords("either a task, or tag= and name= to choose some")
    return found


def _targets(words: list[str], options: dict[str, str]) -> tuple[str, ...] | o.Pattern | None:
    if flow := options.pop("flow", ""):
        if words or "tag" in options or "name" in options:
            raise WrongWords("flow= alone chooses all that hang together with a task")
        return o.Pattern("", "", flow)
    if "tag" not in options and "name" not in options:
        return g.refs(words)
    found = _target(words, options)
    assert isinstance(found, o.Pattern)
    return found


def run(text: str, context: Context) -> o.RunTask:
    if g.is_plain(text):  # as it mostly is
        return o.RunTask(text, {})
    words, options = g.split_any(text)
    if not options:
        return o.RunTask(g.ref(words, options), {})
    return o.RunTask(_target(words, options), _arguments(options, "arg."))


def flow(text: str, context: Context) -> Any:
    """What is done with a flow stands behind the name of any of its tasks, or the number of its run."""
    words, options = g.split_any(text)
    if not words or [word.upper() for word in words] == ["LIST"]:
        g.check_known(options, ())
        return q.Alone()
    ref, verb, *rest = *words[:2], *([""] * (len(words) < 2)), *words[2:]
    known = _FLOW.get(verb := verb.upper())
    if known is None:
        hint = meant(verb, [*filter(None, _FLOW)], {"RUN": "start", "CANCEL": "stop kill", "RETRY": "rerun"})
        raise WrongWords(f'"{escape(verb[:40])}" is nothing that can be done with a flow{hint}')
    if len(rest) > (verb in ("RETRY", "CANCEL")):
        raise WrongWords(f'"{escape(rest[-1][:40])}" says nothing there')
    if verb != "RUN":
        g.check_known(options, known[0])
    if ref.startswith("#") and not (
        re.fullmatch("#[0-9]{1,18}", ref) and verb in ("", "RETRY", "CANCEL") and not rest
    ):
        raise Refusal("syntax", f'"{escape(ref[:40])}" is no task; FLOW #N is one run of a flow')
    return known[1](ref, rest, options, context)


def _flow_number(words: list[str]) -> int | None:
    if words and not re.fullmatch("#?[0-9]{1,18}", words[0]):
        raise WrongWords(f'"{escape(words[0][:40])}" is not the number of a run of a flow')
    return int(words[0].lstrip("#")) if words else None


_FLOW: dict[str, tuple[tuple[str, ...], Callable[[str, list[str], dict[str, str], Context], Any]]] = {
    "": ((), lambda ref, words, options, context: q.ShowFlow(ref)),
    "RUN": ((), lambda ref, words, options, context: o.StartFlow(ref, _arguments(options, "arg."))),
    "RUNS": (("limit", "offset"), lambda ref, words, options, context: q.ListFlowRuns(ref, *g.page(options))),
    "RETRY": ((), lambda ref, words, options, context: o.RetryFlow(ref, _flow_number(words))),
    "CANCEL": ((), lambda ref, words, options, context: o.StopFlow(ref, _flow_number(words))),
    "PAUSE": (
        ("until", "why"),
        lambda ref, words, options, context: _paused(o.Pattern("", "", ref), options, context),
    ),
    "RESUME": ((), lambda ref, words, options, context: o.ResumeTasks(o.Pattern("", "", ref))),
}


def once(text: str, context: Context) -> q.Once:
    key, _, line = text.lstrip(" \t").partition(" ")
    if not line.strip():
        raise WrongWords("a key, and the line that it is for")
    if len(key) > MAX_KEY or not key.isprintable() or '"' in key:  # `""` is one that was not set
        rule = f"one word of at most {MAX_KEY} printable characters, without quotes"
        raise Refusal("bad-option", f"a key is {rule}", "KEY")
    return q.Once(key, line.lstrip(" \t"))


def emit(text: str, context: Context) -> o.EmitEvent:
    words, options = g.split_any(text)
    return o.EmitEvent(parse_event(g.one_word(words, "event")), _arguments(options, ""))


def _arguments(options: dict[str, str], prefix: str) -> dict[str, str]:
    """What a job finds in its environment, by name."""
    for key in options:
        if not re.fullmatch(re.escape(prefix) + "[A-Za-z_][A-Za-z0-9_]*", key):
            hint = f"; did you mean {prefix}{key}=?" if prefix and key.isidentifier() else ""
            raise Refusal("bad-option", f'"{escape(key)}=" is not {prefix}NAME={hint}', key)
    return {key.removeprefix(prefix): value for key, value in options.items()}


cancel = g.one(lambda word: o.CancelRun(g.run_number(word)), "run number")


def undo(text: str, context: Context) -> o.UndoChanges:
    word = g.one_or_none(g.split_words(text)[0], "number")
    if word is not None and not word.lstrip("-").isdecimal():
        why = f'"{escape(word[:40])}" is no number of changes; a task has ROLLBACK REF REV'
        raise Refusal("bad-option", why)
    return o.UndoChanges(parse_count(word, 1, MAX_UNDONE) if word is not None else 1)


# --- looking --------------------------------------------------------------------------------


def list_tasks(text: str, context: Context) -> q.ListTasks:
    words, options = g.split_words(text, *_LIST_KEYS)
    if words:
        word, key = words[0], "state" if words[0].lower() in TASK_STATES else "name"
        is_glob = re.fullmatch(r"[A-Za-z0-9._*?!\[\]-]+", word) and word not in _LIST_KEYS
        hint = f"; did you mean {key}={word[:40]}?" if is_glob else ""
        raise WrongWords(f'options only are taken, not "{escape(word[:40])}"{escape(hint)}')
    sort = g.choice(options, "sort", (*SORTS, *(f"-{word}" for word in SORTS))) or "id"
    return q.ListTasks(
        g.choices(options, "state", TASK_STATES, **_STATES_ALSO), g.pattern(options), *g.page(options),
        options.get("owner", ""), g.choice(options, "type", TYPES), options.get("search", "").casefold(),
        sort.lstrip("-"), sort[0] == "-", g.is_yes(options, "count"),
    )  # fmt: skip


SORTS = ("id", "name", "next", "state", "last")
_LIST_KEYS = ("state", "tag", "name", "owner", "type", "search", "sort", "limit", "offset", "count")


def runs(text: str, context: Context) -> q.ListRuns:
    keys = ("run", "state", "worker", "exit", "tag", "flow", *g.BOUNDS, "limit", "offset", "count")
    words, options = g.split_words(text, *keys)
    ref, states = g.one_or_all(words), g.choices(options, "state", RUN_STATES, **_STATES_ALSO)
    if worker := options.get("worker", ""):
        check_worker_name(worker)
    tag, status = g.asked_tag(options.get("tag", "")), g.count(options, "exit", 0, 999)
    bounds, page = g.bounds(options, context), g.page(options)
    flow, run = g.count(options, "flow", 1, g.MAX_LIMIT), g.count(options, "run", 1, 10**18)
    counts = g.is_yes(options, "count")
    return q.ListRuns(
        ref, states, *bounds, *page, worker=worker, exit=status, tag=tag, flow=flow, run=run, counts=counts
    )


def prove(text: str, context: Context) -> q.ProveLedger:
    return q.ProveLedger(*g.bounds(g.no_words(text, *g.BOUNDS), context))


def stats(text: str, context: Context) -> q.ShowStats:
    words, options = g.split_words(text, "by", "tz", *g.BOUNDS)
    by = g.choice(options, "by", ("day", "hour"))
    tz = g.zone(options, context) if "tz" in options else "UTC"
    return q.ShowStats(g.one_or_all(words), by, tz, *g.bounds(options, context))


def failed(text: str, context: Context) -> q.ListFailed:
    return q.ListFailed(g.bounds(g.no_words(text, "since", "last"), context)[0])


def history(text: str, context: Context) -> q.ShowHistory:
    words, options = g.split_words(text, "limit", "offset")
    return q.ShowHistory(g.one_or_all(words), *g.page(options))


def log(text: str, context: Context) -> q.ShowLog:
    words, options = g.split_words(text, "fd", "tail")
    fd, tail = g.count(options, "fd", 0, 2), g.count(options, "tail", 0, g.MAX_LIMIT)
    follow = [word.lower() for word in words[1:]][-1:] in (["follow"], ["-f"], ["--follow"])
    ref, *back = words[: len(words) - follow] or [""]
    if ref.isdecimal() and not back:
        return q.ShowLog(g.run_number(ref), follow, fd=fd, tail=tail)
    if not ref or len(back) > 1 or not re.fullmatch("-[0-9]{1,4}|", "".join(back)):
        raise WrongWords("a run is wanted, or a task and how many runs back, and `follow` if you like")
    return q.ShowLog(0, follow, ref, -int("".join(back) or 0), fd, tail)


def why(text: str, context: Context) -> q.AskWhy:
    words, _ = g.split_words(text)
    if not 1 <= len(words) <= 2:
        raise WrongWords("one task, and a time if you like")
    return q.AskWhy(words[0], words[1] if words[1:] else "")


def next_moments(text: str, context: Context) -> q.ShowNext:
    words, options = g.split_words(text, "n", "last", "tz", "from", "by")
    ref, schedule = g.ref_or_schedule(text, words)
    within = g.duration(options, "last")
    count = g.count(options, "n", 1, MAX_NEXT) or (MAX_NEXT if within else 5)
    zone = _asked_zone(options, context)
    from_at = g.moment(options, "from", context, zone)
    ref = "all" if ref.lower() == "all" else ref
    by_hour = g.choice(options, "by", ("hour",)) == "hour"
    if by_hour and "n" in options:
        raise Refusal("bad-option", "n= is for moments; of by=hour, last= says how many hours", "n")
    return q.ShowNext(ref, schedule, zone, count, from_at, within, by_hour)


def health(text: str, context: Context) -> q.AskHealth:
    options = g.no_words(text, "late", "queue")
    late, queue = g.duration(options, "late"), g.count(options, "queue", 0, g.MAX_LIMIT)
    return q.AskHealth(late.total_seconds() if late else LATE_S, MAX_WAITING if queue is None else queue)


metrics = g.one_at_most(lambda name: q.ShowMetrics((name or "").removeprefix("cronflowd_")), "name")


def describe(text: str, context: Context) -> q.DescribeSchedule:
    words, options = g.split_words(text, "tz")
    ref, schedule = g.ref_or_schedule(text, words)
    if ref and options:
        raise Refusal("bad-option", "tz= is for a schedule; a task has a zone of its own", "tz")
    return q.DescribeSchedule(ref, schedule, _asked_zone(options, context))


def _asked_zone(options: dict[str, str], context: Context) -> str:
    return g.zone(options, context) if "tz" in options else ""


dependencies = g.one_at_most(q.ShowDependencies, "task")


def watch(text: str, context: Context) -> q.Watch:
    words, options = g.split_words(text, "id", "since")
    kinds = frozenset(word.lower() for word in words)
    if unknown := kinds.difference(events.ALL_KINDS):
        hint = meant(min(unknown), events.ALL_KINDS, {"tasks": "jobs", "workers": "nodes"})
        raise WrongWords(f'"{escape(min(unknown)[:40])}" cannot be watched{hint}')
    since = re.fullmatch(r"([0-9]{1,18})(?:\.([0-9]))?", options.get("since", "0"))
    if since is None:
        raise Refusal(
            "bad-option", "since=: this is the last column of a row of WATCH, as in since=1234", "since"
        )
    place = q.Since(int(since[1]), int(since[2] or 0)) if "since" in options else None
    return q.Watch(kinds or frozenset(events.KINDS), options.get("id"), place)


def clock_changes(text: str, context: Context) -> q.ShowClockChanges:
    words, options = g.split_words(text, "until")
    return q.ShowClockChanges(g.one_or_all(words), g.until(options, context))


def zone_differences(text: str, context: Context) -> q.CompareZones:
    words, options = g.split_words(text, "until", "n")
    if not words:
        raise WrongWords("no directory")
    directory, ref = words[0], g.one_or_all(words[1:])
    return q.CompareZones(directory, ref, g.until(options, context), g.count(options, "n", 1, MAX_NEXT) or 3)


# --- expectations ---------------------------------------------------------------------------


def expect(text: str, context: Context) -> o.SetExpectation:
    words, options = g.split_any(text)
    g.check_known(options, ("every", "grace", "notify", "desc", "start"))
    return o.SetExpectation(g.one_word(words, "name"), options)


def beat(text: str, context: Context) -> o.ReceiveBeat:
    """A text follows only a word that says how it went: `failed` must not pass for a text that is ok."""
    name, rest = g.cut_word(text)
    word, said = g.cut_word(rest)
    word, said = word.lower(), said.strip(" \t")
    if not name:
        raise WrongWords("no name")
    if not re.fullmatch("ok|fail|[0-9]{1,3}|", word):
        hint = meant(word, ("ok", "fail"), {"ok": "okay success good up done", "fail": "bad error down"})
        raise Refusal("syntax", f'"{escape(word[:40])}" is neither ok nor fail, nor an exit status{hint}')
    status = int(word) if word.isdigit() else word == "fail"
    if status > 255:
        raise Refusal("bad-option", f"{word} is no exit status: they are 0 to 255")
    if word.isdigit() and status:
        said = f"exit {status}{': ' if said else ''}{said}"
    return o.ReceiveBeat(name, not status, said[:MAX_BEAT_TEXT])


# --- files and connection -------------------------------------------------------------------


def file(make: Callable[[str], Any], default: str = "tasks.db") -> Parser:
    return g.one_at_most(lambda name: make(name or default), "file name")


def import_line(text: str, context: Context) -> q.ImportLine:
    """Flags, then the line as it is. No line that means something in a crontab begins with `--`."""
    flags: set[str] = set()
    while match := re.match(r"--([^ \t]*)(?:[ \t]|$)", text):
        if match[1] not in ("system", "dry-run", "replace"):
            hint = meant(match[1], ("system", "dry-run", "replace"), {"dry-run": "n test check"})
            why = f'"--{escape(match[1][:40])}" is none of --system, --dry-run, --replace{hint}'
            raise Refusal("bad-option", why)
        flags.add(match[1])
        text = text[match.end() :]
    return q.ImportLine(text, "system" in flags, "dry-run" in flags, "replace" in flags)


def export(text: str, context: Context) -> q.ExportTasks:
    words, _ = g.split_words(text)
    return q.ExportTasks(g.refs(words) if words else None)


def hello(text: str, context: Context) -> q.Hello:
    return q.Hello(g.no_words(text, "name").get("name", ""))


def set_format(text: str, context: Context) -> q.SetFormat:
    words, options = g.split_words(text, "width")
    word = g.one_word(words, "format").lower()
    if word not in ("json", "text", "table"):
        also = {"text": "plain lines tsv csv", "table": "columns human"}
        hint = meant(word, ("json", "text", "table"), also)
        raise Refusal("syntax", f'"{escape(word[:40])}" is neither json nor text nor table{hint}')
    width = g.count(options, "width", 0, g.MAX_WIDTH)
    return q.SetFormat(word == "json", width or 0 if word == "table" else None)


def help_about(text: str, context: Context) -> q.Help:
    return q.Help(text.strip())


def step_down(text: str, context: Context) -> q.StepDown:
    words = text.split()
    if len(words) > 1:
        raise WrongWords("one node can lead")
    return q.StepDown("".join(words))


def drain(draining: bool) -> Parser:
    return g.one(lambda name: o.DrainWorker(name, draining), "worker")
