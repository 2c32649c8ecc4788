"""What happens, to everybody who looks: one WATCH of the daemon's, and as many readers as there are.

Each event is read once and made the text of server-sent events once; every reader is given the same
bytes. The newest are kept, so one who was cut off (`Last-Event-ID`) goes on where it was. If that is
longer ago, the reader has a WATCH of its own until it meets what comes to all. A reader that does not
keep up is cut off: it comes again, and misses nothing. Nor does anybody when the daemon is started anew.

The one WATCH is the gateway's own, which no change of an account ends. So it tells of such changes, too, and
what comes behind one is sent to nobody before the daemon has said again that he may look.
"""

from __future__ import annotations

import logging
import math
import re
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Any

import orjson
import trio
from attrs import define, field, frozen
from litestar import MediaType, Response, get
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, FromQuery, HeaderParameter, QueryParameter
from litestar.response import Stream
from msgspec.json import encode

from ..base.errors import Refusal
from .envelope import Refused
from .line import GATEWAY, Caller, Daemon, Row, Unreachable, is_status
from .outcomes import LEVEL_OF, LogLine, to_lines
from .rest import Asker, Success, Who
from .talks import line, newest_attempt, ref_of, run_of

log = logging.getLogger("cronflowd.web.events")

KEPT = 10_000  # events, for those who come again
MAX_BEHIND = 1_000  # of one reader, before it is cut off
MAX_READERS = 2_000
MOST_AT_ONCE = 100  # events in one piece of an answer
PIECES_PER_S = 1_000  # to all readers together: what comes meanwhile is in the next piece
BEAT_S = 15.0  # a comment, so that nobody on the way takes it for dead; and is he still who he was?
BEGIN_S = 5.0
AGAIN_S = 1.0  # when the daemon does not answer
BEAT = b": beat\n\n"
HEADERS = {"X-Accel-Buffering": "no"}
KIND = "text/event-stream"
ALL, NOW = (0, 0.0), (10**18, math.inf)
WHO_MAY = frozenset({"account-set", "account-removed", "token-revoked", "login-ended"})


@frozen(slots=True)
class Event:
    """One, as it is sent."""

    seq: str
    job: int | None
    data: bytes
    place: tuple[int, float]  # where it stands; one without a number is newer than all


def to_event(row: Row) -> Event:
    seq = str(row["seq"] or "")
    head = b"id: %b\n" % seq.encode() if seq else b""
    place = _place(seq) if seq else NOW
    return Event(seq, row["id"], b"%bdata: %b\n\n" % (head, orjson.dumps(row)), place)


def _place(seq: str) -> tuple[int, float]:
    """Where an event stands: of several of one record, the last one is called as the record is."""
    record, _, part = seq.partition(".")
    return int(record or 0), int(part) if part else math.inf


@define(eq=False)
class Reader:
    """Somebody's place."""

    job: int | None = None  # only what is about it
    after: tuple[int, float] | None = None  # what is not newer is not told; None: it comes for what is new
    events: deque[Event] = field(factory=deque)
    is_cut: bool = False
    is_doubted: bool = True  # who may look has changed, or may have while nobody told of it
    _woken: trio.Event = field(factory=trio.Event)

    def tell(self, event: Event) -> None:
        if self.job not in (None, event.job) or (self.after and event.place <= self.after):
            return
        self.events.append(event)
        self.is_cut |= len(self.events) > MAX_BEHIND
        self._woken.set()

    def doubt(self) -> None:
        self.is_doubted = True
        self._woken.set()

    async def wait(self, for_s: float) -> None:
        """Until there is something to send, or so long; not at all where the time is over already."""
        with trio.move_on_after(max(0.0, for_s)):
            await self._woken.wait()
        self._woken = trio.Event()


@define
class Checked:
    """What the daemon said of somebody."""

    doubts: int  # that there had been by then
    at_s: float  # by the clock that only counts on
    refused: tuple[str, str] | None = None


