"""Many clients that watch runs and read all they are told: python -m contrib.bench.watchers PORT COUNT."""

from __future__ import annotations

import os
import resource
import select
import socket
import sys


def watch(port: int, count: int) -> None:
    """Until it is ended."""
    poll, sockets = select.epoll(), list[socket.socket]()

    def read(wait_s: float | None) -> None:
        for fd, _ in poll.poll(wait_s):
            try:
                data = os.read(fd, 262_144)
            except ConnectionResetError:
                data = b""
            if not data:
                poll.unregister(fd)
                print("one was cut", file=sys.stderr, flush=True)

    for _ in range(count):
        sockets.append(socket.create_connection(("127.0.0.1", port)))
        sockets[-1].sendall(b"WATCH runs\n")
        sockets[-1].recv(4096)
        poll.register(sockets[-1], select.EPOLLIN)
        read(0)  # those that watch already are told of what happens
    print("ready", flush=True)
    while True:
        read(None)


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    watch(int(sys.argv[1]), int(sys.argv[2]))
