"""What each call is over HTTP."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

from .doors import HttpDoor

Json = dict[str, Any]


class OverHttp(HttpDoor):
    def create_job(self, job: Json, key: str | None) -> Json:
        return self._ask("POST", "/jobs", job, **({"Idempotency_Key": key} if key else {}))

    def get_job(self, ref: str) -> Json:
        return self._ask("GET", f"/jobs/{_word(ref)}")

    def list_jobs(self, page: int, limit: int, asked: dict[str, str]) -> list[Json]:
        found: list[Json] = self.ask("GET", f"/jobs?{urlencode({'page': page, 'limit': limit} | asked)}")
        return found

    def update_job(self, ref: str, changes: Json) -> Json:
        return self._ask("PATCH", f"/jobs/{_word(ref)}", changes)

    def delete_job(self, ref: str) -> Json:
        return self._ask("DELETE", f"/jobs/{_word(ref)}")

    def pause_job(self, ref: str, until: str | None, why: str | None) -> Json:
        return self._ask("POST", f"/jobs/{_word(ref)}/pause", {"until": until, "why": why})

    def resume_job(self, ref: str) -> Json:
        return self._ask("POST", f"/jobs/{_word(ref)}/resume")

    def execute_job_now(self, ref: str, args: dict[str, Any]) -> Json:
        return self._ask("POST", f"/jobs/{_word(ref)}/trigger", {"args": args})

    def cancel_execution(self, run: int) -> Json:
        return self._ask("POST", f"/executions/{run}/cancel")

    def get_executions(self, ref: str | None, state: str | None, limit: int) -> list[Json]:
        asked = {"jobId": ref, "state": state, "limit": limit}
        query = urlencode({key: value for key, value in asked.items() if value is not None})
        found: list[Json] = self.ask("GET", f"/executions?{query}")
        return found

    def get_execution(self, run: int) -> Json:
        return self._ask("GET", f"/executions/{run}")

    def get_log(self, run: int) -> list[Json]:
        found: list[Json] = self.ask("GET", f"/executions/{run}/log")
        return found

    def preview_schedule(self, cron: str, timezone: str | None, count: int) -> list[Json]:
        body = {"cron": cron, "timezone": timezone, "count": count}
        found: list[Json] = self._ask("POST", "/inspector/preview", body)["occurrences"]
        return found

    def get_system_status(self) -> Json:
        board = self._ask("GET", "/monitoring/dashboard")
        return {
            "jobs": {"total": board["totalJobs"]} | board["jobsByStatus"],
            "last24h": board["last24h"],
            "workers": self.ask("GET", "/workers"),
            "upcoming": board["upcoming"],
        }

    def _ask(self, method: str, path: str, body: Any = None, **headers: str) -> Json:
        found: Json = self.ask(method, path, body, **headers)
        return found


def _word(ref: str) -> str:
    return quote(ref, safe="")
