"""What is told to whom: notify=, its limit, and that it never gets in anybody's way."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cronflowd.base.text import format_option, split_command, split_options
from cronflowd.engine import facts as f
from cronflowd.engine import notices
from cronflowd.engine import orders as o
from cronflowd.engine.state import State
from cronflowd.tasks.targets import EVENTS, parse_target
from tests.lib.engine_driver import START, Driver, snapshot
from tests.lib.notice_driver import MAIL, a_driver, end, join, run

HOOK = (parse_target("https://example.org/hook"),)


def payload(line: str) -> dict[str, Any]:
    head, _ = split_command(line.split(" ", 3)[3])
    found: dict[str, Any] = orjson.loads(split_options(head)[0]["payload"])
    return found


def said(driver: Driver) -> list[str]:
    """The subjects of all mails there ever were, oldest first."""
    found = []
    for line in driver.journal:
        record = orjson.loads(line)
        if record["fact"] == "TaskAdded" and record.get("notice"):
            found.append(
                orjson.loads(record["record"]["payload"]).get("subject", "").removeprefix("[cronflowd] ")
            )
    return found


def test_a_failure_and_what_is_told_of_it_are_one_decision() -> None:
    """Or power could fail between the two, and nobody would ever hear of it."""
    driver = a_driver()
    driver.line(f"ADD name=backup {MAIL} @daily x")
    driver.line("RUN backup")
    driver.pump()
    facts = driver.do(o.ReportEnded("w1", 1, 1, 3, {})).facts
    kinds = [type(fact).__name__ for fact in facts]
    assert kinds == ["RunEnded", "TaskAdded", "RunQueued", "NoticeGiven"]
    assert all(fact.is_urgent() for fact in facts), "a full disk must not stand in the way of the end"


def test_a_mail_says_all_that_is_known_and_the_last_lines() -> None:
    """Whoever reads it at night should not need another program first."""
    driver = a_driver()
    driver.line(f"ADD name=backup {MAIL} @daily x")
    lines = [f"line {n}" for n in range(30)] + ["a\tb \x1b[31mred\x07 \u20ac"]
    (line,) = run(driver, "backup", 3, *lines)
    told = payload(line)
    text = told["text"].split("\n")
    assert told["subject"] == "[cronflowd] backup failed (exit 3)"
    assert text[text.index("Its last lines:") + 1 :] == [
        *(f"line {n}" for n in range(11, 30)),
        "a\tb \\x1b[31mred\\x07 \u20ac",
        "",
    ]
    rows = dict(row.split(None, 1) for row in text[2 : text.index("Its last lines:") - 1])
    assert rows == {
        "event": "failure", "task": "1", "jobName": "backup", "state": "failed", "run": "1", "attempt": "1",
        "due": "2030-01-01T12:00:00Z", "started": "2030-01-01T12:00:00Z", "ended": "2030-01-01T12:00:00Z",
        "exit": "3", "worker": "w1", "host": "box",
    }  # fmt: skip


def test_what_a_run_wrote_is_told_up_to_4_kib() -> None:
    """A job that writes one endless line must not make an endless mail."""
    driver = a_driver()
    driver.line("ADD name=a notify=https://example.org/ @daily x")
    (line,) = run(driver, "a", 1, "first", "x" * 100_000)
    assert payload(line)["output"] == "x" * notices.MAX_OUTPUT_CHARS


def test_one_in_an_hour_and_the_others_are_counted() -> None:
    """A job that fails every minute is one piece of news."""
    driver = a_driver()
    driver.line(f"ADD name=a {MAIL} @daily x")
    for _ in range(60):
        run(driver, "a", 1)
        if driver.state.notices:
            end(driver, 2)
        driver.wait(60.0)
    assert said(driver) == ["a failed (exit 1)"]
    (line,) = run(driver, "a", 1)
    assert "withheld     59 more of these" in payload(line)["text"]
    assert driver.state.told["task:1", "failure"].withheld == 0


def test_the_hour_of_a_limit_begins_with_what_was_told_in_it() -> None:
    """It began with what was told before the opposite: one failure was told twice in half an hour."""
    driver = a_driver()
    driver.line(f"ADD name=a {MAIL} @daily x")
    told_at = []
    for minute, code in ((0, 1), (30, 0), (40, 1), (70, 1), (99, 1), (100, 1)):
        driver.now = START + timedelta(minutes=minute)
        before = len(said(driver))
        run(driver, "a", code)
        told_at += [minute] * ("a failed (exit 1)" in said(driver)[before:])
    assert told_at == [0, 40, 100]


def test_the_limit_is_for_each_task_and_event() -> None:
    """One noisy job must not hide that another one failed, nor that it is well again itself."""
    driver = a_driver()
    driver.line(f"ADD name=a {MAIL} @daily x")
    driver.line(f"ADD name=b {MAIL} @daily x")
    for task, code in (("a", 1), ("a", 1), ("b", 1), ("a", 0), ("b", 0), ("a", 1)):
        run(driver, task, code)
    assert said(driver) == [
        "a failed (exit 1)",
        "b failed (exit 1)",
        "a is well again",
        "a succeeded for the first time",
        "b is well again",
        "b succeeded for the first time",
        "a failed (exit 1)",
    ]


def test_what_was_told_last_is_never_the_opposite_of_what_is_so() -> None:
    """Or "is well again" would be the last word on a job that fails, or is silent, for ever."""
    driver = a_driver()
    driver.line("ADD name=a notify=mailto:ops@example.org @daily x")
    for code in (1, 1, 0, 0, 1, 1, 0, 1):
        run(driver, "a", code)
    driver.line("EXPECT b every=3s grace=1s notify=mailto:ops@example.org")
    for _ in range(2):
        driver.wait(10.0)
        driver.line("BEAT b ok")
    driver.wait(10.0)
    assert said(driver) == [
        *["a failed (exit 1)", "a is well again"] * 2, "a failed (exit 1)",
        *["b is silent", "b is well again"] * 2, "b is silent",
    ]  # fmt: skip


def test_everybody_is_told_the_truth_last_whatever_others_hear_of() -> None:
    """That another one heard of a failure meanwhile helps nobody who hears of silence only."""
    driver = a_driver()
    driver.line("EXPECT b every=3s grace=1s notify=absent+recovery:mailto:a@x,failure:mailto:b@x")
    driver.wait(10.0)
    for word in ("ok", "fail"):
        driver.line(f"BEAT b {word}")
    driver.wait(10.0)
    assert said(driver) == ["b is silent", "b is well again", "b says that it failed", "b is silent"]


HEARS = st.sets(st.sampled_from(["failure", "recovery", "absent"]), min_size=1)
STORY = st.lists(
    st.tuples(st.sampled_from(["ok", "fail", ""]), st.sampled_from([0.5, 5.0, 2000.0])), max_size=12
)


@given(HEARS, HEARS, STORY)
def test_nobody_is_ever_left_with_the_opposite(
    a: set[str], b: set[str], story: list[tuple[str, float]]
) -> None:
    """Whoever wants to hear of how it is, and was told last that it is otherwise, is told."""
    driver = a_driver()
    driver.line(
        f"EXPECT x every=3s grace=1s notify={'+'.join(sorted(a))}:mailto:a@x,{'+'.join(sorted(b))}:mailto:b@x"
    )
    for word, seconds in story:
        if word:
            driver.line(f"BEAT x {word}")
        driver.wait(seconds)
        event = {"ok": "recovery", "failed": "failure", "late": "absent"}.get(
            driver.state.beats.expected["x"].state
        )
        for name, hears in (("a@x", a), ("b@x", b)):
            if event in hears and (told := last_told(driver, name)):
                assert (told == "x is well again") == (event == "recovery")


def last_told(driver: Driver, name: str) -> str:
    """The subject of the last mail to somebody."""
    for line in reversed(driver.journal):
        record = orjson.loads(line)
        if record["fact"] == "TaskAdded" and record["record"]["command"] == name:
            subject: str = orjson.loads(record["record"]["payload"])["subject"]
            return subject.removeprefix("[cronflowd] ")
    return ""


def test_a_recovery_is_owed_though_a_flood_withheld_the_last_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Days ago somebody was told that it fails, and he is still of that opinion."""
    driver = a_driver()
    driver.line("ADD name=a notify=mailto:ops@example.org @reboot x")
    run(driver, "a", 1)
    driver.wait(7200.0)
    monkeypatch.setattr(notices, "MAX_UNDER_WAY", 0)
    run(driver, "a", 1)
    monkeypatch.undo()
    run(driver, "a", 0)
    assert said(driver) == ["a failed (exit 1)", "a is well again"]


