"""Making and changing a job: what it means is told while it is typed, and a refusal stands at its field."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from typing import Any

import orjson
from litestar import get, post
from litestar.params import FromPath

from ...base.errors import Refusal
from ...base.text import format_option, quote
from ...tasks.kinds import TYPES
from ...tasks.options import MASK, RULES
from ..job import DEFAULTS
from ..line import Answer
from ..talks import once, ref_of
from .runs import may_change
from .visit import Page, Visit, Visitor
from .wording import visible

# The fields that are options of the same name; `command`, `schedule` and what repeats stand apart.
OPTIONS = ("name", *(key for key in RULES if key != "meta"))
REPEATED = ("env", "header")  # a line each, NAME=VALUE
FIELDS = ("schedule", "command", *OPTIONS, *REPEATED)
CHOICES = {key: RULES[key].words for key in ("prio", "overlap", "catchup", "lost", "type")}
FIELD_OF_CODE = {
    "bad-schedule": "schedule", "exists": "name", "cycle": "after", "not-found": "after", "syntax": "command",
}  # fmt: skip
IDEAS = (
    ("* * * * *", "every minute"),
    ("every 5 minutes", "every 5 minutes"),
    ("@hourly", "every hour"),
    ("daily at 3 AM", "every night"),
    ("0 9 * * 1-5", "weekdays at 9"),
    ("weekly on monday", "every Monday"),
    ("0 0 1 * *", "first of the month"),
    ("@at tomorrow at 8 AM", "once, tomorrow"),
    ("@after", "after other jobs"),
)
COMMANDS = {
    "shell": ("Command line", "/usr/local/bin/backup --all", "A line for /bin/sh -c."),
    "script": ("Program and arguments", "/usr/local/bin/backup --all", "Words, without a shell."),
    "http": ("Method and URL", "POST https://example.org/hook", "GET, POST, PUT …, a blank, and the URL."),
    "webhook": ("URL", "https://example.org/hook", "Data goes as JSON, signed where there is a secret."),
    "email": ("Recipients", "ann@example.org, bob@example.org", 'Data: {"subject": "…", "text": "…"}'),
    "custom": ("Handler", "import-orders", "The name of a handler that a worker has; data goes to it."),
    "echo": ("Text", "hello", "Is written to the output."),
    "sleep": ("Seconds", "10", "Waits so long."),
    "calculate": ("Expression", "2 * (3 + 4)", "Its value is written to the output."),
}  # fmt: skip


@get("/jobs/new")
async def new(visit: Visitor) -> Page:
    """An empty form, or one that an address has filled in: `?schedule=…&command=…`, or `?like=JOB`."""
    like = visit.query("like")
    filled = {
        key: visit.query(key) for key in ("schedule", "command", "type", "name", "tags") if visit.query(key)
    }
    answers = await visit.look("TYPES", *([f"GET {ref_of(like)}"] if like else []))
    visit.only(visit.frame["may"]("user"))
    if like:
        filled = fields_of(answers[1].check().pairs) | {"name": ""} | filled
    return await _form(visit, filled, types=answers[0].rows)


@get("/jobs/{ref:str}/edit")
async def edit(visit: Visitor, ref: FromPath[str]) -> Page:
    """The form with what the job is now."""
    got, types = await visit.look(f"GET {ref_of(ref)}", "TYPES")
    job = got.check().pairs
    visit.only(may_change(visit, job))
    return await _form(visit, fields_of(job), types=types.rows, ref=ref)


def fields_of(job: Mapping[str, Any]) -> dict[str, str]:
    """The form's fields as GET has them; what is a default stays empty."""
    fields = {
        key: str(job[key]) for key in OPTIONS if job.get(key) is not None and DEFAULTS.get(key) != job[key]
    }
    fields |= {"name": job["jobName"], "schedule": job["schedule"], "command": job["command"]}
    fields["type"], fields["rev"] = str(job.get("type") or "shell"), str(job.get("rev", ""))
    for kind in REPEATED:
        found = [
            f"{key.partition('.')[2]}={value}" for key, value in job.items() if key.startswith(f"{kind}.")
        ]
        if found:
            fields[kind] = "\n".join(found)
    return fields


