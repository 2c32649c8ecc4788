"""The journal keeps what it acknowledged, whatever the disk does."""

from __future__ import annotations

import os
import random
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cronflowd.base.errors import Exit, Fatal, Refusal
from cronflowd.engine import facts as f
from cronflowd.host.disk import lock_directory
from cronflowd.journal import journal as journal_module
from cronflowd.journal.journal import FileJournal, MemoryJournal
from cronflowd.journal.records import Corrupt, Header, Reader, journal_dir, list_segments, parse_header
from tests.lib.fake_etcd import FakeEtcd
from tests.lib.open_journal import NOW, PATIENCE_S, Committed, Open, only_segment, replay
from tests.lib.shared_driver import Leading
from tests.lib.simulated_disk import IO_ERROR, NO_SPACE, FaultyDisk, PowerDisk, error


def decision(number: int, size: int = 1) -> list[f.Fact]:
    """Facts that no other number has."""
    return [f.OutputReceived(number, part, [[0, f"line {number}.{part} é"]]) for part in range(size)]


# --- one suite for files, for memory, and for a node that leads ------------------------------


Restart = Callable[[], Any]


@pytest.fixture(params=["files", "memory", "etcd"])
def restart(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Restart]:
    """Gives a journal; called again, the one that a new process would find. Not replayed yet."""
    made: list[Any] = []
    etcd = FakeEtcd()

    def next_one() -> Any:
        before = made[-1] if made else None
        if before:
            before.close()
        if request.param == "files":
            made.append(FileJournal(tmp_path))
        elif request.param == "etcd":
            made.append(Leading(tmp_path, etcd))
        else:
            made.append(MemoryJournal(before.lines if before else ()))
        made[-1].notify = Committed()
        return made[-1]

    yield next_one
    made[-1].close()


def test_a_new_journal_is_empty(restart: Restart) -> None:
    """Numbers begin at 1, so 0 can mean nothing."""
    journal = restart()
    assert list(journal.replay()) == []
    assert (journal.last, journal.committed, journal.full, journal.set_aside) == (0, 0, False, "")


def test_what_was_appended_is_replayed_with_its_number_and_time(restart: Restart) -> None:
    """State after a start must be the state before it."""
    journal = restart()
    list(journal.replay())
    later = NOW + timedelta(microseconds=1)
    assert journal.append(decision(1, 2), NOW) == 2
    assert journal.append(decision(2), later) == 3
    first, second = decision(1, 2)
    expected = [(1, NOW, first), (2, NOW, second), (3, later, *decision(2))]
    journal = restart()
    assert expected == list(journal.replay())
    assert (journal.last, journal.committed) == (3, 3)
    assert journal.append(decision(3), later) == 4
    assert [*expected, (4, later, *decision(3))] == list(restart().replay())


def test_notify_tells_the_last_number_after_a_flush(restart: Restart) -> None:
    """This is what lets replies go."""
    journal = restart()
    list(journal.replay())
    last = journal.append(decision(1, 3), NOW)
    journal.flush()
    journal.notify.wait(last)
    assert journal.committed == 3
    journal.flush()
    assert journal.committed == 3


def test_nothing_is_committed_without_a_flush(restart: Restart) -> None:
    """The daemon decides how much shares one sync."""
    journal = restart()
    list(journal.replay())
    journal.append(decision(1), NOW)
    assert (journal.last, journal.committed) == (1, 0)


def test_closed_segments_are_forgotten_in_order(restart: Restart) -> None:
    """After a compaction the daemon says up to where."""
    journal = restart()
    list(journal.replay())
    Segment = journal_module.Segment
    journal.closed += [Segment(Path("a"), 1, 5, 10), Segment(Path("b"), 6, 9, 10)]
    journal.forget_closed(5)
    assert [segment.first for segment in journal.closed] == [6]
    journal.closed.clear()


