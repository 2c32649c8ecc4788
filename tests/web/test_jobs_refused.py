"""Jobs by REST that are refused: what is wrong is named, with what is right, and nothing is changed."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import trio

from cronflowd.web.fields import Wrong, to_body
from tests.lib.asgi import Browser
from tests.lib.web_api import API, an_api

HOURLY = {"cronExpression": "0 * * * *"}
MAIL: dict[str, Any] = {"name": "mail", "type": "email", "cronExpression": "0 * * * *"}


@pytest.mark.parametrize(
    ("said", "message", "field"),
    [
        ({"runAt": "x"}, 'there is no field "runAt"; did you mean scheduledAt?', "runAt"),
        ({"depends_on": []}, 'there is no field "depends_on"; did you mean dependencies?', "depends_on"),
        ({"priority": "High"}, '"High" is not one of HIGH, LOW, MEDIUM; did you mean HIGH?', "priority"),
        ({"retryPolicy": {}}, "no type", "retryPolicy.type"),
        (
            {"retryPolicy": {"type": "fixed"}},
            '"fixed" is not one of EXPONENTIAL, FIXED, NONE; did you mean FIXED?', "retryPolicy.type",
        ),
        (
            {"retryPolicy": {"type": "NONE", "delay": 1}},
            'there is no field "retryPolicy.delay"; did you mean delayMs?', "retryPolicy.delay",
        ),
        (
            {"type": "http", "payload": {"url": "http://x/", "header": {}}},
            'a payload of type http has no "header"; did you mean headers?', "payload.header",
        ),
        ({"timeout": -1}, "Expected `int` >= 0", "timeout"),
        ({"url": "http://x/"}, 'there is no field "url"; did you mean payload?', "url"),
        (
            {"type": "email", "command": None, "payload": {"subject": "x"}},
            "no to in payload: what is a job of type email to do?", "payload",
        ),
    ],
)  # fmt: skip
def test_a_field_that_is_wrong_is_told_with_the_right_one(
    tmp_path: Path, said: dict[str, Any], message: str, field: str
) -> None:
    """By every way: the words of the library that reads the body name neither, and say no more than that."""
    code = "syntax" if "to do?" in message else "bad-option"
    error = {"code": code, "message": message, "field": field}
    body = {"name": "a", "command": "x", **HOURLY, **said}

    async def ask() -> None:
        async with an_api(tmp_path) as (browser, _):
            assert (await browser.post(f"{API}/jobs", body)).json["error"] == error
            assert (await browser.post("/api/jobs", body)).json == error | {"error": message}

    trio.run(ask)
    if not said.get("payload"):
        with pytest.raises(Wrong) as refused:
            to_body(body)
        assert (refused.value.message, refused.value.field) == (message, field)


def test_a_parameter_that_is_wrong_is_told_with_those_there_are(tmp_path: Path) -> None:
    """And where there is nothing, where to look."""

    async def ask() -> None:
        async with an_api(tmp_path) as (browser, _):
            for method, path, said in (
                ("GET", "jobs/1/logs?level=warn", '"warn" is not one of error, info, system'),
                ("GET", "jobs?status=activ", '"activ" is not one of active, enabled, completed, scheduled, '),
                ("GET", "jobs?perPage=3", 'there is no parameter "perPage"; there are '),
                ("GET", "jobs/1/run", "there is no such path; /docs tells which there are"),
                ("PUT", "jobs", "that is done by another method; /docs tells by which"),
            ):
                answer = await browser.ask(method, f"{API}/{path}", {} if method == "PUT" else None)
                assert answer.json["error"]["message"].startswith(said), path

    trio.run(ask)


def test_jobs_are_asked_for_by_the_words_that_they_are_told_with(tmp_path: Path) -> None:
    """And who asks for those that failed learns where that is told: it is runs that fail."""

    async def ask() -> None:
        async with an_api(tmp_path) as (browser, daemon):
            await daemon.say("ADD name=a @daily x")
            await daemon.say("ADD name=b paused=yes @daily x")
            for status, names in (
                ("active", ["a"]), ("paused,active", ["a", "b"]), ("completed", []),
                ("completed,paused", ["b"]),
            ):  # fmt: skip
                found = (await browser.get(f"{API}/jobs?status={status}")).data
                assert [job["name"] for job in found] == names, status
            said = (await browser.get(f"{API}/jobs?status=failed")).json["error"]
            assert said["message"].endswith("unreadable; how runs end: /executions?state=")
            assert said["field"] == "status"
            for wrong, word in (("ACTIVE", "active"), ("disabled", "paused"), ("pending", "queued")):
                said = (await browser.get(f"{API}/jobs?status={wrong}")).json["error"]
                assert said["message"].endswith(f"; did you mean {word}?")

    trio.run(ask)


def test_what_is_said_twice_is_refused_by_name(tmp_path: Path) -> None:
    """The last one would count, and nobody would be told that the first did not; as of keys in `ADD {…}`."""

    async def say() -> None:
        async with an_api(tmp_path) as (browser, daemon):
            for path, field in (
                ("/jobs?page=1&page=2", "page"), ("/jobs?tag=a&tag=a", "tag"),
                ("/executions?state=ok&limit=1&state=failed", "state"),
            ):  # fmt: skip
                answer = await browser.get(f"{API}{path}")
                assert (answer.error, answer.json["error"].get("field")) == ((400, "bad-option"), field)
            for body, field in (
                (b'{"name": "a", "command": "x", "schedule": "@daily", "command": "y"}', "command"),
                (b'{"schedule": "@daily", "command": "x", "metadata": {"a": 1, "a": 2}}', "a"),
                (b'{"\\ud800": 1, "\\ud800": 2}', "\\ud800"),
            ):
                twice = await browser.ask("POST", f"{API}/jobs", body=body, content_type="application/json")
                assert (twice.error, twice.json["error"].get("field")) == ((400, "bad-option"), field)
            assert await daemon.say("LIST") == []

    trio.run(say)


def test_a_body_that_no_line_can_hold_is_looked_through_by_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sends it need not be known; 1 MiB of small objects took 60 ms of everybody's time."""
    looked = []
    monkeypatch.setattr(
        "cronflowd.web.app.refuse_duplicates", lambda code: looked.append(code) or (lambda _: None)
    )

    async def say() -> None:
        async with an_api(tmp_path) as (browser, _):
            body = b'{"metadata": [' + b",".join([b"{}"] * 300_000) + b"]}"
            stranger = Browser(browser.app)
            told = {"content_type": "application/json"}
            assert (await stranger.ask("POST", f"{API}/jobs", body=body, **told)).status == 401
            assert looked == []
            assert (await stranger.ask("POST", f"{API}/jobs", body=b"{}", **told)).status == 401
            assert looked == ["bad-option"]

    trio.run(say)


