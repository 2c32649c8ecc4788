"""FLOW: what hangs together by after= is one thing to start, to retry, to hold and to stop."""

from __future__ import annotations

from functools import partial

import pytest

from cronflowd.ask import flows, why
from cronflowd.ask import questions as q
from cronflowd.ask.commands import VERBS, only_reads
from cronflowd.base.errors import Refusal
from cronflowd.engine import flow_runs
from cronflowd.engine import flows as engine_flows
from cronflowd.engine import orders as o
from cronflowd.engine.definitions import finish
from cronflowd.engine.flows import next_in_flows, plan_flow
from cronflowd.engine.state import State
from cronflowd.tasks.reasons import in_words
from tests.lib.calls import OURS, calls_of
from tests.lib.engine_driver import Driver, snapshot

DIAMOND = [
    "ADD name=a 0 3 * * * a", "ADD name=b after=a @after b", "ADD name=c after=a @after c",
    "ADD name=d after=b,c 0 6 * * * d",
]  # fmt: skip


class Life(Driver):
    """A driver with a worker that runs all it is sent, and what has been sent so far."""

    def __init__(self, lines: list[str] = DIAMOND) -> None:
        super().__init__()
        self.do(o.StartDaemon("1", "UTC"))
        self.joins()
        for line in lines:
            self.line(line)

    def joins(self) -> None:
        held = tuple((run.id, run.attempt) for run in self.state.runs.values() if run.worker)
        self.do(o.JoinWorker("w", 99, {}, ("shell",), "here", held))

    def says(self, line: str) -> str:
        reply = self.line(line).reply
        self.pump()
        assert reply
        return reply.text

    def ends(self, name: str, status: int = 0) -> None:
        """The run of this task ends."""
        run = self.state.runs[self.state.tasks[self.state.names[name]].runs[0]]
        assert run.worker, f"{name} was not sent"
        self.do(o.ReportEnded("w", run.id, run.attempt, status, {}))
        self.pump()

    def killed(self) -> None:
        assert snapshot(self.replay()) == snapshot(self.state)
        self.restart()
        self.joins()
        self.pump()

    @property
    def running(self) -> list[str]:
        return sorted({run.spec.name for run in self.state.runs.values()})

    def stands(self, number: int = 1) -> dict[str, str]:
        flow = self.state.flows.find(number)
        assert flow
        return {self.state.tasks[each].name: member.state for each, member in flow.members.items()}

    def row(self, ref: str = "a") -> dict[str, object]:
        """The newest one."""
        rows = flows.list_flow_runs(self.state, q.ListFlowRuns(ref, 1, 0)).rows
        return dict(zip(flows.RUN_COLUMNS, next(filter(None, rows)), strict=True))


def test_each_task_runs_once_behind_those_it_waits_for_also_over_a_kill() -> None:
    """Whatever its schedule says: who starts a flow wants its end, not tomorrow's."""
    life = Life()
    assert life.says("FLOW d RUN arg.day=monday") == "1 tasks=4"
    assert life.running == ["a"]
    life.killed()
    life.ends("a")
    assert life.running == ["b", "c"]
    assert {(run.by, run.flow) for run in life.state.runs.values()} == {("flow", 1)}
    assert {str(run.args) for run in life.state.runs.values()} == {"{'day': 'monday'}"}
    life.ends("b")
    life.killed()
    assert life.running == ["c"]
    assert life.row()["state"] == "running"
    life.ends("c")
    assert life.running == ["d"]
    life.ends("d")
    assert (life.row()["state"], life.row()["ok"], life.running) == ("ok", 4, [])
    life.killed()
    assert life.running == []


def test_a_failure_ends_it_and_retry_runs_that_and_what_waited_behind_it() -> None:
    """What ended well is not done twice: it may have been the expensive part."""
    life = Life()
    life.says("FLOW a RUN")
    life.ends("a")
    life.ends("b", 1)
    assert life.stands() == {"a": "ok", "b": "failed", "c": "running", "d": "skipped"}
    life.ends("c")
    assert (life.row()["state"], life.row()["failed"], life.row()["skipped"]) == ("failed", 1, 1)
    life.killed()
    assert life.says("FLOW a RETRY") == "1 tasks=2"
    assert life.running == ["b"]
    life.ends("b")
    life.ends("d")
    assert (life.row()["state"], life.row()["flow"]) == ("ok", 1)
    with pytest.raises(Refusal, match="has failed"):
        life.says("FLOW a RETRY")


