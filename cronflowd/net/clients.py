"""Connections on the control port: lines in, replies out, and when a conversation is over.

This module knows no verbs. It cuts what arrives into lines, hands each to the core, and puts
the replies into the outbox, many at a time: a slice of lines makes one commit and one send.
The first slice is executed where it arrives, in the poller's round; what is left of it, and all
that waits for something, is the connection's own task's (`_Client.read`). So a slow order (its
answer is awaited) holds up the later lines of its own connection only.

`echo PING | nc HOST PORT` must come back to the prompt, though many netcats never say that
their input ended. So the server takes silence for an end, as soon as that is safe: `Ending`
is the table of when, and the whole of it. The same table keeps people, programs that said
HELLO, and watchers from being cut off.
"""

from __future__ import annotations

import logging
import pwd
import re
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import datetime
from enum import Enum
from functools import lru_cache
from itertools import chain
from math import inf
from time import perf_counter
from typing import Any, Protocol

import trio
from attrs import Factory, define, field, frozen

from ..base.errors import Fatal, Refusal
from ..base.replies import Reply, format_refusal, format_rows, format_status
from ..base.text import escape
from ..base.walks import SLICE
from ..engine.access import ADMIN, ROLES
from ..host.config import Settings
from .lines import MAX_LINE_BYTES, MAX_START, Item, LineReader, Unread, looks_foreign
from .listeners import Connection, Kind
from .outbox import PIECE_BYTES, Gate, Outbox
from .poller import Inlet
from .telnet import IAC, SLICE_BYTES, Telnet

MAX_LOCKED_LINE_BYTES = 1024  # before authentication, where that is required
LEAST_OUTBOX_BYTES = 8 * PIECE_BYTES  # below this, our own pieces could cut a good reader
BUFFER_BYTES = 1024  # netcats read and send a long input in some multiple of it
LF = 0x0A
MAX_OWED_BYTES = 1 << 20  # while this much is owed, no more is read
SLICE_LINES = 200  # after so many lines, or so long, the others have their turn
SLICE_S = 0.005
LOOK_EVERY_S = 30.0  # at a watcher that has ended its input: is anybody there?
AUTHENTICATE_S = 10.0  # for AUTH, where that is required
PART_S = 1.0  # how long input is thrown away after QUIT, so that our last reply is not lost with it

MAX_NAME = 64  # characters of a client's own name
_PLAIN_NAME = re.compile("[A-Za-z0-9._-]+")

log = logging.getLogger(__name__)


@frozen
class Known:
    """Whom a connection has shown to be, and what it may do."""

    account: str = ""  # empty: it did not have to show any, or has none
    rank: int = ADMIN  # its role, as a number that grows with the rights; below 0: it has none
    digest: str = ""  # of the token that it showed,
    token: int = 0  # which that is, if the journal has it,
    until_at: datetime | None = None  # and when it expires
    is_account: bool = True
    login: int = 0  # by which somebody stays signed in, where he said so
    name_shown: str = field(default=Factory(lambda self: self.account, takes_self=True))


