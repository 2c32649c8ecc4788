"""One row a verb says all about it: who answers it, and who may say it."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any, cast

import pytest

from cronflowd.ask.commands import VERBS, find_verb, only_reads, parse
from cronflowd.base.errors import Refusal
from cronflowd.base.replies import format_status
from cronflowd.daemon.answers import Answers
from cronflowd.daemon.core import Core
from cronflowd.engine.rules import Limits
from cronflowd.engine.state import State
from tests.lib.engine_driver import Driver
from tests.lib.harness import START, HandClock
from tests.lib.lines import CONTEXT
from tests.lib.memory_journal import MemoryJournal

ANSWERS = Answers(
    Core(State("UTC"), MemoryJournal(), cast(Any, HandClock(START)), Limits()), Path("/dev/null/nowhere")
)


@pytest.mark.parametrize("verb", [verb for verb in VERBS if VERBS[verb].answer])
def test_the_row_of_a_question_names_who_answers_it(verb: str) -> None:
    """A name that nothing bears would be found by the first client who asks."""
    answer = VERBS[verb].answer
    if isinstance(answer, str):
        assert list(inspect.signature(getattr(ANSWERS, f"_{answer}")).parameters) == ["question", "session"]
    else:
        assert len(inspect.signature(answer).parameters) == 3


def test_no_answer_is_without_a_verb() -> None:
    """What no row names can never be asked."""
    named = {f"_{verb.answer}" for verb in VERBS.values()}
    asked = {
        name
        for name, method in inspect.getmembers(ANSWERS, inspect.ismethod)
        if list(inspect.signature(method).parameters) == ["question", "session"]
    }
    assert asked - named == {"_look"}  # for those that name what looks


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ("ADD name=t * * * * * x", "name"), ("ADD name=all * * * * * x", "name"),
        ("SET t name=task_9", "name"), ("LIST name=a@b", "name"), ("LIST tag=a@b", "tag"),
        ("ADD tomorrow x", "schedule"), ("ADD 61 * * * * x", "schedule"), ("SET t schedule=@no", "schedule"),
        ("ADD spread=1m @reboot x", "spread"), ("ADD @after x", "after"),
        ("ADD foo=1 * * * * * x", "foo"), ("LIST foo=1", "foo"), ("SET t id=1", "id"),
    ],
)  # fmt: skip
def test_a_refusal_says_to_programs_which_option_was_wrong(line: str, option: str) -> None:
    """The schedule as well; and a name that is taken, or can be none, is wrong in name=, not in tag=."""
    driver = Driver()
    driver.line("ADD name=t * * * * * x")
    with pytest.raises(Refusal) as found:
        driver.line(line)
    assert found.value.option == option


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ADD foo=1", 'bad-option there is no option "foo"'),
        ("ADD tz=UTC", "syntax no schedule; usage: ADD"),
        ("ADD payload={x} @daily a", 'bad-option payload= is not a JSON object: Expecting property name'),
        ("ADD payload={x} @daily a", 'at "x} @daily a"; write payload={"key": "value"}'),
        ("ADD payload={} payload={1:2} @daily a", 'at "1:2} @daily a"; write payload={"key": "value"}'),
        ("LIST name=[a", 'bad-option name=: "[a" has a [ without its ], as in web[12]'),
        ("LIST name=a[!]", 'bad-option name=: "a[!]" has a [ without its ]'),
        ("LIST name=[a]*[]", 'bad-option name=: "[a]*[]" has a [ without its ]'),
        ("TOKEN ADD worker=web1,web2", 'bad-option worker=: no name has a ","'),
        ("TOKEN ADD worker=web[12", 'bad-option worker=: "web[12" has a [ without its ]'),
    ],
)  # fmt: skip
def test_a_refusal_names_what_was_wrong_and_how_to_say_it(line: str, message: str) -> None:
    """A decoder's column, or an unnamed time, leaves the reader to search; half a pattern finds nothing."""
    with pytest.raises(Refusal) as refused:
        parse(line, CONTEXT)
    assert message in str(refused.value)


@pytest.mark.parametrize("pattern", ["[ab]*", "[]x]", "[!]x]", "a]b", "[[]", "*", "?[0-9][!a-c]"])
def test_a_pattern_that_is_whole_is_taken(pattern: str) -> None:
    """A ] ends nothing right behind [ or [!, as in the shell."""
    assert parse(f"LIST name={pattern}", CONTEXT).which.name == pattern


