"""State, fact by fact: what each one changes, and that nothing is lost on its way through JSON."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from cronflowd import __version__
from cronflowd.engine import access_facts as af
from cronflowd.engine import encoding
from cronflowd.engine import facts as f
from cronflowd.engine.calendars import CalendarDropped, CalendarRead
from cronflowd.engine.encoding import KINDS
from cronflowd.engine.once import OnceKept
from cronflowd.engine.state import State
from cronflowd.tasks.task import HELD, WAITING, Failure, Run, read_record

NOW = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
RECORD = {"schedule": "* * * * *", "command": "true", "jobName": "a"}
TIMED = RECORD | {"timeout": "5s"}

ADDED = f.TaskAdded(1, RECORD, NOW, LATER)
JOINED = f.WorkerJoined("w", 2, {"disk": "ssd"}, ["shell"], "here", [], LATER)
QUEUED = f.RunQueued(1, 1, NOW, "schedule", LATER)
EMITTED = f.EventEmitted("e", NOW, [1, 2])
AWAITING = f.RunQueued(1, 1, NOW, "schedule", LATER, awaits=True)
SENT = f.RunSent(1, 1, "w")
APART = f.OutputReceived(1, 1, [[1, "x"]], 0, 12, None, (10, 7, "n1"))
EARLIER = f.OutputReceived(1, 1, [[2, "a warning, and not what it failed of"]])
NOEL = date(2030, 12, 25)
ENDED = f.RunEnded(1, 1, 1, "a", "ok", NOW, NOW, "w", 0, None, True)
FAILED = f.RunEnded(1, 1, 1, "a", "failed", NOW, NOW, "w", 1, None, False)
DAWN = NOW + timedelta(hours=18)
EXPECTED = f.ExpectationSet("b", "1m", 9.0, "", "", None, "new", LATER)
BAD = Failure(NOW, 9, "failed", NOW, LATER, 7, "to a@x: no server")
NOT_TOLD = f.NoticeFailed("email a@x", 7, "notify_7", BAD, 1)
ANN = af.AccountSet("ann", "user", NOW, uid=7)
LOGIN = af.LoginSet(3, "ann", "family", "digest", NOW, LATER, "here")
KEPT = OnceKept("ann", "k", "digest", "1", {"id": 1}, LATER)
RESET = af.ResetOffered("ann", "digest", LATER)
KEY = af.TokenAdded(3, "digest", "user", NOW, user="ann")
FLOWING = f.FlowStarted(3, 1, "a", [1])
FLOW_FAILED = f.FlowEnded(3, "failed")
TURN = f.RunQueued(1, 1, NOW, "flow", flow=3)
GIVEN: tuple[str, Any] = ("told['task:1', 'lost'].withheld", 4)

# Each row: what came before, the fact, a look at the state, what it shows.
ROWS: list[tuple[list[f.Fact], f.Fact, str, Any]] = [
    ([], ADDED, "tasks[1].due_at", LATER),
    ([ADDED], f.TaskChanged(1, 2, RECORD | {"jobName": "b"}, None), "find('b').rev", 2),
    ([ADDED], f.TaskRescheduled(1, NOW), "due.first()", (NOW, 1, 1)),
    ([ADDED], f.RescheduleBegun(NOW), "unfinished.again.waits(state.tasks[1])", True),
    ([ADDED], f.RescheduleBegun(NOW, True, 0, [1]), "unfinished.again.waits(state.tasks[1])", False),
    (
        [ADDED, f.RescheduleBegun(NOW)],
        f.RescheduleStepped(1),
        "unfinished.again.waits(state.tasks[1])",
        False,
    ),
    ([ADDED, f.RescheduleBegun(NOW)], f.RescheduleStepped(None), "unfinished.again", None),
    ([], f.BulkStaged([7], ["{}"], 8), "unfinished.bulk.entries", {7: "{}"}),
    ([f.BulkStaged([7], ["{}"], 8)], f.BulkDecided("load"), "unfinished.bulk.is_decided", True),
    ([], f.BulkDecided("undo", [3]), "unfinished.bulk.undoes", [3]),
    ([], f.BulkDecided("clear", who="ann", change=4, what="CLEAR"), "changes.next_number", 5),
    ([f.BulkDecided("load")], f.BulkStepped(3), "unfinished.bulk.done", 3),
    ([f.BulkDecided("load")], f.BulkEnded("done"), "unfinished.bulk", None),
    ([], f.BulkCarried("load", True, 3, "ann", 4, []), "unfinished.bulk.done", 3),
    ([ADDED], f.TaskRemoved(1, "removed"), "names", {}),
    (
        [ADDED, f.TaskRemoved(1, "removed")],
        f.TaskRestored(1, 2, RECORD, NOW, LATER, counts={"ok": 2}),
        "tasks[1].counts",
        {"ok": 2},
    ),
    (
        [ADDED],
        f.TaskRemoved(1, "removed", who="ann", change=1, what="REMOVE a"),
        "changes.changes[0].steps[0].was.record",
        RECORD,
    ),
    ([], f.ChangeCarried(7, NOW, "ann", "ADD a"), "changes.next_number", 8),
    (
        [f.ChangeCarried(7, NOW, "ann", "REMOVE a")],
        f.StepCarried(7, "removed", 1, 2, 2, RECORD, NOW),
        "changes.changes[-1].steps[0].id",
        1,
    ),
    ([ADDED], f.TaskPaused(1, LATER, "why"), "is_paused(state.tasks[1], NOW)", True),
    ([ADDED, f.TaskPaused(None, None, "")], f.TaskResumed(None), "is_paused(state.tasks[1], NOW)", False),
    (
        [ADDED, f.TaskPaused(1, None, ""), f.TaskPaused(None, None, "")],
        f.TaskResumed(None, own_stay=True),
        "is_paused(state.tasks[1], NOW)",
        True,
    ),
    ([ADDED], f.RecordUnread(1, "a", "no such zone"), "tasks[1].failure.state", "unreadable"),
    ([ADDED], f.FiresPassed(1, "a", "missed", NOW, NOW, 3, "down", LATER), "totals", {"missed": 3}),
    (
        [ADDED],
        f.FiresPassed(1, "a", "skipped", NOW, NOW, 1, "down", None, emitted=True),
        "tasks[1].due_at",
        LATER,
    ),
    ([ADDED], f.EventEmitted("e", NOW, [1], {"k": "v"}), "emitted[0].args", {"k": "v"}),
    ([ADDED, EMITTED], f.RunQueued(1, 1, NOW, "on", emitted=True), "emitted[0].tasks", [2]),
    ([ADDED, EMITTED], f.TaskRemoved(1, "removed"), "emitted[0].tasks", [2]),
    ([], f.TemplateSet("t", {"retry": "none"}), "templates", {"t": {"retry": "none"}}),
    ([f.TemplateSet("t", {"retry": "none"})], f.TemplateSet("t"), "templates", {}),
    (
        [f.TemplateSet("t", {"retry": "none"})],
        f.TemplateSet("t", who="ann", change=1, what="TEMPLATE REMOVE t"),
        "changes.changes[0].steps[0].was.record",
        {"template": "t", "words": {"retry": "none"}},
    ),
    ([ADDED], QUEUED, "missed.first()[1]", 1),
    (
        [ADDED, AWAITING],
        f.RunAdmitted(1),
        "missed.first()[1]",
        1,
    ),
    ([ADDED, JOINED, QUEUED], SENT, "workers['w'].free", 1),
    ([ADDED, JOINED, QUEUED, SENT], f.RunStarted(1, 1), "runs[1].state", "running"),
    ([ADDED, JOINED, QUEUED, SENT], f.OutputReceived(1, 1, [[1, "x"]]), "outputs[1].lines", [(1, "x")]),
    ([ADDED, JOINED, QUEUED, SENT], f.OutputReceived(1, 1, [[1, "x"]]), "outputs[1].whole", True),
    ([ADDED, JOINED, QUEUED, SENT], APART, "outputs[1].whole", False),
    ([ADDED, JOINED, QUEUED, SENT, EARLIER], replace(APART, lines=[]), "outputs[1].lines", []),
    ([ADDED, JOINED, QUEUED, SENT], APART, "runs[1].output_bytes", 12),
    (
        [],
        CalendarRead("file:a", NOW, {"2030-12-25": "ours"}),
        "calendars.known['file:a'].names",
        {NOEL: "ours"},
    ),
    ([], CalendarRead("holidays:FR", NOW), "calendars.read_at", {"holidays:FR": NOW}),
    ([CalendarRead("file:a", NOW, {})], CalendarDropped("file:a"), "calendars.known", {}),
    ([ADDED, JOINED, QUEUED, SENT], f.RunStopping(1, 1, "timeout"), "runs[1].ends_as", "timeout"),
    ([ADDED, JOINED, QUEUED, SENT], ENDED, "tasks[1].counts", {"ok": 1}),
    ([ADDED, JOINED, QUEUED, SENT, FAILED], f.RunRetried(1, 2, LATER), "delayed.first()", (LATER, 1)),
    (
        [ADDED, JOINED, QUEUED, SENT, FAILED, f.RunRetried(1, 2, LATER)],
        f.RunReleased(1),
        "missed.first()[1]",
        1,
    ),
    ([ADDED, JOINED, QUEUED, SENT], f.RunUnsent(1, 1), "missed.first()[1]", 1),
    ([], JOINED, "lanes.free['w'].slots", 2),
    ([ADDED, JOINED, QUEUED, SENT], f.WorkerLeft("w", "cut", LATER), "leases.first()", (LATER, 1)),
    ([JOINED], f.WorkerLeaving("w"), "lanes.free", {}),
    ([JOINED], f.WorkerDrained("w", True), "workers['w'].state", "draining"),
    ([JOINED], f.DaemonStarted("1", "UTC", LATER), "workers['w'].connected", False),
    ([], f.ClockStepped(-5.0), "last_step_s", -5.0),
    ([], f.ClockStepped(-5.0), "last_step_at", NOW),
    ([], f.ClockStepped(11_000.0), "jumped_upto_at", NOW),
    ([ADDED, QUEUED], f.ClockStepped(60.0), "shown(state.runs[1].queued_at)", LATER),
    ([ADDED, JOINED, QUEUED, SENT], f.ClockStepped(60.0), "shown(state.runs[1].sent_at)", LATER),
    (
        [ADDED, JOINED, QUEUED, SENT, f.WorkerLeft("w", "cut", NOW)],
        f.ClockStepped(60.0),
        "shown(state.leases.first()[0])",
        LATER,
    ),
    (
        [ADDED, JOINED, QUEUED, SENT, FAILED, f.RunRetried(1, 2, NOW)],
        f.ClockStepped(60.0),
        "shown(state.delayed.first()[0])",
        LATER,
    ),
    ([], f.TasksSaved("tasks.db", 1, 2, 3, 4), "saved[0].file_crc", 3),
    ([], f.CheckpointWritten("checkpoint", 1, 2, 3), "tasks", {}),
    ([], f.TaskAdded(1, RECORD, NOW, None, True), "notices", {1}),
    ([], EXPECTED, "beats.late.first()", (LATER, "b")),
    ([EXPECTED], f.BeatReceived("b", "ok", "fine", DAWN), "beats.expected['b'].text", "fine"),
    ([EXPECTED], f.BeatReceived("b", "ok", "fine", DAWN), "beats.late.first()", (DAWN, "b")),
    ([EXPECTED], f.BeatMissed("b", LATER), "beats.expected['b'].state", "late"),
    ([EXPECTED], f.ExpectationForgotten("b"), "beats.late.first()", None),
    ([EXPECTED, f.TaskPaused(None, LATER, "")], f.TaskResumed(None), "beats.late.first()", (LATER, "b")),
    ([EXPECTED], f.TaskPaused(None, LATER, ""), "beats.late.first()", (LATER + timedelta(seconds=9), "b")),
    ([EXPECTED], f.ClockStepped(60.0), "beats.late.first()", (LATER + timedelta(minutes=1), "b")),
    ([f.NoticeGiven("task:1", "lost", NOW, 1, 0)], f.NoticeGiven("task:1", "lost", NOW, 1, 4), *GIVEN),
    (
        [f.NoticeGiven("task:1", "lost", NOW, 1, 4)],
        f.NoticeGiven("task:1", "recovery", NOW, 1, 0, True),
        "told['task:1', 'lost'].given",
        0,
    ),
    ([], NOT_TOLD, "unheard['email a@x'].task", 7),
    ([NOT_TOLD], f.NoticeFailed("email a@x", 7, "notify_7", BAD, 1, True), "unheard", {}),
    ([], NOT_TOLD, "notice_failed.count", 1),
    (
        [],
        f.ExpectationCarried("b", "1m", 9.0, "", "", None, "failed", LATER, NOW, NOW, "oh"),
        "beats.late.first()",
        (LATER, "b"),
    ),
    ([ADDED], FLOWING, "flows.active[3].counts['waiting']", 1),
    ([ADDED, FLOWING, f.FlowStopping(3)], f.FlowEnded(3, "cancelled"), "flows.ended[3].ended_at", NOW),
    ([ADDED, FLOWING], f.FlowStopping(3, who="ann"), "flows.active[3].stopped_by", "ann"),
    ([ADDED, JOINED, FLOWING, TURN, SENT], ENDED, "flows.active[3].open", 0),
    (
        [ADDED, FLOWING, f.FiresPassed(1, "a", "skipped", NOW, NOW, 1, "why", None, flow=3), FLOW_FAILED],
        f.FlowRetried(3, [1]),
        "flows.active[3].counts['waiting']",
        1,
    ),
    ([], f.FlowCarried(FLOWING, NOW, [(1, "ok", 4, "", ""), (2, "waiting", 0, "", "")]), "flows.of[2]", 3),
    ([], f.StateCarried(5, 6, True, LATER, "why", "UTC", [], {"ok": 2}), "next_run", 6),
    ([], f.StateCarried(5, 6, False, None, "", "UTC", [], {}, None, None, DAWN), "beats.from_at", DAWN),
    ([], f.StateCarried(5, 6, True, LATER, "why", "UTC", [], {}, -5.0, NOW), "last_step_at", NOW),
    (
        [],
        f.TaskCarried(3, 2, RECORD, NOW, LATER, paused=True, paused_why="why"),
        "tasks[3].paused_why",
        "why",
    ),
    (
        [],
        f.TasksCarried(
            __version__,
            ["UTC"],
            [3],
            ["a"],
            (LATER, 1, 3),
            encoding.encode_rows([encoding.encode_row(f.TaskCarried(3, 2, RECORD, NOW, LATER))]),
        ),
        "find('a').due_at",
        LATER,
    ),
    ([], f.LedgerCarried([[0, 3600, 2, 1, 0, 0, 0, 0, 0, 1]]), "ledger.balance([]).ends['missed']", 1),
    (
        [f.TaskCarried(1, 1, RECORD, NOW, None)],
        f.FailureCarried(1, NOW, 7, "failed", NOW, LATER, 3, "why"),
        "tasks[1].failure.ended_at",
        LATER,
    ),
    (
        [f.TaskCarried(1, 1, TIMED, NOW, None)],
        f.RunCarried(
            7,
            1,
            TIMED,
            "running",
            False,
            "",
            due_at=NOW,
            queued_at=NOW,
            by="manual",
            args={"K": "v"},
            attempt=2,
            worker="w",
            sent_at=NOW,
            started_at=NOW,
            output_bytes=9,
        ),
        "timeouts.first()",
        (NOW + timedelta(seconds=5), 7),
    ),
    ([], ANN, "access.by_uid", {7: "ann"}),
    ([ANN], replace(ANN, uid=None, who="eve@here"), "access.accounts['ann'].who", None),
    ([ANN], replace(ANN, uid=8), "access.by_uid", {8: "ann"}),
    ([ANN, KEY], af.AccountRemoved("ann"), "access.by_digest", {}),
    ([], KEY, "access.next_token", 4),
    ([KEY], af.TokenRevoked(3), "access.tokens", {}),
    (
        [KEY, af.TokenRevoked(3)],
        f.StateCarried(5, 6, False, None, "", "UTC", [], {}, next_token=4),
        "access.next_token",
        4,
    ),
    ([ANN], replace(ANN, desc="Ann Other"), "access.accounts['ann'].desc", "Ann Other"),
    ([ANN], LOGIN, "access.next_login", 4),
    (
        [LOGIN],
        f.StateCarried(5, 6, False, None, "", "UTC", [], {}, next_login=4),
        "access.next_login",
        4,
    ),
    ([LOGIN], replace(LOGIN, digest="next", renewed_at=LATER), "access.logins[3].digest", "next"),
    ([ANN, LOGIN], replace(LOGIN, renewed_at=LATER), "access.accounts['ann'].seen_at", LATER),
    ([LOGIN], replace(LOGIN, id=4, family="other", over=[3]), "access.by_family", {"other": 4}),
    ([LOGIN], af.LoginEnded(3), "access.by_family", {}),
    ([ANN, LOGIN], replace(ANN, role="viewer"), "access.logins", {}),
    ([ANN, LOGIN], replace(ANN, password="another"), "access.logins", {}),
    ([ANN, LOGIN], replace(ANN, disabled=True), "access.logins", {}),
    ([ANN, LOGIN], replace(ANN, desc="Ann"), "access.logins", {3: LOGIN}),
    ([ANN, LOGIN], af.AccountRemoved("ann"), "access.by_family", {}),
    ([ANN], RESET, "access.resets", {"ann": RESET}),
    ([ANN, RESET], replace(ANN, password="another"), "access.resets", {}),
    ([ANN, RESET], replace(ANN, email="new@x.org"), "access.resets", {}),  # it was mailed to the old one
    ([ANN, RESET], replace(ANN, desc="Ann"), "access.resets", {"ann": RESET}),
    ([], KEPT, "once.of", {"ann": {("ann", "k"): None}}),
    (
        [KEPT],
        replace(KEPT, key="k2", over=[("ann", "k")]),
        "once.kept",
        {("ann", "k2"): replace(KEPT, key="k2")},
    ),
    ([KEPT], replace(KEPT, text="2"), "once.kept['ann', 'k'].text", "2"),
    ([], af.SecretPut("s", "sealed", NOW), "access.secrets['s'].sealed", "sealed"),
    ([af.SecretPut("s", "sealed", NOW)], af.SecretRemoved("s"), "access.secrets", {}),
    ([ANN, KEY], af.SignedIn("ann", "user", "here", 3), "access.accounts['ann'].seen_at", NOW),
    ([ANN, KEY], af.SignedIn("ann", "user", "here", 3), "access.tokens[3].used_at", NOW),
    ([ANN], af.SignedIn("ann", "user", "here", 3, False), "access.accounts['ann'].seen_at", None),
    ([ANN], af.Refused("ann", "here", "CLEAR", "", "why"), "access.accounts['ann'].seen_at", None),
    ([ANN], af.Deed("ann@here", "DRAIN", "w1"), "access.accounts['ann'].seen_at", None),
    (
        [],
        f.WorkerCarried(["shell"], name="w", slots=2, labels={}, address="here", since_at=NOW, draining=True),
        "workers['w'].draining",
        True,
    ),
]


def _through_json(fact: f.Fact) -> f.Fact:
    line = encoding.encode(1, NOW, fact, more=False)
    _, _, again, _ = encoding.decode(line)
    assert again == fact
    return again


@pytest.mark.parametrize(("before", "fact", "look", "shown"), ROWS, ids=lambda value: type(value).__name__)
def test_a_fact_changes_what_it_says(before: list[f.Fact], fact: f.Fact, look: str, shown: Any) -> None:
    """Every fact is read back from its line in the journal before it is applied, as after a restart."""
    state = State("UTC")
    for seq, each in enumerate([*before, fact], 1):
        state.apply(_through_json(each), NOW, seq)
    assert eval(f"state.{look}", {"state": state, "NOW": NOW}) == shown


def test_a_record_that_no_fact_explains_is_refused() -> None:
    """What a newer release wrote must not be half understood: a field that is passed over is a lie told."""
    line = encoding.encode(7, NOW, f.RunAdmitted(1), more=True)
    assert encoding.decode(line) == (7, NOW, f.RunAdmitted(1), True)
    for old, new in (
        (b"RunAdmitted", b"RunAdmired"),
        (b'"run":1', b'"run":1,"by":"force"'),
        (b'"run":1', b'"run":"1"'),
        (b'"run":1', b'"job":1'),
        (b'"seq":7,', b""),
    ):
        with pytest.raises(ValueError, match=r"."):
            encoding.decode(line.replace(old, new))


def test_every_kind_of_fact_has_its_row() -> None:
    """A fact that no row shows could be forgotten in `apply` without anybody noticing."""
    assert {type(fact).__name__ for _, fact, _, _ in ROWS} == {kind.__name__ for kind in KINDS}


def test_memory_of_the_past_is_bounded() -> None:
    """A year of runs must not be a year of memory; the journal has them, and state knows from where on."""
    state = State("UTC", recent_runs=10)
    for fact in (ADDED, JOINED):
        state.apply(fact, NOW, 1)
    for run in range(1, 101):
        state.apply(f.RunQueued(run, 1, NOW, "manual"), NOW, 10 * run)
        state.apply(f.RunSent(run, 1, "w"), NOW, 10 * run + 1)
        state.apply(f.OutputReceived(run, 1, [[1, "x"]]), NOW, 10 * run + 2)
        state.apply(f.RunEnded(run, 1, 1, "a", "ok", NOW, NOW, "w", 0, None, True), NOW, 10 * run + 3)
    assert [outcome.run for outcome in state.recent] == list(range(91, 101))
    assert (len(state.outcomes), len(state.outputs), state.history_from_seq) == (10, 10, 904)


def test_output_whose_beginning_was_forgotten_is_not_taken_for_whole() -> None:
    """LOG would otherwise show a part as if it were all."""
    state = State("UTC", recent_runs=1)
    for fact in (ADDED, JOINED, QUEUED, SENT, f.OutputReceived(1, 1, [[1, "first"]])):
        state.apply(fact, NOW, 1)
    state.apply(f.RunQueued(2, 1, NOW, "manual"), NOW, 2)
    state.apply(f.RunSent(2, 1, "w"), NOW, 3)
    state.apply(f.OutputReceived(2, 1, [[1, "other"]]), NOW, 4)
    assert 1 not in state.outputs
    state.apply(f.OutputReceived(1, 1, [[1, "second"]]), NOW, 5)
    assert (state.outputs[1].whole, state.outputs[1].lines) == (False, [(1, "second")])


def test_a_run_makes_only_the_moves_of_the_table() -> None:
    """A fact that says otherwise is a bug or a journal that was tampered with, and must not be believed."""
    state = State("UTC")
    for seq, fact in enumerate([ADDED, JOINED, QUEUED, SENT], 1):
        state.apply(fact, NOW, seq)
    skipped = f.RunEnded(1, 1, 1, "a", "skipped", NOW, None, None, None, None, True)
    for wrong in (f.RunRetried(1, 2, LATER), SENT, skipped):
        with pytest.raises(AssertionError):
            state.apply(wrong, NOW, 9)


@pytest.mark.parametrize("state", sorted(WAITING | HELD))
def test_clients_see_three_states_of_a_run_that_has_not_ended(state: str) -> None:
    """Scripts filter RUNS by them; what holds a run back, or that it is being stopped, is for WHY."""
    run = Run(1, 1, read_record(RECORD, "UTC"), state, due_at=NOW, queued_at=NOW, by="manual")
    started = replace(run, started_at=NOW)
    shown = {run.shown, started.shown}
    assert shown == (
        {"queued"} if state in WAITING else {"sent", "running"} if state == "stopping" else {state}
    )


def test_writing_a_fact_leaves_it_as_it_was_decided() -> None:
    """It is applied after it was written: a definition must not be read again from its own record."""
    spec = read_record(RECORD, "UTC")
    fact = f.TaskAdded(1, spec, NOW, None)
    encoding.encode(1, NOW, fact, more=False)
    assert fact.record is spec
