"""What jobs write, as `cronflowd run`, LOG and nc give it back: every byte, in time, and nothing silently.

One daemon with one worker for all of them; each test has runs of its own.
"""

from __future__ import annotations

import base64
import json
import os
import pwd
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cronflowd.cli.client import run_command
from cronflowd.host.config import ClientSettings
from tests.lib.job_processes import wait_for
from tests.real.running import PATIENCE_S, ROOT, Daemon, StartDaemon, Worker, wait_until

pytestmark = pytest.mark.real
Done = subprocess.CompletedProcess[bytes]


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with a worker, for all tests of this file."""
    place = tmp_path_factory.mktemp("output")
    handlers = place / "handlers"
    handlers.mkdir(mode=0o755)
    (handlers / "asks.py").write_text(
        "import time\n\ndef handle(data, context):\n    print('Go on? ', end='')\n    time.sleep(30)\n"
    )
    (handlers / "long.py").write_text("def handle(data, context):\n    return 'x' * data['size']\n")
    (place / "config.toml").write_text(f'[worker]\nhandlers = "{handlers}"\n')
    daemon = Daemon(place / "data", "--local-worker", "8", "--config", str(place / "config.toml"))
    daemon.start()
    daemon.until("WORKERS", lambda said: "local\tready" in said)
    yield daemon
    daemon.close()


def words(daemon: Daemon, *given: str) -> list[str]:
    return [sys.executable, "-m", "cronflowd", "run", "--server", f"unix:{daemon.unix_socket}", *given]


def run(daemon: Daemon, *given: str, data: bytes | None = None, env: dict[str, str] | None = None) -> Done:
    stdin = {"stdin": subprocess.DEVNULL} if data is None else {"input": data}
    return subprocess.run(
        words(daemon, *given),
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
        cwd=ROOT,
        env=os.environ | (env or {}),
        **stdin,  # type: ignore[call-overload]
    )


def python(program: str) -> list[str]:
    return ["--", sys.executable, "-c", program]


def now(daemon: Daemon, command: str, *options: str) -> int:
    """Starts a command; its run."""
    (answer,) = daemon.ask(" ".join(["NOW", *options, command]))
    task = answer.split()[1]
    return int(daemon.until(f"RUNS {task}", lambda said: "\t" in said).split("\t")[0])


def log(daemon: Daemon, run: int) -> list[str]:
    return daemon.ask(f"LOG {run}")[:-1]


def bytes_in_log(daemon: Daemon, run: int, fd: int = 1) -> bytes:
    """What LOG says that a run has written, as its rows are told in protocol.md."""
    found = b""
    for line in daemon.ask("FORMAT json", f"LOG {run}")[1:-1]:
        row = json.loads(line)
        if row["fd"] == fd:
            found += base64.b64decode(row["base64"]) if "base64" in row else row["text"].encode()
            found += b"" if row.get("end") == "no-newline" else b"\n"
    return found


# --- given back as it was -----------------------------------------------------------------------

CASES = {
    "a long line": b'{"a": "' + b"x" * 300_000 + b'"}\n',
    "of many bytes a character": "\N{SNOWMAN}".encode() * 20_000 + b"\n",
    "just a row": b"y" * 8192 + b"\n" + b"y" * 8193 + b"\n",
    "no newline at the end": b"no end",
    "two newlines at the end": b"end\n\n",
    "carriage returns": b"10%\r20%\r\r\ndos\r\n\r",
    "zeros": b"\0a\0\0\n\0",
    "no UTF-8": bytes(range(256)) + b"\xc3\n\xa9\xf0\x9f\x98",
    "escapes": b"\\\\ \\n \\x41 \\udcff \\\n\\",
    "controls": "\x1b[31m\x85\u2028\u202e\u0600\n".encode(),
    "nothing": b"",
    "just a newline": b"\n",
    "all that is allowed": b"z" * (1024 * 1024),
}


@pytest.mark.parametrize("data", CASES.values(), ids=CASES)
def test_output_comes_back_byte_for_byte(
    busy: Daemon, data: bytes, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """`cronflowd run -- prints-json | parse` must work, whatever the length of a line."""
    file = tmp_path / "data"
    file.write_bytes(data)
    assert run_command(ClientSettings(server=busy.unix_socket), (), ["cat", str(file)]) == 0
    out, err = capfdbinary.readouterr()
    assert (len(out), out == data, err) == (len(data), True, b"")
    number = int(busy.ask("RUNS limit=1")[0].split("\t")[0])
    assert bytes_in_log(busy, number) == data
    assert all(len(row.encode()) < 65536 for row in log(busy, number))


def test_both_outputs_are_whole_also_where_they_alternate(busy: Daemon) -> None:
    """Each on its own stream, however the pieces come."""
    program = "import os; [os.write(1 + n % 2, b'\\xff' * 300 if n % 2 else b'o%d' % n) for n in range(100)]"
    done = run(busy, *python(program))
    assert done.stdout == b"".join(b"o%d" % n for n in range(0, 100, 2))
    assert done.stderr == b"\xff" * 15_000


def test_the_head_and_the_tail_of_too_much_are_whole(busy: Daemon) -> None:
    """In the middle of a line, too; how much is missing between them is told."""
    done = run(busy, *python("print('a' * 600_000 + 'b' * 600_000, end='')"))
    half = 512 * 1024
    assert done.stdout == b"a" * half + b"b" * half
    assert done.stderr == "cronflowd: … 151424 bytes omitted …\n".encode()


def test_results_of_handlers_come_back_as_they_were(busy: Daemon) -> None:
    """A handler's result is one line of JSON, of any length."""
    done = run(busy, "type=custom", 'payload={"size": 100000}', "--", "long")
    assert (done.returncode, json.loads(done.stdout)) == (0, "x" * 100_000)


