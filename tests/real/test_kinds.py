"""Requests, webhooks and mails, from a line on the control port to a real server and back."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lib.http_server import http_server
from tests.real.running import StartDaemon, Worker, wait_until
from tests.worker.test_email_jobs import Box, smtp_server

TOML = """
local_worker = 4
[worker]
smtp = "127.0.0.1:%d"
smtp_from = "cron@example.org"
http_private = "allow"
connect = "192.0.2.1:1"
"""


def test_a_request_a_webhook_and_a_mail_reach_their_servers(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    """With the worker that came with the daemon, which has its settings from the daemon's file."""
    box = Box()
    config = tmp_path / "cronflowd.toml"
    with http_server() as server, smtp_server(box) as port:
        config.write_text(TOML % port)
        daemon = start_daemon("--local-worker", "2", "--config", str(config))
        daemon.until("WORKERS", lambda answer: "\tready\t" in answer)
        daemon.ask(
            f'NOW name=get type=http header.X-A="b c" payload={{"n": 1.0}} POST {server.url}/jobs',
            f'NOW name=hook type=webhook secret="s e" payload={{"ref": "main"}} {server.url}/hook',
            f"NOW name=bad type=http GET {server.url}/status?500",
            'NOW name=mail type=email payload={"subject": "Hi", "text": "a\\nb"} ops@example.org, nobody@x',
            "NOW name=meta type=http GET http://169.254.169.254/latest/",
        )
        wait_until(lambda: daemon.ask("STATUS")[0] == "tasks\t0")
        rows = {row.split("\t")[2]: row.split("\t") for row in daemon.ask("RUNS")[:-1]}
        ends = {name: (row[4], row[9]) for name, row in rows.items()}
        assert ends == {
            "get": ("ok", "0"),
            "hook": ("ok", "0"),
            "bad": ("failed", "22"),
            "mail": ("failed", "55"),
            "meta": ("failed", "126"),
        }
        asked = {each.path: each for each in server.asked}
        assert (asked["/jobs"].headers["x-a"], asked["/jobs"].body) == ("b c", b'{"n": 1.0}')
        assert asked["/hook"].headers["cronflow-signature"].startswith("t=")
        assert b'"jobName":"hook"' in asked["/hook"].body
        log = daemon.ask(f"LOG {rows['get'][0]}")
        assert log[:2] == ["1\thello", "1\tworld\tno-newline"]
        assert log[2].startswith("0\tHTTP/1.1 200 OK; 11 bytes in ")
        assert "nobody@x (550 no such user)" in daemon.ask(f"LOG {rows['mail'][0]}")[0]
        ((envelope, message),) = box.mails
        assert (envelope.rcpt_tos, message.get_content().split()) == (["ops@example.org"], ["a", "b"])


def test_a_worker_is_sent_only_what_it_can_do(
    start_daemon: StartDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mail waits for a worker that knows a server; a variable is enough to be one."""
    box = Box()
    daemon = start_daemon()
    without = Worker(daemon, "without", tmp_path / "spool1")
    with smtp_server(box) as port:
        without.start()
        daemon.ask('ADD name=mail type=email payload={"text": "x"} @daily a@b', "RUN mail")
        waits = "waits for a worker that can do email (none is known)"
        assert any(waits in row for row in daemon.ask("GET mail"))
        monkeypatch.setenv("CRONFLOWD_SMTP", f"127.0.0.1:{port}")
        able = Worker(daemon, "able", tmp_path / "spool2")
        able.start()
        wait_until(lambda: "fires-ok\t1" in daemon.ask("STATUS"))
        assert len(box.mails) == 1
        without.stop()
        able.stop()
