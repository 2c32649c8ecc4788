"""`cronflowd import`, `export` and `run` against a real daemon and a real worker."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lib.job_processes import wait_for
from tests.real.running import PATIENCE_S, ROOT, Daemon, StartDaemon, wait_until

pytestmark = pytest.mark.real
SAMPLE = Path(__file__).parents[1] / "data" / "crontab.system"


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with a worker, of all that only run something: whose run it is, they are told."""
    daemon = Daemon(tmp_path_factory.mktemp("busy") / "data", "--local-worker", "2")
    daemon.start()
    try:
        daemon.until("WORKERS", lambda said: "local\tready" in said)
        yield daemon
    finally:
        daemon.close()


def command(daemon: Daemon, verb: str, *words: str) -> list[str]:
    server = () if "--server" in words else ("--server", f"{daemon.host}:{daemon.port}")
    return [sys.executable, "-m", "cronflowd", verb, *server, *words]


def cronflowd(
    daemon: Daemon, verb: str, *words: str, given: str = "", **env: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(daemon, verb, *words),
        input=given,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        cwd=ROOT,
        env=os.environ | env,
    )


# --- import and export --------------------------------------------------------------------------


def test_a_system_crontab_moves_in(daemon: Daemon) -> None:
    """Each line is reported, what is refused is named, and the others are in."""
    dry = cronflowd(daemon, "import", "--system", "--dry-run", str(SAMPLE))
    assert daemon.ask("LIST limit=0") == ["OK 0"]
    assert dry.stdout.splitlines()[-1] == "nothing was changed: 10 would be added, 0 there already, 2 refused"
    done = cronflowd(daemon, "import", "--system", str(SAMPLE))
    assert (done.returncode, dry.returncode, done.stderr) == (65, 65, "")
    said = done.stdout.splitlines()
    assert said[0] == "line 2: set SHELL"
    mailto = "differs: nothing is mailed to root, which is no address such as ops@example.org"
    assert said[2] == f"line 4: set MAILTO; {mailto}"
    assert re.match(r"line 7: added run-parts \(id 1\), next \S+Z", said[3])
    assert "worker's user" not in done.stdout
    assert "user\tnobody" in daemon.ask("GET tee")
    assert said[-3] == 'line 20: refused: minute field "*/0": the step in "*/0" is 0'
    assert said[-1] == "10 added, 0 there already, 2 refused"
    names = [row.split("\t")[1] for row in daemon.ask("LIST")[:-1]]
    assert names == [
        "run-parts", "run-parts-2", "run-parts-3", "run-parts-4", "sessionclean", "debian-sa1", "start.php",
        "pg_dump", "tee", "mail",
    ]  # fmt: skip


def test_a_crontab_that_was_mended_is_sent_again(daemon: Daemon, tmp_path: Path) -> None:
    """Nobody should have to pick out the lines that are in already."""
    file = tmp_path / "crontab"
    file.write_text("@daily backup\n61 * * * * clean\n@hourly caf\xe9\n", encoding="latin-1")
    done = cronflowd(daemon, "import", str(file))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (65, "1 added, 0 there already, 2 refused")
    assert "line 3: refused: byte 0xe9 at column" in done.stdout
    again = cronflowd(daemon, "import", "-", given="@daily backup\n1 * * * * clean\n")
    assert (again.returncode, again.stdout.splitlines()[-1]) == (0, "1 added, 1 there already, 0 refused")


def test_what_went_in_comes_out_and_goes_in_again(daemon: Daemon, start_daemon: StartDaemon) -> None:
    """Nobody is locked in: the exported crontab means the same tasks."""
    cronflowd(daemon, "import", "--system", str(SAMPLE))
    out = cronflowd(daemon, "export")
    assert (out.returncode, out.stderr) == (0, "")
    assert "%first line%100\\% of it%it's the last\n" in out.stdout
    other = start_daemon()
    assert cronflowd(other, "import", "-", given=out.stdout).returncode == 0

    def meanings(which: Daemon) -> list[list[str]]:
        return sorted(row.split("\t")[4:6] for row in which.ask("LIST")[:-1])

    assert meanings(daemon) == meanings(other)
    assert cronflowd(daemon, "export", "tee").stdout.startswith("# tee; not in cron: user=nobody\nPATH=")


