"""USER, TOKEN, AUTH, AUDIT and SECRET: what is made of their words, and the rows of their lists."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from ..base.addresses import parse_peer
from ..base.errors import Refusal, naming_option
from ..base.names import check_form, check_mail_address
from ..base.replies import Reply
from ..base.text import CONTROL, QUOTED_VALUE, escape, unquote
from ..engine.access import ROLES, WORKER, Access
from ..engine.orders import AddToken, BeginLogin, RemoveAccount, RemoveSecret, RevokeToken
from ..engine.rules import DENIED, OK, Deed, rows_of
from ..engine.state import State
from ..schedules.zones import parse_duration
from . import grammar as g
from . import questions as q
from .grammar import Context, WrongWords

MIN_PASSWORD, MAX_PASSWORD = 8, 256  # characters
MAX_UID = 2**32 - 2
MAX_TTL_S = 3660 * 86_400.0
MAX_DESC = 200  # characters
MAX_ID = 10**18 - 1
_ROLES_ALSO = {
    "viewer": "read reader readonly guest view", "user": "member editor developer write",
    "operator": "ops op maintainer", "admin": "root administrator owner superuser",
    "worker": "agent node runner",
}  # fmt: skip
USER_COLUMNS = ("name", "role", "email", "disabled", "created", "last-seen", "uid", "desc")
TOKEN_COLUMNS = ("id", "name", "role", "user", "worker", "created", "expires", "last-used")
LOGIN_COLUMNS = ("id", "user", "created", "renewed", "expires", "address")


def authenticate(text: str, context: Context) -> q.Authenticate:
    words = text.split()
    if not words:
        raise WrongWords("no token")
    if len(words) > 2:
        raise WrongWords("a token is one word; an account has a name and a password without blanks")
    return q.Authenticate(*words)


def act_as(text: str, context: Context) -> q.ActAs:
    words, options = g.split_words(text, "from", "session", "only")
    name, is_only = g.one_or_none(words, "account") or "", g.is_yes(options, "only")
    login = g.count(options, "session", 1, MAX_ID)
    if login and not name:
        raise WrongWords("session= is of an account: AS NAME session=ID")
    if is_only and not (name or "from" in options):
        raise WrongWords("only=yes is for somebody else: AS NAME only=yes")
    try:
        return q.ActAs(name, parse_peer(options["from"]) if "from" in options else "", login, is_only)
    except ValueError:
        shown = escape(options["from"][:80])
        raise Refusal(
            "bad-option", f'from=: "{shown}" is not an address, or one with a port', "from"
        ) from None


def _add_user(text: str, context: Context) -> q.SetUser:
    words, options = g.split_words(text, "role", "email", "uid", "password", "desc", "first")
    name = g.one_word(words, "account")
    check_form(name, "account name")
    changes, is_first = _account_changes(options), g.is_yes(options, "first")
    return q.SetUser(name, changes, options.get("password"), True, is_first)


def _set_user(text: str, context: Context) -> q.SetUser:
    words, options = g.split_any(text)
    g.check_known(options, ("role", "email", "uid", "disabled", "desc"))
    name = g.one_word(words, "account")
    if not options:
        raise WrongWords("nothing to set")
    return q.SetUser(name, _account_changes(options), None, False)


def _account_changes(options: dict[str, str]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if role := _role(options, ROLES):
        changes["role"] = role
    if "email" in options:
        if options["email"]:
            check_mail_address(options["email"])
        changes["email"] = options["email"]
    if "desc" in options:
        if len(options["desc"]) > MAX_DESC:
            raise Refusal("bad-option", f"desc=: longer than {MAX_DESC} characters", "desc")
        if match := CONTROL.search(options["desc"]):
            why = f"desc= holds the control character {escape(match[0])}"
            raise Refusal("bad-option", why, "desc")
        changes["desc"] = options["desc"]
    if "uid" in options:
        changes["uid"] = _uid(options["uid"])
    if "disabled" in options:
        changes["disabled"] = g.is_yes(options, "disabled")
    return changes


def _role(options: dict[str, str], known: tuple[str, ...]) -> str:
    also = {role: _ROLES_ALSO[role] for role in known}
    return g.choice(options, "role", known, **also)


def _uid(text: str) -> int | None:
    """Empty takes it away."""
    if not text:
        return None
    if not text.isdecimal() or not text.isascii() or int(text[:11]) > MAX_UID:
        raise Refusal(
            "bad-option", f'uid=: "{escape(text[:40])}" is not a whole number from 0 to {MAX_UID}', "uid"
        )
    return int(text)


def check_password(password: str) -> None:
    """Raises Refusal unless it may be a password."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise Refusal("bad-option", f"a password has {MIN_PASSWORD} to {MAX_PASSWORD} characters", "password")
    if any(each.isspace() or not each.isprintable() for each in password):
        raise Refusal(
            "bad-option", "a password is one word, without blanks and control characters", "password"
        )


