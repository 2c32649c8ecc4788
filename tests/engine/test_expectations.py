"""Expectations: when something that should show life is called late, and when it would be unfair to."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cronflowd.base.errors import Refusal
from cronflowd.engine import beats, expectations
from cronflowd.engine import orders as o
from cronflowd.engine.facts import ExpectationCarried
from cronflowd.engine.rules import Limits
from cronflowd.engine.state import State
from cronflowd.tasks.targets import parse_target
from tests.lib.engine_driver import START, Driver, snapshot


def a_driver(*lines: str) -> Driver:
    driver = Driver()
    driver.do(o.StartDaemon("1", "UTC"))
    for line in lines:
        driver.line(line)
    return driver


def state_of(driver: Driver, name: str = "b") -> tuple[str, datetime | None]:
    driver.pump()
    expected = driver.state.beats.expected[name]
    return expected.state, driver.state.beats.late_at(expected)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def test_it_is_late_at_its_moment_and_not_before() -> None:
    """The timer of the daemon sleeps until then, and has nothing to look at meanwhile."""
    driver = a_driver("EXPECT b every=1m grace=10s")
    assert driver.engine.next_due() == at(70)
    driver.wait(69.999)
    assert state_of(driver) == ("new", at(70))
    driver.wait(0.001)
    assert state_of(driver) == ("late", None)
    assert driver.engine.next_due() is None


def test_each_beat_puts_it_off() -> None:
    """A thousand beats leave one entry to look at, not a thousand."""
    driver = a_driver("EXPECT b every=1m grace=0")
    for _ in range(1000):
        driver.wait(59)
        driver.line("BEAT b")
    assert state_of(driver) == ("ok", driver.now + timedelta(seconds=60))
    assert len(driver.state.beats.late.heap) < 100


def test_a_start_of_the_daemon_gives_everything_its_grace() -> None:
    """Nobody knows whether a beat came while it was down; a long wait is not made longer."""
    driver = a_driver("EXPECT b every=1m grace=10s", "EXPECT far every=1d grace=10s")
    driver.now = at(3600)
    driver.restart()
    assert state_of(driver) == ("new", at(3610))
    assert state_of(driver, "far") == ("new", at(86_410))


def test_a_pause_without_end_keeps_quiet_over_a_start() -> None:
    """PAUSE all is on disk, too."""
    driver = a_driver("EXPECT b every=1m grace=10s", "PAUSE all")
    driver.wait(1000)
    driver.restart()
    driver.wait(1000)
    assert (state_of(driver), driver.engine.next_due()) == (("new", at(1010)), None)
    driver.line("RESUME all")
    assert state_of(driver) == ("new", at(2010))


def test_a_pause_with_an_end_ends_by_itself_also_over_a_start() -> None:
    """Its grace counts from the end of the pause, not from the start in the middle of it."""
    driver = a_driver("EXPECT b every=1m grace=10s", 'PAUSE all until="in 30 minutes"')
    driver.wait(1000)
    driver.restart()
    assert (state_of(driver), driver.engine.next_due()) == (("new", at(1810)), at(1810))
    driver.wait(810)
    assert state_of(driver) == ("late", None)


def test_a_set_clock_changes_no_interval() -> None:
    """60 s are 60 s; moments of a schedule are moments of the clock."""
    driver = a_driver("EXPECT b every=1m grace=10s", 'EXPECT cron every="30 12 * * *" grace=10s')
    driver.now = at(-1000)
    driver.do(o.NoticeStep(-1000.0))
    assert state_of(driver) == ("new", at(-930))
    assert state_of(driver, "cron") == ("new", at(1810))


def test_a_set_clock_reads_no_interval_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 10,000 expectations, nobody's turn comes before that is done."""
    driver = a_driver(*(f'EXPECT b{number} every="{number % 2 + 7} 12 * * *"' for number in range(20)))
    read: list[str] = []
    monkeypatch.setattr(beats, "parse_duration", read.append)
    driver.do(o.NoticeStep(-1000.0))
    assert read == []


def test_a_clock_set_forward_by_far_gives_everything_its_grace() -> None:
    """A machine that boots with a clock of 1970 would else call everything late."""
    driver = a_driver('EXPECT cron every="30 12 * * *" grace=10s')
    driver.now = at(86_400)
    driver.do(o.NoticeStep(86_400.0))
    assert state_of(driver, "cron") == ("new", at(86_410))


def test_another_zone_is_another_moment() -> None:
    """The schedule is read in the daemon's zone, whichever that is after the next start."""
    driver = a_driver('EXPECT cron every="0 3 * * *" grace=0', "EXPECT b every=1h")
    assert state_of(driver, "cron")[1] == datetime.fromisoformat("2030-01-02T03:00:00Z")
    driver.state.default_tz = "Asia/Tokyo"
    driver.do(o.StartDaemon("1", "Asia/Tokyo"))
    assert state_of(driver, "cron")[1] == datetime.fromisoformat("2030-01-01T18:00:00Z")
    assert driver.do(o.RescheduleTasks()).facts == []


