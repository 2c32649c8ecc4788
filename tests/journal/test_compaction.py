"""The journal made short starts with the same state, and forgets of the past only what it may."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cronflowd.base.errors import Exit, Fatal
from cronflowd.engine import facts as f
from cronflowd.host import disk
from cronflowd.host.disk import lock_directory
from cronflowd.journal import compaction, history
from cronflowd.journal.files import (
    COMPACTING_NAME,
    journal_dir,
    list_checkpoints,
    list_history,
    list_segments,
)
from cronflowd.journal.replay import check_checkpoint
from cronflowd.journal.tasks_file import fingerprint
from cronflowd.tasks.options import parse_keep
from cronflowd.tasks.task import Outcome
from tests.lib.journal_driver import MUCH, Life, compact, names, newest_checkpoint, restarted, told
from tests.lib.simulated_disk import IO_ERROR, NO_SPACE


@pytest.fixture(autouse=True)
def as_important_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes room to others here is the process of all tests."""
    monkeypatch.setattr(compaction, "_NICE", 0)


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    """Three tasks, runs that ended and runs that have not, in many segments."""
    one = Life(tmp_path)
    one.join()
    for _ in range(3):
        one.add_task(keep="1000")
    one.start(3)
    for number in range(40):
        one.run(1 + number % 2, f"line {number}")
    one.say(f.TaskPaused(2, None, "why"), f.TaskRemoved(1, "removed"))
    one.start(3)
    one.commit()
    yield one
    one.close()


def rows(data: Path) -> list[Outcome]:
    return list(history.outcomes(data, 2**62, lambda _: True))


# --- the same state ---------------------------------------------------------------------------


def test_a_start_finds_the_same_state_and_less_to_read(life: Life) -> None:
    """That is what compaction is for."""
    before = life.journal.last
    upto = life.compact()
    assert 0 < upto < before
    state, journal = restarted(life.data)
    assert told(state) == told(life.state)
    assert journal.last == before
    assert [first for first, _ in list_segments(journal_dir(life.data))][1:] == [upto + 1]


def test_the_newest_of_what_was_closed_is_still_told_whole(life: Life) -> None:
    """Or whoever was cut off from WATCH for a second at that moment would have a gap."""
    newest = life.journal.closed[-1]
    known = newest.first - 1
    before = history.facts(life.data, known, life.journal.last)
    assert life.compact() == newest.last
    assert before
    assert history.facts(life.data, known, life.journal.last) == before
    assert history.facts(life.data, known - 1, life.journal.last) is None


def test_a_run_whose_worker_never_comes_back_has_a_lease_either_way(life: Life) -> None:
    """A start from a checkpoint must find the same runs lost as one from the whole journal."""

    def started() -> list[f.Fact]:
        state, journal = restarted(life.data)
        lease_until_at = life.now + timedelta(seconds=30)
        state.apply(f.DaemonStarted("1", "UTC", lease_until_at), life.now, journal.last + 1)
        assert all(run.lease_until_at for run in state.runs.values())
        return told(state)

    from_all = started()
    life.compact()
    assert started() == from_all


def test_memory_begins_where_history_ends(life: Life) -> None:
    """RUNS joins the two: no row twice, none missing."""
    upto = life.compact()
    state, _ = restarted(life.data)
    old = list(history.outcomes(life.data, state.history_from_seq, lambda _: True))
    assert [*reversed(state.recent), *old] == life.expected()
    assert state.history_from_seq == upto + 1


def test_life_goes_on_after_it(life: Life) -> None:
    """Numbers and CRCs go on where they were; and it can be done again and again."""
    for _ in range(4):
        life.compact()
        for _ in range(12):
            life.run(2, "x" * 100)
        state, _ = restarted(life.data)
        assert told(state) == told(life.state)
    assert rows(life.data) == life.expected()


def test_the_daemon_is_told_what_to_journal(life: Life, capfd: pytest.CaptureFixture[str]) -> None:
    """One line of JSON: name, last record, size and CRC."""
    assert compaction.main(life.data) == Exit.OK
    told_line = json.loads(capfd.readouterr().out)
    path = journal_dir(life.data) / told_line["file"]
    assert told_line["upto"] == newest_checkpoint(life.data) == life.journal.closed[-1].last
    assert fingerprint(path) == (told_line["size"], told_line["crc"])


