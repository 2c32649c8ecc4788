"""The engine, alone: plain values in, plain values out, no clock but a number we move."""

from __future__ import annotations

import shutil
import zoneinfo
from collections.abc import Iterator
from datetime import timedelta
from importlib.resources import files
from pathlib import Path

import pytest
from attrs import evolve

from cronflowd.base.errors import Refusal
from cronflowd.engine import facts as f
from cronflowd.engine import orders as o
from cronflowd.engine.definitions import finish
from cronflowd.engine.dependencies import MAX_JUDGED
from cronflowd.engine.rules import Limits
from cronflowd.schedules.schedule import reload_zones
from cronflowd.tasks.reasons import in_words, reason
from cronflowd.tasks.task import parse_record
from tests.lib.engine_driver import LIMITS, START, Driver, snapshot

ZONES = Path(str(files("tzdata").joinpath("zoneinfo")))


def join(driver: Driver, name: str = "w1", slots: int = 2, running: tuple[tuple[int, int], ...] = ()) -> None:
    driver.do(o.JoinWorker(name, slots, {}, ("shell", "sleep"), "test", running))


def running(task: str, limits: Limits = LIMITS) -> Driver:
    """A driver with one worker, which has run 1 of this task."""
    driver = Driver(limits)
    join(driver)
    driver.line(f"ADD {task}")
    driver.line("RUN 1")
    driver.pump()
    return driver


def done(
    driver: Driver, worker: str, run: int, attempt: int = 1, exit_code: int = 0
) -> list[tuple[str, str]]:
    return driver.do(o.ReportEnded(worker, run, attempt, exit_code, {})).messages


def states(driver: Driver) -> list[tuple[int | None, str]]:
    return [(row.run, row.state) for row in driver.state.recent]


def test_a_task_fires_at_its_minute_and_is_sent_to_a_free_worker() -> None:
    """The walk everything else is built on: due, queued, sent, ended."""
    driver = Driver()
    join(driver)
    driver.line("ADD * * * * * echo hi")
    assert driver.wait(59.9) == []
    due = "2030-01-01T12:01:00Z"
    words = f"RUN 1 1 due={due} fire=1/{due} type=shell task=1 name=task_1 :echo hi"
    assert driver.wait(0.1) == [("w1", words)]
    assert done(driver, "w1", 1) == [("w1", "ACK 1 1")]
    assert states(driver) == [(1, "ok")]


def test_a_due_run_waits_for_a_worker_and_is_missed_after_its_grace() -> None:
    """Nobody to run it is not the same as running: it stays queued, then is counted as missed."""
    driver = Driver()
    driver.line("ADD grace=30s 0 * * * * echo hi")
    driver.wait(3600)
    assert [run.state for run in driver.state.runs.values()] == ["queued"]
    driver.wait(31)
    assert (driver.state.runs, states(driver)) == ({}, [(1, "missed")])


def test_a_second_fire_is_skipped_while_the_first_still_runs() -> None:
    """overlap=skip is the default, and says which run stood in the way."""
    driver = Driver()
    join(driver)
    driver.line("ADD * * * * * sleep 90")
    driver.wait(120)
    row = driver.state.recent[-1]
    overlap = reason("overlap", run=1, state="sent")
    assert (row.run, row.state, row.why) == (None, "skipped", overlap)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("allow", ["sent", "sent", "sent"]),
        ("queue", ["sent", "queued", "queued"]),
        ("queue1", ["sent", "queued"]),
    ],
)
def test_overlap_modes_say_what_a_new_fire_does_while_one_runs(mode: str, expected: list[str]) -> None:
    """Each mode after three moments of which the first still runs."""
    driver = Driver()
    join(driver, slots=8)
    driver.line(f"ADD overlap={mode} * * * * * sleep 500")
    driver.wait(180)
    assert [run.shown for run in driver.state.runs.values()] == expected


