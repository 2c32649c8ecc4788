"""A task whose record can no longer be read never runs, whatever would start it, and somebody is told.

Its type, its place and its bounds may be among what cannot be read, so a run of it could be
anything: a text taken for a shell command, on a machine that it was never meant for.
"""

from __future__ import annotations

import shutil
import zoneinfo
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from cronflowd.ask import commands, listing, views, why
from cronflowd.base.errors import Refusal
from cronflowd.engine import encoding
from cronflowd.engine import facts as f
from cronflowd.engine import orders as o
from cronflowd.engine.definitions import AT_ONCE, finish
from cronflowd.engine.rules import Limits
from cronflowd.schedules.schedule import reload_zones
from cronflowd.tasks.reasons import code_of, in_words
from cronflowd.tasks.targets import parse_target
from cronflowd.tasks.task import read_record
from tests.lib.engine_driver import START, Driver, snapshot

ECHO = "name=a tz=Test/Zone type=echo on=w9"
DANGER = "rm -rf everything"
ZONES = next(path for path in map(Path, zoneinfo.TZPATH) if (path / "Europe" / "Paris").exists())


@pytest.fixture
def zone(tmp_path: Path) -> Iterator[Path]:
    """The file of Test/Zone; without it no record that names it can be read."""
    (tmp_path / "Test").mkdir()
    shutil.copy(ZONES / "Europe" / "Paris", tmp_path / "Test" / "Zone")
    zoneinfo.reset_tzpath([tmp_path])
    reload_zones()
    yield tmp_path / "Test" / "Zone"
    zoneinfo.reset_tzpath()
    reload_zones()


def join(driver: Driver, name: str = "w1", *running: tuple[int, int], slots: int = 9) -> None:
    driver.do(o.JoinWorker(name, slots, {}, ("shell", "echo"), "127.0.0.1:1", running))


def by_restart(driver: Driver, zone: Path) -> None:
    zone.unlink()
    reload_zones()
    driver.restart()


def by_checkpoint(driver: Driver, zone: Path) -> None:
    """The journal was compacted before: every definition, also those of runs, comes from what is carried."""
    driver.journal = [
        encoding.encode(number, driver.now, fact, False)
        for number, fact in enumerate(driver.state.carry(), 1)
    ]
    by_restart(driver, zone)


def by_hup(driver: Driver, zone: Path) -> None:
    zone.unlink()
    reload_zones()
    finish(driver.state.parse_again())
    driver.do(o.RescheduleTasks())


GOING = pytest.mark.parametrize("go", [by_restart, by_checkpoint, by_hup])
Going = Callable[[Driver, Path], None]


def ended(driver: Driver) -> list[tuple[Any, ...]]:
    return [(row.name, row.run, row.state, code_of(row.why)) for row in driver.state.recent]


def balanced(driver: Driver) -> None:
    """Every fire has its end, and a replay tells the same."""
    assert not driver.state.ledger.balance(driver.state.runs.values()).trouble
    assert snapshot(driver.replay()) == snapshot(driver.state)


# --- what would start it ------------------------------------------------------------------------


@GOING
def test_it_is_not_run_by_hand(zone: Path, go: Going) -> None:
    """The one who asks learns why, and what to do."""
    driver = Driver()
    join(driver)
    driver.line(f"ADD {ECHO} @daily {DANGER}")
    go(driver, zone)
    with pytest.raises(
        Refusal, match=r'"a" never runs: its definition cannot be read: .*Test/Zone.*SET mends it'
    ):
        driver.line("RUN a")
    join(driver, "w9")
    assert driver.pump() == []
    driver.line("SET a tz=UTC")
    driver.line("RUN a")
    ((worker, line),) = driver.pump()
    assert (worker, "type=echo" in line) == ("w9", True)


@GOING
@pytest.mark.parametrize("by", ["schedule", "manual"])
def test_a_run_that_waits_for_a_worker_ends_skipped(zone: Path, go: Going, by: str) -> None:
    """It was queued while it could be read; now nobody knows what it is."""
    driver = Driver()
    driver.line(f"ADD {ECHO} grace=1d * * * * * {DANGER}")
    if by == "manual":
        driver.line("RUN a")
    else:
        driver.wait(60)
    assert [run.by for run in driver.state.runs.values()] == [by]
    go(driver, zone)
    join(driver)
    join(driver, "w9")
    assert driver.pump() == []
    assert ended(driver) == [("a", 1, "skipped", "unreadable")]
    assert driver.state.runs == {}
    balanced(driver)