def test_a_daemon_that_is_gone_needs_not_be_told(life: Life) -> None:
    """Each daemon that was killed while its journal was made short left a traceback in the log."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "cronflowd", "compact", str(life.data), "1000000", "9"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
    assert newest_checkpoint(life.data)


def test_without_a_closed_segment_there_is_nothing_to_do(tmp_path: Path) -> None:
    """The open one belongs to the daemon."""
    life = Life(tmp_path, 10**6)
    life.add_task()
    life.commit()
    with pytest.raises(Fatal) as refused:
        compaction.main(tmp_path)
    assert refused.value.status == Exit.TRY_AGAIN
    life.close()


def test_only_one_runs_at_a_time(life: Life) -> None:
    """That of a daemon which was killed may still be at work."""
    lock = lock_directory(journal_dir(life.data), COMPACTING_NAME)
    with pytest.raises(Fatal, match="in use by process") as refused:
        compaction.main(life.data)
    lock.close()
    assert refused.value.status == Exit.TRY_AGAIN


def test_a_bad_sector_of_the_past_is_no_reason_to_let_the_journal_grow(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state was short already, and only an index lacked, which its readers make."""
    monkeypatch.setattr(os, "pread", lambda *_: IO_ERROR())
    assert compaction.main(life.data) == Exit.OK
    assert newest_checkpoint(life.data)


def leftovers(directory: Path, *pids: int) -> list[Path]:
    """As killed processes leave them, and one of a segment that a daemon is making."""
    made = [directory / f".checkpoint-{7:020d}.jsonl.{pid}-0.tmp" for pid in pids]
    for path in [*made, directory / f".{7:020d}.jsonl.tmp"]:
        path.touch()
    return made


def test_what_a_killed_one_left_is_cleared_by_the_next(life: Life) -> None:
    """Where memory is short each try is killed, and each left a file, until the disk was full."""
    directory = journal_dir(life.data)
    gone, ours, daemons = leftovers(directory, 1_000_000_007, os.getpid(), os.getppid())
    assert compaction.main(life.data) == Exit.OK
    assert not gone.exists()
    assert ours.exists()
    assert daemons.exists()
    assert (directory / f".{7:020d}.jsonl.tmp").exists()


@pytest.mark.parametrize("is_at_work", [True, False])
def test_what_goes_on_from_a_killed_daemon_is_not_disturbed_by_the_next(life: Life, is_at_work: bool) -> None:
    """Its start took the file away that was nearly written."""
    life.close()
    directory = journal_dir(life.data)
    lock = lock_directory(directory, COMPACTING_NAME)
    if not is_at_work:
        lock.close()
    (theirs, gone) = leftovers(directory, os.getpid(), 1_000_000_007)
    restarted(life.data)
    assert [each.exists() for each in (theirs, gone)] == [is_at_work, False]
    assert not (directory / f".{7:020d}.jsonl.tmp").exists()
    if is_at_work:
        lock.close()


