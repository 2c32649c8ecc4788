"""Executors without a daemon: a job in, its ending and its output out."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import re
import signal
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from cronflowd.base.errors import Refusal
from cronflowd.base.text import split_options
from cronflowd.host.config import WorkerSettings
from cronflowd.tasks.environment import make_environment
from cronflowd.worker.executors import make_table, processes
from cronflowd.worker.executors.job import Ended, Job, Order, find_account, format_done, parse_order
from cronflowd.worker.executors.output import Output
from cronflowd.worker.executors.shell import job_environ, worker_environ
from tests.lib.descriptors import open_descriptors
from tests.lib.job_processes import ending_of, is_alive, wait_for
from tests.lib.out_lines import bytes_of, take_all, texts_of
from tests.lib.waiting import PATIENCE_S, until

MEBIBYTE = 1024 * 1024
TABLE = make_table(WorkerSettings())


def make_job(command: str, kind: str = "shell", **options: str) -> Job:
    order = Order("7 1", {"type": kind, **options}, command)
    return Job(order, Output("7", MEBIBYTE), grace_s=5.0)


async def carry_out(job: Job) -> Ended:
    with trio.fail_after(PATIENCE_S):
        ended = await ending_of(TABLE[job.order.type], job)
    job.output.end()
    return ended


def said(job: Job) -> list[str]:
    """The output that waits to be sent, as `fd text`."""
    return texts_of(take_all(job.output))


async def wait_until_said(job: Job, text: str) -> None:
    """Waits until the job has written the line; it must not have been taken yet."""
    with trio.fail_after(PATIENCE_S):
        while text not in (found := said(job)):
            assert not found, found
            await trio.sleep(0.001)


TIMEOUTS = ("0.2", "2", "20")  # the next where a job was not ready to be ended by the one before


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
    assert ended == await carry_out(make_job(command, "calculate"))


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
    sleep = TABLE["sleep"]
    assert await ending_of(sleep, make_job("3600", "sleep")) == Ended(0)
    shorter = make_job("3600", "sleep", timeout="5")
    assert await ending_of(sleep, shorter) == Ended(143, signal=15, timed_out=True)
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
    assert said(job) == ["1 <a b><c;d><$HOME><*>\\"]


def test_a_job_finds_its_name_its_arguments_and_its_own_variables() -> None:
    """CRONFLOW_FIRE_ID is the idempotency key; it must not depend on the attempt."""
    options = {"task": "17", "name": "nightly", "due": "2026-11-21T10:05:00Z", "fire": "17/x"}
    environ = job_environ(
        Order("7 2", {**options, "env.A": "a b", "arg.day": "mon"}, ""), {"PATH": "/bin", "A": "c"}
    )
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
    assert environ == {"PATH": "/bin"} | expected


CRONS = {"HOME": "/root", "LOGNAME": "root", "USER": "root", "SHELL": "/bin/sh"}


@pytest.mark.parametrize(
    ("inherited", "passed", "found"),
    [
        ({}, (), {"PATH": "/usr/bin:/bin"}),
        (
            {"PATH": "/opt/bin", "TZ": "UTC", "LC_ALL": "C"},
            (),
            {"PATH": "/opt/bin", "TZ": "UTC", "LC_ALL": "C"},
        ),
        ({"HOME": "/x", "LOGNAME": "x", "USER": "x", "SHELL": "/bin/zsh"}, (), {"PATH": "/usr/bin:/bin"}),
        ({"NOTIFY_SOCKET": "x", "LISTEN_FDS": "1", "WATCHDOG_USEC": "1"}, (), {"PATH": "/usr/bin:/bin"}),
        ({"CREDENTIALS_DIRECTORY": "x", "INVOCATION_ID": "x"}, (), {"PATH": "/usr/bin:/bin"}),
        ({"CRONFLOWD_TOKEN_FILE": "x", "PYTHONPATH": "x", "MY_TOKEN": "x"}, (), {"PATH": "/usr/bin:/bin"}),
        ({"A": "1", "B_C": "2", "B": "3"}, ("A", "B_*"), {"PATH": "/usr/bin:/bin", "A": "1", "B_C": "2"}),
    ],
)
def test_the_environment_is_cron_s_and_what_is_passed_by_rule(
    inherited: dict[str, str], passed: tuple[str, ...], found: dict[str, str]
) -> None:
    """A job that took the worker's sockets or its watchdog for its own could speak in its name."""
    assert make_environment(inherited, passed, "root", "/root") == CRONS | found


