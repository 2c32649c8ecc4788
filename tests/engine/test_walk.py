"""The walk in the theory of operation, played: a page that is wrong would be worse than none."""

from __future__ import annotations

import re
from typing import Any

from cronflowd.engine import orders as o
from cronflowd.engine import runs
from tests.lib.engine_driver import Driver

LINE = re.compile(r"^    (\d\d:\d\d:\d\d)  (\w+) +([\w, ]+?)  +(\d.*)$", re.MULTILINE)


def test_the_walk_of_the_theory_is_what_happens() -> None:
    """Whoever changes how overlap, retry and leases meet has to tell it anew."""
    driver = Driver()
    told: list[tuple[str, ...]] = []

    def do(order: Any) -> None:
        facts = [type(fact).__name__ for fact in driver.do(order).facts]
        states = ", ".join(f"{run.id} {run.state}" for run in driver.state.runs.values())
        names = ", ".join(name for name in facts if name != "OutputReceived")
        told.append((f"{driver.now:%H:%M:%S}", type(order).__name__, names, states))

    def due() -> None:
        while step := driver.engine.next_step(driver.now):
            do(step)

    driver.do(o.JoinWorker("w", 1, {}, ("shell",), "here", ()))
    driver.line("ADD name=backup overlap=queue1 retry=fixed:1:30s * * * * * true")
    given = {
        130: o.DropWorker("w", "cut"),
        170: o.JoinWorker("w", 1, {}, ("shell",), "here", ()),
        200: o.ReportEnded("w", 1, 2, 0, {}),
    }
    begin = driver.now
    for second in range(201):
        driver.now = begin.replace(minute=second // 60, second=second % 60)
        if second in given:
            do(given[second])
        due()
    walk = LINE.findall(runs.__doc__ or "")
    assert [tuple(line) for line in walk] == told
