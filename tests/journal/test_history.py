"""RUNS and LOG reach as far back as the files do, each record once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cronflowd.journal import compaction, history
from cronflowd.journal.files import journal_dir
from cronflowd.journal.index import Index
from tests.lib.journal_driver import Life, compact, newest_checkpoint

ALL = 2**62


def everything(data: Path, before: int = ALL) -> list[object]:
    return list(history.outcomes(data, before, lambda _: True))


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    """Two tasks, many runs and skipped fires, in many segments."""
    one = Life(tmp_path)
    one.join()
    one.add_task()
    one.add_task()
    for number in range(60):
        one.run(1 + number % 2, f"first {number}", f"second {number}")
        if number % 5 == 0:
            one.skip(1)
    assert len(one.journal.closed) > 5
    yield one
    one.close()


def test_outcomes_come_newest_first_and_equal_those_in_memory(life: Life) -> None:
    """A row of RUNS must not look different because it is old."""
    assert everything(life.data) == life.expected()


def test_only_records_before_the_given_one_are_read(life: Life) -> None:
    """What memory still holds must not come twice."""
    for before in (1, 50, 51, 200, life.journal.last + 1):
        assert everything(life.data, before) == [row for row in life.expected() if row.seq < before]


def test_only_what_is_wanted_is_given(life: Life) -> None:
    """RUNS has filters."""
    found = list(history.outcomes(life.data, ALL, lambda row: row.state == "skipped"))
    assert found == [row for row in life.expected() if row.state == "skipped"]
    assert len(found) == 12


def test_a_reader_that_stops_early_reads_no_further(life: Life) -> None:
    """LIMIT 1 must not read a gigabyte."""
    assert next(history.outcomes(life.data, ALL, lambda _: True)) == life.expected()[0]


def test_output_is_whole_and_in_order(life: Life) -> None:
    """Also that of the first run, in the oldest file."""
    for run in (1, 2, 33, 60):
        assert history.output(life.data, run) == [(1, f"first {run - 1}"), (1, f"second {run - 1}")]
    assert history.output(life.data, 61) == []


def test_output_spread_over_files_is_put_together(life: Life) -> None:
    """A long job writes while segments come and go."""
    long = life.start(1)
    expected = []
    for number in range(30):
        life.write(long, f"long {number}")
        expected.append((1, f"long {number}"))
        life.run(2, "x" * 300)
    life.end(long)
    life.commit()
    assert history.output(life.data, long) == expected


def test_output_stops_at_the_record_that_was_asked_for(life: Life) -> None:
    """LOG follow reads the past up to one record and hears the rest live."""
    run = life.start(1)
    life.write(run, "past")
    upto = life.journal.last
    life.write(run, "live")
    life.commit()
    assert history.output(life.data, run, upto) == [(1, "past")]


def test_compaction_does_not_change_what_is_told(life: Life) -> None:
    """The files are others, the rows the same."""
    compaction.compact(journal_dir(life.data), 10**9)
    assert everything(life.data) == life.expected()
    compaction.remove_superseded(life.data, newest_checkpoint(life.data))
    assert everything(life.data) == life.expected()
    assert history.output(life.data, 1) == [(1, "first 0"), (1, "second 0")]


def test_files_that_vanish_while_they_are_read_are_no_loss(life: Life) -> None:
    """A compaction may end between two rows of a reply."""
    rows = history.outcomes(life.data, ALL, lambda _: True)
    found = [next(rows), next(rows)]
    compact(life.data)
    found += rows
    assert found == life.expected()


def test_files_that_vanish_after_they_were_listed_are_looked_for_again(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same, at the worst moment."""
    real, times = history.sources, []

    def sources_then_compaction(directory: Path) -> list[history.Source]:
        found = real(directory)
        times.append(len(found))
        if len(times) == 1:
            compact(life.data)
        return found

    monkeypatch.setattr(history, "sources", sources_then_compaction)
    assert everything(life.data) == life.expected()
    assert len(times) > 1


def test_a_line_that_is_being_written_is_left_out(life: Life) -> None:
    """The committer writes while we read."""
    segment = max(journal_dir(life.data).glob("0*.jsonl"))
    with segment.open("ab") as file:
        file.write(b'{"seq":99999,"at":"2026-11-21T10:00:00Z","fact":"RunEnded","run":1')
    assert everything(life.data) == life.expected()


def test_a_damaged_line_is_passed_over(life: Life) -> None:
    """RUNS still answers; check tells of the damage."""
    segment = min(journal_dir(life.data).glob("0*.jsonl"))
    content = segment.read_bytes()
    at = content.index(b'"fact":"RunEnded"')
    segment.write_bytes(content[: at + 20] + b"\xff" + content[at + 21 :])
    assert everything(life.data) == life.expected()[:-1]


@pytest.mark.parametrize("size", [1, 7, 100, 262_144])
def test_lines_backwards_whatever_the_block(
    tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines begin and end anywhere in a block."""
    monkeypatch.setattr(history, "_BLOCK_BYTES", size)
    path = tmp_path / "lines"
    lines = [b"a", b"", b"bc" * 50, b"d"]
    path.write_bytes(b"\n".join(lines) + b"\nunfinished")
    assert list(history.lines_backwards(path)) == lines[::-1]
    for content in (b"", b"no newline"):
        path.write_bytes(content)
        assert list(history.lines_backwards(path)) == []


def test_how_much_very_many_have_written_is_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LOG of an old run asks it of each newer one of its task: with keep=100000 that took minutes."""
    life = Life(tmp_path)
    life.join()
    life.add_task()
    runs = [life.run(1, *["x" * number] * (number % 3)) for number in range(1, 13)]
    one = history.Sizes(tmp_path, 2**62, Index())
    reads, real = list[Any](), history._lines_before

    def counted(*args: Any) -> Any:
        reads.append(args)
        return real(*args)

    monkeypatch.setattr(history, "_lines_before", counted)
    monkeypatch.setattr(history, "MAX_LOOKED_UP", 2)
    many = history.Sizes(tmp_path, 2**62, Index())
    found = [many(run) for run in runs]
    assert len(reads) == 3
    monkeypatch.setattr(history, "MAX_LOOKED_UP", 100)
    assert found == [one(run) for run in runs]
    assert 0 in found and max(found) > 100
    life.close()
