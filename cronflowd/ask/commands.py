"""The verb table of the control port: one line in, one order or question out.

`parse` knows the grammar and nothing else: it finds no task and changes nothing, so a
line it refuses has had no effect. To add a verb: a class in orders.py or questions.py, a function and a
row here, a section in protocol.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from attrs import frozen

from ..base.errors import Refusal
from ..base.text import escape, format_time, split_options, take_options
from ..engine import orders as o
from ..schedules.english import parse_moment
from ..schedules.schedule import settle_schedule, split_schedule
from ..schedules.words import named_zone
from ..schedules.zones import parse_zone
from ..tasks.options import DEFAULTS, parse_count, refuse_masks, set_options
from ..tasks.task import ENDED, make_spec, parse_json, parse_record
from . import questions as q

MAX_REFS = 1000
MAX_NEXT = 1000
MAX_UNDONE = 100
MAX_AHEAD_DAYS = 7305  # 20 years
MAX_LIMIT = 999_999_999
MAX_PATTERN = 128  # characters of name=; a name has at most 64
MAX_BEAT_TEXT = 500  # characters kept of what a BEAT says
TASK_STATES = ("scheduled", "running", "queued", "paused", "idle", "unreadable")
RUN_STATES = ("queued", "sent", "running", *sorted(ENDED))


@frozen
class Context:
    """What a line means depends on this much of the world."""

    now: datetime
    default_tz: str


Parser = Callable[[str, Context], Any]


@frozen
class Verb:
    """One row of the table."""

    parse: Parser
    usage: str
    summary: str
    reads: bool = True  # only reads: counts even as an unfinished last line


def parse(line: str, context: Context) -> Any:
    """The order or question that `line` asks. Raises Refusal, which names the word that is wrong."""
    word, rest = _cut(line)
    verb = VERBS.get(word.upper())
    if verb is None:
        raise Refusal("unknown-command", f'"{escape(word[:40])}" is not a command; HELP lists them')
    return verb.parse(rest, context)


def only_reads(line: str) -> bool:
    """Whether a line without its newline may be taken for whole: it changes nothing, or is nonsense."""
    verb = VERBS.get(_cut(line)[0].upper())
    return verb is None or verb.reads


def _cut(line: str) -> tuple[str, str]:
    match = _FIRST_WORD.match(line)
    assert match
    return match[1], line[match.end() :]


_FIRST_WORD = re.compile(r"[ \t]*([^ \t]*)[ \t]?")
_BLANKS = re.compile(r"[ \t]*")
_WORD = re.compile(r'"((?:[^"\\]|\\["\\])*)"(?=[ \t]|$)|[^ \t"]+')


def split_words(text: str) -> tuple[list[str], dict[str, str]]:
    """Plain or quoted words, and `key=value` options, in any order."""
    words: list[str] = []
    options: dict[str, str] = {}
    at = _skip_blanks(text, 0)
    while (at := take_options(text, at, options)) < len(text):
        match = _WORD.match(text, at)
        if match is None:
            raise Refusal("syntax", f"a quote is not closed: {escape(text[at : at + 40])}")
        words.append(re.sub(r"\\([\"\\])", r"\1", match[1]) if match[1] is not None else match[0])
        at = _skip_blanks(text, match.end())
    return words, options


def _skip_blanks(text: str, at: int) -> int:
    match = _BLANKS.match(text, at)
    assert match
    return match.end()


def _only(options: dict[str, str], *known: str) -> None:
    for key in options:
        if key not in known:
            raise Refusal(
                "bad-option", f'there is no option "{escape(key)}" here; known: {", ".join(known) or "none"}'
            )


def _one_ref(text: str, usage: str) -> tuple[str, dict[str, str]]:
    words, options = split_words(text)
    if len(words) != 1:
        what = "worker" if usage.endswith("WORKER") else "task"
        raise Refusal("syntax", f"one {what} is wanted, {len(words)} words were given; usage: {usage}")
    return words[0], options


def _nothing(make: Callable[[], Any]) -> Parser:
    def parse_nothing(text: str, context: Context) -> Any:
        if text.strip():
            raise Refusal(
                "syntax", f'nothing is expected after the command, not "{escape(text.strip()[:40])}"'
            )
        return make()

    return parse_nothing


# --- adding ---


def _add(text: str, context: Context) -> o.AddTask:
    text = text.lstrip(" \t")
    if text.startswith("{"):
        record = parse_json(text, "the task")
        refuse_masks(record if isinstance(record, dict) else {})
        task_id, spec = parse_record(record, context.default_tz)
        return o.AddTask(spec, task_id)
    options, rest = split_options(text)
    if not rest:
        raise Refusal("syntax", "no schedule; usage: ADD [key=value …] SCHEDULE COMMAND")
    schedule, command = split_schedule(rest)
    schedule = settle_schedule(schedule, options.get("tz") or context.default_tz, context.now)
    name = options.pop("name", "")
    zone = named_zone(schedule) or context.default_tz
    refuse_masks(options)
    parsed = set_options(DEFAULTS, options, zone, context.now)
    return o.AddTask(make_spec(name, schedule, command, parsed, context.default_tz))


def _at(text: str, context: Context) -> o.AddTask:
    time, rest = _time_word(text)
    options, command = split_options(rest)
    zone, named = _zone(options, context), named_zone(time)
    if named and options.get("tz") and named != zone:
        raise Refusal("bad-option", f"tz={zone} contradicts the time, which says {named}")
    at = parse_moment(time, zone, context.now)
    return o.AddTask(_one_off(at, options, command, context))


def _now(text: str, context: Context) -> o.AddTask:
    options, command = split_options(text.lstrip(" \t"))
    return o.AddTask(_one_off(context.now, options, command, context), now=True)


def _one_off(at: datetime, options: dict[str, str], command: str, context: Context) -> Any:
    name = options.pop("name", "")
    refuse_masks(options)
    parsed = set_options(DEFAULTS, options, context.default_tz, context.now)
    return make_spec(name, f"@at {format_time(at)}", command, parsed, context.default_tz)


def _time_word(text: str) -> tuple[str, str]:
    match = _WORD.match(text := text.lstrip(" \t"))
    if match is None:
        raise Refusal("syntax", "no time; usage: AT TIME [key=value …] COMMAND")
    return match[1] if match[1] is not None else match[0], text[match.end() :].lstrip(" \t")


def _zone(options: dict[str, str], context: Context) -> str:
    return parse_zone(options.get("tz") or context.default_tz)


def _get(text: str, context: Context) -> q.GetTask:
    usage = VERBS["GET"].usage
    words, options = split_words(text)
    _only(options)
    rev = None
    if len(words) == 2 and (match := re.fullmatch(r"@([0-9]{1,9})", words[1])):
        rev, words = int(match[1]), words[:1]
    if len(words) != 1:
        raise Refusal("syntax", f"one task is wanted, {len(words)} words were given; usage: {usage}")
    return q.GetTask(words[0], rev)


def _set(text: str, context: Context) -> o.SetTask:
    usage = VERBS["SET"].usage
    ref, words = _one_ref(text, usage)
    if not words:
        raise Refusal("syntax", f"nothing to set; usage: {usage}")
    return o.SetTask(ref, words)


def _ref_only(make: Callable[[str], Any], usage: str) -> Parser:
    def parse_ref(text: str, context: Context) -> Any:
        ref, options = _one_ref(text, usage)
        _only(options)
        return make(ref)

    return parse_ref


def _remove(text: str, context: Context) -> o.RemoveTask:
    ref, options = _one_ref(text, VERBS["REMOVE"].usage)
    _only(options, "force")
    return o.RemoveTask(ref, _choice(options, "force", ("yes", "no")) == "yes")


# --- pausing and running ---


def _pause(text: str, context: Context) -> o.PauseTasks:
    words, options = split_words(text)
    _only(options, "until", "why")
    until = options.get("until")
    until_at = parse_moment(until, context.default_tz, context.now) if until else None
    return o.PauseTasks(_refs(words, "PAUSE"), until_at, options.get("why", ""))


def _resume(text: str, context: Context) -> o.ResumeTasks:
    words, options = split_words(text)
    _only(options)
    return o.ResumeTasks(_refs(words, "RESUME"))


def _refs(words: list[str], verb: str) -> tuple[str, ...] | None:
    if not words:
        raise Refusal("syntax", f"no task; usage: {VERBS[verb].usage}")
    if [word.lower() for word in words] == ["all"]:
        return None
    if len(words) > MAX_REFS:
        raise Refusal("limit", f"more than {MAX_REFS} tasks in one line; `all` means every one")
    return tuple(words)


def _run(text: str, context: Context) -> o.RunTask:
    ref, options = _one_ref(text, VERBS["RUN"].usage)
    args: dict[str, str] = {}
    for key, value in options.items():
        if not re.fullmatch(r"arg\.[A-Za-z_][A-Za-z0-9_]*", key):
            raise Refusal("bad-option", f'"{escape(key)}=" is not arg.NAME=')
        args[key[4:]] = value
    return o.RunTask(ref, args)


def _run_number(word: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", word):
        raise Refusal("syntax", f'"{escape(word[:40])}" is not a run number')
    return int(word)


def _cancel(text: str, context: Context) -> o.CancelRun:
    words, options = split_words(text)
    _only(options)
    if len(words) != 1:
        raise Refusal("syntax", f"one run number is wanted; usage: {VERBS['CANCEL'].usage}")
    return o.CancelRun(_run_number(words[0]))


def _undo(text: str, context: Context) -> o.UndoChanges:
    words, options = split_words(text)
    _only(options)
    if len(words) > 1:
        raise Refusal("syntax", f"one number at most; usage: {VERBS['UNDO'].usage}")
    return o.UndoChanges(parse_count(words[0], 1, MAX_UNDONE) if words else 1)


# --- looking ---


def _list(text: str, context: Context) -> q.ListTasks:
    words, options = split_words(text)
    if words:
        raise Refusal(
            "syntax", f'LIST takes filters only, not "{escape(words[0][:40])}"; usage: {VERBS["LIST"].usage}'
        )
    _only(options, "state", "tag", "name", "limit", "offset")
    state, pattern = _choice(options, "state", TASK_STATES), options.get("name", "")
    if len(pattern) > MAX_PATTERN:  # before it is worked on: making it a matcher costs its square
        raise Refusal("bad-option", f"name=: longer than {MAX_PATTERN} characters")
    return q.ListTasks(state, options.get("tag", ""), pattern, *_page(options))


def _choice(options: dict[str, str], key: str, known: tuple[str, ...]) -> str:
    value = options.get(key, "")
    if value and value not in known:
        raise Refusal("bad-option", f'{key}=: "{escape(value)}" is not one of {", ".join(known)}')
    return value


def _page(options: dict[str, str]) -> tuple[int | None, int]:
    return _count(options, "limit", 0, MAX_LIMIT), _count(options, "offset", 0, MAX_LIMIT) or 0


def _count(options: dict[str, str], key: str, low: int, high: int) -> int | None:
    if not (text := options.get(key)):
        return None
    try:
        return parse_count(text, low, high)
    except Refusal as refusal:
        raise Refusal(refusal.code, f"{key}=: {refusal.message}") from None


def _runs(text: str, context: Context) -> q.ListRuns:
    words, options = split_words(text)
    _only(options, "state", "since", "until", "limit", "offset")
    if len(words) > 1:
        raise Refusal("syntax", f"one task at most; usage: {VERBS['RUNS'].usage}")
    state = _choice(options, "state", RUN_STATES)
    return q.ListRuns(words[0] if words else None, state, *_bounds(options, context), *_page(options))


def _bounds(options: dict[str, str], context: Context) -> tuple[datetime | None, datetime | None]:
    """since= and until=."""
    since_at, until_at = (
        parse_moment(options[key], context.default_tz, context.now) if options.get(key) else None
        for key in ("since", "until")
    )
    return since_at, until_at


def _prove(text: str, context: Context) -> q.ProveLedger:
    since_at, until_at = _bounds(_options_only(text, "PROVE", "since", "until"), context)
    if since_at and until_at and until_at < since_at:
        raise Refusal("bad-option", f"until={format_time(until_at)} is before since=")
    return q.ProveLedger(since_at, until_at)


def _stats(text: str, context: Context) -> q.ShowStats:
    words, options = split_words(text)
    _only(options, "by", "since", "until")
    by = _choice(options, "by", ("day", "hour"))
    return q.ShowStats(_one_or_all(words, "STATS"), by, *_bounds(options, context))


def _failed(text: str, context: Context) -> q.ListFailed:
    return q.ListFailed(_bounds(_options_only(text, "FAILED", "since"), context)[0])


def _options_only(text: str, verb: str, *known: str) -> dict[str, str]:
    words, options = split_words(text)
    _only(options, *known)
    if words:
        raise Refusal(
            "syntax", f'{verb} takes options only, not "{escape(words[0][:40])}"; usage: {VERBS[verb].usage}'
        )
    return options


def _history(text: str, context: Context) -> q.ShowHistory:
    words, options = split_words(text)
    _only(options, "limit", "offset")
    if len(words) > 1:
        raise Refusal("syntax", f"one task at most; usage: {VERBS['HISTORY'].usage}")
    return q.ShowHistory(words[0] if words else None, *_page(options))


def _log(text: str, context: Context) -> q.ShowLog:
    words, options = split_words(text)
    _only(options)
    if not words or len(words) > 2 or (len(words) == 2 and words[1].lower() != "follow"):
        raise Refusal("syntax", f"usage: {VERBS['LOG'].usage}")
    return q.ShowLog(_run_number(words[0]), len(words) == 2)


def _why(text: str, context: Context) -> q.AskWhy:
    words, options = split_words(text)
    _only(options)
    if not 1 <= len(words) <= 2:
        raise Refusal("syntax", f"one task, and a time if you like; usage: {VERBS['WHY'].usage}")
    return q.AskWhy(words[0], words[1] if words[1:] else "")


def _ref_or_schedule(text: str, words: list[str], verb: str) -> tuple[str, str]:
    """A task's REF, or else a schedule; the other of the two is empty."""
    if not words:
        raise Refusal("syntax", f"no task and no schedule; usage: {VERBS[verb].usage}")
    quoted = text.lstrip(" \t").startswith('"')
    # Five bare fields cannot be mistaken for a task, so they need no quotes here.
    is_schedule = quoted or len(words) > 1 or words[0].startswith("@")
    return ("", " ".join(words)) if is_schedule else (words[0], "")


