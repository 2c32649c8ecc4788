"""What becomes of due moments: bounds, days off, and whatever else happens just then."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any

import orjson
import pytest

from cronflowd.ask import listing, views
from cronflowd.ask import questions as q
from cronflowd.base.errors import Refusal
from cronflowd.engine import orders as o
from cronflowd.schedules.calendars import Calendar
from cronflowd.schedules.zones import load_zone
from cronflowd.tasks.reasons import in_words
from cronflowd.tasks.task import parse_record
from tests.lib.engine_driver import Driver, snapshot


def due_task(options: str, schedule: str = "* * * * *") -> Driver:
    """A task whose moment has come and was not decided yet."""
    driver = Driver()
    driver.line(f"ADD name=job {options} {schedule} job")
    driver.now += timedelta(seconds=60.5)
    return driver


def journaled(driver: Driver, kind: str) -> list[dict[str, Any]]:
    records = [orjson.loads(line) for line in driver.journal]
    return [record for record in records if record["fact"] == kind]


@pytest.mark.parametrize(
    "change", ["end=2031-01-01T00:00:00Z", 'schedule="0 0 1 1 *"', "spread=1h", "count=5"]
)
def test_a_moment_that_is_due_when_its_task_is_changed_is_not_lost(change: str) -> None:
    """Every moment that came due is accounted for, however busy the port is just then."""
    driver = due_task("")
    driver.line(f"SET job {change}")
    driver.pump()
    (queued,) = journaled(driver, "RunQueued")
    assert queued["due_at"] == "2030-01-01T12:01:00Z"


@pytest.mark.parametrize("down_from", ["2030-03-29T12:00:00+00:00", "2030-03-30T20:00:00+00:00"])
def test_what_a_leap_brought_together_is_caught_up_when_only_days_off_have_passed_since(
    down_from: str,
) -> None:
    """As at a leap itself: each of the moments, and none of them twice."""
    driver = Driver()
    driver.now = datetime.fromisoformat(down_from)
    driver.state.calendars.known["file:off"] = Calendar({date(2030, 4, 1): "off"})
    driver.line("ADD name=job grace=9d overlap=allow skip=file:off tz=Europe/Paris 0,30 2 * * * job")
    driver.now = datetime(2030, 4, 1, 12, tzinfo=UTC)
    driver.pump()
    runs = [(record["due_at"], record.get("nth", 1)) for record in journaled(driver, "RunQueued")]
    assert runs == [("2030-03-31T01:00:00Z", 1), ("2030-03-31T01:00:00Z", 2)]
    passed = Counter[str]()
    for record in journaled(driver, "FiresPassed"):
        passed[record["state"]] += record["count"]
    missed = {"missed": 2} if "29T" in down_from else {}
    assert passed == missed | {"skipped": 2}
    assert snapshot(driver.replay()) == snapshot(driver.state)


@pytest.mark.parametrize("late_s", [600, 1200, 1800, 1801, 3000])
def test_catching_up_all_runs_what_is_exactly_as_late_as_it_may_be(late_s: int) -> None:
    """At most grace= ago is within it, whether or not older moments were missed."""
    driver = Driver()
    driver.line("ADD name=job catchup=all grace=10m overlap=allow @every 10m job")
    driver.now += timedelta(seconds=late_s)
    driver.pump()
    runs = [record["due_at"] for record in journaled(driver, "RunQueued")]
    assert len(runs) == late_s // 600 - sum(record["count"] for record in journaled(driver, "FiresPassed"))
    assert runs == [
        f"2030-01-01T12:{at}0:00Z" for at in range(late_s // 600 + 1) if at and late_s - 600 * at <= 600
    ]


def test_a_moment_that_is_due_when_a_file_is_loaded_is_not_lost() -> None:
    """LOAD keeps a task of the same name; what it owed by its old definition is told."""
    driver = due_task("")
    _, spec = parse_record({"schedule": "@daily", "command": "x", "jobName": "job"}, "UTC")
    driver.do(o.LoadTasks([(None, spec)]))
    driver.pump()
    (passed,) = journaled(driver, "FiresPassed")
    assert (passed["state"], passed["count"], passed["last_due_at"]) == ("missed", 1, "2030-01-01T12:01:00Z")


def test_moments_of_one_instant_that_were_decided_are_not_decided_again_after_a_change() -> None:
    """Two of three moments at a leap have run; SET must not bring them back."""
    driver = Driver()
    driver.now = datetime(2030, 3, 31, 0, 30, tzinfo=UTC)
    driver.line("ADD name=job overlap=allow tz=Europe/Paris 0,20,40 2 * * * job")
    driver.now = datetime(2030, 3, 31, 1, 0, tzinfo=UTC)
    for _ in range(2):
        driver.do(driver.engine.next_step(driver.now))
    driver.line("SET job timeout=5m")
    driver.pump()
    assert [record.get("nth") for record in journaled(driver, "RunQueued")] == [None, 2, 3]


def test_a_restart_between_moments_of_one_instant_decides_the_rest_as_missed_or_run() -> None:
    """Of three moments at a leap one had been decided; the count of the others is two, on a day off too."""
    driver = Driver()
    driver.now = datetime(2030, 3, 31, 0, 30, tzinfo=UTC)
    driver.state.calendars.known = {"file:off": Calendar({driver.now.date(): ""})}
    driver.line("ADD name=job catchup=skip skip=file:off tz=Europe/Paris 0,20,40 2 * * * job")
    driver.now = datetime(2030, 3, 31, 1, 0, tzinfo=UTC)
    driver.do(driver.engine.next_step(driver.now))
    driver.now = datetime(2030, 4, 2, 12, 0, tzinfo=UTC)
    driver.pump()
    passed = journaled(driver, "FiresPassed")
    assert sum(record["count"] for record in passed) == 3 + 3 + 3
    assert sum(record["count"] for record in passed if record["state"] == "skipped") == 3


def test_days_off_hold_all_moments_from_midnight_to_midnight() -> None:
    """The first moment of a day off and the last one belong to it, those around it do not."""
    driver = Driver()
    day = driver.now.date() + timedelta(days=1)
    driver.state.calendars.known = {"file:off": Calendar({day: ""})}
    driver.line("ADD name=job skip=file:off 0 * * * * job")
    driver.now += timedelta(days=4)
    driver.pump()
    skipped = [record for record in journaled(driver, "FiresPassed") if record["state"] == "skipped"]
    assert [(record["count"], record["first_due_at"], record["last_due_at"]) for record in skipped] == [
        (24, f"{day}T00:00:00Z", f"{day}T23:00:00Z")
    ]


def test_after_and_reboot_heed_days_off_and_a_count_that_is_used_up() -> None:
    """No clock starts them, and yet a closed shop is closed."""
    driver = Driver()
    driver.state.calendars.known = {"file:off": Calendar({driver.now.date(): ""})}
    driver.line("ADD name=first 0 0 1 1 * first")
    driver.line("ADD name=then skip=file:off after=first @after then")
    driver.line("ADD name=boot count=1 @reboot boot")
    driver.do(o.JoinWorker("w1", 4, {}, ("shell",), "test", ()))
    driver.line("RUN first")
    driver.pump()
    driver.do(o.ReportEnded("w1", 1, 1, 0, {}))
    driver.pump()
    assert [record["name"] for record in journaled(driver, "FiresPassed")] == ["then"]
    for _ in range(2):
        driver.do(o.StartDaemon("1", "UTC"))
        driver.pump()
    assert [record["by"] for record in journaled(driver, "RunQueued")] == ["manual", "reboot"]


def test_with_count_a_fire_that_a_dependency_skipped_leaves_its_place() -> None:
    """count=1 is one fire that was neither skipped nor missed."""
    driver = Driver()
    driver.do(o.JoinWorker("w1", 4, {}, ("shell",), "test", ()))
    driver.line("ADD name=first 0 0 1 1 * first")
    driver.line("ADD name=job count=1 after=first * * * * * job")
    driver.wait(61)
    driver.line("RUN first")
    driver.pump()
    run = journaled(driver, "RunQueued")[-1]["run"]
    driver.do(o.ReportEnded("w1", run, 1, 1, {}))
    driver.pump()
    task = driver.state.find("job")
    assert task
    assert (task.fired, task.due_at) == (
        0,
        driver.now.replace(second=0, microsecond=0) + timedelta(minutes=1),
    )


def test_with_all_workers_a_moment_counts_once() -> None:
    """count=2 on three workers is two moments and six runs, as NEXT says beforehand."""
    driver = Driver()
    for name in ("w1", "w2", "w3"):
        driver.do(o.JoinWorker(name, 4, {}, ("shell",), "test", ()))
    driver.line("ADD name=job on=all count=2 overlap=allow * * * * * job")
    query = q.ShowNext("job", "", "", 9, None)
    assert len(list(views.show_next(driver.state, query, driver.now).rows)) == 2
    driver.wait(600)
    assert len(journaled(driver, "RunQueued")) == 6


def everywhere(options: str = "") -> Driver:
    """A task for all of three workers, of which the second is away: a run waits for it since 12:01."""
    driver = Driver()
    for name in ("w1", "w2", "w3"):
        driver.do(o.JoinWorker(name, 4, {}, ("shell",), "test", ()))
    driver.do(o.DropWorker("w2", "cut", 0))
    driver.line(f"ADD name=job on=all {options} * * * * * job")
    driver.wait(60)
    end_all(driver)
    return driver


def end_all(driver: Driver) -> None:
    """What the workers have got ends well."""
    for worker in driver.state.workers.values():
        for run in list(worker.runs):
            driver.do(o.ReportEnded(worker.name, run, 1, 0, {}))


def ends_at(driver: Driver, due: str) -> dict[str, str]:
    """What became of the runs of a moment, by the worker that each is for."""
    runs = {each["run"]: each["target"] for each in journaled(driver, "RunQueued") if each["due_at"] == due}
    ended = {each["run"]: each["state"] for each in journaled(driver, "RunEnded")}
    return {target: ended.get(run, "") for run, target in runs.items()}


def test_one_worker_that_is_away_keeps_a_task_from_no_other() -> None:
    """A minute's run on all of a hundred machines was skipped for an hour where one had been shut off."""
    driver = everywhere()
    sent = [worker for worker, _ in driver.wait(60)]
    assert sent == ["w1", "w3"]
    assert ends_at(driver, "2030-01-01T12:02:00Z") == {"w1": "", "w2": "skipped", "w3": ""}
    (why,) = [each["why"] for each in journaled(driver, "RunEnded") if each["state"] == "skipped"]
    assert why == {"code": "overlap", "run": 2, "state": "queued"}
    must_balance(driver)


