"""beanstalkd: put, reserve, delete, with its worker in a process of its own, as ours is.

python -m contrib.bench.beanstalkd PORT COUNT    the worker: takes so many, and says when it is done
"""

from __future__ import annotations

import sys
import tempfile
import time

from contrib.bench.load import connect, pour
from contrib.bench.measure import Figures
from contrib.bench.processes import ROOT, cpu_s, free_port, next_line, program, running, wait_for_port

WINDOW = 64  # asked for at once, so that neither side waits for the other


def life(count: int, *, durable: bool) -> Figures:
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        command = [program("beanstalkd", "beanstalkd"), "-l", "127.0.0.1", "-p", str(port)]
        with running([*command, "-b", directory, "-f0"] if durable else command) as server:
            wait_for_port(port)
            with running(
                [sys.executable, "-m", "contrib.bench.beanstalkd", str(port), str(count)], cwd=ROOT
            ) as worker:
                next_line(worker)
                before, began = cpu_s(server.pid), time.perf_counter()
                pour(port, b"put 0 0 600 1\r\nx\r\n" * count, count)
                next_line(worker)
                took = time.perf_counter() - began
                return {
                    "lives/s": count / took,
                    "server CPU us/life": (cpu_s(server.pid) - before) / count * 1e6,
                }


def work(port: int, count: int) -> None:
    with connect(port) as link:
        asked = min(WINDOW, count)
        link.sendall(b"reserve\r\n" * asked)
        print("ready", flush=True)
        deleted, rest = 0, b""
        while deleted < count:
            *lines, rest = (rest + link.recv(262_144)).split(b"\r\n")
            orders = []
            for line in lines:
                if line.startswith(b"RESERVED "):
                    orders.append(b"delete %s\r\n" % line.split(b" ")[1])
                    # A reserve for which no job is left would hold up the deletes behind it.
                    if asked < count:
                        orders.append(b"reserve\r\n")
                        asked += 1
                elif line == b"DELETED":
                    deleted += 1
            if orders:
                link.sendall(b"".join(orders))
        print("done", flush=True)


if __name__ == "__main__":
    work(int(sys.argv[1]), int(sys.argv[2]))
