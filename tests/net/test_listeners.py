"""Opening and accepting with real sockets: what fails is named, what comes in never ends the server."""

from __future__ import annotations

import errno
import os
import resource
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext, suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from cronflowd.base.addresses import origin
from cronflowd.base.errors import Exit, Fatal, Refusal
from cronflowd.host.resources import max_descriptors, who_listens
from cronflowd.net.listeners import (
    KEEPALIVE,
    KEPT_NEAR,
    MAX_FAREWELLS,
    MAX_LOCAL,
    MAX_UNIX_PATH_BYTES,
    Connection,
    Door,
    Listener,
    adopt_listener,
    open_listeners,
    open_unix,
    share_descriptors,
)
from tests.lib.waiting import PATIENCE_S, until

ANY = ("127.0.0.1", 0)
NOT_OURS = ("2001:db8::1", 0)  # no machine has this address


@pytest.fixture
def listener() -> Iterator[Listener]:
    (opened,) = open_listeners([ANY])
    yield opened
    opened.close()


# --- opening ----------------------------------------------------------------------------------


def test_port_0_is_any_free_one_and_its_number_is_told() -> None:
    """Tests and several daemons on one machine live by it."""
    first, second = open_listeners([ANY, ANY])
    ports = {each.sock.getsockname()[1] for each in (first, second)}
    assert {first.address, second.address} == {f"127.0.0.1:{port}" for port in ports}
    assert len(ports) == 2
    for each in (first, second):
        each.close()


def test_a_name_stands_for_all_its_addresses_on_one_port() -> None:
    """`localhost:0` would be of little use with two ports."""
    opened = open_listeners([("localhost", 0)])
    assert len({each.sock.getsockname()[1] for each in opened}) == 1
    for each in opened:
        each.close()


@pytest.mark.parametrize("ours", ["127.0.0.1", "0.0.0.0"])
def test_whose_a_port_is_depends_on_the_address(ours: str) -> None:
    """Another program may have the same port of another address, and is in nobody's way."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert who_listens(ours, port) == f" by process {os.getpid()}"
        assert who_listens("127.0.0.2", port) == ""


@pytest.mark.skipif(not Path("/proc/net/tcp6").exists(), reason="there is no IPv6")
def test_whose_a_port_of_ipv4_is_no_other_one_says_that_has_it_of_ipv6() -> None:
    """The wrong program would be ended."""
    script = "taken = socket.create_server(('127.0.0.1', 0)); print(taken.getsockname()[1], flush=True)"
    script = f"import socket, sys; {script}; sys.stdin.read()"
    with (
        subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as other,
        socket.socket(socket.AF_INET6) as ours,
    ):
        assert other.stdout
        port = int(other.stdout.readline())
        ours.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        ours.bind(("::", port))
        ours.listen()
        assert who_listens("127.0.0.1", port) == f" by process {other.pid}"
        assert who_listens("::1", port) == f" by process {os.getpid()}"
        other.communicate()


def test_an_address_in_use_is_named_and_nothing_stays_open(listener: Listener) -> None:
    """Half a server is worse than none."""
    port = listener.sock.getsockname()[1]
    with socket.socket() as probe:
        probe.bind(ANY)
        free = probe.getsockname()[1]
    with pytest.raises(Fatal) as caught:
        open_listeners([("127.0.0.1", free), ("127.0.0.1", port)])
    assert caught.value.status == Exit.CANNOT_CREATE
    assert (
        caught.value.message
        == f"cannot listen on 127.0.0.1:{port}: Address already in use by process {os.getpid()}"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", free))


def test_only_the_default_address_is_left_out_where_there_is_no_ipv6() -> None:
    """A person who asks for an address wants it; the default is only a wish."""
    assert open_listeners([NOT_OURS], optional=[NOT_OURS]) == []
    with pytest.raises(Fatal, match=r"cannot listen on \[2001:db8::1\]:0: Cannot assign requested address"):
        open_listeners([NOT_OURS])


def test_a_kernel_without_ipv6_is_no_error_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """There the socket itself cannot be made."""

    def refuse(*_: object, **__: object) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "create_server", refuse)
    assert open_listeners([("::1", 5050)], optional=[("::1", 5050)]) == []


def test_a_name_that_nobody_knows_is_named() -> None:
    """A typing error in --listen must not become a silent default."""
    with pytest.raises(Fatal, match=r"cannot listen on no-such-host\.invalid:5050"):
        open_listeners([("no-such-host.invalid", 5050)])


# --- unix sockets -----------------------------------------------------------------------------


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def test_a_socket_file_is_for_its_owner_only_and_goes_with_the_listener(tmp_path: Path) -> None:
    """Its mode is what guards the door on a unix socket."""
    path = tmp_path / "control.sock"
    listener = open_unix(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (listener.kind, listener.address, answers(path)) == ("unix", f"unix:{path}", True)
    listener.close()
    listener.close()
    assert not path.exists()


def test_a_socket_file_that_nobody_answers_on_is_replaced(tmp_path: Path) -> None:
    """That is what a killed daemon leaves behind."""
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    listener = open_unix(path)
    assert answers(path)
    listener.close()


def test_a_socket_that_somebody_answers_on_is_not_taken_over(tmp_path: Path) -> None:
    """Two daemons on one path would share the orders between them at random."""
    path = tmp_path / "control.sock"
    first = open_unix(path)
    with pytest.raises(Fatal, match=f"cannot listen on unix:{path}: another process answers on it"):
        open_unix(path)
    assert answers(path)
    first.close()


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path, make: object) -> None:
    """A wrong --socket must not delete a person's file."""
    path = tmp_path / "precious"
    make(path)  # type: ignore[operator]
    with pytest.raises(Fatal, match="exists and is no socket"):
        open_unix(path)
    assert path.exists()


