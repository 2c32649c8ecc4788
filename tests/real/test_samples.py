"""The five sample jobs do on a real worker what their descriptions say."""

from __future__ import annotations

import gzip
import json
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.real.running import ROOT, Daemon, StartDaemon, wait_until

SAMPLES = ROOT / "contrib" / "samples.db"
PLACE = "/var/tmp/cronflowd-samples"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A small application's directory, with something in it for each job."""
    place = tmp_path / "an application's"
    for name in ("files/deep", "logs", "backups"):
        (place / name).mkdir(parents=True)
    (place / "files/deep/page").write_text("new")
    (place / "logs/web.log").write_text("GET /\n")
    (place / "logs/empty.log").touch()
    (place / "backups/app-old.db").touch()
    os.utime(place / "backups/app-old.db", (two_weeks_ago := time.time() - 15 * 86400, two_weeks_ago))
    with closing(sqlite3.connect(place / "app.db")) as database, database:
        database.execute("create table people (name)")
        database.execute("insert into people values ('Ann')")
    return place


@pytest.fixture
def loaded(start_daemon: StartDaemon, place: Path) -> Daemon:
    """The samples, for that directory."""
    daemon = start_daemon("--local-worker", "4")
    (daemon.data / "samples.db").write_text(SAMPLES.read_text().replace(PLACE, str(place)))
    assert daemon.ask("LOAD samples.db") == ["OK 5 loaded"]
    return daemon


def end(daemon: Daemon, run: int) -> str:
    """How a run has ended, once it has."""
    state = ""

    def has_ended() -> bool:
        nonlocal state
        rows = [row.split("\t") for row in daemon.ask("RUNS")]
        state = next(row[4] for row in rows if row[0] == str(run))
        return state not in ("queued", "sent", "running")

    wait_until(has_ended)
    return state


def test_each_sample_does_its_work(loaded: Daemon, place: Path) -> None:
    """They are what a newcomer copies from."""
    names = ["cleanup", "db-backup", "logs", "sync", "report"]
    assert [row.split("\t")[1] for row in loaded.ask("LIST tag=samples")[:-1]] == names
    for number, name in enumerate(names, 1):
        assert loaded.ask(f"RUN {name}") == [f"OK {number}"]
        assert end(loaded, number) == "ok", loaded.nc(f"LOG {number}")
    assert (place / "mirror/deep/page").read_text() == "new"
    assert sorted(path.suffix for path in (place / "logs").iterdir()) == [".gz", ".log"]
    with gzip.open(next((place / "logs").glob("web.log.*.gz")), "rt") as log:
        assert log.read() == "GET /\n"
    (copy,) = (place / "backups").iterdir()
    with closing(sqlite3.connect(copy)) as database:
        assert database.execute("select name from people").fetchall() == [("Ann",)]
    assert copy.name in (place / "report.txt").read_text()


def test_they_can_be_added_to_what_is_there(daemon: Daemon) -> None:
    """A line of tasks.db is what ADD takes; LOAD would be the end of all other tasks."""
    daemon.ask("ADD name=mine @daily true")
    replies = daemon.ask(*(f"ADD {line}" for line in SAMPLES.read_text().splitlines()))
    assert [reply.split()[:2] for reply in replies] == [["OK", str(number)] for number in range(2, 7)]


def test_the_report_waits_for_the_others() -> None:
    """It tells of what they have done; on its own it would tell of yesterday."""
    samples = {each["jobName"]: each for each in map(json.loads, SAMPLES.read_text().splitlines())}
    assert samples["report"]["after"] == "cleanup,db-backup,logs,sync"
    assert {name: each["schedule"] for name, each in samples.items()} == {
        "cleanup": "0 1 * * *",
        "db-backup": "0 2 * * *",
        "logs": "*/15 * * * *",
        "sync": "*/30 * * * *",
        "report": "0 6 * * *",
    }


def test_a_sample_without_its_directory_touches_nothing(loaded: Daemon, place: Path) -> None:
    """An empty SAMPLES must not mean the root of the disk."""
    before = sorted(place.rglob("*"))
    for number, name in enumerate(["cleanup", "db-backup", "logs", "sync", "report"], 1):
        assert loaded.ask(f"SET {name} env.SAMPLES= retry=none") == [f"OK {number} rev=2"]
        assert loaded.ask(f"RUN {name}") == [f"OK {number}"]
        assert end(loaded, number) == "failed"
        assert "SAMPLES: parameter not set or null" in loaded.nc(f"LOG {number}")
    assert sorted(place.rglob("*")) == before