def test_only_what_was_given_turns_what_says_the_opposite() -> None:
    """Two ends in one decision: of the second, which was withheld, nobody has heard."""
    driver = a_driver()
    driver.line(f"ADD name=a overlap=allow {MAIL} @daily x")
    driver.line("RUN a")
    driver.line("RUN a")
    driver.pump()
    state, now = driver.state, driver.now
    ends = [driver.engine.decide(o.ReportEnded("w1", run, 1, 1, {}), now).facts[0] for run in (1, 2)]
    told = notices.tell(state, driver.limits, ends, now)
    given = [fact for fact in told if isinstance(fact, f.NoticeGiven)]
    assert given == [
        f.NoticeGiven("task:1", "failure", now, 1, 0, True),
        f.NoticeGiven("task:1", "failure", now, 1, 1),
    ]


def test_a_change_of_state_tells_what_was_withheld_before() -> None:
    """The count is of the same event, and told with it."""
    driver = a_driver()
    driver.line("ADD name=a notify=mailto:ops@example.org @daily x")
    for code in (1, 1, 1, 0):
        run(driver, "a", code)
    (line,) = run(driver, "a", 1)
    assert "withheld     2 more of these" in payload(line)["text"]


def test_whoever_hears_of_failures_only_hears_of_one_an_hour() -> None:
    """He was told that it fails, and of nothing else since."""
    driver = a_driver()
    driver.line("ADD name=a notify=failure:mailto:ops@example.org @daily x")
    for code in (1, 0, 1, 0, 1):
        run(driver, "a", code)
    assert said(driver) == ["a failed (exit 1)"]


