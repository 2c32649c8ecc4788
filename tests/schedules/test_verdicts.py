"""Which texts are a schedule: Debian's verdicts beside ours, and refusals that say why."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cronflowd.base.errors import Refusal
from cronflowd.schedules.schedule import parse_schedule
from cronflowd.schedules.zones import parse_zone

PROTOCOL = Path(__file__).parents[2] / "protocol.md"
ANCHOR_AT = datetime(2026, 1, 1, tzinfo=UTC)


def refusal_of(text: str) -> str:
    with pytest.raises(Refusal) as caught:
        parse_schedule(text, "UTC")
    assert caught.value.code == "bad-schedule"
    return caught.value.message


# --- beside Debian's crontab --------------------------------------------------------------

# What `crontab -n` of Debian's cron 3.0pl1-162 says, and what we say. Where they differ, Debian
# skips characters it did not understand, or never looks whether a date exists: protocol.md says
# which, case by case.
VERDICTS = [
    ("* * * * *", True, True),
    ("*/90 * * * *", True, True),
    ("*/0 * * * *", False, False),
    ("5-5 * * * *", True, True),
    ("22-2 * * * *", True, False),
    ("*5 * * * *", True, False),
    ("5/15 * * * *", False, False),
    ("60 * * * *", False, False),
    ("* * * * 8", False, False),
    ("* * * * 7", True, True),
    ("* * 0 * *", False, False),
    ("* * 32 * *", False, False),
    ("0 0 30 2 *", True, False),
    ("* * * * mon-fri", True, True),
    ("* * * * Mon,wed", True, True),
    ("* * * * fri-sun", True, False),
    ("* * * * sun-mon", True, True),
    ("* * * * mon-7", True, True),
    ("* * * * monday", False, False),
    ("* * * JAN-mar *", True, True),
    ("* * * 13 *", False, False),
    ("* * L * *", False, True),
    ("* * * * 5L", False, True),
    ("* * * * 1#2", True, True),  # see READ_OTHERWISE
    ("* * * * 1#6", True, False),
    ("* * 15W * *", False, True),
    ("? * * * *", False, False),
    ("*,5 * * * *", True, True),
    ("5, * * * *", False, False),
    ("1,,2 * * * *", False, False),
    ("1- * * * *", False, False),
    ("-5 * * * *", False, False),
    ("1-5/ * * * *", False, False),
    ("1-5/0 * * * *", False, False),
    ("1-5/100 * * * *", True, True),
    ("1-3-5 * * * *", True, False),
    ("1-5/2/3 * * * *", True, False),
    ("005 * * * *", True, True),
    ("*-5 * * * *", True, False),
    ("5.5 * * * *", True, False),
    ("*/2,*/3 * * * *", True, True),
    ("1~5 * * * *", True, False),
    ("* * mon * *", False, False),
    ("@daily", True, True),
    ("@midnight", True, True),
    ("@annually", True, True),
    ("@Daily", False, False),
    ("@fortnightly", False, False),
    ("@every 90s", False, True),
    ("R * * * *", False, False),
]


READ_OTHERWISE = {"* * * * 1#2"}  # both accept it, and mean different days
ROW = re.compile(r"^\| `(.+)` \| (accepts|refuses) \| (accepted|refused) \| (.+) \|$", re.MULTILINE)


def accepts(text: str) -> bool:
    try:
        parse_schedule(text, "Europe/Paris")
    except Refusal:
        return False
    return True


@pytest.mark.parametrize(("text", "debian", "ours"), VERDICTS)
def test_accept_and_refuse_verdicts(text: str, debian: bool, ours: bool) -> None:
    """Stricter than Debian only where Debian guesses; wider only by the words of protocol.md."""
    assert ours == accepts(text)


def crontab_says(directory: Path, text: str) -> bool:
    file = directory / "crontab"
    file.write_text(f"{text} true\n")
    return subprocess.run(["crontab", "-n", str(file)], capture_output=True, check=False).returncode == 0


def test_the_debian_verdicts_are_those_of_the_crontab_installed_here(tmp_path: Path) -> None:
    """The table above is only worth something if it says what Debian's crontab says."""
    if not shutil.which("crontab") or not crontab_says(tmp_path, "* * * * *"):
        pytest.skip("no Debian crontab here")
    assert {text: debian for text, debian, _ in VERDICTS} == {
        text: crontab_says(tmp_path, text) for text, _, _ in VERDICTS
    }


def test_protocol_md_tells_every_verdict_that_is_not_debians() -> None:
    """Who brings a crontab along must find there what will be refused, and who goes back to cron, too."""
    told = {
        text: (debian == "accepts", ours == "accepted")
        for text, debian, ours, _ in ROW.findall(PROTOCOL.read_text(encoding="utf-8"))
    }
    assert told == {
        text: (debian, ours) for text, debian, ours in VERDICTS if debian != ours or text in READ_OTHERWISE
    }