def test_what_comes_back_to_where_it_was_is_there_already(daemon: Daemon, tmp_path: Path) -> None:
    """Else every command would run twice; and a dry run says beforehand what comes of a crontab."""
    file = tmp_path / "crontab"
    file.write_text("MAILTO=ops@example.org\n@daily echo a\n@daily echo b\n@daily echo a\n@daily echo b\n")
    dry = cronflowd(daemon, "import", "--dry-run", str(file)).stdout.splitlines()
    done = cronflowd(daemon, "import", str(file)).stdout.splitlines()
    assert dry[-1] == "nothing was changed: 2 would be added, 2 there already, 0 refused"
    assert done[-1] == "2 added, 2 there already, 0 refused"
    daemon.ask("SET echo timeout=5m", 'ADD name=hooked notify=https://h/x "daily at 8:30 and 17:15" x')
    out = cronflowd(daemon, "export").stdout
    again = cronflowd(daemon, "import", "-", given=out).stdout.splitlines()
    assert again[-1] == "0 added, 4 there already, 0 refused"
    out = out.replace("echo a", "echo c")
    dry = cronflowd(daemon, "import", "--replace", "--dry-run", "-", given=out).stdout.splitlines()
    assert dry[-1] == "nothing was changed: 0 would be added, 1 would be replaced, 3 there already, 0 refused"
    done = cronflowd(daemon, "import", "--replace", "-", given=out).stdout.splitlines()
    assert done[-1] == "0 added, 1 replaced, 3 there already, 0 refused"
    assert any(re.fullmatch(r"line \d+: replaced echo \(id 1\), next \S+Z.*", line) for line in done)


@pytest.mark.skipif(not Path("/usr/bin/crontab").exists(), reason="no crontab here")
def test_debian_s_crontab_accepts_what_we_export(daemon: Daemon, tmp_path: Path) -> None:
    """It is judged by whoever has to read it."""
    cronflowd(daemon, "import", "--system", str(SAMPLE))
    daemon.ask(
        'ADD name=odd env.A="it\'s" env.B= @every 90s x',
        'ADD "every 2 hours on weekdays" y',
        "ADD 0 0 L * * z",
    )
    file = tmp_path / "crontab"
    file.write_text(cronflowd(daemon, "export").stdout)
    checked = subprocess.run(["crontab", "-n", str(file)], capture_output=True, text=True, check=False)
    assert (checked.returncode, "successfully" in checked.stdout + checked.stderr) == (0, True), checked


def test_what_follows_a_percent_sign_is_the_command_s_input(busy: Daemon, tmp_path: Path) -> None:
    """Through two shells and a pipe, not a character may change."""
    out = tmp_path / "out"
    lines = f"""SHELL=/bin/bash
@yearly cat > "{out}" && echo "\\% it's" >> "{out}"%first 'line'%%100\\% $HOME "x"\\y%
"""
    assert cronflowd(busy, "import", "-", given=lines).returncode == 0
    busy.ask("RUN cat")
    busy.until("RUNS cat", lambda said: "\tok\t" in said)
    assert out.read_text() == "first 'line'\n\n100% $HOME \"x\"\\y\n% it's\n"


# --- run ----------------------------------------------------------------------------------------


def test_run_shows_what_the_command_writes_and_ends_as_it_does(busy: Daemon) -> None:
    """For scripts: as if the command had been run here."""
    job = 'echo "one  $W"; echo two >&2; printf "a\\tb\\\\"; exit 3'
    done = cronflowd(busy, "run", 'env.W=it\'s "so"', "--", "sh", "-c", job)
    assert (done.returncode, done.stdout, done.stderr) == (3, 'one  it\'s "so"\na\tb\\', "two\n")
    assert cronflowd(busy, "run", "--name", "fine", "--", "true").returncode == 0
    assert cronflowd(busy, "run", "--", "sh", "-c", "kill -9 $$").returncode == 137
    assert cronflowd(busy, "run", "--", "A=b", "c").returncode == 127


