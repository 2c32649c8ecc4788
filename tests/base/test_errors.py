"""What a refusal carries for programs stands beside its words, and is not read out of them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cronflowd.base.errors import Refusal, naming, naming_option

ROOT = Path(__file__).parents[2] / "cronflowd"


def test_a_refusal_that_is_worded_anew_keeps_what_it_is_about() -> None:
    """A line of a file says where it is, and which option was wrong."""
    with pytest.raises(Refusal) as found, naming("line 3", "bad-line"), naming_option("timeout"):
        raise Refusal("bad-option", "no duration")
    assert (found.value.code, found.value.message, found.value.option) == (
        "bad-line", "line 3: timeout=: no duration", "timeout",
    )  # fmt: skip


NAMES_ONE = re.compile(  # what is wrong with the command of a type is said by who looks at commands
    r"""f?['"]+(?!type=)(([a-z]+|\{(escape\()?key\)?\})=|the (quoted )?value of \{escape\(key\)\}="""
    r"""|after the JSON object of|there is no option)"""
)


def test_whoever_says_which_option_is_wrong_says_it_to_programs_too() -> None:
    """The HTTP door names the field by it; words for people may be worded anew."""
    mute = []
    for path in ROOT.rglob("*.py"):
        if {"net", "executors"} & {*path.relative_to(ROOT).parts}:  # of workers, whose lines have one form
            continue
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef):
                mute += [f"{path.name}: {words}" for words in _said_alone(function) if NAMES_ONE.match(words)]
    assert mute == []


def _said_alone(function: ast.FunctionDef) -> Iterator[str]:
    """The words of refusals that say nothing beside them."""
    nodes = [*ast.walk(function)]
    texts = {
        ast.unparse(each.targets[0]): ast.unparse(each.value)
        for each in nodes
        if isinstance(each, ast.Assign)
    }
    for call in nodes:
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "Refusal" and len(call.args) == 2:
            words = ast.unparse(call.args[1])
            yield texts.get(words.partition(" + ")[0], words)
