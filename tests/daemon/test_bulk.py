"""Changes of very many tasks in the loop: how far they go ahead of the disk."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from cronflowd.ask import commands
from cronflowd.base.errors import Refusal
from cronflowd.base.replies import Reply
from cronflowd.base.walks import Steps
from cronflowd.daemon import answers, bulk, files
from cronflowd.daemon.bulk import LargeChanges
from cronflowd.daemon.core import PASSES_FOR_OTHERS, SLICES_AHEAD, Core
from cronflowd.engine import encoding
from cronflowd.engine import facts as f
from cronflowd.engine import orders as o
from cronflowd.engine.definitions import AT_ONCE, are_long
from cronflowd.engine.rules import Limits
from cronflowd.engine.state import State
from cronflowd.journal.tasks_file import read_tasks
from cronflowd.net.outbox import A_PASS, Outbox
from cronflowd.tasks.task import parse_record
from tests.lib.access_driver import House, a_house
from tests.lib.engine_driver import START
from tests.lib.harness import HandClock
from tests.lib.memory_journal import MemoryJournal
from tests.lib.sinks import SmallSink
from tests.lib.waiting import PATIENCE_S, until

MANY = 1000


class SlowJournal(MemoryJournal):
    """A disk that takes its time: what was flushed is on it when `arrive` says so."""

    def flush(self) -> None:
        """It is on its way."""

    def arrive(self) -> None:
        super().flush()


def make_core(tasks: int = MANY) -> tuple[Core, SlowJournal]:
    journal = SlowJournal()
    core = Core(State("UTC"), journal, HandClock(START), Limits())
    journal.notify = core.committed
    core.submit(o.StartDaemon("1", "UTC"))
    for number in range(1, tasks + 1):
        added = commands.parse(f"ADD name=n{number} 0 1 * * * true", commands.Context(START, "UTC"))
        core.submit(added)
    journal.arrive()
    return core, journal


def test_slices_wait_for_those_who_watch() -> None:
    """A thousand who watch are told of a slice in several passes, and of the next one only then."""
    core, journal = make_core()
    sinks = [SmallSink() for _ in range(3 * A_PASS)]
    for sink in sinks:
        Outbox(sink, core.gate, 1000).put_rows(iter([(b"row\n", core.last_seq + 1)]), core.last_seq + 1)
    core.submit(o.ClearTasks())
    journal.arrive()
    passes = 0
    while core.gate.owes_some:
        assert not core.take_slice()
        core.beat()
        passes += 1
    assert passes == 2
    assert all(sink.sent for sink in sinks)
    assert core.take_slice()


def test_slices_go_on_while_jobs_end_all_the_time_and_a_thousand_watch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Somebody was always owed a row: CLEAR of 300,000 tasks took minutes, and all changes waited for it."""
    core, journal = make_core()
    core.submit(o.ClearTasks())
    journal.arrive()
    for _ in range(3):
        core.gate.is_crowded = True
        assert [core.take_slice() for _ in range(PASSES_FOR_OTHERS + 1)] == [False] * PASSES_FOR_OTHERS + [
            True
        ]
        journal.arrive()


