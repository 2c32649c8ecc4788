"""Runs: what ran, how it ended, what it wrote."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import get, post
from litestar.params import FromPath, FromQuery, QueryParameter

from .envelope import Refused
from .line import Caller, Daemon
from .outcomes import Execution, to_execution
from .rest import (
    ERRORS,
    Limit,
    Listing,
    Page,
    Success,
    ToDaemon,
    Who,
    line,
    pages,
    ref_of,
    routes,
    run_of,
    slice_of,
)


async def find(daemon: Daemon, caller: Caller, **options: Any) -> tuple[list[Execution], Any]:
    """Rows of RUNS, and its status line."""
    words = [ref_of(str(ref))] if (ref := options.pop("ref", None)) is not None else []
    answer = await daemon.ask(line("RUNS", *words, **options), caller)
    return [to_execution(row) for row in answer.rows], answer.status


async def newest_attempt(daemon: Daemon, caller: Caller, run: int) -> Execution:
    """A run as it is now; raises Refused where there was none."""
    found, _ = await find(daemon, caller, run=run, limit=1)
    if not found:
        raise Refused(404, "not-found", f"there is no execution {run}")
    return found[0]


State = Annotated[str | None, QueryParameter(name="state", description="One or several, comma between")]


@get("/executions", summary="What ran, newest first", responses=ERRORS)
async def list_executions(
    caller: Who,
    daemon: ToDaemon,
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
    rows, status = await find(daemon, caller, **asked, **slice_of(page, limit))
    return Listing(rows, pages(status, page, limit))


@get("/executions/{run:str}", summary="One run, its newest attempt", responses=ERRORS)
async def get_execution(caller: Who, daemon: ToDaemon, run: FromPath[str]) -> Success[Execution]:
    """As it is now."""
    return Success(await newest_attempt(daemon, caller, run_of(run)))


@post("/executions/{run:str}/cancel", summary="End a run", status_code=200, responses=ERRORS)
async def cancel_execution(caller: Who, daemon: ToDaemon, run: FromPath[str]) -> Success[Execution]:
    """One that waits ends at once; one that runs has ended when its worker says so."""
    number = run_of(run)
    await newest_attempt(daemon, caller, number)
    await daemon.ask(line("CANCEL", number), caller)
    return Success(await newest_attempt(daemon, caller, number))


EXECUTIONS = routes("/api/v1", [list_executions, get_execution, cancel_execution])
