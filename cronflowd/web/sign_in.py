"""Signing in and out, new accounts, and passwords that were forgotten, whoever's form they come from.

The daemon compares passwords and keeps sessions. What programs get is an access token for a quarter
of an hour, and a refresh token that is good once and gives both anew; what browsers get is a cookie.

Who has forgotten his password is sent a link that is good once, behind the answer, which is the same, and as
quick, whether there is such an account.
"""

from __future__ import annotations

import logging
import re
import secrets
import smtplib
import unicodedata
from typing import Annotated

import msgspec
import trio
from attrs import frozen

from ..base.errors import Fatal, Refusal
from ..base.names import check_form, check_mail_address
from ..base.text import format_option
from ..host.clock import wall_now
from ..host.config import WebSettings
from ..host.mail import Delivery, make_message
from ..host.secrets import is_loopback, read_password
from ..host.setting import format_address
from ..host.threads import call_in_thread
from . import identity as i
from .envelope import Refused, status_of
from .guard import Limits, split_host
from .identity import AnyRequest
from .line import Answer, Caller, Daemon, Row, Unreachable, account, nobody, origin_of, stranger

log = logging.getLogger("cronflowd.web.mails")

SESSION_TTL = "7d"
MAX_WAITING = 100
AT_A_TIME = 4
AN_HOUR = 3  # mails to one account: nobody's mailbox is filled by others
MAX_NAME = 200  # characters, of what people are shown
MAX_TRIES = 20  # names for an account, where others have the first ones
NEED_NO_ACCOUNT = ("admin", "root", "cronflowd")  # the token file's own, and users of the daemon's machine

Text = Annotated[str, msgspec.Meta(max_length=256)]


class Credentials(msgspec.Struct, forbid_unknown_fields=True):
    """Who, by mail address or by name, and the password."""

    password: Text
    email: Text = ""
    name: Text = ""
    username: Text = ""

    @property
    def who(self) -> str:
        return self.email or self.username or self.name


class Registration(msgspec.Struct, forbid_unknown_fields=True):
    """`username` is what the account is called; without it, it is made of the other names."""

    password: Text
    email: Text = ""
    username: Text = ""
    name: Annotated[str, msgspec.Meta(max_length=MAX_NAME)] = ""  # for people


class Person(msgspec.Struct, rename="camel"):
    """An account, as people are shown it."""

    id: str  # what it is called
    name: str  # its owner's own
    email: str | None
    role: str
    disabled: bool
    created_at: str | None
    last_seen_at: str | None
    uid: int | None


class Tokens(msgspec.Struct, rename="camel"):
    """By which a program shows who has signed in; the second is good once, for both anew."""

    user: Person
    access_token: str
    refresh_token: str
    expires_in: int  # seconds, of the first


@frozen
class Entered:
    """Somebody has come in."""

    user: Person
    who: i.SignedIn
    refresh_word: str

    def tokens(self, identity: i.Identity) -> Tokens:
        now = wall_now()
        shown = identity.sign(self.who, i.ACCESS_S, now), identity.sign_refresh(self.refresh_word, now)
        return Tokens(self.user, *shown, i.ACCESS_S)


async def enter(request: AnyRequest, who: str, password: str) -> Entered:
    """Signs somebody in, by an account's name or mail address; raises Refused, after a wait that grows."""
    _limit(request)
    if who.split() != [who] or password.split() != [password]:
        # No name and no password has a blank in it, and a line with one would mean something else.
        raise Refused(401, "denied", "the name or the password is not the right one")
    return await _come_in(request, who, password)


async def _come_in(request: AnyRequest, who: str, password: str) -> Entered:
    """The daemon compares the words, and tells of it in AUDIT and when somebody was last seen."""
    answer = await _show(request, f"AUTH {who} {password}", stranger(i.address_of(request)))
    name = answer.status["name"]
    said = [f"SESSION ADD {name} ttl={SESSION_TTL}", f"USER LIST {name}"]
    session, users = await i.daemon_of(request).ask_all(said, account(name, i.address_of(request)))
    signed_in = i.SignedIn(name, session.check().status["id"])
    return Entered(person(users.check().rows[0]), signed_in, session.pairs["token"])


async def register(request: AnyRequest, new: Registration) -> Entered:
    """Makes an account and signs it in: the first one as admin, others where the settings let them."""
    _limit(request)
    _check(new)
    name = await _make(request, new, "role=admin first=yes") if is_at_home(request) else None
    if name is None and request.app.state.settings.allow_registration:
        name = await _make(request, new, "role=user")
        if name is None:
            raise Refused(409, "exists", "there is such an account already")
    if name is None:
        raise Refused(
            403, "denied", "nobody registers here; an admin adds accounts: USER ADD NAME email=ADDRESS"
        )
    return await _come_in(request, name, new.password)


