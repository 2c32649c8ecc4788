"""How a worker says who it is, and what it does where it is not let in."""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
from pathlib import Path

import pytest
import trio

from cronflowd import __version__
from cronflowd.base.errors import Exit
from cronflowd.base.proofs import WORKER, key_name, key_of
from cronflowd.host.clock import steady_now
from cronflowd.host.config import WorkerSettings
from cronflowd.net.lines import MAX_LINE_BYTES
from cronflowd.worker import agent as agents
from cronflowd.worker.agent import Agent, parse_terms
from cronflowd.worker.executors import custom
from cronflowd.worker.spool import Spool
from cronflowd.worker.ways import Where
from cronflowd.worker.welcome import dial
from tests.lib.fake_daemon import FakeDaemon, fake_daemon
from tests.lib.waiting import PATIENCE_S, until
from tests.lib.working_agent import SLEEPER, gone, working


def write_token(path: Path, content: str) -> Path:
    path.write_text(content)
    path.chmod(0o600)
    return path


# --- HELLO ----------------------------------------------------------------------------


async def test_hello_tells_what_the_worker_is_and_can(spool_dir: Path, tmp_path: Path) -> None:
    """Placement knows nothing else about it."""
    token = write_token(tmp_path / "token", "s3cret-s3cret\n")
    more = {"slots": 3, "label": (("arch", "arm"), ("site", "kitchen")), "token_file": token}
    async with fake_daemon() as daemon, working(daemon, spool_dir, **more):
        daemon.tokens = ("s3cret-s3cret",)
        visitor = await daemon.worker()
    assert visitor.seal
    handshake = visitor.seal.handshake
    assert visitor.hello == (
        f"HELLO name=w1 key={key_name(handshake.key)} nonce={handshake.its_nonce}"
        f" PROVE {handshake.proof(WORKER)} slots=3 can=shell,script,echo,sleep,calculate,http,webhook"
        f",shell+stdin,script+stdin users={getpass.getuser()} labels=arch=arm,site=kitchen held=all"
        f" instance={visitor.hello.partition('instance=')[2].partition(' ')[0]} version={__version__}"
    )


async def test_hello_names_the_handlers_and_all_that_is_held(spool_dir: Path, tmp_path: Path) -> None:
    """A run that is not named would be started once more."""
    handlers = tmp_path / "handlers"
    handlers.mkdir(mode=0o755)
    for number in range(custom.MAX_HANDLERS + 1):
        (handlers / f"{number:04d}{'x' * 60}.py").touch()
    settings = WorkerSettings(name="w" * 64, handlers=handlers)
    agent = Agent(settings, Spool(spool_dir), os.getppid())
    agent.reports._ends = {f"{number} 1": "" for number in range(10**8, 10**8 + 9000)}
    hello = agent.hello("HELLO", "name=w")
    assert hello.count("custom:") == custom.MAX_HANDLERS
    assert "custom," not in hello
    first, *more, nothing = hello.split("\n")
    assert all(len(line) < MAX_LINE_BYTES for line in (first, *more))
    assert nothing == ""
    assert f" more={len(more)} " in first
    assert all(line.startswith("HELD ") for line in more)
    named = first.partition("running=")[2].split(",") + ",".join(line[5:] for line in more).split(",")
    assert named == [key.replace(" ", ":") for key in agent.reports]


