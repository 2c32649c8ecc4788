"""crontab(5), held against what Debian's cron was seen to do, and against itself."""

from __future__ import annotations

import os
import shutil
import subprocess
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cronflowd.base.errors import Refusal
from cronflowd.tasks.crontab import (
    Entry,
    Exported,
    Line,
    Nothing,
    Setting,
    Writer,
    common_differences,
    format_command_line,
    is_written,
    parse_line,
    split_command_line,
    unwrap,
    weight,
    wrap,
)
from cronflowd.tasks.options import DEFAULTS, set_options
from cronflowd.tasks.programs import name_of
from cronflowd.tasks.task import TaskSpec, make_spec

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


def read(text: str, is_system: bool = False, **before: str) -> Line | str:
    """What a line gives, or the code of its refusal."""
    try:
        return parse_line(text, before, is_system)
    except Refusal as refusal:
        return refusal.code


# --- settings -----------------------------------------------------------------------------------

# What the environment of a job of Debian's cron 3.0pl1-162 held after such a line. None: `crontab -n`
# takes it for no setting.
SETTINGS = [
    ("A = b c  ", "A", "b c"),
    ('B="q  "', "B", "q"),
    ("C='x\"y'", "C", 'x"y'),
    ('C="a\'b" ', "C", "a'b"),
    ('D=b"c"', "D", 'b"c"'),
    ("'D'=1", "D", "1"),
    (" E\t=\ttab\tend", "E", "tab\tend"),
    ("F=a=b # x", "F", "a=b # x"),
    ("G = 'sp  ace'  ", "G", "sp  ace"),
    ('H="x=y"', "H", "x=y"),
    ("I=''", "I", ""),
    ("A==x", "A", "=x"),
    ('A="b" c', None, ""),
    ("A='b", None, ""),
    ("A=\"b'", None, ""),
    ('"A"B=c', None, ""),
    ('"A=B"=c', None, ""),
    ("A=", None, ""),
    ('"A"=', None, ""),
    ("A B=c", None, ""),
    ('A=""""', None, ""),
]


@pytest.mark.parametrize(("text", "name", "value"), SETTINGS)
def test_a_setting_is_what_debian_s_cron_makes_of_it(text: str, name: str | None, value: str) -> None:
    """A PATH that is read otherwise is a job that does not start."""
    found = read(text)
    if name is None:
        assert found in ("bad-line", "bad-schedule")
    else:
        assert isinstance(found, Setting)
        assert (found.name, found.value) == (name, value)


def test_the_table_of_settings_is_what_the_crontab_installed_here_says(tmp_path: Path) -> None:
    """As far as it can be asked: it says whether, not what."""
    file = tmp_path / "crontab"

    def accepts(text: str) -> bool:
        file.write_text(text + "\n")
        return subprocess.run(["crontab", "-n", str(file)], capture_output=True, check=False).returncode == 0

    if not shutil.which("crontab") or not accepts("A=b"):
        pytest.skip("no Debian crontab here")
    assert [accepts(text) for text, _, _ in SETTINGS] == [name is not None for _, name, _ in SETTINGS]


@pytest.mark.parametrize("text", ['"A B"=c', "5 = 3", "'' = 3", 'A"B=c', "* = x", "-x=1", "é=1", "= x"])
def test_a_name_that_no_variable_can_have_is_refused(text: str) -> None:
    """Debian's cron takes them; no shell could ever read them."""
    assert read(text) == "bad-option"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("MAILTO=joe", "nothing is mailed to joe"),
        ('MAILTO=""', ""),
        ("LOGNAME=joe", "passed over"),
        ("CRON_TZ=Europe/Paris", "Debian's cron does not heed it"),
        ("RANDOM_DELAY=30", "jitter="),
        ("HOME=www", "no absolute path"),
        ("HOME=/www", ""),
    ],
)
def test_what_a_setting_does_otherwise_is_told(text: str, words: str) -> None:
    """Whoever moves in must not find out at night."""
    found = read(text)
    assert isinstance(found, Setting)
    assert words in " ".join(found.differences)
    assert bool(words) == bool(found.differences)


