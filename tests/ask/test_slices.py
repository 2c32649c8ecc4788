"""Questions about all tasks are answered in slices: what is looked at between two rows is bounded.

Counted on the tables themselves, not on a clock. A None among the rows lets the others have
their turn.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from cronflowd.ask import commands, views
from cronflowd.ask.flows import draw_tree
from cronflowd.ask.metrics import Tally, show_metrics
from cronflowd.ask.why import runs_of
from cronflowd.base.walks import SLICE, Numbered, in_order, in_slices, page
from cronflowd.daemon.crontab_orders import export
from cronflowd.engine import facts as f
from cronflowd.engine import orders as o
from cronflowd.schedules.fields import Fields
from cronflowd.tasks.task import Failure
from tests.lib.engine_driver import START, Driver

MANY = 20 * SLICE
RECORD = {"schedule": "0 0 1 1 *", "command": "echo", "jobName": ""}


class Counting(Numbered[Any]):
    """A table that counts how often it is looked into, and refuses to be looked through in one go."""

    looks = 0

    def get(self, number: int, default: Any = None) -> Any:
        self.looks += 1
        return super().get(number, default)

    def __iter__(self) -> Any:
        raise AssertionError("all numbers were asked for in one go")

    def values(self) -> Any:
        raise AssertionError("all rows were asked for in one go")

    items = values


def many(after: str = "", tasks: int = MANY) -> Driver:
    """A daemon with so many tasks, of which all that have a dependency wait for the first."""
    driver = Driver()
    for number in range(1, tasks + 1):
        options = {"after": after} if after and number > 1 else {}
        record = RECORD | {"jobName": f"t{number}"} | options
        driver.state.apply(f.TaskAdded(number, record, START, START), START)
    table = Counting()
    for number in range(1, tasks + 1):
        table[number] = driver.state.tasks[number]
    driver.state.tasks = table
    return driver


def ask(driver: Driver, line: str) -> Iterable[Any]:
    verb, rest = commands.find_verb(line)
    question = verb.parse(rest, commands.Context(driver.now, "UTC"))
    if not isinstance(verb.answer, str):
        return verb.answer(driver.state, question, driver.now).rows
    answer: dict[str, Callable[[], Any]] = {
        "EXPORT": lambda: export(driver.state, question, driver.now, lambda spec: True).rows,
        "METRICS": lambda: show_metrics(driver.state, question, Tally(driver.state), (), driver.now).rows,
        "STATUS": lambda: views.status_rows(driver.state, driver.now),
        "DST": lambda: views.clock_changes(driver.state, question, driver.now),
    }
    rows: Iterable[Any] = answer[verb.name]()
    return rows


@pytest.fixture(scope="module", params=["", "t1"], ids=["alone", "after"])
def asked(request: pytest.FixtureRequest) -> Driver:
    """Many tasks for all that only ask of them."""
    return many(request.param)


@pytest.mark.parametrize(
    "line",
    ["LIST", "LIST name=nobody*", "LIST tag=x", "LIST state=running", "LIST offset=10000 limit=3", "FAILED",
     "LIST sort=-name offset=10000", "LIST sort=next limit=1 count=yes", "LIST search=none count=yes limit=1",
     "DEPS", "DEPS t1", "DEPS t9", "STATUS", "METRICS", "NEXT all by=hour", "DST until=2030-02-01T00:00:00Z"],
)  # fmt: skip
def test_no_question_looks_at_more_than_a_slice_at_a_time(asked: Driver, line: str) -> None:
    """LIST of 300,000 tasks stood everybody still for a quarter of a second."""
    table = asked.state.tasks
    assert isinstance(table, Counting)
    most, last = 0, table.looks
    for _ in ask(asked, line):
        most, last = max(most, table.looks - last), table.looks
    most = max(most, table.looks - last)
    # DEPS looks at a task and its parents.
    assert most <= 4 * SLICE, f"{most} tasks were looked at in one go"


def test_few_long_commands_are_searched_at_a_time() -> None:
    """A slice of five hundred commands, of 60 KB each, was a step of 50 ms."""
    driver = Driver()
    for number in range(60):
        driver.line(f"ADD name=t{number} @daily {'x' * 50_000}")
    rows = list(ask(driver, "LIST search=none"))
    assert rows == [None] * 30
    assert [row[0] for row in ask(driver, "LIST search=xx limit=3") if row] == [1, 2, 3]


def test_a_list_is_whole_and_in_order_though_tasks_come_and_go_meanwhile() -> None:
    """A dict that changes while it is walked raises; what stays must be shown once, whatever else happens."""
    driver = many()
    dice = random.Random(1)
    seen = []
    removed = set()
    for row in ask(driver, "LIST"):
        if row is None:
            gone = dice.randrange(2, MANY, 2)
            if gone not in removed:
                removed.add(gone)
                driver.state.tasks.pop(gone)
            number = driver.state.next_task
            record = RECORD | {"jobName": f"t{number}"}
            driver.state.apply(f.TaskAdded(number, record, START, START), START)
        else:
            seen.append(row[0])
    assert seen == sorted(set(seen))
    assert {number for number in range(1, MANY + 1) if number not in removed} <= set(seen)
    assert removed


def test_few_tasks_among_many_numbers_are_found_without_trying_all() -> None:
    """One-off commands use up numbers by the million, and LIST of three tasks must not walk them."""
    table = Counting()
    for number in (3, 10**6, 10**12):
        table[number] = str(number)
    assert [item for item in table.walk() if item] == ["3", "1000000", "1000000000000"]
    assert table.looks <= 3 * SLICE
    for number in (3, 10**6, 10**12):
        table.pop(number)
    assert list(table.walk()) == []


def test_failures_are_sorted_in_slices_and_come_latest_first() -> None:
    """Sorting a million rows in one go takes a second."""
    driver = many()
    for number in range(1, MANY + 1):
        at = START.replace(microsecond=number * 7919 % MANY)
        driver.state.tasks[number].failure = Failure(at, 1, "failed", at, at, 1, "")
    rows = list(ask(driver, "FAILED"))
    ends = [row[5] for row in rows if row]
    assert len(ends) == MANY
    assert ends == sorted(ends, reverse=True)
    assert rows[: MANY // SLICE].count(None) >= MANY // SLICE - 1


def test_a_tree_is_drawn_though_its_tasks_leave() -> None:
    """Whoever asks what depends on what must not be disturbed by who does something about it."""
    driver = many("t1")
    lines = draw_tree(driver.state, driver.state.find("t1"))
    shown = []
    for line in lines:
        if line is not None:
            shown.append(line[0].id)
            if line[0].id == 7:
                driver.state.tasks.pop(9)
    assert shown == [number for number in range(1, MANY + 1) if number != 9]


@pytest.mark.parametrize("line", ["HISTORY t7", "HISTORY 7", "GET t7 @1", "GET 7 @1"])
def test_a_large_change_is_looked_through_in_slices(line: str) -> None:
    """One step of two million may be the one that is asked for."""
    driver = many()
    for number in range(MANY, 0, -1):
        driver.state.apply(f.TaskRemoved(number, "cleared", change=1, what="CLEAR"), START)
    rows = list(ask(driver, line))
    assert rows[: MANY // SLICE - 1].count(None) == MANY // SLICE - 1
    assert next(row for row in rows if row)[0] in (1, "id")


def test_a_crontab_is_sorted_in_slices() -> None:
    """EXPORT of 20,000 tasks sorted all of them while everybody waited."""
    driver = many()
    rows = list(ask(driver, "EXPORT"))
    assert rows[: MANY // SLICE].count(None) >= MANY // SLICE - 1
    assert sum(row is not None for row in rows) >= MANY


class Unwalked(dict[int, Any]):
    """A table of which rows are only looked up."""

    def __iter__(self) -> Any:
        raise AssertionError("all rows were asked for")

    keys = values = items = __iter__


def test_the_runs_of_a_task_are_found_without_looking_at_all_runs() -> None:
    """WHY and LOG NAME looked at each of 100,000 runs to find the one of their task."""
    driver = Driver()
    for name in ("a", "b", "gone"):
        driver.line(f"ADD name={name} overlap=allow on=nobody @daily x")
    driver.do(o.JoinWorker("nobody", 1, {}, ("shell",), "here", ()))
    driver.line("RUN gone")
    driver.pump()
    driver.line("REMOVE gone")
    driver.line("RUN b")
    for _ in range(3 * SLICE):
        driver.line("RUN a")
    driver.state.runs = Unwalked(driver.state.runs)
    runs = list(runs_of(driver.state, "a"))
    assert [run.id for run in runs if run] == list(range(3, 3 * SLICE + 3))
    assert runs.count(None) == 3
    found = [[run.id for run in runs_of(driver.state, ref) if run] for ref in ("b", "2", "gone", "3")]
    assert found == [[2], [2], [1], [1]]


def test_moments_that_lie_years_apart_are_looked_for_one_at_a_time() -> None:
    """NEXT of a yearly schedule, a thousand of them, stood an empty daemon still for two seconds."""
    driver = Driver()
    question = commands.parse('NEXT "0 0 1 1 *" n=100', commands.Context(driver.now, "UTC"))
    rows = list(views.show_next(driver.state, question, driver.now).rows)
    assert sum(row is not None for row in rows) == 100
    assert all(None in rows[at : at + 2] for at in range(10, len(rows) - 1))


def test_a_moment_is_looked_for_once_however_many_clock_changes_lie_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A leap day that is a Sunday was looked for from each of 56 clock changes on, which took 70 ms a row."""
    driver, looks = Driver(), 0
    next_from = Fields.next_from

    def counted(fields: Fields, second: int) -> int | None:
        nonlocal looks
        looks += 1
        return next_from(fields, second)

    monkeypatch.setattr(Fields, "next_from", counted)
    context = commands.Context(driver.now, "Europe/Paris")
    question = commands.parse('NEXT "0 0 29 2 */7" tz=Europe/Paris n=4', context)
    rows = list(filter(None, views.show_next(driver.state, question, driver.now).rows))
    assert [row[0][:4] for row in rows] == ["2032", "2060", "2088", "2128"]
    assert looks <= 2 * len(rows) + 2


