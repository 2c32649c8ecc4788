"""What is said to etcd: whom it asks, for how long, and what it takes for an answer."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cronflowd.base.errors import Fatal
from cronflowd.host.config import Settings
from cronflowd.journal import etcd
from cronflowd.journal.etcd import Etcd, EtcdError, Unreachable, after, make_client, why_old
from cronflowd.journal.shared import Room, Shared, make_room
from tests.lib.waiting import PATIENCE_S

Answer = Callable[[str, Any, str], tuple[int, bytes]]


class Gateway(http.server.ThreadingHTTPServer):
    """One member: answers as a test wants it."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self.asked: list[tuple[str, Any, str]] = []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.server_address[1]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Gateway

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        asked = self.path, body, self.headers.get("Authorization", "")
        self.server.asked.append(asked)
        status, data = self.server.answer(*asked)
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        with suppress(OSError):  # whoever asked has had another's answer
            self.end_headers()
            self.wfile.write(data)

    def do_GET(self) -> None:
        self.do_POST()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # its name there
        pass


@pytest.fixture
def member() -> Iterator[Callable[[Answer], Gateway]]:
    """Starts one that answers so."""
    made: list[Gateway] = []

    def start(answer: Answer) -> Gateway:
        made.append(Gateway(answer))
        return made[-1]

    yield start
    for each in made:
        each.shutdown()
        each.server_close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else is asked because a member, or this machine, is slow."""
    monkeypatch.setattr(etcd, "PATIENCE_S", PATIENCE_S)


def always(status: int, told: Any) -> Answer:
    data = told if isinstance(told, bytes) else json.dumps(told).encode()
    return lambda path, body, token: (status, data)


def ask(*members: Gateway, timeout_s: float = 10 * PATIENCE_S) -> tuple[dict[str, Any], Etcd]:
    client = Etcd([each.address for each in members])
    try:
        return client.call("kv/range", {}, timeout_s), client
    finally:
        client.close()


def test_the_next_member_is_asked_when_one_does_not_know(member: Callable[[Answer], Gateway]) -> None:
    """One that is cut off from the others says so; garbage is no answer."""
    cut_off = member(always(503, {"error": "no leader", "code": 14, "message": "etcdserver: no leader"}))
    garbage, good = member(always(200, b"<html>")), member(always(200, {"count": "1"}))
    answer, client = ask(cut_off, garbage, good)
    assert (answer, client.member) == ({"count": "1"}, f"127.0.0.1:{good.address[1]}")


def test_a_member_that_hangs_is_not_waited_for(member: Callable[[Answer], Gateway]) -> None:
    """The lease goes on meanwhile."""
    until = threading.Event()

    def hang(path: str, body: Any, token: str) -> tuple[int, bytes]:
        until.wait(PATIENCE_S)
        return 200, b"{}"

    answer, _ = ask(member(hang), member(always(200, {"count": "2"})))
    until.set()
    assert answer == {"count": "2"}


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_request_that_was_lost_is_asked_again_while_it_is_waited_for(
    member: Callable[[Answer], Gateway], monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    """What a member has sent to etcd's dead leader nobody answers: each cost a second without a decision."""
    monkeypatch.setattr(etcd, "PATIENCE_S", 0.01)
    left, is_over = list(range(lost)), threading.Event()

    def answer(path: str, body: Any, token: str) -> tuple[int, bytes]:
        if not left:
            return 200, b'{"count": "1"}'
        left.pop()
        is_over.wait(PATIENCE_S)
        return 200, b"{}"

    found, _ = ask(member(answer), member(answer))
    is_over.set()
    assert found == {"count": "1"}