def test_overlap_replace_kills_the_old_run_before_the_new_one_starts() -> None:
    """Never two at a time, not even while the old one is being killed."""
    driver = Driver()
    join(driver, slots=8)
    driver.line("ADD overlap=replace * * * * * sleep 500")
    assert [line.split()[:2] for _, line in driver.wait(120)] == [["RUN", "1"], ["KILL", "1"]]
    done(driver, "w1", 1, exit_code=143)
    assert [line.split()[:2] for _, line in driver.pump()] == [["RUN", "2"]]
    assert states(driver) == [(1, "cancelled")]


def test_a_parked_run_starts_when_the_one_before_it_ends() -> None:
    """overlap=queue never runs two at a time and loses none."""
    driver = Driver()
    join(driver, slots=8)
    driver.line("ADD overlap=queue * * * * * sleep 500")
    driver.wait(180)
    done(driver, "w1", 1)
    assert [line.split()[1] for _, line in driver.pump()] == ["2"]


def test_a_lost_worker_costs_its_run_only_after_the_lease() -> None:
    """A cut link is not a lost run: the worker has its lease to come back and name it."""
    driver = running("0 0 1 1 * sleep 5")
    driver.do(o.DropWorker("w1", "cut"))
    driver.wait(29)
    assert driver.state.runs[1].state == "sent"
    driver.wait(2)
    assert states(driver) == [(1, "lost")]


def test_a_worker_that_names_its_run_keeps_it() -> None:
    """Restart or cut link: the run is taken back, and its report counts."""
    driver = running("0 0 1 1 * sleep 5")
    driver.do(o.StartDaemon("2", "UTC"))
    driver.wait(20)
    join(driver, running=((1, 1),))
    driver.wait(3600)
    assert done(driver, "w1", 1) == [("w1", "ACK 1 1")]
    assert states(driver) == [(1, "ok")]


def test_a_worker_that_comes_back_without_its_run_loses_it_when_the_lease_ends() -> None:
    """The order may still have been on its way: not lost at once (contract of the worker port)."""
    driver = running("0 0 1 1 * sleep 5")
    join(driver)
    driver.wait(29)
    assert states(driver) == []
    driver.wait(2)
    assert states(driver) == [(1, "lost")]


def test_a_late_report_from_a_lost_worker_changes_nothing_and_is_told_in_the_log() -> None:
    """At most once: what was called lost stays lost, and the operator can see the truth."""
    driver = running("0 0 1 1 * sleep 5")
    driver.do(o.DropWorker("w1", "cut"))
    driver.wait(31)
    assert done(driver, "w1", 1) == [("w1", "ACK 1 1")]
    assert states(driver) == [(1, "lost")]
    assert any(fd == 0 and "late" in in_words(text) for fd, text in driver.state.outputs[1].lines)


def test_a_report_repeated_because_its_ack_was_lost_is_only_acknowledged() -> None:
    """The usual case after a reconnect must not look like an accident."""
    driver = running("0 0 1 1 * sleep 5")
    done(driver, "w1", 1)
    decision = driver.do(o.ReportEnded("w1", 1, 1, 0, {}))
    assert (decision.facts, decision.messages) == ([], [("w1", "ACK 1 1")])


def test_retries_are_attempts_of_one_run_and_stop_when_they_are_used_up() -> None:
    """retry=fixed:2:5s: three attempts, five seconds apart, one run number."""
    driver = running("retry=fixed:2:5s 0 0 1 1 * false")
    for attempt in (1, 2, 3):
        done(driver, "w1", 1, attempt, exit_code=1)
        driver.wait(5)
    assert [(row.run, row.attempt, row.state) for row in driver.state.recent] == [
        (1, 1, "failed"),
        (1, 2, "failed"),
        (1, 3, "failed"),
    ]
    assert driver.state.totals == {"failed": 1}


def test_a_timeout_kills_and_the_report_says_timeout() -> None:
    """The daemon watches the time itself, so that the simplest worker needs no clock."""
    driver = running("timeout=5s 0 0 1 1 * sleep 50")
    assert driver.wait(5) == [("w1", "KILL 1 1")]
    done(driver, "w1", 1, exit_code=143)
    assert states(driver) == [(1, "timeout")]


def test_a_kill_that_is_never_answered_ends_the_run_all_the_same() -> None:
    """A stuck worker must not block its task for ever (the overlap guard that never opens)."""
    driver = running("0 0 1 1 * sleep 50")
    driver.line("CANCEL 1")
    driver.wait(61)
    assert states(driver) == [(1, "cancelled")]


