"""Disks that fail on purpose, behind the same seam as the real one.

`FaultyDisk` makes chosen calls fail or fall short; `PowerDisk` forgets, when the power
goes, any subset of the sectors that were not synced.
"""

from __future__ import annotations

import errno
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from cronflowd.host.disk import Disk

SECTOR = 512
Fault = Callable[[], None]


def error(code: int) -> Fault:
    def fail() -> None:
        raise OSError(code, os.strerror(code))

    return fail


NO_SPACE, IO_ERROR, NO_DESCRIPTOR = map(error, (errno.ENOSPC, errno.EIO, errno.EMFILE))


class FaultyDisk(Disk):
    """The n-th call of a kind (from 1) fails; `short` makes the n-th write take only so many bytes."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.faults: dict[tuple[str, int], Fault] = {}
        self.short: dict[int, int] = {}
        self.no_space = False  # neither to write nor to set aside
        self.may_allocate = True

    def _count(self, kind: str) -> int:
        self.calls[kind] += 1
        if fault := self.faults.get((kind, self.calls[kind])):
            fault()
        return self.calls[kind]

    def open(self, path: Path, flags: int) -> int:
        self._count("open")
        return super().open(path, flags)

    def pwrite(self, fd: int, data: memoryview, offset: int) -> int:
        number = self._count("pwrite")
        if self.no_space and not self.may_allocate:
            NO_SPACE()
        return super().pwrite(fd, data[: self.short.get(number, len(data))], offset)

    def fdatasync(self, fd: int) -> None:
        self._count("fdatasync")
        super().fdatasync(fd)

    def fsync(self, fd: int) -> None:
        self._count("fsync")
        super().fsync(fd)

    def rename(self, old: Path, new: Path) -> None:
        self._count("rename")
        super().rename(old, new)

    def allocate(self, fd: int, offset: int, size: int) -> bool:
        self._count("allocate")
        if not self.may_allocate:
            return False
        if self.no_space:
            NO_SPACE()
        return super().allocate(fd, offset, size)


class PowerDisk(Disk):
    """Remembers what a power cut must leave of each file; `cut` makes the directory look like that."""

    def __init__(self) -> None:
        self.synced: dict[int, bytes] = {}  # by inode: the content at its last sync
        self.paths: dict[int, Path] = {}
        self.lives = True

    def open(self, path: Path, flags: int) -> int:
        fd = super().open(path, flags)
        if not flags & os.O_DIRECTORY:
            inode = os.fstat(fd).st_ino
            self.paths[inode] = path
            self.synced.setdefault(inode, b"")
        return fd

    def fdatasync(self, fd: int) -> None:
        self._note(fd)

    def fsync(self, fd: int) -> None:
        self._note(fd)

    def _note(self, fd: int) -> None:
        if not self.lives:
            IO_ERROR()
        inode = os.fstat(fd).st_ino
        if inode in self.paths:
            self.synced[inode] = self.paths[inode].read_bytes()

    def rename(self, old: Path, new: Path) -> None:
        super().rename(old, new)
        self.paths[new.stat().st_ino] = new

    def cut(self, dice: random.Random) -> None:
        """The power goes: of each sector either the new or the old content is there, and of each length."""
        for inode, path in self.paths.items():
            if path.exists() and path.stat().st_ino == inode:
                path.write_bytes(_torn(self.synced[inode], path.read_bytes(), dice))


def _torn(old: bytes, new: bytes, dice: random.Random) -> bytes:
    size = dice.choice([len(new), dice.randint(min(len(old), len(new)), max(len(old), len(new)))])
    old, new = old.ljust(size, b"\0")[:size], new.ljust(size, b"\0")[:size]
    likely = dice.random()
    sectors = range(0, size, SECTOR)
    return b"".join((new if dice.random() < likely else old)[at : at + SECTOR] for at in sectors)
