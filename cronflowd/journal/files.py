"""The journal's directory: what its files are called, which there are, and which records each is about.

Each name holds the numbers of records, so a listing tells where a record stands; what is in the files is
told in records.py.
"""

from __future__ import annotations

import re
from pathlib import Path

from attrs import frozen

from ..base.errors import Exit, Fatal
from ..host.disk import holder_of, remove_leftovers

JOURNAL_NAME = "journal"
NEWEST_NAME = "newest"
COMPACTING_NAME = "compaction.lock"  # held while it is made short
RESTORED = ".restored"  # in a directory that was made of a backup, until a daemon has started there
UNPACKED = ".restoring"  # in the data directory: of a backup, what is not in its place yet
GROWS = 2**63  # behind all records
_SEGMENT_NAME = re.compile(r"([0-9]{20})\.jsonl")
_CHECKPOINT_NAME = re.compile(r"checkpoint-([0-9]{20})\.jsonl")
_HISTORY_NAME = re.compile(r"history-([0-9]{20})-([0-9]{20})\.jsonl")
_ANY_NAME = re.compile(r"(?:checkpoint-|history-[0-9]{20}-)?([0-9]{20})\.jsonl")


def journal_dir(data: Path) -> Path:
    return data / JOURNAL_NAME


def segment_path(directory: Path, first: int) -> Path:
    return directory / f"{first:020d}.jsonl"


def checkpoint_path(directory: Path, upto: int) -> Path:
    return directory / f"checkpoint-{upto:020d}.jsonl"


def history_path(directory: Path, first: int, last: int) -> Path:
    return directory / f"history-{first:020d}-{last:020d}.jsonl"


@frozen
class Source:
    """A file and which records in it count; those outside stand in another file, too."""

    path: Path
    first: int
    last: int  # of the segment that is being written: GROWS
    is_history: bool

    def holds(self, seq: int) -> bool:
        return self.first <= seq <= self.last

    def is_within(self, other: Source) -> bool:
        """Whether all its records stand in another one."""
        return other is not self and other.first <= self.first and self.last <= other.last


def list_segments(directory: Path) -> list[tuple[int, Path]]:
    """(first sequence number, file), oldest first."""
    return [(int(match[1]), path) for match, path in _matching(directory, _SEGMENT_NAME)]


def list_checkpoints(directory: Path) -> list[tuple[int, Path]]:
    """(last sequence number it holds, file), oldest first."""
    return [(int(match[1]), path) for match, path in _matching(directory, _CHECKPOINT_NAME)]


def list_history(directory: Path) -> list[Source]:
    """Those not swallowed by a larger one, oldest first."""
    found = _matching(directory, _HISTORY_NAME)
    files = [Source(path, int(match[1]), int(match[2]), True) for match, path in found]
    return [file for file in files if not any(file.is_within(each) for each in files)]


def list_all(directory: Path) -> list[tuple[int, Path]]:
    """(last number in its name, file) of every kind, by name; no others that stand there."""
    return [(int(match[1]), path) for match, path in _matching(directory, _ANY_NAME)]


def list_swallowed(directory: Path) -> list[Path]:
    """History files whose records stand in a larger one, too: a crash came before their removal."""
    kept = {file.path for file in list_history(directory)}
    return [path for _, path in _matching(directory, _HISTORY_NAME) if path not in kept]


def _matching(directory: Path, pattern: re.Pattern[str]) -> list[tuple[re.Match[str], Path]]:
    names = sorted(_names(directory))
    return [(match, directory / name) for name in names if (match := pattern.fullmatch(name))]


def _names(directory: Path) -> list[str]:
    try:
        return [entry.name for entry in directory.iterdir()]
    except FileNotFoundError:
        return []


# --- what was broken off -------------------------------------------------------------------


def clear_leftovers(directory: Path) -> None:
    """Removes what was being written when a daemon was killed; its compaction may be at work still."""
    remove_leftovers(directory, [holder_of(directory / COMPACTING_NAME)])


def check_restored(data: Path) -> None:
    """Raises Fatal (65) where a restore was broken off: some files stand in their place, and some do not."""
    unpacked = data / UNPACKED
    if ((unpacked / RESTORED).exists() or (data / RESTORED).exists()) and any(_names(unpacked)):
        raise Fatal(
            Exit.CORRUPT, f"{data}: a restore was broken off; do it again: cronflowd restore FILE --force"
        )
