"""The wire is cut between the leader and etcd, its workers or its clients; nobody dies, and nobody is told.

Three etcds, two nodes, the workers and the clients are a machine each, as far as the kernel is
concerned. CRONFLOWD_CUTS=N says how many cuts the long test makes; `pytest -s` shows the pauses.
"""

from __future__ import annotations

import os
import random
import re
import socket
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median

import pytest

from tests.real.clusters import Etcds, Node, ask_until, leader_of
from tests.real.machines import Machine, Net
from tests.real.running import PATIENCE_S, wait_until
from tests.real.test_cluster_chaos import Clients, check, working

LEASE_S = 4.0  # a machine that stands still for so long loses it, and two of three cuts must not cost it
CUTS = int(os.environ.get("CRONFLOWD_CUTS", "60"))
DIAL_S = 1.0


class FarEtcds(Etcds):
    """Asked from where the clients are."""

    def __init__(self, directory: Path, machines: list[Machine], clients: Machine) -> None:
        self._from = clients
        super().__init__(directory, len(machines), machines=machines)

    def answers(self) -> bool:
        return self._from.call(super().answers)


class FarNode(Node):
    """Asked from where the clients are; who does not hear it soon gives up."""

    def __init__(self, data: Path, name: str, etcds: Etcds, machine: Machine, clients: Machine) -> None:
        super().__init__(data, name, etcds, "--insecure", "--leader-lease", f"{LEASE_S:g}s")
        self.machine, self._from = machine, clients
        self.host, self.within = machine.address, machine.within

    def connect(self) -> socket.socket:
        found = self._from.call(socket.create_connection, (self.host, self.port), DIAL_S)
        found.settimeout(PATIENCE_S)
        return found


class Place:
    """The whole of it, and what is found out there."""

    def __init__(self, directory: Path, net: Net) -> None:
        *members, a, b, self.workers, self.clients = net.machines
        self.net, self.members, self.directory = net, members, directory
        self.etcds = FarEtcds(directory, members, self.clients)
        self.nodes = [
            FarNode(directory / name, name, self.etcds, machine, self.clients)
            for name, machine in (("a", a), ("b", b))
        ]
        self.asking = Clients(list[Node](self.nodes))
        self.marks, self.doubled = directory / "marks", directory / "doubled"
        self.pauses: dict[str, list[float]] = defaultdict(list)

    def leader(self) -> FarNode:
        found = leader_of(list[Node](self.nodes))
        assert isinstance(found, FarNode)
        return found

    def other(self, node: FarNode) -> FarNode:
        return self.nodes[1 - self.nodes.index(node)]

    def job_begins(self) -> bool:
        """Whether one begins soon, wherever."""
        before = len(os.listdir(self.marks))
        wait_until(lambda: len(os.listdir(self.marks)) > before)
        return True

    # --- what is cut ---

    def etcd(self, leader: FarNode) -> None:
        """Clients and workers still reach it, and it must not answer them."""
        since_s, other = time.monotonic(), self.other(leader)
        self.net.cut(leader.machine, self.members, both=random.random() < 0.7)
        wait_until(lambda: other.leads)
        self.pauses["etcd: leads"].append(time.monotonic() - since_s)
        self.job_begins()
        self.pauses["etcd: a job begins"].append(time.monotonic() - since_s)
        wait_until(lambda: not leader.leads)
        assert leader.nc("ADD name=never 0 0 1 1 * true").startswith("ERR not-leader none ")

    def from_workers(self, leader: FarNode) -> None:
        """It leads on, and jobs wait; those under way report when they can."""
        self.net.cut(leader.machine, [self.workers])
        epoch = leader.epoch
        wait_until(lambda: leader.ask("WORKERS") == ["OK 0"] or self._all_away(leader))
        assert (leader.leads, leader.epoch) == (True, epoch)
        since_s = time.monotonic()
        self.net.mend()
        self.job_begins()
        self.pauses["workers: a job begins once it is mended"].append(time.monotonic() - since_s)

    @staticmethod
    def _all_away(leader: Node) -> bool:
        return not any("\tready\t" in row for row in leader.ask("WORKERS"))

    def from_clients(self, leader: FarNode) -> None:
        """Whoever asks the other node is answered as ever."""
        since_s, epoch = time.monotonic(), leader.epoch
        self.net.cut(leader.machine, [self.clients])
        with pytest.raises(TimeoutError):
            leader.connect()
        assert self.other(leader).nc("ADD name=by-the-other 0 0 1 1 * true").startswith(("OK", "ERR exists"))
        self.job_begins()
        assert (leader.leads, leader.epoch) == (True, epoch)
        self.pauses["clients: all is seen to go on"].append(time.monotonic() - since_s)

    def from_the_other(self, leader: FarNode) -> None:
        """The standby cannot carry anything there, and says so; it copies on, by way of etcd."""
        self.net.cut(leader.machine, [self.other(leader).machine])
        answer = self.other(leader).nc("ADD name=never 0 0 1 1 * true")
        assert answer.startswith("ERR not-leader none "), answer
        self.job_begins()
        assert leader.leads

    def standby_from_etcd(self, leader: FarNode) -> None:
        """Nothing changes for anybody; it goes on from where it was."""
        self.net.cut(self.other(leader).machine, self.members)
        self.job_begins()
        assert leader.leads

    def all_round(self, leader: FarNode) -> None:
        """Its machine is off the net."""
        since_s, other = time.monotonic(), self.other(leader)
        everybody = [each for each in self.net.machines if each is not leader.machine]
        self.net.cut(leader.machine, everybody)
        wait_until(lambda: other.leads)
        self.pauses["everybody: leads"].append(time.monotonic() - since_s)
        self.job_begins()
        self.pauses["everybody: a job begins"].append(time.monotonic() - since_s)

    def mended(self) -> None:
        """All reach each other again, and are what they were."""
        self.net.mend()
        wait_until(lambda: sum(node.leads for node in self.nodes) == 1)
        leader = self.leader()
        for node in self.nodes:
            node.until("WORKERS", lambda text: text.count("\tready\t") == 2)
        wait_until(lambda: self.other(leader).ask("LOCAL", "STATUS", "QUIT")[-2].endswith("behind=0"))

    def close(self) -> None:
        self.asking.ended.set()
        for node in self.nodes:
            with suppress(OSError):
                node.kill9()
        self.etcds.close()

    def tell(self) -> Iterator[str]:
        for what, took in sorted(self.pauses.items()):
            yield f"{what}: {len(took)} times, median {median(took):.2f} s, longest {max(took):.2f} s"
        yield f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, lease {LEASE_S:g} s"


