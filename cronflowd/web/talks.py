"""What is said to the daemon about jobs and runs, whoever says it and however he waits for the answers.

A talk yields lines, which are said together, is sent their answers, and returns what comes of it. The HTTP
door holds it without a thread's waiting, the Python client over a plain socket.

A job is changed as it was seen: what is said of it is made words against one revision, and SET is told
which. If somebody was quicker, whoever wanted that revision is refused, and for anybody else it is done
again with the job as it is now.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from ..base.errors import Refusal
from ..base.names import REF
from ..base.nearest import meant
from ..base.text import format_option
from ..tasks.task import ENDED
from .fields import JobBody, Words, Wrong, about, to_arg, to_options, to_orders, to_words
from .job import Job, to_ended_job, to_job
from .line import Answer, Row, check_travels
from .outcomes import Execution, to_execution

KEY_HEADER = "Idempotency-Key"
MAX_TRIES = 8  # to change what others change, too
MAX_PAGE, MAX_LIMIT, MAX_MOMENTS = 1_000_000, 100, 1000  # pages; what stands on one; of a schedule

T = TypeVar("T")
Talk = Generator[Sequence[str], list[Answer], T]


# --- lines ------------------------------------------------------------------------------------------


def ref_of(text: str, what: str = "job") -> str:
    """A word that names one thing, and can be no other word of a line, nor of a path. Raises Refusal."""
    if not REF.fullmatch(text):
        raise Refusal("not-found", f'there is no {what} "{text[:80]}"')
    return text


def run_of(text: str) -> int:
    """The number of a run. Raises Refusal."""
    if not re.fullmatch("[1-9][0-9]{0,17}", text):
        raise Refusal("not-found", f'there is no execution "{text[:80]}"')
    return int(text)


def line(verb: str, *words: str | int, **options: Any) -> str:
    """A line of the protocol: options that are None are not said; `tz_` is `tz`."""
    said = {key.rstrip("_"): str(value) for key, value in options.items() if value is not None}
    return with_options(" ".join([verb, *map(str, words)]), said)


def with_options(start: str, options: Mapping[str, str]) -> str:
    """The same where keys are no identifiers. Raises Refusal naming the option that cannot travel."""
    for key, value in options.items():
        check_travels(value, key)
    return " ".join([start, *(format_option(key, value) for key, value in options.items())])


def in_quotes(text: str) -> str:
    """A word that may hold blanks; what cannot stand in a line is left for that to refuse."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def once(key: str | None, said: str) -> str:
    """With a key, a line that is done once, however often it is sent. Raises Wrong."""
    if key is None:
        return said
    if not re.fullmatch("[!#-~]{1,128}", key):
        raise Wrong("bad-option", "1 to 128 printable characters, no blanks or quotes", KEY_HEADER)
    return f"ONCE {key} {said}"


_VERB = re.compile("[A-Za-z]+(?![^ \t])")
# What makes no sense for one line, and what there is instead.
_INSTEAD = {
    "FORMAT": "every answer is JSON here",
    "ONCE": "the header Idempotency-Key does that",
    "WATCH": "/api/v1/events tells what happens",
    "LOG follow": "/api/v1/executions/RUN/log?follow=1 tells what it writes",
}
_FOLLOWS = re.compile(r'LOG[ \t]+\S+[ \t](?:.*[ \t])?("?)(?:follow|-f|--follow)\1(?![^ \t])', re.IGNORECASE)


def any_line(line: str, key: str | None = None) -> str:
    """A line as somebody wrote it; raises Refusal for what is no order, or none that is whole by itself."""
    check_travels(line, "line")
    if not (verb := _VERB.match(line)):
        raise Refusal("syntax", "a line begins with a verb, as STATUS; HELP lists them", "line")
    word = "LOG follow" if _FOLLOWS.match(line) else verb[0].upper()
    if instead := _INSTEAD.get(word):
        raise Refusal("syntax", f"{word} is for a connection that stays open; {instead}", "line")
    return once(key, line)


def slice_of(page: int, limit: int) -> dict[str, Any]:
    """limit= and offset=, with the number of all."""
    return {"limit": limit, "offset": (page - 1) * limit, "count": "yes"}


# --- runs -------------------------------------------------------------------------------------------


def find(ref: str | None = None, **options: Any) -> Talk[tuple[list[Execution], Row]]:
    """Rows of RUNS, of one job or of all, and its status line."""
    (answer,) = yield [line("RUNS", *([ref] if ref else []), **options)]
    return [to_execution(row) for row in answer.check().rows], answer.status


def newest_attempt(run: int) -> Talk[Execution]:
    """A run as it is now; raises Refusal where there was none."""
    found, _ = yield from find(run=run, limit=1)
    if not found:
        raise Refusal("not-found", f"there is no execution {run}")
    return found[0]


def run_now(ref: str, args: Mapping[str, Any], key: str | None = None) -> Talk[Execution]:
    """Runs a job now. Raises Refusal."""
    words = Words()
    for name, value in args.items():
        if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name):
            raise Wrong("bad-option", f'"{name[:80]}" is not a variable\'s name', f"args.{name[:80]}")
        words.say(f"arg.{name}", to_arg(value), f"args.{name}")
    with _naming(words):
        said = with_options(line("RUN", ref), words)
    (started,) = yield [once(key, said)]
    return (yield from newest_attempt(_check(started, words).status["run"]))