def test_a_socket_in_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    """As every other thing that cannot be created."""
    with pytest.raises(Fatal, match=r"nowhere/x\.sock: No such file or directory"):
        open_unix(tmp_path / "nowhere" / "x.sock")


@pytest.mark.parametrize(("number", "status"), [(errno.EIO, Exit.IO), (errno.EROFS, Exit.CANNOT_CREATE)])
def test_a_disk_that_fails_is_no_missing_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, status: Exit
) -> None:
    """Who reads the exit code looks after the disk for the one, after the mode for the other."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "chmod", refuse)
    with pytest.raises(Fatal, match=os.strerror(number)) as refused:
        open_unix(tmp_path / "x.sock")
    assert refused.value.status == status


def test_a_path_too_long_for_the_kernel_works_all_the_same(tmp_path: Path) -> None:
    """Data directories are deep sometimes, and 107 bytes are few."""
    directory = tmp_path / ("d" * MAX_UNIX_PATH_BYTES)
    directory.mkdir()
    path = directory / "control.sock"
    listener = open_unix(path)
    descriptor = os.open(directory, os.O_PATH)
    assert answers(Path(f"/proc/self/fd/{descriptor}/control.sock"))
    with pytest.raises(Fatal, match="another process answers"):
        open_unix(path)
    os.close(descriptor)
    listener.close()
    assert not path.exists()


def test_a_successors_socket_file_is_not_removed(tmp_path: Path) -> None:
    """A daemon that stops late must not take the new one's door away."""
    path = tmp_path / "control.sock"
    old = open_unix(path)
    path.rename(tmp_path / "aside")
    new = open_unix(path)
    old.close()
    assert answers(path)
    new.close()


# --- inherited sockets ------------------------------------------------------------------------


def test_an_inherited_socket_is_used_as_it_is(tmp_path: Path) -> None:
    """systemd made it, and its file is systemd's."""
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as given:
        given.bind(str(path))
        given.listen()
        listener = adopt_listener(os.dup(given.fileno()))
        assert (listener.kind, listener.address) == ("unix", f"unix:{path}")
        listener.close()
    assert path.exists()


