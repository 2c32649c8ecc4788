"""What is about one thing is found in the journal without reading what is about others."""

from __future__ import annotations

import errno
import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from cronflowd.engine import facts as f
from cronflowd.engine.encoding import encode
from cronflowd.host.disk import write_atomically
from cronflowd.journal import compaction, history, index
from cronflowd.journal.files import journal_dir
from cronflowd.journal.index import SUFFIX, Index, key
from cronflowd.tasks.task import Outcome
from tests.lib.descriptors import open_descriptors
from tests.lib.journal_driver import BEGIN, Life, compact
from tests.lib.simulated_disk import FaultyDisk, error

ALL = 2**62
ASKED: list[tuple[str, Any, Callable[[Outcome], bool]]] = [
    ("run", 30, lambda row: row.run == 30),
    ("run", 1, lambda row: row.run == 1),
    ("task", 2, lambda row: row.task_id == 2),
    ("name", "task_1", lambda row: row.name == "task_1"),
    ("state", "failed", lambda row: row.state == "failed"),
    ("state", "skipped", lambda row: row.state == "skipped"),
    ("worker", "w1", lambda row: row.worker == "w1"),
    ("worker", "w2", lambda row: False),
    ("state", "missed", lambda row: row.state == "missed"),
]


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    """Two tasks, many runs and skipped fires, in many segments."""
    one = Life(tmp_path)
    one.join()
    one.add_task(keep="1000")
    one.add_task(keep="1000")
    live(one, 60)
    yield one
    one.close()


def live(life: Life, count: int) -> None:
    for number in range(count):
        run = life.start(1 + number % 2)
        life.write(run, f"of {run}")
        life.end(run, "ok" if number % 7 else "failed")
        if number % 5 == 0:
            life.skip(1)
        if number % 9 == 0:
            life.say(f.FiresPassed(2, "task_2", "missed", life.now, life.now, 1, "down", life.now))
    life.commit()


def compare(life: Life, known: Index, before: int = ALL) -> None:
    for what, value, is_it in ASKED:
        rows = history.outcomes(life.data, before, is_it, [key(what, value)], known)
        assert list(rows) == [row for row in life.expected() if is_it(row) and row.seq < before], what
    both = history.outcomes(
        life.data, before, lambda _: True, [key("task", 2), key("state", "failed")], known
    )
    found = [row for row in life.expected() if row.seq < before]
    assert list(both) == [row for row in found if row.task_id == 2 or row.state == "failed"]


def test_what_is_found_is_what_reading_everything_finds(life: Life) -> None:
    """While files come, grow and are made short, by one reader that stays and one that comes anew."""
    known = Index()
    for _ in range(3):
        compare(life, known)
        compare(life, known, life.journal.last // 2)
        compare(life, Index())
        live(life, 25)
        compare(life, known)
        compact(life.data)


def test_the_runs_of_a_flow_are_found_by_it() -> None:
    """Its number stands last in a record, whatever else does."""
    at, why = BEGIN, {"code": "signal", "number": 9}
    ended = f.RunEnded(7, 1, 3, "a", "ok", at, at, "w1", 0, why, True, flow=5)
    passed = f.FiresPassed(3, "a", "skipped", at, at, 1, why, None, flow=5)
    for fact in (ended, passed):
        assert key("flow", 5) in set(index.keys_of(encode(1, at, fact, more=True)))
    alone = f.RunEnded(7, 1, 3, "a", "ok", at, at, None, 0, None, True)
    keys = [key("run", 7), key("task", 3), key("name", "a"), key("state", "ok")]
    assert list(index.keys_of(encode(1, at, alone, more=False))) == keys


def count_lines(monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], list[int]]:
    """Of the lines that are read one by one, and of the runs through whole files."""
    single, passes = list[int](), list[int]()
    line_at, lines = index._line_at, index._lines

    def counted(at: int, offset: int) -> bytes:
        single.append(offset)
        return line_at(at, offset)

    def passing(at: int, offset: int) -> Iterator[tuple[int, bytes]]:
        for found in lines(at, offset):
            passes.append(found[0])
            yield found

    monkeypatch.setattr(index, "_line_at", counted)
    monkeypatch.setattr(index, "_lines", passing)
    return single, passes