def _password(text: str, context: Context) -> q.SetPassword:
    words = text.split()
    if len(words) > 2:
        raise WrongWords("an account and a password without blanks")
    return q.SetPassword(*words)


def _reset(text: str, context: Context) -> q.Reset:
    words = text.split()
    if not 1 <= len(words) <= 2:
        raise WrongWords("the word that FORGOT gave, and a password without blanks")
    return q.Reset(*words)


user = g.by_word(
    "USER",
    {
        "ADD": _add_user,
        "LIST": lambda text, context: q.ListUsers(g.one_or_none(g.split_words(text)[0], "account") or ""),
        "SET": _set_user,
        "PASSWORD": _password,
        "REMOVE": g.one(RemoveAccount, "account"),
        "FORGOT": g.one(q.Forgot, "account"),
        "RESET": _reset,
    },
)


def _add_token(text: str, context: Context) -> AddToken:
    options = g.no_words(text, "name", "role", "user", "worker", "ttl")
    if name := options.get("name", ""):
        check_form(name, "account name")
    worker = g.glob("worker", options.get("worker", ""))
    expires_at = _end_of_ttl(options["ttl"], context) if "ttl" in options else None
    role = _role(options, (*ROLES, WORKER))
    whose = options.get("user", "")
    return AddToken(name=name, role=role, user=whose, worker=worker, expires_at=expires_at)


def _end_of_ttl(text: str, context: Context) -> datetime:
    with naming_option("ttl"):
        seconds = parse_duration(text)
        if not 0 < seconds <= MAX_TTL_S:
            raise Refusal("bad-option", "longer than nothing, and at most ten years")
    return context.now + timedelta(seconds=seconds)


def _revoke(text: str, context: Context) -> RevokeToken:
    word = g.one_word(g.split_words(text)[0], "token's id")
    if not word.isdecimal() or not word.isascii() or len(word) > 18:
        raise Refusal("syntax", "that is not the id of a token; TOKEN LIST shows them")  # but perhaps one
    return RevokeToken(int(word))


token = g.by_word("TOKEN", {"ADD": _add_token, "LIST": g.nothing(q.Alone), "REVOKE": _revoke})


def _add_login(text: str, context: Context) -> BeginLogin:
    words, options = g.split_words(text, "ttl")
    return BeginLogin(g.one_word(words, "account"), _end_of_ttl(options.get("ttl", "7d"), context))


session = g.by_word(
    "SESSION",
    {
        "ADD": _add_login,
        "RENEW": g.one(q.RenewLogin, "token"),
        "END": g.one(q.EndLogin, "token"),
        "LIST": lambda text, context: q.ListLogins(g.no_words(text, "user").get("user", "")),
    },
)
VERDICTS = (OK, DENIED)


def audit(text: str, context: Context) -> q.Audit:
    options = g.no_words(text, "since", "until", "last", "who", "verdict", "limit", "offset")
    since_at, until_at = g.bounds(options, context)
    limit, offset = g.page(options)
    verdict = g.choice(options, "verdict", VERDICTS)
    limit = 100 if limit is None else limit
    return q.Audit(since_at, until_at, options.get("who", ""), verdict, limit, offset)


# --- rows ---

AUDIT_COLUMNS = ("time", "who", "address", "verb", "ref", "verdict")


