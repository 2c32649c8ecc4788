"""What every answer of the API looks like: `{"success": true, "data": …}`, or the error that it is."""

from __future__ import annotations

import logging
import math
import re
from typing import Any

from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException, ValidationException

from ..base.errors import Refusal
from .line import Unreachable

log = logging.getLogger("cronflowd.web")

# The daemon's codes as HTTP says them; whatever begins with `bad-` is 400.
STATUS = {
    "syntax": 400, "cycle": 400, "bad-line": 400, "unknown-command": 400,
    "auth-required": 401, "denied": 403, "not-found": 404,
    "exists": 409, "busy": 409, "too-long": 413, "limit": 429, "too-many": 429,
    "unwell": 503, "disk-full": 503, "read-only": 503, "not-leader": 503, "internal": 500,
}  # fmt: skip
RETRY_AFTER_S = 5
CODES = {
    401: "auth-required", 403: "denied", 404: "not-found", 405: "method", 409: "exists", 412: "conflict",
    413: "too-long", 415: "media-type", 421: "denied", 422: "unprocessable", 429: "too-many", 503: "unwell",
}  # fmt: skip


class Refused(Exception):  # as Refusal
    """An answer that is not a success, and no word of the daemon's."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        field: str | None = None,
        retry_after_s: float = RETRY_AFTER_S,  # of 429 and 503
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.field = status, code, message, field
        self.retry_after_s = retry_after_s


def status_of(code: str) -> int:
    """Which status of HTTP a code of the line protocol is."""
    return STATUS.get(code, 400)


def failure(
    status: int, code: str, message: str, field: str | None = None, retry_after_s: float = RETRY_AFTER_S
) -> Response[dict[str, Any]]:
    """The body of everything else, with the headers that belong to it."""
    error = {"code": code, "message": message} | ({"field": field} if field else {})
    headers = {"Retry-After": str(math.ceil(retry_after_s))} if status in (429, 503) else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = {"success": False, "error": error}
    return Response(body, status_code=status, headers=headers, media_type=MediaType.JSON)


def on_refusal(_: Request[Any, Any, Any], error: Refusal) -> Response[dict[str, Any]]:
    field = getattr(error, "field", None)
    # What was asked for by its address is there; what the body speaks of is not.
    status = 422 if field and error.code == "not-found" else status_of(error.code)
    return failure(status, error.code, error.message, field)


def on_refused(_: Request[Any, Any, Any], error: Refused) -> Response[dict[str, Any]]:
    return failure(error.status, error.code, error.message, error.field, error.retry_after_s)


def on_unreachable(_: Request[Any, Any, Any], error: Unreachable) -> Response[dict[str, Any]]:
    return failure(503, "unwell", f"the daemon cannot be reached: {error}")


def on_fault(request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    """A fault of ours: the log tells what, whoever asked only that."""
    if isinstance(error, RecursionError):  # both are of the framework's parser, which does not catch its own
        return failure(400, "syntax", "the JSON is nested too deeply")
    if isinstance(error, UnicodeDecodeError):
        return failure(400, "syntax", "a body is UTF-8")
    log.error("%s %s", request.method, request.url.path, exc_info=error)
    return failure(500, "internal", "a fault of this server's; its log tells more")


def on_http(_: Request[Any, Any, Any], error: HTTPException) -> Response[dict[str, Any]]:
    """What the framework refuses: no such path, no such method, no JSON, a field that is none."""
    status, field = error.status_code, None
    message = error.detail
    code = CODES.get(status, "syntax")
    if isinstance(error, ValidationException) and isinstance(error.extra, list) and error.extra:
        code, message, field = _invalid(error.extra[0])
    answer = failure(status, code, message, field)
    answer.headers |= error.headers or {}  # of 405, which methods there are
    return answer


def _invalid(found: dict[str, Any]) -> tuple[str, str, str | None]:
    """What the framework says of a field; of the body as a whole it says `data`."""
    message, field = str(found.get("message", "")), found.get("key")
    field = None if field == "data" else field
    if message == "'data'":
        return "syntax", "a body of JSON is wanted", None
    if match := re.search("unknown field `(.*)`", message):
        field = f"{field}.{match[1]}" if field else match[1]
        message = f'there is no field "{field}"'
    elif match := re.search("missing required field `(.*)`", message):
        field = f"{field}.{match[1]}" if field else match[1]
    return "bad-option", message, field
