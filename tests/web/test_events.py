"""What happens is told to everybody who looks: once each, in order, and behind where he was."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from math import inf
from pathlib import Path
from typing import Any

import orjson
import pytest
import trio

from cronflowd.web import events
from cronflowd.web.line import Unreachable
from tests.lib.asgi import Browser, InMemory
from tests.lib.waiting import PATIENCE_S
from tests.lib.web_api import API, an_api

LINES = [f"ADD name=t{n} @daily x" for n in range(3)]


class Listening:
    """What one reader has been sent, as it comes."""

    def __init__(self, parts: AsyncIterator[bytes]) -> None:
        self._parts, self._text = parts, b""
        self.ids: list[str] = []

    async def next(self) -> dict[str, Any]:
        """The next event; comments are passed over."""
        while True:
            block, found, rest = self._text.partition(b"\n\n")
            if not found:
                self._text += await anext(self._parts)
                continue
            self._text = rest
            fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if not line.startswith(b":"))
            if b"data" in fields:
                self.ids.append(fields.get(b"id", b"").decode())
                row: dict[str, Any] = orjson.loads(fields[b"data"])
                return row

    async def names(self, n: int) -> list[str]:
        with trio.fail_after(PATIENCE_S):
            return [(await self.next())["jobName"] for _ in range(n)]


@asynccontextmanager
async def listening(browser: Browser, where: str = "/events", **headers: str) -> AsyncIterator[Listening]:
    async with (
        browser.open("GET", f"{API}{where}", **headers) as answer,
        aclosing(answer.parts()) as parts,  # type: ignore[type-var]
    ):
        assert answer.status == 200 and answer.headers["content-type"].startswith("text/event-stream")
        yield Listening(parts)


def test_everybody_is_told_everything_by_one_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many look, the daemon has one connection for it, and each event is made once."""
    made: list[events.Event] = []

    def make(row: dict[str, Any]) -> events.Event:
        made.append(to_event(row))
        return made[-1]

    to_event = events.to_event
    monkeypatch.setattr(events, "to_event", make)
    monkeypatch.setattr(events, "BEAT_S", 1000.0)

    async def look() -> None:
        async with (
            an_api(tmp_path) as (browser, daemon),
            listening(browser) as one,
            listening(browser) as two,
            listening(browser) as three,
        ):
            before = daemon.dialled
            names = [f"t{n}" for n in range(3 * events.MOST_AT_ONCE)]
            await daemon.ask_all([f"ADD name={name} @daily x" for name in names])
            for each in (one, two, three):
                assert await each.names(len(names)) == names
            assert one.ids == two.ids == three.ids
            assert len(made) == len(set(one.ids)) == len(names)
            assert daemon.dialled <= before + 1

    trio.run(look)


