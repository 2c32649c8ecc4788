"""What is measured of cronflowd: a real daemon in a process of its own, its journal on disk.

Each measure takes the tree whose daemon it starts, so that two commits stand side by side.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

from contrib.bench.load import HELLO, Client, exchange, pour
from contrib.bench.measure import Figures, Measure
from contrib.bench.processes import (
    ROOT,
    children,
    cpu_s,
    next_line,
    resident_bytes,
    running,
    switches,
    wait_until,
)

SLOTS = 2000
WAIT_S = 5  # from the last ADD to the moment at which many are due
NOOP = "ADD name=noop type=echo overlap=allow 0 0 1 1 * x"


class Daemon:
    """One that serves, and where."""

    def __init__(self, process: subprocess.Popen[str], data: Path) -> None:
        ready = dict(word.split("=") for word in next_line(process).split()[2:])
        self.pid = process.pid
        self.data = data
        self._longest = data.parent / "longest-step"
        self.port, self.worker_port = (int(ready[key].rpartition(":")[2]) for key in ("control", "workers"))

    def longest_step_ms(self) -> float:
        """Since it was asked last, of a daemon that is `watched`."""
        self._longest.unlink(missing_ok=True)
        os.kill(self.pid, signal.SIGUSR1)
        wait_until(self._longest.exists)
        return float(self._longest.read_text()) * 1000

    def nobody_waits(self) -> bool:
        client = Client(self.port)
        rows = dict(line.split("\t") for line in client.ask("STATUS")[:-1])
        client.close()
        return rows["queued"] == rows["running"] == "0"


@contextlib.contextmanager
def daemon(tree: Path, data: Path | None = None, *flags: str, watched: bool = False) -> Iterator[Daemon]:
    """Without a worker of its own, on ports of its own; in a new directory if none is given."""
    with tempfile.TemporaryDirectory() as empty:
        data = data or Path(empty) / "data"
        program = ["contrib.bench.steps", str(data.parent / "longest-step")] if watched else ["cronflowd"]
        command = [sys.executable, "-m", *program, "--data", str(data), "--tz", "UTC"]
        command += ["--local-worker", "0", "--listen", "127.0.0.1:0", "--listen-workers", "127.0.0.1:0"]
        command += ["--log-level", "error", "--max-clients", "2000", *flags]
        with running(command, cwd=tree) as process:
            yield Daemon(process, data)


@contextlib.contextmanager
def idle_worker(port: int, slots: int = SLOTS) -> Iterator[Callable[[int], Callable[[], list[int]]]]:
    """A worker in a process of its own: tell it how many orders to take, and ask later when they came."""
    command = [sys.executable, "-m", "contrib.bench.worker", str(port), str(slots)]
    with running(command, cwd=ROOT) as process:
        next_line(process)

        def expect(count: int) -> Callable[[], list[int]]:
            assert process.stdin
            print(count, file=process.stdin, flush=True)
            return lambda: json.loads(next_line(process))

        yield expect


def life(tree: Path, count: int) -> Figures:
    """From RUN to the acknowledged report, everything on disk: lives a second, and the daemon's part."""
    with daemon(tree) as server:
        return lives(server, count)


def lives(server: Daemon, count: int) -> Figures:
    """The same of a daemon that runs."""
    with idle_worker(server.worker_port) as expect:
        client = Client(server.port)
        client.do(NOOP)
        came = expect(count)
        before, began = cpu_s(server.pid), time.perf_counter()
        pour(server.port, b"RUN noop\n" * count, count, hello=HELLO)
        came()
        took = time.perf_counter() - began
        return {"lives/s": count / took, "server CPU us/life": (cpu_s(server.pid) - before) / count * 1e6}


def now(tree: Path, count: int) -> Figures:
    """One NOW after another, each from its sending until the worker has it."""
    with daemon(tree) as server, idle_worker(server.worker_port) as expect:
        client = Client(server.port)
        waited = []
        for _ in range(count):
            came = expect(1)
            began = time.time_ns()
            client.do("NOW type=echo x")
            waited.append((came()[0] - began) / 1e6)
        return percentiles(waited)


def percentiles(values_ms: Sequence[float]) -> Figures:
    cuts = statistics.quantiles(values_ms, n=100, method="inclusive")
    return {"p50 ms": cuts[49], "p99 ms": cuts[98]}


def ping(tree: Path, count: int, depth: int) -> Figures:
    return _requests(tree, [b"PING\n"] * count, 50, depth)


def add(tree: Path, count: int, connections: int, depth: int) -> Figures:
    return _requests(tree, adds(count), connections, depth)


