"""Executors without a daemon: a job in, its ending and its output out."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from cronflowd.base.errors import Refusal
from cronflowd.base.text import split_options, unescape
from cronflowd.net.lines import MAX_LINE_BYTES
from cronflowd.worker.executors import TABLE, processes
from cronflowd.worker.executors.job import Ended, Job, Order, format_done, parse_order
from cronflowd.worker.executors.output import CHUNK_BYTES, MAX_TEXT_BYTES, Output, format_output
from cronflowd.worker.executors.shell import job_environ
from tests.lib.waiting import PATIENCE_S, until

MEBIBYTE = 1024 * 1024


def make_job(command: str, kind: str = "shell", **options: str) -> Job:
    order = Order("7 1", {"type": kind, **options}, command)
    return Job(order, Output("7", MEBIBYTE), grace_s=5.0)


async def carry_out(job: Job) -> Ended:
    with trio.fail_after(PATIENCE_S):
        ended = await TABLE[job.order.type].run(job)
    job.output.end()
    return ended


def said(job: Job) -> list[str]:
    """The output that waits to be sent, as `fd text`."""
    return texts_of(job.output.take_all())


def texts_of(lines: str) -> list[str]:
    return [line.removeprefix("OUT 7 ") for line in lines.splitlines()]


async def wait_until_said(job: Job, text: str) -> None:
    """Waits until the job has written the line; it must not have been taken yet."""
    with trio.fail_after(PATIENCE_S):
        while text not in (found := said(job)):
            assert not found, found
            await trio.sleep(0.001)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


# --- orders and endings ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("7 1 type=shell :echo hi", Order("7 1", {"type": "shell"}, "echo hi")),
        ("7 2 :a :b", Order("7 2", {}, "a :b")),
        ('7 2 type=echo :say "x"', Order("7 2", {"type": "echo"}, 'say "x"')),
        ("7 2  type=echo  :  two ", Order("7 2", {"type": "echo"}, "  two ")),
        ('7 1 env.A="b :c" cwd=/ :x', Order("7 1", {"env.A": "b :c", "cwd": "/"}, "x")),
        ('7 1 payload={"a": [1, 2]} :x', Order("7 1", {"payload": '{"a": [1, 2]}'}, "x")),
        ("7 1 env.A=b=c :x", Order("7 1", {"env.A": "b=c"}, "x")),
    ],
)
def test_an_order_is_read_as_it_was_written(text: str, order: Order) -> None:
    """The quick way for lines without quotes must read them as the thorough one does."""
    assert parse_order(text) == order


@pytest.mark.parametrize("text", ["", "7", "7 1", "7 :x", "7 1 word :x", '7 1 a="b :x', '7 1 a="b"c :x'])
def test_a_line_that_is_no_order_is_refused(text: str) -> None:
    """Any other exception would end the worker."""
    with pytest.raises(Refusal):
        parse_order(text)


@given(st.text())
def test_any_text_is_an_order_or_a_refusal(text: str) -> None:
    """The daemon may be of another version, and it must not be able to crash its workers."""
    with contextlib.suppress(Refusal):
        parse_order(text)


def test_the_done_line_tells_what_there_is_to_tell() -> None:
    """Its options are read back by the daemon with the same rules as those of ADD."""
    assert format_done("7 1", Ended(0)) == "DONE 7 1 0\n"
    line = format_done("7 1", Ended(143, why='say "hi"\n', signal=15, timed_out=True), omitted=9)
    assert line.startswith("DONE 7 1 143 ")
    assert line.count("\n") == 1
    options, rest = split_options(line.split(" ", 4)[4].strip())
    assert (options, rest) == (
        {"signal": "15", "timeout": "1", "omitted": "9", "why": 'say "hi"\\n'},
        "",
    )


@pytest.mark.parametrize("text", ["nan", "-1", "soon", ""])
def test_a_timeout_that_is_no_number_is_refused(text: str) -> None:
    """Taken for no timeout it would let a job run for ever."""
    with pytest.raises(Refusal, match="timeout"):
        _ = Order("7 1", {"timeout": text}, "true").timeout_s


# --- built-ins ------------------------------------------------------------------------


def test_echo_and_sleep_zero_answer_at_once() -> None:
    """They are what thousands of jobs a second are measured with."""
    echo, sleep = TABLE["echo"].at_once, TABLE["sleep"].at_once
    assert echo
    assert sleep
    assert echo(Order("7 1", {}, "a\tb")) == Ended(0, said="a\tb")
    assert sleep(Order("7 1", {}, "0")) == Ended(0)
    assert sleep(Order("7 1", {}, "0.5")) is None


@pytest.mark.parametrize(
    ("command", "ended"),
    [
        ("2 * (3 + 4)", Ended(0, said="14")),
        ("1 / 0", Ended(1, why="column 3: division by zero")),
        ("2 +", Ended(126, why="cannot start: column 4: a number was expected, not the end")),
    ],
)
async def test_calculate_says_its_result_or_why_there_is_none(command: str, ended: Ended) -> None:
    """A division by zero is the task's failure; what is no arithmetic never ran."""
    calculate = TABLE["calculate"]
    assert calculate.at_once
    assert ended == calculate.at_once(Order("7 1", {}, command))
    assert ended == await calculate.run(make_job(command, "calculate"))


