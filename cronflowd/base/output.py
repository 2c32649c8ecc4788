"""What a run wrote, byte for byte: as it travels, as it is kept, as it is shown.

Nearly all of it is whole lines of UTF-8, and such a line is kept as `[fd, text]`. Any other is kept
as `[fd, escaped, is_whole]`: its text as it travels, in which a byte NN that is no UTF-8 is `\\udcNN`, and
whether a newline stands behind it. If not, the next line of that fd goes on where it breaks off. On
the worker port that is told by a single backslash at the text's end, which no escaped text has.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from .replies import JsonOnly, Verbatim
from .text import escape, length, readable, to_bytes, unescape

COLUMNS = ("fd", "text", "end", "base64")
GOES_ON = "\\"
NO_NEWLINE = "no-newline"
_BYTE = re.compile(r"\\u[dD][cC]")  # what such a byte's escape begins with
MAX_PIECE = 8192  # characters of a line that is cut here; of others the worker sees to it
_ROW = re.compile(r"[^\r\n]*(?:\r?\n|\r)|[^\r\n]+")  # as the worker cuts them
MAX_LAST, MAX_LOOKED_AT = 4096, 10_000  # characters of a last line; lines that it is looked for in

Line = Sequence[Any]


def parse_line(fd: int, escaped: str) -> list[Any]:
    """A line from what OUT says of it."""
    if GOES_ON not in escaped:
        return [fd, escaped]
    is_whole = (len(escaped) - len(escaped.rstrip(GOES_ON))) % 2 == 0
    if is_whole and not _BYTE.search(escaped):
        return [fd, unescape(escaped)]
    return [fd, escaped if is_whole else escaped[:-1], is_whole]


def cut_lines(fd: int, text: str) -> list[list[Any]]:
    """Lines of a text whose newlines stand for themselves; what follows the last one goes on."""
    lines: list[list[Any]] = []
    for row in _ROW.findall(text):
        end = row.endswith("\n")
        line = row[:-1] if end else row
        for at in range(0, max(1, len(line)), MAX_PIECE):
            piece, is_last = line[at : at + MAX_PIECE], at + MAX_PIECE >= len(line)
            is_plain = end and is_last and _is_utf8(piece)
            lines.append([fd, piece] if is_plain else [fd, escape(piece), end and is_last])
    return lines


def text_of(line: Line) -> str:
    """Its text; a surrogate stands for a byte that is no UTF-8."""
    return str(line[1]) if len(line) == 2 else unescape(line[1])


def is_whole(line: Line) -> bool:
    """Whether a newline stands behind it."""
    return len(line) == 2 or line[2]


def size_of(lines: Iterable[Line]) -> int:
    """Characters, with the newlines; a byte that is no UTF-8 counts as one."""
    return sum([len(line[1]) + 1 if len(line) == 2 else length(line[1]) + line[2] for line in lines])


def row_of(line: Line) -> tuple[Any, ...]:
    """A row of LOG. What JSON cannot say of the text is in `base64`, for whoever needs the bytes."""
    text = text_of(line)
    row = line[0], Verbatim(text)
    if len(line) == 2:
        return row
    end = JsonOnly("") if line[2] else NO_NEWLINE
    return (*row, end) if _is_utf8(text) else (*row, end, JsonOnly(b64encode(to_bytes(text)).decode()))


def last_lines(lines: Sequence[Line], fds: Sequence[int], most: int, start: int = 0) -> list[str]:
    """The ends of the last lines that were written to any of these; of a progress bar, its last state."""
    found: list[str] = []
    begun: dict[int, int] = {}  # by fd: where in `found` the line is that may go on further up
    for line in islice(reversed(lines), min(MAX_LOOKED_AT, len(lines) - start)):
        fd = line[0]
        if fd not in fds:
            continue
        if is_whole(line) or fd not in begun:
            if len(found) == most:
                break
            begun[fd] = len(found)
            found.append("")
        if len(found[begun[fd]]) < MAX_LAST:
            found[begun[fd]] = text_of(line) + found[begun[fd]]
    return [readable(text.rstrip("\r").rpartition("\r")[2])[-MAX_LAST:] for text in reversed(found)]


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
