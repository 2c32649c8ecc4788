"""Connections on the worker port: HELLO, then orders out and reports in.

A worker is a peer that dialled in; nothing here decides anything. A batch of lines is
turned into orders for the engine all at once, and answered after one commit. Whatever a
worker does wrong is told to it in one ERR line before it is closed, and costs its runs
nothing but the time until their lease ends.

A link knows which of its orders have left. When it ends, for whatever reason, those that have
not are named to the engine, which lets their runs wait again: a line that was not sent to its
end is no order.
"""

from __future__ import annotations

import logging
import math
import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from functools import partial
from time import perf_counter
from typing import Any, NoReturn, Protocol

import trio
from attrs import define, field
from msgspec.structs import replace

from ..base.addresses import origin
from ..base.errors import Refusal
from ..base.output import parse_line, size_of
from ..base.proofs import DAEMON, WORKER, Seal
from ..base.replies import format_refusal
from ..base.text import escape, readable, split_options, unescape
from ..engine import orders as o
from ..engine.rules import Limits
from ..host.clock import Clock
from ..host.config import Settings
from ..tasks.reasons import Reason, code_of, in_words, reason
from .hello import (
    MAX_RUNNING,
    Admits,
    Bearer,
    challenge,
    name_in,
    parse_held,
    parse_hello,
    shows_proof,
    split_hello,
    split_proof,
    version_in,
)
from .lines import MAX_LINE_BYTES, Item, LineReader, looks_foreign
from .listeners import Connection, is_near
from .outbox import Gate, Outbox
from .poller import Inlet
from .rivals import Rivals

log = logging.getLogger("cronflowd.workers")

HELLO_WITHIN_S = 10.0
MAX_HELLO_BYTES = 1024  # before authentication, where that is asked for
FAREWELL_S = 1.0
MAX_OWED_BYTES = 1 << 20  # a worker that is owed more is given no more runs until it has taken that
BEATS_MISSED = 3
# After so many reports, or so long, the others have their turn. A run has two: so more end than a client can
# ask for in its own slice, or they would pile up, and one that waits in line costs a third more.
SLICE_LINES, SLICE_S = 500, 0.005
FEW_LINES = 20  # the same while moments that have come wait: a run that starts late is worse than a late ACK
MAX_OFFSET_S = 2.0  # a worker's clock that is less wrong is not worth a word


class Dispatch(Protocol):
    """What the daemon lends to a worker's connection."""

    gate: Gate
    links: dict[str, Link]
    rivals: Rivals
    last_seq: int
    settings: Settings
    clock: Clock
    numbers: Iterator[int]  # of workers' connections
    epoch: int
    dropped: dict[tuple[int, int], int]

    @property
    def admission(self) -> Admits: ...
    @property
    def limits(self) -> Limits: ...
    def output_of(self, worker: str, run: int, attempt: int) -> int | None: ...
    def drop_output(self, worker: str, run: int, size: int) -> bool: ...
    def take_dropped(self, worker: str, run: int) -> int: ...
    def submit(self, order: Any, who: str | None = None, now: datetime | None = None) -> Any: ...
    def insist(self, order: Any) -> None: ...
    def wake(self) -> None: ...
    def hold_back(self, worker: str, full: bool = True) -> None: ...
    def count_beside(self, worker: str, named: Iterable[tuple[int, int]]) -> set[tuple[int, int]]: ...
    def end_beside(self, worker: str, run: int, attempt: int) -> None: ...
    def look(self) -> datetime: ...
    def is_behind(self, now: datetime) -> bool: ...
    def touch(self, link: Link) -> None: ...