@pytest.mark.parametrize("command", ["x", "nan", "-1", "inf", "1e99"])
def test_a_sleep_of_no_length_is_not_started(command: str) -> None:
    """The person reads why in the LOG."""
    at_once = TABLE["sleep"].at_once
    assert at_once
    ended = at_once(Order("7 1", {}, command))
    assert ended
    assert ended.exit == 126
    assert command in ended.why


async def test_sleep_sleeps_and_its_timeout_ends_it(autojump_clock: trio.testing.MockClock) -> None:
    """A timeout means the same for every type."""
    sleep = TABLE["sleep"].run
    assert await sleep(make_job("3600", "sleep")) == Ended(0)
    assert await sleep(make_job("3600", "sleep", timeout="5")) == Ended(143, signal=15, timed_out=True)
    assert trio.current_time() == pytest.approx(3605, abs=1)


# --- processes ------------------------------------------------------------------------


async def test_a_shell_job_gives_its_exit_code_and_both_outputs() -> None:
    """The whole point of running something."""
    job = make_job("echo out; echo err >&2; exit 3")
    assert await carry_out(job) == Ended(3)
    assert sorted(said(job)) == ["1 out", "2 err"]


async def test_a_script_is_split_into_words_and_meets_no_shell() -> None:
    """So that a name with a blank or a semicolon in it stays a name."""
    job = make_job("printf '<%s>' 'a b' \"c;d\" $HOME '*'", "script")
    assert await carry_out(job) == Ended(0)
    assert said(job) == ["1 <a b><c;d><$HOME><*>"]


async def test_a_job_finds_its_name_its_arguments_and_its_own_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """CRONFLOW_FIRE_ID is the idempotency key; it must not depend on the attempt."""
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    options = {"task": "17", "name": "nightly", "due": "2026-11-21T10:05:00Z", "fire": "17/x"}
    environ = job_environ(Order("7 2", {**options, "env.A": "a b", "arg.day": "mon"}, ""))
    expected = {
        "CRONFLOW_RUN_ID": "7",
        "CRONFLOW_ATTEMPT": "2",
        "CRONFLOW_TASK_ID": "17",
        "CRONFLOW_JOB_NAME": "nightly",
        "CRONFLOW_DUE_AT": "2026-11-21T10:05:00Z",
        "CRONFLOW_FIRE_ID": "17/x",
        "CRONFLOW_ARG_day": "mon",
        "A": "a b",
    }
    assert expected.items() <= environ.items()
    assert environ["PATH"] == os.environ["PATH"]
    assert "NOTIFY_SOCKET" not in environ


async def test_a_job_runs_in_its_directory_with_nothing_to_read(tmp_path: Path) -> None:
    """A job that reads its input must not wait for a person."""
    job = make_job("pwd; cat; echo $A", cwd=str(tmp_path), **{"env.A": "x"})
    assert await carry_out(job) == Ended(0)
    assert said(job) == [f"1 {tmp_path}", "1 x"]


@pytest.mark.parametrize(
    ("command", "options", "code", "why"),
    [
        ("true", {"cwd": "/no/such"}, 127, "directory /no/such: No such file"),
        ("true", {"cwd": "/etc/passwd"}, 126, "directory /etc/passwd: Not a directory"),
        ("no-such-program x", {"kind": "script"}, 127, "no-such-program: No such file"),
        ("/etc/passwd", {"kind": "script"}, 126, "/etc/passwd: Permission denied"),
        ("'unclosed", {"kind": "script"}, 126, "No closing quotation"),
        (" ", {"kind": "script"}, 127, "no words"),
        ("true", {"cwd": "a\0b"}, 126, "null byte"),
    ],
)
async def test_what_cannot_be_started_says_why(
    command: str, options: dict[str, str], code: int, why: str
) -> None:
    """With the shell's exit codes, and words for a person."""
    job = make_job(command, **options)
    ended = await carry_out(job)
    assert ended.exit == code
    assert why in ended.why
    assert not job.is_started