def test_what_settings_become() -> None:
    """Each in the place where it does what it did."""
    before = {
        "A": "1",
        "SHELL": "/bin/bash",
        "HOME": "/w",
        "LOGNAME": "joe",
        "MAILTO": "joe",
        "CRON_TZ": "Asia/Tokyo",
    }
    assert read("@daily x", **before) == Entry(
        "@daily",
        "exec /bin/bash -c x",
        {"env.A": "1", "env.HOME": "/w", "env.SHELL": "/bin/bash", "cwd": "/w", "tz": "Asia/Tokyo"},
        "x",
    )
    assert read("@daily x", SHELL="/bin/sh", HOME="w") == Entry("@daily", "x", {"env.HOME": "w"}, "x")
    assert read("@daily x", CRON_TZ="Nowhere") == "bad-option"


def test_what_differs_for_all_depends_on_what_was_set() -> None:
    """Whoever sets PATH and HOME need not be told of them."""
    assert len(common_differences({})) == 6
    assert len(common_differences({"PATH": "", "HOME": "", "MAILTO": ""})) == 3


@pytest.mark.parametrize(
    ("value", "notify", "told"),
    [
        ("ops@example.org", "mailto:ops@example.org", 1),
        ('"a@x, b@y"', "mailto:a@x,mailto:b@y", 1),
        ("root,a@x", "mailto:a@x", 2),
        ("root", None, 1),
        ('""', None, 0),
        (",".join(f"a{n}@x" for n in range(11)), ",".join(f"mailto:a{n}@x" for n in range(10)), 2),
    ],
)
def test_mailto_becomes_notify(value: str, notify: str | None, told: int) -> None:
    """Who was mailed by cron is told of failures; whoever cannot be is named."""
    setting = read(f"MAILTO={value}")
    assert isinstance(setting, Setting)
    assert len(setting.differences) == told
    entry = read("@daily x", MAILTO=setting.value)
    assert isinstance(entry, Entry)
    assert entry.options.get("notify") == notify
    set_options(DEFAULTS, entry.options)


# --- entries ------------------------------------------------------------------------------------

# A command field, and what Debian's cron 3.0pl1-162 gave to `SHELL -c` and to its input.
COMMANDS = [
    (r"a\\b \% c\n", r"a\b % c\n", ()),
    (r"x\\%in", "x\\", ("in",)),
    (r"y\\\%in", r"y\%in", ()),
    (r"z%one%two\%2\x\\y%", "z", ("one", r"two%2\x\\y")),
    ("w%", "w", ()),
    ("v%%", "v", ("",)),
    ("plain  ", "plain  ", ()),
]


@pytest.mark.parametrize(("text", "command", "lines"), COMMANDS)
def test_a_percent_sign_means_what_debian_s_cron_means(
    text: str, command: str, lines: tuple[str, ...]
) -> None:
    """The manual does not tell of half of it."""
    assert split_command_line(text)[:2] == (command, lines)


@pytest.mark.parametrize(
    ("text", "is_system", "expected"),
    [
        ("", False, Nothing()),
        (" \t", False, Nothing()),
        ("  # * * * * * x", False, Nothing()),
        ("#x=y", True, Nothing()),
        ("*/5 1-3 * jan mon-fri\tx  y ", False, Entry("*/5 1-3 * jan mon-fri", "x  y ", {}, "x")),
        ("  @hourly   x a=b", False, Entry("@hourly", "x a=b", {}, "x")),
        ("* * * * * A=b x", False, Entry("* * * * *", "A=b x", {}, "x")),
        ("* * * *", False, "bad-schedule"),
        ("* * * * *", False, "syntax"),
        ("* * * * * ", False, "syntax"),
        ("* * * * * root", True, "syntax"),
        ("* * * * * %x", False, "syntax"),
        ("@daily", False, "syntax"),
        ("@every 90s x", False, "bad-schedule"),
        ("@Daily x", False, "bad-schedule"),
        ("60 * * * * x", False, "bad-schedule"),
        ("fri-sun * * * * x", False, "bad-schedule"),
        ("every day at noon today x", False, "bad-schedule"),
        ("-*/5 * * * * x", False, "bad-schedule"),
    ],
)
def test_what_a_line_is(text: str, is_system: bool, expected: Line | str) -> None:
    """All kinds of lines there are."""
    assert read(text, is_system) == expected


