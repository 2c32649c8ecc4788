"""Phrases that are refused: what has two meanings or none, by the word that is to blame."""

from __future__ import annotations

import re

import pytest

from cronflowd.base.errors import Refusal
from cronflowd.schedules.english import parse_moment
from cronflowd.schedules.schedule import parse_schedule
from cronflowd.schedules.words import named_zone
from tests.schedules.test_english import ADDED_AT

REFUSED = [
    ("biweekly", "biweekly", "twice a week or every 2 weeks"),
    ("bimonthly on the 1st", "bimonthly", "twice a month or every 2 months"),
    ("quarterly", "quarterly", "names no day"),
    ("fortnightly", "fortnightly", "every 2 weeks on friday"),
    ("every fortnight", "fortnight", "every 2 weeks on friday"),
    ("every decade", "decade", "not one of seconds, minutes, hours, days and weeks"),
    ("nightly", "nightly", "names no time"),
    ("next monday at 9:00", "next", "nearest one or the one after"),
    ("weekly at 9:00", "weekly", "on which day of the week"),
    ("every week", "every week", "on which day of the week"),
    ("every week at 9:00", "every week", "on which day of the week"),
    ("monthly at 6:00", "monthly", "on which day"),
    ("every month", "every month", "on which day"),
    ("every month at noon", "every month", "on which day"),
    ("yearly at 6:00", "yearly", "on which date"),
    ("every year", "every year", "on which date"),
    ("yearly on monday", "yearly", "on which date"),
    ("yearly on the 1st", "yearly", "on which date"),
    ("every 2 weeks", "every 2 weeks", "on which day of the week"),
    ("every 2 months on the 15th", "every 2 months", "counted from when"),
    ("every 2 years on december 24", "every 2 years", "counted from when"),
    ("twice a week", "twice", "on which day of the week"),
    ("5 times a day", "5", "not whole minutes or hours apart"),
    ("twice a day at 9:00", "twice", "but at 1"),
    ("monday at 9:00", "monday", "once, or each time"),
    ("on monday at 9:00", "monday", "once, or each time"),
    ("on december 24 at 6 PM", "december", "once, or each time"),
    ("december 24", "december", "say yearly on december 24"),
    ("february 30", "february", "say yearly on february"),
    ("24th of december", "24th", "once, or each time"),
    ("first monday at 9:00", "first", "once, or each time"),
    ("at 9:00", "at", "once, or each time"),
    ("every 2 weekend at 9:00", "weekend", "needs seconds"),
    ("every second monday", "second", "every 2 weeks on monday, or 2nd monday"),
    ("every first monday", "first", "of every month"),
    ("every minutes", "minutes", "every how many"),
    ("every 5", "5", "needs seconds, minutes"),
    ("every", "every", "something is missing"),
    ("every 0 minutes", "0", "too few"),
    ("every -5 minutes", "-", "is not a day"),
    ("every 99999999999999 seconds", "99999999999999", "too many"),
    ("every 900000000 minutes", "every 900000000 minutes", "longer than"),
    ("every 400 days", "every 400 days", "at most 366 days"),
    ("every 2 fridays", "fridays", "needs seconds, minutes"),
    ("every 5 minutes please", "please", "not understood"),
    ("every 5 minutes and", "and", "not understood"),
    ("every day, every monday", "every monday", "has said already how often"),
    ("every day at 9:00 at 10:00", "at", "said already"),
    ("every day at 9:00 or 10:00", "or", "not understood"),
    ("every monday on friday", "friday", "said already"),
    ("every monday on the 15th", "15th", "said already"),
    ("every day on monday", "every day", "does not go with"),
    ("monthly on monday", "monthly", "on which day"),
    ("monthly on the 15th of june", "monthly", "does not go with"),
    ("monthly on the 31st", "31st", "not every month has one"),
    ("monthly on the 32nd", "32nd", "no such day"),
    ("monthly on the 2th", "2th", "no such day"),
    ("yearly on february 29", "29th", "not every february has one"),
    ("yearly on 31 june", "31st", "not every june has one"),
    ("fifth friday of the month", "fifth", "not every month has"),
    ("second weekday of the month", "weekday", "the first and the last weekday"),
    ("last of the month", "of", "last day or last monday"),
    ("daily at 25:00", "25:00", "no such time"),
    ("daily at 24:00", "24:00", "no such time"),
    ("daily at 9:60", "9:60", "no such time"),
    ("daily at 13 PM", "13 PM", "no such time"),
    ("daily at 0 AM", "0 AM", "no such time"),
    ("daily at 9:5", "9:5", "not a time"),
    ("daily at dawn", "dawn", "name the time"),
    ("daily at lunch", "lunch", "not a time"),
    # what people type, and the way to say it
    ("noon", "noon", "say daily noon"),
    ("at 9:00", "at", "say daily at 9:00"),
    ("on the 15th at 6:00", "15th", "say monthly on the 15th at 6:00"),
    ("on the 30th and 31st at 6:00", "30th", "say last day of the month"),
    ("on the 31st at 6:00", "31st", "say last day of the month"),
    ("on february 30 at 6:00", "30th", "say last day of the month"),
    ("15th to 3rd at 6:00", "3rd", "not a later day"),
    ("every day from june to sunday", "sunday", "not a month"),
    ("tuesday at 9", "tuesday", "say weekly tuesday at 9"),
    ("at 8am, noon and 6pm", "at", "say daily at 8 am, noon and 6 pm"),
    ("every 3 months", "every 3 months", "january, april, july, october"),
    ("every few minutes", "few", "say how many"),
    ("5 minutes after midnight every day", "after", "daily at 0:05"),
    ("every weekday at 9:00 and every weekend at 11:00", "and", "two tasks"),
    ("bi-weekly on friday", "bi", "say which"),
    ("daily at 9:00 GMT+2", "+", "name a zone"),
    ("daily at 9:00 +02:00", "+", "name a zone"),
    ("Europe/Paris daily at 9:00", "europe", "at the end"),
    ("daily at 9:00 local time", "local", "leave it out"),
    ("cron(0 9 ? ? ?)", "cron", "five fields alone"),
    ("never", "never", "paused=yes"),
    ("on december 25 at 8:00", "december", "say yearly on december 25 at 8:00"),
    ("daily 9", "9", "a time is at 9:00"),
    ("5 minutes", "5", "say every 5 minutes"),
    ("every second day", "second", "say every 2 days"),
    ("every 2nd day at 9:00", "2nd", "say every 2 days"),
    ("every 2nd day", "2nd", "say every 2 days"),
    ("every third hour", "third", "say every 3 hours"),
    ("every tuesday of the month", "every tuesday", "say first tuesday"),
    ("every hour at :10 and :20", "every hour", "10,20 * * * *"),
    ("every 5 hours at :30", "every 5 hours", "cron's fields"),
    ("daily at :30", "daily", "say every hour at :30"),
    ("every hour at :60", ":60", "not a minute"),
    ("every quarter", "quarter", "every 15 minutes"),
    ("every hour and a half", "half", "every 90 minutes"),
    ("every 1.5 hours", ".", "every 90 minutes"),
    ("every fortnight", "fortnight", "every 2 weeks on friday"),
    ("every morning", "morning", "daily at 9:00"),
    ("end of month", "end", "last day of the month"),
    ("every day except sunday", "except", "name the days"),
    ("every 5 minutes until 17:00", "until", "between 9:00 and 17:00"),
    ("every 15 minutes during business hours", "during", "between 9:00 and 17:00 on weekdays"),
    ("at startup", "startup", "@reboot"),
    ("christmas", "christmas", "december 25"),
    ("evry 5 minutes", "evry", "did you mean every?"),
    ("every 5 minuts", "minuts", "did you mean minutes?"),
    ("every wednessday at 9:00", "wednessday", "did you mean wednesday?"),
    ("yearly on febuary 3", "febuary", "did you mean february?"),
    ("daily at 9:00 Paris", "paris", "did you mean Europe/Paris?"),
    ("daily at 9:00 in Paris", "paris", "did you mean Europe/Paris?"),
    ("daily at 9am PST", "pst", "did you mean America/Los_Angeles?"),
    ("daily at", "at", "something is missing"),
    ("daily at 9 and 5 PM", "9", "AM or PM"),
    ("every hour between 9 and 5 PM", "9", "AM or PM"),
    ("every hour between 9 and 5", "5", "not after the time before it"),
    ("every hour between 22:00 and 6:00", "6:00", "not after the time before it"),
    ("every hour between 18:00 and midnight", "midnight", "not after the time before it"),
    ("every hour between 9:00 to 17:00", "to", "and was expected"),
    ("daily between 9:00 and 17:00", "between", "every so many"),
    ("every 5 minutes at 9:00", "every 5 minutes", "no time of day"),
    ("every 2 hours between 9:00 and 10:00", "every 2 hours", "longer than what lies between"),
    ("every 7 hours on weekdays", "every 7 hours", "does not divide a day"),
    ("every 2 days in june", "every 2 days", "does not go with"),
    ("daily in Paris", "paris", "a zone like Europe/Paris"),
    ("daily in Europe/Atlantis", "Europe/Atlantis", "not a zone"),
    ("in Europe/Paris daily", "europe", "a zone like Europe/Paris"),
    ("in 10 minutes", "in", "counts from now"),
    ("tomorrow at 8 AM", "tomorrow", "counts from now"),
    ("now", "now", "counts from now"),
    ("jeden Tag um 9:00", "jeden", "not understood"),
    ("évery day", "évery", "not one of the words"),
    ("every dаy", "dаy", "not one of the words"),  # the a is Cyrillic
    ("every ٥ minutes", "٥", "not one of the words"),  # an Arabic five
    ("every 5 minutes; rm", ";", "not understood"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "word", "why"), REFUSED)