@define(eq=False)
class Link:
    """A connected worker as the daemon reaches it."""

    name: str
    address: str
    outbox: Outbox
    core: Dispatch
    last_seen_at: datetime
    scope: trio.CancelScope
    instance: str = ""  # as HELLO says it: of which memory
    version: str = ""  # the same: which release it is
    number: int = 0  # of the connection: orders about it must not be taken for the next one's
    pending: list[bytes] = field(factory=list)  # lines of the batch that is being decided
    pending_bytes: int = 0
    given_bytes: int = 0  # to the outbox, ever
    orders: deque[tuple[int, str]] = field(factory=deque)  # (where it ends, the line)
    is_held_back: bool = False  # it is given no more runs until it has taken what it is owed
    offset_s: float | None = None  # its clock less ours, as of its last BEAT that told the time
    rtt_s: float | None = None  # what it measured from one BEAT to the answer
    last_age_s: float | None = None  # its last BEAT's time less ours: its clock less how long that waited
    bearer: Bearer | None = None  # whose token it showed, if it did
    beside: Collection[tuple[int, int]] = ()  # (run, attempt): goes on there, and is its own no more
    seal: Seal | None = None  # puts on its orders what shows that they are ours, where it proved itself
    most_owed: int = field(init=False)  # bytes that may wait for it while it is given runs, and listened to

    def send(self, line: str) -> bool:
        """Queues a line, which leaves when all that was decided is on disk. Whether it owes much now."""
        if not self.pending:
            self.core.touch(self)
        data = (line if self.seal is None else self._sealed(line)).encode() + b"\n"
        self.pending.append(data)
        self.pending_bytes += len(data)
        if line.startswith("RUN "):
            self.orders.append((self.given_bytes + self.pending_bytes, line))
        return self.outbox.pending_bytes + self.pending_bytes > self.most_owed

    def _sealed(self, line: str) -> str:
        """As it leaves, where orders have to show whose they are."""
        if self.seal is None:
            return line
        if line.startswith(_ORDERS):
            return self.seal.seal(line, self.core.clock.steady_s())
        return f"OK n={self.seal.count}" if line == "OK" else line

    def flush(self, seq: int) -> None:
        """Gives the batch's lines to the writer."""
        if self.pending:
            data = b"".join(self.pending)
            self.given_bytes += len(data)
            self.drop_pending()
            self.outbox.put(data, seq)
            while self.orders and self.orders[0][0] <= self.outbox.sent_bytes:
                self.orders.popleft()

    def drop_pending(self) -> None:
        """Forgets what was not given to the writer yet."""
        self.pending.clear()
        self.pending_bytes = 0

    def end(self, why: str) -> None:
        """Nothing is sent to it any more, nor taken from it."""
        self.outbox.cut(why)
        self.scope.cancel()

    @most_owed.default
    def _most_owed(self) -> int:
        return min(MAX_OWED_BYTES, self.outbox.limit_bytes // 4)

    @property
    def owes_much(self) -> bool:
        """Whether so much waits for it to be read that no more runs should be given to it."""
        return self.outbox.pending_bytes + self.pending_bytes > self.most_owed

    def drained(self) -> None:
        """All that it was owed has left: it may be given runs again."""
        if self.is_held_back and self.core.links.get(self.name) is self:
            self.is_held_back = False
            self.core.hold_back(self.name, full=False)

    def let_rest(self) -> None:
        """It has ended its input, and could report on nothing that it was given from now on."""
        if self.core.links.get(self.name) is self:
            self.outbox.on_drained = lambda: None
            self.core.hold_back(self.name)

    def take_back(self) -> None:
        """Has no order leave; where one has begun to, nothing does. After the last send."""
        seq, data = self.outbox.take_back()
        self.given_bytes -= len(data)
        if any(self.outbox.sent_bytes < ends_at <= self.given_bytes for ends_at, _ in self.orders):
            self.outbox.cut("")
        if rest := "".join(f"{line}\n" for line in self._others(data.decode().split("\n")[:-1])):
            self.outbox.put(rest.encode(), seq)

    def _others(self, lines: list[str]) -> Iterator[str]:
        """All but RUN; what stands behind one is sealed again, or one before it would be missing."""
        first = next((at for at, line in enumerate(lines) if line.startswith("RUN ")), len(lines))
        yield from lines[:first]
        if self.seal:
            self.seal.count -= sum(line.startswith(_ORDERS) for line in lines[first:])
        for line in lines[first:]:
            if line.startswith("KILL "):
                yield self._sealed(" ".join(line.split(" ", 3)[:3]))
            elif not line.startswith("RUN "):
                yield self._sealed("OK" if line.startswith("OK n=") else line)

    def unsent(self) -> tuple[tuple[int, int], ...]:
        """(run, attempt) of the orders that have not left to their last byte; after the last send."""
        lines = (line for ends_at, line in self.orders if ends_at > self.outbox.sent_bytes)
        return tuple(order for line in lines if (order := order_in(line)))

    def compare_clocks(self, worker_at: datetime, rtt_s: float | None) -> None:
        """Takes the worker's time.

        Its line may have waited behind thousands of others, and then looks that much older. For how
        long at most it did is how long the answer took, and that comes with the next BEAT.
        """
        was_far = self._is_far_off()
        age_s = least_s = most_s = (worker_at - self.last_seen_at).total_seconds()
        last_s, self.last_age_s = self.last_age_s, age_s
        if rtt_s is None and self.rtt_s is not None:
            return  # the last one has no answer yet
        if rtt_s is not None:
            if last_s is not None and age_s <= last_s + rtt_s:  # else it was set forward since
                least_s, most_s = max(last_s, age_s), last_s + rtt_s
            else:
                most_s += rtt_s
        self.rtt_s = rtt_s
        is_known = most_s - least_s <= MAX_OFFSET_S
        guess_s = (least_s + most_s) / 2 if is_known else self.offset_s or 0.0
        self.offset_s = min(max(guess_s, least_s), most_s)
        if self._is_far_off() and not was_far:
            log.warning("the clock of worker %s is off by %+.3f s", self.name, self.offset_s)

    def _is_far_off(self) -> bool:
        return self.offset_s is not None and abs(self.offset_s) > MAX_OFFSET_S

    def clock_text(self) -> str:
        """How its clock compares with ours, for people."""
        if self.offset_s is None:
            return "not measured"
        trip = "" if self.rtt_s is None else f" (round trip {self.rtt_s:.3f} s)"
        return f"{self.offset_s:+.3f} s{trip}"


_ORDERS = ("RUN ", "KILL ")


def order_in(line: str) -> tuple[int, int] | None:
    """(run, attempt) of a RUN line; None for any other."""
    if not line.startswith("RUN "):
        return None
    _, run, attempt, _ = line.split(" ", 3)
    return int(run), int(attempt)


async def serve_worker(connection: Connection, core: Dispatch) -> None:
    """One connection, from HELLO to its end. On the unix socket no token is asked for, but after FROM."""
    outbox = Outbox(connection, core.gate, core.settings.max_outbox)
    link: Link | None = None  # until it was let go
    why = reason("link-ended")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.run)
        try:
            if found := await _greet(connection, core, outbox):
                link, reader = found
                why = await _serve(connection, core, link, reader)
                if code_of(why) == "link-ended" and outbox.why_cut is None:
                    # As a netcat does: whoever has ended its input may read on what it is owed.
                    _let_go(core, link, why)
                    link = None
                    with trio.move_on_after(HELLO_WITHIN_S):
                        await outbox.drained()
        except Refusal as refusal:
            # What two workers of one name do is told already, and again and again it would be noise.
            level = logging.INFO if refusal.code == "busy" else logging.WARNING
            log.log(level, "worker at %s refused: %s", connection.peer, refusal)
            if link:
                _let_go(core, link, reason("link-refused", text=refusal.message))
                link = None
            if refusal.code == "denied":
                core.wake()  # what AUDIT tells of it is journaled before it is told
                await trio.sleep(core.admission.penalty_s(connection.peer))
            outbox.put(format_refusal(refusal, as_json=False).encode() + b"\n", core.last_seq)
            outbox.finish()
            with trio.move_on_after(FAREWELL_S):
                await outbox.drained()
        finally:
            if outbox.why_cut:  # that is what ended its connection
                why = reason("link-cut", text=outbox.why_cut)
            # Whoever has gone, or was replaced, is sent nothing any more: what left is known from now on.
            if outbox.is_owing:
                outbox.cut("")
            outbox.finish()
            if link:
                _let_go(core, link, why)
        nursery.cancel_scope.cancel()


