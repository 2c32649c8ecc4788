"""Child processes that cannot be started are told of and tried again; the daemon goes on."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing

from cronflowd.base.errors import Exit
from cronflowd.cli import cli
from cronflowd.daemon import cluster, upkeep
from cronflowd.daemon.core import Core
from cronflowd.daemon.upkeep import FIRST_REST_S
from cronflowd.host import config, systemd
from cronflowd.host.config import Settings
from tests.lib.harness import run_here
from tests.lib.waiting import PATIENCE_S

REFUSALS = [
    OSError(errno.EAGAIN, "Resource temporarily unavailable"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    OSError(errno.EMFILE, "Too many open files"),
    OSError(errno.ENOENT, "No such file or directory"),
    subprocess.SubprocessError("Exception occurred in preexec_fn."),
    RuntimeError("can't start new thread"),  # in which it would have been started
]


class _Journal:
    closed = (None,) * upkeep.SEGMENTS_BEFORE_COMPACTION


class _Core:
    journal, settings = _Journal(), Settings()


@pytest.fixture(params=REFUSALS, ids=str)
def refused(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When a process was to be started; the system never lets it."""
    tries: list[float] = []

    def refuse(*_: Any, **__: Any) -> None:
        tries.append(trio.current_time())
        raise request.param

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(trio.to_thread, "run_sync", run_here)
    return tries


def _pauses(tries: list[float]) -> list[float]:
    return [round(after - before, 3) for before, after in pairwise(tries)]


