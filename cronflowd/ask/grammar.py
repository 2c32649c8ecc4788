"""How the words behind a verb are read: plain and quoted words, options, names, numbers, times.

Every refusal names the word it is about. What a verb makes of them is told in parsers.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from attrs import Factory, frozen

from ..base.errors import Refusal, naming_option
from ..base.names import check_form
from ..base.nearest import meant, one_of
from ..base.text import WRONG_QUOTES, escape, format_time, take_options
from ..engine.orders import Pattern, Ref
from ..schedules.english import DAYS, parse_moment
from ..schedules.zones import parse_duration, parse_zone
from ..tasks.options import parse_count

MAX_REFS = 1000
MAX_LIMIT = 999_999_999
MAX_WIDTH = 10_000
MAX_AHEAD_DAYS = 7305  # 20 years


@frozen
class Context:
    """What a line means depends on this much of the world."""

    now: datetime
    default_tz: str
    templates: Mapping[str, dict[str, str]] = Factory(dict)


Parser = Callable[[str, Context], Any]


class WrongWords(Refusal):
    """Too many words, or too few; whoever reads it is told the verb's usage as well."""

    def __init__(self, message: str) -> None:
        super().__init__("syntax", message)


def cut_word(line: str) -> tuple[str, str]:
    """The first word of a line, and what follows it and one blank."""
    word, _, rest = line.partition(" ")
    if word.isalpha():  # as almost all are
        return word, rest
    match = _FIRST_WORD.match(line)
    assert match
    return match[1], line[match.end() :]


def take_head(text: str) -> tuple[int | None, str]:
    """HEAD=yes, with width= beside it, which any verb with rows takes: the table's width, and the rest."""
    found: dict[str, str] = {}

    def take(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0]
        if (key := match[1].lower()) in found:
            raise Refusal("bad-option", f"{match[1]}= is given twice", key)
        found[key] = match[2]
        return ""

    rest = _HEAD.sub(take, text)
    if choice(found, "head", ("yes", "no")) != "yes":
        return None, text if "head" not in found else rest
    return count(found, "width", 0, MAX_WIDTH) or 0, rest


# A quoted text, which holds no options, or one of the two.
_HEAD = re.compile(
    r'"(?:[^"\\]|\\.?)*+(?:"|$)|(?:^|(?<=[ \t]))(head|width)=([^ \t]*)(?:[ \t]+|$)', re.IGNORECASE
)
_FIRST_WORD = re.compile("[ \t\ufeff]*([^ \t]*)[ \t]?")  # some editors begin a text with U+FEFF
_BLANKS = re.compile(r"[ \t]*")
is_plain = re.compile(r'(?!all$|ALL$)[^ \t"=*?\[]+').fullmatch  # one word, without quotes, and no pattern
_WORD = re.compile(r'"((?:[^"\\]|\\["\\])*)"(?=[ \t]|$)|[^ \t"]+')


def split_words(text: str, *known: str) -> tuple[list[str], dict[str, str]]:
    """Plain or quoted words, and `key=value` options that are `known`, in any order."""
    words, options = split_any(text)
    check_known(options, known)
    for key, value in options.items():
        if not value:  # of a variable that was not set, as likely as not
            raise Refusal("bad-option", f"{key}= is empty; leave it out, or give it a value", key)
    return words, options


_ALSO_CALLED = {
    "state=": "status states", "tag=": "label labels", "name=": "job task glob",
    "limit=": "max head top lines rows",
    "n=": "limit count max", "since=": "from after begin start", "until=": "to before end for",
    "last=": "past within", "why=": "reason comment message", "tz=": "zone timezone",
    "by=": "per group", "every=": "interval period", "worker=": "node host agent on",
    "exit=": "exitcode exit_code code rc", "fd=": "stream stdout stderr",
    "search=": "text find q query grep match contains", "sort=": "order order_by sort_by orderby",
    "count=": "total", "type=": "kind", "run=": "number",
}  # fmt: skip


def check_known(options: Iterable[str], known: tuple[str, ...]) -> None:
    for key in options:
        if key not in known:
            said = f'there is no option "{escape(key[:80])}" here; known: {", ".join(known) or "none"}'
            hint = f"; did you mean {key.lower()}=?" if key.lower() in known else ""
            hint = hint or meant(key, [f"{each}=" for each in known], _ALSO_CALLED)
            raise Refusal("bad-option", said + hint, key)


def split_any(text: str) -> tuple[list[str], dict[str, str]]:
    """The same, of whatever name the options are."""
    if is_plain(text):
        return [text], {}
    words: list[str] = []
    options: dict[str, str] = {}
    at = _skip_blanks(text, 0)
    while (at := take_options(text, at, options, True)) < len(text):
        match = _WORD.match(text, at)
        if match is None:
            raise Refusal("syntax", f"a quote is not closed: {escape(text[at : at + 40])}")
        if match[1] == "":
            raise Refusal("syntax", 'an empty word, "", says nothing')
        words.append(re.sub(r"\\([\"\\])", r"\1", match[1]) if match[1] is not None else match[0])
        at = _skip_blanks(text, match.end())
    return words, options


