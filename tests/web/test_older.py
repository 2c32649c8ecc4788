"""Clients of before find what they knew: their paths, their shapes, no envelope."""

from __future__ import annotations

from pathlib import Path

import trio

from tests.lib.asgi import Browser
from tests.lib.web_api import an_api, somebody

HELLO = {
    "type": "script",
    "name": "hello-script",
    "schedule": "*/2 * * * *",
    "timezone": "UTC",
    "script": {"command": "node", "args": ["scripts/hello.js"], "cwd": "./"},
}


def test_a_script_job_is_made_and_its_runs_are_listed(tmp_path: Path) -> None:
    """As the example has it, to the letter."""

    async def live() -> None:
        async with an_api(tmp_path) as (browser, daemon):
            made = await browser.post("/api/jobs", HELLO)
            assert made.status == 201
            job = made.json
            assert (job["name"], job["schedule"], job["timezone"]) == ("hello-script", "*/2 * * * *", "UTC")
            assert job["script"] == {"command": "node", "args": ["scripts/hello.js"]}
            assert (await browser.get("/api/jobs")).json == [job]
            at = f"/api/jobs/{job['_id']}"
            assert (await browser.get(at)).json == job
            assert (await browser.ask("PATCH", at, {"status": "paused"})).json["enabled"] is False
            assert (await browser.ask("PATCH", at, {"schedule": "@hourly", "status": "active"})).json[
                "enabled"
            ]
            await daemon.say("RUN hello-script")
            (run,) = (await browser.get(f"/api/runs?jobId={job['id']}")).json
            assert (run["jobId"], run["status"]) == (job["id"], "queued")
            seen = await browser.post(
                "/api/inspector/preview", {"cron": "0 9 * * *", "timezone": "UTC", "count": 3}
            )
            assert [each["utc"] for each in seen.json["occurrences"]] == [
                f"2030-01-0{day}T09:00:00Z" for day in (2, 3, 4)
            ]
            assert (
                len((await browser.get(f"/api/inspector/job/{job['id']}?count=10")).json["occurrences"]) == 10
            )
            http = {
                "type": "http",
                "name": "ping",
                "schedule": "@daily",
                "http": {"url": "http://a/", "method": "GET"},
            }
            assert (await browser.post("/api/jobs", http)).json["http"] == http["http"]
            assert (await browser.ask("DELETE", at)).json == {"id": job["id"], "message": "removed"}
            gone = await browser.get(at)
            assert (
                gone.status == 404
                and gone.json["code"] == "not-found"
                and gone.json["error"] == 'no task "1"'
            )
            assert (await Browser(browser.app).get("/api/health")).json["daemon"] == "up"

    trio.run(live)


def test_of_more_jobs_than_a_list_holds_the_number_is_told_and_the_next_page(tmp_path: Path) -> None:
    """After a thousand the list ended, and nothing said that there were more."""

    async def ask() -> None:
        async with an_api(tmp_path) as (browser, daemon):
            for name in "abc":
                await daemon.say(f"ADD name={name} @daily x")
            for path in ("/jobs", "/api/jobs"):
                found = await browser.get(f"{path}?limit=2&page=2")
                assert [job["name"] for job in found.json] == ["c"]
                assert found.headers["x-total-count"] == "3"
                assert len((await browser.get(f"{path}?limit=5000")).json) == 3

    trio.run(ask)


def test_jobs_and_agents_of_the_other_one(tmp_path: Path) -> None:
    """Where a page has the same path, a browser is given the page."""

    async def live() -> None:
        async with an_api(tmp_path) as (browser, daemon):
            said = {
                "name": "greet",
                "command": 'echo "Hello World"',
                "cron": "0 9 * * 1-5",
                "agentId": "web1",
            }
            job = (await browser.post("/jobs", said)).json
            assert (job["command"], job["agentId"]) == ('echo "Hello World"', "web1")
            assert (await browser.get("/jobs")).json == [job]
            got = (await browser.ask("PATCH", f"/jobs/{job['id']}", {"status": "paused"})).json
            assert got["status"] == "paused"
            back = await browser.ask("PUT", f"/jobs/{job['id']}", got | {"status": "active"})
            assert back.json["enabled"]
            wrong = await browser.ask("PATCH", f"/jobs/{job['id']}", {"status": "perhaps"})
            assert wrong.status == 400 and wrong.json["field"] == "status"
            assert (await browser.post("/jobs", {"colour": 1})).json["field"] == "colour"
            page = await browser.get("/jobs", accept="text/html,application/xhtml+xml")
            assert page.status == 404 or page.headers["content-type"].startswith("text/html")

            agent = (await browser.post("/agents", {"hostname": "web1", "ip": "192.0.2.7"})).json
            assert agent["name"] == "web1"
            await daemon.world.play("w", None, f"HELLO name=web1 slots=2 token={agent['token']}")
            (told,) = (await browser.get("/agents")).json
            assert (told["id"], told["status"], told["slots"]) == ("web1", "online", 2)
            assert (told["hostname"], told["lastSeen"]) == ("web1", told["lastSeenAt"])
            assert (await browser.post("/agents/heartbeat", {"agentId": "web1"})).json["status"] == "ok"
            await daemon.world.play("X", None, "w1")
            await daemon.world.settle()
            for name in ("web1", "web2"):  # one that has gone, and one that never came
                silent = await browser.post("/agents/heartbeat", {"name": name})
                assert (silent.status, silent.json.get("field")) == (404, "name"), silent.json
                assert f'no worker "{name}" is connected' in silent.json["error"]
            assert (await browser.post("/agents/heartbeat", {})).status == 400
            user = await somebody(browser.app, daemon, "user")
            assert (await user.post("/agents", {"name": "web3"})).json["code"] == "denied"
            assert (await browser.ask("DELETE", f"/jobs/{job['id']}")).status == 200

    trio.run(live)


async def test_a_form_is_no_request_of_a_program(tmp_path: Path) -> None:
    """A page of another site can have a browser send one, wherever it is that JSON is read."""
    async with an_api(tmp_path) as (browser, daemon):
        for path in ("/api/jobs", "/jobs", "/agents", "/login"):
            answer = await browser.ask("POST", path, form={"name": "x", "command": "x"})
            assert (answer.status, answer.json["code"]) == (415, "media-type"), path
        assert (await daemon.ask("LIST count=yes")).status["total"] == 0
