"""The word that was probably meant: by what others call the same thing, or by how it is spelt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from .errors import Refusal
from .text import escape

MAX_WORD = 40  # characters; what is longer is near to nothing, and costs its square to compare
ALIKE, SURELY_ALIKE = 0.7, 0.8  # of 1


def meant(word: str, known: Iterable[str], also: Mapping[str, str] | None = None) -> str:
    """`; did you mean …?`, to end a refusal with; empty where nothing is near.

    `known` may tell for a word what it stands for, and `also` for what is meant what else it
    may be called, in lower case with blanks between.
    """
    pairs = known.items() if isinstance(known, Mapping) else ((each, each) for each in known)
    word, words = word.casefold(), {each.casefold(): stands_for for each, stands_for in pairs}
    if len(word) > MAX_WORD:
        return ""
    others = {
        name: each for each, names in (also or {}).items() if each in words.values() for name in names.split()
    }
    found = words.get(word) or others.get(word, "")
    if not found and len(word) > 2:
        # A slip in what others call it (DELTE) is one as well, if it is a small one.
        slips = {name: each for name, each in others.items() if name[0] == word[0]}
        every = [(words, ALIKE), (slips, SURELY_ALIKE)]
        found = next(
            (names[each] for names, cut in every for each in get_close_matches(word, names, 1, cut)), ""
        )
    return f"; did you mean {found}?" if found else ""


def one_of(word: str, known: Iterable[str], also: Mapping[str, str] | None = None) -> str:
    """The word, if it is one of these; Refusal (`bad-option`) otherwise."""
    known = tuple(known)
    if word not in known:
        said = f'"{escape(word[:80])}" is not one of {", ".join(known)}'
        raise Refusal("bad-option", said + meant(word, known, also))
    return word
