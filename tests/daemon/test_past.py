"""What has ended is told whole, while memory lets it go and the journal is read."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from threading import Event, get_ident
from typing import Any, cast

import pytest
import trio
import trio.testing

from cronflowd.ask import questions, views
from cronflowd.base.replies import Reply
from cronflowd.daemon import hindsight as past
from cronflowd.daemon.answers import Answers
from cronflowd.daemon.core import Core
from cronflowd.engine import carried
from cronflowd.engine.rules import Limits
from cronflowd.journal import index
from cronflowd.journal.index import Index
from cronflowd.journal.journal import FileJournal
from cronflowd.net.clients import Session
from tests.engine.test_waiting_tasks import from_checkpoint
from tests.lib.harness import World, a_world, play, run_here
from tests.lib.journal_driver import compact
from tests.lib.waiting import PATIENCE_S

RUNS = 12
KEPT = 4  # in memory


async def _live(data: Path, monkeypatch: pytest.MonkeyPatch, question: str) -> list[str]:
    """The answer to a question while whose reading all that memory holds is replaced by newer rows."""
    async with a_world(data, {"recent": str(KEPT)}) as world:
        await world.play("w", None, "HELLO name=w1 slots=100")
        await world.play("C", None, "ADD name=a overlap=allow @reboot job")
        await _run(world, RUNS)
        await world.play("C", None, "RUN a")  # one that ends while the journal is read

        async def slowly(function: Callable[..., Any], *args: Any, **_: Any) -> Any:
            await world.play("w", None, f"DONE {RUNS + 1} 1 0")
            await _run(world, 2 * KEPT)
            return function(*args)

        monkeypatch.setattr(trio.to_thread, "run_sync", slowly)
        answer: list[str] = []
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                reply = await world.answers.handle(question, Session(None, "here", "tcp"), world.core.now())
                answer.extend(map(repr, reply.rows))

            nursery.start_soon(ask)
        return answer


async def _run(world: World, times: int) -> None:
    for _ in range(times):
        run = world.core.state.next_run
        await world.play("C", None, "RUN a")
        await world.play("w", None, f"DONE {run} 1 0")


@pytest.mark.parametrize("question", ["RUNS", f"RUNS limit={RUNS + 1}", "RUNS a"])
def test_no_row_is_left_out_that_leaves_memory_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    """Rows that memory let go after the reading began stood in no part of the answer."""
    rows = trio.run(_live, tmp_path, monkeypatch, question)
    assert [int(row.split(",")[0].strip("(")) for row in rows] == list(range(RUNS + 1, 0, -1))


def test_stats_count_what_leaves_memory_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A number that depends on how busy the daemon was is no number."""
    (row,) = trio.run(_live, tmp_path, monkeypatch, "STATS a")
    assert f", {RUNS}, {RUNS}," in row


