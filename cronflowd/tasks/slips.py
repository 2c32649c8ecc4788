"""Lines that say something else than was meant: words of the schedule that ended in the command.

A command is carried out as it stands, so what can only be a slip is refused while the one who
wrote it is listening; what may be one is remarked on. Only a schedule without quotes can run over
into the command: behind one in quotes, and in JSON, everything is a command.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NoReturn

from ..base.errors import Refusal
from ..base.text import escape
from .options import DEFAULTS, RULES, set_options

MAX_READ = 256  # characters of a command, in search of what belongs before it
SHELLS = ("shell", "script")  # types whose command begins with the name of a program

_NAME = "(?:sun|mon|tue|wed|thu|fri|sat|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
_ITEM = (
    rf"(?:\*[0-9]*|\?|(?:[0-9]{{1,4}}|{_NAME})(?:-(?:[0-9]{{1,4}}|{_NAME}))?)(?:/[0-9]+)?|[0-9]?L|LW|[0-9]{{1,2}}W"
    rf"|(?:[0-9]|{_NAME})#[0-9]|{_NAME}L"
)
_FIELD = re.compile(rf"(?:{_ITEM})(?:,(?:{_ITEM}))*", re.IGNORECASE)
# These may be programs: games/2048, w, and a daemon called mon. But hardly with a program behind them.
_PERHAPS = re.compile(rf"[0-5]?[0-9]|(?:19|20)[0-9]{{2}}|{_NAME}L?|L", re.IGNORECASE)
_PLAIN = re.compile(r"[0-9]+|[a-z]+", re.IGNORECASE)
_FIVE = re.compile(rf"(?:(?:{_ITEM})(?:,(?:{_ITEM}))*[ \t]+){{5}}|@[a-z]+[ \t]", re.IGNORECASE)
_UNIT = re.compile(
    r"(?:seconds?|secs?|minutes?|mins?|hours?|hrs?|days?|weeks?|[0-9]+(?:ms|s|m|h|d))(?=[ \t]|$)"
)
_DAY = "(?:mon|tues|wednes|thurs|fri|satur|sun)days?"
_TIME = re.compile(
    rf"(?:at[ \t]+)?[0-9]{{1,2}}(?::[0-9]{{2}}\b|[ \t]?[ap]m\b)|on[ \t]+(?:the|[0-9])"
    rf"|(?:on[ \t]+)?{_DAY}[ \t]",
    re.IGNORECASE,
)
# What does not begin so is no slip.
SUSPECT = re.compile(
    rf"[ \t]*(?:[*?@0-9]|L|[smhd][ \t]|{_DAY}|{_NAME}|at|on|sec|min|hour|hr|day|week|[a-z]+=)", re.IGNORECASE
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
        fields = schedule.replace("?", "*").split()
        is_last = fields[2] == "*" and word.isdigit()  # it is meant for seconds; elsewhere they are the first
        six = " ".join([*fields, word] if is_last else [*fields[1:], word.replace("?", "*"), fields[0]])
        how = f'a sixth field? seconds stand last, and six fields in double quotes, as in "{six}"'
        _refuse(word, f"{how}; a program that is called so stands behind a schedule in quotes")
    if (match := _KEY.match(command)) and _is_option(match[1], match[2]):
        _refuse(f"{match[1]}=", f"options stand before the schedule; a variable is env.{match[1]}=")


def check_no_schedule(command: str) -> None:
    """Refuses what NOW and AT take for a command, and what was meant for ADD."""
    if _FIVE.match(command[:MAX_READ]):
        raise Refusal(
            "syntax", f'"{escape(command[:40])}": a schedule belongs to ADD; here only a command follows'
        )


def _is_option(key: str, value: str) -> bool:
    try:
        return key == "name" or (key in RULES and bool(set_options(DEFAULTS, {key: value})))
    except Refusal:
        return False


def _refuse(word: str, why: str) -> NoReturn:
    raise Refusal("syntax", f'"{escape(word[:40])}" is no command: {why}')


def remarks(command: str) -> Iterator[str]:
    """What a shell will make of a command otherwise than its writer thinks, as likely as not."""
    if is_open(command):
        yield "a quote in the command is not closed: the shell will refuse it"
    if match := _TYPESET.search(command):
        yield f"the command holds {match[0]}, which is a letter to the shell; quotes are \" and '"
    if re.match("root[ \t]+/", command):
        yield 'the command begins with "root": a line with a user in it goes behind IMPORT --system'


# What holds none of these is not remarked on.
DOUBTFUL = re.compile("['\"“”„‟«»‘’‚]|^root")
_TYPESET = re.compile("[“”„‟«»‘’‚]")
# Up to a comment, or to a quote that is not closed.
_CLOSED = re.compile(
    r"""(?:[^'"\\#]++|\\.|\\$|'[^']*+'|"(?:[^"\\]++|\\.)*+"|(?<![\s;&|(])#)*+(?:\#.*)?""", re.DOTALL
)


def is_open(command: str) -> bool:
    """Whether a quote is not closed, as far as that can be said without the shell."""
    # $'…' has rules of its own.
    return "$'" not in command and _CLOSED.fullmatch(command) is None
