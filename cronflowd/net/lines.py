"""Bytes to lines: what both ports and every client have in common.

No socket in here. `LineReader` is fed whatever arrived and gives whole lines; a line that is
too long or no UTF-8 comes out as the `Refusal` its sender is owed, in its place, so that
replies stay in order.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

from ..base.errors import Refusal

MAX_LINE_BYTES = 65_536  # without its line ending
MAX_ORDER_BYTES = 1024 * 1024  # to a worker: more than any daemon sends, for an unread order is a lost run
MAX_START = 256  # bytes of a line that tell what it is

Item = str | Refusal
AnyBytes = TypeVar("AnyBytes", bytes, bytearray)


class Unread(Refusal):
    """Of a line that could not be read; `start` is how it began."""

    def __init__(self, code: str, message: str, start: bytes) -> None:
        super().__init__(code, message)
        self.start = start[:MAX_START]


class LineReader:
    """Cuts a stream of bytes into lines, remembering at most one unfinished line.

    What was fed costs nothing until it is taken: a stranger may send 65,536 lines at once.
    """

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self.max_line_bytes = max_line_bytes
        self._whole = b""  # lines that have come and were not taken
        self._rest = bytearray()  # the line after them, which has not ended; it may come byte by byte
        self._skipping = False  # inside a line already refused as too long

    def receive(self, data: bytes) -> list[Item]:
        """The lines that `data` completes, in order, without what ends them."""
        self.feed(data)
        return self.take()

    def feed(self, data: bytes) -> None:
        """Takes in what has arrived."""
        if (end := data.rfind(b"\n") + 1) == len(data) and not (self._whole or self._rest):
            self._whole = data
        elif end:
            self._whole += bytes(self._rest) + data[:end]
            self._rest = bytearray(data[end:])
        else:
            self._rest += data

    def take(self, most: int = -1) -> list[Item]:
        """The next lines, `most` of them or fewer; all without `most`."""
        items = self._take_good(most) or self._take_one_by_one(most)
        if not self._whole and (self._skipping or len(self._rest) > self.max_line_bytes):
            items += self._refuse_overlong_rest()
        return items

    def _take_good(self, most: int) -> list[Item]:
        """All at once, which is much quicker, where nothing is wrong with any line; else none."""
        if self._skipping or len(self._whole) > self.max_line_bytes or b"\0" in self._whole:
            return []
        try:
            items: list[Any] = self._whole.decode().replace("\r\n", "\n").split("\n", most)
        except UnicodeDecodeError:
            return []
        self._whole = items.pop().encode()
        return items

    def _take_one_by_one(self, most: int) -> list[Item]:
        pieces = self._whole.split(b"\n", most)
        self._whole = pieces.pop()
        if self._skipping and pieces:
            del pieces[0]
            self._skipping = False
        items: list[Item] = []
        limit = self.max_line_bytes
        for piece in map(_without_end, pieces):
            if len(piece) > limit:
                items.append(self._too_long(piece))
            else:
                try:
                    items.append(piece.decode())
                except UnicodeDecodeError as error:
                    items.append(not_utf8(piece, error))
        return items

    @property
    def has_lines(self) -> bool:
        """Whether there are lines to take."""
        return bool(self._whole)

    @property
    def is_within_line(self) -> bool:
        """Whether one has begun that has not ended."""
        return bool(self._rest or self._skipping)

    def end(self) -> Item | None:
        """The last line when input ended without its newline, or None if there is none."""
        rest, self._rest = _without_end(bytes(self._rest)), bytearray()
        if not rest or self._skipping:
            return None
        try:
            return rest.decode()
        except UnicodeDecodeError as error:
            return not_utf8(rest, error)

    def start(self, size: int) -> bytes:
        """The first bytes of what was not taken yet."""
        return bytes((self._whole or self._rest)[:size])

    def unfinished_start(self, size: int) -> bytes:
        """The first bytes of the line that is still coming."""
        return bytes(self._rest[:size])

    def _refuse_overlong_rest(self) -> list[Item]:
        if self._skipping:
            self._rest.clear()
        if len(_without_end(self._rest)) <= self.max_line_bytes:
            return []
        start = self.start(MAX_START)
        self._rest.clear()
        self._skipping = True
        return [self._too_long(start)]

    def _too_long(self, start: bytes) -> Unread:
        why = f"the line is longer than {self.max_line_bytes} bytes; it was not read"
        return Unread("too-long", why, start)


def _without_end(line: AnyBytes) -> AnyBytes:
    """Without the CR before its LF; of a CRLF that it is given, telnet makes CR, NUL and CRLF (RFC 854)."""
    return line.removesuffix(b"\r").removesuffix(b"\r\0")


def not_utf8(piece: bytes, error: UnicodeDecodeError) -> Unread:
    """Names the first byte that does not belong and where it stands (columns count from 1).

    Of a crontab's line, the place is the one in the crontab.
    """
    match = _IMPORT.match(piece)
    column = error.start + 1 - (match.end() if match else 0)
    return Unread("bad-line", f"byte 0x{piece[error.start]:02x} at column {column} is not UTF-8", piece)


_IMPORT = re.compile(rb"[ \t]*IMPORT[ \t](?:--[a-z-]+[ \t])*", re.IGNORECASE)


def looks_foreign(first: bytes | bytearray) -> str | None:
    """The name of another protocol, if these first bytes of a connection are its greeting.

    Browsers can be made to send lines of an attacker's choice to a local port; whoever
    opens with HTTP or TLS is closed before any of its lines is read.
    """
    if first[:2] == b"\x16\x03":
        return "TLS"
    line = first.split(b"\n", 1)[0]
    return "HTTP" if b" HTTP/" in line or _HTTP_METHOD.match(line) else None


_HTTP_METHOD = re.compile(
    rb"(?:GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH|PRI) (?:/|http)", re.IGNORECASE
)
