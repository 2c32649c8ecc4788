"""SECURITY.md promises nothing that no test holds."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
PROMISES = (
    (TESTS.parent / "SECURITY.md").read_text().partition("\n## What is promised\n")[2].partition("\n## ")[0]
)


def test_each_test_that_a_promise_names_exists() -> None:
    """A test that is renamed or dropped takes its promise with it, and somebody has to see that."""
    there = set(re.findall(r"def (test_\w+)", "".join(path.read_text() for path in TESTS.rglob("test_*.py"))))
    named = set(re.findall(r"`(test_\w+)`", PROMISES))
    assert len(named) > 40
    assert sorted(named - there) == []


def test_each_promise_names_a_test() -> None:
    """A sentence costs nothing, and is believed."""
    promises = re.split(r"\n- ", PROMISES)[1:]
    assert len(promises) > 15
    assert [promise for promise in promises if "`test_" not in promise] == []