def _requests(tree: Path, requests: list[bytes], connections: int, depth: int) -> Figures:
    with daemon(tree) as server:
        before = cpu_s(server.pid)
        took = exchange(server.port, requests, connections, depth, hello=HELLO)
        cpu_us = (cpu_s(server.pid) - before) / len(requests) * 1e6
        return {"requests/s": len(requests) / took, "server CPU us": cpu_us}


def adds(count: int) -> list[bytes]:
    """Forty thousand schedules, none of which fires within the next half year."""
    month = (datetime.now(UTC).month + 7) % 12 + 1
    return [
        b"ADD name=t%d %d %d %d %d * true\n" % (i, i % 60, i // 60 % 24, i // 1440 % 28 + 1, month)
        for i in range(count)
    ]


class Filled:
    """A data directory with many tasks, made once and copied for who would change it."""

    def __init__(
        self, tree: Path, count: int, stack: ExitStack, make: Callable[[int], list[bytes]] = adds
    ) -> None:
        self.tree, self.count = tree, count
        self.data = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "data"
        with daemon(tree, self.data) as server:
            exchange(server.port, make(count), 16, 100, hello=HELLO)
            Client(server.port).do("SAVE")  # a stop has not the time to write very many

    @contextlib.contextmanager
    def daemon(self, watched: bool = False) -> Iterator[Daemon]:
        with tempfile.TemporaryDirectory() as directory:
            shutil.copytree(
                self.data, Path(directory) / "data", ignore=shutil.ignore_patterns("*.sock", "lock")
            )
            with daemon(self.tree, Path(directory) / "data", watched=watched) as server:
                yield server


def due(tree: Path, tasks: int, count: int, stack: ExitStack) -> Measure:
    """Many are due at one moment, among very many that are not: how late each comes to the worker."""
    filled = Filled(tree, tasks, stack)

    def measure() -> Figures:
        with filled.daemon() as server, idle_worker(server.worker_port, min(count, 10_000)) as expect:
            at = (datetime.now(UTC) + timedelta(seconds=WAIT_S + count // 2000)).replace(microsecond=0)
            when = f'"{at.minute} {at.hour} {at.day} {at.month} * {at.second}"'
            requests = [f"ADD name=due{i} type=echo {when} x\n".encode() for i in range(count)]
            exchange(server.port, requests, 16, 100, hello=HELLO)
            if datetime.now(UTC) >= at:
                raise RuntimeError("the moment came before all were added")
            came = expect(count)()
            return percentiles([each / 1e6 - at.timestamp() * 1e3 for each in came])

    return measure


def compacted(tree: Path, tasks: int, stack: ExitStack, make: Callable[[int], list[bytes]] = adds) -> Filled:
    """A directory whose journal is short."""
    filled = Filled(tree, tasks, stack, make)
    with daemon(tree, filled.data, "--segment", "64K"):
        time.sleep(1)  # what stands in the journal by now is closed
    compact = [sys.executable, "-m", "cronflowd", "compact", str(filled.data), "1000000000", "50,30d,10M"]
    subprocess.run(compact, check=True, cwd=tree, stdout=subprocess.DEVNULL)
    return filled


def restart(tree: Path, tasks: int, stack: ExitStack) -> Measure:
    """From the process's start until it serves, its journal short; what a task holds once read."""
    filled = compacted(tree, tasks, stack)
    with daemon(tree) as server:
        empty = resident_bytes(server.pid)

    def measure() -> Figures:
        began = time.perf_counter()
        with daemon(tree, filled.data) as server:
            took = time.perf_counter() - began
            wait_until_still(server.pid)
            return {"seconds": took, "bytes/task": (resident_bytes(server.pid) - empty) / tasks}

    return measure


def loads_pass(tree: Path, tasks: int, stack: ExitStack) -> Measure:
    """The least that reading so many tasks can take: orjson over the lines of tasks.db, and nothing else."""
    program = "import orjson, sys\nfor line in open(sys.argv[1], 'rb'): orjson.loads(line)"
    file = Filled(tree, tasks, stack).data / "tasks.db"

    def measure() -> Figures:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", program, file], check=True)
        return {"seconds": time.perf_counter() - began}

    return measure


def idle(tree: Path, tasks: int, seconds: float, stack: ExitStack) -> Measure:
    """How often a daemon with nothing to do is woken in a minute."""
    filled = Filled(tree, tasks, stack)

    def measure() -> Figures:
        with daemon(tree, filled.data) as server:
            # What a start leaves to do: tasks are read, the journal is made short, and threads that have
            # done their part go after ten seconds.
            wait_until_still(server.pid)
            wait_until(lambda: not children(server.pid))
            time.sleep(min(15, seconds))
            before = switches(server.pid)
            time.sleep(seconds)
            return {"wake-ups/min": (switches(server.pid) - before) * 60 / seconds}

    return measure


def wait_until_still(pid: int) -> None:
    """It has nothing left to do by itself."""

    def is_still() -> bool:
        before = cpu_s(pid)
        time.sleep(1)
        return cpu_s(pid) - before < 0.01

    wait_until(is_still)


def shell(tree: Path, count: int) -> Figures:
    """Jobs that are processes, by our own worker; its processor time, children included, is what counts."""
    with daemon(tree) as server:
        command = [sys.executable, "-m", "cronflowd", "worker", "--name", "bench", "--slots", "8"]
        command += ["--connect", f"127.0.0.1:{server.worker_port}", "--spool", str(server.data / "spool")]
        with running([*command, "--log-level", "error"], cwd=tree) as worker:
            client = Client(server.port)
            client.do("ADD name=true overlap=allow 0 0 1 1 * true")
            wait_until(lambda: client.do("WORKERS") == "OK 1")  # its start is not to be measured
            before = cpu_s(worker.pid, with_children=True)
            pour(server.port, b"RUN true\n" * count, count, hello=HELLO)
            while not server.nobody_waits():
                time.sleep(0.05)
            return {"jobs/CPU s": count / (cpu_s(worker.pid, with_children=True) - before)}


def bare_spawn(count: int) -> Figures:
    """The least that so many shells can take: one after another, and nobody reads what they write.

    A worker has eight at a time, beside a daemon, and for each two pipes to read to their ends.
    """
    null = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
    before = os.times()
    for _ in range(count):
        pid = os.posix_spawn("/bin/sh", ["sh", "-c", "true"], os.environ, file_actions=null, setsid=True)
        os.waitpid(pid, 0)
    return {"jobs/CPU s": count / (sum(os.times()[:4]) - sum(before[:4]))}


def eight_spawns(count: int) -> Figures:
    """The same as a worker has it: eight at a time, and of each its two outputs are read."""
    pipes: dict[int, list[int]] = {}
    before = os.times()
    for left in range(count, -8, -1):
        if left <= 0 or len(pipes) == 8:
            pid, _ = os.wait()
            for fd in pipes.pop(pid):
                os.read(fd, 65536)
                os.close(fd)
        if left > 0:
            (out, its_out), (err, its_err) = os.pipe(), os.pipe()
            given = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
            given += [(os.POSIX_SPAWN_DUP2, its_out, 1), (os.POSIX_SPAWN_DUP2, its_err, 2)]
            pid = os.posix_spawn("/bin/sh", ["sh", "-c", "true"], os.environ, file_actions=given, setsid=True)
            pipes[pid] = [out, err]
            os.close(its_out)
            os.close(its_err)
    return {"jobs/CPU s": count / (sum(os.times()[:4]) - sum(before[:4]))}


class Pinger:
    """Another client, which says PING all the time: the longest that it waited."""

    def __init__(self, port: int) -> None:
        self._client = Client(port)
        self._over = threading.Event()
        self.longest_ms = 0.0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(0.002):
            began = time.perf_counter()
            self._client.ask("PING")
            self.longest_ms = max(self.longest_ms, (time.perf_counter() - began) * 1e3)

    def stop(self) -> float:
        self._over.set()
        self._thread.join()
        self._client.close()
        return self.longest_ms


def bulk(tree: Path, tasks: int, queues: int, watchers: int, stack: ExitStack) -> Measure:
    """The longest PING of another client, and step, while all tasks are listed, saved, loaded, removed, back.

    Beside them wait the runs of as many queues, each for a worker that is not there, and clients watch.
    """
    filled = Filled(tree, tasks, stack)

    def measure() -> Figures:
        with filled.daemon(watched=True) as server, watching(server, queues, watchers):
            client, figures = Client(server.port), Figures()
            for verb in ("LIST", "SAVE", "LOAD", "CLEAR", "UNDO"):
                server.longest_step_ms()
                pinger, began = Pinger(server.port), time.perf_counter()
                with contextlib.suppress(RuntimeError):  # refused: then it has no figure
                    client.do(verb)
                    figures[f"{verb} s"] = time.perf_counter() - began
                    figures[f"PING ms at {verb}"] = pinger.stop()
                    figures[f"CPU ms of a step at {verb}"] = server.longest_step_ms()
                pinger.stop()
            return figures

    return measure


@contextlib.contextmanager
def watching(server: Daemon, queues: int, watchers: int) -> Iterator[None]:
    """Runs that wait in so many queues; then so many clients that read all that becomes of runs."""
    waits = [b"ADD name=q%d on=absent%d 0 0 1 1 * true\n" % (i, i) for i in range(queues)]
    exchange(server.port, waits + [b"RUN q%d\n" % i for i in range(queues)], 1, 100, hello=HELLO)
    command = [sys.executable, "-m", "contrib.bench.watchers", str(server.port), str(watchers)]
    with running(command, cwd=ROOT) as process:
        next_line(process)
        yield
