"""What each verb makes of the words behind it: an order for the engine, or a question.

They know the grammar and nothing else: none finds a task or changes anything, so a line
that is refused has had no effect. The table of the verbs is commands.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from ..base.errors import Refusal
from ..base.text import escape, format_time, split_options
from ..engine import orders as o
from ..schedules.english import parse_moment
from ..schedules.schedule import settle_schedule, split_schedule
from ..schedules.words import named_zone
from ..tasks.options import DEFAULTS, parse_count, refuse_masks, set_options
from ..tasks.task import ENDED, make_spec, parse_json, parse_record
from . import grammar as g
from . import questions as q
from .grammar import Context, Parser, WrongWords

MAX_NEXT = 1000
MAX_UNDONE = 100
MAX_PATTERN = 128  # characters of name=; a name has at most 64
MAX_BEAT_TEXT = 500  # characters kept of what a BEAT says
TASK_STATES = ("scheduled", "running", "queued", "paused", "idle", "unreadable")
RUN_STATES = ("queued", "sent", "running", *sorted(ENDED))


# --- tasks ----------------------------------------------------------------------------------


def add(text: str, context: Context) -> o.AddTask:
    text = text.lstrip(" \t")
    if text.startswith("{"):
        record = parse_json(text, "the task")
        refuse_masks(record if isinstance(record, dict) else {})
        replace = isinstance(record, dict) and "replace" in record and _flag(record, "replace")
        task_id, spec = parse_record(record, context.default_tz)
        return o.AddTask(spec, task_id, replace=replace)
    options, rest = split_options(text)
    if not rest:
        options.pop("name", None)
        set_options(DEFAULTS, options, context.default_tz, context.now)  # an option that is wrong goes first
        raise WrongWords("no schedule")
    schedule, command = split_schedule(rest)
    schedule = settle_schedule(schedule, options.get("tz") or context.default_tz, context.now)
    zone, replace = named_zone(schedule) or context.default_tz, "replace" in options
    replace = replace and _flag(options, "replace")
    return o.AddTask(_spec(schedule, options, command, zone, context), replace=replace)


def _flag(words: dict[str, Any], name: str) -> bool:
    """Takes a word out that is no part of the definition."""
    word = str(words.pop(name)).lower()
    if word not in ("yes", "no", "true", "false"):
        raise Refusal("bad-option", f'{name}="{escape(word[:40])}" is neither yes nor no')
    return word in ("yes", "true")


def at(text: str, context: Context) -> o.AddTask:
    time, rest = g.time_word(text)
    options, command = split_options(rest)
    zone, named = g.zone(options, context), named_zone(time)
    if named and options.get("tz") and named != zone:
        raise Refusal("bad-option", f"tz={zone} contradicts the time, which says {named}")
    return o.AddTask(_one_off(parse_moment(time, zone, context.now), options, command, context))


def now(text: str, context: Context) -> o.AddTask:
    options, command = split_options(text.lstrip(" \t"))
    return o.AddTask(_one_off(context.now, options, command, context), now=True)


def _one_off(moment_at: datetime, options: dict[str, str], command: str, context: Context) -> Any:
    return _spec(f"@at {format_time(moment_at)}", options, command, context.default_tz, context)


def _spec(schedule: str, options: dict[str, str], command: str, zone: str, context: Context) -> Any:
    name = options.pop("name", "")
    refuse_masks(options)
    parsed = set_options(DEFAULTS, options, zone, context.now)
    return make_spec(name, schedule, command, parsed, context.default_tz)


def get(text: str, context: Context) -> q.GetTask:
    words, rev = g.split_words(text)[0], None
    if len(words) == 2 and (match := re.fullmatch(r"@([0-9]{1,9})", words[1])):
        rev, words = int(match[1]), words[:1]
    return q.GetTask(g.one_word(words, "task"), rev)


def set_task(text: str, context: Context) -> o.SetTask:
    words, options = g.split_any(text)
    ref = g.one_word(words, "task")
    if not options:
        raise WrongWords("nothing to set")
    return o.SetTask(ref, options)


def remove(text: str, context: Context) -> o.RemoveTask:
    words, options = g.split_words(text, "force")
    return o.RemoveTask(g.one_word(words, "task"), g.choice(options, "force", ("yes", "no")) == "yes")


def pause(text: str, context: Context) -> o.PauseTasks:
    words, options = g.split_words(text, "until", "why")
    until = options.get("until")
    until_at = parse_moment(until, context.default_tz, context.now) if until else None
    return o.PauseTasks(g.refs(words), until_at, options.get("why", ""))


def resume(text: str, context: Context) -> o.ResumeTasks:
    return o.ResumeTasks(g.refs(g.split_words(text)[0]))


def run(text: str, context: Context) -> o.RunTask:
    words, options = g.split_any(text)
    ref, args = g.one_word(words, "task"), {}
    for key, value in options.items():
        if not re.fullmatch(r"arg\.[A-Za-z_][A-Za-z0-9_]*", key):
            raise Refusal("bad-option", f'"{escape(key)}=" is not arg.NAME=')
        args[key[4:]] = value
    return o.RunTask(ref, args)


def cancel(text: str, context: Context) -> o.CancelRun:
    return o.CancelRun(g.run_number(g.one_word(g.split_words(text)[0], "run number")))


def undo(text: str, context: Context) -> o.UndoChanges:
    word = g.one_or_none(g.split_words(text)[0], "number")
    return o.UndoChanges(parse_count(word, 1, MAX_UNDONE) if word is not None else 1)


# --- looking --------------------------------------------------------------------------------


def list_tasks(text: str, context: Context) -> q.ListTasks:
    options = g.no_words(text, "state", "tag", "name", "limit", "offset")
    state, pattern = g.choice(options, "state", TASK_STATES), options.get("name", "")
    if len(pattern) > MAX_PATTERN:  # before it is worked on: making it a matcher costs its square
        raise Refusal("bad-option", f"name=: longer than {MAX_PATTERN} characters")
    if not _GLOB.fullmatch(pattern):
        raise Refusal("bad-option", f'name=: "{escape(pattern)}" has a [ without its ], as in web[12]')
    return q.ListTasks(state, options.get("tag", ""), pattern, *g.page(options))


_GLOB = re.compile(r"(?:[^\[]|\[!?+]?+[^\]]*+\])*+")  # a ] right behind [ or [! ends nothing


def runs(text: str, context: Context) -> q.ListRuns:
    words, options = g.split_words(text, "state", "since", "until", "limit", "offset")
    ref, state = g.one_or_none(words, "task"), g.choice(options, "state", RUN_STATES)
    return q.ListRuns(ref, state, *g.bounds(options, context), *g.page(options))


def prove(text: str, context: Context) -> q.ProveLedger:
    since_at, until_at = g.bounds(g.no_words(text, "since", "until"), context)
    if since_at and until_at and until_at < since_at:
        raise Refusal("bad-option", f"until={format_time(until_at)} is before since=")
    return q.ProveLedger(since_at, until_at)


def stats(text: str, context: Context) -> q.ShowStats:
    words, options = g.split_words(text, "by", "since", "until")
    by = g.choice(options, "by", ("day", "hour"))
    return q.ShowStats(g.one_or_all(words), by, *g.bounds(options, context))


def failed(text: str, context: Context) -> q.ListFailed:
    return q.ListFailed(g.bounds(g.no_words(text, "since"), context)[0])


def history(text: str, context: Context) -> q.ShowHistory:
    words, options = g.split_words(text, "limit", "offset")
    return q.ShowHistory(g.one_or_none(words, "task"), *g.page(options))


def log(text: str, context: Context) -> q.ShowLog:
    words, _ = g.split_words(text)
    follow = [word.lower() for word in words[1:]]
    if not words or follow not in ([], ["follow"]):
        raise WrongWords("a run, and `follow` if you like, are wanted")
    return q.ShowLog(g.run_number(words[0]), bool(follow))


def why(text: str, context: Context) -> q.AskWhy:
    words, _ = g.split_words(text)
    if not 1 <= len(words) <= 2:
        raise WrongWords("one task, and a time if you like")
    return q.AskWhy(words[0], words[1] if words[1:] else "")


def next_moments(text: str, context: Context) -> q.ShowNext:
    words, options = g.split_words(text, "n", "tz", "from")
    ref, schedule = g.ref_or_schedule(text, words)
    count = g.count(options, "n", 1, MAX_NEXT) or 5
    zone, start = _asked_zone(options, context), options.get("from")
    from_at = parse_moment(start, zone or context.default_tz, context.now) if start else None
    return q.ShowNext(ref, schedule, zone, count, from_at)


def describe(text: str, context: Context) -> q.DescribeSchedule:
    words, options = g.split_words(text, "tz")
    ref, schedule = g.ref_or_schedule(text, words)
    if ref and options:
        raise Refusal("bad-option", "tz= is for a schedule; a task has a zone of its own")
    return q.DescribeSchedule(ref, schedule, _asked_zone(options, context))


def _asked_zone(options: dict[str, str], context: Context) -> str:
    return g.zone(options, context) if options.get("tz") else ""


def dependencies(text: str, context: Context) -> q.ShowDependencies:
    return q.ShowDependencies(g.one_or_none(g.split_words(text)[0], "task"))


def watch(text: str, context: Context) -> q.Watch:
    words, options = g.split_words(text, "id")
    kinds = frozenset(word.lower() for word in words)
    if unknown := kinds - {"tasks", "runs", "workers"}:
        raise WrongWords(f'"{escape(min(unknown)[:40])}" cannot be watched')
    return q.Watch(kinds or frozenset({"tasks", "runs", "workers"}), options.get("id"))


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
    words, options = g.split_words(text, "every", "grace", "notify", "desc", "start")
    return o.SetExpectation(g.one_word(words, "name"), options)


def beat(text: str, context: Context) -> o.ReceiveBeat:
    """A text follows only a word that says how it went: `failed` must not pass for a text that is ok."""
    name, rest = g.cut_word(text)
    word, said = g.cut_word(rest)
    word, said = word.lower(), said.strip(" \t")
    if not name:
        raise WrongWords("no name")
    if not re.fullmatch("ok|fail|[0-9]{1,3}|", word):
        raise Refusal("syntax", f'"{escape(word[:40])}" is neither ok nor fail, nor an exit status')
    status = int(word) if word.isdigit() else word == "fail"
    if word.isdigit() and status:
        said = f"exit {status}{': ' if said else ''}{said}"
    return o.ReceiveBeat(name, not status, said[:MAX_BEAT_TEXT])


# --- files and connection -------------------------------------------------------------------


def file(make: Callable[[str], Any], default: str = "tasks.db") -> Parser:
    def parse_file(text: str, context: Context) -> Any:
        return make(g.one_or_none(g.split_words(text)[0], "file name") or default)

    return parse_file


def import_line(text: str, context: Context) -> q.ImportLine:
    """Flags, then the line as it is. No line that means something in a crontab begins with `--`."""
    flags: set[str] = set()
    while match := re.match(r"--([^ \t]*)(?:[ \t]|$)", text):
        if match[1] not in ("system", "dry-run", "replace"):
            raise Refusal(
                "bad-option", f'"--{escape(match[1][:40])}" is none of --system, --dry-run, --replace'
            )
        flags.add(match[1])
        text = text[match.end() :]
    return q.ImportLine(text, "system" in flags, "dry-run" in flags, "replace" in flags)


def export(text: str, context: Context) -> q.ExportTasks:
    words, _ = g.split_words(text)
    return q.ExportTasks(g.refs(words) if words else None)


def hello(text: str, context: Context) -> q.Hello:
    return q.Hello(g.no_words(text, "name").get("name", ""))


def authenticate(text: str, context: Context) -> q.Authenticate:
    if not (token := text.strip()):
        raise WrongWords("no token")
    return q.Authenticate(token)


def set_format(text: str, context: Context) -> q.SetFormat:
    words, options = g.split_words(text, "width")
    word = g.one_word(words, "format").lower()
    if word not in ("json", "text", "table"):
        raise Refusal("syntax", f'"{escape(word[:40])}" is neither json nor text nor table')
    width = g.count(options, "width", 0, g.MAX_WIDTH)
    return q.SetFormat(word == "json", width or 0 if word == "table" else None)


def help_about(text: str, context: Context) -> q.Help:
    return q.Help(text.strip())


def drain(draining: bool) -> Parser:
    return g.one(lambda name: o.DrainWorker(name, draining), "worker")
