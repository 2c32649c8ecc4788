"""BACKUP of a daemon at work, and a new one from it."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cronflowd.cli import cli
from tests.real.running import PATIENCE_S, Daemon, StartDaemon, wait_until
from tests.real.test_crashes import Stream

BACKUPS = 2
Program = Callable[..., tuple[int, str]]


@pytest.fixture
def cronflowd(capsys: pytest.CaptureFixture[str]) -> Program:
    """The program in this process: its exit status, and the last line that it says."""

    def run(*arguments: object) -> tuple[int, str]:
        status = cli.main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return int(status), (said.out + said.err).splitlines()[-1]

    return run


def test_all_that_was_acknowledged_before_a_backup_is_in_it(
    start_daemon: StartDaemon, cronflowd: Program, tmp_path: Path
) -> None:
    """While clients add as fast as they can, files are begun, and older ones made into one and removed."""
    daemon = start_daemon("--segment", "16K")
    streams = [Stream(daemon, number) for number in range(2)]
    for stream in streams:
        stream.start()
    known: list[dict[str, int]] = []
    for number in range(BACKUPS):
        before = len(known[-1]) if known else 0
        wait_until(lambda: sum(len(stream.acknowledged) for stream in streams) > before + 200)  # noqa: B023
        known.append({name: task for stream in streams for name, task in stream.acknowledged.copy().items()})
        assert daemon.nc(f"BACKUP {number}.tar").startswith("OK "), "while it serves"
    daemon.kill9()
    for number, acknowledged in enumerate(known):
        new = tmp_path / f"new{number}"
        status, said = cronflowd("restore", daemon.data / f"{number}.tar", "--data", new)
        assert (status, said.startswith(f"{new}: ")) == (0, True), said
        assert cronflowd("check", new) == (0, f"{new}: whole")
        restored = start_daemon(data=new)
        found = {row.split("\t")[1]: int(row.split("\t")[0]) for row in restored.ask("LIST")[:-1]}
        assert {name: found.get(name) for name in acknowledged} == acknowledged
        restored.stop()


@contextmanager
def _joined(daemon: Daemon) -> Iterator[Iterator[bytes]]:
    """A worker that remembers all it was given; the lines that it reads."""
    address = (daemon.host, daemon.worker_port)
    with socket.create_connection(address, PATIENCE_S) as worker, worker.makefile("rb") as lines:
        worker.sendall(b"HELLO name=w slots=1 held=all instance=i\n")
        assert next(lines).startswith(b"OK w ")
        yield lines


def test_the_first_start_after_a_restore_is_told_from_all_others(
    start_daemon: StartDaemon, cronflowd: Program, tmp_path: Path
) -> None:
    """What was sent when the backup was made may have been carried out since, by one that owes it no more."""
    daemon = start_daemon("--local-worker", "0")
    with _joined(daemon) as lines:
        daemon.nc("NOW job")
        assert next(lines).startswith(b"RUN 1 1 ")
        assert daemon.nc("BACKUP b.tar").startswith("OK ")
    daemon.kill9()
    assert cronflowd("restore", daemon.data / "b.tar", "--data", tmp_path / "new")[0] == 0
    for _ in range(2):
        restored = start_daemon("--local-worker", "0", data=tmp_path / "new")
        with _joined(restored):
            assert restored.nc("RUNS").split("\t")[3:5] == ["1", "sent"], "and not a second attempt"
        restored.kill9()
    assert not (tmp_path / "new/.restored").exists()


def test_others_are_served_while_a_backup_is_written(daemon: Daemon) -> None:
    """A gigabyte of history takes its time."""
    size = 48 << 20
    (daemon.data / "large.db").write_bytes(bytes(size))

    def is_under_way() -> bool:
        with suppress(FileNotFoundError):
            return any(file.stat().st_size < size for file in daemon.data.glob(".*.tmp"))
        return False

    is_served = False
    with daemon.connect() as one, daemon.connect() as other:
        for client in (one, other):
            client.sendall(b"HELLO\n")
            assert client.recv(100).startswith(b"OK ")
        for number in range(20):  # now and then all of it is written while we stand still
            one.sendall(b"BACKUP %d.tar\n" % number)
            while not select.select([one], [], [], 0)[0]:
                before = is_under_way()
                other.sendall(b"PING\n")
                assert other.recv(100) == b"PONG\n"
                is_served |= before and is_under_way()
            assert one.recv(100).startswith(b"OK 2 files seq=")
            if is_served:
                break
        assert is_served


def test_a_restore_that_is_refused_says_why_in_one_line(daemon: Daemon, cronflowd: Program) -> None:
    """It is done in haste, on a bad day."""
    daemon.nc("BACKUP day.tar")
    file, there = daemon.data / "day.tar", ("--data", daemon.data)
    assert cronflowd("restore", file, *there, "--force")[0] == 75
    daemon.kill9()
    said = "there is something in it (journal); with --force it is moved aside"
    assert cronflowd("restore", file, *there) == (73, f"cronflowd: error: {daemon.data}: {said}")
    assert cronflowd("restore", daemon.data / "nosuch.tar", *there, "--force")[0] == 74
    assert daemon.data.joinpath("journal").is_dir(), "as before"
