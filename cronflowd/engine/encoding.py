"""Facts as the journal's lines tell them, and back.

The encoder writes the fields as they stand in facts.py, leaving out what has its default; the decoder
refuses what no field explains.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Union

import msgspec

from ..tasks.task import TaskSpec
from . import access_facts, calendars, once  # noqa: F401  (the decoder knows what was defined by now)
from . import facts as f

_BASES = (f.Fact, f.Signed, f.Asked)
_KINDS_OF = (*_BASES, f.ExpectationSet)  # what is another fact with more to it is one of these, too
KINDS = [kind for base in _KINDS_OF for kind in base.__subclasses__() if kind not in _BASES]
# These keys of a record are the record's own; a field of that name would be lost in replay.
assert not any({"seq", "at", "fact", "more", "batch", "crc"} & set(kind.__struct_fields__) for kind in KINDS)
_DEFINING = frozenset({f.TaskAdded, f.TaskChanged, f.TaskRestored})
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Union[tuple(KINDS)]).decode  # noqa: UP007  (made of a list)
_decode_rows = msgspec.json.Decoder(list[f.TaskCarried]).decode
_HEAD = re.compile(rb'\{"seq":([0-9]{1,19}),"at":"([^"]+)",("fact":"[A-Za-z]+")(,"more":true)?')
_NAME = b'{"fact":"'


def encode(seq: int, at: datetime, fact: f.Fact, more: bool) -> bytes:
    """One journal record without its CRC: `{"seq":7,"at":"…","fact":"RunSent","run":41,…}`.

    `more` marks every fact of a decision but its last: a decision is applied whole or not
    at all, also when power failed in the middle of writing it.
    """
    return encode_open(seq - 1, at, (fact,), int(more))[0] + b"}"


# The time of the last decision, and how it is written.
_TOLD: list[tuple[datetime | None, bytes]] = [(None, b"")]


def encode_open(last: int, at: datetime, facts: Sequence[f.Fact], more: int = 0) -> list[bytes]:
    """The records that follow `last`, each without its last brace, since a CRC is to come.

    They are those of a decision, of which so many `more` are still to come.
    """
    records = []
    told_at, text = _TOLD[0]
    if told_at is not at:  # most decisions come at the same time as the one before
        text = _encode(at)
        _TOLD[0] = at, text
    more += len(facts)
    for fact in facts:
        body = _encode_defining(fact) if type(fact) in _DEFINING else _encode(fact)
        last, more = last + 1, more - 1
        if more:
            named = body.index(b'"', len(_NAME)) + 1
            parts = last, text, body[1:named], body[named:-1]
            records.append(b'{"seq":%d,"at":%b,%b,"more":true%b' % parts)
        else:
            records.append(b'{"seq":%d,"at":%b,%b' % (last, text, body[1:-1]))
    return records


def newest_in(body: bytes) -> tuple[int, str]:
    """The form that a record needs, and what in it needs that; (0, "") = any form."""
    told = msgspec.json.decode(body + b"}")
    kind, record = told["fact"], told.get("record", {})
    names = [kind, *(f"{kind}.{field}" for field in told), *(f"{option}=" for option in record)]
    return max(((f.SINCE[name], name) for name in names if name in f.SINCE), default=(0, ""))


def leave_out(fact: f.Fact, form: int) -> None:
    """Takes from a fact that was just decided the fields that came after a form: so it was decided then."""
    for each in msgspec.structs.fields(fact):
        if f.SINCE.get(f"{type(fact).__name__}.{each.name}", 0) > form:
            setattr(fact, each.name, each.default)  # a plain value, as new fields have it


def _encode_defining(fact: Any) -> bytes:
    """Of a fact that brings a definition, its record is written."""
    definition = fact.record
    if type(definition) is TaskSpec:
        fact.record = definition.record
    body: bytes = _encode(fact)
    fact.record = definition
    return body


def encode_row(row: f.TaskCarried) -> bytes:
    """One of those that TasksCarried holds."""
    text: bytes = _encode(row)
    return text


def encode_rows(rows: Iterable[bytes]) -> msgspec.Raw:
    """All of them."""
    return msgspec.Raw(b"[%b]" % b",".join(rows))


def decode_rows(fact: f.TasksCarried) -> list[f.TaskCarried]:
    """The inverse."""
    return _decode_rows(fact.rows)


def decode(record: bytes) -> tuple[int, datetime, f.Fact, bool]:
    """The inverse: (seq, at, fact, more). Raises ValueError, also for a field that no fact has."""
    head = _HEAD.match(record)
    if head is None:
        raise ValueError("it does not begin with seq, at and fact")
    try:
        fact: f.Fact = _decode(b"{%b%b" % (head[3], record[head.end() :]))
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None
    return int(head[1]), datetime.fromisoformat(head[2].decode()), fact, head[4] is not None
