"""The gateway's way to the daemon: the line protocol over a few connections that are kept.

Every request of HTTP becomes one or more lines, sent together, whose answers come back in order as
JSON. A connection belongs to one request at a time; the line before the request's own says for whom
it speaks (`AS ann from=192.0.2.7`), so nothing of one request is left for the next. Where somebody
shows an API token, the connection that has shown it to the daemon is his alone.

Whoever shows a word that may be wrong is made to wait by the daemon if it is. He does so in places
of his own, of which no address has many, so that those who have signed in already never wait for him.

The daemon decides everything, also who may do what. One that cannot be reached is `Unreachable`.
"""

from __future__ import annotations

import logging
import re
import select
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import orjson
import trio
from attrs import define, field, frozen

from ..base.addresses import origin
from ..base.errors import Fatal, Refusal, reasons
from ..host import threads
from ..host.config import WebSettings
from ..host.secrets import read_tokens
from ..host.setting import Address, format_address, format_server
from ..host.tls import client_context

CONNECT_S = 5.0
REPLY_S = 30.0  # for all answers of one request
MAX_CONNECTIONS = 32  # for requests; those that follow something have theirs besides
MAX_KNOCKING, MAX_KNOCKING_EACH = 64, 8  # the same for words that may be wrong; those of one address
MAX_WAITING_EACH = 32  # requests of one address that wait for such a place
MAX_FOLLOWING, MAX_FOLLOWING_EACH = 256, 64  # connections that carry WATCH or LOG follow; one account's
MAX_PASSING, MAX_PASSING_EACH = 64, 8  # the same for lines that are passed on, of which each may take long
IDLE_S = 60.0  # after which a connection that nobody used is closed; the daemon ends it after 300
MAX_REPLY_BYTES = 64 * 1024 * 1024  # of all rows of one answer: no request asks for more
MAX_PASSED_BYTES = 4 * 1024 * 1024  # the same of a line that is passed on: it may ask for anything
RECEIVE_BYTES = 65_536

log = logging.getLogger("cronflowd.web")

Row = dict[str, Any]


class Unreachable(Exception):  # it is said of the daemon, and no fault of whoever asked
    """The daemon does not answer; the message says how."""


class TooLong(Unreachable):
    """It tells more than was to be read."""


class NoGateway(Unreachable):
    """It answers, and lets this process speak for nobody."""


@frozen
class Caller:
    """For whom a line is said."""

    words: tuple[bytes, ...]  # said before it
    key: bytes = b""  # not empty: said once, on connections that are kept for this caller
    knocks: str = ""  # from where a word comes that may be wrong


GATEWAY = Caller((b"AS",))


def account(name: str, address: str, session: int | None = None) -> Caller:
    """Somebody whose session the gateway has seen."""
    alive = f" session={session}" if session is not None else ""
    return Caller((f"AS {name} from={address}{alive}".encode(),))


def nobody(address: str) -> Caller:
    """The gateway, for somebody there: he comes in by what it says, if at all."""
    return Caller((f"AS from={address}".encode(),))


def stranger(address: str) -> Caller:
    """Somebody who has shown nothing yet: AUTH comes first."""
    return Caller(nobody(address).words, knocks=origin_of(address))


def bearer(token: str, address: str) -> Caller:
    """Somebody with a token of TOKEN ADD."""
    words = (f"AS from={address}".encode(), b"AUTH " + token.encode())
    return Caller(words, b" ".join(words), origin_of(address))


@frozen
class Answer:
    """What came back for one line."""

    rows: list[Row]
    status: Row  # `ok`, then what OK has, or `code` and `message`

    def check(self) -> Answer:
        """Itself; raises Refusal, with the daemon's code, where it was refused."""
        if not self.status["ok"]:
            raise Refusal(self.status["code"], self.status["message"], self.status.get("option", ""))
        return self

    @property
    def told(self) -> Row:
        """What stands behind OK."""
        return {key: value for key, value in self.status.items() if key != "ok"}

    @property
    def pairs(self) -> Row:
        """Rows of `key, value`, as of GET and STATUS."""
        return {row["key"]: row["value"] for row in self.rows}


def is_status(row: Row) -> bool:
    """Whether it ends an answer; STATS has a column `ok`, too, which is a number."""
    return type(row.get("ok")) is bool


