"""WATCH since=: whoever is cut off anywhere goes on there, and reads each event once."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from cronflowd.ask import commands
from cronflowd.daemon import feeds
from cronflowd.journal import history
from cronflowd.journal.journal import FileJournal
from tests.lib.harness import START, World, a_world, play
from tests.lib.journal_driver import compact

LIFE = [
    "w: HELLO name=w1 slots=9", "C a: WATCH", "C: ADD name=one retry=fixed:1:10s @daily x", "C: RUN one",
    "w: DONE 1 1 1", "C: SET one name=two", "C: NOW name=once y", "w: STARTED 2 1", "w: DONE 2 1 0",
    "T: +10s", "w: DONE 1 2 0", "C: PAUSE two", "C: ADD name=next after=two @after z",
    "C: FLOW next RUN", "C: RESUME all", "w: DONE 3 1 0", "w: DONE 4 1 3", "C: CLEAR",
]  # fmt: skip


def rows(said: list[str], name: str) -> list[str]:
    prefix = f"S {name}: 2"
    return [line.removeprefix(prefix) for line in said if line.startswith(prefix)]


@pytest.mark.parametrize("restart", [[], ["D: +1s"]])
def test_what_is_read_before_and_after_a_cut_is_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restart: list[str]
) -> None:
    """Behind each row in turn, also between two of one record, and also by another daemon."""
    whole = rows(play(LIFE, tmp_path / "whole", monkeypatch), "a")
    assert len(whole) > 25
    assert any(row.split("\t")[-1].endswith(".1") for row in whole)
    again = [f"C n{n}: WATCH since={row.split(chr(9))[-1]}" for n, row in enumerate(whole)]
    said = play([*LIFE, *restart, *again], tmp_path / "again", monkeypatch)
    found = [rows(said, f"n{n}") for n in range(len(whole))]
    if restart:  # whoever was connected to the daemon that was killed is so no more
        left = [each.pop().split("\t")[1:-1] for each in found]
        why = "the daemon has ended, and another one has begun"
        assert left == [["worker-left", *"-" * 4, "w1", why]] * len(whole)
    assert found == [whole[n + 1 :] for n in range(len(whole))]


async def _meanwhile(data: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[World], Any]) -> list[str]:
    """What WATCH since=0 reads, if something happens while the journal is read for it."""
    async with a_world(data, {}) as world:
        await world.play("C", "b", "ADD name=before @daily x")

        async def slowly(function: Callable[[], Any], **_: Any) -> Any:
            found = function()
            await act(world)
            return found

        monkeypatch.setattr(trio.to_thread, "run_sync", slowly)
        said = await world.play("C", "a", "WATCH tasks since=0")
        said += await world.play("C", "b", "ADD name=after @daily x")
        return [line.split("\t")[3] for line in said if line.startswith("S a: 2")]


def test_what_happens_while_the_journal_is_read_comes_behind_it_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There it is neither in the part that was read nor did anybody watch yet."""

    async def add(world: World) -> None:
        world.core.submit(commands.parse("ADD name=meanwhile @daily x", commands.Context(START, "UTC")))
        await world.core.settled(world.core.last_seq)

    names = trio.run(_meanwhile, tmp_path, monkeypatch, add)
    assert names == ["before", "meanwhile", "after"]


def test_who_leaves_while_the_journal_is_read_watches_nothing_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its events would be kept for ever."""
    worlds = []

    async def leave(world: World) -> None:
        worlds.append(world)
        for watcher in list(world.answers.hub.watchers):
            watcher.leave()

    assert trio.run(_meanwhile, tmp_path, monkeypatch, leave) == []
    assert worlds[0].answers.hub.watchers == set()


def test_what_was_compacted_away_is_told_as_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dashboard that went on as if nothing had been would show what is no longer so."""
    monkeypatch.setattr(FileJournal.__init__, "__defaults__", (1,))  # bytes of a segment
    monkeypatch.setattr(World, "check_replay", lambda world: None)  # which counts from the first record on
    play(LIFE, tmp_path, monkeypatch)
    assert history.facts(tmp_path, 3, compact(tmp_path)) is None
    said = play(["C a: WATCH since=3", "C: ADD name=new @daily x"], tmp_path, monkeypatch)
    assert [row.split("\t")[1] for row in rows(said, "a")] == ["gap", "task-added"]


def test_who_is_too_far_behind_hears_of_a_gap_instead_of_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A year of events is read by nobody, and would be held in memory."""
    monkeypatch.setattr(feeds, "MAX_BEHIND", 5)
    said = play([*LIFE, "C b: WATCH since=3"], tmp_path, monkeypatch)
    assert [row.split("\t")[1] for row in rows(said, "b")] == ["gap"]


def test_where_the_journal_cannot_be_read_nothing_is_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is refused takes no place, nothing is made for it of what happens, and a netcat comes back."""

    async def fail(function: Callable[[], Any], **_: Any) -> Any:
        raise OSError(errno.EIO, "Input/output error", "00001.log")

    async def watch() -> None:
        async with a_world(tmp_path, {}) as world:
            monkeypatch.setattr(trio.to_thread, "run_sync", fail)
            said = await world.play("C", "a", "WATCH since=0")
            assert said == ["S a: ERR internal 00001.log: Input/output error"]
            assert (world.answers.hub.watchers, world.core.feeds) == (set(), [])
            world._wires["C", "a"].leave()
            assert await world.play("C", "b", "PING") == ["S b: PONG", "S a: (closed)"]

    trio.run(watch)
