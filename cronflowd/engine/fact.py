"""What every fact is, and what those have in common that somebody asked for; facts.py has them all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from ..tasks.task import TaskSpec

# A fact that was just decided carries the task itself. The record is made when it is written, and
# read when it is read back: a dict stands there then, which is what the decoder knows of.
if TYPE_CHECKING:
    Definition = TaskSpec | dict[str, Any]
else:
    Definition = dict[str, Any]


class Fact(
    msgspec.Struct, tag_field="fact", tag=True, omit_defaults=True, forbid_unknown_fields=True, gc=False
):
    """Base of all facts. `urgent` says how the journal may treat it when the disk is full."""

    urgent: ClassVar[bool] = True  # may use the reserve; False = asked for by a client, can be refused

    def is_urgent(self) -> bool:
        """Whether this one may be written when only the reserve is left."""
        return self.urgent


class Signed(Fact, kw_only=True):
    """Base of the facts that somebody may have asked for: they say who, and most of them can be refused."""

    urgent: ClassVar[bool] = False
    who: str | None = None  # the connection's name or address; None = the daemon itself


class Asked(Signed, kw_only=True):
    """Base of the facts about tasks, which are mostly what somebody asked for.

    All facts of one order bear the number of the same change; what UNDO does not take back has none.
    """

    change: int | None = None
    what: str | None = None  # with the first fact of a change: the order, as HISTORY tells it
    verb: str | None = None  # with that: which order it was, `SET` or `UNDO`
    undone: str | None = None  # with that: the one change that an UNDO took back, as HISTORY tells that
