"""A clock that is really set, as far as the daemon can tell: libfaketime tells it the time."""

from __future__ import annotations

import re
import time
from functools import partial
from pathlib import Path

import pytest

from tests.real.running import StartDaemon

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


@pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed")
def test_a_clock_set_by_five_hours_ends_no_run_and_starts_none(
    start_daemon: StartDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To and fro, as when somebody sets it wrong: five hours are written down as missed, and that is all."""
    clock = tmp_path / "clock"
    hour_s = 3600
    begin_s = 1200 - int(time.time()) % hour_s  # no hour is full while this test runs
    _set_clock(clock, f"{begin_s:+d}")
    monkeypatch.setenv("LD_PRELOAD", str(LIBRARY))
    monkeypatch.setenv("FAKETIME_TIMESTAMP_FILE", str(clock))
    monkeypatch.setenv("FAKETIME_NO_CACHE", "1")
    monkeypatch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    monkeypatch.setenv("FAKETIME_DISABLE_SHM", "1")
    # The kernel does not know of this clock, so it is the worker's heartbeat that makes the daemon look.
    daemon = start_daemon("--local-worker", "1", "--heartbeat", "1s")
    daemon.until("WORKERS", lambda answer: "\tready\t" in answer)
    daemon.ask("ADD name=hourly catchup=all grace=1d @hourly true")
    daemon.ask("NOW name=long timeout=10m sleep 600")
    daemon.until("RUNS long", lambda answer: "\trunning\t" in answer)
    for step_s, told in ((5 * hour_s, r"last-step-s\t1(8000|7999)\."), (0, r"last-step-s\t-1(8000|7999)\.")):
        _set_clock(clock, f"{begin_s + step_s:+d}")
        daemon.until("CLOCK", partial(re.search, told))
        daemon.until("CLOCK", partial(re.search, r"worker-local\t[+-]0\."))
        assert [row.split("\t")[4] for row in daemon.ask("RUNS")[:-1]] == ["running", "missed"]
    assert "fires-missed\t5" in daemon.ask("STATUS")
    daemon.ask("CANCEL 1")
    daemon.until("RUNS long", lambda answer: "\tcancelled\t" in answer)


def _set_clock(clock: Path, offset: str) -> None:
    """In one piece: half a file would be a time of its own."""
    new = clock.with_name("new")
    new.write_text(offset)
    new.rename(clock)
