"""Several daemons on a real etcd: one decides and nothing acknowledged is lost, whatever is killed."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from signal import SIGKILL

import orjson
import pytest

from cronflowd.daemon.sealed import introduce
from cronflowd.engine.facts import FACTS_VERSION
from cronflowd.host.tls import client_context, make_certificates
from cronflowd.journal.files import journal_dir, list_segments
from tests.lib.ports import free_ports
from tests.real.clusters import Etcds, Node, StartNode, Wire, ask_until, leader_of
from tests.real.running import PATIENCE_S, ROOT, Daemon, wait_until
from tests.real.test_sign_in import JOHN, ask

SHORT = ("--leader-lease", "3s")  # of who waits for its end


def names_in(rows: list[str]) -> list[str]:
    return [row.split("\t")[1] for row in rows[:-1]]


def records_of(data: Path) -> list[bytes]:
    """The lines of a journal, without the headers of its files."""
    paths = [path for _, path in list_segments(journal_dir(data))]
    return [line for path in paths for line in path.read_bytes().splitlines()[1:]]


def test_any_node_takes_any_line_and_none_is_lost(start_node: StartNode, etcds: Etcds) -> None:
    """The whole of it: two doors, one set of tasks, a leader that is killed, and one that comes back."""
    one = start_node("a")
    wait_until(lambda: one.leads)
    other = start_node("b")
    assert other.said == [("standby", f"127.0.0.1:{one.port}")]
    assert one.ask("ADD name=first 0 0 1 1 * true")[0].startswith("OK 1 first ")
    assert other.ask("ADD name=second 0 0 1 1 * true", "PING")[1] == "PONG"
    assert names_in(other.ask("LIST")) == ["first", "second"]
    wait_until(lambda: len(other.ask("LOCAL", "LIST")) == 4)  # its copy comes a moment later
    rows = other.ask("LOCAL", "LIST", "ADD 0 0 1 1 * true", "QUIT")
    assert (rows[0], names_in(rows[1:4])) == ("OK standby", ["first", "second"])
    assert re.fullmatch(r"OK 2 stale=\d\.\d behind=0", rows[3])
    assert rows[4:] == [f"ERR not-leader 127.0.0.1:{one.port} leads; only who does takes this", "OK bye"]

    days = "".join(f"{datetime.now(UTC).year + each}-01-01\n" for each in range(1, 4))
    (one.data / "closed.txt").write_text(days)  # the other machine has no such file
    assert one.ask("SET first skip=file:closed.txt") == ["OK 1 rev=2"]
    wait_until(lambda: "skipped-by-calendar" in other.ask("LOCAL", "NEXT first n=1")[1])

    epoch = one.epoch
    one.kill9()
    etcds.end_lease(one)
    wait_until(lambda: other.leads)
    assert "skipped-by-calendar" in other.ask("NEXT first n=1")[0]
    assert other.ask("ADD name=third 0 0 1 1 * true")[0].startswith("OK 3")
    assert other.epoch > epoch
    one.start()
    assert names_in(one.ask("LIST")) == ["first", "second", "third"]
    assert one.said == [("standby", f"127.0.0.1:{other.port}")]
    for _ in range(3):  # each writes its tasks.db when it stops, and the cluster remembers two
        other.ask("SAVE")
    other.stop()
    wait_until(lambda: one.leads)
    assert records_of(other.data) == records_of(one.data)[: len(records_of(other.data))]
    for _ in range(3):
        one.ask("ADD 0 0 1 1 * true", "SAVE")
    other.start()
    one.stop()
    wait_until(lambda: other.leads)
    assert "tasks.db\tok" in other.ask("STATUS"), "what another leader wrote since was no edit by hand"


def test_a_leader_that_stood_still_answers_nothing(start_node: StartNode) -> None:
    """It does not know how long it slept: what it would say may be false by now."""
    one = start_node("a", *SHORT)
    wait_until(lambda: one.leads)
    assert one.ask("ADD name=first 0 0 1 1 * true")[0].startswith("OK")
    other = start_node("b")
    wait_until(lambda: names_in(other.ask("LOCAL", "LIST")[1:]) == ["first"])
    with one.connect() as client:
        client.sendall(b"HELLO\n")
        assert client.recv(100).startswith(b"OK")
        pid = one.pid
        one.freeze()
        wait_until(lambda: other.leads)
        assert other.ask("REMOVE first") == ["OK 1 removed"]
        client.sendall(b"LIST\nADD name=late 0 0 1 1 * true\n")
        one.thaw()
        with suppress(ConnectionResetError):
            assert client.recv(100) == b""
    wait_until(lambda: one.said[-1][0] == "standby")
    assert (one.pid, one.ask("LIST")) == (pid, ["OK 0"])


def test_a_leader_that_ends_hands_over(start_node: StartNode) -> None:
    """At once: whoever updates a machine does not wait for a lease; this one outlasts the test's patience."""
    one = start_node("a", "--leader-lease", "60s")
    wait_until(lambda: one.leads)
    other = start_node("b")
    wait_until(lambda: other.ask("LIST") == ["OK 0"])
    assert one.stop() == 0
    wait_until(lambda: other.leads)


