"""Signing in by the API: `/api/v1/auth`."""

from __future__ import annotations

import msgspec
from litestar import Response, get, post
from litestar.params import JSONBody

from ..host.clock import wall_now
from . import identity as i
from . import sign_in as s
from .envelope import Refused
from .identity import AnyRequest
from .rest import Success

FORGOTTEN = "if there is such an account, a mail is on its way to it"


class Refresh(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    refresh_token: str


class Leaving(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """Without it, the session is that whose token or cookie is shown."""

    refresh_token: str = ""


class Forgot(msgspec.Struct, forbid_unknown_fields=True):
    email: s.Text


class Reset(msgspec.Struct, forbid_unknown_fields=True):
    token: s.Text
    password: s.Text


class Said(msgspec.Struct, omit_defaults=True):
    """Nothing but that it is done; or what comes of it."""

    message: str = ""


@post("/login", summary="Sign in", status_code=200)
async def login(request: AnyRequest, data: JSONBody[s.Credentials]) -> Success[s.Tokens]:
    """By mail address or name."""
    entered = await s.enter(request, data.who, data.password)
    return Success(entered.tokens(i.identity_of(request)))


@post("/register", summary="Make an account for oneself", status_code=201)
async def sign_up(request: AnyRequest, data: JSONBody[s.Registration]) -> Success[s.Tokens]:
    """The first one, on this machine; or where registration is allowed."""
    return Success((await s.register(request, data)).tokens(i.identity_of(request)))


@post("/refresh", summary="Stay signed in", status_code=200)
async def refresh(request: AnyRequest, data: JSONBody[Refresh]) -> Success[s.Tokens]:
    """New tokens for a refresh token, which is good once: shown again, it ends the session."""
    entered = await s.renew(request, data.refresh_token)
    return Success(entered.tokens(i.identity_of(request)))


@post("/logout", summary="Sign out", status_code=200)
async def logout(request: AnyRequest) -> Response[Success[Said]]:
    """Ends the session whose token or cookie is shown; or, in a body, `refreshToken`."""
    body = await request.body()
    try:
        shown = msgspec.json.decode(body, type=Leaving).refresh_token if body else ""
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Refused(400, "syntax", str(error), "refreshToken") from None
    await s.leave(request, shown)
    gone = i.identity_of(request).cookie(None, wall_now())
    return Response(Success(Said()), cookies=[gone] if i.COOKIE in request.cookies else [])


@post("/forgot", summary="Ask for another password", status_code=202)
async def forgot(request: AnyRequest, data: JSONBody[Forgot]) -> Success[Said]:
    """Sends a link to the account's mail address, if there is such an account."""
    s.forget(request, data.email)
    return Success(Said(FORGOTTEN))


@post("/reset", summary="Set another password", status_code=200)
async def reset(request: AnyRequest, data: JSONBody[Reset]) -> Success[Said]:
    """By the token of that link."""
    await s.set_anew(request, data.token, data.password)
    return Success(Said())


@get("/me", summary="Who is asking")
async def me(request: AnyRequest) -> Success[s.Person]:
    """The account, and what it may here."""
    return Success(await s.whoami(request))
