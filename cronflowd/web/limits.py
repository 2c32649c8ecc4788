"""How often somebody may ask: so much at once, and so much a second after that."""

from __future__ import annotations

from collections import OrderedDict

import trio

MAX_KNOWN = 10_000  # who was heard of longest ago is forgotten first


class Limits:
    """A bucket for each address, account or mailbox; all of one size."""

    def __init__(self, per_s: float, at_once: float) -> None:
        self._per_s, self._at_once = per_s, at_once
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # by whose: how much, and when

    def take(self, whose: str) -> float:
        """0 where he may, which counts; else the seconds until he may again."""
        now = trio.current_time()
        left, at = self._left.pop(whose, (self._at_once, now))
        left = min(self._at_once, left + max(0.0, now - at) * self._per_s)
        wait_s = 0.0 if left >= 1 else (1 - left) / self._per_s
        self._left[whose] = (left if wait_s else left - 1, now)
        if len(self._left) > MAX_KNOWN:
            self._left.popitem(last=False)
        return wait_s
