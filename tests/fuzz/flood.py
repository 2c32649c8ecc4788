"""A stranger who sends hostile lines as fast as they are taken: `python -m tests.fuzz.flood PORT LINES SEED`.

A process of its own, so that it takes no time from whoever measures. It comes from many addresses,
and tells how many lines it sent and how often its connection was ended.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from random import Random

from tests.fuzz.scripts import GREETINGS, hello, order, report, spoil

BLOCK = 200  # lines that are sent before answers are read


def make_lines(rng: Random, count: int = 2000) -> list[bytes]:
    """Among them few that look like somebody else's protocol, which end the connection at once."""
    lines = [
        rng.choice((order, order, report, lambda rng: hello(rng, "w")))(rng).encode() for _ in range(count)
    ]
    lines = [spoil(rng, line) if rng.random() < 0.3 else line for line in lines]
    lines[::100] = rng.choices(GREETINGS, k=len(lines[::100]))
    return [b"no" + line if line[:4].upper() in (b"AUTH", b"QUIT") else line for line in lines]


def connect(port: int, rng: Random) -> socket.socket:
    client = socket.socket()
    client.settimeout(10)
    client.bind((f"127.0.0.{rng.randrange(2, 250)}", 0))
    client.connect(("127.0.0.1", port))
    return client


def talk(client: socket.socket, data: bytes) -> None:
    """Sends it and reads what has come. Raises OSError where the other side ended the connection."""
    client.sendall(data)
    client.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while client.recv(1 << 20):
            pass
        raise ConnectionResetError
    client.settimeout(10)


def main(port: int, count: int, seed: int) -> None:
    rng = Random(seed)
    lines, sent, ended, client = make_lines(rng), 0, 0, None
    while sent < count:
        block = b"\n".join(rng.choices(lines, k=BLOCK)) + b"\n"
        try:
            client = client or connect(port, rng)
            talk(client, block)
        except OSError:
            ended += 1
            if client:
                client.close()
                client = None
        sent += BLOCK
    print(sent, ended)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
