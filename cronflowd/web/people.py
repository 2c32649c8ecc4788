"""Accounts, API tokens, secrets and the audit, by the API: the daemon says who may see and change them."""

from __future__ import annotations

from typing import Any

from litestar import delete, get, patch, post, put
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import UNSET, Struct, UnsetType

from ..base.text import quote
from .envelope import Refused
from .identity import AnyRequest
from .line import GATEWAY, Caller, Daemon, Row
from .rest import (
    ERRORS,
    Limit,
    Listing,
    Page,
    Pages,
    Success,
    ToDaemon,
    Who,
    line,
    listing,
    once,
    ref_of,
    routes,
)
from .sign_in import Person, Text, account_name, check_word, person


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

    id: str


# --- accounts -----------------------------------------------------------------------------------


@get("/users", summary="The accounts", responses=ERRORS)
async def list_users(caller: Who, daemon: ToDaemon, page: Page = 1, limit: Limit = 20) -> Listing[Person]:
    """By name."""
    return listing([person(row) for row in (await daemon.ask("USER LIST", caller)).rows], page, limit)


@get("/users/{name:str}", summary="An account", responses=ERRORS)
async def get_user(caller: Who, daemon: ToDaemon, name: FromPath[str]) -> Success[Person]:
    """By the account's name."""
    return Success(await _find(daemon, caller, name))


@post("/users", summary="Make an account", status_code=201, responses=ERRORS)
async def add_user(
    request: AnyRequest, caller: Who, daemon: ToDaemon, data: JSONBody[NewUser]
) -> Success[MadeUser]:
    """Without a password one is made, and shown once, also where it is asked for again with the same key."""
    if data.password is not None:
        check_word(data.password)
    name = data.id or account_name(data.name or (data.email or "").partition("@")[0])
    said = line(
        "USER ADD", ref_of(name, "account name"), role=data.role, email=data.email, uid=data.uid,
        desc=_one_line(data.name), password=data.password,
    )  # fmt: skip
    answer = await daemon.ask(once(request, said), caller)
    found = await _find(daemon, caller, answer.status["account"])
    made = answer.pairs.get("password", UNSET)
    return Success(MadeUser(**{key: getattr(found, key) for key in found.__struct_fields__}, password=made))


@patch("/users/{name:str}", summary="Change an account", responses=ERRORS)
async def change_user(
    caller: Who, daemon: ToDaemon, name: FromPath[str], data: JSONBody[UserChange]
) -> Success[Person]:
    """A change of role or password ends its sessions; everybody may change the own password."""
    ref = ref_of(name, "account")
    told: dict[str, Any] = {
        "role": data.role, "email": data.email, "uid": data.uid, "desc": data.name,
        "disabled": data.disabled if data.disabled is UNSET else "yes" if data.disabled else "no",
    }  # fmt: skip
    changes = {
        key: _one_line("" if value is None else value) for key, value in told.items() if value is not UNSET
    }
    if changes:
        await daemon.ask(line("USER SET", ref, **changes), caller)
    if data.password is not UNSET:
        check_word(data.password)
        await daemon.ask(f"USER PASSWORD {ref} {data.password}", caller)
    elif not changes:
        return Success(await _find(daemon, caller, ref))
    # Who has changed himself has no session any more.
    return Success(await _find(daemon, GATEWAY, ref))


@delete("/users/{name:str}", summary="Remove an account", status_code=200, responses=ERRORS)
async def remove_user(caller: Who, daemon: ToDaemon, name: FromPath[str]) -> Success[Gone]:
    """Its tasks stay."""
    await daemon.ask(line("USER REMOVE", ref_of(name, "account")), caller)
    return Success(Gone(name))


async def _find(daemon: Daemon, caller: Caller, name: str) -> Person:
    rows = (await daemon.ask(line("USER LIST", ref_of(name, "account")), caller)).rows
    if not rows:
        raise Refused(404, "not-found", f'there is no account "{name}"')
    return person(rows[0])


def _one_line(value: Any) -> Any:
    if isinstance(value, str) and value and not value.isprintable():
        raise Refused(400, "bad-option", "a text of one line is wanted")
    return value


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


@get("/tokens", summary="The API tokens", responses=ERRORS)
async def list_tokens(caller: Who, daemon: ToDaemon, page: Page = 1, limit: Limit = 20) -> Listing[Token]:
    """Oldest first."""
    return listing([_token(row) for row in (await daemon.ask("TOKEN LIST", caller)).rows], page, limit)


