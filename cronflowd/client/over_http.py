"""The calls over HTTP, one request and one answer each; what comes back is JSON as it is."""

from __future__ import annotations

import http.client
import select
import socket
import ssl
from typing import Any
from urllib.parse import urlencode, urlsplit

import orjson

from ..host.setting import format_address

TIMEOUT_S = 60.0

Json = dict[str, Any]


class CronflowError(Exception):
    """It was refused: `code` is for programs, the message for people, `field` is what it is about."""

    def __init__(self, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.field = code, message, field


def is_over(kept: socket.socket | None) -> bool:
    """Whether the other side has ended a connection since: what is to be done is not said into it."""
    if kept is None:
        return True
    poll = select.poll()
    poll.register(kept, select.POLLIN | select.POLLRDHUP)
    return bool(poll.poll(0))


class OverHttp:
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
        if self._connection and is_over(self._connection.sock):
            self.close()
        is_kept = self._connection is not None
        if self._connection is None:
            self._connection = self._open()
        try:
            self._connection.request(method, path, data, headers)
            return self._connection.getresponse()
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            # One that was kept may have ended just now; what changes something is not sent again.
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

    # --- the calls ---

    def create_job(self, job: Json, key: str | None) -> Any:
        return self.ask("POST", "/jobs", job, **({"Idempotency_Key": key} if key else {}))

    def get_job(self, ref: str) -> Any:
        return self.ask("GET", f"/jobs/{ref}")

    def list_jobs(self, page: int, limit: int, asked: dict[str, str]) -> Any:
        return self.ask("GET", f"/jobs?{urlencode({'page': page, 'limit': limit} | asked)}")

    def update_job(self, ref: str, changes: Json) -> Any:
        return self.ask("PATCH", f"/jobs/{ref}", changes)

    def delete_job(self, ref: str) -> Any:
        return self.ask("DELETE", f"/jobs/{ref}")

    def pause_job(self, ref: str, until: str | None, why: str | None) -> Any:
        return self.ask("POST", f"/jobs/{ref}/pause", {"until": until, "why": why})

    def resume_job(self, ref: str) -> Any:
        return self.ask("POST", f"/jobs/{ref}/resume")

    def execute_job_now(self, ref: str, args: dict[str, Any]) -> Any:
        return self.ask("POST", f"/jobs/{ref}/trigger", {"args": args})

    def cancel_execution(self, run: int) -> Any:
        return self.ask("POST", f"/executions/{run}/cancel")

    def get_executions(self, ref: str | None, state: str | None, limit: int) -> Any:
        asked = {"jobId": ref, "state": state, "limit": limit}
        query = urlencode({key: value for key, value in asked.items() if value is not None})
        return self.ask("GET", f"/executions?{query}")

    def get_execution(self, run: int) -> Any:
        return self.ask("GET", f"/executions/{run}")

    def get_log(self, run: int) -> Any:
        return self.ask("GET", f"/executions/{run}/log")

    def preview_schedule(self, cron: str, timezone: str | None, count: int) -> Any:
        body = {"cron": cron, "timezone": timezone, "count": count}
        return self.ask("POST", "/inspector/preview", body)["occurrences"]

    def say(self, line: str, key: str | None) -> Any:
        return self.ask("POST", "/lines", {"line": line}, **({"Idempotency_Key": key} if key else {}))

    def get_system_status(self) -> Any:
        board = self.ask("GET", "/monitoring/dashboard")
        return {
            "jobs": {"total": board["totalJobs"]} | board["jobsByStatus"],
            "last24h": board["last24h"],
            "workers": self.ask("GET", "/workers"),
            "upcoming": board["upcoming"],
        }
