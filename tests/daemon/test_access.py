"""Signing in: what a wrong word costs and whom, when a session ends, and what of it is told."""

from __future__ import annotations

import logging
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from cronflowd.base.replies import Reply
from cronflowd.daemon import strangers
from cronflowd.daemon.access import COMPARING
from cronflowd.engine.access_facts import Deed, Refused, SignedIn
from cronflowd.net.clients import Session
from tests.lib.access_driver import House, a_house, hash_quickly
from tests.lib.harness import run_here
from tests.lib.waiting import PATIENCE_S

FAR = "198.51.100.9:5"
RIGHT, WRONG = "AUTH ann correct-horse", "AUTH ann incorrect-horse"


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Hashes that take no time; which passwords were compared."""
    monkeypatch.setattr(trio.to_thread, "run_sync", run_here)
    return hash_quickly(monkeypatch)


def leap(test: Callable[..., Awaitable[None]], *args: Any) -> None:
    """Runs it on a clock that leaps over every wait."""
    trio.run(test, *args, clock=trio.testing.MockClock(autojump_threshold=0))


async def timed(house: House, session: Session, line: str) -> tuple[str, float]:
    """The answer's first two words, and how long it took."""
    began = trio.current_time()
    answer = house.answers.handle(line, session, house.clock.now())
    try:
        said = f"OK {(answer if isinstance(answer, Reply) else await answer).text}"
    except Exception as error:  # shown
        said = f"ERR {error}"
    return " ".join(said.split(" ")[:2]), round(trio.current_time() - began, 2)


def test_each_wrong_word_costs_its_address_more_and_nobody_else_anything(
    compared: list[str], tmp_path: Path
) -> None:
    """A thousand took 0.58 s before; and whoever guesses must not lock out who knows."""

    async def guess() -> None:
        house = await a_house(tmp_path, asks=True)
        guesser = house.session()
        for wait_s in (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0):
            assert await timed(house, guesser, WRONG) == ("ERR denied", wait_s)
        assert await timed(house, house.session(address=FAR), RIGHT) == ("OK ann", 0.0)
        assert await timed(house, guesser, "AUTH guessed") == ("ERR denied", 10.0)
        assert await timed(house, guesser, WRONG) == ("ERR too-many", 10.0)
        assert guesser.closing
        # A new connection from there waits no less, but knows the word and is let in.
        again = house.session()
        assert await timed(house, again, RIGHT) == ("OK ann", 0.0)
        assert await timed(house, again, WRONG) == ("ERR denied", 0.25)

    leap(guess)


def test_words_of_one_address_are_compared_one_by_one(compared: list[str], tmp_path: Path) -> None:
    """Many connections guess no faster than one, and those beyond a few are told so at once."""

    async def guess() -> None:
        house = await a_house(tmp_path, asks=True)
        found: list[tuple[str, float]] = []

        async def one(number: int) -> None:
            session = house.session(address=f"[2001:db8::{number:x}]:1")
            found.append(await timed(house, session, WRONG))

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(one, number)
            await trio.sleep(0.1)
            assert await timed(house, house.session(address=FAR), RIGHT) == ("OK ann", 0.0)
        waited = sorted(wait_s for said, wait_s in found if said == "ERR denied")
        assert waited == [0.25, 0.75, 1.75, 3.75, 7.75, 15.75, 25.75, 35.75]
        assert [wait_s for said, wait_s in found if said == "ERR too-many"] == [0.0] * 92

    leap(guess)


def test_who_guesses_at_one_account_from_many_addresses_waits_as_well(
    compared: list[str], tmp_path: Path
) -> None:
    """And its owner does not; nor does it show whether there is such an account."""

    async def guess(name: str) -> None:
        house = await a_house(tmp_path, asks=True)
        waits = []
        for number in range(8):
            session = house.session(address=f"203.0.113.{number}:1")
            waits.append(await timed(house, session, f"AUTH {name} incorrect-horse"))
        assert waits == [("ERR denied", wait_s) for wait_s in (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0)]
        assert compared == ["incorrect-horse"] * 8
        compared.clear()
        assert await timed(house, house.session(address=FAR), RIGHT) == ("OK ann", 0.0)
        compared.clear()

    leap(guess, "ann")
    leap(guess, "nobody")


def test_who_leaves_in_the_middle_of_a_wait_has_not_saved_it(compared: list[str], tmp_path: Path) -> None:
    """Or a connection for each word would be the way round."""

    async def guess() -> None:
        house = await a_house(tmp_path, asks=True)
        for _ in range(5):
            with trio.move_on_after(0.001):
                await timed(house, house.session(), WRONG)
        assert await timed(house, house.session(), RIGHT) == ("OK ann", pytest.approx(0.25, abs=0.02))

    leap(guess)


