"""What every answer of the API looks like: `{"success": true, "data": …}`, or the error that it is."""

from __future__ import annotations

from typing import Any

from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException, ValidationException

from ..base.errors import Refusal
from .line import Unreachable

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
    413: "too-long", 415: "media-type", 422: "unprocessable", 429: "too-many", 503: "unwell",
}  # fmt: skip


class Refused(Exception):  # as Refusal
    """An answer that is not a success, and no word of the daemon's."""

    def __init__(self, status: int, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.field = status, code, message, field


def status_of(code: str) -> int:
    """Which status of HTTP a code of the line protocol is."""
    return STATUS.get(code, 400)


def success(data: Any, meta: dict[str, Any] | None = None) -> dict[str, Any]:
    """The body of a success."""
    return {"success": True, "data": data} | ({"meta": meta} if meta else {})


def failure(status: int, code: str, message: str, field: str | None = None) -> Response[dict[str, Any]]:
    """The body of everything else, with the headers that belong to it."""
    error = {"code": code, "message": message} | ({"field": field} if field else {})
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status in (429, 503) else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = {"success": False, "error": error}
    return Response(body, status_code=status, headers=headers, media_type=MediaType.JSON)


def on_refusal(_: Request[Any, Any, Any], error: Refusal) -> Response[dict[str, Any]]:
    return failure(status_of(error.code), error.code, error.message)


def on_refused(_: Request[Any, Any, Any], error: Refused) -> Response[dict[str, Any]]:
    return failure(error.status, error.code, error.message, error.field)


def on_unreachable(_: Request[Any, Any, Any], error: Unreachable) -> Response[dict[str, Any]]:
    return failure(503, "unwell", f"the daemon cannot be reached: {error}")


def on_http(_: Request[Any, Any, Any], error: HTTPException) -> Response[dict[str, Any]]:
    """What the framework refuses: no such path, no such method, no JSON, a field that is none."""
    status, field = error.status_code, None
    message = error.detail
    if isinstance(error, ValidationException) and isinstance(error.extra, list) and error.extra:
        first = error.extra[0]
        message, field = str(first.get("message", message)), first.get("key")
    return failure(status, CODES.get(status, "syntax"), message, field)