async def _greet(connection: Connection, core: Dispatch, outbox: Outbox) -> tuple[Link, LineReader] | None:
    """Waits for HELLO and takes the worker in; None where the peer leaves before. Raises Refusal."""
    admits, asks = core.admission, connection.kind != "unix" and core.admission.asks_workers
    reader = LineReader(MAX_HELLO_BYTES if asks else MAX_LINE_BYTES)
    with trio.move_on_after(HELLO_WITHIN_S) as patience:
        line = await _guarded_line(connection, reader, partial(_shows_token, admits))
        if line is not None and line.startswith("FROM "):
            asks = _carries(connection, core, line.removeprefix("FROM "))
            reader.max_line_bytes = MAX_HELLO_BYTES if asks else MAX_LINE_BYTES
            line = await _guarded_line(connection, reader, partial(_shows_token, admits))
        if line is None:
            return None
        options = split_hello(line)
        shown = await _show_token(connection, core, outbox, reader, options, asks)
        if shown is None:
            return None
        bearer, seal = shown
        reader.max_line_bytes = MAX_LINE_BYTES
        order, more = parse_hello(options, connection.peer)
        running = list(order.running)
        for number in range(more):
            await trio.lowlevel.checkpoint()
            if (line := await _guarded_line(connection, reader, bool)) is None:
                raise Refusal("syntax", f"HELLO said that {more} HELD lines follow; {number} came")
            running += parse_held(line)
            if len(running) > MAX_RUNNING:
                raise Refusal("limit", f"running= and HELD name more than {MAX_RUNNING} runs")
        order = replace(order, running=tuple(running))
    if patience.cancelled_caught:
        raise Refusal("syntax", f"no HELLO within {HELLO_WITHIN_S:g} s")
    link = Link(
        order.name, connection.peer, outbox, core, core.look(), trio.CancelScope(), order.instance,
        version_in(options), next(core.numbers), bearer=bearer, seal=seal,
    )  # fmt: skip
    outbox.on_drained = link.drained
    _take_over(core, link, order)
    return link, reader