def test_a_full_memory_journal_refuses_orders_and_takes_the_rest() -> None:
    """Daemon tests play a full disk this way."""
    journal = MemoryJournal()
    journal.full = True
    with pytest.raises(Refusal) as refused:
        journal.append([f.TaskResumed(None)], NOW)
    assert refused.value.code == "disk-full"
    assert journal.append(decision(1), NOW) == 1


# --- the file's form -----------------------------------------------------------------------


def test_lines_look_as_documented(tmp_path: Path) -> None:
    """People grep these files; the form is a promise."""
    with Open(tmp_path) as opened:
        opened.commit([f.RunStarted(41, 1), f.RunStarted(42, 1)])
    header, first, second = only_segment(tmp_path).read_bytes().splitlines()
    assert Header("segment", 1, 0) == parse_header(header)
    at = b'"at":"2026-11-21T10:00:00Z"'
    assert first.startswith(
        b'{"seq":1,' + at + b',"fact":"RunStarted","more":true,"run":41,"attempt":1,"batch":'
    )
    assert second.startswith(b'{"seq":2,' + at + b',"fact":"RunStarted","run":42,"attempt":1,"crc":"')


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    """Commands hold secrets more often than they should."""
    data = tmp_path / "new" / "data"
    os.umask(0)
    try:
        with Open(data) as opened:
            opened.commit(decision(1))
    finally:
        os.umask(0o022)
    assert (data.stat().st_mode & 0o777, journal_dir(data).stat().st_mode & 0o777) == (0o700, 0o700)
    assert only_segment(data).stat().st_mode & 0o777 == 0o600


def test_space_set_aside_is_not_seen_in_the_file(tmp_path: Path) -> None:
    """A file padded with zeros could be neither grepped nor copied."""
    with Open(tmp_path) as opened:
        opened.commit(decision(1))
        stat = only_segment(tmp_path).stat()
        assert stat.st_blocks * 512 > 1024 * 1024
        assert b"\0" not in only_segment(tmp_path).read_bytes()


def test_a_start_clears_away_what_a_killed_save_left(tmp_path: Path) -> None:
    """Each would be a copy of all tasks, and a daemon that is killed again and again fills the disk."""
    for directory in (tmp_path, journal_dir(tmp_path)):
        directory.mkdir(exist_ok=True)
        (directory / ".tasks.db.7-0.tmp").touch()
    journal = FileJournal(tmp_path)
    assert list(journal.replay()) == []
    journal.close()
    assert list(tmp_path.rglob(".*.tmp")) == []


def test_a_second_process_is_told_who_has_the_directory(tmp_path: Path) -> None:
    """Two daemons on one journal would destroy it."""
    lock = lock_directory(tmp_path)
    with pytest.raises(Fatal, match=f"process {os.getpid()}") as refused:
        lock_directory(tmp_path)
    assert refused.value.status == Exit.TRY_AGAIN
    os.close(lock)
    os.close(lock_directory(tmp_path))


def test_a_directory_that_cannot_be_made_is_73(tmp_path: Path) -> None:
    """systemd shows the exit code before anybody reads the log."""
    (tmp_path / "file").write_text("")
    with pytest.raises(Fatal) as refused:
        lock_directory(tmp_path / "file" / "data")
    assert refused.value.status == Exit.CANNOT_CREATE


def test_a_journal_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    """To cut what cannot be understood would be to lose it."""
    journal_dir(tmp_path).mkdir(parents=True)
    (journal_dir(tmp_path) / f"{1:020d}.jsonl").write_bytes(Header("segment", 1, 0, version=99).line())
    with pytest.raises(Fatal, match="newer") as refused:
        replay(tmp_path)
    assert refused.value.status == Exit.CORRUPT


# --- rotation ------------------------------------------------------------------------------


