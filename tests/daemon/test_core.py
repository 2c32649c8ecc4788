"""The loop's promises at its edges: what is refused, what insists, what is full, what is broken."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar, cast

import pytest
import trio
import trio.testing

from cronflowd.base.errors import Exit, Fatal, Refusal, leaves
from cronflowd.base.walks import SLICE, in_order, in_slices
from cronflowd.daemon.core import ASIDE_S, LOOK_EVERY, RETRY_S, STEPS_PER_BEAT, Core
from cronflowd.daemon.daemon import GARBAGE, keep
from cronflowd.engine import facts as f
from cronflowd.engine import orders as o
from cronflowd.engine.rules import Decision
from cronflowd.engine.state import State
from cronflowd.net import poller
from cronflowd.net.workers import Link
from tests.lib.core_driver import PickyJournal, Reader, line, make_core
from tests.lib.engine_driver import START
from tests.lib.memory_journal import MemoryJournal


def test_a_feed_that_fails_loses_its_place_and_nobody_else_does(caplog: pytest.LogCaptureFixture) -> None:
    """What it was to be told stands in the journal already: to end for its sake would help nobody."""

    class Seen(list[int]):
        def see(self, fact: f.Fact, at: datetime, seq: int) -> None:
            self.append(seq)

    class Failing(Seen):
        def see(self, fact: f.Fact, at: datetime, seq: int) -> None:
            raise ZeroDivisionError

    core, seen = make_core(PickyJournal()), Seen()
    core.feeds += [Failing(), seen]
    line(core, "ADD * * * * * good")
    assert (core.feeds, len(seen)) == ([seen], 1)
    assert "a watcher could not be told" in caplog.text


# --- what cannot be applied -----------------------------------------------------------------------


def test_what_was_appended_and_cannot_be_applied_is_the_end_before_it_is_committed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Committed, it would make every later start fail; served on, it would be half true."""
    journal = PickyJournal()
    core = make_core(journal)
    line(core, "ADD * * * * * good")
    core.beat()
    before = journal.lines
    monkeypatch.setattr(State, "set_due", lambda *_: 1 / 0)
    with pytest.raises(Fatal) as found:
        line(core, "ADD * * * * * bad")
    assert found.value.status == Exit.BUG
    core.journal.flush()
    assert journal.lines == before
    with pytest.raises(Fatal):
        core.submit(o.JoinWorker("a", 1, {}, ("shell",), "here", ()))
    again = State("UTC")
    for seq, at, fact in MemoryJournal(journal.lines).replay():
        monkeypatch.undo()
        again.apply(fact, at, seq)
    assert [task.spec.command for task in again.tasks.values()] == ["good"]


