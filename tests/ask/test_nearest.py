"""A refusal names the nearest right word, and HELP has all of them: nc alone is enough."""

from __future__ import annotations

import pytest
from attrs import evolve

from cronflowd.ask import commands, manual
from cronflowd.ask.questions import Help
from cronflowd.base.errors import Refusal
from cronflowd.schedules.zones import find_zones, load_zone
from cronflowd.tasks.kinds import TYPES
from cronflowd.tasks.options import DEFAULTS, RULES, set_options
from tests.lib.lines import CONTEXT, refusal


@pytest.mark.parametrize(
    ("verb", "meant"),
    [("DELETE", "REMOVE"), ("rm", "REMOVE"), ("LOGS", "LOG"), ("KILL", "CANCEL"), ("LS", "LIST"), ("SHOW",
     "LIST"),
     ("LSIT", "LIST"), ("EDIT", "SET"), ("START", "RUN"), ("STOP", "CANCEL"), ("CREATE", "ADD"),
     ("REMVOE", "REMOVE"),
     ("exit", "QUIT"), ("RESTORE", "LOAD"), ("SUSPEND", "PAUSE"), ("UNPAUSE", "RESUME"), ("REVERT", "UNDO"),
     ("STATE", "STATUS"), ("CHANGELOG", "HISTORY"), ("SECURITY", "AUDIT"), ("ACCOUNTS", "USER"),
     ("PASSWD", "USER"),
     ("ME", "WHOAMI"), ("HEARTBEAT", "BEAT"),
     ("AGENTS", "WORKERS"), ("CALENDAR", "NEXT"), ("ANALYTICS", "STATS"), ("ROLE", "USER"),
     ("VERSIONS", "HISTORY"), ("?", "HELP")],
)  # fmt: skip
def test_an_unknown_verb_names_the_nearest(verb: str, meant: str) -> None:
    """People come from other systems, and nobody reads a manual for one word."""
    said = refusal(f"{verb} x")
    assert said.startswith(f'unknown-command "{verb}" is not a command')
    assert said.endswith(f"did you mean {meant}?") or verb == "?"


@pytest.mark.parametrize("word", ["foo", "xyzzy", "POWEROFF", "é" * 40, "x" * 60_000])
def test_what_is_near_to_nothing_gets_no_guess(word: str) -> None:
    """A wrong guess costs more than none; and a long word must not cost its square."""
    assert "did you mean" not in refusal(word)


@pytest.mark.parametrize(
    ("words", "meant"),
    [("retries=3", "retry="), ("priority=high", "prio="), ("timezone=UTC", "tz="), ("overlap=forbid", "skip"),
     ("depends_on=a", "after="), ("tag=a", "tags="), ("timout=5m", "timeout="), ("description=x", "desc="),
     ("nmae=x", "name="),
     ("concurrency=1", "overlap="), ("workdir=/x", "cwd="), ("max_runs=3", "count="), ("host=pi", "on="),
     ("prio=urgent", "high"), ("prio=normal", "medium"), ("catchup=no", "skip"), ("lost=retry", "rerun"),
     ("type=bash", "shell"), ("type=curl", ""), ("type=htpp", "http"), ("overlap=parallel", "allow"),
     ("timeout=5min", "5m"), ("grace=2w", "14d"), ("retry=3", "fixed:3:10s"), ("retry=0", "none"),
     ("retry=no", "none"), ("retry=fixed:3", "fixed:3:10s"), ("retry=3:5s", "fixed:3:5s"),
     ("retry=exp:5", "exp:5:10s"),
     ("tz=Paris", "Europe/Paris"),
     ("tz=Europe/Pari", "Europe/Paris"), ("tz=new_york", "America/New_York"), ("tz=PST",
     "America/Los_Angeles"),
     ("tz=UTC+2", "Etc/GMT-2"), ("tz=US/Easten", "US/Eastern"), ("tz=Asia/Calcuta", "Asia/Calcutta"),
     ("notify=ops@example.org", "mailto:ops@example.org"), ("notify=email:ops@example.org",
     "mailto:ops@example.org"),
     ("notify=failed:mailto:ops@example.org", "failure"), ("skip=FR", "holidays:FR"),
     ("skip=holidays:de-by", "holidays:DE-BY"), ("on=disk=ssd", "label:disk=ssd"), ("expect=2xx", "200-299")],
)  # fmt: skip
def test_an_unknown_option_or_value_names_the_nearest(words: str, meant: str) -> None:
    """The same for what stands behind the verb."""
    said = refusal(f"ADD {words} @daily x")
    assert said.endswith(f"did you mean {meant}?") if meant else "did you mean" not in said


