"""Real daemons and workers for tests, and a client that speaks like netcat."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.lib.waiting import PATIENCE_S

READY = re.compile(r"cronflowd ready control=\S+:(\d+) workers=\S+:(\d+) pid=(\d+)(?: http=\S+:(\d+))?\n")
StartDaemon = Callable[..., "Daemon"]
ROOT = Path(__file__).parents[2]


def wait_until(ready: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    """Looks until it is so, less and less often: a look is work, too; fails when it never becomes so."""
    began = time.monotonic()
    while not ready():
        waited_s = time.monotonic() - began
        assert waited_s < patience_s, "it did not happen in time"
        time.sleep(min(0.005 + waited_s / 10, 0.05))


class Daemon:
    """One data directory and the daemons that serve it, one after another, on the same ports."""

    def __init__(self, data: Path, *flags: str) -> None:
        self.data = data
        self.flags = flags
        self.module = "cronflowd"
        self.environment: dict[str, str] = {}  # beside ours
        self.within: tuple[str, ...] = ()  # what starts it elsewhere: see machines.py
        self.host = "127.0.0.1"
        self.port = self.worker_port = 0  # any; the same ones again after the first start
        self.http_port = 0  # of --http, if that is among the flags
        self.log = data.with_name(data.name + ".log")
        self.process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        assert self.process
        return self.process.pid

    @property
    def unix_socket(self) -> Path:
        return self.data / "control.sock"

    # --- its life ---

    def launch(self) -> subprocess.Popen[str]:
        """Starts the process without waiting for it."""
        command = [*self.within, sys.executable, "-m", self.module, "--data", str(self.data), "--tz", "UTC"]
        command += ["--listen", f"{self.host}:{self.port}"]
        command += ["--listen-workers", f"{self.host}:{self.worker_port}"]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*command, *self.flags],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=ROOT,
                env=os.environ | self.environment,
            )
        return self.process

    def start(self) -> None:
        """Starts it and waits until it serves."""
        process = self.launch()
        assert process.stdout
        ready, _, _ = select.select([process.stdout], [], [], PATIENCE_S)
        line = process.stdout.readline() if ready else "nothing in time"
        match = READY.fullmatch(line)
        assert match, f"instead of the ready line: {line!r}; its log:\n{self.log.read_text()}"
        self.port, self.worker_port, pid, self.http_port = (int(text or 0) for text in match.groups())
        assert pid == process.pid

    def start_and_fail(self) -> tuple[int, str]:
        """Starts one that cannot serve: (exit status, what it said on stderr)."""
        process = self.launch()
        assert process.stdout
        assert process.stdout.read() == ""
        return self._ended(), self.log.read_text()

    def signal(self, number: int) -> int:
        """Sends a signal and waits for the end: the exit status."""
        if self.process is None:
            return 0
        self.process.send_signal(number)
        return self._ended()

    def kill9(self) -> None:
        """As the kernel does it when memory runs out."""
        self.signal(signal.SIGKILL)

    def stop(self) -> int:
        """TERM; the exit status."""
        return self.signal(signal.SIGTERM)

    def restart(self) -> None:
        """A daemon again, on the same ports and data; ends the old one with TERM if it still runs."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Ends it, and the local worker it may have started."""
        children = self.children()
        self.stop()
        for child in children:
            if str(self.data) in _command_of(child):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)

    def children(self) -> list[int]:
        """The processes it has started: its local worker."""
        if self.process is None:
            return []
        with contextlib.suppress(OSError):
            # A child belongs to the thread that started it.
            threads = Path(f"/proc/{self.pid}/task").glob("*/children")
            return [int(pid) for thread in threads for pid in thread.read_text().split()]
        return []

    def gateway(self) -> int:
        """The process that serves HTTP, which it has started; 0 while there is none."""
        return next((child for child in self.children() if " web " in _command_of(child)), 0)

    def _ended(self) -> int:
        process, self.process = self.process, None
        assert process
        try:
            return process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            if process.stdout:
                process.stdout.close()

    # --- talking to it ---

    def connect(self) -> socket.socket:
        """A connection to the control port."""
        return socket.create_connection((self.host, self.port), timeout=PATIENCE_S)

    def nc(self, *lines: str) -> str:
        """Sends lines, ends its input, and gives back all that was answered."""
        with self.connect() as client:
            client.sendall("".join(f"{line}\n" for line in lines).encode())
            client.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: client.recv(65536), b"")).decode()

    def ask(self, *lines: str) -> list[str]:
        """The same as lines."""
        return self.nc(*lines).split("\n")[:-1]

    def until(self, line: str, is_wanted: Callable[[str], bool]) -> str:
        """Asks again and again until the answer is the one wanted."""
        answer = ""

        def look() -> bool:
            nonlocal answer
            answer = self.nc(line)
            return is_wanted(answer)

        wait_until(look)
        return answer


def _command_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


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
        self.launch()
        wait_until(self.is_ready)

    def launch(self) -> None:
        """Starts the process without waiting for it."""
        command = [sys.executable, "-m", "cronflowd", "worker", "--name", self.name, *self.flags]
        command += ["--connect", f"127.0.0.1:{self.daemon.worker_port}", "--slots", str(self.slots)]
        with self.daemon.log.open("a") as log:
            self.process = subprocess.Popen([*command, "--spool", str(self.spool)], stderr=log, cwd=ROOT)

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


def fill(disk: Path) -> Path:
    """The file that takes all the room which was left there."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(4096)) == 4096:
            pass
    return ballast
