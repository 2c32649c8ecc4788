"""Jobs by REST: every request that the documents show, as it is written, and what comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from cronflowd.base.errors import Refusal
from cronflowd.host.config import WebSettings
from cronflowd.web.line import Answer
from tests.lib.asgi import Browser, InMemory, Scripted
from tests.lib.web_api import API, an_api, make_app, somebody

WEEKLY = {
    "name": "Send Weekly Report",
    "type": "http",
    "scheduleType": "recurring",
    "cronExpression": "0 9 * * 1",
    "timezone": "America/New_York",
    "payload": {
        "url": "https://api.example.com/reports",
        "method": "POST",
        "headers": {"Authorization": "Bearer api-key"},
        "body": {"type": "weekly"},
    },
    "maxRetries": 3,
    "timeout": 30000,
}
HOURLY = {"cronExpression": "0 * * * *"}


def test_a_job_lives_as_the_documents_tell(tmp_path: Path) -> None:
    """Made, listed, got, changed, paused, resumed, triggered, cancelled, rescheduled, removed."""

    async def live() -> None:
        async with an_api(tmp_path) as (browser, _):
            answer = await browser.post(f"{API}/jobs", WEEKLY)
            job = answer.data
            hidden = WEEKLY | {"payload": WEEKLY["payload"] | {"headers": {"Authorization": "***"}}}  # type: ignore[operator]
            assert answer.status == 201 and answer.headers["location"] == f"{API}/jobs/{job['id']}"
            assert {key: job[key] for key in hidden} == hidden
            assert job["nextRunAt"] == "2030-01-07T14:00:00Z"
            assert job["retryPolicy"] == {
                "type": "EXPONENTIAL", "maxRetries": 3, "delayMs": 5000, "factor": 5.0,
            }  # fmt: skip
            listed = await browser.get(f"{API}/jobs?page=1&limit=20&status=active")
            assert listed.data == [job]
            assert listed.json["meta"] == {"page": 1, "limit": 20, "total": 1}
            at = f"{API}/jobs/{job['id']}"
            assert (await browser.get(at)).data == job
            assert (await browser.get(f"{API}/jobs/send-weekly-report")).data == job
            changed = await browser.ask("PUT", at, {"name": "Updated Job Name", "maxRetries": 5})
            assert changed.headers["etag"] == '"2"'
            assert (changed.data["name"], changed.data["maxRetries"]) == ("Updated Job Name", 5)
            assert changed.data["payload"] == job["payload"]
            assert (await browser.post(f"{at}/pause")).data["status"] == "paused"
            assert (await browser.get(f"{API}/jobs?status=active")).data == []
            assert (await browser.post(f"{at}/resume")).data["enabled"] is True
            run = (await browser.post(f"{at}/trigger")).data
            assert (run["jobId"], run["state"]) == (job["id"], "queued")
            assert (await browser.post(f"{at}/cancel")).data == {"cancelled": [run["id"]]}
            moved = (await browser.post(f"{at}/reschedule", {"cronExpression": "0 */2 * * *"})).data
            assert moved["cronExpression"] == "0 */2 * * *"
            (ran,) = (await browser.get(f"{at}/executions?page=1&limit=20")).data
            assert (ran["id"], ran["state"]) == (run["id"], "cancelled")
            assert (await browser.get(f"{at}/logs?level=error")).data == []
            assert (await browser.ask("DELETE", at)).data == {"id": job["id"], "removed": True}
            assert (await browser.get(at)).error == (404, "not-found")

    trio.run(live)


PAYLOADS: list[dict[str, Any]] = [
    {
        "type": "http",
        "payload": {
            "url": "https://api.example.com/webhook", "method": "POST",
            "headers": {"Content-Type": "application/json"}, "body": {"data": "value"}, "timeout": 30000,
        },
    },
    {
        "type": "webhook",
        "payload": {
            "url": "https://api.example.com/webhook", "data": {"event": "job.completed"},
            "secret": "webhook-secret-key",
        },
    },
    {
        "type": "script",
        "payload": {
            "command": "node", "args": ["scripts/process-data.js"], "cwd": "/app", "timeout": 60000,
        },
    },
    {
        "type": "email",
        "payload": {
            "to": "user@example.com", "subject": "Weekly Report", "text": "Your weekly report is ready.",
            "html": "<h1>Weekly Report</h1><p>Your report is ready.</p>",
        },
    },
    {"type": "custom", "payload": {"handler": "processData", "data": {"input": "value"}}},
]  # fmt: skip
SCHEDULES: list[dict[str, Any]] = [
    {"scheduleType": "immediate"},
    {"scheduleType": "scheduled", "scheduledAt": "2030-12-31T23:59:59Z"},
    {"scheduleType": "recurring", "cronExpression": "0 9 * * 1-5", "timezone": "America/New_York"},
    *(
        {"cronExpression": each}
        for each in ("* * * * *", "0 9 * * *", "0 9 * * 1", "0 0 1 * *", "0 9 * * MON")
    ),
    *(
        {"schedule": each}
        for each in (
            "every 5 minutes",
            "every 30 minutes",
            "daily at 3 AM",
            "daily at 6 PM",
            "weekly on monday",
        )
    ),
]


def test_every_type_and_schedule_of_the_documents_is_taken(tmp_path: Path) -> None:
    """And told again as it was said; what a secret is, is told to nobody."""

    async def make() -> None:
        async with an_api(tmp_path) as (browser, _):
            for said in PAYLOADS:
                job = (await browser.post(f"{API}/jobs", said | HOURLY)).data
                payload = {key: value for key, value in said["payload"].items() if key != "timeout"}
                payload |= {"secret": "***"} if "secret" in payload else {}
                assert (job["type"], job["payload"]) == (said["type"], payload)
                assert job["timeout"] == said["payload"].get("timeout")
            for said in SCHEDULES:
                job = (await browser.post(f"{API}/jobs", {"command": "true"} | said)).data
                told = {key: value for key, value in said.items() if value != "immediate"}
                assert {key: job[key] for key in told} == told

    trio.run(make)


S002 = {
    "id": "unique-job-id",
    "name": "Job Name",
    "description": "Job description",
    "schedule": "every 5 minutes",
    "command": "command_name",
    "priority": "HIGH",
    "dependencies": ["job-id-1"],
    "retryPolicy": {"type": "FIXED", "maxRetries": 3, "delayMs": 1000},
    "enabled": True,
    "metadata": {"commandArgs": {"a": 1}},
}


def test_a_job_may_bring_its_own_id_and_what_programs_keep_with_it(tmp_path: Path) -> None:
    """As the library that others come from has it."""

    async def make() -> None:
        async with an_api(tmp_path) as (browser, _):
            missing = await browser.post(f"{API}/jobs", S002)
            assert missing.error == (422, "not-found") and missing.json["error"]["field"] == "dependencies"
            await browser.post(f"{API}/jobs", {"id": "job-id-1", "name": "First", "command": "x", **HOURLY})
            job = (await browser.post(f"{API}/jobs", S002)).data
            assert {key: job[key] for key in S002 if key != "id"} == {
                key: value for key, value in S002.items() if key != "id"
            }
            assert (await browser.get(f"{API}/jobs/unique-job-id")).data == job
            circle = await browser.ask("PATCH", f"{API}/jobs/job-id-1", {"dependencies": [job["id"]]})
            assert circle.error == (400, "cycle") and circle.json["error"]["field"] == "dependencies"
            for policy in (
                {"type": "EXPONENTIAL", "maxRetries": 5, "delayMs": 1000, "maxDelayMs": 300000},
                {"type": "NONE", "maxRetries": 0},
            ):
                put = await browser.ask("PUT", f"{API}/jobs/unique-job-id", {"retryPolicy": policy})
                assert put.data["retryPolicy"] == policy

    trio.run(make)


def test_what_a_job_waits_for_in_vain_is_told_to_whoever_makes_it_and_looks_at_it(tmp_path: Path) -> None:
    """ADD says so in a row of its own; by REST a job of a handler that nobody has was simply made."""

    async def make() -> None:
        async with an_api(tmp_path) as (browser, daemon):
            await daemon.world.play("w", None, "HELLO name=w1 slots=4 can=shell,custom:backup")
            body = {"name": "a", "type": "custom", "payload": {"handler": "processData"}, **HOURLY}
            job = (await browser.post(f"{API}/jobs", body)).data
            assert job["note"] == "no connected worker can do custom:processData: its runs wait for one"
            assert {"key": "note", "value": job["note"]} in await daemon.say("GET a")
            assert (await browser.ask("PUT", f"{API}/jobs/a", job)).data == job, "it may be sent back"
            body = {"type": "shell", "payload": None, "command": "echo 'x", "onWorker": "pluto"}
            told = (await browser.ask("PATCH", f"{API}/jobs/a", body)).data["note"]
            assert "called pluto can do shell" in told and "a quote in the command is not closed" in told
            body = {"type": "custom", "payload": {"handler": "backup"}, "onWorker": "w1"}
            assert (await browser.ask("PATCH", f"{API}/jobs/a", body)).data["note"] is None

    trio.run(make)


def test_a_job_is_made_from_a_template(tmp_path: Path) -> None:
    """What is said beside it wins; and only one that is new is made from one."""

    async def make() -> None:
        async with an_api(tmp_path) as (browser, daemon):
            await daemon.say("TEMPLATE ADD nightly retry=fixed:3:1m timeout=1h prio=high")
            body = {"name": "a", "command": "x", "template": "nightly", "timeout": 5000, **HOURLY}
            job = (await browser.post(f"{API}/jobs", body)).data
            assert (job["maxRetries"], job["timeout"], job["priority"]) == (3, 5000, "HIGH")
            none = await browser.post(f"{API}/jobs", body | {"name": "b", "template": "nightli"})
            assert none.error == (422, "not-found") and none.json["error"]["field"] == "template"
            late = await browser.ask("PATCH", f"{API}/jobs/a", {"template": "nightly"})
            assert late.error == (400, "bad-option") and late.json["error"]["field"] == "template"

    trio.run(make)


def test_seconds_that_stand_first_elsewhere_are_remarked_on(tmp_path: Path) -> None:
    """Six fields as other schedulers have them mean something else here, and it was taken without a word."""

    async def ask() -> None:
        async with an_api(tmp_path) as (browser, daemon):
            seen = await browser.post(f"{API}/inspector/preview", {"cron": "0 0 9 * * 1"})
            assert seen.data["note"].endswith('say "0 9 * * 1"')
            job = {"name": "a", "command": "x", "cronExpression": "0 0 9 * * 1"}
            assert (await browser.post(f"{API}/jobs", job)).data["note"] == seen.data["note"]
            assert {"key": "note", "value": seen.data["note"]} in await daemon.say('DESCRIBE "0 0 9 * * 1"')
            assert (await browser.post(f"{API}/inspector/preview", {"cron": "@daily"})).data["note"] is None

    trio.run(ask)


def test_a_moment_may_be_said_in_words(tmp_path: Path) -> None:
    """As netcat takes it: it counts from when it is said."""

    async def make() -> None:
        async with an_api(tmp_path) as (browser, _):
            for name, when in (
                ("a", {"scheduledAt": "tomorrow at 8 AM", "timezone": "Asia/Tokyo"}),
                ("b", {"schedule": "tomorrow at 8 AM in Asia/Tokyo", "scheduleType": "scheduled"}),
            ):
                job = (await browser.post(f"{API}/jobs", {"name": name, "command": "x", **when})).data
                assert (job["scheduleType"], job["scheduledAt"]) == ("scheduled", "2030-01-01T23:00:00Z")
            later = await browser.post(f"{API}/jobs/a/reschedule", {"scheduledAt": "in 2 hours"})
            assert later.data["nextRunAt"] == "2030-01-01T14:00:00Z"
            seen = await browser.post(f"{API}/inspector/preview", {"cron": "in 10 minutes"})
            assert [each["utc"] for each in seen.data["occurrences"]] == ["2030-01-01T12:10:00Z"]

    trio.run(make)


def test_nobody_undoes_unseen_what_another_has_changed(tmp_path: Path) -> None:
    """With If-Match; without it both changes hold, since each says one thing alone."""

    async def change() -> None:
        async with an_api(tmp_path) as (browser, _):
            at = await make(browser)
            await browser.ask("PATCH", at, {"priority": "HIGH"}, if_match='"1"')
            stale = await browser.ask("PUT", at, {"priority": "LOW"}, if_match='"1"')
            assert stale.error == (409, "busy") and stale.json["error"]["field"] == "If-Match"
            assert (await browser.ask("DELETE", at, if_match='"1"')).error == (409, "busy")
            assert (await browser.ask("PATCH", at, {"timeout": 5}, if_match="nonsense")).status == 409
            assert (await browser.get(at)).data["priority"] == "HIGH"
            # One of several, as HTTP has it.
            some = await browser.ask("PATCH", at, {"priority": "MEDIUM"}, if_match='"1", "2"')
            assert (some.status, some.headers["etag"]) == (200, '"3"')
            for method in ("PATCH", "DELETE"):
                none = await browser.ask(method, at, {"priority": "LOW"}, if_match='"1", "2"')
                assert (none.status, none.json["error"]["field"]) == (409, "If-Match")

            async with trio.open_nursery() as nursery:
                for field, value in {"timeout": 9000, "priority": "LOW", "description": "d"}.items():
                    nursery.start_soon(browser.ask, "PATCH", at, {field: value})
            job = (await browser.get(at)).data
            assert (job["timeout"], job["priority"], job["description"]) == (9000, "LOW", "d")
            assert (await browser.ask("DELETE", at, if_match=f'"1", "{job["rev"]}"')).status == 200

    trio.run(change)


def test_of_status_and_enabled_the_one_that_was_changed_counts(tmp_path: Path) -> None:
    """It was answered 200, and the job ran on: what was got and is sent back whole still said `enabled`."""

    async def change() -> None:
        async with an_api(tmp_path) as (browser, _):
            made = await browser.post(
                f"{API}/jobs", {"name": "a", "command": "x", "status": "paused"} | HOURLY
            )
            assert (made.status, made.data["enabled"]) == (201, False)
            for said, enabled in (
                ({"status": "active"}, True), ({"status": "paused"}, False),
                ({"status": "paused", "enabled": True}, True),
                ({"status": "active", "enabled": False}, False), ({"status": "idle"}, False),
                (dict.fromkeys(("status", "enabled", "type", "scheduleType", "id", "jobName")), False),
                ({"status": "active"}, True),
            ):  # fmt: skip
                answer = await browser.ask("PATCH", f"{API}/jobs/a", said)
                assert (answer.status, answer.data["enabled"]) == (200, enabled), said
            for said, enabled in (({"status": "paused"}, False), ({"enabled": True}, True)):
                got = (await browser.get(f"{API}/jobs/a")).data
                answer = await browser.ask("PUT", f"{API}/jobs/a", got | said)
                assert (answer.status, answer.data["enabled"]) == (200, enabled), said
            both = await browser.post(f"{API}/jobs", got | {"name": "b", "id": None, "jobName": None} | said)
            assert (both.status, both.json["error"]) == (
                400,
                {
                    "code": "bad-option",
                    "message": "enabled=true contradicts status=paused",
                    "field": "status",
                },
            )
            unknown = await browser.ask("PATCH", f"{API}/jobs/a", {"status": "sleeping"})
            assert (unknown.error, unknown.json["error"].get("field")) == ((400, "bad-option"), "status")

    trio.run(change)


def test_a_list_is_searched_sorted_and_paged(tmp_path: Path) -> None:
    """With the number of all that match."""

    async def look() -> None:
        async with an_api(tmp_path) as (browser, _):
            for n, name in enumerate(("Night Report", "day", "Morning Report")):
                said = {"name": name, "command": f"x{n}", "tags": ["t", f"t{n}"], "type": "echo"} | HOURLY
                await browser.post(f"{API}/jobs", said | {"type": "shell" if n == 1 else "echo"})

            async def names(query: str) -> list[str]:
                return [job["name"] for job in (await browser.get(f"{API}/jobs?{query}")).data]

            assert await names("search=report&sort=-name") == ["Night Report", "Morning Report"]
            assert await names("type=shell") == ["day"]
            assert await names("tag=t2") == ["Morning Report"]
            assert await names("limit=1&page=2") == ["day"]
            page = await browser.get(f"{API}/jobs?limit=2&page=2&tag=t")
            assert page.json["meta"] == {"page": 2, "limit": 2, "total": 3}
            assert await names("search=" + "%22%20limit%3D1") == []

    trio.run(look)


async def make(browser: Browser, **said: Any) -> str:
    """The address of a job."""
    job = (await browser.post(f"{API}/jobs", {"name": "a", "command": "x"} | HOURLY | said)).data
    return f"{API}/jobs/{job['id']}"


async def work(daemon: InMemory, *lines: str) -> None:
    """A worker comes and says this."""
    for line in ("HELLO name=w1 slots=4", *lines):
        await daemon.world.play("w", None, line)


def test_what_ran_is_told_with_what_it_wrote(tmp_path: Path) -> None:
    """Output by level, the reason, who changed what, and the way back."""

    async def run() -> None:
        async with an_api(tmp_path) as (browser, _):
            at = await make(browser)
            run = (
                await browser.post(f"{at}/trigger", {"args": {"MONTH": "2029-12", "N": 3, "DRY": True}})
            ).data
            why = (await browser.get(f"{at}/why")).data
            assert why["disposition"] == "pending" and "MONTH=2029-12" in why["chain"][0]["what"]
            assert "DRY=true" in why["chain"][0]["what"]
            assert (await browser.post(f"{at}/trigger")).error == (409, "busy")
            wrong = await browser.post(f"{at}/trigger", {"args": {"a b": "1"}})
            assert wrong.json["error"]["field"] == "args.a b"
            assert (await browser.get(f"{API}/executions/{run['id']}")).data == run
            (listed,) = (await browser.get(f"{API}/executions?state=queued,running&jobId=a")).data
            assert listed == run
            assert (await browser.post(f"{API}/executions/{run['id']}/cancel")).data["state"] == "cancelled"
            assert (await browser.post(f"{API}/executions/{run['id']}/cancel")).error == (404, "not-found")
            assert (await browser.get(f"{API}/executions/99")).error == (404, "not-found")
            assert (await browser.get(f"{at}/logs?run=99")).error == (404, "not-found")
            await browser.ask("PATCH", at, {"timeout": 1000})
            (first, second) = (await browser.get(f"{at}/history")).data
            assert (first["rev"], second["change"]) == (2, "added")
            assert first["who"] == "test-admin@127.0.0.1"
            assert (await browser.post(f"{at}/undo")).data["timeout"] is None
            moments = (await browser.get(f"{at}/next?count=2&timezone=Europe/Paris")).data
            assert moments[0] == {
                "local": "2030-01-01T14:00:00+01:00", "utc": "2030-01-01T13:00:00Z", "remark": None,
            }  # fmt: skip

    trio.run(run)


def test_a_viewer_looks_and_a_user_changes_its_own(tmp_path: Path) -> None:
    """The daemon decides, by the token that was shown."""

    async def ask() -> None:
        async with an_api(tmp_path) as (browser, daemon):
            await browser.post(f"{API}/jobs", {"name": "a", "command": "x"} | HOURLY)
            viewer = await somebody(browser.app, daemon, "viewer")
            user = await somebody(browser.app, daemon, "user")
            assert (await viewer.get(f"{API}/jobs/a")).status == 200
            assert (await viewer.post(f"{API}/jobs", {"command": "x"} | HOURLY)).error == (403, "denied")
            assert (await user.post(f"{API}/jobs/a/trigger")).error == (403, "denied")
            assert (await user.post(f"{API}/jobs", {"command": "x"} | HOURLY)).data["owner"] == "test-user"
            nobody = Browser(browser.app)
            assert (await nobody.get(f"{API}/jobs")).error == (401, "auth-required")

    trio.run(ask)


@pytest.mark.parametrize("state", ["ok", "failed"])
def test_what_was_to_run_once_is_still_told_when_it_has_run(tmp_path: Path, state: str) -> None:
    """Whoever made it asks how it went; the daemon has let it go."""

    async def run() -> None:
        async with an_api(tmp_path) as (browser, daemon):
            job = (
                await browser.post(
                    f"{API}/jobs", {"name": "Now", "command": "x", "scheduleType": "immediate"}
                )
            ).data
            assert job["status"] == "active"
            await work(daemon, f"DONE 1 1 {0 if state == 'ok' else 1}")
            while (told := (await browser.get(f"{API}/jobs/{job['id']}")).data)["status"] == "active":
                await trio.sleep(0)
            assert (told["name"], told["status"], told["lastRun"]["status"]) == ("Now", "completed", state)
            assert (await browser.ask("PATCH", f"{API}/jobs/{job['id']}", {"timeout": 1})).status == 404
            assert (await browser.ask("DELETE", f"{API}/jobs/{job['id']}")).status == 404

    trio.run(run)


def test_a_request_that_comes_twice_is_done_once(tmp_path: Path) -> None:
    """Whoever lost the answer asks again with the same key; another request with it is refused."""

    async def ask() -> None:
        async with an_api(tmp_path) as (browser, _):
            for said in ({"name": "a", "command": "x"} | HOURLY, WEEKLY):
                first = await browser.post(f"{API}/jobs", said, idempotency_key=f"k-{said['name'][0]}")
                again = await browser.post(f"{API}/jobs", said, idempotency_key=f"k-{said['name'][0]}")
                assert (first.status, again.status, again.data) == (201, 201, first.data)
            # The name that people gave is taken by then, so the job has another for the daemon.
            # As HTTP writes texts, and as most leave the quotes out.
            keys = ("twin", '"twin"')
            twin = [await browser.post(f"{API}/jobs", WEEKLY, idempotency_key=key) for key in keys]
            assert twin[0].data == twin[1].data and twin[0].data["id"] == 3
            other = await browser.post(
                f"{API}/jobs", {"name": "c", "command": "y"} | HOURLY, idempotency_key="k-a"
            )
            assert other.error == (409, "exists") and other.json["error"]["field"] == "Idempotency-Key"
            runs = [await browser.post(f"{API}/jobs/a/trigger", idempotency_key="run") for _ in range(2)]
            ended = [
                await browser.post(f"{API}/executions/{runs[0].data['id']}/cancel", idempotency_key="end")
                for _ in range(2)
            ]
            assert [each.data["state"] for each in ended] == ["cancelled"] * 2
            assert runs[0].data["id"] == runs[1].data["id"]
            assert len((await browser.get(f"{API}/executions")).data) == 1
            assert (await browser.get(f"{API}/jobs")).json["meta"]["total"] == 3
            await browser.ask("PATCH", f"{API}/jobs/a", {"command": "z"})
            undone = [await browser.post(f"{API}/jobs/a/undo", idempotency_key="undo") for _ in range(2)]
            assert undone[0].data == undone[1].data and undone[0].data["command"] == "x"
            await browser.ask("PATCH", f"{API}/jobs/a", {"command": "z"})
            assert (await browser.post(f"{API}/jobs/a/undo", idempotency_key="undo")).error == (409, "exists")
            for key in ("", "a b", "x" * 129, 'a"b'):
                wrong = await browser.post(f"{API}/jobs", WEEKLY, idempotency_key=key)
                assert wrong.json["error"]["field"] == "Idempotency-Key", key

    trio.run(ask)


def test_what_ran_before_it_was_asked_about_is_told_as_it_was_made(tmp_path: Path) -> None:
    """`echo` is over sooner than the next question; the answer is still the job, and 201."""
    row = {
        "run": 1, "id": 1, "jobName": "greet", "attempt": 1, "state": "ok", "due": "2030-01-01T12:00:00Z",
        "started": None, "ended": "2030-01-01T12:00:00.100Z", "worker": "w1", "exit": 0, "why": None,
    }  # fmt: skip
    gone = Refusal("not-found", 'no task "1"')
    made = Answer([], {"ok": True, "id": 1, "jobName": "greet", "next": "2030-01-01T12:00:00Z"})
    daemon = Scripted({"NOW": made, "GET": gone, "HISTORY": gone, "RUNS": [row]})
    browser = Browser(make_app(WebSettings(data=tmp_path), daemon), headers={"authorization": "Bearer t"})
    said = {"name": "greet", "scheduleType": "immediate", "type": "echo", "command": "hi", "tags": ["a"]}
    answer = trio.run(browser.post, f"{API}/jobs", said)
    job = answer.data
    assert (answer.status, job["status"], job["lastRun"]["status"]) == (201, "completed", "ok")
    assert (job["type"], job["payload"], job["tags"]) == ("echo", {"command": "hi"}, ["a"])
    assert daemon.asked[0][1] == 'NOW {"tags":"a","jobName":"greet","type":"echo","command":"hi"}'


def test_all_runs_of_a_job_are_ended_however_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of them was ended, and the rest went on."""
    monkeypatch.setattr("cronflowd.web.jobs.CANCELLED_AT_ONCE", 2)

    async def cancel() -> None:
        async with an_api(tmp_path) as (browser, daemon):
            await daemon.say("ADD name=a overlap=allow @daily x")
            await daemon.say("ADD name=b overlap=allow @daily x")
            await daemon.ask_all([*["RUN a"] * 7, "RUN b"])
            found = (await browser.post(f"{API}/jobs/a/cancel")).data["cancelled"]
            assert sorted(found) == [1, 2, 3, 4, 5, 6, 7]
            assert [row["run"] for row in (await daemon.ask("RUNS state=queued")).rows] == [8]
            assert (await browser.post(f"{API}/jobs/a/cancel")).data == {"cancelled": []}

    trio.run(cancel)


