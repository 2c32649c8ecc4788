"""Sockets: how connections come in, and what one is to the rest of the program.

Opening is done before anything is served, and fails with the address and the reason.
Accepting never fails: an error in one connection ends that connection, and a process that
has run out of descriptors says so to whoever calls (`ERR too-many`), logs it once, and goes
on when there are some again. One descriptor is kept in reserve for exactly that.

A Connection takes and gives bytes without waiting where it can, because at 10,000 lines a
second the waiting is what costs: trio's own streams yield to the scheduler in every call. Of TLS
it knows nothing: see tls.py.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import stat
import struct
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from math import inf
from pathlib import Path
from typing import Literal

import trio
from attrs import Factory, define

from ..base.addresses import origin
from ..base.errors import Exit, Fatal, Refusal, leaves
from ..host.disk import exit_of
from ..host.resources import max_descriptors, raise_descriptors, who_listens
from ..host.setting import Address, format_address
from . import poller

Kind = Literal["tcp", "unix"]

RECEIVE_BYTES = 65_536
BACKLOG = 1024  # connections the kernel holds until they are accepted; it may allow fewer
UNSENT_LOW_BYTES = 131_072  # the kernel holds about this much unsent before it says that it is full
KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 20, "TCP_KEEPCNT": 3}  # a vanished peer is found in 2 min
SPARE_DESCRIPTORS = 64  # for files, and for saying goodbye to connections beyond the limit
MAX_LOCAL = 256  # connections on one port's unix sockets
KEPT_NEAR = 8  # such a part of the places is kept for this machine
MAX_FAREWELLS = 32
FAREWELL_S = 1.0
TELL_EVERY_S = 60.0
PAUSE_S = 0.1  # between tries while the system is out of descriptors or memory
MAX_UNIX_PATH_BYTES = 107  # sun_path holds 108 with its ending zero

_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_NO_IPV6 = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT}
_RTT_OFFSET = 68  # of tcpi_rtt, microseconds, in Linux's struct tcp_info

log = logging.getLogger(__name__)


# --- a connection -------------------------------------------------------------------------


class Connection:
    """One accepted socket. Its Inlet reads, or one task; sending is the Outbox's alone."""

    is_carried = False  # here by another node

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.kind: Kind = kind_of(sock)
        self.peer = _peer_name(sock)
        self.count_as: Callable[[str], None] = lambda _: None  # its door's, below
        self._is_watched = False
        if self.kind == "tcp":
            _tune(sock)

    def watch(self, ready: Callable[[], None]) -> None:
        """Has `ready` called in every round in which there is something to read; until `unwatch`."""
        if not self._is_watched:
            poller.here().watch(self._sock.fileno(), ready)
            self._is_watched = True

    def unwatch(self) -> None:
        if self._is_watched:
            poller.here().unwatch(self._sock.fileno())
            self._is_watched = False

    def receive_now(self) -> bytes | None:
        """What has arrived already; None if nothing has, empty if nothing will come any more."""
        try:
            return self._sock.recv(RECEIVE_BYTES)
        except (BlockingIOError, InterruptedError):
            return None

    async def receive_some(self) -> bytes:
        """The next bytes, or none at the end of input. Raises OSError when the connection is broken."""
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            data = self.receive_now()
            if data is not None:
                return data

    async def peek(self) -> bytes:
        """What comes next, or none at the end of input; it stays to be read. Raises OSError."""
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            with suppress(BlockingIOError):
                return self._sock.recv(RECEIVE_BYTES, socket.MSG_PEEK)

    @property
    def has_ended(self) -> bool:
        """Whether `peek` shows all that will ever come."""
        return self._is_told(select.POLLRDHUP)

    def drop(self, size: int) -> None:
        """Reads so much of what `peek` has shown."""
        self._sock.recv(size)

    def send_now(self, data: bytes | memoryview) -> int:
        try:
            return self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0

    def fileno(self) -> int:
        return self._sock.fileno()

    def last_words(self, data: bytes) -> bytes:
        """What has the peer read that, and then our end; whoever holds the socket may send it, and close."""
        return data

    async def wait_writable(self) -> None:
        await trio.lowlevel.wait_writable(self._sock)

    def stream(self) -> trio.SocketStream:
        """The same as a stream of trio's, for whoever wants no more than that."""
        return trio.SocketStream(trio.socket.from_stdlib_socket(self._sock))

    def shutdown(self) -> None:
        """Ends our side; the peer reads an end of input and may still send."""
        with suppress(OSError):  # it may have left for good already
            self._sock.shutdown(socket.SHUT_WR)

    async def part(self, words: bytes) -> None:
        """Says that and our end, and reads a little: to close before would destroy what we said."""
        with trio.move_on_after(FAREWELL_S), suppress(OSError):
            self.send_now(words)
            self.shutdown()
            while await self.receive_some():
                pass

    def close(self) -> None:
        self.count_as = lambda _: None
        if self._sock.fileno() >= 0:
            self.unwatch()
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()

    def abort(self) -> None:
        """Ends the input, and makes closing a reset: what the peer has read shall not look complete."""
        with suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._sock.shutdown(socket.SHUT_RD)

    def rtt_s(self) -> float:
        """The kernel's estimate of a round trip to the peer; 0 where it has none."""
        if self.kind == "unix":
            return 0.0
        try:
            info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RTT_OFFSET + 4)
        except OSError:
            return 0.0
        return int.from_bytes(info[_RTT_OFFSET:], sys.byteorder) / 1e6

    def is_gone(self) -> bool:
        """Nobody is there any more: both directions have ended, or the connection was reset."""
        return self._is_told(0)

    def _is_told(self, events: int) -> bool:
        poll = select.poll()
        poll.register(self._sock, events)
        return bool(poll.poll(0))