def test_what_goes_on_writes_nothing_into_another_journal(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restore after the daemon was killed: a start took the old checkpoint for the restored journal's."""
    directory, real = journal_dir(life.data), compaction.write_history
    replaced = directory.with_name("replaced")

    def while_it_is_restored(*arguments: Any) -> None:
        directory.rename(replaced)
        directory.mkdir()
        real(*arguments)

    monkeypatch.setattr(compaction, "write_history", while_it_is_restored)
    assert compaction.main(life.data) == Exit.OK
    assert list(directory.iterdir()) == []
    assert list_checkpoints(replaced)
    directory.rmdir()
    replaced.rename(directory)
    assert told(restarted(life.data)[0]) == told(life.state)


def test_what_is_appended_meanwhile_is_left_alone(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon does not stop for it; it may even begin new files."""
    real = compaction.write_history

    def while_the_daemon_works(*arguments: object) -> None:
        for _ in range(15):
            life.run(2, "meanwhile " * 20)
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(compaction, "write_history", while_the_daemon_works)
    life.compact()
    state, _ = restarted(life.data)
    assert told(state) == told(life.state)
    assert rows(life.data) == life.expected()


# --- crashes -----------------------------------------------------------------------------------


class PowerCutError(Exception):
    """The process is gone."""


def test_a_crash_at_any_step_leaves_the_same_state(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every system call that changes a name or a file, and the end after it."""
    expected, outcomes = told(life.state), life.expected()
    steps = 0

    def dying(real: Callable[..., object], left: list[int]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            if left[0] == 0:
                raise PowerCutError
            left[0] -= 1
            return real(*arguments, **options)

        return call

    for steps in range(1000):
        data = life.data.parent / f"crash-{steps}"
        shutil.copytree(life.data, data)
        with monkeypatch.context() as patch:
            left = [steps]
            for name in ("open", "pwrite", "fsync", "rename"):
                patch.setattr(disk.DISK, name, dying(getattr(disk.DISK, name), left))
            patch.setattr(Path, "unlink", dying(Path.unlink, left))
            try:
                compact(data)
                finished = True
            except PowerCutError:
                finished = False
        state, _ = restarted(data)
        assert told(state) == expected, steps
        assert rows(data) == outcomes, steps
        # And the next one brings it to its end.
        compact(data)
        assert told(restarted(data)[0]) == expected, steps
        assert rows(data) == outcomes, steps
        shutil.rmtree(data)
        if finished:
            break
    assert steps > 15


def test_removal_does_nothing_without_the_checkpoint(life: Life) -> None:
    """A slip here would delete the only copy."""
    before = names(journal_dir(life.data).iterdir())
    assert compaction.remove_superseded(life.data, life.journal.closed[-1].last) == 0
    assert names(journal_dir(life.data).iterdir()) == before


def test_removal_is_idempotent(life: Life) -> None:
    """The daemon may die in the middle and be asked again."""
    upto = life.compact()
    after = names(journal_dir(life.data).iterdir())
    assert compaction.remove_superseded(life.data, upto) == 0
    assert names(journal_dir(life.data).iterdir()) == after


def test_a_damaged_checkpoint_is_passed_over_while_the_segments_are_there(life: Life) -> None:
    """Until the journal says that it stands, nothing depends on it."""
    compaction.compact(journal_dir(life.data), MUCH)
    [(_, path)] = list_checkpoints(journal_dir(life.data))
    content = path.read_bytes()
    for cut in (0, 1, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:cut])
        assert told(restarted(life.data)[0]) == told(life.state)
    assert check_checkpoint(path)[1]


def test_a_damaged_checkpoint_that_is_needed_is_refused(life: Life) -> None:
    """To start empty would be to lose everything without a word."""
    life.compact()
    [(_, path)] = list_checkpoints(journal_dir(life.data))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(Fatal, match=path.name) as refused:
        restarted(life.data)
    assert refused.value.status == Exit.CORRUPT


def test_a_full_disk_leaves_everything_as_it_was(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compaction is tried again; the journal must not suffer."""
    before = names(journal_dir(life.data).glob("*.jsonl"))
    monkeypatch.setattr(disk.Disk, "pwrite", lambda *_: NO_SPACE())
    with pytest.raises(Fatal) as refused:
        compaction.main(life.data)
    assert refused.value.status == Exit.IO
    assert refused.value.message.startswith(
        f"{journal_dir(life.data)}: history-"
    )  # where that is the log tells
    assert names(journal_dir(life.data).glob("*.jsonl")) == before
    assert not list(journal_dir(life.data).glob(".*.tmp"))


# --- what is kept ------------------------------------------------------------------------------


def finished(tmp_path: Path, keep: str, number: int = 30, text: str = "") -> Life:
    """A task whose runs all stand in closed segments."""
    life = Life(tmp_path, 1000)
    life.join()
    life.add_task(keep=keep)
    life.add_task()
    for _ in range(number):
        life.run(1, text or "line")
    for _ in range(5):
        life.run(2)
    return life


def kept(data: Path, task: int = 1) -> list[int | None]:
    return [row.run for row in rows(data) if row.task_id == task]


def test_each_task_keeps_as_many_runs_as_it_says(tmp_path: Path) -> None:
    """The newest; and another task is not touched by it."""
    life = finished(tmp_path, "7")
    life.compact()
    assert kept(tmp_path) == list(range(30, 23, -1))
    assert len(kept(tmp_path, 2)) == 5
    assert history.output(tmp_path, 24) == [(1, "line")]
    assert history.output(tmp_path, 23) == []
    life.close()


def test_a_task_that_does_not_say_how_much_keeps_what_the_daemon_is_told(tmp_path: Path) -> None:
    """--keep reaches the process that makes files short; one that says keep= itself goes by that."""
    life = finished(tmp_path, "7")
    compaction.compact(journal_dir(life.data), MUCH, parse_keep("2"))
    assert (len(kept(tmp_path)), len(kept(tmp_path, 2))) == (7, 2)
    life.close()


def test_age_counts_from_the_end_of_the_run(tmp_path: Path) -> None:
    """By the journal's own clock: a machine that slept a year forgets nothing while it sleeps."""
    life = finished(tmp_path, "100,1h", 5)
    life.now += timedelta(hours=2)
    for _ in range(5):
        life.run(1)
    for _ in range(5):
        life.run(2)
    life.compact()
    assert kept(tmp_path) == [15, 14, 13, 12, 11]
    life.close()


def test_a_clock_that_showed_another_year_for_a_while_makes_nothing_old(tmp_path: Path) -> None:
    """A machine that woke up in 2038 and was set right lost all its history, the last minute's as well."""
    life = finished(tmp_path, "100,1h", 5)
    life.now += timedelta(days=4000)
    life.run(2)
    life.now -= timedelta(days=4000)
    for _ in range(5):
        life.run(2)
    life.compact()
    assert kept(tmp_path) == [5, 4, 3, 2, 1]
    assert len(kept(tmp_path, 2)) == 11
    life.close()


def test_what_ended_within_the_second_that_age_reaches_back_to_is_kept(tmp_path: Path) -> None:
    """By the texts of times, half past a second came before it: RUNS lost what it had shown just before."""
    life = Life(tmp_path, 1000)
    life.join()
    life.add_task(keep="100,10s")
    life.add_task()
    life.now += timedelta(milliseconds=500)
    life.run(1)
    life.now += timedelta(seconds=4, milliseconds=-300)
    for _ in range(3):
        life.run(2, "x" * 900)
    assert life.compact() > 0
    assert kept(tmp_path) == [1]
    life.close()


def test_output_has_its_own_bound_and_rows_outlive_it(tmp_path: Path) -> None:
    """A chatty job loses old output, not the knowledge that it ran."""
    life = finished(tmp_path, "20,10K", 20, "x" * 1000)
    life.compact()
    assert len(kept(tmp_path)) == 20
    assert [bool(history.output(tmp_path, run)) for run in range(1, 21)] == [False] * 11 + [True] * 9
    life.close()


def test_skipped_fires_do_not_push_runs_out(tmp_path: Path) -> None:
    """A task that is skipped every minute must still show when it last ran."""
    life = finished(tmp_path, "5", 5)
    for _ in range(50):
        life.skip(1)
    for _ in range(5):
        life.run(2)
    life.compact()
    states = [row.state for row in rows(tmp_path) if row.task_id == 1]
    assert (states.count("ok"), states.count("skipped")) == (5, 5)
    life.close()


def test_a_removed_tasks_history_stays_by_the_default(tmp_path: Path) -> None:
    """One-off tasks remove themselves, and people look for what became of them."""
    life = finished(tmp_path, "7")
    life.say(f.TaskRemoved(1, "done"))
    for _ in range(10):
        life.run(2)
    life.compact()
    assert len(kept(tmp_path)) == 30
    life.close()


def test_a_run_that_has_not_ended_keeps_its_output(tmp_path: Path) -> None:
    """However many runs came and went meanwhile, and however often was compacted."""
    life = finished(tmp_path, "3", 3)
    life.add_task(overlap="allow", keep="2")
    long = life.start(3)
    expected = []
    for number in range(6):
        life.write(long, f"part {number}")
        expected.append((1, f"part {number}"))
        for _ in range(4):
            life.run(3, "short " * 20)
        life.compact()
        assert history.output(tmp_path, long) == expected
    life.end(long)
    life.commit()
    for _ in range(5):
        life.run(2)
    life.compact()
    assert history.output(tmp_path, long) == expected
    life.close()


def test_a_report_that_came_late_is_told_whichever_file_it_stands_in(tmp_path: Path) -> None:
    """LOG tells of it; behind the file that its run ended in, a compaction let it go."""
    life = Life(tmp_path)
    life.add_task(keep="100,30d")
    first = life.run(1, "first")
    for _ in range(60):
        life.run(1, "short " * 20)
    life.compact()
    late = {"code": "late-report", "worker": "w2", "attempt": 1, "exit": 0}
    life.say(f.OutputReceived(first, 1, [[0, late]]))
    for _ in range(15):  # fewer, or they would come into one file with the older ones
        life.run(1, "short " * 20)
    life.compact()
    assert history.output(tmp_path, first) == [(1, "first"), (0, late)]
    life.close()


def test_every_attempt_of_a_kept_run_is_kept(tmp_path: Path) -> None:
    """They are rows of one run."""
    life = Life(tmp_path, 1000)
    life.join()
    life.add_task(retry="fixed:3:1s", keep="2")
    life.add_task()
    for _ in range(4):
        run = life.start(1)
        due = life.state.runs[run].due_at
        failed = f.RunEnded(run, 1, 1, "task_1", "failed", due, due, "w1", 1, None, False)
        life.say(failed, f.RunRetried(run, 2, life.now), f.RunReleased(run))
        life.say(f.RunSent(run, 2, "w1"), f.RunStarted(run, 2))
        life.say(f.RunEnded(run, 2, 1, "task_1", "ok", due, due, "w1", 0, None, True))
        life.commit()
    for _ in range(5):
        life.run(2)
    life.compact()
    assert [(row.run, row.attempt) for row in rows(tmp_path) if row.task_id == 1] == [
        (4, 2),
        (4, 1),
        (3, 2),
        (3, 1),
    ]
    life.close()


@pytest.mark.parametrize("bound", [0, 2_000, 20_000, 60_000])
def test_all_history_together_stays_within_its_bound(tmp_path: Path, bound: int) -> None:
    """The oldest go first; what stays is without gaps."""
    life = Life(tmp_path, 5_000)
    life.join()
    life.add_task(keep="10000")
    for number in range(10):
        for _ in range(40):
            life.run(1, f"output {number}")
        upto = life.compact(bound)
        sizes = [file.path.stat().st_size for file in list_history(journal_dir(tmp_path))]
        assert sum(sizes) <= bound + 150 * len(sizes), "headers aside"
    runs = kept(tmp_path)
    assert runs == list(range(400, 400 - len(runs), -1))
    old = [row for row in rows(tmp_path) if row.seq <= upto]
    # Whole files go at once, each an eighth; a row and its output take about 350 bytes here.
    assert len(old) >= bound * 0.6 // 450
    assert len(old) <= bound / 250
    life.close()


def test_small_files_are_merged_and_large_ones_left_alone(tmp_path: Path) -> None:
    """Each record is copied a handful of times, not at every compaction."""
    life = Life(tmp_path, 4_000)
    life.join()
    life.add_task(keep="100000")
    written: list[int] = []
    for _ in range(24):
        for _ in range(20):
            life.run(1, "x" * 50)
        before = {file.path.name: file.path.stat().st_ino for file in list_history(journal_dir(tmp_path))}
        life.compact()
        after = list_history(journal_dir(tmp_path))
        written += [
            file.path.stat().st_size
            for file in after
            if before.get(file.path.name) != file.path.stat().st_ino
        ]
    total = sum(file.path.stat().st_size for file in list_history(journal_dir(tmp_path)))
    assert len(list_history(journal_dir(tmp_path))) < 8
    assert sum(written) < 6 * total
    assert rows(tmp_path) == life.expected()
    life.close()


def test_once_a_day_all_of_it_is_gone_through(tmp_path: Path) -> None:
    """What has become too old is deleted even from files that nothing is merged with."""
    life = Life(tmp_path, 4_000)
    life.join()
    life.add_task(keep="100000,2d")
    for _ in range(100):
        life.run(1, "x" * 50)
    life.compact()
    life.now += timedelta(days=3)
    for _ in range(20):
        life.run(1, "x" * 50)
    upto = life.compact()
    assert [row.run for row in rows(tmp_path) if row.seq <= upto][-1] == 101
    life.close()


def test_what_cannot_be_read_of_a_history_file_is_kept_under_another_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Merging would else delete it without a word."""
    life = finished(tmp_path, "1000")
    life.compact()
    [file] = list_history(journal_dir(tmp_path))
    content = bytearray(file.path.read_bytes())
    content[len(content) // 2] ^= 1
    file.path.write_bytes(content)
    for _ in range(40):
        life.run(2)
    life.compact()
    [aside] = journal_dir(tmp_path).glob("*.damaged")
    assert aside.read_bytes() == content
    assert aside.name in capsys.readouterr().err
    assert told(restarted(tmp_path)[0]) == told(life.state)
    life.close()


# --- any life at all ----------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.sampled_from("add run start end skip compact pause restart".split()), max_size=60))
def test_whatever_happened_compacted_or_not_is_the_same(tmp_path: Path, steps: list[str]) -> None:
    """State and rows of a life with compactions equal those of memory, which knows none."""
    data = tmp_path / "data"
    shutil.rmtree(data, ignore_errors=True)
    life = Life(data, 700)
    life.join()
    life.add_task(keep="1000")
    for step in steps:
        going = list(life.state.runs)
        if step == "add":
            life.add_task(keep="1000", overlap="allow")
        elif step == "run":
            life.run(life.tasks, "line")
        elif step == "start":
            life.write(life.start(1), "line")
        elif step == "end" and going:
            life.end(going[0])
        elif step == "skip":
            life.skip(1)
        elif step == "pause":
            life.say(f.TaskPaused(1, None, ""))
        life.commit()
        if step == "compact" and life.journal.closed:
            life.compact()
        if step == "restart":
            life.close()
            life.journal = life._open()
    life.close()
    state, _ = restarted(data)
    assert told(state) == told(life.state)
    assert rows(data) == life.expected()
