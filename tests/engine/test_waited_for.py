"""A task that very many wait for gets another name, or goes: in slices, and nothing is missed for that."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from cronflowd.base.errors import Refusal
from cronflowd.base.walks import Numbered, Steps
from cronflowd.engine import encoding
from cronflowd.engine import facts as f
from cronflowd.engine import orders as o
from cronflowd.engine.definitions import AT_ONCE, plan_remove
from cronflowd.engine.hearing import TOLD_AT_ONCE, heard_by
from cronflowd.engine.slices import SLICE
from cronflowd.engine.state import State
from tests.lib.calls import calls_of, counting
from tests.lib.engine_driver import Driver, snapshot

MANY = AT_ONCE + 60
FEW = 6


def made(count: int = MANY, tail: int = 0) -> Driver:
    """Task `a`, and those that wait for it; `count` of them have moments, the last `tail` are @after."""
    driver = Driver()
    driver.do(o.StartDaemon("1", "UTC"))
    driver.do(o.JoinWorker("w", 10_000, {}, ("shell",), "here", ()))
    for line in ("ADD name=a @daily true", "ADD name=c @daily true"):
        driver.line(line)
    for number in range(count):
        driver.line(f"ADD name=n{number} after=c,a 0 {number % 24} * * * true")
    for number in range(tail):
        driver.line(f"ADD name=t{number} after=a @after true")
    return driver


def waits(driver: Driver) -> Counter[tuple[str, ...]]:
    """What tasks wait for; and the index by name tells the same."""
    found: dict[str, set[int]] = {}
    tasks = list(driver.state.tasks.values())
    for task in tasks:
        for name in task.spec.options.after:
            found.setdefault(name, set()).add(task.id)
    assert (driver.state.dependents, driver.state.unfinished.former) == (found, {})
    assert dict(driver.state.names) == {task.name: task.id for task in tasks}
    return Counter(task.spec.options.after for task in tasks if task.spec.options.after)


def take_all(driver: Driver) -> list[int]:
    sizes = []
    while (step := driver.engine.next_slice(driver.now)) is not None:
        sizes.append(len(driver.do(step).facts))
    return sizes


CHANGES = {
    "SET a name=b": ("c", "b"),
    "ROLLBACK a 1": ("c", "old"),
    "REMOVE a force=yes": ("c",),
    "REMOVE name=a force=yes": ("c",),
}


@pytest.mark.parametrize("line", CHANGES)
def test_no_step_is_large_where_very_many_wait_for_a_task(line: str) -> None:
    """A rename, or REMOVE, of a task with 20,000 dependents was one step of 270 ms."""
    driver = made()
    if line == "ROLLBACK a 1":
        driver.line("SET a name=old")
        driver.pump()
        driver.line("SET old name=a")
        driver.pump()
        driver.do(o.RollBack("a", 1, driver.state.tasks[1].spec.record | {"jobName": "old"}))
        sizes = [1]
    else:
        sizes = [len(driver.line(line).facts)]
    with pytest.raises(Refusal, match="under way"):
        driver.line("SET c name=d")
    sizes += take_all(driver)
    assert sizes[0] <= 2
    assert max(sizes) == SLICE + 1
    assert waits(driver) == {CHANGES[line]: MANY}
    assert len(driver.state.changes.changes[-1].steps) == MANY + 1
    assert snapshot(driver.replay()) == snapshot(driver.state)
    driver.line("UNDO")
    assert max(take_all(driver)) <= SLICE + 1
    assert waits(driver) == {("c", "a"): MANY}


def test_the_end_of_a_rename_looks_at_none_of_those_that_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them said the new name by then, and each was looked at once more: 15 ms with 50,000."""
    driver, looked_at = made(), Counter[type[f.Fact]]()
    driver.line("SET a name=b")
    get = Numbered.__getitem__

    def counting(table: Numbered[Any], key: int) -> Any:
        looked_at[type(fact)] += 1
        return get(table, key)

    while step := driver.engine.next_slice(driver.now):
        for fact in driver.engine.decide(step, driver.now).facts:
            with monkeypatch.context() as patch:
                patch.setattr(Numbered, "__getitem__", counting)
                driver.state.apply(fact, driver.now)
    assert looked_at[f.BulkEnded] == 1
    assert waits(driver) == {("c", "b"): MANY}


def test_the_only_one_that_waits_is_found_after_its_rename_among_very_many() -> None:
    """It said the new name, by which nobody was found any more: it waited for ever."""
    driver = Driver()
    for line in ("ADD name=a @daily x", "ADD name=t after=a @after x", "SET a name=b"):
        driver.line(line)
    for number in range(AT_ONCE):
        driver.line(f"ADD name=n{number} @daily x")
    driver.do(o.UndoChanges(AT_ONCE + 1))
    driver.pump()
    assert waits(driver) == {("a",): 1}
    assert driver.replay().dependents == driver.carried().dependents == driver.state.dependents


