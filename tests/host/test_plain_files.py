"""Files that are opened by a name in whose place somebody may have put anything."""

from __future__ import annotations

import os
import socket
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread
from unittest.mock import Mock, patch

import pytest

from cronflowd.base.errors import Exit, Fatal, Refusal
from cronflowd.host import disk as d
from cronflowd.host import secrets, tls, vault
from cronflowd.host.clock import Clock
from cronflowd.host.config import Settings, load, reload
from cronflowd.journal import apart, history, tasks_file
from cronflowd.journal.backup import restore
from cronflowd.journal.index import Index
from cronflowd.journal.journal import FileJournal
from cronflowd.journal.shared_journal import read_mark
from cronflowd.worker.spool import Spool


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))  # such names are short


BROKEN = "Input/output error"
KINDS: dict[str, Callable[[Path], object]] = {
    "a named pipe, not a file": os.mkfifo,
    "a directory, not a file": Path.mkdir,
    "a device, not a file": lambda path: path.symlink_to("/dev/zero"),
    "a socket, not a file": _socket,
    "a link that leads nowhere": lambda path: path.symlink_to("nowhere"),
    "Too many levels of symbolic links": lambda path: path.symlink_to(path.name),
    BROKEN: lambda path: path.symlink_to("/proc/self/mem"),  # can be opened, and at its beginning not be read
}


def _replay(path: Path) -> None:
    list(FileJournal(path.parent.parent).replay())


def _of_index(path: Path) -> None:
    list(Index().lines(path, [1], 1, 9, grows=False))


def _of_spool(path: Path) -> None:
    Spool(path.parent).load()


def _context(path: Path) -> None:
    tls.client_context(path, None, None)


# What is opened, and by whom. Tokens, passwords and keys have a table of their own.
OPENED: dict[str, Callable[[Path], object]] = {
    "journal/00000000000000000001.jsonl": _replay,
    "journal/checkpoint-00000000000000000001.jsonl": _replay,
    "journal/history-00000000000000000001-00000000000000000002.jsonl": _of_index,
    "journal/00000000000000000002.jsonl": lambda path: list(history.lines_backwards(path)),
    "journal/output/7": lambda path: apart.piece(path.parents[1], 7, 0),
    "lock": lambda path: d.lock_directory(path.parent),
    "tasks.db": tasks_file.fingerprint,
    "cluster": lambda path: read_mark(path.parent),
    "cronflowd.toml": lambda path: load(Settings, {"config": (str(path),)}),
    "order.pub": vault.read_verifier,
    "cert.pem": _context,
    "saved.tar": lambda path: restore(path, path.parent / "data"),
    "reports": _of_spool,
}
MAY_BE_MISSING = {
    "journal/history-00000000000000000001-00000000000000000002.jsonl",
    "journal/output/7",
    "lock",
    "tasks.db",
    "cluster",
    "reports",
}


