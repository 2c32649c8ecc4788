"""The first page: whether last night went well, what did not, why, and what it said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from litestar import get
from litestar.response import Stream

from ...base.text import format_time
from ...tasks.targets import notice_name
from ..line import Row
from . import wording
from .runs import tell_own
from .visit import Visit, Visitor

LOGS = 6  # failures whose last lines stand on the page; of the others there is a link
TAIL = 8
MOST = 50  # failures on the page; the others are counted, and stand in the list of runs
HOURS = 24
BAR = 68  # of 78, so that parts of 4 have place
DISPOSITIONS = ("ok", "failed", "timeout", "lost", "missed", "skipped", "cancelled")
WRONG = ",".join(wording.BAD)


@get("/")
async def home(visit: Visitor) -> Stream:
    """Last night in one sentence, then in the order in which somebody has to act."""
    failed, expects = await visit.look("FAILED", "EXPECTS")
    now, zone = visit.frame["now"], visit.frame["zone"]
    since = wording.evening_before(now, zone).astimezone(UTC)
    (proof,) = await visit.ask_all(f"PROVE since={format_time(since)}")
    rows = sorted(failed.rows, key=ended, reverse=True)
    is_new = [(wording.parse_time(row["ended"]) or since) >= since for row in rows]
    problems = [row for row, new in zip(rows, is_new, strict=True) if new]
    before = [row for row, new in zip(rows, is_new, strict=True) if not new]
    late = [row for row in expects.rows if row["state"] in ("late", "failed")]
    counts = {key: int(proof.pairs.get(key) or 0) for key in (*DISPOSITIONS, "pending")}
    jobs = visit.frame["status"]["tasks"]
    wrong = sum(counts[state] for state in wording.BAD)
    tone, sentence = wording.verdict(problems, counts["ok"], wrong, counts["pending"], len(late), jobs)

    async def later() -> dict[str, Any]:
        return {"before": before, "late": late} | await details(
            visit, problems, {row["id"] for row in rows}, since
        )

    return visit.stream(
        "home.html",
        f"FAILED since={format_time(since)}",
        "PROVE last=1d",
        "NEXT all n=8",
        later=later,
        tone=tone,
        sentence=sentence,
        since=format_time(since),
        counts=counts,
        jobs=jobs,
        more=len(problems) - MOST,
    )


async def details(visit: Visit, problems: list[Row], still: set[int], since: datetime) -> dict[str, Any]:
    """The last lines of what failed, what went well again, and what is going on."""
    now = visit.frame["now"]
    running, upcoming, wrong, *hours = await visit.ask_all(
        "RUNS state=running,sent,queued limit=8 count=yes",
        "NEXT all n=8",
        f"RUNS state={WRONG} since={format_time(since)} limit={MOST}",
        *proofs(last_hours(now)),
    )
    gone = await gone_wrong(visit, [row for row in wrong.rows if row["id"] not in still])
    shown = sorted([*problems, *gone], key=ended, reverse=True)[:MOST]
    await tell_own(visit, shown)
    logs = await visit.ask_all(*(log_line(row) for row in shown[:LOGS]))
    for row, log in zip(shown, logs, strict=False):
        row["log"] = log.rows if log.status["ok"] else []
    return {
        "problems": shown,
        "running": running,
        "upcoming": upcoming.rows,
        "recovered": recovered(wrong.rows, still | {row["id"] for row in gone}),
        "hours": bars(now, visit.frame["zone"], [answer.pairs for answer in hours]),
    }


async def gone_wrong(visit: Visit, wrong: list[Row]) -> list[Row]:
    """Of runs that went wrong, newest first, the end of each job that is gone; FAILED has the others.

    What is to run once goes when it has; nobody would hear of it otherwise.
    """
    last = {row["id"]: row for row in reversed(wrong) if not is_notice(row)}
    jobs = await visit.ask_all(*(f"GET {ref}" for ref in last))
    gone = [
        row for row, job in zip(last.values(), jobs, strict=True) if job.status.get("code") == "not-found"
    ]
    ends = await visit.ask_all(*(f"RUNS {row['id']} state=ok,{WRONG} limit=1" for row in gone))
    return [
        row | {"since": row["ended"], "gone": True}
        for row, end in zip(gone, ends, strict=True)
        if end.rows == [row]
    ]


def is_notice(row: Row) -> bool:
    """Whether it told somebody something: of those that did not arrive FAILED names the last."""
    return bool(row["jobName"] == notice_name(row["id"]))


def ended(row: Row) -> str:
    return str(row["ended"] or "")


def log_line(row: Row) -> str:
    """The end of what it wrote; a fire that was missed has written nothing."""
    return f"LOG {row['run']} tail={TAIL}" if row["run"] else "LOG 0"


def proofs(edges: list[datetime]) -> list[str]:
    """PROVE of the time between each two: the daemon keeps these counts, however much has run."""
    return [f"PROVE since={format_time(one)} until={format_time(two)}" for one, two in pairwise(edges)]


def last_hours(now: datetime) -> list[datetime]:
    """Where each begins, and where the last one ends."""
    end = now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    return [end - timedelta(hours=ago) for ago in range(HOURS, -1, -1)]


def bars(now: datetime, zone: ZoneInfo, hours: list[Row]) -> list[Row]:
    """For each hour how many fires ended how, and how high each part stands."""
    rows: list[Row] = []
    for at, pairs in zip(last_hours(now), hours, strict=False):
        counts = {key: int(pairs.get(key) or 0) for key in DISPOSITIONS}
        bad = counts["failed"] + counts["timeout"] + counts["lost"]
        label = f"{at.astimezone(zone):%H:%M}"
        rows.append({"label": label, "good": counts["ok"], "bad": bad, "missed": counts["missed"]})
    most = max((row["good"] + row["bad"] + row["missed"] for row in rows), default=0) or 1
    for row in rows:
        for key in ("good", "bad", "missed"):
            # What happened at all is seen: one failure beside ten thousand that went well, too.
            row[f"{key}_height"] = max(4, round(row[key] / most * BAR)) if row[key] else 0
    return rows


def recovered(rows: list[Row], still: set[int]) -> list[Row]:
    """Jobs of which something went wrong, and the next went well: each once, with how often."""
    found: dict[int, Row] = {}
    for row in rows:
        if row["id"] not in still and not is_notice(row):
            found.setdefault(row["id"], row | {"times": 0})["times"] += 1
    return list(found.values())
