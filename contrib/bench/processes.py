"""Servers that live for one round, and what the kernel tells of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from contrib.bench.measure import Missing

ROOT = Path(__file__).parents[2]
PEERS = ROOT / ".bench"  # where `make bench-peers` puts what is not Debian's
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
PATIENCE_S = 600.0
COMPILED = tempfile.TemporaryDirectory()


@contextlib.contextmanager
def running(
    command: Sequence[str], cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A process that is ended with the block; its standard output can be read, line by line."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=cwd,
        # As whoever installs it has it: compiled once, and not at each start.
        env={
            **os.environ,
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": COMPILED.name,
            **(env or {}),
        },
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close() if pipe else None


def next_line(process: subprocess.Popen[str]) -> str:
    """What it says next; silence is a failure of the round."""
    assert process.stdout
    if line := process.stdout.readline():
        return line
    raise RuntimeError(f"{process.args} ended with {process.wait()}")


def program(name: str, package: str) -> str:
    """Where it is, or the word that it is missing."""
    if path := shutil.which(name):
        return path
    raise Missing(f"not installed (Debian: {package})")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(port: int) -> None:
    def answers() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return True
        return False

    wait_until(answers)


def wait_until(ready: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not ready():
        if time.monotonic() > until:
            raise RuntimeError("it did not come about in time")
        time.sleep(0.005)


def cpu_s(pid: int, *, with_children: bool = False) -> float:
    """Processor seconds so far; those of children count once they are waited for, in ticks of 10 ms."""
    if not with_children:
        # The process's own clock, as clock_getcpuclockid() names it: redis does much within a tick.
        return time.clock_gettime(~pid << 3 | 2)
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def switches(pid: int) -> int:
    """How often its threads were put on a processor: an idle one never is."""
    return sum(
        int(line.split()[1])
        for thread in Path(f"/proc/{pid}/task").glob("*/status")
        for line in thread.read_text().splitlines()
        if "ctxt_switches" in line
    )
