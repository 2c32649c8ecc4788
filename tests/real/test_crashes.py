"""kill -9, for real: what was acknowledged is there afterwards, and nothing else is."""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen

import pytest

from tests.lib.job_processes import wait_for
from tests.lib.waiting import PATIENCE_S
from tests.real.running import Daemon, StartDaemon, Worker, wait_until

KILLS = int(os.environ.get("CRONFLOWD_KILLS", "25"))
SEED = int(os.environ.get("CRONFLOWD_SEED", "20261121"))


class Stream(threading.Thread):
    """A client that adds tasks as fast as they are acknowledged, and remembers which were.

    With the `last` one it kills the daemon: a record that is written only after its `OK` is lost then.
    """

    def __init__(self, daemon: Daemon, number: int, last: int = 0) -> None:
        super().__init__(daemon=True)
        self.server = daemon
        self.number = number
        self.last = last  # of those that are acknowledged; 0: it kills nobody
        self.asked: list[str] = []
        self.acknowledged: dict[str, int] = {}  # name to id

    def run(self) -> None:
        try:
            with self.server.connect() as connection:
                self._talk(connection)
        except OSError:
            pass  # the daemon was killed, as it should be

    def _talk(self, connection: socket.socket) -> None:
        replies = connection.makefile("r", encoding="utf-8", newline="\n")
        for batch in range(100_000):
            names = [f"n{self.number}-{batch}-{i}" for i in range(5)]
            self.asked += names
            connection.sendall("".join(f"ADD name={name} 0 0 1 1 * true\n" for name in names).encode())
            for name in names:
                reply = replies.readline()
                if not reply.endswith("\n"):
                    return
                words = reply.split()
                assert words[0] == "OK", reply
                assert words[2] == name, (name, reply)
                self.acknowledged[name] = int(words[1])
                if len(self.acknowledged) == self.last:
                    os.kill(self.server.pid, signal.SIGKILL)


def test_no_acknowledged_command_is_lost_and_none_invented_over_many_kills(
    start_daemon: StartDaemon,
) -> None:
    """The promise of `OK`: on disk. A life is killed at a random moment, the next one by an `OK`."""
    chance = random.Random(SEED)
    acknowledged: dict[str, int] = {}
    asked: set[str] = set()
    daemon = start_daemon("--segment", "64K")
    for life in range(KILLS):
        last = chance.randrange(1, 50) if life % 2 else 0
        streams = [Stream(daemon, 2 * life, last), Stream(daemon, 2 * life + 1)]
        for stream in streams:
            stream.start()
        if last:
            streams[0].join(PATIENCE_S)
        else:
            wait_until(lambda streams=streams: all(stream.acknowledged for stream in streams))
            time.sleep(chance.uniform(0, 0.02))
        daemon.kill9()
        for stream in streams:
            stream.join(PATIENCE_S)
            acknowledged |= stream.acknowledged
            asked |= set(stream.asked)
        daemon.start()
    found = {row.split("\t")[1]: int(row.split("\t")[0]) for row in daemon.ask("LIST")[:-1]}
    assert {name: found.get(name) for name in acknowledged} == acknowledged
    assert set(found) <= asked
    assert len(set(found.values())) == len(found)


