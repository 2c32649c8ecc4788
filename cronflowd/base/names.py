"""What tasks, workers, labels and mailboxes may be called: one rule each, wherever a name comes from."""

from __future__ import annotations

import re

from .errors import Refusal
from .text import escape

NAME = r"[A-Za-z0-9._-]{1,64}"  # of whatever people call somehow
_NAME = re.compile(NAME)
# What asks for one thing, never for all. Without ASCII a dotted capital I would be an i.
REF = re.compile(rf"(?!all$){NAME}", re.IGNORECASE | re.ASCII)
_USER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9._-]{0,63}")
_LABEL = re.compile(r"([A-Za-z0-9._/-]{1,64})=([A-Za-z0-9._/-]{1,64})")
_MAIL_ADDRESS = re.compile(
    r"(?!\.)[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*"
)
MAX_MAIL_ADDRESS = 254  # RFC 5321
_ALL = frozenset({"all", "All", "aLl", "alL", "ALl", "AlL", "aLL", "ALL"})
_TASK_NAME = re.compile(r"task_([1-9][0-9]{0,17})")


def check_name(name: str) -> None:
    """Raises Refusal (`bad-option`) unless a task may be called so."""
    if not _NAME.fullmatch(name):
        check_form(name, "name")
    if name in _ALL or name.isdigit():
        why = f'the name "{name}" would be taken for {"an id" if name.isdigit() else "all"}'
        raise Refusal("bad-option", why, "name")


def check_worker_name(name: str) -> str:
    """The name; raises Refusal (`bad-option`) unless a worker may be called so."""
    check_form(name, "worker name", "worker")
    if name.lower() in ("any", "all"):
        raise Refusal("bad-option", f'the worker name "{name}" has a meaning of its own in on=', "worker")
    if name.upper() in ("OK", "ERR", "PONG"):
        # WORKERS begins its rows with the name, and no row may look like a status line.
        raise Refusal("bad-option", f'the worker name "{name}" would be taken for a status line', "worker")
    return name


def check_form(name: str, what: str, option: str = "name") -> str:
    """The name; raises Refusal (`bad-option`) unless something of this kind may be called so."""
    if not _NAME.fullmatch(name):
        why = f'the {what} "{escape(name[:80])}" is not 1 to 64 letters, digits, `.`, `_` or `-`'
        raise Refusal("bad-option", why, option)
    return name


def check_user_name(name: str) -> str:
    """The name; raises Refusal (`bad-option`) unless a user of a machine may be called so."""
    if not _USER_NAME.fullmatch(name):
        what = "a user's name: a letter or `_`, then letters, digits, `.`, `_` or `-`"
        raise Refusal("bad-option", f'"{escape(name[:80])}" is not {what}')
    return name


def check_mail_address(address: str) -> str:
    """The address, bare; raises Refusal (`bad-option`) unless mail can be sent there."""
    if len(address) > MAX_MAIL_ADDRESS or not _MAIL_ADDRESS.fullmatch(address):
        raise Refusal(
            "bad-option", f'"{escape(address[:80])}" is not an address such as ops@example.org', "email"
        )
    return address


def id_of_name(name: str) -> int | None:
    """n for `task_<n>`, the name that belongs to id n alone; None for any other name."""
    match = _TASK_NAME.fullmatch(name)
    return int(match[1]) if match else None


def parse_label(text: str) -> tuple[str, str]:
    """`disk=ssd` as (key, value); Refusal (`bad-option`) otherwise."""
    match = _LABEL.fullmatch(text)
    if not match:
        form = "KEY=VALUE, each 1 to 64 letters, digits, `.`, `_`, `/` or `-`"
        raise Refusal("bad-option", f'the label "{escape(text[:80])}" is not {form}')
    return match[1], match[2]
