"""The journal in a process of its own, on disks that are really full, slow to sync or broken.

strace makes the kernel's n-th answer an error; a small tmpfs is really full. The writer
prints each number once it is told that it is committed: those must be found again, and
only whole decisions.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cronflowd.base.errors import Exit, Fatal, Refusal
from cronflowd.engine import facts as f
from cronflowd.host.disk import lock_directory, write_atomically
from cronflowd.journal.check import check
from cronflowd.journal.files import journal_dir
from cronflowd.journal.journal import FileJournal
from tests.lib.waiting import PATIENCE_S
from tests.real.running import fill

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 21, 10, tzinfo=UTC)
DECISIONS = 12
# Each decision is two facts; a number is printed when `notify` says so, and only then.
WRITER = (
    textwrap.dedent("""
    import sys, threading
    from datetime import datetime, UTC
    from pathlib import Path
    from cronflowd.engine import facts as f
    from cronflowd.journal.journal import FileJournal

    told = threading.Event()
    def notify(seq):
        print(seq, flush=True)
        told.set()

    journal = FileJournal(Path(sys.argv[1]), segment_bytes=1500, notify=notify)
    for record in journal.replay():
        pass
    print("ready", flush=True)
    for number in range(%d):
        told.clear()
        facts = [f.OutputReceived(number, part, [[0, "x" * 100]]) for part in (1, 2)]
        journal.append(facts, datetime.now(UTC))
        journal.flush()
        told.wait()
    journal.close()
    print("done", flush=True)
