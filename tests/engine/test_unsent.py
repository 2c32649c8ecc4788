"""Orders that never left, or never arrived: nothing began, so nothing is lost and nothing is used up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from cronflowd.engine import orders as o
from cronflowd.tasks.reasons import in_words
from tests.lib.engine_driver import LIMITS, Driver, snapshot


def join(name: str = "a", **more: Any) -> o.JoinWorker:
    values: dict[str, Any] = {"running": ()} | more
    return o.JoinWorker(name, 1, {}, ("shell",), "here", **values)


@dataclass
class Sent:
    """A run that was sent to worker `a`."""

    driver: Driver
    run: int

    def state(self) -> tuple[str, int]:
        run = self.driver.state.runs[self.run]
        return run.shown, run.attempt


def sent(words: str = "") -> Sent:
    driver = Driver()
    driver.do(join(holds_all=True, instance="i", connection=1))
    driver.line(f"NOW {words} job")
    driver.pump()
    assert driver.state.runs[1].state == "sent"
    return Sent(driver, 1)


def test_an_order_that_never_left_waits_again_as_its_next_attempt() -> None:
    """A cut link is nobody's fault; and its place in the queue is the old one."""
    life = sent()
    was = life.driver.state.runs[1].queued_at
    life.driver.do(o.DropWorker("a", "cut", 1, ((1, 1),)))
    assert life.state() == ("queued", 2)
    assert life.driver.state.runs[1].queued_at == was
    assert life.driver.state.workers["a"].runs == set()
    life.driver.do(join("b"))
    assert [line.split(" ", 3)[:3] for _, line in life.driver.pump()] == [["RUN", "1", "2"]]
    assert snapshot(life.driver.replay()) == snapshot(life.driver.state)


def test_it_costs_nothing_of_retry() -> None:
    """retry=fixed:1 means one failure may be mended, however many links broke before."""
    life = sent("retry=fixed:1:1s")
    for attempt in (1, 2, 3):
        life.driver.do(o.UnsendRuns("a", ((1, attempt),)))
        life.driver.pump()
    assert life.state() == ("sent", 4)
    life.driver.do(o.ReportEnded("a", 1, 4, 1, {}))
    assert life.state() == ("queued", 5)
    life.driver.wait(2)
    life.driver.do(o.ReportEnded("a", 1, 5, 1, {}))
    assert 1 not in life.driver.state.runs


def test_what_was_to_stop_and_never_left_ends_as_it_was_to_end() -> None:
    """CANCEL of a run whose order is still in our hands needs nobody's answer."""
    life = sent()
    life.driver.line("CANCEL 1")
    life.driver.do(o.DropWorker("a", "cut", 1, ((1, 1),)))
    assert [outcome.state for outcome in life.driver.state.recent] == ["cancelled"]


def test_a_worker_that_names_all_it_holds_has_what_it_does_not_name_queued_again() -> None:
    """After kill -9 the decision to send is on disk and the order is not out: no lease is waited for."""
    life = sent()
    life.driver.restart()
    life.driver.do(join(holds_all=True, instance="i"))
    assert life.state() == ("queued", 2)


@pytest.mark.parametrize(
    "more",
    [{"holds_all": False, "instance": "i"}, {"holds_all": True, "instance": "other"}],
    ids=["does not say so", "has another memory"],
)
def test_whoever_cannot_know_is_waited_for(more: dict[str, Any]) -> None:
    """A worker of the same name on another machine, or with an empty spool, knows nothing of what began."""
    life = sent()
    life.driver.restart()
    life.driver.do(join(**more))
    assert life.state() == ("sent", 1)
    life.driver.wait(LIMITS.lease_s + 1)
    assert [outcome.state for outcome in life.driver.state.recent] == ["lost"]