def last_of(driver: Driver) -> list[Any]:
    """What LIST and GET tell of the last run."""
    every = q.ListTasks(frozenset(), o.Pattern("", ""), None, 0)
    (row,) = filter(None, listing.list_tasks(driver.state, every, driver.now).rows)
    rows = views.get_task(driver.state, q.GetTask("job"), driver.now).rows
    got: dict[Any, Any] = dict(filter(None, rows))
    assert [*row[6:8]] == [got["last-state"], got["last-ended"]]
    return [*row[6:8], got["last-run"]]


def test_the_last_run_is_never_one_of_a_worker_that_was_passed_over() -> None:
    """What becomes of the fire is told by the others."""
    driver = everywhere()
    before = last_of(driver)
    assert before == ["ok", driver.now, 3]
    driver.wait(60)
    assert last_of(driver) == before
    driver.wait(7)
    end_all(driver)
    assert last_of(driver) == ["ok", driver.now, 6]
    must_balance(driver)


def test_run_leaves_out_the_worker_that_has_one_still_and_says_so() -> None:
    driver = everywhere()
    told = driver.line("RUN job").told
    assert list(told.rows) == [("note", "not on w2: overlap: run 2 is still queued (overlap=skip)")]
    assert told.values["runs"] == [4, 5]
    assert [worker for worker, _ in driver.pump()] == ["w1", "w3"]
    with pytest.raises(Refusal, match="busy"):
        driver.line("RUN job")


