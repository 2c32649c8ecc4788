"""A node's whole state, given to one that has none: its newest checkpoint, and the records since.

It is what etcd holds for those who come, where that is too long for etcd. Whoever is given it reads the
node's files as they stood at one moment, whatever becomes of their names meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from attrs import frozen

from ..host.disk import plain
from .history import segments
from .records import in_form, list_checkpoints
from .replay import Segment

PIECE_BYTES = 1024 * 1024
TRIES = 5  # a compaction may remove a file between the look and its opening


@frozen
class Part:
    """A file, as far as it counts, with a header that others can read."""

    file: BinaryIO
    end: int  # in the file
    was: bytes  # its own header,
    head: bytes  # and what stands in that's place

    @property
    def size(self) -> int:
        return self.end - len(self.was) + len(self.head)

    def piece(self, offset: int) -> bytes:
        """So many bytes as go at once, from one on."""
        if offset < len(self.head):
            return self.head[offset:]
        at = self.file.seek(offset - len(self.head) + len(self.was))
        return self.file.read(min(PIECE_BYTES, self.end - at))


def open_whole(directory: Path, written: Segment, form: int) -> tuple[int, list[Part]]:
    """Up to which record the checkpoint goes, 0 = there is none; it, then all segments behind it.

    `form` is that of records which all nodes know.
    """
    for _ in range(TRIES):
        parts: list[Part] = []
        try:
            checkpoints = list_checkpoints(directory)[-1:]
            upto = checkpoints[0][0] if checkpoints else 0
            later = [each.path for each in segments(directory, upto) if each.first <= written.first]
            parts += (open_part(each, written, form) for each in [*(path for _, path in checkpoints), *later])
            return upto, parts
        except FileNotFoundError:
            close(parts)
    raise OSError("its files change all the time")


def open_part(path: Path, written: Segment, form: int) -> Part:
    """One of them."""
    file = open(path, "rb", opener=plain)  # noqa: SIM115  # `close` does
    end, was = written.size if path.name == written.path.name else path.stat().st_size, file.readline()
    return Part(file, end, was, b"".join(in_form(form, [was])))


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