@pytest.mark.parametrize(
    ("words", "hint"),
    [("PATH=/bin", "env.PATH="), ("NAME=x", "did you mean name=?"), ("TIMEOUT=5s", "env.TIMEOUT="),
     ("state=paused", "ADD paused=yes"),
     ("enabled=no", "paused=yes"), ("jobName=x", "name="),
     ("env=A", "env.NAME="), ("cmd=x", "after the schedule")],
)  # fmt: skip
def test_what_is_said_elsewhere_is_told_where(words: str, hint: str) -> None:
    """There is no such option, but there is the thing."""
    assert hint in refusal(f"ADD {words} @daily x")


@pytest.mark.parametrize(
    "line", ["ADD cron=@daily x", "ADD cronExpression=@daily x", 'ADD schedule="every 5 minutes" x']
)
def test_a_schedule_that_is_said_as_an_option_is_told_where_it_stands(line: str) -> None:
    """What is left is no schedule then; it was said that this belongs to the value of cron=."""
    assert refusal(line).endswith("the schedule stands by itself after the options")


@pytest.mark.parametrize(
    ("line", "meant"),
    [("LIST state=disabled", "paused"), ("LIST state=enabled", "scheduled"), ("RUNS state=success", "ok"),
     ("RUNS state=failure", "failed"), ("RUNS state=canceled", "cancelled"), ("LIST state=runing", "running"),
     ("STATS by=daily", "day"), ("BEAT x failed", "fail"), ("WATCH jobs", "tasks"), ("LIST tags=a", "tag="),
     ("LIST status=paused", "state="), ("RUNS status=failed", "state="), ("RUNS max=5", "limit="),
     ("PAUSE x reason=disk", "why="), ("RUNS from=today", "since="),
     ("ADD @Daily x", "@daily"), ("ADD 0 9 * * monday x", "mon"), ("ADD 0 9 1 january * x", "jan"),
     ("PAUSE x untill=2h", "until="), ('NEXT "daily at 9:00 in Europe/Pariss"', "Europe/Paris")],
)  # fmt: skip
def test_states_and_the_like_are_named_too(line: str, meant: str) -> None:
    """A closed list of words is everywhere the same kind of thing."""
    if line.startswith("NEXT"):
        line = line.replace("NEXT", "ADD") + " x"
    assert f"did you mean {meant}?" in refusal(line)


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("retries", "retry"),
        ("name", "jobName"),
        ("cron", "schedule"),
        ("cmd", "command"),
        ("jobname", "jobName"),
        ("cronExpression", "schedule"),
        ("retryPolicy", "retry"),
        ("onWorker", "on"),
        ("url", "command"),
    ],
)
def test_so_is_a_key_of_a_record(key: str, meant: str) -> None:
    """In tasks.db, and in what other programs send."""
    line = f'ADD {{"schedule": "@daily", "command": "x", "{key}": "1"}}'
    assert refusal(line) == f'bad-line there is no key "{key}"; did you mean {meant}?'
    line = line.replace(key, "enabled")
    assert refusal(line) == 'bad-line there is no key "enabled"; ADD paused=yes, or later PAUSE and RESUME'


def help_on(word: str) -> list[tuple[str, ...]]:
    return [tuple(row) for row in manual.show(Help(word)).rows if row is not None]


