"""EMIT and @on: what an event starts, what it does not, and that no kill of the daemon loses one."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import orjson
import pytest

from cronflowd.ask import commands
from cronflowd.base.errors import Refusal
from cronflowd.engine import encoding, fires
from cronflowd.engine import orders as o
from cronflowd.engine.encoding import encode
from cronflowd.schedules.calendars import Calendar
from cronflowd.tasks.reasons import in_words
from tests.lib.engine_driver import Driver, snapshot


def driver_with(*lines: str) -> Driver:
    driver = Driver()
    driver.do(o.JoinWorker("w", 9, {}, ("shell",), "here", ()))
    for line in lines:
        driver.line(line)
    return driver


def said(driver: Driver, line: str) -> str:
    reply = driver.line(line).reply
    assert reply
    return reply.text


def ends(driver: Driver) -> Counter[str]:
    return Counter(driver.state.totals) + Counter(run.state for run in driver.state.runs.values())


def passed(driver: Driver) -> list[tuple[str, Any]]:
    records = [orjson.loads(line) for line in driver.journal]
    return [(each["state"], each["why"]) for each in records if each["fact"] == "FiresPassed"]


def finish(driver: Driver, exit_code: int = 0) -> None:
    """Whatever a worker has ends."""
    for run in list(driver.state.runs.values()):
        if run.worker:
            driver.do(o.ReportEnded(run.worker, run.id, run.attempt, exit_code, {}))


def test_all_that_wait_for_an_event_run_with_its_words() -> None:
    """They are arguments, as those of RUN are, so a job reads both in one way; and nobody else is started."""
    driver = driver_with("ADD name=a @on deploy a", "ADD name=b @on deploy b", "ADD name=c @on other c")
    assert said(driver, 'EMIT deploy rev=7f3a why="a b"') == "2"
    sent = [line for _, line in driver.pump()]
    assert [line.rpartition(":")[2] for line in sent] == ["a", "b"]
    assert all(' arg.rev=7f3a arg.why="a b" ' in line for line in sent)


def test_an_event_that_nobody_waits_for_leaves_no_trace() -> None:
    """OK 0 is an answer: who emits need not know who listens. A task that is used up waits for nothing."""
    driver = driver_with("ADD name=a count=1 @on e a", "EMIT e")
    driver.pump()
    before = len(driver.journal)
    assert (said(driver, "EMIT e"), said(driver, "EMIT f")) == ("0", "0")
    assert len(driver.journal) == before


def test_tasks_that_are_used_up_are_not_looked_at_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million that had fired for an event once and for all were looked at with each EMIT."""
    driver = driver_with(*(f"ADD name=t{number} count=1 @on e a" for number in range(3)), "EMIT e")
    driver.pump()
    monkeypatch.setattr(fires, "MAX_NAMING", 2)
    with pytest.raises(Refusal, match="limit"):
        driver.line("EMIT e")


@pytest.mark.parametrize("steps", range(4))
def test_a_daemon_that_is_killed_in_the_middle_fires_for_the_rest(steps: int) -> None:
    """EMIT was acknowledged by one fact; each of the tasks fires once for it, before the kill or after it."""
    driver = driver_with(*(f"ADD name={name} grace=1d @on e {name}" for name in "abc"))
    assert said(driver, "EMIT e k=v") == "3"
    for _ in range(steps):
        driver.do(driver.engine.next_step(driver.now))
    live = snapshot(driver.state)
    assert snapshot(driver.replay()) == live
    emitted_at = driver.now
    driver.now += timedelta(hours=9)
    driver.restart()
    driver.pump()
    runs = list(driver.state.runs.values())
    assert [(run.task_id, run.due_at, run.args) for run in runs] == [
        (task, emitted_at, {"k": "v"}) for task in (1, 2, 3)
    ]
    assert not driver.state.emitted


def test_a_checkpoint_carries_what_is_still_to_fire() -> None:
    """A compaction in the middle must not lose, or repeat, a fire."""
    driver = driver_with("ADD name=a @on e a", "ADD name=b @on e b", "EMIT e", "EMIT e k=v")
    driver.do(driver.engine.next_step(driver.now))
    carried = snapshot(driver.state)
    again = type(driver.state)("UTC")
    for fact in carried:
        again.apply(encoding.decode(encoding.encode(1, driver.now, fact, False))[2], driver.now, 1)
    assert snapshot(again) == carried
    assert [(each.tasks, each.args) for each in again.emitted] == [([2], None), ([1, 2], {"k": "v"})]
    driver.do(driver.engine.next_step(driver.now))
    assert snapshot(again) == carried  # and shares nothing with the state that it was told by