def test_a_user_without_a_name_has_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers run as such."""
    monkeypatch.setattr("os.getuid", lambda: 4_000_000)
    monkeypatch.delenv("LOGNAME", raising=False)
    monkeypatch.setenv("HOME", "/data")
    environ = worker_environ()
    assert (environ["LOGNAME"], environ["USER"], environ["HOME"]) == ("4000000", "4000000", "/data")


async def test_what_is_told_to_be_its_input_is_read_by_the_job() -> None:
    """`echo hi | cronflowd run -- cat`, of any bytes; one that does not read it ends all the same."""
    data = bytes(range(256)) * 100
    job = make_job("cat", stdin=b64encode(data).decode())
    assert await carry_out(job) == Ended(0)
    assert bytes_of(take_all(job.output)) == {1: data}
    job = make_job("head -c 2", "script", stdin=b64encode(data).decode())
    assert await carry_out(job) == Ended(0)
    assert await carry_out(make_job("true", stdin="aGk=")) == Ended(0)


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


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (
            "kill -KILL $$",
            "killed by signal 9 (KILL); while it ran, the kernel killed a process here for want of memory",
        ),
        ("exit 137", "exit 137; while it ran, the kernel killed a process here for want of memory"),
        ("kill -TERM $$", ""),
        ("exit 1", ""),
    ],
)
async def test_what_the_kernel_killed_for_want_of_memory_is_told_apart(
    end: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks like any KILL, and nobody would look for memory."""
    with counting_kills(tmp_path, monkeypatch) as kill:
        assert (await carry_out(make_job(f"{kill}; {end}"))).why == why
        assert (await carry_out(make_job("kill -KILL $$"))).why == ""


@contextlib.contextmanager
def counting_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A file as the kernel's, and the command that counts one more there."""
    events = tmp_path / "memory.events"
    events.write_text("max 3\noom 0\noom_kill 1\n")
    counts = os.open(events, os.O_RDONLY)
    monkeypatch.setattr(processes, "_memory_events", lambda: counts)
    monkeypatch.setattr(processes, "_SEEN", processes._OomKills())
    monkeypatch.setattr(processes, "OOM_AGE_S", -1)
    yield f"sed s/1/2/ {events} | dd of={events} conv=notrunc"
    os.close(counts)


