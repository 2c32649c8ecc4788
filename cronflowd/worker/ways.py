"""Where the daemon is: several of its nodes may be told, and each tells who leads.

One is tried after the other, whoever was named as the leader first. What a worker has once been told
by a newer leader it does not forget: one of the past, that does not know yet, is left again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..host.setting import Address, WebAddress, format_server, parse_server

OTHERS_WAIT_S = 2.0
LOST_WAIT_S = 0.5  # for whoever has just gone; twice as long each time
PROXY_HEARTBEAT_S = 30.0  # at least so often through proxies, which end what is silent for a minute

Where = Address | Path | WebAddress


class Ways:
    """Which address is tried next."""

    def __init__(self, known: Sequence[Where]) -> None:
        self._known = known
        self.at: Where = known[0]
        self.epoch = 0  # the highest that a leader has told
        self._told: Where | None = None  # who leads, as a node has just said
        self._tried: set[Where] = set()  # in this round
        self._lost: Where | None = None  # where the last link was, until there is another
        self._lost_wait_s = LOST_WAIT_S

    @property
    def are_many(self) -> bool:
        """Whether this is a cluster, as far as we know: somebody else may answer at once."""
        return len(self._known) > 1 or self.epoch > 0

    def patience_s(self, alone_s: float) -> float:
        """How long an answer is waited for: less where another node may have one."""
        wait_s = self._lost_wait_s if self.at == self._lost else OTHERS_WAIT_S
        return min(alone_s, wait_s) if self.are_many else alone_s

    def heartbeat_s(self, wanted_s: float) -> float:
        """How often life is shown on this way."""
        return min(wanted_s, PROXY_HEARTBEAT_S) if isinstance(self.at, WebAddress) else wanted_s

    @property
    def text(self) -> str:
        return format_server(self.at)

    def hear(self, leader: str) -> None:
        """A node has said who leads; `none` and what is no address tell nothing."""
        try:
            where = parse_server(leader)
        except ValueError:
            return
        self._told = where if isinstance(where, tuple) else None

    def welcome(self, epoch: int) -> bool:
        """Somebody leads here; False where it leads no more, and does not know."""
        if 0 < epoch < self.epoch:
            return False
        self.epoch = max(self.epoch, epoch)
        self._tried.clear()
        self._lost = None
        return True

    def go_on(self, had_link: bool = False) -> bool:
        """Chooses the next address; False: there is time to wait, since all were tried, or one was good."""
        if had_link:  # whoever was there may be frozen or cut off, so it is asked last
            self._lost, self._lost_wait_s = self.at, LOST_WAIT_S
            self.at = self._by_turn()[0]
            return False
        self._tried.add(self.at)
        if self.at == self._lost:
            self._lost_wait_s = min(2 * self._lost_wait_s, OTHERS_WAIT_S)
        told, self._told = self._told, None
        untried = [each for each in ([told] if told else []) + self._by_turn() if each not in self._tried]
        if untried:
            self.at = untried[0]
            return True
        self._tried.clear()
        self.at = self._by_turn()[0]
        return False

    def _by_turn(self) -> list[Where]:
        return sorted(self._known, key=lambda each: each == self._lost)
