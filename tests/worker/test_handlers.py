"""Jobs of type custom, with real processes, and the sample handlers at their real work."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import define

from cronflowd.base.errors import Exit, Fatal
from cronflowd.worker.executors import custom, handler
from cronflowd.worker.executors.job import Ended, Job, Order
from cronflowd.worker.executors.output import Output
from tests.lib.waiting import PATIENCE_S, until

ROOT = Path(__file__).parents[2]
PATIENT_S = 3 * PATIENCE_S  # a process of Python's own, on a machine that others use as well


@pytest.fixture
def handlers(tmp_path: Path) -> Path:
    """A directory for handlers, with the samples in it, whose modes do not depend on the clone's."""
    directory = tmp_path / "handlers"
    shutil.copytree(ROOT / "contrib" / "handlers", directory, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (directory, *directory.iterdir()):
        path.chmod(0o755)
    return directory


def put(directory: Path, name: str, text: str) -> None:
    path = directory / f"{name}.py"
    path.write_text(textwrap.dedent(text))
    path.chmod(0o644)


@define(eq=False)
class HandlerJob(Job):
    """A job of a worker with these handlers."""

    handlers: Path | None = None


def make_job(handlers: Path | None, command: str, data: object = None, /, **options: str) -> HandlerJob:
    if data is not None:
        options["payload"] = data if isinstance(data, str) else json.dumps(data)
    order = Order("7 2", {"type": "custom", **options}, command)
    return HandlerJob(order, Output("7", 1 << 20), grace_s=5.0, handlers=handlers)


async def carry_out(job: HandlerJob) -> Ended:
    with trio.fail_after(PATIENT_S):
        ended = await custom.run_handler(job, job.handlers)
    job.output.end()
    return ended


def said(job: Job) -> list[str]:
    """The output as `fd text`."""
    return [line.removeprefix("OUT 7 ") for line in job.output.take_all().splitlines()]


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
    assert said(job) == lines


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


# --- data_processing ------------------------------------------------------------------------

ORDERS = """\
id,country,state,amount
1,FR,paid,10.10
2,DE,paid,9
3,FR,open,100
4,FR,paid,20.20
5,DE,paid,30
"""


async def test_data_processing_filters_and_sums_by_group(handlers: Path, tmp_path: Path) -> None:
    """10.10 + 20.20 is 30.3 and not 30.299999999999997."""
    (tmp_path / "orders.csv").write_text(ORDERS)
    out = tmp_path / "sums.jsonl"
    data = {
        "input": str(tmp_path / "orders.csv"),
        "output": str(out),
        "filter": {"state": "paid", "amount": {">=": 9.5}},
        "group_by": ["country"],
        "sum": ["amount"],
    }
    job = make_job(handlers, "data_processing", data)
    assert Ended(0) == await carry_out(job)
    assert said(job) == [
        "1 5 rows read, 3 kept, 2 written",
        '1 {"read": 5, "kept": 3, "written": 2}',
    ]
    assert [json.loads(line) for line in out.read_text().splitlines()] == [
        {"country": "FR", "count": 2, "amount": 30.3},
        {"country": "DE", "count": 1, "amount": 30},
    ]


async def test_data_processing_selects_columns_of_jsonl_into_csv(handlers: Path, tmp_path: Path) -> None:
    """A comma and a quote in a value must come back out of the CSV as they went in."""
    rows = [
        {"name": 'Smith, "Jo"', "tags": "a b", "n": 1.5},
        {"name": "Lee", "n": None},
        {"name": "Wu", "n": 2},
    ]
    (tmp_path / "in.jsonl").write_text("\n\n".join(json.dumps(row) for row in rows))
    out = tmp_path / "out.csv"
    out.write_text("old")
    out.chmod(0o640)
    data = {"input": str(tmp_path / "in.jsonl"), "output": str(out), "select": ["n", "name"]}
    data["filter"] = {"name": {"in": ["Lee", 'Smith, "Jo"', "Wu"], "!=": "Wu"}}  # type: ignore[assignment]
    assert Ended(0) == await carry_out(make_job(handlers, "data_processing", data))
    with out.open(newline="") as file:
        assert list(csv.reader(file)) == [["n", "name"], ["1.5", 'Smith, "Jo"'], ["", "Lee"]]
    assert out.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("in.csv", "a,b\n1,2\n3\n", "line 3: 2 columns were expected"),
        ("in.csv", "a,b\n1,x\n", "line 2: b is 'x', which is no number"),
        ("in.jsonl", '{"a": 1, "b": 2}\n{"a": 1', "line 2: "),
        ("in.jsonl", "[1]\n", "line 1: it is no object"),
    ],
)
async def test_data_processing_that_fails_leaves_the_old_output(
    handlers: Path, tmp_path: Path, name: str, text: str, why: str
) -> None:
    """Half a result that looks like a whole one is worse than yesterday's."""
    place = tmp_path / "place"
    place.mkdir()
    (place / name).write_text(text)
    (place / "out.csv").write_text("old")
    data = {"input": str(place / name), "output": str(place / "out.csv"), "group_by": ["a"], "sum": ["b"]}
    ended = await carry_out(make_job(handlers, "data_processing", data))
    assert (ended.exit, why in ended.why) == (1, True), ended.why
    assert sorted(path.name for path in place.iterdir()) == sorted([name, "out.csv"])
    assert (place / "out.csv").read_text() == "old"


