"""skip=: lists of dates, public holidays, and what happens where one is missing."""

from __future__ import annotations

import builtins
import os
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from cronflowd.base.errors import Refusal
from cronflowd.host import calendar_files
from cronflowd.host.calendar_files import read_calendars, refresh_calendars
from cronflowd.schedules.calendars import (
    Calendar,
    Calendars,
    find_holidays,
    parse_calendar_names,
    parse_dates,
)

NOEL = date(2026, 12, 25)


def dates(*lines: str) -> Calendar:
    return parse_dates([line.encode() for line in lines], "closed.txt", (0, 0))


def test_a_list_of_dates_is_read_with_its_remarks() -> None:
    """The remark is what RUNS and the log can tell of a day off."""
    found = dates("\ufeff# our own", "", "2026-12-25  # Christmas", " 2026-12-31\r")
    assert found.names == {NOEL: "Christmas", date(2026, 12, 31): ""}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("25.12.2026", 'closed.txt line 2: "25.12.2026" is not a date: write it as 2026-12-24'),
        ("2026-02-30", 'closed.txt line 2: "2026-02-30" is not a date: day is out of range for month'),
        ("2026-12-25 2026-12-26", 'closed.txt line 2: "2026-12-25 2026-12-26" is not a date'),
        ("20261225", 'closed.txt line 2: "20261225" is not a date'),
        ("\x1b[31m", 'closed.txt line 2: "\\x1b[31m" is not a date'),
    ],
)
def test_a_line_that_is_no_date_is_named(line: str, why: str) -> None:
    """One wrong line in a list of closing days must be found without searching."""
    with pytest.raises(Refusal, match="line 2") as caught:
        dates("2026-12-24", line)
    assert caught.value.code == "bad-line"
    assert caught.value.message.startswith(why)


@pytest.mark.parametrize("text", ["holidays:FR", "holidays:DE-BY", "holidays:NYSE", "file:closed.txt,file:a"])
def test_names_of_calendars(text: str) -> None:
    """A name that is taken comes back in GET and tasks.db as it was written."""
    assert ",".join(parse_calendar_names(text)) == text


@pytest.mark.parametrize(
    "text", ["holidays:", "holidays:fr", "file:", "file:a/b", "file:..", "file:.x", "x", "FR"]
)
def test_what_is_no_name_of_a_calendar(text: str) -> None:
    """Nothing outside the data directory can be named, and no slip of the hand means "never off"."""
    with pytest.raises(Refusal) as caught:
        parse_calendar_names(text)
    assert caught.value.code == "bad-option"


def test_public_holidays_by_country_part_and_exchange() -> None:
    """The three kinds of codes that the package knows."""
    assert find_holidays("holidays:FR").names.get(NOEL) == "Christmas Day"
    corpus_christi = date(2026, 6, 4)
    assert find_holidays("holidays:DE").names.get(corpus_christi) is None
    assert find_holidays("holidays:DE-BY").names.get(corpus_christi)
    assert find_holidays("holidays:NYSE").names.get(date(2026, 11, 26))


@pytest.mark.parametrize("language", ["fr", "uk", "en_GB", "C"])
def test_a_holiday_is_called_the_same_whatever_the_locale(
    monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    """A notice that says Noël here and Christmas Day there is not found again; Pythons differ in C.UTF-8."""
    monkeypatch.setenv("LANGUAGE", language)
    assert find_holidays("holidays:FR").names.get(NOEL) == "Christmas Day"
    assert find_holidays("holidays:DE-BY").names.get(date(2026, 6, 4)) == "Corpus Christi"
    assert find_holidays("holidays:XNYS").names.get(date(2026, 11, 26)) == "Thanksgiving Day"


@pytest.mark.parametrize("name", ["holidays:ZZ", "holidays:DE-QQ", "holidays:NYSE-X"])
def test_a_country_that_is_not_there_is_refused(name: str) -> None:
    """A calendar without a single day off would be believed to have some."""
    with pytest.raises(Refusal, match=name) as caught:
        find_holidays(name)
    assert caught.value.code == "bad-option"


def test_without_the_package_holidays_are_refused_and_it_is_said_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The package is optional."""
    real = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name == "holidays":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(Refusal, match=r"pip install 'cronflowd\[holidays\]'"):
        find_holidays("holidays:FR")


def test_days_off_of_several_calendars_in_order() -> None:
    """Each day once, whichever calendar knows it first gives the reason."""
    calendars = Calendars()
    calendars.known = {"file:a": dates("2026-12-25 # ours"), "holidays:FR": find_holidays("holidays:FR")}
    names = ("file:a", "holidays:FR", "file:unknown")
    assert calendars.day_off(names, NOEL) == "file:a (ours)"
    assert calendars.day_off(names, date(2026, 12, 26)) is None
    found = calendars.days_off(names, date(2026, 11, 1), date(2027, 1, 1))
    assert found == [date(2026, 11, 1), date(2026, 11, 11), NOEL, date(2027, 1, 1)]


def test_an_edited_file_is_read_again_and_a_broken_one_stays_as_it_was(tmp_path: Path) -> None:
    """A day off must not come to life again because somebody slipped while editing."""
    file, calendars = tmp_path / "closed.txt", Calendars()
    name = ["file:closed.txt"]
    calendars.known |= refresh_calendars(tmp_path, calendars, name)
    assert calendars.troubles == {"file:closed.txt": f"skip=: there is no closed.txt in {tmp_path}"}
    file.write_text("2026-12-24\n")
    calendars.known |= refresh_calendars(tmp_path, calendars, name)
    assert not calendars.troubles
    file.write_text("2026-12-24\nnonsense\n")
    calendars.known |= refresh_calendars(tmp_path, calendars, name)
    assert "line 2" in calendars.troubles["file:closed.txt"]
    assert calendars.day_off(name, date(2026, 12, 24))
    file.unlink()
    calendars.known |= refresh_calendars(tmp_path, calendars, name)
    assert calendars.day_off(name, date(2026, 12, 24))
    assert "there is no" in calendars.troubles["file:closed.txt"]


def test_a_file_that_cannot_be_read_is_not_read_again_before_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bad line must not cost a parse of the whole file whenever something is due."""
    file, calendars, name = tmp_path / "closed.txt", Calendars(), ["file:closed.txt"]
    file.write_text("2026-12-24\nnonsense\n")
    reads: list[str] = []
    real = calendar_files.read_calendars

    def counting(data: Path, names: list[str]) -> Any:
        reads.extend(names)
        return real(data, names)

    monkeypatch.setattr(calendar_files, "read_calendars", counting)
    for _ in range(100):
        calendars.known |= refresh_calendars(tmp_path, calendars, name)
    assert len(reads) == 1
    file.write_text("2026-12-24\n")
    calendars.known |= refresh_calendars(tmp_path, calendars, name)
    assert not calendars.troubles
    assert len(reads) == 2


def test_a_calendar_is_a_file_of_a_sensible_size(tmp_path: Path) -> None:
    """A pipe would be waited for, and a disk image read."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "big").write_bytes(b"#" * 1_048_577)
    for name, code in (("file:pipe", "bad-option"), ("file:big", "too-long")):
        with pytest.raises(Refusal) as caught:
            read_calendars(tmp_path, [name])
        assert caught.value.code == code
