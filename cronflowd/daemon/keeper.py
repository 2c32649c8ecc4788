"""What a leader does for etcd: tells how far it is, gives it the whole state, and has it forget the rest."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from functools import partial
from typing import NoReturn

import trio

from ..base.errors import Fatal
from ..engine.facts import FACTS_VERSION
from ..host.clock import wall_now
from ..journal import shared
from ..journal.etcd import EtcdError, Unreachable
from ..journal.files import journal_dir, list_checkpoints
from ..journal.records import in_form
from ..journal.shared import created_at
from ..journal.shared_journal import SharedJournal
from . import roster
from .cluster import LOOK_S, Node
from .peers import in_thread

ROOM_S = 10.0  # how often is looked how much room etcd has

log = logging.getLogger("cronflowd.cluster")


class Keeper:
    """Of one node, for as long as it leads."""

    def __init__(self, node: Node, journal: SharedJournal) -> None:
        self._node, self._shared, self._journal = node, node.shared, journal
        self._too_long = 0  # the record whose state etcd does not take

    async def run(self) -> NoReturn:
        """Until cancelled."""
        node, journal, looked_s = self._node, self._journal, 0.0
        while True:
            await trio.sleep(LOOK_S)
            try:
                await in_thread(node.tell, journal.committed, not journal.full)
                if journal.full:
                    await node.leave_to_one_with_room()
                if trio.current_time() - looked_s > ROOM_S:
                    looked_s = trio.current_time()
                    await in_thread(self._look_for_room)
                    await in_thread(roster.note_gone, self._shared, node.epoch, wall_now())
                    await in_thread(node.check_cluster, journal.committed)
                await in_thread(self.shorten)
                if journal.form < FACTS_VERSION:
                    journal.form = await in_thread(roster.raise_form, self._shared, node.epoch, journal.form)
            except Fatal as error:
                node.on_fatal(error)
            except (Unreachable, EtcdError, FileNotFoundError) as error:  # a newer checkpoint, meanwhile
                log.debug("etcd: %s", error)

    def _look_for_room(self) -> None:
        """At 80 % of etcd's quota what is no more is given back; at 90 % orders are refused, no fires."""
        with ExitStack() as stack:
            every = self._node.each_member(stack)
            found = shared.ask_members(every)
            if found.is_scarce and found.answered == found.members:
                log.warning("etcd is %s", found.text)
                shared.make_room(self._shared, every)
                found = shared.ask_members(every)
        if found.is_full and not self._journal.etcd_is_full:
            log.error("etcd is %s: orders are refused", found.text)
        self._journal.etcd_is_full = found.text if found.is_full else ""

    def shorten(self) -> None:
        """Lets etcd forget what a newer state and enough nodes hold."""
        shared, node = self._shared, self._node
        checkpoints = list_checkpoints(journal_dir(node.settings.data))
        if not checkpoints:
            return
        upto, path = checkpoints[-1]
        if upto <= shared.snapshot_upto():
            return
        synced = sorted(about.get("seq", 0) for about in roster.present(shared).values())
        if (synced[-2] if len(synced) > 1 else synced[-1]) < upto:
            return
        guard = [created_at(shared.leader_key, node.epoch)]
        if upto != self._too_long:
            with path.open("rb") as file:
                chunks = in_form(self._journal.form, iter(partial(file.read, 1 << 20), b""))
                if not shared.put_snapshot(upto, node.token, chunks, guard):
                    log.warning("the state of record %d is too long for etcd: it stands on nodes alone", upto)
                    self._too_long = upto
        if upto == self._too_long:
            if len(synced) == 1:  # etcd's records are the only other copy
                return
            shared.leave_snapshot(upto, guard)
        shared.truncate(upto)
        log.info("etcd holds the records since the state of record %d", upto)
