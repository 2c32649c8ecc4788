"""The compose file for three hosts, done by three machines of the kernel's: all three services on each."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cronflowd.host.tls import make_certificates
from tests.host.test_container_files import HOST
from tests.real.machines import Machine, Net
from tests.real.running import PATIENCE_S, ROOT, wait_until

CRONFLOWD = [sys.executable, "-m", "cronflowd"]


class Host:
    """What `compose up` starts on one of them."""

    def __init__(self, number: int, machines: list[Machine], place: Path) -> None:
        self.machine, self.place = machines[number - 1], place
        self.state = place / f"host{number}"
        self.words = {"N": f"{number}", "TZ": "UTC", "HOST": self.machine.address}
        self.words |= {f"HOST{each}": machine.address for each, machine in enumerate(machines, 1)}
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def up(self, name: str) -> None:
        service = HOST["services"][name]
        state = self.state / name
        state.mkdir(parents=True, exist_ok=True)
        words = [self._filled(word) for word in service["command"]]
        words = [str(self._secret(word)) if word.startswith("/run/secrets/") else word for word in words]
        words = [word.replace("/var/lib/etcd", str(state)) for word in words]
        secrets = self.state / "secrets"
        secrets.mkdir(exist_ok=True)
        (secrets / "key").write_bytes((self.place / "key").read_bytes())
        (secrets / "key").chmod(0o600)
        environment = os.environ | {"STATE_DIRECTORY": str(state), "CREDENTIALS_DIRECTORY": str(secrets)}
        command = [*self.machine.within, *(words if name == "etcd" else [*CRONFLOWD, *words])]
        with (self.state / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT, env=environment
            )

    def _filled(self, text: str) -> str:
        return re.sub(r"\$\{(\w+)\}", lambda match: self.words[match[1]], text)

    def _secret(self, path: str) -> Path:
        return self.place / self._filled(HOST["secrets"][path.rpartition("/")[2]]["file"]).removeprefix(
            "../../"
        )

    def ask(self, *words: str) -> str:
        """As `compose exec cronflowd cronflowd …`."""
        done = subprocess.run(
            [*CRONFLOWD, words[0], "--data", str(self.state / "cronflowd"), *words[1:]],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_S,
        )  # fmt: skip
        return done.stdout + done.stderr

    def down(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[list[Host]]:
    if shutil.which("etcd") is None:
        pytest.skip("no etcd here (Debian: etcd-server)")
    net = Net(3)
    found = [Host(number, net.machines, tmp_path) for number in (1, 2, 3)]
    yield found
    for host in found:
        host.down()
    net.close()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_what_the_file_says_makes_three_hosts_one(hosts: list[Host], tmp_path: Path) -> None:
    """Sealed with etcd, among the etcds, and towards workers; and a host that is lost stops nothing."""
    addresses = [host.machine.address for host in hosts]
    make_certificates(tmp_path / "tls", addresses, datetime.now(UTC))
    subprocess.run([*CRONFLOWD, "init", "--data", str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    for name in ("etcd", "cronflowd"):
        for host in hosts:
            host.up(name)
    wait_until(lambda: "leader" in hosts[0].ask("nodes"))
    wait_until(lambda: hosts[0].ask("nodes").count("standby") == 2)
    token = hosts[0].ask("token", "add", "role=worker", "worker=worker-*").partition("\t")[2]
    (tmp_path / "worker-token").write_text(token)
    (tmp_path / "worker-token").chmod(0o600)
    for host in hosts:
        host.up("worker")
    wait_until(lambda: hosts[1].ask("workers").count("\tready\t") == 3)
    hosts[1].ask("secret", "put", "word", "xyzzy")
    added = hosts[2].ask("add", "name=job", "env.W=secret:word", "0 0 1 1 *", f"echo $W > {tmp_path}/done")
    assert added, hosts[2].ask("list")
    leader = next(host for host in hosts if f"leader\t{host.machine.address}:" in hosts[0].ask("nodes"))
    others = [host for host in hosts if host is not leader]
    leader.down()
    wait_until(lambda: "\tleader\t" in others[0].ask("nodes"))
    wait_until(lambda: others[0].ask("workers").count("\tready\t") == 2)
    wait_until(lambda: not others[1].ask("run", "job").startswith("ERR"))
    wait_until(lambda: (tmp_path / "done").exists() and (tmp_path / "done").read_text() == "xyzzy\n")
