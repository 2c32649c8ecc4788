"""The one secret, and which doors may stand open without it."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

import pytest

from cronflowd.base.errors import Exit, Fatal
from cronflowd.host import secrets
from cronflowd.host.config import Settings
from cronflowd.host.disk import DISK
from tests.lib.simulated_disk import IO_ERROR, NO_SPACE


def secret(tmp_path: Path, content: bytes, mode: int = 0o600) -> Path:
    path = tmp_path / "token"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_made_token_is_256_bits_that_only_its_owner_reads(tmp_path: Path) -> None:
    """The file is written for people who will not check it."""
    path = tmp_path / "new" / "token"
    before = os.umask(0)
    try:
        secrets.make_key(path, secrets.CHANGE)
    finally:
        os.umask(before)
    assert re.fullmatch(b"[0-9a-f]{64}\n", path.read_bytes())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert secrets.read_tokens(path) == (path.read_bytes().strip(),)


def test_a_disk_that_fails_leaves_no_half_of_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stood there for ever: it could not be read, and no other one was made in its place."""
    path = tmp_path / "key"
    for fault, status in ((IO_ERROR, Exit.IO), (NO_SPACE, Exit.CANNOT_CREATE)):
        monkeypatch.setattr(DISK, "fsync", lambda fd, fault=fault: fault())
        with pytest.raises(Fatal, match=str(path)) as caught:
            secrets.make_key(path, secrets.CHANGE)
        assert (caught.value.status, list(tmp_path.iterdir())) == (status, [])
    monkeypatch.undo()
    secrets.make_key(path, secrets.CHANGE)
    assert list(tmp_path.iterdir()) == [path]


def test_no_two_tokens_are_alike(tmp_path: Path) -> None:
    """A constant would be a default secret, which there must not be."""
    secrets.make_key(tmp_path / "a", secrets.CHANGE)
    secrets.make_key(tmp_path / "b", secrets.CHANGE)
    assert secrets.read_tokens(tmp_path / "a") != secrets.read_tokens(tmp_path / "b")


def test_a_token_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    """All workers would be locked out at once, by a command typed twice."""
    path = secret(tmp_path, b"old\n")
    with pytest.raises(Fatal, match=r"there already.*HUP") as caught:
        secrets.make_key(path, secrets.CHANGE)
    assert (caught.value.status, path.read_bytes()) == (Exit.CANNOT_CREATE, b"old\n")


def test_a_token_is_not_made_through_a_dangling_link(tmp_path: Path) -> None:
    """Somebody else's link would decide where the secret lies."""
    (tmp_path / "token").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Fatal):
        secrets.make_key(tmp_path / "token", secrets.CHANGE)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("content", [b"", b"\n", b" \t\r\n", b"# 5f2b1c90\n\n"])
def test_an_empty_token_is_an_error(content: bytes, tmp_path: Path) -> None:
    """An empty secret matches whoever sends none."""
    path = secret(tmp_path, content)
    with pytest.raises(Fatal, match=re.escape(f"{path}: the token is empty")) as caught:
        secrets.read_tokens(path)
    assert caught.value.status == Exit.CONFIG


@pytest.mark.parametrize(
    "content", [b"two words", b"good\ntwo words\n", b"x" * 513, "\u00fc".encode(), b"a\x00b"]
)
def test_a_token_that_no_line_could_carry_is_refused(content: bytes, tmp_path: Path) -> None:
    """Better at the start than at every worker's first line; and one line that is good excuses no other."""
    with pytest.raises(Fatal, match="the token is"):
        secrets.read_tokens(secret(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"old\nnew\n", (b"old", b"new")),
        (b"old\r\nnew", (b"old", b"new")),
        (b"# since May\n\n  old \n\n#new\n", (b"old",)),
        (b"same\nsame\n", (b"same", b"same")),
        (b"a#b\n", (b"a#b",)),
        (b"# " + b"x" * 2000 + b"\nold\n", (b"old",)),
    ],
)
def test_a_file_may_hold_several_tokens(content: bytes, expected: tuple[bytes, ...], tmp_path: Path) -> None:
    """While one is changed both count, and people write beside them which is which."""
    assert secrets.read_tokens(secret(tmp_path, content)) == expected


def test_how_many_tokens_there_may_be_is_bounded(tmp_path: Path) -> None:
    """A worker that is refused offers each, and the daemon compares with each."""
    lines = [f"{n}\n".encode() for n in range(secrets.MAX_TOKENS + 1)]
    assert len(secrets.read_tokens(secret(tmp_path, b"".join(lines[1:])))) == secrets.MAX_TOKENS
    with pytest.raises(Fatal, match="more than 16 tokens"):
        secrets.read_tokens(secret(tmp_path, b"".join(lines)))
    with pytest.raises(Fatal, match="longer than 16384 bytes"):
        secrets.read_tokens(secret(tmp_path, b"old\n" + b"#" * secrets.MAX_FILE_BYTES))


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_token_that_others_can_change_is_refused(mode: int, tmp_path: Path) -> None:
    """Whoever can write it can let himself in."""
    with pytest.raises(Fatal, match=f"mode {mode:04o}.*chmod 600"):
        secrets.read_tokens(secret(tmp_path, b"x\n", mode))


