"""What concerns very many tasks is one fact and many small steps, and the whole comes to be or nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from heapq import heappop
from typing import Any

import orjson
import pytest
from msgspec import structs

from cronflowd.base.errors import Refusal
from cronflowd.base.text import format_time
from cronflowd.base.walks import Numbered
from cronflowd.engine import alarms, encoding, slices
from cronflowd.engine import facts as f
from cronflowd.engine import orders as o
from cronflowd.engine.alarms import MAX_STALE
from cronflowd.engine.changelog import Step, Was
from cronflowd.engine.definitions import MAX_WAY, finish, plan_load
from cronflowd.engine.dependencies import check_circles
from cronflowd.engine.engine import Engine
from cronflowd.engine.slices import SLICE
from cronflowd.engine.state import State
from cronflowd.engine.undo import plan_undo
from cronflowd.tasks.reasons import in_words, reason
from cronflowd.tasks.task import Run, TaskSpec, parse_record
from tests.lib.engine_driver import Driver, snapshot

MANY = 450
HOUR = timedelta(hours=1)


@pytest.fixture
def driver() -> Iterator[Driver]:
    """More tasks than are dealt with at once; whatever became of them, the journal alone gives it again."""
    driver = Driver()
    driver.do(o.StartDaemon("1", "UTC"))
    for number in range(1, MANY + 1):
        driver.line(f"ADD name=n{number} 0 {number % 24} * * * true")
    yield driver
    assert snapshot(driver.state) == snapshot(driver.replay())


def dues(driver: Driver) -> list[object]:
    return [task.due_at for task in driver.state.tasks.values()]


@pytest.mark.parametrize(
    "order",
    [
        o.StartDaemon("1", "Europe/Paris"),
        o.RescheduleTasks(),
        o.NoticeStep(-4 * 3600.0),
        o.NoticeStep(30 * 3600.0),
    ],
    ids=lambda order: type(order).__name__,
)
def test_no_step_is_large_when_all_moments_may_be_others(driver: Driver, order: object) -> None:
    """With 520,000 tasks another zone let no daemon start, and a clock set back let nothing run again."""
    if isinstance(order, o.NoticeStep):
        driver.now += timedelta(seconds=order.by_s)
    sizes = [len(driver.do(order).facts)]
    while (step := driver.engine.next_step(driver.now) or driver.engine.next_slice(driver.now)) is not None:
        sizes.append(len(driver.do(step).facts))
    assert max(sizes) <= SLICE + 1
    assert sizes[0] <= 2
    late = [task for task in driver.state.tasks.values() if task.due_at and task.due_at <= driver.now]
    assert (late, driver.state.unfinished.again) == ([], None)


@pytest.mark.parametrize("restarts", [False, True])
def test_tasks_whose_moments_were_set_anew_leave_once(driver: Driver, restarts: bool) -> None:
    """Such a task stands in the heap twice; twice in one slice, it ended the daemon, and all later starts."""
    for number in range(1, MANY + 1):
        driver.line(f'SET n{number} schedule="{number % 60} {number * 7 % 24} * * *"')
    driver.line("CLEAR")
    if restarts:
        driver.do(driver.engine.next_slice(driver.now))
        driver.restart()
    driver.pump()
    assert (len(driver.state.tasks), driver.state.unfinished.bulk) == (0, None)


def test_a_crash_between_slices_goes_on_where_they_ended(driver: Driver) -> None:
    """What was looked at again is not looked at twice: its moments may have come meanwhile."""
    driver.now -= timedelta(hours=4)
    driver.do(o.NoticeStep(-4 * 3600.0))
    for _ in range(2):
        driver.do(driver.engine.next_slice(driver.now))
    driver.restart()
    assert driver.state.unfinished.again is not None
    assert driver.state.unfinished.again.upto == 2 * SLICE
    driver.pump()
    tasks = driver.state.tasks.values()
    assert dues(driver) == [task.spec.moments.next_after(driver.now, driver.now) for task in tasks]


def test_a_refused_slice_is_made_again(driver: Driver) -> None:
    """A full disk is no reason to leave some out."""
    driver.do(o.RescheduleTasks())
    first = driver.engine.next_slice(driver.now)
    assert first is not None
    assert driver.engine.next_slice(driver.now) is first
    driver.do(first)
    assert driver.engine.next_slice(driver.now) is not first
    driver.pump()


def test_a_moment_that_comes_before_its_slice_is_looked_at_first(driver: Driver) -> None:
    """The last of two million tasks must not fire by the old clock, nor twice by the new one."""
    driver.now -= timedelta(hours=4)
    driver.do(o.NoticeStep(-4 * 3600.0))
    task = driver.state.tasks[MANY]
    task_due = task.due_at
    assert task_due is not None
    driver.now = task_due
    orders = []
    while isinstance(step := driver.engine.next_step(driver.now), o.RescheduleTask | o.FireTasks):
        orders.append(step)
        driver.do(step)
    fired = [order for order in orders if isinstance(order, o.FireTasks)]
    tasks = [task for order in fired for task in order.tasks]
    assert len(set(tasks)) == len(tasks)
    assert set(tasks) <= {order.task for order in orders if order not in fired}


def test_a_task_that_is_changed_meanwhile_waits_for_each_time_that_its_moment_was_to_be_found_anew(
    driver: Driver,
) -> None:
    """The clock was set back, then HUP: a task changed by SET before its slice lost what had come between."""
    for number in (MANY - 1, MANY):
        driver.line(f'SET n{number} schedule="*/5 * * * *"')
    driver.now -= timedelta(hours=4)
    driver.do(o.NoticeStep(-4 * 3600.0))
    driver.now += timedelta(minutes=11)
    driver.do(o.RescheduleTasks())
    driver.line(f"SET n{MANY} prio=low")
    again = driver.replay()
    assert snapshot(again) == snapshot(driver.state)
    driver.pump()
    decided = Counter((row.task_id, row.due_at) for row in driver.state.recent)
    decided += Counter((run.task_id, run.due_at) for run in driver.state.runs.values())
    assert [number for (task, _), number in decided.items() if task == MANY] == [1, 1]
    assert {at for task, at in decided if task == MANY} == {at for task, at in decided if task == MANY - 1}


def test_a_moment_that_was_set_forward_over_stays_so_only_for_those_it_went_over(driver: Driver) -> None:
    """A one-off of a file, whose time has passed since, was not jumped over and is judged by its grace."""
    driver.now += timedelta(hours=30)
    driver.do(o.NoticeStep(30 * 3600.0))
    assert isinstance(driver.engine.next_step(driver.now), o.FireTasks)
    driver.pump()
    assert driver.state.jumped_upto_at == driver.now
    whys = {in_words(fact.why) for fact in driver.state.recent if fact.state == "missed"}
    assert whys == {"the clock was set forward by 1d6h"}
    stage(
        driver,
        [f'{{"schedule": "@at {format_time(driver.now - 2 * HOUR)}", "command": "x", "jobName": "late"}}'],
    )
    driver.do(o.DecideLoad(1, None, "tasks.db"))
    driver.pump()
    assert driver.state.jumped_upto_at is None
    [late] = [fact for fact in driver.state.recent if fact.name == "late"]
    assert in_words(late.why) == "2h late, more than catchup=once and its grace allow"


def next_as_the_daemon(driver: Driver) -> Any:
    """A slice in each pass, before or after what is due."""
    is_first = not driver.engine.is_jumping(driver.now)
    return (is_first and driver.engine.next_slice(driver.now)) or driver.engine.next_step(driver.now)


@pytest.mark.parametrize("what", ["ADD", "SET", "LOAD"])
def test_a_change_after_the_clock_was_set_passes_over_no_moments_that_count_no_more(
    monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Thousands of tasks had got other moments: the next change passed over all of the old ones in one go."""
    driver = Driver()
    driver.do(o.StartDaemon("1", "UTC"))
    for number in range(2000):
        driver.line(f"ADD name=n{number} 0 1 * * * true")
    for number in reversed(range(2000)):
        driver.line(f'SET n{number} schedule="0 2 * * *"')
    if what == "LOAD":
        past = f"@at {format_time(driver.now + HOUR)}"
        stage(driver, [f'{{"schedule": "{past}", "command": "x", "jobName": "n1"}}', *FILE])
        driver.do(o.DecideLoad(len(FILE) + 1, None, "tasks.db"))
    driver.now += timedelta(hours=30)
    driver.do(o.NoticeStep(30 * 3600.0))
    passed = Counter[int]()
    steps = 0

    def counting(heap: list[Any]) -> Any:
        passed[steps] += 1
        return heappop(heap)

    monkeypatch.setattr(alarms, "heappop", counting)
    if what == "LOAD":
        while step := next_as_the_daemon(driver):
            steps += 1
            driver.do(step)
    else:
        driver.line("ADD name=later @every 1h true" if what == "ADD" else "SET n7 schedule=@daily")
    assert max(passed.values(), default=0) <= 4 * MAX_STALE


