"""Real daemons, real workers, and whoever stands between them or in the daemon's place."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lib.job_processes import wait_for
from tests.lib.waiting import PATIENCE_S
from tests.real.running import ROOT, Daemon, StartDaemon, Worker, wait_until

TOKEN = "correct-horse-battery-staple"
Change = Callable[[bytes], list[bytes]]


def write_token(path: Path, token: str = TOKEN) -> Path:
    path.write_text(token + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    return write_token(tmp_path / "token")


class Between:
    """Somebody on the wire: what the daemon says goes through `change`, line by line."""

    def __init__(self, port: int) -> None:
        self.port_behind = port
        self.change: Change = lambda line: [line]
        self.heard = b""  # from the worker
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.sockets: list[socket.socket] = [self.listener]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def worker_port(self) -> int:
        port: int = self.listener.getsockname()[1]
        return port

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it is closed
            while True:
                near, _ = self.listener.accept()
                self.sockets.append(near)
                try:
                    far = socket.create_connection(("127.0.0.1", self.port_behind))
                except OSError:  # the daemon is away
                    near.close()
                    continue
                self.sockets.append(far)
                threading.Thread(target=self._up, args=(near, far), daemon=True).start()
                threading.Thread(target=self._down, args=(far, near), daemon=True).start()

    def _up(self, near: socket.socket, far: socket.socket) -> None:
        try:
            while data := near.recv(65536):
                self.heard += data
                far.sendall(data)
            far.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def _down(self, far: socket.socket, near: socket.socket) -> None:
        try:
            with far.makefile("rb") as lines:
                for line in lines:
                    near.sendall(b"".join(self.change(line)))
            near.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self) -> None:
        for each in self.sockets:
            each.close()


class Guarded:
    """A daemon that asks for a token, and a worker that has it, with somebody between them."""

    def __init__(self, daemon: Daemon, token_file: Path, spool: Path) -> None:
        self.daemon = daemon
        self.between = Between(daemon.worker_port)
        self.worker = Worker(daemon, "far", spool, 4, "--token-file", str(token_file))
        self.worker.is_ready = lambda: "far\tready" in self.ask("WORKERS")  # type: ignore[method-assign]

    def start(self, *flags: str) -> None:
        port, self.daemon.worker_port = self.daemon.worker_port, self.between.worker_port
        self.worker.flags = (*self.worker.flags, *flags)
        try:
            self.worker.launch()
        finally:
            self.daemon.worker_port = port
        wait_until(self.worker.is_ready)

    def ask(self, *lines: str) -> str:
        return self.daemon.nc(f"AUTH {TOKEN}", *lines)

    def session(self) -> str:
        """Since when the worker is there; empty while it is not."""
        rows = (row.split("\t") for row in self.ask("WORKERS").split("\n"))
        return next((row[5] for row in rows if row[:2] == ["far", "ready"]), "")

    def wait_for_another(self, session: str) -> str:
        """A worker that has refused an order begins anew: until then the next is said to nobody."""
        wait_until(lambda: self.session() not in ("", session))
        return self.session()

    def end_of(self, command: str) -> list[str]:
        """The last row of RUNS about a NOW, when it has ended."""
        run = self.ask(f"NOW on=far {command}").split("OK ")[2].split(" ")[0]
        rows: list[list[str]] = []

        def has_ended() -> bool:
            rows[:] = [row.split("\t") for row in self.ask("RUNS").split("\n") if row.startswith(f"{run}\t")]
            return bool(rows) and rows[0][4] not in ("queued", "sent", "running")

        wait_until(has_ended)
        return rows[0]


@pytest.fixture
def guarded(start_daemon: StartDaemon, token_file: Path, tmp_path: Path) -> Iterator[Guarded]:
    found = Guarded(
        start_daemon("--token-file", str(token_file), "--require-proof"), token_file, tmp_path / "spool"
    )
    yield found
    found.worker.kill9()
    found.between.close()


def test_a_token_is_proved_and_never_said(guarded: Guarded) -> None:
    """Neither on the wire nor where `ps` shows it; and who says it is not let in where proof is required."""
    guarded.start()
    assert guarded.end_of("true")[4] == "ok"
    assert TOKEN.encode() not in guarded.between.heard
    assert b" PROVE " in b" " + guarded.between.heard.replace(b"\n", b" ")
    assert guarded.worker.process
    for pid in (guarded.daemon.pid, guarded.worker.process.pid):
        for name in ("cmdline", "environ"):
            assert TOKEN.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()
    with socket.create_connection(("127.0.0.1", guarded.daemon.worker_port), timeout=PATIENCE_S) as stranger:
        stranger.sendall(f"HELLO name=w1 token={TOKEN}\n".encode())
        assert stranger.makefile().readline() == "ERR auth-required HELLO needs nonce= here, and PROVE\n"


def test_whoever_is_between_gets_nothing_carried_out(guarded: Guarded, tmp_path: Path) -> None:
    """Altered, swapped or repeated: nothing runs but what was ordered, once, and all of it is told."""
    guarded.start()
    marks, kept = tmp_path / "marks", list[bytes]()

    def alter(line: bytes) -> list[bytes]:
        return [line.replace(b"good", b"evil")]

    def swap(line: bytes) -> list[bytes]:
        kept.append(line)
        return kept[-1:-3:-1] if line.startswith(b"RUN") and len(kept) == 2 else []

    def replay(line: bytes) -> list[bytes]:
        return [line] * 3

    def through(change: Change) -> Change:
        return lambda line: change(line) if line.startswith(b"RUN") else [line]

    session = guarded.session()
    guarded.between.change = through(alter)
    row = guarded.end_of(f"echo good >> {marks}; echo evil >> {marks}")
    assert row[4] == "failed"
    assert "far refused the order (altered): " in guarded.ask(f"LOG {row[0]}")
    assert "\tORDER\t" in guarded.ask("AUDIT verdict=denied")
    session = guarded.wait_for_another(session)
    guarded.between.change = through(swap)
    for _ in range(2):
        guarded.ask(f"NOW on=far echo good >> {marks}")
    wait_until(lambda: guarded.ask("RUNS state=failed").count("\tfailed\t") == 3)
    assert "(out-of-order)" in guarded.ask("LOG 3") + guarded.ask("LOG 2")
    assert not marks.exists()
    guarded.wait_for_another(session)
    guarded.between.change = through(replay)
    assert guarded.end_of(f"echo good >> {marks}")[4] == "ok"
    wait_until(lambda: guarded.ask("AUDIT verdict=denied who=far").count("\tORDER\t4\t") == 2)
    assert marks.read_text() == "good\n"


def test_an_order_that_is_left_out_on_the_way_is_given_again(
    start_daemon: StartDaemon, token_file: Path, tmp_path: Path
) -> None:
    """The answer to a BEAT tells its number, or both would wait for ever."""
    daemon = start_daemon("--token-file", str(token_file), "--heartbeat", "200ms")
    found = Guarded(daemon, token_file, tmp_path / "spool")
    try:
        found.start()
        lost: list[bytes] = []

        def lose_one(line: bytes) -> list[bytes]:
            if line.startswith(b"RUN") and not lost:
                lost.append(line)
                return []
            return [line]

        found.between.change = lose_one
        assert found.end_of("true")[3:5] == ["2", "ok"]
        assert "attempt 1 never reached worker far" in found.ask("LOG 1")
    finally:
        found.worker.kill9()
        found.between.close()


def test_a_kill_of_both_loses_no_job_and_orders_go_on(guarded: Guarded, tmp_path: Path) -> None:
    """Sessions are made anew, with keys of their own, and what ran is reported in the new one."""
    guarded.start()
    gate = tmp_path / "gate"
    guarded.ask(f"NOW on=far {wait_for(gate)}")
    wait_until(lambda: "\trunning\t" in guarded.ask("RUNS"))
    guarded.daemon.kill9()
    guarded.daemon.start()
    guarded.between.port_behind = guarded.daemon.worker_port
    wait_until(guarded.worker.is_ready)
    gate.touch()
    wait_until(lambda: "1\t1\t" in guarded.ask("RUNS state=ok"))
    guarded.worker.kill9()
    wait_until(lambda: "far\taway" in guarded.ask("WORKERS"))
    guarded.start()
    assert guarded.end_of("true")[4] == "ok"


def public_key(data: Path) -> str:
    command = [sys.executable, "-m", "cronflowd", "key", "--data", str(data)]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout


def test_whoever_has_stolen_the_token_can_give_no_orders(
    start_daemon: StartDaemon, token_file: Path, tmp_path: Path
) -> None:
    """It can be taken for the daemon; what it orders is signed by nobody, or by a key of its own."""
    real = start_daemon("--token-file", str(token_file), "--sign-orders")
    assert (real.data / "order.key").stat().st_mode & 0o777 == 0o600
    order_key = tmp_path / "order.pub"
    order_key.write_text(public_key(real.data))
    for number, (daemon, state, code) in enumerate((
        (real, "ok", ""),
        (start_daemon("--token-file", str(token_file)), "failed", "unsigned"),
        (start_daemon("--token-file", str(token_file), "--sign-orders"), "failed", "forged"),
    )):  # fmt: skip
        found = Guarded(daemon, token_file, tmp_path / f"spool{number}")
        try:
            found.start("--order-key", str(order_key))
            row = found.end_of("true")
            assert (row[4], f"refused the order ({code})" in found.ask(f"LOG {row[0]}")) == (
                state,
                bool(code),
            )
        finally:
            found.worker.kill9()
            found.between.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a job as somebody else")
def test_a_job_runs_as_the_user_that_its_task_names(guarded: Guarded, tmp_path: Path) -> None:
    """With all that user's groups, and as from cron: a file that it may not read stays closed to it."""
    guarded.start("--users", "nobody,daemon")
    secret = write_token(tmp_path / "secret")
    tmp_path.chmod(0o755)
    for options in ("user=nobody", "user=nobody type=script", "user=nobody cwd=/tmp"):
        shell = "sh -c '" if "script" in options else ""
        command = (
            f"{shell}id; id -G; echo $HOME $USER $LOGNAME $SHELL; pwd; cat {secret}; echo x > /dev/stdout"
        )
        row = guarded.end_of(f"{options} {command}{shell and chr(39)}")
        log = guarded.ask(f"LOG {row[0]}")
        want = subprocess.run(["id", "-G", "nobody"], capture_output=True, text=True, check=True).stdout
        assert "(nobody)" in log
        assert f"1\t{want}" in log
        assert "nobody nobody /bin/sh" in log
        assert "Permission denied" in log
        assert TOKEN not in log
        assert ("1\t/tmp\n" if "cwd" in options else "1\t/\n") in log
        assert "1\tx\n" in log
    assert "no connected worker" in guarded.ask("ADD name=r user=bin on=far @daily x")
    guarded.ask("RUN r")
    assert "shell as bin" in guarded.ask("WHY r")
    assert "user:daemon,user:nobody" in guarded.ask("WORKERS")