def test_downtime_runs_the_newest_moment_and_counts_the_others_as_missed() -> None:
    """catchup=once with grace=1h, a day after: one run, the rest is one row, and time does not grow."""
    driver = Driver()
    driver.line("ADD * * * * * echo hi")
    driver.now += timedelta(days=366)
    driver.do(o.StartDaemon("2", "UTC"))
    driver.pump()
    (row,) = driver.state.recent
    assert (row.state, row.count) == ("missed", 366 * 1440 - 1)
    assert [run.due_at for run in driver.state.runs.values()] == [START + timedelta(days=366)]


def test_downtime_longer_than_the_grace_runs_nothing() -> None:
    """A nightly job found nine hours late waits for its next night."""
    driver = Driver()
    driver.line("ADD 0 13 * * * echo hi")
    driver.now += timedelta(hours=10)
    driver.pump()
    assert (driver.state.runs, states(driver)) == ({}, [(None, "missed")])
    assert driver.state.tasks[1].due_at == START + timedelta(days=1, hours=1)


def test_a_one_off_removes_itself_and_leaves_its_history() -> None:
    """NOW: the task is gone when its run has ended, RUNS still tells of it."""
    driver = Driver()
    join(driver)
    driver.line("NOW echo once")
    driver.pump()
    done(driver, "w1", 1)
    assert (driver.state.tasks, states(driver)) == ({}, [(1, "ok")])


def test_ids_are_never_used_again() -> None:
    """A script that remembered an id must not hit another task later."""
    driver = Driver()
    driver.line("ADD @daily a")
    driver.line("REMOVE 1")
    reply = driver.line("ADD @daily b").reply
    assert reply and reply.values["id"] == 2
    with pytest.raises(Refusal, match="never used again"):
        driver.line('ADD {"schedule": "@daily", "command": "x", "id": 1}')


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("ADD name=task_9 @daily x", "exists"),
        ("ADD name=a @daily x", "exists"),
        ("REMOVE nobody", "not-found"),
        ("SET a name=b", "exists"),
        ("SET a schedule=nonsense", "bad-schedule"),
        ("SET a colour=red", "bad-option"),
        ("CANCEL 7", "not-found"),
        ("DRAIN nobody", "not-found"),
        ("AT 2020-01-01T00:00:00Z x", "bad-schedule"),
        ("PAUSE a until=2020-01-01T00:00:00Z", "bad-option"),
    ],
)
def test_a_refused_order_changes_nothing(line: str, code: str) -> None:
    """One error with its code, and the state as it was."""
    driver = Driver()
    driver.line("ADD name=a @daily x")
    driver.line("ADD name=b @daily x")
    before = snapshot(driver.state)
    with pytest.raises(Refusal) as caught:
        driver.line(line)
    assert caught.value.code == code
    assert snapshot(driver.state) == before


def test_load_replaces_the_set_and_keeps_ids_by_name() -> None:
    """A task of the same name stays the same task, with its id and its counts."""
    driver = Driver()
    for line in ("ADD name=keep @daily old", "ADD name=drop @daily x"):
        driver.line(line)
    spec = driver.state.tasks[1].spec
    changed = type(spec)("keep", spec.schedule, "new", spec.options)
    fresh = type(spec)("fresh", spec.schedule, "y", spec.options)
    driver.do(o.LoadTasks([(None, fresh), (None, changed)]))
    assert {task.name: (task.id, task.spec.command) for task in driver.state.tasks.values()} == {
        "keep": (1, "new"),
        "fresh": (3, "y"),
    }


