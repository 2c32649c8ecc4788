"""HELP: the verbs, a row each."""

from __future__ import annotations

from ..base.errors import Refusal
from ..base.replies import Reply
from ..base.text import escape
from . import questions as q
from .commands import VERBS

COLUMNS = ("verb", "usage", "summary")


def show(question: q.Help) -> Reply:
    """A row a verb, or of one."""
    word = question.word.upper()
    if word and word not in VERBS:
        raise Refusal("not-found", f'"{escape(word[:40])}" is not a command; HELP lists them')
    rows = [(name, VERBS[name].usage, VERBS[name].summary) for name in ([word] if word else VERBS)]
    return Reply("", {}, COLUMNS, rows, "rows")