# --- CLEAR, LOAD and UNDO -----------------------------------------------------------------------


def tasks(driver: Driver) -> dict[int, tuple[str, str, bool, object]]:
    found = driver.state.tasks.values()
    return {task.id: (task.name, task.spec.command, task.paused, task.due_at) for task in found}


def records(lines: list[str]) -> list[tuple[int | None, TaskSpec]]:
    return [parse_record(orjson.loads(line), "UTC") for line in lines]


def stage(driver: Driver, lines: list[str]) -> None:
    """What the daemon does with a large file until all of it is staged."""
    numbered, _ = finish(plan_load(driver.state, records(lines), driver.limits))
    next_task: int | None = max(driver.state.next_task - 1, *(task_id for task_id, _ in numbered)) + 1
    for at in range(0, len(numbered), 50):
        driver.do(o.StageTasks(numbered[at : at + 50], next_task))
        next_task = None


# Every other task stays, with another command; the rest go, and others come.
FILE = [
    f'{{"schedule": "0 1 * * *", "command": "new {number}", "jobName": "n{number}"}}'
    for number in range(2, 2 * MANY, 2)
]


def change(driver: Driver, what: str) -> None:
    match what:
        case "CLEAR":
            driver.line("CLEAR")
        case "LOAD":
            stage(driver, FILE)
            driver.do(o.DecideLoad(len(FILE), None, "tasks.db"))
        case "RESUME":
            for number in range(1, MANY + 1):
                driver.line(f"PAUSE n{number}")
            driver.line("RESUME all")
        case "UNDO":
            driver.line("CLEAR")
            driver.pump()
            driver.do(o.UndoChanges(1))


