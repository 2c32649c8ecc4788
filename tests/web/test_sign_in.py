"""Signing in and out, registration and forgotten passwords, in front of a whole daemon in memory."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from cronflowd.base.errors import Refusal
from cronflowd.daemon import strangers
from cronflowd.host.config import WebSettings
from cronflowd.web import line, sign_in
from cronflowd.web.identity import COOKIE
from cronflowd.web.line import Unreachable
from tests.lib.asgi import Browser, InMemory, Response, Scripted, a_door
from tests.lib.mail_server import Box, smtp_server
from tests.lib.waiting import until
from tests.lib.web_api import make_app

JOHN = {"email": "user@example.com", "password": "SecurePass123", "name": "John Doe"}
AWAY = "198.51.100.7"


@asynccontextmanager
async def a_house(data: Path, **told: Any) -> AsyncIterator[tuple[Any, InMemory]]:
    """With an admin, and with ann, who is a user."""
    async with a_door(data, make_app, **told) as (app, daemon):
        await daemon.say("USER ADD root role=admin password=battery-staple")
        await daemon.say('USER ADD ann role=user email=Ann@example.com desc="Ann Lee" password=correct-horse')
        yield app, daemon


async def sign_in_as(app: Any, name: str = "ann", password: str = "correct-horse") -> tuple[Browser, Any]:
    """A program that has signed in, and what it was given."""
    given = (await Browser(app).post("/api/v1/auth/login", {"name": name, "password": password})).data
    return Browser(app, headers={"authorization": f"Bearer {given['accessToken']}"}), given


def _status(answer: Response) -> tuple[int, str]:
    return answer.error if answer.status >= 400 else (answer.status, "")


# --- signing in ---------------------------------------------------------------------------------


async def test_somebody_signs_in_by_mail_address_or_name(tmp_path: Path) -> None:
    """As the request is documented; what comes back lets in, and tells who it is."""
    async with a_house(tmp_path) as (app, daemon):
        for who in {"email": "ann@example.COM"}, {"name": "ann"}, {"username": "ann"}, {"email": "ann"}:
            answer = await Browser(app, AWAY).post("/api/v1/auth/login", who | {"password": "correct-horse"})
            assert answer.status == 200
            assert answer.data["user"] | {"createdAt": "", "lastSeenAt": ""} == {
                "id": "ann", "name": "Ann Lee", "email": "Ann@example.com", "role": "user",
                "disabled": False, "createdAt": "", "lastSeenAt": "", "uid": None,
            }  # fmt: skip
            token = f"Bearer {answer.data['accessToken']}"
            assert (await Browser(app).get("/api/v1/auth/me", authorization=token)).data["id"] == "ann"
        assert {row["address"] for row in await daemon.say("SESSION LIST")} == {AWAY}


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "ann", "password": "wrong-horse"}, {"name": "nobody", "password": "correct-horse"},
        {"name": "ann", "password": ""}, {"name": "", "password": "correct-horse"},
        {"name": "ann correct-horse", "password": ""}, {"name": "ann", "password": "correct-horse x"},
        {"email": "nobody@example.com", "password": "correct-horse"},
        {"name": "ann", "password": " correct-horse"}, {"name": "ann\nUSER REMOVE ann", "password": "x"},
    ],
)  # fmt: skip
async def test_a_wrong_word_is_refused_whatever_is_wrong_with_it(
    tmp_path: Path, wrong: dict[str, str]
) -> None:
    """One answer, so that nobody learns which names there are; and none becomes another line."""
    async with a_house(tmp_path) as (app, daemon):
        answer = await Browser(app).post("/api/v1/auth/login", wrong)
        assert answer.error == (401, "denied")
        assert answer.json["error"]["message"] == "the name or the password is not the right one"
        assert not await daemon.say("SESSION LIST")
        assert len(await daemon.say("USER LIST")) == 2


async def test_an_api_token_is_no_password(tmp_path: Path) -> None:
    """AUTH of one word would take it, without password."""
    async with a_house(tmp_path) as (app, daemon):
        token = (await daemon.ask("TOKEN ADD role=admin")).pairs["token"]
        for body in {"name": token, "password": ""}, {"name": "", "password": token}:
            assert (await Browser(app).post("/api/v1/auth/login", body)).error == (401, "denied")


@pytest.mark.parametrize(
    ("said", "status", "field"),
    [
        ({"json": {"email": "a"}}, 400, "password"), ({"json": {"password": 1}}, 400, "password"),
        ({"json": {"password": "x", "admin": True}}, 400, "admin"), ({"json": []}, 400, None),
        ({"body": b"{", "content_type": "application/json"}, 400, None),
        ({"body": b"[" * 100_000, "content_type": "application/json"}, 400, None),
        ({"body": b'{"password":"\\ud800"}', "content_type": "application/json"}, 400, None),
        ({"form": {"email": "ann", "password": "correct-horse"}}, 415, None),
        ({"body": b'{"name":"ann","password":"correct-horse"}', "content_type": "text/plain"}, 415, None),
        ({"body": b'{"name":"ann","password":"correct-horse"}'}, 415, None),
        ({"json": {"name": "ann", "password": "x" * 257}}, 400, "password"),
    ],
)  # fmt: skip
async def test_a_body_that_is_none_is_told_where(
    tmp_path: Path, said: dict[str, Any], status: int, field: str | None
) -> None:
    """And a form of another site, which can send anything but JSON, signs nobody in."""
    app = make_app(WebSettings(data=tmp_path), Scripted({}))
    answer = await Browser(app).ask("POST", "/api/v1/auth/login", **said)
    assert (answer.error[0], answer.json["error"].get("field")) == (status, field)


async def test_an_address_tries_so_many_passwords_a_minute(tmp_path: Path) -> None:
    """And is told when it may again; others are not concerned, nor what is signed in already."""
    async with a_house(tmp_path, max_sign_ins=3) as (app, _):
        ann, _ = await sign_in_as(app)
        wrong = {"name": "ann", "password": "wrong-horse"}
        answers = [await Browser(app, AWAY).post("/api/v1/auth/login", wrong) for _ in range(4)]
        assert [each.status for each in answers] == [401, 401, 401, 429]
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 20
        for path, body in (
            ("register", JOHN),
            ("forgot", {"email": "x"}),
            ("reset", {"token": "x", "password": "y"}),
        ):
            assert (await Browser(app, AWAY).post(f"/api/v1/auth/{path}", body)).error == (429, "too-many")
        assert (await ann.get("/api/v1/auth/me")).status == 200
        assert (await sign_in_as(app))[1]["user"]["id"] == "ann"


async def test_an_account_asks_so_often_from_wherever(tmp_path: Path) -> None:
    """A program gone wild in many places is one account's."""
    async with a_house(tmp_path, max_requests=2) as (app, _):
        ann, _ = await sign_in_as(app)
        root, _ = await sign_in_as(app, "root", "battery-staple")
        statuses = []
        for number in range(6):
            ann.address = f"192.0.2.{number}"
            statuses.append((await ann.get("/api/v1/auth/me")).status)
        assert statuses[:4] == [200] * 4
        assert 429 in statuses[4:]
        assert (await root.get("/api/v1/auth/me")).status == 200


