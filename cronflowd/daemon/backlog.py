"""A standby's: has what it lacks of the past copied from whoever leads, in the background.

One file after the other, at a bounded rate and on a connection of its own, so that neither new records nor
new output wait for it. What was fetched stands in its place, so it goes on where it was after any break.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from shutil import disk_usage
from typing import NoReturn

import orjson
import trio

from ..base.errors import Refusal
from ..host.setting import Address
from ..journal import apart
from ..journal.gaps import Lacks, gaps
from ..journal.records import journal_dir
from .peers import LOOK_S, Peer, in_thread

LONGEST_PAUSE_S = 60.0  # between two tries
MARGIN_BYTES = 64 * 1024 * 1024  # of the disk, for the journal

log = logging.getLogger("cronflowd.cluster")


class Backlog:
    """Of one node, for as long as it follows; what is lacking outlives that."""

    def __init__(self, lacks: Lacks, name: str) -> None:
        self._lacks, self._name = lacks, name
        self._directory = journal_dir(lacks.data)
        self._is_over = False

    async def run(self, leader: Callable[[], Address | None], secret: bytes) -> NoReturn:
        """Until cancelled."""
        asked, why, pause_s = None, "", LOOK_S
        try:
            while True:
                there, looks = leader(), self._lacks.looks
                if there is None:
                    asked = None
                elif asked != (there, looks):  # this one may have what others had not
                    try:
                        await in_thread(self._fetch_all, there, secret)
                        asked, why, pause_s = (there, looks), "", LOOK_S
                    except (OSError, Refusal) as error:
                        if str(error) != why:
                            log.info("the past cannot be copied from the leader: %s", error)
                        why, pause_s = str(error), min(2 * pause_s, LONGEST_PAUSE_S)
                await trio.sleep(pause_s)
        finally:
            self._is_over = True

    def _fetch_all(self, leader: Address, secret: bytes) -> None:
        with closing(Peer(leader, secret, self._name)) as peer:
            for first, last in gaps(self._directory):
                self._fill(peer, first, last)
            for run in sorted(self._lacks.runs, reverse=True):
                self._fetch_output(peer, run)

    def _fill(self, peer: Peer, first: int, last: int) -> None:
        while first <= last and (told := self._ask(peer, f"PAST {last}")):
            begins, _, size = orjson.loads(told)
            begins = max(first, begins)
            self._check_room(2 * size)
            self._lacks.fill(begins, last, self._gently(peer.read(0, size)))
            log.info("the history of records %d to %d was fetched", begins, last)
            last = begins - 1

    def _check_room(self, size: int) -> None:
        if disk_usage(self._directory).free < size + MARGIN_BYTES:
            raise OSError(f"{self._directory}: the disk's room is left to what comes")

    def _gently(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._check_role()
            self._lacks.rest(len(piece))
            yield piece

    def _fetch_output(self, peer: Peer, run: int) -> None:
        offset = 0
        while data := self._ask(peer, f"OUTPUT {run} {offset}"):
            self._check_room(len(data))
            apart.merge(self._directory, run, data)
            offset += len(data)
            self._lacks.rest(len(data))
        if offset:
            peer.ask(f"HAVE {run}:{offset}")
        self._lacks.check(run)

    def _ask(self, peer: Peer, question: str) -> bytes:
        self._check_role()
        return peer.ask(question)

    def _check_role(self) -> None:
        if self._is_over:  # nobody waits for this thread any more
            raise OSError("this node follows no more")
