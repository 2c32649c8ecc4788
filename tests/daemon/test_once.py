"""ONCE: who does not hear the answer asks again, and nothing is done twice."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from cronflowd.base.errors import Refusal
from cronflowd.base.proofs import key_of
from cronflowd.base.replies import format_status
from cronflowd.engine import facts as f
from cronflowd.engine import once
from cronflowd.engine.definitions import AT_ONCE
from cronflowd.engine.encoding import decode, encode
from cronflowd.engine.once import OnceKept
from tests.lib.access_driver import House


def test_the_same_key_is_answered_the_same_and_does_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As text and as JSON; the change and what was answered are one decision; neither is alone."""

    async def ask() -> None:
        house = House(tmp_path)
        root, append = house.session(), house.journal.append
        appended: list[list[f.Fact]] = []
        monkeypatch.setattr(
            house.journal, "append", lambda facts, at: (appended.append(list(facts)), append(facts, at))[1]
        )
        await house.ask(root, "ADD name=before overlap=allow @daily x")
        await house.ask(root, "ADD after=before @after x")
        for line in (
            "ONCE k1 ADD @daily x", 'ONCE k2 ADD {"schedule": "@daily", "command": "x"}', "ONCE k3 RUN 1",
            "ONCE k4 NOW x", "ONCE k5 SET 1 prio=high", "ONCE k6 PAUSE 1", "ONCE k7 TOKEN ADD name=ci",
            "ONCE k8 ROLLBACK 1 1", "ONCE k9 ADD skip=file:days @daily x", "ONCE k10 TEMPLATE ADD t prio=low",
            "ONCE k13 UNDO", "ONCE k11 PAUSE 1", "ONCE k12 FLOW before RUN", "ONCE k14 REMOVE 2",
        ):  # fmt: skip
            (tmp_path / "days").write_text("2030-01-01\n")
            first, found = await house.ask(root, line), len(house.facts)
            assert type(appended[-1][-1]) is OnceKept, line
            assert len(appended[-1]) > 1 or line == "ONCE k11 PAUSE 1", line  # which changes nothing any more
            second = await house.ask(root, f"  {line}")
            assert len(house.facts) == found, line
            for as_json in (False, True):
                assert format_status(first, as_json) == format_status(second, as_json), line
        await house.ask(root, "ADD @daily x")
        assert type(house.facts[-1]) is f.TaskAdded  # and what follows is as ever

    trio.run(ask)


def test_a_key_is_for_one_line_of_one_account(tmp_path: Path) -> None:
    """Or one that is used again by mistake would hide a change; and nobody meets another's keys."""

    async def ask() -> None:
        house = House(tmp_path)
        ann, bob = house.session("ann", "user"), house.session("bob", "user")
        assert await house.says(ann, "ONCE k ADD name=a @daily x") == "OK 1 a next=2030-01-02T00:00:00Z"
        assert await house.says(ann, "ONCE k ADD name=b @daily x") == (
            "ERR exists the key was for another line, within the last 24 hours"
        )
        assert await house.says(bob, "ONCE k ADD name=b @daily x") == "OK 2 b next=2030-01-02T00:00:00Z"
        assert (await house.says(ann, "ONCE k2 ADD name=a @daily x")).startswith("ERR exists ")
        await house.ask(ann, "REMOVE a")  # what was refused is tried again
        assert (await house.says(ann, "ONCE k2 ADD name=a @daily x")).startswith("OK 3 a ")
        house.clock.move(house.clock.now() + timedelta(hours=24))
        assert (await house.says(ann, "ONCE k ADD name=c @daily x")).startswith("OK 4 c ")

    trio.run(ask)


def test_a_key_has_no_quotes(tmp_path: Path) -> None:
    """Of a variable that was not set they are all that is there: the next script's change would be hidden."""

    async def ask() -> None:
        house = House(tmp_path)
        for key in '""', '"k"', '"two words"', "\x7f", "k" * 129:
            said = await house.says(house.session(), f"ONCE {key} ADD @daily x")
            assert said == (
                "ERR bad-option a key is one word of at most 128 printable characters, without quotes"
            )
        assert house.facts == []

    trio.run(ask)


