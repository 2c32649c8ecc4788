"""Makes a tar.gz of some paths, reads it back to be sure, and keeps the last few.

    ADD type=custom timeout=2h payload={"paths":["/etc","/srv/data"],"into":"/backup",
        "name":"web","exclude":["*.tmp","cache"],"keep":14} 30 2 * * * backup

    paths     what goes in, files and directories
    into      the directory of the archives, which must exist; it never goes into its own archive
    name      "backup": the archives are called <name>-20300101T023000Z.tar.gz
    exclude   patterns (* ? [abc]) of names, or of whole paths if they hold a /; what is in an
              excluded directory does not go in either
    keep      7: so many archives stay, the newest; 0: all

The archive is written under a temporary name, synced, and read back: every file in it must have
the size and the SHA-256 of what was read from the disk. Only then it gets its name, with a file
.sha256 beside it (`sha256sum -c` understands it), and only then older archives of the same name
go. If anything fails, or it is killed, the older ones are all still there. A file that vanishes
meanwhile is told and left out; one that cannot be read, or that shrinks, is a failure.

To restore:  tar -xzf ARCHIVE -C /somewhere
"""

import contextlib
import fcntl
import hashlib
import os
import re
import stat
import tarfile
import time
from fnmatch import fnmatchcase
from pathlib import Path

CHUNK_BYTES = 1024 * 1024


def handle(data, context):
    name, into, keep = data.get("name", "backup"), Path(data["into"]), data.get("keep", 7)
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", name) or not isinstance(keep, int) or keep < 0:
        raise ValueError("name is letters, digits, . _ -, and keep a number")
    into = into.resolve(strict=True)
    with locked(into / f".{name}.lock"):
        final = into / (name + time.strftime("-%Y%m%dT%H%M%SZ.tar.gz", time.gmtime()))
        part = into / f".{final.name}.part"
        if final.exists():
            raise FileExistsError(f"{final} is there already")
        part.unlink(missing_ok=True)  # of one that was killed within this very second
        try:
            files = write(part, data["paths"], data.get("exclude", []), into, context)
            digest = verify(part, files, context)
            publish(part, final, digest)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        removed = rotate(final, name, keep, context)
    return {"archive": str(final), "bytes": final.stat().st_size, "files": len(files), "removed": removed}


@contextlib.contextmanager
def locked(path):
    """One backup of a name at a time: what is unfinished is then left over from one that was killed."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


# --- writing ----------------------------------------------------------------------------


def write(part, paths, exclude, into, context):
    """Writes the archive; returns size and SHA-256 of each file in it, by the name it has there."""
    found = [each for path in paths for each in walk(Path(path).absolute(), exclude, into)]
    total = sum(size for _, size in found) or 1
    context.log(f"{len(found)} files and directories, {total} bytes")
    files, done = {}, 0
    with open(part, "xb", opener=private) as raw:
        with tarfile.open(fileobj=raw, mode="w:gz", compresslevel=6) as tar:
            for path, size in found:
                context.check_cancelled()
                try:
                    add(tar, path, files, context)
                except FileNotFoundError:
                    context.log(f"{path} has vanished")
                done += size
                context.progress(0.7 * done / total)
        raw.flush()
        os.fsync(raw.fileno())
    return files


def private(path, flags):
    return os.open(path, flags, 0o600)


def walk(path, exclude, into):
    """(path, size) of it and all below, parents first."""
    if path == into or any(fnmatchcase(str(path) if "/" in each else path.name, each) for each in exclude):
        return
    found = path.lstat()
    yield path, found.st_size if stat.S_ISREG(found.st_mode) else 0
    if stat.S_ISDIR(found.st_mode):
        for each in sorted(path.iterdir()):
            with contextlib.suppress(FileNotFoundError):
                yield from walk(each, exclude, into)


def add(tar, path, files, context):
    if not stat.S_ISREG(path.lstat().st_mode):
        if info := tar.gettarinfo(str(path)):  # a socket has none
            tar.addfile(info)
        return
    # Opened first, so that size and content are of one file whatever happens to the name.
    with open(path, "rb", opener=no_link) as file:
        info = tar.gettarinfo(arcname=str(path), fileobj=file)
        if info.islnk():  # another name of a file that is in already
            tar.addfile(info)
            return
        reader = Hashing(file, context)
        tar.addfile(info, reader)
        files[info.name] = (info.size, reader.hash.hexdigest())


def no_link(path, flags):
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


class Hashing:
    """A file that remembers the hash of what was read from it."""

    def __init__(self, file, context):
        self.file, self.context, self.hash = file, context, hashlib.sha256()

    def read(self, size):
        self.context.check_cancelled()
        data = self.file.read(size)
        self.hash.update(data)
        return data


# --- looking at it again ----------------------------------------------------------------


def verify(part, files, context):
    """Reads all of the archive back; returns its own SHA-256. Raises ValueError for a difference."""
    seen = {}
    with tarfile.open(part, "r:gz") as tar:
        for member in tar:
            if member.isreg():
                content = Hashing(tar.extractfile(member), context)
                while content.read(CHUNK_BYTES):
                    pass
                seen[member.name] = (member.size, content.hash.hexdigest())
                context.progress(0.7 + 0.3 * len(seen) / len(files))
    if seen != files:
        wrong = sorted(name for name in seen.keys() | files.keys() if seen.get(name) != files.get(name))
        raise ValueError(f"read back, {len(wrong)} files differ, the first is {wrong[0]}")
    with part.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def publish(part, final, digest):
    """Gives the archive its name, and writes the .sha256 beside it."""
    beside = final.with_name(final.name + ".sha256")
    with open(beside, "x", opener=private) as file:
        file.write(f"{digest}  {final.name}\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        part.rename(final)
    except BaseException:
        beside.unlink()
        raise
    sync_directory(final.parent)


def rotate(final, name, keep, context):
    """Removes all but the newest `keep`, and what a killed one left; nothing of any other name."""
    into = final.parent
    stamp = re.escape(name) + r"-[0-9]{8}T[0-9]{6}Z\.tar\.gz"
    # The one just made stays, also where a clock that was wrong has left some of later days.
    others = sorted(each for each in into.iterdir() if re.fullmatch(stamp, each.name) and each != final)
    old = others[: len(others) - keep + 1] if 0 < keep <= len(others) else []
    for path in old:
        path.unlink()
        path.with_name(path.name + ".sha256").unlink(missing_ok=True)
        context.log(f"removed {path.name}")
    for path in [each for each in into.iterdir() if re.fullmatch(rf"\.{stamp}\.part", each.name)]:
        path.unlink()
        context.log(f"removed {path.name}, which was never finished")
    sync_directory(into)
    return [path.name for path in old]


def sync_directory(path):
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