@pytest.mark.parametrize("is_short", [False, True])
def test_each_line_is_passed_through_once_and_then_only_what_is_asked_for_is_read(
    life: Life, monkeypatch: pytest.MonkeyPatch, is_short: bool
) -> None:
    """A page about one run must not read a million others, and the next page nothing twice."""
    if is_short:
        compact(life.data)
    known, (single, passes) = Index(), count_lines(monkeypatch)
    compare(life, known)
    passes.clear()
    single.clear()
    rows = list(history.outcomes(life.data, ALL, lambda _: True, [key("run", 30)], known))
    assert [row.run for row in rows] == [30]
    assert history.output(life.data, 30, index=known) == [(1, "of 30")]
    assert len(single) == 4  # its end and what it wrote, for each question
    assert not passes


def test_of_a_file_that_grows_only_what_has_come_is_passed_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that is looked at each second must not read the same 16 MB each second."""
    life, known, (_, passes) = Life(tmp_path, segment_bytes=10**6), Index(), count_lines(monkeypatch)
    life.join()
    life.add_task()
    life.add_task()
    for _ in range(5):
        live(life, 6)
        list(history.outcomes(life.data, ALL, lambda _: True, [key("run", 1)], known))
    [path] = journal_dir(life.data).glob("0*.jsonl")
    life.close()
    assert len(passes) == len(path.read_bytes().splitlines())


def test_compaction_leaves_nothing_to_do_for_who_reads_first(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new daemon on a gigabyte of history answers at once; and what is to go is not read for it."""
    compaction.compact(journal_dir(life.data), 10**9)
    assert len(list(journal_dir(life.data).glob(f"0*{SUFFIX}"))) == 1
    compact(life.data)
    _, passes = count_lines(monkeypatch)
    list(history.outcomes(life.data, ALL, lambda _: True, [key("run", 1)], Index()))
    newest = max(journal_dir(life.data).glob("0*.jsonl"))
    assert len(passes) == len(newest.read_bytes().splitlines())


def test_a_file_that_is_gone_takes_its_index_with_it(life: Life) -> None:
    """Nobody removes what nobody knows."""
    compare(life, Index())
    compact(life.data)
    for path in journal_dir(life.data).glob(f"*{SUFFIX}"):
        assert path.with_suffix(".jsonl").exists()


