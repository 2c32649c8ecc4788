"""Whole stories, daemon and worker as processes of their own, as an operator would see them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.lib.job_processes import is_alive
from tests.lib.waiting import PATIENCE_S
from tests.real.running import ROOT, Daemon, StartDaemon, wait_until

MEBIBYTE = 1024 * 1024


def _rows(daemon: Daemon, line: str) -> list[list[str]]:
    return [row.split("\t") for row in daemon.ask(line)[:-1]]


def _state_of(daemon: Daemon, run: int) -> str:
    return next((row[4] for row in _rows(daemon, "RUNS") if row[0] == str(run)), "")


def _peak_memory(pid: int) -> int:
    match = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match
    return int(match[1]) * 1024


def _with_local_worker(start_daemon: StartDaemon, *flags: str) -> Daemon:
    daemon: Daemon = start_daemon("--local-worker", "4", *flags)
    daemon.until("WORKERS", lambda answer: "\tready\t" in answer)
    return daemon


def test_two_hundred_megabytes_of_output_cost_neither_side_memory(start_daemon: StartDaemon) -> None:
    """A chatty job must not take the scheduler of everybody else down with it; head and tail are kept."""
    daemon = _with_local_worker(start_daemon)
    (worker,) = daemon.children()
    before = _peak_memory(daemon.pid), _peak_memory(worker)
    daemon.ask("NOW echo first; head -c 200000000 /dev/zero | tr '\\0' x | fold -w 100; echo; echo last")
    wait_until(lambda: _state_of(daemon, 1) == "ok")
    after = _peak_memory(daemon.pid), _peak_memory(worker)
    assert max(after[0] - before[0], after[1] - before[1]) < 48 * MEBIBYTE
    log = daemon.ask("LOG 1")
    assert (log[0], log[-2]) == ("1\tfirst", "1\tlast")
    assert any(row.startswith("0\t") and "omitted" in row for row in log)
    assert sum(map(len, log)) < 3 * MEBIBYTE


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_local_worker_ends_though_its_daemon_went_before_it_had_begun(
    start_daemon: StartDaemon, how: signal.Signals
) -> None:
    """Who looks for its parent too late takes the foster parent for it, and tries a dead socket for ever."""
    daemon = start_daemon("--local-worker", "1")
    wait_until(lambda: len(daemon.children()) == 1)
    (worker,) = daemon.children()
    daemon.signal(how)
    wait_until(lambda: not Path(f"/proc/{worker}/cmdline").exists())


def test_a_timeout_ends_the_whole_family_of_processes(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """Grandchildren too, and one that fled into a session of its own."""
    daemon = _with_local_worker(start_daemon, "--kill-grace", "500ms")
    pids = tmp_path / "pids"
    family = f"sleep 100 & echo $! >> {pids}; setsid sleep 100 & echo $! >> {pids}"
    found: list[str] = []
    for run, timeout in enumerate(("500ms", "5s", "50s"), 1):
        pids.write_text("")
        daemon.ask(f"NOW timeout={timeout} {family}; trap '' TERM; sleep 100; sleep 100")
        wait_until(lambda run=run: _state_of(daemon, run) == "timeout", 2 * PATIENCE_S)  # type: ignore[misc]
        if len(found := pids.read_text().split()) == 2:  # else it was over before all were there
            break
    assert len(found) == 2
    wait_until(lambda: not any(is_alive(int(pid)) for pid in found))


def test_a_job_that_leaves_something_behind_ends_all_the_same(start_daemon: StartDaemon) -> None:
    """`daemon &` holds the pipe open; the run is over when its shell is."""
    daemon = _with_local_worker(start_daemon)
    daemon.ask("NOW sleep 1000 & echo $!")
    wait_until(lambda: _state_of(daemon, 1) == "ok")
    told, remark, _ = daemon.ask("LOG 1")
    left = int(told.removeprefix("1\t"))
    assert (is_alive(left), remark[:9]) == (True, "0\tit left")
    os.kill(left, signal.SIGKILL)


def test_a_worker_that_falls_silent_is_found_out(start_daemon: StartDaemon) -> None:
    """A machine without power sends no FIN; three heartbeats tell, and its run is lost after the lease."""
    daemon = start_daemon("--heartbeat", "100ms", "--lease", "300ms")
    daemon.ask("NOW name=job sleep 100")  # before the worker comes, whose silence counts from then on
    with socket.create_connection(("127.0.0.1", daemon.worker_port), timeout=PATIENCE_S) as silent:
        silent.sendall(b"HELLO name=gone slots=1\n")
        lines = silent.makefile("r")
        assert lines.readline().startswith("OK gone heartbeat=0.1 ")
        assert lines.readline().startswith("RUN 1 1 ")
        assert lines.readline() == ""
    daemon.until("WORKERS", lambda answer: answer.startswith("gone\taway\t"))
    wait_until(lambda: _state_of(daemon, 1) == "lost")


@pytest.mark.skipif(shutil.which("nc.openbsd") is None, reason="nc.openbsd is not installed")
def test_the_worker_in_shell_does_its_work_for_the_real_daemon(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    """Twenty lines of shell are enough, as protocol.md promises."""
    daemon = start_daemon()
    command = ["sh", str(ROOT / "contrib" / "worker.sh"), "127.0.0.1", str(daemon.worker_port), "tiny"]
    worker = subprocess.Popen(command, cwd=tmp_path, start_new_session=True)
    try:
        daemon.until("WORKERS", lambda answer: "tiny\tready" in answer)
        daemon.ask("NOW printf '%s\\n' 'a\\b'; exit 3")
        wait_until(lambda: _state_of(daemon, 1) == "failed")
        assert daemon.ask("LOG 1") == ["1\ta\\\\b", "OK 1"]
        assert _rows(daemon, "RUNS")[0][9] == "3"
    finally:
        subprocess.run(["pkill", "-KILL", "-s", str(worker.pid)], check=False)
        worker.wait()


def test_many_tasks_due_at_the_same_second_all_run(start_daemon: StartDaemon) -> None:
    """The top of the hour: a thousand at once, none forgotten, none twice."""
    for ahead_s in (3, 30):  # the second if the first had passed before all were in
        daemon = _with_local_worker(start_daemon)
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + ahead_s))
        replies = daemon.ask(*[f"AT {at} type=sleep 0"] * 1000)
        if all(reply.startswith("OK ") for reply in replies):
            break
    assert all(reply.startswith("OK ") for reply in replies)
    wait_until(lambda: "fires-ok\t1000" in daemon.ask("STATUS"))
    rows = _rows(daemon, "RUNS")
    assert len({row[0] for row in rows}) == len(rows) == 1000
    assert {row[5] for row in rows} == {at}
    assert daemon.ask("LIST") == ["OK 0"]


def test_hup_puts_new_limits_in_force_everywhere(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """What the engine enforces, what LOAD checks and what a worker is told must be one number."""
    config = tmp_path / "cronflowd.toml"
    config.write_text('output_limit = "1M"\nmax_tasks = 5\n')
    daemon = start_daemon("--config", str(config))
    daemon.ask("ADD @daily true", "ADD @daily true", "SAVE")
    config.write_text('output_limit = "2M"\nmax_tasks = 1\n')
    assert daemon.process
    daemon.process.send_signal(signal.SIGHUP)
    daemon.until("ADD @daily true", lambda answer: answer.startswith("ERR limit"))
    assert daemon.ask("LOAD") == ["ERR limit tasks.db line 2: more than 1 tasks"]
    with socket.create_connection(("127.0.0.1", daemon.worker_port), timeout=PATIENCE_S) as worker:
        worker.sendall(b"HELLO name=w slots=1\n")
        assert " output=2097152 " in worker.makefile("r").readline()


def test_hup_with_what_would_end_the_local_worker_changes_nothing(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    """It said that all was in force, and the next local worker died of it again and again."""
    config = tmp_path / "cronflowd.toml"
    config.write_text("max_tasks = 5\n")
    daemon = start_daemon("--config", str(config), "--local-worker", "1")
    config.write_text("max_tasks = 1\n[worker]\nsmtp = 'nonsense'\n")
    assert daemon.process
    daemon.process.send_signal(signal.SIGHUP)
    why = f"the settings stay as they were: {config}: worker.smtp: 'nonsense' is not HOST:PORT"
    wait_until(lambda: why in daemon.log.read_text())
    assert [reply.split()[0] for reply in daemon.ask("ADD @daily true", "ADD @daily true")] == ["OK", "OK"]