@pytest.mark.parametrize(
    ("options", "then", "why"),
    [
        ("", "PAUSE a why=tea", {"code": "paused", "text": "tea"}),
        ("end=2030-01-01T12:00:30Z", "", {"code": "after-end", "at": "2030-01-01T12:00:30Z"}),
        ("start=2030-01-02T00:00:00Z", "", {"code": "before-start", "at": "2030-01-02T00:00:00Z"}),
        ("skip=file:off", "", {"code": "calendar", "name": "file:off (closed)"}),
        ("", "RUN a", {"code": "overlap", "run": 1, "state": "sent"}),
    ],
)
def test_what_holds_a_task_holds_it_when_an_event_comes(options: str, then: str, why: object) -> None:
    """An event is a moment like others: it is counted as skipped, with the reason that WHY tells."""
    driver = driver_with()
    driver.state.calendars.known = {"file:off": Calendar({driver.now.date(): "closed"})}
    for line in filter(None, (f"ADD name=a {options} @on e a", then)):
        driver.line(line)
    driver.now += timedelta(minutes=1)
    assert said(driver, "EMIT e") == "1"
    driver.pump()
    assert passed(driver) == [("skipped", why)]
    assert not driver.state.emitted


@pytest.mark.parametrize("order", ["REMOVE a", "CLEAR", "UNDO"])
def test_a_task_that_goes_before_it_fired_is_told_as_missed(order: str) -> None:
    """EMIT has answered that it waits; what became of that is written down even so."""
    driver = driver_with("ADD name=a @on e a", "EMIT e", "EMIT e", order)
    driver.pump()
    assert passed(driver) == [("missed", {"code": "changed"})] * 2
    assert not driver.state.emitted
    assert snapshot(driver.replay()) == snapshot(driver.state)


def test_a_task_that_becomes_one_of_the_clock_just_then_keeps_its_moments() -> None:
    """What an event comes to says nothing of when the clock starts the task next."""
    driver = driver_with("ADD name=a @on e a", "PAUSE a", "EMIT e", 'SET a schedule="* * * * *"')
    driver.pump()
    task = driver.state.find("a")
    assert task
    assert passed(driver) == [("skipped", {"code": "paused"})]
    assert task.due_at == driver.now + timedelta(minutes=1)
    assert said(driver, "EMIT e") == "0"


def test_with_count_an_event_too_many_is_skipped() -> None:
    """Two events in one line's time: the second was emitted while the task still waited for one."""
    driver = driver_with("ADD name=a count=1 @on e a", "EMIT e", "EMIT e")
    driver.pump()
    assert ends(driver) == {"sent": 1, "skipped": 1}
    assert passed(driver) == [("skipped", {"code": "used-up"})]


def test_on_all_workers_an_event_is_a_run_on_each() -> None:
    """All of them together answer one event."""
    driver = driver_with("ADD name=a on=all overlap=allow @on e a")
    driver.do(o.JoinWorker("x", 9, {}, ("shell",), "here", ()))
    driver.line("EMIT e")
    driver.line("EMIT e")
    fire_ids = [line.split()[4] for _, line in driver.pump()]
    assert len(set(fire_ids)) == len(fire_ids) == 4


def test_two_events_of_one_instant_are_two_fires_one_behind_the_other() -> None:
    """A fire's name is what a job knows it by; and overlap=queue never runs two at a time."""
    driver = driver_with("ADD name=a overlap=queue @on e a", "EMIT e", "EMIT e", "EMIT e")
    fire_ids = []
    for _ in range(3):
        (order,) = driver.pump()
        fire_ids.append(order[1].split()[4])
        finish(driver)
    assert len(set(fire_ids)) == 3
    assert ends(driver) == {"ok": 3}


@pytest.mark.parametrize("line", ["RUN a", "EMIT e"])
def test_of_runs_that_were_asked_for_in_one_instant_one_goes_on_at_a_time(line: str) -> None:
    """They share a due moment, and are not of one fire for that, as those of on=all are."""
    driver = driver_with("ADD name=a overlap=queue @on e a", line, line, line)
    driver.pump()
    finish(driver)
    driver.pump()
    assert [run.state for run in driver.state.runs.values()] == ["sent", "parked"]


def test_one_good_end_of_a_dependency_is_good_for_one_event() -> None:
    """With after= an event waits until the dependency has ended well; the next one, until it does again."""
    driver = driver_with(
        "ADD name=d @daily d", "ADD name=a overlap=allow after=d @on e a", "EMIT e", "EMIT e"
    )
    assert driver.pump() == []
    driver.line("RUN d")
    driver.pump()
    finish(driver)
    driver.pump()
    assert [run.state for run in driver.state.runs.values()] == ["sent", "awaiting"]


def test_what_waits_for_a_task_of_events_follows_it() -> None:
    """Chains begin with an event as they do with a moment."""
    driver = driver_with("ADD name=a @on e a", "ADD name=b after=a @after b", "EMIT e")
    driver.pump()
    finish(driver)
    assert [line.rpartition(":")[2] for _, line in driver.pump()] == ["b"]


