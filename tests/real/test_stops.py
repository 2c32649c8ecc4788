"""TERM to a busy daemon: what was decided leaves, what did not leave waits, and nothing is lost by it."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.lib.waiting import PATIENCE_S
from tests.real.running import Daemon, StartDaemon, Worker, wait_until

STOPS = 20 if os.environ.get("CRONFLOWD_LONG") else 5
KILLS = 100 if os.environ.get("CRONFLOWD_LONG") else 6
WAITING = ("queued", "sent", "running")


class Client(threading.Thread):
    """Asks for one job after the other, pipelined, until the daemon has gone."""

    def __init__(self, daemon: Daemon, orders: bytes = b"NOW true\n" * 50, times: int = 100_000) -> None:
        super().__init__(daemon=True)
        self.orders, self.times = orders, times
        self.connection = socket.create_connection(("127.0.0.1", daemon.port), timeout=PATIENCE_S)

    def run(self) -> None:
        with self.connection, suppress(OSError):
            self.connection.sendall(b"HELLO\n")
            for _ in range(self.times):
                self.connection.sendall(self.orders)
                self.connection.recv(65536)
            while self.connection.recv(65536):
                pass


class Taker(threading.Thread):
    """A worker that takes orders, slowly, and ends each; it remembers every order it was given."""

    def __init__(self, daemon: Daemon, held: set[str]) -> None:
        super().__init__(daemon=True)
        self.connection = socket.create_connection(("127.0.0.1", daemon.worker_port), timeout=PATIENCE_S)
        running = ",".join(sorted(held))
        self.connection.sendall(f"HELLO name=w slots=1000 running={running}\n".encode())
        self.held = held
        self.orders: list[str] = []

    def run(self) -> None:
        rest = b""
        with self.connection, suppress(OSError):
            while data := self.connection.recv(2048):
                *lines, rest = (rest + data).split(b"\n")
                self.connection.sendall("".join(map(self.take, map(bytes.decode, lines))).encode())
                time.sleep(0.001)  # less than comes in: orders pile up on their way

    def take(self, line: str) -> str:
        """What it says to a line."""
        word, *words = line.split(" ", 3)
        if word == "RUN":
            self.orders.append(words[0])
            self.held.add(f"{words[0]}:{words[1]}")
            return f"DONE {words[0]} {words[1]} 0\n"
        if word == "ACK":
            self.held.discard(f"{words[0]}:{words[1]}")
        return ""


@pytest.mark.timeout(300)
def test_no_stop_loses_a_run_that_never_began(start_daemon: StartDaemon) -> None:
    """Every restart of the service is one of these; `lost` is for workers that are gone."""
    daemon = start_daemon("--lease", "6s", "--heartbeat", "2s")
    held: set[str] = set()
    orders: Counter[str] = Counter()
    for _ in range(STOPS):
        taker, client = Taker(daemon, held), Client(daemon)
        taker.start()
        client.start()
        wait_until(lambda taker=taker: len(taker.orders) > 300)
        assert daemon.stop() == 0
        taker.join(PATIENCE_S)
        orders.update(taker.orders)
        daemon.start()
    taker = Taker(daemon, held)
    taker.start()
    wait_until(lambda: all(daemon.ask(f"RUNS state={state}") == ["OK 0"] for state in ("queued", "sent")), 90)
    orders.update(taker.orders)
    assert daemon.ask("RUNS state=lost limit=10") == ["OK 0"]
    assert [run for run, count in orders.items() if count > 1] == []
    assert daemon.ask("PROVE")[-1] == "OK balanced"


@pytest.mark.timeout(600)
def test_no_kill_of_the_daemon_loses_a_run_or_starts_one_twice(
    start_daemon: StartDaemon, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """The decision to send is on disk before the order leaves: whatever had not left, our worker can tell."""
    marks = tmp_path / "marks"
    marks.mkdir()
    daemon = start_daemon()
    worker = start_worker(daemon, "w", slots=8)
    job = f"NOW keep=100000 set -C; : > {marks}/$CRONFLOW_RUN_ID || exit 99\n".encode()
    chance = random.Random(20261129)
    for _ in range(KILLS):
        client = Client(daemon, job * 5, 20)
        client.start()
        begun = len(list(marks.iterdir()))
        wait_until(lambda begun=begun: len(list(marks.iterdir())) > begun + 20)
        time.sleep(chance.uniform(0, 0.05))  # any moment will do; this one is only not always the same
        daemon.kill9()
        client.join(PATIENCE_S)
        daemon.start()
    wait_until(lambda: all(daemon.ask(f"RUNS state={state}") == ["OK 0"] for state in WAITING), 120)
    assert daemon.ask("RUNS state=lost limit=10") == ["OK 0"]
    assert daemon.ask("RUNS state=failed limit=10") == ["OK 0"]
    assert daemon.ask("PROVE")[-1] == "OK balanced"
    assert worker.process
    assert worker.process.poll() is None
