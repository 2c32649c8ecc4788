"""Times that people write behind since=, last=, until=, from= and AT: what is behind now, and what ahead."""

from __future__ import annotations

import pytest

from cronflowd.ask import commands
from cronflowd.base.errors import Refusal
from cronflowd.base.text import format_time
from tests.lib.lines import CONTEXT


@pytest.mark.parametrize(
    ("line", "at"),
    [
        ("RUNS last=12h", "2030-01-01T00:00:00Z"), ("RUNS since=24h", "2029-12-31T12:00:00Z"),
        ("RUNS since=1h30m", "2030-01-01T10:30:00Z"), ("RUNS since=yesterday", "2029-12-31T00:00:00Z"),
        ("RUNS since=today", "2030-01-01T00:00:00Z"), ('RUNS since="2 hours ago"', "2030-01-01T10:00:00Z"),
        ('RUNS since="an hour ago"', "2030-01-01T11:00:00Z"), ('RUNS since="2h ago"', "2030-01-01T10:00:00Z"),
        ('RUNS since="3 days ago"', "2029-12-29T12:00:00Z"),
        ('RUNS since="a week ago"', "2029-12-25T12:00:00Z"),
        ('RUNS since="2 days ago at 9:00"', "2029-12-30T09:00:00Z"),
        ('RUNS since="yesterday at 9:00 in Europe/Paris"', "2029-12-31T08:00:00Z"),
        ("STATS since=7d", "2029-12-25T12:00:00Z"), ("FAILED last=30m", "2030-01-01T11:30:00Z"),
        ("PROVE last=1d", "2029-12-31T12:00:00Z"), ("RUNS since=now", "2030-01-01T12:00:00Z"),
        ("RUNS since=2029-12-24T18:00:00Z", "2029-12-24T18:00:00Z"),
    ],
)  # fmt: skip
def test_since_looks_back(line: str, at: str) -> None:
    """What has been is asked for by how long ago it was."""
    assert format_time(commands.parse(line, CONTEXT).since_at) == at


@pytest.mark.parametrize(
    ("line", "name", "at"),
    [
        ("RUNS until=2h", "until_at", "2030-01-01T10:00:00Z"), ("PAUSE x until=2h", "until_at",
        "2030-01-01T14:00:00Z"),
        ("PAUSE x until=tomorrow", "until_at", "2030-01-02T00:00:00Z"),
        ('PAUSE x until="in 2 days at 9:00"', "until_at", "2030-01-03T09:00:00Z"),
        ("DST until=30d", "until_at", "2030-01-31T12:00:00Z"), ("NEXT x from=2h", "from_at",
        "2030-01-01T14:00:00Z"),
        ("NEXT x from=tomorrow tz=Europe/Paris", "from_at", "2030-01-01T23:00:00Z"),
    ],
)  # fmt: skip
def test_until_looks_where_its_verb_does(line: str, name: str, at: str) -> None:
    """PAUSE is about what comes, RUNS about what was."""
    assert format_time(getattr(commands.parse(line, CONTEXT), name)) == at


def test_what_comes_counts_from_now_too() -> None:
    """AT, and the bounds of a task."""
    spec = commands.parse("AT 10m x", CONTEXT).spec
    assert spec.schedule.text == "@at 2030-01-01T12:10:00Z"
    assert (
        format_time(commands.parse("ADD end=30d @daily x", CONTEXT).spec.options.end_at)
        == "2030-01-31T12:00:00Z"
    )


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("RUNS since=24", "24h"), ("RUNS last=", "empty"), ("RUNS last=12h since=1h", "the same"),
        ("RUNS since=1h until=2h", "is before since="), ("STATS since=1h until=2h", "is before since="),
        ("RUNS since=soon", "2 hours ago"), ("RUNS since=0h", "no time at all"),
        ('AT "now" x', "at once is NOW"),
        ('RUNS since="2 hours"', "2 hours ago"), ("RUNS since=monday", "a single moment"),
    ],
)  # fmt: skip
def test_a_time_that_is_none_is_refused_by_name(line: str, hint: str) -> None:
    """With the way to write it."""
    with pytest.raises(Refusal, match=hint):
        commands.parse(line, CONTEXT)
