"""One call of a daemon's life fails, or is its last, whichever it is: what it has told of is there later.

A first life is watched by strace, and each call about a file of its directory made to fail in one of its own.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cronflowd.base.errors import Exit
from cronflowd.journal.check import check
from cronflowd.journal.files import journal_dir, list_checkpoints
from tests.real.running import READY, Daemon, wait_until

pytestmark = [pytest.mark.real, pytest.mark.long, pytest.mark.timeout(1800)]

BY_FILE = "newfstatat openat read pread64 getdents64".split()
BY_NUMBER = "pwrite64 write fsync fdatasync ftruncate fallocate rename link unlink mkdir".split()
MOST = 12  # of one call
KILL = "signal=KILL"
ENDS = {"error=ENOSPC": Exit.CANNOT_CREATE, KILL: -signal.SIGKILL}  # beside 0 and 74
BIG = "x" * 20_000
ORDERS = [
    "ADD name=a 0 0 1 1 * true",
    "SAVE",
    "SAVE other.db",
    "LOAD other.db",
    "BACKUP b.tar",
    "ADD name=b skip=file:days 0 0 1 1 * true",
    "RUNS",
    "AUDIT",
    "SECRET PUT s v",
    *(f"ADD name=f{number} 0 0 1 1 * echo {BIG}" for number in range(20)),
    "SAVE",
]


def lead(daemon: Daemon, *within: str) -> tuple[int, set[str]]:
    """A whole life: the exit status, and the tasks that were told of."""
    daemon.data.mkdir(mode=0o700)
    (daemon.data / "days").write_text("2026-12-24\n")
    daemon.within = within
    process, told, answers = daemon.launch(), set[str](), list[str]()
    assert process.stdout
    if match := READY.fullmatch(process.stdout.readline()):
        daemon.port = int(match[1])
        with contextlib.suppress(OSError):
            for order in ORDERS:
                answers += daemon.ask(order)
            journal = journal_dir(daemon.data)
            is_short = not any(answer.startswith("ERR") for answer in answers)
            wait_until(lambda: not is_short or daemon.log.read_text() or list_checkpoints(journal))
    told |= {found[1] for each in answers if (found := re.match(r"OK \d+ (\S+) next=", each))}
    return daemon.stop(), told


def faults(trace: Path, data: Path, fault: str) -> Iterator[list[str]]:
    """For strace: each call that had to do with a file there; to be killed, those that change one."""
    met = Counter[tuple[str, str]]()
    for line in trace.read_text().splitlines():
        call, _, rest = line.partition(" ")[2].lstrip().partition("(")
        paths = re.findall(rf"{data}(?:/[^\">, ]*)?(?=[\">, ])", rest.rpartition(" = ")[0])
        if not paths or paths[-1].endswith((".tmp", ".sock")):
            continue
        where = paths[-1] if call in BY_FILE else ""
        if where and fault == KILL:
            continue
        met[call, where] += 1
        if met[call, where] <= (MOST if not where else 2):
            within = ["strace", "-D", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", f"trace={call}"]
            within += ["-e", f"inject={call}:{fault}:when={met[call, where]}"]
            yield within + (["-P", where] if where else [])


@pytest.mark.parametrize("fault", ["error=EIO", "error=ENOSPC", KILL])
def test_whichever_call_fails_nothing_told_is_lost(tmp_path: Path, fault: str) -> None:
    """Of reads, some ended the daemon as a bug; of writes, a key was half written and stayed so."""
    if not shutil.which("strace"):
        pytest.skip("no strace here")
    flags = ("--local-worker", "0", "--segment", "64K", "--history", "1M", "--log-level", "warning")
    first, trace = Daemon(tmp_path / "first", *flags), tmp_path / "trace"
    calls = ",".join(BY_FILE + BY_NUMBER)
    status, told = lead(first, "strace", "-D", "-f", "-qq", "-y", "-o", str(trace), "-e", f"trace={calls}")
    assert (status, len(told)) == (0, 22)

    def fail(numbered: tuple[int, list[str]]) -> str:
        number, within = numbered
        daemon = Daemon(tmp_path / str(number), *flags)
        within = [each.replace(str(first.data), str(daemon.data)) for each in within]
        status, told = lead(daemon, *within)
        said = daemon.log.read_text()
        daemon.within = ()
        daemon.start()
        names = {row.split("\t")[1] for row in daemon.ask("LIST")[:-1]}
        daemon.stop()
        is_good = status in (0, Exit.IO, ENDS.get(fault))
        is_good &= told <= names and "Traceback" not in said and (status <= 0 or str(daemon.data) in said)
        is_good &= check(daemon.data) == Exit.OK and not list(daemon.data.rglob("*.tmp"))
        shutil.rmtree(daemon.data)
        return "" if is_good else f"{within[8:]}: {status}, {sorted(told - names)} is gone; {said}"

    with ThreadPoolExecutor(2) as pool:
        wrong = list(filter(None, pool.map(fail, enumerate(faults(trace, first.data, fault)))))
    assert not wrong, "\n".join(wrong)
