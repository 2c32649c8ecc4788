"""Real etcds and real nodes, for tests of several daemons that are one."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path

import pytest

from cronflowd.host.tls import client_context
from cronflowd.journal.etcd import Etcd, EtcdError, Unreachable, revoke
from cronflowd.journal.shared import Shared
from tests.lib.ports import free_ports
from tests.real.machines import Machine
from tests.real.running import Daemon, wait_until

LINE = re.compile(
    r"cronflowd (standby|ready) control=\S+:(\d+) workers=\S+:(\d+) pid=(\d+).*?"
    r" node=\S+ (?:epoch|leader)=(\S+)\n"
)


class Etcds:
    """One etcd, or a quorum of them; each on a machine of its own where there are such.

    `certs`: whoever asks shows a certificate of the authority there, and so do they.
    """

    def __init__(
        self,
        directory: Path,
        count: int,
        *flags: str,
        machines: Sequence[Machine] = (),
        certs: Path | None = None,
    ) -> None:
        if shutil.which("etcd") is None:
            pytest.skip("no etcd here (Debian: etcd-server)")
        self.directory, self.more, self.machines = directory, flags, machines
        self.ports = free_ports(2 * count)
        self.clients, self.peers = self.ports[:count], self.ports[count:]
        self.hosts = [machine.address for machine in machines] or ["127.0.0.1"] * count
        self.members = list(zip(self.hosts, self.clients, strict=True))
        self.scheme = "https" if certs else "http"
        if certs:
            ca, cert, key = (str(certs / name) for name in ("ca.pem", "localhost.pem", "localhost.key"))
            sealed = "--cert-file", cert, "--key-file", key, "--trusted-ca-file", ca, "--client-cert-auth"
            self.more += sealed
            self.context = client_context(Path(ca), Path(cert), Path(key))
        self.client = Etcd(self.members, context=self.context if certs else None)
        self.processes: list[subprocess.Popen[bytes] | None] = [None] * count
        for number in range(count):
            self.start(number)
        wait_until(self.answers)

    @property
    def flags(self) -> tuple[str, str]:
        return "--etcd", ",".join(f"{host}:{port}" for host, port in self.members)

    def shared(self, cluster: str = "main") -> Shared:
        return Shared(self.client, cluster)

    def start(self, number: int) -> None:
        hosts = self.hosts
        names = [f"e{each}=http://{hosts[each]}:{port}" for each, port in enumerate(self.peers)]
        client = f"{self.scheme}://{hosts[number]}:{self.clients[number]}"
        peer = f"http://{hosts[number]}:{self.peers[number]}"
        command = [
            *(self.machines[number].within if self.machines else ()),
            "etcd",
            "--name",
            f"e{number}",
            "--data-dir",
            str(self.directory / f"etcd{number}"),
        ]
        command += ["--listen-client-urls", client, "--advertise-client-urls", client]
        command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        command += ["--initial-cluster", ",".join(names), "--logger", "zap", *self.more]
        with (self.directory / f"etcd{number}.log").open("ab") as log:
            self.processes[number] = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self, number: int) -> None:
        process, self.processes[number] = self.processes[number], None
        if process:
            process.kill()
            process.wait()

    def answers(self) -> bool:
        try:
            self.shared().get(b"x")
        except (Unreachable, EtcdError):
            return False
        return True

    def leader(self) -> int:
        """Which of them leads the others."""
        for number, member in enumerate(self.members):
            with suppress(Unreachable, EtcdError), closing(Etcd([member])) as etcd:
                told = etcd.call("maintenance/status", {})
                if told.get("leader") == told["header"]["member_id"]:
                    return number
        return 0

    def members_up(self) -> int:
        """How many of them answer."""
        found = 0
        for member in self.members:
            with suppress(Unreachable, EtcdError), closing(Etcd([member])) as etcd:
                found += bool(etcd.call("kv/range", {"key": "eA=="}))
        return found

    def end_lease(self, node: Node) -> None:
        """Of one that was killed: etcd ends it some time after that, which nobody has to wait for here."""
        shared = self.shared(node.cluster)
        entry = shared.get(shared.node_key(node.name))
        assert entry
        revoke(self.client, entry.lease)

    def close(self) -> None:
        self.client.close()
        for number in range(len(self.processes)):
            self.kill(number)


class Node(Daemon):
    """A daemon with --etcd, and the lines that it has said."""

    def __init__(self, data: Path, name: str, etcds: Etcds | Wire, *flags: str) -> None:
        super().__init__(data, "--node", name, "--local-worker", "0", *etcds.flags, *flags)
        self.name = name
        self.cluster = flags[flags.index("--cluster") + 1] if "--cluster" in flags else "main"
        self.said: list[tuple[str, str]] = []  # standby and leader's address, or ready and epoch

    def start(self) -> None:
        """Starts it, and waits until its doors are open."""
        process = self.launch_and_listen()
        wait_until(lambda: self.said or process.poll() is not None)
        assert self.said, self.log.read_text()

    def launch_and_listen(self) -> subprocess.Popen[str]:
        """Starts it, and waits for nothing."""
        process = self.launch()
        self.said.clear()
        threading.Thread(target=self._listen, args=(process,), daemon=True).start()
        return process

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        with process.stdout:
            for line in process.stdout:
                match = LINE.fullmatch(line)
                assert match and int(match[4]) == process.pid, line
                self.port, self.worker_port = int(match[2]), int(match[3])
                self.said.append((match[1], match[5]))

    def start_and_fail(self) -> tuple[int, str]:
        """Starts one that may be a standby for a moment, and cannot stay: (exit status, its stderr)."""
        process = self.launch()
        assert process.stdout
        process.stdout.read()
        return self._ended(), self.log.read_text()

    @property
    def leads(self) -> bool:
        return self.process is not None and bool(self.said) and self.said[-1][0] == "ready"

    @property
    def epoch(self) -> int:
        return int(self.said[-1][1])

    def freeze(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)


def leader_of(nodes: list[Node]) -> Node:
    """The one that leads, as soon as one does."""
    wait_until(lambda: any(node.leads for node in nodes))
    return next(node for node in nodes if node.leads)


def ask_until(nodes: list[Node], line: str, is_wanted: Callable[[str], object]) -> None:
    """Asks whoever leads until the answer is the one wanted; a connection that closes is asked again."""

    def look() -> bool:
        with suppress(OSError):
            return any(node.leads and bool(is_wanted(node.nc(line))) for node in nodes)
        return False

    wait_until(look)


StartNode = Callable[..., Node]


class Wire:
    """The way from one node to etcd, which can be cut: then nothing comes through, and nobody is told."""

    def __init__(self, port: int) -> None:
        self._there = port
        self._is_cut = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def flags(self) -> tuple[str, str]:
        return "--etcd", f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        self._is_cut.set()

    def mend(self) -> None:
        self._is_cut.clear()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                here, _ = self._listener.accept()
                there = socket.create_connection(("127.0.0.1", self._there))
                for pair in ((here, there), (there, here)):
                    threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with source, suppress(OSError):
            while data := source.recv(65_536):
                if not self._is_cut.is_set():  # what was under way is lost
                    target.sendall(data)
            target.shutdown(socket.SHUT_WR)