def _parse(said: bytes) -> Any:
    try:
        return orjson.loads(said)
    except ValueError as error:
        raise Unreachable(f"the daemon says what is no JSON: {error}") from error


@define
class Crowd:
    """Those who have a connection of their own meanwhile, by account or token."""

    what: str  # they do
    most: int
    most_each: int
    _known: Counter[bytes] = field(factory=Counter)

    @contextmanager
    def one_more(self, caller: Caller) -> Iterator[None]:
        """Raises Refusal where there is no place; the gateway's own always finds one."""
        whose, known = b"".join(caller.words[-1].split()[1:2]), self._known
        if whose and (known[whose] >= self.most_each or known.total() >= self.most):
            raise Refusal("too-many", f"so many {self.what} that there is no place for one more")
        known[whose] += 1
        try:
            yield
        finally:
            known[whose] -= 1
            if not known[whose]:
                del known[whose]


@define
class Connection:
    """One conversation; FORMAT json holds on it."""

    stream: trio.abc.Stream
    lines: deque[bytes] = field(factory=deque)
    rest: bytes = b""
    taken: int = 0  # bytes of rows
    idle_since_s: float = 0.0

    async def send(self, lines: Sequence[bytes]) -> None:
        await self.stream.send_all(b"".join(line + b"\n" for line in lines))

    async def read_row(self) -> Row:
        """The next row or status. Raises Unreachable where nothing more comes."""
        row: Row = _parse(await self._read_line())
        return row

    async def row_within(self, seconds: float) -> Row | None:
        """The same; None where it has not come by then."""
        with trio.move_on_after(seconds):
            return await self.read_row()
        return None

    async def _read_line(self) -> bytes:
        while not self.lines:
            data = await self.stream.receive_some(RECEIVE_BYTES)
            if not data:
                raise Unreachable("the daemon has closed the connection")
            *lines, self.rest = (self.rest + data).split(b"\n")
            self.lines += lines
        found = self.lines.popleft()
        self.taken += len(found)
        return found

    async def begin(self) -> Row:
        """The status line of what is followed, behind which its rows come; raises Refusal."""
        return Answer([], await self.read_row()).check().status

    async def read(self, most: int | None = None) -> Answer:
        """A whole answer. Raises TooLong where it has more bytes than any that is asked for."""
        lines: list[bytes] = []
        most = most or MAX_REPLY_BYTES
        end = self.taken + most
        while True:
            lines.append(line := await self._read_line())
            if line.startswith((b'{"ok":true', b'{"ok":false')):
                break
            if self.taken > end:
                raise TooLong(f"an answer of more than {most} bytes")
        *rows, status = _parse(b"[%b]" % b",".join(lines))  # parsed together they cost half as much
        return Answer(rows, status)

    async def converse(self, lines: Sequence[bytes]) -> list[Answer]:
        await self.send(lines)
        return [await self.read() for _ in lines]