async def test_what_breaks_behind_a_round_of_connections_ends_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The poller would end the process as if the event loop had a bug, and nobody would see the exit code."""
    core = make_core()
    with pytest.raises(ExceptionGroup) as found:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(core.run)
            await trio.testing.wait_all_tasks_blocked()
            line(core, "ADD * * * * * x")
            broken = Fatal(Exit.IO, "the disk is gone")
            monkeypatch.setattr(core, "_decide_due", lambda: (_ for _ in ()).throw(broken))
            poller.here().after_round()
            await trio.sleep_forever()
    assert [str(each) for each in leaves(found.value)] == ["the disk is gone"]


# --- what insists, what is due --------------------------------------------------------------------


def test_what_insists_and_is_refused_does_not_keep_what_is_due() -> None:
    """A worker's end that finds no space on the disk must not stop everybody's schedules."""
    core = make_core()
    core.submit(o.JoinWorker("a", 1, {}, ("shell",), "here", ()))
    line(core, "ADD name=t 0 13 * * * x")
    PickyJournal.refused = (f.WorkerLeft,)
    try:
        core.insist(o.DropWorker("a", "cut"))
        core.beat()
        assert core.state.workers["a"].connected
        core.clock.move(START.replace(hour=13))  # type: ignore[attr-defined]
        core.beat()
        assert [run.task_id for run in core.state.runs.values()] == [1]
    finally:
        PickyJournal.refused = ()
    core.beat()
    assert not core.state.workers["a"].connected


def test_what_insists_and_is_refused_for_ever_holds_up_no_other_order() -> None:
    """One record that the journal will never take must not keep a worker connected that has gone."""
    core = make_core()
    for name in ("a", "b"):
        core.submit(o.JoinWorker(name, 1, {}, ("shell",), "here", ()))
    PickyJournal.refused = (f.WorkerLeaving,)
    try:
        core.insist(o.DismissWorker("a"))
        core.insist(o.DropWorker("b", "cut"))
        core.beat()
        assert not core.state.workers["b"].connected
    finally:
        PickyJournal.refused = ()
    core.beat()
    assert core.state.workers["a"].leaving


class Strict(PickyJournal):
    """Takes nothing that is about these runs, tasks and expectations."""

    code = "too-long"
    about: ClassVar[tuple[object, ...]] = ()

    def append(self, facts: Sequence[f.Fact], at: datetime) -> int:
        for fact in facts:
            for name in ("run", "task", "name"):
                if (name, getattr(fact, name, None)) in self.about:
                    raise Refusal(self.code, "it is told so by this test")
        return super().append(facts, at)


def hour(core: Core, hours: float) -> None:
    """It is so late now."""
    core.clock.move(START + timedelta(hours=hours))  # type: ignore[attr-defined]
    for _ in range(10):
        core.beat()


def fired(state: State) -> object:
    return {run.task_id for run in state.runs.values()}


def ended(state: State) -> object:
    return {1, 2} - {run.id for run in state.runs.values() if run.state != "stopping"}


WAITING = [
    "ADD name=x @every 5h x", "ADD name=y @every 5h y", "ADD after=x @every 1h a", "ADD after=y @every 1h b",
    1.0, "RUN x", "RUN y",
]  # fmt: skip
# How two come to be due of which one is refused, what it is about, and when; then who has got through.
DUE: dict[str, tuple[list[Any], tuple[str, object], float, Callable[[State], object]]] = {
    "FireTasks": (["ADD @every 1h a", "ADD @every 1h b"], ("task", 1), 1, fired),
    "PlaceRuns": (
        ["ADD prio=high @every 1d a", "ADD @every 1d b", "DRAIN w", "RUN 1", "RUN 2", "UNDRAIN w"],
        ("run", 1), 0, lambda s: {r.id for r in s.runs.values() if r.worker},
    ),
    "ReleaseRun": (
        ["ADD retry=fixed:1:1h @every 1d a", "ADD retry=fixed:1:1h @every 1d b", "RUN 1", "RUN 2",
         o.ReportEnded("w", 1, 1, 1, {}), o.ReportEnded("w", 2, 1, 1, {})],
        ("run", 1), 1, lambda s: {r.id for r in s.runs.values() if r.state != "delayed"},
    ),
    "ExpireRun": (
        ["ADD on=x grace=30m @every 1d a", "ADD on=x grace=30m @every 1d b", "RUN 1", "RUN 2"],
        ("run", 1), 1, ended,
    ),
    "TimeoutRun": (
        ["ADD timeout=30m @every 1d a", "ADD timeout=30m @every 1d b", "RUN 1", "RUN 2"],
        ("run", 1), 1, ended,
    ),
    "LoseRun": (
        ["ADD @every 1d a", "ADD @every 1d b", "RUN 1", "RUN 2", o.DropWorker("w", "cut", 1)],
        ("run", 1), 1, ended,
    ),
    "FireOn": (
        ["ADD @on e a", "ADD @on e b", "EMIT e"], ("task", 1), 0, fired
    ),
    "FireAfter": (
        ["ADD name=x @every 1d x", "ADD name=y @every 1d y", "ADD after=x @after a", "ADD after=y @after b",
         "RUN x", "RUN y", o.ReportEnded("w", 1, 1, 0, {}), o.ReportEnded("w", 2, 1, 0, {})],
        ("task", 3), 0, fired,
    ),
    "BreakRun": (
        [*WAITING, o.ReportEnded("w", 3, 1, 1, {}), o.ReportEnded("w", 4, 1, 1, {})],
        ("run", 1), 1, ended,
    ),
    "AdmitRun": (
        [*WAITING, o.ReportEnded("w", 3, 1, 0, {}), o.ReportEnded("w", 4, 1, 0, {})],
        ("run", 1), 1, lambda s: {r.id for r in s.runs.values() if r.worker and r.id < 3},
    ),
    "MissBeat": (
        ["EXPECT a every=10m grace=0s", "EXPECT b every=10m grace=0s"],
        ("name", "a"), 1, lambda s: {each.name for each in s.beats.expected.values() if each.state == "late"},
    ),
    "TellUnread": (
        [f.TaskAdded(1, {"jobName": "a", "schedule": "x", "command": "a"}, START, None),
         f.TaskAdded(2, {"jobName": "b", "schedule": "x", "command": "b"}, START, None)],
        ("name", "a"), 0, lambda s: {t.id for t in s.tasks.values() if t.failure},
    ),
}  # fmt: skip


@pytest.mark.parametrize("code", ["too-long", "disk-full"])
@pytest.mark.parametrize("kind", DUE)
def test_what_is_due_and_refused_stops_nobody_and_is_tried_again(
    kind: str, code: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One task whose record the journal does not take stood in front of everything that came due after it."""
    lines, about, hours, through = DUE[kind]
    monkeypatch.setattr(Strict, "code", code)
    core = make_core(Strict())
    core.links["w"] = cast(Link, Reader())
    core.submit(o.JoinWorker("w", 9, {}, ("shell",), "here", (), connection=1))
    every = {"a", "b"} if kind == "MissBeat" else {3, 4} if kind == "FireAfter" else {1, 2}
    refused = "a" if kind == "MissBeat" else min(cast(set[int], every))
    seen: list[str] = []
    decide = core.engine.decide
    monkeypatch.setattr(
        core.engine,
        "decide",
        lambda order, *rest: (seen.append(type(order).__name__), decide(order, *rest))[1],
    )
    for step in lines:
        if isinstance(step, float):
            hour(core, step)
        elif isinstance(step, f.Fact):
            core.state.apply(step, START)
        elif isinstance(step, str):
            line(core, step)
        else:
            core.submit(step)
    monkeypatch.setattr(Strict, "about", (about,))
    hour(core, hours)
    assert (kind in seen, through(core.state)) == (True, every - {refused})
    assert core._armed is not None
    assert core._armed <= core.now() + timedelta(seconds=ASIDE_S)
    assert caplog.text.count("cannot be decided") == 1
    monkeypatch.setattr(Strict, "about", ())
    hour(core, hours + 0.01)
    assert through(core.state) == every


