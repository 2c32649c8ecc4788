"""The account of all fires: nothing is counted twice, nothing is lost, however old it gets."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as evolve

from cronflowd.ask import questions as q
from cronflowd.ask import stats, views
from cronflowd.ask.stats import COLUMNS, Stats, percentile
from cronflowd.base.errors import Exit, Refusal
from cronflowd.engine import facts as f
from cronflowd.engine.ledger import DISPOSITIONS, Ledger
from cronflowd.engine.state import State
from cronflowd.journal.check import check
from cronflowd.journal.files import journal_dir
from cronflowd.schedules.zones import load_zone
from cronflowd.tasks.task import Outcome, Run
from tests.lib.engine_driver import START, Driver, snapshot
from tests.lib.journal_driver import Life, restarted, told

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
RECORD = {"schedule": "* * * * *", "command": "true", "jobName": "a"}


def filled(*moments: datetime, now: datetime) -> Ledger:
    """One fire at each of these moments, ended well at once; what is old is old since `now`."""
    ledger = Ledger()
    for at in moments:
        ledger.count_due(at, at)
        ledger.count_end("ok", at, at)
    ledger.count_due(now, now)
    ledger.count_end("ok", now, now)
    return ledger


def spans(ledger: Ledger) -> list[str]:
    """Begin and length in hours of each row."""
    return [
        f"{datetime.fromtimestamp(begin, UTC):%Y-%m-%d %H} {(end - begin) // 3600}"
        for begin, end, *_ in ledger.carry()
    ]


def pending(due_at: datetime) -> Run:
    state = State()
    state.apply(f.TaskAdded(1, RECORD, due_at, None), due_at)
    state.apply(f.RunQueued(1, 1, due_at, "manual"), due_at)
    return state.runs[1]


# --- folding ------------------------------------------------------------------------------------


def test_a_fire_is_counted_in_the_hour_it_was_due() -> None:
    """To the second: 12:59:59.999 is not yet 13."""
    ledger = filled(NOON, NOON + HOUR - timedelta(milliseconds=1), now=NOON + HOUR)
    assert spans(ledger) == ["2030-01-01 12 1", "2030-01-01 13 1"]
    assert [row[2:4] for row in ledger.carry()] == [[2, 2], [1, 1]]


def test_hours_become_days_after_62_days_and_days_months_after_5_years() -> None:
    """What happened long ago is asked by the month, and must not fill memory by the hour."""
    ledger = filled(NOON, NOON + HOUR, now=NOON + 62 * DAY)
    assert spans(ledger)[:2] == ["2030-01-01 12 1", "2030-01-01 13 1"]
    ledger = filled(NOON, NOON + HOUR, NOON + DAY, now=NOON + 63 * DAY)
    assert spans(ledger)[:2] == ["2030-01-01 00 24", "2030-01-02 12 1"]
    ledger = filled(NOON, NOON + DAY, NOON + 40 * DAY, now=NOON + 1831 * DAY + 10 * DAY)
    assert spans(ledger)[:2] == [f"2030-01-01 00 {31 * 24}", "2030-02-10 00 24"]
    assert ledger.balance([]).due == 4


def test_years_of_fires_take_a_bounded_number_of_rows() -> None:
    """An hourly task for seven years: 63 days of hours, 5 years of days, and the months before."""
    ledger = Ledger()
    for number in range(7 * 365 * 24):
        at = NOON + number * HOUR
        ledger.count_due(at, at)
        ledger.count_end("ok" if number % 7 else "failed", at, at)
    lengths = Counter(end - begin for begin, end, *_ in ledger.carry())
    assert lengths[3600] <= 63 * 24
    assert lengths[86400] <= 5 * 366 + 31
    assert len(ledger.carry()) <= 63 * 24 + 5 * 366 + 31 + 7 * 12
    balance = ledger.balance([])
    assert (balance.due, balance.trouble) == (7 * 365 * 24, "")


def test_a_run_that_ends_after_its_hour_was_folded_is_found_in_its_day() -> None:
    """A job may run for a year; its hour is long gone."""
    for length in (70, 2500):
        ledger = Ledger()
        end_at = NOON + length * DAY
        ledger.count_due(NOON, NOON)
        ledger.count_due(end_at, end_at)
        ledger.count_end("ok", end_at, end_at)
        assert ledger.balance([pending(NOON)]).trouble == ""
        ledger.count_end("lost", NOON, end_at)
        assert ledger.balance([]).trouble == ""
        assert ledger.balance([], until_at=NOON + HOUR).ends["lost"] == 1


def test_a_row_that_was_folded_takes_no_more_counts() -> None:
    """The hour of the last moment is kept at hand; not when it has become part of a day meanwhile."""
    ledger, later = Ledger(), NOON + 70 * DAY
    ledger.count_due(NOON, NOON)
    ledger.count_due(NOON + HOUR, later)
    ledger.count_end("missed", NOON + HOUR, later)
    ledger.count_end("lost", NOON, later)
    assert ledger.balance([]).trouble == ""


def test_a_row_that_is_only_partly_asked_for_brings_all_that_it_overlaps() -> None:
    """The clock stood at 2041 for a minute: January is one row now, and its 11th an hour beside it."""
    ledger = filled(NOON, now=NOON + 4000 * DAY)
    ledger.count_due(NOON + 10 * DAY, NOON + 10 * DAY)
    balance = ledger.balance([pending(NOON + 10 * DAY)], NOON, NOON + HOUR)
    assert (balance.due, balance.pending, balance.trouble) == (2, 1, "")
    month = NOON.replace(hour=0)
    assert (balance.since_at, balance.until_at) == (month, month.replace(month=2))


def test_moments_missed_for_years_cost_no_row_each() -> None:
    """A daemon that was down for ten years tells of each task's range at its last moment."""
    ledger = Ledger()
    now = NOON + 3650 * DAY
    for number in range(5000):
        at = NOON + number * HOUR
        ledger.count_due(at, now, 60)
        ledger.count_end("missed", at, now, 60)
    assert len(ledger.carry()) <= 5000 // 24 // 28 + 2
    assert ledger.balance([]).ends["missed"] == 300_000


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-3000, 3000), st.integers(0, 200), st.sampled_from(DISPOSITIONS)), max_size=60
    ),
    st.integers(-3000, 3000),
    st.integers(0, 3000),
)
def test_whatever_the_clock_does_any_period_balances(
    fires: list[tuple[int, int, str]], since: int, length: int
) -> None:
    """Set forward by years and back again, rows of all lengths overlap; no sum is wrong for that."""
    ledger, runs = Ledger(), []
    for days, lasting, state in fires:
        due_at = NOON + days * DAY + days * HOUR
        ledger.count_due(due_at, due_at)
        if lasting > 150:
            runs.append(pending(due_at))
        else:
            ledger.count_end(state, due_at, due_at + lasting * DAY)
    since_at, until_at = NOON + since * DAY, NOON + (since + length) * DAY
    for bounds in ((None, None), (since_at, None), (None, until_at), (since_at, until_at)):
        balance = ledger.balance(runs, *bounds)
        assert balance.trouble == ""
        low, high = balance.since_at or since_at - 9999 * DAY, balance.until_at or until_at + 9999 * DAY
        assert balance.due == sum(low <= NOON + days * DAY + days * HOUR < high for days, *_ in fires)
    again = Ledger()
    again.take(ledger.carry())
    assert again.carry() == ledger.carry()