@pytest.mark.parametrize("what", ["CLEAR", "LOAD", "RESUME", "UNDO"])
def test_what_was_decided_is_made_true_across_any_crash(what: str) -> None:
    """A kill in the middle of a LOAD must give the tasks of before or of after."""
    whole = _made()
    change(whole, what)
    sizes = []
    while (step := whole.engine.next_slice(whole.now)) is not None:
        sizes.append(len(whole.do(step).facts))
    assert max(sizes) <= SLICE + 1
    for crash in range(len(sizes)):
        driver = _made()
        change(driver, what)
        for _ in range(crash):
            driver.do(driver.engine.next_slice(driver.now))
        driver.restart()
        driver.pump()
        assert tasks(driver) == tasks(whole)
        assert (driver.state.unfinished.bulk, driver.state.changes.is_held) == (None, False)
        assert snapshot(driver.state) == snapshot(driver.replay())


def _made() -> Driver:
    driver = Driver()
    driver.do(o.StartDaemon("1", "UTC"))
    for number in range(1, MANY + 1):
        driver.line(f"ADD name=n{number} 0 {number % 24} * * * true")
    driver.line("PAUSE n7")
    return driver


@pytest.mark.parametrize("what", ["CLEAR", "LOAD", "RESUME", "UNDO"])
def test_a_checkpoint_in_the_middle_carries_all_of_it(what: str) -> None:
    """Compaction comes when it comes."""
    whole, driver = _made(), _made()
    change(whole, what)
    change(driver, what)
    whole.pump()
    for _ in range(6):
        driver.do(driver.engine.next_slice(driver.now))
    carried = State("UTC")
    for fact in driver.state.carry():
        carried.apply(encoding.decode(encoding.encode(1, driver.now, fact, False))[2], driver.now, 1)
    assert snapshot(carried) == snapshot(driver.state)
    driver.state, driver.engine = carried, Engine(carried, driver.limits)
    driver.pump()
    assert tasks(driver) == tasks(whole)


