"""Days on end, with everything in them: whatever is mixed with whatever, the account of each day is right.

Each life is played from a seed of its own; simulated_days.py tells what happens in it and
what must be so. A failure says which seed and day, and how it went with as few tasks as it
takes. `CRONFLOWD_SEED=…` chooses other lives.
"""

from __future__ import annotations

import os

import pytest

from tests.lib.simulated_days import MOST_TIMES, Broken, Life, days, smaller

SEED = os.environ.get("CRONFLOWD_SEED", "20261121")
DAYS_A_LIFE = 5
LIVES = 12
MANY_LIVES = range(LIVES, 2000, 100)  # beginnings of hundreds: 10,000 days together


def play(number: int) -> Life:
    """A life, at its end; Broken with the smallest failure found."""
    seed = f"{SEED} {number}"
    try:
        life, *_ = days(seed, DAYS_A_LIFE, is_rich=is_rich)
    except Broken as error:
        raise smaller(seed, MOST_TIMES * DAYS_A_LIFE, error) from None
    return life


def is_rich(life: Life) -> bool:
    """Whether every accident has met it, and it has done much."""
    what = ("restarts", "steps", "mishaps", "lost", "late", "reruns")
    return life.figures["starts"] > 30 * DAYS_A_LIFE and all(life.figures[each] for each in what)


@pytest.mark.parametrize("number", range(LIVES))
def test_sixty_days_balance_and_keep_every_promise(number: int) -> None:
    """Every option meets every accident; and a simulator in which nothing happens would prove nothing.

    So a life in which one of them has not come yet is longer, whatever its seed. Each is a test of its own,
    with the time that a test has: on a busy machine all of them together need more.
    """
    life = play(number)
    assert is_rich(life), life.figures


@pytest.mark.long
@pytest.mark.parametrize("first", MANY_LIVES)
def test_ten_thousand_days_balance(first: int) -> None:
    """The rare meetings, which sixty days do not see."""
    assert sum(play(number).figures["starts"] for number in range(first, min(first + 100, 2000)))


def test_a_life_is_the_same_each_time() -> None:
    """Or a failure could not be looked at again."""

    def journal() -> list[bytes]:
        (life,) = list(days("the same", 1))
        return life.journal

    assert journal() == journal()


def test_a_broken_promise_is_told_with_the_fewest_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of the test: a check that never fails would pass everything."""

    def check(life: Life) -> None:
        assert "t2" not in life.state.names

    monkeypatch.setattr(Life, "check", check)
    with pytest.raises(Broken, match=r"seed 'seed 5' without \[\], day 1, 2030-") as caught:
        list(days("seed 5", 1))
    assert "without [1, 4" in str(smaller("seed 5", 1, caught.value))
