"""A real HTTP server for tests: one thread, one answer a path, and a memory of what was asked."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from attrs import Factory, define


@define
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes


@define
class HttpServer:
    """What tests look at: where it is, what it was asked, and what it was told of."""

    port: int
    scheme: str = "http"
    asked: list[Asked] = Factory(list)
    gone: threading.Event = Factory(threading.Event)  # a client left before its answer was whole

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"


class Handler(BaseHTTPRequestHandler):
    """Answers by path."""

    protocol_version = "HTTP/1.1"
    owner: HttpServer
    stopping: threading.Event

    def log_message(self, *args: Any) -> None:
        """Says nothing."""

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:
            self.owner.gone.set()
            self.close_connection = True

    def _answer(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        headers = {name.lower(): text for name, text in self.headers.items()}
        self.owner.asked.append(Asked(self.command, self.path, headers, self.rfile.read(size)))
        PATHS.get(self.path.partition("?")[0], Handler._echo)(self)

    do_GET = do_POST = do_PUT = do_HEAD = do_PURGE = _answer

    def _say(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _echo(self) -> None:
        self._say(200, b"hello\nworld")

    def _mirror(self) -> None:
        asked = self.owner.asked[-1]
        self._say(400, f"Bad request: {asked.headers}\n".encode() + asked.body + b"\n")

    def _status(self) -> None:
        self._say(int(self.path.partition("?")[2]), b"as you like it\n")

    def _redirect(self) -> None:
        self._say(302, Location="/secret")

    def _silent(self) -> None:
        """No answer, until the client has left or the test is over."""
        self.connection.settimeout(0.02)
        while not self.stopping.is_set():
            try:
                if not self.connection.recv(1):
                    self.owner.gone.set()
                    break
            except TimeoutError:
                pass
        self.close_connection = True

    def _endless(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        line = b"".join(b"%09d\n" % number for number in range(6400))
        while not self.stopping.is_set():
            self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))

    def _cut(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"half\n")
        self.close_connection = True

    def _nothing(self) -> None:
        self.close_connection = True

    def _nonsense(self) -> None:
        self.wfile.write(b"220 mail.example.org ESMTP\r\n\r\n")
        self.close_connection = True

    def _long(self) -> None:
        self.send_response(302, "x" * 30_000)
        self.send_header("Location", "\xff" * 20_000)
        self.send_header("Content-Length", "0")
        self.end_headers()


PATHS: dict[str, Callable[[Handler], None]] = {
    "/status": Handler._status,
    "/mirror": Handler._mirror,
    "/redirect": Handler._redirect,
    "/silent": Handler._silent,
    "/endless": Handler._endless,
    "/cut": Handler._cut,
    "/nothing": Handler._nothing,
    "/nonsense": Handler._nonsense,
    "/long": Handler._long,
}


class Server(ThreadingHTTPServer):
    daemon_threads: ClassVar[bool] = False  # their end is waited for
    address_family: ClassVar[int]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that speaks no TLS, or leaves, is the test's doing."""


@contextmanager
def http_server(context: ssl.SSLContext | None = None) -> Iterator[HttpServer]:
    """A server on a port of its own while the block runs."""
    stopping = threading.Event()
    handler = type("OneHandler", (Handler,), {"stopping": stopping})
    server = Server(("127.0.0.1", 0), handler)
    owner = handler.owner = HttpServer(server.server_address[1], "https" if context else "http")
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield owner
    finally:
        stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()
