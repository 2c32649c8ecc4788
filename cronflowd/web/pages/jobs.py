"""Jobs: the list, one with its past and its next moments, what a button does, who changed what; pauses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from functools import partial
from typing import Any

from litestar import get, post
from litestar.params import FromPath
from litestar.response import Redirect, Stream

from ...base.errors import Refusal
from ...base.text import format_option
from ...tasks.kinds import TYPES
from ..job import DEFAULTS
from ..talks import ref_of
from . import drawing, wording
from .runs import may_change
from .visit import ROWS, Page, Visit, Visitor, inner

STATES = {
    "": "All",
    "running,queued": "Under way",
    "scheduled": "Scheduled",
    "paused": "Paused",
    "idle": "Idle",
    "unreadable": "Unreadable",
}
SORTS = {"": "Oldest first", "name": "Name", "next": "Next run", "-last": "Last run", "-id": "Newest first"}
WEEKS = 26
LAST_RUNS = 15
# Lines of who waits for whom: of hundreds that wait for hundreds there are tens of thousands.
MAX_WAITING = 300
MAX_PAUSED = 100  # whose reasons are asked for
# GET's rows that have a place of their own on the page, or say nothing new.
PLACED = frozenset(
    "id jobName schedule command state next rev desc tags type owner zone means counts-from cron paused after"
    " tz title meta updated note".split()
)


@get("/jobs")
async def jobs(visit: Visitor) -> Page:
    """All jobs, or those that are looked for."""
    known = {"state": STATES.__contains__, "sort": SORTS.__contains__, "type": TYPES.__contains__}
    asked = visit.asked(**known, search=str, tag=str)
    line = f"LIST {visit.options(**asked)}".strip()
    answer = await visit.read(f"{line} {visit.span}")
    await tell_pauses(visit, answer.rows)
    told: dict[str, Any] = {"rows": answer.rows, "total": answer.status.get("total")} | asked
    return visit.page("jobs.html", line, **told, states=STATES, sorts=SORTS, types=TYPES)


async def tell_pauses(visit: Visit, rows: list[dict[str, Any]]) -> None:
    """Adds to each row of a paused task why it is, until when, and whether this person may resume it."""
    paused = [row for row in rows if row["paused"]][:MAX_PAUSED]
    for row, answer in zip(paused, await visit.ask_all(*(f"GET {row['id']}" for row in paused)), strict=True):
        job = answer.pairs if answer.status["ok"] else {}
        row |= {"pause": wording.pause_of(job.get("paused")), "is_own": may_change(visit, job)}


@get("/jobs/{ref:str}")
async def job_page(visit: Visitor, ref: FromPath[str]) -> Stream | Redirect:
    """One job: what it does, whether it went well, when it comes next, and why it did what it did.

    Of one that is gone there are its runs.
    """
    ref = ref_of(ref)
    (got,) = await visit.look(f"GET {ref}")
    if got.status.get("code") == "not-found" and (await visit.ask(f"RUNS {ref} limit=1")).rows:
        return visit.go(f"/runs?job={ref}")
    job = got.check().pairs
    at = visit.query("at")
    why = f"WHY {ref}" + (f' "{at}"' if re.fullmatch("[0-9 :TZ.+-]{5,40}", at) else "")
    return visit.stream(
        "job.html",
        f"GET {ref}",
        f"RUNS {ref}",
        why,
        later=partial(details, visit, ref, why),
        job=job,
        at=at,
        pause=wording.pause_of(job.get("paused")),
        options=options_of(job),
        waits=[(key, value) for key, value in job.items() if re.fullmatch("run-[0-9]+|after-.*", key)],
        is_own=may_change(visit, job),
    )


async def details(visit: Visit, ref: str, why: str) -> dict[str, Any]:
    """What is to come, and what was: as far back as files hold it."""
    moments, runs, stats, days, causes, history, waiting, describe = await visit.ask_all(
        f"NEXT {ref} n=5",
        f"RUNS {ref} limit={LAST_RUNS}",
        f"STATS {ref}",
        f"STATS {ref} by=day {visit.options(tz=visit.frame['zone_name'])} last={WEEKS * 7}d",
        why,
        f"HISTORY {ref} limit=4",
        f"DEPS {ref}",
        f"DESCRIBE {ref}",
    )
    today = visit.frame["now"].astimezone(visit.frame["zone"]).date()
    by_day = {date.fromisoformat(row["period"]): row for row in days.rows}
    return {
        "moments": moments.rows,
        "runs": runs.rows,
        "stats": stats.rows[0] if stats.rows else {"fires": 0},
        "calendar": drawing.calendar(by_day, today, WEEKS),
        "causes": causes,
        "history": history.rows,
        "waiting": waiting.rows[:MAX_WAITING] if len(waiting.rows) > 1 else [],
        "more_waiting": len(waiting.rows) - MAX_WAITING,
        "clock_changes": describe.pairs.get("clock-changes") if describe.status["ok"] else None,
    }


def options_of(job: Mapping[str, Any]) -> dict[str, Any]:
    """What was said of it beyond the defaults."""
    return {
        key: value
        for key, value in job.items()
        if key not in PLACED
        and value is not None
        and DEFAULTS.get(key) != value
        and not re.match("fires-|run-|after-|added|last-|paused-", key)
    }


# --- buttons --------------------------------------------------------------------------------------


@post("/jobs/{ref:str}/run")
async def run(visit: Visitor, ref: FromPath[str]) -> Redirect:
    """Now; then to the run's page, where its output comes."""
    answer = await visit.ask(f"RUN {ref_of(ref)}")
    return visit.go(f"/runs/{answer.status['run']}", "started")


