"""The zone of a task leaves the zone data, under a real daemon: nothing of it runs, and all are told."""

from __future__ import annotations

import shutil
import signal
import zoneinfo
from pathlib import Path

import pytest

from tests.real.running import StartDaemon, wait_until

ZONES = next(path for path in map(Path, zoneinfo.TZPATH) if (path / "Europe" / "Paris").exists())


@pytest.mark.parametrize("how", ["restart", "kill9", "hup"])
def test_a_zone_that_is_gone_starts_nothing_and_is_told(
    start_daemon: StartDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """As after an upgrade of the system, with a local worker that would run anything it is sent."""
    zones, proof = tmp_path / "zones", tmp_path / "it-ran"
    (zones / "Test").mkdir(parents=True)
    shutil.copy(ZONES / "UTC", zones / "UTC")
    shutil.copy(ZONES / "Europe" / "Paris", zones / "Test" / "Zone")
    monkeypatch.setenv("PYTHONTZPATH", str(zones))
    daemon = start_daemon("--local-worker", "2", "--notify", "https://127.0.0.1:9/hook")
    said = daemon.ask(
        f"ADD name=a type=echo on=elsewhere tz=Test/Zone * * * * * ; touch {proof}",
        f"ADD name=b type=echo on=elsewhere tz=Test/Zone @reboot ; touch {proof}",
        "RUN a",
        "RUN b",
    )
    assert said[-2:] == ["OK 1", "OK 2"]  # more before them, once there is a worker that is not meant
    (zones / "Test" / "Zone").unlink()
    if how == "hup":
        assert daemon.process
        daemon.process.send_signal(signal.SIGHUP)
    else:
        (daemon.kill9 if how == "kill9" else daemon.stop)()
        daemon.start()
    wait_until(lambda: any(line.startswith("unreadable\t2") for line in daemon.ask("STATUS")))
    # Of these two only: a notification that fails waits for its next try, and is queued as well.
    wait_until(lambda: all(daemon.ask(f"RUNS {name} state=queued") == ["OK 0"] for name in "ab"))
    skipped = daemon.ask("RUNS a state=skipped")
    assert skipped[-2].split("\t")[:5] == ["1", "1", "a", "1", "skipped"]
    (refused,) = daemon.ask("RUN a")
    assert refused.startswith('ERR bad-line "a" never runs: its definition cannot be read: tz=: ')
    assert [line.split("\t")[3] for line in daemon.ask("FAILED")[:-1]] == ["unreadable", "unreadable"]
    assert [line.split("\t")[2] for line in daemon.ask("LIST state=unreadable")[:-1]] == ["unreadable"] * 2
    assert len(daemon.ask("LIST name=notify*")) == 3
    assert "task 1 (a) cannot be read, and starts nothing until SET mends it" in daemon.log.read_text()
    assert not proof.exists()
    assert daemon.ask("SET a tz=UTC on=any", "SET b tz=UTC on=any", "RUN a")[-1].startswith("OK ")
    assert not any(line.startswith("unreadable") for line in daemon.ask("STATUS"))
    assert daemon.ask("PROVE")[-1] == "OK balanced"