# --- backup ---------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory with all kinds of things in it."""
    source = tmp_path / "source"
    (source / "deep" / ("long-" * 30)).mkdir(parents=True)
    (source / "cache").mkdir()
    (source / "cache" / "x").write_text("not this")
    (source / "deep" / "random").write_bytes(os.urandom(3_000_000))
    (source / "deep" / ("long-" * 30) / "naïve ☃").write_text("text")
    (source / "deep" / "draft.tmp").write_text("nor this")
    (source / "empty").touch()
    (source / "script").write_text("#!/bin/sh\n")
    (source / "script").chmod(0o750)
    (source / "link").symlink_to("deep/random")
    (source / "dangling").symlink_to("/nowhere")
    os.link(source / "script", source / "second name")
    return source


@pytest.fixture
def into(tmp_path: Path) -> Path:
    """Where archives go, with three old ones and some files that are none of theirs."""
    into = tmp_path / "into"
    into.mkdir()
    for name in (*OLD, *OTHERS):
        (into / name).write_text(name)
    return into


OLD = [f"web-2021010{day}T000000Z.tar.gz" for day in (1, 2, 3)]
OTHERS = ["web-20210101.tar.gz", "web-20210101T000000Z.tar.gz.old", "webb-20210101T000000Z.tar.gz", "notes"]


def backup_data(source: Path, into: Path, **more: Any) -> dict[str, Any]:
    return {"paths": [str(source)], "into": str(into), "name": "web", **more}


def content(top: Path) -> dict[str, object]:
    """What a tree is, without its times: kind, mode, and bytes or target."""
    found: dict[str, object] = {}
    for path in sorted(top.rglob("*")):
        mode = path.lstat().st_mode
        what = os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes()
        found[str(path.relative_to(top))] = (mode, what)
    return found


def archives(into: Path) -> list[str]:
    return sorted(path.name for path in into.glob("web-2*Z.tar.gz"))


async def test_a_restored_backup_equals_its_source(handlers: Path, source: Path, into: Path) -> None:
    """That is all a backup is for; the rotation takes the oldest, and nothing of another name."""
    data = backup_data(source, into, exclude=["*.tmp", "cache"], keep=2)
    job = make_job(handlers, "backup", data)
    assert Ended(0) == await carry_out(job)
    lines = said(job)
    (old, new) = archives(into)
    assert old == OLD[-1]
    assert f"1 removed {OLD[0]}" in lines
    assert "1 progress 100%" in lines
    assert all((into / name).read_text() == name for name in OTHERS)
    assert not list(into.glob(".*.part"))
    assert (into / new).stat().st_mode & 0o077 == 0
    beside = (into / (new + ".sha256")).read_text()
    assert beside == f"{hashlib.sha256((into / new).read_bytes()).hexdigest()}  {new}\n"
    restored = into / "restored"
    restored.mkdir()
    subprocess.run(["tar", "-xzpf", into / new, "-C", restored], check=True)
    shutil.rmtree(source / "cache")
    (source / "deep" / "draft.tmp").unlink()
    assert content(source) == content(restored / str(source).lstrip("/"))


@pytest.mark.parametrize(("keep", "left"), [(0, 4), (1, 1), (3, 3), (4, 4), (5, 4), (9, 4)])
async def test_as_many_backups_stay_as_was_said(
    handlers: Path, source: Path, into: Path, keep: int, left: int
) -> None:
    """Three are there; the one just made is one of those that stay."""
    job = make_job(handlers, "backup", backup_data(source / "script", into, keep=keep))
    assert Ended(0) == await carry_out(job)
    assert len(archives(into)) == left
    assert archives(into)[:-1] == (OLD[-(left - 1) :] if left > 1 else [])