def _skip_blanks(text: str, at: int) -> int:
    match = _BLANKS.match(text, at)
    assert match
    return match.end()


def time_word(text: str) -> tuple[str, str]:
    """A word or a quoted text that begins a line, and what follows it."""
    match = _WORD.match(text := text.lstrip(" \t"))
    if text[:1] in {*WRONG_QUOTES}:
        raise WrongWords(f'{text[0]} is no quote here, but " is')
    if match is None:
        raise WrongWords("the quoted time has no closing quote before a blank" if text else "no time")
    return match[1] if match[1] is not None else match[0], text[match.end() :].lstrip(" \t")


# --- words ----------------------------------------------------------------------------------


def one_word(words: list[str], what: str) -> str:
    """The only word there is."""
    if len(words) != 1:
        raise WrongWords(f"one {what} is wanted, {len(words)} words were given")
    return words[0]


def one_or_none(words: list[str], what: str) -> str | None:
    """The only word, or None where there is none."""
    if len(words) > 1:
        raise WrongWords(f"one {what} at most")
    return words[0] if words else None


def one_or_all(words: list[str]) -> str | None:
    """A task; None for all of them."""
    ref = one_or_none(words, "task")
    return ref if ref and ref.lower() != "all" else None


def no_words(text: str, *known: str) -> dict[str, str]:
    """The options, beside which nothing may stand."""
    words, options = split_words(text, *known)
    if words:
        raise WrongWords(f'options only are taken, not "{escape(words[0][:40])}"')
    return options


def nothing(make: Callable[[], Any]) -> Parser:
    """For a verb that stands alone."""

    def parse_nothing(text: str, context: Context) -> Any:
        if text.strip():
            why = f'nothing is expected after the command, not "{escape(text.strip()[:40])}"'
            raise Refusal("syntax", why)
        return make()

    return parse_nothing


def by_word(verb: str, known: Mapping[str, Parser]) -> Parser:
    """For a verb of what lets in, or must not be shown, behind which a word says what is done."""

    def parse_by_word(text: str, context: Context) -> Any:
        word, rest = cut_word(text)
        read = known.get(word.upper())
        if read is None:
            # What stands there may be a token or a value, so nothing of it is repeated.
            raise Refusal("syntax", f"after {verb} stands one of {', '.join(known)}")
        return read(rest, context)

    return parse_by_word


def one(make: Callable[[str], Any], what: str) -> Parser:
    """For a verb that takes one word and no options."""
    return lambda text, context: make(one_word(split_words(text)[0], what))


def one_at_most(make: Callable[[str | None], Any], what: str) -> Parser:
    """The same for a verb that may also stand alone."""
    return lambda text, context: make(one_or_none(split_words(text)[0], what))


def refs(words: list[str]) -> tuple[str, ...] | None:
    """Tasks; None for `all`."""
    if not words:
        raise WrongWords("no task")
    if [word.lower() for word in words] == ["all"]:
        return None
    check_no_glob(words)
    if len(words) > MAX_REFS:
        raise Refusal("limit", f"more than {MAX_REFS} tasks in one line; `all` means every one")
    return tuple(words)


MAX_PATTERN = 128  # characters of name=; a name has at most 64
_NEVER_IN_A_NAME = re.compile(r"[^A-Za-z0-9._*?!\[\]-]")
_GLOB = re.compile(r"(?:[^\[]|\[!?+]?+[^\]]*+\])*+")  # a ] right behind [ or [! ends nothing


def pattern(options: dict[str, str]) -> Pattern:
    """tag= and name=GLOB, which are taken out."""
    tag, text = options.pop("tag", ""), options.pop("name", "")
    return Pattern(asked_tag(tag), glob("name", text))


def glob(option: str, text: str) -> str:
    """A pattern of names; what no name can be like would choose nothing, without a word. Raises Refusal."""
    if len(text) > MAX_PATTERN:  # before it is worked on: making it a matcher costs its square
        raise Refusal("bad-option", f"{option}=: longer than {MAX_PATTERN} characters", option)
    if odd := _NEVER_IN_A_NAME.search(text):
        why = f'{option}=: no name has a "{escape(odd[0])}"; they are letters, digits, . _ -'
        raise Refusal("bad-option", why, option)
    if not _GLOB.fullmatch(text):
        why = f'{option}=: "{escape(text)}" has a [ without its ], as in web[12]'
        raise Refusal("bad-option", why, option)
    return text


def asked_tag(tag: str) -> str:
    """What no tag can be would choose nothing, without a word: tag=a,b."""
    if tag:
        check_form(tag, "tag", "tag")
    return tag


def ref(words: list[str], options: dict[str, str]) -> Ref:
    """One task; or all that tag= and name= choose, where no task is named."""
    if words or not (options.get("tag") or options.get("name")):
        check_no_glob(words[:1] if len(words) == 1 else [])
        return one_word(words, "task")
    return pattern(options)


