"""Who may come in: the shared secret of a small installation, passwords, and the doors they guard.

The secret travels as one word of a line (`AUTH TOKEN`, `token=`), so it is printable ASCII
without blanks. There is none by default and an empty one is an error; without a secret the
program listens on this machine only. The file may hold several, which all count: that is how one
is changed while everything runs.

Passwords have argon2id hashes, which are made and compared slowly on purpose, so it is done in a thread: by
argon2-cffi, with the parameters it recommends (RFC 9106, low memory). The hash names them, so old ones are
still compared when they change.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import hmac
import ipaddress
import logging
import os
import secrets
import stat
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from ..base.errors import Exit, Fatal, Refusal
from .config import Settings, WebSettings
from .disk import exit_of, handed, keep_content, or_fatal, plain, prepare, sync_directory
from .setting import Address, format_address

log = logging.getLogger(__name__)

KEY_BYTES = 32
PR_SET_DUMPABLE = 4
MAX_TOKENS = 16
MAX_FILE_BYTES = 16 * 1024
MAX_TOKEN_BYTES = 512  # well under the 1 KiB that a stranger may send before the secret

# Of passwords.
ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # without those that are taken for others
MADE_CHARACTERS = 20  # about 99 bits

# Said by `init`, whose file is there already; the reference tells the same.
CHANGE = (
    "to change it, add a line with another one, as `openssl rand -hex 32` makes it, and send the daemon HUP:"
    " both count then; give the new one to the workers and clients, delete the old line, and send HUP again"
)


def matches(tokens: Iterable[bytes], offered: bytes) -> bool:
    """Whether the offered word is one of the secrets; takes equally long whatever is wrong with it."""
    # The digests are of one length, so not even a secret's length shows in the time.
    digest = hashlib.sha256(offered).digest()
    return sum(hmac.compare_digest(hashlib.sha256(token).digest(), digest) for token in tokens) > 0


def read_tokens(path: Path) -> tuple[bytes, ...]:
    """The secrets in a file that nobody but its owner may read: a line each, between them `#` remarks.

    Raises Fatal.
    """
    lines = (line.strip() for line in read_secret(path, "token").splitlines())
    tokens = tuple(_checked(path, line) for line in lines if line and not line.startswith(b"#"))
    if not tokens:
        raise Fatal(Exit.CONFIG, f"{path}: the token is empty; `cronflowd init` makes one")
    if len(tokens) > MAX_TOKENS:
        raise Fatal(Exit.CONFIG, f"{path}: more than {MAX_TOKENS} tokens")
    return tokens


def read_password(path: Path) -> str:
    """A password for somewhere else: the file's one line. Raises Fatal."""
    password = read_secret(path, "password").decode(errors="surrogateescape").removesuffix("\n")
    password = password.removesuffix("\r")
    if not password or not password.isprintable():
        raise Fatal(Exit.CONFIG, f"{path}: the password is not one line of text")
    return password


def read_secret(path: Path, what: str) -> bytes:
    """What a file holds that nobody but its owner may read. Raises Fatal."""
    with or_fatal(f"{path}: cannot read the {what}", Exit.CONFIG):
        # What was opened for us is read where it is: neither we nor our jobs need be able to open it, as
        # where systemd has done so.
        if descriptors := handed(path):
            keep_content(*descriptors)
        file = os.dup(*descriptors) if descriptors else plain(path, os.O_RDONLY)
        try:
            _check_mode(path, os.fstat(file), what)
            secret = os.pread(file, MAX_FILE_BYTES + 1, 0)
        finally:
            os.close(file)
    if len(secret) > MAX_FILE_BYTES:
        raise Fatal(Exit.CONFIG, f"{path}: the {what}'s file is longer than {MAX_FILE_BYTES} bytes")
    return secret


