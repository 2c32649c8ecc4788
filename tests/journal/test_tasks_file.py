"""tasks.db can be read, edited and replaced without ever being half of anything."""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from cronflowd.base.errors import Refusal
from cronflowd.host import disk
from cronflowd.host.disk import plain_file
from cronflowd.journal import tasks_file
from cronflowd.tasks.options import DEFAULTS, set_options
from cronflowd.tasks.task import MAX_TEXT_BYTES, MAX_WHY_BYTES, Pause, TaskSpec, check_why, make_spec
from tests.lib.simulated_disk import IO_ERROR, NO_SPACE, FaultyDisk

LINE = b'{"schedule": "* * * * *", "command": "echo Hello", "jobName": "task_1"}\n'
LIMIT = tasks_file.MAX_LINE_BYTES


def spec(name: str, command: str = "echo Hello", schedule: str = "* * * * *") -> TaskSpec:
    return make_spec(name, schedule, command, DEFAULTS, "UTC")


def read(tmp_path: Path, content: bytes, **options: int) -> list[tuple[int | None, TaskSpec]]:
    path = tmp_path / "tasks.db"
    path.write_bytes(content)
    return tasks_file.read_tasks(path, "UTC", **options)


def refusal(tmp_path: Path, content: bytes, **options: int) -> str:
    with pytest.raises(Refusal) as refused:
        read(tmp_path, content, **options)
    return str(refused.value)


def test_a_line_is_written_exactly_as_documented() -> None:
    """Others parse this file; its form is a promise to the byte."""
    assert list(tasks_file.format_tasks([(1, spec("task_1"))])) == [LINE]


def test_an_id_stands_there_only_where_the_name_does_not_tell_it() -> None:
    """The common case stays short."""
    [line] = tasks_file.format_tasks([(7, spec("backup"))])
    assert line == LINE.replace(b'"task_1"}', b'"backup", "id": 7}')


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    """SAVE and LOAD are inverses."""
    tasks = [(1, spec("task_1")), (5, spec("b", 'printf "%s\\n" é\t"x"', "@daily"))]
    size, crc = disk.write_atomically(tmp_path / "tasks.db", tasks_file.format_tasks(tasks))
    assert tasks_file.read_tasks(tmp_path / "tasks.db", "UTC") == tasks
    assert tasks_file.fingerprint(tmp_path / "tasks.db") == (size, crc)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_text_stays_one_line_and_comes_back(text: str) -> None:
    """Line separators inside a value must not cut the line for any editor."""
    line = tasks_file.format_line({"command": text}).decode()
    assert line.splitlines() == [line[:-1]]
    assert not any(char in line[:-1] for char in "\x7f\x85\u2028\u2029")
    assert json.loads(line) == {"command": text}


@pytest.mark.parametrize(
    "content",
    [
        b'{"jobName":"task_1","command":"echo Hello","schedule":"* * * * *"}',
        b'\n \n{ "schedule" : "* * * * *" , "command": "echo Hello", "jobName" : "task_1" , "id": 1 } \r\n\n',
        b"\xef\xbb\xbf" + LINE,
    ],
)
def test_any_spacing_and_order_is_read(tmp_path: Path, content: bytes) -> None:
    """Hands write differently from programs; an editor may add a byte order mark."""
    assert read(tmp_path, content) == [(1, spec("task_1"))]


def test_a_task_without_a_name_has_none_yet(tmp_path: Path) -> None:
    """The engine gives it one."""
    assert read(tmp_path, b'{"schedule": "* * * * *", "command": "x"}\n') == [(None, spec("", "x"))]


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (b"nonsense\n", "not valid JSON"),
        (b"[]\n", "not a JSON object"),
        (b'{"schedule": "* * * * *", "jobName": "b"}\n', '"command" is missing'),
        (b'{"schedule": "61 * * * *", "command": "x"}\n', "61"),
        (b'{"schedule": "* * * * *", "command": "x", "colour": "red"}\n', "colour"),
        (b'{"schedule": "* * * * *", "command": "x", "name": "b"}\n', "jobName"),
        (b'{"schedule": "* * * * *", "command": "x", "command": "y"}\n', '"command" is given twice'),
        (b'{"schedule": "* * * * *", "command" : "x", "command" : "y"}\n', '"command" is given twice'),
        (LINE, '"task_1" stands in line 1 already'),
        (b'{"schedule": "* * * * *", "command": "x", "id": 1}\n', "id 1 stands in line 1"),
        (b'{"schedule": "* * * * *", "command": "x", "jobName": "b", "id": 1}', "id 1 stands in line 1"),
        (
            b'{"schedule": "* * * * *", "command": "x", "jobName": "task_9", "id": 2}\n',
            "belongs to id 9 alone",
        ),
        (b'{"schedule": "* * * * *", "command": "\xff"}\n', "not valid JSON"),
        (LINE.rstrip().ljust(LIMIT + 1) + b"\n", f"longer than {LIMIT} bytes"),
        (b'{"schedule": "* * * * *", "command": "x"', "not valid JSON"),
    ],
)
def test_a_bad_line_is_answered_with_its_number_and_reason(
    tmp_path: Path, second: bytes, reason: str
) -> None:
    """All or nothing; whoever edited the file must find the place."""
    message = refusal(tmp_path, LINE + second)
    assert message.startswith("bad-line tasks.db line 2: ")
    assert reason in message