async def test_death_by_a_signal_is_told_as_the_shell_tells_it() -> None:
    """Scripts know 137 for an out-of-memory kill."""
    assert await carry_out(make_job("kill -KILL $$")) == Ended(137, signal=9)


async def test_a_process_left_behind_does_not_hold_the_job() -> None:
    """`sleep 60 &` keeps the pipe open; the job has ended all the same, and its output is whole."""
    job = make_job("echo first; sleep 60 & echo $!; exit 4")
    started_at = trio.current_time()
    assert await carry_out(job) == Ended(4)
    assert trio.current_time() - started_at < 5
    first, left = said(job)
    assert first == "1 first"
    os.kill(int(left[2:]), signal.SIGKILL)


async def test_a_timeout_ends_the_job_with_its_children() -> None:
    """A child that goes on would keep the lock its parent was killed for."""
    job = make_job("sleep 60 & echo $!; wait", timeout="0.3")
    assert await carry_out(job) == Ended(143, signal=15, timed_out=True)
    (child,) = said(job)
    assert not is_alive(int(child[2:]))


async def test_what_takes_no_notice_of_term_is_killed_after_the_grace() -> None:
    """Here the job obeys and its child does not: the child gets the grace, and then no mercy."""
    job = make_job("(trap '' TERM; echo ready; while :; do sleep 0.01; done) & echo $!; wait")
    job.grace_s = 0.3
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_kill_when_ready, job)
        assert await carry_out(job) == Ended(143, signal=15)


async def _kill_when_ready(job: Job) -> None:
    lines: list[str] = []
    await until(lambda: lines.extend(said(job)) or len(lines) >= 2)
    started_at = trio.current_time()
    job.kill()
    stubborn = next(int(line[2:]) for line in lines if line != "1 ready")
    await until(lambda: not is_alive(stubborn))
    assert trio.current_time() - started_at >= 0.3


async def test_a_job_may_clean_up_on_term_and_choose_its_exit_code() -> None:
    """That is what the grace is for."""
    job = make_job("trap 'echo cleaned; exit 5' TERM; echo ready; while :; do sleep 0.01; done")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_until_said, job, "1 ready")
        nursery.start_soon(_kill_after, job, nursery)
        ended = await carry_out(job)
    assert ended == Ended(5)
    assert "1 cleaned" in said(job)


async def _kill_after(job: Job, nursery: trio.Nursery) -> None:
    await until(lambda: len(nursery.child_tasks) <= 1)
    job.kill()


async def test_a_kill_after_the_timeout_leaves_it_a_timeout() -> None:
    """The daemon knows the timeout too and sends KILL at about the same moment."""
    job = make_job("trap '' TERM; while :; do sleep 0.01; done", timeout="0.1")
    job.grace_s = 0.3
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_kill_late, job)
        assert await carry_out(job) == Ended(137, signal=9, timed_out=True)


async def _kill_late(job: Job) -> None:
    await until(lambda: job.life.cancel_called)
    job.kill()


async def test_no_descriptor_and_no_process_is_left_over() -> None:
    """A worker lives for months."""
    await carry_out(make_job("true"))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        await carry_out(make_job("true"))
        await carry_out(make_job("true", cwd="/no/such"))
        await carry_out(make_job("sleep 60", timeout="0.01"))
    assert len(os.listdir("/proc/self/fd")) == before
    assert not processes._own


# --- output ---------------------------------------------------------------------------


@pytest.fixture
def small() -> Output:
    """An output that keeps 100 bytes of its head and 100 of its tail."""
    return Output("7", 200)


def test_lines_go_out_as_they_come_and_parts_of_lines_wait(small: Output) -> None:
    """A line cut where the pipe happened to end would be no line of the job."""
    small.feed(1, b"one\ntw")
    small.feed(2, b"err\n")
    assert texts_of(small.take_all()) == ["1 one", "2 err"]
    small.feed(1, b"o\nlast")
    assert texts_of(small.take_all()) == ["1 two"]
    small.end()
    assert texts_of(small.take_all()) == ["1 last"]


