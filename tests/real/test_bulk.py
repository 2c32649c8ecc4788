"""LOAD of many tasks in the real daemon: killed, stopped, or without space, it is whole or nothing."""

from __future__ import annotations

import json
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.real.running import Daemon, wait_until

pytestmark = pytest.mark.real

OLD, NEW = 250, 1200  # tasks before, and in the file
STAGED = NEW // 50  # records until all of it is staged, and it is decided


def write_file(path: Path, name: str, count: int) -> None:
    records = ({"schedule": "0 3 * * *", "command": "true", "jobName": f"{name}{n}"} for n in range(count))
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def make_old(daemon: Daemon) -> None:
    write_file(daemon.data / "old.db", "old", OLD)
    write_file(daemon.data / "new.db", "new", NEW)
    assert daemon.ask("LOAD old.db") == [f"OK {OLD} loaded"]


def seq(daemon: Daemon) -> int:
    [row] = [row for row in daemon.ask("STATUS") if row.startswith("journal-seq\t")]
    return int(row.split("\t")[1])


def begin_load(daemon: Daemon, records: int) -> socket.socket:
    """Sends LOAD, and waits until so many records came of it."""
    before, client = seq(daemon), daemon.connect()
    client.sendall(b"HELLO\nLOAD new.db\n")
    wait_until(lambda: seq(daemon) >= before + records)
    return client


def what_is_there(daemon: Daemon) -> str:
    """`old` or `new`: never some of both."""
    return which({row.split("\t")[1] for row in daemon.ask("LIST")[:-1]})


def which(names: set[str]) -> str:
    for name, count in ("old", OLD), ("new", NEW):
        if names == {f"{name}{n}" for n in range(count)}:
            return name
    raise AssertionError(f"{len(names)} tasks of {OLD} or {NEW}")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("records", [STAGED // 3, STAGED + OLD + NEW // 3], ids=["staged", "decided"])
def test_a_load_that_is_cut_off_is_whole_or_nothing(
    daemon: Daemon, number: signal.Signals, records: int
) -> None:
    """Half a file would be jobs that silently run no longer."""
    make_old(daemon)
    with begin_load(daemon, records) as client:
        assert daemon.signal(number) == (0 if number == signal.SIGTERM else -number)
        told = client.makefile().read()
    if (left := daemon.data / "tasks.db").exists():
        which({json.loads(line)["jobName"] for line in left.read_text().splitlines()})
    daemon.start()
    found = what_is_there(daemon)
    if f"OK {NEW} loaded" in told:
        assert found == "new"
    assert found == "new" if records > STAGED else found in ("old", "new")
    assert daemon.ask("ADD name=later @daily true")[0].startswith("OK ")
    assert daemon.ask(f"LOAD {'old' if found == 'new' else 'new'}.db")[0].startswith("OK ")


def test_a_disk_that_becomes_full_in_the_middle_of_a_load_refuses_it_and_nothing_is_changed(
    start_daemon: Callable[..., Daemon], small: Path
) -> None:
    """One clear reply; and with space again it is taken."""
    daemon = start_daemon(data=small / "data")
    make_old(daemon)
    before = seq(daemon)
    write_file(daemon.data / "big.db", "new", 12 * NEW)  # half of it, and no room for the same again
    assert shutil.disk_usage(small).free > 0
    [told] = daemon.ask("LOAD big.db")
    assert told.startswith("ERR disk-full no space left on the disk of ")
    assert seq(daemon) > before + 10  # it came in the middle
    assert what_is_there(daemon) == "old"
    (daemon.data / "big.db").unlink()
    daemon.until("LOAD new.db", lambda answer: answer == f"OK {NEW} loaded\n")
    assert what_is_there(daemon) == "new"
    daemon.restart()
    assert what_is_there(daemon) == "new"
