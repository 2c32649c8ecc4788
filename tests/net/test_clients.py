"""Connections on the control port, with a core that knows six verbs, on virtual time."""

from __future__ import annotations

import gc
from contextlib import suppress
from typing import Any
from weakref import ref

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from cronflowd.base.errors import Fatal
from cronflowd.base.walks import SLICE
from cronflowd.net.clients import SLICE_LINES, Ending, Session, Step
from cronflowd.net.outbox import Gate, Outbox
from tests.lib.client_peer import DAY_S, WAITS, FakeCore, about, connected


@pytest.fixture
def clock() -> MockClock:
    """Time that leaps as soon as everybody waits."""
    return MockClock(autojump_threshold=0)


# --- the end of the connection ----------------------------------------------------------------


@pytest.mark.parametrize("last", [b"QUIT\n", b"PING\n", b"end", b"silence"])
async def test_a_connection_that_has_ended_leaves_nothing(clock: MockClock, last: bytes) -> None:
    """What was there for long is never looked through for circles: one would stay as long as we do."""
    core, left = FakeCore(), []
    gc.disable()
    try:
        for _ in range(4):
            async with connected(core) as peer:
                await peer.send(b"HELLO\nPING\n")
                await peer.read(b"OK cronflowd\nPONG\n")
                left.append(ref(core.sessions.pop().outbox))
                if last == b"end":
                    await peer.stream.send_eof()
                elif last == b"silence":
                    await peer.read_all()
                else:
                    await peer.send(last)  # whoever leaves with the answer unread has broken it off
                    await trio.testing.wait_all_tasks_blocked()
            await trio.testing.wait_all_tasks_blocked()
        assert [each() for each in left[:-1]] == [None] * 3  # the test itself may still know the last one
    finally:
        gc.enable()


async def test_silence_after_the_answer_ends_a_scripts_connection(clock: MockClock) -> None:
    """`echo PING | nc` must come back to the prompt, though nc never says that its input ended."""
    async with connected(FakeCore()) as peer:
        await peer.send(b"PING\n")
        await peer.read(b"PONG\n")
        await peer.ends_after(0.2)


async def test_after_our_end_lines_are_executed_for_ten_seconds(clock: MockClock) -> None:
    """A script that was only slow must not lose its later orders."""
    core = FakeCore()
    async with connected(core) as peer:
        await peer.send(b"PING\n")
        assert await peer.read_all() == (b"PONG\n", about(0.2))
        await trio.sleep(9)
        await peer.send(b"ADD 1\n")
        await trio.sleep(0.5)
        assert core.handled == ["PING", "ADD 1"]
        await trio.sleep(1)
        with pytest.raises(trio.BrokenResourceError):
            await peer.send(b"ADD 2\n")
        assert core.left == 1


async def test_the_clients_end_is_answered_and_closed_at_once(clock: MockClock) -> None:
    """Clients that do say their end wait for nothing."""
    async with connected(FakeCore()) as peer:
        await peer.send(b"PING\nECHO a\n")
        await peer.stream.send_eof()
        assert await peer.read_all() == (b"PONG\nOK a\n", 0.0)


@pytest.mark.parametrize("data", [b"PING", b"PING\r", b"# comment\n\n  \nPING", b"PING\n"])
async def test_a_last_line_without_newline_counts_if_it_only_reads(clock: MockClock, data: bytes) -> None:
    """`printf PING | nc` is what a health check looks like. Blank lines and comments get no reply."""
    async with connected(FakeCore()) as peer:
        await peer.send(data)
        await peer.stream.send_eof()
        assert await peer.read_all() == (b"PONG\n", 0.0)


async def test_a_last_line_without_newline_that_would_change_something_is_refused(clock: MockClock) -> None:
    """It may be cut short: `REMOVE 12` of `REMOVE 123`."""
    core = FakeCore()
    async with connected(core) as peer:
        await peer.send(b"PING\nADD 1")
        await peer.stream.send_eof()
        got, _ = await peer.read_all()
    assert got.startswith(b"PONG\nERR syntax the last line has no newline")
    assert core.handled == ["PING"]


