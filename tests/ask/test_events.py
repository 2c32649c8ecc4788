"""WATCH since=: what is told of the past is what was told when it happened."""

from __future__ import annotations

from random import Random

import pytest

from cronflowd.ask import events
from cronflowd.base.errors import Refusal
from cronflowd.engine import facts as f
from cronflowd.engine.definitions import finish
from cronflowd.engine.state import State
from tests.lib.engine_driver import Driver
from tests.lib.write_journal import live

Told = list[tuple[int, list[events.Event]]]


def told_live(facts: list[events.Record], state: State) -> Told:
    """What watchers read as it happened."""
    told = []
    for seq, at, fact in facts:
        told.append((seq, list(events.describe(fact, at, events.Present(state)))))
        state.apply(fact, at, seq)
    return told


def numbered(decisions: list[tuple[object, list[f.Fact]]]) -> list[events.Record]:
    facts = [(at, fact) for at, found in decisions for fact in found]
    return [(seq, at, fact) for seq, (at, fact) in enumerate(facts, 1)]  # type: ignore[misc]


def check(records: list[events.Record], dice: Random, cuts: int) -> None:
    """From any place to any later one, by what is known then."""
    for _ in range(cuts):
        after, upto = sorted((dice.randrange(len(records) + 1), dice.randrange(len(records) + 1)))
        state = State("UTC")
        live_told = told_live(records[:upto], state)
        replaced = finish(events.names_replaced(state))
        assert list(events.of_the_past(records[after:upto], state, replaced)) == live_told[after:]


def test_every_kind_of_fact_is_told_as_it_was_from_any_place_on() -> None:
    """Tasks are gone by then, or have other names; a dashboard that reconnects must not show others."""
    check(numbered(live().decisions), Random(1), 60)


class Remembering(Driver):
    def __init__(self) -> None:
        self.decisions: list[tuple[object, list[f.Fact]]] = []
        super().__init__()

    def do(self, order: object) -> object:  # type: ignore[override]
        decision = super().do(order)
        self.decisions.append((self.now, decision.facts))
        return decision


@pytest.mark.parametrize("seed", range(5))
def test_names_that_change_are_those_of_their_time(seed: int) -> None:
    """Renamed, removed, brought back and run once: each row bears the name that the task had then."""
    dice, driver = Random(seed), Remembering()
    lines = [
        "SET {} name={}", "REMOVE {}", "UNDO", "PAUSE {}", "RESUME {}", "RUN {}", "ADD name={} @daily x",
        "NOW name={} y", "SET {} prio=high", "PAUSE all", "RESUME all", "CANCEL {number}", "CLEAR",
    ]  # fmt: skip
    for _ in range(80):
        name, other = dice.choice("abcdef"), dice.choice("abcdefgh")
        line = dice.choice(lines[: 12 if dice.random() < 0.9 else 13])
        try:
            driver.line(line.format(name, other, number=dice.randrange(1, 9)))
            driver.pump()
        except Refusal:
            continue
    check(numbered(driver.decisions), dice, 25)
