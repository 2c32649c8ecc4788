"""Orders for all tasks that tag= and name= choose: one change or none, however many they are."""

from __future__ import annotations

import json

import pytest
from msgspec import structs

from cronflowd.ask import commands
from cronflowd.base.errors import Refusal
from cronflowd.engine import orders as o
from cronflowd.engine.definitions import AT_ONCE, finish
from cronflowd.engine.many import pattern_of, plan_many
from cronflowd.engine.rules import Decision, Limits
from cronflowd.tasks.reasons import reason
from tests.lib.engine_driver import Driver, snapshot

MANY = AT_ONCE + 50


def make(tasks: int) -> Driver:
    driver = Driver()
    for number in range(1, tasks + 1):
        driver.line(f"ADD name=web{number} tags=web 0 9 * * * true")
    driver.line("ADD name=db tags=db 0 9 * * * true")
    return driver


def order_many(driver: Driver, line: str) -> Decision:
    """What the daemon does for very many: plan, stage, decide; the slices are the driver's."""
    order = commands.parse(line, commands.Context(driver.now, "UTC"))
    pattern = pattern_of(order)
    assert pattern
    plan = finish(plan_many(driver.state, order, driver.now))
    driver.do(o.StageTasks([], driver.state.next_task))
    driver.do(o.StageTasks(plan))
    return driver.do(structs.replace(order, ref=structs.replace(pattern, staged=len(plan))))


def words(decision: Decision) -> str:
    assert decision.reply
    return decision.reply.text


@pytest.mark.parametrize(
    ("line", "text", "holds"),
    [
        ("PAUSE tag=web why=disk", "{} paused", lambda task: task.paused and task.paused_why == "disk"),
        ("SET tag=web timeout=5m", "{} changed", lambda task: task.spec.options.timeout_s == 300),
        ("RUN name=web*", "{} started", lambda task: len(task.runs) == 1),
        ("REMOVE name=web*", "{} removed", lambda task: False),
    ],
)
@pytest.mark.parametrize("count", [3, MANY])
def test_what_is_ordered_by_a_pattern_is_so_of_all_and_of_no_other(
    line: str, text: str, holds: object, count: int
) -> None:
    """Few in one decision or very many in slices, and a restart in between: the same comes of it."""
    driver = make(count)
    assert callable(holds)
    decision = order_many(driver, line) if count > AT_ONCE else driver.line(line)
    assert words(decision) == text.format(count)
    if count > AT_ONCE:
        driver.do(driver.engine.next_slice(driver.now))
        driver.take_over(driver.replay())
    driver.pump()
    web = [task for task in driver.state.tasks.values() if task.name != "db"]
    assert len(web) == (0 if line.startswith("REMOVE") else count)
    assert all(holds(task) for task in web)
    assert not holds(driver.state.tasks[count + 1])
    assert snapshot(driver.replay()) == snapshot(driver.state)
    if not line.startswith("RUN"):
        assert len(driver.state.changes.changes[-1].steps) == count
        assert driver.state.changes.changes[-1].what == line


def test_undo_takes_back_a_change_of_many_as_one() -> None:
    """It was one order, so one UNDO is enough."""
    driver = make(3)
    driver.line("REMOVE tag=web")
    assert len(driver.state.tasks) == 1
    driver.line("UNDO")
    assert sorted(task.name for task in driver.state.tasks.values()) == ["db", "web1", "web2", "web3"]


def test_what_is_refused_for_one_is_refused_for_all_and_says_for_which() -> None:
    """Half a change would be none that anybody could take back with a clear mind."""
    driver = make(2)
    driver.line("ADD name=webone tags=web @at 2030-06-01T10:00:00Z true")
    before = snapshot(driver.state)
    with pytest.raises(Refusal, match=r"^bad-option webone: start= is for what comes again"):
        driver.line("SET tag=web start=2031-01-01T00:00:00Z")
    with pytest.raises(Refusal, match=r"^not-found no task has tag=nosuch name=w\*"):
        driver.line("PAUSE tag=nosuch name=w*")
    assert snapshot(driver.state) == before


def test_who_waits_for_two_that_go_together_waits_for_neither() -> None:
    """Each removal alone would write down the other one's name again."""
    driver = make(2)
    driver.line("ADD name=late after=web1,web2,db 0 10 * * * true")
    driver.line("ADD name=web3 tags=web after=web1 @after true")
    with pytest.raises(Refusal, match=r'^busy web1: "late" waits'):
        driver.line("REMOVE tag=web")
    driver.line("REMOVE tag=web force=yes")
    assert [task.name for task in driver.state.tasks.values()] == ["db", "late"]
    assert driver.state.tasks[4].spec.options.after == ("db",)