def test_a_journal_becomes_the_cluster(start_node: StartNode, start_daemon: Callable[..., Daemon]) -> None:
    """Its tasks, its ids, its record numbers; and then it is no single daemon's any more."""
    single = start_daemon()
    assert single.ask("ADD name=old 0 0 1 1 * true", "ADD name=gone 0 0 1 1 * true", "REMOVE gone")[-1]
    single.stop()
    before = records_of(single.data)
    one = start_node("a", data=str(single.data))
    wait_until(lambda: one.leads)
    other = start_node("b")
    assert other.ask("ADD name=new 0 0 1 1 * true")[0].startswith("OK 3 new")
    wait_until(lambda: names_in(other.ask("LOCAL", "LIST")[1:]) == ["old", "new"])
    one.stop()
    assert records_of(one.data)[: len(before)] == before
    assert "belongs to the cluster" in single.start_and_fail()[1]


def test_who_cannot_belong_is_told_why(start_node: StartNode, start_daemon: Callable[..., Daemon]) -> None:
    """A start that would mix two sets of tasks, or two zones, ends with 78 and both names."""
    one = start_node("a")
    wait_until(lambda: one.leads)
    status, said = start_node("b", "--tz", "Europe/Berlin", run=False).start_and_fail()
    assert (status, "node b has --tz Europe/Berlin, and node a began" in said) == (78, True)
    status, said = start_node("a", data="another", run=False).start_and_fail()
    assert (status, "have the same --node" in said) == (78, True)
    single = start_daemon()
    assert single.ask("ADD name=other 0 0 1 1 * true")
    single.stop()
    stranger = start_node("c", data=str(single.data), run=False)
    status, said = stranger.start_and_fail()
    assert (status, "another history" in said) == (78, True)
    stranger.flags += ("--rejoin",)
    stranger.start()
    wait_until(lambda: len(stranger.said) == 2)  # it has begun anew, without its journal
    wait_until(lambda: stranger.ask("LOCAL", "LIST")[-1].startswith("OK 0 stale="))
    assert (single.data / "journal.aside").exists()


def test_plain_text_beyond_this_machine_is_refused(tmp_path: Path) -> None:
    """Whoever listens on the way would read every task, and could write them."""
    daemon = Daemon(tmp_path / "data", "--etcd", "192.0.2.1:2379")
    status, said = daemon.start_and_fail()
    assert (status, "plain text" in said) == (77, True)


def test_an_etcd_that_knows_less_than_a_node_is_no_cluster(start_node: StartNode, etcds: Etcds) -> None:
    """It was restored: what has been acknowledged since would be gone without a word."""
    one = start_node("a")
    wait_until(lambda: one.leads)
    one.ask("ADD name=first 0 0 1 1 * true")
    one.stop()
    shared = etcds.shared(one.cluster)
    last = shared.last()
    shared.delete(shared.record_key(last))
    one.process = None
    status, said = one.start_and_fail()
    assert (status, f"knows record {last}, and etcd only record {last - 1}" in said) == (65, True)
    # Who knows nothing of that does not lead, either.
    status, said = start_node("b", run=False).start_and_fail()
    assert (status, f"node a knows record {last}, and etcd only record {last - 1}" in said) == (65, True)


def test_a_standby_looks_again_before_it_leads(start_node: StartNode, etcds: Etcds) -> None:
    """While it was cut off etcd may have been restored: to lead would drop what has been acknowledged."""
    one = start_node("a")
    wait_until(lambda: one.leads)
    other = start_node("b")
    one.ask("ADD name=first 0 0 1 1 * true")
    wait_until(lambda: names_in(other.ask("LOCAL", "LIST")[1:]) == ["first"])
    other.freeze()
    one.kill9()
    etcds.end_lease(one)
    shared = etcds.shared(one.cluster)
    last = shared.last()
    shared.delete(shared.record_key(last))
    other.thaw()
    assert other._ended() == 65
    assert f"knows record {last}, and etcd only record {last - 1}" in other.log.read_text()
    assert {role for role, _ in other.said} == {"standby"}


