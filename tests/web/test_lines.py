"""Any line by HTTP: what has no path of its own, and nothing that its sender may not say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from cronflowd.ask.commands import VERBS
from tests.lib.asgi import Browser, InMemory, Response
from tests.lib.web_api import API, an_api, somebody

LINES = f"{API}/lines"


async def say(browser: Browser, line: str, **headers: str) -> Response:
    return await browser.post(LINES, {"line": line}, **headers)


async def signed_in(door: Any, daemon: InMemory, name: str, role: str) -> Browser:
    """Somebody with an account, who shows the access token of a session."""
    await daemon.say(f"USER ADD {name} role={role} password=correct-horse")
    browser = Browser(door)
    found = await browser.post(f"{API}/auth/login", {"name": name, "password": "correct-horse"})
    browser.headers["authorization"] = f"Bearer {found.data['accessToken']}"
    return browser


def test_what_has_no_path_of_its_own_is_reached(tmp_path: Path) -> None:
    """Flows, templates, statistics, events, old revisions: as rows whose keys are the columns' names."""

    async def ask() -> None:
        async with an_api(tmp_path) as (browser, daemon):
            await say(browser, "TEMPLATE ADD nightly retry=fixed:2:1s")
            found = (await say(browser, "ADD name=load from=nightly @daily load")).data
            assert found == {
                "rows": [],
                "status": {"id": 1, "jobName": "load", "next": "2030-01-02T00:00:00Z"},
            }
            await say(browser, "add name=report after=load @after report")
            assert (await say(browser, "FLOW load RUN")).data["status"]["flow"] == 1
            (flow, *_) = (await say(browser, "FLOW load RUNS")).data["rows"]
            assert flow["state"] == "running"
            await say(browser, "SET load timeout=5m")
            assert (await say(browser, "ROLLBACK load 1")).status == 200
            assert {"key": "timeout", "value": "none"} in (await say(browser, "GET load")).data["rows"]
            assert (await say(browser, "STATS HEAD=yes")).data["rows"]
            told = (await say(browser, "PROVE")).data
            assert told["rows"][0] == {"key": "due", "value": 1} and told["status"] == {"balanced": True}
            assert "GET" not in daemon.lines  # each was said on a connection of its own

    trio.run(ask)


@pytest.mark.parametrize("is_account", [True, False], ids=["session", "token"])
def test_it_is_said_with_the_rights_of_whoever_asks(is_account: bool, tmp_path: Path) -> None:
    """And of nobody else: the door may speak for all, and passes on what it does not understand."""

    async def ask() -> None:
        async with an_api(tmp_path) as (root, daemon):
            door = root.app
            ann = await (
                signed_in(door, daemon, "ann", "user") if is_account else somebody(door, daemon, "user")
            )
            await daemon.say("USER ADD bob password=correct-horse")
            await daemon.say("ADD name=his owner=bob @daily x")
            assert (await say(ann, "WHOAMI")).data["status"]["role"] == "user"
            assert (await say(ann, "ADD name=hers @daily x")).status == 200
            for line in (
                "AS root", "AS", "AS bob from=192.0.2.7", "as\tbob", "USER FORGOT bob", "SESSION ADD bob",
                "SET his prio=high", "CLEAR all", "TOKEN ADD role=admin", "USER SET bob role=admin",
                "STEPDOWN",
            ):  # fmt: skip
                assert (await say(ann, line)).error == (403, "denied"), line
            assert (await say(ann, "AUTH bob wrong")).error == (403, "denied")
            assert (await say(ann, "WHOAMI")).data["status"]["role"] == "user"
            (change,) = (await say(root, "HISTORY hers")).data["rows"]
            assert change["who"].startswith("ann@" if is_account else "test-user@")
            assert (await say(Browser(door), "LIST")).status == 401
            viewer = await somebody(door, daemon, "viewer")
            assert (await say(viewer, "LIST")).data["status"] == {"rows": 2}
            assert (await say(viewer, "RUN his")).error == (403, "denied")

    trio.run(ask)