# --- what a refusal says ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("61 * * * *", 'minute field "61": 61 is not in 0-59'),
        ("0 1,24 * * *", 'hour field "1,24": 24 is not in 0-23'),
        ("0 0 0 * *", 'day-of-month field "0": 0 is not in 1-31'),
        ("0 0 1 13 *", 'month field "13": 13 is not in 1-12'),
        ("0 0 * * 8", 'day-of-week field "8": 8 is not in 0-7'),
        ("0 0 * * * 60", 'second field "60": 60 is not in 0-59'),
        ("? 0 1 * *", 'minute field "?": "?" is not cron; write *'),
        ("0 22-2 * * *", 'hour field "22-2": the range "22-2" runs backwards; to go round, write 22-23,0-2'),
        (
            "0 9 * * fri-sun",
            'day-of-week field "fri-sun": the range "fri-sun" runs backwards; to go round, write 5-7',
        ),
        (
            "0 9 * * sat-mon",
            'day-of-week field "sat-mon": the range "sat-mon" runs backwards; to go round, write 6-7,0-1',
        ),
        ("5/15 * * * *", 'minute field "5/15": a step needs * or a range before it, as in 5-59/15'),
        ("0 0 30 2 *", 'day-of-month field "30": it never comes in month "2", which has 29 days at most'),
        ("0 0 31 4,6 *", 'day-of-month field "31": it never comes in month "4,6", which has 30 days at most'),
        ("0 0 30W 2 *", 'day-of-month field "30W": it never comes in month "2", which has 29 days at most'),
        ("0 0 30 2 */2", 'day-of-month field "30": it never comes in month "2", which has 29 days at most'),
        ("* * L * 1", 'day-of-month field "L": L and W need * as day of week, not "1"'),
        ("* * 1 * 1#2", 'day-of-week field "1#2": # and L need * as day of month, not "1"'),
        ("* * */2 * 5L", 'day-of-week field "5L": # and L need * as day of month, not "*/2"'),
        ("* * * * 1#6", 'day-of-week field "1#6": 6 in "1#6" is not in 1-5'),
        ("x" * 257, "the schedule is longer than 256 bytes"),
    ],
)
def test_a_refusal_names_the_field_the_word_and_the_reason(text: str, message: str) -> None:
    """Whoever typed the line must see what to mend without a manual."""
    assert message == refusal_of(text)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "0 fields"),
        ("* * * *", "4 fields"),
        ("0 0 1 1 * 0 2026", "never a year"),
        ("0\u00a00 * * * *", "looks like a blank"),
        ("\u0665 * * * *", "minute field"),  # an Arabic five is a digit to Python
        ("* * * * L", "day-of-week field"),
        ("0 0 L, * *", "beside a comma"),
        ("0 0 * * ,5L", "beside a comma"),
        ("biweekly", "twice a week or every 2 weeks"),
        ("in 10 minutes", "it counts from now"),
        ("@every", "@every needs a duration"),
        ("@every 0s", "at least 1s"),
        ("@every 250ms", "whole seconds"),
        ("@every 1h 30m", "duration"),
        ("@every fast", "duration"),
        ("@daily 5", "nothing may follow"),
        ("@at", "@at needs a time"),
        ("@at tomorrow", "write 2026-12-24T18:00:00Z"),
        ("@at 2026-02-30T00:00:00Z", "day"),
    ],
)  # fmt: skip
def test_other_refusals_say_what_is_wrong(text: str, part: str) -> None:
    """Words that this release does not have are told apart from mistakes."""
    assert part in refusal_of(text)


def test_refusing_takes_well_under_a_millisecond() -> None:
    """A stream of bad lines must not cost more than a stream of good ones."""
    text = "0 0 " + ",".join(["30"] * 80) + " 2 *"
    refusal_of(text)
    best = min(_timed(lambda: refusal_of(text)) for _ in range(5))
    assert best < 0.001


def _timed(call: Callable[[], object]) -> float:
    begin = time.thread_time()
    call()
    return time.thread_time() - begin


@given(st.text(alphabet="0123456789*/-,#LWlw?RmonTUEjan @\t\"'.", max_size=40))
def test_any_text_is_a_schedule_or_a_refusal(text: str) -> None:
    """No text may bring down a daemon that reads a hand-edited file."""
    try:
        schedule = parse_schedule(text, "Europe/Paris")
    except Refusal as refusal:
        assert refusal.code == "bad-schedule"
    else:
        found = schedule.next_after(ANCHOR_AT, ANCHOR_AT)
        assert found is None or found > ANCHOR_AT


def test_a_step_or_range_expands_as_cron_expands_it() -> None:
    """croniter does the sets; this holds it to the plain definition, value by value."""
    for low, high, place in [(0, 59, 0), (0, 23, 1), (1, 31, 2), (1, 12, 3), (0, 7, 4)]:
        for first in range(low, high + 1):
            for last in range(first, high + 1, 3):
                for step in (1, 2, 5, 7, 90):
                    words = ["*"] * 5
                    words[place] = f"{first}-{last}/{step}"
                    fields = parse_schedule(" ".join(words), "UTC").fields  # type: ignore[attr-defined]
                    masks = (
                        fields.minutes,
                        fields.hours,
                        fields.days.dom,
                        fields.days.months,
                        fields.days.dow,
                    )
                    wanted = {n % 7 if place == 4 else n for n in range(first, last + 1, step)}
                    assert wanted == {n for n in range(64) if masks[place] >> n & 1}, words


def test_unknown_zones_are_refused() -> None:
    """A zone name comes from clients and must never reach out of the zone directory."""
    for name in (
        "Mars/Olympus",
        "",
        "../../etc/passwd",
        "/etc/passwd",
        "Europe",
        "\x00",
        "tzdata.zi",
        "é" * 300,
    ):
        with pytest.raises(Refusal) as caught:
            parse_zone(name)
        assert caught.value.code == "bad-option"
    parse_zone("Europe/Paris")
