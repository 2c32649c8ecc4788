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
import os
import select
import signal
import subprocess
from pathlib import Path
from typing import Any

import trio
from attrs import define, evolve, field, frozen

from ...tasks.reasons import in_words, reason
from .job import NOT_FOUND, NOT_RUNNABLE, SIGNAL_BASE, Ended, Job, Order, cannot_start
from .output import Output

READ_BYTES = 64 * 1024  # all that a pipe holds
READS_A_TURN = 16  # of one pipe, before the others get theirs
PIPE_GRACE_S = 0.5  # how long is read on after a process has ended
LOOK_AGAIN_S = 0.05  # between two looks at what is left of a job being ended
MAX_NAMED = 5  # processes that a job left behind
KILL_ROUNDS = 100  # a job that forks faster than it is killed is given up after so many looks
PR_SET_CHILD_SUBREAPER = 36

# Processes of jobs that are not reaped yet: everything else that ends here was adopted.
_own: set[int] = set()


@define(eq=False)
class Child:
    """A job's process: the leader of a session and of a group.

    Its end and its two outputs are watched as one, so that a job which does little costs one wait.
    """

    pid: int
    pidfd: int  # readable once the process has ended
    pipes: dict[int, int]  # the outputs that somebody still holds: by descriptor, which of the job's it is
    output: Output
    marks: tuple[bytes, bytes]  # the lines of its environment that name this run and attempt
    has_ended: bool = False
    watched: select.epoll = field(factory=select.epoll)

    def __attrs_post_init__(self) -> None:
        for fd in (self.pidfd, *self.pipes):
            self.watched.register(fd, select.EPOLLIN)

    async def wait(self) -> None:
        """Takes what it writes until it has ended, and leaves it unreaped."""
        while not self.has_ended:
            await self.take()

    async def take(self) -> None:
        """Waits for something of it, and takes that; for ever when nothing can come any more."""
        await trio.lowlevel.wait_readable(self.watched)
        for fd, _ in self.watched.poll(0):
            if fd == self.pidfd:
                self.has_ended = True
                self.watched.unregister(fd)
            else:
                self._read(fd)

    async def take_for(self, seconds: float) -> None:
        """Takes what comes meanwhile."""
        with trio.move_on_after(seconds):
            while True:
                await self.take()

    def _read(self, pipe: int) -> None:
        for _ in range(READS_A_TURN):
            try:
                data = os.read(pipe, READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                # First unwatched: a job that just begins has a copy of it for a moment, which would count.
                self.watched.unregister(pipe)
                del self.pipes[pipe]
                os.close(pipe)
                return
            self.output.feed(self.pipes[pipe], data)

    def reap(self) -> int:
        """Its exit code, minus N if signal N ended it; it must have ended, or be about to."""
        _, status = os.waitpid(self.pid, 0)
        _own.discard(self.pid)
        self.watched.close()
        for fd in (self.pidfd, *self.pipes):
            os.close(fd)
        return os.waitstatus_to_exitcode(status)


async def run_process(
    job: Job,
    argv: list[str],
    environ: dict[str, str],
    data: bytes = b"",
    pass_fds: tuple[int, ...] = (),
) -> Ended:
    """Starts a process and sees to it until it has ended, by itself or not; `data` is what it reads."""
    cwd = job.order.cwd
    oom_kills = _oom_kills()
    try:
        child = _spawn(job, argv, environ, data, pass_fds)
    except (OSError, ValueError) as error:
        return _explain(error, argv[0], cwd)
    try:
        job.start()
        with job.life:
            await child.wait()
        if job.life.cancelled_caught:
            await _end(job, child)
        if child.pipes:
            # A process left behind may hold the pipe for as long as it lives.
            with trio.move_on_after(PIPE_GRACE_S):
                while child.pipes:
                    await child.take()
        if child.pipes:
            job.output.remark(_tell_left_behind(child))
    except BaseException:
        # This worker itself is breaking down. What nobody can report on must not go on.
        _signal(child, [], signal.SIGKILL)
        raise
    finally:
        code = child.reap()
    number = max(0, -code)
    ended = Ended(SIGNAL_BASE + number if number else code, signal=number, timed_out=job.timed_out)
    if ended.exit == SIGNAL_BASE + signal.SIGKILL and not job.life.cancel_called and _oom_kills() > oom_kills:
        how = in_words(reason("signal", number=signal.SIGKILL)) if number else f"exit {code}"
        return evolve(ended, why=f"{how}: out of memory, says the kernel of a process here")
    return ended


@functools.cache
def _memory_events() -> int:
    """Where the kernel counts what it kills for want of memory: in this worker's group, else everywhere."""
    with contextlib.suppress(OSError):
        group = Path("/proc/self/cgroup").read_text().rpartition("0::/")[2].strip()
        return os.open(Path("/sys/fs/cgroup", group, "memory.events"), os.O_RDONLY)
    return os.open("/proc/vmstat", os.O_RDONLY)


def _oom_kills() -> int:
    with contextlib.suppress(OSError, ValueError):
        text = os.pread(_memory_events(), READ_BYTES, 0)
        return int(text.partition(b"\noom_kill ")[2].partition(b"\n")[0])
    return 0


def _spawn(
    job: Job, argv: list[str], environ: dict[str, str], data: bytes, pass_fds: tuple[int, ...]
) -> Child:
    order = job.order
    marks = (f"CRONFLOW_RUN_ID={order.run}".encode(), f"CRONFLOW_ATTEMPT={order.attempt}".encode())
    ours, its = list[int](), list[int]()
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
        pid = _start(order, argv, environ, (stdin, its[0], its[1]), pass_fds)
        _own.add(pid)
        return Child(pid, _watch(pid), {ours[0]: 1, ours[1]: 2}, job.output, marks)
    except BaseException:
        for fd in ours:
            os.close(fd)
        raise
    finally:
        for fd in its:
            os.close(fd)


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


def _watch(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except OSError:  # no descriptor left: a process that cannot be watched must not run
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        _own.discard(pid)
        raise


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


def _tell_left_behind(child: Child) -> str:
    names = []
    for pid in _members(child)[:MAX_NAMED]:
        with contextlib.suppress(OSError):
            names.append(f"{Path(f'/proc/{pid}/comm').read_text().strip()} (pid {pid})")
    what = f"it left {', '.join(names) or 'a process'} behind, and its output open"
    return f"{what}: what is written there from now on is not kept, and ends the writer (SIGPIPE)"


# --- ending a job ---------------------------------------------------------------------


async def _end(job: Job, child: Child) -> None:
    """TERM, and after the grace KILL, to the group and to whoever left it."""
    _signal(child, _members(child), signal.SIGTERM)
    job.grace.deadline = trio.current_time() + job.grace_s
    with job.grace:
        await child.wait()
        while _members(child):  # the kernel sends no event for a whole group's end
            await child.take_for(LOOK_AGAIN_S)
    with trio.CancelScope(shield=True):
        for _ in range(KILL_ROUNDS):
            members = _members(child)
            _signal(child, members, signal.SIGKILL)
            if not members:
                break
            await child.take_for(LOOK_AGAIN_S / 10)
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


def _members(child: Child) -> list[int]:
    """All living processes of a job: of its group, its session, its tree, or marked with its run."""
    everyone = _processes()
    found = {each.pid for each in everyone if child.pid in (each.pid, each.group, each.session)}
    for each in _descendants(everyone):
        if each.parent in found or _is_marked(each.pid, child.marks):
            found.add(each.pid)
    return sorted(found)


def _descendants(everyone: list[Process]) -> list[Process]:
    """Those below this process, parents before children."""
    below: dict[int, list[Process]] = {}
    for process in everyone:
        below.setdefault(process.parent, []).append(process)
    found = list(below.get(os.getpid(), ()))
    for process in found:  # grows while it is walked
        found += below.get(process.pid, ())
    return found


def _processes() -> list[Process]:
    """All living processes of this machine that can be seen; one that has ended is none."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            stat = (entry / "stat").read_bytes()
        except OSError:  # it ended meanwhile
            continue
        # The name in brackets may itself hold brackets and blanks.
        state, parent, group, session = stat.rpartition(b") ")[2].split()[:4]
        if state not in b"ZX":
            found.append(Process(int(entry.name), int(parent), int(group), int(session)))
    return found


def _is_marked(pid: int, marks: tuple[bytes, bytes]) -> bool:
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return all(mark in environ for mark in marks)


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
