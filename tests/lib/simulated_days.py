"""Whole days in the life of a daemon, its clients and its workers, played in virtual time.

A `Life` is one engine with its journal, a few workers that do what workers do (run, fail,
die, come back naming all or nothing, report late or twice), clients that give orders, a
clock that is set, and an operator who restarts the daemon. All of it comes from one seed,
and each task and worker draws from numbers of its own, so that a life without one of its
tasks goes on much as before: that is how a failing one is made small.

`Ledger` keeps a second account from the facts alone, and compares.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from random import Random
from typing import Any

from attrs import Factory, define

from cronflowd.base.errors import Refusal
from cronflowd.engine import encoding
from cronflowd.engine import facts as f
from cronflowd.engine import orders as o
from cronflowd.engine.dependencies import standing
from cronflowd.engine.lanes import HANDICAP
from cronflowd.engine.placement import accepts
from cronflowd.engine.rules import Decision
from cronflowd.engine.state import State
from cronflowd.schedules.calendars import Calendar
from cronflowd.tasks.task import ENDED, Run, Task
from tests.lib.engine_driver import Driver, snapshot

MAX_LOOKS = 100
DAY_S = 86_400.0
MINUTE_S, HOUR_S = 60.0, 3600.0
MAX_TASKS = 10
MOST_TIMES = 4  # so many times longer than asked for is a life at most, for the sake of what has not happened
MOST_ADDED = 20  # later ones are not left out to make a failure smaller
BIG_STEP_S = 3 * HOUR_S  # a clock set by more takes the new time: moments may come again
TICK = timedelta(milliseconds=1)
# Shortly before clocks change somewhere, or not.
BIRTHDAYS = [
    datetime(2030, *day, 9, tzinfo=UTC) for day in ((3, 30), (3, 9), (10, 26), (11, 2), (4, 6), (7, 1))
]
ZONES = ["UTC", "Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]
CALENDARS = {"file:off": Calendar({day.date() + timedelta(days=1): "closed" for day in BIRTHDAYS})}
SCHEDULES = [
    "*/10 * * * *", "*/20 1-4 * * *", "0 * * * *", "30 2 * * *", "5,35 * * * *", "15 */3 * * *", "0 0 * * *",
    "*/7 2 * * *", "@hourly", "@every 11m", "@every 2h", '"every 45 minutes"', '"daily at 2:30"', "@reboot",
    "30 1-3 * * *", "@on e",
]  # fmt: skip
OPTIONS = [
    ["", "", "overlap=queue1", "overlap=queue", "overlap=allow", "overlap=replace"],
    ["", "retry=fixed:2:30s", "retry=exp:4:5s:x3:10m:~20%"],
    ["", "lost=rerun"],
    ["", "catchup=all", "catchup=skip"],
    ["", "grace=2m", "grace=20m", "grace=6h", "grace=0s"],
    ["", "", "timeout=90s", "timeout=20m"],
    ["", "", "jitter=30s", "jitter=15m"],
    ["", "", "", "on=all", "on=w1", "on=label:site=a"],
    ["", "prio=low", "prio=high"],
]
BOUNDS = ["", "", "", "count=5", "spread=10m", "skip=file:off", "count=2 spread=3m"]
DURATIONS_S = [0.0, 0.0, 1.0, 5.0, 30.0, 90.0, 600.0, 2400.0, 9000.0]
STEPS_S = [-0.5, 0.7, -30.0, 61.0, -300.0, 900.0, -3600.0, 3600.0, 7300.0, -9000.0, 4 * HOUR_S, -5 * HOUR_S]
MANY_STEPS_S = [*STEPS_S, 30 * HOUR_S]
ORDERS = {
    "add": 3, "run": 6, "now": 3, "at": 2, "cancel": 4, "pause": 1, "resume": 2, "set": 2, "remove": 1,
    "drain": 1, "hup": 1, "checkpoint": 1, "emit": 3,
}  # fmt: skip

Action = Callable[[], None]


class Broken(AssertionError):
    """A promise was not kept."""


def must(kept: object, *why: object) -> None:
    if not kept:
        raise Broken(" ".join(map(_short, why)))


def _short(what: object) -> str:
    """Without the definition, which is long."""
    fields = "id name state due_at queued_at by attempt target delayed_until_at".split()
    if isinstance(what, Run | Task):
        values = [f"{name}={getattr(what, name)}" for name in fields if getattr(what, name, None)]
        return f"{type(what).__name__}({', '.join(values)} of {what.spec.record})"
    return str(what)


@define(eq=False)
class Worker:
    """A program far away: what it does, and what the daemon takes it for."""

    name: str
    label: str
    chance: Random
    slots: int = 2
    is_alive: bool = True
    is_linked: bool = False  # what is said arrives
    is_known: bool = False  # the daemon thinks that it is connected
    jobs: dict[tuple[int, int], int] = Factory(dict)  # what it runs, and the ticket of its end
    reports: dict[tuple[int, int], int] = Factory(dict)  # exits that were not acknowledged


class Ledger:
    """What the facts alone say became of every moment, and whether that can be true."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.due = 0
        self.era = 0  # a clock set by hours begins a new one: in each, a moment comes once
        self.fires: set[tuple[Any, ...]] = set()
        self.sent: set[tuple[int, int]] = set()
        self.era_of: dict[int, int] = {}  # by run: when it was queued
        self.ended: Counter[int] = Counter()
        self.orders: dict[str, int] = {}  # fire id as jobs see it: its run
        self.window: dict[int, datetime] = {}  # by task: its moments after this one are counted
        self.decided: Counter[int] = Counter()  # of them
        self.last: dict[int, datetime] = {}

    def see(self, decision: Decision, now: datetime) -> None:
        """After the facts of a decision have become true."""
        newest: dict[int, datetime] = {}
        moments: set[tuple[Any, ...]] = set()
        for fact in decision.facts:
            match fact:
                case f.RunQueued():
                    self._queued(fact, moments, newest)
                    if fact.worker:
                        self._sent(f.RunSent(fact.run, 1, fact.worker), now)
                case f.FiresPassed():
                    self._passed(fact, newest)
                case f.RunSent():
                    self._sent(fact, now)
                case f.RunEnded() if fact.final:
                    self.ended[fact.run] += 1
                    must(self.ended[fact.run] <= 1, "run", fact.run, "ended twice")
                case f.TaskAdded() | f.TaskChanged() | f.TaskRescheduled():
                    self._count_from(fact.id, fact.due_at, now)
                case f.ClockStepped() if abs(fact.by_s) > BIG_STEP_S:
                    self.era += 1
                    self.last.clear()
                case _:
                    pass
        self.last |= newest

    def _count_from(self, task_id: int, due_at: datetime | None, now: datetime) -> None:
        # A moment may be due already, after a suspend; and after a step back the next one is far.
        self.window[task_id] = due_at - TICK if due_at else now
        self.decided[task_id] = 0

    def _queued(self, fact: f.RunQueued, moments: set[tuple[Any, ...]], newest: dict[int, datetime]) -> None:
        self.due += 1
        self.era_of[fact.run] = self.era
        if fact.by == "manual":
            return
        # What others start has no moment of its own, so its run names it.
        which = fact.run if fact.by in ("after", "on") else fact.nth or 1
        fire = (self.era, fact.task, fact.due_at, which, fact.target)
        must(fire not in self.fires, "fired twice:", fire)
        self.fires.add(fire)
        if fact.by == "schedule":
            self._later(fact.task, fact.due_at, newest)
            # With on=all one moment is several runs.
            self.decided[fact.task] += fire[:4] not in moments
            moments.add(fire[:4])

    def _passed(self, fact: f.FiresPassed, newest: dict[int, datetime]) -> None:
        must(fact.count > 0, fact)
        self.due += fact.count
        task = self.state.tasks.get(fact.task)
        if task is None or task.spec.schedule.kind in ("cron", "every"):
            self.decided[fact.task] += fact.count
            self._later(fact.task, fact.first_due_at, newest)
            newest[fact.task] = max(fact.last_due_at, newest.get(fact.task, fact.last_due_at))

    def _later(self, task: int, due_at: datetime, newest: dict[int, datetime]) -> None:
        must(
            due_at >= self.last.get(task, due_at),
            "task",
            task,
            "decides",
            due_at,
            "after",
            self.last.get(task),
        )
        newest[task] = max(due_at, newest.get(task, due_at))

    def _sent(self, fact: f.RunSent, now: datetime) -> None:
        attempt = (fact.run, fact.attempt)
        must(attempt not in self.sent, attempt, "is sent twice")
        self.sent.add(attempt)
        state = self.state
        run, worker = state.runs[fact.run], state.workers[fact.worker]
        must(worker.connected, run, "goes to", worker, "which is away")
        must(len(worker.runs) <= worker.slots, worker.name, "has more runs than slots")
        must(accepts(worker, run.spec.work, run.on), worker, "was not asked for by", run)
        self._check_overlap(run)
        grace = timedelta(seconds=max(run.spec.options.grace_s, 1.0))
        must(now - state.set_by < run.queued_at + grace, run, "starts later than its grace at", now)
        for other in state.runs.values():
            if other.state == "queued" and accepts(worker, other.spec.work, other.on):
                must(_place(run) <= _place(other), run, "passes", other)

    def _check_overlap(self, run: Run) -> None:
        task = self.state.tasks.get(run.task_id)
        for other in [self.state.runs[each] for each in task.runs] if task else []:
            is_one_at_a_time = "allow" not in (run.spec.options.overlap, other.spec.options.overlap)
            is_same = other is run or (bool(run.target) and other.due_at == run.due_at)
            # With on=all one worker is not kept by another's run.
            modes = {run.spec.options.overlap or "skip", other.spec.options.overlap or "skip"}
            is_same |= modes == {"skip"} and "" != run.target != other.target != ""
            if other.state in ("sent", "running") and not is_same and is_one_at_a_time:
                raise Broken(f"{_short(run)} and {_short(other)} at a time")

    def ordered(self, line: str, run: int) -> None:
        """The fire id that jobs see is that of one run."""
        fire = f"{self.era_of[run]} {next(word for word in line.split() if word.startswith('fire='))}"
        must(
            self.orders.setdefault(fire, run) == run, fire, "is that of run", self.orders[fire], "and of", run
        )

    def balance(self) -> None:
        """Due = ended + pending, and no moment of any schedule was passed over in silence."""
        state = self.state
        ended = sum(state.totals.values())
        must(set(state.totals) <= ENDED, state.totals)
        must(self.due == ended + len(state.runs), f"{self.due} due, {ended} ended, {len(state.runs)} pending")
        must(not state.runs.keys() & self.ended.keys(), "ended and pending")
        for task in state.tasks.values():
            if (
                task.spec.schedule.kind not in ("cron", "every")
                or task.due_at is None
                or task.id not in self.window
            ):
                continue
            upto = task.due_at - TICK
            should = task.spec.moments.count(self.window[task.id], upto, task.anchor_at) + task.decided
            found = self.decided[task.id]
            must(
                should == found,
                f"{_short(task)}: {should} moments since {self.window[task.id]}, {found} decided",
            )


