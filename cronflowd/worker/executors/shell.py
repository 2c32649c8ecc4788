"""Jobs of type `shell` (a line for /bin/sh) and `script` (words, no shell)."""

from __future__ import annotations

import os
import pwd
import shlex
from base64 import b64decode
from collections.abc import Iterable, Mapping
from pathlib import Path

from ...tasks.environment import CRON_SHELL, make_environment
from .job import NOT_FOUND, NOT_RUNNABLE, Ended, Job, Order, cannot_start
from .processes import begin_process


def worker_environ(passed: Iterable[str] = ()) -> dict[str, str]:
    """What all jobs find in their environment."""
    try:
        account = pwd.getpwuid(os.getuid())
        name, home = account.pw_name, account.pw_dir
    except KeyError:  # a user without a name, as in a container
        name, home = os.environ.get("LOGNAME", str(os.getuid())), "/"
    if home == "/" or not Path(home).is_dir():  # a service's user has none of its own
        home = os.environ.get("HOME", home)
    return make_environment(os.environ, passed, name, home)


def begin_shell(job: Job, environ: Mapping[str, str]) -> Ended | None:
    """The command is one line for /bin/sh."""
    return _begin(job, [CRON_SHELL, "-c", job.order.command], environ)


def begin_script(job: Job, environ: Mapping[str, str]) -> Ended | None:
    """The command is a program and its arguments, quoted as POSIX says."""
    try:
        argv = shlex.split(job.order.command)
    except ValueError as error:
        return cannot_start(NOT_RUNNABLE, f"the command cannot be split into words: {error}")
    if not argv:
        return cannot_start(NOT_FOUND, "the command has no words")
    return _begin(job, argv, environ)


def _begin(job: Job, argv: list[str], environ: Mapping[str, str]) -> Ended | None:
    text = job.order.options.get("stdin")
    data = b64decode(text) if text else b""
    return begin_process(job, argv, job_environ(job.order, environ), data)


def job_environ(order: Order, inherited: Mapping[str, str]) -> dict[str, str]:
    """What the process finds in its environment; the run's own names go before all others."""
    environ, options = dict(inherited), order.options
    if order.account:
        environ |= order.account.environ
    for key, value in options.items():
        if "." not in key:  # as of most
            continue
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
