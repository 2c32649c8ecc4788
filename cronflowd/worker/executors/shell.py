"""Jobs of type `shell` (a line for /bin/sh) and `script` (words, no shell)."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping

from .job import NOT_FOUND, NOT_RUNNABLE, Ended, Executor, Job, Order, cannot_start
from .processes import run_process

# What systemd tells the worker about itself; a job that took it for its own could report
# readiness or life in the worker's name.
NOT_FOR_JOBS = (
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
)


async def shell(job: Job) -> Ended:
    """The command is one line for /bin/sh."""
    return await run_process(job, ["/bin/sh", "-c", job.order.command], job_environ(job.order))


async def script(job: Job) -> Ended:
    """The command is a program and its arguments, quoted as POSIX says."""
    try:
        argv = shlex.split(job.order.command)
    except ValueError as error:
        return cannot_start(NOT_RUNNABLE, f"the command cannot be split into words: {error}")
    if not argv:
        return cannot_start(NOT_FOUND, "the command has no words")
    return await run_process(job, argv, job_environ(job.order))


def job_environ(order: Order, inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What the process finds in its environment; the run's own names go before all others."""
    environ = {key: value for key, value in inherited.items() if key not in NOT_FOR_JOBS}
    options = order.options
    for key, value in options.items():
        if key.startswith("env."):
            environ[key[4:]] = value
        elif key.startswith("arg."):
            environ["CRONFLOW_ARG_" + key[4:]] = value
    environ["CRONFLOW_RUN_ID"] = order.run
    environ["CRONFLOW_ATTEMPT"] = order.attempt
    for name, key in _TOLD.items():
        environ[name] = options.get(key, "")
    return environ


_TOLD = {
    "CRONFLOW_TASK_ID": "task",
    "CRONFLOW_JOB_NAME": "name",
    "CRONFLOW_DUE_AT": "due",
    "CRONFLOW_FIRE_ID": "fire",
}

SHELL = Executor(shell)
SCRIPT = Executor(script)
