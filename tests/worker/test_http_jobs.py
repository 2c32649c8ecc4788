"""Jobs that are requests, against real servers; and which addresses they may go to."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trustme

from cronflowd.base.addresses import why_refused
from cronflowd.base.errors import Refusal
from cronflowd.host.config import WorkerSettings
from cronflowd.net.lines import MAX_LINE_BYTES
from cronflowd.tasks.kinds import expects, split_request
from cronflowd.tasks.options import DEFAULTS, set_options
from cronflowd.tasks.task import make_spec
from cronflowd.worker.executors import client, http, make_table
from cronflowd.worker.executors.job import Ended, Job, Order, format_done
from cronflowd.worker.executors.output import Output
from tests.lib.descriptors import open_descriptors
from tests.lib.http_server import HttpServer, http_server
from tests.lib.job_processes import ending_of
from tests.lib.out_lines import take_all, texts_of
from tests.lib.waiting import PATIENCE_S, until

LIMIT = 64 * 1024


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with http_server() as found:
        yield found


def make_job(command: str, kind: str = "http", **options: str) -> Job:
    texts = {key.replace("__", "."): text for key, text in options.items()}
    return Job(Order("7 1", {"type": kind, **texts}, command), Output("7", LIMIT), grace_s=5.0)


async def carry_out(job: Job, **settings: str) -> Ended:
    with trio.fail_after(PATIENCE_S):
        ended = await ending_of(make_table(WorkerSettings(**settings))[job.order.type], job)
    job.output.end()
    return ended


def said(job: Job) -> list[str]:
    return texts_of(take_all(job.output))


# --- requests ---------------------------------------------------------------------------


async def test_the_answer_is_the_output_and_its_status_the_end(server: HttpServer) -> None:
    """The person reads in LOG what a terminal would have shown, and how long it took."""
    job = make_job(f"GET {server.url}/a?b=c#d")
    ended = await carry_out(job)
    assert (ended.exit, ended.timed_out, job.is_started) == (0, False, True)
    assert re.fullmatch(r"HTTP/1\.1 200 OK; 11 bytes in 0\.\d{3} s", ended.why)
    assert said(job) == ["1 hello", "1 world\\"]
    (asked,) = server.asked
    assert (asked.method, asked.path, asked.body) == ("GET", "/a?b=c", b"")
    assert asked.headers["host"] == f"127.0.0.1:{server.port}"
    assert asked.headers["user-agent"].startswith("cronflowd/")
    assert asked.headers["accept-encoding"] == "identity"
    assert "content-length" not in asked.headers


@pytest.mark.parametrize(
    ("method", "options", "body", "kind"),
    [
        ("post", {"payload": '{"a": 1.0}'}, b'{"a": 1.0}', "application/json"),
        ("PUT", {"body": "naïve"}, "naïve".encode(), "text/plain; charset=utf-8"),
        ("PUT", {"body": "a=1", "header__content-TYPE": "application/x-www-form-urlencoded"}, b"a=1",
         "application/x-www-form-urlencoded"),
        ("POST", {}, b"", None),
        ("PURGE", {"header__Host": "other.example"}, b"", None),
    ],
)  # fmt: skip
async def test_a_request_is_sent_as_it_was_written(
    server: HttpServer, method: str, options: dict[str, str], body: bytes, kind: str | None
) -> None:
    """JSON byte for byte: to write a number anew might change it."""
    await carry_out(make_job(f"{method} {server.url}/", header__X_A=" ü ", **options))
    (asked,) = server.asked
    assert (asked.method, asked.body, asked.headers.get("content-type")) == (method.upper(), body, kind)
    assert asked.headers["x_a"].encode("latin-1").decode() == "ü"
    assert asked.headers["host"] == options.get("header__Host", f"127.0.0.1:{server.port}")


@pytest.mark.parametrize(
    ("path", "options", "code", "why"),
    [
        ("/status?404", {}, 22, r"HTTP/1\.1 404 Not Found; 15 bytes in .* s; expected is 200-299"),
        ("/status?404", {"expect": "200,404"}, 0, "404"),
        ("/status?200", {"expect": "301-308"}, 22, "expected is 301-308"),
        ("/redirect", {}, 22, r"302 Found to /secret \(redirects are not followed\)"),
        ("/redirect", {"expect": "302"}, 0, "to /secret"),
        ("/cut", {}, 18, "200 OK; 5 bytes"),
        ("/nothing", {}, 52, "no answer"),
        ("/nonsense", {}, 8, "no answer"),
    ],
)
async def test_every_end_has_curl_s_exit_code_and_a_reason(
    server: HttpServer, path: str, options: dict[str, str], code: int, why: str
) -> None:
    """Scripts know the numbers; and a redirect is never followed to where nobody looked."""
    ended = await carry_out(make_job(f"GET {server.url}{path}", **options))
    assert ended.exit == code
    assert re.search(why, ended.why), ended.why
    assert len(server.asked) == 1


async def test_head_has_no_body(server: HttpServer) -> None:
    """Its Content-Length is about what GET would bring."""
    job = make_job(f"HEAD {server.url}/")
    assert (await carry_out(job)).exit == 0
    assert said(job) == []


async def test_a_server_s_long_words_do_not_make_a_line_too_long(server: HttpServer) -> None:
    """A DONE line over the limit would cost the worker its connection, again and again."""
    ended = await carry_out(make_job(f"GET {server.url}/long"))
    assert ended.exit == 22
    assert len(format_done("7 1", ended).encode()) < 5_000
    assert len(format_done("7 1", Ended(1, why="\u2028" * 60_000)).encode()) < MAX_LINE_BYTES


async def test_a_server_without_an_answer_meets_the_timeout(server: HttpServer) -> None:
    """timeout= is the whole time, from the look-up to the last byte."""
    for timeout in ("0.1", "1", "10"):
        ended = await carry_out(make_job(f"GET {server.url}/silent", timeout=timeout))
        assert (ended.exit, ended.timed_out) == (28, True)
        if server.asked:  # else it was over before anything was asked
            break
    assert "no answer after " in ended.why
    await until(server.gone.is_set)


async def test_an_endless_answer_costs_no_memory_and_meets_the_timeout(server: HttpServer) -> None:
    """Of a flood the head and the tail are kept, as of any job's."""
    for timeout in ("0.3", "3", "30"):
        job = make_job(f"GET {server.url}/endless", timeout=timeout)
        ended = await carry_out(job)
        assert (ended.exit, ended.timed_out) == (28, True)
        if job.output.omitted:  # else so much had not come by then
            break
    assert job.output.omitted > 0
    lines = said(job)
    assert lines[0] == "1 000000000"
    assert sum(map(len, lines)) < 2 * LIMIT