async def test_an_unfinished_question_is_answered_when_silence_ends_the_input(clock: MockClock) -> None:
    """The same health check with a netcat that does not say its end."""
    core = FakeCore()
    async with connected(core) as peer:
        await peer.send(b"PING")
        assert await peer.read_all() == (b"PONG\n", about(0.2))
        await peer.send(b"ADD 1\nADD 2\n")
        await trio.sleep(1)
    assert core.handled == ["PING", "ADD 2"], "the rest of an answered line is not a line of its own"


async def test_half_an_order_is_given_time_to_become_whole(clock: MockClock) -> None:
    """A line cut by a bad network is not the end of the input."""
    async with connected(FakeCore(gate=Gate(committed=1))) as peer:
        await peer.send(b"ADD ")
        await trio.sleep(4.9)
        await peer.send(b"1\n")
        assert await peer.read_all() == (b"OK 1\n", about(4.9 + 0.2))


async def test_half_an_order_that_stays_half_is_refused(clock: MockClock) -> None:
    """In the end its sender is told, and what comes later of that line is not executed."""
    core = FakeCore()
    async with connected(core) as peer:
        await peer.send(b"ADD ")
        got, at = await peer.read_all()
        await peer.send(b"ADD 1\n")
        await trio.sleep(1)
    assert got.startswith(b"ERR syntax")
    assert (at, len(core.handled)) == (about(5.0), 0)


async def test_who_goes_on_after_an_answer_is_given_more_time(clock: MockClock) -> None:
    """A program that reads an answer and thinks about it is no script that has ended."""
    async with connected(FakeCore()) as peer:
        await peer.send(b"PING\n")
        await peer.read(b"PONG\n")
        await trio.sleep(0.15)
        await peer.send(b"PING\n")
        await peer.read(b"PONG\n")
        await trio.sleep(4.9)
        await peer.send(b"PING\n")
        await peer.read(b"PONG\n")
        await peer.ends_after(5.0)


async def test_a_long_input_is_not_taken_for_a_conversation(clock: MockClock) -> None:
    """Ten thousand piped lines are answered while they still come; the prompt is back at once after them."""
    async with connected(FakeCore()) as peer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.send, b"PING\n" * 10_000)
            await peer.read(b"PONG\n" * 10_000)
        await peer.ends_after(0.2)


@pytest.mark.parametrize("first", [b"PING\nPI", b"PING   \n" * 128])
async def test_the_rest_of_a_cut_input_is_no_reaction_to_an_answer(clock: MockClock, first: bytes) -> None:
    """A netcat sends a file in pieces; we may have answered one before the next is on its way."""
    async with connected(FakeCore()) as peer:
        await peer.send(first)
        await peer.read(b"PONG\n" * first.count(b"\n"))
        await peer.send(b"PING\n"[len(first.rpartition(b"\n")[2]) :])
        await peer.read(b"PONG\n")
        await peer.ends_after(0.2)


async def test_a_first_byte_after_a_second_is_a_person(clock: MockClock) -> None:
    """Nobody types a line within a second; people are left alone for five minutes of silence."""
    async with connected(FakeCore()) as peer:
        await trio.sleep(1.01)
        await peer.send(b"PING\n")
        await peer.read(b"PONG\n")
        await trio.sleep(299)
        await peer.send(b"PI")
        await trio.sleep(299)
        await peer.send(b"NG\n")
        await peer.read(b"PONG\n")
        await peer.ends_after(300)


async def test_a_first_byte_within_a_second_is_a_script(clock: MockClock) -> None:
    """`(sleep 0.9; echo PING) | nc` still gets its prompt back."""
    async with connected(FakeCore()) as peer:
        await trio.sleep(0.99)
        await peer.send(b"PING\n")
        await peer.read(b"PONG\n")
        await peer.ends_after(0.2)


async def test_a_connection_that_sends_nothing_is_closed_after_a_minute(clock: MockClock) -> None:
    """Forgotten connections would use up the limit."""
    core = FakeCore()
    async with connected(core) as peer:
        await peer.ends_after(60)
    assert core.left == 1


@pytest.mark.parametrize("line", [b"HELLO\n", b"AUTH x\n"])
async def test_a_session_stays_open_for_five_minutes_of_silence(clock: MockClock, line: bytes) -> None:
    """A program that says HELLO may think as long as it likes."""
    async with connected(FakeCore()) as peer:
        await peer.send(line)
        await peer.stream.receive_some()
        await trio.sleep(299)
        await peer.send(b"PING\n")
        await peer.read(b"PONG\n")
        await peer.ends_after(300)


