"""Paths and shapes that older clients know: the same jobs and runs, without an envelope around them.

`/api/…` is as one of them had it, `/jobs` and `/agents` as another. Some of these are pages for a browser,
which asks for HTML; for anybody else they are what they were. Nothing is done here that `/api/v1` cannot.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from litestar import Response, Router, delete, get, post, route
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.params import FromPath, JSONBody, QueryParameter

from ..base.errors import Refusal
from ..host.clock import wall_now
from . import identity as i
from . import sign_in as s
from .auth import FORGOTTEN, Forgot, Reset
from .envelope import Refused, on_error
from .fields import JobBody, to_body
from .identity import AnyRequest
from .job import Job
from .jobs import Number, Preview, PreviewBody, look_ahead, seen_revs
from .monitoring import Health, read_health, read_workers
from .outcomes import Execution, Worker, plain, to_occurrences
from .rest import Page, Who, asker_of
from .talks import change_job, find, line, list_rows, make_job, read_job, read_jobs, ref_of

MAX_ROWS = 1000
CHUNK = 100
PREFIX = "/older"
# What is meant for these, and not for a page of the same path.
_RENAMED = re.compile(
    "GET /jobs|POST /(?:jobs|login|users)|(?:PATCH|PUT|DELETE) /jobs/[^/]+|[A-Z]+ /agents(?:/heartbeat)?"
)
_OURS = b"x-live"  # a page of ours that looks for what is new of itself
_STATUS = {
    **dict.fromkeys(("paused", "inactive", "disabled", "stopped"), "paused"),
    **dict.fromkeys(("active", "enabled", "scheduled", "running", "pending"), "active"),
    **{word: word for word in ("idle", "completed", "unreadable")},  # as they are told
}
_ALSO = {
    "cron": "cronExpression", "agentId": "onWorker", "agent": "onWorker", "retries": "maxRetries",
    "_id": "id",
}  # fmt: skip


def rename(scope: Any) -> None:
    """A request of an older client goes where its handler is; one of a browser stays a page's."""
    if scope["type"] != "http" or not _RENAMED.fullmatch(f"{scope['method']} {scope['path']}"):
        return
    headers = dict(scope["headers"])
    if b"text/html" not in headers.get(b"accept", b"") and _OURS not in headers:
        scope["path"] = PREFIX + scope["path"]
        scope["raw_path"] = scope["path"].encode()


def methods_of(path: str) -> list[str]:
    """Which a path of a page has besides the page's own."""
    return [
        name for name in ("GET", "POST", "PUT", "PATCH", "DELETE")
        if not path.startswith("/agents") and _RENAMED.fullmatch(f"{name} {path}")
    ]  # fmt: skip


# --- shapes -----------------------------------------------------------------------------------------


def as_job(job: Job) -> dict[str, Any]:
    found = plain(job) | {"_id": job.id, "agentId": None if job.on_worker == "any" else job.on_worker}
    return found | ({job.type: job.payload} if job.type in ("script", "http") else {})


def as_run(run: Execution) -> dict[str, Any]:
    return plain(run) | {"_id": run.id, "status": run.state, "finishedAt": run.ended_at}


def as_agent(worker: Worker) -> dict[str, Any]:
    status = "offline" if worker.state == "away" else "online"
    seen = dict.fromkeys(("lastHeartbeat", "lastSeen"), worker.last_seen_at)
    return plain(worker) | {"id": worker.name, "hostname": worker.name, "status": status} | seen


def from_body(said: dict[str, Any]) -> JobBody:
    """Their names for what a job is; raises Refused naming the field."""
    found = {_ALSO.get(key, key): value for key, value in said.items()}
    for kind in ("script", "http"):
        if kind in found:
            found["payload"] = found.pop(kind)
            found.setdefault("type", kind)
    if (status := found.pop("status", None)) is not None:
        word = str(status).lower()
        if word not in _STATUS:
            raise Refused(400, "bad-option", f'"{word[:40]}" is none of {", ".join(_STATUS)}', "status")
        found["status"] = _STATUS[word]
    return to_body(found)


def _bare(request: AnyRequest, error: Exception) -> Response[dict[str, Any]]:
    """What is refused, without an envelope."""
    found = on_error(request, error)
    told = found.content["error"]
    found.content = told | {"error": told["message"]}
    return found


# --- handlers ---------------------------------------------------------------------------------------


@get("/jobs")
async def list_jobs(
    asker: Who,
    status: Annotated[str | None, QueryParameter()] = None,
    tag: Annotated[str | None, QueryParameter()] = None,
    page: Page = 1,
    limit: Annotated[int, QueryParameter(ge=1)] = MAX_ROWS,
) -> Response[list[dict[str, Any]]]:
    """All of them, so far as a page can hold them; a header tells how many there are."""
    rows, told = await asker.hold(list_rows(page, min(limit, MAX_ROWS), {"status": status, "tag": tag}))
    found = []
    for at in range(0, len(rows), CHUNK):
        found += await asker.hold(read_jobs(rows[at : at + CHUNK]))
    return Response([as_job(job) for job in found], headers={"X-Total-Count": str(told["total"])})


@post("/jobs")
async def create_job(asker: Who, data: JSONBody[dict[str, Any]]) -> dict[str, Any]:
    return as_job(await asker.hold(make_job(from_body(data), asker.key)))


