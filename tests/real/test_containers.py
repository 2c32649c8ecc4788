"""What the files for containers say, done as an engine does it: process 1, another user, a net of its own.

The namespaces are the kernel's, as an engine's are; only the image is this machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.test_container_files import COMPOSE, WORKLOADS, last
from tests.real.running import PATIENCE_S, ROOT, wait_until

pytestmark = pytest.mark.real
USER = last("USER").partition(":")[0]
AS_USER = [
    "setpriv", "--reuid", USER, "--regid", USER, "--clear-groups", "--no-new-privs", "--bounding-set=-all",
]  # fmt: skip
PROGRAM = f"""#!/bin/sh
exec {sys.executable} -m cronflowd "$@"
"""
# A Python in root's own home is for root alone: here it is put where others find it, too.
PREPARE = f"""
set -e
mount -t tmpfs none /var/lib && mkdir -m 700 /var/lib/cronflowd && chown {USER} /var/lib/cronflowd
mount -t tmpfs none /run && mkdir /run/secrets /run/bin /run/python
printf %s "$TOKEN" > /run/secrets/token && unset TOKEN
chown {USER} /run/secrets/token && chmod 400 /run/secrets/token
cp -p /run/secrets/token /run/secrets/worker-token
mkdir /run/secrets/cronflowd && cp /run/secrets/token /run/secrets/cronflowd/
chgrp {USER} /run/secrets/cronflowd/token && chmod 440 /run/secrets/cronflowd/token
printf '127.0.0.1 localhost cronflowd\n' > /run/hosts && mount --bind /run/hosts /etc/hosts
printf %s {shlex.quote(PROGRAM)} > /run/bin/cronflowd && chmod 755 /run/bin/cronflowd
mount --bind {sys.base_prefix} /run/python
[ ! -d /root ] || mount -t tmpfs -o mode=755 none /root
mkdir -p {sys.base_prefix} && mount --bind /run/python {sys.base_prefix}
cd /var/lib/cronflowd
exec "$@"
"""


def environment() -> dict[str, str]:
    """The image's variables, with this machine's program in front."""
    found = dict(re.findall(r"(\w+)=(\S+)", last("ENV")))
    return found | {"PATH": f"/run/bin:{found['PATH']}:/usr/sbin:/sbin", "PYTHONPATH": str(ROOT)}


class Engine:
    """Runs services side by side on one net, as `docker compose up` does."""

    def __init__(self, net: int) -> None:
        self.net = net
        self.started: dict[str, subprocess.Popen[str]] = {}

    def up(self, name: str, words: list[str], **variables: str) -> int:
        """Starts a container with these arguments; the process that is its process 1."""
        words = [*json.loads(last("ENTRYPOINT")), *words]
        command = ["nsenter", "-n", "-t", str(self.net), "unshare", "-m", "-p", "-f", "--mount-proc"]
        command += ["--kill-child", "sh", "-c", PREPARE, "sh", *AS_USER, *words]
        process = subprocess.Popen(
            command,
            env=environment() | {"TOKEN": "a-secret-for-tests"} | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.started[name] = process
        wait_until(lambda: self.children(process.pid))
        return self.children(process.pid)[0]

    @staticmethod
    def children(pid: int) -> list[int]:
        """The processes it has started."""
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def execute(self, pid: int, *words: str) -> subprocess.CompletedProcess[str]:
        """As `docker exec`."""
        command = ["nsenter", "-t", str(pid), "-n", "-m", "-p", *AS_USER, *words]
        return subprocess.run(
            command, env=environment(), capture_output=True, text=True, check=False, timeout=PATIENCE_S
        )

    def stop(self, name: str, pid: int) -> int:
        """As `docker stop`, which waits before it kills: the exit status."""
        os.kill(pid, signal.SIGTERM)
        return self.started[name].wait(PATIENCE_S)

    def zombies(self, pid: int) -> list[int]:
        """Children that nobody has buried."""
        found = []
        for child in self.children(pid):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                    found.append(child)
        return found


@pytest.fixture
def engine() -> Iterator[Engine]:
    if os.getuid() != 0 or subprocess.run(["unshare", "-n", "-m", "true"], check=False).returncode != 0:
        pytest.skip("namespaces need root")
    command = ["unshare", "-n", "sh", "-c", "ip link set lo up && echo up && exec sleep 600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as net:
        assert net.stdout
        assert net.stdout.readline() == "up\n"
        engine = Engine(net.pid)
        try:
            yield engine
        finally:
            for process in [*engine.started.values(), net]:
                process.kill()
                process.wait()
                if process.stdout:
                    process.stdout.close()


def test_a_command_that_is_process_1_ends_at_term(engine: Engine) -> None:
    """The kernel gives process 1 no default for it: an engine would wait its grace, and kill."""
    words = [sys.executable, "-m", "cronflowd", "import", "-"]
    with subprocess.Popen(
        ["unshare", "-p", "-f", "--kill-child", *words], stdin=subprocess.PIPE, cwd=ROOT
    ) as run:
        wait_until(lambda: engine.children(run.pid))
        (pid,) = engine.children(run.pid)

        def listens() -> bool:
            caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
            return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)

        wait_until(listens)
        os.kill(pid, signal.SIGTERM)
        assert run.wait(PATIENCE_S) == 128 + signal.SIGTERM


def test_compose_as_it_is_written(engine: Engine) -> None:
    """All find each other, jobs run as nobody special, and all end at TERM, as process 1."""
    services = COMPOSE["services"]
    daemon = engine.up("cronflowd", services["cronflowd"]["command"])
    stdout = engine.started["cronflowd"].stdout
    assert stdout
    assert stdout.readline() == "cronflowd ready control=0.0.0.0:5050 workers=0.0.0.0:5051 pid=1\n"
    healthy = json.loads(last("HEALTHCHECK").partition("CMD ")[2])
    assert engine.execute(daemon, *healthy).stdout == "PONG\n"
    door = engine.up("web", services["web"]["command"])
    stdout = engine.started["web"].stdout
    assert stdout
    assert stdout.readline() == "cronflowd web ready http=0.0.0.0:3000 pid=1\n"
    _, _, *check = services["web"]["healthcheck"]["test"]
    assert engine.execute(door, sys.executable, *check).returncode == 0
    ready = check[-1].replace("healthz", "readyz")
    assert engine.execute(door, sys.executable, "-c", ready).returncode == 0
    made = engine.execute(daemon, "cronflowd", "token", "add", "role=worker", "worker=worker-*").stdout
    token = made.removeprefix("token\t").strip()
    workers = {
        name: engine.up(name, services[name]["command"], TOKEN=token) for name in ("worker-1", "worker-2")
    }
    for name in workers:
        job = ["cronflowd", "run", "--on", name, "--", "sh", "-c", "id -u; (sleep 0.2 &)"]
        assert engine.execute(daemon, *job).stdout == f"{USER}\n"
    wait_until(lambda: not any(engine.zombies(pid) for pid in workers.values()))
    locked = engine.execute(daemon, "cronflowd", "ls", "--server", "127.0.0.1:5050")
    assert (locked.returncode, locked.stderr[:34]) == (77, "cronflowd: error: auth-required: A")
    # A job reads its worker's token, and gives no orders with it.
    his = ["--server", "cronflowd:5050", "--token-file", "/run/secrets/worker-token"]
    tried = engine.execute(daemon, "cronflowd", "run", "--on", "worker-1", "--", "cronflowd", "ls", *his)
    assert "denied" in tried.stdout + tried.stderr
    for name, pid in workers.items():
        assert engine.stop(name, pid) == 0
    assert engine.stop("web", door) == 0
    assert engine.stop("cronflowd", daemon) == 0


def test_the_image_s_own_command_runs_jobs_in_the_container(engine: Engine) -> None:
    """As the Dockerfile's first lines say: one container, and `docker exec … cronflowd add`."""
    daemon = engine.up("alone", json.loads(last("CMD")))
    stdout = engine.started["alone"].stdout
    assert stdout
    assert stdout.readline().startswith("cronflowd ready ")
    added = engine.execute(daemon, "cronflowd", "add", "name=hello", "* * * * *", "echo Hello")
    assert (added.returncode, added.stdout[:7]) == (0, "1 hello")
    ran = engine.execute(daemon, "cronflowd", "run", "--", "sh", "-c", "pwd; echo $HOME")
    assert ran.stdout == "/var/lib/cronflowd\n" * 2
    assert engine.stop("alone", daemon) == 0