async def test_a_watcher_stays_for_ever(clock: MockClock) -> None:
    """Days without an event are normal; and `OK watching` comes before the first event."""
    core = FakeCore()
    async with connected(core) as peer:
        await peer.send(b"WATCH\n")
        await peer.read(b"OK watching\n")
        await trio.sleep(30 * DAY_S)
        core.sessions[0].outbox.put(b"event\n", 0)
        await peer.read(b"event\n")


async def test_a_watcher_that_ended_its_input_goes_on_watching(clock: MockClock) -> None:
    """`echo WATCH | nc -N` watches. When it is gone it is noticed, though nothing ever happens."""
    core = FakeCore()
    async with connected(core) as peer:
        await peer.send(b"WATCH\n")
        await peer.stream.send_eof()
        await peer.read(b"OK watching\n")
        await trio.sleep(DAY_S)
        core.sessions[0].outbox.put(b"event\n", 0)
        await peer.read(b"event\n")
    assert core.left == 1


async def test_a_follower_that_left_is_noticed_while_its_order_still_waits(clock: MockClock) -> None:
    """A run may go on for ever; its spectators must not pile up."""
    core = FakeCore()
    async with connected(core) as peer:
        await peer.send(b"FOLLOW 1000000\n")
        await trio.sleep(1)
        assert core.left == 0
    assert core.left == 1
    assert trio.current_time() < 40


async def test_what_is_followed_ends_with_its_status_line(clock: MockClock) -> None:
    """And then the connection's end has its normal rules."""
    async with connected(FakeCore()) as peer:
        await peer.send(b"FOLLOW 100000\n")
        await peer.stream.send_eof()
        assert await peer.read_all() == (b"row\nOK 1\n", about(100_000))


async def test_quit_ends_at_once_and_nothing_behind_it_is_executed(clock: MockClock) -> None:
    """Also in a session, and in front of other lines."""
    core = FakeCore()
    async with connected(core) as peer:
        await peer.send(b"HELLO\nQUIT\nADD 1\n")
        assert await peer.read_all() == (b"OK cronflowd\nOK bye\n", 0.0)
        await peer.send(b"ADD 2\n")
        await trio.sleep(1.1)
        assert core.left == 1
    assert core.handled == ["HELLO", "QUIT"]


async def test_a_unix_socket_has_no_scripts(clock: MockClock) -> None:
    """There every client can say its end, so silence means nothing for five minutes."""
    async with connected(FakeCore(), kind="unix") as peer:
        await peer.send(b"PING\n")
        await peer.read(b"PONG\n")
        await peer.ends_after(300)


async def test_the_silence_begins_when_the_answer_has_left(clock: MockClock) -> None:
    """A slow disk must not cost a script its answer."""
    core = FakeCore()
    async with connected(core) as peer:
        await peer.send(b"ADD 1\n")
        await trio.sleep(7)
        core.gate.open(1)
        assert await peer.read_all() == (b"OK 1\n", about(7.2))


async def test_no_wait_runs_while_an_order_is_being_executed(clock: MockClock) -> None:
    """SAVE of a million tasks may take longer than any silence."""
    async with connected(FakeCore()) as peer:
        await peer.send(b"SLOW 1000\n")
        assert await peer.read_all() == (b"OK slow\n", about(1000.2))


def ending(rtt_s: float = 0.0, half: bool = False, **changes: Any) -> Ending:
    outbox = Outbox(None, Gate(), 1000)  # type: ignore[arg-type]
    session = Session(outbox, "peer", "tcp")
    for name in ("is_session", "is_live", "closing", "must_authenticate"):
        setattr(session, name, changes.pop(name, False))
    return Ending(
        WAITS, session, 1000.0, lambda: rtt_s, lambda: half, quiet_at=1100.0, looked_at=1100.0, **changes
    )


