"""Workers through the HTTP door, as processes: what is killed on the way costs no job."""

from __future__ import annotations

import os
import re
import signal
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme

from tests.lib.job_processes import wait_for
from tests.real.running import PATIENCE_S, ROOT, Daemon, StartDaemon, wait_until

StartWorker = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[StartWorker]:
    """A worker called `ws` that dials as it is told; the log is the daemon's."""
    with ExitStack() as ended:

        def start(daemon: Daemon, connect: str, *flags: str) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", "cronflowd", "worker", "--connect", connect, "--name", "ws"]
            log = ended.enter_context(daemon.log.open("a"))
            spool = ["--spool", str(tmp_path / "spool")]
            worker = subprocess.Popen([*command, *spool, *flags], stderr=log, cwd=ROOT)
            ended.callback(worker.wait, PATIENCE_S)
            ended.callback(worker.kill)
            return worker

        yield start


def address(daemon: Daemon) -> str:
    return f"ws://127.0.0.1:{daemon.http_port}"


def held(tmp_path: Path, name: str) -> tuple[Path, str]:
    """A file that lets a job end, and the job: it waits for the file, and leaves a line behind."""
    gate = tmp_path / f"{name}.gate"
    return gate, f"{wait_for(gate)}; echo {name} >> {tmp_path}/done; echo said-{name}"


def test_jobs_outlive_everything_on_the_way(
    start_daemon: StartDaemon, start_worker: StartWorker, tmp_path: Path
) -> None:
    """Whatever is killed while a job runs, its end is told when there is a way again."""
    daemon = start_daemon("--http", "127.0.0.1:0")
    # Again the same one.
    daemon.flags = tuple(each.replace(":0", f":{daemon.http_port}") for each in daemon.flags)
    start_worker(daemon, address(daemon))
    daemon.until("WORKERS", lambda said: said.startswith("ws\tready\t"))
    assert "\t127.0.0.1:" in daemon.nc("WORKERS")
    done = tmp_path / "done"
    done.touch()
    for run, victim in enumerate(("door", "daemon"), 1):
        gate, job = held(tmp_path, victim)
        daemon.ask(f"NOW name={victim} {job}")
        daemon.until(f"RUNS {victim}", lambda said: "\trunning\t" in said)
        if victim != "daemon":
            os.kill(daemon.gateway(), signal.SIGKILL)
        if victim != "door":
            daemon.kill9()
        gate.touch()
        wait_until(lambda line=victim + "\n": done.read_text().endswith(line))  # type: ignore[misc]
        if victim != "door":
            daemon.start()
        daemon.until(f"RUNS {victim}", lambda said: "\tok\t" in said)
        assert daemon.ask(f"LOG {run}")[0] == f"1\tsaid-{victim}"
    assert done.read_text().split() == ["door", "daemon"], "each ran once"


def test_a_worker_that_is_killed_says_what_became_of_its_job(
    start_daemon: StartDaemon, start_worker: StartWorker, tmp_path: Path
) -> None:
    """As over TCP: it is told of as lost and not run again, and the next worker of that name works on."""
    daemon = start_daemon("--http", "127.0.0.1:0")
    worker = start_worker(daemon, address(daemon))
    daemon.until("WORKERS", lambda said: said.startswith("ws\tready\t"))
    gate, job = held(tmp_path, "gone")
    daemon.ask(f"NOW name=gone {job}")
    daemon.until("RUNS gone", lambda said: "\trunning\t" in said)
    worker.kill()
    start_worker(daemon, address(daemon))
    daemon.until("RUNS gone", lambda said: "\tlost\t" in said)
    daemon.ask("NOW name=next echo hi")
    daemon.until("RUNS next", lambda said: "\tok\t" in said)
    assert "balanced" in daemon.nc("PROVE")
    gate.touch()  # nobody's job now


