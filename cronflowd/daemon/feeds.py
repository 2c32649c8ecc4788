"""What happens, as it happens: WATCH, and LOG … follow.

Every event is described once and stands in one list, oldest first, in which each event knows the
next. Who watches holds a place in it; the rows are made while its socket takes them, and a row
that one watcher has worded is there for all. Who has caught up holds nothing, and is called by
the next event that concerns it. So a burst costs no more than its events, however many watch;
what nobody has to read any more is forgotten by itself.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, ClassVar
from weakref import finalize, ref

import trio
from attrs import define, field

from ..ask import events
from ..ask import questions as q
from ..base import output
from ..base.replies import format_row
from ..engine import facts as f
from ..host.threads import call_in_thread
from ..journal import history
from ..net.clients import Session
from ..net.outbox import PIECE_BYTES, Chunks, Gate
from ..tasks.reasons import worded
from .core import Core
from .turns import in_turns

# More at once would not be quicker, and each holds its rows in memory.
READERS = trio.CapacityLimiter(2)  # of the journal
PIECES = 64  # of rows, that the next watcher may take as they are
TAKEN_TOGETHER = 10_000  # lines of the past of a LOG, before the others have their turn
MAX_BEHIND = 200_000  # events, about 150 MB; a watcher further behind is cut: they are kept for it alone
MAX_PAST = 2 * MAX_BEHIND  # of all watchers, each with a list of its own; a record is two events at most
LOOK_EVERY = 1000  # events, between two looks at who is behind
LET_GO = 1000  # events freed in one go
EVENTS_A_PIECE = 500  # looked at in one go, by a watcher that may want none of them

log = logging.getLogger(__name__)


@define(eq=False)
class Entry:
    """One event in the list."""

    event: events.Event | None  # None: the place before the first
    seq: int
    number: int
    next: Entry | None = None
    part: int = 0  # of several of one record, the how manieth; 0: the last one
    is_past: bool = False  # read from the journal, for one watcher alone
    text: bytes | None = None  # its row, once worded
    json: bytes | None = None

    def row(self, as_json: bool) -> bytes:
        """The row of it, worded once for all who watch."""
        if (row := self.json if as_json else self.text) is None:
            assert self.event
            at = float(f"{self.seq}.{self.part}") if self.part else self.seq
            text = format_row(events.COLUMNS, (*self.event.row, at), as_json)
            row = text.encode(errors="backslashreplace") + b"\n"
            if as_json:
                self.json = row
            else:
                self.text = row
        return row


NOWHERE = Entry(None, 0, 0)


@define
class Passed:
    """What stands behind a place that nobody holds any more: to free a long burst at once takes long."""

    at: Entry | None = None

    def __len__(self) -> int:
        return self.at is not None

    def let_go(self) -> None:
        for _ in range(LET_GO):
            if self.at:
                self.at = self.at.next


class WatchHub:
    """All that WATCH: describes each fact once, and calls those whom it concerns."""

    def __init__(self, core: Core) -> None:
        self.watchers: set[Watcher] = set()
        self._core = core
        self.state = core.state
        self._present = events.Present(core.state)
        self.last = Entry(None, 0, 0)  # the newest event
        # Those that have caught up, by task (None: any) and by what they want to see.
        self._idle: dict[int | None, dict[frozenset[str], _Group]] = {}
        # What was made for one watcher, for those that want the same and are as far: where it ends (it must
        # not keep in memory what nobody has to read any more), the rows, their record.
        self._pieces: OrderedDict[Any, tuple[ref[Entry], bytes, int]] = OrderedDict()
        self._passed = Passed()
        self.past = 0  # events that were read from the journal, and not by those for whom

    def watch(
        self, session: Session, kinds: frozenset[str], task_id: int | None, waits: bool = False
    ) -> Watcher:
        """Begins a watch: a row for every event from now on; or, when it `waits`, from `begin` on."""
        watcher = Watcher(self, session, kinds, task_id)
        if not self.watchers:
            self._core.feeds.append(self)
        self.watchers.add(watcher)
        if not waits:
            self.rest(watcher)
        return watcher

    def mark(self) -> Entry:
        """A place behind all that has happened, where what is told of the past joins it."""
        before = self.last
        self.last = before.next = Entry(None, self._core.last_seq, before.number + 1)
        return self.last

    async def go_on(self, watcher: Watcher, since: q.Since, data: Path) -> None:
        """WATCH since=: the journal tells what happened up to now, and the list what happens meanwhile.

        Its rows are put in the next turn, behind the answer.
        """
        core = self._core
        replaced = await in_turns(events.names_replaced(core.state))
        end, upto = self.mark(), core.last_seq

        def read() -> list[Entry]:
            known = 0 <= upto - since.known <= MAX_BEHIND
            records = history.facts(data, since.known, upto) if known else None
            return watcher.past(since, records, replaced, end, core.now())

        await core.settled(upto)
        found: list[Entry] = await call_in_thread(read, limiter=READERS)
        if self.past + len(found) > MAX_PAST + 1:  # the first one is a place
            found = watcher.past(since, None, replaced, end, core.now())
        self.past += len(found)
        finalize(found[-1], self._forget_past, len(found))
        trio.lowlevel.current_trio_token().run_sync_soon(watcher.begin_past, found[0], upto)

    def _forget_past(self, count: int) -> None:
        self.past -= count

    def leave(self, watcher: Watcher) -> None:
        """Ends a watch."""
        if watcher.group:
            watcher.group.members.pop(watcher, None)
        if watcher in self.watchers and watcher.first:
            self._pass_over(watcher.first)
        self.watchers.discard(watcher)
        if not self.watchers and self in self._core.feeds:
            self._core.feeds.remove(self)

    def _pass_over(self, at: Entry) -> None:
        """Nobody may hold what stands behind this place any more."""
        passed = Passed() if at.is_past else self._passed
        if passed.at is None:
            self._core.state.changes.leftovers.append(passed)
            self._core.wake()
        elif passed.at.number <= at.number:
            return
        passed.at = at

    def see(self, fact: f.Fact, at: datetime, seq: int) -> None:
        """Adds the event that a fact is, and calls who has waited for such a one."""
        try:
            found = list(events.describe(fact, at, self._present))
        except Exception:
            # A watcher that goes on without it would believe that it did not happen.
            log.exception("an event could not be told")
            for watcher in list(self.watchers):
                watcher.cut("an event could not be told")
            return
        for part, event in enumerate(found, 1):
            self._add(event, seq, part % len(found))

    def _add(self, event: events.Event, seq: int, part: int) -> None:
        before = self.last
        self.last = before.next = Entry(event, seq, before.number + 1, part=part)
        for task_id in {None, event.task_id}:
            groups = self._idle.get(task_id, {})
            for kinds in [kinds for kinds in groups if event.kind in kinds]:
                groups.pop(kinds).call(seq, before)
            if not groups:
                self._idle.pop(task_id, None)
        if self.last.number % LOOK_EVERY == 0:
            self._cut_who_is_behind()

    def piece(self, key: Any, upto: Entry) -> tuple[Entry, bytes, int] | None:
        """Rows that another watcher has made, if they go no further than this one wants."""
        if known := self._pieces.get(key):
            at, data, seq = known[0](), *known[1:]
            if at and at.number <= upto.number:
                return at, data, seq
        return None

    def keep(self, key: Any, at: Entry, data: bytes, seq: int) -> None:
        """Those that come may have these rows too."""
        self._pieces[key] = ref(at), data, seq
        if len(self._pieces) > PIECES:
            self._pieces.popitem(last=False)

    def rest(self, watcher: Watcher) -> None:
        """It has caught up: the next event that concerns it calls it."""
        if watcher in self.watchers:
            groups = self._idle.setdefault(watcher.task_id, {})
            if (group := groups.get(watcher.kinds)) is None:
                group = groups[watcher.kinds] = _Group(self._core.gate)
            watcher.group = group
            group.members[watcher] = None

    def _cut_who_is_behind(self) -> None:
        for watcher in list(self.watchers):
            if watcher.is_behind(self.last.number - MAX_BEHIND):
                watcher.cut(f"it fell more than {MAX_BEHIND} events behind")


@define(eq=False)
class _Group:
    """Those that wait for the same and have caught up; once that has called them, whose turn is to come."""

    gate: Gate
    members: dict[Watcher | LogFeed, None] = field(factory=dict)
    before: Entry | None = None  # the place before an event; None: they rest
    seq: int = 0
    is_long: ClassVar[bool] = True

    def call(self, seq: int, before: Entry | None = None) -> None:
        self.before, self.seq = before, seq
        self.gate.hold(self)

    def pass_gate(self) -> None:
        self.gate.room += 1  # it is those who are called that send
        for each in list(islice(self.members, self.gate.room)):
            if self.gate.room <= 0:
                break
            self.gate.room -= 1
            each.come(now=True)
        if self.members:
            self.gate.let(self)


@define(eq=False)
class _Place:
    """Where some rows that are being made have got to in the list."""

    at: Entry  # the last event that is done with
    end: Entry | None = None  # the last event of these rows; None: they go on


class Watcher:
    """WATCH on one connection: what it wants to see, and its places in the list."""

    def __init__(self, hub: WatchHub, session: Session, kinds: frozenset[str], task_id: int | None) -> None:
        self.kinds = kinds
        self.task_id = task_id
        self.group: _Group | None = None  # that it rests with, or rested until it was called
        self._places: deque[_Place] = deque()  # a reply that was put ends one, so there may be several
        self._hub = hub
        self._session = session
        self._before_put = session.outbox.before_put  # of another one of this connection
        session.outbox.before_put = self._come_first

    def come(self, now: bool = False) -> None:
        """An event that concerns it has called it, and its turn has come."""
        group = self.group
        if group is None or (before := group.before) is None or self not in group.members:
            return
        del group.members[self]
        if not group.members:
            group.before = None  # what comes behind it is kept by nobody any more
        self.begin(before, group.seq, now)

    def begin(self, before: Entry, seq: int, now: bool = False) -> None:
        """What stands behind this place is told."""
        place = _Place(before)
        self._places.append(place)
        rows = self._rows(place, self._session.as_json)
        self._session.outbox.put_rows(rows, seq, partial(self._end, place), now)

    def _come_first(self) -> None:
        """Something is put: what happened before comes before that."""
        if self._before_put:
            self._before_put()
        self.come()

    def past(
        self,
        since: q.Since,
        records: Sequence[events.Record] | None,
        replaced: events.Replaced,
        end: Entry,
        now: datetime,
    ) -> list[Entry]:
        """The place before the first event behind `since`, and those that concern it; None: not all known.

        Each leads to the next one, and the last to `end`. A thread may make them.
        """
        told: Iterable[tuple[int, list[events.Event]]]
        if records is None:
            detail = f"what followed {since.seq} is not known any more, up to {end.seq}"
            row = (now, "gap", None, None, None, None, None, detail)
            told = [(end.seq, [events.Event(min(self.kinds), self.task_id, row)])]
            since = q.Since(0, 0)
        else:
            told = events.of_the_past(records, self._hub.state, replaced)
        past = [Entry(None, since.seq, end.number, is_past=True)]
        for seq, found in told:
            for part, event in enumerate(found, 1):
                if self._wants(event) and (seq > since.seq or part > since.part > 0):
                    past.append(Entry(event, seq, end.number, part=part % len(found), is_past=True))
        for entry, following in pairwise([*past, end]):
            entry.next = following
        return past

    def begin_past(self, before: Entry, seq: int) -> None:
        """What was told of the past, and all that has happened since, is told; if it still watches."""
        if self in self._hub.watchers:
            self.begin(before, seq)

    @property
    def first(self) -> Entry | None:
        """The last event that it has taken; None when it has caught up."""
        return self._places[0].at if self._places else None

    def is_behind(self, number: int) -> bool:
        """Whether it has not taken this event yet."""
        return self.first is not None and self.first.number < number

    def leave(self) -> None:
        """The connection has ended."""
        self._hub.leave(self)
        self._places.clear()

    def cut(self, why: str) -> None:
        """Ends the connection: a watch with a hole in it must not look whole."""
        self.leave()
        self._session.outbox.cut(why)

    def _end(self, place: _Place) -> None:
        """What happens from now on comes after something else that is put."""
        if place.end is None:
            place.end = self._hub.last
            self._hub.rest(self)

    def _rows(self, place: _Place, as_json: bool) -> Chunks:
        while place.at is not (upto := place.end or self._hub.last):
            is_past = place.at.is_past
            key = place.at.number, self.kinds, self.task_id, as_json
            if not is_past and (known := self._hub.piece(key, upto)):
                place.at, data, seq = known
                yield data, seq
                continue
            rows: list[bytes] = []
            size, seq = 0, 0
            for entry in self._wanted(place):
                rows.append(entry.row(as_json))
                size += len(rows[-1])
                seq = entry.seq
                if size >= PIECE_BYTES:
                    break
            data = b"".join(rows)
            if not is_past:
                self._hub.keep(key, place.at, data, seq)
            yield data, seq
        if self._places:
            self._places.popleft()
        self._end(place)
        place.at = place.end = NOWHERE  # whoever put it last still knows it

    def _wanted(self, place: _Place) -> Iterator[Entry]:
        """Goes on to events that concern it, but not past many that do not."""
        end = place.end or self._hub.last
        for _ in range(EVENTS_A_PIECE):
            if place.at is end:
                return
            assert place.at.next
            place.at = place.at.next
            if (event := place.at.event) and self._wants(event):
                yield place.at

    def _wants(self, event: events.Event) -> bool:
        return event.kind in self.kinds and self.task_id in (None, event.task_id)


@define(eq=False)
class Said:
    """Some lines that a run wrote, of one record."""

    lines: Sequence[output.Line]
    seq: int
    next: Said | None = None
    told: dict[tuple[int | None, bool], tuple[bytes, int]] = field(factory=dict)  # as rows, and how many

    def rows(self, only_fd: int | None, as_json: bool) -> tuple[bytes, int]:
        """Worded once for all that follow, of one file descriptor or of all."""
        if (told := self.told.get((only_fd, as_json))) is None:
            rows = [
                format_row(output.COLUMNS, output.row_of(worded(line)), as_json)
                for line in self.lines
                if only_fd in (None, line[0])
            ]
            data = "".join(f"{row}\n" for row in rows).encode(errors="backslashreplace")
            told = self.told[only_fd, as_json] = data, len(rows)
        return told


@define(eq=False)
class Stream:
    """What one run writes, as a list of which each part knows the next, and those that follow it."""

    group: _Group  # those that have caught up
    last: Said = field(factory=lambda: Said((), 0))  # the place before what comes next
    feeds: set[LogFeed] = field(factory=set)
    has_ended: bool = False

    def add(self, lines: Iterable[output.Line], seq: int) -> None:
        for some in _by_size(lines):
            self.last.next = self.last = Said(some, seq)


def _by_size(lines: Iterable[output.Line]) -> Iterator[list[output.Line]]:
    """Parts of about PIECE_BYTES."""
    some: list[output.Line] = []
    size = 0
    for line in lines:
        some.append(line)
        size += len(line[1]) + 2
        if size >= PIECE_BYTES:
            yield some
            some, size = [], 0
    if some:
        yield some


class LogHub:
    """All that follow a LOG: what a run writes is worded once, and told to some of them in each pass."""

    def __init__(self, core: Core) -> None:
        self.count = 0
        self._core = core
        self._streams: dict[int, Stream] = {}  # by run

    def follow(self, session: Session, run: int, only_fd: int | None) -> LogFeed:
        """The lines of a run from now on."""
        if not self._streams:
            self._core.feeds.append(self)
        stream = self._streams.setdefault(run, Stream(_Group(self._core.gate)))
        feed = LogFeed(self, session, run, only_fd, stream)
        stream.feeds.add(feed)
        self.count += 1
        return feed

    def leave(self, feed: LogFeed) -> None:
        """Sees no more."""
        if feed in feed.stream.feeds:
            self.count -= 1
            feed.stream.feeds.remove(feed)
            if not feed.stream.feeds:
                del self._streams[feed.run]
            if not self._streams and self in self._core.feeds:
                self._core.feeds.remove(self)

    def see(self, fact: f.Fact, at: datetime, seq: int) -> None:
        """Calls those whom it concerns."""
        if not isinstance(fact, f.OutputReceived | f.RunEnded) or not (stream := self._streams.get(fact.run)):
            return
        if isinstance(fact, f.OutputReceived):
            stream.add(fact.lines, seq)
        elif fact.final:
            stream.has_ended = True
        else:
            return
        if stream.group.members:
            stream.group.call(seq)
            stream.group = _Group(self._core.gate)


class LogFeed:
    """LOG … follow: the lines of one run until it has ended."""

    def __init__(self, hub: LogHub, session: Session, run: int, only_fd: int | None, stream: Stream) -> None:
        self.run = run
        self.stream = stream
        self.count = 0  # of its rows
        self.ended = trio.Event()  # its run has, and all rows are made
        self._hub = hub
        self._session = session
        self._only_fd = only_fd
        self._group: _Group | None = None  # it rests with, or rested until it was called
        # What comes from now on stands behind this place, and that behind the past.
        stream.last.next = stream.last = Said((), 0)
        self._at = stream.last

    async def past(self, lines: Sequence[output.Line], seq: int) -> None:
        """The lines there were when it began; those that came meanwhile follow."""
        known, begin = Stream(self.stream.group), self._at
        self._at = known.last
        for start in range(0, len(lines), TAKEN_TOGETHER):
            known.add(lines[start : start + TAKEN_TOGETHER], seq)
            await trio.lowlevel.checkpoint()
        known.last.next = begin
        self._session.outbox.put_rows(self._rows(), seq)

    def come(self, now: bool) -> None:
        """Something stands behind its place, or nothing ever will, and its turn has come."""
        assert self._group
        del self._group.members[self]
        self._session.outbox.put_rows(self._rows(), self._group.seq, now=now)

    def leave(self) -> None:
        """Sees no more; the lines it has still leave."""
        if self._group:
            self._group.members.pop(self, None)
        self._hub.leave(self)

    def _rows(self) -> Chunks:
        while self._at.next:
            self._at = self._at.next
            if self._at.lines:
                data, count = self._at.rows(self._only_fd, self._session.as_json)
                self.count += count
                yield data, self._at.seq
        if self.stream.has_ended:
            self.ended.set()
        else:
            self._group = self.stream.group
            self._group.members[self] = None
