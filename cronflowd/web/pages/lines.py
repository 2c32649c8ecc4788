"""Any line of the protocol, typed into a page: for what has no page of its own."""

from __future__ import annotations

from typing import Any

from litestar import get, post

from ...base.errors import Refusal
from ..envelope import Refused, status_of
from ..line import Answer
from ..talks import any_line
from .visit import Page, Visit, Visitor

MAX_ROWS = 500


@get("/line")
async def line(visit: Visitor) -> Page:
    """Where it is typed; `say=` is what stands there already, and is not said by that."""
    await visit.look()
    return _page(visit, visit.query("say"))


@post("/line")
async def say(visit: Visitor) -> Page:
    """Its answer, as netcat would have it."""
    said = (await visit.form()).get("line", "")
    await visit.look()
    try:
        answer = await visit.daemon.pass_on(any_line(said), visit.caller)
    except Refusal as refusal:
        status = status_of(refusal.code)
        return _page(visit, said, error=Refused(status, refusal.code, refusal.message), wrong="line")
    return _page(visit, said, answer)


def _page(visit: Visit, line: str, answer: Answer | None = None, **refused: Any) -> Page:
    rows = answer.rows if answer else []
    return visit.page(
        "line.html",
        *([line] if line else []),
        form={"line": line},
        said=answer.told if answer else None,
        rows=rows[:MAX_ROWS],
        columns=[
            *dict.fromkeys(key for row in rows[:MAX_ROWS] for key in row)
        ],  # not each row has all of them
        more=len(rows) - MAX_ROWS,
        **refused,
    )
