"""What systemd and the daemon say to each other: readiness, life, and sockets handed over.

All of it is a few environment variables and one datagram a message, told in sd_notify(3) and
sd_listen_fds(3). Started by anybody else, every function here does nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn

from ..base.errors import Exit, Fatal
from .disk import OPENED_FOR_US
from .logs import last_words

FIRST_FD = 3  # SD_LISTEN_FDS_START
SOCKET_NAMES = ("control", "workers", "http")  # FileDescriptorName= in the socket units
HANDED = "CRONFLOWD_HANDED_SOCKETS"  # the same from ourselves: see `begin_anew`


def notify(message: str) -> bool:
    """Tell the service manager, in lines such as `READY=1`; whether there was one to tell."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    # Never waits and never fails: a manager that does not read is no reason to stop serving.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.connect("\0" + address[1:] if address.startswith("@") else address)
        sender.send(message.encode())
        return True
    return False


def watchdog_interval_s() -> float | None:
    """A silence longer than this and systemd kills us; None when it does not watch this process."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    with contextlib.suppress(ValueError):
        microseconds = int(os.environ.get("WATCHDOG_USEC", ""))
        return microseconds / 1e6 if microseconds > 0 else None
    return None


def inherited() -> dict[str, list[int]]:
    """Descriptors of the sockets that systemd opened for us, by name; asked once, at the start."""
    if handed := os.environ.pop(HANDED, ""):
        return _taken((name, int(fd)) for name, fd in (word.split(":") for word in handed.split(",")))
    pid, count, names = (os.environ.pop(f"LISTEN_{each}", "") for each in ("PID", "FDS", "FDNAMES"))
    if pid != str(os.getpid()) or not count.isdecimal():
        return {}
    return _taken((name, fd) for fd, name in enumerate(_names(names, int(count)), FIRST_FD))


def _taken(named: Iterable[tuple[str, int]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for name, fd in named:
        os.set_inheritable(fd, False)
        found.setdefault(name, []).append(fd)
    return found


def begin_anew(sockets: Mapping[str, Sequence[int]], **variables: str) -> NoReturn:
    """This program from its beginning, in the same process, with the same ports; from any thread.

    All that it remembers is gone, and every connection: nothing else forgets as surely.
    """
    handed = [(name, fd) for name, fds in sockets.items() for fd in fds]
    for fd in {fd for _, fd in handed} | OPENED_FOR_US:
        os.set_inheritable(fd, True)
    os.environ.update(variables, **{HANDED: ",".join(f"{name}:{fd}" for name, fd in handed)})
    try:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  # it is what we are
    except OSError as error:  # to go on as we are would be to lead on
        why = f"{sys.executable}: {error.strerror}"
        last_words(f"cronflowd: it cannot begin anew: {why}")
        os._exit(Exit.TRY_AGAIN)


def _names(text: str, count: int) -> list[str]:
    names = text.split(":")
    if count and (len(names) != count or not set(names) <= set(SOCKET_NAMES)):
        raise Fatal(
            Exit.CONFIG,
            f"systemd handed over {count} sockets with the names {text!r}, and a name must be control,"
            " workers or http (FileDescriptorName= in the socket unit)",
        )
    return names[:count]
