"""Accounts, tokens, secrets and the audit by the API, in front of a whole daemon in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.lib.asgi import Browser
from tests.lib.web_api import API, an_api, somebody

LOGIN = f"{API}/auth/login"
ANN = {
    "id": "ann",
    "name": "Ann Lee",
    "email": "ann@example.com",
    "role": "user",
    "password": "correct-horse",
}


async def test_an_account_is_made_changed_and_removed(tmp_path: Path) -> None:
    """Its name for people is changed without a word about the rest."""
    async with an_api(tmp_path) as (admin, _):
        made = await admin.post(f"{API}/users", ANN)
        assert (made.status, made.data["id"], made.data["name"]) == (201, "ann", "Ann Lee")
        assert "password" not in made.data
        for change, shown in (
            ({"name": "A. Lee"}, {"email": "ann@example.com"}), ({"name": None}, {"name": "ann"}),
            ({"email": None, "role": "viewer"}, {}), ({"uid": 4711}, {"email": None}),
            ({"uid": None, "disabled": True}, {"role": "viewer"}), ({"disabled": False}, {"uid": None}),
            ({}, {}),
        ):  # fmt: skip
            shown = {key: value for key, value in change.items() if value} | shown
            answer = await admin.ask("PATCH", f"{API}/users/ann", change)
            assert {key: answer.data[key] for key in shown} == shown
            assert (await admin.get(f"{API}/users/ann")).data == answer.data
        assert (await admin.ask("DELETE", f"{API}/users/ann")).data == {"id": "ann"}
        assert (await admin.get(f"{API}/users/ann")).error == (404, "not-found")
        assert (await admin.ask("DELETE", f"{API}/users/ann")).error == (404, "not-found")


async def test_a_password_that_was_made_is_shown_once(tmp_path: Path) -> None:
    """Whoever makes the account hands it on; the name comes from its owner's."""
    async with an_api(tmp_path) as (admin, _):
        made = (await admin.post(f"{API}/users", {"name": "José Muñoz"})).data
        entered = await admin.post(LOGIN, {"name": "jose.munoz", "password": made["password"]})
        assert entered.data["user"]["name"] == "José Muñoz"
        assert made["password"] not in (await admin.get(f"{API}/users")).text
        assert (await admin.post(f"{API}/users", {"id": "jose.munoz"})).error == (409, "exists")


async def test_an_account_and_a_secret_are_made_once_with_the_same_key(tmp_path: Path) -> None:
    """Whoever did not hear the answer asks again, and is neither refused nor makes two."""
    async with an_api(tmp_path) as (admin, _):
        for path, body in (
            ("users", ANN),
            ("users", {"name": "Bob"}),
            ("secrets", {"name": "db", "value": "x"}),
        ):
            key = f"key-{path}-{len(body)}"
            first, again = [await admin.post(f"{API}/{path}", body, idempotency_key=key) for _ in range(2)]
            shown = {key: value for key, value in first.data.items() if key != "password"}
            assert (first.status, again.status, again.data) == (201, 201, shown)
        answer = await admin.post(f"{API}/users", {"name": "Eve"}, idempotency_key=f"key-users-{len(ANN)}")
        assert answer.error == (409, "exists")


@pytest.mark.parametrize(
    "change",
    [
        {"id": "a b"}, {"id": "ann role=admin"}, {"id": "x\ny"}, {"role": "king"}, {"role": "user\nCLEAR"},
        {"email": "x"}, {"password": "a b"}, {"password": "short"}, {"name": "x" * 201}, {"name": "a\nb"},
        {"name": "a\x07b"}, {"admin": True}, {"uid": -1},
    ],
)  # fmt: skip
async def test_what_no_account_can_be_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    """And nothing that is said of one becomes a word of its own."""
    async with an_api(tmp_path) as (admin, daemon):
        assert (await admin.post(f"{API}/users", ANN | change)).error[0] == 400
        assert not await daemon.say("USER LIST")


