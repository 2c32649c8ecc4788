"""Whom to tell of what: the words of notify=, on a task, on an expectation and in the settings.

A value is one or more targets with commas between, each with the events that it wants to
hear of before it, unless these are the usual ones:

    notify=mailto:ops@example.org
    notify=failure+recovery:slack+https://hooks.slack.com/services/T0/B0/x,lost:mailto:boss@example.org

What happens then is told in notices.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from attrs import frozen

from ..base.errors import Refusal
from ..base.names import check_mail_address
from ..base.nearest import one_of
from ..base.text import escape
from ..schedules.zones import parse_duration
from .kinds import check_url

EVENTS = ("failure", "recovery", "first", "success", "done", "missed", "lost", "absent", "worker")
BAD, GOOD = frozenset({"failure", "missed", "lost", "absent"}), frozenset({"recovery", "first", "success"})
AT_EACH_END = ("success", "done")  # whoever hears more exactly of the same end is not told these besides
OPPOSITE = dict.fromkeys(BAD, GOOD) | dict.fromkeys(GOOD, BAD)
USUAL = frozenset({"failure", "recovery", "missed", "lost", "absent"})
OF_A_BEAT = frozenset({"failure", "recovery", "first", "absent"})
OF_NO_TASK = "worker"  # so only the general setting can ask for it
_ALSO_CALLED = {
    "failure": "failed fail error failures", "recovery": "recovered ok success fixed", "missed": "late",
    "first": "new started", "absent": "silent down", "worker": "workers node",
}  # fmt: skip
MAX_TARGETS = 10
MAX_NOTIFY_BYTES = 4096
_TARGET = re.compile(r"(?:([a-z]+(?:\+[a-z]+)*):)?(mailto:|slack\+(?=https?://)|(?=https?://))(.+)")


def notice_name(task: int) -> str:
    """What the task is called that tells somebody something, unless another one has that name."""
    return f"notify_{task}"


@frozen
class Target:
    """One that is told, and of what."""

    text: str
    events: frozenset[str]
    form: str  # `mail`, `webhook`, or `slack`
    address: str  # of a person, or a URL


@frozen
class Notify:
    """All that one notify= says."""

    text: str = ""  # empty: nothing is said, and the general setting holds
    targets: tuple[Target, ...] = ()  # empty with a text: nobody is told


UNSAID = Notify()


def parse_target(text: str) -> Target:
    """`[EVENT[+EVENT…]:]TARGET`; Refusal (`bad-option`) naming what is wrong."""
    match = _TARGET.fullmatch(text)
    if match is None:
        form = "mailto:ADDRESS, https://… or slack+https://…, with events such as failure+recovery: before it"
        *_, address = re.split("[:/]", text)
        hint = f"; did you mean mailto:{address}?" if re.fullmatch("[^@ ]+@[^@ ]+", address) else ""
        raise Refusal("bad-option", f'"{escape(text[:80])}" is not {form}{escape(hint)}')
    words, scheme, address = match.groups()
    form = {"mailto:": "mail", "slack+": "slack"}.get(scheme, "webhook")
    if form == "mail":
        check_mail_address(address)
    else:
        _check_url(address)
    return Target(text, _parse_events(words), form, address)


def _parse_events(words: str | None) -> frozenset[str]:
    if words is None:
        return USUAL
    if words == "slack":
        raise Refusal("bad-option", "slack is no event; did you mean slack+https://…?")
    for word in words.split("+"):
        one_of(word, EVENTS, _ALSO_CALLED)
    return frozenset(words.split("+"))


def _check_url(url: str) -> None:
    try:
        check_url(url)
    except Refusal as refusal:
        raise Refusal("bad-option", refusal.message) from None


def parse_notify(text: str) -> Notify:
    """`none`, or targets with commas between, for a task or an expectation. Raises Refusal."""
    if text == "none":
        return Notify(text)
    if len(text.encode()) > MAX_NOTIFY_BYTES:
        raise Refusal("bad-option", f"it is longer than {MAX_NOTIFY_BYTES} bytes")
    targets = tuple(_parse_targets(text.split(",")))
    if len(targets) > MAX_TARGETS:
        raise Refusal("bad-option", f"more than {MAX_TARGETS} targets")
    if any(OF_NO_TASK in target.events for target in targets):
        raise Refusal("bad-option", f"{OF_NO_TASK} is about no task; it is for the daemon's own setting")
    return Notify(text, targets)


def _parse_targets(words: list[str]) -> Iterator[Target]:
    last = None
    for word in words:
        try:
            target = parse_target(word)
        except Refusal as refusal:
            if last is None or last.form == "mail":
                raise
            raise Refusal(refusal.code, f"{refusal.message}; write %2C for a comma in a URL") from None
        yield target
        last = target


def parse_limit(text: str) -> tuple[int, float]:
    """`10/1h`: so many in so long, as (number, seconds). Raises Refusal."""
    number, slash, time = text.partition("/")
    if not slash or not re.fullmatch("[1-9][0-9]{0,5}", number):
        raise Refusal("bad-option", f'"{escape(text[:40])}" is not a number and a time, such as 10/1h')
    if (seconds := parse_duration(time)) <= 0:
        raise Refusal("bad-option", "the time must be longer than nothing")
    return int(number), seconds