def audit_rows(past: Iterable[tuple[datetime, Deed]], asked: q.Audit, nobody: str) -> list[tuple[Any, ...]]:
    """AUDIT: the newest that are asked for."""

    def rows() -> Iterator[tuple[Any, ...]]:
        for at, deed in past:
            if asked.until_at is None or at < asked.until_at:
                for who, *rest, verdict in rows_of(deed, nobody):
                    if asked.who in ("", who) and asked.verdict in ("", verdict):
                        yield (at, who or None, *(text or None for text in rest), verdict)

    return list(islice(rows(), asked.offset, asked.offset + asked.limit))


def list_users(access: Access, name: str) -> Reply:
    """USER LIST: the accounts, by name; or one of them."""
    one = access.accounts.get(name)
    found = ([one] if one else []) if name else [each for _, each in sorted(access.accounts.items())]
    rows = [
        (
            each.name, each.role, each.email or None, "yes" if each.disabled else "no", each.created_at,
            each.seen_at, each.uid, each.desc or None,
        )
        for each in found
    ]  # fmt: skip
    return Reply.counted(USER_COLUMNS, rows)


def list_tokens(access: Access) -> Reply:
    """TOKEN LIST: the tokens, oldest first; never the words themselves."""

    tokens = list(access.tokens.values())  # others come and go while the rows are made
    rows = (
        (
            each.id, each.name or None, each.role, each.user or None, each.worker or None, each.created_at,
            each.expires_at, each.used_at,
        )
        for each in tokens
    )  # fmt: skip
    return Reply.counted(TOKEN_COLUMNS, rows)


def list_logins(access: Access, user: str, now: datetime) -> Reply:
    """SESSION LIST: who stays signed in, oldest first; never the words themselves."""
    rows = [
        (each.id, each.user, each.created_at, each.renewed_at, each.expires_at, each.address or None)
        for each in sorted(access.logins.values(), key=lambda each: each.id)
        if user in ("", each.user) and each.expires_at > now
    ]
    return Reply.counted(LOGIN_COLUMNS, rows)


# --- secrets --------------------------------------------------------------------------------------


MAX_VALUE_BYTES = 16 * 1024
MAX_USERS = 20  # tasks that are named in a row
SECRET_COLUMNS = ("name", "updated", "used-by")


def _put_secret(text: str, context: Context) -> q.PutSecret:
    name, value = g.cut_word(text.lstrip(" \t"))
    if not value:
        raise WrongWords("a name and a value are wanted")
    check_form(name, "secret's name")
    if value.startswith('"'):
        if not (match := QUOTED_VALUE.fullmatch(value.rstrip(" \t"))):
            form = 'inside quotes write \\" and \\\\, and \\n for a line end'
            raise Refusal("syntax", f"the quoted value does not end with its closing quote ({form})")
        value = unquote(match[1])
    if not value.strip():
        raise Refusal("bad-option", "a value of blanks is none; SECRET REMOVE takes one away", "value")
    if "\0" in value:
        raise Refusal("bad-option", "the value holds a NUL, which no variable can", "value")
    if len(value.encode()) > MAX_VALUE_BYTES:
        raise Refusal("too-long", f"the value is longer than {MAX_VALUE_BYTES} bytes", "value")
    return q.PutSecret(name, value)


def _remove_secret(text: str, context: Context) -> RemoveSecret:
    words, options = g.split_words(text, "force")
    return RemoveSecret(g.one_word(words, "secret"), g.is_yes(options, "force"))


secret = g.by_word("SECRET", {"PUT": _put_secret, "LIST": g.nothing(q.Alone), "REMOVE": _remove_secret})


def list_secrets(state: State) -> Reply:
    """SECRET LIST: never the values; who names a secret that has none is told too."""

    def rows() -> Iterator[tuple[Any, ...]]:
        known = state.access.secrets
        for name in sorted(known.keys() | state.wanted):
            users = sorted(state.wanted.get(name, ()))
            names = [state.tasks[task].name for task in users[:MAX_USERS]]
            names += [f"and {len(users) - MAX_USERS} more"] if len(users) > MAX_USERS else []
            yield name, known[name].set_at if name in known else None, ", ".join(names) or None

    count = len(state.access.secrets)
    return Reply("", {"secrets": count}, SECRET_COLUMNS, rows(), "rows")
