"""The gateway's connections to the daemon: whose they are, how long, and what becomes of broken ones."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NoReturn

import orjson
import pytest
import trio
import trio.testing

from cronflowd.base.errors import Refusal
from cronflowd.host.config import WebSettings
from cronflowd.web import line
from cronflowd.web.line import Daemon, NoGateway, Unreachable, account, bearer, stranger
from tests.lib.ports import free_ports
from tests.lib.waiting import until


class Scripted:
    """A daemon's control socket that answers as it was told, and remembers what each connection said."""

    def __init__(self) -> None:
        self.said: list[list[str]] = []  # by connection
        self.answers: dict[str, list[object]] = {}  # of a line; else OK
        self.ends_after = ""  # this line it ends the connection, without an answer
        self.streams: list[trio.SocketStream] = []

    async def serve(self, stream: trio.SocketStream) -> None:
        lines: list[str] = []
        self.said.append(lines)
        self.streams.append(stream)
        rest = b""
        try:
            async for data in stream:
                *found, rest = (rest + data).split(b"\n")
                for each in found:
                    lines.append(each.decode())
                    if self.ends_after and lines[-1].startswith(self.ends_after):
                        await stream.aclose()
                        return
                    rows = self.answers.get(lines[-1], [{"ok": True}])
                    await stream.send_all(b"".join(orjson.dumps(row) + b"\n" for row in rows))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass


@asynccontextmanager
async def scripted(tmp_path: Path) -> AsyncIterator[tuple[Scripted, Daemon]]:
    path = tmp_path / "control.sock"
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(str(path))
    sock.listen()
    server = Scripted()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, server.serve, [trio.SocketListener(sock)])
        daemon = Daemon(WebSettings(control=path))
        try:
            yield server, daemon
        finally:
            await daemon.close_idle(0)
            nursery.cancel_scope.cancel()


async def test_a_request_says_for_whom_it_speaks_each_time(tmp_path: Path) -> None:
    """One connection serves many people, and nothing of one is left for the next."""
    async with scripted(tmp_path) as (server, daemon):
        server.answers["LIST"] = [{"id": 1}, {"id": 2}, {"ok": True, "rows": 2}]
        answer = await daemon.ask("LIST", account("ann", "192.0.2.7"))
        await daemon.ask_all(["GET 1", "GET 2"], account("bob", "192.0.2.8", 7))
        assert [row["id"] for row in answer.rows] == [1, 2]
        ann, bob = "AS ann from=192.0.2.7", "AS bob from=192.0.2.8 session=7"
        assert server.said == [["FORMAT json", "AS", ann, "LIST", bob, "GET 1", "GET 2"]]


async def test_a_token_is_shown_once_and_its_connection_is_nobody_elses(tmp_path: Path) -> None:
    """A sign-in a request would fill AUDIT; and nobody else may speak with what it lets in."""
    async with scripted(tmp_path) as (server, daemon):
        for _ in range(2):
            await daemon.ask("PING", bearer("abc", "192.0.2.7"))
        await daemon.ask("PING", stranger("192.0.2.7"))
        assert server.said == [
            ["FORMAT json", "AS", "AS from=192.0.2.7", "AUTH abc", "PING", "PING"],
            ["FORMAT json", "AS", "AS from=192.0.2.7", "PING"],
        ]


async def test_who_is_not_let_in_asks_nothing(tmp_path: Path) -> None:
    """What the daemon says to AS goes before what it would have said to the rest."""
    async with scripted(tmp_path) as (server, daemon):
        server.answers["AS ann from=x"] = [{"ok": False, "code": "denied", "message": "disabled"}]
        with pytest.raises(Refusal, match="disabled"):
            await daemon.ask("REMOVE 1", account("ann", "x"))


