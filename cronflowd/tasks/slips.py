"""Lines that say something else than was meant: words of the schedule that ended in the command.

A command is carried out as it stands, so what can only be a slip is refused while the one who
wrote it is listening; what may be one is remarked on. Only a schedule without quotes can run over
into the command: behind one in quotes, and in JSON, everything is a command.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import NoReturn

from ..base.errors import Refusal
from ..base.text import escape
from ..schedules.rules import DAY_NAMES, MONTH_NAMES
from ..schedules.schedule import parse_schedule
from .kinds import PROGRAMS
from .options import DEFAULTS, RULES, set_options

MAX_READ = 256  # characters of a command, in search of what belongs before it

_NAME = f"(?:{'|'.join(name[:3] for name in (*DAY_NAMES, *MONTH_NAMES))})"
_ITEM = (
    rf"(?:\*[0-9]*|\?|(?:[0-9]{{1,4}}|{_NAME})(?:-(?:[0-9]{{1,4}}|{_NAME}))?)(?:/[0-9]+)?|[0-9]?L|LW|[0-9]{{1,2}}W"
    rf"|(?:[0-9]|{_NAME})#[0-9]|{_NAME}L"
)
_FIELD = re.compile(rf"(?:{_ITEM})(?:,(?:{_ITEM}))*", re.IGNORECASE)
# These may be programs: games/2048, w, and a daemon called mon. But hardly with a program behind them.
_PERHAPS = re.compile(rf"[0-5]?[0-9]|(?:19|20)[0-9]{{2}}|{_NAME}L?|L", re.IGNORECASE)
_YEAR = re.compile(r"(?:19|20)[0-9]{2}(?:-(?:19|20)[0-9]{2})?")
# No program is called so, but options of other schedulers are.
_LONG_OPTION = re.compile(r"--([a-z]+)(?=[= \t])")
_PLAIN = re.compile(r"[0-9]+|[a-z]+", re.IGNORECASE)
_FIVE = re.compile(rf"(?:(?:{_ITEM})(?:,(?:{_ITEM}))*[ \t]+){{5}}|@[a-z]+[ \t]", re.IGNORECASE)
_UNIT = re.compile(
    r"(?:seconds?|secs?|minutes?|mins?|hours?|hrs?|days?|weeks?|[0-9]+(?:ms|s|m|h|d))(?=[ \t]|$)"
)
_DAY = "(?:mon|tues|wednes|thurs|fri|satur|sun)days?"
_TIME = re.compile(
    rf"(?:at[ \t]+)?[0-9]{{1,2}}(?::[0-9]{{2}}\b|[ \t]?[ap]m\b)|on[ \t]+(?:the|[0-9])"
    rf"|at[ \t]+[0-9]+[ \t]+[a-z]|(?:on[ \t]+)?{_DAY}[ \t]",
    re.IGNORECASE,
)
# What does not begin so is no slip.
SUSPECT = re.compile(
    rf"[ \t]*(?:[*?@0-9]|--|L|[smhd][ \t]|{_DAY}|{_NAME}|at|on|sec|min|hour|hr|day|week|[a-z]+="
    r"|in[ \t]|from[ \t]|between[ \t]|every[ \t]|and[ \t]|utc\b|gmt\b|[a-z]+/[a-z])",
    re.IGNORECASE,
)
_KEY = re.compile(r"([a-z]+)=([^ \t;&|<>$`'\"()]*)[ \t]+[^ \t;&|]")


def check_command_word(schedule: str, command: str) -> None:
    """Refuses a command whose first word can only belong to the schedule before it, which has no quotes."""
    command = command[:MAX_READ].lstrip(" \t")
    word, _, rest = command.partition(" ")
    has_program = bool(rest.strip()) and not rest.lstrip().startswith("-")
    is_field = bool(_FIELD.fullmatch(word)) and not _PLAIN.fullmatch(word)
    is_field |= has_program and bool(_PERHAPS.fullmatch(word))
    if schedule.startswith("@"):
        every = schedule.removeprefix("@every").strip()
        is_unit = every != schedule and (_UNIT.match(command) or (every.isdigit() and word in "smhd"))
        if is_unit or is_field or _TIME.match(command) or word.startswith("@"):
            phrase = f"every {every} {word}" if is_unit else "daily at 9:00"
            _refuse(word, f'a schedule in words stands in double quotes, as in "{phrase}"')
    elif is_field:
        how = _six_fields(schedule, word)
        _refuse(word, f"{how}; a program that is called so stands behind a schedule in quotes")
    if _ZONE.fullmatch(word):
        _refuse(word, f"a zone stands before the schedule, as tz={word}")
    check_option_word(command)


_ZONE = re.compile(
    "UTC|GMT|(?:Africa|America|Antarctica|Asia|Atlantic|Australia|Europe|Indian|Pacific|Etc)/[A-Z][A-Za-z_/+-]+"
)


def check_phrase_rest(phrase: str, command: str) -> None:
    """Refuses a command that begins with more words of the phrase in quotes before it."""
    words = command[:MAX_READ].split()
    for count in range(min(len(words) - 1, MAX_PHRASE_WORDS) if _GOES_ON.match(command) else 0, 1, -1):
        more = " ".join(words[:count])
        try:
            parse_schedule(f"{phrase} {more}", "UTC")
        except Refusal:
            continue
        _refuse(words[0], f'the schedule goes on behind its quotes; say "{phrase} {more}"')
    check_option_word(command)


MAX_PHRASE_WORDS = 6
_GOES_ON = re.compile(r"[ \t]*(?:on|at|from|in|of|between|every|and)[ \t]", re.IGNORECASE)


def check_option_word(command: str) -> None:
    """Refuses a command that begins with an option of ours, which stands before the schedule."""
    command = command[:MAX_READ].lstrip(" \t")
    if match := _LONG_OPTION.match(command):
        _refuse(match[0], f"options stand before the schedule, as {match[1]}=VALUE")
    if (match := _KEY.match(command)) and _is_option(match[1], match[2]):
        _refuse(f"{match[1]}=", f"options stand before the schedule; a variable is env.{match[1]}=")


def _six_fields(schedule: str, word: str) -> str:
    """What a sixth field is here, with an example that is one: seconds stand first elsewhere, last here."""
    fields = schedule.replace("?", "*").split()
    first, last = [*fields[1:], word.replace("?", "*"), fields[0]], [*fields, word]
    how = "a sixth field? seconds stand last, and six fields in double quotes"
    for six in (last, first) if fields[2] == "*" and word.isdigit() else (first, last):
        with suppress(Refusal):
            parse_schedule(" ".join(six), "UTC")
            return f'{how}, as in "{" ".join(six)}"'
    if _YEAR.fullmatch(word):
        return "a year? a schedule has none; start= and end= bound it, and what comes once stands behind AT"
    return how


def check_no_schedule(command: str) -> None:
    """Refuses what NOW and AT take for a command, and what was meant for ADD."""
    command = command[:MAX_READ]
    if _FIVE.match(command) or _RHYTHM.match(command):
        raise Refusal(
            "syntax", f'"{escape(command[:40])}": a schedule belongs to ADD; here only a command follows'
        )
    if _FROM_NOW.match(command):
        raise Refusal(
            "syntax", f'"{escape(command[:40])}": a time belongs to AT, as in AT "in 5 minutes" COMMAND'
        )


_RHYTHM = re.compile(
    r'"?(?:(?:every|each)[ \t]+(?:[0-9]+|second|minute|hour|day|weekday|week|month|[a-z]+day)\b'
    r'|(?:hourly|daily|weekly|monthly|yearly)(?:"|[ \t]+(?:at|on)\b))',
    re.IGNORECASE,
)
_FROM_NOW = re.compile(
    r'"?(?:in[ \t]+[0-9]+[ \t]*(?:s|m|h|sec|min|hour|day|week)|(?:tomorrow|today)[ \t]+at\b)', re.I
)


def _is_option(key: str, value: str) -> bool:
    try:
        return key == "name" or (key in RULES and bool(set_options(DEFAULTS, {key: value})))
    except Refusal:
        return False


def _refuse(word: str, why: str) -> NoReturn:
    raise Refusal("syntax", f'"{escape(word[:40])}" is no command: {why}')


def remarks(kind: str, command: str, schedule: str) -> Iterator[str]:
    """What is doubtful about a task of this type."""
    yield from about_seconds(schedule)
    if kind in PROGRAMS and DOUBTFUL.search(command):
        yield from _about_command(command)


def about_seconds(schedule: str) -> Iterator[str]:
    """Of six fields whose last looks like a day of the week: elsewhere the seconds stand first."""
    fields = schedule.split()
    if len(fields) != 6 or not (_SECONDS.fullmatch(fields[0]) and _DAYS.fullmatch(fields[5])):
        return
    if fields[2] != "*" or not fields[5].isdigit():  # 30 2 * * * 5 is likely what it says
        meant = " ".join(fields[1:] if fields[0].strip("0") == "" else [*fields[1:], fields[0]])
        yield f'of six fields the last is the seconds; if they were meant to be the first, say "{meant}"'


SHORT, SIX_FIELDS = 10, 5  # a schedule of six fields has more characters, and so many blanks
_SECONDS = re.compile(r"[0-9]{1,2}|\*/[0-9]{1,2}")
_DAYS = re.compile(rf"\*|(?:[0-7]|{_NAME})(?:[-,](?:[0-7]|{_NAME}))*", re.IGNORECASE)


def _about_command(command: str) -> Iterator[str]:
    """What a shell will make of a command otherwise than its writer thinks, as likely as not."""
    if re.match(r"[ \t]*#", command):
        yield "the command is a comment: the shell does nothing and ends well"
    elif re.match(r"[ \t]*(?:&&?|\|\|?|;|\))", command):
        yield "no command of the shell begins so: it will refuse it"
    elif is_open(command):
        yield "a quote in the command is not closed: the shell will refuse it"
    elif (match := _ALL_QUOTED.fullmatch(command)) and re.search("[ \t]", match[1].strip(" \t")):
        yield "the whole command stands in quotes: to the shell it is one program's name, with blanks in it"
    if match := _TYPESET.search(command):
        yield f"the command holds {match[0]}, which is a letter to the shell; quotes are \" and '"
    if re.match("root[ \t]+/", command):
        yield 'the command begins with "root": a line with a user in it goes behind IMPORT --system'
    if "{{secret:" in command:
        yield "in a command {{secret:NAME}} is not replaced: give the job a variable, env.KEY=secret:NAME"


# A command that holds none of these is not remarked on.
DOUBTFUL = re.compile("['\"“”„‟«»‘’‚]|^root|^[ \t]*[#&|;)]|{{secret:")
_TYPESET = re.compile("[“”„‟«»‘’‚]")
_ALL_QUOTED = re.compile(r"""["']((?<=")[^"\\$`]*+(?=")|(?<=')[^']*+(?='))["'][ \t]*+""")
# Up to a comment, or to a quote that is not closed.
_CLOSED = re.compile(
    r"""(?:[^'"\\#]++|\\.|\\$|'[^']*+'|"(?:[^"\\]++|\\.)*+"|(?<![\s;&|(])#)*+(?:\#.*)?""", re.DOTALL
)


def is_open(command: str) -> bool:
    """Whether a quote is not closed, as far as that can be said without the shell."""
    # $'…' has rules of its own.
    return "$'" not in command and _CLOSED.fullmatch(command) is None