def _token(row: Row) -> Token:
    keys = ("id", "name", "role", "user", "worker", "created", "expires", "last_used")
    return Token(*(row[key] for key in keys))


@post("/tokens", summary="Make an API token", status_code=201, responses=ERRORS)
async def add_token(
    request: AnyRequest, caller: Who, daemon: ToDaemon, data: JSONBody[NewToken]
) -> Success[MadeToken]:
    """Its word is shown once; who asks again with the same Idempotency-Key is told its id alone."""
    told = {key: _one_line(getattr(data, key)) for key in data.__struct_fields__}
    answer = await daemon.ask(once(request, line("TOKEN ADD", **told)), caller)
    return Success(MadeToken(answer.status["id"], answer.pairs.get("token")))


@delete("/tokens/{number:int}", summary="Revoke an API token", status_code=200, responses=ERRORS)
async def revoke_token(caller: Who, daemon: ToDaemon, number: FromPath[int]) -> Success[Gone]:
    """Ends what it let in, at once."""
    await daemon.ask(line("TOKEN REVOKE", number), caller)
    return Success(Gone(str(number)))


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


@get("/secrets", summary="The secrets' names", responses=ERRORS)
async def list_secrets(caller: Who, daemon: ToDaemon, page: Page = 1, limit: Limit = 20) -> Listing[Secret]:
    """By name, with the tasks that are given them."""
    return listing([_secret(row) for row in (await daemon.ask("SECRET LIST", caller)).rows], page, limit)


def _secret(row: Row) -> Secret:
    return Secret(row["name"], row["updated"], (row["used_by"] or "").split(", ") if row["used_by"] else [])


@post("/secrets", summary="Put a secret", status_code=201, responses=ERRORS)
async def add_secret(
    request: AnyRequest, caller: Who, daemon: ToDaemon, data: JSONBody[NewSecret]
) -> Success[Gone]:
    """In the place of the one before, if there is one."""
    await daemon.ask(once(request, _put(data.name, data.value)), caller)
    return Success(Gone(data.name))


@put("/secrets/{name:str}", summary="Put a secret", responses=ERRORS)
async def put_secret(
    caller: Who, daemon: ToDaemon, name: FromPath[str], data: JSONBody[SecretValue]
) -> Success[Gone]:
    """In the place of the one before, if there is one."""
    await daemon.ask(_put(name, data.value), caller)
    return Success(Gone(name))


def _put(name: str, value: str) -> str:
    return f"SECRET PUT {ref_of(name, 'secret')} {quote(value)}"


@delete("/secrets/{name:str}", summary="Remove a secret", status_code=200, responses=ERRORS)
async def remove_secret(
    caller: Who, daemon: ToDaemon, name: FromPath[str], force: FromQuery[bool] = False
) -> Success[Gone]:
    """One that tasks are given only with `force`."""
    said = line("SECRET REMOVE", ref_of(name, "secret"), force="yes" if force else None)
    await daemon.ask(said, caller)
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


@get("/audit", summary="Who did what", responses=ERRORS)
async def audit(
    caller: Who,
    daemon: ToDaemon,
    page: Page = 1,
    limit: Limit = 20,
    since: FromQuery[str | None] = None,
    until: FromQuery[str | None] = None,
    who: FromQuery[str | None] = None,
    verdict: FromQuery[str | None] = None,
) -> Listing[Deed]:
    """Newest first. What there is in all is not counted: where `more` is said, there is another page."""
    told = {key: _one_line(value) for key, value in (("since", since), ("until", until), ("who", who))}
    start = (page - 1) * limit
    said = line("AUDIT", limit=limit + 1, offset=start, verdict=_one_line(verdict), **told)
    rows = (await daemon.ask(said, caller)).rows
    found = [Deed(*(row[key] for key in Deed.__struct_fields__)) for row in rows[:limit]]
    return Listing(found, Pages(page, limit, start + len(rows), True if len(rows) > limit else UNSET))


PEOPLE = routes(
    "/api/v1",
    [
        list_users, get_user, add_user, change_user, remove_user, list_tokens, add_token, revoke_token,
        list_secrets, add_secret, put_secret, remove_secret, audit,
    ],
)  # fmt: skip