async def test_refusals_of_many_lines_are_each_ones_own(tmp_path: Path) -> None:
    """A page asks several things, and shows what it got."""
    async with scripted(tmp_path) as (server, daemon):
        server.answers["GET 2"] = [{"ok": False, "code": "not-found", "message": "no"}]
        answers = await daemon.ask_all(["GET 1", "GET 2", "GET 3"])
        assert [each.status["ok"] for each in answers] == [True, False, True]


@pytest.mark.parametrize("said", ["GET 1\nCLEAR", "GET 1\rCLEAR", "GET \ud800"])
async def test_a_request_is_never_two_orders(tmp_path: Path, said: str) -> None:
    """A newline in a name would let anybody say anything in somebody's name."""
    async with scripted(tmp_path) as (server, daemon):
        with pytest.raises(Refusal):
            await daemon.ask(said)
        assert server.said == []


async def test_a_connection_that_ended_while_nobody_used_it_is_not_used_again(tmp_path: Path) -> None:
    """The daemon was started anew: the next request must not fail for that."""
    async with scripted(tmp_path) as (server, daemon):
        await daemon.ask("PING")
        await server.streams[0].aclose()
        await daemon.ask("PING")
        assert len(server.said) == 2


async def test_an_order_that_was_cut_off_is_not_said_twice(tmp_path: Path) -> None:
    """Whether it was carried out is not known, so whoever asked is told."""
    async with scripted(tmp_path) as (server, daemon):
        server.ends_after = "RUN"
        with pytest.raises(Unreachable, match="closed"):
            await daemon.ask("RUN 1")
        assert [lines[-1] for lines in server.said] == ["RUN 1"]


async def test_a_daemon_that_is_not_there_is_said(tmp_path: Path) -> None:
    """With the place where it should be."""
    daemon = Daemon(WebSettings(control=tmp_path / "none.sock"))
    with pytest.raises(Unreachable, match=r"none\.sock: No such file"):
        await daemon.ask("PING")


async def test_why_nobody_is_there_is_said_in_the_systems_words() -> None:
    """Not in those of the library, which say how often was tried."""
    daemon = Daemon(WebSettings(control=("127.0.0.1", *free_ports(1))))
    with pytest.raises(Unreachable, match=r"^127\.0\.0\.1:[0-9]+: Connection refused$"):
        await daemon.ask("PING")


@pytest.mark.parametrize("code", ["denied", "auth-required"])
async def test_a_daemon_that_lets_us_speak_for_nobody_is_no_fault_of_whoever_asks(
    tmp_path: Path, code: str
) -> None:
    """A wrong --control or token sent everybody to sign in, round and round."""
    async with scripted(tmp_path) as (server, daemon):
        server.answers["AS"] = [{"ok": False, "code": code, "message": "this takes the token file"}]
        for caller in account("ann", "x"), bearer("abc", "x"), stranger("x"):
            with pytest.raises(NoGateway, match=r"control\.sock: .* no gateway: this takes the token file"):
                await daemon.ask("PING", caller)
        assert server.said == [["FORMAT json", "AS"]] * 3


