"""What every answer of the API looks like: `{"success": true, "data": …}`, or the error that it is."""

from __future__ import annotations

import logging
import math
from typing import Any

from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException, ValidationException

from ..base.errors import Refusal
from .bodies import explain
from .line import Unreachable
from .talks import field_of

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

# What the framework says, which knows of no place to look.
_TOLD = {
    "Not Found": "there is no such path; /docs tells which there are",
    "Method Not Allowed": "that is done by another method; /docs tells by which",
}


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


def as_refused(request: Request[Any, Any, Any], error: Exception) -> Refused:
    """Whatever went wrong with a request, as what is said of it; the log tells of a fault of ours."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, Refusal):
        field = field_of(error)
        # What was asked for by its address is there; what the body speaks of is not.
        status = 422 if field and error.code == "not-found" else status_of(error.code)
        return Refused(status, error.code, error.message, field)
    if isinstance(error, Unreachable):
        return Refused(503, "unwell", f"the daemon cannot be reached: {error}")
    if isinstance(error, ValidationException) and isinstance(error.extra, list) and error.extra:
        return Refused(error.status_code, *_invalid(request, error.extra[0]))
    if isinstance(error, HTTPException):  # of the framework: no such path, no such method, no JSON
        status = error.status_code
        return Refused(status, CODES.get(status, "syntax"), _TOLD.get(error.detail, error.detail))
    if isinstance(error, RecursionError):  # both are of the framework's parser, which does not catch its own
        return Refused(400, "syntax", "the JSON is nested too deeply")
    if isinstance(error, UnicodeDecodeError):
        return Refused(400, "syntax", "a body is UTF-8")
    log.error("%s %s", request.method, request.url.path, exc_info=error)
    return Refused(500, "internal", "a fault of this server's; its log tells more")


def on_error(request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    """The body of everything that is no success, with the headers that belong to it."""
    refused = as_refused(request, error)
    status, field = refused.status, refused.field
    told = {"code": refused.code, "message": refused.message} | ({"field": field} if field else {})
    headers = {"Retry-After": str(math.ceil(refused.retry_after_s))} if status in (429, 503) else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    headers |= getattr(error, "headers", None) or {}  # of 405, which methods there are
    body = {"success": False, "error": told}
    return Response(body, status_code=status, headers=headers, media_type=MediaType.JSON)


def _invalid(request: Request[Any, Any, Any], found: dict[str, Any]) -> tuple[str, str, str | None]:
    """What the framework says of a parameter, or of a field; of the body as a whole it says `data`."""
    message, field = str(found.get("message", "")), str(found.get("key"))
    if message == "'data'":
        return "syntax", "a body of JSON is wanted", None
    taken = request.route_handler.parsed_fn_signature.parameters
    name = "data" if found.get("source") == "body" else field
    kind = taken[name].annotation if name in taken else Any
    told, at = explain(kind, message, field if name == "data" != field else None)
    return "bad-option", told, at if name == "data" else field
