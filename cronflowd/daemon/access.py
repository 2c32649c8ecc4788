"""Who is at the other end of a connection, and what it may do: signing in, roles, and what AUDIT tells.

A wrong word costs its address a wait that doubles with each, before the next one is compared; and
nobody else anything, so nobody can be locked out by a stranger. Passwords are compared in a thread,
two at a time. Whatever is refused for want of rights is journaled, as every sign-in is, but not
more of it than `NOTED` a minute from one address: of what a flood of it was, the number is told.
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import secrets
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import msgspec
import trio
from attrs import define, evolve

from ..ask import questions as q
from ..ask.accounts import check_password
from ..ask.commands import Verb
from ..base.errors import Refusal
from ..base.replies import Reply
from ..base.text import escape
from ..engine import orders as o
from ..engine.access import ADMIN, OPERATOR, RANK, ROLES, WORKER
from ..engine.accounts import keep_to_own
from ..host.passwords import hash_password, is_password, make_password
from ..host.secrets import matches
from ..net.clients import Session

if TYPE_CHECKING:
    from .core import Core

FILE_ADMIN = "admin"  # whose word the token file holds
FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 10.0
FORGIVEN_S = 600.0  # without another wrong word
MAX_WAITING = 8  # of one address; more are refused at once
MAX_KNOWN = 10_000  # addresses that gave a wrong word; the oldest are forgotten first
NOTED = 60  # refusals a minute that are journaled of one address

log = logging.getLogger("cronflowd.access")


@define
class Guesser:
    """An address from which wrong words came."""

    failures: int = 0
    failed_at: float = 0.0
    free_at: float = 0.0  # when its next word may be compared
    waiting: int = 0
    noted: int = 0  # in the minute since
    noted_from: float = 0.0
    untold: int = 0


class Admission:
    """Knows of every connection who it is."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self._sessions: set[Session] = set()
        self._guessers: OrderedDict[str, Guesser] = OrderedDict()
        self._comparing = trio.CapacityLimiter(2)

    # --- coming and going ---

    def enter(self, session: Session) -> None:
        """A connection begins: whether it has to say who it is, or is known by its user."""
        core = self.core
        is_local = session.kind == "unix"
        session.must_authenticate = core.asks_local if is_local else core.asks_tcp or bool(core.tokens)
        session.name_shown, session.rank = core.state.common.owner, ADMIN
        if is_local and not session.must_authenticate and session.uid not in core.own_uids:
            self._take_uid(session)
        self._sessions.add(session)

    def _take_uid(self, session: Session) -> None:
        """Somebody of this machine who is neither root nor the daemon's own user."""
        access = self.core.state.access
        account = access.accounts.get(access.by_uid.get(session.uid, ""))
        if account is None or account.disabled:
            session.name_shown, session.rank = f"uid={session.uid}", -1
        else:
            self._become(session, account.name, RANK[account.role])

    def leave(self, session: Session) -> None:
        self._sessions.discard(session)

    def _become(self, session: Session, name: str, rank: int, token: int = 0, until_at: Any = None) -> None:
        session.account = session.name_shown = name
        session.rank, session.token, session.until_at = rank, token, until_at

    # --- signing in ---

    async def authenticate(self, question: q.Authenticate, session: Session) -> Reply:
        """AUTH; raises Refusal, after a wait that grows."""
        guesser = await self._take_turn(session)
        if question.password is None:
            found = self._find_token(question.word)
        else:
            found = await self._find_account(question.word, question.password)
        if found is None:
            self._failed(session, guesser, question)
            raise Refusal("denied", "the token is not the right one" if question.password is None
                          else "the name or the password is not the right one")  # fmt: skip
        if guesser:
            guesser.failures = 0
        name, role, token, is_account = found
        until_at = self.core.state.access.tokens[token].expires_at if token else None
        self._become(session, name, RANK[role], token, until_at)
        session.is_session = session.authenticated = True
        self._note(o.SignIn(name, role, session.address, token, is_account))
        return Reply(f"{name} role={role}", {"name": name, "role": role})

    def _find_token(self, word: str) -> tuple[str, str, int, bool] | None:
        """(name, role, token, whether the name is an account's)."""
        core, access = self.core, self.core.state.access
        offered = word.encode(errors="replace")
        if core.tokens and matches(core.tokens, offered):
            account = access.accounts.get(FILE_ADMIN)
            return FILE_ADMIN, "admin", 0, account is not None
        token = access.tokens.get(access.by_digest.get(hashlib.sha256(offered).hexdigest(), 0))
        if token is None or token.role == WORKER or not access.is_valid(token, core.now()):
            if not (core.tokens or access.lets_in or core.asks_tcp or core.asks_local):
                return core.state.common.owner, "admin", 0, False  # where nobody asks, any is welcome
            return None
        role = ROLES[access.rank_of(token)]
        return token.user or token.name or f"token-{token.id}", role, token.id, bool(token.user)

    async def _find_account(self, name: str, password: str) -> tuple[str, str, int, bool] | None:
        account = self.core.state.access.accounts.get(name)
        hashed = account.password if account and not account.disabled else ""
        is_right = await trio.to_thread.run_sync(is_password, hashed, password, limiter=self._comparing)
        # It may have been changed while the hash was made.
        if not is_right or account is not self._as_known(name, account):
            return None
        assert account
        return account.name, account.role, 0, True

    def _as_known(self, name: str, account: Any) -> Any:
        """The same account, if nothing but when it was seen has changed."""
        now = self.core.state.access.accounts.get(name)
        same = now and account and msgspec.structs.replace(now, seen_at=account.seen_at) == account
        return account if same else None

    async def _take_turn(self, session: Session) -> Guesser | None:
        guesser = self._guessers.get(_host(session))
        if guesser is None:
            return None
        now = trio.current_time()
        if now - guesser.failed_at > FORGIVEN_S:
            guesser.failures = 0
        if guesser.failures and guesser.free_at > now:
            if guesser.waiting >= MAX_WAITING:
                raise Refusal("too-many", "too many wrong words came from your address; try again later")
            at, guesser.free_at = guesser.free_at, guesser.free_at + _wait_s(guesser.failures)
            guesser.waiting += 1
            try:
                await trio.sleep_until(at)
            finally:
                guesser.waiting -= 1
        return guesser

    def _failed(self, session: Session, guesser: Guesser | None, question: q.Authenticate) -> None:
        guesser = guesser or self._guesser(session)
        now = trio.current_time()
        guesser.failures += 1
        guesser.failed_at = now
        guesser.free_at = max(guesser.free_at, now + _wait_s(guesser.failures))
        # A password typed in the name's place stands nowhere.
        is_known = question.password is not None and question.word in self.core.state.access.accounts
        who = question.word if is_known else ""
        log.warning("a wrong %s from %s", f"password of {who}" if who else "token or name", session.address)
        self._refused(session, "AUTH", who, "wrong", who)

    def _guesser(self, session: Session) -> Guesser:
        host = _host(session)
        guesser = self._guessers.setdefault(host, Guesser())
        self._guessers.move_to_end(host)
        if len(self._guessers) > MAX_KNOWN:
            oldest = next(iter(self._guessers))
            if not self._guessers[oldest].waiting:
                del self._guessers[oldest]
        return guesser

    # --- rights ---

    def check(self, verb: Verb, rest: str, session: Session) -> None:
        """Raises Refusal unless its role is enough; called where it is not that of an admin."""
        if session.until_at is not None and session.until_at <= self.core.now():
            session.closing = True
            raise Refusal("auth-required", "the token has expired")
        if session.rank >= verb.rank(rest):
            return
        name = verb.usage.partition(" ")[0]
        if session.rank < 0:
            why = f"{session.name_shown} has no account here; an admin may give it one: USER ADD NAME uid="
            raise self._deny(session, name, why.rstrip("=") + f"={session.uid}", "")
        needed = ROLES[verb.rank(rest)]
        raise self._deny(session, name, f"{name} takes the role {needed}; you are {session.role}", "")

    def own(self, order: Any, session: Session) -> Any:
        """An order as this session may give it; a task it adds is its own. Raises Refusal."""
        state = self.core.state
        if isinstance(order, o.AddTask):
            order = self._owned(order, session)
        elif isinstance(order, o.SetTask | o.SetTemplate) and "owner" in (order.words or ()):
            self._check_gives_away(session)
        if session.rank < OPERATOR:
            try:
                order = keep_to_own(state, order, session.account)
            except Refusal as refusal:
                raise self._deny(session, _verb_of(order), refusal.message, _ref_of(order)) from None
        return order

    def _owned(self, order: o.AddTask, session: Session) -> o.AddTask:
        spec = order.spec
        old = self.core.state.find(spec.name) if order.replace and spec.name else None
        owner = old.spec.options.owner if old else session.account
        if spec.options.owner:
            if spec.options.owner != owner:
                self._check_gives_away(session)
            return order
        if not owner:
            return order
        options = evolve(spec.options, owner=owner)
        return msgspec.structs.replace(order, spec=evolve(spec, options=options))

    def _check_gives_away(self, session: Session) -> None:
        if session.rank < ADMIN:
            raise self._deny(session, "SET", "owner= may be said by an admin only", "")

    def _deny(self, session: Session, verb: str, why: str, ref: str) -> Refusal:
        self._refused(session, verb, ref, why, session.account or session.name_shown)
        return Refusal("denied", why)

    def _refused(self, session: Session, verb: str, ref: str, why: str, who: str) -> None:
        guesser, now = self._guesser(session), trio.current_time()
        if now - guesser.noted_from > 60:
            guesser.noted, guesser.noted_from = 0, now
        if guesser.noted >= NOTED:
            guesser.untold += 1
            return
        guesser.noted += 1
        untold, guesser.untold = guesser.untold, 0
        self._note(o.NoteRefusal(who, session.address, verb, ref, why[:200], untold))

    def _note(self, order: Any) -> None:
        """Journals what AUDIT tells; who may come in does not hang on room on the disk."""
        try:
            self.core.submit(order)
        except Refusal as refusal:
            log.warning("the audit misses a line: %s", refusal)

    # --- accounts and tokens ---

    def whoami(self, session: Session) -> Reply:
        return Reply(
            f"{session.name_shown} role={session.role}", {"name": session.name_shown, "role": session.role}
        )

    async def set_user(self, question: q.SetUser, session: Session) -> Reply:
        """USER ADD and SET."""
        changes, shown = dict(question.changes), ""
        if question.is_new:
            password = question.password
            if password is None:
                password = shown = make_password()
            check_password(password)
            if question.name in self.core.state.access.accounts:
                raise Refusal("exists", f'an account "{question.name}" exists already')
            changes["password"] = await self._hashed(password)
        reply = self._changed(o.SetAccount(question.name, changes, question.is_new, shown), session)
        if not question.is_new and changes.keys() & {"role", "disabled", "uid"}:
            self._end(session, lambda each: each.account == question.name)
        return reply

    async def set_password(self, question: q.SetPassword, session: Session) -> Reply:
        """USER PASSWORD: an admin's for anybody, everybody's for itself."""
        name = question.name or session.account
        if not name:
            raise Refusal("syntax", "whose? USER PASSWORD NAME")
        if name != session.account and session.rank < ADMIN:
            raise self._deny(session, "USER", f"the password of {escape(name[:80])} is not yours", name)
        if name not in self.core.state.access.accounts:
            raise Refusal("not-found", f'no account "{escape(name[:80])}"')
        shown = "" if question.password else make_password()
        check_password(password := question.password or shown)
        order = o.SetAccount(name, {"password": await self._hashed(password)}, shown=shown)
        reply = self._changed(order, session)
        self._end(session, lambda each: each.account == name)
        return reply

    async def _hashed(self, password: str) -> str:
        return await trio.to_thread.run_sync(hash_password, password, limiter=self._comparing)

    def remove_user(self, order: o.RemoveAccount, session: Session) -> Reply:
        reply = self._changed(order, session)
        self._end(session, lambda each: each.account == order.name)
        return reply

    def add_token(self, asked: q.AddToken, session: Session) -> Reply:
        word = secrets.token_hex(32)
        digest = hashlib.sha256(word.encode()).hexdigest()
        order = o.AddToken(
            digest, word, asked.name, asked.role, asked.user, asked.worker, asked.expires_at
        )  # fmt: skip
        return self._changed(order, session)

    def revoke_token(self, order: o.RevokeToken, session: Session) -> Reply:
        reply = self._changed(order, session)
        self._end(session, lambda each: each.token == order.token)
        return reply

    def _changed(self, order: Any, session: Session) -> Reply:
        reply = self.core.submit(order, session.who).reply
        assert reply
        return reply

    def _end(self, by: Session, concerns: Any) -> None:
        """Ends the sessions that a change concerns; the one that made it after its answer."""
        for session in [each for each in self._sessions if concerns(each)]:
            if session is by:
                session.closing = True
            else:
                session.outbox.cut("its account or token was changed")


def _wait_s(failures: int) -> float:
    return float(min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(failures - 1, 10)))


def _host(session: Session) -> str:
    """Whom a wrong word is counted against: of IPv6 the /64, of which whoever has one address has all."""
    if session.kind == "unix":
        return f"uid={session.uid}"
    host = session.address.rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return host


def _verb_of(order: Any) -> str:
    return _VERBS.get(type(order), type(order).__name__)


_VERBS: dict[type, str] = {
    o.AddTask: "ADD", o.SetTask: "SET", o.RemoveTask: "REMOVE", o.PauseTasks: "PAUSE",
    o.ResumeTasks: "RESUME", o.RunTask: "RUN", o.CancelRun: "CANCEL", o.UndoChanges: "UNDO",
    o.EmitEvent: "EMIT", o.RollBack: "ROLLBACK",
}  # fmt: skip


def _ref_of(order: Any) -> str:
    for name in ("ref", "refs", "run", "event", "count"):
        if (value := getattr(order, name, None)) is not None:
            return " ".join(value) if isinstance(value, tuple) else str(value)
    spec = getattr(order, "spec", None)
    return spec.name if spec else ""
