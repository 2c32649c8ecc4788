"""Pictures as numbers: what waits stands right of what it waits for, and a bad day is seen."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from cronflowd.web.pages import drawing
from cronflowd.web.pages.drawing import BOX_HEIGHT, BOX_WIDTH


def _rows(*ids: int) -> list[dict[str, Any]]:
    return [{"id": each, "last": "ok"} for each in ids]


def test_each_job_stands_right_of_all_that_it_waits_for_and_none_on_another() -> None:
    """A line that goes back, or a box below another, tells a wrong story."""
    after = {2: [1], 3: [1], 4: [2, 3], 5: [1, 4]}
    graph = drawing.draw_graph(_rows(1, 2, 3, 4, 5), after)
    boxes = {box.row["id"]: box for box in graph.boxes}
    for task, others in after.items():
        assert all(boxes[task].x >= boxes[other].x + BOX_WIDTH for other in others)
    places = [(box.x, box.y) for box in graph.boxes]
    assert len({x for x, _ in places}) == 4
    for x, y in places:
        assert not [other for other in places if other[0] == x and 0 < other[1] - y < BOX_HEIGHT]
        assert 0 <= x <= graph.width - BOX_WIDTH
        assert 0 <= y <= graph.height - BOX_HEIGHT
    assert len(graph.lines) == 6


def test_who_waits_for_somebody_that_is_not_drawn_is_drawn_without_the_line() -> None:
    """FLOW #N shows the tasks of then; one may wait for others by now."""
    graph = drawing.draw_graph(_rows(2), {2: [1]})
    assert (len(graph.boxes), graph.lines) == (1, [])


@pytest.mark.parametrize(("value", "found"), [(0, 0), (1, 1), (40, 2), (1000, 5)])
def test_whatever_is_something_has_a_colour(value: float, found: int) -> None:
    """One fire in an hour beside a thousand in another is not nothing."""
    assert found == drawing.level(value, 100)


def test_a_calendar_ends_with_today_and_begins_on_a_monday() -> None:
    """Days to come are neither good nor empty."""
    today = date(2030, 1, 2)  # a Wednesday
    grid = drawing.calendar({today: {"ok": 1}}, today, 3)
    assert [len(row) for row in grid] == [3] * 7
    assert grid[0][0] == (date(2029, 12, 17), {})
    assert grid[2][2] == (today, {"ok": 1})
    assert grid[3][2] == (date(2030, 1, 3), None)


@pytest.mark.parametrize(
    ("row", "colour"),
    [
        (None, "later"), ({}, "none"), ({"ok": 3}, "good"), ({"ok": 3, "failed": 1}, "some"),
        ({"ok": 1, "lost": 1}, "bad"), ({"ok": 5, "missed": 1}, "missed"), ({"skipped": 2}, "skipped"),
    ],
)  # fmt: skip
def test_a_day_has_the_colour_of_the_worst_in_it(row: dict[str, int] | None, colour: str) -> None:
    """A year of green with one red day in it is looked at for that day."""
    assert colour == drawing.colour_of_day(row)
