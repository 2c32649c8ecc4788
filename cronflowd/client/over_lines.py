"""The calls in the line protocol, with the words that the HTTP door would say."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import orjson

from ..base.errors import Refusal
from ..host.setting import format_address
from ..web import talks
from ..web.fields import to_body
from ..web.line import Answer, Row, check_travels, is_status
from ..web.outcomes import MOMENTS, counts, plain, to_lines, to_occurrences, to_upcoming, to_worker
from .over_http import TIMEOUT_S, CronflowError, Json, is_over

RECEIVE_BYTES = 65_536

T = TypeVar("T")


class OverLines:
    """The control port or socket; with a token, or `name password`."""

    def __init__(self, where: tuple[str, int] | Path, token: str | None, tls: ssl.SSLContext | None) -> None:
        self._where, self._token, self._tls = where, token, tls
        self._name = str(where) if isinstance(where, Path) else format_address(where)
        self._socket: socket.socket | None = None
        self._rest = b""

    def ask(self, *lines: str) -> list[Answer]:
        """The answer to each line, which are sent together, be it a refusal."""
        for said in lines:
            check_travels(said)
        try:
            if is_over(self._socket):
                self.close()
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
        for answer in self._converse(lines):
            if not answer.status["ok"]:
                self.close()
                answer.check()

    def _converse(self, lines: Sequence[str]) -> list[Answer]:
        assert self._socket
        self._socket.sendall("".join(f"{said}\n" for said in lines).encode())
        return [self._read_answer() for _ in lines]

    def _read_answer(self) -> Answer:
        rows = []
        while not is_status(row := self._read()):
            rows.append(row)
        return Answer(rows, row)

    def _read(self) -> Row:
        assert self._socket
        while b"\n" not in self._rest:
            data = self._socket.recv(RECEIVE_BYTES)
            if not data:
                raise ConnectionError(f"{self._name} has ended the connection")
            self._rest += data
        said, _, self._rest = self._rest.partition(b"\n")
        row: Row = orjson.loads(said)
        return row

    def close(self) -> None:
        if self._socket:
            self._socket.close()
            self._socket, self._rest = None, b""

    # --- jobs ---

    def create_job(self, job: Json, key: str | None) -> Json:
        with refusing():
            body = to_body(job)
        return plain(self._hold(talks.make_job(body, key)))

    def get_job(self, ref: str) -> Json:
        return plain(self._hold(talks.read_job(ref)))

    def list_jobs(self, page: int, limit: int, asked: dict[str, str]) -> list[Json]:
        rows, _ = self._hold(talks.list_rows(page, limit, asked))
        return [plain(job) for job in self._hold(talks.read_jobs(rows))]

    def update_job(self, ref: str, changes: Json) -> Json:
        with refusing():
            body = to_body(changes)
        return plain(self._hold(talks.change_job(ref, body)))

    def delete_job(self, ref: str) -> Json:
        return {"id": self._say(f"REMOVE {ref}").status["id"], "removed": True}

    def pause_job(self, ref: str, until: str | None, why: str | None) -> Json:
        with refusing():
            said = talks.line("PAUSE", ref, until=until or None, why=why or None)
        self._say(said)
        return self.get_job(ref)

    def resume_job(self, ref: str) -> Json:
        self._say(f"RESUME {ref}")
        return self.get_job(ref)

    # --- runs ---

    def execute_job_now(self, ref: str, args: dict[str, Any]) -> Json:
        return plain(self._hold(talks.run_now(ref, args)))

    def cancel_execution(self, run: int) -> Json:
        self._say(f"CANCEL {run}")
        return self.get_execution(run)

    def get_executions(self, ref: str | None, state: str | None, limit: int) -> list[Json]:
        found, _ = self._hold(talks.find(ref, state=state or None, limit=limit))
        return [plain(each) for each in found]

    def get_execution(self, run: int) -> Json:
        return plain(self._hold(talks.newest_attempt(run)))

    def get_log(self, run: int) -> list[Json]:
        return [plain(each) for each in to_lines(self._say(f"LOG {run}").rows)]

    # --- the rest ---

    def preview_schedule(self, cron: str, timezone: str | None, count: int) -> list[Json]:
        with refusing():
            said = talks.line("NEXT", talks.in_quotes(cron), n=count, tz=timezone or None)
        try:
            return [plain(each) for each in to_occurrences(self._say(said).rows)]
        except CronflowError as error:
            error.field = error.field or "cron"
            raise

    def say(self, line: str, key: str | None) -> Json:
        with refusing():
            said = talks.any_line(line, key)
        try:
            answer = self._say(said)
        finally:
            self.close()  # it may have changed who speaks there, and how
        return {"rows": answer.rows, "status": answer.told}

    def get_system_status(self) -> Json:
        pairs = self._say("SUMMARY").pairs
        return {
            "jobs": {"total": pairs["tasks"]} | counts(pairs, "tasks-"),
            "last24h": counts(pairs, "fires-"),
            "workers": [plain(to_worker(row)) for row in self._say("WORKERS").rows],
            "upcoming": [plain(each) for each in to_upcoming(self._say(f"NEXT all n={MOMENTS}").rows)],
        }

    def _say(self, said: str) -> Answer:
        """One line's answer. Raises CronflowError."""
        with refusing():
            return self.ask(said)[0].check()

    def _hold(self, talk: talks.Talk[T]) -> T:
        """What comes of a talk with the daemon."""
        with refusing():
            try:
                lines = next(talk)
                while True:
                    lines = talk.send(self.ask(*lines))
            except StopIteration as end:
                found: T = end.value
                return found


@contextmanager
def refusing() -> Iterator[None]:
    """What is refused, as callers are told of it."""
    try:
        yield
    except Refusal as refusal:
        raise CronflowError(refusal.code, refusal.message, talks.field_of(refusal)) from None
