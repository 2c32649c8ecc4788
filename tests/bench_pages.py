"""How soon the first byte of every page comes, with much that has happened.

    python -m tests.bench_pages [DIRECTORY]

10,000 tasks with 100 runs each are written as a daemon would have, and made short as it would. DIRECTORY
keeps them for the next time. Told are the median of five and the slowest, the median for all of the answer,
and how much memory the daemon and the process that serves HTTP have in the end.
"""

from __future__ import annotations

import http.client
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cronflowd.engine import facts as f
from cronflowd.journal import compaction
from cronflowd.journal.files import journal_dir
from cronflowd.journal.journal import FileJournal
from cronflowd.tasks.options import parse_keep
from tests.bench_bulk import memory_mb
from tests.lib.journal_driver import settle
from tests.real.running import READY, Daemon, wait_until

TASKS, RUNS_EACH = 10_000, 100
KEEP = "200,400d,10M"
TIMES = 5
BATCH = 5000
ONE, MIDDLE = 77, TASKS * RUNS_EACH // 2
PAGES = (
    "/", "/jobs", "/jobs?search=77", "/jobs?page=150", f"/jobs/{ONE}", f"/jobs/{ONE}/history", "/jobs/new",
    "/runs", "/runs?page=300", f"/runs?job={ONE}", "/runs?state=failed,timeout,lost,missed",
    "/runs?worker=rare", f"/runs/{MIDDLE}", "/runs/1", f"/runs/{TASKS * RUNS_EACH}", f"/runs/{MIDDLE}/log",
    f"/runs/{MIDDLE}/cancel", "/week", "/statistics", "/flows", "/workers", "/heartbeats", "/pauses",
    "/changes", "/clock-changes", "/users", "/tokens", "/secrets", "/audit", "/line", "/more",
)  # fmt: skip
LISTS = (
    "jobs?limit=20", "jobs?page=400&limit=20", "executions?limit=20", "executions?limit=20&page=400",
    f"executions?jobId={ONE}", "executions?state=failed", "executions?worker=rare", f"executions/{MIDDLE}",
    f"executions/{MIDDLE}/log", f"jobs/{ONE}", f"jobs/{ONE}/executions", f"jobs/{ONE}/logs",
    f"jobs/{ONE}/history", f"jobs/{ONE}/why", f"jobs/{ONE}/next", "workers", "expectations",
    "monitoring/dashboard", "monitoring/health", "audit?limit=20",
)  # fmt: skip


def facts(tasks: int, runs_each: int, begin_at: datetime) -> Iterator[tuple[datetime, list[f.Fact]]]:
    """What a daemon writes down while each task runs once an hour."""
    for number in range(1, tasks + 1):
        record = {
            "schedule": f"{number % 60} * * * *",
            "command": f"backup --what {number}",
            "jobName": f"job-{number}",
        }
        yield begin_at, [f.TaskAdded(number, record, begin_at, begin_at + timedelta(days=400))]
    run = 0
    for hour in range(runs_each):
        for task in range(1, tasks + 1):
            run += 1
            at = begin_at + timedelta(hours=hour, seconds=3600 * task // tasks)
            end_at, worker = at + timedelta(seconds=1), f"w{run % 7}" if run % 1000 else "rare"
            state, code = ("failed", 3) if run % 997 == 0 else ("ok", 0)
            yield (
                at,
                [
                    f.RunQueued(run, task, at, "schedule", at + timedelta(days=400)),
                    f.RunSent(run, 1, worker),
                ],
            )
            yield (
                end_at,
                [
                    f.OutputReceived(run, 1, [[1, f"line {line} of run {run}"] for line in range(3)]),
                    f.RunEnded(
                        run, 1, task, f"job-{task}", state, at, at, worker, code, None, True, began=True
                    ),
                ],
            )


def write(data: Path, tasks: int = TASKS, runs_each: int = RUNS_EACH) -> None:
    """A data directory in which all this has happened; the newest part of it is not made short yet."""
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    journal = FileJournal(data, reserve_bytes=0)
    assert not list(journal.replay())
    now = datetime.now(UTC).replace(microsecond=0)
    begin_at = now - timedelta(hours=runs_each, minutes=5)
    for number, (at, found) in enumerate(facts(tasks, runs_each, begin_at)):
        journal.append(found, at)
        if number % BATCH == 0:
            journal.flush()
            settle(journal)
    journal.flush()
    settle(journal)
    journal.close()
    done = compaction.compact(journal_dir(data), compaction.HISTORY_BYTES, parse_keep(KEEP))
    compaction.remove_superseded(data, int(done["upto"]))


def first_byte(port: int, path: str, token: str = "") -> tuple[float, float, int, int]:
    """Milliseconds until it comes, until all has come, the status and the size."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    client.connect()
    began = time.perf_counter()
    kind = "application/json" if "/api/" in path else "text/html"
    client.request("GET", path, headers={"Accept": kind, "Authorization": f"Bearer {token}"})
    answer = client.getresponse()
    first = answer.read(1)
    first_ms = (time.perf_counter() - began) * 1000
    size = len(first + answer.read())
    client.close()
    return first_ms, (time.perf_counter() - began) * 1000, answer.status, size


def main(data: Path) -> None:
    if not (data / "journal").exists():
        began = time.monotonic()
        write(data)
        print(f"written in {time.monotonic() - began:.0f} s", flush=True)
    daemon = Daemon(data, "--local-worker", "0", "--keep", KEEP, "--http", "127.0.0.1:0")
    began = time.monotonic()
    process = daemon.launch()
    assert process.stdout
    match = READY.fullmatch(process.stdout.readline())
    assert match, daemon.log.read_text()
    daemon.port, port = int(match[1]), int(match[4])
    wait_until(lambda: first_byte(port, "/readyz")[2] == 200)
    print(f"ready after {time.monotonic() - began:.1f} s", flush=True)
    daemon.ask("USER ADD root role=admin password=correct-horse")
    token = daemon.ask("TOKEN ADD user=root")[0].split("\t")[1]
    print(f"{'first byte, milliseconds':44} median   most    all of it  status  bytes")
    for path in (*PAGES, *(f"/api/v1/{path}" for path in LISTS)):
        found = [first_byte(port, path, token) for _ in range(TIMES)]
        first, whole = ([each[at] for each in found] for at in (0, 1))
        figures = f"{statistics.median(first):7.1f} {max(first):7.1f} {statistics.median(whole):10.1f}"
        print(f"{path:44}{figures} {found[0][2]:7} {found[0][3]:7}", flush=True)
    print(f"memory: daemon {memory_mb(daemon.pid)} MB, HTTP {memory_mb(daemon.gateway())} MB")
    daemon.close()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as directory:
            main(Path(directory) / "data")
