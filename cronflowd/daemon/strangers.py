"""What is remembered of whoever is not known yet: by its address, and by the name it says.

A wrong word costs its address a wait that doubles with each, and one that was for a name which
many guess at costs as much as the last guess at that name did, wherever it came from. Nobody else
waits: a right word from elsewhere is taken at once, whatever was guessed before. Both tables are
bounded, and names that do not exist stand in them like those that do.
"""

from __future__ import annotations

from collections import OrderedDict

import trio
from attrs import Factory, define

from ..base.errors import Refusal

FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 10.0
FORGIVEN_S = 600.0  # without another wrong word
MAX_WAITING = 8  # of one address; more are refused at once
MAX_KNOWN = 10_000  # addresses, and names; those heard of longest ago are forgotten first
NOTED, NOTED_OF_ALL = 60, 600  # refusals a minute that are journaled: of one address, of all


@define(eq=False)
class Stranger:
    """An address, or a name that was said. Its moments are on trio's clock."""

    failures: int = 0
    failed_s: float = 0.0
    free_s: float = 0.0  # when its next word may be compared
    turn: trio.Lock = Factory(trio.Lock)  # its words are compared one after the other
    waiting: int = 0
    lines: int = 0  # before it was known, in the second
    lines_from_s: float = 0.0  # that began then
    noted: int = 0  # in the minute
    noted_from_s: float = 0.0  # that began then
    untold: int = 0  # refusals that were not journaled
    shown_s: dict[str, float] = Factory(dict)  # when AUDIT told of a token there, by digest

    def fail(self, now: float) -> float:
        """One more wrong word; how long it has to wait for it."""
        self.failures = 1 if now - self.failed_s > FORGIVEN_S else self.failures + 1
        self.failed_s = now
        return float(min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(self.failures - 1, 10)))

    def take_untold(self) -> int:
        untold, self.untold = self.untold, 0
        return untold


class Strangers:
    """Both tables."""

    def __init__(self) -> None:
        self.addresses: OrderedDict[str, Stranger] = OrderedDict()
        self.names: OrderedDict[str, Stranger] = OrderedDict()
        self._all = Stranger()

    def at(self, address: str) -> Stranger:
        return _find(self.addresses, address)

    async def take_turn(self, stranger: Stranger) -> None:
        """Waits until its next word may be compared, and holds its turn. Raises Refusal."""
        if stranger.waiting >= MAX_WAITING:
            raise Refusal("too-many", "too many words from your address wait to be compared; try again later")
        stranger.waiting += 1
        try:
            await stranger.turn.acquire()
        finally:
            stranger.waiting -= 1
        try:
            await trio.sleep_until(stranger.free_s)
        except BaseException:
            stranger.turn.release()
            raise

    def failed(self, stranger: Stranger, name: str | None) -> None:
        """A word was wrong: that of an account, if it said a name."""
        now = trio.current_time()
        wait_s = stranger.fail(now)
        if name is not None:
            wait_s = max(wait_s, _find(self.names, name[:64]).fail(now))
        stranger.free_s = max(now, stranger.free_s) + wait_s

    def is_news(self, address: str, digest: str) -> bool:
        """Whether AUDIT tells of a token that a gateway shows with each request: once a minute."""
        found, now = self.at(address), trio.current_time()
        found.shown_s = {each: at for each, at in found.shown_s.items() if now - at < 60}
        if digest in found.shown_s:
            return False
        found.shown_s[digest] = now
        return True

    def may_be_noted(self, stranger: Stranger) -> bool:
        """Whether one more refusal is journaled: a flood must not fill the disk."""
        now = trio.current_time()
        for each in (stranger, self._all):
            if now - each.noted_from_s > 60:
                each.noted, each.noted_from_s = 0, now
        if stranger.noted >= NOTED or self._all.noted >= NOTED_OF_ALL:
            return False
        stranger.noted += 1
        self._all.noted += 1
        return True


def _find(table: OrderedDict[str, Stranger], key: str) -> Stranger:
    found = table.get(key)
    if found is None:
        found = table[key] = Stranger()
        if len(table) > MAX_KNOWN:
            # Who waits is bounded by the connections there may be, and is not forgotten meanwhile.
            oldest = next((each for each in table if not table[each].turn.locked()), None)
            if oldest is not None:
                del table[oldest]
    else:
        table.move_to_end(key)
    return found
