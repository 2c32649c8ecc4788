"""Ports for programs that must be told theirs."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack, suppress
from random import randrange

# Below those that the kernel gives to connections, and for each process that tests beside others its own:
# what a program has let go of for a moment, as it is started again, no other test may take.
EACH = 1_500
FIRST = 20_000 + EACH * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 8)


def free_ports(count: int) -> list[int]:
    """Nobody listens there, and this process alone will be told of them."""
    with ExitStack() as held:
        found: list[int] = []
        while len(found) < count:
            with suppress(OSError):
                opened = socket.create_server(("127.0.0.1", randrange(FIRST, FIRST + EACH)))
                found.append(held.enter_context(opened).getsockname()[1])
        return found
