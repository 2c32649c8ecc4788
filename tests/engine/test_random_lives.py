"""The engine through random lives: whatever happens, in whatever order, its promises hold."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cronflowd.base.errors import Refusal
from cronflowd.engine import orders as o
from cronflowd.engine.definitions import finish
from cronflowd.engine.dependencies import standing
from cronflowd.schedules.calendars import Calendar
from cronflowd.tasks import task as records
from cronflowd.tasks.task import ENDED, WAITING
from tests.lib.engine_driver import Driver, snapshot

SCHEDULES = ["* * * * *", "*/5 * * * *", "@every 90s", "0 13 * * *", "@reboot", "@on e"]
MODES = ["skip", "queue1", "queue", "allow", "replace"]


BOUNDS = ["", "", "on=all", "count=2", "jitter=20s", "spread=90s", "skip=file:off"]
BOUNDS += ["start=2030-01-01T12:03:00Z", "end=2030-01-01T12:06:00Z", "count=1 jitter=200s spread=7s"]


GENERAL = [
    "NOW job", "EMIT e", "EMIT e k=v",
    "TEMPLATE ADD t lost=rerun", "TEMPLATE ADD t overlap=queue", "TEMPLATE REMOVE t", "ADD from=t @on e job",
    "PAUSE all", "RESUME all", 'PAUSE all until="in 3 minutes"', "CLEAR",
    "AT 2030-01-01T12:07:00Z name=x job",
    "EXPECT pulse every=2m grace=30s", 'EXPECT pulse every="*/3 * * * *"', "BEAT pulse", "BEAT pulse fail",
    "FORGET pulse", "PAUSE name=*1", "RESUME name=task_?", "RUN name=*", "SET name=* timeout=90s",
    'SET name=task_* schedule="*/5 * * * *"', "REMOVE name=*2 force=yes",
]  # fmt: skip


class EngineMachine(RuleBasedStateMachine):
    """Random life of a daemon: whatever happens, the promises of protocol.md hold.

    The model is small: which attempts were sent to whom, and how each run ended.
    """

    @initialize()
    def start(self) -> None:
        self.driver = Driver()
        self.driver.state.calendars.known = {"file:off": Calendar({self.driver.now.date(): "closed"})}
        self.driver.do(o.StartDaemon("1", "UTC"))
        self.sent: Counter[tuple[int, int]] = Counter()
        self.holding: dict[str, set[tuple[int, int]]] = {}
        self.connected: set[str] = set()
        self.fired: Counter[tuple[int, object]] = Counter()
        self.ended: Counter[int] = Counter()
        self.ended_away: set[int] = set()  # runs whose task was gone then: UNDO brings it back without them
        self.seen = self.counted = 0
        self.account: Counter[str] = Counter()
        self.can_read_moon = True
        self.check_type = records._check_type
        records._check_type = self.check_again
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr("cronflowd.engine.hearing.TOLD_AT_ONCE", 1)
        for module in ("dependencies", "fires"):
            self.patch.setattr(f"cronflowd.engine.{module}.ENDED_AT_ONCE", 1)

    def teardown(self) -> None:
        records._check_type = self.check_type
        self.patch.undo()

    def check_again(self, options: records.Options) -> None:
        """What is tagged so is accepted today, and cannot be read tomorrow."""
        if "moon" in options.tags and not self.can_read_moon:
            raise Refusal("bad-option", "tags=: there is no moon")
        self.check_type(options)

    def took(self, messages: list[tuple[str, str]]) -> None:
        for worker, line in messages:
            words = line.split()
            if words[0] == "RUN":
                attempt = (int(words[1]), int(words[2]))
                self.sent[attempt] += 1
                assert self.can_read_moon or not line.endswith(":moon"), "it cannot be read, and was sent"
                assert worker in self.connected, "an order went to a worker that is not there"
                self.holding.setdefault(worker, set()).add(attempt)

    def order(self, line: str) -> None:
        with contextlib.suppress(Refusal):
            messages = self.driver.line(line).messages
            self.took([message for message in messages if not message[1].startswith("RUN ")])  # `pump` tells
        self.took(self.driver.pump())

    @rule(
        schedule=st.sampled_from(SCHEDULES),
        overlap=st.sampled_from(MODES),
        retry=st.sampled_from(["none", "fixed:1:5s"]),
        lost=st.sampled_from(["fail", "rerun"]),
        catchup=st.sampled_from(["once", "all", "skip"]),
        timeout=st.sampled_from(["none", "70s"]),
        bounds=st.sampled_from(BOUNDS),
    )
    def add(
        self, schedule: str, overlap: str, retry: str, lost: str, catchup: str, timeout: str, bounds: str
    ) -> None:
        if len(self.driver.state.tasks) < 6:
            options = f"overlap={overlap} retry={retry} lost={lost} catchup={catchup} timeout={timeout}"
            self.order(f"ADD {options} grace=5m {bounds} {schedule} job")

    @rule(
        schedule=st.sampled_from(["@after", "* * * * *"]), first=st.integers(0, 9), second=st.integers(0, 9)
    )
    def add_behind(self, schedule: str, first: int, second: int) -> None:
        if len(self.driver.state.tasks) < 6:
            after = f"{self.some_task(first)},{self.some_task(second)}"
            self.order(f"ADD after={after} overlap=queue1 {schedule} job")

    @rule(
        schedule=st.sampled_from(
            [*SCHEDULES, "after=1 @after", "after=1 * * * * *", "@at 2030-01-01T12:08:00Z"]
        ),
        mode=st.sampled_from(MODES),
        more=st.sampled_from(["", "retry=fixed:1:5s", "lost=rerun", "jitter=20s", "on=all", "count=2"]),
    )
    def add_of_moon(self, schedule: str, mode: str, more: str) -> None:
        if len(self.driver.state.tasks) < 6:
            self.order(f"ADD tags=moon overlap={mode} grace=5m {more} {schedule} moon")

    @rule()
    def zone_data_come_or_go(self) -> None:
        """HUP: what could be read cannot be any more, or can again."""
        self.can_read_moon = not self.can_read_moon
        finish(self.driver.state.parse_again())
        self.took(self.driver.do(o.RescheduleTasks()).messages)
        self.took(self.driver.pump())

    @rule(pick=st.integers(0, 9), other=st.integers(0, 9))
    def wait_for(self, pick: int, other: int) -> None:
        self.order(f"SET {self.some_task(pick)} after={self.some_task(other)}")

    @rule(pick=st.integers(0, 9), bounds=st.sampled_from(BOUNDS))
    def bound(self, pick: int, bounds: str) -> None:
        self.order(f"SET {self.some_task(pick)} {bounds or 'count='}")

    @rule(pick=st.integers(0, 9), mode=st.sampled_from([*MODES, "replace"]))
    def let_in(self, pick: int, mode: str) -> None:
        self.order(f"SET {self.some_task(pick)} overlap={mode}")

    @rule(pick=st.integers(0, 9), count=st.integers(2, 5))
    def run_often(self, pick: int, count: int) -> None:
        for _ in range(count):
            self.order(f"RUN {self.some_task(pick)}")

    @rule(pick=st.integers(0, 9), schedule=st.sampled_from(SCHEDULES))
    def change(self, pick: int, schedule: str) -> None:
        self.order(f'SET {self.some_task(pick)} schedule="{schedule}"')

    @rule(pick=st.integers(0, 9), verb=st.sampled_from(["REMOVE", "RUN", "RUN", "PAUSE", "RESUME"]))
    def about_a_task(self, pick: int, verb: str) -> None:
        self.order(f"{verb} {self.some_task(pick)}")

    @rule(line=st.sampled_from(GENERAL))
    def general(self, line: str) -> None:
        self.order(line)

    @rule(count=st.sampled_from([1, 1, 2, 5, 20]))
    def undo(self, count: int) -> None:
        self.order(f"UNDO {count}")

    @rule(pick=st.integers(0, 9))
    def remove_whatever(self, pick: int) -> None:
        self.order(f"REMOVE {self.some_task(pick)} force=yes")

    @rule(pick=st.integers(0, 9), name=st.sampled_from(["x", "y", "z"]))
    def rename(self, pick: int, name: str) -> None:
        self.order(f"SET {self.some_task(pick)} name={name}")

    @rule(pick=st.integers(0, 9))
    def cancel(self, pick: int) -> None:
        runs = list(self.driver.state.runs)
        if runs:
            self.order(f"CANCEL {runs[pick % len(runs)]}")

    def some_task(self, pick: int) -> int:
        tasks = list(self.driver.state.tasks) or [1]
        return tasks[pick % len(tasks)]

    @rule(seconds=st.sampled_from([0.5, 5, 31, 61, 125, 400]))
    def wait(self, seconds: float) -> None:
        self.took(self.driver.wait(seconds))

    @rule(name=st.sampled_from(["w1", "w2"]), slots=st.integers(1, 3), honest=st.booleans())
    def worker_joins(self, name: str, slots: int, honest: bool) -> None:
        held = self.holding.setdefault(name, set())
        if not honest:
            held.clear()  # it was killed, and its jobs are gone
        self.connected.add(name)
        order = o.JoinWorker(name, slots, {}, ("shell",), "test", tuple(sorted(held)))
        self.took(self.driver.do(order).messages)
        self.took(self.driver.pump())

    @precondition(lambda self: self.connected)
    @rule(pick=st.integers(0, 9))
    def worker_leaves(self, pick: int) -> None:
        name = sorted(self.connected)[pick % len(self.connected)]
        self.connected.discard(name)
        self.driver.do(o.DropWorker(name, "cut"))
        self.took(self.driver.pump())

    @precondition(lambda self: any(self.holding.get(name) for name in self.connected))
    @rule(pick=st.integers(0, 9), exit_code=st.sampled_from([0, 0, 1]), forget=st.booleans())
    def report(self, pick: int, exit_code: int, forget: bool) -> None:
        held = [(name, a) for name in sorted(self.connected) for a in sorted(self.holding.get(name, ()))]
        name, (run, attempt) = held[pick % len(held)]
        self.driver.do(o.ReportStarted(name, run, attempt))
        decision = self.driver.do(o.ReportEnded(name, run, attempt, exit_code, {}))
        assert (name, f"ACK {run} {attempt}") in decision.messages
        if forget:
            self.holding[name].discard((run, attempt))
        self.took(self.driver.pump())

    @rule()
    def crash_and_replay(self) -> None:
        """kill -9: memory is gone, the journal is read again, and gives what was there."""
        driver = self.driver
        again = driver.replay()  # of what can be read today
        again.calendars = driver.state.calendars
        assert snapshot(again) == snapshot(driver.state)
        driver.take_over(again)
        self.connected.clear()
        driver.do(o.StartDaemon("1", "UTC"))
        self.took(driver.pump())

    @rule()
    def checkpoint(self) -> None:
        """The state told as facts gives the same state, and the same decisions later."""
        state = type(self.driver.state)("UTC")
        for fact in self.driver.state.carry():
            state.apply(fact, self.driver.now, 0)
        assert snapshot(state) == snapshot(self.driver.state) or self.driver.state.workers

    @invariant()
    def no_attempt_is_sent_twice(self) -> None:
        assert all(times == 1 for times in self.sent.values()), self.sent

    @invariant()
    def no_worker_holds_more_than_its_slots(self) -> None:
        for worker in self.driver.state.workers.values():
            active = [run for run in self.driver.state.runs.values() if run.worker == worker.name]
            assert {run.id for run in active} == worker.runs

    @invariant()
    def every_run_ends_once_and_every_fire_is_accounted_for(self) -> None:
        state = self.driver.state
        for line in self.driver.journal[self.seen :]:
            if b'"fact":"RunEnded"' in line and b'"final":true' in line:
                record = orjson.loads(line)
                self.ended[record["run"]] += 1
                if record["task"] not in state.tasks:
                    self.ended_away.add(record["run"])
        self.seen = len(self.driver.journal)
        assert all(times == 1 for times in self.ended.values()), self.ended
        assert not (set(state.runs) & set(self.ended))
        assert len(self.ended) + len(state.runs) == state.next_run - 1
        assert set(state.totals) <= ENDED

    @invariant()
    def the_account_balances_and_is_that_of_the_journal(self) -> None:
        """PROVE after every step, and its numbers counted once more from the facts alone."""
        state = self.driver.state
        for line in self.driver.journal[self.counted :]:
            self.count(orjson.loads(line))
        self.counted = len(self.driver.journal)
        balance = state.ledger.balance(state.runs.values())
        assert balance.trouble == ""
        assert Counter({"due": balance.due, **balance.ends}) == self.account
        assert balance.pending == self.account["due"] - sum(state.totals.values())

    def count(self, record: dict[str, Any]) -> None:
        match record:
            case {"fact": "FiresPassed", "count": number, "state": state}:
                self.account["due"] += number
                self.account[state] += number
            case {"fact": "RunQueued"}:
                self.account["due"] += 1
            case {"fact": "RunEnded", "final": True, "state": state}:
                self.account[state] += 1

    @invariant()
    def a_task_fails_until_it_ends_well(self) -> None:
        """FAILED, told from all ends there were instead of from one end to the next."""
        state = self.driver.state
        for task in state.tasks.values():
            if "moon" in task.spec.options.tags:
                continue  # that one cannot be read is a failing, too, and no end
            rows = [row for row in state.recent if row.task_id == task.id and row.run not in state.runs]
            last = {row.run: row for row in rows if row.run}  # of a run, its last attempt
            ends = [row for row in rows if row.run is None or row is last[row.run]]
            ends = [row for row in ends if row.state not in ("cancelled", "skipped")]
            ends = [row for row in ends if row.run not in self.ended_away]
            good = max((number for number, row in enumerate(ends, 1) if row.state == "ok"), default=0)
            told = task.failure and (task.failure.since_at, task.failure.run, task.failure.state)
            bad = ends[good:]
            assert told == ((bad[0].ended_at, bad[-1].run, bad[-1].state) if bad else None)

    @invariant()
    def nothing_due_is_forgotten(self) -> None:
        """Whatever is due now has been decided; what is not has its place in the timer."""
        engine, state, now = self.driver.engine, self.driver.state, self.driver.now
        for task in state.tasks.values():
            assert task.due_at is None or task.due_at > now
        late_at = state.beats.late.first()
        assert state.is_all_paused(now) or late_at is None or late_at[0] > now
        if any(task.due_at for task in state.tasks.values()) or state.runs:
            due = engine.next_due()
            waiting = [run for run in state.runs.values() if run.state in ("delayed", "queued")]
            assert due is not None or not (waiting or any(t.due_at for t in state.tasks.values()))

    @invariant()
    def nobody_waits_for_what_has_come(self) -> None:
        """A run waits for its dependencies only while one of them is still to end."""
        state = self.driver.state
        assert not state.to_judge
        assert not state.news
        for task in state.tasks.values():
            assert all(state.find(name) for name in task.spec.options.after)
            waits, broken = standing(state, task)
            assert (
                not broken
                or waits
                or not task.heard
                or not any(state.runs[run].state == "awaiting" for run in task.runs)
            )
            if any(state.runs[run].state == "awaiting" for run in task.runs):
                assert waits
                assert not broken

    @invariant()
    def what_cannot_be_read_waits_for_nothing(self) -> None:
        """Not for a worker nor for anything else: such a run ends at once, and its task is told of."""
        state = self.driver.state
        assert not [run for run in state.runs.values() if run.spec.unread and run.state in WAITING]
        assert not state.untold
        assert set(state.unread) == {task.id for task in state.tasks.values() if task.spec.unread}

    @invariant()
    def count_is_kept(self) -> None:
        for task in self.driver.state.tasks.values():
            workers = len(self.driver.state.workers) if task.spec.options.on == "all" else 1
            assert 0 <= task.fired < (task.spec.options.count or 1) + max(1, workers)
            assert not (task.is_used_up and task.due_at)

    @invariant()
    def overlap_is_kept(self) -> None:
        for task in self.driver.state.tasks.values():
            if task.spec.options.overlap in ("skip", "queue1", "queue", "replace"):
                runs = [self.driver.state.runs[run] for run in task.runs]
                same = [run for run in runs if run.spec.options.overlap == task.spec.options.overlap]
                # With on=all, one fire is several runs.
                assert len({run.due_at for run in same if run.state != "parked"}) <= 1

    @invariant()
    def what_is_replaced_is_told_to_end(self) -> None:
        for task in self.driver.state.tasks.values():
            runs = [self.driver.state.runs[run] for run in task.runs]
            if runs and runs[-1].state == "parked" and runs[-1].spec.options.overlap == "replace":
                assert {run.state for run in runs if run.fire != runs[-1].fire} == {"stopping"}
            older = [run for run in runs if run.id < self.driver.state.replaced.get(task.id, 0)]
            assert {run.state for run in older} <= {"stopping"}


EngineMachine.TestCase.settings = settings(
    max_examples=int(os.environ.get("CRONFLOWD_EXAMPLES", "150")),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
test_random_lives_keep_every_promise = EngineMachine.TestCase
