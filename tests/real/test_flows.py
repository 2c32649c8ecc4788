"""A flow with a real netcat, real jobs, and a daemon that is killed in the middle of it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lib.waiting import PATIENCE_S

from .running import Daemon, StartDaemon, Worker, wait_until

pytestmark = pytest.mark.real


def nc(daemon: Daemon, line: str) -> list[str]:
    """What a person types, and what comes back."""
    program = shutil.which("nc.openbsd") or shutil.which("nc")
    if program is None:
        pytest.skip("no netcat here")
    words = [program, daemon.host, str(daemon.port)]
    reply = subprocess.run(words, input=f"{line}\n", capture_output=True, text=True, timeout=PATIENCE_S)
    return reply.stdout.splitlines()


def test_a_flow_goes_on_where_it_was_when_the_daemon_was_killed(
    start_daemon: StartDaemon, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """Each job once, in order, and the row tells of one run that ended well."""
    daemon = start_daemon()
    start_worker(daemon, "w1", slots=4)
    done, gate = tmp_path / "done", tmp_path / "gate"
    wait = f"echo {{}} >> {done}; while ! [ -e {gate} ]; do sleep 0.05; done"
    nc(daemon, f"ADD name=a 0 3 1 1 * echo a >> {done}")
    nc(daemon, f"ADD name=b after=a @after {wait.format('b')}")
    nc(daemon, f"ADD name=c after=a @after echo c >> {done}")
    nc(daemon, f"ADD name=d after=b,c 0 4 1 1 * echo d >> {done}; test -e {gate}2")
    assert nc(daemon, "FLOW d RUN") == ["OK 1 tasks=4"]
    wait_until(lambda: done.exists() and sorted(done.read_text().split()) == ["a", "b", "c"])
    daemon.kill9()
    gate.touch()
    daemon.start()
    wait_until(lambda: nc(daemon, "FLOW a RUNS")[0].split("\t")[3] == "failed")
    row = nc(daemon, "FLOW a RUNS")[0].split("\t")
    assert row[:4] + row[6:12] == ["1", "1", "a", "failed", "4", "3", "1", "0", "0", "0"]
    assert done.read_text().split()[3:] == ["d"]
    Path(f"{gate}2").touch()
    assert nc(daemon, "FLOW a RETRY") == ["OK 1 tasks=1"]
    wait_until(lambda: nc(daemon, "FLOW")[0].split("\t")[4] == "ok")
    assert sorted(done.read_text().split()) == ["a", "b", "c", "d", "d"]
    assert nc(daemon, "PROVE")[-1] == "OK balanced"
