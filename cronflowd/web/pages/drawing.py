"""Where things stand in a picture: numbers only, which templates write down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta

from attrs import frozen

from ..line import Row

BOX_WIDTH, BOX_HEIGHT = 168, 46
GAP_X, GAP_Y = 56, 18
LEVELS = 5  # of colour in a map


@frozen
class Box:
    row: Row
    x: int
    y: int


@frozen
class Graph:
    boxes: list[Box]
    lines: list[tuple[str, str]]  # a path of SVG, and how the one before has ended
    width: int
    height: int


def draw_graph(rows: Sequence[Row], after: Mapping[int, Iterable[int]]) -> Graph:
    """Tasks in columns, each right of all that it waits for; `after`: what each waits for, by id."""
    columns = _columns(rows, after)
    height = max(map(len, columns.values()), default=0) * (BOX_HEIGHT + GAP_Y)
    boxes: dict[int, Box] = {}
    for number, column in sorted(columns.items()):
        # Near those it waits for, so that few lines cross.
        def middle(row: Row) -> float:
            above = [boxes[each].y for each in after.get(row["id"], ()) if each in boxes]
            return sum(above) / len(above) if above else 0.0

        column.sort(key=middle)
        top = (height - len(column) * (BOX_HEIGHT + GAP_Y)) // 2
        for place, row in enumerate(column):
            y = top + place * (BOX_HEIGHT + GAP_Y) + GAP_Y // 2
            boxes[row["id"]] = Box(row, number * (BOX_WIDTH + GAP_X) + 2, y)
    lines = [
        (_path(boxes[other], box), str(boxes[other].row.get("turn") or boxes[other].row.get("last") or ""))
        for box in boxes.values()
        for other in after.get(box.row["id"], ())
        if other in boxes
    ]
    width = len(columns) * (BOX_WIDTH + GAP_X) - GAP_X + 4
    return Graph(list(boxes.values()), lines, max(width, BOX_WIDTH), height)


def _columns(rows: Sequence[Row], after: Mapping[int, Iterable[int]]) -> dict[int, list[Row]]:
    """By the longest way from one that waits for none; rows come behind those they wait for."""
    depth: dict[int, int] = {}
    columns: dict[int, list[Row]] = {}
    for row in rows:
        depth[row["id"]] = 1 + max((depth.get(each, -1) for each in after.get(row["id"], ())), default=-1)
        columns.setdefault(depth[row["id"]], []).append(row)
    return columns


def _path(left: Box, right: Box) -> str:
    x, y = left.x + BOX_WIDTH, left.y + BOX_HEIGHT // 2
    to_x, to_y = right.x, right.y + BOX_HEIGHT // 2
    bend = (to_x - x) // 2
    return f"M{x} {y}C{x + bend} {y} {to_x - bend} {to_y} {to_x} {to_y}"


def level(value: float, most: float) -> int:
    """Which of the colours a value has: 0 is nothing, and whatever is something is at least 1."""
    return 0 if value <= 0 or most <= 0 else max(1, min(LEVELS, round(LEVELS * value / most)))


def calendar(days: Mapping[date, Row], last: date, weeks: int) -> list[list[tuple[date, Row | None]]]:
    """Seven rows, Monday first, of so many weeks that the last one holds `last`; later days are None."""
    monday = last - timedelta(days=last.weekday(), weeks=weeks - 1)
    grid = [[monday + timedelta(days=day, weeks=week) for week in range(weeks)] for day in range(7)]
    return [[(day, days.get(day, {}) if day <= last else None) for day in row] for row in grid]


def colour_of_day(row: Row | None) -> str:
    """What is worst about a day, as a class."""
    if row is None:
        return "later"
    bad = sum(row.get(key) or 0 for key in ("failed", "timeout", "lost"))
    good = row.get("ok") or 0
    if bad:
        return "bad" if bad >= good else "some"
    if row.get("missed"):
        return "missed"
    if good:
        return "good"
    return "skipped" if row.get("skipped") or row.get("cancelled") else "none"