async def test_a_file_holds_the_tasks_as_they_were_when_it_was_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SAVE of two million tasks takes a minute, in which they come, go, change and are paused."""
    core, journal = make_core()
    for line in ("PAUSE n1 n3 n904 why=tea", "PAUSE n905"):
        core.submit(commands.parse(line, commands.Context(START, "UTC")))
    monkeypatch.setattr(journal, "flush", journal.arrive)
    turns = 0

    def others() -> None:
        nonlocal turns
        turns += 1
        if turns == 2:
            for line in (
                "REMOVE n1", "REMOVE n900", "SET n2 command=no", "SET n901 command=no", "SET n902 name=x",
                "PAUSE n4 n906", "RESUME n3 n905", "ADD name=n900 @daily no", "REMOVE n903",
                f"ADD name=n{MANY + 1} @daily no",
            ):  # fmt: skip
                core.submit(commands.parse(line, commands.Context(START, "UTC")))

    monkeypatch.setattr(files, "breathe", others)
    reply = await files.Files(core, tmp_path).save(tmp_path / "x.db")
    found = list(read_tasks(tmp_path / "x.db", "UTC"))
    assert reply.text == f"{MANY} saved"
    assert [(number, spec.name, spec.command) for number, spec in found] == [
        (number, f"n{number}", "true") for number in range(1, MANY + 1)
    ]
    paused = {number: spec.pause.why for number, spec in found if spec.pause}
    assert paused == {1: "tea", 3: "tea", 904: "tea", 905: ""}
    assert core.state.unfinished.before is None


@pytest.mark.parametrize("leaves", [False, True])
async def test_a_file_holds_no_half_of_a_change_of_very_many(tmp_path: Path, leaves: bool) -> None:
    """SAVE amid a CLEAR wrote those that were still to leave, also amid a LOAD whose client had gone."""
    house = House(tmp_path)
    for number in range(3 * AT_ONCE):
        await house.ask(house.session(), f"ADD name=t{number} @daily x")
    clear = house.answers.handle("CLEAR", house.session(), house.clock.now())
    assert not isinstance(clear, Reply)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep, clear, [])
        await trio.testing.wait_all_tasks_blocked()
        assert house.core.take_slice()
        if leaves:
            nursery.cancel_scope.cancel()
        else:
            assert await house.says(house.session(), "SAVE x.db") == "OK 0 saved"
    assert await house.says(house.session(), "SAVE x.db") == "OK 0 saved"
    assert (tmp_path / "x.db").read_bytes() == b""


async def test_a_load_that_waits_for_room_does_not_keep_compaction_from_making_some(tmp_path: Path) -> None:
    """It had its turn until all was so, and the files that a checkpoint had replaced stayed: both waited."""
    house, told = House(tmp_path), list[str]()
    (tmp_path / "x.db").write_text('{"schedule": "@daily", "command": "x"}\n' * 2 * AT_ONCE)
    load = house.answers.handle("LOAD x.db", house.session(), house.clock.now())
    assert not isinstance(load, Reply)

    def is_decided() -> bool:
        house.journal.flush()
        return house.answers.files.large.decided() is not None

    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep, load, told)
        await until(is_decided)
        house.journal.full = True
        house.core.take_slice()
        await trio.testing.wait_all_tasks_blocked()
        assert not house.answers.files.turn.locked()
        assert (told, house.answers.files.large.decided() is None) == ([], False)
        house.journal.full = False
        nursery.start_soon(house._keep_beating)
        await until(lambda: told)
        nursery.cancel_scope.cancel()
    assert told == [f"{2 * AT_ONCE} loaded"]


async def keep(answer: Awaitable[Reply], answers: list[str]) -> None:
    answers.append((await answer).text)


async def test_whoever_waits_for_a_large_change_waits_for_no_later_one(tmp_path: Path) -> None:
    """The next one had begun by then: he waited for it too, for ever where it came to nothing."""
    house, told = House(tmp_path), list[str]()
    for number in range(2 * AT_ONCE):
        await house.ask(house.session(), f"ADD name=t{number} @daily x")
    clear = house.answers.handle("CLEAR", house.session(), house.clock.now())
    assert not isinstance(clear, Reply)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep, clear, told)
        await trio.testing.wait_all_tasks_blocked()
        while house.state.unfinished.bulk:
            house.journal.flush()
            house.core.take_slice()
        house.core.submit(o.StageTasks([], house.state.next_task))  # another one, which is not decided
        await trio.testing.wait_all_tasks_blocked()
        assert told == [f"{2 * AT_ONCE} removed"]
        nursery.cancel_scope.cancel()
    house.core.submit(o.DropStaged())


@pytest.mark.parametrize("later", [b"", b"\n\n\n", None])
async def test_a_file_that_changes_while_it_is_loaded_is_named_and_no_line_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: bytes | None
) -> None:
    """The line was looked for in what stands there now: `x.db line 0`, or a line about something else."""
    core, _ = make_core(0)
    circle = '{"schedule": "@after", "command": "true", "jobName": "%s", "after": "%s"}\n'
    path = tmp_path / "x.db"
    path.write_text(circle % ("a", "b") + circle % ("b", "a"))

    def read(*about: Any) -> Any:
        entries = read_tasks(*about)
        path.unlink() if later is None else path.write_bytes(later)
        return entries

    monkeypatch.setattr(files.tasks_file, "read_tasks", read)
    with pytest.raises(
        Refusal, match=r"busy x.db was changed while it was read .after=: these would wait.*nothing"
    ):
        await files.Files(core, tmp_path).load(path, "ann")


async def test_no_decision_is_long_where_few_tasks_say_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """SET of 200 tasks with 60 KB each was one step of 45 ms, and so were its UNDO and a LOAD of them."""
    core, journal = make_core(0)
    sizes, append = [], journal.append

    def measured(facts: Sequence[f.Fact], at: datetime) -> int:
        sizes.append(sum(len(encoding.encode(1, at, fact, False)) for fact in facts))
        return append(facts, at)

    monkeypatch.setattr(journal, "append", measured)
    monkeypatch.setattr(journal, "flush", journal.arrive)
    changes = LargeChanges(core)
    large = {"schedule": "@daily", "command": "x" * 60_000}
    records = [parse_record(large, "UTC") for _ in range(AT_ONCE)]
    assert are_long(spec for _, spec in records)
    await changes.done(await changes.load(o.LoadTasks(records, None, "x.db"), None), None)
    setting = commands.parse("SET name=* timeout=5m", commands.Context(START, "UTC"))
    for order in (setting, o.UndoChanges(1)):
        assert changes.is_large(order)
        await changes.change(order, None)
    assert {task.spec.options.timeout_s for task in core.state.tasks.values()} == {None}
    assert sum(sizes) > 5 * AT_ONCE * 60_000
    assert max(sizes) < 400_000


async def test_very_many_tasks_of_a_file_are_paused_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever clears and loads to mend something else must not start what was held back for a reason."""
    core, journal = make_core(1)
    monkeypatch.setattr(journal, "flush", journal.arrive)
    record = {"schedule": "@daily", "command": "true", "paused": "yes", "paused-why": "tea"}
    records = [parse_record(record, "UTC") for _ in range(MANY)]
    changes = bulk.LargeChanges(core)
    await changes.done(await changes.load(o.LoadTasks(records, None, "x.db"), None), None)
    assert {(task.paused, task.paused_why) for task in core.state.tasks.values()} == {(True, "tea")}
    assert {task.spec.pause for task in core.state.tasks.values()} == {None}
    assert len(core.state.paused) == MANY