def test_the_user_of_a_system_crontab_is_kept() -> None:
    """The command would otherwise run as somebody else."""
    found = read("17 *\t* * *\twww-data\tcd / && run-parts x", True)
    assert found == Entry(
        "17 * * * *",
        "cd / && run-parts x",
        {"user": "www-data"},
        "run-parts",
        (),
    )


@pytest.mark.parametrize(
    ("field", "hint"),
    [
        ("tar czf /b/x-$(date +%F).tgz /srv", "tar czf /b/x-$(date +\\%F).tgz /srv"),
        ('echo "100% sure"', 'echo "100\\% sure"'),
        ("echo '50%'", "echo '50\\%'"),
        ("date +%F >> log", "date +\\%F >> log"),
        ("cp x `date +%H`", "cp x `date +\\%H`"),
        ("mysqldump x > $(date +%Y-%m-%d).sql", "$(date +\\%Y-\\%m-\\%d).sql"),
        ("echo 'it", "not closed"),
        ("backup --all \\", "joins no lines"),
        ("* /usr/bin/backup", "six fields in double quotes"),
        ("x" * 999, "998 bytes"),
        ("root /usr/bin/backup", "--system"),
    ],
)
def test_what_is_hardly_meant_is_warned_of(field: str, hint: str) -> None:
    """It stays what cron makes of it; but it has failed each night, and nobody knew why."""
    line = read(f"0 3 * * * {field}")
    assert isinstance(line, Entry)
    assert [text for text in line.warnings if hint in text]


@pytest.mark.parametrize(
    "field", ["mail joe%Hi", "cat%100\\%", 'echo "a\\%b"', "x --pct 5", "a `b` $(c)", "mon -d"]
)
def test_a_percent_sign_that_is_meant_is_not(field: str) -> None:
    """Input behind a % is what cron has it for."""
    line = read(f"0 3 * * * {field}")
    assert isinstance(line, Entry)
    assert line.warnings == ()


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("SHELL=/bin/bash # comment", "write SHELL=/bin/bash,"),
        ("PATH=/usr/bin:/bin   # where", "write PATH=/usr/bin:/bin,"),
        ("PATH=$PATH:/usr/local/bin", "is replaced"),
        ("PATH=~/bin:/bin", "is replaced"),
        ("HOME=$HOME/x", "is replaced"),
        ("CRON_TZ=Paris", "did you mean Europe/Paris?"),
        ("SHELL=bash", "not just an absolute path"),
        ("SHELL=/bin/bash -e", "not just an absolute path"),
    ],
)
def test_so_is_a_setting(text: str, hint: str) -> None:
    """Every run of what follows would end with 127."""
    line = read(text)
    assert isinstance(line, Setting)
    assert [warning for warning in line.warnings if hint in warning]


@pytest.mark.parametrize(
    "text",
    ["30 2 * * * /usr/bin/backup --all", "30 2 * * * backup --all", "30 2 * * * cd / && x",
     "@daily test -x y && y",
     "30 2 * * * python3 x.py", "30 2 * * * backup.sh x", "30 2 * * * sudo x", "30 2 * * * LANG=C x"],
)  # fmt: skip
def test_a_system_line_without_a_user_is_refused(text: str) -> None:
    """cron refuses it, too; the first word would be lost."""
    assert read(text, is_system=True) == "bad-line"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("@every 5m x", "cron has no @every; ADD takes it"),
        ("@on deploy x", "cron has no @on; ADD takes it"),
        ("@After x", "cron has no @After; ADD takes it"),
        ("~ 3 * * * x", "write a number, and spread="),
        ("0~30 3 * * * x", "write a number, and spread="),
        ("H 3 * * * x", "write a number, and spread="),
        ("R * * * * x", "write a number, and spread="),
        ("-*/5 * * * * x", "leave it out"),
        ("-5 * * * * x", "leave it out"),
    ],
)
def test_what_other_crons_know_is_refused_with_the_way_to_say_it(text: str, why: str) -> None:
    """Crontabs of OpenBSD, SUSE and Jenkins come along as well."""
    with pytest.raises(Refusal) as caught:
        parse_line(text, {})
    assert caught.value.code == "bad-schedule"
    assert why in caught.value.message


