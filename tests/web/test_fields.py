"""What a job is in JSON and what it is to the daemon are the same, there and back."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cronflowd.base.errors import Refusal
from cronflowd.base.names import REF
from cronflowd.tasks.options import COMMON, format_options, masked
from cronflowd.tasks.task import parse_record
from cronflowd.web.fields import MASK, JobBody, Wrong, about, slug, to_record, to_words
from cronflowd.web.job import Job, to_job

EVERY_DAY = {"cronExpression": "0 9 * * 1-5"}


def made(said: dict[str, Any], old: Job | None = None) -> Job:
    """The job that the daemon makes of it, as GET has its rows; or makes of `old`."""
    words = to_words(msgspec.convert(said, JobBody), old)
    words.pop("now", None)
    record = to_record(words) | {"jobName": words.get("jobName", "task_1")}
    _, spec = parse_record(record, "UTC")
    pairs: dict[str, Any] = {
        "id": 1, "jobName": spec.name, "schedule": spec.schedule.text, "command": spec.command,
        "state": "scheduled", "next": None, "rev": 1, "added": "2030-01-01T12:00:00Z",
    }  # fmt: skip
    options = format_options(spec.options, COMMON)
    pairs |= {key: masked(key, text) or None for key, text in options.items()}
    pairs |= {"zone": spec.options.tz or "UTC", "paused": "no"}
    return to_job([{"key": key, "value": value} for key, value in pairs.items()])


def shown(job: Job) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(job)
    return found


WORD = st.from_regex(r"[A-Za-z][A-Za-z0-9._-]{0,20}", fullmatch=True)
# What may stand in a line, and no reference to a secret, which only some fields take.
TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z"), include_characters=" "), max_size=40
)
SAID = TEXT.filter(lambda text: text.strip() and "secret:" not in text)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | SAID,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SAID, inner, max_size=3),
    max_leaves=6,
)
OBJECT = st.dictionaries(SAID, JSON, min_size=1, max_size=3)
HEADERS = st.dictionaries(
    WORD.filter(lambda name: not re.search("(?i)pass|pwd|secret|token|key|auth|cookie|credential", name)).map(
        lambda name: f"X-{name}"
    ),
    SAID.map(str.strip),
    min_size=1,
    max_size=3,
).filter(lambda pairs: len({name.lower() for name in pairs}) == len(pairs))
VARIABLES = st.dictionaries(
    st.from_regex("[A-Z]{1,3}_X", fullmatch=True), SAID | st.just(""), min_size=1, max_size=3
)
URL = st.sampled_from(["https://api.example.com/reports", "http://10.0.0.7:8080/a?b=c&d=%20"])
MAY = {
    "headers": HEADERS, "env": VARIABLES, "cwd": st.just("/app"), "user": st.just("ann"),
    "body": JSON.filter(lambda value: value not in (None, "")), "data": OBJECT, "expect": st.just("200,404"),
}  # fmt: skip


def payload(must: dict[str, Any], *may: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(must, optional={key: MAY[key] for key in may})


PAYLOADS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "shell": payload({"command": SAID}, "env", "cwd", "user"),
    "script": payload({"command": WORD, "args": st.lists(TEXT, max_size=4)}, "env", "cwd", "user"),
    "http": payload(
        {"url": URL, "method": st.sampled_from(["GET", "POST", "delete"])}, "headers", "body", "expect"
    ),
    "webhook": payload({"url": URL}, "headers", "data", "expect"),
    "email": st.fixed_dictionaries(
        {"to": st.just("a@example.org") | st.just(["a@example.org", "b@example.org"]), "text": SAID},
        optional={"subject": SAID, "html": st.just("<h1>Weekly\nReport</h1>")},
    ),
    "custom": payload({"handler": WORD}, "data", "env", "cwd"),
}
POLICIES = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("FIXED"), "maxRetries": st.integers(1, 99), "delayMs": st.integers(0, 10**6)},
        optional={"jitterPercent": st.integers(0, 100)},
    ),
    st.fixed_dictionaries(
        {"type": st.just("EXPONENTIAL"), "maxRetries": st.integers(1, 99), "delayMs": st.integers(1, 10**5)},
        optional={"maxDelayMs": st.integers(10**5, 10**9), "factor": st.sampled_from([1.5, 3.0, 5.0])},
    ),
    st.just({"type": "NONE", "maxRetries": 0}),
)
FIELDS = {
    "name": SAID.map(str.strip), "description": SAID, "tags": st.lists(WORD, max_size=3),
    "timezone": st.sampled_from(["America/New_York", "UTC"]),
    "priority": st.sampled_from(["HIGH", "MEDIUM", "LOW"]), "retryPolicy": POLICIES,
    "timeout": st.integers(1, 10**8), "overlap": st.sampled_from(["skip", "queue", "allow"]),
    "catchup": st.sampled_from(["once", "all"]), "grace": st.integers(1000, 10**8),
    "onWorker": st.sampled_from(["any", "web1", "label:disk=ssd"]), "metadata": OBJECT,
    "notify": st.just("mailto:ops@example.org"), "skip": st.just(["holidays:FR", "file:closed"]),
    "startAt": st.just("2031-01-01T00:00:00Z"), "endAt": st.just("2035-01-01T00:00:00Z"),
    "count": st.integers(1, 99), "spread": st.integers(1, 3600).map(lambda s: s * 1000),
    "jitter": st.integers(1, 10**8), "lost": st.sampled_from(["fail", "rerun"]), "keep": st.just("5,1d,1M"),
}  # fmt: skip
WHENS = st.sampled_from(
    [
        EVERY_DAY, {"schedule": "every 5 minutes"}, {"schedule": "weekly on monday"},
        {"scheduledAt": "2034-12-31T23:59:59Z"}, {"scheduleType": "recurring", "cronExpression": "@daily"},
    ]
)  # fmt: skip


@st.composite
def jobs(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(sorted(PAYLOADS)))
    said = draw(st.fixed_dictionaries({}, optional=FIELDS)) | draw(WHENS)
    if "scheduledAt" in said:  # these are of what comes again
        said = {key: said[key] for key in said.keys() - {"startAt", "endAt", "count", "spread"}}
    return said | {"type": kind, "payload": draw(PAYLOADS[kind])}


@settings(max_examples=settings.default.max_examples // 3)
@given(jobs())
def test_what_was_sent_is_what_is_told(said: dict[str, Any]) -> None:
    """Every field that was said is answered as it was said."""
    told = shown(made(said))
    assert {key: told[key] for key in said} == said


@settings(max_examples=settings.default.max_examples // 3)
@given(jobs())
def test_what_is_told_and_sent_back_changes_nothing(said: dict[str, Any]) -> None:
    """A form that is loaded and saved unseen must not make another revision."""
    job = made(said)
    assert to_words(msgspec.convert(shown(job), JobBody), job) == {}


@settings(max_examples=settings.default.max_examples // 3)
@given(jobs())
def test_what_is_told_and_sent_elsewhere_is_the_same_job(said: dict[str, Any]) -> None:
    """Whoever moves a job by JSON was refused where it has two recipients, and lost empty variables."""
    told = shown(made(said))
    assert shown(made(told)) == told


@pytest.mark.parametrize(
    ("kind", "command"),
    [("email", "a@example.org,b@example.org"), ("script", 'prog "a b" $x'), ("http", "GET  http://a/")],
)
def test_a_command_as_it_is_told_beside_its_payload_stays_as_it_is_written(kind: str, command: str) -> None:
    """They say the same; a payload that says another thing is refused as before."""
    content = {"text": "x"} if kind == "email" else {}
    job = made({"type": kind, "command": command, "payload": content, **EVERY_DAY})
    told = shown(job)
    assert made(told).command == told["command"]
    assert to_words(msgspec.convert(told, JobBody), job) == {}
    other = {"email": {"to": "a@example.org"}, "script": {"command": "prog"}, "http": {"url": "http://b/"}}
    with pytest.raises(Wrong, match="different things"):
        made(told | {"payload": other[kind] | content})


def test_a_part_of_what_is_done_is_not_passed_over() -> None:
    """A method without its URL was, and arguments without their program; and it was a success."""
    post = made({"type": "http", "payload": {"url": "http://a/", "method": "POST"}, **EVERY_DAY})
    assert to_words(JobBody(payload={"method": "PUT"}), post)["command"] == "PUT http://a/"
    script = made({"type": "script", "payload": {"command": "a b", "args": ["c"]}, **EVERY_DAY})
    assert to_words(JobBody(payload={"args": ["d"]}), script)["command"] == "'a b' d"
    for kind, command, payload in (
        ("http", "GET http://a/", {"method": "PUT"}), ("script", "a", {"args": ["c"]}),
    ):  # fmt: skip
        said = {"type": kind, "command": command, "payload": payload, **EVERY_DAY}
        with pytest.raises(Wrong) as refused:
            made(said)
        assert refused.value.field == f"payload.{next(iter(payload))}"


def test_an_argument_is_the_text_that_json_has() -> None:
    """`true` arrived as `True`."""
    job = made({"type": "script", "payload": {"command": "x", "args": [True, 5, "a b"]}, **EVERY_DAY})
    assert job.command == "x true 5 'a b'"


def test_retries_alone_are_those_that_people_expect() -> None:
    """5 s, 25 s and 125 s; and another number later leaves the manner as it is."""
    base = {"command": "x", **EVERY_DAY}
    job = made(base | {"maxRetries": 3})
    assert to_words(msgspec.convert(base | {"maxRetries": 3}, JobBody))["retry"] == "exp:3:5s:x5"
    assert to_words(JobBody(max_retries=5), job) == {"retry": "exp:5:5s:x5"}
    fixed = made(base | {"retryPolicy": {"type": "FIXED", "maxRetries": 2, "delayMs": 1000}})
    assert to_words(JobBody(max_retries=5), fixed) == {"retry": "fixed:5:1s"}
    assert to_words(JobBody(max_retries=0), fixed) == {"retry": "none"}


@pytest.mark.parametrize(
    "said", [{"retry": "exp:x:1s"}, {"meta": "none"}, {"timeout": "soon", "grace": "-", "count": "x"}]
)
def test_of_a_job_that_cannot_be_read_the_rest_is_told(said: dict[str, str]) -> None:
    """GET shows its record as it stands; one option that is none must not take the whole list away."""
    pairs = {"id": 1, "jobName": "old", "schedule": "0 9 * * *", "command": "x", "rev": 1} | said
    job = to_job([{"key": key, "value": value} for key, value in pairs.items()])
    assert ("old", {}, 0) == (job.job_name, job.metadata, job.max_retries)


@pytest.mark.parametrize("name", ["\u0130", "ta\u017f\u212a"])
def test_letters_that_only_case_makes_ours_are_none(name: str) -> None:
    """A dotted I is an i where case does not count, and no letter of the daemon's names."""
    assert REF.fullmatch(name) is None
    job = made({"name": name, "command": "x", **EVERY_DAY})
    assert (job.name, job.job_name) == (name, slug(name))