class Daemon:
    """The daemon, as the handlers of requests see it."""

    def __init__(self, settings: WebSettings, tokens: Sequence[bytes] = ()) -> None:
        self._settings = settings
        self._tokens = tokens  # each is tried: of a token file, or what the daemon gave its own gateway
        self._idle: dict[bytes, list[Connection]] = {}
        self._places = trio.CapacityLimiter(MAX_CONNECTIONS)
        self._knocking = trio.CapacityLimiter(MAX_KNOCKING)
        self._by_address: dict[str, trio.CapacityLimiter] = {}  # of those who knock
        self._following = Crowd("follow something already", MAX_FOLLOWING, MAX_FOLLOWING_EACH)
        self._passing = Crowd("wait for the answer to a line", MAX_PASSING, MAX_PASSING_EACH)

    @property
    def where(self) -> str:
        """How to call it."""
        return format_server(self._settings.control)

    def read_tokens(self) -> None:
        """Those of the file as it is now; what is wrong with it leaves them as they were."""
        settings = self._settings
        if settings.token_file and not settings.leash:
            try:
                self._tokens = read_tokens(settings.token_file)
            except Fatal as error:
                log.warning("the token stays as it is: %s", error)

    # --- questions ---

    async def ask(self, line: str, caller: Caller = GATEWAY) -> Answer:
        """One line's answer; raises Refusal, and Unreachable."""
        return (await self.ask_all([line], caller))[0].check()

    async def ask_all(self, lines: Sequence[str], caller: Caller = GATEWAY) -> list[Answer]:
        """Every line's answer, in order, be it a refusal; raises Refusal where the caller is not let in.

        The lines are sent together and executed one after the other; others' may come between.
        """
        said = [_encode(line) for line in lines]
        with trio.move_on_after(REPLY_S):
            async with self._place(caller), self._borrowed(caller) as connection:
                words = () if caller.key else caller.words
                answers = await connection.converse([*words, *said])
                _check_known(answers[: len(words)])
                return answers[len(words) :]
        if caller.knocks:
            raise Refusal("too-many", _TOO_MANY)
        raise Unreachable(f"{self.where}: no answer within {REPLY_S:g} s")

    async def pass_on(self, line: str, caller: Caller) -> Answer:
        """The answer to a line as somebody wrote it; raises Refusal.

        It may be any. So it is said on a connection that has never been anybody else's and is no
        gateway's any more, and that is closed behind it; and it takes nobody's place, however long.
        """
        if caller.key:  # it is known by a connection that is kept, or is compared in a place of its own
            await self.ask_all([], caller)
        with self._passing.one_more(caller), trio.move_on_after(REPLY_S):
            return await self._pass_on(_encode(line), await self._open_only(caller))
        raise Unreachable(f"{self.where}: no answer within {REPLY_S:g} s")

    async def _pass_on(self, line: bytes, connection: Connection) -> Answer:
        try:
            with _as_unreachable(self.where):
                await connection.send([line])
                return (await connection.read(MAX_PASSED_BYTES)).check()
        except TooLong:
            told = f"the answer has more than {MAX_PASSED_BYTES} bytes; ask for less, as by limit="
            raise Refusal("too-long", told) from None
        finally:
            await trio.aclose_forcefully(connection.stream)

    async def _open_only(self, caller: Caller) -> Connection:
        """A new connection that is the caller's, and can be nobody else's."""
        speaks_for, *shown = caller.words
        connection = await self._connect()
        with _as_unreachable(self.where):
            async with _or_closed(connection):
                for word in (speaks_for + b" only=yes", *shown):
                    _check_known(await connection.converse([word]))
        return connection

    @asynccontextmanager
    async def follow(self, line: str, caller: Caller = GATEWAY) -> AsyncIterator[Connection]:
        """A connection on which `line` was said and whose rows are the caller's to read. Raises Refusal."""
        with self._following.one_more(caller):
            connection = await self._open(caller)
            try:
                with _as_unreachable(self.where):
                    for word in () if caller.key else caller.words:
                        _check_known(await connection.converse([word]))
                    await connection.send([_encode(line)])
                    yield connection
            finally:
                await trio.aclose_forcefully(connection.stream)

    async def close_idle(self, older_than_s: float = IDLE_S) -> None:
        """Closes connections that nobody has used for so long."""
        old = trio.current_time() - older_than_s
        for key, connections in list(self._idle.items()):
            for connection in [each for each in connections if each.idle_since_s <= old]:
                connections.remove(connection)
                await trio.aclose_forcefully(connection.stream)
            if not connections:
                self._idle.pop(key, None)

    # --- connections ---

    @asynccontextmanager
    async def _place(self, caller: Caller) -> AsyncIterator[None]:
        """One of those that there are for such callers; raises Refusal."""
        if not caller.knocks or (caller.key and self._idle.get(caller.key)):
            async with self._places:
                yield
            return
        of_address = self._by_address.setdefault(caller.knocks, trio.CapacityLimiter(MAX_KNOCKING_EACH))
        if of_address.statistics().tasks_waiting >= MAX_WAITING_EACH:
            raise Refusal("too-many", _TOO_MANY)
        try:
            async with of_address, self._knocking:
                yield
        finally:
            if not of_address.borrowed_tokens and not of_address.statistics().tasks_waiting:
                self._by_address.pop(caller.knocks, None)

    @asynccontextmanager
    async def _borrowed(self, caller: Caller) -> AsyncIterator[Connection]:
        connection = await self._take_idle(caller.key) or await self._open(caller)
        with _as_unreachable(self.where):
            async with _or_closed(connection):
                yield connection
        connection.idle_since_s = trio.current_time()
        self._idle.setdefault(caller.key, []).append(connection)

    async def _take_idle(self, key: bytes) -> Connection | None:
        """One that is still open: the daemon may have been started anew, or may have ended it."""
        while connections := self._idle.get(key):
            connection = connections.pop()
            if _is_quiet(connection.stream):
                return connection
            await trio.aclose_forcefully(connection.stream)
        return None

    async def _open(self, caller: Caller) -> Connection:
        """A new connection; Unreachable, or Refusal. A word that may be wrong has as long as an answer."""
        connection = await self._connect()
        if caller.key:
            with _as_unreachable(self.where):
                async with _or_closed(connection):
                    _check_known(await connection.converse(caller.words))
        return connection

    async def _connect(self) -> Connection:
        """One that the daemon knows as its gateway's; Unreachable, or Refusal."""
        with _as_unreachable(self.where), trio.move_on_after(CONNECT_S):
            connection = Connection(await self._dial())
            async with _or_closed(connection):
                await self._begin(connection)
            return connection
        raise Unreachable(f"{self.where}: no connection within {CONNECT_S:g} s")

    async def _begin(self, connection: Connection) -> None:
        (answer,) = await connection.converse([b"FORMAT json"])
        for token in self._tokens:
            (answer,) = await connection.converse([b"AUTH " + token])
            if answer.status["ok"]:
                # The next one tries it first, unless the file was read again meanwhile and has it no more.
                self._tokens = sorted(self._tokens, key=lambda each: each != token)
                (answer,) = await connection.converse([b"FORMAT json"])
                break
        if answer.status["ok"]:
            (answer,) = await connection.converse([b"AS"])
        try:
            answer.check()
        except Refusal as refusal:
            if refusal.code not in ("denied", "auth-required"):
                raise
            raise NoGateway(f"it takes this for no gateway: {refusal.message}") from None

    async def _dial(self) -> trio.abc.Stream:
        return await dial(self._settings, self._settings.control)


