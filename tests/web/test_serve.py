"""The process of the HTTP door, where it is the daemon's own."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from cronflowd.host.config import WebSettings
from cronflowd.web import serve


def test_the_daemons_own_door_reads_no_token_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """CRONFLOWD_TOKEN_FILE=<(...) is a file of the daemon's alone: the door would never begin."""
    found: list[partial[int]] = []
    monkeypatch.setattr(serve, "gc", SimpleNamespace(freeze=lambda: None, set_threshold=lambda _: None))
    monkeypatch.setattr(serve.trio, "run", lambda main: found.append(main) or 0)
    monkeypatch.setattr(os, "nice", lambda _: 0)
    leash, ours = os.pipe()
    try:
        os.write(ours, b"word\n")
        settings = WebSettings(http=(), leash=leash, token_file=tmp_path / "none", data=tmp_path)
        assert serve.run(settings) == 0
    finally:
        os.close(leash)
        os.close(ours)
    assert found[0].args[2] == (b"word",)