@GOING
def test_the_next_moment_that_was_known_ends_skipped(zone: Path, go: Going) -> None:
    """The zone is gone, and with it all later moments; but this one was due, and is in the account."""
    driver = Driver()
    join(driver, "w9")
    driver.line(f"ADD {ECHO} 30 13 * * * {DANGER}")
    go(driver, zone)
    assert driver.wait(86_400) == []
    assert ended(driver) == [("a", None, "skipped", "unreadable")]
    balanced(driver)


def test_moments_that_can_still_be_known_end_skipped_each(zone: Path) -> None:
    """An option of a newer release: the schedule is as clear as ever, and silence would look like success."""
    driver = Driver()
    join(driver, "w9")
    driver.line(f"ADD name=a type=echo on=w9 0 3 * * * {DANGER}")
    driver.journal = [line.replace(b'"on":"w9"', b'"moon":"full"') for line in driver.journal]
    driver.restart()
    join(driver, "w9")
    assert driver.wait(3 * 86_400) == []
    assert ended(driver) == [("a", None, "skipped", "unreadable")] * 3
    balanced(driver)


@GOING
def test_what_waits_for_others_ends_skipped(zone: Path, go: Going) -> None:
    """@after, and a scheduled run that awaits its dependencies; who waits for them hears why."""
    driver = Driver()
    join(driver)
    driver.line("ADD name=first @daily x")
    driver.line("ADD name=a tz=Test/Zone after=first @after echo a")
    driver.line("ADD name=b tz=Test/Zone after=first * * * * * echo b")
    driver.line("ADD name=c after=a @after echo c")
    driver.wait(60)
    assert [run.state for run in driver.state.runs.values()] == ["awaiting"]
    go(driver, zone)
    join(driver)
    driver.pump()
    driver.line("RUN first")
    driver.pump()
    join(driver)
    run = max(driver.state.runs)
    driver.do(o.ReportEnded("w1", run, 1, 0, {}))
    assert driver.wait(1) == []
    assert ("a", None, "skipped", "unreadable") in ended(driver)
    assert ("b", 1, "skipped", "unreadable") in ended(driver)
    (last,) = [row for row in driver.state.recent if row.name == "c"]
    assert in_words(last.why).startswith("dependency a: skipped (its definition cannot be read")
    balanced(driver)


def test_an_unreadable_after_without_its_dependencies_fires_never(zone: Path) -> None:
    """Nothing it waits for can be read: it must not fire for want of somebody to wait for, for ever."""
    driver = Driver()
    join(driver)
    driver.line("ADD name=first @daily x")
    driver.line("ADD name=a after=first @after echo a")
    driver.line("RUN a")
    driver.pump()
    driver.journal = [line.replace(b'"after":"first"', b'"after":7.5e400') for line in driver.journal]
    driver.journal = [line.replace(b"7.5e400", b'{"not":"a list"}') for line in driver.journal]
    driver.restart()
    assert driver.pump() == []
    assert driver.state.tasks[2].spec.unread


def test_it_is_not_started_by_the_start_of_the_daemon(zone: Path) -> None:
    """@reboot."""
    driver = Driver()
    driver.line(f"ADD {ECHO} @reboot {DANGER}")
    by_restart(driver, zone)
    join(driver, "w9")
    assert driver.pump() == []
    assert ended(driver) == [("a", None, "skipped", "unreadable")]
    balanced(driver)