def test_what_may_be_meant_in_two_ways_or_in_none_is_refused_by_name(text: str, word: str, why: str) -> None:
    """A guess would run a job at a time nobody asked for; the word tells what to mend."""
    with pytest.raises(Refusal) as caught:
        parse_schedule(text, "Europe/Paris")
    assert caught.value.code == "bad-schedule"
    assert caught.value.message.startswith(f'"{word}": ')
    assert why in caught.value.message


@pytest.mark.parametrize(
    "text", [text for text, _, why in REFUSED if "once, or each" in why] + ["noon", "at 9"]
)
def test_the_way_to_say_it_is_understood(text: str) -> None:
    """Whoever types what the refusal proposes must not be refused again."""
    with pytest.raises(Refusal) as caught:
        parse_schedule(text, "UTC")
    if match := re.search("say ((?:dai|week|month|year)ly .*)", caught.value.message):
        assert parse_schedule(match[1], "UTC").rule
    else:
        assert "end with of every month" in caught.value.message


@pytest.mark.parametrize(
    "text", ["a" + " " * 60_000 + "b", "in" + " " * 60_000 + "b", "a " * 30_000, "every/" * 10_000]
)
def test_what_is_too_long_for_a_phrase_is_not_worked_on(text: str) -> None:
    """To look for its zone takes the square of its blanks: minutes for one line, while nobody is answered."""
    assert named_zone(text) is None
    for parse in (parse_schedule, lambda text, tz: parse_moment(text, tz, ADDED_AT)):
        with pytest.raises(Refusal, match="longer than 256"):
            parse(text, "UTC")
