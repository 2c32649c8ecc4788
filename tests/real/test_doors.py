"""Who may come in, and what happens to whoever should not: real sockets, real processes."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lib.waiting import PATIENCE_S
from tests.real.running import ROOT, Daemon, StartDaemon, Worker, wait_until


@pytest.fixture
def guarded(start_daemon: StartDaemon, tmp_path: Path) -> tuple[Daemon, Path]:
    """A daemon that asks for the token which `cronflowd init` made."""
    data = tmp_path / "data"
    command = [sys.executable, "-m", "cronflowd", "init", "--data", str(data)]
    made = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    token_file = Path(made.stdout.strip())
    return start_daemon("--local-worker", "1", "--token-file", str(token_file), data=data), token_file


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that strangers speak with, one after another: none must leave anything behind."""
    daemon = Daemon(tmp_path_factory.mktemp("plain") / "data", "--local-worker", "0")
    daemon.start()
    try:
        daemon.ask("ADD @daily true")
        yield daemon
    finally:
        daemon.close()


def test_the_secret_is_asked_for_on_both_ports(guarded: tuple[Daemon, Path], tmp_path: Path) -> None:
    """Without it nothing is told and nothing changes; with it everything works."""
    daemon, token_file = guarded
    token = token_file.read_text().strip()
    assert len(token) == 64
    assert [line.split()[:2] for line in daemon.ask("PING", "LIST", "CLEAR")] == [
        ["PONG"],
        ["ERR", "auth-required"],
        ["ERR", "auth-required"],
    ]
    assert daemon.ask("AUTH wrong", "LIST")[0].startswith("ERR denied")
    assert daemon.ask(f"AUTH {token}", "LIST") == ["OK admin role=admin", "OK 0"]
    worker = Worker(daemon, "far", tmp_path / "spool", 1, "--token-file", str(token_file))
    worker.is_ready = lambda: any("far" in row for row in daemon.ask(f"AUTH {token}", "WORKERS"))  # type: ignore[method-assign]
    worker.start()
    worker.stop()


def test_a_worker_without_the_secret_is_told_so_and_gives_up(
    guarded: tuple[Daemon, Path], tmp_path: Path
) -> None:
    """Exit 77, with a reason: a wrong setting must not look like a network that is down."""
    daemon, _ = guarded
    command = [sys.executable, "-m", "cronflowd", "worker", "--connect", f"127.0.0.1:{daemon.worker_port}"]
    ended = subprocess.run(
        [*command, "--spool", str(tmp_path / "spool")],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        cwd=ROOT,
    )
    assert (ended.returncode, "auth-required" in ended.stderr) == (77, True)


def test_a_local_worker_needs_no_secret(guarded: tuple[Daemon, Path]) -> None:
    """Its door is a unix socket that only the daemon's own user can open."""
    daemon, _ = guarded
    token = (daemon.data / "token").read_text().strip()
    wait_until(lambda: any("local\tready" in row for row in daemon.ask(f"AUTH {token}", "WORKERS")))


def test_listening_beyond_this_machine_without_a_secret_is_refused(tmp_path: Path) -> None:
    """Whoever reaches the port can run any command, so this must be said aloud: exit 77."""
    daemon = Daemon(tmp_path / "data", "--local-worker", "0", "--listen", "0.0.0.0:0")
    status, message = daemon.start_and_fail()
    assert (status, "--insecure" in message) == (77, True)


def test_the_unix_socket_speaks_the_same_protocol(start_daemon: StartDaemon) -> None:
    """For scripts on the same machine; no silence ends it."""
    daemon = start_daemon()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE_S)
        connection.connect(str(daemon.data / "control.sock"))
        connection.sendall(b"PING\nQUIT\n")
        assert connection.makefile("r").read() == "PONG\nOK bye\n"


FOREIGN = [
    b"\n# a comment\n  \nGET / HTTP/1.1\r\nHost: x\r\n\r\nCLEAR\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\nCLEAR\r\n",
    b"POST http://localhost/ HTTP/1.1\r\n\r\nCLEAR\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\nCLEAR\n",
]


