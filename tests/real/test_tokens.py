"""A secret is changed while everything runs: no run is lost, and nobody has to be stopped for it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.lib.job_processes import wait_for
from tests.lib.waiting import PATIENCE_S
from tests.real.running import ROOT, Daemon, StartDaemon, Worker, wait_until

OLD, NEW = "0ld-secret", "new-secret"


class Guarded:
    """A daemon that asks for a token, a worker with a token file of its own, and a client that knows both."""

    def __init__(self, start_daemon: StartDaemon, tmp_path: Path) -> None:
        self.ours, self.theirs = tmp_path / "ours", tmp_path / "theirs"
        self.write(self.ours, OLD)
        self.write(self.theirs, OLD)
        self.daemon: Daemon = start_daemon("--token-file", str(self.ours))
        self.worker = Worker(
            self.daemon,
            "far",
            tmp_path / "spool",
            2,
            "--token-file",
            str(self.theirs),
            "--log-level",
            "debug",
        )
        self.worker.is_ready = lambda: "far\tready" in self.ask("WORKERS")  # type: ignore[method-assign]
        self.worker.start()
        self.hups = 0

    def write(self, path: Path, *tokens: str) -> None:
        path.write_text("".join(f"{token}\n" for token in tokens))
        path.chmod(0o600)

    def hup(self, *tokens: str) -> None:
        """The daemon has these from now on."""
        self.write(self.ours, *tokens)
        os.kill(self.daemon.pid, signal.SIGHUP)
        self.hups += 1
        wait_until(lambda: self.daemon.log.read_text().count("settings read again") == self.hups)

    def lets_in(self, token: str) -> bool:
        return self.daemon.ask(f"AUTH {token}") == ["OK admin role=admin"]

    def ask(self, line: str) -> str:
        """Over the unix socket, where no token is asked for."""
        command = ["nc", "-N", "-U", str(self.daemon.unix_socket)]
        return subprocess.run(
            command, input=line + "\n", capture_output=True, text=True, timeout=PATIENCE_S
        ).stdout

    def states(self) -> list[tuple[str, str, str]]:
        """(run, state, exit) of all attempts."""
        rows = [row.split("\t") for row in self.ask("RUNS").splitlines()[:-1]]
        return sorted((row[0], row[4], row[9]) for row in rows)


@pytest.fixture
def guarded(start_daemon: StartDaemon, tmp_path: Path) -> Iterator[Guarded]:
    found = Guarded(start_daemon, tmp_path)
    yield found
    found.worker.kill9()


def test_a_token_is_changed_under_load_and_no_run_is_lost(guarded: Guarded) -> None:
    """As `init` tells it: both count, then everybody has the new one, then the old one is gone."""
    for _ in range(12):
        guarded.ask("NOW sleep 0.2")
    assert (guarded.lets_in(OLD), guarded.lets_in(NEW)) == (True, False)
    guarded.hup(OLD, NEW)
    assert (guarded.lets_in(OLD), guarded.lets_in(NEW)) == (True, True)
    guarded.write(guarded.theirs, NEW)
    assert guarded.worker.process
    guarded.worker.process.send_signal(signal.SIGHUP)
    guarded.hup(NEW)
    assert (guarded.lets_in(OLD), guarded.lets_in(NEW)) == (False, True)
    guarded.daemon.kill9()  # every link is made anew
    guarded.daemon.start()
    wait_until(lambda: "running\t" not in guarded.ask("RUNS") and "pending\t0" in guarded.ask("PROVE"))
    assert guarded.states() == sorted((str(run), "ok", "0") for run in range(1, 13))


def test_a_worker_that_is_told_last_keeps_its_jobs_and_its_reports(guarded: Guarded, tmp_path: Path) -> None:
    """The order of the steps was wrong, and a job ran: it was called lost though it ended well."""
    gate = tmp_path / "gate"
    guarded.ask(f"NOW {wait_for(gate)}")
    wait_until(lambda: "\trunning\t" in guarded.ask("RUNS"))
    guarded.hup(NEW)
    guarded.daemon.kill9()
    guarded.daemon.start()
    wait_until(lambda: "the daemon does not know this worker's token" in guarded.daemon.log.read_text())
    gate.touch()
    assert guarded.worker.process
    wait_until(lambda: "DONE 1 1 0" in (guarded.worker.spool / "reports").read_text())
    assert guarded.worker.process.poll() is None
    guarded.write(guarded.theirs, NEW)
    guarded.worker.process.send_signal(signal.SIGHUP)  # now, and not in some seconds
    wait_until(lambda: guarded.states() == [("1", "ok", "0")])


def test_a_token_file_that_is_wrong_leaves_the_old_ones_in_force(guarded: Guarded) -> None:
    """A slip of the editor would lock everybody out, or let anybody in."""
    for content, why in (("", "empty"), ("# nothing\n", "empty"), ("two words\n", "not one word")):
        guarded.daemon.log.write_text("")
        guarded.ours.write_text(content)
        os.kill(guarded.daemon.pid, signal.SIGHUP)
        wait_until(
            lambda why=why: (
                f"the settings stay as they were: {guarded.ours}: the token is {why}"
                in guarded.daemon.log.read_text()
            )
        )
    assert (guarded.lets_in(OLD), guarded.lets_in(NEW)) == (True, False)


def test_clients_offer_each_token_of_their_file(guarded: Guarded, tmp_path: Path) -> None:
    """They are told before the daemon is, or after."""
    guarded.write(tmp_path / "both", NEW, OLD)
    server = f"127.0.0.1:{guarded.daemon.port}"
    command = [sys.executable, "-m", "cronflowd", "run", "--server", server, "--token-file"]
    for file, status in (("both", 0), ("wrong", 77)):
        guarded.write(tmp_path / "wrong", NEW, "else")
        ran = subprocess.run([*command, str(tmp_path / file), "--", "true"], cwd=ROOT, timeout=PATIENCE_S)
        assert ran.returncode == status


def test_a_door_that_comes_by_tcp_takes_the_new_token_up(guarded: Guarded, tmp_path: Path) -> None:
    """Whoever is on its pages stays there; a file that is wrong leaves it as it was."""
    pytest.importorskip("litestar")
    words = ["web", "--http", "127.0.0.1:0", "--data", str(tmp_path / "web"), "--control"]
    words += [f"127.0.0.1:{guarded.daemon.port}", "--token-file", str(guarded.theirs)]
    command = [sys.executable, "-m", "cronflowd", *words]
    with (
        (tmp_path / "door.log").open("w") as log,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True) as door,
    ):
        try:
            assert door.stdout
            (where,) = re.findall("http=([^ ]+)", door.stdout.readline())

            def is_ready() -> bool:
                with suppress(OSError), urlopen(f"http://{where}/readyz", timeout=PATIENCE_S) as page:
                    return bool(page.status == 200)
                return False

            assert is_ready()
            guarded.hup(NEW)
            assert not is_ready()
            guarded.theirs.write_text("two words\n")
            door.send_signal(signal.SIGHUP)
            wait_until(lambda: "the token stays as it is" in (tmp_path / "door.log").read_text())
            guarded.write(guarded.theirs, NEW)
            door.send_signal(signal.SIGHUP)
            wait_until(is_ready)
        finally:
            door.terminate()


def test_settings_and_token_may_come_through_pipes(tmp_path: Path) -> None:
    """`<(…)` gives them but once; HUP asks again, and the local worker, which has a table of its own."""
    daemon = Daemon(tmp_path / "data", "--local-worker", "3")
    settings = "max_tasks = 1\\n[worker]\\nlabel = ['a=b']\\n"
    script = f'exec "$@" --token-file <(echo {OLD}) --config <(printf "{settings}")'
    daemon.within = ("bash", "-c", script, "bash")
    daemon.start()
    try:
        wait_until(lambda: daemon.ask(f"AUTH {OLD}", "WORKERS")[1].startswith("local\tready\t3\t0\ta=b"))
        os.kill(daemon.pid, signal.SIGHUP)
        wait_until(lambda: "settings read again" in daemon.log.read_text())
        answers = daemon.ask(f"AUTH {OLD}", *["ADD 0 0 1 1 * true"] * 2)
        assert [each.split()[:2] for each in answers] == [["OK", "admin"], ["OK", "1"], ["ERR", "limit"]]
    finally:
        daemon.close()
