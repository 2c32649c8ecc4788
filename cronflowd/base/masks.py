"""What must not be shown is found in a stream of bytes, however that is cut, and named instead.

Found are a value without the blanks and line ends around it, the same with CRLF for its line ends, each
of its lines that has eight bytes or more, and what encoders make of these: JSON, URLs and base64 (also
in the middle of other bytes). The first that begins goes before the others, then the longest. What may
be the beginning of one is held back until more has come, so the cuts make no difference.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

MIN_LINE = 8  # bytes of a line that is looked for alone, and of base64
_QUICK = 16  # bytes that are compared first


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
        self._find = re.compile(b"|".join(map(re.escape, forms)))
        self._longest = len(forms[0])
        self._by_first: dict[int, list[bytes]] = {}
        for form in forms:
            self._by_first.setdefault(form[0], []).append(form)

    def hide(self, data: bytes, is_end: bool) -> tuple[bytes, bytes]:
        """(what may be shown, what has to wait for more)."""
        shown: list[bytes] = []
        at, begun = 0, -1
        while True:
            if begun < at:
                begun = len(data) if is_end else self._begun(data, at)
            match = self._find.search(data, at)
            if match is None or match.start() >= begun:
                shown.append(data[at:begun])
                return b"".join(shown), data[begun:]
            shown += data[at : match.start()], self._words[match[0]]
            at = match.end()

    def hide_text(self, text: str) -> str:
        """The same of a text that is whole."""
        data = text.encode(errors="surrogateescape")
        return self.hide(data, True)[0].decode(errors="surrogateescape")

    def _begun(self, data: bytes, at: int) -> int:
        """From where on the rest may be the beginning of a form; the end if there is no such place."""
        for start in range(max(at, len(data) - self._longest + 1), len(data)):
            for form in self._by_first.get(data[start], ()):
                quick = data[start : start + _QUICK]
                if len(form) > len(data) - start and form.startswith(quick) and form.startswith(data[start:]):
                    return start
        return len(data)


def forms_of(value: bytes) -> Iterator[bytes]:
    """As what a value may show itself; none of them is empty."""
    bare = value.strip()
    lines = [line for each in bare.splitlines() if len(line := each.strip()) >= MIN_LINE]
    for plain in (bare, *lines):
        yield plain
        yield plain.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        text = plain.decode(errors="surrogateescape")
        yield json.dumps(text, ensure_ascii=False)[1:-1].encode(errors="surrogateescape")
        yield json.dumps(text)[1:-1].encode()
        yield quote(plain, safe="").encode()
        yield quote_plus(plain).encode()
        yield quote(plain).encode()
        yield from _base64(plain)


def _base64(value: bytes) -> Iterator[bytes]:
    """What is the same of it wherever it stands among other bytes."""
    for before in range(3):
        whole = (before + len(value)) // 3 * 3 - before  # bytes that no byte behind them changes
        form = b64encode(bytes(before) + value[: max(0, whole)])[-(-before * 4 // 3) :]
        if whole > 0 and len(form) >= MIN_LINE:
            yield form
            yield form.translate(bytes.maketrans(b"+/", b"-_"))
