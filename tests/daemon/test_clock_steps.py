"""A clock that is set, a machine that sleeps, a daemon that is started again: what becomes of the moments.

The core, the engine and the state are the real ones; the clock is moved by hand and the journal
is a list, which every start reads again. CRONFLOWD_EXAMPLES says how many random lives are tried.

What must hold: no moment of a task is decided twice, none goes unaccounted for, and none is
decided before its time. That is said of an *era*: a step back by more than three hours takes the
new time, so that moments come again, and begins the next one. Steps back by less belong to the
era they are in: the clock passes some times twice, and their moments must not come twice.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from attrs import define
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cronflowd.ask import commands
from cronflowd.base.errors import Refusal
from cronflowd.daemon.core import Core
from cronflowd.engine import facts as f
from cronflowd.engine import orders as o
from cronflowd.engine import slices
from cronflowd.engine.engine import BIG_STEP_S, Limits
from cronflowd.engine.state import State
from cronflowd.journal.journal import FileJournal
from cronflowd.net.outbox import Gate, Outbox
from cronflowd.net.workers import Link
from cronflowd.schedules.schedule import Schedule, parse_schedule
from cronflowd.tasks.reasons import reason
from tests.lib.core_driver import Reader
from tests.lib.harness import HandClock

START = datetime(2030, 3, 30, 20, 0, tzinfo=UTC)  # Paris changes its clocks at 1:00Z in the next night
HOUR = 3600
DAY = 24 * HOUR
TIMEOUT_S = 20 * 60
Row = tuple[datetime, datetime, datetime, int]  # when it was decided, the first moment, the last, how many
SCHEDULES = [
    "*/7 * * * *",
    "30 2 * * *",
    "*/20 1-4 * * *",
    "5 0,1,2,3,12 * * *",
    "@every 25m",
    "@at 2030-03-31T03:00:00Z",
    "@at 2030-04-02T00:00:00Z",
    '"every 45 minutes"',
    '"every weekday at 9:00"',
    '"every 2 days at 2:30"',
]


@define
class Era:
    """A stretch in which the clock was never taken for a new one."""

    begin_at: datetime
    latest_at: datetime  # that the clock has shown
    first: int  # the journal's first entry in it


@define
class Entry:
    """A fact as the journal has it, and what no journal knows: the steady time."""

    at: datetime
    steady_s: float
    fact: f.Fact


class ListJournal:
    """As much of a journal as the core needs. `full`: it takes nothing; or nothing with such a fact."""

    def __init__(self, clock: HandClock) -> None:
        self.clock = clock
        self.entries: list[Entry] = []
        self.full = False
        self.refuses: type[f.Fact] | None = None

    @property
    def last(self) -> int:
        return len(self.entries)

    def append(self, facts: Sequence[f.Fact], at: datetime) -> int:
        if self.full or (self.refuses and any(isinstance(fact, self.refuses) for fact in facts)):
            raise Refusal("disk-full", "no space left")
        self.entries += [Entry(at, self.clock.steady_s(), fact) for fact in facts]
        return len(self.entries)

    def flush(self) -> None:
        """There is no disk."""


class Life:
    """A daemon, the machine's clocks, and one worker that takes every run and never ends one.

    `slices` of what concerns all tasks are taken each time the daemon looks; None = as many as there are.
    """

    def __init__(self, slices: int | None = None) -> None:
        self.slices = slices
        self.clock = HandClock(START)
        self.journal = ListJournal(self.clock)
        self.eras = [Era(START, START, 0)]
        self.schedules: dict[int, Schedule] = {}
        self._start()

    def _start(self) -> None:
        state = State("UTC")
        for seq, entry in enumerate(self.journal.entries, 1):
            state.apply(entry.fact, entry.at, seq)
        self.core = Core(state, cast(FileJournal, self.journal), self.clock, Limits())
        self.core.submit(o.StartDaemon("1", "UTC"))
        self.core.links["w1"] = cast(Link, Reader())
        self.core.submit(o.JoinWorker("w1", 10_000, {}, ("shell",), "here", ()))
        self.look()

    def line(self, text: str) -> None:
        """A client's line, answered as part of a batch of its own."""
        self.core.submit(commands.parse(text, commands.Context(self.clock.now(), "UTC")))
        self.look()

    def look(self) -> None:
        """Decides whatever is due now, as after every batch."""
        left = sys.maxsize if self.slices is None else self.slices
        while self._decides_more() or (left > 0 and self.core.take_slice()):
            left -= 1
        era = self.eras[-1]
        era.latest_at = max(era.latest_at, self.clock.now())

    def _decides_more(self) -> bool:
        is_more = self.core._decide_due()
        self.core.committed(self.journal.last)  # or slices would wait for the disk
        return is_more

    # --- what can happen ---

    def wait(self, seconds: int) -> None:
        """Time passes, and the timer wakes the daemon whenever something is due."""
        until = self.clock.now() + timedelta(seconds=seconds)
        while (due := self.core.engine.next_due()) is not None and due <= until:
            self.clock.move(max(due, self.clock.now()))
            self.look()
        self.clock.move(until)
        self.look()

    def suspend(self, seconds: int) -> None:
        """The machine sleeps: both clocks go on, and nobody is awake to see it."""
        self.clock.move(self.clock.now() + timedelta(seconds=seconds))
        self.look()

    def step(self, seconds: int) -> None:
        """The clock is set. A client may be the first to notice."""
        self.set_clock(seconds)
        if seconds % 2:
            self.line("RESUME all")
        self.look()

    def set_clock(self, seconds: int) -> None:
        # A moment that the clock showed before its task's slice came, and is set back behind, is still to
        # come; the eras know only moments that were decided when they showed.
        slices, self.slices = self.slices, None
        self.look()
        self.slices = slices
        to = self.clock.now() + timedelta(seconds=seconds)
        self.clock.move(to, step=True)
        if seconds < -BIG_STEP_S and to < self.eras[-1].latest_at:
            self.eras.append(Era(to, to, len(self.journal.entries)))

    def sleep_and_step(self, seconds: int) -> None:
        """A machine sleeps, and its clock is set right when it wakes: one look sees both."""
        self.clock.move(self.clock.now() + timedelta(hours=6))
        self.step(seconds)

    def restart(self, seconds: int) -> None:
        """The daemon is down for so long."""
        self.clock.move(self.clock.now() + timedelta(seconds=seconds))
        self._start()

    def pause(self, seconds: int) -> None:
        """All tasks are paused for so long."""
        self.line("PAUSE all")
        self.wait(seconds)
        self.line("RESUME all")

    # --- what has happened ---

    def decided(self, task: int, era: int) -> list[Row]:
        """What was decided about a task's moments: when, the first, the last, how many."""
        rows = []
        end = self.eras[era + 1].first if era + 1 < len(self.eras) else None
        for entry in self.journal.entries[self.eras[era].first : end]:
            match entry.fact:
                case f.RunQueued(task=number, by="schedule") as fact if number == task:
                    rows.append((entry.at, fact.due_at, fact.due_at, 1))
                case f.FiresPassed(task=number) as fact if number == task:
                    rows.append((entry.at, fact.first_due_at, fact.last_due_at, fact.count))
        return rows