async def test_a_daemon_that_does_not_answer_is_given_up(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """And its connection, on which an answer may still come, is used no more."""
    async with scripted(tmp_path) as (server, daemon):
        server.answers["WHY 1"] = []
        with pytest.raises(Unreachable, match="no answer"):
            await daemon.ask("WHY 1")
        await daemon.ask("PING")
        assert server.said == [["FORMAT json", "AS", "AS", "WHY 1"], ["FORMAT json", "AS", "AS", "PING"]]


async def test_no_more_than_so_many_connections_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests wait for one another; the daemon's places are for people with netcat, too."""
    monkeypatch.setattr(line, "MAX_CONNECTIONS", 3)
    async with scripted(tmp_path) as (server, daemon), trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(_ask, daemon.ask)
    assert len(server.said) <= 3
    assert sum(said.count("PING") for said in server.said) == 20


async def _ask(ask: Callable[[str], Awaitable[object]]) -> None:
    await ask("PING")


async def test_connections_that_nobody_uses_are_closed(tmp_path: Path) -> None:
    """The daemon's places are few; those of a token would stay for each that was ever shown."""
    async with scripted(tmp_path) as (server, daemon):
        await daemon.ask("PING")
        await daemon.ask("PING", bearer("abc", "x"))
        await daemon.close_idle(3600)
        await daemon.ask("PING")
        assert len(server.said) == 2
        await daemon.close_idle(0)
        await daemon.ask("PING")
        assert len(server.said) == 3


async def test_what_is_followed_has_a_connection_of_its_own(tmp_path: Path) -> None:
    """And leaves it behind when nobody reads any more."""
    async with scripted(tmp_path) as (server, daemon):
        server.answers["WATCH"] = [{"ok": True}, {"seq": 1}]
        async with daemon.follow("WATCH", account("ann", "x")) as connection:
            assert [await connection.read_row(), await connection.read_row()] == [{"ok": True}, {"seq": 1}]
        assert server.said == [["FORMAT json", "AS", "AS ann from=x", "WATCH"]]


async def test_nobody_follows_so_much_that_others_find_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One account took all; then every other reader, and the gateway's own WATCH, waited for ever."""
    monkeypatch.setattr(line, "MAX_FOLLOWING_EACH", 2)
    monkeypatch.setattr(line, "MAX_FOLLOWING", 3)
    async with scripted(tmp_path) as (server, daemon), AsyncExitStack() as open_:

        async def follow(caller: line.Caller) -> None:
            await open_.enter_async_context(daemon.follow("WATCH", caller))

        ann, bob = account("ann", "192.0.2.7", 3), account("bob", "192.0.2.7", 4)
        for caller in (ann, account("ann", "192.0.2.8", 5), bob):
            await follow(caller)
        for caller in (ann, bob):
            with pytest.raises(Refusal, match="no place"):
                await follow(caller)
        await follow(line.GATEWAY)
        await open_.aclose()
        await follow(bob)
        assert len(server.said) == 5


async def test_an_answer_without_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All its rows would be kept before anybody sees one; those of one answer after the other are no such."""
    monkeypatch.setattr(line, "MAX_REPLY_BYTES", 100)
    async with scripted(tmp_path) as (server, daemon):
        row = {"fd": 1, "text": "x" * 40}
        server.answers["LOG 1"] = [row, {"ok": True}]
        server.answers["LOG 2"] = [row, row, {"ok": True}]
        for _ in range(5):
            assert (await daemon.ask("LOG 1")).rows == [row]
        with pytest.raises(Unreachable, match="more than 100 bytes"):
            await daemon.ask("LOG 2")


async def test_lines_that_are_passed_on_take_nobody_s_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each may take as long as its sender likes; what others ask for is answered meanwhile."""
    monkeypatch.setattr(line, "MAX_CONNECTIONS", 1)
    monkeypatch.setattr(line, "MAX_PASSING_EACH", 2)
    monkeypatch.setattr(line, "MAX_PASSING", 3)
    ann, bob, eve = (account(name, "192.0.2.7") for name in ("ann", "bob", "eve"))
    async with scripted(tmp_path) as (server, daemon), trio.open_nursery() as nursery:
        server.answers["SLOW"] = []
        for caller in (ann, ann, bob):
            nursery.start_soon(daemon.pass_on, "SLOW", caller)
        await until(lambda: [lines[-1:] for lines in server.said] == [["SLOW"]] * 3)
        for caller in (ann, eve):
            with pytest.raises(Refusal, match="no place") as caught:
                await daemon.pass_on("LIST", caller)
            assert caught.value.code == "too-many"
        assert (await daemon.ask("LIST", ann)).status == {"ok": True}
        assert ["FORMAT json", "AS", "AS bob from=192.0.2.7 only=yes", "SLOW"] in server.said
        nursery.cancel_scope.cancel()
    assert daemon._passing._known.total() == 0


async def test_a_token_that_was_right_is_shown_first(tmp_path: Path) -> None:
    """Of a file of several each wrong one costs a wait, and a row of AUDIT, with each line passed on."""
    async with scripted(tmp_path) as (server, _):
        server.answers["AUTH old"] = [{"ok": False, "code": "denied", "message": "no"}]
        daemon = Daemon(WebSettings(control=tmp_path / "control.sock"), [b"old", b"new", b"newer"])
        for _ in range(2):
            await daemon.pass_on("LIST", account("ann", "192.0.2.7"))
        shown = [[word for word in lines if word.startswith("AUTH")] for lines in server.said]
        assert shown == [["AUTH old", "AUTH new"], ["AUTH new"]]


async def test_a_token_that_the_file_has_no_more_is_not_shown_again(tmp_path: Path) -> None:
    """The daemon took it just while the file was read again, and so it stood before the new one for ever."""
    file, ann = tmp_path / "token", account("ann", "192.0.2.7")
    file.touch(0o600)
    async with scripted(tmp_path) as (server, _), trio.open_nursery() as nursery:
        server.answers["AUTH old"] = []
        settings = WebSettings(control=tmp_path / "control.sock", token_file=file)
        daemon = Daemon(settings, [b"old"])
        nursery.start_soon(daemon.pass_on, "LIST", ann)
        await until(lambda: [lines[-1:] for lines in server.said] == [["AUTH old"]])
        file.write_text("new\n")
        daemon.read_tokens()
        await server.streams[0].send_all(b'{"ok":true}\n')
        await until(lambda: server.said[0][-1] == "LIST")
        await daemon.pass_on("LIST", ann)
        assert [word for word in server.said[1] if word.startswith("AUTH")] == ["AUTH new"]


async def test_wrong_words_take_no_place_of_lines_that_are_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guesses from many addresses would leave none for those who have shown already who they are."""
    for name, most in ("MAX_PASSING", 2), ("MAX_PASSING_EACH", 1), ("MAX_KNOCKING_EACH", 1):
        monkeypatch.setattr(line, name, most)
    ann, here, there = account("ann", "192.0.2.7"), bearer("right", "192.0.2.7"), bearer("right", "192.0.2.8")
    async with scripted(tmp_path) as (server, daemon), trio.open_nursery() as nursery:
        await daemon.ask("PING", here)
        await daemon.ask("PING", there)
        for address in (7, 8):
            for number in range(2):  # one is compared, one waits
                server.answers[f"AUTH wrong{number}"] = []
                nursery.start_soon(daemon.pass_on, "LIST", bearer(f"wrong{number}", f"192.0.2.{address}"))
        await until(
            lambda: [each.statistics().tasks_waiting for each in daemon._by_address.values()] == [1, 1]
        )
        for caller in (ann, here, there):
            assert (await daemon.pass_on("LIST", caller)).status == {"ok": True}
        server.answers["SLOW"] = []
        nursery.start_soon(daemon.pass_on, "SLOW", here)
        await until(lambda: server.said[-1][-1:] == ["SLOW"])
        with pytest.raises(Refusal, match="no place"):  # it is one token, wherever it is shown
            await daemon.pass_on("LIST", there)
        assert (await daemon.pass_on("LIST", ann)).status == {"ok": True}
        nursery.cancel_scope.cancel()


async def test_a_word_that_is_compared_for_too_long_is_told_as_one_of_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon is there, whatever is passed on: it is others at that address that it waits for."""
    monkeypatch.setattr(line, "REPLY_S", 0.1)
    async with scripted(tmp_path) as (server, daemon):
        server.answers["AUTH wrong"] = []
        for ask in daemon.ask, daemon.pass_on:
            with pytest.raises(Refusal, match="too many words"):
                await ask("LIST", bearer("wrong", "192.0.2.7"))


# --- words that may be wrong --------------------------------------------------------------------


async def test_the_gateway_is_itself_again_after_it_spoke_for_others(tmp_path: Path) -> None:
    """What it asks for itself would be asked by whoever came before, or by nobody."""
    async with scripted(tmp_path) as (server, daemon):
        await daemon.ask("PING", account("ann", "x"))
        await daemon.ask("STATUS")
        assert server.said == [["FORMAT json", "AS", "AS ann from=x", "PING", "AS", "STATUS"]]


@pytest.mark.parametrize("caller", [account("ann", "192.0.2.7", 3), bearer("abc", "192.0.2.7")])
async def test_who_is_not_taken_for_whom_he_says_signs_in_first(tmp_path: Path, caller: line.Caller) -> None:
    """Which is something else than a right that he has not: 401, not 403."""
    async with scripted(tmp_path) as (server, daemon):
        server.answers[caller.words[-1].decode()] = [{"ok": False, "code": "denied", "message": "over"}]
        with pytest.raises(Refusal, match="over") as caught:
            await daemon.ask("PING", caller)
        assert caught.value.code == "auth-required"
        with pytest.raises(Refusal, match="over") as caught:
            async with daemon.follow("WATCH", caller):
                pass
        assert caught.value.code == "auth-required"


async def test_whoever_waits_for_a_wrong_word_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are sent: the places of those who have signed in, and of other addresses, are theirs."""
    monkeypatch.setattr(line, "MAX_CONNECTIONS", 1)
    async with scripted(tmp_path) as (server, daemon), trio.open_nursery() as nursery:
        server.answers["AUTH wrong"] = server.answers["AUTH ann wrong"] = []  # the daemon takes its time
        for number in range(50):
            nursery.start_soon(_be_refused, daemon, bearer("wrong", "192.0.2.7"), f"GET {number}")
            nursery.start_soon(_be_refused, daemon, stranger("192.0.2.7"), "AUTH ann wrong")
        await trio.testing.wait_all_tasks_blocked()
        assert len(server.said) == line.MAX_KNOCKING_EACH
        for other in account("bob", "192.0.2.7", 1), bearer("right", "192.0.2.8"), stranger("192.0.2.8"):
            assert (await daemon.ask("PING", other)).status == {"ok": True}
        nursery.cancel_scope.cancel()


async def _be_refused(daemon: Daemon, caller: line.Caller, said: str) -> None:
    with pytest.raises(Refusal, match="too many"):
        await daemon.ask(said, caller)


async def test_who_waits_too_long_to_be_compared_is_told_to_come_later(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The daemon is well: his own guesses are what he waits for. For tokens it was not to be reached."""
    async with scripted(tmp_path) as (server, daemon):
        server.answers["AUTH ann wrong"] = server.answers["AUTH wrong"] = []
        await _be_refused(daemon, stranger("192.0.2.7"), "AUTH ann wrong")
        await _be_refused(daemon, bearer("wrong", "192.0.2.7"), "GET 1")
        assert not daemon._by_address


async def test_a_row_that_tells_how_many_were_ok_is_no_status(tmp_path: Path) -> None:
    """STATS has a column `ok`; taken for the end, what is left of it would be the next one's answer."""
    async with scripted(tmp_path) as (server, daemon):
        server.answers["STATS"] = [{"period": "all", "fires": 2, "ok": 1}, {"ok": True, "rows": 1}]
        assert (await daemon.ask("STATS")).rows == [{"period": "all", "fires": 2, "ok": 1}]


async def test_a_door_that_can_resolve_no_name_for_now_finds_no_daemon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That takes a thread, and where none could be started whoever came was told of a fault of ours."""

    async def refuse(*_: object) -> NoReturn:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio, "open_tcp_stream", refuse)
    with pytest.raises(Unreachable, match="temporarily unavailable"):
        await Daemon(WebSettings(control=("server", 5050))).ask("PING")