def test_a_name_for_people_makes_one_for_the_daemon() -> None:
    """And one that the daemon can take is taken as it is."""
    for name, expected in {
        "Send Weekly Report": "send-weekly-report", "Größe prüfen!": "groe-prufen", "報告": "job",
        "backup": "backup", "7": "job-7", "all": "job-all", "task_9": "job-task_9",
    }.items():  # fmt: skip
        job = made({"name": name, "command": "x", **EVERY_DAY})
        assert (job.name, job.job_name) == (name, expected)
        assert slug(name) == expected
    renamed = to_words(
        JobBody(name="Updated Job Name"), made({"name": "Old one", "command": "x", **EVERY_DAY})
    )
    assert renamed == {"title": "Updated Job Name"}
    own = made({"id": "my-own-id", "name": "Old one", "command": "x", **EVERY_DAY})
    for name in ("sync", "New one"):  # an id that was said stays, be the new name one or not
        assert to_words(JobBody(name=name), own) == {"title": name}
    assert to_words(JobBody(name="my-own-id"), own) == {"title": ""}
    plain = made({"name": "backup", "command": "x", **EVERY_DAY})
    assert to_words(JobBody(name="backup2"), plain) == {"title": "", "jobName": "backup2"}


def test_another_payload_takes_the_place_of_all_of_the_old_one() -> None:
    """Headers that are not said again are gone; secrets that are shown as stars stay."""
    old = made(
        {
            "type": "http", **EVERY_DAY,
            "payload": {"url": "http://a/", "headers": {"X-A": "1", "X-B": "2", "X-Token": "t"}, "body": "b"},
        }
    )  # fmt: skip
    assert old.payload["headers"]["X-Token"] == MASK
    new = {"url": "http://a/", "method": "GET", "headers": {"X-A": "3", "X-Token": MASK}}
    words = to_words(JobBody(payload=new), old)
    assert words["header.X-B"] == "" and words["header.X-A"] == "3"
    assert words["body"] == "" and "header.X-Token" not in words


