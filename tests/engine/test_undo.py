"""The log of changes, and UNDO: whatever was edited, taking all of it back gives what was there."""

from __future__ import annotations

import contextlib
import os
from datetime import timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cronflowd.ask import commands, revisions
from cronflowd.ask import questions as q
from cronflowd.base.errors import Refusal
from cronflowd.engine import changelog, definitions, encoding, facts, undo
from cronflowd.engine import orders as o
from cronflowd.engine.changelog import ChangeLog
from cronflowd.engine.state import State
from cronflowd.tasks.reasons import in_words, reason
from cronflowd.tasks.task import parse_record
from tests.lib.engine_driver import START, Driver, snapshot

REFS = ["a", "b", "c", "1", "2", "3", "4"]
EDITS = [
    "ADD name={name} tags=t @daily x",
    "ADD after={ref} @after x",
    'SET {ref} schedule="@hourly"',
    "SET {ref} name={name}",
    "SET {ref} after={other}",
    "SET {ref} count=3 desc=new",
    "REMOVE {ref}",
    "REMOVE {ref} force=yes",
    "CLEAR",
    "PAUSE {ref} why=rest",
    "PAUSE all until=2031-01-01T00:00:00Z",
    "RESUME {ref}",
    "RESUME all",
    "UNDO",
    "UNDO 3",
    "LOAD",
]
edits = st.lists(
    st.builds(
        lambda form, ref, other, name: form.format(ref=ref, other=other, name=name),
        st.sampled_from(EDITS),
        st.sampled_from(REFS),
        st.sampled_from(REFS),
        st.sampled_from(["a", "b", "c", "d", "e"]),
    ),
    max_size=12,
)


def _do(driver: Driver, line: str, file: list[Any]) -> None:
    with contextlib.suppress(Refusal):
        driver.do(o.LoadTasks(file, file="two.db")) if line == "LOAD" else driver.line(line)


def _tasks(state: State) -> dict[int, Any]:
    """The tasks as people see them; how often they were changed is not part of it."""
    pauses = (state.paused_all, state.paused_until_at, state.paused_why)
    return {0: pauses} | {
        task.id: (
            task.spec.record, task.anchor_at, task.counts, task.paused, task.paused_until_at, task.paused_why
        )
        for task in state.tasks.values()
    }  # fmt: skip


def _beginning() -> Driver:
    driver = Driver()
    driver.do(o.StartDaemon("1", "UTC"))
    for line in ("ADD name=a 0 9 * * * a", "ADD name=b after=a @after b", "ADD count=2 tags=x 0 9 * * * c"):
        driver.line(line)
    driver.line("PAUSE b why=rest")
    return driver


@settings(max_examples=int(os.environ.get("CRONFLOWD_EXAMPLES", "200")), deadline=None)
@given(edits)
def test_undo_of_all_gives_the_beginning_and_undo_of_that_the_end(lines: list[str]) -> None:
    """Somebody who has made a mess must be able to rely on it, also half way through the mess."""
    driver = _beginning()
    file = [(task.id, task.spec) for task in list(driver.state.tasks.values())[:2]]
    before, known = _tasks(driver.state), len(driver.state.changes.changes)
    for line in lines:
        _do(driver, line, file)
        driver.now += timedelta(seconds=1)
    after, made = _tasks(driver.state), len(driver.state.changes.changes) - known
    if not made:
        return
    facts_made = driver.line(f"UNDO {made}").facts
    assert _tasks(driver.state) == before
    assert all(task.due_at is None or task.due_at > driver.now for task in driver.state.tasks.values())
    if facts_made:
        driver.line("UNDO")
    assert _tasks(driver.state) == (after if facts_made else before)
    assert snapshot(driver.replay()) == snapshot(driver.state)


