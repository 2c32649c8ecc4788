"""Measuring side by side: rounds, medians with their range, one table and one JSON file."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

Figures = dict[str, float]
Measure = Callable[[], Figures]
# Opens what is needed for all rounds, to be closed by the stack, and says how one is measured.
Side = Callable[[ExitStack], Measure]
OURS = "cronflowd"


class Missing(Exception):
    """A peer that is not there: no error, but the table names it."""


class Line(NamedTuple):
    """One figure of a row, and what we aim at, by peer; "" is an aim beside nobody."""

    key: str
    aims: Mapping[str, str]


class Row(NamedTuple):
    """What is measured together, of us and of each peer."""

    name: str  # what `--only` calls it
    what: str
    sides: Mapping[str, Side]  # ours first
    lines: Sequence[Line]
    rounds: int | None = None  # fewer than asked for, where one takes minutes


class Result(NamedTuple):
    row: Row
    figures: dict[str, list[Figures]]  # by side, one a round
    missing: dict[str, str]  # by side: why


def fresh(measure: Measure) -> Side:
    """A side that begins anew in every round."""
    return lambda stack: measure


def run(row: Row, rounds: int) -> Result:
    """Ours, theirs, ours, theirs …; who fails is told of and left out of the rounds that follow."""
    rounds = min(rounds, row.rounds or rounds)
    result = Result(row, {name: [] for name in row.sides}, {})
    with ExitStack() as stack:
        measures: dict[str, Measure] = {}
        for number in range(1, rounds + 1):
            for name, side in row.sides.items():
                if name in result.missing:
                    continue
                print(f"{row.name}: {name}, round {number} of {rounds} …", file=sys.stderr, flush=True)
                try:
                    if name not in measures:
                        measures[name] = side(stack)
                    result.figures[name].append(measures[name]())
                except (Missing, OSError, RuntimeError) as error:
                    result.missing[name] = str(error)
    return result


class Spread(NamedTuple):
    """A median and its range."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{told(self.median)} ({told(self.low)}-{told(self.high)})"


def spread(figures: Sequence[Figures], key: str) -> Spread | None:
    values = [each[key] for each in figures if key in each]
    return Spread(statistics.median(values), min(values), max(values)) if values else None


def told(value: float) -> str:
    """With three digits that count, and none that do not."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def cells(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """The table: a line for each figure and each peer that has it."""
    rows: list[tuple[str, ...]] = [("", "figure", "ours (range)", "peer", "theirs (range)", "ratio", "aim")]
    for row, figures, missing in results:
        ours_name, *peers = row.sides
        for key, aims in row.lines:
            ours = spread(figures[ours_name], key)
            here = str(ours) if ours else missing.get(ours_name, "refused")
            before = len(rows)
            for peer in peers:
                theirs = spread(figures[peer], key)
                if theirs is None and peer not in missing:
                    continue  # it has no such figure
                there = str(theirs) if theirs else missing[peer]
                ratio = f"{told(ours.median / theirs.median)}x" if ours and theirs and theirs.median else "-"
                rows.append((row.name, key, here, peer, there, ratio, aims.get(peer, aims.get("", "-"))))
            if len(rows) == before:
                rows.append((row.name, key, here, "-", "-", "-", aims.get("", "-")))
    return rows


def table(results: Sequence[Result]) -> str:
    rows = cells(results)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def machine() -> dict[str, object]:
    """Where it was: figures of two machines are not to be compared."""
    return {
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": os.getloadavg(),
    }


def write_json(path: Path, results: Sequence[Result], flags: Mapping[str, object]) -> None:
    rows = {
        row.name: {
            "what": row.what,
            "aims": {line.key: line.aims for line in row.lines},
            "rounds": figures,
            "missing": missing,
        }
        for row, figures, missing in results
    }
    path.write_text(
        json.dumps({"machine": machine(), "flags": flags, "rows": rows}, indent=1, default=str) + "\n"
    )