@pytest.mark.parametrize("verb", commands.VERBS)
def test_help_tells_of_every_verb(verb: str) -> None:
    """In any case, and first."""
    assert help_on(verb.lower())[0] == (verb, commands.VERBS[verb].usage, commands.VERBS[verb].summary)


def test_help_add_has_every_option_with_its_form_and_default() -> None:
    """Nobody can guess an option."""
    rows = {word: (form, what) for word, form, what in help_on("ADD")}
    assert {"name=", "paused=", "env.NAME=", "header.NAME=", *(f"{key}=" for key in RULES)} < rows.keys()
    assert all(form and what for form, what in rows.values())
    assert rows["grace="] == ("1h", "how late a moment may still start; at least 1s (default: 1h)")


@pytest.mark.parametrize(
    "word",
    [
        "schedule",
        "time",
        "duration",
        "types",
        "name",
        "env",
        "paused",
        "state",
        "event",
        "since",
        "last",
        "limit",
        "n",
        "by",
        "force",
        "why",
        "options",
        "cron",
        "@daily",
        "phrases",
        "states",
        "times",
        "ref",
        "head",
        "follow",
        '"ADD"',
        *RULES,
        *TYPES,
    ],
)
def test_help_tells_of_every_word(word: str) -> None:
    """Options, types, and what schedules and times look like."""
    assert help_on(word)
    if word.isalpha():
        assert help_on(f"{word}=")[0] in help_on(word.upper())


@pytest.mark.parametrize(
    ("word", "meant"), [("retries", "retry"), ("DELETE", "REMOVE"), ("schedul", "schedule")]
)
def test_help_guesses_too(word: str, meant: str) -> None:
    """It is asked by those who do not know the word."""
    with pytest.raises(Refusal, match=f"did you mean {meant}"):
        help_on(word)


def test_the_forms_that_help_shows_are_good() -> None:
    """An example that is refused teaches nothing."""
    for key, rule in RULES.items():
        for form in rule.form.replace("[EVENT+EVENT:]", "").split("|"):
            text = form.partition("[")[0]
            if not ({*text} & {*"…{"}) and text not in (
                "TEXT",
                "BASE64",
                "TIME",
                "WORKER",
                "N",
                "label:KEY=VALUE",
                "slack+https://",
            ):
                set_options(DEFAULTS, {key: text})


