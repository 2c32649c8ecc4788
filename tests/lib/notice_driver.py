"""A driver whose worker runs tasks to their end, and sends what is told of that."""

from __future__ import annotations

from typing import Any

from cronflowd.engine import orders as o
from cronflowd.engine.rules import Limits
from tests.lib.engine_driver import Driver

MAIL = "notify=failure+recovery+first+missed+lost:mailto:ops@example.org"


def a_driver(notify: tuple[Any, ...] = (), limit: tuple[int, float] = (1, 3600.0)) -> Driver:
    """With a worker that can do everything."""
    driver = Driver(Limits(lease_s=30.0, notify=notify, notify_limit=limit, host="box"))
    join(driver, "w1")
    return driver


def join(driver: Driver, name: str) -> None:
    can = ("shell", "email", "webhook", "http")
    driver.do(o.JoinWorker(name, 10, {}, can, "test", ()))


def run(driver: Driver, task: str, exit_code: int, *output: str) -> list[str]:
    """One run of a task from beginning to end; the lines that went to the worker because of its end."""
    number = driver.state.next_run
    driver.line(f"RUN {task}")
    driver.pump()
    if output:
        driver.do(o.ReportOutput("w1", number, [[1, line] for line in output]))
    return end(driver, number, exit_code)


def end(driver: Driver, number: int, exit_code: int = 0, **details: str) -> list[str]:
    attempt = driver.state.runs[number].attempt
    driver.do(o.ReportEnded("w1", number, attempt, exit_code, details))
    return [line for _, line in driver.pump()]
