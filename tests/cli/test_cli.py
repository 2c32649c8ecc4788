"""The command line: what starts what, and how everything that goes wrong becomes one line and a code."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import pytest

from cronflowd import __version__
from cronflowd.base.errors import Exit, Fatal
from cronflowd.cli import cli
from cronflowd.daemon import daemon
from cronflowd.host import config
from cronflowd.host.config import Settings, WorkerSettings
from cronflowd.journal import check, compaction, tasks_file
from cronflowd.tasks.options import parse_keep
from cronflowd.worker import program as worker_program
from tests.lib.waiting import PATIENCE_S

ROOT = Path(__file__).parents[2]


class Program:
    """Stands in for what is started; keeps what it was given, and ends as it is told."""

    def __init__(self, status: int = 0, error: BaseException | None = None) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.status = status
        self.error = error

    def __call__(self, *arguments: Any) -> int:
        self.calls.append(arguments)
        if self.error:
            raise self.error
        return self.status


@pytest.fixture(autouse=True)
def quiet_logs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Logging belongs to the process, and this one is pytest's."""
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr("cronflowd.host.logs.set_up", lambda form, level: asked.append((form, level)))
    return asked


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Program:
    program = Program()
    monkeypatch.setattr(daemon, "run", program)
    return program


def ended(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command."""
    status = cli.main(arguments)
    said = capsys.readouterr()
    return int(status), said.out, said.err


# --- what starts what ---------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["serve"]])
def test_the_daemon_is_what_starts_without_a_command(
    arguments: list[str], serve: Program, quiet_logs: list[tuple[str, str]]
) -> None:
    """`cronflowd` alone is what the README says."""
    assert cli.main(arguments) == 0
    assert serve.calls == [(Settings(),)]
    assert quiet_logs == [("text", "info")]


def test_flags_need_no_command_either(serve: Program, tmp_path: Path) -> None:
    """`cronflowd --data ./var` is how `make run` starts it."""
    assert (
        cli.main(["--data", str(tmp_path), "--listen=127.0.0.1:0", "--listen", "[::1]:0", "--insecure"]) == 0
    )
    expected = Settings(data=tmp_path, listen=(("127.0.0.1", 0), ("::1", 0)), insecure=True)
    assert serve.calls == [(expected,)]


def test_the_daemon_can_read_its_settings_again(serve: Program, tmp_path: Path) -> None:
    """The command line goes with the settings, so a reload keeps it on top of the file."""
    cli.main(["--data", str(tmp_path)])
    assert config.reload(serve.calls[0][0]).data == tmp_path


def test_the_daemon_s_exit_code_is_the_program_s(serve: Program) -> None:
    """systemd and scripts go by it."""
    serve.status = Exit.TRY_AGAIN
    assert cli.main([]) == 75


def test_the_worker_gets_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the daemon starts it, hidden flag included."""
    program = Program()
    monkeypatch.setattr(worker_program, "run", program)
    words = "worker --local 7 --name local --connect unix:/run/w.sock --slots 2 --spool /spool --label a=b"
    assert cli.main(words.split()) == 0
    expected = WorkerSettings(
        name="local",
        connect=(Path("/run/w.sock"),),
        slots=2,
        spool=Path("/spool"),
        label=(("a", "b"),),
        local=7,
    )
    assert program.calls == [(expected,)]


def test_check_and_compact_are_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one is for people, the other for the daemon."""
    examine, compact = Program(65), Program()
    monkeypatch.setattr(check, "check", examine)
    monkeypatch.setattr(compaction, "main", compact)
    assert cli.main(["check", "/d"]) == 65
    assert cli.main(["check", "/d", "--fix"]) == 65
    assert cli.main(["compact", "/d", "1000", "9"]) == 0
    assert examine.calls == [(Path("/d"), False), (Path("/d"), True)]
    assert compact.calls == [(Path("/d"), 1000, parse_keep("9"))]


# --- init ---------------------------------------------------------------------------------------


def test_init_makes_a_secret_and_says_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], serve: Program
) -> None:
    """What it prints is what --token-file wants."""
    status, out, err = ended(capsys, "init", "--data", str(tmp_path / "d"))
    assert (status, out, err) == (0, f"{tmp_path}/d/token\n", "")
    assert ended(capsys, "--listen", "0.0.0.0:0", "--token-file", out.strip()) == (0, "", "")
    assert len(serve.calls) == 1


def test_init_does_not_touch_a_secret_that_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Typed a second time it must not lock all workers out."""
    cli.main(["init", "--data", str(tmp_path)])
    before = (tmp_path / "token").read_bytes()
    capsys.readouterr()
    status, out, err = ended(capsys, "init", "--data", str(tmp_path))
    assert (status, out, before) == (Exit.CANNOT_CREATE, "", (tmp_path / "token").read_bytes())
    assert err.startswith(
        f"cronflowd: error: {tmp_path}/token: it is there already, and stays as it is; to change it, "
    )


def test_init_where_nothing_can_be_made_is_73(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory cannot lie inside a file, whoever asks."""
    (tmp_path / "file").touch()
    assert ended(capsys, "init", "--data", str(tmp_path / "file" / "d"))[0] == 73


# --- looking only -------------------------------------------------------------------------------


@pytest.mark.parametrize("program", [[], ["serve"], ["worker"], ["web"]])
def test_the_version_is_told_on_stdout(program: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Package builders parse this line."""
    with pytest.raises(SystemExit) as caught:
        cli.main([*program, "--version"])
    assert (caught.value.code, capsys.readouterr().out) == (0, f"cronflowd {__version__}\n")


@pytest.mark.parametrize(
    ("kind", "words"), [(Settings, ["serve", "--help"]), (WorkerSettings, ["worker", "--help"])]
)
def test_help_tells_every_setting_but_the_hidden_one(
    kind: type[config.Common], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The help is the reference: it comes from the table, and nothing is left out of it."""
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    told = capsys.readouterr().out
    assert caught.value.code == 0
    rows = list(config.table(kind))
    assert [row.flag for row in rows if row.help and row.flag not in told] == []
    assert "and no others; repeatable (default: none)" not in " ".join(told.split())
    assert "--local " not in told


def test_the_top_help_tells_the_commands_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """`compact` is none of them."""
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    told = capsys.readouterr().out
    assert [
        word
        for word in ("serve", "worker", "check", "init", "import", "export", "run")
        if f"    {word} " not in told
    ] == []
    assert "compact" not in told


def test_check_config_starts_nothing(
    serve: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For a look before a restart: the same checks, and no daemon."""
    file = tmp_path / "c.toml"
    file.write_text("max_tasks = 5", encoding="utf-8")
    expected = (0, "cronflowd: the configuration is good\n", "")
    assert ended(capsys, "--config", str(file), "--check-config") == expected
    file.write_text("max_task = 5", encoding="utf-8")
    status, out, err = ended(capsys, "--config", str(file), "--check-config")
    assert (status, out) == (78, "")
    assert err == f"cronflowd: error: {file}: max_task: there is no such setting; did you mean max_tasks?\n"
    assert serve.calls == []


def test_check_config_looks_at_the_doors_too(
    serve: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What would be refused at the start is refused now, an empty secret included."""
    assert ended(capsys, "--check-config", "--listen", "0.0.0.0:1")[0] == 77
    assert ended(capsys, "--check-config", "--http", "0.0.0.0:1")[0] == 77
    assert ended(capsys, "--check-config", "--etcd", "127.0.0.1:1", "--listen", "0.0.0.0:1")[0] == 0
    (tmp_path / "token").touch(mode=0o600)
    status, _, err = ended(capsys, "--check-config", "--token-file", str(tmp_path / "token"))
    assert (status, "the token is empty" in err) == (78, True)
    assert serve.calls == []


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("smtp = 'nonsense'", "worker.smtp: 'nonsense' is not HOST:PORT"),
        ("handlers = '/dev/null/nowhere'", "/dev/null/nowhere: cannot read the handlers"),
        ("[web]\nmax_http = 'many'", "web.max_http: 'many' is not a whole number"),
    ],
)
@pytest.mark.parametrize("words", [["--check-config", "--http", "127.0.0.1:0"], ["--http", "127.0.0.1:0"]])
def test_what_would_end_the_local_worker_or_the_http_door_is_found_before_it_is_started(
    line: str, why: str, words: list[str], serve: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would die again and again beside a daemon that seems to be well."""
    file = tmp_path / "c.toml"
    # The name is not the file's to say.
    file.write_text(f"[worker]\nname = '-/-'\n{line}\n", encoding="utf-8")
    status, out, err = ended(capsys, "--config", str(file), *words)
    assert (status, out, serve.calls) == (78, "", [])
    assert why in err
    assert ended(capsys, "--config", str(file), "--local-worker", "0", *words[:-2])[0] == 0


# --- what goes wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--nonsense"], "--nonsense"),
        (["nonsense"], "nonsense"),
        (["--server", "localhost:5050", "runs"], "a command comes first: cronflowd runs …"),
        # No abbreviations: they break when a setting is added.
        (["--max-task", "5"], "did you mean --max-tasks? (try `cronflowd serve --help`)"),
        (["worker", "--capacity", "5"], "did you mean --slots? (try `cronflowd worker --help`)"),
        (["web", "--port=3000"], "did you mean --http?"),
        (["--serve"], "--serve (try"),  # two dashes alone are no likeness: it is not --insecure
        (["--data"], "--data"),
        (["--data", ""], "--data: it is empty"),
        (["--heartbeat", "soon"], "--heartbeat: "),
        (["worker", "--slots", "0"], "--slots: '0' is not between"),
        (["check"], "DIR"),
        (["compact", "/d", "much"], "much"),
    ],
)
def test_bad_usage_is_one_line_and_2(
    arguments: Sequence[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line names the word; the whole usage would bury it."""
    status, out, err = ended(capsys, *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("cronflowd: error: ")
    assert why in err


@pytest.mark.parametrize(
    "error",
    [
        Fatal(Exit.CORRUPT, "j/1: broken"),
        ExceptionGroup("nursery", [ExceptionGroup("inner", [Fatal(Exit.CORRUPT, "j/1: broken")])]),
    ],
)
def test_a_fatal_error_is_one_line_and_its_code(
    error: Exception, serve: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also when it comes out of trio's nurseries wrapped in groups."""
    serve.error = error
    assert ended(capsys) == (65, "", "cronflowd: error: j/1: broken\n")


def test_a_bug_is_a_traceback_and_70(serve: Program, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever reports it has what is needed, and systemd starts the daemon again."""
    serve.error = ZeroDivisionError("oops")
    status, out, err = ended(capsys)
    assert (status, out) == (70, "")
    assert err.startswith("Traceback")
    assert err.endswith("ZeroDivisionError: oops\n")


def test_a_file_that_cannot_be_read_is_one_line_and_74(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever restores a backup as root leaves files that the daemon may not read: that is no bug."""
    journal = tmp_path / "journal" / f"{1:020}.jsonl"
    journal.mkdir(parents=True)
    assert cli.main(["check", str(tmp_path)]) == Exit.IO
    assert capsys.readouterr().err == f"cronflowd: error: {journal}: a directory, not a file\n"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("can't start new thread"), "can't start new thread (ulimit -u)"),
        (OSError(errno.EAGAIN, "no thread can be started"), "no thread can be started"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files (ulimit -n)"),
        (OSError(errno.ENFILE, "Too many open files in system"), "Too many open files in system"),
    ],
)
def test_a_machine_that_starts_no_thread_or_opens_no_file_is_no_bug(
    serve: Program, capsys: pytest.CaptureFixture[str], error: Exception, told: str
) -> None:
    """The first says it as Python does, the second as what has called in a thread."""
    serve.error = error
    assert cli.main([]) == Exit.TRY_AGAIN
    assert capsys.readouterr().err == f"cronflowd: error: {told}\n"


def test_a_bug_beside_a_fatal_error_is_not_swallowed(
    serve: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two tasks of a nursery may fail together, each in its own way."""
    serve.error = ExceptionGroup("nursery", [ZeroDivisionError("oops"), Fatal(Exit.IO, "disk gone")])
    status, _, err = ended(capsys)
    assert status == 74
    assert "ZeroDivisionError: oops" in err
    assert err.endswith("cronflowd: error: disk gone\n")


def test_ctrl_c_is_no_traceback(serve: Program, capsys: pytest.CaptureFixture[str]) -> None:
    """Pressed before the daemon listens to signals; the code is what a shell expects."""
    serve.error = KeyboardInterrupt()
    assert ended(capsys) == (130, "", "")


# --- the program as it is installed -------------------------------------------------------------


def test_python_m_cronflowd_is_the_program() -> None:
    """The daemon starts its worker this way, wherever the package lies."""
    done = subprocess.run(
        [sys.executable, "-m", "cronflowd", "--version"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, f"cronflowd {__version__}\n", "")


def _told_by(script: str) -> str:
    """What a Python of its own says."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    return done.stdout


def _left() -> TextIO:
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


@pytest.mark.parametrize(
    ("stdout", "status", "why"),
    [
        (lambda: None, Exit.IO, "cronflowd: error: standard output: it is closed\n"),
        (
            partial(Path("/dev/full").open, "w"),
            Exit.IO,
            "cronflowd: error: standard output: No space left on device\n",
        ),
        (_left, 141, ""),
    ],
    ids=["closed", "full", "left"],
)
def test_what_cannot_be_said_is_no_success_and_no_bug(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stdout: Callable[[], TextIO | None],
    status: int,
    why: str,
) -> None:
    """`cronflowd key` left an empty file, and 0; `check --fix | head` ended amid its work."""
    for command in ["init", "--data", str(tmp_path)], ["completion", "bash"]:
        monkeypatch.setattr(sys, "stdout", stream := stdout())
        assert status == cli.main(command)
        assert why == capsys.readouterr().err
        if stream:
            stream.close()
    assert [*tmp_path.iterdir()] != []


def test_a_worker_hands_on_the_bytes_of_a_command_in_any_locale() -> None:
    """Where the locale had another encoding, `rm Müller*` was about another file."""
    program = """if True:
        import sys
        from cronflowd.cli.cli import main
        from cronflowd.worker import program
        program.run = lambda settings: print(settings.name, sys.getfilesystemencoding()) or 0
        sys.exit(main(["worker", "--name", sys.argv[1]]))
    """
    odd = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    done = subprocess.run(
        [sys.executable, "-c", program, "w1"],
        env=os.environ | odd,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout == "w1 utf-8\n"


def test_it_hears_signals_and_ends_of_children_whoever_started_it() -> None:
    """Some programs hand down what they do not hear: a worker ended with its first job (70), or never."""
    program = """if True:
        import contextlib, signal
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        from cronflowd.cli.cli import main
        with contextlib.suppress(SystemExit):
            main(["--version"])
        print(signal.getsignal(signal.SIGCHLD).name, signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    """
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.splitlines()[1:] == ["SIG_DFL set()"]


def test_the_command_line_does_not_load_the_daemon() -> None:
    """A worker on a small machine pays for what it uses, and `--version` for nothing."""
    script = (
        "import sys, cronflowd.cli.cli; "
        "print([m for m in ('trio', 'cronflowd.daemon.daemon') if m in sys.modules])"
    )
    assert _told_by(script) == "[]\n"


def test_run_does_not_load_the_verbs() -> None:
    """A script may start a thousand; and what all verbs are read with is half of what such a start costs."""
    script = (
        "import sys; from cronflowd.cli.cli import main; "
        "print(main(['run', 'name=x']), 'cronflowd.ask.commands' in sys.modules)"
    )
    assert _told_by(script) == "2 False\n"


@pytest.mark.parametrize("program", ["cronflowd.daemon.daemon", "cronflowd.worker.program"])
def test_certificates_cost_only_who_has_some(program: str) -> None:
    """The library takes 10 MiB, and many daemons are alone and most workers near them."""
    script = f"import sys, {program}; print('cryptography' in sys.modules)"
    assert _told_by(script) == "False\n"


def test_the_example_of_tasks_db_is_as_a_daemon_writes_it() -> None:
    """It is what people copy from, so it is read without complaint and already in canonical form."""
    path = ROOT / "tasks.db.example"
    entries = tasks_file.read_tasks(path, "UTC")
    numbered = [(number, entry[1]) for number, entry in enumerate(entries, 1)]
    assert len(numbered) == 6
    written = b"".join(tasks_file.format_tasks(numbered)).decode()
    lines = [line.replace(f'"id": {number}, ', "").replace(f', "id": {number}', "")
             for number, line in enumerate(written.splitlines(), 1)]  # fmt: skip
    assert lines == path.read_text(encoding="utf-8").splitlines()