@pytest.mark.parametrize("knows", ["changes", "runs", "nothing"])
def test_load_gives_no_id_that_was_anothers(knows: str) -> None:
    """A script that remembers the id of what was removed would hit another task, and read its history."""
    driver = Driver()
    if knows == "runs":
        driver.line("NOW name=once echo x")
        join(driver)
        driver.pump()
        done(driver, "w1", 1)
    else:
        driver.line("ADD name=once @daily x")
        driver.line("SET once name=later")
        driver.line("REMOVE later")
    assert not driver.state.tasks
    if knows == "nothing":
        driver.state.changes.changes.clear()
    spec = parse_record({"schedule": "@daily", "command": "x", "jobName": "new"}, "UTC")[1]
    driver.do(o.LoadTasks([(1, spec), (7, evolve(spec, name="unused"))]))
    ids = {task.name: task.id for task in driver.state.tasks.values()}
    assert ids == {"new": 1 if knows == "nothing" else 8, "unused": 7}


@pytest.mark.parametrize("restarts", [False, True])
def test_load_of_what_was_saved_gives_all_their_own_ids_back(restarts: bool) -> None:
    """Also what had another name in between, and what is called by its id."""
    driver = Driver()
    for line in ("ADD name=a @daily x", "ADD name=b @daily x", "ADD @daily x", "ADD name=d @daily x"):
        driver.line(line)
    saved = [(task.id, task.spec) for task in driver.state.tasks.values()]
    for line in ("SET b name=c", "SET task_3 name=three", "CLEAR"):
        driver.line(line)
    if restarts:
        driver.restart()
    driver.do(o.LoadTasks(saved))
    assert {task.id: task.name for task in driver.state.tasks.values()} == {
        1: "a",
        2: "b",
        3: "task_3",
        4: "d",
    }


def test_low_priority_waits_but_is_not_starved() -> None:
    """A low run is passed only by runs queued less than its handicap (5 minutes) later."""
    driver = Driver()
    driver.line("ADD name=low prio=low overlap=allow 0 0 1 1 * x")
    driver.line("ADD name=high prio=high overlap=allow 0 0 1 1 * x")
    driver.line("RUN low")
    driver.wait(299)
    driver.line("RUN high")
    driver.wait(2)
    driver.line("RUN high")
    join(driver, slots=3)
    assert [line.split()[1] for _, line in driver.pump()] == ["2", "1", "3"]


def test_paused_moments_are_skipped_and_counted() -> None:
    """A pause is told in the history, with its reason."""
    driver = Driver()
    driver.line("ADD * * * * * x")
    driver.line('PAUSE all why="moving house"')
    driver.wait(180)
    paused = reason("paused", text="moving house")
    assert [(row.state, row.why) for row in driver.state.recent] == [("skipped", paused)] * 3
    driver.line("RESUME all")
    driver.wait(60)
    assert len(driver.state.runs) == 1


def test_output_beyond_the_limit_is_counted_not_kept() -> None:
    """A worker that does not cut its output itself cannot fill the journal."""
    driver = running("0 0 1 1 * x", Limits(output_bytes=10))
    (fact,) = driver.do(o.ReportOutput("w1", 1, [[1, "12345"], [1, "123456"], [2, "9"]])).facts
    remark = [0, reason("output-limit", limit=10)]
    assert fact == f.OutputReceived(1, 1, [[1, "12345"], remark], 9)
    (fact,) = driver.do(o.ReportOutput("w1", 1, [[1, "x"]])).facts
    assert fact == f.OutputReceived(1, 1, [], 2)


def test_pieces_of_a_line_that_hold_nothing_are_not_kept() -> None:
    """They count for nothing, so any number of them came below every limit, and stayed in memory."""
    driver = running("0 0 1 1 * x")
    nothing = [1, "", False]
    assert driver.do(o.ReportOutput("w1", 1, [nothing] * 3)).facts == []
    (fact,) = driver.do(o.ReportOutput("w1", 1, [nothing, [1, "a", False], nothing, [1, ""]])).facts
    assert fact == f.OutputReceived(1, 1, [[1, "a", False], [1, ""]], 0)


def test_what_an_attempt_wrote_leaves_the_next_one_its_remarks() -> None:
    """Else the worker could not say how much of the output of the second attempt is missing."""
    driver = running("retry=fixed:1:5s 0 0 1 1 * x", Limits(output_bytes=5000))
    driver.do(o.ReportOutput("w1", 1, [[1, "x" * 4999], [0, "y" * 4000], [0, "y" * 4000]]))
    done(driver, "w1", 1, exit_code=1)
    driver.wait(5)
    (fact,) = driver.do(o.ReportOutput("w1", 1, [[0, "of it 7 bytes are missing"]])).facts
    assert fact == f.OutputReceived(1, 2, [[0, "of it 7 bytes are missing"]], 0)


