"""The daemon put together: directory, journal, doors, loop, and how all of it ends.

Start: lock the directory, replay, open the doors, say ready. End (TERM, INT): close the
doors, commit what was decided, write tasks.db, exit 0. Jobs run on in their workers.
"""

from __future__ import annotations

import gc
import logging
import os
import pwd
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import timedelta
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING

import trio
from attrs import evolve

from .. import __version__
from ..base.errors import Exit, Fatal, Refusal
from ..engine.definitions import finish
from ..engine.expectations import AT_ONCE
from ..engine.facts import TASKS_NAME
from ..engine.orders import RescheduleBeats, RescheduleTasks, StartDaemon
from ..engine.rules import Limits
from ..engine.state import State
from ..host import config, logs, secrets, systemd
from ..host.clock import Clock
from ..host.config import Settings
from ..host.disk import lock_directory
from ..host.setting import OPTIONAL_LISTENERS
from ..host.vault import Vault, read_signer
from ..journal.apart import Apart
from ..journal.files import RESTORED, journal_dir
from ..journal.journal import FileJournal
from ..journal.replay import apply
from ..journal.shared_journal import SharedJournal, check_alone
from ..net import listeners, tls
from ..net.clients import serve_client
from ..net.listeners import Connection, Door, Listener, share_descriptors
from ..net.poller import Knock
from ..net.workers import serve_worker
from ..schedules.schedule import reload_zones
from ..schedules.zones import data_version
from ..tasks.options import Common
from . import upkeep
from .answers import Answers
from .cluster import Node
from .core import Core
from .keeper import Keeper
from .peers import Peers, in_thread
from .roster import HEIR_S
from .sealed import meet
from .standby import Standby
from .turns import in_turns

if TYPE_CHECKING:
    from ..host.tls import ServerTls

log = logging.getLogger("cronflowd")

SAVED_HERE = "tasks.db.saved"  # in the directory of a node: which tasks.db it wrote last
WORKERS_SOCKET = "workers.sock"  # in the data directory: the local worker's door
PROGRESS_EVERY = 250_000  # replayed records
# A commit takes the interpreter from a busy loop four times, and the loop takes it from a thread that reads
# a file with each call of the system; Python's 5 ms each time would be 20 ms for every reply.
SWITCH_S = 0.0005
SIGNALS = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
# What orders leave is hardly ever a circle, and nobody who stays for long leaves one. So what is there twice
# when some was looked for is not looked at again, and in one go no more than 2,000 times 5 objects are: with
# four times as many, and what a thousand clients are made of beside them, that was a step of 70 ms.
GARBAGE = 2_000, 4
PARTING_S = 1.0  # for workers to close their side when the daemon stops
HANDOVER_S = 0.2  # to take and to close, where another leads then: for who is frozen it does not wait
EXPIRES_SOON = timedelta(days=14)  # from then on the end of a certificate is warned of
MAX_WARNINGS = 20  # of tasks that cannot be read
LAST_WORDS_S = 5.0  # for replies on their way when the daemon stops


def run(settings: Settings) -> int:
    """`cronflowd serve`; returns the exit status. Raises Fatal."""
    sys.setswitchinterval(SWITCH_S)
    return trio.run(_main, settings)


def keep(phase: str, found: dict[str, int]) -> None:
    """Has Python's collector pass over what it has looked at twice."""
    if phase == "stop" and found["generation"]:
        gc.freeze()


async def _main(settings: Settings) -> int:
    inherited = {
        name: [listeners.adopt_listener(fd) for fd in fds] for name, fds in systemd.inherited().items()
    }
    tokens = secrets.read_tokens(settings.token_file) if settings.token_file else ()
    with closing(lock_directory(settings.data)):
        return await Daemon(settings, tokens, inherited).serve()


