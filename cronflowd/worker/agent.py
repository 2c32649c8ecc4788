"""The worker program: dials in, carries out what it is told, reports until it is heard.

Three things live apart from each other. *Jobs* end when they end: no link and no daemon
is needed for that. *Reports* are kept, in memory and in the spool, until the daemon has
acknowledged them. The *link* comes and goes; what is said over it is gathered from the
other two by one writer, all there is at once, so a batch of orders costs one send.

Leaving has one rule, `_may_go`: no job, and nothing left that the daemon could still say
or hear, unless the link is gone; then the spool remembers.
"""

from __future__ import annotations

import gc
import logging
import math
import os
import random
import re
import signal
from collections import deque
from collections.abc import Iterable
from typing import NoReturn

import trio
from attrs import define, field

from .. import __version__
from ..base.errors import Exit, Fatal, Refusal, reasons
from ..base.proofs import WORKER, Check, Forged, Handshake, key_name, key_of, make_nonce
from ..base.text import escape, format_option, format_time
from ..host import threads
from ..host.clock import steady_now, wall_now
from ..host.config import WorkerSettings
from ..host.secrets import read_tokens
from ..host.vault import read_verifier
from ..net.lines import MAX_ORDER_BYTES, Item, LineReader
from ..tasks.kinds import WHOSE
from .executors import custom, make_table
from .executors.job import (
    NOT_RUNNABLE,
    SIGNAL_BASE,
    Ended,
    Executor,
    Job,
    Order,
    Work,
    cannot_start,
    end_of_fault,
    format_done,
    parse_order,
)
from .executors.output import Output, format_output
from .executors.processes import WORKER_MARK, kill_left
from .reports import Reports
from .rules import Rules
from .silence import Silence
from .spool import Spool
from .ways import Ways
from .welcome import NotWelcomeError, Terms, believe, dial, hello_lines, parse_terms

log = logging.getLogger(__name__)

FIRST_DELAY_S = 0.2  # between two attempts to connect; doubles with each, chosen at random below
MAX_DELAY_S = 5.0
MAX_BUSY_DELAY_S = 20.0  # where another one of this name is connected
ANSWER_WAIT_S = 10.0  # to connect, and then for the answer to HELLO
GOODBYE_WAIT_S = 10.0  # for the last acknowledgements, when everything else is done
BEATS_MISSED = 3  # a daemon silent for so many heartbeats is gone
FEW_JOBS = 500  # while there are more, garbage is hardly ever looked for among all of them
GARBAGE_LOOKS, MANY_LOOKS = 10, 1_000  # among what is young, before one among all: with few jobs, with more
BEGUN_A_TURN = 16  # jobs; and so many are ended
BEGUN_S = 0.02  # or as many as this takes
LINES_A_TURN = 500  # of the daemon's
READ_BYTES = 256 * 1024
UNFINISHED_S = 1.0  # after this a line that has no end yet is shown all the same
MAX_OUTBOX_LINES = 10_000  # a daemon that does not read is not read either
KILLED = "its worker was killed while it ran; what it wrote last may be missing"
LEFT = "; its processes that were still running have been killed"
REFUSED_FOR_GOOD = ("denied", "auth-required")


@define(eq=False)
class Link:
    """A connection that was answered OK."""

    stream: trio.abc.Stream
    heard_s: float  # on trio's clock
    rtt_s: float  # from the last HELLO or BEAT to its OK
    check: Check | None = None  # what every order has to stand, where the daemon has proved itself
    is_doubtful: bool = False  # an order of the daemon's may not have come as it was sent
    beaten_s: float = -math.inf
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    # Here the writer sleeps, and the reader, where it is full.
    work: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)
    room: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)
    why: str = ""  # why it was lost
    # Of each BEAT whose OK has not come yet: when it was said, and how much of each output was before it.
    unanswered: deque[tuple[float, dict[str, int]]] = field(factory=deque)

    def lose(self, why: str) -> None:
        self.why = self.why or why
        self.scope.cancel()


