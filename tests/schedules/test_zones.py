"""Times and durations as people write them; test_schedule_oracle.py holds the zones against cron."""

from __future__ import annotations

import errno
import sys
import zoneinfo
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cronflowd.base.errors import Refusal
from cronflowd.schedules import zones
from cronflowd.schedules.schedule import reload_zones
from cronflowd.schedules.zones import data_version, format_duration, parse_duration, parse_time, parse_zone

ANCHOR_AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2026-12-24T18:00:00Z", "2026-12-24T18:00:00+00:00"),
        ("2026-12-24t18:00:00.25+01:30", "2026-12-24T16:30:00.250000+00:00"),
        ("2026-12-24 18:00", "2026-12-24T17:00:00+00:00"),
        ("2026-12-24 18:00:30", "2026-12-24T17:00:30+00:00"),
        ("2026-03-29 02:30", "2026-03-29T01:00:00+00:00"),  # jumped over: the jump
        ("2026-10-25 02:30", "2026-10-25T00:30:00+00:00"),  # twice: the first
        ("2026-10-25T02:30:00+01:00", "2026-10-25T01:30:00+00:00"),
    ],
)
def test_times_are_rfc_3339_or_local(text: str, wanted: str) -> None:
    """A local time follows the same rules as a fixed task."""
    assert wanted == parse_time(text, "Europe/Paris", ANCHOR_AT).isoformat()


@pytest.mark.parametrize(
    "text",
    ["", "now", "in 10 minutes", "18:00", "2026-12-24", "2026-13-01 00:00", "2026-12-24 24:00",
     "0001-01-01T00:00:00+01:00",
     "2026-12-24T18:00:00+24:00", "2026-12-24 18:00 ", "2026-12-24\n18:00"],
)  # fmt: skip
def test_times_in_other_forms_are_refused(text: str) -> None:
    """A time understood in two ways would run a job at the wrong one."""
    with pytest.raises(Refusal) as caught:
        parse_time(text, "Europe/Paris", ANCHOR_AT)
    assert caught.value.code == "bad-schedule"


def test_a_local_time_on_a_day_that_never_was_is_refused() -> None:
    """There is no sensible instant near it."""
    with pytest.raises(Refusal):
        parse_time("2011-12-30 12:00", "Pacific/Apia", ANCHOR_AT)


@pytest.mark.parametrize(
    ("text", "seconds", "shortest"),
    [("30s", 30, "30s"), ("5m", 300, "5m"), ("1h", 3600, "1h"), ("2d", 172_800, "2d"),
     ("1h30m", 5400, "1h30m"),
     ("250ms", 0.25, "250ms"), ("90", 90, "1m30s"), ("0.5", 0.5, "500ms"), ("0", 0, "0s"),
     ("25h", 90_000, "1d1h")],
)  # fmt: skip
def test_durations(text: str, seconds: float, shortest: str) -> None:
    """Read in every unit, written in the shortest form."""
    assert seconds == parse_duration(text)
    assert shortest == format_duration(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "s", "1x", "-1s", "1.5h", "30m1h", "1h1h", "1 h", "1H", "nan", "inf", "1e3", "99999d", "5m\n"],
)
def test_durations_in_other_forms_are_refused(text: str) -> None:
    """A wrong duration is a timeout that never comes."""
    with pytest.raises(Refusal) as caught:
        parse_duration(text)
    assert caught.value.code == "bad-option"


@given(st.integers(min_value=0, max_value=zones.MAX_DURATION_S * 1000))
def test_a_formatted_duration_is_read_back(ms: int) -> None:
    """tasks.db is written with one and read with the other."""
    assert ms / 1000 == parse_duration(format_duration(ms / 1000))


# --- which zone data ----------------------------------------------------------------------


@pytest.fixture
def zone_dir(tmp_path: Path) -> Iterator[Path]:
    """A directory of zones of its own, and an empty one before it."""
    (tmp_path / "zones").mkdir()
    (tmp_path / "zones" / "UTC").touch()
    zoneinfo.reset_tzpath([tmp_path / "nothing", tmp_path / "zones"])
    reload_zones()
    yield tmp_path / "zones"
    zoneinfo.reset_tzpath()
    reload_zones()


@pytest.mark.parametrize(
    ("file", "text", "version"),
    [
        ("tzdata.zi", "# version 2025b\n# This zic input file is in the public domain.\n", "2025b"),
        ("tzdata.zi", "# no word of it\n", "unknown"),
        ("+VERSION", "2024a\n", "2024a"),
        ("README", "2024a\n", "unknown"),
    ],
)
def test_zone_data_says_its_version(zone_dir: Path, file: str, text: str, version: str) -> None:
    """Two machines that disagree about a time can be compared."""
    (zone_dir / file).write_text(text)
    assert data_version() == f"{version} {zone_dir}"


def test_the_version_is_that_of_the_data_in_use_and_not_of_what_came_since(zone_dir: Path) -> None:
    """The system's update is in force after HUP only."""
    (zone_dir / "+VERSION").write_text("2024a")
    assert data_version() == f"2024a {zone_dir}"
    (zone_dir / "+VERSION").write_text("2025b")
    assert data_version() == f"2024a {zone_dir}"
    reload_zones()
    assert data_version() == f"2025b {zone_dir}"


def test_without_the_system_s_zones_the_package_s_are_named(zone_dir: Path) -> None:
    """As in a container that has nothing but Python."""
    (zone_dir / "UTC").unlink()
    version, _, place = data_version().partition(" ")
    assert (version[:2], place) == ("20", "package tzdata")


def test_a_long_text_that_is_no_zone_is_not_remembered() -> None:
    """256 of them were, which was 67 MB for whoever kept asking."""
    text = "Europe/" + "x" * 60_000
    before = sys.getrefcount(text)
    with suppress(Refusal):
        parse_zone(text)
    assert sys.getrefcount(text) == before


@pytest.mark.parametrize("name", ["a/" * 30_000 + "a", "Europe/" + "x" * 60_000, "a" * 65])
def test_a_long_name_is_no_zone(name: str) -> None:
    """With a thousand slashes it was an error of ours: to look for it takes a call for each."""
    with pytest.raises(Refusal, match="is not a zone of the tz database"):
        parse_zone(name)


def test_a_zone_that_counts_leap_seconds_is_refused_with_the_one_that_does_not() -> None:
    """It was taken, and its next moments were an hour off in winter."""
    with pytest.raises(Refusal, match="counts leap seconds; did you mean Europe/Paris"):
        parse_zone("right/Europe/Paris")


def test_every_zone_has_a_name_that_is_short_enough() -> None:
    """None that there is may be refused for its length."""
    assert max(map(len, zoneinfo.available_timezones())) < zones.MAX_ZONE


def test_a_zone_that_is_known_is_not_lost_for_want_of_a_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """HUP reads all zones again; without a descriptor it ended the daemon, or took tasks for unreadable."""

    def none_left(name: str) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    known = zones.load_zone("Europe/Paris")
    zones.load_zone.cache_clear()
    with monkeypatch.context() as without:
        without.setattr(zones.zoneinfo, "ZoneInfo", none_left)
        assert zones.load_zone("Europe/Paris") is known
        with pytest.raises(Refusal, match='tz "Asia/Nowhere": Too many open files'):
            zones.load_zone("Asia/Nowhere")
    zones.load_zone.cache_clear()
