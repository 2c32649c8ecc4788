"""APScheduler: how late many jobs start that are due at one moment, among very many that are not.

python -m contrib.bench.apscheduler_peer TASKS COUNT    prints how late each was, in ms
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

from contrib.bench.measure import Figures, Missing
from contrib.bench.ours import WAIT_S, percentiles
from contrib.bench.processes import PEERS, ROOT, next_line, running


def due(tasks: int, count: int) -> Figures:
    if not (PEERS / "python" / "apscheduler").is_dir():
        raise Missing("not installed (PyPI: apscheduler; make bench-peers)")
    command = [sys.executable, "-m", "contrib.bench.apscheduler_peer", str(tasks), str(count)]
    path = os.pathsep.join([str(PEERS / "python"), str(ROOT)])
    with running(command, cwd=ROOT, env={"PYTHONPATH": path}) as process:
        return percentiles(json.loads(next_line(process)))


def work(tasks: int, count: int) -> None:
    from apscheduler.schedulers.background import BackgroundScheduler
    from apscheduler.triggers.date import DateTrigger

    scheduler = BackgroundScheduler(timezone=UTC)
    scheduler.start(paused=True)
    add = {"misfire_grace_time": None, "max_instances": 1}
    late: list[float] = []
    over = threading.Event()
    far = datetime.now(UTC) + timedelta(days=200)

    def other() -> None:  # of a built-in one like `print` it would read the signature from text, each time
        raise AssertionError("it is not due")

    for number in range(tasks):
        # The latest first would be the slowest for its sorted list; this is the quickest.
        scheduler.add_job(other, DateTrigger(far + timedelta(seconds=number), UTC), id=f"{number}", **add)
    at = (datetime.now(UTC) + timedelta(seconds=WAIT_S + count // 500)).replace(microsecond=0)

    def job() -> None:
        late.append((time.time() - at.timestamp()) * 1e3)
        if len(late) == count:
            over.set()

    for _ in range(count):
        scheduler.add_job(job, "date", run_date=at, **add)
    if datetime.now(UTC) >= at:
        sys.exit("the moment came before all were added")
    scheduler.resume()
    over.wait()
    print(json.dumps(late), flush=True)
    os._exit(0)  # a million jobs are not to be put away one by one


if __name__ == "__main__":
    work(int(sys.argv[1]), int(sys.argv[2]))
