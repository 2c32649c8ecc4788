"""The real daemon as a fixture: its own process, real ports, real files.

`daemon` is one of its own for a test; `start_daemon` starts as many as wanted, with any
flags. Whatever a test leaves running is ended afterwards, by its process id. `small` is a disk
that is soon full. `start_node` starts nodes of a cluster, on an etcd that all tests of a file share.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.real.clusters import Etcds, Node, StartNode, Wire
from tests.real.running import Daemon, Worker

# A machine that stands still for as long as a lease loses it. So only who waits for the end of one has a
# short one, where it cannot be ended by hand: its leader is there, and must find out by itself.
STILL_S = 30.0


@pytest.fixture
def start_daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Starts a daemon: `start_daemon("--tz", "UTC")`; without flags it has no local worker."""
    started: list[Daemon] = []

    def start(*flags: str, data: Path | None = None) -> Daemon:
        directory = data or tmp_path / f"data{len(started)}"
        local = () if "--local-worker" in flags else ("--local-worker", "0")
        started.append(Daemon(directory, *local, *flags))
        started[-1].start()
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Starts a worker of a daemon, with a spool of its own: `start_worker(daemon, "w1", slots=4)`."""
    started: list[Worker] = []

    def start(daemon: Daemon, name: str, slots: int = 2) -> Worker:
        started.append(Worker(daemon, name, tmp_path / f"spool-{name}", slots))
        started[-1].start()
        return started[-1]

    yield start
    for each in started:
        each.kill9()


@pytest.fixture
def daemon(start_daemon: Callable[..., Daemon]) -> Daemon:
    """A daemon without a local worker."""
    return start_daemon()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting is not possible here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)  # also when a failed test left files open


@pytest.fixture(scope="module")
def etcds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcds]:
    """One etcd for all tests of a file; each has a cluster of its own on it."""
    found = Etcds(tmp_path_factory.mktemp("etcd"), 1)
    yield found
    found.close()


@pytest.fixture
def start_node(etcds: Etcds, tmp_path: Path) -> Iterator[StartNode]:
    """Starts a node: `start_node("a")`."""
    made: list[Node] = []

    def start(name: str, *flags: str, data: str = "", on: Etcds | Wire = etcds, run: bool = True) -> Node:
        common = ("--cluster", tmp_path.name, "--leader-lease", f"{STILL_S:g}s")
        made.append(Node(tmp_path / (data or name), name, on, *common, *flags))
        if run:
            made[-1].start()
        return made[-1]

    yield start
    for each in made:
        each.kill9()