def _asked_zone(options: dict[str, str], context: Context) -> str:
    return _zone(options, context) if options.get("tz") else ""


def _next(text: str, context: Context) -> q.ShowNext:
    words, options = split_words(text)
    _only(options, "n", "tz", "from")
    ref, schedule = _ref_or_schedule(text, words, "NEXT")
    count = _count(options, "n", 1, MAX_NEXT) or 5
    zone, start = _asked_zone(options, context), options.get("from")
    from_at = parse_moment(start, zone or context.default_tz, context.now) if start else None
    return q.ShowNext(ref, schedule, zone, count, from_at)


def _describe(text: str, context: Context) -> q.DescribeSchedule:
    words, options = split_words(text)
    _only(options, "tz")
    ref, schedule = _ref_or_schedule(text, words, "DESCRIBE")
    if ref and options:
        raise Refusal("bad-option", "tz= is for a schedule; a task has a zone of its own")
    return q.DescribeSchedule(ref, schedule, _asked_zone(options, context))


def _deps(text: str, context: Context) -> q.ShowDependencies:
    return q.ShowDependencies(_one_ref(text, "DEPS REF")[0] if text.strip() else None)


def _watch(text: str, context: Context) -> q.Watch:
    words, options = split_words(text)
    _only(options, "id")
    kinds = frozenset(word.lower() for word in words)
    if unknown := kinds - {"tasks", "runs", "workers"}:
        raise Refusal(
            "syntax", f'"{escape(min(unknown)[:40])}" cannot be watched; usage: {VERBS["WATCH"].usage}'
        )
    return q.Watch(kinds or frozenset({"tasks", "runs", "workers"}), options.get("id"))


