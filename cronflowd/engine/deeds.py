"""Who did what, as AUDIT tells it: from facts that mostly say much else besides.

`deed_of` cuts a fact down to that. Compaction keeps what it gives in the place of the whole, so a
deed of last month is told in the same words as one of this minute.
"""

from __future__ import annotations

from datetime import datetime

from . import access_facts as af
from . import facts as f
from .access import WORKER
from .facts import Asked, Fact
from .rules import MAX_WHO

Deed = af.SignedIn | af.Refused | af.Deed
Told = tuple[str, str, str, str, str]  # who, address, verb, ref, verdict
OK, DENIED = "ok", "denied"


def deed_of(fact: Fact, at: datetime) -> Deed | None:
    """What of a fact concerns AUDIT; None where nothing does."""
    if isinstance(fact, af.SignedIn | af.Refused | af.Deed):
        return fact
    if isinstance(fact, f.WorkerJoined):
        return af.SignedIn(fact.name, WORKER, fact.address, is_account=False)
    who = getattr(fact, "who", None)
    if not who:
        return None
    if isinstance(fact, Asked):
        return _asked(fact, who, at)
    if row := _VERBS.get(type(fact)):  # others tell again what was done before
        return af.Deed(who, row[0], str(getattr(fact, row[1])))
    return None


def _asked(fact: Asked, who: str, at: datetime) -> af.Deed | None:
    """An order is told once, by the first of its facts; what runs once is no change that has a number."""
    if fact.what:
        verb, _, rest = fact.what.partition(" ")
        if isinstance(fact, f.TemplateSet) and verb == "TEMPLATE":
            rest = fact.name
        return af.Deed(who, fact.verb or verb, rest.removeprefix("replace=yes ").partition(" ")[0])
    if isinstance(fact, f.TaskAdded) and fact.change is None:
        return af.Deed(who, "NOW" if fact.due_at is None or fact.due_at <= at else "AT", str(fact.id))
    return None


_VERBS: dict[type[Fact], tuple[str, str]] = {
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
