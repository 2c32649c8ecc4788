"""One HTTP request, from its address to its last byte, and how it ended as an exit code.

Rules for this file. A name is looked up once; every address it stands for is judged, and
the connection goes to one that was found good, so no second look-up can bring another.
Nothing comes from the environment: no proxy, no password file. No redirect is followed.
The answer is never held: what comes goes to the job's output, which is bounded.

httpx2 reads URLs, and httpcore2, which belongs to it, speaks HTTP.
"""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Iterable
from functools import cache, partial
from typing import Any

import httpcore2
import httpx2
import trio
from attrs import define, frozen

from ... import __version__
from ...base.addresses import why_refused
from ...host import threads
from ...tasks.kinds import expects
from . import remote as r
from .job import NOT_RUNNABLE, Ended, Job

CONNECT_S = 30.0  # to be connected to one of the addresses
ONE_ADDRESS_S = 5.0  # to one of them, while there are others
KEEPALIVE_S = 60  # after such a silence the kernel asks whether the server is still there
MAX_SHOWN = 200  # characters of what the server says about itself

for _name in ("httpcore2", "httpx2"):
    # At level debug they would write headers, and so passwords, into the log.
    logging.getLogger(_name).setLevel(logging.WARNING)


@frozen
class Request:
    """What to send."""

    method: str
    url: str
    headers: list[tuple[str, str]]
    body: bytes | None
    expect: str  # statuses that are a success, as in expect=


async def carry_out(job: Job, request: Request, private: bool) -> Ended:
    """Sends the request as a job: with its timeout, its KILL, and the answer's body as output."""
    exchange = Exchange(job, request, trio.current_time())
    return await r.converse(
        job, partial(exchange.run, private), lambda: f"{exchange.told} its timeout is over"
    )


@define
class Exchange:
    """A request under way."""

    job: Job
    request: Request
    began_s: float
    status: str = ""  # the status line, once it is here
    size: int = 0  # bytes of the body so far

    @property
    def told(self) -> str:
        """How far it has come, for people."""
        took_s = trio.current_time() - self.began_s
        if not self.status:
            return f"no answer after {took_s:.3f} s;"
        return f"{self.status}; {self.size} bytes in {took_s:.3f} s;"

    async def run(self, private: bool) -> Ended:
        """Raises Failure."""
        network = Network(private)
        try:
            async with httpcore2.AsyncConnectionPool(tls_context(), network_backend=network) as pool:
                return await self._exchange(pool)
        except (httpx2.InvalidURL, UnicodeError) as error:
            raise r.Failure(r.BAD_URL, f"the URL cannot be read: {error}") from None
        except httpcore2.LocalProtocolError as error:
            raise r.Failure(NOT_RUNNABLE, f"cannot start: not a request: {error}") from None
        except (httpcore2.NetworkError, httpcore2.RemoteProtocolError) as error:
            raise self._failure(error) from None

    async def _exchange(self, pool: httpcore2.AsyncConnectionPool) -> Ended:
        request = self.request
        url = httpx2.URL(request.url)
        target = httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        headers = _headers(request, url)
        async with pool.stream(request.method, target, headers=headers, content=request.body) as response:
            self.status = _status_line(response)
            async for chunk in response.aiter_stream():
                self.size += len(chunk)
                self.job.output.feed(1, chunk)
        if expects(request.expect, response.status):
            return Ended(0, why=self.told.removesuffix(";"))
        return Ended(r.UNEXPECTED_STATUS, why=f"{self.told} expected is {request.expect}")

    def _failure(self, error: Exception) -> r.Failure:
        if isinstance(error, httpcore2.ConnectError):
            why = "the server ended the connection instead of TLS"
            return r.tls_failure(error) or r.Failure(r.NO_TLS, why)
        if isinstance(error, httpcore2.WriteError):
            code = r.NOT_SENT
        elif isinstance(error, httpcore2.ReadError):
            code = r.BROKEN
        elif self.status:
            code = r.PARTIAL
        else:
            code = r.EMPTY_ANSWER if "without sending" in str(error) else r.NO_HTTP
        reason = str(error) or "the connection broke"
        return r.Failure(code, f"{self.told} {reason[:MAX_SHOWN]}")


