"""What a schedule means, in English: cron fields, @words and phrases alike.

Where a rule in words has the very same fires as the cron fields, at clock changes too, its own
sentence is said (rules.py). Everything else is said field by field, in words that english.py
refuses, so that no sentence can be typed back and mean something else. `*/15 * * * *` is no
`every 15 minutes`, which stays even where a clock changes by a part of that; it is `every 15
minutes between 0:00 and 23:45`, which follows the clock. `0-59/15 9-17 * * *` is fixed, and so
`at every 15th minute from 9:00 to 17:45`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import product

from ..base.text import format_time
from . import rules as r
from .fields import ALL_DATES, ALL_HOURS, ALL_MONTHS, ALL_WEEKDAYS, Days, Fields, bits
from .rules import LAST, Interval, OnDays, Rule
from .schedule import MACROS, At, Cron, Every, Schedule
from .words import SHORTEST
from .zones import Zone

MAX_TIMES, MAX_DATES = 6, 7  # of a day, and of a month, that are listed one by one
MIN_RUN, MIN_STEPS = 3, 5  # numbers that become `1 to 3`, or `every 5th from 0 to 20`
_WHERE = ", where there is such a day"
_FIFTH = {**r.ORDINALS, 5: "fifth"}


def describe(schedule: Schedule, has_start: bool = False) -> str:
    """The schedule in words that say all of it, its zone and its anchor aside."""
    match schedule:
        case Schedule(rule=Interval() | OnDays() as rule):
            return r.explain(rule)
        case Cron():
            found = _find_rule(schedule)
            return r.explain(found) if found else f"{_say_times(schedule)}{_say_days(schedule.fields)}"
        case Every(period_s=period_s):
            since = "start=" if has_start else "when the task was added"
            return f"{r.explain_period(period_s)}, counted from {since}"
        case At(moment_at=moment_at):
            return f"once, at {format_time(moment_at)}"
        case Schedule(event=event) if event:
            return f"whenever the event {event} is emitted"
    return _WITHOUT_A_CLOCK[schedule.kind]


_WITHOUT_A_CLOCK = {
    "reboot": "each time the daemon starts",
    "after": "whenever all tasks that it waits for have ended",
    "unreadable": "nothing that can be read any more; it is never due",
}


def describe_anchor(schedule: Schedule, has_start: bool = False) -> str:
    """What it counts from, the task's birth or its start=; empty where it does not count."""
    if schedule.rule:
        return r.explain_anchor(schedule.rule, has_start)
    if not isinstance(schedule, Every):
        return ""
    return "counted from start=" if has_start else "counted from the second at which the task was added"


def describe_changes(schedule: Schedule) -> str:
    """What it does when the clock is changed, by a zone's rules or by hand."""
    if isinstance(schedule, Cron):
        return _FIXED if schedule.fixed else _WILDCARD
    if isinstance(schedule.rule, OnDays):
        return _FIXED if schedule.rule.is_fixed else _WILDCARD
    return _EVEN if isinstance(schedule, Every) else "nothing changes"


_FIXED = (
    "a jump of up to 3 hours: what it passes over runs right after it; what comes twice runs the first time"
)
_WILDCARD = "it follows real time: what is jumped over does not come, and what comes twice runs twice"
_EVEN = "nothing changes: the time between two runs stays the same"


def format_cron(schedule: Schedule) -> str:
    """Its cron form; empty where there is none, or where it is one already."""
    return "; ".join(cron_forms(schedule)) if schedule.rule else MACROS.get(schedule.text, "")


def cron_forms(schedule: Schedule) -> tuple[str, ...]:
    """The cron schedules that together fire as a phrase does in its zone; empty if cron cannot say it."""
    rule = schedule.rule
    if rule is None or (isinstance(rule, Interval) and not _is_by_the_clock(schedule.zone, rule.period_s)):
        return ()
    return r.cron_lines(rule)


@lru_cache(maxsize=256)
def _is_by_the_clock(zone: Zone, period_s: int) -> bool:
    """Whether what is even, counted from a midnight, keeps its place on the clock when that is changed."""
    return len({segment.offset % period_s for segment in zone.forward(*_THESE_YEARS)}) == 1


_THESE_YEARS = (1_700_000_000, 2_000_000_000)  # from 2023 to 2033


# --- as a rule ---------------------------------------------------------------------------------


def _find_rule(cron: Cron) -> Rule | None:
    """The rule that words can say and that has the very same fires; None if there is none."""
    fields, days = cron.fields, cron.fields.days
    times = _even_times(fields)
    if cron.fixed:
        return _find_on_days(days, tuple(_times(fields))) if fields.per_day <= MAX_TIMES else None
    # Clocks differ by whole minutes, so what divides a minute is even, and follows them too.
    if times and days.every and r.covers_day(times) and 60 % times.step == 0:
        return Interval(times.step)
    return _find_on_days(days, times) if times else None


def _find_on_days(days: Days, times: tuple[int, ...] | range) -> OnDays | None:
    by_date, by_weekday = _what_counts(days)
    dates = (*bits(days.dom), *([LAST] if days.last else []))
    weekdays, nth = bits(days.dow) if by_weekday else (), _nth(days) if by_weekday else []
    if by_date and (by_weekday or len(dates) > MAX_DATES or _may_lack(days, dates)):
        return None
    near = tuple(sorted({*days.near}))
    if near and (dates or not {*near} <= {1, LAST}):
        return None
    if nth and (weekdays or len({weekday for weekday, _ in nth}) > 1 or any(n == 5 for _, n in nth)):
        return None
    weekdays = weekdays or tuple({weekday for weekday, _ in nth})
    months = bits(days.months) if days.months != ALL_MONTHS else ()
    return OnDays(times, weekdays, tuple(n for _, n in nth), dates if by_date else (), months, near=near)


