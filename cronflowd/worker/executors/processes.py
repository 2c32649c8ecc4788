"""Processes as jobs: started in a session of their own, watched, ended with all they left.

Rules for this file. A job's process is not reaped before it has been dealt with, so that
its number cannot mean another process. Nothing here waits without a bound for anything but
the job itself: a process left behind may hold the pipe for as long as it lives.

Whoever calls setsid leaves the group, and whoever forks twice leaves the tree too: its
parent is then the nearest subreaper, which is this worker once it has called
`become_subreaper`. Such a process is known by the run's name in its environment.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import os
import select
import signal
import subprocess
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import trio
from attrs import define, evolve, field, frozen

from ...host.clock import steady_now
from ...tasks.reasons import in_words, reason
from .job import NOT_FOUND, NOT_RUNNABLE, SIGNAL_BASE, Ended, Job, Order, cannot_start, end_of_fault

READ_BYTES = 64 * 1024  # all that a pipe holds
EVENTS_A_TURN = 64  # of all processes, before something else gets its turn
READS_A_TURN = 16  # of all pipes together, and at least one of each
PIPE_GRACE_S = 0.5  # how long is read on after a process has ended
LOOK_AGAIN_S = 0.05  # between two looks at what is left of a job being ended
ADOPTED_PAUSE_S = 1.0  # how often, at most, adopted processes are reaped
MAX_NAMED = 5  # processes that a job left behind
OOM_AGE_S = 0.2  # to look at the kernel's count takes as long as to begin a process
KILL_ROUNDS = 100  # a job that forks faster than it is killed is given up after so many looks
PR_SET_CHILD_SUBREAPER = 36
T = TypeVar("T")
MARKS = (b"CRONFLOW_RUN_ID=", b"CRONFLOW_ATTEMPT=")
WORKER_MARK = "CRONFLOW_WORKER"  # whose it is: there may be several workers here, of daemons that count alike

# Processes of jobs that are not reaped yet, by their number: everything else that ends here was adopted.
_own: dict[int, Child] = {}


class Watch:
    """All that comes of all jobs' processes, awaited as one: a short job costs no wait of its own."""

    def __init__(self) -> None:
        self._events = select.epoll()
        self._children: dict[int, Child] = {}  # by descriptor
        self._look: Look | None = None  # that will be taken
        self._turn = trio.Lock()  # one after the other

    def open(self, child: Child) -> None:
        for fd in child.awaited:
            self._events.register(fd, select.EPOLLIN)
        self._children.update(dict.fromkeys(child.awaited, child))

    def close(self, child: Child, fd: int) -> None:
        # First unwatched: a job that just begins has a copy of it for a moment, which would count.
        self._events.unregister(fd)
        del self._children[fd], child.awaited[fd]
        os.close(fd)

    async def members(self, child: Child) -> list[int]:
        """All living processes of a job, as they are from now on.

        To look takes as long as there are processes, so all share a look who ask before it begins.
        """
        if look := self._look:
            await look.asked.park()
            return look.members.get(child.pid, [])
        look = self._look = Look()
        with trio.CancelScope(shield=True):  # for the others' sake
            async with self._turn:
                self._look = None
                # Where no descriptor is left, a job's group is known all the same.
                with contextlib.suppress(OSError):
                    look.members = await _members()
            while look.asked:
                look.asked.unpark(count=EVENTS_A_TURN)
                await trio.lowlevel.checkpoint()
        return look.members.get(child.pid, [])

    async def run(self) -> None:
        try:
            while True:
                await trio.lowlevel.wait_readable(self._events)
                events = self._events.poll(0, EVENTS_A_TURN)
                for fd, _ in events:
                    if child := self._children.get(fd):
                        child.take(fd, READS_A_TURN // len(events) or 1)
        finally:
            for child in set(self._children.values()):
                child.abandon()
            self._events.close()


@define
class Look:
    """At all processes of this machine."""

    asked: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)  # who else waits for it
    members: dict[int, list[int]] = field(factory=dict)  # of jobs' processes: all living ones of the job


_watch_var = trio.lowlevel.RunVar[Watch]("watch")


