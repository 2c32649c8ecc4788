"""Days on which tasks with skip= do not run: public holidays, and lists of dates in files.

Holidays come from the package `holidays`, an optional one, which knows them year by year.
Files are read by host/calendar_files.py; whoever decides finds all days here, in memory. A calendar that
is not known has no days off: better one run too many than a backup that never comes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from functools import partial
from typing import Any

from attrs import frozen

from ..base.errors import Refusal
from ..base.text import escape

MAX_CALENDARS = 8  # of one task
MAX_DATES = 20_000
HOLIDAYS, FILE = "holidays:", "file:"
ENGLISH = "en_US"  # in the words of the package

_FORMS = re.compile(rf"{HOLIDAYS}[A-Z]{{2,5}}(-[A-Z0-9]{{1,5}})?|{FILE}[A-Za-z0-9_-][A-Za-z0-9._-]{{0,63}}")


def parse_calendar_names(text: str) -> tuple[str, ...]:
    """`holidays:FR,file:closed.txt`: their names, as skip= takes them. Raises Refusal."""
    names = tuple(text.split(",")) if text else ()
    for name in names:
        if not _FORMS.fullmatch(name):
            form = "holidays:FR, holidays:DE-BY or file:NAME, a plain name in the data directory"
            code = name.removeprefix(HOLIDAYS).upper()
            hint = f"; did you mean {HOLIDAYS}{code}?" if _FORMS.fullmatch(HOLIDAYS + code) else ""
            raise Refusal("bad-option", f'"{escape(name[:80])}" is not {form}{hint}')
    if len(names) > MAX_CALENDARS:
        raise Refusal("bad-option", f"more than {MAX_CALENDARS} calendars")
    return names


@frozen(eq=False)
class Calendar:
    """Days off, and what each is called."""

    names: Mapping[date, str]  # of public holidays, one that grows by the years that are asked for
    stamp: tuple[int, int] | None = None  # of the file that was read here: its time and size

    def days(self, first: date, last: date) -> list[date]:
        """The days off from first to last, both included."""
        for year in range(first.year, last.year + 1):
            self.names.get(date(year, 1, 1))
        return [day for day in self.names if first <= day <= last]


def parse_dates(lines: Iterable[bytes], file: str, stamp: tuple[int, int]) -> Calendar:
    """An ISO date a line, `#` begins a remark. Raises Refusal (`bad-line`) naming the first bad one."""
    names: dict[date, str] = {}
    for number, line in enumerate(lines, 1):
        text, _, remark = line.decode(errors="replace").strip().removeprefix("\ufeff").partition("#")
        if not (text := text.strip()):
            continue
        try:
            if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text, re.ASCII):
                raise ValueError("write it as 2026-12-24")
            names[date.fromisoformat(text)] = remark.strip()
        except ValueError as error:
            what = f'"{escape(text[:40])}" is not a date: {error}'
            raise Refusal("bad-line", f"{file} line {number}: {what}") from None
        if len(names) > MAX_DATES:
            raise Refusal("bad-line", f"{file} line {number}: more than {MAX_DATES} dates")
    return Calendar(names, stamp)


def find_holidays(name: str) -> Calendar:
    """The calendar `holidays:FR`, of a country, a part of it, or an exchange.

    Raises Refusal if there is none, or the package is not there.
    """
    try:
        import holidays  # optional, and a tenth of a second
    except ImportError:
        reason = "holidays need the package of that name: pip install 'cronflowd[holidays]'"
        raise Refusal("bad-option", reason) from None
    code, _, part = name.removeprefix(HOLIDAYS).partition("-")
    if not part and code in holidays.list_supported_financial():
        make: Callable[..., Any] = partial(holidays.financial_holidays, code)
    else:
        make = partial(holidays.country_holidays, code, subdiv=part or None)
    try:
        table = make()
    except NotImplementedError as error:
        raise Refusal("bad-option", f'there are no holidays "{name}": {error}') from None
    # Without a language that it has, the package takes the environment's, and of LANG=C.UTF-8 one Python
    # makes English and another the country's own.
    language = ENGLISH if ENGLISH in table.supported_languages else table.default_language
    return Calendar(make(language=language))


class Calendars:
    """All calendars that tasks ask for, by name."""

    def __init__(self) -> None:
        self.known: dict[str, Calendar] = {}
        self.read_at: dict[str, datetime] = {}  # as facts tell, of those that tasks name
        self.untold: dict[str, Calendar] = {}  # as files say that were read, while the journal took nothing
        self.troubles: dict[str, str] = {}  # why one is not known, or not as its file says now
        self.failed: dict[str, tuple[int, ...]] = {}  # the stamps of the files that could not be read

    def day_off(self, names: Iterable[str], day: date) -> str | None:
        """The calendar that takes a day off, and what it calls it; None if none does."""
        for name in names:
            calendar = self.known.get(name)
            if calendar and (what := calendar.names.get(day)) is not None:
                return f"{name} ({what})" if what else name
        return None

    def days_off(self, names: Iterable[str], first: date, last: date) -> list[date]:
        """The days off from first to last, both included, in order."""
        known = [calendar for name in names if (calendar := self.known.get(name))]
        return sorted({day for calendar in known for day in calendar.days(first, last)})
