"""Whether the door, and the daemon behind it, are there."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from cronflowd.host.config import WebSettings
from cronflowd.web.line import Unreachable
from tests.lib.asgi import Browser, Scripted, a_door
from tests.lib.web_api import make_app


def test_it_is_ready_when_its_daemon_answers(tmp_path: Path) -> None:
    """Through the gateway's own connection, which is kept."""

    async def look() -> None:
        async with a_door(tmp_path, make_app) as (app, daemon):
            for _ in range(3):
                assert (await Browser(app).get("/readyz")).status == 200
            assert daemon.dialled == 1

    trio.run(look)


def test_it_is_not_ready_without_daemon_or_room(tmp_path: Path) -> None:
    """The process itself goes on: whoever watches it must not start it again for that."""
    full = [{"key": "disk", "value": "full"}]
    for said in Unreachable("nobody there"), full:
        browser = Browser(make_app(WebSettings(data=tmp_path), Scripted({"STATUS": said})))
        assert trio.run(browser.get, "/readyz").status == 503
        assert trio.run(browser.get, "/healthz").text == "ok\n"


def test_head_is_get_without_a_body(tmp_path: Path) -> None:
    """Load balancers ask so, and whoever looks at headers; the server leaves the body out."""
    browser = Browser(make_app(WebSettings(data=tmp_path), Scripted()))
    for path, status in (("/healthz", 200), ("/docs", 200), ("/api/v1/nowhere", 404)):
        assert trio.run(browser.ask, "HEAD", path).status == status
    assert trio.run(browser.ask, "HEAD", "/api/v1/auth/login").status == 405


def test_no_request_waits_for_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What checks a request was asked in one each time, which cost as much as all the rest."""
    started: list[object] = []

    async def start(function: object, *_: object, **__: object) -> None:
        started.append(function)

    monkeypatch.setattr(trio.to_thread, "run_sync", start)
    settings = WebSettings(data=tmp_path)
    browser = Browser(make_app(settings, Scripted()), headers={"authorization": "Bearer word"})
    for path in ("/api/v1/jobs?limit=20", "/api/v1/workers", "/healthz", "/", "/static/app.css"):
        assert trio.run(browser.get, path).status
    assert not started


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/api/v1/jobs", "GET, HEAD, OPTIONS, POST"),
        ("/api/v1/jobs/1", "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"),
        ("/api/v1/secrets/a", "DELETE, OPTIONS, PUT"),
        ("/api/v1/jobs/1/pause", "OPTIONS, POST"),
        ("/jobs", "GET, HEAD, OPTIONS, POST"),  # a page, and of older clients
        ("/jobs/1", "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"),
        ("/jobs/agents", "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"),
        ("/agents", "GET, HEAD, OPTIONS, POST"),
        ("/agents/heartbeat", "OPTIONS, POST"),
        ("/", "GET, HEAD, OPTIONS"),
    ],
)
def test_options_and_a_wrong_method_tell_all_that_a_path_takes(
    tmp_path: Path, path: str, methods: str
) -> None:
    """The commonest slip of all. Of several handlers those of the first alone were told, and never HEAD."""
    browser = Browser(make_app(WebSettings(data=tmp_path), Scripted()))
    asked = trio.run(browser.ask, "OPTIONS", path)
    assert (asked.status, asked.headers["allow"], asked.text) == (204, methods, "")
    wrong = trio.run(browser.ask, "REPORT", path)
    assert (wrong.error, wrong.headers["allow"]) == ((405, "method"), methods)
    assert trio.run(browser.ask, "OPTIONS", "/nothing").status == 404
