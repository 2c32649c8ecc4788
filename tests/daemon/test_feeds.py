"""WATCH and LOG … follow: each event worded once however many watch, and bounded however slowly they read."""

from __future__ import annotations

import gc
import json
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from weakref import finalize, ref

import pytest
import trio
import trio.testing

from cronflowd.ask import commands, events
from cronflowd.ask.questions import Since
from cronflowd.base.errors import Refusal
from cronflowd.daemon import feeds
from cronflowd.daemon.answers import MAX_WATCHES, Answers
from cronflowd.daemon.core import Core
from cronflowd.daemon.feeds import LogHub, WatchHub
from cronflowd.engine import facts as f
from cronflowd.engine import orders as o
from cronflowd.engine.rules import Limits
from cronflowd.engine.state import State
from cronflowd.net.clients import Session
from cronflowd.net.outbox import A_PASS, PIECE_BYTES, Outbox
from tests.lib.engine_driver import START
from tests.lib.harness import HandClock, run_here
from tests.lib.memory_journal import MemoryJournal
from tests.lib.sinks import SmallSink

ALL = frozenset({"tasks", "runs", "workers"})


class Watching:
    """A core, its hub, and connections that watch; nothing leaves before `read`."""

    def __init__(self) -> None:
        self.core = Core(State("UTC"), MemoryJournal(), HandClock(START), Limits())
        self.core.journal.notify = self.core.committed
        self.core.submit(o.StartDaemon("1", "UTC"))
        self.hub = WatchHub(self.core)

    def session(self, as_json: bool = False) -> tuple[Session, SmallSink]:
        sink = SmallSink()
        outbox = Outbox(sink, self.core.gate, 1 << 20)
        return Session(outbox, "somebody", "tcp", as_json=as_json), sink

    def decide(self, *lines: str) -> None:
        """Orders that are not on disk yet."""
        for line in lines:
            self.core.submit(commands.parse(line, commands.Context(self.core.now(), "UTC")))

    def do(self, *lines: str) -> None:
        self.decide(*lines)
        self.core.journal.flush()
        while self.core.gate.owes_some:
            self.core.gate.let_some()

    def read(self, session: Session, turns: int = 10_000) -> None:
        """The peer reads all there is."""
        for _ in range(turns):
            session.outbox.flush()


@pytest.fixture
def watching() -> Watching:
    return Watching()


def counted(monkeypatch: pytest.MonkeyPatch, where: Any, name: str) -> Counter[Any]:
    """Counts the calls by their first argument."""
    calls: Counter[Any] = Counter()
    real: Callable[..., Any] = getattr(where, name)

    def count(first: Any, *rest: Any) -> Any:
        calls[type(first)] += 1
        return real(first, *rest)

    monkeypatch.setattr(where, name, count)
    return calls


def names(sink: SmallSink) -> list[str]:
    return [row.split("\t")[3] for row in sink.sent.decode().splitlines()]