@pytest.mark.parametrize("order", [("w1", "w3"), ("w3", "w1")])
def test_what_fails_on_one_of_all_workers_fails_until_all_have_ended_well(order: tuple[str, str]) -> None:
    """The others' good ends took it out of FAILED each night, and told `is well again` of what never was."""
    driver, told = Driver(), list[tuple[bool, int]]()
    for name in order:
        driver.do(o.JoinWorker(name, 4, {}, ("shell",), "test", ()))
    driver.line("ADD name=job on=all notify=failure+recovery:mailto:a@x.org 0 3 * * * job")
    for bad in ("w1", "w1", "", ""):
        driver.now += timedelta(hours=2)  # each is told of once an hour
        driver.line("RUN job")
        driver.pump()
        for name in order:
            (run,) = driver.state.workers[name].runs
            driver.do(o.ReportEnded(name, run, 1, int(name == bad), {}))
        fails = any(views.list_failed(driver.state, q.ListFailed(None), driver.now).rows)
        told.append((fails, len(driver.state.notices)))
        must_balance(driver)
    assert told == [(True, 1), (True, 2), (False, 3), (False, 3)]


def test_where_none_of_all_workers_is_free_the_moment_is_skipped_once() -> None:
    driver = everywhere()
    driver.wait(120)
    (passed,) = journaled(driver, "FiresPassed")
    assert (passed["state"], passed["count"], passed["last_due_at"]) == ("skipped", 1, "2030-01-01T12:03:00Z")
    must_balance(driver)


def test_who_waits_for_a_task_on_all_workers_hears_of_the_one_that_was_skipped() -> None:
    """It has not ended well on each of them."""
    driver = everywhere()
    driver.line("ADD name=then after=job @after then")
    driver.wait(60)
    end_all(driver)
    driver.pump()
    skipped = [each for each in journaled(driver, "FiresPassed") if each["name"] == "then"]
    assert [each["why"]["code"] for each in skipped] == ["dependency"]


