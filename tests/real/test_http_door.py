"""The HTTP door as a process: it comes with the daemon, goes with it, and is started again."""

from __future__ import annotations

import http.client
import os
import signal
from pathlib import Path

from tests.real.running import Daemon, StartDaemon, wait_until


def get(daemon: Daemon, path: str = "/readyz", timeout_s: float = 20.0) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", daemon.http_port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except OSError:
        return False


def test_it_is_started_again_and_nobody_is_refused_meanwhile(start_daemon: StartDaemon) -> None:
    """The daemon holds the socket: whoever comes in between waits for a moment."""
    daemon = start_daemon("--http", "127.0.0.1:0")
    assert get(daemon) == (200, "ok\n")
    first = daemon.gateway()
    os.kill(first, signal.SIGKILL)
    assert get(daemon) == (200, "ok\n")
    assert daemon.gateway() not in (0, first)
    assert daemon.nc("PING") == "PONG\n"


def test_it_ends_with_the_daemon_however_that_ends(start_daemon: StartDaemon) -> None:
    """One that stayed would hold the port, and answer for nobody."""
    daemon = start_daemon("--http", "127.0.0.1:0")
    get(daemon)
    for end in daemon.stop, daemon.kill9:
        gateway = daemon.gateway()
        end()
        wait_until(lambda gateway=gateway: not is_alive(gateway))  # type: ignore[misc]
        daemon.start()
        get(daemon)


def test_one_that_stands_still_holds_up_nobody(start_daemon: StartDaemon) -> None:
    """Jobs run, netcat is answered, and the daemon ends when it is told to."""
    daemon = start_daemon("--http", "127.0.0.1:0", "--local-worker", "2")
    get(daemon)
    os.kill(daemon.gateway(), signal.SIGSTOP)
    gateway = daemon.gateway()
    try:
        daemon.ask('ADD name=a "every 1 seconds" true')
        wait_until(lambda: "\tok\t" in daemon.nc("RUNS a"))
        assert daemon.stop() == 0  # within the patience that it has
    finally:
        os.kill(gateway, signal.SIGCONT)
    wait_until(lambda: not is_alive(gateway))


def test_a_daemon_that_is_gone_is_said(start_daemon: StartDaemon) -> None:
    """A load balancer must not send people here while nobody can answer them."""
    daemon = start_daemon("--http", "127.0.0.1:0")
    get(daemon)
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        assert get(daemon, "/healthz") == (200, "ok\n")
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
    assert get(daemon) == (200, "ok\n")