def test_the_line_is_what_it_is_without_a_key(tmp_path: Path) -> None:
    """A command is taken byte for byte: blanks at its end may be a file's name."""

    async def ask() -> None:
        house = House(tmp_path)
        for line in "ADD name=a @daily x  ", "ONCE k   ADD name=b @daily x  ":
            await house.ask(house.session(), line)
        assert [task.spec.command for task in house.state.tasks.values()] == ["x  "] * 2

    trio.run(ask)


@pytest.mark.parametrize(
    "line",
    ["LIST", "PING", "TOKEN LIST", "FLOW", "USER REMOVE eve", "SECRET REMOVE s", "QUIT", "AS ann",
     "AUTH ann correct-horse", "IMPORT * * * * * x", "ONCE k2 ADD @daily x", "SAVE", "WATCH",
     "SESSION ADD ann", "nonsense", "ADD", "RUN tag=t"],
)  # fmt: skip
def test_once_is_for_one_decision(line: str, tmp_path: Path) -> None:
    """What is read can be read again, and what concerns one connection is nobody else's."""

    async def ask() -> None:
        house = House(tmp_path)
        root = house.session(address="unix:pid=9,uid=0")
        for number in range(AT_ONCE + 5 if "tag" in line else 1):
            await house.ask(root, f"ADD name=t{number} tags=t @daily x")
        house.facts.clear()
        said = await house.says(root, f"ONCE k {line}")
        assert said.split(" ")[1] in ("syntax", "limit", "unknown-command"), said
        assert (house.facts, root.closing) == ([], False)
        await house.ask(root, "ADD @daily x")
        assert [type(fact) for fact in house.facts] == [f.TaskAdded]

    trio.run(ask)


@pytest.mark.parametrize("line", ["PAUSE tag=t", "PAUSE tag=few", "FLOW few RUN", "CLEAR all", "UNDO"])
def test_a_change_of_very_many_is_known_from_its_decision_on(line: str, tmp_path: Path) -> None:
    """It is carried out in slices, also after a crash; asked for again, it is not begun again."""

    async def ask() -> None:
        house = House(tmp_path)
        root = house.session()
        for number in range(AT_ONCE + 5):
            await house.ask(root, f"ADD name=t{number} tags=t @daily x")
        for name in "few", "more after=few":
            await house.ask(root, f"ADD name={name} tags=few @daily x")
        if line == "UNDO":
            await house.ask(root, "CLEAR all")
        house.facts.clear()
        first = await house.says(root, f"ONCE k {line}")
        assert sum(type(fact) is OnceKept for fact in house.facts) == 1
        found = len(house.facts)
        assert first.startswith("OK ")
        assert await house.says(root, f"ONCE k {line}") == first
        assert len(house.facts) == found

    trio.run(ask)


def test_who_may_no_more_is_told_so_and_not_what_it_was_answered(tmp_path: Path) -> None:
    """A role that was taken away is gone for what was said before, too."""

    async def ask() -> None:
        house = House(tmp_path)
        line = "ONCE k ADD @daily x"
        await house.ask(house.session("ann", "user"), line)
        assert await house.says(house.session("ann", "viewer"), line) == (
            "ERR denied this takes the role user; you are viewer"
        )

    trio.run(ask)


