"""Who runs the jobs, and who has to show life."""

from __future__ import annotations

from litestar import get, post
from litestar.params import FromPath, JSONBody
from msgspec import Struct

from .identity import AnyRequest
from .line import Caller, Daemon
from .outcomes import Worker, to_worker
from .rest import (
    ERRORS,
    MAX_LIMIT,
    Limit,
    Listing,
    Page,
    Success,
    ToDaemon,
    Who,
    line,
    listing,
    once,
    ref_of,
    routes,
)


class Drained(Struct):
    """Whether a worker is sent runs."""

    name: str
    state: str


class Expectation(Struct, rename="camel"):
    """What has to show life, and when it is late."""

    name: str
    state: str
    last_at: str | None
    due_at: str | None
    every: str
    grace: str
    text: str | None
    notify: str | None
    description: str | None


class BeatBody(Struct, forbid_unknown_fields=True):
    """How it went: ok, fail, or a command's exit status; and a text that is shown."""

    status: str = "ok"
    text: str = ""


class Beat(Struct, rename="camel"):
    """When the next one is due."""

    name: str
    due_at: str | None


async def read_workers(daemon: Daemon, caller: Caller) -> list[Worker]:
    return [to_worker(row) for row in (await daemon.ask("WORKERS", caller)).rows]


@get("/workers", summary="Who runs the jobs", responses=ERRORS)
async def list_workers(
    caller: Who, daemon: ToDaemon, page: Page = 1, limit: Limit = MAX_LIMIT
) -> Listing[Worker]:
    """Connected or away."""
    return listing(await read_workers(daemon, caller), page, limit)


async def _drain(verb: str, request: AnyRequest, caller: Caller, daemon: Daemon, name: str) -> Drained:
    said = once(request, line(verb, ref_of(name, "worker")))
    status = (await daemon.ask(said, caller)).status
    return Drained(status["worker"], status["state"])


@post("/workers/{name:str}/drain", summary="Send it no more runs", status_code=200, responses=ERRORS)
async def drain_worker(
    request: AnyRequest, caller: Who, daemon: ToDaemon, name: FromPath[str]
) -> Success[Drained]:
    """What it has, it finishes."""
    return Success(await _drain("DRAIN", request, caller, daemon, name))


@post("/workers/{name:str}/undrain", summary="Send it runs again", status_code=200, responses=ERRORS)
async def undrain_worker(
    request: AnyRequest, caller: Who, daemon: ToDaemon, name: FromPath[str]
) -> Success[Drained]:
    """The opposite of drain."""
    return Success(await _drain("UNDRAIN", request, caller, daemon, name))


@get("/expectations", summary="Who has to show life", responses=ERRORS)
async def list_expectations(
    caller: Who, daemon: ToDaemon, page: Page = 1, limit: Limit = MAX_LIMIT
) -> Listing[Expectation]:
    """By name."""
    keys = ("name", "state", "last", "due", "every", "grace", "text", "notify", "desc")
    rows = (await daemon.ask("EXPECTS", caller)).rows
    return listing([Expectation(*(row[key] for key in keys)) for row in rows], page, limit)


@post("/beats/{name:str}", summary="Show life", status_code=200, responses=ERRORS)
async def beat(
    request: AnyRequest,
    caller: Who,
    daemon: ToDaemon,
    name: FromPath[str],
    data: JSONBody[BeatBody | None] = None,
) -> Success[Beat]:
    """With nothing said, that it is well."""
    body = data or BeatBody()
    words = [ref_of(name, "expectation"), ref_of(body.status, "status"), *([body.text] if body.text else [])]
    status = (await daemon.ask(once(request, line("BEAT", *words)), caller)).status
    return Success(Beat(status["name"], status["due"]))


WORKERS = routes("/api/v1", [list_workers, drain_worker, undrain_worker, list_expectations, beat])
