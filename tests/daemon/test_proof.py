"""The worker port, to those who show a token: by saying it, or by proving that they have it."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest
import trio
import trio.testing
from attrs import evolve

from cronflowd.ask import commands
from cronflowd.base.proofs import DAEMON, WORKER, Check, Handshake, key_name, key_of
from cronflowd.daemon.core import Core
from cronflowd.engine import access_facts as af
from cronflowd.engine import facts as f
from cronflowd.engine import orders as o
from cronflowd.engine.rules import Limits
from cronflowd.engine.state import State
from cronflowd.net.clients import Session
from cronflowd.net.workers import serve_worker
from cronflowd.tasks.reasons import in_words
from tests.lib.engine_driver import START
from tests.lib.harness import HandClock, Wire
from tests.lib.memory_journal import MemoryJournal
from tests.lib.waiting import PATIENCE_S

NONCE = "ab" * 16
FILE, WEB, OLD, CLIENT = "of-the-file", "for-web", "expired", "an-admin's"


class World:
    """A core that asks workers for a token, and knows four."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.clock = HandClock(START)
        self.core = Core(State("UTC"), MemoryJournal(), self.clock, Limits())
        self.core.tokens = (FILE.encode(),)
        self.core.journal.notify = self.core.committed
        self.told: list[f.Fact] = []
        self.core.feeds.append(self)
        self.core.submit(o.StartDaemon("1", "UTC"))
        for word, role, worker, ttl_s in (
            (WEB, "worker", "web*", 600),
            (OLD, "worker", "*", 0),
            (CLIENT, "admin", "", 600),
        ):
            digest = hashlib.sha256(word.encode()).hexdigest()
            self.core.submit(o.AddToken(digest, word, "", role, "", worker, START + timedelta(seconds=ttl_s)))
        nursery.start_soon(self.core.run)

    def see(self, fact: f.Fact, at: object, seq: int) -> None:
        self.told.append(fact)

    def refused(self) -> list[af.Refused]:
        return [fact for fact in self.told if isinstance(fact, af.Refused)]

    def line(self, text: str) -> None:
        self.core.submit(commands.parse(text, commands.Context(self.core.now(), "UTC")))
        self.core.wake()

    def connect(self) -> Wire:
        wire = Wire("192.0.2.9:1")
        self.nursery.start_soon(serve_worker, wire, self.core)
        return wire

    async def prove(self, word: str, name: str, said: str | None = None) -> tuple[Wire, Handshake, list[str]]:
        """A worker that means one token and has another, or the same: what it is answered."""
        wire, key = self.connect(), key_of((said or word).encode())
        wire.say(f"HELLO name={name} key={key_name(key_of(word.encode()))} nonce={NONCE}")
        await settle()
        [challenge] = wire.take_lines()
        _, ours, proof = challenge.split(" ")
        handshake = Handshake(key, name, NONCE, ours)
        assert handshake.is_proof(DAEMON, proof) == (said is None and word in (FILE, WEB))
        wire.say(f"PROVE {handshake.proof(WORKER)} slots=2 can=shell,echo")
        await settle()
        return wire, handshake, wire.take_lines()


async def settle() -> None:
    """Until nobody can go on."""
    await trio.testing.wait_all_tasks_blocked()