def test_an_empty_directory_begins_with_the_newest_state(start_node: StartNode, etcds: Etcds) -> None:
    """etcd keeps no more records than it must, and no less: what is gone there stands in a snapshot."""
    one = start_node("a", "--segment", "4K")
    wait_until(lambda: one.leads)
    wide = "x" * 500
    one.ask(*(f"ADD name=t{number} 0 0 1 1 * echo {wide}" for number in range(40)))
    shared = etcds.shared(one.cluster)
    for number in range(60):
        if shared.snapshot_upto():
            break
        one.ask(f"SET t1 command={number}{wide}")
    wait_until(lambda: not shared.range(shared.record_key(1)))
    other = start_node("b")
    wait_until(lambda: other.ask("LOCAL", "LIST", "QUIT")[-2].startswith("OK 40 "))
    assert list_segments(journal_dir(other.data))[0][0] > 1
    wait_until(lambda: "lacking\tnothing" in other.ask("LOCAL", "STATUS"))
    known = [row for row in one.ask("AUDIT limit=1000") if "\tADD\t" in row]
    one.stop()
    wait_until(lambda: other.leads)
    assert len(other.ask("LIST")) == 41
    assert [row for row in other.ask("AUDIT limit=1000") if "\tADD\t" in row] == known
    assert len(known) == 40


def test_without_a_quorum_nobody_leads(start_node: StartNode, tmp_path: Path) -> None:
    """And with it the same tasks are there again, without anybody's help."""
    three = Etcds(tmp_path, 3)
    try:
        nodes = [start_node(name, *SHORT, on=three) for name in "ab"]
        leader = leader_of(nodes)
        assert leader.ask("ADD name=first 0 0 1 1 * true")[0].startswith("OK")
        three.kill(0)
        ask_until(nodes, "ADD name=second 0 0 1 1 * true", lambda text: text.startswith(("OK", "ERR exists")))
        three.kill(1)
        wait_until(lambda: not any(node.leads for node in nodes))
        for node in nodes:
            assert node.ask("ADD name=third 0 0 1 1 * true", "PING")[0].startswith("ERR not-leader none ")
        three.start(0)
        leader = leader_of(nodes)
        assert names_in(leader.ask("LIST")) == ["first", "second"]
    finally:
        three.close()


def test_a_stranger_cannot_claim_to_be_a_node(start_node: StartNode) -> None:
    """Whoever is introduced by a node is believed to be whom it says, its own root for one."""
    one = start_node("a")
    wait_until(lambda: one.leads)
    with socket.create_connection(("127.0.0.1", one.port)) as client:
        client.sendall(b"RELAY unix unix:pid=1,uid=0 1795971433 " + b"0" * 64 + b"\nLIST\n")
        with suppress(ConnectionResetError):
            assert client.recv(100) == b""


def test_whoever_was_carried_to_a_node_that_leads_no_more_is_answered_once(
    start_node: StartNode, etcds: Etcds
) -> None:
    """Not with a refusal of what the node said first: whoever takes that for his gives his order again."""
    one = start_node("a")
    wait_until(lambda: one.leads)
    other = start_node("b")
    wait_until(lambda: other.ask("LOCAL", "STATUS")[-1].endswith("behind=0"))
    shared = etcds.shared(one.cluster)
    entry = shared.get(shared.cluster_key)
    assert entry
    secret = orjson.loads(entry.value)["secret"].encode()

    def carried_there() -> bytes:
        with socket.create_connection(("127.0.0.1", other.port)) as carried:
            carried.sendall(introduce(secret, "tcp", "192.0.2.7:1") + b"ADD name=n 0 0 1 1 * true\nPING\n")
            carried.shutdown(socket.SHUT_WR)
            return carried.makefile("rb").read()

    assert re.fullmatch(rb"ERR not-leader none [^\n]*nothing was changed\n", carried_there())
    assert one.ask("LIST") == ["OK 0"]


