"""Jobs that hang together by after=, drawn."""

from __future__ import annotations

from litestar import get, post
from litestar.params import FromPath
from litestar.response import Redirect

from ..line import Row
from ..talks import ref_of
from . import drawing
from .visit import Page, Visitor

DRAWN = 4  # flows on the list's page
MAX_BOXES = 150  # more are a list


@get("/flows")
async def flows(visit: Visitor) -> Page:
    """Every flow with its newest run; the first few drawn."""
    answer = await visit.read("FLOW")
    rows = answer.rows
    small = [row for row in rows if row["tasks"] <= MAX_BOXES][:DRAWN]
    drawn = await visit.ask_all(*(f"FLOW {row['id']}" for row in small))
    graphs = {
        row["id"]: graph_of(answer.rows) for row, answer in zip(small, drawn, strict=True) if answer.rows
    }
    return visit.page("flows.html", "FLOW", "DEPS", rows=rows[:100], more=len(rows) - 100, graphs=graphs)


@get("/flows/{ref:str}")
async def flow(visit: Visitor, ref: FromPath[str]) -> Page:
    """One flow: the drawing, each job's turn in the newest run, and the runs before."""
    ref = ref_of(ref)
    shown, runs = await visit.look(f"FLOW {ref}", f"FLOW {ref} RUNS limit=20")
    rows = shown.check().rows
    return visit.page(
        "flow.html",
        f"FLOW {ref}", f"FLOW {ref} RUN", f"FLOW {ref} RUNS",
        first=rows[0],
        rows=rows,
        state=shown.status.get("state"),
        graph=graph_of(rows) if len(rows) <= MAX_BOXES else None,
        runs=runs.rows,
    )  # fmt: skip


def graph_of(rows: list[Row]) -> drawing.Graph:
    """FLOW REF's rows as a drawing; `after` names tasks."""
    ids = {row["jobName"]: row["id"] for row in rows}
    after = {
        row["id"]: [ids[name] for name in (row["after"] or "").split(",") if name in ids] for row in rows
    }
    return drawing.draw_graph(rows, after)


@post("/flows/{ref:str}/{deed:str}")
async def act(visit: Visitor, ref: FromPath[str], deed: FromPath[str]) -> Redirect:
    """RUN, RETRY or CANCEL of a flow."""
    done = {"run": "started", "retry": "started", "cancel": "cancelled"}
    if deed in done:
        await visit.ask(f"FLOW {ref_of(ref)} {deed.upper()}")
    return visit.go(f"/flows/{ref}", done.get(deed, ""))
