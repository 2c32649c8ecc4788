"""After a whole session, with a kill -9 in it: no word that lets in, and no secret, stands in any file."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from tests.real.running import StartDaemon, Worker, wait_until

pytestmark = pytest.mark.real
FILE_TOKEN = "c0ffee" * 10
PASSWORDS = ("correct-horse-1", "correct-horse-2", "battery-staple-3")
WRONG = ("almost-correct-horse", "typed-as-a-name", "7ypo-of-a-token", "8ehind-a-verb-that-is-none")
SECRET = "s3cret-of-a-database"


def words_of_processes() -> bytes:
    """What `ps` shows to everybody."""
    found = b""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += path.read_bytes()
    return found


def test_after_a_whole_session_no_word_stands_in_any_file(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """Disks, backups, log servers and `ps` are read by others than those who may come in."""
    file = tmp_path / "token"
    file.write_text(FILE_TOKEN + "\n")
    file.chmod(0o600)
    daemon = start_daemon("--token-file", str(file), "--log-level", "debug")
    admin = f"AUTH {FILE_TOKEN}"
    first, second, third = PASSWORDS
    made = daemon.ask(
        admin, f"USER ADD ann role=user password={first}", "TOKEN ADD user=ann name=ci",
        "TOKEN ADD role=worker worker=far", f"SECRET PUT db {SECRET}", "USER ADD bob", "QUIT",
    )  # fmt: skip
    shown = [line.split("\t")[1] for line in made if line.startswith(("token\t", "password\t"))]
    assert len(shown) == 3
    his, of_worker = tmp_path / "worker-token", shown[1]
    his.write_text(of_worker)
    his.chmod(0o600)
    flags = ("--token-file", str(his), "--log-level", "debug")
    worker = Worker(daemon, "far", tmp_path / "spool", 2, *flags)
    worker.is_ready = lambda: any("far\tready" in row for row in daemon.ask(admin, "WORKERS"))  # type: ignore[method-assign]
    worker.start()
    try:
        daemon.ask(f"AUTH ann {first}", f"USER PASSWORD {second}", "QUIT")
        daemon.ask(
            admin, f"USER PASSWORD ann {third}", f"USER PASSWORD ann {third} more", f"USER ADD c {third}"
        )
        daemon.ask(f"AUTH {shown[0]}", "WHOAMI", "NOW env.DB=secret:db echo $DB; sleep 1", "QUIT")
        wait_until(lambda: any("\trunning\t" in row for row in daemon.ask(admin, "RUNS")))
        seen = words_of_processes()
        daemon.ask(f"AUTH ann {WRONG[0]}", f"AUTH {WRONG[1]} {third}", f"AUTH {WRONG[2]}")
        daemon.ask(f"AUHT {WRONG[3]}", f"auth\t{WRONG[3]}", WRONG[3])
        daemon.kill9()
        daemon.start()
        wait_until(lambda: any("\tok\t" in row for row in daemon.ask(admin, "RUNS")))
        log = daemon.ask(admin, "LOG 1", "SAVE", "AUDIT", "QUIT")
        assert "1\t[secret:db]" in log
        daemon.stop()
    finally:
        worker.kill9()
    files = [
        path for path in (*daemon.data.rglob("*"), *worker.spool.rglob("*"), daemon.log) if path.is_file()
    ]
    assert len(files) > 4
    told = {str(path): path.read_bytes() for path in files if path.name != "key"} | {"ps": seen}
    words = (FILE_TOKEN, *shown, *PASSWORDS, *WRONG, SECRET)
    assert [(where, word) for where, text in told.items() for word in words if word.encode() in text] == []
