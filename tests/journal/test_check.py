"""`cronflowd check` tells what is wrong before it touches anything, and never deletes."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cronflowd.base.errors import Exit, Fatal
from cronflowd.engine import facts as f
from cronflowd.engine.state import State
from cronflowd.host.disk import lock_directory, write_atomically
from cronflowd.journal import compaction, history, tasks_file
from cronflowd.journal.check import check
from cronflowd.journal.files import (
    JOURNAL_NAME,
    NEWEST_NAME,
    journal_dir,
    list_checkpoints,
    list_history,
    list_segments,
)
from cronflowd.journal.index import Index
from cronflowd.journal.records import BATCH_MARK, Reader, seal
from cronflowd.journal.replay import Replay
from tests.lib.journal_driver import Life, compact, names, newest_checkpoint, restarted, told


@pytest.fixture
def life(tmp_path: Path) -> Life:
    """Some segments, with and without a checkpoint before them."""
    one = Life(tmp_path / "data", 2_000)
    one.join()
    one.add_task(keep="1000")
    for number in range(20):
        one.run(1, f"line {number}")
    one.close()
    return one


def segments(life: Life) -> list[Path]:
    return [path for _, path in list_segments(journal_dir(life.data))]


def content(data: Path) -> dict[str, bytes]:
    return {str(path.relative_to(data)): path.read_bytes() for path in data.rglob("*") if path.is_file()}


def damage(path: Path, at: int | None = None) -> None:
    changed = bytearray(path.read_bytes())
    changed[len(changed) // 2 if at is None else at] ^= 4
    path.write_bytes(changed)


def test_a_whole_directory_is_told_file_by_file(life: Life, capsys: pytest.CaptureFixture[str]) -> None:
    """Records, their numbers and times; and it changes nothing."""
    life.data.joinpath("lock").touch()
    before = names(life.data.rglob("*"))
    assert check(life.data) == Exit.OK
    out = capsys.readouterr().out
    for path in segments(life):
        assert f"{path.name}: " in out
    assert "records, 1 (2026-11-21T10:00:00Z) to " in out
    assert f"state: 1 tasks, 0 runs not ended, up to record {life.journal.last}" in out
    assert "tasks.db: not there" in out
    assert out.endswith(": whole\n")
    assert names(life.data.rglob("*")) == before


def test_a_compacted_directory_is_whole(life: Life, capsys: pytest.CaptureFixture[str]) -> None:
    """Checkpoint and history are read, too."""
    compact(life.data)
    assert check(life.data) == Exit.OK
    out = capsys.readouterr().out
    assert "checkpoint-" in out
    assert "history-" in out


def test_a_directory_in_use_is_left_alone(life: Life) -> None:
    """Two owners at once is what the lock prevents."""
    lock = lock_directory(life.data)
    with pytest.raises(Fatal) as refused:
        check(life.data)
    assert refused.value.status == Exit.TRY_AGAIN
    lock.close()


def test_a_directory_without_a_journal_is_a_slip_of_the_hand(tmp_path: Path) -> None:
    """And nothing is made in it."""
    with pytest.raises(Fatal) as refused:
        check(tmp_path)
    assert refused.value.status == Exit.USAGE
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("edited", [False, True])
def test_tasks_db_is_compared_with_the_last_save(
    life: Life, edited: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """A hand edit does not win by itself, so it should be known of."""
    path = life.data / f.TASKS_NAME
    size, crc = write_atomically(path, tasks_file.format_tasks([(1, life.state.tasks[1].spec)]))
    life.journal = life._open()
    life.say(f.TasksSaved("tasks.db", life.journal.last, size, crc, 1))
    life.commit()
    life.close()
    if edited:
        path.write_bytes(path.read_bytes() + b"\n")
    assert check(life.data) == Exit.OK
    assert ("edited by hand" if edited else "as it was saved") in capsys.readouterr().out


# --- damage and mending -------------------------------------------------------------------------


def mended(life: Life, capsys: pytest.CaptureFixture[str]) -> str:
    """Finds the damage, changes nothing; mends it; then all is whole. The first report."""
    before = content(life.data)
    assert check(life.data) == Exit.CORRUPT
    report = capsys.readouterr().out
    before.pop("lock", None)
    after = content(life.data)
    after.pop("lock", None)
    assert after == before
    before.pop(f"{JOURNAL_NAME}/{NEWEST_NAME}", None)  # may name what is given up
    assert check(life.data, fix=True) == Exit.OK
    kept = b"".join(content(life.data).values())
    assert all(whole in kept for whole in pieces(before)), "nothing is deleted"
    capsys.readouterr()
    assert check(life.data) == Exit.OK
    capsys.readouterr()
    return report


def pieces(files: dict[str, bytes]) -> list[bytes]:
    return [line for whole in files.values() for line in whole.split(b"\n")]


def test_a_torn_end_is_set_aside(life: Life, capsys: pytest.CaptureFixture[str]) -> None:
    """What a start would do by itself."""
    with segments(life)[-1].open("ab") as file:
        file.write(b'{"seq":9999,"at')
    report = mended(life, capsys)
    assert "is not whole" in report
    assert "the rest is set aside" in report
    assert told(restarted(life.data)[0]) == told(life.state)


def test_damage_in_the_middle_keeps_the_longest_prefix(
    life: Life, capsys: pytest.CaptureFixture[str]
) -> None:
    """The offset is named, and what is lost is said before it is."""
    path = segments(life)[1]
    damage(path)
    report = mended(life, capsys)
    assert f"{path.name}: at byte " in report
    assert "refuses to start" in report
    assert "all later ones are lost" in report
    state, journal = restarted(life.data)
    assert 0 < journal.last < life.journal.last
    assert len(state.tasks) == 1
    assert path == segments(life)[-1]


def test_where_records_are_lost_nobody_is_signed_in_any_more(life: Life) -> None:
    """Numbers of sessions are given again then, as after a restore; a torn end was promised to nobody."""
    key = life.data / "web.key"
    key.touch()
    with segments(life)[-1].open("ab") as file:
        file.write(b'{"seq":')
    assert check(life.data, fix=True) == Exit.OK
    assert key.exists()
    damage(segments(life)[1])
    assert check(life.data) == Exit.CORRUPT
    assert key.exists()
    assert check(life.data, fix=True) == Exit.OK
    assert not key.exists()


def test_a_missing_segment_keeps_what_stands_before_it(
    life: Life, capsys: pytest.CaptureFixture[str]
) -> None:
    """The later files are set aside, whole."""
    gone = segments(life)[2]
    gone.unlink()
    report = mended(life, capsys)
    assert "missing" in report
    assert restarted(life.data)[1].last == int(gone.stem) - 1


@pytest.mark.parametrize("lose", [Path.unlink, lambda path: os.truncate(path, 0)], ids=["removed", "emptied"])
def test_a_newest_segment_that_is_gone_is_told_and_given_up_by_a_fix(
    life: Life, lose: Callable[[Path], object], capsys: pytest.CaptureFixture[str]
) -> None:
    """Until then it can be put back."""
    gone = segments(life)[-1]
    lose(gone)
    report = mended(life, capsys)
    assert f"{gone.name}: at byte 0: " in report
    assert "all later ones are lost" in report
    assert restarted(life.data)[1].last == int(gone.stem) - 1


def test_history_alone_is_no_journal(life: Life, capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers began at 1 again, and old history was taken for that of the new ones."""
    compact(life.data)
    for _, path in [*list_segments(journal_dir(life.data)), *list_checkpoints(journal_dir(life.data))]:
        path.unlink()
    (journal_dir(life.data) / NEWEST_NAME).unlink()
    report = mended(life, capsys)
    assert "everything is set aside" in report
    assert list_history(journal_dir(life.data)) == []


