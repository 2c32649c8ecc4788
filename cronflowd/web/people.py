"""Accounts, API tokens, secrets and the audit, by the API: the daemon says who may see and change them."""

from __future__ import annotations

from functools import partial
from typing import Any

from attrs import evolve
from litestar import delete, get, patch, post, put
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import asdict

from ..base.errors import Refusal
from ..base.names import check_form
from ..base.text import quote
from .envelope import Refused
from .fields import Wrong
from .line import GATEWAY, Row
from .outcomes import of_row
from .rest import Asker, Limit, Listing, Page, Pages, Success, Who
from .sign_in import Person, Text, account_name, check_word, person
from .talks import line, ref_of


class NewUser(Struct, forbid_unknown_fields=True):
    """`id` is the account's name; without it, it is made of `name`, or of the mail address."""

    id: Text = ""
    name: Text | None = None  # for people
    email: Text | None = None
    role: Text | None = None
    uid: int | None = None
    password: Text | None = None


class UserChange(Struct, forbid_unknown_fields=True):
    """What is to be another; null takes away."""

    name: Text | UnsetType | None = UNSET
    email: Text | UnsetType | None = UNSET
    role: Text | UnsetType = UNSET
    uid: int | UnsetType | None = UNSET
    disabled: bool | UnsetType = UNSET
    password: Text | UnsetType = UNSET


class MadeUser(Person, kw_only=True):
    password: str | UnsetType = UNSET  # one that was made: it is shown once


class Gone(Struct):
    """What is not there any more."""

    id: str | int


# --- accounts -----------------------------------------------------------------------------------


@get("/users", summary="The accounts")
async def list_users(asker: Who, page: Page = 1, limit: Limit = 20) -> Listing[Person]:
    """By name."""
    return await asker.listing("USER LIST", person, page, limit)


@get("/users/{name:str}", summary="An account")
async def get_user(asker: Who, name: FromPath[str]) -> Success[Person]:
    """By the account's name."""
    return Success(await _find(asker, name))


@post("/users", summary="Make an account", status_code=201)
async def add_user(asker: Who, data: JSONBody[NewUser]) -> Success[MadeUser]:
    """Without a password one is made, and shown once, also where it is asked for again with the same key."""
    if data.password is not None:
        check_word(data.password)
    name = data.id or account_name(data.name or (data.email or "").partition("@")[0])
    if not name:
        raise Refused(400, "bad-option", "whose account? A name or a mail address is wanted", "name")
    try:
        said = line(
            "USER ADD", check_form(name, "account name"), role=data.role, email=data.email, uid=data.uid,
            desc=data.name, password=data.password,
        )  # fmt: skip
        answer = await asker.order(said)
    except Refusal as refusal:
        if refusal.option != "name":
            raise
        of_what = "id" if data.id else "name" if data.name else "email"
        raise Wrong(refusal.code, refusal.message, of_what) from None
    found = await _find(asker, answer.status["account"])
    made = answer.pairs.get("password", UNSET)
    return Success(MadeUser(**{key: getattr(found, key) for key in found.__struct_fields__}, password=made))


@patch("/users/{name:str}", summary="Change an account")
async def change_user(asker: Who, name: FromPath[str], data: JSONBody[UserChange]) -> Success[Person]:
    """A change of role or password ends its sessions; everybody may change the own password."""
    ref = ref_of(name, "account")
    told: dict[str, Any] = {
        "role": data.role, "email": data.email, "uid": data.uid, "desc": data.name,
        "disabled": data.disabled if data.disabled is UNSET else "yes" if data.disabled else "no",
    }  # fmt: skip
    changes = {key: "" if value is None else value for key, value in told.items() if value is not UNSET}
    if changes:
        await asker.ask(line("USER SET", ref, **changes))
    if data.password is not UNSET:
        check_word(data.password)
        await asker.ask(f"USER PASSWORD {ref} {data.password}")
    elif not changes:
        return Success(await _find(asker, ref))
    # Who has changed himself has no session any more.
    return Success(await _find(evolve(asker, caller=GATEWAY), ref))


@delete("/users/{name:str}", summary="Remove an account", status_code=200)
async def remove_user(asker: Who, name: FromPath[str]) -> Success[Gone]:
    """Its tasks stay."""
    await asker.ask(line("USER REMOVE", ref_of(name, "account")))
    return Success(Gone(name))


async def _find(asker: Asker, name: str) -> Person:
    rows = (await asker.ask(line("USER LIST", ref_of(name, "account")))).rows
    if not rows:
        raise Refused(404, "not-found", f'there is no account "{name}"')
    return person(rows[0])


