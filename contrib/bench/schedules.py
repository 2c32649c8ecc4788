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
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count, islice
from typing import NamedTuple
from zoneinfo import ZoneInfo

from croniter import croniter
from cronsim import CronSim

from contrib.bench import ours
from contrib.bench.load import Client
from contrib.bench.measure import OURS, Figures, Line, Measure, Row, fresh
from contrib.bench.processes import ROOT
from cronflowd.schedules.schedule import Schedule, parse_schedule

PROBES = 2000
LOADED = 100_000
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


def measure_next(peer: Peer, count: int) -> Figures:
    some = probes(f"{SEED}/next")
    asked = [next(some) for _ in range(count)]
    asks = [peer.prepare(probe, peer.parse(probe)) for probe in asked]
    return {"us": timed(lambda: [ask() for ask in asks]) / count * 1e6}


def measure_parse(peer: Peer, count: int, rounds: Iterator[int]) -> Figures:
    """The n-th round of one is over the same expressions as the n-th of another."""
    fresh_ones = probes(f"{SEED}/parse/{next(rounds)}")
    asked = [next(fresh_ones) for _ in range(count)]
    return {"us": timed(lambda: [peer.parse(probe) for probe in asked]) / count * 1e6}


def measure_load(count: int) -> Figures:
    """A real daemon, and LOAD as any client says it."""
    many = list(islice(probes(f"{SEED}/load"), count))
    with ours.daemon(ROOT) as server:
        records = (
            {"schedule": probe.text, "command": "true", "jobName": f"t{number}", "tz": probe.zone}
            for number, probe in enumerate(many)
        )
        (server.data / "many.db").write_text("".join(json.dumps(record) + "\n" for record in records))
        client = Client(server.port)
        return {"seconds": timed(lambda: client.do("LOAD many.db"), time.perf_counter)}


def measure_once_each(peer: Peer, count: int) -> Figures:
    many = list(islice(probes(f"{SEED}/load"), count))
    work = partial(timed, lambda: [peer.prepare(each, peer.parse(each))() for each in many])
    return {"seconds": work(time.perf_counter)}


def rows(of: Callable[[int], int]) -> Iterator[Row]:
    def of_each(measure: Callable[[Peer], Measure]) -> dict[str, Measure]:
        return {name: measure(peer) for name, peer in PEERS.items()}

    many, loaded = of(PROBES), of(LOADED)
    each = {
        "next": ("a next fire", "us", of_each(lambda peer: partial(measure_next, peer, many))),
        "parse": (
            "a text never seen",
            "us",
            of_each(lambda peer: partial(measure_parse, peer, many, count())),
        ),
        "load": (
            "distinct expressions, LOAD beside parse and next",
            "seconds",
            of_each(lambda peer: partial(measure_once_each, peer, loaded))
            | {OURS: partial(measure_load, loaded)},
        ),
    }
    for name, (what, key, measures) in each.items():
        sides = {side: fresh(measure) for side, measure in measures.items()}
        yield Row(f"schedule-{name}", what, sides, [Line(key, {})])