@pytest.mark.parametrize("port", ["control", "workers"])
@pytest.mark.parametrize("first", FOREIGN)
def test_http_and_tls_are_closed_and_nothing_they_say_is_executed(
    plain: Daemon, port: str, first: bytes
) -> None:
    """A web page can make a browser send lines to a local port; none of them may count."""
    number = plain.port if port == "control" else plain.worker_port
    with socket.create_connection(("127.0.0.1", number), timeout=PATIENCE_S) as connection:
        connection.sendall(first)
        assert b"OK" not in connection.makefile("rb").read()  # the worker port may say ERR
    assert plain.ask("LIST")[-1] == "OK 1"


def test_running_out_of_descriptors_ends_neither_the_daemon_nor_its_schedules(
    start_daemon: StartDaemon,
) -> None:
    """EMFILE: callers beyond the limit are told so, and later everything works again."""
    daemon = start_daemon()
    subprocess.run(["prlimit", f"--pid={daemon.pid}", "--nofile=40"], check=True)
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            connection = stack.enter_context(socket.socket())
            connection.settimeout(5)
            with contextlib.suppress(OSError):
                connection.connect(("127.0.0.1", daemon.port))
    wait_until(lambda: _pings(daemon))


def _pings(daemon: Daemon) -> bool:
    with contextlib.suppress(OSError):
        return daemon.ask("PING") == ["PONG"]
    return False


NONSENSE = [
    (b"WHAT is this\n", "ERR syntax"),
    (b"HELLO slots=1\n", "ERR syntax"),
    (b"HELLO name=all slots=1\n", "ERR bad-option"),
    (b"HELLO name=ok slots=1\n", "ERR bad-option"),
    (b"HELLO name=w slots=0\n", "ERR bad-option"),
    (b"HELLO name=w slots=1 running=x\n", "ERR syntax"),
    (b"\xff\xfe\n", "ERR bad-line"),
    (b"HELLO name=w slots=1\nDANCE\n", "ERR unknown-command"),
    (b"HELLO name=w slots=1\nDONE 1\n", "ERR syntax"),
    (b"HELLO name=w slots=1\nDONE x 1 0\n", "ERR syntax"),
    (b"HELLO name=w slots=1\nOUT 1 7 text\n", "ERR syntax"),
    (b"HELLO name=w slots=1\n" + b"x" * 70_000 + b"\n", "ERR too-long"),
]


@pytest.mark.parametrize(("said", "answer"), NONSENSE)
def test_a_worker_that_speaks_nonsense_is_told_so_and_closed(plain: Daemon, said: bytes, answer: str) -> None:
    """One line that names what was wrong; the daemon and everybody else go on."""
    with socket.create_connection(("127.0.0.1", plain.worker_port), timeout=PATIENCE_S) as connection:
        connection.sendall(said)
        lines = connection.makefile("r").read().splitlines()
    assert lines[-1].startswith(answer), lines
    assert plain.ask("PING") == ["PONG"]


def test_a_worker_that_ends_its_input_is_answered_before_it_is_closed(plain: Daemon) -> None:
    """A report that a script pipes through a netcat: the answer was cut off while the disk still wrote."""
    with socket.create_connection(("127.0.0.1", plain.worker_port), timeout=PATIENCE_S) as connection:
        connection.sendall(b"HELLO name=half\nDONE 7 1 0\nBEAT\n")
        connection.shutdown(socket.SHUT_WR)
        lines = connection.makefile("r").read().splitlines()
    assert [line.split(" ")[:2] for line in lines] == [["OK", "half"], ["ACK", "7"], ["OK"]]


def test_two_workers_of_one_name_lose_and_double_nothing(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """A machine was copied. They threw each other off every second, and nobody was told."""
    daemon = start_daemon("--lease", "3s", "--heartbeat", "1s")
    twins = [Worker(daemon, "pi", tmp_path / f"spool{n}", 2) for n in (1, 2)]
    try:
        for twin in twins:
            twin.launch()
        done = tmp_path / "done"
        daemon.until("WORKERS", lambda rows: rows.startswith("pi\tcontested\t"))
        for _ in range(5):
            daemon.ask(f"NOW echo $CRONFLOW_RUN_ID >> {done}; sleep 1")
        daemon.until("PROVE", lambda rows: "pending\t0" in rows)
    finally:
        for twin in twins:
            twin.kill9()
    assert sorted(done.read_text().split()) == [str(run) for run in range(1, 6)]
    assert [row.split("\t")[3:5] for row in daemon.ask("RUNS")[:-1]] == 5 * [["1", "ok"]]
    assert "two workers are named pi, and" in daemon.log.read_text()
    assert 3 <= daemon.log.read_text().count("worker pi joined") < 15
