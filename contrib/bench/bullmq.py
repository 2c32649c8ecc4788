"""BullMQ on a redis of its own; bullmq.cjs beside this file is its producer and its worker."""

from __future__ import annotations

import json

from contrib.bench import redis
from contrib.bench.measure import Figures, Missing
from contrib.bench.processes import PEERS, ROOT, cpu_s, next_line, program, running


def life(count: int, fsync: str) -> Figures:
    seconds, cpu = _run("life", count, fsync)
    assert isinstance(seconds, float)
    return {"lives/s": count / seconds, "server CPU us/life": cpu / count * 1e6}


def now(count: int) -> list[float]:
    """How long each waited, in ms."""
    waited, _ = _run("now", count, "always")
    assert isinstance(waited, list)
    return waited


def _run(what: str, count: int, fsync: str) -> tuple[object, float]:
    node, modules = program("node", "nodejs"), PEERS / "node" / "node_modules"
    if not (modules / "bullmq").is_dir():
        raise Missing("not installed (npm: bullmq, ioredis; make bench-peers)")
    with redis.server(fsync) as (port, pid):
        script = [node, str(ROOT / "contrib/bench/bullmq.cjs"), what, str(port), str(count)]
        with running(script, env={"NODE_PATH": str(modules)}) as process:
            before = cpu_s(pid)
            said = json.loads(next_line(process))
            return said, cpu_s(pid) - before
