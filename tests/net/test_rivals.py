"""Two workers of one name: who has to wait, for how long, and who is told."""

from __future__ import annotations

import logging
import math

import pytest
import trio
import trio.testing

from cronflowd.base.errors import Refusal
from cronflowd.net.rivals import MAX_WAIT_S, QUIET_S, SOON_S, Rivals


async def take(rivals: Rivals, longest_s: float = math.inf) -> float:
    """Throws the other one off as soon as that is let; how long it took."""
    began_at = trio.current_time()
    while True:
        try:
            rivals.change_hands("pi", "192.0.2.1:1", "192.0.2.2:2", longest_s)
        except Refusal as refusal:
            assert (refusal.code, "192.0.2.1:1" in refusal.message) == ("busy", True)
            await trio.sleep(0.5)
        else:
            return trio.current_time() - began_at


async def test_each_time_takes_longer_than_the_one_before(autojump_clock: trio.testing.MockClock) -> None:
    """They threw each other off several times a second, for ever."""
    rivals = Rivals()
    assert [await take(rivals) for _ in range(10)] == [0, 0, 1, 2, 4, 8, 16, 32, MAX_WAIT_S, MAX_WAIT_S]


async def test_who_holds_runs_is_let_in_before_their_lease_ends(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It would be thrown off and its job, which goes on, called lost."""
    rivals = Rivals()
    assert [await take(rivals, longest_s=10.0) for _ in range(9)] == [0, 0, 1, 2, 4, 8, 10, 10, 10]


async def test_two_that_never_stop_have_their_turns_for_ever(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Where runs are held that is 1,026 turns in three hours, and then nobody was let in or told why."""
    rivals = Rivals()
    for _ in range(1100):
        await take(rivals, longest_s=10.0)
    assert await take(rivals, longest_s=10.0) == 10


async def test_it_is_told_at_the_second_time_with_both_addresses(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The first time may be a move to another machine. What is waited for is not told again and again."""
    caplog.set_level(logging.WARNING)
    rivals = Rivals()
    told = []
    for _ in range(4):
        await take(rivals)
        told.append((rivals.is_contested("pi"), len(caplog.messages)))
    assert told == [(False, 0), (True, 1), (True, 2), (True, 3)]
    assert caplog.messages[0].endswith("192.0.2.1:1 and 192.0.2.2:2")
    assert not rivals.is_contested("other")


async def test_a_name_that_changes_hands_now_and_then_is_not_contested(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A worker that moves to another machine every day."""
    rivals = Rivals()
    for _ in range(5):
        await take(rivals)
        assert not rivals.is_contested("pi")
        await trio.sleep(SOON_S + 1)


async def test_when_one_gives_up_it_is_over(autojump_clock: trio.testing.MockClock) -> None:
    """And whoever is waiting still is no reason to call it over."""
    rivals = Rivals()
    for _ in range(10):
        await take(rivals)
    await trio.sleep(MAX_WAIT_S - 1)
    with pytest.raises(Refusal):
        rivals.change_hands("pi", "a", "b", math.inf)
    await trio.sleep(QUIET_S - 1)
    assert rivals.is_contested("pi")
    await trio.sleep(1)
    assert not rivals.is_contested("pi")
    assert [await take(rivals), rivals.is_contested("pi")] == [0, False]


async def test_names_that_are_quiet_are_forgotten(autojump_clock: trio.testing.MockClock) -> None:
    """A program that makes up names would fill the memory."""
    rivals = Rivals()
    for name in range(100):
        rivals.change_hands(f"w{name}", "a", "b", math.inf)
        await trio.sleep(QUIET_S / 3)
    assert len(rivals._found) < 5
