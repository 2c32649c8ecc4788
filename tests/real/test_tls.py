"""TLS as people reach for it: ncat, socat, openssl, our own client and worker, against a real daemon."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lib.waiting import PATIENCE_S
from tests.real.running import ROOT, Daemon, StartDaemon, wait_until

NETCATS = {
    "ncat": "ncat --ssl --ssl-verify --ssl-trustfile {ca} localhost {port}",
    "socat": "socat -t 60 - OPENSSL:localhost:{port},cafile={ca},verify=1,pf=ip4",
    "openssl": "openssl s_client -quiet -4 -connect localhost:{port} -CAfile {ca}",
}


def cronflowd(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cronflowd", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, cwd=ROOT, check=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("made") / "certs"
    made = cronflowd("certs", str(directory), "localhost", "pi")
    assert made.returncode == 0, made.stderr
    assert made.stdout.splitlines()[-2:] == [f"{directory}/pi.pem", f"{directory}/pi.key"]
    return directory


@pytest.fixture
def certs(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "certs")


def flags(certs: Path, name: str = "localhost") -> list[str]:
    return ["--tls-cert", str(certs / f"{name}.pem"), "--tls-key", str(certs / f"{name}.key")]


@pytest.fixture
def daemon(start_daemon: StartDaemon, certs: Path) -> Daemon:
    return start_daemon("--local-worker", "0", *flags(certs))


@pytest.fixture(scope="module")
def shared(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon for all that change neither it nor each other's tasks."""
    daemon = Daemon(tmp_path_factory.mktemp("shared") / "data", "--local-worker", "0", *flags(made))
    daemon.start()
    yield daemon
    daemon.close()


