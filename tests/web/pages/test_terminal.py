"""A job's output in a page: what it wrote, in its colours, and nothing that a browser would obey."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cronflowd.web.pages.terminal import Terminal, lines_of


def _html(*texts: str, fd: int = 1) -> list[str]:
    return [str(line["html"]) for line in lines_of([{"fd": fd, "text": text} for text in texts])]


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("plain", "plain"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("\x1b[31mred\x1b[0m", '<span class="f1">red</span>'),
        ("\x1b[1;92mgood\x1b[22m!", '<span class="b f10">good</span><span class="f10">!</span>'),
        ("\x1b[38;5;196mred\x1b[39m", '<span class="f9">red</span>'),
        ("\x1b[48;2;0;0;255mblue\x1b[49m", '<span class="g12">blue</span>'),
        ("\x1b]0;title\x07shown", "shown"),
        ("\x1b]8;;javascript:alert(1)\x07link\x1b]8;;\x07", "link"),
        ("\x1b[2Jshown\x1b[10;10H", "shown"),
        (f"\x1b[{'1' * 5000}mshown", "shown"),
        (f"\x1b[{'1;' * 30_000}31mshown", '<span class="b">shown</span>'),
        ('\x1b[31"onload="x"m', "nload=&#34;x&#34;m"),
        ("a\x08b\x00", "ab\\u0000"),
        ("10%\r20%\r100%", "100%"),
    ],
)
def test_colours_become_classes_and_all_else_of_a_terminal_goes(text: str, html: str) -> None:
    """The output of a job is whoever's who can make it print something."""
    assert _html(text) == [html]


def test_a_colour_lasts_until_it_is_changed_also_over_lines() -> None:
    """Each descriptor has its own."""
    rows = [{"fd": 1, "text": "\x1b[32mone"}, {"fd": 2, "text": "err"}, {"fd": 1, "text": "two\x1b[m"}]
    assert [str(line["html"]) for line in lines_of(rows)] == [
        '<span class="f2">one</span>', "err", '<span class="f2">two</span>',
    ]  # fmt: skip


def test_a_line_that_came_in_parts_is_one_line_and_a_progress_bar_its_last_state() -> None:
    """So do a terminal and `LOG`'s own columns have it."""
    rows: list[dict[str, Any]] = [
        {"fd": 1, "text": "10%\r", "end": "no-newline"},
        {"fd": 2, "text": "warning"},
        {"fd": 1, "text": "20%\r", "end": "no-newline"},
        {"fd": 1, "text": "done"},
        {"fd": 1, "text": "Sure? ", "end": "no-newline"},
        {"fd": 1, "text": "yes"},
    ]
    assert [(line["fd"], str(line["html"])) for line in lines_of(rows)] == [
        (1, "done"), (2, "warning"), (1, "Sure? yes"),
    ]  # fmt: skip


@given(st.text(st.characters(codec=None) | st.sampled_from("\x1b[]m;<>&'\"\r0123"), max_size=80))
def test_whatever_is_written_no_tag_but_ours_comes_of_it(text: str) -> None:
    """No output, however it is cut, leaves a page anything but spans with classes."""
    shown = Terminal().show({"fd": 1, "text": text})["html"]
    rest = re.sub(r'<span class="[a-z0-9 ]+">|</span>', "", shown)
    assert not set("<>\"'") & set(rest)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f]", unescape(rest))