def test_segments_follow_each_other_and_are_listed(tmp_path: Path) -> None:
    """Compaction works on closed segments; the list must tell the truth, now and after a start."""
    with Open(tmp_path, segment_bytes=1000) as opened:
        for number in range(20):
            opened.commit(decision(number, 2))
        last = opened.commit(decision(99))
        closed = list(opened.journal.closed)
    assert len(closed) > 3
    for one, following in pairwise(closed):
        assert one.last + 1 == following.first
    assert all(segment.path.stat().st_size == segment.size >= 1000 for segment in closed)
    assert all(segment.path.stat().st_blocks <= 16 for segment in closed), "their spare space is given back"
    with Open(tmp_path) as opened:
        assert closed == opened.journal.closed
        assert list(range(1, last + 1)) == [seq for seq, _, _ in opened.replayed]


def test_each_segment_can_be_verified_alone(tmp_path: Path) -> None:
    """Older ones are deleted one day."""
    with Open(tmp_path, segment_bytes=500) as opened:
        for number in range(20):
            opened.commit(decision(number))
    for _, path in list_segments(journal_dir(tmp_path)):
        reader = Reader(path)
        assert list(reader) or path == list_segments(journal_dir(tmp_path))[-1][1]
        assert reader.damage == ""


def test_a_segment_that_is_missing_is_refused(tmp_path: Path) -> None:
    """A gap is not an end."""
    with Open(tmp_path, segment_bytes=500) as opened:
        for number in range(20):
            opened.commit(decision(number))
    list_segments(journal_dir(tmp_path))[1][1].unlink()
    with pytest.raises(Fatal, match="missing") as refused:
        replay(tmp_path)
    assert refused.value.status == Exit.CORRUPT


@pytest.mark.parametrize("content", [b"", b'{"seq":', b"\0" * 200])
def test_a_crash_during_rotation_is_no_damage(tmp_path: Path, content: bytes) -> None:
    """The new file is made before its header is on the disk."""
    with Open(tmp_path) as opened:
        opened.commit(decision(1))
    new = journal_dir(tmp_path) / f"{2:020d}.jsonl"
    new.write_bytes(content)
    with Open(tmp_path) as opened:
        assert decision(1) == [fact for _, _, fact in opened.replayed]
        assert bool(content) == bool(opened.journal.set_aside)
        assert not new.exists()
        opened.commit(decision(2))
    assert decision(1) + decision(2) == replay(tmp_path)


def test_damage_before_a_later_segment_is_refused(tmp_path: Path) -> None:
    """The later file proves that the earlier one was whole once."""
    with Open(tmp_path, segment_bytes=500) as opened:
        for number in range(20):
            opened.commit(decision(number))
    path = list_segments(journal_dir(tmp_path))[-2][1]
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(Fatal, match=rf"{path.name}: at byte \d+: .*--fix") as refused:
        replay(tmp_path)
    assert refused.value.status == Exit.CORRUPT


# --- cuts and flips ------------------------------------------------------------------------


def written(data: Path) -> list[tuple[int, list[f.Fact]]]:
    """A small journal: for each decision, the file's size once it is whole, and all facts so far."""
    sizes: list[tuple[int, list[f.Fact]]] = []
    facts: list[f.Fact] = []
    with Open(data) as opened:
        sizes.append((only_segment(data).stat().st_size, []))
        for number, count in enumerate([1, 3, 1, 2]):
            opened.commit(decision(number, count))
            facts = facts + decision(number, count)
            sizes.append((only_segment(data).stat().st_size, facts))
    return sizes


def test_a_file_cut_at_any_byte_gives_the_longest_prefix_of_whole_decisions(tmp_path: Path) -> None:
    """Power may fail at any moment; half a decision must not be taken for one."""
    sizes = written(tmp_path / "whole")
    content = only_segment(tmp_path / "whole").read_bytes()
    for cut in range(len(content)):
        data = tmp_path / "cut"
        journal_dir(data).mkdir(parents=True)
        (journal_dir(data) / f"{1:020d}.jsonl").write_bytes(content[:cut])
        expected = [facts for size, facts in sizes if size <= cut] or [[]]
        with Open(data) as opened:
            assert expected[-1] == [fact for _, _, fact in opened.replayed], cut
            is_whole = cut == 0 or cut in [size for size, _ in sizes]
            assert is_whole == (not opened.journal.set_aside), cut
            aside = [path.read_bytes() for path in journal_dir(data).glob("*.tail-*")]
            assert (
                [] if is_whole else [content[max([0, *(s for s, _ in sizes if s <= cut)]) : cut]]
            ) == aside
            opened.commit(decision(9))
        assert expected[-1] + decision(9) == replay(data)
        shutil.rmtree(data)


