"""Signing in, the first account, and forgotten passwords: all that somebody sees before he is known."""

from __future__ import annotations

from typing import Any

from litestar import get, post
from litestar.response import Redirect

from ...base.errors import Refusal
from ...host.clock import wall_now
from .. import sign_in
from ..envelope import Refused, as_refused
from ..identity import AnyRequest, identity_of
from .visit import Page, Visit, inner, make_guest

MAX_FIELD = 256  # characters, as the API takes them


@get("/login")
async def login(request: AnyRequest) -> Any:
    """Name and password; where nobody has an account, the first one is made."""
    visit = make_guest(request)
    if await sign_in.may_be_first(request):
        return visit.go("/welcome")
    return _login(visit, visit.query("next"))


def _login(visit: Visit, to: str, who: str = "", error: Refused | None = None) -> Page:
    return visit.page(
        "login.html",
        "AUTH NAME PASSWORD",
        error=error,
        to=inner(to or "/"),
        who=who,
        over=visit.query("over"),
        registers=visit.request.app.state.settings.allow_registration,
    )


@post("/login")
async def enter(request: AnyRequest) -> Any:
    """The cookie, and on to where he wanted to go."""
    visit, form = make_guest(request), await _form(request)
    try:
        entered = await sign_in.enter(request, form["user"], form["password"])
    except Refused as error:
        return _login(visit, form["next"], form["user"], error)
    return _let_in(visit, entered, inner(form["next"] or "/"))


def _let_in(visit: Visit, entered: sign_in.Entered, to: str) -> Redirect:
    answer = visit.go(to)
    answer.set_cookie(identity_of(visit.request).cookie(entered.who, wall_now()))
    return answer


@post("/logout")
async def leave(request: AnyRequest) -> Redirect:
    """The session ends at the daemon, and the cookie goes."""
    await sign_in.leave(request)
    answer = make_guest(request).go("/login")
    answer.set_cookie(identity_of(request).cookie(None, wall_now()))
    return answer


@get("/welcome")
async def welcome(request: AnyRequest) -> Any:
    """The first visit of a new daemon, or somebody who may register."""
    visit = make_guest(request)
    is_first = await sign_in.may_be_first(request)
    if not is_first and not request.app.state.settings.allow_registration:
        return visit.go("/login")
    return _welcome(visit, is_first, {})


def _welcome(visit: Visit, is_first: bool, form: dict[str, str], error: Refused | None = None) -> Page:
    line = "USER ADD NAME role=admin" if is_first else "USER ADD NAME"
    return visit.page("welcome.html", line, is_first=is_first, form=form, error=error)


@post("/welcome")
async def register(request: AnyRequest) -> Any:
    """Makes the account, and signs it in."""
    visit, form = make_guest(request), await _form(request)
    try:
        new = sign_in.Registration(email=form["email"], password=form["password"], name=form["name"])
        return _let_in(visit, await sign_in.register(request, new), "/")
    except (Refused, Refusal) as error:
        return _welcome(visit, await sign_in.may_be_first(request), form, as_refused(request, error))


@get("/forgot")
async def forgot(request: AnyRequest) -> Page:
    return make_guest(request).page("forgot.html", "USER FORGOT NAME|EMAIL")


@post("/forgot")
async def forget(request: AnyRequest) -> Redirect:
    """Says the same whether there is such an account or not."""
    sign_in.forget(request, (await _form(request))["user"])
    return make_guest(request).go("/login", "mailed")


@get("/reset")
async def reset(request: AnyRequest) -> Page:
    """Where the mail's link leads."""
    visit = make_guest(request)
    return _reset(visit, visit.query("token"))


def _reset(visit: Visit, token: str, error: Refused | None = None) -> Page:
    return visit.page("reset.html", "USER RESET TOKEN NEW", token=token, error=error)


@post("/reset")
async def set_anew(request: AnyRequest) -> Any:
    """The new password; all sessions of the account end."""
    visit, form = make_guest(request), await _form(request)
    try:
        await sign_in.set_anew(request, form["token"], form["password"])
    except (Refused, Refusal) as error:
        return _reset(visit, form["token"], as_refused(request, error))
    return visit.go("/login", "reset")


async def _form(request: AnyRequest) -> dict[str, str]:
    """The fields there may be; a password is taken as it is."""
    found = await request.form()
    fields = {
        key: str(found.get(key, ""))[:MAX_FIELD] for key in "user email name password next token".split()
    }
    return fields | {key: fields[key].strip() for key in ("user", "email", "name")}