@pytest.mark.parametrize("line", ["SET a name=b", "REMOVE a force=yes", "UNDO"])
@pytest.mark.parametrize("how", ["journal", "checkpoint"])
def test_a_crash_between_two_slices_goes_on_where_they_ended(line: str, how: str) -> None:
    """Some of them would wait for a name that nobody has, for ever."""
    driver = made()
    if line == "UNDO":
        driver.line("SET a name=b")
        driver.pump()
    driver.line(line)
    for _ in range(2):
        driver.do(driver.engine.next_slice(driver.now))
        if how == "journal":
            driver.restart()
            continue
        carried = State("UTC")
        for fact in driver.state.carry():
            carried.apply(encoding.decode(encoding.encode(1, driver.now, fact, False))[2], driver.now, 1)
        assert snapshot(carried) == snapshot(driver.state)
        driver.take_over(carried)
    driver.pump()
    after = {"SET a name=b": ("c", "b"), "UNDO": ("c", "a")}.get(line, ("c",))
    assert waits(driver) == {after: MANY}


def test_one_that_is_removed_is_not_waited_for_by_those_that_stay_only() -> None:
    """REMOVE of many: what leaves with it is not changed first."""
    driver = made()
    driver.line("SET name=n* tags=gone")
    driver.pump()
    driver.line("SET n3 tags=stays")
    driver.pump()
    driver.line("SET a tags=gone")
    driver.line("REMOVE tag=gone force=yes")
    driver.pump()
    assert waits(driver) == {("c",): 1}


ACTS = st.lists(
    st.sampled_from(
        [
            "slice",
            "slice",
            "crash",
            "checkpoint",
            "run a",
            "run c",
            "ok",
            "ok",
            "failed",
            "failed",
            "day",
            "see",
        ]
    ),
    max_size=14,
)


@settings(max_examples=100, deadline=None)
@given(ACTS, st.booleans(), st.booleans())
def test_whoever_waits_is_told_the_same_as_if_all_had_been_renamed_at_once(
    acts: list[str], undo: bool, flow: bool
) -> None:
    """A run that ended between two slices would have been heard of by those alone that said the new name."""
    ends = []
    with pytest.MonkeyPatch.context() as patch:
        for at_once, slice_, told in ((1000, SLICE, 1000), (FEW - 1, 2, 2), (1000, SLICE, 2)):
            patch.setattr("cronflowd.engine.hearing.TOLD_AT_ONCE", told)
            for module in ("definitions", "undo", "slices"):
                patch.setattr(f"cronflowd.engine.{module}.AT_ONCE", at_once)
            patch.setattr("cronflowd.engine.slices.SLICE", slice_)
            ends.append(_live(acts, undo, flow))
    assert ends[0] == ends[1] == ends[2]


def _live(acts: list[str], undo: bool, flow: bool) -> object:
    driver = made(FEW, tail=FEW)
    driver.pump()
    if undo:
        driver.line("SET a name=b")
        driver.pump()
    if flow:
        driver.line("FLOW 1 RUN")
    driver.line("UNDO" if undo else "SET a name=b")
    for act in acts:
        match act.split():
            case ["slice"]:
                if (step := driver.engine.next_slice(driver.now)) is not None:
                    driver.do(step)
            case ["crash"]:
                driver.restart()
                driver.do(o.JoinWorker("w", 10_000, {}, ("shell",), "here", _held(driver)))
            case ["checkpoint"]:
                carried = State("UTC")
                for fact in driver.state.carry():
                    carried.apply(fact, driver.now, 1)
                driver.take_over(carried)
            case ["run", name]:
                task = driver.state.tasks[1 if name == "a" else 2]
                if not task.runs:
                    driver.line(f"RUN {task.id}")
            case ["ok" | "failed" as how]:
                for run, attempt in _held(driver):
                    driver.do(o.ReportEnded("w", run, attempt, int(how == "failed"), {}))
            case ["day"] if not flow:
                driver.now = min(task.due_at for task in driver.state.tasks.values() if task.due_at)
        if act != "ok" and act != "failed":
            _steps(driver)
    driver.pump()
    waits(driver)
    tasks = driver.state.tasks.values()
    return [
        (task.name, task.spec.options.after, task.heard or None, len(task.runs), task.counts)
        for task in tasks
    ]


def _steps(driver: Driver) -> None:
    """What is due, without the slices."""
    while (step := driver.engine.next_step(driver.now)) is not None:
        driver.do(step)


def _held(driver: Driver) -> tuple[tuple[int, int], ...]:
    return tuple((run.id, run.attempt) for run in driver.state.runs.values() if run.worker)