@pytest.mark.parametrize("kept", [10_000, 1], ids=["what is kept", "a watch of its own"])
def test_who_was_cut_off_goes_on_without_a_gap(
    tmp_path: Path, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each event once, whatever came between, and on into what comes then."""
    monkeypatch.setattr(events, "KEPT", kept)

    async def look() -> None:
        async with an_api(tmp_path) as (browser, daemon), listening(browser) as stays:
            async with listening(browser) as first:
                await daemon.say("ADD name=seen @daily x")
                assert await first.names(1) == ["seen"]
            for line in LINES:
                await daemon.say(line)
            assert await stays.names(4) == ["seen", "t0", "t1", "t2"]
            async with listening(browser, last_event_id=first.ids[-1]) as again:
                assert await again.names(3) == ["t0", "t1", "t2"]
                for n in range(3, 9):
                    await daemon.say(f"ADD name=t{n} @daily x")
                assert await again.names(6) == [f"t{n}" for n in range(3, 9)]
                assert [*first.ids, *again.ids] == sorted({*first.ids, *again.ids}, key=float)

    trio.run(look)


class OwnWatch:
    """Whoever asks for what he has missed: these events come by a connection of his own, one by one."""

    def __init__(self, *seqs: int) -> None:
        self._rows = [{"seq": seq, "id": 1, "event": "added"} for seq in seqs]

    @asynccontextmanager
    async def follow(self, said: str) -> AsyncIterator[OwnWatch]:
        assert said == "WATCH since=2"
        yield self

    async def begin(self) -> None:
        pass

    async def row_within(self, seconds: float) -> dict[str, Any] | None:
        return self._rows.pop(0) if self._rows else None


async def test_what_comes_late_by_the_common_watch_is_told_once() -> None:
    """A busy process reads the one connection ahead of the other, by more than one event."""
    reader, feed = events.Reader(after=(2, inf)), events.Feed(InMemory.__new__(InMemory))
    feed.readers.add(reader)
    own: Any = OwnWatch(3, 4, 5, 6)
    told = []
    async with aclosing(events._catch_up(feed, own, reader, "2", True)) as pieces:
        async for piece in pieces:
            told.append(piece)
            if len(told) == 2:  # it has told of 4 already
                reader.tell(events.to_event({"seq": 3, "id": 1}))
    for seq in 4, 5, 6:
        reader.tell(events.to_event({"seq": seq, "id": 1}))
    assert [piece.partition(b"\n")[0] for piece in told] == [b"id: 3", b"id: 4"]
    assert [event.seq for event in reader.events] == ["5", "6"]


async def add_unseen(daemon: InMemory) -> int:
    """Tasks of which all but one come after what is returned: how far the journal was then."""
    await daemon.say("ADD name=seen @daily x")
    seq = (await daemon.ask("STATUS")).pairs["journal-seq"]
    for line in LINES:
        await daemon.say(line)
    return int(seq)


def test_the_first_to_come_back_gets_what_nobody_followed(tmp_path: Path) -> None:
    """After this process was started anew, every browser comes back, and the daemon tells what was."""

    async def look() -> None:
        async with an_api(tmp_path) as (browser, daemon):
            seq = await add_unseen(daemon)
            async with listening(browser, last_event_id=str(seq)) as one:
                assert await one.names(3) == ["t0", "t1", "t2"]
                async with listening(browser, last_event_id=str(seq)) as two:
                    assert await two.names(3) == ["t0", "t1", "t2"]
            assert (await browser.get(f"{API}/events", last_event_id="a b")).status == 400

    trio.run(look)


def name_of(event: events.Event) -> str:
    return str(orjson.loads(event.data.partition(b"data: ")[2])["jobName"])


def test_what_the_first_to_come_back_has_missed_is_told_to_him_alone(tmp_path: Path) -> None:
    """Whoever comes meanwhile for what is new was told the whole night again, and said `started` of all."""

    async def look() -> None:
        async with an_api(tmp_path) as (browser, daemon):
            seq = await add_unseen(daemon)
            feed: events.Feed = browser.app.state.feed
            readers = {since: events.Reader() for since in (str(seq), None, str(seq + 2), "99999")}
            async with trio.open_nursery() as nursery:
                for since, reader in readers.items():
                    nursery.start_soon(feed.join, reader, since)
                    await trio.lowlevel.checkpoint()  # that one is the first
            await daemon.say("ADD name=t3 @daily x")
            told = list[list[str]]()
            with trio.fail_after(PATIENCE_S):
                for reader in readers.values():
                    while "t3" not in (names := [name_of(event) for event in reader.events]):
                        await reader.wait(PATIENCE_S)
                    told.append(names)
            assert told == [["t0", "t1", "t2", "t3"], ["t3"], ["t2", "t3"], ["t3"]]
            feed.readers.clear()

    trio.run(look)


class Restored:
    """A daemon that goes away, and comes back with a journal of before."""

    def __init__(self) -> None:
        self._lives = [(9, [10]), (4, [4, 5])]  # how far its journal is then, and what it tells of

    @asynccontextmanager
    async def follow(self, said: str, caller: object) -> AsyncIterator[Restored]:
        self._upto, self._told = self._lives.pop(0)
        yield self

    async def begin(self) -> dict[str, Any]:
        return {"seq": self._upto}

    async def read_row(self) -> dict[str, Any]:
        if not self._told and self._lives:
            raise Unreachable("it is away")
        if not self._told:
            await trio.sleep_forever()
        return {"seq": (seq := self._told.pop(0)), "id": None, "event": "task", "jobName": f"at {seq}"}


async def test_what_happens_after_a_restore_is_told_to_who_stayed(autojump_clock: object) -> None:
    """Its numbers had been there before, by which each of those events was taken for known."""
    daemon: Any = Restored()
    feed, reader = events.Feed(daemon), events.Reader()
    await feed.join(reader, None)
    with trio.fail_after(PATIENCE_S):
        while len(reader.events) < 3:
            await reader.wait(PATIENCE_S)
    assert [name_of(event) for event in reader.events] == ["at 10", "at 4", "at 5"]
    assert [name_of(event) for event in feed.since("4") or ()] == ["at 4", "at 5"]
    assert feed.since("10") is None


@pytest.mark.parametrize("stays", [False, True], ids=["nobody else reads", "somebody reads"])
def test_a_page_is_told_what_has_happened_since_it_was_made(tmp_path: Path, stays: bool) -> None:
    """Between its being made and its listening a run began, and it told `starting` until that ended."""

    async def look() -> None:
        async with an_api(tmp_path) as (browser, daemon), AsyncExitStack() as more:
            if stays:
                await more.enter_async_context(listening(browser))
            for line in LINES[:2]:
                await daemon.say(line)
            await daemon.say("TOKEN ADD name=other role=viewer")  # a record that is no event
            seq = (await daemon.ask("STATUS")).pairs["journal-seq"]
            await daemon.say(LINES[2])
            before = daemon.dialled
            async with listening(browser, f"/events?since={seq}") as one:
                assert await one.names(1) == ["t2"]
                async with listening(browser, f"/events?since={seq}") as two:
                    assert await two.names(1) == ["t2"]
                # What all read, and the questions of whoever asks: no watch of one's own.
                assert daemon.dialled <= before + (0 if stays else 2)
                await daemon.say("ADD name=t3 @daily x")
                assert await one.names(1) == ["t3"]
                async with listening(browser, f"/events?since={seq}", last_event_id=one.ids[0]) as again:
                    assert await again.names(1) == ["t3"]
            assert (await browser.get(f"{API}/events?since=x")).error == (400, "bad-option")

    trio.run(look)


def test_one_who_does_not_read_is_cut_off_and_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """His place is bounded; the others go on."""
    monkeypatch.setattr(events, "MAX_BEHIND", 5)

    async def look() -> None:
        async with an_api(tmp_path) as (browser, daemon):
            feed: events.Feed = browser.app.state.feed
            slow = events.Reader()
            async with listening(browser) as quick:
                await feed.join(slow, None)
                for n in range(8):
                    await daemon.say(f"ADD name=t{n} @daily x")
                    assert await quick.names(1) == [f"t{n}"]
                assert slow.is_cut and len(slow.events) <= 8
                asker = events.Asker(None, daemon, events.GATEWAY)
                pieces = [piece async for piece in events.read(feed, asker, slow, None)]
                assert len(pieces) == 1 and slow not in feed.readers

    trio.run(look)


async def test_who_was_long_in_catching_up_goes_on(autojump_clock: object) -> None:
    """By then it is past the time of the next beat, which is no fault: the stream ended with a traceback."""
    reader = events.Reader()
    with trio.fail_after(PATIENCE_S):
        await reader.wait(-60.0)


def test_what_happens_to_one_job_alone(tmp_path: Path) -> None:
    """And nobody looks who may not."""

    async def look() -> None:
        async with an_api(tmp_path) as (browser, daemon):
            for line in LINES:
                await daemon.say(line)
            async with listening(browser, "/events?jobId=t1") as one:
                for name in ("t0", "t1", "t2", "t1"):
                    await daemon.say(f"SET {name} timeout=5s")
                    await daemon.say(f"SET {name} timeout=")
                assert await one.names(4) == ["t1"] * 4
            assert (await browser.get(f"{API}/events?jobId=zz")).error == (404, "not-found")
            assert (await Browser(browser.app).get(f"{API}/events")).error == (401, "auth-required")

    trio.run(look)


ENDS = ["TOKEN REVOKE 2", "USER SET ann disabled=yes", "USER REMOVE ann", "signing out"]


@pytest.mark.parametrize("ends", ENDS)
def test_who_may_look_no_longer_is_told_nothing_more(
    tmp_path: Path, ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lets him in is taken back: what happens behind that is not for him, be it in the same moment."""
    monkeypatch.setattr(events, "BEAT_S", 1000.0)

    async def look() -> None:
        async with an_api(tmp_path) as (browser, daemon), listening(browser) as stays:
            await daemon.say("USER ADD ann role=viewer password=correct-horse")
            token = (await daemon.ask("TOKEN ADD user=ann")).pairs["token"]
            ann = Browser(browser.app, headers={"authorization": f"Bearer {token}"})
            if ends == "signing out":
                said = {"name": "ann", "password": "correct-horse"}
                token = (await ann.post(f"{API}/auth/login", said)).data["accessToken"]
                ann.headers["authorization"] = f"Bearer {token}"
            async with ann.open("GET", f"{API}/events") as answer:
                await daemon.say("ADD name=before @daily x")
                assert await stays.names(1) == ["before"]
                if ends == "signing out":
                    assert (await ann.post(f"{API}/auth/logout", {})).status == 200
                    await daemon.say("ADD name=behind @daily x")
                else:
                    await daemon.ask_all([ends, "ADD name=behind @daily x"])
                with trio.fail_after(PATIENCE_S):
                    told = b"".join([part async for part in answer.parts()])
            assert b"behind" not in told
            assert await stays.names(1) == ["behind"]

    trio.run(look)


def test_of_all_that_somebody_has_open_it_is_asked_once_whether_he_may(tmp_path: Path) -> None:
    """A token that is revoked is shown once more, not for each page: a wrong word makes its address wait."""

    async def look() -> None:
        async with an_api(tmp_path) as (browser, daemon):
            token = (await daemon.ask("TOKEN ADD")).pairs["token"]
            program = Browser(browser.app, headers={"authorization": f"Bearer {token}"})
            async with AsyncExitStack() as more:
                streams = [
                    await more.enter_async_context(program.open("GET", f"{API}/events")) for _ in range(20)
                ]
                await daemon.say("ADD name=before @daily x")
                await daemon.ask_all(["TOKEN REVOKE 2", "ADD name=behind @daily x"])
                with trio.fail_after(PATIENCE_S):
                    for answer in streams:
                        assert b"behind" not in b"".join([part async for part in answer.parts()])
            assert int((await daemon.ask("STATUS")).pairs["wrong-words"]) <= 2

    trio.run(look)


def test_output_is_read_while_it_is_written(tmp_path: Path) -> None:
    """Line by line, on from where somebody was, and the end with how it went."""

    async def look() -> None:
        async with an_api(tmp_path) as (browser, daemon):
            await daemon.say("ADD name=a @daily x")
            await daemon.say("RUN a")
            await daemon.world.play("w", None, "HELLO name=w1 slots=4")
            await daemon.world.play("w", None, "OUT 1 1 one")
            async with listening(browser, "/executions/1/log?follow=1") as reader:
                assert (await reader.next())["text"] == "one"
                await daemon.world.play("w", None, "OUT 1 2 oh")
                told = await reader.next()
                assert (told["text"], told["level"]) == ("oh", "error")
                await daemon.world.play("w", None, "DONE 1 1 3")
                assert (await reader.next())["exitCode"] == 3
            async with listening(browser, "/executions/1/log?follow=1", last_event_id="1") as reader:
                assert (await reader.next())["text"] == "oh"
            async with listening(browser, "/executions/1/log?follow=1", last_event_id="9" * 5000) as reader:
                assert (await reader.next())["text"] == "one"
            at = f"{API}/executions/1/log"
            assert (await browser.get(at)).data == [
                {"level": "info", "text": "one"}, {"level": "error", "text": "oh"},
            ]  # fmt: skip
            assert (await browser.get(at, accept="text/plain")).text == "one\noh\n"
            assert (await browser.get(f"{API}/executions/9/log?follow=1")).error == (404, "not-found")
            assert (await browser.get(f"{API}/jobs/a/logs?level=error")).data == [
                {"level": "error", "text": "oh"}
            ]

    trio.run(look)
