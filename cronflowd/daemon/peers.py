"""What nodes tell each other beside etcd: the rest of long output, and a state that is too long for etcd.

A node dials the leader's control port and introduces itself, as one that carries a client does
(sealed.py), but as a `node`. Each frame that it sends is a question then, and has one answer:

    BEAT                  nothing; or HERE, where that is to be asked again: more is known of what is lacking
    CLOCK                 what time it is
    HERE run:size …       which of these files, the other's own, hold what the leader lacks
    GIVE run, data        nothing; lines of one of these
    HAVE run:size …       nothing; so long a part of the leader's files is on the other's disk
    OUTPUT run offset     whole lines of a run's file from there on; empty where there are no more
    STATE                 JSON: up to which record the checkpoint goes (0: there is none), and how long the
                          files are that hold the state: it, and the segments since
    PAST record           JSON: the first and the last record for which the file stands that has this one, and
                          how long it is; empty where none has
    READ file offset      bytes of one of these, by its place among them
    GAPS                  JSON: the form of records that all nodes know, and which the leader lacks: from one
                          to another, the newest first
    PUT, data             nothing; the next bytes of a file that has such records
    FILL record record    nothing; with PUT all has come, and the records from one to the other are to be kept
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing
from datetime import datetime
from functools import partial
from pathlib import Path
from shutil import disk_usage
from tempfile import TemporaryFile
from typing import Any, BinaryIO, NoReturn, TypeVar

import orjson
import trio
from attrs import Factory, define

from ..base.errors import Refusal
from ..engine.orders import TellUnwritten
from ..host.clock import wall_now
from ..host.setting import Address
from ..host.threads import call_in_thread
from ..journal import apart
from ..journal.files import journal_dir
from ..journal.gaps import PIECE_BYTES, Lacks, Part, close, gaps, lines_of, open_past, open_whole
from ..journal.shared import seq_in
from ..journal.shared_journal import SharedJournal
from ..net.listeners import Connection
from .core import Core
from .sealed import DIAL_S, PROOF, READ_BYTES, WELCOME_BYTES, Sealed, be_welcomed, introduce, send

ANSWER_S = 10.0  # to a question
COPIED_S = 1.0  # that an ACK waits for a standby
LOOK_S = 1.0  # between two looks whether the leader is still there
AWAKE_S = 3 * LOOK_S  # a standby that asks nothing for so long is waited for by nobody
SILENT_S = 60.0  # a node that asks nothing for so long, or reads no answer, is frozen or cut off
LONGEST_PAUSE_S = 60.0  # between two tries to copy the past
MARGIN_BYTES = 64 * 1024 * 1024  # of the disk, for the journal
ASKED_TOGETHER = 100  # files, each of which is looked for in the journal before the answer is late
TOLD_TOGETHER = 10_000

log = logging.getLogger("cronflowd.cluster")

T = TypeVar("T")


class Peer:
    """The leader, as another node sees it. Blocking, for a thread; each question may raise OSError."""

    def __init__(self, leader: Address, secret: bytes, name: str) -> None:
        self._sock = socket.create_connection(leader, DIAL_S)
        self._sock.settimeout(ANSWER_S)
        said, welcome = introduce(secret, "node", name), b""
        try:
            self._sock.sendall(said)
            while len(welcome) < WELCOME_BYTES:
                welcome += self._receive(WELCOME_BYTES - len(welcome))
            self._sealed = be_welcomed(secret, said, welcome)
            self._sock.sendall(self._sealed.seal(PROOF))
        except OSError:
            self.close()
            raise

    def ask(self, question: str, data: bytes = b"") -> bytes:
        self._sock.sendall(self._sealed.seal(question.encode() + b"\n" + data))
        while not (answers := self._sealed.feed(self._receive(READ_BYTES))):
            pass
        return answers[0]

    def close(self) -> None:
        self._sock.close()

    def state(self) -> tuple[int, Iterator[bytes], Iterator[bytes]]:
        """Up to which record its checkpoint goes, the checkpoint, and the lines of all records since."""
        told = orjson.loads(self.ask("STATE"))
        upto, sizes = told["upto"], list(enumerate(told["sizes"]))
        later = sizes[1:] if upto else sizes
        lines = (line for number, size in later for line in lines_of(self.read(number, size)))
        return upto, self.read(*sizes[0]), (line for line in lines if seq_in(line) > upto)

    def read(self, number: int, size: int) -> Iterator[bytes]:
        """A file that it has been told of."""
        offset = 0
        while offset < size:
            if not (piece := self.ask(f"READ {number} {offset}")):
                raise OSError("it has become shorter")
            offset += len(piece)
            yield piece

    def _receive(self, size: int) -> bytes:
        if not (data := self._sock.recv(size)):
            raise OSError("it left")
        return data


def ask_clock(leader: Address, secret: bytes, name: str) -> float:
    """By how much our clock is ahead of the leader's. Raises OSError."""
    with closing(Peer(leader, secret, name)) as peer:
        sent_at = wall_now()
        theirs_at = datetime.fromisoformat(peer.ask("CLOCK").decode())
        return round((sent_at + (wall_now() - sent_at) / 2 - theirs_at).total_seconds(), 3)


