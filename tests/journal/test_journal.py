"""The journal keeps what it acknowledged, whatever the disk does."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import shutil
import stat
import sys
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
from cronflowd.host import disk
from cronflowd.host.disk import LOCK_NAME, lock_directory
from cronflowd.journal import journal as journal_module
from cronflowd.journal.files import NEWEST_NAME, journal_dir, list_segments
from cronflowd.journal.journal import FileJournal
from cronflowd.journal.records import Corrupt, Header, Reader, parse_header, read_newest
from tests.lib.fake_etcd import FakeEtcd
from tests.lib.memory_journal import MemoryJournal
from tests.lib.open_journal import NOW, PATIENCE_S, Committed, Open, decision, only_segment, replay
from tests.lib.shared_driver import Leading
from tests.lib.simulated_disk import NO_SPACE, FaultyDisk, PowerDisk

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
    lock.close()
    lock_directory(tmp_path).close()


def test_a_lock_that_was_removed_keeps_others_out_all_the_same(tmp_path: Path) -> None:
    """After an accident people remove what they take for a leftover, and two daemons wrote one journal."""
    lock = lock_directory(tmp_path)
    (tmp_path / LOCK_NAME).unlink()
    with pytest.raises(Fatal, match="in use") as refused:
        lock_directory(tmp_path)
    assert refused.value.status == Exit.TRY_AGAIN
    lock.close()
    lock_directory(tmp_path).close()


def test_where_no_directory_can_be_locked_its_file_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS, where only what is open for writing can be locked alone."""
    flock = fcntl.flock

    def of_nfs(fd: int, how: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", of_nfs)
    lock = lock_directory(tmp_path)
    with pytest.raises(Fatal, match=f"process {os.getpid()}"):
        lock_directory(tmp_path)
    lock.close()
    lock_directory(tmp_path).close()


def test_a_directory_is_its_owner_s_whatever_the_umask(tmp_path: Path) -> None:
    """With 0177, which is for files, no daemon started on a new one."""
    before = os.umask(0o177)
    try:
        lock_directory(tmp_path / "data").close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_a_disk_that_knows_no_modes_takes_a_new_directory_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAT lets no mode be set that it cannot keep, and shows one that will do."""

    def refused(path: Path, mode: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(path))

    monkeypatch.setattr(Path, "chmod", refused)
    lock_directory(tmp_path / "data").close()


def test_a_directory_that_cannot_be_made_is_73(tmp_path: Path) -> None:
    """systemd shows the exit code before anybody reads the log."""
    (tmp_path / "file").write_text("")
    with pytest.raises(Fatal) as refused:
        lock_directory(tmp_path / "file" / "data")
    assert refused.value.status == Exit.CANNOT_CREATE


def test_the_name_of_each_directory_that_is_made_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that was told is gone with the power where one above the journal was not synced into its own."""
    synced: list[Path] = []
    monkeypatch.setattr(disk, "sync_directory", synced.append)
    disk.make_directory(tmp_path / "a" / "b" / "c")
    assert set(synced) == {tmp_path, tmp_path / "a", tmp_path / "a" / "b"}


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


def test_a_segment_within_another_one_is_refused(tmp_path: Path) -> None:
    """A start went on in it, with numbers and a CRC that the next one did not take."""
    with Open(tmp_path) as opened:
        for number in range(4):
            opened.commit(decision(number))
    chain = int(only_segment(tmp_path).read_bytes().splitlines()[2][-10:-2], 16)
    within = journal_dir(tmp_path) / f"{3:020d}.jsonl"
    within.write_bytes(Header("segment", 3, chain).line())
    with pytest.raises(Corrupt, match="the file before it goes up to record 4") as refused:
        replay(tmp_path)
    assert refused.value.path == within


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


def rotated(data: Path) -> Path:
    """A journal of several segments; its newest, in which a record stands."""
    with Open(data, segment_bytes=500) as opened:
        for number in range(20):
            opened.commit(decision(number))
        if opened.journal.open_segment.last < opened.journal.open_segment.first:
            opened.commit(decision(20))
    return list_segments(journal_dir(data))[-1][1]


def _header_lost(path: Path) -> None:
    path.write_bytes(b"\0" * 4096)


def _and_the_end_before_it_torn(path: Path) -> None:
    path.unlink()
    before = list_segments(path.parent)[-1][1]
    os.truncate(before, before.stat().st_size - 3)


@pytest.mark.parametrize(
    "lose",
    [
        Path.unlink,
        lambda path: os.truncate(path, 0),
        _header_lost,
        _and_the_end_before_it_torn,
        lambda path: [each.unlink() for _, each in list_segments(path.parent)],
    ],
    ids=["removed", "emptied", "its header lost", "the one before it torn", "all removed"],
)
def test_a_newest_segment_that_is_gone_is_refused(tmp_path: Path, lose: Callable[[Path], object]) -> None:
    """The one before it ends as a journal does, and a start went on there: what was told was gone."""
    path = rotated(tmp_path)
    lose(path)
    before = {each: each.read_bytes() for each in journal_dir(tmp_path).iterdir()}
    with pytest.raises(Corrupt, match=r"--fix") as refused:
        replay(tmp_path)
    assert path.name in refused.value.message
    assert refused.value.status == Exit.CORRUPT
    assert before == {each: each.read_bytes() for each in journal_dir(tmp_path).iterdir()}


def test_what_names_the_newest_segment_may_be_old_or_lost(tmp_path: Path) -> None:
    """On a full disk it stays behind, older releases wrote none, and it is not in a backup."""
    path = rotated(tmp_path)
    newest = journal_dir(tmp_path) / NEWEST_NAME
    first = int(path.stem)
    assert read_newest(journal_dir(tmp_path)) == first
    expected = replay(tmp_path)
    for content in (None, b"", b"nonsense\n", b"\0" * 512, Header("newest", 1, 0).line()):
        newest.unlink()
        if content is not None:
            newest.write_bytes(content)
        assert expected == replay(tmp_path)
        assert read_newest(journal_dir(tmp_path)) == first


def test_a_copy_of_a_journal_that_grows_is_a_journal(tmp_path: Path) -> None:
    """Whoever copies in the order of names copies `newest` last, and it may name what came meanwhile."""
    path = rotated(tmp_path / "whole")
    copy = journal_dir(tmp_path / "copy")
    shutil.copytree(path.parent, copy, ignore=lambda *_: [path.name])
    last = replay(tmp_path / "copy")
    assert last == replay(tmp_path / "whole")[: len(last)]
    assert read_newest(copy) == list_segments(copy)[-1][0]


def test_a_full_disk_keeps_no_journal_from_going_on_in_a_new_file(tmp_path: Path) -> None:
    """The name of the newest file is worth less than the daemon."""
    disk = FaultyDisk()
    with Open(tmp_path, segment_bytes=500, disk=disk) as opened:
        opened.commit(decision(1))
        # Its header is the first write of a new file, its name in `newest` the second.
        while not opened.journal.closed:
            number = disk.calls["pwrite"]
            disk.faults = {("pwrite", number + 3): NO_SPACE}
            opened.commit(decision(2))
        assert read_newest(journal_dir(tmp_path)) == 1
    assert len(list_segments(journal_dir(tmp_path))) == 2
    replay(tmp_path)


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


# --- committing ------------------------------------------------------------------------------


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


def test_a_committer_that_never_rests_keeps_no_call_that_it_has_answered(tmp_path: Path) -> None:
    """Under load there are lines whenever a commit has ended, and that may go on for days."""
    journal, committed, waiting = FileJournal(tmp_path), Committed(), list[int]()

    def go_on(seq: int) -> None:
        waiting.append(journal._wake.qsize())
        if len(waiting) < 50:
            journal.append(decision(seq), NOW)
            journal.flush()
        committed(seq)

    journal.notify = go_on
    assert not list(journal.replay())
    journal.append(decision(0), NOW)
    journal.flush()
    committed.wait(50)
    journal.close()
    assert waiting == [0] * 50


def test_a_record_that_is_too_long_is_refused(tmp_path: Path) -> None:
    """What could not be read again must not be written."""
    with Open(tmp_path) as opened:
        with pytest.raises(Refusal) as refused:
            opened.journal.append([f.OutputReceived(1, 1, [[1, "x" * 17_000_000]])], NOW)
        assert refused.value.code == "too-long"
        assert opened.commit(decision(1)) == 1