def test_what_was_not_decided_never_was(driver: Driver) -> None:
    """The daemon was killed, or the disk was full, before all of a file was staged."""
    before = tasks(driver)
    stage(driver, FILE)
    assert tasks(driver) == before
    driver.restart()
    driver.pump()
    assert (tasks(driver), driver.state.unfinished.bulk) == (before, None)
    driver.line("ADD name=last 0 1 * * * true")


def test_a_large_change_is_one_change_and_can_be_taken_back(driver: Driver) -> None:
    """HISTORY shows one CLEAR, not two million; and UNDO of it is one, too."""
    before = tasks(driver)
    driver.line("CLEAR")
    driver.pump()
    assert tasks(driver) == {}
    assert driver.state.changes.changes[-1].what == f"CLEAR {MANY} tasks"
    assert len(driver.state.changes.changes[-1].steps) == MANY
    reply = driver.do(o.UndoChanges(1)).reply
    assert reply is not None
    assert reply.text == "1 undone"
    driver.pump()
    assert tasks(driver) == before


def test_many_that_are_paused_are_resumed_as_one_change(driver: Driver) -> None:
    """RESUME all looked at every task there is, and lifted all pauses in one go."""
    change(driver, "RESUME")
    driver.pump()
    assert not any(task.paused for task in driver.state.tasks.values())
    assert driver.state.changes.changes[-1].what == "RESUME all"
    driver.do(o.UndoChanges(1))
    driver.pump()
    assert all(task.paused for task in driver.state.tasks.values())
    driver.line("RESUME all")
    driver.pump()


def test_circles_are_looked_for_in_small_steps_and_once_each() -> None:
    """LOAD of a file whose tasks wait for each other looked through all of them in one go."""
    chain = {f"t{number}": (f"t{number + 1}",) for number in range(20_000)}
    asked: Counter[str] = Counter()

    def after(name: str) -> tuple[str, ...]:
        asked[name] += 1
        return chain.get(name, ())

    steps = list(check_circles(chain, after))
    assert asked.most_common(1)[0][1] == 1
    assert len(steps) <= 2 * len(chain) + 2
    with pytest.raises(Refusal, match="t19999 -> t20000 -> t19999"):
        list(check_circles(chain, (chain | {"t20000": ("t19999",)}).__getitem__))


