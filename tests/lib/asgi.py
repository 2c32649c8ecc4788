"""A browser for tests: sends requests to an ASGI application under trio, without sockets.

And daemons for it: one that answers from a script, and a whole one in memory, spoken with over the
gateway's own connections.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import orjson
import trio
from attrs import define, field, frozen

from cronflowd.base.errors import Refusal
from cronflowd.host.config import WebSettings
from cronflowd.net.listeners import Connection
from cronflowd.web.line import GATEWAY, Answer, Caller, Daemon, Row
from tests.lib.harness import World, a_world
from tests.lib.waiting import PATIENCE_S


@frozen
class Response:
    """What came back, whole."""

    status: int
    headers: dict[str, str]  # names in lower case; of several of one name the last
    body: bytes
    cookies: tuple[str, ...] = ()  # each Set-Cookie, as it was sent

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def data(self) -> Any:
        """Of a success."""
        assert self.json["success"] is True, self.text
        return self.json["data"]

    @property
    def error(self) -> tuple[int, str]:
        """Status and code of a failure, whose form is checked."""
        assert set(self.json) == {"success", "error"}, self.text
        assert self.json["success"] is False
        assert {"code", "message"} <= set(self.json["error"]) <= {"code", "message", "field"}
        return self.status, self.json["error"]["code"]


@define
class Browser:
    """Keeps the cookies it is given; `headers` go with every request."""

    app: Any
    address: str = "127.0.0.1"
    host: str = "localhost:3000"
    headers: dict[str, str] = field(factory=dict)
    cookies: dict[str, str] = field(factory=dict)
    version: str = "1.1"

    async def ask(
        self,
        method: str,
        path: str,
        json: Any = None,
        form: Mapping[str, str] | None = None,
        body: bytes = b"",
        **headers: str,
    ) -> Response:
        """One request and its whole answer; `x_csrf_token=` is the header X-CSRF-Token."""
        with trio.fail_after(PATIENCE_S):
            async with self.open(method, path, json, form, body, **headers) as answer:
                return answer.whole([part async for part in answer.parts()])

    async def get(self, path: str, **headers: str) -> Response:
        return await self.ask("GET", path, **headers)

    async def post(self, path: str, json: Any = None, **headers: str) -> Response:
        return await self.ask("POST", path, json, **headers)

    @asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        json: Any = None,
        form: Mapping[str, str] | None = None,
        body: bytes = b"",
        **headers: str,
    ) -> AsyncIterator[Answering]:
        """A request whose answer is read while it comes (events); leaving the block hangs up."""
        said = {"host": self.host} | self.headers
        if json is not None:
            body, said["content-type"] = orjson.dumps(json), "application/json"
        if form is not None:
            body, said["content-type"] = urlencode(form).encode(), "application/x-www-form-urlencoded"
        if self.cookies:
            said["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        said |= {name.replace("_", "-"): value for name, value in headers.items()}
        if body:
            said.setdefault("content-length", str(len(body)))
        where, _, query = path.partition("?")
        answering = Answering(body)
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": self.version, "method": method,
            "scheme": "http", "path": where, "raw_path": where.encode(), "query_string": query.encode(),
            "root_path": "", "client": (self.address, 50_000) if self.address else None,
            "server": ("127.0.0.1", 3000),
            "headers": [(name.lower().encode(), value.encode()) for name, value in said.items()],
            "extensions": {}, "state": {},
        }  # fmt: skip
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._serve, scope, answering)
            with trio.fail_after(PATIENCE_S):
                await answering.begun.wait()
            self._keep(answering.cookies)
            yield answering
            answering.hang_up()
            with trio.move_on_after(1):
                await answering.ended.wait()
            nursery.cancel_scope.cancel()

    async def _serve(self, scope: dict[str, Any], answering: Answering) -> None:
        try:
            await self.app(scope, answering.receive, answering.send)
        finally:
            answering.ended.set()
            answering.begun.set()

    def _keep(self, cookies: Sequence[str]) -> None:
        for each in cookies:
            for name, morsel in SimpleCookie(each).items():
                if morsel["max-age"] == "0":
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value


class Answering:
    """One request, from the server's side too."""

    def __init__(self, body: bytes) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.cookies: tuple[str, ...] = ()
        self.begun, self.ended = trio.Event(), trio.Event()
        self._body: bytes | None = body
        self._gone = trio.Event()
        self._out, self._in = trio.open_memory_channel[bytes](10_000)

    async def parts(self) -> AsyncIterator[bytes]:
        async for part in self._in:
            yield part

    def whole(self, parts: list[bytes]) -> Response:
        return Response(self.status, self.headers, b"".join(parts), self.cookies)

    def hang_up(self) -> None:
        self._gone.set()

    async def receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        if message["type"] == "http.response.start":
            pairs = [(name.decode().lower(), value.decode()) for name, value in message["headers"]]
            self.status, self.headers = message["status"], dict(pairs)
            self.cookies = tuple(value for name, value in pairs if name == "set-cookie")
            self.begun.set()
        elif message["type"] == "http.response.body":
            if part := message.get("body", b""):
                self._out.send_nowait(part)
            if not message.get("more_body"):
                self._out.close()