def test_nodes_are_shown_and_one_is_told_to_lead(start_node: StartNode, etcds: Etcds) -> None:
    """Whoever works on a machine moves the leader first, and sees where it went."""
    nodes = [start_node("a")]
    wait_until(lambda: nodes[0].leads)
    nodes += [start_node("b"), start_node("c")]
    wait_until(lambda: len(nodes[0].ask("NODES")) == 4)
    columns = [row.split("\t") for row in nodes[1].ask("NODES")[:-1]]
    assert [row[:3] for row in columns] == [
        ["a", "leader", f"127.0.0.1:{nodes[0].port}"],
        ["b", "standby", f"127.0.0.1:{nodes[1].port}"],
        ["c", "standby", f"127.0.0.1:{nodes[2].port}"],
    ]
    assert nodes[0].ask("STEPDOWN d")[0].startswith("ERR not-found")
    local = nodes[0].ask("LOCAL", "LIST", "RUNS", "PING", "STATUS", "QUIT")
    assert (*local[:4], local[-2]) == (
        "OK leader",
        "OK 0 stale=0.0 behind=0",
        "OK 0 stale=0.0 behind=0",
        "PONG",
        "OK 0 tasks stale=0.0 behind=0",
    )
    for lines in (["PING", "LOCAL"], ["HELLO name=me", "LOCAL"]):  # whoever says OK is not who was dialled
        assert nodes[1].ask(*lines)[1].startswith("ERR syntax LOCAL is the first line")
    assert nodes[1].ask("STEPDOWN c") == ["OK c"]
    assert nodes[2].leads
    wait_until(lambda: not nodes[0].leads)  # while it begins anew it closes who comes
    assert nodes[0].ask("STEPDOWN a") == ["OK a"], "also by way of the node that is to lead"
    assert nodes[0].ask("STEPDOWN c") == ["OK c"]
    wait_until(lambda: not nodes[0].leads)
    status = dict(row.split("\t") for row in nodes[0].ask("STATUS")[:-1])
    assert (status["role"], status["node"], status["standbys"]) == ("leader", "c", "2")
    assert (status["epoch"], status["etcd"][:6]) == (str(nodes[2].epoch), "ok 1/1")
    nodes[1].kill9()
    etcds.end_lease(nodes[1])
    wait_until(lambda: "b\tgone\t" in nodes[0].nc("NODES"))
    nodes[0].stop()
    assert nodes[2].ask("STEPDOWN") == ["ERR busy no other node is there"]


def test_a_local_worker_goes_on_when_another_node_leads(start_node: StartNode) -> None:
    """Those of all nodes ended for it, and each new one took seconds to begin, and all its memory with it."""
    nodes = [start_node(name, "--local-worker", "2") for name in "ab"]
    ready = [f"{node.name}\tready\t" for node in nodes]
    wait_until(lambda: all(map(nodes[0].nc("WORKERS").__contains__, ready)))
    before = [node.children() for node in nodes]
    leader = next(node for node in nodes if node.leads)
    assert leader.ask("STEPDOWN")[0].startswith("OK ")
    wait_until(lambda: not leader.leads)
    wait_until(lambda: all(map(nodes[0].nc("WORKERS").__contains__, ready)))
    assert [node.children() for node in nodes] == before
    assert list(map(len, before)) == [1, 1]
    (kept,) = before[nodes.index(leader)]
    os.kill(kept, SIGKILL)
    wait_until(lambda: leader.children() not in ([], [kept]))  # who was kept is seen to end


def test_a_standby_asks_who_comes_too(start_node: StartNode, etcds: Etcds) -> None:
    """NODES tells addresses and releases: who may not see them at the leader may not here."""
    wire = Wire(etcds.clients[0])
    wire.cut()
    one = start_node("a", "--require-auth", on=wire)
    assert [answer.split()[1] for answer in one.ask("NODES", "LOCAL", "STATUS")] == [
        "auth-required", "standby", "auth-required",
    ]  # fmt: skip
    wire.close()


