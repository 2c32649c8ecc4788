"""The API is as its own document says, whatever is sent to it."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.lib.waiting import PATIENCE_S
from tests.real.running import Daemon, StartDaemon

IS_LONG = bool(os.environ.get("CRONFLOWD_LONG"))
EXAMPLES = 300 if IS_LONG else 5  # of each operation
ENDLESS = "/api/v1/events"  # an answer that does not end is read by tests/web/test_events.py

UNTRIED = (ENDLESS, "/api/v1/auth/login")  # where guesses wait, longer each time

# What makes a body a job's, and what may stand beside it whatever it says.
WHOLE: dict[str, Any] = {"type": "shell", "command": "true", "cronExpression": "0 3 * * *"}
FREE = {"name", "description", "tags", "metadata", "priority", "timeout", "enabled"}


def get(daemon: Daemon, path: str) -> tuple[int, str]:
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", daemon.http_port, timeout=PATIENCE_S)
    ) as door:
        door.request("GET", path)
        answer = door.getresponse()
        return answer.status, answer.read().decode()


def token_of(daemon: Daemon) -> str:
    rows = daemon.ask("TOKEN ADD name=fuzz role=admin")
    return next(row.split("\t")[1] for row in rows if row.startswith("token\t"))


def some_jobs(daemon: Daemon) -> None:
    for line in (
        "ADD name=a tags=t 0 3 * * * true",
        'ADD name=b type=http header.X-Token=t payload={"a": 1} retry=exp:3:5s:x5 @daily POST http://127.0.0.1:1/',
        'ADD name=c type=email payload={"text": "x"} after=a @daily a@example.org',
        "RUN a",
        "EXPECT e every=1d notify=none",
    ):
        daemon.ask(line)


@pytest.mark.timeout(3600 if IS_LONG else 300)
def test_whatever_is_sent_the_answer_is_as_the_document_says(start_daemon: StartDaemon) -> None:
    """No fault of ours, and no status or form that is not told; half of what is asked is there."""
    schemathesis = pytest.importorskip("schemathesis")  # here: no other test waits for it to be loaded
    daemon = start_daemon("--http", "127.0.0.1:0", "--local-worker", "1")
    some_jobs(daemon)
    status, text = get(daemon, "/api/v1/openapi.json")
    assert status == 200
    schema = schemathesis.openapi.from_dict(orjson.loads(text))
    checks = schemathesis.checks
    wanted = [
        checks.not_a_server_error, checks.status_code_conformance, checks.content_type_conformance,
        checks.response_schema_conformance,
    ]  # fmt: skip
    headers = {"Authorization": f"Bearer {token_of(daemon)}"}
    base_url = f"http://127.0.0.1:{daemon.http_port}"
    met: set[int] = set()
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path in UNTRIED:
            continue

        @given(case=operation.as_strategy(), real=st.sampled_from(["a", "b", "c", None, None]))
        @settings(
            max_examples=EXAMPLES, deadline=None, derandomize=not IS_LONG, database=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        def ask(case: Any, real: str | None) -> None:
            if real:
                here = {"job_id": real, "run": "1", "name": "e"}
                case.path_parameters = {key: here.get(key, "9") for key in case.path_parameters or {}}
            if "number" in (case.path_parameters or {}):
                case.path_parameters["number"] = "9"  # of a token, and not of the one that lets us in
            if real and case.method == "POST" and case.path == "/api/v1/jobs" and isinstance(case.body, dict):
                case.body = {key: case.body[key] for key in FREE & case.body.keys()} | WHOLE
            (case.query or {}).pop("follow", None)
            answer = case.call(base_url=base_url, headers=headers, timeout=PATIENCE_S)
            met.add(answer.status_code)
            case.validate_response(answer, checks=wanted)

        ask()
    assert {200, 201, 400, 404, 409} <= met
    assert get(daemon, "/readyz") == (200, "ok\n")


def test_the_documents_page_is_whole_without_anything_from_elsewhere(start_daemon: StartDaemon) -> None:
    """No network, no script: what is not ours would be stopped by the policy anyway."""
    daemon = start_daemon("--http", "127.0.0.1:0")
    status, page = get(daemon, "/docs")
    assert status == 200 and "/api/v1/jobs/{job_id}/trigger" in page
    assert "http" not in page.replace("http (", "").partition("<main>")[0]
    assert "<script" not in page and "style=" not in page
    style = re.search('href="(/static/docs.css[^"]*)"', page)
    assert style and get(daemon, style[1])[0] == 200
