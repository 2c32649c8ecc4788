"""How much room etcd has: it takes nothing any more, for ever, once it is larger than its quota.

What was overwritten or removed stays there until it is compacted, and what is compacted leaves holes until
a member is defragmented, during which that member stands still: so it is done to one after the other,
and only when it is wanted.
"""

from __future__ import annotations

import http.client
import logging
from collections.abc import Sequence
from contextlib import suppress

from attrs import frozen

from .etcd import Etcd, EtcdError, Unreachable
from .shared import Shared

QUOTA_BYTES = 2 * 1024**3  # etcd's own default
SCARCE, FULL = 0.8, 0.9  # parts of it
WORTH_WHILE = 0.1  # of it: so much a defragmentation has to give back
DEFRAGMENT_S = 60.0

log = logging.getLogger(__name__)


@frozen
class Room:
    """What the members tell."""

    members: int
    answered: int
    size: int  # of the largest, in bytes: what the quota is held against
    used: int  # of those, what is no hole
    quota: int
    wrong: str  # the first trouble, in words

    @property
    def text(self) -> str:
        count = f"{self.answered}/{self.members} {_bytes(self.size)} of {_bytes(self.quota)}"
        return f"{count}: {self.wrong}" if self.wrong else f"ok {count}"

    @property
    def is_scarce(self) -> bool:
        return self.size > SCARCE * self.quota and self.size - self.used > WORTH_WHILE * self.quota

    @property
    def is_full(self) -> bool:
        return self.used > FULL * self.quota


def _bytes(number: int) -> str:
    return f"{number / 1024**3:.1f}G" if number >= 1024**3 else f"{number / 1024**2:.1f}M"


def look(clients: Sequence[Etcd]) -> Room:
    """Asks every member."""
    answered = size = used = 0
    quota, wrong = QUOTA_BYTES, []
    for client in clients:
        try:
            told = client.call("maintenance/status", {})
        except (Unreachable, EtcdError) as error:
            wrong.append(str(error))
            continue
        answered += 1
        if int(told["dbSize"]) >= size:
            size, used = int(told["dbSize"]), int(told.get("dbSizeInUse", told["dbSize"]))
        wrong += told.get("errors", [])
        with suppress(OSError, http.client.HTTPException, ValueError):
            quota = client.quota() or quota
    return Room(len(clients), answered, size, used, quota, wrong[0] if wrong else "")


def make_room(shared: Shared, clients: Sequence[Etcd]) -> None:
    """Has etcd forget what is no more, and each member give back its holes, one after the other."""
    shared.compact()
    for client in clients:
        log.warning("etcd at %s is defragmented", client.member)
        try:
            client.call("maintenance/defragment", {}, DEFRAGMENT_S)
        except (Unreachable, EtcdError) as error:  # it takes etcd's role `root`, for one
            log.warning("etcd at %s could not be defragmented: %s", client.member, error)
