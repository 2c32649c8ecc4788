"""Files that survive a crash: one owner for the directory, atomic replacement, space set aside.

`Disk` is the seam between this program and the kernel: every call whose failure matters
goes through it, so that a test can make the n-th one fail, or lose what was not synced.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import itertools
import logging
import os
import re
import resource
import stat
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from attrs import evolve, frozen

from ..base.errors import Exit, Fatal, Refusal
from ..base.text import escape

log = logging.getLogger("cronflowd.disk")

LOCK_NAME = "lock"
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})  # the last: ulimit -f
NO_DESCRIPTOR = frozenset({errno.EMFILE, errno.ENFILE})
_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOSYS})
_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE: the file's length stays, so nobody ever reads the space as zeros
_WRITE_BYTES = 1024 * 1024
SMALL_BYTES = 16 * _WRITE_BYTES  # of a file that is read whole
SYNC_BYTES = 8 * _WRITE_BYTES  # of a long file at a time: else the journal's next sync waits for all of it

# No setting and no permission: the disk, what leads to it, or the machine has nothing left.
_BROKEN = frozenset(
    {errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE, errno.EREMOTEIO, errno.EUCLEAN, errno.ETIMEDOUT}
    | NO_DESCRIPTOR
    | {errno.ENOMEM}
)

_libc = ctypes.CDLL(None, use_errno=True)
_fallocate = _libc.fallocate
_fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFDIR: "a directory",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
_HANDED = re.compile("/dev/fd/([0-9]+)|/dev/stdin|/proc/self/fd/([0-9]+)")
_NULL = os.makedev(1, 3)
# Descriptors by whose names files were read: the program needs them until its end.
OPENED_FOR_US: set[int] = set()


@contextlib.contextmanager
def of_file(path: str | Path) -> Iterator[None]:
    """An OSError says which file it is about: of one that is open, the kernel does not."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def handed(path: str | Path | None) -> list[int]:
    """The descriptor that a name stands for, where that was opened for us, as a shell does for `<(…)`."""
    found = _HANDED.fullmatch(str(path))
    return [int(found[1] or found[2] or 0)] if found else []


def keep_content(descriptor: int) -> None:
    """What comes through a pipe comes once: from now on a file with all of it stands in the pipe's place."""
    is_pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    OPENED_FOR_US.add(descriptor)
    if descriptor > 2:
        os.set_inheritable(descriptor, False)  # it is no job's
    if not is_pipe:
        return
    kept = os.memfd_create("handed")
    try:
        os.fchmod(kept, 0o600)
        size = 0
        while piece := os.read(descriptor, _WRITE_BYTES):
            if (size := size + len(piece)) > SMALL_BYTES:
                raise OSError(errno.EFBIG, f"longer than {SMALL_BYTES} bytes")
            os.write(kept, piece)
        os.dup2(kept, descriptor, inheritable=False)
    finally:
        os.close(kept)


def plain(path: str | Path, flags: int) -> int:
    """Opens a plain file, also as `opener=`; OSError, at once, says what else stands there.

    Whoever puts a named pipe in its place would have us wait for its other end, and some devices have
    no end. What was opened for us may be anything, and of a pipe its end is waited for; /dev/null is meant.
    """
    if descriptors := handed(path):
        with of_file(path):
            keep_content(*descriptors)
    elif not flags & os.O_DIRECTORY:
        try:
            # Before it is opened, which with some devices does something.
            found = Path(path).stat()
            if (kind := _KINDS.get(stat.S_IFMT(found.st_mode))) and found.st_rdev != _NULL:
                raise OSError(errno.EINVAL, f"{kind}, not a file", str(path))
        except FileNotFoundError:
            if Path(path).is_symlink() and not flags & os.O_CREAT:
                raise OSError(errno.ENOENT, "a link that leads nowhere", str(path)) from None
        with contextlib.suppress(BlockingIOError):  # a lease on it ends when it is asked for
            # Should it have become another one meanwhile.
            return os.open(path, flags | os.O_NONBLOCK, 0o600)
    return os.open(path, flags, 0o600)