def test_each_run_that_is_replaced_is_told_by_which() -> None:
    """LOG would send whoever reads it to the run of another task."""
    driver = Driver()
    driver.do(o.JoinWorker("w", 9, {}, ("shell",), "here", ()))
    for name in ("a", "b"):
        driver.line(f"ADD name={name} tags=web overlap=replace @daily true")
    for _ in range(2):
        driver.line("RUN tag=web")
        driver.pump()
    remarks = {number: output.lines[0][1] for number, output in driver.state.outputs.items()}
    assert [remarks[number]["why"] for number in (1, 2)] == [
        reason("replaced", run=3),
        reason("replaced", run=4),
    ]


@pytest.mark.parametrize("line", ["RUN a", "RUN name=*"])
def test_no_more_runs_wait_than_there_may_be_tasks(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With overlap=allow and no worker each was kept for as long as grace= says."""
    monkeypatch.setattr("cronflowd.engine.runs.ALWAYS_ROOM", 2)
    driver = Driver(Limits(tasks=3))
    driver.line("ADD name=a overlap=allow 0 0 1 1 * x")
    for _ in range(3):
        driver.line(line)
    with pytest.raises(Refusal, match="3 runs have not ended; 3 is the limit"):
        driver.line(line)


def test_where_there_may_be_few_tasks_there_may_be_more_runs_of_them() -> None:
    """--max-tasks 3 is no word about how many runs of one task stand in its queue."""
    driver = Driver(Limits(tasks=3))
    driver.line("ADD name=a overlap=queue 0 0 1 1 * x")
    for _ in range(5):
        driver.line("RUN a")


def test_all_tasks_can_be_run_where_there_may_be_no_more_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """RUN name=* of very many was refused as one of them had a run, for which the others have room."""
    monkeypatch.setattr("cronflowd.engine.runs.ALWAYS_ROOM", 3)
    driver = Driver(Limits(tasks=3))
    for name in ("a", "b", "c"):
        driver.line(f"ADD name={name} 0 0 1 1 * x")
    driver.line("RUN a")
    assert words(driver.do(o.RunTask(o.Pattern("", "*", staged=3), {}))) == "3 started"


def test_only_what_becomes_another_is_counted() -> None:
    """A script that says SET again must see that there was nothing to do."""
    driver = make(3)
    driver.line("SET web2 timeout=5m")
    assert words(driver.line("SET tag=web timeout=5m")) == "2 changed"
    assert words(driver.line("SET tag=web timeout=5m")) == "0 changed"
    driver.line("PAUSE web1")
    assert words(driver.line("RESUME name=web?")) == "1 resumed"


def test_run_says_of_which_it_could_start_none() -> None:
    """Two of three looks like success; which one still runs from yesterday is what must be known."""
    driver = make(3)
    driver.line("RUN web2")
    reply = driver.line("RUN tag=web").reply
    assert reply
    told = [("note", "web2: overlap: run 1 is still queued (overlap=skip)")]
    assert (reply.text, [*reply.rows]) == ("2 started", told)


class Cut(Driver):
    """Knows where in its journal decisions end: what start-up keeps of a torn one is nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[int] = []

    def do(self, order: object) -> Decision:
        decision = super().do(order)
        self.ends.append(len(self.journal))
        return decision


def test_run_of_very_many_starts_each_once_wherever_it_is_cut_off() -> None:
    """A kill in the middle must neither run a task twice nor forget the rest of them."""
    whole = Cut()
    for number in range(1, MANY + 1):
        whole.line(f"ADD name=web{number} tags=web 0 9 * * * true")
    order_many(whole, "RUN tag=web arg.K=v")
    first = len(whole.ends) - 1
    whole.do(o.JoinWorker("w", MANY, {}, ("shell",), "here", ()))
    whole.pump()
    slices = 0
    for end in [end for end in whole.ends[first:] if b'"BulkEnded"' not in b"".join(whole.journal[:end])]:
        driver = Driver()
        driver.journal = whole.journal[:end]
        driver.restart()
        driver.pump()
        queued = [json.loads(line)["task"] for line in driver.journal if b'"fact":"RunQueued"' in line]
        assert sorted(queued) == list(range(1, MANY + 1)), end
        assert all(run.args == {"K": "v"} for run in driver.state.runs.values())
        slices += 1
    assert slices > MANY // 100
