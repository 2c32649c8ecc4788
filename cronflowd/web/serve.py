"""The process: sockets, connections within bounds, and its end.

Hypercorn speaks HTTP and WebSocket on each connection. Accepting is ours, so that an error in one connection
ends that connection and nobody can take every place. Started by the daemon, it serves the sockets
that the daemon has opened, so what comes while it is started again waits, and it ends with the daemon:
the pipe it was given ends then.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import ssl
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import orjson
import trio
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.utils import wrap_app

from ..base.errors import Exit, Fatal, Refusal
from ..host import logs, secrets, systemd
from ..host.config import WebSettings
from ..host.setting import format_address
from ..host.tls import server_tls
from ..net.lines import MAX_LINE_BYTES
from ..net.listeners import Connection, Door, Listener, adopt_listener, open_listeners, share_descriptors
from .app import make_app
from .bounds import Server, bind_hypercorn
from .envelope import RETRY_AFTER_S
from .guard import MAX_BODY_BYTES, Guard
from .line import GATEWAY, IDLE_S, Daemon, NoGateway, Unreachable

log = logging.getLogger("cronflowd.web")

NICE = 5
GRACEFUL_S = 3.0  # for requests that are under way when it ends
HANDSHAKE_S = 10.0
KEEP_ALIVE_S = 60.0
READ_S = 120  # a connection that sends nothing for so long is closed, unless something is sent to it
MAX_HEADER_BYTES = 32 * 1024
MAX_TOKEN_BYTES = 256


def run(settings: WebSettings) -> int:
    """Until TERM, INT, or the end of the daemon that started it; returns the exit code."""
    gc.freeze()  # the program itself is no garbage
    gc.set_threshold(700)
    listeners = _open(settings)
    tokens: tuple[bytes, ...] = ()
    key = b""
    if settings.leash:
        token, key = _read_leash(settings.leash)
        tokens = (token,)
        with suppress(OSError):
            os.nice(NICE)  # where both want a core, it is the daemon's, which has jobs that are due
    elif settings.token_file:  # the daemon's own door finds its variables, but no file that was opened for it
        tokens = secrets.read_tokens(settings.token_file)
    return trio.run(partial(_serve, settings, listeners, tokens, key))


async def _serve(
    settings: WebSettings, listeners: Sequence[Listener], tokens: Sequence[bytes], key: bytes
) -> int:
    daemon = Daemon(settings, tokens)
    if not settings.handed:
        await _check_daemon(settings, listeners, daemon)
    app = make_app(settings, daemon, key)
    addresses = [each.sock.getsockname()[:2] for each in listeners]
    house = House(Guard(app, settings, [host for host, _ in addresses]), settings)
    async with trio.open_nursery() as nursery:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            nursery.start_soon(_tidy, daemon, house)
            nursery.start_soon(app.state.postman.run)
            nursery.start_soon(house.serve, listeners)
            where = ",".join(map(format_address, addresses))
            logs.say(f"cronflowd web ready http={where} pid={os.getpid()}")
            systemd.notify("READY=1")
            if settings.leash:
                nursery.start_soon(_wait_for_end_of, settings.leash, house)
            nursery.start_soon(_wait_for_signal, signals, house, daemon)
            await house.ended.wait()
        systemd.notify("STOPPING=1")
        nursery.cancel_scope.cancel()
    return Exit.OK


async def _tidy(daemon: Daemon, house: House) -> None:
    while True:
        await trio.sleep(IDLE_S / 2)
        await daemon.close_idle()
        house.read_certificate()  # the daemon, which is told by HUP that there is another, tells nobody


async def _wait_for_signal(signals: Any, house: House, daemon: Daemon) -> None:
    async for number in signals:
        if number == signal.SIGHUP:
            house.read_certificate()
            daemon.read_tokens()
            continue
        log.info("%s: stopping", signal.Signals(number).name)
        await house.end()


async def _wait_for_end_of(leash: int, house: House) -> None:
    """The daemon holds the other end, and writes nothing more."""
    await trio.lowlevel.wait_readable(leash)
    log.info("the daemon has ended")
    await house.end()


def _read_leash(leash: int) -> tuple[bytes, bytes]:
    """What the daemon tells its own gateway alone: the word by which it knows it, and a cluster's key."""
    os.set_inheritable(leash, False)
    token, _, key = os.read(leash, MAX_TOKEN_BYTES).strip().partition(b" ")  # it was written before we began
    return token, key