def test_a_token_that_was_made_is_taken_at_once(compared: list[str], tmp_path: Path) -> None:
    """Nobody guesses 256 bits, so a program need not wait because somebody at its address guesses."""

    async def guess() -> None:
        house = await a_house(tmp_path, asks=True)
        made = await house.ask(house.session("root", "admin"), "TOKEN ADD name=ci")
        token = next(iter(made.rows))[1]
        for _ in range(5):
            await timed(house, house.session(), "AUTH wrong")
        assert await timed(house, house.session(), f"AUTH {token}") == ("OK ci", 0.0)

    leap(guess)


def test_a_long_token_of_the_file_is_taken_at_once_while_others_guess_there(tmp_path: Path) -> None:
    """All programs of this machine have one address: a job that guessed shut the HTTP door out."""
    word = "0123456789abcdef" * 4

    async def guess() -> None:
        house = House(tmp_path, asks=True, tokens=(word.encode(), b"short"))
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(timed, house, house.session(), "AUTH wrong")
            await trio.sleep(0.1)
            assert await timed(house, house.session(), f"AUTH {word}") == ("OK admin", 0.0)
            for other in "short", f"{word[:-1]}0":
                assert (await timed(house, house.session(), f"AUTH {other}"))[1] > 0
            nursery.cancel_scope.cancel()

    leap(guess)


def test_who_says_little_is_heard_whatever_others_of_its_address_say(tmp_path: Path) -> None:
    """A job that said a hundred lines a second to the port had each connection of its machine closed."""

    async def flood() -> None:
        house = await a_house(tmp_path, asks=True)
        loud, quiet = house.session(), house.session()
        said = [house.answers.too_fast(loud) for _ in range(200)]
        assert [bool(refusal) for refusal in said] == [False] * 100 + [True] * 100
        assert [bool(house.answers.too_fast(quiet)) for _ in range(5)] == [False] * 4 + [True]

    leap(flood)