async def test_a_compaction_that_cannot_be_started_is_tried_again(
    refused: list[float],
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A machine without memory for a moment ended the daemon, and again after each restart."""
    compactor = upkeep.Compactor(cast(Core, _Core()), trio.Lock())
    compactor.look()
    with trio.move_on_after(100), caplog.at_level(logging.WARNING):
        await compactor.run()
    assert _pauses(refused) == [5, 10, 20, 40]
    assert "the journal could not be compacted" in caplog.text


async def test_what_a_shell_has_opened_is_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """A process that is told `--tls-cert /dev/fd/63` finds it there, or nothing."""
    given: list[list[int]] = []

    async def start(command: Any, pass_fds: list[int], **_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        given.append(pass_fds)
        raise OSError

    monkeypatch.setattr(trio.lowlevel, "open_process", start)
    cert, key, file = (Path(f"/dev/fd/{each}") for each in (61, 62, 63))
    settings = Settings(data=tmp_path, tls_cert=cert, tls_key=key, config=file)
    with trio.move_on_after(0.1):
        await upkeep.keep_local_worker(settings, tmp_path / "door")
    with trio.move_on_after(0.1):
        await upkeep.keep_gateway(settings, [], b"token")
    assert given[0] == [63]
    assert given[1][:2] == [61, 62]


async def test_a_compaction_of_a_killed_daemon_is_waited_for_and_told_of(
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It may take minutes: `exit 75` told nobody what was the matter."""

    async def in_use(command: Any, **_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return subprocess.CompletedProcess(command, Exit.TRY_AGAIN, b"")

    monkeypatch.setattr(trio, "run_process", in_use)
    compactor = upkeep.Compactor(cast(Core, _Core()), trio.Lock())
    compactor.look()
    with trio.move_on_after(FIRST_REST_S + 1), caplog.at_level(logging.WARNING):
        await compactor.run()
    assert caplog.text.count("the compaction of a daemon before this one is still running") == 2


async def test_a_local_worker_that_cannot_be_started_is_tried_again(
    refused: list[float],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The daemon serves other workers meanwhile, and this one as soon as it can."""
    with trio.move_on_after(30), caplog.at_level(logging.WARNING):
        await upkeep.keep_local_worker(Settings(data=tmp_path, tz="UTC"), tmp_path / "socket")
    assert _pauses(refused) == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10]
    assert "the local worker cannot be started" in caplog.text


async def test_who_begins_anew_keeps_the_local_worker_that_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one would only wait for the first one's spool, and the end of that would be nobody's to see."""
    started = trio.Event()

    async def refuse(*_: Any, **__: Any) -> None:
        started.set()
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    former = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    monkeypatch.setenv(upkeep.FORMER_WORKER, str(former.pid))
    monkeypatch.setattr(trio.lowlevel, "open_process", refuse)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(upkeep.keep_local_worker, Settings(data=tmp_path, tz="UTC"), tmp_path / "socket")
        await trio.testing.wait_all_tasks_blocked()
        assert not started.is_set()
        former.communicate()
        with trio.fail_after(PATIENCE_S):
            await started.wait()
        nursery.cancel_scope.cancel()
    assert upkeep.FORMER_WORKER not in os.environ


async def test_the_former_door_of_who_begins_anew_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends with its leash, and nobody else would ever take note of that."""
    former = os.posix_spawn("/bin/true", ["true"], {})
    monkeypatch.setenv(upkeep.FORMER_DOOR, str(former))
    monkeypatch.setattr(trio.lowlevel, "open_process", _hang)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(upkeep.keep_gateway, Settings(data=tmp_path, tz="UTC"), [], b"token")
        with trio.fail_after(PATIENCE_S):
            while Path(f"/proc/{former}").exists():
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


async def test_the_former_compaction_of_who_begins_anew_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It works on, a minute for a million tasks, and stayed a zombie from then on."""
    began, ended, environment = trio.Event(), trio.Event(), list[dict[str, str]]()

    async def take_long(command: Any, *, task_status: Any, **_: Any) -> None:
        task_status.started(former)
        environment.append(dict(os.environ))
        began.set()
        await ended.wait()
        raise OSError

    former = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    assert former.stdin
    monkeypatch.setattr(trio, "run_process", take_long)
    compactor = upkeep.Compactor(cast(Core, _Core()), trio.Lock())
    compactor.look()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(compactor.run)
        await began.wait()
        nursery.cancel_scope.cancel()
    assert upkeep.FORMER_COMPACTION not in os.environ, "it has ended"

    monkeypatch.setenv(upkeep.FORMER_COMPACTION, environment[0][upkeep.FORMER_COMPACTION])
    began = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(compactor.run)
        await trio.testing.wait_all_tasks_blocked()
        assert not began.is_set(), "its lock is held"
        former.stdin.close()
        with trio.fail_after(PATIENCE_S):
            await began.wait()
        nursery.cancel_scope.cancel()
    assert not Path(f"/proc/{former.pid}").exists(), "it is no zombie"
    former.wait()


@pytest.mark.parametrize(("name", "stdin"), [("/dev/stdin", 0), ("/dev/fd/63", subprocess.DEVNULL)])
async def test_settings_on_standard_input_are_the_local_worker_s_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, stdin: int
) -> None:
    """It read an empty file there, and none of its own rules was in force."""
    given = list[Any]()

    async def take(*_: Any, **options: Any) -> None:
        given.append(options)
        await trio.sleep_forever()

    monkeypatch.setattr(trio.lowlevel, "open_process", take)
    settings = Settings(data=tmp_path, tz="UTC", config=Path(name), tls_cert=Path(name))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(upkeep.keep_local_worker, settings, tmp_path / "socket")
        nursery.start_soon(upkeep.keep_gateway, settings, [], b"token")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert [each["stdin"] for each in given] == [stdin, stdin]


async def _hang(*_: Any, **__: Any) -> None:
    await trio.sleep_forever()


def test_what_a_process_tells_itself_is_no_setting() -> None:
    """It would be read as one at the next HUP: a process's number for the slots of the local worker."""
    told = {upkeep.FORMER_WORKER, upkeep.FORMER_DOOR, upkeep.FORMER_COMPACTION}
    told |= {cluster.AGAIN, cluster.OWED, systemd.HANDED}
    assert not told & {row.variable for kind in config.PROGRAMS for row in config.table(kind)}


@pytest.mark.parametrize("number", ["", "1", "x", str(os.getppid()), "999999999"])
async def test_a_process_that_is_no_child_is_not_waited_for(number: str) -> None:
    """The variable may have come from anywhere."""
    with trio.fail_after(PATIENCE_S):
        await upkeep._wait_former(number)


async def test_an_http_door_without_a_pipe_is_tried_again_and_nothing_is_closed_twice(
    refused: list[float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The number of what was closed may be another file's by then, even the journal's."""
    open_fds, pipes = set[int](), [(1001, 1002), None, (1003, 1004), (1005, 1006)]

    def pipe() -> tuple[int, int]:
        if (found := pipes.pop(0)) is None:
            raise OSError(errno.EMFILE, "Too many open files")
        open_fds.update(found)
        return found

    monkeypatch.setattr(upkeep.os, "pipe", pipe)
    monkeypatch.setattr(upkeep.os, "close", open_fds.remove)
    monkeypatch.setattr(upkeep.os, "write", lambda fd, data: len(data))
    with trio.move_on_after(1.5), caplog.at_level(logging.WARNING):
        await upkeep.keep_gateway(Settings(data=tmp_path, tz="UTC"), [], b"word")
    assert (pipes, open_fds, len(refused)) == ([], set(), 3)


def test_the_http_door_is_told_what_the_daemon_was_told_of_it(tmp_path: Path) -> None:
    """Also where it stands in the file, outside [web]: a name or an origin there was passed over."""
    file = tmp_path / "cronflowd.toml"
    file.write_text(
        'allow_registration = true\nhttp_name = ["a.example", "b.example"]\ntls_cert = "/c.pem"\n'
    )
    flags = {"config": (str(file),), "data": (str(tmp_path),), "cors_origin": ("https://x.example",)}
    settings = config.load(Settings, flags | {"http": ("127.0.0.1:3000",)})
    told = upkeep.gateway_command(settings, [7, 8])
    web = config.load(config.WebSettings, flags_of(told))
    assert (web.handed, web.data, web.control) == ((7, 8), tmp_path, tmp_path / "control.sock")
    assert (web.allow_registration, web.http_name) == (True, ("a.example", "b.example"))
    assert (web.tls_cert, web.cors_origin) == (Path("/c.pem"), ("https://x.example",))


def flags_of(command: list[str]) -> dict[str, tuple[str, ...]]:
    """As the command line reads them."""
    parsed = cli.parser(with_verbs=False).parse_args(command[3:])
    given = {row.field: getattr(parsed, row.field) for row in config.table(config.WebSettings)}
    return {name: tuple(texts) for name, texts in given.items() if texts}
