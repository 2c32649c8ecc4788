"""A connection to the HTTP door, or to the control port: one request, one answer."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from ..host.setting import format_address

TIMEOUT_S = 60.0
RECEIVE_BYTES = 65_536


class CronflowError(Exception):
    """It was refused: `code` is for programs, the message for people, `field` is what it is about."""

    def __init__(self, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.field = code, message, field


class HttpDoor:
    """`http://host:3000` or `https://…`; with a token of TOKEN ADD, or an access token."""

    def __init__(self, url: str, token: str | None, tls: ssl.SSLContext | None) -> None:
        parts = urlsplit(url)
        self._host, self._base = parts.hostname or "localhost", parts.path.rstrip("/")
        self._is_tls = parts.scheme == "https"
        self._port = parts.port or (443 if self._is_tls else 80)
        self._tls = tls or (ssl.create_default_context() if self._is_tls else None)
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """What stands in `data`; raises CronflowError, and OSError where nobody answers."""
        said = self._headers | {name.replace("_", "-"): value for name, value in headers.items()}
        data = None if body is None else orjson.dumps(body)
        try:
            answer = self._send(method, f"{self._base}/api/v1{path}", data, said)
            found = orjson.loads(answer.read())
            is_done = found["success"]
        except (http.client.HTTPException, orjson.JSONDecodeError, LookupError, TypeError) as error:
            self.close()
            where = format_address((self._host, self._port))
            raise ConnectionError(f"{where} does not answer as the HTTP door does: {error!r}") from error
        except OSError:
            self.close()
            raise
        if not is_done:
            why = found["error"]
            raise CronflowError(why["code"], why["message"], why.get("field"))
        return found["data"]

    def _send(
        self, method: str, path: str, data: bytes | None, headers: dict[str, str]
    ) -> http.client.HTTPResponse:
        is_kept = self._connection is not None
        if self._connection is None:
            self._connection = self._open()
        try:
            self._connection.request(method, path, data, headers)
            return self._connection.getresponse()
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            # One that was kept may have ended since; what changes something is not sent again.
            self.close()
            if not is_kept or method != "GET":
                raise
            return self._send(method, path, data, headers)

    def _open(self) -> http.client.HTTPConnection:
        if self._is_tls:
            return http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT_S, context=self._tls)
        return http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)

    def close(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None


class LineDoor:
    """The control port or socket; with a token, or `name password`."""

    def __init__(self, where: tuple[str, int] | Path, token: str | None, tls: ssl.SSLContext | None) -> None:
        self._where, self._token, self._tls = where, token, tls
        self._name = str(where) if isinstance(where, Path) else format_address(where)
        self._socket: socket.socket | None = None
        self._rest = b""

    def ask(self, *lines: str) -> list[tuple[list[dict[str, Any]], dict[str, Any]]]:
        """Rows and status of each line, which are sent together. Raises CronflowError for none of them."""
        for line in lines:
            if "\n" in line or "\r" in line:
                raise CronflowError("syntax", "a newline cannot stand in an order")
        try:
            if self._socket is None:
                self._begin()
            return self._converse(lines)
        except OSError:
            self.close()
            raise
        except orjson.JSONDecodeError as error:
            self.close()
            raise ConnectionError(f"{self._name} does not answer as the control port does") from error

    def _begin(self) -> None:
        if isinstance(self._where, Path):
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(TIMEOUT_S)
            self._socket.connect(str(self._where))
        else:
            self._socket = socket.create_connection(self._where, TIMEOUT_S)
            if self._tls:
                self._socket = self._tls.wrap_socket(self._socket, server_hostname=self._where[0])
        # A session, which stays open between one call and the next.
        lines = ["FORMAT json", *([f"AUTH {self._token}", "FORMAT json"] if self._token else [])]
        for _, status in self._converse(lines):
            if not status["ok"]:
                self.close()
                raise CronflowError(status["code"], status["message"])

    def _converse(self, lines: Sequence[str]) -> list[tuple[list[dict[str, Any]], dict[str, Any]]]:
        assert self._socket
        self._socket.sendall("".join(f"{line}\n" for line in lines).encode())
        answers = []
        for _ in lines:
            rows = []
            # A row of STATS has a column `ok`, too, which is a number.
            while type((row := self._read()).get("ok")) is not bool:
                rows.append(row)
            answers.append((rows, row))
        return answers

    def _read(self) -> dict[str, Any]:
        assert self._socket
        while b"\n" not in self._rest:
            data = self._socket.recv(RECEIVE_BYTES)
            if not data:
                raise ConnectionError(f"{self._name} has ended the connection")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        row: dict[str, Any] = orjson.loads(line)
        return row

    def close(self) -> None:
        if self._socket:
            self._socket.close()
            self._socket, self._rest = None, b""