class Feed:
    """Follows the daemon while somebody reads, and tells everybody."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.kept: deque[Event] = deque(maxlen=KEPT)
        self.readers: set[Reader] = set()
        self._checked: dict[Caller, Checked] = {}
        self._checking: dict[Caller, trio.Lock] = {}
        self._doubts = 0  # how often it was told that somebody may look no longer
        self._after = ""  # what is kept begins right after this one; empty = it is not known
        self._begun: trio.Event | None = None  # set: WATCH is answered, and nothing is missed from here on
        self._upto: tuple[int, float] | None = None  # what had happened when it was

    async def join(self, reader: Reader, since: str | None) -> None:
        """From now on it is told. Raises Refused where there are too many, and Unreachable."""
        if len(self.readers) >= MAX_READERS:
            raise Refused(429, "too-many", f"{MAX_READERS} are reading already")
        self.readers.add(reader)
        if self._begun is None:
            self._begun = trio.Event()
            self._after = since or ""
            # It outlives the request that began it, and ends with the last reader.
            trio.lowlevel.spawn_system_task(self._run, self._begun)
        if since:  # the first one is told all that follows, and others what follows theirs
            reader.after = ALL if since == self._after else _place(since)
        self._place(reader)
        begun = self._begun
        with trio.move_on_after(BEGIN_S):
            await begun.wait()
        if not begun.is_set():
            self.readers.discard(reader)
            raise Unreachable("it does not say what happens")

    def _place(self, reader: Reader) -> None:
        """What is new since WATCH began is told to all; what the first one has missed, to him."""
        if self._upto:
            reader.after = min(reader.after or self._upto, self._upto)

    async def check(self, asker: Asker, is_new: bool = False) -> None:
        """Raises Refusal where he may look no longer; later on it is asked once for all that he has open."""
        caller = asker.caller
        if len(self._checked) >= MAX_READERS:
            self._checked.clear()
        async with self._checking.setdefault(caller, trio.Lock()):
            now, known = trio.current_time(), self._checked.get(caller)
            if is_new or known is None or known.doubts != self._doubts or now - known.at_s >= BEAT_S / 2:
                known = self._checked[caller] = Checked(self._doubts, now)
                try:
                    await asker.ask("WHOAMI")
                except Refusal as refusal:
                    known.refused = refusal.code, refusal.message
                except BaseException:
                    self._checked.pop(caller, None)
                    raise
                finally:
                    self._checking.pop(caller, None)
        if known.refused:  # a word that is none any more is not shown again and again
            raise Refusal(*known.refused)

    def since(self, seq: str, is_event: bool = True) -> list[Event] | None:
        """What came after that event, or that record of the journal; None where it is not known here."""
        kept = [*self.kept]
        if seq == self._after and len(kept) < KEPT:
            return kept
        if not is_event:
            begins = kept[0].seq if len(kept) == KEPT else self._after
            after = [event for event in kept if _place(event.seq) > _place(seq)]
            return after if begins and _place(begins) <= _place(seq) else None
        at = next((at for at in range(len(kept) - 1, -1, -1) if kept[at].seq == seq), None)
        return None if at is None else kept[at + 1 :]

    async def _run(self, begun: trio.Event) -> None:
        try:
            while self.readers:
                try:
                    await self._follow(begun)
                except (Unreachable, Refusal) as error:
                    log.info("what happens is not known now: %s", error)
                    await trio.sleep(AGAIN_S)
        except Exception:
            log.exception("what happens")
        self._begun = self._upto = None
        self.kept.clear()
        for reader in self.readers:  # none, but for a fault of ours
            reader.is_cut = True

    async def _follow(self, begun: trio.Event) -> None:
        last = self.kept[-1].seq if self.kept else self._after
        said = line("WATCH", "tasks", "runs", "workers", "accounts", since=last or None)
        async with self._daemon.follow(said, GATEWAY) as connection:
            begins = await connection.begin()
            upto = (int(begins["seq"]), math.inf)
            if self._upto and upto < self._upto:  # another history, as after a restore: all of it is new
                self.kept.clear()
                self._after, self._upto = str(begins["seq"]), ALL
            self._after = self._after or str(begins["seq"])
            self._upto = self._upto or upto
            for reader in self.readers:
                self._place(reader)
            begun.set()
            self._doubt()
            while self.readers:
                row = await connection.read_row()
                if row["event"] in WHO_MAY:
                    self._doubt()
                    continue
                event = to_event(row)
                self.kept.append(event)
                for reader in self.readers:
                    reader.tell(event)

    def _doubt(self) -> None:
        self._doubts += 1
        for reader in self.readers:
            reader.doubt()


# --- one reader -------------------------------------------------------------------------------------


async def read(
    feed: Feed, asker: Asker, reader: Reader, since: str | None, is_event: bool = True
) -> AsyncGenerator[bytes, None]:
    """The text of the answer, as long as the reader keeps up and may look."""
    check_s = trio.current_time() + BEAT_S
    try:
        yield b"retry: 1000\n\n"
        if since:
            async for piece in _catch_up(feed, asker, reader, since, is_event):
                yield piece
        while not reader.is_cut:
            if not reader.events:
                await reader.wait(check_s - trio.current_time())
            await _settle_doubt(feed, asker, reader)
            if reader.events:
                yield _take(reader)
                await trio.sleep(len(feed.readers) / PIECES_PER_S)
            if trio.current_time() >= check_s:
                await feed.check(asker)
                check_s = trio.current_time() + BEAT_S
                yield BEAT
    except (Refusal, Unreachable) as error:
        log.info("a reader is sent away: %s", error)  # it comes again, and is told then
    finally:
        feed.readers.discard(reader)


async def _settle_doubt(feed: Feed, asker: Asker, reader: Reader) -> None:
    """Raises Refusal where he may look no longer."""
    while reader.is_doubted:
        reader.is_doubted = False
        await feed.check(asker)


def _take(reader: Reader) -> bytes:
    events = reader.events
    return b"".join([events.popleft().data for _ in range(min(len(events), MOST_AT_ONCE))])


async def _catch_up(
    feed: Feed, asker: Asker, reader: Reader, since: str, is_event: bool
) -> AsyncIterator[bytes]:
    """What came after an event, until the reader's own queue goes on without a gap."""
    if (found := feed.since(since, is_event)) is not None:
        reader.events.clear()  # they are among those
        found = [event for event in found if reader.job in (None, event.job)]
        for at in range(0, len(found), MOST_AT_ONCE):
            await _settle_doubt(feed, asker, reader)
            yield b"".join([event.data for event in found[at : at + MOST_AT_ONCE]])
        return
    last = _place(since)  # that it has been told
    async with asker.follow(line("WATCH", since=since, id=reader.job)) as connection:
        await connection.begin()
        while not reader.is_cut:
            if (row := await connection.row_within(BEAT_S)) is None:
                yield BEAT
                continue
            event = to_event(row)
            if _drop_told(reader, last) or (reader.events and reader.events[0].seq == event.seq):
                reader.after = last  # the queue may still get what was told
                return  # from here on it has all, or will
            yield event.data
            last = event.place if event.seq else last


