"""Workers that hold runs of another daemon, or of a time after the backup that this one was made of."""

from __future__ import annotations

from cronflowd.daemon.core import Core
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
