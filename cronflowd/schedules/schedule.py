"""When a task is due: cron fields, @words and moments, in every zone, as Debian's cron fires them.

The rules, and where they come from. Debian's cron (3.0pl1, its main loop) keeps a *running
clock* of wall-clock minutes. When a zone's clock leaps by at most three hours, a task
that names its minute and hour is served by the running clock: what a forward leap passes
over fires at the leap, and what a backward leap repeats is passed over. Such a task is
*fixed*. A task whose minute or hour field begins with `*` is *wildcard* and sees only
the real wall clock: a gap does not exist for it and a repeated hour is an hour like any
other. After a leap of more than three hours the running clock is set, not followed.

So a zone is cut into segments of constant offset (`Zone`), each owning a range of wall
time and a range of the running clock; the fields are searched as plain calendar
arithmetic that knows no zones (`Fields`), and `Cron` lays one over the other. All
arithmetic is on whole seconds since 1970, *local* ones having the offset added. Nothing
here remembers where a walk began, so a restart in the middle of a repeated hour gives
the same answer as a walk through it.

Two readings where Debian and its manual leave room: a leap of exactly three hours counts
as followed, forward too (Debian's own arithmetic ends at 2 h 59 min), and the few leaps
under five minutes before 1970 are no exception for wildcard tasks.

A schedule in words (english.py) becomes one of the same kinds: an interval with another
anchor than `@every` has, or times and days laid over the zone as cron's are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from itertools import pairwise
from typing import ClassVar, Literal
from weakref import WeakValueDictionary
from zoneinfo import ZoneInfo

from attrs import evolve, field, frozen

from ..base.errors import Refusal, naming
from ..base.names import NAME
from ..base.nearest import meant
from ..base.text import ODD_BLANK, WRONG_QUOTES, format_time
from .english import BARE_DURATION, parse_moment, parse_moment_phrase, parse_phrase
from .fields import (
    HOUR,
    MINUTE,
    SECOND_FIELD,
    Fields,
    Times,
    expand,
    in_cycle,
    make_fields,
    make_times,
    parse_days,
)
from .rules import Interval, OnDays, Rule
from .words import is_phrase
from .zones import (
    DAY_S,
    EPOCH,
    HORIZON_S,
    LAST_S,
    SECOND,
    Segment,
    Zone,
    data_version,
    load_zone,
    parse_duration,
    parse_time,
    refuse,
    to_instant,
    to_seconds,
)

MAX_SCHEDULE_BYTES = 256
MAX_RECENT_SCHEDULES = 4096  # kept although no task holds them
MAX_CACHED_ANCHORS = 8192  # of all schedules that count days or weeks

Kind = Literal["cron", "every", "at", "reboot", "after", "on", "unreadable"]
Row = tuple[str, datetime, str]  # local time with offset, UTC, remark


# --- the kinds of schedule --------------------------------------------------------------------


@frozen(eq=False)
class Schedule:
    """When a task is due; immutable, and shared by all tasks of the same text and zone.

    `anchor_at` is when the task was added; only `@every` and some phrases count from it.
    """

    text: str
    tz: str  # the one named in a phrase before any other
    zone: Zone
    rule: Rule | None = field(default=None, kw_only=True)  # what a phrase says; None if not in words
    kind: Kind = field(kw_only=True)
    event: str = field(default="", kw_only=True)  # of `@on EVENT`

    is_zoned: ClassVar[bool] = False  # other zone data, and it would be due at other moments

    def next_after(self, at: datetime, anchor_at: datetime) -> datetime | None:
        """The first instant strictly later than `at` that has a due moment; None if there is none."""
        return None

    def latest(self, after: datetime, upto: datetime, anchor_at: datetime) -> datetime | None:
        """The newest instant in (after, upto] that has a due moment; None if there is none."""
        found = self.next_after(after, anchor_at)  # of those that have one moment at the most
        return found if found and found <= upto else None

    def count(self, after: datetime, upto: datetime, anchor_at: datetime) -> int:
        """How many due moments are in (after, upto]; its cost does not grow with their number.

        Moments, not instants: what a leap of the clock brings to one instant is counted each.
        """
        return int(self.latest(after, upto, anchor_at) is not None)

    def counts(self, marks: Sequence[int], anchor_at: datetime) -> list[int]:
        """The same of each stretch between two marks, in order; they are seconds since 1970, and ascend."""
        instants = map(to_instant, marks)
        return [self.count(after, upto, anchor_at) for after, upto in pairwise(instants)]

    def times_at(self, at: datetime, anchor_at: datetime) -> int:
        """How many moments come together at an instant that is due; 1 but at a leap of the clock."""
        return 1

    def rows(self, from_at: datetime, anchor_at: datetime) -> Iterator[Row]:
        """What comes after `from_at`, for people, in order, with a remark where it surprises.

        Two moments that a clock change brings to one instant are two rows, and a moment that
        does not fire at all is a row with the remark `skipped`. Each is found when asked for.
        """
        found = self.next_after(from_at, anchor_at)
        while found:
            yield found.astimezone(self.zone.info).isoformat(), found, ""
            found = self.next_after(found, anchor_at)

    def as_cron(self, anchor_at: datetime) -> Cron | None:
        """The fields and the zone that it comes down to; None if it does not follow a clock."""
        return None

    def in_zone(self, zone: Zone) -> Schedule:
        """The same schedule with other data about its zone."""
        return evolve(self, zone=zone)


# Only the daemon knows when it starts, and when all that a task waits for has ended.
_WITHOUT_A_CLOCK: dict[str, Kind] = {"@reboot": "reboot", "@after": "after"}


def make_unreadable(text: str) -> Schedule:
    """A text from an old journal that cannot be understood any more; it is kept, and never due."""
    return Schedule(text, "UTC", load_zone("UTC"), kind="unreadable")


@frozen(eq=False)
class At(Schedule):
    """`@at TIME`: once."""

    moment_at: datetime

    kind: Kind = field(default="at", kw_only=True)

    def next_after(self, at: datetime, anchor_at: datetime) -> datetime | None:
        return self.moment_at if self.moment_at > at else None


@frozen(eq=False)
class Every(Schedule):
    """`@every 90s`: the anchor plus every multiple of the period.

    Backwards too: a task that was added while the clock was wrong must not stay silent until
    the clock, once it is set right, has come to that time again.
    """

    period_s: int

    kind: Kind = field(default="every", kw_only=True)

    def next_after(self, at: datetime, anchor_at: datetime) -> datetime | None:
        anchor = self._anchor(anchor_at)
        found = anchor + (self._steps(at, anchor) + 1) * self.period_s
        return to_instant(found) if found <= LAST_S else None

    def latest(self, after: datetime, upto: datetime, anchor_at: datetime) -> datetime | None:
        if not self.count(after, upto, anchor_at):
            return None
        anchor = self._anchor(anchor_at)
        return to_instant(anchor + self._steps(upto, anchor) * self.period_s)

    def count(self, after: datetime, upto: datetime, anchor_at: datetime) -> int:
        anchor = self._anchor(anchor_at)
        return max(0, self._steps(upto, anchor) - self._steps(after, anchor))

    def counts(self, marks: Sequence[int], anchor_at: datetime) -> list[int]:
        anchor = self._anchor(anchor_at)
        steps = [(mark - anchor) // self.period_s for mark in marks]
        return [late - early for early, late in pairwise(steps)]

    def _anchor(self, anchor_at: datetime) -> int:
        return to_seconds(anchor_at)

    def _steps(self, at: datetime, anchor: int) -> int:
        return (to_seconds(at) - anchor) // self.period_s


@frozen(eq=False)
class _EveryInWords(Every):
    """`every 45 minutes`: counted from midnight, by the clock as it stood when the task was added."""

    is_zoned: ClassVar[bool] = True

    def _anchor(self, anchor_at: datetime) -> int:
        anchor = to_seconds(anchor_at)
        return anchor - (anchor + self.zone.offset(anchor)) % DAY_S


@lru_cache(maxsize=64)  # whoever is due at one moment asks for the same one
def _is_edge(zone: Zone, at: datetime) -> bool:
    """Whether a zone's clock may have been changed at this very instant."""
    second = to_seconds(at)
    return zone.at(second).start == second


