"""Ports for programs that must be told theirs."""

from __future__ import annotations

import socket
from contextlib import ExitStack, suppress
from random import randrange


def free_ports(count: int) -> list[int]:
    """Below those that the kernel gives to connections: none of another test's may take one meanwhile."""
    with ExitStack() as held:
        found: list[int] = []
        while len(found) < count:
            with suppress(OSError):
                opened = socket.create_server(("127.0.0.1", randrange(20_000, 32_000)))
                found.append(held.enter_context(opened).getsockname()[1])
        return found