@pytest.mark.parametrize(
    ("mode", "owner", "quiet"),
    [
        (0o600, 1, True),
        (0o640, 1, False),
        (0o644, 1, False),
        (0o440, 0, True),
        (0o640, 0, True),
        (0o644, 0, False),
    ],
)
def test_a_token_that_others_can_read_is_told_of(
    mode: int, owner: int, quiet: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It works, so that `echo secret > token` does; but a group may quietly read only what root owns."""
    found = os.stat_result((stat.S_IFREG | mode, 0, 0, 1, owner, 0, 1, 0, 0, 0))
    secrets._check_mode(Path("token"), found, "token")
    assert quiet == (not caplog.records)


def test_a_token_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    """Also where the name is that of a directory."""
    for path, why in ((tmp_path / "none", "No such file"), (tmp_path, "a directory, not a file")):
        with pytest.raises(Fatal, match=f"{path}: cannot read the token: {why}"):
            secrets.read_tokens(path)


def test_a_pipe_in_the_place_of_the_token_does_not_hang(tmp_path: Path) -> None:
    """Nobody may ever write to it, and the daemon would not start and not say why."""
    os.mkfifo(tmp_path / "token", 0o600)
    with pytest.raises(Fatal, match="not a file"):
        secrets.read_tokens(tmp_path / "token")


@pytest.mark.parametrize(
    ("offered", "expected"),
    [
        (b"secret", True),
        (b"secre", False),
        (b"secrets", False),
        (b"Secret", False),
        (b"", False),
        (b"\xff", False),
    ],
)
def test_only_the_very_token_matches(offered: bytes, expected: bool) -> None:
    """No prefix, no case, no emptiness, and no exception for bytes that are no text."""
    assert secrets.matches((b"other", b"secret"), offered) is expected
    assert not secrets.matches((), offered)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True),
        ("::ffff:127.0.0.1", True), ("::ffff:192.0.2.1", False),
        ("0.0.0.0", False), ("::", False), ("192.0.2.1", False), ("fe80::1%lo", False),
        ("localhost.example", False), ("127.1", False), ("", False), ("*", False),
    ],
)  # fmt: skip
def test_only_what_is_surely_this_machine_counts_as_loopback(host: str, expected: bool) -> None:
    """A name may come to mean anything, so when in doubt the door wants a secret."""
    assert secrets.is_loopback(host) is expected


def _nobody() -> bool:
    return False


@pytest.mark.parametrize("which", ["listen", "listen_workers", "inherited"])
def test_a_door_to_other_machines_wants_a_secret(which: str) -> None:
    """Exit 77: whoever reaches the port can run any command, so nobody opens it by accident."""
    away = (("127.0.0.1", 1), ("0.0.0.0", 5050))
    settings = Settings() if which == "inherited" else Settings(**{which: away})
    found = secrets.exposed(settings, away if which == "inherited" else ())
    with pytest.raises(Fatal, match=r"^0\.0\.0\.0:5050 can be reached") as caught:
        secrets.check_doors(settings, found, _nobody)
    assert caught.value.status == Exit.REFUSED


def test_a_secret_or_an_explicit_word_opens_the_door() -> None:
    """And nothing is asked of somebody who stays on this machine."""
    away = (("0.0.0.0", 5050),)
    assert secrets.exposed(Settings()) is None
    secrets.check_doors(Settings(), None, _nobody)
    secrets.check_doors(Settings(token_file=Path("token")), away[0], _nobody)
    secrets.check_doors(Settings(insecure=True), away[0], _nobody)
    secrets.check_doors(Settings(), away[0], lambda: True)


def test_a_token_on_standard_input_is_read_where_it_is_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd opens it as root: a worker has it so, and again at HUP, though it may not open it."""
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text("old\n")
    dup = os.dup
    with path.open("rb") as file:
        monkeypatch.setattr("os.dup", lambda _: dup(file.fileno()))
        assert secrets.read_tokens(Path("/dev/stdin")) == (b"old",)
        path.write_text("new\n")
        assert secrets.read_tokens(Path("/dev/stdin")) == (b"new",)


def test_a_token_is_made_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on exFAT, and on some directories that a container shares with its host."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    path = tmp_path / "token"
    secrets.make_key(path, secrets.CHANGE)
    (token,) = secrets.read_tokens(path)
    with pytest.raises(Fatal, match="it is there already"):
        secrets.make_key(path, secrets.CHANGE)
    assert (secrets.read_tokens(path), list(tmp_path.iterdir())) == ((token,), [path])