def test_nobody_hears_that_it_is_well_again_who_did_not_hear_that_it_was_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While too many notifications wait, failures are withheld; their ends alone are no news."""
    driver = a_driver()
    driver.line("ADD name=a notify=mailto:ops@example.org @daily x")
    monkeypatch.setattr(notices, "MAX_UNDER_WAY", 0)
    run(driver, "a", 1)
    monkeypatch.undo()
    run(driver, "a", 0)
    run(driver, "a", 1)
    run(driver, "a", 0)
    assert said(driver) == ["a failed (exit 1)", "a is well again"]


def test_undo_brings_no_notification_back() -> None:
    """It would come back as somebody's task, and tell of an old failure as if it were new."""
    driver = a_driver(HOOK)
    driver.line("ADD name=a @daily x")
    run(driver, "a", 1)
    driver.line("REMOVE notify_2")
    assert driver.state.names.keys() == {"a"}
    # Its moment would be one to come again.
    driver.now -= timedelta(hours=1)
    driver.do(o.NoticeStep(-3600.0))
    reply = driver.line("UNDO").reply
    assert reply is not None
    assert [what for _, what in reply.rows] == ["ADD a"]
    assert not driver.state.names


def test_a_clock_set_back_does_not_make_it_silent_for_years() -> None:
    """What was told in a year to come is no reason to say nothing today."""
    driver = a_driver()
    driver.line(f"ADD name=a {MAIL} @reboot x")
    driver.now += timedelta(days=3650)
    run(driver, "a", 1)
    driver.do(o.NoticeStep(-3650 * 86_400.0))
    driver.now = START
    run(driver, "a", 1)
    assert said(driver) == ["a failed (exit 1)"] * 2


def test_nobody_is_told_of_a_notification() -> None:
    """A mail server that is down would otherwise be a loop without end."""
    driver = a_driver(HOOK)
    driver.line("ADD name=a @daily x")
    run(driver, "a", 1)
    for delay_s in (10, 20, 40, 80, 160, 600):
        end(driver, 2, 75)
        driver.wait(delay_s)
    assert [(row.run, row.state) for row in driver.state.recent] == [(1, "failed")] + [(2, "failed")] * 6
    assert not driver.state.runs
    assert not driver.state.notices
    assert driver.state.next_run == 3