async def test_a_viewer_sees_and_changes_nothing_but_his_password(tmp_path: Path) -> None:
    """401 is for who must say who he is; 403 for who may not."""
    async with an_api(tmp_path) as (admin, daemon):
        await admin.post(f"{API}/users", ANN | {"role": "viewer"})
        token = (await admin.post(LOGIN, {"name": "ann", "password": "correct-horse"})).data["accessToken"]
        ann = Browser(admin.app, headers={"authorization": f"Bearer {token}"})
        assert (await ann.get(f"{API}/users")).json["meta"]["total"] == 1
        for method, path, body in (
            ("POST", "users", {"id": "eve"}), ("PATCH", "users/ann", {"role": "admin"}),
            ("DELETE", "users/ann", None), ("POST", "tokens", {}), ("DELETE", "tokens/1", None),
            ("POST", "secrets", {"name": "a", "value": "b"}), ("PUT", "secrets/a", {"value": "b"}),
            ("DELETE", "secrets/a", None),
        ):  # fmt: skip
            assert (await ann.ask(method, f"{API}/{path}", body)).error == (403, "denied"), path
            assert (await Browser(admin.app).ask(method, f"{API}/{path}", body)).error == (
                401,
                "auth-required",
            )
        assert [row["role"] for row in await daemon.say("USER LIST")] == ["viewer"]
        changed = await ann.ask("PATCH", f"{API}/users/ann", {"password": "another-horse"})
        assert changed.data["id"] == "ann"  # though its session has ended with the others
        assert (await ann.get(f"{API}/auth/me")).error == (401, "auth-required")
        entered = await admin.post(LOGIN, {"name": "ann", "password": "another-horse"})
        assert entered.status == 200


async def test_the_last_admin_stays(tmp_path: Path) -> None:
    """Nobody could make another one."""
    async with an_api(tmp_path) as (admin, _):
        await admin.post(f"{API}/users", ANN | {"role": "admin"})
        for method, body in ("DELETE", None), ("PATCH", {"role": "user"}), ("PATCH", {"disabled": True}):
            assert (await admin.ask(method, f"{API}/users/ann", body)).error == (403, "denied")


async def test_a_token_s_word_is_shown_once(tmp_path: Path) -> None:
    """And again for nobody, not even whoever repeats the request with its key."""
    async with an_api(tmp_path) as (admin, _):
        new = {"name": "ci", "role": "viewer", "ttl": "30d"}
        made = (await admin.post(f"{API}/tokens", new, idempotency_key="k1")).data
        again = (await admin.post(f"{API}/tokens", new, idempotency_key="k1")).data
        assert again == {"id": made["id"], "token": None}
        ci = Browser(admin.app, headers={"authorization": f"Bearer {made['token']}"})
        assert (await ci.get(f"{API}/auth/me")).data["role"] == "viewer"
        listed = await admin.get(f"{API}/tokens?limit=1&page=2")
        assert [each["name"] for each in listed.json["data"]] == ["ci"]
        assert listed.json["meta"] == {"page": 2, "limit": 1, "total": 2}
        assert made["token"] not in listed.text
        assert (await admin.ask("DELETE", f"{API}/tokens/{made['id']}")).status == 200
        assert (await ci.get(f"{API}/auth/me")).error == (401, "auth-required")
        assert (await admin.ask("DELETE", f"{API}/tokens/{made['id']}")).error == (404, "not-found")
        assert (await admin.post(f"{API}/tokens", {"ttl": "soon"})).error[0] == 400


@pytest.mark.parametrize(
    "value", ["plain", 'a "b" \\ c', "two\nlines\t", "{x}", "force=yes", " äöü ", "x" * 16_000]
)
async def test_a_secret_is_put_byte_for_byte_and_never_shown(tmp_path: Path, value: str) -> None:
    """Whatever it holds."""
    async with an_api(tmp_path) as (admin, daemon):
        assert (await admin.ask("PUT", f"{API}/secrets/db", {"value": value})).data == {"id": "db"}
        access = daemon.world.core.state.access
        assert access.vault.open("db", access.secrets["db"].sealed).decode() == value
        listed = await admin.get(f"{API}/secrets")
        assert [(each["name"], each["usedBy"]) for each in listed.json["data"]] == [("db", [])]
        assert value not in listed.text


async def test_a_secret_that_is_used_goes_only_by_force(tmp_path: Path) -> None:
    """Its tasks would fail."""
    async with an_api(tmp_path) as (admin, daemon):
        await admin.post(f"{API}/secrets", {"name": "db", "value": "x"})
        await daemon.say("ADD name=job env.P=secret:db @daily true")
        assert (await admin.get(f"{API}/secrets")).json["data"][0]["usedBy"] == ["job"]
        assert (await admin.ask("DELETE", f"{API}/secrets/db")).error[0] in (409, 403)
        assert (await admin.ask("DELETE", f"{API}/secrets/db?force=true")).data == {"id": "db"}
        for body in {"name": "a b", "value": "x"}, {"name": "a", "value": " "}, {"name": "a", "value": "x\0"}:
            assert (await admin.post(f"{API}/secrets", body)).error[0] == 400
        assert (await admin.post(f"{API}/secrets", {"name": "a", "value": "x" * 17_000})).error == (
            413,
            "too-long",
        )


