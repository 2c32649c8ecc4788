"""Writes a journal in which every kind of fact stands: python -m tests.lib.write_journal DIRECTORY.

What it writes is kept as tests/data/journal-N, N being FACTS_VERSION, and tests/journal/test_old_journals.py
reads it for ever, as it does `names.txt` there, which tells what a release of that form understands. Write a
new directory when facts have another form, and leave those there are as they are: whoever upgrades has them.
A life by orders where orders lead to a fact, and by hand where only another release would write it.
"""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from pathlib import Path

import attrs

from cronflowd.engine import access_facts as af
from cronflowd.engine import encoding
from cronflowd.engine import facts as f
from cronflowd.engine import orders as o
from cronflowd.engine.calendars import CalendarDropped, CalendarRead
from cronflowd.engine.once import OnceKept
from cronflowd.engine.rules import Decision, Limits
from cronflowd.journal.journal import FileJournal
from cronflowd.tasks.options import RULES
from cronflowd.tasks.targets import parse_target
from cronflowd.tasks.task import Failure
from tests.lib.engine_driver import Driver
from tests.lib.journal_driver import compact, settle

SEGMENT_BYTES = 6000
OPTIONS = Limits(lease_s=30.0, notify=(parse_target("failure+missed+lost:mailto:ops@example.org"),))


class Life(Driver):
    """Remembers its decisions as they were."""

    def __init__(self) -> None:
        self.decisions: list[tuple[datetime, list[f.Fact]]] = []
        super().__init__(OPTIONS)

    def do(self, order: object) -> Decision:
        decision = super().do(order)
        if decision.facts:
            self.decisions.append((self.now, decision.facts))
        return decision

    def say(self, *facts: f.Fact) -> None:
        """What no order leads to any more, or only with very many tasks."""
        for fact in facts:
            self.journal.append(encoding.encode(len(self.journal) + 1, self.now, fact, False))
            self.state.apply(fact, self.now, len(self.journal))
        self.decisions.append((self.now, list(facts)))


def live() -> Life:
    """All that can happen, about once."""
    life = Life()
    life.do(o.StartDaemon("0.1.0", "UTC", zones="2026b /usr/share/zoneinfo"))
    life.do(o.JoinWorker("w1", 9, {"disk": "ssd"}, ("shell", "email"), "192.0.2.7:1", (), True, "i1", 1))
    for line in (
        "TEMPLATE ADD nightly retry=fixed:1:10s timeout=1m",
        'ADD name=first tags=a,b prio=high desc="the first" env.TOKEN=x */5 * * * * make first',
        "ADD name=second from=nightly after=first 10 12 * * * make second",
        'ADD name=third tz=Europe/Paris jitter=5s skip=holidays:FR overlap=queue "daily at 14:00" make third',
        "ADD name=heard @on upload make heard",
        "ADD name=chain after=second @after make chain",
        "ADD name=here on=all count=3 catchup=all @every 10m make here",
        "AT 2030-01-01T12:20:00Z make once",
        "ADD name=waits after=here 5 12 * * * make waits",
        "EXPECT backup every=10m grace=1m",
        "EXPECT other every=1d",
        "BEAT backup ok all is well",
    ):
        life.line(line)
    _run_some(life)
    _change_some(life)
    _run_flows(life)
    _let_in(life)
    _change_many(life)
    life.now += timedelta(hours=4)
    life.do(o.NoticeStep(4 * 3600.0))
    life.pump()
    life.line("FORGET backup")
    life.do(o.DropWorker("w2", "the connection ended", 2))
    life.do(o.Note(f.TasksSaved("tasks.db", 9, 100, 7, 5)))
    return life


def _run_some(life: Life) -> None:
    life.wait(300)
    for run in list(life.state.runs.values()):
        life.do(o.ReportStarted("w1", run.id, 1))
        life.do(o.ReportOutput("w1", run.id, [[1, "some output"], [2, "and a warning"]]))
    for run in list(life.state.runs.values()):
        life.do(o.ReportEnded("w1", run.id, 1, 0, {}))
    life.line("EMIT upload what=x")
    life.wait(300)
    life.line("RUN third arg.what=y")
    life.pump()
    for run in list(life.state.runs.values()):
        if run.worker:
            code = 0 if run.spec.name == "here" else 7
            life.do(o.ReportEnded("w1", run.id, run.attempt, code, {"signal": "9"} if code else {}, True))
    life.wait(60)
    life.line("PAUSE first why=holiday")
    life.wait(420)
    life.line("RESUME first")
    life.do(o.JoinWorker("w2", 1, {}, ("shell",), "192.0.2.8:1", (), True, "i2", 2))
    life.line("NOW make one")
    life.line("NOW make two")
    life.pump()
    sent = next(run for run in life.state.runs.values() if run.shown == "sent")
    life.do(o.UnsendRuns(sent.worker or "", ((sent.id, sent.attempt),)))
    life.pump()
    life.line(f"CANCEL {sent.id}")
    life.do(o.DismissWorker("w1"))
    life.do(o.DropWorker("w1", "silent for 30 s", 1))
    life.wait(1200)


def _change_some(life: Life) -> None:
    for line in (
        "SET second command=other timeout=2m",
        "SET third name=renamed",
        "PAUSE all until=2030-01-01T13:00:00Z why=all",
        "RESUME all",
        "REMOVE heard",
        "UNDO",
        "TEMPLATE REMOVE nightly",
        "DRAIN w2",
    ):
        life.line(line)
    life.do(o.Note(f.CheckpointWritten("checkpoint-5", 5, 10, 7)))