# --- API tokens ---------------------------------------------------------------------------------


class Token(Struct, rename="camel"):
    """Never the word itself."""

    id: int
    name: str | None
    role: str
    user: str | None
    worker: str | None
    created_at: str
    expires_at: str | None
    last_used_at: str | None


class NewToken(Struct, forbid_unknown_fields=True):
    name: Text | None = None
    role: Text | None = None
    user: Text | None = None
    worker: Text | None = None  # which names a worker may bear with it: `web*`
    ttl: Text | None = None  # `30d`


class MadeToken(Struct):
    id: int
    token: str | None  # shown once


@get("/tokens", summary="The API tokens")
async def list_tokens(asker: Who, page: Page = 1, limit: Limit = 20) -> Listing[Token]:
    """Oldest first."""
    make = partial(of_row, Token, created_at="created", expires_at="expires", last_used_at="last-used")
    return await asker.listing("TOKEN LIST", make, page, limit)


@post("/tokens", summary="Make an API token", status_code=201)
async def add_token(asker: Who, data: JSONBody[NewToken]) -> Success[MadeToken]:
    """Its word is shown once; who asks again with the same Idempotency-Key is told its id alone."""
    answer = await asker.order(line("TOKEN ADD", **asdict(data)))
    return Success(MadeToken(answer.status["id"], answer.pairs.get("token")))


@delete("/tokens/{number:int}", summary="Revoke an API token", status_code=200)
async def revoke_token(asker: Who, number: FromPath[int]) -> Success[Gone]:
    """Ends what it let in, at once."""
    await asker.ask(line("TOKEN REVOKE", number))
    return Success(Gone(number))


# --- secrets ------------------------------------------------------------------------------------


class Secret(Struct, rename="camel"):
    """Never its value."""

    name: str
    updated_at: str | None  # None: it is named by tasks, and has no value
    used_by: list[str]


class NewSecret(Struct, forbid_unknown_fields=True):
    name: Text
    value: str


class SecretValue(Struct, forbid_unknown_fields=True):
    value: str


@get("/secrets", summary="The secrets' names")
async def list_secrets(asker: Who, page: Page = 1, limit: Limit = 20) -> Listing[Secret]:
    """By name, with the tasks that are given them."""
    return await asker.listing("SECRET LIST", _secret, page, limit)


def _secret(row: Row) -> Secret:
    return Secret(row["name"], row["updated"], (row["used-by"] or "").split(", ") if row["used-by"] else [])


@post("/secrets", summary="Put a secret", status_code=201)
async def add_secret(asker: Who, data: JSONBody[NewSecret]) -> Success[Gone]:
    """In the place of the one before, if there is one."""
    await asker.order(_put(check_form(data.name, "secret's name"), data.value))
    return Success(Gone(data.name))


@put("/secrets/{name:str}", summary="Put a secret")
async def put_secret(asker: Who, name: FromPath[str], data: JSONBody[SecretValue]) -> Success[Gone]:
    """In the place of the one before, if there is one."""
    await asker.ask(_put(name, data.value))
    return Success(Gone(name))


def _put(name: str, value: str) -> str:
    return f"SECRET PUT {ref_of(name, 'secret')} {quote(value)}"


@delete("/secrets/{name:str}", summary="Remove a secret", status_code=200)
async def remove_secret(asker: Who, name: FromPath[str], force: FromQuery[bool] = False) -> Success[Gone]:
    """One that tasks are given only with `force`."""
    said = line("SECRET REMOVE", ref_of(name, "secret"), force="yes" if force else None)
    await asker.ask(said)
    return Success(Gone(name))


# --- the audit ----------------------------------------------------------------------------------


class Deed(Struct):
    """Somebody came in, changed something, or was refused."""

    time: str
    who: str | None
    address: str | None
    verb: str
    ref: str | None
    verdict: str


@get("/audit", summary="Who did what")
async def audit(
    asker: Who,
    page: Page = 1,
    limit: Limit = 20,
    since: FromQuery[str | None] = None,
    until: FromQuery[str | None] = None,
    who: FromQuery[str | None] = None,
    verdict: FromQuery[str | None] = None,
) -> Listing[Deed]:
    """Newest first. What there is in all is not counted: where `more` is said, there is another page."""
    start = (page - 1) * limit
    said = line("AUDIT", limit=limit + 1, offset=start, verdict=verdict, since=since, until=until, who=who)
    rows = (await asker.ask(said)).rows
    found = [of_row(Deed, row) for row in rows[:limit]]
    return Listing(found, Pages(page, limit, start + len(rows), True if len(rows) > limit else UNSET))