@contextlib.contextmanager
def or_fatal(what: str, otherwise: Exit = Exit.CANNOT_CREATE) -> Iterator[None]:
    """An OSError ends the program, which says what could not be done."""
    try:
        yield
    except OSError as error:
        raise Fatal(exit_of(error, otherwise), f"{what}: {error.strerror or error}") from error


def exit_of(error: OSError, otherwise: Exit = Exit.CANNOT_CREATE) -> Exit:
    """With what a program ends that cannot go on without a file: 74 where something is broken."""
    return Exit.IO if error.errno in _BROKEN else otherwise


def read_small(path: str | Path, limit: int = SMALL_BYTES) -> bytes:
    """All of a file; OSError where it is none, or longer than that."""
    with of_file(path), open(path, "rb", opener=plain) as file:
        if os.fstat(file.fileno()).st_size <= limit and len(content := file.read()) <= limit:
            return content
    raise OSError(errno.EFBIG, f"longer than {limit} bytes", str(path))


def chunks_of(file: BinaryIO) -> Iterator[bytes]:
    """A file from where it is read, little by little."""
    with of_file(file.name):
        yield from iter(partial(file.read, _WRITE_BYTES), b"")


class Disk:
    """The real calls."""

    open = staticmethod(plain)
    pwrite = staticmethod(os.pwrite)
    fdatasync = staticmethod(os.fdatasync)
    fsync = staticmethod(os.fsync)
    ftruncate = staticmethod(os.ftruncate)
    rename = staticmethod(os.rename)
    unlink = staticmethod(os.unlink)

    def allocate(self, fd: int, offset: int, size: int) -> bool:
        """Sets space aside without changing the file's length; False where the file system cannot.

        Raises OSError, ENOSPC most of all.
        """
        most, _ = resource.getrlimit(resource.RLIMIT_FSIZE)  # to which a write is held, and this call is not
        if most != resource.RLIM_INFINITY and offset + size > most:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        while _fallocate(fd, _KEEP_SIZE, offset, size) != 0:
            code = ctypes.get_errno()
            if code in _UNSUPPORTED:
                return False
            if code != errno.EINTR:
                raise OSError(code, os.strerror(code))
        return True

    def free_bytes(self, fd: int) -> int:
        """What the file system has left for us."""
        space = os.fstatvfs(fd)
        return space.f_bavail * space.f_frsize


DISK = Disk()


def is_at(fd: int, path: Path) -> bool:
    """Whether a start that opens the name will find what is open here, as far as can be said."""
    return size_at(fd, path) is not None


def size_at(fd: int, path: Path, opened: os.stat_result | None = None) -> int | None:
    """How long that is, -1 where nobody lets us look; None: it would find something else, or nothing.

    `opened` is what it was when it was opened: then it is not looked at again.
    """
    try:
        found = path.stat()
        # Some file systems make up another inode at each look: the kernel knows the name, too.
        is_same = os.path.samestat(found, opened or os.fstat(fd)) or (
            Path(f"/proc/self/fd/{fd}").readlink() == path.resolve()
        )
        return found.st_size if is_same else None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:  # it is there, but not for us to look at
        return -1


def write_all(disk: Disk, fd: int, data: bytes, offset: int) -> None:
    """Writes all of it, however many calls that takes."""
    view = memoryview(data)
    while view:
        written = disk.pwrite(fd, view, offset)
        if written == 0:  # would otherwise be tried for ever
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        view, offset = view[written:], offset + written


def sync_directory(path: Path, disk: Disk = DISK) -> None:
    """Makes the names in it last: without this a rename is lost with the power (seen on ext4 and xfs)."""
    with opened_directory(path, disk) as sync:
        sync()


@contextlib.contextmanager
def opened_directory(path: Path, disk: Disk = DISK) -> Iterator[Callable[[], None]]:
    """The same as a call that can be made later, and lacks no descriptor then."""
    with of_file(path):
        fd = disk.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def sync() -> None:
        with of_file(path):
            disk.fsync(fd)

    try:
        yield sync
    finally:
        os.close(fd)


