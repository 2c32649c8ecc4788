"""tasks.db: the tasks as people read and edit them, one JSON object a line.

The journal is the truth; this file is a copy that can be taken away, mended by hand and
loaded again, all or nothing. By size and CRC-32 a later start knows a hand edit from the
copy that the daemon wrote last.
"""

from __future__ import annotations

import filecmp
import json
import os
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeVar

from ..base.errors import Refusal, naming
from ..base.names import id_of_name
from ..base.text import escape
from ..base.walks import Numbered, Parted
from ..engine.facts import Definition
from ..host.disk import DISK, Prepared, chunks_of, free_name, of_file, open_regular, prepare, write_atomically
from ..tasks.options import check_unmasked
from ..tasks.task import TaskSpec, parse_json, parse_record, task_record

MAX_TASKS = 2_000_000
MAX_LINE_BYTES = 262_144  # whatever a task may hold (model.MAX_TEXT_BYTES), escaped as JSON, is shorter
_BOM = b"\xef\xbb\xbf"
# Characters that JSON leaves as they are and that a line of a text file must not hold.
_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029]")

LINES_A_TURN = 32  # a thread of ours would hold up the loop for much longer than that takes

T = TypeVar("T")
Entry = tuple[int | None, TaskSpec]


# --- reading ----------------------------------------------------------------------------


def read_tasks(
    path: Path,
    default_tz: str,
    max_tasks: int = MAX_TASKS,
    look_up: Callable[[str], object] = str,
    pause: Callable[[], object] = bool,
) -> list[Entry]:
    """All tasks of the file as (id or None, definition), or Refusal naming the first bad line.

    `look_up` is asked for each calendar that skip= names, and raises Refusal where there is none.
    `pause` is called now and then, so that other threads have their turn.
    """
    seen = _Seen()
    entries: list[Entry] = []
    with of_file(path), open_regular(path) as file:
        for number, line in enumerate(_lines(file, path), 1):
            if not line.strip():
                continue
            with naming(f"{path.name} line {number}", "bad-line"):
                record = parse_json(line, "the line")
                entries.append(seen.check(*parse_record(record, default_tz), number))
                if isinstance(record, dict) and b"***" in line:
                    for key, text in record.items():
                        check_unmasked(key, text)
            if number % LINES_A_TURN == 0:
                pause()
            if len(entries) > max_tasks:
                raise Refusal("limit", f"{path.name} line {number}: more than {max_tasks} tasks")
    seen.check_the_rest(path, look_up)
    seen.let_go(pause)
    return entries


def _lines(file: BinaryIO, path: Path) -> Iterator[bytes]:
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 2):
        number += 1
        if len(line.rstrip(b"\r\n")) > MAX_LINE_BYTES:
            raise Refusal("bad-line", f"{path.name} line {number}: longer than {MAX_LINE_BYTES} bytes")
        yield line.removeprefix(_BOM) if number == 1 else line


def line_of(path: Path, record: int) -> int:
    """In which line a record stands; both are counted from 1, and blank lines are no records."""
    with of_file(path), open_regular(path) as file:
        lines = (number for number, line in enumerate(_lines(file, path), 1) if line.strip())
        return next(islice(lines, record - 1, None), 0)


