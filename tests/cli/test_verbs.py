"""Any verb as a command: what is sent for the words of a shell, and how shells complete them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cronflowd.ask.commands import VERBS
from cronflowd.ask.grammar import split_any
from cronflowd.base.errors import Exit, Fatal
from cronflowd.base.text import split_options
from cronflowd.cli import cli, completion, verbs
from cronflowd.cli.verbs import order

SAFE = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["LIST"], "LIST"),
        (["LIST", "state=failed", "name=a*"], "LIST state=failed name=a*"),
        (["ADD", "0 3 * * *", "cd /a && b"], 'ADD "0 3 * * *" cd /a && b'),
        (["ADD", "0 3 * * * backup --all"], "ADD 0 3 * * * backup --all"),
        (
            ["ADD", "desc=two words", "@daily", "rsync", "a b", "c"],
            'ADD desc="two words" @daily rsync "a b" c',
        ),
        (
            ["ADD", 'payload={"a": 1}', "type=custom", "@daily", "x"],
            'ADD payload={"a": 1} type=custom @daily x',
        ),
        (["ADD", '{"schedule": "@daily", "command": "x"}'], 'ADD {"schedule": "@daily", "command": "x"}'),
        (["SET", "x", "header.User-Agent=a b"], 'SET x header.User-Agent="a b"'),
        (["NOW", "FOO=a b c"], "NOW FOO=a b c"),
        (["BEAT", "offsite", "1", "all is lost"], "BEAT offsite 1 all is lost"),
        (["SET", "x", "schedule=0 4 * * *", "desc="], 'SET x schedule="0 4 * * *" desc='),
        (["NEXT", "every 5 minutes", "n=2"], 'NEXT "every 5 minutes" n=2'),
        (["NEXT", '"every 5 minutes"'], 'NEXT "every 5 minutes"'),
        (["USER", "ls"], "USER LIST"),
        (["TOKEN", "add", "name=ci"], "TOKEN add name=ci"),
        (["WHY", "x", "2030-01-01 10:00"], 'WHY x "2030-01-01 10:00"'),
    ],
)
def test_words_of_a_shell_are_words_of_a_line(words: list[str], line: str) -> None:
    """Quoted once, for the shell, is quoted enough."""
    assert order(words[0], words[1:]) == line


@given(st.lists(SAFE.filter(lambda word: "=" not in word and '"' not in word)))
def test_each_plain_word_arrives_as_one(words: list[str]) -> None:
    """Whatever it holds."""
    assert split_any(order("RUNS", words)[len("RUNS") :]) == (words, {})


@given(st.dictionaries(st.sampled_from(["desc", "env.LANG", "header.User-Agent", "a_b"]), SAFE))
def test_each_option_arrives_with_its_value(options: dict[str, str]) -> None:
    """The same for options; one that begins with a quote or a brace is the user's own to write."""
    plain = {key: value for key, value in options.items() if value[0] not in '"{' and '"' not in value}
    words = [f"{key}={value}" for key, value in plain.items()]
    assert split_options(order("RUNS", words)[len("RUNS ") :]) == (plain, "")


# --- completion ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command_and_its_flags(shell: str) -> None:
    """It is made from the parser, so nothing can be left out."""
    script = completion.script(cli.parser(), shell)
    for word in [
        *(name.lower() for name in VERBS if name not in ("HELLO", "AUTH", "FORMAT", "QUIT")),
        "serve",
    ]:
        assert f"{word}" in script
    for word in ("ls", "max-tasks", "server", "state=", "every=", "bash", "restore", "force"):
        assert word in script
    assert "compact" not in script, "which is not for people"


def bash(*words: str, names: Sequence[str] = ("nightly", "backup")) -> list[str]:
    """What bash offers for the last word."""
    script = completion.script(cli.parser(), "bash")
    rows = "".join(f"1\t{name}\tidle\n" for name in names)
    fake = f"cronflowd() {{ printf %s {shlex.quote(rows)}; }}\n"
    ask = f"COMP_WORDS=({' '.join(words)} '') COMP_CWORD={len(words) - 1}; _cronflowd; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", fake + script + ask], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return sorted(done.stdout.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["cronflowd", "un"], ["undo", "undrain"]),
        (["cronflowd", "serve", "--max-t"], ["--max-tasks"]),
        (["cronflowd", "runs", "st"], ["state="]),
        (["cronflowd", "why", "ni"], ["nightly"]),
        (["cronflowd", "add", "ti"], ["timeout=", "title="]),
        (["cronflowd", "set", "sc"], ["schedule="]),
        (["cronflowd", "run", "k"], ["keep="]),
        (["cronflowd", "flow", "k"], []),
        (["cronflowd", "completion", ""], ["--help", "-h", "bash", "fish", "zsh"]),
        (["cronflowd", "bogus", "x"], []),
    ],
)
def test_bash_completes_commands_options_and_tasks(words: list[str], offered: list[str]) -> None:
    """In bash itself."""
    assert bash(*(word or "''" for word in words)) == offered


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_carries_out_no_name_of_a_task(tmp_path: Path) -> None:
    """Where no daemon runs, any user of the machine may answer in its place, to whoever presses Tab."""
    names = f"$(touch {tmp_path}/a)", f"`touch${{IFS}}{tmp_path}/b`", "*", "x;id", "$IFS", "nightly"
    offered = bash("cronflowd", "why", "''", names=names)
    assert {"--help", "nightly"} <= {*offered}
    assert all(re.fullmatch("[a-z=-]+", word) for word in offered)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_can_read_theirs(shell: str) -> None:
    """At least without an error, where they are installed."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = completion.script(cli.parser(), shell)
    done = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "typed", "line"),
    [
        (
            ["add", "ann", "role=admin"],
            ["correct-horse"] * 2,
            "USER add ann role=admin password=correct-horse",
        ),
        (["ADD", "ann"], ['a "b'] * 2, 'USER ADD ann password="a \\"b"'),
        (["password", "ann"], ["correct-horse"] * 2, "USER password ann correct-horse"),
        (["add", "ann"], [""], "USER add ann"),
        (["add", "ann"], [], "USER add ann"),
        (["list"], [], "USER list"),
    ],
)
def test_a_password_is_asked_for_on_the_terminal(
    words: list[str], typed: list[str], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice, without being shown; where there is no terminal the daemon makes one."""
    monkeypatch.setattr("sys.stdin.isatty", lambda: bool(typed), raising=False)
    monkeypatch.setattr(verbs, "getpass", lambda prompt: typed.pop(0))
    assert order("USER", words) + verbs.ask_password(words) == line
    assert not typed


def test_where_nobody_can_type_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever starts programs with their input closed was answered with a traceback."""
    monkeypatch.setattr("sys.stdin", None)
    assert verbs.ask_password(["ADD", "ann"]) == ""
    with pytest.raises(Fatal, match="standard input: it is closed") as refused:
        order("SECRET", ["PUT", "db"])
    assert refused.value.status == Exit.USAGE


@pytest.mark.parametrize(
    ("words", "typed"),
    [
        (["add", "ann", "password=correct-horse"], []),
        (["password", "ann", "correct-horse"], []),
        (["add"], []),
        (["add", "ann"], ["correct-horse", "correct-house"]),
    ],
)
def test_no_password_stands_among_the_words_of_a_command(
    words: list[str], typed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every user of the machine could read it in `ps`; and one that was mistyped locks its owner out."""
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr(verbs, "getpass", lambda prompt: typed.pop(0))
    with pytest.raises(Fatal) as caught:
        verbs.ask_password(words)
    assert caught.value.status == Exit.USAGE
    assert "correct" not in caught.value.message