def test_who_is_slow_is_still_listened_to(
    member: Callable[[Answer], Gateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others who are asked meanwhile may know nothing."""
    monkeypatch.setattr(etcd, "PATIENCE_S", 0.01)
    is_asked, is_over = threading.Event(), threading.Event()

    def slow(path: str, body: Any, token: str) -> tuple[int, bytes]:
        is_asked.wait(PATIENCE_S)
        return 200, b'{"count": "1"}'

    def silent(path: str, body: Any, token: str) -> tuple[int, bytes]:
        is_asked.set()
        is_over.wait(PATIENCE_S)
        return 200, b"{}"

    answer, client = ask(member(slow), member(silent))
    is_over.set()
    assert answer == {"count": "1"}
    assert client._at == 0


def test_an_etcd_that_is_slow_is_not_asked_more_than_before(
    member: Callable[[Answer], Gateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be slower still."""
    monkeypatch.setattr(etcd, "PATIENCE_S", 0.0)
    first, other = member(always(200, {"count": "1"})), member(always(200, {}))
    client = Etcd([first.address, other.address])
    client._usual_s = PATIENCE_S
    for _ in range(10):
        client.call("kv/range", {}, 10 * PATIENCE_S)
    assert (len(first.asked), len(other.asked)) == (10, 0)
    client.close()


@pytest.mark.usefixtures("patient")
def test_what_etcd_refuses_is_asked_nobody_else(member: Callable[[Answer], Gateway]) -> None:
    """It is an answer: all members have the same."""
    full = member(always(429, {"code": 8, "message": "etcdserver: mvcc: database space exceeded"}))
    other = member(always(200, {}))
    with pytest.raises(EtcdError) as refused:
        ask(full, other)
    assert (refused.value.is_full, refused.value.is_busy, other.asked) == (True, False, [])


@pytest.mark.usefixtures("patient")
def test_an_answer_that_is_no_json_is_told_as_it_is(member: Callable[[Answer], Gateway]) -> None:
    """etcd refuses certificates that way, and proxies say so who is away."""
    other = member(always(200, {"count": "1"}))
    with pytest.raises(EtcdError, match=r"^CommonName will be ignored$"):
        ask(member(always(400, b"CommonName will be ignored\n")), other)
    assert other.asked == []
    assert ask(member(always(502, b"<h1>Bad gateway</h1>")), other)[0] == {"count": "1"}


def test_a_member_that_is_not_defragmented_is_told_of(
    member: Callable[[Answer], Gateway], caplog: pytest.LogCaptureFixture
) -> None:
    """It takes an administrator of etcd; orders must be refused all the same before there is no room."""

    def answer(path: str, body: Any, token: str) -> tuple[int, bytes]:
        if path == "/v3/maintenance/defragment":
            return 403, b'{"code":7,"message":"etcdserver: permission denied"}'
        return 200, b'{"header":{"revision":"7"}}'

    client = Etcd([member(answer).address])
    make_room(Shared(client), [client])
    assert "could not be defragmented: etcdserver: permission denied" in caplog.text
    client.close()


def test_where_nobody_answers_is_said(member: Callable[[Answer], Gateway]) -> None:
    """The last one's reason, with its address."""
    gone = member(always(200, {}))
    gone.shutdown()
    gone.server_close()
    with pytest.raises(Unreachable, match=f"127.0.0.1:{gone.address[1]}: .*refused"):
        ask(gone, timeout_s=1.0)


def test_where_all_refuse_no_answer_is_waited_for(
    member: Callable[[Answer], Gateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks tries again in a moment: one of them may be back long before the patience ends."""
    gone = [member(always(200, {})) for _ in range(2)]
    for each in gone:
        each.shutdown()
        each.server_close()
    waited: list[float] = []
    monkeypatch.setattr(etcd, "_heard", lambda asked, patience_s: waited.append(patience_s) or [])
    with pytest.raises(Unreachable, match="refused"):
        ask(*gone, timeout_s=PATIENCE_S)
    assert waited == []


@pytest.mark.parametrize(
    "why",
    [
        b'{"code":16,"message":"etcdserver: invalid auth token"}',
        b'{"code":3,"message":"etcdserver: revision of auth store is old"}',
    ],
)
def test_a_login_is_renewed_when_its_token_is_no_more(
    member: Callable[[Answer], Gateway], why: bytes
) -> None:
    """Simple ones end after five minutes, and with the member that gave them; JWT with a change of accounts.

    Until it ended by itself a standby knew nothing of whoever leads, and could not take over.
    """
    tokens = iter(("one", "two"))
    good = ""

    def answer(path: str, body: Any, token: str) -> tuple[int, bytes]:
        nonlocal good
        if path == "/v3/auth/authenticate":
            assert body == {"name": "cron", "password": "secret"}
            if token:
                return 401, b'{"code":16,"message":"etcdserver: invalid auth token"}'
            good = next(tokens)
            return 200, json.dumps({"token": good}).encode()
        if token != good or not good:
            return 401, why if token else b'{"code":3,"message":"etcdserver: user name is empty"}'
        return 200, b'{"count":"3"}'

    client = Etcd([member(answer).address], user="cron", password="secret")
    assert client.call("kv/range", {}) == {"count": "3"}
    good = "another member's"
    assert client.call("kv/range", {}) == {"count": "3"}
    client.close()


def test_a_watch_logs_in_first(member: Callable[[Answer], Gateway]) -> None:
    """It would never ring, and the others would find out a second later than they could."""

    def answer(path: str, body: Any, token: str) -> tuple[int, bytes]:
        if path == "/v3/auth/authenticate":
            return 200, b'{"token":"good"}'
        if token != "good":
            return 401, b'{"code":16,"message":"etcdserver: user name is empty"}'
        return 200, b'{"result":{"created":true}}'

    client = Etcd([member(answer).address], user="cron", password="secret")
    assert list(client.watch(b"/a/", 0.2)) == [None]
    client.close()


def test_a_stream_wraps_its_answers(member: Callable[[Answer], Gateway]) -> None:
    """Renewing a lease is one, and its errors come with status 200."""
    answer, _ = ask(member(always(200, {"result": {"TTL": "3"}})))
    assert answer == {"TTL": "3"}
    with pytest.raises(EtcdError, match="not found"):
        ask(member(always(200, {"error": {"grpc_code": 5, "message": "lease not found"}})))


def test_plain_text_stays_on_this_machine(tmp_path: Path) -> None:
    """Or is asked for by name."""
    far = Settings(data=tmp_path, tz="UTC", etcd=(("127.0.0.1", 1), ("etcd.example", 2379)))
    with pytest.raises(Fatal, match=r"etcd\.example:2379") as refused:
        make_client(far)
    assert refused.value.status == 77


@pytest.mark.parametrize(
    ("version", "is_old"),
    [("3.4.21", True), ("3.4.22", False), ("3.4.33", False), ("3.5.0", True), ("3.5.5", True),
     ("3.5.6", False), ("3.6.1", False), ("", True)],
)  # fmt: skip
def test_releases_that_lose_data_are_named(version: str, is_old: bool) -> None:
    """Both faults were found late, in releases that many still run."""
    assert bool(why_old(version)) == is_old


def test_all_keys_below_a_prefix_end_somewhere() -> None:
    """A range has an end, not a prefix."""
    assert b"/a/" < b"/a/\xff\xff" < after(b"/a/") < b"/b"


# --- room -----------------------------------------------------------------------------------------


def seen(size: int, used: int, quota: int = 1000, answered: int = 3) -> Room:
    return Room(3, answered, size, used, quota, "")


def test_room_is_made_only_where_there_are_holes() -> None:
    """A member stands still while it is defragmented: not for nothing."""
    assert not seen(700, 100).is_scarce
    assert seen(850, 100).is_scarce
    assert not seen(850, 840).is_scarce
    assert seen(950, 920).is_full
    assert not seen(950, 500).is_full


def test_the_quota_is_waited_for_as_long_as_every_answer(
    member: Callable[[Answer], Gateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had what the request before had left of its time, and then etcd's default was believed."""
    slow = threading.Event()

    def answer(path: str, body: Any, token: str) -> tuple[int, bytes]:
        if path != "/metrics":
            return 200, b"{}"
        slow.wait(5 * etcd.HEAD_S)
        return 200, b"etcd_server_quota_backend_bytes 8.589934592e+09\n"

    monkeypatch.setattr(etcd, "TIMEOUT_S", PATIENCE_S)
    client = Etcd([member(answer).address])
    with suppress(Unreachable):  # on a slow machine
        client.call("maintenance/status", {}, timeout_s=2 * etcd.HEAD_S)
    assert client.quota() == 8 << 30
    client.close()


def test_room_is_told_in_words() -> None:
    """STATUS shows it, and what is wrong."""
    assert seen(12 << 20, 0, 2 << 30).text == "ok 3/3 12.0M of 2.0G"
    assert Room(3, 2, 1 << 20, 0, 2 << 30, "a:1: refused").text == "2/3 1.0M of 2.0G: a:1: refused"