MAX_KNOWN = 1000
# The instant that was asked about last, and what came after it, by schedule; one tuple, as threads ask too.
_NEXT: list[tuple[datetime, dict[Schedule, datetime | None]]] = [(EPOCH, {})]


@frozen(eq=False)
class Cron(Schedule):
    """Cron fields laid over a zone."""

    fields: Fields
    fixed: bool  # neither the minute's nor the hour's text begins with `*`

    kind: Kind = field(default="cron", kw_only=True)
    is_zoned: ClassVar[bool] = True

    def as_cron(self, anchor_at: datetime) -> Cron | None:
        return self

    def next_after(self, at: datetime, anchor_at: datetime) -> datetime | None:
        # What is due at one moment is asked for one after the other, and mostly has few schedules.
        known_at, known = _NEXT[0]
        if known_at == at and self in known:
            return known[self]
        if known_at != at or len(known) > MAX_KNOWN:
            known = {}
            _NEXT[0] = at, known
        found = known[self] = self._next_after(at)
        return found

    def _next_after(self, at: datetime) -> datetime | None:
        now = to_seconds(at)
        segment = self.zone.at(now)
        asked, end = segment.run if self.fixed else segment.wall
        if asked <= (local := now + segment.offset):
            asked = local + 1
        found = self.fields.next_from(asked)
        while found is not None:
            if found < end:
                fire = found - segment.offset
                if fire < segment.start:
                    fire = segment.start
                return to_instant(fire) if fire <= LAST_S else None
            if segment.end > min(now + HORIZON_S, LAST_S):
                return None
            segment = self.zone.at(segment.end)
            begin, end = segment.run if self.fixed else segment.wall
            # Mostly the moment found lies far ahead, and is also the first one from here.
            if not asked <= begin <= found:
                asked, found = begin, self.fields.next_from(begin)
        return None

    def latest(self, after: datetime, upto: datetime, anchor_at: datetime) -> datetime | None:
        low, high = to_seconds(after), to_seconds(upto)
        for segment in self.zone.backward(high, max(low, high - HORIZON_S)):
            begin, end = segment.run if self.fixed else segment.wall
            found = self.fields.last_upto(min(end - 1, high + segment.offset))
            if found is None:
                return None
            if found >= begin:
                fire = max(segment.start, found - segment.offset)
                return to_instant(fire) if fire > low else None
        return None

    def count(self, after: datetime, upto: datetime, anchor_at: datetime) -> int:
        low, high = to_seconds(after), to_seconds(upto)
        total = 0
        for segment in self.zone.forward(low, high):
            begin, end = segment.run if self.fixed else segment.wall
            if segment.start <= low:
                begin = max(begin, low + segment.offset + 1)
            total += self.fields.count(begin, min(end, high + segment.offset + 1))
        return total

    def counts(self, marks: Sequence[int], anchor_at: datetime) -> list[int]:
        first, *others = self.zone.forward(marks[0], marks[-1])
        begin = marks[0] + first.offset + 1
        is_steady = first.run[0] <= begin and all(
            (each.offset, each.run[0]) == (first.offset, each.wall[0]) for each in others
        )
        if not is_steady:  # the clock is changed meanwhile, or what that did is not over
            return Schedule.counts(self, marks, anchor_at)
        return self.fields.counts([mark + first.offset + 1 for mark in marks])

    def times_at(self, at: datetime, anchor_at: datetime) -> int:
        return max(1, self.count(at - SECOND, at, anchor_at)) if _is_edge(self.zone, at) else 1

    def rows(self, from_at: datetime, anchor_at: datetime) -> Iterator[Row]:
        now = seen = to_seconds(from_at)
        before: Segment | None = None
        asked: int | None = None
        found: int | None = None

        def moments(begin: int, end: int) -> Iterator[int]:
            nonlocal asked, found
            while begin < end:
                # Mostly the moment found lies far ahead, and is also the first one from here.
                if asked is None or begin < asked or (found is not None and found < begin):
                    asked, found = begin, self.fields.next_from(begin)
                if found is None or found >= end:
                    return
                yield found
                begin = found + 1

        for segment in self.zone.forward(now, LAST_S):
            if segment.start > seen + HORIZON_S:
                return
            begin, end = segment.run if self.fixed else segment.wall
            if before and self.fixed:
                for local in moments(before.run[1], begin):
                    yield _format_local(local, before.offset), to_instant(segment.start), "skipped"
            if segment.start <= now:
                begin = max(begin, now + segment.offset + 1)
            for local in moments(begin, min(end, LAST_S + segment.offset + 1)):
                seen = segment.start
                yield self._row(segment, local)
            before = segment

    def _row(self, segment: Segment, local: int) -> Row:
        fire = local - segment.offset
        if fire < segment.start:
            wall = segment.start + segment.offset
            return _format_local(wall, segment.offset), to_instant(segment.start), "moved"
        remark = "repeated-hour" if self.zone.is_repeated(fire, local) else ""
        return _format_local(local, segment.offset), to_instant(fire), remark