async def _form(
    visit: Visit,
    fields: Mapping[str, str],
    types: list[dict[str, Any]],
    ref: str = "",
    error: Refusal | None = None,
    tried: dict[str, Any] | None = None,
) -> Page:
    preview = await preview_of(visit, fields.get("schedule", ""), fields.get("tz", ""))
    kind = fields.get("type") or "shell"
    (templates,) = await visit.ask_all("TEMPLATE LIST")
    here = {row["type"]: row["count"] for row in types}
    workers = sorted({name for row in types for name in (row["workers"] or "").split(",") if name})
    handlers = ", ".join(work.removeprefix("custom:") for work in here if work.startswith("custom:"))
    label, like, hint = COMMANDS["custom"]
    custom = (label, like, f"{hint} There are: {handlers}." if handlers else hint)
    return visit.page(
        "job_form.html",
        f"SET {ref} key=value …" if ref else "ADD [key=value …] SCHEDULE COMMAND",
        "HELP ADD",
        ref=ref,
        fields=fields,
        error=error,
        wrong=field_of(error) if error else "",
        kind=kind if kind in COMMANDS else "shell",
        types=[(each, here.get(each, 0)) for each in TYPES],
        commands=COMMANDS | {"custom": custom},
        templates=[row["name"] for row in templates.rows] if not ref else [],
        places=("any", "all", *workers),
        choices=CHOICES,
        defaults=DEFAULTS,
        ideas=IDEAS,
        preview=preview,
        tried=tried,
        once=fields.get("once") or secrets.token_hex(8),
    )


def field_of(error: Refusal) -> str:
    """Which field a refusal is about: the daemon names the option it stumbled on."""
    key = error.option.partition(".")[0]
    return key if key in {*OPTIONS, *REPEATED, "command", "from"} else FIELD_OF_CODE.get(error.code, "")


# --- the preview ----------------------------------------------------------------------------------


async def preview_of(visit: Visit, schedule: str, tz: str) -> dict[str, Any]:
    """What a schedule means, its next moments, and what clock changes do to it; or why it is none."""
    if not schedule or "\n" in schedule:
        return {}
    zone = f" {format_option('tz', tz)}" if tz else ""
    quoted = quote(schedule)
    described, moments = await visit.ask_all(f"DESCRIBE {quoted}{zone}", f"NEXT {quoted} n=5{zone}")
    if not described.status["ok"]:
        return {"refused": described.status["message"]}
    return described.pairs | {"moments": moments.rows}


@get("/jobs/preview")
async def preview(visit: Visitor) -> Page:
    """The part of the form that changes while a schedule is typed."""
    await visit.look()
    return visit.page(
        "preview.html", preview=await preview_of(visit, visit.query("schedule"), visit.query("tz"))
    )


# --- saving ---------------------------------------------------------------------------------------


@post("/jobs/new")
async def add(visit: Visitor) -> Any:
    """Adds it, or tries it once."""
    return await _save(visit)


@post("/jobs/{ref:str}/edit")
async def change(visit: Visitor, ref: FromPath[str]) -> Any:
    """Says to the daemon what differs from what the job is, and nothing else."""
    return await _save(visit, ref)


async def _save(visit: Visit, ref: str = "") -> Any:
    """A refusal comes back with the form as it was filled in."""
    form = await _filled_in(visit)
    try:
        if "try" in form:
            return await _try(visit, form, ref and ref_of(ref))
        if not ref:
            answer = await _order(visit, form, "ADD " + record(form))
            return visit.go(f"/jobs/{answer.status['id']}", "added")
        before = fields_of((await visit.ask(f"GET {ref_of(ref)}")).pairs)
        words = changes(before, form)
        if not words:
            return visit.go(f"/jobs/{ref}", "unchanged")
        seen = form.get("rev", "")
        said = f"SET {ref} {f'rev={seen} ' if seen.isdecimal() else ''}{' '.join(words)}"
        answer = await visit.ask(said)
        return visit.go(f"/jobs/{answer.status['id']}", "changed")  # it may have another name now
    except Refusal as error:
        if error.code in ("auth-required", "denied"):
            raise
        if error.option == "rev":
            form, error = await _put_over(visit, ref, form, error)
        (types,) = await visit.look("TYPES")
        return await _form(visit, form, types.rows, ref, error)


