"""When a schedule comes, before anybody makes a job of it."""

from __future__ import annotations

from typing import Annotated

from litestar import get, post
from litestar.params import FromPath, JSONBody
from msgspec import Meta, Struct

from ..base.errors import Refusal
from .fields import Words, about
from .jobs import Number
from .outcomes import Occurrence, to_occurrences
from .rest import Asker, Success, Who, ref_of
from .talks import in_quotes, line


class PreviewBody(Struct, forbid_unknown_fields=True):
    """A schedule: cron fields, `@every 90s`, or a phrase."""

    cron: str
    timezone: str | None = None
    count: Annotated[int, Meta(ge=1, le=1000)] = 10


class Preview(Struct, rename="camel"):
    """What it means, and its next moments."""

    cron: str
    timezone: str
    means: str
    clock_changes: str | None
    occurrences: list[Occurrence]


async def look_ahead(asker: Asker, body: PreviewBody) -> Preview:
    """Raises Refused naming the field."""
    words = Words()
    words.fields = {"schedule": "cron", "tz": "timezone", "command": "cron"}
    quoted, zone = in_quotes(body.cron), body.timezone or None
    try:
        asked = [line("NEXT", quoted, n=body.count, tz=zone), line("DESCRIBE", quoted, tz=zone)]
        moments, meaning = await asker.ask_all(*asked)
        told = meaning.check().pairs
        found = to_occurrences(moments.check().rows)
    except Refusal as refusal:
        raise about(refusal, words) from None
    return Preview(body.cron, told["zone"], told["means"], told.get("clock-changes"), found)


@post("/inspector/preview", summary="When a schedule would come", status_code=200)
async def preview(asker: Who, data: JSONBody[PreviewBody]) -> Success[Preview]:
    """In its zone and in UTC; `remark` tells what a clock change does to a moment."""
    return Success(await look_ahead(asker, data))


@get("/inspector/job/{job_id:str}", summary="When a job comes")
async def inspect_job(asker: Who, job_id: FromPath[str], count: Number = 10) -> Success[list[Occurrence]]:
    """The same of a job that is there."""
    asked = line("NEXT", ref_of(job_id), n=count)
    return Success(to_occurrences((await asker.ask(asked)).rows))