# --- shown while it is unfinished ---------------------------------------------------------------

UNFINISHED = {
    "a question": ("printf 'Password: '", "Password: "),
    "a question on standard error": ("printf 'Sure? ' >&2", "Sure? "),
    "a progress bar": (r"printf '\r10%%'; sleep 0.1; printf '\r20%%'", "20%"),
    "a progress bar that returns": (r"printf '10%%\r20%%\r'", r"20%\r"),
    "dots, one by one": ("while :; do printf .; sleep 0.2; done", "..."),
    "the rest behind a whole line": ("echo whole; printf 'and a part'", "and a part"),
    "half a character": (r"printf 'gr\303'", r"\udcc3"),
}


def test_what_has_no_end_yet_is_shown(busy: Daemon) -> None:
    """Nobody sees otherwise why the job hangs."""
    runs = {now(busy, f"{command}; sleep 30"): shown for command, shown in UNFINISHED.values()}
    runs[now(busy, "asks", "type=custom")] = "Go on? "
    for number, shown in runs.items():
        busy.until(f"LOG {number}", lambda said, shown=shown: shown in said)  # type: ignore[misc]
        assert busy.ask(f"CANCEL {number}") == [f"OK {number} cancelled"]


def test_the_rest_of_a_line_that_was_shown_follows_it(busy: Daemon, tmp_path: Path) -> None:
    """In follow and in `cronflowd run`, and in LOG later: nothing twice, nothing in between."""
    gate = tmp_path / "gate"
    program = f"printf 'Password: '; {wait_for(gate)}; printf 'ok\\nlast'"
    number = now(busy, program)
    with subprocess.Popen(
        words(busy, "--", "sh", "-c", program), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=ROOT
    ) as runner:
        assert runner.stdout
        assert os.read(runner.stdout.fileno(), 100) == b"Password: "
        busy.until(f"LOG {number}", lambda said: "Password: " in said)
        gate.touch()
        assert runner.stdout.read() == b"ok\nlast"
    busy.until(f"LOG {number}", lambda said: "last" in said)
    assert log(busy, number) == ["1\tPassword: \tno-newline", "1\tok", "1\tlast\tno-newline"]