@pytest.mark.parametrize(
    ("situation", "at", "step"),
    [
        (ending(), 1001, Step.TYPING),
        (ending(is_session=True), 1060, Step.CLOSE),
        (ending(something_came=True), 1100.2, Step.FINISH),
        (ending(something_came=True, rtt_s=0.01), 1100.2, Step.FINISH),
        (ending(something_came=True, rtt_s=0.3), 1101.0, Step.FINISH),
        (ending(something_came=True, more_came=True, rtt_s=0.3), 1105, Step.FINISH),
        (ending(something_came=True, half=True), 1105, Step.FINISH),
        (ending(something_came=True, is_session=True, more_came=True), 1400, Step.CLOSE),
        (ending(something_came=True, is_session=True, is_live=True), float("inf"), Step.CLOSE),
        (ending(something_came=True, is_live=True, input_ended=True), 1130, Step.LOOK),
        (ending(something_came=True, input_ended=True), 1100, Step.FINISH),
        (ending(something_came=True, finished_at=1200.0), 1210, Step.CLOSE),
        (ending(something_came=True, finished_at=1200.0, closing=True), 1201, Step.CLOSE),
        (ending(something_came=True, finished_at=1200.0, input_ended=True), 1200, Step.CLOSE),
        (ending(must_authenticate=True), 1001, Step.TYPING),
        (ending(must_authenticate=True, is_session=True), 1010, Step.DENY),
        (ending(must_authenticate=True, is_session=True, something_came=True), 1010, Step.DENY),
    ],
)
def test_the_table_of_ends(situation: Ending, at: float, step: Step) -> None:
    """Each row of the table by itself."""
    assert situation.next_step() == (about(at), step)


# --- lines and replies ------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [1, 3, 1000])
async def test_replies_come_in_order_however_the_lines_arrive(clock: MockClock, piece: int) -> None:
    """A refused line changes nothing, and the next one is answered as if nothing had been."""
    lines = b"HELLO\nECHO 1\r\nnonsense\n\n# comment\nbad \xff\nROWS 2\nBUG\nSLOW 3\nECHO 2\n"
    async with connected(FakeCore()) as peer:
        for at in range(0, len(lines), piece):
            await peer.send(lines[at : at + piece])
        await peer.read(
            b"OK cronflowd\nOK 1\nERR unknown-command nonsense is no verb\n"
            b"ERR bad-line byte 0xff at column 5 is not UTF-8\n"
            b"0\t" + b"x" * 100 + b"\n1\t" + b"x" * 100 + b"\nOK 2\n"
            b"ERR internal a bug in the server; its log tells more\nERR busy too slow\nOK 2\n"
        )


async def test_half_a_line_does_not_make_good_what_was_refused_before_it(clock: MockClock) -> None:
    """`clear` behind a refused line wants to be said in full, however the network cuts it."""
    core = FakeCore()
    async with connected(core) as peer:
        await peer.send(b"nonsense\n")
        await peer.read(b"ERR unknown-command nonsense is no verb\n")
        await peer.send(b"ECH")
        await trio.testing.wait_all_tasks_blocked()
        assert core.sessions[0].refused


async def test_a_file_that_cannot_be_read_is_told_by_name(clock: MockClock) -> None:
    """It is the disk, and no bug: whoever asks is to look there."""
    async with connected(FakeCore()) as peer:
        await peer.send(b"UNREAD\nPING\n")
        await peer.read(b"ERR internal /data/journal/00000000000000000001.jsonl: Input/output error\nPONG\n")