def test_retry_while_the_rest_of_it_still_runs_gives_another_turn_at_once() -> None:
    """Nobody has to wait for the slow branch to mend the quick one."""
    life = Life()
    life.says("FLOW a RUN")
    life.ends("a")
    life.ends("b", 1)
    assert life.says("FLOW a RETRY 1") == "1 tasks=2"
    assert life.running == ["b", "c"]
    life.ends("c")
    assert life.running == ["b"]
    life.ends("b")
    assert life.running == ["d"]


def test_attempts_of_a_task_are_one_turn() -> None:
    """retry= is not the end: neither of the task nor, for want of anything else, of the flow."""
    life = Life(["ADD name=a retry=fixed:1:10s 0 3 * * * a", "ADD name=b after=a @after b"])
    life.says("FLOW a RUN")
    life.ends("a", 1)
    assert life.row()["state"] == "running"
    life.wait(10)
    life.ends("a")
    assert life.running == ["b"]


def test_cancel_ends_what_waits_kills_what_runs_and_starts_no_more() -> None:
    """And says so in the run's LOG: a job that was killed and nobody knows why is a fault report."""
    life = Life()
    life.says("FLOW a RUN")
    life.ends("a")
    life.do(o.DropWorker("w", "cut"))
    decision = life.line("FLOW c CANCEL")
    assert decision.reply
    assert decision.reply.text == "1 cancelled"
    life.joins()
    kills = [line for _, line in life.pump() if line.startswith("KILL")]
    assert kills == ["KILL 2 1", "KILL 3 1"]
    assert life.row()["state"] == "stopping"
    with pytest.raises(Refusal, match="is being cancelled"):
        life.says("FLOW a RETRY")
    life.killed()
    life.ends("b", 143)
    life.ends("c", 0)
    assert life.running == []
    assert (life.row()["state"], life.stands()["d"]) == ("cancelled", "waiting")
    assert life.says("FLOW #1 RETRY") == "1 tasks=3"
    assert life.running == ["b", "c"]


@pytest.mark.parametrize("verbs", [("RUN a", "CANCEL 1"), ("FLOW a RUN", "FLOW a CANCEL")])
@pytest.mark.parametrize("is_killed", [False, True])
def test_what_is_cancelled_while_it_is_told_that_its_time_is_up_is_not_tried_again(
    verbs: tuple[str, str], is_killed: bool
) -> None:
    """CANCEL answered OK and changed nothing, and retry= went on; a flow that was cancelled never ended."""
    life = Life(["ADD name=a retry=fixed:3:10s timeout=20s @daily a", "ADD name=b after=a @after b"])
    life.line(verbs[0])
    life.wait(20)
    assert life.state.runs[1].ends_as == "timeout"
    life.says(verbs[1])
    if is_killed:
        life.killed()
    life.do(o.ReportEnded("w", 1, 1, 143, {}))
    life.wait(60)
    assert not life.state.runs
    assert not life.state.flows.active
    assert [(row.run, row.state) for row in life.state.recent if row.run] == [(1, "cancelled")]


def test_one_at_a_time() -> None:
    """Two runs of one flow would mix their results, and nobody could tell whose they are."""
    life = Life()
    life.says("FLOW a RUN")
    for line in ("FLOW d RUN", "FLOW #1 RETRY"):
        with pytest.raises(Refusal, match="flow run 1"):
            life.says(line)
    life.says("FLOW a CANCEL")
    life.ends("a", 143)
    assert life.says("FLOW a RUN") == "2 tasks=4"
    with pytest.raises(Refusal, match="flow run 2 of these tasks is under way"):
        life.says("FLOW a RETRY 1")


def test_a_pause_holds_it_where_it_is_and_is_one_change() -> None:
    """It goes on by itself when the pause is over, whoever ends it: RESUME, UNDO or the time."""
    for line in ("FLOW b RESUME", "UNDO", "RESUME all", ""):
        life = Life()
        life.says("FLOW a RUN")
        assert life.says('FLOW a PAUSE until="in 5 minutes"') == "4 paused"
        life.ends("a")
        assert (life.running, life.row()["state"]) == ([], "paused")
        life.killed()
        assert (life.running, life.row()["state"]) == ([], "paused")
        if line:
            life.says(line)
        else:
            life.wait(301)
        assert life.running == ["b", "c"], line


