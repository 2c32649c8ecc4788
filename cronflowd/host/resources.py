"""What the system lends this process: open files and connections, and memory."""

from __future__ import annotations

import ctypes
import resource
from contextlib import suppress


def raise_descriptors(needed: int) -> None:
    """Asks the system for as many, which gives no more than its hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        needed = min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < needed:
        with suppress(OSError, ValueError):  # the kernel's own limit may be lower still
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def max_descriptors() -> int:
    """How many there may be."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 1 << 20


def give_back() -> None:
    """Memory, after very much was freed at once: the C library keeps it otherwise, for whoever asks next."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # not every C library has it
        trim(0)
