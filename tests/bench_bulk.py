"""Changes of very many tasks: how long each takes, and how long another client's PING did meanwhile.

    python -m tests.bench_bulk [TASKS]          2,000,000 if none are given
    python -m tests.bench_bulk --crowd [TASKS]  1,000,000

The first: LOAD, a restart with another zone, a clock set back by four hours, SAVE, CLEAR, UNDO, a reload of
zone data (HUP), and the compaction that comes of it, on one daemon, one after another.
The second: the same tasks in 5,000 queues, 1,000 connections that watch, and questions while some of
the tasks fire each minute. Beside it stands how long the machine let a process sleep beyond what it asked
for: no PING can be quicker.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from cronflowd.cli.cli import main as cronflowd
from cronflowd.daemon.upkeep import SEGMENTS_BEFORE_COMPACTION
from cronflowd.host.clock import Clock
from tests.real.running import READY, Daemon

QUIET_S = 2.0  # as long as the journal does not grow, nothing is under way
PATIENCE_S = 3600.0
PAUSE_S = 0.002  # between two PINGs
QUEUES, WATCHERS, WORKERS, SLOTS = 5000, 1000, 20, 50
EACH_MINUTE = 500  # one of so many tasks is due each minute, the others once a day
FIRES_S = 150.0  # how long is looked at while they fire
HEAD = (
    f"{'':34} {'seconds':>8} {'longest':>9} {'p99 ms':>9} {'p50 ms':>7} {'machine':>9} {'> 20 ms':>7} "
    f"{'of':>7} {'MB':>6}"
)


class Client:
    """A connection that waits for its answers as long as they take."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")
        self.ask("HELLO")

    def ask(self, line: str) -> str:
        """The status line; rows before it are passed over."""
        self._socket.sendall(line.encode() + b"\n")
        while not (answer := self._file.readline()).startswith((b"OK", b"ERR", b"PONG")):
            if not answer:
                raise ConnectionError(line)
        return answer.decode().rstrip()

    def rows(self, line: str) -> dict[str, str]:
        self._socket.sendall(line.encode() + b"\n")
        found = {}
        while not (answer := self._file.readline()).startswith((b"OK", b"ERR")):
            key, _, value = answer.decode().rstrip("\n").partition("\t")
            found[key] = value
        return found