def test_two_passwords_at_most_are_compared_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes a core and 64 MiB; a hundred strangers must not take the machine."""
    now, most, lock, both = 0, 0, threading.Lock(), threading.Barrier(COMPARING)

    def compare(hashed: str, offered: str) -> bool:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        both.wait(PATIENCE_S)
        threading.Event().wait(0.01)  # time for one more, if it may
        with lock:
            now -= 1
        return True

    async def sign_in() -> None:
        house = await a_house(tmp_path, asks=True)
        monkeypatch.setattr("cronflowd.daemon.access.is_password", compare)
        async with trio.open_nursery() as nursery:
            for number in range(8):
                session = house.session(address=f"203.0.113.{number}:1")
                nursery.start_soon(timed, house, session, RIGHT)
        assert len([fact for fact in house.facts if isinstance(fact, SignedIn)]) == 8

    monkeypatch.setattr("cronflowd.daemon.access.hash_password", lambda password: "hash")
    trio.run(sign_in)
    assert most == COMPARING


def test_what_is_remembered_of_strangers_is_bounded(compared: list[str], tmp_path: Path) -> None:
    """A botnet must not take the memory."""

    async def guess() -> None:
        known = strangers.Strangers()
        for number in range(strangers.MAX_KNOWN + 100):
            known.failed(known.at(f"198.51.{number >> 8}.{number & 255}"), f"name-{number}")
        assert len(known.addresses) == len(known.names) == strangers.MAX_KNOWN

    leap(guess)


ENDINGS = [
    ("USER SET ann role=viewer", "ann"), ("USER SET ann disabled=yes", "ann"), ("USER REMOVE ann", "ann"),
    ("USER PASSWORD ann another-one", "ann"), ("USER SET ann uid=7", "ann"), ("TOKEN REVOKE 1", "ci"),
    ("USER SET ann email=a@example.org", ""), ("TOKEN ADD user=ann", ""), ("TOKEN REVOKE 2", "token"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "whose"), ENDINGS)
def test_a_session_ends_as_soon_as_what_let_it_in_does(
    line: str, whose: str, compared: list[str], tmp_path: Path
) -> None:
    """Disabling an account helps nobody while its old session goes on; and other sessions stay."""

    async def change() -> None:
        house = await a_house(tmp_path, asks=True)
        root = house.session("root", "admin")
        words = [next(iter((await house.ask(root, made)).rows))[1]
                 for made in ("TOKEN ADD name=ci", "TOKEN ADD user=ann role=viewer")]  # fmt: skip
        sessions = {"ann": house.session(), "ci": house.session(), "token": house.session()}
        for session, said in zip(
            sessions.values(), (RIGHT, *(f"AUTH {word}" for word in words)), strict=True
        ):
            await house.ask(session, said)
        await house.ask(sessions["ann"], "WATCH")
        await house.ask(root, line)
        gone = [name for name, session in sessions.items() if session.outbox.why_cut]
        assert gone == (["ann", "token"] if whose == "ann" else [whose] * bool(whose))
        for name in gone:
            assert (await house.says(sessions[name], "ADD @daily x")).startswith("ERR denied")
        assert not root.closing

    trio.run(change)


def test_who_changes_itself_hears_that_it_has(compared: list[str], tmp_path: Path) -> None:
    """Its answer still leaves; the lines behind it in the same packet do not count."""

    async def change() -> None:
        house = await a_house(tmp_path)
        ann = house.session("ann", "user")
        assert await house.says(ann, "USER PASSWORD another-one") == "OK ann"
        assert (ann.closing, ann.outbox.why_cut) == (True, None)
        assert await house.says(house.session(), "AUTH ann another-one") == "OK ann role=user"

    trio.run(change)


def test_a_session_ends_with_its_token(compared: list[str], tmp_path: Path) -> None:
    """Also one that only watches, and says nothing by which it would be noticed."""

    async def wait() -> None:
        house = await a_house(tmp_path)
        made = await house.ask(house.session("root", "admin"), "TOKEN ADD name=ci ttl=1h")
        watcher = house.session()
        await house.ask(watcher, f"AUTH {next(iter(made.rows))[1]}")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.core.admission.run)
            await trio.sleep(1)
            assert not watcher.outbox.why_cut
            house.clock.move(house.clock.now() + timedelta(hours=1))
            await trio.sleep(61)
            assert watcher.outbox.why_cut
            nursery.cancel_scope.cancel()

    leap(wait)


def test_a_line_that_leaves_the_token_file_ends_who_came_in_by_it(tmp_path: Path) -> None:
    """That is how a secret that got out is taken back, while everything runs."""

    async def rotate() -> None:
        house = House(tmp_path, tokens=(b"old", b"new"))
        sessions = [house.session() for _ in range(2)]
        for session, word in zip(sessions, ("old", "new"), strict=True):
            assert await house.says(session, f"AUTH {word}") == "OK admin role=admin"
        house.core.admission.take_tokens((b"new",))
        assert [bool(session.outbox.why_cut) for session in sessions] == [True, False]

    trio.run(rotate)


def test_a_flood_of_refusals_is_told_in_a_few_records(compared: list[str], tmp_path: Path) -> None:
    """And the number of those that are not told is, also when nothing more comes."""

    async def flood() -> None:
        house = await a_house(tmp_path)
        viewer = house.session("ann", "viewer")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.core.admission.run)
            for _ in range(1000):
                assert (await house.says(viewer, "CLEAR all")).startswith("ERR denied")
            await trio.sleep(150)
            nursery.cancel_scope.cancel()
        told = [fact for fact in house.facts if isinstance(fact, Refused)]
        assert len(told) == strangers.NOTED + 1
        assert sum(fact.untold + bool(fact.verb) for fact in told) == 1000

    leap(flood)


def test_lines_before_auth_are_counted_by_address(compared: list[str], tmp_path: Path) -> None:
    """A million of them must not cost the others their turn."""

    async def flood() -> None:
        house = await a_house(tmp_path, asks=True)
        sessions = [house.session(address=f"192.0.2.7:{port}") for port in (1, 2)]
        said = [house.answers.too_fast(sessions[n % 2]) for n in range(102)]
        assert [bool(refusal) for refusal in said] == [False] * 100 + [True] * 2
        assert all(session.closing for session in sessions)
        assert house.answers.too_fast(house.session(address=FAR)) is None
        await trio.sleep(1.1)
        assert house.answers.too_fast(house.session()) is None
        assert house.core.admission.lines_refused == 2

    leap(flood)


def test_a_name_that_is_only_said_is_not_one_that_was_shown(compared: list[str], tmp_path: Path) -> None:
    """HISTORY would tell otherwise that ann did it, and ann could take it back."""

    async def claim() -> None:
        house = House(tmp_path)
        plain = house.session()
        await house.ask(plain, "HELLO name=ann")
        assert plain.who == "ann@192.0.2.7:40001"  # as before, where nobody can show anything
        await house.ask(plain, "ADD name=a @daily x")
        house.clock.move(house.clock.now() + timedelta(seconds=1))
        await house.ask(plain, "USER ADD root role=admin password=battery-staple")
        await house.ask(plain, "USER ADD ann password=correct-horse")
        assert plain.who == '"ann"@192.0.2.7:40001'
        ann = house.session()
        await house.ask(ann, "HELLO name=root")
        await house.ask(ann, RIGHT)
        assert ann.who == "ann@192.0.2.7:40001"
        assert (await house.says(ann, "UNDO")).startswith("ERR denied the change 1 was not made by ann")

    trio.run(claim)


def test_over_the_unix_socket_the_kernel_says_who_it_is(compared: list[str], tmp_path: Path) -> None:
    """Root and the daemon's own user are admin, an account's uid that account, others nobody."""

    async def come() -> None:
        house = await a_house(tmp_path)
        await house.ask(house.session("root", "admin"), "USER SET ann uid=1001")
        said = [
            await house.says(house.session(address=f"unix:pid=1,uid={uid}"), "WHOAMI") for uid in (0, 1001)
        ]
        assert said == ["OK cronflowd role=admin", "OK ann role=user"]
        nobody = house.session(address="unix:pid=1,uid=65534")
        assert (await house.says(nobody, "LIST")).startswith("ERR denied uid=65534 has no account here")
        assert await house.says(nobody, RIGHT) == "OK ann role=user"
        asked = await a_house(tmp_path, asks=True)
        assert (await asked.says(asked.session(address="unix:pid=1,uid=0"), "LIST")).startswith(
            "ERR auth-required"
        )

    trio.run(come)


def test_an_admin_stays_who_can_come_in(compared: list[str], tmp_path: Path) -> None:
    """Nobody could ever let anybody in again."""

    async def leave() -> None:
        house = await a_house(tmp_path)
        root = house.session("root", "admin")
        for line in "USER REMOVE root", "USER SET root disabled=yes", "USER SET root role=operator":
            assert (await house.says(root, line)).startswith('ERR denied "root" is the last admin')
        assert await house.says(root, "USER SET ann role=admin") == "OK ann"
        assert await house.says(root, "USER REMOVE root") == "OK root"

    trio.run(leave)


def test_an_order_that_no_fact_can_sign_leaves_a_deed(compared: list[str], tmp_path: Path) -> None:
    """DRAIN, EXPECT and the CANCEL of what has not begun are changes, too."""

    async def change() -> None:
        house = await a_house(tmp_path)
        root = house.session("root", "admin")
        for line in "DRAIN w1", "EXPECT e every=1d", "FORGET e", "ADD name=a @daily x", "RUN a", "CANCEL 1":
            await house.ask(root, line)
        deeds = [(fact.verb, fact.ref) for fact in house.facts if isinstance(fact, Deed)]
        assert deeds == [("DRAIN", "w1"), ("EXPECT", "e"), ("FORGET", "e"), ("CANCEL", "1")]

    trio.run(change)


def test_no_secret_stands_where_others_read(
    compared: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in a record, a log line or a message, nor in what a traceback would show."""

    async def come() -> None:
        house = await a_house(tmp_path, asks=True)
        stranger = house.session()
        said = [await house.says(stranger, line) for line in (
            "AUTH s3cr3t-pa55", "AUTH s3cr3t-pa55 x", "AUTH ann s3cr3t-pa55", "AUTH s3cr3t-pa55 a b",
        )]  # fmt: skip
        ann = house.session("ann", "user")
        nobody = house.session(address="unix:pid=1,uid=65534")
        for line in (
            "USER PASSWORD s3cr3t-pa55", "USER PASSWORD root s3cr3t-pa55", "USER ADD x password=s3cr3t-pa55",
            "USER PASSWORD a s3cr3t-pa55 b", "USER ADD x y password=s3cr3t-pa55",
            "TOKEN s3cr3t-pa55", "USER s3cr3t-pa55", "SECRET s3cr3t-pa55 x", "TOKEN REVOKE s3cr3t-pa55",
        ):  # fmt: skip
            said += [
                await house.says(session, line) for session in (nobody, house.session("root", "admin"), ann)
            ]
        house.journal.flush()
        told = [*said, *map(repr, house.facts), *house.journal.lines, caplog.text]
        kept = [text for text in map(str, told) if "s3cr3t" in text and "hash of" not in text]
        assert kept == []

    caplog.set_level(logging.DEBUG)
    leap(come)