async def test_the_ids_of_a_file_are_taken_before_anybody_else_has_a_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A notification that came between would have got the id of a task of the file."""
    core, journal = make_core()
    ids = []

    async def let_go(records: object) -> None:
        ids.append(core.state.next_task)
        raise Refusal("busy", "enough")

    monkeypatch.setattr(bulk, "let_go", let_go)
    records = [parse_record({"schedule": "@daily", "command": "true"}, "UTC") for _ in range(MANY)]
    with pytest.raises(Refusal, match="enough"):
        await bulk.LargeChanges(core).load(o.LoadTasks(records, None, "x.db"), "somebody")
    core.beat()
    assert (ids, core.state.unfinished.bulk) == ([2 * MANY + 1], None)
    journal.arrive()


def test_slices_are_few_ahead_of_the_disk() -> None:
    """All replies wait for the commits before theirs: 300 slices ahead of the disk were seconds."""
    core, journal = make_core()
    core.submit(o.ClearTasks())
    taken = []
    while core.state.unfinished.bulk:
        before = core.state.unfinished.slices
        while core.take_slice():
            pass
        taken.append(core.state.unfinished.slices - before)
        journal.arrive()
    assert max(taken) == SLICES_AHEAD


async def test_an_undo_of_many_steps_is_not_taken_for_the_next_one() -> None:
    """What it came to was kept where it was decided at once, and whoever said UNDO next got that instead."""
    core, journal = make_core(AT_ONCE)
    core.submit(o.PauseTasks(tuple(f"n{number}" for number in range(1, AT_ONCE + 1)), None, ""))
    core.submit(o.ResumeTasks(None))
    changes, order = bulk.LargeChanges(core), o.UndoChanges(1)
    assert changes.is_large(order)
    await changes.change(order, "ann")
    assert (len(core.state.paused), core.state.unfinished.bulk) == (AT_ONCE, None)
    core.submit(commands.parse("ADD name=last 0 1 * * * true", commands.Context(START, "UTC")))
    core.submit(order)
    assert core.state.find("last") is None
    journal.arrive()


async def test_very_many_that_a_pattern_chooses_are_one_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else waits for it, and a crash or UNDO finds all of it or nothing."""
    core, journal = make_core()
    monkeypatch.setattr(journal, "flush", journal.arrive)
    monkeypatch.setattr(core, "wake", lambda: None)
    large, context = bulk.LargeChanges(core), commands.Context(START, "UTC")

    async def say(line: str) -> str:
        order = commands.parse(line, context)
        assert large.is_large(order)
        reply = await large.change(order, None)
        return reply.text

    assert await say("PAUSE name=n9 why=one") == "1 paused"
    assert await say("SET name=n* timeout=5m") == f"{MANY} changed"
    assert await say("SET name=n* timeout=5m") == "0 changed"
    assert {task.spec.options.timeout_s for task in core.state.tasks.values()} == {300.0}
    core.submit(o.RunTask("n7", {}))
    assert await say("RUN name=n*") == f"{MANY - 1} started"  # the other one runs already
    assert await say("REMOVE name=n?*") == f"{MANY} removed"
    assert [change.what for change in core.state.changes.changes][-3:] == [
        "PAUSE name=n9 why=one",
        "SET name=n* timeout=5m",
        "REMOVE name=n?*",
    ]
    assert await say("UNDO") == "1 undone"
    assert core.state.count_own() == MANY