def test_asked_times_are_rounded_outward_to_what_is_known() -> None:
    """An hour of last year is a day now; the answer says so instead of guessing."""
    ledger = filled(NOON, NOON + 2 * HOUR, now=NOON + 100 * DAY)
    balance = ledger.balance([], NOON + HOUR, NOON + HOUR + timedelta(minutes=1))
    assert (balance.since_at, balance.until_at) == (NOON.replace(hour=0), NOON.replace(hour=0) + DAY)
    assert balance.due == 2
    balance = ledger.balance([], NOON + 50 * DAY, NOON + 50 * DAY)
    assert (balance.due, balance.since_at, balance.until_at) == (0, NOON + 50 * DAY, NOON + 50 * DAY)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (1, "unbalanced: of 2 fires due, 1 not accounted for"),
        (-1, "unbalanced: of 0 fires due, 1 too many accounted for"),
    ],
)
def test_an_imbalance_is_told_with_its_size(number: int, words: str) -> None:
    """PROVE is worth nothing if it cannot fail: the rows first, then ERR."""
    state = State()
    state.ledger.count_due(NOON, NOON)
    state.ledger.count_end("ok", NOON, NOON)
    assert state.ledger.balance([]).trouble == ""
    state.ledger.count_due(NOON, NOON, number)
    rows = iter(views.prove(state, q.ProveLedger(None, None), START).rows)
    assert next(rows) == ("due", 1 + number)
    with pytest.raises(Refusal) as refused:
        list(rows)
    assert (refused.value.code, refused.value.message) == ("internal", words)