@GOING
def test_runs_that_are_parked_or_delayed_end_skipped(zone: Path, go: Going) -> None:
    """Behind an earlier run, by jitter=, or before the next try."""
    driver = Driver()
    join(driver, slots=2)
    driver.line("ADD name=parked tz=Test/Zone overlap=queue @daily a")
    driver.line("ADD name=retried tz=Test/Zone retry=fixed:3:1h @daily b")
    driver.line("ADD name=late tz=Test/Zone jitter=1h * * * * * c")
    driver.line("RUN parked")
    driver.line("RUN parked")
    driver.line("RUN retried")
    driver.pump()
    driver.do(o.ReportEnded("w1", 3, 1, 1, {}))
    driver.wait(60)
    waiting = {run.id: run.state for run in driver.state.runs.values()}
    assert waiting == {1: "sent", 2: "parked", 3: "delayed", 4: "delayed"}
    go(driver, zone)
    join(driver, "w1", (1, 1))
    assert driver.pump() == []
    assert list(driver.state.runs) == [1]
    assert {row[1]: row[2:] for row in ended(driver) if row[1] and row[2] == "skipped"} == {
        2: ("skipped", "unreadable"), 3: ("skipped", "unreadable"), 4: ("skipped", "unreadable"),
    }  # fmt: skip
    assert driver.wait(86_400) == []
    balanced(driver)


@GOING
@pytest.mark.parametrize("end", ["ok", "failed", "lost", "timeout"])
def test_what_a_worker_holds_goes_on_to_its_end_and_is_not_tried_again(
    zone: Path, go: Going, end: str
) -> None:
    """It began while it could be read. Its timeout= is still its timeout; a new attempt would be a guess."""
    driver = Driver()
    join(driver, "w9")
    driver.line(f"ADD {ECHO} retry=fixed:3:1s lost=rerun timeout=90s @daily hello")
    driver.line("RUN a")
    assert len(driver.pump()) == 1
    go(driver, zone)
    if end == "lost":
        driver.do(o.DropWorker("w9", "it is gone"))
        assert driver.wait(31) == []
    else:
        join(driver, "w9", (1, 1))
        if end == "timeout":
            assert driver.wait(91) == [("w9", "KILL 1 1")]
        driver.do(o.ReportEnded("w9", 1, 1, 0 if end == "ok" else 1, {}))
    assert [(row.state, row.attempt) for row in driver.state.recent] == [(end, 1)]
    assert driver.state.runs == {}
    join(driver, "w9")
    assert driver.wait(3600) == []
    balanced(driver)


@GOING
@pytest.mark.parametrize("since", ["SET a desc=other", "SET a tz=UTC", "REMOVE a"])
def test_a_run_with_a_definition_of_its_own_is_read_again_too(zone: Path, go: Going, since: str) -> None:
    """Its task was changed, or removed, since it was queued: what counts is what it would run."""
    driver = Driver()
    join(driver, "w9")
    driver.line(f"ADD {ECHO} retry=fixed:9:1s @daily {DANGER}")
    driver.line("RUN a")
    driver.pump()
    driver.line(since)
    go(driver, zone)
    driver.pump()
    join(driver, "w9", (1, 1))
    driver.do(o.ReportEnded("w9", 1, 1, 1, {}))
    assert driver.wait(60) == []
    assert [(row.state, row.attempt) for row in driver.state.recent] == [("failed", 1)]
    balanced(driver)


@GOING
def test_an_order_that_never_left_is_not_sent_again(zone: Path, go: Going) -> None:
    """The run goes back to those that wait, where it ends: it never began."""
    driver = Driver()
    join(driver, "w9")
    driver.line(f"ADD {ECHO} @daily {DANGER}")
    driver.line("RUN a")
    assert len(driver.pump()) == 1
    go(driver, zone)
    driver.pump()
    driver.do(o.DropWorker("w9", "it is gone", unsent=((1, 1),)))
    join(driver, "w9")
    assert driver.pump() == []
    assert ended(driver) == [("a", 1, "skipped", "unreadable")]
    balanced(driver)


def test_a_run_of_a_task_that_is_gone_ends_too(zone: Path) -> None:
    """Its definition stands with the run; nothing else knows of it."""
    driver = Driver()
    join(driver, "w9")
    driver.line(f"ADD {ECHO} retry=fixed:3:1h @daily {DANGER}")
    driver.line("RUN a")
    driver.pump()
    driver.line("REMOVE a")
    driver.do(o.ReportEnded("w9", 1, 1, 1, {}))
    by_checkpoint(driver, zone)
    join(driver, "w9")
    assert driver.wait(4000) == []
    assert driver.state.runs == {}
    balanced(driver)


