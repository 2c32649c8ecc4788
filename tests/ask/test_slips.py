"""A slip of the hand is refused with the way to write it; what is only strange is carried out."""

from __future__ import annotations

import re

import pytest

from cronflowd.ask import commands
from cronflowd.schedules.schedule import parse_schedule
from cronflowd.tasks.slips import remarks
from tests.lib.lines import CONTEXT, refusal


@pytest.mark.parametrize(
    "word",
    ["*", "*/5", "?", "0-5", "0,30", "0-59/5", "*,5", "MON", "sun", "MON-FRI", "mon,wed,fri", "5L",
     "friL",
     "5#2", "1", "30"],
)  # fmt: skip
def test_a_command_that_can_only_be_a_sixth_field_is_refused(word: str) -> None:
    """`0 0 3 * * *` is a schedule elsewhere; here it would be `* /usr/bin/backup`, once a month."""
    said = refusal(f"ADD 0 0 3 * * {word} /usr/bin/backup")
    assert f'syntax "{word}" is no command' in said
    six = re.search('six fields in double quotes, as in "(.*?)"', said)
    assert six and {*six[1].split()} == {*f"0 0 3 * * {word}".replace("?", "*").split()}
    commands.parse(f'ADD "{six[1]}" /usr/bin/backup', CONTEXT)


@pytest.mark.parametrize("word", ["*5", "0/5", "15W", "2026", "2026-2030"])
def test_an_example_that_would_be_refused_is_not_given(word: str) -> None:
    """Nobody is sent from one refusal into the next; of a year it is told what there is instead."""
    said = refusal(f"ADD 0 0 3 * * {word} /usr/bin/backup")
    assert f'syntax "{word}" is no command' in said and "as in" not in said
    assert ("a schedule has none" in said) is word.startswith("2026")


@pytest.mark.parametrize(
    "command",
    ["7z a x.7z /srv", "2to3 x.py", "2048", "0install run x", "[ -f x ] && y", "mon -d", "w | mail root",
     "1 --help",
     "a2ps *", "-x", "5000 /x", "monit reload", "sunwait wait"],
)  # fmt: skip
def test_a_program_is_called_whatever_it_is_called(command: str) -> None:
    """A wrong refusal is worse than none: it stands between somebody and their job."""
    assert commands.parse(f"ADD 0 3 * * * {command}", CONTEXT).spec.command == command


