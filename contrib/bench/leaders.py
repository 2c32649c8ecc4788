"""What N leaders would carry: one is measured here, and the rest is a model of it.

    python -m contrib.bench.leaders [--lives 40000] [--tasks 100000] [--json FILE]

Measured: whole lives a second of one leader on three etcds with a standby, and what a life weighs there;
what the etcds take of such records from 1 to 8 writers; memory, state and start of so many tasks. The
model: tasks of namespaces that are as different in size as words are frequent, each with one leader,
the largest first to whoever has least; a day, minute by minute, in which all that is due at a minute is
due at its first second. Each leader does its work in order, as quickly as the one here, or as its part
of etcd lets it.
See docs/scale.md.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from contrib.bench import ours
from contrib.bench.load import Client
from contrib.bench.measure import machine
from contrib.bench.processes import ROOT, free_port, resident_bytes, wait_until
from cronflowd.journal.etcd import Etcd, EtcdError, Unreachable
from cronflowd.journal.files import list_checkpoints
from cronflowd.journal.shared import MAX_SNAPSHOT_BYTES, Shared, put

MEMBERS, WRITERS = 3, (1, 2, 4, 8)
WRITE_S = 4.0  # how long the etcds alone are measured
NAMESPACES = 20_000
# Of all tasks: so many each minute, each hour and each day; and of the latter two so many at a full hour, the
# daily ones in one of the first six, their namespace's own.
MINUTELY, HOURLY, FULL = 0.002, 0.1, 0.5
DAILY = 1 - MINUTELY - HOURLY
MINUTES, NIGHT = 1440, 6


class Measured(NamedTuple):
    """What one leader does here, and the etcds."""

    alone: float  # lives a second without etcd, in the same run
    lives: float  # and with it
    life_bytes: float  # in etcd
    etcd_bytes: float  # a second, of such records, from as many writers as gave most
    task_bytes: float  # in memory
    state_bytes: float  # of a task, as it stands in etcd
    start_s: float  # for a task, beyond what a start takes without any


# --- measuring ----------------------------------------------------------------------------------


@contextlib.contextmanager
def etcds(directory: Path) -> Iterator[list[tuple[str, int]]]:
    """Where three of them take requests."""
    ports = [(free_port(), free_port()) for _ in range(MEMBERS)]
    peers = ",".join(f"e{n}=http://127.0.0.1:{peer}" for n, (_, peer) in enumerate(ports))
    with contextlib.ExitStack() as stack:
        for number, (client, peer) in enumerate(ports):
            urls = {"client": f"http://127.0.0.1:{client}", "peer": f"http://127.0.0.1:{peer}"}
            command = ["etcd", "--name", f"e{number}", "--data-dir", str(directory / f"e{number}")]
            command += ["--listen-client-urls", urls["client"], "--advertise-client-urls", urls["client"]]
            command += ["--listen-peer-urls", urls["peer"], "--initial-advertise-peer-urls", urls["peer"]]
            command += ["--initial-cluster", peers, "--quota-backend-bytes", str(8 << 30)]
            process = stack.enter_context(subprocess.Popen(command, stderr=subprocess.DEVNULL))
            stack.callback(process.kill)
        members = [("127.0.0.1", client) for client, _ in ports]
        wait_until(lambda: answers(members))
        yield members


def answers(members: Sequence[tuple[str, int]]) -> bool:
    try:
        Shared(Etcd(members)).get(b"x")
    except (Unreachable, EtcdError):
        return False
    return True


def leads(server: ours.Daemon) -> bool:
    with contextlib.suppress(OSError, RuntimeError):  # its connections end when it begins to lead
        return Client(server.port).ask("LIST")[-1] == "OK 0"
    return False


def on_etcd(members: list[tuple[str, int]], count: int) -> tuple[float, list[bytes]]:
    """Lives a second of a leader with a standby, and the records that etcd was given for them."""
    flags = ["--etcd", ",".join(f"{host}:{port}" for host, port in members)]
    with ours.daemon(ROOT, None, *flags, "--node", "a") as leader:
        wait_until(lambda: leads(leader))
        with ours.daemon(ROOT, None, *flags, "--node", "b"):
            found = ours.lives(leader, count)["lives/s"]
    shared = Shared(Etcd(members))
    keys = shared.range(shared.record_key(0), shared.prefix + b"s", keys_only=True)
    return found, [entry.value for entry in map(shared.get, [key.key for key in keys]) if entry]


def write(members: list[tuple[str, int]], records: list[bytes], writers: int) -> float:
    """Bytes a second that so many writers get into etcd, each one record after the other."""
    written, until_s = [0] * writers, time.monotonic() + WRITE_S

    def work(number: int) -> None:
        shared = Shared(Etcd(members[number % MEMBERS :] + members[: number % MEMBERS]))
        for at in range(1_000_000):
            if time.monotonic() > until_s:
                return
            record = records[at % len(records)]
            shared.transact([], [put(b"bench/%d/%d" % (number, at), record)])
            written[number] += len(record)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(writers)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return sum(written) / WRITE_S


def adds(count: int) -> list[bytes]:
    """Tasks as people have them: each with words of its own, about 120 characters."""
    rng = random.Random(1)
    words = ["".join(rng.choices("aeioudlmnrst", k=rng.randint(3, 9))) for _ in range(5000)]
    found = []
    for number in range(count):
        host, program, source, target, name, who = rng.choices(words, k=6)
        command = f"/usr/local/bin/{program} --input /srv/{source} --output /var/lib/{target}/{name}.csv"
        minute, hour = rng.randrange(60), rng.randrange(24)
        found.append(
            f"ADD name={host}-{number} {minute} {hour} 1 1 * {command} --mail {who}@example.org\n".encode()
        )
    return found


def measure(count: int, tasks: int) -> Measured:
    alone = ours.life(ROOT, count)["lives/s"]
    with tempfile.TemporaryDirectory() as directory, etcds(Path(directory)) as members:
        lives, records = on_etcd(members, count)
        took = {writers: write(members, records, writers) for writers in WRITERS}
    told = ", ".join(f"{each / 1e6:.1f} MB/s from {writers}" for writers, each in took.items())
    print(f"etcd takes {told}", flush=True)
    with contextlib.ExitStack() as stack:
        filled = ours.compacted(ROOT, tasks, stack, adds)
        _, state = list_checkpoints(filled.data / "journal")[-1]
        short = len(zlib.compress(state.read_bytes(), 1))
        began = time.perf_counter()
        with ours.daemon(ROOT) as server:
            empty, start_s = resident_bytes(server.pid), began - time.perf_counter()
        began = time.perf_counter()
        with ours.daemon(ROOT, filled.data) as server:
            start_s += time.perf_counter() - began
            ours.wait_until_still(server.pid)
            held = resident_bytes(server.pid) - empty
    weight = sum(map(len, records)) / count
    return Measured(alone, lives, weight, max(took.values()), held / tasks, short / tasks, start_s / tasks)


# --- the model ----------------------------------------------------------------------------------


def share_out(leaders: int) -> tuple[float, list[float]]:
    """The part of all tasks that the leader with most has, and in which hour what part of it is due daily."""
    sizes = [1 / (number + 10) for number in range(NAMESPACES)]  # Zipf's, a little flatter at the top
    whole = sum(sizes)
    heap = [(0.0, leader) for leader in range(leaders)]
    hours = [[0.0] * NIGHT for _ in range(leaders)]
    for number, size in enumerate(sizes):
        held, leader = heapq.heappop(heap)
        hours[leader][number * 7919 % NIGHT] += size / whole
        heapq.heappush(heap, (held + size / whole, leader))
    most, leader = max(heap)
    return most, hours[leader]


def due_in(minute: int, tasks: float, hours: list[float]) -> float:
    """How many of a leader's are due then; `hours` are tasks, by their hour of the night."""
    hour, past = divmod(minute, 60)
    found = tasks * MINUTELY + tasks * HOURLY * (1 - FULL) / 60 + tasks * DAILY * (1 - FULL) / MINUTES
    if past == 0:
        found += tasks * HOURLY * FULL + (hours[hour] * DAILY * FULL if hour < NIGHT else 0.0)
    return found


