"""What a worker can carry out, by type. To add a type: an executor, and a row in a table.

job         what an executor is given and gives back
output      what a job writes, bounded
processes   processes as jobs
shell       shell and script
builtin     echo, sleep and calculate
custom      handlers, seen from the worker
handler     the process of one handler
remote      what talks to a server
client      one HTTP request
http        http and webhook
email       email
"""

from __future__ import annotations

from functools import partial

from ...host.config import WorkerSettings
from .builtin import CALCULATE, ECHO, SLEEP
from .custom import run_handler
from .http import is_possible, run_http, run_webhook
from .job import Executor, as_task
from .shell import begin_script, begin_shell, worker_environ


def make_table(settings: WorkerSettings) -> dict[str, Executor]:
    """What a worker with these settings can do on this machine; its `can=` names nothing else."""
    environ = worker_environ(settings.pass_env)
    table = {
        "shell": Executor(partial(begin_shell, environ=environ)),
        "script": Executor(partial(begin_script, environ=environ)),
        "echo": ECHO,
        "sleep": SLEEP,
        "calculate": CALCULATE,
        "custom": Executor(as_task(partial(run_handler, directory=settings.handlers, environ=environ))),
    }
    if is_possible():
        private = settings.http_private == "allow"
        table["http"] = Executor(as_task(partial(run_http, private=private)))
        table["webhook"] = Executor(as_task(partial(run_webhook, private=private)))
    if settings.smtp is not None:
        from .email import Mailer  # what reads and writes mail is large, and most workers send none

        table["email"] = Executor(as_task(Mailer(settings).run))
    return {kind: table[kind] for kind in table if kind in (settings.allow_type or table)}