def _change_many(life: Life) -> None:
    """What is done in slices from 200 tasks on, done to few."""
    life.say(f.BulkDecided("clear", who="ann", change=99, what="CLEAR 1 tasks", verb="CLEAR"))
    life.say(f.TaskRemoved(1, "cleared", who="ann", change=99), f.BulkStepped(0))
    life.say(f.BulkEnded("done"))
    life.say(f.RescheduleBegun(life.now))
    life.pump()
    life.say(f.BulkStaged([], [], life.state.next_task))
    record = '{"jobName": "staged", "schedule": "0 4 * * *", "command": "make it"}'
    life.say(f.BulkStaged([life.state.next_task], [record]))
    unread = {"jobName": "unread", "schedule": "1 1 * * *", "command": "x", "tz": "Mars/Olympus"}
    life.say(f.TaskAdded(90, unread, life.now, None), f.TaskRescheduled(2, life.now + timedelta(days=1)))
    bad = Failure(life.now, 3, "failed", life.now, life.now, 7, "no server")
    life.say(f.FailureCarried(3, *attrs.astuple(bad)))
    life.say(f.NoticeFailed("email ops@example.org", 7, "notify_7", bad, 1))
    life.pump()


def _run_flows(life: Life) -> None:
    """One that fails, is tried again and given up; and one that is under way."""
    life.do(o.JoinWorker("w4", 1, {}, ("shell",), "192.0.2.8:1", (), True, "i4", 4))
    life.do(o.DismissWorker("w4", 4))
    life.do(o.JoinWorker("w3", 9, {}, ("shell",), "192.0.2.9:1", (), True, "i3", 3))
    life.line("ADD name=plain title=Plain meta={} 7 7 * * * make plain")
    life.line("ADD name=begin @daily make begin")
    life.line("ADD name=ending after=begin @after make ending")
    life.line("FLOW begin RUN arg.what=x")
    _end_flow_run(life, 3)
    life.line("FLOW begin RETRY")
    life.pump()
    life.line("FLOW begin CANCEL")
    _end_flow_run(life, 143)
    life.line("FLOW begin RUN")
    life.pump()


def _end_flow_run(life: Life, code: int) -> None:
    life.pump()
    run = next(run for run in life.state.runs.values() if run.flow)
    life.do(o.ReportEnded("w3", run.id, run.attempt, code, {}))
    life.pump()


def _let_in(life: Life) -> None:
    """Who may come in, what nobody is shown, and what is not done again."""
    at, later = life.now, life.now + timedelta(days=7)
    for name in ("ann", "bob", "eve"):
        life.say(
            af.AccountSet(name, "admin", at, f"{name}@example.org", password=f"of {name}", desc="a name")
        )
    life.say(af.AccountSet("bob", "user", at, "bob@example.org", 1001, "of bob", who="ann@192.0.2.7:9"))
    life.say(af.AccountRemoved("eve", who="ann@192.0.2.7:9"))
    for number, word in (1, "aa" * 32), (2, "bb" * 32):
        life.say(af.TokenAdded(number, word, "user", at, f"t{number}", "bob", expires_at=later))
    life.say(af.TokenRevoked(1))
    for number, word in (1, "aa" * 32), (2, "bb" * 32):
        life.say(af.LoginSet(number, "bob", word, word, at, later, "192.0.2.7", who="bob@192.0.2.7"))
    life.say(af.LoginEnded(1), af.ResetOffered("bob", "cc" * 32, at + timedelta(minutes=30)))
    life.say(af.SecretPut("kept", "sealed", at), af.SecretPut("gone", "sealed", at), af.SecretRemoved("gone"))
    life.say(af.SignedIn("bob", "user", "192.0.2.7:9", 2), af.Deed("ann@192.0.2.7:9", "SAVE", "tasks.db"))
    life.say(af.Refused("bob", "192.0.2.7:9", "CLEAR", "", "this takes the role operator; you are user"))
    life.say(f.OutputReceived(1, 1, [], 0, 5000, None, (5000, 7, "n1")))
    life.say(CalendarRead("file:closed.txt", at, {"2030-12-25": "Christmas", "2030-12-31": ""}))
    life.say(CalendarRead("holidays:FR", at), CalendarRead("file:gone", at, {}), CalendarDropped("file:gone"))
    life.say(OnceKept("bob", "key", "dd" * 32, "7 paused", {"paused": 7}, at + timedelta(hours=24)))


def write(data: Path) -> None:
    """The same life twice: as it was written, and compacted, which holds all that a checkpoint may."""
    for name in ("whole", "compacted"):
        life = live()
        seen = {type(fact) for _, facts in life.decisions for fact in facts} | set(
            map(type, life.state.carry())
        )
        assert not (missing := set(encoding.KINDS) - seen), f"no fact of these kinds: {missing}"
        journal = FileJournal(data / name, SEGMENT_BYTES, reserve_bytes=0)
        assert not list(journal.replay()), f"{data / name} is a journal already"
        for now, facts in life.decisions:
            journal.append(facts, now)
            journal.flush()
            settle(journal)
        journal.close()
        if name == "compacted":
            compact(data / name)


def names() -> list[str]:
    """All that records may say today: a line for each fact with its fields, and one for a task's options."""
    facts = [" ".join([kind.__name__, *kind.__struct_fields__]) for kind in encoding.KINDS]
    return [*sorted(facts), " ".join(f"{option}=" for option in sorted(RULES))]


if __name__ == "__main__":
    write(Path(sys.argv[1]))
    (Path(sys.argv[1]) / "names.txt").write_text("".join(f"{line}\n" for line in names()))