@pytest.fixture
def world(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> World:
    found = World(nursery)
    # Which is tried where AUTH is; here nobody waits for it.
    monkeypatch.setattr(found.core.admission, "penalty_s", lambda _: 0.0)
    return found


@pytest.mark.parametrize("is_proof", [True, False], ids=["PROVE", "token="])
@pytest.mark.parametrize(
    ("word", "name", "answer"),
    [
        (FILE, "any-name", "OK any-name"),
        (WEB, "web1", "OK web1"),
        (WEB, "db1", "ERR denied the token is for workers called web*"),
        (OLD, "web1", "ERR denied the token is not the right one"),
        (CLIENT, "web1", "ERR denied the token is not the right one"),
        ("a-guess", "web1", "ERR denied the token is not the right one"),
    ],
)
async def test_a_token_lets_in_whom_it_is_for(
    world: World, is_proof: bool, word: str, name: str, answer: str
) -> None:
    """Said or proved, it opens the same; and AUDIT tells both who came and who did not."""
    if is_proof:
        answers = (await world.prove(word, name))[2]
    else:
        wire = world.connect()
        wire.say(f"HELLO name={name} token={word}")
        await settle()
        answers = wire.take_lines()
    assert [each.partition(" heartbeat")[0] for each in answers] == [answer]
    came = [(fact.name, fact.role) for fact in world.told if isinstance(fact, af.SignedIn)]
    refused = [(fact.verb, fact.ref) for fact in world.refused()]
    assert (came, refused) == (([(name, "worker")], []) if answer[:2] == "OK" else ([], [("HELLO", name)]))


async def test_a_key_that_is_not_known_looks_like_a_wrong_proof(world: World) -> None:
    """Or a stranger could find out which tokens there are."""
    _, _, unknown = await world.prove("a-guess", "web1")
    _, _, wrong = await world.prove(WEB, "web1", said="a-guess")
    assert unknown == wrong == ["ERR denied the token is not the right one"]
    assert len(world.refused()) == 2


async def test_who_leaves_after_the_challenge_is_told_of_where_he_meant_no_token_of_ours(
    world: World,
) -> None:
    """Our own worker does so where it has the wrong token: somebody has to see that."""
    for word in ("a-guess", WEB):
        wire = world.connect()
        wire.say(f"HELLO name=web1 key={key_name(key_of(word.encode()))} nonce={NONCE}")
        await settle()
        wire.leave()
        await settle()
    assert [(fact.verb, fact.ref) for fact in world.refused()] == [("HELLO", "web1")]


@pytest.mark.parametrize(
    ("hello", "answer"),
    [
        ("HELLO name=web1 nonce=", "ERR bad-option nonce= is not 32 to 128 hexadecimal digits in lower case"),
        ("HELLO name=web1 nonce=" + "AB" * 16, "ERR bad-option nonce="),
        ("HELLO nonce=" + NONCE, "ERR syntax HELLO needs name="),
        ("HELLO name=web1", "ERR auth-required HELLO needs token= here"),
        ("HELLO name=web1 nonce=" + NONCE + " x" * 1000, "ERR too-long"),
    ],
)
async def test_a_hello_that_begins_no_proof_is_told_why(world: World, hello: str, answer: str) -> None:
    """Whoever writes a worker by hand sees what was wrong."""
    wire = world.connect()
    wire.say(hello)
    await settle()
    [told] = wire.take_lines()
    assert told.startswith(answer)


async def test_where_proof_is_required_a_token_that_is_said_is_not_taken(world: World) -> None:
    """It would travel where others may listen."""
    world.core.settings = evolve(world.core.settings, require_proof=True)
    wire = world.connect()
    wire.say(f"HELLO name=web1 token={WEB}")
    await settle()
    assert wire.take_lines() == ["ERR auth-required HELLO needs nonce= here, and PROVE"]
    assert (await world.prove(WEB, "web1"))[2][0].startswith("OK web1 ")


async def test_what_comes_with_the_proof_is_as_if_hello_had_said_it_but_for_the_name(world: World) -> None:
    """A token for web* would else be one for every name."""
    _, handshake, _ = await world.prove(WEB, "web1")
    assert (world.core.state.workers["web1"].slots, sorted(world.core.state.workers["web1"].can)) == (
        2,
        ["echo", "shell"],
    )
    again = world.connect()
    again.say(f"HELLO name=web2 key={key_name(handshake.key)} nonce={NONCE}")
    await settle()
    [challenge] = again.take_lines()
    proof = Handshake(handshake.key, "web2", NONCE, challenge.split(" ")[1]).proof(WORKER)
    # More than a stranger may say.
    labels = "labels=" + ",".join(f"k{number}={'v' * 60}" for number in range(60))
    again.say(f"PROVE {proof} name=db1 {labels}")
    await settle()
    assert again.take_lines()[0].startswith("OK web2 ")
    assert (set(world.core.state.workers), len(world.core.state.workers["web2"].labels)) == (
        {"web1", "web2"},
        60,
    )


async def test_orders_of_a_session_that_was_proved_are_sealed_and_others_are_not(world: World) -> None:
    """A worker of twenty lines reads the same orders as ever."""
    wire, handshake, _ = await world.prove(WEB, "web1")
    world.line("NOW on=web1 echo é")
    world.line("CANCEL 1")
    await settle()
    run, kill = wire.take_lines()
    check = Check(handshake, world.clock.steady_s())
    assert check.open(run, 0.0).startswith("1 1 due=")
    assert run.endswith(" :echo é")
    assert check.open(kill, 0.0) == "1 1"
    plain = world.connect()
    plain.say(f"HELLO name=web2 token={WEB}")
    await settle()
    world.line("NOW on=web2 x")
    await settle()
    assert plain.take_lines()[1].startswith("RUN 2 1 due=")


async def test_orders_that_are_taken_back_leave_no_hole_in_the_numbers(world: World) -> None:
    """Whoever has ended its input is sent no RUN that waited for the disk; a KILL behind one was refused."""
    wire, handshake, _ = await world.prove(WEB, "web1")
    world.line("NOW on=web1 first")
    await settle()
    world.core.journal.notify = lambda seq: None  # the disk is slow
    world.line("NOW on=web1 second")
    await settle()
    wire.say("BEAT")
    await settle()
    world.line("CANCEL 1")
    wire.say("BEAT")
    await settle()
    wire.leave()
    await settle()
    world.core.journal.notify = world.core.committed
    world.core.committed(world.core.last_seq)
    await settle()
    check = Check(handshake, world.clock.steady_s())
    run, first, kill, second = wire.take_lines()
    assert check.open(run, 0.0).startswith("1 1 due=")
    assert first == "OK n=1"
    assert check.open(kill, 0.0) == "1 1"
    assert second == "OK n=2"
    assert world.core.state.runs[2].state == "queued"


@pytest.mark.parametrize("how", ["revoked", "expired", "file"])
async def test_a_token_that_counts_no_more_ends_its_connections_at_once(
    world: World, autojump_clock: trio.testing.MockClock, how: str
) -> None:
    """What it let in must not be given one more order; what that has already keeps its lease."""
    world.clock.move(START + timedelta(seconds=599.95))  # the token has so much left
    wire, _, _ = await world.prove(FILE if how == "file" else WEB, "web1")
    world.line("NOW on=web1 x")
    await settle()
    world.line("NOW on=web1 never")
    if how == "revoked":
        session = Session(world.core.links["web1"].outbox, "here", "unix")
        world.core.admission.revoke_token(o.RevokeToken(1), session)
    elif how == "file":
        world.core.admission.take_tokens((b"another",))
    else:
        with trio.fail_after(PATIENCE_S):
            while world.core.links:
                await trio.sleep(0.01)
    await settle()
    orders = [line.split(" ")[:3] for line in wire.take_lines() if line.startswith("RUN")]
    assert world.core.links == {}
    assert orders[0] == ["RUN", "1", "1"]
    assert world.core.state.runs[1].lease_until_at is not None
    assert not world.core.state.workers["web1"].connected


async def test_a_refused_order_ends_its_run_and_is_told_everywhere(world: World) -> None:
    """Whoever looks for why nothing ran finds it in LOG and AUDIT, and who keeps watch in both."""
    wire, _, _ = await world.prove(WEB, "web1")
    world.line("ADD name=t 0 0 1 1 * x")
    world.line("RUN t")
    await settle()
    wire.take_lines()
    wire.say('REFUSED 1 1 altered held=yes why="not as it was sent"')
    wire.say('REFUSED 9 1 altered why="not as it was sent"')
    await settle()
    assert wire.take_lines() == ["ACK 9 1"]
    assert world.core.state.runs[1].state == "sent"
    wire.say('REFUSED 1 1 altered why="not as it was sent"')
    await settle()
    assert wire.take_lines() == ["ACK 1 1"]
    [ended] = [fact for fact in world.told if isinstance(fact, f.RunEnded)]
    words = "worker web1 refused the order (altered): not as it was sent"
    assert (ended.state, ended.why and in_words(ended.why)) == ("failed", words)
    rows = [(fact.who, fact.verb, fact.ref, fact.why) for fact in world.refused()]
    assert rows == [("web1", "ORDER", run, "altered: not as it was sent") for run in ("1", "9", "1")]
    told = [fact.lines[0] for fact in world.told if isinstance(fact, f.OutputReceived)]
    assert len(told) == 2


async def test_another_worker_can_refuse_nothing_of_ones_own(world: World) -> None:
    """One stolen machine must not fail everybody's runs."""
    await world.prove(WEB, "web1")
    other, _, _ = await world.prove(WEB, "web2")
    world.line("NOW on=web1 x")
    await settle()
    other.say("REFUSED 1 1 type")
    other.say("OUT 1 1 forged")
    other.say("STARTED 1 1")
    other.say("DONE 1 1 0")
    await settle()
    assert other.take_lines() == ["ACK 1 1", "ACK 1 1"]
    assert world.core.state.runs[1].state == "sent"


@pytest.mark.parametrize("said", ["REFUSED 1 1", "REFUSED x 1 type", "REFUSED 1 1 Type"])
async def test_a_refusal_that_cannot_be_read_is_told_so(world: World, said: str) -> None:
    """Whoever writes a worker by hand has a word for it."""
    wire, _, _ = await world.prove(WEB, "web1")
    wire.say(said)
    await settle()
    assert wire.take_lines()[0].startswith("ERR syntax REFUSED: ")
