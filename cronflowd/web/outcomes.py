"""Runs, what they wrote, and who runs them, as JSON has them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from itertools import islice
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from .line import Row

Level = Literal["info", "error", "system"]
LEVELS: dict[str, int] = {"system": 0, "info": 1, "error": 2}
LEVEL_OF = {fd: level for level, fd in LEVELS.items()}
S = TypeVar("S", bound=Struct)


class Execution(Struct, rename="camel"):
    """One attempt; a moment that was skipped or missed has none, and no id."""

    id: int | None
    job_id: int
    job_name: str
    attempt: int | None
    state: str
    due_at: str
    started_at: str | None
    ended_at: str | None
    duration_ms: int | None
    worker: str | None
    exit_code: int | None
    why: str | None


class LogLine(Struct):
    """What a run wrote: `info` to standard output, `error` to standard error; `system` are our remarks."""

    level: Level
    text: str


class Occurrence(Struct):
    """A moment; `remark` tells what is special: moved, repeated-hour, skipped …"""

    local: str
    utc: str
    remark: str | None


UPCOMING, MOMENTS = 10, 100  # how many are told; and looked at, since of a job that is paused none counts


class Upcoming(Struct, rename="camel"):
    """A job that comes soon."""

    job_id: int
    job_name: str
    at: str


class Worker(Struct, rename="camel"):
    """A machine that runs jobs."""

    name: str
    state: str
    slots: int
    busy: int
    labels: dict[str, str]
    can: list[str]
    since: str | None
    last_seen_at: str | None
    address: str | None
    version: str | None


def of_row(kind: type[S], row: Row, **named: str) -> S:
    """A row as JSON has it: each field is the column of its name, or the one that `named` says for it."""
    return kind(**{field: row[named.get(field, field)] for field in kind.__struct_fields__})


def plain(value: Struct) -> dict[str, Any]:
    """It as JSON has it."""
    found: dict[str, Any] = msgspec.to_builtins(value)
    return found


def to_execution(row: Row) -> Execution:
    started, ended = row["started"], row["ended"]
    took_ms = None
    if started and ended:
        took = datetime.fromisoformat(ended) - datetime.fromisoformat(started)
        took_ms = round(took.total_seconds() * 1000)
    return Execution(
        row["run"], row["id"], row["jobName"], row["attempt"], row["state"], row["due"], started, ended,
        took_ms, row["worker"], row["exit"], row.get("why"),
    )  # fmt: skip


def to_lines(rows: Iterable[Row]) -> list[LogLine]:
    """Whole lines, each put together from its rows."""
    lines: list[LogLine] = []
    open_at: dict[int, int] = {}  # of each fd, the line that goes on
    for row in rows:
        fd, text = row["fd"], row["text"]
        if fd in open_at:
            lines[open_at[fd]].text += text
        else:
            lines.append(LogLine(LEVEL_OF[fd], text))  # type: ignore[arg-type]
        if row.get("end") == "no-newline":
            open_at.setdefault(fd, len(lines) - 1)
        else:
            open_at.pop(fd, None)
    return lines


def to_occurrences(rows: Iterable[Row]) -> list[Occurrence]:
    return [of_row(Occurrence, row, local="local_time_with_offset", utc="UTC") for row in rows]


def to_upcoming(rows: Iterable[Row]) -> list[Upcoming]:
    """Of the moments to come, those that bring a run."""
    runs = (row for row in rows if row["remark"] in (None, "moved", "repeated-hour"))
    return [
        of_row(Upcoming, row, job_id="id", job_name="jobName", at="UTC") for row in islice(runs, UPCOMING)
    ]


def counts(pairs: Row, prefix: str) -> dict[str, int]:
    """Of rows such as `tasks-paused, 3` the numbers, by their last word."""
    return {key.removeprefix(prefix): value for key, value in pairs.items() if key.startswith(prefix)}


def to_worker(row: Row) -> Worker:
    labels = dict(each.split("=", 1) for each in (row["labels"] or "").split(",") if each)
    can = (row["can"] or "").split(",")
    return Worker(
        row["name"], row["state"], row["slots"], row["busy"], labels, can, row["since"], row["last-seen"],
        row["address"], row["version"],
    )  # fmt: skip
