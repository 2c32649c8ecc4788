"""How replies look, as text and as JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cronflowd.base import replies
from cronflowd.base.errors import CODES, Refusal
from cronflowd.base.replies import (
    BLOCK_CHARS,
    BLOCK_ROWS,
    Reply,
    display_width,
    format_refusal,
    format_row,
    format_rows,
    format_status,
)
from cronflowd.base.text import unescape

AT = datetime(2026, 11, 21, 10, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("reply", "text", "as_json"),
    [
        (Reply("", {"pong": True}, word="PONG"), "PONG", {"ok": True, "pong": True}),
        (Reply("PONG", {"name": "PONG"}), "OK PONG", {"ok": True, "name": "PONG"}),  # an account's name
        (Reply(""), "OK", {"ok": True}),
        (Reply("7 removed", {"id": 7}), "OK 7 removed", {"ok": True, "id": 7}),
        (
            Reply("1 job next=2026-11-21T10:05:00Z", {"id": 1, "next": AT}),
            "OK 1 job next=2026-11-21T10:05:00Z",
            {"ok": True, "id": 1, "next": "2026-11-21T10:05:00Z"},
        ),
    ],
)
def test_a_status_line_says_the_same_in_both_forms(reply: Reply, text: str, as_json: dict[str, Any]) -> None:
    """FORMAT changes how an answer looks, never what it says."""
    assert format_status(reply, as_json=False) == text
    assert json.loads(format_status(reply, as_json=True)) == as_json


def test_a_counting_status_tells_how_many_rows_there_were() -> None:
    """A client that lost rows can see it."""
    reply = Reply("", columns=("id",), count_key="rows")
    assert format_status(reply, as_json=False, rows=3) == "OK 3"
    assert json.loads(format_status(reply, as_json=True, rows=3)) == {"ok": True, "rows": 3}


def test_rows_are_columns_between_tabs() -> None:
    """`cut -f2` must work; what is not there is a dash, so that no column is empty."""
    reply = Reply("", columns=("id", "last seen", "x"), rows=[(1, AT, "a\tb\\"), (2, None, "")])
    assert list(format_rows(reply, as_json=False)) == ["1\t2026-11-21T10:05:00Z\ta\\tb\\\\", "2\t-\t-"]


def test_rows_in_json_are_objects_by_column_name() -> None:
    """Blanks in a name become `_`; what is not there is null."""
    row = format_row(("id", "local time", "last-seen"), (1, AT, None), as_json=True)
    assert json.loads(row) == {"id": 1, "local_time": "2026-11-21T10:05:00Z", "last-seen": None}


def test_a_name_of_bytes_that_are_no_utf8_is_told_in_json_too() -> None:
    """STATUS of a daemon in such a data directory was answered as a bug."""
    name = b"/srv/caf\xe9".decode(errors="surrogateescape")
    reply = Reply("", {}, ("key", "value"), [("data", name)])
    assert list(format_rows(reply, as_json=True)) == ['{"key":"data","value":"/srv/caf\ufffd"}']
    refusal = format_refusal(Refusal("disk-full", name), as_json=True)
    assert refusal == '{"ok":false,"code":"disk-full","message":"/srv/caf\ufffd"}'


def test_rows_are_made_one_by_one() -> None:
    """A list of a million tasks is made while the socket takes it."""
    made: list[int] = []

    def rows() -> Any:
        for number in range(1000):
            made.append(number)
            yield (number,)

    lines = format_rows(Reply("", columns=("n",), rows=rows()), as_json=False)
    assert (next(lines), next(lines), len(made)) == ("0", "1", 2)


@pytest.mark.parametrize("code", sorted(CODES))
def test_a_refusal_is_one_line_with_its_code(code: str) -> None:
    """Scripts look at the second word."""
    refusal = Refusal(code, "what was wrong, and where")
    assert format_refusal(refusal, as_json=False) == f"ERR {code} what was wrong, and where"
    assert json.loads(format_refusal(refusal, as_json=True)) == {
        "ok": False,
        "code": code,
        "message": "what was wrong, and where",
    }


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])), st.booleans())
def test_whatever_a_value_holds_its_line_stays_one_line(text: str, as_json: bool) -> None:
    """A command with a line separator in it must not be able to forge a status line."""
    line = format_row(("command",), (text,), as_json)
    refusal = format_refusal(Refusal("syntax", text), as_json)
    assert len(line.splitlines()) <= 1
    assert len(refusal.splitlines()) == 1
    if as_json:
        assert json.loads(line) == {"command": text or None}
        assert json.loads(refusal)["message"] == text


@pytest.mark.parametrize("word", ["OK", "ERR", "PONG"])
def test_no_row_begins_as_a_status_line_does(word: str) -> None:
    """Accounts, secrets and templates may be called so, and whoever reads to the status line stops there."""
    first = f"\\x{ord(word[0]):02x}{word[1:]}"
    assert format_row(("name", "x"), (word, word), as_json=False) == f"{first}\t{word}"
    assert unescape(first) == word
    assert "".join(filter(None, table((word, word, "a")))).split()[4:] == [first, word, "a"]
    assert json.loads(format_row(("name",), (word,), as_json=True)) == {"name": word}


# --- tables for people --------------------------------------------------------------------------


def table(*rows: tuple[object, ...] | None, width: int = 0) -> list[str | None]:
    return list(
        format_rows(Reply("", columns=("id", "last seen", "x"), rows=rows), as_json=False, width=width)
    )


def test_a_table_has_a_header_and_columns_one_below_the_other() -> None:
    """RUNS, STATS and WORKERS can be read without the manual."""
    assert table((1, None, "a"), (22, "b c", "")) == [
        "ID  LAST SEEN  X\n1   -          a",  # one row, as rows are counted
        "22  b c        -",
    ]


def test_long_values_are_aligned_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred commands of 60 KB in another script were one step of 600 ms for everybody."""
    measured = [0]

    def measure(text: str) -> int:
        measured[-1] += len(text)
        return display_width(text)

    monkeypatch.setattr(replies, "display_width", measure)
    long = "\u6f22" * 10_000
    made = format_rows(Reply("", columns=("n", "text"), rows=((n, long) for n in range(30))), False, 80)
    for _ in made:
        measured.append(0)
    assert len(measured) == 46  # with every other row others have their turn
    assert max(measured) <= 4 * (BLOCK_CHARS + len(long))


