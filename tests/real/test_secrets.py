"""Secrets from the terminal to the job and back, and what is left of them: real processes, real files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.lib.http_server import http_server
from tests.lib.waiting import PATIENCE_S
from tests.real.running import ROOT, Daemon, StartDaemon, wait_until

VALUE = "hunter2 'and \"more\\ of $it* ünd"
LINES = "-----BEGIN KEY-----\nMIIBVwIBADANBgkqhki\nG9w0BAQEFAASCAUEwgg\n-----END KEY-----\n"


def put(daemon: Daemon, name: str, value: str) -> str:
    """As `cronflowd secret put NAME <file` does it."""
    command = [
        sys.executable,
        "-m",
        "cronflowd",
        "secret",
        "--server",
        f"127.0.0.1:{daemon.port}",
        "put",
        name,
    ]
    made = subprocess.run(command, input=value, capture_output=True, text=True, timeout=PATIENCE_S, cwd=ROOT)
    return made.stdout + made.stderr


def found_in(data: Path, *values: str) -> list[str]:
    """What `grep -r` finds of any of these, line by line; once in each file."""
    return [
        f"{path.relative_to(data)}: {line}"
        for path in sorted(data.rglob("*"))
        if path.is_file() and path.name != "key"
        for value in values
        for line in value.splitlines()
        if line.encode() in path.read_bytes()
    ]


def state_of(daemon: Daemon, run: str) -> str:
    rows = [row.split("\t") for row in daemon.ask("RUNS")[:-1]]
    return next(row[4] for row in rows if row[0] == run)


def test_a_job_is_given_it_and_nothing_else_ever_shows_it(start_daemon: StartDaemon) -> None:
    """Through kill -9 in the middle of a value: the shells' own quoting, half lines, a key file."""
    daemon = start_daemon("--local-worker", "2", "--log-level", "debug")
    assert put(daemon, "db", VALUE + "\n") == "db\n"
    assert put(daemon, "pem", LINES) == "pem\n"
    half = VALUE[:9]
    script = (
        'test "$(cat)" = "$PEM" || exit 9; printf %s "$DB"; echo; echo "$PEM" >&2;'
        f' echo "$PEM" | sed "s/^/  /"; printf %s "$DB" | head -c {len(half)};'
        ' while ! test -e "$GO"; do sleep 0.05; done;'
        f' printf %s "$DB" | tail -c +{len(half) + 1}; echo; env | grep -c hunter2'
    )
    go = daemon.data.with_name("go")
    options = f"name=a env.DB=secret:db env.PEM=secret:pem stdin=secret:pem env.GO={go}"
    assert daemon.ask(f"ADD {options} @every 1h {script}")[-1].startswith("OK 1 a")
    assert daemon.ask("RUN a") == ["OK 1"]
    wait_until(lambda: len(daemon.ask("LOG 1")) > 6)
    environ = Path(f"/proc/{daemon.pid}/environ").read_bytes()
    daemon.kill9()
    daemon.start()
    go.touch()
    wait_until(lambda: state_of(daemon, "1") not in ("sent", "running"))
    assert state_of(daemon, "1") == "ok"
    log = daemon.ask("LOG 1")[:-1]
    assert log.count("1\t[secret:db]") == 2
    assert "2\t[secret:pem]" in log
    assert log.count("1\t  [secret:pem]") == len(LINES.splitlines())
    said = "\n".join(
        [*log, *daemon.ask("GET a", "LIST", "HISTORY", "EXPORT", "RUNS", "WHY a", "SECRET LIST")]
    )
    daemon.stop()
    assert not any(line in said for value in (VALUE, LINES) for line in value.splitlines())
    assert found_in(daemon.data, VALUE, LINES) == []
    assert VALUE not in daemon.log.read_text()
    assert VALUE.encode() not in environ


def test_a_server_that_sends_everything_back_shows_nothing(start_daemon: StartDaemon) -> None:
    """Requests are echoed in error pages, as JSON, and nobody asked the one who wrote the server."""
    daemon = start_daemon("--local-worker", "2")
    put(daemon, "token", 't0ken/with+signs=and"quotes')
    with http_server() as server:
        options = 'header.Authorization="Bearer {{secret:token}}" payload={"t":"<{{secret:token}}>"}'
        daemon.ask(f"ADD name=h type=http {options} @every 1h POST {server.url}/mirror", "RUN h")
        wait_until(lambda: state_of(daemon, "1") not in ("queued", "sent", "running"))
        asked = server.asked[-1]
    assert asked.headers["authorization"] == 'Bearer t0ken/with+signs=and"quotes'
    assert json.loads(asked.body) == {"t": '<t0ken/with+signs=and"quotes>'}
    log = "\n".join(daemon.ask("LOG 1"))
    assert "[secret:token]" in log
    assert "t0ken" not in log
    daemon.stop()
    assert found_in(daemon.data, "t0ken/with") == []


def test_without_its_key_others_run_and_it_is_told(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """A restored backup has no key: the machine's other jobs must not wait until somebody finds it."""
    daemon = start_daemon("--local-worker", "2")
    put(daemon, "db", VALUE)
    daemon.ask("ADD name=a env.DB=secret:db @every 1h true", "ADD name=b @every 1h true", "BACKUP")
    daemon.stop()
    data = tmp_path / "restored"
    command = [sys.executable, "-m", "cronflowd", "restore", str(daemon.data / "backup.tar")]
    subprocess.run(
        [*command, "--data", str(data)], capture_output=True, check=True, timeout=PATIENCE_S, cwd=ROOT
    )
    assert not (data / "key").exists()
    again = start_daemon("--local-worker", "2", data=data)
    assert again.process
    assert "no secret can be opened" in again.log.read_text()
    assert f"key\tthere is no key: {data}/key" in again.ask("STATUS")
    again.ask("RUN a", "RUN b")
    wait_until(lambda: {state_of(again, run) for run in ("1", "2")} == {"failed", "ok"})
    assert again.ask("SECRET PUT db again")[0].startswith("ERR internal there is no key")
    (data / "key").write_text("0" * 64)
    again.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "key\tit was sealed under another key than this one" in again.ask("STATUS"))
    os.replace(daemon.data / "key", data / "key")
    again.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "key\tok" in again.ask("STATUS"))
    again.ask("RUN a")
    wait_until(lambda: state_of(again, "3") == "ok")


def test_what_is_no_value_is_refused_without_being_told(start_daemon: StartDaemon) -> None:
    """The wrong file is put as easily as the right one."""
    daemon = start_daemon("--local-worker", "0")
    for value in ("", "a\0b", "x" * 20_000):
        told = put(daemon, "x", value)
        assert "cronflowd: error:" in told
        assert len(told) < 200
    assert daemon.ask("SECRET LIST") == ["OK 0"]
