"""A backup holds the state of one moment, and nothing is restored from one that is not whole."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cronflowd.base.errors import Exit, Fatal, Refusal
from cronflowd.engine.access_facts import SecretPut
from cronflowd.host import disk
from cronflowd.host.vault import KEY_NAME
from cronflowd.journal import backup, compaction
from cronflowd.journal.check import check
from cronflowd.journal.files import UNPACKED, journal_dir
from tests.lib.journal_driver import Life, restarted, settle, told

ABOUT: dict[str, str | int] = {"version": "1", "at": "2026-11-21T10:00:00Z", "seq": 7}


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    """Some segments, a checkpoint, history, and what people put beside them."""
    one = Life(tmp_path / "data")
    one.join()
    one.add_task(keep="1000")
    for number in range(30):
        one.run(1, f"line {number}")
        if number == 20:
            compaction.compact(journal_dir(one.data), 10**9)
    (one.data / "days").write_text("2026-12-24\n")
    (one.data / "token").write_text("secret\n")
    for key in ("key", "order.key", "web.key"):
        (one.data / key).write_text("in no backup\n")
    yield one
    one.close()


def make(life: Life, name: str = "b.tar") -> Path:
    settle(life.journal)
    prepared, _ = backup.archive(life.data, life.data / name, life.journal.open_segment, ABOUT)
    prepared.publish()
    return life.data / name


def test_what_is_restored_is_the_state_of_that_moment(life: Life, tmp_path: Path) -> None:
    """History included, and nothing of what came later."""
    upto, state = life.journal.open_segment, told(life.state)
    history = list(compaction.sources(journal_dir(life.data)))
    for number in range(30):  # in files of their own, too, which the daemon begins while the backup is made
        life.run(1, f"later {number}")
    compaction.compact(journal_dir(life.data), 10**9)
    prepared, _ = backup.archive(life.data, life.data / "b.tar", upto, ABOUT)
    prepared.publish()
    assert len(history) > 2
    assert backup.restore(life.data / "b.tar", tmp_path / "new") == Exit.OK
    found, journal = restarted(tmp_path / "new")
    assert (told(found), journal.last) == (state, upto.last)
    assert (tmp_path / "new/days").read_text() == "2026-12-24\n"
    assert (tmp_path / "new/token").stat().st_mode & 0o777 == 0o600


def test_whoever_restores_secrets_is_told_to_bring_their_key(
    life: Life, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No backup holds it, and what needed a secret failed on the day on which there was a fire already."""
    life.say(SecretPut(name="db", sealed="AAAA", set_at=life.now))
    life.commit()
    assert backup.restore(make(life), tmp_path / "new") == Exit.OK
    said = "secrets: 1; the key that opens them is not here"
    assert said in capsys.readouterr().out
    (tmp_path / "new" / KEY_NAME).touch()
    assert check(tmp_path / "new") == Exit.OK
    assert said not in capsys.readouterr().out


def test_nobody_is_signed_in_any_more_after_a_restore(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers of sessions are given again from there on: one that was ended would be somebody's once more."""
    with monkeypatch.context() as older:
        older.setattr(backup, "_NOT_TAKEN", ("lock", "key", "order.key"))
        file = make(life)
    for force in (False, True):
        assert backup.restore(file, tmp_path / "new", force) == Exit.OK
        assert not (tmp_path / "new/web.key").exists()
        for key in ("key", "web.key"):
            (tmp_path / "new" / key).write_text("of this machine\n")
    assert (tmp_path / "new/key").read_text() == "of this machine\n"


def test_the_rest_of_a_batch_that_is_being_written_is_left_out(life: Life, tmp_path: Path) -> None:
    """What is not on disk yet was promised to nobody."""
    upto = life.journal.open_segment
    with upto.path.open("ab") as file:
        file.write(b'{"seq":9')
    prepared, _ = backup.archive(life.data, life.data / "b.tar", upto, ABOUT)
    prepared.publish()
    backup.restore(life.data / "b.tar", tmp_path / "new")
    assert restarted(tmp_path / "new")[1].set_aside == ""
    with upto.path.open("r+b") as file:
        file.truncate(upto.size)


def test_backups_lock_and_sockets_are_not_in_a_backup(life: Life) -> None:
    """Each would hold the one before it, and the disk would be full within a week."""
    (life.data / "lock").touch()
    (life.data / ".x.tmp").touch()
    journal = [f"journal/{path.name}" for path in sorted(journal_dir(life.data).glob("*.jsonl"))]
    for name in ("one.tar", "two.tar"):
        with tarfile.open(make(life, name)) as tar:
            assert tar.getnames() == ["days", "token", *journal, "MANIFEST"]


def test_what_somebody_else_has_put_beside_the_journal_is_not_in_a_backup(life: Life) -> None:
    """A copy that was made by hand is no part of it, and no reason to make no backup."""
    with tarfile.open(make(life, "one.tar")) as tar:
        names = tar.getnames()
    [*_, newest] = sorted(journal_dir(life.data).glob("0*.jsonl"))
    for name in ("old.jsonl", f"copy-of-{newest.name}", f"{newest.stem}.copy.jsonl"):
        (journal_dir(life.data) / name).write_text("x")
    with tarfile.open(make(life, "two.tar")) as tar:
        assert tar.getnames() == names


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20_000])