def kind_of(sock: socket.socket) -> Kind:
    return "unix" if sock.family == socket.AF_UNIX else "tcp"


def _tune(sock: socket.socket) -> None:
    """Small replies leave at once; a peer that vanished is noticed some day."""
    with suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (KEEPALIVE | {"TCP_NOTSENT_LOWAT": UNSENT_LOW_BYTES}).items():
            if option := getattr(socket, name, None):  # not every build of Python has all of them
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _peer_name(sock: socket.socket) -> str:
    """Who is at the other end, as WORKERS and the log tell it."""
    try:
        if sock.family != socket.AF_UNIX:
            return format_address(sock.getpeername()[:2])
        pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return f"unix:pid={pid},uid={uid}"
    except (OSError, AttributeError):
        return "unknown"  # it has left already


# --- opening ------------------------------------------------------------------------------


class Listener:
    """A socket that listens, and what to call it."""

    def __init__(self, sock: socket.socket, unix_path: Path | None = None) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.kind = kind_of(sock)
        self._path = unix_path  # of a file that is ours to remove
        self._inode = unix_path.lstat().st_ino if unix_path else 0

    @property
    def address(self) -> str:
        """`127.0.0.1:5050`, `[::1]:5050` or `unix:/run/x.sock`, with the real port."""
        if self.kind == "tcp":
            return format_address(self.sock.getsockname()[:2])
        return f"unix:{self._path or os.fsdecode(self.sock.getsockname())}"

    def again(self) -> Listener:
        """The same socket to accept on, which may be closed alone."""
        return Listener(self.sock.dup())

    def close(self) -> None:
        """Stops listening; a socket file goes too, if it is still the one we made."""
        if self.sock.fileno() < 0:
            return
        with suppress(RuntimeError):  # outside trio nobody can be waiting for it
            trio.lowlevel.notify_closing(self.sock)
        self.sock.close()
        with suppress(OSError):
            if self._path and self._path.lstat().st_ino == self._inode:
                self._path.unlink()


def open_listeners(addresses: Iterable[Address], optional: Iterable[Address] = ()) -> list[Listener]:
    """Listens on every address; those also in `optional` are left out where there is no IPv6.

    Raises Fatal.
    """
    listeners: list[Listener] = []
    try:
        for address in addresses:
            listeners += _open_address(address, address in optional)
    except Fatal:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _open_address(address: Address, is_optional: bool) -> list[Listener]:
    """A name such as localhost stands for all its addresses, on one and the same port."""
    host, port = address
    listeners: list[Listener] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, where in dict.fromkeys(found):
            there = (where[0], port, *where[2:])
            listeners.append(Listener(socket.create_server(there, family=family, backlog=BACKLOG)))
            port = listeners[0].sock.getsockname()[1]
    except OSError as error:
        for listener in listeners:
            listener.close()
        if is_optional and error.errno in _NO_IPV6 | {socket.EAI_ADDRFAMILY, socket.EAI_NONAME}:
            return []
        # Of a look-up's errors the numbers are negative; to all others the library adds the address.
        why = error.strerror if (error.errno or 0) < 0 else os.strerror(error.errno or 0)
        by = who_listens(str(there[0]), port) if error.errno == errno.EADDRINUSE else ""
        raise Fatal(Exit.CANNOT_CREATE, f"cannot listen on {format_address(address)}: {why}{by}") from error
    return listeners