async def test_the_token_is_never_logged(
    spool_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Logs are read by more people than secrets are."""
    token = write_token(tmp_path / "token", "s3cret-s3cret")
    caplog.set_level(logging.DEBUG)
    async with fake_daemon() as daemon, working(daemon, spool_dir, token_file=token) as agent:
        daemon.tokens = ("s3cret-s3cret",)
        await (await daemon.knock()).say("ERR busy come back")
        await (await daemon.worker()).close()
        await (await daemon.knock()).say("ERR denied the token is not the right one")
        await gone(agent)
    assert "come back" in caplog.text
    assert "s3cret" not in caplog.text


# --- refusals and tokens --------------------------------------------------------------


@pytest.mark.parametrize("code", ["denied", "auth-required"])
async def test_a_worker_that_may_not_come_in_ends_with_77(
    spool_dir: Path, caplog: pytest.LogCaptureFixture, code: str
) -> None:
    """To knock again would not make the token right, and is not announced; systemd shows the failed unit."""
    async with fake_daemon() as daemon, working(daemon, spool_dir) as agent:
        await (await daemon.knock()).say(f"ERR {code} no")
        await gone(agent)
    assert agent.fatal is not None
    assert agent.fatal.status == Exit.REFUSED
    assert f"{code} no" in agent.fatal.message
    assert "trying again" not in caplog.text


async def test_a_refusal_after_a_restart_does_not_end_the_jobs(spool_dir: Path) -> None:
    """Somebody may have changed the token; the jobs can do nothing for it and are reported later."""
    async with fake_daemon() as daemon, working(daemon, spool_dir) as agent:
        visitor = await daemon.worker()
        await visitor.say(f"RUN 7 1 {SLEEPER}")
        await visitor.expect("STARTED 7 1")
        await visitor.close()
        await (await daemon.knock()).say("ERR denied no")
        visitor = await daemon.worker()
        assert "running=7:1" in visitor.hello
        await visitor.say("KILL 7 1")
        await visitor.expect("DONE 7 1 143")
        await visitor.say("ACK 7 1")
        await until(lambda: not agent.reports)
        assert not agent.gone.is_set()


def offered(daemon: FakeDaemon, *tokens: str) -> list[str]:
    """Which of these tokens were meant, in their order."""
    names = {key_name(key_of(token.encode())): token for token in tokens}
    return [names[key] for key in daemon.offered]


async def test_each_token_of_the_file_is_offered_before_the_worker_gives_up(
    spool_dir: Path, tmp_path: Path
) -> None:
    """Which of the two the daemon knows by now depends on who was told first."""
    token = write_token(tmp_path / "token", "# soon\nnew\n\nold\n")
    async with fake_daemon() as daemon, working(daemon, spool_dir, token_file=token) as agent:
        daemon.tokens = ("old",)
        await daemon.knock()
        await (await daemon.worker()).close()
        write_token(token, "old\nnewer\n")
        daemon.tokens = ("newest",)
        await daemon.knock()
        await daemon.knock()
        await gone(agent)
        assert offered(daemon, "new", "old", "newer") == ["new", "old", "old", "newer"]


async def test_what_is_not_acknowledged_keeps_a_refused_worker_trying(
    spool_dir: Path, tmp_path: Path
) -> None:
    """Its job ended with 0 while the token was changed: it would count as lost."""
    token = write_token(tmp_path / "token", "old\n")
    async with fake_daemon() as daemon, working(daemon, spool_dir, token_file=token) as agent:
        daemon.tokens = ("old", "new")
        visitor = await daemon.worker()
        assert visitor.seal
        await visitor.say(visitor.seal.seal("RUN 7 1 type=echo :hi", steady_now()))
        await visitor.expect("DONE 7 1 0")
        await visitor.close()
        for _ in range(2):
            visitor = await daemon.knock()
            assert "running=7:1" in visitor.hello
            await visitor.say("ERR denied no")
        write_token(token, "new\n")
        while (visitor := await daemon.knock()) and offered(daemon, "old", "new")[-1] == "old":
            await visitor.say("ERR denied no")
        await visitor.say("OK w1")
        await visitor.expect("DONE 7 1 0")
        assert not agent.gone.is_set()
        await visitor.say("ACK 7 1")
        await visitor.close()
        await (await daemon.knock()).say("ERR denied no")
        await gone(agent)


async def test_a_token_file_that_is_empty_for_a_moment_ends_no_worker(
    spool_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An editor or `echo >` empties the file before it writes it; 78 is for good under systemd."""
    token = write_token(tmp_path / "token", "old\n")
    async with fake_daemon() as daemon, working(daemon, spool_dir, token_file=token) as agent:
        daemon.tokens = ("old", "new")
        visitor = await daemon.worker()
        write_token(token, "")
        await visitor.close()
        await until(lambda: "the token is empty" in caplog.text)
        write_token(token, "new\n")
        hello = ""
        while not hello:
            with contextlib.suppress(EOFError):  # of tries before
                hello = (await daemon.knock()).hello
        assert (offered(daemon, "old", "new"), agent.fatal) == (["old", "new"], None)


async def test_where_its_name_is_taken_a_worker_without_runs_comes_back_later_each_time(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can do nothing about it; with a run it has to be heard before the lease of that ends."""
    waited: list[float] = []
    monkeypatch.setattr(agents.random, "uniform", lambda low, high: waited.append(high) or 0.0)
    async with fake_daemon() as daemon, working(daemon, spool_dir):
        for _ in range(10):
            await (await daemon.knock()).say("ERR busy another worker has that name")
        daemon.answer += " lease=3"
        visitor = await daemon.worker()
        assert [round(each, 1) for each in waited] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 20, 20, 20]
        await visitor.say(f"RUN 7 1 {SLEEPER}")
        await visitor.expect("STARTED 7 1")
        await visitor.close()
        await (await daemon.knock()).say("ERR busy another worker has that name")
        await (await daemon.knock()).say("ERR busy another worker has that name")
        await daemon.knock()
        assert waited[-2:] == [1.0, 1.0]


async def test_a_local_worker_is_back_soon_where_nobody_has_its_name(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its daemon begins anew, or another node does, and jobs wait for it; the way there is short."""
    waited: list[float] = []
    monkeypatch.setattr(agents.random, "uniform", lambda low, high: waited.append(high) or 0.0)
    async with fake_daemon() as daemon, working(daemon, spool_dir, local=os.getppid()):
        for answer in ["WELCOME"] * 4 + ["ERR busy another worker has that name"] * 3:
            await (await daemon.knock()).say(answer)
        await daemon.worker()
        assert waited == [0.2, 0.2, 0.2, 0.2, 0.2, 0.4, 0.8]


@pytest.mark.parametrize("answer", ["ERR busy later", "WELCOME", "", None])
async def test_any_other_answer_is_a_reason_to_try_again(spool_dir: Path, answer: str | None) -> None:
    """The daemon may be starting, or something else may listen there for a moment."""
    async with fake_daemon() as daemon, working(daemon, spool_dir):
        visitor = await daemon.knock()
        if answer is not None:
            await visitor.say(answer)
        await visitor.close()
        await daemon.worker()


async def test_an_unreachable_daemon_is_told_of_once_and_tried_for_ever(
    spool_dir: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A night without a daemon must not fill the disk with the same line."""
    monkeypatch.setattr(agents, "FIRST_DELAY_S", 0.001)
    monkeypatch.setattr(agents, "MAX_DELAY_S", 0.001)
    tries = 0

    async def counting(settings: WorkerSettings, address: Where) -> trio.abc.Stream:
        nonlocal tries
        tries += 1
        return await dial(settings, address)

    monkeypatch.setattr(agents, "dial", counting)
    async with fake_daemon() as daemon:
        address = daemon.address
        await daemon.close()
        async with working(daemon, spool_dir, connect=(address,)):
            await until(lambda: tries > 5)
    assert [record.getMessage() for record in caplog.records] == [
        f"127.0.0.1:{address[1]}: cannot connect: Connection refused; trying again until it works"
    ]


async def test_a_handshake_that_is_given_up_leaves_no_connection() -> None:
    """A daemon that hangs would be held by one more at each try."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        settings = WorkerSettings(connect=(listener.socket.getsockname()[:2],), tls=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dial, settings, settings.connect[0])
            stream = await listener.accept()
            assert await stream.receive_some()
            nursery.cancel_scope.cancel()
        with trio.fail_after(PATIENCE_S):
            assert await stream.receive_some() == b""
        await stream.aclose()


def test_the_terms_are_read_whatever_else_stands_there() -> None:
    """A newer daemon may say more, and a broken one must not stop the worker's heart."""
    assert parse_terms("w1 heartbeat=2.5 lease=40 output=100 grace=3 new=thing") == agents.Terms(
        2.5, 40, 100, 3
    )
    assert parse_terms("w1 heartbeat=0 output=nan grace=-1 output") == agents.Terms()


async def test_a_worker_that_can_resolve_no_name_for_now_tries_again(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That takes a thread. Where its jobs had used up all processes, it ended, and its other jobs with it."""
    tried: list[Where] = []

    async def once_without(settings: WorkerSettings, at: Where) -> trio.abc.Stream:
        tried.append(at)
        if len(tried) == 1:
            raise RuntimeError("can't start new thread")
        return await dial(settings, at)

    monkeypatch.setattr(agents, "dial", once_without)
    async with fake_daemon() as daemon, working(daemon, spool_dir):
        await daemon.worker()
    assert len(tried) == 2