def test_why_finds_what_ended_while_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run was under way when this was asked, and over when the journal had been read."""
    rows = trio.run(_live, tmp_path, monkeypatch, "WHY a")
    assert any(f"run {RUNS + 1}" in row for row in rows)


@pytest.mark.parametrize("recent", [0, 1, 2, 5])
def test_what_keep_shows_does_not_depend_on_what_memory_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recent: int
) -> None:
    """The newest rows come from memory and older ones from files; which is which nobody can see."""
    text = (Path(__file__).parents[1] / "transcripts/keep.txt").read_text(encoding="utf-8").split("\n")
    assert play([f"O: recent={recent}", *text], tmp_path, monkeypatch)[1:] == text


@pytest.mark.parametrize("recent", [1, 2, 3])
def test_output_that_memory_still_holds_is_kept_no_longer_than_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recent: int
) -> None:
    """The runs after it wrote nothing, so that its lines were there when its row was not."""
    lines = [f"O: recent={recent}", "w: HELLO name=w1", "C: ADD name=a keep=2 overlap=allow 0 0 1 1 * a"]
    for run in range(1, 6):
        lines += ["C: RUN a", *(["w: OUT 1 1 first"] if run == 1 else []), f"w: DONE {run} 1 0"]
    said = play([*lines, "C: LOG 1"], tmp_path, monkeypatch)
    assert said[-1] == "S: OK 0"


def test_remarks_are_output_too_which_keep_lets_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """WHY told them until the files were made short; LOG did not."""
    lines = ["w: HELLO name=w1", "C: ADD name=a keep=0K 0 0 1 1 * a", "C: RUN a", "C: CANCEL 1", "T: +70s"]
    said = play([*lines, "C: WHY a", "C: LOG 1"], tmp_path, monkeypatch)
    assert said[-1] == "S: OK 0"
    assert not [line for line in said if "is told to end it" in line]


def test_of_a_run_that_keep_has_let_go_no_late_report_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands in a newer file than its run's end, and outlived it there."""
    monkeypatch.setattr("tests.lib.harness.FileJournal", partial(FileJournal, segment_bytes=1000))
    monkeypatch.setattr(World, "check_replay", lambda world: None)  # which counts from the first record on
    more = ["C: PAUSE a", "C: RESUME a"] * 9
    lines = ["w: HELLO name=w1", "C: ADD name=a keep=1 overlap=allow 0 0 1 1 * a", "C: RUN a", "C: CANCEL 1"]
    play([*lines, "T: +70s", "C: RUN a", "w: DONE 2 1 0", *more], tmp_path, monkeypatch)
    compact(tmp_path)
    said = play(["w: HELLO name=w1", "w: DONE 1 1 1", *more, "C: LOG 1"], tmp_path, monkeypatch)
    compact(tmp_path)
    assert play(["C: LOG 1"], tmp_path, monkeypatch)[-1] == said[-1] == "S: OK 0"