@pytest.mark.parametrize(
    "line",
    ['ADD "0 3 * * *" * /usr/bin/backup', 'ADD {"schedule": "0 3 * * *", "command": "* x"}',
     "ADD type=calculate 0 3 * * * 1-5", "ADD type=sleep 0 3 * * * 5", "ADD type=echo 0 3 * * * */5 x",
     "ADD 0 3 * * * count=$(ls | wc -l); echo $count", "ADD 0 3 * * * FOO=1 x", "ADD @daily atd -f",
     "ADD @every 90s minutes-of-meeting", "NOW 5", "ADD @hourly sync", "ADD @every 5 backup",
     "ADD @daily saturday.sh x", "ADD @daily holiday x",
     "ADD @daily the x", 'ADD "daily at 9:00" at.sh now', 'ADD "every 5 minutes" on_push x',
     "NOW every", "NOW daily.sh",
     "ADD @daily at -f x now", 'ADD "every 5 minutes" in x', "ADD 0 3 * * * bin/backup x",
     "NOW in.sh 5 minutes",
     "ADD 0 3 * * * Europe/x.sh y", 'AT "in 10 minutes" echo 0 3 * * * x'],
)  # fmt: skip
def test_what_nobody_can_take_for_a_slip_is_taken(line: str) -> None:
    """In quotes and in JSON it is clear what the schedule is; other types have no programs."""
    commands.parse(line, CONTEXT)


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("ADD @every 5 minutes backup", '"every 5 minutes"'), ("ADD @every 1h 30m backup", '"every 1h 30m"'),
        ("ADD @daily at 9:00 backup", '"daily at 9:00"'), ("ADD @daily 9:00 backup", '"daily at 9:00"'),
        ("ADD @weekly on monday backup", "double quotes"), ("ADD @daily at 3 AM backup", "double quotes"),
        ("ADD @every 2 h backup", '"every 2 h"'), ("ADD @weekly monday backup", "double quotes"),
        ("ADD @monthly 15 backup", "double quotes"), ("ADD @reboot @daily x", "double quotes"),
        ("ADD 0 3 * * * 0 backup", '"0 3 * * * 0"'), ("ADD */10 * * * * * backup", '"* * * * * */10"'),
        ("ADD @daily at 9 backup", "double quotes"), ("ADD 30 2 * * * Europe/Paris x", "tz=Europe/Paris"),
        ("ADD 30 2 * * * UTC x", "tz=UTC"), ("ADD @daily America/New_York x", "tz=America/New_York"),
        ('ADD "every 5 minutes" on weekdays x', '"every 5 minutes on weekdays"'),
        ('ADD "daily" at 9:00 x y', '"daily at 9:00"'),
        ('ADD "every 15 minutes" between 9:00 and 17:00 x', '"every 15 minutes between 9:00 and 17:00"'),
        ('ADD "daily at 9:00" tz=Europe/Paris x', "options stand before the schedule"),
        ('ADD "daily at 9:00" name=x y', "options stand before the schedule"),
        ('ADD "daily at 9:00" --retry 3 x', "as retry=VALUE"),
        ("NOW every 5 minutes x", "a schedule belongs to ADD"),
 ('NOW "daily" x', "a schedule belongs to ADD"),
        ("NOW daily at 9 x", "a schedule belongs to ADD"), ("NOW in 5 minutes x", 'AT "in 5 minutes"'),
        ("NOW tomorrow at 9 x", "AT"), ("AT 2030-06-01 10:00 x", '"2030-06-01 10:00"'),
        ("RUN *", "name=*"), ("RUN all", "name=*"), ("REMOVE web*", "name=web*"),
        ("SET all timeout=5m", "name=*"),
        ("PAUSE web* db", "name=web*"), ("RESUME web?", "name=web?"), ("REMOVE all", "name=*"),
        ("ADD name=my job @daily y", 'name="my job"'), ("ADD timeout=5 min @daily y", 'timeout="5 min"'),
        ("ADD tz = UTC @daily x", "without blanks"), ("ADD replace=yes paused=yes name=x @daily x",
        "say PAUSE"),
        ("ADD paused=yes", "no schedule"), ("ADD paused=maybe @daily x", "paused=: "),
        ("ADD --name x @daily y", "name=VALUE"),
        ("SET x timeout 5m", "timeout=VALUE"), ("IMPORT --dryrun x", "did you mean dry-run?"),
        ("ADD 0 3 * * * --retry 3 backup", "as retry=VALUE"), ("ADD @daily --name=x backup", "as name=VALUE"),
        ("ADD @daily name=x backup", "options stand before the schedule"),
        ("ADD 0 3 * * * timeout=30s backup", "options stand before the schedule"),
        ("NOW 0 3 * * * backup", "a schedule belongs to ADD"), ("NOW @daily backup",
        "a schedule belongs to ADD"),
        ('AT "tomorrow at 8 AM" 0 3 * * * x', "a schedule belongs to ADD"),
        ("AT tomorrow at 8 AM x", "stands in double quotes"), ("AT in 10 minutes x",
        "stands in double quotes"),
        ("AT 'tomorrow at 8 AM' x", '" is'), ("AT 18:00 x", '"today at 18:00"'),
        ("ADD 'every 5 minutes' x", "double quotes"), ("ADD “every 5 minutes” x", "double quotes"),
        ("ADD desc='my job' @daily x", 'quotes are "'), ("ADD desc=“my job” @daily x", 'quotes are "'),
        ('ADD "0 3 * * * backup', "no closing quote"), ('ADD desc="x @daily y', "no closing quote"),
        ("ADD backup.sh 0 3 * * *", "0 3 * * * stands before the command"),
        ("ADD backup.sh @daily", "@daily stands before the command"),
        ('ADD schedule="0 3 * * *" x', "stands by itself"), ("ADD command=x @daily", "stands by itself"),
        ("ADD 3 25 * * * x", "the minute comes first"), ("ADD 0 0 1 15 * x", "the day of month comes first"),
        ("ADD 0\u00a03 * * * x y", "looks like a blank"), ("ADD 0 9 * * 1–5 x", "\\u2013"),
        ("SET x schedule=0 4 * * *", 'schedule="0 4 * * *"'),
        ("SET x command=echo hi there", 'command="echo hi there"'),
        ("SET x desc=a b timeout=5m", 'desc="a b"'), ("PAUSE x why=disk is full", 'why="disk is full"'),
        ("RUN x arg.M=hello world", 'arg.M="hello world"'), ("RUNS since=2 hours ago", 'since="2 hours ago"'),
        ("0 3 * * * /usr/bin/backup", "IMPORT"), ("*/5 * * * * x", "IMPORT"), ("@daily x", "IMPORT"),
        ("MAILTO=root", "IMPORT"), ("PATH = /bin", "IMPORT"), ('{"schedule": "@daily"}', "ADD"),
        ("ADD {'schedule': '@daily'}", 'quotes are "'), ("ADD {“schedule”: “@daily”}", 'quotes are "'),
        ('"LIST"', "without quotes"), ("“LIST”", "without quotes"), ("ADD\u00a00 3 * * * x",
        "looks like a blank"),
    ],
)  # fmt: skip
def test_a_slip_is_refused_with_the_way_to_write_it(line: str, hint: str) -> None:
    """Whoever made it is still there, and reads how it is meant to be."""
    assert hint in refusal(line)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ('x why="see why=y and z"', "see why=y and z"),
        ('x "y" why="until=2h at most" z', "until=2h at most"),
        ("why=moved x y", "moved"),
    ],
)
def test_what_stands_in_quotes_or_before_the_tasks_is_no_rest_of_a_reason(words: str, why: str) -> None:
    """The reason ends where its quotes do, whatever it says."""
    assert commands.parse(f"PAUSE {words}", CONTEXT).why == why


