"""What one connection is still owed: everything leaves in order, and nothing before its commit.

Every connection has one Outbox, and nobody else writes to its socket. A message is put with
the journal sequence number it depends on, and stays until the Gate says that number is on
disk; then all that may leave goes out in one send. Sending itself never blocks: what the
socket does not take at once is left to `run`, the connection's writer task.

A reader that does not read is cut: when it has taken nothing for `STALL_S`, or for `CHANCE_S`
while more than `limit_bytes` are owed. What we put in one turn it cannot have read yet, and
what waits for the disk is not its fault, so only the wait for the socket decides. Long replies
are put as rows, which are made while the socket takes them, so a list of a million tasks is
never in memory as a whole.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Protocol

import trio

PIECE_BYTES = 65_536  # one send takes about this much, and rows are made this much ahead
MAX_MADE = 8  # pieces of rows made in one turn, however little each gives
A_PASS = 50  # sends that a commit, or a beat, allows; one takes 0.1 ms under load, and more if it is long
A_LONG_ONE = 10  # of so many turns one is for what is long
A_SEND_BYTES = 16_384  # what is sent beyond this counts as another one
STALL_S = 10.0
CHANCE_S = 1.0  # the time in which a peer that is owed more than the limit must take something

# Data (empty: none yet, others first), and the sequence number that must be on disk before it leaves.
Chunks = Iterator[tuple[bytes, int]]

log = logging.getLogger(__name__)


class Sink(Protocol):
    """The sending half of a connection; only an Outbox calls it."""

    def send_now(self, data: bytes | memoryview) -> int:
        """How many bytes the peer's socket took without waiting; raises OSError when it is broken."""

    async def wait_writable(self) -> None: ...

    def fileno(self) -> int: ...

    def last_words(self, data: bytes) -> bytes:
        """What has the peer read that, and then our end; whoever holds the socket may send it, and close."""

    def shutdown(self) -> None:
        """Says that nothing more will come."""

    def abort(self) -> None:
        """Makes the reader find an end of input, and the coming close a reset."""


class Waiting(Protocol):
    """Who waits for the gate."""

    @property
    def is_long(self) -> bool:
        """Whether others may go first."""

    def pass_gate(self) -> None:
        """The gate has opened. What is sent is taken from its `room`."""


class Gate:
    """How far the journal is on disk. Messages about later facts wait here."""

    is_shut = False  # nothing leaves at all, ever again: see daemon/cluster.py

    def __init__(self, committed: int = 0) -> None:
        self.committed = committed
        self.room = 0  # for how many more sends in this pass of the loop; below zero: there is none
        self.is_crowded = False  # not all that might have left had their turn in this pass
        self.wake: Callable[[], object] = self._let_soon  # has `let_some` called in the next pass
        self._waiting: list[tuple[int, Waiting]] = []  # what has to be on disk, and for whom
        self._short: deque[Waiting] = deque()  # the gate has opened for them, and their turn comes
        self._long: deque[Waiting] = deque()  # the same, behind those

    @property
    def owes_some(self) -> bool:
        """Whether something that may leave has not had its turn."""
        return bool(self._short or self._long)

    def open(self, seq: int) -> None:
        """Everything up to `seq` is on disk: what waited for it leaves. Called in trio's thread."""
        self.committed = seq
        waiting, self._waiting = self._waiting, []
        for needs, each in waiting:
            if needs <= seq:
                self.let(each)
            else:
                self._waiting.append((needs, each))
        self.let_some()

    def let(self, waiting: Waiting) -> None:
        """It may leave when its turn comes."""
        (self._long if waiting.is_long else self._short).append(waiting)

    def let_some(self) -> None:
        """Some leave in each pass of the loop: a thousand may watch."""
        self.room = A_PASS
        for turn in range(1, 1 + len(self._short) + len(self._long)):
            if self.room <= 0:
                break
            self.room -= 1
            # Where short ones come without end, long ones have a turn now and then even so.
            next_ones = self._long if turn % A_LONG_ONE == 0 and self._long else self._short or self._long
            next_ones.popleft().pass_gate()
        self.is_crowded = self.room <= 0 and self.owes_some

    def _let_soon(self) -> None:
        trio.lowlevel.current_trio_token().run_sync_soon(self._let_on, idempotent=True)

    def _let_on(self) -> None:
        self.let_some()
        if self.owes_some:
            self._let_soon()

    def hold(self, waiting: Waiting, needs: int = 0) -> None:
        """Calls its `pass_gate` after the next opening that goes so far."""
        self._waiting.append((needs, waiting))


