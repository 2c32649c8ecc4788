"""The commands that are clients, without a daemon: how they read, and how they write."""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path

import pytest

from cronflowd.base.errors import Exit
from cronflowd.cli import client, verbs
from cronflowd.host.config import ClientSettings
from tests.lib.ports import free_ports
from tests.lib.waiting import PATIENCE_S

MUCH = b"".join(
    b"%d\tline %099d\n" % (n % 2 + 1, n) for n in range(200_000)
)  # more than any buffer on the way


class Server:
    """Answers one question with rows; `has_said_all` when nothing of them waits to be taken any more."""

    def __init__(self, rows: bytes) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()[:2]
        self.has_said_all = threading.Event()
        self._rows = rows
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with self._listener:
            connection, _ = self._listener.accept()
        with connection, connection.makefile("rb") as lines:
            lines.readline()
            connection.sendall(b"OK\n")
            lines.readline()
            connection.sendall(self._rows + b"OK 200000\n")
            connection.shutdown(socket.SHUT_WR)
            self.has_said_all.set()
            lines.readline()


def test_a_pager_that_shows_the_first_page_keeps_no_server_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server cuts whoever takes nothing for 10 s: of `cronflowd ls | less` there was that page alone."""
    server, ends = Server(MUCH), list[int]()
    reader, writer = os.pipe()
    stdout = os.fdopen(writer, "w")
    monkeypatch.setattr(sys, "stdout", stdout)

    def ask() -> None:
        with stdout:
            ends.append(verbs.ask(ClientSettings(data=tmp_path, server=server.address), "LIST", []))

    asks = threading.Thread(target=ask)
    asks.start()
    has_said_all = server.has_said_all.wait(PATIENCE_S)
    with open(reader, "rb") as read:
        assert read.read() == MUCH
    asks.join()
    assert has_said_all
    assert ends == [Exit.OK]


def test_a_reader_that_leaves_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the last of it was written together with what came before."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        settings = ClientSettings(data=tmp_path, server=Server(b"1\ta\n2\tb\n").address)
        assert verbs.ask(settings, "LIST", []) == 141


def test_why_neither_server_answers_is_told_of_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may not open the socket was told that there was none."""
    (port,) = free_ports(1)
    monkeypatch.setattr(client, "CONTROL_PORT", port)
    (tmp_path / "control.sock").symlink_to("control.sock")
    with pytest.raises(client.Lost) as caught:
        client.Connection(ClientSettings(data=tmp_path))
    there = f"unix:{tmp_path}/control.sock: Too many levels of symbolic links"
    assert caught.value.message == f"no server at {there}, and 127.0.0.1:{port}: Connection refused"
