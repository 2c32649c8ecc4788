"""What becomes of a worker's lines that cannot be kept."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from cronflowd.base.errors import Refusal
from cronflowd.engine import orders as o
from cronflowd.net.workers import Batch


class FullDisk:
    """A core, and a link to it, with no room for output; remarks and ends may use the reserve."""

    name = "w1"
    last_seen_at = datetime(2030, 1, 1, tzinfo=UTC)

    def __init__(self) -> None:
        self.orders: list[Any] = []
        self.dropped: dict[int, int] = {}

    def submit(self, order: Any, who: str | None = None, now: datetime | None = None) -> None:
        if isinstance(order, o.ReportOutput) and order.lines[0][0]:
            raise Refusal("disk-full", "no room")
        self.orders.append(order)

    def wake(self) -> None:
        pass


def test_output_that_no_disk_had_room_for_is_told_with_the_run_s_end() -> None:
    """A LOG that looks whole and is not would be believed."""
    core: Any = FullDisk()
    batch = Batch(core, core)
    for line in ("OUT 7 1 four", "OUT 8 1 x", "OUT 7 2 \\udcff\\", "DONE 7 1 0", "DONE 9 1 0"):
        batch.take(line)
    told = "6 characters of its output were not kept: the disk was full"
    assert core.orders == [
        o.ReportOutput("w1", 7, [[0, told]]),
        o.ReportEnded("w1", 7, 1, 0, {}),
        o.ReportEnded("w1", 9, 1, 0, {}),
    ]
    assert core.dropped == {8: 2}
