"""FORMAT json, judged by jq: every verb of the table, what it answers when all is well and when not.

A script that reads the port with jq must never meet a line that is no object. A new verb
needs its lines in SAID before this passes.
"""

from __future__ import annotations

import shutil
import socket
import subprocess

import pytest

from cronflowd.ask.commands import VERBS
from tests.real.running import Daemon, StartDaemon

# Characters that JSON, lines or terminals trip over.
ODD = 'echo "a\\b\tc" \u2028 \u202e \U0001f40c é \'{"x": [1e999]}\''
# Each verb's lines in the order in which they make sense; the last one of each is answered `ok`.
SAID: dict[str, list[str]] = {
    "HELLO": ["HELLO name=jq"],
    "AUTH": ["AUTH secret"],
    "FORMAT": ["FORMAT json"],
    "LOCAL": ["LOCAL"],
    "NODES": ["NODES"],
    "STEPDOWN": ["STEPDOWN n2"],
    "HELP": ["HELP ADD", "HELP"],
    "PING": ["PING"],
    "ADD": [
        'ADD {"schedule": "@daily", "command": "x", "jobName": "record", "tags": ["a", "b"]}',
        "ADD name=last after=record overlap=queue1 @after true",
        "ADD name=paris tz=Europe/Paris jitter=5s retry=exp:5:1s:300s:~20% 30 2 * * * true",
        f'ADD name=odd tags=a,b payload= env.X="a \\" b" desc="\u2029 \\\\" @hourly {ODD}',
    ],
    "AT": ['AT "in 10 minutes" name=once true'],
    "IMPORT": ["IMPORT --dry-run 0 5 * * 1 x", "IMPORT SHELL=/bin/bash", "IMPORT 0 5 * * 1 x %y"],
    "SET": [f'SET odd desc="{"x" * 1000}" prio=high'],
    "DISABLE": ["DISABLE paris"],
    "ENABLE": ["ENABLE paris"],
    "PAUSE": ['PAUSE odd until="in 2 hours" why="tea \u2028 time"'],
    "LIST": ["LIST state=running", 'LIST sort=-next search="A\\"B" count=yes', "LIST"],
    "HEALTH": ["HEALTH", "HEALTH queue=0"],
    "SUMMARY": ["SUMMARY"],
    "GET": ["GET paris", "GET odd"],
    "RUN": ["RUN odd"],
    "EMIT": ['EMIT deploy X="a \\" b"'],
    "TEMPLATE": ["TEMPLATE ADD nightly timeout=1h", "TEMPLATE LIST", "TEMPLATE REMOVE nightly"],
    "NOW": ["NOW name=sleeper type=sleep 60"],
    "LOG": ["LOG 1"],
    "RUNS": ["RUNS odd", "RUNS run=1 count=yes", "RUNS"],
    "CANCEL": ["CANCEL 2"],
    "FLOW": ["FLOW last RUN", "FLOW", "FLOW last", "FLOW last RUNS"],
    "RESUME": ["RESUME all"],
    "STATUS": ["STATUS"],
    "CLOCK": ["CLOCK"],
    "METRICS": ["METRICS tasks", "METRICS"],
    "WHY": ["WHY paris 2026-03-29T02:30", "WHY last", "WHY odd"],
    "NEXT": ['NEXT "* * * * * *" n=3', "NEXT paris n=400", "NEXT all by=hour last=2d", "NEXT last"],
    "DEPS": ["DEPS last", "DEPS"],
    "DESCRIBE": ['DESCRIBE "weekdays at 9"', "DESCRIBE odd"],
    "DST": ["DST all", "DST paris"],
    "TZDIFF": ["TZDIFF /usr/share/zoneinfo"],
    "WORKERS": ["WORKERS"],
    "DRAIN": ["DRAIN local"],
    "UNDRAIN": ["UNDRAIN local"],
    "PROVE": ["PROVE since=2020-01-01T00:00:00Z", "PROVE"],
    "STATS": ["STATS", "STATS odd by=hour"],
    "FAILED": ["FAILED"],
    "HISTORY": ["HISTORY", "HISTORY odd"],
    "ROLLBACK": ["ROLLBACK odd 1"],
    "UNDO": ["UNDO"],
    "TYPES": ["TYPES"],
    "EXPECT": ["EXPECT backups every=1d grace=30m", 'EXPECT nightly every="0 3 * * *"'],
    "BEAT": ["BEAT backups ok all is   well"],
    "EXPECTS": ["EXPECTS"],
    "FORGET": ["FORGET nightly"],
    "EXPORT": ["EXPORT odd", "EXPORT"],
    "SAVE": ["SAVE"],
    "LOAD": ["LOAD"],
    "BACKUP": ["BACKUP"],
    "ONCE": ["ONCE k NOW true", "ONCE k NOW true"],
    "WHOAMI": ["WHOAMI"],
    "AS": ["AS ann"],
    "SESSION": ["SESSION LIST"],
    "USER": [
        "USER ADD ann role=user password=correct-horse",
        "USER SET ann email=ann@example.org",
        "USER LIST",
        "USER REMOVE ann",
    ],
    "TOKEN": ["TOKEN ADD name=ci ttl=1h", "TOKEN LIST", "TOKEN REVOKE 1"],
    "SECRET": ['SECRET PUT db "a \\" b"', "SECRET LIST", "SECRET REMOVE db"],
    "AUDIT": ["AUDIT"],
    "REMOVE": ["REMOVE record", "REMOVE paris"],
    "CLEAR": ["CLEAR"],
    "WATCH": ["WATCH tasks runs id=nobody", "WATCH", "WATCH since=9999999", "QUIT"],
    "QUIT": ["QUIT"],
}
# Without a token asked for, and without zone data at that place, these are refused.
MAY_BE_REFUSED = ("AUTH", "TZDIFF", "AS", "LOCAL", "NODES", "STEPDOWN")
WRONG = ['"', "\x7f \u2028 nobody", "no such thing here", "x=\ud7ff y=\u202e"]

