"""One of several daemons on one etcd: it follows whoever leads, and leads when nobody does.

A node begins as a standby. It copies the records that a leader wrote, applies them, and so knows at any
moment what the leader knew; its doors carry everything to the leader (standby.py). When nobody leads it
claims to, in one transaction, and then reads what the last leader may still have written: nobody can
write any more but itself. From there on it is the daemon that it would be without a cluster, with two
differences: the journal asks etcd before it tells anybody, and nothing leaves unless the lease is
certain.

A leader that is not certain of its lease any more begins anew: the same process, the same ports, but no
memory and no connection. What it had decided and etcd had not taken never was.
"""

from __future__ import annotations

import hmac
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, closing, suppress
from hashlib import sha256
from itertools import chain, islice
from typing import Any, NoReturn

import orjson
import trio
from attrs import frozen
from msgspec.structs import replace

from .. import __version__
from ..ask import questions as q
from ..base.errors import Exit, Fatal, Refusal
from ..base.replies import Reply, Row, format_status
from ..base.text import format_time
from ..engine.facts import FACTS_VERSION, OutputReceived
from ..engine.state import State
from ..host import systemd
from ..host.clock import wall_now
from ..host.config import Settings
from ..host.disk import free_name
from ..host.setting import Address, format_address, parse_server
from ..host.vault import public_key
from ..journal.compaction import checkpoint_lines
from ..journal.etcd import Etcd, EtcdError, Lease, Unreachable, make_client, revoke, why_old
from ..journal.files import journal_dir, list_segments
from ..journal.gaps import Lacks
from ..journal.journal import exit_at_once
from ..journal.replay import Record, apply
from ..journal.shared import MAX_RECORDS, Deposed, Entry, Shared, changed_at, created_at, put, seq_in
from ..journal.shared_journal import MARK, SharedJournal, clear_unfinished, install, read_mark, write_mark
from ..net.clients import Session
from ..net.outbox import Gate
from . import roster
from .core import Core
from .peers import Backlog, Copies, Peer, Peers, ask_clock, in_thread

log = logging.getLogger("cronflowd.cluster")

AGAIN = "CRONFLOWD_BEGUN_ANEW"  # in the environment of a process that was a node before: its lease
OWED = "CRONFLOWD_OWED_ANSWER"
CLOCK_S = 10.0  # how often clocks are compared
AGAIN_S = 0.2  # between two tries to reach etcd
BELL_S = 5.0  # a watch that tells nothing for so long is begun anew
LOOK_S = 1.0  # how often a node looks without being told to, and tells how far it is
FIRST_LOOK_S = 0.5
APPLIED_AT_ONCE = 500  # facts, before others have their turn
ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104  # to refuse them


@frozen
class Leader:
    """Who leads."""

    node: str
    control: Address
    workers: Address

    @property
    def text(self) -> str:
        return format_address(self.control)


class FencedGate(Gate):
    """A gate that is shut as soon as this node cannot be sure that it leads."""

    lease: Lease | None = None  # while it leads
    on_shut: Callable[[str], object]

    @property
    def is_shut(self) -> bool:  # type: ignore[override]
        if self.lease is None or self.lease.is_certain:
            return False
        self.on_shut("it stood still for longer than its lease")
        return True


