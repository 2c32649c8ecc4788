"""Where the values of secrets go, and where they must not: into orders, and out of what comes back.

A definition names a secret; its value stands nowhere but in the line that goes to the worker. What
the run writes passes through here before it becomes a fact. A run knows all values that its orders
held, also when they are others by now. Of its output, what may be the beginning of a value waits,
sealed as the values are, so that it is told with what follows also after a start of the daemon.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import Any

from attrs import evolve

from ..base.errors import Refusal
from ..base.masks import Mask
from ..base.output import cut_lines, is_whole, size_of, text_of
from ..base.text import CONTROL, to_bytes
from ..tasks.kinds import INSIDE, WHOLE, check_request, parse_payload
from ..tasks.options import Options
from ..tasks.reasons import Reason, reason
from ..tasks.task import Run, TaskSpec
from . import facts as f
from .access import Access

UNKNOWN = "a part is not kept: what must not be shown of it is not known, since "
HELD = "what a run wrote"  # what its rest is sealed for


class Unready(Exception):
    """A run whose order cannot be written; `why` it ends."""

    def __init__(self, why: Reason) -> None:
        super().__init__(why)
        self.why = why


# --- into orders --------------------------------------------------------------------------------


def filled(access: Access, spec: TaskSpec, wants: Iterable[str]) -> tuple[TaskSpec, list[tuple[str, str]]]:
    """The definition with the values that it names, and these by name. Raises Unready."""
    values = {name: _value(access, name) for name in wants}
    if not spec.options.wants:  # so it is told to somebody
        if any(char.isspace() or char == "\\" for value in values.values() for char in value):
            raise Unready(reason("secret-unfit", key="notify"))
        return evolve(spec, command=_put_into("", spec.command, values)), list(values.items())
    return evolve(spec, options=_fill(spec.options, values)), list(values.items())


def _value(access: Access, name: str) -> str:
    if (secret := access.secrets.get(name)) is None:
        raise Unready(reason("secret-missing", name=name))
    try:
        return access.vault.open(name, secret.sealed).decode()
    except ValueError as error:
        raise Unready(reason("secret-sealed", name=name, text=str(error))) from None


def _fill(options: Options, values: dict[str, str]) -> Options:
    env = tuple((name, _put_into("env", text, values)) for name, text in options.env)
    headers = tuple((name, _put_into("header", text, values)) for name, text in options.headers)
    for name, text in headers:
        if CONTROL.search(text):
            raise Unready(reason("secret-unfit", key=f"header.{name}"))
    stdin = options.stdin
    if match := WHOLE.fullmatch(stdin):
        stdin = b64encode(values[match[1]].encode()).decode()
    payload = _put_into("payload", options.payload, values)
    try:
        if payload != options.payload:
            parse_payload(payload)
            check_request(options.type, payload, "", ())
    except Refusal:
        # Its message may quote what must not be told.
        raise Unready(reason("secret-unfit", key="payload")) from None
    body, secret = (_put_into(key, getattr(options, key), values) for key in ("body", "secret"))
    return evolve(options, env=env, headers=headers, stdin=stdin, payload=payload, body=body, secret=secret)


def _put_into(key: str, text: str, values: dict[str, str]) -> str:
    if match := WHOLE.fullmatch(text):
        return values[match[1]]
    if "{{secret:" not in text:
        return text
    if key == "payload":  # where it stands within a JSON text's quotes
        return INSIDE.sub(lambda match: json.dumps(values[match[1]], ensure_ascii=False)[1:-1], text)
    return INSIDE.sub(lambda match: values[match[1]], text)


# --- out of what comes back ---------------------------------------------------------------------


@lru_cache(maxsize=16)
def _mask(values: tuple[tuple[str, bytes], ...]) -> Mask:
    return Mask(values)


def _mask_of(access: Access, run: Run) -> Mask:
    """Raises ValueError where the values are not to be had."""
    return _mask(tuple((name, access.vault.open(name, sealed)) for name, sealed in run.given))


def hidden(access: Access, run: Run, text: str) -> str:
    """A text about a run, without its secrets."""
    try:
        return _mask_of(access, run).hide_text(text)
    except ValueError as error:
        return f"{UNKNOWN}{error}"


def hide_output(access: Access, run: Run, received: f.OutputReceived) -> f.OutputReceived:
    """What of a run's output may be told now."""
    taken = size_of(line for line in received.lines if line[0])
    try:
        mask, held = _mask_of(access, run), _held(access, run)
        lines: list[list[Any]] = []
        for fd, text in _joined(received.lines):
            if fd:
                shown, held[fd] = mask.hide(held.get(fd, b"") + to_bytes(text), False)
            else:
                shown, _ = mask.hide(to_bytes(text), True)
            lines += cut_lines(fd, shown.decode(errors="surrogateescape"))
        rest = b" ".join(map(b64encode, (held.get(1, b""), held.get(2, b""))))
        sealed = access.vault.seal(HELD, rest) if rest != b" " else ""
    except ValueError as error:
        lines, sealed = [[0, f"{UNKNOWN}{error}"]], ""
    return f.OutputReceived(received.run, received.attempt, lines, received.omitted, taken, sealed)


def let_go(access: Access, run: Run) -> list[f.OutputReceived]:
    """What was held back of an attempt that is over: no more will come."""
    try:
        mask = _mask_of(access, run)
        lines = [
            line
            for fd, data in _held(access, run).items()
            for line in cut_lines(fd, mask.hide(data, True)[0].decode(errors="surrogateescape"))
        ]
    except ValueError as error:
        lines = [[0, f"{UNKNOWN}{error}"]]
    return [f.OutputReceived(run.id, run.attempt, lines, 0, 0, "")]


def _held(access: Access, run: Run) -> dict[int, bytes]:
    if not run.held:
        return {}
    first, _, second = access.vault.open(HELD, run.held).partition(b" ")
    return {1: b64decode(first), 2: b64decode(second)}


def _joined(lines: list[list[Any]]) -> Iterator[tuple[int, str]]:
    """What follows each other on the same fd, in one."""
    for fd, group in groupby(lines, itemgetter(0)):
        yield fd, "".join([text_of(line) + "\n" * is_whole(line) for line in group])