# --- seeing ahead ---


def _dst(text: str, context: Context) -> q.ShowClockChanges:
    words, options = split_words(text)
    _only(options, "until")
    return q.ShowClockChanges(_one_or_all(words, "DST"), _until(options, context))


def _tzdiff(text: str, context: Context) -> q.CompareZones:
    words, options = split_words(text)
    _only(options, "until", "n")
    if not words:
        raise Refusal("syntax", f"no directory; usage: {VERBS['TZDIFF'].usage}")
    directory, ref = words[0], _one_or_all(words[1:], "TZDIFF")
    return q.CompareZones(directory, ref, _until(options, context), _count(options, "n", 1, MAX_NEXT) or 3)


def _one_or_all(words: list[str], verb: str) -> str | None:
    if len(words) > 1:
        raise Refusal("syntax", f"one task at most; usage: {VERBS[verb].usage}")
    return words[0] if words and words[0].lower() != "all" else None


def _until(options: dict[str, str], context: Context) -> datetime:
    """How far to look ahead: a year, if nothing is said."""
    if not (text := options.get("until")):
        return context.now + timedelta(days=365)
    until_at = parse_moment(text, context.default_tz, context.now)
    if until_at <= context.now:
        raise Refusal("bad-option", f"until=: {format_time(until_at)} is not after now")
    if until_at > context.now + timedelta(days=MAX_AHEAD_DAYS):
        raise Refusal("bad-option", f"until=: at most {MAX_AHEAD_DAYS} days ahead")
    return until_at