@pytest.mark.parametrize("how", ["ok", "skipped"])
def test_very_many_are_told_some_at_a_time_how_a_task_ended(how: str) -> None:
    """The end of a run for which 50,000 tasks waited was a step of 70 ms, before one of them was judged."""
    driver = made(0)
    for number in range(3 * TOLD_AT_ONCE):
        driver.line(f"ADD name=n{number} after=c,a 0 0 1 6 * true")
    driver.pump()
    if how == "skipped":
        driver.line("PAUSE a")
        driver.now += timedelta(days=1)
    else:
        driver.line("RUN a")
        driver.do(o.ReportEnded("w", 1, 1, 0, {}))
    seen = []
    tasks = [task for task in driver.state.tasks.values() if task.spec.options.after]
    while (step := driver.engine.next_step(driver.now)) is not None:
        driver.do(step)
        heard = sum(bool(task.heard) for task in tasks)
        assert sum(bool(heard_by(driver.state, task)) for task in tasks) in (0, len(tasks))
        seen.append(heard)
    assert seen[-1] == len(tasks)
    assert max(more - before for before, more in pairwise([0, *seen])) == TOLD_AT_ONCE


def test_the_end_of_a_small_flow_does_not_have_all_news_told_at_once() -> None:
    """Only whoever waits in that flow has to have heard what happened there."""
    driver = made(TOLD_AT_ONCE + 1)
    for line in ("ADD name=x @daily true", "ADD name=y after=x @after true", "FLOW x RUN"):
        driver.line(line)
    driver.pump()
    (run,) = driver.state.runs.values()
    driver.do(o.ReportEnded("w", run.id, 1, 1, {}))
    run_id = driver.line("RUN a").told.values["run"]
    driver.do(o.ReportEnded("w", run_id, 1, 0, {}))
    while driver.state.flows.active:
        driver.do(driver.engine.next_step(driver.now))
    assert [len(news.waiting) for news in driver.state.news.values()] == [TOLD_AT_ONCE + 1]


@pytest.mark.parametrize("bound", ["MAX_UNTOLD", "MAX_NEWS"])
def test_of_many_ends_that_are_still_to_be_told_not_more_are_kept_than_are_told_soon(
    bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replay tells nothing in between: it would keep a list of all who wait for each end that there was."""
    monkeypatch.setattr("cronflowd.engine.hearing.TOLD_AT_ONCE", 2)
    monkeypatch.setattr(f"cronflowd.engine.hearing.{bound}", {"MAX_UNTOLD": 2 * FEW, "MAX_NEWS": 2}[bound])
    driver = made(FEW)
    for _ in range(5):
        for name in ("a", "c"):
            run = driver.line(f"RUN {name}").told.values["run"]
            driver.do(o.ReportEnded("w", run, 1, 0, {}))
    assert [len(news.waiting) for news in driver.state.news.values()] == [FEW, FEW]
    driver.line("ADD name=d @daily x")
    for number in range(FEW):
        driver.line(f"ADD after=d,a @daily x{number}")
    run = driver.line("RUN d").told.values["run"]
    driver.do(o.ReportEnded("w", run, 1, 0, {}))
    assert sum(len(news.waiting) for news in driver.state.news.values()) <= 2 * FEW
    assert snapshot(driver.replay()) == snapshot(driver.state)


def test_of_those_that_wait_the_oldest_is_named() -> None:
    """To find the first of 50,000 names took 12 ms, each time that somebody was refused."""
    driver = Driver()
    for line in ("ADD name=a @daily x", "ADD name=z after=a @daily x", "ADD name=b after=a @daily x"):
        driver.line(line)
    with pytest.raises(Refusal, match='"z" and 1 more wait for it'):
        driver.line("REMOVE a")


# --- how much is looked at in one go ---------------------------------------------------------------


def test_undo_looks_at_nobody_who_waits_for_what_stays() -> None:
    """SET of a task that 200,000 wait for, and then UNDO: nobody was served for most of a second."""
    calls = []
    for count in (10, MANY):
        driver = made(count)
        driver.line("SET a prio=high")
        calls.append(calls_of(lambda driver=driver: driver.engine.decide(o.UndoChanges(1), driver.now)))
    assert calls[1] <= calls[0] + 10


@pytest.mark.parametrize("force", [False, True])
def test_whether_a_task_may_leave_is_found_out_in_small_steps(force: bool) -> None:
    """REMOVE of a task that very many wait for looked at all of them in one go."""
    driver, order = made(), o.RemoveTask("a", force)
    largest = 0

    def whole() -> Any:
        nonlocal largest
        plan = Steps(plan_remove(driver.state, order))
        with counting() as calls:
            before = calls[0]
            for _ in plan:
                largest, before = max(largest, calls[0] - before), calls[0]
        return plan.value

    if not force:
        with pytest.raises(Refusal, match=f'"n0" and {MANY - 1} more wait for it'):
            whole()
    else:
        planned = structs.replace(order, plan=whole())
        assert calls_of(lambda: driver.engine.decide(planned, driver.now)) < 2 * MANY
        assert len(driver.do(planned).facts) == 2
        take_all(driver)
        assert waits(driver) == {("c",): MANY}
    assert largest < 20