def test_a_damaged_header_ends_the_prefix(life: Life, capsys: pytest.CaptureFixture[str]) -> None:
    """The records in it hang in the air."""
    path = segments(life)[2]
    damage(path, 5)
    mended(life, capsys)
    assert restarted(life.data)[1].last == int(path.stem) - 1
    assert path not in segments(life)


def test_damage_right_after_a_checkpoint_keeps_the_checkpoint(
    life: Life, capsys: pytest.CaptureFixture[str]
) -> None:
    """A journal always has a file to go on in, so a new one is made."""
    compact(life.data)
    *_, path = segments(life)
    life.journal = life._open()
    life.run(1)
    life.close()
    damage(path, 5)
    mended(life, capsys)
    assert restarted(life.data)[1].last == newest_checkpoint(life.data)
    life.journal = life._open()
    life.journal.append([f.TaskResumed(None)], life.now)
    life.commit()
    life.close()
    assert restarted(life.data)[1].last == newest_checkpoint(life.data) + 1


def test_a_damaged_checkpoint_that_is_needed_leaves_nothing(
    life: Life, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said plainly; the next start begins anew, with tasks.db."""
    compact(life.data)
    [(_, path)] = list_checkpoints(journal_dir(life.data))
    damage(path)
    report = mended(life, capsys)
    assert "everything is set aside" in report
    assert restarted(life.data)[1].last == 0
    assert list_history(journal_dir(life.data)) == []


def test_a_damaged_checkpoint_that_is_not_needed_is_set_aside(
    life: Life, capsys: pytest.CaptureFixture[str]
) -> None:
    """The segments still tell everything."""
    compaction.compact(journal_dir(life.data), 10**9)
    [(_, path)] = list_checkpoints(journal_dir(life.data))
    damage(path)
    mended(life, capsys)
    assert told(restarted(life.data)[0]) == told(life.state)
    assert not path.exists()


def test_damaged_history_keeps_its_beginning(life: Life, capsys: pytest.CaptureFixture[str]) -> None:
    """Only old rows are lost, and the state not at all."""
    compact(life.data)
    [file] = list_history(journal_dir(life.data))
    damage(file.path)
    mended(life, capsys)
    assert told(restarted(life.data)[0]) == told(life.state)
    assert file.path.exists()


def test_an_index_by_which_a_run_is_not_found_is_made_anew(
    life: Life, capsys: pytest.CaptureFixture[str]
) -> None:
    """RUNS and LOG of it showed nothing, as of one that keep= had let go, and nobody told why."""
    compact(life.data)
    [file] = list_history(journal_dir(life.data))
    beside = file.path.with_suffix(".index")
    before = history.output(life.data, 1, index=Index())
    whole = content(life.data)[f"{JOURNAL_NAME}/{beside.name}"]
    for at in range(24, len(whole), 8):
        damage(beside, at + 5)
    assert (before, history.output(life.data, 1, index=Index())) == ([(1, "line 0")], [])
    assert check(life.data) == Exit.CORRUPT
    assert f"{beside.name}: what stands where in that file; DAMAGED: it is another" in capsys.readouterr().out
    assert check(life.data, fix=True) == Exit.OK
    assert check(life.data) == Exit.OK
    assert history.output(life.data, 1, index=Index()) == before
    assert beside.read_bytes() == whole


def test_a_fact_of_an_unknown_kind_is_not_cut_away(life: Life, capsys: pytest.CaptureFixture[str]) -> None:
    """A newer release may have written it, though the header should have said so."""
    path = segments(life)[-1]
    reader = Reader(path)
    list(reader)
    body = b'{"seq":%d,"at":"2026-11-21T10:00:00Z","fact":"MoonRisen"' % (life.journal.last + 1)
    with path.open("ab") as file:
        file.write(seal(body + BATCH_MARK, reader.chain)[0])
    assert check(life.data, fix=True) == Exit.CORRUPT
    assert "MoonRisen" in capsys.readouterr().out
    assert b"MoonRisen" in path.read_bytes()
    with pytest.raises(Fatal, match=r"MoonRisen.*bring this one up to date") as refused:
        restarted(life.data)
    assert "--fix" not in refused.value.message, "it would give up what was acknowledged"


def test_a_record_that_makes_no_sense_is_not_cut_away(life: Life, capsys: pytest.CaptureFixture[str]) -> None:
    """The bytes are what was written: that is a bug to report, not a disk to mend."""
    life.journal = life._open()
    life.journal.append([f.RunStarted(9999, 1)], life.now)
    life.commit()
    life.close()
    before = content(life.data)
    assert check(life.data, fix=True) == Exit.CORRUPT
    assert "cannot be applied" in capsys.readouterr().out
    after = content(life.data)
    before.pop("lock", None), after.pop("lock", None)
    assert after == before


@pytest.mark.parametrize("seed", range(25))
def test_whatever_the_damage_mending_gives_a_prefix(
    life: Life, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Random damage in random files; afterwards a start succeeds with a state that was once true."""
    dice = random.Random(seed)
    states = prefixes(life)
    if dice.random() < 0.5:
        compact(life.data)
    files = sorted(journal_dir(life.data).glob("*.jsonl"))
    for path in dice.sample(files, min(len(files), dice.randint(1, 3))):
        damage(path, dice.randrange(path.stat().st_size))
    status = check(life.data, fix=True)
    assert status == Exit.OK
    assert check(life.data) == Exit.OK
    state, journal = restarted(life.data)
    assert told(state) == states[journal.last]


def prefixes(life: Life) -> dict[int, list[f.Fact]]:
    """The state after each decision, by the number of its last record."""
    state, states = State(recent_runs=10**9), {0: told(State())}
    for seq, at, fact in Replay(journal_dir(life.data)):
        state.apply(fact, at, seq)
        states[seq] = told(state)
    return states


def test_mending_twice_never_overwrites_what_was_set_aside(
    life: Life, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second damage is another one."""
    for _ in range(2):
        (journal_dir(life.data) / NEWEST_NAME).unlink(missing_ok=True)
        path = segments(life)[-1]
        shutil.copy(path, path.with_suffix(".copy"))
        path.write_bytes(b"nonsense")
        check(life.data, fix=True)
        shutil.move(path.with_suffix(".copy"), path)
    assert len(list(journal_dir(life.data).glob("*.tail-0*"))) == 2