def test_a_bit_flipped_anywhere_is_never_taken_for_something_else(tmp_path: Path) -> None:
    """Either it was the last thing written and is set aside, or the daemon refuses to start."""
    sizes = written(tmp_path / "whole")
    content = only_segment(tmp_path / "whole").read_bytes()
    *_, (before_last, all_but_last), (_, all_facts) = sizes
    last_line = content[:-1].rindex(b"\n") + 1
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        data = tmp_path / "flipped"
        journal_dir(data).mkdir(parents=True, exist_ok=True)
        (journal_dir(data) / f"{1:020d}.jsonl").write_bytes(damaged)
        found = journal_module.Replay(journal_dir(data))
        if bit // 8 < last_line:
            with pytest.raises(Corrupt):
                list(found)
        else:
            # Nothing follows the last line: it is set aside, and with it its decision.
            assert [fact for _, _, fact in found] == all_but_last, bit
            assert found.size == before_last
            assert found.tail is not None
    assert len(all_facts) > len(all_but_last)


def test_a_tail_is_set_aside_once(tmp_path: Path) -> None:
    """The second start has nothing to report."""
    with Open(tmp_path) as opened:
        opened.commit(decision(1))
    with only_segment(tmp_path).open("ab") as file:
        file.write(b'{"seq":2,"at')
    with Open(tmp_path) as opened:
        assert "tail-" in opened.journal.set_aside
    with Open(tmp_path) as opened:
        assert opened.journal.set_aside == ""


def test_two_lines_run_together_are_seen_through(tmp_path: Path) -> None:
    """A newline that became something else hides a valid line behind another one."""
    written(tmp_path)
    path = only_segment(tmp_path)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(lines[:3]) + b"K" + b"\n".join(lines[3:]))
    with pytest.raises(Fatal, match="valid records follow"):
        replay(tmp_path)


@pytest.mark.parametrize("gone", [1, 2, 3])
def test_lines_taken_out_of_the_middle_are_missed(tmp_path: Path, gone: int) -> None:
    """Every line vouches for the one before it."""
    written(tmp_path)
    path = only_segment(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2] + lines[2 + gone :]))
    with pytest.raises(Fatal):
        replay(tmp_path)


def test_text_that_looks_like_a_record_is_only_text(tmp_path: Path) -> None:
    """A job may print a journal; behind a damaged line its output must not pass for records."""
    with Open(tmp_path) as opened:
        opened.commit(decision(1))
        fake = only_segment(tmp_path).read_text()
        opened.commit([f.OutputReceived(1, 1, [[1, fake]])])
    path = only_segment(tmp_path)
    path.write_bytes(path.read_bytes()[:-5])
    assert decision(1) == replay(tmp_path)


# --- power cuts ----------------------------------------------------------------------------


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), batches=st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_after_a_power_cut_all_that_was_told_is_there_and_decisions_are_whole(
    tmp_path: Path, seed: int, batches: list[int]
) -> None:
    """Any sectors of the unsynced batch may be lost, those before a surviving one, too."""
    data = tmp_path / str(seed)
    shutil.rmtree(data, ignore_errors=True)
    disk = PowerDisk()
    told: list[f.Fact] = []
    with Open(data, disk=disk, segment_bytes=4000) as opened:
        number = 0
        for size in batches[:-1]:
            decisions = [decision(number + each, 1 + each % 3) for each in range(size)]
            number += size
            opened.commit(*decisions)
            told += [fact for facts in decisions for fact in facts]
        disk.lives = False  # the power goes during the next sync
        last_batch = [decision(number + each, 1 + each % 3) for each in range(batches[-1])]
        for facts in last_batch:
            opened.journal.append(facts, NOW)
        opened.journal.flush()
        assert opened.failed.wait(PATIENCE_S)
    disk.cut(random.Random(seed))
    possible = [told]
    for facts in last_batch:
        possible.append(possible[-1] + facts)
    assert replay(data) in possible
    assert replay(data) in possible
    shutil.rmtree(data)