def test_an_answer_by_http_is_shown_while_it_comes(busy: Daemon) -> None:
    """The same for whatever has output."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = now(busy, f"GET http://127.0.0.1:{server.getsockname()[1]}/", "type=http")
        client, _ = server.accept()
        with client:
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\nhalf a ")
            busy.until(f"LOG {number}", lambda said: "1\thalf a \tno-newline\n" in said)
            client.sendall(b"line")
    busy.until(f"LOG {number}", lambda said: "200 OK" in said)
    assert bytes_in_log(busy, number) == b"half a line"


# --- why it failed ------------------------------------------------------------------------------

REASONS = {
    "@yearly kill -9 $$": (137, "killed by signal 9 (KILL)"),
    "@yearly kill -SEGV $$": (139, "killed by signal 11 (SEGV)"),
    "@yearly exit 137": (137, None),
    "@yearly exit 127": (127, "exit 127: as a shell says, the command was not found"),
    "@yearly exit 126": (126, "exit 126: as a shell says, the command cannot be executed"),
    "@yearly no-such-command": (127, "/bin/sh: 1: no-such-command: not found"),
    "@yearly /etc/passwd": (126, "/bin/sh: 1: /etc/passwd: Permission denied"),
    "type=script @yearly /no/such": (127, "cannot start: /no/such: No such file or directory"),
    "cwd=/no/such @yearly true": (127, "cannot start: directory /no/such: No such file or directory"),
    r"@yearly printf 'first\nlast words\n\n' >&2; exit 3": (3, "last words"),
    r"@yearly printf '1%%\r2%%\rtorn' >&2; exit 3": (3, "torn"),
    "@yearly echo only out; exit 3": (3, None),
    "timeout=200ms @yearly sleep 9": (143, "its timeout of 200ms is over"),
    "retry=fixed:1:0s @yearly test $CRONFLOW_ATTEMPT = 2 || echo no >&2; exit 4": (4, None),
}


def test_the_reason_of_a_failure_is_told_wherever_it_is_looked_for(busy: Daemon) -> None:
    """`kill -9 $$` and `exit 137` are not the same, and nobody should have to open the LOG to see it."""
    answers = busy.ask(*(f"ADD name=why-{n} {command}" for n, command in enumerate(REASONS)))
    for answer in answers:
        assert answer.startswith("OK "), answer
    busy.ask(*(f"RUN why-{n}" for n in range(len(REASONS))))
    for n, (exit_code, why) in enumerate(REASONS.values()):
        name = f"why-{n}"
        busy.until(f"LIST name={name}", lambda said: "running" not in said and "queued" not in said)
        row = json.loads(busy.ask("FORMAT json", f"RUNS {name} limit=1")[1])
        assert (row["exit"], row["why"]) == (exit_code, why), list(REASONS)[n]
        failed = next(row for row in busy.ask("FAILED") if f"\t{name}\t" in row).split("\t")
        assert failed[7] == (why or "-")
        assert why is None or any(why in line for line in busy.ask(f"WHY {name}"))
        assert why is None or any(why in line for line in log(busy, row["run"]))


# --- the environment ----------------------------------------------------------------------------


def test_jobs_find_what_cron_sets_and_nothing_of_the_daemon_s(
    start_daemon: StartDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The local worker is started by the daemon; what systemd said to that one concerns no job."""
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "CREDENTIALS_DIRECTORY", "PYTHONSAFEPATH", "X_Y"):
        monkeypatch.setenv(name, "")
    for name in ("LOGNAME", "USER", "HOME", "SHELL", "TZ", "LANGUAGE", "LC_ALL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.setenv("LC_TIME", "C")
    monkeypatch.setenv("MINE", "1")
    monkeypatch.setenv("CRONFLOWD_PASS_ENV", "MINE,OURS_*")
    daemon = start_daemon("--local-worker", "1")
    number = now(daemon, "env", "type=script", "env.OWN=2")
    daemon.until(f"LOG {number}", lambda said: "FIRE_ID" in said)
    found = dict(row[2:].split("=", 1) for row in log(daemon, number))
    account = pwd.getpwuid(os.getuid())
    assert {name: text for name, text in found.items() if not name.startswith("CRONFLOW_")} == {
        "SHELL": "/bin/sh",
        "HOME": account.pw_dir,
        "LOGNAME": account.pw_name,
        "USER": account.pw_name,
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "LC_TIME": "C",
        "MINE": "1",
        "OWN": "2",
    }


# --- nothing is dropped without a word ----------------------------------------------------------


@pytest.mark.parametrize("data", [b"hi\n", b"", bytes(range(256)) * 128], ids=["hi", "nothing", "much"])
def test_standard_input_is_passed(busy: Daemon, data: bytes) -> None:
    """`echo hi | cronflowd run -- cat` is what everybody tries."""
    done = run(busy, "--", "cat", data=data)
    assert (done.returncode, done.stdout, done.stderr) == (0, data, b"")


def test_more_input_than_an_order_holds_is_refused_before_anything_runs(busy: Daemon) -> None:
    """Half of it would be worse than none."""
    newest = busy.ask("RUNS limit=1")[0].split("\t")[0]
    done = run(busy, "--", "cat", data=b"x" * 32_769)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"standard input has more than the 32768 bytes" in done.stderr
    assert busy.ask("RUNS limit=1")[0].split("\t")[0] == newest  # which may be ending still


def test_input_that_is_not_passed_is_told(busy: Daemon) -> None:
    """For a type that takes none, and where none has come when the command has to be sent."""
    done = run(busy, "type=echo", "--", "said", data=b"hi\n")
    told = b"cronflowd: 3 bytes on standard input are not passed: type=echo takes none\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, b"said\n", told)
    reader, writer = os.pipe()
    try:
        done = subprocess.run(
            words(busy, "--", "cat"), stdin=reader, capture_output=True, check=False, cwd=ROOT
        )
    finally:
        os.close(reader)
        os.close(writer)
    told = b"cronflowd: nothing came on standard input within 1 s, and nothing is passed\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", told)