@frozen(eq=False)
class _Cycle(Schedule):
    """`every 2 weeks on friday`: a `Cron` of some days only; which ones depends on the anchor."""

    times: Times  # on every day, or on each week's days
    unit: int  # 1 or 7 days

    rule: OnDays = field(kw_only=True)
    kind: Kind = field(default="cron", kw_only=True)
    is_zoned: ClassVar[bool] = True

    def as_cron(self, anchor_at: datetime) -> Cron | None:
        return self._from(anchor_at)

    def next_after(self, at: datetime, anchor_at: datetime) -> datetime | None:
        return self._from(anchor_at).next_after(at, anchor_at)

    def latest(self, after: datetime, upto: datetime, anchor_at: datetime) -> datetime | None:
        return self._from(anchor_at).latest(after, upto, anchor_at)

    def count(self, after: datetime, upto: datetime, anchor_at: datetime) -> int:
        return self._from(anchor_at).count(after, upto, anchor_at)

    def counts(self, marks: Sequence[int], anchor_at: datetime) -> list[int]:
        return self._from(anchor_at).counts(marks, anchor_at)

    def times_at(self, at: datetime, anchor_at: datetime) -> int:
        return self._from(anchor_at).times_at(at, anchor_at)

    def rows(self, from_at: datetime, anchor_at: datetime) -> Iterator[Row]:
        return self._from(anchor_at).rows(from_at, anchor_at)

    @lru_cache(maxsize=MAX_CACHED_ANCHORS)  # noqa: B019  # bounded, and schedules are kept anyway
    def _from(self, anchor_at: datetime) -> Cron:
        """The day that has the first moment after the anchor is one of the days; so is its week."""
        anchor = to_seconds(anchor_at)
        first = (self.times.next_from(anchor + self.zone.offset(anchor) + 1) or 0) // DAY_S
        # Day 0, in 1970, was a Thursday, and weeks begin on Monday.
        origin = first - (first + 3) % self.unit
        mask = sum(1 << (day + 6) % 7 for day in self.rule.weekdays) or 1
        length = self.rule.every * self.unit
        times = make_times(self.rule.times, in_cycle(self.times.days, length, origin % length, mask))
        return Cron(self.text, self.tz, self.zone, times, self.rule.is_fixed, rule=self.rule)


