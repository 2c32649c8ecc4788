"""The calls, each under the name that Python has for it and the one that JavaScript has.

A job is a dictionary with the fields of the HTTP door (`/docs` tells them); so is a run. What is refused
raises CronflowError; where nobody answers, it is an OSError.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, Self

import trio

from ..host.setting import parse_server
from ..host.tls import client_context
from ..web.talks import MAX_LIMIT, MAX_MOMENTS, MAX_PAGE, ref_of, run_of
from .over_http import CronflowError, Json, OverHttp
from .over_lines import OverLines, refusing


class Client:
    """Speaks to one server, from one thread at a time.

    `where` is `http://HOST:PORT` or `https://…`, or the control port, `HOST:PORT` or `unix:PATH`.
    """

    def __init__(
        self, where: str, token: str | None = None, *, tls: ssl.SSLContext | bool | None = None
    ) -> None:
        """`token`: one of TOKEN ADD. `tls`: True, or a context, for a control port that speaks it."""
        context = client_context(None, None, None) if tls is True else tls or None
        if where.startswith(("http://", "https://")):
            self._calls: OverHttp | OverLines = OverHttp(where, token, context)
        else:
            try:
                server = parse_server(where)
            except ValueError as error:
                raise ValueError(f'"{where}" {error}') from None
            self._calls = OverLines(server, token, context)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; the next call begins another."""
        self._calls.close()

    # --- jobs ---

    def create_job(self, job: Json, *, key: str | None = None) -> Json:
        """Makes a job. With a `key`, asking again makes no second one, however the first answer was lost."""
        return self._calls.create_job(job, key)

    def get_job(self, ref: int | str) -> Json:
        """A job, by id or name."""
        return self._calls.get_job(_word(ref))

    def list_jobs(self, *, page: int = 1, limit: int = 100, **asked: str) -> list[Json]:
        """A page of jobs: status=, type=, tag=, search=, sort=."""
        _check(page=(page, MAX_PAGE), limit=(limit, MAX_LIMIT))
        return self._calls.list_jobs(page, limit, asked)

    def update_job(self, ref: int | str, changes: Json) -> Json:
        """Changes what is named."""
        return self._calls.update_job(_word(ref), changes)

    def delete_job(self, ref: int | str) -> Json:
        """Removes a job; its history stays."""
        return self._calls.delete_job(_word(ref))

    def pause_job(self, ref: int | str, *, until: str | None = None, why: str | None = None) -> Json:
        """It starts nothing until it is resumed, or until then."""
        return self._calls.pause_job(_word(ref), until, why)

    def resume_job(self, ref: int | str) -> Json:
        """The opposite."""
        return self._calls.resume_job(_word(ref))

    def get_job_status(self, ref: int | str) -> Json:
        """How a job is: status, nextRunAt, lastRun, and the runs that have not ended."""
        job = self.get_job(ref)
        runs = self.get_executions(job["id"], state="queued,sent,running")
        keys = ("id", "name", "status", "state", "nextRunAt", "lastRun")
        return {key: job[key] for key in keys} | {"running": runs}

    # --- runs ---

    def execute_job_now(self, ref: int | str, args: Json | None = None) -> Json:
        """Runs a job now, whatever its schedule; the job finds each argument as CRONFLOW_ARG_NAME."""
        for name, value in (args or {}).items():
            if not isinstance(value, str | int | float):
                raise CronflowError("bad-option", f"{value!r} is no text and no number", f"args.{name}")
        return self._calls.execute_job_now(_word(ref), args or {})

    def cancel_execution(self, run: int | str) -> Json:
        """Ends a run."""
        return self._calls.cancel_execution(_run(run))

    def get_executions(
        self, ref: int | str | None = None, *, state: str | None = None, limit: int = 100
    ) -> list[Json]:
        """What ran, newest first; of one job, or of all."""
        _check(limit=(limit, MAX_LIMIT))
        return self._calls.get_executions(None if ref is None else _word(ref), state, limit)

    def get_execution(self, run: int | str) -> Json:
        """One run, as it is now."""
        return self._calls.get_execution(_run(run))

    def get_log(self, run: int | str) -> list[Json]:
        """The lines that a run wrote: `level` and `text`."""
        return self._calls.get_log(_run(run))

    # --- the rest ---

    def preview_schedule(self, cron: str, *, timezone: str | None = None, count: int = 5) -> list[Json]:
        """When a schedule would come: `local`, `utc` and `remark` of each moment."""
        _check(count=(count, MAX_MOMENTS))
        return self._calls.preview_schedule(cron, timezone, count)

    def get_system_status(self) -> Json:
        """The jobs by state, the last 24 hours, the workers, and what comes next."""
        return self._calls.get_system_status()

    def say(self, line: str, *, key: str | None = None) -> Json:
        """Any line of the protocol: the `rows` of its answer, by their columns' names, and its `status`."""
        return self._calls.say(line, key)

    createJob, getJob, listJobs, updateJob, deleteJob = (  # noqa: N815  # as JavaScript has them
        create_job, get_job, list_jobs, update_job, delete_job,
    )  # fmt: skip
    pauseJob, resumeJob, getJobStatus, executeJobNow = (  # noqa: N815
        pause_job, resume_job, get_job_status, execute_job_now,
    )  # fmt: skip
    cancelExecution, getExecutions, getExecution, getLog = (  # noqa: N815
        cancel_execution, get_executions, get_execution, get_log,
    )  # fmt: skip
    previewSchedule, getSystemStatus = preview_schedule, get_system_status  # noqa: N815


class AsyncClient:
    """The same for trio: each call of Client may be awaited here, under the same names.

    A call that is cancelled may still be carried out; the connection is given up then.
    """

    def __init__(
        self, where: str, token: str | None = None, *, tls: ssl.SSLContext | bool | None = None
    ) -> None:
        self._client = Client(where, token, tls=tls)
        self._one = trio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._client.close()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self._client, name)

        async def wait(*args: Any, **options: Any) -> Any:
            async with self._one:
                try:
                    return await trio.to_thread.run_sync(
                        lambda: call(*args, **options), abandon_on_cancel=True
                    )
                except trio.Cancelled:
                    self._client.close()
                    raise

        return wait


def _word(ref: int | str) -> str:
    """Raises CronflowError."""
    with refusing():
        return ref_of(str(ref))


def _run(run: int | str) -> int:
    """Its number, which may be a text, as whoever was called with it has it. Raises CronflowError."""
    with refusing():
        return run_of(str(run))


def _check(**given: tuple[int, int]) -> None:
    for name, (value, most) in given.items():
        if not 1 <= value <= most:
            raise CronflowError("bad-option", f"{name} is a whole number from 1 to {most}, not {value}", name)
