"""Who is let in on the control port, how he is told of, and what a stranger may cost."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from cronflowd.net import clients
from cronflowd.net.clients import Session
from tests.lib.client_peer import FakeCore, about, connected


@pytest.fixture
def clock() -> MockClock:
    """Time that leaps as soon as everybody waits."""
    return MockClock(autojump_threshold=0)


# --- who is let in ----------------------------------------------------------------------------

HTTP = b"POST / HTTP/1.1\r\nHost: localhost:5050\r\n\r\nADD 1\r\n"


@pytest.mark.parametrize("data", [HTTP, b"\x16\x03\x01\x00\xffADD 1\nADD 1\n", b"PRI * HTTP/2.0\nADD 1\n"])
@pytest.mark.parametrize("piece", [1, 5, 1000])
async def test_who_speaks_http_or_tls_is_closed_and_nothing_is_executed(
    clock: MockClock, data: bytes, piece: int
) -> None:
    """Any web page can make a browser send lines to a local port."""
    core = FakeCore()
    async with connected(core) as peer:
        with pytest.raises(trio.BrokenResourceError):
            for at in range(0, len(data), piece):
                await peer.send(data[at : at + piece])
                await trio.testing.wait_all_tasks_blocked()
            await peer.stream.receive_some()
            await peer.send(b"ADD 1\n")
        assert core.left == 1
    assert core.handled == []


async def test_our_own_get_is_no_http(clock: MockClock) -> None:
    """`GET 7` asks for a task; and HTTP later than the first line is just a bad line."""
    async with connected(FakeCore()) as peer:
        await peer.send(b"GET 7\nPUT / HTTP/1.1\n")
        await peer.read(b"OK 7\nERR unknown-command PUT is no verb\n")


async def test_before_authentication_lines_are_short_and_time_is_too(clock: MockClock) -> None:
    """Who has no token shall cost little. AUTH widens the limit for all that comes with it."""
    core = FakeCore(must_authenticate=True)
    long = b"ECHO " + b"x" * 2000 + b"\n"
    async with connected(core) as peer:
        await peer.send(b"ECHO a\n" + long + b"AUTH token\n" + long)
        await peer.read(b"ERR auth-required AUTH first\n")
        await peer.read(
            b"ERR too-long the line is longer than 1024 bytes; it was not read\nOK\nOK " + long[5:]
        )
        await peer.ends_after(300)


async def test_who_does_not_authenticate_in_time_is_told_and_closed(clock: MockClock) -> None:
    """Also who talks all the while."""
    core = FakeCore(must_authenticate=True)
    async with connected(core) as peer:
        await trio.sleep(2)
        await peer.send(b"# hm\n")
        await trio.sleep(7.9)
        await peer.send(b"# hm\n")
        assert await peer.read_all() == (
            b"ERR auth-required there was no AUTH within 10 s\n",
            about(10),
        )


# --- what a stranger may cost ----------------------------------------------------------------


async def test_a_line_in_tiny_pieces_is_not_read_again_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work for a line grows with its length, not with the square of it: a stranger chooses the pieces."""
    core = FakeCore()
    asked: list[int] = []
    looked: list[int] = []
    monkeypatch.setattr(FakeCore, "allows_unfinished", lambda _, line: asked.append(len(line)) or False)
    monkeypatch.setattr(clients, "looks_foreign", lambda first: looked.append(len(first)))
    pieces, size = 200, 300
    async with connected(core) as peer:
        await peer.send(b"ECHO ")
        for _ in range(pieces):
            await peer.send(b"x" * size)
            await trio.testing.wait_all_tasks_blocked()
        await peer.send(b"\n")
        await trio.testing.wait_all_tasks_blocked()
        assert len(core.handled) == 1
    assert len(asked) >= pieces
    assert max(asked) <= clients.MAX_START
    assert sum(looked) <= 4 * pieces * size


@pytest.mark.parametrize("line", [b"\n", b"\r\n", b" \n", b"#\n", b"# x\n", b"\xff\n", b"x\n"])
@pytest.mark.parametrize("must_authenticate", [True, False])
async def test_no_stranger_holds_the_loop(line: bytes, must_authenticate: bool) -> None:
    """Before it is known who speaks, every slice of a flood of lines leaves the others a turn."""
    core = FakeCore(must_authenticate=must_authenticate)
    turns: list[int] = []

    async def other(task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        while True:
            turns.append(len(core.batches))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery, connected(core) as peer:
        await nursery.start(other)
        async with trio.open_nursery() as talk:
            talk.start_soon(peer.read_all)
            await peer.send(line * (30_000 // len(line)))
            await peer.stream.send_eof()
        nursery.cancel_scope.cancel()
    assert max(after - before for before, after in pairwise(turns)) <= 4


@pytest.mark.parametrize(
    ("name", "who"),
    [
        ("", "192.0.2.7:40001"),
        ("ann", "ann@192.0.2.7:40001"),
        ("root via sudo", '"root via sudo"@192.0.2.7:40001'),
        ("ann@127.0.0.1:1", '"ann@127.0.0.1:1"@192.0.2.7:40001'),
        ("unix:pid=1,uid=0", '"unix:pid=1,uid=0"@192.0.2.7:40001'),
        ('x"@127.0.0.1:1', '"x\'@127.0.0.1:1"@192.0.2.7:40001'),
        ("\u202eann", '"\\u202eann"@192.0.2.7:40001'),
        ("a" * 5000, f"{'a' * 64}@192.0.2.7:40001"),
    ],
)
def test_a_name_is_told_with_the_address_that_claims_it(name: str, who: str) -> None:
    """Anybody may say that he is root; HISTORY tells from where, and no name looks like an address."""
    session = Session(None, "192.0.2.7:40001", "tcp", name)  # type: ignore[arg-type]
    assert session.who == who


@pytest.mark.parametrize(("uid", "user"), [(0, "unix:root"), (4_000_000_001, "unix:uid=4000000001")])
def test_over_the_unix_socket_it_is_the_user_who_is_told(uid: int, user: str) -> None:
    """A process number means nothing an hour later; that root did it still does."""
    session = Session(None, f"unix:pid=4242,uid={uid}", "unix")  # type: ignore[arg-type]
    assert session.who == user
    session.name, session.told_as = "ann", None
    assert session.who == f"ann@{user}"
    assert Session(None, "unix:pid=1,uid=0", "tcp").who == "unix:pid=1,uid=0"  # type: ignore[arg-type]
