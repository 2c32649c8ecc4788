"""Long output that does not go through etcd: it is read as one with the rest, and what is lacking is told."""

from __future__ import annotations

import errno
import os
import random
import threading
import zlib
from collections import Counter, deque
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import Mock, patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cronflowd.base.errors import Exit, Fatal, Refusal
from cronflowd.base.output import size_of
from cronflowd.engine import facts as f
from cronflowd.engine.orders import TellUnwritten
from cronflowd.journal import apart, compaction, history
from cronflowd.journal.apart import Apart
from cronflowd.journal.backup import archive, restore
from cronflowd.journal.files import journal_dir, list_segments
from cronflowd.journal.journal import FileJournal
from cronflowd.journal.shared_journal import SharedJournal
from cronflowd.tasks.reasons import in_words
from tests.lib.engine_driver import Driver
from tests.lib.fake_etcd import FakeEtcd
from tests.lib.journal_driver import Life, compact
from tests.lib.open_journal import NOW, Committed
from tests.lib.shared_driver import Leading

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
lines = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 2), texts).map(list),
        st.just([2, "half \\udcff", False]),
        st.just([0, {"code": "output-limit", "limit": 9}]),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=settings().max_examples // 3)
@given(st.lists(lines, max_size=8), st.integers(0, 60), st.randoms(use_true_random=False))
def test_whatever_was_cut_where_the_bytes_come_in_order_and_the_rest_is_told(
    batches: list[list[Any]], copied: int, chance: random.Random
) -> None:
    """A crash leaves a file cut anywhere, a leader that was replaced records that never were."""
    with TemporaryDirectory() as made, patch.object(os, "fdatasync"), patch.object(apart, "sync_directory"):
        here, there = Path(made, "here"), Path(made, "there")
        for directory in (here, there):
            directory.mkdir()
        keeper, had, records = Apart(there, "a", copied), 0, []
        for seq, batch in enumerate(batches, 1):
            if chance.random() < 0.2:  # one that etcd did not take
                keeper.take(f.OutputReceived(7, 1, [[1, "never"]]), seq, copied)
            fact = keeper.take(f.OutputReceived(7, 1, batch), seq, had)
            had += size_of([line for line in batch if line[0]])
            assert (size_of([line for line in fact.lines if line[0]]) <= copied, fact.is_urgent()) == (
                True,
                all(line[0] == 0 for line in batch),
            )
            records.append((seq, fact))
            keeper.write(seq)
        assert (keeper.waiting_bytes, keeper.ends) == (0, apart.sizes(there))
        whole = [tuple(line) for batch in batches for line in batch]
        assert apart.join(there, 7, records) == (whole, Counter())

        data = apart.piece(there, 7, 0)
        for _ in range(chance.randrange(3)):  # what came over the wire before it broke, more than once
            apart.merge(here, 7, data[: chance.randrange(len(data) + 1)])
        found, lacking = apart.join(here, 7, records)
        missing = [fact.apart for _, fact in records if fact.apart and not is_here(here, records, fact)]
        assert lacking == +Counter({"a": sum(each[0] for each in missing)})
        assert is_part(found, whole)
        apart.merge(here, 7, data)
        assert apart.join(here, 7, records) == (whole, Counter())


def is_here(directory: Path, records: list[tuple[int, f.OutputReceived]], fact: f.OutputReceived) -> bool:
    seq = next(seq for seq, each in records if each is fact)
    return apart.find(apart.read(directory, 7), seq, fact) is not None


def is_part(some: list[Any], whole: list[Any]) -> bool:
    """In the same order."""
    rest = iter(whole)
    return all(any(line == other for other in rest) for line in some)


def leading(data: Path, etcd: FakeEtcd, copied: int = 10) -> tuple[Leading, Committed]:
    committed = Committed()
    journal = Leading(data, etcd, notify=committed, apart=Apart(journal_dir(data), "a", copied))
    list(journal.replay())
    return journal, committed


LONG = [[1, "the first"], [1, "and all the rest of it"], [2, "and more"]]
WHOLE = [tuple(line) for line in LONG]


def write_one(data: Path, etcd: FakeEtcd) -> None:
    journal, committed = leading(data, etcd)
    journal.append([f.OutputReceived(7, 1, LONG)], NOW)
    journal.flush()
    committed.wait(journal.last)
    journal.close()


