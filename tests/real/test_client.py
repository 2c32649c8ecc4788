"""The Python client says the same through either door."""

from __future__ import annotations

import contextlib
import os
import signal
import urllib.request
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
import trio

from cronflowd.client import AsyncClient, Client, CronflowError
from tests.real.running import Daemon, wait_until
from tests.real.test_openapi import token_of

REPORT = {
    "name": "Weekly Report",
    "description": "Job description",
    "schedule": "weekly on monday",  # not while this is tried
    "command": "echo $CRONFLOW_ARG_WHO; echo oh >&2",
    "priority": "HIGH",
    "retryPolicy": {"type": "FIXED", "maxRetries": 3, "delayMs": 1000},
    "enabled": True,
    "metadata": {"commandArgs": {"a": 1}},
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One for all tests, which begin without a job."""
    daemon = Daemon(
        tmp_path_factory.mktemp("served") / "data", "--http", "127.0.0.1:0", "--local-worker", "2"
    )
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.close()


@pytest.fixture
def daemon(served: Daemon) -> Daemon:
    assert served.ask("CLEAR")[-1].startswith("OK")
    return served


@pytest.fixture(params=["http", "port", "socket"])
def client(daemon: Daemon, request: pytest.FixtureRequest) -> Iterator[Client]:
    where = {
        "http": f"http://127.0.0.1:{daemon.http_port}", "port": f"127.0.0.1:{daemon.port}",
        "socket": f"unix:{daemon.unix_socket}",
    }[request.param]  # fmt: skip
    with Client(where, token_of(daemon) if request.param == "http" else None) as found:
        yield found


def test_a_job_is_made_run_and_removed(client: Client) -> None:
    """By the names of the library that people come from."""
    key = uuid4().hex
    job = client.create_job(REPORT, key=key)
    assert {key: job[key] for key in REPORT} == REPORT
    assert client.createJob(REPORT, key=key)["id"] == job["id"]
    assert client.get_job("weekly-report") == job
    assert [each["id"] for each in client.list_jobs(search="weekly", sort="name")] == [job["id"]]
    run = client.executeJobNow(job["id"], {"WHO": "world"})
    wait_until(lambda: client.get_execution(run["id"])["state"] == "ok")
    assert client.get_log(run["id"]) == [
        {"level": "info", "text": "world"}, {"level": "error", "text": "oh"},
    ]  # fmt: skip
    assert client.get_execution(str(run["id"]))["id"] == run["id"]
    status = client.getJobStatus(job["id"])
    assert (status["lastRun"]["status"], status["running"]) == ("ok", [])
    assert client.update_job(job["id"], {"maxRetries": 5, "enabled": False})["status"] == "paused"
    assert client.resume_job(job["id"])["retryPolicy"]["maxRetries"] == 5
    assert client.pause_job(job["id"], why="a new release")["enabled"] is False
    assert [each["id"] for each in client.get_executions(job["id"], state="ok")] == [run["id"]]
    assert client.preview_schedule("0 9 * * 1", count=2)[0]["local"].endswith("T09:00:00+00:00")
    system = client.getSystemStatus()
    assert system["jobs"]["total"] == 1 and system["workers"][0]["state"] == "ready"
    assert client.delete_job(job["id"]) == {"id": job["id"], "removed": True}


def test_the_same_words_mean_the_same_at_either_door(client: Client) -> None:
    """The names are those of the API; two jobs may have one title; what ran at once is still told."""
    first, second = (client.create_job(REPORT) for _ in range(2))
    assert second["name"] == first["name"] and second["jobName"].startswith(f"{first['jobName']}-")
    found = client.list_jobs(status="active", sort="-createdAt")
    assert [each["id"] for each in found] == [second["id"], first["id"]]
    assert client.list_jobs(status="completed") == []
    run = client.execute_job_now(first["id"], {"WHO": True})
    wait_until(lambda: client.get_execution(run["id"])["state"] == "ok")
    assert client.get_log(run["id"])[0]["text"] == "true"
    job = client.create_job({"scheduleType": "immediate", "command": "true", "tags": ["t"]})
    wait_until(lambda: client.get_job(job["id"])["status"] == "completed")
    assert client.get_job(job["id"])["lastRun"]["status"] == "ok" and job["tags"] == ["t"]
    (worker,) = client.get_system_status()["workers"]
    assert {"lastSeenAt", "slots"} <= worker.keys() and isinstance(worker["can"], list)


def test_a_refusal_has_a_code_and_a_field(client: Client) -> None:
    """And the connection is good for what comes then."""
    for said, code, field in (
        ({"command": "x", "cronExpression": "61 * * * *"}, "bad-schedule", "cronExpression"),
        ({"command": "x", "color": "red"}, "bad-option", "color"),
        ({"command": "x", "scheduleType": "immediate", "enabled": False}, "bad-option", "enabled"),
        ({"command": "x", "schedule": "@daily", "dependencies": ["nope"]}, "not-found", "dependencies"),
    ):
        with pytest.raises(CronflowError) as caught:
            client.create_job(said)
        assert (caught.value.code, caught.value.field) == (code, field)
    for ref in ("nope", "all", "a b", "x\nCLEAR"):
        with pytest.raises(CronflowError) as caught:
            client.pause_job(ref)
        assert caught.value.code == "not-found"
    assert client.list_jobs() == []
    job = client.create_job({"name": "a", "command": "true", "schedule": "@daily"})
    with pytest.raises(CronflowError) as caught:
        client.execute_job_now(job["id"], {"no name": 1})
    assert (caught.value.code, caught.value.field) == ("bad-option", "args.no name")
    with pytest.raises(CronflowError) as caught:
        client.pause_job(job["id"], until="some day")
    assert (caught.value.code, caught.value.field) == ("bad-schedule", "until")
    with pytest.raises(CronflowError) as caught:
        client.preview_schedule("@daily", timezone="Mars/Base")
    assert (caught.value.code, caught.value.field) == ("bad-option", "timezone")


@pytest.mark.parametrize(
    ("call", "code", "field"),
    [
        (lambda client: client.list_jobs(limit=500), "bad-option", "limit"),
        (lambda client: client.list_jobs(page=0), "bad-option", "page"),
        (lambda client: client.get_executions(limit=0), "bad-option", "limit"),
        (lambda client: client.get_executions("a/b"), "not-found", None),
        (lambda client: client.get_job(""), "not-found", None),
        (lambda client: client.get_job("a/b"), "not-found", None),
        (lambda client: client.get_execution(0), "not-found", None),
        (lambda client: client.get_log("x y"), "not-found", None),
        (lambda client: client.execute_job_now("a", {"A": None}), "bad-option", "args.A"),
        (lambda client: client.preview_schedule("x"), "bad-schedule", "cron"),
        (lambda client: client.preview_schedule("@daily", count=1001), "bad-option", "count"),
    ],
)
def test_what_is_wrong_is_wrong_at_either_door(
    client: Client, call: Callable[[Client], object], code: str, field: str | None
) -> None:
    """Over HTTP an empty name was the list of all jobs, and a page of 500 was refused there alone."""
    client.create_job({"id": "a", "command": "true", "schedule": "@daily"})
    with pytest.raises(CronflowError) as caught:
        call(client)
    assert (caught.value.code, caught.value.field) == (code, field)


def test_any_line_is_said_at_either_door(client: Client) -> None:
    """Flows have no call of their own; and what a line does to its connection is done to no other."""
    client.create_job({"id": "a", "command": "true", "schedule": "@daily"})
    run = client.say("RUN a", key="once")
    assert client.say("RUN a", key="once") == run == {"rows": [], "status": {"run": run["status"]["run"]}}
    assert client.say("HELLO name=me")["status"]["server"] == "cronflowd"
    assert client.say("QUIT")["rows"] == []
    (row,) = client.say("LIST")["rows"]
    assert (row["jobName"], row["schedule"]) == ("a", "@daily")
    for said, code, field in (
        ("GET nope", "not-found", None), ("GET a\nREMOVE a", "syntax", "line"),
        ("FORMAT text", "syntax", "line"), ("WATCH", "syntax", "line"), ("RUN b", "not-found", None),
    ):  # fmt: skip
        with pytest.raises(CronflowError) as caught:
            client.say(said)
        assert (caught.value.code, caught.value.field) == (code, field)
    assert client.get_job("a")["id"] == row["id"]


def test_the_wrong_door_is_named(daemon: Daemon) -> None:
    """Whoever mixes up the ports, or writes half of an address, is told which one it was."""
    for where in f"http://127.0.0.1:{daemon.port}", f"127.0.0.1:{daemon.worker_port}":
        with Client(where) as client, pytest.raises(ConnectionError, match=where.removeprefix("http://")):
            client.list_jobs()
    with pytest.raises(ValueError, match='"localhost" is not HOST:PORT'):
        Client("localhost")


def test_the_connection_is_made_anew_after_the_daemon(
    client: Client, daemon: Daemon, request: pytest.FixtureRequest
) -> None:
    """One call may fail, the next does not."""
    client.create_job({"name": "a", "command": "true", "schedule": "@daily"})
    if "http" in request.node.name:
        os.kill(daemon.gateway(), signal.SIGKILL)
    else:
        daemon.restart()

    def look() -> bool:
        try:
            return [job["name"] for job in client.list_jobs()] == ["a"]
        except (OSError, CronflowError):
            return False

    wait_until(look)


def test_a_connection_that_has_ended_meanwhile_is_no_failure(
    client: Client, daemon: Daemon, request: pytest.FixtureRequest
) -> None:
    """A program that says something every ten minutes failed each time, since silence ends a connection."""
    client.create_job({"name": "a", "command": "true", "schedule": "@daily"})
    if "http" in request.node.name:
        before = daemon.gateway()
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: daemon.gateway() not in (0, before) and _answers(daemon.http_port))
    else:
        daemon.restart()
    client.pause_job("a")
    client.resume_job("a")


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz") as answer:
        return bool(answer.status == 200)
    return False


def test_it_may_be_awaited_under_trio(daemon: Daemon) -> None:
    """Each call, and several at once take turns."""

    async def use() -> None:
        async with AsyncClient(f"unix:{daemon.unix_socket}") as client:
            async with trio.open_nursery() as nursery:
                for n in range(3):
                    said = {"name": f"j{n}", "command": "true", "schedule": "@daily"}
                    nursery.start_soon(client.create_job, said)
            assert sorted(job["name"] for job in await client.listJobs()) == ["j0", "j1", "j2"]

    trio.run(use)
