"""Who asks: what a request shows of itself, and for whom its lines are said to the daemon.

A person who has signed in shows a JWT, as `Authorization: Bearer` or in a cookie: it names his account
and his session, which the daemon keeps, and is asked about with every request, so that signing out
counts at once. A program shows a token of TOKEN ADD, which is the daemon's to know.

A browser sends its cookie whoever made it ask. So with the cookie, what changes something needs
a second word besides, which pages of other sites cannot read.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import datetime
from pathlib import Path
from typing import Any

from attrs import frozen
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from litestar import Request
from litestar.datastructures import Cookie

from ..base.errors import Exit, Fatal
from ..host.clock import wall_now
from ..host.config import WebSettings
from ..host.secrets import make_key, read_secret
from ..host.vault import WEB_KEY_NAME
from .envelope import Refused
from .guard import NOBODY, SAFE
from .line import Caller, Daemon, account, bearer

COOKIE = "cronflowd"
CSRF_HEADER, CSRF_FIELD = "X-CSRF-Token", "csrf"
ACCESS_S, COOKIE_S = 15 * 60, 7 * 86_400
PROXIED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
MIN_KEY_BYTES = 32
MAX_SHOWN_BYTES = 4096  # of what somebody shows
ALGORITHM = "HS256"  # the one that is taken: what a token says of itself chooses nothing
FORM = "application/x-www-form-urlencoded"  # not in parts: no page of ours sends one

_JWT = re.compile(r"eyJ[A-Za-z0-9_-]*(\.[A-Za-z0-9_-]*){2}")
_WORD = re.compile(r"[!-~]+")  # of AUTH: with a blank in it, it would be a name and a password

AnyRequest = Request[Any, Any, Any]


@frozen
class SignedIn:
    """Whose session a request has shown."""

    name: str  # of the account
    session: int


class Identity:
    """Makes and reads what people show."""

    def __init__(self, key: bytes, is_tls: bool) -> None:
        self._key, self._is_tls = key, is_tls
        self._jwk = OctKey.import_key(key)

    def sign(self, who: SignedIn, for_s: float, now: datetime) -> str:
        """What shows for so long who somebody is."""
        return self._sign({"sub": who.name, "sid": who.session}, for_s, now)

    def read(self, shown: str, now: datetime) -> SignedIn | None:
        """Whose it is; None where we have not made it, or its time is over."""
        claims = self._read(shown, now)
        name, session = claims.get("sub"), claims.get("sid")
        # A bool is an int.
        return SignedIn(name, session) if type(name) is str and type(session) is int else None

    def sign_refresh(self, word: str, now: datetime) -> str:
        """What the daemon gave by which a session goes on; we take none back that we have not given."""
        return self._sign({"refresh": word}, COOKIE_S, now)

    def read_refresh(self, shown: str, now: datetime) -> str:
        """That word again. Raises Refused."""
        word = self._read(shown, now).get("refresh")
        if type(word) is not str:
            raise Refused(401, "auth-required", "the refresh token has expired, or is none of ours")
        return word

    def _sign(self, claims: dict[str, Any], for_s: float, now: datetime) -> str:
        at = int(now.timestamp())
        return jwt.encode({"alg": ALGORITHM}, claims | {"iat": at, "exp": at + int(for_s)}, self._jwk)

    def _read(self, shown: str, now: datetime) -> dict[str, Any]:
        """Its claims; none where it is not ours, or its time is over."""
        if len(shown) > MAX_SHOWN_BYTES:
            return {}
        try:
            claims = jwt.decode(shown, self._jwk, algorithms=[ALGORITHM]).claims
        except (JoseError, ValueError):
            return {}
        until = claims.get("exp")  # a time without end is no time
        return claims if type(until) is int and now.timestamp() < until else {}

    def csrf(self, who: SignedIn) -> str:
        """What a page of ours says besides the cookie of this session."""
        return hmac.new(self._key, f"csrf {who.session}".encode(), hashlib.sha256).hexdigest()

    def cookie(self, who: SignedIn | None, now: datetime) -> Cookie:
        """For the browser of somebody; None: takes it from it."""
        value, age = (self.sign(who, COOKIE_S, now), COOKIE_S) if who else ("", 0)
        return Cookie(
            key=COOKIE,
            value=value,
            max_age=age,
            path="/",
            secure=self._is_tls,
            httponly=True,
            samesite="strict",
        )


def make_identity(settings: WebSettings, key: bytes = b"") -> Identity:
    """With the cluster's `key`, or the one in the data directory, made at first need. Raises Fatal."""
    is_tls = settings.tls_cert is not None or (settings.http_url or "").startswith("https:")
    return Identity(key or _read_key(settings.data / WEB_KEY_NAME), is_tls)