@pytest.mark.parametrize("name", NETCATS)
def test_an_answer_comes_back_whole_and_the_prompt_with_it(shared: Daemon, made: Path, name: str) -> None:
    """The rules for a conversation's end hold: nobody presses a key, and nothing is cut off."""
    command = NETCATS[name].format(ca=made / "ca.pem", port=shared.port).split()
    assert shutil.which(command[0]), f"{command[0]} is used here"
    orders = "".join(f"ADD name={name}{n} 0 9 * * * echo {'x' * 200}\n" for n in range(500))
    added = subprocess.run(
        command, input=orders, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert added.stdout.count("OK ") == 500, added.stderr
    listed = subprocess.run(
        command, input=f"LIST name={name}*\n", capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert listed.stdout.splitlines()[-1] == "OK 500"
    assert len(listed.stdout) > 100_000


def test_our_client_and_our_worker_believe_the_authority_alone(
    shared: Daemon, made: Path, tmp_path: Path
) -> None:
    """A job goes over TLS from the terminal to a worker and back."""
    server = ["--server", f"localhost:{shared.port}"]
    worker = [sys.executable, "-m", "cronflowd", "worker", "--connect", f"localhost:{shared.worker_port}"]
    worker += ["--name", "far", "--tls-ca", str(made / "ca.pem"), "--spool", str(tmp_path / "spool")]
    with subprocess.Popen(worker, cwd=ROOT, stderr=subprocess.DEVNULL) as running:
        try:
            done = cronflowd("run", *server, "--tls-ca", str(made / "ca.pem"), "--", "seq", "20000")
            assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "20000"), done.stderr
        finally:
            running.terminate()
    unknown = cronflowd("ls", *server, "--tls")
    assert unknown.returncode != 0
    assert "TLS: unable to get local issuer certificate" in unknown.stderr
    other = cronflowd(
        "ls", "--server", f"localhost.localdomain:{shared.port}", "--tls-ca", str(made / "ca.pem")
    )
    assert other.returncode != 0


def test_plain_text_on_a_tls_port_and_tls_on_a_plain_one_are_told_in_the_log(
    daemon: Daemon, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    """Each is closed, with a line that says what it was."""
    for port in (daemon.port, daemon.worker_port):
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as plain:
            plain.sendall(b"HELLO name=x slots=1\n")
            plain.settimeout(PATIENCE_S)
            while plain.recv(1000):  # the alert, in TLS
                pass
    wait_until(lambda: daemon.log.read_text().count("does not speak TLS as it should: ") == 2)
    other = start_daemon("--local-worker", "0", data=tmp_path / "plain")
    for port in (other.port, other.worker_port):
        with (
            socket.create_connection(("127.0.0.1", port), PATIENCE_S) as plain,
            pytest.raises((ssl.SSLError, OSError)),
        ):
            ssl.create_default_context().wrap_socket(plain, server_hostname="localhost")
    wait_until(lambda: other.log.read_text().count("speaks TLS") == 2)


def test_a_handshake_that_never_ends_is_in_nobody_s_way(shared: Daemon, made: Path) -> None:
    """A stranger may hold a place for ten seconds, and no more than that."""
    silent = [socket.create_connection(("127.0.0.1", shared.port)) for _ in range(50)]
    command = NETCATS["socat"].format(ca=made / "ca.pem", port=shared.port).split()
    answer = subprocess.run(command, input="PING\n", capture_output=True, text=True, timeout=9, check=False)
    assert answer.stdout == "PONG\n"
    for each in silent:
        each.close()


def test_certificates_are_read_again_at_hup_and_what_is_wrong_changes_nothing(
    daemon: Daemon, certs: Path
) -> None:
    """They are renewed every few weeks, by something that sends HUP."""

    def shown() -> str:
        context = ssl.create_default_context(cafile=str(certs / "ca.pem"))
        plain = socket.create_connection(("127.0.0.1", daemon.port), PATIENCE_S)
        with context.wrap_socket(plain, server_hostname="localhost") as sealed:
            certificate = sealed.getpeercert()
            assert certificate
            return str(certificate["serialNumber"])

    first = shown()
    for suffix in ("pem", "key"):
        (certs / f"localhost.{suffix}").unlink()
    os.kill(daemon.pid, signal.SIGHUP)
    wait_until(lambda: "the settings stay as they were" in daemon.log.read_text())
    assert shown() == first
    assert cronflowd("certs", str(certs), "localhost").returncode == 0
    os.kill(daemon.pid, signal.SIGHUP)
    wait_until(lambda: shown() != first)


def test_tls_that_hup_finds_new_is_not_said_to_be_in_force(
    start_daemon: StartDaemon, certs: Path, tmp_path: Path
) -> None:
    """Tokens went on in plain text over ports of which the log said that TLS was in force."""
    config = tmp_path / "cronflowd.toml"
    config.touch()
    daemon = start_daemon("--local-worker", "0", "--config", str(config))
    config.write_text("tls_cert = '/dev/null/nowhere'\n")
    os.kill(daemon.pid, signal.SIGHUP)
    wait_until(lambda: "the settings stay as they were: /dev/null/nowhere" in daemon.log.read_text())
    config.write_text(f"tls_cert = '{certs}/localhost.pem'\ntls_key = '{certs}/localhost.key'\n")
    os.kill(daemon.pid, signal.SIGHUP)
    wait_until(lambda: "both ports go on without TLS until the next start" in daemon.log.read_text())
    assert "limits, notify, log, token are in force, the rest at the next start" in daemon.log.read_text()
    assert daemon.ask("PING") == ["PONG"]


def test_a_certificate_that_ends_soon_is_told_and_shown(start_daemon: StartDaemon, certs: Path) -> None:
    """Nobody remembers the day two years later."""
    script = (
        "import sys; from datetime import *; from pathlib import Path\n"
        "from cronflowd.host import tls\n"
        "tls.DAYS = 7\n"
        "tls.make_certificates(Path(sys.argv[1]), ['short.example'], datetime.now(UTC))\n"
    )
    subprocess.run([sys.executable, "-c", script, str(certs)], check=True, cwd=ROOT)
    daemon = start_daemon("--local-worker", "0", *flags(certs, "short.example"))
    wait_until(lambda: "the TLS certificate ends" in daemon.log.read_text())
    status = cronflowd("status", "--data", str(daemon.data)).stdout
    assert "tls-certificate-until" in status


def test_who_has_no_certificate_stays_outside_where_one_is_asked_for(
    start_daemon: StartDaemon, certs: Path, tmp_path: Path
) -> None:
    """--tls-client-ca is a door before the door; the unix socket knows its users otherwise."""
    daemon = start_daemon("--local-worker", "0", *flags(certs), "--tls-client-ca", str(certs / "ca.pem"))
    server = ["--server", f"localhost:{daemon.port}", "--tls-ca", str(certs / "ca.pem")]
    assert cronflowd("ls", *server).returncode != 0
    assert cronflowd("ls", *server, *flags(certs, "pi")).returncode == 0
    assert cronflowd("ls", "--data", str(daemon.data)).returncode == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--tls-key", "x.pem"], "tls-key and tls-client-ca need tls-cert"),
        (["--tls-client-ca", "x.pem"], "tls-key and tls-client-ca need tls-cert"),
        (["--tls-cert", "/dev/null/x", "--tls-key", "/dev/null/y"], "/dev/null/x: Not a directory"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_served(tmp_path: Path, given: list[str], said: str) -> None:
    """A daemon that spoke plain text after all would be worse than none."""
    for check in ([], ["--check-config"]):
        ended = cronflowd("--data", str(tmp_path), "--listen", "127.0.0.1:0", *given, *check)
        assert ended.returncode == 78
        assert said in ended.stderr