class Copies:
    """A standby's: has the rest of long output copied from whoever leads, as records tell of it."""

    def __init__(self, lacks: Lacks, name: str) -> None:
        self._lacks, self._name = lacks, name
        self._directory = journal_dir(lacks.data)
        self._wants: set[int] = set()  # runs
        self._wanted = trio.Event()
        self._peer: Peer | None = None  # who leads
        self._is_over = False
        self._offsets: dict[int, int] = {}  # in its files, of runs of which more may come

    @property
    def uncopied(self) -> int | None:
        """How many bytes only this node has: whoever leads was given them all, when it was dialled."""
        return 0 if self._peer else None

    def want(self, run: int, is_there: bool = True) -> None:
        """A record tells of output that does not stand in it; whoever leads need not have that."""
        self._wants.add(run)
        if not is_there:
            self._lacks.runs.add(run)
        self._wanted.set()

    async def run(self, leader: Callable[[], Address | None], secret: bytes) -> NoReturn:
        """Until cancelled."""
        wants = set[int]()
        try:
            await self._go_on(leader, secret, wants)
        finally:
            self._is_over = True
            self._lacks.runs |= wants | self._wants
            self._part()

    async def _go_on(self, leader: Callable[[], Address | None], secret: bytes, wants: set[int]) -> NoReturn:
        dialled = None
        why = ""
        while True:
            self._wanted, there = trio.Event(), leader()
            wants |= self._wants
            self._wants.clear()
            try:
                if self._peer is None or there != dialled:
                    self._part()
                    dialled = there
                    await in_thread(self._dial, there, secret)
                await in_thread(self._fetch, frozenset(wants))
                wants.clear()
                why = ""
            except OSError as error:
                if there and str(error) != why:
                    log.info("output cannot be copied from the leader: %s", error)
                why = str(error)
                self._part()
            with trio.move_on_after(LOOK_S):
                if self._peer:
                    await self._wanted.wait()
                else:
                    await trio.sleep_forever()

    def _part(self) -> None:
        peer, self._peer = self._peer, None
        if peer:
            peer.close()

    def _dial(self, leader: Address | None, secret: bytes) -> None:
        if leader is None:
            raise OSError("nobody leads")
        self._peer = Peer(leader, secret, self._name)
        if self._is_over:  # nobody waits for this thread any more
            self._part()
            return
        self._offsets.clear()
        self._offer(self._peer)

    def _offer(self, peer: Peer) -> None:
        """Gives what the leader lacks, and this node has."""
        here = [f"{run}:{size}" for run, size in apart.sizes(self._directory).items()]
        for begin in range(0, len(here), ASKED_TOGETHER):
            lacks = peer.ask(f"HERE {' '.join(here[begin : begin + ASKED_TOGETHER])}")
            for run in map(int, lacks.split()):
                offset = 0
                while data := apart.piece(self._directory, run, offset):
                    peer.ask(f"GIVE {run}", data)
                    offset += len(data)

    def _fetch(self, runs: Collection[int]) -> None:
        peer = self._peer
        assert peer
        if len(self._offsets) > TOLD_TOGETHER:
            self._offsets.clear()
        for run in runs:
            offset = self._offsets.get(run, 0)
            while data := peer.ask(f"OUTPUT {run} {offset}"):
                apart.merge(self._directory, run, data)
                offset = self._offsets[run] = offset + len(data)
            peer.ask(f"HAVE {run}:{offset}")
            if run in self._lacks.runs:
                self._lacks.check(run)
        if not runs and peer.ask("BEAT"):
            self._offer(peer)


