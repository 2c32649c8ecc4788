"""TEMPLATE: options that have a name, and ADD from=NAME, whose outcome is the task's own."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cronflowd.ask import views
from cronflowd.base.errors import Refusal
from cronflowd.engine import definitions, encoding
from cronflowd.engine.access_facts import Deed
from cronflowd.engine.rules import deed_of
from cronflowd.engine.state import State
from tests.lib.engine_driver import Driver, snapshot

NIGHTLY = "TEMPLATE ADD nightly retry=fixed:3:1m timeout=1h tags=night env.A=1"


def driver_with(*lines: str) -> Driver:
    driver = Driver()
    for line in lines:
        driver.line(line)
    return driver


def record(driver: Driver, ref: str) -> dict[str, Any]:
    task = driver.state.find(ref)
    assert task
    return task.spec.record


@pytest.mark.parametrize(
    "line",
    [
        "ADD from=nightly name=a timeout=5m env.B=2 @daily x",
        "ADD name=a timeout=5m from=nightly env.B=2 @daily x",
        'ADD {"from":"nightly","jobName":"a","timeout":"5m","env.B":"2","schedule":"@daily","command":"x"}',
        "NOW from=nightly name=a timeout=5m env.B=2 x",
        "AT 2030-02-01T00:00:00Z from=nightly name=a timeout=5m env.B=2 x",
    ],
)
def test_what_is_said_itself_wins_and_the_record_holds_the_outcome(line: str) -> None:
    """Wherever from= stands, in every way to add; the task says nothing of where it came from."""
    made = record(driver_with(NIGHTLY, line), "a")
    options = {key: made[key] for key in made if key not in ("schedule", "command", "jobName")}
    assert options == {"retry": "fixed:3:1m", "timeout": "5m", "tags": "night", "env.A": "1", "env.B": "2"}


def test_an_empty_value_has_the_task_say_nothing() -> None:
    """There is a way to leave out what the template says."""
    made = record(driver_with(NIGHTLY, "ADD from=nightly name=a retry= tags= @daily x"), "a")
    assert "retry" not in made
    assert "tags" not in made


def test_audit_tells_which_template_it_was() -> None:
    """The word behind the verb is not what was changed: all of them were called ADD."""
    driver = driver_with(NIGHTLY, "TEMPLATE REMOVE nightly")
    facts = [encoding.decode(line)[2] for line in driver.journal[-2:]]
    deeds = [deed_of(msgspec.structs.replace(fact, who="ann@here"), driver.now) for fact in facts]
    assert deeds == [Deed("ann@here", "TEMPLATE", "nightly")] * 2


def test_a_template_may_change_and_go_without_its_tasks() -> None:
    """A task is what its record says; nobody's nights change because somebody tidies up."""
    driver = driver_with(NIGHTLY, "ADD from=nightly name=a @daily x")
    before = record(driver, "a")
    driver.line("TEMPLATE ADD nightly retry=none")
    driver.line("TEMPLATE REMOVE nightly")
    assert record(driver, "a") == before
    with pytest.raises(Refusal, match='from=: no template "nightly"'):
        driver.line("ADD from=nightly @daily x")


def test_undo_takes_templates_back_and_itself_too() -> None:
    """Added, replaced, removed: each is a change like others, alone and together with changes of tasks."""
    driver = driver_with(NIGHTLY)
    first = dict(driver.state.templates)
    driver.line("TEMPLATE ADD nightly retry=none")
    second = dict(driver.state.templates)
    driver.line("TEMPLATE REMOVE nightly")
    driver.line("UNDO")
    assert driver.state.templates == second
    driver.line("UNDO")
    assert driver.state.templates == {}
    driver.line("ADD name=a @daily x")
    driver.line("UNDO 5")
    assert driver.state.templates == first
    assert driver.state.find("a") is None
    driver.line("UNDO")
    assert driver.state.templates == {}
    assert driver.state.find("a")
    driver.line("UNDO 6")
    assert driver.state.templates == second
    assert snapshot(driver.replay()) == snapshot(driver.state)


def test_an_undo_of_very_many_tasks_takes_a_template_back_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is decided for a large change is true of all that it is about, also after a kill just then."""
    monkeypatch.setattr("cronflowd.engine.undo.AT_ONCE", 2)
    driver = driver_with(NIGHTLY, *(f"ADD name=a{n} from=nightly @daily x" for n in range(3)))
    driver.line("UNDO 4")
    assert driver.state.templates == {}
    driver.restart()
    driver.pump()
    assert (len(driver.state.tasks), driver.state.templates) == (0, {})


def test_a_checkpoint_carries_templates_and_how_they_were() -> None:
    """UNDO works across a compaction too."""
    driver = driver_with(NIGHTLY, "TEMPLATE ADD nightly retry=none", "TEMPLATE REMOVE nightly", NIGHTLY)
    carried = snapshot(driver.state)
    again = State("UTC")
    for fact in carried:
        again.apply(encoding.decode(encoding.encode(1, driver.now, fact, False))[2], driver.now, 1)
    assert snapshot(again) == carried
    driver.take_over(again)
    driver.line("UNDO 2")
    assert driver.state.templates == {"nightly": {"retry": "none"}}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("TEMPLATE", "usage: TEMPLATE ADD"),
        ("TEMPLATE ADD", "usage"),
        ("TEMPLATE ADD a", "usage"),
        ("TEMPLATE LIST a", "usage"),
        ("TEMPLATE ADD a b retry=none", "one template is wanted"),
        ("TEMPLATE ADD all retry=none", "all"),
        ("TEMPLATE ADD a retry=often", "retry="),
        ("TEMPLATE ADD a name=x", "name= is said with each ADD"),
        ("TEMPLATE ADD a schedule=@daily", "schedule= is said with each ADD"),
        ("TEMPLATE ADD a from=b", "from= is said with each ADD"),
        ("TEMPLATE ADD a secret=***", "stands for a value that is not shown"),
        ("TEMPLATE REMOVE a", 'no template "a"'),
        ("ADD from= @daily x", 'no template ""'),
    ],
)
def test_a_template_that_could_make_no_task_is_refused(line: str, why: str) -> None:
    """When it is written, with the word that is wrong, and not at each ADD."""
    driver = driver_with()
    with pytest.raises(Refusal, match=why):
        driver.line(line)
    assert driver.journal == []


def test_there_is_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them stand in memory and in each checkpoint; one that is there may still be replaced."""
    monkeypatch.setattr(definitions, "MAX_TEMPLATES", 1)
    driver = driver_with(NIGHTLY, NIGHTLY)
    with pytest.raises(Refusal, match="which is the limit"):
        driver.line("TEMPLATE ADD other retry=none")


def test_the_same_again_is_no_change() -> None:
    """A script that sets up its templates may run twice, and UNDO takes back what somebody did."""
    driver = driver_with(NIGHTLY)
    before = len(driver.journal)
    reply = driver.line(NIGHTLY).reply
    assert reply
    assert (reply.text, len(driver.journal)) == ("nightly unchanged", before)


def test_secrets_of_a_template_are_not_shown() -> None:
    """Neither in the list nor in HISTORY; the task has them all the same."""
    driver = driver_with(
        "TEMPLATE ADD hook type=webhook secret=abc", "ADD from=hook name=a @daily http://x.org/"
    )
    assert list(views.list_templates(driver.state).rows) == [("hook", "type=webhook secret=***")]
    assert driver.state.changes.changes[0].what == ("TEMPLATE ADD hook type=webhook secret=***")
    assert record(driver, "a")["secret"] == "abc"