def amid_what_is_due() -> Core:
    """After one beat, where three are needed."""
    core = make_core()
    for number in range(3 * STEPS_PER_BEAT):
        line(core, f"ADD name=t{number} 0 13 * * * x")
    core.clock.move(START.replace(hour=13))  # type: ignore[attr-defined]
    core.beat()
    return core


def test_one_beat_takes_a_bounded_number_of_steps() -> None:
    """Whoever is connected gets a turn, however much is due."""
    core = amid_what_is_due()
    assert 0 < len(core.state.runs) <= STEPS_PER_BEAT
    while core._decide_due():
        pass
    assert len(core.state.runs) == 3 * STEPS_PER_BEAT


def test_amid_what_is_due_a_round_of_connections_is_committed_and_decides_no_more() -> None:
    """The heart beats in the next pass in any case: two beats in one kept everybody waiting twice as long."""
    core = amid_what_is_due()
    begun = len(core.state.runs)
    line(core, "ADD name=other 0 14 * * * x")
    assert core.journal.committed < core.last_seq
    core._end_round()
    assert (len(core.state.runs), core.journal.committed) == (begun, core.last_seq)
    while core.is_behind(core.now()):
        core.beat()
    line(core, "RUN other")
    core._end_round()
    assert core.journal.committed == core.last_seq


def test_what_nobody_needs_is_freed_also_where_there_is_always_something_due() -> None:
    """A daemon that is behind for long kept all that a watcher far behind had left."""
    core = amid_what_is_due()
    left = core.state.changes.leftovers
    left.append([])
    assert core.is_behind(core.now())
    assert not core.take_slice()
    assert left == []


def test_what_was_looked_at_twice_for_garbage_is_not_looked_at_again() -> None:
    """What a thousand clients and their events are made of was gone through in one step of 70 ms."""
    there = [[number] for number in range(10)]
    gc.callbacks.append(keep)
    try:
        for _ in range(2):
            gc.collect(1)
        assert not any(each is there[0] for each in gc.get_objects())
    finally:
        gc.callbacks.remove(keep)
    young, older = GARBAGE
    assert young * (older + 2) < 15_000