class Backlog:
    """A standby's, for as long as it follows: has what it lacks of the past copied, in the background.

    What the leader lacks, which has nobody to ask, it is given as well, and in the same way.
    One file after the other, at a bounded rate and on a connection of its own, so that neither new records
    nor new output wait for it. What was fetched stands in its place, so it goes on where it was after any
    break.
    """

    def __init__(self, lacks: Lacks, name: str, journal: SharedJournal) -> None:
        self._lacks, self._name, self._journal = lacks, name, journal
        self._directory = journal_dir(lacks.data)
        self._is_over = False

    async def run(self, leader: Callable[[], Address | None], secret: bytes) -> NoReturn:
        """Until cancelled."""
        asked, why, pause_s = None, "", LOOK_S
        try:
            while True:
                there, looks = leader(), self._lacks.looks
                if there is None:
                    asked = None
                elif asked != (there, looks):  # this one may have what others had not
                    try:
                        await in_thread(self._fetch_all, there, secret)
                        asked, why, pause_s = (there, looks), "", LOOK_S
                    except (OSError, Refusal) as error:
                        if str(error) != why:
                            log.info("the past cannot be copied from the leader: %s", error)
                        why, pause_s = str(error), min(2 * pause_s, LONGEST_PAUSE_S)
                await trio.sleep(pause_s)
        finally:
            self._is_over = True

    def _fetch_all(self, leader: Address, secret: bytes) -> None:
        with closing(Peer(leader, secret, self._name)) as peer:
            for first, last in gaps(self._directory):
                self._fill(peer, first, last)
            for run in sorted(self._lacks.runs, reverse=True):
                self._fetch_output(peer, run)
            if told := self._ask(peer, "GAPS"):  # an older one does not know what that is
                form, lacking = orjson.loads(told)
                for first, last in lacking:
                    self._give(peer, form, first, last)

    def _fill(self, peer: Peer, first: int, last: int) -> None:
        while first <= last and (told := self._ask(peer, f"PAST {last}")):
            begins, _, size = orjson.loads(told)
            begins = max(first, begins)
            _check_room(self._directory, 2 * size)
            self._lacks.fill(begins, last, self._gently(peer.read(0, size)))
            log.info("the history of records %d to %d was fetched", begins, last)
            last = begins - 1

    def _give(self, peer: Peer, form: int, first: int, last: int) -> None:
        """Of these records that the leader lacks those that this node has, the newest first."""
        while first <= last:
            if (past := open_past(self._directory, self._journal.open_segment, last, form)) is None:
                return
            begins, _, part = past
            begins, offset = max(first, begins), 0
            try:
                while data := part.piece(offset):
                    self._check_role()
                    peer.ask("PUT", data)
                    offset += len(data)
                    self._lacks.rest(len(data))
            finally:
                close([part])
            self._ask(peer, f"FILL {begins} {last}")
            last = begins - 1

    def _gently(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._check_role()
            self._lacks.rest(len(piece))
            yield piece

    def _fetch_output(self, peer: Peer, run: int) -> None:
        offset = 0
        while data := self._ask(peer, f"OUTPUT {run} {offset}"):
            _check_room(self._directory, len(data))
            apart.merge(self._directory, run, data)
            offset += len(data)
            self._lacks.rest(len(data))
        if offset:
            peer.ask(f"HAVE {run}:{offset}")
        self._lacks.check(run)

    def _ask(self, peer: Peer, question: str) -> bytes:
        self._check_role()
        return peer.ask(question)

    def _check_role(self) -> None:
        if self._is_over:  # nobody waits for this thread any more
            raise OSError("this node follows no more")


@define(eq=False)
class Asker:
    """Another node, on one connection."""

    heard_s: float = 0.0  # on trio's clock: when it asked last
    follows: bool = False  # a standby, that has long output copied
    offered: int = -1  # what it has, when the leader knew so much of what it lacks itself
    state: list[Part] = Factory(list)  # what it is reading
    given: BinaryIO | None = None  # what it gives


class Peers:
    """The leader's: gives what standbys ask for, and lets the ACK of a run wait until one has its output."""

    def __init__(self, core: Core, journal: SharedJournal, lacks: Lacks) -> None:
        assert journal.apart
        self._core, self._journal, self._lacks = core, journal, lacks
        self._directory, self._ends = journal.directory, journal.apart.ends
        self._have: dict[int, int] = {}  # by run: how much of its file some standby has
        self._theirs: dict[int, int] = {}  # and how long a standby's own is: good enough for STATUS
        self._forget_at = self._look_at = TOLD_TOGETHER
        self._waiting: dict[int, trio.Event] = {}  # by run: that one has more of it
        self._followers: list[Asker] = []
        self._is_filling = threading.Lock()  # two may give the same
        core.holds = self._holds
        token = trio.lowlevel.current_trio_token()
        journal.apart.on_dropped = lambda *about: token.run_sync_soon(self._note_dropped, *about)

    async def run(self) -> NoReturn:
        """Until cancelled."""
        async with trio.open_nursery() as self._nursery:
            await trio.sleep_forever()
        raise AssertionError

    def _note_dropped(self, run: int, size: int, node: str) -> None:
        """The disk was full: nobody can copy that, and no ACK waits for it."""
        self._ends.pop(run, None)
        self._tell([run])
        self._core.insist(TellUnwritten(run, size, node))

    async def copied(self) -> None:
        """Returns when some standby has all there is, or none is there; or after a second."""
        with trio.move_on_after(COPIED_S):
            for run in list(self._ends):
                await self._until_copied(run)

    def uncopied(self) -> int:
        """How many bytes no other node is known to have. Blocking, for a thread."""
        known = self._theirs | self._have
        return sum(max(0, size - known.get(run, 0)) for run, size in apart.sizes(self._directory).items())

    @property
    def _standbys(self) -> int:
        """How many have output copied now: one that is frozen is waited for by nobody."""
        since_s = trio.current_time() - AWAKE_S
        return sum(each.heard_s > since_s for each in self._followers)

    def _is_uncopied(self, run: int) -> bool:
        return self._ends.get(run, 0) > self._have.get(run, 0)

    def _wanted_of(self, theirs: Collection[int]) -> list[int]:
        """Of another's files those that may hold what records here tell of, and ours do not."""
        return [run for run in theirs if run in self._lacks.runs and self._lacks.check(run)]

    def _holds(self, worker: str, line: str) -> bool:
        """Whether a line to a worker leaves later."""
        if not (self._ends and line.startswith("ACK ")):
            return False
        run = int(line.split(" ")[1])
        if len(self._ends) > self._look_at:  # some were lost, and no report came
            for gone in self._ends.keys() - self._core.state.runs.keys():
                del self._ends[gone]
            self._look_at = 2 * len(self._ends) + TOLD_TOGETHER
        if self._standbys and self._is_uncopied(run):
            self._nursery.start_soon(self._send_later, worker, line, run)
            return True
        self._ends.pop(run, None)
        return False

    async def _send_later(self, worker: str, line: str, run: int) -> None:
        await self._until_copied(run)
        self._ends.pop(run, None)
        self._core.send(worker, line)
        self._core.wake()

    async def _until_copied(self, run: int) -> None:
        with trio.move_on_after(COPIED_S):
            while self._standbys and self._is_uncopied(run):
                await self._waiting.setdefault(run, trio.Event()).wait()
        self._tell([run])

    def _tell(self, runs: Iterable[int]) -> None:
        """Wakes who waits for these: they look again."""
        for run in runs:
            if run in self._waiting:
                self._waiting.pop(run).set()

    async def serve(self, connection: Connection, sealed: Sealed) -> None:
        """Answers a node until it leaves."""
        asker = Asker()
        try:
            with trio.move_on_after(SILENT_S) as patience:
                while data := await connection.receive_some():
                    for question in sealed.feed(data):
                        asker.heard_s = trio.current_time()
                        patience.deadline = asker.heard_s + SILENT_S
                        await send(connection, sealed.seal(await self._answer(question, asker)))
        except OSError as error:
            log.debug("a node left: %s", error)
        finally:
            close(asker.state)
            if asker.given:
                asker.given.close()
            if asker.follows:
                self._followers.remove(asker)
            self._tell(list(self._waiting))

    async def _answer(self, question: bytes, asker: Asker) -> bytes:
        head, _, data = question.partition(b"\n")
        word, *more = head.decode().split(" ")
        if word in ("BEAT", "HAVE", "HERE") and not asker.follows:
            asker.follows = True
            self._followers.append(asker)
        if word in ("STATE", "PAST", "READ", "GAPS", "PUT", "FILL"):
            return await in_thread(self._about_past, asker, data, word, *map(int, more))
        if word == "BEAT" and asker.offered not in (-1, self._lacks.looks):
            return b"HERE"
        if word == "HERE":
            asker.offered = self._lacks.looks
            lacks = await in_thread(self._wanted_of, _note(self._theirs, more))
            return " ".join(map(str, lacks)).encode()
        if word == "GIVE":
            run = int(more[0])
            added = await in_thread(apart.merge, self._directory, run, data)
            if run in self._ends:  # what is taken meanwhile stands behind that
                self._ends[run] += added
            await in_thread(self._lacks.check, run)
        if word == "HAVE":
            self._tell(_note(self._have, more))
        if len(self._have) + len(self._theirs) > self._forget_at:
            sizes = await in_thread(apart.sizes, self._directory)
            for table in self._have, self._theirs:
                for run in table.keys() - sizes.keys():
                    del table[run]
            self._forget_at = 2 * (len(self._have) + len(self._theirs)) + TOLD_TOGETHER
        if word == "OUTPUT":
            return await in_thread(apart.piece, self._directory, *map(int, more))
        return self._core.now().isoformat().encode() if word == "CLOCK" else b""

    def _about_past(self, asker: Asker, data: bytes, word: str, *numbers: int) -> bytes:
        if word == "GAPS":
            return orjson.dumps([self._journal.form, gaps(self._directory)])
        if word == "PUT":
            self._keep(asker, data)
        elif word == "FILL":
            self._fill(asker, *numbers)
        else:
            return self._read(asker, word, *numbers)
        return b""

    def _keep(self, asker: Asker, data: bytes) -> None:
        asker.given = asker.given or TemporaryFile(dir=self._directory)  # noqa: SIM115  # `_fill` closes it
        _check_room(self._directory, asker.given.tell() + len(data))
        asker.given.write(data)

    def _fill(self, asker: Asker, first: int, last: int) -> None:
        given, asker.given = asker.given, None
        assert given
        with given, self._is_filling:
            given.seek(0)
            if any(begins <= first <= last <= ends for begins, ends in gaps(self._directory)):
                self._lacks.fill(first, last, iter(partial(given.read, PIECE_BYTES), b""))
                log.info("the history of records %d to %d was given by another node", first, last)

    def _read(self, asker: Asker, word: str, number: int = 0, offset: int = 0) -> bytes:
        if word == "READ":
            return asker.state[number].piece(offset)
        close(asker.state)
        asker.state, journal = [], self._journal
        if word == "STATE":
            upto, asker.state = open_whole(self._directory, journal.open_segment, journal.form)
            return orjson.dumps({"upto": upto, "sizes": [part.size for part in asker.state]})
        if (past := open_past(self._directory, journal.open_segment, number, journal.form)) is None:
            return b""
        first, last, part = past
        asker.state = [part]
        return orjson.dumps([first, last, part.size])


def _check_room(directory: Path, size: int) -> None:
    if disk_usage(directory).free < size + MARGIN_BYTES:
        raise OSError(f"{directory}: the disk's room is left to what comes")


def _note(table: dict[int, int], words: Iterable[str]) -> dict[int, int]:
    """The sizes that a node tells of; the largest that any has told stand in the table then."""
    told = {int(run): int(size) for run, _, size in (each.partition(":") for each in words)}
    table.update((run, max(size, table.get(run, 0))) for run, size in told.items())
    return told


async def in_thread(function: Callable[..., T], *args: Any) -> T:
    """What blocks; whoever is cancelled waits for it no longer."""
    return await call_in_thread(function, *args, abandon_on_cancel=True)