def test_the_log_survives_a_checkpoint() -> None:
    """A restart in the night must not be the end of UNDO."""
    driver = _beginning()
    for line in ('SET a schedule="30 9 * * *"', "CLEAR", "UNDO", "PAUSE all", "RESUME all", "REMOVE 3"):
        driver.line(line)
    again = State("UTC")
    for fact in driver.state.carry():
        seq, at, read, _ = encoding.decode(encoding.encode(1, driver.now, fact, more=False))
        again.apply(read, at, seq)
    assert snapshot(again) == snapshot(driver.state)
    for ref in ("a", "b", "task_3"):
        query = q.ShowHistory(ref, None, 0)
        here, there = (revisions.show_history(state, query, driver.now) for state in (driver.state, again))
        assert list(here.rows) == list(there.rows)
    order = o.UndoChanges(9)
    other = Driver()
    other.take_over(again)
    assert driver.engine.decide(order, START).facts == other.engine.decide(order, START).facts


def test_an_order_of_the_daemon_itself_is_nobodys() -> None:
    """What comes due by itself is no change, and tells no name."""
    driver = Driver()
    driver.line("ADD * * * * * x")
    driver.line("NOW x")
    driver.wait(60)
    told = [orjson.loads(line) for line in driver.journal]
    assert [line["fact"] for line in told if "change" in line] == ["TaskAdded"]
    assert [line for line in told if "who" in line] == []


def test_all_facts_of_an_order_say_who_gave_it() -> None:
    """The journal is read with grep, when somebody asks who it was."""
    driver = _beginning()
    driver.line('SET b schedule="@daily"')
    driver.line("RUN a")
    decision = driver.engine.decide(o.RemoveTask("a", force=True), START, "ann")
    signed = [fact for fact in decision.facts if isinstance(fact, facts.Asked)]
    assert [(type(fact).__name__, fact.who, fact.change, fact.what) for fact in signed] == [
        ("TaskChanged", "ann", 6, "REMOVE a"),
        ("TaskRemoved", "ann", 6, None),
    ]
    queued = driver.engine.decide(o.RunTask("c" if driver.state.find("c") else "3", {}), START, "ann").facts[
        0
    ]
    assert isinstance(queued, facts.RunQueued)
    assert queued.who == "ann"


def test_a_journal_from_before_there_were_changes_is_read() -> None:
    """Nothing is known of its changes then, and nothing is made up."""
    state = State("UTC")
    record = {"schedule": "@daily", "command": "x", "jobName": "a"}
    noon = "2030-01-01T12:00:00Z"
    task: dict[str, Any] = {"id": 1, "due_at": None, "record": record}
    added = {"seq": 1, "at": noon, "fact": "TaskAdded", "anchor_at": noon} | task
    changed = {"seq": 2, "at": noon, "fact": "TaskChanged", "rev": 2} | task
    changed["record"] = record | {"schedule": "@hourly"}
    for line in (added, changed):
        seq, at, fact, _ = encoding.decode(orjson.dumps(line))
        state.apply(fact, at, seq)
    reply = revisions.show_history(state, q.ShowHistory("a", None, 0), at)
    assert list(reply.rows) == [(2, None, None, "as far back as is known")]
    assert list(revisions.show_history(state, q.ShowHistory(None, None, 0), at).rows) == []


def test_the_log_is_bounded_and_its_newest_change_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CLEAR of more tasks than it holds is the very one that somebody will want to take back."""
    monkeypatch.setattr(changelog, "MAX_CHANGES", 5)
    monkeypatch.setattr(changelog, "MAX_STEPS", 8)
    driver = Driver()
    for _ in range(12):
        driver.line("ADD @daily x")
    assert [change.number for change in driver.state.changes.changes] == [8, 9, 10, 11, 12]
    driver.line("CLEAR")
    assert [change.what for change in driver.state.changes.changes] == ["CLEAR 12 tasks"]
    driver.line("UNDO")
    assert len(driver.state.tasks) == 12
    assert snapshot(driver.replay()) == snapshot(driver.state)


def test_a_start_from_a_checkpoint_forgets_no_change_that_was_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a large UNDO the log is trimmed bit by bit: a restart then showed less of HISTORY."""
    driver = Driver()
    for number in range(30):
        driver.line(f"ADD name=n{number} keep=3 @daily x")
    for number in range(20):
        driver.line(f"REMOVE n{number}")
    monkeypatch.setattr(changelog, "MAX_STEPS", 8)
    monkeypatch.setattr(changelog, "FORGET", 3)
    driver.line("SET n25 command=y")
    known = [change.number for change in driver.state.changes.changes]
    assert len(known) > 8
    again = State("UTC")
    for fact in driver.state.carry():
        again.apply(fact, driver.now)
    assert [change.number for change in again.changes.changes] == known
    assert [again.changes.keep_of(number, "UTC") for number in range(1, 31)] == [
        driver.state.changes.keep_of(number, "UTC") for number in range(1, 31)
    ]


