"""What each call is over HTTP: what comes back is JSON as it is."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

from .doors import HttpDoor

Json = dict[str, Any]


class OverHttp(HttpDoor):
    def create_job(self, job: Json, key: str | None) -> Any:
        return self.ask("POST", "/jobs", job, **({"Idempotency_Key": key} if key else {}))

    def get_job(self, ref: str) -> Any:
        return self.ask("GET", f"/jobs/{_word(ref)}")

    def list_jobs(self, page: int, limit: int, asked: dict[str, str]) -> Any:
        return self.ask("GET", f"/jobs?{urlencode({'page': page, 'limit': limit} | asked)}")

    def update_job(self, ref: str, changes: Json) -> Any:
        return self.ask("PATCH", f"/jobs/{_word(ref)}", changes)

    def delete_job(self, ref: str) -> Any:
        return self.ask("DELETE", f"/jobs/{_word(ref)}")

    def pause_job(self, ref: str, until: str | None, why: str | None) -> Any:
        return self.ask("POST", f"/jobs/{_word(ref)}/pause", {"until": until, "why": why})

    def resume_job(self, ref: str) -> Any:
        return self.ask("POST", f"/jobs/{_word(ref)}/resume")

    def execute_job_now(self, ref: str, args: dict[str, Any]) -> Any:
        return self.ask("POST", f"/jobs/{_word(ref)}/trigger", {"args": args})

    def cancel_execution(self, run: int) -> Any:
        return self.ask("POST", f"/executions/{run}/cancel")

    def get_executions(self, ref: str | None, state: str | None, limit: int) -> Any:
        asked = {"jobId": ref, "state": state, "limit": limit}
        query = urlencode({key: value for key, value in asked.items() if value is not None})
        return self.ask("GET", f"/executions?{query}")

    def get_execution(self, run: int) -> Any:
        return self.ask("GET", f"/executions/{run}")

    def get_log(self, run: int) -> Any:
        return self.ask("GET", f"/executions/{run}/log")

    def preview_schedule(self, cron: str, timezone: str | None, count: int) -> Any:
        body = {"cron": cron, "timezone": timezone, "count": count}
        return self.ask("POST", "/inspector/preview", body)["occurrences"]

    def get_system_status(self) -> Any:
        board = self.ask("GET", "/monitoring/dashboard")
        return {
            "jobs": {"total": board["totalJobs"]} | board["jobsByStatus"],
            "last24h": board["last24h"],
            "workers": self.ask("GET", "/workers"),
            "upcoming": board["upcoming"],
        }


def _word(ref: str) -> str:
    return quote(ref, safe="")
