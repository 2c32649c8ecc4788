"""A job's output as HTML: colours become classes, and whatever else a terminal would obey is taken out.

A row of LOG is a line or a part of one; what follows a carriage return takes the place of what stood there,
as a progress bar does. Colours last until they are changed, per descriptor, also over the end of a line.
"""

from __future__ import annotations

import re
from typing import Any

from attrs import define, field
from markupsafe import Markup, escape

from .wording import visible

# CSI …, OSC … and strings of other kinds up to their end, and two-character escapes.
_ESCAPE = re.compile(
    "\x1b(?:\\[([0-?]*)[ -/]*([@-~])|[\\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\\\)?|[ -/]*[0-~])|\x1b|\x08|\x07"
)
MAX_NUMBERS = 32  # of one change of colours; terminals take as many, and of four digits
_FLAGS = {1: "b", 2: "dim", 3: "i", 4: "u", 7: "inv", 9: "s"}
_OFF = {22: ("b", "dim"), 23: ("i",), 24: ("u",), 27: ("inv",), 29: ("s",)}


@define
class _Pen:
    flags: set[str] = field(factory=set)
    colours: dict[str, int] = field(factory=dict)  # `f`: of the letters, `g` behind them

    def write(self, text: str) -> str:
        if not text:
            return ""
        colours = [f"{layer}{colour}" for layer, colour in sorted(self.colours.items())]
        words = " ".join(sorted(self.flags) + colours)
        shown = escape(visible(text))
        return f'<span class="{words}">{shown}</span>' if words else str(shown)

    def change(self, numbers: list[int]) -> None:
        """SGR, as far as sixteen colours go; the nearest of them stands for others."""
        while numbers:
            number = numbers.pop(0)
            layer = "f" if number // 10 in (3, 9) else "g"
            if number == 0:
                self.flags.clear()
                self.colours.clear()
            elif number in _FLAGS:
                self.flags.add(_FLAGS[number])
            elif number in _OFF:
                self.flags.difference_update(_OFF[number])
            elif number in (38, 48):
                self.colours[layer] = _take_colour(numbers)
            elif number in (39, 49):
                self.colours.pop(layer, None)
            elif number // 10 in (3, 4, 9, 10) and number % 10 < 8:
                self.colours[layer] = number % 10 + 8 * (number >= 90)


def _take_colour(numbers: list[int]) -> int:
    """`5;N` or `2;R;G;B` as one of the sixteen."""
    kind = numbers.pop(0) if numbers else 0
    if kind == 2:
        rgb = [numbers.pop(0) if numbers else 0 for _ in range(3)]
    else:
        number = numbers.pop(0) if numbers else 7
        if number < 16:
            return number
        if number >= 232:
            return 8 if number < 244 else 7
        number -= 16
        rgb = [51 * (number // 36), 51 * (number // 6 % 6), 51 * (number % 6)]
    bright = max(rgb) > 191
    return sum(1 << at for at, part in enumerate(rgb) if part > max(rgb) / 2 and part > 63) + 8 * bright


@define
class Terminal:
    """What a run wrote so far: `show` takes rows of LOG and gives what is to be seen of each."""

    _pens: dict[int, _Pen] = field(factory=dict)

    def show(self, row: dict[str, Any]) -> dict[str, Any]:
        """`fd`, `html`, `open` (the line goes on) and `again` (what comes next takes its place)."""
        fd, text = row["fd"], row["text"]
        is_open = row.get("end") == "no-newline"
        is_again = is_open and text.endswith("\r")
        text = text.rstrip("\r")
        text = text[text.rfind("\r") + 1 :]
        return {"fd": fd, "html": self._paint(fd, text), "open": is_open, "again": is_again}

    def _paint(self, fd: int, text: str) -> str:
        pen = self._pens.setdefault(fd, _Pen())
        parts, at = [], 0
        for match in _ESCAPE.finditer(text):
            parts.append(pen.write(text[at : match.start()]))
            at = match.end()
            if match[2] == "m":
                words = re.split("[;:]", match[1])[:MAX_NUMBERS]
                pen.change([int(word[:4]) if word.isdecimal() else 0 for word in words])
        return "".join([*parts, pen.write(text[at:])])


def lines_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Whole lines of what rows of LOG hold: `fd`, `html`; the last of a descriptor may still be `open`."""
    terminal = Terminal()
    lines: list[dict[str, Any]] = []
    last: dict[int, dict[str, Any]] = {}
    for row in rows:
        shown = terminal.show(row)
        before = last.get(shown["fd"])
        if before is not None and before["open"]:
            before["html"] = shown["html"] if before["again"] else before["html"] + shown["html"]
            before |= {"open": shown["open"], "again": shown["again"]}
            continue
        lines.append(shown)
        last[shown["fd"]] = shown
    for line in lines:
        line["html"] = Markup(line["html"])  # noqa: S704  # made here, each text in it escaped
    return lines
