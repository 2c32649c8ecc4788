"""Flows through random lives: tasks that wait for each other, run as one, whatever comes between."""

from __future__ import annotations

import contextlib
import os
from collections import Counter, defaultdict
from typing import Any

import orjson
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cronflowd.base.errors import Refusal
from cronflowd.engine import dependencies
from cronflowd.engine import orders as o
from cronflowd.engine.state import State
from tests.lib.engine_driver import Driver, snapshot

SCHEDULES = ["@after", "@after", "@after", "*/7 * * * *"]
LINES = [
    "RUN {}", "REMOVE {} force=yes", "SET {} after={}", "SET {} after={}", "SET {} after=", "SET {} name=x",
    "SET {} timeout=70s", "PAUSE {}", "RESUME {}", 'PAUSE all until="in 3 minutes"', "RESUME all", "UNDO 1",
    "UNDO 3",
]  # fmt: skip
OPTIONS = ["", "", "retry=fixed:1:20s", "overlap=queue1", "overlap=allow", "on=all", "overlap=replace"]


class FlowMachine(RuleBasedStateMachine):
    """The model: of each run of a flow, how every task of it ended last, read from the journal alone."""

    @initialize(
        sizes=st.lists(st.sets(st.integers(0, 7), max_size=3), min_size=3, max_size=8), data=st.data()
    )
    def start(self, sizes: list[set[int]], data: st.DataObject) -> None:
        self.driver = Driver()
        self.driver.do(o.StartDaemon("1", "UTC"))
        self.seen = 0
        self.stands: dict[int, dict[int, str]] = {}  # by flow run and task
        self.is_open: dict[int, bool] = {}
        self.runs: dict[int, set[int]] = defaultdict(set)  # that have not ended
        for number, picks in enumerate(sizes, 1):
            after = sorted({f"t{pick % number}" for pick in picks} - {"t0"}) if number > 1 else []
            options = data.draw(st.sampled_from(OPTIONS))
            schedule = data.draw(st.sampled_from(SCHEDULES if after else ["*/9 * * * *", "0 3 * * *"]))
            words = f"after={','.join(after)} " * bool(after) + options
            self.order(f"ADD name=t{number} {words} {schedule} job")
        self.worker_joins("w1")

    def order(self, line: str) -> None:
        with contextlib.suppress(Refusal):
            self.driver.line(line)
        self.driver.pump()
        self.read()

    def some(self, pick: int) -> str:
        names = [task.name for task in self.driver.state.tasks.values()] or ["t1"]
        return names[pick % len(names)]

    @rule(pick=st.integers(0, 9), verb=st.sampled_from(["RUN", "RUN", "RETRY", "RETRY", "CANCEL"]))
    def about_a_flow(self, pick: int, verb: str) -> None:
        self.order(f"FLOW {self.some(pick)} {verb}")

    @rule(number=st.integers(1, 4), verb=st.sampled_from(["RETRY", "CANCEL"]))
    def about_a_run_of_it(self, number: int, verb: str) -> None:
        self.order(f"FLOW #{number} {verb}")

    @rule(
        pick=st.integers(0, 9),
        words=st.sampled_from(["PAUSE", 'PAUSE until="in 3 minutes"', "RESUME", "RESUME"]),
    )
    def pause(self, pick: int, words: str) -> None:
        self.order(f"FLOW {self.some(pick)} {words}")

    @rule(
        line=st.sampled_from(LINES),
        one=st.integers(0, 9),
        other=st.integers(0, 9),
    )
    def about_a_task(self, line: str, one: int, other: int) -> None:
        self.order(line.format(self.some(one), self.some(other)))

    @rule(pick=st.integers(0, 30))
    def cancel_a_run(self, pick: int) -> None:
        if runs := list(self.driver.state.runs):
            self.order(f"CANCEL {runs[pick % len(runs)]}")

    @rule(seconds=st.sampled_from([1, 31, 61, 200, 700]))
    def wait(self, seconds: float) -> None:
        self.driver.wait(seconds)
        self.read()

    @rule(name=st.sampled_from(["w1", "w2"]))
    def worker_joins(self, name: str) -> None:
        held = [(run.id, run.attempt) for run in self.driver.state.runs.values() if run.worker == name]
        self.driver.do(o.JoinWorker(name, 5, {}, ("shell",), "test", tuple(held)))
        self.driver.pump()

    @rule(name=st.sampled_from(["w1", "w2"]))
    def worker_leaves(self, name: str) -> None:
        if (worker := self.driver.state.workers.get(name)) and worker.connected:
            self.driver.do(o.DropWorker(name, "cut"))

    @rule(pick=st.integers(0, 30), status=st.sampled_from([0, 0, 0, 0, 1]))
    def report(self, pick: int, status: int) -> None:
        held = [run for run in self.driver.state.runs.values() if run.worker]
        if held:
            run = held[pick % len(held)]
            assert run.worker
            self.driver.do(o.ReportEnded(run.worker, run.id, run.attempt, status, {}))
            self.driver.pump()
            self.read()

    @rule()
    def crash_and_replay(self) -> None:
        again = self.driver.replay()
        assert snapshot(again) == snapshot(self.driver.state)
        self.driver.restart()
        self.driver.pump()
        self.read()

    @rule()
    def crash_behind_a_checkpoint(self) -> None:
        """The state told as facts is the same state, and goes on in the same way."""
        state = State("UTC")
        for fact in self.driver.state.carry():
            state.apply(fact, self.driver.now, 0)
        assert [each for each in snapshot(state) if "Flow" in type(each).__name__] == [
            each for each in snapshot(self.driver.state) if "Flow" in type(each).__name__
        ]
        assert state.flows.fresh or not state.flows.active
        self.driver.take_over(state)
        self.driver.pump()
        self.driver.take_over(self.driver.replay())  # memory's history is the journal's again
        self.driver.pump()
        self.read()

    def read(self) -> None:
        """What the journal says of runs of flows since the last look, held against the promises."""
        for line in self.driver.journal[self.seen :]:
            self.take(orjson.loads(line))
        self.seen = len(self.driver.journal)

    def take(self, record: dict[str, Any]) -> None:
        flow, task = record.get("flow", 0), record.get("task")
        match record:
            case {"fact": "FlowStarted", "tasks": tasks}:
                assert flow == len(self.stands) + 1
                self.stands[flow], self.is_open[flow] = dict.fromkeys(tasks, "waiting"), True
            case {"fact": "FlowRetried", "tasks": tasks}:
                bad = {each for each, how in self.stands[flow].items() if how not in ("ok", "running")}
                assert set(tasks) <= bad, "what ended well has another turn"
                self.stands[flow] |= dict.fromkeys(tasks, "waiting")
                self.is_open[flow] = True
            case {"fact": "FlowEnded"}:
                assert self.is_open[flow], "it ended twice"
                assert not self.runs[flow], "it ended while something of it ran"
                self.is_open[flow] = False
            case {"fact": "RunQueued"} if flow:
                self.begins(flow, task, record["run"], record.get("target", ""))
            case {"fact": "RunAdmitted"} if flow:
                run = self.driver.state.runs.get(record["run"])
                self.begins(flow, run.task_id if run else None, record["run"], run.target if run else "")
            case {"fact": "FiresPassed"} if flow:
                assert self.stands[flow][task] == "waiting"
                self.stands[flow][task] = record["state"]
            case {"fact": "RunEnded", "final": True} if flow:
                self.runs[flow].discard(record["run"])
                word = (
                    record["state"]
                    if self.stands[flow][task] in ("running", "ok")
                    else self.stands[flow][task]
                )
                self.stands[flow][task] = word

    def begins(self, flow: int, task: int | None, run: int, target: str) -> None:
        self.runs[flow].add(run)
        assert self.is_open[flow], "it begins behind the end"
        if task is not None:
            was = self.stands[flow].get(task)
            here = self.driver.state.tasks.get(task)
            assert not (here and self.driver.state.is_paused(here, self.driver.now)), "it is paused"
            assert was == "waiting" or (target and was == "running"), f"task {task} runs twice: {was}"
            self.stands[flow][task] = "running"

    @invariant()
    def nothing_begins_before_what_it_waits_for(self) -> None:
        """A task that had its turn has behind it, or had then, only what ended well."""
        flows, state = self.driver.state.flows, self.driver.state
        for flow in flows.active.values():
            for task_id, member in flow.members.items():
                task = state.tasks.get(task_id)
                if task is None or member.state != "running" or task.rev > 1:
                    continue
                before = [flow.members.get(state.names.get(name) or 0) for name in task.spec.options.after]
                assert all(each is None or each.state == "ok" for each in before), task.name

    @invariant()
    def whose_turn_has_come_has_it(self) -> None:
        """Whoever waits does so for a pause, or for somebody who has yet to end."""
        flows, state = self.driver.state.flows, self.driver.state
        for flow in flows.active.values():
            for task_id in () if flow.stopping else flow.members:
                member, task = flow.members[task_id], state.tasks.get(task_id)
                if member.state == "waiting" and task_id not in flows.held:
                    assert task, "it is gone"
                    before = [
                        flow.members.get(state.names.get(name) or 0) for name in task.spec.options.after
                    ]
                    words = {each.state for each in before if each}
                    assert words <= {"ok", "waiting", "running"}
                    assert words & {"waiting", "running"}

    @invariant()
    def counts_are_those_of_its_tasks(self) -> None:
        for flow in self.driver.state.flows.newest_first():
            assert +flow.counts == Counter(member.state for member in flow.members.values())

    @invariant()
    def it_ends_when_nothing_of_it_can_follow(self) -> None:
        """Nothing of it runs, and nothing is held by a pause: then it is over, and only then."""
        flows = self.driver.state.flows
        assert not flows.todo
        for number, flow in flows.active.items():
            held = [task_id for task_id in flow.members if task_id in flows.held]
            assert flow.counts["running"] or held, f"flow run {number} goes on for ever"
        assert {number for number, is_open in self.is_open.items() if is_open} == set(flows.active)
        for task_id in flows.held:
            assert self.driver.state.is_paused(self.driver.state.tasks[task_id], self.driver.now)

    @invariant()
    def nothing_is_left_unjudged(self) -> None:
        """What follows from what was heard has followed; of any task, in a run of a flow or not."""
        state = self.driver.state
        for task in state.tasks.values():
            assert task.id in state.to_judge or dependencies._judge(state, task) is None, task.name

    @invariant()
    def no_task_is_of_two(self) -> None:
        flows = self.driver.state.flows
        for flow in flows.active.values():
            assert all(flows.of[task_id] == flow.number for task_id in flow.members)
        assert not self.driver.state.ledger.balance(self.driver.state.runs.values()).trouble


FlowMachine.TestCase.settings = settings(
    max_examples=int(os.environ.get("CRONFLOWD_EXAMPLES", "60")),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
test_random_flows_keep_every_promise = FlowMachine.TestCase