def test_the_keep_of_a_removed_task_is_found_without_a_walk_and_leaves_with_its_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """RUNS after a CLEAR of a million tasks walked all its steps for the first row of a task that is gone."""
    monkeypatch.setattr(changelog, "MAX_CHANGES", 3)
    driver = Driver()
    driver.line("ADD name=a keep=7 @daily x")
    driver.line("ADD name=b @daily x")
    for name in "ab":
        driver.line(f"REMOVE {name}")
    monkeypatch.setattr(ChangeLog, "walk", None)
    keeps = driver.state.changes.keep_of
    assert [keep and keep.runs for keep in (keeps(1, "UTC"), keeps(2, "UTC"))] == [7, None]
    for name in "cde":
        driver.line(f"ADD name={name} @daily x")
    assert (keeps(1, "UTC"), driver.state.changes._keepers) == (None, {})


def test_a_task_that_is_back_takes_its_running_runs_back() -> None:
    """Else its next moment would start a second one beside the first, whatever overlap= says."""
    driver = Driver()
    driver.do(o.JoinWorker("w", 1, {}, ("shell",), "here", ()))
    driver.line("ADD name=a * * * * * x")
    driver.line("RUN a")
    driver.pump()
    driver.line("CLEAR")
    driver.line("UNDO")
    assert driver.state.tasks[1].runs == [1]
    driver.wait(60)
    assert driver.state.totals == {"skipped": 1}


def test_a_new_name_and_the_old_one_again_lose_nothing_of_what_was_heard() -> None:
    """Whoever waits for several tasks would else wait a second time for one that has ended well."""
    driver = Driver()
    driver.do(o.JoinWorker("w", 1, {}, ("shell",), "here", ()))
    for line in ("ADD name=a @daily a", "ADD name=z @daily z", "ADD name=b after=a,z @after b", "RUN a"):
        driver.line(line)
    driver.pump()
    driver.do(o.ReportEnded("w", 1, 1, 0, {}))
    assert driver.state.tasks[3].heard == {"a": "ok"}
    driver.line("SET a name=c")
    assert driver.state.tasks[3].heard == {"c": "ok"}
    driver.line("UNDO")
    assert driver.state.tasks[3].heard == {"a": "ok"}
    assert snapshot(driver.replay()) == snapshot(driver.state)


def test_an_id_that_has_had_two_lives_gets_its_first_one_back() -> None:
    """LOAD gives a task that was removed its id again, with another anchor and no counts."""
    driver = Driver()
    driver.line("ADD name=a * * * * * x")
    driver.wait(3600 + 61)
    driver.line("PAUSE a")
    first = _tasks(driver.state)
    record = (1, driver.state.tasks[1].spec)
    driver.line("REMOVE a")
    driver.wait(60)
    driver.do(o.LoadTasks([record], file="one.db"))
    driver.line("SET a desc=second")
    driver.line("UNDO 3")
    assert _tasks(driver.state) == first
    assert driver.state.tasks[1].rev == 3


@pytest.mark.parametrize("line", ["UNDO", "UNDO 2"])
def test_a_moment_that_has_come_is_written_down_before_undo_takes_its_task_away(line: str) -> None:
    """It came a moment before UNDO and was not decided yet: nobody could ever read what became of it."""
    driver = Driver()
    driver.line("ADD name=a 0 9 * * * x")
    record = driver.state.tasks[1].spec.record | {"id": 1, "schedule": "* * * * *"}
    driver.line("REMOVE a")
    driver.now += timedelta(hours=1)
    driver.do(o.LoadTasks([parse_record(record, "UTC")], file="one.db"))
    due_at = driver.state.tasks[1].due_at
    driver.now += timedelta(seconds=61)
    told = [fact for fact in driver.line(line).facts if isinstance(fact, facts.FiresPassed)]
    assert [(fact.first_due_at, fact.state, in_words(fact.why)) for fact in told] == [
        (due_at, "missed", in_words(reason("changed")))
    ]


