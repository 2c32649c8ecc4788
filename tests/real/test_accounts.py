"""Accounts over real sockets: netcat, the unix socket as another user, kill -9, and the terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lib.waiting import PATIENCE_S
from tests.real.running import ROOT, Daemon

PASSWORD = "correct-horse-battery"
NOBODY = 65534


def _cronflowd(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cronflowd", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, stdin=subprocess.DEVNULL)


def _typed(typed: str, *words: str) -> str:
    """What a person sees who types this at a terminal."""
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-m", "cronflowd", *words])
    seen, asked = b"", 0
    while True:
        try:
            seen += (data := os.read(terminal, 4096))
        except OSError:
            break
        if not data:
            break
        while asked < seen.count(b"made): ") + seen.count(b"again: "):
            os.write(terminal, typed.encode() + b"\n")
            asked += 1
    os.waitpid(pid, 0)
    os.close(terminal)
    return seen.decode()


def _as_nobody(socket: Path, *lines: str) -> list[str]:
    """The answers that another user of this machine gets over the unix socket."""
    said = "".join(line + "\n" for line in (*lines, "QUIT"))
    command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "nc", "-U", str(socket)]
    return subprocess.run(
        command, input=said, capture_output=True, text=True, timeout=PATIENCE_S
    ).stdout.splitlines()


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that others reach; pytest shuts those above its own whenever another one begins."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        path.chmod(0o755)
        yield path


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
def test_accounts_over_real_sockets(
    start_daemon: Callable[..., Daemon], tmp_path: Path, open_path: Path
) -> None:
    """From `init` to another user, over a kill -9; and no secret stands anywhere but in its file."""
    data = tmp_path / "data"
    token_file = Path(_cronflowd("init", "--data", str(data)).stdout.strip())
    token = token_file.read_text().strip()
    socket = open_path / "control.sock"
    flags = ["--listen", "0.0.0.0:0", "--token-file", str(token_file), "--socket", str(socket)]
    daemon = start_daemon(*flags, "--log-level", "debug", data=data)
    auth = f"AUTH {token}"
    assert daemon.ask("WHOAMI")[0].startswith("ERR auth-required")
    assert daemon.ask(auth, "USER ADD ann role=user uid=65534", "QUIT")[::2] == [
        "OK admin role=admin",
        "OK ann",
    ]
    seen = _typed(PASSWORD, "user", "--connect", f"unix:{socket}", "password", "ann")
    assert PASSWORD not in seen
    assert seen.splitlines()[-1] == "ann"
    added = daemon.ask(f"AUTH ann {PASSWORD}", "ADD name=hers @daily x", "QUIT")
    assert (added[0], added[1][:14]) == ("OK ann role=user", "OK 1 hers next")
    daemon.kill9()
    daemon.start()
    assert _as_nobody(socket, "WHOAMI", "SET hers prio=high", "CLEAR all")[:2] == [
        "OK ann role=user", "OK 1 rev=2",
    ]  # fmt: skip
    assert daemon.ask(f"AUTH ann {PASSWORD}x", f"AUTH ann {PASSWORD}", "CLEAR all", "QUIT")[1:-1] == [
        "OK ann role=user", "ERR denied this takes the role operator; you are user",
    ]  # fmt: skip
    rows = [row.split("\t")[1:] for row in daemon.ask(auth, "AUDIT", "QUIT")[1:-2]]
    assert ["ann", "CLEAR", "all", "denied"] in [[row[0], *row[2:]] for row in rows]
    assert ["ann", "unix:nobody", "SET", "hers", "ok"] in rows
    assert daemon.ask(auth, "USER SET ann uid=", "QUIT")[1] == "OK ann"
    assert _as_nobody(socket, "LIST")[0] == (
        "ERR denied uid=65534 has no account here; an admin may give it one: USER ADD NAME uid=65534"
    )
    daemon.stop()
    for path in [daemon.log, *(each for each in data.rglob("*") if each.is_file())]:
        held = path.read_bytes()
        assert PASSWORD.encode() not in held
        assert path == token_file or token.encode() not in held


def test_an_admin_in_the_journal_opens_the_door(start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    """Without a token file; `--check-config` says the same, and everybody is asked there."""
    daemon = start_daemon()
    away = ["--listen", "0.0.0.0:0", "--data", str(daemon.data), "--local-worker", "0"]
    assert _cronflowd("serve", *away, "--check-config").returncode == 77
    assert daemon.ask(f"USER ADD root role=admin password={PASSWORD}") == ["OK root"]
    daemon.stop()
    assert _cronflowd("serve", *away, "--check-config").returncode == 0
    daemon.flags += ("--listen", "0.0.0.0:0")
    daemon.start()
    assert [line[:17] for line in daemon.ask("LIST", f"AUTH root {PASSWORD}", "LIST", "QUIT")] == [
        "ERR auth-required", "OK root role=admi", "OK 0", "OK bye",
    ]  # fmt: skip
    worker = ["worker", "--connect", f"127.0.0.1:{daemon.worker_port}", "--spool", str(tmp_path / "s")]
    assert _cronflowd(*worker).returncode == 77


def test_with_require_auth_our_own_program_shows_its_token(
    start_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    """Over the unix socket, too; and without it nobody is let in there, not even root."""
    data = tmp_path / "data"
    token_file = _cronflowd("init", "--data", str(data)).stdout.strip()
    daemon = start_daemon("--token-file", token_file, "--require-auth", data=data)
    socket = f"unix:{daemon.unix_socket}"
    assert _cronflowd("ls", "--connect", socket).returncode == 77
    asked = _cronflowd("whoami", "--connect", socket, "--token-file", token_file)
    assert (asked.returncode, asked.stdout) == (0, "admin role=admin\n")
    made = _cronflowd("token", "--connect", socket, "--token-file", token_file, "add", "name=ci")
    assert (made.stdout[:6], made.stdout.count("\n"), made.stderr) == ("token\t", 1, "1\n")
