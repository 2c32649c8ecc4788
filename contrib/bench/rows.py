"""All that is measured, and what we aim at: ours against theirs in the same run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from contrib.bench import apscheduler_peer, beanstalkd, bullmq, ours, redis, schedules
from contrib.bench.measure import OURS, Figures, Line, Row, Side, fresh

CPU = Line("server CPU us", {})


class Sizes(NamedTuple):
    """How much is measured: all that `--scale` makes smaller, and what has a flag of its own."""

    scale: float
    tasks: int
    queues: int
    watchers: int
    idle_s: float

    def of(self, count: int) -> int:
        return max(100, int(count * self.scale))


def rows(sizes: Sizes, tree: Path) -> Iterator[Row]:
    """Of the daemon in this tree; `row.sides[OURS]` is all that another commit is measured by."""
    of = sizes.of
    yield _life(of, tree)
    yield Row(
        "now",
        "NOW to the start in the worker, one after another",
        {OURS: fresh(partial(ours.now, tree, of(2000))), "BullMQ AOF always": fresh(lambda: _now(of(2000)))},
        [Line("p50 ms", {"BullMQ AOF always": "<= 0.5x"}), Line("p99 ms", {"BullMQ AOF always": "<= 0.33x"})],
    )
    yield Row(
        "due",
        "10,000 due at one moment, among all tasks: how late",
        {
            OURS: partial(ours.due, tree, sizes.tasks, of(10_000)),
            "APScheduler": fresh(partial(apscheduler_peer.due, sizes.tasks, of(10_000))),
        },
        [Line("p50 ms", {}), Line("p99 ms", {"APScheduler": "<= 0.1x"})],
    )
    yield from _requests(of, tree)
    yield Row(
        "restart",
        "with all tasks, its journal short, against one pass of orjson over tasks.db",
        {
            OURS: partial(ours.restart, tree, sizes.tasks),
            "orjson.loads": partial(ours.loads_pass, tree, sizes.tasks),
        },
        [Line("seconds", {"orjson.loads": "<= 6x"}), Line("bytes/task", {"": "<= 600"})],
    )
    idle = partial(ours.idle, tree, sizes.tasks, sizes.idle_s)
    yield Row("idle", "all tasks, no worker", {OURS: idle}, [Line("wake-ups/min", {"": "0"})], rounds=1)
    yield Row(
        "shell",
        "jobs of /bin/sh -c true, a worker's second of processor time",
        {
            OURS: fresh(partial(ours.shell, tree, of(2000))),
            "posix_spawn": fresh(partial(ours.bare_spawn, of(2000))),
            "posix_spawn, 8 read": fresh(partial(ours.eight_spawns, of(2000))),
        },
        [Line("jobs/CPU s", {"posix_spawn": ">= 0.8x", "posix_spawn, 8 read": ">= 0.8x"})],
    )
    verbs = ("LIST", "SAVE", "LOAD", "CLEAR", "UNDO")
    yield Row(
        "bulk",
        "the longest PING of another client meanwhile, next to queues and watchers",
        {OURS: partial(ours.bulk, tree, sizes.tasks, sizes.queues, sizes.watchers)},
        [
            *(Line(f"PING ms at {verb}", {"": "<= 20"}) for verb in verbs),
            *(Line(f"CPU ms of a step at {verb}", {"": "<= 20"}) for verb in verbs),
            *(Line(f"{verb} s", {}) for verb in verbs),
        ],
        rounds=1,
    )
    yield from schedules.rows(of)


def _now(count: int) -> Figures:
    return ours.percentiles(bullmq.now(count))


def _life(of: Callable[[int], int], tree: Path) -> Row:
    return Row(
        "life",
        "a job that does nothing, from its order to the acknowledged report",
        {
            OURS: fresh(partial(ours.life, tree, of(50_000))),
            "BullMQ everysec": fresh(partial(bullmq.life, of(10_000), "everysec")),
            "BullMQ AOF always": fresh(partial(bullmq.life, of(10_000), "always")),
            "beanstalkd memory": fresh(partial(beanstalkd.life, of(50_000), durable=False)),
            "beanstalkd fsync": fresh(partial(beanstalkd.life, of(5_000), durable=True)),
        },
        [
            Line(
                "lives/s",
                {
                    "BullMQ everysec": ">= 10x",
                    "beanstalkd memory": ">= 1.5x (2)",
                    "beanstalkd fsync": ">= 15x",
                },
            ),
            Line("server CPU us/life", {}),  # the aim is half of what it was: bench-two
        ],
    )


def _requests(of: Callable[[int], int], tree: Path) -> Iterator[Row]:
    """PING and durable ADD, beside redis."""
    for name, depth, count, aim in (("ping-deep", 100, 500_000, ">= 0.6x"), ("ping", 1, 100_000, ">= 0.5x")):
        yield Row(
            name,
            f"PING, 50 connections, {depth} at once on each",
            {
                OURS: fresh(partial(ours.ping, tree, of(count), depth)),
                "redis": fresh(partial(redis.ping, of(count), depth)),
            },
            [Line("requests/s", {"redis": aim}), CPU],
        )
    shapes: list[tuple[int, int, int, str]] = [
        (1, 1, 2000, ">= 0.8x"),
        (16, 1, 10_000, ">= 0.8x"),
        (64, 1, 20_000, ">= 0.5x"),
        (64, 100, 50_000, ">= 0.2x"),
    ]
    for connections, depth, count, aim in shapes:
        theirs: Side = fresh(partial(redis.durable_set, of(count), connections, depth))
        yield Row(
            f"add-{connections}x{depth}",
            f"durable ADD against SET with AOF always, {connections} connections, {depth} at once on each",
            {OURS: fresh(partial(ours.add, tree, of(count), connections, depth)), "redis AOF always": theirs},
            [Line("requests/s", {"redis AOF always": aim}), CPU],
        )