def test_a_line_of_the_longest_allowed_length_is_read_as_such(tmp_path: Path) -> None:
    """The limit counts neither LF nor CRLF."""
    for end in (b"\n", b"\r\n", b""):
        [(_, found)] = read(tmp_path, LINE.rstrip().ljust(LIMIT) + end)
        assert found == spec("task_1")
    assert "longer" in refusal(tmp_path, LINE.rstrip().ljust(LIMIT + 1) + b"\r\n")


def test_the_longest_task_with_the_longest_reason_of_a_pause_is_read_back(tmp_path: Path) -> None:
    """SAVE must write no line that LOAD refuses, whatever has to be escaped in it."""
    longest = make_spec(
        "a" * 64, "* * * * *", "x", set_options(DEFAULTS, {"desc": '"' * (MAX_TEXT_BYTES - 1)}), "UTC"
    )
    paused = evolve(longest, pause=Pause(why=check_why("\x7f" * MAX_WHY_BYTES)))
    [(_, found)] = read(tmp_path, b"".join(tasks_file.format_tasks([(10**15, paused)])))
    assert (found, found.pause) == (paused, paused.pause)
    with pytest.raises(Refusal, match=f"more than {MAX_WHY_BYTES} bytes"):
        check_why("x" * (MAX_WHY_BYTES + 1))


def test_too_many_tasks_are_refused(tmp_path: Path) -> None:
    """No file may make the daemon's memory grow without bound."""
    content = b"".join(b'{"schedule": "* * * * *", "command": "x"}\n' for _ in range(3))
    assert len(read(tmp_path, content, max_tasks=3)) == 3
    assert refusal(tmp_path, content, max_tasks=2) == "limit tasks.db line 3: more than 2 tasks"


def test_what_is_no_readable_file_is_refused_at_once(tmp_path: Path) -> None:
    """A pipe would make the daemon wait for a writer that never comes."""
    for name, make in {"none.db": None, "dir.db": Path.mkdir, "pipe.db": os.mkfifo}.items():
        if make:
            make(tmp_path / name)
        with pytest.raises(Refusal, match="not-found" if make is None else "bad-option"):
            tasks_file.read_tasks(tmp_path / name, "UTC")


@pytest.mark.parametrize("name", ["tasks.db", "a.db", "2026-11-21_old.db", "a.b.db"])
def test_plain_names_are_files_in_the_data_directory(name: str) -> None:
    """The usual ones."""
    assert plain_file(Path("/data"), name, ".db") == Path("/data") / name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".db",
        ".a.db",
        "../a.db",
        "a/b.db",
        "/etc/x.db",
        "a.txt",
        "adb",
        "a.db\n",
        "a\0.db",
        "x" * 99 + ".db",
    ],
)
def test_other_names_are_refused(name: str) -> None:
    """A client of the control port must not reach any other file."""
    with pytest.raises(Refusal, match="bad-option"):
        plain_file(Path("/data"), name, ".db")


def test_fingerprint_is_size_and_crc(tmp_path: Path) -> None:
    """The journal's TasksSaved holds the same two numbers."""
    assert tasks_file.fingerprint(tmp_path / "tasks.db") is None
    (tmp_path / "tasks.db").write_bytes(LINE)
    assert tasks_file.fingerprint(tmp_path / "tasks.db") == (len(LINE), zlib.crc32(LINE))


def test_a_fingerprint_is_taken_of_files_only(tmp_path: Path) -> None:
    """LOAD takes it before anything else, so it must not be what waits for a pipe's writer."""
    for name, make in {"dir.db": Path.mkdir, "pipe.db": os.mkfifo}.items():
        make(tmp_path / name)
        with pytest.raises(Refusal, match="bad-option"):
            tasks_file.fingerprint(tmp_path / name)


def test_hand_edits_are_kept_aside_and_never_overwritten(tmp_path: Path) -> None:
    """Somebody's work of an evening may be in there."""
    path = tmp_path / "tasks.db"
    kept = []
    for content in (b"one", b"one", b"two", b"one", b"three"):
        path.write_bytes(content)
        kept.append(tasks_file.keep_edited(path).name)
    assert kept == ["tasks.db.edited"] * 2 + ["tasks.db.edited.2", "tasks.db.edited", "tasks.db.edited.3"]
    assert (tmp_path / "tasks.db.edited").read_bytes() == b"one"
    assert path.read_bytes() == b"three"


