"""A worker that hears nothing of its daemon runs a command, once, and once more when it is back."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest
import trio
import trio.testing

from cronflowd.host.clock import wall_now
from cronflowd.worker.silence import Silence
from tests.lib.fake_daemon import fake_daemon
from tests.lib.waiting import until
from tests.lib.working_agent import working

HOOK = 'echo "$CRONFLOW_SERVER $CRONFLOW_SILENT_SINCE ${CRONFLOW_BACK-away}" >>'


def lines(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


async def test_a_silent_daemon_is_told_of_once_and_so_is_its_return(spool_dir: Path, tmp_path: Path) -> None:
    """A daemon that died is the one thing that it cannot tell of itself."""
    told, began = tmp_path / "told", wall_now()
    async with fake_daemon() as daemon:
        hook = {"silent_after_s": 0.2, "silent_hook": f"{HOOK} {told}"}
        async with working(daemon, spool_dir, **hook):
            first = await daemon.worker()
            await first.close()
            await until(lambda: len(lines(told)) >= 1)
            second = await daemon.worker()
            await until(lambda: len(lines(told)) >= 2)
            await second.close()
            await until(lambda: len(lines(told)) >= 3)
        server = "{}:{}".format(*daemon.address)
    assert [(words[0], words[2]) for words in lines(told)[:3]] == [
        (server, "away"),
        (server, "1"),
        (server, "away"),
    ]
    first, same, second_time = (datetime.fromisoformat(words[1]) for words in lines(told)[:3])
    assert began - timedelta(milliseconds=2) <= first == same < second_time  # either is rounded


async def test_a_worker_that_never_found_its_daemon_says_so_too(spool_dir: Path, tmp_path: Path) -> None:
    """Silence counts from the worker's own start; and a hook that fails is no reason to end."""
    told = tmp_path / "told"
    async with fake_daemon() as daemon:
        address = daemon.address
    async with working(
        daemon, spool_dir, connect=(address,), silent_after_s=0.05, silent_hook=f"{HOOK} {told}; exit 3"
    ) as agent:
        await until(lambda: len(lines(told)) == 1)
        assert not agent.gone.is_set()


async def test_a_hook_that_cannot_be_run_ends_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where jobs had used up the processes of their container, the worker ended, and they with it."""
    tried = trio.Event()

    async def refuse(*_: Any, **__: Any) -> NoReturn:
        tried.set()
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio, "run_process", refuse)
    silence = Silence(0.01, "true", "server:5051")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(silence.watch)
        await tried.wait()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
