"""The sample handlers that process data and make backups, at their real work."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cronflowd.worker.executors import handler
from cronflowd.worker.executors.job import Ended
from tests.lib.handler_jobs import carry_out, make_job, put, said
from tests.lib.waiting import until

# --- data_processing ------------------------------------------------------------------------

ORDERS = """\
id,country,state,amount
1,FR,paid,10.10
2,DE,paid,9
3,FR,open,100
4,FR,paid,20.20
5,DE,paid,30
"""


async def test_data_processing_filters_and_sums_by_group(handlers: Path, tmp_path: Path) -> None:
    """10.10 + 20.20 is 30.3 and not 30.299999999999997."""
    (tmp_path / "orders.csv").write_text(ORDERS)
    out = tmp_path / "sums.jsonl"
    data = {
        "input": str(tmp_path / "orders.csv"),
        "output": str(out),
        "filter": {"state": "paid", "amount": {">=": 9.5}},
        "group_by": ["country"],
        "sum": ["amount"],
    }
    job = make_job(handlers, "data_processing", data)
    assert Ended(0) == await carry_out(job)
    assert said(job) == [
        "1 5 rows read, 3 kept, 2 written",
        '1 {"read": 5, "kept": 3, "written": 2}',
    ]
    assert [json.loads(line) for line in out.read_text().splitlines()] == [
        {"country": "FR", "count": 2, "amount": 30.3},
        {"country": "DE", "count": 1, "amount": 30},
    ]


async def test_data_processing_selects_columns_of_jsonl_into_csv(handlers: Path, tmp_path: Path) -> None:
    """A comma and a quote in a value must come back out of the CSV as they went in."""
    rows = [
        {"name": 'Smith, "Jo"', "tags": "a b", "n": 1.5},
        {"name": "Lee", "n": None},
        {"name": "Wu", "n": 2},
    ]
    (tmp_path / "in.jsonl").write_text("\n\n".join(json.dumps(row) for row in rows))
    out = tmp_path / "out.csv"
    out.write_text("old")
    out.chmod(0o640)
    data = {"input": str(tmp_path / "in.jsonl"), "output": str(out), "select": ["n", "name"]}
    data["filter"] = {"name": {"in": ["Lee", 'Smith, "Jo"', "Wu"], "!=": "Wu"}}  # type: ignore[assignment]
    assert Ended(0) == await carry_out(make_job(handlers, "data_processing", data))
    with out.open(newline="") as file:
        assert list(csv.reader(file)) == [["n", "name"], ["1.5", 'Smith, "Jo"'], ["", "Lee"]]
    assert out.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("in.csv", "a,b\n1,2\n3\n", "line 3: 2 columns were expected"),
        ("in.csv", "a,b\n1,x\n", "line 2: b is 'x', which is no number"),
        ("in.jsonl", '{"a": 1, "b": 2}\n{"a": 1', "line 2: "),
        ("in.jsonl", "[1]\n", "line 1: it is no object"),
    ],
)
async def test_data_processing_that_fails_leaves_the_old_output(
    handlers: Path, tmp_path: Path, name: str, text: str, why: str
) -> None:
    """Half a result that looks like a whole one is worse than yesterday's."""
    place = tmp_path / "place"
    place.mkdir()
    (place / name).write_text(text)
    (place / "out.csv").write_text("old")
    data = {"input": str(place / name), "output": str(place / "out.csv"), "group_by": ["a"], "sum": ["b"]}
    ended = await carry_out(make_job(handlers, "data_processing", data))
    assert (ended.exit, why in ended.why) == (1, True), ended.why
    assert sorted(path.name for path in place.iterdir()) == sorted([name, "out.csv"])
    assert (place / "out.csv").read_text() == "old"