def _watch() -> Watch:
    try:
        return _watch_var.get()
    except LookupError:
        _watch_var.set(watch := Watch())
        trio.lowlevel.spawn_system_task(watch.run)
        return watch


@define(eq=False)
class Child:
    """A job's process: the leader of a session and of a group."""

    pid: int
    job: Job
    oom_kills: int  # as they were before it
    # Of its two outputs those that somebody still holds: by descriptor, which it is. And 0 for its end.
    awaited: dict[int, int]
    watch: Watch
    has_ended: bool = False
    fault: Exception | None = None  # of ours, with what it wrote
    _wake: Callable[[], object] = lambda: None  # when it has ended, and when its outputs have after that

    def take(self, fd: int, reads: int) -> None:
        """Takes what has come of it."""
        if self.awaited[fd]:
            self._read(fd, reads)
        else:
            self.has_ended = True
            self.watch.close(self, fd)
            for pipe in list(self.awaited):
                self._read(pipe, READS_A_TURN)
        if self.has_ended:
            self._wake()

    def _read(self, pipe: int, reads: int) -> None:
        for _ in range(reads):
            try:
                data = os.read(pipe, READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                self.watch.close(self, pipe)
                return
            if not self.fault:
                try:
                    self.job.output.feed(self.awaited[pipe], data)
                except Exception as error:  # noqa: BLE001  # one job's fault is none of the others
                    self.fault = error
                    _signal(self, [], signal.SIGKILL)
            if len(data) < READ_BYTES and not self.has_ended:
                return

    def abandon(self) -> None:
        """Ends it, as this worker itself is breaking down: what nobody can report on must not go on."""
        _signal(self, [], signal.SIGKILL)
        self.reap()

    def reap(self) -> int:
        """Its exit code, minus N if signal N ended it; it must have ended, or be about to."""
        _, status = os.waitpid(self.pid, 0)
        _own.pop(self.pid, None)
        for fd in list(self.awaited):
            self.watch.close(self, fd)
        return os.waitstatus_to_exitcode(status)

    def leave_alone(self) -> None:
        """Without a task as long as it needs none: most jobs end before they are to, and leave nothing."""
        self._wake = self.job.on_kill = self._care
        if "timeout" in self.job.order.options:
            self._care()

    def _care(self) -> None:
        job, self._wake = self.job, lambda: None
        job.on_kill = self._wake
        if self.has_ended and not self.awaited:
            job.on_ended(job, _ended(self))
        else:
            job.on_long(job, lambda _: _see_to(self))

    async def wait(self, closed: bool = False) -> None:
        """Until it has ended, and is left unreaped; `closed`: until nobody holds its outputs any more."""
        while self.awaited if closed else not self.has_ended:
            woken = trio.Event()
            self._wake = woken.set
            await woken.wait()

    @property
    def marks(self) -> tuple[bytes, ...]:
        """The lines of its environment that name this run and attempt."""
        order = self.job.order
        return MARKS[0] + order.run.encode(), MARKS[1] + order.attempt.encode()


def begin_process(job: Job, argv: list[str], environ: dict[str, str], data: bytes = b"") -> Ended | None:
    """Starts a process, and sees to it until the job's `on_ended`; the ending of what cannot be started.

    `data` is what it reads.
    """
    child = _begin(job, argv, environ, data, ())
    if isinstance(child, Ended):
        return child
    child.leave_alone()
    return None


async def run_process(
    job: Job, argv: list[str], environ: dict[str, str], data: bytes, pass_fds: tuple[int, ...]
) -> Ended:
    """The same, for who waits for it."""
    child = _begin(job, argv, environ, data, pass_fds)
    return child if isinstance(child, Ended) else await _see_to(child)


def _begin(
    job: Job, argv: list[str], environ: dict[str, str], data: bytes, pass_fds: tuple[int, ...]
) -> Child | Ended:
    try:
        child = _spawn(job, argv, environ, data, pass_fds)
    except _UnwatchedError as error:
        why = f"it had begun, and was killed since it cannot be watched: {error}"
        return Ended(SIGNAL_BASE + signal.SIGKILL, why, signal.SIGKILL)
    except (OSError, ValueError) as error:
        return _explain(error, argv[0], job.order.cwd)
    job.start()
    return child


class _UnwatchedError(Exception):
    """A process runs, and nobody would see its end."""


async def _see_to(child: Child) -> Ended:
    """Waits until it has ended, by itself or not."""
    job = child.job
    try:
        with job.life:
            await child.wait()
        if job.life.cancelled_caught:
            await _end(job, child)
        if child.awaited:
            # A process left behind may hold the pipe for as long as it lives.
            with trio.move_on_after(PIPE_GRACE_S):
                await child.wait(closed=True)
        if child.awaited:
            job.output.remark(_tell_left_behind(await child.watch.members(child)))
    except BaseException:
        child.abandon()
        raise
    return _ended(child)


def _ended(child: Child) -> Ended:
    job, code = child.job, child.reap()
    if child.fault:
        return end_of_fault(job, child.fault)
    number = max(0, -code)
    ended = Ended(SIGNAL_BASE + number if number else code, signal=number, timed_out=job.timed_out)
    is_killed = ended.exit == SIGNAL_BASE + signal.SIGKILL and not job.life.cancel_called
    if is_killed and _may_be_oom(child):
        how = in_words(reason("signal", number=signal.SIGKILL)) if number else f"exit {code}"
        return evolve(ended, why=f"{how}; while it ran, the kernel killed a process here for want of memory")
    return ended


def _may_be_oom(child: Child) -> bool:
    """Whether the kernel killed more than is explained by others that ended so while this one ran.

    It counts for all jobs of this worker together, and what is killed otherwise is no want of memory.
    """
    others = max(child.oom_kills, _SEEN.told)
    if _oom_kills() <= others:
        return False
    _SEEN.told = others + 1
    return True


@functools.cache
def _memory_events() -> int:
    """Where the kernel counts what it kills for want of memory: in this worker's group, else everywhere."""
    with contextlib.suppress(OSError):
        group = Path("/proc/self/cgroup").read_text().rpartition("0::/")[2].strip()
        return os.open(Path("/sys/fs/cgroup", group, "memory.events"), os.O_RDONLY)
    return os.open("/proc/vmstat", os.O_RDONLY)


@define
class _OomKills:
    """How many there were when they were looked at last."""

    count: int = 0
    looked_s: float = -math.inf
    told: int = 0  # up to which of them jobs' ends are explained by them


_SEEN = _OomKills()


def _oom_kills(age_s: float = 0.0) -> int:
    """As they were no longer than so long ago."""
    if (now := steady_now()) - _SEEN.looked_s > age_s:
        with contextlib.suppress(OSError, ValueError):
            text = os.pread(_memory_events(), READ_BYTES, 0)
            _SEEN.count = int(text.partition(b"\noom_kill ")[2].partition(b"\n")[0])
            _SEEN.looked_s = now
    return _SEEN.count


def _spawn(
    job: Job, argv: list[str], environ: dict[str, str], data: bytes, pass_fds: tuple[int, ...]
) -> Child:
    ours, its = list[int](), list[int]()
    try:
        try:
            for _ in range(2):
                reads, writes = os.pipe()
                ours.append(reads)
                its.append(writes)
                os.set_blocking(reads, False)
            stdin = _nothing()
            if data:
                # Not a pipe: nobody has to stand by until the job has read it.
                stdin = os.memfd_create("input")
                its.append(stdin)
                os.pwrite(stdin, data, 0)
            kills, watch = _oom_kills(OOM_AGE_S), _watch()
            pid = _start(job.order, argv, environ, (stdin, its[0], its[1]), pass_fds)
        finally:
            for fd in its:  # before another one is opened: where these were the last, there is room for it
                os.close(fd)
        try:
            ours.insert(0, os.pidfd_open(pid))
            child = _own[pid] = Child(pid, job, kills, {fd: number for number, fd in enumerate(ours)}, watch)
            watch.open(child)
        except OSError as error:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            _own.pop(pid, None)
            raise _UnwatchedError(error.strerror) from error
        return child
    except BaseException:
        for fd in ours:
            os.close(fd)
        raise


@functools.cache
def _nothing() -> int:
    return os.open(os.devnull, os.O_RDONLY)


def _start(
    order: Order, argv: list[str], environ: dict[str, str], fds: tuple[int, ...], pass_fds: tuple[int, ...]
) -> int:
    cwd, account = order.cwd, order.account
    identity: dict[str, Any] = {}
    if account and account.is_other:
        identity = {"user": account.uid, "group": account.gid, "extra_groups": account.groups}
        for fd in fds[1:]:
            os.fchown(fd, account.uid, account.gid)  # or it could not open its own /dev/stdout
    if not (cwd or identity) and "/" in argv[0]:
        # Much cheaper, and it neither looks along PATH nor changes the directory or the user.
        given = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(fds)]
        given += [(os.POSIX_SPAWN_DUP2, fd, fd) for fd in pass_fds]
        return os.posix_spawn(
            argv[0],
            argv,
            environ,
            file_actions=given,
            setsid=True,
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
        )
    popen = subprocess.Popen(
        argv, env=environ, cwd=cwd or None, stdin=fds[0], stdout=fds[1], stderr=fds[2],
        start_new_session=True, pass_fds=pass_fds, **identity,
    )  # fmt: skip
    popen.returncode = 0  # it is waited for here
    return popen.pid