def test_a_task_that_is_removed_leaves_it_and_nobody_waits_for_it() -> None:
    """As after= has it everywhere: with force=yes those behind it wait for it no longer."""
    life = Life()
    life.says("FLOW a RUN")
    life.ends("a")
    life.ends("c")
    life.do(o.DropWorker("w", "cut"))
    life.says("REMOVE b force=yes")  # it runs on, and is waited for, though not by d
    assert "d" in [life.state.runs[run].spec.name for run in life.state.tasks[4].runs]
    life.joins()
    life.pump()
    life.ends("d")
    assert life.row("d")["state"] == "running"
    life.do(o.ReportEnded("w", 2, 1, 0, {}))
    life.pump()
    assert (life.row("d")["state"], life.row("d")["tasks"]) == ("ok", 4)


def test_a_task_that_is_removed_before_its_turn_is_of_it_no_longer() -> None:
    """Nor does RETRY look for it."""
    life = Life()
    life.says("FLOW a RUN")
    life.says("REMOVE b force=yes")
    life.ends("a")
    life.ends("c")
    life.ends("d")
    assert (life.row()["state"], life.row()["tasks"]) == ("ok", 3)


def test_retry_of_what_is_gone_is_of_what_is_left() -> None:
    """Or it would wait for ever for the turn of a task that is not there."""
    life = Life()
    life.says("FLOW a RUN")
    life.says("FLOW a CANCEL")
    life.ends("a", 143)
    life.says("REMOVE b force=yes")
    assert life.says("FLOW #1 RETRY") == "1 tasks=3"
    for name in ("a", "c", "d"):
        life.ends(name)
    assert (life.row()["state"], life.row()["tasks"]) == ("ok", 3)


def test_what_runs_by_hand_counts_for_no_bound() -> None:
    """As RUN: count= is about what the schedule brings."""
    life = Life(["ADD name=a count=1 0 3 * * * a", "ADD name=b count=1 after=a @after b"])
    life.says("FLOW a RUN")
    life.ends("a")
    life.ends("b")
    assert [task.fired for task in life.state.tasks.values()] == [0, 0]
    assert life.row()["state"] == "ok"


def test_what_is_defined_anew_keeps_its_place() -> None:
    """ADD replace=yes is how deploy scripts say it; a run under way goes on by the new words."""
    life = Life()
    life.says("FLOW a RUN")
    life.says("ADD replace=yes name=d after=a @after d2")
    life.ends("a")
    assert life.running == ["b", "c", "d"]


def test_a_moment_that_waits_for_the_same_is_its_turn() -> None:
    """The nightly report waits for a load that failed; whoever runs the flow by hand wants that one, once."""
    life = Life(["ADD name=a 0 3 * * * a", "ADD name=d after=a 0 13 * * * d"])
    life.wait(3600 + 1)
    assert [run.state for run in life.state.runs.values()] == ["awaiting"]
    life.says("FLOW a RUN")
    life.ends("a")
    assert [(run.id, run.flow, run.state) for run in life.state.runs.values()] == [(1, 1, "sent")]
    life.ends("d")
    assert (life.row()["state"], life.running) == ("ok", [])


def test_what_runs_beside_it_is_not_of_it() -> None:
    """A RUN of one task, or its own moment, says nothing of the flow; overlap= decides between the two."""
    life = Life(["ADD name=a overlap=allow 0 3 * * * a", "ADD name=b after=a overlap=allow @after b"])
    life.says("RUN a")
    life.says("FLOW a RUN")
    life.ends("a")  # the first, by hand: @after follows as always
    assert sorted((run.spec.name, run.flow) for run in life.state.runs.values()) == [("a", 1), ("b", 0)]
    life.ends("a")
    assert sorted((run.spec.name, run.flow) for run in life.state.runs.values()) == [("b", 0), ("b", 1)]


def test_what_failed_beside_it_is_judged_when_its_own_run_ends() -> None:
    """That could still have mended it, and does not: the skipped fire is told now, and not at some time."""
    life = Life(["ADD name=a overlap=allow 0 3 * * * a", "ADD name=b after=a overlap=allow @after b"])
    life.says("RUN a")
    life.says("FLOW a RUN")
    life.ends("a", 1)  # the one by hand
    assert life.state.tasks[2].heard
    life.ends("a")
    assert life.state.tasks[2].heard is None
    assert [(end.task_id, end.state) for end in life.state.recent] == [
        (1, "failed"),
        (1, "ok"),
        (2, "skipped"),
    ]
    assert [(run.spec.name, run.flow) for run in life.state.runs.values()] == [("b", 1)]


