"""Jobs of type custom, with real processes, and the sample handler that calls an API."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trio

from cronflowd.base.errors import Exit, Fatal
from cronflowd.worker.executors import custom
from cronflowd.worker.executors.job import Ended, Job
from tests.lib.handler_jobs import PATIENT_S, ROOT, carry_out, make_job, put, said
from tests.lib.waiting import PATIENCE_S

# --- what a handler gets and gives --------------------------------------------------------


async def test_a_handler_gets_its_data_and_tells_of_itself(handlers: Path) -> None:
    """Everything that protocol.md promises to those who write one."""
    put(
        handlers,
        "tell",
        """
        def handle(data, context):
            context.log(f"hello {data['who']}")
            context.progress(0.5, "half way")
            context.progress(0.501, "half way")
            print("printed")
            told = [context.run, context.attempt, context.task, context.name, context.due, context.fire_id]
            return {"told": told, "args": context.args, "cancelled": context.is_cancelled}
        """,
    )
    told = {"task": "17", "name": "nightly", "due": "2030-01-01T12:00:00Z", "fire": "17/x", "arg.day": "mon"}
    job = make_job(handlers, "tell", {"who": "wörld"}, **told)
    assert Ended(0) == await carry_out(job)
    *lines, result = said(job)
    assert lines == ["1 hello wörld", "1 progress 50% half way", "1 printed"]
    assert json.loads(result[2:]) == {
        "told": [7, 2, 17, "nightly", "2030-01-01T12:00:00Z", "17/x"],
        "args": {"day": "mon"},
        "cancelled": False,
    }


async def test_an_async_handler_runs_within_trio(handlers: Path) -> None:
    """And where it runs, and with what variables, is said as for any other job."""
    put(
        handlers,
        "wait",
        """
        import os, trio

        async def handle(data, context):
            await trio.sleep(0)
            return [data, os.getcwd(), os.environ["A"]]
        """,
    )
    job = make_job(handlers, "wait", cwd="/", **{"env.A": "x"})
    assert Ended(0) == await carry_out(job)
    assert said(job) == ['1 [{}, "/", "x"]']


@pytest.mark.parametrize("is_async", [False, True])
async def test_an_exception_is_the_reason_of_the_failure(handlers: Path, is_async: bool) -> None:
    """The message goes to the run's LOG as the reason, the traceback with the output."""
    body = 'handle(data, context):\n    raise ValueError("no such customer: \\n 7")\n'
    put(handlers, "fails", ("async def " if is_async else "def ") + body)
    job = make_job(handlers, "fails")
    assert Ended(1, why="ValueError: no such customer: \n 7") == await carry_out(job)
    assert any(line.startswith("2 Traceback") for line in said(job))


@pytest.mark.parametrize(
    ("text", "name", "data", "ended"),
    [
        ("def handle(data, context): import sys; sys.exit(3)", "x", None, Ended(3)),
        ("import no_such_module", "x", None, Ended(126, why="cannot start: handler x: ModuleNotFoundError")),
        ("def handle(data", "x", None, Ended(126, why="cannot start: handler x: SyntaxError")),
        ("handle = 3", "x", None, Ended(126, why="cannot start: handler x has no function handle")),
        ("", "y", None, Ended(127, why="cannot start: this worker has no handler y")),
        ("", "../x", None, Ended(127, why="cannot start: the handler's name is not")),
        ("", "_x", None, Ended(127, why="cannot start: this worker has no handler _x")),
        ("", "x", "{broken", Ended(126, why="cannot start: the payload is no JSON: Expecting")),
        ("import os; os.kill(os.getpid(), 9)", "x", None, Ended(137, signal=9)),
        ("import os; handle = lambda *_: os._exit(5)", "x", None, Ended(5)),
        ("handle = lambda *_: {1: {object()}}", "x", None, Ended(0)),
    ],
)
async def test_how_a_handler_may_end(
    handlers: Path, text: str, name: str, data: str | None, ended: Ended
) -> None:
    """Whatever it does, it is the end of this job and of nothing else."""
    put(handlers, "x", text)
    put(handlers, "_x", "handle = print")
    found = await carry_out(make_job(handlers, name, data))
    assert (ended.exit, ended.signal) == (found.exit, found.signal)
    assert found.why.startswith(ended.why)


async def test_a_job_without_a_directory_of_handlers_says_so() -> None:
    """A worker that was started anew without the setting may still be sent an old order."""
    assert Ended(127, why="cannot start: this worker has no handler x") == await carry_out(
        make_job(None, "x")
    )