def _what_counts(days: Days) -> tuple[bool, bool]:
    """Whether the day of the month restricts anything, and whether the day of the week does."""
    by_date, by_weekday = days.dom != ALL_DATES, days.dow != ALL_WEEKDAYS
    return (by_date, by_weekday) if days.both or (by_date and by_weekday) else (False, False)


def _nth(days: Days) -> list[tuple[int, int]]:
    """`d#n` and `dL`."""
    return sorted({*days.nth, *((weekday, LAST) for weekday in bits(days.last_dow))})


def _may_lack(days: Days, dates: tuple[int, ...]) -> bool:
    """Whether one of the months does not always have one of the dates."""
    return any(SHORTEST[month] < date != LAST for month in bits(days.months) for date in dates)


def _times(fields: Fields) -> Iterator[int]:
    hours, minutes, seconds = map(bits, (fields.hours, fields.minutes, fields.seconds))
    return (hour * 3600 + minute * 60 + second for hour, minute, second in product(hours, minutes, seconds))


def _even_times(fields: Fields) -> range | None:
    """The times of day, if there are several and all are equally far apart."""
    step = (fields.final - fields.first) // max(1, fields.per_day - 1)
    span = range(fields.first, fields.final + 1, step or 1)
    return span if 1 < len(span) == fields.per_day and all(map(int.__eq__, span, _times(fields))) else None


# --- field by field ------------------------------------------------------------------------------


def _say_times(cron: Cron) -> str:
    fields, even = cron.fields, _even_times(cron.fields)
    if cron.fixed and fields.per_day <= MAX_TIMES:
        return f"at {r.join_words(map(r.format_clock, _times(fields)))}"
    if even and cron.fixed:
        size, unit = next((size, unit) for size, unit in r.UNITS if even.step % size == 0)
        nth = f"{r.format_ordinal(even.step // size)} " if even.step > size else ""
        return f"at every {nth}{unit} from {r.format_clock(even[0])} to {r.format_clock(even[-1])}"
    if even:
        return r.explain_period(even.step) if r.covers_day(even) else r.explain(OnDays(even))
    named = [(fields.seconds, "second", 60), (fields.minutes, "minute", 60), (fields.hours, "hour", 24)]
    named = named[fields.seconds == 1 :]
    return "at " + " of ".join(_say_numbers(mask, unit, size) for mask, unit, size in named)


def _say_numbers(mask: int, unit: str, size: int) -> str:
    numbers = bits(mask)
    if len(numbers) == size:
        return f"every {unit}"
    pieces = _pieces(numbers, unit, str)
    if len(pieces) == 1 and pieces[0].startswith("every"):
        return pieces[0]
    return f"{unit}{'s' if len(numbers) > 1 else ''} {r.join_words(pieces)}"


def _pieces(numbers: tuple[int, ...], unit: str, name: Callable[[int], str]) -> list[str]:
    """Numbers as a list of few words: `1 to 3`, `7`, `every 5th minute from 10 to 50`."""
    pieces = []
    while numbers:
        step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
        run = next((n for n, number in enumerate(numbers) if number != numbers[0] + n * step), len(numbers))
        if run < (MIN_RUN if step == 1 else MIN_STEPS):
            run, piece = 1, name(numbers[0])
        else:
            piece = f"{name(numbers[0])} to {name(numbers[run - 1])}"
        pieces.append(f"every {r.format_ordinal(step)} {unit} from {piece}" if run > 1 < step else piece)
        numbers = numbers[run:]
    return pieces


def _say_days(fields: Fields) -> str:
    days = fields.days
    by_date, by_weekday = _what_counts(days)
    months = r.join_months(bits(days.months)) if days.months != ALL_MONTHS else ""
    of_months, in_months = f" of {months or 'every month'}", f" in {months}" if months else ""
    dates = _pieces(bits(days.dom), "day", _date)
    dates += [
        f"the weekday nearest to {_date(n)}" if n != LAST else "the last weekday"
        for n in sorted({*days.near})
    ]
    dates += ["the last day"] * days.last
    weekdays = r.join_weekdays(bits(days.dow), "weekday")
    if by_date and by_weekday and days.both:
        return f" on those of {r.join_words(dates)}{of_months} that are a {weekdays.replace(' and ', ' or ')}"
    parts = []
    if by_date:
        # A range of dates just ends in a shorter month; one that stands alone may be missed.
        alone = (*days.near, *(n for n in bits(days.dom) if _date(n) in dates))
        parts.append(f" on {r.join_words(dates)}{of_months}{_WHERE if _may_lack(days, alone) else ''}")
    if by_weekday and days.dow:
        parts.append(f" on every {weekdays}{in_months}")
    if by_weekday and (nth := _nth(days)):
        named = r.join_words(f"the {_FIFTH[n]} {r.DAY_NAMES[weekday]}" for weekday, n in nth)
        parts.append(f" on {named}{of_months}{_WHERE if any(n == 5 for _, n in nth) else ''}")
    return ", and".join(parts) or in_months or ("" if fields.hours == ALL_HOURS else " every day")


def _date(n: int) -> str:
    return f"the {r.format_ordinal(n)}"