def test_run_quotes_only_for_types_that_take_it_off_again(busy: Daemon) -> None:
    """A URL with & in it, or arithmetic with *, is no word for a shell."""
    assert cronflowd(busy, "run", "type=echo", "--", "it's", "a&b  c").stdout == "it's a&b  c\n"
    assert cronflowd(busy, "run", "type=calculate", "--", "2 * (3", "+ 4)").stdout == "14\n"
    assert cronflowd(busy, "run", "type=script", "--", "printf", "%s|", "a b", "$HOME").stdout == "a b|$HOME|"


def test_a_line_for_a_shell_in_one_word_is_told_how_to_be_given(busy: Daemon) -> None:
    """`run -- 'a; b'` ended with "a; b: not found", which nobody reads as a matter of quotes."""
    done = cronflowd(busy, "run", "--", "echo a; exit 3")
    assert (done.returncode, "sh -c" in done.stderr) == (127, True)
    done = cronflowd(busy, "run", "--", "sh", "-c", "echo a; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, "a\n", "")


def test_run_waits_for_the_last_attempt(busy: Daemon, tmp_path: Path) -> None:
    """A retry that succeeds is a success."""
    mark = tmp_path / "mark"
    job = f"test -e {mark} && echo there && exit; touch {mark}; exit 5"
    done = cronflowd(busy, "run", "--retry", "fixed:2:100ms", "--", "sh", "-c", job)
    assert (done.returncode, done.stdout) == (0, "there\n")
    assert done.stderr.startswith("cronflowd: attempt 1 ended: failed, exit 5; attempt 2 follows")


def test_run_tells_its_own_ends_by_their_codes(busy: Daemon) -> None:
    """As timeout(1) has it; 75 says that trying again is right."""
    assert cronflowd(busy, "run", "--timeout", "200ms", "--", "sleep", "9").returncode == 124
    assert cronflowd(busy, "run", "--on", "nobody", "grace=1s", "--", "true").returncode == 75
    assert cronflowd(busy, "run", "colour=red", "--", "true").returncode == 2
    assert cronflowd(busy, "run", "true").returncode == 2
    assert cronflowd(busy, "run", "--", "echo", "a\nREMOVE all").returncode == 2
    assert cronflowd(busy, "run", "--server", "127.0.0.1:1", "--", "true").returncode == 69


def start_sleeper(daemon: Daemon) -> subprocess.Popen[str]:
    words = command(daemon, "run", "--name", "sleeper", "--", "sh", "-c", "echo up; sleep 30")
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout
    assert process.stdout.readline() == "up\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_cancels_the_run(busy: Daemon, number: signal.Signals) -> None:
    """Ctrl-C means the job, wherever it runs."""
    process = start_sleeper(busy)
    process.send_signal(number)
    _, said = process.communicate(timeout=PATIENCE_S)
    told = re.fullmatch(
        r"cronflowd: run (\d+) is cancelled; LOG \1 has what it writes until it has ended\n", said
    )
    assert (process.returncode, bool(told)) == (128 + number, True), said
    assert told
    busy.until(f"RUNS run={told[1]}", lambda said: "\tcancelled\t" in said)


def sockets(pid: int) -> int:
    return sum(each.readlink().name.startswith("socket:") for each in Path(f"/proc/{pid}/fd").iterdir())


def test_a_signal_that_comes_twice_cancels_the_run_once(busy: Daemon) -> None:
    """timeout(1) sends TERM to the process and to its group: the second one ended us before the CANCEL."""
    process = start_sleeper(busy)
    busy.process.send_signal(signal.SIGSTOP)  # so that the second one comes before there is an answer
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: sockets(process.pid) == 2)  # the connection of the CANCEL
    process.send_signal(signal.SIGTERM)
    busy.process.send_signal(signal.SIGCONT)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, said.count("is cancelled"), said.count("Traceback")) == (143, 1, 0)
    run = said.partition("run ")[2].split()[0]
    busy.until(f"RUNS run={run}", lambda said: "\tcancelled\t" in said)