async def test_handlers_of_installed_packages_are_found_by_their_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pip install` is another way to bring one to a worker."""
    (tmp_path / "parcel.py").write_text("def deliver(data, context):\n    return 'delivered'\n")
    info = tmp_path / "parcel-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: parcel\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[cronflowd.handlers]\nparcel = parcel:deliver\n")
    job = make_job(None, "parcel", **{"env.PYTHONPATH": str(tmp_path)})
    assert Ended(0) == await carry_out(job)
    assert said(job) == ['1 "delivered"']
    monkeypatch.syspath_prepend(tmp_path)
    assert custom.names(None) == ["parcel"]


async def test_a_handler_does_not_find_modules_where_it_runs(handlers: Path, tmp_path: Path) -> None:
    """A csv.py in the job's directory, or beside the handlers, must not become everybody's csv."""
    for place in (tmp_path, handlers):
        put(place, "csv", "raise SystemExit('the wrong csv')")
    put(handlers, "_common", "VALUE = 3")
    put(handlers, "x", "import csv, _common\ndef handle(data, context): return _common.VALUE")
    job = make_job(handlers, "x", cwd=str(tmp_path))
    assert Ended(0) == await carry_out(job)
    assert said(job) == ["1 3"]


# --- ending one ---------------------------------------------------------------------------

STUCK = {
    "sync": (
        """
        import time
        def handle(data, context):
            context.log("ready")
            try:
                while True:
                    context.check_cancelled()
                    time.sleep(0.01)
            finally:
                context.log("tidied up")
        """,
        143,
        ["1 ready", "1 tidied up"],
    ),
    "async": (
        """
        import trio
        async def handle(data, context):
            context.log("ready")
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.sleep_forever)
                    nursery.start_soon(trio.sleep_forever)
            finally:
                context.log(f"tidied up {context.is_cancelled}")
        """,
        143,
        ["1 ready", "1 tidied up True"],
    ),
    "deaf": (
        """
        def handle(data, context):
            context.log("ready")
            while True:
                pass
        """,
        137,
        ["1 ready"],
    ),
}


@pytest.mark.parametrize("kind", STUCK)
async def test_a_kill_ends_every_handler(handlers: Path, kind: str) -> None:
    """Who listens may tidy up; who does not is killed after the grace, with all that it started."""
    text, status, lines = STUCK[kind]
    put(handlers, "stuck", text)
    job = make_job(handlers, "stuck")
    job.grace_s = 0.5 if kind == "deaf" else PATIENCE_S
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_kill_when_ready, job)
        # Of TERM either way: a second one may meet the process at its very end.
        assert status == (await carry_out(job)).exit
    # Python may then say on standard error that it could not take note of that one.
    assert [line for line in said(job) if line.startswith("1 ")] == lines


async def test_a_timeout_ends_a_handler(handlers: Path) -> None:
    """As it ends any other process, also one that is still being imported."""
    put(handlers, "stuck", "import time; time.sleep(100)")
    job = make_job(handlers, "stuck", timeout="0.2")
    job.grace_s = 0.2
    assert (await carry_out(job)).timed_out


async def _kill_when_ready(job: Job) -> None:
    with trio.fail_after(PATIENT_S):
        while not job.output.is_waiting:
            await trio.sleep(0.01)
    job.kill()


# --- what the worker knows of them ----------------------------------------------------------


def test_the_names_of_the_handlers_are_told_in_order(handlers: Path) -> None:
    """They go into can=, so a name that could not stand there is not told."""
    for name in ("zeta", "a.b-c_d", "_helper", ".hidden", "no way", "x" * 65):
        put(handlers, name, "")
    (handlers / "directory.py").mkdir()
    assert custom.names(handlers) == ["a.b-c_d", "api_call", "backup", "data_processing", "zeta"]
    assert custom.names(handlers / "nowhere") == custom.names(None) == []


def test_no_handler_is_imported_to_be_named(handlers: Path, tmp_path: Path) -> None:
    """A module that hangs or exits when it is imported must not be able to do so in the worker."""
    put(handlers, "bomb", f"open({str(tmp_path / 'gone-off')!r}, 'w'); raise SystemExit")
    custom.check(handlers)
    assert "bomb" in custom.names(handlers)
    assert not (tmp_path / "gone-off").exists()


def test_a_typing_error_is_told_when_the_worker_starts(
    handlers: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not only at three in the night; but it is no reason for the other handlers not to run."""
    put(handlers, "typo", "def handle(data context): pass")
    put(handlers, "open", "")
    (handlers / "open.py").chmod(0o666)
    with caplog.at_level(logging.WARNING):
        custom.check(handlers)
    told = sorted(record.getMessage() for record in caplog.records)
    assert len(told) == 2
    assert re.match("handler open will not run: .*others can change it", told[0])
    assert re.match("handler typo will not run: .*line 1", told[1])


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
async def test_a_directory_that_others_can_change_is_refused(handlers: Path, mode: int) -> None:
    """Whoever can put a file there can do what the worker's user can."""
    put(handlers, "x", "handle = print")
    handlers.chmod(mode)
    with pytest.raises(Fatal, match="others can change it") as caught:
        custom.check(handlers)
    assert caught.value.status == Exit.CONFIG
    assert "others can change it" in (await carry_out(make_job(handlers, "x"))).why


def test_a_directory_that_is_none_is_refused(tmp_path: Path) -> None:
    """A worker that silently has no handlers would leave its tasks waiting for ever."""
    with pytest.raises(Fatal, match="not a directory"):
        custom.check(tmp_path / "nowhere")


async def test_the_example_in_the_document_does_what_it_says(handlers: Path) -> None:
    """Whoever writes a first handler copies it."""
    text = (ROOT / "protocol.md").read_text(encoding="utf-8")
    match = re.search(r"^    def handle\(.*?(?=^\S)", text, re.DOTALL | re.MULTILINE)
    assert match
    put(handlers, "greet", match[0])
    job = make_job(handlers, "greet", {"names": ["Ada", "Alan"]})
    assert Ended(0) == await carry_out(job)
    assert said(job) == [
        "1 Hello, Ada!",
        "1 progress 50%",
        "1 Hello, Alan!",
        "1 progress 100%",
        '1 {"greeted": 2}',
    ]


# --- api_call -------------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    """Answers with the statuses it was given, then with 200, and remembers what it was asked."""

    statuses: list[int]
    asked: list[tuple[str, dict[str, str], bytes]]


class Answerer(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((f"{self.command} {self.path}", dict(self.headers), body))
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        answer = b'{"answer": 42}'
        self.send_response(status)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST

    def log_message(self, *_: object) -> None: ...


@contextmanager
def serving(*statuses: int) -> Iterator[tuple[Server, str]]:
    server = Server(("127.0.0.1", 0), Answerer)
    server.statuses, server.asked = list(statuses), []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_api_call_sends_json_and_a_secret_that_no_task_holds(handlers: Path) -> None:
    """Tasks can be read with GET; the environment of a worker cannot."""
    with serving() as (server, url):
        data = {"url": url, "json": {"all": True}, "headers_env": {"Authorization": "API_AUTH"}}
        job = make_job(handlers, "api_call", data, fire="17/x", **{"env.API_AUTH": "Bearer 5f2b"})
        assert Ended(0) == await carry_out(job)
    assert said(job) == ['1 {"status": 200, "body": {"answer": 42}}']
    ((line, headers, body),) = server.asked
    assert (line, json.loads(body)) == ("POST /v1", {"all": True})
    assert (headers["Authorization"], headers["Idempotency-Key"]) == ("Bearer 5f2b", "17/x")


async def test_api_call_tries_again_after_a_5xx_and_not_after_a_4xx(handlers: Path) -> None:
    """The one may pass; the other is our own fault and stays one."""
    with serving(503, 500) as (server, url):
        job = make_job(handlers, "api_call", {"url": url, "delay": 0.01})
        assert Ended(0) == await carry_out(job)
        assert said(job)[:2] == ["1 attempt 1: status 503", "1 attempt 2: status 500"]
        assert len({headers["Idempotency-Key"] for _, headers, _ in server.asked}) == 1
        server.statuses = [404, 200]
        ended = await carry_out(make_job(handlers, "api_call", {"url": url}))
        assert (ended.exit, "status 404" in ended.why) == (1, True)
        server.statuses = [500] * 9
        ended = await carry_out(make_job(handlers, "api_call", {"url": url, "delay": 0.01, "retries": 1}))
        assert ended.why == f"RuntimeError: {url}: status 500, 2 times"
        server.statuses = [302]
        assert "status 302" in (await carry_out(make_job(handlers, "api_call", {"url": url}))).why
    assert [line for line, _, _ in server.asked] == ["GET /v1"] * 7


async def test_api_call_tells_why_there_was_no_answer(handlers: Path) -> None:
    """Connection refused, and what is no HTTP at all."""
    with serving() as (_, url):
        pass
    job = make_job(handlers, "api_call", {"url": url, "delay": 0.01, "retries": 2})
    assert "refused, 3 times" in (await carry_out(job)).why
    job = make_job(handlers, "api_call", {"url": "file:///etc/passwd"})
    assert "only http:// and https:// are called" in (await carry_out(job)).why