# --- one owner -----------------------------------------------------------------------


def make_directory(path: Path) -> None:
    """A directory for its owner only; raises Fatal (73, or 74)."""
    with or_fatal(f"{path}: cannot make the directory"):
        made = [each for each in (path, *path.parents) if not each.exists()]
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path in made and ~path.stat().st_mode & stat.S_IRWXU:
            path.chmod(0o700)  # a umask that is for files alone would let nobody in
        for each in made:
            sync_directory(each.parent)


@frozen
class Lock:
    """A directory that is this process's alone, for as long as this is open."""

    file: int  # tells whose it is
    directory: int  # held as well: a lock that is taken for a leftover and removed keeps nobody out

    def close(self) -> None:
        os.close(self.file)
        os.close(self.directory)


def lock_directory(data: Path, name: str = LOCK_NAME) -> Lock:
    """Takes the directory for this process.

    Raises Fatal: 75 naming the process that has it, 73 or 74 where a lock cannot be made.
    """
    make_directory(data)
    path = data / name
    if (mode := stat.S_IMODE(data.stat().st_mode)) & 0o022:  # one that was there before us
        log.warning("%s: others can change what is in it (mode %04o); chmod go-w it", data, mode)
    with or_fatal(str(path)), contextlib.ExitStack() as held:
        directory = os.open(data, os.O_RDONLY | os.O_DIRECTORY)
        held.callback(os.close, directory)
        with contextlib.suppress(OSError):  # NFS knows no lock of a directory; then the file's must do
            _lock(directory, path)
        is_ours, fd = _open_lock(path)
        held.callback(os.close, fd)
        _lock(fd, path)
        if is_ours:
            _write_number(fd)
        held.pop_all()
    return Lock(fd, directory)