def test_late_reports_are_told_only_so_often() -> None:
    """Each with another exit code, a worker that has gone wrong could fill the journal with them."""
    driver = running("0 0 1 1 * x", Limits(output_bytes=0))
    driver.do(o.DropWorker("w1", "cut"))
    driver.wait(31)
    for number in range(500):
        assert done(driver, "w1", 1, exit_code=number % 256, attempt=1 + number // 256)
    assert 20 < len(driver.state.outputs[1].lines) < 100


@pytest.mark.parametrize("how", ["OUT", "REFUSED"])
def test_a_worker_remarks_no_more_of_a_run_than_that_may_write(how: str) -> None:
    """A worker that has gone wrong says the same again and again, and each is a record."""
    driver = running("0 0 1 1 * x", Limits(output_bytes=5000))
    driver.do(o.ReportOutput("w1", 1, [[1, "x" * 900]]))
    order = (
        o.ReportOutput("w1", 1, [[0, "again"]])
        if how == "OUT"
        else o.ReportRefused("w1", 1, 1, "type", "again", True)
    )
    for _ in range(1500):
        driver.do(order)
    assert driver.state.outputs[1].size < 7000
    (fact,) = driver.do(o.ReportOutput("w1", 1, [[1, "x"], [0, "again"]])).facts
    assert fact == f.OutputReceived(1, 1, [[1, "x"]], 0)


def test_set_with_an_empty_name_gives_the_first_name_back() -> None:
    """An empty value means the default, and a name's default is task_<id>."""
    driver = Driver()
    driver.line("ADD name=a @daily x")
    driver.line("SET 1 name=")
    assert driver.state.tasks[1].name == "task_1"


def test_what_a_client_asks_for_may_not_use_up_what_is_kept_for_the_end() -> None:
    """A full disk: RUN and output can be refused; moments that come due and ends of runs cannot."""
    queued = [f.RunQueued(1, 1, START, by) for by in ("manual", "schedule", "reboot")]
    assert [fact.is_urgent() for fact in queued] == [False, True, True]
    said = [f.OutputReceived(1, 1, [[fd, "x"]]) for fd in (0, 1)]
    assert [fact.is_urgent() for fact in said] == [True, False]


def test_a_command_may_hold_any_character_that_is_no_control_character() -> None:
    """It is escaped where it is shown, not refused."""
    driver = Driver()
    driver.line("ADD @daily echo a\u2028b\u202ec")
    assert driver.state.tasks[1].spec.command == "echo a\u2028b\u202ec"
    with pytest.raises(Refusal, match="control character"):
        driver.line("ADD @daily echo a\x85b")


@pytest.fixture
def zone_file(tmp_path: Path) -> Iterator[Path]:
    """The file of the zone Test/Zone, at first as in Paris."""
    (tmp_path / "Test").mkdir()
    shutil.copy(ZONES / "Europe" / "Paris", tmp_path / "Test" / "Zone")
    zoneinfo.reset_tzpath([tmp_path])
    yield tmp_path / "Test" / "Zone"
    zoneinfo.reset_tzpath()
    reload_zones()


def test_new_zone_data_moves_what_is_to_come(zone_file: Path) -> None:
    """HUP after a government has changed its mind: tasks follow, without a restart."""
    driver = Driver()
    driver.line("ADD tz=Test/Zone 0 18 * * * x")
    assert driver.state.tasks[1].due_at == START + timedelta(hours=5)
    shutil.copy(ZONES / "Asia" / "Tokyo", zone_file)
    reload_zones()
    finish(driver.state.parse_again())
    (fact,) = driver.do(o.RescheduleTasks()).facts
    assert fact == f.TaskRescheduled(1, START + timedelta(hours=21))


def test_a_task_that_cannot_be_read_any_more_is_kept_and_comes_back(zone_file: Path) -> None:
    """A zone that left the zone data must not keep the daemon, and all other tasks, from starting."""
    driver = Driver()
    driver.line("ADD name=odd prio=high tz=Test/Zone 0 18 * * * x")
    driver.line("ADD 0 18 * * * y")
    record = dict(driver.state.tasks[1].spec.record)
    aside = zone_file.rename(zone_file.with_name("Aside"))
    reload_zones()
    driver.restart()
    task = driver.state.tasks[1]
    assert (task.spec.record, task.spec.unread is not None) == (record, True)
    assert driver.state.tasks[2].due_at is not None
    aside.rename(zone_file)
    reload_zones()
    driver.restart()
    assert driver.state.tasks[1].due_at == START + timedelta(hours=5)
    assert driver.state.tasks[1].spec.record == record


def test_a_task_that_cannot_be_read_any_more_is_mended_by_set(zone_file: Path) -> None:
    """Its other options are not lost on the way."""
    driver = Driver()
    driver.line("ADD name=odd prio=high tz=Test/Zone 0 18 * * * x")
    zone_file.unlink()
    reload_zones()
    driver.restart()
    driver.line("SET odd tz=UTC")
    task = driver.state.tasks[1]
    assert (task.spec.unread, task.spec.options.prio, task.due_at) == (
        None,
        "high",
        START + timedelta(hours=6),
    )


def test_a_task_that_is_mended_waits_for_nobody_who_is_not_there() -> None:
    """Such a name would never end, and whoever came to bear it later would be waited for by surprise."""
    driver = Driver()
    driver.line("ADD name=b @daily b")
    driver.state.apply(
        f.TaskChanged(1, 2, {"schedule": "@after", "command": "b", "jobName": "b"}, None), START
    )
    assert driver.state.tasks[1].spec.unread
    with pytest.raises(Refusal, match='no task "a"'):
        driver.line("SET b after=a")
    driver.line("ADD name=a @daily a")
    driver.line("SET b after=2")
    assert driver.state.tasks[1].spec.options.after == ("a",)


def test_tasks_from_which_nothing_follows_are_judged_some_at_a_time() -> None:
    """After a start all that wait for others are looked at: a million of them must not stop everybody."""
    driver = Driver()
    driver.line("ADD name=first @daily x")
    for _ in range(250):
        driver.line("ADD after=first @daily x")
    driver.state.to_judge.update(dict.fromkeys(range(1000, 1000 + 2 * MAX_JUDGED)))
    left = []
    while isinstance(step := driver.engine.next_step(driver.now), o.PassOver):
        left.append(len(driver.state.to_judge))
        driver.do(step)
    assert (left, step) == ([MAX_JUDGED + 250, 250], None)


def test_an_after_task_that_waits_for_its_turn_fires_once_for_one_end() -> None:
    """With overlap=queue, one end of a dependency was one fire too many: as many as the queue would take."""
    driver = Driver()
    join(driver, slots=8)
    driver.line("ADD name=first overlap=allow 0 0 1 1 * x")
    driver.line("ADD name=second overlap=queue after=first @after y")
    for run in (1, 3):
        driver.line("RUN first")
        driver.pump()
        done(driver, "w1", run)
        driver.pump()
    assert [(run.id, run.state) for run in driver.state.runs.values()] == [(2, "sent"), (4, "parked")]
    done(driver, "w1", 2)
    assert [line.split()[1] for _, line in driver.pump()] == ["4"]
    done(driver, "w1", 4)
    assert (driver.pump(), driver.state.runs) == ([], {})


def test_two_ends_in_one_instant_are_two_fires_with_two_names() -> None:
    """A job that takes its fire id for a key would think that the second one was done already."""
    driver = Driver()
    join(driver, slots=8)
    driver.line("ADD name=first overlap=allow 0 0 1 1 * x")
    driver.line("ADD name=second overlap=allow after=first @after y")
    driver.line("RUN first")
    driver.line("RUN first")
    driver.pump()
    fires = set()
    for run in (1, 2):
        done(driver, "w1", run)
        fires |= {line.split()[4] for _, line in driver.pump()}
    assert fires == {f"fire=2/2030-01-01T12:00:00Z/{run}" for run in (3, 4)}


def test_what_was_let_go_late_goes_before_what_came_meanwhile() -> None:
    """A retry that was due while no daemon ran has waited longer than a run of this moment."""
    driver = running("retry=fixed:1:60s 0 0 1 1 * x")
    done(driver, "w1", 1, exit_code=1)
    driver.line("ADD 2 12 * * * y")
    driver.now += timedelta(minutes=2)
    assert [line.split()[1] for _, line in driver.pump()] == ["1", "2"]


@pytest.mark.parametrize("how", ["hup", "zone", "set", "restart"])
def test_a_clock_set_back_by_an_hour_repeats_nothing_whatever_is_done_then(how: str) -> None:
    """A backup that ran at ten must not run again at the second ten because somebody sent HUP."""
    driver = Driver()
    driver.line("ADD */10 * * * * x")
    driver.wait(3600)
    driver.now -= timedelta(hours=1)
    if how != "restart":
        driver.do(o.NoticeStep(-3600.0))
    match how:
        case "hup":
            driver.do(o.RescheduleTasks())
        case "zone":
            driver.do(o.StartDaemon("1", "Europe/Paris"))
        case "set":
            driver.line('SET 1 schedule="*/5 * * * *"')
        case "restart":
            driver.restart()
            driver.do(o.RescheduleTasks())
    assert driver.state.tasks[1].due_at == START + timedelta(minutes=65 if how == "set" else 70)


def test_a_clock_set_back_by_years_while_no_daemon_ran_is_taken_as_it_is() -> None:
    """A machine that woke up in 2040: nothing may stay silent until then."""
    driver = Driver()
    driver.line("ADD 0 * * * * x")
    driver.now += timedelta(days=3650)
    driver.pump()
    driver.now = START + timedelta(hours=1)
    driver.restart()
    assert driver.state.tasks[1].due_at == START + timedelta(hours=2)
    driver.do(o.RescheduleTasks())
    assert driver.state.tasks[1].due_at == START + timedelta(hours=2)


def test_now_on_all_workers_is_a_run_for_each() -> None:
    """It waited for a worker named `all`, and was missed."""
    driver = Driver()
    with pytest.raises(Refusal, match="on=all, and no worker"):
        driver.line("NOW on=all x")
    join(driver, "w1")
    join(driver, "w2")
    driver.line("NOW on=all x")
    assert [worker for worker, _ in driver.pump()] == ["w1", "w2"]
    done(driver, "w1", 1)
    assert driver.state.tasks
    done(driver, "w2", 2)
    assert not driver.state.tasks


def test_now_waits_for_what_it_is_to_come_after() -> None:
    """after= and jitter= hold for a one-off as for any task."""
    driver = running("name=first 0 0 1 1 * x")
    driver.line("NOW after=first y")
    assert driver.pump() == []
    done(driver, "w1", 1)
    assert [line.split()[1] for _, line in driver.pump()] == ["2"]
    driver.line("NOW jitter=10m z")
    assert driver.pump() == []
    assert [line.split()[1] for _, line in driver.wait(600)] == ["3"]


@pytest.mark.parametrize("line", ["REMOVE a", "CLEAR"])
def test_a_moment_that_has_come_is_told_before_its_task_is_removed(line: str) -> None:
    """After downtime a client may be quicker than the decisions; what was due must not vanish."""
    driver = Driver()
    driver.line("ADD name=a */10 * * * * x")
    driver.now += timedelta(minutes=35)
    driver.line(line)
    assert [(row.state, row.count) for row in driver.state.recent] == [("missed", 3)]
    driver.pump()
    assert sum(driver.state.totals.values()) == 3


def test_what_a_checkpoint_says_does_not_change_with_the_state() -> None:
    """A fact is a value; one that shared a table with the state would count on after it was told."""
    driver = running("0 0 1 1 * x")
    done(driver, "w1", 1)
    before = snapshot(driver.state)
    again = type(driver.state)("UTC")
    for fact in before:
        again.apply(fact, driver.now)
    for _ in range(2):
        again.apply(f.FiresPassed(1, "task_1", "missed", START, START, 5, "", None), driver.now)
    assert before == snapshot(driver.state)
