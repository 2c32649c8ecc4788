"""Who stays signed in through a gateway, and who has forgotten a password: SESSION, FORGOT and RESET.

A token that lets go on for another while is good once. It is of two halves: the first one stays, so
that who shows one that was used up is known, whether he has stolen it or was stolen from. Then
none of them counts any more.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from msgspec.structs import replace

from ..ask import questions as q
from ..ask.accounts import check_password
from ..base.errors import Refusal
from ..base.replies import Reply
from ..engine import access_facts as af
from ..engine import orders as o
from ..engine.access import ADMIN
from ..engine.accounts import check_offered
from ..host.secrets import make_password, new_token
from ..net.clients import Session
from .access import Admission, counted_as, digest_of

RESET_FOR = timedelta(minutes=30)
_OVER = "the session is over, or there was none"


class Logins:
    """Of one house."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._core = admission.core

    def change(self, question: Any, session: Session) -> Reply:
        """SESSION, but not LIST."""
        if isinstance(question, q.EndLogin):
            return self._end(question.token, session)
        self._admission.check_gateway(session)
        if isinstance(question, q.RenewLogin):
            return self._renew(question.token, session)
        family, secret = new_token(), new_token()
        order = replace(
            question, family=digest_of(family), digest=digest_of(secret), shown=family + secret,
            address=session.address,
        )  # fmt: skip
        return self._core.submit(order, f"{question.name}@{session.where}").told

    def _find(self, token: str) -> tuple[af.LoginSet | None, bool]:
        """Whose token this is, and whether it counts, or did."""
        access, half = self._core.state.access, len(token) // 2
        found = access.logins.get(access.by_family.get(digest_of(token[:half]), 0))
        if found is None or found.expires_at <= self._core.now():
            return None, False
        return found, found.digest == digest_of(token[half:])

    def _renew(self, token: str, session: Session) -> Reply:
        found, counts = self._find(token)
        if found is None:
            self._refused(session, "RENEW", _OVER, "")
            raise Refusal("denied", _OVER)
        if not counts:
            why = f"a token of the session {found.id} was shown again; the session has ended"
            self._refused(session, str(found.id), why, found.user)
            self._submit_end(found, session, f"{found.user}@{session.where}")
            raise Refusal("denied", why)
        secret = new_token()
        shown = token[: len(token) // 2] + secret
        return self._core.submit(o.RenewLogin(found.id, digest_of(secret), shown, session.address)).told

    def _end(self, word: str, session: Session) -> Reply:
        """By the token, or its id: of one's own; an admin's of anybody."""
        if word.isdecimal() and word.isascii() and len(word) <= 18:
            found = self._core.state.access.logins.get(int(word))
            if session.known.rank < ADMIN and (found is None or found.user != session.known.account):
                raise self._admission.deny(session, "the session of others takes the role admin", "END")
            if found is None:
                raise Refusal("not-found", f"no session {word}")
        else:
            self._admission.check_gateway(session)
            found, _ = self._find(word)
            if found is None:
                raise Refusal("denied", _OVER)
        who = session.who if session.known.account else f"{found.user}@{session.where}"
        return self._submit_end(found, session, who)

    def _submit_end(self, found: af.LoginSet, session: Session, who: str) -> Reply:
        order = o.EndLogin(found.id)
        return self._admission.change(order, session, lambda each: each.known.login == found.id, who)

    def _refused(self, session: Session, ref: str, why: str, who: str) -> None:
        self._admission.refused(session.address, counted_as(session), "SESSION", ref, why, who)

    # --- a password that was forgotten ---

    def offer_reset(self, question: q.Forgot, session: Session) -> Reply:
        """USER FORGOT."""
        self._admission.check_gateway(session)
        account = self._core.state.access.find_account(question.word)
        if account is None or account.disabled:
            raise Refusal("not-found", "no such account that may come in")
        word = new_token()
        order = o.OfferReset(account.name, digest_of(word), word, self._core.now() + RESET_FOR)
        return self._core.submit(order, session.who).told

    async def reset(self, question: q.Reset, session: Session) -> Reply:
        """USER RESET."""
        self._admission.check_gateway(session)
        access, digest = self._core.state.access, digest_of(question.token)
        name = next((each.name for each in access.resets.values() if each.digest == digest), "")
        try:
            check_offered(access, name, digest, self._core.now())
        except Refusal as refusal:
            self._admission.refused(
                session.address, counted_as(session), "USER", "RESET", refusal.message, name
            )
            raise
        shown = "" if question.password else make_password()
        password = question.password or shown
        check_password(password)
        changes, who = {"password": await self._admission.hashed(password)}, f"{name}@{session.where}"
        order = o.SetAccount(name, changes, reset=digest, shown=shown)
        return self._admission.change(order, session, lambda each: each.known.account == name, who)