@define(eq=False)
class Session:
    """What the core knows and decides about one connection."""

    outbox: Outbox
    address: str  # of the peer, for people
    kind: Kind
    name: str = ""  # as HELLO gave it
    as_json: bool = False  # FORMAT; it governs the answer to the order that sets it, too
    width: int | None = None  # FORMAT table: rows are aligned, and cut to it where it is not 0
    head_width: int | None = None  # HEAD=yes: the same for the order that is executed now
    must_authenticate: bool = False
    authenticated: bool = False
    locked_lines: int = 0  # that it has sent before that
    known: Known = Known()
    is_doubted: bool = False  # others have shown who they are; it has only said its name
    is_session: bool = False  # silence does not end it: HELLO, AUTH, FORMAT, WATCH, a person typing
    is_carried: bool = False  # here by another node
    is_local: bool = False  # LOCAL: of several daemons the one that was dialled answers by itself
    is_live: bool = False  # WATCH, LOG follow: it stays open without any input
    closing: bool = False  # QUIT: what is owed still leaves, no further line is executed
    refused: bool = False  # the line before the one that is being executed
    is_script: bool = False  # it has sent what is no command of ours, all at once
    data: Any = None  # the core's own
    gateway: tuple[Known, str] | None = None  # itself, and its address, while it speaks for others (AS)
    was_gateway: Known | None = None  # the same, where it is none any more: somebody's, for one request
    verb: Any = None  # the core's own: of the line that is executed
    moving: Any = None  # what IMPORT keeps of the lines before
    once: Any = None  # the core's own: of the line that is executed, where it is not to be done again
    told_as: str | None = None  # `who`; None where it has to be found anew

    @property
    def is_locked(self) -> bool:
        return self.must_authenticate and not self.authenticated

    @property
    def let_in_by(self) -> list[str]:
        """The digests of the tokens by which it is whom it is."""
        return [self.known.digest, *([self.was_gateway.digest] if self.was_gateway else ())]

    @property
    def role(self) -> str:
        return ROLES[self.known.rank] if self.known.rank >= 0 else "none"

    @property
    def uid(self) -> int:
        """Of this machine's user at the other end, as the kernel says; -1 where that is not known."""
        local = _LOCAL_PEER.fullmatch(self.address) if self.kind == "unix" else None
        return int(local[1]) if local else -1

    @property
    def who(self) -> str:
        """Who gives its orders, as the journal and HISTORY tell it: `ann@192.0.2.7:40001`.

        The name is a claim, so it never stands alone. One that is more than a plain word is
        quoted: no name looks like an address, or like another one's name at another address. Where
        there are accounts, every claim is: what has no quotes was shown by AUTH.
        """
        if self.told_as is None:
            self.told_as = self._identity()
        return self.told_as

    @property
    def where(self) -> str:
        """A process is gone when somebody reads of it; the kernel says whose it was."""
        return f"unix:{_user_name(self.uid)}" if self.uid >= 0 else self.address

    def _identity(self) -> str:
        where = self.where
        if account := self.known.account:
            return f"{account}@{where}"
        if not self.name and not self.gateway:
            return where
        name = escape(self.name or "nobody").replace('"', "'")[:MAX_NAME]
        is_plain = _PLAIN_NAME.fullmatch(name) and not (self.is_doubted or self.gateway)
        return f"{name}@{where}" if is_plain else f'"{name}"@{where}'


_LOCAL_PEER = re.compile("unix:pid=[0-9]+,uid=([0-9]+)")


@lru_cache(256)
def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid={uid}"


class Answering(Protocol):
    """What executes lines. All of it is called in trio's thread."""

    @property
    def gate(self) -> Gate: ...

    @property
    def last_seq(self) -> int:
        """The journal sequence number that a reply given now depends on."""

    @property
    def ready(self) -> tuple[Mapping[Any, str], Mapping[Any, str]]:
        """Lines whose answer is always the same: as text, and as JSON."""

    def enter(self, session: Session) -> None:
        """A connection has begun; says whether it must authenticate."""

    def look(self) -> datetime:
        """The time for a slice of lines."""

    def handle(self, line: str, session: Session, now: datetime) -> Reply | Awaitable[Reply]:
        """Executes one line, or raises Refusal. Only slow orders may give an awaitable."""

    def end_batch(self) -> None:
        """Some lines were executed and others may have their turn: commit, and look what is due."""

    def too_fast(self, session: Session) -> Refusal | None:
        """Why one more line of somebody unknown is too many, if it is: then its connection ends."""

    def allows_unfinished(self, line: str) -> bool:
        """Whether the line only reads, so that executing it is safe even if its end is missing."""

    def leave(self, session: Session) -> None:
        """The connection has ended; forget what it watches."""


async def serve_client(connection: Connection, core: Answering, settings: Settings) -> None:
    """One connection from its first byte to its last. Raises only what is fatal to the server."""
    client = _Client(connection, core, settings)
    core.enter(client.session)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.write, nursery.cancel_scope)
            await client.read()
            nursery.cancel_scope.cancel()
    finally:
        core.leave(client.session)
        client.close()


# --- when a conversation is over ----------------------------------------------------------


class Step(Enum):
    """What is due when nothing came in time."""

    TYPING = "nothing came at once, so a person is typing: a session"
    FINISH = "all has been asked: answer, say our end, and read on for a while"
    DENY = "no authentication in time: say so, and finish"
    LOOK = "is anybody there?"
    CLOSE = "close"


