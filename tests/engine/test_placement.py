"""Which run goes where: held against the plainest way of choosing, and how little of it is looked at."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cronflowd.engine import facts as f
from cronflowd.engine import lanes
from cronflowd.engine import orders as o
from cronflowd.engine.alarms import MAX_STALE
from cronflowd.engine.lanes import HANDICAP, Lanes
from cronflowd.engine.placement import accepts, choose
from cronflowd.engine.state import State
from cronflowd.tasks.task import Worker
from tests.lib.calls import calls_of
from tests.lib.engine_driver import Driver

WORKERS = ["a", "b", "c"]


def plainly(state: State) -> list[tuple[int, str]]:
    """What `choose` finds, by looking at every run and every worker."""
    runs = [run for run in state.runs.values() if run.state == "queued"]
    left = {worker.name: worker.free for worker in state.lanes.free.values()}
    found = []
    for run in sorted(runs, key=lambda run: (run.queued_at + HANDICAP[run.spec.options.prio], run.id)):
        able = [
            worker
            for worker in state.lanes.free.values()
            if left[worker.name] and accepts(worker, run.spec.work, run.on)
        ]
        if able:
            best = min(able, key=lambda worker: (-left[worker.name], worker.name))
            left[best.name] -= 1
            found.append((run.id, best.name))
    return found


HAPPENINGS = st.one_of(
    st.tuples(
        st.just("now"),
        st.sampled_from(["high", "medium", "low"]),
        st.sampled_from(["any", "a", "b", "label:disk=ssd"]),
        st.sampled_from(["shell :x", "echo :x", "custom :backup", "custom :mail"]),
        st.sampled_from(["1h", "10s"]),
    ),
    st.tuples(
        st.just("join"),
        st.sampled_from(WORKERS),
        st.sampled_from(["shell", "shell,echo", "custom", "custom:mail,echo"]),
        st.booleans(),
    ),
    st.tuples(st.just("drop"), st.sampled_from(WORKERS)),
    st.tuples(st.just("drain"), st.sampled_from(WORKERS), st.booleans()),
    st.tuples(st.just("full"), st.sampled_from(WORKERS), st.booleans()),
    st.tuples(st.just("done"), st.integers(1, 40)),
    st.tuples(st.just("cancel"), st.integers(1, 40)),
    st.tuples(st.just("unsent"), st.integers(1, 40)),
    st.tuples(st.just("wait"), st.sampled_from([1, 30, 100])),
    st.tuples(st.just("step"), st.sampled_from([-3600, 7200])),
)


def happen(driver: Driver, what: str, *words: Any) -> None:
    state = driver.state
    if what == "now":
        prio, on, work, grace = words
        kind, command = work.split(" :")
        driver.line(f"NOW prio={prio} on={on} type={kind} grace={grace} {command}")
    elif what == "join":
        name, can, ssd = words
        labels = {"disk": "ssd"} if ssd else {}
        driver.do(o.JoinWorker(name, 2, labels, tuple(can.split(",")), "here", ()))
    elif what == "wait":
        driver.now += timedelta(seconds=words[0])
    elif what == "step":
        driver.now += timedelta(seconds=words[0])
        driver.do(o.NoticeStep(float(words[0])))
    elif what in ("done", "cancel", "unsent"):
        if run := state.runs.get(words[0]):
            held = run.worker
            if what == "cancel":
                driver.do(o.CancelRun(run.id))
            elif held and what == "done":
                driver.do(o.ReportEnded(held, run.id, run.attempt, 0, {}))
            elif held:
                driver.do(o.UnsendRuns(held, ((run.id, run.attempt),)))
    elif worker := state.workers.get(words[0]):
        if what == "drop":
            driver.do(o.DropWorker(worker.name, "cut"))
        elif what == "drain":
            driver.do(o.DrainWorker(worker.name, words[1]))
        else:
            state.lanes.hold_back(worker, words[1])


@settings(max_examples=300)
@given(st.lists(HAPPENINGS, min_size=5, max_size=60))
def test_the_next_run_and_its_worker_are_those_that_a_look_at_everything_finds(
    happenings: list[tuple[Any, ...]],
) -> None:
    """Nothing that could go is forgotten in a lane, and nobody is passed by, whatever happened before."""
    driver = Driver()
    for happening in happenings:
        happen(driver, *happening)
        while True:
            found, wanted = choose(driver.state), plainly(driver.state)
            assert found == wanted
            step = driver.engine.next_step(driver.now)
            if step is None:
                break
            driver.do(step)


def test_a_step_looks_at_no_lane_that_nobody_can_serve(monkeypatch: Any) -> None:
    """Five thousand queues of a hardware that is away must not slow down the one that works."""
    driver = Driver()
    for number in range(5000):
        driver.line(f"NOW on=label:rack={number} sleep")
    driver.do(o.JoinWorker("a", 1, {}, ("shell",), "here", ()))
    driver.pump()
    looked: list[object] = []
    real = lanes.Lanes.first_in

    def counting(self: lanes.Lanes, lane: lanes.Lane) -> lanes.Place | None:
        looked.append(lane)
        return real(self, lane)

    monkeypatch.setattr(lanes.Lanes, "first_in", counting)
    driver.line("NOW on=a work")
    assert driver.pump() != []
    assert len(looked) < 10
    driver.do(o.ReportEnded("a", driver.state.next_run - 1, 1, 0, {}))
    driver.pump()
    assert len(looked) < 20


def test_a_run_on_a_named_worker_looks_at_no_other(monkeypatch: Any) -> None:
    """One fire of on=all compared each of 5,000 free workers with each: nobody was served for two seconds."""
    driver, asked = Driver(), Counter[str]()
    for number in range(200):
        driver.do(o.JoinWorker(f"w{number}", 2, {}, ("shell",), "here", ()))
    driver.line("ADD name=a on=all 0 13 * * * x")
    accepts = lanes.accepts

    def counting(worker: Worker, work: str, on: str) -> bool:
        asked[on] += on != "any"
        return accepts(worker, work, on)

    for module in ("lanes", "placement"):
        monkeypatch.setattr(f"cronflowd.engine.{module}.accepts", counting)
    driver.now += timedelta(hours=1)
    assert len(driver.pump()) == 200
    assert max(asked.values()) <= 2


def test_who_takes_the_runs_of_one_decision_is_looked_for_once() -> None:
    """Each fire compared all workers that were free: with a hundred of them it took nine times as long."""
    calls = []
    for workers in (20, 200):
        driver = Driver()
        for number in range(workers):
            driver.do(o.JoinWorker(f"w{number}", 20, {}, ("shell",), "here", ()))
        for number in range(400):
            driver.line(f"ADD name=t{number} 0 13 * * * x")
        driver.now += timedelta(hours=1)
        sent: list[Any] = []
        calls.append(calls_of(lambda driver=driver, sent=sent: sent.extend(driver.pump())))
        assert len(sent) == 400
    assert calls[1] - calls[0] < 400 * 180 / 4


def test_the_first_of_very_many_that_are_due_is_sent_before_the_last_is_decided() -> None:
    """Twenty thousand due at one second must not all wait for each other to be written down."""
    driver = Driver()
    for number in range(1000):
        driver.line(f"ADD name=t{number} 0 13 * * * x")
    driver.do(o.JoinWorker("a", 4, {}, ("shell",), "here", ()))
    driver.now += timedelta(hours=1)
    steps = 0
    while not driver.do(driver.engine.next_step(driver.now)).messages:
        steps += 1
    assert steps <= 200


def test_at_one_moment_the_high_ones_are_decided_first() -> None:
    """So that what is placed early has the order that prio= promises, however many are due."""
    driver = Driver()
    for number in range(600):
        driver.line(f"ADD name=low{number} prio=low 0 13 * * * x")
    driver.line("ADD name=high prio=high 0 13 * * * x")
    driver.do(o.JoinWorker("a", 1, {}, ("shell",), "here", ()))
    driver.now += timedelta(hours=1)
    first, *_ = driver.pump()
    assert "name=high" in first[1]


def test_heaps_of_what_is_over_are_tidied() -> None:
    """A daemon that has run a million jobs with timeout= must not remember a million timeouts."""
    driver = Driver()
    driver.do(o.JoinWorker("a", 10, {}, ("shell",), "here", ()))
    for _ in range(1000):
        driver.line("NOW timeout=1d x")
        driver.pump()
        driver.do(o.ReportEnded("a", driver.state.next_run - 1, 1, 0, {}))
    state = driver.state
    lengths = [len(lane) for works in state.lanes.heaps.values() for lane in works.values()]
    assert max(len(state.timeouts.heap), len(state.missed.heap), len(state.lanes.ready), *lengths, 0) < 200


def test_no_step_looks_at_more_than_some_runs_that_do_not_wait_any_more(monkeypatch: Any) -> None:
    """The queue of a task that was removed with 100,000 runs was emptied in one go by whoever came next."""
    driver = Driver()
    driver.line("ADD name=a overlap=allow 0 0 1 1 * x")
    driver.line("ADD name=b 0 0 1 1 * x")
    for _ in range(2000):
        driver.line("RUN a")
    driver.line("REMOVE a")
    driver.pump()
    looks = most = 0
    real = Lanes._stands

    def stands(lanes: Lanes, entry: Any) -> bool:
        nonlocal looks
        looks += 1
        return real(lanes, entry)

    monkeypatch.setattr(Lanes, "_stands", stands)
    driver.do(o.JoinWorker("w", 1, {}, ("shell",), "here", ()))
    most, looks = looks, 0
    decision = driver.line("RUN b")
    most, looks = max(most, looks), 0
    orders = list(decision.messages)
    while (step := driver.engine.next_step(driver.now)) is not None:
        orders += driver.do(step).messages
        most, looks = max(most, looks), 0
    assert [worker for worker, _ in orders] == ["w"]
    assert most <= 2 * MAX_STALE + 10


def test_a_lane_that_no_worker_ever_asks_for_is_forgotten() -> None:
    """Machines that live for an hour have a name each, and what is asked of those that are gone is missed."""
    driver = Driver()
    driver.do(o.JoinWorker("a", 100, {}, ("shell", "custom"), "here", ()))
    for number in range(500):
        driver.line(f"NOW on=other{number} retry=none x")
        driver.line(f"CANCEL {driver.state.next_run - 1}")
        driver.line(f"NOW type=custom job{number}")
        driver.line(f"CANCEL {driver.state.next_run - 1}")
    assert len(driver.state.lanes.heaps) < 200
    assert sum(map(len, driver.state.lanes.heaps.values())) < 200


def test_a_lane_in_which_a_run_waits_is_never_forgotten() -> None:
    """There may be more machines that are away than are looked at in passing."""
    driver = Driver()
    for number in range(500):
        driver.line(f"NOW on=other{number} x")
    for number in range(0, 500, 7):
        driver.do(o.JoinWorker(f"other{number}", 1, {}, ("shell",), "here", ()))
        driver.wait(0.1)
        assert [run.state for run in driver.state.runs.values() if run.worker == f"other{number}"] == ["sent"]


def test_a_worker_accepts_its_own_kinds_and_handlers() -> None:
    """`custom` is all handlers, `custom:mail` is one."""
    worker = Worker(
        can=frozenset({"custom:mail"}), name="a", slots=1, labels={}, address="here", since_at=Driver().now
    )
    assert accepts(worker, "custom:mail", "any")
    assert not accepts(worker, "custom:backup", "any")


def test_a_run_that_is_asked_for_goes_at_once_where_nobody_waits() -> None:
    """One decision and one record: it is on disk before the order leaves all the same."""
    driver = Driver()
    driver.do(o.JoinWorker("a", 2, {}, ("shell",), "here", ()))
    driver.line("ADD name=t overlap=allow 0 0 1 1 * work")
    found = driver.line("RUN t arg.X=1")
    (queued,) = found.facts
    assert isinstance(queued, f.RunQueued)
    assert queued.worker == "a"
    ((worker, line),) = found.messages
    assert (worker, line.split(" ")[:3]) == ("a", ["RUN", "1", "1"])
    assert "/1 arg.X=1 type=shell task=1 name=t :work" in line
    for state in (driver.state, driver.replay()):
        run = state.runs[1]
        assert (run.state, run.worker, run.sent_at) == ("sent", "a", driver.now)
        assert state.workers["a"].runs == {1}
    assert driver.pump() == found.messages  # and not once more


def test_a_run_that_is_asked_for_passes_nobody() -> None:
    """Whoever waits for the same worker goes first, though its turn has not come yet."""
    driver = Driver()
    driver.line("NOW first")
    driver.do(o.JoinWorker("a", 1, {}, ("shell",), "here", ()))
    assert driver.line("NOW second").messages == []
    assert [line.split(" ")[1] for _, line in driver.pump()] == ["1"]


def test_the_end_of_a_run_looks_at_no_other_run_of_a_task_that_allows_many() -> None:
    """Two thousand at a time would make each end cost two thousand looks."""
    driver = Driver()
    driver.do(o.JoinWorker("a", 2000, {}, ("shell",), "here", ()))
    driver.line("ADD name=t overlap=allow 0 0 1 1 * work")
    for _ in range(1000):
        driver.line("RUN t")
    looked = 0

    class Counting(list[int]):
        def __iter__(self) -> Any:
            nonlocal looked
            for each in super().__iter__():
                looked += 1
                yield each

    task = driver.state.tasks[1]
    task.runs = Counting(task.runs)
    for run in range(1, 11):
        driver.do(o.ReportEnded("a", run, 1, 0, {}))
    assert len(task.runs) == 990
    assert looked <= 20


@pytest.mark.parametrize("begin", [0, 60, 199])
def test_very_many_runs_of_a_task_end_in_any_order(begin: int) -> None:
    """They stand in the order in which they came, however many there were; a one-off leaves with the last."""
    driver = Driver()
    driver.do(o.JoinWorker("a", 200, {}, ("shell",), "here", ()))
    driver.line("ADD name=t overlap=allow @at 2040-01-01T00:00:00Z work")
    for _ in range(200):
        driver.line("RUN t")
    driver.state.set_due(driver.state.tasks[1], None)
    runs = list(range(1, 201))
    for run in runs[begin:] + runs[:begin]:
        runs.remove(run)
        driver.do(o.ReportEnded("a", run, 1, 0, {}))
        task = driver.state.tasks.get(1)
        assert list(task.runs if task else ()) == runs
    assert not driver.state.tasks


def test_what_the_journal_refused_is_placed_by_the_next_step() -> None:
    """They are taken out of their lanes when they are chosen; a full disk must not lose them there."""
    driver = Driver()
    for number in range(5):
        driver.line(f"NOW type=custom name=n{number} job{number}")
    driver.do(o.JoinWorker("a", 3, {}, ("custom",), "here", ()))
    refused = driver.engine.next_step(driver.now)
    assert refused == o.PlaceRuns([(1, "a"), (2, "a"), (3, "a")])
    driver.line("CANCEL 2")
    assert driver.engine.next_step(driver.now) == o.PlaceRuns([(1, "a"), (3, "a"), (4, "a")])
    driver.pump()
    assert [run.id for run in driver.state.runs.values() if run.state == "queued"] == [5]


def test_orders_that_leave_together_are_few_where_they_are_long() -> None:
    """Whether a worker reads what it is owed is looked at between decisions."""
    driver = Driver()
    for _ in range(5):
        driver.line(f"NOW {'x' * 30_000}")
    driver.do(o.JoinWorker("a", 10, {}, ("shell",), "here", ()))
    assert [len(decision.messages) for _, decision in driver.decisions()] == [3, 2]


def test_a_moment_is_sent_in_the_decision_that_queues_it() -> None:
    """One record and one step less a fire; and the order leaves before the next one is decided."""
    driver = Driver()
    driver.line("ADD name=due 0 13 * * * x")
    driver.do(o.JoinWorker("a", 1, {}, ("shell",), "here", ()))
    driver.now += timedelta(hours=1)
    decision = driver.do(driver.engine.next_step(driver.now))
    assert [(type(fact), getattr(fact, "worker", None)) for fact in decision.facts] == [(f.RunQueued, "a")]
    assert [worker for worker, _ in decision.messages] == ["a"]
    assert driver.engine.next_step(driver.now) is None


def test_a_moment_passes_no_run_that_waits_for_the_same_worker() -> None:
    """A slot that has just become free belongs to whoever has waited for it."""
    driver = Driver()
    driver.line("ADD name=late prio=low jitter=1h 0 13 * * * x")
    driver.line("ADD name=due 0 14 * * * x")
    driver.do(o.JoinWorker("a", 1, {}, ("shell",), "here", ()))
    driver.now += timedelta(hours=1)
    driver.pump()
    driver.now += timedelta(hours=1)
    assert type(driver.engine.next_step(driver.now)) is o.ReleaseRun
    driver.do(o.ReleaseRun(1))
    fired = driver.do(driver.engine.next_step(driver.now))
    assert [(type(fact), fact.worker) for fact in fired.facts] == [(f.RunQueued, None)]
    assert [run.id for run in driver.state.runs.values() if run.state == "queued"] == [1, 2]
