"""Signing in by the API: `/api/v1/auth`."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, Response, Router, get, post
from litestar.params import JSONBody

from ..host.clock import wall_now
from . import identity as i
from . import sign_in as s
from .envelope import Refused, success

FORGOTTEN = "if there is such an account, a mail is on its way to it"
AnyRequest = Request[Any, Any, Any]
Body = dict[str, Any]


class Refresh(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    refresh_token: str


class Forgot(msgspec.Struct, forbid_unknown_fields=True):
    email: s.Text


class Reset(msgspec.Struct, forbid_unknown_fields=True):
    token: s.Text
    password: s.Text


@post("/login", status_code=200)
async def login(request: AnyRequest, data: JSONBody[s.Credentials]) -> Body:
    """Signs in, by mail address or name."""
    entered = await s.enter(request, data.who, data.password)
    return success(entered.tokens(i.identity_of(request)))


@post("/register", status_code=201)
async def sign_up(request: AnyRequest, data: JSONBody[s.Registration]) -> Body:
    """Makes an account: the first one, or where registration is allowed."""
    return success((await s.register(request, data)).tokens(i.identity_of(request)))


@post("/refresh", status_code=200)
async def refresh(request: AnyRequest, data: JSONBody[Refresh]) -> Body:
    """New tokens for a refresh token, which is good once: shown again, it ends the session."""
    entered = await s.renew(request, data.refresh_token)
    return success(entered.tokens(i.identity_of(request)))


@post("/logout", status_code=200)
async def logout(request: AnyRequest) -> Response[Body]:
    """Ends the session whose token or cookie is shown; or, in a body, `refreshToken`."""
    try:
        shown = (
            msgspec.json.decode(body, type=Refresh).refresh_token if (body := await request.body()) else ""
        )
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Refused(400, "syntax", str(error), "refreshToken") from None
    await s.leave(request, shown)
    gone = i.identity_of(request).cookie(None, wall_now())
    return Response(success({}), cookies=[gone] if i.COOKIE in request.cookies else [])


@post("/forgot", status_code=202)
async def forgot(request: AnyRequest, data: JSONBody[Forgot]) -> Body:
    """Sends a link to the account's mail address, if there is such an account."""
    s.forget(request, data.email)
    return success({"message": FORGOTTEN})


@post("/reset", status_code=200)
async def reset(request: AnyRequest, data: JSONBody[Reset]) -> Body:
    """Sets another password, by the token of that link."""
    await s.set_anew(request, data.token, data.password)
    return success({})


@get("/me")
async def me(request: AnyRequest) -> Body:
    """Who is asking."""
    return success(await s.whoami(request))


ROUTES = Router(
    "/api/v1/auth", route_handlers=[login, sign_up, refresh, logout, forgot, reset, me], tags=["auth"]
)