def is_at_home(request: AnyRequest) -> bool:
    """Whether it is a browser on this machine, and no proxy on it that speaks for somebody else.

    Who has a proxy that tells nothing of itself tells by which name people reach it.
    """
    settings: WebSettings = request.app.state.settings
    name, _ = split_host(request.headers.get("host", ""))
    if i.is_proxied(request) or settings.http_name or settings.http_url:
        return False
    return is_loopback(i.address_of(request)) and is_loopback(name)


async def may_be_first(request: AnyRequest) -> bool:
    """Whether whoever asks is offered to make the first account."""
    if not is_at_home(request):
        return False
    users, status = await i.daemon_of(request).ask_all(["USER LIST", "STATUS"])
    return not users.check().rows and "auth" not in status.check().pairs


def _check(new: Registration) -> None:
    field = "email"
    try:
        if new.email or not new.username:
            check_mail_address(new.email)
        field = "username"
        if new.username:
            check_form(new.username, "account name")
    except Refusal as refusal:
        raise Refused(400, refusal.code, refusal.message, field) from None
    if len(new.name) > MAX_NAME or not new.name.isprintable():
        raise Refused(400, "bad-option", f"a name is one line of at most {MAX_NAME} characters", "name")
    check_word(new.password)


def check_word(password: str) -> None:
    """Raises Refused where a line would mean something else with it."""
    if password.split() != [password] or not password.isprintable():
        raise Refused(400, "bad-option", "a password is one word, without blanks", "password")


async def _make(request: AnyRequest, new: Registration, kind: str) -> str | None:
    """The account's name; None where it is not the first, or has another one's mail address."""
    daemon = i.daemon_of(request)
    options = [format_option("desc", new.name)] if new.name else []
    options += [format_option("email", new.email)] if new.email else []
    options += [format_option("password", new.password)]
    base = new.username or account_name(new.name) or account_name(new.email.partition("@")[0]) or "user"
    others = [] if new.username else [f"{base[:60]}-{number}" for number in range(2, MAX_TRIES)]
    for name in [base, *others]:
        if "first" not in kind and await _is_somebodys(daemon, name):
            continue
        try:
            await daemon.ask(f"USER ADD {name} {kind} {' '.join(options)}")
        except Refusal as refusal:
            if refusal.code == "bad-option":  # of all that it says, only this was not looked at
                raise Refused(400, refusal.code, refusal.message, "password") from None
            if refusal.code not in ("exists", "denied"):
                raise
            if "first" in kind or not (await daemon.ask(f"USER LIST {name}")).rows:
                return None
        else:
            return name
    return None


async def _is_somebodys(daemon: Daemon, name: str) -> bool:
    """Whether tasks are, or would be, another one's of that name.

    That is who needs no account here, and who has none any more: whoever took the name would have his tasks.
    """
    own, tasks = await daemon.ask_all(["WHOAMI", f"LIST owner={name} limit=1"])
    return name.lower() in {*NEED_NO_ACCOUNT, own.check().status["name"].lower()} or bool(tasks.check().rows)


def account_name(text: str) -> str:
    """What an account may be called after somebody's own name: `jose.munoz` of `José Muñoz`."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub("[^a-z0-9_-]+", ".", plain).strip(".-")[:64]


def person(row: Row) -> Person:
    return Person(
        row["name"], row["desc"] or row["name"], row["email"], row["role"], row["disabled"] == "yes",
        row["created"], row["last-seen"], row["uid"],
    )  # fmt: skip


async def renew(request: AnyRequest, shown: str) -> Entered:
    """A session goes on by its refresh token, which is good once: shown again, it ends the session."""
    word = i.identity_of(request).read_refresh(shown, wall_now())
    answer = await _show(request, f"SESSION RENEW {word}", nobody(i.address_of(request)))
    name = answer.status["name"]
    users = await i.daemon_of(request).ask(f"USER LIST {name}")
    return Entered(person(users.rows[0]), i.SignedIn(name, answer.status["id"]), answer.pairs["token"])


async def leave(request: AnyRequest, shown: str = "") -> None:
    """Ends the session whose refresh token this is; or that which the request shows."""
    if shown:
        word = i.identity_of(request).read_refresh(shown, wall_now())
        await _show(request, f"SESSION END {word}", nobody(i.address_of(request)))
        return
    who = await i.shown_by(request)
    if not isinstance(who, i.SignedIn):
        raise Refused(400, "bad-option", "an API token is no session; TOKEN REVOKE ends it")
    caller = account(who.name, i.address_of(request), who.session)
    await i.daemon_of(request).ask(f"SESSION END {who.session}", caller)


async def _show(request: AnyRequest, said: str, caller: Caller) -> Answer:
    """The answer to a line by which somebody shows who he is. Raises Refused.

    Who is not let in by it may sign in again, which is something else than to have no right.
    """
    try:
        return await i.daemon_of(request).ask(said, caller)
    except Refusal as refusal:
        status = 401 if refusal.code == "denied" else status_of(refusal.code)
        raise Refused(status, refusal.code, refusal.message) from None


async def whoami(request: AnyRequest) -> Person:
    """The account of whoever asks, and the role that he has here: a token's may be less."""
    daemon = i.daemon_of(request)
    found = (await daemon.ask("WHOAMI", await i.caller_of(request))).status
    rows = (await daemon.ask(f"USER LIST {found['name']}")).rows
    row = rows[0] if rows else dict.fromkeys(("email", "desc", "created", "last-seen", "uid", "disabled"))
    return person(row | {"name": found["name"], "role": found["role"]})


