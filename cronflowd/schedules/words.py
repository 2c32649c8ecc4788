"""The words that schedules are written in, and how they are taken one by one.

What the words mean together is told in english.py. A refusal names the word it is about.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, NoReturn

from attrs import define

from ..base.errors import Refusal
from ..base.nearest import meant
from .rules import DAY_NAMES, LAST, MONTH_NAMES, ORDINALS, WORK_DAYS, format_ordinal
from .zones import DAY_S, MAX_DURATION_S, load_zone, meant_zone, refuse, zone_called

MAX_PHRASE = 256  # characters
SHORTEST = (0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
WEEKDAYS = {name: n for n, full in enumerate(DAY_NAMES) for name in (full, full[:3])}
WEEKDAYS |= {"tues": 2, "thur": 4, "thurs": 4}
MONTHS = {name: n for n, full in enumerate(MONTH_NAMES, 1) for name in (full, full[:3])} | {"sept": 9}
DAY_SETS = {"weekday": WORK_DAYS, "weekend": (0, 6)}
SECONDS = {"second": 1, "sec": 1, "minute": 60, "min": 60, "hour": 3600, "hr": 3600}
SECONDS |= {"s": 1, "m": 60, "h": 3600}
UNITS = ("day", "week", "month", "year")
_NUMBERS = {
    word: n
    for n, word in enumerate("zero one two three four five six seven eight nine ten eleven twelve".split())
} | {"fifteen": 15, "twenty": 20, "thirty": 30, "forty": 40, "sixty": 60, "ninety": 90}
_ORDINALS = {name: n for n, name in ORDINALS.items()} | {"fifth": 5}
ADVERBS = {"daily": "day", "weekly": "week", "monthly": "month", "yearly": "year", "annually": "year"}
_QUARTERS = "yearly on the 1st of january, april, july and october"
BOUNDS = "bounds of a task are start= and end=; those of each day are between 9:00 and 17:00"
# Words that mean nothing here, or more than one thing, and how it is said.
AMBIGUOUS = {
    "biweekly": "it may mean twice a week or every 2 weeks; say which, and on which day",
    "bimonthly": "it may mean twice a month or every 2 months; name the days",
    "biannually": "it may mean twice a year or every 2 years; name the dates",
    "quarterly": f"it names no day; say {_QUARTERS}",
    "nightly": "it names no time; say daily at 3 AM",
    "sometimes": "it names no time",
    "next": 'it may be the nearest one or the one after it; write AT "2026-12-24 18:00"',
    "half": "say every 30 minutes, every 90 minutes, or every hour at :30",
    "never": "a task that is not to start by itself is ADD paused=yes, or @after",
    "local": "leave it out; where no zone is named, it is the task's",
    "+": "an offset does not know when clocks change; name a zone, as Europe/Paris or Etc/GMT-2",
    "cron": "say the five fields alone, without a word before them",
    ".": "say it in smaller units, as every 90 minutes, and a time as 9:30",
} | {
    word: hint
    for words, hint in (
        ("fortnightly fortnight fortnights", "it names no day; say every 2 weeks on friday"),
        ("quarter quarters", f"say every 15 minutes, or {_QUARTERS}"),
        ("bi", "it may mean twice a week, month or year, or every 2 of them; say which"),
        ("semimonthly semi", "say monthly on the 1st and 15th"),
        ("few couple several", "say how many, as in every 2 hours"),
        ("penultimate", "of the days from a month's end, only the last is known"),
        ("after before past", "name the time, as in daily at 0:05, or every hour at :05"),
        ("morning afternoon evening night", "at what time? say it, as in daily at 9:00"),
        ("end ultimo", "say last day of the month"),
        ("start begin beginning", "say 1st of the month; where a task begins is start="),
        ("starting ending", BOUNDS),
        (
            "except excluding but without unless not",
            "name the days that are meant; for holidays there is skip=",
        ),
        ("during business office", "say between 9:00 and 17:00 on weekdays"),
        ("reboot boot startup restart", "say @reboot"),
        ("sunrise sunset dawn dusk", "name the time; the sun is not known here"),
        (
            "christmas easter holidays",
            "name the date, as in yearly on december 25; for holidays there is skip=",
        ),
    )
    for word in words.split()
}
# What is another way to say what the grammar has.
_SAID_AS = [
    (re.compile(pattern), words)
    for pattern, words in (
        (r"[.!]+$", ""),
        (r"\.\.", "-"),
        (r"&", " and "),
        (r"\beveryday\b", "every day"),
        (r"\b(?:once|on) (every|each)\b", r"\1"),
        (r"^minutely$", "every minute"),
        (r"^midnight$|\bevery midnight\b", "every day at midnight"),
        (r"^weekly$", "weekly on sunday"),
        (r"^monthly$", "monthly on the 1st"),
        (r"^(?:yearly|annually)$", "yearly on january 1"),
        (r"\bevery noon\b", "every day at noon"),
        (r"\b(?:every half[ -](?:an )?hour|half[ -]hourly)\b", "every 30 minutes"),
        (r"\b(?:every quarter[ -](?:of an )?hour|quarter[ -]hourly)\b", "every 15 minutes"),
        (r"\b(?:work(?:ing)?|business) ?day(s?)\b", r"weekday\1"),
        (r"\b(?:nightly|every (?:morning|afternoon|evening|night)) at\b", "every day at"),
        (r"\b(once|twice|times) daily\b", r"\1 a day"),
        (r"(?<=[0-9]) ?([ap])\.m\b\.?|(?<=[0-9])([ap])\b", r" \1\2m"),
        (r"(?<=[0-9])d\b", " days"),
        (r" ?\bo'? ?clock\b", ""),
        (r"(?<=[0-9]) in the morning\b", " am"),
        (r"(?<=[0-9]) (?:in the (?:afternoon|evening)|at night)\b", " pm"),
        (r"(?:\bat|@) ?([0-9]{1,2})h([0-9]{2})\b", r"at \1:\2"),
        (r"(?:\bat|@) ?([0-9]{2})([0-9]{2})\b", r"at \1:\2"),
        (r"(?:\bat|@) ?([0-9]{1,2})h\b", r"at \1"),
        (r"@", " at "),
        (r"\bof month\b", "of every month"),
        (r"\bevery hour on the half hour\b", "every hour at :30"),
        (r"\bevery hour on the hour\b", "every hour"),
        (r"\bhalf past (?:every|each|the) hour\b", "every hour at :30"),
        (r"\bquarter past (?:every|each|the) hour\b", "every hour at :15"),
        (r"\bquarter to (?:every|each|the) hour\b", "every hour at :45"),
        (r"^(?:at )?([0-9]{1,2})(?: minutes?)? past (?:every|each|the) hour\b", r"every hour at :\1"),
    )
]
_MINUTES = re.compile(
    r"\b(?:every hour|hourly) at (?:minutes? )?([0-9]{1,2}(?:(?:,? and |, ?)[0-9]{1,2})*)"
    r"(?: minutes?)?(?: past)?(?: the hour)?$"
)
_DAY_OF_MONTH = re.compile(r"\bmonthly on (?:the )?(?:day )?([0-9]{1,2})(?![0-9a-z:])")
FROM_NOW = 'it counts from now, once; write AT "in 10 minutes" or AT "tomorrow at 8 AM" before the command'

_TOKEN = re.compile(r"[0-9]+:[0-9:]+|:[0-9]{1,2}\b|[0-9]+(?:st|nd|rd|th)\b|[0-9]+|[a-z]+|[,-]|[^\sa-z0-9,-]+")
_ZONE = re.compile(
    r"(?:,|[ \t])[ \t]*(?:in[ \t]+)?\(?([a-z_]+(?:/[a-z0-9_+-]+)+|utc|gmt|[cemw]et|[ehm]st)\)?$",
    re.IGNORECASE,
)
_PHRASE = re.compile(r"[a-z]|[0-9]+(?:st|nd|rd|th)\b|[0-9]{1,2}(?::[0-9]{2})? *[a-z]{2}", re.IGNORECASE)


AGO = re.compile(r"^[0-9].*\bago\b", re.IGNORECASE)


def is_phrase(text: str) -> bool:
    """Whether a text is meant as words: cron fields begin otherwise, and words have no `*`."""
    return "*" not in text and (text[:1].isalpha() or _PHRASE.match(text) is not None)


def refuse_word(word: str, why: str) -> NoReturn:
    refuse(f'"{word[:64]}": {why}')


def refuse_unknown(word: str, why: str) -> NoReturn:
    """A word that is none of ours, with the one that is nearest, be it a zone's."""
    units = (*SECONDS, *(f"{unit}s" for unit in (*SECONDS, *UNITS)), *UNITS)
    others = ("every", "hourly", "noon", "midnight", "between", "twice", "last")
    known = [*WEEKDAYS, *MONTHS, *units, *ADVERBS, *DAY_SETS, *others]
    known = [each for each in known if len(each) > 2 and each != word]
    refuse_word(word, f"{why}{meant(word, known) or zone_called(word)}")


