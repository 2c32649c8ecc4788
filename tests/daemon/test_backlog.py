"""A node that joins with a state alone gets the past, too: history and long output, in the background."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest
import trio

from cronflowd.daemon import peers
from cronflowd.daemon.peers import Backlog, Copies, Peer
from cronflowd.engine import facts as f
from cronflowd.journal import apart, compaction, gaps, history, index
from cronflowd.journal.files import journal_dir, list_history, list_segments
from cronflowd.journal.gaps import Lacks
from cronflowd.journal.index import Index
from cronflowd.journal.shared_journal import JOINING, clear_unfinished, install
from tests.daemon.test_peers import SECRET, Leader, a_leader
from tests.lib.journal_driver import Life, compact, restarted, told
from tests.lib.waiting import until

ALL = 2**62


def live(life: Life, count: int) -> None:
    """Runs, some of them with long output."""
    for number in range(count):
        run = life.start(1)
        life.write(run, f"of {run}")
        if number % 4 == 0:
            write_apart(life, run)
        life.end(run)
        life.commit()


def write_apart(life: Life, run: int) -> None:
    line = b'%d [[1,"%b"]]' % (life.journal.last + 1, b"x" * 999)
    life.say(f.OutputReceived(run, 1, [], 0, 1000, None, (1000, zlib.crc32(line), "a")))
    apart.append(journal_dir(life.data), run, [line])


def everything(data: Path, runs: int) -> list[Any]:
    """What RUNS, AUDIT and LOG tell of the past, the oldest first."""
    rows = list(history.outcomes(data, ALL, lambda _: True))
    outputs = [history.output(data, run + 1) for run in range(runs)]
    return [rows[::-1], list(history.deeds(data, ALL, None))[::-1], outputs]


def compare(life: Life, data: Path) -> None:
    """Up to where the other one's records go."""
    theirs = everything(data, 60)
    ours = [part[: len(theirs[at])] for at, part in enumerate(everything(life.data, 60))]
    assert (theirs, min(map(len, theirs)) > 0, len(theirs[0]) >= 60) == (ours, True, True)


@pytest.fixture
def life(tmp_path: Path) -> Life:
    """Of the node that leads."""
    one = Life(tmp_path / "a", 3000)
    one.join()
    one.add_task(keep="1000")
    live(one, 40)
    return one


async def join(life: Life, leader: Leader, data: Path, last: int = 0) -> None:
    """As a node does whose directory ends at the record `last`."""

    def fetch() -> None:
        leader.journal.open_segment = life.journal.open_segment
        with closing(Peer(leader.address, SECRET, "b")) as peer:
            upto, chunks, lines = peer.state()
            install(data, upto, chunks, lines, last)

    await trio.to_thread.run_sync(fetch)


async def fetch_past(
    lacks: Lacks, leader: Leader, is_done: Callable[[], object], journal: Any = None
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            Backlog(lacks, "b", journal or cast(Any, None)).run, lambda: leader.address, SECRET
        )
        await until(is_done)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("how", ["at once", "both compacted meanwhile"])
async def test_who_joins_with_a_state_alone_becomes_a_full_copy(life: Life, tmp_path: Path, how: str) -> None:
    """Else HISTORY, RUNS and LOG of all that was before would be gone when it leads one day."""
    compact(life.data)
    live(life, 20)
    compact(life.data)
    live(life, 20)
    lacks, here = Lacks(tmp_path / "b"), journal_dir(tmp_path / "b")
    async with a_leader(tmp_path / "a") as leader:
        await join(life, leader, tmp_path / "b")
        (first, last), *others = gaps.gaps(here)
        assert (first, others) == (1, [])
        assert last == list_segments(here)[0][0] - 1
        lacks.look_back()
        assert lacks.words().startswith(f"history of records 1 to {last}, output of ")
        assert gaps.remarks(tmp_path / "b", 1, Index()) == [(0, {"code": "history-apart", "last": last})]
        if how == "both compacted meanwhile":
            live(life, 20)
            compact(life.data)
            await trio.to_thread.run_sync(compaction.compact, here, 10**9)
            assert gaps.gaps(here) == [(1, last)], "nobody takes it for a past without events"
        await fetch_past(lacks, leader, lambda: lacks.words() == "nothing")
    assert gaps.remarks(tmp_path / "b", 10**6, Index()) == []
    compare(life, tmp_path / "b")
    _, journal = restarted(tmp_path / "b")
    live(life, 1)
    compaction.compact(here, 10**9)
    compare(life, tmp_path / "b")
    assert [file.first for file in list_history(here)][:1] == [1]
    journal.close()
    life.close()


