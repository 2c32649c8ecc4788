"""Any line of the protocol, said by HTTP: what has no path of its own is reached all the same."""

from __future__ import annotations

from typing import Any

from litestar import post
from litestar.params import JSONBody
from msgspec import Struct

from ..base.errors import Refusal
from .envelope import Refused, status_of
from .rest import Success, Who
from .talks import KEY_HEADER, any_line, is_key_taken


class LineBody(Struct, forbid_unknown_fields=True):
    """A line, as netcat would send it."""

    line: str


class LineAnswer(Struct):
    """What it was answered: rows, whose keys are the columns' names, and what stands behind OK."""

    rows: list[dict[str, Any]]
    status: dict[str, Any]


@post("/lines", summary="Any line of the protocol", status_code=200)
async def say_line(asker: Who, data: JSONBody[LineBody]) -> Success[LineAnswer]:
    """As whoever asks, with the rights of his account: `{"line": "FLOW load RUN"}`."""
    said = any_line(data.line, asker.key)
    try:
        answer = await asker.daemon.pass_on(said, asker.caller)
    except Refusal as refusal:  # what it is about are words of the line, which are no fields of the body
        field = KEY_HEADER if is_key_taken(refusal) else None
        raise Refused(status_of(refusal.code), refusal.code, refusal.message, field) from None
    return Success(LineAnswer(answer.rows, answer.told))
