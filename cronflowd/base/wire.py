"""Bytes to lines and words, and back: everything both ports have in common on the wire.

No socket in here. `LineReader` is fed whatever arrived and gives whole lines; a line that
is too long or no UTF-8 comes out as the `Refusal` its sender is owed, in its place, so
that replies stay in order. The escape rules are those of protocol.md: a value never
contains a control character, tab, backslash, line separator or bidi control as itself,
so a row can be cut at its tabs and pasted into a terminal without surprise.
"""

from __future__ import annotations

import json
import re
from datetime import datetime

from .errors import Refusal

MAX_LINE_BYTES = 65_536  # without its line ending

Item = str | Refusal

# C0, DEL, C1, backslash, U+2028/9 (line separators) and the bidi controls of UAX #9.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\\\\\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_ESCAPED = re.compile(r"\\(?:t|n|r|\\|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})")
_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r", "\\": "\\\\"}
_LONG = {short: char for char, short in _SHORT.items()}


class LineReader:
    """Cuts a stream of bytes into lines, remembering at most one unfinished line."""

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self.max_line_bytes = max_line_bytes
        self._rest = b""
        self._skipping = False  # inside a line already refused as too long

    def receive(self, data: bytes) -> list[Item]:
        """The lines that `data` completes, in order, without their LF or CRLF."""
        if b"\n" not in data:
            self._keep(self._rest + data)
            return self._refuse_overlong_rest()
        pieces = (self._rest + data).split(b"\n")
        items: list[Item] = []
        if self._skipping:
            del pieces[0]
            self._skipping = False
        self._keep(pieces.pop())
        limit = self.max_line_bytes
        for piece in pieces:
            if len(piece) > limit and len(piece.removesuffix(b"\r")) > limit:
                items.append(self._too_long())
            else:
                try:
                    items.append(piece.removesuffix(b"\r").decode())
                except UnicodeDecodeError as error:
                    items.append(not_utf8(piece, error))
        return items + self._refuse_overlong_rest()

    def end(self) -> Item | None:
        """The last line when input ended without its newline, or None if there is none."""
        rest, self._rest = self._rest.removesuffix(b"\r"), b""
        if not rest or self._skipping:
            return None
        try:
            return rest.decode()
        except UnicodeDecodeError as error:
            return not_utf8(rest, error)

    @property
    def unfinished(self) -> bytes:
        """What has arrived of the line that is still coming."""
        return self._rest

    def _keep(self, rest: bytes) -> None:
        self._rest = b"" if self._skipping else rest

    def _refuse_overlong_rest(self) -> list[Item]:
        # One byte more than the limit may still be the CR of a CRLF.
        if len(self._rest) <= self.max_line_bytes + 1:
            return []
        self._rest, self._skipping = b"", True
        return [self._too_long()]

    def _too_long(self) -> Refusal:
        return Refusal("too-long", f"the line is longer than {self.max_line_bytes} bytes; it was not read")


def not_utf8(piece: bytes, error: UnicodeDecodeError) -> Refusal:
    """Names the first byte that does not belong and where it stands (columns count from 1)."""
    return Refusal("bad-line", f"byte 0x{piece[error.start]:02x} at column {error.start + 1} is not UTF-8")


def escape(text: str) -> str:
    """A value as it travels in a row."""
    return _UNSAFE.sub(_escape_one, text) if _UNSAFE.search(text) else text


def _escape_one(match: re.Match[str]) -> str:
    char = match[0]
    code = ord(char)
    return _SHORT.get(char) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def unescape(text: str) -> str:
    """The value a row's column stood for; a backslash that begins no escape stands for itself."""
    return _ESCAPED.sub(_unescape_one, text) if "\\" in text else text


def _unescape_one(match: re.Match[str]) -> str:
    word = match[0]
    return _LONG.get(word) or chr(int(word[2:], 16))


# --- key=value words -----------------------------------------------------------------

_KEY = re.compile(r"[^ \t=\"]+=")
_PLAIN_VALUE = re.compile(r"[^ \t\"]*(?=[ \t]|$)")
_QUOTED_VALUE = re.compile(r'"((?:[^"\\]|\\["\\])*)"(?=[ \t]|$)')
_QUOTED_ESCAPE = re.compile(r'\\(["\\])')
_JSON = json.JSONDecoder()


def split_options(text: str) -> tuple[dict[str, str], str]:
    """Takes the `key=value` words off the front of `text`: (values by key, what follows them).

    A value is a plain word, or double-quoted with `\\"` and `\\\\` inside, or one JSON
    object beginning with `{`. Raises Refusal (`bad-option`, `syntax`) naming the key.
    """
    options: dict[str, str] = {}
    at = 0
    while match := _KEY.match(text, at):
        key = match[0][:-1]
        value, at = _option_value(key, text, match.end())
        if key in options:
            raise Refusal("bad-option", f"{escape(key)}= is given twice")
        options[key] = value
        while at < len(text) and text[at] in " \t":
            at += 1
    return options, text[at:]


def _option_value(key: str, text: str, at: int) -> tuple[str, int]:
    if text.startswith('"', at):
        if match := _QUOTED_VALUE.match(text, at):
            value = match[1]
            return (_QUOTED_ESCAPE.sub(r"\1", value) if "\\" in value else value), match.end()
        raise Refusal(
            "syntax",
            f"the quoted value of {escape(key)}= has no closing quote before a blank or the line's end"
            ' (inside quotes write \\" and \\\\)',
        )
    if text.startswith("{", at):
        return _json_value(key, text, at)
    if match := _PLAIN_VALUE.match(text, at):
        return match[0], match.end()
    raise Refusal("syntax", f"the value of {escape(key)}= has a quote inside; quote the whole value")


def _json_value(key: str, text: str, at: int) -> tuple[str, int]:
    try:
        _, end = _JSON.raw_decode(text, at)
    except (ValueError, RecursionError) as error:
        raise Refusal("bad-option", f"{escape(key)}= is not a JSON object: {error}") from None
    if end < len(text) and text[end] not in " \t":
        raise Refusal("syntax", f"after the JSON object of {escape(key)}= a blank must follow")
    return text[at:end], end


def format_option(key: str, value: str) -> str:
    """One `key=value` word that `split_options` reads back; the value must be free of control characters."""
    if value and " " not in value and "\t" not in value and '"' not in value and value[0] != "{":
        return f"{key}={value}"
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{key}="{quoted}"'


def split_command(text: str) -> tuple[str, str]:
    """Cuts at the first ` :` outside quotes: (what stands before, everything after it, verbatim)."""
    if '"' not in text:
        head, found, command = text.partition(" :")
    else:
        match = _BEFORE_COMMAND.match(text)
        head, found, command = (match[1], " :", text[match.end() :]) if match else (text, "", "")
    if not found:
        raise Refusal("syntax", "no ` :` before the command")
    return head, command


_BEFORE_COMMAND = re.compile(r'((?:[^"]|"(?:[^"\\]|\\.)*")*?) :')


def looks_foreign(first: bytes) -> str | None:
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


def format_time(at: datetime) -> str:
    """An aware UTC instant as RFC 3339: `2026-11-21T10:05:00Z`, with `.mmm` unless a whole second."""
    return at.isoformat(timespec="milliseconds" if at.microsecond else "seconds")[:-6] + "Z"