def test_a_mark_of_byte_order_is_no_part_of_the_verb() -> None:
    """Some editors begin every file with it, and nobody sees it."""
    assert commands.find_verb("\ufeffPING")[0] is commands.VERBS["PING"]


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ('echo "hi', "not closed"), ("echo it's", "not closed"), ("echo “hi”", "“"), ("cp a ‘b c’", "‘"),
        ("root /usr/bin/backup", "--system"), ("# backup", "a comment"), ("&& backup", "refuse"),
        ("| wc", "refuse"), ("; x", "refuse"),
        ('"echo hi"', "in quotes"), ("'/usr/bin/backup --all'", "in quotes"),
    ],
)  # fmt: skip
def test_a_doubtful_command_is_remarked_on(command: str, word: str) -> None:
    """It stays byte for byte what it was; but who wrote it may want to know."""
    assert [text for text in remarks("shell", command, "@daily") if word in text]


@pytest.mark.parametrize(
    "command",
    [
        "echo it\\'s",
        "echo 'a' \"b\"",
        'echo "it\'s"',
        "echo hi # it's",
        "printf $'it\\'s'",
        "root -b -q x.C",
        '"backup"',
        '"$HOME/my backup"',
        '"/srv/my backup" --all',
        "'a' b 'c'",
        "a \\",
    ],
)
def test_a_good_command_is_not(command: str) -> None:
    """A remark that is wrong is soon not read any more."""
    assert not list(remarks("shell", command, "@daily"))


@pytest.mark.parametrize(
    ("schedule", "meant"),
    [
        ("0 0 9 * * 1", "0 9 * * 1"), ("0 */5 * * * *", "*/5 * * * *"), ("00 30 11 * * 1-5", "30 11 * * 1-5"),
        ("30 0 9 * * MON,FRI", "0 9 * * MON,FRI 30"), ("*/10 * * * * *", "* * * * * */10"),
        ("0 9 * * * 30", ""), ("30 2 * * * 5", ""), ("* * * * * */10", ""), ("* * * * * *", ""),
        ("0 9 * * 1", ""), ("0 3 1 * * 15", ""),
    ],
)  # fmt: skip
def test_seconds_that_were_meant_to_stand_first_are_remarked_on(schedule: str, meant: str) -> None:
    """`0 0 9 * * 1`, which elsewhere is Monday at nine, is here the second after midnight of each ninth."""
    found = list(remarks("http", "GET http://a/", schedule))
    assert [text.partition("say ")[2] for text in found] == ([f'"{meant}"'] if meant else [])
    assert not meant or parse_schedule(meant, "UTC")