@pytest.mark.timeout(300)
def test_every_run_ends_exactly_once_though_workers_are_killed_in_the_middle(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    """At most once: a job leaves a mark with O_EXCL, so a second start of the same attempt would show."""
    chance = random.Random(SEED)
    marks = tmp_path / "marks"
    marks.mkdir()
    daemon = start_daemon("--heartbeat", "200ms", "--lease", "600ms")
    job = f"set -C; : > {marks}/$CRONFLOW_RUN_ID-$CRONFLOW_ATTEMPT; sleep 0.1"
    daemon.ask(f"ADD name=job overlap=allow 0 0 1 1 * {job}")
    workers = [Worker(daemon, f"w{i}", tmp_path / f"spool{i}", slots=4) for i in range(2)]
    for worker in workers:
        worker.start()
    runs = 0
    for round_number in range(12):
        replies = daemon.ask(*["RUN job"] * 10)
        runs += sum(reply.startswith("OK") for reply in replies)
        time.sleep(chance.uniform(0, 0.15))
        victim = workers[round_number % 2]
        victim.kill9()
        if round_number % 4 == 3:
            daemon.kill9()
            daemon.start()
        victim.start()
    wait_until(lambda: not _active(daemon))
    rows = [row.split("\t") for row in daemon.ask("RUNS job")[:-1]]
    ends = Counter(row[0] for row in rows)
    assert ends == Counter({str(run): 1 for run in range(1, runs + 1)})
    states = Counter(row[4] for row in rows)
    assert set(states) <= {"ok", "lost"}, states
    ok = {row[0] for row in rows if row[4] == "ok"}
    assert ok <= {path.name.partition("-")[0] for path in marks.iterdir()}
    assert states["ok"] > 0
    for worker in workers:
        worker.stop()


def _active(daemon: Daemon) -> bool:
    status = dict(row.split("\t", 1) for row in daemon.ask("STATUS")[:-1])
    return status["queued"] != "0" or status["running"] != "0"


def test_a_daemon_that_is_told_to_stop_leaves_running_jobs_alone(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    """TERM and a new start in the middle of a job: it ends well, once, and is told as such."""
    daemon = start_daemon("--local-worker", "2")
    gate = tmp_path / "gate"
    job = f"{wait_for(gate)}; echo through"
    daemon.ask(f"ADD name=job 0 0 1 1 * {job}")
    wait_until(lambda: len(daemon.ask("WORKERS")) == 2)
    daemon.ask("RUN job")
    wait_until(lambda: "\trunning\t" in daemon.ask("RUNS")[0])
    assert daemon.stop() == 0
    daemon.start()
    gate.touch()
    wait_until(lambda: "\tok\t" in daemon.ask("RUNS")[0])
    assert daemon.ask("LOG 1") == ["1\tthrough", "OK 1"]


def test_a_second_daemon_on_the_same_directory_is_turned_away(start_daemon: StartDaemon) -> None:
    """Two writers would ruin the journal; the second says who is first and exits 75."""
    first = start_daemon()
    second = Daemon(first.data)
    status, message = second.start_and_fail()
    assert status == 75
    assert str(first.pid) in message


@pytest.mark.parametrize("how", ["0<&- 1>&- 2>&-", ">/dev/full 2>/dev/full"])
def test_a_daemon_serves_though_nobody_hears_it(tmp_path: Path, how: str) -> None:
    """Started with its streams closed, or their readers gone, it ended at its first word."""
    daemon = Daemon(tmp_path / "deaf", "--local-worker", "0")
    daemon.within = ("sh", "-c", f'exec "$@" {how}', "sh")
    process = daemon.launch()
    path = str(daemon.unix_socket)
    try:
        with socket.socket(socket.AF_UNIX) as client:
            wait_until(lambda: client.connect_ex(path) == 0 or process.poll() is not None)
            assert process.poll() is None
            client.sendall(b"HELLO\nPING\nQUIT\n")
            assert client.makefile().read().split("\n")[1:3] == ["PONG", "OK bye"]
        assert daemon.stop() == 0
    finally:
        daemon.close()


def test_a_signal_during_start_up_is_no_accident(start_daemon: StartDaemon) -> None:
    """systemd may stop us at any moment; a half-started daemon leaves a directory that starts."""
    daemon = start_daemon()
    daemon.ask("ADD name=a 0 0 1 1 * true")
    daemon.kill9()
    for delay_s in (0.05, 0.2, 0.4):
        daemon.launch()
        time.sleep(delay_s)  # the moment is arbitrary, and none may hurt
        daemon.signal(signal.SIGKILL)
    daemon.start()
    assert daemon.ask("LIST")[-1] == "OK 1"
    daemon.stop()


@pytest.fixture
def just_ready(tmp_path: Path) -> Iterator[Popen[str]]:
    """A daemon that has said so, and that nobody has asked anything."""
    daemon = Daemon(tmp_path / "quick", "--local-worker", "0")
    process = daemon.launch()
    assert process.stdout
    process.stdout.readline()
    yield process
    daemon.close()


def test_signals_right_behind_the_ready_line_are_heard(just_ready: Popen[str]) -> None:
    """Nobody listened for them yet: HUP killed a daemon that had just begun, and TERM was no 0."""
    just_ready.send_signal(signal.SIGHUP)
    just_ready.send_signal(signal.SIGTERM)
    assert just_ready.wait(PATIENCE_S) == 0


def test_hup_kills_no_daemon_that_ends(just_ready: Popen[str]) -> None:
    """There is nothing to read again for it; and what was sent before TERM may come behind it."""
    just_ready.send_signal(signal.SIGTERM)
    while just_ready.poll() is None:
        just_ready.send_signal(signal.SIGHUP)
    assert just_ready.returncode == 0
