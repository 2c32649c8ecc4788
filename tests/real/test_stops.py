"""TERM to a busy daemon: what was decided leaves, what did not leave waits, and nothing is lost by it."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import Counter
from contextlib import suppress

import pytest

from tests.real.running import Daemon, StartDaemon, wait_until

STOPS = 20 if os.environ.get("CRONFLOWD_LONG") else 5


class Client(threading.Thread):
    """Asks for one job after the other, pipelined, until the daemon has gone."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__(daemon=True)
        self.connection = socket.create_connection(("127.0.0.1", daemon.port), timeout=10)

    def run(self) -> None:
        orders = b"NOW true\n" * 50
        with self.connection, suppress(OSError):
            self.connection.sendall(b"HELLO\n")
            while True:
                self.connection.sendall(orders)
                self.connection.recv(65536)


class Taker(threading.Thread):
    """A worker that takes orders, slowly, and ends each; it remembers every order it was given."""

    def __init__(self, daemon: Daemon, held: set[str]) -> None:
        super().__init__(daemon=True)
        self.connection = socket.create_connection(("127.0.0.1", daemon.worker_port), timeout=10)
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
        taker.join(10)
        orders.update(taker.orders)
        daemon.start()
    taker = Taker(daemon, held)
    taker.start()
    wait_until(lambda: all(daemon.ask(f"RUNS state={state}") == ["OK 0"] for state in ("queued", "sent")), 90)
    orders.update(taker.orders)
    assert daemon.ask("RUNS state=lost limit=10") == ["OK 0"]
    assert [run for run, count in orders.items() if count > 1] == []
    assert daemon.ask("PROVE")[-1] == "OK balanced"