def test_a_circle_is_not_looked_for_in_a_chain_without_end() -> None:
    """One SET would stand everybody still for a second; whoever is new is in no circle."""
    driver = Driver()
    for number in range(1, MAX_WAY // 2 + 10):
        record = {"schedule": "@daily", "command": "true", "jobName": f"t{number}"}
        after = {"after": f"t{number - 1}"} if number > 1 else {}
        driver.state.apply(f.TaskAdded(number, record | after, driver.now, driver.now), driver.now)
    assert driver.line(f"ADD name=new after=t{number} @daily true").facts
    with pytest.raises(Refusal, match="too many tasks stand before this one"):
        driver.line(f"SET t{number} after=t{number - 1},t1")
    driver.line("SET new after=t9")  # nobody waits for it


class Unwalked(dict[int, Run]):
    """A table of which rows are only looked up."""

    def values(self) -> Any:
        raise AssertionError("all rows were asked for")


def test_runs_of_a_task_that_is_gone_are_found_without_looking_at_all_runs(driver: Driver) -> None:
    """LOAD of a file with ids looked through all runs once for each task."""
    driver.do(o.JoinWorker("w", 1, {}, ("shell",), "here", ()))
    driver.line("RUN n1")
    driver.pump()
    driver.line("REMOVE n1")
    run = next(iter(driver.state.runs))
    assert driver.state.orphans == {1: [run]}
    driver.state.runs = Unwalked(driver.state.runs)
    driver.line("UNDO")
    assert (driver.state.tasks[1].runs, driver.state.tasks[1].held, driver.state.orphans) == ([run], 1, {})
    driver.line("REMOVE n1")
    driver.do(o.ReportEnded("w", run, 1, 0, {}))
    assert driver.state.orphans == {}


@pytest.mark.parametrize("verb", ["REMOVE n1", "CLEAR"])
@pytest.mark.parametrize("restarts", [None, "journal", "checkpoint"])
def test_no_step_is_large_when_a_task_leaves_that_has_very_many_runs(
    driver: Driver, verb: str, restarts: str | None
) -> None:
    """REMOVE of a task with 100,000 runs in the queue ended all of them in one go."""
    driver.line("SET n1 overlap=allow on=nobody")
    for _ in range(600):
        driver.line("RUN n1")
    sizes = [len(driver.line(verb).facts)]
    while 1 in driver.state.tasks:
        sizes.append(len(driver.do(driver.engine.next_slice(driver.now)).facts))
    for _ in range(300):
        sizes.append(len(driver.do(driver.engine.next_step(driver.now)).facts))
    if restarts == "journal":
        driver.restart()
    elif restarts:
        state = State("UTC")
        for fact in driver.state.carry():
            state.apply(fact, driver.now)
        driver.take_over(state)
    while (step := driver.engine.next_step(driver.now)) is not None:
        sizes.append(len(driver.do(step).facts))
    assert (len(driver.state.runs), driver.state.orphans, driver.state.leaving) == (0, {}, {})
    assert max(sizes) <= 2 * SLICE + 1
    assert driver.state.totals == {"cancelled": 600}
    why = "cleared" if verb == "CLEAR" else "removed"
    assert {in_words(row.why) for row in driver.state.recent} == {in_words(reason(why))}


def test_the_runs_of_a_task_that_is_back_before_they_ended_are_its_own(driver: Driver) -> None:
    """REMOVE, and UNDO at once: what had not been ended goes on."""
    driver.line("SET n1 overlap=allow on=w")
    for _ in range(100):
        driver.line("RUN n1")
    driver.line("REMOVE n1")
    for _ in range(10):
        driver.do(driver.engine.next_step(driver.now))
    driver.line("UNDO")
    driver.pump()
    assert (len(driver.state.tasks[1].runs), driver.state.leaving) == (90, {})
    driver.do(o.JoinWorker("w", 100, {}, ("shell",), "here", ()))
    assert len(driver.pump()) == 90


def test_a_slice_that_had_to_wait_finds_a_task_gone(driver: Driver) -> None:
    """The disk was full, and meanwhile a task that runs once had its end."""
    change(driver, "LOAD")
    driver.pump()
    driver.do(o.UndoChanges(1))
    slice_ = driver.engine.next_slice(driver.now)
    while isinstance(slice_, o.PassOver):
        slice_ = driver.engine.next_slice(driver.now)
    assert isinstance(slice_, o.BulkSlice)
    assert slice_.kind == "leaves"
    gone = f.TaskRemoved(slice_.tasks[0], "over")
    driver.journal.append(encoding.encode(len(driver.journal) + 1, driver.now, gone, False))
    driver.state.apply(gone, driver.now, len(driver.journal))
    driver.do(slice_)
    driver.pump()


@pytest.mark.parametrize("restarts", [None, "journal", "checkpoint"])
@pytest.mark.parametrize("what", ["LOAD", "UNDO"])
def test_a_one_off_that_ends_before_its_slice_does_not_come_back(what: str, restarts: str | None) -> None:
    """The file told of it too, so it ran twice; and UNDO of a pause brought it back, never to leave again."""
    driver = _made()
    driver.do(o.JoinWorker("w", 9, {}, ("shell",), "here", ()))
    driver.line("AT 2030-01-01T12:00:05Z name=once true")
    once = driver.state.find("once")
    assert once
    if what == "LOAD":
        stage(driver, [*FILE, orjson.dumps(once.spec.record).decode()])
        driver.do(o.DecideLoad(len(FILE) + 1, None, "tasks.db"))
    else:
        for name in (f"n{number}" for number in range(1, MANY + 1)):
            driver.line(f"PAUSE {name}")
        driver.line("PAUSE once")
        order = o.UndoChanges(MANY + 1)
        plan = finish(plan_undo(driver.state, order.count, driver.now, driver.limits))
        driver.do(structs.replace(order, plan=plan))
        driver.engine.slices.undoing = plan
    driver.now += timedelta(seconds=5)
    while step := driver.engine.next_step(driver.now):
        driver.do(step)
    if driver.state.runs:  # it was not paused
        driver.do(o.ReportEnded("w", max(driver.state.runs), 1, 0, {}))
    assert (driver.state.find("once"), driver.state.unfinished.bulk is None) == (None, False)
    if restarts:
        driver.restart(driver.carried() if restarts == "checkpoint" else None)
    driver.pump()
    assert (driver.state.find("once"), driver.state.unfinished.bulk) == (None, None)
    assert len([row for row in driver.state.recent if row.name == "once"]) <= 1
    assert snapshot(driver.state) == snapshot(driver.replay())


@pytest.mark.parametrize("staged", [0, 1, 2])
@pytest.mark.parametrize("moment", ["12:00:05", "13:00:00"])
def test_a_one_off_that_ends_before_a_load_is_decided_does_not_come_back(staged: int, moment: str) -> None:
    """Very many tasks take a while to be staged: it ended meanwhile, and was run a second time."""
    driver = _made()
    driver.do(o.JoinWorker("w", 9, {}, ("shell",), "here", ()))
    driver.line("AT 2030-01-01T12:00:05Z name=once true")
    said = orjson.dumps({"schedule": f"@at 2030-01-01T{moment}Z", "command": "true", "jobName": "once"})
    driver.do(o.StageTasks([], driver.state.next_task))  # the file is read, and worked out
    numbered, above = finish(plan_load(driver.state, records([*FILE, said.decode()]), driver.limits))
    parts = [o.StageTasks([], above), o.StageTasks(numbered, None)]
    for part in parts[:staged]:
        driver.do(part)
    driver.now += timedelta(seconds=5)
    while step := driver.engine.next_step(driver.now):
        driver.do(step)
    driver.do(o.ReportEnded("w", max(driver.state.runs), 1, 0, {}))
    for part in parts[staged:]:
        driver.do(part)
    driver.do(o.DecideLoad(len(FILE) + 1, None, "tasks.db"))
    driver.pump()
    assert (driver.state.find("once") is not None) == (moment == "13:00:00")
    assert snapshot(driver.state) == snapshot(driver.replay())


def test_a_one_off_that_a_file_moves_is_due_then_though_it_ended_before_its_slice() -> None:
    """What it says is another moment."""
    driver = _made()
    driver.line("AT 2030-01-01T12:00:05Z name=once true")
    driver.line("PAUSE once")
    stage(driver, [*FILE, '{"schedule": "@at 2030-01-01T13:00:00Z", "command": "true", "jobName": "once"}'])
    driver.do(o.DecideLoad(len(FILE) + 1, None, "tasks.db"))
    driver.now += timedelta(seconds=5)
    while step := driver.engine.next_step(driver.now):
        driver.do(step)
    assert driver.state.find("once") is None
    driver.pump()
    once = driver.state.find("once")
    assert once
    assert once.due_at == driver.now.replace(hour=13, second=0)


def test_undo_takes_no_more_slices_than_the_change_took(driver: Driver) -> None:
    """Each is a commit: going through all tasks once more, to find nothing to do, took as long again."""

    def slices() -> int:
        before = driver.state.unfinished.slices
        driver.pump()
        return driver.state.unfinished.slices - before

    driver.line("CLEAR")
    taken = slices()
    for _ in range(2):
        driver.do(o.UndoChanges(1))
        assert slices() == taken
    driver.do(o.UndoChanges(1))
    slices()
    change(driver, "RESUME")
    taken = slices()
    driver.do(o.UndoChanges(1))
    assert slices() <= taken + 1  # and one for what PAUSE all had set


@pytest.mark.parametrize("restarts", ["journal", "checkpoint"])
def test_an_undo_is_worked_out_again_in_turns(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, restarts: str
) -> None:
    """After a restart amid the UNDO of 50,000 tasks its first step kept everybody waiting for 0.7 s."""
    before, looked_at = tasks(driver), Counter[int]()
    driver.line("CLEAR")
    driver.pump()
    driver.do(o.UndoChanges(1))
    while not driver.state.tasks:
        driver.do(driver.engine.next_slice(driver.now))
    driver.restart(driver.carried() if restarts == "checkpoint" else None)
    turns, read = 0, Was.read

    def counting(was: Was, default_tz: str) -> TaskSpec:
        looked_at[turns] += 1
        return read(was, default_tz)

    monkeypatch.setattr(Was, "read", counting)
    monkeypatch.setattr(slices, "WORKED_OUT", 50)
    while (step := driver.engine.next_slice(driver.now)) is not None:
        if turns == 3:
            driver.line(f"RUN {max(tasks(driver))}")  # whoever comes is served
        driver.do(step)
        turns += 1
    assert max(looked_at.values()) <= 50
    assert sum(looked_at.values()) == MANY
    assert tasks(driver) == before


def test_looking_for_those_that_wait_for_what_leaves_gives_way(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waited for any of a hundred thousand tasks: all of them were looked at in one go."""
    monkeypatch.setattr(slices, "LOOKED_AT", 50)
    driver.do(o.StageTasks([], driver.state.next_task))
    for task_id in range(1, MANY + 1):
        driver.do(o.StageTasks([(task_id, None)], None))
    driver.do(o.RemoveTask(o.Pattern("", "n*", staged=MANY)))
    passed = 0
    while isinstance(step := driver.engine.next_slice(driver.now), o.PassOver):
        passed += 1
        driver.do(step)
    assert passed == MANY // 50
    driver.do(step)
    driver.pump()
    assert len(driver.state.tasks) == 0


@pytest.mark.parametrize(
    "line",
    ["ADD name=x 0 1 * * * true", "SET n1 prio=high", "REMOVE n1", "CLEAR", "UNDO", "PAUSE all", "NOW true"],
)
def test_nothing_else_changes_tasks_meanwhile(driver: Driver, line: str) -> None:
    """A name could be given twice, or a change be taken back that is half made."""
    driver.line("CLEAR")
    with pytest.raises(Refusal) as refused:
        driver.line(line)
    assert refused.value.code == "busy"
    driver.pump()


def test_what_is_due_goes_on_meanwhile(driver: Driver) -> None:
    """Two million tasks take a minute to load; nobody else's job may be late for that."""
    driver.now = min(task.due_at for task in driver.state.tasks.values() if task.due_at)
    driver.line("CLEAR")
    assert isinstance(driver.engine.next_step(driver.now), o.FireTasks)
    driver.pump()
    assert driver.state.tasks == {}


def test_tasks_that_leave_take_their_moments_with_them(driver: Driver) -> None:
    """Two million moments of tasks that are gone would be passed over in one go when the last one is."""
    driver.line("CLEAR")
    while (step := driver.engine.next_slice(driver.now)) is not None:
        driver.do(step)
        assert len(driver.state.due) <= len(driver.state.tasks) + 2 * SLICE
    assert len(driver.state.due) == 0


def test_moments_that_are_none_any_more_are_passed_over_some_at_a_time(driver: Driver) -> None:
    """All were due at nine, and are at ten: nine o'clock must not stop everybody."""
    old_at = driver.now + timedelta(minutes=1)
    driver.state.due.heap = [(old_at, 0, task_id) for task_id in range(1, 5 * MAX_STALE + 1)]
    driver.now = old_at
    steps = []
    while isinstance(step := driver.engine.next_step(driver.now), o.PassOver):
        steps.append(len(driver.state.due))
        driver.do(step)
    assert steps == [4 * MAX_STALE, 3 * MAX_STALE, 2 * MAX_STALE, MAX_STALE]
    for task in driver.state.tasks.values():
        driver.state.set_due(task, task.due_at)


def test_what_is_no_longer_needed_is_freed_a_little_at_a_time() -> None:
    """Freeing the steps of a large change takes as long as making them."""
    driver = _made()
    driver.line("CLEAR")
    driver.pump()
    log = driver.state.changes
    table = Numbered[Step]()
    table.update({number: Step("added", number, 1, None) for number in range(3 * 512)})
    log.leftovers = [list(table.values()), table]
    sizes = []
    while log.let_go():
        sizes.append(sum(map(len, log.leftovers)))
    assert sizes == [2560, 2048, 1536, 536]
