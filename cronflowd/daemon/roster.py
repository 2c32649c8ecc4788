"""Who is there: NODES, what STATUS tells of the cluster, and to whom STEPDOWN can hand over.

Each node tells of itself in etcd, so every node can show all of them, also while nobody leads. What
outlives a node's lease is what it was, for a day.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from secrets import token_hex
from typing import Any

import orjson

from ..base.errors import Exit, Fatal, Refusal
from ..base.replies import Row
from ..base.text import format_time
from ..engine.facts import FACTS_VERSION
from ..host.clock import steady_now
from ..journal.etcd import Etcd, EtcdError, Lease, Unreachable
from ..journal.shared import Entry, Shared, ask_members, changed_at, created_at, put

COLUMNS = ("node", "role", "control", "workers", "version", "seq", "behind", "clock", "since")
FIRST_FORM = 2  # of records, when there first were clusters
GONE_FOR = timedelta(days=1)
ANSWER_S, AGAIN_S = 5.0, 0.02  # for nodes to say that they are awake, and how often is looked
HEIR_S = 5.0  # for so long is whoever is to lead next waited for
CLOSE_BY = 1000  # records: who lacks no more has them at once
MAX_CLOCK_S = 2.0  # a clock that is off by more leads only when nobody else does

About = dict[str, Any]

log = logging.getLogger("cronflowd.cluster")


def present(shared: Shared) -> dict[str, About]:
    """What the nodes that are there tell of themselves, by name."""
    return _read(shared, shared.nodes_prefix)


def _read(shared: Shared, prefix: bytes) -> dict[str, About]:
    found = (orjson.loads(entry.value) for entry in shared.below(prefix))
    return {about["node"]: about for about in found}


def remember(shared: Shared, about: About) -> None:
    """A node has come: what is to be told of it when it has gone."""
    key = shared.known_prefix + about["node"].encode()
    shared.transact([], [put(key, orjson.dumps(about))])


def note_gone(shared: Shared, epoch: int, now: datetime) -> None:
    """The leader's: since when those have gone that are not there, and who is forgotten."""
    here, guard = present(shared), [created_at(shared.leader_key, epoch)]
    for name, about in _read(shared, shared.known_prefix).items():
        key = shared.known_prefix + name.encode()
        gone_at = about.get("gone_at")
        if name in here:
            continue
        if gone_at is None:
            shared.transact(guard, [put(key, orjson.dumps(about | {"gone_at": format_time(now)}))])
        elif now - datetime.fromisoformat(gone_at) > GONE_FOR:
            shared.delete(key)


def form_of(cluster: About) -> int:
    """The form of the cluster's records. Raises Fatal where this release does not know it."""
    form: int = cluster.get("form", FIRST_FORM)
    if form > FACTS_VERSION:
        why = f"the cluster's records have form {form}, and this release knows form {FACTS_VERSION}"
        raise Fatal(Exit.BUG, f"{why}: all other nodes are newer, so bring this one up to date")
    return form


def agreed(told: About, ours: About, name: str, others: list[str]) -> About:
    """What all are to have in common: ours, unless nodes are there that have it otherwise. Raises Fatal."""
    if not others:
        return told | ours | ({"node": name} if told["tz"] != ours["tz"] else {})
    if told["tz"] != ours["tz"]:
        why = (
            f"node {name} has --tz {ours['tz']}, and node {told['node']} began the cluster with {told['tz']}"
        )
        raise Fatal(Exit.CONFIG, f"{why}: it must be the same on all")
    signed, here = told.get("orders", ""), ours["orders"]
    if signed and here and signed != here:
        why = f"node {name} signs orders with another order.key than {', '.join(others)}"
        raise Fatal(Exit.CONFIG, f"{why}: copy the one that workers know to the directories of all")
    if signed and not here:
        log.warning("orders of this node are not signed, and those of others are: --sign-orders is missing")
    return told | ({"orders": here} if here else {})


def tell_ahead(shared: Shared, cluster: Entry, seq: int, name: str) -> None:
    """etcd was restored to before a record that a node has: nobody who knows less must lead without it."""
    told = orjson.loads(cluster.value)
    told["ahead"] = max(told.get("ahead", [0, ""]), [seq, name])
    guard = [changed_at(cluster.key, cluster.changed)]
    shared.transact(guard, [put(cluster.key, orjson.dumps(told))])


def ahead(cluster: About) -> tuple[str, int]:
    """Which node has said so, and of which record."""
    seq, name = cluster.get("ahead", (0, ""))
    return f"node {name}", seq


def raise_form(shared: Shared, epoch: int, form: int) -> int:
    """The leader's: the form of records that all nodes know, those too that have gone and may come back."""
    every = [*_read(shared, shared.known_prefix).values(), *present(shared).values()]
    lowest = min(FACTS_VERSION, *(about.get("form", FIRST_FORM) for about in every))
    entry = shared.get(shared.cluster_key)
    if entry is None or lowest <= form:
        return form
    told = orjson.dumps(orjson.loads(entry.value) | {"form": lowest})
    guard = [created_at(shared.leader_key, epoch), changed_at(shared.cluster_key, entry.changed)]
    return lowest if shared.transact(guard, [put(shared.cluster_key, told)]).done else form


