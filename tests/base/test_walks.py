"""Tables of very many rows, in parts that are small enough to grow at once."""

from __future__ import annotations

from collections.abc import Generator
from itertools import islice

from cronflowd.base.walks import PARTS, SLICE, Numbered, Parted, Steps

MANY = 50_000


def test_a_large_table_is_many_small_ones() -> None:
    """A dict of a million rows takes 60 ms to grow, and one of two million is freed in 100."""
    numbers, names = Numbered[int](), Parted[str, int]()
    for number in range(1, MANY + 1):
        numbers[number] = names[f"job-{number}"] = number
    assert max(map(len, numbers._parts.values())) <= SLICE
    assert max(map(len, names._parts.values())) <= 1.2 * MANY / PARTS
    assert (len(numbers), len(names), names["job-7"], names.get("job-0")) == (MANY, MANY, 7, None)
    before = len(numbers)
    numbers.let_go()
    assert 0 < before - len(numbers) <= SLICE
    for number in range(1, MANY + 1):
        del names[f"job-{number}"]
    assert (len(names), list(names), names._parts) == (0, [], {})


def test_a_walk_begins_after_a_number_and_goes_on_while_rows_come_and_go() -> None:
    """Slices go on where the one before them ended, without looking at what was done."""
    table = Numbered[None]()
    table.update(dict.fromkeys(range(1, 5 * SLICE)))
    walk = filter(None, table.walk_numbers(3 * SLICE + 1))
    assert list(islice(walk, 3)) == [3 * SLICE + 2, 3 * SLICE + 3, 3 * SLICE + 4]
    del table[3 * SLICE + 5], table[3 * SLICE + 7]
    assert list(islice(walk, 2)) == [3 * SLICE + 6, 3 * SLICE + 8]
    table.clear()
    assert list(walk) == []


def test_small_steps_are_walked_through_and_give_their_value_then() -> None:
    """Whoever lets others have their turn between two of them writes a plain loop."""

    def work() -> Generator[str, None, int]:
        yield "one"
        yield "two"
        return 3

    steps = Steps(work())
    assert (list(steps), steps.value) == (["one", "two"], 3)
