"""The days off that tasks name by skip=: read by whoever leads, and from then on true for everybody.

What a file of dates says is a fact as soon as it is read and says something new; so every node of a
cluster, and each start, knows the days that decided. Of public holidays, which come with a package on every
machine, the fact is only that they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from ..schedules.calendars import FILE, Calendar, Calendars
from .facts import Fact

if TYPE_CHECKING:
    from .tables import Tables


class CalendarRead(Fact):
    """Tasks name this calendar, and of a file this is what it says."""

    name: str
    read_at: datetime
    days: dict[str, str] | None = None  # by ISO date what it is called; None of public holidays


class CalendarDropped(Fact):
    """No task names it any more."""

    name: str


def learned(calendars: Calendars, found: Mapping[str, Calendar], now: datetime) -> Iterator[CalendarRead]:
    """What is new of what was read just now."""
    for name, calendar in found.items():
        is_file, known = name.startswith(FILE), calendars.known.get(name)
        if name not in calendars.read_at or (is_file and known and known.names != calendar.names):
            yield CalendarRead(name, now, _days(calendar) if is_file else None)


def _days(calendar: Calendar) -> dict[str, str]:
    return {day.isoformat(): what for day, what in calendar.names.items()}


def carry(state: Tables) -> Iterator[CalendarRead]:
    known = state.calendars.known
    for name, read_at in state.calendars.read_at.items():
        yield CalendarRead(name, read_at, _days(known[name]) if name.startswith(FILE) else None)


def _read(state: Tables, fact: CalendarRead, at: datetime, seq: int) -> None:
    state.calendars.read_at[fact.name] = fact.read_at
    if fact.days is not None:
        days = {date.fromisoformat(day): what for day, what in fact.days.items()}
        state.calendars.known[fact.name] = Calendar(days)


def _dropped(state: Tables, fact: CalendarDropped, at: datetime, seq: int) -> None:
    state.calendars.read_at.pop(fact.name, None)
    state.calendars.known.pop(fact.name, None)


APPLY: dict[type[Fact], Callable[[Tables, Any, datetime, int], None]] = {
    CalendarRead: _read,
    CalendarDropped: _dropped,
}