def forget(request: AnyRequest, who: str) -> None:
    """Has a mail sent, if there is such an account; nobody is told whether."""
    _limit(request)
    if who.split() == [who]:
        postman: Postman = request.app.state.postman
        postman.take(Forgotten(who, i.address_of(request), own_url(request)))


async def set_anew(request: AnyRequest, token: str, password: str) -> None:
    """Another password, by the word of the mail; ends all sessions of the account."""
    _limit(request)
    if token.split() != [token]:
        raise Refused(403, "denied", "the word is not the right one, was used, or has expired", "token")
    check_word(password)
    try:
        await i.daemon_of(request).ask(f"USER RESET {token} {password}", nobody(i.address_of(request)))
    except Refusal as refusal:
        if refusal.code == "bad-option":
            raise Refused(400, refusal.code, refusal.message, "password") from None
        raise


def own_url(request: AnyRequest) -> str:
    """How browsers reach us, for a link that must not lead anywhere else, whatever the request says."""
    settings: WebSettings = request.app.state.settings
    if settings.http_url:
        return settings.http_url
    scheme = "https" if settings.tls_cert else "http"
    address, own_port = request.scope.get("server") or ("localhost", 80)
    name, port = split_host(request.headers.get("host", ""))
    # Any address may stand in Host, and at another port somebody else may wait for the link.
    if name in map(str.lower, settings.http_name) and port in ("", str(own_port)):
        return f"{scheme}://{name}:{port}".rstrip(":")
    return f"{scheme}://{format_address((address, own_port or 80))}"


def _limit(request: AnyRequest) -> None:
    sign_ins: Limits = request.app.state.sign_ins
    if wait_s := sign_ins.take(origin_of(i.address_of(request))):
        raise Refused(429, "too-many", "too many passwords from your address", retry_after_s=wait_s)


# --- mails ----------------------------------------------------------------------------------------


TEXT = """\
Somebody, probably you, has forgotten the password of the account {name} at
{where}

This link lets you choose another one. It is good once, and for 30 minutes:

{where}/reset?token={token}

If it was not you, you need not do anything: your password stays as it is.
"""


@frozen
class Forgotten:
    """What somebody said in a form."""

    who: str  # an account's name or mail address; perhaps
    address: str  # from where
    where: str  # how browsers reach us


class Postman:
    """Takes what was forgotten, and brings the mails out."""

    def __init__(self, settings: WebSettings, daemon: Daemon) -> None:
        self._settings, self._daemon = settings, daemon
        self._in, self._out = trio.open_memory_channel[Forgotten](MAX_WAITING)
        self._limits = Limits(AN_HOUR / 3600, AN_HOUR)

    def take(self, forgotten: Forgotten) -> None:
        try:
            self._in.send_nowait(forgotten)
        except trio.WouldBlock:
            log.warning("%d forgotten passwords wait already; one more is not looked at", MAX_WAITING)

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(AT_A_TIME):
                nursery.start_soon(self._bring)

    async def _bring(self) -> None:
        async for each in self._out:
            try:
                await self._answer(each)
            except (Unreachable, Refusal, Fatal, smtplib.SMTPException, OSError, ValueError) as error:
                log.warning("no mail about a forgotten password: %s", error)

    async def _answer(self, forgotten: Forgotten) -> None:
        if self._limits.take(forgotten.who.lower()):
            log.warning("%d mails an hour are enough for one account", AN_HOUR)
            return
        try:
            offered = await self._daemon.ask(f"USER FORGOT {forgotten.who}", nobody(forgotten.address))
        except Refusal as refusal:
            if refusal.code == "not-found":
                return
            raise
        name, token, email = offered.status["account"], offered.pairs["token"], offered.pairs["email"]
        if self._settings.smtp is None or not email:
            what = "has no mail address" if self._settings.smtp else "cannot be sent a mail without --smtp"
            log.warning("the account %s %s, so its password cannot be reset by mail", name, what)
            return
        await self._send(name, email, TEXT.format(name=name, where=forgotten.where, token=token))

    async def _send(self, name: str, email: str, text: str) -> None:
        settings = self._settings
        subject = "Another password for cronflowd"
        message = make_message(settings.smtp_from, [email], subject, secrets.token_hex(16), wall_now())
        message.set_content(text, cte="7bit" if text.isascii() else "quoted-printable")  # a link in one piece
        file = settings.smtp_password_file
        password = read_password(file) if settings.smtp_user and file else ""
        delivery = Delivery(settings, password, [email], message)
        try:
            await call_in_thread(delivery.run, abandon_on_cancel=True)
        finally:
            delivery.abort()
        log.info("a link for another password was sent to the account %s", name)
