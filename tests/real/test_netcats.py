"""The control port with the clients that people have: the right reply, and the prompt comes back.

What is measured is a person's wait from Enter to the next prompt. The machine may be busy,
so the best of some tries counts; a client that really waits never has a good try.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .running import PATIENCE_S, Daemon, wait_until

pytestmark = pytest.mark.real

PROMPT_S = 0.9  # any other wait of ours is longer
TRIES = 20  # only one that waits needs them all

CLIENTS = {
    "nc.openbsd": "nc.openbsd {host} {port}",
    "nc -N": "nc.openbsd -N {host} {port}",
    "nc.traditional": "nc.traditional {host} {port}",
    "ncat": "ncat {host} {port}",
    "busybox nc": "busybox nc {host} {port}",
    "socat": "socat -t 60 - TCP:{host}:{port}",  # by itself it waits for half a second
    "curl": "curl -s --no-buffer telnet://{host}:{port}",
    "bash": "bash -c 'exec 3<>/dev/tcp/{host}/{port}; cat >&3; cat <&3'",
}
LOCAL_CLIENTS = {
    "nc -U": "nc.openbsd -N -U {socket}",
    "socat": "socat -t 60 - UNIX-CONNECT:{socket}",
}

SEED = [
    ("CLEAR", r"OK \d+ removed"),
    ("PING", r"PONG"),
    ("ADD name=seed 0 5 * * * echo Hello every morning!", r"OK \d+ seed next=\S+T\S+Z"),
    ("LIST", r"\d+\tseed\t\w+\t\S+Z\t0 5 \* \* \*\techo Hello every morning!\t-\t-\t-\nOK 1"),
    ("STATUS", r"tasks\t1\n(.+\n)+OK 1 tasks"),
    ("SAVE", r"OK 1 saved"),
    ("LOAD", r"OK 1 loaded"),
    ("REMOVE seed", r"OK \d+ removed"),
    ("CLEAR", r"OK 0 removed"),
    ("FLY", r"ERR unknown-command .*FLY.*"),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for all clients; each cleans up before itself."""
    daemon = Daemon(tmp_path_factory.mktemp("netcats") / "data", "--local-worker", "0")
    daemon.start()
    yield daemon
    daemon.close()


def command(client: str, daemon: Daemon) -> list[str]:
    words = shlex.split(client.format(host=daemon.host, port=daemon.port, socket=daemon.unix_socket))
    if not shutil.which(words[0]):
        pytest.skip(f"needs {words[0]}")
    return words


def ask(client: str, daemon: Daemon, text: str) -> tuple[str, float]:
    """What `echo TEXT | client` prints, and how long it takes."""
    words = command(client, daemon)
    began_at = time.monotonic()
    done = subprocess.run(words, input=text.encode(), stdout=subprocess.PIPE, timeout=PATIENCE_S, check=False)
    return done.stdout.decode(), time.monotonic() - began_at


def best_wait_s(client: str, daemon: Daemon, text: str, reply: str) -> float:
    """The shortest of several waits; each reply must be right."""
    best_s = PATIENCE_S
    for _ in range(TRIES):
        got, wait_s = ask(client, daemon, text)
        assert re.fullmatch(reply + "\n", got), got
        best_s = min(best_s, wait_s)
        if best_s <= PROMPT_S:
            break
    return best_s


SCRIPT = "#!/bin/sh\r\nset -e\r\ncd /opt/app\r\nclear\r\nrun seed\r\nload\r\nundo\r\nexit 0"


@pytest.mark.parametrize("first", [SCRIPT, "cd /opt\nclear"])
@pytest.mark.parametrize("client", ["nc.openbsd", "nc.traditional"])
def test_a_script_in_the_wrong_window_changes_nothing(client: str, first: str, served: Daemon) -> None:
    """Whoever pastes it finds out; and all tasks are still there."""
    ask(CLIENTS[client], served, "CLEAR\nADD name=seed 0 5 * * * echo hi\n")
    said, _ = ask(CLIENTS[client], served, f"{first}\n")
    assert [line for line in said.splitlines() if not line.startswith("ERR ")] == []
    assert "\tseed\t" in ask(CLIENTS[client], served, "LIST\n")[0]
    assert ask(CLIENTS[client], served, "RUNS\n")[0] == "OK 0\n"


@pytest.mark.parametrize("client", CLIENTS)
def test_every_seed_command_answers_and_gives_the_prompt_back(client: str, served: Daemon) -> None:
    """The promise on the first page, for each client that people have."""
    waits_s: dict[str, float] = {}
    for _ in range(TRIES):
        for line, reply in SEED:
            got, wait_s = ask(CLIENTS[client], served, line + "\n")
            assert re.fullmatch(reply + "\n", got), (line, got)
            waits_s[line] = min(waits_s.get(line, wait_s), wait_s)
        if max(waits_s.values()) <= PROMPT_S:
            break
    assert max(waits_s.values()) <= PROMPT_S, waits_s


@pytest.mark.parametrize("client", LOCAL_CLIENTS)
def test_the_unix_socket_answers_too(client: str, served: Daemon) -> None:
    """There every client says its end."""
    assert best_wait_s(LOCAL_CLIENTS[client], served, "PING\n", "PONG") <= PROMPT_S


