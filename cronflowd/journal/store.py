"""tasks.db: the tasks as people read and edit them, one JSON object a line.

The journal is the truth; this file is a copy that can be taken away, mended by hand and
loaded again, all or nothing. By size and CRC-32 a later start knows a hand edit from the
copy that the daemon wrote last.
"""

from __future__ import annotations

import json
import logging
import os
import re
import stat
import zlib
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import BinaryIO

from ..base.errors import Refusal
from ..base.names import id_of_name
from ..base.wire import escape
from ..host.disk import Prepared, make_directory, prepare, write_atomically
from ..schedules.calendars import FILE, Calendar, Calendars, Dates, find_holidays, parse_dates
from ..tasks.model import TaskSpec, parse_json, parse_record, task_record

__all__ = [
    "TASKS_NAME",
    "check_file_name",
    "fingerprint",
    "format_line",
    "format_tasks",
    "keep_edited",
    "make_directory",
    "prepare_tasks",
    "read_calendars",
    "read_tasks",
    "refresh_calendars",
]
TASKS_NAME = "tasks.db"
MAX_TASKS = 2_000_000
MAX_LINE_BYTES = 262_144  # whatever a task may hold (model.MAX_TEXT_BYTES), escaped as JSON, is shorter
_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}\.db")
_BOM = b"\xef\xbb\xbf"
_CHUNK_BYTES = 1024 * 1024
# Characters that JSON leaves as they are and that a line of a text file must not hold.
_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029]")

log = logging.getLogger("cronflowd.store")

Entry = tuple[int | None, TaskSpec]


def check_file_name(data: Path, name: str | None) -> Path:
    """The file a client names (None = tasks.db); it can be no other than one in the data directory."""
    if name is not None and not _FILE_NAME.fullmatch(name):
        raise Refusal(
            "bad-option", f'"{escape(name)}" is not a plain file name ending in .db (letters, digits, . _ -)'
        )
    return data / (name or TASKS_NAME)


# --- reading ----------------------------------------------------------------------------


def read_tasks(path: Path, default_tz: str, max_tasks: int = MAX_TASKS) -> list[Entry]:
    """All tasks of the file as (id or None, definition), or Refusal naming the first bad line."""
    seen = _Seen()
    entries: list[Entry] = []
    with _open_regular(path) as file:
        for number, line in enumerate(_lines(file, path), 1):
            if not line.strip():
                continue
            try:
                entries.append(seen.check(*_parse_line(line, default_tz), number))
            except Refusal as refusal:
                raise Refusal("bad-line", f"{path.name} line {number}: {refusal.message}") from None
            if len(entries) > max_tasks:
                raise Refusal("limit", f"{path.name} line {number}: more than {max_tasks} tasks")
    seen.check_the_rest(path)
    return entries


def _open_regular(path: Path) -> BinaryIO:
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for somebody to write to it.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        raise Refusal("not-found", f"there is no {path.name} in {path.parent}") from None
    except OSError as error:
        raise Refusal("denied", f"{path}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Refusal("bad-option", f"{path} is not a file")
    return os.fdopen(fd, "rb", _CHUNK_BYTES)


def _lines(file: BinaryIO, path: Path) -> Iterator[bytes]:
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 2):
        number += 1
        if len(line.rstrip(b"\r\n")) > MAX_LINE_BYTES:
            raise Refusal("bad-line", f"{path.name} line {number}: longer than {MAX_LINE_BYTES} bytes")
        yield line.removeprefix(_BOM) if number == 1 else line


def _parse_line(line: bytes, default_tz: str) -> Entry:
    return parse_record(parse_json(line, "the line"), default_tz)


class _Seen:
    """Names and ids met so far, and the lines they stand in."""

    def __init__(self) -> None:
        self._names: dict[str, int] = {}
        self._ids: dict[int, int] = {}
        self._after: list[tuple[int, tuple[str, ...]]] = []
        self._calendars: dict[str, int] = {}

    def check(self, task_id: int | None, spec: TaskSpec, number: int) -> Entry:
        """The entry as it will be loaded; `task_<n>` has the id n without saying so."""
        if (owner := id_of_name(spec.name)) is not None:
            if task_id not in (None, owner):
                raise Refusal(
                    "bad-line", f'the name "{spec.name}" belongs to id {owner} alone, not {task_id}'
                )
            task_id = owner
        if spec.name and (first := self._names.setdefault(spec.name, number)) != number:
            raise Refusal("bad-line", f'the jobName "{spec.name}" stands in line {first} already')
        if task_id is not None and (first := self._ids.setdefault(task_id, number)) != number:
            raise Refusal("bad-line", f"the id {task_id} stands in line {first} already")
        for name in spec.options.skip:
            self._calendars.setdefault(name, number)
        if spec.options.after:
            self._after.append((number, spec.options.after))
        return task_id, spec

    def check_the_rest(self, path: Path) -> None:
        """Whoever is waited for must stand in the file too, by name or id; calendars must be there."""
        file = path.name
        for name, number in self._calendars.items():
            try:
                read_calendars(path.parent, [name])
            except Refusal as refusal:
                raise Refusal("bad-line", f"{file} line {number}: {refusal.message}") from None
        known = self._names.keys() | map(str, self._ids) | {f"task_{task_id}" for task_id in self._ids}
        for number, after in self._after:
            if missing := next((ref for ref in after if ref not in known), None):
                raise Refusal("bad-line", f'{file} line {number}: after=: no task "{escape(missing)}" in it')