async def test_the_audit_tells_who_did_what_from_where_in_pages(tmp_path: Path) -> None:
    """Of a change that came by the door it is the browser's address."""
    async with an_api(tmp_path) as (admin, _):
        admin.address = "198.51.100.7"
        for number in range(5):
            await admin.post(f"{API}/tokens", {"name": f"t{number}"})
        await Browser(admin.app, "198.51.100.9").post(LOGIN, {"name": "eve", "password": "wrong"})
        first = await admin.get(f"{API}/audit?limit=2")
        assert first.json["meta"]["more"] is True
        rows: list[dict[str, Any]] = []
        for page in range(1, 10):
            answer = await admin.get(f"{API}/audit?limit=2&page={page}")
            rows += answer.json["data"]
            if "more" not in answer.json["meta"]:
                break
        assert rows == (await admin.get(f"{API}/audit?limit=100")).json["data"]
        assert {row["address"] for row in rows if row["ref"] == "3"} == {"198.51.100.7"}
        denied = (await admin.get(f"{API}/audit?verdict=denied")).json["data"]
        assert [(row["verb"], row["address"]) for row in denied] == [("AUTH", "198.51.100.9")]
        assert (await admin.get(f"{API}/audit?who=nobody")).json["data"] == []
        assert (await admin.get(f"{API}/audit?since=never")).error[0] == 400
        assert (await admin.get(f"{API}/audit?limit=0")).error[0] == 400


async def test_roles_are_the_daemon_s_to_judge(tmp_path: Path) -> None:
    """A token may be for less than what its account may."""
    async with an_api(tmp_path) as (admin, daemon):
        operator = await somebody(admin.app, daemon, "operator")
        assert (await operator.get(f"{API}/tokens")).status == 200
        assert (await operator.post(f"{API}/users", ANN)).error == (403, "denied")


BOB = {"name": "bob", "email": "bob@example.org"}


@pytest.mark.parametrize(
    ("path", "said", "status", "field"),
    [
        ("users", {}, 400, "name"),
        ("users", {"id": "b b"}, 400, "id"),
        ("users", {"id": "ann", "name": "An\nn"}, 400, "name"),
        ("users", {"name": "ann", "email": "nowhere"}, 400, "email"),
        ("users", {"name": "ann", "password": "short"}, 400, "password"),
        ("users", {"name": "ann", "role": "king"}, 400, "role"),
        ("users", {"name": "bob"}, 409, "name"),
        ("users", {"id": "bob", "name": "Rob"}, 409, "id"),
        ("users", {"email": "bob@example.net"}, 409, "email"),
        ("users", {"id": "token-7"}, 400, "id"),
        ("users", {"name": "rob", "email": "bob@example.org"}, 409, "email"),
        ("users", {"name": "ann", "uid": 7}, 409, "uid"),
        ("tokens", {"user": "nobody"}, 422, "user"),
        ("tokens", {"user": "bob", "role": "admin"}, 400, "role"),
        ("tokens", {"user": "bob", "role": "worker"}, 400, "user"),
        ("tokens", {"name": "a b"}, 400, "name"),
        ("tokens", {"ttl": "0s"}, 400, "ttl"),
        ("secrets", {"name": "a b", "value": "x"}, 400, "name"),
        ("secrets", {"name": "db", "value": " "}, 400, "value"),
        ("secrets", {"name": "db", "value": "x" * 20_000}, 413, "value"),
    ],
)
async def test_what_is_refused_of_people_names_its_field(
    tmp_path: Path, path: str, said: dict[str, Any], status: int, field: str
) -> None:
    """A name that cannot be one was `404`, and a form did not know which of its fields was meant."""
    async with an_api(tmp_path) as (browser, _):
        assert (await browser.post(f"{API}/users", BOB | {"uid": 7})).status == 201
        answer = await browser.post(f"{API}/{path}", said)
        assert (answer.status, answer.json["error"].get("field")) == (status, field)