def test_variables_of_a_job_are_taken_away(tmp_path: Path) -> None:
    """By null, or by a payload without them; the others stay, and one may be empty."""

    async def change() -> None:
        async with an_api(tmp_path) as (browser, daemon):
            env = {"A": "1", "B": "2", "TOKEN": "x"}
            job = {"name": "a", "schedule": "@daily", "payload": {"command": "x", "env": env | {"C": None}}}
            made = (await browser.post(f"{API}/jobs", job)).data
            assert made["payload"]["env"] == env | {"TOKEN": "***"}
            for given, left in (
                ({"A": None, "B": "", "TOKEN": "***"}, {"B": None, "TOKEN": "x"}),
                ({"TOKEN": "***", "D": "4"}, {"TOKEN": "x", "D": "4"}),
                (None, {}),
            ):
                change = {"payload": {"command": "x"} | ({"env": given} if given else {})}
                assert (await browser.ask("PATCH", f"{API}/jobs/a", change)).status == 200
                pairs = (await daemon.ask("GET a")).pairs
                found = {key[4:]: value for key, value in pairs.items() if key.startswith("env.")}
                assert found == {key: "***" if key == "TOKEN" else value for key, value in left.items()}

    trio.run(change)


def test_when_a_job_runs_is_told_as_it_was_said(tmp_path: Path) -> None:
    """What was to run at once came back as one that had been scheduled."""

    async def make() -> None:
        async with an_api(tmp_path) as (browser, _):
            for said in SCHEDULES[:3]:
                made = (await browser.post(f"{API}/jobs", said | {"command": "x"})).data
                assert made["scheduleType"] == said["scheduleType"]
                again = {
                    "scheduleType": made["scheduleType"],
                    "scheduledAt": made["scheduledAt"],
                    "priority": "LOW",
                }
                changed = await browser.ask("PATCH", f"{API}/jobs/{made['id']}", again)
                assert (changed.data["scheduleType"], changed.data["priority"]) == (
                    said["scheduleType"],
                    "LOW",
                )

    trio.run(make)
