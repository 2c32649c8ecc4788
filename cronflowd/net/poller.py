"""Waiting for all connections at once, so that a request costs no switch of tasks.

Trio's own way, a task a connection that waits for its socket, costs 50 microseconds a request; the work of a
small one is a tenth of that. So one task of its own waits for an epoll set that holds all sockets. When it
wakes, whatever arrived is read, executed and answered in one *round*: function calls and nothing else. What
was decided in a round shares one commit.

An `Inlet` is a connection's end of this. What arrives goes to its `take`, which does at once what can be done
at once: a slice of lines. Whatever may wait for something (a slow order, a reader that does not read, more
lines than a slice), and each end of the conversation, is left to the connection's task, which sleeps in
`Inlet.wait` meanwhile. While that task is at work, what arrives stays in the socket.

A deadline costs nothing a request either: the sleeper wakes at the one that held when it fell asleep, and
asks again. So whoever makes one earlier, and only then, has to set it (`Inlet.sleep`).

Where several have come at once, a round takes what came meanwhile, too: so more share a commit, which costs
more than most requests. Who comes alone waits for nobody.

A round that takes long is interrupted after a connection's slice, so others wait for a slice or two at most.
Whoever has something to do for all of a round at once, a commit most of all, does so in `after_round`, and
threads take part in rounds by a `Knock`: either way of trio's would cost one more pass of its loop.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter
from typing import NoReturn, Protocol

import trio

from .outbox import Bell

ROUND_S = 0.002  # then other tasks have their turn before the rest of a round


class Poller:
    """Calls whoever has something to read, round by round."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._ready: dict[int, Callable[[], object]] = {}  # by descriptor
        self.is_in_round = False
        self.after_round: Callable[[], object] = lambda: None  # also before others have their turn amid one

    def watch(self, fd: int, ready: Callable[[], object]) -> None:
        """Has `ready` called in every round in which there is something to read; until `unwatch`."""
        self._epoll.register(fd, select.EPOLLIN)
        self._ready[fd] = ready

    def unwatch(self, fd: int) -> None:
        del self._ready[fd]
        self._epoll.unregister(fd)

    async def run(self) -> NoReturn:
        """The rounds. What is called must not raise."""
        poll, fileno, callbacks = self._epoll.poll, self._epoll.fileno(), self._ready
        with self._epoll:
            while True:
                await trio.lowlevel.wait_readable(fileno)
                until = perf_counter() + ROUND_S
                self.is_in_round = True
                arrived = poll(0, len(callbacks) or 1)
                while arrived:
                    for fd, _ in arrived:
                        if perf_counter() > until:
                            self.after_round()
                            await trio.lowlevel.checkpoint()
                            until = perf_counter() + ROUND_S
                        if ready := callbacks.get(fd):  # or somebody else's turn has ended it
                            ready()
                    # Where several come at once, more have come meanwhile: they share the commit.
                    arrived = poll(0, len(callbacks) or 1) if arrived[1:] else []
                self.is_in_round = False
                self.after_round()


_HERE: trio.lowlevel.RunVar[Poller] = trio.lowlevel.RunVar("poller")


def here() -> Poller:
    """The one of this run of trio; it begins when first asked for, and ends with the run."""
    with suppress(LookupError):
        return _HERE.get()
    poller = Poller()
    _HERE.set(poller)
    trio.lowlevel.spawn_system_task(poller.run)
    return poller


class Knock:
    """Has `ready` called in a round, soon after any thread has called this; once for several calls."""

    def __init__(self, ready: Callable[[], object]) -> None:
        self._fd, self._ready = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC), ready
        here().watch(self._fd, self._called)

    def __call__(self) -> None:
        os.eventfd_write(self._fd, 1)

    def _called(self) -> None:
        with suppress(BlockingIOError):  # what was there to read was another's, whose number this has now
            os.eventfd_read(self._fd)
        self._ready()

    def __del__(self) -> None:
        os.close(self._fd)  # only now: a thread that wrote to it later might write into another file


class Source(Protocol):
    """The receiving half of a connection; only its Inlet calls it."""

    def watch(self, ready: Callable[[], None]) -> None:
        """Has `ready` called in every round in which there is something to read; until `unwatch`."""

    def unwatch(self) -> None: ...

    def receive_now(self) -> bytes | None:
        """What has arrived already; None if nothing has, empty if nothing will come any more."""


class Inlet:
    """What comes in on one connection: taken in the poller's rounds while the connection's task sleeps."""

    def __init__(self, source: Source, take: Callable[[bytes], bool]) -> None:
        self._source = source
        self._take = take  # does what can be done at once; False: the task has to go on. Empty: the end
        self._bell = Bell()
        self._error: Exception | None = None  # of the round, for the task
        self.has_ended = False
        self.sleep = trio.CancelScope()  # of the task; its deadline may only be made earlier

    async def wait(self, due_at: Callable[[], float]) -> bool:
        """Until the task has to go on with what came (True), or its time has come (False)."""
        while True:
            if not self.has_ended:
                self._source.watch(self._arrived)
            with trio.CancelScope(deadline=due_at()) as self.sleep:
                await self._bell.wait()
            # A deadline that passes while input is waiting to be read does not count: the input goes first.
            if not self.sleep.cancelled_caught or not self._read():
                if (error := self._error) is not None:
                    try:
                        raise error
                    finally:
                        del self._error, error  # which know this frame
                return True
            if due_at() <= trio.current_time():
                return False

    def read_now(self) -> bytes | None:
        """What has arrived already, for a task that is at work."""
        data = self._source.receive_now()
        if data == b"":
            self.has_ended = True
            self._source.unwatch()
        return data

    def _arrived(self) -> None:
        if not self._bell.is_awaited:
            self._source.unwatch()  # until it is
        elif not self._read():
            self._bell.ring()

    def _read(self) -> bool:
        """Takes what has arrived; False: the task has to go on."""
        try:
            data = None if self.has_ended else self.read_now()
            return data is None or self._take(data)
        except Exception as error:  # noqa: BLE001 - it ends this connection, in its own task, and no other
            self._error = error
            return False