def check_no_glob(words: list[str]) -> None:
    """Several tasks are chosen by name=; a word is one task's."""
    for word in words:
        if re.search(r"[*?\[]", word) or word.lower() == "all":
            glob = escape("*" if word.lower() == "all" else word[:40])
            raise Refusal("not-found", f'no task is called "{escape(word[:40])}"; did you mean name={glob}?')


def run_number(word: str) -> int:
    if re.fullmatch(r"[0-9]{19,}", word):
        raise Refusal("not-found", f"no run {word[:40]}")
    if not re.fullmatch(r"[0-9]+", word):
        why = f'"{escape(word[:40])}" is not a run number; RUNS {escape(word[:40])} lists them'
        raise Refusal("syntax", why)
    return int(word)


def ref_or_schedule(text: str, words: list[str]) -> tuple[str, str]:
    """A task's REF, or else a schedule; the other of the two is empty."""
    if not words:
        raise WrongWords("no task and no schedule")
    quoted = text.lstrip(" \t").startswith('"')
    if len(words) > 1 and (quoted or (len(words) == 2 and words[1].isdecimal())):
        raise WrongWords(f'"{escape(words[1][:40])}" belongs neither to a task nor to a schedule')
    # Five bare fields cannot be mistaken for a task, so they need no quotes here.
    is_schedule = quoted or len(words) > 1 or words[0].startswith("@")
    return ("", " ".join(words)) if is_schedule else (words[0], "")


# --- options --------------------------------------------------------------------------------


def choice(options: dict[str, str], key: str, known: tuple[str, ...], **also: str) -> str:
    """One of some words; empty where the option is not given. `also`: what else they may be called."""
    if key not in options:
        return ""
    with naming_option(key):
        return one_of(options[key], known, also)


def is_yes(options: dict[str, str], key: str) -> bool:
    """Whether an option that is yes or no says yes."""
    return choice(options, key, ("yes", "no"), yes="true 1 on", no="false 0 off") == "yes"


def choices(options: dict[str, str], key: str, known: tuple[str, ...], **also: str) -> frozenset[str]:
    """The same, several of them with commas between."""
    words = options[key].split(",") if key in options else ()
    return frozenset(choice({key: word}, key, known, **also) for word in words)


def page(options: dict[str, str]) -> tuple[int | None, int]:
    """limit= and offset=."""
    return count(options, "limit", 0, MAX_LIMIT), count(options, "offset", 0, MAX_LIMIT) or 0


def count(options: dict[str, str], key: str, low: int, high: int) -> int | None:
    if key not in options:
        return None
    with naming_option(key):
        return parse_count(options[key], low, high)


def duration(options: dict[str, str], key: str) -> timedelta | None:
    if not (text := options.get(key)):
        return None
    with naming_option(key):
        if not (found := timedelta(seconds=parse_duration(text))) and key == "last":
            raise Refusal("bad-option", "of no time at all there is nothing to tell")
        return found


def moment(
    options: dict[str, str], key: str, context: Context, tz: str = "", past: bool = False
) -> datetime | None:
    """The time that an option says; None where it is not given."""
    if key not in options:
        return None
    text = options[key]
    if text.lower() == "now":
        return context.now
    if text.isdecimal():
        raise Refusal(
            "bad-schedule", f'{key}=: "{text[:20]}" of what? as in {text[:20]}h or {text[:20]}d', key
        )
    with naming_option(key):
        # Of a day, its beginning is meant.
        text += " at 0:00" if text.lower() in DAYS else ""
        return parse_moment(text, tz or context.default_tz, context.now, past)


BOUNDS = ("since", "until", "last")


def bounds(options: dict[str, str], context: Context) -> tuple[datetime | None, datetime | None]:
    """since= and until=, or last=, which is since= with so long ago."""
    if "last" in options and "since" in options:
        raise Refusal("bad-option", "last= and since= say the same; give one of them", "last")
    last_at, since_at, until_at = (moment(options, key, context, past=True) for key in ("last", *BOUNDS[:2]))
    since_at = last_at or since_at
    if since_at and until_at and until_at < since_at:
        raise Refusal(
            "bad-option", f"until={format_time(until_at)} is before since={format_time(since_at)}", "until"
        )
    return since_at, until_at


def until(options: dict[str, str], context: Context) -> datetime:
    """How far to look ahead: a year, if nothing is said."""
    until_at = moment(options, "until", context) or context.now + timedelta(days=365)
    if until_at <= context.now:
        raise Refusal("bad-option", f"until=: {format_time(until_at)} is not after now", "until")
    if until_at > context.now + timedelta(days=MAX_AHEAD_DAYS):
        raise Refusal("bad-option", f"until=: at most {MAX_AHEAD_DAYS} days ahead", "until")
    return until_at


def zone(options: dict[str, Any], context: Context) -> str:
    return parse_zone(str(options.get("tz") or context.default_tz))