def _explain(error: OSError | ValueError, program: str, cwd: str) -> Ended:
    """Why there is no process, for people, with the shell's exit code for it."""
    if not isinstance(error, OSError):
        return cannot_start(NOT_RUNNABLE, str(error))
    of_cwd = bool(cwd) and error.filename == cwd
    what = f"directory {cwd}" if of_cwd else program
    missing = isinstance(error, FileNotFoundError)
    if missing and not of_cwd and "/" in program and Path(cwd, program).is_file():
        what = f"the interpreter that the first line of {program} names"
    return cannot_start(NOT_FOUND if missing else NOT_RUNNABLE, f"{what}: {error.strerror}")


def _tell_left_behind(pids: list[int]) -> str:
    names = []
    for pid in pids[:MAX_NAMED]:
        with contextlib.suppress(OSError):
            names.append(f"{Path(f'/proc/{pid}/comm').read_text().strip()} (pid {pid})")
    what = f"it left {', '.join(names) or 'a process'} behind, and its output open"
    return f"{what}: what is written there from now on is not kept, and ends the writer (SIGPIPE)"


# --- ending a job ---------------------------------------------------------------------


async def _end(job: Job, child: Child) -> None:
    """TERM, and after the grace KILL, to the group and to whoever left it."""
    _signal(child, await child.watch.members(child), signal.SIGTERM)
    job.grace.deadline = trio.current_time() + job.grace_s
    with job.grace:
        await child.wait()
        while await child.watch.members(child):  # noqa: ASYNC110  # no event tells the end of a whole group
            await trio.sleep(LOOK_AGAIN_S)
    with trio.CancelScope(shield=True):
        for _ in range(KILL_ROUNDS):
            members = await child.watch.members(child)
            _signal(child, members, signal.SIGKILL)
            if not members:
                break
            await trio.sleep(LOOK_AGAIN_S / 10)
        await child.wait()


