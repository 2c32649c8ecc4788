"""Moments beside a table: whatever becomes of the rows, the earliest is found, and no step is a long one."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from cronflowd.engine.alarms import FEW, MAX_STALE, MOVED, Alarms

START = datetime(2026, 11, 21, 10, tzinfo=UTC)
MANY = 3000


class Counting:
    """Rows whose moments are asked for, and how often."""

    def __init__(self, count: int = MANY) -> None:
        self.rows: dict[int, datetime | None] = {}
        self.looks = self.most = 0
        self.alarms = Alarms(self.rows, self.moment)
        for key in range(count):
            self.set(key, START + timedelta(seconds=key))

    def moment(self, row: datetime | None) -> datetime | None:
        self.looks += 1
        return row

    def set(self, key: int, at: datetime | None) -> None:
        before, self.rows[key] = self.looks, at
        self.alarms.set(key, at)
        self.most = max(self.most, self.looks - before)


def test_rows_that_change_their_minds_all_the_time_cost_a_few_looks_each() -> None:
    """The heap of a million tasks was made anew in one go, which took half a second."""
    table = Counting()
    dice = random.Random(1)
    for _ in range(10 * MANY):
        table.set(dice.randrange(MANY), START + timedelta(seconds=dice.randrange(10**6)))
        assert len(table.alarms) <= FEW + 3 * MANY + MANY // 2
    assert table.most <= 1 + MOVED
    found = []
    while (first := table.alarms.first()) is not None:
        found.append(first)
        table.rows[first[-1]] = None
    assert found == sorted(found)
    assert len(found) == MANY


def test_what_counts_no_more_is_passed_over_some_at_a_time() -> None:
    """A hundred thousand runs that were cancelled stand first when the next one is asked for."""
    table = Counting(5 * MAX_STALE)
    later_at = START + timedelta(days=1)
    for key in table.rows:
        table.rows[key] = later_at
    table.alarms.set(7, later_at)
    asked = 0
    while table.alarms.next_due(later_at) is None:
        before, asked = table.looks, asked + 1
        table.alarms.first()
        assert table.looks - before <= MAX_STALE + 1
    assert asked > 1
    assert table.alarms.next_due(later_at) == 7


def test_of_one_moment_the_lowest_rank_is_first() -> None:
    """High goes before low when both are due."""
    rows = {1: "low", 2: "high", 3: "high"}
    alarms = Alarms(rows, lambda row: START)
    for key, row in rows.items():
        alarms.add((START, ("high", "low").index(row), key))
    found = []
    while (key := alarms.next_due(START)) is not None:
        found.append(key)
        del rows[key]
    assert found == [2, 3, 1]


def test_what_comes_back_takes_no_newer_moments_place() -> None:
    """A task that could not be decided was given another moment meanwhile, which would never come."""
    table = Counting(3)
    come_back = table.alarms.set_aside()
    table.set(0, START - timedelta(seconds=1))
    come_back()
    assert table.alarms.next_due(START) == 0


def test_what_comes_again_leaves_nothing_behind() -> None:
    """Each fire of a task would leave an entry that has to be found and thrown away at the next one."""
    table = Counting(3)
    for second in range(3, 3 * FEW):
        (_, key) = table.alarms.heap[0]
        table.set(key, START + timedelta(seconds=second))
    assert len(table.alarms) == 3