async def test_a_run_of_a_flow_is_worked_out_in_turns_where_there_are_very_many_tasks(tmp_path: Path) -> None:
    """Asked as clients ask: an order that the verbs' table of large ones has forgotten holds everybody up."""
    house = House(tmp_path)
    for number in range(AT_ONCE + 1):
        await house.ask(house.session(), f"ADD name=t{number} @daily x")
    await house.ask(house.session(), "ADD name=last after=t1 @after x")
    answer = house.answers.handle("FLOW t1 RUN", house.session(), house.clock.now())
    assert not isinstance(answer, Reply)
    assert (await answer).text == "1 tasks=2"


@pytest.mark.parametrize("line", ["UNDO", "FLOW t0 RUN", "FLOW t0 PAUSE", "REMOVE t0 force=yes"])
async def test_whose_very_many_tasks_are_is_found_out_in_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    """A user had 100,000 tasks that hang together: FLOW looked whose they are in one go, of two seconds."""
    house, steps = House(tmp_path), 0
    ann = house.session("ann", "user")
    await house.ask(house.session(), "USER ADD ann role=user")
    for number in range(AT_ONCE + 2):
        await house.ask(ann, f"ADD name=t{number} {'after=t0' * bool(number)} @daily x")
    if line == "UNDO":
        house.clock.move(START + timedelta(seconds=1))
        await house.ask(ann, "SET name=* timeout=5m")
    own = house.core.admission.owned

    def counting(*about: Any) -> Any:
        nonlocal steps
        found = Steps(own(*about))
        for _ in found:
            steps += 1
            yield
        return found.value

    monkeypatch.setattr(house.core.admission, "owned", counting)
    answer = house.answers.handle(line, ann, house.clock.now())
    assert not isinstance(answer, Reply)
    assert steps == 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house._keep_beating)
        await answer
        nursery.cancel_scope.cancel()
    assert steps > AT_ONCE


@pytest.mark.parametrize("line", ["SET name=t* timeout=5m", "UNDO", "CLEAR", "LOAD x.db"])
async def test_whoever_is_sent_away_while_his_change_is_worked_out_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    """At the HTTP door his connection is the gateway's, which stays: what he had begun was done, too."""
    house = await a_house(tmp_path)
    root, door = house.session("root", "admin"), house.session(address="unix:pid=9,uid=0")
    await house.ask(root, "USER SET ann role=operator")
    await house.ask(door, "AS ann from=198.51.100.7")
    for number in range(2 * AT_ONCE):
        await house.ask(door, f"ADD name=t{number} @daily x")
    (tmp_path / "x.db").write_text('{"schedule": "@daily", "command": "y"}\n' * 2 * AT_ONCE)
    if line == "UNDO":
        house.clock.move(START + timedelta(seconds=1))
        await house.ask(door, "SET name=* prio=high")
    before, worked_out = [task.spec for task in house.state.tasks.values()], bulk.in_turns

    async def in_turns(steps: Any) -> Any:
        found = await worked_out(steps)
        await house.ask(root, "USER SET ann role=viewer")
        return found

    monkeypatch.setattr(bulk, "in_turns", in_turns)
    assert await house.says(door, line) == "ERR denied your account or token was changed meanwhile"
    assert [task.spec for task in house.state.tasks.values()] == before
    assert house.state.unfinished.bulk is None


