"""What a worker must not forget when it is killed: reports that nobody has acknowledged.

One file of lines, appended to in batches and never synced: it has to survive the end of
this process, not of the machine, because with the machine the jobs are gone as well.

    WORKER 5f3a01bc   whose memory this is; see `instance`
    RUN 7 1           accepted, before it begins
    OWED 7 1 30 44    of 44 characters of output no more than 30 had surely come;
    OUT 7 1 text      output that the report below it still owes
    DONE 7 1 0        ended; to be reported until it is acknowledged
    ACK 7 1           acknowledged

What was accepted stands here before it begins, so a worker that comes back can say of all that it
was ever given and still owes (`held=all`): what it does not name, it never had. That holds as long
as the memory is whole. `instance` is another one, and the daemon knows that it must not conclude
anything, when the file is new or a copy, when a write had failed, or when the machine was started anew.
The processes of its jobs bear it, so that whoever tries out a copy of a backup ends none of them.

The lines are those of the worker port, and a run is filed under `7 1`, run and attempt as
they travel. A directory belongs to one worker at a time; the lock ends with the process.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import secrets
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from ..host.clock import steady_now
from ..host.disk import LOCK_NAME, NO_SPACE, is_at, lock_directory, plain, read_small

log = logging.getLogger(__name__)

SMALL_BYTES = 64 * 1024  # below this a file is not worth tidying
MAX_BYTES = 1024 * 1024 * 1024  # more than any worker owes
BIG_BYTES = 1024 * 1024  # above this it is rewritten when half of it is history
QUICK_S = 0.01  # what is written while its disk takes nothing, if it takes longer, takes a tenth of the time
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_VERBS = ("WORKER ", "RUN ", "OWED ", "OUT ", "DONE ", "REFUSED ", "ACK ")
_WHOLE, _TORN = 0o600, 0o400  # of the file: a mode can be set on a disk that takes no more bytes


class Spool:
    """The file of a worker's unacknowledged reports. Opening it takes the directory's lock."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.instance = ""  # of this memory
        self._lines: list[str] = []  # what the next flush writes
        self._size = 0
        self._tidy_size = 0  # after it was last rewritten
        self._is_broken = False  # a write failed; what the file holds is unknown
        self._again_s = 0.0  # steady; before that it is not tried again
        self._lock = lock_directory(directory)
        place = os.fstat(self._lock.file)
        self._place = f"{place.st_dev:x}-{place.st_ino:x}"
        self._path = directory / "reports"
        self._file = plain(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND)

    def close(self) -> None:
        """Gives the directory back."""
        os.close(self._file)
        self._lock.close()

    @property
    def is_refused(self) -> bool:
        """Whether its disk takes nothing, for now; where it is no more, nobody comes after."""
        return self._is_broken and is_at(self._lock.file, self.directory / LOCK_NAME)

    def load(self) -> tuple[dict[str, str], list[str]]:
        """What an earlier worker left: (its unacknowledged reports, the runs it was still running)."""
        content = read_small(self._path, MAX_BYTES).decode(errors="replace")
        reports, running = _replay(content)
        if content and not content.startswith(_VERBS):
            log.error("%s/reports: it holds no reports; what it may have known is forgotten", self.directory)
        self._is_broken = os.fstat(self._file).st_mode & 0o777 != _WHOLE  # until it is written again
        self.instance = self._known_instance(content) or f"{secrets.token_hex(8)}-{self._place}{_boot()}"
        # Also rids the file of a last line that was cut short. What was running stays in it until its
        # end is told: a kill between the two must not make it look as if it had never been taken.
        self.rewrite(reports, running)
        return reports, running

    def _known_instance(self, content: str) -> str:
        """Whose memory the file is, if nothing can be missing from it; else an empty text."""
        word, _, instance = content.partition("\n")[0].partition(" ")
        boot = _boot()
        is_ours = word == "WORKER" and boot and instance.endswith(f"-{self._place}{boot}")
        return instance if is_ours and not self._is_broken else ""

    def accept(self, key: str) -> None:
        """A run was taken on."""
        self._lines.append(f"RUN {key}\n")

    def report(self, text: str) -> None:
        """A run ended: its DONE line, and before it the output that is still owed."""
        self._lines.append(text)

    def acknowledge(self, key: str) -> None:
        """The daemon has the report on its disk."""
        self._lines.append(f"ACK {key}\n")

    def flush(self, reports: Mapping[str, str], running: Collection[str]) -> None:
        """Writes what was noted since the last time; `reports` and `running` are what is true now."""
        if not self._lines:
            return
        if self._is_broken and steady_now() < self._again_s:
            self._lines.clear()  # all that is true is written then
            return
        is_here = is_at(self._file, self._path)
        if self._is_broken or not is_here or self._is_untidy(reports, running):
            self.rewrite(reports, running)
            return
        self._append("".join(self._lines).encode())
        self._lines.clear()

    def rewrite(self, reports: Mapping[str, str], running: Collection[str]) -> None:
        """Makes the file hold just this."""
        self._lines.clear()
        began = steady_now()
        lines = [f"WORKER {self.instance}\n", *(f"RUN {key}\n" for key in running), *reports.values()]
        content = "".join(lines).encode()
        # What is cut short must not say whose memory it is and lack a run: that would be begun again.
        if reports or running or not self._truncate():
            self._replace(content)
        else:
            self._append(content)
        self._tidy_size = self._size
        took_s = (now := steady_now()) - began
        self._again_s = now + 9 * took_s if took_s > QUICK_S else now

    def _is_untidy(self, reports: Mapping[str, str], running: Collection[str]) -> bool:
        least = BIG_BYTES if reports else SMALL_BYTES
        return not (reports or running) or self._size > max(least, 2 * self._tidy_size)

    def _truncate(self) -> bool:
        """Empties the file in place, which is cheap, and safe only when nothing is owed."""
        try:
            os.ftruncate(self._file, 0)
        except OSError:
            return False
        if not is_at(self._file, self._path):
            return False
        self._size = 0
        return True

    def _append(self, data: bytes) -> None:
        try:
            if data and os.write(self._file, data) != len(data):
                raise OSError("the disk took only a part")
        except OSError as error:
            self._break(error)
        else:
            self._size += len(data)
            if self._is_broken:
                os.fchmod(self._file, _WHOLE)
            self._is_broken = False

    def _replace(self, content: bytes) -> None:
        """By a new file under the old name, so that a kill in between loses nothing."""
        new = self.directory / "reports.new"
        try:
            # What is there now may be another worker's.
            if not is_at(self._lock.file, self.directory / LOCK_NAME):
                raise OSError(errno.ENOENT, "it was removed or moved away")
            new.write_bytes(content)
            new.chmod(_WHOLE)
            file = os.open(new, os.O_RDWR | os.O_APPEND)
            new.rename(self._path)
        except OSError as error:
            self._break(error)
            if error.errno in NO_SPACE:
                with suppress(OSError):
                    new.unlink()  # others need that room
        else:
            os.close(self._file)
            self._file, self._size, self._is_broken = file, len(content), False

    def _break(self, error: OSError) -> None:
        # The reports are still in memory and on their way, so a full disk stops no job.
        if not self._is_broken:
            log.error("%s: %s; reports would not survive a kill of this worker", self.directory, error)
        self._is_broken = True
        with suppress(OSError):
            os.fchmod(self._file, _TORN)


