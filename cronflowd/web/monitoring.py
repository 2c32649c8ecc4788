"""Who runs the jobs and who has to show life; and how the whole is: for a load balancer, a page, a graph."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any, Literal

from litestar import Response, get, post
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, JSONBody
from msgspec import Struct

from .envelope import Refused
from .line import GATEWAY, Daemon, Row, Unreachable, check_travels
from .outcomes import MOMENTS, Execution, Upcoming, Worker, counts, of_row, to_upcoming, to_worker
from .rest import Asker, Limit, Listing, Page, Success, Who
from .talks import MAX_LIMIT, find, line, ref_of

RECENT = 10
DAYS = 14


class Health(Struct, rename="camel"):
    """Whether all is well, and what is not."""

    status: Literal["healthy", "unwell", "unreachable"]
    daemon: Literal["up", "down"]
    journal: Literal["ok", "unknown"]
    disk: str
    workers: int
    uptime: int  # of the daemon, in seconds
    version: str | None
    reasons: list[str]


async def read_health(daemon: Daemon) -> Health:
    """Asked by the gateway itself: anybody may know whether it is well, and nothing else."""
    try:
        status, health = await daemon.ask_all(["STATUS", "HEALTH"], GATEWAY)
    except Unreachable:
        return Health("unreachable", "down", "unknown", "unknown", 0, 0, None, ["the daemon does not answer"])
    pairs, is_well = status.check().pairs, health.status["ok"]
    reasons = [] if is_well else [each.strip() for each in health.status["message"].split(";")]
    # Names of jobs and workers are for those who may see them.
    words = [reason.partition(":")[0] for reason in reasons]
    uptime = datetime.fromisoformat(pairs["now"]) - datetime.fromisoformat(pairs["started"])
    return Health(
        "healthy" if is_well and pairs["disk"] == "ok" else "unwell", "up", "ok", pairs["disk"],
        pairs["workers"], int(uptime.total_seconds()), pairs["version"], words,
    )  # fmt: skip


_HEALTH = {
    503: ResponseSpec(Success[Health], description="Unwell; `reasons` says why", generate_examples=False)
}


@get("/monitoring/health", summary="Whether all is well", responses=_HEALTH)
async def health(state: State) -> Response[Success[Health]]:
    """For everybody. 503 where something is wrong."""
    found = await read_health(state.daemon)
    return Response(Success(found), status_code=200 if found.status == "healthy" else 503)


class Day(Struct, rename="camel"):
    """What became of a day's moments, UTC."""

    day: str
    fires: int
    ok: int
    failed: int
    success_rate: float | None


class Failing(Struct, rename="camel"):
    """A job whose last run did not end well."""

    job_id: int
    job_name: str
    run: int | None
    state: str
    ended_at: str
    exit_code: int | None
    why: str | None
    since: str


class Dashboard(Struct, rename="camel"):
    """What a person looks for first."""

    total_jobs: int
    jobs_by_status: dict[str, int]
    last24h: dict[str, int]
    success_rate: float | None
    upcoming: list[Upcoming]
    failed_jobs: list[Failing]
    recent: list[Execution]
    daily: list[Day]


@get("/monitoring/dashboard", summary="Figures for a page")
async def dashboard(asker: Who) -> Success[Dashboard]:
    """Jobs by state, the last 24 hours, what comes, what fails, and each of the last 14 days."""
    asked = ["SUMMARY", line("NEXT", "all", n=MOMENTS), "FAILED", "STATUS"]
    summary, moments, failed, status = await asker.ask_all(*asked)
    recent, _ = await asker.hold(find(limit=RECENT))
    today = datetime.fromisoformat(status.check().pairs["now"]).date()
    days = [today - timedelta(days=ago) for ago in range(DAYS - 1, -2, -1)]
    # Counts that are kept for ever; STATS would read the runs themselves.
    proofs = [
        line("PROVE", since=f"{day}T00:00:00Z", until=f"{end}T00:00:00Z") for day, end in pairwise(days)
    ]
    proved = [answer.pairs for answer in await asker.ask_all(*proofs)]
    pairs = summary.check().pairs
    return Success(
        Dashboard(
            pairs["tasks"], counts(pairs, "tasks-"), counts(pairs, "fires-"),
            None if (rate := pairs["success"]) is None else float(rate),
            to_upcoming(moments.check().rows),
            [_failing(row) for row in failed.check().rows],
            recent,
            [found for day, each in zip(days, proved, strict=False) if (found := _day(day, each)).fires],
        )
    )  # fmt: skip


def _failing(row: Row) -> Failing:
    named = {"job_id": "id", "job_name": "jobName", "ended_at": "ended", "exit_code": "exit"}
    return of_row(Failing, row, **named)


def _day(day: date, counts: Row) -> Day:
    bad = sum(int(counts[key]) for key in ("failed", "timeout", "lost"))
    ok, fires = int(counts["ok"]), int(counts["due"]) - int(counts["pending"])
    return Day(day.isoformat(), fires, ok, bad, round(ok / (ok + bad), 4) if ok + bad else None)


@get("/monitoring/metrics", summary="Figures of the whole system")
async def metrics_json(asker: Who) -> Success[dict[str, Any]]:
    """For admins: what STATUS tells, and the same figures as `/metrics`, by name and labels."""
    who, metrics, status = await asker.ask_all("WHOAMI", "METRICS", "STATUS")
    role = who.check().status["role"]
    if role != "admin":
        raise Refused(403, "denied", f"this takes the role admin; you are {role}")
    return Success({"status": status.check().pairs, "metrics": _as_json(metrics.check().rows)})


def _as_json(rows: list[Row]) -> dict[str, Any]:
    """Lines of Prometheus' text format."""
    told = [row["line"].rpartition(" ") for row in rows if row["line"] and not row["line"].startswith("#")]
    return {name: float(value) for name, _, value in told}


# --- workers, and others who show life --------------------------------------------------------------


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
    make = partial(of_row, Expectation, last_at="last", due_at="due", description="desc")
    return await asker.listing("EXPECTS", make, page, limit)


@post("/beats/{name:str}", summary="Show life", status_code=200)
async def beat(asker: Who, name: FromPath[str], data: JSONBody[BeatBody | None] = None) -> Success[Beat]:
    """With nothing said, that it is well."""
    body = data or BeatBody()
    check_travels(body.text or "", "text")
    words = [ref_of(name, "expectation"), ref_of(body.status, "status"), *([body.text] if body.text else [])]
    status = (await asker.order(line("BEAT", *words))).status
    return Success(Beat(status["name"], status["due"]))
