"""What the daemon does in a second, beside beanstalkd.

Ours is one daemon with its journal on disk and one worker; theirs is beanstalkd, where it is
installed, with a sync for every job (`-f0`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.lib.rounds import alternate

JOBS = int(os.environ.get("CRONFLOWD_BENCH_JOBS", "50000"))
ADDS = JOBS // 2
PINGS = JOBS * 4
ROUNDS = int(os.environ.get("CRONFLOWD_BENCH_ROUNDS", "3"))
SLOTS = 2000
TICKS = os.sysconf("SC_CLK_TCK")


class Line:
    """A line client that counts replies instead of reading them one by one."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.rest = b""

    def pipeline(self, data: bytes, replies: int) -> None:
        """Sends everything, reading meanwhile, until so many lines have come back."""
        self.socket.setblocking(False)
        view, seen = memoryview(data), 0
        while seen < replies:
            with contextlib.suppress(BlockingIOError):
                if view:
                    view = view[self.socket.send(view[:262_144]) :]
            try:
                got = self.socket.recv(262_144)
            except BlockingIOError:
                time.sleep(0.0005)
                continue
            if not got:
                raise SystemExit("the server closed the connection")
            seen += got.count(b"\n")
        self.socket.setblocking(True)

    def ask(self, line: str) -> list[str]:
        """One order and all lines of its reply."""
        self.socket.sendall(line.encode() + b"\n")
        while not (lines := self.rest.decode().splitlines()) or not lines[-1].startswith(
            ("OK", "ERR", "PONG")
        ):
            self.rest += self.socket.recv(65_536)
        self.rest = b""
        return lines


def cpu_s(pid: int) -> float:
    """Processor seconds a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@contextlib.contextmanager
def cronflowd(data: Path) -> Iterator[tuple[int, list[int]]]:
    """(control port, pids of daemon and worker)."""
    command = [sys.executable, "-m", "cronflowd", "--data", str(data), "--local-worker", "0", "--tz", "UTC"]
    command += ["--listen", "127.0.0.1:0", "--listen-workers", "127.0.0.1:0", "--log-level", "error"]
    daemon = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert daemon.stdout
    ready = dict(word.split("=") for word in daemon.stdout.readline().split()[2:])
    command = [sys.executable, "-m", "cronflowd", "worker", "--connect", ready["workers"], "--name", "bench"]
    command += ["--slots", str(SLOTS), "--spool", str(data / "spool"), "--log-level", "error"]
    worker = subprocess.Popen(command)
    try:
        yield int(ready["control"].rpartition(":")[2]), [daemon.pid, worker.pid]
    finally:
        for process in (worker, daemon):
            process.terminate()
            process.wait(20)


def measure_ours() -> dict[str, float]:
    """One round; a figure a second each, and processor time per job."""
    with tempfile.TemporaryDirectory() as directory, cronflowd(Path(directory)) as (port, pids):
        line = Line(port)
        line.ask("HELLO name=bench")
        figures = {"PING/s": rate(PINGS, lambda: line.pipeline(b"PING\n" * PINGS, PINGS))}
        adds = b"".join(b"ADD name=t%d %d %d * * * true\n" % (i, i % 60, i // 60 % 24) for i in range(ADDS))
        figures["durable ADD/s"] = rate(ADDS, lambda: line.pipeline(adds, ADDS))
        line.ask("ADD name=noop type=sleep overlap=allow 0 0 1 1 * 0")
        wait_for(lambda: any(row.startswith("workers\t1") for row in line.ask("STATUS")))
        before = sum(map(cpu_s, pids))

        def jobs() -> None:
            line.pipeline(b"RUN noop\n" * JOBS, JOBS)
            wait_for(lambda: f"fires-ok\t{JOBS}" in line.ask("STATUS"))

        figures["whole jobs/s"] = rate(JOBS, jobs)
        figures["CPU us/job"] = (sum(map(cpu_s, pids)) - before) / JOBS * 1e6
        return figures


def wait_for(ready: Callable[[], bool]) -> None:
    """Looks again every 5 ms, for a minute at most."""
    until = time.monotonic() + 60
    while not ready():
        if time.monotonic() > until:
            raise SystemExit("the jobs did not end within a minute")
        time.sleep(0.005)


def rate(count: int, work: Callable[[], None]) -> float:
    """How many a second."""
    began = time.perf_counter()
    work()
    return count / (time.perf_counter() - began)


def measure_beanstalkd(program: str) -> dict[str, float]:
    """The same life there: put, reserve, delete, with the binlog synced."""
    with tempfile.TemporaryDirectory() as directory, socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
        probe.close()
        server = subprocess.Popen([program, "-l", "127.0.0.1", "-p", str(port), "-b", directory, "-f0"])
        try:
            wait_for(lambda: answers(port))
            count = JOBS // 10  # it syncs each job alone, which takes ten times as long
            putter, worker = Line(port), Line(port)
            puts = b"put 0 0 60 1\r\n0\r\n" * count

            def jobs() -> None:
                putter.pipeline(puts, count)
                worker.pipeline(b"reserve\r\n" * count, 2 * count)
                worker.pipeline(b"".join(b"delete %d\r\n" % i for i in range(1, count + 1)), count)

            before = cpu_s(server.pid)
            figures = {"whole jobs/s": rate(count, jobs)}
            figures["CPU us/job"] = (cpu_s(server.pid) - before) / count * 1e6
            return figures
        finally:
            server.terminate()
            server.wait(20)


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def main() -> None:
    """Whole jobs, of which a beanstalkd does a tenth, because each is synced alone."""
    peer = shutil.which("beanstalkd")
    measures = {"cronflowd": measure_ours}
    if peer:
        measures["beanstalkd -f0"] = partial(measure_beanstalkd, peer)
    else:
        print("beanstalkd: not installed, so there is nothing to compare with")
    for name, figures in alternate(ROUNDS, measures).items():
        print(f"{name}: " + ", ".join(f"{key} {value:,.0f}" for key, value in figures.items()))
