"""Log lines: one line a record, whatever it holds, in the form its reader wants."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cronflowd.base.errors import Exit, Fatal
from cronflowd.host import logs
from cronflowd.journal.journal import exit_at_once
from tests.lib.waiting import PATIENCE_S

log = logging.getLogger("cronflowd.test")


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """Logging belongs to the process; what these tests do to it is undone."""
    root = logging.getLogger()
    before = root.handlers, root.level, logging.raiseExceptions
    yield
    root.handlers, logging.raiseExceptions = before[0], before[2]
    root.setLevel(before[1])


def test_a_logfmt_line_tells_time_level_message_and_fields(capsys: pytest.CaptureFixture[str]) -> None:
    """Fields follow the message, so that grep finds a run by its number."""
    logs.set_up("text", "info")
    log.info("the run has ended", extra={"run": 41, "worker": "pi 4"})
    line = capsys.readouterr().err
    stamp, rest = line.split(" ", 1)
    assert rest == 'level=info msg="the run has ended" run=41 worker="pi 4"\n'
    assert len(stamp) == len("time=2026-11-21T10:05:00.000Z")


@pytest.mark.parametrize(
    "text", ["a\nlevel=error msg=forged", "\x1b[31mred", "\u2028", "\u202egnp.exe", "\x85", "\x00"]
)
@pytest.mark.parametrize("form", ["text", "json"])
def test_what_came_over_the_network_cannot_forge_a_line(
    text: str, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither a second record, nor colours, nor text that runs backwards."""
    logs.set_up(form, "info")
    log.info("refused: %s", text, extra={"line": text})
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert said[:-1].isprintable()


def test_a_json_line_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers stay numbers, and what JSON does not know becomes text."""
    logs.set_up("json", "debug")
    log.debug("%d tasks", 3, extra={"run": 41, "path": Path("/x")})
    found: dict[str, Any] = json.loads(capsys.readouterr().err)
    assert found.pop("time").endswith("Z")
    assert found == {"level": "debug", "msg": "3 tasks", "run": 41, "path": "/x"}


def test_a_traceback_stays_on_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A record that is spread over lines cannot be counted, shipped or filtered."""
    logs.set_up("text", "info")
    try:
        raise ZeroDivisionError("oops")
    except ZeroDivisionError:
        log.exception("a connection failed")
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "ZeroDivisionError: oops" in said


def test_less_than_the_level_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    """And a second set_up, as after HUP, replaces the first."""
    logs.set_up("text", "debug")
    logs.set_up("text", "warning")
    log.info("quiet")
    log.warning("loud")
    assert capsys.readouterr().err.count("msg=") == 1


@pytest.mark.parametrize(
    ("level", "number"),
    [
        (logging.DEBUG, 7),
        (logging.INFO, 6),
        (logging.WARNING, 4),
        (logging.ERROR, 3),
        (logging.CRITICAL, 3),
        (1, 7),
    ],
)
def test_the_journal_gets_its_priority_and_no_time(
    level: int, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """journalctl -p works, and the time does not stand there twice."""
    with (tmp_path / "stderr").open("w+", encoding="utf-8") as stream:
        found = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        monkeypatch.setattr(sys, "stderr", stream)
        logs.set_up("text", "debug")
        logging.getLogger().setLevel(1)
        log.log(level, "two\nlines\u202e", extra={"run": 41})
        stream.seek(0)
        assert stream.read() == f"<{number}>two\\u000alines\\u202e run=41\n"


def test_a_reader_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal stopped by Ctrl-S stopped the daemon, its schedules and even its end by TERM."""
    reader, writer = os.pipe()
    with open(writer, "w", encoding="utf-8") as stream, open(reader, "rb", buffering=0) as hanging:
        monkeypatch.setattr(sys, "stderr", stream)
        logs.set_up("text", "info")
        writing = threading.Thread(target=lambda: [log.info("x" * 3000) for _ in range(200)], daemon=True)
        writing.start()
        writing.join(PATIENCE_S)
        is_stuck, taken = writing.is_alive(), hanging.read(1 << 20)
        if not is_stuck:
            logs.set_up("text", "info")  # as HUP does
            log.info("again")
            lost, again = hanging.read(1 << 20).decode().splitlines()[-2:]
    assert not is_stuck
    whole = sum(line.endswith(b"xxx") and len(line) > 3000 for line in taken.splitlines())
    assert lost.endswith(f'level=warning msg="stderr took nothing: {200 - whole} lines are lost"')
    assert again.endswith("level=info msg=again")


def test_a_reader_that_is_slow_is_waited_for_a_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst of lines into `| logger` is more than a pipe holds; one that hangs is waited for once."""
    monkeypatch.setattr(logs, "PATIENCE_S", PATIENCE_S)
    reader, writer = os.pipe()
    with open(writer, "w", encoding="utf-8") as stream, open(reader, "rb") as slow:
        monkeypatch.setattr(sys, "stderr", stream)
        logs.set_up("text", "info")
        writing = threading.Thread(target=lambda: [log.info("x" * 3000) for _ in range(200)], daemon=True)
        writing.start()
        whole = [slow.readline().endswith(b"xxx\n") for _ in range(200)]
        writing.join()
    assert all(whole)


def test_a_full_stdout_does_not_stop_the_start(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever started it may read nothing there; what is not taken is told in the log."""
    reads, writes = os.pipe()
    before = os.dup(1)
    os.set_blocking(writes, False)
    with suppress(BlockingIOError):
        while os.write(writes, bytes(4096)):
            pass
    os.set_blocking(writes, True)
    os.dup2(writes, 1)
    saying = threading.Thread(target=logs.say, args=["cronflowd ready"], daemon=True)
    saying.start()
    saying.join(PATIENCE_S)
    os.dup2(before, 1)
    is_stuck = saying.is_alive()
    for fd in (reads, writes, before):
        os.close(fd)
    assert not is_stuck
    assert caplog.messages == ["nobody was told on stdout: cronflowd ready"]


@pytest.mark.parametrize("is_read", [True, False])
def test_what_cannot_go_on_ends_though_nobody_hears_why(
    is_read: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The committer's last words were waited for: a daemon that could write nothing any more stayed."""
    statuses: list[int] = []
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while is_read:
            os.write(writer, bytes(1 << 16))
    os.set_blocking(writer, True)
    with open(writer, "w", encoding="utf-8") as stream, open(reader, "rb") as hanging:
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(os, "_exit", statuses.append)
        if not is_read:
            hanging.close()
        error = Fatal(Exit.IO, "the journal cannot be written")
        ending = threading.Thread(target=exit_at_once, args=[error], daemon=True)
        ending.start()
        ending.join(PATIENCE_S)
        with suppress(OSError):  # of what was not taken
            hanging.close()
            stream.close()
    assert statuses == [Exit.IO]


def test_a_stderr_that_was_redirected_is_not_the_journal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable is inherited by everything a service starts, the stream is not."""
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    logs.set_up("text", "info")
    log.info("hello")
    assert capsys.readouterr().err.startswith("time=")
