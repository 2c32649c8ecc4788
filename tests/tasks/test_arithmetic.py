"""Arithmetic, and that nothing else can be had from it."""

from __future__ import annotations

import contextlib
import re
import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cronflowd.base.errors import Refusal
from cronflowd.tasks.arithmetic import MAX_DEPTH, MAX_TEXT, calculate, evaluate, parse
from cronflowd.tasks.task import check_command


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("2 + 3 * 4", "14"),
        ("(2+3)*4", "20"),
        (" 10 / 4 ", "2.5"),
        ("10 / 5", "2"),
        ("1 / 3", "0.333333333333333"),
        ("1 / 3 * 3", "1"),
        ("0.1 + 0.2", "0.3"),
        ("10.00000000000000000000000001", "10"),
        ("-7 // 2", "-4"),
        ("-7 % 3", "2"),
        ("7.5 % 2", "1.5"),
        ("2 ** 10", "1024"),
        ("2 ** 3 ** 2", "512"),
        ("-2 ** 2", "-4"),
        ("2 ** -1", "0.5"),
        ("2 ** 0.5", "1.414213562373095"),
        ("0 ** 0.5", "0"),
        ("--3", "3"),
        ("2 * -3", "-6"),
        ("2 ** 200", str(2**200)),
        ("(-1) ** 99999999999999999999", "-1"),
        ("sqrt(16) + sqrt(9/4)", "5.5"),
        ("sqrt(2)", "1.414213562373095"),
        ("pi", "3.141592653589793"),
        ("e", "2.718281828459045"),
        ("max(1, 3, 2) - min(4)", "-1"),
        ("abs(-3)", "3"),
        ("floor(-1.5)", "-2"),
        ("ceil(1.2)", "2"),
        ("round(2.675, 2)", "2.68"),
        ("round(2.5)", "2"),
        ("1.5e3", "1500"),
        ("1e-20", "1E-20"),
        (".5 + 1.", "1.5"),
    ],
)
def test_what_comes_out(text: str, result: str) -> None:
    """As everybody expects it, and without the roundings of binary numbers."""
    assert result == calculate(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "column 1: a number was expected, not the end"),
        ("2 +", "column 4: a number was expected, not the end"),
        ("2 2", 'column 3: an operator was expected, not "2"'),
        ("2pi", 'column 2: an operator was expected, not "pi"'),
        ("(2", 'column 3: ")" was expected, not the end'),
        ("2)", 'column 2: an operator was expected, not ")"'),
        ("* 2", 'column 1: a number was expected, not "*"'),
        ("x + 1", 'column 1: there is no "x"; there are pi, e, min'),
        ("__import__('os')", 'column 1: there is no "__import__"'),
        ("sqrt", 'column 5: "(" was expected'),
        ("sqrt(1, 2)", "column 1: sqrt() does not take 2 values"),
        ("min()", 'column 5: a number was expected, not ")"'),
        ("(1).real", 'column 4: an operator was expected, not "."'),
        ("1 if 2 else 3", 'column 3: an operator was expected, not "if"'),
        ("'a' * 3", 'column 1: a number was expected, not "\'"'),
        ("1, 2", 'column 2: an operator was expected, not ","'),
        ("٣ + 1", "column 1: a number was expected"),
        ("1e99999", "column 1: the number is too large"),
        ("(" * (MAX_DEPTH + 1), f"column {MAX_DEPTH + 1}: more than"),
        ("-" * 900 + "1", f"column {MAX_DEPTH + 1}: more than"),
        ("2" + "**2" * 300, "more than"),
        ("1" * (MAX_TEXT + 1), "characters at most"),
    ],
)
def test_what_is_no_arithmetic_is_refused_when_it_is_added(text: str, why: str) -> None:
    """A typing error is told to the person who made it, with the place, not to tonight's log."""
    with pytest.raises(Refusal) as caught:
        parse(text)
    assert "syntax" == caught.value.code
    assert why in caught.value.message
    if text:
        with pytest.raises(Refusal):
            check_command(text, "calculate")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1 / 0", "column 3: division by zero"),
        ("1 // (2 - 2)", "column 3: division by zero"),
        ("1 % 0", "column 3: division by zero"),
        ("0 ** -1", "column 3: division by zero"),
        ("0 ** -0.5", "column 3: division by zero"),
        ("9 ** 9 ** 9", "column 3: the number would have more than"),
        ("1e999 ** 1e999", "the number would have more than"),
        ("1e999 * 1e999", "the number would have more than"),
        ("1e999 ** 1.5", "the number would have more than"),
        ("9 ** 99999999.5", "the number would have more than"),
        ("sqrt(-1)", "column 1: a negative number has no real root"),
        ("(-8) ** 0.5", "is no real number"),
        ("round(1, 1e9)", "places"),
    ],
)
def test_what_has_no_result_is_told_when_it_runs(text: str, why: str) -> None:
    """It is arithmetic, so it may be added; what it comes to is known when it is worked out."""
    check_command(text, "calculate")
    with pytest.raises(Refusal) as caught:
        calculate(text)
    assert "limit" == caught.value.code
    assert why in caught.value.message


PIECES = "1 0 9 7.5 1e999 1e-999 pi e + - * / // % ** ( ) , min( max( abs( round( sqrt( floor( ceil(".split()
ARITHMETIC = st.lists(st.sampled_from(PIECES), max_size=60).map("".join)


@given(st.text() | ARITHMETIC)
def test_any_text_is_a_number_or_a_refusal_and_soon(text: str) -> None:
    """Any other end would be a way for one line to stop a worker, or the daemon that checks it."""
    began = time.thread_time()
    with contextlib.suppress(Refusal):
        float(calculate(text).replace("E", "e"))
    assert time.thread_time() - began < 1


@pytest.mark.parametrize(
    "text",
    [
        "1e999/7" + "*7/9" * 240,
        "+".join(["1e999/7**400"] * 70),
        "1" + "+1" * 499,
        "sqrt(" * 38 + "1e999" + ")" * 38,
        "1.0000001**99999999.5" + "+1.0000001**99999999.5" * 40,
        "min(" + ",".join(["1e-999"] * 140) + ")",
    ],
)
def test_the_most_laborious_texts_take_no_time_to_speak_of(text: str) -> None:
    """The worker answers at once, with all its other jobs waiting behind."""
    assert len(text) <= MAX_TEXT
    began = time.thread_time()
    with contextlib.suppress(Refusal):
        calculate(text)
    assert time.thread_time() - began < 0.5


OPERANDS = st.integers(-50, 50).map(str) | st.sampled_from(["0.5", "2.25", "10"])
EXPRESSIONS = st.recursive(
    OPERANDS,
    lambda inner: (
        st.tuples(inner, st.sampled_from(["+", "-", "*", "//", "%", "/"]), inner).map(
            lambda three: f"({three[0]} {three[1]} {three[2]})"
        )
        | inner.map(lambda one: f"-{one}")
    ),
    max_leaves=12,
)


@given(EXPRESSIONS)
def test_it_means_what_python_means(text: str) -> None:
    """An independent reading of the same text: Python's own, over exact fractions."""
    exact = re.sub(r"[0-9.]+", lambda match: f"Fraction('{match[0]}')", text)
    try:
        expected = Fraction(eval(exact, {"Fraction": Fraction}))
    except ZeroDivisionError:
        expected = None
    try:
        found = evaluate(parse(text))
    except Refusal as refusal:
        assert "division by zero" in refusal.message
        found = None
    assert expected == found