def _format_local(local: int, offset: int) -> str:
    return to_instant(local).replace(tzinfo=timezone(timedelta(seconds=offset))).isoformat()


# --- from text -----------------------------------------------------------------------------

_BLANKS = re.compile(r"[ \t]+")
MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


def parse_schedule(text: str, tz: str) -> Schedule:
    """The schedule that a text means in a zone; raises Refusal naming the field and the reason."""
    return _parsed(text.strip(" \t"), tz)


# What any task holds is parsed once, however many tasks there are, and forgotten with the last of them.
_held: WeakValueDictionary[tuple[str, str], Schedule] = WeakValueDictionary()


@lru_cache(maxsize=MAX_RECENT_SCHEDULES)
def _parsed(text: str, tz: str) -> Schedule:
    schedule = _held.get((text, tz))
    if schedule is None:
        schedule = _held[text, tz] = _parse(text, tz)
    return schedule


def _parse(text: str, tz: str) -> Schedule:
    zone = load_zone(tz)
    if len(text) > MAX_SCHEDULE_BYTES // 4 and len(text.encode(errors="replace")) > MAX_SCHEDULE_BYTES:
        refuse(f"the schedule is longer than {MAX_SCHEDULE_BYTES} bytes")
    if not text.isascii() and (match := ODD_BLANK.search(text)):
        refuse(f"the schedule holds {match[0]!a}, which looks like a blank or a hyphen and is none")
    if text[:1] == "@":
        return _parse_word(text, tz, zone)
    if is_phrase(text):
        return _parse_words(text, tz)
    return _parse_cron(text, text, tz, zone)