def test_what_overlap_lets_not_in_is_told() -> None:
    """At once, where it is the first task; in its place, where it is another."""
    life = Life()
    life.says("RUN a")
    with pytest.raises(Refusal, match="a: overlap: run 1 is still sent"):
        life.says("FLOW d RUN")
    life.ends("a")  # b and c follow, as always
    life.says("FLOW d RUN")
    life.ends("a")
    assert life.stands() == {"a": "ok", "b": "skipped", "c": "skipped", "d": "skipped"}
    assert life.row()["state"] == "failed"
    assert life.state.tasks[4].due_at  # its own moment is still to come


def test_a_worker_that_has_a_run_still_is_left_out_as_run_leaves_it_out() -> None:
    """A machine that is shut off kept the flow from all others for up to grace=."""
    life = Life(["ADD name=a on=all 0 3 * * * a", "ADD name=b after=a @after b"])
    life.do(o.JoinWorker("v", 9, {}, ("shell",), "there", ()))
    life.do(o.DropWorker("v", "cut", 0))
    life.says("RUN a")
    life.do(o.ReportEnded("w", 2, 1, 0, {}))
    assert life.says("FLOW b RUN") == "1 tasks=2"
    assert [run.target for run in life.state.runs.values() if run.flow] == ["w"]
    told = [in_words(text) for _, text in life.state.outputs[3].lines]
    assert told == ["flow run 1", "not on v: overlap: run 1 is still queued"]
    life.do(o.ReportEnded("w", 3, 1, 0, {}))
    life.pump()
    assert life.stands() == {"a": "ok", "b": "running"}
    with pytest.raises(Refusal, match="is under way"):
        life.says("FLOW b RUN")


def test_with_on_all_a_task_has_ended_when_its_last_run_has() -> None:
    """And one failure among them is its failure, whichever came last."""
    life = Life(["ADD name=a on=all 0 3 * * * a", "ADD name=b after=a @after b"])
    life.do(o.JoinWorker("v", 9, {}, ("shell",), "there", ()))
    life.says("FLOW a RUN")
    assert len(life.state.runs) == 2
    life.do(o.ReportEnded("v", 1, 1, 1, {}))
    life.pump()
    assert life.row()["running"] == 1
    state = State("UTC")
    for fact in life.state.carry():
        state.apply(fact, life.now, 0)
    assert snapshot(state) == snapshot(life.state)
    life.ends("a")
    assert life.stands() == {"a": "failed", "b": "skipped"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("FLOW lone RUN", 'not-found "lone" is in no flow'),
        ("FLOW nobody RUN", 'not-found no task "nobody"'),
        ("FLOW a CANCEL", "not-found no flow run of a is known"),
        ("FLOW a CANCEL 7", "not-found no flow run 7 of a is known"),
        ("FLOW #7 RETRY", "not-found no flow run 7 is known"),
        ("FLOW #7 RUN", 'syntax "#7" is no task'),
        ("FLOW a STOP", 'syntax "STOP" is nothing that can be done with a flow; did you mean CANCEL?'),
        ("FLOW a RETRY x", '"x" is not the number of a run of a flow'),
        ("FLOW a RUN b", '"b" says nothing there'),
        ("FLOW a RUN day=monday", '"day=" is not arg.NAME='),
        ("FLOW a PAUSE arg.x=1", 'there is no option "arg.x" here; known: until, why'),
        ("PAUSE a flow=a", "flow= alone chooses"),
    ],
)
def test_a_refusal_says_what_was_wrong_and_changes_nothing(line: str, message: str) -> None:
    life = Life([*DIAMOND, "ADD name=lone 0 3 * * * lone"])
    before = len(life.journal)
    with pytest.raises(Refusal) as refused:
        life.line(line)
    assert message in str(refused.value)
    assert len(life.journal) == before


def test_looking_at_flows_changes_nothing_and_the_rest_does() -> None:
    """Only what looks may be the unfinished last line of a script, and has a header for people."""
    looking = [
        "FLOW",
        "FLOW list",
        "FLOW a",
        "flow a runs limit=3",
        "FLOW #3",
        "FLOW a HEAD=yes",
        "TEMPLATE LIST",
    ]
    assert all(map(only_reads, looking))
    changing = ["FLOW a RUN", "FLOW a RETRY 1", "flow a pause why=x", "FLOW #3 cancel", "TEMPLATE REMOVE x"]
    assert not any(map(only_reads, changing))
    assert not VERBS["FLOW"].reads


