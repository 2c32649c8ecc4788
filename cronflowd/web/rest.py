"""What the handlers of the API share: who asks, the forms of answers, and words that cannot become others."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import cache
from types import ModuleType
from typing import Annotated, Any, Generic, TypeVar

from attrs import define
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.params import QueryParameter
from msgspec import UNSET, Struct, UnsetType

from .envelope import Refused
from .identity import AnyRequest, caller_of, daemon_of
from .line import Answer, Caller, Connection, Daemon, Row
from .talks import KEY_HEADER, MAX_LIMIT, MAX_PAGE, Talk, once

T = TypeVar("T")
ADDED = "lastEventId"  # by some libraries for server-sent events, to whatever they are told to read


@define
class Asker:
    """Whoever sent a request, and the daemon, to which its lines are said for him."""

    request: AnyRequest
    daemon: Daemon
    caller: Caller

    @property
    def key(self) -> str | None:
        """By which what is asked for is done once: as HTTP writes texts, or without the quotes."""
        key = self.request.headers.get(KEY_HEADER)
        return key[1:-1] if key and re.fullmatch('"[^"]*"', key) else key

    async def ask(self, said: str) -> Answer:
        """One line's answer; raises Refusal, and Unreachable."""
        return await self.daemon.ask(said, self.caller)

    async def ask_all(self, *lines: str) -> list[Answer]:
        """Every line's answer, be it a refusal."""
        return await self.daemon.ask_all(lines, self.caller) if lines else []

    def follow(self, said: str) -> AbstractAsyncContextManager[Connection]:
        """A connection whose rows are the caller's to read."""
        return self.daemon.follow(said, self.caller)

    async def order(self, said: str) -> Answer:
        """A change, which with an Idempotency-Key is done once, however often it is sent."""
        return await self.ask(once(self.key, said))

    async def listing(self, said: str, make: Callable[[Row], T], page: int, limit: int) -> Listing[T]:
        """A page of what is made of an answer's rows, all of which the daemon tells."""
        rows = (await self.ask(said)).rows
        found = [make(row) for row in rows[(page - 1) * limit :][:limit]]
        return Listing(found, Pages(page, limit, len(rows)))

    async def hold(self, talk: Talk[T]) -> T:
        """What comes of a talk with the daemon."""
        try:
            lines = next(talk)
            while True:
                lines = talk.send(await self.ask_all(*lines))
        except StopIteration as end:
            found: T = end.value
            return found


Who = NamedDependency[Asker]


async def asker_of(request: AnyRequest) -> Asker:
    """Raises Refused where nobody is shown."""
    return Asker(request, daemon_of(request), await caller_of(request))


class Pages(Struct):
    """Where in a list this is; `more` says that `total` is a number that is surely exceeded."""

    page: int
    limit: int
    total: int
    more: bool | UnsetType = UNSET


class Success(Struct, Generic[T]):
    """What was asked for."""

    data: T
    success: bool = True


class Listing(Struct, Generic[T]):
    """Some of what was asked for, and how much there is."""

    data: list[T]
    meta: Pages
    success: bool = True


class ErrorBody(Struct):
    """Why it was refused: a word for programs, a sentence for people, and which field it is about."""

    code: str
    message: str
    field: str | UnsetType = UNSET


class Failure(Struct):
    """What comes instead of a success."""

    error: ErrorBody
    success: bool = False


# By status, what any answer of the API may be that is no success.
ERRORS = {
    400: "The request is not understood, or asks for what cannot be",
    401: "Sign in first",
    403: "Not yours to see or do",
    404: "There is no such thing",
    409: "It is taken, was changed meanwhile, or something is in the way",
    413: "Too long",
    415: "Only JSON is read",
    422: "What the body speaks of is not there",
    429: "Too many; Retry-After says when to come again",
    500: "A fault of ours",
    503: "The daemon cannot be reached, or its disk is full",
}
Page = Annotated[int, QueryParameter(ge=1, le=MAX_PAGE, description="From 1 on")]
Limit = Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT, description="How many on a page")]


async def known_query(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """A parameter that is misspelt or said twice is refused: a list would be of everything, or of one alone.

    It waits for nothing; but what is not `async` is asked in a thread, which costs as much as all the rest.
    """
    if not connection.scope["query_string"]:
        return
    known = _query_of(handler)
    for name in (query := connection.query_params):
        if name not in known and name != ADDED:
            there_are = f"; there are {', '.join(sorted(known))}" if known else ""
            raise Refused(400, "bad-option", f'there is no parameter "{name[:80]}"{there_are}', name[:80])
        if len(query.getall(name)) > 1:
            raise Refused(400, "bad-option", f'the parameter "{name}" is given twice', name)


@cache
def _query_of(handler: BaseRouteHandler) -> frozenset[str]:
    model = handler.create_kwargs_model(path_parameters={})
    return frozenset(each.field_alias for each in model.expected_query_params)


def handlers_in(*modules: ModuleType) -> list[HTTPRouteHandler]:
    """All that stand in these modules, in the order in which they do."""
    return [
        each for module in modules for each in vars(module).values() if isinstance(each, HTTPRouteHandler)
    ]


def pages(status: Mapping[str, Any], page: int, limit: int) -> Pages:
    """Of a status line that was asked for with count=yes."""
    return Pages(page, limit, status["total"], True if status.get("more") else UNSET)
