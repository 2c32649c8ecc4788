"""Who runs the jobs, who has to show life, and what clock changes will do."""

from __future__ import annotations

from typing import Any

from litestar import get, post
from litestar.params import FromPath
from litestar.response import Redirect

from ...base.errors import Refusal
from ...base.names import check_form
from ..talks import ref_of
from .visit import Page, Visit, Visitor

MAX_ROWS = 100


@get("/workers")
async def workers(visit: Visitor) -> Page:
    """Each worker with its slots, labels, clock, and what it can do."""
    found, clocks, types, running = await visit.look(
        "WORKERS", "CLOCK", "TYPES", f"RUNS state=running,sent limit={MAX_ROWS}"
    )
    by_worker: dict[str, list[dict[str, Any]]] = {}
    for row in running.rows:
        by_worker.setdefault(row["worker"], []).append(row)
    return visit.page(
        "workers.html",
        "WORKERS", "TYPES", "DRAIN NAME",
        rows=found.check().rows,
        clocks=clocks.pairs,
        types=[row for row in types.rows if row["count"] or row["type"] in ("shell", "http", "email")],
        running=by_worker,
    )  # fmt: skip


@post("/workers/{worker:str}/{deed:str}")
async def act(visit: Visitor, worker: FromPath[str], deed: FromPath[str]) -> Redirect:
    """DRAIN or UNDRAIN."""
    done = {"drain": "draining", "undrain": "ready"}
    if deed in done:
        await visit.ask(f"{deed.upper()} {ref_of(worker, 'worker')}")
    return visit.go("/workers", done.get(deed, ""))


@get("/heartbeats")
async def heartbeats(visit: Visitor) -> Page:
    """What has to show life from elsewhere, the silent ones first."""
    return await _heartbeats(visit)


async def _heartbeats(visit: Visit, **refused: Any) -> Page:
    answer = await visit.read("EXPECTS")
    order = {"late": 0, "failed": 1, "new": 3, "ok": 4, "paused": 2}
    rows = sorted(answer.rows, key=lambda row: order.get(row["state"], 5))
    return visit.page(
        "heartbeats.html",
        "EXPECTS", "BEAT NAME",
        rows=rows[:MAX_ROWS],
        more=len(rows) - MAX_ROWS,
        **refused,
    )  # fmt: skip


@post("/heartbeats")
async def expect(visit: Visitor) -> Redirect | Page:
    """EXPECT of a name, or FORGET. A refusal comes back with the form as it was filled in."""
    form = await visit.form()
    name = form.get("name", "")
    if "forget" in form:
        said = f"FORGET {ref_of(name, 'expectation')}"
        if "sure" not in form:
            await visit.look()
            visit.only(visit.frame["may"]("operator"))
            text = "Its silence is told no more. UNDO does not bring it back."
            sent = {"forget": "yes", "name": name, "sure": "yes"}
            return visit.sure(said, f"Forget {name}?", text, "Forget it", "/heartbeats", **sent)
        await visit.ask(said)
        return visit.go("/heartbeats", "forgotten")
    words = visit.options(**{key: form.get(key, "") for key in ("every", "grace", "notify", "desc")})
    try:
        await visit.ask(f"EXPECT {check_form(name, 'name')} {words}")
    except Refusal as error:
        if not error.option:
            raise
        return await _heartbeats(visit, form=form, error=error)
    return visit.go("/heartbeats", "saved")


@get("/clock-changes")
async def clock_changes(visit: Visitor) -> Page:
    """What the next changes of the clock do to which job."""
    (answer,) = await visit.look("DST all")
    rows = answer.rows if answer.status["ok"] else []
    return visit.page(
        "clock_changes.html",
        "DST",
        rows=rows[:MAX_ROWS],
        more=len(rows) - MAX_ROWS,
        refused=answer.status.get("message"),
    )