def rows(shared: Shared) -> list[Row]:
    """NODES."""
    leader = shared.get(shared.leader_key)
    leads = orjson.loads(leader.value)["node"] if leader else ""
    here = present(shared)
    last = max((about["seq"] for about in here.values()), default=0)
    order = sorted(here, key=lambda name: (name != leads, name))
    found = [_row(here[name], "leader" if name == leads else "standby", last) for name in order]
    gone = [about for name, about in _read(shared, shared.known_prefix).items() if name not in here]
    return found + [_row(about | {"since": about.get("gone_at")}, "gone", last) for about in gone]


def _row(about: About, role: str, last: int) -> Row:
    clock = about.get("clock")
    is_gone = role == "gone"
    return (
        about["node"], role, about["control"], about["workers"], about["version"],
        None if is_gone else about["seq"], None if is_gone else last - about["seq"],
        None if clock is None or is_gone else f"{clock:+.3f}", about["since"],
    )  # fmt: skip


def awake(shared: Shared, us: About, epoch: int, lease: int, wanted: str = "") -> dict[str, About]:
    """The leader's: what other nodes tell that answer now, or the one that is wanted. Blocking, for a thread.

    Whoever is frozen, or cut off, is there until its lease ends, and would keep all others from leading. So
    the leader puts a question to what it tells of itself; who reads it says so. Raises Unreachable.
    """
    asks, until_s = token_hex(8), steady_now() + ANSWER_S
    told = put(shared.leader_key, orjson.dumps(us | {"asks": asks}), lease)
    if not shared.transact([created_at(shared.leader_key, epoch)], [told]).done:
        raise Unreachable("this node leads no more")
    while True:
        others = {name: about for name, about in present(shared).items() if name != us["node"]}
        found = {name: about for name, about in others.items() if about.get("heard") == asks}
        is_told = wanted in found or wanted not in others if wanted else found or not others
        if is_told or steady_now() > until_s:
            return found
        time.sleep(AGAIN_S)


def heir(shared: Shared, us: About, epoch: int, lease: int, wanted: str, last: int) -> str:
    """Who can lead in our place. Raises Refusal."""
    others = awake(shared, us, epoch, lease, wanted)
    if wanted and wanted not in others:
        if wanted == us["node"] or wanted not in present(shared):
            raise Refusal("not-found", f'no node "{wanted}" is there to lead; NODES lists them')
        raise Refusal("busy", f"node {wanted} does not answer")
    fit = {
        name: (not is_off(about.get("clock")), is_whole(about), about["seq"])
        for name, about in others.items()
        if about["seq"] >= last - CLOSE_BY
    }
    best = wanted or max(fit, key=lambda name: fit[name], default="")
    if best in fit:
        return best
    if others:
        full = [name for name, about in others.items() if about.get("has_room") is False]
        why = f": the disk of {', '.join(full)} is full" if full else ""
        who = f"node {wanted} is not" if wanted else "no other node is"
        raise Refusal("busy", f"{who} up to date{why}")
    there = ", ".join(sorted(present(shared).keys() - {us["node"]}))
    raise Refusal("busy", f"node {there} does not answer" if there else "no other node is there")


def is_off(clock_s: float | None) -> bool:
    """Whether a clock is too far from the leader's; one that was not compared yet is not."""
    return clock_s is not None and abs(clock_s) > MAX_CLOCK_S


def is_whole(about: About) -> bool:
    """Whether a node has all of the past; an older one does not say."""
    return bool(about.get("whole"))


def name_heir(shared: Shared, heir: str) -> None:
    lease = Lease(shared.etcd, HEIR_S, lambda why: None)
    lease.grant()
    shared.transact([], [put(shared.heir_key, heir.encode(), lease.id)])


def named(shared: Shared) -> str:
    """Who is to lead next, and is there; nobody in particular: empty."""
    entry = shared.get(shared.heir_key)
    return name if entry and (name := entry.value.decode()) in present(shared) else ""


def roomy(shared: Shared, us: str) -> list[str]:
    """Other nodes whose disks take more."""
    return [name for name, about in present(shared).items() if name != us and about.get("has_room")]


def status_rows(
    shared: Shared, name: str, cluster: str, epoch: int, clients: list[Etcd]
) -> Iterator[tuple[str, Any]]:
    """What STATUS tells beside the daemon's own."""
    yield "cluster", cluster
    yield "node", name
    yield "role", "leader" if epoch else "standby"
    yield "epoch", epoch or None
    try:
        found = rows(shared)
        others = [row for row in found if row[1] == "standby"]
        leads = next((row for row in found if row[1] == "leader"), None)
        yield "leader", f"{leads[0]} {leads[2]}" if leads else "none"
        yield "standbys", len(others)
        yield "behind", max((row[6] for row in others), default=0)
    except (Unreachable, EtcdError):
        yield "leader", "unknown"
    yield "etcd", ask_members(clients).text