async def test_what_ends_while_a_load_is_worked_out_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs once stood in the file too, and had left when its turn came."""
    house, worked_out = House(tmp_path), bulk.in_turns
    await house.ask(house.session(), "AT 2030-01-01T12:00:05Z name=once true")
    (tmp_path / "x.db").write_text('{"schedule": "@daily", "command": "y"}\n' * 2 * AT_ONCE)
    with (tmp_path / "x.db").open("a") as file:
        file.write('{"schedule": "@at 2030-01-01T12:00:05Z", "command": "true", "jobName": "once"}\n')

    async def in_turns(steps: Any) -> Any:
        found = await worked_out(steps)
        house.clock.move(START + timedelta(seconds=5))
        house.core.beat()
        house.core.submit(o.ReportEnded("w1", 1, 1, 0, {}))
        return found

    monkeypatch.setattr(bulk, "in_turns", in_turns)
    assert await house.says(house.session(), "LOAD x.db") == f"OK {2 * AT_ONCE + 1} loaded"
    assert (house.state.find("once"), len(house.state.tasks)) == (None, 2 * AT_ONCE)


@pytest.mark.parametrize("others", [0, 2 * AT_ONCE], ids=["few", "very many"])
async def test_what_has_run_since_its_file_was_written_is_told_as_left_out(
    tmp_path: Path, others: int
) -> None:
    """LIST is shorter than what LOAD has said, and nobody would know why."""
    house = House(tmp_path)
    house.core.submit(o.JoinWorker("w1", 1, {}, ("shell",), "here", ()))
    await house.ask(house.session(), "AT 2030-01-01T12:00:05Z name=once true")
    (tmp_path / "x.db").write_text(
        '{"schedule": "@daily", "command": "y"}\n' * others
        + '{"schedule": "@at 2030-01-01T12:00:05Z", "command": "true", "jobName": "once"}\n'
    )
    house.clock.move(START + timedelta(seconds=5))
    house.core.beat()
    house.core.submit(o.ReportEnded("w1", 1, 1, 0, {}))
    reply = await house.ask(house.session(), "LOAD x.db")
    assert (reply.text, len(house.state.tasks)) == (f"{others + 1} loaded", others)
    assert list(reply.rows) == [("note", "1 left out: to be run once, and run since the file was written")]


@pytest.mark.parametrize("line", ["SET a name=b", "REMOVE a force=yes"])
async def test_who_changes_what_very_many_wait_for_is_answered_when_all_is_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    """OK means that it is so: the next line may rely on what those that wait say."""
    house = House(tmp_path)

    def waits() -> set[tuple[str, ...]]:
        assert house.state.unfinished.bulk is None
        return {task.spec.options.after for task in house.state.tasks.values() if task.id > 1}

    await house.ask(house.session(), "ADD name=a @daily x")
    for number in range(AT_ONCE + 1):
        await house.ask(house.session(), f"ADD name=t{number} after=a @daily x")
    if line == "REMOVE a force=yes":
        orders, submit = [], house.core.submit
        monkeypatch.setattr(
            house.core, "submit", lambda *about, **more: orders.append(about[0]) or submit(*about, **more)
        )
        assert await house.says(house.session(), line) == "OK 1 removed"
        assert waits() == {()}
        assert [order.plan.id for order in orders if isinstance(order, o.RemoveTask)] == [
            1
        ]  # worked out in turns
    else:
        assert await house.says(house.session(), line) == "OK 1 rev=2"
        assert waits() == {("b",)}
        assert await house.says(house.session(), "ROLLBACK b 1") == "OK 1 rev=3"
        assert waits() == {("a",)}


async def test_a_slice_that_is_refused_for_good_leaves_that_task_out_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The change of all the others waited for it for ever, and with it everybody who changes tasks."""
    core, journal = make_core()
    append = journal.append

    def refuse(facts: Sequence[f.Fact], at: datetime) -> int:
        if any(isinstance(fact, f.TaskPaused) and fact.id == 777 for fact in facts):
            raise Refusal("too-long", "a record of more than 1 bytes")
        return append(facts, at)

    monkeypatch.setattr(journal, "append", refuse)
    monkeypatch.setattr(journal, "flush", journal.arrive)
    monkeypatch.setattr(core, "wake", lambda: None)
    order = commands.parse("PAUSE name=n*", commands.Context(START, "UTC"))
    reply = await bulk.LargeChanges(core).change(order, None)
    assert [row[1] for row in reply.rows] == ["1 task stays as it was; the log says which, and why"]
    assert (reply.text, len(core.state.paused)) == (f"{MANY - 1} paused", MANY - 1)
    assert (core.state.tasks[777].paused, core.state.unfinished.bulk) == (False, None)
    assert "task 777 stays as it was: too-long a record of more than 1 bytes" in caplog.text


