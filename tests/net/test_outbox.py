"""What an outbox promises: order, nothing before its commit, one send, and no patience with slow readers."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from itertools import pairwise

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from cronflowd.net.outbox import A_PASS, PIECE_BYTES, STALL_S, Gate, Outbox
from tests.lib.sinks import SmallSink

LIMIT = 1 << 20


def make(room: int = 1 << 30, limit: int = LIMIT) -> tuple[SmallSink, Gate, Outbox]:
    sink, gate = SmallSink(room), Gate()
    return sink, gate, Outbox(sink, gate, limit)


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


def test_a_message_stays_until_what_it_claims_is_on_disk() -> None:
    """OK means: on disk. A reply that leaves earlier is a lie after a power cut."""
    sink, gate, outbox = make()
    outbox.put_now(b"OK 1\n", seq=7)
    gate.open(6)
    assert sink.sends == []
    gate.open(7)
    assert sink.sends == [b"OK 1\n"]


def test_all_that_one_commit_releases_leaves_in_one_send() -> None:
    """A send costs as much as fifty lines; one commit must not make more than one."""
    sink, gate, outbox = make()
    for seq in (1, 2, 3):
        outbox.put(b"row %d\n" % seq, seq)
    gate.open(3)
    assert sink.sends == [b"row 1\nrow 2\nrow 3\n"]


def test_a_message_never_overtakes_an_earlier_one() -> None:
    """Replies come in order, also where a later one depends on nothing."""
    sink, gate, outbox = make()
    outbox.put(b"changed\n", seq=1)
    outbox.put_now(b"PONG\n", seq=0)
    assert sink.sends == []
    gate.open(1)
    assert sink.sends == [b"changed\nPONG\n"]


def test_one_commit_makes_the_rows_of_some_and_short_replies_do_not_wait_for_them() -> None:
    """A commit of a hundred records let a thousand watchers' rows be made in one go: 60 ms for everybody."""
    gate = Gate()
    sinks = [SmallSink() for _ in range(2 * A_PASS + 10)]
    for sink in sinks:
        Outbox(sink, gate, LIMIT).put_rows(iter([(b"row\n", 1)]), 1)
    last = SmallSink()
    Outbox(last, gate, LIMIT).put_now(b"PONG\n", 1)
    gate.open(1)
    counts = []
    while True:
        counts.append(sum(sink.sent == b"row\n" for sink in sinks))
        assert last.sent == b"PONG\n"
        if not gate.owes_some:
            break
        gate.let_some()
    assert counts == [A_PASS - 1, 2 * A_PASS - 1, len(sinks)]


def test_one_commit_lets_replies_leave_on_some_connections_and_on_the_others_in_the_next_passes() -> None:
    """A thousand that were answered by one commit were a thousand sends, before anybody else had a turn."""
    gate = Gate()
    sinks = [SmallSink() for _ in range(2 * A_PASS + 10)]
    for sink in sinks:
        Outbox(sink, gate, LIMIT).put_now(b"OK\n", 1)
    counts = [0]
    gate.open(1)
    while True:
        counts.append(sum(bool(sink.sends) for sink in sinks))
        if not gate.owes_some:
            break
        gate.let_some()
    assert counts == [0, A_PASS, 2 * A_PASS, len(sinks)]


async def test_rows_that_go_on_are_made_for_some_in_each_pass_and_for_all_in_turn() -> None:
    """Hundreds that read long lists were each sent a piece in one pass; nothing was begun meanwhile."""
    gate, made = Gate(), list[int]()
    gate.wake = lambda: None
    sinks = [SmallSink() for _ in range(3 * A_PASS)]

    def rows(number: int) -> Iterator[tuple[bytes, int]]:
        for _ in range(4):
            made.append(number)
            yield bytes(PIECE_BYTES), 0

    async with trio.open_nursery() as nursery:
        for number, sink in enumerate(sinks):
            outbox = Outbox(sink, gate, LIMIT)
            nursery.start_soon(outbox.run)
            outbox.put_rows(rows(number), 0, now=True)
        counts = [len(made)]
        await settle()
        while gate.owes_some:
            gate.let_some()
            await settle()
            counts.append(len(made))
        nursery.cancel_scope.cancel()
    assert [len(sink.sent) for sink in sinks] == [4 * PIECE_BYTES] * len(sinks)
    assert max(later - earlier for earlier, later in pairwise(counts)) == A_PASS // 5
    assert made == [*range(len(sinks))] * 4


