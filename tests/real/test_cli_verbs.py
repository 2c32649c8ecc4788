"""`cronflowd ls` and the other verbs as commands, against a real daemon."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable

import pytest

from cronflowd.cli import cli
from tests.real.running import PATIENCE_S, ROOT, Daemon, Worker
from tests.real.test_cli_clients import command

Say = Callable[..., tuple[int, str, str]]
pytestmark = pytest.mark.real


@pytest.fixture
def say(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> Say:
    """A command in this process, since to start one takes half a second: exit status, stdout, stderr."""

    def run(verb: str, *words: str) -> tuple[int, str, str]:
        status = cli.main([verb, "--server", f"{daemon.host}:{daemon.port}", *words])
        return int(status), *capsys.readouterr()

    return run


def test_verbs_are_commands(say: Say) -> None:
    """Rows for scripts on stdout, the rest on stderr, and an exit status."""
    assert say("ping") == (0, "PONG\n", "")
    status, out, _ = say("add", "name=nightly", "desc=two words", "0 3 1 1 *", "echo 'a  b' && true")
    assert (status, out[:12]) == (0, "1 nightly ne")
    status, out, err = say("ls", "name=n*")
    assert (status, err) == (0, "")
    assert out.split("\t")[4:6] == ["0 3 1 1 *", "echo 'a  b' && true"]
    assert say("ls", "name=x*") == (0, "", "")
    status, out, err = say("prove")
    assert (status, out.split("\n")[0], err) == (0, "due\t0", "balanced\n")
    status, out, err = say("expect", "offsite", "every=1d")
    assert (status, out[:12], err[:5]) == (0, "offsite due=", "note\t"), "a remark is no answer"
    assert say("clear") == (0, "1 removed\n", "")


@pytest.mark.parametrize(
    "words", [["token", "add", "role=worker", "worker=local"], ["user", "add", "ann", "role=user"]]
)
def test_what_was_made_is_all_of_standard_output(say: Say, words: list[str]) -> None:
    """`| cut -f2 >token` wrote a second line, the token's number, which no Prometheus takes."""
    status, out, err = say(*words)
    made, told = ("token", "1") if words[0] == "token" else ("password", "ann")
    assert (status, out.count("\n"), out.split("\t")[0]) == (0, 1, made)
    assert err == f"{told}\n"


def test_a_refusal_is_one_line_and_an_exit_status(say: Say) -> None:
    """`cronflowd get x || cronflowd add …` must work."""
    for words, message in (
        (["get", "nosuch"], 'not-found: no task "nosuch"'),
        (["add", "61 * * * *", "x"], "bad-schedule: "),
        (["ls", "colour=red"], 'bad-option: there is no option "colour" here'),
        (["log", "nosuch"], "not-found: "),
        (["delete", "x"], 'there is no command "delete"; did you mean remove?'),
        (["wrokers"], 'there is no command "wrokers"; did you mean workers?'),
        (["frobnicate"], 'there is no command "frobnicate" ('),
        (["log"], "syntax: "),
        (["run", "nosuch"], 'not-found: no task "nosuch"'),
    ):
        status, out, err = say(*words)
        assert (status, out, err.count("\n")) == (2, "", 1), words
        assert err.startswith(f"cronflowd: error: {message}")


def test_a_server_that_is_not_there_is_69() -> None:
    """So a probe can tell it from one that is not well."""
    assert cli.main(["ping", "--connect", "127.0.0.1:1"]) == 69


def test_run_and_log_are_for_people(start_worker: Callable[..., Worker], daemon: Daemon, say: Say) -> None:
    """`run NAME` is the verb, `run -- COMMAND` waits; LOG by name is that of its newest run."""
    start_worker(daemon, "w1")
    daemon.ask("ADD name=two @daily echo out; echo err >&2; [ $CRONFLOW_RUN_ID = 1 ] || echo again")
    assert say("run", "two") == (0, "1\n", "")
    assert say("log", "two", "-f") == (0, "out\n", "err\n")
    assert say("run", "two") == (0, "2\n", "")
    assert say("log", "two", "--follow") == (0, "out\nagain\n", "err\n")
    assert say("log", "two", "-f", "-1") == say("log", "1") == (0, "out\n", "err\n")


def test_watch_goes_on_until_it_is_interrupted(daemon: Daemon) -> None:
    """And its rows come as they happen."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command(daemon, "watch"), **pipes, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout
            assert process.stderr
            assert process.stderr.readline() == "watching\n"
            daemon.ask("ADD name=new @daily x")
            assert "\ttask-added\t" in process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_S) == 130
        finally:
            process.kill()


def test_a_reader_that_leaves_is_no_traceback(daemon: Daemon) -> None:
    """`cronflowd ls | head -1`."""
    daemon.ask(*(f"ADD name=n{number} @daily {'x' * 200}" for number in range(2000)))
    line = " ".join(command(daemon, "ls")) + " | head -1"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


@pytest.mark.skipif(shutil.which("script") is None, reason="script(1) is not installed")
def test_on_a_terminal_rows_are_a_table(daemon: Daemon) -> None:
    """With a header, and as wide as the terminal."""
    daemon.ask("ADD name=nightly 0 3 1 1 * " + "x" * 100)
    line = " ".join(command(daemon, "ls"))
    done = subprocess.run(
        ["script", "-qec", f"stty cols 60; {line}", "/dev/null"],
        stdin=subprocess.DEVNULL,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "60"},
    )
    header, row = done.stdout.splitlines()
    assert header.split() == ["ID", "JOBNAME", "STATE", "NEXT", "SCHEDULE", "CO…"]
    assert (len(row), row[-1]) == (60, "…")


def test_the_unix_socket_of_the_data_directory_is_asked_first(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    """No port and no token for whoever may read it."""
    assert cli.main(["ping", "--data", str(daemon.data)]) == 0
    assert cli.main(["ping", "--connect", f"unix:{daemon.unix_socket}"]) == 0
    assert capsys.readouterr().out == "PONG\nPONG\n"