@GOING
def test_what_the_clock_leaps_over_and_what_was_due_before_a_change_end_skipped(
    zone: Path, go: Going
) -> None:
    """The ways on which moments pass that are not the usual one."""
    driver = Driver()
    driver.line(f"ADD {ECHO} 30 13 * * * {DANGER}")
    go(driver, zone)
    driver.now += timedelta(hours=5)
    driver.do(o.NoticeStep(5 * 3600.0))
    driver.pump()
    assert ended(driver) == [("a", None, "skipped", "unreadable")]
    driver.line("SET a tz=UTC on=any")
    assert driver.state.tasks[1].due_at == START + timedelta(hours=25, minutes=30)
    balanced(driver)


def test_no_order_line_can_be_made_of_it(zone: Path) -> None:
    """The last door, should every other one be left open some day."""
    driver = Driver()
    driver.line(f"ADD {ECHO} @daily {DANGER}")
    driver.line("RUN a")
    zone.unlink()
    reload_zones()
    finish(driver.state.parse_again())
    join(driver, "w9")
    with pytest.raises(AssertionError, match="cannot be read"):
        driver.engine.decide(o.PlaceRuns([(1, "w9")]), driver.now)


# --- other zone data than it was read with -------------------------------------------------------


def new_zone(driver: Driver, zone: Path) -> None:
    """HUP with data that put Test/Zone six hours further west."""
    shutil.copy(ZONES / "America" / "New_York", zone)
    reload_zones()
    finish(driver.state.parse_again())
    driver.do(o.RescheduleTasks())


@pytest.mark.parametrize("tasks", [1, AT_ONCE + 1])
@pytest.mark.parametrize("is_carried", [False, True])
def test_zone_data_that_came_while_no_daemon_ran_hold_from_the_start(
    zone: Path, tasks: int, is_carried: bool
) -> None:
    """A package is renewed, the machine started anew: the next backup would run by the old data once more."""
    driver = Driver()
    driver.do(o.StartDaemon("1", "UTC", zones="2026a"))
    for _ in range(tasks):
        driver.line("ADD tz=Test/Zone 0 20 * * * x")
    shutil.copy(ZONES / "America" / "New_York", zone)
    reload_zones()
    driver.take_over(driver.carried() if is_carried else driver.replay())
    driver.do(o.StartDaemon("1", "UTC", zones="2026b"))
    driver.pump()
    assert {task.due_at for task in driver.state.tasks.values()} == {START.replace(day=2, hour=1)}
    driver.take_over(driver.replay())
    assert len(driver.do(o.StartDaemon("1", "UTC", zones="2026b")).facts) == 1  # the same data: nothing to do


@pytest.mark.parametrize("verb", ["ADD", "LOAD", "LOAD of a known task"])
def test_an_order_that_was_read_before_new_zone_data_follows_them(zone: Path, verb: str) -> None:
    """It may wait meanwhile, for a calendar or for the rest of its file."""
    driver = Driver()
    if "known" in verb:
        driver.line("ADD name=a @daily x")
    line = "ADD name=a tz=Test/Zone 0 20 * * * x"
    order = commands.parse(line, commands.Context(driver.now, "UTC"))
    new_zone(driver, zone)
    driver.do(order if verb == "ADD" else o.LoadTasks([(None, order.spec)]))
    (task,) = driver.state.tasks.values()
    assert task.due_at == START.replace(day=2, hour=1)
    driver.wait(86_400)
    assert task.due_at == START.replace(day=3, hour=1)


def test_a_large_undo_that_began_before_new_zone_data_follows_them(zone: Path) -> None:
    """Its definitions were read when it was planned."""
    driver = Driver()
    for _ in range(AT_ONCE + 1):
        driver.line("ADD tz=Test/Zone 0 20 * * * x")
    for line in ("CLEAR", "UNDO"):
        driver.pump()
        driver.line(line)
    while not driver.state.tasks:
        driver.do(driver.engine.next_slice(driver.now))
    new_zone(driver, zone)
    driver.pump()
    assert len(driver.state.tasks) == AT_ONCE + 1
    assert {task.due_at for task in driver.state.tasks.values()} == {START.replace(day=2, hour=1)}


# --- who is told ----------------------------------------------------------------------------------


def told(driver: Driver) -> list[str]:
    payloads = (task.spec.options.payload for task in driver.state.tasks.values() if task.is_notice)
    return [orjson.loads(text)["headline"] for text in payloads]


