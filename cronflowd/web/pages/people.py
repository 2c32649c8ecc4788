"""Accounts, tokens, secrets by name, and what was done and refused."""

from __future__ import annotations

from typing import Any

from litestar import get, post
from litestar.response import Redirect, Stream

from ...base.errors import Refusal
from ...base.names import check_form
from ...base.text import quote
from ..identity import by_cookie
from ..talks import ref_of
from .visit import ROLES, ROWS, Page, Visit, Visitor

MAX_ROWS = 200
VERDICTS = {"": "All", "denied": "Refused", "ok": "Done"}
# What cannot be taken back is asked first: what it is, and what it comes to.
GONE = {
    "USER REMOVE": ("Remove the account", "Its sessions and tokens end at once. Its jobs stay as they are."),
    "USER PASSWORD": ("Make a new password", "The old one counts no more, and its sessions end at once."),
    "TOKEN REVOKE": ("Revoke the token", "Whoever shows it is sent away at once, and not let in again."),
    "SECRET REMOVE": (
        "Remove the secret",
        "Its value is gone: nobody can show it again, nor UNDO bring it back.",
    ),
}


async def _page(visit: Visit, topic: str, shown: str = "", **refused: Any) -> Page:
    """One of the three lists, with what was just made, which is shown this once."""
    line = {"users": "USER LIST", "tokens": "TOKEN LIST", "secrets": "SECRET LIST"}[topic]
    rows = (await visit.read(line)).rows
    return visit.page(
        f"{topic}.html",
        line,
        rows=rows[:MAX_ROWS],
        more=len(rows) - MAX_ROWS,
        shown=shown,
        roles=ROLES,
        **refused,
    )


@get(["/users", "/tokens", "/secrets"])
async def lists(visit: Visitor) -> Page:
    return await _page(visit, visit.request.url.path.strip("/"))


@post("/users")
async def change_user(visit: Visitor) -> Any:
    """USER ADD, SET, PASSWORD or REMOVE."""
    form = await visit.form()
    words = visit.options(**{key: form.get(key, "") for key in ("role", "email")})
    return await _order(visit, "users", form, {
        "add": ("USER ADD", words),
        "role": ("USER SET", words),
        "disable": ("USER SET", "disabled=yes"),
        "enable": ("USER SET", "disabled=no"),
        "password": ("USER PASSWORD", ""),
        "remove": ("USER REMOVE", ""),
    })  # fmt: skip


@post("/tokens")
async def change_token(visit: Visitor) -> Any:
    """TOKEN ADD or REVOKE."""
    form = await visit.form()
    words = visit.options(**{key: form.get(key, "") for key in ("name", "role", "user", "worker", "ttl")})
    return await _order(visit, "tokens", form, {"add": ("TOKEN ADD", words), "revoke": ("TOKEN REVOKE", "")})


@post("/secrets")
async def change_secret(visit: Visitor) -> Any:
    """SECRET PUT or REMOVE; the value is never shown again."""
    form = await visit.form()
    value = quote(form.get("value", ""))
    return await _order(
        visit, "secrets", form, {"put": ("SECRET PUT", value), "remove": ("SECRET REMOVE", "")}
    )


async def _order(visit: Visit, topic: str, form: dict[str, str], deeds: dict[str, tuple[str, str]]) -> Any:
    """A deed's verb, whom it is about, and the words behind that; a token that is made is called by these."""
    is_new = form.get("deed") in ("add", "put")
    try:
        verb, words = deeds.get(form.get("deed", ""), ("", ""))
        if not verb:
            raise Refusal("bad-option", f"one of these is to be done: {', '.join(deeds)}")
        name = form.get("name", "") if verb != "TOKEN ADD" else ""
        whom = check_form(name, "name") if is_new and name else name and ref_of(name, topic[:-1])
        said = " ".join(filter(None, (verb, whom, words)))
        if verb in GONE and "sure" not in form:
            await visit.look()
            visit.only(visit.frame["may"]("admin"))
            what, text = GONE[verb]
            sent = {"deed": form["deed"], "name": name, "sure": "yes"}
            return visit.sure(said, f"{what}: {name}?", text, what, f"/{topic}", **sent)
        answer = await visit.ask(said)
    except Refusal as error:
        if error.code == "auth-required":
            raise
        return await _page(visit, topic, error=error, form=form if is_new else {})
    made = [row["value"] if "value" in row else next(iter(row.values())) for row in answer.rows]
    if made:
        return await _page(visit, topic, shown=str(made[0]))
    return visit.go(f"/{topic}", "saved")


@get("/sessions")
async def sessions(visit: Visitor) -> Page:
    """Where one is signed in oneself; of others, SESSION LIST tells."""
    rows = await _own_sessions(visit)
    line = f"SESSION LIST user={visit.frame['name']}"
    return visit.page("sessions.html", line, "SESSION END ID", rows=rows, mine=_session_of(visit))


@post("/sessions")
async def end_sessions(visit: Visitor) -> Redirect:
    """One of them, or all but the one that asks."""
    wanted = (await visit.form()).get("session", "")
    known = [str(row["id"]) for row in await _own_sessions(visit)]
    if wanted != "others" and wanted not in known:
        raise Refusal("not-found", "no session of yours")
    ends = [each for each in known if each != str(_session_of(visit))] if wanted == "others" else [wanted]
    for answer in await visit.ask_all(*(f"SESSION END {each}" for each in ends)):
        if answer.status.get("code") not in ("not-found", "denied"):  # it has ended meanwhile
            answer.check()
    return visit.go("/sessions", "ended")


async def _own_sessions(visit: Visit) -> list[dict[str, Any]]:
    await visit.look()
    (answer,) = await visit.ask_all(f"SESSION LIST user={ref_of(visit.frame['name'], 'account')}")
    return answer.check().rows


def _session_of(visit: Visit) -> int:
    """That of the browser that asks; 0 = somebody with a token."""
    who = by_cookie(visit.request)
    return who.session if who else 0


@get("/audit")
async def audit(visit: Visitor) -> Stream:
    """Who came in, what was changed, and what was refused."""
    asked = visit.asked(who=str, verdict=VERDICTS.__contains__)
    line = f"AUDIT {visit.options(**asked)}".strip()
    await visit.look()

    async def later() -> dict[str, Any]:
        rows = (await visit.ask_all(f"{line} {visit.one_more}"))[0].check().rows
        return {"rows": rows[:ROWS], "is_more": len(rows) > ROWS}

    return visit.stream("audit.html", line, later=later, **asked, verdicts=VERDICTS)


@get("/more")
async def more(visit: Visitor) -> Page:
    """What a telephone's five buttons have no place for."""
    await visit.look()
    return visit.page("more.html", "HELP")
