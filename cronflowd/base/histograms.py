"""How often a figure was how large, as Prometheus counts it."""

from __future__ import annotations

from bisect import bisect_left


class Histogram:
    """Counts by upper bounds, which are part of what they bound; and the sum of all."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, *bounds: float) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # the last: above all bounds
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value
