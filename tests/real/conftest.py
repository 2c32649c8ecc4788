"""The real daemon as a fixture: its own process, real ports, real files.

`daemon` is one of its own for a test; `start_daemon` starts as many as wanted, with any
flags. Whatever a test leaves running is ended afterwards, by its process id.
"""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

PATIENCE_S = 20.0  # for what takes a tenth of that on a quiet machine
READY = re.compile(r"cronflowd ready control=(\S+) workers=(\S+) pid=(\d+)\n")
PROGRAM = (sys.executable, "-m", "cronflowd")
ROOT = Path(__file__).parents[2]


class Daemon:
    """One data directory, and the daemon that serves it now."""

    def __init__(self, data: Path, *flags: str) -> None:
        self.data = data
        self.flags = flags
        self.log = data.with_name(data.name + ".log")
        self.control = "127.0.0.1:0"  # the first of each, with the real port once it is ready
        self.workers = "127.0.0.1:0"
        self.process: subprocess.Popen[str] | None = None
        self.start()

    @property
    def host(self) -> str:
        return "127.0.0.1"

    @property
    def port(self) -> int:
        return int(self.control.rpartition(":")[2])

    @property
    def workers_port(self) -> int:
        return int(self.workers.rpartition(":")[2])

    @property
    def unix_socket(self) -> Path:
        return self.data / "control.sock"

    @property
    def pid(self) -> int:
        assert self.process
        return self.process.pid

    def start(self) -> None:
        """Starts it on the same ports as before, and returns when it serves."""
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [
                    *PROGRAM,
                    "--data",
                    self.data,
                    "--listen",
                    self.control,
                    "--listen-workers",
                    self.workers,
                    *self.flags,
                ],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE_S)
        line = self.process.stdout.readline() if ready else "nothing in time"
        match = READY.fullmatch(line)
        assert match, f"instead of the ready line: {line!r}; its log:\n{self.log.read_text()}"
        self.control, self.workers = match[1].split(",")[0], match[2].split(",")[0]

    def connect(self) -> socket.socket:
        """A connection to the control port."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)

    def nc(self, *lines: str) -> str:
        """Sends lines, ends its input, and gives back all that was answered."""
        with self.connect() as client:
            client.sendall("".join(line + "\n" for line in lines).encode())
            client.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: client.recv(65536), b"")).decode()

    def until(self, line: str, is_wanted: Callable[[str], bool]) -> str:
        """Asks again and again until the answer is the one wanted."""
        give_up_at = time.monotonic() + PATIENCE_S
        while not is_wanted(answer := self.nc(line)):
            assert time.monotonic() < give_up_at, f"{line} still answers {answer!r}"
            time.sleep(0.02)
        return answer

    def kill9(self) -> None:
        """As the kernel does it when memory runs out."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """TERM; its exit code."""
        return self._end(signal.SIGTERM)

    def restart(self) -> None:
        """A daemon again, on the same ports and data; ends the old one with TERM if it still runs."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Ends it and the local worker it may have started."""
        children = self.children()
        self.stop()
        for child in children:
            if str(self.data) in _command_of(child):
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)

    def children(self) -> list[int]:
        """The processes it has started: its local worker."""
        if self.process is None:
            return []
        with suppress(OSError):
            return [
                int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
            ]
        return []

    def _end(self, how: signal.Signals) -> int:
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(how)
        try:
            return process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            assert process.stdout
            process.stdout.close()


def _command_of(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


@pytest.fixture
def start_daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Starts a daemon: `start_daemon("--tz", "UTC")`; without flags it has no local worker."""
    started: list[Daemon] = []

    def start(*flags: str, data: Path | None = None) -> Daemon:
        directory = data or tmp_path / f"data{len(started)}"
        local = () if "--local-worker" in flags else ("--local-worker", "0")
        started.append(Daemon(directory, *local, *flags))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture
def daemon(start_daemon: Callable[..., Daemon]) -> Daemon:
    """A daemon without a local worker."""
    return start_daemon()