def test_a_run_that_the_files_have_let_go_does_not_come_back_out_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it wrote stood there longer than its row, so that nothing told any more that it was let go."""
    monkeypatch.setattr("tests.lib.harness.FileJournal", partial(FileJournal, segment_bytes=1000))
    monkeypatch.setattr(World, "check_replay", lambda world: None)  # which counts from the first record on
    monkeypatch.setattr(trio.to_thread, "run_sync", run_here)

    async def live() -> list[str]:
        async with a_world(tmp_path, {"recent": "1"}) as world:
            await world.play("w", None, "HELLO name=w1")
            await world.play("C", None, "ADD name=a keep=1 0 0 1 1 * a")
            await world.play("C", None, "RUN a")
            await world.play("w", None, "OUT 1 1 hello")
            await world.play("w", None, "DONE 1 1 0")
            for run in range(2, 12):
                await world.play("C", None, "RUN a")
                await world.play("w", None, f"DONE {run} 1 0")
            before = await world.play("C", None, "LOG 1")
            compact(tmp_path)
            return before + await world.play("C", None, "LOG 1")

    assert trio.run(live) == ["S: OK 0", "S: OK 0"]


def test_a_log_is_not_followed_for_ever_when_its_run_ended_before_the_answer_had_its_turn(
    tmp_path: Path,
) -> None:
    """The run of `cronflowd run` may take a millisecond: its end came first, and no other one came."""

    async def follow() -> None:
        async with a_world(tmp_path, {}) as world:
            await world.play("w", None, "HELLO name=w1 slots=1")
            await world.play("C", None, "NOW job")
            session = Session(cast(Any, None), "unix:pid=1,uid=0", "unix")
            world.answers.enter(session)
            answer = world.answers.handle("LOG 1 follow", session, world.core.now())
            assert not isinstance(answer, Reply)
            await world.play("w", None, "OUT 1 1 hello")
            await world.play("w", None, "DONE 1 1 0")
            with trio.fail_after(PATIENCE_S):
                reply = await answer
            assert [row[1] for row in reply.rows if row] == ["hello"]

    trio.run(follow)


async def _who_makes(data: Path, monkeypatch: pytest.MonkeyPatch, question: str) -> tuple[int, set[int]]:
    """How many rows a daemon answers with right after its start, and which threads made tasks."""
    async with a_world(data, {}) as world:
        await world.play("w", None, "HELLO name=w1")
        await world.play("C", None, "ADD name=a tags=x @daily job")
        await _run(world, 1)
        state = from_checkpoint(world.core.state)
        state.history_from_seq = world.core.last_seq + 1
        world.answers = Answers(Core(state, world.journal, world.clock, Limits()), data)
        threads, make = set[int](), carried._Waiting.make

        def note(source: Any) -> None:
            threads.add(get_ident())
            make(source)

        monkeypatch.setattr(carried._Waiting, "make", note)
        reply = await world.answers.handle(
            question, Session(cast(Any, None), "here", "tcp"), world.core.now()
        )
        return len(list(reply.rows)), threads


@pytest.mark.parametrize("question", ["RUNS", "RUNS tag=x", "STATS"])
def test_a_thread_that_reads_the_past_makes_no_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    """Where two threads make one, what it has become meanwhile is lost: a moment would come twice."""
    assert trio.run(_who_makes, tmp_path, monkeypatch, question) == (1, {get_ident()})


async def test_few_read_the_past_at_once(tmp_path: Path) -> None:
    """Thirty at once, each with its rows in memory, took half a gigabyte, and none was the quicker for it."""
    async with a_world(tmp_path, {}) as world, trio.open_nursery() as nursery:
        go_on = Event()
        for _ in range(6):
            nursery.start_soon(past.Past(world.core, tmp_path, Index())._read, go_on.wait)
        await trio.testing.wait_all_tasks_blocked()
        waiting = past.READERS.statistics().tasks_waiting
        go_on.set()
        assert waiting == 4


def test_how_many_rows_there_are_is_counted_to_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a million runs nobody may have to wait for the last one to see the first page."""
    lines = ["O: recent=2", "w: HELLO name=w1 slots=9", "C: ADD name=a 0 0 1 1 * a"]
    for run in range(1, 11):
        lines += ["C: RUN a", f"w: DONE {run} 1 {run % 2}"]

    def totals(*asked: str) -> list[str]:
        questions = [f"C: RUNS {words} count=yes" for words in asked]
        said = play([*lines, *questions], tmp_path / str(len(asked)), monkeypatch)
        return [line for line in said if "total=" in line]

    assert totals("limit=3", "exit=1 limit=1") == ["S: OK 3 total=10", "S: OK 1 total=5"]
    monkeypatch.setattr(questions, "MAX_COUNTED", 5)
    assert totals("limit=3", "limit=7", "limit=2 offset=8", "exit=1 limit=1", "") == [
        "S: OK 3 total=5 more=yes",
        "S: OK 7 total=7 more=yes",
        "S: OK 2 total=10",
        "S: OK 1 total=5",
        "S: OK 10 total=10",
    ]
    monkeypatch.setattr(past, "MAX_PASSED", 2)
    assert totals("exit=1 limit=2", "exit=1 limit=5", "run=1") == [
        "S: OK 2 total=3 more=yes",
        "S: OK 5 total=5",
        "S: OK 1 total=1",
    ]


@pytest.mark.parametrize(
    ("question", "most"),
    [
        ("RUNS state=running,sent,queued count=yes", 0),
        ("RUNS since=2030-01-06T00:00:00Z count=yes", 3),
        ("RUNS", 20),
    ],
)
def test_what_cannot_stand_in_old_files_is_not_looked_for_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, question: str, most: int
) -> None:
    """A page that asks what runs now, or what failed since yesterday, read a year of history each time."""
    looked: list[Any] = []
    real = past.history.outcomes

    def counted(*args: Any) -> Any:
        for outcome in real(*args):
            looked.append(outcome)
            yield outcome

    monkeypatch.setattr(past.history, "outcomes", counted)
    lines = ["O: recent=1", "w: HELLO name=w1", "C: ADD name=a @daily a"]
    for day in range(2, 8):
        lines += [f"T: 2030-01-0{day}T00:00:00Z", f"w: DONE {day - 1} 1 0"]
    play([*lines, f"C: {question}"], tmp_path, monkeypatch)
    assert len(looked) <= most
    assert looked or not most