def test_long_output_stands_beside_the_journal_and_is_read_as_one(tmp_path: Path) -> None:
    """etcd is no place for it; LOG is one text all the same, also once the cluster has ended."""
    etcd = FakeEtcd()
    write_one(tmp_path / "a", etcd)
    [(_, path)] = list_segments(journal_dir(tmp_path / "a"))
    assert b"the first" in path.read_bytes()
    assert b"all the rest" not in path.read_bytes()
    assert history.output(tmp_path / "a", 7) == WHOLE
    assert set(history.lacking(tmp_path / "a")) == set()

    follower = SharedJournal(tmp_path / "b", shared=Leading(tmp_path / "c", etcd)._shared)
    list(follower.replay())
    for value in follower._shared.fetch(1):
        follower.take(value)
    follower.close()
    lacking = Counter[str]()
    assert history.output(tmp_path / "b", 7, lacking=lacking) == WHOLE[:1]
    assert history.remarks(lacking) == [(0, {"code": "output-apart", "number": 32, "node": "a"})]
    assert set(history.lacking(tmp_path / "b")) == {7}
    apart.merge(journal_dir(tmp_path / "b"), 7, apart.piece(journal_dir(tmp_path / "a"), 7, 0))
    assert (history.output(tmp_path / "b", 7), set(history.lacking(tmp_path / "b"))) == (WHOLE, set())


def test_what_was_refused_stands_nowhere(tmp_path: Path) -> None:
    """The same number is given to another record, whose output it is not."""
    journal, committed = leading(tmp_path, FakeEtcd())
    journal.etcd_is_full = "as much as it takes"
    with pytest.raises(Refusal):
        journal.append([f.OutputReceived(7, 1, LONG)], NOW)
    journal.etcd_is_full = ""
    too_long = [f.OutputReceived(7, 1, [[1, "x"], *LONG]), f.TaskPaused(None, None, "y" * (17 << 20))]
    with pytest.raises(Refusal):
        journal.append(too_long, NOW)
    journal.append([f.OutputReceived(8, 1, LONG)], NOW)
    journal.flush()
    committed.wait(journal.last)
    journal.close()
    assert set(apart.sizes(journal_dir(tmp_path))) == {8}
    assert history.output(tmp_path, 8) == WHOLE


def test_a_record_of_what_stands_apart_may_not_use_the_reserve(tmp_path: Path) -> None:
    """It has no lines, and is output: the first to go when the disk is full."""
    fact = Apart(tmp_path, "a", 0).take(f.OutputReceived(7, 1, LONG), 1, 0)
    assert (fact.lines, fact.is_urgent()) == ([], False)


def test_without_etcd_nothing_stands_apart(tmp_path: Path) -> None:
    """A single daemon's journal is whole."""
    journal = FileJournal(tmp_path)
    list(journal.replay())
    journal.append([f.OutputReceived(7, 1, [[1, "x" * 50_000]])], NOW)
    journal.close()
    assert not (journal_dir(tmp_path) / apart.FOLDER).exists()
    assert history.output(tmp_path, 7) == [(1, "x" * 50_000)]


def test_what_stands_apart_goes_when_the_output_goes(tmp_path: Path) -> None:
    """It counts for keep= as all output does, and no file is left that nobody would ever look at."""
    life = Life(tmp_path, 2_000)
    life.join()
    life.add_task(keep="20,10K")
    lives_on = write_apart(life, life.start(1))
    for _ in range(20):
        life.end(write_apart(life, life.start(1)))
        life.commit()
    for bound, expected in ((1 << 30, {lives_on, *range(14, 22)}), (0, {lives_on})):
        for _ in range(20):  # the newest segment is left alone
            life.skip(1)
        compact(tmp_path, bound)
        read = {run for run in range(1, 22) if history.output(tmp_path, run)}
        assert read | {lives_on} == set(apart.sizes(journal_dir(tmp_path))) == expected
    life.close()


def test_a_compaction_that_is_killed_leaves_no_output_that_no_record_tells_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its records go for good; a file that stands there then would stand there for ever."""
    life = Life(tmp_path, 2_000)
    life.join()
    life.add_task(keep="2")
    for _ in range(10):
        life.end(write_apart(life, life.start(1)))
        life.commit()
    with monkeypatch.context() as killed:
        killed.setattr(apart, "remove", Mock(side_effect=EOFError))
        with pytest.raises(EOFError):
            compaction.compact(journal_dir(tmp_path), 1 << 30)
    compaction.compact(journal_dir(tmp_path), 1 << 30)
    assert len(set(history.lacking(tmp_path))) == 0
    assert set(apart.sizes(journal_dir(tmp_path))) == {r for r in range(1, 11) if history.output(tmp_path, r)}
    assert 0 < len(apart.sizes(journal_dir(tmp_path))) < 10
    life.close()


def write_apart(life: Life, run: int) -> int:
    line = b'%d [[1,"%b"]]' % (life.journal.last + 1, b"x" * 999)
    life.say(f.OutputReceived(run, 1, [], 0, 1000, None, (1000, zlib.crc32(line), "a")))
    apart.merge(journal_dir(life.data), run, line)
    return run


def test_what_a_full_disk_does_not_take_of_it_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Output is the first to go; what was decided is written all the same, and what is told is true."""
    etcd, told = FakeEtcd(), list[tuple[int, int, str]]()
    journal, committed = leading(tmp_path, etcd)
    assert journal.apart
    journal.apart.on_dropped = lambda *about: told.append(about)
    append = apart.append

    def take_one(directory: Path, run: int, lines: Iterable[bytes]) -> int:
        append(directory, run, list(lines)[:1])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(apart, "append", take_one)
    journal.append([f.OutputReceived(7, 1, LONG), f.OutputReceived(7, 1, LONG)], NOW)
    journal.flush()
    committed.wait(journal.last)
    lacking = Counter[str]()
    assert history.output(tmp_path, 7, lacking=lacking) == [*WHOLE, *WHOLE[:1]]
    assert (lacking, told) == ({"a": 32}, [(7, 32, "a")])

    driver = Driver()
    (remark,) = driver.do(TellUnwritten(*told[0])).facts
    journal.append([remark], NOW)
    journal.flush()
    committed.wait(journal.last)
    journal.close()
    lacking.clear()
    *lines, (fd, why) = history.output(tmp_path, 7, lacking=lacking)
    assert (lines, fd, lacking) == ([*WHOLE, *WHOLE[:1]], 0, {})
    assert in_words(why) == "32 bytes of its output were not kept: the disk of node a was full"