@GOING
@pytest.mark.parametrize("own", ["", " notify=https://own.example.org/x"])
def test_somebody_is_told_at_once(zone: Path, go: Going, own: str) -> None:
    """Not at the next moment: nobody knows when that would have been. By its own notify= if it has one."""
    general = () if own else (parse_target("https://ops.example.org/hook"),)
    driver = Driver(Limits(lease_s=30.0, notify=general))
    driver.line(f"ADD {ECHO}{own} @daily {DANGER}")
    go(driver, zone)
    assert driver.pump() == []
    assert told(driver) == ["a was not started: its definition cannot be read"]
    driver.restart()
    driver.pump()
    assert len(told(driver)) == 1  # the limit: once an hour
    assert driver.state.untold == {}
    driver.now += timedelta(hours=2)
    driver.restart()
    driver.pump()
    assert len(told(driver)) == 2
    balanced(driver)


def test_it_is_told_again_when_a_moment_passes_and_its_recovery_too(zone: Path) -> None:
    """Silence in the night after would look like success; and that it is well again is news."""
    driver = Driver(Limits(lease_s=30.0, notify=(parse_target("https://ops.example.org/hook"),)))
    driver.line("ADD name=a 0 3 * * * x")
    driver.journal = [line.replace(b'"command"', b'"moon":"full","command"') for line in driver.journal]
    driver.restart()
    driver.wait(16 * 3600)
    assert told(driver) == ["a was not started: its definition cannot be read"] * 2
    for fact in (f.TaskChanged(1, 2, {"schedule": "0 3 * * *", "command": "x", "jobName": "a"}, None),):
        driver.state.apply(fact, driver.now)
    join(driver)
    driver.line("RUN a")
    driver.pump()
    run = next(run.id for run in driver.state.runs.values() if run.by == "manual")
    driver.do(o.ReportEnded("w1", run, 1, 0, {}))
    assert "a is well again" in told(driver)


@GOING
def test_whoever_asks_sees_it(zone: Path, go: Going) -> None:
    """LIST, GET, STATUS, FAILED and WHY; all of them say so, and none of them shows what is not so."""
    driver = Driver()
    driver.line(f"ADD {ECHO} @daily {DANGER}")
    driver.line("ADD @daily fine")
    go(driver, zone)
    driver.pump()
    state, context = driver.state, commands.Context(driver.now, "UTC")
    listed = listing.list_tasks(state, commands.parse("LIST state=unreadable", context), driver.now).rows
    assert [row[1] for row in listed] == ["a"]
    shown = dict(views.get_task(state, commands.parse("GET a", context), driver.now).rows)
    assert (shown["type"], shown["on"], shown["tz"]) == ("echo", "w9", "Test/Zone")
    assert "Test/Zone" in shown["unreadable"]
    assert ("unreadable", 1) in views.status_rows(state, driver.now)
    (row,) = views.list_failed(state, commands.parse("FAILED", context), driver.now).rows
    assert (row[1], row[3], row[7].partition(":")[0]) == ("a", "unreadable", "its definition cannot be read")
    assert "cannot be read" in str(why.explain_never(state, state.tasks[1], driver.now))
    driver.line("SET a tz=UTC")
    assert not [key for key, _ in views.status_rows(driver.state, driver.now) if key == "unreadable"]


def test_moments_to_come_say_that_they_will_be_skipped() -> None:
    """NEXT and WHY know when; neither may promise what will not happen."""
    driver = Driver()
    driver.line("ADD name=a 0 3 * * * x")
    driver.journal = [line.replace(b'"command"', b'"moon":"full","command"') for line in driver.journal]
    driver.restart()
    state, now = driver.state, driver.now
    asked = commands.parse("NEXT a n=2", commands.Context(now, "UTC"))
    assert [row[2] for row in views.show_next(state, asked, now).rows] == ["skipped-unreadable"] * 2
    rows, disposition = why.explain_unknown(state, state.tasks[1], START + timedelta(hours=15), now)
    assert (disposition, rows[2][1].partition(":")[0]) == (
        "pending", "but it will be skipped, if SET does not mend it before",
    )  # fmt: skip


