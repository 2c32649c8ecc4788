"""Real daemons and workers for tests, and a client that speaks like netcat."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PATIENCE_S = 20.0
ROOT = Path(__file__).parents[2]


def wait_until(ready: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    """Looks until it is so; fails when it never becomes so."""
    until = time.monotonic() + patience_s
    while not ready():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.01)


class Daemon:
    """One data directory and the daemons that serve it, one after another, on the same ports."""

    def __init__(self, data: Path, *flags: str) -> None:
        self.data = data
        self.flags = flags
        self.port = self.worker_port = 0
        self.log = data.with_suffix(".log")
        self.process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        assert self.process
        return self.process.pid

    def launch(self) -> subprocess.Popen[str]:
        """Starts the process without waiting for it."""
        command = [sys.executable, "-m", "cronflowd", "--data", str(self.data), "--tz", "UTC"]
        command += ["--listen", f"127.0.0.1:{self.port}", "--listen-workers", f"127.0.0.1:{self.worker_port}"]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*command, *self.flags], stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT
            )
        return self.process

    def start(self) -> None:
        """Starts it and waits for the ready line."""
        process = self.launch()
        assert process.stdout
        line = process.stdout.readline()
        assert line.startswith("cronflowd ready "), (line, self.log.read_text())
        words = dict(word.split("=", 1) for word in line.split()[2:])
        self.port = int(words["control"].rpartition(":")[2])
        self.worker_port = int(words["workers"].rpartition(":")[2])
        assert int(words["pid"]) == process.pid

    def start_and_fail(self) -> tuple[int, str]:
        """Starts one that cannot serve: (exit status, what it said on stderr)."""
        process = self.launch()
        assert process.stdout
        assert process.stdout.read() == ""
        return self._ended(), self.log.read_text()

    def ask(self, *lines: str) -> list[str]:
        """Sends lines, ends the input, and returns all reply lines."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S) as connection:
            connection.sendall("".join(f"{line}\n" for line in lines).encode())
            connection.shutdown(socket.SHUT_WR)
            with connection.makefile("r", encoding="utf-8", newline="\n") as replies:
                return replies.read().splitlines()

    def signal(self, number: int) -> int:
        """Sends a signal and waits for the end: the exit status."""
        assert self.process
        self.process.send_signal(number)
        return self._ended()

    def kill9(self) -> None:
        self.signal(signal.SIGKILL)

    def stop(self) -> int:
        """TERM; the exit status."""
        return self.signal(signal.SIGTERM)

    def _ended(self) -> int:
        assert self.process
        status = self.process.wait(PATIENCE_S)
        if self.process.stdout:
            self.process.stdout.close()
        return status


class Worker:
    """A worker process of its own."""

    def __init__(self, daemon: Daemon, name: str, spool: Path, slots: int = 2, *flags: str) -> None:
        self.daemon = daemon
        self.name = name
        self.spool = spool
        self.slots = slots
        self.flags = flags
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "cronflowd", "worker", "--name", self.name, *self.flags]
        command += ["--connect", f"127.0.0.1:{self.daemon.worker_port}", "--slots", str(self.slots)]
        with self.daemon.log.open("a") as log:
            self.process = subprocess.Popen([*command, "--spool", str(self.spool)], stderr=log, cwd=ROOT)
        wait_until(self.is_ready)

    def is_ready(self) -> bool:
        rows = self.daemon.ask("WORKERS")
        return any(row.startswith(f"{self.name}\tready\t") for row in rows)

    def kill9(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def stop(self) -> None:
        assert self.process
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE_S)
            return
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE_S)
