"""A custom job from the control port to the archive on disk, and one that hangs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.real.running import ROOT, StartDaemon, Worker, wait_until


@pytest.fixture
def handlers(tmp_path: Path) -> Path:
    """The samples and one that hangs; copied, since a clone's modes are anybody's."""
    directory = tmp_path / "handlers"
    shutil.copytree(ROOT / "contrib" / "handlers", directory, ignore=shutil.ignore_patterns("__pycache__"))
    (directory / "stuck.py").write_text(
        "def handle(data, context):\n    print('ready')\n    while True: pass\n"
    )
    for path in (directory, *directory.iterdir()):
        path.chmod(0o755)
    return directory


def test_handlers_run_and_one_that_hangs_is_killed(
    start_daemon: StartDaemon, handlers: Path, tmp_path: Path
) -> None:
    """The whole way: payload= in, output and result out, CANCEL to the process that takes no notice."""
    daemon = start_daemon("--kill-grace", "300ms")
    worker = Worker(daemon, "w1", tmp_path / "spool", 2, "--handlers", str(handlers))
    worker.start()
    try:
        payload = json.dumps({"paths": [str(handlers)], "into": str(tmp_path), "name": "saved"})
        assert daemon.ask(f"NOW type=custom payload={payload} backup")[0].startswith("OK 1 ")
        wait_until(lambda: "\tok\t" in daemon.nc("RUNS 1"))
        assert len(list(tmp_path.glob("saved-*.tar.gz"))) == 1
        assert "1\tprogress 100%" in daemon.ask("LOG 1")
        daemon.ask("NOW type=custom stuck")
        wait_until(lambda: "1\tready" in daemon.ask("LOG 2"))
        assert daemon.ask("CANCEL 2") == ["OK 2 cancelled"]
        wait_until(lambda: "\tcancelled\t" in daemon.nc("RUNS 2"))
        assert "\t137" in daemon.nc("RUNS 2")
    finally:
        worker.stop()