@contextmanager
def busy(directory: Path) -> Iterator[Place]:
    """A cluster at work; what it did is looked through at the end."""
    seed = random.randrange(1 << 30)
    random.seed(seed)
    with ExitStack() as stack:
        net = Net(7)
        stack.callback(net.close)
        place = Place(directory, net)
        stack.callback(place.close)
        try:
            for node in place.nodes:
                node.start()
            leader, marks = place.leader(), place.marks
            marks.mkdir()
            job = f"f={marks}/$CRONFLOW_RUN_ID; (set -C; : > $f) 2>/dev/null || echo $f >> {place.doubled}; "
            leader.ask(f"ADD name=job overlap=allow keep=100000 0 0 1 1 * {job} sleep 0.2")
            leader.ask(f'ADD name=tick overlap=allow keep=100000 "every 1 second" {job} sleep 0.2')
            with working(list[Node](place.nodes), directory, place.workers.within):
                place.mended()
                place.asking.start()
                yield place
                place.asking.ended.set()
                place.asking.join(PATIENCE_S)
                nodes = list[Node](place.nodes)
                ask_until(nodes, "PAUSE tick", lambda text: text.startswith("OK"))
                idle = re.compile(r"^queued\t0\nrunning\t0\n", re.MULTILINE)
                ask_until(nodes, "STATUS", idle.search)
                print("", *place.tell(), sep="\n")
                check(place.leader(), place.asking, marks, place.doubled)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


@pytest.mark.timeout(600)
def test_the_leader_is_cut_off_from_each_of_the_others(tmp_path: Path) -> None:
    """A switch fails, a rule of a firewall is wrong: who is alone must know it, and who is not goes on."""
    with busy(tmp_path) as place:
        for cut in (place.etcd, place.from_workers, place.from_clients):
            cut(place.leader())
            place.mended()


@pytest.mark.long
@pytest.mark.timeout(0)
def test_wires_are_cut_again_and_again(tmp_path: Path) -> None:
    """In any order, and the leader is another one each time."""
    with busy(tmp_path) as place:
        cuts = [
            place.etcd, place.from_workers, place.from_clients,
            place.from_the_other, place.standby_from_etcd, place.all_round,
        ]  # fmt: skip
        for number in range(CUTS):
            cuts[number % len(cuts)](place.leader())
            place.mended()