def test_what_takes_the_place_of_something_old_is_looked_at_in_time() -> None:
    """Python counts what is made less what is freed: runs that come and go were looked at all at once."""

    class Made:
        pass

    core, each_beat, most = make_core(), 200, 0
    there = [Made() for _ in range(20 * LOOK_EVERY * each_beat)]
    gc.freeze()
    gc.callbacks.append(keep)
    try:
        for at in range(0, len(there), each_beat):
            there[at : at + each_beat] = [Made() for _ in range(each_beat)]
            core.beat()
            most = max(most, sum(type(each) is Made for each in gc.get_objects()))
    finally:
        gc.callbacks.remove(keep)
    assert most <= LOOK_EVERY * each_beat


def test_what_is_sorted_is_not_all_looked_at_for_garbage() -> None:
    """Python's collector went through a million tasks that LIST sort= held in one step of 40 ms."""
    core, many = make_core(), range(10 * LOOK_EVERY * SLICE)
    steps, most = in_order(in_slices(many)), 0
    gc.freeze()
    gc.callbacks.append(keep)
    try:
        for _ in steps:
            core.beat()  # there is one in each pass in which rows are looked for
            seen = (each for each in gc.get_objects() if type(each) is list and len(each) == SLICE)
            most = max(most, sum(each[0] in many for each in seen))
    finally:
        gc.callbacks.remove(keep)
    assert 0 < most <= LOOK_EVERY


def test_tasks_of_a_checkpoint_are_not_read_while_moments_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million are, after a start, some between any two beats; what was due meanwhile came late by each."""
    core = make_core()
    for number in range(2 * STEPS_PER_BEAT):
        line(core, f"ADD name=t{number} 0 13 * * * x")
    read: list[bool] = []
    monkeypatch.setattr(core.state.tasks, "make_some", lambda: read.append(core.is_behind(core.now())))
    core.clock.move(START.replace(hour=13))  # type: ignore[attr-defined]
    beats = 0
    while not read:
        core.beat()
        core.take_slice()
        beats += 1
    assert read == [False]
    assert beats > 1


def test_what_moments_go_before_goes_on_where_a_round_decided_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """No timer was left for it then: tasks were read on at the next moment, which may be tomorrow's."""
    core = make_core()
    line(core, "ADD name=t 0 13 * * * x")
    core.beat()
    monkeypatch.setattr(core, "_more", trio.Event())
    core.clock.move(START.replace(hour=13))  # type: ignore[attr-defined]
    assert not core.take_slice()
    core._decide_and_commit()
    assert core._more.is_set()
    assert not core.is_behind(core.now())


def test_what_is_asked_for_while_the_daemon_stops_waits_for_the_next_one() -> None:
    """Its order would never leave, or begin a run that nobody is here to hear of."""
    core = make_core()
    core.submit(o.JoinWorker("a", 2, {}, ("shell",), "here", ()))
    core.stop_deciding()
    core.hold_back("a", full=False)  # its connection has room again
    assert line(core, "NOW x").messages == []
    assert [run.state for run in core.state.runs.values()] == ["queued"]


def test_what_insists_is_tried_again_while_the_daemon_stops() -> None:
    """Orders that never left are told last of all; untold, their runs would be lost after the next start."""
    core = make_core()
    core.submit(o.JoinWorker("a", 2, {}, ("shell",), "here", ()))
    core.stop_deciding()
    PickyJournal.refused = (f.WorkerLeft,)
    try:
        core.insist(o.DropWorker("a", "cut"))
        core.beat()
    finally:
        PickyJournal.refused = ()
    assert core._armed == START + timedelta(seconds=RETRY_S)
    core.beat()
    assert core._armed is None
    assert not core.state.workers["a"].connected


def test_what_a_decision_warns_of_is_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The engine has no log; that nobody could be told of a failure stands in it all the same."""
    core = make_core()
    warned = Decision(warning="notification notify_2 failed")
    monkeypatch.setattr(core.engine, "decide", lambda *_: warned)
    core.submit(o.TellUnread(1))
    assert caplog.messages == ["notification notify_2 failed"]
