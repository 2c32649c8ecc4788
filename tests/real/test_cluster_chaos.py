"""Leaders are killed, frozen and stopped, etcds too, while jobs run: none is lost, and none starts twice.

Each job makes a file that must not be there yet, so it says itself whether it was started twice. How
many blows of which kind: CRONFLOWD_BLOWS="kill=200 freeze=50". `pytest -s` shows the pauses.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from statistics import median

import pytest

from cronflowd.journal.etcd import Etcd, EtcdError, Unreachable, quote
from tests.real.clusters import Etcds, Node, ask_until, leader_of
from tests.real.running import PATIENCE_S, ROOT, wait_until

SHORT_LEASE_S, LEASE_S = 2.0, 3.0  # the latter is what a cluster has that was told of none
SHORT = "kill=1 freeze=1 etcd=1 stop=1"
FULL = os.environ.get("CRONFLOWD_BLOWS", "kill=200 freeze=50 etcd=50 quorum=20 stop=20")


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
def working(nodes: list[Node], directory: Path, within: Sequence[str] = ()) -> Iterator[None]:
    """Two workers that know both nodes."""
    ports = ",".join(f"{node.host}:{node.worker_port}" for node in nodes)
    started = []
    for name in ("w1", "w2"):
        command = [*within, sys.executable, "-m", "cronflowd", "worker", "--name", name, "--slots", "4"]
        command += ["--connect", ports, "--spool", str(directory / name)]
        with (directory / f"{name}.log").open("w") as log:
            started.append(subprocess.Popen(command, stderr=log, cwd=ROOT))
    try:
        yield
    finally:
        for each in started:
            each.kill()
            each.wait()


class Blows:
    """Strikes, and measures for how long nobody led, or no job began."""

    def __init__(self, nodes: list[Node], etcds: Etcds, marks: Path, lease_s: float) -> None:
        self.nodes, self.etcds, self.marks, self.lease_s = nodes, etcds, marks, lease_s
        self.pauses: dict[str, list[float]] = defaultdict(list)
        self.kept = 0  # etcds' leaders that fell, and ours did not

    def strike(self, how: str) -> None:
        """One blow, and back to where all are there."""
        leader = leader_of(self.nodes)
        (other,) = (node for node in self.nodes if node is not leader)
        if how == "etcd":
            self._etcd()
        elif how == "quorum":
            self._quorum()
        elif how == "freeze":
            leader.freeze()
            self._measure(how, other)
            leader.thaw()
            wait_until(lambda: not leader.leads)
        else:
            since_s = time.monotonic()
            leader.kill9() if how == "kill" else leader.stop()
            self._measure(how, other, since_s)
            leader.start()

    def _measure(self, how: str, other: Node, since_s: float | None = None) -> None:
        since_s = since_s or time.monotonic()
        wait_until(lambda: other.leads)
        self.pauses[f"{how}: leads"].append(time.monotonic() - since_s)
        self._job_begins(how, since_s)

    def _job_begins(self, how: str, since_s: float) -> None:
        before = len(os.listdir(self.marks))
        wait_until(lambda: len(os.listdir(self.marks)) > before)
        self.pauses[f"{how}: a job begins"].append(time.monotonic() - since_s)

    def _etcd(self) -> None:
        time.sleep(self.lease_s)  # after the blow before, nothing is left of a lease but what it was then
        leader = leader_of(self.nodes)
        said, number, since_s = leader.said[-1], self.etcds.leader(), time.monotonic()
        self.etcds.kill(number)
        threading.Thread(target=self._etcd_writes, args=(since_s,), daemon=True).start()
        ask_until(self.nodes, "SET job title=x\nQUIT", lambda text: text.startswith("OK"))
        self.pauses["etcd: an order is taken"].append(time.monotonic() - since_s)
        self.kept += leader.said[-1] == said
        self.etcds.start(number)
        wait_until(lambda: self.etcds.members_up() == len(self.etcds.clients))

    def _etcd_writes(self, since_s: float) -> None:
        """What of the pause is etcd's own."""
        is_done = False
        while not is_done:
            with suppress(Unreachable, EtcdError), closing(Etcd(self.etcds.members)) as etcd:
                is_done = bool(etcd.call("kv/put", {"key": quote(b"x")}, 0.2))
        self.pauses["etcd: it writes itself"].append(time.monotonic() - since_s)

    def _quorum(self) -> None:
        lost = random.sample(range(len(self.etcds.clients)), 2)
        for number in lost:
            self.etcds.kill(number)
        wait_until(lambda: not any(node.leads for node in self.nodes))
        for node in self.nodes:
            assert node.nc("ADD name=never 0 0 1 1 * true").startswith("ERR not-leader none ")
        for number in lost:
            self.etcds.start(number)
        wait_until(self.etcds.answers)
        since_s = time.monotonic()
        leader_of(self.nodes)
        self.pauses["quorum: leads"].append(time.monotonic() - since_s)
        self._job_begins("quorum", since_s)

    def tell(self) -> Iterator[str]:
        for what, took in sorted(self.pauses.items()):
            yield f"{what}: {len(took)} times, median {median(took):.2f} s, longest {max(took):.2f} s"
        if took := self.pauses["etcd: an order is taken"]:
            yield f"etcd: the same node led on {self.kept} of {len(took)} times"
        yield f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, lease {self.lease_s:g} s"