async def test_a_kill_ends_the_request(server: HttpServer) -> None:
    """CANCEL must not wait for somebody else's server."""
    job = make_job(f"GET {server.url}/silent")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_kill_when_asked, job, server)
        assert await carry_out(job) == Ended(143, signal=15)
    await until(server.gone.is_set)


async def _kill_when_asked(job: Job, server: HttpServer) -> None:
    await until(lambda: server.asked)
    job.kill()


async def test_nobody_there_is_told_from_no_such_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """6 and 7, as curl says it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        ended = await carry_out(make_job(f"GET http://localhost:{taken.getsockname()[1]}/"))
    assert ended.exit == 7
    assert "127.0.0.1: Connection refused" in ended.why
    ended = await carry_out(make_job("GET http://no-such-host.invalid/"))
    assert ended.exit == 6
    assert ended.why.startswith("no-such-host.invalid: ")


async def test_a_name_that_cannot_be_looked_up_for_want_of_a_thread_is_told_as_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where other jobs had used up all processes, it was `a fault of the worker`, with a traceback."""

    async def without(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio.socket, "getaddrinfo", without)
    ended = await carry_out(make_job("GET http://example.org/"))
    assert (ended.exit, ended.why[:41]) == (6, "example.org: no thread can be started (ul")


async def test_a_connection_that_does_not_come_about_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A firewall that drops everything must not hold a slot for ever."""

    async def never(*_: object) -> list[str]:
        await trio.sleep_forever()
        return []

    monkeypatch.setattr(client, "_look_up", never)
    monkeypatch.setattr(client, "CONNECT_S", 0.05)
    ended = await carry_out(make_job("GET http://example.org/"))
    assert (ended.exit, ended.timed_out) == (28, False)


async def test_the_environment_s_proxy_is_not_used(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy would connect to where this worker must not."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert (await carry_out(make_job(f"GET {server.url}/"))).exit == 0


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("GET http://xn--/", 3),
        ("GET http://[::1%lo]/", 126),
        ("GET http://localhost/\x7f", 3),
        ("GET\x00 http://127.0.0.1:1/", 126),
    ],
)
async def test_an_order_that_no_model_has_checked_ends_too(command: str, code: int) -> None:
    """The daemon may be another one; whatever it sends, there is an end and a reason."""
    ended = await carry_out(make_job(command))
    assert ended.exit in (code, 3, 6, 7, 126)
    assert ended.why


async def test_no_descriptor_is_left_over(server: HttpServer) -> None:
    """A worker lives for months."""
    await carry_out(make_job(f"GET {server.url}/"))
    before = open_descriptors()
    for path in ("/", "/cut", "/nothing", "/redirect"):
        await carry_out(make_job(f"GET {server.url}{path}"))
        await carry_out(make_job(f"GET {server.url}/silent", timeout="0.01"))
    await until(lambda: open_descriptors() <= before)


def test_without_the_client_the_worker_offers_no_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """can= names what is possible here, so a run waits for a worker that can."""
    assert {"http", "webhook"} <= make_table(WorkerSettings()).keys()
    monkeypatch.setattr(http, "find_spec", lambda name: None)
    assert list(make_table(WorkerSettings())) == ["shell", "script", "echo", "sleep", "calculate", "custom"]


# --- TLS --------------------------------------------------------------------------------


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[trustme.CA]:
    """An authority that this machine trusts while the test runs."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    client.tls_context.cache_clear()
    yield authority
    client.tls_context.cache_clear()