@pytest.mark.parametrize("limit", [None, 0, 1, 5, 5000])
@pytest.mark.parametrize("offset", [0, 3, 1000])
def test_a_page_counts_rows_and_hands_on_what_lets_others_go_first(limit: int | None, offset: int) -> None:
    """A None that was counted would take a row's place."""
    everything = range(1500)
    stop = None if limit is None else offset + limit
    found = list(page(in_slices(everything), limit, offset))
    assert [item for item in found if item is not None] == list(everything)[offset:stop]


def test_sorting_in_slices_is_sorting() -> None:
    """Whatever the number of items, and where the Nones stand."""
    dice = random.Random(2)
    for size in (0, 1, SLICE - 1, SLICE, SLICE + 1, 3 * SLICE):
        items = [dice.choice([None, dice.randrange(1000)]) for _ in range(size)]

        def sort(items: list[int | None] = items) -> Any:
            return list((yield from in_order(items)))

        steps = sort()
        with pytest.raises(StopIteration) as end:
            while True:
                next(steps)
        assert end.value.value == sorted(item for item in items if item is not None)


def test_the_types_give_way_where_workers_name_many_handlers() -> None:
    """Each worker may name thousands, and each of them is held against all workers."""
    driver = Driver()
    handlers = [f"custom:h{number:05}" for number in range(3 * SLICE)]
    driver.state.apply(f.WorkerJoined("w1", 1, {}, handlers, "192.0.2.1:1", [], True, "", 1), driver.now)
    rows = list(ask(driver, "TYPES"))
    assert [row[0] for row in rows if row and row[1]] == handlers
    assert rows.count(None) == 3