@pytest.mark.parametrize("text", ["0 0 L * * x", "0 0 15W * * x", "0 0 * * 5#2 x", "0 0 * * 5L x"])
def test_what_cron_refuses_is_refused(text: str) -> None:
    """A crontab with such a line was never installed."""
    assert read(text) == "bad-schedule"


def test_the_place_of_what_is_wrong_is_that_in_the_crontab() -> None:
    """Whoever looks there must find it."""
    with pytest.raises(Refusal, match=r"column 14 holds the control character \\x07"):
        parse_line("0 3 * * * ech\x07o", {})


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("/usr/local/bin/asmcfan>/dev/null", "asmcfan"),
        ("asmcfan &>/dev/null", "asmcfan"),
        ("2>/dev/null /usr/bin/f", "f"),
        ("sudo -u www-data php /var/www/occ -f x", "occ"),
        ("sudo --user www-data /usr/bin/x", "x"),
        ("sudo -uwww-data /usr/bin/x", "x"),
        ("flock -n /tmp/lock /usr/bin/job", "job"),
        ('/usr/bin/flock -w 10 /tmp/l -c "cd /; /usr/bin/job && y"', "job"),
        ("flock -n 9 || exit 1; /usr/bin/job", "job"),
        ("timeout -k 5 30s curl -s http://x", "curl"),
        ("nice -n 19 ionice -c3 /usr/bin/rsync -a", "rsync"),
        ("nice -19 ionice -c 2 -n 7 tar cf x", "tar"),
        ("/usr/bin/env python3 /opt/x.py", "x.py"),
        ("env -i PATH=/bin HOME=/ /opt/y", "y"),
        ("python3 -m app.clean arg", "app.clean"),
        ("/opt/venv/bin/python3.11 -u -W ignore /opt/manage.py clear", "manage.py"),
        ("python -c 'print(1)'", "python"),
        ("bash -lc 'source ~/.profile; rake jobs:work'", "rake"),
        ("/bin/sh /opt/s.sh > /dev/null 2>&1", "s.sh"),
        ("java -Xmx1g -jar /opt/app.jar", "app.jar"),
        ("php -d memory_limit=1G -f /x/cron.php", "cron.php"),
        ('su - postgres -c "/usr/bin/pg_dump -Fc x"', "pg_dump"),
        ("runuser -u www-data -- /usr/bin/z", "z"),
        ("for i in 1 2 3; do /usr/bin/w $i; done", "w"),
        ("MAILTO=x PATH=/y/z:/b /usr/bin/e", "e"),
        ("command -v sa1 > /dev/null && sa1 1 1", "sa1"),
        ("sleep $((RANDOM % 60)); /usr/bin/h", "h"),
        ("echo $(date) | mail x", "mail"),
        ("$(which php) x.php", "x.php"),
        ("sudo bash -c 'nice -n 5 flock /l timeout 5 python3 -m deep'", "deep"),
        ("taskset -c 1 chronic certbot renew -q", "certbot"),
        ("/usr/local/bin/backup --all", "backup"),
        ("LANG=C exec ./backup.sh", "backup.sh"),
        ("cd /srv && php cron.php", "cron.php"),
        ("test -x /usr/sbin/anacron || ( cd / && run-parts --report x )", "run-parts"),
        ("[ -d /x ] && if [ -e y ]; then /usr/lib/clean; fi", "clean"),
        ("echo hi", "echo"),
        ("bash -c 'for i in a b; do echo $i; done'", "echo"),
        ("while true; do /usr/bin/poll; sleep 5; done", "poll"),
        ("case $(date +%u) in 6) /opt/sat;; esac", "sat"),
        (
            "test -x /usr/bin/certbot -a \\! -d /x && perl -e 'sleep int(rand(43200))' && certbot -q renew",
            "certbot",
        ),
        ("python3 -c 'import time; time.sleep(9)'; /opt/x.sh", "x.sh"),
        ("perl -e 'print 1'", "perl"),
        ("/bin/bash -l -c 'cd /app && RAILS_ENV=production bundle exec rake db:clean --silent'", "rake"),
        ("cd /app && poetry run python -m app.jobs.daily", "app.jobs.daily"),
        ("uv run --quiet report.py", "report.py"),
        ("bundle install", "bundle"),
        ("/usr/local/bin/ea-php81 /home/u/public_html/artisan schedule:run", "artisan"),
        ("/usr/bin/php -q /home/u/cron.php > /dev/null", "cron.php"),
        ("pgrep -x tunnel > /dev/null || /usr/local/bin/tunnel", "tunnel"),
        ("! pidof -x sync && /opt/sync", "sync"),
        ("date >> /var/log/x; mkdir -p /backup && tar cf /backup/x.tar /etc", "tar"),
        ("(cd /srv; ./build.sh)", "build.sh"),
        ("{ /opt/a; /opt/b; } 2>&1 | logger -t x", "a"),
        ("source /venv/bin/activate && python /app/manage.py runcrons", "manage.py"),
        ("export FOO=bar; /opt/with-foo", "with-foo"),
        ("su -s /bin/sh nobody -c '/opt/as-nobody'", "as-nobody"),
        ("sudo -E -H -u deploy bash -c '/home/deploy/release'", "release"),
        ("/etc/init.d/apache2 graceful", "apache2"),
        ("sleep ${RANDOM:0:2}m ; /usr/bin/later", "later"),
        ("/usr/bin/flock -xn /tmp/l -c '/opt/locked'", "locked"),
        ("[ $(id -u) -eq 0 ] && /opt/only-root", "only-root"),
        ("$HOME/bin/daily.job >> x", "daily.job"),
        ("'it is' x", "it-is"),
        ('"unclosed', "job"),
        ("12", "job"),
        ("all", "job"),
        ("task_7", "job"),
        ("...", "job"),
        ("x" * 100, "x" * 48),
    ],
)
def test_a_task_is_named_after_its_program(command: str, name: str) -> None:
    """LIST is read by people."""
    assert (name_of(command) or "job") == name