def test_tasks_are_shown_behind_those_they_wait_for() -> None:
    """Read from above, it is what will happen."""
    life = Life(["ADD name=z 0 3 * * * z", "ADD name=y 0 3 * * * y", "ADD name=x after=y @after x"])
    life.says("SET z after=x")
    rows = list(flows.show_flow(life.state, q.ShowFlow("z"), life.now).rows)
    assert [row[1] for row in rows if row] == ["y", "x", "z"]
    assert [row and row[:3] for row in flows.list_flows(life.state).rows if row] == [(2, "y", 3)]


def test_why_and_the_log_say_whose_run_it_is() -> None:
    """Who finds a run of last night wants to know who wanted it."""
    life = Life()
    plan = finish(plan_flow(life.state, "a", life.now))
    life.do(o.StartFlow("a", {}, plan))
    life.pump()
    assert life.state.outputs[1].lines == [(0, {"code": "flow", "flow": 1})]
    found = why.Found(list(life.state.runs.values()), [])
    rows, _ = why.explain_found(life.state, life.state.tasks[1], life.now, found, [], why.Found([], []))
    assert rows[0][1] == "a had its turn in flow run 1"


def test_clear_lets_what_runs_end_and_the_flow_with_it() -> None:
    life = Life()
    life.says("FLOW a RUN")
    life.says("CLEAR")
    assert life.state.flows.active
    life.do(o.ReportEnded("w", 1, 1, 0, {}))
    life.pump()
    assert not life.state.flows.active
    assert snapshot(life.replay()) == snapshot(life.state)


def test_a_flow_of_thousands_goes_on_in_small_steps() -> None:
    """Everybody else has his turn in between: what one step looks at is bounded, whatever hangs together."""
    count = 2000
    life = Life(["ADD name=root 0 3 * * * root"])
    for number in range(count):
        life.line(f"ADD name=t{number} after=root @after true")
    plan = finish(plan_flow(life.state, "t7", life.now))
    assert calls_of(lambda: life.do(o.StartFlow("t7", {}, plan)), OURS) < count
    steps = small_steps(life)
    life.do(o.ReportEnded("w", 1, 1, 0, {}))
    assert steps + small_steps(life) > count
    assert calls_of(lambda: life.line("FLOW root CANCEL"), OURS) < count
    small_steps(life)
    for run in list(life.state.runs.values()):
        life.do(o.ReportEnded("w", run.id, 1, 143, {}))
    small_steps(life)
    assert life.row("root")["state"] == "cancelled"


def small_steps(life: Life) -> int:
    """Takes what is due, however many steps those are, each of which calls few functions."""
    steps, begun = 0, len(life.journal)
    while calls_of(lambda: next_in_flows(life.state, life.now), OURS) < 1500:
        if (step := life.engine.next_step(life.now)) is None:
            assert len(life.journal) - begun <= 3 * len(life.state.tasks)
            return steps
        assert calls_of(partial(life.do, step), OURS) < 1500
        steps += 1
    raise AssertionError("it looks at very many in one go")


def test_a_flow_has_at_most_so_many_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The record of its start names them all."""
    monkeypatch.setattr(engine_flows, "MAX_FLOW", 3)
    life = Life()
    with pytest.raises(Refusal, match="limit 4 tasks hang together there; a flow has at most 3"):
        life.says("FLOW a RUN")


def test_how_many_are_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flow each minute for years must not fill the memory; numbers are never given twice."""
    monkeypatch.setattr(flow_runs, "MAX_ENDED", 2)
    life = Life(["ADD name=a 0 3 * * * a", "ADD name=b after=a @after b"])
    for _ in range(4):
        life.says("FLOW a RUN")
        life.ends("a", 1)
    assert list(life.state.flows.ended) == [3, 4]
    monkeypatch.setattr(flow_runs, "MAX_MEMBERS", 3)
    life.says("FLOW a RUN")
    life.ends("a", 1)
    assert list(life.state.flows.ended) == [5]
    assert snapshot(life.replay())


CHAIN = ["ADD name=a 0 13 * * * a", "ADD name=b after=a @after b", "ADD name=c after=b @after c"]