@define(eq=False)
class Ending:
    """The table of how long silence is borne, and what follows.

    Whatever happens changes an attribute; `next_step` reads them all and knows nothing else.
    Times are trio's. A deadline that passes while input is waiting to be read does not count:
    the input goes first.
    """

    waits: Settings
    session: Session
    began_at: float
    rtt_s: Callable[[], float]
    is_half_line: Callable[[], bool]  # the unfinished line would change something
    quiet_at: float = 0.0  # when the last input came, or the last answer left
    something_came: bool = False
    more_came: bool = False  # after the peer could have read an answer
    input_ended: bool = False
    finished_at: float | None = None  # when our side ended
    looked_at: float = 0.0

    def next_step(self) -> tuple[float, Step]:
        session = self.session
        if self.finished_at is not None:
            return self._after_our_end(self.finished_at), Step.CLOSE
        if session.outbox.is_owing:
            return inf, Step.CLOSE  # a reader that stalls is the outbox's business
        if self.input_ended:
            return (
                (self.looked_at + LOOK_EVERY_S, Step.LOOK)
                if session.is_live
                else (self.quiet_at, Step.FINISH)
            )
        if session.is_locked:
            at, step = self._while_open()
            return min((self.began_at + AUTHENTICATE_S, Step.DENY), (at, step), key=lambda due: due[0])
        return self._while_open()

    def _while_open(self) -> tuple[float, Step]:
        waits, session = self.waits, self.session
        if session.is_live:
            return inf, Step.CLOSE
        if not self.something_came:
            if not session.is_session:
                return self.began_at + waits.first_byte_wait_s, Step.TYPING
            return self.began_at + waits.silent_close_s, Step.CLOSE
        if session.is_session:
            return self.quiet_at + waits.session_idle_s, Step.CLOSE
        # The peer may be a script that has said all. Once it has gone on after an answer,
        # or has left a line half written, it is given more time to think.
        if self.more_came or self.is_half_line():
            return self.quiet_at + waits.more_wait_s, Step.FINISH
        return self.quiet_at + max(waits.end_wait_s, 3 * self.rtt_s() + 0.1), Step.FINISH

    def _after_our_end(self, finished_at: float) -> float:
        if self.input_ended:
            return finished_at
        return finished_at + (PART_S if self.session.closing else self.waits.linger_s)


# --- one connection -----------------------------------------------------------------------


