"""Jobs: what there is to run, what is done with it, when it comes, and what ran."""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated

from litestar import Response, delete, get, post, route
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from msgspec import UNSET, Meta, Struct, UnsetType

from ..base.errors import Refusal
from ..tasks.task import UNDER_WAY
from . import talks
from .envelope import Refused
from .fields import JobBody, Words, Wrong, about, to_body
from .identity import AnyRequest
from .job import Job
from .outcomes import LEVELS, Execution, Level, LogLine, Occurrence, of_row, plain, to_lines, to_occurrences
from .rest import Asker, Limit, Listing, Page, Success, Who, pages
from .talks import ref_of, run_of

CANCELLED_AT_ONCE = 1000  # runs, in one turn
RunStates = Annotated[str | None, QueryParameter(name="state", description="One or several, comma between")]


# --- reading ----------------------------------------------------------------------------------------


def answer(job: Job, status: int = 200) -> Response[Success[Job]]:
    headers = {"ETag": f'"{job.rev}"'} | ({"Location": f"/api/v1/jobs/{job.id}"} if status == 201 else {})
    return Response(Success(job), status_code=status, headers=headers)


@get("/jobs", summary="The jobs")
async def list_jobs(
    asker: Who,
    page: Page = 1,
    limit: Limit = 20,
    status: Annotated[
        str | None, QueryParameter(description="active, paused, idle, queued, running …")
    ] = None,
    type_: Annotated[str | None, QueryParameter(name="type")] = None,
    tag: FromQuery[str | None] = None,
    owner: FromQuery[str | None] = None,
    search: Annotated[
        str | None, QueryParameter(description="In name, title, description, command, tags")
    ] = None,
    sort: Annotated[
        str | None, QueryParameter(description="id, name, nextRunAt, status, lastRun; -name")
    ] = None,
) -> Listing[Job]:
    """Those that match, a page of them."""
    asked = {"status": status, "type": type_, "tag": tag, "owner": owner, "search": search, "sort": sort}
    rows, told = await asker.hold(talks.list_rows(page, limit, asked))
    return Listing(await asker.hold(talks.read_jobs(rows)), pages(told, page, limit))


@get("/jobs/{job_id:str}", summary="One job, by id or name")
async def get_job(asker: Who, job_id: FromPath[str]) -> Response[Success[Job]]:
    """Every field; `ETag` is its revision."""
    return answer(await asker.hold(talks.read_job(ref_of(job_id))))


# --- making and changing ----------------------------------------------------------------------------


@post("/jobs", summary="Make a job")
async def create_job(asker: Who, data: JSONBody[JobBody]) -> Response[Success[Job]]:
    """With `Idempotency-Key`, the same request makes one job, however often it comes."""
    return answer(await asker.hold(talks.make_job(data, asker.key)), 201)


@route("/jobs/{job_id:str}", http_method=["PUT", "PATCH"], summary="Change a job")
async def put_job(asker: Who, job_id: FromPath[str], data: JSONBody[JobBody]) -> Response[Success[Job]]:
    """What is not named stays as it is. `If-Match`: only if the job is still as it was seen."""
    return answer(await asker.hold(talks.change_job(ref_of(job_id), data, seen_revs(asker.request))))


def seen_revs(request: AnyRequest) -> tuple[int, ...]:
    """The revisions of If-Match, one of which is to be the job's; none where any will do. Raises Refused."""
    text = request.headers.get("if-match", "*").strip()
    if text == "*":
        return ()
    found = [re.fullmatch('(?:W/)?"([0-9]{1,9})"', each.strip()) for each in text.split(",")]
    if all(found):
        return tuple(int(match[1]) for match in found if match)
    raise Refused(409, "busy", f'{text[:40]} is no revision\'s ETag: those are "1", "2" …', "If-Match")


class Removed(Struct):
    """What is gone."""

    id: int
    removed: bool = True