# --- any text -----------------------------------------------------------------------------------

ODD = st.text(" \t'\"\\%=#|;&$*@-/,:019abHO\n\0é\u2028", max_size=40)


@given(ODD | st.text(max_size=40), st.booleans(), st.sampled_from(["", "/bin/bash", "it's"]))
def test_any_line_gives_a_value_or_a_refusal(text: str, is_system: bool, shell: str) -> None:
    """A crontab is anybody's file."""
    found = read(text, is_system, SHELL=shell)
    assert isinstance(found, Nothing | Setting | Entry | str)


@given(ODD | st.just("* * * * * "), ODD)
def test_what_a_line_gives_is_what_add_takes(before: str, after: str) -> None:
    """Or it is refused then, by make_spec; never another exception."""
    found = read(before + after)
    if isinstance(found, Entry):
        try:
            spec_of(found)
        except Refusal as refusal:
            assert refusal.code in ("syntax", "bad-option", "too-long")


# --- commands -----------------------------------------------------------------------------------

COMMAND = st.text(" '\"\\%|;ab-", min_size=1, max_size=20).filter(str.strip)
LINES = st.lists(st.text(" '\"\\%|$ab-", max_size=10), max_size=4).map(tuple)


@given(COMMAND, LINES)
@example("a\\", ())
@example("a\\%\\\\%", ("", ""))
def test_what_is_written_is_read_back(command: str, lines: tuple[str, ...]) -> None:
    """But a line of input that ends in a backslash, which cron cannot say unless it is the last."""
    command = command.lstrip() if lines == () else command.strip("\\")
    if command and not any(line.endswith("\\") for line in lines[:-1]):
        assert split_command_line(format_command_line(command, lines))[:2] == (command, lines)