class Day(NamedTuple):
    """How late the leader with most was."""

    p50_s: float
    p99_s: float
    worst_s: float
    busy: float  # part of the day
    fires: float


def day(tasks: float, hours: list[float], rate: float) -> Day:
    waiting, spans = 0.0, list[tuple[float, float, float]]()  # from and to how late, how many
    for minute in range(MINUTES):
        came = due_in(minute, tasks, hours)
        spans.append((waiting / rate, (waiting + came) / rate, came))
        waiting = max(0.0, waiting + came - 60 * rate)
    fires = sum(count for _, _, count in spans)
    return Day(
        later_than(spans, 0.5),
        later_than(spans, 0.01),
        max(to for _, to, _ in spans),
        fires / rate / 86400,
        fires,
    )


def later_than(spans: list[tuple[float, float, float]], part: float) -> float:
    """So late, or later, is this part of all fires."""
    wanted = part * sum(count for _, _, count in spans)
    low, high = 0.0, max(to for _, to, _ in spans)
    for _ in range(50):
        middle = (low + high) / 2
        later = sum(
            count * min(1.0, max(0.0, (to - middle) / (to - begin))) for begin, to, count in spans if count
        )
        low, high = (middle, high) if later > wanted else (low, middle)
    return high


COLUMNS = (
    "tasks", "leaders", "etcds", "on the fullest", "memory", "state in etcd", "lives/s each", "start",
    "late p50", "late p99", "at worst", "busy",
)  # fmt: skip