def singular(word: str) -> str:
    return word[:-1] if len(word) > 2 and word.endswith("s") and word not in WEEKDAYS else word


@define
class Reader:
    """The words not yet used up."""

    words: list[str]
    at: int = 0

    def peek(self, ahead: int = 0) -> str:
        """A word to come; empty at the end."""
        return self.words[self.at + ahead] if self.at + ahead < len(self.words) else ""

    def take(self) -> str:
        if not self.peek():
            refuse_word(self.words[-1] if self.words else "", "something is missing after it")
        self.at += 1
        return self.words[self.at - 1]

    def skip(self, *words: str) -> bool:
        """Takes the next word if it is one of these."""
        found = self.peek() in words and bool(self.peek())
        self.at += found
        return found

    def expect(self, *words: str) -> None:
        if not self.skip(*words):
            refuse_word(self.peek() or self.words[-1], f"{' or '.join(words)} was expected here")

    def more(self, begins: Callable[[str], bool]) -> bool:
        """Takes the `,` or `and` before another item of a list."""
        before = self.at
        joined = self.skip(",") | self.skip("and")
        self.skip("the")
        if joined and begins(self.peek()):
            return True
        self.at = before
        return False


def read_words(text: str) -> tuple[Reader, str | None]:
    """The words of a phrase, and the zone at its end."""
    if len(text) > MAX_PHRASE:  # before it is worked on, which may cost its square
        refuse_word(text, f"longer than {MAX_PHRASE} characters")
    for word in text.split():
        if not word.isascii():
            refuse_word(word, "it is not one of the words that schedules are made of")
    match = _ZONE.search(text)
    said = (text[: match.start()] if match else text).lower().strip(" \t")
    for pattern, words in _SAID_AS:
        said = pattern.sub(words, said)
    said = _MINUTES.sub(lambda match: "every hour at " + re.sub("([0-9]+)", r":\1", match[1]), said)
    said = _DAY_OF_MONTH.sub(lambda match: f"monthly on {format_ordinal(int(match[1]))}", said)
    return Reader(_TOKEN.findall(said)), _find_zone(match[1]) if match else None


