"""A worker that has ended its input, or is refused: what it is owed leaves, and no order does."""

from __future__ import annotations

from cronflowd.daemon.core import Core
from cronflowd.net.workers import SLICE_LINES
from tests.lib.core_driver import Connect, line, until_quiet
from tests.lib.harness import Wire


async def busy_worker(core: Core, connect: Connect, slots: int) -> Wire:
    """One with a run in each slot, and as many runs wait."""
    wire = Wire("192.0.2.9:1")
    connect(wire)
    wire.say(f"HELLO name=a slots={slots}")
    for _ in range(2 * slots):
        line(core, "NOW x")
    await until_quiet()
    assert len(wire.take_lines()) == 1 + slots
    return wire


async def test_who_has_ended_its_input_is_given_no_order_while_its_reports_are_taken(
    core: Core, connect: Connect
) -> None:
    """It could report on none: each report makes a slot free, and each run begun there would be lost."""
    slots = 2 * SLICE_LINES + 1
    wire = await busy_worker(core, connect, slots)
    for run in range(1, slots + 1):
        wire.say(f"DONE {run} 1 0")
    wire.leave()
    await until_quiet()
    assert [text.split(" ")[0] for text in wire.take_lines()] == ["ACK"] * slots
    assert [(run.state, run.attempt) for run in core.state.runs.values()] == [("queued", 1)] * slots


async def test_an_order_that_waits_for_the_disk_does_not_leave_for_who_has_ended_its_input(
    core: Core, connect: Connect
) -> None:
    """What it is owed beside that does leave; the run goes to another worker, which may be here by then."""
    wire, other = await busy_worker(core, connect, 1), Wire("192.0.2.9:2")
    core.journal.notify = lambda seq: None  # the disk is slow
    wire.say("DONE 1 1 0")
    await until_quiet()
    assert [(run.id, run.state) for run in core.state.runs.values()] == [(2, "sent")]
    wire.leave()
    await until_quiet()
    assert not core.state.workers["a"].connected
    connect(other)
    other.say("HELLO name=b slots=1")
    await until_quiet()
    core.journal.notify = core.committed
    core.committed(core.last_seq)
    await until_quiet()
    assert [text.split(" ")[:2] for text in wire.take_lines()] == [["ACK", "1"]]
    assert [text.split(" ")[:3] for text in other.take_lines()] == [
        ["OK", "b", "heartbeat=10"],
        ["RUN", "2", "2"],
    ]


async def test_an_order_that_waits_for_the_disk_does_not_leave_for_who_is_refused(
    core: Core, connect: Connect
) -> None:
    """It reads why, and then the end; that it has a run it would have to remember until it comes again."""
    wire = await busy_worker(core, connect, 1)
    core.journal.notify = lambda seq: None  # the disk is slow
    wire.say("DONE 1 1 0\nNONSENSE")
    await until_quiet()
    core.journal.notify = core.committed
    core.committed(core.last_seq)
    await until_quiet()
    assert [text.split(" ")[:2] for text in wire.take_lines()] == [["ACK", "1"], ["ERR", "unknown-command"]]
    assert [(run.id, run.state) for run in core.state.runs.values()] == [(2, "queued")]


async def test_who_says_hello_and_ends_its_input_is_given_no_order(core: Core, connect: Connect) -> None:
    """Somebody tries with a netcat whether the port answers; a run that waited would be lost for it."""
    line(core, "NOW x")
    wire = Wire("192.0.2.9:1")
    connect(wire)
    wire.say("HELLO name=a slots=1")
    wire.leave()
    await until_quiet()
    assert [text.split(" ")[0] for text in wire.take_lines()] == ["OK"]
    assert [(run.state, run.attempt) for run in core.state.runs.values()] == [("queued", 1)]