class _Client:
    """One connection: what comes in, as far as it can be done at once, and the task that does the rest."""

    def __init__(self, connection: Connection, core: Answering, settings: Settings) -> None:
        self._time = trio.lowlevel.current_clock().current_time  # looked up once: a request asks twice
        now = self._time()
        max_outbox = max(settings.max_outbox, LEAST_OUTBOX_BYTES)
        outbox = Outbox(connection, core.gate, max_outbox)
        outbox.on_drained = self._drained
        self.session = Session(outbox, connection.peer, connection.kind, is_session=connection.kind != "tcp")
        self.session.is_carried = connection.is_carried
        self._connection = connection
        self._core = core
        self._outbox = outbox
        self._ending = Ending(
            settings, self.session, now, connection.rtt_s, self._is_half_line, quiet_at=now, looked_at=now
        )
        self._most_owed = min(MAX_OWED_BYTES, max_outbox // 4)
        self._inlet = Inlet(connection, self._take)
        self._raw = b""  # what has come and was not cut into lines: telnet's is taken out in slices
        self._lines = LineReader()
        self._items: deque[Item] = deque()  # the next lines to execute
        self._first: bytearray | None = bytearray()  # the first line; None once it is known to be ours
        self._is_foreign = False
        self._look_at = 0  # how long it must have become to be looked at again
        self._telnet: Telnet | None = None
        self._skips_line = False  # the line that is coming was answered before its end came
        self._replies: list[str] = []  # of this slice
        self._slow: Awaitable[Reply] | None = None  # the order that ended this slice
        self._ahead: bytes | None = None  # input that was there before the last answers left
        self._goes_on = False  # what came last ended amid a line, or with a netcat's buffer: it was not all

    async def write(self, connection_scope: trio.CancelScope) -> None:
        await self._outbox.run()
        if self._outbox.why_cut is not None:
            connection_scope.cancel()

    def close(self) -> None:
        if why := self._outbox.why_cut:
            log.info("the connection of %s was ended: %s", self.session.address, why)
        self._connection.close()
        # They know us, and a circle would stay until it is looked for.
        self._outbox.on_drained = lambda: None
        del self._inlet, self._ending

    async def read(self) -> None:
        """Does what is due when nothing comes, and what waits for something, until it is time to close."""
        try:
            while not self._is_foreign:
                if await self._inlet.wait(self._due_at):
                    await self._go_on()
                elif not await self._take_step(self._ending.next_step()[1]):
                    return
        except OSError:
            self._outbox.cut("")

    # --- when something is due ---

    def _due_at(self) -> float:
        return self._ending.next_step()[0]

    def _drained(self) -> None:
        """All that was owed has left: the time of silence begins."""
        ending = self._ending
        ending.quiet_at = self._time()
        if self._outbox.is_finished and ending.finished_at is None:
            ending.finished_at = ending.quiet_at
        self._hurry()

    def _hurry(self) -> None:
        """Has the sleeper wake in time: in a session, what is due at some time only ever moves later."""
        sleep = self._inlet.sleep
        if not self.session.is_session or sleep.deadline == inf:
            sleep.deadline = self._due_at()

    def _is_half_line(self) -> bool:
        # The first word decides, and this is asked before each wait: not the whole line again.
        start = self._lines.unfinished_start(MAX_START)
        return bool(start) and not self._core.allows_unfinished(start.decode(errors="replace"))

    async def _take_step(self, step: Step) -> bool:
        """False: the connection is over."""
        if step is Step.CLOSE:
            return False
        if step is Step.LOOK:
            self._ending.looked_at = self._time()
            return not self._connection.is_gone()
        if step is Step.TYPING:
            self.session.is_session = True
            return True
        if step is Step.DENY:
            self._add_refusal(Refusal("auth-required", f"there was no AUTH within {AUTHENTICATE_S:g} s"))
            self.session.closing = True
            self._send_replies()
        else:
            await self._answer_unfinished()
        self._outbox.finish()
        return True

    async def _take_end(self) -> None:
        """The peer has ended its input: answer all, then close; a watcher goes on watching."""
        if not self.session.closing and self._ending.finished_at is None:
            await self._answer_unfinished()
        if not self.session.is_live:
            self._outbox.finish()

    async def _answer_unfinished(self) -> None:
        """A last line without its newline counts if it only reads; otherwise it may be cut short."""
        self._skips_line = bool(self._lines.unfinished_start(1))
        item = self._lines.end()
        if isinstance(item, str) and _is_order(item) and not self._core.allows_unfinished(item):
            item = Refusal(
                "syntax", "the last line has no newline, so it may be cut short; it was not executed"
            )
        if item is not None:
            self._items.append(item)
            self._run_slice()
            self._send_replies()
            await self._await_slow()

    # --- what came ---

    def _take(self, data: bytes, at_once: bool = False) -> bool:
        """Executes a slice of what has come (`at_once`: before an answer left); False: the task goes on."""
        ending = self._ending
        ending.quiet_at = self._time()
        if not data:
            ending.input_ended = True
            return False
        ending.something_came = True
        if self._outbox.has_sent and not (at_once or self._goes_on):
            ending.more_came = True
        self._goes_on = data[-1] != LF or len(data) % BUFFER_BYTES == 0
        if (told := self._core.ready[self.session.as_json].get(data)) and self._is_plain():
            self.session.refused = False
            self._outbox.put_now(_encode(told), self._core.last_seq)
            return True
        if not self.session.closing:
            self._raw = data
            self._turn()
        self._hurry()
        return not self._is_at_work()

    def _is_plain(self) -> bool:
        """Whether what has come is lines and nothing but that, of a session where nothing is under way."""
        session = self.session
        is_amid = self._lines.is_within_line or self._skips_line or self._is_at_work()
        return session.is_session and not (
            is_amid or session.is_locked or self._telnet or self._first is not None
        )

    def _is_at_work(self) -> bool:
        """Whether something is left to do, or has to be waited for."""
        return bool(
            self._items
            or self._slow
            or self._raw
            or self._lines.has_lines
            or self._ahead is not None
            or self._is_foreign
            or self._outbox.pending_bytes > self._most_owed
            or (self.session.closing and self._ending.finished_at is None)
        )

    async def _go_on(self) -> None:
        """The task's part of what has come: all that waits, and slice after slice of what is left."""
        while self._is_at_work() and not self._is_foreign:
            await self._await_slow()
            if self.session.closing:
                self._items.clear()
                self._raw, self._lines = b"", LineReader()
                self._outbox.finish()
                break
            await self._outbox.wait_room(self._most_owed)
            if self._items or self._raw or self._lines.has_lines:
                self._turn()
            elif self._ahead is not None:
                ahead, self._ahead = self._ahead, None
                self._take(ahead, at_once=True)
        if self._ending.input_ended:
            await self._take_end()

    def _turn(self) -> None:
        """Executes some lines: one commit and one send."""
        if not (self._items or self._lines.has_lines):
            self._feed()
        if not self._items:
            # Line by line while nobody is known, because AUTH widens the limit for all that
            # follows it, and because the others then have their turn whatever it says.
            is_locked = self.session.is_locked
            self._lines.max_line_bytes = MAX_LOCKED_LINE_BYTES if is_locked else MAX_LINE_BYTES
            if is_locked and self._lines.has_lines and (refusal := self._core.too_fast(self.session)):
                self._add_refusal(refusal)
            else:
                self._items.extend(self._lines.take(1 if is_locked else SLICE_LINES))
        self._run_slice()
        # Input that is there before our answers leave was not sent because of them: it is the
        # rest of one long input, and no sign that somebody reads the answers and goes on.
        is_last = not (self._items or self._raw or self._lines.has_lines or self.session.closing)
        if is_last and not self.session.is_session and not self._ending.more_came:
            self._ahead = self._inlet.read_now()
        self._send_replies()

    def _feed(self) -> None:
        """Cuts what has come into lines; a telnet's in slices, as a stranger may send nothing else."""
        data, self._raw = self._raw, b""
        if data[0] == IAC and self.session.kind == "tcp" and not self._lines.unfinished_start(1):
            self._telnet = self._telnet or Telnet.greeted_by(data)
            self.session.is_session |= self._telnet is not None
        if self._telnet is not None:
            self._raw = data[SLICE_BYTES:]
            data, refusal = self._telnet.strip(data[:SLICE_BYTES])
            if refusal:
                self._outbox.put(refusal, self._core.gate.committed)
        if self._first is not None and not self._is_ours(data):
            self._is_foreign = True
            return
        if self._skips_line:
            _, newline, data = data.partition(b"\n")
            self._skips_line = not newline
        self._lines.feed(data)

    def _is_ours(self, data: bytes) -> bool:
        """Looks at the first line, as far as it has come, before anything is executed."""
        first = self._first
        assert first is not None
        first += data
        if b"\n" not in data and len(first) < self._look_at:
            return True  # a line that comes byte by byte is not read again for each of them
        if blank := _NO_ORDERS.match(first):
            del first[: blank.end()]  # no line yet, only blanks and comments
        if foreign := looks_foreign(first):
            log.info("%s was closed: it speaks %s", self.session.address, foreign)
            return False
        self._look_at = 2 * len(first)
        if b"\n" in first or len(first) > MAX_LINE_BYTES:
            self._first = None
        return True

    def _run_slice(self) -> None:
        """Executes some of the lines, until the others should have their turn."""
        items, session = self._items, self.session
        # A deep pipeline of such lines costs a look into a table for each, and nothing else.
        told: list[Any] = list(map(self._core.ready[session.as_json].get, items))
        if told and None not in told:
            self._replies += told
            items.clear()
            session.refused = False
            return
        until, now, size = perf_counter() + SLICE_S, None, 0
        while items and size < PIECE_BYTES and self._slow is None:
            item = items.popleft()
            if isinstance(item, Refusal):
                self._add_refusal(item)
                # Nobody knows whom it was to speak for: what follows must not be done for the one before.
                session.closing |= isinstance(item, Unread) and bool(_AS.match(item.start))
            elif _is_order(item):
                now = now or self._core.look()
                self._run_line(item, now)
            elif item.startswith("#!"):
                session.is_script = session.refused = True
            if session.closing or perf_counter() > until:
                break
            size += len(self._replies[-1]) if self._replies else 0

    def _run_line(self, line: str, now: datetime) -> None:
        try:
            answer = self._core.handle(line, self.session, now)
        except Exception as error:  # noqa: BLE001 - a bug in one order must not end the others
            self._add_refusal(_as_refusal(error))
            return
        if isinstance(answer, Reply):
            self._add_reply(answer)
        else:
            self._slow = answer

    async def _await_slow(self) -> None:
        """The slow order that ended the slice, if one did; what came before it has left."""
        if self._slow is None:
            return
        slow, self._slow = self._slow, None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look_at_watcher)
            try:
                self._add_reply(await slow)
            except Exception as error:  # noqa: BLE001 - a bug in one order must not end the others
                self._add_refusal(_as_refusal(error))
            finally:
                self._send_replies()  # also when its client has gone meanwhile: this commits
            nursery.cancel_scope.cancel()

    async def _look_at_watcher(self) -> None:
        """LOG follow may take for ever, but not for somebody who has left."""
        while True:
            await trio.sleep(LOOK_EVERY_S)
            if self.session.is_live and self._connection.is_gone():
                self._outbox.cut("")

    # --- what goes out ---

    def _add_refusal(self, refusal: Refusal) -> None:
        self.session.refused = True
        self._replies.append(format_refusal(refusal, self.session.as_json))

    def _add_reply(self, reply: Reply) -> None:
        self.session.refused = False
        if not reply.rows:
            self._replies.append(format_status(reply, self.session.as_json))
        else:
            self._add_rows(reply)
        if self.session.is_live:
            self._put_replies()  # before the events that it announces

    def _add_rows(self, reply: Reply) -> None:
        """A short reply like any other; a long one is made while the peer reads it."""
        session = self.session
        width = session.width if session.head_width is None else session.head_width
        pieces = _pieces(reply, session.as_json, width)
        first = next(pieces)
        if 0 < len(first) < PIECE_BYTES:  # it is all
            self._replies.append(first)
            return
        self._put_replies()
        core = self._core
        # Rows that are made later may tell of later facts, and wait for those.
        chunks = ((_encode(piece), core.last_seq) for piece in chain((first,), pieces))
        self._outbox.put_rows(chunks, core.last_seq)

    def _put_replies(self) -> None:
        if self._replies:
            self._outbox.put(self._take_replies(), self._core.last_seq)

    def _send_replies(self) -> None:
        """Ends a slice."""
        seq = self._core.last_seq
        self._core.end_batch()
        if self._replies:
            self._outbox.put_now(self._take_replies(), seq)

    def _take_replies(self) -> bytes:
        replies, self._replies = self._replies, []
        return _encode("\n".join(replies))