def test_many_are_told_one_small_step_each(zone: Path) -> None:
    """A million tasks of a zone that is gone must not become one decision that no disk takes."""
    driver = Driver()
    for _ in range(50):
        driver.line("ADD tz=Test/Zone @daily x")
    by_restart(driver, zone)
    steps = []
    while (step := driver.engine.next_step(driver.now)) is not None:
        steps.append((type(step), len(driver.do(step).facts)))
    assert steps == [(o.TellUnread, 1)] * 50


def test_undo_that_brings_one_back_says_so(zone: Path) -> None:
    """It could be read when it was removed."""
    driver = Driver()
    driver.line(f"ADD {ECHO} @daily {DANGER}")
    driver.do(commands.parse("REMOVE a", commands.Context(driver.now, "UTC")))
    # As a client's order, so that it is a change that UNDO knows.
    driver.engine.decide(o.ClearTasks(), driver.now, "ann")
    by_restart(driver, zone)
    driver.line("UNDO")
    assert list(driver.state.untold) == [1]
    driver.pump()
    assert driver.state.tasks[1].failure is not None
    assert driver.state.tasks[1].failure.state == "unreadable"


# --- what is kept -----------------------------------------------------------------------------------


def test_what_can_be_read_of_it_counts() -> None:
    """Whom to tell, how long a run may take, whom it waits for; the record itself stays as it was."""
    record = {
        "schedule": "0 3 * * *", "command": "x", "jobName": "a", "type": "echo", "timeout": "30s",
        "moon": "full", "after": "b", "env.X": "1", "prio": "urgent", "notify": "mailto:a@example.org",
    }  # fmt: skip
    spec = read_record(record, "UTC")
    assert spec.unread is not None
    assert spec.record == record
    options = spec.options
    assert (options.type, options.timeout_s, options.after, options.prio) == ("echo", 30.0, ("b",), "medium")
    assert (spec.schedule.kind, options.notify.text, options.env) == (
        "cron", "mailto:a@example.org", (("X", "1"),),
    )  # fmt: skip


def test_a_dependency_that_is_renamed_or_removed_is_so_in_its_record_too(zone: Path) -> None:
    """Or mending it later would look for somebody who is not there."""
    driver = Driver()
    driver.line("ADD name=first @daily x")
    driver.line("ADD name=a tz=Test/Zone after=first @daily y")
    by_restart(driver, zone)
    driver.line("SET first name=second")
    assert driver.state.tasks[2].spec.record["after"] == "second"
    driver.line("REMOVE second force=yes")
    driver.line("SET a tz=UTC")
    assert driver.state.tasks[2].spec.options.after == ()


def test_a_record_that_can_be_read_again_after_hup_can_be_removed(zone: Path) -> None:
    """Its dependencies are known again, and the tables by name with them."""
    driver = Driver()
    driver.line("ADD name=first @daily x")
    driver.line("ADD name=a tz=Test/Zone after=first @daily y")
    aside = zone.rename(zone.with_name("Aside"))
    reload_zones()
    driver.restart()
    aside.rename(zone)
    reload_zones()
    finish(driver.state.parse_again())
    driver.do(o.RescheduleTasks())
    driver.pump()
    assert (driver.state.unread, driver.state.dependents) == ({}, {"first": {2}})
    driver.line("REMOVE a")
    assert driver.state.dependents == {}


def test_the_state_that_a_replay_gives_is_one_that_a_new_daemon_goes_on_from(zone: Path) -> None:
    """What was told stays told between two starts."""
    driver = Driver()
    driver.line(f"ADD {ECHO} @daily {DANGER}")
    by_restart(driver, zone)
    driver.pump()
    state = driver.replay()
    assert (state.untold, list(state.unread)) == ({}, [1])
    state.apply(f.DaemonStarted("1", "UTC", driver.now), driver.now)
    assert list(state.untold) == [1]


def test_the_one_moment_that_is_known_of_a_zone_that_is_gone_is_named(zone: Path) -> None:
    """LIST showed it, and NEXT said nothing at all."""
    driver = Driver()
    driver.line(f"ADD {ECHO} * * * * * x")
    by_restart(driver, zone)
    asked = commands.parse("NEXT a", commands.Context(driver.now, "UTC"))
    due_at = START + timedelta(minutes=1)
    moments = [(due_at.isoformat(), due_at, "skipped-unreadable")]
    assert list(views.show_next(driver.state, asked, driver.now).rows) == moments