# --- expectations ---


def _expect(text: str, context: Context) -> o.SetExpectation:
    words, options = split_words(text)
    _only(options, "every", "grace", "notify", "desc", "start")
    if len(words) != 1:
        raise Refusal("syntax", f"one name is wanted; usage: {VERBS['EXPECT'].usage}")
    return o.SetExpectation(words[0], options)


def _beat(text: str, context: Context) -> o.ReceiveBeat:
    """A text follows only a word that says how it went: `failed` must not pass for a text that is ok."""
    name, rest = _cut(text)
    word, said = _cut(rest)
    word, said = word.lower(), said.strip(" \t")
    if not name:
        raise Refusal("syntax", f"no name; usage: {VERBS['BEAT'].usage}")
    if not re.fullmatch("ok|fail|[0-9]{1,3}|", word):
        raise Refusal("syntax", f'"{escape(word[:40])}" is neither ok nor fail, nor an exit status')
    status = int(word) if word.isdigit() else word == "fail"
    if word.isdigit() and status:
        said = f"exit {status}{': ' if said else ''}{said}"
    return o.ReceiveBeat(name, not status, said[:MAX_BEAT_TEXT])


def _forget(text: str, context: Context) -> o.ForgetExpectation:
    words, options = split_words(text)
    _only(options)
    if len(words) != 1:
        raise Refusal("syntax", f"one name is wanted; usage: {VERBS['FORGET'].usage}")
    return o.ForgetExpectation(words[0])


