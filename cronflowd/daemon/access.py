"""Who is at the other end of a connection, and what it may do: signing in, roles, and what AUDIT tells.

What wrong words cost is told in strangers.py. Passwords are compared in a thread, two at a time,
those of one address one after the other. Whatever is refused for want of rights is journaled, as
every sign-in is, but not more of it than a disk can bear: of the rest the number is told.

A session ends as soon as what let it in does: its account or token is changed, expires, or is
gone, or its line is no longer in the token file. A gateway speaks for others (AS), and its connection
outlives them: it is nobody from then on, until it says for whom it goes on.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Coroutine, Generator
from datetime import datetime
from typing import Any, Protocol

import msgspec
import trio
from attrs import evolve

from ..ask import questions as q
from ..ask.accounts import check_password
from ..ask.commands import Verb
from ..base.addresses import origin
from ..base.errors import Refusal
from ..base.proofs import Sign, key_name, key_of, make_nonce
from ..base.replies import Reply
from ..base.text import escape
from ..engine import access_facts as af
from ..engine import orders as o
from ..engine.access import ADMIN, FILE_ADMIN, OPERATOR, RANK, ROLES, USER, WORKER, may_bear, name_of
from ..engine.accounts import keep_to_own, owner_of
from ..engine.definitions import finish
from ..engine.once import Asked
from ..engine.rules import Decision, ref_of
from ..engine.state import State
from ..host.config import Settings
from ..host.secrets import hash_password, is_password, make_password, matches, new_token
from ..host.threads import call_in_thread
from ..net.clients import Known, Session
from ..net.hello import Bearer
from ..net.workers import Link
from ..tasks.task import TaskSpec
from .strangers import Stranger, Strangers

UNGUESSABLE = 32  # characters of a token; `cronflowd init` makes them of 64 hexadecimal digits
HEARD = 4  # lines of one connection before AUTH
_PLAIN_REF = re.compile(r"[A-Za-z0-9._*-]{1,64}(?![^ \t])")  # a first word that gives no secret away
WORKER_WAITS_S = 5.0
COMPARING = 2  # passwords at a time; each takes a core and 64 MiB
LOOK_S = 60.0  # at the latest so long after the wall clock was set a token's end is seen

log = logging.getLogger("cronflowd.access")


class House(Protocol):
    """The core, as far as it concerns who comes in."""

    state: State
    settings: Settings
    tokens: tuple[bytes, ...]
    asks_tcp: bool
    asks_local: bool
    own_uids: frozenset[int]
    links: dict[str, Link]

    def now(self) -> datetime: ...
    def submit(
        self, order: Any, who: str | None = None, now: datetime | None = None, once: Asked | None = None
    ) -> Decision: ...


NOBODY = Known(rank=-1, name_shown="nobody")


class Admission:
    """Knows of every connection who it is."""

    def __init__(self, core: House) -> None:
        self.core = core
        self.sign: Sign | None = None  # what signs orders, where they are
        self.gateway_token = make_nonce().encode()  # of the HTTP door that the daemon starts
        self.wrong_words = self.lines_refused = 0  # ever
        self._gateways: set[str] = set()  # digests of what gateways came in by; each has many connections
        self._sessions: set[Session] = set()
        self._strangers = Strangers()
        self._comparing = trio.CapacityLimiter(COMPARING)
        self._changed = trio.Event()  # some session has an end that is nearer, or a refusal was not told

    # --- coming and going ---

    def enter(self, session: Session) -> None:
        """A connection begins: whether it has to say who it is, or is known by its user."""
        core = self.core
        is_local = session.kind == "unix"
        session.must_authenticate = core.asks_local if is_local else core.asks_tcp or bool(core.tokens)
        session.known = Known(name_shown=core.state.common.owner)
        if is_local and not session.must_authenticate and session.uid not in core.own_uids:
            self._take_uid(session)
        self._sessions.add(session)

    def _take_uid(self, session: Session) -> None:
        """Somebody of this machine who is neither root nor the daemon's own user."""
        access = self.core.state.access
        account = access.accounts.get(access.by_uid.get(session.uid, ""))
        if account is None or account.disabled:
            session.known = Known(rank=-1, name_shown=f"uid={session.uid}")
        else:
            self._become(session, Known(account.name, RANK[account.role]))

    def leave(self, session: Session) -> None:
        self._sessions.discard(session)

    def hello(self, session: Session, name: str) -> None:
        """A name that is only said; it is quoted where others have shown who they are."""
        session.told_as = None
        session.name, session.is_doubted = name, not self.core.state.access.is_empty or bool(self.core.tokens)

    def _become(self, session: Session, known: Known) -> None:
        session.known, session.told_as = known, None
        if known.until_at:
            self._changed.set()

    async def run(self) -> None:
        """Ends sessions whose token expires, and has AUDIT tell how much was refused untold."""
        while True:
            self._changed = trio.Event()
            now = self.core.now()
            ends = [each.known.until_at for each in self._sessions if each.known.until_at]
            self._expire(now)
            wait_s = min(((at - now).total_seconds() for at in ends if at > now), default=float("inf"))
            untold = [(address, each) for address, each in self._strangers.addresses.items() if each.untold]
            for address, each in untold:
                if self._strangers.may_be_noted(each):
                    self._note(af.Refused("", address, "", "", "", each.take_untold()))
            with trio.move_on_after(min(wait_s, LOOK_S if ends or untold else float("inf"))):
                await self._changed.wait()
            if untold:  # not once for each line of a flood
                await trio.sleep(min(wait_s, LOOK_S))

    def _expire(self, now: datetime) -> None:
        self._end(None, lambda each: each.known.until_at is not None and each.known.until_at <= now)

    # --- signing in ---

    def authenticate(self, question: q.Authenticate, session: Session) -> Reply | Coroutine[Any, Any, Reply]:
        """AUTH; what is compared with others takes its time."""
        if not (known := self._find_made(question)):
            return self._compare(question, session)
        self._strangers.at(counted_as(session)).failures = 0
        return self._let_in(known, session)

    def _let_in(self, known: Known, session: Session) -> Reply:
        self._become(session, known)
        session.is_session = session.authenticated = True
        is_passed_on = session.gateway or session.was_gateway
        gateways = {digest_of(self.gateway_token.decode()), *self._gateways}
        is_news = not known.digest or self._strangers.is_news(counted_as(session), known.digest)
        if is_news or not (is_passed_on or known.digest in gateways):
            self._note(
                af.SignedIn(known.account, ROLES[known.rank], session.address, known.token, known.is_account)
            )
        return self.whoami(session)

    def _find_made(self, question: q.Authenticate) -> Known | None:
        """Whoever shows a token that nobody guesses need not wait because others guess at its address.

        All of this machine have one. Such are those that TOKEN ADD made, and long ones of a token file.
        """
        if question.password is not None:
            return None
        if len(question.word) >= UNGUESSABLE and (known := self._find_in_file(question.word)):
            return known
        access = self.core.state.access
        digest = digest_of(question.word)
        token = access.tokens.get(access.by_digest.get(digest, 0))
        if token is None or token.role == WORKER:
            return None
        if not access.is_valid(token, self.core.now()):
            return None
        rank = access.rank_of(token)
        return Known(name_of(token), rank, digest, token.id, token.expires_at, bool(token.user))

    async def _compare(self, question: q.Authenticate, session: Session) -> Reply:
        """Raises Refusal, after a wait that grows."""
        stranger, name = self._strangers.at(counted_as(session)), None
        if question.password is not None:
            account = self.core.state.access.find_account(question.word)
            name = account.name if account else question.word
        await self._strangers.take_turn(stranger)
        try:
            if name is None or question.password is None:
                known = self._find_in_file(question.word)
            else:
                known = await self._find_account(name, question.password)
            if known is None:
                self._strangers.failed(stranger, name)
                refusal = self._wrong(session, stranger, name)
                await trio.sleep_until(stranger.free_s)
                raise refusal
            stranger.failures = 0
            return self._let_in(known, session)
        finally:
            stranger.turn.release()

    def _find_in_file(self, word: str) -> Known | None:
        core, access = self.core, self.core.state.access
        if matches((*core.tokens, self.gateway_token), word.encode(errors="replace")):
            return Known(FILE_ADMIN, ADMIN, digest_of(word), is_account=FILE_ADMIN in access.accounts)
        if self.is_guarded or not access.is_empty:
            return None
        return Known(core.state.common.owner, ADMIN, is_account=False)  # where nobody asks, any is welcome

    async def _find_account(self, name: str, password: str) -> Known | None:
        account = self.core.state.access.accounts.get(name)
        hashed = account.password if account and not account.disabled else ""
        is_right = await call_in_thread(is_password, hashed, password, limiter=self._comparing)
        now = self.core.state.access.accounts.get(name)
        # It may have been changed while the hash was made; when it was seen is no such change.
        is_same = account and now and msgspec.structs.replace(now, seen_at=account.seen_at) == account
        if not (is_right and account and is_same):
            return None
        self._strangers.names.pop(name[:64], None)
        return Known(account.name, RANK[account.role])

    def _wrong(self, session: Session, stranger: Stranger, name: str | None) -> Refusal:
        self.wrong_words += 1
        # A password that was typed in the name's place stands nowhere.
        who = name if name in self.core.state.access.accounts else ""
        log.warning("a wrong %s from %s", f"password of {who}" if who else "token or name", session.address)
        self.refused(session.address, counted_as(session), "AUTH", who or "", "wrong", who or "")
        if stranger.failures >= self.core.settings.max_failures:
            session.closing = session.gateway is None  # whose other lines are not of whoever guessed
            return Refusal("too-many", f"{stranger.failures} wrong words came from your address")
        what = "token" if name is None else "name or the password"
        return Refusal("denied", f"the {what} is not the right one")

    def too_fast(self, session: Session) -> Refusal | None:
        """Before anybody is known: why this line is one too many, if it is; then its connection ends."""
        stranger, now = self._strangers.at(counted_as(session)), trio.current_time()
        if now - stranger.lines_from_s > 1:
            stranger.lines, stranger.lines_from_s = 0, now
        stranger.lines += 1
        session.locked_lines += 1
        # As long as it takes to show who it is, each is heard whatever others of its address say.
        if session.locked_lines <= HEARD or stranger.lines <= (most := self.core.settings.max_locked_lines):
            return None
        self.lines_refused += 1
        session.closing = True
        return Refusal("too-many", f"more than {most} lines a second before AUTH")

    # --- workers ---

    @property
    def is_guarded(self) -> bool:
        """Whether there is a way in on which everybody has to say who he is."""
        return bool(self.core.tokens) or self.core.asks_tcp or self.core.asks_local

    @property
    def asks_workers(self) -> bool:
        """Whether a worker that comes over TCP has to show a token."""
        return self.core.asks_tcp or bool(self.core.tokens) or self.core.settings.require_proof

    def worker_token(self, word: str) -> Bearer | None:
        """Whose token this word is, if it counts; one of the token file lets in under any name."""
        if matches(self.core.tokens, word.encode(errors="replace")):
            return Bearer(key_of(word.encode()))
        return self._made_for_worker(self.core.state.access.by_digest.get(digest_of(word), 0))

    def worker_key(self, name: str) -> Bearer | None:
        """Whose token a proof is meant to be of, if it counts."""
        for key in map(key_of, self.core.tokens):
            if key_name(key) == name:
                return Bearer(key)
        return self._made_for_worker(self.core.state.access.by_key.get(name, 0))

    def _made_for_worker(self, token_id: int) -> Bearer | None:
        access = self.core.state.access
        token = access.tokens.get(token_id)
        if token is None or token.role != WORKER or not access.is_valid(token, self.core.now()):
            return None
        return Bearer(bytes.fromhex(token.digest), token)

    def admit_worker(self, bearer: Bearer | None, name: str, address: str) -> None:
        """Raises Refusal unless a worker that has shown this may come in and be called so."""
        stranger, who = self._strangers.at(origin(address)), ""
        if bearer is None:
            self.wrong_words += 1
            self._strangers.failed(stranger, None)
            why = "the token is not the right one"
        elif bearer.token and not may_bear(bearer.token, name):
            why, who = f"the token is for workers called {bearer.token.worker}", name_of(bearer.token)
        else:
            return
        self.refused(address, origin(address), "HELLO", name, why, who)
        raise Refusal("denied", why)

    def worker_came(self, bearer: Bearer, name: str, address: str) -> None:
        self._note(af.SignedIn(name, WORKER, address, bearer.token.id if bearer.token else 0, False))

    def order_refused(self, name: str, address: str, run: str, why: str) -> None:
        """A worker did not take an order for ours, or for one that it carries out."""
        self.refused(address, origin(address), "ORDER", run, why, name)

    def _end_workers(self, keys: set[bytes]) -> None:
        """Ends the connections that these tokens let in; their runs have their lease."""
        for link in [each for each in self.core.links.values() if each.bearer and each.bearer.key in keys]:
            link.end("its token counts no more")

    def penalty_s(self, address: str) -> float:
        """How long an address waits to be told that a worker is refused, which does not wait for ever."""
        wait_s = self._strangers.at(origin(address)).free_s - trio.current_time()
        return min(WORKER_WAITS_S, max(0.0, wait_s))

    # --- rights ---

    def check(self, verb: Verb, rest: str, session: Session) -> None:
        """Raises Refusal unless its role is enough; called where that of an admin would not do by itself."""
        if verb.is_for_gateway(rest) and self._is_gateway(session):
            if verb.answer == "act_as":  # what follows must not be done for the one before if it is refused
                self._be_nobody(session)
            return
        if session.known.until_at is not None and session.known.until_at <= self.core.now():
            self._send_away(session)
            raise Refusal("auth-required", "the token has expired")
        if session.known.rank >= verb.rank(rest):
            return
        if session.gateway and session.known.rank < 0:
            raise Refusal("auth-required", "AUTH comes first, or AS NAME: you are nobody here")
        session.verb = verb
        ref = plain[0] if (plain := _PLAIN_REF.match(rest)) and verb.may_tell(plain[0]) else ""
        if session.known.rank < 0:
            why = f"{session.known.name_shown} has no account here; an admin may give it one: USER ADD NAME "
            raise self.deny(session, f"{why}uid={session.uid}", ref)
        needed = ROLES[verb.rank(rest)]
        raise self.deny(session, f"this takes the role {needed}; you are {session.role}", ref)

    def check_still(self, session: Session) -> None:
        """Raises Refusal where somebody was sent away while his line waited for a file, or a hash."""
        if session.known.rank < 0:
            raise Refusal("denied", "your account or token was changed meanwhile")

    def only_looks(self, session: Session, order: Any) -> Refusal:
        """For an order that was let through as a look, or of somebody who was sent away meanwhile."""
        return self.deny(session, f"this takes the role user; you are {session.role}", ref_of(order))

    def own(self, order: Any, session: Session) -> Any:
        """An order as this session may give it; a task it adds is its own. Raises Refusal."""
        return finish(self.owned(order, session))

    def owned(self, order: Any, session: Session) -> Generator[None, None, Any]:
        """The same, in small steps."""
        self.check_still(session)
        state = self.core.state
        if isinstance(order, o.AddTask):
            order = self._owned(order, session)
        elif isinstance(order, o.SetTask | o.SetTemplate) and "owner" in (order.words or ()):
            self._check_gives_away(session, order)
        elif isinstance(order, o.RollBack) and session.known.rank < ADMIN and (task := state.find(order.ref)):
            owner = task.spec.options.owner
            record = {key: value for key, value in order.record.items() if key != "owner"}
            order = msgspec.structs.replace(order, record=record | ({"owner": owner} if owner else {}))
        if session.known.rank < OPERATOR:
            self._check_user(session, order)
            try:
                order = yield from keep_to_own(state, order, session.known.account)
            except Refusal as refusal:
                why = f"{refusal.message}; that takes the role operator"
                raise self.deny(session, why, ref_of(order)) from None
        return order

    def owns(self, session: Session) -> Callable[[TaskSpec], bool]:
        """What tells whether somebody may change a task, and so be shown all of it.

        Of whoever asks now: rows are made later, when the connection may be another one's (AS).
        """
        state, rank, account = self.core.state, session.known.rank, session.known.account
        return lambda spec: rank >= OPERATOR or (rank >= USER and owner_of(state, spec) == account)

    def _owned(self, order: o.AddTask, session: Session) -> o.AddTask:
        spec = order.spec
        old = self.core.state.find(spec.name) if order.replace and spec.name else None
        owner = old.spec.options.owner if old else session.known.account
        if spec.options.owner:
            if spec.options.owner != owner:
                self._check_gives_away(session, order)
            return order
        if old or not owner:
            return order
        options = evolve(spec.options, owner=owner)
        return msgspec.structs.replace(order, spec=evolve(spec, options=options))

    def _check_gives_away(self, session: Session, order: Any) -> None:
        if session.known.rank < ADMIN:
            needs = f"owner= takes the role admin; you are {session.role}"
            raise self.deny(session, needs, ref_of(order))

    def _check_user(self, session: Session, order: Any) -> None:
        """Raises Refusal where somebody would run as another user, who may see and do what he may not."""
        if isinstance(order, o.AddTask):
            user = order.spec.options.user
        else:
            user = (getattr(order, "words", None) or getattr(order, "record", None) or {}).get("user", "")
        if user and user != session.known.account:
            needs = f"user= with another name than yours takes the role operator; you are {session.role}"
            raise self.deny(session, needs, ref_of(order))

    def deny(self, session: Session, why: str, ref: str) -> Refusal:
        verb = session.verb.usage.partition(" ")[0]
        who = session.known.account or session.known.name_shown
        self.refused(session.address, counted_as(session), verb, ref, why, who)
        return Refusal("denied", why)

    def refused(self, address: str, counted_as: str, verb: str, ref: str, why: str, who: str) -> None:
        """Has AUDIT tell that somebody was refused; of a flood, only how much of it there was."""
        stranger = self._strangers.at(counted_as)
        if self._strangers.may_be_noted(stranger):
            untold = stranger.take_untold()
            self._note(af.Refused(who, address, verb, ref[:200], why[:200], untold))
        else:
            stranger.untold += 1
            self._changed.set()

    def _note(self, fact: af.SignedIn | af.Refused) -> None:
        """Journals what AUDIT tells; who may come in does not hang on room on the disk."""
        try:
            self.core.submit(o.Note(fact))
        except Refusal as refusal:
            log.warning("the audit misses a line: %s", refusal)

    # --- who speaks for others ---

    def _is_gateway(self, session: Session) -> bool:
        """Whether it is an admin by right of the machine; an account or a made token gives no such right."""
        if session.gateway:
            return True
        if session.known.digest:
            mine = (*self.core.tokens, self.gateway_token)
            return bytes.fromhex(session.known.digest) in map(key_of, mine)
        is_local = session.kind == "unix" and session.uid in self.core.own_uids
        return is_local and not (session.known.account or session.must_authenticate)

    def act_as(self, question: q.ActAs, session: Session) -> Reply:
        """AS."""
        self.check_gateway(session)
        session.is_session = True
        if question.name:
            session.address = question.address or session.address
            account = self.core.state.access.accounts.get(question.name)
            if account is None or account.disabled:
                why = f'no account "{escape(question.name[:80])}" that may come in'
                self.refused(session.address, counted_as(session), "AS", question.name, why, "")
                raise Refusal("denied", why)
            login = self.core.state.access.logins.get(question.login or 0)
            is_over = login is None or login.user != account.name or login.expires_at <= self.core.now()
            if question.login and is_over:
                raise Refusal("denied", f"the session {question.login} is over")
            self._become(session, Known(account.name, RANK[account.role], login=question.login or 0))
        elif question.address:
            session.address = question.address
        else:
            self._be_itself(session)
        if question.is_only:
            assert session.gateway
            session.was_gateway, session.gateway = session.gateway[0], None
            # Whom it does not name has to show who he is, as any stranger there.
            session.must_authenticate, session.authenticated = True, bool(question.name)
        return self.whoami(session)

    def check_gateway(self, session: Session) -> None:
        """Raises Refusal."""
        if not self._is_gateway(session):
            why = "this takes the role admin by right of the machine: the unix socket, or the token file"
            raise self.deny(session, why, "")

    def _be_nobody(self, session: Session) -> None:
        if session.gateway is None:
            session.gateway = session.known, session.address
            self._gateways |= {session.known.digest} - {""}
        session.address, session.moving = session.gateway[1], None
        self._become(session, NOBODY)

    def _be_itself(self, session: Session) -> None:
        assert session.gateway
        own, session.address = session.gateway
        session.gateway = None
        self._become(session, own)

    # --- accounts and tokens ---

    def whoami(self, session: Session) -> Reply:
        name, role = session.known.name_shown, session.role
        return Reply(f"{name} role={role}", {"name": name, "role": role})

    async def set_user(self, question: q.SetUser, session: Session) -> Reply:
        """USER ADD and SET."""
        changes, shown = dict(question.changes), ""
        if question.is_first and self.is_guarded:
            why = "who comes has to say who he is, so nobody is an admin for being the first"
            raise self.deny(session, why, question.name)
        if question.is_new:
            password = question.password
            if password is None:
                password = shown = make_password()
            check_password(password)
            if question.name in self.core.state.access.accounts:
                raise Refusal("exists", f'an account "{question.name}" exists already', "name")
            changes["password"] = await self.hashed(password)
        order = o.SetAccount(question.name, changes, question.is_new, question.is_first, shown=shown)
        ends = changes.keys() & {"role", "disabled", "uid"} and not question.is_new
        return self.change(order, session, lambda each: bool(ends) and each.known.account == question.name)

    async def set_password(self, question: q.SetPassword, session: Session) -> Reply:
        """USER PASSWORD: an admin's for anybody, everybody's for itself."""
        accounts = self.core.state.access.accounts
        name, password = question.name or session.known.account, question.password
        # One word is the name of an account; or the own new password, which no account is called.
        is_own = session.known.rank < ADMIN and session.known.account in accounts
        if name and not password and is_own and name not in accounts:
            name, password = session.known.account, name
        if not name:
            raise Refusal("syntax", "whose? USER PASSWORD NAME")
        if name != session.known.account and session.known.rank < ADMIN:
            raise self.deny(session, "the password of others takes the role admin", "PASSWORD")
        # A token may be for less than its account may, or for a day.
        if session.known.digest and session.known.rank < ADMIN:
            raise self.deny(session, "a token takes the role admin for that; AUTH USER PASSWORD", "PASSWORD")
        if name not in accounts:
            raise Refusal("not-found", "no such account")  # perhaps its name is a password
        shown = "" if password else make_password()
        check_password(password or shown)
        order = o.SetAccount(name, {"password": await self.hashed(password or shown)}, shown=shown)
        return self.change(order, session, lambda each: each.known.account == name)

    async def hashed(self, password: str) -> str:
        return await call_in_thread(hash_password, password, limiter=self._comparing)

    def remove_user(self, order: o.RemoveAccount, session: Session) -> Reply:
        return self.change(order, session, lambda each: each.known.account == order.name)

    def add_token(self, asked: o.AddToken, session: Session) -> Reply:
        word = new_token()
        return self.change(msgspec.structs.replace(asked, digest=digest_of(word), shown=word), session)

    def revoke_token(self, order: o.RevokeToken, session: Session) -> Reply:
        """Ends whatever it has let in."""
        token = self.core.state.access.tokens.get(order.token)
        reply = self.change(
            order, session, lambda each: token is not None and each.known.digest == token.digest
        )
        if token:
            self._end_workers({bytes.fromhex(token.digest)})
        return reply

    def change(
        self,
        order: Any,
        session: Session,
        ends: Callable[[Session], bool] = lambda _: False,
        who: str | None = None,
    ) -> Reply:
        """Whatever concerns who may come in; `who`: by somebody else's right than the session's."""
        if who is None:
            self.check_still(session)
        reply = self.core.submit(order, who or session.who, once=session.once).told
        for each in self._sessions:
            each.is_doubted, each.told_as = True, None
        self._end(session, ends)
        return reply

    def take_tokens(self, tokens: tuple[bytes, ...]) -> None:
        """The token file was read again: whoever came in by a line that it has no more is sent away."""
        gone = {key_of(token) for token in set(self.core.tokens) - set(tokens)}
        self.core.tokens = tokens
        for each in self._sessions:
            if each.gateway and bytes.fromhex(each.gateway[0].digest) in gone:
                self._be_itself(each)
        self._end(None, lambda each: not gone.isdisjoint(map(bytes.fromhex, each.let_in_by)))
        self._end_workers(gone)

    def _end(self, by: Session | None, concerns: Callable[[Session], bool]) -> None:
        """Ends the sessions that a change concerns; the one that made it after its answer."""
        for session in [each for each in self._sessions if concerns(each)]:
            self._send_away(session)
            if session.closing and session is not by:
                session.known = evolve(session.known, rank=-1)
                session.outbox.cut("its account or token was changed")

    def _send_away(self, session: Session) -> None:
        """None of its lines that were read already counts."""
        if session.gateway and not session.is_live:
            self._be_nobody(session)
        elif session.was_gateway and not session.is_live:  # whoever waits for its answer is told why
            session.authenticated = False
            self._become(session, NOBODY)
        else:
            session.closing = True


def digest_of(word: str) -> str:
    return hashlib.sha256(word.encode(errors="replace")).hexdigest()


def counted_as(session: Session) -> str:
    """Whom a wrong word is counted against."""
    return f"uid={session.uid}" if session.uid >= 0 else origin(session.address)
