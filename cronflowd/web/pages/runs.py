"""What ran: the list, one run with its output as it is written, and its end by hand."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

import orjson
from litestar import MediaType, Response, get, post
from litestar.params import FromPath, FromQuery
from litestar.response import Redirect, Stream

from ...base.errors import Refusal
from ...tasks.task import ENDED, UNDER_WAY
from ..events import BEAT, BEAT_S, HEADERS, KIND
from ..line import Unreachable, is_status
from ..talks import ref_of
from .terminal import Terminal
from .visit import ROWS, Page, Visit, Visitor

SHOWN = 1000  # rows of output on a page; the file has all
FILTERS = {
    "": "All",
    "failed,timeout,lost,missed": "Went wrong",
    "running,sent,queued": "Under way",
    "ok": "Went well",
    "skipped": "Skipped",
    "cancelled": "Cancelled",
}
_SINCE = re.compile(r"[0-9TZ:.+-]{1,35}|[0-9]{1,5}[smhd]")


@get("/runs")
async def runs(visit: Visitor) -> Stream:
    """Attempts, newest first, of whichever state, job, worker or day."""
    state, job = visit.query("state"), visit.query("job")
    known = ",".join(word for word in state.split(",") if word in ENDED.union(UNDER_WAY))
    asked = visit.asked(worker=str, since=_SINCE.fullmatch, until=_SINCE.fullmatch)
    words = visit.options(state=known, **asked)
    line = " ".join(filter(None, ("RUNS", ref_of(job) if job else "", words)))
    found = await visit.look(*([f"GET {ref_of(job)}"] if job else []))

    async def later() -> dict[str, Any]:
        (answer,) = await visit.ask_all(f"{line} {visit.span}")
        status = answer.check().status
        return {"rows": answer.rows, "total": status.get("total"), "more": status.get("more")}

    told: dict[str, Any] = {"state": state, "job": job, "filters": FILTERS} | asked
    told["job_name"] = found[0].pairs.get("jobName", job) if job else ""
    told["bounds"] = [(word, asked[word]) for word in ("since", "until") if asked[word]]
    return visit.stream("runs.html", f"{line} limit={ROWS}", later=later, **told)


@get("/runs/{run:int}")
async def run_page(visit: Visitor, run: FromPath[int]) -> Stream:
    """One run: how it went, why, and what it wrote."""
    rows = (await visit.read(f"RUNS run={run} limit=100")).rows
    if not rows:
        raise Refusal("not-found", f"no run {run} is known any more")
    lines = f"LOG {run}", f"LOG {run} follow", f"RUNS run={run}"
    return visit.stream("run.html", *lines, later=partial(details, visit, run, rows), run=run)


async def details(visit: Visit, run: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Its job and its output, wherever that stands."""
    job, log = await visit.ask_all(f"GET {rows[0]['id']}", f"LOG {run} tail={SHOWN}")
    return {
        "row": rows[0],
        "attempts": rows,
        "job": job.pairs if job.status["ok"] else {},
        "log": log.rows,
        "is_cut": len(log.rows) == SHOWN,
        "is_live": rows[0]["state"] in UNDER_WAY,
        "is_own": may_change(visit, job.pairs),
    }


def may_change(visit: Visit, job: dict[str, Any]) -> bool:
    """Whether buttons that change this job are for this person."""
    may = visit.frame["may"]
    return bool(may("operator") or (may("user") and job.get("owner") == visit.frame["name"]))


async def tell_own(visit: Visit, rows: list[dict[str, Any]]) -> None:
    """Adds to each row of a task whether buttons that change it are for this person."""
    may = visit.frame["may"]
    asked = rows if may("user") and not may("operator") else []
    answers = await visit.ask_all(*(f"GET {row['id']}" for row in asked))
    for at, row in enumerate(rows):
        row["is_own"] = may_change(visit, answers[at].pairs if asked and answers[at].status["ok"] else {})


@get("/runs/{run:int}/log")
async def download(visit: Visitor, run: FromPath[int], fd: FromQuery[int | None] = None) -> Response[bytes]:
    """All that is kept of its output, byte for byte, as a file."""
    only = f" fd={fd}" if fd in (1, 2) else ""
    answer = await visit.ask(f"LOG {run}{only}")
    data = b"".join(_bytes_of(row) for row in answer.rows if row["fd"] or not only)
    headers = {"Content-Disposition": f'attachment; filename="run-{run}.log"'}
    return Response(data, headers=headers, media_type=MediaType.TEXT)


def _bytes_of(row: dict[str, Any]) -> bytes:
    whole = base64.b64decode(row["base64"]) if "base64" in row else row["text"].encode()
    return whole if row.get("end") == "no-newline" else whole + b"\n"


@get("/runs/{run:int}/stream")
async def stream(visit: Visitor, run: FromPath[int]) -> Stream:
    """Its output as it comes; then `end`, and the page fetches itself anew."""
    await visit.ask(f"LOG {run} tail=0")  # a refusal is an answer, and no stream
    return Stream(_follow(visit, run), media_type=KIND, headers=HEADERS)


async def _follow(visit: Visit, run: int) -> AsyncGenerator[bytes, None]:
    """Rows as a page shows them. Who comes again is given what there is from the beginning."""
    terminal = Terminal()
    try:
        async with visit.follow(f"LOG {run} follow tail={SHOWN}") as connection:
            while True:
                if (row := await connection.row_within(BEAT_S)) is None:
                    yield BEAT
                elif is_status(row):
                    break
                else:
                    yield b"event: line\ndata: %b\n\n" % orjson.dumps(terminal.show(row))
        yield b"event: end\ndata: -\n\n"
    except (Refusal, Unreachable):
        return  # it comes again, and is told then


@get("/runs/{run:int}/cancel")
async def ask_cancel(visit: Visitor, run: FromPath[int]) -> Page | Redirect:
    """Asks before anything is ended. Of what has ended meanwhile the run's own page tells."""
    rows = (await visit.read(f"RUNS run={run} state={','.join(UNDER_WAY)} limit=1")).rows
    if not rows:
        return visit.go(f"/runs/{run}")
    await tell_own(visit, rows)
    visit.only(rows[0]["is_own"])
    text = "Its processes get TERM, and KILL if they do not end. A cancelled run is not tried again."
    what = f"Cancel run {run} of {rows[0]['jobName']}?"
    return visit.sure(f"CANCEL {run}", what, text, "Cancel the run", f"/runs/{run}")


@post("/runs/{run:int}/cancel")
async def cancel(visit: Visitor, run: FromPath[int]) -> Redirect:
    await visit.ask(f"CANCEL {run}")
    return visit.go(f"/runs/{run}", "cancelled")