def test_a_moment_of_the_task_that_starts_all_others_begins_a_run_of_the_flow() -> None:
    """The nightly chain has its row, and what failed of it is retried in the morning."""
    life = Life(CHAIN)
    life.wait(3600)
    assert (life.row()["state"], life.row()["who"], life.running) == ("running", "", ["a"])
    assert life.state.outputs[1].lines == [(0, {"code": "flow", "flow": 1})]
    life.ends("a")
    life.killed()
    life.ends("b", 1)
    assert (life.row()["state"], life.running) == ("failed", [])
    assert life.says("FLOW a RETRY") == "1 tasks=2"
    life.ends("b")
    life.ends("c")
    assert life.row()["state"] == "ok"


@pytest.mark.parametrize(
    "line",
    ["ADD name=d 0 14 * * * d", "ADD name=d after=a 0 14 * * * d", "ADD name=d @on deploy d"],
)
def test_where_several_start_it_no_moment_is_that_of_the_flow(line: str) -> None:
    """They would be runs of a part of it, at times of their own; everything goes on as always."""
    life = Life([*CHAIN, line])
    life.line("SET c after=b,d")
    life.wait(3600)
    life.ends("a")
    assert life.running == ["b"]
    assert not life.state.flows.active


def test_a_pause_meanwhile_holds_a_run_that_the_clock_began_too() -> None:
    """Who stops the nightly chain to look at something wants it to go on afterwards."""
    life = Life(CHAIN)
    life.wait(3600)
    life.says("FLOW c PAUSE")
    life.ends("a")
    assert (life.running, life.row()["state"]) == ([], "paused")
    life.says("FLOW c RESUME")
    assert life.running == ["b"]


def test_while_one_of_them_is_paused_no_moment_begins_it() -> None:
    """It would wait for that one for ever, and tomorrow's run for it; so all is as it always is."""
    life = Life(CHAIN)
    life.says("PAUSE b")
    life.wait(3600)
    life.ends("a")
    assert not life.state.flows.active
    assert life.state.tasks[2].counts == {"skipped": 1}


def test_in_a_run_that_the_clock_began_bounds_hold() -> None:
    """They are part of what the clock may start; RUN and FLOW RUN ask nobody."""
    life = Life([*CHAIN[:2], "ADD name=c after=b end=2030-01-01T12:30:00Z @after c"])
    life.wait(3600)
    life.ends("a")
    life.ends("b")
    assert life.stands() == {"a": "ok", "b": "ok", "c": "skipped"}
    life.says("FLOW a RETRY")
    assert life.running == ["c"]


def test_a_moment_that_comes_while_it_runs_goes_on_as_always() -> None:
    """One run of a flow at a time; but no moment is lost for that."""
    life = Life(["ADD name=a */10 * * * * a", "ADD name=b after=a overlap=allow @after b"])
    life.wait(600)
    life.ends("a")
    life.wait(600)
    life.ends("a")
    assert sorted((run.spec.name, run.flow) for run in life.state.runs.values()) == [("b", 0), ("b", 1)]


def test_an_event_begins_it_with_its_words() -> None:
    life = Life(["ADD name=a @on deploy a", *CHAIN[1:]])
    life.says("EMIT deploy REV=7")
    life.ends("a")
    assert [(run.flow, run.args) for run in life.state.runs.values()] == [(1, {"REV": "7"})]


def test_a_task_that_is_in_another_run_meanwhile_is_not_taken_into_an_older_one_again() -> None:
    """RETRY took it out of the run that waits for it, which then never went on nor ended."""
    life = Life(["ADD name=a @on e a", "ADD name=b after=a @after b", "ADD name=c after=b @after c"])
    life.says("FLOW a RUN")
    life.ends("a")
    life.ends("b")
    life.ends("c", 1)
    life.says("ADD name=x @on e x")
    life.says("SET c after=x")
    life.says("FLOW a RUN")
    life.ends("a")
    with pytest.raises(Refusal, match="flow run 2"):
        life.says("FLOW c RETRY 1")
    life.ends("b")
    assert life.stands(2) == {"a": "ok", "b": "ok"}


def test_what_follows_in_a_flow_and_is_refused_is_set_aside_alone() -> None:
    """A full disk had the next moment of some other task set aside; without one, it ended the daemon."""
    life = Life(["ADD name=a @on e a", "ADD name=b after=a @after b"])
    life.line("FLOW a RUN")
    back = life.engine.set_aside(life.engine.next_step(life.now))
    assert back
    assert life.pump() == []
    back()
    assert [line.split()[0] for _, line in life.pump()] == ["RUN"]
