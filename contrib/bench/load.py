"""Clients made of lines, quick enough that the server is what is measured.

Both protocols, ours and redis's, answer with one line a request, so one client serves both.
Ours says HELLO first: a client that thinks between lines would be taken for a netcat that is done.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Iterator, Sequence

HELLO = b"HELLO name=bench\n"
_CHUNK = 262_144


def connect(port: int, hello: bytes = b"") -> socket.socket:
    """To a server of this machine; `hello` is said, and answered, before anything else."""
    made = socket.create_connection(("127.0.0.1", port))
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hello:
        made.sendall(hello)
        made.recv(_CHUNK)
    return made


class Client:
    """One connection of ours, for orders whose reply matters."""

    def __init__(self, port: int) -> None:
        self._socket = connect(port, HELLO)
        self._lines = self._socket.makefile("rb", _CHUNK)

    def ask(self, order: str) -> list[str]:
        """All lines of its reply, the status line last."""
        self._socket.sendall(order.encode() + b"\n")
        lines = []
        while line := self._lines.readline():
            lines.append(line.decode().rstrip("\n"))
            if line.startswith((b"OK", b"ERR", b"PONG")):
                return lines
        raise RuntimeError("the server closed the connection")

    def do(self, order: str) -> str:
        """The status line, which has to be OK."""
        status = self.ask(order)[-1]
        if status.startswith("ERR"):
            raise RuntimeError(f"{order[:40]}: {status}")
        return status

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


def exchange(
    port: int, requests: Sequence[bytes], connections: int = 1, depth: int = 1, *, hello: bytes = b""
) -> float:
    """The seconds that all requests took, on so many connections, so many at once on each."""
    groups = [_batches(requests[number::connections], depth) for number in range(connections)]
    with contextlib.ExitStack() as stack:
        poll = select.epoll()
        stack.callback(poll.close)
        waiting: dict[int, int] = {}  # replies, by connection
        batches: dict[int, Iterator[tuple[bytes, int]]] = {}
        for group in groups:
            each = stack.enter_context(connect(port, hello))
            batches[each.fileno()] = group
        began = time.perf_counter()
        for fd, group in batches.items():
            if (batch := next(group, None)) is not None:
                poll.register(fd, select.EPOLLIN)
                waiting[fd] = _send(fd, batch)
        while waiting:
            for fd, _ in poll.poll():
                data = os.read(fd, _CHUNK)
                if not data or data.startswith((b"ERR", b"-")):
                    raise RuntimeError(f"instead of an answer: {data[:200]!r}")
                waiting[fd] -= data.count(b"\n")
                if waiting[fd] > 0:
                    continue
                if (batch := next(batches[fd], None)) is not None:
                    waiting[fd] = _send(fd, batch)
                else:
                    poll.unregister(fd)
                    del waiting[fd]
        return time.perf_counter() - began


def _batches(requests: Sequence[bytes], depth: int) -> Iterator[tuple[bytes, int]]:
    """Put together before the clock runs."""
    chunks = [requests[at : at + depth] for at in range(0, len(requests), depth)]
    return iter([(b"".join(chunk), len(chunk)) for chunk in chunks])


def _send(fd: int, batch: tuple[bytes, int]) -> int:
    data, count = batch
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    return count


def pour(port: int, requests: bytes, count: int, *, hello: bytes = b"") -> None:
    """Sends all that the server takes, and reads its replies meanwhile, until so many have come."""
    with connect(port, hello) as each:
        each.setblocking(False)
        view, seen = memoryview(requests), 0
        while seen < count:
            wanted = [each] if view else []
            readable, writable, _ = select.select([each], wanted, [])
            if writable:
                view = view[each.send(view[:_CHUNK]) :]
            if readable:
                data = each.recv(_CHUNK)
                if not data or data.startswith(b"ERR"):
                    raise RuntimeError(f"instead of an answer: {data[:200]!r}")
                seen += data.count(b"\n")
