"""A node's whole state, given to one that has none: its newest checkpoint, and the records since.

It is what etcd holds for those who come, where that is too long for etcd. Whoever is given it reads the
node's files as they stood at one moment, whatever becomes of their names meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from attrs import frozen

from .history import segments
from .records import list_checkpoints
from .replay import Segment

PIECE_BYTES = 1024 * 1024
TRIES = 5  # a compaction may remove a file between the look and its opening


@frozen
class Part:
    """A file, as far as it counts."""

    file: BinaryIO
    size: int

    def piece(self, offset: int) -> bytes:
        self.file.seek(offset)
        return self.file.read(min(PIECE_BYTES, self.size - offset))


def open_whole(directory: Path, written: Segment) -> tuple[int, list[Part]]:
    """Up to which record the checkpoint goes, 0 = there is none; it, then all segments behind it."""
    for _ in range(TRIES):
        parts: list[Part] = []
        try:
            checkpoints = list_checkpoints(directory)[-1:]
            upto = checkpoints[0][0] if checkpoints else 0
            later = [each.path for each in segments(directory, upto) if each.first <= written.first]
            for each in [*(path for _, path in checkpoints), *later]:
                file = each.open("rb")
                is_written = each.name == written.path.name
                parts.append(Part(file, written.size if is_written else each.stat().st_size))
            return upto, parts
        except FileNotFoundError:
            close(parts)
    raise OSError("its files change all the time")


def close(parts: Iterable[Part]) -> None:
    for part in parts:
        part.file.close()


def lines_of(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The lines of a segment that comes in pieces, without its header."""
    rest, is_header = b"", True
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if not is_header:
                yield line + b"\n"
            is_header = False
