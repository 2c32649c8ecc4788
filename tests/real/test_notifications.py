"""Somebody is told: from a job that fails to a mail in a box and a request at a server."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from tests.lib.http_server import http_server
from tests.real.running import StartDaemon, Worker, wait_until
from tests.worker.test_email_jobs import Box, smtp_server

TOML = """
notify = ["failure+recovery:%s/general", "worker:%s/worker"]
notify-limit = "%s"
[worker]
smtp = "127.0.0.1:%d"
smtp_from = "cron@example.org"
"""


def test_a_failing_job_is_told_by_mail_webhook_and_slack(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """With the worker that came with the daemon; a restart forgets nothing, and HUP reads the limit anew."""
    box, config = Box(), tmp_path / "cronflowd.toml"
    with http_server() as server, smtp_server(box) as port:
        config.write_text(TOML % (server.url, server.url, "1/1h", port))
        daemon = start_daemon("--local-worker", "2", "--config", str(config))
        daemon.until("WORKERS", lambda answer: "\tready\t" in answer)
        targets = f"mailto:ops@example.org,{server.url}/own,failure:slack+{server.url}/slack"
        daemon.ask(
            f"ADD name=backup notify={targets} @yearly echo copying; echo disk full; test -e {tmp_path}/ok",
            "ADD name=plain @yearly false",
            "RUN backup",
            "RUN plain",
        )
        wait_until(lambda: len(box.mails) == 1 and len(server.asked) == 3)
        ((envelope, message),) = box.mails
        assert envelope.rcpt_tos == ["ops@example.org"]
        assert message["Subject"] == "[cronflowd] backup failed (exit 1)"
        text = message.get_content().replace("\r", "")
        assert "\nexit         1\n" in text
        assert text.split("Its last lines:")[1].split("\n")[1:3] == ["copying", "disk full"]
        asked = {each.path: json.loads(each.body) for each in server.asked}
        own = asked["/own"]["data"]
        assert (own["event"], own["jobName"], own["run"], own["exit"], own["worker"]) == (
            "failure", "backup", 1, 1, "local",
        )  # fmt: skip
        assert asked["/slack"]["text"].startswith("*[cronflowd] backup failed (exit 1)*\n```event")
        assert asked["/general"]["data"]["headline"] == "plain failed (exit 1)"
        wait_until(lambda: daemon.ask("LIST name=notify*") == ["OK 0"])
        assert daemon.ask("LIST")[-1] == "OK 2"
        daemon.restart()
        daemon.until("WORKERS", lambda answer: "\tready\t" in answer)
        daemon.ask("RUN backup", "RUN plain")
        daemon.until("STATUS", lambda answer: "fires-failed\t4" in answer)
        (tmp_path / "ok").touch()
        daemon.ask("RUN backup")
        wait_until(lambda: len(box.mails) == 2)
        assert box.mails[1][1]["Subject"] == "[cronflowd] backup is well again"
        wait_until(lambda: sum(each.path == "/own" for each in server.asked) == 2)
        assert sum(each.path == "/general" for each in server.asked) == 1
        config.write_text(TOML % (server.url, server.url, "5/1h", port))
        assert daemon.process
        daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "settings read again" in daemon.log.read_text())
        daemon.ask("RUN plain")
        wait_until(lambda: sum(each.path == "/general" for each in server.asked) == 2)
        assert json.loads(server.asked[-1].body)["data"]["withheld"] == 1


def test_a_mail_server_that_is_away_is_tried_again(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """And what failed about it stands in the history of the notification itself."""
    daemon = start_daemon()
    with smtp_server(Box()) as port:
        pass  # so nobody listens there any more
    worker = Worker(daemon, "w1", tmp_path / "spool", 2, "--smtp", f"127.0.0.1:{port}")
    worker.start()
    daemon.ask("NOW name=bad notify=mailto:ops@example.org false")
    daemon.until("RUNS state=failed", lambda answer: "\tnotify_2\t1\tfailed" in answer)
    assert any("attempt 2 follows" in line for line in daemon.ask("LOG 2"))
    assert daemon.ask("RUNS state=queued")[0].split("\t")[2:5] == ["notify_2", "2", "queued"]
    worker.stop()


def test_silence_is_told(start_daemon: StartDaemon) -> None:
    """From a line of netcat, or its absence, to a request at a server."""
    with http_server() as server:
        daemon = start_daemon("--local-worker", "1")
        daemon.until("WORKERS", lambda answer: "\tready\t" in answer)
        daemon.ask(f"EXPECT offsite every=1s grace=500ms notify=absent+recovery:{server.url}/alarm")
        wait_until(lambda: len(server.asked) == 1)
        assert daemon.ask("EXPECTS")[0].startswith("offsite\tlate\t-\t-\t1s\t500ms\t")
        daemon.ask("BEAT offsite ok here I am")
        wait_until(lambda: len(server.asked) >= 2)  # a third as soon as it is silent again
        events = [json.loads(each.body)["data"]["event"] for each in server.asked[:2]]
        assert events == ["absent", "recovery"]
