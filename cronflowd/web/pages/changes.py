"""Who changed what, and taking it back; what is paused, and why."""

from __future__ import annotations

from litestar import get, post
from litestar.response import Redirect

from .jobs import tell_pauses
from .visit import ROWS, Page, Visitor, inner


@get("/changes")
async def changes(visit: Visitor) -> Page:
    """All changes, newest first; a page of them at a time."""
    offset = (visit.number - 1) * ROWS
    rows = (await visit.read(f"HISTORY limit={ROWS + 1} offset={offset}")).rows
    return visit.page("changes.html", "HISTORY", "UNDO", rows=rows[:ROWS], is_more=len(rows) > ROWS)


@get("/undo")
async def ask_undo(visit: Visitor) -> Page:
    """Shows what would be taken back, and asks."""
    text = visit.query("n", "1")
    many = min(max(int(text), 1), 100) if text.isdecimal() and len(text) < 4 else 1
    (answer,) = await visit.look(f"HISTORY limit={many}")
    visit.only(visit.frame["may"]("user"))
    return visit.page("undo.html", f"UNDO {many}", rows=answer.rows, many=many)


@post("/undo")
async def undo(visit: Visitor) -> Redirect:
    """Takes back what was shown; another change that came meanwhile is not what was meant."""
    form = await visit.form()
    many, newest = form.get("n", "1"), form.get("newest", "")
    rows = (await visit.ask("HISTORY limit=1")).rows
    if many.isdecimal() and rows and str(rows[0]["change"]) == newest:
        await visit.ask(f"UNDO {int(many)}")
        return visit.go("/changes", "undone")
    return visit.go(f"/undo?n={many if many.isdecimal() else 1}")


@get("/pauses")
async def pauses(visit: Visitor) -> Page:
    """What is paused, why and until when; and pausing more."""
    answer = await visit.read(f"LIST state=paused {visit.span}")
    rows = answer.rows
    await tell_pauses(visit, rows)
    return visit.page(
        "pauses.html",
        "LIST state=paused", 'PAUSE tag=night until=2h why="…"', "RESUME all",
        rows=rows,
        total=answer.status.get("total"),
    )  # fmt: skip


@post("/resume")
async def resume(visit: Visitor) -> Redirect:
    """Everything."""
    form = await visit.form()
    await visit.ask("RESUME all")
    return visit.go(inner(form.get("next") or "/pauses"), "resumed")