# --- calendars ----------------------------------------------------------------------------

MAX_CALENDAR_BYTES = 1024 * 1024


def read_calendars(data: Path, names: Iterable[str]) -> dict[str, Calendar]:
    """The calendars of these names, as skip= calls them. Raises Refusal naming the first that is none."""
    return {name: _read_calendar(data, name) for name in names}


def _read_calendar(data: Path, name: str) -> Calendar:
    try:
        return _read_dates(data, name) if name.startswith(FILE) else find_holidays(name)
    except Refusal as refusal:
        raise Refusal(refusal.code, f"skip=: {refusal.message}") from None


def _read_dates(data: Path, name: str) -> Dates:
    path = data / name.removeprefix(FILE)
    with _open_regular(path) as file:
        stamp = os.fstat(file.fileno())
        if stamp.st_size > MAX_CALENDAR_BYTES:
            raise Refusal("too-long", f"{path.name} is longer than {MAX_CALENDAR_BYTES} bytes")
        return parse_dates(file, path.name, (stamp.st_mtime_ns, stamp.st_size))


def refresh_calendars(data: Path, calendars: Calendars, names: Iterable[str]) -> None:
    """Reads again what is not known, or was edited since; what cannot be read stays as it was known."""
    for name in names:
        known = calendars.known.get(name)
        if known and (not isinstance(known, Dates) or _stamp(data / name.removeprefix(FILE)) == known.stamp):
            continue
        try:
            calendars.known |= read_calendars(data, [name])
            calendars.troubles.pop(name, None)
        except Refusal as refusal:
            if calendars.troubles.get(name) != refusal.message:
                log.warning("calendar %s: %s", name, refusal.message)
            calendars.troubles[name] = refusal.message


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


# --- writing ----------------------------------------------------------------------------

_encode = json.JSONEncoder(ensure_ascii=False).encode


def format_tasks(tasks: Iterable[tuple[int, TaskSpec]]) -> Iterator[bytes]:
    """The file's lines: `{"schedule": "* * * * *", "command": "echo Hello", "jobName": "task_1"}`."""
    return (format_line(task_record(task_id, spec)) for task_id, spec in tasks)


def format_line(record: dict[str, str | int]) -> bytes:
    """One line, whatever its texts hold."""
    text = _encode(record)
    if not text.isascii() or "\x7f" in text:
        text = _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    return text.encode() + b"\n"


def prepare_tasks(path: Path, tasks: Iterable[tuple[int, TaskSpec]]) -> Prepared:
    """The first half of SAVE: size and CRC are journaled before `publish` makes the file count."""
    if path.is_dir():
        raise Refusal("bad-option", f"{path} is not a file")
    return prepare(path, format_tasks(tasks))


# --- hand edits -------------------------------------------------------------------------


def fingerprint(path: Path) -> tuple[int, int] | None:
    """(size, CRC-32) as TasksSaved tells them; None where there is no such file, Refusal if it is none."""
    size = crc = 0
    try:
        with _open_regular(path) as file:
            while chunk := file.read(_CHUNK_BYTES):
                size, crc = size + len(chunk), zlib.crc32(chunk, crc)
    except Refusal as refusal:
        if refusal.code == "not-found":
            return None
        raise
    return size, crc


def keep_edited(path: Path) -> Path:
    """Copies a hand-edited file to `tasks.db.edited`, or `.edited.2` and so on: none is ever overwritten."""
    with _open_regular(path) as file:
        content = file.read()
    for number in count(1):
        aside = path.with_name(f"{path.name}.edited" + (f".{number}" if number > 1 else ""))
        if not aside.exists():
            write_atomically(aside, [content])
            return aside
        if aside.read_bytes() == content:
            return aside
    raise AssertionError("the numbers have ended")
