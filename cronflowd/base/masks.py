"""What must not be shown is found in a stream of bytes, however that is cut, and named instead.

Found are a value without the blanks and line ends around it, the same with CRLF for its line ends, each
of its lines that has eight bytes or more, and what encoders make of it: JSON, URLs and base64 (also
in the middle of other bytes). The first that begins goes before the others, then the longest. What may
be the beginning of one is held back until more has come, so the cuts make no difference.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from urllib.parse import quote, quote_plus

MIN_LINE = 8  # bytes of a line that is looked for alone, and of base64
HEAD = 4  # bytes by which a form is looked for


class Mask:
    """Knows the values, and the word for each."""

    def __init__(self, values: Iterable[tuple[str, bytes]]) -> None:
        self._words: dict[bytes, bytes] = {}
        for name, value in values:
            word = f"[secret:{name}]".encode()
            self._words[word] = word  # as whoever masked it before has written it
            for form in forms_of(value):
                self._words.setdefault(form, word)
        forms = sorted(self._words, key=len, reverse=True)
        size = min(HEAD, len(forms[-1]))
        self._by_head: dict[bytes, list[bytes]] = {}  # the longest first
        for form in forms:
            self._by_head.setdefault(form[:size], []).append(form)
        self._head = re.compile(_tree(sorted(self._by_head), size))
        self._begun = {head[:length] for head in self._by_head for length in range(1, size)}
        self._most_begun = size - 1

    def hide(self, data: bytes, is_end: bool) -> tuple[bytes, bytes]:
        """(what may be shown, what has to wait for more)."""
        shown: list[bytes] = []
        at = look_at = 0
        while head := self._head.search(data, look_at):
            start = head.start()
            look_at = start + 1
            for form in self._by_head[head[0]]:
                if data.startswith(form, start):
                    shown += data[at:start], self._words[form]
                    at = look_at = start + len(form)
                    break
                if not is_end and len(form) > len(data) - start and _begins(form, data, start):
                    return b"".join([*shown, data[at:start]]), data[start:]
        until = len(data)
        for start in range(max(at, until - self._most_begun), 0 if is_end else until):
            if data[start:] in self._begun:
                until = start
                break
        return b"".join([*shown, data[at:until]]), data[until:]

    def hide_text(self, text: str) -> str:
        """The same of a text that is whole."""
        data = text.encode(errors="surrogateescape")
        return self.hide(data, True)[0].decode(errors="surrogateescape")


def _begins(form: bytes, data: bytes, start: int) -> bool:
    return form.startswith(data[start : start + 32]) and form.startswith(data[start:])


def _tree(heads: list[bytes], size: int) -> bytes:
    """A pattern for any of them, sorted and of one size: with very many it is tried a byte at a time."""
    if not size:
        return b""
    ways = [(first, [head[1:] for head in group]) for first, group in groupby(heads, itemgetter(slice(1)))]
    return b"(?:" + b"|".join([re.escape(first) + _tree(rest, size - 1) for first, rest in ways]) + b")"


def forms_of(value: bytes) -> Iterator[bytes]:
    """As what a value may show itself; none of them is empty."""
    bare = value.strip()
    lines = [line for each in bare.splitlines() if len(line := each.strip()) >= MIN_LINE]
    for plain in (bare, *lines):
        yield plain
        text = plain.decode(errors="surrogateescape")
        yield json.dumps(text, ensure_ascii=False)[1:-1].encode(errors="surrogateescape")
        yield json.dumps(text)[1:-1].encode()
    yield bare.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    yield quote(bare, safe="").encode()
    yield quote_plus(bare).encode()
    yield quote(bare).encode()
    yield from _base64(bare)


def _base64(value: bytes) -> Iterator[bytes]:
    """What is the same of it wherever it stands among other bytes."""
    for before in range(3):
        whole = (before + len(value)) // 3 * 3 - before  # bytes that no byte behind them changes
        form = b64encode(bytes(before) + value[: max(0, whole)])[-(-before * 4 // 3) :]
        if whole > 0 and len(form) >= MIN_LINE:
            yield form
            yield form.translate(bytes.maketrans(b"+/", b"-_"))