def moments(schedule: Schedule, after: datetime, upto: datetime) -> list[datetime]:
    """Every moment in (after, upto], by walking, which shares nothing with `Schedule.count`."""
    found: list[datetime] = []
    at = schedule.next_after(after, START)
    while at is not None and at <= upto:
        found.append(at)
        at = schedule.next_after(at, START)
    return found


SOME = st.integers(1, 5 * HOUR)
FAR = st.integers(3 * HOUR + 1, 2 * DAY)
NEAR = st.one_of(st.integers(1, 600), st.integers(600, 3 * HOUR))
HAPPENINGS = st.one_of(
    st.tuples(st.just("wait"), SOME),
    st.tuples(st.just("suspend"), st.one_of(SOME, FAR)),
    st.tuples(st.sampled_from(["step", "sleep_and_step"]), st.one_of(NEAR, FAR)),
    st.tuples(st.sampled_from(["step", "sleep_and_step"]), st.one_of(NEAR, FAR).map(lambda s: -s)),
    st.tuples(st.just("restart"), st.one_of(SOME, FAR)),
    st.tuples(st.just("pause"), SOME),
)
TASKS = st.tuples(
    st.sampled_from(SCHEDULES),
    st.sampled_from(["UTC", "Europe/Paris"]),
    st.sampled_from(["once", "all", "skip"]),
    st.sampled_from(["0", "10m", "1h", "2d"]),
    st.sampled_from(["allow", "skip"]),
)


