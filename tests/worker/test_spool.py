"""The worker's memory of reports: what a kill leaves, and how the file stays small."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from math import inf
from pathlib import Path

import pytest

from cronflowd.base.errors import Exit, Fatal
from cronflowd.worker import spool as spools
from cronflowd.worker.reports import Reports
from cronflowd.worker.spool import Spool


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool")
    yield spool
    spool.close()


def content(spool: Spool) -> str:
    lines = (spool.directory / "reports").read_text().splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("WORKER "))


def test_a_successor_reads_what_nobody_acknowledged(spool: Spool) -> None:
    """With the output that belongs to a report, and without a last line that the kill cut short."""
    (spool.directory / "reports").write_text(
        "RUN 1 1\nRUN 2 1\nRUN 3 2\nOUT 2 1 a\nDONE 2 1 0\nDONE 1 1 3\nnonsense\nACK 1 1\nDONE 4 1 0 why="
    )
    assert spool.load() == ({"2 1": "OUT 2 1 a\nDONE 2 1 0\n"}, ["3 2"])
    assert content(spool) == "RUN 3 2\nOUT 2 1 a\nDONE 2 1 0\n"


def test_a_file_of_something_else_is_told_of(spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
    """Runs that it should have known end as lost, and nobody could say why."""
    (spool.directory / "reports").write_bytes(b"\0\0\0 rubbish")
    assert spool.load() == ({}, [])
    assert f"{spool.directory}/reports: it holds no reports" in caplog.text


def test_a_kill_right_after_the_start_does_not_forget_what_was_running(spool: Spool) -> None:
    """Its successor has the same memory, so what it did not name would be run a second time."""
    (spool.directory / "reports").write_text("WORKER i\nRUN 3 2\nDONE 1 1 0\n")
    assert spool.load() == ({"1 1": "DONE 1 1 0\n"}, ["3 2"])
    assert spool.load() == ({"1 1": "DONE 1 1 0\n"}, ["3 2"])


def test_it_is_cut_at_every_byte_and_never_invents_a_report(spool: Spool) -> None:
    """A kill can come in the middle of any write."""
    whole = "RUN 1 1\nDONE 1 1 0\nOUT 2 1 a\nDONE 2 1 143 signal=15\nACK 1 1\n"
    file = spool.directory / "reports"
    for end in range(len(whole) + 1):
        file.write_text(whole[:end])
        reports, _ = spool.load()
        assert (
            reports.items() <= {"1 1": "DONE 1 1 0\n", "2 1": "OUT 2 1 a\nDONE 2 1 143 signal=15\n"}.items()
        )


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize("rest", [b"\0", b"\n"])
def test_whatever_a_machine_that_broke_down_left_of_it_is_read(spool: Spool, size: int, rest: bytes) -> None:
    """A worker that does not start is started for ever, and a report that no daemon takes told for ever."""
    whole = (
        b"WORKER i\nRUN 1 1\nRUN 2 1\nOWED 1 1 3 9\nOUT 1 1 one two\nDONE 1 1 0\nACK 3 1\n"
        b'REFUSED 4 1 user why="no such user"\nOUT 2 1 x\\\nDONE 2 1 143 signal=15\n'
    )
    for at in range(len(whole)):
        torn = whole[:at] + rest * min(size, len(whole) - at) + whole[at + size :]
        (spool.directory / "reports").write_bytes(torn)
        reports = Reports(spool)
        running = reports.load()
        reports.resume(None, {})
        for key in running:
            assert re.fullmatch("[0-9]{1,15} [0-9]{1,15}", key)
        for key, text in reports.items():
            *outputs, end = text.splitlines()
            assert re.fullmatch(rf"(DONE {key} -?[0-9]+|REFUSED {key} [a-z]+)( [^\0]*)?", end)
            assert all(re.fullmatch(r"(OUT|OWED) [0-9]+ [0-9]+ [^\0]*", line) for line in outputs)
            assert all(line.split()[1] == key.split()[0] for line in outputs)


def test_nothing_is_left_in_it_when_all_is_acknowledged(spool: Spool) -> None:
    """The usual case, and the cheapest: the file is emptied in place."""
    spool.accept("1 1")
    spool.flush({}, ["1 1"])
    assert content(spool) == "RUN 1 1\n"
    spool.report("DONE 1 1 0\n")
    spool.flush({"1 1": "DONE 1 1 0\n"}, [])
    assert content(spool) == "RUN 1 1\nDONE 1 1 0\n"
    spool.acknowledge("1 1")
    spool.flush({}, [])
    assert content(spool) == ""


def test_it_is_rewritten_when_most_of_it_is_history(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One report that waits for months must not keep those of all the others."""
    monkeypatch.setattr(spools, "BIG_BYTES", 1000)
    old = {"1 1": "DONE 1 1 0\n"}
    spool.report(old["1 1"])
    for run in range(2, 500):
        spool.report(f"DONE {run} 1 0\n")
        spool.acknowledge(f"{run} 1")
        spool.flush(old, ["9999 1"])
        assert len(content(spool)) < 1100
    assert spool.load() == (old, ["9999 1"])


