"""Lines of the control port, read at a moment of the tests' own."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cronflowd.ask import commands
from cronflowd.ask.grammar import Context
from cronflowd.base.errors import Refusal

CONTEXT = Context(datetime(2030, 1, 1, 12, tzinfo=UTC), "UTC")


def refusal(line: str) -> str:
    """What is said of a line that is refused, with its code."""
    with pytest.raises(Refusal) as caught:
        commands.parse(line, CONTEXT)
    return str(caught.value)
