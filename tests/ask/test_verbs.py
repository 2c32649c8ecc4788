"""One row a verb says all about it: who answers it, and who may say it."""

from __future__ import annotations

import inspect

import pytest

from cronflowd.ask.commands import VERBS
from cronflowd.daemon.answers import Answers


@pytest.mark.parametrize("verb", [verb for verb in VERBS if VERBS[verb].answer])
def test_the_row_of_a_question_names_who_answers_it(verb: str) -> None:
    """A name that nothing bears would be found by the first client who asks."""
    answer = getattr(Answers, f"_{VERBS[verb].answer}")
    assert list(inspect.signature(answer).parameters) == ["self", "question", "session"]


def test_no_answer_is_without_a_verb() -> None:
    """What no row names can never be asked."""
    named = {f"_{verb.answer}" for verb in VERBS.values()}
    asked = {
        name
        for name, method in inspect.getmembers(Answers, inspect.isfunction)
        if list(inspect.signature(method).parameters) == ["self", "question", "session"]
    }
    # An order, that is what no row answers.
    assert asked - named == {"_submit"}


def test_before_authentication_only_what_tells_nothing_may_be_said() -> None:
    """A column that is set by mistake opens the daemon to strangers."""
    assert {name for name, verb in VERBS.items() if verb.anybody} == {
        "AUTH", "HELLO", "HELP", "PING", "QUIT", "FORMAT",
    }  # fmt: skip


def test_an_order_that_the_engine_decides_never_counts_unfinished() -> None:
    """Cut short, it would change something else than was meant."""
    assert [name for name, verb in VERBS.items() if not verb.answer and verb.reads] == []