def test_it_is_not_rewritten_again_and_again_while_very_many_jobs_run(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten thousand that sleep fill more of it than is tidied: each short job had all of it written anew."""
    rewritten, replace = list[int](), Spool._replace
    monkeypatch.setattr(
        Spool, "_replace", lambda self, content: rewritten.append(len(content)) or replace(self, content)
    )
    running = [f"{run} 1" for run in range(10_000)]
    for key in running:
        spool.accept(key)
    spool.flush({}, running)
    for run in range(10_000, 10_100):
        spool.accept(f"{run} 1")
        spool.flush({}, running)
    assert len(rewritten) <= 1


def test_a_full_disk_is_told_of_once_and_made_good_later(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No job is refused for it; once there is room the file is whole again, from memory."""
    real_write = os.write

    def full(file: int, data: bytes) -> int:
        if file == spool._file:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_write(file, data)

    reports = {"1 1": "DONE 1 1 0\n", "2 1": "DONE 2 1 0\n"}
    monkeypatch.setattr(os, "write", full)
    spool.report(reports["1 1"])
    spool.flush({"1 1": reports["1 1"]}, [])
    assert content(spool) == ""
    monkeypatch.setattr(os, "write", real_write)
    spool.report(reports["2 1"])
    spool.flush(reports, [])
    assert content(spool) == "".join(reports.values())
    assert len([record for record in caplog.records if "No space left" in record.getMessage()]) == 1


def test_a_full_disk_does_not_have_much_written_again_and_again(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each job that ended had all output of all jobs made ready once more, for nothing."""
    clock, tries = [100.0], list[int]()

    def refuse(path: Path, data: bytes) -> int:
        clock[0] += 1.0  # so much is it
        tries.append(len(data))
        raise OSError(errno.ENOSPC, "No space left on device")

    spool.load()
    monkeypatch.setattr(spools, "steady_now", lambda: clock[0])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", refuse)
        spool.rewrite({"1 1": "DONE 1 1 0\n"}, [])
        for _ in range(1000):
            clock[0] += 0.02
            spool.accept("2 1")
            spool.flush({"1 1": "DONE 1 1 0\n"}, ["2 1"])
    assert len(tries) == 3
    clock[0] += 10.0
    spool.accept("3 1")
    spool.flush({"1 1": "DONE 1 1 0\n"}, ["2 1", "3 1"])
    assert content(spool) == "RUN 2 1\nRUN 3 1\nDONE 1 1 0\n"


def test_what_a_full_disk_took_of_a_new_file_is_given_back(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A local worker's disk is the journal's, too."""

    def take_some(path: Path, data: bytes) -> int:
        path.open("wb").close()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", take_some)
    spool.rewrite({"1 1": "DONE 1 1 0\n"}, [])
    assert not (spool.directory / "reports.new").exists()


def test_what_is_cut_short_while_it_is_rewritten_is_no_whole_memory(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would say of the runs that it lacks that they were never had, and they would be begun again."""
    write = os.write

    def killed(file: int, data: bytes) -> int:
        write(file, data[:left])
        raise KeyboardInterrupt

    spool.load()
    running = ["1 1", "2 1"]
    for size in range(60):  # by more than there is
        left = size
        with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
            patch.setattr(os, "write", killed)
            spool.rewrite({}, running)
        found = (spool.directory / "reports").read_text()
        assert spool._known_instance(found) == "" or spools._replay(found) == ({}, running)


def test_nobody_else_reads_it_and_nobody_else_has_it(spool: Spool) -> None:
    """Output may hold secrets; and two workers on one spool would report the same runs."""
    assert spool.directory.stat().st_mode & 0o777 == 0o700
    assert (spool.directory / "reports").stat().st_mode & 0o777 == 0o600
    with pytest.raises(Fatal) as raised:
        Spool(spool.directory)
    assert raised.value.status == Exit.TRY_AGAIN


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """73, as for the daemon's own directory."""
    (tmp_path / "file").write_text("")
    with pytest.raises(Fatal) as raised:
        Spool(tmp_path / "file" / "spool")
    assert raised.value.status == Exit.CANNOT_CREATE
    assert str(tmp_path / "file" / "spool") in raised.value.message


def test_a_memory_is_another_one_after_a_start_of_the_machine_or_a_failed_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon starts again what such a memory does not name: it is whole, or says that it is another."""

    def instance() -> str:
        spool = Spool(tmp_path / "spool")
        spool.load()
        spool.close()
        return spool.instance

    boot = tmp_path / "boot_id"
    boot.write_text("11111111-aaaa\n")
    monkeypatch.setattr(spools, "BOOT_ID", boot)
    first = instance()
    assert instance() == first
    boot.write_text("22222222-bbbb\n")
    second = instance()
    assert second != first
    (tmp_path / "spool" / "reports").chmod(0o400)  # what is left of a write that failed
    third = instance()
    assert third != second
    assert instance() == third
    boot.unlink()  # nobody can tell whether the machine was started anew
    assert len({third, instance(), instance()}) == 3


def test_a_memory_that_was_moved_away_is_told_of_once(
    spool: Spool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next worker would begin with none; and in its place another worker's may be."""
    monkeypatch.setattr("cronflowd.worker.spool.QUICK_S", inf)  # however slow this machine's disk is now
    spool.load()
    moved = spool.directory.rename(spool.directory.with_name("moved"))
    (spool.directory / "reports").parent.mkdir()
    for number in range(3):
        spool.accept(f"{number} 1")
        spool.flush({}, [f"{number} 1"])
        spool.flush({}, [])
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{spool.directory}: [Errno 2] it was removed or moved away; ")
    assert not list(spool.directory.iterdir())
    spool.directory.rmdir()
    moved.rename(spool.directory)
    spool.accept("7 1")
    spool.flush({}, ["7 1"])
    assert content(spool) == "RUN 7 1\n"


def test_a_removed_file_of_reports_is_written_again(spool: Spool) -> None:
    """All that it held is known as long as this worker lives."""
    spool.load()
    (spool.directory / "reports").unlink()
    spool.accept("7 1")
    spool.flush({"6 1": "DONE 6 1 0\n"}, ["7 1"])
    assert content(spool) == "RUN 7 1\nDONE 6 1 0\n"


def test_a_copy_is_another_memory_and_what_was_moved_is_the_same(tmp_path: Path) -> None:
    """Two workers of one name that had one memory threw each other off, and nobody was told."""

    def instance(directory: Path) -> str:
        spool = Spool(directory)
        spool.load()
        spool.close()
        return spool.instance

    first, copy = instance(tmp_path / "spool"), tmp_path / "copy"
    shutil.copytree(tmp_path / "spool", copy)
    assert first != instance(copy) == instance(copy)
    assert instance((tmp_path / "spool").rename(tmp_path / "moved")) == first