# --- jobs -------------------------------------------------------------------------------------------


def read_job(ref: str, words: Words | None = None) -> Talk[Job]:
    """A job as it is now; of one that ran once and is gone, what is known. Raises Refusal."""
    (got,) = yield [line("GET", ref)]
    if not got.status["ok"] and got.status["code"] == "not-found":
        changes, runs = yield [line("HISTORY", ref, limit=1), line("RUNS", ref, limit=1)]
        if runs.rows and not changes.rows:  # nobody removed it
            return to_ended_job(runs.rows[0], words or {})
    return to_job(got.check().rows)


def read_jobs(rows: Sequence[Row]) -> Talk[list[Job]]:
    """Those of the rows of LIST that are still there."""
    answers = (yield [line("GET", row["id"]) for row in rows]) if rows else []
    return [to_job(got.rows) for got in answers if got.status["ok"]]


# What jobs are asked for by; those that have run once are gone, and found by their executions.
_STATES = {"active": "scheduled,queued,running", "enabled": "scheduled,queued,running", "completed": ""}
_STATES |= {state: state for state in ("scheduled", "queued", "running", "paused", "idle", "unreadable")}
_STATES_ALSO = {"paused": "inactive disabled suspended stopped off", "queued": "waiting pending"}
_SORTS = {"createdAt": "id", "nextRunAt": "next", "lastRun": "last", "status": "state"}


def to_list_options(asked: Mapping[str, str | None]) -> dict[str, str]:
    """What is looked for among the jobs, as LIST has it."""
    options = {{"status": "state"}.get(key, key): value for key, value in asked.items() if value}
    if state := options.get("state"):
        options["state"] = ",".join(filter(None, (_states_of(word) for word in state.split(","))))
    if sort := options.get("sort"):
        word = sort.removeprefix("-")
        options["sort"] = "-" * (word != sort) + _SORTS.get(word, word)
    return options


def _states_of(word: str) -> str:
    if word not in _STATES:
        hint = "; how runs end: /executions?state="
        hint = hint if word in ENDED else meant(word, list(_STATES), _STATES_ALSO)
        raise Wrong("bad-option", f'"{word[:40]}" is not one of {", ".join(_STATES)}{hint}', "status")
    return _STATES[word]


def list_rows(page: int, limit: int, asked: Mapping[str, str | None]) -> Talk[tuple[list[Row], Row]]:
    """Rows of LIST, and its status line; raises Wrong naming the parameter."""
    options = to_list_options(asked)
    if options.get("state") == "":
        return [], {"total": 0}
    words = Words()
    words.fields = {key: {"state": "status"}.get(key, key) for key in options}
    with _naming(words):
        said = line("LIST", **options, **slice_of(page, limit))
    (found,) = yield [said]
    return _check(found, words).rows, found.status


def _check(answer: Answer, words: Words) -> Answer:
    """Itself; raises Wrong, naming the field, where the daemon has refused these words."""
    with _naming(words):
        return answer.check()


@contextmanager
def _naming(words: Words) -> Iterator[None]:
    """A refusal of these words names the field that each was said by."""
    try:
        yield
    except Refusal as refusal:
        words.fields["KEY"] = KEY_HEADER
        raise about(refusal, words) from None


def make_job(body: JobBody, key: str | None = None) -> Talk[Job]:
    """The job, made under the first of its names that is free. Raises Wrong."""
    words = to_words(body)
    orders = to_orders(words, body, key)
    for order in orders:
        (made,) = yield [once(key, order)]
        if made.status.get("code") != "exists":
            break
    return (yield from read_job(str(_check(made, words).status["id"]), words))


# What options are called by whoever says them, where nobody tells otherwise.
_FIELDS = {"tz": "timezone", "rev": "If-Match", "KEY": KEY_HEADER, "desc": "name"}


def field_of(refusal: Refusal) -> str | None:
    """Which field of a request a refusal is about, if that is known."""
    found: str | None = getattr(refusal, "field", _FIELDS.get(refusal.option, refusal.option or None))
    return found


def is_key_taken(refusal: Refusal) -> bool:
    """Whether it was the Idempotency-Key, which was for another line: nothing was done then."""
    return refusal.code == "exists" and refusal.option == "KEY"


def change_job(ref: str, body: JobBody, seen: Collection[int] = ()) -> Talk[Job]:
    """The job, changed; with revisions that were seen, only if one is its own. Raises Wrong."""
    for tried in range(MAX_TRIES):
        old = yield from read_job(ref)
        if seen and old.rev not in seen:
            known = " or ".join(map(str, seen))
            raise Wrong("busy", f"its revision is {old.rev} by now, not {known}", "If-Match")
        words = to_words(body, old)
        if old.status == "completed":
            raise Refusal("not-found", f"job {old.id} has run once and is over")
        if not words:
            break
        with _naming(words):
            said = with_options(line("SET", old.id, rev=old.rev), to_options(words))
        (answer,) = yield [said]
        if answer.status["ok"]:
            break
        now = yield from read_job(str(old.id))
        if answer.status["code"] != "busy" or now.rev == old.rev or seen or tried == MAX_TRIES - 1:
            _check(answer, words)
    if (not old.enabled) in body.wanted:  # of what was got and is sent back, what was changed counts
        (answer,) = yield [line("PAUSE" if old.enabled else "RESUME", old.id)]
        answer.check()
    return (yield from read_job(str(old.id)))