async def _put_over(
    visit: Visit, ref: str, form: dict[str, str], error: Refusal
) -> tuple[dict[str, str], Refusal]:
    """What was typed over what somebody else has saved since; what was not touched is as he has it."""
    old, now, history = await visit.ask_all(
        f"GET {ref} @{form['rev']}", f"GET {ref}", f"HISTORY {ref} limit=1"
    )
    if not (old.status["ok"] and now.status["ok"] and history.rows):
        return form, error
    before, newest = _shown(fields_of(old.pairs)), fields_of(now.pairs)
    untouched = [key for key in FIELDS if key in form and not _is_other(before, key, form[key])]
    last = history.rows[0]
    told = f"{last['who']} has changed it meanwhile ({last['change']}). What you typed stands here over that"
    form = form | {key: newest.get(key, "") for key in untouched} | {"rev": newest["rev"]}
    return form, Refusal(error.code, f"{told}: save it again")


async def _order(visit: Visit, form: Mapping[str, str], said: str) -> Answer:
    """What one page sends is done once, however often it is sent: by two clicks, or where no answer came."""
    page = re.fullmatch("[0-9a-f]{16}", form.get("once", ""))
    return await visit.ask(once(page and f"{page[0]}-{sha256(said.encode()).hexdigest()}", said))


async def _filled_in(visit: Visit) -> dict[str, str]:
    """The form; JSON that somebody wrote on several lines is the same on one, as which it can travel."""
    form = await visit.form()
    for key in ("payload", "body"):
        with suppress(orjson.JSONDecodeError):
            orjson.loads(form.get(key, ""))  # no newline stands within its texts
            form[key] = form[key].replace("\n", " ")
    return form


async def _try(visit: Visit, form: dict[str, str], ref: str = "") -> Page:
    """Runs what is in the form once, as a job of its own, and shows the form with it."""
    wanted = {key: value for key, value in form.items() if key not in NOT_ONCE}
    answer = await _order(visit, form, "NOW " + record(wanted))
    types, runs = await visit.look("TYPES", f"RUNS {answer.status['id']} limit=1")
    tried = {"id": answer.status["id"], "run": runs.rows[0]["run"] if runs.rows else None}
    return await _form(visit, form | {"once": ""}, types.rows, ref, tried=tried)


NOT_ONCE = (
    "name paused schedule tags after skip start end count spread jitter catchup keep notify retry overlap"
).split()


def repeated(kind: str, text: str) -> dict[str, str]:
    """Lines NAME=VALUE as options; raises Refusal where one is none."""
    found = {}
    for line in filter(None, map(str.strip, text.split("\n"))):
        name, sign, value = line.partition("=")
        if not sign or not re.fullmatch(r"[^\s=\"]+", name):
            raise Refusal("bad-option", f'{kind}= wants NAME=VALUE, one a line; "{line[:60]}" is none', kind)
        found[f"{kind}.{name}"] = value
    return found


def record(form: Mapping[str, str]) -> str:
    """The filled-in form as the record of ADD {…}; of NOW, where there is no schedule."""
    fields = {"schedule": form["schedule"]} if "schedule" in form else {}
    fields["command"] = form.get("command", "")
    for key in OPTIONS:
        # A choice that was left as it stood says nothing; a default that was typed is meant, as by ADD.
        if form.get(key) and not (key in CHOICES and DEFAULTS.get(key) == form[key]):
            fields["jobName" if key == "name" else key] = form[key]
    for kind in REPEATED:
        fields |= repeated(kind, form.get(kind, ""))
    if form.get("from"):
        fields["from"] = form["from"]
    return orjson.dumps(fields | ({"paused": True} if form.get("paused") else {})).decode()


def changes(before: Mapping[str, str], form: Mapping[str, str]) -> list[str]:
    """Words of SET: what the form says otherwise. A secret that shows as `***` was not touched."""
    words = []
    before = _shown(before)
    for key in ("schedule", "command", *OPTIONS):
        now = form.get(key)
        if now is not None and now != MASK and _is_other(before, key, now):
            words.append(format_option(key, now) if now else f"{key}=")
    for kind in REPEATED:
        if kind not in form:
            continue
        old, new = repeated(kind, before.get(kind, "")), repeated(kind, form[kind])
        words += [
            format_option(key, value) for key, value in new.items() if old.get(key) != value and value != MASK
        ]
        words += [f"{key}=" for key in old if key not in new]
    return words


def _shown(fields: Mapping[str, str]) -> dict[str, str]:
    """As a page shows them and gives them back: no blanks around them, and what nobody sees written out."""
    return {key: visible(value).strip() for key, value in fields.items()}


def _is_other(before: Mapping[str, str], key: str, now: str) -> bool:
    default = DEFAULTS.get(key)
    return now != before.get(key, "") and not (now == default == before.get(key, default))