def test_a_secret_is_told_by_no_change() -> None:
    """HISTORY is read by more people than GET."""
    state = State("UTC")
    text = definitions._words_of_set(state, o.SetTask("a", {"secret": "hunter2", "desc": "x"}))
    assert "hunter2" not in text
    assert "hunter2" not in revisions._differences({"secret": "hunter2"}, {"secret": "hunter3"})


def test_a_task_named_like_a_verb_and_an_odd_command_do_not_confuse_history() -> None:
    """Which order it was is a word of its own; what a person wrote is never taken for it."""
    driver = Driver()
    for line in ("ADD name=UNDO @daily x", 'SET UNDO command="LOAD : UNDO"', "CLEAR", "UNDO"):
        order = commands.parse(line, commands.Context(driver.now, "UTC"))
        for fact in driver.engine.decide(order, driver.now, "ann").facts:
            driver.state.apply(fact, driver.now)
    changes = driver.state.changes.changes
    assert [(change.verb, change.what, change.undone) for change in changes] == [
        ("ADD", "ADD UNDO", ""),
        ("SET", 'SET UNDO command="LOAD : UNDO"', ""),
        ("CLEAR", "CLEAR 1 tasks", ""),
        ("UNDO", "UNDO 3", "CLEAR 1 tasks"),
    ]
    rows = [each.change for each in filter(None, revisions.revisions(driver.state, 1))]
    assert rows == ["restored by UNDO 3", "removed by CLEAR 1 tasks", "command: x -> LOAD : UNDO", "added"]
    again = State("UTC")
    for fact in driver.state.carry():
        again.apply(fact, driver.now)
    assert [each.change for each in filter(None, revisions.revisions(again, 1))] == rows


def test_undo_brings_back_what_failed_knew_of_a_task() -> None:
    """A CLEAR by mistake must not make last night's failure look mended."""
    driver = Driver()
    driver.line("ADD name=a @yearly x")
    driver.do(o.JoinWorker("w", 1, {}, ("shell",), "here", ()))
    driver.line("RUN a")
    driver.pump()
    driver.do(o.ReportEnded("w", 1, 1, 3, {}))
    failure = driver.state.tasks[1].failure
    assert failure
    for line in ("CLEAR", "UNDO", "REMOVE a"):
        driver.line(line)
    again = driver.replay()
    assert snapshot(again) == snapshot(driver.state)
    driver.line("UNDO")
    assert driver.state.tasks[1].failure == failure
    assert snapshot(driver.replay()) == snapshot(driver.state)


@pytest.mark.parametrize("steps", range(9))
def test_a_one_off_that_leaves_while_undo_is_worked_out_is_no_obstacle(steps: int) -> None:
    """Very many steps are worked out in turns with everybody else, and runs end meanwhile."""
    driver = Driver()
    driver.do(o.JoinWorker("w", 9, {}, ("shell",), "here", ()))
    for line in (
        "ADD name=a @daily x",
        "ADD name=stays after=a @daily x",
        "ADD name=once after=a @at 2030-01-01T12:00:01Z x",
        "SET a command=y",
        "RUN a",
    ):
        driver.line(line)
    driver.do(o.ReportEnded("w", 1, 1, 0, {}))
    driver.wait(1.0)
    plan = undo.plan_undo(driver.state, 1, driver.now, driver.limits)
    for _ in range(steps):
        next(plan)
    driver.do(o.ReportEnded("w", 2, 1, 0, {}))
    assert driver.state.find("once") is None
    driver.do(o.UndoChanges(1, definitions.finish(plan)))
    assert driver.state.tasks[1].spec.command == "x"
