"""redis-server: PING, and SET with every write synced, from the same client as ours."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from contrib.bench.load import exchange
from contrib.bench.measure import Figures
from contrib.bench.processes import cpu_s, free_port, program, running, wait_for_port

RECORD = b"x" * 60  # about what a task takes in our line


@contextlib.contextmanager
def server(fsync: str) -> Iterator[tuple[int, int]]:
    """(port, pid); `fsync` is always, everysec, or "" for no file at all."""
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        command = [program("redis-server", "redis-server"), "--port", str(port), "--save", ""]
        command += ["--bind", "127.0.0.1", "--loglevel", "warning", "--dir", directory]
        command += ["--logfile", str(Path(directory) / "log")]
        command += ["--appendonly", "yes", "--appendfsync", fsync] if fsync else []
        with running(command) as process:
            wait_for_port(port)
            yield port, process.pid


def ping(count: int, depth: int) -> Figures:
    return _requests("", [b"*1\r\n$4\r\nPING\r\n"] * count, 50, depth)


def durable_set(count: int, connections: int, depth: int) -> Figures:
    keys = (b"t%d" % number for number in range(count))
    form = b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n"
    sets = [form % (len(key), key, len(RECORD), RECORD) for key in keys]
    return _requests("always", sets, connections, depth)


def _requests(fsync: str, requests: Sequence[bytes], connections: int, depth: int) -> Figures:
    with server(fsync) as (port, pid):
        before = cpu_s(pid)
        took = exchange(port, requests, connections, depth)
        return {
            "requests/s": len(requests) / took,
            "server CPU us": (cpu_s(pid) - before) / len(requests) * 1e6,
        }
