"""A line of output: as it travels, as it is kept, as LOG shows it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cronflowd.base.output import (
    COLUMNS,
    GOES_ON,
    is_whole,
    last_lines,
    parse_line,
    row_of,
    size_of,
    text_of,
)
from cronflowd.base.replies import format_row
from cronflowd.base.text import escape, to_bytes


@pytest.mark.parametrize(
    ("said", "kept", "text", "as_json"),
    [
        ("plain", [1, "plain"], "1\tplain", '{"fd":1,"text":"plain"}'),
        ("", [1, ""], "1\t", '{"fd":1,"text":""}'),
        ("a\\tb\\\\", [1, "a\tb\\"], "1\ta\\tb\\\\", '{"fd":1,"text":"a\\tb\\\\"}'),
        ("more\\", [1, "more", False], "1\tmore\tno-newline", '{"fd":1,"text":"more","end":"no-newline"}'),
        ("\\\\\\", [1, "\\\\", False], "1\t\\\\\tno-newline", '{"fd":1,"text":"\\\\","end":"no-newline"}'),
        ("\\udce9", [1, "\\udce9", True], "1\t\\udce9", '{"fd":1,"text":"�","end":null,"base64":"6Q=="}'),
        (
            "\\udcc3\\udca9",
            [1, "\\udcc3\\udca9", True],
            "1\t\\udcc3\\udca9",
            '{"fd":1,"text":"é","end":null,"base64":"w6k="}',
        ),
        (
            "\\\\udce9",
            [1, "\\\\udce9", True],
            "1\t\\\\udce9",
            '{"fd":1,"text":"\\\\udce9","end":null}',
        ),
        ("\\ud800", [1, "\\ud800"], "1\t\\\\ud800", '{"fd":1,"text":"\\\\ud800"}'),
        ("not \\q", [1, "not \\q"], "1\tnot \\\\q", '{"fd":1,"text":"not \\\\q"}'),
    ],
)
def test_a_line_is_kept_and_shown_as_it_was_said(
    said: str, kept: list[object], text: str, as_json: str
) -> None:
    """What a worker of any make says, and no more than it means; and the journal can hold it."""
    line = parse_line(1, said)
    assert (line, json.loads(json.dumps(line))) == (kept, kept)
    assert (format_row(COLUMNS, row_of(line), False), format_row(COLUMNS, row_of(line), True)) == (
        text,
        as_json,
    )


@given(st.binary(max_size=40), st.booleans())
def test_any_bytes_are_kept(data: bytes, is_ended: bool) -> None:
    """And counted as they would be read."""
    text = data.decode(errors="surrogateescape")
    line = parse_line(1, escape(text) + ("" if is_ended else GOES_ON))
    assert (to_bytes(text_of(line)), is_whole(line), size_of([line])) == (
        data,
        is_ended,
        len(text) + is_ended,
    )


def test_the_last_lines_are_put_together_from_their_rows() -> None:
    """Of what alternates, each output's own; of a progress bar, what a terminal would show."""
    lines: list[list[object]] = [[2, "first"], [1, "10%\\r", False], [1, "20%\\r", False]]
    lines += [[2, "caf", False], [1, "30%"], [2, "\\udce9!", True]]
    assert last_lines(lines, (1, 2), 9) == ["first", "30%", "caf�!"]
    assert last_lines(lines, (2,), 1) == ["caf�!"]
    assert last_lines(lines, (2,), 9, start=5) == ["�!"]
    assert last_lines([], (1,), 9) == []


def test_one_line_of_a_million_bytes_costs_a_look_at_its_end() -> None:
    """It is told in a mail, and found while others wait."""
    lines = [[1, "x" * 8192, False]] * 1000
    assert [len(text) for text in last_lines(lines, (1,), 20)] == [4096]