def test_a_name_that_was_chosen_is_no_other_where_it_is_taken(tmp_path: Path) -> None:
    """`id` and `jobName` are what programs find a job by; a title is for people, and may be there twice."""

    async def make() -> None:
        async with an_api(tmp_path) as (browser, _):
            base = {"command": "x"} | HOURLY
            for said, status, field in (
                ({"id": "nightly", "name": "The first"}, 201, None),
                ({"id": "nightly", "name": "The second"}, 409, "id"),
                ({"jobName": "nightly", "name": "The third"}, 409, "jobName"),
                ({"name": "The first"}, 201, None), ({"name": "The first"}, 201, None),
            ):  # fmt: skip
                answer = await browser.post(f"{API}/jobs", base | said)
                assert answer.status == status, said
                assert answer.json.get("error", {}).get("field") == field
            assert [job["jobName"] for job in (await browser.get(f"{API}/jobs")).data][:2] == [
                "nightly", "the-first",
            ]  # fmt: skip

    trio.run(make)


@pytest.mark.parametrize("text", ["a\nb", "a\rb"])
def test_what_cannot_travel_in_a_line_names_its_field(tmp_path: Path, text: str) -> None:
    async def refuse() -> None:
        async with an_api(tmp_path) as (browser, _):
            await browser.post(f"{API}/jobs", {"name": "a", "command": "x"} | HOURLY)
            for path, said, field in (
                ("jobs/a/trigger", {"args": {"A": "x", "B": text}}, "args.B"),
                ("jobs/a/pause", {"why": text}, "why"),
                ("jobs/a/reschedule", {"cronExpression": text}, "cronExpression"),
                ("jobs/a", {"description": text}, "description"), ("jobs/a", {"owner": text}, "owner"),
                ("jobs/a", {"command": text}, "command"),
                ("jobs/a", {"payload": {"command": "x", "env": {"A": text}}}, "payload.env.A"),
                ("beats/x", {"status": "0", "text": text}, "text"), ("tokens", {"name": text}, "name"),
                ("users", {"name": "u", "email": text}, "email"),
            ):  # fmt: skip
                body = json.dumps(said).encode()
                verb = "PATCH" if path == "jobs/a" else "POST"
                answer = await browser.ask(verb, f"{API}/{path}", body=body, content_type="application/json")
                assert (answer.status, answer.json["error"].get("field")) == (400, field), answer.json

    trio.run(refuse)