class Node:
    """This daemon's place in the cluster."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.name = settings.node
        self.token = secrets.token_hex(8)  # of this process's life, and nobody else's
        before = os.environ.pop(AGAIN, "")
        self.has_seen_leader = bool(before)
        self._owed = os.environ.pop(OWED, "")  # a connection, and who is to lead before it is answered
        self.shared = self._new_shared()
        self.committing = self._new_shared()  # the committer's own
        if before:  # no connection of then is left, so another may lead at once
            threading.Thread(target=self._let_go, args=(int(before),), daemon=True).start()
        self.gate = FencedGate()
        self.gate.on_shut = self.begin_anew
        self.is_cold = False  # nobody has led before us, as far as anybody knows who is there
        self.leader: Leader | None = None
        self._leader_changed = trio.Event()
        self.has_joined = trio.Event()
        self.has_looked = trio.Event()  # who leads is known, if anybody does
        self.epoch = 0
        self.secret = b""
        self.sockets: dict[str, list[int]] = {}
        self.lacks = Lacks(settings.data)
        self.copies = Copies(self.lacks, self.name)
        self.peers: Peers | None = None  # while it leads
        self.lease: Lease | None = None
        self._lease_s = settings.leader_lease_s
        self._bell = trio.Event()
        self._told: tuple[Any, ...] = ()  # what stands in etcd of us,
        self._told_revision = 0  # since this revision of it
        self._heard: str | None = None  # the last question of a leader that would have us lead
        self.clock_s: float | None = None  # how far ours is ahead of the leader's
        self._since = format_time(wall_now())
        self._leaderless_s = 0.0  # on trio's clock: since when
        self._is_over = False  # this process ends
        self.is_stopping = False  # it was told to
        self.is_named = False  # STEPDOWN has named us: who asked for it here is still to be answered
        self.known_last = 0  # the newest record that etcd has told of
        self.followed_at_s: float | None = None  # on trio's clock: when this node last knew all there was
        self._mark = read_mark(settings.data)
        self._directory = self._mark.get("directory") or secrets.token_hex(8)
        self._form = FACTS_VERSION  # of the cluster's records
        self._offered = secrets.token_hex(16)  # the cluster's identity, if it begins with this node
        clear_unfinished(settings.data)
        self._fill_empty()

    def _new_etcd(self, members: tuple[Address, ...] = ()) -> Etcd:
        return make_client(self.settings, members)

    def _new_shared(self) -> Shared:
        return Shared(self._new_etcd(), self.settings.cluster)

    def _fill_empty(self) -> None:
        """A directory without a journal begins with the state that etcd has, before it is read."""
        data = self.settings.data
        if list_segments(journal_dir(data)):
            return
        try:
            entry = self.shared.get(self.shared.cluster_key)
            if entry is None or not self.shared.snapshot_upto():
                return
            self._write_mark(orjson.loads(entry.value)["id"])
            self._fetch_state()
        except (Unreachable, EtcdError) as error:
            log.info("etcd: %s; the state is fetched later", error)
            clear_unfinished(data)

    # --- the end of a role ---

    def _let_go(self, lease: int) -> None:
        try:
            revoke(self._new_etcd(), lease)
        except Unreachable as error:
            log.warning("the lease stays until it ends by itself: %s", error)

    def begin_anew(self, why: str, owed: str = "") -> NoReturn:
        """Forgets everything, and is a standby; from any thread."""
        if self.is_stopping:
            log.warning("%s: this node ends", why)
            os._exit(Exit.OK)
        log.warning("%s: this node begins anew", why)
        if self.lease:
            self.lease.end()
        systemd.begin_anew(self.sockets, **{AGAIN: str(self.lease.id if self.lease else 0), OWED: owed})

    def on_fatal(self, error: Fatal) -> None:
        """The committer's last word."""
        if isinstance(error, Deposed):
            self.begin_anew(error.message)
        exit_at_once(error)

    def _on_lost(self, why: str) -> None:
        """The lease's thread's."""
        if self.epoch:
            self.begin_anew(why)
        log.warning("%s", why)

    def resign(self) -> None:
        """All is committed: another may lead."""
        self._is_over = True
        if self.lease:
            self.lease.end()
            self._let_go(self.lease.id)

    async def _step_down(self, question: q.StepDown, session: Session, core: Core) -> NoReturn:
        """Lets another lead, and begins anew; the answer leaves when the other does. Raises Refusal.

        The connection that asked outlives all others: it is handed to what we become.
        """
        if not self.epoch or self.lease is None:
            raise Refusal("not-leader", "none (this node does not lead)")
        try:
            us = self._about() | {"token": self.token}
            lead = self.epoch, self.lease.id
            heir = await in_thread(roster.heir, self.shared, us, *lead, question.node, core.last_seq)
            await in_thread(roster.name_heir, self.shared, heir)
        except (Unreachable, EtcdError) as error:
            raise Refusal("busy", f"etcd: {error}") from None
        if self.peers:
            await self.peers.copied()
        await core.settled(core.last_seq)
        core.journal.close()
        self.resign()
        answer = format_status(Reply(heir, {"node": heir}), session.as_json)
        if (handed := session.outbox.hand_over(answer.encode() + b"\n")) is None:
            self.begin_anew(f"{heir} is to lead")
        connection, words = handed
        os.set_inheritable(connection, True)
        self.begin_anew(f"{heir} is to lead", f"{connection} {heir} {words.hex()}")

    async def leave_to_one_with_room(self) -> None:
        """Lets another lead while this node's disk is full, if that one's is not."""
        if roomy := await in_thread(roster.roomy, self.shared, self.name):
            await in_thread(roster.name_heir, self.shared, roomy[0])
            self.resign()
            self.begin_anew(f"the disk of {self.settings.data} is full, and {roomy[0]} is to lead")

    async def pay_owed(self) -> None:
        """Answers a STEPDOWN as soon as the other leads; else the connection closes without a word."""
        if not self._owed:
            return
        fd, heir, answer = self._owed.split(" ")
        with socket.socket(fileno=int(fd)) as owed:
            owed.setblocking(False)
            with trio.move_on_after(roster.HEIR_S):
                while self.leader is None or self.leader.node != heir:
                    await self._leader_changed.wait()
                with suppress(OSError):
                    owed.send(bytes.fromhex(answer))

    # --- a standby ---

    async def stand_by(self, core: Core, journal: SharedJournal) -> None:
        """Returns when this node leads, and knows all that was."""
        await self._join(core.state, journal)
        self.has_joined.set()
        self._ring_when_changed()
        while True:
            systemd.notify("WATCHDOG=1")  # no heart beats here that could
            try:
                if await self._round(core, journal):
                    break
            except (Unreachable, EtcdError) as error:
                self._set_leader(None)
                log.debug("etcd: %s", error)
                await trio.sleep(AGAIN_S)
            with trio.move_on_after(LOOK_S):
                await self._bell.wait()
            self._bell = trio.Event()
        journal.lead(self.epoch, self._form)
        core.epoch = self.epoch
        self.gate.lease = self.lease

    async def _round(self, core: Core, journal: SharedJournal) -> bool:
        """Takes what is new; True: this node leads."""
        await self._follow(core, journal)
        if self.epoch:  # nobody else writes any more, and while we were cut off all may have changed
            await in_thread(self.check_cluster, journal.last)
            return True
        if self.lease is None or not self.lease.is_certain:
            await in_thread(self._enter)
        assert self.lease
        value = orjson.dumps(self._about() | {"token": self.token})
        leader = await self._look_and_tell(journal)
        if leader and (leader.value, leader.lease) != (value, self.lease.id):
            return False
        if not await self._may_lead(journal):
            return False
        self.is_cold = await self._is_first()
        epoch = await in_thread(self.shared.claim, self.lease.id, value)
        if epoch is None:
            return False
        # Set before the lease is asked: from now on its loss is the end of all we remember.
        self.epoch, self.has_seen_leader = epoch, True
        if not self.lease.is_certain:
            self.begin_anew("the lease ended as it was won")
        return await self._round(core, journal)

    async def _may_lead(self, journal: SharedJournal) -> bool:
        """Whether nobody else should rather."""
        if journal.full and any(await in_thread(roster.roomy, self.shared, self.name)):
            return False
        heir = await in_thread(roster.named, self.shared)
        self.is_named = heir == self.name
        if heir or trio.current_time() >= self._leaderless_s + self._lease_s:
            return self.is_named or not heir
        return not (self.is_clock_off or await in_thread(self._is_another_whole))

    def _is_another_whole(self) -> bool:
        """Whether another node has all of the past, and would have to give this one the rest first."""
        return not self.lacks.is_none and any(map(roster.is_whole, roster.present(self.shared).values()))

    async def _follow(self, core: Core, journal: SharedJournal) -> None:
        """Copies and applies what this node does not know yet."""
        while values := await in_thread(self.shared.fetch, journal.last + 1):
            systemd.notify("WATCHDOG=1")
            self.known_last = seq_in(values[-1][-1])
            for lines in values:
                if seq_in(lines[0]) > journal.last + 1:
                    await self._begin_with_snapshot(journal)
                await self._apply(core, await self._take(journal, lines))
        self.followed_at_s = trio.current_time()

    async def _take(self, journal: SharedJournal, lines: list[bytes]) -> list[Record]:
        taken: list[Record] | Fatal
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look_meanwhile, journal)
            try:
                taken = await in_thread(journal.take, lines)
            except Fatal as error:  # a nursery would wrap it
                taken = error
            nursery.cancel_scope.cancel()
        if isinstance(taken, list):
            return taken
        if taken.status == Exit.CONFIG:
            self._set_aside(taken.message)
        raise taken

    async def _look_meanwhile(self, journal: SharedJournal) -> None:
        """While the disk takes nothing: others must know that, and we who leads."""
        while True:
            await trio.sleep(LOOK_S)
            systemd.notify("WATCHDOG=1")
            with suppress(Unreachable, EtcdError):
                await self._look_and_tell(journal)

    async def _look_and_tell(self, journal: SharedJournal) -> Entry | None:
        """Who leads, if anybody does, is told how far we are, and that we are awake where it asks that."""
        await in_thread(self.tell, journal.committed, not journal.full)
        leader = await in_thread(self.shared.get, self.shared.leader_key)
        self._set_leader(leader)
        if self.leader and leader and (asks := orjson.loads(leader.value).get("asks")) != self._heard:
            self._heard = asks
            await in_thread(self.tell, journal.committed, not journal.full)
        return leader

    async def _apply(self, core: Core, records: list[Record]) -> None:
        for number, (seq, at, fact) in enumerate(records, 1):
            apply(core.state, fact, at, seq)
            core.last_seq = seq
            if type(fact) is OutputReceived and fact.apart:
                self.copies.want(fact.run, self.leader is not None and fact.apart[2] == self.leader.node)
            if number % APPLIED_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()

    async def _begin_with_snapshot(self, journal: SharedJournal) -> NoReturn:
        """etcd does not have what follows the last record here any more, but a state that is newer."""
        await in_thread(self._fetch_state, journal)
        self.begin_anew("the state was fetched")

    def _fetch_state(self, journal: SharedJournal | None = None) -> None:
        """Has this directory begin with the cluster's newest state, or, behind it, go on to there."""
        upto, chunks = self.shared.get_snapshot()
        last = journal.last if journal else 0
        if upto <= last:
            raise Fatal(Exit.CORRUPT, f"etcd lacks the records from {last + 1} on")
        log.info("this node begins with the cluster's state of record %d", upto)
        if chunks is not None:
            install(self.settings.data, upto, chunks, last=last)
            return
        leader, cluster = (self.shared.get(key) for key in (self.shared.leader_key, self.shared.cluster_key))
        if (there := self._read(leader)) is None or cluster is None:
            raise Unreachable("the state is too long for etcd, and no node leads that would give it")
        secret = orjson.loads(cluster.value)["secret"].encode()
        try:
            with closing(Peer(there.control, secret, self.name)) as peer:
                upto, chunks, lines = peer.state()
                if journal is None or upto > journal.last:
                    install(self.settings.data, upto, chunks, lines, last)
                else:
                    while some := list(islice(lines, MAX_RECORDS)):
                        journal.take(some)
        except OSError as error:
            raise Unreachable(f"{there.node} at {there.text} does not give its state: {error}") from error

    def _set_leader(self, entry: Entry | None) -> None:
        leader = self._read(entry)
        self.has_seen_leader |= leader is not None
        self.has_looked.set()
        if leader is None and (self.leader or not self._leaderless_s):
            self._leaderless_s = trio.current_time()
        if leader != self.leader:
            log.info("%s leads", leader.node if leader else "nobody")
        self.leader, changed = leader, self._leader_changed
        self._leader_changed = trio.Event()
        changed.set()

    async def look_first(self) -> str:
        """Who leads, for the first line, if etcd says it at once. Nobody is carried there before we join."""
        with trio.move_on_after(FIRST_LOOK_S), suppress(Unreachable, EtcdError):
            if leader := self._read(await in_thread(self.shared.get, self.shared.leader_key)):
                return leader.text
        return "none"

    def _read(self, entry: Entry | None) -> Leader | None:
        # What this name still stands for, of a life before, leads nowhere but to ourselves.
        if entry is None or (told := orjson.loads(entry.value))["node"] == self.name:
            return None
        return Leader(told["node"], _address(told["control"]), _address(told["workers"]))

    def _ring_when_changed(self) -> None:
        token, etcd, prefix = trio.lowlevel.current_trio_token(), self._new_etcd(), self.shared.prefix

        def watch() -> None:
            while not (self.epoch or self._is_over):
                try:
                    for _ in etcd.watch(prefix, BELL_S):
                        token.run_sync_soon(self._ring)
                except (Unreachable, EtcdError):
                    time.sleep(AGAIN_S)
                except trio.RunFinishedError:
                    return

        threading.Thread(target=watch, name="bell", daemon=True).start()

    def _ring(self) -> None:
        self._bell.set()

    def secret_for(self, what: bytes) -> bytes:
        """A word that all nodes know, and nobody else: `gateway` shows its own to whoever leads."""
        return hmac.new(self.secret, what, sha256).hexdigest().encode()

    # --- joining ---

    async def _join(self, state: State, journal: SharedJournal) -> None:
        """Becomes one of this cluster, as soon as etcd answers. Raises Fatal where it cannot."""
        why = ""
        while True:
            try:
                await in_thread(self._belong, state, journal)
                await in_thread(self._enter)
                return
            except (Unreachable, EtcdError, Deposed) as error:
                if str(error) != why:
                    log.warning("etcd: %s; trying again until it works", error)
                why = str(error)
            self.has_looked.set()  # nobody leads, as far as can be said
            await trio.sleep(AGAIN_S)

    def _belong(self, state: State, journal: SharedJournal) -> None:
        if why := why_old(self.shared.etcd.call("maintenance/status", {}).get("version", "")):
            log.warning("%s", why)
        if self.shared.get(self.shared.cluster_key) is None:
            self._found(state, journal)
        told, changed = self.check_cluster(journal.last)
        self._agree(told, changed)
        self._write_mark(told["id"])
        if self.shared.snapshot_upto() > journal.last and not self._has_next(journal.last):
            trio.from_thread.run(self._begin_with_snapshot, journal)
        self.secret, self._lease_s = told["secret"].encode(), told["lease_s"]

    def check_cluster(self, last: int) -> tuple[dict[str, Any], int]:
        """What all nodes have in common, and since when. Raises Fatal where it is not ours any more."""
        settings = self.settings
        entry = self.shared.get(self.shared.cluster_key)
        told: dict[str, Any] = orjson.loads(entry.value) if entry else {}
        if told.get("closed"):
            raise Fatal(Exit.CONFIG, f"the cluster {settings.cluster} was ended by `cronflowd cluster leave`")
        ours = self._mark.get("cluster")
        if told and told["id"] != self._offered and (ours != told["id"] if ours else last):
            self._set_aside(
                f"{settings.data}: it belongs to another history than the cluster"
                f" {settings.cluster} on {', '.join(map(format_address, settings.etcd))}."
                " --rejoin sets its journal aside"
            )
        known = self.shared.last()
        if last > known and entry:
            roster.tell_ahead(self.shared, entry, last, self.name)
        who, seen = (f"{settings.data}", last) if last > known else roster.ahead(told)
        if seen > known:
            why = (
                f"{who} knows record {seen}, and etcd only record {known}: it was restored to an older state"
            )
            raise Fatal(Exit.CORRUPT, why)
        if entry is None:
            raise Unreachable("the cluster's key is gone")
        self._form = roster.form_of(told)
        return told, entry.changed

    def _has_next(self, last: int) -> bool:
        values = self.shared.fetch(last + 1)
        return bool(values) and seq_in(values[0][0]) <= last + 1

    def _found(self, state: State, journal: SharedJournal) -> None:
        """The first node of all: what it knows is what the cluster begins with."""
        about = {
            "id": self._offered,
            "secret": secrets.token_hex(32),
            "tz": self.settings.tz,
            "lease_s": self.settings.leader_lease_s,
            "node": self.name,
            "form": FACTS_VERSION,
        }
        key = self.shared.cluster_key
        guard, first = [created_at(key, 0)], [put(key, orjson.dumps(about))]
        if not journal.last:
            self.shared.transact(guard, first)
            self._mark.pop("cluster", None)
            return
        chunks = checkpoint_lines(state, journal.last, journal.chain, state.told_at)
        if not self.shared.put_snapshot(journal.last, self.token, chunks, guard, first):
            log.warning("the state is too long for etcd: other nodes are given it by this one")
            self.shared.leave_snapshot(journal.last, guard, first)

    def _agree(self, told: dict[str, Any], changed: int) -> None:
        """Has what is to be the same on all nodes be so. Raises Fatal."""
        settings, shared, key = self.settings, self.shared, self.shared.cluster_key
        ours = {"tz": settings.tz, "orders": public_key(settings.data) if settings.sign_orders else ""}
        there = roster.present(shared).items()
        others = [name for name, about in there if about.get("directory") != self._directory]
        agreed = roster.agreed(told, ours, self.name, others)
        if (
            agreed != told
            and not shared.transact([changed_at(key, changed)], [put(key, orjson.dumps(agreed))]).done
        ):
            raise Unreachable("another node changed the cluster's key this moment")

    def _set_aside(self, why: str) -> NoReturn:
        """Another history stands here: the end, unless --rejoin was said."""
        if not self.settings.rejoin:
            raise Fatal(Exit.CONFIG, why)
        journal = journal_dir(self.settings.data)
        aside = free_name(journal.with_name("journal.aside"))
        journal.rename(aside)
        (self.settings.data / MARK).unlink(missing_ok=True)
        self.begin_anew(f"{journal} is set aside as {aside.name}")

    def _write_mark(self, identity: str) -> None:
        mark = {"cluster": identity, "directory": self._directory, "name": self.settings.cluster}
        if mark != self._mark:
            write_mark(self.settings.data, mark)
            self._mark = mark

    # --- being there ---

    def _enter(self) -> None:
        """Takes a lease, and puts this node's name on it. Raises Fatal where another one has the name."""
        shared, key = self.shared, self.shared.node_key(self.name)
        if (before := shared.get(key)) is not None:
            other = orjson.loads(before.value)
            if other.get("directory") != self._directory:
                both = f"{self.name} at {self._control} and one at {other['control']}"
                raise Fatal(Exit.CONFIG, f"node {both} have the same --node")
            # This directory is locked: whoever put it there is no more, and leads no more.
            revoke(shared.etcd, before.lease)
        lease = Lease(self._new_etcd(), self._lease_s, self._on_lost)
        lease.grant()
        self._told = ()
        about = self._told_of(0)
        told = shared.transact([created_at(key, 0)], [put(key, orjson.dumps(about), lease.id)])
        self._told_revision = told.revision
        if not told.done:
            raise Unreachable(f"the name {self.name} was taken this moment")
        roster.remember(shared, about)
        lease.keep()
        self.lease = lease

    def _about(self) -> dict[str, Any]:
        return {"node": self.name, "control": self._control, "workers": self._workers}

    def tell(self, seq: int, has_room: bool) -> None:
        """Says in etcd how far this node's own files are, whether they can grow, and what time it is here."""
        assert self.lease
        more = {"has_room": has_room, "whole": self.lacks.is_none}
        told = (self.lease.id, seq, self.has_seen_leader, self.clock_s, self._heard, more)
        if self._told != told:
            about = self._told_of(seq) | more
            key, shared = self.shared.node_key(self.name), self.shared
            self._told_revision = shared.replace(key, orjson.dumps(about), self.lease.id, self._told_revision)
            self._told = told

    def _told_of(self, seq: int) -> dict[str, Any]:
        return self._about() | {
            "version": __version__,
            "form": FACTS_VERSION,
            "seq": seq,
            "directory": self._directory,
            "since": self._since,
            "seen": self.has_seen_leader,
            "clock": self.clock_s,
            "heard": self._heard,
        }

    async def compare_clocks(self) -> NoReturn:
        """Measures now and then how far this node's clock is from the leader's."""
        while True:
            leader = self.leader
            if leader:
                with suppress(OSError):
                    self.clock_s = await in_thread(ask_clock, leader.control, self.secret, self.name)
                if self.is_clock_off:
                    log.warning("this node's clock is off from the leader's by %+.3f s", self.clock_s)
            await trio.sleep(CLOCK_S if leader else LOOK_S)

    async def copy(self, journal: SharedJournal) -> None:
        """Has long output copied from whoever leads, and what one of both lacks of the past."""
        await self.has_joined.wait()
        async with trio.open_nursery() as nursery:
            for each in self.copies, Backlog(self.lacks, self.name, journal):
                nursery.start_soon(
                    each.run, lambda: self.leader.control if self.leader else None, self.secret
                )

    @property
    def is_clock_off(self) -> bool:
        return roster.is_off(self.clock_s)

    def answer(self, question: Any, session: Session, core: Core) -> Reply | Coroutine[Any, Any, Reply]:
        """NODES, LOCAL and STEPDOWN, as the one that leads has them. Raises Refusal."""
        if isinstance(question, q.AnswerAlone):
            if session.is_carried:  # it is not the first line: that one stays where it was said
                raise Refusal("syntax", "LOCAL is the first line of a connection, before AUTH, too")
            session.is_session = session.is_local = True
            return Reply("leader", {"role": "leader"})
        return self.show() if isinstance(question, q.Alone) else self._step_down(question, session, core)

    def lag(self, core: Core) -> tuple[float, int]:
        """How many seconds ago this node knew all there was, and how many records have come since."""
        if self.epoch:
            return 0.0, 0
        if self.followed_at_s is not None:
            stale_s = trio.current_time() - self.followed_at_s
        else:  # not in this life: at its newest record
            stale_s = (core.now() - core.state.told_at).total_seconds()
        return round(max(0.0, stale_s), 1), max(0, self.known_last - core.last_seq)

    async def show(self) -> Reply:
        """NODES. Raises Refusal where etcd does not answer."""
        return Reply.counted(roster.COLUMNS, await in_thread(self._rows))

    def _rows(self) -> list[Row]:
        try:
            with closing(self._new_etcd()) as etcd:
                return roster.rows(Shared(etcd, self.settings.cluster))
        except (Unreachable, EtcdError) as error:
            raise Refusal("not-leader", f"none (etcd: {error})") from None

    async def tell_status(self, reply: Reply) -> Reply:
        """STATUS, with what there is to tell of the cluster."""
        return replace(reply, rows=chain(reply.rows, await in_thread(self._status_rows)))

    def _status_rows(self) -> list[tuple[str, Any]]:
        with ExitStack() as stack:
            every = self.each_member(stack)
            shared = Shared(stack.enter_context(closing(self._new_etcd())), self.settings.cluster)
            found = list(roster.status_rows(shared, self.name, self.settings.cluster, self.epoch, every))
        found.append(("lacking", self.lacks.words()))
        return [*found, ("output-uncopied", self.peers.uncopied() if self.peers else self.copies.uncopied)]

    def each_member(self, stack: ExitStack) -> list[Etcd]:
        """A client of each of etcd's members, while the stack is open."""
        return [stack.enter_context(closing(self._new_etcd((each,)))) for each in self.settings.etcd]

    async def _is_first(self) -> bool:
        """Whether no node that is there has seen a leader: then the cluster starts, as one daemon does."""
        others = await in_thread(roster.present, self.shared)
        return not (self.has_seen_leader or any(about.get("seen") for about in others.values()))

    def set_addresses(self, control: str, workers: str) -> None:
        """What others are told to dial. Raises Fatal."""
        settings = self.settings
        self._control = format_address(settings.advertise) if settings.advertise else control
        self._workers = format_address(settings.advertise_workers) if settings.advertise_workers else workers
        for flag, address in ("--advertise", self._control), ("--advertise-workers", self._workers):
            if address == "none" or _address(address)[0] in ANY_ADDRESS:
                raise Fatal(Exit.CONFIG, f"{flag} is needed: others cannot dial {address}")


def _address(text: str) -> Address:
    found = parse_server(text)
    assert isinstance(found, tuple)
    return found