@pytest.mark.parametrize("client", CLIENTS)
def test_a_question_without_newline_is_answered(client: str, served: Daemon) -> None:
    """`printf PING | nc` is a health check."""
    assert best_wait_s(CLIENTS[client], served, "PING", "PONG") <= PROMPT_S


@pytest.mark.parametrize("client", CLIENTS)
def test_many_lines_at_once_are_all_answered(client: str, served: Daemon) -> None:
    """Ten thousand orders from a file, and the prompt is back when they are done."""
    lines, wait_s = "PING\n" * 10_000, PATIENCE_S
    for _ in range(TRIES):
        got, wait_s = ask(CLIENTS[client], served, lines)
        assert got == "PONG\n" * 10_000
        if wait_s < 4.0:
            break
    assert wait_s < 4.0, "it was taken for a conversation"


def test_telnet_with_a_script_behind_it_gets_its_answer(served: Daemon) -> None:
    """Also to lines that end as telnet's own do: it sends a NUL behind their CR.

    It leaves when its input ends, so the script has to keep it open; no server can mend that.
    """
    words = command("telnet {host} {port}", served)
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as telnet:
        assert telnet.stdin
        assert telnet.stdout
        telnet.stdin.write(b"PING\r\nPING\n")
        telnet.stdin.flush()
        assert telnet.stdout.read().count(b"PONG") == 2, "it ends when the server has ended"


def test_a_web_page_cannot_give_orders(served: Daemon) -> None:
    """A form that posts text to this port must not reach any verb."""
    words = command("curl -s -H Content-Type:text/plain", served)
    body = "x\nADD name=evil * * * * * rm -rf /\n"
    for port in (served.port, served.worker_port):
        done = subprocess.run(
            [*words, "--data-binary", body, f"http://{served.host}:{port}/"],
            stdout=subprocess.PIPE,
            timeout=PATIENCE_S,
            check=False,
        )
        assert (done.returncode in (52, 56), done.stdout) == (True, b"")
    assert "evil" not in served.nc("LIST")


# --- people -----------------------------------------------------------------------------------

TYPISTS = {
    "nc.openbsd": "nc.openbsd {host} {port}",
    "nc.traditional": "nc.traditional {host} {port}",
    "ncat": "ncat {host} {port}",
    "busybox nc": "busybox nc {host} {port}",
    "socat": "socat - TCP:{host}:{port}",
    "telnet": "telnet {host} {port}",
    "curl": "curl -s --no-buffer telnet://{host}:{port}",
}


class Person:
    """Somebody at a terminal, with a client running in it."""

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self._keyboard, terminal = pty.openpty()
        self.client = subprocess.Popen(
            words, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
        )
        os.close(terminal)
        self.screen = ""

    def type(self, text: str) -> None:
        os.write(self._keyboard, text.encode())

    def see(self, text: str) -> None:
        """Looks at the screen until it shows this, and wipes it."""
        give_up_at = time.monotonic() + PATIENCE_S
        while text not in self.screen:
            assert select.select([self._keyboard], [], [], give_up_at - time.monotonic())[0], self.screen
            try:
                self.screen += os.read(self._keyboard, 4096).decode()
            except OSError:
                pytest.fail(f"{self.words[0]} was cut off; the screen showed {self.screen!r}")
        self.screen = ""

    def leave(self) -> None:
        self.client.kill()
        self.client.wait()
        os.close(self._keyboard)


def connections(daemon: Daemon) -> int:
    """How many are open on TCP; whoever asks is not."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(daemon.unix_socket))
        client.sendall(b"METRICS connections\nQUIT\n")
        found = re.search(r'door="client",kind="tcp"} (\d+)\n', client.makefile().read())
    assert found
    return int(found[1])


def test_people_are_never_cut_off(start_daemon: Callable[..., Daemon]) -> None:
    """Slow fingers, half a line, a long thought: on every client the connection stays until QUIT.

    The waits are shortened, so that a thought that is longer than each of them takes a second.
    """
    daemon = start_daemon("--first-byte-wait", "300ms", "--end-wait", "50ms", "--more-wait", "400ms")
    clients = [client for client in TYPISTS.values() if shutil.which(shlex.split(client)[0])]
    people = [Person(command(client, daemon)) for client in clients]
    try:
        wait_until(lambda: connections(daemon) == len(people))
        for text, answer in [("PI", None), ("NG\n", "PONG"), ("PING\n", "PONG"), ("ADD @daily tea\n", "OK ")]:
            time.sleep(1.0)  # the thought: it has to be longer than the waits, and all people think together
            for person in people:
                person.type(text)
            for person in people:
                if answer:
                    person.see(answer)
        for person in people:
            person.type("QUIT\n")
        for person in people:
            person.see("OK bye")
    finally:
        for person in people:
            person.leave()


def test_a_killed_daemon_can_be_started_again_on_its_socket(daemon: Daemon, tmp_path: Path) -> None:
    """The socket file of the dead one is in the way, and nobody answers on it."""
    daemon.kill9()
    assert daemon.unix_socket.exists()
    daemon.start()
    assert daemon.nc("PING") == "PONG\n"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(daemon.unix_socket))
        client.sendall(b"PING\n")
        assert client.recv(100) == b"PONG\n"
    assert daemon.stop() == 0
    assert not daemon.unix_socket.exists()
