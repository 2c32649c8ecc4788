"""Reasons: codes in the journal, words for people, and nothing that reads the words back."""

from __future__ import annotations

import ast
from datetime import timedelta
from pathlib import Path

import orjson
import pytest

from cronflowd import engine
from cronflowd.ask import why
from cronflowd.engine import encoding
from cronflowd.engine import facts as f
from cronflowd.engine.state import State
from cronflowd.tasks.reasons import (
    MAX_TEXT,
    Reason,
    code_of,
    in_words,
    passed_on,
    reason,
    runs_in,
    shortened,
    worded,
)

from ..lib.engine_driver import START, Driver, snapshot

BROKEN = reason("ended", run=41, state="failed")


@pytest.mark.parametrize(
    ("why", "words"),
    [
        (reason("paused"), "paused"),
        (reason("paused", text="moving {house}"), "paused: moving {house}"),
        (reason("late", late_s=7200, catchup="once"), "2h late, more than catchup=once and its grace allow"),
        (reason("overlap", run=1, state="sent"), "overlap: run 1 is still sent"),
        (reason("overlap-full", waiting=1, run=3), "overlap: 1 run waits already behind run 3"),
        (reason("overlap-full", waiting=2, run=3), "overlap: 2 runs wait already behind run 3"),
        (reason("clock-set", by_s=18_000), "the clock was set forward by 5h"),
        (reason("timeout", limit_s=90.0), "its timeout of 1m30s is over"),
        (reason("dependency", name="a", heard=BROKEN), "dependency a: run 41 failed"),
        ("a sentence of long ago", "a sentence of long ago"),
        ({"code": "eclipse", "moon": "full\n"}, "eclipse moon=full\\n"),
        ({"code": "overlap", "run": 1}, "overlap run=1"),
        ("", ""),
        (None, ""),
    ],
)
def test_a_reason_is_worded_in_one_place(why: Reason | None, words: str) -> None:
    """Also one whose code a later release brought, or with a field missing: never an exception."""
    assert in_words(why) == words


def test_a_sentence_of_an_old_journal_has_the_code_text() -> None:
    """What was a sentence stays one; nobody guesses what it meant."""
    assert [code_of(why) for why in ("dependency a: run 3 failed", reason("paused"), "", None)] == [
        "text", "paused", "", "",
    ]  # fmt: skip
    assert list(runs_in("overlap: run 41 is still sent")) == []


def test_a_long_chain_of_dependencies_passes_on_where_it_broke_first() -> None:
    """Or the reason would grow with every link, until no line held it."""
    heard: Reason = BROKEN
    for name in "abcdefgh":
        heard = passed_on("skipped", reason("dependency", name=name, heard=heard))
    assert in_words(heard) == "skipped, since a: run 41 failed"
    assert list(runs_in(heard)) == [41]
    assert len(orjson.dumps(heard)) < 200


def test_a_reason_that_is_passed_on_is_short_however_long_its_text() -> None:
    """It is kept beside each task that waits, and stands in its checkpoint."""
    long = passed_on("skipped", reason("paused", text="x" * 9000), 7)
    assert in_words(long) == f"run 7 skipped (paused: {'x' * MAX_TEXT})"
    assert in_words(shortened("y" * 9000)) == "y" * MAX_TEXT


def test_facts_carry_a_reason_through_json_and_checkpoints() -> None:
    """Codes are worth something only if they are what stands on the disk."""
    driver = Driver()
    driver.line("ADD name=a * * * * * x")
    driver.line("ADD name=b after=a @after y")
    driver.line("ADD name=c after=b @after z")
    driver.line('PAUSE a why="no power"')
    driver.wait(60)
    assert b'"why":{"code":"paused","text":"no power"}' in b"".join(driver.journal)
    heard = driver.state.tasks[3].heard
    assert not heard  # used up: its own fire was skipped for it
    found = [(row.name, in_words(row.why)) for row in driver.state.recent]
    assert found == [
        ("a", "paused: no power"),
        ("b", "dependency a: skipped (paused: no power)"),
        ("c", "dependency b: skipped, since a: skipped (paused: no power)"),
    ]
    assert snapshot(driver.replay()) == snapshot(driver.state)


def test_a_journal_with_sentences_is_read_as_ever() -> None:
    """An upgrade must not lose what a task has heard, nor why it failed."""
    driver = Driver()
    driver.line("ADD name=a * * * * * x")
    driver.line("ADD name=b after=a 0 0 * * * y")
    old = f.FiresPassed(
        1, "a", "missed", START, START, 1, "dependency z: run 3 failed", START + timedelta(minutes=1)
    )
    line = encoding.encode(99, START, old, False)
    assert b'"why":"dependency z: run 3 failed"' in line
    driver.journal.append(line)
    state = driver.replay()
    assert in_words(state.tasks[2].heard["a"]) == "missed (dependency z: run 3 failed)"
    assert state.tasks[1].failure is not None
    assert state.tasks[1].failure.why == "dependency z: run 3 failed"
    carried, again = list(state.carry()), State("UTC")
    for fact in carried:
        again.apply(fact, START)
    assert list(again.carry()) == carried


def test_why_follows_the_runs_that_a_reason_names() -> None:
    """The field says which; a number in somebody's text does not."""
    driver = Driver()
    driver.line("ADD name=a @daily x")
    driver.line("ADD name=b * * * * * y")
    driver.line('PAUSE b why="until run 1 is understood"')
    driver.line("RUN a")
    driver.wait(60)
    driver.line("RESUME b")
    driver.wait(120)
    blamed = {in_words(row.why): why.blamed_runs([row]) for row in driver.state.recent}
    assert blamed == {"paused: until run 1 is understood": [], "overlap: run 2 is still queued": [2]}


def test_no_decision_and_no_replay_looks_for_words_with_a_pattern() -> None:
    """The engine has no regular expressions, but for durations and the JSON form of facts."""
    for path in sorted(Path(engine.__file__).parent.glob("*.py")):
        imported = {
            name.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import)
            for name in node.names
        }
        assert "re" not in imported or path.name in ("beats.py", "encoding.py"), path


def test_remarks_of_a_log_are_codes_whose_words_may_become_better() -> None:
    """WHY and replay must not depend on English; what an old journal says in English stays as it is."""
    assert worded((0, reason("unsent", attempt=2, worker="w"))) == (
        0,
        "attempt 2 never reached worker w; it is queued again",
    )
    follows = reason("follows", attempt=1, state="failed", exit=7, at="2030-01-01T12:00:00Z")
    words = "attempt 1 ended: failed, exit 7; attempt 2 follows at 2030-01-01T12:00:00Z"
    assert worded((0, follows)) == (0, words)
    del follows["exit"]
    assert in_words(follows) == words.replace(", exit 7", "")
    assert worded((0, "a sentence")) == (0, "a sentence")
    assert worded((1, "{}", True)) == (1, "{}", True)