async def test_want_of_memory_is_told_of_no_more_jobs_than_the_kernel_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever was killed by hand in the hours after it was said to have had no memory."""
    with counting_kills(tmp_path, monkeypatch) as kill:
        other = make_job("echo begun; exec sleep 60")
        ends: list[Ended] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_note_end, other, ends)
            await wait_until_said(other, "1 begun")
            assert "want of memory" in (await carry_out(make_job(f"{kill}; kill -KILL $$"))).why
            (pid,) = (child.pid for child in processes._own.values() if child.job is other)
            os.kill(pid, signal.SIGKILL)
        assert ends == [Ended(137, signal=9)]


async def _note_end(job: Job, ends: list[Ended]) -> None:
    ends.append(await carry_out(job))


async def test_an_interpreter_that_is_missing_is_named(tmp_path: Path) -> None:
    """The script is there, so it would be looked for in vain."""
    script = tmp_path / "script"
    script.write_text("#!/no/such/python\n")
    script.chmod(0o755)
    ended = await carry_out(make_job(str(script), "script"))
    assert ended == Ended(
        127,
        why=f"cannot start: the interpreter that the first line of {script} names: No such file or directory",
    )


async def test_a_process_left_behind_does_not_hold_the_job() -> None:
    """`sleep 60 &` keeps the pipe open; the job has ended all the same, and its output is whole."""
    job = make_job("echo first; sleep 1000 & echo $!; exit 4")
    assert await carry_out(job) == Ended(4)
    first, left, remark = said(job)
    assert (first, is_alive(int(left[2:]))) == ("1 first", True)
    assert remark.startswith(f"0 it left sleep (pid {left[2:]}) behind, and its output open: ")
    os.kill(int(left[2:]), signal.SIGKILL)


async def test_a_timeout_ends_the_job_with_its_children() -> None:
    """A child that goes on would keep the lock its parent was killed for."""
    children: list[str] = []
    for timeout in TIMEOUTS:
        job = make_job("sleep 1000 & echo $!; wait", timeout=timeout)
        assert await carry_out(job) == Ended(143, signal=15, timed_out=True)
        if children := said(job):
            break
    (child,) = children
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
    for timeout in TIMEOUTS:
        job = make_job("trap '' TERM; echo ready; while :; do sleep 0.01; done", timeout=timeout)
        job.grace_s = 0.3
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_kill_late, job)
            ended = await carry_out(job)
        if said(job):
            break
    assert ended == Ended(137, signal=9, timed_out=True)


async def _kill_late(job: Job) -> None:
    await until(lambda: job.life.cancel_called)
    job.kill()


async def test_no_descriptor_and_no_process_is_left_over() -> None:
    """A worker lives for months."""
    await carry_out(make_job("true"))
    before = open_descriptors()
    for _ in range(3):
        await carry_out(make_job("true"))
        await carry_out(make_job("true", cwd="/no/such"))
        await carry_out(make_job("sleep 60", timeout="0.01"))
    await until(lambda: open_descriptors() <= before)
    assert not processes._own


def test_a_job_passes_over_no_signal_because_its_worker_was_started_so() -> None:
    """A shell cannot even set a trap for what it was started passing over."""
    program = """if True:
        import signal
        signal.signal(signal.SIGQUIT, signal.SIG_IGN)
        import trio
        from cronflowd.worker.executors import processes
        from tests.worker.test_executors import carry_out, make_job
        processes.own_signals()
        signal.raise_signal(signal.SIGQUIT)
        for options in {}, {"cwd": "/"}:
            print(trio.run(carry_out, make_job("ulimit -c 0; kill -QUIT $$", **options)).signal)
    """
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == "3\n3\n"


def test_a_job_gets_no_descriptor_that_the_worker_was_started_with() -> None:
    """Such as a lock of who started it, which would be held as long as what the job leaves behind lives."""
    program = """if True:
        import os
        os.close(0)
        import trio
        from cronflowd.worker.executors import processes
        from tests.worker.test_executors import carry_out, make_job, said
        processes.own_descriptors()
        job = make_job("ls /proc/self/fd")
        trio.run(carry_out, job)
        print(*said(job), sep=",")
    """
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    done = subprocess.run(
        [sys.executable, "-c", program], pass_fds=(writer,), stdout=subprocess.PIPE, text=True, check=True
    )
    os.close(reader)
    os.close(writer)
    # The last is that of the listing.
    assert done.stdout == "1 0,1 1,1 2,1 3\n"


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


@pytest.mark.parametrize("home", ["", "not-there", "/not/there"])
def test_a_user_without_a_home_starts_at_the_root(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty field of passwd is no directory, though it would be taken for the one we are in."""
    nobody = pwd.getpwnam("nobody")
    monkeypatch.setattr("pwd.getpwnam", lambda _: pwd.struct_passwd([*nobody[:5], home, nobody[6]]))
    assert find_account("nobody").home == "/"


@pytest.mark.parametrize("kind", ["shell", "script"])
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_who_runs_as_another_does_so_wherever_he_starts(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is begun in the cheap way stays root's."""
    nobody = pwd.getpwnam("nobody")
    monkeypatch.setattr(Order, "cwd", "")
    job = make_job("/usr/bin/id -u", kind, user="nobody")
    assert await carry_out(job) == Ended(0)
    assert said(job) == [f"1 {nobody.pw_uid}"]


async def test_what_may_not_be_killed_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that has become sudo is root's: it is waited for, and this worker's others go on meanwhile."""
    signals, gate = list[int](), tmp_path / "gate"

    def refuse(_: int, number: int) -> None:
        signals.append(number)
        raise PermissionError(errno.EPERM, "Operation not permitted")

    async def let_it_end() -> None:
        await until(lambda: signal.SIGKILL in signals)
        gate.touch()

    monkeypatch.setattr("os.kill", refuse)
    job = make_job(f"exec timeout {PATIENCE_S} sh -c '{wait_for(gate)}'", timeout="0.01")
    job.grace_s = 0.01
    async with trio.open_nursery() as nursery:
        nursery.start_soon(let_it_end)
        assert await carry_out(job) == Ended(0, timed_out=True)
