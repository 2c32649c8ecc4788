"""A fact carries the task itself, its line in the journal the record: both must mean the same."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from cronflowd.base.errors import Refusal
from tests.lib.engine_driver import Driver, snapshot

SCHEDULES = ["0 3 * * *", "30 2 * * *", "@every 90s", '"daily at 3 AM"', '"in 10 minutes"', "@reboot"]
SCHEDULES += ["after=first @after", '"30 9 * * * 15"', "@at 2030-02-01T10:00:00.5Z"]
OPTIONS = [
    "tz=Europe/Paris", "type=webhook header.X=1 body=x expect=200,404",
    "prio=low", "retry=exp:3:5s:x5", "retry=fixed:3:1s", "timeout=1500ms",
    "overlap=queue", "catchup=all", "grace=90m", "lost=rerun", "on=label:a=b", "keep=50,30d",
    'start="in 10 minutes"', "end=2031-01-01T00:00:00.25Z", 'end="2031-01-01 18:00"', "count=3", "spread=10m",
    "jitter=1500ms", "after=first", "tags=b,a", 'desc="two  words"', "env.B=2", "env.A=", "cwd=/tmp",
    'type=webhook payload={"b": [1, 2.50]}', "notify=none",
]  # fmt: skip


@given(st.sampled_from(SCHEDULES), st.lists(st.sampled_from(OPTIONS), max_size=5, unique=True), st.booleans())
def test_what_is_decided_and_what_is_read_back_are_the_same_task(
    schedule: str, options: list[str], named: bool
) -> None:
    """Otherwise a task would be another one after a restart. The driver compares fact by fact."""
    driver = Driver()
    driver.now += timedelta(milliseconds=250)
    driver.line("ADD name=first @daily true")
    words = " ".join([*(["name=second"] if named else []), *options])
    for line in (
        f"ADD {words} {schedule} http://h.example/x",
        f"SET 2 {words}",
        "REMOVE 2",
        "UNDO",
        "UNDO 2",
    ):
        try:
            driver.line(line)
        except Refusal:
            continue
    live, again = driver.state, driver.replay()
    assert snapshot(again) == snapshot(live)
    assert [task.spec for task in again.tasks.values()] == [task.spec for task in live.tasks.values()]