def server_context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


async def test_a_server_with_a_good_certificate_is_trusted(trusted: trustme.CA) -> None:
    """By name and by number."""
    with http_server(server_context(trusted, "localhost", "127.0.0.1")) as server:
        assert (await carry_out(make_job(f"GET {server.url}/"))).exit == 0
        assert (await carry_out(make_job(f"GET https://localhost:{server.port}/"))).exit == 0


async def test_a_certificate_that_proves_nothing_is_refused(trusted: trustme.CA) -> None:
    """Of another authority, or of another name: nothing is sent."""
    for authority, name in ((trustme.CA(), "localhost"), (trusted, "other.example")):
        with http_server(server_context(authority, name)) as server:
            ended = await carry_out(make_job(f"POST https://localhost:{server.port}/", body="secret"))
            assert ended.exit == 60
            assert "certificate is not trusted" in ended.why
            assert server.asked == []


async def test_a_server_without_tls_is_told(server: HttpServer) -> None:
    """A wrong port is the usual reason."""
    ended = await carry_out(make_job(f"GET https://127.0.0.1:{server.port}/"))
    assert ended.exit == 35
    assert "TLS" in ended.why


# --- addresses --------------------------------------------------------------------------

NEVER = (
    "169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%lo", "febf::1", "fd00:ec2::254", "100.100.100.200",
    "fd20:ce::254", "168.63.129.16", "::ffff:169.254.169.254", "::ffff:a9fe:a9fe", "::169.254.169.254",
    "64:ff9b::169.254.169.254", "64:ff9b:1::a9fe:a9fe", "2002:a9fe:a9fe::", "2002:a9fe:a9fe::1", "224.0.0.1",
    "ff02::1", "::ffff:0:169.254.169.254",
)  # fmt: skip
PRIVATE = (
    "127.0.0.1", "127.1.2.3", "::1", "0.0.0.0", "::", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1",
    "198.18.0.1", "203.0.113.7", "240.0.0.1", "255.255.255.255", "fc00::1", "fd12::1", "2001:db8::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::10.0.0.1", "2002:7f00:1::", "::127.0.0.1",
    "2001:0:4136:e378:8000:63bf:80ff:fffe", "fec0::1", "::ffff:0:127.0.0.1",
)  # fmt: skip
PUBLIC = ("1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1")


@pytest.mark.parametrize("address", NEVER)
def test_metadata_and_link_local_addresses_are_never_reached(address: str) -> None:
    """Whoever may add a task must not be given the machine's own credentials, in whatever notation."""
    assert why_refused(address, private=True)
    assert why_refused(address, private=False)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_reached_only_where_the_worker_says_so(address: str) -> None:
    """Jobs call services of their own machine, unless whoever runs the worker does not want that."""
    assert not why_refused(address, private=True)
    assert "http_private" in why_refused(address, private=False)


