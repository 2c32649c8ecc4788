"""Facts about who may come in: accounts, tokens, secrets, and what is told of those who tried.

Of a password its argon2id hash stands here, of a token its SHA-256, of a secret what AES-256-GCM made of it.
None of them lets a client in. A worker's token is proved by its SHA-256, though: see SECURITY.md.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

import msgspec

from .facts import Fact, Signed


class AccountSet(Signed):
    """An account as it is from now on; new, or otherwise than before."""

    name: str
    role: str
    created_at: datetime
    email: str = ""
    uid: int | None = None  # of this machine: who comes by the unix socket with it is this account
    password: str = ""  # its hash; empty = none lets in
    disabled: bool = False
    seen_at: datetime | None = None  # in a checkpoint: when it came in last
    desc: str = ""  # its name for people


class AccountRemoved(Signed):
    """An account is gone, and its tokens with it. Its tasks stay."""

    name: str


class TokenAdded(Signed):
    """A word that lets in from now on."""

    id: int
    digest: str  # SHA-256 of the token, as hexadecimal digits
    role: str
    created_at: datetime
    name: str = ""
    user: str = ""  # the account it speaks for; empty = for none
    worker: str = ""  # of a worker's: which names it may bear, a glob
    expires_at: datetime | None = None
    used_at: datetime | None = None  # in a checkpoint: when it let in last


class TokenRevoked(Signed):
    """It lets nobody in any more."""

    id: int


class LoginSet(Signed):
    """Somebody stays signed in, until it expires or ends; the same again with each token that follows.

    A token is of two halves. By the first, which stays, one that was used up is told from a guess.
    """

    id: int
    user: str
    family: str  # SHA-256 of the half that stays, as hexadecimal digits
    digest: str  # and of the half that counts now
    created_at: datetime
    expires_at: datetime
    address: str = ""  # from where
    renewed_at: datetime | None = None
    over: list[int] = msgspec.field(default_factory=list)  # these have expired, or are too many


class LoginEnded(Signed):
    """None of its tokens counts any more."""

    id: int


class ResetOffered(Signed):
    """Who shows a word may give an account another password, once; it takes the place of the one before."""

    name: str
    digest: str
    expires_at: datetime


class SecretPut(Signed):
    """A secret has a value from now on."""

    name: str
    sealed: str  # base64 of the nonce and what AES-256-GCM made of the value
    set_at: datetime


class SecretRemoved(Signed):
    """It has none any more: what needs it fails."""

    name: str


class SignedIn(Fact):
    """Somebody has shown who it is."""

    urgent: ClassVar[bool] = False
    name: str
    role: str
    address: str
    token: int = 0  # by which; 0 = by its password, or a token that no fact tells of
    is_account: bool = True  # False = the name is a token's, or that of the token file


class Deed(Fact):
    """Somebody did something that no other fact says who did; or, in history, what a longer one said."""

    urgent: ClassVar[bool] = False
    who: str
    verb: str
    ref: str = ""


class Refused(Fact):
    """Somebody wanted what it may not have."""

    urgent: ClassVar[bool] = False
    who: str
    address: str
    verb: str
    ref: str
    why: str
    untold: int = 0  # and so many more times lately, of which nothing else is told