def _boot() -> str:
    """Another text after each start of the machine, as what was not synced may be gone; empty: unknown."""
    with suppress(OSError):
        return "-" + BOOT_ID.read_text().strip()[:8]
    return ""


def _replay(text: str) -> tuple[dict[str, str], list[str]]:
    reports: dict[str, str] = {}
    running: dict[str, None] = {}
    owed: list[str] = []  # output, until the report it belongs to
    for line in text.split("\n")[:-1]:  # what follows the last line end was cut short by the kill
        # A machine that broke down may leave anything, zeros most of all: no daemon would take that.
        if not (match := _LINE.fullmatch(line)):
            continue
        verb, run, key = match["verb"], match["run"], f"{match['run']} {match['attempt']}"
        if verb in ("OWED", "OUT"):
            owed.append(line + "\n")
            continue
        if verb == "RUN":
            running[key] = None
        elif verb == "ACK":
            reports.pop(key, None)
        else:
            running.pop(key, None)
            reports[key] = "".join(each for each in owed if each.split(" ", 2)[1] == run) + line + "\n"
        owed.clear()
    return reports, list(running)


_NUMBER = "[0-9]{1,15}"
_LINE = re.compile(
    rf"(?P<verb>RUN|ACK|OWED(?= \S+ \S+ {_NUMBER} {_NUMBER}$)|OUT(?= \S+ [0-2] )"
    rf"|DONE(?= \S+ \S+ -?{_NUMBER}( |$))|REFUSED(?= \S+ \S+ [a-z-]+( |$)))"
    rf" (?P<run>{_NUMBER}) (?P<attempt>{_NUMBER})(?: [^\0]*)?"
)