@delete("/jobs/{job_id:str}", summary="Remove a job", status_code=200)
async def delete_job(asker: Who, job_id: FromPath[str], force: FromQuery[bool] = False) -> Success[Removed]:
    """Its history stays. `force`: also if others wait for it."""
    ref, seen = ref_of(job_id), seen_revs(asker.request)
    rev = (await asker.hold(talks.read_job(ref))).rev if seen[1:] else None
    said = talks.line(
        "REMOVE", ref, force="yes" if force else None, rev=rev if rev in seen else next(iter(seen), None)
    )
    return Success(Removed((await asker.ask(said)).status["id"]))


# --- doing something with one -----------------------------------------------------------------------


class PauseBody(Struct, forbid_unknown_fields=True):
    """Until when, and why; both are shown to whoever looks."""

    until: str | None = None
    why: str | None = None


class TriggerBody(Struct, forbid_unknown_fields=True):
    """What the run finds in its environment, as CRONFLOW_ARG_NAME."""

    args: dict[str, str | int | float | bool] = {}


class RescheduleBody(Struct, rename="camel", forbid_unknown_fields=True):
    """When it is to run from now on."""

    cron_expression: str | UnsetType = UNSET
    schedule: str | UnsetType = UNSET
    scheduled_at: str | UnsetType = UNSET
    timezone: str | UnsetType = UNSET


class UndoBody(Struct, forbid_unknown_fields=True):
    """To which revision; without it, to the one before."""

    rev: Annotated[int, Meta(ge=1)] | None = None


class Cancelled(Struct):
    """The runs that were told to end."""

    cancelled: list[int]


@post("/jobs/{job_id:str}/pause", summary="Start nothing any more", status_code=200)
async def pause_job(
    asker: Who, job_id: FromPath[str], data: JSONBody[PauseBody | None] = None
) -> Response[Success[Job]]:
    """What runs already goes on."""
    ref, body = ref_of(job_id), data or PauseBody()
    said = talks.line("PAUSE", ref, until=body.until or None, why=body.why or None)
    await asker.order(said)
    return answer(await asker.hold(talks.read_job(ref)))


@post("/jobs/{job_id:str}/resume", summary="The opposite of pause", status_code=200)
async def resume_job(asker: Who, job_id: FromPath[str]) -> Response[Success[Job]]:
    """Its next moment is the next to come."""
    await asker.order(talks.line("RESUME", ref_of(job_id)))
    return answer(await asker.hold(talks.read_job(job_id)))


@post("/jobs/{job_id:str}/cancel", summary="End its runs", status_code=200)
async def cancel_job(asker: Who, job_id: FromPath[str]) -> Success[Cancelled]:
    """All that have not ended yet."""
    await asker.ask(talks.line("GET", ref_of(job_id)))
    asked = talks.line("RUNS", job_id, state=",".join(UNDER_WAY))
    runs = list(dict.fromkeys(row["run"] for row in (await asker.ask(asked)).rows))
    ended: list[int] = []
    for start in range(0, len(runs), CANCELLED_AT_ONCE):
        some = runs[start : start + CANCELLED_AT_ONCE]
        answers = await asker.ask_all(*(talks.line("CANCEL", run) for run in some))
        for run, each in zip(some, answers, strict=True):
            if each.status["ok"]:
                ended.append(run)
            elif each.status["code"] != "not-found":  # it has ended meanwhile
                each.check()
    return Success(Cancelled(ended))


@post("/jobs/{job_id:str}/trigger", summary="Run it now", status_code=200)
async def trigger_job(
    asker: Who, job_id: FromPath[str], data: JSONBody[TriggerBody | None] = None
) -> Success[Execution]:
    """Whatever its schedule says, paused or not."""
    return Success(await asker.hold(talks.run_now(ref_of(job_id), data.args if data else {}, asker.key)))


@post("/jobs/{job_id:str}/reschedule", summary="Run it at other times", status_code=200)
async def reschedule_job(
    asker: Who, job_id: FromPath[str], data: JSONBody[RescheduleBody]
) -> Response[Success[Job]]:
    """From now on."""
    if not (said := plain(data)):
        raise Refused(400, "bad-schedule", "no cronExpression: when is it to run?", "cronExpression")
    return answer(await asker.hold(talks.change_job(ref_of(job_id), to_body(said), seen_revs(asker.request))))