def test_nodes_speak_tls_with_whoever_comes(start_node: StartNode, tmp_path: Path) -> None:
    """Each with its own certificate, LOCAL too; STEPDOWN is answered, though by another process."""
    make_certificates(tmp_path / "tls", ["localhost"], datetime.now(UTC))
    files = [str(tmp_path / "tls" / name) for name in ("localhost.pem", "localhost.key", "ca.pem")]
    flags = ("--tls-cert", files[0], "--tls-key", files[1])
    one = start_node("a", *flags)
    wait_until(lambda: one.leads)
    other = start_node("b", *flags)
    wait_until(lambda: other.said == [("standby", f"127.0.0.1:{one.port}")])
    context = client_context(Path(files[2]), None, None)

    def ask(port: int, *lines: str) -> list[str]:
        """To the end, which TLS must have told of as well."""
        with (
            socket.create_connection(("localhost", port), PATIENCE_S) as plain,
            context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False) as sealed,
        ):
            sealed.sendall("".join(f"{line}\n" for line in lines).encode())
            return sealed.makefile().read().splitlines()

    assert ask(other.worker_port, "HELLO name=w1 slots=1") == [f"ERR not-leader 127.0.0.1:{one.worker_port}"]
    assert ask(other.port, "ADD name=n 0 0 1 1 * true", "QUIT")[0].startswith("OK 1 n ")
    assert ask(other.port, "LOCAL", "QUIT") == ["OK standby", "OK bye"]
    assert ask(one.port, "STEPDOWN b") == ["OK b"]
    wait_until(lambda: other.leads)


def test_jobs_of_a_start_are_the_clusters(start_node: StartNode) -> None:
    """@reboot fires once when the first node comes, and not when another one leads."""
    one = start_node("a", "--local-worker", "2")
    wait_until(lambda: one.leads)
    one.ask("ADD name=boot @reboot echo $CRONFLOW_RUN_ID")
    one.stop()
    one.start()
    wait_until(lambda: one.leads)
    one.until("RUNS boot", lambda text: "\tok\t" in text)
    other = start_node("b", "--local-worker", "2")
    wait_until(lambda: other.ask("WORKERS")[-1] == "OK 2")
    assert sorted(row.split("\t")[0] for row in other.ask("WORKERS")[:-1]) == ["a", "b"]
    assert one.ask("STEPDOWN") == ["OK b"]
    assert len(other.ask("RUNS boot")) == 2
    for node in (one, other):
        node.stop()
    for node in (one, other):  # all at once, as after a power cut: each finds the other there
        node.launch_and_listen()
    ask_until([one, other], "RUNS boot", lambda text: text.count("\tok\t") == 2)


def tool(node: Node, *words: str) -> subprocess.CompletedProcess[str]:
    """A command about a node's directory and its cluster."""
    etcd = node.flags[node.flags.index("--etcd") + 1]
    command = [sys.executable, "-m", "cronflowd", *words, "--etcd", etcd, "--cluster", node.cluster]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def leave(node: Node) -> subprocess.CompletedProcess[str]:
    return tool(node, "cluster", "leave", "--data", str(node.data))


def test_a_cluster_ends_and_one_directory_goes_on_alone(
    start_node: StartNode, start_daemon: Callable[..., Daemon]
) -> None:
    """The way back: with all that any node knew, and without a second life of the cluster."""
    one = start_node("a")
    wait_until(lambda: one.leads)
    other = start_node("b")
    assert other.ask("ADD name=first 0 0 1 1 * true")[0].startswith("OK 1")
    wait_until(lambda: names_in(other.ask("LOCAL", "LIST")[1:]) == ["first"])
    other.stop()
    assert one.ask("ADD name=second 0 0 1 1 * true")[0].startswith("OK 2")
    assert leave(other).returncode == 75
    one.stop()
    checked = tool(other, "check", str(other.data))
    assert (checked.returncode, "are still to come here" in checked.stdout) == (0, True), checked.stdout
    checked = tool(one, "check", str(one.data))
    assert (checked.returncode, f"; {len(records_of(one.data))} are the same here" in checked.stdout) == (
        0,
        True,
    )
    done = leave(other)
    assert (done.returncode, done.stdout) == (0, f"OK {len(records_of(one.data))}\n"), done.stderr
    assert records_of(other.data) == records_of(one.data)
    status, said = one.start_and_fail()
    assert (status, "was ended" in said) == (78, True)
    single = start_daemon(data=other.data)
    assert names_in(single.ask("LIST")) == ["first", "second"]


def test_who_was_forgotten_when_the_cluster_ended_does_not_lead_it(start_node: StartNode) -> None:
    """It stood still the whole time: every job would be started there, too."""
    one = start_node("a")
    wait_until(lambda: one.leads)
    other = start_node("b")
    wait_until(lambda: other.said == [("standby", f"127.0.0.1:{one.port}")])
    other.freeze()
    one.stop()
    assert leave(one).returncode == 0
    other.thaw()
    assert other._ended() == 78
    assert "was ended" in other.log.read_text()
    assert {role for role, _ in other.said} == {"standby"}


