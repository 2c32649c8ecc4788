"""Values as text that travels: escapes, `key=value` words, the command after ` :`, times.

The escape rules are those of protocol.md: a value never contains a control character, tab,
backslash, line separator or bidi control as itself, so a row can be cut at its tabs and pasted
into a terminal without surprise.
"""

from __future__ import annotations

import json
import re
from datetime import datetime

from msgspec import to_builtins

from .errors import Refusal

# C0, DEL, C1, backslash, U+2028/9 (line separators), the bidi controls of UAX #9, and surrogates: U+DCNN
# is what stands in a text for a byte NN that is no UTF-8, and no other ever does.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\\\\\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_ESCAPED = re.compile(
    r"\\(?:t|n|r|\\|x[0-9a-fA-F]{2}|u(?:[dD][cC][89a-fA-F][0-9a-fA-F]|(?![dD][89a-fA-F])[0-9a-fA-F]{4}))"
)
_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r", "\\": "\\\\"}
_LONG = {short: char for char, short in _SHORT.items()}


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


def length(escaped: str) -> int:
    """How many characters `unescape` would give."""
    return len(_ESCAPED.sub(".", escaped))


def to_bytes(text: str) -> bytes:
    """UTF-8, with the bytes themselves where a surrogate stands for one."""
    return text.encode(errors="surrogateescape")


def readable(text: str) -> str:
    """The text with U+FFFD for bytes that are no UTF-8."""
    return text if text.isascii() else to_bytes(text).decode(errors="replace")


# --- key=value words -----------------------------------------------------------------

# A key, and its value where that is a plain word, as most are.
_OPTION = re.compile(r"([^ \t=\"]+)=(?:([^ \t\"{'`“”„‟«»‘’][^ \t\"]*+)(?:[ \t]++|$))?")
_PLAIN_VALUE = re.compile(r"[^ \t\"]*(?=[ \t]|$)")
_QUOTED_VALUE = re.compile(r'"((?:[^"\\]|\\["\\])*)"(?=[ \t]|$)')
# As programs write it: what only a secret can hold, a control character, is escaped as in rows.
QUOTED_VALUE = re.compile(r'"((?:[^"\\]|\\(?:["\\nrt]|x[0-9a-fA-F]{2}))*)"(?=[ \t]|$)')
_WRITTEN_ESCAPE = re.compile(r'\\(?:["\\nrt]|x[0-9a-fA-F]{2})')
CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f]")  # but tabs, which many values may hold
_JSON = json.JSONDecoder()
ODD_BLANK = re.compile("[\u00a0\u00ad\u2000-\u2015\u202f\u205f\u2060\u2212\u3000\ufeff]")  # or hyphen
WRONG_QUOTES = "'`“”„‟«»‘’"  # of shells, and of typesetters


def split_options(text: str, is_typed: bool = False) -> tuple[dict[str, str], str]:
    """Takes the `key=value` words off the front of `text`: (values by key, what follows them).

    A value is a plain word, or double-quoted with `\\"` and `\\\\` inside, or one JSON
    object beginning with `{`. Raises Refusal (`bad-option`, `syntax`) naming the key; of what people
    type, also for other quotes, which are part of a value that a program writes.
    """
    options: dict[str, str] = {}
    return options, text[take_options(text, 0, options, is_typed) :]


def take_options(text: str, at: int, options: dict[str, str], is_typed: bool) -> int:
    """The same from `at` on, into `options`; returns where the words end, so that nothing is copied.

    Raises Refusal.
    """
    headers: dict[str, None] = {}
    while match := _OPTION.match(text, at):
        key, value = match.groups()
        at = match.end()
        if value is None:
            value, at = _option_value(key, text, at, is_typed)
            while at < len(text) and text[at] in " \t":
                at += 1
        if key in options or (key[0] == "h" and _is_again(key, headers)):
            raise Refusal("bad-option", f"{escape(key)}= is given twice", key)
        options[key] = value
    return at