def test_a_memory_knows_nothing_of_what_was_sent_to_another_one_of_its_name() -> None:
    """Two workers of one name take each other's place again and again; what one runs the other must not."""
    life = sent()
    life.driver.do(join(holds_all=True, instance="other", connection=2))
    # As after a short loss of the link: the second time it is the memory we knew last.
    life.driver.do(join(holds_all=True, instance="other", connection=3))
    assert life.state() == ("sent", 1)
    assert snapshot(life.driver.replay()) == snapshot(life.driver.state)
    life.driver.do(join(holds_all=True, instance="i", connection=4))
    assert life.state() == ("queued", 2)


def test_what_is_named_and_what_had_begun_are_never_queued_again() -> None:
    """At most once: a run that said STARTED may have done half its work."""
    life = sent()
    life.driver.restart()
    life.driver.do(join(holds_all=True, instance="i", running=((1, 1),)))
    assert life.state() == ("sent", 1)
    life.driver.do(o.ReportStarted("a", 1, 1))
    life.driver.restart()
    life.driver.do(join(holds_all=True, instance="i"))
    assert life.state() == ("running", 1)


def test_word_of_an_old_connection_does_not_touch_the_new_one() -> None:
    """It may have waited for the disk while the worker came back."""
    life = sent()
    life.driver.do(join(holds_all=True, instance="i", connection=2, running=((1, 1),)))
    decision = life.driver.do(o.DropWorker("a", "cut", 1))
    assert decision.facts == []
    assert life.driver.state.workers["a"].connected


def test_a_run_that_was_sent_again_is_not_taken_back_by_word_of_the_first_order() -> None:
    """Attempts tell the two orders apart."""
    life = sent()
    life.driver.do(join(holds_all=True, instance="i", connection=2))
    life.driver.pump()
    assert life.state() == ("sent", 2)
    life.driver.do(o.DropWorker("a", "replaced", 1, ((1, 1),)))
    assert life.state() == ("sent", 2)


def test_many_starts_keep_no_slot_of_a_run_that_nobody_has() -> None:
    """A start prolongs a lease once: else a daemon that is restarted often would never free the slot."""
    life = sent()
    for _ in range(10):
        life.driver.restart()
        life.driver.do(join())
        if 1 not in life.driver.state.runs:
            break
        life.driver.wait(LIMITS.lease_s * 0.6)
    assert [outcome.state for outcome in life.driver.state.recent] == ["lost"]


def test_a_worker_that_was_killed_while_a_run_went_on_tells_that_it_is_lost() -> None:
    """Sooner than the lease would, and lost= and retry= decide as ever."""
    life = sent("lost=rerun")
    life.driver.do(o.ReportEnded("a", 1, 1, 126, {"lost": "yes", "why": "its worker was killed"}))
    assert life.state() == ("queued", 2)
    assert [outcome.state for outcome in life.driver.state.recent] == ["lost"]


@pytest.mark.parametrize("is_given_up", [False, True])
def test_what_is_lost_has_no_exit_code_that_anybody_knows(is_given_up: bool) -> None:
    """126 is what could not be begun, and that it had begun is all that its worker knows."""
    life = sent("keep=10")
    report = o.ReportEnded("a", 1, 1, 126, {"lost": "yes", "why": "its worker was killed"})
    if is_given_up:
        life.driver.do(o.DropWorker("a", "cut", 1))
        life.driver.wait(LIMITS.lease_s)
        life.driver.do(join())
    for _ in range(2):
        assert life.driver.do(report).messages == [("a", "ACK 1 1")]
    (row,) = life.driver.state.recent
    assert (row.state, row.exit) == ("lost", None)
    late = "late report from a: attempt 1 ended with exit unknown; it does not count, and"
    told = [in_words(text) for _, text, *_ in life.driver.state.outputs[1].lines]
    assert [text for text in told if text.startswith("late")] == [
        f"{late} what it wrote meanwhile is not kept"
    ] * is_given_up


def test_a_job_that_takes_its_worker_down_is_given_up_in_the_end() -> None:
    """lost=rerun is for a worker that dies now and then, not for a job that kills every one."""
    life = sent("lost=rerun")
    starts = 1
    while 1 in life.driver.state.runs:
        run = life.driver.state.runs[1]
        if run.state == "sent":
            life.driver.do(o.ReportEnded("a", 1, run.attempt, 126, {"lost": "yes"}))
        starts += sum(line.startswith("RUN") for _, line in life.driver.wait(400))
        assert starts < 50
    assert starts == 11
    last = life.driver.state.recent[-1]
    assert (last.state, last.attempt) == ("lost", 11)


