"""The table of the ten hardest moments in protocol.md is what happens, row by row."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import pytest

from cronflowd.schedules.schedule import Row, Schedule, parse_schedule
from cronflowd.schedules.zones import SECOND
from tests.lib import cron_oracle

PROTOCOL = (Path(__file__).parents[2] / "protocol.md").read_text(encoding="utf-8")
ROW = re.compile(
    r"^\| `([A-Z][\w/]+)` \| `(.+)` \| ([0-9]{4}(?:-[0-9]{2}-[0-9]{2})?) \| (.+) \| (.+) \|$", re.MULTILINE
)
DAY = timedelta(days=1)


class Moment(NamedTuple):
    """A row of the table."""

    zone: str
    text: str
    day: str  # a local date; or a year, where it is one in which nothing happens
    shown: str
    why: str

    @property
    def schedule(self) -> Schedule:
        return parse_schedule(self.text, self.zone)

    @property
    def window(self) -> tuple[datetime, datetime]:
        """All of the day, or the year, in any zone, and some hours before and after it."""
        first = datetime.fromisoformat(f"{self.day}-01-01"[:10]).replace(tzinfo=UTC)
        length = DAY if len(self.day) > 4 else 365 * DAY
        return first - 2 * DAY, first + length + 2 * DAY

    def rows(self) -> list[Row]:
        """What NEXT has to say of that day."""
        begin, end = self.window
        rows = takewhile(lambda row: row[1] < end, self.schedule.rows(begin, begin))
        return [row for row in rows if row[0].startswith(self.day)]


MOMENTS = [Moment(*words) for words in ROW.findall(PROTOCOL)]
each_moment = pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: f"{moment.zone} {moment.day}")


def test_there_are_ten() -> None:
    """A row that is written in another form would be promised and not tested."""
    table = PROTOCOL.partition("**The ten hardest moments.**")[2].partition("\n\n| ")[2].partition("\n\n")[0]
    assert len(MOMENTS) == table.count("\n") - 1 == 10
    assert len(set(MOMENTS)) == 10


@each_moment
def test_next_shows_what_the_table_says(moment: Moment) -> None:
    """It is what people look up before the night of a clock change, and after it."""
    shown = [f"{local[11:16]} {local[19:]} {remark}".strip() for local, _, remark in moment.rows()]
    assert moment.shown == ("; ".join(shown) or "nothing")


@each_moment
def test_what_fires_is_what_next_shows(moment: Moment) -> None:
    """The rows are for people; next_after, times_at, count and latest are what runs the jobs."""
    begin, end = moment.window
    schedule = moment.schedule
    rows = takewhile(lambda row: row[1] < end, schedule.rows(begin, begin))
    wanted = Counter(utc for _, utc, remark in rows if remark != "skipped")
    fired, now = {}, begin
    while (found := schedule.next_after(now, begin)) and found < end:
        fired[found] = schedule.times_at(found, begin)
        now = found
    assert wanted == fired
    assert wanted.total() == schedule.count(begin, end - SECOND, begin)
    assert max(wanted, default=None) == schedule.latest(begin, end - SECOND, begin)


@each_moment
def test_crons_loop_says_the_same(moment: Moment) -> None:
    """The model of it, which shares no code with ours; a whole year is asked by days."""
    fields = "0 0 * * *" if moment.text == "@daily" else moment.text
    begin, end = moment.window
    if len(moment.day) == 4:
        match = cron_oracle.Matcher(fields.split())
        days = ((begin + n * DAY).replace(tzinfo=None) for n in range((end - begin).days))
        assert [day for day in days if match(day)] == moment.rows() == []
        return
    model = cron_oracle.fires(fields, moment.zone, begin, end)
    assert [tuple(fire) for fire in model if fire.local.startswith(moment.day)] == moment.rows()