async def test_what_is_under_way_at_a_start_waits_for_no_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is decided before it is done; where the clock had been set forward it was waited for."""
    core, journal = make_core(AT_ONCE + 1)
    monkeypatch.setattr(journal, "flush", journal.arrive)
    core.clock.move(START + timedelta(hours=30))
    core.submit(o.NoticeStep(30 * 3600.0))
    core.submit(o.ClearTasks())
    assert core.engine.is_jumping(core.now())
    with trio.fail_after(PATIENCE_S):
        await LargeChanges(core).finish_alone()
    assert not core.state.tasks


async def test_a_start_without_room_serves_before_what_is_under_way_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed amid LOAD, and the disk is full: no job ran until there was room, and the daemon only span."""
    core, journal = make_core()
    monkeypatch.setattr(journal, "flush", journal.arrive)
    core.submit(o.StageTasks([], core.state.next_task))
    core.submit(o.StageTasks([(number, None) for number in range(1, MANY + 1)], None))
    core.submit(o.PauseTasks(o.Pattern("", "n*", staged=MANY), None, ""))
    journal.full = True
    with trio.fail_after(PATIENCE_S):
        await LargeChanges(core).finish_alone()
    assert (len(core.state.paused), core.state.unfinished.bulk is None) == (0, False)
    core.clock.move(START + timedelta(hours=14))
    core.beat()
    assert core.state.runs
    journal.full = False
    with trio.fail_after(PATIENCE_S):
        await LargeChanges(core).finish_alone()
    assert (len(core.state.paused), core.state.unfinished.bulk) == (MANY, None)


# --- EMIT, faster than tasks fire -----------------------------------------------------------------


async def test_an_event_waits_while_tasks_have_yet_to_fire_for_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each was kept, with all that its line says, until its tasks had fired: that filled the memory."""
    monkeypatch.setattr(answers, "MAX_EMITTED", 3)
    house, most = House(tmp_path), 0
    session = house.session()
    await house.ask(session, "ADD name=a overlap=allow @on e x")
    for number in range(20):
        assert await house.says(session, f"EMIT e n={number}") == "OK 1"
        most = max(most, len(house.state.emitted))
    while (step := house.core.engine.next_step(house.clock.now())) is not None:
        house.core.submit(step)
    assert most == 4
    assert [run.args for run in house.state.runs.values()] == [{"n": str(number)} for number in range(20)]


async def test_of_very_many_whose_events_wait_one_looks_whether_they_still_have_to(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Each looked a hundred times a second: eight hundred of them left no time for anything else."""

    class Emitted(list[f.EventEmitted]):
        looks, count = 0, answers.MAX_EMITTED + 1

        def __len__(self) -> int:
            self.looks += 1
            return self.count

        def __bool__(self) -> bool:
            return False

    house = House(tmp_path)
    await house.ask(house.session(), "ADD name=a overlap=allow @on e x")
    house.state.emitted = waiting = Emitted()
    told: list[str] = []

    async def emit(number: int) -> None:
        answer = house.answers.handle(f"EMIT e n={number}", house.session(), house.clock.now())
        assert not isinstance(answer, Reply)
        told.append((await answer).text)

    async with trio.open_nursery() as nursery:
        for number in range(300):
            nursery.start_soon(emit, number)
        await trio.sleep(1.0)
        assert (told, waiting.looks < 1000) == ([], True)
        waiting.count = 0
    assert told == ["1"] * 300
    assert len([*house.state.emitted]) == 300


async def test_an_event_does_not_wait_for_ever_where_nothing_can_fire(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk lets no task fire; whoever emits must read that it is full."""
    monkeypatch.setattr(answers, "MAX_EMITTED", -1)
    monkeypatch.setattr(answers, "LONGEST_WAIT_S", 0.0)
    house = House(tmp_path)
    assert await house.says(house.session(), "EMIT e") == "OK 0"