def test_an_inherited_descriptor_that_does_not_listen_is_refused(tmp_path: Path) -> None:
    """A unit file with the wrong socket type is found at the start, not at the first caller."""
    with socket.socket() as idle, pytest.raises(Fatal, match="is not a listening stream socket"):
        adopt_listener(os.dup(idle.fileno()))
    with (tmp_path / "file").open("w") as file, pytest.raises(Fatal, match="inherited descriptor"):
        adopt_listener(os.dup(file.fileno()))


# --- accepting --------------------------------------------------------------------------------


async def echo(connection: Connection) -> None:
    """Sends back what it gets, and breaks down when told to."""
    while data := await connection.receive_some():
        if data == b"bug":
            raise ZeroDivisionError("a bug")
        if data == b"fatal":
            raise ExceptionGroup("from a nursery", [Fatal(Exit.IO, "the disk is gone")])
        connection.send_now(data)


@asynccontextmanager
async def served(listener: Listener, max_connections: int = 100) -> AsyncIterator[Door]:
    door = Door(echo, max_connections, "control connections")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(door.serve, [listener])
        yield door
        nursery.cancel_scope.cancel()


async def connect(listener: Listener) -> trio.SocketStream:
    return await trio.open_tcp_stream(*listener.sock.getsockname()[:2])


async def works(stream: trio.SocketStream) -> bool:
    await stream.send_all(b"hi")
    return await stream.receive_some() == b"hi"


async def test_who_is_in_stays_when_the_door_is_shut_and_nobody_else_comes() -> None:
    """A daemon that was told to stop answers those it has, and takes no orders from new ones."""
    (listener,) = open_listeners([("127.0.0.1", 0)])
    address = listener.sock.getsockname()[:2]
    async with served(listener) as door, await connect(listener) as inside:
        assert await works(inside)
        door.shut()
        await trio.testing.wait_all_tasks_blocked()
        assert await works(inside)
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream(*address)


async def read_all(stream: trio.SocketStream) -> bytes:
    with trio.fail_after(PATIENCE_S):
        return b"".join([data async for data in stream])


