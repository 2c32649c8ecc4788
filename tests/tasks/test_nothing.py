"""Nothing, less than nothing and far too much: refused by name everywhere, or told what they mean.

A zero or an empty text that is silently taken for "no limit" is found by whoever loses something.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cronflowd.ask import commands
from cronflowd.base.errors import Refusal
from cronflowd.tasks.options import DEFAULTS, KEEP, RULES, format_options, set_options
from cronflowd.tasks.task import parse_json, parse_record
from tests.lib.lines import CONTEXT

NOW = CONTEXT.now
PROTOCOL = (Path(__file__).parents[2] / "protocol.md").read_text(encoding="utf-8")
NOTHING = [
    "0", "-1", " ", "NaN", "inf", "1e400", "0x10", "99999999999999999999", "٣", "0.0001", "0s", "0d",
    "-5m", ",",
    "none", "null",
]  # fmt: skip
TEXTS = {"title", "desc", "body"}  # any text is one
NAMES = {"tags", "on", "after", "owner", "user"}  # what looks like a number may be a name
# What is taken, and the words of protocol.md that say what it means.
MEANT = {
    "grace": (r"0|0s|0d", "at least 1 s"),
    "spread": (r"0|0s|0d", "`0s`"),
    "jitter": (r"0|0s|0d", "`0s`"),
    "stdin": ("0x10|9+|none|null", "in base64"),
    "payload": (r"0|0.0001|-1|9+|null", "one JSON value"),
    "retry": ("none", "`none`"),
    "timeout": ("none", "`none`"),
    "notify": ("none", "`none`: nobody"),
    "secret": (".*[^ ].*", "signs a webhook"),
}


@pytest.mark.parametrize("text", NOTHING)
@pytest.mark.parametrize("key", RULES)
def test_an_option_refuses_it_by_name_or_tells_what_it_means(key: str, text: str) -> None:
    """Over the whole table, so that an option to come cannot be forgotten."""
    pattern, words = MEANT.get(key, ("", ""))
    row = re.search(rf"^\| `{key}=` .*$", PROTOCOL, re.MULTILINE)
    assert row
    try:
        options = set_options(DEFAULTS, {key: text}, "UTC", NOW)
    except Refusal as refusal:
        assert f"{key}=" in refusal.message
        assert not pattern or not re.fullmatch(pattern, text)
    else:
        is_name = key in NAMES and re.fullmatch(r"[A-Za-z0-9._-]+", text)
        assert key in TEXTS or is_name or key == "after" or (re.fullmatch(pattern, text) and words in row[0])
        # What is taken is written so that it is taken again, and means the same.
        written = format_options(options)
        assert set_options(DEFAULTS, written, "UTC", NOW) == options


@pytest.mark.parametrize("key", RULES)
def test_an_empty_option_means_its_default(key: str) -> None:
    """As protocol.md says, and as SET needs it."""
    assert set_options(DEFAULTS, {key: ""}, "UTC", NOW) == DEFAULTS
    assert "an empty value means its default" in PROTOCOL


@pytest.mark.parametrize(
    "words",
    ["count=0", "retry=fixed:0:1s", "retry=exp:3:1s:0s", "retry=exp:3:10s:5s", "retry=fixed:3:31d",
     "retry=exp:3:1s:31d",
     "retry=exp:3:1s:x0", "retry=exp:3:1s:~101%", "keep=0", "keep=0d", "keep=5,7", "keep=1d,2d",
     "keep=50,,10M", "tags=a,,b", "tags=a,", "after=a,,b", "skip=holidays:FR,", "timeout=0", "timeout=0.0004",
     "jitter=36500d", "spread=367d", "spread=0.5", "secret=\" \"", "expect=0", "expect=200-", "notify=,"],
)  # fmt: skip
def test_no_part_of_a_value_is_nothing_in_silence(words: str) -> None:
    """The parts of a value are values too."""
    key = words.partition("=")[0]
    with pytest.raises(Refusal, match=f"bad-option {key}=: "):
        commands.parse(f"ADD {words} @daily x", CONTEXT)


@pytest.mark.parametrize("value", ["all", "-1", "NaN", "12345678901", "1.5", "forever"])
def test_what_keep_cannot_be_is_told_in_its_own_words(value: str) -> None:
    """A number of runs is no duration, however many digits it has."""
    with pytest.raises(Refusal, match="is not a number of runs, an age such as 30d, or a size"):
        set_options(DEFAULTS, {"keep": value}, "UTC", NOW)


def test_a_million_runs_are_not_an_age_of_eleven_days() -> None:
    """A number by itself is a number of runs, of whatever size."""
    keep = set_options(DEFAULTS, {"keep": "1000000"}, "UTC", NOW).keep
    assert keep
    assert (keep.runs, keep.age_s) == (1_000_000, KEEP.age_s)


@pytest.mark.parametrize("value", ["99999999999999999999", "999999999999d", "999999999h"])
def test_a_duration_that_is_too_long_is_told_so(value: str) -> None:
    """It is well written; to show how durations are written would mislead."""
    with pytest.raises(Refusal, match=r'timeout=: duration "[0-9]+[dh]?" is longer than [0-9]+d'):
        set_options(DEFAULTS, {"timeout": value}, "UTC", NOW)


@pytest.mark.parametrize(
    "value",
    ["NaN", "Infinity", "1e400", "true", "null", "[0]", "{}", "-1", "0", "1.5", "99999999999999999999"],
)
def test_so_does_a_record(value: str) -> None:
    """JSON has more ways to say nothing."""
    with pytest.raises(Refusal) as caught:
        record = parse_json(f'{{"schedule": "@daily", "command": "x", "count": {value}}}', "the task")
        parse_record(record, "UTC")
    assert "count" in caught.value.message or "not valid JSON" in caught.value.message


ARGUMENTS = {
    "limit": ("LIST", "RUNS", "HISTORY"), "offset": ("LIST", "RUNS", "HISTORY"), "n": ("NEXT x", "TZDIFF /x"),
    "since": ("RUNS", "STATS", "FAILED", "PROVE"), "until": ("RUNS", "STATS", "PROVE", "PAUSE x", "DST"),
    "last": ("RUNS", "STATS", "FAILED", "PROVE"), "from": ("NEXT x",), "tz": ("NEXT x", "DESCRIBE @daily"),
    "state": ("LIST", "RUNS"), "by": ("STATS",), "force": ("REMOVE x",), "paused": ("ADD",),
}  # fmt: skip


@pytest.mark.parametrize(
    "text", ['""', *(f'"{text}"' for text in NOTHING if text not in ("none", "0s", "0d"))]
)
@pytest.mark.parametrize(("key", "verb"), [(key, verb) for key, verbs in ARGUMENTS.items() for verb in verbs])
def test_an_argument_of_a_verb_refuses_it_by_name(key: str, verb: str, text: str) -> None:
    """`until=$UNSET` behind PAUSE must not mean for ever."""
    if text == '"0"' and key in ("limit", "offset"):
        commands.parse(f"{verb} {key}=0", CONTEXT)
        assert "`limit=0` gives no rows" in PROTOCOL
        return
    with pytest.raises(Refusal, match=rf"\b{key}\b"):
        commands.parse(f"{verb} {key}={text}" + (" @daily x" if verb == "ADD" else ""), CONTEXT)


@pytest.mark.parametrize(
    "line",
    ["UNDO 0", "UNDO -1", "UNDO ٣", "UNDO 101", "CANCEL -1", "CANCEL 0x10", "LOG x --1", "LOG x -", "GET x @",
     "GET x @-1", "BEAT x -1", "BEAT x 256", "BEAT x ٣", "TZDIFF", "CLEAR 0", "RUN", "PAUSE", "GET",
     'REMOVE ""', 'RUN ""', 'PAUSE x ""', 'GET ""', 'LOG ""',
     'FORGET ""', 'DRAIN ""', 'SAVE ""', 'EXPORT ""', 'STATS ""'],
)  # fmt: skip
def test_so_does_a_bare_word(line: str) -> None:
    """An empty name is what a script says whose variable is not set."""
    with pytest.raises(Refusal):
        commands.parse(line, CONTEXT)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("LIST tag=a,b", 'the tag "a,b" is not'),
        ('LIST tag=" "', 'the tag " " is not'),
        ("RUNS tag=a,b", 'the tag "a,b" is not'),
        ("REMOVE tag=a,b", 'the tag "a,b" is not'),
        ("LIST name=web*,db*", 'no name has a ","'),
        ('PAUSE name=" "', 'no name has a " "'),
        ("LIST name=web[^a]", 'no name has a "^"'),
        ("RUNS worker=pi,pa", 'the worker name "pi,pa" is not'),
        ("NEXT all last=0s", "of no time at all"),
        ("NEXT x last=0", "of no time at all"),
    ],
)
def test_what_nothing_can_be_is_no_filter(line: str, why: str) -> None:
    """`LIST tag=a,b` answered OK 0: whoever asked took that for the truth."""
    with pytest.raises(Refusal, match="bad-option") as caught:
        commands.parse(line, CONTEXT)
    assert why in caught.value.message