def _carries(connection: Connection, core: Dispatch, address: str) -> bool:
    """Takes a connection for one that was made for a worker at `address`; whether that is asked for a token.

    Nobody gains by saying so: over TCP, where anybody could name anybody, it goes on counting as that
    of whoever made it. Raises Refusal.
    """
    if (where := origin(address)) == address or not _WITH_PORT.fullmatch(address):
        raise Refusal("syntax", f'FROM takes an address and port, not "{escape(address[:60])}"')
    if connection.kind == "unix":
        connection.count_as(address)
    return core.admission.asks_workers or not (is_near(where) or core.settings.insecure)


_WITH_PORT = re.compile(r"[^\s,]+:[0-9]{1,5}")
Shown = tuple[Bearer | None, Seal | None]  # whose token it is; and what seals orders, where it was proved


async def _show_token(
    connection: Connection, core: Dispatch, outbox: Outbox, reader: LineReader, options: dict[str, str],
    asks: bool,
) -> Shown | None:  # fmt: skip
    """Whose token is shown; None if the peer leaves. What comes with a proof is put to the `options`.

    Raises Refusal.
    """
    admits, word, seal = core.admission, options.get("token"), None
    name = name_in(options)
    if "nonce" in options:
        bearer = admits.worker_key(options.get("key", ""))
        handshake = challenge(options, bearer)
        seal = Seal(handshake, core.clock.steady_s(), admits.sign)
        outbox.put(f"CHALLENGE {handshake.our_nonce} {handshake.proof(DAEMON)}\n".encode(), 0)
        line = await _guarded_line(connection, reader, partial(shows_proof, handshake))
        if line is None and bearer:
            return None
        proof, more = split_proof(line or "PROVE")
        options |= more | options
        if not handshake.is_proof(WORKER, proof):
            bearer = None
    elif asks and (word is None or core.settings.require_proof):
        what = "nonce= here, and PROVE" if core.settings.require_proof else "token= here"
        raise Refusal("auth-required", f"HELLO needs {what}")
    else:
        bearer = admits.worker_token(word) if word is not None else None
        if bearer is None and not asks:
            return None, None
    admits.admit_worker(bearer, name, connection.peer)
    return bearer, seal


