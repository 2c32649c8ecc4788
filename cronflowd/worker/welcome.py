"""The way to the daemon: dialling, showing each other who one is, and what the daemon's first answer says.

A worker that has a token never says it. It proves that it has it, after the daemon has, so whoever
stands in the daemon's place is told a name and nothing else.
"""

from __future__ import annotations

import math
import ssl
from collections import deque
from pathlib import Path

import trio
from attrs import define

from ..base.errors import Exit, Fatal
from ..base.proofs import DAEMON, NONCE, Handshake
from ..host.config import WorkerSettings
from ..host.setting import WebAddress
from .ways import Where

MAX_HELLO_BYTES = 65_000  # a line of HELLO or HELD; running= takes what the rest of HELLO leaves of it
KILL_GRACE_S = 10.0  # unless the daemon says grace=


class NotWelcomeError(Exception):
    """There was no OK this time; the message says why."""


@define
class Terms:
    """What the daemon said in its first answer."""

    heartbeat_s: float = 10.0
    lease_s: float = 30.0  # how long what it holds is kept for it when it is away
    output: int = 1024 * 1024  # bytes of output kept of a run
    grace_s: float = KILL_GRACE_S
    epoch: int = 0  # of the daemon that leads, where it is one of several
    # Of each attempt that it counts as this worker's: how many characters it has; None: it does not say.
    had: dict[str, int] | None = None


def believe(name: str, key: bytes, nonce: str, answer: str) -> Handshake | None:
    """What the daemon's CHALLENGE begins; None where it proves the wrong thing. Raises NotWelcomeError."""
    word, _, rest = answer.partition(" ")
    its_nonce, _, proof = rest.partition(" ")
    if word != "CHALLENGE" or not NONCE.fullmatch(its_nonce):
        raise NotWelcomeError(
            "the daemon did not prove that it knows the token: it is of an older release, or another one"
        )
    handshake = Handshake(key, name, nonce, its_nonce)
    return handshake if handshake.is_proof(DAEMON, proof) else None


async def dial(settings: WorkerSettings, address: Where) -> trio.abc.Stream:
    """A connection to the daemon, as --connect and --tls ask for it. Raises OSError, and Fatal for files."""
    if isinstance(address, Path):
        return await trio.open_unix_socket(address)
    if not isinstance(address, WebAddress):
        return await _dial_tcp(settings, *address, is_sealed=settings.speaks_tls)
    try:
        from .websocket import WebSocketStream  # a worker that needs none does not need the package
    except ImportError as error:
        why = f"connect: {address} takes the Python package {error.name}: pip install 'cronflowd[web]'"
        raise Fatal(Exit.CONFIG, why) from error
    stream = WebSocketStream(await _dial_tcp(settings, address.host, address.port, is_sealed=address.is_tls))
    try:
        await stream.open(address)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def _dial_tcp(settings: WorkerSettings, host: str, port: int, is_sealed: bool) -> trio.abc.Stream:
    if not is_sealed:
        return await trio.open_tcp_stream(host, port)
    from ..host.tls import client_context  # its library takes 30 ms and some MiB

    # Read at each try, as the token is: a certificate may have been renewed meanwhile.
    context = client_context(settings.tls_ca, settings.tls_cert, settings.tls_key)
    stream = await trio.open_tcp_stream(host, port)
    # A daemon that was killed says no end in TLS; every line has one of its own.
    sealed = trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)
    try:
        await sealed.do_handshake()
    except BaseException as error:
        await trio.aclose_forcefully(stream)
        if not isinstance(error, trio.BrokenResourceError):
            raise
        raise ConnectionError(f"TLS: {_tls_reason(error.__cause__)}") from error
    return sealed


def _tls_reason(error: BaseException | None) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return getattr(error, "reason", None) or str(error)


def parse_terms(text: str) -> Terms:
    """What follows the OK: a name and key=value words; what is unknown or no number is left out."""
    terms = Terms()
    for word in text.split():
        key, _, value = word.partition("=")
        if key == "had":
            terms.had = dict(map(_parse_had, value.split(",")))
        number = _parse_number(value)
        if number is None:
            continue
        if key == "heartbeat" and number > 0:
            terms.heartbeat_s = number
        elif key == "lease":
            terms.lease_s = number
        elif key == "output":
            terms.output = int(number)
        elif key == "grace":
            terms.grace_s = number
        elif key == "epoch":
            terms.epoch = int(number)
    return terms


def _parse_had(text: str) -> tuple[str, int]:
    key, _, number = text.rpartition(":")
    return key.replace(":", " "), int(number) if number.isdecimal() else 0


def _parse_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number < math.inf else None


def hello_lines(words: list[str], held: list[str]) -> list[str]:
    """HELLO, and the HELD lines behind it where what is held does not fit into that."""
    room = MAX_HELLO_BYTES - len(" ".join(words)) - len(" more=1000 running=")
    first, *more = _packed(held, room) or [""]
    words = words + [f"more={len(more)}"] * bool(more) + [f"running={first}"] * bool(first)
    return [" ".join(words), *(f"HELD {each}" for each in more)]


def _packed(words: list[str], room: int) -> list[str]:
    """The words with commas between, in texts of which the first is no longer than `room`."""
    texts: list[str] = []
    rest, size = deque(words), 0
    line: list[str] = []
    while rest:
        if line and size + len(rest[0]) >= room:
            texts.append(",".join(line))
            line, size, room = [], 0, MAX_HELLO_BYTES - len("HELD ")
        line.append(rest.popleft())
        size += len(line[-1]) + 1
    return texts + [",".join(line)] * bool(line)