def test_what_ended_before_the_clock_was_set_hides_nothing_that_is_older(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine without a battery each start has such a minute, and since= saw no further back."""
    lines = ["O: recent=0", "w: HELLO name=w1", "C: ADD name=a 0 0 1 1 * a", "C: RUN a", "w: DONE 1 1 0"]
    lines += ["D: 2000-01-01T00:00:10Z", "w: HELLO name=w1", "C: RUN a", "w: DONE 2 1 0"]
    lines += ["J: 2030-01-01T13:00:00Z", "C: RUN a", "w: DONE 3 1 0", "C: RUNS since=2030-01-01T00:00:00Z"]
    said = play([*lines, "C: AUDIT since=2030-01-01T00:00:00Z"], tmp_path, monkeypatch)
    end = said.index("C: AUDIT since=2030-01-01T00:00:00Z")
    assert [line.split("\t")[0] for line in said[end - 3 : end]] == ["S: 3", "S: 1", "S: OK 2"]
    assert [line.split("\t")[3] for line in said[end + 1 : -1]] == ["RUN", "RUN", "ADD", "HELLO"]


@pytest.mark.parametrize(
    ("question", "most"),
    [
        ("RUNS run=3", 1),
        ("RUNS b limit=15", 2),
        ("RUNS state=failed,timeout count=yes", 2),
        ("RUNS worker=w2 count=yes", 2),
        ("STATS b", 2),
        ("WHY b", 3),
        ("LOG b", 2),
        ("LOG 3", 1),
    ],
)
def test_a_page_about_one_thing_looks_at_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, question: str, most: int
) -> None:
    """A million others stood between: each page of a job, or of a run, read them all."""
    looked: list[Any] = []
    real = past.history._outcome

    def counted(line: bytes) -> Any:
        looked.append(line)
        return real(line)

    monkeypatch.setattr(past.history, "_outcome", counted)
    lines = ["O: recent=1", "w: HELLO name=w1", "C: ADD name=a overlap=allow 0 0 1 1 * a"]
    lines += ["C: ADD name=b on=w2 0 0 1 1 * b", "C: ADD name=c 0 0 1 1 * c"]
    for run in range(1, 9):
        name, code = ("b", 7) if run in (3, 6) else ("ac"[run % 2], 0)
        if run == 3:
            lines += ["w w2: HELLO name=w2"]
        lines += [f"C: RUN {name}"]
        lines += [f"{'w w2' if name == 'b' else 'w'}: OUT {run} 1 of {run}"]
        lines += [f"{'w w2' if name == 'b' else 'w'}: DONE {run} 1 {code}"]
    said = play([*lines, f"C: {question}"], tmp_path, monkeypatch)
    assert said[-1].startswith("S: OK")
    assert 1 <= len(looked) <= most


@pytest.mark.parametrize("recent", [0, 1, 3, 20])
@pytest.mark.parametrize("filters", ["state=failed", "worker=w2", "run=2", "run=4", "state=failed limit=2"])
def test_a_filter_sees_no_more_of_a_task_than_its_keep_lets_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recent: int, filters: str
) -> None:
    """Which rows are the newest is known from all of a task's, though most are not asked for."""
    lines = [f"O: recent={recent}", "w: HELLO name=w1", "w w2: HELLO name=w2"]
    lines += ["C: ADD name=a keep=3 on=w1 0 0 1 1 * a", "C: ADD name=b keep=3 on=w2 0 0 1 1 * b"]
    for run in range(1, 13):
        code = 7 if run in (1, 2, 4, 7, 8, 10) else 0
        lines += [f"C: RUN {'ba'[run % 2]}", f"{('w w2', 'w')[run % 2]}: DONE {run} 1 {code}"]
    said = play([*lines, f"C: RUNS {filters}"], tmp_path, monkeypatch)
    shown = [int(line.split("\t")[0].removeprefix("S: ")) for line in said[-7:] if "\t" in line]
    expected = {"state=failed": [10, 8, 7], "worker=w2": [12, 10, 8], "state=failed limit=2": [10, 8]}
    assert shown == expected.get(filters, [])


def test_what_is_only_counted_is_not_made_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page of a list counts ten thousand behind it."""
    made: list[Any] = []
    real = views.outcome_row
    monkeypatch.setattr(views, "outcome_row", lambda outcome: (made.append(outcome), real(outcome))[1])
    lines = ["w: HELLO name=w1 slots=9", "C: ADD name=a 0 0 1 1 * a"]
    lines += [line for run in range(1, 11) for line in ("C: RUN a", f"w: DONE {run} 1 0")]
    said = play([*lines, "C: RUNS limit=2 offset=3 count=yes"], tmp_path, monkeypatch)
    assert (said[-1], len(made)) == ("S: OK 2 total=10", 2)


async def _ask_in_three_ways(data: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Of a life by chance: by the index, by reading every line, and as if nothing could be looked up."""
    chance = Random(seed)
    async with a_world(data, {"recent": str(chance.choice([0, 2, 5]))}) as world:
        for worker in "w1", "w2":
            await world.play("w", worker, f"HELLO name={worker} slots=100")
        names = ["a", "b", "c"]
        for name, keep in zip(names, chance.sample(["2", "3", "1000", "1M"], 3), strict=True):
            given = f"keep={keep}" if keep != "1M" else ""
            on = chance.choice(["on=w2", "on=w1"])
            await world.play("C", None, f"ADD name={name} {given} {on} overlap=skip 0 0 1 1 * {name}")
        for _ in range(40):
            name = chance.choice(names)
            run = world.core.state.next_run
            await world.play("C", None, f"RUN {name}")
            if run in world.core.state.runs and (worker := world.core.state.runs[run].worker):
                if chance.random() < 0.2:
                    await world.play("C", None, f"RUN {name}")  # which is skipped
                if chance.random() < 0.5:
                    await world.play("w", worker, f"OUT {run} 1 of {run}")
                await world.play("w", worker, f"DONE {run} 1 {chance.choice([0, 0, 7])}")
            if chance.random() < 0.1:
                names[names.index(name)] = new = f"{name}{len(name)}"
                await world.play("C", None, f"SET {name} name={new}")
            elif chance.random() < 0.05:
                await world.play("C", None, f"REMOVE {name}")
                await world.play("C", None, f"ADD name={name} keep=2 0 0 1 1 * {name}")
        asked = [f"RUNS {words}" for words in FILTERS]
        for ref in {"a", "b", "c", "2", "02", *names}:
            asked += [f"RUNS {ref} count=yes", f"RUNS {ref} state=failed limit=2", f"STATS {ref}"]
            asked += [f"WHY {ref}", f"LOG {ref}", f"LOG {ref} back=2"]
        asked += [f"{verb}{run}" for run in range(1, 12) for verb in ("LOG ", "RUNS run=")]

        asked += ["STATS", "AUDIT"]

        async def answers() -> dict[str, list[str]]:
            return {each: await world.play("C", None, each) for each in asked}

        found = await answers()
        with monkeypatch.context() as patch:
            patch.setattr(past.history, "_about", lambda source, *_: past.history._numbered(source))
            assert await answers() == found
            patch.setattr(past, "_keys_of", lambda *_: [])
            others = await answers()
        assert {each: others[each] for each in asked if "run=" not in each} == {
            each: found[each] for each in asked if "run=" not in each
        }


FILTERS = [
    "", "limit=3", "limit=3 offset=5 count=yes", "state=failed", "state=skipped", "state=ok,failed",
    "worker=w2", "worker=w1 state=failed count=yes", "exit=7 limit=4 count=yes",
    "state=failed limit=2 offset=1",
]  # fmt: skip


@pytest.mark.parametrize("seed", [1, *(pytest.param(each, marks=pytest.mark.long) for each in range(2, 12))])
@pytest.mark.parametrize("hashes", [2**32 - 1, 1])
def test_what_is_found_by_the_index_is_what_is_found_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, hashes: int
) -> None:
    """It may cost less, and say nothing else; also where all that can be looked for has one of two hashes."""
    monkeypatch.setattr(trio.to_thread, "run_sync", run_here)
    monkeypatch.setattr("tests.lib.harness.FileJournal", partial(FileJournal, segment_bytes=4000))
    real = index._hash
    monkeypatch.setattr(index, "_hash", lambda what, value: real(what, value) & hashes)
    trio.run(_ask_in_three_ways, tmp_path, monkeypatch, seed)