@pytest.mark.parametrize(
    "line",
    [
        "", " ", "# LIST", "\tLIST", " LIST", "LIST\nCLEAR all", "LIST\rCLEAR", "\ufeffLIST", '{"a": 1}',
        "FORMAT text", "format json", "ONCE k CLEAR all", "WATCH", "watch runs", "LOG 1 follow",
        "log follow tail=5 FOLLOW", "LOG 1 -f", "LOG a -1 --Follow", 'LOG 1 "follow" fd=1',
    ],
)  # fmt: skip
def test_what_is_no_single_order_is_refused(line: str, tmp_path: Path) -> None:
    """It would have no answer, or another one than that which is read."""

    async def ask() -> None:
        async with an_api(tmp_path) as (browser, daemon):
            dialled = daemon.dialled
            answer = await say(browser, line)
            assert answer.error == (400, "syntax")
            assert answer.json["error"]["field"] == "line"
            assert daemon.dialled == dialled

    trio.run(ask)


def test_every_verb_has_an_answer_and_leaves_nothing_for_the_next(tmp_path: Path) -> None:
    """One that changed how the connection speaks, or never ended, would be met here first."""

    async def ask() -> None:
        async with an_api(tmp_path) as (browser, _):
            for verb in VERBS:
                for line in verb, f"{verb} x", f"{verb} all":
                    answer = await say(browser, line)
                    assert answer.status in (200, 400, 403, 404, 409, 503), line
                    assert "cannot be reached" not in answer.text, line
                assert (await say(browser, "WHOAMI")).data["status"]["name"] == "test-admin"

    trio.run(ask)


def test_a_refusal_is_the_daemons(tmp_path: Path) -> None:
    """Its code and its words; the body has no field of the words that it is about."""

    async def ask() -> None:
        async with an_api(tmp_path) as (browser, _):
            for line, error in (
                ("GET nobody", (404, "not-found")), ("ADD 61 * * * * x", (400, "bad-schedule")),
                ("LITS", (400, "unknown-command")), ("RUN x " + "y" * 70_000, (413, "too-long")),
                ("ADD name=b after=nobody @daily x", (404, "not-found")), ("\x00", (400, "syntax")),
            ):  # fmt: skip
                answer = await say(browser, line)
                assert answer.error == error, line[:80]
                assert answer.json["error"].get("field") == ("line" if line == "\x00" else None)
            assert "did you mean LIST?" in (await say(browser, "LITS")).text
            assert (await browser.post(LINES, {"lines": ["LIST"]})).json["error"]["field"] == "lines"

    trio.run(ask)


def test_a_key_has_it_done_once(tmp_path: Path) -> None:
    """Whoever has not heard the answer asks again; the key of one line is none for another."""

    async def ask() -> None:
        async with an_api(tmp_path) as (browser, _):
            first, again = [await say(browser, "NOW x", idempotency_key="a") for _ in range(2)]
            assert first.data == again.data
            assert (await say(browser, "LIST")).data["status"] == {"rows": 1}
            answer = await say(browser, "NOW y", idempotency_key="a")
            assert (answer.error, answer.json["error"]["field"]) == ((409, "exists"), "Idempotency-Key")

    trio.run(ask)


def test_an_answer_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for that comes later, and no more is read than this process has room for."""

    async def ask() -> None:
        async with an_api(tmp_path) as (browser, daemon):
            await daemon.say("ADD name=a @daily x")
            await daemon.say("RUN a")
            with trio.fail_after(20):
                assert (await say(browser, "LOG follow")).error == (404, "not-found")  # a job of that name
                assert (await say(browser, "QUIT")).status == 200
            monkeypatch.setattr("cronflowd.web.line.MAX_PASSED_BYTES", 1000)
            assert (await say(browser, "LIST")).status == 200
            assert (await say(browser, "HELP")).error == (413, "too-long")
            assert (await say(browser, "LIST")).status == 200

    trio.run(ask)