NOT_READ = {
    "lock",
    # Who looks for records in one names it; and that is read from its end, which this file has not.
    "journal/history-00000000000000000001-00000000000000000002.jsonl",
    "journal/00000000000000000002.jsonl",
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", OPENED)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_one_error_that_says_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    """A named pipe would be waited for without end, and a device read without one."""
    if kind == "a link that leads nowhere" and name in MAY_BE_MISSING:
        return
    if kind == BROKEN and name in NOT_READ:
        return
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(path.parent)
    KINDS[kind](path)
    with pytest.raises((OSError, Fatal, Refusal)) as caught:
        OPENED[name](path)
    assert str(path) in str(caught.value)
    assert kind in str(caught.value)
    if kind == BROKEN and isinstance(caught.value, Fatal):
        assert caught.value.status == Exit.IO


@pytest.mark.parametrize(("mode", "is_told"), [(0o755, False), (0o775, True), (0o777, True)])
def test_a_directory_that_others_can_change_is_told_of(
    mode: int, is_told: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever can put another journal, or another socket, in the place of ours gives orders here."""
    tmp_path.chmod(mode)
    d.lock_directory(tmp_path).close()
    assert (f"others can change what is in it (mode {mode:04o})" in caplog.text) == is_told


def test_a_broken_disk_is_not_told_as_what_is_not_allowed(tmp_path: Path) -> None:
    """`ERR denied` of a LOAD sent people to look for permissions."""
    (tmp_path / "tasks.db").touch()
    with patch("os.open", side_effect=OSError(5, BROKEN)), pytest.raises(Refusal, match=BROKEN) as caught:
        d.open_regular(tmp_path / "tasks.db")
    assert caught.value.code == "internal"


def test_what_is_meant_to_be_empty_is_read_under_any_name(tmp_path: Path) -> None:
    """A container, or systemd, puts /dev/null in the place of a file that shall say nothing."""
    path = tmp_path / "cronflowd.toml"
    path.symlink_to("/dev/null")
    assert d.read_small(path) == b""


def test_no_more_memory_is_taken_than_the_file_is_long(tmp_path: Path) -> None:
    """A worker's spool may be a gigabyte long: a small machine could not start one with an empty one."""
    path = tmp_path / "reports"
    path.write_bytes(b"x" * 100_000)
    tracemalloc.start()
    try:
        assert len(d.read_small(path, 1 << 30)) == 100_000
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


def test_a_file_that_may_not_be_looked_at_is_still_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not to be told where a file is does not mean that it has been moved."""
    path = tmp_path / "a"
    with path.open("wb") as file:
        assert d.is_at(file.fileno(), path)
        path.rename(tmp_path / "b")
        assert not d.is_at(file.fileno(), path)
        monkeypatch.setattr(Path, "stat", Mock(side_effect=PermissionError))
        assert d.is_at(file.fileno(), path)


@pytest.mark.parametrize(
    ("name", "opened"),
    [("order.pub", vault.read_verifier), ("reports", _of_spool), ("saved.tar", OPENED["saved.tar"])],
)
def test_what_is_enormous_is_not_read(tmp_path: Path, name: str, opened: Callable[[Path], object]) -> None:
    """A file with a hole takes no room on the disk, and would take all there is of memory."""
    with (tmp_path / name).open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises((OSError, Fatal), match=f"{tmp_path}/{name}"):
        opened(tmp_path / name)


def test_an_enormous_segment_is_damage_that_is_told_and_can_be_set_aside(tmp_path: Path) -> None:
    """To look through it for records would take hours, and as much memory as it is long."""
    _replay(tmp_path / "journal" / "x")
    (path,) = (tmp_path / "journal").glob("*.jsonl")
    os.truncate(path, 1 << 40)
    with pytest.raises(Fatal, match="more follows than a crash leaves") as caught:
        _replay(path)
    assert caught.value.status == Exit.CORRUPT


def test_an_enormous_hand_edit_is_neither_read_nor_copied(tmp_path: Path) -> None:
    """A start reads tasks.db to know whether it was edited, and SAVE keeps what somebody edited."""
    path = tmp_path / "tasks.db"
    path.touch()
    os.truncate(path, 1 << 42)
    assert tasks_file.fingerprint(path, [(7, 7)]) == (1 << 42, -1)
    with pytest.raises(Refusal, match="edited by hand, and no room to keep its 4398046511104 bytes"):
        tasks_file.keep_edited(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def piped() -> Iterator[Callable[[bytes], Path]]:
    """What a shell makes of `<(…)`: a name like /dev/fd/63."""
    opened: list[int] = []

    def make(content: bytes) -> Path:
        reads, writes = os.pipe()
        opened.append(reads)
        os.set_inheritable(reads, True)
        Thread(target=lambda: write_and_close(writes, content)).start()
        return Path(f"/dev/fd/{reads}")

    def write_and_close(writes: int, content: bytes) -> None:
        with suppress(BrokenPipeError), os.fdopen(writes, "wb") as file:
            file.write(content)

    yield make
    for each in opened:
        os.close(each)


Piped = Callable[[bytes], Path]


def test_what_comes_through_a_pipe_is_there_again(piped: Piped) -> None:
    """HUP reads the settings once more: all of them were then as if nobody had given any."""
    path = piped(b"tz = 'Europe/Paris'\n")
    settings = load(Settings, {"config": (str(path),)})
    assert (settings.tz, reload(settings).tz) == ("Europe/Paris", "Europe/Paris")


def test_a_secret_may_come_through_a_pipe(piped: Piped) -> None:
    """`--token-file <(pass show cronflowd)` was refused as no file; no job of a worker can read it there."""
    path = piped(b"old\nnew\n")
    for _ in range(2):
        assert secrets.read_tokens(path) == (b"old", b"new")
    assert not os.get_inheritable(int(path.name))
    assert secrets.read_password(piped(b"open sesame\n")) == "open sesame"


def test_certificates_may_come_through_a_pipe(piped: Piped, tmp_path: Path) -> None:
    """OpenSSL opens them by their name, when we have looked already whether that can be read."""
    authority, *_ = tls.make_certificates(tmp_path, ["localhost"], Clock().now())
    assert tls.client_context(piped(authority.read_bytes()), None, None).get_ca_certs()


def test_a_pipe_without_an_end_is_no_file(piped: Piped) -> None:
    """What it gives is kept in memory."""
    with pytest.raises(Fatal, match=r"/dev/fd/\d+: cannot read the token: longer than 16777216 bytes"):
        secrets.read_tokens(piped(bytes(d.SMALL_BYTES + 1)))


def test_what_nobody_has_opened_is_named() -> None:
    """As in a process that the shell did not start."""
    with pytest.raises(Fatal, match="/dev/fd/999: cannot read the token: Bad file descriptor"):
        secrets.read_tokens(Path("/dev/fd/999"))
    with pytest.raises(Fatal, match="/dev/fd/999: Bad file descriptor"):
        load(Settings, {"config": ("/dev/fd/999",)})
    assert 999 not in d.OPENED_FOR_US  # who begins anew hands those on, and would have failed at it