def _cut_between(file: Path) -> None:
    with tarfile.open(file) as tar:
        last = tar.getmembers()[-2]
    file.write_bytes(file.read_bytes()[: last.offset] + bytes(1024))


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[content.index(b"2026-12-24")] ^= 1
    file.write_bytes(content)


def _flip_journal(file: Path) -> None:
    """Of which the manifest, made from the damaged file, knows nothing."""
    content = file.read_bytes().replace(b"line 25", b"line 52")
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    del files["MANIFEST"]
    _write(file, files)


def _add(name: str) -> Callable[[Path], None]:
    return lambda file: _write(file, {name: b"x"})


def _write(file: Path, files: dict[str, bytes]) -> None:
    source = file.with_name("source")
    source.mkdir()
    members = []
    for number, (name, content) in enumerate(files.items()):
        (path := source / str(number)).write_bytes(content)
        members.append(backup._Member(name, path))
    file.write_bytes(b"".join(backup._pack(members, ABOUT)))


def _link(file: Path) -> None:
    with tarfile.open(file, "w") as tar:
        info = tarfile.TarInfo("tasks.db")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        pytest.param(_cut, "cut short|not a whole backup", id="cut"),
        pytest.param(_cut_between, "ends without MANIFEST", id="cut between files"),
        pytest.param(_flip, "days is not what MANIFEST says", id="a byte of a calendar"),
        pytest.param(_flip_journal, "damaged; nothing was restored", id="a byte of the journal"),
        pytest.param(_add("../evil"), "no place in one", id="a file outside"),
        pytest.param(_add("/etc/evil"), "no place in one", id="an absolute name"),
        pytest.param(_add("journal/../../evil"), "no place in one", id="a way out"),
        pytest.param(_add(".hidden"), "no place in one", id="a hidden file"),
        pytest.param(_link, "no place in one", id="a link"),
        pytest.param(
            lambda file: file.write_bytes(b"no tar at all" * 100), "not a whole backup", id="no tar"
        ),
        pytest.param(lambda file: file.write_bytes(b""), "not a whole backup", id="an empty file"),
    ],
)
def test_nothing_is_restored_from_a_backup_that_is_not_whole(
    life: Life, tmp_path: Path, damage: Callable[[Path], None], told: str
) -> None:
    """Half of a journal would start, and have lost the other half without a word."""
    file = make(life).rename(tmp_path / "b.tar")
    damage(file)
    with pytest.raises(Fatal, match=told) as error:
        backup.restore(file, tmp_path / "new")
    assert error.value.status == Exit.CORRUPT
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["lock"]


def test_a_directory_with_something_in_it_is_left_alone_unless_told(life: Life, tmp_path: Path) -> None:
    """The wrong --data would be the end of the right tasks."""
    file = make(life)
    new = tmp_path / "new"
    new.mkdir()
    (new / "tasks.db").write_text("mine\n")
    with pytest.raises(Fatal, match=r"something in it \(tasks.db\)") as error:
        backup.restore(file, new)
    assert error.value.status == Exit.CANNOT_CREATE
    assert backup.restore(file, new, force=True) == Exit.OK
    assert (new / "replaced/tasks.db").read_text() == "mine\n"
    assert not (new / "tasks.db").exists()
    assert told(restarted(new)[0]) == told(life.state)
    assert backup.restore(file, new, force=True) == Exit.OK  # what was moved aside once is kept


class Killed(BaseException):
    """At once: nothing is tidied up."""


