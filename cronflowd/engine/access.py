"""The tables of who may come in, and what each of them may do.

A role may do all that the one before it may, so rights are one comparison. Accounts, tokens and
secrets come and go by facts, as tasks do. None of them is a password or a token: hashes stand
here, and whoever is shown a word compares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, Protocol, TypeVar

import msgspec
from attrs import Factory, define, field

from ..base.errors import Refusal
from ..base.proofs import name_of_digest
from ..base.text import shorten
from . import access_facts as af
from . import facts as f

ROLES = ("viewer", "user", "operator", "admin")  # each may do what the one before it may
RANK = {role: rank for rank, role in enumerate(ROLES)}
ADMIN = RANK["admin"]
OPERATOR = RANK["operator"]
USER = RANK["user"]  # the least that changes anything
FILE_ADMIN = "admin"  # whose word the token file holds
WORKER = "worker"  # a token's role that opens the workers' port, and no other
AnyFact = TypeVar("AnyFact", bound=f.Fact)
MAX_ACCOUNTS = 10_000
MAX_TOKENS = 10_000
MAX_SECRETS = 10_000
MAX_NAMES = 200  # characters of them in one message
MAX_LOGINS = 10_000
MAX_LOGINS_EACH = 100  # of one account: its oldest ends where another one begins


class Vault(Protocol):
    """Who has the key; host/vault.py."""

    why: str  # nothing can be sealed or opened; empty = it can

    def make_key(self) -> None: ...
    def seal(self, name: str, value: bytes) -> str: ...
    def open(self, name: str, sealed: str) -> bytes: ...


@define
class Access:
    """The tables of who may come in."""

    accounts: dict[str, af.AccountSet] = Factory(dict)
    tokens: dict[int, af.TokenAdded] = Factory(dict)
    secrets: dict[str, af.SecretPut] = Factory(dict)
    by_digest: dict[str, int] = Factory(dict)  # tokens, by the SHA-256 of the word
    by_key: dict[str, int] = Factory(dict)  # and by which of them a proof is meant to be of
    by_uid: dict[int, str] = Factory(dict)
    logins: dict[int, af.LoginSet] = Factory(dict)
    by_family: dict[str, int] = Factory(dict)  # those, by the digest of the half that stays
    resets: dict[str, af.ResetOffered] = Factory(dict)  # by account
    next_token: int = 1
    next_login: int = 1
    vault: Vault = field(init=False, eq=False, repr=False)  # not there while a journal is only looked at
    # By name: the key and the value that were tried, and why they do not go together.
    _tried: dict[str, tuple[Vault, af.SecretPut, str]] = field(init=False, eq=False, repr=False, factory=dict)

    def given(self, names: Iterable[str], before: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        """The secrets of these names as they are now, with those that were given before."""
        now = [(name, self.secrets[name].sealed) for name in names if name in self.secrets]
        return tuple(dict.fromkeys([*before, *now]))

    @property
    def is_empty(self) -> bool:
        return not (self.accounts or self.tokens)

    def has_admin(self, now: datetime) -> bool:
        """Whether an admin could come in by what stands here."""
        accounts, tokens = self.accounts.values(), self.tokens.values()
        return any(
            each.role == "admin" and not each.disabled and (each.password or each.uid is not None)
            for each in accounts
        ) or any(self.is_valid(each, now) and self.rank_of(each) == ADMIN for each in tokens)

    def created_at(self, name: str) -> datetime | None:
        """Since when somebody may be called so; what was done before was done by others."""
        account = self.accounts.get(name)
        found = [account] if account else [each for each in self.tokens.values() if name_of(each) == name]
        return min((each.created_at for each in found), default=None)

    def check_free(self, name: str) -> None:
        """Raises Refusal for a name that would be taken for somebody else's."""
        if name.startswith("token-"):
            raise Refusal("bad-option", f'"{name}": so tokens without a name are called', "name")
        if any(not each.user and name_of(each) == name for each in self.tokens.values()):
            raise Refusal("exists", f'a token is called "{name}" already', "name")

    def find_account(self, word: str) -> af.AccountSet | None:
        """By its name; or by its address for mail, where that is of one account only."""
        if "@" not in word:
            return self.accounts.get(word)
        found = self.mailed_at(word)
        return found[0] if len(found) == 1 else None

    def mailed_at(self, email: str) -> list[af.AccountSet]:
        """The accounts of an address for mail."""
        email = email.lower()
        return [each for each in self.accounts.values() if each.email.lower() == email]

    @property
    def closed(self) -> dict[str, str]:
        """The secrets that cannot be opened, and why."""
        for gone in self._tried.keys() - self.secrets.keys():
            del self._tried[gone]
        return {name: why for name in self.secrets if (why := self._why_closed(name))}

    @property
    def key_trouble(self) -> str:
        """Why secrets cannot be opened, and which, where others can; empty if there are none, or all can."""
        closed = self.closed
        why = next(iter(closed.values()), "")
        is_some = 0 < len(closed) < len(self.secrets)
        return f"{why}: {shorten(', '.join(closed), MAX_NAMES)}" if is_some else why

    def _why_closed(self, name: str) -> str:
        """Each is tried once with a key: there may be very many, and STATUS is asked often."""
        vault, secret = self.vault, self.secrets[name]
        tried = self._tried.get(name)
        if tried is None or tried[0] is not vault or tried[1] is not secret:
            why = ""
            try:
                vault.open(name, secret.sealed)
            except ValueError as error:
                why = str(error)
            tried = self._tried[name] = vault, secret, why
        return tried[2]

    def rank_of(self, token: af.TokenAdded) -> int:
        """What a token may do: never more than the account it speaks for may today."""
        rank = RANK.get(token.role, -1)
        account = self.accounts.get(token.user)
        return rank if account is None else min(rank, RANK[account.role])

    def is_valid(self, token: af.TokenAdded, now: datetime) -> bool:
        """Whether a token lets in now."""
        if token.expires_at is not None and token.expires_at <= now:
            return False
        account = self.accounts.get(token.user)
        return not token.user or (account is not None and not account.disabled)

    def carry(self) -> Iterator[f.Fact]:
        """All of it as facts, for a checkpoint."""
        yield from self.accounts.values()
        yield from self.tokens.values()
        yield from self.logins.values()
        yield from self.resets.values()
        yield from self.secrets.values()


