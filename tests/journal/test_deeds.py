"""Who did what: read backwards from the journal, and kept by compaction in few words."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from cronflowd.engine import access_facts as af
from cronflowd.engine import facts as f
from cronflowd.engine.rules import rows_of
from cronflowd.journal import compaction, history
from cronflowd.journal.files import journal_dir, list_history
from tests.lib.journal_driver import Life, restarted, told

LONG = "x" * 50_000
ANN = "ann@192.0.2.7:40001"
RECORD = {"schedule": "@daily", "command": LONG, "jobName": "long"}


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    one = Life(tmp_path)
    yield one
    one.close()


def audit(life: Life) -> list[tuple[str, ...]]:
    """AUDIT's rows, without times and verdicts that are `ok`."""
    deeds = history.deeds(life.data, 2**62, None)
    rows = [row for _, deed in deeds for row in rows_of(deed, "cronflowd")]
    return [tuple(filter(None, (*row[:4], row[4].removeprefix("ok")))) for row in rows]


def _fill_segment(life: Life) -> None:
    """Only closed ones are compacted."""
    life.commit()
    for _ in range(60):
        life.say(f.ClockStepped(0.1))
    life.commit()
    life.say(f.ClockStepped(0.1))
    life.commit()


def _some(life: Life) -> list[tuple[str, ...]]:
    """Everything that AUDIT tells of, once; what it tells, newest first."""
    life.join()
    by = {"who": ANN, "change": 1, "what": "ADD long", "verb": "ADD"}
    life.say(f.TaskAdded(1, RECORD, life.now, life.now, **by))
    life.say(f.TaskAdded(2, {**RECORD, "jobName": "task_2"}, life.now, life.now, who="192.0.2.7:1"))
    by |= {"change": 2, "what": "CLEAR 2 tasks", "verb": "CLEAR"}
    life.say(
        f.TaskRemoved(1, "removed", **by), f.TaskRemoved(2, "removed", who=ANN, change=2),
        af.AccountSet("bob", "user", life.now, password="hash", who=ANN),
        af.SignedIn("bob", "user", "here"), af.Deed("unix:root", "DRAIN", "w1"),
        af.Refused("bob", "here", "CLEAR", "", "why", untold=3),
    )  # fmt: skip
    life.commit()
    return [
        ("bob", "here", "CLEAR", "denied"),
        ("here", "3 more", "denied"),
        ("cronflowd", "unix:root", "DRAIN", "w1"),
        ("bob", "here", "AUTH"),
        ("ann", "192.0.2.7:40001", "USER", "bob"),
        ("ann", "192.0.2.7:40001", "CLEAR", "2"),
        ("cronflowd", "192.0.2.7:1", "NOW", "2"),
        ("ann", "192.0.2.7:40001", "ADD", "long"),
    ]


def test_it_survives_compaction_and_restart_word_for_word(life: Life) -> None:
    """Who wants to hide what he did has only to wait for the next one otherwise."""
    expected = _some(life)
    assert audit(life)[:-1] == expected
    for _ in range(3):
        _fill_segment(life)
        life.compact()
        assert [row for row in audit(life) if row[2] != "HELLO"] == expected
    state, _ = restarted(life.data)
    assert told(state) == told(life.state)


def test_what_is_kept_of_a_long_definition_is_who_gave_it(life: Life) -> None:
    """60 kB for each ADD would be a history of nothing else."""
    _some(life)
    _fill_segment(life)
    life.compact()
    kept = b"".join(each.path.read_bytes() for each in list_history(journal_dir(life.data)))
    assert b"xxxx" not in kept
    assert b"hash" not in kept
    assert len(kept) < 3000


def test_it_is_kept_for_ninety_days(life: Life) -> None:
    """And not for ever: what is told of people has an end."""
    expected = _some(life)
    life.now += timedelta(days=89)
    life.say(af.Deed(ANN, "EXPECT", "e"))
    _fill_segment(life)
    life.compact()
    assert set(expected) <= set(audit(life))
    life.now += timedelta(days=2)
    _fill_segment(life)
    life.compact()
    assert audit(life) == [("ann", "192.0.2.7:40001", "EXPECT", "e")]


def test_a_flood_of_refusals_takes_at_most_its_share_of_history(life: Life) -> None:
    """Runs would be forgotten for it otherwise."""
    for number in range(400):
        life.say(af.Refused("", f"[2001:db8::{number:x}]:1", "AUTH", "", "wrong" * 20))
    _fill_segment(life)
    life.compact(80_000)
    kept = sum(each.path.stat().st_size for each in list_history(journal_dir(life.data)))
    assert 5_000 < kept < 80_000 / compaction.DEEDS_SHARE + 1000
    assert audit(life)[0][0] == "[2001:db8::18f]:1"


def test_reading_goes_no_further_back_than_is_asked(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of a gigabyte is not decoded for an hour's rows."""
    for _ in range(50):
        life.say(af.Deed(ANN, "DRAIN", "w1"))
        life.now += timedelta(minutes=1)
    life.commit()
    looked: list[bytes] = []
    known = history.deed_in
    monkeypatch.setattr(history, "deed_in", lambda line: looked.append(line) or known(line))
    since_at = life.now - timedelta(minutes=10)
    assert len(list(history.deeds(life.data, 2**62, since_at))) == 10 == len(looked)