def test_preparing_shows_nothing_and_publishing_shows_all(tmp_path: Path) -> None:
    """Between the two the journal learns size and CRC; a crash there leaves the old file."""
    path = tmp_path / "tasks.db"
    path.write_bytes(b"old")
    prepared = tasks_file.prepare_tasks(path, [(1, spec("task_1"))])
    assert (prepared.size, prepared.crc) == (len(LINE), zlib.crc32(LINE))
    assert path.read_bytes() == b"old"
    prepared.publish()
    assert path.read_bytes() == LINE
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_discarding_leaves_nothing(tmp_path: Path) -> None:
    """The journal refused the order, so the file must not come."""
    tasks_file.prepare_tasks(tmp_path / "tasks.db", [(1, spec("task_1"))]).discard()
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_take_its_place_leaves_nothing(tmp_path: Path) -> None:
    """Each SAVE that failed would leave a copy of all tasks behind, and answer with a bug."""
    (tmp_path / "dir.db").mkdir()
    with pytest.raises(Refusal, match="bad-option"):
        tasks_file.prepare_tasks(tmp_path / "dir.db", [])
    faulty = FaultyDisk()
    faulty.faults["rename", 1] = NO_SPACE
    with pytest.raises(Refusal, match="disk-full"):
        disk.write_atomically(tmp_path / "x", [b"new"], faulty)
    assert [each.name for each in tmp_path.iterdir()] == ["dir.db"]


def test_names_and_content_are_on_the_disk_in_the_right_order(tmp_path: Path) -> None:
    """Rename before sync gave files of 0 bytes; a directory without sync lost the rename."""
    order: list[str] = []

    class Watching(FaultyDisk):
        def _count(self, kind: str) -> int:
            order.append(kind)
            return super()._count(kind)

    disk.write_atomically(tmp_path / "x", [b"content"], Watching())
    assert [kind for kind in order if kind != "open"] == ["pwrite", "fsync", "rename", "fsync"]


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path: Path, call: str) -> None:
    """ERR disk-full, and nothing half-written."""
    path, faulty = tmp_path / "tasks.db", FaultyDisk()
    path.write_bytes(b"old")
    faulty.faults[call, 1] = NO_SPACE
    with pytest.raises(Refusal, match="disk-full"):
        disk.write_atomically(path, [b"new"], faulty)
    faulty.faults[call, 2] = IO_ERROR
    with pytest.raises(OSError, match="Input/output"):
        disk.write_atomically(path, [b"new"], faulty)
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("tasks.db", b"old")]


@pytest.mark.parametrize("call", ["open", "pwrite", "fsync", "rename", "directory"])
def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path, call: str) -> None:
    """Of the one that it is written to first nobody has heard, and it is gone by then."""

    class Failing(FaultyDisk):
        def open(self, path: Path, flags: int) -> int:
            if call == "open":
                raise OSError(errno.EIO, "Input/output error", str(path))
            return super().open(path, flags)

        def rename(self, old: Path, new: Path) -> None:
            if call == "rename":
                raise OSError(errno.EIO, "Input/output error", str(old), None, str(new))
            super().rename(old, new)

    path, faulty = tmp_path / "tasks.db", Failing()
    faulty.faults[{"directory": "fsync"}.get(call, call), 2 if call == "directory" else 1] = IO_ERROR
    with pytest.raises(OSError, match="Input/output error") as failed:
        disk.write_atomically(path, [b"new"], faulty)
    assert (failed.value.filename, failed.value.filename2) == (str(path), None)
    assert failed.value.strerror == "Input/output error"


def test_what_cannot_be_read_is_not_called_unwritable(tmp_path: Path) -> None:
    """A copy fails as its source is another user's: whoever looks at the copy's directory finds no fault."""

    def chunks() -> Iterator[bytes]:
        yield b"begun"
        raise PermissionError(errno.EACCES, "Permission denied", "/the/source")

    with pytest.raises(PermissionError, match="/the/source"):
        disk.write_atomically(tmp_path / "copy", chunks())
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_process_are_cleared_away(tmp_path: Path) -> None:
    """Otherwise a crash loop fills the disk."""
    made = disk.prepare(tmp_path / "x", [b"content"]).made
    assert made.exists()
    disk.remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_many_lines_take_microseconds_each(tmp_path: Path) -> None:
    """A million tasks must load in seconds; a slip to something quadratic would show here."""
    tasks = [(number, spec(f"task_{number}")) for number in range(1, 20_001)]
    prepared = tasks_file.prepare_tasks(tmp_path / "tasks.db", tasks)
    prepared.publish()
    assert tasks_file.read_tasks(tmp_path / "tasks.db", "UTC") == tasks