async def test_a_bug_in_one_order_is_told_to_the_log(
    clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """With its traceback, and it ends neither the connection nor the server."""
    async with connected(FakeCore()) as peer:
        await peer.send(b"BUG\nPING\n")
        await peer.read(b"ERR internal a bug in the server; its log tells more\nPONG\n")
    assert "ZeroDivisionError" in caplog.text


async def test_what_is_fatal_goes_through(clock: MockClock) -> None:
    """After a failed fsync nobody may be answered."""
    core = FakeCore()
    with pytest.RaisesGroup(pytest.RaisesExc(Fatal), flatten_subgroups=True):
        async with connected(core) as peer:
            await peer.send(b"PING\nFATAL\n")
            await trio.sleep(1)
    assert core.left == 1


async def test_format_json_changes_its_own_answer_too(clock: MockClock) -> None:
    """And every later one, errors included, until it is turned back."""
    async with connected(FakeCore()) as peer:
        await peer.send(b"FORMAT json\nECHO x\nnonsense\nROWS 1\nFORMAT text\nECHO x\n")
        await peer.read(
            b'{"ok":true}\n{"ok":true,"text":"x"}\n'
            b'{"ok":false,"code":"unknown-command","message":"nonsense is no verb"}\n'
            b'{"n":0,"text":"' + b"x" * 100 + b'"}\n{"ok":true,"rows":1}\nOK\nOK x\n'
        )


async def test_a_reply_leaves_only_when_what_it_claims_is_on_disk(clock: MockClock) -> None:
    """All replies of one input share the commit."""
    core = FakeCore()
    async with connected(core) as peer:
        await peer.send(b"ADD 1\nADD 2\nPING\n")
        await trio.sleep(1)
        with trio.move_on_after(0.1) as scope:
            await peer.stream.receive_some()
        assert scope.cancelled_caught
        core.gate.open(2)
        await peer.read(b"OK 1\nOK 2\nPONG\n")
    assert core.batches[0] == 3


async def test_a_long_input_is_executed_in_slices(clock: MockClock) -> None:
    """So that others have their turn, and each slice is one commit."""
    core = FakeCore()
    async with connected(core) as peer:
        await peer.send(b"PING\n" * 2000)
        await peer.read(b"PONG\n" * 2000)
    assert len(core.batches) >= 2000 / SLICE_LINES
    assert max(b - a for a, b in zip([0, *core.batches], core.batches, strict=False)) <= SLICE_LINES


async def test_a_slow_order_holds_up_its_own_connection_only(clock: MockClock) -> None:
    """Replies come in order; other clients do not notice."""
    core = FakeCore()
    async with connected(core) as slow, connected(core) as quick:
        await slow.send(b"ECHO 1\nSLOW 50\nECHO 2\n")
        await slow.read(b"OK 1\n")
        await quick.send(b"PING\n")
        await quick.read(b"PONG\n")
        assert trio.current_time() == 0
        await slow.read(b"OK slow\nOK 2\n")
        assert trio.current_time() == about(50)


async def test_a_long_list_is_made_while_it_is_read(clock: MockClock) -> None:
    """Its rows must never be in memory all at once, and its status line still counts them."""
    core = FakeCore()
    async with connected(core) as peer:
        await peer.send(b"ROWS 60000\nPING\n")
        await trio.sleep(0.01)
        assert core.made_rows < 20_000
        await peer.stream.send_eof()
        got, _ = await peer.read_all()
    assert (got.count(b"\n"), got[-15:]) == (60_002, b"\nOK 60000\nPONG\n")


async def test_few_rows_of_a_long_list_are_made_in_a_turn(clock: MockClock) -> None:
    """The slice that asks made two pieces; and of rows that are short, and costly, one took 20 ms."""
    made = list[int]()

    class Counting(FakeCore):
        def end_batch(self) -> None:
            made.append(self.made_rows)

    core = Counting()
    async with connected(core) as peer:
        await peer.send(b"ROWS 60000\n")
        await trio.testing.wait_all_tasks_blocked()
        await peer.stream.send_eof()
        await peer.read_all()
    assert made[0] == SLICE  # fewer than fill a piece


@pytest.mark.parametrize("count", [1, 600, 610, 630, 640, 650])
async def test_a_list_of_about_a_piece_is_whole(clock: MockClock, count: int) -> None:
    """Whether it is all is seen from its length alone."""
    core = FakeCore()
    async with connected(core) as peer:
        await peer.send(b"ROWS %d\nPING\n" % count)
        await peer.stream.send_eof()
        got, _ = await peer.read_all()
    assert (got.count(b"\tx"), got.split(b"\n")[-3:]) == (count, [b"OK %d" % count, b"PONG", b""])


async def test_a_list_that_breaks_off_still_has_a_status_line(
    clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows without an end would make the next reply look like rows."""
    async with connected(FakeCore()) as peer:
        await peer.send(b"ROWS 13\nPING\n")
        await peer.stream.send_eof()
        got, _ = await peer.read_all()
    assert got.count(b"\tx") == 13
    assert got.endswith(b"\nERR internal a bug in the server; its log tells more\nPONG\n")
    assert "changed while it was read" in caplog.text


async def test_a_client_that_does_not_read_is_not_read_either_and_then_cut(clock: MockClock) -> None:
    """Pipelining without limit must not mean memory without limit."""
    core = FakeCore()
    async with connected(core) as peer:
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await peer.send(b"ECHO " + b"x" * 1000 + b"\n")
        assert trio.current_time() == about(10.0)
        assert core.sessions[0].outbox.why_cut == "it took nothing for 10 s"
    assert len(core.handled) < 3000


async def test_a_watcher_that_does_not_read_is_cut(clock: MockClock) -> None:
    """Events come without being asked for, so there the limit cuts at once."""
    core = FakeCore()
    async with connected(core, max_outbox=1 << 16) as peer:
        await peer.send(b"WATCH\n")
        await peer.read(b"OK watching\n")
        while core.sessions[0].outbox.why_cut is None:
            core.sessions[0].outbox.put(b"event " * 200 + b"\n", 0)
            await trio.sleep(0.01)
        await trio.sleep(1)
        assert core.left == 1


@pytest.mark.parametrize("line", [b"AS ann from=\xff", b" as\tann \xc3", b"AS " + b"x" * 70_000])
async def test_an_as_that_cannot_be_read_ends_the_connection(clock: MockClock, line: bytes) -> None:
    """Whom the lines behind it are for is not known: they must not be done for the one before."""
    core = FakeCore()
    async with connected(core, "unix") as peer:
        await peer.send(b"ECHO 1\n" + line + b"\nECHO 2\n")
        got, _ = await peer.read_all()
    assert [each.split(b" ")[0] for each in got.splitlines()] == [b"OK", b"ERR"]
    assert core.handled == ["ECHO 1"]


@pytest.mark.parametrize("line", [b"ADD \xff", b"ASK \xff", b"ECHO AS \xff", b"ADD " + b"x" * 70_000])
async def test_another_line_that_cannot_be_read_ends_nothing(clock: MockClock, line: bytes) -> None:
    """A refused line changes nothing, and the connection stays of use."""
    core = FakeCore()
    async with connected(core, "unix") as peer:
        await peer.send(line + b"\nECHO 2\nQUIT\n")
        got, _ = await peer.read_all()
    assert [each.split(b" ")[0] for each in got.splitlines()] == [b"ERR", b"OK", b"OK"]
    assert core.handled == ["ECHO 2", "QUIT"]


@pytest.mark.parametrize(
    ("before", "answers"),
    [
        (b"", b"PONG\n"),
        (b"ECHO PI", b"OK PIPING\n"),  # it is no line of its own
        (b"x" * 70_000, b"ERR too-long the line is longer than 65536 bytes; it was not read\n"),
        (b"SLOW\n", b"OK slow\nPONG\n"),
        (b"FORMAT json\n", b'{"ok":true}\nPONG as JSON\n'),
        (b"WATCH\n", b"OK watching\nPONG\n"),
        (b"QUIT\n", b"OK bye\n"),
    ],
    ids=str,
)
async def test_an_answer_that_stands_ready_comes_in_its_place(
    clock: MockClock, before: bytes, answers: bytes
) -> None:
    """A line that comes alone is looked up as it is; what has come before it decides whether it is one."""
    ready: Any = {"PING": "PONG", b"PING\n": "PONG"}, {"PING": "PONG as JSON", b"PING\n": "PONG as JSON"}
    core = FakeCore(ready=ready)
    async with connected(core) as peer:
        await peer.send(b"HELLO\n")
        await peer.read(b"OK cronflowd\n")
        if before:
            await peer.send(before)
            await trio.testing.wait_all_tasks_blocked()
        await peer.send(b"PING\n")
        await peer.read(answers)
        await trio.testing.wait_all_tasks_blocked()
        with suppress(BlockingIOError):
            assert peer.sock.recv(100) == b""
    assert "PING" not in core.handled


async def test_who_is_not_known_has_no_answer_ready(clock: MockClock) -> None:
    """Nor is it looked up without counting the line: a stranger could send as many as he likes."""
    core = FakeCore(must_authenticate=True, ready=({b"PING\n": "PONG"}, {}))
    async with connected(core, "unix") as peer:
        await peer.send(b"PING\n")
        await peer.read(b"ERR auth-required AUTH first\n")