def test_what_is_full_of_old_keys_is_not_full(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody looks after the table but who adds to it; and one account leaves room for the others."""
    monkeypatch.setattr(once, "MAX_KEPT", 6)
    monkeypatch.setattr(once, "MAX_KEPT_EACH", 3)

    async def ask() -> None:
        house = House(tmp_path)
        sessions = [house.session(name, "user") for name in ("ann", "bob", "eve")]
        said = [await house.says(each, f"ONCE k{n} ADD @daily x") for each in sessions for n in range(4)]
        assert [text.split(" ")[0] for text in said] == [*("OK", "OK", "OK", "ERR") * 2, *("ERR",) * 4]
        assert said[3] == "ERR limit 3 keys of yours are kept already; each for 24 hours"
        house.clock.move(house.clock.now() + timedelta(hours=24))
        for number in range(3):
            assert (await house.says(sessions[2], f"ONCE n{number} ADD @daily x")).startswith("OK ")
        assert list(house.state.once.kept) == [("eve", f"n{number}") for number in range(3)]
        assert list(house.state.once.of) == ["eve"]

    trio.run(ask)


# --- whatever comes, and a crash between ---

KEYS, ACCOUNTS = ("k1", "k2", "k3", "k4"), ("ann", "bob", "eve")
LINES = ("ADD @daily x", "ADD @daily y", "ADD no schedule")
steps = st.lists(
    st.tuples(st.sampled_from(ACCOUNTS), st.sampled_from(KEYS), st.sampled_from(LINES))
    | st.sampled_from((1, 13, 24))
    | st.sampled_from(("crash", "checkpoint")),
    max_size=40,
)


@settings(deadline=None, max_examples=60)
@given(steps)
def test_what_was_done_once_is_known_through_every_crash(
    said: list[tuple[str, str, str] | int | str],
) -> None:
    """For a day, neither less nor more; what is refused for want of room is only what has to be."""
    with pytest.MonkeyPatch().context() as patch, TemporaryDirectory() as directory:
        patch.setattr(once, "MAX_KEPT", 6)
        patch.setattr(once, "MAX_KEPT_EACH", 3)
        trio.run(_live, said, Path(directory))


async def _live(said: list[tuple[str, str, str] | int | str], data: Path) -> None:
    house, told = House(data), list[tuple[datetime, f.Fact]]()
    known: dict[tuple[str, str], tuple[str, str, datetime]] = {}
    for step in said:
        if isinstance(step, int):
            house.clock.move(house.clock.now() + timedelta(hours=step))
            continue
        if isinstance(step, str):
            facts = told if step == "crash" else [(house.clock.now(), fact) for fact in house.carried()]
            house, told = _again(facts, house, data), facts
            continue
        account, key, line = step
        now, before = house.clock.now(), len(house.state.tasks)
        live = {name: each for name, each in known.items() if each[2] > now}
        answer = await house.says(house.session(account, "user"), f"ONCE {key} {line}")
        is_full = len(live) == 6 or sum(name[0] == account for name in live) == 3
        if (old := live.get((account, key))) is not None:
            assert answer == old[1] if old[0] == line else answer.startswith("ERR exists ")
            assert len(house.state.tasks) == before
        elif line == LINES[-1] or is_full:
            assert answer.startswith("ERR bad-schedule" if line == LINES[-1] else "ERR limit ")
            assert len(house.state.tasks) == before
        else:
            assert (answer[:3], len(house.state.tasks)) == ("OK ", before + 1)
            known[account, key] = line, answer, now + timedelta(hours=24)
        told += [(now, fact) for fact in house.facts]
        house.facts.clear()


def _again(facts: list[tuple[datetime, f.Fact]], before: House, data: Path) -> House:
    """As a start finds it."""
    found = House(data, is_bare=True)
    found.clock.move(before.clock.now())
    for seq, (at, fact) in enumerate(facts, 1):
        found.state.apply(decode(encode(seq, at, fact, more=False))[2], at, seq)
    assert found.state.once == before.state.once
    return found


def test_an_account_or_a_secret_is_put_once_and_neither_word_can_be_guessed_by_what_is_kept(
    tmp_path: Path,
) -> None:
    """Who does not hear the answer asks again; a digest of the whole line would be one of the password."""

    async def ask() -> None:
        house = House(tmp_path)
        root = house.session()
        for line, other in (
            (
                "USER ADD ann role=user password=correct-horse",
                "USER ADD ann role=user password=battery-staple",
            ),
            ("SECRET PUT db hunter2", "SECRET PUT db hunter3"),
            ("USER SET ann desc=Ann", "USER SET ann desc=Ann"),
        ):
            key = f"k-{line.split()[1]}-{line.split()[0]}"
            first, found = await house.ask(root, f"ONCE {key} {line}"), len(house.facts)
            kept = house.facts[-1]
            assert type(kept) is OnceKept
            assert format_status(await house.ask(root, f"ONCE {key} {other}"), True) == format_status(
                first, True
            )
            assert len(house.facts) == found
            for digest in (key_of(line.encode()), key_of(line.split()[-1].encode())):
                assert kept.line != digest.hex() or "desc" in line
        with pytest.raises(Refusal, match="another line"):
            await house.ask(root, "ONCE k-ADD-USER USER ADD bob role=user password=correct-horse")
        for line in ("USER LIST", "USER REMOVE ann", "SECRET LIST", "USER PASSWORD ann correct-horse-2"):
            with pytest.raises(Refusal, match="one decision"):
                await house.ask(root, f"ONCE k {line}")

    trio.run(ask)