def _signal(child: Child, members: list[int], number: int) -> None:
    # First the group; its leader is not reaped yet, so that number still means this group. What has become
    # another user's, as sudo does, is only waited for.
    for pid in (-child.pid, *members):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


@frozen
class Process:
    """One line of the process table."""

    pid: int
    parent: int
    group: int
    session: int


async def _members() -> dict[int, list[int]]:
    """All living processes of jobs, by a job's own: of its group, session, tree, or marked with its run."""
    below, owners = dict[int, list[Process]](), dict[int, int]()
    async for each in _in_turns(_processes()):
        if each is None:
            continue
        below.setdefault(each.parent, []).append(each)
        if own := next((pid for pid in (each.pid, each.group, each.session) if pid in _own), None):
            owners[each.pid] = own
    marked = {child.marks: pid for pid, child in _own.items()}
    async for each in _in_turns(_descendants(below)):
        if each.pid not in owners and (own := owners.get(each.parent) or marked.get(_marks(each.pid))):
            owners[each.pid] = own
    found: dict[int, list[int]] = {}
    async for pid in _in_turns(sorted(owners)):
        found.setdefault(owners[pid], []).append(pid)
    return found


async def _in_turns(items: Iterable[T]) -> AsyncIterator[T]:
    """All of them; now and then it is somebody else's turn."""
    rest = iter(items)
    while some := list(islice(rest, EVENTS_A_TURN)):
        for each in some:
            yield each
        await trio.lowlevel.checkpoint()