def test_nodes_are_upgraded_one_after_the_other(start_node: StartNode, etcds: Etcds) -> None:
    """What only the newer release knows waits until all know it, all else goes on; none older leads then."""
    one = start_node("a")
    wait_until(lambda: one.leads)
    newer = start_node("b", "--segment", "4K", run=False)
    newer.environment = {"PYTHONPATH": str(ROOT / "tests" / "lib" / "newer_release")}
    newer.start()
    wait_until(lambda: newer.ask("LOCAL", "STATUS")[-1].endswith("behind=0"))
    assert one.ask("STEPDOWN b") == ["OK b"]
    wait_until(lambda: not one.leads)
    titled = "ADD name=titled title=x 0 0 1 1 * true"
    assert newer.ask(titled)[0].startswith("ERR busy a node is older than title=")
    wide = "x" * 500
    newer.ask(*(f"ADD name=t{number} 0 0 1 1 * echo {wide}" for number in range(40)))
    shared = etcds.shared(one.cluster)
    wait_until(lambda: newer.ask(f"SET t1 command={os.urandom(250).hex()}") and shared.snapshot_upto())
    third = start_node("c")  # begins with the state that the newer one put there
    for node in (one, third):
        wait_until(lambda: node.ask("LOCAL", "LIST", "QUIT")[-2].startswith("OK 40 "))  # noqa: B023
        node.stop()
    assert newer.ask(titled)[0].startswith("ERR busy a node is older"), "who is gone may come back"
    for node in (one, third):
        node.environment = newer.environment
        node.start()
    ask_until([newer], titled, lambda text: text.startswith("OK 41 titled"))
    assert newer.ask("STEPDOWN a") == ["OK a"]
    third.stop()
    third.environment = {}
    status, said = third.start_and_fail()
    assert (status, f"this release knows form {FACTS_VERSION}" in said) == (70, True), said


def test_browsers_come_in_at_any_node(start_node: StartNode) -> None:
    """Whoever has a node's page open need not know who leads, nor sign in again at another one."""
    pytest.importorskip("litestar")
    nodes = [start_node("a")]
    wait_until(lambda: nodes[0].leads)
    nodes.append(start_node("b"))
    for node, port in zip(nodes, free_ports(2), strict=True):
        node.http_port = port
        node.flags += ("--http", f"127.0.0.1:{port}")
        node.restart()

    def is_ready(node: Node) -> bool:
        url = f"http://127.0.0.1:{node.http_port}/readyz"
        with suppress(OSError), urllib.request.urlopen(url, timeout=5) as page:
            return bool(page.status == 200)
        return False

    wait_until(lambda: all(map(is_ready, nodes)))
    status, made, _ = ask(nodes[0], "POST", "/api/v1/auth/register", JOHN)
    assert status == 201
    refresh = {"refreshToken": made["data"]["refreshToken"]}
    status, anew, _ = ask(nodes[1], "POST", "/api/v1/auth/refresh", refresh)
    assert status == 200
    assert [ask(node, "GET", "/api/v1/auth/me", token=anew["data"]["accessToken"])[0] for node in nodes] == [
        200, 200,
    ]  # fmt: skip


def test_a_leader_that_is_cut_off_from_etcd_lets_another_lead(start_node: StartNode, etcds: Etcds) -> None:
    """Clients and workers still reach it: it must not answer them, since another does."""
    wire = Wire(etcds.clients[0])
    one = start_node("a", *SHORT, on=wire)
    try:
        wait_until(lambda: one.leads)
        other = start_node("b")
        assert one.ask("ADD name=first 0 0 1 1 * true")[0].startswith("OK")
        with one.connect() as client:
            wire.cut()
            client.sendall(b"HELLO\nADD name=doubtful 0 0 1 1 * true\n")
            with suppress(ConnectionResetError):
                said = b"".join(iter(lambda: client.recv(4096), b""))
                assert b"doubtful" not in said
        wait_until(lambda: other.leads)
        assert one.ask("ADD name=nowhere 0 0 1 1 * true")[0].startswith("ERR not-leader none ")
        wire.mend()
        wait_until(lambda: len(one.ask("LIST")) > 1)  # by way of the other
        assert "nowhere" not in str(names_in(one.ask("LIST")))
    finally:
        wire.close()