class Pings:
    """Another client that asks all the time."""

    def __init__(self, port: int) -> None:
        self._client = Client(port)
        self._over = threading.Event()
        self.times_ms: list[float] = []
        self.late_ms = 0.0  # the longest that the machine let us sleep beyond what we asked for
        self._thread = threading.Thread(target=self._ping)

    def _ping(self) -> None:
        while not self._over.is_set():
            began = time.perf_counter()
            self._client.ask("PING")
            self.times_ms.append((time.perf_counter() - began) * 1000)
            began = time.perf_counter()
            time.sleep(PAUSE_S)
            self.late_ms = max(self.late_ms, (time.perf_counter() - began - PAUSE_S) * 1000)

    def __enter__(self) -> Pings:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def figures(self) -> str:
        found = sorted(self.times_ms)
        long = sum(each > 20 for each in found)
        p99 = found[len(found) * 99 // 100]
        p50 = found[len(found) // 2]
        return f"{found[-1]:9.1f} {p99:9.1f} {p50:7.2f} {self.late_ms:9.1f} {long:7d} {len(found):7d}"


def start(daemon: Daemon) -> None:
    process = daemon.launch()
    assert process.stdout
    match = READY.fullmatch(process.stdout.readline())
    assert match, daemon.log.read_text()
    daemon.port, daemon.worker_port = int(match[1]), int(match[2])


def restart(name: str, daemon: Daemon) -> Client:
    print(f"{name:34} ", end="", flush=True)  # so that whoever waits sees what it waits for
    began = time.perf_counter()
    start(daemon)
    print(f"{time.perf_counter() - began:8.1f}", flush=True)
    return Client(daemon.port)


def measure(name: str, daemon: Daemon, do: Callable[[], object]) -> None:
    print(f"{name:34} ", end="", flush=True)
    with Pings(daemon.port) as pings:
        began = time.perf_counter()
        told = do()
        took_s = time.perf_counter() - began
    print(f"{took_s:8.1f} {pings.figures()} {memory_mb(daemon.pid):6d}  {told}", flush=True)


def until_quiet(client: Client, after: str = "") -> str:
    """Waits until the journal has grown and grows no more: all slices are taken."""
    last, since = "", time.monotonic()
    while time.monotonic() - since < QUIET_S or last == after:
        time.sleep(0.25)
        if (seq := client.rows("STATUS")["journal-seq"]) != last:
            last, since = seq, time.monotonic()
    return f"journal-seq {last}, and {QUIET_S:g} s of silence"


def memory_mb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) // 1024


def write_file(path: Path, count: int, queues: int = 0) -> None:
    with path.open("w") as file:
        for number in range(count):
            record = {
                "schedule": f"{number % 60} {number // 60 % 24} * * *",
                "command": f"backup --what {number}",
                "jobName": f"job-{number}",
            }
            if queues:
                record["on"] = f"w{number % queues}" if number % 2 else f"label:queue=q{number % queues}"
                record["grace"] = "30s"
                if number // queues % EACH_MINUTE == 0:
                    record["schedule"] = "* * * * *"
            file.write(json.dumps(record) + "\n")


def main(count: int) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:  # a compaction may go on
        data = Path(directory) / "data"
        data.mkdir(mode=0o700)
        write_file(data / "big.db", count)
        daemon = Daemon(data, "--local-worker", "0")
        daemon.module = "tests.bench_bulk"  # `serve`, below
        start(daemon)
        print(HEAD)
        client = Client(daemon.port)
        measure(f"LOAD of {count} tasks", daemon, lambda: client.ask("LOAD big.db"))
        daemon.kill9()
        daemon.flags = ("--local-worker", "0", "--tz", "Europe/Paris")
        client = restart("restart with another zone: ready", daemon)
        measure("its moments found anew", daemon, lambda: until_quiet(client))

        def set_back() -> str:
            os.kill(daemon.pid, signal.SIGUSR1)
            client.ask("NOW true")  # whoever comes first makes the daemon look at the clock
            return until_quiet(client)

        measure("clock back 4 h", daemon, set_back)
        measure("SAVE", daemon, lambda: client.ask("SAVE saved.db"))
        measure("CLEAR", daemon, lambda: client.ask("CLEAR"))
        measure("UNDO", daemon, lambda: client.ask("UNDO"))

        def reload() -> str:
            before = client.rows("STATUS")["journal-seq"]
            os.kill(daemon.pid, signal.SIGHUP)
            return until_quiet(client, before)

        measure("HUP", daemon, reload)

        def compact() -> str:
            while int(client.rows("STATUS")["journal-files"]) > SEGMENTS_BEFORE_COMPACTION:
                time.sleep(0.25)
            return client.ask("STATUS")

        measure("until the journal is compacted", daemon, compact)
        daemon.kill9()


# --- a crowd --------------------------------------------------------------------------------------


@contextmanager
def beside(*command: str) -> Iterator[None]:
    """A process that goes on until this is over."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield
    finally:
        process.kill()
        process.wait()


def crowd(count: int) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:  # a compaction may go on
        data = Path(directory) / "data"
        data.mkdir(mode=0o700)
        write_file(data / "tasks.db", count, QUEUES)
        daemon = Daemon(data, "--local-worker", "0", "--max-clients", str(2 * WATCHERS))
        print(HEAD)
        client = restart(f"start with {count} tasks: ready", daemon)
        port = str(daemon.port)
        with (
            beside("contrib.bench.watchers", port, str(WATCHERS)),
            beside("tests.bench_bulk", "--crew", str(daemon.worker_port)),
        ):
            measure("fires", daemon, lambda: time.sleep(FIRES_S) or client.ask("STATUS"))
            for line in (
                "HEALTH", "LIST", "LIST state=running", "LIST tag=x", "NEXT all n=1000", "SUMMARY", "RUNS",
                "RUNS state=missed limit=20", "FAILED", "STATUS", "PROVE", "WHY job-0", "EXPORT",
            ):  # fmt: skip
                measure(line, daemon, lambda line=line: client.ask(line)[:60])  # type: ignore[misc]

            def reload() -> str:
                before = client.rows("CLOCK")["zone-data"]
                os.kill(daemon.pid, signal.SIGHUP)
                time.sleep(QUIET_S)
                while read_again(daemon) < 1:
                    time.sleep(0.25)
                return before

            measure("HUP", daemon, reload)
            measure("CLEAR", daemon, lambda: client.ask("CLEAR"))
            measure("UNDO", daemon, lambda: client.ask("UNDO"))
        daemon.kill9()


def read_again(daemon: Daemon) -> int:
    """How often all tasks were read again."""
    return daemon.log.read_text().count("all tasks were read again")


def work(port: int) -> None:
    """Workers that end what they are given at once."""
    poll, links = select.epoll(), dict[int, socket.socket]()
    for number in range(WORKERS):
        link = socket.create_connection(("127.0.0.1", port))
        link.sendall(b"HELLO name=w%d slots=%d labels=queue=q%d\n" % (number, SLOTS, number))
        links[link.fileno()] = link
        poll.register(link, select.EPOLLIN)
    print("ready", flush=True)
    rests: dict[int, bytes] = dict.fromkeys(links, b"")
    beaten = time.monotonic()
    while True:
        for fd, _ in poll.poll(1):
            if not (read := links[fd].recv(262_144)):
                sys.exit("a worker was cut")
            *lines, rests[fd] = (rests[fd] + read).split(b"\n")
            orders = (line.split(b" ", 3) for line in lines if line.startswith(b"RUN "))
            links[fd].sendall(b"".join(b"DONE %s %s 0\n" % (run, attempt) for _, run, attempt, _ in orders))
        if time.monotonic() - beaten > 5:
            beaten = time.monotonic()
            for link in links.values():
                link.sendall(b"BEAT\n")


def serve() -> int:
    """`cronflowd serve` with a clock that USR1 sets back."""
    now, by = Clock.now, timedelta(0)

    def set_back(*_: object) -> None:
        nonlocal by
        by -= timedelta(hours=4)

    signal.signal(signal.SIGUSR1, set_back)
    Clock.now = staticmethod(lambda: now() + by)  # type: ignore[method-assign,assignment]
    return cronflowd(sys.argv[1:])


if __name__ == "__main__":
    if "--data" in sys.argv:
        sys.exit(serve())
    sys.setswitchinterval(0.0005)  # or the one who pings waits for the one who reads rows
    match sys.argv[1:]:
        case ["--crew", port]:
            work(int(port))
        case ["--crowd", *tasks]:
            crowd(int(*tasks) if tasks else 1_000_000)
        case tasks:
            main(int(*tasks) if tasks else 2_000_000)