async def test_a_bug_in_one_connection_ends_only_that_one(
    listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    """Trio's own server would go down with it."""
    async with served(listener):
        async with await connect(listener) as good, await connect(listener) as bad:
            assert await works(good)
            await bad.send_all(b"bug")
            assert await read_all(bad) == b""
            assert await works(good)
        async with await connect(listener) as later:
            assert await works(later)
    assert "ZeroDivisionError" in caplog.text


async def test_what_is_fatal_ends_the_server(listener: Listener) -> None:
    """After a failed fsync nobody may be served."""
    with pytest.RaisesGroup(pytest.RaisesExc(Fatal, match="the disk is gone"), flatten_subgroups=True):
        async with served(listener), await connect(listener) as stream:
            await stream.send_all(b"fatal")
            await trio.sleep(5)


async def test_who_comes_beyond_the_limit_is_told_and_closed(
    listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    """Also if it has sent something already; and its place is free again when somebody leaves."""
    async with served(listener, max_connections=2) as door:
        async with await connect(listener) as first, await connect(listener) as second:
            assert await works(first)
            assert await works(second)
            for _ in range(3):
                async with await connect(listener) as third:
                    await third.send_all(b"PING\n")
                    told = await read_all(third)
                    assert told == b"ERR too-many all 2 control connections are taken; try again later\n"
            assert await works(first)
        await until(lambda: not door.open["tcp"])
        async with await connect(listener) as later:
            assert await works(later)
    assert caplog.text.count("turned away") == 1


async def test_a_door_says_in_its_own_words_that_it_is_full_and_has_ended_with_its_last_guest(
    listener: Listener,
) -> None:
    """Browsers read HTTP, and whoever stops need not wait longer than somebody is in."""
    door = Door(echo, 1, "HTTP connections", farewell=lambda why: f"503 {why}".encode())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(door.serve, [listener])
        async with await connect(listener) as first:
            assert await works(first)
            async with await connect(listener) as second:
                assert await read_all(second) == b"503 all 1 HTTP connections are taken"
            door.shut()
            assert await works(first)


async def test_the_owner_gets_in_when_the_network_holds_all_places(
    listener: Listener, tmp_path: Path
) -> None:
    """Idle strangers on TCP must not lock the unix socket, by which they could be thrown out."""
    door = Door(echo, 1, "control connections")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(door.serve, [listener, open_unix(tmp_path / "s")])
        async with await connect(listener) as stranger:
            assert await works(stranger)
            async with await trio.open_unix_socket(str(tmp_path / "s")) as owner:
                assert await works(owner)
                assert (door.open["tcp"], door.open["unix"]) == (1, 1)
            async with await connect(listener) as second:
                assert b"too-many" in await read_all(second)
        nursery.cancel_scope.cancel()


async def test_the_limit_leaves_descriptors_for_files(listener: Listener) -> None:
    """A journal that cannot open its next segment is worse than a caller turned away."""
    async with served(listener, max_connections=1 << 30) as door, await connect(listener) as stream:
        assert await works(stream)
        assert door.max_connections == max_descriptors() - 64


@pytest.fixture
def open_files() -> Iterator[Callable[[int, int], None]]:
    """Sets (soft, hard) limits of open files as the doors see them."""
    with pytest.MonkeyPatch.context() as patch:
        limits = [0, 0]

        def set_limits(soft: int, hard: int) -> None:
            limits[:] = soft, hard

        patch.setattr(resource, "getrlimit", lambda _: tuple(limits))
        patch.setattr(resource, "setrlimit", lambda _, both: set_limits(*both))
        yield set_limits


def test_the_limit_of_open_files_is_raised_to_what_the_doors_need(
    open_files: Callable[[int, int], None],
) -> None:
    """1024 is what a shell gives, and 1000 clients beside 1000 workers do not fit into it."""
    clients, workers = Door(echo, 1000), Door(echo, 1000)
    open_files(1024, 1 << 19)
    share_descriptors(clients, workers)
    assert max_descriptors() == 2000 + 64 + 2 * MAX_LOCAL
    assert (clients.max_connections, workers.max_connections) == (1000, 1000)


@pytest.mark.parametrize("hard", [20, 256, 1024, 2000])
def test_the_doors_never_let_in_more_together_than_there_are_descriptors(
    hard: int, open_files: Callable[[int, int], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Each alone was within the limit; together they left the journal no file to open."""
    clients, workers = Door(echo, 3000), Door(echo, 1000)
    open_files(min(hard, 1024), hard)
    share_descriptors(clients, workers)
    assert max_descriptors() == hard
    assert clients.max_connections + workers.max_connections <= max(hard - 64 - 2 * MAX_LOCAL, hard // 2)
    assert clients.max_connections >= 2 * workers.max_connections > 0
    assert "4000 connections do not fit" in caplog.text


def test_more_than_is_needed_is_left_as_it_is(open_files: Callable[[int, int], None]) -> None:
    """Whoever has set a limit knows why."""
    open_files(1 << 16, 1 << 19)
    share_descriptors(Door(echo, 10))
    assert max_descriptors() == 1 << 16


async def test_running_out_of_descriptors_is_survived(
    listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    """Callers are told, the log hears it once, those inside notice nothing, and then all is as before."""
    callers = [trio.socket.socket() for _ in range(3)]
    later = trio.socket.socket()
    async with served(listener), await connect(listener) as inside:
        assert await works(inside)
        with no_descriptors():
            for caller in callers:
                await caller.connect(listener.sock.getsockname())
                stream = trio.SocketStream(caller)
                told = await read_all(stream)
                assert told == b"ERR too-many the server is out of file descriptors; try again later\n"
            assert await works(inside)
        await later.connect(listener.sock.getsockname())
        assert await works(trio.SocketStream(later))
        later.close()
    for caller in callers:
        caller.close()
    assert caplog.text.count("turned away") == 1
    assert "Traceback" not in caplog.text


@contextmanager
def no_descriptors() -> Iterator[None]:
    """This process has none left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 2, hard))
    try:
        with suppress(OSError):
            while True:
                held.append(os.dup(0))
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_stopping_closes_listeners_and_connections(listener: Listener) -> None:
    """Nobody may believe that a stopped server still takes orders."""
    async with served(listener):
        stream = await connect(listener)
        assert await works(stream)
    assert await read_all(stream) == b""
    assert listener.sock.fileno() == -1
    await stream.aclose()


# --- a connection -----------------------------------------------------------------------------


async def accepted(listener: Listener) -> tuple[Connection, socket.socket]:
    client = socket.create_connection(listener.sock.getsockname())
    await trio.lowlevel.wait_readable(listener.sock)
    return Connection(listener.sock.accept()[0]), client


async def test_small_replies_leave_at_once_and_a_vanished_peer_is_noticed(listener: Listener) -> None:
    """Nagle would cost 40 ms a line; a watcher whose machine is gone would stay for ever."""
    connection, client = await accepted(listener)
    sock = connection._sock
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    connection.close()
    client.close()


async def test_a_python_that_lacks_an_option_serves_without_it(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was built with an older C library has no name for it; the first caller would end us."""
    monkeypatch.delattr(socket, "TCP_NOTSENT_LOWAT")
    connection, client = await accepted(listener)
    assert connection._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == KEEPALIVE["TCP_KEEPCNT"]
    connection.close()
    client.close()


async def test_the_round_trip_is_the_kernels_estimate(listener: Listener) -> None:
    """On this machine it is short, but it is not nothing."""
    connection, client = await accepted(listener)
    assert 0 < connection.rtt_s() < 0.5
    connection.close()
    assert connection.rtt_s() == 0
    client.close()


def test_a_unix_peer_is_named_by_its_process() -> None:
    """So the log can tell who it was."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = Connection(ours)
        assert connection.peer == f"unix:pid={os.getpid()},uid={os.getuid()}"
        assert (connection.kind, connection.rtt_s()) == ("unix", 0)


async def test_nothing_yet_and_nothing_any_more_are_told_apart(listener: Listener) -> None:
    """None means wait, empty means the end."""
    connection, client = await accepted(listener)
    assert connection.receive_now() is None
    client.sendall(b"x")
    assert await connection.receive_some() == b"x"
    client.shutdown(socket.SHUT_WR)
    assert await connection.receive_some() == b""
    assert connection.receive_now() == b""
    assert not connection.is_gone()
    connection.close()
    client.close()


async def test_a_peer_that_reset_the_connection_is_gone(listener: Listener) -> None:
    """It is found without sending anything."""
    connection, client = await accepted(listener)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    client.close()
    with pytest.raises(ConnectionResetError):
        await connection.receive_some()
    assert connection.is_gone()
    connection.close()


async def test_aborting_ends_our_reading_and_resets_the_peer(listener: Listener) -> None:
    """What a cut reader has got so far must not look like a complete reply."""
    connection, client = await accepted(listener)
    connection.send_now(b"half a li")
    connection.abort()
    assert await connection.receive_some() == b""
    connection.close()
    with pytest.raises(ConnectionResetError):
        while client.recv(100):
            pass
    client.close()


def test_no_machine_takes_the_places_that_others_need() -> None:
    """One that opens all it can is told so; this machine, and the owner at the unix socket, still come in."""
    door = Door(echo, 16, "control connections", max_per_address=10)
    for _ in range(10):
        assert door._why_full(["tcp", "192.0.2.7"]) == ""
        door.open.update(["tcp", "192.0.2.7"])
    assert door._why_full(["tcp", "192.0.2.7"]) == "your address has 10 control connections already"
    for number in range(4):
        assert door._why_full(["tcp", f"192.0.2.{number}"]) == ""
        door.open.update(["tcp", f"192.0.2.{number}"])
    assert door._why_full(["tcp", "192.0.2.99"]) == "all 16 control connections are taken"
    assert door._why_full(["tcp"]) == ""
    door.open.update({"unix": MAX_LOCAL - MAX_LOCAL // KEPT_NEAR})
    assert door._why_full(["unix", "uid=65534"])
    assert door._why_full(["unix"]) == ""


async def test_who_is_carried_takes_a_place_of_those_it_belongs_to(tmp_path: Path) -> None:
    """Workers that come through the HTTP door must not take the places of this machine's own."""
    taken: list[Connection] = []

    async def carry(connection: Connection) -> None:
        with pytest.raises(Refusal) if len(taken) == 2 else nullcontext():
            connection.count_as("192.0.2.7:1")
            taken.append(connection)
        await connection.receive_some()

    door = Door(carry, 16, "worker connections", max_per_address=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(door.serve, [open_unix(tmp_path / "s")])
        clients = [await trio.open_unix_socket(tmp_path / "s") for _ in range(3)]
        await until(lambda: door.turned_away)
        assert +door.open == {"tcp": 2, "192.0.2.7": 2, "unix": 1}
        assert [(each.kind, each.peer) for each in taken] == [("tcp", "192.0.2.7:1")] * 2
        for client in clients:
            await client.aclose()
        await until(lambda: not +door.open)
        assert door.open.keys() == {"tcp", "unix"}, "nothing is kept of an address that has gone"
        nursery.cancel_scope.cancel()


async def test_who_is_carried_by_a_node_counts_as_who_he_is(listener: Listener) -> None:
    """All that came by a standby had the places of one address, which was the standby's."""
    peers = iter(["192.0.2.7:1", "192.0.2.7:2", "192.0.2.7:3", "127.0.0.1:9", "127.0.0.1:10"])

    async def greet(connection: Connection) -> Connection:
        connection.peer = next(peers)
        return connection

    door = Door(echo, 16, "control connections", greet, max_per_address=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(door.serve, [listener])
        inside = []
        for _ in range(2):
            inside.append(await connect(listener))
            assert await works(inside[-1])
        assert +door.open == {"tcp": 2, "192.0.2.7": 2}
        async with await connect(listener) as third:
            told = "ERR too-many your address has 2 control connections already; try again later\n"
            assert await read_all(third) == told.encode()
        for _ in range(2):  # of that node's own machine, where its users are
            inside.append(await connect(listener))
            assert await works(inside[-1])
        for stream in inside:
            await stream.aclose()
        await until(lambda: not +door.open)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("is_carried", [True, False])
async def test_only_so_many_are_told_at_a_time_why_they_may_not_come_in(
    listener: Listener, monkeypatch: pytest.MonkeyPatch, is_carried: bool
) -> None:
    """Each takes a descriptor for a second; those that came by a node were not counted."""
    monkeypatch.setattr("cronflowd.net.listeners.FAREWELL_S", 60.0)

    async def greet(connection: Connection) -> Connection:
        connection.peer = "192.0.2.7:1"
        return connection

    door = Door(echo, 200, "control connections", greet if is_carried else None, max_per_address=0)
    door.max_connections = 200 if is_carried else 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(door.serve, [listener])
        async with AsyncExitStack() as stack:
            for number in range(MAX_FAREWELLS + 8):
                told = await read_all(await stack.enter_async_context(await connect(listener)))
                assert bool(told) == (number < MAX_FAREWELLS)
        await until(lambda: not door._farewells)
        async with await connect(listener) as later:
            assert await read_all(later)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("192.0.2.7:40001", "192.0.2.7"), ("[2001:db8:1:2:3::4]:1", "2001:db8:1:2::/64"),
        ("[::ffff:192.0.2.7]:1", "192.0.2.7"), ("[fe80::1%eth0]:1", "fe80::/64"), ("unknown", "unknown"),
    ],
)  # fmt: skip
def test_an_address_is_counted_as_all_that_its_owner_has(peer: str, expected: str) -> None:
    """Whoever has one of IPv6 has 2^64 of them."""
    assert origin(peer) == expected