def test_a_flood_is_told_by_its_head_its_tail_and_what_is_missing(small: Output) -> None:
    """The head tells what it was about, the tail how it ended."""
    lines = [f"{number:09d}".encode() for number in range(100)]
    for line in lines:
        small.feed(1, line + b"\n")
    assert texts_of(small.take_all()) == [f"1 {line.decode()}" for line in lines[:10]]
    small.end()
    remark, *tail = texts_of(small.take_all())
    assert remark == f"0 … {small.omitted} bytes omitted …"
    assert tail == [f"1 {line.decode()}" for line in lines[-10:]]
    assert small.omitted == 800


def test_output_that_just_fits_is_whole_and_in_order(small: Output) -> None:
    """No remark where nothing is missing."""
    for number in range(20):
        small.feed(1 + number % 2, f"{number:09d}\n".encode())
    small.end()
    assert texts_of(small.take_all()) == [f"{1 + number % 2} {number:09d}" for number in range(20)]
    assert small.omitted == 0


def test_what_a_run_holds_is_bounded_whatever_it_writes() -> None:
    """While the link is cut a job may write gigabytes, in pieces of any size."""
    for piece in (b"\n", b"x" * 65536, b"y\n" * 30000, b"half a line without end"):
        output = Output("7", MEBIBYTE)
        for number in range(4 * MEBIBYTE // len(piece) // 2 if len(piece) > 1 else 100_000):
            output.feed(1 + number % 2, piece)
        held = [*output._waiting, *output._tail]
        assert sum(len(chunk) for _, chunk in held) <= MEBIBYTE + 2 * 65536 + CHUNK_BYTES
        assert len(held) < 20_000


@given(
    st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=60)), max_size=40),
    st.integers(0, 400),
)
def test_what_is_kept_and_what_is_omitted_are_all_there_was(
    pieces: list[tuple[int, bytes]], limit: int
) -> None:
    """The remark must be true: nothing is lost silently and nothing is told twice."""
    output = Output("7", limit)
    for fd, piece in pieces:
        output.feed(fd, piece)
    output.end()
    kept = {1: b"", 2: b""}
    remarks = 0
    for fd, chunk in output._waiting:
        if fd == 0:
            remarks += 1
        else:
            kept[fd] += chunk
    written = sum(len(piece) for _, piece in pieces)
    assert len(kept[1]) + len(kept[2]) + output.omitted == written
    assert len(kept[1]) + len(kept[2]) <= limit
    assert remarks == (output.omitted > 0)
    if not output.omitted:
        for fd in (1, 2):
            assert kept[fd] == b"".join(piece for of, piece in pieces if of == fd)


@given(st.binary(max_size=200))
def test_any_bytes_travel_as_lines_that_can_be_read(data: bytes) -> None:
    """Output is whatever it is; the line around it must stay one line of UTF-8."""
    text = format_output("7", 1, data)
    assert text.endswith("\n")
    lines = [unescape(line.removeprefix("OUT 7 1 ")) for line in text[:-1].split("\n")]
    expected = data.removesuffix(b"\n").decode(errors="backslashreplace").split("\n")
    assert lines == expected


@pytest.mark.parametrize("unit", [b"x", b"\xff", b"\0", "€".encode(), "\u2028".encode(), "😀".encode()])
def test_a_line_too_long_is_cut_between_characters(unit: bytes) -> None:
    """Every piece must fit on the wire however long its escapes are, and none cuts a character."""
    data = unit * (100_000 // len(unit))
    output = Output("7", MEBIBYTE)
    for at in range(0, len(data), 4099):
        output.feed(1, data[at : at + 4099])
    output.end()
    lines = output.take_all().splitlines()
    assert all(len(line.encode()) < MAX_LINE_BYTES for line in lines)
    assert len(lines) < 4 * len(data) / MAX_TEXT_BYTES + 2
    text = "".join(unescape(line.removeprefix("OUT 7 1 ")) for line in lines)
    assert text == data.decode(errors="backslashreplace")


async def test_two_hundred_megabytes_are_read_and_hardly_kept() -> None:
    """The job is never stopped, and the worker's memory does not see it."""
    job = make_job("yes 'a line of output as jobs write them' | head -c 200000000")
    peak_before = _peak_kib()
    assert await carry_out(job) == Ended(0)
    assert job.output.omitted > 198_000_000
    assert _peak_kib() - peak_before < 32 * 1024


def _peak_kib() -> int:
    match = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert match
    return int(match[1])
