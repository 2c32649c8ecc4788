"""A gateway over the real unix socket, by netcat; and what it was promised is there after a kill -9."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.lib.waiting import PATIENCE_S
from tests.real.running import Daemon

PASSWORD = "correct-horse-battery"


def _says(socket: Path, *lines: str) -> list[str]:
    said = "".join(line + "\n" for line in (*lines, "QUIT"))
    command = ["nc", "-U", str(socket)]
    found = subprocess.run(
        command, input=said, capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    return found.stdout.splitlines()[:-1]


def test_what_a_gateway_was_promised_outlives_a_kill(
    start_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    """A session goes on, its old token ends it, and what was done once is not done again."""
    socket = tmp_path / "s"
    daemon = start_daemon("--socket", str(socket), data=tmp_path / "data")
    once = "ONCE order-4711 ADD name=report @daily make report"
    first = _says(
        socket, f"USER ADD root role=admin first=yes password={PASSWORD}",
        f"USER ADD eve role=admin first=yes password={PASSWORD}", "USER ADD ann email=ann@example.org",
        "AS ann",
        once, "AS from=198.51.100.7", "SESSION ADD ann",
    )  # fmt: skip
    assert first[:2] == ["OK root", "ERR exists there is an account already, so this is not the first"]
    assert first[4:7] == ["OK ann role=user", first[5], "OK nobody role=none"]
    token, answered = first[7].partition("\t")[2], first[5]
    assert answered.startswith("OK 1 report ")
    daemon.kill9()
    daemon.start()
    second = _says(socket, "AS ann session=1", once, "LIST", "AS from=198.51.100.7", f"SESSION RENEW {token}")
    assert second[1] == answered
    assert second[3] == "OK 1"
    assert second[6] == "OK 1 ann role=user"
    daemon.kill9()
    daemon.start()
    assert _says(socket, f"SESSION RENEW {token}", f"SESSION RENEW {second[5][6:]}", "SESSION LIST") == [
        "ERR denied a token of the session 1 was shown again; the session has ended",
        "ERR denied the session is over, or there was none", "OK 0",
    ]  # fmt: skip
    written = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
    assert not [word for word in (token[:64], token[64:], PASSWORD) if word.encode() in written]
