"""What each call is in the line protocol: the words that the HTTP door would say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from ..base.errors import Refusal
from ..base.names import REF
from ..base.text import format_option
from ..web.fields import (
    Words,
    Wrong,
    about,
    to_arg,
    to_body,
    to_ended_job,
    to_job,
    to_list_options,
    to_options,
    to_orders,
    to_words,
)
from ..web.outcomes import to_execution, to_lines, to_worker
from .doors import CronflowError, LineDoor

Json = dict[str, Any]
Rows = list[dict[str, Any]]
MAX_TRIES = 8


class OverLines:
    def __init__(self, door: LineDoor) -> None:
        self.door = door

    # --- jobs ---

    def create_job(self, job: Json, key: str | None) -> Json:
        with _refusing():
            body = to_body(job)
            words = to_words(body)
            orders = to_orders(words, body, key)
        for order in orders:
            try:
                status = self._tell(f"ONCE {key} {order}" if key else order, words)
                break
            except CronflowError as error:
                if error.code != "exists" or order == orders[-1]:
                    raise
        return self._read(str(status["id"]), words)

    def get_job(self, ref: str) -> Json:
        return self._read(ref, {})

    def _read(self, ref: str, words: Json) -> Json:
        ((rows, status),) = self.door.ask(f"GET {_word(ref)}")
        if not status["ok"] and status["code"] == "not-found":
            (changes, _), (runs, _) = self.door.ask(f"HISTORY {ref} limit=1", f"RUNS {ref} limit=1")
            if runs and not changes:  # nobody removed it
                return _plain(to_ended_job(runs[0], words))
        _check(status)
        return _plain(to_job(rows))

    def list_jobs(self, page: int, limit: int, asked: dict[str, str]) -> list[Json]:
        if asked.get("status") == "completed":  # they are gone, and found by their executions
            return []
        options = [format_option(key, value) for key, value in to_list_options(asked).items()]
        rows = self._rows(" ".join(["LIST", *options, f"limit={limit}", f"offset={(page - 1) * limit}"]))
        answers = self.door.ask(*(f"GET {row['id']}" for row in rows)) if rows else []
        return [_plain(to_job(got)) for got, status in answers if status["ok"]]

    def update_job(self, ref: str, changes: Json) -> Json:
        with _refusing():
            body = to_body(changes)
        for tried in range(MAX_TRIES):
            old = to_job(self._rows(f"GET {_word(ref)}"))
            with _refusing():
                words = to_words(body, old)
            if not words:
                break
            options = [format_option(key, value) for key, value in to_options(words).items()]
            try:
                self._tell(" ".join([f"SET {old.id} rev={old.rev}", *options]), words)
                break
            except CronflowError as error:
                if error.code != "busy" or tried == MAX_TRIES - 1:
                    raise
        if isinstance(body.enabled, bool) and body.enabled != old.enabled:
            self._tell(f"{'RESUME' if body.enabled else 'PAUSE'} {old.id}")
        return self.get_job(str(old.id))

    def delete_job(self, ref: str) -> Json:
        return {"id": self._tell(f"REMOVE {_word(ref)}")["id"], "removed": True}

    def pause_job(self, ref: str, until: str | None, why: str | None) -> Json:
        options = [format_option(key, text) for key, text in (("until", until), ("why", why)) if text]
        self._tell(" ".join(["PAUSE", _word(ref), *options]))
        return self.get_job(ref)

    def resume_job(self, ref: str) -> Json:
        self._tell(f"RESUME {_word(ref)}")
        return self.get_job(ref)

    # --- runs ---

    def execute_job_now(self, ref: str, args: dict[str, Any]) -> Json:
        options = [format_option(f"arg.{key}", to_arg(value)) for key, value in args.items()]
        return self.get_execution(self._tell(" ".join(["RUN", _word(ref), *options]))["run"])

    def cancel_execution(self, run: int) -> Json:
        self._tell(f"CANCEL {run}")
        return self.get_execution(run)

    def get_executions(self, ref: str | None, state: str | None, limit: int) -> list[Json]:
        words = ["RUNS", *([_word(ref)] if ref else []), *([format_option("state", state)] if state else [])]
        return [_plain(to_execution(row)) for row in self._rows(" ".join([*words, f"limit={limit}"]))]

    def get_execution(self, run: int) -> Json:
        rows = self._rows(f"RUNS run={run} limit=1")
        if not rows:
            raise CronflowError("not-found", f"there is no execution {run}")
        return _plain(to_execution(rows[0]))

    def get_log(self, run: int) -> list[Json]:
        return [_plain(each) for each in to_lines(self._rows(f"LOG {run}"))]

    # --- the rest ---

    def preview_schedule(self, cron: str, timezone: str | None, count: int) -> list[Json]:
        quoted = '"' + cron.replace("\\", "\\\\").replace('"', '\\"') + '"'
        zone = [format_option("tz", timezone)] if timezone else []
        rows = self._rows(" ".join(["NEXT", quoted, f"n={count}", *zone]))
        keys = {"local": "local_time_with_offset", "utc": "UTC", "remark": "remark"}
        return [{key: row[column] for key, column in keys.items()} for row in rows]

    def get_system_status(self) -> Json:
        summary, workers, moments = self.door.ask("SUMMARY", "WORKERS", "NEXT all n=10")
        for _, status in (summary, workers, moments):
            _check(status)
        pairs = {row["key"]: row["value"] for row in summary[0]}
        return {
            "jobs": {"total": pairs["tasks"]}
            | {key[6:]: value for key, value in pairs.items() if key.startswith("tasks-")},
            "last24h": {key[6:]: value for key, value in pairs.items() if key.startswith("fires-")},
            "workers": [_plain(to_worker(row)) for row in workers[0]],
            "upcoming": [
                {"jobId": row["id"], "jobName": row["jobName"], "at": row["UTC"]} for row in moments[0]
            ],
        }

    def _rows(self, line: str) -> Rows:
        ((rows, status),) = self.door.ask(line)
        _check(status)
        return rows

    def _tell(self, line: str, words: Words | None = None) -> Json:
        ((_, status),) = self.door.ask(line)
        return _check(status, words)


def _word(ref: str) -> str:
    """One that can be no other word of a line."""
    if not REF.fullmatch(ref):
        raise CronflowError("not-found", f'there is no job "{ref[:80]}"')
    return ref


@contextmanager
def _refusing() -> Iterator[None]:
    """What is refused, as callers are told of it."""
    try:
        yield
    except Wrong as wrong:
        raise CronflowError(wrong.code, wrong.message, wrong.field) from None


def _check(status: Json, words: Words | None = None) -> Json:
    if not status["ok"]:
        with _refusing():
            raise about(Refusal(status["code"], status["message"]), words or Words())
    return status


def _plain(value: Any) -> Json:
    found: Json = msgspec.to_builtins(value)
    return found