@post("/jobs/{job_id:str}/undo", summary="As it was before", status_code=200)
async def undo_job(
    asker: Who, job_id: FromPath[str], data: JSONBody[UndoBody | None] = None
) -> Response[Success[Job]]:
    """A new revision, which is as that one was; once more takes that back."""
    old = await asker.hold(talks.read_job(ref_of(job_id)))
    wanted = data.rev if data else None
    rev = wanted or old.rev - 1
    if not rev:
        raise Refused(409, "not-found", "it is as it was made: there is nothing to take back")
    try:
        await asker.order(talks.line("ROLLBACK", old.id, rev))
    except Refusal as refusal:
        if wanted or not talks.is_key_taken(refusal):
            raise
        # Where this request was done before, that was a revision, too: the one that it meant is before it.
        await asker.order(talks.line("ROLLBACK", old.id, rev - 1))
    return answer(await asker.hold(talks.read_job(str(old.id))))


# --- looking ----------------------------------------------------------------------------------------


class Change(Struct):
    """Who changed what."""

    rev: int
    time: str
    who: str | None
    change: str


class Cause(Struct):
    """What happened, and when, if it has a time of its own."""

    time: str | None
    what: str


class Why(Struct):
    """How it ended, and the chain of causes."""

    disposition: str
    chain: list[Cause]


Number = Annotated[int, QueryParameter(ge=1, le=1000)]


@get("/jobs/{job_id:str}/executions", summary="What ran of it")
async def job_executions(
    asker: Who, job_id: FromPath[str], job_state: RunStates = None, page: Page = 1, limit: Limit = 20
) -> Listing[Execution]:
    """Newest first, also of a job that is gone."""
    rows, status = await asker.hold(
        talks.find(ref_of(job_id), state=job_state or None, **talks.slice_of(page, limit))
    )
    return Listing(rows, pages(status, page, limit))


@get("/jobs/{job_id:str}/logs", summary="What it wrote")
async def job_logs(
    asker: Who,
    job_id: FromPath[str],
    level: FromQuery[Level | None] = None,
    run: FromQuery[str | None] = None,
) -> Success[list[LogLine]]:
    """Of its newest run, or of one of its runs."""
    ref, number = ref_of(job_id), run_of(run) if run else None
    rows, _ = await asker.hold(talks.find(ref, run=number, limit=100))
    if number is None:
        number = next((row.id for row in rows if row.id), None)
    if number is None or not rows:
        if run:
            raise Refused(404, "not-found", f"job {ref} has no execution {run}", "run")
        return Success([])
    found = await asker.ask(talks.line("LOG", number, fd=LEVELS[level] if level else None))
    return Success(to_lines(found.rows))


@get("/jobs/{job_id:str}/history", summary="Who changed it")
async def job_history(
    asker: Who, job_id: FromPath[str], page: Page = 1, limit: Limit = 20
) -> Listing[Change]:
    """Newest first."""
    return await asker.listing(talks.line("HISTORY", ref_of(job_id)), partial(of_row, Change), page, limit)


@get("/jobs/{job_id:str}/next", summary="When it runs next")
async def job_next(
    asker: Who, job_id: FromPath[str], count: Number = 5, timezone: FromQuery[str | None] = None
) -> Success[list[Occurrence]]:
    """Moments to come; `timezone` says in which zone they are shown."""
    asked = talks.line("NEXT", ref_of(job_id), n=count, tz=timezone or None)
    return Success(to_occurrences((await asker.ask(asked)).rows))