def test_the_token_is_proved_through_the_door_and_asked_for(
    start_daemon: StartDaemon, start_worker: StartWorker, tmp_path: Path
) -> None:
    """The door is trusted by the daemon, its guests are not; orders are sealed from end to end."""
    token = tmp_path / "token"
    token.write_text("s3cret-s3cret-s3cret\n")
    token.chmod(0o600)
    daemon = start_daemon("--http", "127.0.0.1:0", "--token-file", str(token), "--require-proof")
    nobody = start_worker(daemon, address(daemon))
    assert nobody.wait(PATIENCE_S) == 77
    assert "auth-required" in daemon.log.read_text()
    start_worker(daemon, address(daemon), "--token-file", str(token))
    auth = "AUTH s3cret-s3cret-s3cret"

    def is_there() -> bool:
        return any(row.startswith("ws\tready\t") for row in daemon.ask(auth, "WORKERS"))

    wait_until(is_there)
    daemon.ask(auth, "NOW name=a echo hi")
    wait_until(lambda: "\tok\t" in daemon.nc(auth, "RUNS a"))


def test_a_door_of_its_own_finds_the_daemon_over_tcp(
    start_daemon: StartDaemon, start_worker: StartWorker, tmp_path: Path
) -> None:
    """As the units have it: another user than the daemon's, who reaches none of its files."""
    token = tmp_path / "token"
    token.write_text("s3cret-s3cret-s3cret\n")
    token.chmod(0o600)
    daemon = start_daemon("--require-auth", "--token-file", str(token))
    command = [
        sys.executable,
        "-m",
        "cronflowd",
        "web",
        "--http",
        "127.0.0.1:0",
        "--data",
        str(tmp_path / "web"),
    ]
    command += ["--control", f"127.0.0.1:{daemon.port}", "--worker-door", f"127.0.0.1:{daemon.worker_port}"]
    with subprocess.Popen(
        [*command, "--token-file", str(token)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as door:
        try:
            assert door.stdout
            ready = re.match(r"cronflowd web ready http=(\S+) ", door.stdout.readline())
            assert ready
            with urllib.request.urlopen(f"http://{ready[1]}/readyz", timeout=PATIENCE_S) as answer:
                assert answer.read() == b"ok\n"
            start_worker(daemon, f"ws://{ready[1]}", "--token-file", str(token))
            auth = "AUTH s3cret-s3cret-s3cret"
            wait_until(lambda: "\nws\tready\t" in daemon.nc(auth, "WORKERS"))
            daemon.ask(auth, "NOW name=a echo hi")
            wait_until(lambda: "\tok\t" in daemon.nc(auth, "RUNS a"))
        finally:
            door.terminate()
        assert door.wait(PATIENCE_S) == 0


def test_over_tls_the_name_is_verified(
    start_daemon: StartDaemon, start_worker: StartWorker, tmp_path: Path
) -> None:
    """`wss://` with an authority of one's own; whoever does not know it does not come in."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        tmp_path / "both.pem"
    )
    context = ssl.create_default_context(cafile=tmp_path / "ca.pem")
    daemon = start_daemon("--http", "127.0.0.1:0", "--tls-cert", str(tmp_path / "both.pem"))
    sealed = f"wss://127.0.0.1:{daemon.http_port}"
    start_worker(daemon, sealed, "--tls")
    wait_until(lambda: "unable to get local issuer certificate" in daemon.log.read_text())
    start_worker(daemon, sealed, "--tls-ca", str(tmp_path / "ca.pem"), "--spool", str(tmp_path / "spool2"))

    def ask(line: str) -> str:
        with daemon.connect() as plain, context.wrap_socket(plain, server_hostname="127.0.0.1") as client:
            client.sendall(f"{line}\nQUIT\n".encode())
            return b"".join(iter(lambda: client.recv(65_536), b"")).decode()

    wait_until(lambda: ask("WORKERS").startswith("ws\tready\t"))
    ask("NOW name=a echo hi")
    wait_until(lambda: "\tok\t" in ask("RUNS a"))


def test_a_door_of_its_own_that_the_daemon_takes_for_no_gateway_ends_at_once(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    """It began to serve, and sent everybody to sign in where nobody could."""
    daemon = start_daemon()
    words = ["web", "--http", "127.0.0.1:0", "--data", str(tmp_path / "web")]
    door = subprocess.run(
        [sys.executable, "-m", "cronflowd", *words, "--control", f"127.0.0.1:{daemon.port}"],
        capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE_S,
    )  # fmt: skip
    where = f"--control 127.0.0.1:{daemon.port}"
    assert door.returncode == 77
    assert re.fullmatch(
        f"cronflowd: error: {where}: it takes this for no gateway: .*token file\n", door.stderr
    )
