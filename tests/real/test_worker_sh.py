"""The worker in shell, as a process, with real netcats: it has to be right, because people copy it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.lib.fake_daemon import FakeDaemon, Visitor, fake_daemon
from tests.lib.job_processes import wait_for
from tests.lib.waiting import PATIENCE_S

SCRIPT = Path(__file__).parents[2] / "contrib" / "worker.sh"
NETCATS = [name for name in ("nc.openbsd", "ncat", "busybox nc") if shutil.which(name.split()[0])]
SHELLS = [name for name in ("dash", "bash") if shutil.which(name)]


@asynccontextmanager
async def worker_sh(
    daemon: FakeDaemon, *more: str, shell: str = "dash", nc: str = "nc.openbsd", beat_s: str = "5"
) -> AsyncIterator[trio.Process]:
    """The script, running as long as the block does."""
    host, port = daemon.address
    scratch = tempfile.TemporaryDirectory()
    environ = os.environ | {"NC": nc, "BEAT_S": beat_s, "TMPDIR": scratch.name}
    process = await trio.lowlevel.open_process(
        [shell, str(SCRIPT), host, str(port), "sh1", *more],
        env=environ,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        # Its session is its own, so this ends the netcat and the beats too.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        assert process.stderr
        await process.stderr.aclose()
        scratch.cleanup()


async def run(visitor: Visitor, number: int, rest: str) -> list[str]:
    await visitor.say(f"RUN {number} 1 {rest}")
    lines = await visitor.until_done(number)
    await visitor.say(f"ACK {number} 1")
    return lines


pytestmark = pytest.mark.skipif(
    "nc.openbsd" not in NETCATS or "dash" not in SHELLS, reason="needs dash and nc.openbsd"
)


@pytest.mark.parametrize("nc", NETCATS)
@pytest.mark.parametrize("shell", SHELLS)
async def test_it_runs_jobs_one_after_the_other_with_any_shell_and_netcat(shell: str, nc: str) -> None:
    """Nothing in it may depend on one shell's or one netcat's habits."""
    async with fake_daemon() as daemon, worker_sh(daemon, shell=shell, nc=nc):
        visitor = await daemon.worker()
        assert visitor.hello == "HELLO name=sh1 slots=1 can=shell"
        first = await run(visitor, 7, "type=shell name=task_1 due=2026-11-21T10:05:00Z :echo hi; exit 3")
        assert first == ["STARTED 7 1", "OUT 7 1 hi", "DONE 7 1 3"]
        second = await run(visitor, 8, "type=shell :echo $CRONFLOW_RUN_ID $CRONFLOW_ATTEMPT >&2")
        assert second == ["STARTED 8 1", "OUT 8 1 8 1", "DONE 8 1 0"]


@pytest.mark.parametrize(
    ("rest", "output"),
    [
        (':echo "a :b"', ["a :b"]),
        ('name="x :echo no" type=shell :echo yes', ["yes"]),
        (r'env.A="q\" :echo no" type=shell :echo yes', ["yes"]),
        ("type=shell :printf '[%s]' '  two  blanks  '  ", ["[  two  blanks  ]"]),
        ("type=shell :echo ' :'", [" :"]),
    ],
)
async def test_the_command_is_what_follows_the_first_blank_and_colon_outside_quotes(
    rest: str, output: list[str]
) -> None:
    """A blank and a colon inside a quoted value would otherwise run a piece of that value."""
    async with fake_daemon() as daemon, worker_sh(daemon):
        visitor = await daemon.worker()
        lines = await run(visitor, 7, rest)
    assert lines == ["STARTED 7 1", *[f"OUT 7 1 {text}" for text in output], "DONE 7 1 0"]


@pytest.mark.parametrize(
    ("command", "output"),
    [
        (r"printf 'a\tb\n'", [r"a\tb"]),
        (r"printf 'back\\slash\n\n'", ["back\\\\slash", ""]),
        (r"printf 'bell\007 nul\000 cr\r\n'", ["bell nul cr"]),
        (r"printf 'bad \377 good ä'", ["bad  good ä"]),
        ("true", []),
        (r"head -c 10000 /dev/zero | tr '\0' x", ["x" * 8000, "x" * 2000]),
    ],
)
async def test_output_travels_escaped_and_in_lines_that_are_not_too_long(
    command: str, output: list[str]
) -> None:
    """A line the daemon cannot read would cost the worker its connection."""
    async with fake_daemon() as daemon, worker_sh(daemon):
        visitor = await daemon.worker()
        lines = await run(visitor, 7, f"type=shell :{command}")
    assert lines == ["STARTED 7 1", *[f"OUT 7 1 {text}" for text in output], "DONE 7 1 0"]


async def test_it_beats_while_idle_and_while_a_job_runs(tmp_path: Path) -> None:
    """A worker that is silent for three heartbeats loses its runs."""
    gate = tmp_path / "gate"
    async with fake_daemon() as daemon, worker_sh(daemon, beat_s="0.1"):
        visitor = await daemon.worker()
        await visitor.expect("BEAT")
        await visitor.say("OK", f"RUN 7 1 type=shell :{wait_for(gate)}; echo let through")
        await visitor.expect("STARTED 7 1")
        await visitor.expect("BEAT")
        await visitor.expect("BEAT")
        gate.touch()
        assert "OUT 7 1 let through" in await visitor.until_done(7)
        await visitor.expect("BEAT")


async def test_a_refused_worker_says_why_and_exits_77() -> None:
    """Whoever starts it in a loop must be able to tell a wrong token from a lost connection."""
    async with fake_daemon() as daemon, worker_sh(daemon) as process:
        visitor = await daemon.knock()
        await visitor.say("ERR denied the token is not the right one")
        with trio.fail_after(PATIENCE_S):
            assert await process.wait() == 77
        assert process.stderr
        assert b"ERR denied" in await process.stderr.receive_some(1000)


async def test_a_token_is_read_from_a_file(tmp_path: Path) -> None:
    """On the command line everybody on the machine could read it."""
    (tmp_path / "token").write_text("s3cret\n")
    async with fake_daemon() as daemon, worker_sh(daemon, str(tmp_path / "token")):
        visitor = await daemon.worker()
    assert visitor.hello == "HELLO name=sh1 slots=1 can=shell token=s3cret"


@pytest.mark.parametrize("shell", SHELLS)
async def test_it_ends_with_its_connection(shell: str) -> None:
    """So that the loop around it can connect again. nc.openbsd notices only when it writes: a BEAT."""
    async with fake_daemon() as daemon, worker_sh(daemon, shell=shell, beat_s="0.1") as process:
        visitor = await daemon.worker()
        await run(visitor, 7, "type=shell :true")
        await visitor.close()
        with trio.fail_after(PATIENCE_S):
            await process.wait()


async def test_told_to_end_it_finishes_and_reports_its_job_first(tmp_path: Path) -> None:
    """Otherwise the run would count as lost although it ended well."""
    gate = tmp_path / "gate"
    async with fake_daemon() as daemon, worker_sh(daemon) as process:
        visitor = await daemon.worker()
        await visitor.say(f"RUN 7 1 type=shell :{wait_for(gate)}; echo late")
        await visitor.expect("STARTED 7 1")
        process.terminate()
        gate.touch()
        assert (await visitor.until_done(7))[-2:] == ["OUT 7 1 late", "DONE 7 1 0"]
        assert "BYE" in visitor.lines
        await visitor.say("ACK 7 1")
        with trio.fail_after(PATIENCE_S):
            assert await process.wait() == 0