async def dial(settings: WebSettings, where: Address | Path) -> trio.abc.Stream:
    """A connection to the daemon."""
    if isinstance(where, Path):
        return await trio.open_unix_socket(where)
    with threads.wanted():  # for a host's name
        stream = await trio.open_tcp_stream(*where)
    if not settings.speaks_tls:
        return stream
    context = client_context(settings.tls_ca, None, None)
    return trio.SSLStream(stream, context, server_hostname=where[0], https_compatible=True)


_TOO_MANY = "too many words from your address wait to be compared; try again later"


def origin_of(host: str) -> str:
    """What an address is counted as."""
    return origin(format_address((host, 0)))


def _check_known(answers: Sequence[Answer]) -> None:
    """Raises Refusal where the daemon does not take somebody for whom he says he is, or any more."""
    for answer in answers:
        try:
            answer.check()
        except Refusal as refusal:
            code = "auth-required" if refusal.code == "denied" else refusal.code
            raise Refusal(code, refusal.message) from None


@asynccontextmanager
async def _or_closed(connection: Connection) -> AsyncIterator[None]:
    """Where anything goes wrong it is used no more: it may be amid an answer, or somebody else by now."""
    try:
        yield
    except BaseException:
        await trio.aclose_forcefully(connection.stream)
        raise


def _is_quiet(stream: trio.abc.Stream) -> bool:
    """Whether there is nothing to read, not even an end: the daemon says nothing unasked."""
    inner = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    assert isinstance(inner, trio.SocketStream)
    poll = select.poll()
    poll.register(inner.socket.fileno(), select.POLLIN | select.POLLRDHUP)
    return not poll.poll(0)


@contextmanager
def _as_unreachable(where: str) -> Iterator[None]:
    """Whatever goes wrong with a connection means that the daemon cannot be reached."""
    try:
        yield
    except Unreachable as error:
        raise type(error)(f"{where}: {error}") from error
    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
        why = reasons(error) if isinstance(error, OSError) else error.__cause__ or error
        raise Unreachable(f"{where}: {why}") from error


def _encode(line: str) -> bytes:
    """One line and no more: what a request says can never become a second order."""
    check_travels(line)
    return line.encode()


def check_travels(text: str, option: str = "") -> None:
    """Raises Refusal for what a line cannot hold."""
    if "\n" in text or "\r" in text:
        raise Refusal("syntax", "a newline cannot stand in an order", option)
    if re.search("[\ud800-\udfff]", text):
        raise Refusal("syntax", "half of a surrogate pair is no character", option)
