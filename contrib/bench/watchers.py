"""Many clients that watch runs and read all they are told: python -m contrib.bench.watchers PORT COUNT."""

from __future__ import annotations

import os
import resource
import select
import socket
import sys


def watch(port: int, count: int) -> None:
    """Until it is ended."""
    poll = select.epoll()
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
    for each in sockets:
        each.sendall(b"WATCH runs\n")
        each.recv(4096)
        poll.register(each, select.EPOLLIN)
    print("ready", flush=True)
    while True:
        for fd, _ in poll.poll():
            if not os.read(fd, 262_144):
                poll.unregister(fd)  # cut


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    watch(int(sys.argv[1]), int(sys.argv[2]))