def name_of(token: af.TokenAdded) -> str:
    """Who it is that shows this token."""
    return token.user or token.name or f"token-{token.id}"


def may_bear(token: af.TokenAdded, name: str) -> bool:
    """Whether a worker that shows this token may be called so."""
    return token.role == WORKER and fnmatchcase(name, token.worker)


# --- back ---


def _unsigned(fact: AnyFact) -> AnyFact:
    """As it stands in a table, which does not tell who put it there."""
    return msgspec.structs.replace(fact, who=None)


def _account_set(state: Any, fact: af.AccountSet, at: datetime, seq: int) -> None:
    access: Access = state.access
    if old := access.accounts.get(fact.name):
        if old.uid is not None:
            access.by_uid.pop(old.uid, None)
        if (old.role, old.password) != (fact.role, fact.password) or fact.disabled:
            _end_logins(access, fact.name)
        if old.email != fact.email:
            access.resets.pop(fact.name, None)  # the word was mailed to the one before
    access.accounts[fact.name] = _unsigned(fact)
    if fact.uid is not None:
        access.by_uid[fact.uid] = fact.name


def _account_removed(state: Any, fact: af.AccountRemoved, at: datetime, seq: int) -> None:
    access: Access = state.access
    old = access.accounts.pop(fact.name)
    if old.uid is not None:
        access.by_uid.pop(old.uid, None)
    for token in [token.id for token in access.tokens.values() if token.user == fact.name]:
        _forget_token(access, token)
    _end_logins(access, fact.name)


def _end_logins(access: Access, user: str) -> None:
    """Also what was offered to whoever would not know its password."""
    for login in [each.id for each in access.logins.values() if each.user == user]:
        _end_login(access, login)
    access.resets.pop(user, None)


def _end_login(access: Access, login: int) -> None:
    del access.by_family[access.logins.pop(login).family]


def _login_set(state: Any, fact: af.LoginSet, at: datetime, seq: int) -> None:
    access: Access = state.access
    for login in fact.over:
        _end_login(access, login)
    access.logins[fact.id] = msgspec.structs.replace(fact, over=[], who=None)
    access.by_family[fact.family] = fact.id
    access.next_login = max(access.next_login, fact.id + 1)
    if (account := access.accounts.get(fact.user)) and (seen := fact.renewed_at):
        last = max(seen, account.seen_at or seen)
        access.accounts[fact.user] = msgspec.structs.replace(account, seen_at=last)


def _token_added(state: Any, fact: af.TokenAdded, at: datetime, seq: int) -> None:
    access: Access = state.access
    access.tokens[fact.id] = _unsigned(fact)
    access.by_digest[fact.digest] = fact.id
    access.by_key[name_of_digest(fact.digest)] = fact.id
    access.next_token = max(access.next_token, fact.id + 1)


def _forget_token(access: Access, token: int) -> None:
    digest = access.tokens.pop(token).digest
    del access.by_digest[digest], access.by_key[name_of_digest(digest)]


def _signed_in(state: Any, fact: af.SignedIn, at: datetime, seq: int) -> None:
    access: Access = state.access
    if fact.is_account and (account := access.accounts.get(fact.name)):
        access.accounts[fact.name] = msgspec.structs.replace(account, seen_at=at)
    if token := access.tokens.get(fact.token):
        access.tokens[fact.token] = msgspec.structs.replace(token, used_at=at)


APPLY: dict[type[f.Fact], Callable[[Any, Any, datetime, int], None]] = {
    af.AccountSet: _account_set,
    af.AccountRemoved: _account_removed,
    af.TokenAdded: _token_added,
    af.TokenRevoked: lambda state, fact, at, seq: _forget_token(state.access, fact.id),
    af.LoginSet: _login_set,
    af.LoginEnded: lambda state, fact, at, seq: _end_login(state.access, fact.id),
    af.ResetOffered: lambda state, fact, at, seq: state.access.resets.update({fact.name: _unsigned(fact)}),
    af.SecretPut: lambda state, fact, at, seq: state.access.secrets.update({fact.name: _unsigned(fact)}),
    af.SecretRemoved: lambda state, fact, at, seq: state.access.secrets.pop(fact.name),
    af.SignedIn: _signed_in,
    af.Deed: lambda state, fact, at, seq: None,
    af.Refused: lambda state, fact, at, seq: None,
}
