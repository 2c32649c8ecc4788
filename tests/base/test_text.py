"""Bytes to lines and words: every case whole, byte by byte, and with more behind it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cronflowd.base.errors import Refusal
from cronflowd.base.text import escape, format_option, format_time, split_command, split_options, unescape
from cronflowd.net.lines import MAX_LINE_BYTES, Item, LineReader, looks_foreign

LIMIT = 16


def codes(items: list[Item]) -> list[str]:
    """Lines as they are, refusals as `!code`."""
    return [f"!{item.code}" if isinstance(item, Refusal) else item for item in items]


def read(data: bytes, piece: int, limit: int = LIMIT) -> list[str]:
    reader = LineReader(limit)
    items: list[Item] = []
    for at in range(0, len(data), piece):
        items += reader.receive(data[at : at + piece])
    last = reader.end()
    return codes(items + ([] if last is None else [last]))


CASES = [
    (b"", []),
    (b"PING\n", ["PING"]),
    (b"PING\r\n", ["PING"]),
    (b"\n\r\n", ["", ""]),
    (b"a\nb\nc\n", ["a", "b", "c"]),
    (b"a\r\r\n", ["a\r"]),
    (b"a\rb\n", ["a\rb"]),
    (b"PING\r\0\nPING\r\0\r\n\r\0\r\n", ["PING", "PING", ""]),
    (b"a\0\nb\0c\r\nd\r\0\0\n", ["a\0", "b\0c", "d\r\0\0"]),
    (b"x" * LIMIT + b"\r\0\r\n", ["x" * LIMIT]),
    (b"x" * LIMIT + b"\0\r\n", ["!too-long"]),
    (b"no end\r\0", ["no end"]),
    (b"no end", ["no end"]),
    (b"no end\r", ["no end"]),
    ("naïve ☃\n".encode(), ["naïve ☃"]),
    (b"bad \xff\nPING\n", ["!bad-line", "PING"]),
    (b"cut \xe2\x98", ["!bad-line"]),
    (b"x" * LIMIT + b"\n", ["x" * LIMIT]),
    (b"x" * LIMIT + b"\r\n", ["x" * LIMIT]),
    (b"x" * (LIMIT + 1) + b"\nPING\n", ["!too-long", "PING"]),
    (b"x" * (LIMIT + 1) + b"\r\nPING\n", ["!too-long", "PING"]),
    (b"x" * (5 * LIMIT) + b"\nPING\n", ["!too-long", "PING"]),
    (b"x" * (5 * LIMIT), ["!too-long"]),
    (b"x" * (5 * LIMIT) + b"\n" + b"y" * (5 * LIMIT) + b"\nPING\n", ["!too-long", "!too-long", "PING"]),
    (b"a\x00b\n", ["a\x00b"]),
]


@pytest.mark.parametrize(("data", "expected"), CASES)
def test_lines_are_the_same_however_they_arrive(data: bytes, expected: list[str]) -> None:
    """TCP cuts where it likes; where it cuts must never be seen."""
    for piece in (len(data) or 1, 1, 2, 3, 7):
        assert read(data, piece) == expected


@pytest.mark.parametrize(("data", "expected"), [case for case in CASES if case[0].endswith(b"\n")])
def test_what_follows_a_line_is_kept_for_the_next(data: bytes, expected: list[str]) -> None:
    """Half of the next line must neither be lost nor change this one."""
    for piece in (len(data) + 4, 1):
        assert read(data + b"next", piece) == [*expected, "next"]


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(1, 50))
def test_any_bytes_at_all_give_lines_or_refusals(data: bytes, piece: int) -> None:
    """Whatever a port scanner sends, no other exception may come of it, nor a difference by its pieces."""
    assert read(data, piece) == read(data, len(data) or 1)


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=20)))
def test_lines_come_out_as_they_went_in(lines: list[str]) -> None:
    """The reader adds and loses nothing."""
    data = "".join(line + "\n" for line in lines).encode()
    assert LineReader().receive(data) == lines


@pytest.mark.parametrize(("data", "expected"), CASES)
@pytest.mark.parametrize("most", [1, 2])
def test_lines_are_the_same_however_many_are_taken_at_a_time(
    data: bytes, expected: list[str], most: int
) -> None:
    """A slice of lines ends anywhere, also inside one that is refused."""
    reader = LineReader(LIMIT)
    reader.feed(data)
    items = reader.take(most)
    while reader.has_lines:
        items += reader.take(most)
    last = reader.end()
    assert codes(items + ([] if last is None else [last])) == expected


def test_what_is_not_taken_is_not_read() -> None:
    """65,536 lines in one buffer were all decoded before the first was executed."""
    reader = LineReader()
    reader.feed(b"\xff\n" * 30_000 + b"PI")
    assert len(reader.take(500)) == 500
    assert reader.has_lines
    assert len(reader.take()) == 29_500
    assert (reader.has_lines, reader.take(), reader.unfinished_start(9)) == (False, [], b"PI")


def test_a_line_that_comes_byte_by_byte_is_not_copied_for_each() -> None:
    """A line of 64 KiB sent so was two gigabytes of copying."""
    reader = LineReader()
    rest = reader._rest
    for _ in range(MAX_LINE_BYTES):
        reader.feed(b"x")
    assert reader._rest is rest
    assert reader.receive(b"\n") == ["x" * MAX_LINE_BYTES]


def test_a_bad_byte_is_named_with_its_place() -> None:
    """A person must find it."""
    (refusal,) = LineReader().receive(b"ADD \xffx\n")
    assert str(refusal) == "bad-line byte 0xff at column 5 is not UTF-8"


def test_a_line_too_long_is_refused_before_its_end_comes() -> None:
    """Otherwise one line without an end could fill the memory."""
    reader = LineReader()
    assert codes(reader.receive(b"x" * (MAX_LINE_BYTES + 2))) == ["!too-long"]
    assert reader.unfinished_start(1) == b""
    assert reader.receive(b"x" * MAX_LINE_BYTES) == []
    assert reader.unfinished_start(1) == b""


def test_the_end_is_told_once() -> None:
    """A second end of input gives nothing more."""
    reader = LineReader()
    reader.receive(b"PING")
    assert (reader.end(), reader.end()) == ("PING", None)


# --- escapes ---


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain", "plain"),
        ("tab\there", "tab\\there"),
        ("a\nb\r", "a\\nb\\r"),
        ("C:\\dir", "C:\\\\dir"),
        ("\x00\x1b[31m\x7f", "\\x00\\x1b[31m\\x7f"),
        ("\x85\x9f", "\\x85\\x9f"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        ("\u202egpj.exe\u2066\u200f\u061c", "\\u202egpj.exe\\u2066\\u200f\\u061c"),
        ("ünïcödé ☃", "ünïcödé ☃"),
        ("no \udcff UTF-8", "no \\udcff UTF-8"),
    ],
)
def test_a_value_is_escaped_so_that_a_row_stays_a_row(text: str, escaped: str) -> None:
    """Rows are cut at tabs by scripts and pasted into terminals by people."""
    assert (escape(text), unescape(escaped)) == (escaped, text)


@settings(deadline=None)
@given(st.text())
def test_escaping_loses_nothing(text: str) -> None:
    """And what is escaped holds no control character, whatever it was."""
    escaped = escape(text)
    assert unescape(escaped) == text
    assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in escaped)


# --- options ---


@pytest.mark.parametrize(
    ("text", "options", "rest"),
    [
        ("* * * * * echo a=b", {}, "* * * * * echo a=b"),
        ("name=x * * * * * echo", {"name": "x"}, "* * * * * echo"),
        ("name=x  tz=UTC\t@daily  two", {"name": "x", "tz": "UTC"}, "@daily  two"),
        ('desc="a b \\"c\\" \\\\" @daily', {"desc": 'a b "c" \\'}, "@daily"),
        ('desc="" @daily', {"desc": ""}, "@daily"),
        ("desc= @daily", {"desc": ""}, "@daily"),
        ('payload={"a": {"b": "} x"}} custom', {"payload": '{"a": {"b": "} x"}}'}, "custom"),
        ("env.A=x=y @daily", {"env.A": "x=y"}, "@daily"),
        ("name=x", {"name": "x"}, ""),
    ],
)
def test_options_are_taken_off_the_front(text: str, options: dict[str, str], rest: str) -> None:
    """Nothing after the first word that is no option is ever parsed."""
    assert split_options(text) == (options, rest)


@pytest.mark.parametrize(
    ("text", "code", "word"),
    [
        ("name=a name=b @daily", "bad-option", "name="),
        ('desc="open @daily', "syntax", "desc="),
        ('desc="a"b @daily', "syntax", "desc="),
        ('desc=a"b @daily', "syntax", "desc="),
        ("payload={nope} x", "bad-option", "payload="),
        ("payload={}x", "syntax", "payload="),
        ("payload=" + '{"a":' * 5000 + "1", "bad-option", "payload="),
    ],
)
def test_a_bad_option_is_named(text: str, code: str, word: str) -> None:
    """The message tells which of many words was wrong."""
    with pytest.raises(Refusal) as caught:
        split_options(text)
    assert caught.value.code == code
    assert word in caught.value.message


@settings(deadline=None)
@given(st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc"])))
def test_an_option_is_read_back_as_it_was_written(value: str) -> None:
    """Both ports and tasks.db write options with one function and read them with the other."""
    assert split_options(f"{format_option('key', value)} rest") == ({"key": value}, "rest")


@settings(deadline=None)
@given(st.text())
def test_any_text_gives_options_or_a_refusal(text: str) -> None:
    """No other exception, whatever stands there."""
    try:
        options, rest = split_options(text)
    except Refusal:
        return
    assert text.endswith(rest)
    assert options or rest == text


# --- the command ---


@pytest.mark.parametrize(
    ("text", "head", "command"),
    [
        ("RUN 1 1 :echo hi", "RUN 1 1", "echo hi"),
        ("RUN 1 1 : echo :x ", "RUN 1 1", " echo :x "),
        ('RUN 1 1 cwd="/a :b" :echo', 'RUN 1 1 cwd="/a :b"', "echo"),
        ('RUN 1 1 cwd="/a \\" :b" :echo " :', 'RUN 1 1 cwd="/a \\" :b"', 'echo " :'),
        ("RUN 1 1 :", "RUN 1 1", ""),
    ],
)
def test_the_command_begins_at_the_first_colon_outside_quotes(text: str, head: str, command: str) -> None:
    """Everything behind it travels verbatim."""
    assert split_command(text) == (head, command)


@pytest.mark.parametrize("text", ["RUN 1 1", "RUN 1 1:echo", 'RUN cwd="a :b"', ""])
def test_a_line_without_a_command_is_refused(text: str) -> None:
    """A worker must not take half an order for a whole one."""
    with pytest.raises(Refusal, match="syntax"):
        split_command(text)


# --- foreigners ---


@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\n",
        b"get /x",
        b"POST http://localhost:5050/ HTTP/1.1",
        b"OPTIONS /",
        b"PRI * HTTP/2.0",
        b"BREW coffee HTTP/1.0",
        b"\x16\x03\x01\x02\x00",
    ],
)
def test_http_and_tls_are_recognised(first: bytes) -> None:
    """Browsers can be made to send lines of an attacker's choice to a local port."""
    assert looks_foreign(first)
    assert looks_foreign(first + b"\nADD * * * * * rm -rf /\n")


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"PING\n",
        b"GET 7\n",
        b"get job-1\n",
        b"GET",
        b"\x16",
        b"\x16\x04",
        b"PING\nGET / HTTP/1.1\n",
        b"PUT it",
    ],
)
def test_our_own_lines_are_not_taken_for_foreign(first: bytes) -> None:
    """`GET 7` is a verb of ours."""
    assert looks_foreign(first) is None


# --- times ---


def test_times_are_rfc_3339_and_show_milliseconds_where_it_matters() -> None:
    """Scripts compare them as text."""
    assert format_time(datetime(2026, 11, 21, 10, 5, tzinfo=UTC)) == "2026-11-21T10:05:00Z"
    assert format_time(datetime(2026, 11, 21, 10, 5, 0, 250_000, tzinfo=UTC)) == "2026-11-21T10:05:00.250Z"


def test_only_who_types_is_told_of_other_quotes() -> None:
    """A worker's report is kept as it comes: an apostrophe is part of what happened."""
    assert split_options("error='no") == ({"error": "'no"}, "")
    with pytest.raises(Refusal, match='begins with “, but quotes are "'):
        split_options("desc=“my job” x", True)
    assert split_options(format_option("desc", "'a'"), True) == ({"desc": "'a'"}, "")