# --- carrying -----------------------------------------------------------------------------------


def test_a_checkpoint_does_not_count_again_what_its_ledger_holds() -> None:
    """Runs that go on come with it, and were counted as due long ago."""
    driver = Driver()
    driver.line("ADD * * * * * x")
    driver.wait(180)
    again = State()
    for fact in snapshot(driver.state):
        again.apply(fact, driver.now, 1)
    balance = again.ledger.balance(again.runs.values())
    assert (balance.due, balance.pending, balance.ends["skipped"], balance.trouble) == (3, 1, 2, "")


def test_a_failing_task_is_still_failing_after_a_checkpoint(tmp_path: Path) -> None:
    """Whoever asks in the morning asks after last night's compaction."""
    driver = Driver()
    driver.line("ADD name=a grace=30s * * * * * x")
    driver.wait(200)
    again = State()
    for fact in snapshot(driver.state):
        again.apply(fact, driver.now, 1)
    failure = again.tasks[1].failure
    assert failure
    assert failure == driver.state.tasks[1].failure
    assert (failure.state, failure.since_at) == ("missed", START + timedelta(seconds=90))


# --- STATS --------------------------------------------------------------------------------------


OUTCOME = Outcome(1, 1, 1, "a", 1, "ok", NOON, NOON + HOUR, NOON + 3 * HOUR, "w", 0)


def figures(outcomes: list[Outcome], by: str = "", going_on: frozenset[int] = frozenset()) -> Any:
    found = Stats(by, going_on, load_zone("UTC"))
    for outcome in reversed(outcomes):  # oldest first is how people write them down
        found.see(outcome)
    return [dict(zip(COLUMNS, row, strict=True)) for row in found.rows()]


@pytest.mark.parametrize(
    ("count", "percent", "expected"),
    [(1, 50, 1), (1, 95, 1), (2, 50, 1), (3, 50, 2), (20, 95, 19), (21, 95, 20), (100, 95, 95), (7, 100, 7)],
)
def test_percentiles_are_by_nearest_rank(count: int, percent: int, expected: int) -> None:
    """So each is a value that really was, and two people get the same one."""
    assert percentile(range(1, count + 1), percent) == expected


def test_attempts_of_one_run_are_one_fire() -> None:
    """The last attempt's end and duration; the first one's lateness."""
    first = evolve(OUTCOME, attempt=1, state="failed", ended_at=NOON + 2 * HOUR)
    second = evolve(OUTCOME, attempt=2, started_at=NOON + 4 * HOUR, ended_at=NOON + 7 * HOUR)
    [row] = figures([first, second])
    assert (row["fires"], row["ok"], row["failed"], row["success"]) == (1, 1, 0, 1.0)
    assert (row["duration-p50"], row["late-max"]) == (3 * 3600, 3600)


def test_a_run_that_goes_on_is_not_counted_by_its_first_attempts() -> None:
    """It has no disposition yet."""
    [row] = figures([evolve(OUTCOME, state="failed")], going_on=frozenset({1}))
    assert (row["fires"], row["success"], row["late-max"]) == (0, None, None)


def test_ranges_count_by_their_number_and_success_leaves_out_what_never_ran() -> None:
    """A week of missed minutes is 10,080 fires and says nothing about the job."""
    passed = evolve(
        OUTCOME, run=None, attempt=None, state="missed", started_at=None, worker=None, count=10_080
    )
    others = [evolve(OUTCOME, run=run, state=state) for run, state in enumerate(("failed", "cancelled"), 2)]
    [row] = figures([passed, OUTCOME, *others])
    assert (row["fires"], row["missed"], row["success"]) == (10_083, 10_080, 0.5)