async def _serve(connection: Connection, core: Dispatch, link: Link, reader: LineReader) -> Reason:
    """Reads reports until the connection ends; returns why it did. Raises Refusal."""
    try:
        with link.scope:
            return await _serve_link(connection, core, link, reader)
        if trio.current_time() >= link.scope.deadline:
            link.outbox.cut("its token has expired")
        is_replaced = core.links.get(link.name) is not link
        return reason("link-replaced" if is_replaced else "stopping")
    except OSError as error:
        return reason("link-broken", text=error.strerror or str(error))
    finally:
        # From here on nothing is sent to it, whatever is still to be told of it.
        if core.links.get(link.name) is link:
            del core.links[link.name]
            core.hold_back(link.name)


async def _guarded_line(
    connection: Connection, reader: LineReader, is_known: Callable[[bytes], bool]
) -> str | None:
    """A line of somebody who may be a stranger; None if he left or speaks something else. Raises Refusal.

    It may be long where what stands first shows that he is none.
    """
    first, look_at = bytearray(reader.start(MAX_HELLO_BYTES + 1)), 0
    with suppress(OSError):
        while True:
            if len(first) > reader.max_line_bytes and is_known(bytes(first[:MAX_HELLO_BYTES])):
                reader.max_line_bytes = MAX_LINE_BYTES  # a known worker may name many runs
            if items := reader.take(1):
                return _text(items[0])
            if not (data := await connection.receive_some()):
                return None
            first += data
            if b"\n" in data or len(first) >= look_at:  # not again for each byte of a line that comes so
                look_at = 2 * len(first)
                if what := looks_foreign(first):
                    log.warning("closed a connection that speaks %s on the worker port", what)
                    return None
            reader.feed(data)
    return None


def _shows_token(admits: Admits, first: bytes) -> bool:
    words = first.decode(errors="replace").split()[:-1]  # the last one may be cut
    return any(word.startswith("token=") and admits.worker_token(word[6:]) for word in words)


def _text(item: Item) -> str:
    if isinstance(item, Refusal):
        raise item
    return item


def _take_over(core: Dispatch, link: Link, order: o.JoinWorker) -> None:
    """Makes this the connection of that name; an older one is closed and says no more. Raises Refusal."""
    older = core.links.get(link.name)
    if older and not (link.instance and link.instance == older.instance):
        longest_s = core.limits.lease_s / 3 if order.running else math.inf
        core.rivals.change_hands(link.name, older.address, link.address, longest_s)
    core.links[link.name] = link
    terms = f"heartbeat={core.settings.heartbeat_s:g} lease={core.limits.lease_s:g}"
    terms += f" output={core.limits.output_bytes} grace={core.settings.kill_grace_s:g}"
    terms += f" epoch={core.epoch}" * bool(core.epoch)
    if order.holds_all and order.running:
        terms += f" had={','.join(_outputs(core, order))}"
    link.send(f"OK {link.name} {terms}")
    try:
        core.submit(replace(order, connection=link.number))
        link.beside = core.count_beside(link.name, order.running)
    except BaseException:
        # It never came: whoever was connected still is.
        link.drop_pending()
        if older:
            core.links[link.name] = older
        else:
            del core.links[link.name]
        raise
    if older is not None:
        older.scope.cancel()
    if bearer := link.bearer:
        core.admission.worker_came(bearer, link.name, link.address)
        if bearer.until_at:
            link.scope.deadline = trio.current_time() + (bearer.until_at - core.look()).total_seconds()
    core.wake()
    log.info("worker %s joined from %s with %d slots", link.name, link.address, order.slots)


def _outputs(core: Dispatch, order: o.JoinWorker) -> Iterator[str]:
    for run, attempt in dict.fromkeys(order.running):
        if (had := core.output_of(order.name, run, attempt)) is not None:
            yield f"{run}:{attempt}:{had}"


def _let_go(core: Dispatch, link: Link, why: Reason) -> None:
    """It is no worker any more, and what has not left is no order; answers still leave."""
    log.info("worker %s left: %s", link.name, in_words(why))
    link.flush(core.last_seq)
    link.take_back()
    core.insist(o.DropWorker(link.name, why, link.number, link.unsent()))


