"""OUT lines of a worker, read as the daemon reads them."""

from __future__ import annotations

import sys

from cronflowd.base.output import is_whole, parse_line, text_of
from cronflowd.base.text import to_bytes
from cronflowd.worker.executors.output import Output


def take_all(output: Output) -> str:
    """OUT lines of all that waits."""
    return output.take(sys.maxsize)


def texts_of(lines: str) -> list[str]:
    """What OUT lines of run 7 say, as `fd text`."""
    return [line.removeprefix("OUT 7 ") for line in lines.splitlines()]


def bytes_of(lines: str) -> dict[int, bytes]:
    """By fd, what OUT lines say that the job has written."""
    found: dict[int, bytes] = {}
    for line in lines.splitlines():
        word, run, fd, text = line.split(" ", 3)
        assert (word, run) == ("OUT", "7")
        parsed = parse_line(int(fd), text)
        found[int(fd)] = found.get(int(fd), b"") + to_bytes(text_of(parsed)) + b"\n" * is_whole(parsed)
    return found