@pytest.mark.parametrize("is_restart", [False, True])
def test_what_is_found_unsent_after_its_grace_is_missed_because_of_that(is_restart: bool) -> None:
    """`no worker took it` would send people to look for workers, which were all there."""
    life = sent("grace=10s")
    driver = life.driver
    if is_restart:
        driver.restart()
    driver.now += timedelta(seconds=20)
    if is_restart:
        driver.do(join(holds_all=True, instance="i", connection=2))
    else:
        driver.do(o.UnsendRuns("a", ((1, 1),)))
    driver.pump()
    assert driver.state.runs == {}
    row = driver.state.outcomes[1][-1]
    assert (row.state, row.attempt, row.worker, row.started_at) == ("missed", 2, None, None)
    assert in_words(row.why) == "its order never reached worker a"
    assert driver.state.tasks == {}
    assert snapshot(driver.replay()) == snapshot(driver.state)


def test_a_one_off_leaves_also_when_two_of_its_runs_end_at_once() -> None:
    """Each left it to the other, and its name was taken for ever."""
    driver = Driver()
    driver.do(o.JoinWorker("a", 2, {}, ("shell",), "here", (), connection=1))
    driver.line("NOW name=x overlap=allow job")
    driver.line("RUN x")
    driver.line("CANCEL 1")
    driver.line("CANCEL 2")
    driver.do(o.DropWorker("a", "cut", 1, ((1, 1), (2, 1))))
    assert (len(driver.state.tasks), driver.state.totals) == (0, {"cancelled": 2})
    assert snapshot(driver.replay()) == snapshot(driver.state)


def test_after_a_restore_no_worker_can_know_that_it_never_took_an_order() -> None:
    """It may have carried it out and forgotten it after the backup was made: lost, not begun twice."""
    life = sent()
    life.driver.take_over(life.driver.replay())
    life.driver.do(o.StartDaemon("1", "UTC", restored=True))
    life.driver.do(join(holds_all=True, instance="i", connection=1))
    assert life.driver.pump() == []
    assert life.state() == ("sent", 1)
    assert snapshot(life.driver.replay()) == snapshot(life.driver.state)
    life.driver.wait(LIMITS.lease_s)
    assert life.driver.state.totals == {"lost": 1}


def test_the_number_of_a_run_that_a_worker_still_holds_is_given_to_no_other() -> None:
    """One from after a backup: its worker would take a new order for the old one, and tell that one's end."""
    driver = Driver()
    driver.do(join(holds_all=True, instance="i", running=((7, 1),)))
    assert driver.line("NOW job").reply and [line.split()[1] for _, line in driver.pump()] == ["8"]
    driver.do(join(running=((11, 1), (999_999_999_999_999, 1))))
    assert driver.state.next_run == 12, "and a worker that tells nonsense does not use them up"
    assert snapshot(driver.replay()) == snapshot(driver.state)


def test_after_a_restore_what_waits_here_and_goes_on_at_a_worker_is_that_run() -> None:
    """It was sent after the backup was made: taken back as sent, and begun nowhere else."""
    driver = Driver()
    driver.line("NOW job")
    driver.line("NOW other")
    driver.do(o.StartDaemon("1", "UTC", restored=True))
    driver.do(join("b", connection=1))
    driver.do(o.DrainWorker("b", True))
    driver.do(join(running=((1, 1), (2, 2), (1, 1)), connection=2))
    assert [(run.state, run.worker) for run in driver.state.runs.values()] == [
        ("sent", "a"),
        ("queued", None),
    ]
    driver.do(o.ReportEnded("a", 1, 1, 0, {}))
    assert driver.state.totals == {"ok": 1}
    assert snapshot(driver.replay()) == snapshot(driver.state)