async def _serve_link(connection: Connection, core: Dispatch, link: Link, reader: LineReader) -> Reason:
    """Takes reports until the connection ends; returns why it did."""
    patience_s, heard_s = BEATS_MISSED * core.settings.heartbeat_s, trio.current_time()
    batch = Batch(core, link, reader)

    def take_slice() -> bool:
        is_more = batch.take_slice()
        if is_more and connection.has_ended:
            link.let_rest()
        return is_more

    def take(data: bytes) -> bool:
        nonlocal heard_s
        heard_s = trio.current_time()
        reader.feed(data)
        is_more = take_slice()
        if not data:
            link.let_rest()
        return bool(data) and not (is_more or link.owes_much)

    inlet = Inlet(connection, take)
    if connection.has_ended:
        link.let_rest()
    while True:
        is_more = take_slice()
        if is_more or link.owes_much:  # whoever does not read what it is told is not read either
            await link.outbox.wait_room(link.most_owed)
        if is_more:
            continue
        if inlet.has_ended:
            return reason("link-ended")
        if not await inlet.wait(lambda: heard_s + patience_s):
            return reason("link-silent", seconds=patience_s)


class Batch:
    """Turns report lines into orders; output lines of one run that follow each other are one order."""

    def __init__(self, core: Dispatch, link: Link, reader: LineReader) -> None:
        self.core, self.link, self._reader = core, link, reader
        self._lines = deque[Item]()  # taken from there, and not looked at yet
        self.now, self.output_run = link.last_seen_at, 0
        self.output: list[list[Any]] = []
        # What was reported as started (RUN ATTEMPT), before it is known whether its end comes with it.
        self.begun: dict[str, None] = {}

    def take_slice(self) -> bool:
        """Carries out some lines; whether there are more. Raises Refusal."""
        lines, self.link.last_seen_at = self._lines, self.core.look()
        self.now, until = self.link.last_seen_at, perf_counter() + SLICE_S
        most = FEW_LINES if self.core.is_behind(self.now) else SLICE_LINES
        lines.extend([] if lines else self._reader.take(most))
        try:
            for _ in range(min(len(lines), most)):
                line = lines.popleft()
                self.take(line if type(line) is str else _text(line))
                if perf_counter() > until:
                    break
        finally:
            self.close()
        return bool(lines) or self._reader.has_lines

    def take(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word not in _REPORTS:
            if not line.strip():
                return
            raise Refusal("unknown-command", f'"{escape(word[:40])}" is not a worker\'s line')
        if self.output and word != "OUT":
            self._flush_output()
        _REPORTS[word](self, rest)

    def close(self) -> None:
        """The batch is whole: let it be decided, committed and answered."""
        self._flush()
        self.core.wake()

    def _flush(self) -> None:
        begun, self.begun = self.begun, {}
        for rest in begun:
            run, attempt = map(int, _read("STARTED", rest))
            self._submit(o.ReportStarted(self.link.name, run, attempt))
        self._flush_output()

    def _submit(self, order: Any) -> None:
        self.core.submit(order, None, self.now)

    def _flush_output(self) -> None:
        if self.output:
            lines, self.output = self.output, []
            self._report_output(self.output_run, lines)

    def _report_output(self, run: int, lines: list[list[Any]]) -> None:
        """Output, and before it how much no disk had room for; a remark alone may use the reserve."""
        worker = self.link.name
        dropped = self.core.take_dropped(worker, run) if self.core.dropped else 0
        if not (lines or dropped):
            return
        try:
            self._submit(o.ReportOutput(worker, run, lines, dropped))
        except Refusal as refusal:
            # Output is the first to go when the disk is full, so that ends can still be written.
            size = dropped + size_of(line for line in lines if line[0])
            if self.core.drop_output(worker, run, size):
                log.warning("output of run %d is dropped: %s", run, refusal)
                # At once, and of more with what comes next: whoever is killed now cannot tell it any more.
                self._report_output(run, [])

    def _out(self, rest: str) -> None:
        run, fd, text = _read("OUT", rest)
        if (number := int(run)) != self.output_run or self.begun:
            self._flush()
            self.output_run = number
        self.output.append(parse_line(int(fd), text or ""))  # an empty line may have lost its last blank

    def _started(self, rest: str) -> None:
        self.begun[rest] = None

    def _done(self, rest: str) -> None:
        # Not by `_read`: of each job there is one.
        match = _FORMS["DONE"][0].fullmatch(rest) or _malformed("DONE", rest)
        which, run, attempt, exit_code, more = match.groups()
        details = split_options(more)[0] if more else {}
        if "why" in details:
            details["why"] = readable(unescape(details["why"]))  # a line of output like those of OUT
        began = bool(self.begun) and self.begun.pop(which, False) is None
        if self.core.dropped:
            self._report_output(int(run), [])
            self.core.dropped.pop((int(run), int(attempt)), None)
        order = o.ReportEnded(self.link.name, int(run), int(attempt), int(exit_code), details, began)
        self.core.submit(order, None, self.now)
        if self.link.beside:
            self.core.end_beside(self.link.name, order.run, order.attempt)

    def _refused(self, rest: str) -> None:
        run, attempt, code, more = _read("REFUSED", rest)
        details, link = split_options(more)[0] if more else {}, self.link
        why = readable(unescape(details.get("why", "")))
        self._flush()
        self._submit(o.ReportRefused(link.name, int(run), int(attempt), code, why, "held" in details))
        if link.beside and "held" not in details:
            self.core.end_beside(link.name, int(run), int(attempt))
        self.core.admission.order_refused(link.name, link.address, run, f"{code}: {why}")

    def _beat(self, rest: str) -> None:
        values, extra = split_options(rest)
        if extra:
            raise Refusal("syntax", "usage: BEAT [now=TIME] [rtt=SECONDS]")
        rtt_s = _parse_rtt(values["rtt"]) if "rtt" in values else None
        if "now" in values:
            self.link.compare_clocks(_parse_now(values["now"]), rtt_s)
        self.link.send("OK")

    def _bye(self, rest: str) -> None:
        self._submit(o.DismissWorker(self.link.name, self.link.number))


_REPORTS: dict[str, Callable[[Batch, str], None]] = {
    "DONE": Batch._done,
    "OUT": Batch._out,
    "REFUSED": Batch._refused,
    "STARTED": Batch._started,
    "BEAT": Batch._beat,
    "BYE": Batch._bye,
}


_NUMBER = "([0-9]{1,15})"
_FORMS = {
    "DONE": (
        re.compile(f"({_NUMBER} {_NUMBER}) (-[0-9]{{1,3}}|[0-9]{{1,15}})(?: (.*))?", re.DOTALL),
        "RUN ATTEMPT EXIT [key=value …], with whole numbers",
    ),
    "OUT": (re.compile(f"{_NUMBER} ([0-2])(?: (.*))?", re.DOTALL), "RUN FD TEXT, with an FD from 0 to 2"),
    "REFUSED": (
        re.compile(f"{_NUMBER} {_NUMBER} ([a-z][a-z-]{{0,31}})(?: (.*))?", re.DOTALL),
        "RUN ATTEMPT CODE [key=value …]",
    ),
    "STARTED": (re.compile(f"{_NUMBER} {_NUMBER}"), "RUN ATTEMPT"),
}


def _read(word: str, rest: str) -> tuple[str, ...]:
    """The parts of a report. Raises Refusal."""
    return (_FORMS[word][0].fullmatch(rest) or _malformed(word, rest)).groups()


def _malformed(word: str, rest: str) -> NoReturn:
    raise Refusal("syntax", f'{word}: "{escape(rest[:40])}" is not {_FORMS[word][1]}')


def _parse_now(text: str) -> datetime:
    with suppress(ValueError):
        at = datetime.fromisoformat(text)
        if at.tzinfo is not None:
            return at
    raise Refusal("syntax", f'BEAT: now="{escape(text[:40])}" is not like 2030-01-01T12:00:00.000Z')


def _parse_rtt(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise Refusal("syntax", f'BEAT: rtt="{escape(text[:40])}" is not seconds')
    return float(text)
