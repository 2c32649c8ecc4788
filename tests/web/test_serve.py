"""The process of the HTTP door: how the daemon starts its own, and who comes when all places are taken."""

from __future__ import annotations

import http.client
import os
import socket
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import orjson
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


def test_who_finds_no_place_reads_json_and_when_to_come_again() -> None:
    """Clients read all answers alike: of a bare text they would say that no HTTP door is there."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(serve._farewell("all 2 HTTP connections are taken"))
        answer = http.client.HTTPResponse(theirs)
        answer.begin()
        told = "all 2 HTTP connections are taken; try again later"
        assert (answer.status, answer.getheader("Retry-After"), answer.will_close) == (503, "5", True)
        assert orjson.loads(answer.read()) == {
            "success": False,
            "error": {"code": "too-many", "message": told},
        }