def _open_lock(path: Path) -> tuple[bool, int]:
    """Whether our number can stand in it, and its descriptor."""
    try:
        return True, plain(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        if error.errno != errno.EROFS or not path.exists():
            raise
        return False, plain(path, os.O_RDONLY)  # it locks as well; `check` wants no more


def _lock(fd: int, path: Path) -> None:
    """Raises Fatal (75) where another process has it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = ""
        with contextlib.suppress(OSError):
            holder = read_small(path)[:20].decode("ascii", "replace").strip()
        raise Fatal(Exit.TRY_AGAIN, f"{path.parent}: in use by process {holder or '(unknown)'}") from None


def _write_number(fd: int) -> None:
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    except OSError as error:
        # The lock holds; that a full disk has no room for the number in it only spoils a message.
        if error.errno not in NO_SPACE:
            raise


def holder_of(path: Path) -> int:
    """The process that has a lock; 0 where nobody has."""
    try:
        fd = plain(path, os.O_RDWR)
    except OSError:
        return 0
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return 0
    except BlockingIOError:
        told = os.pread(fd, 20, 0).strip()
        return int(told) if told.isdigit() else 0
    finally:
        os.close(fd)


# --- atomic replacement ----------------------------------------------------------------

_numbers = itertools.count()
_PREPARED = re.compile(r"\.([0-9]+)-[0-9]+\.tmp")


@frozen
class Prepared:
    """A file written and synced beside the one it will replace."""

    path: Path
    made: Path
    size: int
    crc: int  # CRC-32 of its bytes
    disk: Disk

    def publish(self) -> None:
        """Puts it in its place, for good; raises Refusal or OSError, leaving nothing, where it cannot."""
        try:
            with _writing(self.path):
                self.disk.rename(self.made, self.path)
        except BaseException:
            self.discard()
            raise
        try:
            sync_directory(self.path.parent, self.disk)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def discard(self) -> None:
        """It is not wanted after all."""
        with contextlib.suppress(OSError):
            self.disk.unlink(self.made)


def prepare(path: Path, chunks: Iterable[bytes], disk: Disk = DISK) -> Prepared:
    """Writes what will be `path`; raises Refusal (`disk-full`, `read-only`) or OSError, leaving nothing."""
    prepared = Prepared(path, path.with_name(f".{path.name}.{os.getpid()}-{next(_numbers)}.tmp"), 0, 0, disk)
    try:
        with _writing(path):
            fd = disk.open(prepared.made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            size, crc = _write_chunks(prepared, fd, chunks)
            with _writing(path):
                disk.fsync(fd)
        finally:
            os.close(fd)
    except BaseException:
        prepared.discard()
        raise
    return evolve(prepared, size=size, crc=crc)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """An error, or a Refusal, names the file that was asked for, not the one that is to become it."""
    try:
        yield
    except OSError as error:
        raise_refusal(error, str(path))
        raise OSError(error.errno, error.strerror, str(path)) from error


def _write_chunks(prepared: Prepared, fd: int, chunks: Iterable[bytes]) -> tuple[int, int]:
    size = crc = waiting = synced = 0
    batch: list[bytes] = []
    for chunk in chunks:
        batch.append(chunk)
        waiting += len(chunk)
        if waiting >= _WRITE_BYTES:
            size, crc = _write_batch(prepared, fd, batch, size, crc)
            batch, waiting = [], 0
        if size - synced >= SYNC_BYTES:
            with _writing(prepared.path):
                prepared.disk.fdatasync(fd)
            synced = size
    return _write_batch(prepared, fd, batch, size, crc)


def _write_batch(prepared: Prepared, fd: int, batch: list[bytes], size: int, crc: int) -> tuple[int, int]:
    data = b"".join(batch)
    with _writing(prepared.path):
        write_all(prepared.disk, fd, data, size)
    return size + len(data), zlib.crc32(data, crc)


def write_atomically(path: Path, chunks: Iterable[bytes], disk: Disk = DISK) -> tuple[int, int]:
    """Replaces a file whole or not at all: (size, CRC-32)."""
    prepared = prepare(path, chunks, disk)
    prepared.publish()
    return prepared.size, prepared.crc


def remove_leftovers(directory: Path, spared: Collection[int | None] = ()) -> None:
    """Files that were being written when the process was killed; those of the processes `spared` stay.

    Of `prepare` a file's name tells whose it is, and any other's is None.
    """
    for path in directory.glob(".*.tmp"):
        found = _PREPARED.search(path.name)
        if (int(found[1]) if found else None) not in spared:
            with contextlib.suppress(OSError):
                path.unlink()


def free_name(path: Path) -> Path:
    """`path` itself, else with `.2`, `.3` and so on behind it: what is kept aside overwrites nothing."""
    name, number = path, 1
    while name.exists():
        number += 1
        name = path.with_name(f"{path.name}.{number}")
    return name


def raise_refusal(error: OSError, what: str) -> None:
    """Raises Refusal for what an operator can mend while the daemon runs on; else returns."""
    if error.errno in NO_SPACE:
        raise Refusal("disk-full", f"{what}: {error.strerror}; nothing was written") from error
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        raise Refusal("read-only", f"{what}: {error.strerror}; nothing was written") from error


def plain_file(data: Path, name: str, suffix: str) -> Path:
    """The file a client names; it can be no other than one in the data directory. Raises Refusal."""
    if not re.fullmatch(rf"[A-Za-z0-9_-][A-Za-z0-9._-]{{0,63}}\{suffix}", name):
        form = f"a plain file name ending in {suffix} (letters, digits, . _ -)"
        raise Refusal("bad-option", f'"{escape(name)}" is not {form}')
    return data / name


def open_regular(path: Path) -> BinaryIO:
    """A plain file to read, or Refusal naming what it is instead."""
    try:
        return open(path, "rb", _WRITE_BYTES, opener=plain)
    except FileNotFoundError:
        raise Refusal("not-found", f"there is no {path.name} in {path.parent}") from None
    except OSError as error:
        code = "internal" if error.errno in _BROKEN else "denied"
        code = "bad-option" if error.errno == errno.EINVAL else code
        raise Refusal(code, f"{path}: {error.strerror}") from error