@get("/jobs/{job_id:str}/why", summary="Why it ran, or did not")
async def job_why(asker: Who, job_id: FromPath[str], at: FromQuery[str | None] = None) -> Success[Why]:
    """At a moment, or lately."""
    if at and re.search(r'["\\\n\r]', at):
        raise Refused(400, "bad-schedule", "no time has quotes, or several lines", "at")
    words = [ref_of(job_id), *([f'"{at}"'] if at else [])]
    try:
        found = await asker.ask(talks.line("WHY", *words))
    except Refusal as refusal:
        raise Wrong(refusal.code, refusal.message, "at" if refusal.code == "bad-schedule" else None) from None
    chain = [of_row(Cause, row) for row in found.rows]
    return Success(Why(found.status["disposition"], chain))


# --- before there is a job --------------------------------------------------------------------------


class PreviewBody(Struct, forbid_unknown_fields=True):
    """A schedule: cron fields, `@every 90s`, or a phrase."""

    cron: str
    timezone: str | None = None
    count: Annotated[int, Meta(ge=1, le=talks.MAX_MOMENTS)] = 10


class Preview(Struct, rename="camel"):
    """What it means, and its next moments."""

    cron: str
    timezone: str
    means: str
    note: str | None
    clock_changes: str | None
    occurrences: list[Occurrence]


async def look_ahead(asker: Asker, body: PreviewBody) -> Preview:
    """Raises Refused naming the field."""
    words = Words()
    words.fields = {"schedule": "cron", "tz": "timezone", "command": "cron"}
    quoted, zone = talks.in_quotes(body.cron), body.timezone or None
    try:
        asked = [talks.line("NEXT", quoted, n=body.count, tz=zone), talks.line("DESCRIBE", quoted, tz=zone)]
        moments, meaning = await asker.ask_all(*asked)
        told = meaning.check().pairs
        found = to_occurrences(moments.check().rows)
    except Refusal as refusal:
        raise about(refusal, words) from None
    return Preview(body.cron, told["zone"], told["means"], told.get("note"), told.get("clock-changes"), found)


@post("/inspector/preview", summary="When a schedule would come", status_code=200)
async def preview(asker: Who, data: JSONBody[PreviewBody]) -> Success[Preview]:
    """In its zone and in UTC; `remark` tells what a clock change does to a moment."""
    return Success(await look_ahead(asker, data))


@get("/inspector/job/{job_id:str}", summary="When a job comes")
async def inspect_job(asker: Who, job_id: FromPath[str], count: Number = 10) -> Success[list[Occurrence]]:
    """The same of a job that is there."""
    asked = talks.line("NEXT", ref_of(job_id), n=count)
    return Success(to_occurrences((await asker.ask(asked)).rows))


# --- what ran ---------------------------------------------------------------------------------------


@get("/executions", summary="What ran, newest first")
async def list_executions(
    asker: Who,
    job_id: Annotated[str | None, QueryParameter(name="jobId")] = None,
    job_state: RunStates = None,
    worker: FromQuery[str | None] = None,
    since: FromQuery[str | None] = None,
    until: FromQuery[str | None] = None,
    page: Page = 1,
    limit: Limit = 20,
) -> Listing[Execution]:
    """Every attempt; moments that were skipped or missed among them."""
    asked = {"state": job_state, "worker": worker, "since": since, "until": until}
    said = {key: text or None for key, text in asked.items()} | talks.slice_of(page, limit)
    rows, status = await asker.hold(talks.find(ref_of(job_id) if job_id else None, **said))
    return Listing(rows, pages(status, page, limit))


@get("/executions/{run:str}", summary="One run, its newest attempt")
async def get_execution(asker: Who, run: FromPath[str]) -> Success[Execution]:
    """As it is now."""
    return Success(await asker.hold(talks.newest_attempt(run_of(run))))


@post("/executions/{run:str}/cancel", summary="End a run", status_code=200)
async def cancel_execution(asker: Who, run: FromPath[str]) -> Success[Execution]:
    """One that waits ends at once; one that runs has ended when its worker says so."""
    number = run_of(run)
    await asker.hold(talks.newest_attempt(number))
    await asker.order(talks.line("CANCEL", number))
    return Success(await asker.hold(talks.newest_attempt(number)))