# --- backup ---------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory with all kinds of things in it."""
    source = tmp_path / "source"
    (source / "deep" / ("long-" * 30)).mkdir(parents=True)
    (source / "cache").mkdir()
    (source / "cache" / "x").write_text("not this")
    (source / "deep" / "random").write_bytes(os.urandom(3_000_000))
    (source / "deep" / ("long-" * 30) / "naïve ☃").write_text("text")
    (source / "deep" / "draft.tmp").write_text("nor this")
    (source / "empty").touch()
    (source / "script").write_text("#!/bin/sh\n")
    (source / "script").chmod(0o750)
    (source / "link").symlink_to("deep/random")
    (source / "dangling").symlink_to("/dev/null/nowhere")
    os.link(source / "script", source / "second name")
    return source


@pytest.fixture
def into(tmp_path: Path) -> Path:
    """Where archives go, with three old ones and some files that are none of theirs."""
    into = tmp_path / "into"
    into.mkdir()
    for name in (*OLD, *OTHERS):
        (into / name).write_text(name)
    return into


OLD = [f"web-2021010{day}T000000Z.tar.gz" for day in (1, 2, 3)]
OTHERS = ["web-20210101.tar.gz", "web-20210101T000000Z.tar.gz.old", "webb-20210101T000000Z.tar.gz", "notes"]


def backup_data(source: Path, into: Path, **more: Any) -> dict[str, Any]:
    return {"paths": [str(source)], "into": str(into), "name": "web", **more}


def content(top: Path) -> dict[str, object]:
    """What a tree is, without its times: kind, mode, and bytes or target."""
    found: dict[str, object] = {}
    for path in sorted(top.rglob("*")):
        mode = path.lstat().st_mode
        what = os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes()
        found[str(path.relative_to(top))] = (mode, what)
    return found


def archives(into: Path) -> list[str]:
    return sorted(path.name for path in into.glob("web-2*Z.tar.gz"))


async def test_a_restored_backup_equals_its_source(handlers: Path, source: Path, into: Path) -> None:
    """That is all a backup is for; the rotation takes the oldest, and nothing of another name."""
    data = backup_data(source, into, exclude=["*.tmp", "cache"], keep=2)
    job = make_job(handlers, "backup", data)
    assert Ended(0) == await carry_out(job)
    lines = said(job)
    (old, new) = archives(into)
    assert old == OLD[-1]
    assert f"1 removed {OLD[0]}" in lines
    assert "1 progress 100%" in lines
    assert all((into / name).read_text() == name for name in OTHERS)
    assert not list(into.glob(".*.part"))
    assert (into / new).stat().st_mode & 0o077 == 0
    beside = (into / (new + ".sha256")).read_text()
    assert beside == f"{hashlib.sha256((into / new).read_bytes()).hexdigest()}  {new}\n"
    restored = into / "restored"
    restored.mkdir()
    subprocess.run(["tar", "-xzpf", into / new, "-C", restored], check=True)
    shutil.rmtree(source / "cache")
    (source / "deep" / "draft.tmp").unlink()
    assert content(source) == content(restored / str(source).lstrip("/"))


@pytest.mark.parametrize(("keep", "left"), [(0, 4), (1, 1), (3, 3), (4, 4), (5, 4), (9, 4)])
async def test_as_many_backups_stay_as_was_said(
    handlers: Path, source: Path, into: Path, keep: int, left: int
) -> None:
    """Three are there; the one just made is one of those that stay."""
    job = make_job(handlers, "backup", backup_data(source / "script", into, keep=keep))
    assert Ended(0) == await carry_out(job)
    assert len(archives(into)) == left
    assert archives(into)[:-1] == (OLD[-(left - 1) :] if left > 1 else [])


async def test_a_backup_never_removes_itself(handlers: Path, source: Path, into: Path) -> None:
    """A clock that was a century ahead has left archives that look newer."""
    (into / "web-21260101T000000Z.tar.gz").touch()
    job = make_job(handlers, "backup", backup_data(source, into, keep=1))
    assert Ended(0) == await carry_out(job)
    (left,) = archives(into)
    assert not left.startswith("web-2126")
    assert left in said(job)[-1]