def test_periods_are_those_of_the_due_moment_oldest_first() -> None:
    """What was due before midnight belongs to the old day, whenever it ran."""
    outcomes = [evolve(OUTCOME, run=run, due_at=NOON + run * 6 * HOUR) for run in range(1, 5)]
    assert [(row["period"], row["fires"]) for row in figures(outcomes, "day")] == [
        ("2030-01-01", 1),
        ("2030-01-02", 3),
    ]
    assert [row["period"] for row in figures(outcomes, "hour")] == [row.due_at for row in outcomes]
    assert figures([], "day") == []
    assert len(stats.COLUMNS) == len(set(stats.COLUMNS))


# --- check --------------------------------------------------------------------------------------


@pytest.fixture
def life(tmp_path: Path) -> Life:
    one = Life(tmp_path / "data", 2_000)
    one.join()
    one.add_task(keep="1000")
    for _ in range(10):
        one.run(1)
        one.skip(1)
    one.start(1)
    one.commit()
    return one


def test_check_tells_the_account(life: Life, capsys: pytest.CaptureFixture[str]) -> None:
    """Verified without a daemon, from the files alone."""
    life.close()
    assert check(life.data) == Exit.OK
    out = capsys.readouterr().out
    assert "ledger: balanced: 21 fires due: 10 ok, 10 skipped, 1 pending\n" in out
    assert told(restarted(life.data)[0]) == told(life.state)


FAULTS: list[tuple[f.Fact, str]] = [
    (f.RunQueued(11, 1, NOON, "manual"), "run 11 was queued twice"),
    (f.RunRetried(11, 1, NOON), "attempt 1 of run 11 was sent twice"),
    (f.RunEnded(11, 1, 1, "task_1", "ok", NOON, None, "w1", 0, None, True), "as that of another moment"),
]


@pytest.mark.parametrize(("fact", "words"), FAULTS)
def test_check_finds_what_cannot_be(
    life: Life, fact: f.Fact, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The files are whole, each fact can be applied, and still: a run cannot begin or be sent twice."""
    if isinstance(fact, f.RunRetried):
        life.say(f.RunEnded(11, 1, 1, "task_1", "failed", NOON, None, "w1", 1, None, False))
    life.say(fact)
    if isinstance(fact, f.RunRetried):
        life.say(f.RunReleased(11))
        life.say(f.RunSent(11, 1, "w1"))
    life.commit()
    life.close()
    before = {path: path.read_bytes() for path in journal_dir(life.data).iterdir()}
    assert check(life.data) == Exit.CORRUPT
    out = capsys.readouterr().out
    assert "ledger: WRONG" in out
    assert words in out
    assert "please report this" in out
    assert check(life.data, fix=True) == Exit.CORRUPT
    assert {path: path.read_bytes() for path in journal_dir(life.data).iterdir()} == before


def test_check_finds_a_run_that_ended_twice(life: Life, capsys: pytest.CaptureFixture[str]) -> None:
    """Which no start could replay either; the reason is told beside that."""
    life.journal.append([f.RunEnded(3, 1, 1, "task_1", "ok", NOON, None, "w1", 0, None, True)], life.now)
    life.commit()
    life.close()
    assert check(life.data) == Exit.CORRUPT
    out = capsys.readouterr().out
    assert "cannot be applied" in out
    assert "run 3 ended and had ended before" in out


def test_check_finds_a_ledger_that_does_not_agree_with_the_records(
    life: Life, capsys: pytest.CaptureFixture[str]
) -> None:
    """A balance can be wrong on both sides; the records are counted once more."""
    rows = life.state.ledger.carry()
    life.say(f.LedgerCarried([[*row[:2], row[2] + 1, row[3] + 1, *row[4:]] for row in rows]))
    life.commit()
    life.close()
    assert check(life.data) == Exit.CORRUPT
    out = capsys.readouterr().out
    assert f"fires due: the state says {21 + len(rows)}, the records say 21" in out
    assert f"fires ok: the state says {10 + len(rows)}, the records say 10" in out
