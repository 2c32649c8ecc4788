"""Workers that hold runs of another daemon, or of a time after the backup that this one was made of."""

from __future__ import annotations

from cronflowd.daemon.core import Core
from cronflowd.engine import orders as o
from tests.lib.core_driver import Connect, line, until_quiet
from tests.lib.harness import Wire


async def test_no_worker_is_sent_what_it_would_take_for_a_run_of_another_daemon(
    core: Core, connect: Connect
) -> None:
    """In a new data directory numbers begin anew: the job was passed over, and the old one's end was its."""
    wire = Wire("192.0.2.9:1")
    line(core, "NOW x")
    connect(wire)
    wire.say("HELLO name=a slots=3 held=all running=5:1,6:1,1:2,1:1")
    await until_quiet()
    assert wire.take_lines()[1:] == [], "each takes a slot, however many there are; and none is killed"
    wire.say("DONE 5 1 0")
    await until_quiet()
    assert wire.take_lines() == ["ACK 5 1"]
    wire.say("DONE 6 1 0")
    await until_quiet()
    assert [text.split(" ")[:3] for text in wire.take_lines()] == [["ACK", "6", "1"], ["RUN", "1", "3"]]
    wire.say("DONE 1 1 3")
    wire.say("DONE 1 2 3")
    await until_quiet()
    assert wire.take_lines() == ["ACK 1 1", "ACK 1 2"]
    assert [(run.id, run.state, run.attempt) for run in core.state.runs.values()] == [(1, "sent", 3)]


async def test_a_worker_hears_which_of_the_runs_it_names_are_its_own(core: Core, connect: Connect) -> None:
    """Also if none is: it tells nothing of what the others write."""
    wire, again = Wire("192.0.2.9:1"), Wire("192.0.2.9:2")
    connect(wire)
    wire.say("HELLO name=a slots=3 held=all running=5:1")
    await until_quiet()
    line(core, "NOW x")
    assert wire.take_lines()[0].endswith(" grace=10 had=")
    connect(again)
    again.say("HELLO name=a slots=3 held=all running=6:1,6:1,5:1")
    await until_quiet()
    assert again.take_lines()[0].endswith(" grace=10 had=6:1:0")


async def test_after_a_restore_a_worker_hears_that_what_waited_in_the_backup_is_its_own(
    core: Core, connect: Connect
) -> None:
    """It was sent after the backup was made, and all that it writes is wanted."""
    wire = Wire("192.0.2.9:1")
    line(core, "NOW x")
    core.submit(o.StartDaemon("1", "UTC", restored=True))
    connect(wire)
    wire.say("HELLO name=a slots=3 held=all running=1:1")
    wire.say("OUT 1 1 hello")
    await until_quiet()
    (answer,) = wire.take_lines()
    assert answer.endswith(" had=1:1:0")
    assert core.output_of("a", 1, 1) == len("hello\n")