@pytest.mark.parametrize("damage", ["empty", "torn", "of another file", "no numbers", "gone"])
def test_an_index_that_is_not_of_this_file_is_made_anew(life: Life, damage: str) -> None:
    """History is made anew under the same name, and a power cut leaves what it leaves."""
    compact(life.data)
    live(life, 25)
    for path in journal_dir(life.data).glob(f"*{SUFFIX}"):
        path.unlink()
    compare(life, Index())
    paths = sorted(journal_dir(life.data).glob(f"*{SUFFIX}"))
    contents = [path.read_bytes() for path in paths]
    assert len(paths) > 2
    for at, path in enumerate(paths):
        content = contents[at]
        path.write_bytes(
            {
                "empty": b"", "torn": content[:21], "of another file": contents[at - 1],
                "no numbers": b"x" * len(content), "gone": b"",
            }[damage]
        )  # fmt: skip
        if damage == "gone":
            path.unlink()
    compare(life, Index())
    assert [path.read_bytes() for path in paths] == contents


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_disk_that_takes_nothing_keeps_nobody_from_reading(
    life: Life, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """What helps to read is no reason to refuse an answer, or to throw away a checkpoint that stands."""
    disk = FaultyDisk()
    disk.faults = {("fsync", call): error(number) for call in range(1, 1000)}
    monkeypatch.setattr(index, "write_atomically", partial(write_atomically, disk=disk))
    compare(life, Index())
    compact(life.data)
    compare(life, Index())
    assert disk.calls["fsync"] > 2
    assert not list(journal_dir(life.data).glob(f"*{SUFFIX}"))


def test_numbers_are_in_memory_no_longer_than_they_are_written(life: Life) -> None:
    """A gigabyte of history from before there was an index: its numbers would take half as much again."""
    known = Index()
    compare(life, known)
    assert len(known._sealed) > 2
    assert {each.held for each in known._sealed.values()} == {None}
    assert {type(each) for each in known._runs} == {array}


def test_nothing_is_held_of_files_that_are_gone(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each segment is gone some day; but not each file that comes has all others looked for."""
    monkeypatch.setattr(index, "MAX_HELD", 2)
    looks, known = Mock(side_effect=Path.exists), Index()
    monkeypatch.setattr(Path, "exists", lambda path: looks(path))
    met = set[Path]()
    for _ in range(6):
        looks.reset_mock()
        compare(life, known)
        new = known._sealed.keys() - met
        met |= new
        assert looks.call_count < 6 * len(met) + 12 * len(new), "with the files, not with their square"
        compact(life.data)
        live(life, 25)
    files = len(list(journal_dir(life.data).glob("*.jsonl")))
    assert len(known._sealed) < 3 * files < len(met)


def test_what_grows_is_not_sorted_whole_for_each_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a segment of 16 MB that took 19 ms, each time that a page was looked at."""
    sizes = list[int]()

    def counting(numbers: Iterable[int]) -> list[int]:
        found = sorted(numbers)
        sizes.append(len(found))
        return found

    monkeypatch.setattr(index, "sorted", counting, raising=False)
    monkeypatch.setattr(index, "MERGED_TOGETHER", 128)
    life, known = Life(tmp_path, segment_bytes=10**6), Index()
    life.join()
    life.add_task()
    life.add_task()
    for _ in range(100):
        live(life, 3)
        list(history.outcomes(life.data, ALL, lambda _: True, [key("run", 1)], known))
    compare(life, known)
    life.close()
    held = [len(each) for each in known._runs]
    assert sum(held) > 1000
    assert max(sizes) <= 2 * 128
    assert sum(sizes) < 8 * sum(held)
    assert len(held) < 100, "each is looked through for each question"


@pytest.mark.parametrize("where", ["index", "file"])
def test_a_disk_that_cannot_be_read_is_told_by_its_file(
    life: Life, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """A page of a mapped file that cannot be read is a signal, and the end of the daemon."""
    compact(life.data)
    known = Index()
    compare(life, known)
    path = max(journal_dir(life.data).glob("history-*.jsonl"), key=lambda each: each.stat().st_size)
    bad = (path.with_suffix(SUFFIX) if where == "index" else path).stat().st_ino
    pread = os.pread

    def failing(at: int, size: int, offset: int) -> bytes:
        if os.fstat(at).st_ino == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(at, size, offset)

    monkeypatch.setattr(os, "pread", failing)
    with pytest.raises(OSError, match=f"Input/output error: '{path}'"):
        list(history.outcomes(life.data, ALL, lambda _: True, [key("task", 1)], known))


def test_an_index_that_somebody_removes_is_made_anew(life: Life) -> None:
    """It is no part of the journal; who reads must not look for it for ever."""
    known = Index()
    compare(life, known)
    for path in journal_dir(life.data).glob(f"*{SUFFIX}"):
        path.unlink()
    compare(life, known)


@pytest.mark.parametrize("seq", [b"x", b"9"])
def test_a_damaged_line_hides_no_other(life: Life, seq: bytes) -> None:
    """A sector goes bad under an index that was made before, or under one that is made now."""
    compact(life.data)
    compare(life, Index())
    path = max(journal_dir(life.data).glob("history-*.jsonl"), key=lambda each: each.stat().st_size)
    lines = path.read_bytes().split(b"\n")
    at, row = [(at, row) for at, line in enumerate(lines) if (row := history._outcome(line))][-10]
    lines[at] = re.sub(b"[0-9]+", seq * len(str(row.seq)), lines[at], count=1)
    with path.open("r+b") as file:  # the same file, for all that is known of it
        file.write(b"\n".join(lines))
    for is_new in False, True:
        if is_new:
            path.with_suffix(SUFFIX).unlink()
        rows = list(history.outcomes(life.data, ALL, lambda _: True, [key("task", row.task_id)], Index()))
        expected = [each for each in life.expected() if each.task_id == row.task_id and each.seq != row.seq]
        assert [each for each in rows if each.run != row.run] == expected


def test_no_file_stays_open_between_two_lines(life: Life) -> None:
    """What keep= asks of a thousand tasks is under way at one time, and so are their clients' connections."""
    known = Index()
    compare(life, known)
    before = len(open_descriptors())
    some = [history.outcomes(life.data, ALL, lambda _: True, [key("task", 1)], known) for _ in range(20)]
    assert all(map(next, some))
    assert len(open_descriptors()) < before + 10


def test_what_is_not_surely_written_is_not_remembered(life: Life) -> None:
    """A write that failed is cut off, and other records stand there afterwards."""
    known = Index()
    last = life.journal.last
    compare(life, known, last + 1)
    segment = max(journal_dir(life.data).glob("0*.jsonl"))
    whole = segment.read_bytes()
    with segment.open("ab") as file:
        file.write(
            whole.splitlines(keepends=True)[-1].replace(b'"seq":%d,' % last, b'"seq":%d,' % (last + 1))
        )
    compare(life, known, last + 1)
    segment.write_bytes(whole)
    live(life, 9)
    compare(life, known)