def lived(
    tasks: list[tuple[str, str, str, str, str]], happenings: list[tuple[str, int]], slices: int | None = None
) -> Life:
    life = Life(slices)
    for schedule, tz, catchup, grace, overlap in tasks:
        options = f"tz={tz} catchup={catchup} grace={grace} overlap={overlap} timeout={TIMEOUT_S}"
        life.line(f"ADD {options} {schedule} job")
        life.schedules[len(life.schedules) + 1] = parse_schedule(schedule.strip('"'), tz)
    for what, seconds in happenings:
        getattr(life, what)(seconds)
    return life


@settings(max_examples=int(os.environ.get("CRONFLOWD_EXAMPLES", "300")))
@given(st.lists(TASKS, min_size=1, max_size=4), st.lists(HAPPENINGS, min_size=1, max_size=12))
def test_every_moment_is_decided_once_and_not_before_its_time(
    tasks: list[tuple[str, str, str, str, str]], happenings: list[tuple[str, int]]
) -> None:
    """This is what a scheduler is for; see the top of this file for what an era is."""
    life = lived(tasks, happenings)
    _check_moments(life)
    _check_timeouts(life)


@pytest.fixture
def _one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were very many tasks."""
    monkeypatch.setattr(slices, "AT_ONCE", 0)
    monkeypatch.setattr(slices, "SLICE", 1)


@settings(
    max_examples=int(os.environ.get("CRONFLOWD_EXAMPLES", "300")),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(TASKS, min_size=1, max_size=4),
    st.lists(HAPPENINGS, min_size=1, max_size=12),
    st.sampled_from([None, 1, 0]),
)
@pytest.mark.usefixtures("_one_by_one")
def test_slices_decide_every_moment_once_and_not_before_its_time(
    tasks: list[tuple[str, str, str, str, str]], happenings: list[tuple[str, int]], each_time: int | None
) -> None:
    """Millions of tasks are looked at again in many small steps, and what comes due meanwhile is not late."""
    life = lived(tasks, happenings, each_time)
    life.slices = None
    life.look()
    _check_moments(life)


def _check_moments(life: Life) -> None:
    for task, schedule in life.schedules.items():
        rows = [life.decided(task, number) for number in range(len(life.eras))]
        wanted = [moments(schedule, era.begin_at, era.latest_at) for era in life.eras]
        assert all(last <= at for era in rows for at, _, last, _ in era)
        if schedule.kind == "at":
            # Its one moment is decided in the first era that sees it, or has seen it already.
            was_seen = any(moments(schedule, START, era.latest_at) for era in life.eras)
            assert [count for era in rows for _, _, _, count in era] == [1] * was_seen
        else:
            assert [_stood_for(*each) for each in zip(rows, wanted, strict=True)] == wanted


def _stood_for(rows: list[Row], wanted: list[datetime]) -> list[datetime]:
    """The moments that an era's rows stand for, in their order; of each row as many as it says."""
    every = []
    for _, first, last, count in rows:
        found = [at for at in wanted if first <= at <= last]
        assert (found[0], found[-1], len(found)) == (first, last, count)
        every += found
    return every


def _check_timeouts(life: Life) -> None:
    """None came before its time: a clock set by hours must not end what has run for a minute."""
    sent_s: dict[int, float] = {}
    for entry in life.journal.entries:
        match entry.fact:
            case f.RunSent() as fact:
                sent_s[fact.run] = entry.steady_s
            case f.RunQueued(worker=str()) as fact:
                sent_s[fact.run] = entry.steady_s
            case f.RunStopping(why="timeout") as fact:
                assert entry.steady_s - sent_s[fact.run] >= TIMEOUT_S


