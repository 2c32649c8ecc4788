"""What the daemon's settings say for tasks that say nothing: --retry, --timeout, --overlap, --keep."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from cronflowd.ask import questions as q
from cronflowd.ask import views
from cronflowd.ask.kept import Kept
from cronflowd.engine import encoding
from cronflowd.engine import orders as o
from cronflowd.engine.state import State
from cronflowd.tasks.options import COMMON, Common, parse_keep, parse_retry
from tests.lib.engine_driver import Driver, snapshot

OTHERS = Common(parse_retry("fixed:1:10s"), 30.0, "queue1", parse_keep("2"))


def driver_with(common: Common, *lines: str) -> Driver:
    driver = Driver()
    driver.state.common = common
    driver.do(o.JoinWorker("w", 4, {}, ("shell",), "here", ()))
    for line in lines:
        driver.line(line)
    return driver


def shown(driver: Driver, ref: str) -> dict[str, Any]:
    return dict(views.get_task(driver.state, q.GetTask(ref, None), driver.now).rows)


def record(driver: Driver, ref: str) -> dict[str, Any]:
    task = driver.state.find(ref)
    assert task
    return {key: task.spec.record.get(key) for key in ("retry", "timeout", "overlap", "keep")}


def test_what_a_task_does_not_say_is_shown_as_it_holds_and_is_not_written_down() -> None:
    """tasks.db stays as its owner wrote it, or another setting would no longer reach the task."""
    driver = driver_with(OTHERS, "ADD name=a * * * * * a")
    options = shown(driver, "a")
    assert [options[key] for key in ("retry", "timeout", "overlap", "keep")] == [
        "fixed:1:10s",
        "30s",
        "queue1",
        "2",
    ]
    assert set(record(driver, "a").values()) == {None}


@pytest.mark.parametrize("words", ["retry=none timeout=none overlap=skip keep=50,30d,10M"])
def test_a_task_that_says_what_is_built_in_means_it(words: str) -> None:
    """`retry=none` is an answer, not silence: no setting of the daemon may turn it around."""
    driver = driver_with(OTHERS, f"ADD name=a {words} * * * * * a")
    said = dict(word.split("=") for word in words.split())
    assert record(driver, "a") == said
    assert {key: shown(driver, "a")[key] for key in said} == said
    driver.line("SET a retry= timeout= overlap= keep=")
    assert set(record(driver, "a").values()) == {None}


def test_the_settings_decide_what_becomes_of_runs() -> None:
    """A fire behind a run parks, the worker hears of the limit, and what fails is tried again."""
    driver = driver_with(OTHERS, "ADD name=a @daily a", "RUN a", "RUN a")
    (sent,) = driver.pump()
    assert " timeout=30 " in sent[1]
    assert [run.state for run in driver.state.runs.values()] == ["sent", "parked"]
    driver.do(o.ReportEnded("w", 1, 1, 7, {}))
    assert driver.state.runs[1].state == "delayed"
    driver.wait(10.0)
    assert ("w", "KILL 1 2") in driver.wait(30.0)


def test_another_setting_after_a_restart_holds_for_tasks_and_runs_that_are_there() -> None:
    """The journal tells nothing of settings: a replay gives the same state, by whichever it is read."""
    driver = driver_with(OTHERS, "ADD name=a @daily a", "ADD name=b timeout=none @daily b", "RUN a", "RUN b")
    driver.pump()
    before = snapshot(driver.state)
    assert snapshot(driver.replay()) == before
    assert all(b"fixed:1" not in line and b'timeout":"30' not in line for line in driver.journal)
    again = State("UTC", common=Common(timeout_s=5.0))
    for line in driver.journal:
        seq, at, fact, _ = encoding.decode(line)
        again.apply(fact, at, seq)
    assert snapshot(again) == before
    due = again.timeouts.first()
    assert due
    assert due[-1] == 1
    driver.take_over(again)
    assert driver.wait(5.0) == [("w", "KILL 1 1")]


def test_history_that_no_task_limits_is_shown_as_far_as_the_setting_says() -> None:
    """--keep is a wish of somebody's, unlike the built-in value, beyond which what is there may be seen."""
    driver = driver_with(OTHERS, "ADD name=a @daily a", "ADD name=b keep=3 @daily b")
    for _ in range(4):
        for name in ("a", "b"):
            run = driver.line(f"RUN {name}").reply
            assert run
            driver.do(o.ReportEnded("w", int(run.text), 1, 0, {}))

    def seen() -> list[int]:
        kept = Kept(driver.state, driver.now)
        rows = [row for row in reversed(driver.state.recent) if kept(row)]
        return [sum(row.name == name for row in rows) for name in ("a", "b")]

    assert seen() == [2, 3]
    driver.state.common = COMMON
    assert seen() == [4, 3]


def test_a_notification_is_tried_as_ever() -> None:
    """What the daemon tells people does not hang on what is set for their tasks."""
    driver = driver_with(Common(overlap="allow"), "ADD name=a notify=mailto:a@x.org @daily a", "RUN a")
    driver.do(o.ReportEnded("w", 1, 1, 7, {}))
    (notice,) = [task for task in driver.state.tasks.values() if task.is_notice]
    assert orjson.loads(orjson.dumps(notice.spec.record))["retry"] == "exp:5:10s:10m"