def open_unix(path: Path, mode: int = 0o600) -> Listener:
    """Listens on a socket file; one that nobody answers on is replaced. Raises Fatal."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short_name(path) as name:
            _remove_stale(path, name)
            sock.bind(name)
        # Before listen() nobody can connect, so there is no moment with a wider mode.
        path.chmod(mode)
        sock.listen(BACKLOG)
        return Listener(sock, path)
    except OSError as error:
        sock.close()
        raise Fatal(exit_of(error), f"cannot listen on unix:{path}: {error.strerror or error}") from error


def _remove_stale(path: Path, name: str) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "a file of that name exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full backlog answers EAGAIN, and so is alive too
        try:
            probe.connect(name)
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass
    raise OSError(errno.EADDRINUSE, "another process answers on it")


@contextmanager
def _short_name(path: Path) -> Iterator[str]:
    """A name for a path that AF_UNIX takes: through the directory's descriptor if it is too long."""
    if len(os.fsencode(path)) <= MAX_UNIX_PATH_BYTES:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def adopt_listener(descriptor: int) -> Listener:
    """A socket that systemd opened for us; its file, if it has one, is not ours to remove. Raises Fatal."""
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        raise Fatal(Exit.CONFIG, f"the inherited descriptor {descriptor}: {error.strerror}") from error
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.close()
        raise Fatal(Exit.CONFIG, f"the inherited descriptor {descriptor} is not a listening stream socket")
    return Listener(sock)


# --- accepting ----------------------------------------------------------------------------


