"""Older clients sign in on the paths they know, and get bare objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.lib.asgi import Browser, a_door
from tests.lib.mail_server import Box, smtp_server
from tests.lib.waiting import until
from tests.lib.web_api import make_app
from tests.web.test_sign_in import link_of


@pytest.mark.parametrize(
    ("register", "login", "new", "jobs"),
    [
        ("/api/auth/register", "/api/auth/login", {"email": "a@example.com", "name": "Ann Lee"}, "/api/jobs"),
        ("/users", "/login", {"username": "Ann.Lee"}, "/jobs"),
        ("/users", "/login", {"username": "ann", "email": "a@example.com"}, "/jobs"),
    ],
)
async def test_an_older_client_registers_signs_in_and_lists(
    tmp_path: Path, register: str, login: str, new: dict[str, str], jobs: str
) -> None:
    """As its documentation has it; its token lets in wherever any token does."""
    async with a_door(tmp_path, make_app) as (app, _):
        browser = Browser(app, headers={"accept": "*/*"})
        made = await browser.post(register, new | {"password": "SecurePass123"})
        assert made.status == 201
        assert made.json["role"] == "admin"
        assert made.json["id"] == new.get("username", "ann.lee")
        who = {key: value for key, value in new.items() if key != "name"}
        given = (await browser.post(login, who | {"password": "SecurePass123"})).json
        assert given["user"]["id"] == made.json["id"]
        for token in given["token"], made.json["token"]:
            assert (await browser.get(jobs, authorization=f"Bearer {token}")).json == []
            me = await browser.get("/api/v1/auth/me", authorization=f"Bearer {token}")
            assert me.data["id"] == made.json["id"]
        out = await browser.post("/api/v1/auth/logout", authorization=f"Bearer {given['token']}")
        assert out.status == 200
        assert (await browser.get(jobs, authorization=f"Bearer {given['token']}")).status == 401


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/login", {"username": "ann", "password": "wrong-horse"}, 401),
        ("/api/auth/login", {"email": "x@example.com", "password": "wrong-horse"}, 401),
        ("/api/auth/login", {}, 400), ("/users", {"username": "eve", "password": "SecurePass123"}, 403),
        ("/users", {"username": "a b", "password": "SecurePass123"}, 400),
        ("/users", {"password": "SecurePass123"}, 400), ("/api/auth/reset", {"x": 1}, 400),
        ("/api/auth/reset", {"token": "x", "password": "SecurePass123"}, 403),
    ],
)  # fmt: skip
async def test_a_refusal_is_bare_too(tmp_path: Path, path: str, body: Any, status: int) -> None:
    """What they show people is `error`, or `message`."""
    async with a_door(tmp_path, make_app) as (app, daemon):
        await daemon.say("USER ADD ann role=admin password=correct-horse")
        answer = await Browser(app).post(path, body)
        assert answer.status == status
        assert answer.json["error"] == answer.json["message"] != ""
        assert "success" not in answer.json


async def test_a_forgotten_password_on_the_older_paths(tmp_path: Path) -> None:
    """The mail leads to the same page."""
    box = Box()
    with smtp_server(box) as port:
        async with a_door(tmp_path, make_app, smtp=("127.0.0.1", port)) as (app, daemon):
            await daemon.say("USER ADD ann email=a@example.com password=correct-horse")
            answer = await Browser(app).post("/api/auth/forgot", {"email": "a@example.com"})
            assert (answer.status, list(answer.json)) == (202, ["message"])
            await until(lambda: box.mails)
            body = {"token": link_of(box)[1], "password": "another-horse"}
            assert (await Browser(app).post("/api/auth/reset", body)).status == 200
            body = {"email": "a@example.com", "password": "another-horse"}
            assert (await Browser(app).post("/api/auth/login", body)).status == 200
