"""How the whole is, by REST; schedules before they are jobs; and who runs them."""

from __future__ import annotations

from pathlib import Path

import trio

from cronflowd.host.config import WebSettings
from cronflowd.web.line import Unreachable
from tests.lib.asgi import Browser, Scripted
from tests.lib.web_api import API, an_api, make_app, somebody


def test_anybody_may_know_whether_it_is_well(tmp_path: Path) -> None:
    """A load balancer has no account; and names of jobs are not for everybody."""

    async def ask() -> None:
        async with an_api(tmp_path) as (browser, daemon):
            nobody = Browser(browser.app)
            answer = await nobody.get(f"{API}/monitoring/health")
            assert (answer.status, answer.data["status"], answer.data["disk"]) == (200, "healthy", "ok")
            assert (answer.data["journal"], answer.data["workers"], answer.data["uptime"]) == ("ok", 0, 0)
            await daemon.say("ADD name=secret-plan @daily x")
            await daemon.say("RUN secret-plan")
            answer = await nobody.get(f"{API}/monitoring/health")
            assert (answer.status, answer.data["status"]) == (503, "unwell")
            assert answer.data["reasons"] == ["workers"] and "secret-plan" not in answer.text
            assert (await nobody.get(f"{API}/monitoring/dashboard")).status == 401

    trio.run(ask)
    gone = Browser(make_app(WebSettings(data=tmp_path), Scripted({"STATUS": Unreachable("nobody there")})))
    answer = trio.run(gone.get, f"{API}/monitoring/health")
    assert (answer.status, answer.data["daemon"]) == (503, "down")


def test_the_dashboard_has_what_a_person_looks_for_first(tmp_path: Path) -> None:
    """What failed and why, what comes, how many."""

    async def ask() -> None:
        async with an_api(tmp_path) as (browser, daemon):
            await daemon.say("ADD name=a @hourly x")
            await daemon.say("ADD name=never paused=yes @every 10m x")
            await daemon.world.play("w", None, "HELLO name=w1 slots=4")
            for said in ("DONE 1 1 0", 'DONE 2 1 7 why="no space left"'):
                await daemon.say("RUN a")
                await daemon.world.play("w", None, said)
            await daemon.world.play("T", None, "+1m")
            found = (await browser.get(f"{API}/monitoring/dashboard")).data
            assert (found["totalJobs"], found["last24h"]["ok"], found["successRate"]) == (2, 1, 0.5)
            (failed,) = found["failedJobs"]
            assert (failed["jobName"], failed["exitCode"], failed["why"]) == ("a", 7, "no space left")
            assert found["upcoming"][0] == {"jobId": 1, "jobName": "a", "at": "2030-01-01T13:00:00Z"}
            assert {each["jobName"] for each in found["upcoming"]} == {"a"}, (
                "one that is paused does not come"
            )
            assert [run["state"] for run in found["recent"]] == ["failed", "ok"]
            assert [(day["day"], day["fires"], day["failed"]) for day in found["daily"]] == [
                ("2030-01-01", 2, 1)
            ]

    trio.run(ask)


def test_figures_are_for_admins_and_for_a_prometheus_of_this_machine(tmp_path: Path) -> None:
    """Names of jobs stand in them; a proxy here may speak for anybody."""

    async def ask() -> None:
        async with an_api(tmp_path) as (browser, daemon):
            assert (await browser.get(f"{API}/monitoring/metrics")).data["metrics"][
                "cronflowd_disk_full"
            ] == 0
            viewer = await somebody(browser.app, daemon, "viewer")
            assert (await viewer.get(f"{API}/monitoring/metrics")).error == (403, "denied")
            near = await Browser(browser.app).get("/metrics")
            assert near.text.startswith("# HELP cronflowd_") and near.text.endswith("\n")
            assert near.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
            assert (await Browser(browser.app, "192.0.2.9").get("/metrics")).status == 401
            for shown in {"x_forwarded_for": "192.0.2.9"}, {"via": "1.1 proxy"}, {"x_real_ip": "192.0.2.9"}:
                assert (await Browser(browser.app).get("/metrics", **shown)).status == 401
            assert (await Browser(browser.app, version="1.0").get("/metrics")).status == 401
            viewer.address = "192.0.2.9"
            assert (await viewer.get("/metrics")).status == 200

    trio.run(ask)


