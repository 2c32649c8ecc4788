"""Schedules in words: `every weekday at 9:00`, read as a plain value of rules.py.

The grammar is small, and the whole text must be used up. What can be meant in two ways
(`biweekly`, `on monday`, `monthly on the 31st`) is refused with the word that is to blame and
the way to say it. Other ways to say the same are put into its words first (words.py).
Clauses stand in any order, each at most once. A time without AM or PM is on the 24-hour
clock. What a phrase says is one of two things:

*Interval*: `every 5 minutes`, `every 2 hours`, `every 90 seconds`, `hourly`. Even for ever,
through restarts and clock changes. **Its anchor** is midnight in the task's zone on the day
the task was added, by the clock's offset at that moment, so what divides an hour falls on
:00 and what divides a day on the same times each day. cron's form (`*/5 * * * *`) is the same
but where a clock changes by no multiple of the period, as Lord Howe's does by half an hour.

*OnDays*: times of the wall clock on some days, as cron has them: moved by a gap, and once
in a repeated hour. `every 15 minutes between 9:00 and 17:00` counts from 9:00 on each day,
ends with 17:00 itself, and follows real time, as `*/15` does. With `every 2 weeks on friday`
and `every 3 days at 9:00`, days are left out: **the anchor** is the first such day, or the
Monday to Sunday that holds it, whose time comes after the task was added; it is served.

What counts from now (`in 10 minutes`, `tomorrow at 8 AM`) is no schedule but a moment:
`parse_moment_phrase`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta

from attrs import Factory, define, frozen

from . import words as w
from .rules import LAST, MONTH_NAMES, Interval, OnDays, Rule, format_ordinal
from .words import Reader, refuse_word
from .zones import DAY_S, MAX_DURATION_S, load_zone, parse_duration, parse_time, to_instant, to_seconds

MAX_EVERY_DAYS = 366
MAX_EVERY_WEEKS = 52


@frozen
class Phrase:
    rule: Rule
    zone: str | None  # the one named at the phrase's end


# --- what the clauses say ---------------------------------------------------------------------


@define
class _Parts:
    head: str = ""  # the word that says how often; only one may
    unit: str = ""  # of `w.UNITS`, or "weekday" where the days are named, or "of" the month
    n: int = 1
    step_s: int = 0
    per_day: int = 0  # twice a day
    weekdays: set[int] = Factory(set)
    nth: set[int] = Factory(set)
    near: set[int] = Factory(set)  # first or last weekday
    marks: list[int] = Factory(list)  # minutes of an hour, as in at :30
    each: bool = False  # a plural said that it is not once
    dates: set[int] = Factory(set)
    months: set[int] = Factory(set)
    times: list[int] = Factory(list)
    window: tuple[int, int] | None = None
    said: set[str] = Factory(set)  # clauses seen
    day: str = ""  # the first word of the days

    def begin(self, head: str, unit: str, n: int = 1) -> None:
        if self.head:
            refuse_word(head, f'"{self.head}" has said already how often')
        self.head, self.unit, self.n = head, unit, n

    def once(self, clause: str, word: str) -> None:
        if clause in self.said:
            refuse_word(word, f"the {clause} was said already")
        self.said.add(clause)
        if clause == "day":
            self.day = word


def _read_at(reader: Reader, parts: _Parts) -> None:
    word = reader.peek()
    reader.skip("at")
    parts.once("time", word)
    if reader.peek().startswith(":"):
        parts.marks = sorted(w.take_marks(reader))
        return
    times = [w.take_time(reader)]
    while reader.more(w.is_time):
        times.append(w.take_time(reader))
    parts.times = sorted(set(w.check_halves(times)))


def _read_between(reader: Reader, parts: _Parts) -> None:
    word = reader.take()
    parts.once("time", word)
    begin = w.take_time(reader)
    reader.expect(*(("and",) if word == "between" else ("to", "until")))
    end = w.take_time(reader)
    first, last = w.check_halves([begin, end])
    if last <= first:
        refuse_word(end.word, "it is not after the time before it on the same day")
    parts.window = (first, last)


def _read_from(reader: Reader, parts: _Parts) -> None:
    """`from 9:00 to 17:00`, `from monday to friday`, `from june to august`, `from the 1st to the 7th`."""
    after = reader.peek(1)
    if w.is_time(after) or not after:
        _read_between(reader, parts)
    elif after in w.MONTHS:
        _read_of(reader, parts)
    else:
        _read_on(reader, parts)


def _read_every(reader: Reader, parts: _Parts) -> None:
    every = reader.take()
    n, said = w.take_count(reader)
    word = reader.peek()
    unit = w.singular(word)
    if said and not (
        unit in w.SECONDS or unit in w.UNITS or (said == "other" and unit in (*w.WEEKDAYS, "weekend"))
    ):
        w.refuse_unknown(word or said, f'"{every} {said}" needs seconds, minutes, hours, days or weeks')
    if word == "second" and reader.peek(1) in w.WEEKDAYS and reader.peek(2) == "of":
        _read_month_days(reader, parts)
    elif unit in w.SECONDS or unit in w.UNITS:
        _read_unit(reader, parts, f"{every} {said} {word}".replace("  ", " "), n)
    elif unit in w.WEEKDAYS or unit in w.DAY_SETS:
        parts.begin(f"{every} {word}", "week" if said else "weekday", n)
        _read_weekdays(reader, parts)
    elif word in w.MONTHS:
        parts.begin(f"{every} {word}", "year")
        _read_date(reader, parts)
    elif word and not w.is_ordinal(word):
        w.refuse_unknown(word, "it is not a day, and not one of seconds, minutes, hours, days and weeks")
    else:
        _read_month_days(reader, parts)
        if parts.dates:
            parts.said.add("of")  # every 15th is that of every month, or of the months named behind it


def _read_unit(reader: Reader, parts: _Parts, head: str, n: int) -> None:
    word = reader.take()
    unit = w.singular(word)
    if word != unit and head.count(" ") == 1:
        refuse_word(word, "every how many?")
    if word == "second" and w.singular(reader.peek()) in (*w.WEEKDAYS, *w.SECONDS, *w.UNITS):
        after = w.singular(reader.peek())
        weeks = f"weeks on {after}" if after in w.WEEKDAYS else f"{after}s"
        refuse_word(word, f"say every 2 {weeks}, or 2nd monday of the month")
    if unit in w.SECONDS:
        parts.begin(head, "step")
        parts.step_s = n * w.SECONDS[unit]
        if reader.peek().isdigit() and w.singular(reader.peek(1)) in w.SECONDS:  # every 2h30m
            parts.step_s += w.take_distance(reader)[1]
    else:
        parts.begin(head, unit, n)


def _read_adverb(reader: Reader, parts: _Parts) -> None:
    word = reader.take()
    if word == "hourly":
        parts.begin(word, "step")
        parts.step_s = 3600
    else:
        parts.begin(word, w.ADVERBS[word])


def _read_times_a(reader: Reader, parts: _Parts) -> None:
    """`twice a day`, `3 times a day`, `4 times an hour`."""
    word = reader.peek()
    if word in ("once", "twice"):
        n = ("", "once", "twice").index(reader.take())
    else:
        n = w.take_count(reader)[0]
        reader.expect("times")
    reader.expect("a", "an", "per", "every", "each")
    unit = reader.take()
    if unit == "hour" and 60 % n == 0:
        parts.begin(word, "step")
        parts.step_s = 3600 // n
    elif unit == "day" and 24 % n == 0:
        parts.begin(word, "day")
        parts.per_day = n
    elif unit in w.UNITS and n == 1:
        parts.begin(word, unit)
    elif unit in w.UNITS[1:]:
        refuse_word(word, _MUST_NAME[unit][1])
    else:
        refuse_word(word, f'{n} times a "{unit}" are not whole minutes or hours apart; name the times')


def _read_on(reader: Reader, parts: _Parts) -> None:
    reader.take()
    the = reader.skip("the")
    word = reader.peek()
    if w.singular(word) in w.DAY_SETS or w.singular(word) in w.WEEKDAYS:
        _read_weekdays(reader, parts)
    elif word in w.MONTHS and not the:
        _read_date(reader, parts)
    elif word.isdigit() and reader.peek(1) in w.MONTHS:
        parts.once("day", word)
        parts.dates = {w.take_date(reader)}
        _read_months(reader, parts)
    else:
        _read_month_days(reader, parts, head=False)


def _read_weekdays(reader: Reader, parts: _Parts) -> None:
    word = reader.peek()
    parts.once("day", word)
    parts.weekdays = set(w.take_weekdays(reader))
    while reader.more(lambda word: w.singular(word) in w.WEEKDAYS):
        parts.weekdays.update(w.take_weekdays(reader))
    # One, without the s, might be the coming one alone.
    parts.each |= word != w.singular(word) or len(parts.weekdays) > 1


def _read_month_days(reader: Reader, parts: _Parts, head: bool = True) -> None:
    """`first and third monday`, `1st, 15th and last day`, `24th december`."""
    word = reader.peek()
    parts.once("day", word)
    numbers = set(w.take_dates(reader))
    while reader.more(w.is_ordinal):
        numbers.update(w.take_dates(reader))
    if head:
        parts.begin(word, "of")
    if reader.peek() in w.WEEKDAYS:
        parts.nth, parts.weekdays = numbers, {w.WEEKDAYS[reader.take()]}
        if beyond := numbers - {1, 2, 3, 4, LAST}:
            refuse_word(word, f"not every month has a {format_ordinal(max(beyond))} such day; say last")
        return
    if w.singular(reader.peek()) == "weekday" and numbers <= {1, LAST}:
        reader.take()
        parts.near = numbers
        return
    if w.singular(reader.peek()) in w.DAY_SETS:
        refuse_word(
            reader.peek(),
            "of these, only the first and the last weekday are known; or name a day of the week",
        )
    is_count = reader.peek() in (*w.SECONDS, "week") or (reader.peek() == "day" and reader.peek(1) != "of")
    if head and is_count and LAST not in numbers:
        refuse_word(word, f"say every {min(numbers)} {reader.peek()}s, or end with of every month")
    parts.dates = numbers
    if not reader.skip("day", "days") and LAST in numbers:
        refuse_word(reader.peek() or "last", "last day or last monday (or another weekday) was expected here")
    if reader.peek() in w.MONTHS:
        _read_months(reader, parts)


def _read_the(reader: Reader, parts: _Parts) -> None:
    reader.take()
    _read_month_days(reader, parts)


def _read_date(reader: Reader, parts: _Parts) -> None:
    """`december 24`."""
    parts.once("day", reader.peek())
    parts.once("month", reader.peek())
    parts.months = {w.MONTHS[reader.take()]}
    parts.dates = {w.take_date(reader)}


def _read_of(reader: Reader, parts: _Parts) -> None:
    """`of every month`, `of december`, `in june and july`."""
    word = reader.take()
    if word == "of" and reader.skip("the", "every", "each"):
        parts.once("month", word)
        parts.said.add("of")
        reader.expect("month")
    elif reader.peek() in w.MONTHS:
        _read_months(reader, parts)
    elif w.singular(reader.peek(1)) in (*w.SECONDS, *w.UNITS):
        refuse_word(word, w.FROM_NOW)
    else:
        w.refuse_unknown(
            reader.peek() or word, "a month, or at the end a zone like Europe/Paris, belongs here"
        )


def _read_months(reader: Reader, parts: _Parts) -> None:
    parts.once("month", reader.peek())
    parts.months = set(w.take_months(reader))
    while reader.more(lambda word: word in w.MONTHS):
        parts.months.update(w.take_months(reader))


# What a clause may begin with; all other words are refused.
_CLAUSES: dict[str, Callable[[Reader, _Parts], None]] = {
    **dict.fromkeys(("every", "each"), _read_every),
    **dict.fromkeys(("hourly", *w.ADVERBS), _read_adverb),
    **dict.fromkeys(("once", "twice"), _read_times_a),
    **dict.fromkeys(("of", "in"), _read_of),
    **dict.fromkeys(("at", "noon", "midnight"), _read_at),
    "between": _read_between,
    "from": _read_from,
    "on": _read_on,
    "the": _read_the,
}


def parse_phrase(text: str) -> Phrase:
    """What a phrase means; raises Refusal with the word that is wrong, or may mean two things."""
    reader, zone = w.read_words(text)
    for word in reader.words:
        if word in w.AMBIGUOUS:
            refuse_word(word, w.AMBIGUOUS[word])
    parts = _Parts()
    while reader.peek():
        _clause_for(reader)(reader, parts)
        if reader.peek(1):
            reader.skip(",")
    return Phrase(_make_rule(parts, reader.words), zone)


def _clause_for(reader: Reader) -> Callable[[Reader, _Parts], None]:
    word, after = reader.peek(), reader.peek(1)
    if word in _CLAUSES:
        return _CLAUSES[word]
    if after == "times":
        return _read_times_a
    if word[:1].isdigit() and (":" in word or after in ("am", "pm")):
        return _read_at
    if w.is_ordinal(word):
        return _read_month_days
    if w.singular(word) in w.WEEKDAYS or w.singular(word) in w.DAY_SETS:
        return _read_weekdays
    if word in ("now", "today", "tomorrow"):
        refuse_word(word, w.FROM_NOW)
    if word == "until":
        refuse_word(word, w.BOUNDS)
    if word in w.MONTHS:
        refuse_word(
            word, f"once, or each time? say yearly on {word} {after if after.isdigit() else 1}, or in {word}"
        )
    if word.isdigit():
        is_unit = w.singular(after) in (*w.SECONDS, *w.UNITS)
        refuse_word(
            word,
            f"say every {word} {after}" if is_unit else f"a time is at {word}:00, a day of the month 1st",
        )
    if after == "/":
        refuse_word(word, "a zone is named at the end")
    if word in ("and", "or") and after:
        refuse_word(word, "it is not understood here; what has two rhythms is two tasks")
    return w.refuse_unknown(word, "it is not understood here; HELP schedule tells what is")


# --- what they say together ---------------------------------------------------------------------


def _make_rule(parts: _Parts, said: list[str]) -> Rule:
    if len(parts.dates) > 1 and not parts.months and parts.unit in ("", "of"):
        parts.said.add("of")  # a list of days is no single one
    if not parts.head:
        word = parts.day or "".join(said[:1])
        if parts.each:
            parts.begin(word, "weekday")
        elif not (parts.nth or parts.dates or parts.near) or "of" not in parts.said:
            _check_dates(parts)
            words = " ".join(said).replace(" ,", ",")
            refuse_word(word, f"once, or each time? say {_how_often(parts)} {words}")
        else:
            parts.begin(word, "of")
    _check_days(parts)
    if parts.unit == "step":
        return _make_steps(parts)
    if parts.marks:
        refuse_word(parts.head, "of which hour? say every hour at :30, or daily at 9:30")
    if parts.window:
        refuse_word("between", "it needs every so many seconds, minutes or hours")
    if parts.per_day and parts.times and len(parts.times) != parts.per_day:
        refuse_word(parts.head, f"{parts.per_day} times a day, but at {len(parts.times)}")
    gap_s = DAY_S // (parts.per_day or 1)
    times = tuple(parts.times or range(0, DAY_S, gap_s))
    limit = MAX_EVERY_WEEKS if parts.unit == "week" else MAX_EVERY_DAYS
    if parts.n > limit:
        refuse_word(parts.head, f"at most {limit} {parts.unit}s")
    return _make_on_days(parts, times)


def _how_often(parts: _Parts) -> str:
    """The word that would make it come again and again."""
    if parts.months:
        return "yearly"
    return "monthly" if parts.dates or parts.nth or parts.near else "weekly" if parts.weekdays else "daily"


def _make_on_days(parts: _Parts, times: tuple[int, ...] | range) -> OnDays:
    return OnDays(
        times,
        weekdays=tuple(sorted(parts.weekdays)),
        nth=tuple(sorted(parts.nth)),
        near=tuple(sorted(parts.near)),
        dates=tuple(sorted(parts.dates)),
        months=tuple(sorted(parts.months)),
        every=parts.n,
    )


def _make_steps(parts: _Parts) -> Rule:
    step_s = parts.step_s
    if parts.times:
        refuse_word(parts.head, "it has no time of day; say between 9:00 and 17:00, or at :30")
    if parts.marks:
        return _make_marks(parts)
    if parts.window:
        begin, end = parts.window
        if end - begin < step_s:
            refuse_word(parts.head, "it is longer than what lies between the two times")
        return _make_on_days(parts, range(begin, end + 1, step_s))
    if parts.weekdays or parts.dates or parts.near or parts.months:
        if DAY_S % step_s or step_s == DAY_S:
            refuse_word(parts.head, "it does not divide a day; say between which times on those days")
        return _make_on_days(parts, range(0, DAY_S, step_s))
    if step_s > MAX_DURATION_S:
        refuse_word(parts.head, f"it is longer than {MAX_DURATION_S // DAY_S} days")
    return Interval(step_s)


def _make_marks(parts: _Parts) -> Rule:
    """`every hour at :30`: by the clock, as cron has it."""
    first, *others = (60 * mark for mark in parts.marks)
    step_s = parts.step_s if not others else others[0] - first
    hour_s = parts.step_s if not others else 3600
    if (
        parts.step_s % 3600
        or DAY_S % parts.step_s
        or [first, *others] != list(range(first, first + hour_s, step_s))
    ):
        minutes = ",".join(map(str, parts.marks))
        refuse_word(parts.head, f"not evenly apart; say it in cron's fields, as in {minutes} * * * *")
    return _make_on_days(parts, range(first, DAY_S, step_s))


_MUST_NAME = {
    "week": ("weekdays", "say on which day of the week, as in weekly on monday and thursday"),
    "month": ("days", "say on which day, as in monthly on the 1st and 15th, or last day of the month"),
    "year": ("months", "say on which date, as in yearly on december 24"),
    "of": ("of", "once, or each time? end with of every month, or begin with yearly on"),
}


def _check_days(parts: _Parts) -> None:
    """The days that each unit must have, and those that it cannot."""
    unit, head = parts.unit, parts.head
    days = bool(parts.dates or parts.nth or parts.near)
    named = {
        "weekdays": bool(parts.weekdays) and not parts.nth,
        "days": days,
        "of": "of" in parts.said,
        "months": days and bool(parts.months),
    }
    if parts.n > 1 and unit in ("month", "year"):
        months = ", ".join(MONTH_NAMES[:: parts.n] if unit == "month" else MONTH_NAMES[:1])
        refuse_word(head, f"counted from when? name the months: yearly on the 1st of {months}")
    need, hint = _MUST_NAME.get(unit, ("", ""))
    if need and not named[need]:
        refuse_word(head, hint)
    if days and not (parts.months or named["of"] or unit == "month"):
        refuse_word(parts.day, "of which month? end with of every month")
    if unit in ("week", "weekday") and named["of"] and not days:
        refuse_word(head, f'of the month, which? say first {parts.day}, or leave out "of the month"')
    if (
        (unit == "day" and (days or (named["weekdays"] and (parts.n > 1 or len(parts.weekdays) == 1))))
        or (unit in ("week", "weekday") and (days or named["of"]))
        or (unit in ("month", "year") and named["weekdays"])
        or (unit == "month" and parts.months)
        or (named["of"] and not days)
        or (parts.n > 1 and unit in w.UNITS and parts.months)
    ):
        refuse_word(head, f'it does not go with "{parts.day or "of"}" beside it')
    _check_dates(parts)


def _check_dates(parts: _Parts) -> None:
    for date in sorted(parts.dates - {LAST}):
        for month in sorted(parts.months) or [2]:
            if date > w.SHORTEST[month]:
                name = MONTH_NAMES[month - 1] if parts.months else "month"
                refuse_word(format_ordinal(date), f"not every {name} has one; say last day of the month")


_MOMENTS = '"in 10 minutes", "tomorrow at 8 AM", "2 hours ago" or "2026-12-24 18:00"'

# --- moments ---------------------------------------------------------------------------------------


def parse_moment(text: str, tz: str, now: datetime, past: bool = False) -> datetime:
    """The instant meant by a time, as `parse_time` reads it, or by what counts from `now`.

    That is a phrase, or `2h`, which is ahead of now unless `past` says that it is behind.
    """
    if BARE_DURATION.fullmatch(text):
        if not (gap := timedelta(seconds=parse_duration(text))):
            refuse_word(text, "it is no time at all; write now, where that is meant")
        return now - gap if past else now + gap
    return parse_moment_phrase(text, tz, now) or parse_time(text, tz, now)


BARE_DURATION = re.compile("[0-9][0-9a-z]*[a-z]")
DAYS = {"yesterday": -1, "today": 0, "tomorrow": 1}


def parse_moment_phrase(text: str, tz: str, now: datetime) -> datetime | None:
    """`in 10 minutes`, `tomorrow at 8 AM`, `2 days ago at 9:00 in Europe/Paris`; None if not in words.

    Seconds, minutes and hours are real time, to the whole second not before; days and weeks
    are the calendar's, so `in 2 days` is the same time by the clock. A zone in the phrase
    stands before `tz`.
    """
    if not (w.is_phrase(text) or w.AGO.search(text)):
        return None
    reader, zone = w.read_words(text)
    tz = zone or tz
    begin = to_seconds(now + timedelta(microseconds=999_999))
    local = begin + load_zone(tz).offset(begin)
    parts, word = _Parts(), reader.peek()
    if word in DAYS:
        days, seconds = DAYS[reader.take()], 0
    elif reader.skip("in"):
        days, seconds = w.take_distance(reader)
    elif "ago" in reader.words:
        days, seconds = (-n for n in w.take_distance(reader))
        reader.expect("ago")
    else:
        refuse_word(word, f"a single moment is {_MOMENTS}")
    if reader.peek() == "at" and not seconds:
        _read_at(reader, parts)
    elif word in DAYS:
        refuse_word(word, f"at what time? as in {word} at 8 AM")
    if reader.peek() or len(parts.times) > 1:
        refuse_word(reader.peek() or "and", "there is more here than one moment")
    if seconds:
        return to_instant(begin + seconds)
    time = parts.times[0] if parts.times else local % DAY_S
    found = load_zone(tz).resolve(local - local % DAY_S + days * DAY_S + time)
    if found is None:
        refuse_word(word, f"there is no such time in {tz}")
    return to_instant(found)