@pytest.mark.parametrize(
    ("every", "grace", "beat", "due"),
    [
        ("0 3 * * *", "20m", "02T02:59:50", "03T03:20:00"),  # for the moment in ten seconds
        ("0 3 * * *", "20m", "02T02:40:00", "03T03:20:00"),
        ("0 3 * * *", "20m", "02T02:39:59", "02T03:20:00"),  # no grace reaches so far
        ("0 3 * * *", "0", "02T02:59:59", "02T03:00:00"),
        ("0 3 * * *", "20m", "02T03:00:05", "03T03:20:00"),
        ("0 3 * * *", "2d", "01T15:00:00", "05T03:00:00"),  # up to half the way from the moment before,
        ("0 3 * * *", "2d", "01T14:59:59", "04T03:00:00"),  # which is midway at 15:00
        ("* * * * *", "1h", "01T12:00:30", "01T13:02:00"),
        ("* * * * *", "1h", "01T12:00:29", "01T13:01:00"),
        ("0 9,10 * * *", "1h", "02T09:29:00", "02T11:00:00"),  # still that for 9 o'clock
        ("0 9,10 * * *", "1h", "02T09:31:00", "03T10:00:00"),
        ("every weekday at 9:00", "5m", "04T08:58:00", "07T09:05:00"),  # Friday's, and then Monday's
        ("every 15 minutes", "1m", "01T12:14:30", "01T12:31:00"),
        ("@hourly", "1h", "01T12:59:59.900", "01T15:00:00"),
    ],
)
def test_a_beat_shortly_before_its_moment_counts_for_it(every: str, grace: str, beat: str, due: str) -> None:
    """The other machine's clock is some seconds ahead, and its backup was called absent every night."""
    driver = a_driver(f'EXPECT b every="{every}" grace={grace}')
    driver.now = datetime.fromisoformat(f"2030-01-{beat}Z")
    driver.line("BEAT b 1")
    first = driver.state.beats.expected["b"].due_at
    assert first == datetime.fromisoformat(f"2030-01-{due}Z")
    # Neither other words nor other zone data make it wait for that moment again.
    driver.line("EXPECT b desc=x")
    assert driver.do(o.RescheduleTasks()).facts == []
    assert driver.replay().beats.expected["b"].due_at == first


def test_only_a_beat_is_early() -> None:
    """Who says EXPECT a moment before three means the beat of three; so does a start= there."""
    driver = a_driver('EXPECT b every="1 12 * * *" grace=5m', 'EXPECT c every="1 12 * * *" grace=5m')
    assert state_of(driver) == ("new", at(360))
    driver.line('EXPECT c start="2030-01-01T12:00:30Z"')
    driver.line("BEAT c")
    assert state_of(driver, "c") == ("ok", at(360))


def test_every_second_week_is_every_second_week_after_a_beat() -> None:
    """It was counted from the beat, so that the week after one was asked for."""
    driver = a_driver('EXPECT b every="every 2 weeks on monday at 9:00" grace=1h')
    driver.now = datetime.fromisoformat("2030-01-07T09:05:00Z")
    driver.line("BEAT b")
    assert state_of(driver) == ("ok", datetime.fromisoformat("2030-01-21T10:00:00Z"))


def test_what_was_late_stays_late_unless_it_would_not_have_been() -> None:
    """A script that says the same EXPECT every hour must not keep it quiet for ever."""
    driver = a_driver("EXPECT b every=1m grace=10s")
    driver.wait(100)
    assert driver.line("EXPECT b every=1m grace=10s").facts == []
    driver.line("EXPECT b every=90s")
    assert state_of(driver) == ("late", None)
    driver.line("EXPECT b every=5m")
    assert state_of(driver) == ("new", at(310))


def test_words_that_are_left_out_stay_and_empty_ones_are_the_default() -> None:
    """As SET does it."""
    driver = a_driver("EXPECT b every=1m grace=10s desc=x notify=none", "EXPECT b every=2m desc=")
    expected = driver.state.beats.expected["b"]
    assert (expected.every, expected.grace_s, expected.desc, expected.notify) == ("2m", 10.0, "", "none")
    driver.line("EXPECT b grace= notify=")
    assert (expected := driver.state.beats.expected["b"]).grace_s == 3600.0
    assert expected.notify == ""
    with pytest.raises(Refusal, match="every= is wanted"):
        driver.line("EXPECT b every=")


@pytest.mark.parametrize(
    ("words", "general", "is_told"),
    [
        ("", "", False),
        ("", "worker:https://example.org/", False),
        ("", "mailto:ops@example.org", True),
        ("notify=mailto:ops@example.org", "", True),
        ("notify=none", "", True),
    ],
)
def test_whoever_expects_something_learns_that_nobody_would_hear_of_it(
    words: str, general: str, is_told: bool
) -> None:
    """A dead man's switch that rings no bell is found out on the day it is needed; `none` is on purpose."""
    driver = Driver(Limits(notify=(parse_target(general),) if general else ()))
    for _ in range(2):
        reply = driver.line(f"EXPECT b every=1m {words}").reply
        assert reply is not None
        assert (expectations.NOBODY in reply.rows) is not is_told