def test_what_is_refused_names_its_field_and_changes_nothing(tmp_path: Path) -> None:
    """The daemon's word, at the field of the request."""

    async def refuse() -> None:
        async with an_api(tmp_path) as (browser, daemon):
            base: dict[str, Any] = {"name": "a", "command": "x"} | HOURLY
            await browser.post(f"{API}/jobs", base)
            for said, status, code, field in (
                (base | {"name": "b", "cronExpression": "61 * * * *"}, 400, "bad-schedule", "cronExpression"),
                (base, 409, "exists", "name"),
                (base | {"color": "red"}, 400, "bad-option", "color"),
                (base | {"name": "b", "command": ""}, 400, "syntax", "command"),
                (base | {"name": "b", "id": "9" * 5000}, 400, "bad-option", "id"),
                (base | {"name": "b", "id": "a b"}, 400, "bad-option", "id"),
                (base | {"retryPolicy": {"type": "SOME"}}, 400, "bad-option", "retryPolicy.type"),
                (base | {"name": 7}, 400, "bad-option", "name"),
                (base | {"name": "b", "scheduledAt": "2020-01-01T00:00:00Z", "cronExpression": None}, 400,
                 "bad-schedule", "scheduledAt"),
                (base | {"scheduleType": "sometimes"}, 400, "bad-option", "scheduleType"),
                (base | {"name": "b", "type": "sleep"}, 400, "syntax", "command"),
                (base | {"name": "b", "id": 1}, 409, "exists", "id"),
                (MAIL | {"payload": {"to": "nobody", "text": "x"}}, 400, "syntax", "payload.to"),
                (MAIL | {"payload": {"to": "a@example.org"}}, 400, "bad-option", "payload"),
            ):  # fmt: skip
                answer = await browser.post(f"{API}/jobs", said)
                error = answer.json["error"]
                assert (answer.status, error["code"], error.get("field")) == (status, code, field), said
            assert (await daemon.ask("LIST count=yes")).status["total"] == 1
            for body in (b"{", b'{"name": "\xff"}'):
                broken = await browser.ask("POST", f"{API}/jobs", body=body, content_type="application/json")
                assert broken.error == (400, "syntax")
            packed = gzip.compress(b"{}")
            sent = {"content_type": "application/json", "content_encoding": "gzip"}
            assert (await browser.ask("POST", f"{API}/jobs", body=packed, **sent)).error == (
                415,
                "media-type",
            )
            form = await browser.ask("POST", f"{API}/jobs", form={"command": "x"})
            assert form.error == (415, "media-type")
            for asked, field in (
                ("jobs?status=x", "status"), ("executions?state=x", "state"), ("executions?since=x", "since"),
                ("audit?until=x", "until"), ("audit?verdict=x", "verdict"),
                ("jobs/a/next?timezone=x", "timezone"), ("jobs/a/why?at=x", "at"),
            ):  # fmt: skip
                answer = await browser.get(f"{API}/{asked}")
                assert (answer.status, answer.json["error"].get("field")) == (400, field), asked
            late = await browser.ask("DELETE", f"{API}/jobs/a", if_match='"9"')
            assert (late.status, late.json["error"].get("field")) == (409, "If-Match")
            call = HOURLY | {"type": "http", "payload": {"url": "http://a.example/", "headers": {"A": "b"}}}
            assert (await browser.post(f"{API}/jobs", call | {"name": "call"})).status == 201
            other = await browser.ask("PATCH", f"{API}/jobs/call", {"type": "shell", "command": "x"})
            assert (other.status, other.json["error"].get("field")) == (400, "type")
            await daemon.say("REMOVE call")
            nothing = await browser.post(f"{API}/jobs/a/trigger", {"args": {"A": None}})
            assert (nothing.status, nothing.json["error"].get("field")) == (400, "args")
            unclear = await browser.post(f"{API}/jobs/a/pause", {"until": "x"})
            assert (unclear.status, unclear.json["error"].get("field")) == (400, "until")
            assert (await browser.get(f"{API}/jobs?limit=0")).error == (400, "bad-option")
            for misspelt in ("/jobs?stauts=active", "/executions?limit=1&job=5", "/jobs/1?full=1"):
                answer = await browser.get(f"{API}{misspelt}")
                field = misspelt.rpartition("=")[0].rpartition("&")[2].rpartition("?")[2]
                assert (answer.error, answer.json["error"]["field"]) == ((400, "bad-option"), field)
            for path in ("/nothing", "/jobs/a/nothing", "/openapi.json/nothing"):
                assert (await browser.get(f"{API}{path}")).status == 404
            assert (await browser.get(f"{API}/nothing")).error == (404, "not-found")
            for run in ("0", "x", "01"):
                assert (await browser.get(f"{API}/executions/{run}")).error == (404, "not-found"), run
            for ref in ("all", "tag=a", "a%20b", "name=*", "%0aCLEAR", "9"):
                assert (await browser.post(f"{API}/jobs/{ref}/pause")).status == 404, ref
                assert (await browser.ask("DELETE", f"{API}/jobs/{ref}")).status == 404, ref
            assert (await daemon.ask("STATUS")).pairs["paused"] == 0

    trio.run(refuse)


def test_a_text_of_several_lines_is_refused_at_its_field(tmp_path: Path) -> None:
    """What cannot travel in a line is said in words, and where."""

    async def make() -> None:
        async with an_api(tmp_path) as (browser, daemon):
            for body, status in (("one\ntwo", 400), ('{"a":\n1}', 201), ("one", 201)):
                payload = {"url": "http://localhost/", "method": "POST", "body": body}
                job = {"name": f"b{len(body)}", "type": "http", "schedule": "@daily", "payload": payload}
                answer = await browser.post(f"{API}/jobs", job)
                assert answer.status == status
                if status == 400:
                    assert answer.json["error"]["field"] == "payload.body"
                    assert "a text of one line" in answer.json["error"]["message"]
            assert len((await daemon.ask("LIST")).rows) == 2

    trio.run(make)
