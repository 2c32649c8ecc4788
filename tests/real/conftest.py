"""The real daemon as a fixture: its own process, real ports, real files.

`daemon` is one of its own for a test; `start_daemon` starts as many as wanted, with any
flags. Whatever a test leaves running is ended afterwards, by its process id. `small` is a disk
that is soon full.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.real.running import Daemon, Worker


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