def test_a_hole_in_an_older_batch_is_damage(tmp_path: Path) -> None:
    """What a later batch stands behind had been synced and told of."""
    with Open(tmp_path) as opened:
        opened.commit(*(decision(number) for number in range(30)))
        opened.commit(*(decision(number) for number in range(30)))
    path = only_segment(tmp_path)
    content = bytearray(path.read_bytes())
    content[512:1024] = bytes(512)
    path.write_bytes(content)
    with pytest.raises(Fatal, match="zeros"):
        replay(tmp_path)


# --- failing calls -------------------------------------------------------------------------


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for space is tried again at once."""
    monkeypatch.setattr(journal_module, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(journal_module, "LONGEST_PAUSE_S", 0.001)
    monkeypatch.setattr(journal_module, "ALLOCATE_AGAIN_S", 0.0)


@pytest.mark.parametrize("taken", [1, 7, 100])
def test_a_write_that_falls_short_is_completed(tmp_path: Path, taken: int) -> None:
    """pwrite may take less than it was given, and that is no error."""
    disk = FaultyDisk()
    with Open(tmp_path, disk=disk) as opened:
        disk.short = {disk.calls["pwrite"] + 1: taken}
        opened.commit(decision(1, 3))
        opened.commit(decision(2))
    assert decision(1, 3) + decision(2) == replay(tmp_path)


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("taken", [0, 1, 100])
def test_no_space_at_the_write_is_waited_for(tmp_path: Path, taken: int) -> None:
    """Nothing half-written stays, and nothing is told before all of it is there."""
    disk = FaultyDisk()
    with Open(tmp_path, disk=disk) as opened:
        opened.commit(decision(1))
        whole = only_segment(tmp_path).read_bytes()
        seen: list[bytes] = []
        number = disk.calls["pwrite"] + 1
        if taken:
            disk.short = {number: taken}
            number += 1
        for n in range(number, number + 3):
            disk.faults["pwrite", n] = NO_SPACE
        disk.faults["pwrite", number + 3] = lambda: seen.append(only_segment(tmp_path).read_bytes())
        opened.commit(decision(2, 3))
        assert seen == [whole]
        assert not opened.journal.full
        opened.commit(decision(3))
    assert decision(1) + decision(2, 3) + decision(3) == replay(tmp_path)


@pytest.mark.parametrize("call", ["fdatasync", "pwrite"])
def test_a_disk_error_ends_the_process_and_nobody_is_told(tmp_path: Path, call: str) -> None:
    """After a failed sync the page cache lies: to try again would be to acknowledge what is lost."""
    disk = FaultyDisk()
    opened = Open(tmp_path, disk=disk)
    opened.commit(decision(1))
    disk.faults[call, disk.calls[call] + 1] = IO_ERROR
    syncs = disk.calls["fdatasync"]
    opened.journal.append(decision(2), NOW)
    opened.journal.flush()
    assert opened.failed.wait(PATIENCE_S)
    assert [error.status for error in opened.fatal] == [Exit.IO]
    assert (opened.committed.upto, opened.journal.committed) == (1, 1)
    assert disk.calls["fdatasync"] == syncs + (call == "fdatasync")
    with pytest.raises(Fatal):
        opened.journal.append(decision(3), NOW)
    opened.journal.close()
    assert disk.calls["fdatasync"] == syncs + (call == "fdatasync")


def live(opened: Open) -> int:
    """Eight decisions, one after the other, or as many as there can be; the last number told."""
    for each in range(8):
        try:
            opened.journal.append(decision(each), NOW)
        except Fatal:
            break
        opened.journal.flush()
        opened.committed.wait_or(each + 1, opened.failed)
    opened.journal.close()
    return opened.committed.upto


@pytest.mark.parametrize("call", ["fsync", "fdatasync", "pwrite"])
def test_every_failing_call_during_a_life_leaves_what_was_told(tmp_path: Path, call: str) -> None:
    """The n-th of each, for each n: start, commits and rotations alike."""
    for number in range(1, 30):
        data, disk = tmp_path / str(number), FaultyDisk()
        disk.faults[call, number] = IO_ERROR
        try:
            opened = Open(data, disk=disk, segment_bytes=300)
        except Fatal:
            continue
        told = live(opened)
        facts = replay(data)
        assert facts == [fact for each in range(len(facts)) for fact in decision(each)]
        assert told <= len(facts)
        if disk.calls[call] < number:
            assert told == 8
            return
    raise AssertionError("no life without that call")


def test_what_is_written_to_a_removed_file_is_not_called_safe(tmp_path: Path) -> None:
    """Whoever empties the data directory of a running daemon was answered OK for all that followed."""
    opened = Open(tmp_path)
    shutil.rmtree(tmp_path / "journal")
    opened.journal.append(decision(1), NOW)
    opened.journal.flush()
    assert opened.failed.wait(PATIENCE_S)
    assert [error.status for error in opened.fatal] == [Exit.IO]
    assert "has been removed" in opened.fatal[0].message
    assert opened.journal.committed == 0
    opened.journal.close()


def test_an_error_in_notify_ends_the_process(tmp_path: Path) -> None:
    """A daemon whose committer has died would take orders and answer none of them."""
    opened = Open(tmp_path)

    def broken(seq: int) -> None:
        raise ZeroDivisionError

    opened.journal.notify = broken
    opened.journal.append(decision(1), NOW)
    opened.journal.flush()
    assert opened.failed.wait(PATIENCE_S)
    assert [error.status for error in opened.fatal] == [Exit.BUG]
    opened.journal.close()


# --- a full disk ---------------------------------------------------------------------------


ORDER = [f.TaskResumed(None)]  # asked for by a client


@pytest.mark.usefixtures("short_pauses")
def test_a_full_disk_refuses_orders_and_takes_what_is_urgent_from_the_reserve(tmp_path: Path) -> None:
    """Schedules and terminal records go on; nothing half-written; it recovers without a restart."""
    disk = FaultyDisk()
    with Open(tmp_path, disk=disk, reserve_bytes=10_000) as opened:
        journal = opened.journal
        disk.no_space = True
        with pytest.raises(Refusal) as refused:
            while True:
                journal.append(ORDER, NOW)
        assert (refused.value.code, journal.full) == ("disk-full", True)
        last = journal.last
        with pytest.raises(Refusal):
            journal.append([*decision(1), *ORDER], NOW)
        assert last == journal.last, "a refused decision leaves nothing"
        urgent = 0
        with pytest.raises(Refusal):
            while True:
                last = journal.append(decision(urgent), NOW)
                urgent += 1
        assert urgent > 20
        journal.flush()
        opened.committed.wait(last)
        disk.no_space = False
        assert not journal.full
        assert last + 1 == opened.commit(ORDER)
    assert last + 1 == len(replay(tmp_path))


def test_a_full_disk_is_not_asked_all_the_time(tmp_path: Path) -> None:
    """A flood of orders must not become a flood of system calls."""
    disk = FaultyDisk()
    with Open(tmp_path, disk=disk) as opened:
        disk.no_space = True
        for _ in range(100_000):
            try:
                opened.journal.append(ORDER, NOW)
            except Refusal:
                break
        asked = disk.calls["allocate"]
        for _ in range(100):
            with pytest.raises(Refusal):
                opened.journal.append(ORDER, NOW)
        assert disk.calls["allocate"] <= asked + 3


@pytest.mark.usefixtures("short_pauses")
def test_without_fallocate_it_works_and_finds_the_full_disk_at_the_write(tmp_path: Path) -> None:
    """NFS and some others cannot set space aside."""
    disk = FaultyDisk()
    disk.may_allocate = False
    with Open(tmp_path, disk=disk) as opened:
        opened.commit(decision(1))
        disk.no_space = True
        last = opened.journal.append(decision(2), NOW)
        opened.journal.flush()
        tries = disk.calls["pwrite"]
        while disk.calls["pwrite"] < tries + 3:
            threading.Event().wait(0.001)
        with pytest.raises(Refusal):
            for _ in range(100_000):
                opened.journal.append(ORDER, NOW)
        disk.no_space = False
        opened.committed.wait(last)
    assert decision(1) + decision(2) == replay(tmp_path)[:2]


def test_a_read_only_file_system_is_named(tmp_path: Path) -> None:
    """The operator should not have to guess between full and read-only."""
    disk = FaultyDisk()
    with Open(tmp_path, disk=disk) as opened:
        for number in range(disk.calls["allocate"] + 1, disk.calls["allocate"] + 10):
            disk.faults["allocate", number] = error(30)
        with pytest.raises(Refusal) as refused:
            for _ in range(1_000_000):
                opened.journal.append(ORDER, NOW)
        assert refused.value.code == "read-only"


def test_rotation_waits_while_the_disk_is_full(tmp_path: Path) -> None:
    """The open file has space set aside for what was promised, a new one has not."""
    disk = FaultyDisk()
    with Open(tmp_path, disk=disk, segment_bytes=300) as opened:
        disk.no_space = True
        for number in range(5):
            opened.commit(decision(number))
        assert opened.journal.closed == []
        assert len(list_segments(journal_dir(tmp_path))) == 1
    assert [fact for number in range(5) for fact in decision(number)] == replay(tmp_path)


def test_a_decision_of_any_size_is_taken_by_an_idle_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LOAD of a large file was refused for ever as if the disk were full; and what piles up has its bound."""
    monkeypatch.setattr(journal_module, "MAX_BUFFERED_BYTES", 1000)
    large = decision(1, 20_000)  # more than is ever set aside
    with Open(tmp_path) as opened:
        opened.commit(large)
        opened.commit(large)
        with pytest.raises(Refusal) as refused:
            while True:
                opened.journal.append(ORDER, NOW)  # and nothing is written
        assert refused.value.code == "busy"
        last = opened.commit()
    assert last == len(replay(tmp_path))