class Agent:
    """One worker: its jobs, its reports, and the link when there is one."""

    def __init__(self, settings: WorkerSettings, spool: Spool, parent: int) -> None:
        self.settings = settings
        self.ways = Ways(settings.connect)
        self.spool = spool
        self.table = make_table(settings)
        self.parent = parent  # the process that started this one; matters to a local worker
        self.terms = Terms()
        self.jobs: dict[str, Job] = {}  # by `<run> <attempt>`, as everything below
        self.reports = Reports(spool)
        self.outbox: list[str] = []  # all other lines that can be sent
        self.link: Link | None = None
        self.is_leaving = False
        self.gone = trio.Event()
        self.fatal: Fatal | None = None  # why the daemon will have none of us
        self.was_welcome = False
        self.rules = Rules(settings)
        self._check: Check | None = None  # of the session that begins
        self._tokens: tuple[bytes, ...] = ()  # as their file holds them at this try
        self._denied = 0  # of them, in a row
        self._is_busy = False  # its name is, as the daemon says
        self._pause = trio.CancelScope()  # between two attempts to connect
        self.silence = Silence(settings.silent_after_s, settings.silent_hook, self.ways.text)
        self._is_impatient = False
        self._has_told_why = False  # it does not leave
        self._new: deque[Job] = deque()  # taken on, and not begun yet
        self._taken = trio.lowlevel.ParkingLot()  # who begins them sleeps here
        self._ending = trio.Semaphore(BEGUN_A_TURN)  # of those that end at one moment: so many a turn
        self._nursery: trio.Nursery

    async def run(self) -> None:
        """Works until it may go; `fatal` then says whether it had to."""
        running = self.reports.load()
        left = await kill_left(self.spool.instance, running) if running else ()
        for key in running:
            log.warning("run %s attempt %s was running when this worker was killed", *key.split())
            why = KILLED + LEFT * (key in left)
            self.reports.end(key, format_done(key, Ended(NOT_RUNNABLE, why=why, lost=True)))
        self.reports.keep(())
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._begin_jobs)
            nursery.start_soon(self._keep_connected)
            nursery.start_soon(self.silence.watch)
            await self.gone.wait()
            nursery.cancel_scope.cancel()
        self.reports.keep(self.jobs)

    # --- orders -----------------------------------------------------------------------

    def act(self, items: Iterable[Item]) -> None:
        """Carries out a batch of the daemon's lines."""
        for item in items:
            if isinstance(item, Refusal):
                log.error("the daemon sent a line that cannot be read: %s", item)
                continue
            verb, _, rest = item.partition(" ")
            if verb in ("RUN", "KILL") and self.link and self.link.check:
                rest = self._opened(item, self.link, self.link.check)
                if not rest:
                    continue
            if verb == "RUN":
                self._take(rest)
            elif verb == "ACK":
                self.reports.acknowledge(rest)
            elif verb == "KILL":
                self._kill(rest)
            elif verb == "OK" and self.link and self.link.unanswered:
                said_s, taken = self.link.unanswered.popleft()
                if self.link.check and rest.startswith("n="):
                    self.link.is_doubtful |= rest != f"n={self.link.check.last}"
                self.link.rtt_s = max(0.0, self.link.heard_s - said_s)
                self.reports.confirm(taken)
            elif verb == "ERR":
                log.warning("the daemon says: %s", escape(item))
        self.reports.flush(self.jobs)
        if self._new:
            self._taken.unpark_all()
        self._wake_writer()
        self._look_for_garbage()
        self._go_if_possible()

    def _look_for_garbage(self) -> None:
        """Among all there is, which takes as long as there are jobs."""
        if gc.get_count()[2] >= (GARBAGE_LOOKS if len(self.jobs) < FEW_JOBS else MANY_LOOKS):
            gc.collect()

    def _opened(self, line: str, link: Link, check: Check) -> str:
        """An order without its seal; empty where it is refused."""
        try:
            return check.open(line, steady_now())
        except Forged as forged:
            # What the daemon believes to have sent, and did not come, is found out by a new HELLO.
            link.is_doubtful |= forged.needs_hello
            if match := _KEY.match(line):
                self._refuse(match[1], forged.code, str(forged))
            else:
                log.error("the daemon sent an order without a run: %s", forged)  # noqa: TRY400  # no bug
            return ""

    def _refuse(self, key: str, code: str, why: str) -> None:
        """Says that an order is not carried out; of a run that it has already, beside that."""
        log.error("an order for run %s, attempt %s is refused (%s): %s", *key.split(), code, why)
        held = " held=yes" * (key in self.jobs or key in self.reports)
        text = f"REFUSED {key} {code}{held} {format_option('why', escape(why))}\n"
        if not held:
            self.reports.end(key, text)
        self.outbox.append(text)

    def _take(self, text: str) -> None:
        """One RUN line: begin the job, or be done with it right away."""
        try:
            order = parse_order(text)
            key = order.key
            if key in self.jobs or key in self.reports:
                return  # the daemon asks again for what we already have
            if against := self.rules.against(order):
                self._refuse(key, *against)
                return
            executor = self.table.get(order.type)
            if executor is None:
                self._report(key, cannot_start(NOT_RUNNABLE, f"this worker runs no {order.type} jobs"))
            elif executor.at_once and (ended := executor.at_once(order)):
                self._report(key, ended)
            else:
                self._begin(order)
        except Refusal as refusal:
            log.error("the daemon sent an order that cannot be read: %s", refusal)  # noqa: TRY400  # no bug
            self._take_unreadable(text, refusal.message)
        except Exception as error:
            log.exception("a run could not be begun")
            self._take_unreadable(text, f"a fault of the worker: {error!r}")

    def _take_unreadable(self, text: str, why: str) -> None:
        # The daemon waits for an end of this run; only without its number is there none to give.
        words = text.split(None, 2)[:2]
        if len(words) == 2 and all(word.isdecimal() for word in words):
            self._report(" ".join(words), cannot_start(NOT_RUNNABLE, why))

    def _kill(self, key: str) -> None:
        if job := self.jobs.get(key):
            job.kill()
        elif text := self.reports.once_more(key):
            self.outbox.append(text)

    # --- jobs -------------------------------------------------------------------------

    def _begin(self, order: Order) -> None:
        order.options[f"env.{WORKER_MARK}"] = self.spool.instance
        key, _ = order.key, order.timeout_s  # refuses a bad timeout= before there is a job
        output = Output(
            order.run,
            self.terms.output,
            lambda output: self._has_output(key, output),
            lambda output: self._nursery.start_soon(self._show_unfinished, output),
            trio.current_time,
        )
        job = Job(
            order,
            output,
            self.terms.grace_s,
            lambda: self._say(f"STARTED {key}\n"),
            self._end,
            lambda job, work: self._nursery.start_soon(self._run_job, job, work),
        )
        self.jobs[key] = job
        self.spool.accept(key)
        self._new.append(job)

    async def _begin_jobs(self) -> None:
        """Begins what was taken on, once that is written, and not so much at once that all others wait."""
        while True:
            if self._new:
                await trio.lowlevel.checkpoint()
            else:
                await self._taken.park()
            until = trio.current_time() + BEGUN_S
            for _ in range(min(len(self._new), BEGUN_A_TURN)):
                job = self._new.popleft()
                if ended := _begun(job, self.table[job.order.type]):
                    self._end(job, ended)
                if trio.current_time() > until:  # where the machine is so busy that one takes long
                    break

    async def _run_job(self, job: Job, work: Work) -> None:
        try:
            ended = await work(job)
        except Exception as error:  # noqa: BLE001  # it is this job's end
            ended = end_of_fault(job, error)
        async with self._ending:
            self._end(job, ended)

    def _end(self, job: Job, ended: Ended) -> None:
        key = job.order.key
        del self.jobs[key]
        job.output.end()
        line = format_done(key, ended, job.output.omitted, job.order.mask)
        self.reports.end(key, line)
        self.reports.flush(self.jobs)
        if key not in self.reports.waiting:
            self._say(line)
        self._go_if_possible()

    def _has_output(self, key: str, output: Output) -> None:
        self.reports.waiting[key] = output
        self._wake_writer()

    async def _show_unfinished(self, output: Output) -> None:
        """Lets lines go out whose end does not come; there while there are any, and then gone."""
        with trio.CancelScope() as scope:
            output.on_end = scope.cancel
            while (since := output.unfinished_since) is not None:
                await trio.sleep_until(since + UNFINISHED_S)
                output.show(trio.current_time() - UNFINISHED_S)
        output.is_watched = False

    def _report(self, key: str, ended: Ended) -> None:
        """The end of a run that never was a job; `act` writes and sends it with its batch."""
        text = format_done(key, ended)
        if ended.said:
            text = format_output(key.partition(" ")[0], 1, ended.said.encode() + b"\n") + text
        self.reports.end(key, text)
        self.outbox.append(text)

    # --- what is said -----------------------------------------------------------------

    def _say(self, line: str) -> None:
        """Sends a line, if there is a link; reports are said again over the next one."""
        if self.link:
            self.outbox.append(line)
            self._wake_writer()

    def _wake_writer(self) -> None:
        if self.link and self.link.work:
            self.link.work.unpark_all()

    def gather(self) -> str:
        """All lines that can be sent now, as one text; of output no more than a batch."""
        texts, self.outbox = self.outbox, []
        return "".join(texts + self.reports.gather())

    def hello(self, *head: str) -> str:
        """All that it is and holds, behind `head`; and at once BYE of one that takes no runs any more."""
        settings = self.settings
        words = [*head, f"slots={settings.slots}", "can=" + ",".join(self._abilities())]
        if users := self.rules.users:
            words.append("users=" + ",".join(users))
        if settings.label:
            words.append("labels=" + ",".join(f"{key}={value}" for key, value in settings.label))
        words += ["held=all", f"instance={self.spool.instance}", f"version={__version__}"]
        held = [key.replace(" ", ":") for key in [*self.jobs, *self.reports]]
        lines = hello_lines(words, held)
        return "\n".join(lines + ["BYE"] * self.is_leaving) + "\n"

    def _abilities(self) -> list[str]:
        """The types it can do, with stdin= and without; of `custom`, each handler by its name."""
        names = custom.names(self.settings.handlers) if "custom" in self.table else ()
        kinds = [kind for kind in self.table if kind != "custom"]
        with_stdin = [f"{kind}+stdin" for kind in WHOSE["stdin"] if kind in self.table]
        return [*kinds, *with_stdin, *(f"custom:{name}" for name in names)]

    # --- the link ---------------------------------------------------------------------

    async def _keep_connected(self) -> None:
        """Connects, again and again; ends only with the worker."""
        delay_s, told = FIRST_DELAY_S, set[str]()
        while True:
            if self._is_orphan and not self.jobs:
                self.leave()
            tried_s = trio.current_time()
            why = await self._connect_once()
            had_link, self.link = self.link is not None, None
            if had_link:
                self.reports.keep(self.jobs)  # with what could be sent until now
            self._go_if_possible()
            told = told if not had_link else set()
            if (what := f"{self.ways.text}: {why}") not in told and not self.gone.is_set():
                log.warning("%s; trying again until it works", what)
            told.add(what)  # once, however often it is tried
            if self.ways.go_on(had_link) and not self.gone.is_set():
                continue
            # A daemon that takes us and drops us at once is no reason to hurry.
            if trio.current_time() - tried_s > MAX_DELAY_S or self.ways.are_many:
                delay_s = FIRST_DELAY_S
            # All of it is random, so that a thousand workers do not come back as one.
            with trio.CancelScope() as self._pause:
                await trio.sleep(random.uniform(0, delay_s))
            delay_s = min(2 * delay_s, self._longest_delay_s())

    def _longest_delay_s(self) -> float:
        if self.settings.local and not self._is_busy:
            return FIRST_DELAY_S  # the daemon's successor may need what we hold, and the way is short
        if self.jobs or self.reports:
            return min(MAX_DELAY_S, self.terms.lease_s / 3)
        return MAX_BUSY_DELAY_S if self._is_busy else MAX_DELAY_S

    async def _connect_once(self) -> str:
        """One connection from its beginning to its end; returns why it ended."""
        try:
            wait_s = self.ways.patience_s(ANSWER_WAIT_S)
            with trio.fail_after(wait_s), threads.wanted():  # for a host's name
                stream = await dial(self.settings, self.ways.at)
            async with stream:
                reader = LineReader(MAX_ORDER_BYTES)
                self._check, said_s = None, trio.current_time()
                with trio.fail_after(wait_s):
                    await self._greet(stream, reader)
                now = trio.current_time()
                return await self._talk(Link(stream, now, now - said_s, self._check), reader)
        except trio.TooSlowError:
            return f"no answer within {wait_s:g} s"
        except OSError as error:
            return f"cannot connect: {reasons(error)}"
        except trio.BrokenResourceError:
            return "the connection broke"
        except NotWelcomeError as reason:
            return str(reason)
        except Fatal as fatal:
            # Jobs are not ended for it: they run on, and so do the attempts to connect. And whoever was
            # let in before may have read a token file that was just being written.
            if fatal.status == Exit.REFUSED or not self.was_welcome:
                self.fatal = fatal
            return fatal.message

    async def _greet(self, stream: trio.abc.Stream, reader: LineReader) -> None:
        """HELLO and its answer. Raises NotWelcomeError and Fatal."""
        name = format_option("name", self.settings.name)
        if self.settings.token_file:
            handshake = await self._prove(stream, reader, name)
            hello = self.hello("PROVE", handshake.proof(WORKER))
        else:
            hello = self.hello("HELLO", name)
        await stream.send_all(hello.encode())
        first = await _answer(stream, reader)
        word, _, rest = first.partition(" ")
        self._check_refusal(word, rest)
        if word != "OK":
            raise NotWelcomeError(f'the first answer was "{escape(first[:40])}", neither OK nor ERR')
        terms = parse_terms(rest)
        if not self.ways.welcome(terms.epoch):
            raise NotWelcomeError(f"it leads in epoch {terms.epoch}, and epoch {self.ways.epoch} has begun")
        self.terms, self.fatal, self.was_welcome, self._denied = terms, None, True, 0
        terms.heartbeat_s = self.ways.heartbeat_s(terms.heartbeat_s)
        self._is_busy = False

    async def _prove(self, stream: trio.abc.Stream, reader: LineReader, name: str) -> Handshake:
        """Has the daemon show that it knows the token; what it orders from then on has to show it too."""
        settings = self.settings
        assert settings.token_file
        self._tokens = read_tokens(settings.token_file)
        key = key_of(self._tokens[self._denied % len(self._tokens)])
        nonce, begun_s = make_nonce(), steady_now()
        await stream.send_all(f"HELLO {name} key={key_name(key)} nonce={nonce}\n".encode())
        answer = await _answer(stream, reader)
        word, _, rest = answer.partition(" ")
        self._check_refusal(word, rest)
        if (handshake := believe(settings.name, key, nonce, answer)) is None:
            self._denied_once("the daemon does not know this worker's token, or it is another daemon")
        is_signed = read_verifier(settings.order_key) if settings.order_key else None
        self._check = Check(handshake, begun_s, is_signed)
        return handshake

    def _check_refusal(self, word: str, rest: str) -> None:
        if word == "ERR":
            why = f"the daemon refuses this worker: {escape(rest)}"
            self._is_busy = rest.startswith("busy ")
            if rest.startswith("not-leader "):
                self.ways.hear(rest.split()[1])
            if rest.partition(" ")[0] in REFUSED_FOR_GOOD:
                self._denied_once(why)
            raise NotWelcomeError(why)

    def _denied_once(self, why: str) -> NoReturn:
        """With this token; the next one is tried next. Raises NotWelcomeError, and Fatal after the last."""
        self._denied += 1
        if self._denied >= len(self._tokens):
            raise Fatal(Exit.REFUSED, f"{self.ways.text}: {why}")
        raise NotWelcomeError(why)

    async def _talk(self, link: Link, reader: LineReader) -> str:
        """Orders in and reports out, until the connection is lost; returns why it was."""
        log.info("%s: connected as %s", self.ways.text, self.settings.name)
        self.link = link
        self.silence.end()
        self.reports.is_linked = True
        self.reports.resume(self.terms.had, self.jobs)
        self.outbox.clear()
        self._beat(link)
        self.outbox += [f"STARTED {key}\n" for key, job in self.jobs.items() if job.is_started]
        self.outbox += self.reports.unsaid()
        with link.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, link)
                nursery.start_soon(self._watch_silence, link)
                nursery.start_soon(self._read, link, reader)
        return link.why

    async def _read(self, link: Link, reader: LineReader) -> None:
        try:
            while True:
                self.act(reader.take(LINES_A_TURN))
                while len(self.outbox) > MAX_OUTBOX_LINES:
                    await link.room.park()
                if reader.has_lines:
                    await trio.lowlevel.checkpoint()
                else:
                    data = await link.stream.receive_some(READ_BYTES)
                    if not data:
                        link.lose("the daemon closed the connection")
                    link.heard_s = trio.current_time()
                    self.silence.end()
                    reader.feed(bytes(data))
        except trio.BrokenResourceError:
            link.lose("the connection broke")

    async def _write(self, link: Link) -> None:
        """The only writer of a connection: sends all there is, then sleeps until there is more."""
        try:
            while True:
                while not (self.outbox or self.reports.waiting):
                    if link.is_doubtful:
                        link.lose("an order did not come as it was sent")
                    await link.work.park()
                text = self.gather()
                link.room.unpark_all()
                await link.stream.send_all(text.encode())
        except trio.BrokenResourceError:
            link.lose("the connection broke")

    async def _watch_silence(self, link: Link) -> None:
        """Shows life, the time and the way's length at every heartbeat; gives up a daemon that is silent."""
        heartbeat_s = self.terms.heartbeat_s
        while True:
            now = trio.current_time()
            if now >= link.heard_s + BEATS_MISSED * heartbeat_s:
                link.lose(f"the daemon was silent for {BEATS_MISSED * heartbeat_s:g} s")
            if now >= link.beaten_s + heartbeat_s:
                self._beat(link)
            gone_s = link.heard_s + BEATS_MISSED * heartbeat_s
            await trio.sleep_until(min(link.beaten_s + heartbeat_s, gone_s))

    def _beat(self, link: Link) -> None:
        # How long the answer took tells how old the time was that the last BEAT told.
        rtt = "" if link.unanswered else f" rtt={link.rtt_s:.4f}"
        link.beaten_s = trio.current_time()
        link.unanswered.append((link.beaten_s, self.reports.taken()))
        self._say(f"BEAT now={format_time(wall_now())}{rtt}\n")

    def hurry(self) -> None:
        """Tries to connect now, with the token that its file holds now."""
        self._pause.cancel()

    # --- leaving ----------------------------------------------------------------------

    def leave(self) -> None:
        """Takes no more runs and goes when the last one has ended; asked again, ends them."""
        if self.is_leaving:
            if self.jobs:
                self._nursery.start_soon(self._end_jobs)
            return
        self.is_leaving = True
        log.info("leaving; %d jobs are still running", len(self.jobs))
        if self.link:
            self._say("BYE\n")
            self._beat(self.link)
        self._go_if_possible()

    async def _end_jobs(self) -> None:
        for number, key in enumerate(list(self.jobs)):
            if job := self.jobs.get(key):
                job.kill_now()
            if number % BEGUN_A_TURN == 0:
                await trio.lowlevel.checkpoint()

    def _may_go(self) -> bool:
        if self.jobs:
            return False
        if self.fatal and not self.reports:
            return True
        # An order may have crossed our BYE. The BEAT after it is answered after it was
        # read, so once that OK is here no order can be under way any more.
        return self.is_leaving and (not self.link or not (self.reports or self.link.unanswered))

    def _go_if_possible(self) -> None:
        if not self.jobs and not self.is_leaving and self._is_orphan:
            self.leave()
        elif self._may_go() and self._leaves_all():
            self.gone.set()
        elif self.is_leaving and not (self.jobs or self._is_impatient or self.gone.is_set()):
            self._is_impatient = True
            self._nursery.start_soon(self._lose_patience)

    async def _lose_patience(self) -> None:
        await trio.sleep(GOODBYE_WAIT_S)
        self._is_impatient = False
        if not self.jobs and self._leaves_all():
            self.gone.set()
        self._go_if_possible()

    def _leaves_all(self) -> bool:
        """Whether whoever comes after finds what is still to be told; a full disk may have room later."""
        if self.reports:
            self.reports.keep(self.jobs)
        if not (self.reports and self.spool.is_refused):
            return True
        if not self._has_told_why:
            where = self.spool.directory
            log.warning("staying until the daemon has the ends of all jobs, or %s can keep them", where)
        self._has_told_why = True
        return False

    @property
    def _is_orphan(self) -> bool:
        """Whether the daemon that started this local worker has gone; a lost link alone does not tell.

        Its successor takes us back, with our jobs and with new ones, since the worker it
        brings has to wait for our spool. It gets its turn when no job is running here.
        A node of a cluster that begins anew is the same process, and keeps us.
        """
        return self.settings.local > 0 and os.getppid() != self.parent


_KEY = re.compile("(?:RUN|KILL) ([0-9]{1,15} [0-9]{1,15})(?= |$)")


async def _answer(stream: trio.abc.Stream, reader: LineReader) -> str:
    """The line that comes next. Raises NotWelcomeError where none does."""
    while True:
        data = await stream.receive_some(READ_BYTES)
        if not data:
            raise NotWelcomeError("the daemon closed the connection without an answer")
        reader.feed(bytes(data))
        if items := reader.take(1):
            return str(items[0])


def _begun(job: Job, executor: Executor) -> Ended | None:
    """Has the executor begin it; returns its ending where it has one already."""
    if job.killed:
        return Ended(SIGNAL_BASE + signal.SIGTERM, why="killed before it started", signal=signal.SIGTERM)
    try:
        return executor.begin(job)
    except Exception as error:  # noqa: BLE001  # it is this job's end
        return end_of_fault(job, error)