# --- daemons ------------------------------------------------------------------------------------


@define(slots=False)
class Scripted(Daemon):
    """Answers what it was told to, by the first words of a line; keeps what was asked, and for whom."""

    script: dict[str, Any] = field(factory=dict)  # an Answer, rows, a Refusal, or what makes one of the line
    asked: list[tuple[str, ...]] = field(factory=list)  # (for whom, line)

    def __attrs_post_init__(self) -> None:
        Daemon.__init__(self, WebSettings(data=Path("/dev/null/nowhere")))

    async def ask_all(self, lines: Sequence[str], caller: Caller = GATEWAY) -> list[Answer]:
        await trio.lowlevel.checkpoint()
        return [self._answer(line, caller) for line in lines]

    def _answer(self, line: str, caller: Caller) -> Answer:
        self.asked.append((b"; ".join(caller.words).decode(), line))
        said = self.script[max((each for each in self.script if line.startswith(each)), key=len)]
        if callable(said):
            said = said(line)
        if isinstance(said, Refusal):
            return Answer([], {"ok": False, "code": said.code, "message": said.message})
        if isinstance(said, BaseException):
            raise said
        return said if isinstance(said, Answer) else Answer(list(said), {"ok": True})


class InMemory(Daemon):
    """Speaks with a whole daemon of this process, as its own user by the unix socket."""

    def __init__(self, world: World, settings: WebSettings) -> None:
        super().__init__(settings)
        self.world = world
        self.dialled = 0
        self.lines: list[str] = []  # all that was asked

    async def ask_all(self, lines: Sequence[str], caller: Caller = GATEWAY) -> list[Answer]:
        self.lines += lines
        return await super().ask_all(lines, caller)

    async def _dial(self) -> trio.abc.Stream:
        self.dialled += 1
        ours, theirs = socket.socketpair()
        self.world._connections.start_soon(self._serve, Connection(theirs))
        return trio.SocketStream(trio.socket.from_stdlib_socket(ours))

    async def _serve(self, connection: Connection) -> None:
        try:
            await self.world._serve_client(connection)
        finally:
            connection.close()

    async def say(self, line: str, caller: Caller = GATEWAY) -> list[Row]:
        """Rows, for a test that sets the scene."""
        return (await self.ask(line, caller)).rows


@asynccontextmanager
async def a_door(
    data: Path,
    make_app: Callable[[WebSettings, Daemon], Any],
    daemon: dict[str, str] | None = None,
    **told: Any,
) -> AsyncIterator[tuple[Any, InMemory]]:
    """The application in front of a whole daemon in memory."""
    settings = WebSettings(data=data, **told)
    async with a_world(data, daemon or {}) as world:
        line = InMemory(world, settings)
        app = make_app(settings, line)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(app.state.postman.run)
                yield app, line
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await line.close_idle(0)
