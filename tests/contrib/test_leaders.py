"""The model of many leaders: what it says must follow from what it was told."""

from __future__ import annotations

import pytest

from contrib.bench import leaders

HERE = leaders.Measured(
    alone=10_000, lives=5_000, life_bytes=40, etcd_bytes=2e6, task_bytes=1000, state_bytes=64, start_s=1e-5
)


def test_all_tasks_are_somebody_s_and_due_as_often_as_they_are() -> None:
    """What a model drops by mistake looks like speed."""
    for count in (1, 4, 64):
        most, hours = leaders.share_out(count)
        assert 1 / count <= most < 1 / count + 0.02
        assert sum(hours) == pytest.approx(most)
    tasks = [1000.0 * each for each in leaders.share_out(1)[1]]
    each_day = leaders.MINUTELY * 1440 + leaders.HOURLY * 24 + leaders.DAILY
    assert leaders.day(1000.0, tasks, 100.0).fires == pytest.approx(1000 * each_day)


def test_who_is_quick_enough_is_late_by_its_work_alone() -> None:
    """Half of what comes at once waits for half of it; who has more than it can do is never done."""
    hours = [0.0] * leaders.NIGHT
    told = leaders.day(60_000.0, hours, 1000.0)
    full_hour = leaders.due_in(0, 60_000.0, hours)
    assert told.worst_s == pytest.approx(full_hour / 1000.0)
    assert told.p50_s < told.p99_s <= told.worst_s
    assert leaders.day(60_000.0, hours, 0.1).busy > 1


def test_leaders_on_one_etcd_share_what_it_takes() -> None:
    """To add some helps until etcd is full, and then no more."""
    rates = [leaders.row(HERE, 4_000_000, count, 1)[6] for count in (1, 4, 10, 20)]
    assert rates == ["5,000", "5,000", "5,000", "2,500"]
    assert leaders.row(HERE, 4_000_000, 20, 4)[6] == "5,000"
    assert "too long" in leaders.row(HERE, 4_000_000, 1, 1)[5]
    assert "too long" not in leaders.row(HERE, 4_000_000, 10, 1)[5]