@pytest.mark.parametrize("on", ["any", "w1", "label:a=b"])
def test_a_task_that_is_for_all_workers_no_more_has_one_run_at_a_time(on: str) -> None:
    """Runs that are for one worker each are runs of the task, whichever one it is for now."""
    driver = everywhere()
    driver.line(f"SET job on={on}")
    driver.wait(60)
    (passed,) = journaled(driver, "FiresPassed")
    assert (passed["state"], passed["why"]["run"]) == ("skipped", 2)


def test_why_a_worker_was_passed_over_stands_in_the_log_of_its_run() -> None:
    driver = everywhere()
    driver.wait(60)
    (run,) = [each["run"] for each in journaled(driver, "RunEnded") if each["state"] == "skipped"]
    assert [in_words(text) for _, text in driver.state.outputs[run].lines] == [
        "overlap: run 2 is still queued"
    ]


def test_who_said_emit_is_told_of_the_worker_that_was_passed_over_too() -> None:
    driver = everywhere()
    driver.line('SET job schedule="@on news"')
    driver.line("EMIT news A=b")
    driver.pump()
    causes = [each["cause"] for each in journaled(driver, "RunEnded") if each["state"] == "skipped"]
    assert causes == [{"code": "emitted", "event": "news", "args": "A=b"}]


@pytest.mark.parametrize("mode", ["queue1", "replace", "allow"])
def test_the_other_ways_to_overlap_go_by_all_runs_of_a_task(mode: str) -> None:
    driver = everywhere(f"overlap={mode}")
    driver.wait(60)
    assert not [each for each in journaled(driver, "RunEnded") if each["state"] == "skipped"]
    must_balance(driver)


def must_balance(driver: Driver) -> None:
    """PROVE says that nothing was lost, or refuses; and a restart finds all as it was."""
    assert list(views.prove(driver.state, q.ProveLedger(None, None), driver.now).rows)
    assert snapshot(driver.replay()) == snapshot(driver.state)


def seen_ahead(options: str, until: str) -> list[tuple[Any, ...]]:
    """DST of a task in Paris that runs at half past two: (what, old, new)."""
    driver = Driver()
    driver.line(f"ADD name=job tz=Europe/Paris {options} 30 2 * * * job")
    query = q.ShowClockChanges("job", datetime.fromisoformat(until))
    return [row[3:] for row in views.clock_changes(driver.state, query, driver.now) if row]


MOVED = ("moved", "2030-03-31T02:30:00+01:00", "2030-03-31T03:00:00+02:00")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", [MOVED]),
        ("count=1", []),
        ("count=89", [MOVED]),
        ("count=88", []),
        ("start=2030-03-31T01:00:00Z", [MOVED]),
        ("start=2030-03-31T01:00:01Z", []),
        ("end=2030-03-31T01:00:00Z", [MOVED]),
        ("end=2030-03-31T00:59:59Z", []),
    ],
)
def test_clock_changes_are_told_of_what_is_a_tasks_own(options: str, expected: list[Any]) -> None:
    """What NEXT does not show, DST must not announce; and the other way round."""
    assert seen_ahead(options, "2030-06-01T00:00:00+00:00") == expected


def test_days_off_do_not_use_up_the_rows_of_zone_differences() -> None:
    """Three days off at the beginning, and `n=3`: the differences after them are what is asked about."""
    driver = Driver()
    off = {datetime(2030, 3, 31, tzinfo=UTC).date() + timedelta(days=n): "" for n in range(3)}
    driver.state.calendars.known = {"file:off": Calendar(off)}
    driver.line("ADD name=job tz=Europe/Paris skip=file:off 30 2 * * * job")
    query = q.CompareZones("/x", "job", datetime(2031, 1, 1, tzinfo=UTC), 3)
    others = {"Europe/Paris": load_zone("Africa/Algiers")}
    rows = [row for row in views.zone_differences(driver.state, query, others, driver.now) if row]
    assert [row[3] for row in rows] == [f"2030-04-0{n}T02:30:00+02:00" for n in (3, 4, 5)]
    assert [row[5] for row in rows] == ["", "", "more"]


def test_a_zone_that_is_not_there_is_told_also_if_the_next_day_is_off() -> None:
    """`no-zone` is about the task, not about a day."""
    driver = Driver()
    driver.state.calendars.known = {"file:off": Calendar({datetime(2030, 1, 2, tzinfo=UTC).date(): ""})}
    driver.line("ADD name=job tz=Europe/Paris skip=file:off 30 2 * * * job")
    query = q.CompareZones("/x", "job", datetime(2031, 1, 1, tzinfo=UTC), 3)
    rows = views.zone_differences(driver.state, query, {"Europe/Paris": None}, driver.now)
    assert [row[5] for row in rows if row] == ["no-zone"]