@get("/jobs/{job_id:str}")
async def get_job(asker: Who, job_id: FromPath[str]) -> dict[str, Any]:
    return as_job(await asker.hold(read_job(ref_of(job_id))))


@route("/jobs/{job_id:str}", http_method=["PATCH", "PUT"])
async def put_job(asker: Who, job_id: FromPath[str], data: JSONBody[dict[str, Any]]) -> dict[str, Any]:
    """`status` pauses and resumes."""
    return as_job(await asker.hold(change_job(ref_of(job_id), from_body(data), seen_revs(asker.request))))


@delete("/jobs/{job_id:str}", status_code=200)
async def delete_job(asker: Who, job_id: FromPath[str]) -> dict[str, Any]:
    status = (await asker.ask(line("REMOVE", ref_of(job_id)))).status
    return {"id": status["id"], "message": "removed"}


@get("/runs")
async def list_runs(
    asker: Who,
    job_id: Annotated[str | None, QueryParameter(name="jobId")] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=MAX_ROWS)] = 100,
) -> list[dict[str, Any]]:
    """Newest first."""
    rows, _ = await asker.hold(find(ref_of(job_id) if job_id else None, limit=limit))
    return [as_run(row) for row in rows]


@post("/inspector/preview", status_code=200)
async def preview(asker: Who, data: JSONBody[PreviewBody]) -> Preview:
    return await look_ahead(asker, data)


@get("/inspector/job/{job_id:str}")
async def inspect_job(asker: Who, job_id: FromPath[str], count: Number = 10) -> dict[str, Any]:
    rows = (await asker.ask(line("NEXT", ref_of(job_id), n=count))).rows
    return {"jobId": job_id, "occurrences": to_occurrences(rows)}


@get("/health")
async def health(state: State) -> Response[Health]:
    found = await read_health(state.daemon)
    return Response(found, status_code=200 if found.status == "healthy" else 503)


@get("/agents")
async def list_agents(asker: Who) -> list[dict[str, Any]]:
    return [as_agent(worker) for worker in await read_workers(asker)]


@post("/agents")
async def register_agent(asker: Who, data: JSONBody[dict[str, Any]]) -> dict[str, Any]:
    """A token by which a worker of that name comes in, shown this once."""
    name = _agent_name(data)
    found = await asker.ask(line("TOKEN ADD", name=f"worker-{name}", role="worker", worker=name))
    return {"id": name, "name": name, "token": found.pairs["token"], "status": "offline"}


@post("/agents/heartbeat", status_code=200)
async def heartbeat(asker: Who, data: JSONBody[dict[str, Any]]) -> dict[str, Any]:
    """Of what is expected, a beat; a worker that is connected shows life by itself."""
    name = _agent_name(data)
    try:
        await asker.ask(line("BEAT", name))
    except Refusal as refusal:
        if refusal.code != "not-found":
            raise
        here = {worker.name for worker in await read_workers(asker) if worker.state != "away"}
        if name not in here:
            why = f'no worker "{name}" is connected, and no beat of that name is expected'
            raise Refused(404, "not-found", why, "name") from None
    return {"id": name, "status": "ok"}


def _agent_name(said: dict[str, Any]) -> str:
    for field in ("name", "agentId", "id", "hostname"):
        if isinstance(name := said.get(field), str):
            return ref_of(name, "agent")
    raise Refused(400, "bad-option", "which agent?", "name")


# --- signing in -------------------------------------------------------------------------------------

# They know of no refresh token, so theirs is good as long as the session is; signing out, another password or
# a disabled account end it like any other.


def _told(request: AnyRequest, entered: s.Entered) -> dict[str, Any]:
    identity = i.identity_of(request)
    token = identity.sign(entered.who, i.COOKIE_S, wall_now())
    return {"token": token, "user": plain(entered.user), "message": "signed in"}


@post(["/auth/login", "/login"], status_code=200)
async def login(request: AnyRequest, data: JSONBody[s.Credentials]) -> dict[str, Any]:
    return _told(request, await s.enter(request, data.who, data.password))


@post(["/auth/register", "/users"], status_code=201)
async def register(request: AnyRequest, data: JSONBody[s.Registration]) -> dict[str, Any]:
    told = _told(request, await s.register(request, data))
    return {**told["user"], **told}


@post("/auth/forgot", status_code=202)
async def forgot(request: AnyRequest, data: JSONBody[Forgot]) -> dict[str, Any]:
    s.forget(request, data.email)
    return {"message": FORGOTTEN}


@post("/auth/reset", status_code=200)
async def reset(request: AnyRequest, data: JSONBody[Reset]) -> dict[str, Any]:
    await s.set_anew(request, data.token, data.password)
    return {"message": "the password is another now; sign in"}


# --- where it stands ---------------------------------------------------------------------------------


def _routes(path: str, handlers: list[Any]) -> Router:
    return Router(
        path,
        route_handlers=handlers,
        dependencies={"asker": Provide(asker_of)},
        exception_handlers={HTTPException: _bare, Exception: _bare},
        include_in_schema=False,
    )


_BOTH = [login, register, forgot, reset, list_jobs, create_job, get_job, put_job, delete_job]
OLDER = [
    _routes("/api", [*_BOTH, list_runs, preview, inspect_job, health]),
    _routes(PREFIX, [*_BOTH, list_agents, register_agent, heartbeat]),
]