async def test_what_is_told_of_the_past_is_bounded_for_all_together(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a list of its own: a thousand that read nothing would hold a thousand times the journal."""
    records: list[Any] = []

    class Spy:
        def see(self, fact: f.Fact, at: datetime, seq: int) -> None:
            records.append((seq, at, fact))

    watching.core.feeds.append(Spy())
    watching.do(*["PAUSE all", "RESUME all"] * 10)
    monkeypatch.setattr(trio.to_thread, "run_sync", run_here)
    monkeypatch.setattr(feeds.history, "facts", lambda data, after, upto: records)
    monkeypatch.setattr(feeds, "MAX_PAST", 30)

    async def watch(kinds: frozenset[str] = ALL) -> tuple[Session, SmallSink]:
        session, sink = watching.session()
        watcher = watching.hub.watch(session, kinds, None, waits=True)
        await watching.hub.go_on(watcher, Since(records[0][0] - 1, 0), Path())
        await trio.testing.wait_all_tasks_blocked()
        return session, sink

    others = [await watch(frozenset({"workers"})) for _ in range(5)]  # who hear nothing, and hold nothing
    first, second = await watch(), await watch()
    for session, _ in (*others, first, second):
        watching.read(session)
    third = await watch()
    watching.read(third[0])
    heard = [
        [row.split("\t")[1] for row in sink.sent.decode().splitlines()] for _, sink in (first, second, third)
    ]
    assert heard == [["task-paused", "task-resumed"] * 10, ["gap"], ["task-paused", "task-resumed"] * 10]
    gc.collect()
    assert watching.hub.past == 0


def test_an_event_is_worded_once_for_a_thousand_watchers(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CLEAR before a thousand watchers held the loop for the time of a thousand CLEARs."""
    described = counted(monkeypatch, events, "describe")
    worded = counted(monkeypatch, feeds, "format_row")
    peers = [watching.session() for _ in range(1000)]
    for session, _ in peers:
        watching.hub.watch(session, ALL, None)
    watching.do(*(f"ADD name=t{number} @daily x" for number in range(10)))
    for session, sink in peers:
        watching.read(session, 3)
        assert names(sink) == [f"t{number}" for number in range(10)]
    assert described[f.TaskAdded] == 10
    assert worded.total() == 10


def test_rows_are_put_together_once_for_all_that_are_as_far(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand watchers of one burst looked at each of its events a thousand times."""
    looked = counted(monkeypatch, feeds.Entry, "row")
    peers = [watching.session() for _ in range(100)]
    for session, _ in peers:
        watching.hub.watch(session, ALL, None)
    watching.do(*(f"ADD name=t{number} @daily x" for number in range(3000)))
    for _ in range(10):
        for session, _ in peers:
            watching.read(session, 1)
    for _, sink in peers:
        assert names(sink) == [f"t{number}" for number in range(3000)]
    # The first event alone was put together while it was the only one.
    assert looked.total() < 3000 + 100
    entry = ref(watching.hub.last)
    watching.do("ADD name=last @daily x")
    for session, _ in peers:
        watching.read(session, 1)
    watching.do("PAUSE all", "RESUME all")
    assert entry() is None


async def test_a_record_calls_those_that_follow_its_run_and_is_worded_once_for_each_form(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand may follow one LOG, and another thousand others: each line of any job is no step for all."""
    worded: list[Any] = []
    real = feeds.format_row

    def count(columns: Any, row: Any, as_json: bool) -> str:
        worded.append(row)
        return real(columns, row, as_json)

    monkeypatch.setattr(feeds, "format_row", count)
    logs, peers = LogHub(watching.core), []
    for number in range(2 * A_PASS + 50):
        session, sink = watching.session(as_json=number % 2 == 1)
        feed = logs.follow(session, 7, None)
        await feed.past([], 0)
        watching.read(session, 1)
        peers.append((sink, feed))
    other = watching.session()
    await logs.follow(other[0], 8, None).past([], 0)
    gate = watching.core.gate

    def passes() -> list[int]:
        """How many have been told what there is, after each pass."""
        gate.open(gate.committed)
        told = [sum(bool(sink.sends) for sink, _ in peers)]
        while gate.owes_some:
            gate.let_some()
            told.append(sum(bool(sink.sends) for sink, _ in peers))
        return told

    logs.see(f.OutputReceived(run=7, attempt=1, lines=[[1, "a"], [2, "b"]]), START, 0)
    assert passes() == [A_PASS, 2 * A_PASS, 2 * A_PASS + 50]
    assert (len(worded), other[1].sent) == (4, b"")
    assert [sink.sent for sink, _ in peers[:2]] == [
        b"1\ta\n2\tb\n",
        b'{"fd":1,"text":"a"}\n{"fd":2,"text":"b"}\n',
    ]
    logs.see(f.OutputReceived(run=7, attempt=1, lines=[[1, "c"]]), START, 0)
    logs.see(f.OutputReceived(run=7, attempt=1, lines=[[1, "d"]]), START, 0)
    end = f.RunEnded(7, 1, 1, "a", "ok", START, START, "w1", 0, None, True)
    logs.see(end, START, 0)
    gate.open(0)
    assert sum(feed.ended.is_set() for _, feed in peers) == A_PASS
    passes()
    assert {feed.count for _, feed in peers if feed.ended.is_set()} == {4}
    assert all(feed.ended.is_set() for _, feed in peers)
    assert (peers[0][0].sent, logs.count) == (b"1\ta\n2\tb\n1\tc\n1\td\n", len(peers) + 1)


async def test_who_follows_and_has_caught_up_holds_nothing_of_what_it_was_told(watching: Watching) -> None:
    """A run may write for a month."""
    logs = LogHub(watching.core)
    feed = logs.follow(watching.session()[0], 1, None)
    await feed.past([(1, "x")], 0)
    places = []
    for _ in range(5):
        logs.see(f.OutputReceived(run=1, attempt=1, lines=[[1, "y"]]), START, 0)
        places.append(ref(feed.stream.last))
        watching.core.gate.open(0)
        watching.read(feed._session, 2)
    assert feed.count == 6
    gc.collect()
    assert [each() is None for each in places] == [True] * 4 + [False]


async def test_who_follows_holds_nothing_when_it_has_left(watching: Watching) -> None:
    """Each of two that leave does so once, whether it has been called meanwhile or not."""
    logs = LogHub(watching.core)
    followed = [logs.follow(watching.session()[0], run, None) for run in range(1, 101)]
    for feed in followed[:50]:
        await feed.past([(1, "x")], 0)
        watching.read(feed._session, 2)
    logs.see(f.OutputReceived(run=7, attempt=1, lines=[[1, "y"]]), START, 0)
    assert logs.count == 100
    for feed in followed:
        feed.leave()
        feed.leave()
    watching.core.gate.open(0)
    assert (logs.count, logs._streams, watching.core.feeds, followed[6].count) == (0, {}, [], 1)


def test_both_forms_are_worded_once_each(watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    """FORMAT json beside text is what a dashboard and a person do."""
    worded = counted(monkeypatch, feeds, "format_row")
    peers = [watching.session(as_json=number % 2 == 0) for number in range(10)]
    for session, _ in peers:
        watching.hub.watch(session, ALL, None)
    watching.do("ADD name=tea @daily x")
    for session, _ in peers:
        watching.read(session, 3)
    assert worded.total() == 2
    assert json.loads(peers[0][1].sent)["jobName"] == "tea"
    assert names(peers[1][1]) == ["tea"]


def test_a_burst_is_made_while_the_socket_takes_it(watching: Watching) -> None:
    """Ninety thousand tasks removed were 8 MB in every watcher's outbox at once, and cut them all."""
    session, sink = watching.session()
    sink.room = 0
    watching.hub.watch(session, ALL, None)
    watching.do(*(f"ADD name=t{number} @daily x" for number in range(5000)))
    watching.do(*(f"REMOVE t{number}" for number in range(5000)))
    assert session.outbox.pending_bytes < 3 * PIECE_BYTES
    most = 0
    for _ in range(1000):
        sink.room = 1000
        session.outbox.flush()
        most = max(most, session.outbox.pending_bytes)
    assert most < 3 * PIECE_BYTES
    sink.room = 1 << 30
    watching.read(session)
    assert names(sink) == [f"t{number}" for number in range(5000)] * 2
    assert session.outbox.why_cut is None


def test_who_has_caught_up_costs_nothing_and_holds_nothing(watching: Watching) -> None:
    """A watcher of one quiet task must not keep every event of a year in memory, nor be asked about each."""
    quiet, _ = watching.session()
    watcher = watching.hub.watch(quiet, frozenset({"tasks"}), 999)
    first = watching.hub.last
    watching.do(*(f"ADD name=t{number} @daily x" for number in range(100)))
    assert (quiet.outbox.is_owing, watcher.is_behind(watching.hub.last.number)) == (False, False)
    assert first.number + 100 == watching.hub.last.number


def test_who_waits_for_a_run_holds_none_of_the_events_that_come_before_it(watching: Watching) -> None:
    """A million tasks were removed while a thousand waited: the next run freed all of it in one go."""
    watching.do("ADD name=tea @daily x")
    session, sink = watching.session()
    watching.hub.watch(session, frozenset({"runs"}), None)
    watching.do("RUN tea")
    watching.read(session, 3)
    watching.do("ADD name=t1 @daily x")
    passed = ref(watching.hub.last)
    watching.do("ADD name=t2 @daily x")
    assert (names(sink), passed()) == (["tea"], None)


def test_what_a_watcher_far_behind_leaves_is_freed_a_little_at_a_time(watching: Watching) -> None:
    """The last that held two hundred thousand events took them along in one step of a quarter of a second."""
    many, alive = 4 * feeds.LET_GO, 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    stuck = [watching.session() for _ in range(3)]
    watchers = [watching.hub.watch(session, ALL, None) for session, _ in stuck]
    for _, sink in stuck:
        sink.room = 0
    for number in range(many):
        watching.do(f"ADD name=t{number} @daily x")
        finalize(watching.hub.last, gone)
        alive += 1
        for session, _ in stuck if number == 0 else ():
            watching.read(session, 1)
    before, freed = alive, []
    for watcher in watchers:
        watcher.cut("it is too slow")
    assert before - alive < feeds.LET_GO
    while watching.core.take_slice():
        freed.append(before - alive)
        before = alive
    assert (alive, len(freed)) == (1, many // feeds.LET_GO - 1)
    assert max(freed) <= feeds.LET_GO


def test_an_event_calls_some_of_those_who_watch_and_the_others_in_the_next_passes(watching: Watching) -> None:
    """Each event that a thousand had waited for made a thousand rows, and as many sends, in one step."""
    peers = [watching.session() for _ in range(2 * A_PASS + 10)]
    for session, _ in peers:
        watching.hub.watch(session, ALL, None)
    watching.decide("ADD name=a @daily x", "ADD name=b @daily x")
    assert not any(session.outbox.is_owing for session, _ in peers)
    watching.core.journal.flush()
    sent = []
    while watching.core.gate.owes_some:
        sent.append(sum(bool(sink.sends) for _, sink in peers))
        watching.core.gate.let_some()
    assert sent == [A_PASS, 2 * A_PASS]
    assert {tuple(names(sink)) for _, sink in peers} == {("a", "b")}


def test_each_watcher_sees_what_it_asked_for_and_nothing_else(watching: Watching) -> None:
    """WATCH runs tea: neither the tasks' rows nor another task's runs."""
    watching.do("ADD name=tea @daily x", "ADD name=other @daily x")
    (tea_session, tea), (all_session, everything) = watching.session(), watching.session()
    watching.hub.watch(tea_session, frozenset({"runs"}), 1)
    watching.hub.watch(all_session, ALL, None)
    watching.do("RUN other", "RUN tea", "PAUSE tea", "PAUSE other")
    watching.read(tea_session, 20)
    watching.read(all_session, 20)
    assert names(tea) == ["tea"]
    assert names(everything) == ["other", "tea", "tea", "other"]


def test_a_watcher_that_passes_over_much_does_so_in_slices(watching: Watching) -> None:
    """One that wants every thousandth event must not hold the loop while it looks for it."""
    watching.do("ADD name=tea @daily x")
    session, sink = watching.session()
    watching.hub.watch(session, ALL, 1)
    many = 10 * feeds.EVENTS_A_PIECE
    watching.decide("RUN tea", *(f"ADD name=t{number} @daily x" for number in range(many)), "PAUSE tea")
    assert session.outbox.before_put
    session.outbox.before_put()
    (source,) = [what for _, what in session.outbox._queue if not isinstance(what, bytes)]
    pieces = [data for data, _ in source]
    assert len(pieces) > many // feeds.EVENTS_A_PIECE
    assert b"".join(pieces).count(b"\n") == 2
    assert sink.sends == []


def test_a_reply_stands_between_what_was_before_and_after_it(watching: Watching) -> None:
    """Whoever gives orders and watches on one connection reads them in the order they happened."""
    session, sink = watching.session()
    watching.hub.watch(session, ALL, None)
    for number in range(5):
        watching.do(f"ADD name=t{number} @daily x")
        session.outbox.put(b"\t\t\tOK\n", watching.core.last_seq)
        if number == 3:
            watching.read(session, 2)
    watching.do("ADD name=last @daily x")
    watching.read(session, 20)
    assert names(sink) == ["t0", "OK", "t1", "OK", "t2", "OK", "t3", "OK", "t4", "OK", "last"]


def test_what_happened_before_another_form_was_asked_for_is_told_in_that_of_before(
    watching: Watching,
) -> None:
    """A row in front of the answer to FORMAT json would be the first that nobody expects to be JSON."""
    answers = Answers(watching.core, Path("/dev/null/nowhere"))
    session, sink = watching.session()
    answers.hub.watch(session, ALL, None)
    watching.decide("ADD name=tea @daily x")
    answers.handle("FORMAT json", session, watching.core.now())
    session.outbox.put(b"OK\n", watching.core.last_seq)
    watching.do("ADD name=cup @daily x")
    watching.read(session, 20)
    before, answer, after = sink.sent.decode().splitlines()
    assert (before.split("\t")[3], answer, json.loads(after)["jobName"]) == ("tea", "OK", "cup")


def test_a_connection_does_not_watch_without_end(watching: Watching) -> None:
    """Each is asked before every reply: a thousand took all places, and ended as a bug of ours."""
    answers = Answers(watching.core, Path("/dev/null/nowhere"))
    session, _ = watching.session()
    answers.enter(session)
    for _ in range(MAX_WATCHES):
        answers.handle("WATCH", session, watching.core.now())
    with pytest.raises(Refusal, match="too-many this connection watches 16 times already"):
        answers.handle("WATCH", session, watching.core.now())
    answers.leave(session)
    assert not watching.hub.watchers


def test_a_watcher_too_far_behind_is_cut_with_the_reason(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its events are kept for it alone: one forgotten terminal must not fill the memory. Others go on."""
    monkeypatch.setattr(feeds, "MAX_BEHIND", 1500)
    (stuck, stuck_sink), (good, good_sink) = watching.session(), watching.session()
    stuck_sink.room = 0
    for session in (stuck, good):
        watching.hub.watch(session, ALL, None)
    for number in range(3 * feeds.LOOK_EVERY):
        watching.do(f"ADD name=t{number} @daily x")
        watching.read(good, 3)
    assert stuck.outbox.why_cut == "it fell more than 1500 events behind"
    assert (good.outbox.why_cut, len(names(good_sink))) == (None, 3 * feeds.LOOK_EVERY)
    assert len(watching.hub.watchers) == 1


def test_an_event_that_cannot_be_told_ends_the_watches(
    watching: Watching, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A watch that went on without it would look whole; the order itself is not harmed."""
    session, _ = watching.session()
    watching.hub.watch(session, ALL, None)
    monkeypatch.setattr(events, "describe", lambda *_: 1 / 0)
    watching.do("ADD name=tea @daily x")
    assert session.outbox.why_cut == "an event could not be told"
    assert (len(watching.core.state.tasks), watching.core.feeds) == (1, [])
    assert "an event could not be told" in caplog.text


def test_the_last_to_leave_ends_the_describing(watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody watches most of the time, and then an event costs nothing."""
    described = counted(monkeypatch, events, "describe")
    watcher = watching.hub.watch(watching.session()[0], ALL, None)
    watcher.leave()
    watcher.leave()
    watching.do("ADD name=tea @daily x")
    assert (described.total(), watching.core.feeds) == (0, [])


async def test_a_followed_log_is_made_row_by_row_and_in_order(watching: Watching) -> None:
    """A past of megabytes is worded while the socket takes it; the lines that come meanwhile follow it."""
    session, sink = watching.session()
    logs = LogHub(watching.core)
    feed = logs.follow(session, 1, None)

    def live(number: int) -> f.OutputReceived:
        return f.OutputReceived(run=1, attempt=1, lines=[[1, f"{number:099d}"]])

    past = [(1, f"{number:099d}") for number in range(50_000)]
    logs.see(live(50_000), START, 0)
    await feed.past(past, 0)
    assert session.outbox.pending_bytes == PIECE_BYTES
    sink.room = 100_000
    watching.read(session, 5)
    logs.see(live(50_001), START, 0)
    sink.room = 1 << 30
    watching.read(session, 200)
    logs.see(live(50_002), START, 0)
    watching.core.gate.open(0)
    watching.read(session, 3)
    assert sink.sent == b"".join(b"1\t%099d\n" % number for number in range(50_003))
    assert feed.count == 50_003
    assert max(map(len, sink.sends)) < 2 * PIECE_BYTES


def test_a_life_that_took_two_records_is_told_in_four_rows(watching: Watching) -> None:
    """Whoever counts starts must not depend on how quickly a worker reports."""
    session, sink = watching.session()
    watching.core.submit(o.JoinWorker("w1", 1, {}, ("shell",), "here", ()))
    watching.do("ADD name=a 0 0 1 1 * x")
    watching.hub.watch(session, frozenset({"runs"}), None)
    before = watching.core.last_seq
    watching.do("RUN a")
    watching.core.submit(o.ReportEnded("w1", 1, 1, 0, {}, began=True))
    watching.core.journal.flush()
    assert watching.core.last_seq == before + 2
    watching.read(session)
    rows = [row.split("\t")[1:-1] for row in sink.sent.decode().splitlines()]
    about = ["1", "a", "1", "1"]
    assert rows == [
        ["run-queued", *about, "-", "manual"],
        ["run-sent", *about, "w1", "-"],
        ["run-started", *about, "w1", "-"],
        ["run-ended", *about, "w1", "ok exit=0"],
    ]
