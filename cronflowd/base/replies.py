"""What a client reads back: rows, then one status line, as text, as JSON or as a table for people.

A reply holds values, not lines; FORMAT decides late how they look. Rows may be an
iterator: a list of a million tasks is made row by row while the socket takes it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from itertools import zip_longest
from typing import Any

import msgspec
import orjson

from .errors import Refusal
from .text import escape, format_time, readable

BLOCK_ROWS = 100  # of a table: so many are aligned together, and the columns of the next are no narrower
BLOCK_CHARS = 16_384  # the same: each of them is looked at, thrice
GAP = "  "
STATUS_WORDS = frozenset({"OK", "ERR", "PONG"})  # with which no row begins
NOTE_COLUMNS = ("note", "text")  # of rows that a change says something with
PAIR_COLUMNS = ("key", "value")  # of rows that tell of one thing, and not of several
Row = tuple[Any, ...]  # a value for each column


class Reply(msgspec.Struct):
    """The end of an order or the answer to a question."""

    text: str  # the status line after its first word, values escaped
    values: dict[str, Any] = msgspec.field(default_factory=dict)
    columns: Sequence[str] = ()
    rows: Iterable[Sequence[Any] | None] = ()  # None: nothing yet, others first
    count_key: str = ""  # set: the status line begins with `OK <rows>`, counted while they are written
    as_of: dict[str, float] = msgspec.field(default_factory=dict)  # how old it may be, at the line's end
    word: str = "OK"  # or `PONG`

    @classmethod
    def counted(cls, columns: Sequence[str], rows: Iterable[Sequence[Any] | None] = ()) -> Reply:
        """A list, whose status line tells how many rows there were."""
        return cls("", {}, columns, rows, "rows")


class Verbatim(str):
    """A text that may be empty, in a column where `-` would be taken for what it says."""

    __slots__ = ()


class JsonOnly(str):
    """A column at a row's end that lines of text, which have fewer for good, leave out."""

    __slots__ = ()


def format_rows(reply: Reply, as_json: bool, width: int | None = None) -> Iterator[str | None]:
    """The rows as lines without their ends; None where others may have their turn.

    With a width they are a table, cut to it where it is not 0, whose header comes with the first row.
    """
    if width is not None and not as_json:
        return _table(reply, width)
    return (None if row is None else format_row(reply.columns, row, as_json) for row in reply.rows)


def format_row(columns: Sequence[str], row: Sequence[Any], as_json: bool) -> str:
    """One row: tab-separated columns, or an object whose keys are the column names."""
    if not as_json:
        return "\t".join(_texts([value for value in row if type(value) is not JsonOnly]))
    return to_json(dict(zip(_keys_of(tuple(columns)), map(_json_value, row), strict=False)))


@lru_cache(maxsize=256)
def _keys_of(columns: tuple[str, ...]) -> list[str]:
    return [name.replace(" ", "_") for name in columns]


def _table(reply: Reply, width: int) -> Iterator[str | None]:
    block, widths, size = [[name.upper() for name in reply.columns]], list[int](), 0
    for row in reply.rows:
        if row is None:
            yield None
            continue
        block.append(_texts(row))
        size += sum(map(len, block[-1]))
        if len(block) > BLOCK_ROWS or size > BLOCK_CHARS:
            yield from _lines(block, widths, width)
            if size > BLOCK_CHARS:
                yield None  # cut to a width, it may be short
            block, size = [], 0
    if widths or len(block) > 1:  # there are rows
        yield from _lines(block, widths, width)


def _lines(block: list[list[str]], widths: list[int], width: int) -> Iterator[str]:
    """A block's lines; the first one of all bears the header."""
    wanted = [max(map(display_width, filter(None, cells))) for cells in zip_longest(*block)]
    is_first = not widths
    widths[:] = map(max, zip_longest(widths, wanted, fillvalue=0))
    lines = [_cut(GAP.join(map(_pad, row, widths)).rstrip(), width) for row in block]
    if is_first:
        lines[:2] = ["\n".join(lines[:2])]
    yield from lines


def _pad(text: str, width: int) -> str:
    return text + " " * (width - display_width(text))


def display_width(text: str) -> int:
    """How many columns of a terminal it takes."""
    return len(text) if text.isascii() else sum(map(_char_width, text))


@lru_cache(maxsize=4096)
def _char_width(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):  # goes onto, or joins, what stands before it
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _cut(line: str, width: int) -> str:
    if not width or display_width(line) <= width:
        return line
    kept, left = 0, width - 1
    while (left := left - _char_width(line[kept])) >= 0:
        kept += 1
    return line[:kept] + "…"


def format_status(reply: Reply, as_json: bool, rows: int = 0) -> str:
    """The status line without its end."""
    if as_json:
        counted = {reply.count_key: rows} if reply.count_key else {}
        values = {key: _json_value(value) for key, value in reply.values.items()}
        return to_json({"ok": True} | counted | values | reply.as_of)
    counted_text = f" {rows}" if reply.count_key else ""
    text = f" {reply.text}" if reply.text else ""
    return f"{reply.word}{counted_text}{text}{_aged(reply.as_of)}"


def _aged(as_of: dict[str, float]) -> str:
    return "".join([f" {key}={value}" for key, value in as_of.items()])


def format_refusal(refusal: Refusal, as_json: bool) -> str:
    """The `ERR` line. Messages are single lines by construction; escaping makes sure."""
    if as_json:
        about = {"option": refusal.option} if refusal.option else {}
        told = {"ok": False, "code": refusal.code, "message": refusal.message}
        return to_json(told | about | refusal.as_of)
    return f"ERR {refusal.code} {_one_line(refusal.message)}{_aged(refusal.as_of)}"


def _one_line(message: str) -> str:
    # Parts quoted from input are escaped already; a second pass would double their backslashes.
    return message if message.isprintable() else escape(message)


def _texts(row: Sequence[Any]) -> list[str]:
    """The columns; what stands first may be a name, and that be called as the status line begins."""
    texts = [_column(value) for value in row]
    if texts and texts[0] in STATUS_WORDS:
        texts[0] = f"\\x{ord(texts[0][0]):02x}{texts[0][1:]}"
    return texts


def _column(value: Any) -> str:
    if value is None or (value == "" and not isinstance(value, Verbatim)):
        return "-"
    if isinstance(value, datetime):
        return format_time(value)
    return escape(value if isinstance(value, str) else str(value))


def _json_value(value: Any) -> Any:
    if type(value) is str:
        return value or None  # the same as below, for most, at less cost
    if isinstance(value, Verbatim):
        return readable(value)
    if value == "":
        return None  # a column that has nothing to say
    return format_time(value) if isinstance(value, datetime) else value


def to_json(value: dict[str, Any]) -> str:
    """One line of JSON; the line separators JSON leaves alone are escaped as everywhere."""
    try:
        text = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
    except orjson.JSONEncodeError:  # a file's name may hold bytes that are no UTF-8
        shown = {key: readable(each) if isinstance(each, str) else each for key, each in value.items()}
        text = orjson.dumps(shown, option=orjson.OPT_NON_STR_KEYS).decode()
    return text if text.isascii() and "\x7f" not in text else escape_json(text)


# What JSON leaves alone of what is escaped everywhere.
_LEFT_ALONE = re.compile("[\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def escape_json(text: str) -> str:
    """U+2028 and friends inside JSON strings, as `\\uNNNN`, so that one object stays one line."""
    return _LEFT_ALONE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
