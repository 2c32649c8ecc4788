"""Two workers of one name: each throws the other off, and neither gives up.

A newer connection takes the place of the older one, since a worker often comes back before its old
connection is known to be dead. Two that are alive would do that to each other for ever. After the second
time within a minute the name is *contested*: it is told with both addresses, and whoever comes has to wait
first, longer each time. One that holds runs waits no longer than a third of their lease, so that it is heard
before they would count as lost.
"""

from __future__ import annotations

import logging

import trio
from attrs import define

from ..base.errors import Refusal

log = logging.getLogger("cronflowd.workers")

SOON_S = 60.0  # a name that changes hands twice within it is contested
MAX_WAIT_S = 60.0
QUIET_S = 2 * MAX_WAIT_S  # when nobody else has tried for so long it is contested no more


@define
class Contest:
    """A name that has changed hands."""

    taken_s: float  # the last time; on trio's clock
    tried_s: float
    times: int = 1


class Rivals:
    """Who has thrown whom off lately, by name."""

    def __init__(self) -> None:
        self._found: dict[str, Contest] = {}

    def is_contested(self, name: str) -> bool:
        """Whether two workers of that name are alive, as far as can be told."""
        found = self._found.get(name)
        return bool(found and found.times > 1 and trio.current_time() < found.tried_s + QUIET_S)

    def contested(self) -> list[str]:
        """The names of which that is so, in the order in which it began."""
        return [name for name in self._found if self.is_contested(name)]

    def change_hands(self, name: str, older: str, newer: str, longest_s: float) -> None:
        """Another worker comes under the name; raises Refusal if it has to wait first."""
        now, found = trio.current_time(), self._found.get(name)
        if found is None or (not self.is_contested(name) and now > found.taken_s + SOON_S):
            self._found = {each: it for each, it in self._found.items() if now < it.tried_s + QUIET_S}
            self._found[name] = Contest(now, now)
            return
        found.tried_s = now
        # The exponent is bounded because 2.0 ** 2000 raises where the longest wait would do.
        wait_s = min(2.0 ** min(found.times - 2, 64), MAX_WAIT_S, longest_s)
        if found.times > 1 and now < found.taken_s + wait_s:
            raise Refusal(
                "busy", f'another worker named "{name}" is connected, from {older}; give one another name'
            )
        found.taken_s, found.times = now, found.times + 1
        log.warning("two workers are named %s, and throw each other off: %s and %s", name, older, newer)
