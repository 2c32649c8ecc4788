"""Measuring side by side: machines are shared and noisy, so rounds alternate and medians count."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping

Figures = dict[str, float]


def alternate(rounds: int, measures: Mapping[str, Callable[[], Figures]]) -> dict[str, Figures]:
    """Ours, theirs, ours, theirs …; the median of each figure, by who was measured."""
    found: dict[str, list[Figures]] = {name: [] for name in measures}
    for number in range(1, rounds + 1):
        print(f"round {number} of {rounds} …", file=sys.stderr, flush=True)
        for name, measure in measures.items():
            found[name].append(measure())
    return {
        name: {key: statistics.median(each[key] for each in figures) for key in figures[0]}
        for name, figures in found.items()
        if figures
    }
