"""HELP: the verbs, and what may be said in their places, so that nc alone is enough to find all of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..base.errors import Refusal
from ..base.nearest import meant
from ..base.replies import Reply
from ..base.text import escape
from ..tasks.kinds import TYPES, WHOSE
from ..tasks.options import DEFAULTS, RULES, format_option_of
from ..tasks.targets import EVENTS
from . import questions as q
from .commands import ALSO_CALLED, VERBS
from .parsers import RUN_STATES, TASK_STATES

Row = tuple[str, str, str]
COLUMNS = ("verb", "usage", "summary")

_MORE_OPTIONS: dict[str, Row] = {
    "name": ("name=", "NAME", "what it is called; letters, digits, `.`, `_`, `-` (default: task_<id>)"),
    "from": ("from=", "NAME", "ADD, AT, NOW: the options of a template; see TEMPLATE"),
    "paused": ("paused=", "yes|no", "ADD only: it starts nothing until RESUME (default: no)"),
    "replace": ("replace=", "yes|no", "ADD only: the task of that name, if there is one, becomes this"),
    "head": ("HEAD=", "yes|no", "of every verb with rows: columns for people, with a header (default: no)"),
    "env": ("env.NAME=", "TEXT", "a variable of the job"),
    "header": ("header.NAME=", "TEXT", "a header of a request"),
    "schedule": ("schedule=", '"SCHEDULE"', "SET only; in ADD it stands after the options"),
    "rev": ("rev=", "N", "SET, REMOVE: refused (busy) if the task's revision is another by now"),
    "unset": ("unset=", "A,B", "SET only: the job has these variables (env.NAME=) no longer"),
    "command": ("command=", '"COMMAND"', "SET only; in ADD it stands after the schedule"),
}
_WITH_OPTIONS = {
    "ADD": ("name", "from", "paused", "replace"),
    "SET": ("name", "schedule", "command", "rev", "unset"),
    "AT": ("name", "from"),
    "NOW": ("name", "from"),
}
_COMMANDS = {
    "shell": "a line for /bin/sh -c",
    "script": "a program and its arguments, without a shell",
    "http": "METHOD URL",
    "webhook": "URL",
    "email": "ADDRESS,ADDRESS",
    "custom": "HANDLER",
    "echo": "text",
    "sleep": "seconds",
    "calculate": "(2 + 3) * 10",
}
TOPICS: dict[str, tuple[tuple[str, str], ...]] = {
    "schedule": (
        ("* * * * *", "minute, hour, day of month, month (or jan-dec), day of week (0-7, or sun-sat)"),
        ("*/5 9-17 * * 1-5", "lists with commas, ranges, and steps behind * or a range"),
        ("0 18 L * *", "L: the last day; 15W: the weekday nearest to the 15th; LW: the last weekday"),
        ("0 9 * * 5#2", "the second Friday; 5L: the last Friday"),
        ('"* * * * * */10"', "six fields in quotes: seconds are the last"),
        ("@hourly @daily @weekly @monthly @yearly", "as in cron; @midnight and @annually too"),
        ("@every 90s", "evenly, from when the task was added"),
        ("@at TIME", "once; so do AT and NOW"),
        ("@reboot", "each time the daemon starts"),
        ("@after", "whenever the tasks of after= have ended well"),
        ("@on EVENT", "whenever somebody says EMIT EVENT"),
        ('"every 5 minutes"', '"every 15 minutes between 9:00 and 17:00 on weekdays"; "every hour at :30"'),
        ('"daily at 3 AM"', '"every weekday at 9:00 in Europe/Paris"; "twice a day"; "nightly at 2:00"'),
        ('"weekly on monday"', '"every monday and thursday at noon"; "every 2 weeks on friday"'),
        ('"monthly on the 1st and 15th"', '"first monday of every month at 8:30"; "last day of the month"'),
        ('"yearly on december 24 at 6 PM"', "DESCRIBE tells what a schedule means, NEXT when it comes"),
    ),
    "time": (
        ("2030-06-01T12:00:00Z", "or with an offset: 2030-06-01T14:00:00+02:00"),
        ('"2030-06-01 14:00"', "by the clock of the zone"),
        ('"in 10 minutes"', '"tomorrow at 8 AM"; "in 2 days at 9:00 in Europe/Paris"'),
        ('"2 hours ago"', "behind since=, last=, until= and WHY; yesterday, today"),
        ("2h", "so long from now; so long ago behind since=, last= and until= of what was"),
    ),
    "duration": (("250ms 30s 5m 1h30m 2d", "or a bare number of seconds"),),
    "ref": (("7", "a task's id"), ("backup", "its name")),
    "state": (("|".join(TASK_STATES), "of tasks, for LIST"), ("|".join(RUN_STATES), "of runs, for RUNS")),
    "event": (("+".join(EVENTS), "before a target of notify=; worker only in the daemon's own --notify"),),
}  # fmt: skip
# What else a topic is asked for by.
_ALSO_TOPICS = {
    word: topic
    for topic, words in {
        "schedule": "schedules cron crontab fields phrase phrases",
        "time": "times date since until last from",
        "duration": "durations",
        "state": "states",
        "event": "events",
        "add": "option options",
        "type": "types",
    }.items()
    for word in words.split()
}


def show(question: q.Help) -> Reply:
    """All verbs, a row each; or what there is to say about one word."""
    word = question.word.strip('"')
    rows = list(_rows(word)) if word else [(name, row.usage, row.summary) for name, row in VERBS.items()]
    if not rows:
        known = [*VERBS, *RULES, *_MORE_OPTIONS, *TYPES, *TOPICS]
        also = ALSO_CALLED | {key: rule.also for key, rule in RULES.items()}
        what = f'"{escape(word[:40])}" is no command, option or type; HELP lists commands, HELP ADD options'
        raise Refusal("not-found", what + meant(word, known, also))
    return Reply.counted(COLUMNS, rows)


def _rows(word: str) -> Iterator[Row]:
    key = re.split("[.=]", word.lower())[0]
    topic = "schedule" if word.startswith("@") else _ALSO_TOPICS.get(key, key)
    verb = "ADD" if topic == "add" else word.upper()
    if verb in VERBS:
        yield verb, VERBS[verb].usage, VERBS[verb].summary
    if verb in _WITH_OPTIONS:
        yield from (_MORE_OPTIONS[each] for each in _WITH_OPTIONS[verb])
        yield from map(_option, RULES)
        yield from (_MORE_OPTIONS[each] for each in ("env", "header"))
    yield from ((key, form, meaning) for form, meaning in TOPICS.get(topic, ()))
    if key in RULES:
        yield _option(key)
    elif key in _MORE_OPTIONS:
        yield _MORE_OPTIONS[key]
    else:  # an option, or a word, of some verbs
        said = (f"[{key}=", f"[{key}]", f"[{key}.", f" {key}=", f"|{key}=")
        yield from (
            (name, row.usage, row.summary) for name, row in VERBS.items() if any(x in row.usage for x in said)
        )
    yield from (_type(each) for each in TYPES if topic in (each, "type"))


def _type(kind: str) -> Row:
    own = " ".join(f"{each.replace('.X', '.NAME')}=" for each, kinds in WHOSE.items() if kind in kinds)
    return f"type={kind}", _COMMANDS[kind], f"options of its own: {own or 'none'}"


def _option(key: str) -> Row:
    rule = RULES[key]
    default = format_option_of(DEFAULTS, key)
    return f"{key}=", rule.form, f"{rule.what}{f' (default: {default})' if default else ''}"
