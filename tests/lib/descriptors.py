"""What this process holds open: how a test sees that nothing is left over."""

from __future__ import annotations

import os
from contextlib import suppress


def open_descriptors() -> set[tuple[str, str]]:
    """The number of each, and what it is; whoever compares waits, as other threads open files for a moment.

    The one by which they are listed is closed when it would be looked at, so it is not among them.
    """
    found = set[tuple[str, str]]()
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))
    return found