def test_many_appenders_share_a_sync(tmp_path: Path) -> None:
    """The whole point of group commit."""
    disk = FaultyDisk()
    with Open(tmp_path, disk=disk) as opened:
        opened.commit(decision(0))
        syncs = disk.calls["fdatasync"]
        opened.commit(*(decision(number) for number in range(1000)))
        assert syncs + 1 == disk.calls["fdatasync"]


def test_what_was_flushed_is_committed_though_more_is_appended_before_the_committer_wakes(
    tmp_path: Path,
) -> None:
    """A loop that appends after each flush kept the committer, and so all replies, waiting for 200 ms."""
    with Open(tmp_path) as opened:
        first = opened.commit(decision(1)) + 1
        before = sys.getswitchinterval()
        sys.setswitchinterval(PATIENCE_S)  # the committer must not come in between
        try:
            opened.journal.append(decision(2), NOW)
            opened.journal.flush()
            opened.journal.append(decision(3), NOW)
        finally:
            sys.setswitchinterval(before)
        opened.committed.wait(first)
        assert opened.committed.upto == first  # what is not flushed may still be found wrong


def test_a_record_that_is_too_long_is_refused(tmp_path: Path) -> None:
    """What could not be read again must not be written."""
    with Open(tmp_path) as opened:
        with pytest.raises(Refusal) as refused:
            opened.journal.append([f.OutputReceived(1, 1, [[1, "x" * 17_000_000]])], NOW)
        assert refused.value.code == "too-long"
        assert opened.commit(decision(1)) == 1