def test_a_flood_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand failing tasks, and no mail server: each keeps its count, and memory its bound."""
    monkeypatch.setattr(notices, "MAX_UNDER_WAY", 2)
    driver = a_driver(HOOK)
    for n in range(5):
        driver.line(f"ADD name=t{n} @daily x")
        run(driver, f"t{n}", 1)
    assert len(driver.state.notices) == 2
    assert sorted(told.withheld for told in driver.state.told.values()) == [0, 0, 1, 1, 1]


def test_a_name_that_is_taken_is_no_obstacle() -> None:
    """Whoever calls his own task notify_3 must still be told."""
    driver = a_driver()
    driver.line(f"ADD name=notify_3 {MAIL} @daily x")
    driver.line("EXPECT notify_2 every=1d")
    run(driver, "notify_3", 1)
    assert driver.state.find("task_2") is not None
    run(driver, "notify_3", 0)
    assert driver.state.names.keys() == {"notify_3", "task_2", "task_3", "notify_4"}


def test_a_task_that_is_gone_when_it_fails_is_still_told_of() -> None:
    """REMOVE lets a run go on; how it ends is of interest all the same."""
    driver = a_driver()
    driver.line(f"ADD name=a {MAIL} @daily x")
    driver.line("RUN a")
    driver.pump()
    driver.line("REMOVE a")
    assert len(end(driver, 1, 1)) == 1
    driver.line(f"NOW name=once {MAIL} x")
    driver.pump()
    assert len(end(driver, 3, 1)) == 1
    assert said(driver) == ["a failed (exit 1)", "once failed (exit 1)"]


def test_several_targets_and_their_events() -> None:
    """Everybody hears of what he wants to hear of."""
    driver = a_driver()
    driver.line(
        "ADD name=a notify=mailto:a@x,recovery:mailto:b@x,first+failure:slack+http://127.0.0.1/ @daily x"
    )
    sent = [run(driver, "a", code) for code in (1, 0)]
    assert [[line.rpartition(" :")[2] for line in lines] for lines in sent] == [
        ["a@x", "POST http://127.0.0.1/"],
        ["a@x", "b@x", "POST http://127.0.0.1/"],
    ]


def test_slack_is_told_in_its_own_form() -> None:
    """What is meant literally must not become a mention, a link, or the end of the block."""
    driver = a_driver()
    driver.line("ADD name=a notify=slack+https://hooks.slack.example/x @daily x")
    (line,) = run(driver, "a", 1, "<!channel> & ``` done")
    assert set(payload(line)) == {"text"}
    text = payload(line)["text"]
    assert text.startswith("*[cronflowd] a failed (exit 1)*\n```event")
    assert text.endswith("\n```&lt;!channel&gt; &amp; ''' done```")


def test_the_own_setting_goes_before_the_general_one() -> None:
    """`none` is a setting, too."""
    driver = a_driver(HOOK)
    for name, notify in (("any", ""), ("own", "notify=mailto:a@x"), ("quiet", "notify=none")):
        driver.line(f"ADD name={name} {notify} @daily x")
    ends = {
        name: [line.rpartition(" :")[2] for line in run(driver, name, 1)] for name in ("any", "own", "quiet")
    }
    assert ends == {"any": ["https://example.org/hook"], "own": ["a@x"], "quiet": []}


def test_pauses_keep_nothing_back_that_is_to_be_told() -> None:
    """PAUSE all is when things go wrong."""
    driver = a_driver(HOOK)
    driver.line("ADD name=a @daily x")
    driver.line("RUN a")
    driver.pump()
    driver.line("PAUSE all")
    assert len(end(driver, 1, 1)) == 1


def test_everything_is_there_after_a_crash() -> None:
    """The limit, the count of what was withheld, and what the next success recovers from."""
    driver = a_driver(HOOK)
    driver.line(f"ADD name=a {MAIL} @daily x")
    driver.line("EXPECT b every=1m grace=10s notify=mailto:ops@example.org desc=x")
    driver.line("BEAT b fail oh")
    for code in (1, 1, 1):
        run(driver, "a", code)
    driver.wait(80.0)
    before = snapshot(driver.state)
    assert snapshot(driver.replay()) == before
    again = State("UTC")
    for fact in before:
        again.apply(fact, driver.now)
    assert snapshot(again) == before
    assert (again.told, again.notices) == (driver.state.told, driver.state.notices)
    assert (again.beats.expected, again.beats.late.first()) == (
        driver.state.beats.expected,
        driver.state.beats.late.first(),
    )
    assert len(again.told) == 3
    driver.restart()
    join(driver, "w1")
    driver.pump()
    run(driver, "a", 0)
    assert said(driver)[-2:] == ["a is well again", "a succeeded for the first time"]


def test_removed_tasks_leave_no_memory_behind() -> None:
    """A task a minute for years, each of which failed once."""
    driver = a_driver(HOOK)
    for _ in range(3):
        number = driver.state.next_run
        driver.line("NOW x")
        driver.pump()
        end(driver, number, 1)
        end(driver, number + 1)
    assert [key[0] for key in driver.state.told] == []
    driver.line("ADD name=a @daily x")
    run(driver, "a", 1)
    assert len(driver.state.told) == 1
    driver.line("REMOVE a")
    assert driver.state.told == {}


def test_load_and_save_are_about_the_tasks_of_people() -> None:
    """LOAD would otherwise take a mail back that is on its way."""
    driver = a_driver(HOOK)
    driver.line("ADD name=a @daily x")
    run(driver, "a", 1)
    assert [task.name for task in driver.state.own_tasks()] == ["a"]
    driver.do(o.LoadTasks([]))
    assert driver.state.names.keys() == {"notify_2"}
    assert driver.state.count_own() == 0


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=200), max_size=5),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=600),
    st.sampled_from(["mailto:a@x", "https://x.org/", "slack+https://x.org/"]),
)
def test_whatever_a_job_writes_can_be_told(lines: list[str], why: str, target: str) -> None:
    """An end that could not be told would be no end: the run would stay for ever, as would all behind it."""
    driver = a_driver((parse_target(f"{'+'.join(EVENTS)}:{target}"),))
    driver.line("ADD name=a @daily x")
    driver.line("EXPECT b every=1m")
    driver.line("RUN a")
    driver.pump()
    driver.do(o.ReportOutput("w1", 1, [[1, line] for line in lines]))
    driver.do(o.ReportEnded("w1", 1, 1, 1, {"why": why}))
    driver.do(o.ReceiveBeat("b", False, why))
    found = [driver.state.tasks[task] for task in driver.state.notices]
    assert len(found) == 2
    for task in found:
        assert task.spec.unread is None
        assert len(orjson.dumps(task.spec.record)) < 40_000
        assert split_options(format_option("payload", task.spec.options.payload))


def test_what_is_hardest_to_write_down_is_bounded() -> None:
    """Every character of it is escaped twice on its way to the worker."""
    driver = a_driver(HOOK)
    driver.line("ADD name=a @daily x")
    (line,) = run(driver, "a", 1, *(['\\"' * 5000] * 30))
    assert len(line) < 20_000
    assert payload(line)["output"].endswith('\\"')


@pytest.mark.parametrize(
    ("events", "ends", "told"),
    [
        ("success", [0, 0, 3, 0], ["success", "success", "success"]),
        ("done", [0, 3, 0], ["done", "done", "done"]),
        ("done+failure", [0, 3, 3, 0], ["done", "failure", "failure", "done"]),
        ("done+recovery+success", [0, 3, 0], ["success", "done", "recovery"]),
        ("success+first", [0, 0], ["first", "success"]),
        ("failure", [0, 3], ["failure"]),
    ],
)
def test_each_end_is_told_to_whoever_asks_for_it_and_once(
    events: str, ends: list[int], told: list[str]
) -> None:
    """Two mails about one end make people switch off both."""
    driver = a_driver(limit=(100, 3600.0))
    driver.line(f"ADD name=a notify={events}:https://example.org/a 0 0 1 1 * a")
    lines = [line for exit_code in ends for line in run(driver, "a", exit_code)]
    assert [payload(line)["event"] for line in lines] == told


def test_a_run_that_was_cancelled_is_done_too_and_each_target_hears_what_it_asked_for() -> None:
    """Whoever waits for the end waits for every one."""
    driver = a_driver()
    targets = "done:https://example.org/d,success+failure:https://example.org/s"
    driver.line(f"ADD name=a notify={targets} 0 0 1 1 * a")
    driver.line("RUN a")
    driver.pump()
    driver.line("CANCEL 1")
    assert [payload(line)["headline"] for line in end(driver, 1, 143)] == ["a was cancelled"]


def test_every_event_has_its_words() -> None:
    """An event without a headline would be found by the first one to whom it happens."""
    driver = a_driver((parse_target(f"{'+'.join(EVENTS)}:mailto:a@x"),), (100, 3600.0))
    driver.line("ADD name=a * * * * * x")
    driver.line("ADD name=slow @yearly x")
    driver.line("EXPECT b every=1m grace=0")
    run(driver, "a", 1)
    run(driver, "a", 0)
    driver.line("BEAT b")
    driver.line("BEAT b fail")
    driver.line("BEAT b ok")
    driver.pump()
    driver.now += timedelta(hours=3)
    driver.pump()
    driver.line("RUN slow")
    driver.pump()
    driver.do(o.DropWorker("w1", "cut"))
    driver.wait(31.0)
    assert set(said(driver)) == {
        "a failed (exit 1)", "a is well again", "a succeeded for the first time", "a was missed 179 times",
        "a is lost with worker w1", "b was heard for the first time", "b says that it failed",
        "b is well again", "b is silent", "slow is lost with worker w1", "worker w1 is lost",
    }  # fmt: skip


def test_a_decision_that_concerns_nobody_costs_nothing() -> None:
    """Most facts, of most tasks, are of no interest to anybody."""
    driver = a_driver()
    driver.line("ADD name=a @daily x")
    assert run(driver, "a", 1) == []
    assert driver.state.told == {}
    assert not any(isinstance(fact, f.NoticeGiven) for fact in snapshot(driver.state))