@get("/jobs/{ref:str}/pause")
async def ask_pause(visit: Visitor, ref: FromPath[str]) -> Page:
    """Until when, and why."""
    job = await _own(visit, ref)
    return visit.page(
        "pause.html",
        f'PAUSE {ref} until=2h why="…"',
        title=f"Pause {job['jobName']}",
        said={"what": str(job["id"]), "next": f"/jobs/{ref}"},
    )


@post("/jobs/{ref:str}/resume")
async def resume(visit: Visitor, ref: FromPath[str]) -> Redirect:
    await visit.ask(f"RESUME {ref_of(ref)}")
    return visit.go(inner((await visit.form()).get("next") or f"/jobs/{ref}"), "resumed")


@get("/jobs/{ref:str}/remove")
async def ask_remove(visit: Visitor, ref: FromPath[str]) -> Page:
    """Asks before anything is gone."""
    job = await _own(visit, ref)
    text = "It runs no more. What it did stays in the history, and UNDO brings it back as it was."
    return visit.sure(f"REMOVE {ref}", f"Remove {job['jobName']}?", text, "Remove the job", f"/jobs/{ref}")


@post("/jobs/{ref:str}/remove")
async def remove(visit: Visitor, ref: FromPath[str]) -> Redirect:
    await visit.ask(f"REMOVE {ref_of(ref)}")
    return visit.go("/jobs", "removed")


async def _own(visit: Visit, ref: str) -> dict[str, Any]:
    """The job, for whoever may change it; raises Refusal."""
    job = (await visit.read(f"GET {ref_of(ref)}")).pairs
    visit.only(may_change(visit, job))
    return job


# --- who changed what -----------------------------------------------------------------------------


