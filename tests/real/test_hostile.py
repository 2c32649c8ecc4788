"""Strangers who want the daemon down: floods of lines, connections, handshakes and words, on real sockets."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.real.running import PATIENCE_S, ROOT, Daemon, StartDaemon, wait_until

pytestmark = pytest.mark.real
LONG = bool(os.environ.get("CRONFLOWD_LONG"))
LINES = 1_000_000 if LONG else 10_000
WARM_UP = 5_000
MOST_GROWTH_KIB = 16 * 1024
TOKEN = "f00d" * 16


@pytest.fixture
def guarded(start_daemon: StartDaemon, tmp_path: Path) -> Callable[..., Daemon]:
    """A daemon with a token, and with further flags."""
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    file.chmod(0o600)
    return lambda *flags: start_daemon("--token-file", str(file), *flags)


class Friend:
    """Somebody known, who asks one thing after the other."""

    def __init__(self, daemon: Daemon, source: str = "127.0.0.1") -> None:
        self.sock = socket.create_connection(
            ("127.0.0.1", daemon.port), timeout=PATIENCE_S, source_address=(source, 0)
        )
        self.answers = self.sock.makefile()
        assert self.ask(f"AUTH {TOKEN}").startswith("OK admin")

    def ask(self, line: str) -> str:
        self.sock.sendall(line.encode() + b"\n")
        return self.answers.readline()

    def ping_s(self) -> float:
        began_at = time.perf_counter()
        assert self.ask("PING") == "PONG\n"
        return time.perf_counter() - began_at

    def close(self) -> None:
        self.answers.close()
        self.sock.close()


def memory_kib(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1])


@contextlib.contextmanager
def flood(port: int, lines: int, seed: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.fuzz.flood", str(port), str(lines), str(seed)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def at_99(times: list[float]) -> float:
    return sorted(times)[len(times) * 99 // 100]


@pytest.mark.timeout(900 if LONG else 300)
@pytest.mark.parametrize("port", ["port", "worker_port"], ids=["control", "workers"])
def test_hostile_lines_cost_nobody_else_anything(port: str, guarded: Callable[..., Daemon]) -> None:
    """Before AUTH, from many addresses: no crash, no bug, memory stays, who is known is answered."""
    daemon = guarded("--max-locked-lines", "1000000")
    friend = Friend(daemon)
    quiet = [friend.ping_s() for _ in range(200)]
    number = getattr(daemon, port)
    with flood(number, WARM_UP, 1) as warm:
        warm.wait()
    before, times = memory_kib(daemon.pid), []
    with flood(number, LINES, 2) as process:
        while process.poll() is None:
            times.append(friend.ping_s())
            time.sleep(0.001)
        assert process.stdout
        sent = int(process.stdout.read().split()[0])
    grown = memory_kib(daemon.pid) - before
    told = f"{sent} lines; PING p99 {at_99(times) * 1e3:.1f} ms of {len(times)}, worst {max(times) * 1e3:.1f}"
    print(f"{told} (quiet {at_99(quiet) * 1e3:.1f}); memory grew by {grown} KiB")
    assert sent >= LINES
    assert len(times) >= 20
    assert not LONG or at_99(times) <= 0.05
    assert grown <= MOST_GROWTH_KIB
    assert friend.ask("LIST") == "OK 0\n"
    friend.close()
    log = daemon.log.read_text()
    assert "bug" not in log
    assert "Traceback" not in log


def connections_refused(daemon: Daemon) -> int:
    """As the owner hears it, whose door has places of its own."""
    command = ["nc", "-N", "-U", str(daemon.unix_socket)]
    status = subprocess.run(
        command, input="STATUS\n", capture_output=True, text=True, timeout=PATIENCE_S
    ).stdout
    found = re.search(r"connections-refused\t(\d+)", status)
    assert found
    return int(found[1])


def test_who_says_nothing_to_its_end_is_in_nobody_s_way(guarded: Callable[..., Daemon]) -> None:
    """Half lines, half handshakes, and nothing at all, as many as fit; then one who knows the word comes."""
    daemon = guarded("--max-clients", "100", "--max-per-address", "1000")
    halves = (b"", b"P", b"ADD * * * * * x", b"\xff\xfa", b"\x16")
    held = []
    for number in range(120):
        stranger = socket.create_connection(
            ("127.0.0.1", daemon.port), timeout=PATIENCE_S, source_address=(f"127.0.1.{number + 1}", 0)
        )
        with contextlib.suppress(OSError):  # it may be one too many
            stranger.sendall(halves[number % len(halves)])
        held.append(stranger)
    wait_until(lambda: connections_refused(daemon) >= 20)
    for stranger in held:
        stranger.close()
    wait_until(lambda: daemon.ask("PING") == ["PONG"])
    Friend(daemon).close()


def test_the_right_word_is_taken_at_once_while_others_guess(guarded: Callable[..., Daemon]) -> None:
    """Guesses wait longer and longer, each address for itself: nobody is locked out by a stranger."""
    daemon = guarded()
    guessers = []
    for number in range(8):
        guesser = socket.create_connection(
            ("127.0.0.1", daemon.port), timeout=PATIENCE_S, source_address=(f"127.0.2.{number // 2 + 1}", 0)
        )
        guesser.sendall(b"".join(b"AUTH wrong%d\n" % each for each in range(30)))
        guessers.append(guesser)
    answers = [guesser.makefile() for guesser in guessers]
    assert all(each.readline().startswith("ERR denied") for each in answers[::2])
    friend = Friend(daemon)
    assert friend.ask("WHOAMI") == "OK admin role=admin\n"
    # Whoever is still owed answers had to wait when the friend did not.
    status = friend.ask("STATUS HEAD=no")
    rows = {}
    while "\t" in status:
        key, _, value = status.partition("\t")
        rows[key], status = value.strip(), friend.answers.readline()
    assert 4 <= int(rows["wrong-words"]) < 8 * 30
    friend.close()
    for each in (*answers, *guessers):
        each.close()