def test_a_run_that_somebody_else_cancels_ends_with_130(busy: Daemon) -> None:
    """The script sees that it did not end by itself."""
    process = start_sleeper(busy)
    run = busy.ask("RUNS sleeper state=running")[0].split("\t")[0]
    busy.ask(f"CANCEL {run}")
    _, said = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, said.splitlines()[-1]) == (
        130,
        f"cronflowd: run {run} has ended as cancelled",
    )


def test_run_outlives_the_daemon(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """Jobs do, so whoever waits for one must too; and nothing is shown twice."""
    daemon = start_daemon("--local-worker", "2")
    go = tmp_path / "go"
    job = f"echo before; {wait_for(go)}; echo after; exit 4"
    words = command(daemon, "run", "--", "sh", "-c", job)
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout
    assert process.stdout.readline() == "before\n"
    daemon.restart()
    go.touch()
    out, said = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, said) == (4, "after\n", "")


# --- which server -------------------------------------------------------------------------------


def test_the_data_directory_s_socket_needs_no_token(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """And on TCP the token of --token-file is shown; without it the door stays shut: 77."""
    token = tmp_path / "token"
    token.write_text("5f2b1c90\n")
    token.chmod(0o600)
    daemon = start_daemon("--token-file", str(token))
    data = [sys.executable, "-m", "cronflowd", "export", "--data", str(daemon.data)]
    assert subprocess.run(data, cwd=ROOT, check=False, timeout=PATIENCE_S).returncode == 0
    unix = f"unix:{daemon.unix_socket}"
    assert cronflowd(daemon, "import", "--server", unix, "-", given="@daily x\n").returncode == 0
    assert cronflowd(daemon, "export", "--token-file", str(token)).stdout == "# x\n@daily x\n"
    assert cronflowd(daemon, "export", CRONFLOWD_TOKEN_FILE=str(token)).returncode == 0
    shut = cronflowd(daemon, "import", "-", given="@daily y\n")
    assert (shut.returncode, "auth-required" in shut.stderr) == (77, True)
    wrong = tmp_path / "wrong"
    wrong.write_text("guess\n")
    wrong.chmod(0o600)
    assert cronflowd(daemon, "run", "--token-file", str(wrong), "--", "true").returncode == 77


def test_a_reader_of_lists_that_leaves_is_not_answered_with_a_traceback(
    daemon: Daemon, tmp_path: Path
) -> None:
    """`export | head -1` has done what was wanted; `import … | head` still has to bring all in."""
    file = tmp_path / "crontab"
    file.write_text("".join(f"@daily echo {n} {'x' * 100}\n" for n in range(1500)))

    def until_first(*words: str) -> tuple[int, bytes]:
        process = subprocess.Popen(
            command(daemon, *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
        )
        assert process.stdout
        process.stdout.readline()
        process.stdout.close()
        wait_until(lambda: process.poll() is not None)
        assert process.stderr
        with process.stderr:
            return process.returncode, process.stderr.read()

    assert until_first("import", str(file)) == (0, b"")
    assert daemon.ask("LIST name=echo*")[-1] == "OK 1500"
    assert until_first("export") == (141, b"")


def test_a_reader_that_leaves_ends_only_the_writing(busy: Daemon, tmp_path: Path) -> None:
    """`cronflowd run … | head` must not lose the exit status to a broken pipe."""
    has_left = tmp_path / "has_left"
    job = f"echo a; {wait_for(has_left)}; echo b; sleep 0.2; exit 6"
    words = command(busy, "run", "--", "sh", "-c", job)
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout
    assert process.stdout.readline() == "a\n"
    process.stdout.close()
    has_left.touch()
    wait_until(lambda: process.poll() is not None)
    assert process.stderr
    told = r"cronflowd: standard output: Broken pipe; run (\d+) goes on, and LOG \1 has what it writes\n"
    said = process.stderr.read()
    assert (process.returncode, bool(re.fullmatch(told, said))) == (6, True), said
    process.stderr.close()
