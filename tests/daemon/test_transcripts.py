"""Whole conversations, held against files: see harness.py for how to read and write one.

`make golden` (CRONFLOWD_GOLDEN=1) writes what is said now into the files; the diff of that
is read like code, because it is what every script out there would notice.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.lib.harness import play

TRANSCRIPTS = sorted((Path(__file__).parents[1] / "transcripts").glob("*.txt"))
GOLDEN = os.environ.get("CRONFLOWD_GOLDEN") == "1"


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_every_word_is_what_the_transcript_says(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients and workers out there were written against these words."""
    text = path.read_text(encoding="utf-8")
    said = "\n".join(play(text.split("\n"), tmp_path, monkeypatch))
    if GOLDEN:
        path.write_text(said, encoding="utf-8")
        return
    assert text.split("\n") == said.split("\n")


def test_what_add_takes_load_takes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tasks.db that could not be loaded again would be no backup, whatever JSON makes of a text."""
    quotes = '"' * 60_000
    lines = [f"C: ADD name=quotes @daily {quotes}", "C: ADD name=small @daily x"]
    lines += [f"C: SET small env.V{n}={'x' * 40_000}" for n in range(2)]
    said = play([*lines, "C: SAVE", "C: LOAD"], tmp_path, monkeypatch)
    assert [line for line in said if line.startswith("S:")] == [
        "S: OK 1 quotes next=2030-01-02T00:00:00Z",
        "S: OK 2 small next=2030-01-02T00:00:00Z",
        "S: OK 2 rev=2",
        "S: ERR too-long the command and its options are longer than 65536 bytes",
        "S: OK 2 saved",
        "S: OK 2 loaded",
    ]


def test_there_are_transcripts() -> None:
    """A wrong path would make all of them pass."""
    assert len(TRANSCRIPTS) > 10