async def test_a_backup_never_removes_itself(handlers: Path, source: Path, into: Path) -> None:
    """A clock that was a century ahead has left archives that look newer."""
    (into / "web-21260101T000000Z.tar.gz").touch()
    job = make_job(handlers, "backup", backup_data(source, into, keep=1))
    assert Ended(0) == await carry_out(job)
    (left,) = archives(into)
    assert not left.startswith("web-2126")
    assert left in said(job)[-1]


@contextmanager
def backing_up(handlers: Path, data: dict[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    """The handler's process as the worker starts it, and no worker."""
    reader, writer = os.pipe()
    argv = [sys.executable, "-P", handler.__file__, "backup", str(writer), str(handlers)]
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(writer,), start_new_session=True
    )
    try:
        assert process.stdin
        process.stdin.write(json.dumps(data).encode())
        process.stdin.close()
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_backup_cut_in_the_middle_leaves_the_old_ones(
    handlers: Path, source: Path, into: Path, number: int
) -> None:
    """With keep=1 a careless one would have nothing left; the next good one clears away the remains."""
    (source / "large").write_bytes(os.urandom(1_000_000) * 60)
    data = backup_data(source, into, keep=1)
    with backing_up(handlers, data) as process:
        await until(lambda: any(part.stat().st_size > 1_000_000 for part in into.glob(".*.part")))
        process.send_signal(number)
        await until(lambda: process.poll() is not None)
    assert archives(into) == OLD
    assert len(list(into.glob(".web-*.part"))) == (number == signal.SIGKILL)
    (source / "large").unlink()
    assert Ended(0) == await carry_out(make_job(handlers, "backup", data))
    assert len(archives(into)) == 1
    assert not set(archives(into)) & set(OLD)
    assert not list(into.glob(".*.part"))


async def test_a_backup_that_fails_removes_nothing(handlers: Path, source: Path, into: Path) -> None:
    """Here: something that cannot be read, a path that does not exist, and no place to put it."""
    (source / "loop").symlink_to("loop")
    for data, why in (
        (backup_data(source / "nowhere", into, keep=1), "FileNotFoundError"),
        (backup_data(source, into / "nowhere", keep=1), "FileNotFoundError"),
        (backup_data(source, into, keep=1, name="../web"), "ValueError"),
        (backup_data(source, into, keep=-1), "ValueError"),
    ):
        ended = await carry_out(make_job(handlers, "backup", data))
        assert (ended.exit, ended.why.partition(":")[0]) == (1, why)
    assert archives(into) == OLD
    assert not list(into.glob(".*.part"))


async def test_a_backup_that_reads_back_differently_is_none(handlers: Path, source: Path, into: Path) -> None:
    """The disk under it lies: what comes back has a byte turned round."""
    text = (handlers / "backup.py").read_text()
    spoil = """
def verify(part, files, context, verify=verify):
    files = dict(files) | {next(iter(files)): (1, "00")}
    return verify(part, files, context)
"""
    put(handlers, "spoilt", text + spoil)
    ended = await carry_out(make_job(handlers, "spoilt", backup_data(source, into, keep=1)))
    assert "ValueError: read back, 1 files differ" in ended.why
    assert archives(into) == OLD
    assert not list(into.glob(".*.part"))


async def test_two_backups_of_one_name_do_not_meet(handlers: Path, source: Path, into: Path) -> None:
    """The second would take the first one's unfinished archive for a remnant."""
    import fcntl

    with (into / ".web.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = await carry_out(make_job(handlers, "backup", backup_data(source, into)))
    assert ended.why.startswith("BlockingIOError")


async def test_a_backup_leaves_out_what_vanishes_and_its_own_place(
    handlers: Path, source: Path, tmp_path: Path
) -> None:
    """A file that comes and goes while it is made is no failure, and an archive never holds itself."""
    into = source / "into"
    into.mkdir()
    text = (handlers / "backup.py").read_text()
    vanish = """
def add(tar, path, files, context, add=add):
    if path.name == "script":
        path.unlink()
    add(tar, path, files, context)
"""
    put(handlers, "vanishing", text + vanish)
    job = make_job(handlers, "vanishing", backup_data(source, into))
    assert Ended(0) == await carry_out(job)
    assert f"1 {source}/script has vanished" in said(job)
    (archive,) = archives(into)
    listed = subprocess.run(["tar", "-tzf", into / archive], check=True, capture_output=True).stdout
    assert b"second name" in listed
    assert b"into" not in listed