def row(found: Measured, tasks: int, leaders: int, clusters: int) -> tuple[str, ...]:
    """One of the table: so many tasks on so many leaders, who share so many etcds evenly."""
    most, hours = share_out(leaders)
    rate = min(found.lives, found.etcd_bytes * clusters / leaders / found.life_bytes)
    told = day(most * tasks, [each * tasks for each in hours], rate)
    state = most * tasks * found.state_bytes
    return (
        f"{tasks / 1e6:g} M", f"{leaders}", f"{clusters}", f"{most * tasks / 1e6:.2f} M",
        f"{most * tasks * found.task_bytes / 2**30:.1f} GiB",
        f"{state / 2**20:.0f} MiB" + (" (too long)" if state > MAX_SNAPSHOT_BYTES else ""),
        f"{rate:,.0f}", f"{most * tasks * found.start_s:.0f} s", seconds(told.p50_s), seconds(told.p99_s),
        seconds(told.worst_s) if told.busy < 1 else "never done", f"{told.busy:.0%}",
    )  # fmt: skip


def seconds(value: float) -> str:
    return (
        f"{value * 1000:.0f} ms"
        if value < 1
        else f"{value:.0f} s"
        if value < 600
        else f"{value / 60:.0f} min"
    )


def table(found: Measured) -> Iterator[str]:
    yield "| " + " | ".join(COLUMNS) + " |"
    yield "|" + "---|" * len(COLUMNS)
    for tasks, leaders in ((1, 1), (4, 1), (4, 4), (16, 4), (16, 16), (64, 16), (64, 64), (64, 128)):
        for clusters in dict.fromkeys((1, max(1, leaders // 4), leaders)):
            yield "| " + " | ".join(row(found, tasks * 1_000_000, leaders, clusters)) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m contrib.bench.leaders", description="What N leaders would carry."
    )
    parser.add_argument("--lives", type=int, default=40_000)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="keeps what was measured; takes it from there if it is"
    )
    flags = parser.parse_args()
    if flags.json and flags.json.exists():
        found = Measured(**json.loads(flags.json.read_text()))
    else:
        found = measure(flags.lives, flags.tasks)
        if flags.json:
            flags.json.write_text(json.dumps(found._asdict()))
    sys.stdout.writelines(f"{name}: {value:,.6g}\n" for name, value in found._asdict().items())
    print(", ".join(f"{key} {value}" for key, value in machine().items()))
    sys.stdout.writelines(f"{line}\n" for line in table(found))


if __name__ == "__main__":
    main()