def test_an_event_with_too_many_listeners_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fact names each, and a record has a bound."""
    monkeypatch.setattr(fires, "MAX_LISTENERS", 1)
    driver = driver_with("ADD name=a @on e a", "ADD name=b @on e b")
    with pytest.raises(Refusal, match="more than 1 tasks wait for e; no more can"):
        driver.line("EMIT e")


@pytest.mark.parametrize("word", ["", "a b", "é", "a/b", "x" * 65])
def test_the_name_of_an_event_is_one_word(word: str) -> None:
    """In @on and EMIT alike, so that no event can be waited for that cannot be emitted."""
    driver = driver_with()
    for line in (f'EMIT "{word}"', f'ADD "@on {word}" true'):
        with pytest.raises(Refusal):
            driver.line(line)


def test_an_argument_is_named_as_a_variable_is() -> None:
    """It becomes one."""
    with pytest.raises(Refusal, match='"a-b=" is not NAME='):
        driver_with().line("EMIT e a-b=1")


def test_who_goes_answers_all_that_it_was_told_of_and_nobody_else_does() -> None:
    """Events that say the same are still several, and a task that goes looks at its own alone."""
    driver = driver_with("ADD name=a @on e a", "ADD name=b overlap=allow @on e b", "ADD name=c @on other c")
    for line in ("EMIT e", "EMIT other", "EMIT e"):
        driver.line(line)
    again = driver.replay()
    for state in (driver.state, again):
        assert {task: len(events) for task, events in state.unanswered.items()} == {1: 2, 2: 2, 3: 1}
    driver.line("REMOVE c")
    driver.line("REMOVE a")
    assert passed(driver) == [("missed", {"code": "changed"})] * 3
    assert [each.tasks for each in driver.state.emitted] == [[2], [2]]
    assert [line.rpartition(":")[2] for _, line in driver.pump()] == ["b", "b"]
    assert (driver.state.emitted, driver.state.unanswered) == ([], {})


def test_what_asked_for_a_run_is_known_when_it_has_ended() -> None:
    """WHY answers "who started this, and with what?" next week too, when the run's own record is gone."""
    driver = driver_with("ADD name=a @on deploy a", "ADD name=b 0 9 * * * b", "ADD name=c @on deploy c")
    driver.line("PAUSE c")
    context = commands.Context(driver.now, "UTC")
    for line in ("EMIT deploy rev=7f3a API_TOKEN=hunter2", 'RUN b arg.why="a b"', "NOW x"):
        for fact in driver.engine.decide(
            order := commands.parse(line, context), driver.now, "ann@there"
        ).facts:
            driver.journal.append(encode(len(driver.journal) + 1, driver.now, fact, False))
            driver.state.apply(fact, driver.now, len(driver.journal))
        assert order
    driver.take_over(driver.replay())
    driver.pump()
    finish(driver)
    words = {"code": "emitted", "event": "deploy", "who": "ann@there", "args": "rev=7f3a API_TOKEN=***"}
    assert {row.name: row.cause for row in driver.state.recent} == {
        "a": words,
        "c": words,
        "b": {"code": "asked", "who": "ann@there", "args": 'why="a b"'},
        "task_4": {"code": "asked", "who": "ann@there"},
    }
    assert in_words(words) == "deploy was emitted by ann@there with rev=7f3a API_TOKEN=***"


@pytest.mark.parametrize("fails", [1, 2, 3, 4])
def test_two_fires_of_one_instant_are_told_apart_by_what_made_them(fails: int) -> None:
    """RUN just when the clock starts it: who waits hears of each when its own runs have ended."""
    # Another one starts tasks there too, or the moment would begin a run of the flow.
    others = ("ADD name=c 0 3 1 1 * c", "ADD name=d after=a,c @after d")
    driver = driver_with(
        "ADD name=a on=all overlap=allow * * * * * a", "ADD name=b after=a @after b", *others
    )
    driver.do(o.JoinWorker("v", 9, {}, ("shell",), "there", ()))
    driver.now += timedelta(minutes=1)
    driver.line("RUN a")  # two runs, and two by the clock
    driver.pump()
    runs = sorted(driver.state.runs.values(), key=lambda run: run.id)
    assert [(run.by, run.fire) for run in runs] == [("manual", 1)] * 2 + [("schedule", 3)] * 2
    heard = []
    for run in runs:
        driver.take_over(driver.replay())
        worker = driver.state.runs[run.id].worker
        driver.do(o.ReportEnded(str(worker), run.id, 1, int(run.id == fails), {}))
        task = driver.state.find("b")
        assert task
        heard.append(bool(task.heard))
        driver.pump()
    assert heard == [False, True, fails < 3, True]  # a failure is kept while a runs: it may yet end well
    b_runs = [row["task"] for row in map(orjson.loads, driver.journal) if row["fact"] == "RunQueued"].count(2)
    assert b_runs == 1  # of the fire that went well