def _drop_told(reader: Reader, last: tuple[int, float]) -> bool:
    """Takes out of the queue what the reader has been sent already."""
    before = len(reader.events)
    while reader.events and reader.events[0].place <= last:
        reader.events.popleft()
    return len(reader.events) < before


Since = Annotated[str | None, HeaderParameter(name="Last-Event-ID")]
_STREAM = {
    200: ResponseSpec(None, media_type=KIND, description="Server-sent events", generate_examples=False)
}


@get("/events", summary="What happens", responses=_STREAM)
async def events(
    asker: Who,
    job_id: Annotated[str | None, QueryParameter(name="jobId")] = None,
    since: Annotated[int | None, QueryParameter(ge=0, lt=10**18)] = None,
    last: Since = None,
) -> Stream:
    """Server-sent events, each a row of WATCH as JSON. `Last-Event-ID` goes on behind that event.

    `since` goes on behind a record of the journal, such as STATUS told it when something else was asked.
    """
    feed: Feed = asker.request.app.state.feed
    await feed.check(asker, is_new=True)
    job = None
    if job_id:
        job = (await asker.ask(line("GET", ref_of(job_id)))).pairs["id"]
    if last is not None and not re.fullmatch("[0-9]{1,18}([.][0-9]{1,9})?", last):
        raise Refused(400, "bad-option", "it is the id of no event", "Last-Event-ID")
    begins = last or (None if since is None else str(since))
    reader = Reader(job)
    await feed.join(reader, begins)
    told = read(feed, asker, reader, begins, is_event=last is not None)
    return Stream(told, media_type=KIND, headers=HEADERS)


# --- what a run writes ------------------------------------------------------------------------------


_LOG = {200: ResponseSpec(Success[list[LogLine]], description="Its lines", generate_examples=False)}


@get("/executions/{run:str}/log", summary="What a run wrote", responses=_LOG)
async def execution_log(
    asker: Who, run: FromPath[str], follow: FromQuery[bool] = False, last: Since = None
) -> Response[Any]:
    """As JSON, as text if that is asked for (`Accept: text/plain`), or with `follow=1` as it is written."""
    number = run_of(run)
    if follow:
        await asker.hold(newest_attempt(number))
        seen = int(last) if last and re.fullmatch("[0-9]{1,18}", last) else 0
        return Stream(_follow_log(asker, number, seen), media_type=KIND, headers=HEADERS)
    rows = (await asker.ask(line("LOG", number))).rows
    if "text/plain" in asker.request.headers.get("accept", ""):
        text = "".join(each.text + "\n" for each in to_lines(rows))
        return Response(text, media_type=MediaType.TEXT)
    return Response(Success(to_lines(rows)), media_type=MediaType.JSON)


async def _follow_log(asker: Asker, run: int, seen: int) -> AsyncGenerator[bytes, None]:
    """Rows of LOG, each an event whose id is how many there were; at the end `event: end`, with the run."""
    at = 0
    try:
        yield b"retry: 1000\n\n"
        async with asker.follow(line("LOG", run, "follow")) as connection:
            while True:
                if (row := await connection.row_within(BEAT_S)) is None:
                    yield BEAT
                elif is_status(row):
                    break
                elif (at := at + 1) > seen:
                    row["level"] = LEVEL_OF[row["fd"]]
                    yield b"id: %d\ndata: %b\n\n" % (at, orjson.dumps(row))
        ended = await asker.hold(newest_attempt(run))
        yield b"event: end\ndata: %b\n\n" % encode(ended)
    except (Refusal, Unreachable, Refused):
        return
