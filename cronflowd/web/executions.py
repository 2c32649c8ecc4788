"""Runs: what ran, how it ended, what it wrote."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import get, post
from litestar.params import FromPath, FromQuery, QueryParameter

from .envelope import Refused
from .outcomes import Execution, to_execution
from .rest import (
    Asker,
    Limit,
    Listing,
    Page,
    Success,
    Who,
    line,
    pages,
    ref_of,
    routes,
    run_of,
    slice_of,
)


async def find(asker: Asker, **options: Any) -> tuple[list[Execution], Any]:
    """Rows of RUNS, and its status line."""
    words = [ref_of(str(ref))] if (ref := options.pop("ref", None)) is not None else []
    answer = await asker.ask(line("RUNS", *words, **options))
    return [to_execution(row) for row in answer.rows], answer.status


async def newest_attempt(asker: Asker, run: int) -> Execution:
    """A run as it is now; raises Refused where there was none."""
    found, _ = await find(asker, run=run, limit=1)
    if not found:
        raise Refused(404, "not-found", f"there is no execution {run}")
    return found[0]


State = Annotated[str | None, QueryParameter(name="state", description="One or several, comma between")]


@get("/executions", summary="What ran, newest first")
async def list_executions(
    asker: Who,
    job_id: Annotated[str | None, QueryParameter(name="jobId")] = None,
    job_state: State = None,
    worker: FromQuery[str | None] = None,
    since: FromQuery[str | None] = None,
    until: FromQuery[str | None] = None,
    page: Page = 1,
    limit: Limit = 20,
) -> Listing[Execution]:
    """Every attempt; moments that were skipped or missed among them."""
    asked = {"ref": job_id or None, "state": job_state or None, "worker": worker or None}
    asked |= {"since": since or None, "until": until or None}
    rows, status = await find(asker, **asked, **slice_of(page, limit))
    return Listing(rows, pages(status, page, limit))


@get("/executions/{run:str}", summary="One run, its newest attempt")
async def get_execution(asker: Who, run: FromPath[str]) -> Success[Execution]:
    """As it is now."""
    return Success(await newest_attempt(asker, run_of(run)))


@post("/executions/{run:str}/cancel", summary="End a run", status_code=200)
async def cancel_execution(asker: Who, run: FromPath[str]) -> Success[Execution]:
    """One that waits ends at once; one that runs has ended when its worker says so."""
    number = run_of(run)
    await newest_attempt(asker, number)
    await asker.ask(line("CANCEL", number))
    return Success(await newest_attempt(asker, number))


EXECUTIONS = routes("/api/v1", [list_executions, get_execution, cancel_execution])
