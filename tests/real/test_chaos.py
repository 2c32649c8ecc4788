"""Everything at once: load, and a daemon and three workers that are killed at random moments.

The jobs themselves tell how often they were started: each leaves a file, and those that may
be started once only leave it with O_EXCL, under the id of their fire.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lib.waiting import PATIENCE_S
from tests.real.running import ROOT, Daemon, StartDaemon, Worker, wait_until

KILLS = min(100, int(os.environ.get("CRONFLOWD_KILLS", "12")))
SEED = int(os.environ.get("CRONFLOWD_SEED", "20261121"))
PAUSE_S = (0.1, 1.5)  # between two kills
StartWorker = Callable[..., Worker]

# The words of a fire id are split at its slashes, and become the file's name.
ONCE = "set -f; IFS=/; set -- $CRONFLOW_FIRE_ID; IFS=.; f={marks}/once.$*; "
ONCE += 'set -C; : > "$f" || exit 99; sleep 0.1'
# A special builtin that cannot write ends the shell, with 2 in dash: so a second start fails either way.
TWICE = ("2", "99")
AGAIN = ": > {marks}/again.$CRONFLOW_RUN_ID.$CRONFLOW_ATTEMPT; sleep 0.1"
TASKS = [
    'name=seconds overlap=allow keep=100000 "* * * * * *" {once}',
    "name=queue overlap=queue keep=100000 @every 1s {once}",
    "name=skip prio=low keep=100000 @every 1s {once}",
    "name=everywhere on=all overlap=allow keep=100000 @every 2s {once}",
    "name=behind overlap=queue after=seconds keep=100000 @after {once}",
    "name=manual overlap=allow keep=100000 @yearly {once}",
    "name=again overlap=allow lost=rerun keep=100000 @every 1s {again}",
    "name=manual-again overlap=allow lost=rerun keep=100000 @yearly {again}",
]
BY_HAND = ["RUN manual", "RUN manual-again", "NOW keep=1000 {once}", "NOW lost=rerun keep=1000 {again}"]


class Client(threading.Thread):
    """Asks for runs all the time, whoever is being killed, and remembers which were promised."""

    def __init__(self, daemon: Daemon, lines: list[str]) -> None:
        super().__init__(daemon=True)
        self.daemon_ = daemon
        self.lines = lines
        self.promised: list[str] = []  # first words of the answers to RUN
        self.is_over = threading.Event()

    def run(self) -> None:
        while not self.is_over.wait(0.05):
            try:
                with self.daemon_.connect() as connection:
                    self._talk(connection)
            except OSError:
                continue  # killed, as it should be

    def _talk(self, connection: socket.socket) -> None:
        replies = connection.makefile("r", encoding="utf-8", newline="\n")
        while not self.is_over.wait(0.1):
            connection.sendall("".join(f"{line}\n" for line in self.lines).encode())
            for line in self.lines:
                words = replies.readline().split()
                if not words:
                    return
                assert words[0] == "OK", (line, words)
                if line.startswith("RUN"):
                    self.promised.append(words[1])


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    (tmp_path / "marks").mkdir()
    return tmp_path / "marks"


def _kill_at_random(daemon: Daemon, workers: list[Worker]) -> Counter[str]:
    chance = random.Random(SEED)
    killed: Counter[str] = Counter()
    for _ in range(KILLS):
        time.sleep(chance.uniform(*PAUSE_S))  # the moment is arbitrary, and none may hurt
        victim = chance.choice([daemon, *workers])
        victim.kill9()
        if isinstance(victim, Daemon):
            victim.start()
        else:
            victim.launch()
        killed[type(victim).__name__] += 1
    return killed


def _rows(daemon: Daemon, line: str) -> list[list[str]]:
    return [row.split("\t") for row in daemon.ask(line)[:-1]]


def _is_idle(daemon: Daemon) -> bool:
    status = dict(_rows(daemon, "STATUS"))
    return (status["queued"], status["running"]) == ("0", "0")


@pytest.mark.timeout(300 + 20 * KILLS)
def test_nothing_starts_twice_and_nothing_is_lost_whoever_is_killed(
    start_daemon: StartDaemon, start_worker: StartWorker, marks: Path
) -> None:
    """What every user of such a system fears most, tried: the jobs and the account agree to the last one."""
    daemon = start_daemon("--heartbeat", "300ms", "--lease", "1500ms")
    jobs = {"once": ONCE, "again": AGAIN}
    words = {name: job.replace("{marks}", str(marks)) for name, job in jobs.items()}
    for task in TASKS:
        (answer,) = daemon.ask("ADD " + task.format(**words))
        assert answer.startswith("OK"), answer
    workers = [start_worker(daemon, f"w{n}", slots=4) for n in range(3)]
    client = Client(daemon, [line.format(**words) for line in BY_HAND])
    client.start()
    killed = _kill_at_random(daemon, workers)
    client.is_over.set()
    client.join(PATIENCE_S)
    wait_until(lambda: all(worker.is_ready() for worker in workers))
    daemon.ask("PAUSE all")
    wait_until(lambda: _is_idle(daemon))
    runs = _runs(daemon)
    assert killed["Daemon"]
    assert killed["Worker"]
    assert {int(run) for run in client.promised} <= runs.keys()
    _check_starts(runs, marks)
    _check_account(daemon, runs)


Attempt = dict[str, str]
COLUMNS = ("run", "id", "jobName", "attempt", "state", "due", "started", "ended", "worker", "exit")


def _runs(daemon: Daemon) -> dict[int, list[Attempt]]:
    """What RUNS knows of every run: its attempts, oldest first."""
    runs: dict[int, list[Attempt]] = defaultdict(list)
    for row in reversed(_rows(daemon, "RUNS limit=100000")):
        attempt = dict(zip(COLUMNS, row, strict=True))
        if attempt["run"] != "-":
            runs[int(attempt["run"])].append(attempt)
    return runs


def _check_starts(runs: dict[int, list[Attempt]], marks: Path) -> None:
    """The files that the jobs left agree with what the daemon says of them."""
    twice = [attempt for attempts in runs.values() for attempt in attempts if attempt["exit"] in TWICE]
    assert not twice
    found = Counter(path.name.partition(".")[0] for path in marks.iterdir())
    again = {tuple(map(int, path.name.split(".")[1:])) for path in marks.glob("again.*")}
    ends = {run: attempts[-1]["state"] for run, attempts in runs.items()}
    assert set(ends.values()) <= {"ok", "lost", "missed", "skipped"}
    for run, attempts in runs.items():
        # One whose order never reached its worker has a number, and no row.
        numbers = [int(attempt["attempt"]) for attempt in attempts]
        assert numbers == sorted(set(numbers))
        is_again = _is_again(attempts[0], run, again)
        if is_again:
            assert ends[run] == "ok"
            assert (run, numbers[-1]) in again
        else:
            assert len(attempts) == 1, attempts
    ok_once = sum(end == "ok" and not _is_again(runs[run][0], run, again) for run, end in ends.items())
    may_once = ok_once + sum(end == "lost" for end in ends.values())
    assert ok_once <= found["once"] <= may_once
    assert min(found["once"], found["again"]) > KILLS


def _is_again(attempt: Attempt, run: int, again: set[tuple[int, ...]]) -> bool:
    # A NOW has no name that tells; the file it left does.
    return "again" in attempt["jobName"] or any((run, n) in again for n in range(1, 4))


def _check_account(daemon: Daemon, runs: dict[int, list[Attempt]]) -> None:
    """Every fire ended in one way; the journal says the same, and is whole."""
    ends = Counter(attempts[-1]["state"] for attempts in runs.values())
    status = dict(_rows(daemon, "STATUS"))
    totals = {key[6:]: int(number) for key, number in status.items() if key.startswith("fires-")}
    assert daemon.ask("PROVE")[-1] == "OK balanced"
    assert daemon.stop() == 0
    facts = list(_facts(daemon.data / "journal"))
    passed: Counter[str] = Counter()
    for fact in facts:
        # What is paused goes on passing its moments by.
        if fact["fact"] == "FiresPassed" and fact["seq"] <= int(status["journal-seq"]):
            passed[fact["state"]] += fact["count"]
    queued = [fact["run"] for fact in facts if fact["fact"] == "RunQueued"]
    assert queued == list(range(1, len(runs) + 1)) == sorted(runs)
    assert totals == dict(ends + passed)
    print(f"{KILLS} kills, {len(runs)} runs: {dict(ends)}, and {dict(passed)} that did not start")
    command = [sys.executable, "-m", "cronflowd", "check", str(daemon.data)]
    check = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert check.returncode == 0, check.stdout + check.stderr


def _facts(journal: Path) -> Iterator[dict[str, object]]:
    """The journal as grep sees it."""
    for path in sorted(journal.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            if "fact" in record:
                yield record