def test_kubernetes_as_it_is_written(engine: Engine) -> None:
    """The secret's file is the group's to read, the state a directory of its own, and the probes answer."""
    containers = {
        each["metadata"]["name"]: each["spec"]["template"]["spec"]["containers"][0] for each in WORKLOADS
    }
    set_up = {
        name: {each["name"]: each["value"] for each in container["env"] if "value" in each}
        for name, container in containers.items()
    }
    daemon = engine.up("cronflowd", containers["cronflowd"]["args"], **set_up["cronflowd"])
    stdout = engine.started["cronflowd"].stdout
    assert stdout
    assert stdout.readline() == "cronflowd ready control=0.0.0.0:5050 workers=0.0.0.0:5051 pid=1\n"

    def said(*words: str) -> str:
        variables = [f"{name}={value}" for name, value in set_up["cronflowd"].items()]
        return engine.execute(daemon, "env", *variables, *words).stdout

    for probe in ("startupProbe", "livenessProbe"):
        assert said(*containers["cronflowd"][probe]["exec"]["command"]) == "PONG\n"
    pods = {}
    for pod in ("cronflowd-worker-0", "cronflowd-worker-1"):
        args = [word.replace("$(POD_NAME)", pod) for word in containers["cronflowd-worker"]["args"]]
        made = said("cronflowd", "token", "add", "role=worker", "worker=cronflowd-worker-*")
        token = made.removeprefix("token\t").strip()
        pods[pod] = engine.up(pod, args, TOKEN=token, **set_up["cronflowd-worker"])
    for pod in pods:
        assert said("cronflowd", "run", "--on", pod, "--", "id", "-u") == f"{USER}\n"
    assert [engine.stop(pod, pid) for pod, pid in pods.items()] == [0, 0]
    assert engine.stop("cronflowd", daemon) == 0