def _is_again(key: str, headers: dict[str, None]) -> bool:
    """Whether it is a header that was said before: their names are the same in any case."""
    same = key.lower()
    was = same in headers
    if key.startswith("header."):
        headers[same] = None
    return was


def _option_value(key: str, text: str, at: int, is_typed: bool) -> tuple[str, int]:
    if text.startswith('"', at):
        if match := (_QUOTED_VALUE if is_typed else QUOTED_VALUE).match(text, at):
            return unquote(match[1]), match.end()
        raise Refusal(
            "syntax",
            f"the quoted value of {escape(key)}= has no closing quote before a blank or the line's end"
            ' (inside quotes write \\" and \\\\)',
            key,
        )
    if text.startswith("{", at) and not text.startswith("{{", at):  # that is a secret's name, as a rule
        return _json_value(key, text, at)
    if is_typed and (text[at : at + 1] or "-") in WRONG_QUOTES:
        why = f'the value of {escape(key)}= begins with {text[at]}, but quotes are " here'
        raise Refusal("syntax", why, key)
    if match := _PLAIN_VALUE.match(text, at):
        return match[0], match.end()
    raise Refusal("syntax", f"the value of {escape(key)}= has a quote inside; quote the whole value", key)


def unquote(value: str) -> str:
    """What stands between the quotes of a value, without its escapes."""
    return _WRITTEN_ESCAPE.sub(_unquote_one, value) if "\\" in value else value


def _unquote_one(match: re.Match[str]) -> str:
    return match[0][1] if match[0][1] in '"\\' else _unescape_one(match)


def _json_value(key: str, text: str, at: int) -> tuple[str, int]:
    try:
        _, end = _JSON.raw_decode(text, at)
    except (ValueError, RecursionError) as error:
        why, form = str(error), f'{escape(key)}={{"key": "value"}}'
        if isinstance(error, json.JSONDecodeError):
            why = f'{error.msg} at "{escape(shorten(text[error.pos :], 20))}"'
        raise Refusal(
            "bad-option", f"{escape(key)}= is not a JSON object: {why}; write {form}", key
        ) from None
    if end < len(text) and text[end] not in " \t":
        raise Refusal("syntax", f"after the JSON object of {escape(key)}= a blank must follow", key)
    return text[at:end], end


def format_option(key: str, value: str) -> str:
    """One `key=value` word that `split_options` reads back; the value must be free of control characters."""
    if value and " " not in value and "\t" not in value and '"' not in value and value[0] not in _QUOTED:
        return f"{key}={value}"
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{key}="{quoted}"'


def format_written(key: str, value: str) -> str:
    """The same for programs, of a value that may hold control characters, as a secret may."""
    return f"{key}={quote(value)}" if CONTROL.search(value) else format_option(key, value)


def quote(value: str) -> str:
    """A value in quotes, whatever it holds."""
    return '"' + CONTROL.sub(_escape_one, value.replace("\\", "\\\\").replace('"', '\\"')) + '"'


_QUOTED = "{" + WRONG_QUOTES  # what begins so is put into quotes


def split_command(text: str) -> tuple[str, str]:
    """Cuts at the first ` :` outside quotes: (what stands before, everything after it, verbatim).

    Raises Refusal.
    """
    if '"' not in text:
        head, found, command = text.partition(" :")
    else:
        match = _BEFORE_COMMAND.match(text)
        head, found, command = (match[1], " :", text[match.end() :]) if match else (text, "", "")
    if not found:
        raise Refusal("syntax", "no ` :` before the command")
    return head, command


_BEFORE_COMMAND = re.compile(r'((?:[^"]|"(?:[^"\\]|\\.)*")*?) :')


def shorten(text: str, most: int) -> str:
    """At most so many characters; a cut shows as `…`."""
    return text if len(text) <= most else text[: most - 1] + "…"


def format_time(at: datetime) -> str:
    """An aware UTC instant as RFC 3339: `2026-11-21T10:05:00Z`, with `.mmm` unless a whole second."""
    text: str = to_builtins(at)  # which takes an eighth of what `isoformat` does
    return text[:23] + "Z" if at.microsecond else text
