"""Waiting in tests: for what sends no event, and never for ever."""

from __future__ import annotations

from collections.abc import Callable

import trio

PATIENCE_S = 60.0  # a machine may be ten times slower than usual; what holds costs nothing


async def until(is_true: Callable[[], object]) -> None:
    """Looks until it is so; fails when it never becomes so."""
    with trio.fail_after(PATIENCE_S):
        while not is_true():
            await trio.sleep(0.001)