def named_zone(text: str) -> str | None:
    """The zone at a phrase's end; None where there is none, and for what is no phrase."""
    if "*" in text:  # as in most schedules that are none
        return None
    match = _ZONE.search(text) if len(text) <= MAX_PHRASE and is_phrase(text) else None
    return _find_zone(match[1]) if match else None


def _find_zone(word: str) -> str:
    """A zone's name in its own spelling, if it is the usual one."""
    usual = "/".join("_".join(part.capitalize() for part in each.split("_")) for each in word.split("/"))
    for name in (word, usual, word.upper()):
        try:
            load_zone(name)
        except Refusal:
            continue
        return name
    refuse_word(word, f"it is not a zone of the tz database, as Europe/Paris is{meant_zone(word)}")


# --- a few words that are one thing ----------------------------------------------------------------


class Time(NamedTuple):
    second: int
    word: str
    half: str  # am, pm, or empty on the 24-hour clock


def is_time(word: str) -> bool:
    return word in ("noon", "midnight") or (word[:1].isdigit() and not is_ordinal(word))


def take_time(reader: Reader) -> Time:
    """`18:30`, `3 PM`, `noon`. Raises Refusal, as all that take words do."""
    word = reader.take()
    if word in ("noon", "midnight"):
        return Time(43_200 if word == "noon" else 0, word, "")
    if not re.fullmatch(r"[0-9]{1,2}(:[0-9]{2}){0,2}", word):
        refuse_word(word, "it is not a time, as 18:30, 3 AM, noon and midnight are")
    hour, minute, second = (int(part) for part in (word + ":0:0").split(":")[:3])
    half = reader.take() if reader.peek() in ("am", "pm") else ""
    if minute > 59 or second > 59 or not (1 <= hour <= 12 if half else hour <= 23):
        refuse_word(f"{word} {half.upper()}".strip(), "there is no such time of day")
    hour = hour % 12 + 12 * (half == "pm") if half else hour
    return Time(hour * 3600 + minute * 60 + second, word, half)


def take_marks(reader: Reader) -> list[int]:
    """Minutes of an hour: `:15 and :45`."""
    marks = []
    while True:
        word = reader.take()
        if not word.startswith(":") or not word[1:] or int(word[1:]) > 59:
            refuse_word(word, "it is not a minute of the hour, as :30 is")
        marks.append(int(word[1:]))
        if not reader.more(lambda word: word.startswith(":")):
            return marks


