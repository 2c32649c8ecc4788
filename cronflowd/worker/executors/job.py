"""What an executor is given and what it gives back: an order, a job, an ending.

An `Order` is one RUN line as values, with the `Account` of this machine that it runs as. A `Job`
is an order that takes time: it has an output and can be ended from outside. `Ended` becomes the
DONE line. Nothing in here knows of sockets or processes, so an executor can be tried by handing
it a job and looking at it.
"""

from __future__ import annotations

import logging
import os
import pwd
import signal
from collections.abc import Awaitable, Callable
from functools import cached_property
from pathlib import Path

import trio
from attrs import define, field, frozen

from ...base.errors import Refusal
from ...base.masks import Mask
from ...base.text import escape, format_option, split_command, split_options
from .output import Output

log = logging.getLogger(__name__)

NOT_RUNNABLE = 126  # the shell's code for: found, but it cannot be run
NOT_FOUND = 127  # the shell's code for: there is no such command
SIGNAL_BASE = 128  # the shell's way to tell signal N as an exit code: 128 + N
MAX_WHY = 4000  # characters of a remark; escaped, one becomes six at most


@frozen
class Account:
    """A user of this machine, as cron would start something for him."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]  # all that he is in
    home: str  # `/` where his own is not there

    @property
    def is_other(self) -> bool:
        """Whether the worker has to change to him."""
        return self.uid != os.geteuid()

    @property
    def environ(self) -> dict[str, str]:
        return {"HOME": self.home, "LOGNAME": self.name, "USER": self.name}


def find_account(name: str) -> Account:
    """Raises OSError where there is no such user."""
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise FileNotFoundError(f"there is no user {name} here") from None
    groups = tuple(os.getgrouplist(name, found.pw_gid))
    home = Path("/", found.pw_dir)  # without the root, an empty one would be where the worker is
    return Account(name, found.pw_uid, found.pw_gid, groups, str(home) if home.is_dir() else "/")


@define
class Order:
    """One attempt of a run, as the daemon orders it."""

    key: str  # `<run> <attempt>`, just as they travel; what the worker files everything under
    options: dict[str, str]
    command: str

    @property
    def run(self) -> str:
        return self.key.partition(" ")[0]

    @property
    def attempt(self) -> str:
        return self.key.partition(" ")[2]

    @property
    def type(self) -> str:
        return self.options.get("type", "shell")

    @cached_property
    def mask(self) -> Mask | None:
        """What hides the secrets that stand in it, if there are any."""
        values = [(key[7:], text.encode()) for key, text in self.options.items() if key.startswith("secret.")]
        return Mask(values) if values else None

    @cached_property
    def account(self) -> Account | None:
        """Whose it is, where user= says so. Raises OSError where there is no such user."""
        user = self.options.get("user")
        return find_account(user) if user else None

    @property
    def cwd(self) -> str:
        """Where it starts; empty = where the worker is. As with cron, that is the user's home."""
        return self.options.get("cwd") or (self.account.home if self.account else "")

    @property
    def timeout_s(self) -> float:
        """How long it may take; infinite when the order does not say. Raises Refusal."""
        text = self.options.get("timeout", "inf")
        try:
            seconds = float(text)
        except ValueError:
            seconds = -1.0
        # Written so that a NaN is refused too.
        if not seconds >= 0:
            raise Refusal("bad-option", f'timeout="{escape(text)}" is no number of seconds')
        return seconds


def parse_order(text: str) -> Order:
    """The rest of a RUN line, after `RUN `. Raises Refusal (`syntax`, `bad-option`)."""
    head, found, command = text.partition(" :")
    try:
        if found and '"' not in head and "{" not in head and head.isascii():
            # By far the most orders: no quote, so every blank stands between two words.
            run, attempt, *words = head.split()
            return Order(f"{run} {attempt}", dict([word.split("=", 1) for word in words]), command)
        head, command = split_command(text)
        run, attempt, *rest = head.split(None, 2)
    except ValueError:
        raise Refusal("syntax", "not of the form <run> <attempt> key=value … :<command>") from None
    options, unread = split_options(rest[0] if rest else "")
    if unread:
        raise Refusal("syntax", f'"{escape(unread[:40])}" is no key=value word')
    return Order(f"{run} {attempt}", options, command)