def read_key(path: Path, what: str) -> bytes:
    """Of such a file that `make_key` has made. Raises Fatal."""
    try:
        key = bytes.fromhex(read_secret(path, what).decode().strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise Fatal(Exit.CONFIG, f"{path}: the {what} is not {2 * KEY_BYTES} hexadecimal digits")
    return key


def hide_memory() -> None:
    """From now on nobody of the same user reads this process's memory, and it leaves no core file.

    A worker's jobs are of its user, and those of a local worker of the daemon's.
    """
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def _check_mode(path: Path, found: os.stat_result, what: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise Fatal(Exit.CONFIG, f"{path}: cannot read the {what}: it is not a file")
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o022:
        raise Fatal(Exit.CONFIG, f"{path}: others can change the {what} (mode {mode:04o}); chmod 600 it")
    # A group may read what root owns: that is how an administrator, and systemd's
    # LoadCredential=, hand a secret to a user who must not be able to change it.
    if mode & (0o004 if found.st_uid == 0 else 0o044):
        log.warning("%s: others can read the %s (mode %04o); chmod 600 it", path, what, mode)


def _checked(path: Path, token: bytes) -> bytes:
    if len(token) > MAX_TOKEN_BYTES:
        raise Fatal(Exit.CONFIG, f"{path}: the token is longer than {MAX_TOKEN_BYTES} bytes")
    if not all(0x21 <= byte <= 0x7E for byte in token):
        raise Fatal(Exit.CONFIG, f"{path}: the token is not one word of printable ASCII")
    return token


def new_token() -> str:
    """A word that nobody guesses."""
    return secrets.token_hex(KEY_BYTES)


def make_key(path: Path, change: str) -> None:
    """A new file with a new word that nobody else may read; `change` is told of one that is there already.

    Raises Fatal.
    """
    made = None
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = prepare(path, [new_token().encode() + b"\n"])
        _name(made.made, path)
        sync_directory(path.parent)
    except FileExistsError as error:
        raise Fatal(
            Exit.CANNOT_CREATE, f"{path}: it is there already, and stays as it is; {change}"
        ) from error
    except Refusal as refusal:
        raise Fatal(Exit.CANNOT_CREATE, refusal.message) from refusal
    except OSError as error:
        raise Fatal(exit_of(error), f"{path}: {error.strerror}") from error
    finally:
        if made is not None:
            made.discard()


def _name(made: Path, path: Path) -> None:
    """Whole or not at all, and never in the place of another one."""
    try:
        path.hardlink_to(made)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        # Some file systems have no second names.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        made.rename(path)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener there; unsure means no."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False  # a name, which may come to mean anything
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def exposed(settings: Settings, inherited: Iterable[Address] = ()) -> Address | None:
    """An address that other machines can reach, if there is one; `inherited` are sockets from systemd."""
    return first_exposed((*settings.listen, *settings.listen_workers, *inherited))


def first_exposed(addresses: Iterable[Address]) -> Address | None:
    """The first of them that other machines can reach."""
    return next((address for address in addresses if not is_loopback(address[0])), None)


def check_doors(
    settings: Settings | WebSettings, found: Address | None, has_admin: Callable[[], bool]
) -> None:
    """Refuses (77) to listen beyond this machine, at `found`, where nobody would have to say who he is."""
    is_node = False
    if isinstance(settings, Settings):
        found = found or first_exposed(settings.http)
        # It learns of accounts when it joins, and asks whoever comes in any case.
        is_node = bool(settings.etcd)
    if found is None or settings.insecure or settings.token_file is not None or is_node or has_admin():
        return
    raise Fatal(
        Exit.REFUSED,
        f"{format_address(found)} can be reached from other machines, and whoever reaches it can"
        " run any command; give a secret with --token-file (`cronflowd init` makes one), or have an admin"
        " (`cronflowd user add NAME role=admin`), or say --insecure",
    )


# --- passwords ----------------------------------------------------------------------------------


@cache
def _hasher() -> Any:
    from argon2 import PasswordHasher  # a daemon where nobody has a password is without it

    return PasswordHasher()


def make_password() -> str:
    """A new one, to be told once."""
    return "".join(secrets.choice(ALPHABET) for _ in range(MADE_CHARACTERS))


@cache
def hash_of_nobody() -> str:
    """What is compared where there is no such account, so that it takes as long."""
    return hash_password(secrets.token_hex(16))


def hash_password(password: str) -> str:
    """Blocks for about 50 ms, and takes 64 MiB meanwhile."""
    hashed: str = _hasher().hash(password)
    return hashed


def is_password(hashed: str, offered: str) -> bool:
    """Whether it is the one whose hash this is; an empty hash is nobody's, and takes as long."""
    from argon2.exceptions import InvalidHashError, VerificationError

    try:
        _hasher().verify(hashed or hash_of_nobody(), offered)
    except (VerificationError, InvalidHashError):
        return False
    return bool(hashed)
