"""Nobody was told, or nobody could be: what whoever asks is told at once, and what is remembered."""

from __future__ import annotations

import pytest

from cronflowd.engine import orders as o
from cronflowd.engine.state import State
from tests.lib.engine_driver import START, Driver, snapshot
from tests.lib.notice_driver import MAIL, a_driver, end, run


def fail_to_tell(driver: Driver, exit_code: int = 7) -> str:
    """A task fails and so does every try to tell of it; what the log is told."""
    run(driver, "a", 1)
    number = max(driver.state.runs)
    warnings = ""
    for attempt, pause_s in enumerate((10, 20, 40, 80, 160, 0), 1):
        decision = driver.do(o.ReportEnded("w1", number, attempt, exit_code, {"why": "no server" * 100}))
        warnings += decision.warning
        driver.wait(pause_s)
    return warnings


def test_that_nobody_was_told_is_told_once_and_remembered_until_somebody_is() -> None:
    """The mail server had been away for a month, and the only sign of it were rows in RUNS."""
    driver = a_driver(limit=(100, 3600.0))
    driver.line(f"ADD name=a {MAIL} @yearly x")
    warning = fail_to_tell(driver)
    assert warning.startswith("notification notify_2 failed, to ops@example.org: no server")
    assert len(warning) < 300
    (unheard,) = driver.state.unheard.values()
    since_at = unheard.failure.since_at
    fail_to_tell(driver)
    (unheard,) = driver.state.unheard.values()
    assert (unheard.name, unheard.count, unheard.failure.since_at) == ("notify_3", 2, since_at)
    assert driver.replay().unheard == driver.state.unheard
    run(driver, "a", 0)
    driver.pump()
    end(driver, max(driver.state.runs))
    for state in (driver.state, driver.replay(), from_checkpoint(driver.state)):
        assert (state.unheard, state.notice_failed and state.notice_failed.name) == ({}, "notify_3")


def from_checkpoint(state: State) -> State:
    again = State("UTC")
    for fact in snapshot(state):
        again.apply(fact, START)
    return again


@pytest.mark.parametrize(
    ("notify", "told"),
    [
        ("mailto:ops@example.org", "to ops@example.org: "),
        ("https://example.org:8080/secret?key=1", "to https://example.org/…: "),
        ("slack+https://hooks.slack.com/services/T0/B0/x", "to https://hooks.slack.com/…: "),
    ],
)
def test_whom_nobody_told_is_named_without_his_secrets(notify: str, told: str) -> None:
    """The address of a hook is its key, and logs are read by many."""
    driver = a_driver()
    driver.line(f"ADD name=a notify={notify} @yearly x")
    assert told in fail_to_tell(driver)


def test_what_somebody_has_cancelled_is_no_notification_that_failed() -> None:
    """Whoever does that knows of it."""
    driver = a_driver()
    driver.line(f"ADD name=a {MAIL} @yearly x")
    run(driver, "a", 1)
    driver.do(o.CancelRun(2))
    driver.do(o.ReportEnded("w1", 2, 1, 143, {}))
    assert driver.state.unheard == {}


RUNS, TOLD = ": its runs wait for one", ": what notify= tells waits for one"
THREE = "notify=mailto:a@x.org,https://a.x.org,slack+https://b.x.org"


@pytest.mark.parametrize(
    ("can", "line", "lacking"),
    [
        ((), "ADD @daily x", []),
        ((), "ADD type=echo @daily x", []),
        ((), "ADD type=http @daily GET https://example.org/", ["http" + RUNS]),
        (("email",), "ADD @daily x", ["shell" + RUNS]),
        (("shell",), "ADD type=sleep @daily 1", ["sleep" + RUNS]),
        (("shell", "custom:a"), "ADD type=custom @daily a", []),
        (("shell", "custom:a"), "ADD type=custom @daily b", ["custom:b" + RUNS]),
        (("shell", "custom"), "ADD type=custom @daily b", []),
        (("shell",), f"ADD {MAIL} @daily x", ["email" + TOLD]),
        (("shell", "email"), f"ADD {MAIL} @daily x", []),
        (("shell",), f"NOW {MAIL} x", ["email" + TOLD]),
        (("shell",), 'ADD {"schedule":"@daily","command":"x","notify":"mailto:a@x.org"}', ["email" + TOLD]),
        (("email",), f"ADD {THREE} type=echo @daily x",
         ["echo" + RUNS, "webhook" + TOLD, "http" + TOLD]),
        (("shell",), "ADD notify=none @daily x", []),
        (("shell",), f"SET old {MAIL}", ["email" + TOLD]),
        (("shell",), "SET old type=webhook command=https://example.org/", ["webhook" + RUNS]),
        (("shell",), "SET mailed desc=x", []),
        (("shell",), "SET mailed notify=", []),
        (("shell",), "EXPECT b every=1d notify=mailto:a@x.org", ["email" + TOLD]),
    ],
)  # fmt: skip
def test_who_asks_for_what_no_connected_worker_can_do_is_told_so_at_once(
    can: tuple[str, ...], line: str, lacking: list[str]
) -> None:
    """It waited an hour, and was missed; or for a day, and nobody was told."""
    driver = Driver()
    driver.line("ADD name=old @daily x")
    driver.line(f"ADD name=mailed {MAIL} @daily x")
    if can:
        driver.do(o.JoinWorker("w1", 10, {}, can, "test", ()))
    driver.do(
        o.JoinWorker("gone", 10, {}, ("shell", "http", "email", "webhook", "echo", "sleep"), "test", ())
    )
    driver.do(o.DropWorker("gone", "cut"))
    reply = driver.line(line).reply
    assert reply is not None
    assert [row[1] for row in reply.rows] == [f"no connected worker can do {each}" for each in lacking]