async def test_a_long_reply_goes_on_where_short_ones_come_without_end() -> None:
    """Hundreds who write all the time fill each pass: a list, or a watcher, would never come to its end."""
    gate, sink = Gate(), SmallSink()
    gate.wake = lambda: None
    Outbox(sink, gate, LIMIT).put_rows(iter([(b"row\n", 0)] * 20), 1)
    gate.open(1)
    passes = 0
    while sink.sent != b"row\n" * 20:
        for _ in range(2 * A_PASS):
            Outbox(SmallSink(), gate, LIMIT).put_now(b"OK\n", gate.committed + 1)
        gate.open(gate.committed + 1)
        passes += 1
        assert passes < 20


async def test_a_reader_that_can_take_more_waits_for_its_turn_too() -> None:
    """Hundreds of sockets that drain at once are as many sends, of what was made long before."""
    gate = Gate()
    sinks = [SmallSink(room=1) for _ in range(3 * A_PASS)]
    async with trio.open_nursery() as nursery:
        gate.wake = lambda: None
        for sink in sinks:
            outbox = Outbox(sink, gate, LIMIT)
            nursery.start_soon(outbox.run)
            outbox.put_now(b"OK\n", 0)
        await settle()
        for sink in sinks:
            sink.take(100)
        await settle()
        counts = []
        while gate.owes_some:
            gate.let_some()
            counts.append(sum(sink.sent == b"OK\n" for sink in sinks))
        nursery.cancel_scope.cancel()
    assert counts == [A_PASS, 2 * A_PASS, 3 * A_PASS]


async def test_rows_that_are_looked_for_in_vain_take_as_much_of_a_pass_as_those_that_are_found() -> None:
    """A filter that matches nothing sends nothing, and looks at as many tasks as one that matches all."""
    gate, looked = Gate(), list[int]()

    def rows() -> Iterator[tuple[bytes, int]]:
        for number in range(3):
            looked.append(number)
            yield b"", 0

    gate.wake = lambda: None
    for _ in range(A_PASS):
        Outbox(SmallSink(), gate, LIMIT).put_rows(rows(), 1)
    gate.open(1)
    counts = [len(looked)]
    while gate.owes_some:
        gate.let_some()
        counts.append(len(looked))
    assert max(later - earlier for earlier, later in pairwise([0, *counts])) == A_PASS // 5
    assert len(looked) == 3 * A_PASS


def test_replies_to_a_later_commit_take_no_others_turn() -> None:
    """Of a hundred that are answered half wait for the next commit; they were looked at with each, first."""
    gate = Gate()
    for _ in range(A_PASS):
        Outbox(SmallSink(), gate, LIMIT).put_now(b"OK\n", 2)
    sink = SmallSink()
    Outbox(sink, gate, LIMIT).put_now(b"OK\n", 1)
    gate.open(1)
    assert sink.sends == [b"OK\n"]