def test_output_that_no_record_tells_of_goes_when_all_records_are_gone_through(tmp_path: Path) -> None:
    """A standby may fetch it from a leader that lets it go at that moment; nothing would look at it, ever."""
    life = Life(tmp_path, 2_000)
    life.join()
    life.add_task(keep="2")
    runs = [life.start(1) for _ in range(6)]
    for run in runs[:-1]:
        life.end(write_apart(life, run))
    write_apart(life, runs[-1])
    life.commit()
    for _ in range(20):
        life.skip(1)
    compaction.compact(journal_dir(tmp_path), 1 << 30)
    kept = set(apart.sizes(journal_dir(tmp_path)))
    assert kept == {*runs[3:]}
    for run in (runs[0], life.runs + 1):  # the last one is newer than what a compaction reads
        apart.merge(journal_dir(tmp_path), run, b"1 []")
    life.now += timedelta(days=2)
    for _ in range(20):
        life.skip(1)
    compaction.compact(journal_dir(tmp_path), 1 << 30)
    assert set(apart.sizes(journal_dir(tmp_path))) == {*kept, life.runs + 1}
    life.close()


def test_a_backup_holds_it_too(tmp_path: Path) -> None:
    """A cluster that is started of one shows what its jobs wrote."""
    write_one(tmp_path / "a", FakeEtcd())
    data, journal = tmp_path / "a", FileJournal(tmp_path / "a")
    list(journal.replay())
    about: dict[str, str | int] = {"at": "now", "seq": journal.last}
    prepared, _ = archive(data, tmp_path / "a.tar", journal.open_segment, about)
    prepared.publish()
    journal.close()
    restore(tmp_path / "a.tar", tmp_path / "b")
    assert history.output(tmp_path / "b", 7) == WHOLE


def test_a_file_that_goes_while_all_are_counted_hides_no_other(tmp_path: Path) -> None:
    """A compaction removes them at any moment; a backup of that moment would have had no output at all."""
    apart.append(tmp_path, 7, [b"1 []"])
    (tmp_path / apart.FOLDER / "8").symlink_to("gone")
    assert apart.sizes(tmp_path) == {7: 6}


def test_two_pieces_of_one_crc_are_both_found(tmp_path: Path) -> None:
    """Of ten thousand pieces of one job's output two have the same CRC once in a hundred jobs."""
    keeper, both = Apart(tmp_path, "a", 0), [(94_919, "xxxxxx"), (184_324, "")]
    records = [(seq, keeper.take(f.OutputReceived(7, 1, [[1, text]]), seq, 0)) for seq, text in both]
    keeper.write(200_000)
    assert len({fact.apart and fact.apart[1] for _, fact in records}) == 1
    assert apart.join(tmp_path, 7, records) == ([(1, text) for _, text in both], Counter())


def test_what_is_refused_is_not_taken_from_under_the_committer(tmp_path: Path) -> None:
    """It looks what comes first, and takes it: between the two nothing may go."""
    keeper = Apart(tmp_path, "a", 0)
    keeper.take(f.OutputReceived(7, 1, [[1, "refused"]]), 2, 0)

    class Looked(deque[Any]):
        def __getitem__(self, at: Any) -> Any:
            refusing = threading.Thread(target=keeper.forget, args=[2])
            keeper._waiting = deque(self)  # that thread's own
            refusing.start()
            refusing.join(0.05)
            if not keeper._waiting:
                self.clear()
            return super().__getitem__(at)

    keeper._waiting = Looked(keeper._waiting)
    keeper.write(1)


def test_a_sync_that_fails_is_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a standby, too: what is read back then may be on no disk, and would be said to be."""
    monkeypatch.setattr(os, "fdatasync", Mock(side_effect=OSError(errno.EIO, "Input/output error")))
    with pytest.raises(Fatal, match=r"output/7: Input/output error") as caught:
        apart.merge(tmp_path, 7, b"1 []\n")
    assert caught.value.status == Exit.IO
