"""Calendars from where they are kept: dates in files of the data directory, holidays in a package."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

from attrs import evolve

from ..base.errors import Refusal, naming_option
from ..schedules.calendars import FILE, Calendar, Calendars, find_holidays, parse_dates
from .disk import of_file, open_regular

MAX_CALENDAR_BYTES = 1024 * 1024

log = logging.getLogger(__name__)


def read_calendars(data: Path, names: Iterable[str]) -> dict[str, Calendar]:
    """The calendars of these names, as skip= calls them. Raises Refusal naming the first that is none."""
    return {name: _read_calendar(data, name) for name in names}


def _read_calendar(data: Path, name: str) -> Calendar:
    with naming_option("skip"):
        return _read_dates(data, name) if name.startswith(FILE) else find_holidays(name)


def _read_dates(data: Path, name: str) -> Calendar:
    path = data / name.removeprefix(FILE)
    with of_file(path), open_regular(path) as file:
        stamp = os.fstat(file.fileno())
        if stamp.st_size > MAX_CALENDAR_BYTES:
            raise Refusal("too-long", f"{path.name} is longer than {MAX_CALENDAR_BYTES} bytes")
        return parse_dates(file, path.name, (stamp.st_mtime_ns, stamp.st_size))


def refresh_calendars(data: Path, calendars: Calendars, names: Iterable[str]) -> dict[str, Calendar]:
    """Reads again what is not known, or was edited since; what cannot be read stays as it was known."""
    found = dict[str, Calendar]()
    for name in names:
        stamp = _stamp(data, name)
        if is_read(data, calendars, name):
            calendars.troubles.pop(name, None)  # it was away, and is the same again
            continue
        # A file is read once, whatever came of it, until it is another one.
        untold = calendars.untold.get(name)
        if untold and untold.stamp == stamp[:2]:
            found[name] = untold
            continue
        if name in calendars.troubles and calendars.failed.get(name) == stamp:
            continue
        try:
            found |= read_calendars(data, [name])
            calendars.troubles.pop(name, None)
        except Refusal as refusal:
            if calendars.troubles.get(name) != refusal.message:
                log.warning("calendar %s: %s", name, refusal.message)
            calendars.troubles[name], calendars.failed[name] = refusal.message, stamp
    return found


def is_read(data: Path, calendars: Calendars, name: str) -> bool:
    """Whether what is known is what stands there, or counts as such."""
    known = calendars.known.get(name)
    return known is not None and (not name.startswith(FILE) or known.stamp == _stamp(data, name)[:2])


def pass_over_old(data: Path, calendars: Calendars) -> None:
    """Files that are older than what is known of them count as read: another node has read a newer one."""
    for name, read_at in calendars.read_at.items():
        known, stamp = calendars.known.get(name), _stamp(data, name)
        if known and stamp and stamp[0] <= read_at.timestamp() * 1e9:
            calendars.known[name] = evolve(known, stamp=(stamp[0], stamp[1]))


def _stamp(data: Path, name: str) -> tuple[int, ...]:
    """When a file was changed, its size, when its mode was; nothing for what is no file, or not there."""
    if not name.startswith(FILE):
        return ()
    try:
        found = (data / name.removeprefix(FILE)).stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ctime_ns