def test_before_authentication_only_what_tells_nothing_may_be_said() -> None:
    """A column that is set by mistake opens the daemon to strangers."""
    assert {name for name, verb in VERBS.items() if verb.anybody} == {
        "AUTH", "HELLO", "HELP", "PING", "QUIT", "FORMAT",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ("ADD type=http @daily CONNECT a:1", "command"),
        ("ADD type=http @daily GET a", "command"),
        ("ADD type=email payload={} @daily a@b.org,c", "command"),
        ("ADD type=calculate @daily 1+", "command"),
        ("ADD @daily", "command"),
        ("ADD name=7 @daily x", "name"),
        ("ADD foo=1 @daily x", "foo"),
        ("ADD env.A='a' @daily x", "env.A"),
        ('ADD desc="a @daily x', "desc"),
        ("ADD spread=5m @reboot x", "spread"),
        ("ADD from=none @daily x", "from"),
        ('NOW {"schedule": "@daily", "command": "x"}', "schedule"),
        ("LIST tag=a,b", "tag"),
        ("LIST name=a=b", "name"),
        ("LIST colour=red", "colour"),
        ("RUNS worker=a/b", "worker"),
        ("RUNS worker=all", "worker"),
        ("RUN a K=V", "K"),
        (f"ONCE {'x' * 200} CLEAR", "KEY"),
    ],
)
def test_a_refusal_is_about_what_was_wrong(line: str, option: str) -> None:
    """Programs mark the field by it."""
    with pytest.raises(Refusal) as refused:
        parse(line, CONTEXT)
    assert refused.value.option == option


def test_an_order_that_the_engine_decides_never_counts_unfinished() -> None:
    """Cut short, it would change something else than was meant."""
    assert [name for name, verb in VERBS.items() if not (verb.answer or verb.always) and verb.reads] == []


ANY_KEY = re.compile(r"key=|NAME=|\|LIST")  # not one set of options alone
TAKES_SOME = {
    verb: keys
    for verb, row in VERBS.items()
    if (keys := set(re.findall(r"\b([a-z]+)=", row.usage))) and not ANY_KEY.search(row.usage)
}


@pytest.mark.parametrize("verb", TAKES_SOME)
def test_a_verb_takes_the_options_that_its_usage_names(verb: str) -> None:
    """Whoever reads HELP would search for one that is missing there, or be refused one that is told."""
    said = []
    for words in ("", "x", "x y"):
        with pytest.raises(Refusal) as refused:
            parse(f"{verb} {words} nonsense=1", CONTEXT)
        said += re.findall("known: ([a-z, ]+)", refused.value.message)
    assert [set(each.split(", ")) for each in said[:1]] == [TAKES_SOME[verb]]


def test_the_tour_is_short_and_names_every_verb() -> None:
    """It is the first thing to read, and leaves nobody wondering what else there is."""
    tour = (Path(__file__).parents[2] / "docs" / "tour.md").read_text(encoding="utf-8")
    assert len(tour.splitlines()) <= 300
    table = tour.partition("## What the verbs are for")[2]
    assert sorted(re.findall("`([A-Z]+)`", table)) == sorted(VERBS)


@pytest.mark.parametrize(
    ("line", "reads"),
    [
        ("TEMPLATE LIST", True),
        ("template list head=yes", True),
        ("IMPORT --dry-run 0 9 * * * backup", True),
        ("import --system --dry-run 0 9 * * * root backup", True),
        ("IMPORT --dry-run", False),  # of --dry-run-twice, for all we know
        ("IMPORT 0 9 * * * backup --dry-run x", False),
        ("IMPORT --system 0 9 * * * root backup", False),
        ("TEMPLATE ADD LIST prio=low", False),
        ("TEMPLATE LISTEN", False),
        ("UNDO", False),
        ("HISTORY", True),
        ("NOSUCH", True),
    ],
)
def test_what_only_reads_is_known_by_all_of_its_words(line: str, reads: bool) -> None:
    """Without its newline such a line is answered; one that changes something may be cut short."""
    assert only_reads(line) == reads


def test_what_is_always_answered_alike_is_told_as_if_it_were_asked() -> None:
    """The line skips all that is done for other lines, so nothing of that may matter to it."""
    for as_json, answers in enumerate(Answers.ready):
        for said, told in answers.items():
            line = said if isinstance(said, str) else said.decode().removesuffix("\n")
            verb, rest = find_verb(line)
            assert (verb.anybody, verb.reads, verb.surely, rest) == (True, True, "", "")
            assert verb.always
            assert told == format_status(verb.always, bool(as_json))
    assert [answers["ping"] for answers in Answers.ready] == ["PONG", '{"ok":true,"pong":true}']


@pytest.mark.parametrize("rest", ["a " + "=" * 65_000 + " x", " " * 32_000 + "a" + " " * 32_000 + "x y"])
def test_the_longest_line_is_looked_at_in_one_pass(rest: str) -> None:
    """A pattern that tries again from each of its bytes took two minutes, in which nobody else had a turn."""
    for verb in VERBS.values():
        assert verb.only_reads(rest) == verb.reads