async def test_who_guesses_waits_and_nobody_else_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many guesses as there are connections are under way, and the door works on for everybody."""
    monkeypatch.setattr(strangers, "FIRST_WAIT_S", 0.2)
    monkeypatch.setattr(line, "MAX_CONNECTIONS", 2)
    async with a_house(tmp_path, max_sign_ins=1000) as (app, _):
        ann, _ = await sign_in_as(app)
        codes: list[int] = []

        async def guess() -> None:
            wrong = {"name": "root", "password": "wrong-horse"}
            codes.append((await Browser(app, AWAY).post("/api/v1/auth/login", wrong)).status)

        async with trio.open_nursery() as nursery:
            for _ in range(60):
                nursery.start_soon(guess)
            await until(lambda: 429 in codes)  # its own too many are told at once
            assert (await ann.get("/api/v1/auth/me")).status == 200
            assert (await sign_in_as(app, "root", "battery-staple"))[1]["user"]["role"] == "admin"
            nursery.cancel_scope.cancel()


# --- going on, and out --------------------------------------------------------------------------


async def test_a_refresh_token_is_good_once_and_shown_again_ends_the_session(tmp_path: Path) -> None:
    """Who shows it a second time has stolen it, or was stolen from: neither goes on."""
    async with a_house(tmp_path) as (app, daemon):
        _, first = await sign_in_as(app)
        other, _ = await sign_in_as(app)
        browser = Browser(app)
        second = (await browser.post("/api/v1/auth/refresh", {"refreshToken": first["refreshToken"]})).data
        assert second["user"]["id"] == "ann"
        ann = Browser(app, headers={"authorization": f"Bearer {second['accessToken']}"})
        assert (await ann.get("/api/v1/auth/me")).status == 200
        again = await browser.post("/api/v1/auth/refresh", {"refreshToken": first["refreshToken"]})
        assert again.error == (401, "denied")
        last = await browser.post("/api/v1/auth/refresh", {"refreshToken": second["refreshToken"]})
        assert last.error == (401, "denied")
        assert (await ann.get("/api/v1/auth/me")).error == (401, "auth-required")
        assert (await other.get("/api/v1/auth/me")).status == 200
        told = [
            row for row in await daemon.say("AUDIT") if row["verb"] == "SESSION" and row["verdict"] != "ok"
        ]
        assert [row["who"] for row in told][-1] == "ann"


async def test_one_kind_of_token_is_not_taken_for_the_other(tmp_path: Path) -> None:
    """A refresh token lives for a week and would be an access token for as long."""
    async with a_house(tmp_path) as (app, _):
        _, given = await sign_in_as(app)
        wrong = Browser(app, headers={"authorization": f"Bearer {given['refreshToken']}"})
        assert (await wrong.get("/api/v1/auth/me")).error == (401, "auth-required")
        for shown in given["accessToken"], "x", "", given["refreshToken"] + "x":
            answer = await Browser(app).post("/api/v1/auth/refresh", {"refreshToken": shown})
            assert answer.error == (401, "auth-required")


@pytest.mark.parametrize("how", ["access", "refresh", "cookie"])
async def test_signing_out_counts_at_once(tmp_path: Path, how: str) -> None:
    """An access token would let in for a quarter of an hour more."""
    async with a_house(tmp_path) as (app, daemon):
        ann, given = await sign_in_as(app)
        other, _ = await sign_in_as(app)
        if how == "access":
            out = await ann.post("/api/v1/auth/logout", {})
        elif how == "refresh":
            out = await Browser(app).post("/api/v1/auth/logout", {"refreshToken": given["refreshToken"]})
        else:
            identity = app.state.identity
            who = identity.read(given["accessToken"], sign_in.wall_now())
            browser = Browser(app, cookies={COOKIE: given["accessToken"]})
            assert (await browser.post("/api/v1/auth/logout")).error == (403, "denied")
            out = await browser.post("/api/v1/auth/logout", x_csrf_token=identity.csrf(who))
            assert not browser.cookies
        assert out.data == {}
        assert (await ann.get("/api/v1/auth/me")).error == (401, "auth-required")
        assert (await other.get("/api/v1/auth/me")).status == 200
        refresh = await Browser(app).post("/api/v1/auth/refresh", {"refreshToken": given["refreshToken"]})
        assert refresh.error == (401, "denied")
        assert len(await daemon.say("SESSION LIST")) == 1


@pytest.mark.parametrize(
    "change",
    [
        "SET ann disabled=yes",
        "SET ann role=viewer",
        "PASSWORD ann other-horse",
        "REMOVE ann",
    ],
)
async def test_what_changes_an_account_ends_its_sessions(tmp_path: Path, change: str) -> None:
    """By whichever door it was changed."""
    async with a_house(tmp_path) as (app, daemon):
        ann, given = await sign_in_as(app)
        await daemon.say(f"USER {change}")
        assert (await ann.get("/api/v1/auth/me")).error == (401, "auth-required")
        refresh = await Browser(app).post("/api/v1/auth/refresh", {"refreshToken": given["refreshToken"]})
        assert refresh.error == (401, "denied")


async def test_an_api_token_says_whose_it_is_and_has_no_session(tmp_path: Path) -> None:
    """Its role is what it may here, though its account may more."""
    async with a_house(tmp_path) as (app, daemon):
        mine = (await daemon.ask("TOKEN ADD name=ci user=root role=viewer")).pairs["token"]
        bare = (await daemon.ask("TOKEN ADD name=robot role=operator")).pairs["token"]
        browser = Browser(app)
        answers = [
            (await browser.get("/api/v1/auth/me", authorization=f"Bearer {token}")).data
            for token in (mine, bare)
        ]
        assert [(each["id"], each["role"]) for each in answers] == [("root", "viewer"), ("robot", "operator")]
        out = await browser.post("/api/v1/auth/logout", authorization=f"Bearer {bare}")
        assert out.error == (400, "bad-option")
        wrong = await browser.get("/api/v1/auth/me", authorization="Bearer " + "0" * 64)
        assert wrong.error == (401, "auth-required")


async def test_a_session_lasts_over_a_restart_of_either(tmp_path: Path) -> None:
    """The door keeps nothing, and the daemon keeps it in its journal."""
    async with a_house(tmp_path) as (app, daemon):
        ann, given = await sign_in_as(app)
        await daemon.world.play("D", None, "")
        anew = make_app(WebSettings(data=tmp_path), daemon)
        for each in app, anew:
            ann.app = each
            assert (await ann.get("/api/v1/auth/me")).data["id"] == "ann"
        refreshed = await Browser(anew).post("/api/v1/auth/refresh", {"refreshToken": given["refreshToken"]})
        assert refreshed.status == 200


# --- new accounts -------------------------------------------------------------------------------


async def test_the_first_visit_on_this_machine_makes_the_admin(tmp_path: Path) -> None:
    """As the request is documented; the name that was given is kept for people."""
    async with a_door(tmp_path, make_app) as (app, daemon):
        answer = await Browser(app).post("/api/v1/auth/register", JOHN)
        assert answer.status == 201
        user = answer.data["user"]
        assert (user["id"], user["name"], user["email"], user["role"]) == (
            "john.doe", "John Doe", "user@example.com", "admin",
        )  # fmt: skip
        # He has come in by it: that is seen, and every sign-in is told.
        assert user["lastSeenAt"] is not None
        assert ("AUTH", "john.doe") in [(row["verb"], row["who"]) for row in await daemon.say("AUDIT")]
        assert (await sign_in_as(app, "user@example.com", "SecurePass123"))[1]["user"]["id"] == "john.doe"
        second = await Browser(app).post("/api/v1/auth/register", JOHN | {"email": "b@example.com"})
        assert second.error == (403, "denied")
        assert len(await daemon.say("USER LIST")) == 1


@pytest.mark.parametrize(
    ("browser", "told"),
    [
        ({"address": AWAY}, {}), ({"host": "cron.example.net"}, {}), ({"host": "192.0.2.1:3000"}, {}),
        ({"headers": {"x-forwarded-for": AWAY}}, {}), ({"headers": {"forwarded": "for=x"}}, {}),
        ({"host": ""}, {}), ({"version": "1.0"}, {}), ({"address": ""}, {}),
        ({}, {"http_url": "https://cron.example.net"}), ({}, {"http_name": ("cron.example.net",)}),
    ],
)  # fmt: skip
async def test_a_first_visit_from_elsewhere_makes_nobody(
    tmp_path: Path, browser: dict[str, Any], told: dict[str, Any]
) -> None:
    """Nor one that a proxy on this machine passes on for somebody, though it may tell nothing of him."""
    async with a_door(tmp_path, make_app, **told) as (app, daemon):
        answer = await Browser(app, **browser).post("/api/v1/auth/register", JOHN)
        assert answer.error == (403, "denied")
        assert not await daemon.say("USER LIST")


@pytest.mark.parametrize("asks", [{"token": "secret"}, {"ask": "yes"}])
async def test_where_somebody_must_say_who_he_is_no_visit_makes_an_admin(
    tmp_path: Path, asks: dict[str, str]
) -> None:
    """Whoever set a secret has not left the machine to its first user."""
    async with a_door(tmp_path, make_app, asks) as (app, daemon):
        assert (await Browser(app).post("/api/v1/auth/register", JOHN)).error == (403, "denied")
        assert not await daemon.say("USER LIST")
        assert (await Browser(app).get("/login")).status == 200, "and no page offers it"
        assert (await Browser(app).get("/welcome")).headers["location"] == "/login"


async def test_of_many_first_visits_one_makes_the_admin(tmp_path: Path) -> None:
    """They come at once, each by its own connection."""
    async with a_door(tmp_path, make_app) as (app, daemon):
        answers: list[tuple[int, str]] = []

        async def visit(number: int) -> None:
            new = {"email": f"{number}@example.com", "password": "SecurePass123", "name": f"N {number}"}
            answers.append(_status(await Browser(app).post("/api/v1/auth/register", new)))

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(visit, number)
        assert sorted(answers) == [(201, "")] + [(403, "denied")] * 19
        assert [row["role"] for row in await daemon.say("USER LIST")] == ["admin"]


async def test_where_it_is_allowed_whoever_comes_becomes_a_user(tmp_path: Path) -> None:
    """Also from this machine, once there is an admin; two people of one name have two accounts."""
    async with a_house(tmp_path, allow_registration=True) as (app, _):
        made = []
        for address, email in (AWAY, "a@example.com"), ("127.0.0.1", "b@example.com"):
            new = {"email": email, "password": "SecurePass123", "name": "José Muñoz"}
            made.append((await Browser(app, address).post("/api/v1/auth/register", new)).data["user"])
        assert [(each["id"], each["name"], each["role"]) for each in made] == [
            ("jose.munoz", "José Muñoz", "user"), ("jose.munoz-2", "José Muñoz", "user"),
        ]  # fmt: skip
        again = await Browser(app, AWAY).post("/api/v1/auth/register", JOHN | {"email": "A@example.com"})
        assert again.error == (409, "exists")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"email": "no address"}, "email"), ({"email": "a@b\nUSER ADD x"}, "email"), ({"email": ""}, "email"),
        ({"password": "short"}, "password"), ({"password": "two words here"}, "password"),
        ({"password": ""}, "password"), ({"password": "x\ny-and-more"}, "password"),
        ({"name": "x" * 201}, "name"), ({"name": "a\nb"}, "name"), ({"name": "a\u2028b"}, "name"),
        ({"role": "admin"}, "role"),
    ],
)  # fmt: skip
async def test_an_account_that_cannot_be_is_told_at_its_field(
    tmp_path: Path, change: dict[str, str], field: str
) -> None:
    """Nothing is made then, and nobody chooses a role."""
    async with a_house(tmp_path, allow_registration=True) as (app, daemon):
        answer = await Browser(app, AWAY).post("/api/v1/auth/register", JOHN | change)
        assert (answer.error[0], answer.json["error"]["field"]) == (400, field)
        if field != "role":
            page = await Browser(app, AWAY).ask("POST", "/welcome", form=JOHN | change)
            assert page.status == 400
            assert re.search(rf'name="{field}"[^>]* aria-invalid="true"', page.text), page.text
        assert len(await daemon.say("USER LIST")) == 2


@pytest.mark.parametrize(
    "name", ['" role=admin x="', "\\", 'a"b', "role=admin", "{{secret:x}}", "{", "日本", "-"]
)
async def test_no_name_brings_an_option_of_its_own(tmp_path: Path, name: str) -> None:
    """It is what people are shown, whatever it is."""
    async with a_house(tmp_path, allow_registration=True) as (app, daemon):
        answer = await Browser(app, AWAY).post("/api/v1/auth/register", JOHN | {"name": name})
        assert (answer.data["user"]["name"], answer.data["user"]["role"]) == (name, "user")
        assert [row["role"] for row in await daemon.say("USER LIST") if row["desc"] == name] == ["user"]


@pytest.mark.parametrize("name", ["admin", "Admin", "root", "me", "gone", "ci"])
async def test_who_registers_is_nobody_who_has_tasks_already(tmp_path: Path, name: str) -> None:
    """They would be his: those of whoever holds the token file, or the socket, and of who was removed."""
    async with a_house(tmp_path, allow_registration=True) as (app, daemon):
        me = (await daemon.ask("WHOAMI")).status["name"]
        await daemon.say("ADD name=one @daily x")
        for owner in ("gone", "ci"):
            await daemon.say(f"ADD owner={owner} @daily x")
        taken = me if name == "me" else name
        register = Browser(app, AWAY).post
        refused = await register("/api/v1/auth/register", JOHN | {"username": taken})
        assert refused.error == (409, "exists")
        other = (await register("/api/v1/auth/register", JOHN | {"name": taken})).data["user"]["id"]
        assert other == f"{taken.lower()}-2"
        assert await daemon.say(f"LIST owner={other}") == []


def test_an_account_s_name_comes_from_its_owner_s() -> None:
    """It is typed by people and stands in logs."""
    for text, name in (
        ("John Doe", "john.doe"), ("  Å. Ström ", "a.strom"), ("日本", ""), ("...", ""),
        ("x" * 100, "x" * 64),
        ("a/b\\c", "a.b.c"), ("O'Neil-Smith_2", "o.neil-smith_2"),
    ):  # fmt: skip
        assert sign_in.account_name(text) == name


# --- forgotten passwords ------------------------------------------------------------------------


@pytest.fixture
def box() -> Box:
    return Box()


def link_of(box: Box) -> tuple[str, str]:
    """How browsers reach us as the last mail says, and its token."""
    match = re.search(r"^(\S+)/reset\?token=(\S+)\r?$", box.mails[-1][1].get_content(), re.MULTILINE)
    assert match
    return match[1], match[2]


async def test_a_forgotten_password_is_replaced_by_mail(
    tmp_path: Path, box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    """The link is good once, ends all sessions, and stands in no log."""
    caplog.set_level("DEBUG")
    with smtp_server(box) as port:
        async with a_house(tmp_path, smtp=("127.0.0.1", port)) as (app, daemon):
            ann, _ = await sign_in_as(app)
            answer = await Browser(app).post("/api/v1/auth/forgot", {"email": "ann@example.com"})
            assert answer.status == 202
            await until(lambda: box.mails)
            envelope, message = box.mails[0]
            assert (envelope.rcpt_tos, message["To"]) == (["Ann@example.com"], "Ann@example.com")
            where, token = link_of(box)
            assert where == "http://127.0.0.1:3000"
            browser, new = Browser(app), {"token": token, "password": "another-horse"}
            short = await browser.post("/api/v1/auth/reset", new | {"password": "short"})
            assert (short.error, short.json["error"]["field"]) == ((400, "bad-option"), "password")
            assert (await browser.post("/api/v1/auth/reset", new)).data == {}
            assert (await browser.post("/api/v1/auth/reset", new)).error == (403, "denied")
            assert (await ann.get("/api/v1/auth/me")).error == (401, "auth-required")
            assert (await sign_in_as(app, password="another-horse"))[1]["user"]["id"] == "ann"
            ours = [each.getMessage() for each in caplog.records if each.name.startswith("cronflowd")]
            assert token not in str(ours) + str(await daemon.say("AUDIT limit=1000"))
            assert token.encode() not in b"".join(
                each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()
            )


@pytest.mark.parametrize("who", ["nobody@example.com", "nobody", "", "ann x", "a\nb", "root", "disabled"])
async def test_nobody_learns_who_has_an_account(tmp_path: Path, box: Box, who: str) -> None:
    """The answer is one and the same, and it does not wait for what comes of it."""
    with smtp_server(box) as port:
        async with a_house(tmp_path, smtp=("127.0.0.1", port)) as (app, daemon):
            await daemon.say("USER ADD disabled email=d@example.com")
            await daemon.say("USER SET disabled disabled=yes")
            known = await Browser(app).post("/api/v1/auth/forgot", {"email": "ann"})
            unknown = await Browser(app).post("/api/v1/auth/forgot", {"email": who})
            assert (known.status, known.body) == (unknown.status, unknown.body)
            assert known.headers == unknown.headers
            await until(lambda: box.mails)
            await trio.testing.wait_all_tasks_blocked()
            assert [message["To"] for _, message in box.mails] == ["Ann@example.com"]


async def test_the_answer_does_not_wait_for_the_daemon(tmp_path: Path) -> None:
    """What is asked about an account that exists would take longer, and tell so."""
    daemon = Scripted({"USER FORGOT": lambda line: pytest.fail("asked before the answer")})
    app = make_app(WebSettings(data=tmp_path), daemon)
    assert (await Browser(app).post("/api/v1/auth/forgot", {"email": "ann"})).status == 202
    assert daemon.asked == []


@pytest.mark.parametrize(
    ("told", "host", "where"),
    [
        ({"http_url": "https://cron.example.net/x"}, "localhost", "https://cron.example.net/x"),
        ({"http_name": ("Cron.example.net",)}, "cron.example.NET", "http://cron.example.net"),
        ({"http_name": ("cron.example.net",)}, "cron.example.net:3000", "http://cron.example.net:3000"),
        ({"http_name": ("cron.example.net",)}, "cron.example.net:9999", "http://127.0.0.1:3000"),
        ({}, "203.0.113.66", "http://127.0.0.1:3000"), ({}, "evil.example", "http://127.0.0.1:3000"),
        ({}, "", "http://127.0.0.1:3000"), ({"tls_cert": Path("x")}, "[::1]:3000", "https://127.0.0.1:3000"),
    ],
)  # fmt: skip
async def test_the_link_leads_to_us_whatever_the_request_says(
    tmp_path: Path, told: dict[str, Any], host: str, where: str
) -> None:
    """Whoever asks for somebody else must not get the link to lead to himself."""
    app = make_app(WebSettings(data=tmp_path, **told), Scripted({}))
    await Browser(app, host=host).post("/api/v1/auth/forgot", {"email": "ann"})
    assert app.state.postman._out.receive_nowait().where == where


async def test_a_mailbox_is_not_filled_by_strangers(tmp_path: Path, box: Box) -> None:
    """And the link that somebody has got is not taken back by others who ask."""
    with smtp_server(box) as port:
        async with a_house(tmp_path, smtp=("127.0.0.1", port), max_sign_ins=100) as (app, _):
            for number in range(sign_in.AN_HOUR + 5):
                await Browser(app, f"192.0.2.{number}").post("/api/v1/auth/forgot", {"email": "ann"})
            await until(lambda: len(box.mails) == sign_in.AN_HOUR)
            await trio.testing.wait_all_tasks_blocked()
            assert len(box.mails) == sign_in.AN_HOUR


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Unreachable("gone"), "gone"), (Refusal("disk-full", "no room"), "no room"),
        ([{"key": "token", "value": "0123"}, {"key": "email", "value": "later@example.com"}], "451"),
        ([{"key": "token", "value": "0123"}, {"key": "email", "value": None}], "has no mail address"),
    ],
)  # fmt: skip
async def test_a_mail_that_cannot_be_sent_is_told_in_the_log_and_the_next_one_is(
    tmp_path: Path, box: Box, caplog: pytest.LogCaptureFixture, answer: Any, told: str
) -> None:
    """One that fails must not end the postman; the token is not told there either."""
    well = [{"key": "token", "value": "4567"}, {"key": "email", "value": "ann@example.com"}]
    script = {"USER FORGOT bad": _answer(answer), "USER FORGOT ann": _answer(well)}
    with smtp_server(box) as port:
        postman = sign_in.Postman(WebSettings(data=tmp_path, smtp=("127.0.0.1", port)), Scripted(script))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(postman.run)
            for who in "bad", "ann":
                postman.take(sign_in.Forgotten(who, "192.0.2.7", "http://x"))
            await until(lambda: box.mails and told in caplog.text)
            nursery.cancel_scope.cancel()
    assert "0123" not in caplog.text


def _answer(said: Any) -> Any:
    return line.Answer(said, {"ok": True, "account": "ann"}) if isinstance(said, list) else said


async def test_more_than_can_be_sent_is_dropped_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A flood takes no memory."""
    postman = sign_in.Postman(WebSettings(data=tmp_path), Scripted({}))
    for _ in range(sign_in.MAX_WAITING + 1):
        postman.take(sign_in.Forgotten("ann", "192.0.2.7", "http://x"))
    assert "one more is not looked at" in caplog.text


# --- the daemon is gone -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("login", {"name": "ann", "password": "x"}),
        ("register", JOHN),
        ("me", None),
        ("reset", {"token": "x", "password": "y"}),
    ],
)
async def test_a_daemon_that_is_gone_is_said(tmp_path: Path, path: str, body: Any) -> None:
    """It is nobody's wrong password."""
    gone = Unreachable("unix:/x: No such file or directory")
    app = make_app(WebSettings(data=tmp_path), Scripted({"": gone}))
    answer = await Browser(app).ask(
        "POST" if body else "GET", f"/api/v1/auth/{path}", body, authorization="Bearer x"
    )
    assert answer.error == (503, "unwell")
    assert int(answer.headers["retry-after"]) >= 1