@pytest.mark.parametrize("how", ["one gives it", "two give it", "there is no room at first"])
async def test_a_leader_is_given_the_past_that_it_lacks(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """It fetches from nobody: as long as it led RUNS and LOG of all that was before were gone."""
    monkeypatch.setattr(peers, "LOOK_S", 0.01)
    monkeypatch.setattr(compaction, "MAX_PIECE_BYTES", 6000)  # several files
    compact(life.data)
    live(life, 20)
    compact(life.data)
    live(life, 20)
    async with a_leader(tmp_path / "a") as one:
        await join(life, one, tmp_path / "b")
    here = journal_dir(tmp_path / "b")
    ((_, last),) = gaps.gaps(here)
    lacks = Lacks(tmp_path / "a")
    rooms = iter([0] * (how == "there is no room at first"))
    monkeypatch.setattr(peers, "disk_usage", lambda _: SimpleNamespace(free=next(rooms, 1 << 40)))
    async with a_leader(tmp_path / "b") as leader, trio.open_nursery() as nursery:
        nursery.start_soon(Copies(lacks, "a").run, lambda: leader.address, SECRET)
        await fetch_past(lacks, leader, lambda: leader.lacks.words() == "nothing", life.journal)
        if how == "two give it":
            files = list_history(here)
            peer = await trio.to_thread.run_sync(Peer, leader.address, SECRET, "c")
            given = Backlog(lacks, "c", life.journal)
            with closing(peer):
                await trio.to_thread.run_sync(given._give, peer, leader.journal.form, 100, last - 1)
            assert list_history(here) == files, "no record stands there twice"
        nursery.cancel_scope.cancel()
    assert next(rooms, None) is None
    compare(life, tmp_path / "b")
    life.close()


async def test_each_file_is_fetched_once_whatever_breaks(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gigabyte would never come over a link that breaks each minute."""
    monkeypatch.setattr(compaction, "MAX_PIECE_BYTES", 3000)
    monkeypatch.setattr(peers, "LOOK_S", 0.01)
    compact(life.data)
    asked, ask, breaks = list[str](), Peer.ask, {3, 4, 8}

    def asking(peer: Peer, question: str, data: bytes = b"") -> bytes:
        asked.append(question)
        if question.startswith("PAST") and len([each for each in asked if each.startswith("PAST")]) in breaks:
            peer._sock.close()
        return ask(peer, question, data)

    monkeypatch.setattr(Peer, "ask", asking)
    lacks, here = Lacks(tmp_path / "b"), journal_dir(tmp_path / "b")
    async with a_leader(tmp_path / "a") as leader:
        await join(life, leader, tmp_path / "b")
        await fetch_past(lacks, leader, lambda: lacks.words() == "nothing")
    past = [question for question in asked if question.startswith("PAST")]
    assert len(past) == len(set(past)) + len(breaks)
    assert len(list_history(here)) == len(set(past)) > 4
    assert not list(here.glob("*fetched*"))
    life.close()


async def test_what_a_damaged_disk_gives_is_not_taken_for_the_past(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It would be sealed anew, and vouched for."""
    monkeypatch.setattr(peers, "LOOK_S", 0.01)
    compact(life.data)
    (file,) = list_history(journal_dir(tmp_path / "a"))
    whole = file.path.read_bytes()
    file.path.write_bytes(whole.replace(b'"ok"', b'"no"', 1))
    lacks, here = Lacks(tmp_path / "b"), journal_dir(tmp_path / "b")
    with caplog.at_level("INFO"):
        async with a_leader(tmp_path / "a") as leader:
            await join(life, leader, tmp_path / "b")
            await fetch_past(lacks, leader, lambda: "a line whose CRC is wrong" in caplog.text)
            assert (list_history(here), len(gaps.gaps(here))) == ([], 1)
            file.path.write_bytes(whole)
            await fetch_past(lacks, leader, lambda: not gaps.gaps(here))
    life.close()


async def test_a_change_of_the_leader_reads_nothing_of_the_past(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All history was read for each, a gigabyte maybe, while somebody is to take over."""
    monkeypatch.setattr(peers, "LOOK_S", 0.01)
    lacks = Lacks(tmp_path / "a")
    lacks.look_back()
    looks = Mock(side_effect=history._lines_before)
    monkeypatch.setattr(history, "_lines_before", looks)
    leads = list[Any]()
    copies = Copies(lacks, "b")
    async with (
        a_leader(tmp_path / "b") as one,
        a_leader(tmp_path / "c") as other,
        trio.open_nursery() as nursery,
    ):
        for each in copies, Backlog(lacks, "b", cast(Any, None)):
            nursery.start_soon(each.run, lambda: leads[-1].address if leads else None, SECRET)
        for leader in one, other, one:
            leads.append(leader)
            await until(lambda: leads[-1].peers._standbys == 1)
        nursery.cancel_scope.cancel()
    assert not looks.called
    life.close()


async def test_a_disk_that_is_nearly_full_is_left_to_what_comes(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A standby that fills its own disk with the past cannot take new records, and nobody could hand over."""
    monkeypatch.setattr(peers, "LOOK_S", 0.01)
    compact(life.data)
    rooms = iter([0, peers.MARGIN_BYTES])
    monkeypatch.setattr(peers, "disk_usage", lambda _: SimpleNamespace(free=next(rooms, 1 << 40)))
    lacks = Lacks(tmp_path / "b")
    with caplog.at_level("INFO"):
        async with a_leader(tmp_path / "a") as leader:
            await join(life, leader, tmp_path / "b")
            await fetch_past(lacks, leader, lambda: lacks.words() == "nothing")
    assert caplog.text.count("the disk's room is left to what comes") == 1
    assert next(rooms, None) is None
    life.close()


@pytest.mark.parametrize("is_killed", [False, True])
async def test_who_was_far_behind_keeps_what_it_had_and_fetches_what_is_between(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_killed: bool
) -> None:
    """Its last segment would stand for all that it missed."""
    compact(life.data)
    live(life, 3)
    shutil.copytree(tmp_path / "a" / "journal", tmp_path / "b" / "journal")
    state, journal = restarted(tmp_path / "b")
    last = journal.last
    journal.close()
    live(life, 30)
    compact(life.data)
    live(life, 30)
    compact(life.data)
    lacks, here = Lacks(tmp_path / "b"), journal_dir(tmp_path / "b")
    async with a_leader(tmp_path / "a") as leader:
        if is_killed:
            before = everything(tmp_path / "b", 60)
            with monkeypatch.context() as killed:
                killed.setattr(Path, "unlink", Mock(side_effect=EOFError))
                with pytest.raises(EOFError):
                    await join(life, leader, tmp_path / "b", last)
            assert (tmp_path / "b" / JOINING).exists()
            clear_unfinished(tmp_path / "b")
            assert everything(tmp_path / "b", 60) == before
            again, journal = restarted(tmp_path / "b")
            assert (told(again), journal.last) == (told(state), last)
            journal.close()
        await join(life, leader, tmp_path / "b", last)
        assert gaps.gaps(here) == [(last + 1, list_segments(here)[0][0] - 1)]
        fetched = [file.last for file in list_history(here)]
        assert fetched[-1] == last
        await fetch_past(lacks, leader, lambda: lacks.words() == "nothing")
    compare(life, tmp_path / "b")
    life.close()


async def test_what_is_older_than_a_gap_waits_for_what_stands_there(life: Life, tmp_path: Path) -> None:
    """A run that began before it has its end there: its output, and its first attempts, were dropped."""
    compact(life.data)
    run = life.start(1)
    life.write(run, "of a run whose end was missed")
    write_apart(life, run)
    life.commit()
    shutil.copytree(tmp_path / "a" / "journal", tmp_path / "b" / "journal")
    _, journal = restarted(tmp_path / "b")
    last = journal.last
    journal.close()
    life.end(run)
    live(life, 30)
    compact(life.data)
    lacks, here = Lacks(tmp_path / "b"), journal_dir(tmp_path / "b")
    async with a_leader(tmp_path / "a") as leader:
        await join(life, leader, tmp_path / "b", last)
        assert gaps.gaps(here)[0][0] == last + 1
        compaction.compact(here, 10**9)
        await fetch_past(lacks, leader, lambda: not gaps.gaps(here))
    compaction.compact(here, 10**9)
    for data in tmp_path / "a", tmp_path / "b":
        (first, apart_line) = history.output(data, run)[:2]
        assert (first[1], len(apart_line[1])) == ("of a run whose end was missed", 999)
    life.close()


async def test_a_gap_is_still_known_where_a_second_join_was_killed(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was before it became a segment again, which stood for all that is missing: nobody fetched it."""
    compact(life.data)
    live(life, 3)
    shutil.copytree(tmp_path / "a" / "journal", tmp_path / "b" / "journal")
    here, known = journal_dir(tmp_path / "b"), list[Any]()
    async with a_leader(tmp_path / "a") as leader:
        for _ in range(2):
            _, journal = restarted(tmp_path / "b")
            last = journal.last
            journal.close()
            live(life, 30)
            compact(life.data)
            with monkeypatch.context() as killed, suppress(EOFError):
                if known:
                    killed.setattr(Path, "unlink", Mock(side_effect=EOFError))
                await join(life, leader, tmp_path / "b", last)
            if not known:
                known = gaps.gaps(here)
    assert known
    assert (tmp_path / "b" / JOINING).exists()
    clear_unfinished(tmp_path / "b")
    assert gaps.gaps(here) == known
    life.close()


def test_what_is_lacking_is_looked_for_by_the_index(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a million runs a node would read a gigabyte, and take over from one that has gone meanwhile."""
    compact(life.data)
    live(life, 10)
    read, line_at = list[int](), index._line_at

    def counted(at: int, offset: int) -> bytes:
        read.append(offset)
        return line_at(at, offset)

    monkeypatch.setattr(index, "_line_at", counted)
    here = journal_dir(tmp_path / "a")
    damaged = apart.path_of(here, 9)
    damaged.write_bytes(damaged.read_bytes().replace(b"xx", b"xy", 1))
    apart.remove(here, [5])
    lacks = Lacks(tmp_path / "a")
    lacks.look_back()
    assert (lacks.runs, lacks.looks, lacks.words()) == ({5, 9}, 1, "output of 2 runs")
    assert len(read) == 50 // 4 + 1 + 2 * 3, "of those two all that is about them"
    life.close()