""")
    % DECISIONS
)


def write(data: Path, *prefix: str) -> tuple[int, list[str], str]:
    """Runs the writer: (exit status, what it printed, its errors)."""
    done = subprocess.run(
        [*prefix, sys.executable, "-c", WRITER, str(data)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return done.returncode, done.stdout.split(), done.stderr


def found(data: Path) -> list[f.Fact]:
    journal = FileJournal(data)
    facts = [fact for _, _, fact in journal.replay()]
    journal.close()
    return facts


def check_promise(data: Path, printed: list[str]) -> int:
    """All that was told is there, in whole decisions; how many records there are."""
    told = max([int(word) for word in printed if word.isdigit()], default=0)
    facts = found(data)
    assert len(facts) % 2 == 0
    assert [(fact.run, fact.attempt) for fact in facts if isinstance(fact, f.OutputReceived)] == [
        (number // 2, number % 2 + 1) for number in range(len(facts))
    ]
    assert told <= len(facts) <= 2 * DECISIONS
    return len(facts)


# --- strace --------------------------------------------------------------------------------


def strace(*injections: str) -> list[str]:
    if not shutil.which("strace"):
        pytest.skip("no strace here")
    calls = ",".join(injection.split(":", 1)[0] for injection in injections)
    options = [word for injection in injections for word in ("-e", f"inject={injection}")]
    return ["strace", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", f"trace={calls}", *options]


def test_without_faults_all_is_written(tmp_path: Path) -> None:
    """The tests below must be able to fail."""
    status, printed, errors = write(tmp_path, *strace("fdatasync:delay_enter=0:when=1"))
    assert (status, printed[-1], errors) == (0, "done", "")
    assert check_promise(tmp_path, printed) == 2 * DECISIONS


@pytest.mark.parametrize("number", [1, 2, 7])
def test_a_failed_sync_is_exit_74_and_never_tried_again(tmp_path: Path, number: int) -> None:
    """The kernel forgets what it could not write: a second sync would succeed and mean nothing."""
    status, printed, errors = write(tmp_path, *strace(f"fdatasync:error=EIO:when={number}"))
    assert status == Exit.IO
    assert "Input/output error" in errors
    assert printed[-1] == ("ready" if number == 1 else str(2 * number - 2))
    check_promise(tmp_path, printed)


@pytest.mark.parametrize("fault", ["retval=1:when=3", "retval=100:when=2+2", "error=EINTR:when=2+2"])
def test_short_and_interrupted_writes_are_completed(tmp_path: Path, fault: str) -> None:
    """A call that strace answers for never happens, so what it claims to have written is lost."""
    status, printed, _ = write(tmp_path, *strace(f"pwrite64:{fault}"))
    if fault.startswith("error"):
        assert (status, printed[-1]) == (0, "done")
        assert check_promise(tmp_path, printed) == 2 * DECISIONS
    else:
        # A lying kernel leaves holes; whatever comes of it, it must not pass for a journal.
        with contextlib.suppress(Fatal):
            assert len(found(tmp_path)) < 2 * DECISIONS


@pytest.mark.parametrize("code", ["ENOSPC", "EDQUOT"])
def test_no_space_at_the_write_is_waited_for(tmp_path: Path, code: str) -> None:
    """In spite of the space set aside, as with a quota set meanwhile."""
    status, printed, errors = write(tmp_path, *strace(f"pwrite64:error={code}:when=3..4"))
    assert (status, printed[-1]) == (0, "done"), errors
    assert check_promise(tmp_path, printed) == 2 * DECISIONS


def test_a_broken_disk_at_the_write_is_exit_74(tmp_path: Path) -> None:
    """EIO does not get better by waiting."""
    status, printed, errors = write(tmp_path, *strace("pwrite64:error=EIO:when=4"))
    assert status == Exit.IO
    assert "Input/output error" in errors
    check_promise(tmp_path, printed)


def test_without_fallocate_all_is_written(tmp_path: Path) -> None:
    """Some file systems cannot set space aside."""
    status, printed, _ = write(tmp_path, *strace("fallocate:error=EOPNOTSUPP"))
    assert (status, printed[-1]) == (0, "done")
    assert check_promise(tmp_path, printed) == 2 * DECISIONS


@pytest.mark.parametrize(
    "point",
    [
        f"{call}:{number}"
        for call in ("pwrite64", "fdatasync", "fsync", "ftruncate")
        for number in (1, 2, 3, 5)
    ]
    + ["rename:1", "rename:2", "fallocate:2"],
)
def test_killed_at_any_call_nothing_told_is_lost(tmp_path: Path, point: str) -> None:
    """kill -9 in the middle of a commit, a rotation, a start."""
    call, number = point.split(":")
    status, printed, _ = write(tmp_path, *strace(f"{call}:signal=KILL:when={number}"))
    assert status in (-signal.SIGKILL, 128 + signal.SIGKILL, 0)
    check_promise(tmp_path, printed)


# --- a disk that is really full ----------------------------------------------------------------


def test_a_full_disk_refuses_goes_on_and_recovers(small: Path) -> None:
    """Orders are refused, terminal records are not, and freed space is found without a restart."""
    journal = FileJournal(small / "data")
    list(journal.replay())
    order, urgent = [f.TaskResumed(None)], [f.OutputReceived(1, 1, [[0, "x" * 100]])]
    journal.append(order, NOW)
    filler = fill(small)
    number = 1
    with pytest.raises(Refusal, match="disk-full"):
        for _ in range(100_000):
            journal.append(order, NOW)
            number += 1
    assert journal.full
    for _ in range(100):
        journal.append(urgent, NOW)
    with pytest.raises(Refusal, match="disk-full"):
        write_atomically(small / "data" / "tasks.db", [b"x" * 100_000])
    journal.flush()
    filler.unlink()
    for _ in range(200):
        if not journal.full:
            break
        threading.Event().wait(0.02)
    assert not journal.full
    journal.append(order, NOW)
    journal.close()
    assert len(found(small / "data")) == number + 101


def test_a_start_on_a_full_disk_has_its_reserve_still(small: Path) -> None:
    """What was set aside stays set aside while no daemon runs."""
    journal = FileJournal(small / "data")
    list(journal.replay())
    journal.append([f.TaskResumed(None)], NOW)
    journal.close()
    fill(small)
    again = FileJournal(small / "data")
    assert len(list(again.replay())) == 1
    again.append([f.OutputReceived(1, 1, [[0, "x" * 100]])], NOW)
    again.close()
    assert len(found(small / "data")) == 2


def test_a_torn_end_on_a_full_disk_can_be_set_aside(small: Path) -> None:
    """A crash and a full disk often come together."""
    journal = FileJournal(small / "data")
    list(journal.replay())
    journal.append([f.TaskResumed(None)], NOW)
    journal.close()
    [segment] = journal_dir(small / "data").glob("0*.jsonl")
    with segment.open("ab") as file:
        file.write(b'{"seq":2,"at')
    fill(small)
    again = FileJournal(small / "data")
    assert len(list(again.replay())) == 1
    assert again.set_aside
    again.close()


def test_a_read_only_file_system_is_73(small: Path) -> None:
    """Told at the start, not by the first order."""
    FileJournal(small / "data")  # makes the directories
    lock_directory(small / "data").close()
    (small / "fresh").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    with pytest.raises(Fatal, match="lock: Read-only file system") as refused:
        lock_directory(small / "fresh")
    assert refused.value.status == Exit.CANNOT_CREATE
    journal = FileJournal(small / "data")
    with pytest.raises(Fatal) as refused:
        list(journal.replay())
    assert refused.value.status == Exit.CANNOT_CREATE
    # What the kernel has made read-only, as the disk is failing, can still be looked at.
    assert check(small / "data") == Exit.OK
    subprocess.run(["mount", "-o", "remount,rw", str(small)], check=True)