@get("/jobs/{ref:str}/history")
async def history(visit: Visitor, ref: FromPath[str]) -> Page:
    """Each revision, and any two of them beside each other."""
    ref = ref_of(ref)
    one, two = visit.query("from"), visit.query("to")
    is_compared = one.isdecimal() and two.isdecimal() and len(one + two) < 20
    wanted = [f"GET {ref} @{one}", f"GET {ref} @{two}"] if is_compared else []
    answers = await visit.look(f"HISTORY {ref} {visit.one_more}", f"GET {ref}", *wanted)
    rows, job = answers[0].check().rows, answers[1].pairs if answers[1].status["ok"] else {}
    old, new = (answer.check().pairs for answer in answers[2:4]) if is_compared else ({}, {})
    return visit.page(
        "history.html",
        f"HISTORY {ref}", *wanted, f"ROLLBACK {ref} REV",
        ref=ref,
        rows=rows[:ROWS],
        is_more=len(rows) > ROWS,
        job=job,
        old=old,
        new=new,
        one=one,
        two=two,
        differs=differences(old, new),
        is_own=bool(job) and may_change(visit, job),
    )  # fmt: skip


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Keys of two revisions whose values are not the same."""
    keys = dict.fromkeys([*old, *new])
    return [
        (key, old.get(key), new.get(key))
        for key in keys
        if key not in ("rev", "changed", "who") and old.get(key) != new.get(key)
    ]


@post("/jobs/{ref:str}/rollback")
async def rollback(visit: Visitor, ref: FromPath[str]) -> Redirect:
    rev = (await visit.form()).get("rev", "")
    await visit.ask(f"ROLLBACK {ref_of(ref)} {ref_of(rev, 'revision')}")
    return visit.go(f"/jobs/{ref}", "rolled-back")


@get("/changes")
async def changes(visit: Visitor) -> Page:
    """All changes, newest first; a page of them at a time."""
    rows = (await visit.read(f"HISTORY {visit.one_more}")).rows
    return visit.page("changes.html", "HISTORY", "UNDO", rows=rows[:ROWS], is_more=len(rows) > ROWS)


@get("/undo")
async def ask_undo(visit: Visitor) -> Page:
    """Shows what would be taken back, and asks."""
    text = visit.query("n", "1")
    many = min(max(int(text), 1), 100) if text.isdecimal() and len(text) < 4 else 1
    (answer,) = await visit.look(f"HISTORY limit={many}")
    visit.only(visit.frame["may"]("user"))
    return visit.page("undo.html", f"UNDO {many}", rows=answer.rows, many=many)


@post("/undo")
async def undo(visit: Visitor) -> Redirect:
    """Takes back what was shown; another change that came meanwhile is not what was meant."""
    form = await visit.form()
    many, newest = form.get("n", "1"), form.get("newest", "")
    rows = (await visit.ask("HISTORY limit=1")).rows
    if many.isdecimal() and rows and str(rows[0]["change"]) == newest:
        await visit.ask(f"UNDO {int(many)}")
        return visit.go("/changes", "undone")
    return visit.go(f"/undo?n={many if many.isdecimal() else 1}")


@get("/pauses")
async def pauses(visit: Visitor) -> Page:
    """What is paused, why and until when; and pausing more."""
    answer = await visit.read(f"LIST state=paused {visit.span}")
    rows = answer.rows
    await tell_pauses(visit, rows)
    return visit.page(
        "pauses.html",
        "LIST state=paused", 'PAUSE tag=night until=2h why="…"', "RESUME all",
        rows=rows,
        total=answer.status.get("total"),
    )  # fmt: skip


@post("/resume")
async def resume_all(visit: Visitor) -> Redirect:
    """Everything."""
    form = await visit.form()
    await visit.ask("RESUME all")
    return visit.go(inner(form.get("next") or "/pauses"), "resumed")


@post("/pause")
async def pause(visit: Visitor) -> Redirect | Page:
    """One, a tag, or all: until a time, with a reason. A time that is none is told where it was typed."""
    form = await visit.form()
    what = form.get("what") or "all"
    until = form.get("until") or form.get("for", "")
    words = visit.options(until=until, why=form.get("why", ""))
    chosen = format_option("tag", form["tag"]) if form.get("tag") else what if what == "all" else ref_of(what)
    back = inner(form.get("next") or "/changes")
    try:
        await visit.ask(f"PAUSE {chosen} {words}".strip())
    except Refusal as error:
        if error.option != "until":
            raise
        await visit.look()
        line = f'PAUSE {chosen} until=2h why="…"'
        return visit.page(
            "pause.html", line, error=error, title=f"Pause {chosen}", said=form | {"next": back}
        )
    return visit.go(back, "paused")
