"""Many at the doors at once: does anybody else notice?

    python -m tests.bench_doors crowd [CONTROL] [HTTP]    so many held (10,000, 2,000); one asks
    python -m tests.bench_doors browsers [ROUNDS]         how late jobs are, without and with 200 requests
                                                          a second and 500 that read events

Both say how long the machine let a process sleep beyond what it asked for: nobody can be quicker.
"""

from __future__ import annotations

import json
import resource
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from tests.real.running import Daemon, wait_until

READERS, REQUESTS_A_S = 500, 200
TASKS, EVERY_S, ROUND_S = 100, 2, 30
PINGS, PAUSE_S = 2000, 0.002


def percentile(values: Sequence[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


@contextmanager
def running(*flags: str) -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory() as directory:
        daemon = Daemon(Path(directory) / "data", *flags)
        daemon.start()
        try:
            wait_until(lambda: ask_http(daemon, "/readyz").startswith("HTTP/1.1 200"))
            yield daemon
        finally:
            daemon.close()


def ask_http(daemon: Daemon, path: str, *headers: str, body: str | None = None) -> str:
    """The whole answer of one request."""
    with socket.create_connection(("127.0.0.1", daemon.http_port), 30) as client:
        head = [
            f"{'GET' if body is None else 'POST'} {path} HTTP/1.1",
            "Host: localhost",
            "Connection: close",
        ]
        if body is not None:
            head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        client.sendall(("\r\n".join([*head, *headers, "", body or ""])).encode())
        return b"".join(iter(lambda: client.recv(65_536), b"")).decode()


def pings(daemon: Daemon, count: int = PINGS) -> tuple[list[float], list[float]]:
    """How long each took, and how much longer than asked for each pause between them, in seconds."""
    took, late = [], []
    with daemon.connect() as client:
        client.sendall(b"HELLO\n")
        client.recv(1000)
        for _ in range(count):
            began = time.perf_counter()
            client.sendall(b"PING\n")
            client.recv(100)
            ended = time.perf_counter()
            time.sleep(PAUSE_S)
            took.append(ended - began)
            late.append(time.perf_counter() - ended - PAUSE_S)
    return took, late


def show_pings(what: str, found: tuple[list[float], list[float]]) -> None:
    took, late = found
    figures = [f"{1000 * percentile(took, part):8.2f}" for part in (0.5, 0.99, 1)]
    print(f"{what:44} PING ms p50 {figures[0]} p99 {figures[1]} most {figures[2]}", end="")
    print(f"   machine p99 {1000 * percentile(late, 0.99):.2f}", flush=True)


# --- a crowd ------------------------------------------------------------------------------------


def hold(port: int, count: int, said: bytes) -> None:
    """Opens so many connections, says something on each, and keeps them until it is ended."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    sockets = []
    for number in range(count):
        # Each loopback address has ports of its own.
        source = (f"127.0.0.{2 + number % 8}", 0)
        sockets.append(socket.create_connection(("127.0.0.1", port), 30, source))
        sockets[-1].sendall(said)
        if not sockets[-1].recv(1000):
            sys.exit(f"connection {number + 1} was ended")
    print("held", flush=True)
    poll = select.poll()
    for each in sockets:
        poll.register(each, select.POLLRDHUP)
    sys.exit(f"{len(poll.poll())} were ended")


@contextmanager
def holding(port: int, count: int, said: bytes) -> Iterator[None]:
    command = [sys.executable, "-m", "tests.bench_doors", "hold", str(port), str(count), said.decode()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield
        assert process.poll() is None, "some were ended"
        process.kill()


def crowd(control: int = 10_000, http: int = 2_000) -> None:
    """Connections that are held while one more asks."""
    http_line = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    limits = ["--max-clients", "20000", "--session-idle", "1d", "--config"]
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as config:
        config.write(f"max_per_address = 20000\n[web]\nmax_http = {http * 2}\nmax_http_per_address = 20000\n")
        config.flush()
        with running("--local-worker", "0", "--http", "127.0.0.1:0", *limits, config.name) as daemon:
            show_pings("alone", pings(daemon))
            with holding(daemon.port, control, b"HELLO\n"):
                show_pings(f"with {control} on the control port", pings(daemon))
                with holding(daemon.http_port, http, http_line):
                    show_pings(f"with {http} on HTTP besides", pings(daemon))


# --- browsers -----------------------------------------------------------------------------------


def read_events(port: int, count: int, token: str) -> None:
    """Reads events on so many connections until it is ended."""
    poll, sockets = select.epoll(), dict[int, socket.socket]()
    head = f"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
    for _ in range(count):
        client = socket.create_connection(("127.0.0.1", port), 30)
        client.sendall(head.encode())
        answer = client.recv(4096)
        if not answer.startswith(b"HTTP/1.1 200"):
            sys.exit(answer.decode())
        sockets[client.fileno()] = client
        poll.register(client, select.EPOLLIN)
    print("held", flush=True)
    while True:
        for number, _ in poll.poll():
            if not sockets[number].recv(262_144):
                sys.exit("a reader was cut")


def send_requests(port: int, a_second: int, token: str) -> None:
    """So many requests a second, one after the other on each of a few connections."""
    paths = ["/api/v1/jobs?limit=20", "/api/v1/executions?limit=20", "/api/v1/monitoring/health"]
    clients = [socket.create_connection(("127.0.0.1", port), 30) for _ in range(8)]
    print("held", flush=True)
    due, number, slow = time.monotonic(), 0, 0
    while True:
        client = clients[number % len(clients)]
        path = paths[number % len(paths)]
        client.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        )
        answer = read_answer(client)
        if not answer.startswith(b"HTTP/1.1 200"):
            sys.exit(answer[:500].decode())
        number, due = number + 1, due + 1 / a_second
        if (wait_s := due - time.monotonic()) > 0:
            time.sleep(wait_s)
        elif -wait_s > 1:
            due, slow = time.monotonic(), slow + 1
            print(f"{slow} times a second behind", file=sys.stderr, flush=True)


def read_answer(client: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += client.recv(262_144)
    head, _, rest = data.partition(b"\r\n\r\n")
    lengths = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line]
    while len(rest) < (lengths[0] if lengths else 0):
        rest += client.recv(262_144)
    return head + b"\r\n\r\n" + rest


@contextmanager
def helping(what: str, port: int, count: int, token: str) -> Iterator[None]:
    command = [sys.executable, "-m", "tests.bench_doors", what, str(port), str(count), token]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield
        assert process.poll() is None, f"{what} ended"
        process.kill()


def lateness(daemon: Daemon, seconds: float) -> list[float]:
    """How long after its moment each run began that was due within the next seconds."""
    since = time.time()
    time.sleep(seconds)
    rows = [line.split("\t") for line in daemon.ask("RUNS limit=100000")[:-1]]
    found = []
    for row in rows:
        due, started = (datetime.fromisoformat(row[each]) if row[each] != "-" else None for each in (5, 6))
        if due and started and due.timestamp() >= since:
            found.append((started - due).total_seconds())
    return found


def browsers(rounds: int = 3) -> None:
    """Whether a busy page makes jobs late."""
    with running("--local-worker", "50", "--http", "127.0.0.1:0") as daemon:
        daemon.ask("USER ADD root role=admin password=correct-horse")
        token = daemon.ask("TOKEN ADD user=root")[0].split("\t")[1]
        for number in range(TASKS):
            daemon.ask(f'ADD name=job-{number} type=echo "every {EVERY_S} seconds" hello')
        without, beside = list[float](), list[float]()
        for _ in range(rounds):
            without.append(percentile(lateness(daemon, ROUND_S), 0.99))
            port = daemon.http_port
            with helping("read", port, READERS, token), helping("send", port, REQUESTS_A_S, token):
                beside.append(percentile(lateness(daemon, ROUND_S), 0.99))
            print(f"p99 late ms: {1000 * without[-1]:.1f} without, {1000 * beside[-1]:.1f} with", flush=True)
        print(json.dumps({"without": without, "with": beside}))
        print(f"medians: {statistics.median(beside) / statistics.median(without):.2f}x")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["crowd", *counts]:
            crowd(*map(int, counts))
        case ["browsers", *counts]:
            browsers(*map(int, counts))
        case ["hold", port, count, said]:
            hold(int(port), int(count), said.encode())
        case ["read", port, count, token]:
            read_events(int(port), int(count), token)
        case ["send", port, count, token]:
            send_requests(int(port), int(count), token)
        case _:
            sys.exit(__doc__)