class Daemon:
    """One daemon on one data directory."""

    def __init__(
        self, settings: Settings, tokens: tuple[bytes, ...], inherited: dict[str, list[Listener]]
    ) -> None:
        self.settings = settings
        self.inherited = inherited
        self.clock = Clock()
        self.node = Node(settings) if settings.etcd else None
        self.journal = self._make_journal()
        self.state = State(settings.tz, settings.recent_runs, _common(settings))
        self.state.access.vault = Vault(settings.data)
        self.is_new = self._replay()
        tcp = [each for each in chain(*inherited.values()) if each.kind == "tcp"]
        exposed = secrets.exposed(settings, [each.sock.getsockname()[:2] for each in tcp])
        secrets.check_doors(settings, exposed, lambda: self.state.access.has_admin(self.clock.now()))
        core = self.core = Core(self.state, self.journal, self.clock, _limits(settings), settings)
        core.tokens, core.own_uids = tokens, frozenset({0, os.geteuid()})
        core.asks_tcp = settings.require_auth or (exposed is not None and not settings.insecure)
        core.asks_local = settings.require_auth
        if self.node:
            core.use_gate(self.node.gate)
            core.gate.committed = self.journal.last
            assert isinstance(self.journal, SharedJournal)
            runs = self.state.runs
            self.journal.had = lambda run: runs[run].output_bytes if run in runs else 0
        self.answers = Answers(self.core, settings.data)
        self.answers.files.memory = settings.data / SAVED_HERE if self.node else None
        self.answers.node = self.node
        if self.node:
            self.answers.past.node, self.node.lacks.index = self.node.name, self.answers.past.index
        if settings.sign_orders:
            self.core.admission.sign = read_signer(settings.data)
        self._tls = _read_tls(settings)
        self._control, self._workers, self._http = list[Listener](), list[Listener](), list[Listener]()
        self._zones_read = trio.Event()
        self.compactor = upkeep.Compactor(self.core, self.answers.files.turn)

    def _make_journal(self) -> FileJournal:
        settings = self.settings
        if self.node is None:
            check_alone(settings.data)
            return FileJournal(settings.data, settings.segment)
        shared, on_fatal = self.node.committing, self.node.on_fatal
        apart = Apart(journal_dir(settings.data), settings.node, settings.output_copied)
        return SharedJournal(settings.data, settings.segment, shared=shared, apart=apart, on_fatal=on_fatal)

    def _set_limits(self, settings: Settings) -> None:
        """Of strangers; they may change with HUP."""
        self.core.settings = evolve(
            self.core.settings, max_failures=settings.max_failures, max_locked_lines=settings.max_locked_lines
        )
        for door in self.answers.doors:
            door.max_per_address = settings.max_per_address

    def _replay(self) -> bool:
        """Reads the journal; True when there was nothing in it."""
        gc.disable()  # nothing that is made here is garbage, and looking for some takes as long as reading
        count = 0
        for seq, at, fact in self.journal.replay():
            apply(self.state, fact, at, seq)
            count += 1
            if count % PROGRESS_EVERY == 0:
                log.info("replayed %d records of the journal", count)
        gc.freeze()
        gc.set_threshold(*GARBAGE)
        gc.callbacks.append(keep)
        gc.enable()
        return count == 0

    async def serve(self) -> int:
        """From ready to the end."""
        self._listen_for_commits()
        self._open_doors()
        # Between two roles, too, nobody ends us as if we had nothing to let go.
        with trio.open_signal_receiver(*SIGNALS) as signals:
            if self.node is None:
                await self._lead(signals)
            else:
                await self._serve_as(self.node, signals)
        return Exit.OK

    async def _serve_as(self, node: Node, signals: AsyncIterator[int]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_thread, node.lacks.look_back)
            if self.settings.local_worker:  # it goes on when another leads
                nursery.start_soon(
                    upkeep.keep_local_worker, self.settings, self.settings.data / WORKERS_SOCKET
                )
            if self._http:
                nursery.start_soon(self._keep_gateway_of, node)
            if await self._stand_by(node, nursery, signals):
                await self._lead(signals)
            nursery.cancel_scope.cancel()

    async def _lead(self, signals: AsyncIterator[int]) -> None:
        """From the start of one that decides to its end, which may come before it is ready."""
        is_ready = False
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as role:
                nursery.start_soon(self._end_role, signals, role)
                await self._begin()
                self._say_ready()
                is_ready = True
                nursery.start_soon(self._work)
                await trio.sleep_forever()
            if is_ready:  # else nobody has come yet
                await self._part()
            nursery.cancel_scope.cancel()
        await self._end()

    async def _keep_gateway_of(self, node: Node) -> None:
        """The HTTP door of a node: over its control socket it speaks to whoever leads."""
        await node.has_joined.wait()
        # Whoever has signed in at one node is known at all, so they sign with one key.
        words = b" ".join(map(node.secret_for, (b"gateway", b"web")))
        await upkeep.keep_gateway(self.settings, [each.sock for each in self._http], words)

    async def _stand_by(self, node: Node, parting: trio.Nursery, signals: AsyncIterator[int]) -> bool:
        """Follows until this node leads; False: it was told to end. Its connections end in `parting`."""
        assert isinstance(self.journal, SharedJournal)
        doors = self._control, self._workers
        node.set_addresses(*map(_first_tcp, doors))
        found = {"control": self._control, "workers": self._workers, "http": self._http}
        node.sockets = {
            name: [each.sock.fileno() for each in some if each.kind == "tcp"] for name, some in found.items()
        }
        standby = Standby(node, self.answers, self.settings, self._greet if self._tls else None)
        has_won = False
        async with trio.open_nursery() as nursery:
            again = [[each.again() for each in some] for some in doors]
            parting.start_soon(standby.serve, again[0], again[1])
            nursery.start_soon(self.compactor.run)
            nursery.start_soon(self._end_role, signals, nursery.cancel_scope)
            nursery.start_soon(node.compare_clocks)
            nursery.start_soon(node.copy, self.journal)
            nursery.start_soon(node.pay_owed)
            leader = await node.look_first()
            logs.say(f"cronflowd standby {self._where()} node={node.name} leader={leader}")
            systemd.notify("READY=1\nSTATUS=standby")
            await node.stand_by(self.core, self.journal)
            has_won = True
            standby.part(HEIR_S if node.is_named else 0.0)
            nursery.cancel_scope.cancel()
        if has_won:
            self.core.admission.gateway_token = node.secret_for(b"gateway")
            self.is_new = self.is_new and not self.journal.last
            self.core.look_anew()
        else:
            self.journal.close()
            node.resign()
        return has_won

    async def _end_role(self, signals: AsyncIterator[int], role: trio.CancelScope) -> None:
        """Ends it when this process is told to end."""
        await self._wait_for_end(signals)
        systemd.notify("STOPPING=1")
        role.cancel()

    def _listen_for_commits(self) -> None:
        def committed() -> None:
            self.core.committed(self.journal.committed)
            self.compactor.look()

        knock = Knock(committed)
        self.journal.notify = lambda seq: knock()

    # --- beginning ---

    def _open_doors(self) -> None:
        settings = self.settings
        control, workers = self.inherited.get("control", []), self.inherited.get("workers", [])
        control = control or listeners.open_listeners(settings.listen, OPTIONAL_LISTENERS)
        workers = workers or listeners.open_listeners(settings.listen_workers, OPTIONAL_LISTENERS)
        self._http = self.inherited.get("http", []) or listeners.open_listeners(settings.http)
        # Beyond the data directory others reach it, too: the kernel says who they are.
        mode = 0o600 if settings.socket.is_relative_to(settings.data) else 0o666
        self._control = [*control, listeners.open_unix(settings.socket, mode)]
        self._workers = [*workers, listeners.open_unix(settings.data / WORKERS_SOCKET)]

    async def _begin(self) -> None:
        """Journals the start; takes a tasks.db over where there is no journal yet."""
        last_at, now = self.state.decided_upto_at, self.core.now()
        if now < last_at:
            log.warning("the clock shows %s, but moments up to %s have been decided", now, last_at)
        finish(self.answers.files.find_calendars())
        restored = self.settings.data / RESTORED
        try:
            is_reboot = self.node is None or self.node.is_cold
            tz, zones = self.settings.tz, data_version()
            self.core.submit(StartDaemon(__version__, tz, restored.exists(), is_reboot, zones))
        except Refusal as refusal:
            raise Fatal(Exit.IO, f"the start cannot be journaled: {refusal.message}") from None
        # In a cluster it goes on beside all else, as it did where it was begun: nobody leads before we do.
        if self.node is None:
            await self.answers.files.large.finish_alone()
        self._warn_of_unread()
        self._warn_of_key()
        path = self.settings.data / TASKS_NAME
        if self.is_new and path.exists():
            try:
                with trio.CancelScope(shield=True):  # all of it: the next start would not take it over
                    await self.answers.files.load(path)
            except Refusal as refusal:
                raise Fatal(Exit.CORRUPT, refusal.message) from None
            log.info("%s: %d tasks taken over", path, len(self.state.tasks))
        self.answers.files.edited = await self.answers.files.is_edited()
        if self.answers.files.edited:
            log.warning(
                "%s was edited by hand; the journal goes on as it was, LOAD takes the file over", path
            )
        await self.core.settled(self.core.last_seq)
        restored.unlink(missing_ok=True)

    def _warn_of_unread(self) -> None:
        unread = self.state.unread
        for task in map(self.state.tasks.__getitem__, islice(unread, MAX_WARNINGS)):
            why = task.spec.unread and task.spec.unread.why
            log.warning(
                "task %d (%s) cannot be read, and starts nothing until SET mends it: %s",
                task.id,
                task.name,
                why,
            )
        if len(unread) > MAX_WARNINGS:
            log.warning("and %d more tasks cannot be read: LIST state=unreadable", len(unread) - MAX_WARNINGS)

    def _warn_of_key(self) -> None:
        access = self.state.access
        if why := access.key_trouble:
            which = "no" if len(access.closed) == len(access.secrets) else "not every"
            log.error("%s secret can be opened, and the runs that need one fail: %s", which, why)

    def _say_ready(self) -> None:
        where = self._where()
        where += f" http={_first_tcp(self._http)}" if self._http else ""
        where += f" node={self.node.name} epoch={self.node.epoch}" if self.node else ""
        logs.say(f"cronflowd ready {where}")
        systemd.notify(f"READY=1\nSTATUS={self.state.count_own()} tasks")
        log.info("serving %d tasks from %s", len(self.state.tasks), self.settings.data)
        log.info("zone data: %s", data_version())

    def _where(self) -> str:
        control, workers = map(_first_tcp, (self._control, self._workers))
        return f"control={control} workers={workers} pid={os.getpid()}"

    # --- the long middle ---

    async def _work(self) -> None:
        settings = self.settings
        serve_one = partial(serve_client, core=self.answers, settings=settings)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.core.run)
            nursery.start_soon(self.compactor.run)
            nursery.start_soon(self._feed_watchdog)
            nursery.start_soon(self._read_tasks_again)
            clients = Door(serve_one, settings.max_clients, "client connections")
            links = Door(partial(serve_worker, core=self.core), settings.max_workers, "worker connections")
            if self._tls:
                clients.greet = links.greet = self._greet
                nursery.start_soon(self._watch_certificate)
            if self.node:
                assert isinstance(self.journal, SharedJournal)
                peers = self.node.peers = Peers(self.core, self.journal, self.node.lacks)
                links.greet = partial(meet, secret=self.node.secret, greet=clients.greet)
                clients.greet = partial(links.greet, serve=peers.serve)
                nursery.start_soon(peers.run)
                nursery.start_soon(Keeper(self.node, self.journal).run)
            share_descriptors(clients, links)
            self.answers.doors = [clients, links]
            self._set_limits(settings)
            nursery.start_soon(clients.serve, self._control)
            nursery.start_soon(links.serve, self._workers)
            if settings.local_worker and self.node is None:
                nursery.start_soon(upkeep.keep_local_worker, settings, settings.data / WORKERS_SOCKET)
            if self._http and self.node is None:
                token = self.core.admission.gateway_token
                sockets = [each.sock for each in self._http]
                nursery.start_soon(upkeep.keep_gateway, settings, sockets, token)

    async def _greet(self, connection: Connection) -> Connection | None:
        assert self._tls
        return await tls.greet(connection, self._tls.context)

    async def _watch_certificate(self) -> None:
        """Says once a day that the certificate ends soon."""
        while True:
            assert self._tls
            self.core.certificate_until_at = self._tls.expires_at
            if self._tls.expires_at - self.core.now() < EXPIRES_SOON:
                log.warning("the TLS certificate ends %s: renew it, and send HUP", self._tls.expires_at)
            with trio.move_on_after(86_400.0):
                await self._zones_read.wait()

    async def _feed_watchdog(self) -> None:
        """The loop itself feeds systemd's watchdog: one that hangs is started again."""
        interval_s = systemd.watchdog_interval_s()
        if interval_s is None:
            return
        self.core.on_pass = lambda: systemd.notify("WATCHDOG=1")
        while True:
            await trio.sleep(interval_s / 3)
            self.core.wake()

    async def _wait_for_end(self, signals: AsyncIterator[int]) -> None:
        if self.node and self.node.is_stopping:  # it was told so as it won
            return
        async for number in signals:
            if number != signal.SIGHUP:
                log.info("%s: stopping", signal.Signals(number).name)
                for each in SIGNALS:  # whoever says it again does not cut that short
                    signal.signal(each, signal.SIG_IGN)
                if self.node:
                    self.node.is_stopping = True
                return
            self._reload()

    def _reload(self) -> None:
        """HUP: what can change while serving does; what is wrong leaves everything as it was."""
        systemd.notify("RELOADING=1")
        try:
            settings = config.reload(self.settings)
            tokens = secrets.read_tokens(settings.token_file) if settings.token_file else self.core.tokens
            read = _read_tls(settings)
            config.check_beside(settings)
        except Fatal as error:
            log.error("the settings stay as they were: %s", error.message)  # noqa: TRY400  # no bug, no traceback
        else:
            self.core.engine.limits = _limits(settings)
            self.core.admission.take_tokens(tokens)
            self._set_limits(settings)
            logs.set_up(settings.log_format, settings.log_level)
            in_force = "limits, notify, log, token" + (", TLS" if self._tls and read else "")
            log.info("settings read again: %s are in force, the rest at the next start", in_force)
            if bool(read) != bool(self._tls):
                log.warning(
                    "both ports go on %s TLS until the next start", "with" if self._tls else "without"
                )
            self._tls = self._tls and (read or self._tls)
        self.state.access.vault = Vault(self.settings.data)
        self._warn_of_key()
        reload_zones()
        log.info("zone data: %s", data_version())
        self._zones_read.set()

    async def _read_tasks_again(self) -> None:
        """After each HUP: all tasks are read with the zone data of today, and their moments found anew."""
        while True:
            await self._zones_read.wait()
            self._zones_read = trio.Event()
            await in_turns(self.state.parse_again())
            self._warn_of_unread()
            await in_turns(self.answers.files.find_calendars())
            self.core.insist(RescheduleTasks())
            names = list(self.state.beats.expected)
            for begin in range(0, len(names) if len(names) > AT_ONCE else 0, AT_ONCE):
                self.core.insist(RescheduleBeats(names[begin : begin + AT_ONCE]))
                await trio.lowlevel.checkpoint()
            log.info("all tasks were read again")
            systemd.notify("READY=1")

    # --- ending ---

    async def _part(self) -> None:
        """Begins nothing more, lets what was decided leave, and journals what did not."""
        core = self.core
        words_s, parting_s = (HANDOVER_S, HANDOVER_S) if self.node else (LAST_WORDS_S, PARTING_S)
        for door in self.answers.doors:
            door.shut()
        core.stop_deciding()
        # Whoever waits for an answer gets it: it leaves with the commit it waits for.
        with trio.move_on_after(LAST_WORDS_S):
            await core.settled(core.last_seq)
        with trio.move_on_after(words_s):
            async with trio.open_nursery() as nursery:
                for link in core.links.values():
                    nursery.start_soon(link.outbox.drained)
        for link in core.links.values():
            link.outbox.finish()
        # A worker that reads our end closes; whoever does not is left. Both ways its link tells what
        # never left it.
        with trio.move_on_after(parting_s):
            await core.parted()
        for link in list(core.links.values()):
            link.scope.cancel()
        if self.node and self.node.peers:
            await self.node.peers.copied()
        with trio.move_on_after(LAST_WORDS_S):
            await core.parted()

    async def _end(self) -> None:
        """Commits what was decided, and leaves a fresh tasks.db, unless somebody edited it."""
        try:
            with trio.move_on_after(LAST_WORDS_S) as patience:
                await self.core.settled(self.core.last_seq)
                # Not half of a LOAD: what is under way goes on after the next start.
                if not (self.state.unfinished.bulk or await self.answers.files.is_edited()):
                    await self.answers.files.save(self.settings.data / TASKS_NAME)
            if patience.cancelled_caught:
                log.warning(
                    "tasks.db was not written in time; the journal has everything, and SAVE writes it"
                )
        except Refusal as refusal:
            log.warning("tasks.db was not written: %s (the journal has everything)", refusal)
        finally:
            self.journal.close()
            if self.node:
                self.node.resign()


def _read_tls(settings: Settings) -> ServerTls | None:
    if not (settings.tls_cert or settings.tls_key or settings.tls_client_ca):
        return None
    from ..host.tls import read_tls  # a daemon without it does not pay for the libraries

    return read_tls(settings)


def _common(settings: Settings) -> Common:
    try:
        owner = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        owner = f"uid-{os.geteuid()}"
    return Common(settings.retry, settings.timeout_s, settings.overlap, settings.keep, owner)


def _limits(settings: Settings) -> Limits:
    told = settings.notify, settings.notify_limit, socket.gethostname()
    return Limits(settings.max_tasks, settings.lease_s, settings.output_limit, *told)


def _first_tcp(found: list[Listener]) -> str:
    return next((each.address for each in found if each.kind == "tcp"), "none")
