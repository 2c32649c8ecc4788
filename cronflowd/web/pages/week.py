"""The week to come as a map of load by hour, what comes next, and the days that were."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

from litestar import get
from litestar.response import Stream

from .home import DISPOSITIONS, proofs
from .visit import Page, Visit, Visitor
from .wording import parse_time

DAYS = 7
PAST_DAYS = 60
LOAD = f"NEXT all by=hour last={DAYS}d"


@get("/week")
async def week(visit: Visitor) -> Stream:
    """Hours of the coming seven days, each as dark as workers will be busy in it."""
    await visit.look()
    lines = LOAD, "NEXT all n=20"
    return visit.stream("week.html", *lines, later=partial(details, visit))


async def details(visit: Visit) -> dict[str, Any]:
    """What the clock will start, and how much that is."""
    load, upcoming, changes, workers = await visit.ask_all(LOAD, "NEXT all n=20", "DST all", "WORKERS")
    now, zone = visit.frame["now"], visit.frame["zone"]
    cells: dict[tuple[date, int], dict[str, Any]] = {}
    for row in load.rows:
        local = (parse_time(row["hour"]) or now).astimezone(zone)
        cell = cells.setdefault((local.date(), local.hour), {"fires": 0, "busy": 0.0})
        cell["fires"] += row["fires"]
        cell["busy"] += float(row["busy-s"] or 0)
    first = now.astimezone(zone).date()
    # Where nobody knows yet how long things take, their number tells.
    measure = "busy" if any(cell["busy"] for cell in cells.values()) else "fires"
    busiest = sorted(cells.items(), key=lambda item: (-item[1][measure], item[0]))[:3]
    return {
        "days": [first + timedelta(days=at) for at in range(DAYS + 1)],
        "cells": cells,
        "measure": measure,
        "most": busiest[0][1][measure] if busiest else 0,
        "busiest": busiest,
        "slots": sum(row["slots"] for row in workers.rows if row["state"] in ("ready", "draining")),
        "load": load.status,
        "upcoming": upcoming.rows,
        "changes": [row for row in changes.rows if _is_soon(row["change"], now)][:20],
    }


def _is_soon(text: str, now: datetime) -> bool:
    at = parse_time(text)
    return at is not None and at - now < timedelta(days=45)


@get("/statistics")
async def statistics(visit: Visitor) -> Page:
    """Each day's fires and how they ended, from counts that are kept for ever."""
    await visit.look()
    zone = visit.frame["zone"]
    today = visit.frame["now"].astimezone(zone).date()
    days = [today - timedelta(days=at) for at in range(PAST_DAYS - 1, -1, -1)]
    # Counts stand by the hour in UTC: a day of the daemon's zone begins at an hour, nearly everywhere.
    edges = [
        datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
        for day in [*days, today + timedelta(days=1)]
    ]
    answers = await visit.ask_all(*proofs(edges))
    rows = [
        {"day": day} | {key: int(answer.pairs.get(key) or 0) for key in DISPOSITIONS}
        for day, answer in zip(days, answers, strict=True)
    ]
    while len(rows) > 7 and not any(rows[0][key] for key in DISPOSITIONS):
        rows.pop(0)
    return visit.page(
        "statistics.html", "PROVE last=1d", "STATS by=day last=30d", rows=rows, dispositions=DISPOSITIONS
    )
