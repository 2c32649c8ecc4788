"""How a definition names a secret: `secret:NAME` as a whole value, or `{{secret:NAME}}` inside one.

The name alone stands in definitions, and so wherever these are shown or kept. The value takes its
place in the order that goes to the worker; see engine/secrets.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..base.errors import Refusal
from ..base.names import check_secret_name
from ..base.text import escape

WHOLE = re.compile(r"secret:([A-Za-z0-9._-]{1,64})")
INSIDE = re.compile(r"\{\{secret:([A-Za-z0-9._-]{1,64})\}\}")
_MEANT = re.compile(r"\{\{secret:(.*?)(?:\}\}|$)")
TAKES = ("payload", "body", "stdin", "secret")  # options that may name one, beside env.X and header.X


def is_whole(text: str) -> bool:
    """Whether the value is nothing but a secret's."""
    return WHOLE.fullmatch(text) is not None


def names_in(texts: Iterable[str]) -> tuple[str, ...]:
    """The secrets that are named in these values, sorted."""
    found: set[str] = set()
    for text in texts:
        if "secret:" in text:
            whole = WHOLE.fullmatch(text)
            found.update([whole[1]] if whole else INSIDE.findall(text))
    return tuple(sorted(found))


def check_reference(key: str, text: str) -> None:
    """Raises Refusal (`bad-option`) for a reference whose name no secret can have."""
    if not (key in TAKES or key.startswith(("env.", "header."))):
        return
    meant = [text.removeprefix("secret:")] if text.startswith("secret:") else _MEANT.findall(text)
    try:
        for name in meant:
            check_secret_name(name)
    except Refusal as refusal:
        raise Refusal(refusal.code, f"{escape(key)}=: {refusal.message}") from None