def check_halves(times: list[Time]) -> list[int]:
    """Beside `5 PM`, a plain 9 may be meant as either."""
    for time in times:
        either = re.fullmatch(r"0?[1-9](:.*)?|1[0-2](:.*)?", time.word) and not time.half
        if either and any(each.half for each in times):
            refuse_word(time.word, "AM or PM? say it for each of the times")
    return [time.second for time in times]


def take_count(reader: Reader) -> tuple[int, str]:
    """How many, and the word that says so; 1 and nothing where none does."""
    word = reader.peek()
    if not (word.isdigit() or word in _NUMBERS or word == "other"):
        return 1, ""
    reader.take()
    n = 2 if word == "other" else _NUMBERS[word] if word in _NUMBERS else int(word[:12])
    if not 1 <= n <= MAX_DURATION_S:
        refuse_word(word, "it is too few or too many")
    return n, word


def is_ordinal(word: str) -> bool:
    return word in _ORDINALS or (word[-2:] in ("st", "nd", "rd", "th") and word[:1].isdigit())


def take_ordinal(reader: Reader) -> int:
    word = reader.take()
    if not is_ordinal(word):
        refuse_unknown(word, "it is not a day, as 15th, last day, first monday and friday are")
    n = _ORDINALS.get(word) or int(word[:-2][:9])
    if (word != format_ordinal(n) and word not in _ORDINALS) or not (1 <= n <= 31 or n == LAST):
        refuse_word(word, "there is no such day of the month")
    return n


def take_date(reader: Reader) -> int:
    if not reader.peek().isdigit():
        return take_ordinal(reader)
    word = reader.take()
    if not 1 <= int(word[:9]) <= 31:
        refuse_word(word, "there is no such day of the month")
    return int(word)


def take_weekdays(reader: Reader) -> Iterable[int]:
    word = singular(reader.take())
    if word in DAY_SETS:
        reader.skip("day", "days")
        return DAY_SETS[word]
    end = _take_end(reader, WEEKDAYS, "a day of the week") if reader.skip(*_TO) else WEEKDAYS[word]
    return [n % 7 for n in range(WEEKDAYS[word], WEEKDAYS[word] + (end - WEEKDAYS[word]) % 7 + 1)]


def take_months(reader: Reader) -> Iterable[int]:
    """`june`, `november to february`."""
    first = MONTHS[reader.take()]
    end = _take_end(reader, MONTHS, "a month") if reader.skip(*_TO) else first
    return [(first + n - 1) % 12 + 1 for n in range((end - first) % 12 + 1)]


def take_dates(reader: Reader) -> Iterable[int]:
    """`15th`, `1st to 7th`, `last`."""
    first = take_ordinal(reader)
    if not is_ordinal(reader.peek(1 + (reader.peek(1) == "the"))) or not reader.skip(*_TO):
        return [first]
    reader.skip("the")
    word = reader.peek()
    end = take_ordinal(reader)
    if LAST in (first, end) or end <= first:
        refuse_word(word, "it is not a later day of the same month")
    return range(first, end + 1)


_TO = ("to", "through", "-")


def _take_end(reader: Reader, names: Mapping[str, int], what: str) -> int:
    if (end := reader.take()) not in names:
        refuse_unknown(end, f"it is not {what}")
    return names[end]


def take_distance(reader: Reader) -> tuple[int, int]:
    """`1 hour and 30 minutes` as seconds, or `2 weeks` as days: (days, seconds), one of them 0."""
    days = seconds = 0
    while True:
        n, said = (1, "a") if reader.skip("a", "an") else take_count(reader)
        word = reader.take()
        unit = singular(word)
        if not said or said == "other":
            refuse_word(said or word, "a number was expected here, as in 10 minutes")
        if unit in SECONDS:
            seconds += n * SECONDS[unit]
        elif unit in ("day", "week"):
            days += n * (7 if unit == "week" else 1)
        else:
            refuse_word(word, "seconds, minutes, hours, days or weeks were expected here")
        if days and seconds:
            refuse_word(word, "days of the calendar and hours do not add up; say one of them")
        if max(seconds, days * DAY_S) > MAX_DURATION_S:
            refuse_word(word, f"it is longer than {MAX_DURATION_S // DAY_S} days")
        if not reader.more(str.isdigit):
            return days, seconds