# In one pass: a stranger may send thousands.
_NO_ORDERS = re.compile(rb"(?:\xef\xbb\xbf)?+(?:[ \t\r\f\v]*+(?:#[^\n]*+)?+\n)++")

_AS = re.compile(rb"[ \t]*AS(?![^ \t])", re.IGNORECASE)


def _is_order(line: str) -> bool:
    """Blank lines and comments get no reply."""
    if line and line[0] in " \t\ufeff":
        line = line.lstrip(" \t\ufeff")  # as before a verb
    return bool(line) and line[0] != "#" and not line.isspace()


def _as_refusal(error: Exception) -> Refusal:
    """What the client reads; a bug of ours is told to the log as well."""
    if isinstance(error, Fatal):
        raise error
    if isinstance(error, Refusal):
        return error
    if isinstance(error, OSError):  # the disk's, most of all
        log.error("an order was not carried out: %s", error)
        return Refusal("internal", ": ".join(filter(None, (error.filename, error.strerror))) or str(error))
    log.error("an order ended by a bug", exc_info=error)
    return Refusal("internal", "a bug in the server; its log tells more")


def _pieces(reply: Reply, as_json: bool, width: int | None) -> Iterator[str]:
    """Rows and status line, joined to pieces of about PIECE_BYTES, made as they are asked for.

    An empty one means that others may have their turn before the next row is looked for.
    """
    lines: list[str] = []
    size = rows = 0
    try:
        for row in format_rows(reply, as_json, width):
            if row is None:
                yield ""
                continue
            lines.append(row)
            rows += 1
            size += len(row)
            if rows % SLICE == 0:
                yield ""  # a short row may take long to make
            if size >= PIECE_BYTES:
                yield "\n".join(lines)
                lines, size = [], 0
        lines.append(format_status(reply, as_json, rows))
    except Exception as error:  # noqa: BLE001 - the reply still needs its status line
        refusal = _as_refusal(error)
        refusal.as_of = reply.as_of
        lines.append(format_refusal(refusal, as_json))
    yield "\n".join(lines)


def _encode(text: str) -> bytes:
    # A lone surrogate must not get this far; if one does, one escaped character is better than no reply.
    return (text + "\n").encode(errors="backslashreplace") if text else b""
