"""What the system lends this process: open files and connections, and memory; and whom it has lent a port."""

from __future__ import annotations

import ctypes
import resource
import socket
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


def who_listens(host: str, port: int) -> str:
    """` by process 17`, if this user may see whose this address and port are; else nothing."""
    # Who listens on `::` has the port of IPv4, too, or is in nobody's way: whose it is there counts first.
    tables = ("tcp6", "tcp") if ":" in host else ("tcp", "tcp6")
    sockets = next(filter(None, (_listening(table, host, port) for table in tables)), set[str]())
    for process in Path("/proc").glob("[0-9]*") if sockets else ():
        with suppress(OSError):  # it is another user's, or has ended
            for each in process.joinpath("fd").iterdir():
                with suppress(OSError):
                    if str(each.readlink()) in sockets:
                        return f" by process {process.name}"
    return ""


def _listening(table: str, host: str, port: int) -> set[str]:
    """What the sockets are called that have this address and port."""
    sockets, ours = set[str](), _as_the_kernel_writes(host)
    with suppress(OSError):  # there is no tcp6 without IPv6
        for line in Path("/proc/net", table).read_text(encoding="ascii").splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            theirs, _, number = local.partition(":")
            is_here = (
                theirs == ours or not int(theirs, 16) or not int(ours, 16)
            )  # one of zeros stands for all
            if state == "0A" and int(number, 16) == port and is_here:
                sockets.add(f"socket:[{inode}]")
    return sockets


def _as_the_kernel_writes(host: str) -> str:
    packed = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host.partition("%")[0])
    return "".join(packed[at : at + 4][::-1].hex().upper() for at in range(0, len(packed), 4))


def give_back() -> None:
    """Memory, after very much was freed at once: the C library keeps it otherwise, for whoever asks next."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # not every C library has it
        trim(0)
