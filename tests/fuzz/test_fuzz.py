"""Hostile lines on both ports: what was found once, some new ones each time, and as many as you like.

`make fuzz FUZZ_S=600` looks for new ones; what it finds is made small and left in `corpus/found`,
which the next commit gives a better name. `make fuzz-atheris` does the same led by coverage.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.arena import play
from tests.fuzz.scripts import Step, format_step, make_script, parse_step

CORPUS = Path(__file__).parent / "corpus"
FOUND = CORPUS / "found"
QUIETLY = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]


def play_anew(script: list[Step]) -> None:
    """In a data directory of its own."""
    with tempfile.TemporaryDirectory() as data:
        play(script, Path(data))


def smallest(script: list[Step]) -> list[Step]:
    """What is left when every step is taken out without which it still fails."""
    at = 0
    while at < len(script):
        shorter = script[:at] + script[at + 1 :]
        try:
            play_anew(shorter)
        except Exception:
            script = shorter
        else:
            at += 1
    return script


def look_at(script: list[Step]) -> None:
    """One that fails is kept, as small as it becomes."""
    try:
        play_anew(script)
    except Exception:
        script = smallest(script)
        FOUND.write_text("".join(f"{format_step(step)}\n" for step in script))
        play_anew(script)
        raise


def read_script(path: Path) -> list[Step]:
    return [parse_step(line) for line in path.read_text().splitlines() if line and line[0] != "#"]


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_what_was_found_once_is_never_found_again(path: Path, tmp_path: Path) -> None:
    """Each of them has ended a line, or a daemon, by a bug; or is one of the first that came to mind."""
    play(read_script(path), tmp_path)


@seed(1)
@settings(max_examples=8, database=None, phases=[Phase.generate], suppress_health_check=QUIETLY)
@given(st.integers(0, 1 << 32))
def test_whatever_is_said_on_either_port_breaks_nothing(number: int) -> None:
    """As every role, before and after AUTH, over restarts: the same few each time, so green stays green."""
    play_anew(make_script(Random(number)))


def test_a_script_is_the_same_after_it_was_written_down() -> None:
    """What was found is played again from its file: were a byte another one, it would find nothing."""
    scripts = [make_script(Random(number)) for number in range(20)]
    assert [[parse_step(format_step(step)) for step in script] for script in scripts] == scripts


@pytest.mark.skipif("CRONFLOWD_FUZZ_S" not in os.environ, reason="`make fuzz` looks for new ones")
@pytest.mark.timeout(0)
def test_as_many_as_there_is_time_for() -> None:
    """Each time it begins elsewhere."""
    until, played = time.monotonic() + float(os.environ["CRONFLOWD_FUZZ_S"]), 0
    while time.monotonic() < until:
        look_at(make_script(Random(os.urandom(8))))
        played += 1
    print(f"{played} scripts")