def test_a_schedule_is_shown_before_it_is_a_jobs(tmp_path: Path) -> None:
    """Its meaning and its moments, with what a clock change does to them."""

    async def ask() -> None:
        async with an_api(tmp_path) as (browser, _):
            said = {"cron": "30 2 * * *", "timezone": "Europe/Paris", "count": 100}
            found = (await browser.post(f"{API}/inspector/preview", said)).data
            assert found["means"] == "every day at 2:30" and found["timezone"] == "Europe/Paris"
            assert len(found["occurrences"]) == 100
            assert [each for each in found["occurrences"] if each["remark"]] == [
                {"local": "2030-03-31T03:00:00+02:00", "utc": "2030-03-31T01:00:00Z", "remark": "moved"}
            ]
            for body, field in (
                ({"cron": "61 * * * *"}, "cron"), ({"cron": ""}, "cron"), ({"cron": 'a" n=1'}, "cron"),
                ({"cron": "@daily", "timezone": "Mars/Base"}, "timezone"),
                ({"cron": "@daily", "count": 0}, "count"), ({"corn": "@daily"}, "corn"),
            ):  # fmt: skip
                answer = await browser.post(f"{API}/inspector/preview", body)
                assert (answer.status, answer.json["error"].get("field")) == (400, field), body
            await browser.post(f"{API}/jobs", {"name": "a", "command": "x", "cronExpression": "0 3 * * *"})
            assert len((await browser.get(f"{API}/inspector/job/a?count=10")).data) == 10

    trio.run(ask)


def test_workers_and_what_shows_life(tmp_path: Path) -> None:
    """Drained and taken back; and a beat by HTTP is one."""

    async def ask() -> None:
        async with an_api(tmp_path) as (browser, daemon):
            await daemon.world.play("w", None, "HELLO name=w1 slots=4 labels=disk=ssd,zone=eu can=shell,http")
            (worker,) = (await browser.get(f"{API}/workers")).data
            assert "version" in worker
            assert (worker["name"], worker["slots"], worker["can"]) == ("w1", 4, ["http", "shell"])
            assert worker["labels"] == {"disk": "ssd", "zone": "eu"}
            assert (await browser.post(f"{API}/workers/w1/drain")).data == {"name": "w1", "state": "draining"}
            assert (await browser.post(f"{API}/workers/w1/undrain")).data["state"] == "ready"
            assert (await browser.post(f"{API}/workers/w2/drain")).error == (404, "not-found")
            await daemon.say("EXPECT offsite every=1d grace=30m notify=none")
            beat = await browser.post(f"{API}/beats/offsite", {"status": "3", "text": "312 files"})
            assert beat.data == {"name": "offsite", "dueAt": "2030-01-02T12:30:00Z"}
            (expected,) = (await browser.get(f"{API}/expectations")).data
            assert (expected["state"], expected["text"]) == ("failed", "exit 3: 312 files")
            assert (await browser.post(f"{API}/beats/offsite")).status == 200
            assert (await browser.post(f"{API}/beats/offsite", {"status": "perhaps"})).status == 400
            assert (await browser.post(f"{API}/beats/nothing")).error == (404, "not-found")

    trio.run(ask)


async def test_lists_of_workers_and_of_who_shows_life_have_pages(tmp_path: Path) -> None:
    """As every list: whoever reads one reads them all."""
    async with an_api(tmp_path) as (browser, daemon):
        for name in "abc":
            await daemon.ask(f"EXPECT {name} every=1h")
        found = await browser.get("/api/v1/expectations?page=2&limit=2")
        assert [each["name"] for each in found.data] == ["c"]
        assert found.json["meta"] == {"page": 2, "limit": 2, "total": 3}
        assert (await browser.get("/api/v1/workers")).json["meta"]["total"] == 0