class Bell:
    """Wakes the one task that waits for it; ringing before the wait counts."""

    def __init__(self) -> None:
        self._rung = False
        self._sleeper: trio.lowlevel.Task | None = None

    @property
    def is_awaited(self) -> bool:
        """Whether the task sleeps, and nothing has woken it yet."""
        return self._sleeper is not None

    def ring(self) -> None:
        self._rung = True
        sleeper, self._sleeper = self._sleeper, None
        if sleeper is not None:
            trio.lowlevel.reschedule(sleeper)

    async def wait(self) -> None:
        if self._rung:
            await trio.lowlevel.checkpoint()
        else:
            self._sleeper = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._give_up)
        self._rung = False

    def _give_up(self, _: object) -> trio.lowlevel.Abort:
        self._sleeper = None
        return trio.lowlevel.Abort.SUCCEEDED


class Outbox:
    """The queue and the writer of one connection."""

    def __init__(self, sink: Sink, gate: Gate, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.pending_bytes = 0  # owed; a reply that is still to be made counts as one piece
        self.sent_bytes = 0  # that the peer's socket has taken, ever
        self.has_sent = False  # the peer may have read something from us
        self.is_finished = False  # our end was said, or the connection is cut: nothing leaves any more
        self.why_cut: str | None = None  # None: it was not; empty: the peer has broken it off itself
        self.on_drained: Callable[[], None] = _nothing  # all that was owed has left, or our end was said
        self._sink = sink
        self._gate = gate
        self._queue: deque[tuple[int, bytes | Chunks]] = deque()
        self._unsent: bytes | memoryview = b""  # may leave, but the socket did not take it yet
        self.before_put: Callable[[], None] | None = None  # has what comes before it put first
        self._seal: Callable[[], None] = _nothing  # of the rows that were put last
        self._is_held = False  # the gate will call
        self._is_finishing = False
        self._bell = Bell()  # for the writer
        self._stall = trio.CancelScope()  # while the writer waits for the socket
        self._waits_since = 0.0
        self._room = Bell()  # for the reader

    def put(self, data: bytes, seq: int) -> None:
        """Leaves once `seq` is on disk, together with whatever else is put in this turn."""
        if self._add(data, len(data), seq) and not self._is_held:
            self._leave_or_hold(self._bell.ring)

    def put_now(self, data: bytes, seq: int) -> None:
        """The same, but without waiting for the end of this turn if it may leave at once."""
        if self._add(data, len(data), seq) and not self._is_held:
            self._leave_or_hold(self.flush)

    def put_rows(
        self, chunks: Chunks, seq: int, seal: Callable[[], None] | None = None, now: bool = False
    ) -> None:
        """Leaves like any message, but is made piece by piece while the socket takes it.

        Rows that go on as things happen are told by `seal`, once, that something is put after
        them: what happens from then on comes after that.
        """
        if self._add(chunks, PIECE_BYTES, seq):
            self._seal = seal or _nothing
            if not self._is_held:
                self._leave_or_hold(self.flush if now else self._bell.ring)

    def finish(self) -> None:
        """Says our end after all that is owed; what is put later is dropped."""
        self._is_finishing = True
        if not self._is_held:
            self.flush()

    def cut(self, why: str) -> None:
        """Ends the connection: what was owed is lost, and its reader finds an end of input."""
        if self.is_finished:
            return
        self.why_cut = why
        self.is_finished = True
        self._queue.clear()
        self._seal = self.on_drained = _nothing
        self._unsent = b""
        self.pending_bytes = 0
        self._sink.abort()
        self._stall.cancel()
        self._bell.ring()
        self._room.ring()

    def take_back(self) -> tuple[int, bytes]:
        """What was put and has not begun to leave, which holds no rows; and what has to be on disk before."""
        taken = [(seq, what) for seq, what in self._queue if isinstance(what, bytes)]
        data = b"".join([what for _, what in taken])
        self._queue.clear()
        self.pending_bytes -= len(data)
        return max((seq for seq, _ in taken), default=0), data

    def hand_over(self, data: bytes) -> tuple[int, bytes] | None:
        """The connection, and what another process has to send on it for the peer to read that, as the last.

        None where something else would have to be read first.
        """
        return None if self.is_owing else (self._sink.fileno(), self._sink.last_words(data))

    @property
    def is_long(self) -> bool:
        """Whether rows are to be made next, or a piece of them has been."""
        for _, what in islice(self._queue, 2):  # noqa: SIM110  (it is asked of each reply)
            if type(what) is not bytes:
                return True
        return False

    @property
    def is_owing(self) -> bool:
        return bool(self._queue) or bool(self._unsent)

    async def run(self) -> None:
        """Sends what the socket did not take at once; returns when our end was said or we are cut."""
        while not self.is_finished:
            await self._bell.wait()
            if self._is_held:
                continue
            if self._unsent:
                self._waits_since = trio.current_time()
                is_over = self.pending_bytes > self.limit_bytes
                patience_s = min(CHANCE_S, STALL_S) if is_over else STALL_S
                with trio.move_on_after(patience_s) as self._stall:
                    await self._sink.wait_writable()
                if self._stall.cancelled_caught:
                    self._cut_for_not_reading()
                else:
                    self._go_on()
            else:
                self.flush()

    def _cut_for_not_reading(self) -> None:
        if self.pending_bytes > self.limit_bytes:
            self.cut(f"it left more than {self.limit_bytes} bytes unread")
        else:
            self.cut(f"it took nothing for {STALL_S:g} s")

    async def wait_room(self, most_bytes: int) -> None:
        """Waits until at most so much is owed, or the connection is cut; a checkpoint in any case."""
        if self.pending_bytes <= most_bytes:
            await trio.lowlevel.checkpoint()
        while self.pending_bytes > most_bytes and self.why_cut is None:
            await self._room.wait()

    async def drained(self) -> None:
        """Waits until nothing is owed, or the connection is cut."""
        await self.wait_room(0)

    def pass_gate(self) -> None:
        """The gate has opened as far as what is first here needs."""
        self._is_held = False
        if self._queue:
            self._leave_or_hold(self.flush)
        else:
            self.flush()

    def flush(self) -> None:
        """Hands one piece of what may leave to the socket; the writer goes on from there."""
        if self.is_finished or self._gate.is_shut:
            return
        try:
            self._send_piece()
        except OSError:
            self.cut("")
        except Exception:
            # Only making rows can fail this way. What has left of the reply has no
            # status line, and the closed connection says that none will come.
            log.exception("a reply could not be made")
            self.cut("a reply could not be made")

    def _send_piece(self) -> None:
        was_owing = bool(self._queue or self._unsent)
        data = self._unsent or self._take()
        if data:
            self.has_sent = True
            sent = self._sink.send_now(data)
            self.pending_bytes -= sent
            self.sent_bytes += sent
            self._gate.room -= sent // A_SEND_BYTES
            self._unsent = memoryview(data)[sent:] if sent < len(data) else b""
        self._room.ring()
        if self._unsent:
            self._bell.ring()
        elif self._queue:
            self._leave_or_hold(self._go_on)
        elif was_owing or self._is_finishing:  # a row source may have run dry without another byte
            self._tell_drained()

    def _tell_drained(self) -> None:
        if self._is_finishing:
            self._sink.shutdown()
            self.is_finished = True
            self._bell.ring()
        self.on_drained()
        if self.is_finished:
            self.on_drained = _nothing

    def _add(self, what: bytes | Chunks, size: int, seq: int) -> bool:
        if self._is_finishing or self.is_finished:
            return False
        if self.before_put:
            self.before_put()
        seal, self._seal = self._seal, _nothing
        seal()
        self._queue.append((seq, what))
        self.pending_bytes += size
        if self.pending_bytes > self.limit_bytes:
            self._stall.deadline = min(self._stall.deadline, self._waits_since + CHANCE_S)
        return True

    def _leave_or_hold(self, leave: Callable[[], None]) -> None:
        """Leaves now if the head of the queue is on disk, else when the gate has opened."""
        if self._unsent or self._queue[0][0] <= self._gate.committed:
            leave()
        elif not self._is_held:
            self._is_held = True
            self._gate.hold(self, self._queue[0][0])

    def _go_on(self) -> None:
        """Has the next piece leave when others have had their turn."""
        if not self._is_held:
            self._is_held = True
            self._gate.let(self)
            self._gate.wake()

    def _take(self) -> bytes:
        """Joins what is on disk, from the head of the queue, up to about one piece."""
        queue, committed = self._queue, self._gate.committed
        pieces: list[bytes] = []
        size = made = 0
        while queue and queue[0][0] <= committed and size < PIECE_BYTES and made < MAX_MADE:
            seq, what = queue.popleft()
            if isinstance(what, bytes):
                pieces.append(what)
                size += len(what)
            elif not self._make_piece(seq, what):
                break  # it is a long way to the next row: others first
            else:
                made += 1
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _make_piece(self, seq: int, chunks: Chunks) -> bool:
        """Puts the next piece of a long reply, and the reply itself, back; False: it is empty as yet."""
        self.pending_bytes -= PIECE_BYTES
        made = next(chunks, None)
        if made is not None:
            data, needs = made
            self._queue.appendleft((seq, chunks))
            if data:
                self._queue.appendleft((needs, data))
            self.pending_bytes += PIECE_BYTES + len(data)
            if not data:
                self._gate.room -= PIECE_BYTES // A_SEND_BYTES  # looking for a row takes as long as a piece
            return bool(data)
        return True


def _nothing() -> None:
    pass
