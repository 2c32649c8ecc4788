"""BACKUP of a daemon at work, and a new one from it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.real.running import PATIENCE_S, ROOT, Daemon, StartDaemon, wait_until
from tests.real.test_crashes import Stream

BACKUPS = 2


def cronflowd(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cronflowd", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_S)


def test_all_that_was_acknowledged_before_a_backup_is_in_it(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    """While clients add as fast as they can, files are begun, and older ones made into one and removed."""
    daemon = start_daemon("--segment", "16K")
    streams = [Stream(daemon.port, number) for number in range(2)]
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
        done = cronflowd("restore", daemon.data / f"{number}.tar", "--data", new)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{new}: " in done.stdout.splitlines()[-1]
        done = cronflowd("check", new)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, f"{new}: whole")
        restored = start_daemon(data=new)
        found = {row.split("\t")[1]: int(row.split("\t")[0]) for row in restored.ask("LIST")[:-1]}
        assert {name: found.get(name) for name in acknowledged} == acknowledged
        restored.stop()


def test_others_are_served_while_a_backup_is_written(daemon: Daemon) -> None:
    """A gigabyte of history takes its time."""
    (daemon.data / "large.db").write_bytes(bytes(48 << 20))
    with daemon.connect() as one, daemon.connect() as other:
        one.sendall(b"BACKUP\n")
        for _ in range(3):
            other.sendall(b"PING\n")
            assert other.recv(100) == b"PONG\n"
        one.setblocking(False)
        try:
            early = one.recv(100)
        except BlockingIOError:
            early = b""
        assert early == b""
        one.settimeout(PATIENCE_S)
        assert one.recv(100).startswith(b"OK 2 files seq=")


def test_a_restore_that_is_refused_says_why_in_one_line(daemon: Daemon) -> None:
    """It is done in haste, on a bad day."""
    daemon.nc("BACKUP day.tar")
    done = cronflowd("restore", daemon.data / "day.tar", "--data", daemon.data, "--force")
    assert done.returncode == 75
    daemon.kill9()
    done = cronflowd("restore", daemon.data / "day.tar", "--data", daemon.data)
    assert done.returncode == 73
    assert done.stderr.startswith(f"cronflowd: error: {daemon.data}: there is something in it")
    assert cronflowd("restore", daemon.data / "nosuch.tar", "--data", daemon.data, "--force").returncode == 74
    assert daemon.data.joinpath("journal").is_dir(), "as before"