# --- files and connection ---


def _file(make: Callable[[str], Any]) -> Parser:
    def parse_file(text: str, context: Context) -> Any:
        words, options = split_words(text)
        _only(options)
        if len(words) > 1:
            raise Refusal("syntax", "one file name at most")
        return make(words[0] if words else "tasks.db")

    return parse_file


def _import(text: str, context: Context) -> q.ImportLine:
    """Flags, then the line as it is. No line that means something in a crontab begins with `--`."""
    flags: set[str] = set()
    while match := re.match(r"--([^ \t]*)(?:[ \t]|$)", text):
        if match[1] not in ("system", "dry-run"):
            raise Refusal("bad-option", f'"--{escape(match[1][:40])}" is neither --system nor --dry-run')
        flags.add(match[1])
        text = text[match.end() :]
    return q.ImportLine(text, "system" in flags, "dry-run" in flags)


def _export(text: str, context: Context) -> q.ExportTasks:
    words, options = split_words(text)
    _only(options)
    return q.ExportTasks(_refs(words, "EXPORT") if words else None)


def _hello(text: str, context: Context) -> q.Hello:
    words, options = split_words(text)
    _only(options, "name")
    if words:
        raise Refusal("syntax", "usage: HELLO [name=NAME]")
    return q.Hello(options.get("name", ""))