@frozen
class Ended:
    """How an attempt ended."""

    exit: int  # 0 is success; 128 + N when signal N ended it
    why: str = ""  # a remark for the run's LOG: why it could not be started
    signal: int = 0  # the signal that ended it, 0 if none did
    timed_out: bool = False
    lost: bool = False  # that it began is all that is known
    said: str = ""  # one line of output, of an executor that answers at once


def ended_by_signal(job: Job) -> Ended:
    """The end of a job without a process that was told to end: as one that TERM has ended."""
    return Ended(SIGNAL_BASE + signal.SIGTERM, signal=signal.SIGTERM, timed_out=job.timed_out)


def cannot_start(code: int, why: str) -> Ended:
    return Ended(code, why=f"cannot start: {why}")


def end_of_fault(job: Job, error: Exception) -> Ended:
    """Whatever goes wrong in here ends one job only."""
    log.error("run %s failed inside the worker", job.order.run, exc_info=error)
    return Ended(NOT_RUNNABLE, why=f"a fault of the worker: {error!r}")


def format_done(key: str, ended: Ended, omitted: int = 0, mask: Mask | None = None) -> str:
    """The DONE line, with its line end, and without what the mask hides."""
    words = [f"DONE {key} {ended.exit}"]
    if ended.signal:
        words.append(f"signal={ended.signal}")
    if ended.timed_out:
        words.append("timeout=1")
    if ended.lost:
        words.append("lost=yes")
    if omitted:
        words.append(f"omitted={omitted}")
    if ended.why:
        why = mask.hide_text(ended.why) if mask else ended.why
        # What somebody else's server says may be long, and the line must not be too long.
        words.append(format_option("why", escape(why[:MAX_WHY])))
    return " ".join(words) + "\n"


Work = Callable[["Job"], Awaitable[Ended]]


@define(eq=False)
class Job:
    """An order being carried out."""

    order: Order
    output: Output
    grace_s: float  # from TERM to KILL
    on_started: Callable[[], None] = lambda: None
    # They are told the job: who held it for them would keep what it wrote until garbage is looked for.
    on_ended: Callable[[Job, Ended], None] = lambda *_: None  # for what has been begun, and has no task
    on_long: Callable[[Job, Work], None] = lambda *_: None  # makes a task of it, which ends it
    on_kill: Callable[[], None] = lambda: None  # for what has no task yet
    is_started: bool = False
    killed: bool = False  # KILL came, or this worker was told twice to end
    # Ends when the job must: by its deadline (the timeout) or because somebody cancels it.
    life: trio.CancelScope = field(factory=trio.CancelScope)
    # From TERM to KILL; cancelled to cut the wait short.
    grace: trio.CancelScope = field(factory=trio.CancelScope)

    def __attrs_post_init__(self) -> None:
        self.output.mask = self.order.mask

    def start(self) -> None:
        """Says that it has started, and lets its time run."""
        self.is_started = True
        if "timeout" in self.order.options:
            self.life.deadline = trio.current_time() + self.order.timeout_s
        self.on_started()

    def kill(self) -> None:
        """Asks it to end; what takes no notice is killed after the grace."""
        # A KILL that comes after the timeout, as the daemon's own does, changes nothing.
        if not self.life.cancel_called:
            self.killed = True
            self.life.cancel()
            self.on_kill()

    def kill_now(self) -> None:
        """Ends it without any grace."""
        self.kill()
        self.grace.cancel()

    @property
    def timed_out(self) -> bool:
        return self.life.cancelled_caught and not self.killed


@frozen
class Executor:
    """One row of the table: how jobs of one type are carried out."""

    # Begins it. What has no end yet then says it by `on_ended`, or has a task made of it by `on_long`.
    begin: Callable[[Job], Ended | None]
    # For what needs no waiting: the ending itself, or None for an order that does take
    # time after all. Thousands of such orders a second cost no task and no STARTED.
    at_once: Callable[[Order], Ended | None] | None = None


def as_task(work: Work) -> Callable[[Job], None]:
    """To begin what waits for something all the time."""
    return lambda job: job.on_long(job, work)