def test_the_list_of_zones_is_one_of_zones() -> None:
    """A guess that is refused in its turn helps nobody."""
    assert len(find_zones()) > 400
    assert all(load_zone(name) for name in find_zones()[::40])


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ('NEXT "0 3 * * *" 3', "n=3"),  # was read as six fields, seconds last
        ("NEXT backup 5", "n=5"),
        ("NEXT @daily 5", "n=5"),
        ("HISTORY backup 5", "limit=5"),
        ("HISTORY backup limit 5", "limit=5"),
        ("RUNS backup limit 5", "limit=5"),
        ("RUNS last 24h", "last=24h"),
        ("RUNS backup 24h", "last=24h"),
        ("RUNS backup state:failed", "state=failed"),
        ("LIST paused", "state=paused"),
        ("LIST web*", "name=web*"),
        ("LIST backup", "name=backup"),
        ("LIST tag:night", "tag=night"),
        ("LIST tag night", "tag=night"),
        ("PROVE 24h", "last=24h"),
        ("FAILED last 24h", "last=24h"),
        ("STATS by hour", "by=hour"),
        ("STATS backup 7d", "last=7d"),
        ("PAUSE backup 2h", "until=2h"),
        ("PAUSE all 2h", "until=2h"),
        ("PAUSE backup for 30min", "until=30min"),
        ("EXPECT offsite 1d", "every=1d"),
        ("EXPECT offsite every 1d", "every=1d"),
        ("HEALTH late 5m", "late=5m"),
        ("WATCH runs id 5", "id=5"),
        ("FORMAT table 100", "width=100"),
        ("DST until 2030", "until=2030"),
        ("RUN backup x=1", "arg.x="),
        ("ADD from=nigthly @daily x", "nightly"),
    ],
)
def test_a_word_that_is_an_option_s_is_told_as_one(line: str, meant: str) -> None:
    """Who knows other programs writes `limit 5`, or the 5 alone."""
    with pytest.raises(Refusal) as caught:
        commands.parse(line, evolve(CONTEXT, templates={"nightly": {}}))
    assert f"did you mean {meant}?" in caught.value.message


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("TEMPLATE ADD t name=x", "name= is said with each ADD"),
        ('TEMPLATE ADD t schedule="@daily"', "schedule= is said with each ADD"),
        ("TEMPLATE ADD t from=u prio=low", "from= is said with each ADD"),
        ('SET x cron="0 4 * * *"', "schedule= is what SET takes"),
        ("SET x cmd=true", "command= is what SET takes"),
        ("SET x id=5", "a task keeps its number"),
        ("UNDO backup", "ROLLBACK REF REV"),
        ('DESCRIBE "0 3 * * *" x', "belongs neither to a task nor to a schedule"),
        ("RUNS since=2026-11-29", '"2026-11-29 00:00"'),
        ('AT "today" x', "as in today at 8 AM"),
    ],
)
def test_what_is_said_otherwise_is_told_how(line: str, hint: str) -> None:
    """The hint must fit the verb at hand: with SET, no schedule stands behind the options."""
    with pytest.raises(Refusal) as caught:
        commands.parse(line, CONTEXT)
    assert hint in caught.value.message


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("DELTE x", "REMOVE"), ("TIRGGER x", "RUN"), ("MOVE x y", "SET"), ("QUEUE", "RUNS"),
        ("PUBLISH e", "EMIT"),
        ("RUNS exitcode=1", "exit="), ("RUNS node=pi", "worker="), ("NEXT x N=3", "n="),
        ("LOG x FD=2", "fd="),
        ("ADD retires=3 @daily x", "retry="), ("ADD time-limit=5m @daily x", "timeout="),
        ("ADD max-runs=3 @daily x", "count="), ("ADD max_concurrency=1 @daily x", "overlap="),
        ("ADD on=lable:disk=ssd @daily x", "label:disk=ssd"), ("ADD tz=utc @daily x", "UTC"),
        ("ADD tz=europe/paris @daily x", "Europe/Paris"), ("ADD 0 9 * * wensday x", "wed"),
        ("ADD 0 9 * * tusday x", "tue"), ("ADD notify=slack:https://x @daily x", "slack+https://…"),
        ("FORMAT jsno", "json"), ("FORMAT csv", "text"), ("BEAT x done", "ok"),
    ],
)  # fmt: skip
def test_slips_in_what_others_call_it_are_understood_too(line: str, meant: str) -> None:
    """A wrong letter in DELETE is still DELETE to who typed it."""
    assert f"did you mean {meant}?" in refusal(line)


@pytest.mark.parametrize(
    ("words", "hint"),
    [("stdout=/x", "LOG keeps"), ("shell=/bin/bash", "bash -c"), ("memory=1G", "ulimit"),
     ("environment=A", "env.NAME=")],
)  # fmt: skip
def test_what_cron_or_others_have_and_we_do_not_is_told_how_to_do(words: str, hint: str) -> None:
    """There is a way, and it is no option."""
    assert hint in refusal(f"ADD {words} @daily x")


def test_log_follows_as_tail_does() -> None:
    """The program has -f; who learnt it there types it into netcat."""
    followed = commands.parse("LOG backup follow", CONTEXT)
    assert [commands.parse(f"LOG backup {word}", CONTEXT) for word in ("-f", "--follow")] == [followed] * 2


@pytest.mark.parametrize("verb", ["RUNS", "HISTORY", "STATS", "DST"])
def test_all_is_what_the_verb_alone_is(verb: str) -> None:
    """No task is ever called so; `RUNS all` answered OK 0, as of a task that never ran."""
    assert commands.parse(f"{verb} all", CONTEXT) == commands.parse(verb, CONTEXT)
