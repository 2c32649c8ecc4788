"""How long this node may be sure of itself: its lease at etcd, and the thread that renews it.

A lease is certain for its length from the moment at which its renewal was *sent*, less a margin: etcd
counts from later. The clock is one that nobody can set and that counts on in suspend. Nobody tells a
process that it was stopped: whoever wants to send asks here before each send.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from ..host.clock import steady_now
from .etcd import NOT_FOUND, Caller, EtcdError, Unreachable

MARGIN = 0.1  # of its length: by so much we let go before etcd does
RENEWALS = 12  # in the time of one lease: as little as possible of it is over when etcd loses its leader
ANSWERS = 6  # in the time of one lease: for so long is an answer waited for
AGAIN_S = 0.05  # after one that nobody answered: etcd elects a leader of its own, say, and a lease is short


def revoke(etcd: Caller, lease: int) -> None:
    """Ends a lease, and all that hangs on it. Raises Unreachable."""
    try:
        etcd.call("lease/revoke", {"ID": str(lease)})
    except EtcdError as error:
        if error.code != NOT_FOUND:
            raise Unreachable(str(error)) from error


class Lease:
    """One lease, of this process."""

    def __init__(
        self,
        etcd: Caller,
        length_s: float,
        on_lost: Callable[[str], object],
        now: Callable[[], float] = steady_now,
    ) -> None:
        self._etcd = etcd
        self.length_s = length_s
        self._on_lost = on_lost  # called once, from any thread: nothing is certain any more
        self._now = now
        self.id = 0
        self.certain_until_s = float("-inf")
        self._ended = threading.Event()

    @property
    def is_certain(self) -> bool:
        return not self._ended.is_set() and self._now() < self.certain_until_s

    def grant(self) -> None:
        """A new one. Raises Unreachable and EtcdError."""
        sent_s = self._now()
        answer = self._etcd.call("lease/grant", {"TTL": str(math.ceil(self.length_s))})
        self.id = int(answer["ID"])
        self._count_from(sent_s, int(answer["TTL"]))

    def renew(self) -> bool:
        """Whether it goes on; False: etcd knows it no more. Raises Unreachable where nobody answers."""
        sent_s = self._now()
        left_s = min(self._left_s(), self.length_s / ANSWERS)
        try:
            answer = self._etcd.call("lease/keepalive", {"ID": str(self.id)}, max(left_s, 0.01))
        except EtcdError as error:
            if error.code == NOT_FOUND:
                return False
            raise Unreachable(str(error)) from error
        length_s = int(answer.get("TTL", 0))
        if length_s > 0:
            self._count_from(sent_s, length_s)
        return length_s > 0

    def _count_from(self, sent_s: float, length_s: int) -> None:
        self.certain_until_s = sent_s + min(length_s, self.length_s) * (1 - MARGIN)

    # --- the thread ---

    def keep(self) -> None:
        """Renews it from now on."""
        threading.Thread(target=self._keep, name="lease", daemon=True).start()

    def end(self) -> None:
        """Renews it no more, and tells nobody that it is lost."""
        self._ended.set()

    def _keep(self) -> None:
        why, pause_s = "it was not renewed in time", self.length_s / RENEWALS
        while not self._ended.wait(max(0.0, min(pause_s, self._left_s()))) and self.is_certain:
            pause_s = self.length_s / RENEWALS
            try:
                if not self.renew():
                    why = "etcd let it end"
                    break
            except Unreachable as error:
                why, pause_s = str(error), AGAIN_S
            except Exception as error:  # noqa: BLE001  # a lease that nobody renews is lost, whatever the reason
                why = repr(error)
                break
        if not self._ended.is_set():
            self.certain_until_s = float("-inf")
            self._on_lost(f"the lease is lost: {why}")

    def _left_s(self) -> float:
        return self.certain_until_s - self._now()
