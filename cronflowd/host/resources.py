"""What the system lends this process: open files and connections, and memory; and whom it has lent a port."""

from __future__ import annotations

import ctypes
import resource
from contextlib import suppress
from pathlib import Path


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


def who_listens(port: int) -> str:
    """` by process 17`, if this user may see whose the port is; else nothing."""
    sockets = set[str]()
    for table in "tcp", "tcp6":
        with suppress(OSError):  # the latter is not there without IPv6
            for line in Path("/proc/net", table).read_text(encoding="ascii").splitlines()[1:]:
                _, local, _, state, *_, inode = line.split()[:10]
                if state == "0A" and int(local.rpartition(":")[2], 16) == port:
                    sockets.add(f"socket:[{inode}]")
    for process in Path("/proc").glob("[0-9]*") if sockets else ():
        with suppress(OSError):  # it is another user's, or has ended
            for each in process.joinpath("fd").iterdir():
                with suppress(OSError):
                    if str(each.readlink()) in sockets:
                        return f" by process {process.name}"
    return ""


def give_back() -> None:
    """Memory, after very much was freed at once: the C library keeps it otherwise, for whoever asks next."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # not every C library has it
        trim(0)