pytestmark = pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")


def _objects(text: str) -> list[str]:
    """What jq makes of all lines, one object a line; a line that it cannot read fails."""
    lines = text.split("\n")[:-1]
    filter_ = 'if type == "object" then . else error("no object") end'
    jq = subprocess.run(["jq", "-ce", filter_], input=text, capture_output=True, text=True, timeout=60)
    assert (jq.returncode, jq.stderr) == (0, ""), text
    objects = jq.stdout.split("\n")[:-1]
    assert len(objects) == len(lines), text
    return objects


def _worker_name(daemon: Daemon) -> str:
    return daemon.until("WORKERS", lambda answer: "\tready\t" in answer).split("\t")[0]


def _the_rest(connection: socket.socket) -> str:
    """All that a session without end has said and not been read of yet."""
    connection.sendall(b"QUIT\n")
    return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


def test_every_verb_has_its_lines() -> None:
    """Or a new one would never be tried."""
    assert list(VERBS.keys() - SAID.keys()) == []
    assert list(SAID.keys() - VERBS.keys()) == []


def test_every_answer_in_json_passes_jq(start_daemon: StartDaemon) -> None:
    """One conversation through all verbs, while somebody watches and somebody follows a log."""
    daemon = start_daemon("--local-worker", "4")
    worker = _worker_name(daemon)
    with daemon.connect() as watcher, daemon.connect() as follower:
        watcher.sendall(b"FORMAT json\nWATCH\n")
        assert watcher.recv(1024)
        for verb, lines in SAID.items():
            lines = [line.replace("local", worker) for line in lines]
            answers = _objects(daemon.nc("FORMAT json", *lines))
            assert answers[0].startswith('{"ok":true'), (verb, answers)
            assert '"ok":true' in answers[-1] or verb in MAY_BE_REFUSED, (verb, answers[-1])
            if verb == "RUN":
                follower.sendall(b"FORMAT json\nLOG 1 follow\n")
                assert follower.recv(1024)
        assert len(_objects(_whole_lines(_the_rest(watcher)))) > 10
        assert _objects(_whole_lines(_the_rest(follower)))


def _whole_lines(text: str) -> str:
    """The first read may have taken the beginning of a line with it."""
    return text if text.startswith("{") else text.partition("\n")[2]


def test_every_refusal_in_json_passes_jq(daemon: Daemon) -> None:
    """The words that were wrong are quoted in it, whatever they are."""
    daemon.ask("ADD name=a @daily x")
    lines = [
        f"{verb} {wrong}" for verb in VERBS for wrong in WRONG if verb not in ("QUIT", "WATCH", "FORMAT")
    ]
    lines += [f"{wrong} x" for wrong in WRONG] + ["FORMAT xml", "WATCH the birds", "ADD " + "x" * 70_000]
    answers = _objects(daemon.nc("FORMAT json", *lines))
    assert len(answers) > len(lines)
    assert sum('"ok":false' in answer for answer in answers) > len(lines) / 2
    raw = b"FORMAT json\nGET \xff\xfe\nGET a\x00b\n"
    with daemon.connect() as client:
        client.sendall(raw)
        text = _the_rest(client)
    assert [answer.partition(",")[0] for answer in _objects(text)][1:-1] == ['{"ok":false'] * 2