def test_a_secret_is_taken_away_by_null_alone() -> None:
    """One that is not said again stays, and an empty one may be a variable that was not set."""
    payload = {"url": "http://a/", "secret": "s"}
    old = made({"type": "webhook", **EVERY_DAY, "payload": payload})
    for said, expected in (
        ({"secret": None}, ""),
        ({}, None),
        ({"secret": MASK}, None),
        ({"secret": "t"}, "t"),
    ):
        words = to_words(JobBody(payload={"url": "http://b/"} | said), old)
        assert words.get("secret") == expected


@pytest.mark.parametrize(
    ("of_job", "of_payload", "expected"),
    [
        (6000, 5000, "5s"),
        (5000, 6000, "5s"),
        (None, 5000, "5s"),
        (0, 5000, "5s"),
        (5000, 0, "5s"),
        (0, 0, "none"),
    ],
)
def test_of_two_timeouts_the_shorter_one_counts(of_job: int | None, of_payload: int, expected: str) -> None:
    """A job has one, and so has what it asks for: both hold. Said again, they are the same."""
    said = {"payload": {"command": "x", "timeout": of_payload}, "timeout": of_job}
    body = msgspec.convert(said | EVERY_DAY, JobBody)
    assert to_words(body)["timeout"] == expected
    assert to_words(body, made(said | EVERY_DAY))["timeout"] == expected


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"command": "x"}, "cronExpression"),
        ({"command": "x", "scheduleType": "scheduled"}, "scheduledAt"),
        ({"command": "x", "scheduleType": "immediate", **EVERY_DAY}, "scheduleType"),
        ({"command": "x", "scheduleType": "recurring", "schedule": "in 10 minutes"}, "scheduleType"),
        ({"command": "x", "schedule": "@daily", "cronExpression": "@hourly"}, "schedule"),
        (EVERY_DAY, "command"),
        ({"command": "", **EVERY_DAY}, "command"),
        ({"payload": {"command": ""}, **EVERY_DAY}, "payload.command"),
        ({"type": "http", **EVERY_DAY}, "payload"),
        ({"type": "http", "payload": {"uri": "http://a/"}, **EVERY_DAY}, "payload.uri"),
        ({"type": "http", "payload": {"url": 1.5}, **EVERY_DAY}, "payload.url"),
        ({"type": "http", "payload": {"url": "http://a/", "method": "G T"}, **EVERY_DAY}, "payload.method"),
        (
            {"type": "http", "payload": {"url": "http://a/", "headers": {"a b": "1"}}, **EVERY_DAY},
            "payload.headers",
        ),
        ({"type": "script", "payload": {"command": "x", "args": "y"}, **EVERY_DAY}, "payload.args"),
        ({"type": "script", "payload": {"command": "x", "cwd": "here"}, **EVERY_DAY}, "payload.cwd"),
        ({"payload": {"command": "x", "timeout": "soon"}, **EVERY_DAY}, "payload.timeout"),
        ({"payload": {"command": "x"}, "command": "y", **EVERY_DAY}, "command"),
        ({"command": "x", "timezone": "Mars/Base", **EVERY_DAY}, "timezone"),
        ({"command": "x", "cronExpression": "61 * * * *"}, "cronExpression"),
        ({"command": "x", "schedule": "biweekly"}, "schedule"),
        ({"command": "x", "tags": ["a b"], **EVERY_DAY}, "tags"),
        ({"command": "x", "tags": ["a,b"], **EVERY_DAY}, "tags"),
        ({"command": "x", "overlap": "sometimes", **EVERY_DAY}, "overlap"),
        ({"command": "x", "onWorker": "a=b", **EVERY_DAY}, "onWorker"),
        ({"command": "x", "notify": "nobody", **EVERY_DAY}, "notify"),
        ({"command": "x", "name": " ", **EVERY_DAY}, "name"),
        ({"command": "x", "jobName": "a b", **EVERY_DAY}, "jobName"),
        (
            {"command": "x", "retryPolicy": {"type": "FIXED", "maxRetries": 2}, "maxRetries": 3, **EVERY_DAY},
            "maxRetries",
        ),
        (
            {"command": "x", "retryPolicy": {"type": "NONE", "maxRetries": 2}, **EVERY_DAY},
            "retryPolicy.maxRetries",
        ),
        ({"command": "x", "retryPolicy": {"type": "NONE"}, "maxRetries": 3, **EVERY_DAY}, "maxRetries"),
        (
            {"command": "x", "retryPolicy": {"type": "FIXED", "delayMs": 10, "maxDelayMs": 5}, **EVERY_DAY},
            "retryPolicy.maxDelayMs",
        ),
        (
            {"command": "x", "retryPolicy": {"type": "FIXED", "factor": 3}, **EVERY_DAY},
            "retryPolicy.factor",
        ),
        ({"type": "webhook", "payload": {"url": "http://a/", "secret": ""}, **EVERY_DAY}, "payload.secret"),
        ({"command": "x", "schedule": " "}, "schedule"),
        ({"command": "x", "cronExpression": ""}, "cronExpression"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_field(said: dict[str, Any], field: str) -> None:
    """A form shows it where it was typed."""
    body = msgspec.convert(said, JobBody)
    with pytest.raises(Wrong) as caught:
        words = to_words(body)
        try:
            parse_record({"jobName": "x"} | words, "UTC")
        except Refusal as refusal:
            raise about(refusal, words) from None
    assert caught.value.field == field
