"""As much of YAML as our own files need, and not more: what else stands in them is a mistake.

Mappings and lists by indentation, values on their line: JSON, or a plain word. No anchors, no
folded texts, no tags, and none of the surprises (`no`, `1e3`, `0440`) that plain words may bring.
"""

from __future__ import annotations

import json
import re
from typing import Any

Line = tuple[int, str]  # indentation, content


def documents(text: str) -> list[Any]:
    """What each document holds; ValueError for what is not in the subset."""
    return [_document(part) for part in re.split(r"^---\n", text, flags=re.MULTILINE)]


def _document(text: str) -> Any:
    lines = [
        (len(line) - len(line.lstrip(" ")), line.strip(" "))
        for line in text.split("\n")
        if line.strip() and not line.lstrip().startswith("#")
    ]
    value = _block(lines, lines[0][0])
    if lines:
        raise ValueError(f"not indented as what is around it: {lines[0][1]}")
    return value


def _block(lines: list[Line], indent: int) -> Any:
    """Takes the lines of this indentation off the front, and what is below them."""
    items: list[Any] = []
    mapping: dict[str, Any] = {}
    while lines and lines[0][0] == indent:
        content = lines.pop(0)[1]
        if content.startswith("- "):
            if not re.match(_KEY, content := content[2:]):
                items.append(_value(content))
                continue
            lines.insert(0, (indent + 2, content))
            items.append(_block(lines, indent + 2))
            continue
        match = re.match(_KEY, content)
        if match is None or match[1] in mapping:
            raise ValueError(f"no key, or one that was there: {content}")
        rest = content[match.end() :]
        below = not rest and lines and lines[0][0] > indent
        mapping[match[1]] = _block(lines, lines[0][0]) if below else _value(rest)
    if items and mapping:
        raise ValueError("a list and keys beside each other")
    return items or mapping


_KEY = r"([A-Za-z][\w.-]*):(?: +|$)"


def _value(text: str) -> Any:
    if text.startswith(("[", "{", '"')) or text in ("true", "false") or re.fullmatch("0|[1-9][0-9]*", text):
        return json.loads(text)
    if not re.fullmatch(r"[A-Za-z./][\w./:@-]*", text) or text.lower() in ("yes", "no", "on", "off", "null"):
        raise ValueError(f"no plain word: {text!r}")
    return text
