"""GET tells more of a task's last run, and does not go through all that memory has for it."""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

from cronflowd.ask.views import _last_run
from cronflowd.schedules.zones import EPOCH


class Counted(SimpleNamespace):
    """An outcome that counts how often it is looked at."""

    looked = 0

    def __getattribute__(self, name: str) -> Any:
        Counted.looked += name == "ended_at"
        return super().__getattribute__(name)


def outcome(task_id: int, ended_at: datetime, run: int | None, state: str = "ok") -> Counted:
    what = {"task_id": task_id, "ended_at": ended_at, "run": run, "state": state}
    return Counted(started_at=None, exit=0, worker="w1", **what)


def told(recent: list[Counted], task_id: int, ended_at: datetime) -> list[Any]:
    state: Any = SimpleNamespace(recent=deque(recent))
    task: Any = SimpleNamespace(id=task_id, last_ended_at=ended_at, last_state="ok")
    Counted.looked = 0
    return [row for row in _last_run(state, task) if row is not None]


def test_a_run_far_back_is_found_at_the_price_of_a_near_one() -> None:
    """A page of a hundred jobs asks a hundred times, with ten thousand runs in memory."""
    recent = [outcome(n, EPOCH + timedelta(seconds=n), n) for n in range(10_000)]
    for n in (3, 5_000, 9_999):
        assert told(recent, n, EPOCH + timedelta(seconds=n))[0] == ("last-run", n)
        assert Counted.looked < 20
    assert told(recent, 3, EPOCH - timedelta(seconds=1)) == []
    assert Counted.looked < 20


def test_of_runs_that_ended_together_each_task_is_told_its_own() -> None:
    """A moment that was skipped at that time is none, nor is a worker that was passed over then."""
    recent = [outcome(1, EPOCH, 7), outcome(2, EPOCH, 8), outcome(1, EPOCH, None), outcome(3, EPOCH, 9)]
    recent.append(outcome(2, EPOCH, 10, "skipped"))
    assert [told(recent, task, EPOCH)[0] for task in (1, 2, 3)] == [
        ("last-run", 7), ("last-run", 8), ("last-run", 9),
    ]  # fmt: skip
