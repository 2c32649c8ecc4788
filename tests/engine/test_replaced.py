"""overlap=replace where a task has very many runs: they end in small steps, whatever comes between."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest

from cronflowd.ask import commands
from cronflowd.engine.alarms import MAX_STALE
from cronflowd.engine.tables import ENDED_AT_ONCE
from tests.engine.test_engine import done, join
from tests.lib.engine_driver import Driver


def much_to_replace() -> Driver:
    """101 runs of the task `a`, of which 30 are running, and which the next one is to replace."""
    driver = Driver()
    join(driver, slots=30)
    driver.line("ADD name=a overlap=allow 0 0 1 1 * x")
    for _ in range(101):
        driver.line("RUN a")
    driver.pump()
    driver.line("SET a overlap=replace")
    return driver


@pytest.mark.parametrize("restarts", ["", "journal", "checkpoint"])
def test_very_many_runs_are_replaced_in_small_steps(restarts: str) -> None:
    """A task that had let any number of runs in was set to replace them: one step of half a second."""
    driver = much_to_replace()
    sizes, killed = [], []
    step: Any = commands.parse("RUN a", commands.Context(driver.now, "UTC"))
    while step:
        decision = driver.do(step)
        sizes.append(len(decision.facts))
        killed += [line for _, line in decision.messages]
        if restarts and len(sizes) == 2:
            driver.restart(driver.carried() if restarts == "checkpoint" else None)
        step = driver.engine.next_step(driver.now)
    assert max(sizes) <= 2 * ENDED_AT_ONCE + 1
    assert sorted(killed) == sorted(f"KILL {run} 1" for run in range(1, 31))
    assert {run.state for run in driver.state.runs.values() if run.id < 102} == {"stopping"}
    for run in range(1, 31):
        assert driver.state.runs[102].state == "parked"
        done(driver, "w1", run, exit_code=143)
    join(driver)
    assert [line.split()[:2] for _, line in driver.pump()] == [["RUN", "102"]]
    assert list(driver.state.runs) == [102]


class Counted(deque[int]):
    """The runs of a task, and how many of them were looked at."""

    looked_at = 0

    def __getitem__(self, at: Any) -> int:
        self.looked_at += 1
        return super().__getitem__(at)

    def __iter__(self) -> Iterator[int]:
        for run in super().__iter__():
            self.looked_at += 1
            yield run


def test_of_very_many_that_are_told_to_end_each_step_looks_at_some() -> None:
    """Each looked at all that had been told before, which a worker may not answer for a while."""
    driver, number = Driver(), 40 * MAX_STALE
    join(driver, slots=number)
    driver.line("ADD name=a overlap=allow timeout=10m retry=fixed:3:1s 0 0 1 1 * x")
    for _ in range(number):
        driver.line("RUN a")
    driver.pump()
    driver.line("SET a overlap=replace")
    runs = driver.state.tasks[1].runs = Counted(driver.state.tasks[1].runs)
    driver.line("RUN a")
    told, most = ENDED_AT_ONCE, 0
    while (step := driver.engine.next_step(driver.now)) is not None:
        told += len(driver.do(step).messages)
        most, runs.looked_at = max(most, runs.looked_at), 0
    assert (told, most < 5 * MAX_STALE) == (number, True)


def test_one_that_timed_out_meanwhile_has_no_other_attempt() -> None:
    """Those that were passed over as they were ending are not all over with it."""
    driver = Driver()
    join(driver, slots=2 * MAX_STALE)
    driver.line("ADD name=a overlap=allow timeout=1m retry=fixed:3:1s 0 0 1 1 * x")
    for _ in range(2 * MAX_STALE):
        driver.line("RUN a")
    driver.wait(61)
    driver.line("SET a overlap=replace")
    driver.line("RUN a")
    driver.pump()
    assert driver.state.replaced_upto
    done(driver, "w1", 3, exit_code=143)
    driver.pump()
    assert 3 not in driver.state.runs


@pytest.mark.parametrize("restarts", ["", "journal", "checkpoint"])
@pytest.mark.parametrize(
    ("lines", "left"),
    [
        (["CANCEL 102"], []),
        (["SET a overlap=allow", "RUN a"], [102, 103]),
        (["SET a overlap=queue", "RUN a"], [102, 103]),
    ],
)
def test_what_was_to_be_replaced_ends_whatever_becomes_of_the_newest_run(
    restarts: str, lines: list[str], left: list[int]
) -> None:
    """Where it was cancelled those that had not been told to end yet went on, and nobody was told so."""
    driver = much_to_replace()
    driver.line("RUN a")
    for line in lines:
        driver.line(line)
    if restarts:
        driver.restart(driver.carried() if restarts == "checkpoint" else None)
    driver.pump()
    assert [run for run in driver.state.runs if run > 30] == left
    assert {run.state for run in driver.state.runs.values() if run.id <= 30} == {"stopping"}
    for run in range(1, 31):
        done(driver, "w1", run, exit_code=143)
    assert (list(driver.state.runs), driver.state.replaced) == (left, {})