def _descendants(below: dict[int, list[Process]]) -> Iterator[Process]:
    """Those below this process, parents before children."""
    found = deque(below.get(os.getpid(), ()))
    while found:
        yield (process := found.popleft())
        found += below.get(process.pid, ())


def _processes() -> Iterator[Process | None]:
    """All processes of this machine that can be seen; None for each that has ended, which takes as long."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            # The name in brackets may itself hold brackets and blanks.
            stat = (entry / "stat").read_bytes().rpartition(b") ")[2]
            state, parent, group, session = stat.split()[:4]
            if state not in b"ZX":
                yield Process(int(entry.name), int(parent), int(group), int(session))
                continue
        yield None


def _marks(pid: int, names: Iterable[bytes] = MARKS) -> tuple[bytes, ...]:
    """The lines of its environment that name a run and an attempt."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        return tuple([next((line for line in lines if line.startswith(name)), b"") for name in names])
    return ()


async def kill_left(worker: str, runs: Iterable[str]) -> set[str]:
    """Kills what a killed worker left of these runs; those of which there was something.

    One that breaks down does the same (`Child.abandon`): nobody can report on it, and there may be
    another attempt soon. Of a session that is not the run's, as where a service began what the job asked
    it for, only that goes; and never what started this worker.
    """
    names = (*MARKS, b"%b=" % WORKER_MARK.encode())
    marks = {tuple(map(bytes.__add__, names, map(str.encode, (*key.split(), worker)))): key for key in runs}
    found, spared = set[str](), {os.getsid(0), os.getsid(os.getppid())}
    for _ in range(KILL_ROUNDS):
        everyone, sessions = dict[int, tuple[int, tuple[bytes, ...]]](), dict[int, str]()
        async for each in _in_turns(_processes()):
            if each and each.session not in spared:
                everyone[each.pid] = each.session, (told := _marks(each.pid, names))
                if key := marks.get(told):
                    sessions[each.session] = key
        if not sessions:
            break
        found.update(sessions.values())
        for pid, (session, told) in everyone.items():
            leader = everyone.get(session)
            # With an environment of its own choice it is known by its session, whose leader may have ended.
            is_within = session in sessions and not any(told) and (not leader or leader[1] in marks)
            if told in marks or is_within:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
        await trio.sleep(LOOK_AGAIN_S / 10)
    return found


# --- adopted processes ----------------------------------------------------------------


def become_subreaper() -> None:
    """From now on, whoever loses its parent below this process gets this one as parent."""
    # A kernel that refuses costs nothing but the reach of KILL.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def own_descriptors() -> None:
    """What this process was started with open is for no job; and no pipe of a job is called 0, 1 or 2."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)
    for number in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        with contextlib.suppress(OSError):  # that of the listing is closed by now
            os.set_inheritable(number, number <= 2)


def own_signals() -> None:
    """What this process was started passing over, as by a shell's `&`, ends a job all the same."""
    for number in (signal.SIGQUIT, signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)  # a handler is no job's


async def keep_reaping() -> NoReturn:
    """Takes leave of adopted processes as they end."""
    while True:
        # Every job's end sends the signal too, and to hear it costs as much as to read what a job writes.
        # So nobody listens for a second after one: nobody minds a zombie for so long.
        if reap_adopted():
            with trio.open_signal_receiver(signal.SIGCHLD) as signals:
                if reap_adopted():  # again: what ended before somebody listened
                    await anext(aiter(signals))
        await trio.sleep(ADOPTED_PAUSE_S)


def reap_adopted() -> bool:
    """Takes leave of adopted processes that have ended; False if some could not be got at.

    A job's own process is left to the job, whose exit status it is. The kernel shows only
    the first of those that have ended, so behind such a one others may be waiting.
    """
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return True
        if ended is None:
            return True
        if ended.si_pid in _own:
            return False
        os.waitpid(ended.si_pid, 0)
