"""Passwords: argon2id hashes made and compared; slow on purpose, so it is done in a thread.

By argon2-cffi, with the parameters it recommends (RFC 9106, low memory): the hash names them, so
old ones are still compared when they change.
"""

from __future__ import annotations

import secrets
from functools import cache
from typing import Any

ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # without those that are taken for others
MADE_CHARACTERS = 20  # about 99 bits


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