def _read_key(path: Path) -> bytes:
    if not path.exists():
        try:
            make_key(path, "")
        except Fatal:
            if not path.exists():  # else another process made one at the same moment
                raise
    key = read_secret(path, "key").strip()
    if len(key) < MIN_KEY_BYTES:
        raise Fatal(Exit.CONFIG, f"{path}: the key is shorter than {MIN_KEY_BYTES} bytes")
    return key


# --- requests -----------------------------------------------------------------------------------


def identity_of(request: AnyRequest) -> Identity:
    found: Identity = request.app.state.identity
    return found


def daemon_of(request: AnyRequest) -> Daemon:
    found: Daemon = request.app.state.daemon
    return found


def address_of(request: AnyRequest) -> str:
    """Of the browser; by a unix socket comes a proxy, which might speak for anybody."""
    return request.client.host if request.client else NOBODY[0]


def is_proxied(request: AnyRequest) -> bool:
    """Whether a proxy shows that it asks for somebody else, who may be anywhere.

    Some tell nothing of those they speak for, but they say HTTP 1.0, as neither browsers nor Prometheus do.
    """
    return any(each in request.headers for each in PROXIED) or request.scope["http_version"] == "1.0"


async def caller_of(request: AnyRequest) -> Caller:
    """For whom the lines of this request are said; raises Refused where nobody is shown."""
    address = address_of(request)
    who = await shown_by(request)
    whose = who.name if isinstance(who, SignedIn) else hashlib.sha256(who.encode()).hexdigest()
    if wait_s := request.app.state.account_limits.take(whose):
        raise Refused(429, "too-many", "too many requests of one account", retry_after_s=wait_s)
    return account(who.name, address, who.session) if isinstance(who, SignedIn) else bearer(who, address)


async def shown_by(request: AnyRequest) -> SignedIn | str:
    """Whose session a request shows, or which API token; raises Refused."""
    if word := _bearer_word(request):
        if not _JWT.fullmatch(word):
            return word
        who = identity_of(request).read(word, wall_now())
        if who is None:
            raise Refused(401, "auth-required", "the access token has expired, or is none of ours")
        return who
    who = by_cookie(request)
    if who is None:
        raise Refused(401, "auth-required", "sign in first: Authorization: Bearer TOKEN")
    await check_csrf(request, who)
    return who


def _bearer_word(request: AnyRequest) -> str:
    """What `Authorization` shows; empty where there is none. Raises Refused."""
    header = request.headers.get("authorization", "")
    if not header:
        return ""
    scheme, _, word = header.strip().partition(" ")
    word = word.strip(" ")
    if scheme.lower() != "bearer" or not _WORD.fullmatch(word) or len(word) > MAX_SHOWN_BYTES:
        raise Refused(401, "auth-required", "Authorization: Bearer and one word are taken, nothing else")
    return word


def by_cookie(request: AnyRequest) -> SignedIn | None:
    """Whose cookie a browser sends, if any; whether his session goes on is the daemon's to say."""
    return identity_of(request).read(request.cookies.get(COOKIE, ""), wall_now())


async def check_csrf(request: AnyRequest, who: SignedIn) -> None:
    """Raises Refused where a page of another site may have made the browser ask."""
    if request.method in SAFE:
        return
    said = request.headers.get(CSRF_HEADER, "")
    why = f"with a cookie, a change needs the header {CSRF_HEADER} of this session"
    if not said and request.headers.get("content-type", "").partition(";")[0].strip().lower() == FORM:
        said = str((await request.form()).get(CSRF_FIELD, ""))
        why = "this was sent from a page of another session, before you signed in anew: open that page again"
    if not hmac.compare_digest(said.encode(), identity_of(request).csrf(who).encode()):
        raise Refused(403, "denied", why)