def test_what_an_expectation_is_can_be_read_back() -> None:
    """All that EXPECT took, or it could not be made again elsewhere."""
    driver = a_driver(
        "EXPECT b every=1m notify=mailto:a@x desc=x start=2030-02-01T00:00:00Z", "EXPECT c every=1h"
    )
    rows = [
        dict(zip(expectations.COLUMNS, row, strict=True))
        for row in expectations.show(driver.state, None, START).rows
    ]
    assert [(row["notify"], row["desc"], row["start"]) for row in rows] == [
        ("mailto:a@x", "x", datetime.fromisoformat("2030-02-01T00:00:00Z")),
        (None, None, None),
    ]


def test_there_is_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script with a name that changes would fill the memory."""
    monkeypatch.setattr(expectations, "MAX_EXPECTATIONS", 2)
    driver = a_driver("EXPECT a every=1m", "EXPECT b every=1m", "EXPECT b every=2m")
    with pytest.raises(Refusal) as caught:
        driver.line("EXPECT c every=1m")
    assert caught.value.code == "limit"


@pytest.mark.parametrize(
    ("line", "is_ok", "text"),
    [
        ("BEAT b", True, ""),
        ("BEAT b ok", True, ""),
        ("beat  b\tOK  a  b ", True, "a  b"),
        ("BEAT b 0", True, ""),
        ("BEAT b 00 x", True, "x"),
        ("BEAT b 3", False, "exit 3"),
        ("BEAT b 3 disk full", False, "exit 3: disk full"),
        ("BEAT b fail ok", False, "ok"),
        ("BEAT b ok " + "x" * 1000, True, "x" * 500),
    ],
)
def test_a_beat_is_read(line: str, is_ok: bool, text: str) -> None:
    """Written by shell scripts in a hurry, at their very end."""
    driver = a_driver("EXPECT b every=1m")
    driver.line(line)
    expected = driver.state.beats.expected["b"]
    assert (expected.state == "ok", expected.text) == (is_ok, text)


@pytest.mark.parametrize("word", ["failed", "error", "-1", "1000", "okay", "$?", "''"])
def test_a_word_that_means_nothing_is_no_ok(word: str) -> None:
    """A beat that fails must never pass for one that is well."""
    driver = a_driver("EXPECT b every=1m")
    with pytest.raises(Refusal) as caught:
        driver.line(f"BEAT b {word}")
    assert caught.value.code == "syntax"


LINES = [
    "EXPECT a every=1m grace=10s", "EXPECT b every=5m grace=0", 'EXPECT a every="*/2 * * * *"', "BEAT a",
    "BEAT b fail", "FORGET a", "PAUSE all", 'PAUSE all until="in 4 minutes"', "RESUME all",
    "EXPECT a grace=1m",
]  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from([*LINES, "restart", "step"]), st.integers(0, 400)), max_size=12))
def test_whatever_happens_the_journal_tells_it_again(story: list[tuple[str, int]]) -> None:
    """And a checkpoint too; nothing that is late by now is left undecided, and none is late in a pause."""
    driver = a_driver()
    for line, seconds in story:
        if line == "restart":
            driver.restart()
        elif line == "step":
            driver.now += timedelta(seconds=seconds)
            driver.do(o.NoticeStep(float(seconds)))
        else:
            try:
                driver.line(line)
            except Refusal as refusal:
                assert refusal.code in ("not-found", "bad-option")
        driver.wait(seconds)
        state = driver.state
        late = state.beats.late.first()
        assert late is None or late[0] > driver.now or state.is_all_paused(driver.now)
        again = State("Asia/Tokyo")  # a checkpoint is made by a process that knows no zone
        for fact in snapshot(state):
            again.apply(fact, driver.now)
        for other in (again, driver.replay()):
            assert (other.beats.expected, other.beats.late.first()) == (
                state.beats.expected,
                state.beats.late.first(),
            )


def test_the_moments_of_very_many_expectations_are_found_anew_a_few_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """HUP with 10,000 of them looked for the next moment of each in one go."""
    driver = Driver()
    for number in range(3 * expectations.AT_ONCE):
        driver.line(f'EXPECT e{number} every="0 3 * * *"')
    looked: list[str] = []
    later = driver.now + timedelta(days=9)

    def found(each: ExpectationCarried, *about: object) -> datetime:
        looked.append(each.name)
        return later

    monkeypatch.setattr(expectations, "due_after", found)
    assert (driver.do(o.RescheduleTasks()).facts, looked) == ([], [])
    assert len(driver.do(o.RescheduleBeats(["e1", "e7", "gone"])).facts) == 2
    assert looked == ["e1", "e7"]
    assert [driver.state.beats.expected[name].due_at for name in looked] == [later, later]