@pytest.mark.timeout(600)
def test_nothing_is_lost_and_nothing_starts_twice(tmp_path: Path) -> None:
    """It is what users of such systems complain of most: jobs that are missed or doubled at elections."""
    suffer(tmp_path, SHORT, SHORT_LEASE_S)


@pytest.mark.long
@pytest.mark.timeout(0)
def test_nothing_is_lost_however_often(tmp_path: Path) -> None:
    """What goes wrong once in a hundred elections goes wrong at somebody's every month."""
    suffer(tmp_path, FULL, LEASE_S)


def suffer(directory: Path, told: str, lease_s: float) -> None:
    """All blows told of, in any order, while clients and workers are at it."""
    seed = random.randrange(1 << 30)
    random.seed(seed)
    blows = [
        how for how, _, count in (each.partition("=") for each in told.split()) for _ in range(int(count))
    ]
    random.shuffle(blows)
    etcds = Etcds(directory, 3)
    nodes = [Node(directory / name, name, etcds, "--leader-lease", f"{lease_s:g}s") for name in "ab"]
    clients = Clients(nodes)
    try:
        for node in nodes:
            node.start()
        leader = leader_of(nodes)
        marks, doubled = directory / "marks", directory / "doubled"
        marks.mkdir()
        job = f"f={marks}/$CRONFLOW_RUN_ID; (set -C; : > $f) 2>/dev/null || echo $f >> {doubled}; sleep 0.2"
        leader.ask(f"ADD name=job overlap=allow keep=100000 0 0 1 1 * {job}")
        leader.ask(f'ADD name=tick overlap=allow keep=100000 "every 1 second" {job}')
        striking = Blows(nodes, etcds, marks, lease_s)
        with working(nodes, directory):
            wait_until(lambda: leader_of(nodes).ask("WORKERS")[-1:] == ["OK 2"])
            clients.start()
            for how in blows:
                striking.strike(how)
            clients.ended.set()
            clients.join(PATIENCE_S)
            ask_until(nodes, "PAUSE tick", lambda text: text.startswith("OK"))
            idle = re.compile(r"^queued\t0\nrunning\t0\n", re.MULTILINE)
            ask_until(nodes, "STATUS", idle.search)
            print("", *striking.tell(), sep="\n")
            check(leader_of(nodes), clients, marks, doubled)
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {error}") from error
    finally:
        clients.ended.set()
        for node in nodes:
            node.kill9()
        etcds.close()


def check(leader: Node, clients: Clients, marks: Path, doubled: Path) -> None:
    assert not doubled.exists(), doubled.read_text()
    assert clients.tasks and clients.runs
    names = [row.split("\t")[1] for row in leader.ask("LIST")[:-1]]
    assert set(clients.tasks) <= set(names)
    assert "never" not in names
    rows = [row.split("\t") for row in leader.ask("RUNS limit=1000000")[:-1]]
    assert set(clients.runs) <= {row[0] for row in rows}
    ran = {row[0] for row in rows if row[4] == "ok"}
    assert ran <= {mark.name for mark in marks.iterdir()}
    # Those without a number never were: nobody led at that moment, or it was just paused.
    assert [row for row in rows if row[4] != "ok" and row[0] != "-"] == []
    assert leader.ask("PROVE")[-1] == "OK balanced"
    workers = [row.split("\t") for row in leader.ask("WORKERS")[:-1]]
    assert [(row[0], row[3]) for row in workers] == [("w1", "0"), ("w2", "0")], "a slot is kept by a ghost"
    print(f"\n{len(clients.tasks)} tasks and {len(clients.runs)} runs acknowledged, {len(ran)} ran")