class _Seen:
    """Names and ids met so far, and the lines they stand in."""

    def __init__(self) -> None:
        self._names: Parted[str, int] = Parted()
        self._ids: Numbered[int] = Numbered()
        self._after: list[tuple[int, tuple[str, ...]]] = []
        self._calendars: dict[str, int] = {}

    def check(self, task_id: int | None, spec: TaskSpec, number: int) -> Entry:
        """The entry as it will be loaded; `task_<n>` has the id n without saying so. Raises Refusal."""
        if (owner := id_of_name(spec.name)) is not None:
            if task_id not in (None, owner):
                why = f'the name "{spec.name}" belongs to id {owner} alone, not {task_id}'
                raise Refusal("bad-line", why)
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

    def check_the_rest(self, path: Path, look_up: Callable[[str], object]) -> None:
        """Whoever is waited for must stand in the file too, by name or id; calendars must be there.

        Raises Refusal.
        """
        file = path.name
        for name, number in self._calendars.items():
            with naming(f"{file} line {number}", "bad-line"):
                look_up(name)
        for number, after in self._after:
            if missing := next((ref for ref in after if not self._knows(ref)), None):
                raise Refusal("bad-line", f'{file} line {number}: after=: no task "{escape(missing)}" in it')

    def _knows(self, ref: str) -> bool:
        owner = int(ref) if ref.isascii() and ref.isdigit() and len(ref) < 20 else id_of_name(ref)
        return ref in self._names or (owner is not None and owner in self._ids)

    def let_go(self, pause: Callable[[], object]) -> None:
        """Forgets all of it, a little at a time: what is large takes long to free."""
        while self._names or self._ids:
            self._names.let_go()
            self._ids.let_go()
            pause()


# --- writing ----------------------------------------------------------------------------

_encode = json.JSONEncoder(ensure_ascii=False).encode


def format_tasks(tasks: Iterable[tuple[int, Definition]]) -> Iterator[bytes]:
    """The file's lines: `{"schedule": "* * * * *", "command": "echo Hello", "jobName": "task_1"}`."""
    return (format_line(task_record(task_id, spec)) for task_id, spec in tasks)


def format_line(record: dict[str, str | int]) -> bytes:
    """One line, whatever its texts hold."""
    text = _encode(record)
    if not text.isascii() or "\x7f" in text:
        text = _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    return text.encode() + b"\n"


def prepare_tasks(
    path: Path, tasks: Iterable[tuple[int, Definition]], pause: Callable[[], object] = bool
) -> Prepared:
    """The first half of SAVE: size and CRC are journaled before `publish` makes the file count.

    Raises Refusal.
    """
    if path.is_dir():
        raise Refusal("bad-option", f"{path}: a directory, not a file")
    return prepare(path, with_pauses(format_tasks(tasks), pause))


def with_pauses(items: Iterable[T], pause: Callable[[], object]) -> Iterator[T]:
    """The same items; other threads have their turn now and then."""
    for number, item in enumerate(items):
        if number % LINES_A_TURN == 0:
            pause()
        yield item


# --- hand edits -------------------------------------------------------------------------


def fingerprint(path: Path, known: Collection[tuple[int, int]] | None = None) -> tuple[int, int] | None:
    """(size, CRC-32) as TasksSaved tells them; None where there is no such file, Refusal if it is none.

    Where only `known` ones matter, what has no size of theirs, however long, is not read.
    """
    size = crc = 0
    try:
        with open_regular(path) as file:
            found = os.fstat(file.fileno()).st_size
            if known is not None and found not in [each for each, _ in known]:
                return found, -1
            for chunk in chunks_of(file):
                size, crc = size + len(chunk), zlib.crc32(chunk, crc)
    except Refusal as refusal:
        if refusal.code == "not-found":
            return None
        raise
    return size, crc


def keep_edited(path: Path) -> Path:
    """Copies a hand-edited file to `tasks.db.edited`, or `.edited.2` and so on: none is ever overwritten.

    Raises Refusal.
    """
    filecmp.clear_cache()  # it goes by size and time
    with open_regular(path) as file:
        for known in path.parent.glob(f"{path.name}.edited*"):
            if filecmp.cmp(known, path, shallow=False):
                return known
        aside = free_name(path.with_name(f"{path.name}.edited"))
        if (size := os.fstat(file.fileno()).st_size) > DISK.free_bytes(file.fileno()):
            raise Refusal("disk-full", f"{path}: edited by hand, and no room to keep its {size} bytes")
        write_atomically(aside, chunks_of(file))
    return aside