@given(COMMAND, LINES, st.sampled_from(["/bin/sh", "/bin/bash", "/opt/my shell", "it's"]))
def test_what_wrap_made_is_undone(command: str, lines: tuple[str, ...], shell: str) -> None:
    """EXPORT gives back what IMPORT was given."""
    wrapped = wrap(command, lines, shell)
    found = unwrap(wrapped, shell)
    assert found is not None
    assert wrap(found[0], found[1], shell) == wrapped


@settings(max_examples=25, deadline=None)
@given(LINES.filter(bool), st.sampled_from(["/bin/sh", "/bin/bash"]))
@example(("-n", "%s", "\\n", "it's"), "/bin/sh")
def test_the_shell_gives_the_command_its_input(lines: tuple[str, ...], shell: str) -> None:
    """The judge of quoting is the shell."""
    for command in ("cat", "cat; echo 'it''s' \"$A\""):
        done = subprocess.run(
            ["/bin/sh", "-c", wrap(command, lines, shell)],
            capture_output=True,
            check=True,
            text=True,
            env=os.environ | {"A": "b  c"},
        )
        rest = "" if command == "cat" else "its b  c\n"
        assert done.stdout == "".join(f"{line}\n" for line in lines) + rest


# --- in and out ---------------------------------------------------------------------------------


def spec_of(entry: Entry) -> TaskSpec:
    options = set_options(DEFAULTS, entry.options, "UTC", NOW)
    return make_spec(entry.name, entry.schedule, entry.command, options, "UTC")


def move_in(text: list[str]) -> list[TaskSpec]:
    """The tasks of a crontab; what is refused is left out."""
    before: dict[str, str] = {}
    specs = []
    for line in text:
        found = read(line, **before)
        if isinstance(found, Setting):
            before[found.name] = found.value
        elif isinstance(found, Entry):
            specs.append(spec_of(found))
    return specs


def move_out(specs: list[TaskSpec]) -> list[str]:
    writer = Writer("UTC")
    tasks = sorted(map(Exported, specs), key=partial(weight, tz="UTC"))
    return [line for task in tasks for line in writer.lines(task)]


def meanings(specs: list[TaskSpec]) -> list[object]:
    return sorted(
        (spec.schedule.text, spec.schedule.tz, spec.command, spec.options.env, spec.options.cwd)
        for spec in specs
        if spec.schedule.kind != "reboot"  # whose zone means nothing
    )


VALUE = st.text(" '\"\\%=#ab/", max_size=8)
SETTING = st.builds(
    "{}={}".format,
    st.sampled_from(["A", "B", "PATH", "HOME", "SHELL", "MAILTO"]),
    VALUE | VALUE.map('"{}"'.format) | VALUE.map("'{}'".format) | st.just("/bin/bash"),
)
ZONE = st.sampled_from(["CRON_TZ=Europe/Paris", "CRON_TZ=UTC", 'CRON_TZ=""'])
ENTRY = st.builds(
    "{} {}".format,
    st.sampled_from(["* * * * *", "0 9 * * 1-5", "@daily", "@reboot", "5  4 \t1,2 jan *"]),
    st.text(" '\"\\%|;ab-", max_size=20),
)


@given(st.lists(SETTING | ZONE | ENTRY, max_size=12))
@example(["SHELL=/bin/bash", "@daily a%b", "SHELL=/bin/sh", "@daily printf '%s\\n' 'b' | a"])
@example(["@daily exec /bin/bash -c x", "SHELL=/bin/bash", "@daily x"])
def test_what_came_in_goes_out_and_comes_in_again(text: list[str]) -> None:
    """The same schedules, commands and variables: nobody is locked in."""
    specs = move_in(text)
    out = move_out(specs)
    assert meanings(move_in(out)) == meanings(specs)