def _parse_words(text: str, tz: str) -> Schedule:
    phrase = parse_phrase(text)
    rule, tz = phrase.rule, phrase.zone or tz
    zone = load_zone(tz)
    if isinstance(rule, Interval):
        return _EveryInWords(text, tz, zone, rule.period_s, rule=rule)
    times = make_times(rule.times, parse_days(*rule.cron_days()))
    if rule.every > 1:
        return _Cycle(text, tz, zone, times, 7 if rule.weekdays else 1, rule=rule)
    return Cron(text, tz, zone, times, rule.is_fixed, rule=rule)


def comes_once(text: str) -> bool:
    """Whether a schedule is one moment: `@at`, or words that count from now."""
    word = _BLANKS.split(text.strip(" \t"), maxsplit=1)[0]
    return word == "@at" or word.lower() in ("in", "today", "tomorrow")


def settle_schedule(text: str, tz: str, now: datetime) -> str:
    """A schedule's text as it may be kept: one that counts from now becomes `@at` with its instant.

    That is `in 10 minutes`, `@at "tomorrow at 8 AM"` and `@at 2h`. Any other text comes back as it is,
    also one that `parse_schedule` will refuse.
    """
    if text[:1] in "*0123456789" or not comes_once(text):  # as most are
        return text
    stripped = text.strip(" \t")
    word, *rest = _BLANKS.split(stripped, maxsplit=1)
    argument = _strip_quotes("".join(rest)) if word == "@at" else stripped
    moment_at = parse_moment_phrase(argument, tz, now)
    if word == "@at" and BARE_DURATION.fullmatch(argument):
        with suppress(Refusal):
            moment_at = parse_moment(argument, tz, now)
    return f"@at {format_time(moment_at)}" if moment_at else text