@define
class Door:
    """What the listeners of one port share: who comes in, and how many at a time."""

    handle: Callable[[Connection], Awaitable[None]]
    max_connections: int
    name: str = "connections"  # in the log and in refusals
    # What is said before the first line, as TLS does; None: it was not what we speak.
    greet: Callable[[Connection], Awaitable[Connection | None]] | None = None
    max_per_address: int = 1_000_000  # from one other machine
    farewell: Callable[[str], bytes] = lambda why: f"ERR too-many {why}; try again later\n".encode()
    open: Counter[str] = Factory(Counter)  # by kind; and of other machines, by address
    turned_away: int = 0  # ever
    _farewells: int = 0
    _told_s: float = -inf  # when the log last heard that we are full
    _spare: int = -1
    _accepting: trio.CancelScope = Factory(trio.CancelScope)

    def shut(self) -> None:
        """Nobody comes in any more; whoever is in stays."""
        self._accepting.cancel()

    async def serve(self, listeners: Iterable[Listener]) -> None:
        """Accepts until it is shut, and serves until all have left; cancelled, it closes everything."""
        self.max_connections = min(self.max_connections, max(1, max_descriptors() - SPARE_DESCRIPTORS))
        listeners = list(listeners)
        self._spare = _open_spare()
        try:
            async with trio.open_nursery() as nursery:
                with self._accepting:
                    async with trio.open_nursery() as accepting:
                        for listener in listeners:
                            accepting.start_soon(self._accept_all, listener, nursery)
                for listener in listeners:
                    listener.close()
        finally:
            for listener in listeners:
                listener.close()
            _close_descriptor(self._spare)

    async def _accept_all(self, listener: Listener, nursery: trio.Nursery) -> None:
        while True:
            await trio.lowlevel.wait_readable(listener.sock)
            try:
                sock, _ = listener.sock.accept()
            except OSError as error:
                await self._survive(error, listener)
            else:
                self._admit(sock, nursery)

    def _admit(self, sock: socket.socket, nursery: trio.Nursery) -> None:
        connection = Connection(sock)
        kinds = _counted_as(connection.kind, connection.peer)
        if why := self._why_full(kinds):
            self.turned_away += 1
            self._tell_full(why)
            nursery.start_soon(self._refuse, connection, why)
            return
        self.open.update(kinds)
        nursery.start_soon(self._serve_one, connection, kinds)

    def _why_full(self, kinds: list[str]) -> str:
        """Why nobody more comes in, if so.

        Strangers who hold all places of the network must not lock the owner out, who comes by the
        unix socket or from this machine; nor one machine all others.
        """
        kind, *others = kinds
        most = MAX_LOCAL if kind == "unix" else self.max_connections
        if self.open[kind] >= most - bool(others) * (most // KEPT_NEAR):
            return f"all {most} {self.name} are taken"
        most = most // KEPT_NEAR if kind == "unix" else self.max_per_address
        if any(self.open[each] >= most for each in others):
            return f"your address has {most} {self.name} already"
        return ""

    async def _serve_one(self, connection: Connection, kinds: list[str]) -> None:
        """An error in one connection is logged and ends that connection only, unless it is fatal."""
        try:
            if self.greet and connection.kind == "tcp":
                carrier = connection.peer
                greeted = await self.greet(connection)
                if greeted is None:
                    return
                connection = greeted
                is_carried = connection.kind == "tcp" and connection.peer != carrier
                is_far = is_carried and not is_near(origin(connection.peer))
                if is_far and (why := self._move(connection, kinds, connection.peer)):
                    await self._refuse(connection, why)
                    return
            connection.count_as = partial(self._count_as, connection, kinds)
            await self.handle(connection)
        except Exception as error:
            for each in leaves(error):
                if isinstance(each, Fatal):
                    raise each from error
            log.exception("the connection of %s ended by a bug", connection.peer)
        finally:
            connection.close()
            self._leave(kinds)

    def _leave(self, kinds: list[str]) -> None:
        self.open.subtract(kinds)
        for kind in kinds[1:]:
            if not self.open[kind]:
                del self.open[kind]

    def _count_as(self, connection: Connection, kinds: list[str], peer: str) -> None:
        """From now on it is somebody's at `peer`, who came through another program. Raises Refusal."""
        if why := self._move(connection, kinds, peer):
            raise Refusal("too-many", f"{why}; try again later")

    def _move(self, connection: Connection, kinds: list[str], peer: str) -> str:
        """Has it take up a place of those it belongs to; why not, where they have none."""
        carried = _counted_as("tcp", peer)
        if why := self._why_full(carried):
            self.turned_away += 1
            self._tell_full(why)
            return why
        self._leave(kinds)
        self.open.update(carried)
        kinds[:] = carried
        connection.kind, connection.peer = "tcp", peer
        return ""

    async def _refuse(self, connection: Connection, why: str) -> None:
        """Says why, to so many at a time."""
        self._farewells += 1
        try:
            if self._farewells <= MAX_FAREWELLS:
                await connection.part(self.farewell(why))
        finally:
            self._farewells -= 1
            connection.close()

    async def _survive(self, error: OSError, listener: Listener) -> None:
        """What accept() reports is mostly a caller that left again; running out is our own trouble."""
        if error.errno not in _OUT_OF_RESOURCES:
            await trio.lowlevel.checkpoint()
            return
        self._tell_full(error.strerror or str(error))
        _close_descriptor(self._spare)
        with suppress(OSError):
            sock, _ = listener.sock.accept()
            with sock:
                sock.setblocking(False)
                sock.send(self.farewell("the server is out of file descriptors"))
                sock.shutdown(socket.SHUT_WR)
                sock.recv(RECEIVE_BYTES)
        self._spare = _open_spare()
        await trio.sleep(PAUSE_S)

    def _tell_full(self, why: str) -> None:
        """One line a minute, not one for each that is turned away."""
        now = trio.current_time()
        if now - self._told_s >= TELL_EVERY_S:
            self._told_s = now
            log.warning("connections are turned away: %s", why)


def share_descriptors(*doors: Door) -> None:
    """Asks the system for as many as all doors together may need, or cuts each down to its share."""
    wanted = sum(door.max_connections for door in doors)
    beside = SPARE_DESCRIPTORS + MAX_LOCAL * len(doors)
    raise_descriptors(wanted + beside)
    room = max(max_descriptors() - beside, max_descriptors() // 2)
    if wanted > room:
        log.warning("%d connections do not fit into %d open files", wanted, max_descriptors())
        for door in doors:
            door.max_connections = max(1, door.max_connections * room // wanted)


def _counted_as(kind: Kind, peer: str) -> list[str]:
    """What takes up a place with it: its kind and, of another machine or user, whose it is."""
    where = peer.partition(",")[2] or origin(peer)
    return [kind] if is_near(where) else [kind, where]


def is_near(where: str) -> bool:
    """Whether somebody is of this machine, or at the unix socket its owner."""
    return where.startswith("127.") or where in ("::/64", "uid=0", f"uid={os.geteuid()}")


def _open_spare() -> int:
    with suppress(OSError):
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    return -1


def _close_descriptor(descriptor: int) -> None:
    if descriptor >= 0:
        os.close(descriptor)