# --- one by one ---------------------------------------------------------------------------


def facts(life: Life, *kinds: type[f.Fact]) -> list[f.Fact]:
    return [entry.fact for entry in life.journal.entries if isinstance(entry.fact, kinds)]


BOTH_WAYS = pytest.mark.parametrize("by_s", [-5 * HOUR, -HOUR, -1, 1, HOUR, 5 * HOUR])
MEASURED: dict[str, tuple[str, Any, int, str]] = {
    "timeout": ("NOW timeout=20m job", None, 1200, "RunStopping"),
    "lease": ("NOW job", o.DropWorker("w1", "cut"), 30, "RunEnded"),
    "kill": ("NOW job", o.CancelRun(1), 60, "RunEnded"),
    "retry": ("NOW retry=fixed:1:5m job", o.ReportEnded("w1", 1, 1, 1, {}), 300, "RunReleased"),
    "grace": ("NOW on=nobody grace=2h job", None, 7200, "RunEnded"),
    "grace of a retry": (
        "NOW on=w1 grace=30m retry=fixed:1:1s job",
        [o.DrainWorker("w1", True), o.ReportEnded("w1", 1, 1, 1, {})],
        1801,
        "RunEnded",
    ),
}


@BOTH_WAYS
@pytest.mark.parametrize("what", MEASURED)
def test_what_is_measured_takes_as_long_as_it_takes(what: str, by_s: int) -> None:
    """Whatever the clock shows: else a clock set right would kill what has run for a minute."""
    line, orders, seconds, kind = MEASURED[what]
    life = Life()
    life.line(line)
    for order in orders if isinstance(orders, list) else [orders] * (orders is not None):
        life.core.submit(order)
    life.wait(10)
    life.step(by_s)
    begin = len(life.journal.entries)
    life.wait(seconds - 11)
    assert kind not in [type(entry.fact).__name__ for entry in life.journal.entries[begin:]]
    life.wait(1)
    assert kind in [type(entry.fact).__name__ for entry in life.journal.entries[begin:]]


@BOTH_WAYS
def test_a_checkpoint_carries_what_was_moved(by_s: int) -> None:
    """A daemon that starts from it must not end a run earlier or later than this one would."""
    life = Life()
    life.line("NOW timeout=20m job")
    life.line("NOW job")
    life.core.submit(o.DropWorker("w1", "cut"))
    life.step(by_s)
    state, again = life.core.state, State("UTC")
    for fact in state.carry():
        again.apply(fact, life.clock.now())
    assert list(again.carry()) == list(state.carry())
    for name in ("timeouts", "leases"):
        firsts = [each.shown(getattr(each, name).first()[0]) for each in (state, again)]
        assert firsts[0] == firsts[1]
    assert (again.last_step_s, again.last_step_at) == (by_s, life.clock.now())