def _headers(request: Request, url: httpx2.URL) -> list[tuple[bytes, bytes]]:
    """All headers of the request; those of the task go before ours."""
    ours = {
        "Host": url.netloc.decode("ascii"),
        "User-Agent": f"cronflowd/{__version__}",
        "Accept": "*/*",
        "Accept-Encoding": "identity",  # a LOG is for reading, and a small answer stays a small one
    }
    given = {name.lower() for name, _ in request.headers}
    headers = [(name, text) for name, text in ours.items() if name.lower() not in given]
    return [(name.encode("ascii"), text.strip().encode()) for name, text in headers + request.headers]


def _status_line(response: httpcore2.Response) -> str:
    """`HTTP/1.1 200 OK`, and where a redirect wants to lead."""
    version = response.extensions.get("http_version", b"HTTP/1.1").decode("ascii", "replace")
    reason = response.extensions.get("reason_phrase", b"").decode("ascii", "replace")
    line = f"{version} {response.status} {reason[:MAX_SHOWN]}".rstrip()
    location = next((text for name, text in response.headers if name.lower() == b"location"), None)
    if location is None or not 300 <= response.status <= 399:
        return line
    return f"{line} to {location.decode(errors='replace')[:MAX_SHOWN]} (redirects are not followed)"


@cache
def tls_context() -> ssl.SSLContext:
    """Certificates are checked against those the system trusts, or that SSL_CERT_FILE names."""
    return ssl.create_default_context()


# --- connecting -------------------------------------------------------------------------


class Network(httpcore2.AsyncNetworkBackend):
    """Connects to addresses that jobs may reach, and to no others."""

    def __init__(self, private: bool) -> None:
        self._private = private

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # the form is httpcore2's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        with trio.move_on_after(CONNECT_S):
            addresses = self._permitted(host, await _look_up(host, port))
            return await _connect_to_one(host, port, addresses)
        raise r.Failure(r.TIMED_OUT, f"{host}: no connection within {CONNECT_S:g} s")

    def _permitted(self, host: str, addresses: list[str]) -> list[str]:
        refused = {address: why_refused(address, self._private) for address in addresses}
        permitted = [address for address, why in refused.items() if not why]
        if not permitted:
            address, why = next(iter(refused.items()))
            shown = address if address == host else f"{host} ({address})"
            raise r.Failure(NOT_RUNNABLE, f"cannot start: {shown}: {why}")
        return permitted


async def _look_up(host: str, port: int) -> list[str]:
    try:
        with threads.wanted():
            found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise r.Failure(r.NO_HOST, f"{host}: {getattr(error, 'strerror', None) or error}") from None
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


async def _connect_to_one(host: str, port: int, addresses: list[str]) -> httpcore2.AsyncNetworkStream:
    """Tries one after the other; these are numbers, so nothing is looked up any more."""
    whys = []
    for number, address in enumerate(addresses, 1):
        limit_s = CONNECT_S if number == len(addresses) else ONE_ADDRESS_S
        try:
            return await httpcore2.TrioBackend().connect_tcp(address, port, limit_s, None, _KEEPALIVE)
        except httpcore2.ConnectTimeout:
            whys.append(f"{address}: no answer")
        except httpcore2.ConnectError as error:
            whys.append(f"{address}: {_reason(error)}")
    raise r.Failure(r.NO_CONNECTION, f"{host} port {port}: {'; '.join(whys)[:MAX_SHOWN]}")


_KEEPALIVE = [
    (trio.socket.SOL_SOCKET, trio.socket.SO_KEEPALIVE, 1),
    (trio.socket.IPPROTO_TCP, trio.socket.TCP_KEEPIDLE, KEEPALIVE_S),
]


def _reason(error: BaseException) -> str:
    """The system's own words, which stand below what trio says of the address."""
    while (below := error.__cause__) is not None:
        error = below.exceptions[0] if isinstance(below, BaseExceptionGroup) else below
    # trio puts the address into the text of its own errors.
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