@pytest.mark.parametrize("address", PUBLIC)
def test_the_rest_of_the_world_is_reached(address: str) -> None:
    """Also through a translator."""
    assert not why_refused(address, private=False)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "127.1", "0x7f.1", "2130706433", "017700000001", "0", "[::1]", "[::]",
        "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "127.0.0.1.", "LOCALHOST", "①②⑦.0.0.1", "%31%32%37.0.0.1",
    ],
)  # fmt: skip
async def test_no_notation_leads_around_the_refusal(server: HttpServer, host: str) -> None:
    """What is looked at is the address that a connection would go to."""
    ended = await carry_out(make_job(f"GET http://{host}:{server.port}/"), http_private="refuse")
    assert ended.exit in (3, 6, 126), ended
    assert ended.exit != 126 or "http_private" in ended.why
    assert server.asked == []


async def test_metadata_is_refused_also_where_private_addresses_are_welcome() -> None:
    """No packet is sent."""
    for host in ("169.254.169.254", "[fd00:ec2::254]", "2852039166", "[::ffff:a9fe:a9fe]"):
        ended = await carry_out(make_job(f"GET http://{host}/latest/meta-data/"))
        assert ended.exit == 126
        assert "metadata" in ended.why


async def test_a_name_that_changes_its_mind_is_looked_up_once(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look-up that judges and another that connects could find two addresses (DNS rebinding)."""
    real, looked_up = trio.socket.getaddrinfo, []

    async def fickle(host: str, port: int, *args: object, **options: object) -> object:
        if host != "fickle.example":
            assert re.fullmatch("[0-9.]+", str(host)), "only numbers after the first look-up"
            return await real(host, port, *args, **options)
        looked_up.append(host)
        return await real("127.0.0.1" if len(looked_up) == 1 else "169.254.169.254", port, *args, **options)

    monkeypatch.setattr(trio.socket, "getaddrinfo", fickle)
    assert (await carry_out(make_job(f"GET http://fickle.example:{server.port}/"))).exit == 0
    assert looked_up == ["fickle.example"]
    assert (await carry_out(make_job(f"GET http://fickle.example:{server.port}/"))).exit == 126


async def test_of_several_addresses_only_good_ones_are_tried(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one after the other: a name often has an address that does not answer."""

    async def several(host: str, port: int) -> list[str]:
        return ["169.254.169.254", "127.0.0.2", "127.0.0.1"]

    monkeypatch.setattr(client, "_look_up", several)
    assert (await carry_out(make_job(f"GET http://several.example:{server.port}/"))).exit == 0


# --- the model --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "good", "bad"),
    [
        ("200-299", (200, 299), (199, 300)),
        ("200,204,301", (200, 204, 301), (201, 300)),
        ("404,200-204", (404, 203), (205,)),
    ],
)
def test_expect_names_codes_and_ranges(text: str, good: tuple[int, ...], bad: tuple[int, ...]) -> None:
    """Both ends of a range belong to it."""
    assert all(expects(text, status) for status in good)
    assert not any(expects(text, status) for status in bad)


@pytest.mark.parametrize(
    "text", ["", "20", "2000", "200-", "-200", "200,", "200 204", "2xx", "٢٠٠", "300-200"]
)
def test_what_is_no_status_is_refused(text: str) -> None:
    """When it is added, not at night."""
    if text:
        with pytest.raises(Refusal, match="status"):
            set_options(DEFAULTS, {"expect": text})


@pytest.mark.parametrize(
    ("command", "request_"),
    [("get http://x", ("GET", "http://x")), ("Purge  http://x ", ("Purge", "http://x"))],
)
def test_a_known_method_may_be_written_small(command: str, request_: tuple[str, str]) -> None:
    """Methods are told apart by case, and servers know only GET."""
    assert split_request(command) == request_


def test_all_texts_together_are_bounded() -> None:
    """A RUN line has a limit, and so has a line of tasks.db."""
    words = {"type": "http", "body": "x" * 40_000, "header.A": "y" * 30_000}
    with pytest.raises(Refusal, match="longer than"):
        make_spec("x", "@daily", "GET http://localhost/", set_options(DEFAULTS, words), "UTC")