async def _check_daemon(settings: WebSettings, listeners: Sequence[Listener], daemon: Daemon) -> None:
    """Refuses a daemon that refuses us, and to listen beyond this machine where nobody has an account."""
    try:
        accounts = (await daemon.ask("USER LIST", GATEWAY)).rows
    except NoGateway as error:
        raise Fatal(Exit.REFUSED, f"--control {error}") from error
    except (Unreachable, Refusal) as error:
        log.warning("the daemon, and whether anybody has an account, cannot be asked yet: %s", error)
        return
    exposed = secrets.first_exposed(each.sock.getsockname()[:2] for each in listeners)
    secrets.check_doors(settings, exposed, lambda: any(row["role"] == "admin" for row in accounts))


# --- connections --------------------------------------------------------------------------------


def _open(settings: WebSettings) -> list[Listener]:
    """What listens: handed over by the daemon, or by systemd, or opened here."""
    if handed := settings.handed or systemd.inherited().get("http", ()):
        return list(map(adopt_listener, handed))
    return open_listeners(settings.http)


class House:
    """Every connection there is."""

    def __init__(self, app: Any, settings: WebSettings) -> None:
        self.ended = trio.Event()
        self._app = wrap_app(app, MAX_BODY_BYTES, "asgi")
        self._settings = settings
        self._tls = _read_tls(settings)
        self._config = _config()
        self._context = WorkerContext(None)
        self._scope = trio.CancelScope()
        self._door = Door(
            self._serve_one, settings.max_http, "HTTP connections", farewell=_farewell,
            max_per_address=settings.max_http_per_address,
        )  # fmt: skip

    def read_certificate(self) -> None:
        """That of the files as they are now; what is wrong with them leaves it as it was."""
        try:
            self._tls = _read_tls(self._settings)
        except Fatal as error:
            log.warning("the certificate stays as it is: %s", error)

    async def serve(self, listeners: Sequence[Listener]) -> None:
        """Serves until `end`."""
        share_descriptors(self._door)
        with self._scope:
            await self._door.serve(listeners)
        self.ended.set()

    async def end(self) -> None:
        """Accepts nobody more, lets what is under way finish for a moment, and cuts the rest."""
        self._door.shut()
        await self._context.terminated.set()
        self._scope.deadline = trio.current_time() + GRACEFUL_S

    async def _serve_one(self, connection: Connection) -> None:
        found: Any = (stream := connection.stream())
        if self._tls:
            found = trio.SSLStream(stream, self._tls, server_side=True, https_compatible=True)
        state: Any = {"cut": partial(trio.aclose_forcefully, stream)}
        await Server(self._app, self._config, self._context, state, found)


def _farewell(why: str) -> bytes:
    """An answer like all others, before anything was asked."""
    body = orjson.dumps(
        {"success": False, "error": {"code": "too-many", "message": f"{why}; try again later"}}
    )
    head = f"HTTP/1.1 503 full\r\nConnection: close\r\nRetry-After: {RETRY_AFTER_S}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _read_tls(settings: WebSettings) -> ssl.SSLContext | None:
    """Raises Fatal."""
    return server_tls(settings.tls_cert, settings.tls_key, None).context if settings.tls_cert else None


def _config() -> Config:
    bind_hypercorn()
    config = Config()
    config.alpn_protocols = ["http/1.1"]  # one connection is one place; browsers need no more
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = logging.getLogger("cronflowd.web.http")
    config.h11_max_incomplete_size = MAX_HEADER_BYTES
    config.keep_alive_timeout = KEEP_ALIVE_S
    config.read_timeout = READ_S
    config.ssl_handshake_timeout = HANDSHAKE_S
    config.websocket_max_message_size = MAX_LINE_BYTES  # what is longer comes cut, and is refused
    return config