@pytest.mark.parametrize(("size", "a_pass"), [(10, A_PASS), (PIECE_BYTES, A_PASS // 5)])
def test_fewer_leave_in_a_pass_if_each_sends_much(size: int, a_pass: int) -> None:
    """Fifty pieces of rows, for those who watched a CLEAR, were a step of 60 ms; fifty rows are none."""
    gate = Gate()
    sinks = [SmallSink() for _ in range(3 * A_PASS)]
    for sink in sinks:
        Outbox(sink, gate, LIMIT).put_now(bytes(size), 1)
    gate.open(1)
    counts = [sum(bool(sink.sends) for sink in sinks)]
    while gate.owes_some:
        gate.let_some()
        counts.append(sum(bool(sink.sends) for sink in sinks))
    assert {later - earlier for earlier, later in pairwise(counts)} == {a_pass}


def test_put_now_leaves_at_once_if_it_may() -> None:
    """A reply to a question should not wait for a task switch."""
    sink, _, outbox = make()
    outbox.put_now(b"PONG\n", seq=0)
    assert sink.sends == [b"PONG\n"]
    assert not outbox.is_owing


async def test_messages_put_in_one_turn_are_joined() -> None:
    """Rows of a watcher come one by one and shall not cost a send each."""
    sink, _, outbox = make()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.run)
        await settle()
        outbox.put(b"a\n", 0)
        outbox.put(b"b\n", 0)
        await outbox.drained()
        assert sink.sends == [b"a\nb\n"]
        nursery.cancel_scope.cancel()


async def test_what_the_socket_does_not_take_follows_when_it_does() -> None:
    """A short write is normal; the rest must follow, once."""
    sink, _, outbox = make(room=3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.run)
        outbox.put_now(b"0123456789", 0)
        assert (sink.sent, outbox.pending_bytes) == (b"012", 7)
        await settle()
        sink.take(100)
        await outbox.drained()
        assert (sink.sent, outbox.pending_bytes) == (b"0123456789", 0)
        nursery.cancel_scope.cancel()


async def test_a_reader_that_leaves_too_much_unread_is_cut(autojump_clock: trio.testing.MockClock) -> None:
    """No client can make the memory of the server grow without bound: the next byte too many ends it."""
    sink, _, outbox = make(room=0, limit=100)
    outbox.put_now(b"x" * 60, 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.run)
        await trio.sleep(2)
        assert outbox.pending_bytes == 60
        outbox.put(b"x" * 60, 0)
    assert outbox.why_cut == "it left more than 100 bytes unread"
    assert (sink.was_aborted, outbox.pending_bytes, trio.current_time()) == (True, 0, 2)


async def test_a_reader_that_reads_is_not_cut_for_what_we_put_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """120 orders of 50 kB in one turn lost 120 runs, though the worker read all the time."""
    sink, gate, outbox = make(room=0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.run)
        for _ in range(120):
            outbox.put(b"x" * 50_000, 1)
        await trio.sleep(5)  # a slow disk is not the peer's fault
        gate.open(1)
        while outbox.is_owing:
            sink.take(65_536)
            await trio.sleep(0.9)
        nursery.cancel_scope.cancel()
    assert (len(sink.sent), outbox.why_cut) == (6_000_000, None)


async def test_a_reader_that_takes_nothing_for_long_is_cut(autojump_clock: trio.testing.MockClock) -> None:
    """Also one that owes little: it holds a connection that others need."""
    sink, _, outbox = make(room=5)
    outbox.put_now(b"0123456789", 0)
    await outbox.run()
    assert trio.current_time() == pytest.approx(STALL_S, abs=0.01)
    assert (outbox.why_cut, sink.sent) == ("it took nothing for 10 s", b"01234")


async def test_a_reader_that_takes_a_little_now_and_then_is_kept(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A thin line is no offence: each byte taken starts the wait anew."""
    sink, _, outbox = make(room=0)
    outbox.put_now(b"0123456789", 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.run)
        for _ in range(10):
            await trio.sleep(STALL_S - 1)
            sink.take(1)
        await outbox.drained()
        nursery.cancel_scope.cancel()
    assert (sink.sent, outbox.why_cut) == (b"0123456789", None)


class Rows:
    """A long reply that remembers how much of it was made."""

    def __init__(self, count: int, size: int = PIECE_BYTES, seq: int = 0) -> None:
        self.count, self.size, self.seq = count, size, seq
        self.made = 0

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        for number in range(self.count):
            self.made += 1
            yield b"%d" % (number % 10) * self.size, self.seq


async def test_a_long_reply_is_made_while_the_peer_reads_it() -> None:
    """A list of a million tasks must never be in memory as a whole."""
    sink, _, outbox = make(room=PIECE_BYTES // 2)
    rows = Rows(100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.run)
        outbox.put_rows(iter(rows), 0)
        outbox.put(b"PONG\n", 0)
        await settle()
        assert rows.made <= 2
        assert outbox.pending_bytes <= 3 * PIECE_BYTES
        sink.take(200 * PIECE_BYTES)
        await outbox.drained()
        nursery.cancel_scope.cancel()
    assert sink.sent == b"".join(data for data, _ in Rows(100)) + b"PONG\n"
    assert outbox.pending_bytes == 0


async def test_rows_made_later_wait_for_what_they_tell() -> None:
    """A row made now may show a change that is not on disk yet."""
    sink, gate, outbox = make()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.run)
        outbox.put_rows(iter([(b"old\n", 0), (b"new\n", 5)]), 0)
        await settle()
        assert sink.sent == b"old\n"
        gate.open(5)
        await outbox.drained()
        assert sink.sent == b"old\nnew\n"
        nursery.cancel_scope.cancel()


async def test_an_empty_piece_lets_the_others_have_their_turn() -> None:
    """A filter that matches nothing looks at a million tasks before its first row."""
    sink, _, outbox = make()
    turns: list[str] = []

    def rows() -> Iterator[tuple[bytes, int]]:
        for number in range(5):
            turns.append("rows")
            yield b"" if number < 4 else b"OK 0\n", 0

    async def somebody_else() -> None:
        while not sink.sent:
            turns.append("others")
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.run)
        nursery.start_soon(somebody_else)
        outbox.put_rows(rows(), 0)
        await outbox.drained()
        nursery.cancel_scope.cancel()
    assert sink.sent == b"OK 0\n"
    assert outbox.pending_bytes == 0
    assert "rows rows rows" not in " ".join(turns)  # two: the order within one turn is left to chance


async def test_rows_that_cannot_be_made_end_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    """Half a reply without a status line must not be followed by the next reply."""
    sink, gate, outbox = make()

    def rows() -> Iterator[tuple[bytes, int]]:
        yield b"row\n", 0
        raise RuntimeError("changed while it was read")

    outbox.put_rows(rows(), 1)
    outbox.put(b"PONG\n", 1)
    gate.open(1)
    outbox.flush()
    assert (sink.was_aborted, b"PONG" in sink.sent) == (True, False)
    assert "a reply could not be made" in caplog.text


def test_our_end_comes_after_all_that_is_owed() -> None:
    """A FIN that overtakes a reply loses it."""
    sink, gate, outbox = make()
    outbox.put(b"OK 1\n", seq=1)
    outbox.finish()
    outbox.put(b"dropped\n", seq=1)
    assert not sink.has_ended
    gate.open(1)
    assert (sink.sent, sink.has_ended, outbox.is_finished) == (b"OK 1\n", True, True)


async def test_the_writer_returns_when_our_end_was_said() -> None:
    """Whoever waits for the writer knows then that everything has left."""
    sink, _, outbox = make(room=1)
    outbox.put_now(b"bye\n", 0)
    outbox.finish()
    assert not sink.has_ended
    sink.take(10)
    await outbox.run()
    assert (sink.sent, sink.has_ended) == (b"bye\n", True)


def test_drained_is_told_once_for_what_has_left() -> None:
    """The time of silence begins with it; telling it too often would keep a connection open for ever."""
    _, gate, outbox = make()
    told: list[int] = []
    outbox.on_drained = lambda: told.append(outbox.pending_bytes)
    outbox.put(b"a\n", 1)
    gate.open(1)
    gate.open(2)
    outbox.flush()
    assert told == [0]


@pytest.mark.parametrize("room", [7000, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 1 << 30])
@pytest.mark.parametrize("sizes", [(), (1,), (PIECE_BYTES - 1,), (PIECE_BYTES,), (PIECE_BYTES,) * 3, (0, 5)])
async def test_the_end_of_a_long_reply_is_told_whatever_its_size(sizes: tuple[int, ...], room: int) -> None:
    """A source that runs dry in a turn of its own sends no byte any more; netcat waited for ever then."""
    sink, _, outbox = make()
    told: list[int] = []
    outbox.on_drained = lambda: told.append(outbox.pending_bytes)
    outbox.put_rows(((b"x" * size, 0) for size in sizes), 0)
    for _ in range(sum(sizes) // room + 3 * len(sizes) + 3):
        sink.room = room
        outbox.flush()
    assert (len(sink.sent), told) == (sum(sizes), [0])


def test_a_peer_that_broke_off_is_given_up_quietly() -> None:
    """Clients leave in the middle all day long; that is no error of ours."""
    sink, gate, outbox = make()
    sink.error = ConnectionResetError(errno.ECONNRESET, "reset")
    outbox.put(b"OK\n", 1)
    gate.open(1)
    outbox.put(b"OK\n", 1)
    assert (outbox.why_cut, outbox.is_finished, outbox.pending_bytes) == ("", True, 0)


async def test_a_reader_waits_while_too_much_is_owed() -> None:
    """Who does not read our replies is not read either: that bounds what pipelining can pile up."""
    sink, _, outbox = make(room=0)
    outbox.put_now(b"x" * 100, 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.run)
        with trio.move_on_after(0.02) as scope:
            await outbox.wait_room(50)
        assert scope.cancelled_caught
        sink.take(60)
        await outbox.wait_room(50)
        assert outbox.pending_bytes == 40
        nursery.cancel_scope.cancel()


async def test_cutting_wakes_whoever_waits_for_the_peer(autojump_clock: trio.testing.MockClock) -> None:
    """The reader waits for room and the writer for the socket; both have to learn that it is over."""
    _, _, outbox = make(room=0)
    outbox.put_now(b"x" * 100, 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.run)
        nursery.start_soon(outbox.drained)
        await settle()
        outbox.cut("enough")
    assert (outbox.why_cut, trio.current_time()) == ("enough", 0)


def test_a_gate_calls_an_outbox_once_and_not_after_its_end() -> None:
    """The gate holds no connection that has gone."""
    sink, gate, outbox = make()
    outbox.put(b"a\n", 1)
    outbox.put(b"b\n", 2)
    outbox.cut("gone")
    gate.open(2)
    assert (sink.sends, gate._waiting) == ([], [])


@settings(deadline=None)
@given(st.data())
async def test_any_order_of_events_gives_the_same_bytes_and_none_before_its_commit(
    data: st.DataObject,
) -> None:
    """Short writes, commits, rows and messages in any order: what arrives is what was put, in order."""
    sink, gate, outbox = make(room=0)
    expected: list[tuple[bytes, int]] = []
    seq = 0
    for number in range(data.draw(st.integers(1, 20))):
        event = data.draw(st.sampled_from(["put", "put_now", "put_rows", "commit", "take", "flush"]))
        message = b"%d;" % number
        if event in ("put", "put_now"):
            seq += data.draw(st.integers(0, 1))
            getattr(outbox, event)(message, seq)
            expected.append((message, seq))
        elif event == "put_rows":
            made = [(message, seq)] * data.draw(st.integers(0, 3))
            outbox.put_rows(iter(made), seq)
            expected += made
        elif event == "commit":
            gate.open(data.draw(st.integers(gate.committed, seq)))
        elif event == "take":
            sink.room += data.draw(st.integers(0, 8))
        else:
            outbox.flush()
        allowed = b"".join(message for message, needs in expected if needs <= gate.committed)
        assert allowed.startswith(sink.sent)
    sink.room = 1 << 20
    gate.open(seq)
    for _ in range(100):
        outbox.flush()
    assert (sink.sent, outbox.pending_bytes) == (b"".join(message for message, _ in expected), 0)


# --- whatever is put, whoever reads ---------------------------------------------------------------

SMALL_LIMIT = 100_000
PUTS = st.lists(
    st.tuples(
        st.one_of(
            st.sampled_from([0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1]),
            st.integers(0, 150_000),
            st.lists(st.sampled_from([0, 1, 30_000, PIECE_BYTES - 1, PIECE_BYTES]), max_size=5),
        ),
        st.integers(0, 1),  # how many more commits it waits for
        st.sampled_from([0.0, 0.0, 0.0, 0.5, 12.0]),  # the time to the next
    ),
    min_size=1,
    max_size=12,
)


class Putting:
    """An outbox with a small limit, and what was put into it."""

    def __init__(self) -> None:
        self.sink, self.gate, self.outbox = make(room=0, limit=SMALL_LIMIT)
        self.outbox.on_drained = self._drained
        self.expected = 0
        self.made = 0
        self.seq = 0
        self.drained_at = [-1]  # how much had left each time

    def _drained(self) -> None:
        assert self.outbox.pending_bytes == 0
        self.drained_at.append(self.outbox.sent_bytes)

    def put(self, what: int | list[int]) -> None:
        """Bytes, or rows; each byte can be told from its neighbours'."""
        if isinstance(what, int):
            self.outbox.put(self._bytes(self.expected, what), self.seq)
            self.expected += what
        else:
            self.outbox.put_rows(self._rows(self.expected, what, self.seq), self.seq)
            self.expected += sum(what)

    def _rows(self, at: int, sizes: list[int], seq: int) -> Iterator[tuple[bytes, int]]:
        for size in sizes:
            self.made += size
            yield self._bytes(at, size), seq
            at += size

    @staticmethod
    def _bytes(at: int, size: int) -> bytes:
        period = bytes(range(251))
        return (period * (size // 251 + 2))[at % 251 :][:size]

    async def put_all(self, puts: list[tuple[int | list[int], int, float]]) -> None:
        for what, commits, wait_s in puts:
            self.seq += commits
            self.put(what)
            await trio.sleep(wait_s)
        self.gate.open(self.seq)

    async def read(self, a_time: int, until: int | None = None) -> None:
        """The peer takes a little in every second, until it has this much."""
        while until is None or self.outbox.sent_bytes < until:
            await trio.sleep(0.9)
            self.sink.room = 0
            self.sink.take(a_time if until is None else min(a_time, until - self.outbox.sent_bytes))


@settings(deadline=None, max_examples=60)
@given(PUTS, st.integers(20_000, 300_000), st.booleans())
def test_whoever_goes_on_reading_gets_all_of_it(
    puts: list[tuple[int | list[int], int, float]], a_time: int, then_finishes: bool
) -> None:
    """However much is put, in whatever order and at once: nobody who reads is cut, and the end is told."""
    putting = Putting()

    async def play() -> None:
        outbox = putting.outbox
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.run)
            nursery.start_soon(putting.read, a_time)
            await putting.put_all(puts)
            if then_finishes:
                outbox.finish()
            await outbox.drained()
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        assert outbox.why_cut is None
        assert putting.sink.sent == putting._bytes(0, putting.expected)
        assert putting.drained_at[-1] == putting.expected
        assert (outbox.is_owing, putting.sink.has_ended) == (False, then_finishes)

    trio.run(play, clock=trio.testing.MockClock(autojump_threshold=0))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.lists(st.just(PIECE_BYTES), min_size=1, max_size=9), min_size=1, max_size=4),
    st.floats(0, 0.99),
)
def test_whoever_stops_reading_is_cut_and_has_cost_little(replies: list[list[int]], part: float) -> None:
    """What a stalled peer has asked for is not made: two pieces ahead of it, and nothing after the cut."""
    putting = Putting()

    async def play() -> None:
        outbox = putting.outbox
        for sizes in replies:
            putting.put(sizes)
        until = int(part * putting.expected)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(putting.read, 50_000, until)
            await outbox.run()
            nursery.cancel_scope.cancel()
        stopped_after_s = trio.current_time() - 0.9 * -(-until // 50_000)
        assert outbox.why_cut
        assert stopped_after_s <= STALL_S + 1
        assert putting.made - outbox.sent_bytes <= 2 * PIECE_BYTES
        assert (outbox.pending_bytes, outbox.is_owing, putting.sink.was_aborted) == (0, False, True)

    trio.run(play, clock=trio.testing.MockClock(autojump_threshold=0))
