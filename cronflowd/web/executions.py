"""Runs: what ran, how it ended, what it wrote."""

from __future__ import annotations

from typing import Annotated

from litestar import get, post
from litestar.params import FromPath, FromQuery, QueryParameter

from .outcomes import Execution
from .rest import Limit, Listing, Page, Success, Who, pages, ref_of, run_of
from .talks import find, line, newest_attempt, slice_of

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
    asked = {"state": job_state, "worker": worker, "since": since, "until": until}
    said = {key: text or None for key, text in asked.items()} | slice_of(page, limit)
    rows, status = await asker.hold(find(ref_of(job_id) if job_id else None, **said))
    return Listing(rows, pages(status, page, limit))


@get("/executions/{run:str}", summary="One run, its newest attempt")
async def get_execution(asker: Who, run: FromPath[str]) -> Success[Execution]:
    """As it is now."""
    return Success(await asker.hold(newest_attempt(run_of(run))))


@post("/executions/{run:str}/cancel", summary="End a run", status_code=200)
async def cancel_execution(asker: Who, run: FromPath[str]) -> Success[Execution]:
    """One that waits ends at once; one that runs has ended when its worker says so."""
    number = run_of(run)
    await asker.hold(newest_attempt(number))
    await asker.ask(line("CANCEL", number))
    return Success(await asker.hold(newest_attempt(number)))
