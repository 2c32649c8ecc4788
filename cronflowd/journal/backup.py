"""The whole data directory as one file, and back: BACKUP while the daemon serves, `cronflowd restore`.

A backup is a plain tar file: what people keep in the directory (tasks.db, calendars, the secret),
then the journal as far as it was on disk at one moment, and last of all `MANIFEST`, a line for
each file with its size and CRC. So a file that was cut short, or changed, is known for one before
anything is restored from it. Not in it: the lock, sockets, the keys, other backups, and
the local worker's reports on their way, which belong to jobs of this machine.

Journal files are only ever replaced by others that tell the same; whoever calls `archive` sees to
it that none is removed meanwhile.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import orjson
from attrs import frozen

from ..base.errors import Exit, Fatal, Refusal
from ..base.text import escape
from ..host import disk
from ..host.logs import tell
from ..host.vault import KEY_NAME, ORDER_KEY_NAME, WEB_KEY_NAME
from . import apart
from .check import examine
from .files import JOURNAL_NAME, RESTORED, UNPACKED, journal_dir, list_all
from .replay import Segment

MANIFEST = "MANIFEST"
SUFFIX = ".tar"
CHUNK_BYTES = 1024 * 1024
OUTPUT_NAME = f"{JOURNAL_NAME}/{apart.FOLDER}"
# What the key opens is in the journal, and so are what orders are sealed with and who is signed in: whoever
# had the keys as well would have all secrets, could sign orders, and be any of those who are signed in.
_NOT_TAKEN = (disk.LOCK_NAME, KEY_NAME, ORDER_KEY_NAME, WEB_KEY_NAME)


# --- making one ----------------------------------------------------------------------------------


@frozen
class _Member:
    """A file that goes into it."""

    name: str
    path: Path
    most: int | None = None  # bytes that count; None: all
    may_go: bool = False  # a compaction may remove it meanwhile


def archive(data: Path, path: Path, upto: Segment, about: dict[str, str | int]) -> tuple[disk.Prepared, int]:
    """Writes the backup, which is not in its place yet, and how many files are in it.

    `upto` is the file that the journal is written to, as far as it counts. Blocking, for a thread.
    Raises Refusal.
    """
    members = list(_members(data, upto))
    needed = sum(member.path.stat().st_size for member in members if not member.may_go)
    needed, free = needed + sum(apart.sizes(journal_dir(data)).values()), shutil.disk_usage(data).free
    if needed > free:
        why = f"{path.name} takes {needed} bytes, and {free} are free; nothing was written"
        raise Refusal("disk-full", why)
    return disk.prepare(path, _pack(members, about)), len(members)


def _members(data: Path, upto: Segment) -> Iterator[_Member]:
    for path in sorted(data.iterdir()):
        if path.is_file() and not path.name.startswith(".") and _is_taken(path):
            yield _Member(path.name, path)
    for number, path in list_all(journal_dir(data)):
        name = f"{JOURNAL_NAME}/{path.name}"
        if path.name == upto.path.name:
            yield _Member(name, path, upto.size)
        # What has come since stands in later files: the last number in a name tells where it ends.
        elif number < upto.first:
            yield _Member(name, path)
    for run in apart.sizes(journal_dir(data)):
        yield _Member(f"{OUTPUT_NAME}/{run}", apart.path_of(journal_dir(data), run), may_go=True)


def _is_taken(path: Path) -> bool:
    return path.name not in _NOT_TAKEN and path.suffix != SUFFIX


def _pack(members: list[_Member], about: dict[str, str | int]) -> Iterator[bytes]:
    lines = [about]
    for member in members:
        try:
            opened = disk.open_regular(member.path)
        except Refusal as refusal:
            if member.may_go and refusal.code == "not-found":
                continue
            raise
        with disk.of_file(member.path), opened as file:
            # Looked at now that it is open: whatever takes its name meanwhile is another file.
            found, crc = os.fstat(file.fileno()), 0
            size = found.st_size if member.most is None else member.most
            yield _head(member.name, size, found.st_mtime)
            for chunk in _content(file, member.name, size):
                crc = zlib.crc32(chunk, crc)
                yield chunk
        yield bytes(-size % tarfile.BLOCKSIZE)
        lines.append({"file": member.name, "size": size, "crc": f"{crc:08x}"})
    told = b"".join(orjson.dumps(line) + b"\n" for line in lines)
    yield _head(MANIFEST, len(told), 0)
    yield told + bytes(-len(told) % tarfile.BLOCKSIZE) + bytes(2 * tarfile.BLOCKSIZE)


def _head(name: str, size: int, mtime: float) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, int(mtime), 0o600
    return info.tobuf()


def _content(file: BinaryIO, name: str, size: int) -> Iterator[bytes]:
    while size:
        chunk = file.read(min(size, CHUNK_BYTES))
        if not chunk:
            raise Refusal("busy", f"{name} became shorter while it was read; nothing was written")
        size -= len(chunk)
        yield chunk


# --- taking one back -----------------------------------------------------------------------------


def restore(file: Path, data: Path, force: bool = False) -> int:
    """Makes `data` what it was; prints what that is. Raises Fatal, and then `data` is as before.

    What stands in `data` already is in the way (73), or with `force` moved aside.
    """
    lock = disk.lock_directory(data)
    try:
        in_the_way = sorted(path for path in data.iterdir() if _is_taken(path) and path.name != UNPACKED)
        if in_the_way and not force:
            shown = max(in_the_way, key=lambda path: path == journal_dir(data))  # that says most
            why = f"{data}: there is something in it ({shown.name}); with --force it is moved aside"
            raise Fatal(Exit.CANNOT_CREATE, why)
        unpacked = data / UNPACKED
        shutil.rmtree(unpacked, ignore_errors=True)  # of a restore that was killed
        try:
            about, count = _unpack(file, unpacked)
            _verify(file, unpacked)
            for each in (data, unpacked):  # sessions are numbered on from there: none of before may go on
                (each / WEB_KEY_NAME).unlink(missing_ok=True)
            disk.write_atomically(unpacked / RESTORED, [])
        except BaseException:
            shutil.rmtree(unpacked, ignore_errors=True)
            raise
        aside = _exchange(data, unpacked, in_the_way)
        if aside:
            tell(f"{aside}: what was there before")
        tell(f"{data}: {count} files as they were at {about['at']}, up to record {about['seq']}")
        return Exit.OK
    except OSError as error:
        raise Fatal(Exit.IO, f"{error.filename or file}: {error.strerror or error}") from error
    except Refusal as refusal:
        raise Fatal(Exit.IO, refusal.message) from refusal
    finally:
        lock.close()


def _unpack(file: Path, into: Path) -> tuple[dict[str, str | int], int]:
    """Writes every file; what the manifest says of the whole, and how many it names."""
    try:
        disk.make_directory(into)
        disk.make_directory(journal_dir(into))
        with open(file, "rb", opener=disk.plain) as content, tarfile.open(fileobj=content, mode="r:") as tar:
            found = dict(_unpack_one(tar, member, into) for member in tar)
        lines = [orjson.loads(line) for line in (into / MANIFEST).read_bytes().splitlines()]
        about, *told = lines
        wanted = {line["file"]: (line["size"], line["crc"]) for line in told}
    except FileNotFoundError as error:
        if error.filename == str(into / MANIFEST):
            why = f"{file}: cut short, or no backup: it ends without {MANIFEST}"
            raise Fatal(Exit.CORRUPT, why) from error
        raise
    except (tarfile.TarError, ValueError, LookupError, TypeError) as error:
        raise Fatal(Exit.CORRUPT, f"{file}: not a whole backup: {error}") from error
    del found[MANIFEST]
    if wrong := sorted(name for name in wanted.keys() | found if wanted.get(name) != found.get(name)):
        raise Fatal(Exit.CORRUPT, f"{file}: {wrong[0]} is not what {MANIFEST} says")
    (into / MANIFEST).unlink()
    return about, len(wanted)


def _unpack_one(tar: tarfile.TarFile, member: tarfile.TarInfo, into: Path) -> tuple[str, tuple[int, str]]:
    folder, _, name = member.name.rpartition("/")
    content = tar.extractfile(member) if member.isreg() else None
    if content is None or folder not in ("", JOURNAL_NAME, OUTPUT_NAME) or name.startswith(".") or not name:
        raise ValueError(f"{escape(member.name)} has no place in one")
    if folder == OUTPUT_NAME:
        disk.make_directory(into / folder)
    with content:
        size, crc = disk.write_atomically(into / folder / name, iter(lambda: content.read(CHUNK_BYTES), b""))
    return member.name, (size, f"{crc:08x}")


def _verify(file: Path, unpacked: Path) -> None:
    """As `cronflowd check` does: every CRC, and that the whole can be replayed."""
    found = examine(unpacked)
    for line in found.lines:
        tell(line)
    if found.damages or found.faults:
        raise Fatal(Exit.CORRUPT, f"{file}: damaged; nothing was restored")


def _exchange(data: Path, unpacked: Path, in_the_way: list[Path]) -> Path | None:
    """The old out, the new in; where the old is now. All or nothing, but for the end of the process.

    Where it cannot be put back either, what is left of the new stays: see `check_restored`.
    """
    aside = disk.free_name(data / "replaced") if in_the_way else None
    if aside:
        disk.make_directory(aside)
    steps = [(path, aside / path.name) for path in in_the_way] if aside else []
    steps += [(path, data / path.name) for path in sorted(unpacked.iterdir())]
    done: list[tuple[Path, Path]] = []
    try:
        for old, new in steps:
            old.rename(new)
            done.append((old, new))
    except OSError:
        for old, new in reversed(done):
            new.rename(old)
        if aside:
            aside.rmdir()
        shutil.rmtree(unpacked, ignore_errors=True)
        raise
    disk.sync_directory(data)
    shutil.rmtree(unpacked, ignore_errors=True)
    return aside
