"""The first rows that NEXT would show of a schedule, or of a task's own moments."""

from __future__ import annotations

from datetime import datetime
from itertools import islice

from cronflowd.schedules.schedule import Row
from cronflowd.schedules.timetable import Moments


def first_rows(moments: Moments, from_at: datetime, n: int, anchor_at: datetime) -> list[Row]:
    return list(islice(moments.rows(from_at, anchor_at), n))
