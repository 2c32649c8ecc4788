"""What a schedule costs, beside croniter and cronsim.

All three get the same random expressions, of those that all three accept, and the same starts
over three years in several zones. A next fire is asked of an expression that is parsed already;
a parse is that of a text never seen before. Last, the daemon loads a file of as many distinct
expressions, to the commit on its disk; the two libraries have no daemon, so beside it stands
what parsing each of them and asking once takes there.
"""

from __future__ import annotations

import copy
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

from croniter import croniter
from cronsim import CronSim

from cronflowd.schedules.schedule import Schedule, parse_schedule
from tests.bench_daemon import Line, cronflowd
from tests.lib.rounds import Figures, alternate

PROBES = 2000
ROUNDS = 15
LOADED = int(os.environ.get("CRONFLOWD_BENCH_EXPRESSIONS", "100000"))
LOAD_ROUNDS = int(os.environ.get("CRONFLOWD_BENCH_ROUNDS", "3"))
SEED = int(os.environ.get("CRONFLOWD_SEED", "20261121"))
ZONES = ["UTC", "Europe/Paris", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "America/Santiago"]
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class Probe(NamedTuple):
    """An expression, a zone, and the moment after which it is asked for."""

    text: str
    zone: str
    start: datetime


def probes(seed: str) -> Iterator[Probe]:
    """Without an end, and no expression twice."""
    rng, seen = random.Random(seed), set()
    while True:
        start = BEGIN + timedelta(seconds=rng.randrange(3 * 365 * 86_400))
        probe = Probe(random_expression(rng), rng.choice(ZONES), start)
        if probe.text not in seen and accepted_by_all(probe.text):
            seen.add(probe.text)
            yield probe


def random_expression(rng: random.Random) -> str:
    """Five fields, about a third of which name a day, as many a weekday, and a quarter a month."""
    dom = random_field(rng, 1, 28) if rng.random() < 0.4 else "*"
    dow = random_field(rng, 0, 6) if rng.random() < 0.4 else "*"
    month = random_field(rng, 1, 12) if rng.random() < 0.3 else "*"
    return f"{random_field(rng, 0, 59)} {random_field(rng, 0, 23)} {dom} {month} {dow}"


def random_field(rng: random.Random, low: int, high: int) -> str:
    first, last = sorted(rng.sample(range(low, high + 1), 2))
    forms = [
        "*",
        f"*/{rng.randint(2, high // 2)}",
        f"{first}",
        f"{last}",
        f"{first}-{last}",
        f"{first},{last}",
    ]
    return rng.choice([*forms, f"{first}-{last}/{rng.randint(2, 9)}"])


def accepted_by_all(text: str) -> bool:
    try:
        CronSim(text, BEGIN)
    except ValueError:  # it knows fewer forms than the others
        return False
    return croniter.is_valid(text)


def local(probe: Probe) -> datetime:
    return probe.start.astimezone(ZoneInfo(probe.zone))


class Peer(NamedTuple):
    """How one of the three parses, and how what it has parsed is asked, made ready outside the measure."""

    parse: Callable[[Probe], object]
    prepare: Callable[[Probe, object], Callable[[], object]]


def prepare_ours(probe: Probe, schedule: object) -> Callable[[], object]:
    assert isinstance(schedule, Schedule)
    return partial(schedule.next_after, probe.start, BEGIN)


def prepare_croniter(probe: Probe, parsed: object) -> Callable[[], object]:
    return partial(copy.copy(parsed).get_next, datetime)  # type: ignore[attr-defined]


def prepare_cronsim(probe: Probe, parsed: object) -> Callable[[], object]:
    return copy.copy(parsed).__next__  # type: ignore[attr-defined]


PEERS = {
    "cronflowd": Peer(lambda probe: parse_schedule(probe.text, probe.zone), prepare_ours),
    "croniter": Peer(lambda probe: croniter(probe.text, local(probe)), prepare_croniter),
    "cronsim": Peer(lambda probe: CronSim(probe.text, local(probe)), prepare_cronsim),
}


def timed(work: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    """Processor time, since whoever else is on this machine is not to be measured."""
    began = clock()
    work()
    return clock() - began


def measure_next(peer: Peer, parsed: list[tuple[Probe, object]]) -> Figures:
    asks = [peer.prepare(probe, each) for probe, each in parsed]
    return {"next": timed(lambda: [ask() for ask in asks]) / len(asks) * 1e6}


def measure_parse(peer: Peer, numbers: Iterator[int]) -> Figures:
    """The n-th round of one is over the same expressions as the n-th of another."""
    fresh = probes(f"{SEED}/parse/{next(numbers)}")
    asked = [next(fresh) for _ in range(PROBES)]
    return {"parse": timed(lambda: [peer.parse(probe) for probe in asked]) / PROBES * 1e6}


def measure_load(many: list[Probe]) -> Figures:
    """A real daemon, and LOAD as any client says it."""
    with tempfile.TemporaryDirectory() as directory, cronflowd(Path(directory)) as (port, _):
        records = (
            {"schedule": probe.text, "command": "true", "jobName": f"t{number}", "tz": probe.zone}
            for number, probe in enumerate(many)
        )
        text = "".join(json.dumps(record) + "\n" for record in records)
        (Path(directory) / "many.db").write_text(text)
        line = Line(port)
        line.ask("HELLO name=bench")
        took = timed(lambda: line.ask("LOAD many.db"), time.perf_counter)
        assert line.ask("LIST limit=0") == ["OK 0"]
        assert line.ask("STATUS")[0] == f"tasks\t{len(many)}"
        return {"load": took}


def measure_once_each(peer: Peer, many: list[Probe]) -> Figures:
    return {
        "load": timed(lambda: [peer.prepare(probe, peer.parse(probe))() for probe in many], time.perf_counter)
    }


def told(what: str, unit: str, figures: dict[str, Figures], key: str) -> str:
    ours = figures["cronflowd"][key]
    peers = [
        f"{name} {each[key]:,.2f} ({each[key] / ours:.1f}x)"
        for name, each in figures.items()
        if name != "cronflowd"
    ]
    return f"{what}, {unit}: cronflowd {ours:,.2f}, {', '.join(peers)}"


def main() -> None:
    some = probes(f"{SEED}/next")
    asked = [next(some) for _ in range(PROBES)]
    parsed = {name: [(probe, peer.parse(probe)) for probe in asked] for name, peer in PEERS.items()}
    figures = alternate(
        ROUNDS, {name: partial(measure_next, peer, parsed[name]) for name, peer in PEERS.items()}
    )
    print(told(f"a next fire ({PROBES} expressions, {len(ZONES)} zones)", "us", figures, "next"))
    figures = alternate(ROUNDS, {name: partial(measure_parse, peer, count()) for name, peer in PEERS.items()})
    print(told("a parse", "us", figures, "parse"))
    some = probes(f"{SEED}/load")
    many = [next(some) for _ in range(LOADED)]
    measures = {name: partial(measure_once_each, peer, many) for name, peer in PEERS.items()}
    figures = alternate(LOAD_ROUNDS, measures | {"cronflowd": partial(measure_load, many)})
    print(told(f"{LOADED:,} distinct expressions, LOAD beside parse and next", "s", figures, "load"))
