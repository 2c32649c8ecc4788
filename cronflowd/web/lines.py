"""Any line of the protocol, said by HTTP: what has no path of its own is reached all the same."""

from __future__ import annotations

import re
from typing import Any

from litestar import post
from litestar.params import JSONBody
from msgspec import Struct

from ..base.errors import Refusal
from .envelope import Refused, status_of
from .line import check_travels
from .rest import Success, Who
from .talks import KEY_HEADER, is_key_taken, once

_VERB = re.compile("[A-Za-z]+(?![^ \t])")
# What makes no sense for one line, and what there is instead.
_INSTEAD = {
    "FORMAT": "every answer is JSON here",
    "ONCE": "the header Idempotency-Key does that",
    "WATCH": "/api/v1/events tells what happens",
    "LOG follow": "/api/v1/executions/RUN/log?follow=1 tells what it writes",
}
_FOLLOWS = re.compile(r"LOG[ \t]+\S+[ \t](?:.*[ \t])?follow(?![^ \t])", re.IGNORECASE)


class LineBody(Struct, forbid_unknown_fields=True):
    """A line, as netcat would send it."""

    line: str


class LineAnswer(Struct):
    """What it was answered: rows, whose keys are the columns' names, and what stands behind OK."""

    rows: list[dict[str, Any]]
    status: dict[str, Any]


def check_line(line: str) -> str:
    """Itself; raises Refusal for what is no order, or none that is whole by itself."""
    check_travels(line, "line")
    if not (verb := _VERB.match(line)):
        raise Refusal("syntax", "a line begins with a verb, as STATUS; HELP lists them", "line")
    word = "LOG follow" if _FOLLOWS.match(line) else verb[0].upper()
    if instead := _INSTEAD.get(word):
        raise Refusal("syntax", f"{word} is for a connection that stays open; {instead}", "line")
    return line


@post("/lines", summary="Any line of the protocol", status_code=200)
async def say_line(asker: Who, data: JSONBody[LineBody]) -> Success[LineAnswer]:
    """As whoever asks, with the rights of his account: `{"line": "FLOW load RUN"}`."""
    said = once(asker.key, check_line(data.line))
    try:
        answer = await asker.daemon.pass_on(said, asker.caller)
    except Refusal as refusal:  # what it is about are words of the line, which are no fields of the body
        field = KEY_HEADER if is_key_taken(refusal) else None
        raise Refused(status_of(refusal.code), refusal.code, refusal.message, field) from None
    return Success(
        LineAnswer(answer.rows, {key: value for key, value in answer.status.items() if key != "ok"})
    )
