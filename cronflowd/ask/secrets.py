"""SECRET: what is made of its words, and the rows of its list."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..base.errors import Refusal
from ..base.names import check_secret_name
from ..base.replies import Reply
from ..base.text import QUOTED_VALUE, unquote
from ..engine.orders import RemoveSecret
from ..engine.state import State
from . import grammar as g
from . import questions as q
from .grammar import Context, WrongWords

MAX_VALUE_BYTES = 16 * 1024
MAX_USERS = 20  # tasks that are named in a row
COLUMNS = ("name", "updated", "used_by")


def _put(text: str, context: Context) -> q.PutSecret:
    name, value = g.cut_word(text.lstrip(" \t"))
    if not value:
        raise WrongWords("a name and a value are wanted")
    check_secret_name(name)
    if value.startswith('"'):
        if not (match := QUOTED_VALUE.fullmatch(value.rstrip(" \t"))):
            form = 'inside quotes write \\" and \\\\, and \\n for a line end'
            raise Refusal("syntax", f"the quoted value does not end with its closing quote ({form})")
        value = unquote(match[1])
    if not value.strip():
        raise Refusal("bad-option", "a value of blanks is none; SECRET REMOVE takes one away")
    if "\0" in value:
        raise Refusal("bad-option", "the value holds a NUL, which no variable can")
    if len(value.encode()) > MAX_VALUE_BYTES:
        raise Refusal("too-long", f"the value is longer than {MAX_VALUE_BYTES} bytes")
    return q.PutSecret(name, value)


def _remove(text: str, context: Context) -> RemoveSecret:
    words, options = g.split_words(text, "force")
    return RemoveSecret(g.one_word(words, "secret"), g.is_yes(options, "force"))


secret = g.by_word("SECRET", {"PUT": _put, "LIST": g.nothing(q.ListSecrets), "REMOVE": _remove})


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
    return Reply("", {"secrets": count}, COLUMNS, rows(), "rows")
