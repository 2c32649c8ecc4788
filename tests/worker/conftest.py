"""What the tests of workers share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.lib.handler_jobs import ROOT


@pytest.fixture
def handlers(tmp_path: Path) -> Path:
    """A directory for handlers, with the samples in it, whose modes do not depend on the clone's."""
    directory = tmp_path / "handlers"
    shutil.copytree(ROOT / "contrib" / "handlers", directory, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (directory, *directory.iterdir()):
        path.chmod(0o755)
    return directory


@pytest.fixture
def spool_dir(tmp_path: Path) -> Path:
    """Where a worker keeps its reports."""
    return tmp_path / "spool"
