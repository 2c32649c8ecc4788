"""Signing in on the paths that older clients know: the same functions, without an envelope.

They know of no refresh token, so theirs is good as long as the session is; signing out, another password or
a disabled account end it like any other.
"""

from __future__ import annotations

from typing import Any

from litestar import post
from litestar.params import JSONBody

from ..host.clock import wall_now
from . import identity as i
from . import sign_in as s
from .auth import FORGOTTEN, Forgot, Reset
from .identity import AnyRequest
from .outcomes import plain


def _told(request: AnyRequest, entered: s.Entered) -> dict[str, Any]:
    identity = i.identity_of(request)
    token = identity.sign(entered.who, i.COOKIE_S, wall_now())
    return {"token": token, "user": plain(entered.user), "message": "signed in"}


@post(["/auth/login", "/login"], status_code=200)
async def login(request: AnyRequest, data: JSONBody[s.Credentials]) -> dict[str, Any]:
    return _told(request, await s.enter(request, data.who, data.password))


@post(["/auth/register", "/users"], status_code=201)
async def register(request: AnyRequest, data: JSONBody[s.Registration]) -> dict[str, Any]:
    told = _told(request, await s.register(request, data))
    return {**told["user"], **told}


@post("/auth/forgot", status_code=202)
async def forgot(request: AnyRequest, data: JSONBody[Forgot]) -> dict[str, Any]:
    s.forget(request, data.email)
    return {"message": FORGOTTEN}


@post("/auth/reset", status_code=200)
async def reset(request: AnyRequest, data: JSONBody[Reset]) -> dict[str, Any]:
    await s.set_anew(request, data.token, data.password)
    return {"message": "the password is another now; sign in"}


SIGN_IN = [login, register, forgot, reset]