def _place(run: Run) -> datetime:
    return run.queued_at + HANDICAP[run.spec.options.prio]


class Life(Driver):
    """One seed's daemon, and everybody around it."""

    def __init__(self, seed: str, without: frozenset[int] = frozenset()) -> None:
        super().__init__()
        self.seed = seed
        self.without = without  # numbers of tasks that are never added
        self.chance = Random(seed)
        self.now = self.chance.choice(BIRTHDAYS)
        self.steady_s = 0.0
        self.is_up = True
        self.started_s = 0.0
        self.added = 0
        self.starts: Counter[int] = Counter()
        self.figures: Counter[str] = Counter()
        self.story: list[str] = []  # for whoever reads a failure
        self._events: list[tuple[float, int, Action]] = []
        self._tickets = count(1)
        self._carried: list[f.Fact] = []
        self._carried_at = 0  # so many lines of the journal are in it
        self.state.calendars.known = dict(CALENDARS)
        self.ledger = Ledger(self.state)
        self.workers = {
            name: Worker(name, "ab"[number % 2], Random(f"{seed} {name}"))
            for number, name in enumerate(("w1", "w2", "w3"))
        }
        self.do(o.StartDaemon("1", "UTC"))
        for worker in self.workers.values():
            self.at(worker.chance.uniform(0, 60), self._returns(worker))
            self.at(worker.chance.expovariate(1 / (3 * HOUR_S)), self._mishap(worker))
        for _ in range(6):
            self._add()
        self.at(0, self._client)
        self.at(self._draw(30 * HOUR_S), self._clock_is_set)
        self.at(self._draw(14 * HOUR_S), self._daemon_dies)
        self.at(self._draw(40 * HOUR_S), self._machine_sleeps)

    def _draw(self, mean_s: float) -> float:
        return self.chance.expovariate(1 / mean_s)

    # --- time ---

    def at(self, delay_s: float, action: Action) -> int:
        """Has something happen so much later; half of what happens does so at a whole second, with others."""
        ticket = next(self._tickets)
        at_s = self.steady_s + delay_s
        heapq.heappush(self._events, (round(at_s) + 1.0 if ticket % 2 else round(at_s, 3), ticket, action))
        return ticket

    def _move(self, to_s: float) -> None:
        self.now += timedelta(milliseconds=round((to_s - self.steady_s) * 1000))
        self.steady_s = to_s

    def live(self, seconds: float) -> None:
        """All that happens within this time."""
        until_s = self.steady_s + seconds
        while self.steady_s < until_s:
            next_s = min(until_s, self._events[0][0] if self._events else until_s)
            if self.is_up:
                for _ in range(MAX_LOOKS):  # at what counts no more, some of it at each
                    self.pump()
                    if (due := self.engine.next_due()) is None or due > self.now:
                        break
                must(due is None or due > self.now, "something is due and not done:", due, self.now)
                if due is not None:
                    wait_ms = -((self.now - due) // TICK)  # up: the clock shows whole milliseconds
                    next_s = min(next_s, self.steady_s + wait_ms / 1000)
            self._move(max(self.steady_s, next_s))
            while self._events and self._events[0][0] <= self.steady_s:
                heapq.heappop(self._events)[2]()
                if self.is_up and self.chance.random() < 0.2:
                    self.pump()  # else all that comes at this instant is one batch
        if self.is_up:
            self.pump()

    # --- the daemon ---

    def do(self, order: Any) -> Decision:
        overdue = [] if isinstance(order, o.FireTasks) else self._overdue()
        decision = super().do(order)
        told = {fact.task for fact in decision.facts if isinstance(fact, f.FiresPassed | f.RunQueued)}
        for task_id in set(overdue) - told:
            task = self.state.tasks.get(task_id)
            is_still_due = task and task.due_at and task.due_at <= self.now
            must(is_still_due, "task", task_id, "lost a moment that had come, by", order)
        if decision.facts:
            self.ledger.see(decision, self.now)
        for fact in decision.facts:
            if isinstance(fact, f.RunEnded):
                self.figures[fact.state] += 1
            elif isinstance(fact, f.OutputReceived) and "late-report" in str(fact.lines[0][1]):
                self.figures["late"] += 1
        for worker, line in decision.messages:
            self._hears(self.workers[worker], line)
        return decision

    def _overdue(self) -> list[int]:
        """Tasks with a moment that has come and was not decided yet."""
        due = ((task, task.due_at) for task in self.state.tasks.values() if task.spec.schedule.kind != "at")
        return [task.id for task, due_at in due if due_at and due_at <= self.now]

    def order(self, line: str) -> bool:
        """What a client says; True when it was not refused."""
        try:
            self.line(line)
        except Refusal as refusal:
            self.tell(f"{line} -> {refusal}")
            return False
        self.tell(line)
        return True

    def tell(self, what: str) -> None:
        self.story.append(f"{self.now:%m-%d %H:%M:%S} {what}")

    def _daemon_dies(self) -> None:
        if self.steady_s < self.started_s + 1:  # the machine slept; nobody starts twice in a millisecond
            self.at(1, self._daemon_dies)
            return
        self.figures["restarts"] += 1
        self.is_up = False
        down_s = self.chance.choice([0.0, 1.0, 20.0, 400.0, 2 * HOUR_S, 9 * HOUR_S])
        self.tell(f"the daemon is killed, for {down_s} s")
        for worker in self.workers.values():
            worker.is_linked = worker.is_known = False
        self.at(down_s, self._daemon_starts)
        self.at(down_s + self._draw(14 * HOUR_S), self._daemon_dies)

    def _daemon_starts(self) -> None:
        self.tell("the daemon starts")
        self.is_up, self.started_s = True, self.steady_s
        self.take_over(self.same_again())
        self.ledger.state = self.state
        self.do(o.StartDaemon("1", "UTC"))
        for worker in self.workers.values():
            self.at(worker.chance.choice([0.0, 3.0, 25.0, 200.0]), self._returns(worker))

    def same_again(self) -> State:
        """The state as the last checkpoint and the journal since tell it; it must be the one there is."""
        state = State("UTC")
        state.calendars = self.state.calendars
        for fact in self._carried:
            state.apply(fact, self.now, self._carried_at)
        for line in self.journal[self._carried_at :]:
            seq, at, fact, _ = encoding.decode(line)
            state.apply(fact, at, seq)
        if (mine := snapshot(state)) != (live := snapshot(self.state)):
            other = [pair for pair in zip(mine, live, strict=False) if pair[0] != pair[1]]
            raise Broken(f"the journal gives another state: {other[:2]}")
        return state

    def checkpoint(self) -> None:
        """From here on, what was before is known from a checkpoint only."""
        if self.is_up:
            # As compaction does it: the facts of a state that was read back, not of the live one.
            self._carried = [_through_json(fact, self.now) for fact in self.same_again().carry()]
            self._carried_at = len(self.journal)

    def _clock_is_set(self) -> None:
        by_s = self.chance.choice(MANY_STEPS_S)
        self.figures["steps"] += 1
        self.tell(f"the clock is set by {by_s} s" + ("" if self.is_up else ", while no daemon runs"))
        self.now += timedelta(seconds=by_s)
        if self.is_up:
            self.do(o.NoticeStep(by_s))
        self.at(self._draw(30 * HOUR_S), self._clock_is_set)

    def _machine_sleeps(self) -> None:
        self.tell("the machine sleeps")
        self._move(self.steady_s + self.chance.choice([30.0, 2 * HOUR_S, 10 * HOUR_S]))
        self.at(self._draw(40 * HOUR_S), self._machine_sleeps)
        for _ in range(3 if self.is_up else 0):
            self._give_order()  # before anything that has become due is decided

    # --- clients ---

    def _client(self) -> None:
        self.at(self._draw(25 * MINUTE_S), self._client)
        if self.is_up:
            self._give_order()

    def _give_order(self) -> None:
        chance, tasks = self.chance, list(self.state.tasks)
        pick = chance.choice(tasks) if tasks else 1
        runs = list(self.state.runs) or [1]
        what = chance.choices(list(ORDERS), list(ORDERS.values()))[0]
        match what:
            case "add":
                self._add()
            case "run":
                self.order(f"RUN {pick}")
            case "emit":
                for _ in range(chance.randint(1, 3)):
                    self.order("EMIT e")
            case "now":
                self.order(f"NOW {self._options(chance, 0.2)} job")
            case "at":
                self.order(f'AT "in {chance.randint(1, 200)} minutes" {self._options(chance, 0.2)} job')
            case "cancel":
                self.order(f"CANCEL {chance.choice(runs)}")
            case "pause":
                until = chance.choice(["", 'until="in 3 hours"'])
                self.order(f"PAUSE {chance.choice([pick, pick, 'all'])} {until} why=tea")
            case "resume":
                self.order("RESUME all")
            case "set":
                self._set(pick)
            case "remove":
                self.order(f"REMOVE {pick} force=yes")
            case "drain":
                self._drain()
            case "hup":
                self.tell("HUP")
                self.do(o.RescheduleTasks())
            case "checkpoint":
                self.checkpoint()

    def _options(self, chance: Random, share: float) -> str:
        words = [chance.choice(words) for words in OPTIONS if chance.random() < share]
        return " ".join(filter(None, words))

    def _add(self) -> None:
        self.added += 1
        chance = Random(f"{self.seed} task {self.added}")
        if self.added in self.without or len(self.state.tasks) >= MAX_TASKS:
            return
        options = f"name=t{self.added} {self._options(chance, 0.7)} {chance.choice(BOUNDS)}"
        schedule = chance.choice(SCHEDULES)
        if chance.random() < 0.7:
            options += f" tz={chance.choice(ZONES)}"
        if others := [
            n for n in range(1, self.added) if f"t{n}" in self.state.names and chance.random() < 0.25
        ]:
            after = ",".join(f"t{n}" for n in others[:3])
            if chance.random() < 0.6:
                schedule = "@after"
            if self.order(f"ADD {options.replace('spread', 'jitter')} after={after} {schedule} job"):
                return
        self.order(f"ADD {options} {schedule} job")

    def _set(self, pick: int) -> None:
        chance = self.chance
        words = self._options(chance, 0.4)
        change = chance.choice(
            [f'schedule="{chance.choice(SCHEDULES[:9])}"', chance.choice(BOUNDS), words, words]
        )
        self.order(f"SET {pick} {change or 'count='}")

    def _drain(self) -> None:
        name = self.chance.choice(list(self.workers))
        if self.order(f"DRAIN {name}"):
            self.at(self._draw(HOUR_S), lambda: self.is_up and self.order(f"UNDRAIN {name}") and None)

    # --- workers ---

    def _returns(self, worker: Worker) -> Action:
        def returns() -> None:
            if not self.is_up or worker.is_linked:
                return
            worker.is_alive = worker.is_linked = worker.is_known = True
            if worker.chance.random() < 0.2:
                worker.slots = worker.chance.randint(1, 4)
            held = sorted(worker.jobs.keys() | worker.reports.keys())
            if worker.chance.random() < 0.1:
                held = [each for each in held if worker.chance.random() < 0.5]  # a spool on a bad disk
            self.tell(f"{worker.name} joins, naming {held}")
            labels = {"site": worker.label}
            self.do(o.JoinWorker(worker.name, worker.slots, labels, ("shell",), "test", tuple(held)))
            self._reports(worker)

        return returns

    def _mishap(self, worker: Worker) -> Action:
        def mishap() -> None:
            chance = worker.chance
            self.at(chance.expovariate(1 / (3 * HOUR_S)), self._mishap(worker))
            if not (self.is_up and worker.is_linked):
                return
            self.figures["mishaps"] += 1
            worker.is_linked = False
            kind = chance.choice(["link", "link", "death", "death", "bye"])
            self.tell(f"{worker.name}: {kind}")
            if kind == "bye":
                self.do(o.DismissWorker(worker.name))
            if kind == "death":
                worker.is_alive = False
                worker.jobs.clear()
                if chance.random() < 0.2:
                    worker.reports.clear()  # its spool was on /tmp
            self.at(chance.choice([0.0, 0.0, 2.0, 29.0]), self._is_missed(worker))
            self.at(chance.choice([0.0, 1.0, 10.0, 35.0, 300.0, 5000.0]), self._returns(worker))

        return mishap

    def _is_missed(self, worker: Worker) -> Action:
        def missed() -> None:
            if self.is_up and worker.is_known and not worker.is_linked:
                worker.is_known = False
                self.do(o.DropWorker(worker.name, "cut"))

        return missed

    def _hears(self, worker: Worker, line: str) -> None:
        word, run_text, attempt_text, *_ = line.split()
        attempt = (int(run_text), int(attempt_text))
        if word == "RUN":
            must(worker.is_known, worker.name, "is not there and is told", line)
            self.ledger.ordered(line, attempt[0])
        if not worker.is_linked:
            return  # it never arrives
        if word == "RUN":
            self._takes(worker, attempt)
        elif word == "KILL":
            if attempt in worker.jobs and worker.chance.random() < 0.9:
                self._ends_later(worker, attempt, worker.chance.choice([0.0, 1.0, 5.0, 70.0]), 143)
        elif worker.chance.random() < 0.95:
            worker.reports.pop(attempt, None)  # else the ACK was lost, and it will be told again

    def _takes(self, worker: Worker, attempt: tuple[int, int]) -> None:
        self.figures["starts"] += 1
        self.starts[attempt[0]] += 1
        self.figures["reruns"] += self.starts[attempt[0]] > 1
        options = self.state.runs[attempt[0]].spec.options
        if options.lost == "fail" and not (options.retry and options.retry.times):
            must(self.starts[attempt[0]] == 1, "run", attempt[0], "starts twice")
        exit_code = worker.chance.choice([0, 0, 0, 0, 1])
        self._ends_later(worker, attempt, worker.chance.choice(DURATIONS_S), exit_code)
        if worker.chance.random() < 0.9:
            self.at(0, lambda: self._says(worker, o.ReportStarted(worker.name, *attempt)))

    def _says(self, worker: Worker, order: Any) -> None:
        if self.is_up and worker.is_linked:
            self.do(order)

    def _ends_later(self, worker: Worker, attempt: tuple[int, int], after_s: float, exit_code: int) -> None:
        def ends() -> None:
            if worker.jobs.get(attempt) == ticket:
                del worker.jobs[attempt]
                worker.reports[attempt] = exit_code
                self._reports(worker)

        ticket = self.at(after_s, ends)
        worker.jobs[attempt] = ticket

    def _reports(self, worker: Worker) -> None:
        for (run, attempt), exit_code in list(worker.reports.items()):
            if worker.chance.random() < 0.05:
                self._says(worker, o.ReportEnded(worker.name, run, attempt, exit_code, {}))
            self._says(worker, o.ReportEnded(worker.name, run, attempt, exit_code, {}))

    # --- what must be so at any time ---

    def check(self) -> None:
        """The promises that a look at the state can judge."""
        if not self.is_up:
            return
        self.ledger.balance()
        self.same_again()
        must(not self.state.to_judge, "not judged:", self.state.to_judge)
        for task in self.state.tasks.values():
            must(task.due_at is None or task.due_at > self.now, task, "is forgotten")
            waits, broken = standing(self.state, task)
            if any(self.state.runs[run].state == "awaiting" for run in task.runs):
                must(waits and not broken, task, "waits for what has come")
            must(not (task.is_used_up and task.due_at), task, "goes on though its count= is used up")
        for run in self.state.runs.values():
            self._check_way_on(run)

    def _check_way_on(self, run: Run) -> None:
        """Whatever a run waits for can still come."""
        state = self.state
        task = state.tasks.get(run.task_id)
        entry = (run.id, run.attempt)
        if run.state == "parked":
            must(
                task and any(state.runs[each].state != "parked" for each in task.runs),
                run,
                "is parked behind nobody",
            )
        elif run.state in ("delayed", "queued"):
            places = [run_id for _, run_id in state.delayed.heap] if run.state == "delayed" else []
            places += [
                run_id
                for works in state.lanes.heaps.values()
                for lane in works.values()
                for _, run_id, attempt in lane
                if (run_id, attempt) == entry
            ]
            must(run.id in places, run, "waits in no queue")
            must(run.on != "all", run, "waits for a worker that there cannot be")
        elif run.state in ("sent", "running") and run.lease_until_at is None:
            worker = self.workers[run.worker or ""]
            holds = entry in worker.jobs or entry in worker.reports or not worker.is_linked
            must(worker.is_known and holds, run, "is held by nobody and has no lease")
            times = run.spec.options.timeout_s
            must(not times or any(at[1] == run.id for at in state.timeouts.heap), run, "has no timeout")


def _through_json(fact: f.Fact, now: datetime) -> f.Fact:
    return encoding.decode(encoding.encode(1, now, fact, False))[2]


def days(
    seed: str,
    number: int,
    without: frozenset[int] = frozenset(),
    is_rich: Callable[[Life], bool] = lambda _: True,
) -> Iterator[Life]:
    """A life, after each of its days: so many, and more until enough has happened. Raises Broken."""
    life, day = Life(seed, without), 0
    while day < number or not (is_rich(life) or day == MOST_TIMES * number):
        day += 1
        try:
            life.live(DAY_S)
            life.check()
        except Exception as error:
            story = "\n  ".join(life.story[-25:])
            tail = "\n  ".join(line.decode() for line in life.journal[-8:])
            where = f"seed {seed!r} without {sorted(without)}, day {day}, {life.now}"
            raise Broken(f"{where}: {error!r}\n  {story}\n  {tail}") from error
        yield life
    _check_whole_journal(life)


def _check_whole_journal(life: Life) -> None:
    if life.is_up:
        must(snapshot(life.replay()) == snapshot(life.state), "the whole journal gives another state")


def smaller(seed: str, number: int, error: Broken) -> Broken:
    """The same failure with as few tasks as it takes."""
    without: frozenset[int] = frozenset()
    for task in range(MOST_ADDED, 0, -1):
        try:
            for _ in days(seed, number, without | {task}):
                pass
        except Broken as again:
            without, error = without | {task}, again
    return error
