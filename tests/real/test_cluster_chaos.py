"""Leaders are killed, frozen and stopped, etcds too, while jobs run: none is lost, and none starts twice.

Each job makes a file that must not be there yet, so it says itself whether it was started twice.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.real.clusters import Etcds, Node, ask_until, leader_of
from tests.real.running import PATIENCE_S, ROOT, wait_until

BLOWS = min(100, int(os.environ.get("CRONFLOWD_KILLS", "4")))
LEASE_S = 2.0


class Clients(threading.Thread):
    """Somebody who adds tasks and runs jobs all the time, at any node, and notes what was answered."""

    def __init__(self, nodes: list[Node]) -> None:
        super().__init__(daemon=True)
        self.nodes = nodes
        self.tasks: list[str] = []
        self.runs: list[str] = []
        self.ended = threading.Event()

    def run(self) -> None:
        number = 0
        while not self.ended.wait(0.03):
            number += 1
            with suppress(OSError):
                self._ask(random.choice(self.nodes), f"t{number}")

    def _ask(self, node: Node, name: str) -> None:
        with node.connect() as client:
            client.settimeout(PATIENCE_S)
            client.sendall(f"HELLO\nADD name={name} 0 0 1 1 * true\nRUN job\nQUIT\n".encode())
            said = b""
            while data := client.recv(4096):
                said += data
                self._note(said.decode(), name)

    def _note(self, said: str, name: str) -> None:
        """Only whole lines: what was cut off was not said."""
        for line in said.split("\n")[:-1]:
            if line.startswith("OK ") and f" {name} " in line and name not in self.tasks:
                self.tasks.append(name)
            elif re.fullmatch(r"OK \d+", line) and line[3:] not in self.runs:
                self.runs.append(line[3:])


@contextmanager
def working(nodes: list[Node], directory: Path) -> Iterator[None]:
    """Two workers that know both nodes."""
    ports = ",".join(f"127.0.0.1:{node.worker_port}" for node in nodes)
    started = []
    for name in ("w1", "w2"):
        command = [sys.executable, "-m", "cronflowd", "worker", "--name", name, "--slots", "4"]
        command += ["--connect", ports, "--spool", str(directory / name)]
        with (directory / f"{name}.log").open("w") as log:
            started.append(subprocess.Popen(command, stderr=log, cwd=ROOT))
    try:
        yield
    finally:
        for each in started:
            each.kill()
            each.wait()


def strike(nodes: list[Node], etcds: Etcds, how: str) -> None:
    """One blow, and back to where all are there."""
    leader = leader_of(nodes)
    (other,) = (node for node in nodes if node is not leader)
    if how == "etcd":
        number = random.randrange(len(etcds.processes))
        etcds.kill(number)
        wait_until(etcds.answers)
        etcds.start(number)
        wait_until(lambda: any(node.leads for node in nodes))
    elif how == "freeze":
        leader.freeze()
        wait_until(lambda: other.leads)
        leader.thaw()
        wait_until(lambda: not leader.leads)
    else:
        leader.kill9() if how == "kill" else leader.stop()
        wait_until(lambda: other.leads)
        leader.start()


@pytest.mark.timeout(300 + 30 * BLOWS)
def test_nothing_is_lost_and_nothing_starts_twice(tmp_path: Path) -> None:
    """It is what users of such systems complain of most: jobs that are missed or doubled at elections."""
    seed = random.randrange(1 << 30)
    random.seed(seed)
    etcds = Etcds(tmp_path, 3)
    nodes = [Node(tmp_path / name, name, etcds, "--leader-lease", f"{LEASE_S:g}s") for name in "ab"]
    clients = Clients(nodes)
    try:
        for node in nodes:
            node.start()
        leader = leader_of(nodes)
        marks, doubled = tmp_path / "marks", tmp_path / "doubled"
        marks.mkdir()
        job = f"f={marks}/$CRONFLOW_RUN_ID; (set -C; : > $f) 2>/dev/null || echo $f >> {doubled}; sleep 0.2"
        leader.ask(f"ADD name=job overlap=allow keep=100000 0 0 1 1 * {job}")
        leader.ask(f'ADD name=tick overlap=allow keep=100000 "every 1 second" {job}')
        with working(nodes, tmp_path):
            wait_until(lambda: leader_of(nodes).ask("WORKERS")[-1:] == ["OK 2"])
            clients.start()
            blows = ["kill", "freeze", "etcd", "stop"]
            for number in range(BLOWS):
                strike(nodes, etcds, blows[number % 4])
            clients.ended.set()
            clients.join(PATIENCE_S)
            ask_until(nodes, "PAUSE tick", lambda text: text.startswith("OK"))
            idle = re.compile(r"^queued\t0\nrunning\t0\n", re.MULTILINE)
            ask_until(nodes, "STATUS", idle.search)
        check(leader_of(nodes), clients, marks, doubled)
    except AssertionError as error:
        raise AssertionError(f"seed {seed}") from error
    finally:
        clients.ended.set()
        for node in nodes:
            node.kill9()
        etcds.close()


def check(leader: Node, clients: Clients, marks: Path, doubled: Path) -> None:
    assert not doubled.exists(), doubled.read_text()
    assert clients.tasks and clients.runs
    assert set(clients.tasks) <= {row.split("\t")[1] for row in leader.ask("LIST")[:-1]}
    rows = [row.split("\t") for row in leader.ask("RUNS limit=1000000")[:-1]]
    assert set(clients.runs) <= {row[0] for row in rows}
    ran = {row[0] for row in rows if row[4] == "ok"}
    assert ran <= {mark.name for mark in marks.iterdir()}
    assert leader.ask("PROVE")[-1] == "OK balanced"