def test_what_a_run_waits_for_is_told_and_again_when_it_is_something_else(busy: Daemon) -> None:
    """Else a name that was mistyped looks like a command that takes long."""
    busy.ask("NOW on=nosuch true")
    with subprocess.Popen(
        words(busy, "--on", "nosuch", "--", "true"),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as runner:
        assert runner.stderr
        assert runner.stderr.readline().endswith(
            "is queued and waits for a worker that can do shell and is on=nosuch (none is known)\n"
        )
        with socket.create_connection(("127.0.0.1", busy.worker_port)) as worker:
            worker.sendall(b"HELLO name=nosuch slots=1\n")
            assert runner.stderr.readline().endswith("is queued and waits for a free slot\n")
            runner.terminate()
            assert "is cancelled" in runner.stderr.read()


def test_the_output_of_all_workers_is_shown_and_the_worst_of_their_ends(
    start_daemon: StartDaemon, start_worker: Callable[..., Worker]
) -> None:
    """on=all makes several runs of one order, and none of them may be passed over."""
    daemon = start_daemon()
    for name in ("w1", "w2"):
        start_worker(daemon, name)
    done = run(daemon, "--on", "all", "--", "sh", "-c", "echo $CRONFLOW_RUN_ID; exit $CRONFLOW_RUN_ID")
    assert (done.returncode, done.stdout, done.stderr) == (2, b"1\n2\n", b"")


def test_a_process_that_is_left_behind_with_the_output_is_told_of(busy: Daemon, tmp_path: Path) -> None:
    """What it writes later would be missing without a word."""
    gate = tmp_path / "gate"
    done = run(busy, "--", "sh", "-c", f"({wait_for(gate)}; echo late) & echo first")
    gate.touch()
    assert (done.returncode, done.stdout) == (0, b"first\n")
    assert re.fullmatch(
        rb"cronflowd: it left (\w+ \(pid \d+\)(, )?)+ behind, and its output .*\n", done.stderr
    )
    done = run(busy, "--", "sh", "-c", "sleep 1 >/dev/null 2>&1 & echo first")
    assert (done.stdout, done.stderr) == (b"first\n", b"")


@pytest.mark.parametrize(("how", "status"), [(">/dev/full", 74), (">&-", 74)])
def test_output_that_cannot_be_written_is_told(busy: Daemon, how: str, status: int) -> None:
    """A disk that is full must not look like a success."""
    command = " ".join(words(busy, "--", "echo", "hi"))
    done = subprocess.run(
        ["/bin/sh", "-c", f"{command} {how}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        cwd=ROOT,
    )
    assert (done.returncode, done.stderr[:27]) == (status, b"cronflowd: standard output:")


def test_what_a_job_writes_while_it_is_being_killed_is_kept(busy: Daemon) -> None:
    """Its last words say what it left undone."""
    command = "trap 'echo cleaning >&2; exit 3' TERM; echo up; while :; do sleep 0.05; done"
    number = now(busy, command)
    busy.until(f"LOG {number}", lambda said: "up" in said)
    busy.ask(f"CANCEL {number}")
    busy.until(f"LOG {number}", lambda said: "2\tcleaning\n" in said)
    for timeout in ("300ms", "3s", "30s"):
        number = now(busy, command, f"timeout={timeout}")
        busy.until(f"RUNS run={number}", lambda said: "\ttimeout\t" in said)
        if "1\tup" in log(busy, number):  # else it was over before it had begun
            break
    assert {"1\tup", "2\tcleaning"} <= set(log(busy, number))


def test_no_line_is_lost_or_doubled_when_the_daemon_is_killed(
    start_daemon: StartDaemon, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """What it had not read is sent to the next one, and what it had is not."""
    daemon, gate, done = start_daemon(), tmp_path / "gate", tmp_path / "done"
    start_worker(daemon, "w1")
    first, second = map(wait_for, (gate, tmp_path / "gate2"))
    rest = f"seq 9; echo; printf half; touch {done}; {second}; echo end"
    number = now(daemon, f"echo read; {first}; {rest}")
    daemon.until(f"LOG {number}", lambda said: "read" in said)
    os.kill(daemon.pid, signal.SIGSTOP)
    gate.touch()
    wait_until(done.exists)
    time.sleep(1.2)  # until what has no end has left the worker, too
    daemon.kill9()
    daemon.start()
    (tmp_path / "gate2").touch()
    daemon.until("RUNS limit=1", lambda said: "\tok\t" in said)
    assert bytes_in_log(daemon, number) == b"read\n1\n2\n3\n4\n5\n6\n7\n8\n9\n\nhalfend\n"
