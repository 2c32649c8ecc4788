"""A worker that does nothing, as quickly as lines can be read: what is measured is the server.

    python -m contrib.bench.worker PORT SLOTS

It prints "ready"; then, for each line "N" that it reads, the time (in ns) at which each of the
next N orders came, once all of them are acknowledged.
"""

from __future__ import annotations

import json
import socket
import sys
import time

from contrib.bench.load import connect


def serve(port: int, slots: int) -> None:
    with connect(port, b"HELLO name=bench slots=%d can=echo\n" % slots) as link:
        print("ready", flush=True)
        for line in sys.stdin:
            print(json.dumps(work(link, int(line))), flush=True)


def work(link: socket.socket, count: int) -> list[int]:
    """When each of so many orders came."""
    came: list[int] = []
    acknowledged, rest = 0, b""
    while acknowledged < count:
        data = link.recv(262_144)
        if not data:
            sys.exit("the server closed the worker's connection")
        now = time.time_ns()
        *lines, rest = (rest + data).split(b"\n")
        reports = []
        for line in lines:
            if line.startswith(b"RUN "):
                _, run, attempt, _ = line.split(b" ", 3)
                reports.append(b"STARTED %s %s\nDONE %s %s 0\n" % (run, attempt, run, attempt))
            elif line.startswith(b"ACK "):
                acknowledged += 1
        came += [now] * len(reports)
        if reports:
            link.sendall(b"".join(reports))
    return came


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))
