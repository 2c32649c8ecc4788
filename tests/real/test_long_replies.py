"""Long replies come back by themselves, and a stranger's flood is nobody else's trouble."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryFile

import pytest

from cronflowd.net.outbox import PIECE_BYTES

from .running import PATIENCE_S, Daemon, StartDaemon

pytestmark = pytest.mark.real

WIDTH = 97  # characters of a row; `1`, a tab and the newline make it 100 bytes
EDGES = [
    PIECE_BYTES * pieces + more
    for pieces, spread in ((1, 662), (2, 1324), (3, 1986))  # rows; a piece ends with the row that fills it
    for more in (-1, 0, 1, spread - 1, spread, spread + 1, spread + 100)
]
SIZES = sorted({*EDGES, 160_009, 600_010})


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, dict[int, int]]]:
    """A daemon with one run for each size: (it, run by the size of the reply to its LOG)."""
    daemon = Daemon(tmp_path_factory.mktemp("logs") / "data", "--local-worker", "2")
    daemon.start()
    try:
        for number, size in enumerate(SIZES):
            length, width = text_for(size)
            rows = f"head -c {length} /dev/zero | tr '\\0' x | fold -w {width}; echo"
            daemon.nc(f"ADD name=t{number} @yearly {rows}")
        runs = {size: int(daemon.nc(f"RUN t{number}").split()[1]) for number, size in enumerate(SIZES)}
        daemon.until("RUNS limit=1000", lambda answer: answer.count("\tok\t") == len(SIZES))
        yield daemon, runs
    finally:
        daemon.close()


def text_for(size: int) -> tuple[int, int]:
    """(characters, characters of a row) of output whose LOG is a reply of exactly this size."""
    for width in range(WIDTH, 2 * WIDTH):
        for rows in range(size // (width + 3) - 1, size // (width + 3) + 2):
            length = size - len(f"OK {rows}\n") - 3 * rows
            if -(-length // width) == rows:
                return length, width
    raise AssertionError("no number of rows gives it")


@pytest.mark.parametrize("client", ["nc.openbsd", "nc.traditional"])
def test_a_reply_of_any_size_gives_the_prompt_back(client: str, logs: tuple[Daemon, dict[int, int]]) -> None:
    """The netcat on most machines ends only when we do; after 160,009 bytes it waited for ever."""
    if not shutil.which(client):
        pytest.skip(f"needs {client}")
    daemon, runs = logs
    with ExitStack() as clients:
        asked = {
            size: clients.enter_context(asking(client, daemon, f"LOG {run}")) for size, run in runs.items()
        }
        came = {size: len(each.communicate(timeout=PATIENCE_S)[0]) for size, each in asked.items()}
        # On a machine that stands still for a second a line is shown before it is whole, as a row more.
        assert all(came[size] - size in (0, len("1\t\tno-newline\n")) for size in runs), came


@contextmanager
def asking(client: str, daemon: Daemon, line: str) -> Iterator[subprocess.Popen[bytes]]:
    """`echo LINE | client`, started."""
    with TemporaryFile() as question:
        question.write(line.encode() + b"\n")
        question.seek(0)
        with subprocess.Popen(
            [client, daemon.host, str(daemon.port)], stdin=question, stdout=subprocess.PIPE
        ) as asks:
            try:
                yield asks
            finally:
                asks.kill()


# --- a stranger's flood -----------------------------------------------------------------------

FLOOD = """
import socket, sys
while True:
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as stranger:
        try:
            while True:
                stranger.sendall(b"\\n" * 65536)
                print("+", flush=True)
        except OSError:
            pass
"""


@contextmanager
def flood(port: int) -> Iterator[None]:
    """A process that has sent newlines and goes on."""
    with subprocess.Popen([sys.executable, "-c", FLOOD, str(port)], stdout=subprocess.PIPE) as stranger:
        try:
            assert stranger.stdout
            stranger.stdout.readline()
            yield
            assert stranger.poll() is None
        finally:
            stranger.kill()


def typical_wait_s(client: socket.socket) -> float:
    waits_s = []
    for _ in range(40):
        began_at = time.monotonic()
        client.sendall(b"PING\n")
        assert client.recv(100) == b"PONG\n"
        waits_s.append(time.monotonic() - began_at)
    return median(waits_s)


def test_a_strangers_newlines_hold_up_nobody_else(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """One who has shown no token had the whole daemon for 6.2 s with each full buffer of newlines."""
    token = tmp_path / "token"
    token.write_text("s3cret-token-of-32-characters-xx\n")
    token.chmod(0o600)
    daemon = start_daemon("--token-file", str(token))
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE_S)
        client.connect(str(daemon.unix_socket))
        quiet_s = typical_wait_s(client)
        with flood(daemon.port):
            # Where there is one processor for all of them, each waits for a turn of the others.
            assert typical_wait_s(client) < max(1.0, 100 * quiet_s)