def test_a_variable_that_was_not_there_is_taken_away_again() -> None:
    """A crontab's settings hold to its end; a task must not get those of another."""
    one, two, three = (
        spec_of(Entry("@daily", "x", {f"env.{name}": "1"}, name.lower())) for name in ("A", "B", "PATH")
    )
    assert move_out([one, two, three]) == [
        "# a",
        "A=1",
        "@daily x",
        "# b",
        "B=1",
        "@daily unset A; x",
        "# path",
        "PATH=1",
        "@daily unset A; unset B; x",
    ]


def test_what_stands_before_a_command_is_never_for_another_shell() -> None:
    """`unset` means nothing to Python, nor to csh."""
    one = spec_of(Entry("@daily", "x", {"env.A": "1"}, "a"))
    other = spec_of(Entry("@daily", "exec /bin/csh -c 'set y'", {"env.B": "1", "env.SHELL": "/bin/csh"}, "b"))
    assert move_out([one, other])[3:] == [
        "# b",
        "B=1",
        "@daily unset A; export SHELL=/bin/csh; exec /bin/csh -c 'set y'",
    ]


def test_who_is_told_goes_out_as_mailto() -> None:
    """And comes in again as it was; what no MAILTO says is a remark."""
    told = {"m": "mailto:a@x,mailto:b@y", "n": "", "o": "none", "p": "failure:mailto:a@x", "q": "mailto:a@x"}
    specs = [
        spec_of(Entry("@daily", "x", {"notify": text} if text else {}, name)) for name, text in told.items()
    ]
    assert move_out(specs) == [
        "# n",
        "@daily x",
        "# o; not in cron: notify=none",
        "@daily x",
        "# p; not in cron: notify=failure:mailto:a@x",
        "@daily x",
        "# q",
        "MAILTO=a@x",
        "@daily x",
        "# m",
        "MAILTO=a@x,b@y",
        "@daily x",
    ]
    writer = Writer("UTC", {"MAILTO": "root a@x", "CRON_TZ": "Asia/Tokyo"})
    assert list(writer.lines(Exported(specs[1]))) == ["# n", "CRON_TZ=UTC", 'MAILTO=""', "@daily x"]


@given(st.lists(SETTING | ZONE | ENTRY, max_size=12))
@example(["A=1", "@daily x", "HOME=/w", "SHELL=/bin/bash", "@daily y%z"])
def test_what_goes_out_is_known_when_it_comes_back(text: list[str]) -> None:
    """Nobody's job may run twice because a crontab was sent to where it came from."""
    specs = {str(number): evolve(spec, name=str(number)) for number, spec in enumerate(move_in(text))}
    before: dict[str, str] = {}
    found = []
    about = ""
    for text_out in move_out(list(specs.values())):
        line = read(text_out, **before)
        if isinstance(line, Setting):
            before[line.name] = line.value
        elif isinstance(line, Entry):
            assert is_written(line, specs[about], before, "UTC")
            assert not is_written(evolve(line, command="other"), specs[about], before, "UTC")
            found.append(about)
        elif isinstance(line, Nothing):
            about = line.about
    assert len(set(found)) == len(found)


def test_what_is_too_long_for_cron_is_left_out() -> None:
    """Debian's cron ignores the whole crontab for one such line, and cuts settings short."""
    long = spec_of(Entry("@daily", "x" * 999, {}, "long"))
    assert [line[:17] for line in move_out([long])] == ["# long is not for", "# @daily xxxxxxxx"]
    assert move_out([spec_of(Entry("@daily", "x" * 998, {}, "fits"))])[1] == f"@daily {'x' * 998}"
    value = "v" * 997
    assert move_out([spec_of(Entry("@daily", "x", {"env.A": value[1:]}, "a"))])[1] == f"A={value[1:]}"
    assert "not for cron" in move_out([spec_of(Entry("@daily", "x", {"env.A": value}, "a"))])[0]
