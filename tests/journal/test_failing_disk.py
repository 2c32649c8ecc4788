"""A disk that fails, is full, or is gone: what the journal has told of stays, and it says what is wrong."""

from __future__ import annotations

import os
import resource
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cronflowd.base.errors import Exit, Fatal, Refusal
from cronflowd.engine import facts as f
from cronflowd.journal import journal as journal_module
from cronflowd.journal.files import journal_dir, list_segments
from tests.lib.open_journal import NOW, PATIENCE_S, Open, decision, only_segment, replay
from tests.lib.simulated_disk import IO_ERROR, NO_DESCRIPTOR, NO_SPACE, FaultyDisk, error

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


def test_a_limit_of_the_length_of_files_is_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ulimit -f` lets space be set aside and then no byte be written: ADD was never answered."""
    monkeypatch.setattr(resource, "getrlimit", lambda what: (4_000, 4_000))
    opened = Open(tmp_path, reserve_bytes=4096)
    with pytest.raises(Refusal, match="disk-full"):
        opened.journal.append(ORDER, NOW)
    opened.journal.close()


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


def _exchanged(journal: Path) -> None:
    journal.rename(journal.with_name("old"))
    Open(journal.parent).journal.close()


@pytest.mark.parametrize(
    "lose",
    [shutil.rmtree, lambda path: path.rename(path.with_name("old")), _exchanged],
    ids=["removed", "renamed", "another in its place"],
)
def test_what_no_start_will_find_is_not_called_safe(tmp_path: Path, lose: Callable[[Path], object]) -> None:
    """Whoever empties or moves the directory of a running daemon was answered OK for all that followed."""
    opened = Open(tmp_path)
    lose(tmp_path / "journal")
    opened.journal.append(decision(1), NOW)
    opened.journal.flush()
    assert opened.failed.wait(PATIENCE_S)
    assert [error.status for error in opened.fatal] == [Exit.IO]
    assert "has been removed or moved away" in opened.fatal[0].message
    assert opened.journal.committed == 0
    opened.journal.close()


@pytest.mark.parametrize("change", ["cut", "emptied", "written to"])
def test_an_open_file_that_somebody_changes_is_called_safe_no_more(tmp_path: Path, change: str) -> None:
    """By logrotate's copytruncate: what was told before is gone, and a start took that for an end."""
    opened = Open(tmp_path)
    opened.commit(*map(decision, range(10)))
    path = only_segment(tmp_path)
    whole = path.read_bytes()
    if change == "written to":
        with path.open("ab") as file:
            file.write(b"a line\n")
    else:
        os.truncate(path, 0 if change == "emptied" else whole.rindex(b"\n", 0, -1) + 1)
    opened.journal.append(decision(11), NOW)
    opened.journal.flush()
    assert opened.failed.wait(PATIENCE_S)
    assert [error.status for error in opened.fatal] == [Exit.IO]
    assert f"{path}: somebody has changed it: it had " in opened.fatal[0].message
    assert opened.journal.committed == 10
    opened.journal.close()
    with pytest.raises(Fatal, match=path.name) as refused:
        replay(tmp_path)
    assert refused.value.status == Exit.CORRUPT
    path.write_bytes(whole)
    assert replay(tmp_path) == [fact for each in range(10) for fact in decision(each)]


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


def test_rotation_waits_while_there_is_no_descriptor(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It ended the daemon, though all that was promised had its room in the open file."""
    for number in range(1, 30):
        data, disk = tmp_path / str(number), FaultyDisk()
        with Open(data, disk=disk, segment_bytes=300) as opened:
            first = disk.calls["open"]
            disk.faults["open", first + number] = NO_DESCRIPTOR
            for each in range(3):
                opened.commit(decision(each))
        assert opened.fatal == []
        assert len(list_segments(journal_dir(data))) > 1
        assert [fact for each in range(3) for fact in decision(each)] == replay(data)
        if disk.calls["open"] < first + number:
            break
    else:
        raise AssertionError("no life without that call")
    told = [record.getMessage() for record in caplog.records]
    assert len(told) > 1
    assert all(
        "Too many open files: it goes on, however long, until a descriptor is free" in each for each in told
    )


def test_a_new_file_that_is_too_small_is_removed_without_a_descriptor(tmp_path: Path) -> None:
    """So much came meanwhile, and so many connections, that the daemon ended."""

    class Crowded(FaultyDisk):
        """While a file is made much is ordered, and then nothing can be opened any more."""

        is_crowded = False

        def open(self, path: Path, flags: int) -> int:
            if self.is_crowded:
                NO_DESCRIPTOR()
            return super().open(path, flags)

        def rename(self, old: Path, new: Path) -> None:
            super().rename(old, new)
            if self.calls["rename"] == 2:  # the first one was at the start
                opened.journal.append(decision(2, 40_000), NOW)
                self.is_crowded = True

    disk = Crowded()
    with Open(tmp_path, disk=disk, segment_bytes=300) as opened:
        opened.commit(decision(1, 5))
        assert disk.is_crowded
        opened.commit()
        assert len(list_segments(journal_dir(tmp_path))) == 1
        disk.is_crowded = False
        opened.journal._disk = FaultyDisk()
        opened.commit(decision(3))
        assert len(list_segments(journal_dir(tmp_path))) > 1
    assert opened.fatal == []
    assert replay(tmp_path) == decision(1, 5) + decision(2, 40_000) + decision(3)


def test_a_new_file_whose_name_finds_no_room_is_removed_for_good(tmp_path: Path) -> None:
    """The older file grows then, and after a power cut a start would find both."""
    disk = FaultyDisk()
    with Open(tmp_path, disk=disk, segment_bytes=300) as opened:
        opened.commit(decision(1))
        # Of the next new file: its header, then its name, which is taken back.
        syncs = disk.calls["fsync"]
        disk.faults["fsync", syncs + 2] = NO_SPACE
        while disk.calls["fsync"] < syncs + 2:
            opened.commit(decision(2))
        assert disk.calls["fsync"] == syncs + 3
        assert len(list_segments(journal_dir(tmp_path))) == 1
    assert opened.fatal == []
    disk = FaultyDisk()
    with Open(tmp_path / "b", disk=disk, segment_bytes=300) as opened:
        opened.commit(decision(1))
        syncs = disk.calls["fsync"]
        disk.faults |= {("fsync", syncs + each): NO_SPACE for each in (2, 3)}
        opened.journal.append(decision(2, 5), NOW)
        opened.journal.flush()
        assert opened.failed.wait(PATIENCE_S)
        assert [error.status for error in opened.fatal] == [Exit.IO]


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
