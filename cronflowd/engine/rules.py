"""What it is to decide: an order in, a decision out, by the rule for orders of its kind.

`decide` is one table, order -> rule. Each file gives its rows, at its end: what decides, and for
what a client orders how HISTORY tells it. A new order needs three things: a class in orders.py, a
function and its row.

`deed_of` cuts a fact down to who did what, as AUDIT tells it. Compaction keeps what it gives in the place
of the whole, so a deed of last month is told in the same words as one of this minute.
"""

from __future__ import annotations

from collections.abc import Callable, Sized
from datetime import datetime
from typing import Any

import msgspec
from attrs import define, frozen

from ..base.errors import Refusal
from ..base.replies import Reply
from ..base.text import shorten
from ..tasks.targets import Target
from . import access_facts as af
from . import facts as f
from . import orders as o
from .access import WORKER
from .state import State

MAX_WHAT = 200  # characters
MAX_WHO = 200

Message = tuple[str, str]  # worker, line


@define
class Limits:
    """What the engine refuses to grow beyond, how patient it is, and whom it tells of what."""

    tasks: int = 2_000_000
    lease_s: float = 30.0
    output_bytes: int = 1024 * 1024  # per attempt
    notify: tuple[Target, ...] = ()  # who is told of tasks without a notify= of their own
    notify_limit: tuple[int, float] = (1, 3600.0)  # so often in so many seconds, per task and event
    host: str = "localhost"  # where the daemon is, as it tells others


class Decision(msgspec.Struct, gc=False):
    """What an order leads to. Empty facts: nothing changed."""

    facts: list[f.Fact] = msgspec.field(default_factory=list)
    reply: Reply | None = None
    messages: list[Message] = msgspec.field(default_factory=list)
    warning: str = ""  # what the log should tell

    @property
    def told(self) -> Reply:
        """The reply, of an order that always has one."""
        assert self.reply is not None
        return self.reply


@frozen
class Rule:
    """One row of the table."""

    # Looks and never touches. Refuses before any fact exists.
    decide: Callable[[State, Any, datetime, Limits], Decision]
    verb: str = ""  # a client's; its facts say who it was
    # What HISTORY tells after the verb; None, there or here: no change that UNDO takes back.
    tell: Callable[[State, Any], str | None] | None = None
    is_exclusive: bool = False  # not while very many tasks are being changed

    def sign(self, state: State, order: Any, facts: list[f.Fact], who: str | None) -> None:
        """Says in the facts of a client's order who gave it, and that they are one change.

        Where none of them has room for that, one more tells it, for AUDIT.
        """
        rest = self.tell(state, order) if self.tell else None
        what = None if rest is None else f"{self.verb} {rest}" if rest else self.verb
        if what and len(what) > MAX_WHAT:
            what = shorten(what, MAX_WHAT)
        who = who and who[:MAX_WHO]
        has_said = not facts
        number = None if what is None else state.changes.next_number
        fact: Any
        for fact in facts:
            if type(fact) in _SIGNED:
                has_said, fact.who = True, who
            elif isinstance(fact, f.Asked):
                has_said, fact.who, fact.change = True, who, number
                if what is not None:
                    fact.what, fact.verb = what, self.verb
                what = None  # with the first one only
        if who and not has_said:
            facts.append(af.Deed(who, self.verb, ref_of(order)))


def ref_of(order: Any) -> str:
    """What an order is about, in a word or a few, as AUDIT tells it."""
    for name in ("ref", "run", "event", "name", "token", "count"):
        value = getattr(order, name, None)
        if isinstance(value, o.Pattern):
            return " ".join(f"{key}={text}" for key in ("tag", "name") if (text := getattr(value, key)))
        if value is not None:
            return shorten(" ".join(value) if isinstance(value, tuple) else str(value), MAX_WHAT)
    return order.spec.name if isinstance(order, o.AddTask) else ""


def check_limit(table: Sized, most: int, what: str) -> None:
    """Refuses one more where there are as many as there may be."""
    if len(table) >= most:
        raise Refusal("limit", f"there are {len(table)} {what} already, which is the limit")


_SIGNED = frozenset(f.Signed.__subclasses__())

Rules = dict[type, Rule]


# --- who did what, as AUDIT tells it --------------------------------------------------------------


Deed = af.SignedIn | af.Refused | af.Deed
Told = tuple[str, str, str, str, str]  # who, address, verb, ref, verdict
OK, DENIED = "ok", "denied"


def deed_of(fact: f.Fact, at: datetime) -> Deed | None:
    """What of a fact concerns AUDIT; None where nothing does."""
    if isinstance(fact, af.SignedIn | af.Refused | af.Deed):
        return fact
    if isinstance(fact, f.WorkerJoined):
        return af.SignedIn(fact.name, WORKER, fact.address, is_account=False)
    who = getattr(fact, "who", None)
    if not who:
        return None
    if isinstance(fact, f.Asked):
        return _asked(fact, who, at)
    if row := _VERBS.get(type(fact)):  # others tell again what was done before
        return af.Deed(who, row[0], str(getattr(fact, row[1])))
    return None


def _asked(fact: f.Asked, who: str, at: datetime) -> af.Deed | None:
    """An order is told once, by the first of its facts; what runs once is no change that has a number."""
    if fact.what:
        verb, _, rest = fact.what.partition(" ")
        if isinstance(fact, f.TemplateSet) and verb == "TEMPLATE":
            rest = fact.name
        return af.Deed(who, fact.verb or verb, rest.removeprefix("replace=yes ").partition(" ")[0])
    if isinstance(fact, f.TaskAdded) and fact.change is None:
        return af.Deed(who, "NOW" if fact.due_at is None or fact.due_at <= at else "AT", str(fact.id))
    return None


_VERBS: dict[type[f.Fact], tuple[str, str]] = {
    f.RunQueued: ("RUN", "task"), f.RunStopping: ("CANCEL", "run"), f.EventEmitted: ("EMIT", "event"),
    f.FlowStarted: ("FLOW", "name"), f.FlowRetried: ("FLOW", "flow"), f.FlowStopping: ("FLOW", "flow"),
    af.AccountSet: ("USER", "name"), af.AccountRemoved: ("USER", "name"),
    af.TokenAdded: ("TOKEN", "id"), af.TokenRevoked: ("TOKEN", "id"),
    af.LoginSet: ("SESSION", "id"), af.LoginEnded: ("SESSION", "id"), af.ResetOffered: ("USER", "name"),
    af.SecretPut: ("SECRET", "name"), af.SecretRemoved: ("SECRET", "name"),
}  # fmt: skip


def rows_of(deed: Deed, nobody: str) -> list[Told]:
    """AUDIT's rows of it, the newest first; `nobody` is who came where nobody had to say who he is."""
    if isinstance(deed, af.SignedIn):
        verb = "HELLO" if deed.role == WORKER else "AUTH"
        return [(deed.name, deed.address, verb, "", OK)]
    if isinstance(deed, af.Deed):
        name, at, address = deed.who.rpartition("@")
        return [(name if at else nobody, address, deed.verb, deed.ref, OK)]
    rows: list[Told] = []
    if deed.verb:
        rows.append((deed.who[:MAX_WHO], deed.address, deed.verb, deed.ref, DENIED))
    if deed.untold:
        rows.append(("", deed.address, "", f"{deed.untold} more", DENIED))
    return rows
