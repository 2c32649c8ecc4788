"""What a schedule in words comes down to, as plain values, and their cron form and English.

How the words are read is told in english.py, and what is due when in schedule.py. `explain`
writes what english.py reads back as the very same value.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import groupby

from attrs import frozen

from .zones import DAY_S

LAST = 99  # the last day, or the last such weekday, of a month
MAX_CRON_LINES = 2

DAY_NAMES = "sunday monday tuesday wednesday thursday friday saturday".split()
MONTH_NAMES = "january february march april may june july august september october november december".split()
ORDINALS = {1: "first", 2: "second", 3: "third", 4: "fourth", LAST: "last"}
WORK_DAYS = (1, 2, 3, 4, 5)


@frozen
class Interval:
    """Even, for ever, from the midnight before the task was added."""

    period_s: int


@frozen
class OnDays:
    """Times of day on days of the calendar; an empty tuple stands for any."""

    times: tuple[int, ...] | range  # seconds since midnight, ascending; a range follows real time
    weekdays: tuple[int, ...] = ()  # 0 is Sunday
    nth: tuple[int, ...] = ()  # which of a month's such weekdays; then there is one in `weekdays`
    dates: tuple[int, ...] = ()  # days of the month
    months: tuple[int, ...] = ()
    every: int = 1  # only every so many days, or weeks if there are weekdays
    near: tuple[int, ...] = ()  # the first or the last weekday, Monday to Friday, of the month

    @property
    def is_fixed(self) -> bool:
        """Whether a clock change moves what it passes over, and what it repeats is served once."""
        return not isinstance(self.times, range)

    def cron_days(self) -> tuple[str, str, str]:
        """cron's fields for day of month, month and day of week; `every` is not in them."""
        dow = _join_numbers(self.weekdays)
        if self.nth:
            dow = ",".join(f"{dow}L" if n == LAST else f"{dow}#{n}" for n in self.nth)
        dom = ",".join("L" if n == LAST else str(n) for n in self.dates)
        dom = ",".join("LW" if n == LAST else f"{n}W" for n in self.near) or dom
        return dom or "*", _join_numbers(self.months) or "*", dow or "*"


Rule = Interval | OnDays


# --- cron's form -------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def cron_lines(rule: Rule) -> tuple[str, ...]:
    """The cron schedules that together fire as the rule does; empty if cron cannot say it.

    Only at clock changes can they differ: where an interval's zone changes by no multiple of
    the period, and where one falls `between` two times.
    """
    if isinstance(rule, Interval):
        return _cron_interval(rule.period_s)
    if rule.every > 1:
        return ()
    by_minutes: dict[tuple[int, ...], list[int]] = {}
    for hour, times in groupby(rule.times, lambda time: time // 3600):
        by_minutes.setdefault(tuple(time % 3600 for time in times), []).append(hour)
    lines = [_cron_line(rule, times, hours) for times, hours in by_minutes.items()]
    found = tuple(line for line in lines if line)
    return found if len(found) == len(lines) <= MAX_CRON_LINES else ()


def _cron_interval(period_s: int) -> tuple[str, ...]:
    minutes = period_s // 60
    if period_s < 60 and 60 % period_s == 0:
        return (f"* * * * * {_format_step(period_s)}",)
    if period_s % 60 or 60 % minutes:
        return ()
    return ("0 * * * *",) if minutes == 60 else (f"{_format_step(minutes)} * * * *",)


def _cron_line(rule: OnDays, times: tuple[int, ...], hours: list[int]) -> str:
    """Empty where minutes and seconds are no rectangle."""
    minutes = sorted({time // 60 for time in times})
    seconds = sorted({time % 60 for time in times})
    if len(minutes) * len(seconds) != len(times):
        return ""
    # A field that begins with * would make it follow real time.
    join = _join_steps if not rule.is_fixed else lambda numbers, _: _join_numbers(numbers)
    line = " ".join((join(minutes, 60), join(hours, 24), *rule.cron_days()))
    return line if seconds == [0] else f"{line} {_join_steps(seconds, 60)}"


def _format_step(n: int) -> str:
    return "*" if n == 1 else f"*/{n}"


def _join_steps(numbers: list[int], size: int) -> str:
    step = size // len(numbers)
    whole = len(numbers) > 1 and numbers == list(range(0, size, step))
    return _format_step(step) if whole else _join_numbers(numbers)


def _join_numbers(numbers: Iterable[int]) -> str:
    """cron's list: 1-5,7."""
    runs = groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])
    ends = ((run[0], run[-1]) for _, pairs in runs if (run := [n for _, n in pairs]))
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in ends)