@contextmanager
def backing_up(handlers: Path, data: dict[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    """The handler's process as the worker starts it, and no worker."""
    reader, writer = os.pipe()
    argv = [sys.executable, "-P", handler.__file__, "backup", str(writer), str(handlers)]
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(writer,), start_new_session=True
    )
    try:
        assert process.stdin
        process.stdin.write(json.dumps(data).encode())
        process.stdin.close()
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_backup_cut_in_the_middle_leaves_the_old_ones(
    handlers: Path, source: Path, into: Path, number: int
) -> None:
    """With keep=1 a careless one would have nothing left; the next good one clears away the remains."""
    (source / "large").write_bytes(os.urandom(1_000_000) * 60)
    data = backup_data(source, into, keep=1)
    with backing_up(handlers, data) as process:
        await until(lambda: any(part.stat().st_size > 1_000_000 for part in into.glob(".*.part")))
        process.send_signal(number)
        await until(lambda: process.poll() is not None)
    assert archives(into) == OLD
    assert len(list(into.glob(".web-*.part"))) == (number == signal.SIGKILL)
    (source / "large").unlink()
    assert Ended(0) == await carry_out(make_job(handlers, "backup", data))
    assert len(archives(into)) == 1
    assert not set(archives(into)) & set(OLD)
    assert not list(into.glob(".*.part"))


async def test_a_backup_that_fails_removes_nothing(handlers: Path, source: Path, into: Path) -> None:
    """Here: something that cannot be read, a path that does not exist, and no place to put it."""
    (source / "loop").symlink_to("loop")
    for data, why in (
        (backup_data(source / "nowhere", into, keep=1), "FileNotFoundError"),
        (backup_data(source, into / "nowhere", keep=1), "FileNotFoundError"),
        (backup_data(source, into, keep=1, name="../web"), "ValueError"),
        (backup_data(source, into, keep=-1), "ValueError"),
    ):
        ended = await carry_out(make_job(handlers, "backup", data))
        assert (ended.exit, ended.why.partition(":")[0]) == (1, why)
    assert archives(into) == OLD
    assert not list(into.glob(".*.part"))


async def test_a_backup_that_reads_back_differently_is_none(handlers: Path, source: Path, into: Path) -> None:
    """The disk under it lies: what comes back has a byte turned round."""
    text = (handlers / "backup.py").read_text()
    spoil = """
def verify(part, files, context, verify=verify):
    files = dict(files) | {next(iter(files)): (1, "00")}
    return verify(part, files, context)
"""
    put(handlers, "spoilt", text + spoil)
    ended = await carry_out(make_job(handlers, "spoilt", backup_data(source, into, keep=1)))
    assert "ValueError: read back, 1 files differ" in ended.why
    assert archives(into) == OLD
    assert not list(into.glob(".*.part"))


async def test_two_backups_of_one_name_do_not_meet(handlers: Path, source: Path, into: Path) -> None:
    """The second would take the first one's unfinished archive for a remnant."""
    import fcntl

    with (into / ".web.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = await carry_out(make_job(handlers, "backup", backup_data(source, into)))
    assert ended.why.startswith("BlockingIOError")


async def test_a_backup_leaves_out_what_vanishes_and_its_own_place(
    handlers: Path, source: Path, tmp_path: Path
) -> None:
    """A file that comes and goes while it is made is no failure, and an archive never holds itself."""
    into = source / "into"
    into.mkdir()
    text = (handlers / "backup.py").read_text()
    vanish = """
def add(tar, path, files, context, add=add):
    if path.name == "script":
        path.unlink()
    add(tar, path, files, context)
"""
    put(handlers, "vanishing", text + vanish)
    job = make_job(handlers, "vanishing", backup_data(source, into))
    assert Ended(0) == await carry_out(job)
    assert f"1 {source}/script has vanished" in said(job)
    (archive,) = archives(into)
    listed = subprocess.run(["tar", "-tzf", into / archive], check=True, capture_output=True).stdout
    assert b"second name" in listed
    assert b"into" not in listed