def _auth(text: str, context: Context) -> q.Authenticate:
    if not (token := text.strip()):
        raise Refusal("syntax", "no token; usage: AUTH TOKEN")
    return q.Authenticate(token)


def _format(text: str, context: Context) -> q.SetFormat:
    word = text.strip().lower()
    if word not in ("json", "text"):
        raise Refusal("syntax", f'"{escape(word[:40])}" is neither json nor text')
    return q.SetFormat(word == "json")


def _help(text: str, context: Context) -> q.Help:
    word = text.strip().upper()
    if word and word not in VERBS:
        raise Refusal("not-found", f'"{escape(word[:40])}" is not a command; HELP lists them')
    return q.Help(word)


def _drain(draining: bool, usage: str) -> Parser:
    return _ref_only(lambda name: o.DrainWorker(name, draining), usage)


VERBS: dict[str, Verb] = {
    "ADD": Verb(_add, "ADD [key=value …] SCHEDULE COMMAND", "adds a task; also ADD {JSON}", reads=False),
    "LIST": Verb(_list, "LIST [state=] [tag=] [name=GLOB] [limit=] [offset=]", "all tasks"),
    "GET": Verb(_get, "GET REF [@REV]", "everything about one task; or as it was at a revision"),
    "SET": Verb(_set, "SET REF key=value …", "changes a task; schedule= command= name= too", reads=False),
    "REMOVE": Verb(_remove, "REMOVE REF [force=yes]", "removes a task", reads=False),
    "CLEAR": Verb(_nothing(o.ClearTasks), "CLEAR", "removes all tasks", reads=False),
    "STATUS": Verb(_nothing(q.ShowStatus), "STATUS", "how the daemon is"),
    "CLOCK": Verb(_nothing(q.ShowClock), "CLOCK", "the time here, and how far off the workers' clocks are"),
    "SAVE": Verb(_file(q.SaveTasks), "SAVE [FILE.db]", "writes all tasks to a file (tasks.db)", reads=False),
    "LOAD": Verb(_file(q.LoadFile), "LOAD [FILE.db]", "replaces all tasks by those of a file", reads=False),
    "IMPORT": Verb(_import, "IMPORT [--system] [--dry-run] LINE", "adds a line of a crontab", reads=False),
    "EXPORT": Verb(_export, "EXPORT [REF…]", "tasks as a crontab"),
    "PAUSE": Verb(_pause, "PAUSE REF…|all [until=TIME] [why=TEXT]", "starts no new runs", reads=False),
    "RESUME": Verb(_resume, "RESUME REF…|all", "the opposite", reads=False),
    "HISTORY": Verb(_history, "HISTORY [REF] [limit=] [offset=]", "who changed what, newest first"),
    "UNDO": Verb(_undo, "UNDO [N]", "takes back the last changes of tasks", reads=False),
    "RUN": Verb(_run, "RUN REF [arg.K=V …]", "runs a task now", reads=False),
    "NOW": Verb(_now, "NOW [key=value …] COMMAND", "runs a command once, now", reads=False),
    "AT": Verb(_at, "AT TIME [key=value …] COMMAND", "runs a command once, at a time", reads=False),
    "CANCEL": Verb(_cancel, "CANCEL RUN", "ends a run", reads=False),
    "RUNS": Verb(_runs, "RUNS [REF] [state=] [since=] [until=] [limit=] [offset=]", "what ran, newest first"),
    "STATS": Verb(
        _stats, "STATS [REF] [by=day|hour] [since=] [until=]", "how often, how well, how long, how late"
    ),
    "FAILED": Verb(_failed, "FAILED [since=]", "tasks whose last fire did not end well"),
    "PROVE": Verb(_prove, "PROVE [since=] [until=]", "that every fire is accounted for"),
    "WHY": Verb(_why, "WHY REF [TIME]", "why a task ran, or did not"),
    "LOG": Verb(_log, "LOG RUN [follow]", "what a run wrote"),
    "NEXT": Verb(_next, 'NEXT REF|"SCHEDULE" [n=5] [tz=ZONE] [from=TIME]', "the next moments"),
    "DEPS": Verb(_deps, "DEPS [REF]", "which tasks wait for which"),
    "DESCRIBE": Verb(_describe, 'DESCRIBE REF|"SCHEDULE" [tz=ZONE]', "what a schedule means, in English"),
    "DST": Verb(_dst, "DST [REF|all] [until=TIME]", "what the next clock changes do"),
    "TZDIFF": Verb(
        _tzdiff, "TZDIFF DIRECTORY [REF|all] [until=TIME] [n=3]", "what other zone data would change"
    ),
    "EXPECT": Verb(
        _expect,
        'EXPECT NAME every=TIME|"SCHEDULE" [grace=1h] [notify=] [start=TIME] [desc=]',
        "tells when NAME falls silent",
        reads=False,
    ),
    "BEAT": Verb(_beat, "BEAT NAME [ok|fail|STATUS [TEXT]]", "NAME shows life", reads=False),
    "EXPECTS": Verb(_nothing(q.ListExpectations), "EXPECTS", "who has to show life, and when"),
    "FORGET": Verb(_forget, "FORGET NAME", "expects nothing of NAME any more", reads=False),
    "WORKERS": Verb(_nothing(q.ListWorkers), "WORKERS", "who runs the jobs"),
    "DRAIN": Verb(_drain(True, "DRAIN WORKER"), "DRAIN WORKER", "sends a worker no more runs", reads=False),
    "UNDRAIN": Verb(_drain(False, "UNDRAIN WORKER"), "UNDRAIN WORKER", "sends it runs again", reads=False),
    "WATCH": Verb(_watch, "WATCH [tasks] [runs] [workers] [id=REF]", "a row for everything that happens"),
    "HELLO": Verb(_hello, "HELLO [name=NAME]", "keeps the connection open until QUIT"),
    "AUTH": Verb(_auth, "AUTH TOKEN", "shows who you are, where that is asked for"),
    "FORMAT": Verb(_format, "FORMAT json|text", "how replies look on this connection"),
    "HELP": Verb(_help, "HELP [VERB]", "this list"),
    "PING": Verb(_nothing(q.Ping), "PING", "PONG"),
    "QUIT": Verb(_nothing(q.Quit), "QUIT", "ends the connection"),
}