# --- English -----------------------------------------------------------------------------------


def explain(rule: Rule) -> str:
    """The rule in words that say all of it, and that are read back as the same rule."""
    if isinstance(rule, Interval):
        return explain_period(rule.period_s)
    if isinstance(rule.times, range):
        words = explain_period(rule.times.step), _between(rule, rule.times), _on(rule)
        return " ".join(filter(None, words))
    return f"{_days(rule)} at {join_words(format_clock(time) for time in rule.times)}"


def explain_anchor(rule: Rule, has_start: bool = False) -> str:
    """What the rule counts from, the task's birth or its start=; empty where it does not count."""
    if isinstance(rule, Interval):
        return f"counted from midnight on the day {'of start=' if has_start else 'the task was added'}"
    if rule.every == 1:
        return ""
    unit = "week (Monday to Sunday)" if rule.weekdays else "day"
    since = "start=" if has_start else "the task was added"
    return f"counted from the {unit} of the first such moment after {since}"


def format_ordinal(n: int) -> str:
    if n == LAST:
        return "last"
    return f"{n}{'th' if 10 < n % 100 < 14 else {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th')}"


def join_words(words: Iterable[str]) -> str:
    *most, last = [*words] or [""]
    return f"{', '.join(most)} and {last}" if most else last


def format_clock(time: int) -> str:
    text = f"{time // 3600}:{time // 60 % 60:02}"
    return f"{text}:{time % 60:02}" if time % 60 else text


def explain_period(period_s: int) -> str:
    """`every 90 seconds`, in the largest unit that fits."""
    size, unit = next((size, unit) for size, unit in UNITS if period_s % size == 0)
    n = period_s // size
    return f"every {unit}" if n == 1 else f"every {n} {unit}s"


UNITS = ((3600, "hour"), (60, "minute"), (1, "second"))


def covers_day(times: range) -> bool:
    return times.start == 0 and times[-1] + times.step == DAY_S


def _between(rule: OnDays, times: range) -> str:
    """Of every day, even all of it is said, or it would read as an interval."""
    if covers_day(times) and (rule.weekdays or rule.dates or rule.near or rule.months):
        return ""
    return f"between {format_clock(times.start)} and {format_clock(times[-1])}"


def _on(rule: OnDays) -> str:
    """The days as an addition to `every 15 minutes`."""
    months = join_months(rule.months) if rule.months else ""
    if rule.dates or rule.nth or rule.near:
        return f"on the {_month_days(rule)} of {months or 'every month'}"
    days = f"on {join_weekdays(rule.weekdays, 'weekdays')}" if rule.weekdays else ""
    return " ".join(filter(None, (days, f"in {months}" if months else "")))


def _days(rule: OnDays) -> str:
    """The days as a beginning."""
    if rule.every > 1:
        return f"every {rule.every} " + (f"weeks {_on(rule)}" if rule.weekdays else "days")
    if rule.dates or rule.nth or rule.near:
        return f"every year {_on(rule)}" if rule.months else _on(rule)
    months = f" {_on(OnDays(rule.times, months=rule.months))}" if rule.months else ""
    return f"every {join_weekdays(rule.weekdays, 'weekday') if rule.weekdays else 'day'}{months}"


def join_months(months: Iterable[int]) -> str:
    return join_words(MONTH_NAMES[n - 1] for n in months)


def join_weekdays(weekdays: tuple[int, ...], work_days: str) -> str:
    if weekdays == WORK_DAYS:
        return work_days
    return join_words(DAY_NAMES[n] for n in sorted(weekdays, key=lambda n: (n + 6) % 7))


def _month_days(rule: OnDays) -> str:
    if rule.nth:
        return f"{join_words(ORDINALS[n] for n in rule.nth)} {DAY_NAMES[rule.weekdays[0]]}"
    if rule.near:
        return f"{join_words(ORDINALS[n] for n in rule.near)} weekday"
    days = join_words(format_ordinal(n) for n in rule.dates)
    return f"{days} day" if LAST in rule.dates else days