def test_a_table_without_rows_has_no_header() -> None:
    """Nothing is what there is to see; and a header is no row."""
    assert table() == []
    assert table(None) == [None]


@pytest.mark.parametrize(
    ("text", "width"),
    [("abc", 3), ("日本", 4), ("é", 1), ("e\u0301", 1), ("\u200b", 0), ("ﾊﾟ", 2), ("🚀x", 3), ("", 0)],
)
def test_a_character_takes_as_many_columns_as_a_terminal_gives_it(text: str, width: int) -> None:
    """Else whatever stands after a name in Japanese stands askew."""
    assert display_width(text) == width


def test_a_long_table_is_made_in_blocks_that_never_grow_narrower() -> None:
    """A million rows are not held to find the widest; and others have their turn between."""
    seen = 0

    def rows() -> Any:
        nonlocal seen
        for seen in range(1, 10 * BLOCK_ROWS):
            yield ("x" * (1 + seen // BLOCK_ROWS), "y")
            yield None

    lines = format_rows(Reply("", columns=("a", "b"), rows=rows()), as_json=False, width=0)
    for line in lines:
        if line is not None:
            assert seen <= BLOCK_ROWS
            break
    found = [line for line in lines if line is not None]
    assert len(found) == 10 * BLOCK_ROWS - 2
    places = [line.index("y") for line in found]
    assert places == sorted(places)
    assert places[-1] == 12


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(1, 40))
def test_no_line_of_a_table_is_wider_than_it_may_be(text: str, width: int) -> None:
    """A line that the terminal wraps is the end of all columns."""
    lines = "\n".join(filter(None, table((1, text, "b"), width=width))).split("\n")
    assert len(lines) == 2
    assert max(map(display_width, lines)) <= width
