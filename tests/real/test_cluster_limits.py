"""Several daemons on a real etcd where something is full, or too long: nothing is lost, and others lead."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from cronflowd.daemon import roster
from cronflowd.journal.files import journal_dir, list_segments
from cronflowd.journal.shared import ask_members, make_room, put
from tests.real.clusters import Etcds, Node, StartNode
from tests.real.running import PATIENCE_S, Daemon, fill, wait_until

FEW = ("--output-copied", "1K", "--heartbeat", "20s")  # the worker below shows no life


@pytest.mark.long
def test_room_is_made_in_etcd_before_it_takes_nothing_any_more(tmp_path: Path) -> None:
    """Its quota is what ends a cluster that nobody looks after."""
    quota = 48 << 20
    small = Etcds(tmp_path, 1, "--quota-backend-bytes", str(quota))
    try:
        shared = small.shared()
        while not (before := ask_members([small.client])).is_scarce:
            for _ in range(5):
                shared.transact([], [put(b"x", os.urandom(500_000))])
        assert (before.quota, before.text[:6]) == (quota, "ok 1/1")
        make_room(shared, [small.client])
        after = ask_members([small.client])
        assert (after.is_scarce, after.size < before.size // 4) == (False, True)
    finally:
        small.close()


def test_a_leader_whose_disk_is_full_lets_another_lead(start_node: StartNode, small: Path) -> None:
    """Orders go on; and when there is room again, it has what came meanwhile."""
    one = start_node("a", data=str(small / "data"))
    wait_until(lambda: one.leads)
    other = start_node("b")
    wait_until(lambda: len(one.ask("NODES")) == 3)
    ballast = fill(small)
    number = 0
    while one.leads:  # until what was set aside is used up
        number += 1
        with suppress(OSError):
            one.nc(*(f"ADD 0 0 1 1 * {'x' * 5000}" for _ in range(20)))
        assert number < 300
    wait_until(lambda: other.leads)
    assert other.ask("ADD name=more 0 0 1 1 * true")[0].startswith("OK")
    ballast.unlink()
    wait_until(lambda: "more" in one.nc("LOCAL", "LIST name=more"))


@pytest.mark.long
def test_a_state_that_is_too_long_for_etcd_goes_from_node_to_node(
    start_node: StartNode, start_daemon: Callable[..., Daemon], etcds: Etcds
) -> None:
    """A journal of a million tasks becomes a cluster, too; it did not start (78), nor could others join."""
    single = start_daemon()
    single.ask(*(f"ADD name=t{number} 0 0 1 1 * {'x' * 1000}" for number in range(40)))
    single.stop()
    nodes = [
        start_node("a", "--segment", "4K", data=str(single.data), run=False),
        start_node("b", "--segment", "4K", run=False),
    ]
    for node in nodes:
        node.module = "tests.lib.small_states"
        node.start()
        wait_until(lambda: nodes[0].leads)
    one, other = nodes
    wait_until(lambda: other.ask("LOCAL", "LIST")[-1].startswith("OK 40 "))
    for word in "abcdef":  # so much that a checkpoint is made
        one.ask(*(f"SET t{number} command={word * 500}" for number in range(40)))
    wait_until(lambda: "stands on nodes alone" in one.log.read_text())
    one.ask("ADD name=last 0 0 1 1 * true")
    third = start_node("c", run=False)
    third.module = "tests.lib.small_states"
    third.start()
    wait_until(lambda: third.ask("LOCAL", "LIST")[-1].startswith("OK 41 "))
    assert list_segments(journal_dir(third.data))[0][0] > 1
    for node in (one, other):
        node.kill9()
        etcds.end_lease(node)
    wait_until(lambda: third.leads)
    assert len(third.ask("LIST")) == 42


def run_long(node: Node, run: int) -> list[str]:
    """A run that writes much more than etcd is given, up to its ACK; what LOG shows of it."""
    rows = [f"{run}: {number} {'x' * 500}" for number in range(40)]
    with socket.create_connection(("127.0.0.1", node.worker_port), PATIENCE_S) as sock:
        lines = sock.makefile("r")
        sock.sendall(b"HELLO name=w1 slots=4 held=all\n")
        assert lines.readline().startswith("OK w1 ")
        assert node.ask("RUN long") == [f"OK {run}"]
        assert lines.readline().startswith(f"RUN {run} 1 ")
        sock.sendall("".join([f"OUT {run} 1 {row}\n" for row in rows] + [f"DONE {run} 1 0\n"]).encode())
        assert lines.readline() == f"ACK {run} 1\n"
    return [f"1\t{row}" for row in rows]


def run_copied(start_node: StartNode) -> tuple[Node, Node, list[str]]:
    """The leader, a standby that has all of a long run of it, and what that run wrote."""
    one = start_node("a", *FEW)
    wait_until(lambda: one.leads)
    other = start_node("b", *FEW)
    assert one.ask("ADD name=long 0 0 1 1 * x")[0].startswith("OK 1 ")
    rows = run_long(one, 1)
    wait_until(lambda: other.ask("LOCAL", "LOG 1")[1:-1] == rows)
    return one, other, rows


def test_what_a_job_wrote_outlives_the_leader_that_took_it(start_node: StartNode, etcds: Etcds) -> None:
    """etcd is given the beginning only; once the worker has its ACK, another node has the rest."""
    one, other, first = run_copied(start_node)
    wait_until(lambda: "output-uncopied\t0" in one.ask("STATUS"))
    shared = etcds.shared(one.cluster)
    assert len(b"".join(line for value in shared.fetch(1) for line in value)) < 10_000
    second = run_long(one, 2)
    wait_until(lambda: "output-uncopied\t0" in one.ask("STATUS"))  # the ACK waits for it, but only a second
    one.kill9()
    etcds.end_lease(one)
    wait_until(lambda: other.leads)
    assert other.ask("LOG 1", "LOG 2 tail=3") == [*first, "OK 40", *second[-3:], "OK 3"]


@pytest.mark.long
def test_what_only_a_dead_leader_had_of_an_output_is_told(start_node: StartNode, etcds: Etcds) -> None:
    """An ACK waits a second for a standby that stands still, not for ever."""
    other, one, first = run_copied(start_node)
    one.freeze()
    second = run_long(other, 2)
    uncopied = next(row for row in other.ask("STATUS") if row.startswith("output-uncopied"))
    assert int(uncopied.split("\t")[1]) > 15_000
    other.kill9()
    etcds.end_lease(other)
    one.thaw()
    wait_until(lambda: one.leads)
    known = one.ask("LOG 2")
    bytes_kept = sum(len(row) - 1 for row in known[:-2])
    lacking = sum(len(row) - 1 for row in second) - bytes_kept
    assert known == [
        *second[: len(known) - 2],
        f"0\t{lacking} bytes are on node a only",
        f"OK {len(known) - 1}",
    ]
    assert one.ask("LOG 1") == [*first, "OK 40"]
    other.start()
    wait_until(lambda: one.ask("LOG 2") == [*second, "OK 40"])


def test_a_standby_whose_disk_is_full_holds_nobody_up(
    start_node: StartNode, etcds: Etcds, small: Path
) -> None:
    """Orders go on without it; and when there is room again it has them all, and may lead."""
    one = start_node("a")
    wait_until(lambda: one.leads)
    other = start_node("b", data=str(small / "data"))
    wait_until(lambda: len(one.ask("NODES")) == 3)
    ballast = fill(small)
    number = 0
    while "disk\tfull" not in other.nc("LOCAL", "STATUS"):
        number += 1
        assert one.ask(*(f"ADD 0 0 1 1 * {'x' * 5000}" for _ in range(20)))[-1].startswith("OK")
        assert number < 300
    shared = etcds.shared(one.cluster)
    wait_until(lambda: not roster.present(shared)["b"]["has_room"])  # nobody hands over to it

    def is_behind() -> bool:
        return int(dict(row.split("\t") for row in one.ask("STATUS")[:-1])["behind"]) > 0

    # Where it is full for a long record there may be room for a short one.
    wait_until(lambda: one.ask(f"ADD 0 0 1 1 * {'x' * 5000}")[0].startswith("OK") and is_behind())
    assert one.ask("ADD name=last 0 0 1 1 * true")[0].startswith("OK")
    ballast.unlink()
    wait_until(lambda: "last" in other.nc("LOCAL", "LIST name=last"))
    one.kill9()
    etcds.end_lease(one)
    wait_until(lambda: other.leads)
    assert other.ask("LIST name=last")[-1].startswith("OK 1")
