"""Who runs the jobs, and who has to show life."""

from __future__ import annotations

from litestar import get, post
from litestar.params import FromPath, JSONBody
from msgspec import Struct

from .outcomes import Worker, to_worker
from .rest import MAX_LIMIT, Asker, Limit, Listing, Page, Success, Who, ref_of
from .talks import line


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


async def read_workers(asker: Asker) -> list[Worker]:
    return [to_worker(row) for row in (await asker.ask("WORKERS")).rows]


@get("/workers", summary="Who runs the jobs")
async def list_workers(asker: Who, page: Page = 1, limit: Limit = MAX_LIMIT) -> Listing[Worker]:
    """Connected or away."""
    return await asker.listing("WORKERS", to_worker, page, limit)


async def _drain(verb: str, asker: Asker, name: str) -> Drained:
    status = (await asker.order(line(verb, ref_of(name, "worker")))).status
    return Drained(status["worker"], status["state"])


@post("/workers/{name:str}/drain", summary="Send it no more runs", status_code=200)
async def drain_worker(asker: Who, name: FromPath[str]) -> Success[Drained]:
    """What it has, it finishes."""
    return Success(await _drain("DRAIN", asker, name))


@post("/workers/{name:str}/undrain", summary="Send it runs again", status_code=200)
async def undrain_worker(asker: Who, name: FromPath[str]) -> Success[Drained]:
    """The opposite of drain."""
    return Success(await _drain("UNDRAIN", asker, name))


@get("/expectations", summary="Who has to show life")
async def list_expectations(asker: Who, page: Page = 1, limit: Limit = MAX_LIMIT) -> Listing[Expectation]:
    """By name."""
    keys = ("name", "state", "last", "due", "every", "grace", "text", "notify", "desc")
    return await asker.listing("EXPECTS", lambda row: Expectation(*(row[key] for key in keys)), page, limit)


@post("/beats/{name:str}", summary="Show life", status_code=200)
async def beat(asker: Who, name: FromPath[str], data: JSONBody[BeatBody | None] = None) -> Success[Beat]:
    """With nothing said, that it is well."""
    body = data or BeatBody()
    words = [ref_of(name, "expectation"), ref_of(body.status, "status"), *([body.text] if body.text else [])]
    status = (await asker.order(line("BEAT", *words))).status
    return Success(Beat(status["name"], status["due"]))