def _strip_quotes(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def _parse_word(text: str, tz: str, zone: Zone) -> Schedule:
    word, *rest = _BLANKS.split(text, maxsplit=1)
    argument = rest[0] if rest else ""
    if word == "@every":
        return Every(text, tz, zone, _parse_period(argument))
    if word == "@at":
        moment_at = _parse_moment(argument, tz)
        if not _HAS_OFFSET.search(argument):
            # An instant from now on: whatever zone it is read in later, as after --tz or on another machine.
            return parse_schedule(f"@at {format_time(moment_at)}", tz)
        return At(text, tz, zone, moment_at)
    if word == "@on":
        return Schedule(text, tz, zone, kind="on", event=parse_event(argument))
    known = [*MACROS, "@reboot", "@every", "@at", "@after", "@on"]
    if word not in known:
        refuse(f'"{word}" is not one of {" ".join(known)}{meant(word, known)}')
    if argument:
        refuse(f'"{argument}" after {word}: nothing may follow it')
    if word in _WITHOUT_A_CLOCK:
        return Schedule(text, tz, zone, kind=_WITHOUT_A_CLOCK[word])
    return _parse_cron(text, MACROS[word], tz, zone)


def parse_event(text: str) -> str:
    """An event's name, as `@on` and EMIT say it. Raises Refusal."""
    if not re.fullmatch(NAME, text):
        refuse(f'"{text[:80]}" is not the name of an event: 1 to 64 of letters, digits, `.`, `_` and `-`')
    return text


def _parse_period(text: str) -> int:
    if not text:
        refuse("@every needs a duration, as in @every 90s")
    with naming("@every", "bad-schedule"):
        period_s = parse_duration(text)
    if period_s < 1 or period_s != int(period_s):
        refuse(f'@every "{text}": the period is whole seconds, at least 1s')
    return int(period_s)


_HAS_OFFSET = re.compile(r'(?:[Zz]|[+-][0-9]{2}:?[0-9]{2})"?$')


def _parse_moment(text: str, tz: str) -> datetime:
    text = _strip_quotes(text)
    if not text:
        refuse("@at needs a time, as in @at 2026-12-24T18:00:00Z")
    return parse_time(text, tz, EPOCH)


def _parse_cron(text: str, fields: str, tz: str, zone: Zone) -> Schedule:
    words = _BLANKS.split(fields) if fields else []
    if not 5 <= len(words) <= 6:
        refuse(
            f'"{text}": {len(words)} fields; a schedule has five (minute, hour, day of month, month,'
            " day of week), or six with seconds last, and never a year"
        )
    minute, hour, dom, month, dow, second = [*words, "0"][:6]
    moments = make_fields(
        expand(MINUTE, minute),
        expand(HOUR, hour),
        expand(SECOND_FIELD, second),
        parse_days(dom, month, dow),
    )
    fixed = minute[0] != "*" and hour[0] != "*"
    return Cron(text, tz, zone, moments, fixed)


def reload_zones() -> None:
    """Forgets all zone data; schedules parsed before keep what they had, so parse them again."""
    ZoneInfo.clear_cache()
    load_zone.cache_clear()
    data_version.cache_clear()
    _held.clear()
    _parsed.cache_clear()


# --- taking a schedule off a line -----------------------------------------------------------

_Q = r'"(?:[^"\\]|\\["\\])*"'
_QUOTED = re.compile(_Q)
_UNQUOTED = re.compile(
    rf"@(?:every|on)[ \t]+[^ \t]+|@at[ \t]+(?:{_Q}|[^ \t\"]+)|@[^ \t]*|[^ \t@]+(?:[ \t]+[^ \t]+){{4}}"
)


_BACKWARDS = re.compile(r"[ \t]((?:[0-9*][0-9*/,-]*[ \t]+){4}[0-9*][0-9*/,-]*|@[a-z]+)$")


def split_schedule(text: str) -> tuple[str, str]:
    """Cuts a line that begins with a schedule: (the schedule, the command after one blank, verbatim).

    Raises Refusal.
    """
    if text[:1] == '"':
        match = _QUOTED.match(text)
        if not match:
            raise Refusal(
                "syntax", 'the quoted schedule has no closing quote (inside quotes write \\" and \\\\)'
            )
        schedule = re.sub(r'\\(["\\])', r"\1", match[0][1:-1])
    else:
        match = _UNQUOTED.match(text)
        if text[:1].isalpha() or (text and text[0] in WRONG_QUOTES):
            behind = _BACKWARDS.search(text)
            hint = f"; {behind[1]} stands before the command" if behind else ""
            said = "a schedule begins with a cron field or @; one in words needs double quotes"
            raise Refusal("bad-schedule", f'"{text[:64]}": {said}{hint}', "schedule")
        if not match:
            why = "five cron fields, an @word or a quoted schedule must come first"
            raise Refusal("bad-schedule", f'"{text[:64]}": {why}', "schedule")
        schedule = match[0]
    end = match.end()
    if text[end : end + 1] not in (" ", "\t"):
        raise Refusal("syntax", f'no command after the schedule "{schedule[:64]}"', "command")
    command = text[end + 1 :]
    if not command:
        raise Refusal("syntax", f'the command after the schedule "{schedule[:64]}" is empty', "command")
    return schedule, command