@pytest.mark.parametrize(
    "how",
    [Killed(), OSError(5, "Input/output error"), OSError(30, "Read-only file system")],
    ids=["killed", "a broken disk", "a disk that takes nothing any more"],
)
def test_a_restore_that_is_broken_off_is_all_or_nothing(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: BaseException
) -> None:
    """Between the old journal's going and the new one's coming there is none: a start began anew."""
    file = make(life).rename(tmp_path / "b.tar")
    life.close()
    rename, rmtree = Path.rename, backup.shutil.rmtree
    is_for_ever = "Read-only" in str(how)
    left = 0

    def rename_or_fail(path: Path, new: Path) -> Path:
        nonlocal left
        is_a_step = UNPACKED not in new.parts
        if (is_a_step and (left := left - 1) == 0) or (is_for_ever and left < 0):
            left = -1 if is_for_ever else left
            if isinstance(how, Killed):
                monkeypatch.setattr(backup.shutil, "rmtree", lambda *_, **__: None)
            raise how
        return rename(path, new)

    monkeypatch.setattr(Path, "rename", rename_or_fail)
    for number in range(1, 30):
        data, left = tmp_path / str(number), number
        backup.shutil.copytree(life.data, data)
        try:
            assert backup.restore(file, data, force=True) == Exit.OK
        except (Killed, Fatal):
            pass
        else:
            break
        left = 1000  # nothing fails any more
        monkeypatch.setattr(backup.shutil, "rmtree", rmtree)
        if isinstance(how, Killed) or (is_for_ever and number > 1):
            with pytest.raises(Fatal, match="a restore was broken off") as refused:
                restarted(data)
            assert refused.value.status == Exit.CORRUPT
            assert backup.restore(file, data, force=True) == Exit.OK
        else:
            assert not list(data.glob("replaced*"))
        assert told(restarted(data)[0]) == told(life.state)
    assert number > 6


def test_a_backup_may_lie_in_the_directory_that_it_restores(life: Life) -> None:
    """That is where BACKUP writes it."""
    file = make(life)
    life.close()
    assert backup.restore(file, life.data, force=True) == Exit.OK
    assert file.exists()
    assert told(restarted(life.data)[0]) == told(life.state)


def test_a_directory_in_use_is_not_restored_into(life: Life, tmp_path: Path) -> None:
    """The daemon there would write on into files that have gone."""
    file = make(life)
    lock = backup.disk.lock_directory(tmp_path / "new")
    with pytest.raises(Fatal, match="in use") as error:
        backup.restore(file, tmp_path / "new", force=True)
    assert error.value.status == Exit.TRY_AGAIN
    lock.close()


def test_a_file_that_is_replaced_meanwhile_is_in_it_whole(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compaction and editors do so, at any time: half of the one or the other would be damage."""
    usage = backup.shutil.disk_usage
    history = next(journal_dir(life.data).glob("history-*"))

    def replace(path: Path) -> object:  # what is asked between looking at the files and reading them
        for file, content in ((life.data / "days", b"2030-01-01\n" * 9), (history, history.read_bytes())):
            (new := tmp_path / "made").write_bytes(content)
            new.rename(file)
        with history.open("r+b") as file:
            lines = file.readlines()
            file.truncate(sum(map(len, lines[:-1])))
        return usage(path)

    monkeypatch.setattr(backup.shutil, "disk_usage", replace)
    file = make(life)
    backup.restore(file, tmp_path / "new")
    assert (tmp_path / "new/days").read_text() == "2030-01-01\n" * 9


def test_a_disk_that_cannot_hold_it_is_asked_before_it_is_filled(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal needs the same disk."""
    monkeypatch.setattr(backup.shutil, "disk_usage", lambda path: backup.shutil._ntuple_diskusage(9, 9, 9))
    with pytest.raises(Refusal, match="9 are free") as error:
        backup.archive(life.data, life.data / "b.tar", life.journal.open_segment, ABOUT)
    assert error.value.code == "disk-full"
    assert not list(life.data.glob("*.tar"))


def test_a_long_file_reaches_the_disk_piece_by_piece(tmp_path: Path) -> None:
    """All at once at its end, whoever waits for a sync of the journal would wait for that, too."""
    synced: list[int] = []

    class Counting(disk.Disk):
        def fdatasync(self, fd: int) -> None:
            synced.append(os.fstat(fd).st_size)
            super().fdatasync(fd)

    chunks = [bytes(1024 * 1024)] * 20
    assert disk.prepare(tmp_path / "x", chunks, Counting()).size == 20 * 1024 * 1024
    assert synced == [disk.SYNC_BYTES, 2 * disk.SYNC_BYTES]
