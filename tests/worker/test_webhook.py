"""Webhooks against a real server, checked with the very lines that protocol.md gives to receivers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio

from cronflowd.host.config import WorkerSettings
from cronflowd.worker.executors import make_table
from cronflowd.worker.executors.http import format_body, run_webhook, sign
from cronflowd.worker.executors.job import Ended, Job, Order
from cronflowd.worker.executors.output import Output
from tests.lib.http_server import HttpServer, http_server
from tests.lib.job_processes import ending_of
from tests.lib.waiting import PATIENCE_S

PROTOCOL = Path(__file__).parents[2] / "protocol.md"
AT = datetime(2030, 1, 1, 12, 0, 1, 500_000, tzinfo=UTC)
UNIX = 1893499201
OPTIONS = {
    "type": "webhook",
    "task": "17",
    "name": "deploy",
    "due": "2030-01-01T12:00:00Z",
    "fire": "17/2030-01-01T12:00:00Z",
}


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with http_server() as found:
        yield found


def make_job(url: str, **options: str) -> Job:
    return Job(Order("41 2", OPTIONS | options, url), Output("41", 65536), grace_s=5.0)


async def carry_out(job: Job) -> Ended:
    with trio.fail_after(PATIENCE_S):
        return await ending_of(make_table(WorkerSettings())["webhook"], job)


def documented_check() -> Callable[..., bool]:
    """The example of protocol.md."""
    (code,) = re.findall(r"```python\n(.*?)```", PROTOCOL.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # the document is ours
    return names["is_from_cronflowd"]  # type: ignore[no-any-return]


async def test_the_event_arrives_whole(server: HttpServer) -> None:
    """Every key, its form, and the payload byte for byte."""
    job = make_job(f"{server.url}/hook", payload='{"n": 1.0, "é": null}', **{"arg.who": "me"})
    ended = await carry_out(job)
    assert (ended.exit, ended.why.partition(";")[0]) == (0, "HTTP/1.1 200 OK")
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/hook")
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["idempotency-key"] == "17/2030-01-01T12:00:00Z"
    assert "cronflow-signature" not in asked.headers
    event = json.loads(asked.body)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z", event.pop("time"))
    assert event == {
        "id": "17/2030-01-01T12:00:00Z",
        "event": "run",
        "task": 17,
        "jobName": "deploy",
        "run": 41,
        "attempt": 2,
        "due": "2030-01-01T12:00:00Z",
        "args": {"who": "me"},
        "data": {"n": 1.0, "é": None},
    }
    assert asked.body.endswith(b',"data":{"n": 1.0, "\xc3\xa9": null}}')


def test_the_body_of_one_moment_is_always_the_same() -> None:
    """What is signed is what is sent; and without a payload, data is an empty object."""
    body = format_body(Order("41 2", OPTIONS, "http://localhost/"), AT)
    assert body == (
        b'{"id":"17/2030-01-01T12:00:00Z","event":"run","time":"2030-01-01T12:00:01.500Z","task":17,'
        b'"jobName":"deploy","run":41,"attempt":2,"due":"2030-01-01T12:00:00Z","data":{}}'
    )


def test_the_signature_is_the_one_that_anybody_can_compute() -> None:
    """`printf '%s' '1893499201.{}' | openssl dgst -sha256 -hmac s3cret` says the same."""
    assert sign("s3cret", AT, b"{}") == (
        f"t={UNIX},v1=83614cf4a34ecf81668ce72d906dfd6250108d55da0223ec2b76305b8f48acbe"
    )


async def test_a_receiver_that_does_as_the_document_says_is_right(server: HttpServer) -> None:
    """The example must accept what we send, and nothing else."""
    check = documented_check()
    job = make_job(server.url, secret="s3cret ü", payload='{"a": 1}')
    assert (await run_webhook(job, private=True, now=lambda: AT)).exit == 0
    (asked,) = server.asked
    signature, body = asked.headers["cronflow-signature"], asked.body
    assert signature.startswith(f"t={UNIX},v1=")
    assert check("s3cret ü", signature, body, now=UNIX)
    assert check("s3cret ü", signature, body, now=UNIX + 299)
    assert check("s3cret ü", signature + ",v2=later", body, now=UNIX)
    for wrong in (
        ("other", signature, body, UNIX),
        ("s3cret ü", signature, body + b" ", UNIX),
        ("s3cret ü", signature, body, UNIX + 301),
        ("s3cret ü", signature, body, UNIX - 301),
        ("s3cret ü", signature.replace(str(UNIX), str(UNIX + 1)), body, UNIX),
        ("s3cret ü", "", body, UNIX),
        ("s3cret ü", "t=,v1=", body, UNIX),
        ("s3cret ü", f"t={UNIX}", body, UNIX),
        ("s3cret ü", signature.partition(",")[2], body, UNIX),
        ("s3cret ü", f"t={UNIX},v1=é", body, UNIX),
    ):
        secret, header, content, now = wrong
        assert not check(secret, header, content, now=now), wrong


async def test_a_receiver_that_refuses_makes_the_run_fail(server: HttpServer) -> None:
    """And expect= and header.X= are heeded as for http."""
    job = make_job(f"{server.url}/status?410", **{"header.X-Team": "a"})
    ended = await carry_out(job)
    assert ended.exit == 22
    assert server.asked[0].headers["x-team"] == "a"
    assert (await carry_out(make_job(f"{server.url}/status?410", expect="410"))).exit == 0


async def test_a_webhook_goes_nowhere_where_a_request_may_not(server: HttpServer) -> None:
    """One door for both."""
    ended = await ending_of(
        make_table(WorkerSettings(http_private="refuse"))["webhook"], make_job(server.url)
    )
    assert (ended.exit, server.asked) == (126, [])