@pytest.mark.usefixtures("_one_by_one")
@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize(("slept", "due"), [(0, [19]), (8 * HOUR, [22]), (2 * HOUR, [17, 18])])
def test_what_shows_before_its_slice_is_due_though_all_is_looked_at_once_more(
    slept: int, due: list[int], restarts: bool
) -> None:
    """HUP, or one more setting of the clock, after it was set back: nobody ever decided what had shown."""
    life = Life(slices=0)
    life.line("ADD overlap=allow 0 * * * * job")
    life.wait(3 * HOUR + HOUR // 2)
    life.step(-5 * HOUR)  # to 18:30
    begin = len(life.journal.entries)
    life.wait(HOUR)  # 19:00 shows, and the task has yet to be looked at
    if slept:  # and the clock is set besides: one look sees both
        life.clock.move(life.clock.now() + timedelta(seconds=slept))
        life.clock.move(life.clock.now() - timedelta(hours=5), step=True)
        life.look()
    else:
        life.core.submit(o.RescheduleTasks())
    if restarts:
        state = State("UTC")
        for fact in life.core.state.carry():
            state.apply(fact, life.clock.now())
        assert list(state.carry()) == list(life.core.state.carry())
        life.restart(0)
    life.slices = None
    life.look()
    life.wait(2 * HOUR if slept == 2 * HOUR else 0)
    found = [entry.fact for entry in life.journal.entries[begin:]]
    assert [fact.due_at.hour for fact in found if isinstance(fact, f.RunQueued)] == due
    assert sum(fact.count for fact in found if isinstance(fact, f.FiresPassed)) == (
        3 if slept == 8 * HOUR else 0
    )


class Counting(dict[int, Any]):
    """A table that counts the rows that are looked at."""

    looks = 0

    def __getitem__(self, key: int) -> Any:
        self.looks += 1
        return super().__getitem__(key)

    def __iter__(self) -> Any:
        raise AssertionError("all rows were walked")

    keys = values = items = __iter__


def test_setting_the_clock_touches_no_run() -> None:
    """With 100,000 runs under way a laptop that woke up stood still for half a second."""
    life = Life()
    life.line("ADD name=a overlap=allow timeout=20m @every 1d job")
    for _ in range(50):
        life.line("RUN a")
    state = life.core.state
    state.runs = Counting(state.runs)
    life.core.submit(o.NoticeStep(3600.0))
    assert state.runs.looks == 0
    assert state.shown(state.runs[1].sent_at) == START + timedelta(hours=1)


@pytest.mark.parametrize("catchup", ["once", "all", "skip"])
def test_what_the_clock_is_set_forward_over_by_more_than_three_hours_is_missed(catchup: str) -> None:
    """Nobody was late; the time was wrong. So there is nothing to catch up, however patient the task."""
    life = Life()
    life.line(f"ADD name=a catchup={catchup} grace=2d 30 * * * * job")
    life.line(f"ADD name=b catchup={catchup} grace=2d @at 2030-03-30T21:00:00Z job")
    life.line(f"ADD name=c catchup={catchup} grace=2d 0 7 * * * job")
    state, why = "missed", (set_by := reason("clock-set", by_s=18_000))
    if catchup == "skip":
        life.line('PAUSE a why="it rests"')
        state, why = "skipped", reason("paused", text="it rests")
    begin = len(life.journal.entries)
    life.set_clock(5 * HOUR)
    life.look()
    half = timedelta(minutes=30)
    assert [entry.fact for entry in life.journal.entries[begin:]] == [
        f.ClockStepped(18000.0),
        f.FiresPassed(1, "a", state, START + half, START + 9 * half, 5, why, START + 11 * half),
        f.FiresPassed(2, "b", "missed", START + 2 * half, START + 2 * half, 1, set_by, None),
        f.TaskRemoved(2, "done"),
    ]


def test_three_hours_forward_are_caught_up_like_downtime() -> None:
    """A laptop whose clock was an hour slow runs what it did not run yet."""
    life = Life()
    life.line("ADD name=a @hourly job")
    life.set_clock(3 * HOUR)
    life.look()
    (missed,) = facts(life, f.FiresPassed)
    (queued,) = facts(life, f.RunQueued)
    assert isinstance(missed, f.FiresPassed)
    assert isinstance(queued, f.RunQueued)
    assert (missed.count, queued.due_at) == (2, START + timedelta(hours=3))


def test_a_suspend_is_no_step_and_is_caught_up_like_downtime() -> None:
    """For a machine that sleeps every night, yesterday's backup is still to be made."""
    life = Life()
    life.line("ADD name=backup grace=12h 0 2 * * * job")
    life.suspend(12 * HOUR)
    assert facts(life, f.ClockStepped) == []
    (queued,) = facts(life, f.RunQueued)
    assert isinstance(queued, f.RunQueued)
    assert queued.due_at == START + timedelta(hours=6)


@BOTH_WAYS
def test_whoever_looks_first_notices_and_nobody_a_second_time(by_s: int) -> None:
    """A client's order is decided at the new time, so by then the step must have been journaled."""
    life = Life()
    begin = len(life.journal.entries)
    life.clock.move(START + timedelta(seconds=by_s), step=True)
    life.line("NOW job")
    life.look()
    found = [entry.fact for entry in life.journal.entries[begin:]]
    assert found[0] == f.ClockStepped(float(by_s))
    assert [type(fact).__name__ for fact in found[1:]] == ["TaskAdded", "RunQueued"]
    assert life.core.state.last_step_at == START + timedelta(seconds=by_s)


@pytest.mark.parametrize(
    ("by_ms", "times", "steps"), [(199, 50, 0), (-199, 50, 0), (200, 1, 1), (-200, 1, 1)]
)
def test_small_differences_are_no_steps(by_ms: int, times: int, steps: int) -> None:
    """Two clocks are never read at the same instant; and many small differences add up to no step."""
    life = Life()
    for _ in range(times):
        life.clock.move(life.clock.now() + timedelta(milliseconds=by_ms), step=True)
        life.look()
    assert len(facts(life, f.ClockStepped)) == steps


def test_a_process_that_stood_still_between_two_readings_has_seen_no_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process that was stopped, or frozen, would see a step back, and at once another one forward."""
    life = Life()
    steady_s, stops = life.clock.steady_s, [5 * HOUR]

    def stand_still() -> float:
        if stops:
            life.clock.move(life.clock.now() + timedelta(seconds=stops.pop()))
        return steady_s()

    monkeypatch.setattr(life.clock, "steady_s", stand_still)
    life.look()
    life.look()
    assert (facts(life, f.ClockStepped), stops) == ([], [])


def test_a_step_that_the_journal_could_not_take_is_told_when_it_can() -> None:
    """And nothing that is due is decided before it."""
    life = Life()
    life.line("ADD name=a catchup=all grace=2d @hourly job")
    life.journal.full = True
    life.set_clock(5 * HOUR)
    life.look()
    life.suspend(60)
    life.journal.full = False
    life.look()
    (missed,) = facts(life, f.FiresPassed)
    assert isinstance(missed, f.FiresPassed)
    assert (facts(life, f.ClockStepped), missed.count) == ([f.ClockStepped(18000.0)], 5)
    assert facts(life, f.RunQueued) == []


# --- the workers' clocks ------------------------------------------------------------------


def test_a_worker_s_clock_that_is_far_off_is_told_once_until_it_is_right(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A line at every heartbeat would hide all others."""
    link = Link("pi", "here", Outbox(cast(Any, None), Gate(), 1), cast(Any, None), START, cast(Any, None))
    told = []
    for offset_s in (0.5, 3.0, 4.0, -1.0, -2.5):
        caplog.clear()
        for _ in range(2):  # what looks slow may have waited on its way: the answer to it tells
            link.compare_clocks(START + timedelta(seconds=offset_s), 0.004)
        told.append(len(caplog.records))
    assert told == [0, 1, 0, 0, 1]
    assert link.clock_text() == "-2.498 s (round trip 0.004 s)"


def test_what_is_insisted_on_and_refused_does_not_hold_up_what_is_due() -> None:
    """A clock set back, and a journal that would not take all that followed from it: nothing ran any more."""
    life = Life()
    life.line("ADD name=a * * * * * job")
    life.journal.refuses = f.WorkerLeft
    life.core.insist(o.DropWorker("w1", "cut"))
    life.wait(60)
    assert len(facts(life, f.RunQueued)) == 1
    life.journal.refuses = None
    life.wait(2)  # it is tried again without anything else being due
    assert len(facts(life, f.WorkerLeft)) == 1


def test_a_clock_set_back_is_told_once_though_a_restart_comes_before_it_has_caught_up() -> None:
    """Told twice, all that is measured would end earlier by as much: a job would be killed for it."""
    life = Life()
    life.line("NOW timeout=2h job")
    life.wait(1260)
    life.step(-360)
    life.restart(1)
    assert [fact.by_s for fact in facts(life, f.ClockStepped)] == [-360]
