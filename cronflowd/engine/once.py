"""What was done once and is not done again, though it be asked for twice: ONCE.

Who does not hear the answer asks again, with the same key. What was answered is kept in the same
decision as the change, so there is never one without the other. It is kept for a day and bounded,
for each account too: nobody can use up what others need. What is over goes a few at a time, with
each that comes: by name, so that a replayed table is the table that was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, ClassVar

import msgspec
import orjson
from attrs import Factory, define, frozen

from ..base.errors import Refusal
from ..base.replies import Reply, format_status
from .facts import Fact

KEPT_FOR = timedelta(hours=24)
MAX_KEPT, MAX_KEPT_EACH = 100_000, 10_000
DROPPED = 2  # with each that comes, of all and of its account: what is full of old ones is not full

Name = tuple[str, str]  # an account, and its key


class OnceKept(Fact):
    """What a line was answered that is not to be done again."""

    urgent: ClassVar[bool] = False
    account: str
    key: str
    line: str  # SHA-256 of it, as hexadecimal digits
    text: str  # of the status line, after OK
    values: dict[str, Any]  # the same as JSON has it
    until_at: datetime
    over: list[Name] = msgspec.field(default_factory=list)  # these are forgotten with it


@frozen
class Asked:
    """A line that is to be done once."""

    account: str
    key: str
    line: str  # its SHA-256


@define
class Once:
    """The table; oldest first, in all and by account."""

    kept: dict[Name, OnceKept] = Factory(dict)
    of: dict[str, dict[Name, None]] = Factory(dict)

    def find(self, asked: Asked, now: datetime) -> Reply | None:
        """What it was answered before; raises Refusal where the key was for something else."""
        found = self.kept.get((asked.account, asked.key))
        if found is None or found.until_at <= now:
            return None
        if found.line != asked.line:
            raise Refusal("exists", "the key was for another line, within the last 24 hours", "KEY")
        return Reply(found.text, found.values)

    def keep(self, asked: Asked, reply: Reply, now: datetime) -> OnceKept:
        """The fact of it; raises Refusal where there are too many."""
        own = self.of.get(asked.account, {})
        old = (*islice(self.kept, DROPPED), *islice(own, DROPPED))
        over = [name for name in dict.fromkeys(old) if self.kept[name].until_at <= now]
        if len(self.kept) - len(over) >= MAX_KEPT:
            raise Refusal("limit", f"{MAX_KEPT} keys of ONCE are kept already; each for 24 hours")
        if len(own) - sum(name in own for name in over) >= MAX_KEPT_EACH:
            raise Refusal("limit", f"{MAX_KEPT_EACH} keys of yours are kept already; each for 24 hours")
        values = orjson.loads(format_status(reply, as_json=True))
        del values["ok"]
        return OnceKept(asked.account, asked.key, asked.line, reply.text, values, now + KEPT_FOR, over)

    def carry(self) -> Iterator[OnceKept]:
        """All of it as facts, for a checkpoint."""
        yield from self.kept.values()


def _once_kept(state: Any, fact: OnceKept, at: datetime, seq: int) -> None:
    once: Once = state.once
    name = fact.account, fact.key
    for each in (*fact.over, name):
        once.kept.pop(each, None)
        own = once.of.get(each[0], {})
        own.pop(each, None)
        if not own:
            once.of.pop(each[0], None)
    once.kept[name] = msgspec.structs.replace(fact, over=[])
    once.of.setdefault(fact.account, {})[name] = None


APPLY: dict[type[Fact], Callable[[Any, Any, datetime, int], None]] = {OnceKept: _once_kept}
